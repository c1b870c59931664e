"""Where people are within cells, and what of lines and areas lies in zones.

People of a cell stand at evenly spaced points, so that a walk of 500 m can be told from a cell of
1 km. Sums over zones are sparse matrices: millions of points, no loop over them.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qala.indicator_definitions import MOST_PLACES, SPACING_METRES
from qala.units import Coverage
from qala.vector import MAX_EDGE_M, _polygons_only, to_crs_of

if TYPE_CHECKING:
    import geopandas as gpd
    from numpy.typing import NDArray
    from odc.geo.geobox import GeoBox
    from scipy.sparse import csr_matrix

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]
    Shapes = NDArray[np.object_]

log = logging.getLogger("qala")

_EARTH = 6_371_008.8
_WHOLE = 1 - 1e-9


def in_degrees(shapes: Shapes, box: GeoBox) -> Shapes:
    """Return shapes of a grid's CRS in WGS 84, long edges densified."""
    import pyproj
    import shapely

    assert box.crs is not None
    move = pyproj.Transformer.from_crs(box.crs.proj, "EPSG:4326", always_xy=True).transform
    moved: Shapes = shapely.transform(
        shapely.segmentize(shapes, MAX_EDGE_M),
        lambda xy: np.column_stack(move(xy[:, 0], xy[:, 1])),
    )
    broken = ~shapely.is_valid(moved)
    if broken.any():
        moved[broken] = _polygons_only(shapely.make_valid(moved[broken]))
    return moved


# --- people as points ---------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Places:
    """Points that stand for the people of cells.

    Attributes
    ----------
    lon, lat
        (places,), degrees.
    weights
        scipy CSR, polygons × places: people of a polygon at a place. A row sums to the people of
        the polygon by exact overlay.
    spacing
        Metres between the points of a cell.
    """

    lon: Floats
    lat: Floats
    weights: csr_matrix
    spacing: float


def people_places(
    cover: Coverage,
    people: Floats,
    shapes: Shapes,
    *,
    spacing: float = SPACING_METRES,
    most: int = MOST_PLACES,
) -> Places:
    """Set people of cells at evenly spaced points, so that distances are measured from inside.

    Parameters
    ----------
    cover
        Exact overlay of polygons with the grid.
    people
        People at ``cover.cells``; missing ones count as none.
    shapes
        The polygons in the grid's CRS.
    spacing
        Metres between points at most; a cell of that size or less is one point.
    most
        Points at most; the spacing grows where there would be more.

    Returns
    -------
    Places
        A cell cut by a border has each part's people at its points on that side, or at all of
        its points where none lies there.
    """
    import pyproj
    from scipy.sparse import csr_matrix

    box = cover.box
    t, width = box.transform, box.shape[1]
    live = np.flatnonzero(np.nan_to_num(people) > 0)
    side = max(1, math.ceil(t.a / spacing - 1e-9))
    if live.size * side**2 > most:
        side = max(1, int(math.sqrt(most / live.size)))
        log.warning(
            "%d cells with people: their points are set %.0f m apart, not %.0f",
            live.size, t.a / side, spacing,
        )  # fmt: skip
    row, col = cover.cells[live] // width, cover.cells[live] % width
    step = (np.arange(side) + 0.5) / side
    down, across = (v.ravel() for v in np.meshgrid(step, step, indexing="ij"))
    x = (t.c + (col[:, None] + across[None, :]) * t.a).ravel()
    y = (t.f + (row[:, None] + down[None, :]) * t.e).ravel()
    polygon, place, weight = _weights(cover, people, live, side**2, shapes, x, y)
    matrix = csr_matrix((weight, (polygon, place)), shape=(cover.parts.shape[0], x.size))
    assert box.crs is not None
    lon, lat = pyproj.Transformer.from_crs(box.crs.proj, "EPSG:4326", always_xy=True).transform(
        x, y
    )
    return Places(np.asarray(lon), np.asarray(lat), matrix, t.a / side)


def _weights(
    cover: Coverage,
    people: Floats,
    live: Ints,
    each: int,
    shapes: Shapes,
    x: Floats,
    y: Floats,
) -> tuple[Ints, Ints, Floats]:
    """Return (polygon, place, people): whole cells evenly, cut ones on the polygon's side."""
    parts = cover.parts[:, live].tocoo()
    polygon, cell, part = parts.row.astype(np.int64), parts.col.astype(np.int64), parts.data
    count = part * people[live][cell]
    whole = (part >= _WHOLE) | (each == 1)
    offset = np.arange(each)

    def spread(chosen: Bools) -> tuple[Ints, Ints, Floats]:
        place = (cell[chosen][:, None] * each + offset[None, :]).ravel()
        return np.repeat(polygon[chosen], each), place, np.repeat(count[chosen] / each, each)

    if whole.all():
        return spread(whole)
    cut = ~whole
    border = np.unique(cell[cut])
    points = (border[:, None] * each + offset[None, :]).ravel()
    tree = tree_of(x[points], y[points])
    owner, hit = tree.query(shapes, predicate="intersects")
    place = points[hit]
    pairs = cover.parts.shape[0], live.size
    # of all points inside, those of cells that the polygon is known to cut
    key = owner.astype(np.int64) * pairs[1] + place // each
    known = polygon[cut] * pairs[1] + cell[cut]
    order = np.argsort(known)
    slot = np.clip(np.searchsorted(known[order], key), 0, known.size - 1)
    mine = known[order][slot] == key
    pair = order[slot[mine]]
    inside = np.bincount(pair, minlength=known.size)
    of_pair = count[cut]
    bare = np.zeros(whole.size, bool)
    bare[np.flatnonzero(cut)[inside == 0]] = True
    found = [
        spread(whole),
        (owner[mine].astype(np.int64), place[mine], of_pair[pair] / inside[pair]),
        spread(bare),
    ]
    return tuple(np.concatenate(p) for p in zip(*found, strict=True))  # type: ignore[return-value]


def tree_of(x: Floats, y: Floats) -> Any:
    """Return a spatial index of points."""
    import shapely

    return shapely.STRtree(np.asarray(shapely.points(x, y)))


def straight_metres(lon: Floats, lat: Floats, goal_lon: Floats, goal_lat: Floats) -> Floats:
    """Return straight-line metres from places to the nearest goal; infinite without goals."""
    from scipy.spatial import cKDTree

    from qala.travel import _on_sphere

    if not goal_lon.size:
        return np.full(lon.size, np.inf)
    tree = cKDTree(_on_sphere(goal_lon, goal_lat))
    chord, _ = tree.query(_on_sphere(lon, lat), workers=-1)
    return np.asarray(2 * _EARTH * np.arcsin(np.clip(chord / (2 * _EARTH), 0, 1)))


def weighted_medians(weights: csr_matrix, values: Floats) -> Floats:
    """Return the weighted median of values in each row of weights.

    Parameters
    ----------
    weights
        scipy CSR, rows × values, none negative.
    values
        May be infinite.

    Returns
    -------
    numpy.ndarray
        The least value at which half of the row's weight is reached; NaN for an empty row.

    Examples
    --------
    >>> from scipy.sparse import csr_matrix
    >>> weighted_medians(csr_matrix([[1.0, 1, 2], [0, 0, 0]]), np.array([5.0, 7, 9])).tolist()
    [7.0, nan]
    """
    table = weights.tocoo()
    order = np.lexsort((values[table.col], table.row))
    row, weight, value = table.row[order], table.data[order], values[table.col[order]]
    total = np.bincount(row, weights=weight, minlength=weights.shape[0])
    before = np.concatenate([[0.0], np.cumsum(total)])[row]
    reached = np.cumsum(weight) - before >= total[row] * (0.5 - 1e-12)
    found = np.full(weights.shape[0], np.nan)
    first = np.flatnonzero(reached)[::-1]
    found[row[first]] = value[first]
    found[total <= 0] = np.nan
    return found


# --- lines and areas in zones ---------------------------------------------------------------


def kilometres_in(lines: Shapes, zones: Shapes) -> csr_matrix:
    """Return the length of each line inside each zone.

    Parameters
    ----------
    lines, zones
        Shapely geometries in degrees (WGS 84).

    Returns
    -------
    scipy.sparse.csr_matrix
        Zones × lines, km on the ellipsoid; lines are cut where they cross a border.
    """
    import shapely
    from scipy.sparse import csr_matrix

    shape = (len(zones), len(lines))
    if not len(lines):
        return csr_matrix(shape)
    tree = shapely.STRtree(lines)
    zone, line = tree.query(zones, predicate="intersects")
    within_zone, within_line = tree.query(zones, predicate="contains")
    key = zone.astype(np.int64) * len(lines) + line
    whole = np.isin(key, within_zone.astype(np.int64) * len(lines) + within_line)
    length = np.zeros(key.size)
    length[whole] = _kilometres(lines)[line[whole]]
    if not whole.all():
        length[~whole] = _crossing(lines[line[~whole]], zones, zone[~whole])
    return csr_matrix((length, (zone, line)), shape=shape)


def _crossing(lines: Shapes, zones: Shapes, zone: Ints) -> Floats:
    """Return km of lines inside the zone each is paired with; only cut segments are overlaid."""
    import shapely

    pieces, owner = _segments(lines)
    tree = shapely.STRtree(pieces)
    found_zone, found = tree.query(zones, predicate="intersects")
    mine = zone[owner[found]] == found_zone
    found_zone, found = found_zone[mine], found[mine]
    inside_zone, inside = tree.query(zones, predicate="contains")
    key = found_zone.astype(np.int64) * len(pieces) + found
    whole = np.isin(key, inside_zone.astype(np.int64) * len(pieces) + inside)
    km = _kilometres(pieces)[found]
    if not whole.all():
        cut = shapely.intersection(pieces[found[~whole]], zones[found_zone[~whole]])
        km[~whole] = _kilometres(cut)
    return np.bincount(owner[found], weights=km, minlength=len(lines)).astype(np.float64)


def _segments(lines: Shapes) -> tuple[Shapes, Ints]:
    """Return the straight pieces of lines, and which line each is of."""
    import shapely

    parts, line = shapely.get_parts(lines, return_index=True)
    xy, part = shapely.get_coordinates(parts, return_index=True)
    joined = part[1:] == part[:-1]
    pairs = np.stack([xy[:-1][joined], xy[1:][joined]], axis=1)
    return np.asarray(shapely.linestrings(pairs), dtype=object), line[part[:-1][joined]]


def _kilometres(lines: Shapes) -> Floats:
    """Return lengths on the WGS 84 ellipsoid, km; geometry that is no line has none."""
    import pyproj
    import shapely

    parts, owner = shapely.get_parts(lines, return_index=True)
    line = shapely.get_dimensions(parts) == 1
    parts, owner = parts[line], owner[line]
    xy, part = shapely.get_coordinates(parts, return_index=True)
    joined = part[1:] == part[:-1]
    a, b = xy[:-1][joined], xy[1:][joined]
    _, _, metres = pyproj.Geod(ellps="WGS84").inv(a[:, 0], a[:, 1], b[:, 0], b[:, 1])
    return np.bincount(
        owner[part[:-1][joined]], weights=np.asarray(metres) / 1000.0, minlength=len(lines)
    ).astype(np.float64)


def square_metres_in(areas: Shapes, zones: Shapes) -> Floats:
    """Return the area that disjoint polygons cover of each zone.

    Parameters
    ----------
    areas, zones
        Polygons in one equal-area CRS.
    """
    return np.bincount(*_areas_by_zone(areas, zones), minlength=len(zones)).astype(np.float64)


def _areas_by_zone(areas: Shapes, zones: Shapes) -> tuple[Ints, Floats]:
    import shapely

    zone, shapes = clipped_to(areas, zones)
    return zone, np.asarray(shapely.area(shapes))


def clipped_to(areas: Shapes, zones: Shapes) -> tuple[Ints, Shapes]:
    """Return (zone, part of a polygon inside it) for every pair that meets."""
    import shapely

    if not len(areas):
        return np.zeros(0, np.int64), np.zeros(0, object)
    tree = shapely.STRtree(areas)
    zone, area = tree.query(zones, predicate="intersects")
    inside_zone, inside = tree.query(zones, predicate="contains")
    key = zone.astype(np.int64) * len(areas) + area
    whole = np.isin(key, inside_zone.astype(np.int64) * len(areas) + inside)
    shapes = areas[area].copy()
    shapes[~whole] = shapely.intersection(areas[area[~whole]], zones[zone[~whole]])
    return zone.astype(np.int64), shapes


def in_grid(layer: gpd.GeoDataFrame, box: GeoBox) -> Shapes:
    """Return polygons in a grid's CRS as disjoint ones, so that overlaps count once."""
    import shapely

    if not len(layer):
        return np.zeros(0, object)
    shapes = to_crs_of(layer, box)
    broken = ~shapely.is_valid(shapes)
    shapes[broken] = _polygons_only(shapely.make_valid(shapes[broken]))
    joined = shapely.disjoint_subset_union_all(shapes)
    parts: Shapes = np.asarray(shapely.get_parts(joined), dtype=object)
    return np.asarray(parts[shapely.get_dimensions(parts) == 2], dtype=object)
