"""Functional urban areas: cities and their commuting zones.

The rules are those of the European Union and the OECD (Dijkstra, Poelman &
Veneri 2019, *The EU-OECD definition of a functional urban area*, OECD Regional
Development Working Papers 2019/11, doi:10.1787/d58cb34d-en):

1. a city is the units with at least half of their people in an urban centre;
2. a city joins another in which at least 15 % of its employed residents work;
3. the commuting zone is the units of which at least 15 % of the employed
   residents work in the city, the largest share decides between cities;
4. enclaves join, and pieces that are not contiguous with the core leave.

Flows are given (:mod:`qala.commuting`) or estimated. Where they are estimated,
the areas hang on assumptions: see :func:`qala.fua_reports.area_sensitivity` and
``docs/functional-areas.md``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from qala.commuting import (
    DECAY_KM,
    KM_A_MINUTE,
    NEARBY,
    Decay,
    Flows,
    Per,
    as_ids,
    choose_decay,
    distances,
    estimate_flows,
    flows_on_units,
    minutes,
    nearby_units,
    pace,
    read_cores,
    unit_values,
)
from qala.errors import InputError, Problems
from qala.messages import tr
from qala.vector import some

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    import xarray as xr
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

log = logging.getLogger("qala")

#: share of employed residents that makes a commuting zone, and that joins two cities (EU-OECD)
THRESHOLD = 0.15
#: share of a unit's people in an urban centre that makes it part of a city (EU-OECD)
CITY_SHARE = 0.5
#: share of a centre's people that its city should hold (EU-OECD)
CENTRE_HELD = 0.75
#: units this far apart still share a border: slivers between borders digitised apart, metres
GAP = 2.0


# --- values -----------------------------------------------------------------------


@dataclass(frozen=True)
class Sensitivity:
    """How the areas change with threshold and β.

    Attributes
    ----------
    variants
        One row a variant: ``threshold``, ``beta_factor``, ``beta`` and ``shape``
        (missing for given flows), ``areas``, ``zone_units``, ``core_population``,
        ``zone_population``, ``population_share`` (people in areas over all) and
        ``jaccard`` (zone against the base variant, by people).
    stability
        By unit: share of variants that say the same of it as the base.
    in_area
        By unit: share of variants in which it belongs to the area of its
        nearest claim: its own area, or for a unit outside the city that most of
        its commuters go to.
    joined
        Pairs of cities that are one area in some variant, or come near it, most in doubt first:
        ``city`` (the smaller), ``other``, ``share`` (of the employed residents of
        the city who work in the other), ``lowest`` and ``highest`` of it over the
        variants, ``base`` (whether the base joins them), ``variants`` (share of
        variants that do) and ``verdict`` in words.
    """

    variants: pd.DataFrame
    stability: pd.Series
    in_area: pd.Series
    joined: pd.DataFrame


@dataclass(frozen=True)
class Areas:
    """Functional urban areas and how they came about.

    Attributes
    ----------
    areas
        Polygons: ``area``, ``name``, ``cities``, ``core_units``, ``zone_units``,
        ``population``, ``core_population``, ``zone_population``, ``area_km2``,
        ``pieces`` (contiguous parts).
    cores, zones
        Polygons of the cities of each area, and of its commuting zone.
    membership
        One row a unit: ``unit``, ``area``, ``role`` (core, zone, outside),
        ``share``, ``runner_up``, ``runner_up_share``, ``reason``, ``city``,
        ``population``; after :func:`qala.fua_reports.area_sensitivity` also ``stability`` and
        ``in_area``.
    cities
        One row a city: ``city``, ``name``, ``area``, ``units``, ``population``
        and, where cities come from urban centres, ``centre_population``,
        ``centre_held`` (share of the centre's people living in the city) and
        ``centre_held_enough`` (≥ 75 %).
    merges
        Joined cities: ``round``, ``city``, ``into``, ``share``.
    flows
        What the shares were counted from; None for isochrones.
    settings
        Thresholds and method.
    counts
        Enclaves joined, units that left, and what the inputs lacked.
    sensitivity
        Result of :func:`qala.fua_reports.area_sensitivity`, where it ran.
    """

    areas: gpd.GeoDataFrame
    cores: gpd.GeoDataFrame
    zones: gpd.GeoDataFrame
    membership: pd.DataFrame
    cities: pd.DataFrame
    merges: pd.DataFrame
    flows: Flows | None
    settings: Mapping[str, Any]
    counts: Mapping[str, Any]
    sensitivity: Sensitivity | None = None
    _frame: Frame | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Borders:
    """Which units are neighbours, and which lie at the edge of the whole.

    Attributes
    ----------
    neighbours
        scipy CSR of truth values, units × units, symmetric.
    edge
        Whether a unit touches the outline of all units together (state border
        or coast); holes inside the whole do not count.
    """

    neighbours: csr_matrix
    edge: Bools


@dataclass(frozen=True)
class Frame:
    """What stays the same in all variants of one run."""

    ids: NDArray[np.object_]
    borders: Borders
    city: Ints
    cities: tuple[str, ...]
    names: Mapping[str, str]
    population: Floats
    merge_threshold: float | None
    commuters: Commuters


@dataclass(frozen=True)
class Found:
    """Membership as plain arrays."""

    group: Ints  # area of each city, by number of its leading city
    area: Ints  # area of each unit, -1 outside
    how: Ints
    best: Ints
    best_share: Floats
    second: Ints
    second_share: Floats
    own_share: Floats
    merges: tuple[tuple[int, int, int, float], ...]


@dataclass(frozen=True)
class Commuters:
    """Flows between units, and what an estimate of them was made from.

    Attributes
    ----------
    flows
        On the units, in their order.
    costs, pull, nearby
        Km or minutes between units, what draws commuters, and people around each
        unit; None for given flows.
    km_a_minute
        Pace of the minutes.
    jobs_known
        Whether the pull is jobs that are known.
    """

    flows: Flows
    costs: csr_matrix | None = None
    pull: Floats | None = None
    nearby: Floats | None = None
    km_a_minute: float = KM_A_MINUTE
    jobs_known: bool = False


# how a unit came to its place
_CORE, _ZONE, _ENCLAVE, _LEFT, _BELOW, _NOBODY, _UNKNOWN = range(7)


# --- cities -----------------------------------------------------------------------


@dataclass(frozen=True)
class Cities:
    """Units that form cities, found from urban centres.

    Attributes
    ----------
    cores
        City (text: number of its centre) by unit (text).
    centres
        One row a centre: ``city``, ``centre_population``, ``units``,
        ``centre_held``, ``centre_held_enough``. A centre without units has no
        unit with half of its people in centres.
    population
        People of each unit, in the units' order.
    centre_share
        Share of each unit's people in urban centres; NaN where it has none.
    points
        Population-weighted centre of each unit.
    """

    cores: pd.Series
    centres: pd.DataFrame
    population: Floats
    centre_share: Floats
    points: gpd.GeoSeries


def cities_of(
    units: gpd.GeoDataFrame,
    population: xr.DataArray,
    labels: xr.DataArray,
    *,
    id: str,
    city_share: float = CITY_SHARE,
    held: float = CENTRE_HELD,
) -> Cities:
    """Find the units that form the city of each urban centre.

    A unit belongs to a city when at least ``city_share`` of its people live in
    urban centres, and to that of the centre which holds most of them.

    Parameters
    ----------
    units
        Polygons in any declared CRS.
    population
        dims (y, x); people per cell on an equal-area grid.
    labels
        dims (y, x), int32; urban centres numbered from 1, 0 elsewhere, as
        :func:`qala.settlement.label_centres` gives them.
    id
        Column of unit ids.
    city_share
        Share of people from which a unit is part of a city.
    held
        Share of the centre's people the city should hold; a shortfall is
        logged and told in ``centres``.

    Returns
    -------
    Cities
        Cores, centres, and people of units.

    Raises
    ------
    InputError
        When the rasters lie on different grids.

    Notes
    -----
    Dijkstra, Poelman & Veneri (2019), doi:10.1787/d58cb34d-en, step 2.
    """
    import pandas as pd
    from scipy.sparse import csr_matrix

    from qala.grid import geobox_of, require_same_grid
    from qala.units import coverage

    box = geobox_of(population)
    require_same_grid(box, geobox_of(labels), "the labels of urban centres")
    cover = coverage(units, box, id=id)
    people, centre = cover.take(population, labels)
    people = np.nan_to_num(people.astype(np.float64))
    centre = centre.astype(np.int64)
    count = int(centre.max(initial=0))
    total = np.asarray(cover.parts @ people).ravel()
    cells = np.flatnonzero(centre > 0)
    spread = csr_matrix((people[cells], (cells, centre[cells] - 1)), shape=(people.size, count))
    inside = (cover.parts @ spread).tocsr()
    sums = np.asarray(inside.sum(axis=1)).ravel()
    share = np.divide(sums, total, out=np.full(total.size, np.nan), where=total > 0)
    # a sum of exact overlays misses half by rounding alone
    core = np.nan_to_num(share) >= city_share - 1e-9
    best = np.asarray(inside.argmax(axis=1)).ravel() if count else np.zeros(total.size, np.int64)
    whole = np.bincount(
        np.asarray(labels.compute().data).ravel(),
        np.nan_to_num(np.asarray(population.compute().data, dtype=np.float64).ravel()),
        count + 1,
    )[1 : count + 1]
    # a centre may reach beyond the units' layer: what the city holds is told of the whole
    held_people = np.zeros(count)
    rows = np.flatnonzero(core)
    if rows.size:
        np.add.at(held_people, best[rows], np.asarray(inside[rows, best[rows]]).ravel())
    centres = pd.DataFrame(
        {
            "city": [str(k) for k in range(1, count + 1)],
            "centre_population": whole,
            "units": np.bincount(best[rows], minlength=count)[:count],
            "centre_held": np.divide(held_people, whole, out=np.zeros(count), where=whole > 0),
        }
    )
    centres["centre_held_enough"] = centres["centre_held"] >= held
    touched = np.asarray(inside.sum(axis=0)).ravel() > 0
    none = touched & (centres["units"] == 0).to_numpy()
    if none.any():
        log.warning(
            "%d urban centres have no unit with %.0f %% of its people in centres, and so no "
            "city: %s", none.sum(), 100 * city_share, some(centres["city"][none])
        )  # fmt: skip
    short = (centres["units"] > 0) & ~centres["centre_held_enough"]
    if short.any():
        log.warning(
            "%d cities hold less than %.0f %% of the people of their urban centre: %s",
            short.sum(),
            100 * held,
            some(centres["city"][short]),
        )
    ids = as_ids(units[id])
    cores = pd.Series([str(b + 1) for b in best[rows]], index=ids[rows], name="city", dtype=object)
    _, points = _people_and_centres(units, population, id, cover)
    return Cities(cores, centres[touched].reset_index(drop=True), total, share, points)


# --- contiguity -------------------------------------------------------------------


def borders_of(units: gpd.GeoDataFrame, *, gap: float = GAP) -> Borders:
    """Find which units share a border.

    Corners that touch in a point are no border. Slivers between borders up to
    ``gap`` wide do not part neighbours.

    Parameters
    ----------
    units
        Polygons in any declared CRS; measured in metres.
    gap
        Widest sliver, metres.

    Returns
    -------
    Borders
        Neighbours and units at the edge.
    """
    import shapely
    from scipy.sparse import csr_matrix

    shapes = _metric(units)
    size = len(shapes)
    tree = shapely.STRtree(shapes)
    left, right = tree.query(shapes, predicate="dwithin", distance=gap)
    once = left < right
    left, right = left[once], right[once]
    shared = shapely.length(shapely.intersection(shapes[left], shapes[right])) > 0
    # touching in points or apart by slivers: a border is longer than the sliver is wide
    doubtful = np.flatnonzero(~shared)
    if gap > 0 and doubtful.size:
        wide = shapely.buffer(shapes[right[doubtful]], gap, quad_segs=2)
        along = shapely.intersection(shapely.boundary(shapes[left[doubtful]]), wide)
        shared[doubtful] = shapely.length(along) > 8 * gap
    left, right = left[shared], right[shared]
    pairs = np.ones(2 * left.size, dtype=bool)
    neighbours = csr_matrix(
        (pairs, (np.concatenate([left, right]), np.concatenate([right, left]))), shape=(size, size)
    )
    # slits that open to the outside are closed first, or units along them would seem outer
    whole = shapely.union_all(shapes)
    closed = shapely.buffer(whole, 2 * gap, join_style="mitre") if gap > 0 else whole
    rings = shapely.get_exterior_ring(shapely.get_parts(closed))
    edge = np.zeros(size, bool)
    hit, _ = tree.query(rings, predicate="dwithin", distance=4 * gap + 1e-6).reshape(2, -1)[::-1]
    edge[hit] = True
    return Borders(neighbours, edge)


def _metric(units: gpd.GeoDataFrame) -> NDArray[np.object_]:
    """Return the polygons in metres."""
    import pyproj

    if units.crs is None:
        raise InputError("the units have no CRS", "a declared CRS", "set it with units.set_crs()")
    crs = pyproj.CRS(units.crs)
    metric = crs.is_projected and all(a.unit_name in ("metre", "meter") for a in crs.axis_info)
    layer = units.geometry if metric else units.geometry.to_crs("ESRI:54009")
    return np.asarray(layer.array, dtype=object)


def _keep_contiguous(area: Ints, core: Bools, neighbours: csr_matrix) -> Bools:
    """Return the units whose piece of their area holds no core, and so must leave."""
    inside = area >= 0
    piece = _components(neighbours, area, inside)
    anchored = np.zeros(area.size + 1, bool)
    anchored[piece[core & inside]] = True
    return inside & ~anchored[piece]


def _components(neighbours: csr_matrix, group: Ints, among: Bools) -> Ints:
    """Number the contiguous pieces of units of one group; others get numbers of their own."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    pairs = neighbours.tocoo()
    same = (group[pairs.row] == group[pairs.col]) & among[pairs.row] & among[pairs.col]
    graph = csr_matrix(
        (np.ones(int(same.sum()), bool), (pairs.row[same], pairs.col[same])), shape=neighbours.shape
    )
    return cast("Ints", connected_components(graph, directed=False)[1].astype(np.int64))


def _enclaves(area: Ints, borders: Borders) -> tuple[Bools, Ints]:
    """Return units outside areas that one area wholly surrounds, and that area."""
    outside = area < 0
    if not outside.any():
        return np.zeros(area.size, bool), area
    piece = _components(borders.neighbours, np.where(outside, -1, area), outside)
    count = int(piece.max()) + 1
    pairs = borders.neighbours.tocoo()
    across = outside[pairs.row] & ~outside[pairs.col]
    met, found = piece[pairs.row[across]], area[pairs.col[across]]
    # one area around a piece: the smallest and largest number met are the same
    low = np.full(count, np.iinfo(np.int64).max)
    high = np.full(count, -1, np.int64)
    np.minimum.at(low, met, found)
    np.maximum.at(high, met, found)
    closed = (low == high) & (high >= 0)
    closed[piece[outside & borders.edge]] = False
    joins = outside & closed[piece]
    return joins, np.where(joins, high[piece], -1)


# --- the rules --------------------------------------------------------------------


def _merge_cities(
    flows: Flows, city: Ints, count: int, weight: Floats, threshold: float | None
) -> tuple[Ints, list[tuple[int, int, int, float]]]:
    """Join cities until none sends the threshold's share to another.

    All pairs that qualify join in a round, so that no order matters. A joined
    city is led by its largest.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    group = np.arange(count, dtype=np.int64)
    merges: list[tuple[int, int, int, float]] = []
    if threshold is None or count < 2:
        return group, merges
    core = np.flatnonzero(city >= 0)
    between = flows.matrix[core][:, core].tocoo()
    origin, destination = city[core[between.row]], city[core[between.col]]
    employed = np.bincount(city[core], flows.employed[core], count)
    for turn in range(1, count + 1):
        pairs = coo_matrix(
            (between.data, (group[origin], group[destination])), shape=(count, count)
        ).tocsr()
        pairs.setdiag(0)
        pairs.eliminate_zeros()
        base = np.bincount(group, employed, count)
        found = pairs.tocoo()
        share = found.data / np.where(base[found.row] > 0, base[found.row], np.inf)
        joins = share >= threshold
        if not joins.any():
            break
        merges += [
            (turn, int(a), int(b), float(s))
            for a, b, s in zip(found.row[joins], found.col[joins], share[joins], strict=True)
        ]
        links = coo_matrix(
            (np.ones(int(joins.sum())), (found.row[joins], found.col[joins])), shape=(count, count)
        )
        _, part = connected_components(links, directed=False)
        part = part[group]
        # the largest city of each part leads it; ties go to the first by name
        order = np.lexsort((np.arange(count), -weight, part))
        first = order[np.r_[True, np.diff(part[order]) > 0]]
        leader = np.empty(int(part.max()) + 1, np.int64)
        leader[part[first]] = first
        group = leader[part]
    return group, merges


def _shares(flows: Flows, group_of_unit: Ints, count: int) -> csr_matrix:
    """Return the share of each unit's employed residents that work in each group."""
    from scipy.sparse import csr_matrix, diags

    core = np.flatnonzero(group_of_unit >= 0)
    into = csr_matrix(
        (np.ones(core.size), (core, group_of_unit[core])), shape=(group_of_unit.size, count)
    )
    scale = np.divide(
        1.0, flows.employed, out=np.zeros_like(flows.employed), where=flows.employed > 0
    )
    return (diags(scale) @ (flows.matrix @ into)).tocsr()


def _two_best(shares: csr_matrix, without: Ints | None = None) -> tuple[Ints, Floats, Ints, Floats]:
    """Return for every row its two largest columns and their values; -1 and 0 where none.

    ``without`` names a column a row that does not compete.
    """
    found = shares.tocoo()
    row, col, value = found.row, found.col, found.data
    keep = value > 0
    if without is not None:
        keep &= col != without[row]
    row, col, value = row[keep], col[keep], value[keep]
    order = np.lexsort((col, -value, row))
    row, col, value = row[order], col[order], value[order]
    start = np.r_[True, np.diff(row) > 0] if row.size else np.zeros(0, bool)
    size = shares.shape[0]
    result: list[Any] = []
    first = np.flatnonzero(start)
    second = first + 1
    second = second[(second < row.size) & ~np.r_[start, True][np.minimum(second, row.size)]]
    for at in (first, second):
        which, much = np.full(size, -1, np.int64), np.zeros(size)
        which[row[at]], much[row[at]] = col[at], value[at]
        result += [which, much]
    return result[0], result[1], result[2], result[3]


def assign_units(
    frame: Frame, flows: Flows, threshold: float, merge_threshold: float | None
) -> Found:
    """Run the rules on arrays: merge, zone, enclaves, contiguity."""
    count = len(frame.cities)
    core = frame.city >= 0
    people: Floats = np.bincount(frame.city[core], frame.population[core], count).astype(np.float64)
    if not people.any():
        people = np.bincount(frame.city[core], flows.employed[core], count).astype(np.float64)
    group, merges = _merge_cities(flows, frame.city, count, people, merge_threshold)
    own = np.where(core, group[frame.city], -1)
    shares = _shares(flows, own, count)
    best, best_share, _, _ = _two_best(shares)
    area = np.where(core, own, np.where(best_share >= threshold, best, -1))
    how = np.select(
        [core, area >= 0, flows.employed <= 0, best < 0], [_CORE, _ZONE, _UNKNOWN, _NOBODY], _BELOW
    ).astype(np.int64)
    # an exclave that leaves one area can be an enclave of another: until nothing changes
    while True:
        joins, into = _enclaves(area, frame.borders)
        area, how = np.where(joins, into, area), np.where(joins, _ENCLAVE, how)
        leaves = _keep_contiguous(area, core, frame.borders.neighbours)
        area, how = np.where(leaves, -1, area), np.where(leaves, _LEFT, how)
        if not leaves.any():
            break
    claim = np.where(area >= 0, area, best)
    own_share = _pick(shares, claim)
    rival, rival_share, _, _ = _two_best(shares, claim)
    return Found(group, area, how, best, best_share, rival, rival_share, own_share, tuple(merges))


def _pick(shares: csr_matrix, column: Ints) -> Floats:
    """Return one value a row; 0 where the column is -1."""
    rows = np.flatnonzero(column >= 0)
    values = np.zeros(column.size)
    if rows.size:
        values[rows] = np.asarray(shares[rows, column[rows]]).ravel()
    return values


def functional_areas(
    units: gpd.GeoDataFrame,
    *,
    id: str,
    flows: Commuters | Flows | str | Path | pd.DataFrame | None = None,
    employed: Any = None,
    cores: Cities | pd.Series | pd.DataFrame | str | Path | None = None,
    population: Any = None,
    labels: xr.DataArray | None = None,
    seconds: Any = None,
    distance: bool = False,
    jobs: Any = None,
    points: gpd.GeoSeries | None = None,
    beta: float | None = None,
    decay: Decay | None = None,
    reach: float | None = None,
    threshold: float = THRESHOLD,
    merge_threshold: float = THRESHOLD,
    merge: bool | None = None,
    city_share: float = CITY_SHARE,
    gap: float = GAP,
    unknown: str = "error",
    names: Mapping[str, str] | None = None,
    lang: str = "en",
) -> Areas:
    """Delineate functional urban areas by the EU-OECD rules.

    Parameters
    ----------
    units
        Polygons in any declared CRS; sound ones, see :func:`qala.read_units`.
    id
        Column of unit ids.
    flows
        Commuters between units (:func:`qala.commuting.read_flows`), or flows
        already on the units, given or estimated (:func:`commuters_of`).
    employed
        Employed residents: a table for :func:`qala.commuting.read_employed`
        with given flows; a column or one value a unit with estimated ones.
    cores
        Given core units (``unit``, ``city``), in place of urban centres; or what
        :func:`cities_of` found, so that it is not looked for again.
    population
        People: a raster (dims (y, x), people per cell), a column, or one value
        a unit.
    labels
        dims (y, x), int32: urban centres on the population's grid; needed
        where ``cores`` are not given.
    seconds
        Travel times between units: flows are estimated from them.
    distance
        Estimate flows from straight-line distance.
    jobs
        Jobs, where known, as a column or one value a unit; default: the model
        places them by itself from people.
    points
        Where the distance of a unit is measured from; default: its
        population-weighted centre, or a point inside where there is no raster.
    beta, decay, reach
        As for :func:`qala.commuting.estimate_flows`.
    threshold
        Share of employed residents that makes a commuting zone.
    merge_threshold
        Share of a city's employed residents that joins it to another.
    merge
        Join cities. Default: yes for cities found from urban centres, no for
        given cores, which are taken for final.
    city_share
        Share of people in urban centres that makes a unit part of a city.
    gap
        Slivers between neighbours up to this width, metres.
    unknown
        ``error`` or ``outside``, for flows that name other units; see
        :func:`qala.commuting.flows_on_units`.
    names
        Names of the cities to show, by city id.
    lang
        Language of the reasons: ``en``, ``ru`` or ``kk``.

    Returns
    -------
    Areas
        Areas, membership with reasons, and what it rests on.

    Raises
    ------
    InputError
        With all problems found: thresholds out of range, no source of flows or
        two, cores in no unit, flows that do not belong to the units.

    Notes
    -----
    Dijkstra, Poelman & Veneri (2019), doi:10.1787/d58cb34d-en.
    """
    problems = Problems("functional areas")
    for name, value in (
        ("threshold", threshold),
        ("merge_threshold", merge_threshold),
        ("city_share", city_share),
    ):
        if not 0 < value <= 1:
            problems.add(f"{name} is {value!r}", "a share above 0, to 1")
    sources = [flows is not None, seconds is not None, bool(distance)]
    if sum(sources) != 1:
        problems.add(
            f"{sum(sources)} sources of commuting are given",
            "exactly one of flows, seconds (travel times) or distance",
        )
    if cores is None and (labels is None or not hasattr(population, "dims")):
        problems.add(
            "neither cores nor urban centres are given",
            "cores, or a population raster with the labels of its urban centres",
        )
    if id not in units.columns:
        problems.add(f"the units have no column {id!r}", "the column of unit ids")
    problems.raise_if_any()
    ids = as_ids(units[id])
    cities = None
    if cores is None or isinstance(cores, Cities):
        cities = cores or cities_of(
            units, population, cast("xr.DataArray", labels), id=id, city_share=city_share
        )
        core_table, people, centres = cities.cores, cities.population, cities.points
        if not len(core_table):
            raise InputError(
                "no unit is part of a city: none has "
                f"{city_share:.0%} of its people in an urban centre",
                "units small enough to follow the urban centres",
                "use finer units (settlements, communes), or lower city_share",
            )
    else:
        core_table = core_series(cores)
        people, centres = people_of_units(units, population, id)
    city, city_ids = cores_on_units(core_table, ids)
    joins = (cities is not None) if merge is None else merge
    if isinstance(flows, Commuters):
        commuters = flows
    else:
        commuters = commuters_of(
            units, people, id=id, population=population, flows=flows, employed=employed,
            seconds=seconds, jobs=jobs, points=points if points is not None else centres,
            beta=beta, decay=decay, reach=reach, unknown=unknown,
        )  # fmt: skip
    given = commuters.flows
    if list(given.ids) != list(ids):
        raise InputError("the flows are of other units", "flows on the same units, in order")
    frame = Frame(
        ids=ids,
        borders=borders_of(units, gap=gap),
        city=city,
        cities=city_ids,
        names={c: (names or {}).get(c, c) for c in city_ids},
        population=np.nan_to_num(people),
        merge_threshold=merge_threshold if joins else None,
        commuters=commuters,
    )
    found = assign_units(frame, given, threshold, frame.merge_threshold)
    settings = {
        "method": "flows" if not given.estimated else f"huff_{cast('Decay', given.decay).per}",
        "threshold": threshold,
        "merge_threshold": merge_threshold if joins else None,
        "city_share": None if cities is None else city_share,
        "gap_m": gap,
        "lang": lang,
    }
    if given.decay is not None:
        if given.decay.per == "min" and commuters.costs is not None:
            settings["network_km_h"] = 60.0 * commuters.km_a_minute
        settings |= {
            "beta": given.decay.beta,
            "beta_per": given.decay.per,
            "shape": given.decay.shape,
            "power": given.decay.power,
            "passes": given.decay.passes,
            "draw": given.decay.draw,
            "beta_source": given.decay.source,
        }
    return _result(units, frame, found, given, settings, cities, people)


def commuters_of(
    units: gpd.GeoDataFrame,
    people: Floats,
    *,
    id: str,
    population: Any = None,
    flows: Flows | str | Path | pd.DataFrame | None = None,
    employed: Any = None,
    seconds: Any = None,
    jobs: Any = None,
    points: gpd.GeoSeries | None = None,
    beta: float | None = None,
    decay: Decay | None = None,
    reach: float | None = None,
    unknown: str = "error",
) -> Commuters:
    """Bring given flows onto the units, or estimate them from minutes or straight lines.

    Parameters
    ----------
    units
        Polygons in any declared CRS.
    people
        Of each unit; NaN where not known.
    population
        dims (y, x), people per cell: who lives near a unit is then counted by cells.
    id, flows, employed, seconds, jobs, points, beta, decay, reach, unknown
        As for :func:`functional_areas`; straight lines where neither flows nor seconds are given.

    Returns
    -------
    Commuters
        In the order of the units.

    Raises
    ------
    InputError
        When flows do not belong to the units, or people are not known.
    """
    if flows is not None:
        return Commuters(
            flows
            if isinstance(flows, Flows)
            else flows_on_units(
                flows, as_ids(units[id]), employed=employed, unknown=cast("Any", unknown)
            )
        )
    if not np.isfinite(people).all():
        raise InputError(
            "the people of the units are not known", "population", "pass a raster or a column"
        )
    per: Per = "km" if seconds is None else "min"
    rate = KM_A_MINUTE
    if seconds is None:
        far = {} if reach is None else {"reach": reach}
        costs = distances(units, points=points, **far)
    else:
        costs = minutes(seconds, units, points=points)
        rate = pace(costs, units, points=points)
    if beta is None and decay is None and per == "min":
        decay = DECAY_KM.in_minutes(rate)
    nearby = None
    if choose_decay(per, beta, decay).draw and jobs is None:
        nearby = (
            people_nearby(units, population, id=id)
            if hasattr(population, "dims")
            else nearby_units(units, people, points=points)
        )
    found = estimate_flows(
        units, id=id, people=people, jobs=jobs, employed=employed, seconds=seconds, beta=beta,
        decay=decay, costs=costs, nearby=nearby,
    )  # fmt: skip
    pull = people if jobs is None else unit_values(units, jobs, "jobs")
    return Commuters(found, costs, pull, nearby, rate, jobs is not None)


def core_series(cores: Any) -> pd.Series:
    """Return given cores as city by unit, checked."""
    import pandas as pd

    if isinstance(cores, pd.Series):
        cores = pd.DataFrame({"unit": cores.index, "city": cores.to_numpy()})
    return read_cores(cores)


def cores_on_units(cores: pd.Series, ids: NDArray[np.object_]) -> tuple[Ints, tuple[str, ...]]:
    """Return the number of each unit's city, -1 where none, and the cities in order."""
    position = {unit: i for i, unit in enumerate(ids)}
    strange = [u for u in cores.index if u not in position]
    if strange:
        lost = sorted({str(cores[u]) for u in strange})
        raise InputError(
            f"{len(strange)} core unit{'s are' if len(strange) > 1 else ' is'} not among the "
            f"units: {some(strange)} (of {some(lost)})",
            "ids of the units' layer",
            "correct the ids, or the id column",
        )
    names = tuple(sorted(set(cores)))
    number = {c: i for i, c in enumerate(names)}
    city = np.full(len(ids), -1, np.int64)
    city[[position[u] for u in cores.index]] = [number[c] for c in cores]
    return city, names


def people_of_units(
    units: gpd.GeoDataFrame, population: Any, id: str
) -> tuple[Floats, gpd.GeoSeries | None]:
    """Return people of units, NaN where not known, and their centres where there is a raster.

    A centre is weighted by the people of cells, in the grid's CRS; a point inside the unit where
    nobody lives.
    """
    if population is None:
        return np.full(len(units), np.nan), None
    if hasattr(population, "dims"):
        return _people_and_centres(units, population, id)
    return unit_values(units, population, "population"), None


def people_nearby(
    units: gpd.GeoDataFrame, population: xr.DataArray, *, id: str, radius: float = NEARBY
) -> Floats:
    """Return how many people live within a radius of the people of each unit, on average.

    What an agglomeration is, whatever the size of the units: a city of one unit and a city of
    twenty are alike. People beyond the units count, as far as the grid goes.

    Parameters
    ----------
    units
        Polygons in any declared CRS.
    population
        dims (y, x); people per cell on an equal-area grid. Cells below 1 km are summed first.
    id
        Column of unit ids.
    radius
        Kilometres on the grid.

    Returns
    -------
    numpy.ndarray
        One value a unit; 0 where nobody lives.
    """
    from scipy.signal import oaconvolve

    from qala.grid import geobox_of
    from qala.units import coverage

    box = geobox_of(population)
    step = max(1, round(1000.0 / abs(box.transform.a)))
    if step > 1:
        grid = population.fillna(0).coarsen(x=step, y=step, boundary="pad").sum()
        box = box.pad_wh(step).zoom_out(step)
    else:
        grid = population
    people = np.nan_to_num(np.asarray(grid.compute().data, dtype=np.float64))
    cell = abs(box.transform.a) / 1000.0
    reach = int(radius / cell)
    across = np.arange(-reach, reach + 1) * cell
    disc = (np.hypot(across[:, None], across[None, :]) <= radius).astype(np.float64)
    around = np.maximum(oaconvolve(people, disc, mode="same"), people)
    cover = coverage(units, box, id=id)
    here, near = people.ravel()[cover.cells], around.ravel()[cover.cells]
    total = np.asarray(cover.parts @ here).ravel()
    weighted = np.asarray(cover.parts @ (here * near)).ravel()
    return cast("Floats", np.divide(weighted, total, out=np.zeros_like(total), where=total > 0))


def _people_and_centres(
    units: gpd.GeoDataFrame, population: xr.DataArray, id: str, cover: Any = None
) -> tuple[Floats, gpd.GeoSeries]:
    import geopandas as gpd
    import shapely

    from qala.grid import geobox_of
    from qala.units import coverage

    box = geobox_of(population)
    cover = coverage(units, box, id=id) if cover is None else cover
    (people,) = cover.take(population)
    people = np.nan_to_num(people.astype(np.float64))
    width, t = box.shape[1], box.transform
    x = t.c + t.a * (cover.cells % width + 0.5)
    y = t.f + t.e * (cover.cells // width + 0.5)
    total, right, up = (
        np.asarray(cover.parts @ v).ravel() for v in (people, people * x, people * y)
    )
    inside = units.geometry.representative_point().to_crs(box.crs)
    lived = total > 0
    safe = np.where(lived, total, 1.0)
    points = shapely.points(
        np.where(lived, right / safe, inside.x), np.where(lived, up / safe, inside.y)
    )
    return total, gpd.GeoSeries(points, index=units.index, crs=box.crs)


# --- results ----------------------------------------------------------------------


def _result(
    units: gpd.GeoDataFrame,
    frame: Frame,
    found: Found,
    flows: Flows,
    settings: dict[str, Any],
    cities: Cities | None,
    people: Floats,
) -> Areas:
    import pandas as pd

    membership = _membership(frame, found, flows, settings, people)
    areas, cores, zones = area_layers(units, membership, frame.names)
    areas["pieces"] = areas["area"].map(_pieces(frame, found))
    table = _city_table(frame, found, cities, people)
    grouped = table.groupby("area")["city"].agg(lambda c: ", ".join(frame.names[x] for x in c))
    areas["cities"] = areas["area"].map(grouped)
    cores["cities"] = cores["area"].map(grouped)
    label = [frame.names[c] for c in frame.cities]
    merges = pd.DataFrame(
        [(t, frame.cities[a], frame.cities[b], s) for t, a, b, s in found.merges],
        columns=["round", "city", "into", "share"],
    )
    counts = {
        **flows.counts,
        "units": len(frame.ids),
        "areas": len(areas),
        "core_units": int((found.how == _CORE).sum()),
        "zone_units": int(((found.area >= 0) & (found.how != _CORE)).sum()),
        "enclaves_joined": int((found.how == _ENCLAVE).sum()),
        "not_contiguous": int((found.how == _LEFT).sum()),
        "cities_joined": len(set(label)) - len(set(found.group.tolist())),
    }
    log.info(
        "%d functional urban areas of %d cities: %d core and %d commuting-zone units of %d; "
        "%d enclaves joined, %d units left as not contiguous",
        len(areas), len(frame.cities), counts["core_units"], counts["zone_units"], len(frame.ids),
        counts["enclaves_joined"], counts["not_contiguous"],
    )  # fmt: skip
    return Areas(
        areas, cores, zones, membership, table, merges, flows, settings, counts, None, frame
    )


def _pieces(frame: Frame, found: Found) -> dict[str, int]:
    """Return the number of contiguous parts of each area."""
    inside = found.area >= 0
    piece = _components(frame.borders.neighbours, found.area, inside)
    parts = np.unique(np.column_stack([found.area[inside], piece[inside]]), axis=0)
    number = np.bincount(parts[:, 0], minlength=len(frame.cities))
    return {c: int(k) for c, k in zip(frame.cities, number, strict=True) if k}


def _membership(
    frame: Frame, found: Found, flows: Flows, settings: Mapping[str, Any], people: Floats
) -> pd.DataFrame:
    import pandas as pd

    role = np.where(found.area < 0, "outside", np.where(frame.city >= 0, "core", "zone"))
    cities = np.array([*frame.cities, None], dtype=object)
    table = pd.DataFrame(
        {
            "unit": frame.ids,
            "area": cities[found.area],
            "role": role,
            "share": np.where(flows.employed > 0, found.own_share, np.nan),
            "runner_up": cities[found.second],
            "runner_up_share": np.where(found.second >= 0, found.second_share, np.nan),
            "reason": _reasons(frame, found, settings),
            "city": cities[frame.city],
            "population": people,
        }
    )
    for column in ("area", "runner_up", "city"):
        table[column] = table[column].astype(object).where(table[column].notna(), None)
    return table


def _reasons(frame: Frame, found: Found, settings: Mapping[str, Any]) -> list[str]:
    """Return a sentence a unit: why it is in or out."""
    from qala.figures import percent

    lang = str(settings["lang"])
    name = [*(frame.names[c] for c in frame.cities), ""]
    verb = "estimated" if str(settings["method"]).startswith("huff") else "work"
    keys = {
        _CORE: "reason.core",
        _ZONE: f"reason.zone_{verb}",
        _ENCLAVE: "reason.enclave",
        _LEFT: "reason.left",
        _BELOW: f"reason.below_{verb}",
        _NOBODY: "reason.nobody",
        _UNKNOWN: "reason.unknown",
    }
    limit = percent(settings["threshold"], lang, digits=0)
    texts = []
    for how, area, best, share, rival, rival_share, city in zip(
        found.how, found.area, found.best, found.own_share, found.second, found.second_share,
        frame.city, strict=True,
    ):  # fmt: skip
        key = keys[int(how)]
        if how == _CORE and area != city:
            key = "reason.core_joined"
        text = tr(
            key, lang, area=name[area if area >= 0 else best], city=name[city],
            share=percent(share, lang), limit=limit,
        )  # fmt: skip
        if how in (_ZONE, _BELOW):
            text += (
                tr("reason.runner_up", lang, city=name[rival], share=percent(rival_share, lang))
                if rival >= 0
                else tr("reason.no_runner_up", lang)
            )
        texts.append(text)
    return texts


def area_layers(
    units: gpd.GeoDataFrame, membership: pd.DataFrame, names: Mapping[str, str]
) -> tuple[gpd.GeoDataFrame, gpd.GeoDataFrame, gpd.GeoDataFrame]:
    """Return areas, cores and commuting zones as polygons, from units in their order."""
    import geopandas as gpd
    import pandas as pd
    import shapely

    shapes = np.asarray(units.geometry.array, dtype=object)
    area = membership["area"].to_numpy()
    core = (membership["role"] == "core").to_numpy()
    inside = (membership["role"] != "outside").to_numpy()
    order = sorted(set(area[inside]))
    people = membership["population"].to_numpy(dtype=np.float64)

    def dissolved(which: Bools) -> gpd.GeoDataFrame:
        rows = [np.flatnonzero(which & (area == a)) for a in order]
        some_units = [(a, r) for a, r in zip(order, rows, strict=True) if r.size]
        merged = [_without_slivers(shapely.union_all(shapes[r])) for _, r in some_units]
        layer = gpd.GeoDataFrame(
            {
                "area": pd.Series([a for a, _ in some_units], dtype=object),
                "name": pd.Series([names.get(a, a) for a, _ in some_units], dtype=object),
                "units": np.array([r.size for _, r in some_units], dtype=np.int64),
                "population": [people[r].sum() for _, r in some_units],
            },
            geometry=merged,
            crs=units.crs,
        )
        layer["area_km2"] = _area_km2(layer)
        return layer

    areas, cores, zones = dissolved(inside), dissolved(core), dissolved(inside & ~core)
    by_core, by_zone = cores.set_index("area"), zones.set_index("area")
    areas["core_units"] = areas["area"].map(by_core["units"]).fillna(0).astype(np.int64)
    areas["zone_units"] = areas["area"].map(by_zone["units"]).fillna(0).astype(np.int64)
    areas["core_population"] = areas["area"].map(by_core["population"]).fillna(0.0)
    areas["zone_population"] = areas["area"].map(by_zone["population"]).fillna(0.0)
    return areas.drop(columns="units"), cores, zones


def _without_slivers(geometry: Any) -> Any:
    """Close the hairline holes that a union leaves between borders a rounding error apart."""
    import shapely

    parts = []
    for part in shapely.get_parts(geometry):
        holes = [h for h in part.interiors if not _is_hairline(h)]
        parts.append(shapely.Polygon(part.exterior, holes) if part.interiors else part)
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


def _is_hairline(ring: Any) -> bool:
    """Tell whether a ring is far longer than wide: less than a millionth of a disc its length."""
    import shapely

    return bool(shapely.Polygon(ring).area < 1e-6 * ring.length**2)


def _area_km2(layer: gpd.GeoDataFrame) -> Floats:
    from qala.grid import GHSL_CRS, is_equal_area

    if not len(layer):
        return np.zeros(0)
    shapes = layer.geometry if is_equal_area(layer.crs) else layer.geometry.to_crs(GHSL_CRS)
    return np.asarray(shapes.area, dtype=np.float64) / 1e6


def _city_table(frame: Frame, found: Found, cities: Cities | None, people: Floats) -> pd.DataFrame:
    import pandas as pd

    count = len(frame.cities)
    core = frame.city >= 0
    table = pd.DataFrame(
        {
            "city": list(frame.cities),
            "name": [frame.names[c] for c in frame.cities],
            "area": [frame.cities[g] for g in found.group],
            "units": np.bincount(frame.city[core], minlength=count),
            "population": np.bincount(frame.city[core], people[core], count),
        }
    )
    if cities is not None:
        extra = cities.centres.drop(columns="units").set_index("city")
        table = table.join(extra, on="city")
    return table
