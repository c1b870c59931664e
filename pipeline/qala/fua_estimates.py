"""Two simpler pictures of urban areas, beside those of :mod:`qala.fua`.

Neither counts commuters. The isochrone is what planners of agglomerations in
Kazakhstan draw; the cell-wise estimate is in the manner of GHS-FUA, without its
unpublished coefficients. Both are baselines to hold areas against.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qala.commuting import as_ids, distances, minutes
from qala.errors import InputError, Problems
from qala.fua import Areas, area_layers, core_series, cores_on_units, people_of_units
from qala.messages import tr

if TYPE_CHECKING:
    from collections.abc import Mapping

    import geopandas as gpd
    import pandas as pd
    import xarray as xr
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    Floats = NDArray[np.float64]

log = logging.getLogger("qala")

#: minutes to the core and people of a city (Makhrova, Safronov & Abilov 2023: 1.5 h, 100,000)
MINUTES = 90.0
MIN_CITY = 100_000.0
#: straight line to time where there is no network: 60 km/h, roads 1.3 times longer
SPEED_KMH = 60.0
DETOUR = 1.3


def isochrone_areas(
    units: gpd.GeoDataFrame,
    *,
    id: str,
    cores: Any,
    population: Any,
    seconds: Any = None,
    minutes_limit: float = MINUTES,
    min_city: float = MIN_CITY,
    speed_kmh: float = SPEED_KMH,
    detour: float = DETOUR,
    variants: Sequence[tuple[float, float]] = ((60.0, 1.0), (120.0, 1.0), (90.0, 0.5), (60.0, 0.5)),
    names: Mapping[str, str] | None = None,
    lang: str = "en",
) -> Areas:
    """Draw areas as the units within a travel time of large cities.

    Parameters
    ----------
    units
        Polygons in any declared CRS.
    id
        Column of unit ids.
    cores
        Core units (``unit``, ``city``), as for :func:`qala.fua.functional_areas`.
    population
        People: a raster, a column, or one value a unit.
    seconds
        Travel times between units; without them the straight line at
        ``speed_kmh``, lengthened by ``detour``.
    minutes_limit
        Longest way to the nearest core unit of a city.
    min_city
        Least people of a city.
    speed_kmh, detour
        For the straight line.
    variants
        Other limits (minutes, factor on ``min_city``) that ``stability`` is
        counted over, besides the base.
    names, lang
        As for :func:`qala.fua.functional_areas`.

    Returns
    -------
    Areas
        ``flows`` is None; the membership has ``minutes`` in place of shares, and
        ``stability``: the share of variants that say the same of a unit.

    Raises
    ------
    InputError
        When no city is large enough, or limits are not above 0.

    Notes
    -----
    After Makhrova, Safronov & Abilov (2023). Nothing is said of who commutes:
    in dense regions the isochrone takes in far more than a commuting zone.
    """
    import pandas as pd

    problems = Problems("isochrones")
    for name, value in (
        ("minutes_limit", minutes_limit),
        ("speed_kmh", speed_kmh),
        ("detour", detour),
    ):
        if not value > 0:
            problems.add(f"{name} is {value!r}", "above 0")
    problems.raise_if_any()
    ids = as_ids(units[id])
    city, cities = cores_on_units(core_series(cores), ids)
    people, points = people_of_units(units, population, id)
    size = np.bincount(city[city >= 0], people[city >= 0], len(cities))
    longest = max([minutes_limit, *(m for m, _ in variants)])
    if seconds is None:
        costs = distances(units, points=points, reach=longest * speed_kmh / 60 / detour)
        costs.data *= detour * 60 / speed_kmh
    else:
        costs = minutes(seconds, units, points=points)
    time = _city_times(costs, city, len(cities))
    if not (size >= min_city).any():
        raise InputError(
            f"the largest city has {size.max(initial=0):,.0f} people",
            f"at least one of {min_city:,.0f}",
            "lower min_city",
        )

    def assign(limit: float, least: float) -> NDArray[np.int64]:
        allowed = np.where(size >= least, time, np.inf)
        best = allowed.argmin(axis=1)
        reached = allowed[np.arange(len(ids)), best] <= limit
        return np.where(reached, best, -1).astype(np.int64)

    area = assign(minutes_limit, min_city)
    runs = [area, *(assign(m, f * min_city) for m, f in variants)]
    agree = np.mean([r == area for r in runs], axis=0)
    label = {c: (names or {}).get(c, c) for c in cities}
    allowed = np.where(size >= min_city, time, np.inf)
    nearest = allowed.argmin(axis=1)
    way = allowed[np.arange(len(ids)), nearest]
    role = np.where(area < 0, "outside", np.where((city >= 0) & (city == area), "core", "zone"))
    ranked = np.array([*cities, None], dtype=object)
    membership = pd.DataFrame(
        {
            "unit": ids,
            "area": ranked[area],
            "role": role,
            "share": np.nan,
            "runner_up": None,
            "runner_up_share": np.nan,
            "reason": [
                _isochrone_reason(a, m, label[cities[k]], minutes_limit, min_city, lang)
                for a, m, k in zip(area, way, nearest, strict=True)
            ],
            "city": ranked[city],
            "population": people,
            "minutes": np.where(np.isfinite(way), way, np.nan),
            "stability": agree,
        }
    )
    membership["area"] = membership["area"].astype(object).where(membership["area"].notna(), None)
    areas, core_layer, zones = area_layers(units, membership, label)
    table = pd.DataFrame(
        {
            "city": list(cities),
            "name": [label[c] for c in cities],
            "area": [c if s >= min_city else None for c, s in zip(cities, size, strict=True)],
            "population": size,
        }
    )
    settings = {
        "method": "isochrone",
        "minutes": minutes_limit,
        "min_city": min_city,
        "times": "network" if seconds is not None else f"straight line, {speed_kmh:g} km/h",
        "lang": lang,
    }
    merges = pd.DataFrame(columns=["round", "city", "into", "share"])
    counts = {"units": len(ids), "areas": len(areas), "unreached": int((~np.isfinite(way)).sum())}
    return Areas(areas, core_layer, zones, membership, table, merges, None, settings, counts)


def _city_times(costs: csr_matrix, city: NDArray[np.int64], count: int) -> Floats:
    """Return minutes from each unit to the nearest core unit of each city; 0 inside it."""
    core = np.flatnonzero(city >= 0)
    pairs = costs[:, core].tocoo()
    time = np.full((city.size, count), np.inf)
    np.minimum.at(time, (pairs.row, city[core[pairs.col]]), pairs.data)
    time[core, city[core]] = 0.0
    return time


def _isochrone_reason(
    area: int, way: float, name: str, limit: float, least: float, lang: str
) -> str:
    from qala.figures import number

    if not np.isfinite(way):
        return tr("reason.isochrone_unreached", lang, people=number(least, lang))
    key = "reason.isochrone" if area >= 0 else "reason.isochrone_beyond"
    return tr(key, lang, minutes=number(way, lang), area=name, limit=number(limit, lang))


# --- cell-wise, GHS-FUA-like ------------------------------------------------------


@dataclass(frozen=True)
class CellModel:
    """Probability that a cell belongs to the commuting zone of its nearest centre.

    ``1 / (1 + exp(−(constant + minutes·t + centre·ln(people of the centre) +
    local·ln(people of the cell))))``, t in minutes to the centre's edge.

    Attributes
    ----------
    constant, minutes, centre, local
        Coefficients.
    source
        What they were fitted on.
    """

    constant: float
    minutes: float
    centre: float
    local: float
    source: str = ""

    def probability(self, time: Floats, centre: Floats, local: Floats) -> Floats:
        """Return probabilities for minutes, people of the centre and people of the cell."""
        with np.errstate(divide="ignore", over="ignore"):
            score = (
                self.constant
                + self.minutes * time
                + self.centre * np.log(centre)
                + self.local * np.log(local)
            )
            return 1.0 / (1.0 + np.exp(-score))


def cell_table(
    population: xr.DataArray,
    labels: xr.DataArray,
    *,
    seconds: xr.DataArray | None = None,
    nearest: xr.DataArray | None = None,
    min_people: float = 300.0,
    speed_kmh: float = SPEED_KMH,
    detour: float = DETOUR,
) -> pd.DataFrame:
    """Return what the cell-wise estimate looks at, one row a cell of enough people.

    Parameters
    ----------
    population
        dims (y, x); people per cell of 1 km².
    labels
        dims (y, x), int32; urban centres, 0 elsewhere.
    seconds, nearest
        dims (y, x); travel time to the edge of the nearest centre in time and its
        number. Without them the straight line at ``speed_kmh`` and ``detour``.
    min_people
        Least people of a cell (GHS-FUA: 300).
    speed_kmh, detour
        For the straight line.

    Returns
    -------
    pandas.DataFrame
        ``cell`` (row-major number), ``centre``, ``minutes``, ``centre_people``, ``people``.
    """
    import pandas as pd
    from scipy.ndimage import distance_transform_edt

    from qala.grid import geobox_of, require_same_grid

    box = geobox_of(population)
    require_same_grid(box, geobox_of(labels), "the labels of urban centres")
    people = np.nan_to_num(np.asarray(population.compute().data, dtype=np.float64))
    centre = np.asarray(labels.compute().data).astype(np.int64)
    if not (centre > 0).any():
        raise InputError("there is no urban centre", "labels of at least one")
    if (seconds is None) != (nearest is None):
        raise InputError("seconds or nearest is missing", "both, or neither")
    if seconds is None or nearest is None:
        far, (row, col) = distance_transform_edt(centre == 0, return_indices=True)
        # from the middle of a cell to the edge of the centre
        km = np.maximum(far - 0.5, 0.0) * abs(box.transform.a) / 1000.0
        time, which = km * detour / speed_kmh * 60.0, centre[row, col]
    else:
        for name, other in (("seconds", seconds), ("nearest", nearest)):
            require_same_grid(box, geobox_of(other), name)
        time = np.asarray(seconds.compute().data, dtype=np.float64) / 60.0
        which = np.nan_to_num(np.asarray(nearest.compute().data)).astype(np.int64)
    size = np.bincount(centre.ravel(), people.ravel())
    keep = np.flatnonzero(
        ((people >= min_people) & np.isfinite(time) & (which > 0)).ravel() | (centre.ravel() > 0)
    )
    return pd.DataFrame(
        {
            "cell": keep,
            "centre": which.ravel()[keep],
            "minutes": time.ravel()[keep],
            "centre_people": size[which.ravel()[keep]],
            "people": people.ravel()[keep],
            "inside": centre.ravel()[keep] > 0,
        }
    )


def fit_cell_model(
    cells: pd.DataFrame, in_area: NDArray[np.bool_], *, source: str = ""
) -> CellModel:
    """Fit the cell-wise model to known areas by maximum likelihood, cells weighted by people.

    Parameters
    ----------
    cells
        From :func:`cell_table`.
    in_area
        Whether each cell lies in a functional urban area.
    source
        Name of the data, kept with the model.

    Raises
    ------
    InputError
        When cells outside centres are all in, or all out.
    """
    outside = ~cells["inside"].to_numpy()
    y = np.asarray(in_area, dtype=np.float64)[outside]
    if not 0 < y.mean() < 1:
        raise InputError("all cells outside centres are on one side", "cells in areas and outside")
    t = cells["minutes"].to_numpy()[outside]
    c = np.log(cells["centre_people"].to_numpy()[outside])
    p = np.log(np.maximum(cells["people"].to_numpy()[outside], 1.0))
    design = np.column_stack([np.ones_like(t), t, c - c.mean(), p - p.mean()])
    weight = cells["people"].to_numpy()[outside]
    weight = weight / weight.mean()
    found = np.zeros(4)
    for _ in range(50):
        chance = 1 / (1 + np.exp(-np.clip(design @ found, -30, 30)))
        gradient = design.T @ (weight * (y - chance))
        curvature = (design * (weight * chance * (1 - chance))[:, None]).T @ design
        step = np.linalg.solve(curvature + 1e-9 * np.eye(4), gradient)
        found = found + step
        if np.abs(step).max() < 1e-8:
            break
    else:
        log.warning("the cell-wise model did not settle after 50 steps")
    constant = found[0] - found[2] * c.mean() - found[3] * p.mean()
    slopes = [float(v) for v in found[1:]]
    return CellModel(float(constant), slopes[0], slopes[1], slopes[2], source)


#: Fitted on the functional urban areas of Belgium that its census flows of 2011 give, straight
#: line at 60 km/h with a detour of 1.3. Not the coefficients of GHS-FUA, which are not published.
CELL_MODEL = CellModel(
    -4.4057,
    -0.10426,
    0.60566,
    -0.15126,
    "Belgium, areas of the census flows of 2011, straight line",
)


def cellwise_areas(
    population: xr.DataArray,
    labels: xr.DataArray,
    *,
    model: CellModel = CELL_MODEL,
    threshold: float = 0.5,
    **table: Any,
) -> xr.Dataset:
    """Estimate areas cell by cell, GHS-FUA-like.

    Cells of at least 300 people join the urban centre nearest in time when a
    probability, from travel time, people of the centre and people of the cell,
    reaches the threshold; pieces cut off from their centre by cells of no area leave.

    Parameters
    ----------
    population, labels
        As for :func:`cell_table`.
    model
        Coefficients; fit them with :func:`fit_cell_model` where areas are known.
    threshold
        Least probability.
    **table
        Further arguments of :func:`cell_table`.

    Returns
    -------
    xarray.Dataset
        dims (y, x): ``area`` (int32, number of the centre; 0 outside) and
        ``probability`` (float32; NaN where not estimated).

    Notes
    -----
    In the manner of GHS-FUA R2019A (Moreno-Monroy, Schiavina & Veneri 2021,
    doi:10.1016/j.jue.2020.103242; data: doi:10.2905/347F0337-F2DA-4592-87B3-E25975EC2C95).
    Its coefficients, its threshold and its use of national income are not
    published in full: this is an imitation, fitted on Belgium alone.
    """
    import xarray as xr

    cells = cell_table(population, labels, **table)
    chance = _chances(cells, model)
    shape = population.shape
    area = _grown(cells, chance, threshold, np.asarray(labels.compute().data))
    at = cells["cell"].to_numpy()
    probability = np.full(shape, np.nan, np.float32)
    probability.ravel()[at] = chance
    coords = {k: population.coords[k] for k in population.coords}
    return xr.Dataset(
        {
            "area": xr.DataArray(area, dims=("y", "x"), coords=coords),
            "probability": xr.DataArray(probability, dims=("y", "x"), coords=coords),
        },
        attrs={"method": "GHS-FUA-like, cell by cell", "model_source": model.source},
    )


def _chances(cells: pd.DataFrame, model: CellModel, factor: float = 1.0) -> Floats:
    """Return the probability of each cell, 1 in centres; ``factor`` lengthens the way."""
    chance = model.probability(
        factor * cells["minutes"].to_numpy(),
        cells["centre_people"].to_numpy(),
        cells["people"].to_numpy(),
    )
    return np.where(cells["inside"].to_numpy(), 1.0, chance)


def _grown(
    cells: pd.DataFrame, chance: Floats, threshold: float, centre: NDArray[Any]
) -> NDArray[np.int32]:
    """Return the area of each cell: what reaches the threshold and hangs on its centre."""
    from scipy.ndimage import label as components

    area = np.zeros(centre.shape, np.int32)
    area.ravel()[cells["cell"].to_numpy()] = np.where(
        chance >= threshold, cells["centre"].to_numpy(), 0
    )
    # contiguous with a cell of the centre, by edges or corners, through cells of any area
    number = int(area.max(initial=0))
    joined, _ = components(area > 0, structure=np.ones((3, 3)))
    pair = joined.astype(np.int64) * (number + 1) + area
    anchored = np.unique(pair[(centre > 0) & (area > 0)])
    area[~np.isin(pair, anchored)] = 0
    return area


#: probabilities and factors on travel time that the band of the cell-wise estimate runs over
CELL_THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
CELL_FACTORS = (0.8, 1.0, 1.25)


@dataclass(frozen=True)
class CellAreas:
    """The cell-wise estimate on cells and on units.

    Attributes
    ----------
    areas
        As :func:`qala.fua.functional_areas` gives it; ``flows`` is None, the share in the
        membership is that of people living in cells of the area.
    cells
        As :func:`cellwise_areas` gives it.
    outlines
        Polygons of the cells: ``area``, ``name``, ``population``, ``area_km2``.
    """

    areas: Areas
    cells: xr.Dataset
    outlines: gpd.GeoDataFrame


def cellwise_units(
    units: gpd.GeoDataFrame,
    *,
    id: str,
    population: xr.DataArray,
    labels: xr.DataArray,
    cores: Any,
    seconds: xr.DataArray | None = None,
    nearest: xr.DataArray | None = None,
    model: CellModel = CELL_MODEL,
    threshold: float = 0.5,
    unit_share: float = 0.5,
    thresholds: Sequence[float] = CELL_THRESHOLDS,
    factors: Sequence[float] = CELL_FACTORS,
    names: Mapping[str, str] | None = None,
    lang: str = "en",
) -> CellAreas:
    """Estimate areas cell by cell, GHS-FUA-like, and tell which units they hold.

    A unit outside the cities belongs to an area when at least ``unit_share`` of its people
    live in the area's cells.

    Parameters
    ----------
    units
        Polygons in any declared CRS.
    id
        Column of unit ids.
    population, labels, seconds, nearest
        As for :func:`cell_table`.
    cores
        City (number of its urban centre, as text) by unit: ``cities_of(…).cores``. Centres
        without a city make no area.
    model, threshold
        As for :func:`cellwise_areas`.
    unit_share
        Share of a unit's people.
    thresholds, factors
        Probabilities, and factors on travel time, that ``stability`` is counted over.
    names, lang
        As for :func:`qala.fua.functional_areas`.

    Returns
    -------
    CellAreas
        The membership has ``stability``: the share of variants that say the same of a unit.

    Raises
    ------
    InputError
        When there is no urban centre, or cores name other units.
    """
    import pandas as pd

    from qala.figures import percent
    from qala.grid import geobox_of
    from qala.units import coverage

    ids = as_ids(units[id])
    city, cities = cores_on_units(core_series(cores), ids)
    if not all(c.isdigit() for c in cities):
        raise InputError("cores are not numbers of urban centres", "cities_of(...).cores")
    number = np.array([int(c) for c in cities])
    times: dict[str, Any] = {"seconds": seconds, "nearest": nearest}
    found = cellwise_areas(population, labels, model=model, threshold=threshold, **times)
    cells = cell_table(population, labels, **times)
    centre = np.asarray(labels.compute().data)
    cover = coverage(units, geobox_of(population), id=id)
    (people,) = cover.take(population)
    people = np.nan_to_num(people.astype(np.float64))
    total = np.asarray(cover.parts @ people).ravel()
    slot = np.full(int(centre.max()) + 1, -1)
    slot[number] = np.arange(number.size)

    def assign(area: NDArray[np.int32]) -> tuple[NDArray[np.int64], Floats, NDArray[np.int64]]:
        from scipy.sparse import csr_matrix

        which = slot[area.ravel()[cover.cells]]
        at = np.flatnonzero(which >= 0)
        spread = csr_matrix((people[at], (at, which[at])), shape=(people.size, number.size))
        held = (cover.parts @ spread).toarray()
        share = np.divide(held, total[:, None], out=np.zeros_like(held), where=total[:, None] > 0)
        best = share.argmax(axis=1)
        much = share[np.arange(len(ids)), best]
        chosen = np.where(city >= 0, city, np.where(much >= unit_share - 1e-9, best, -1))
        return chosen.astype(np.int64), much, np.where(much > 0, best, -1).astype(np.int64)

    base, share, best = assign(found["area"].to_numpy())
    agree = np.mean(
        [
            assign(_grown(cells, _chances(cells, model, factor), limit, centre))[0] == base
            for factor in factors
            for limit in thresholds
        ],
        axis=0,
    )
    label = {c: (names or {}).get(c, c) for c in cities}
    ranked = np.array([*cities, None], dtype=object)
    role = np.where(base < 0, "outside", np.where(city >= 0, "core", "zone"))
    reasons = [
        tr("reason.core", lang, area=label[cities[c]])
        if c >= 0
        else tr("reason.cells_none", lang)
        if k < 0
        else tr(
            "reason.cells" if a >= 0 else "reason.cells_below", lang,
            share=percent(s, lang), area=label[cities[k]],
            limit=percent(unit_share, lang, digits=0),
        )
        for c, a, k, s in zip(city, base, best, share, strict=True)
    ]  # fmt: skip
    membership = pd.DataFrame(
        {
            "unit": ids,
            "area": ranked[base],
            "role": role,
            "share": np.where(total > 0, share, np.nan),
            "runner_up": None,
            "runner_up_share": np.nan,
            "reason": reasons,
            "city": ranked[city],
            "population": total,
            "stability": agree,
        }
    )
    for column in ("area", "city"):
        membership[column] = membership[column].where(membership[column].notna(), None)
    areas, core_layer, zones = area_layers(units, membership, label)
    held = np.bincount(city[city >= 0], total[city >= 0], number.size)
    table = pd.DataFrame(
        {
            "city": list(cities),
            "name": [label[c] for c in cities],
            "area": list(cities),
            "population": held,
        }
    )
    settings = {
        "method": "cellwise",
        "model": "GHS-FUA-like",
        "threshold": threshold,
        "unit_share": unit_share,
        "times": "straight line" if seconds is None else "network",
        "model_source": model.source,
        "lang": lang,
    }
    counts = {
        "units": len(ids),
        "areas": len(areas),
        "cells_in_areas": int((found["area"] > 0).sum()),
        "centres_without_city": int(centre.max()) - number.size,
    }
    merges = pd.DataFrame(columns=["round", "city", "into", "share"])
    result = Areas(areas, core_layer, zones, membership, table, merges, None, settings, counts)
    kept = found["area"].where(np.isin(found["area"], number), 0).astype("int32")
    outlines = _outlines(kept, population, label)
    return CellAreas(result, found.assign(area=kept), outlines)


def _outlines(
    area: xr.DataArray, population: xr.DataArray, label: Mapping[str, str]
) -> gpd.GeoDataFrame:
    """Return the cells of each area as polygons."""
    from qala.settlement import urban_centres

    present, places = np.unique(area.to_numpy(), return_inverse=True)
    # numbers without gaps, 0 staying outside
    ranks = places.reshape(area.shape) + (0 if present[0] == 0 else 1)
    shapes = urban_centres(area.copy(data=ranks.astype(np.int32)), population)
    names = [str(v) for v in present if v > 0]
    return shapes.assign(area=names, name=[label[n] for n in names])[
        ["area", "name", "population", "area_km2", "geometry"]
    ]
