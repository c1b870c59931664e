"""Terrain under the city: the base of each building, with its datum stated.

Heights are never moved between vertical datums unless the operation is known
to be exact; PROJ otherwise hands orthometric heights on unchanged.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qala.errors import InputError

if TYPE_CHECKING:
    import geopandas as gpd
    import pyproj

    from qala.city.relief import Relief

log = logging.getLogger("qala")

#: datum of a terrain that names none
NOT_STATED = "not stated by the terrain file; heights are used as they are"
#: share of the buildings that the terrain must reach
MIN_COVERAGE = 0.9
#: heights outside these are not of this Earth's land, metres (Dead Sea shore −430, Everest 8,849)
LOWEST, HIGHEST = -500.0, 9000.0


@dataclass(frozen=True)
class Vertical:
    """What the heights of a twin refer to.

    Attributes
    ----------
    datum
        Name of the vertical datum, or a sentence that says it is not known.
    source
        Where base heights come from.
    to_ellipsoid
        Metres to add for heights above the WGS 84 ellipsoid; 0 where not known.
    aligned
        Whether ``to_ellipsoid`` is known, so that 3D Tiles stand at the right
        height on a globe.
    coverage
        Share of the buildings that lie on the terrain.
    """

    datum: str
    source: str
    to_ellipsoid: float = 0.0
    aligned: bool = False
    coverage: float = 1.0


FLAT = Vertical(
    "none: heights above the ground at each building", "0 (no terrain given)", 0.0, False, 0.0
)


def describe_vertical(crs: pyproj.CRS | None, declared: str | None = None) -> tuple[str, bool]:
    """Name the vertical datum of a terrain's CRS and tell if it is ellipsoidal.

    Parameters
    ----------
    crs
        CRS of the terrain file.
    declared
        What the user says the datum is; wins only where the file says nothing.

    Raises
    ------
    InputError
        When the user and the file disagree.
    """
    import pyproj

    parts = crs.sub_crs_list if crs is not None and crs.is_compound else []
    vertical = next((c for c in parts if c.is_vertical), None)
    if vertical is not None:
        if declared and declared not in (vertical.name, _code(vertical)):
            raise InputError(
                f"the terrain says its heights are {vertical.name} ({_code(vertical)}), "
                f"but {declared} was given",
                "one vertical datum",
                "leave the datum out, or correct the file's CRS with gdal_edit.py -a_srs",
            )
        return vertical.name, False
    if crs is not None and len(crs.axis_info) == 3:
        return f"ellipsoidal heights ({crs.name})", True
    if declared:
        if declared.lower() in ("ellipsoid", "ellipsoidal"):
            return "ellipsoidal heights (as declared)", True
        known = pyproj.CRS.from_user_input(declared)
        return known.name, False
    return NOT_STATED, False


def _vertical_unit(crs: pyproj.CRS) -> str:
    """Return the unit of the heights by the CRS; empty where it tells none."""
    axes = [a for a in crs.axis_info if a.direction in ("up", "down")]
    return str(axes[0].unit_name) if axes else ""


def _code(crs: pyproj.CRS) -> str:
    authority = crs.to_authority()
    return ":".join(authority) if authority else crs.name


def undulation_at(crs: pyproj.CRS, lon: float, lat: float) -> float:
    """Return geoid minus ellipsoid at a place, metres, from PROJ's grids.

    Raises
    ------
    InputError
        When PROJ lacks the datum's grid: it would hand heights on unchanged
        (a *ballpark* operation), tens of metres off.
    """
    import pyproj
    from pyproj.transformer import TransformerGroup

    vertical = next(c for c in crs.sub_crs_list if c.is_vertical)
    compound = pyproj.CRS(f"EPSG:4326+{vertical.to_epsg()}") if vertical.to_epsg() else crs
    group = TransformerGroup(compound, "EPSG:4979", always_xy=True, allow_ballpark=False)
    exact = [t for t in group.transformers if "allpark" not in t.description]
    if not exact:
        raise InputError(
            f"PROJ has no grid to turn {vertical.name} into ellipsoidal heights",
            "the datum's grid, or the area's undulation",
            "give the undulation in metres (geoid above ellipsoid, for instance from the national "
            "geodetic service) with --undulation",
        )
    moved = exact[0].transform(lon, lat, 0.0)[2]
    if not np.isfinite(moved) or moved == 0.0:
        raise InputError(
            f"PROJ's operation from {vertical.name} to the ellipsoid gives {moved} m",
            "the geoid's undulation there",
            "give the undulation in metres with --undulation",
        )
    return float(moved)


def base_heights(
    table: gpd.GeoDataFrame,
    terrain: str | Path | None,
    *,
    undulation: float | None = None,
    vertical_datum: str | None = None,
    min_coverage: float = MIN_COVERAGE,
) -> tuple[gpd.GeoDataFrame, Vertical, list[tuple[str, str, str, str]]]:
    """Stand every building on the lowest terrain of its outline, so that none floats.

    Parameters
    ----------
    table
        Buildings, projected CRS in metres; parts stand on their building's base.
    terrain
        GeoTIFF of heights in metres, any CRS; None leaves every base at 0.
    undulation
        Geoid above the WGS 84 ellipsoid in this area, metres; only moves 3D Tiles.
    vertical_datum
        ``ellipsoidal`` or an EPSG code, where the file doesn't say.
    min_coverage
        Smallest share of buildings on the terrain.

    Returns
    -------
    tuple
        The table with ``base_z`` and ``base_source`` (terrain, nearest, none), what
        the heights refer to, and issues (layer, id, action, reason).

    Raises
    ------
    InputError
        When the terrain has no CRS, covers too little of the city (the share is
        told), holds impossible heights, or its datum can't be turned exactly.
    """
    if terrain is None:
        return table.assign(base_z=0.0, base_source="none"), FLAT, []
    import pyproj
    import rasterio
    from rasterio.errors import RasterioIOError

    try:
        with rasterio.open(terrain) as src:
            if src.crs is None:
                raise InputError(f"{terrain} has no CRS", "a georeferenced terrain raster",
                                 "assign it with gdal_edit.py -a_srs")  # fmt: skip
            crs = pyproj.CRS.from_user_input(src.crs.to_wkt())
            with _upright(src) as north_up:
                lowest = _lowest(table, north_up, crs) * src.scales[0] + src.offsets[0]
            units = src.units[0] or _vertical_unit(crs)
    except RasterioIOError as error:
        raise InputError(f"{terrain} cannot be read as a raster ({error})", "a GeoTIFF") from error
    if units and units.lower() not in ("m", "metre", "meter", "metres", "meters"):
        raise InputError(
            f"{terrain} holds heights in {units}", "metres",
            "convert them, for instance gdal_calc.py -A FILE --calc 'A*0.3048' for feet, and name "
            "a vertical CRS in metres",
        )  # fmt: skip
    have = np.isfinite(lowest)
    if have.any() and (np.min(lowest[have]) < LOWEST or np.max(lowest[have]) > HIGHEST):
        raise InputError(
            f"{terrain} holds heights from {np.min(lowest[have]):g} to {np.max(lowest[have]):g} m "
            "under the city",
            f"heights from {LOWEST:g} to {HIGHEST:g} m",
            "declare its missing value with gdal_edit.py -a_nodata",
        )
    coverage = float(have.mean()) if len(table) else 1.0
    if coverage < min_coverage:
        raise InputError(
            f"{terrain} covers {coverage:.1%} of the {len(table)} buildings",
            f"at least {min_coverage:.0%}",
            "name a terrain of the whole area, or make the area smaller",
        )
    table, issues = _fill(table, lowest, have)
    datum, ellipsoidal = describe_vertical(crs, vertical_datum)
    offset, aligned = 0.0, ellipsoidal
    if not ellipsoidal and undulation is not None:
        offset, aligned = float(undulation), True
    elif not ellipsoidal and crs.is_compound:
        geographic = pyproj.Transformer.from_crs(table.crs, "EPSG:4326", always_xy=True)
        box = table.total_bounds
        lon, lat = geographic.transform((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        offset, aligned = undulation_at(crs, lon, lat), True
    if not aligned:
        log.warning("the terrain's vertical datum is not known; 3D Tiles keep its heights as they "
                    "are and may stand off a globe's own terrain")  # fmt: skip
    return table, Vertical(datum, str(Path(terrain).name), offset, aligned, coverage), issues


def _upright(src: Any) -> Any:
    """Return the raster with north up; a turned or mirrored one by its nearest cells."""
    from contextlib import nullcontext

    from rasterio.enums import Resampling
    from rasterio.vrt import WarpedVRT

    a, b, _, d, e = src.transform[:5]
    if b == 0 and d == 0 and a > 0 and e < 0:
        return nullcontext(src)
    # without a missing value the corners of a turned raster would hold zeros
    nodata = src.nodata if src.nodata is not None else np.nan
    kind = None if src.nodata is not None else "float64"
    return WarpedVRT(src, crs=src.crs, resampling=Resampling.nearest, nodata=nodata, dtype=kind)


def _lowest(table: gpd.GeoDataFrame, src: Any, crs: pyproj.CRS) -> np.ndarray[Any, Any]:
    """Lowest cell that each outline touches; NaN where it touches none."""
    import pyproj
    import shapely
    from exactextract import exact_extract

    flat = crs.sub_crs_list[0] if crs.is_compound else crs.to_2d()
    move = pyproj.Transformer.from_crs(table.crs, flat, always_xy=True)
    shapes = shapely.transform(
        table.geometry.to_numpy(), lambda xy: np.column_stack(move.transform(xy[:, 0], xy[:, 1]))
    )
    import geopandas as gpd

    zones = gpd.GeoDataFrame({"n": np.arange(len(table))}, geometry=shapes, crs=src.crs)
    out = np.full(len(table), np.nan)
    box, left = shapely.bounds(shapes), src.bounds
    inside = (
        (box[:, 0] < left.right) & (box[:, 2] > left.left)
        & (box[:, 1] < left.top) & (box[:, 3] > left.bottom)
    )  # fmt: skip
    if inside.any():
        found = exact_extract(
            _source(src, box[inside]), zones[inside], ["min"], output="pandas",
            include_cols=["n"],
        )  # fmt: skip
        out[found["n"].to_numpy(int)] = found["min"].to_numpy(float)
    return out


#: cells up to which the terrain under the city is read at once
AT_ONCE = 50_000_000


def _source(src: Any, boxes: np.ndarray[Any, Any]) -> Any:
    """Return the terrain under boxes, in memory where it fits: read once and not by outline."""
    from exactextract.raster import NumPyRasterSource, RasterioRasterSource
    from rasterio.windows import Window

    from qala.city.heights import pixel_of

    (c0, c1), (r0, r1) = (
        np.sort(v) for v in pixel_of(
            src.transform, np.array([boxes[:, 0].min(), boxes[:, 2].max()]),
            np.array([boxes[:, 3].max(), boxes[:, 1].min()]),
        )
    )  # fmt: skip
    c0, r0 = max(int(np.floor(c0)) - 1, 0), max(int(np.floor(r0)) - 1, 0)
    c1, r1 = min(int(np.ceil(c1)) + 1, src.width), min(int(np.ceil(r1)) + 1, src.height)
    window = Window(c0, r0, c1 - c0, r1 - r0)
    if (c1 - c0) * (r1 - r0) > AT_ONCE:
        return RasterioRasterSource(src)
    data = np.ma.filled(src.read(1, window=window, masked=True).astype(float), np.nan)
    west, south, east, north = src.window_bounds(window)
    return NumPyRasterSource(
        data, xmin=west, ymin=south, xmax=east, ymax=north, srs_wkt=src.crs.to_wkt()
    )


def _fill(
    table: gpd.GeoDataFrame, lowest: np.ndarray[Any, Any], have: np.ndarray[Any, Any]
) -> tuple[gpd.GeoDataFrame, list[tuple[str, str, str, str]]]:
    """Give buildings over voids the base of the nearest, and parts that of their building."""
    from scipy.spatial import cKDTree

    issues: list[tuple[str, str, str, str]] = []
    source = np.where(have, "terrain", "nearest").astype(object)
    base = lowest.copy()
    if not have.all():
        centre = table.geometry.centroid
        xy = np.column_stack([centre.x, centre.y])
        near, index = cKDTree(xy[have]).query(xy[~have])
        base[~have] = base[have][index]
        issues = [
            ("buildings", str(i), "repaired",
             f"no terrain here; base taken from a building {d:.0f} m away")
            for i, d in zip(table["id"].to_numpy(object)[~have], near, strict=True)
        ]  # fmt: skip
    owner = table["parent"].where(table["parent"].notna(), table["id"])
    table = table.assign(base_z=np.round(base, 3), base_source=source.astype(str))
    table["base_z"] = table.groupby(owner.to_numpy(object))["base_z"].transform("min")
    return table, issues


def lower_to_relief(table: gpd.GeoDataFrame, relief: Relief) -> gpd.GeoDataFrame:
    """Lower bases that stand above the smoothed terrain, so that no building floats over it.

    Parameters
    ----------
    table
        Buildings with ``base_z``; parts stand on their building's base.
    relief
        The terrain that is shown and exported.
    """
    import shapely

    shapes = table.geometry.to_numpy()
    xy, index = shapely.get_coordinates(shapes, return_index=True)
    ground = relief.at(xy[:, 0], xy[:, 1])
    least = np.full(len(table), np.inf)
    np.fmin.at(least, index, ground)
    base = np.minimum(table["base_z"].to_numpy(float), np.round(least, 3))
    owner = table["parent"].where(table["parent"].notna(), table["id"])
    table = table.assign(base_z=base)
    table["base_z"] = table.groupby(owner.to_numpy(object))["base_z"].transform("min")
    return table
