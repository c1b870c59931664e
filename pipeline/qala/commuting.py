"""Commuting: flow tables that are given, flows that are estimated, and their calibration.

A flow table is long: ``origin, destination, commuters``. The denominator of a
share is all employed residents of the origin, those who work abroad or at an
unknown place included (Dijkstra, Poelman & Veneri 2019, *The EU-OECD definition
of a functional urban area*, OECD Regional Development Working Papers 2019/11,
doi:10.1787/d58cb34d-en).

Where there are no flows they are estimated by a production-constrained Huff
model (Huff 1963, doi:10.2307/3144521; Wilson 1971, doi:10.1068/a030001):
residents of i choose unit j in proportion to its attraction and to a falling
function of the distance or travel time between them. An estimate is an
assumption about a place, not an observation of it: see ``docs/functional-areas.md``.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from qala.errors import InputError, Problems
from qala.vector import some as _some

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    Floats = NDArray[np.float64]

log = logging.getLogger("qala")

Per = Literal["km", "min"]
Free = Literal["beta", "shape", "power", "draw"]

#: flows above a denominator by no more than this share are rounding of the source
ROUNDING = 1e-6
#: pairs farther apart are left out of an estimate: 150 km or 3 hours
REACH: Mapping[Per, float] = {"km": 150.0, "min": 180.0}
#: people this near to a place of work, km, make the agglomeration that it belongs to
NEARBY = 5.0
#: agglomeration at which β is what it says, people within :data:`NEARBY`
_AGGLOMERATION = 100_000.0
#: kilometres of straight line in a minute, where a network does not tell: 60 km/h, detour 1.3
KM_A_MINUTE = 1 / 1.3
#: pairs of units that tell the pace of a network, km of straight line: usual ways to work
PACE_KM = (5.0, 50.0)
#: origins whose neighbours are searched for together; bounds the memory
_BLOCK = 2048


# --- values -----------------------------------------------------------------------


@dataclass(frozen=True)
class Decay:
    """How attraction falls with distance or time: ``attraction**power · exp(−beta · t**shape)``.

    Attributes
    ----------
    beta
        Per km or per minute (raised to ``shape``).
    per
        ``km`` (straight line) or ``min`` (network time).
    shape
        1 is the exponential of Wilson (1971). Below 1 the curve is steep at
        short distances and has a longer tail (a stretched exponential).
    power
        Exponent of the attraction; 1 is Huff's proportionality.
    passes
        How often people are turned into jobs where jobs are not known: the
        attraction of a unit becomes the commuters that the model itself sends
        there (a step of Harris & Wilson 1978, doi:10.1068/a100371). 0 takes
        people for jobs.
    draw
        How much farther people go to work in a large agglomeration: towards a
        unit with N people within 5 km, β is ``beta · (N / 100,000) ** -draw``.
        0 makes all destinations alike. That decay hangs on the structure around
        a destination is the finding of Fotheringham (1981,
        doi:10.1111/j.1467-8306.1981.tb01367.x); here it stands in for jobs, and
        is left out where jobs are known.
    source
        What it was calibrated on.
    """

    beta: float
    per: Per = "km"
    shape: float = 1.0
    power: float = 1.0
    passes: int = 0
    draw: float = 0.0
    source: str = ""

    def __post_init__(self) -> None:
        problems = Problems("distance decay")
        for name in ("beta", "shape", "power"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                problems.add(f"{name} is {value!r}", "a number above 0")
        if self.per not in REACH:
            problems.add(f"per is {self.per!r}", "km or min")
        if not (math.isfinite(self.draw) and 0 <= self.draw < 1):
            problems.add(f"draw is {self.draw!r}", "0 or more, below 1")
        if self.passes not in range(11):
            problems.add(f"passes is {self.passes!r}", "a whole number from 0 to 10")
        problems.raise_if_any()

    def with_jobs(self) -> Decay:
        """Return the same decay without what stands in for jobs: passes and draw."""
        return replace(self, passes=0, draw=0.0)

    def in_minutes(self, km_a_minute: float) -> Decay:
        """Return a decay per km as one per minute, at a pace as of :func:`pace`."""
        if self.per == "min":
            return self
        told = f"{self.source}; {60 * km_a_minute:.0f} km/h of straight line"
        return replace(self, beta=self.beta * km_a_minute**self.shape, per="min", source=told)

    def scaled(self, factor: float) -> Decay:
        """Return the same decay with ``beta`` times a factor."""
        return replace(self, beta=self.beta * factor)


#: Fitted by maximum likelihood on the commuters of the 589 Belgian communes of the census of
#: 2011: straight line between population-weighted centres, people of GHS-POP 2020 as attraction.
#: The square root fits better than the plain exponential and leaves one parameter; see
#: docs/functional-areas.md for the fit on zones held back.
DECAY_KM = Decay(1.03, "km", shape=0.5, draw=0.06, source="Belgium, census 2011, straight line")
#: The plain exponential of the literature, fitted on the same commuters with people as attraction.
DECAY_KM_EXPONENTIAL = Decay(0.101, "km", source="Belgium, census 2011, straight line")


@dataclass(frozen=True)
class Flows:
    """Commuters between units, and the employed residents their shares refer to.

    Attributes
    ----------
    ids
        Ids of the units as text, in their order.
    matrix
        scipy CSR, units × units: commuters from row to column; its diagonal
        holds those who work where they live.
    employed
        Employed residents of each unit; 0 where nothing is known.
    estimated
        Whether the flows come from :func:`estimate_flows`.
    decay
        Of an estimate.
    counts
        What was filled in or left out, by name.
    """

    ids: NDArray[np.object_]
    matrix: csr_matrix
    employed: Floats
    estimated: bool = False
    decay: Decay | None = None
    counts: Mapping[str, float] = field(default_factory=dict)

    def table(self, *, minimum: float = 0.0) -> pd.DataFrame:
        """Return the flows as a long table ``origin, destination, commuters``.

        Parameters
        ----------
        minimum
            Smaller flows are left out.
        """
        import pandas as pd

        pairs = self.matrix.tocoo()
        keep = (pairs.data >= minimum) & (pairs.data > 0)
        return pd.DataFrame(
            {
                "origin": self.ids[pairs.row[keep]],
                "destination": self.ids[pairs.col[keep]],
                "commuters": pairs.data[keep],
            }
        )


# --- reading ----------------------------------------------------------------------


def as_ids(values: Any) -> NDArray[np.object_]:
    """Return ids as text, so that 11001, 11001.0 and "11001" are one unit.

    Examples
    --------
    >>> as_ids([11001, 21004.0, " 05 "]).tolist()
    ['11001', '21004', '05']
    """
    import pandas as pd

    # each id once: a table of flows repeats them by the million
    codes, distinct = pd.factorize(np.asarray(values, dtype=object), use_na_sentinel=True)
    text = [
        str(int(v)) if isinstance(v, float | np.floating) and float(v).is_integer() else str(v)
        for v in distinct
    ]
    names = np.array([*(t.strip() or None for t in text), None], dtype=object)
    return cast("NDArray[np.object_]", names[codes])


def read_flows(source: str | Path | pd.DataFrame) -> pd.DataFrame:
    """Read a long table of commuters between units.

    Parameters
    ----------
    source
        CSV or Parquet file, or a table, with the columns ``origin``,
        ``destination``, ``commuters``; others are ignored. Ids are text: leading
        zeros are kept.

    Returns
    -------
    pandas.DataFrame
        ``origin``, ``destination`` (text), ``commuters`` (float).

    Raises
    ------
    InputError
        With all problems of the table: columns or ids missing, numbers that are
        none, negative commuters, pairs that stand twice.
    """
    name, table, problems = _read(source, ("origin", "destination", "commuters"), "flows")
    table["origin"], table["destination"] = as_ids(table["origin"]), as_ids(table["destination"])
    for column in ("origin", "destination"):
        _no_missing_ids(table, column, problems)
    table["commuters"] = _numbers(
        table["commuters"], lambda rows: _pair_names(table[rows]), "commuters", problems
    )
    twice = table.duplicated(["origin", "destination"], keep="first")
    if twice.any():
        problems.add(
            f"{_count(int(twice.sum()), 'pair stands', 'pairs stand')} twice or more: "
            f"{_some(dict.fromkeys(_pair_names(table[twice])))}",
            "one row for each origin and destination",
            "add them up if they are parts of one flow, or remove the repeats",
        )
    if not len(table):
        problems.add("the table has no rows", "commuters between units")
    problems.raise_if_any()
    log.info("%s: %d flows read", name, len(table))
    return table


def read_employed(source: str | Path | pd.DataFrame) -> pd.Series:
    """Read the employed residents of units, the denominator of commuting shares.

    Parameters
    ----------
    source
        CSV or Parquet file, or a table, with the columns ``unit``, ``employed``.

    Returns
    -------
    pandas.Series
        Employed residents by unit (text).

    Raises
    ------
    InputError
        With all problems of the table.
    """
    _, table, problems = _read(source, ("unit", "employed"), "employed residents")
    table["unit"] = as_ids(table["unit"])
    _no_missing_ids(table, "unit", problems)
    table["employed"] = _numbers(
        table["employed"], lambda rows: table.loc[rows, "unit"], "employed", problems
    )
    _no_repeats(table, "unit", problems)
    problems.raise_if_any()
    return table.set_index("unit")["employed"]


def read_cores(source: str | Path | pd.DataFrame) -> pd.Series:
    """Read which units form the core of which city.

    Parameters
    ----------
    source
        CSV or Parquet file, or a table, with the columns ``unit``, ``city``.

    Returns
    -------
    pandas.Series
        City (text) by unit (text).

    Raises
    ------
    InputError
        With all problems of the table.
    """
    _, table, problems = _read(source, ("unit", "city"), "cores")
    table["unit"], table["city"] = as_ids(table["unit"]), as_ids(table["city"])
    for column in ("unit", "city"):
        _no_missing_ids(table, column, problems)
    _no_repeats(table, "unit", problems)
    if not len(table):
        problems.add("the table has no rows", "at least one core unit")
    problems.raise_if_any()
    return table.set_index("unit")["city"]


def _read(
    source: str | Path | pd.DataFrame, columns: Sequence[str], what: str
) -> tuple[str, pd.DataFrame, Problems]:
    """Return the name of a table, its wanted columns, and an open list of problems."""
    import pandas as pd

    if isinstance(source, pd.DataFrame):
        name, table = what, source
    else:
        name = os.fspath(source)
        path = Path(name)
        if not path.is_file():
            raise InputError(f"{name} does not exist", f"a table of {what}", "check the path")
        try:
            if path.suffix.lower() == ".parquet":
                table = pd.read_parquet(path)
            else:
                # text throughout: a number read too early loses its leading zeros
                table = pd.read_csv(
                    path, dtype=str, keep_default_na=False, na_values=[""],
                    sep=_separator(path, columns), encoding="utf-8-sig",
                )  # fmt: skip
                table.columns = table.columns.str.strip()
        except (ValueError, OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"{name} cannot be read as a table ({error})",
                "UTF-8, separated by commas, semicolons or tabs, with the columns "
                + ", ".join(columns),
                "export it again",
            ) from error
    missing = [c for c in columns if c not in table.columns]
    if missing:
        raise InputError(
            f"{name} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}",
            f"the columns {', '.join(columns)} (it has {', '.join(map(str, table.columns))})",
            "rename its columns",
        )
    return name, table[list(columns)].reset_index(drop=True).copy(), Problems(name)


def _separator(path: Path, columns: Sequence[str]) -> str:
    """Return the separator by which the first line holds the columns; the comma if none does."""
    if path.suffix.lower() in (".gz", ".bz2", ".zip", ".xz", ".zst"):
        return ","
    with path.open(encoding="utf-8-sig") as file:
        heading = file.readline().strip()
    for mark in (",", ";", "\t"):
        if set(columns) <= {c.strip().strip('"') for c in heading.split(mark)}:
            return mark
    return ","


def _pair_names(table: pd.DataFrame) -> pd.Series:
    return table["origin"].astype(str) + " → " + table["destination"].astype(str)


def _no_missing_ids(table: pd.DataFrame, column: str, problems: Problems) -> None:
    gone = table[column].isna()
    if gone.any():
        rows = [f"row {i + 1}" for i in np.flatnonzero(gone)]
        problems.add(
            f"{len(rows)} ids in column {column!r} are missing: {_some(rows)}", "an id in every row"
        )


def _no_repeats(table: pd.DataFrame, column: str, problems: Problems) -> None:
    twice = table[column].duplicated() & table[column].notna()
    if twice.any():
        names = dict.fromkeys(table.loc[twice, column])
        problems.add(
            f"{_count(len(names), 'unit stands', 'units stand')} twice or more: {_some(names)}",
            "one row a unit",
        )


def _numbers(
    values: pd.Series, names_of: Callable[[Any], pd.Series], what: str, problems: Problems
) -> pd.Series:
    """Return numbers, noting those that are none or negative by name."""
    import pandas as pd

    numbers = pd.to_numeric(values, errors="coerce").astype(float)
    broken = ~np.isfinite(numbers)
    if broken.any():
        shown = [f"{n} ({v!r})" for n, v in zip(names_of(broken), values[broken], strict=True)]
        problems.add(
            f"{len(shown)} values in column {what!r} are no numbers: {_some(shown)}",
            "a number in every row; leave out rows that are not known",
        )
    negative = numbers < 0
    if negative.any():
        shown = [f"{n} ({v:g})" for n, v in zip(names_of(negative), numbers[negative], strict=True)]
        problems.add(
            f"{len(shown)} values in column {what!r} are negative: {_some(shown)}", "0 or more"
        )
    return numbers


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


# --- flows on units ---------------------------------------------------------------


def flows_on_units(
    flows: str | Path | pd.DataFrame,
    ids: Any,
    *,
    employed: str | Path | pd.DataFrame | None = None,
    unknown: Literal["error", "outside"] = "error",
) -> Flows:
    """Bring a table of flows onto units and check that they belong together.

    Parameters
    ----------
    flows
        As for :func:`read_flows`.
    ids
        Ids of the units, in their order.
    employed
        As for :func:`read_employed`. Units it lacks, and all units where it is
        None, take the sum of their flows; both are logged and counted.
    unknown
        Flows to or from units that are not among ``ids``: an ``error``, or taken
        as places ``outside``: they count in the origin's denominator only.

    Returns
    -------
    Flows
        ``counts`` holds ``denominators_from_flows``, ``flows_outside``,
        ``commuters_outside`` and ``units_without_employed``.

    Raises
    ------
    InputError
        With all problems: unknown units, a denominator below the sum of the
        flows, ids that stand twice; and those of the readers.
    """
    import pandas as pd
    from scipy.sparse import csr_matrix

    if unknown not in ("error", "outside"):
        raise InputError(f"unknown is {unknown!r}", "error or outside")
    table = read_flows(flows)
    given = None if employed is None else read_employed(employed)
    names = as_ids(ids)
    position = {unit: i for i, unit in enumerate(names)}
    problems = Problems("flows")
    if len(position) != len(names):
        problems.add(f"{len(names) - len(position)} unit ids stand twice", "one id a unit")
        problems.raise_if_any()
    index = pd.Index(names)
    row = index.get_indexer(pd.Index(table["origin"]))
    col = index.get_indexer(pd.Index(table["destination"]))
    strange = (row < 0) | (col < 0)
    if unknown == "error":
        _report_unknown(table, row < 0, col < 0, position, problems)
        if given is not None:
            extra = [u for u in given.index if u not in position]
            if extra:
                problems.add(
                    f"{_count(len(extra), 'unit', 'units')} of the employed residents "
                    f"{'is' if len(extra) == 1 else 'are'} not among the units: {_some(extra)}",
                    "ids of the units' layer",
                )
    inside = ~strange
    size = len(names)
    matrix = csr_matrix(
        (
            table.loc[inside, "commuters"].to_numpy(),
            (row[inside], col[inside]),
        ),
        shape=(size, size),
    )
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    # commuters to places outside count among those who leave the unit
    starts = row >= 0
    out = np.bincount(row[starts], table.loc[starts, "commuters"], minlength=size).astype(
        np.float64
    )
    denominator, filled = _denominators(out, given, names, problems)
    problems.raise_if_any()
    empty = denominator <= 0
    counts = {
        "denominators_from_flows": int(filled.sum()),
        "flows_outside": int(strange.sum()),
        "commuters_outside": float(table.loc[strange, "commuters"].sum()),
        "units_without_employed": int(empty.sum()),
    }
    if filled.any():
        log.warning(
            "%d of %d units have no number of employed residents; the sum of their flows is taken, "
            "which leaves out those who work abroad or at an unknown place: %s",
            counts["denominators_from_flows"],
            size,
            _some(names[filled]),
        )
    if strange.any():
        log.warning(
            "%d flows (%.0f commuters) lead to or from places outside the units",
            counts["flows_outside"],
            counts["commuters_outside"],
        )
    if empty.any():
        log.warning("%d units have no employed residents: %s", empty.sum(), _some(names[empty]))
    return Flows(names, matrix, denominator, counts=counts)


def _report_unknown(
    table: pd.DataFrame,
    origin: NDArray[np.bool_],
    destination: NDArray[np.bool_],
    known: Mapping[str, int],
    problems: Problems,
) -> None:
    for column, strange in (("origin", origin), ("destination", destination)):
        gone = strange & table[column].notna()
        if gone.any():
            names = dict.fromkeys(table.loc[gone, column])
            problems.add(
                f"{_count(int(gone.sum()), 'flow names', 'flows name')} "
                f"{_count(len(names), 'unknown unit', 'unknown units')} as {column} "
                f"({table.loc[gone, 'commuters'].sum():g} commuters): {_some(names)}",
                "ids of the units' layer",
                f"{_zeros_lost(names, known)}correct the ids or the id column, or pass "
                "--unknown outside (unknown='outside') if these are "
                "places abroad: they then count in the denominators only",
            )


def _zeros_lost(names: Iterable[str], known: Iterable[str]) -> str:
    """Return a hint where ids are the units' own but for zeros in front."""
    if {n.lstrip("0") for n in names} <= {k.lstrip("0") for k in known}:
        return "they differ from the units' ids by zeros in front, which a spreadsheet takes off: "
    return ""


def _denominators(
    out: Floats, given: pd.Series | None, names: NDArray[np.object_], problems: Problems
) -> tuple[Floats, NDArray[np.bool_]]:
    """Return employed residents by unit and where the sum of flows stands in for them."""
    if given is None:
        return out, np.ones(len(names), bool)
    values = given.reindex(names).to_numpy(dtype=np.float64)
    filled = np.isnan(values)
    below = ~filled & (out > values * (1 + ROUNDING))
    if below.any():
        shown = [
            f"{n} ({e:g} employed, {f:g} commuters)"
            for n, e, f in zip(names[below], values[below], out[below], strict=True)
        ]
        problems.add(
            f"{_count(len(shown), 'unit has', 'units have')} fewer employed residents than "
            f"commuters: {_some(shown)}",
            "employed residents of at least the sum of their flows",
            "check that both tables are of one census and one set of units",
        )
    return np.where(filled, out, values), filled


# --- distance and time ------------------------------------------------------------


def own_distance(units: gpd.GeoDataFrame) -> Floats:
    """Return half the radius of a circle of each unit's area, km.

    The mean way inside a unit; area is measured in an equal-area CRS.
    """
    from qala.grid import GHSL_CRS, is_equal_area

    measured = units.geometry if is_equal_area(units.crs) else units.geometry.to_crs(GHSL_CRS)
    area = np.asarray(measured.area, dtype=np.float64)
    return 0.5 * np.sqrt(area / np.pi) / 1000.0


def distances(
    units: gpd.GeoDataFrame, *, points: gpd.GeoSeries | None = None, reach: float = REACH["km"]
) -> csr_matrix:
    """Return straight-line distances between units, km, as far as ``reach``.

    Distances are chords of the ellipsoid between geocentric positions, so that
    no projection distorts them; at 150 km a chord is 3.5 m short of the
    geodesic.

    Parameters
    ----------
    units
        Polygons in any declared CRS.
    points
        A point a unit (such as its population-weighted centre) in any declared
        CRS; default: a point inside each polygon.
    reach
        Farther pairs are left out, km.

    Returns
    -------
    scipy.sparse.csr_matrix
        Units × units; the diagonal is :func:`own_distance`. Memory is linear in
        the pairs within reach.
    """
    import pyproj
    from scipy.sparse import csr_matrix, vstack
    from scipy.spatial import cKDTree

    where = units.geometry.representative_point() if points is None else points
    if where.crs is None or units.crs is None:
        raise InputError(
            "the units have no CRS", "a declared CRS", "set it with units.set_crs(...)"
        )
    to_degrees = pyproj.Transformer.from_crs(where.crs, "EPSG:4326", always_xy=True)
    lon, lat = to_degrees.transform(np.asarray(where.x), np.asarray(where.y))
    x, y, z = pyproj.Transformer.from_crs("EPSG:4979", "EPSG:4978", always_xy=True).transform(
        lon, lat, np.zeros(len(where))
    )
    position = np.column_stack([x, y, z]) / 1000.0
    if not np.isfinite(position).all():
        raise InputError(
            f"{int((~np.isfinite(position)).any(axis=1).sum())} units have no position",
            "units with a geometry in their CRS",
        )
    tree = cKDTree(position)
    own = own_distance(units)
    size = len(units)
    blocks = []
    for start in range(0, size, _BLOCK):
        part = cKDTree(position[start : start + _BLOCK])
        near = part.sparse_distance_matrix(tree, reach, output_type="ndarray")
        row, col, km = near["i"].astype(np.int32), near["j"].astype(np.int32), near["v"]
        diagonal = row + start == col
        # two units at one point are a metre apart, since 0 means "no pair" in a sparse matrix
        km = np.where(diagonal, own[col], np.maximum(km, 1e-3))
        blocks.append(csr_matrix((km, (row, col)), shape=(part.n, size)))
    matrix = vstack(blocks, format="csr") if blocks else csr_matrix((0, 0))
    matrix.sort_indices()
    return matrix


def minutes(
    seconds: csr_matrix | Floats,
    units: gpd.GeoDataFrame,
    *,
    points: gpd.GeoSeries | None = None,
    own_speed: float | None = None,
) -> csr_matrix:
    """Return travel times between units in minutes, own time included.

    Parameters
    ----------
    seconds
        Units × units: a sparse matrix of the pairs reached (a stored value is a
        time), or a dense array with infinity or NaN where not reached.
    units
        The units, for the way inside each where the diagonal holds no time.
    points
        As for :func:`distances`; what the times were measured between.
    own_speed
        Straight-line speed inside a unit, km/h; default: the :func:`pace` of the times.

    Raises
    ------
    InputError
        For a wrong shape or times that are negative or infinite in a sparse matrix.
    """
    from scipy.sparse import coo_matrix, diags, issparse

    size = len(units)
    if issparse(seconds):
        pairs = cast("Any", seconds).tocoo()
        row, col, value = pairs.row, pairs.col, np.asarray(pairs.data, np.float64)
    else:
        dense = np.asarray(seconds, dtype=np.float64)
        row, col = np.nonzero(np.isfinite(dense))
        value, pairs = dense[row, col], dense
    problems = Problems("travel times")
    if pairs.shape != (size, size):
        problems.add(f"the matrix is {pairs.shape[0]}×{pairs.shape[1]}", f"{size}×{size} units")
    if not np.isfinite(value).all() or (value < 0).any():
        bad = int((~np.isfinite(value) | (value < 0)).sum())
        problems.add(f"{bad} times are negative or infinite", "seconds; leave out unreached pairs")
    problems.raise_if_any()
    between = row != col
    matrix = coo_matrix(
        (np.maximum(value[between] / 60.0, 1e-3), (row[between], col[between])), shape=(size, size)
    ).tocsr()
    speed = 60.0 * pace(matrix, units, points=points) if own_speed is None else own_speed
    own = own_distance(units) / speed * 60.0
    inside = ~between & (value > 0)
    own[row[inside]] = value[inside] / 60.0
    matrix = (matrix + diags(own, format="csr")).tocsr()
    matrix.sort_indices()
    return matrix


def pace(
    costs: csr_matrix, units: gpd.GeoDataFrame, *, points: gpd.GeoSeries | None = None
) -> float:
    """Return how many km of straight line a network covers in a minute.

    The decay was fitted on straight lines. In minutes of a network it is used at the
    network's own pace: which places are nearer or farther than others is the network's to
    say, how far people go is the fit's. A network on which all ways are equally fast gives
    the areas of straight lines, whatever its speed.

    Parameters
    ----------
    costs
        Units × units, minutes, from :func:`minutes`.
    units, points
        As for :func:`distances`.

    Returns
    -------
    float
        Median over pairs of 5 to 50 km; :data:`KM_A_MINUTE`, with a warning, where no
        such pair is connected.
    """
    from scipy.sparse import csr_matrix

    near, far = PACE_KM
    straight = distances(units, points=points, reach=far)
    straight.setdiag(0.0)
    straight.data[straight.data < near] = 0.0
    straight.eliminate_zeros()
    reached = csr_matrix((np.ones_like(costs.data), costs.indices, costs.indptr), costs.shape)
    km = straight.multiply(reached).tocsr()
    taken = costs.multiply(km > 0).tocsr()
    km.sort_indices()
    taken.sort_indices()
    if not km.nnz:
        log.warning(
            "no two units %g to %g km apart are connected: minutes are taken at %.0f km/h of "
            "straight line", near, far, 60 * KM_A_MINUTE,
        )  # fmt: skip
        return KM_A_MINUTE
    return float(np.median(km.data / taken.data))


# --- estimate ---------------------------------------------------------------------


def estimate_flows(
    units: gpd.GeoDataFrame,
    *,
    id: str,
    people: Any = None,
    jobs: Any = None,
    employed: Any = None,
    seconds: csr_matrix | Floats | None = None,
    points: gpd.GeoSeries | None = None,
    beta: float | None = None,
    decay: Decay | None = None,
    reach: float | None = None,
    costs: csr_matrix | None = None,
    nearby: Any = None,
) -> Flows:
    """Estimate commuting flows by a production-constrained Huff model.

    The share of the residents of i who work in j is
    ``P_j f(t_ij) / Σ_k P_k f(t_ik)`` over all units k within reach, i itself
    included.

    Parameters
    ----------
    units
        Polygons in any declared CRS.
    id
        Column of unit ids.
    people
        People of units: a column of ``units`` or one value a unit.
    jobs
        Jobs of units, where they are known; they are the attraction P then.
    employed
        Employed residents; a column or values. Default: people.
    seconds
        Travel times between units as for :func:`minutes`. Without them the
        straight line between ``points`` counts.
    points
        As for :func:`distances`.
    beta
        Per km, or per minute where ``seconds`` are given: the plain model,
        ``f(t) = exp(−β t)`` with people (or jobs) as attraction.
    decay
        Any other model; default: :data:`DECAY_KM`, for minutes at the :func:`pace` of
        the times.
    reach
        Farthest pair, km or minutes; default: :data:`REACH`.
    costs
        Result of :func:`distances` or :func:`minutes`, where it is at hand.
    nearby
        People within 5 km of each unit's people (a column or values), as
        :func:`qala.fua.people_nearby` counts them on a grid. Default: the people
        of the units within 5 km of each. Only decays with ``draw`` ask for it.

    Returns
    -------
    Flows
        With ``estimated`` set; ``counts`` holds ``pairs``, ``units_without_people`` and
        ``units_alone`` (no other unit within reach).

    Raises
    ------
    InputError
        For values that are missing or negative, or units that are all empty;
        when both ``beta`` and ``decay`` are given.

    Notes
    -----
    Huff (1963), doi:10.2307/3144521; Wilson (1971), doi:10.1068/a030001.

    Examples
    --------
    >>> import geopandas as gpd
    >>> from shapely.geometry import box
    >>> units = gpd.GeoDataFrame(
    ...     {"unit": ["a", "b"], "people": [30_000, 10_000]},
    ...     geometry=[box(0, 0, 1e4, 1e4), box(1e4, 0, 2e4, 1e4)],
    ...     crs="ESRI:54009",
    ... )
    >>> flows = estimate_flows(units, id="unit", people="people", beta=0.1)
    >>> flows.matrix.toarray().round(-2)
    array([[26200.,  3800.],
           [ 5700.,  4300.]])
    """
    per: Per = "min" if seconds is not None else "km"
    if people is None and jobs is None:
        raise InputError("neither people nor jobs are given", "people or jobs of the units")
    if costs is None:
        far = REACH[per] if reach is None else reach
        if seconds is None:
            costs = distances(units, points=points, reach=far)
        else:
            costs = minutes(seconds, units, points=points)
    if beta is None and decay is None and per == "min":
        decay = DECAY_KM.in_minutes(pace(costs, units, points=points))
    decay = choose_decay(per, beta, decay)
    if jobs is not None:
        decay = decay.with_jobs()
    pull = unit_values(
        units, people if jobs is None else jobs, "people" if jobs is None else "jobs"
    )
    residents = pull if people is None else unit_values(units, people, "people")
    workers = residents if employed is None else unit_values(units, employed, "employed")
    if not pull.sum() > 0:
        raise InputError("no unit has people or jobs", "people or jobs in some units")
    around = None
    if decay.draw:
        around = (
            nearby_units(units, residents, points=points)
            if nearby is None
            else unit_values(units, nearby, "people nearby")
        )
    matrix = huff_shares(costs, pull, decay, workers, around)
    matrix.data *= np.repeat(workers, np.diff(matrix.indptr))
    names = as_ids(units[id])
    empty = workers <= 0
    if empty.any():
        log.warning("%d units are without people: %s", empty.sum(), _some(names[empty]))
    alone = (np.diff(costs.indptr) <= 1) & (len(units) > 1)
    if alone.any():
        log.warning(
            "%d of %d units reach no other unit within reach: %s",
            alone.sum(),
            len(names),
            _some(names[alone]),
        )
    counts = {
        "pairs": int(costs.nnz),
        "units_without_people": int(empty.sum()),
        "units_alone": int(alone.sum()),
    }
    return Flows(names, matrix, workers, estimated=True, decay=decay, counts=counts)


def choose_decay(per: Per, beta: float | None = None, decay: Decay | None = None) -> Decay:
    """Return the decay to use: the one given, the plain model of a β, or the default.

    The default per minute is that of :data:`KM_A_MINUTE`; estimates take the
    :func:`pace` of their network.

    Raises
    ------
    InputError
        When both are given, or the decay is in another unit.
    """
    if beta is not None and decay is not None:
        raise InputError("both beta and decay are given", "one of them")
    if beta is not None:
        return Decay(beta, per, source="given")
    if decay is None:
        return DECAY_KM.in_minutes(KM_A_MINUTE) if per == "min" else DECAY_KM
    if decay.per != per:
        raise InputError(
            f"the decay is per {decay.per}, the costs are in {per}", "one unit for both"
        )
    return decay


def unit_values(units: gpd.GeoDataFrame, values: Any, what: str) -> Floats:
    """Return one number a unit, from a column's name or from values in the units' order.

    Raises
    ------
    InputError
        When the column is missing, the length differs, or numbers are missing,
        infinite or negative.
    """
    if isinstance(values, str):
        if values not in units.columns:
            columns = ", ".join(str(c) for c in units.columns if c != units.geometry.name)
            raise InputError(f"the units have no column {values!r}", f"one of {columns}")
        values = units[values]
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.shape != (len(units),):
        raise InputError(f"{what} has shape {numbers.shape}", f"one value for {len(units)} units")
    bad = ~np.isfinite(numbers) | (numbers < 0)
    if bad.any():
        rows = [f"row {i + 1} ({numbers[i]:g})" for i in np.flatnonzero(bad)]
        raise InputError(
            f"{what} is missing or negative in {len(rows)} units: {_some(rows)}", "0 or more"
        )
    return numbers


def nearby_units(
    units: gpd.GeoDataFrame, people: Floats, *, points: gpd.GeoSeries | None = None
) -> Floats:
    """Return the people of the units within 5 km of straight line of each unit.

    The coarser stand-in for :func:`qala.fua.people_nearby`, where people are known by unit only.
    Of a unit's own people count as many as live on the area of a circle of 5 km.

    Parameters
    ----------
    units, points
        As for :func:`distances`.
    people
        Of each unit.
    """
    near = distances(units, points=points, reach=NEARBY)
    near.setdiag(0.0)
    near.eliminate_zeros()
    near.data[:] = 1.0
    own = np.minimum(1.0, (NEARBY / np.maximum(2 * own_distance(units), 1e-9)) ** 2)
    return cast("Floats", people * own + near @ people)


def huff_shares(
    costs: csr_matrix,
    attraction: Floats,
    decay: Decay,
    workers: Floats | None = None,
    nearby: Floats | None = None,
) -> csr_matrix:
    """Return the share of each unit's residents that work in each unit within reach.

    Parameters
    ----------
    costs
        CSR, units × units, km or minutes; every row holds its own unit.
    attraction
        P of each unit, 0 or more.
    decay
        Distance decay in the unit of ``costs``.
    workers
        Whom the passes of the decay send out; default: the attraction.
    nearby
        People within 5 km of each unit; needed by a decay with ``draw``.

    Returns
    -------
    scipy.sparse.csr_matrix
        Rows sum to 1, or to 0 where nothing attractive is within reach.
    """
    from scipy.sparse import csr_matrix

    steep = decay.beta * (costs.data if decay.shape == 1 else costs.data**decay.shape)
    if decay.draw:
        if nearby is None:
            raise InputError("the decay has a draw", "nearby: the people within 5 km of each unit")
        # nobody nearby means nobody to employ: the attraction is 0 then, the floor only avoids 1/0
        steep *= ((np.maximum(nearby, 1.0) / _AGGLOMERATION) ** -decay.draw)[costs.indices]
    starts, length = costs.indptr[:-1], np.diff(costs.indptr)
    out = attraction if workers is None else workers
    pull: Any = attraction
    for turn in range(decay.passes + 1):
        with np.errstate(divide="ignore"):
            weight = (decay.power * np.log(pull))[costs.indices] - steep
        # against underflow: every row is scaled by its largest weight
        top = np.maximum.reduceat(weight, starts)
        top[~np.isfinite(top)] = 0.0
        weight -= np.repeat(top, length)
        np.exp(weight, out=weight)
        total = np.add.reduceat(weight, starts)
        weight /= np.repeat(np.where(total > 0, total, 1.0), length)
        if turn < decay.passes:
            pull = np.bincount(
                costs.indices, weight * np.repeat(out, length), minlength=costs.shape[1]
            )
    return csr_matrix((weight, costs.indices, costs.indptr), shape=costs.shape)


# --- calibration ------------------------------------------------------------------


@dataclass(frozen=True)
class Calibration:
    """A fitted decay and how well it does on units it was not fitted on.

    Attributes
    ----------
    decay
        The fit.
    free
        Which of its parameters were fitted.
    beta_se
        Standard error of β, robust to dependence within origins (sandwich);
        other free parameters are taken as fitted.
    zones_fitted, zones_held_back
        Number of origin units on either side.
    commuters, commuters_beyond
        Commuters used, and those between units out of reach, left out.
    loss_fitted, loss_held_back
        Mean negative log-likelihood a commuter.
    common_fitted, common_held_back
        Common part of commuters: share of commuters that the model sends to
        where they go, 0 to 1 (Lenormand et al. 2016, doi:10.1016/j.jtrangeo.2015.12.008).
    cost_observed, cost_estimated
        Mean km or minutes of held-back commuters, observed and by the model.
    """

    decay: Decay
    free: tuple[Free, ...]
    beta_se: float
    zones_fitted: int
    zones_held_back: int
    commuters: float
    commuters_beyond: float
    loss_fitted: float
    loss_held_back: float
    common_fitted: float
    common_held_back: float
    cost_observed: float
    cost_estimated: float

    @property
    def interval(self) -> tuple[float, float]:
        """Range of β at 95 %."""
        half = 1.96 * self.beta_se
        return max(self.decay.beta - half, 0.0), self.decay.beta + half

    def __str__(self) -> str:
        """Return :meth:`report`."""
        return self.report()

    def report(self) -> str:
        """Return the result in a few lines of text."""
        low, high = self.interval
        unit = f"/{self.decay.per}"
        lines = [
            f"beta {self.decay.beta:.4f}{unit} (95 %: {low:.4f} to {high:.4f}), "
            f"shape {self.decay.shape:.3g}, power {self.decay.power:.3g}, "
            f"passes {self.decay.passes}, draw {self.decay.draw:.3g}; "
            f"fitted: {', '.join(self.free)}",
            f"zones fitted on {self.zones_fitted}, held back {self.zones_held_back}; "
            f"commuters {self.commuters:,.0f}, beyond reach and left out "
            f"{self.commuters_beyond:,.0f}",
            f"log-loss a commuter: fitted {self.loss_fitted:.4f}, "
            f"held back {self.loss_held_back:.4f}",
            f"common part of commuters: fitted {self.common_fitted:.3f}, "
            f"held back {self.common_held_back:.3f}",
            f"mean commute of held-back zones: observed {self.cost_observed:.1f}, "
            f"estimated {self.cost_estimated:.1f} {self.decay.per}",
        ]
        return "\n".join(lines)


def calibrate(
    flows: Flows,
    costs: csr_matrix,
    attraction: Floats,
    *,
    per: Per = "km",
    free: Sequence[Free] = ("beta",),
    start: Decay | None = None,
    nearby: Floats | None = None,
    hold_back: float = 0.2,
    seed: int = 2011,
    source: str = "",
) -> Calibration:
    """Fit the distance decay to flows by maximum likelihood.

    Parameters
    ----------
    flows
        Given flows on the units.
    costs
        Result of :func:`distances` or :func:`minutes` on the same units.
    attraction
        Jobs of each unit (such as the column sums of ``flows``), or people with
        ``start`` naming a decay that turns them into jobs.
    per
        Unit of ``costs``.
    free
        Parameters to fit; the others stay as in ``start``.
    start
        Where to start, with the parameters that stay; default: the square root
        of the cost, as in :data:`DECAY_KM`, ``attraction`` being jobs.
    nearby
        People within 5 km of each unit, where ``start`` has a ``draw`` or it is fitted.
    hold_back
        Share of origin units that are kept out of the fit and judged on.
    seed
        Of the draw of held-back units, which does not depend on their order.
    source
        Name of the data, kept with the decay.

    Returns
    -------
    Calibration
        The decay and its fit on both sides.

    Raises
    ------
    InputError
        For shares out of range, flows that are estimates, or too few units.
    """
    from scipy.optimize import minimize, minimize_scalar

    problems = Problems("calibration")
    if flows.estimated:
        problems.add("the flows are estimates", "flows of a census or register")
    if not 0 <= hold_back < 1:
        problems.add(f"hold_back is {hold_back!r}", "a share from 0 to below 1")
    if "beta" not in free or not set(free) <= {"beta", "shape", "power", "draw"}:
        problems.add(f"free is {tuple(free)!r}", "beta, and perhaps shape, power and draw")
    if costs.shape != flows.matrix.shape:
        problems.add(f"costs are {costs.shape}, flows {flows.matrix.shape}", "the same units")
    problems.raise_if_any()
    begin = start or choose_decay(per).with_jobs()
    if "draw" in free and not begin.draw:
        begin = replace(begin, draw=0.01)
    observed, beyond = _on_pattern(flows.matrix, costs)
    held = _held_back(flows.ids, hold_back, seed)
    used = np.asarray(observed.sum(axis=1)).ravel() > 0
    fit, judge = used & ~held, used & held
    if fit.sum() < 2 or (hold_back > 0 and not judge.any()):
        raise InputError(
            f"{int(fit.sum())} units with flows to fit on and {int(judge.sum())} held back",
            "at least 2 and 1",
            "give flows of more units or hold back fewer",
        )

    def losses(decay: Decay) -> Floats:
        shares = huff_shares(costs, attraction, decay, nearby=nearby)
        with np.errstate(divide="ignore"):
            terms = np.where(observed.data > 0, -np.log(np.maximum(shares.data, 1e-300)), 0.0)
        return cast("Floats", np.add.reduceat(terms * observed.data, costs.indptr[:-1]))

    def decay_at(values: Sequence[float]) -> Decay:
        # logarithms keep every parameter positive
        named: dict[str, Any] = {k: float(v) for k, v in zip(free, np.exp(values), strict=True)}
        return replace(begin, per=per, source=source, **named)

    total = observed.data[np.repeat(fit, np.diff(costs.indptr))].sum()
    if len(free) == 1:
        found = minimize_scalar(
            lambda v: losses(decay_at([v]))[fit].sum() / total,
            bounds=(math.log(begin.beta / 100), math.log(begin.beta * 100)),
            method="bounded",
            options={"xatol": 1e-6},
        )
        best = decay_at([found.x])
    else:
        result = minimize(
            lambda v: losses(decay_at(v))[fit].sum() / total,
            [math.log(getattr(begin, name)) for name in free],
            method="Nelder-Mead",
            options={"xatol": 1e-4, "fatol": 1e-7, "maxiter": 2000},
        )
        if not result.success:
            log.warning("the fit stopped early: %s", result.message)
        best = decay_at(result.x)
    per_zone = losses(best)
    shares = huff_shares(costs, attraction, best, nearby=nearby)
    sides = {
        name: _fit_of(side, per_zone, observed, shares, costs)
        for name, side in (("fitted", fit), ("held_back", judge))
    }
    return Calibration(
        decay=best,
        free=tuple(free),
        beta_se=_beta_error(losses, best, fit),
        zones_fitted=int(fit.sum()),
        zones_held_back=int(judge.sum()),
        commuters=float(observed.sum()),
        commuters_beyond=beyond,
        loss_fitted=sides["fitted"][0],
        loss_held_back=sides["held_back"][0],
        common_fitted=sides["fitted"][1],
        common_held_back=sides["held_back"][1],
        cost_observed=sides["held_back"][2],
        cost_estimated=sides["held_back"][3],
    )


def _on_pattern(flows: csr_matrix, costs: csr_matrix) -> tuple[csr_matrix, float]:
    """Return the flows at the pairs of the costs, and the commuters of all other pairs."""
    from scipy.sparse import csr_matrix

    ones = csr_matrix((np.ones(costs.nnz), costs.indices, costs.indptr), shape=costs.shape)
    inside = flows.multiply(ones).tocsr()
    size = costs.shape[1]
    rows = np.repeat(np.arange(costs.shape[0], dtype=np.int64), np.diff(costs.indptr))
    keys = rows * size + costs.indices
    inside.sort_indices()
    met = np.repeat(np.arange(inside.shape[0], dtype=np.int64), np.diff(inside.indptr))
    values = np.zeros(costs.nnz)
    values[np.searchsorted(keys, met * size + inside.indices)] = inside.data
    pattern = csr_matrix((values, costs.indices, costs.indptr), shape=costs.shape)
    return pattern, float(flows.sum() - inside.sum())


def _held_back(ids: NDArray[np.object_], share: float, seed: int) -> NDArray[np.bool_]:
    """Draw units to hold back; the draw depends on the ids and not on their order."""
    order = np.argsort(ids.astype(str), kind="stable")
    drawn = np.random.default_rng(seed).permutation(len(ids))[: round(share * len(ids))]
    held = np.zeros(len(ids), bool)
    held[order[drawn]] = True
    return held


def _fit_of(
    side: NDArray[np.bool_],
    losses: Floats,
    observed: csr_matrix,
    shares: csr_matrix,
    costs: csr_matrix,
) -> tuple[float, float, float, float]:
    """Return loss a commuter, common part, mean cost observed and estimated."""
    length = np.diff(costs.indptr)
    chosen = np.repeat(side, length)
    out = np.asarray(observed.sum(axis=1)).ravel()
    total = out[side].sum()
    if not total:
        return (math.nan,) * 4
    seen = observed.data[chosen]
    guess = (shares.data * np.repeat(out, length))[chosen]
    cost = costs.data[chosen]
    return (
        float(losses[side].sum() / total),
        float(np.minimum(seen, guess).sum() / total),
        float((seen * cost).sum() / total),
        float((guess * cost).sum() / total),
    )


def _beta_error(losses: Any, best: Decay, fit: NDArray[np.bool_]) -> float:
    """Return the standard error of β, by differences, clustered by origin.

    Millions of commuters are not millions of independent choices: neighbours
    share roads and employers. The sandwich over origins takes the spread of
    their scores in place of the likelihood's own.
    """
    step = 1e-3
    low, mid, high = (losses(best.scaled(f))[fit] for f in (1 - step, 1.0, 1 + step))
    width = best.beta * step
    score = (high - low) / (2 * width)
    curvature = ((high - 2 * mid + low) / width**2).sum()
    return float(np.sqrt((score**2).sum()) / curvature) if curvature > 0 else math.nan
