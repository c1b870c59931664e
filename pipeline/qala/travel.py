"""Travel times in seconds: cells to centres on a network, isochrones, friction surfaces.

A trip is the straight line from a place to the nearest node of the network at the access speed,
then the fastest way on it. Places from which the network leads to no centre are told, and take
the straight line on foot or a friction surface instead.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from qala.compute import usable_cores
from qala.errors import InputError, Problems, storage_error
from qala.files import replacing
from qala.network import (
    Floats,
    Ints,
    Network,
    Progress,
    load_network,
    routing_kernels,
)
from qala.raster import open_raster, require_writable, write_raster
from qala.speeds import ACCESS_KMH, CLASSES, WALK_KMH

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    import xarray as xr
    from odc.geo.geobox import GeoBox

log = logging.getLogger("qala")

#: minutes beyond which a centre is not near; the widest band in use is 90 (Kazakh
#: agglomerations, Makhrova, Safronov & Abilov 2023), and a band needs a margin
MAX_MINUTES = 120.0
#: longest straight line to the network, metres; farther places are off the network
MAX_ACCESS_METRES = 5_000.0
#: longest piece of road between two nodes while times are searched, metres; a place enters the
#: road at most half of it from where it is nearest
PIECE_METRES = 200.0
#: bands of isochrones in minutes; 90 is the band of Kazakh practice (Makhrova et al. 2023)
ISOCHRONE_MINUTES = (15.0, 30.0, 60.0, 90.0)
#: how far an isochrone reaches from a road, metres
ISOCHRONE_WALK_METRES = 500.0
#: rows and columns of a tile of the friction surface; it stays in the cache of a core
TILE = 128
#: cells of the surface that isochrones are drawn from, at most (0.8 GB a surface)
MOST_CELLS = 1e8
#: how many places off the network are named in a warning
NAMED = 20
#: roads that cannot be entered between their junctions
_NO_ENTRY = ("motorway", "motorway_link", "ferry")
_EARTH = 6_371_008.8

BY = ("inside", "network", "walk", "friction", "unreached")


@dataclass(frozen=True, eq=False)
class TravelTimes:
    """Times between places and centres.

    Attributes
    ----------
    pairs
        One row an origin and a centre within the limit: origin, centre, seconds, by.
    nearest
        One row an origin: origin, lon, lat, people, centre (missing where unreached), seconds,
        access_metres, access_seconds, by, within (of the limit). ``by`` is ``inside`` the centre,
        ``network``, ``walk`` (straight line), ``friction`` or ``unreached``. The column centre
        makes the catchments.
    summary
        Counts of origins and people by how they are reached.
    """

    pairs: pd.DataFrame
    nearest: pd.DataFrame
    summary: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class _Graph:
    """A network with its long segments cut, for searching in one direction."""

    lon: Floats
    lat: Floats
    entry: npt.NDArray[np.bool_]
    indptr: Ints
    indices: Ints
    seconds: Floats


@dataclass(frozen=True, eq=False)
class _Points:
    """Places as points."""

    ids: npt.NDArray[Any]
    lon: Floats
    lat: Floats
    people: Floats
    cells: bool = False


@dataclass(frozen=True, eq=False)
class _Centres:
    """Centres: which points of the earth belong to which, and their outline for walking."""

    ids: npt.NDArray[Any]
    #: index of the centre each (lon, lat) lies in, -1 for none
    locate: Callable[[Floats, Floats], Ints]
    #: points along each centre, to measure straight lines to it, and half the width of a cell
    lon: Floats
    lat: Floats
    owner: Ints
    margin: float


def travel_times(
    network: Network,
    origins: xr.DataArray | gpd.GeoDataFrame,
    destinations: xr.DataArray | gpd.GeoDataFrame,
    *,
    max_minutes: float = MAX_MINUTES,
    direction: Literal["to", "from"] = "to",
    access_kmh: float | None = None,
    max_access_metres: float = MAX_ACCESS_METRES,
    walk_kmh: float = WALK_KMH,
    fallback: xr.DataArray | Literal["walk"] | None = "walk",
    origin_id: str | None = None,
    destination_id: str | None = None,
    piece_metres: float = PIECE_METRES,
    threads: int | None = None,
    progress: Progress | None = None,
) -> TravelTimes:
    """Return seconds from every origin to every near destination.

    Parameters
    ----------
    network
        Roads of the mode.
    origins
        Population per cell, dims (y, x): every cell with people is an origin, its id the
        row-major number of the cell. Or points or polygons (a point inside stands for them).
    destinations
        Urban centres as labels, dims (y, x), 0 or NaN outside; or polygons; a centre begins at
        its edge, all nodes inside are reached at once. Or points.
    max_minutes
        Limit of ``pairs``; ``nearest`` is told without limit.
    direction
        ``to`` the destinations or ``from`` them.
    access_kmh
        Straight-line speed between a place and the network; default
        :data:`qala.speeds.ACCESS_KMH` of the mode (Weiss et al. 2018, doi:10.1038/nature25181).
    max_access_metres
        Longest straight line to the network.
    walk_kmh
        Speed of the straight line where the network leads to no centre.
    fallback
        Origins that no road leads from go to the nearest centre: ``walk`` the straight line, a
        raster of seconds per metre for :func:`friction_times`, or None to leave them unreached.
    origin_id, destination_id
        Column of ids; default: numbers from 1 in the order of rows.
    piece_metres
        Longest piece of road between two nodes that may be entered.
    threads
        Threads for independent searches; default: the cores this process may use.
    progress
        Called with the number of steps done and in all.

    Returns
    -------
    TravelTimes
        Sparse: memory grows with the pairs reached.

    Raises
    ------
    InputError
        When origins or destinations are empty, without CRS, with repeated ids, or wholly off
        the network.

    Notes
    -----
    Dijkstra's search on the turned graph from each destination, stopped at the limit; one search
    from all destinations together gives the nearest.
    """
    _require_positive(
        max_minutes=max_minutes, max_access_metres=max_access_metres, walk_kmh=walk_kmh,
        piece_metres=piece_metres,
    )  # fmt: skip
    if direction not in ("to", "from"):
        raise InputError(f"direction is {direction!r}", "to or from")
    pace = 3.6 / (ACCESS_KMH[network.mode] if access_kmh is None else access_kmh)
    places = _points(origins, origin_id, "origins")
    centres = _centres(destinations, destination_id)
    count = threads or usable_cores()
    _tell(progress, 0, 4)

    graph = _searchable(network, piece_metres, reverse=direction == "to")
    sources, seeds, owner, roadless = _sources(graph, centres, pace, max_access_metres)
    _require_overlap(network, places, sources)
    kernels = routing_kernels()
    time, label = kernels.nearest(
        graph.indptr, graph.indices, graph.seconds, sources, seeds, owner, np.inf
    )
    _tell(progress, 1, 4)
    node, metres = _nearest_nodes(graph, np.isfinite(time) & graph.entry, places)
    on_network = metres <= max_access_metres
    access = np.where(on_network, metres * pace, np.nan)
    seconds = np.where(on_network, time[node] + access, np.nan)
    nearest = np.where(on_network, label[node], -1)
    by = np.where(on_network, 1, 4)
    inside = centres.locate(places.lon, places.lat)
    seconds[inside >= 0], by[inside >= 0] = 0.0, 0
    nearest[inside >= 0] = inside[inside >= 0]
    _fall_back(by, nearest, seconds, places, centres, walk_kmh, fallback, destinations)
    _tell(progress, 2, 4)

    pair_origin, pair_centre, pair_seconds = _pairs(
        graph, sources, seeds, owner, centres.ids.size, node, access, on_network,
        max_minutes * 60.0, count,
    )  # fmt: skip
    _tell(progress, 3, 4)
    limit = max_minutes * 60.0
    result = _tables(
        places, centres, nearest, seconds, metres, access, by, inside,
        pair_origin, pair_centre, pair_seconds, limit,
    )  # fmt: skip
    summary = _summary(result, places, by, limit, roadless, network, centres)
    _tell(progress, 4, 4)
    return TravelTimes(result[0], result[1], MappingProxyType(summary))


def nearest_seconds(
    network: Network,
    lon: Floats,
    lat: Floats,
    goals: Sequence[tuple[Floats, Floats]],
    *,
    direction: Literal["to", "from"] = "to",
    access_kmh: float | None = None,
    max_access_metres: float = MAX_ACCESS_METRES,
    piece_metres: float = PIECE_METRES,
    progress: Progress | None = None,
) -> list[Floats]:
    """Return the seconds between places and the nearest point of each set of goals.

    Unlike :func:`travel_times` it keeps no pairs, so that millions of places and thousands of
    goals cost one search a set.

    Parameters
    ----------
    network
        Roads of the mode.
    lon, lat
        (places,), degrees WGS 84.
    goals
        Sets of points, each ``(lon, lat)`` in degrees.
    direction
        ``to`` the goals or ``from`` them.
    access_kmh, max_access_metres, piece_metres
        As for :func:`travel_times`, at both ends of the journey.
    progress
        Called with the number of sets done and in all.

    Returns
    -------
    list of numpy.ndarray
        (places,) float64 a set, infinite where no road within reach leads to a goal.

    Raises
    ------
    InputError
        When a distance or speed is not positive.
    """
    _require_positive(max_access_metres=max_access_metres, piece_metres=piece_metres)
    pace = 3.6 / (ACCESS_KMH[network.mode] if access_kmh is None else access_kmh)
    graph = _searchable(network, piece_metres, reverse=direction == "to")
    places = _Points(np.arange(lon.size), lon, lat, np.zeros(lon.size))
    kernels = routing_kernels()
    found: list[Floats] = []
    # most sets are reached from the same nodes, and then places enter at the same ones
    entered: tuple[npt.NDArray[np.bool_], Ints, Floats] | None = None
    for number, (goal_lon, goal_lat) in enumerate(goals):
        ends = _Points(np.arange(goal_lon.size), goal_lon, goal_lat, np.zeros(goal_lon.size))
        at, metres = _nearest_nodes(graph, graph.entry, ends)
        near = metres <= max_access_metres
        time, _ = kernels.nearest(
            graph.indptr, graph.indices, graph.seconds, at[near].astype(np.int64),
            metres[near] * pace, np.zeros(int(near.sum()), np.int32), np.inf,
        )  # fmt: skip
        allowed = np.isfinite(time) & graph.entry
        if entered is None or not np.array_equal(entered[0], allowed):
            entered = (allowed, *_nearest_nodes(graph, allowed, places))
        _, node, access = entered
        seconds = np.full(lon.size, np.inf)
        hooked = access <= max_access_metres
        seconds[hooked] = time[node[hooked]] + access[hooked] * pace
        found.append(seconds)
        _tell(progress, number + 1, len(goals))
    return found


def _tell(progress: Progress | None, done: int, total: int) -> None:
    if progress:
        progress(done, total)


def _require_positive(**values: float) -> None:
    problems = Problems("travel times")
    for name, value in values.items():
        if not value > 0:
            problems.add(f"{name} is {value}", "a number above 0")
    problems.raise_if_any()


def _searchable(network: Network, piece: float, *, reverse: bool) -> _Graph:
    """Cut long segments and build the arcs, turned where times to a goal are wanted."""
    kernels = routing_kernels()
    pieces = np.maximum(np.ceil(network.metres / piece), 1).astype(np.int64)
    nodes = network.lon.size
    lon, lat, a, b, ahead, back, owner = kernels.refine(
        nodes,
        network.from_node,
        network.to_node,
        network.metres.astype(np.float64),
        network.forward.astype(np.float64),
        network.backward.astype(np.float64),
        network.geometry_ptr,
        network.geometry_lon,
        network.geometry_lat,
        pieces,
    )
    all_lon, all_lat = np.concatenate([network.lon, lon]), np.concatenate([network.lat, lat])
    indptr, indices, seconds, _ = kernels.arcs_csr(all_lon.size, a, b, ahead, back, reverse)
    closed = np.isin(network.road, [CLASSES.index(name) for name in _NO_ENTRY])
    entry = np.zeros(all_lon.size, bool)
    free = ~closed[owner]
    entry[a[free]] = True
    entry[b[free]] = True
    return _Graph(all_lon, all_lat, entry, indptr, indices, seconds)


def _on_sphere(lon: Floats, lat: Floats) -> Floats:
    """Return points in space, metres: distances without a projection's error."""
    a, b = np.radians(lon), np.radians(lat)
    c = np.cos(b) * _EARTH
    return np.column_stack([c * np.cos(a), c * np.sin(a), _EARTH * np.sin(b)])


def _nearest_nodes(
    graph: _Graph, allowed: npt.NDArray[np.bool_], places: _Points
) -> tuple[Ints, Floats]:
    """Return for each place the nearest allowed node and the metres to it."""
    from scipy.spatial import cKDTree

    candidates = np.flatnonzero(allowed)
    if not candidates.size:
        return np.zeros(places.lon.size, np.int64), np.full(places.lon.size, np.inf)
    tree = cKDTree(_on_sphere(graph.lon[candidates], graph.lat[candidates]), balanced_tree=False)
    chord, index = tree.query(_on_sphere(places.lon, places.lat), workers=usable_cores())
    metres = 2 * _EARTH * np.arcsin(np.clip(chord / (2 * _EARTH), 0, 1))
    return candidates[index], metres


# ---- places ---------------------------------------------------------------------------------


def _points(origins: Any, column: str | None, what: str) -> _Points:
    """Read origins as points: cells with people, or geometries."""
    if hasattr(origins, "geometry"):
        frame = _checked(origins, what)
        ids = _ids(frame, column, what)
        flat = frame.geometry.to_crs("EPSG:4326").representative_point()
        people = (
            frame["people"].to_numpy(np.float64)
            if "people" in frame
            else np.full(len(frame), np.nan)
        )
        return _Points(ids, flat.x.to_numpy(), flat.y.to_numpy(), people)
    from qala.grid import geobox_of

    box = geobox_of(origins)
    values = np.asarray(origins.values)
    if not np.issubdtype(values.dtype, np.number):
        raise InputError(f"{what} hold {values.dtype} values", "people per cell")
    with np.errstate(invalid="ignore"):
        negative = int((values < 0).sum())
        rows, cols = np.nonzero(values > 0)
    if negative:
        raise InputError(
            f"{negative} cells of {what} hold negative people", "people per cell, at least 0",
            "declare the nodata value of the raster",
        )  # fmt: skip
    if not rows.size:
        raise InputError(f"no cell of {what} has people", "people per cell above 0 somewhere")
    lon, lat = _cell_places(box, rows, cols)
    ids = rows.astype(np.int64) * box.shape.x + cols
    return _Points(ids, lon, lat, values[rows, cols].astype(np.float64), cells=True)


def _checked(frame: gpd.GeoDataFrame, what: str) -> gpd.GeoDataFrame:
    problems = Problems(what)
    if frame.crs is None:
        problems.add("the layer has no CRS", "a CRS", "assign it with set_crs")
    if len(frame) == 0:
        problems.add("the layer is empty", "at least one geometry")
    empty = int((frame.geometry.isna() | frame.geometry.is_empty).sum())
    if empty:
        problems.add(f"{empty} of {len(frame)} geometries are empty", "a place for every row")
    problems.raise_if_any()
    return frame


def _ids(frame: gpd.GeoDataFrame, column: str | None, what: str) -> npt.NDArray[Any]:
    if column is None:
        return np.arange(1, len(frame) + 1, dtype=np.int64)
    if column not in frame:
        raise InputError(
            f"{what} have no column {column!r}", f"one of {', '.join(map(str, frame.columns))}"
        )
    repeated = frame[column].duplicated() | frame[column].isna()
    if repeated.any():
        some = ", ".join(map(str, frame.loc[repeated, column].unique()[:5]))
        raise InputError(
            f"{int(repeated.sum())} ids of {what} in column {column!r} are repeated or missing "
            f"({some})",
            "one id a row",
        )
    return np.asarray(frame[column])


def _cell_places(box: GeoBox, rows: Ints, cols: Ints) -> tuple[Floats, Floats]:
    import pyproj

    t = box.transform
    x, y = t.c + (cols + 0.5) * t.a, t.f + (rows + 0.5) * t.e
    to_degrees = pyproj.Transformer.from_crs(_crs(box), "EPSG:4326", always_xy=True)
    lon, lat = to_degrees.transform(x, y)
    return np.asarray(lon), np.asarray(lat)


def _crs(box: GeoBox) -> Any:
    if box.crs is None:
        raise InputError("the raster has no CRS", "a CRS", "assign it")
    return box.crs.proj


def _centres(destinations: Any, column: str | None) -> _Centres:
    """Read destinations: labelled cells, polygons or points."""
    if not hasattr(destinations, "geometry"):
        return _labelled(destinations)
    import shapely

    frame = _checked(destinations, "destinations")
    ids = _ids(frame, column, "destinations")
    flat = frame.geometry.to_crs("EPSG:4326")
    kinds = set(frame.geom_type)
    if kinds <= {"Point"}:
        owner = np.arange(len(flat))
        return _Centres(
            ids,
            lambda lon, lat: np.full(lon.size, -1, np.int64),
            flat.x.to_numpy(),
            flat.y.to_numpy(),
            owner,
            0.0,
        )
    if not kinds <= {"Polygon", "MultiPolygon"}:
        raise InputError(
            f"destinations hold {', '.join(sorted(kinds))}", "points only or polygons only"
        )
    shapes = np.asarray(flat.values)
    tree = shapely.STRtree(shapes)

    def locate(lon: Floats, lat: Floats) -> Ints:
        found = np.full(lon.size, -1, np.int64)
        point, shape = tree.query(shapely.points(lon, lat), predicate="intersects")
        found[point[::-1]] = shape[::-1]
        return found

    # about half a kilometre between points of the outline
    outline = shapely.segmentize(shapes, 0.005)
    at, owner = shapely.get_coordinates(outline, return_index=True)
    return _Centres(ids, locate, at[:, 0], at[:, 1], owner, 0.0)


def _labelled(labels: xr.DataArray) -> _Centres:
    import pyproj

    from qala.grid import geobox_of

    box = geobox_of(labels)
    values = np.nan_to_num(np.asarray(labels.values), nan=0.0)
    if not (values == np.round(values)).all() or (values < 0).any():
        raise InputError("labels of centres are not whole numbers", "0 outside, 1, 2, … inside")
    grid = values.astype(np.int64)
    rows, cols = np.nonzero(grid)
    if not rows.size:
        raise InputError("no cell is labelled as a centre", "labels above 0 in centres")
    ids, owner = np.unique(grid[rows, cols], return_inverse=True)
    index = np.full(grid.shape, -1, np.int64)
    index[rows, cols] = owner
    t = box.transform
    forward = pyproj.Transformer.from_crs("EPSG:4326", _crs(box), always_xy=True)

    def locate(lon: Floats, lat: Floats) -> Ints:
        x, y = forward.transform(lon, lat)
        with np.errstate(invalid="ignore"):
            c = np.floor((np.asarray(x) - t.c) / t.a)
            r = np.floor((np.asarray(y) - t.f) / t.e)
            ok = (r >= 0) & (r < grid.shape[0]) & (c >= 0) & (c < grid.shape[1])
        found = np.full(lon.size, -1, np.int64)
        found[ok] = index[r[ok].astype(np.int64), c[ok].astype(np.int64)]
        return found

    lon, lat = _cell_places(box, rows, cols)
    return _Centres(ids, locate, lon, lat, owner, abs(t.a) / 2)


def _sources(
    graph: _Graph, centres: _Centres, pace: float, max_access: float
) -> tuple[Ints, Floats, Ints, Ints]:
    """Return nodes of each centre, their seconds, their centre, and centres without a road inside.

    A centre without a node inside starts at the node nearest to it, the straight line counted.
    """
    inside = centres.locate(graph.lon, graph.lat)
    nodes = np.flatnonzero(inside >= 0)
    owner = inside[nodes]
    seeds = np.zeros(nodes.size)
    bare = np.setdiff1d(np.arange(centres.ids.size), owner)
    if bare.size:
        mine = np.isin(centres.owner, bare)
        outline = _Points(
            centres.owner[mine], centres.lon[mine], centres.lat[mine], np.zeros(int(mine.sum()))
        )
        near, metres = _nearest_nodes(graph, graph.entry, outline)
        # the closest of the outline's points speaks for the centre
        order = np.lexsort((metres, outline.ids))
        _, first = np.unique(outline.ids[order], return_index=True)
        pick = order[first]
        pick = pick[metres[pick] <= max_access]
        nodes = np.concatenate([nodes, near[pick]])
        owner = np.concatenate([owner, outline.ids[pick]])
        seeds = np.concatenate([seeds, metres[pick] * pace])
    order = np.argsort(owner, kind="stable")
    return (
        nodes[order].astype(np.int64),
        seeds[order],
        owner[order].astype(np.int32),
        np.setdiff1d(np.arange(centres.ids.size), owner),
    )


def _require_overlap(network: Network, places: _Points, sources: Ints) -> None:
    """Refuse a network that lies elsewhere."""
    if sources.size:
        return
    box = (network.lon.min(), network.lat.min(), network.lon.max(), network.lat.max())
    there = (places.lon.min(), places.lat.min(), places.lon.max(), places.lat.max())
    raise InputError(
        "no destination lies on or near the network, which covers "
        + ", ".join(f"{v:.3f}" for v in box),
        "destinations inside it",
        "the origins cover " + ", ".join(f"{v:.3f}" for v in there) + "; use another extract",
    )


def _pairs(
    graph: _Graph,
    sources: Ints,
    seeds: Floats,
    owner: Ints,
    centres: int,
    node: Ints,
    access: Floats,
    on_network: npt.NDArray[np.bool_],
    limit: float,
    threads: int,
) -> tuple[Ints, Ints, Floats]:
    """Search from each centre alone, on threads, and gather what is reached."""
    kernels = routing_kernels()
    hooked = np.flatnonzero(on_network)
    hook_ptr, order = kernels.csr(graph.lon.size, node[hooked], node[hooked])
    hooked = hooked[order].astype(np.int32)
    cost = access[hooked]
    group_ptr = np.searchsorted(owner, np.arange(centres + 1)).astype(np.int64)
    batches = [np.arange(i, centres, threads, dtype=np.int64) for i in range(min(threads, centres))]

    def search(groups: Ints) -> Any:
        return kernels.catchments(
            graph.indptr, graph.indices, graph.seconds, group_ptr, sources, seeds, groups,
            limit, hook_ptr, hooked, cost,
        )  # fmt: skip

    with ThreadPoolExecutor(max(len(batches), 1)) as pool:
        parts = list(pool.map(search, batches))
    origin, centre, seconds = (np.concatenate([p[i] for p in parts]) for i in range(3))
    return origin, centre, seconds


def _fall_back(
    by: Ints,
    nearest: Ints,
    seconds: Floats,
    places: _Points,
    centres: _Centres,
    walk_kmh: float,
    fallback: Any,
    destinations: Any,
) -> None:
    """Time the places that no road leads from, in place."""
    left = np.flatnonzero(by == 4)
    if not left.size or fallback is None:
        return
    if isinstance(fallback, str):
        if fallback != "walk":
            raise InputError(f"fallback is {fallback!r}", "walk, a friction raster, or None")
        from scipy.spatial import cKDTree

        tree = cKDTree(_on_sphere(centres.lon, centres.lat))
        chord, index = tree.query(_on_sphere(places.lon[left], places.lat[left]))
        metres = 2 * _EARTH * np.arcsin(np.clip(chord / (2 * _EARTH), 0, 1))
        seconds[left] = np.maximum(metres - centres.margin, 0.0) * 3.6 / walk_kmh
        nearest[left] = centres.owner[index]
        by[left] = 2
    else:
        found, label = _by_friction(fallback, centres, places, left)
        reached = np.isfinite(found)
        seconds[left[reached]] = found[reached]
        nearest[left[reached]] = label[reached]
        by[left[reached]] = 3
    log.info("%d of %d origins are off the network", left.size, by.size)


def _by_friction(
    friction: xr.DataArray, centres: _Centres, places: _Points, left: Ints
) -> tuple[Floats, Ints]:
    """Look up least-cost times from the centres at the places."""
    import pyproj

    from qala.grid import geobox_of

    box = geobox_of(friction)
    t = box.transform
    forward = pyproj.Transformer.from_crs("EPSG:4326", _crs(box), always_xy=True)

    def cells(lon: Floats, lat: Floats) -> tuple[Ints, Ints, npt.NDArray[np.bool_]]:
        x, y = (np.asarray(v) for v in forward.transform(lon, lat))
        r = np.floor((y - t.f) / t.e).astype(np.int64)
        c = np.floor((x - t.c) / t.a).astype(np.int64)
        return r, c, (r >= 0) & (r < box.shape.y) & (c >= 0) & (c < box.shape.x)

    labels = np.zeros(box.shape, np.int32)
    r, c, ok = cells(centres.lon, centres.lat)
    labels[r[ok], c[ok]] = centres.owner[ok] + 1
    seconds, nearest = _least_cost(
        np.asarray(friction.values), labels, abs(t.a), np.inf, TILE, None
    )
    r, c, ok = cells(places.lon[left], places.lat[left])
    found, label = np.full(left.size, np.inf), np.full(left.size, -1, np.int64)
    found[ok], label[ok] = seconds[r[ok], c[ok]], nearest[r[ok], c[ok]] - 1
    return found, label


def _tables(
    places: _Points,
    centres: _Centres,
    nearest: Ints,
    seconds: Floats,
    metres: Floats,
    access: Floats,
    by: Ints,
    inside: Ints,
    pair_origin: Ints,
    pair_centre: Ints,
    pair_seconds: Floats,
    limit: float,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make the two tables; a place inside a centre is there at once."""
    import pandas as pd

    kinds = pd.CategoricalDtype(list(BY))
    # the same pair by road where the place lies inside gives way to 0 seconds
    own = inside[pair_origin] != pair_centre
    at_once = np.flatnonzero(inside >= 0)
    other = np.flatnonzero(((by == 2) | (by == 3)) & (seconds <= limit))
    origin = np.concatenate([pair_origin[own], at_once, other])
    centre = np.concatenate([pair_centre[own], inside[at_once], nearest[other]]).astype(np.int64)
    value = np.concatenate([pair_seconds[own], np.zeros(at_once.size), seconds[other]])
    kind = np.concatenate(
        [np.ones(int(own.sum()), np.int64), np.zeros(at_once.size, np.int64), by[other]]
    )
    order = np.lexsort((value, origin))
    pairs = pd.DataFrame(
        {
            "origin": places.ids[origin[order]],
            "centre": centres.ids[centre[order]],
            "seconds": value[order].astype(np.float32),
            "by": pd.Categorical.from_codes(kind[order], dtype=kinds),
        }
    )
    known = nearest >= 0
    told = pd.Series(centres.ids[np.maximum(nearest, 0)])
    if pd.api.types.is_integer_dtype(told.dtype):
        told = told.astype("Int64")
    table = pd.DataFrame(
        {
            "origin": places.ids,
            "lon": places.lon,
            "lat": places.lat,
            "people": places.people,
            "centre": told.where(known),
            "seconds": seconds.astype(np.float32),
            "access_metres": np.where(by == 1, metres, np.nan).astype(np.float32),
            "access_seconds": np.where(by == 1, access, np.nan).astype(np.float32),
            "by": pd.Categorical.from_codes(by, dtype=kinds),
            "within": seconds <= limit,
        }
    )
    return pairs, table


def _summary(
    tables: tuple[pd.DataFrame, pd.DataFrame],
    places: _Points,
    by: Ints,
    limit: float,
    roadless: Ints,
    network: Network,
    centres: _Centres,
) -> dict[str, Any]:
    pairs, nearest = tables
    people = np.nan_to_num(places.people)
    result: dict[str, Any] = {
        "origins": int(by.size),
        "centres": int(centres.ids.size),
        "pairs": len(pairs),
        "people": float(people.sum()),
        "mode": network.mode,
        "max_minutes": limit / 60.0,
        "notice": network.metadata.get("notice", ""),
    }
    for code, name in enumerate(BY):
        chosen = by == code
        result[f"origins {name}"] = int(chosen.sum())
        result[f"people {name}"] = float(people[chosen].sum())
    off = np.isin(by, (2, 3, 4))
    # cells are told by count; named places by name
    names = [] if places.cells else [_plain(v) for v in places.ids[off][:NAMED]]
    result["ids off the network"] = names
    beyond = ~nearest["within"].to_numpy() & (by != 4)
    result["origins off the network"] = int(off.sum())
    result["people off the network"] = float(people[off].sum())
    result["origins beyond the limit"] = int(beyond.sum())
    result["people beyond the limit"] = float(people[beyond].sum())
    result["centres off the network"] = [_plain(v) for v in centres.ids[roadless]]
    warnings = []
    if off.any():
        warnings.append(
            f"from {int(off.sum())} of {by.size} origins ({people[off].sum():.0f} people) no road "
            f"leads to a centre; {int((by == 2).sum())} walk straight, {int((by == 3).sum())} "
            f"cross the friction surface, {int((by == 4).sum())} are unreached"
            + (f": {', '.join(map(str, names))}" if names else "")
        )
    if roadless.size:
        lost = ", ".join(map(str, centres.ids[roadless][:NAMED]))
        warnings.append(f"{roadless.size} centres lie off the network: {lost}")
    for text in warnings:
        log.warning("%s", text)
    result["warnings"] = warnings
    return result


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


# ---- friction surface -----------------------------------------------------------------------


def friction_times(
    friction: xr.DataArray,
    sources: xr.DataArray,
    *,
    max_minutes: float | None = None,
    threads: int | None = None,
    tile: int = TILE,
) -> xr.Dataset:
    """Return least-cost seconds from the sources over a friction surface.

    Parameters
    ----------
    friction
        dims (y, x), seconds per metre; NaN, negative or infinite cells cannot be crossed.
    sources
        dims (y, x) on the same grid: labels above 0 start at 0 seconds.
    max_minutes
        Cells farther than that stay NaN.
    threads
        Threads; default: the cores this process may use.
    tile
        Rows and columns of a tile.

    Returns
    -------
    xarray.Dataset
        dims (y, x): ``seconds`` float64, NaN where not reached; ``nearest`` int32, label of
        the source, 0 where not reached.

    Raises
    ------
    InputError
        When the grids differ, no cell is a source, or all sources are impassable.

    Notes
    -----
    A step to one of 8 neighbours costs its length times the mean friction of the two cells
    (Tomlin 2010; Weiss et al. 2018). Tiles are corrected until nothing changes, those of one of
    four colours at once, since they do not touch; the result does not depend on the tiles.
    """
    import xarray as xr

    from qala.grid import geobox_of, require_same_grid

    box = geobox_of(friction)
    require_same_grid(box, geobox_of(sources), "sources", "friction")
    t = box.transform
    if abs(t.a + t.e) > 1e-6 * abs(t.a) or box.crs is None or not box.crs.projected:
        raise InputError(
            "friction has cells that are not square metres", "a projected, square grid"
        )
    if tile < 1:
        raise InputError(f"tile is {tile}", "at least 1 cell")
    values = np.asarray(friction.values)
    labels = np.nan_to_num(np.asarray(sources.values)).astype(np.int32)
    if not (labels > 0).any():
        raise InputError("no cell is a source", "labels above 0 at the sources")
    with np.errstate(invalid="ignore"):
        blocked = ~((values >= 0) & np.isfinite(values))
    if not (~blocked & (labels > 0)).any():
        raise InputError("all sources lie on impassable cells", "friction at the sources")
    limit = np.inf if max_minutes is None else max_minutes * 60.0
    seconds, nearest = _least_cost(values, labels, abs(t.a), limit, tile, threads)
    attributes = {"units": "s", "long_name": "least-cost time from the nearest source"}
    return xr.Dataset(
        {
            "seconds": (("y", "x"), np.where(np.isfinite(seconds), seconds, np.nan), attributes),
            "nearest": (("y", "x"), nearest, {"long_name": "label of the nearest source"}),
        },
        coords=friction.coords,
    )


def _least_cost(
    friction: Floats, labels: Ints, cell: float, limit: float, tile: int, threads: int | None
) -> tuple[Floats, Ints]:
    """Return times (infinite where not reached) and labels (0 there)."""
    with np.errstate(invalid="ignore"):
        source = (labels > 0) & (friction >= 0) & np.isfinite(friction)
    time = np.where(source, 0.0, np.inf)
    label = np.where(source, labels, 0).astype(np.int32)
    _spread(time, label, friction, cell, limit, tile, threads, source)
    return time, label


def _spread(
    time: Floats,
    label: Ints,
    friction: Floats,
    cell: float,
    limit: float,
    tile: int,
    threads: int | None,
    start: npt.NDArray[np.bool_],
) -> None:
    """Correct the times tile by tile, in place, until nothing changes."""
    kernels = routing_kernels()
    count = threads or usable_cores()
    height, width = friction.shape
    down, across = -(-height // tile), -(-width // tile)
    fresh = np.zeros((down, across), bool)
    rows, cols = np.nonzero(start)
    fresh[rows // tile, cols // tile] = True
    # earliest time at which something new reaches a tile; infinite where nothing waits
    waiting = np.where(fresh, 0.0, np.inf)
    with np.errstate(invalid="ignore"):
        open_cells = friction[:: max(tile // 16, 1), :: max(tile // 16, 1)]
        open_cells = open_cells[(open_cells >= 0) & np.isfinite(open_cells)]
    # tiles that would be corrected again by earlier ones wait: about one crossing of a tile
    ahead = tile * cell * float(open_cells.mean() if open_cells.size else 1.0)
    offsets = [(dr, dc) for dr in (-1, 0, 1) for dc in (-1, 0, 1)]
    colour = (np.arange(down) % 2)[:, None] * 2 + (np.arange(across) % 2)[None, :]
    with ThreadPoolExecutor(count) as pool:
        while np.isfinite(first := waiting.min()):
            for shade in range(4):
                todo = np.argwhere((waiting <= first + ahead) & (colour == shade))
                if not todo.size:
                    continue
                at = todo[:, 0], todo[:, 1]
                new = fresh[at]
                waiting[at], fresh[at] = np.inf, False
                jobs = [
                    (todo[i::count], pool.submit(
                        kernels.relax_tiles, time, label, friction, cell, tile,
                        todo[i::count], new[i::count], limit,
                    ))
                    for i in range(min(count, len(todo)))
                ]  # fmt: skip
                for part, job in jobs:
                    changed = job.result()
                    for bit, (dr, dc) in enumerate(offsets):
                        hit = part + np.array([dr, dc])
                        ok = (hit >= 0).all(axis=1) & (hit < (down, across)).all(axis=1)
                        ok &= np.isfinite(changed[:, bit])
                        np.minimum.at(waiting, (hit[ok, 0], hit[ok, 1]), changed[ok, bit])


# ---- isochrones -----------------------------------------------------------------------------


def isochrones(
    network: Network,
    points: gpd.GeoDataFrame,
    minutes: Sequence[float] = ISOCHRONE_MINUTES,
    *,
    direction: Literal["to", "from"] = "from",
    merge: bool = False,
    access_kmh: float | None = None,
    max_walk_metres: float = ISOCHRONE_WALK_METRES,
    max_access_metres: float = MAX_ACCESS_METRES,
    resolution: float | None = None,
    id_column: str | None = None,
) -> gpd.GeoDataFrame:
    """Return the areas reached within given minutes.

    Parameters
    ----------
    network
        Roads of the mode.
    points
        Points, or polygons whose whole inside is the start.
    minutes
        Bands; each polygon holds all nearer ones.
    direction
        ``from`` the points or ``to`` them.
    merge
        One area a band for all points together instead of one a point.
    access_kmh
        Straight-line speed off the road; default that of :func:`travel_times`.
    max_walk_metres
        How far the area reaches from a road.
    max_access_metres
        Longest straight line from a point to the network.
    resolution
        Cell of the surface of arrival times that is contoured, metres; default 1/800 of the
        reach, at least 50 (car) or 20 (foot).
    id_column
        Column of ids; default: numbers from 1.

    Returns
    -------
    geopandas.GeoDataFrame
        In the network's CRS, longest band first so that maps draw it below: id, minutes,
        area_km2 (of the sphere), geometry. A point off the network has empty areas, and is
        told in the log.

    Raises
    ------
    InputError
        When minutes are not positive, or no point lies on the network.

    Notes
    -----
    Arrival times at the roads spread over a grid at the access speed; the area of a band is
    where the time is at most that and a road reached lies within ``max_walk_metres``. Land
    without roads inside stays a hole.
    """
    import geopandas as gpd

    bands = sorted({float(m) for m in minutes})
    if not bands or not bands[0] > 0:
        raise InputError(f"minutes are {list(minutes)}", "numbers above 0")
    _require_positive(max_walk_metres=max_walk_metres, max_access_metres=max_access_metres)
    pace = 3.6 / (ACCESS_KMH[network.mode] if access_kmh is None else access_kmh)
    centres = _centres(points, id_column)
    reach = bands[-1] * 60 * (1000 * 110 / 3600 if network.mode == "car" else 1.4)
    extent = min(2 * reach, _diagonal(network))
    floor = 50.0 if network.mode == "car" else 20.0
    size = max(extent / 800, floor) if resolution is None else resolution
    graph = _searchable(network, size, reverse=direction == "to")
    sources, seeds, owner, roadless = _sources(graph, centres, pace, max_access_metres)
    if not sources.size:
        raise InputError(
            f"none of the {centres.ids.size} points lies on the network",
            f"points within {max_access_metres:.0f} m of a road",
            "use the extract of their region",
        )
    if roadless.size:
        log.warning("%d points lie off the network and have no isochrone", roadless.size)
    limit = bands[-1] * 60.0
    groups = [np.arange(owner.size)] if merge else [
        np.flatnonzero(owner == i) for i in range(centres.ids.size)
    ]  # fmt: skip
    rows: list[dict[str, Any]] = []
    for number, group in enumerate(groups):
        name = "all" if merge else centres.ids[number]
        shapes = _areas(
            network, graph, sources[group], seeds[group], bands, limit, pace, size, max_walk_metres
        )
        rows += [
            {"id": name, "minutes": band, "geometry": shape}
            for band, shape in zip(bands[::-1], shapes[::-1], strict=True)
        ]
    frame = gpd.GeoDataFrame(rows, geometry="geometry", crs=network.crs)
    frame.insert(2, "area_km2", frame.to_crs("ESRI:54009").area / 1e6)
    return frame


def _diagonal(network: Network) -> float:
    """Return about how far the network's ends lie apart, metres; the date line is no edge."""
    at = _on_sphere(network.lon, network.lat)
    return max(float(np.linalg.norm(at.max(axis=0) - at.min(axis=0))), 1000.0)


def _local_crs(lon: Floats, lat: Floats) -> Any:
    """Return an equal-area projection around points, wherever on the earth they lie."""
    import pyproj

    at = _on_sphere(lon, lat)
    x, y, z = (at.max(axis=0) + at.min(axis=0)) / 2
    north, east = np.degrees(np.arctan2(z, np.hypot(x, y))), np.degrees(np.arctan2(y, x))
    return pyproj.CRS.from_proj4(f"+proj=laea +lat_0={north} +lon_0={east} +datum=WGS84 +units=m")


def _date_line(local: Any, lon: Floats, lat: Floats) -> Any:
    """Return a strip of two metres along the date line where points lie on both sides of it."""
    import pyproj
    import shapely

    if not ((lon > 90).any() and (lon < -90).any()):
        return None
    down, up = max(float(lat.min()) - 2, -89.9), min(float(lat.max()) + 2, 89.9)
    along = np.linspace(down, up, 200)
    forward = pyproj.Transformer.from_crs("EPSG:4326", local, always_xy=True)
    line = np.column_stack(forward.transform(np.full(along.size, 180.0), along))
    return shapely.buffer(shapely.linestrings(line), 1.0)


def _areas(
    network: Network,
    graph: _Graph,
    sources: Ints,
    seeds: Floats,
    bands: list[float],
    limit: float,
    pace: float,
    size: float,
    walk: float,
) -> list[Any]:
    """Contour the arrival times around one start, in a local equal-distance-like projection."""
    import pyproj
    import shapely
    from scipy.ndimage import distance_transform_edt

    if not sources.size:
        return [shapely.Polygon() for _ in bands]
    time, _ = routing_kernels().nearest(
        graph.indptr, graph.indices, graph.seconds, sources, seeds,
        np.zeros(sources.size, np.int32), limit,
    )  # fmt: skip
    reached = np.flatnonzero(np.isfinite(time) & graph.entry)
    if not reached.size:
        return [shapely.Polygon() for _ in bands]
    lon, lat = graph.lon[reached], graph.lat[reached]
    local = _local_crs(lon, lat)
    x, y = (
        np.asarray(v)
        for v in pyproj.Transformer.from_crs("EPSG:4326", local, always_xy=True).transform(lon, lat)
    )
    # a few places far apart would ask for a surface of half the earth
    wide, high = float(np.ptp(x)) + 2 * walk, float(np.ptp(y)) + 2 * walk
    coarsest = (wide * high / MOST_CELLS) ** 0.5
    if size < coarsest:
        log.warning(
            "isochrones reach over %.0f × %.0f km: drawn in cells of %.0f m instead of %.0f m",
            wide / 1000, high / 1000, coarsest, size,
        )  # fmt: skip
        size = coarsest
    margin = walk + 3 * size
    left, top = x.min() - margin, y.max() + margin
    width = int(np.ceil((x.max() + margin - left) / size))
    height = int(np.ceil((top - y.min() + margin) / size))
    c, r = ((x - left) / size).astype(np.int64), ((top - y) / size).astype(np.int64)
    # a cell with a road is reached with the road, wherever in the cell it lies
    surface = np.full((height, width), np.inf)
    np.minimum.at(surface, (r, c), time[reached])
    start = np.isfinite(surface)
    _spread(
        surface,
        np.empty((0, 0), np.int32),
        np.full((height, width), pace),
        size,
        np.inf,
        TILE,
        None,
        start,
    )
    off_road = distance_transform_edt(~start) * size
    back = pyproj.Transformer.from_crs(local, network.crs, always_xy=True)
    seam = _date_line(local, lon, lat)
    column, row = left + (np.arange(width) + 0.5) * size, top - (np.arange(height) + 0.5) * size
    shapes = []
    for band in bands:
        # seconds too late, or too far from the road: below zero on both counts is inside
        late = np.maximum(surface - band * 60.0, (off_road - walk) * pace)
        shapes.append(_contour(column, row, late, back, seam))
    return shapes


def _contour(column: Floats, row: Floats, field: Floats, back: Any, seam: Any) -> Any:
    """Return the valid polygon where the field is at most zero, in another CRS.

    It is cut along the ``seam``, whose sides lie far apart in that CRS.
    """
    import contourpy
    import shapely

    made = contourpy.contour_generator(
        column, row, field, fill_type=contourpy.FillType.OuterOffset
    ).filled(-1e15, 0.0)
    polygons = []
    for vertices, offsets in zip(*made, strict=True):
        rings = [vertices[a:b] for a, b in pairwise(offsets)]
        polygons.append(shapely.Polygon(rings[0], rings[1:]))
    if not polygons:
        return shapely.MultiPolygon()
    found = np.array(polygons, dtype=object)
    if seam is not None:
        found = shapely.get_parts(shapely.difference(shapely.make_valid(found), seam))
    moved = shapely.transform(found, lambda at: np.column_stack(back.transform(*at.T)))
    shape = shapely.union_all(shapely.make_valid(moved))
    parts = shapely.get_parts(shape)
    areal = parts[shapely.get_dimensions(parts) == 2]
    return shapely.multipolygons(areal)


# ---- flow -----------------------------------------------------------------------------------


def times_flow(
    network: Network | str | Path,
    centres: str | Path | xr.DataArray | gpd.GeoDataFrame,
    population: str | Path | xr.DataArray,
    max_minutes: float,
    out: str | Path,
    *,
    id_column: str | None = None,
    friction: str | Path | xr.DataArray | None = None,
    lang: str = "en",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Time every populated cell to its centres and write the result.

    Parameters
    ----------
    network
        A network or the file of one.
    centres
        Points or polygons (any vector file); or a raster: cell classes of `qala cells`, whose
        urban centres (30, or 3 at level 1) are taken, or whole-number labels.
    population
        People per cell.
    max_minutes
        Limit of the pairs.
    out
        ``.csv`` or ``.parquet``: the long table origin, centre, seconds, by. ``.tif``: seconds
        to the nearest centre. ``.gpkg``: styled layers ``nearest`` (cells as points),
        ``isochrones`` of 15 to 90 minutes, ``network`` (main roads with speeds), ``centres``
        where they are points or polygons, and the table ``pairs``.
    id_column
        Column of the centres' ids.
    friction
        Raster of seconds per metre for cells that no road leads from; default: on foot straight.
    lang
        Language of titles and legends in a GeoPackage.
    progress
        Called with the number of steps done and in all.

    Returns
    -------
    dict
        The summary of the times, and ``out``.

    Raises
    ------
    InputError
        When an input cannot be used or the output's kind is not known.
    """
    target = Path(out)
    kinds = (".csv", ".parquet", ".tif", ".gpkg")
    if target.suffix.lower() not in kinds:
        raise InputError(f"{target} has no kind of output known", " or ".join(kinds), "rename -o")
    require_writable(target)
    graph = network if isinstance(network, Network) else load_network(network)
    people = _raster(population).load()
    goals = read_centres(centres) if isinstance(centres, str | Path) else centres
    surface: xr.DataArray | Literal["walk"] = "walk" if friction is None else _raster(friction)
    result = travel_times(
        graph, people, goals, max_minutes=max_minutes, fallback=surface,
        destination_id=id_column, progress=progress,
    )  # fmt: skip
    _write(result, target, people, graph, goals, id_column, lang)
    return {**result.summary, "out": str(target)}


def _raster(source: str | Path | xr.DataArray) -> xr.DataArray:
    return open_raster(source) if isinstance(source, str | Path) else source


def read_centres(path: str | Path) -> xr.DataArray | gpd.GeoDataFrame:
    """Read centres from a vector file, a raster of cell classes, or one of labels.

    Raises
    ------
    InputError
        When the file is missing, cannot be read, or holds no urban centre.
    """
    file = Path(path)
    if not file.exists():
        raise InputError(f"{file} does not exist", "points, polygons or a raster of centres")
    if file.suffix.lower() not in (".tif", ".tiff", ".vrt"):
        import geopandas as gpd
        import pyogrio

        try:
            return gpd.read_file(file)
        except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
            raise InputError(f"{file} cannot be read ({error})", "a vector layer") from error
    from qala.raster import inspect

    if inspect(file).dtype != np.dtype("uint8"):
        return open_raster(file).load()
    from scipy.ndimage import label

    classes = open_raster(file, "cells").load()
    values = classes.values
    code = 30 if (values == 30).any() else 3
    labels, found = label(values == code)
    if not found:
        raise InputError(f"{file} holds no urban centre (class 30 or 3)", "cell classes with one")
    return classes.copy(data=labels.astype(np.int32))


def _write(
    result: TravelTimes,
    target: Path,
    people: xr.DataArray,
    network: Network,
    goals: Any,
    id_column: str | None,
    lang: str,
) -> None:
    """Write the kind of output the name asks for, whole or not at all."""
    kind = target.suffix.lower()
    if kind == ".tif":
        values = np.full(people.shape, np.nan, np.float32)
        values.ravel()[result.nearest["origin"].to_numpy(np.int64)] = result.nearest["seconds"]
        raster = people.copy(data=values).assign_attrs(units="s").rename("seconds")
        tags = {"notice": str(result.summary["notice"]), "units": "s"}
        write_raster(raster, target, tags={**tags, "content": "seconds to the nearest centre"})
        return
    if kind == ".gpkg":
        _write_layers(result, target, network, goals, id_column, lang)
        return
    try:
        with replacing(target) as work:
            if kind == ".csv":
                result.pairs.to_csv(work, index=False, float_format="%.1f")
            else:
                result.pairs.to_parquet(work, index=False)
    except OSError as error:
        raise storage_error(target, error) from error


def _write_layers(
    result: TravelTimes,
    target: Path,
    network: Network,
    goals: Any,
    id_column: str | None,
    lang: str,
) -> None:
    """Write the styled layers."""
    import geopandas as gpd

    from qala.area_products import layers_of_times, main_roads
    from qala.export.geopackage import write_geopackage
    from qala.messages import tr

    near = result.nearest
    points = gpd.GeoDataFrame(
        near.drop(columns=["lon", "lat"]).assign(
            by=near["by"].astype(str), minutes=(near["seconds"] / 60).round(1)
        ),
        geometry=gpd.points_from_xy(near["lon"], near["lat"]),
        crs="EPSG:4326",
    )
    bands = isochrones(network, goals, merge=True, direction="to", id_column=id_column)
    layers = layers_of_times(
        points,
        result.pairs.assign(by=result.pairs["by"].astype(str)),
        goals if hasattr(goals, "geometry") else None,
        bands,
        main_roads(network)[0],
    )
    metadata = {
        "title": tr("times.title", lang),
        "citation": str(result.summary["notice"]),
        "provenance": {"summary": dict(result.summary), "network": dict(network.metadata)},
    }
    write_geopackage(target, layers, metadata=metadata, lang=lang)
