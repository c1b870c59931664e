"""Streets, land, water, networks and stops of the twin, with widths and lengths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qala.city.heights import parse_column, parse_length, parse_levels

if TYPE_CHECKING:
    import geopandas as gpd

#: width of a lane where only their number is tagged, metres (OSM2World: 3.5 m)
LANE_WIDTH = 3.5
#: width of the carriageway by class where nothing is tagged, metres: two lanes of 3.5 m for
#: through roads, as OSM2World assumes; narrower ways are project assumptions
CLASS_WIDTH: dict[str, float] = {
    "motorway": 10.5, "trunk": 7.0, "primary": 7.0, "secondary": 7.0, "tertiary": 7.0,
    "motorway_link": 3.5, "trunk_link": 3.5, "primary_link": 3.5, "secondary_link": 3.5,
    "tertiary_link": 3.5, "unclassified": 5.0, "residential": 5.0, "living_street": 5.0,
    "service": 3.5, "pedestrian": 5.0, "track": 2.5, "road": 5.0, "busway": 3.5,
    "footway": 1.5, "path": 1.0, "cycleway": 2.0, "steps": 1.5, "bridleway": 1.5,
    "corridor": 1.5, "raceway": 7.0,
}  # fmt: skip
#: width of other kinds, metres
OTHER_WIDTH = 3.0
#: a tagged width outside these is refused, metres
WIDTHS = (0.3, 80.0)


def street_widths(
    streets: gpd.GeoDataFrame,
) -> tuple[gpd.GeoDataFrame, list[tuple[str, str, str, str]]]:
    """Give every street a width: as tagged, by lanes, or by class.

    Parameters
    ----------
    streets
        ``id, kind`` and the tags ``width`` and ``lanes``.

    Returns
    -------
    tuple
        Streets with ``width`` (m), ``width_source`` (tag, lanes, class) and ``length``
        (m), and issues (layer, id, action, reason).
    """
    ids = streets["id"].to_numpy(object)
    width, _, bad = parse_column(streets["width"], parse_length)
    lanes, _, odd = parse_column(streets["lanes"], parse_levels)
    issues = [
        ("streets", str(ids[i]), "refused", f"width refused: {why}") for i, why in bad.items()
    ]
    issues += [
        ("streets", str(ids[i]), "refused", f"lanes refused: {why.replace('levels', 'lanes')}")
        for i, why in odd.items()
    ]
    wide = ~np.isnan(width) & ((width < WIDTHS[0]) | (width > WIDTHS[1]))
    issues += [
        ("streets", str(ids[i]), "refused", f"width refused: {width[i]:g} m")
        for i in np.flatnonzero(wide)
    ]
    width[wide] = np.nan
    by_lanes = np.where((lanes >= 1) & (lanes <= 16), lanes * LANE_WIDTH, np.nan)
    by_class = streets["kind"].map(CLASS_WIDTH).fillna(OTHER_WIDTH).to_numpy(float)
    source = np.select([~np.isnan(width), ~np.isnan(by_lanes)], ["tag", "lanes"], "class")
    value = np.select([~np.isnan(width), ~np.isnan(by_lanes)], [width, by_lanes], by_class)
    out = streets.assign(width=np.round(value, 2), width_source=source, length=_length(streets))
    return out, issues


def _length(lines: gpd.GeoDataFrame) -> np.ndarray[Any, Any]:
    import shapely

    return np.asarray(np.round(shapely.length(lines.geometry.to_numpy()), 2))


def with_length(lines: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Add ``length`` in metres."""
    return lines.assign(length=_length(lines))


def with_area(polygons: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Make polygons valid and add ``area`` in m²."""
    import shapely

    shapes = polygons.geometry.to_numpy()
    wrong = ~shapely.is_valid(shapes)
    if wrong.any():
        shapes = shapes.copy()
        fixed = shapely.make_valid(shapes[wrong], method="structure")
        shapes[wrong] = fixed
        polygons = polygons.set_geometry(shapes, crs=polygons.crs)
        polygons = polygons[np.isin(shapely.get_type_id(shapes), [3, 6])].reset_index(drop=True)
    return polygons.assign(area=np.round(shapely.area(polygons.geometry.to_numpy()), 2))


def to_points(layer: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Turn areas into a point inside them."""
    import shapely

    shapes = layer.geometry.to_numpy()
    area = shapely.get_dimensions(shapes) == 2
    if not area.any():
        return layer
    out = shapes.copy()
    out[area] = shapely.point_on_surface(shapes[area])
    return layer.set_geometry(out, crs=layer.crs)
