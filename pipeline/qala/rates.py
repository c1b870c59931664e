"""Urbanisation rates: official and functional urban shares of units, epoch by epoch.

Shares are taken from level-2 classes: ``centre_share`` is the share of people in
urban centres (30), ``urban_share`` that in centres and clusters of any kind
(30, 23, 22, 21). Level 2 is the base because it is needed in any case for the
split of the shares. Level 1's urban cells (3 and 2) can be slightly fewer: a dense
cluster of level 2 may hold built-up cells of less than 300 people per km², and the
rules of 2024 know semi-dense clusters of 2,500 people, where level 1 asks for 5,000.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qala.errors import InputError, Problems
from qala.grid import geobox_of
from qala.raster import require_on_grid
from qala.rules import RULESETS, cell_rules, level_codes
from qala.units import (
    Coverage,
    Overlay,
    UnitRules,
    classes_of,
    coverage,
    covered_share,
    require_some_inside,
    tell_exceptions,
    unit_sums,
)
from qala.vector import some

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    import xarray as xr
    from numpy.typing import NDArray

    Rasters = xr.DataArray | Mapping[Hashable, xr.DataArray]

log = logging.getLogger("qala")

#: level-2 classes that count as urban
URBAN_CODES = (30, 23, 22, 21)
#: relative difference of published totals that is taken for rounding
TOTAL_TOLERANCE = 1e-3
#: columns of the units that are carried into the table as they are
NAME_COLUMNS = ("name", "name_kk", "name_ru", "name_en")
_CHANGE = ("urban_change", "growth_inside", "new_footprint", "reclassification")


def urbanisation_rates(
    units: gpd.GeoDataFrame,
    population: Rasters,
    built: Rasters | None = None,
    land: Rasters | None = None,
    *,
    id: str,
    official: pd.DataFrame | str | Path | None = None,
    ruleset: str = "R2023A",
    rules: UnitRules = "2024",
    overlay: Overlay = "exact",
    cells: Rasters | None = None,
    chunk: int | None = None,
    **thresholds: Any,
) -> gpd.GeoDataFrame:
    """Return official and functional urban shares of every unit and epoch.

    Parameters
    ----------
    units
        Polygons in any declared CRS, sound ones (:func:`qala.read_units`).
    population
        dims (y, x), people per cell of an equal-area grid of 1 km; or a mapping
        of epochs (2015, "2020", …) to such rasters, all on one grid.
    built, land
        Likewise, m² or share per cell. A single raster serves every epoch.
    id
        Column of unit ids.
    official
        Official urban shares: a table for :func:`check_official` or what it
        returned, or a file for :func:`read_official`.
    ruleset, chunk, **thresholds
        As for :func:`qala.classify_cells`.
    rules, overlay
        As for :func:`qala.classify_units`.
    cells
        Level-2 classes, in place of classifying the population here.

    Returns
    -------
    geopandas.GeoDataFrame
        One row a unit and epoch, in the units' CRS:

        ``unit``, ``epoch``
            The epoch is missing where a single raster was given without one.
        ``population``
            People of the grid in the unit.
        ``official_share``, ``official_population``
            As published; missing where unknown.
        ``centre_share``, ``urban_share``
            Shares of people in class 30, and in 30, 23, 22 and 21; NaN, not 0,
            where nobody lives.
        ``ratio``, ``ratio_centre``
            official_share / urban_share, and official_share / centre_share; NaN
            where the functional share is 0.
        ``share_30`` …, ``population_30`` …
            Each level-2 class.
        ``degurba_l1``, ``degurba_l2``, ``basis``, ``coverage``
            As :func:`qala.classify_units` gives them.
        ``urban_change``, ``growth_inside``, ``new_footprint``, ``reclassification``
            People; change of the urban population since the epoch before
            (``previous_epoch``), and its three parts, see Notes.

    Raises
    ------
    InputError
        When rasters differ in grid, epochs of rasters do not fit, units lie
        wholly outside, or the official table is not sound.

    Notes
    -----
    Let p and u be the people of a cell and whether it is urban (1) or not (0),
    at the epoch before (0) and now (1), and a the part of the cell in the unit::

        urban_change     = Σ a (p₁ u₁ − p₀ u₀)
        growth_inside    = Σ a (p₁ − p₀) u₀ u₁
        new_footprint    = Σ a (p₁ − p₀) (1 − u₀) u₁
        reclassification = Σ a p₀ (1 − u₀) u₁ − Σ a p₀ u₀ (1 − u₁)

    Growth inside is the gain of cells that were urban and still are. A cell that
    became urban adds what it gained to the new footprint, and the people it
    already had to reclassification; one that ceased to be urban takes its former
    people out by reclassification. The three sum to the change. Missing cells
    count as empty.
    """
    import geopandas as gpd
    import pandas as pd

    people = _by_epoch(population, "population")
    epochs = list(people)
    layers = {
        "built": _serving(built, epochs, "built"),
        "land": _serving(land, epochs, "land"),
        "cells": _serving(cells, epochs, "cells"),
    }
    first = people[epochs[0]]
    for epoch in epochs[1:]:
        require_on_grid(first, **{f"population of {epoch}": people[epoch]})
    figures = _official_of(official, units, id, epochs)
    cover = coverage(units, geobox_of(first), id=id, overlay=overlay)
    require_some_inside(cover)
    classes = {}
    for epoch in epochs:
        given = layers["cells"][epoch]
        if given is None:
            from qala.settlement import classify_cells

            given = classify_cells(
                people[epoch],
                layers["built"][epoch],
                layers["land"][epoch],
                level=2,
                ruleset=ruleset,
                chunk=chunk,
                **thresholds,
            )
        classes[epoch] = given
    tables = []
    before: tuple[Any, Any, Any] | None = None
    for epoch in epochs:
        # one epoch after the other: memory stays the same however many there are
        code, count = cover.take(classes[epoch], people[epoch])
        now = (epoch, np.isin(code, URBAN_CODES), np.nan_to_num(count.astype(np.float64)))
        table = _shares_of(cover, code, count, rules)
        table.insert(1, "epoch", epoch)
        table = pd.concat([table, _change(cover, before, now)], axis=1)
        tables.append(table)
        before = now
    result = _with_official(pd.concat(tables, ignore_index=True), figures)
    for column in ("epoch", "previous_epoch"):
        result[column] = _epoch_column(result[column])
    names = [c for c in NAME_COLUMNS if c in units.columns and c not in result.columns]
    for name in names:
        result[name] = np.tile(units[name].to_numpy(dtype=object), len(epochs))
    shapes = np.tile(np.asarray(units.geometry.array, dtype=object), len(epochs))
    return gpd.GeoDataFrame(result, geometry=shapes, crs=units.crs)


def summarise(rates: pd.DataFrame) -> pd.DataFrame:
    """Return one row an epoch for all units together.

    Parameters
    ----------
    rates
        The table of :func:`urbanisation_rates`.

    Returns
    -------
    pandas.DataFrame
        The same columns of people, shares, ratios and change, with ``unit``
        "all". ``official_share`` is the mean over units that have one, weighted
        by official population (by that of the grid where none of them has it);
        ``official_known`` is the share of the grid's people in these units, and
        the ratios are given only where it is 1.

    Examples
    --------
    >>> import pandas as pd
    >>> codes = (30, 23, 22, 21, 13, 12, 11, 10)
    >>> rows = pd.DataFrame({"epoch": [2020, 2020], "population": [300.0, 100.0],
    ...     "official_share": [0.9, 0.5], "official_population": [300.0, 100.0],
    ...     **{f"population_{c}": [0.0, 0.0] for c in codes}})
    >>> rows["population_30"] = [200.0, 0.0]
    >>> total = summarise(rows).iloc[0]
    >>> float(total["centre_share"]), float(total["official_share"]), float(total["ratio"])
    (0.5, 0.8, 1.6)
    """
    import pandas as pd

    rows = [
        _total(group, epoch) for epoch, group in rates.groupby("epoch", sort=False, dropna=False)
    ]
    return pd.DataFrame(rows)


def _total(group: pd.DataFrame, epoch: Any) -> dict[str, Any]:
    people = float(group["population"].sum())
    known = group[group["official_share"].notna()]
    weight = known["official_population"]
    if weight.isna().all():
        weight = known["population"]
    elif weight.isna().any():
        raise InputError(
            f"official population is missing for {int(weight.isna().sum())} units with an "
            f"official share in {epoch}",
            "official population for all of them, or for none",
            "fill in the totals of the official table",
        )
    weighed = float(weight.sum())
    official = float((known["official_share"] * weight).sum()) / weighed if weighed > 0 else np.nan
    covered = float(known["population"].sum()) / people if people > 0 else np.nan
    codes = level_codes(2)
    by_class = {c: float(group[f"population_{c}"].sum()) for c in codes}
    urban = sum(by_class[c] for c in URBAN_CODES)
    centre_share = by_class[30] / people if people > 0 else np.nan
    urban_share = urban / people if people > 0 else np.nan
    whole = bool(np.isclose(covered, 1.0))
    row = {
        "unit": "all",
        "epoch": epoch,
        "population": people,
        "official_share": official,
        "official_population": float(known["official_population"].sum(min_count=1)),
        "official_known": covered,
        "centre_share": centre_share,
        "urban_share": urban_share,
        "ratio": _ratio(official, urban_share) if whole else np.nan,
        "ratio_centre": _ratio(official, centre_share) if whole else np.nan,
        **{f"population_{c}": by_class[c] for c in codes},
        **{f"share_{c}": by_class[c] / people if people > 0 else np.nan for c in codes},
    }
    for column in _CHANGE:
        if column in group:
            row[column] = float(group[column].sum(min_count=1))
    return row


def _ratio(official: Any, functional: Any) -> Any:
    with np.errstate(invalid="ignore", divide="ignore"):
        functional = np.asarray(functional, dtype=np.float64)
        found = np.where(
            functional > 0, np.asarray(official, dtype=np.float64) / functional, np.nan
        )
    return found if found.ndim else float(found)


# --- epochs -----------------------------------------------------------------------


def _by_epoch(rasters: Rasters, name: str) -> dict[Any, xr.DataArray]:
    """Return rasters by epoch, in order of time; the epoch None where none was named."""
    if not isinstance(rasters, Mapping):
        return {None: rasters}
    if not rasters:
        raise InputError(f"{name} names no epoch", "at least one epoch and raster")
    epochs: dict[Any, Any] = {}
    for key in rasters:
        text = str(key).strip()
        epoch: Any = int(text) if text.lstrip("-").isdigit() else text
        if epoch in epochs:
            raise InputError(f"{name} names the epoch {text} twice", "each epoch once")
        epochs[epoch] = rasters[key]
    ordered = sorted(epochs, key=lambda e: (isinstance(e, str), e))
    return {epoch: epochs[epoch] for epoch in ordered}


def _epoch_column(epochs: pd.Series) -> pd.Series:
    """Return epochs as whole numbers where all are, else as text, for any file format."""
    import pandas as pd

    known = epochs.dropna()
    if len(known) and known.map(lambda e: isinstance(e, int)).all():
        return epochs.astype("int64" if len(known) == len(epochs) else "Int64")
    return epochs.map(lambda e: None if pd.isna(e) else str(e)).astype(object)


def _serving(rasters: Rasters | None, epochs: Sequence[Any], name: str) -> dict[Any, Any]:
    """Return the raster that serves each epoch; a single one serves all."""
    if rasters is None:
        return dict.fromkeys(epochs)
    if not isinstance(rasters, Mapping):
        if name == "cells" and len(epochs) > 1:
            raise InputError(
                f"cells is one raster for {len(epochs)} epochs", "a mapping of epochs to rasters"
            )
        return dict.fromkeys(epochs, rasters)
    found = _by_epoch(rasters, name)
    missing = [e for e in epochs if e not in found]
    if missing:
        raise InputError(
            f"{name} has no raster for {some(missing)}",
            f"one for every epoch of the population: {some(epochs)}",
            f"add it, or pass one raster of {name} for all epochs",
        )
    return found


# --- shares and change ------------------------------------------------------------


def _shares_of(
    cover: Coverage, codes: NDArray[Any], people: NDArray[Any], rules: UnitRules
) -> pd.DataFrame:
    """Return the shares and classes of all units at one epoch."""
    import pandas as pd

    sums = unit_sums(cover, codes, people, level=2)
    covered = covered_share(cover, sums)
    tell_exceptions(cover, sums, covered)
    # as in classify_units: no people are given to units that hold no cell centre
    uncounted = (sums.basis == "none") | (np.diff(cover.touched.indptr) > 0)
    population = np.where(uncounted, np.nan, sums.population)
    by_class = np.where(uncounted[:, None], np.nan, sums.people)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(population[:, None] > 0, by_class / population[:, None], np.nan)
    urban = by_class[:, : len(URBAN_CODES)].sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        urban_share = np.where(population > 0, urban / population, np.nan)
    return pd.DataFrame(
        {
            "unit": cover.ids,
            "population": population,
            "centre_share": shares[:, 0],
            "urban_share": urban_share,
            **{f"share_{c}": shares[:, k] for k, c in enumerate(sums.codes)},
            **{f"population_{c}": by_class[:, k] for k, c in enumerate(sums.codes)},
            **classes_of(sums, rules=rules),
            "basis": sums.basis,
            "coverage": covered,
        }
    )


def _change(
    cover: Coverage, before: tuple[Any, Any, Any] | None, now: tuple[Any, Any, Any]
) -> pd.DataFrame:
    """Return the change of the urban population since the epoch before, in three parts."""
    import pandas as pd

    if before is None:
        blank = np.full(len(cover.ids), np.nan)
        return pd.DataFrame({"previous_epoch": None, **dict.fromkeys(_CHANGE, blank)})
    epoch, was, had = before
    _, is_now, has = now
    gained = has - had
    inside = cover.parts @ np.where(was & is_now, gained, 0.0)
    new = cover.parts @ np.where(~was & is_now, gained, 0.0)
    reclassified = cover.parts @ (had * (is_now.astype(np.float64) - was))
    return pd.DataFrame(
        {
            "previous_epoch": np.full(len(cover.ids), epoch, dtype=object),
            "urban_change": inside + new + reclassified,
            "growth_inside": inside,
            "new_footprint": new,
            "reclassification": reclassified,
        }
    )


# --- official figures -------------------------------------------------------------


def read_official(path: str | Path, id: str = "unit") -> pd.DataFrame:
    """Read official urban shares or counts from CSV or Parquet.

    Parameters
    ----------
    path
        ``.csv`` (UTF-8, comma, semicolon or tab; decimal point) or ``.parquet``.
    id
        Column of unit ids; ``unit`` is taken where it is absent.

    Returns
    -------
    pandas.DataFrame
        As :func:`check_official`.

    Raises
    ------
    InputError
        When the file cannot be read or the table is not sound.
    """
    import pandas as pd
    import pyarrow as pa

    text = os.fspath(path)
    if not Path(text).is_file():
        raise InputError(f"{text} does not exist", "a table of official figures", "check the path")
    try:
        if text.lower().endswith((".parquet", ".pq")):
            table = pd.read_parquet(text)
        else:
            # as text, so that ids keep their zeros
            table = pd.read_csv(text, dtype=str, sep=_separator(text), encoding="utf-8-sig")
            if not isinstance(table.index, pd.RangeIndex):
                raise ValueError("rows hold more values than there are columns")
    except (ValueError, OSError, pa.ArrowException, pd.errors.ParserError) as error:
        raise InputError(
            f"{text} cannot be read as a table ({error})",
            "CSV in UTF-8, or Parquet",
            "export it again",
        ) from error
    return check_official(table, id, name=Path(text).name)


def _separator(path: str) -> str:
    """Return the separator that stands most often in the first line of a CSV file."""
    with open(path, encoding="utf-8-sig") as file:
        head = file.readline()
    return max(",;\t", key=head.count)


def check_official(
    table: pd.DataFrame, id: str = "unit", *, name: str = "official figures"
) -> pd.DataFrame:
    """Check official figures and bring them to one form.

    Parameters
    ----------
    table
        Columns: the unit (``id``, or ``unit``); ``epoch`` or ``year``, where
        there are several; and one of ``urban_share`` (0 to 1), ``urban_percent``
        (0 to 100), or people: ``urban`` with ``total`` or ``rural``. ``total``
        beside a share gives the official population.
    id
        Column of unit ids.
    name
        What the table is called in messages.

    Returns
    -------
    pandas.DataFrame
        ``unit`` (text), ``epoch`` (None without one), ``official_share`` (0 to
        1), ``official_population`` (people), missing where unknown.

    Raises
    ------
    InputError
        With all problems: columns missing, values that are no numbers or out of
        range, shares that look like percent or the reverse, totals that differ
        from urban + rural by more than 0.1 %, units that stand twice.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"unit": ["a", "b"], "urban": [60, 0], "rural": [40, 50]})
    >>> check_official(table)["official_share"].tolist()
    [0.6, 0.0]
    >>> check_official(pd.DataFrame({"unit": ["a"], "urban_share": [62.3]}))
    Traceback (most recent call last):
    ...
    qala.errors.InputError: official figures: urban_share holds values up to 62.3; expected ...
    """
    import pandas as pd

    problems = Problems(name)
    listed = ", ".join(str(c) for c in table.columns)
    key = id if id in table.columns else "unit" if "unit" in table.columns else None
    if key is None:
        problems.add(f"there is no column {id!r} or 'unit'", f"one of: {listed}", "name the column")
    when = next((c for c in ("epoch", "year") if c in table.columns), None)
    columns = set(table.columns)
    number: dict[str, NDArray[np.float64]] = {
        c: _numbers(table, c, key, problems)
        for c in ("urban_share", "urban_percent", "urban", "rural", "total")
        if c in columns
    }
    counts = "urban" in number and ({"total", "rural"} & set(number))
    if not counts and not {"urban_share", "urban_percent"} & set(number):
        problems.add(
            f"there is no urban share or population among the columns {listed}",
            "urban_share (0 to 1), urban_percent (0 to 100), or urban with total or rural (people)",
            "rename the columns so",
        )
    if len(table) == 0:
        problems.add("the table is empty", "a row for each unit")
    problems.raise_if_any()
    labels = table[key].astype(str).str.strip().to_numpy(dtype=object)
    epochs = (
        np.full(len(table), None, dtype=object)
        if when is None
        else table[when].astype(str).str.strip().str.removesuffix(".0").to_numpy(dtype=object)
    )
    shares = _official_shares(number, labels, problems)
    total = number.get("total")
    if total is None and "rural" in number and "urban" in number:
        total = number["urban"] + number["rural"]
    result = pd.DataFrame(
        {
            "unit": labels,
            "epoch": epochs,
            "official_share": shares,
            "official_population": np.nan if total is None else total,
        }
    )
    twice = result.duplicated(["unit", "epoch"], keep=False)
    if twice.any():
        told = dict.fromkeys(
            u if e is None else f"{u} in {e}"
            for u, e in result.loc[twice, ["unit", "epoch"]].itertuples(index=False)
        )
        problems.add(
            f"{len(told)} units stand twice or more: {some(told)}",
            "one row a unit and epoch",
            "remove the double rows" if when else "remove them, or add a column epoch",
        )
    problems.raise_if_any()
    return result


def _numbers(
    table: pd.DataFrame, column: str, key: str | None, problems: Problems
) -> NDArray[np.float64]:
    """Return a column as numbers, noting what is none, negative or infinite."""
    import pandas as pd

    raw = table[column]
    values = pd.to_numeric(raw, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan).copy()
    blank = raw.isna().to_numpy() | (raw.astype(str).str.strip() == "").to_numpy()
    labels = table[key].astype(str).to_numpy() if key else np.arange(1, len(table) + 1).astype(str)
    words = np.isnan(values) & ~blank
    if words.any():
        told = [f"{u} ({v!r})" for u, v in zip(labels[words], raw[words].astype(str), strict=True)]
        problems.add(
            f"{column} holds {int(words.sum())} values that are no numbers: {some(told)}",
            "numbers with a decimal point",
            "write 0 for none, and leave unknown values empty",
        )
    wrong = (values < 0) | np.isinf(values)
    if wrong.any():
        told = [f"{u} ({v:g})" for u, v in zip(labels[wrong], values[wrong], strict=True)]
        problems.add(f"{column} is negative or infinite: {some(told)}", "numbers of at least 0")
    values[wrong] = np.nan
    return values


def _official_shares(
    number: Mapping[str, NDArray[np.float64]], labels: NDArray[np.object_], problems: Problems
) -> NDArray[np.float64]:
    """Return shares from whichever columns there are, noting what contradicts."""
    shares = np.full(len(labels), np.nan)
    urban, rural, total = (number.get(c) for c in ("urban", "rural", "total"))
    if urban is not None and rural is not None and total is not None:
        with np.errstate(invalid="ignore"):
            off = np.abs(urban + rural - total) > np.maximum(2.0, TOTAL_TOLERANCE * total)
        if off.any():
            told = [
                f"{n} ({u:.0f} + {r:.0f} against {t:.0f})"
                for n, u, r, t in zip(labels[off], urban[off], rural[off], total[off], strict=True)
            ]
            problems.add(f"urban + rural is not total: {some(told)}", "totals that add up")
    if urban is not None and (total is not None or rural is not None):
        whole = total if total is not None else urban + rural  # type: ignore[operator]
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = np.where(whole > 0, urban / whole, np.nan)
        above = shares > 1 + TOTAL_TOLERANCE
        if above.any():
            told = [
                f"{n} ({u:.0f} of {t:.0f})"
                for n, u, t in zip(labels[above], urban[above], whole[above], strict=True)
            ]
            problems.add(f"urban is above total: {some(told)}", "at most the total")
        shares = np.minimum(shares, 1.0)
    for column, scale, other in (
        ("urban_share", 1.0, "urban_percent"),
        ("urban_percent", 0.01, "urban_share"),
    ):
        values = number.get(column)
        if values is None or np.isnan(values).all():
            continue
        top = float(np.nanmax(values))
        if top * scale > 1 + 1e-9:
            problems.add(
                f"{column} holds values up to {top:g}",
                f"0 to {1 / scale:g}",
                f"if they are percent, call the column {other}" if scale == 1.0 else "",
            )
            continue
        if scale != 1.0 and 0 < top <= 1:
            problems.add(
                f"{column} holds values up to {top:g} only, which look like shares",
                "percent from 0 to 100",
                f"if they are shares, call the column {other}",
            )
            continue
        given = values * scale
        with np.errstate(invalid="ignore"):
            off = np.abs(given - shares) > TOTAL_TOLERANCE
        if off.any():
            told = [
                f"{n} ({g:.4g} against {s:.4g})"
                for n, g, s in zip(labels[off], given[off], shares[off], strict=True)
            ]
            problems.add(
                f"{column} contradicts the other columns: {some(told)}", "shares that agree"
            )
        shares = np.where(np.isnan(shares), given, shares)
    return shares


def _official_of(
    official: pd.DataFrame | str | Path | None,
    units: gpd.GeoDataFrame,
    id: str,
    epochs: Sequence[Any],
) -> pd.DataFrame | None:
    """Return official figures that fit the units and epochs."""
    if official is None:
        return None
    if isinstance(official, str | os.PathLike):
        table, name = read_official(official, id), Path(official).name
    elif {"unit", "epoch", "official_share", "official_population"} <= set(official.columns):
        table, name = official, "official figures"  # checked before
    else:
        table, name = check_official(official, id), "official figures"
    problems = Problems(name)
    known = set(units[id].astype(str).str.strip()) if id in units.columns else set()
    strange = [u for u in dict.fromkeys(table["unit"]) if u not in known]
    if strange and known:
        problems.add(
            f"{len(strange)} units are not in the layer: {some(strange)}",
            f"ids of column {id!r}, such as {some(sorted(known))}",
            "correct them, or take out rows that are no units, such as totals",
        )
    dated = bool(table["epoch"].notna().all())
    if dated and list(epochs) == [None] and table["epoch"].nunique() == 1:
        log.info("%s: figures of %s beside a grid without epoch", name, table["epoch"].iloc[0])
        table, dated = table.assign(epoch=None), False
    if dated and list(epochs) == [None]:
        problems.add(
            f"the table is for {some(dict.fromkeys(table['epoch']))}, the population for no epoch",
            "epochs on both sides or on neither",
            "pass the population as {epoch: raster}",
        )
    elif not dated and len(epochs) > 1:
        problems.add(
            f"the table names no epoch, the population {len(epochs)}: {some(epochs)}",
            "a column epoch",
            "add it",
        )
    problems.raise_if_any()
    without = known - set(table["unit"])
    if without:
        log.warning(
            "%s: %d units have no official figure: %s", name, len(without), some(sorted(without))
        )
    if dated:
        wanted = {str(e) for e in epochs}
        unmet = sorted(wanted - set(table["epoch"]))
        if unmet:
            log.warning("%s: no official figure for %s", name, some(unmet))
    return table


def _with_official(rates: pd.DataFrame, figures: pd.DataFrame | None) -> pd.DataFrame:
    """Join official figures and the ratios, and put the columns in order."""
    if figures is None:
        rates["official_share"] = np.nan
        rates["official_population"] = np.nan
    else:
        dated = figures["epoch"].notna().all()
        on = ["_unit", "_epoch"] if dated else ["_unit"]
        right = figures.rename(columns={"unit": "_unit", "epoch": "_epoch"})
        left = rates.assign(
            _unit=rates["unit"].astype(str).str.strip(), _epoch=rates["epoch"].astype(str)
        )
        columns = [*on, "official_share", "official_population"]
        # a left join on unique keys keeps the rows and their order
        joined = left.merge(right[columns], how="left", on=on, validate="many_to_one")
        rates = joined.drop(columns=["_unit", "_epoch"])
    rates["ratio"] = _ratio(rates["official_share"], rates["urban_share"])
    rates["ratio_centre"] = _ratio(rates["official_share"], rates["centre_share"])
    head = [
        "unit",
        "epoch",
        "population",
        "official_share",
        "centre_share",
        "urban_share",
        "ratio",
        "ratio_centre",
        "official_population",
    ]
    return rates[[*head, *[c for c in rates.columns if c not in head]]]


# --- sensitivity ------------------------------------------------------------------

#: thresholds that a definition ties to another and that move with it
_TIED = {
    "cluster_density": ("semidense_density",),
    "cluster_population": ("dense_population", "semidense_population"),
}
#: variants computed at once: they share what is read, and workers have something to share out
_TOGETHER = 4
_VARIED = ("centre_density", "centre_population", "cluster_density", "cluster_population")


def sensitivity(
    population: xr.DataArray,
    built: xr.DataArray | None = None,
    land: xr.DataArray | None = None,
    units: gpd.GeoDataFrame | None = None,
    *,
    id: str | None = None,
    ruleset: str = "R2023A",
    variation: float = 0.2,
    overlay: Overlay = "exact",
    chunk: int | None = None,
    **thresholds: Any,
) -> pd.DataFrame:
    """Tell how the urban share hangs on the definition.

    Parameters
    ----------
    population, built, land, chunk
        As for :func:`qala.classify_cells`; one epoch.
    units
        Take shares of the people in these units together; without them, of the
        whole raster.
    id
        Column of unit ids.
    ruleset, **thresholds
        The definition that is varied, the first row of the table.
    variation
        Share by which each threshold is lowered and raised.
    overlay
        As for :func:`qala.classify_units`.

    Returns
    -------
    pandas.DataFrame
        ``variant`` (default, threshold, ruleset, built-up rule), ``threshold``,
        ``value``, ``centre_share``, ``urban_share``, ``centre_difference``,
        ``urban_difference`` (to the first row, as shares).

    Raises
    ------
    InputError
        As :func:`qala.classify_cells`, or when variation is not between 0 and 1.

    Notes
    -----
    Thresholds that the definition sets equal move together: the density of
    semi-dense clusters with that of urban clusters, and the population of dense
    and semi-dense clusters with theirs.
    """
    import pandas as pd

    from qala.settlement import classify_cells

    if not 0 < variation < 1:
        raise InputError(f"variation is {variation!r}", "a share between 0 and 1")
    base = cell_rules(ruleset, **thresholds)
    cover = None
    if units is not None:
        if id is None:
            raise InputError("id is missing", "the column of unit ids", "pass id=")
        cover = coverage(units, geobox_of(population), id=id, overlay=overlay)
        require_some_inside(cover)
    rows = []
    found = _variants(base, ruleset, variation, thresholds, built is not None)
    for first in range(0, len(found), _TOGETHER):
        some = found[first : first + _TOGETHER]
        cells = [
            classify_cells(population, built, land, level=2, ruleset=rules, chunk=chunk, **changed)
            for _, _, _, rules, changed in some
        ]
        shares = _urban_shares(cells, population, cover)
        rows += [(*v[:3], *share) for v, share in zip(some, shares, strict=True)]
    columns = ["variant", "threshold", "value", "centre_share", "urban_share"]
    table = pd.DataFrame(rows, columns=columns)
    for share in ("centre", "urban"):
        table[f"{share}_difference"] = table[f"{share}_share"] - table[f"{share}_share"].iloc[0]
    return table


def _variants(
    base: Any, ruleset: str, variation: float, thresholds: dict[str, Any], built: bool
) -> list[tuple[str, str, Any, str, dict[str, Any]]]:
    found: list[tuple[str, str, Any, str, dict[str, Any]]] = [
        ("default", "ruleset", ruleset, ruleset, thresholds)
    ]
    for name in _VARIED:
        for factor in (1 - variation, 1 + variation):
            value = round(getattr(base, name) * factor, 6)
            tied = {
                t: value for t in _TIED.get(name, ()) if getattr(base, t) == getattr(base, name)
            }
            changed = {**thresholds, name: value, **tied}
            found.append(("threshold", name, value, ruleset, changed))
    found += [("ruleset", "ruleset", r, r, thresholds) for r in RULESETS if r != ruleset]
    if not built:
        log.info("the built-up rule is not varied, as there is no built-up raster")
    elif base.centre_built is None:
        share = cell_rules("R2023A").centre_built
        changed = {**thresholds, "centre_built": share}
        found.append(("built-up rule", "centre_built", share, ruleset, changed))
    else:
        changed = {**thresholds, "centre_built": False}
        found.append(("built-up rule", "centre_built", "off", ruleset, changed))
    return found


def _urban_shares(
    variants: Sequence[xr.DataArray], population: xr.DataArray, cover: Coverage | None
) -> list[tuple[float, float]]:
    """Return the shares of people in centres, and in centres and clusters, of each variant."""
    import dask

    sums: list[tuple[float, float, float]] = []
    if cover is not None:
        *classes, count = cover.take(*variants, population)
        held = np.asarray(cover.parts.sum(axis=0)).ravel()
        weighed = held * np.nan_to_num(count.astype(np.float64))
        for codes in classes:
            masks = (np.ones(codes.shape, bool), codes == 30, np.isin(codes, URBAN_CODES))
            total, centre, urban = (float(weighed[mask].sum()) for mask in masks)
            sums.append((total, centre, urban))
    else:
        people = population.transpose("y", "x").fillna(0).astype(np.float64)
        wanted = [people.sum()]
        for cells in variants:
            found = cells.transpose("y", "x").data
            cluster = (found >= min(URBAN_CODES)) & (found <= max(URBAN_CODES))
            wanted += [(people * (found == 30)).sum(), (people * cluster).sum()]
        whole, *parts = (float(v) for v in dask.compute(*wanted))
        sums = [(whole, a, b) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return [
        (centre / total, urban / total) if total > 0 else (float("nan"), float("nan"))
        for total, centre, urban in sums
    ]
