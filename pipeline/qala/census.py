"""Census counts and grids: points to cells, and grids scaled to published totals.

Both ways conserve people to 1e-9: what goes in comes out, or is named.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from odc.geo.geobox import GeoBox

from qala.errors import InputError, Problems
from qala.grid import cell_area_m2, geobox_of, require_equal_area, require_same_grid

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    import xarray as xr
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    Floats = NDArray[np.float64]

log = logging.getLogger("qala")

#: people in equal people out, relative
MASS_TOLERANCE = 1e-9
#: by how much parts of a whole cell may miss 1
_SINGLE_PRECISION = 1e-5
#: a unit's factor stays within e^±this of its total over its people: beyond, totals
#: of units that share cells contradict each other
_LOG_REACH = 7.0
#: names shown of a long list in messages
_SHOWN = 5


@dataclass(frozen=True)
class Spread:
    """How the people of one settlement stand around its point.

    Density falls with distance as a Gaussian, ``D(r) = D0 exp(-(r/b)²)`` with
    ``b² = P / (π D0)`` (the normal form of Clark's 1951 law, after Smeed 1961
    and Tanner 1961); larger settlements are denser at the centre,
    ``D0 = min(central_density, village_density (P / 1000)^growth)``.

    Attributes
    ----------
    central_density
        Cap of the density at a settlement's centre, people per km². The default
        is that Gaussian whose part of at least 1,500 people per km² has a mean
        density of 3,574 per km²: the median of the 27 urban centres of
        Kazakhstan in GHS-UCDB R2019A (doi:10.2905/53473144-B88C-44BC-B4A3-4583ED1F547E).
    village_density
        Density at the centre of a settlement of 1,000 people, people per km².
        An assumption: households of five on plots of 0.15 to 0.25 ha.
    growth
        Exponent by which the density at the centre grows with population. An
        assumption; 0 gives every settlement ``village_density``.
    reach
        Where the profile is cut off, in multiples of b; the 0.01 % beyond is
        shared out within.

    Examples
    --------
    >>> Spread().radius_km(215_873), Spread(central_density=5000).radius_km(215_873)
    (3.13..., 3.70...)
    """

    central_density: float = 7000.0
    village_density: float = 2000.0
    growth: float = 0.25
    reach: float = 3.0

    def __post_init__(self) -> None:
        """Refuse values that give no profile."""
        problems = Problems("spread")
        for name in ("central_density", "village_density", "reach"):
            value = getattr(self, name)
            if not np.isfinite(value) or value <= 0:
                problems.add(f"{name} is {value!r}", "a number above 0")
        if not np.isfinite(self.growth) or not 0 <= self.growth <= 1:
            problems.add(f"growth is {self.growth!r}", "a number from 0 to 1")
        problems.raise_if_any()

    def radius_km(self, population: Any) -> Any:
        """Return b of settlements, km."""
        people = np.asarray(population, dtype="float64")
        central = np.minimum(
            self.central_density, self.village_density * (people / 1000.0) ** self.growth
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            radius = np.where(people > 0, np.sqrt(people / (np.pi * central)), 0.0)
        return radius if radius.ndim else float(radius)


@dataclass(frozen=True)
class Reconciled:
    """A population grid that sums to the units' totals, and how it got there.

    Attributes
    ----------
    population
        dims (y, x), people per cell, float64.
    factors
        dims (y, x), people after over people before; NaN where nobody was before.
    units
        One row a unit: ``before``, ``total``, ``after`` (people), ``factor``,
        ``reason`` (empty where the total is met without more).
    unmet
        The rows whose total is not met.
    placed
        People placed uniformly where the grid had none.
    """

    population: xr.DataArray
    factors: xr.DataArray
    units: pd.DataFrame
    unmet: pd.DataFrame
    placed: float


def grid_from_points(
    points: gpd.GeoDataFrame,
    grid: GeoBox | xr.DataArray,
    *,
    value: str = "population",
    method: Literal["cell", "settlement"] = "cell",
    spread: Spread | None = None,
    land: xr.DataArray | None = None,
    unplaced: Literal["error", "list"] = "error",
    label: str = "name",
) -> xr.DataArray:
    """Put counted people on a grid.

    Parameters
    ----------
    points
        Point geometries in any declared CRS with a column of people.
    grid
        Target grid, or a raster on it; equal-area for ``method="settlement"``.
    value
        Column of people.
    method
        ``cell`` puts each count into the cell its point lies in; ``settlement``
        spreads it over cells by ``spread``, since a settlement of 200,000 people
        does not stand on 1 km².
    spread
        Density profile of a settlement.
    land
        dims (y, x), m² or share of land per cell on the same grid. With
        ``settlement`` people stand on land alone, in proportion to it; with
        ``cell`` a point in a cell without land is not placed.
    unplaced
        Points off the grid or without land in reach: ``error`` refuses them,
        ``list`` leaves them out, counted and named in ``attrs``.
    label
        Column that names a point in messages, where there is one.

    Returns
    -------
    xarray.DataArray
        dims (y, x), people per cell, float64. The sum equals the placed counts to
        1e-9, whatever the order of the points. ``attrs`` holds ``points``,
        ``people``, ``unplaced_points``, ``unplaced_people`` and ``unplaced``
        (names).

    Raises
    ------
    InputError
        When the CRS or the column is missing, geometries are not points, counts
        are missing, negative or infinite, or points cannot be placed; all at once.

    Examples
    --------
    >>> import geopandas as gpd
    >>> from qala.grid import ghsl_geobox
    >>> town = gpd.GeoDataFrame({"population": [74_464]}, geometry=gpd.points_from_xy(
    ...     [5_565_500], [5_155_500]), crs="ESRI:54009")
    >>> box = ghsl_geobox((5_555_000, 5_145_000, 5_576_000, 5_166_000))
    >>> float(grid_from_points(town, box).max())
    74464.0
    >>> spread = grid_from_points(town, box, method="settlement")
    >>> round(float(spread.sum()), 3), round(float(spread.max()))
    (74464.0, 5...)
    """
    import xarray as xr
    from odc.geo.xr import xr_coords

    box = grid if isinstance(grid, GeoBox) else geobox_of(grid)
    if method not in ("cell", "settlement"):
        raise InputError(f"method is {method!r}", "cell or settlement")
    if unplaced not in ("error", "list"):
        raise InputError(f"unplaced is {unplaced!r}", "error or list")
    if method == "settlement":
        require_equal_area(box, "grid")
    people = _checked_counts(points, value, label)
    weights = _land_weights(land, box)

    xy = points.geometry.to_crs(box.crs)
    x, y, t = xy.x.to_numpy(), xy.y.to_numpy(), ~box.transform
    col, row = t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f
    height, width = box.shape
    with np.errstate(invalid="ignore"):
        on_grid = (col >= 0) & (col < width) & (row >= 0) & (row < height)
    # rounding of a sum hangs on its order: sorted, any order of points gives the same bits
    order = np.lexsort((people, col, row))
    order = order[on_grid[order]]
    out = np.zeros((height, width))
    placed = np.zeros(len(people), dtype=bool)
    if method == "cell":
        cells = np.floor(row[order]).astype("int64") * width + np.floor(col[order]).astype("int64")
        fits = np.ones(len(cells), dtype=bool) if weights is None else weights.ravel()[cells] > 0
        cells, order = cells[fits], order[fits]
        out = np.bincount(cells, weights=people[order], minlength=out.size).reshape(out.shape)
        placed[order] = True
    else:
        from qala._census_kernels import spread_points

        profile = spread or Spread()
        radius = np.asarray(profile.radius_km(people[order])) * 1000.0 / abs(box.transform.a)
        placed[order] = spread_points(
            out,
            row[order],
            col[order],
            people[order],
            radius,
            profile.reach,
            np.ones((1, 1)) if weights is None else weights,
            weights is not None,
        )
    left = ~placed
    names = _names(points, label, left)
    lost = float(people[left].sum())
    if left.any():
        off = int((~on_grid).sum())
        told = (
            f"{int(left.sum())} points with {lost:,.0f} people cannot be placed ({off} off the "
            f"grid, {int(left.sum()) - off} without land in reach): {_some(names)}"
        )
        if unplaced == "error":
            raise InputError(
                told,
                "points on the grid's land",
                "take a larger grid, correct the points, or pass unplaced='list'",
            )
        log.warning("%s", told)
    _require_mass(float(out.sum()), float(people[placed].sum()), "grid_from_points")
    return xr.DataArray(
        out,
        coords=xr_coords(box),
        dims=("y", "x"),
        name="population",
        attrs={
            "units": "people",
            "points": int(placed.sum()),
            "people": float(people[placed].sum()),
            "unplaced_points": int(left.sum()),
            "unplaced_people": lost,
            "unplaced": names,
        },
    )


def reconcile(
    population: xr.DataArray,
    units: gpd.GeoDataFrame,
    *,
    id: str,
    total: str = "population",
    overlay: Literal["exact", "centres"] = "exact",
    place: Literal["none", "uniform"] = "none",
    land: xr.DataArray | None = None,
    tolerance: float = MASS_TOLERANCE,
) -> Reconciled:
    """Scale a population grid so that every unit holds its published total.

    A cell inside one unit is multiplied by the unit's factor (dasymetric
    scaling). A cell cut by a border takes the geometric mean of its units'
    factors, weighted by their parts of the cell, and the factors are solved for
    together, so that a later overlay by area of the result gives every total
    again (to 1e-9 in double precision; exactextract's parts are single). Among
    all grids with these totals it is the one nearest to the given one in the
    sense of information (iterative proportional fitting: Deming & Stephan 1940,
    doi:10.1214/aoms/1177731829; Ireland & Kullback 1968,
    doi:10.1093/biomet/55.1.179). Part of a cell outside every unit counts with
    factor 1.

    Parameters
    ----------
    population
        dims (y, x), people per cell; NaN where missing, which stays so. It is
        read into memory as float64.
    units
        Polygons with their totals.
    id
        Column of unit ids.
    total
        Column of published totals, people; missing leaves a unit as it is.
    overlay
        ``exact`` divides cut cells by area, ``centres`` gives a cell to the unit
        that holds its centre.
    place
        What to do for a unit where the grid has nobody but the total is above 0:
        ``none`` lists it as unmet, ``uniform`` places its people on its cells
        in proportion to land.
    land
        dims (y, x), m² or share of land per cell, for ``place="uniform"``.
    tolerance
        Relative difference from the total that counts as met.

    Returns
    -------
    Reconciled
        The grid, the factors, the table of units and those not met, with the
        reason: no cell of the grid, no people in its cells, or totals that no
        grid of this cell size can give, because units share their cells. The
        sum of such a unit and its neighbours is met, so that no people are lost.

    Raises
    ------
    InputError
        When columns are missing, totals are negative or infinite, the grid holds
        negative or infinite people, or a unit layer is not sound; all at once.
    """
    from qala.units import coverage

    if place not in ("none", "uniform"):
        raise InputError(f"place is {place!r}", "none or uniform")
    box = geobox_of(population)
    totals = _checked_totals(units, id, total)
    values = np.asarray(population.data, dtype="float64")  # computes a lazy grid, once
    known = np.isfinite(values)
    _check_population(values, known)
    parts = _whole_cells(coverage(units, box, id=id, overlay=overlay).matrix)
    before_cells = np.where(known, values, 0.0).ravel()
    before = np.asarray(parts @ before_cells).ravel()
    # only cells with data can take people
    open_cells = parts @ known.ravel().astype("float64")
    wanted = np.isfinite(totals)
    no_cell = np.asarray(open_cells).ravel() <= 0
    nobody = ~no_cell & (before <= 0) & wanted & (totals > 0)

    start = before_cells.copy()
    placed = 0.0
    reason = np.full(len(totals), "", dtype=object)
    reason[~wanted] = "no published total"
    if place == "uniform" and nobody.any():
        done = _place_uniform(start, parts, totals, nobody, known, _land_weights(land, box))
        reason[done] = "placed uniformly"
        placed = float(totals[done].sum())
        log.warning(
            "%d units had no people in the grid; %.0f people placed uniformly: %s",
            int(done.sum()),
            placed,
            _some([str(v) for v in units[id][done]]),
        )
        nobody = nobody & ~done
    solvable = wanted & ~no_cell & ~nobody
    result = _fit_totals(start, parts, totals, solvable, tolerance)

    after = np.asarray(parts @ result).ravel()
    met = wanted & (np.abs(after - np.nan_to_num(totals)) <= tolerance * np.maximum(totals, 1.0))
    reason[wanted & no_cell & (totals > 0)] = "no cell of the grid"
    reason[nobody] = "no people in its cells"
    reason[solvable & ~met] = (
        "shares its cells with other units and their totals contradict each other: "
        "only the sum with neighbours is met"
    )
    met |= wanted & no_cell & (totals == 0)
    missed = wanted & ~met
    if missed.any():
        log.warning(
            "%d units with %.0f people could not be met: %s",
            int(missed.sum()),
            float(totals[missed].sum()),
            _some([f"{u} ({r})" for u, r in zip(units[id][missed], reason[missed], strict=True)]),
        )
    return _reconciled(
        population, known, before_cells, result, placed,
        _unit_table(units, id, before, totals, after, reason), missed,
    )  # fmt: skip


def _unit_table(
    units: gpd.GeoDataFrame, id: str, before: Floats, totals: Floats, after: Floats, reason: Any
) -> pd.DataFrame:
    import pandas as pd

    with np.errstate(invalid="ignore", divide="ignore"):
        factor = np.where(before > 0, after / before, np.nan)
    return pd.DataFrame(
        {
            id: units[id].to_numpy(),
            "before": before,
            "total": totals,
            "after": after,
            "factor": factor,
            "reason": reason.astype(str),
        }
    )


def _reconciled(
    population: xr.DataArray,
    known: NDArray[np.bool_],
    before: Floats,
    after: Floats,
    placed: float,
    table: pd.DataFrame,
    missed: NDArray[np.bool_],
) -> Reconciled:
    shape = known.shape
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = np.where(before > 0, after / before, np.nan).reshape(shape)
    grid = np.where(known, after.reshape(shape), np.nan)
    new = population.copy(data=grid).assign_attrs(units="people").rename("population")
    factors = population.copy(data=np.where(known, factor, np.nan)).rename("factor")
    factors.attrs = {"units": "1", "long_name": "people after over people before"}
    if population.chunks is not None:
        new, factors = new.chunk(population.chunksizes), factors.chunk(population.chunksizes)
    return Reconciled(new, factors, table, table[missed].reset_index(drop=True), placed)


def _fit_totals(
    start: Floats,
    parts: csr_matrix,
    totals: Floats,
    solvable: NDArray[np.bool_],
    tolerance: float,
) -> Floats:
    """Find the grid nearest to the given one whose unit sums are the totals.

    Where totals contradict each other, units are joined with the neighbour they
    share most people with until the joint totals can be met: people are kept.
    """
    from scipy import sparse

    grid = start.copy()
    # a unit of nobody empties every cell it touches: no smaller change gives 0
    empty = solvable & (totals == 0)
    if empty.any():
        grid[np.asarray(parts[empty].sum(axis=0)).ravel() > 0] = 0.0
    part = parts[solvable & (totals > 0)].tocsr()
    goal = totals[solvable & (totals > 0)]
    alive = np.asarray(part @ grid).ravel() > 0
    part, goal = part[alive].tocsr(), goal[alive]
    if not len(goal):
        return grid
    touched = np.flatnonzero(np.asarray(part.sum(axis=0)).ravel() > 0)
    touched = touched[grid[touched] > 0]
    part, base = part[:, touched].tocsr(), grid[touched]
    group = np.arange(len(goal))
    while True:
        count = int(group.max()) + 1
        join = sparse.csr_matrix((np.ones(len(group)), (group, np.arange(len(group)))))
        joined, joint = (join @ part).tocsr(), join @ goal
        cells, bad = _newton(base, joined, joint, tolerance)
        if not bad.any() or count == 1:
            break
        shared = (joined @ sparse.diags_array(base) @ joined.T).tolil()
        shared.setdiag(0)
        near = np.asarray(shared.tocsr().argmax(axis=1)).ravel()
        links = sparse.csr_matrix(
            (np.ones(int(bad.sum())), (np.flatnonzero(bad), near[bad])), shape=(count, count)
        )
        merged, label = sparse.csgraph.connected_components(links, directed=False)
        if merged == count:
            break
        group = label[group]
    grid[touched] = cells
    return grid


def _newton(
    base: Floats, part: csr_matrix, goal: Floats, tolerance: float
) -> tuple[Floats, NDArray[np.bool_]]:
    """Solve the dual problem by projected Newton steps.

    It has one unknown a unit, θ: the grid is ``base · exp(partᵀ θ)``, and
    ``Σ grid − goal · θ`` is least where its sums meet the goal. Bounds on θ part
    totals that contradict each other (θ would run away) from those that do not.
    """
    from scipy import sparse
    from scipy.sparse.linalg import spsolve

    first = np.log(goal / np.asarray(part @ base).ravel())
    low, high = first - _LOG_REACH, first + _LOG_REACH
    fine = tolerance * 1e-2 * np.maximum(goal, 1.0)

    def at(t: Floats) -> tuple[Floats, Floats, float]:
        cells = base * np.exp(np.asarray(part.T @ t).ravel())
        return cells, np.asarray(part @ cells).ravel() - goal, float(cells.sum() - goal @ t)

    theta = first
    cells, miss, height = at(theta)
    for _ in range(100):
        stuck = ((theta <= low) & (miss > 0)) | ((theta >= high) & (miss < 0))
        free = ~stuck
        if (np.abs(miss[free]) <= fine[free]).all():
            break
        own = part[free].tocsr()
        hessian = own @ sparse.diags_array(cells) @ own.T
        ridge = sparse.diags_array(1e-12 * hessian.diagonal())
        step = np.zeros(len(goal))
        step[free] = np.atleast_1d(spsolve((hessian + ridge).tocsc(), -miss[free]))
        size = 1.0
        while True:
            moved = np.clip(theta + size * step, low, high)
            trial = at(moved)
            # at the end of the way the objective's own rounding hides the gain
            better = np.abs(trial[1][free]).max() < np.abs(miss[free]).max()
            gain = trial[2] <= height + 1e-4 * float(miss @ (moved - theta))
            if gain or (better and size == 1.0) or size < 1e-8:
                break
            size /= 2
        theta, (cells, miss, height) = moved, trial
        if size < 1e-8:
            break
    return cells, np.abs(miss) > tolerance * np.maximum(goal, 1.0)


def _whole_cells(parts: csr_matrix) -> csr_matrix:
    """Let the parts of a cell that units cover whole add up to 1 to the last digit.

    Overlays give parts in single precision; people would leak at 1e-8.
    """
    from scipy import sparse

    covered = np.asarray(parts.sum(axis=0)).ravel()
    nearly = np.abs(covered - 1.0) < _SINGLE_PRECISION
    factor = np.where(nearly, 1.0 / np.where(nearly, covered, 1.0), 1.0)
    return (parts @ sparse.diags_array(factor)).tocsr()


def _place_uniform(
    cells: Floats,
    parts: csr_matrix,
    totals: Floats,
    nobody: NDArray[np.bool_],
    known: NDArray[np.bool_],
    land: Floats | None,
) -> NDArray[np.bool_]:
    """Give units without people theirs, in proportion to their land in each cell."""
    from scipy import sparse

    weight = known.ravel().astype("float64")
    if land is not None:
        weight = weight * land.ravel()
    chosen = parts[nobody].tocsr()
    room = np.asarray(chosen.multiply(chosen) @ weight).ravel()
    done = nobody.copy()
    done[nobody] = room > 0
    chosen, room = chosen[room > 0], room[room > 0]
    per = sparse.diags_array(totals[done] / room) @ chosen
    cells += np.asarray(per.sum(axis=0)).ravel() * weight
    return done


def _checked_counts(points: gpd.GeoDataFrame, value: str, label: str) -> Floats:
    """Return the counts after every check on the points, told all at once."""
    import pandas as pd

    problems = Problems("points")
    if points.crs is None:
        problems.add("no CRS", "a declared CRS", "points.set_crs('EPSG:4326') if degrees")
    wrong = (points.geometry.geom_type != "Point") | points.geometry.is_empty
    wrong |= points.geometry.isna()
    if wrong.any():
        problems.add(
            f"{int(wrong.sum())} rows are no points: {_some(_names(points, label, wrong))}",
            "one point a row",
            "take representative points, or drop the empty rows",
        )
    if value not in points.columns:
        problems.add(
            f"no column {value!r} (there are {', '.join(map(str, points.columns[:12]))})",
            "a column of people",
            "name it with value=",
        )
        problems.raise_if_any()
    people: Floats = pd.to_numeric(points[value], errors="coerce").to_numpy(dtype="float64")
    given = points[value].notna().to_numpy()
    for bad, what in (
        (~given, "no count"),
        (given & np.isnan(people), "a count that is no number"),
        (np.isinf(people), "an infinite count"),
        (people < 0, "a negative count"),
    ):
        if bad.any():
            problems.add(
                f"{int(bad.sum())} points have {what}: {_some(_names(points, label, bad))}",
                "people of 0 or more",
                "correct or drop them",
            )
    problems.raise_if_any()
    return people


def _checked_totals(units: gpd.GeoDataFrame, id: str, total: str) -> Floats:
    import pandas as pd

    problems = Problems("units")
    for column in (id, total):
        if column not in units.columns:
            problems.add(
                f"no column {column!r} (there are {', '.join(map(str, units.columns[:12]))})",
                "columns of ids and totals",
                "name them with id= and total=",
            )
    problems.raise_if_any()
    totals: Floats = pd.to_numeric(units[total], errors="coerce").to_numpy(dtype="float64")
    given = units[total].notna().to_numpy()
    names = units[id].astype(str).to_numpy()
    for bad, what in (
        (given & np.isnan(totals), "no number"),
        (np.isinf(totals), "infinite"),
        (totals < 0, "negative"),
    ):
        if bad.any():
            problems.add(
                f"{int(bad.sum())} totals are {what}: {_some(list(names[bad]))}",
                "people of 0 or more, or nothing where none is published",
                "correct them",
            )
    problems.raise_if_any()
    return totals


def _check_population(values: Floats, known: NDArray[np.bool_]) -> None:
    problems = Problems("population")
    infinite, negative = int(np.isinf(values).sum()), int((values[known] < 0).sum())
    if infinite:
        problems.add(f"{infinite} cells are infinite", "people of 0 or more")
    if negative:
        lowest = float(values[known].min())
        problems.add(
            f"{negative} cells are negative (down to {lowest:g})",
            "people of 0 or more",
            "declare the missing value (GHSL: -200) with --nodata",
        )
    problems.raise_if_any()


def _land_weights(land: xr.DataArray | None, box: GeoBox) -> Floats | None:
    """Return land per cell with missing land as none, after the checks."""
    if land is None:
        return None
    require_same_grid(box, geobox_of(land), "land", "the points' grid")
    values: Floats = np.asarray(land.data, dtype="float64")
    if np.isinf(values).any() or (values < 0).any():
        raise InputError(
            "land holds negative or infinite values",
            f"m² from 0 to {cell_area_m2(box):g}, or a share",
            "declare its missing value",
        )
    return np.where(np.isnan(values), 0.0, values)


def _names(points: gpd.GeoDataFrame, label: str, which: Any) -> list[str]:
    chosen = points[np.asarray(which, dtype=bool)]
    if label in points.columns:
        return [
            str(name) if isinstance(name, str) and name else f"row {row}"
            for name, row in zip(chosen[label], chosen.index, strict=True)
        ]
    return [f"row {row}" for row in chosen.index]


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _require_mass(found: float, given: float, where: str) -> None:
    if abs(found - given) > MASS_TOLERANCE * max(given, 1.0):
        # a fault of this module, never of the input
        raise AssertionError(f"{where} lost people: {given} in, {found} out")
