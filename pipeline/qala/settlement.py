"""Degree of Urbanisation of grid cells, levels 1 and 2.

The raster is scanned once, strip by strip; every strip gives back only *runs*
of cells (see :mod:`qala._kernels`). Runs are joined into clusters whatever the
strips were, centres are smoothed and filled where they stand, and strips are
painted from the result. Memory follows the strip and the number of runs, not
the raster.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qala.errors import InputError, Problems
from qala.grid import cell_area_m2, geobox_of, named_crs
from qala.raster import (
    CLASS_NODATA,
    MAX_PEOPLE_PER_CELL,
    require_on_grid,
    require_population,
    to_share,
)
from qala.rules import CellRules, cell_rules, level_codes

if TYPE_CHECKING:
    import geopandas as gpd
    import xarray as xr

log = logging.getLogger("qala")

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Runs:
    """A table of horizontal runs of cells, sorted by row, then column.

    Attributes
    ----------
    row, start, stop
        int32; row, first column and column after the last.
    value
        What each run carries: people, a component, a class or a label.
    """

    row: Array
    start: Array
    stop: Array
    value: Array

    def row_start(self, height: int) -> Array:
        """Return the index of the first run of each row, and one past the last."""
        return np.searchsorted(self.row, np.arange(height + 1, dtype=np.int32))

    def between(self, first: int, last: int) -> Runs:
        """Return the runs of rows first … last-1."""
        a, b = np.searchsorted(self.row, [first, last])
        return Runs(self.row[a:b], self.start[a:b], self.stop[a:b], self.value[a:b])

    def where(self, keep: Array) -> Runs:
        """Return the runs that are kept."""
        return Runs(self.row[keep], self.start[keep], self.stop[keep], self.value[keep])

    def carrying(self, value: Array) -> Runs:
        """Return the same runs with other values."""
        return Runs(self.row, self.start, self.stop, value)

    def coded(self, code: int) -> Runs:
        """Return the same runs, all of one class."""
        return self.carrying(np.full(self.row.size, code, np.uint8))


@dataclass(frozen=True)
class _Packed:
    """Bits of a strip, compressed: coasts and fields are mostly stretches of one value."""

    shape: tuple[int, int]
    bytes: bytes

    @classmethod
    def of(cls, bits: Array) -> _Packed:
        import pyarrow as pa

        return cls(bits.shape, pa.compress(bits, codec="lz4_raw", asbytes=True))

    def unpack(self) -> Array:
        import pyarrow as pa

        size = self.shape[0] * self.shape[1]
        raw = pa.decompress(self.bytes, size, codec="lz4_raw", asbytes=True)
        return np.frombuffer(raw, np.uint8).reshape(self.shape)


@dataclass(frozen=True)
class _Strip:
    """What one strip of rows gives back."""

    first_row: int
    rows: int
    dense: Runs
    cluster: Runs
    semidense: Runs
    states: _Packed | None
    low: _Packed | None
    stats: Array


@dataclass(frozen=True)
class _Plan:
    """Everything needed to paint any strip of the classification."""

    height: int
    width: int
    centres: Runs
    paints: dict[int, tuple[Runs, ...]]
    states: Array | None
    low: dict[int, _Packed]
    counts: dict[str, float]


@dataclass(frozen=True)
class _Setup:
    """The rules and units that a scan needs, as plain values."""

    rules: CellRules
    level2: bool
    cell_km2: float
    built_unit: float
    land_unit: float


def classify_cells(
    population: xr.DataArray,
    built: xr.DataArray | None = None,
    land: xr.DataArray | None = None,
    *,
    level: int = 1,
    ruleset: str = "R2023A",
    chunk: int | None = None,
    **thresholds: Any,
) -> xr.DataArray:
    """Classify cells by the Degree of Urbanisation.

    Parameters
    ----------
    population
        dims (y, x); people per cell of an equal-area grid of 1 km, NaN where
        missing.
    built
        dims (y, x); built-up surface on the same grid; ``attrs["units"]`` tells
        m2, share or percent of a cell. Without it the built-up rule is left out.
    land
        dims (y, x); permanent land on the same grid, likewise. Without it every
        cell is land and there is no water.
    level
        1 (codes 3, 2, 1, 0) or 2 (codes 30, 23, 22, 21, 13, 12, 11, 10).
    ruleset
        ``manual2021``, ``R2022A``, ``R2023A`` or ``2024``.
    chunk
        Rows per strip; the result never depends on it.
    **thresholds
        Single thresholds of :class:`qala.rules.CellRules`;
        ``centre_built=False`` leaves the built-up rule out.

    Returns
    -------
    xarray.DataArray
        dims (y, x), uint8, 255 where there is no data; lazy if any input is.

    Raises
    ------
    InputError
        When grids differ, the CRS is not equal-area, the resolution is not
        1 km, units are unknown, or there are negative, infinite or impossible
        counts of people (raised on computing for lazy input).

    Notes
    -----
    Rules: Eurostat et al. (2021), doi:10.2785/706535; GHSL Data Package 2023,
    doi:10.2760/098587. Density is people per km² of land; a cell with people
    and no land at all counts as dense.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from odc.geo.xr import xr_coords
    >>> from qala.grid import ghsl_geobox
    >>> people = np.zeros((9, 9)); people[3:6, 3:6] = 6_000
    >>> grid = ghsl_geobox((0, 0, 9_000, 9_000))
    >>> population = xr.DataArray(people, xr_coords(grid), ("y", "x"))
    >>> int((classify_cells(population) == 3).sum())
    9
    """
    level_codes(level)
    painter = _prepare(
        population, built, land, level2=level == 2, ruleset=ruleset, chunk=chunk, **thresholds
    )
    return painter.classes(level)


def classify_levels(
    population: xr.DataArray,
    built: xr.DataArray | None = None,
    land: xr.DataArray | None = None,
    *,
    ruleset: str = "R2023A",
    chunk: int | None = None,
    **thresholds: Any,
) -> xr.Dataset:
    """Classify cells at both levels and number the centres from one scan.

    Parameters
    ----------
    population, built, land, ruleset, chunk, **thresholds
        As for :func:`classify_cells`.

    Returns
    -------
    xarray.Dataset
        ``degurba_l1`` and ``degurba_l2`` (uint8, 255 without data) and
        ``centre`` (int32, 0 outside centres); computing them together reads
        the input once.

    Raises
    ------
    InputError
        As :func:`classify_cells`.
    """
    import xarray as xr

    painter = _prepare(
        population, built, land, level2=True, ruleset=ruleset, chunk=chunk, **thresholds
    )
    found = (painter.classes(1), painter.classes(2), painter.labels())
    return xr.Dataset({array.name: array for array in found})


def label_centres(
    population: xr.DataArray,
    built: xr.DataArray | None = None,
    land: xr.DataArray | None = None,
    *,
    ruleset: str = "R2023A",
    chunk: int | None = None,
    **thresholds: Any,
) -> xr.DataArray:
    """Number the urban centres: 1, 2, … in row-major order, 0 elsewhere.

    Two centres that touch after smoothing keep their own numbers.

    Parameters
    ----------
    population, built, land, ruleset, chunk, **thresholds
        As for :func:`classify_cells`.

    Returns
    -------
    xarray.DataArray
        dims (y, x), int32; lazy if any input is.

    Raises
    ------
    InputError
        As :func:`classify_cells`.
    """
    painter = _prepare(
        population, built, land, level2=False, ruleset=ruleset, chunk=chunk, **thresholds
    )
    return painter.labels()


def urban_centres(
    labels: xr.DataArray, population: xr.DataArray, places: gpd.GeoDataFrame | None = None
) -> gpd.GeoDataFrame:
    """Return urban centres as polygons with their people, area and name.

    Parameters
    ----------
    labels
        dims (y, x), int32; from :func:`label_centres`.
    population
        dims (y, x); people per cell on the same grid.
    places
        Points with ``name`` and ``population`` (or the fields ``name_kk``,
        ``name_ru``, ``name_en``); a centre takes the name of the most populous
        place inside it. Any declared CRS.

    Returns
    -------
    geopandas.GeoDataFrame
        One row a centre: ``centre`` (number), ``name``, ``population``
        (people), ``area_km2``, ``density`` (people per km²), geometry in the
        grid's CRS.
    """
    import geopandas as gpd
    import pandas as pd
    import rasterio.features
    import shapely

    require_on_grid(population, labels=labels)
    box = geobox_of(population)
    values = np.asarray(labels.data if not hasattr(labels.data, "compute") else labels.compute())
    people = np.asarray(population.compute(), dtype=np.float64)
    flat = values.ravel()
    count = int(flat.max(initial=0))
    total = np.bincount(flat, np.nan_to_num(people.ravel()), count + 1)[1:]
    cells = np.bincount(flat, minlength=count + 1)[1:]
    shapes = rasterio.features.shapes(
        values, mask=values > 0, connectivity=4, transform=box.transform
    )
    pairs = [(int(v), shapely.geometry.shape(g)) for g, v in shapes]
    parts = gpd.GeoDataFrame(
        {"centre": [v for v, _ in pairs]}, geometry=[g for _, g in pairs], crs=named_crs(box)
    )
    dissolved = parts.dissolve("centre").sort_index()
    area = cells * cell_area_m2(box) / 1e6
    result = gpd.GeoDataFrame(
        {
            "centre": np.arange(1, count + 1, dtype=np.int32),
            "name": pd.Series([None] * count, dtype="object"),
            "population": total,
            "area_km2": area,
            "density": np.divide(total, area, out=np.full(count, np.nan), where=area > 0),
        },
        geometry=list(dissolved.geometry) if count else [],
        crs=named_crs(box),
    )
    if places is not None and count:
        result = _named(result, places)
    return result


def _named(centres: gpd.GeoDataFrame, places: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Give centres the names of the most populous place inside them."""
    import geopandas as gpd
    import pandas as pd

    names = [c for c in places.columns if c == "name" or c.startswith("name_")]
    problems = Problems("places")
    if places.crs is None:
        problems.add("they have no CRS", "a declared CRS", "set it with places.set_crs(4326)")
    if not names:
        problems.add(
            f"they have the columns {', '.join(map(str, places.columns))}",
            "name, or name_kk, name_ru, name_en", "rename the column of names",
        )  # fmt: skip
    problems.raise_if_any()
    # without populations the first name in the alphabet is taken
    given = places["population"] if "population" in places.columns else 0.0
    weight = pd.to_numeric(pd.Series(given, index=places.index), errors="coerce").fillna(0)
    points = places.assign(_weight=weight).to_crs(centres.crs)[[*names, "_weight", "geometry"]]
    inside = gpd.sjoin(points, centres[["centre", "geometry"]], predicate="intersects")
    best = (
        inside.sort_values(["_weight", *names], ascending=[False, *([True] * len(names))])
        .drop_duplicates("centre")
        .set_index("centre")
    )
    if "name" not in names and names:
        first = next((n for n in ("name_en", "name_ru", "name_kk") if n in names), names[0])
        best["name"] = best[first]
        names = ["name", *names]
    for column in names:
        centres[column] = centres["centre"].map(best[column])
    return centres[[*[c for c in centres.columns if c != "geometry"], "geometry"]]


# --- wiring ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Painter:
    """A joined plan, eager or delayed, and the strips it is painted in."""

    like: xr.DataArray
    plan: Any
    strips: list[tuple[int, int]]
    lazy: bool
    ruleset: str

    def classes(self, level: int) -> xr.DataArray:
        attrs = {
            "units": "class",
            "level": level,
            "ruleset": self.ruleset,
            "codes": ",".join(str(c) for c in level_codes(level)),
            "long_name": f"Degree of Urbanisation, level {level}",
        }
        return self._painted(level, np.dtype("uint8"), f"degurba_l{level}", attrs)

    def labels(self) -> xr.DataArray:
        attrs = {"units": "label", "ruleset": self.ruleset, "long_name": "urban centre"}
        return self._painted(0, np.dtype("int32"), "centre", attrs)

    def _painted(
        self, level: int, dtype: np.dtype[Any], name: str, attrs: dict[str, Any]
    ) -> xr.DataArray:
        import xarray as xr

        height, width = self.like.sizes["y"], self.like.sizes["x"]
        if self.lazy:
            import dask
            import dask.array

            paint = dask.delayed(_paint_strip, pure=True)
            blocks = [
                dask.array.from_delayed(paint(self.plan, first, n, level), (n, width), dtype)
                for first, n in self.strips
            ]
            data: Any = dask.array.concatenate(blocks)
        else:
            data = np.empty((height, width), dtype)
            for first, n in self.strips:
                data[first : first + n] = _paint_strip(self.plan, first, n, level)
        coords = {c: self.like.coords[c] for c in self.like.coords}
        return xr.DataArray(data, coords=coords, dims=("y", "x"), name=name, attrs=attrs)


def _prepare(
    population: xr.DataArray,
    built: xr.DataArray | None,
    land: xr.DataArray | None,
    *,
    level2: bool,
    ruleset: str,
    chunk: int | None,
    **thresholds: Any,
) -> _Painter:
    """Scan and join; eager or as delayed objects, by what the inputs are."""
    import dask
    from dask.base import is_dask_collection

    rules = cell_rules(ruleset, **thresholds)
    box = require_population(population)
    require_on_grid(population, built=built, land=land)
    size = box.transform.a
    if not math.isclose(size, 1000.0, rel_tol=1e-6):
        fold = round(1000.0 / size) if size < 1000.0 else 0
        raise InputError(
            f"population has cells of {size:g} m",
            "cells of 1000 m, on which the Degree of Urbanisation is defined",
            f"sum it up with qala.aggregate(population, {fold}), with a workflow of `qala run`, "
            "which does so by itself, or with gdalwarp -tr 1000 1000 -tap -r sum"
            if fold and math.isclose(fold * size, 1000.0)
            else "warp it to 1000 m with gdalwarp -tr 1000 1000 -tap -r sum",
        )
    setup = _Setup(
        rules=rules,
        level2=level2,
        cell_km2=cell_area_m2(box) / 1e6,
        built_unit=1.0 / to_share(built) if built is not None else 1.0,
        land_unit=1.0 / to_share(land) if land is not None else 1.0,
    )
    arrays = [None if a is None else a.transpose("y", "x").data for a in (population, built, land)]
    lazy = any(is_dask_collection(a) for a in arrays)
    height, width = box.shape
    if not height or not width:
        raise InputError("population has no cells", "a raster with rows and columns")
    strips = _strips(height, width, arrays, chunk)
    sources = [str(a.attrs.get("source", a.name)) if a is not None else "" for a in
               (population, built, land)]  # fmt: skip
    if lazy:
        import dask.array

        blocks = []
        rows = tuple(n for _, n in strips)
        for a in arrays:
            if a is None:
                blocks.append([None] * len(strips))
            else:
                wide = dask.array.asarray(a).rechunk((rows, (width,)))
                blocks.append(list(wide.to_delayed().ravel()))
        scan = dask.delayed(_scan_strip, pure=True)
        scans = [
            scan(p, b, g, first, setup) for (first, _), p, b, g in zip(strips, *blocks, strict=True)
        ]
        plan = dask.delayed(_join, pure=True)(scans, setup, height, width, sources)
        return _Painter(population, plan, strips, True, ruleset)
    parts = (
        (first, [None if a is None else np.asarray(a[first : first + n]) for a in arrays])
        for first, n in strips
    )
    scans = [_scan_strip(p, b, g, first, setup) for first, (p, b, g) in parts]
    joined = _join(scans, setup, height, width, sources)
    return _Painter(population, joined, strips, False, ruleset)


def _strips(
    height: int, width: int, arrays: Sequence[Any], chunk: int | None
) -> list[tuple[int, int]]:
    """Return (first row, rows) of each strip: asked for, as chunked, or all."""
    if chunk is not None and chunk < 1:
        raise InputError(f"chunk is {chunk}", "a number of rows of at least 1")
    if chunk is None:
        given = [a.chunks[0] for a in arrays if hasattr(a, "chunks") and a is not None]
        # the finest row chunks among the inputs bound the memory
        rows = max(given, key=len) if given else (height,)
    else:
        rows = (chunk,) * (height // chunk) + ((height % chunk,) if height % chunk else ())
    edges = np.concatenate([[0], np.cumsum(rows)])
    return [(int(a), int(n)) for a, n in zip(edges[:-1], rows, strict=True)]


_DUMMY = np.zeros((0, 0), np.float32)


def _scan_strip(
    population: Array | None, built: Array | None, land: Array | None, first_row: int, setup: _Setup
) -> _Strip:
    """Scan one strip; see :func:`qala._kernels.scan`."""
    from qala import _kernels

    assert population is not None
    rules = setup.rules
    use_built = built is not None and rules.centre_built is not None
    separate = setup.level2 and (
        rules.semidense_density != rules.cluster_density or rules.semidense_connectivity != 8
    )
    # land and built-up of unlike types are brought together: one compiled version less
    others = [a for a in (built, land) if a is not None]
    kind = np.result_type(np.float32, *others) if others else np.dtype("float32")
    pop = population if population.dtype in (np.float32, np.float64) else population.astype(float)
    dense, cluster, semi, states, any_state, low, any_low, stats = _kernels.scan(
        np.ascontiguousarray(pop),
        np.ascontiguousarray(built, kind) if built is not None else _DUMMY.astype(kind),
        np.ascontiguousarray(land, kind) if land is not None else _DUMMY.astype(kind),
        built is not None,
        land is not None,
        float(setup.built_unit),
        float(setup.land_unit),
        float(setup.cell_km2),
        float(rules.centre_density),
        use_built,
        float(rules.centre_built or 0.0),
        float(rules.cluster_density),
        float(rules.semidense_density),
        float(rules.low_density),
        float(rules.water_land),
        setup.level2,
        separate,
        MAX_PEOPLE_PER_CELL,
    )
    return _Strip(
        first_row=first_row,
        rows=population.shape[0],
        dense=Runs(dense[0] + np.int32(first_row), *dense[1:]),
        cluster=Runs(cluster[0] + np.int32(first_row), *cluster[1:]),
        semidense=Runs(semi[0] + np.int32(first_row), *semi[1:]),
        states=_Packed.of(states) if any_state else None,
        low=_Packed.of(low) if any_low else None,
        stats=stats,
    )


def _concat(tables: Sequence[Runs]) -> Runs:
    return Runs(
        *(
            np.concatenate([getattr(t, f) for t in tables])
            for f in ("row", "start", "stop", "value")
        )
    )


def _components(runs: Runs, height: int, connectivity: int) -> tuple[Array, Array]:
    """Return the component of each run and the people of each component."""
    from qala import _kernels

    component, count = _kernels.join_runs(
        runs.row_start(height),
        runs.start,
        runs.stop,
        1 if connectivity == 8 else 0,
    )
    return component, _kernels.sum_by(component, runs.value, count)


def _join(
    scans: Sequence[_Strip], setup: _Setup, height: int, width: int, sources: Sequence[str]
) -> _Plan:
    """Join the strips' runs into clusters and decide every cluster's class."""
    from qala import _kernels

    stats = np.stack([s.stats for s in scans])
    counts = _check_values(scans, stats, setup, sources)
    rules = setup.rules
    states = _assemble_states(scans, height, width)

    dense = _concat([s.dense for s in scans])
    dense_component, dense_people = _components(dense, height, 4)
    centres = _grown_centres(
        dense.carrying(dense_component).where(
            (dense_people >= rules.centre_population)[dense_component]
        ),
        setup,
        states,
        height,
        width,
    )
    cluster = _concat([s.cluster for s in scans])
    component, people = _components(cluster, height, 8)
    counts["centres"] = float(centres.value.max(initial=0))
    urban = cluster.where((people >= rules.cluster_population)[component])
    paints: dict[int, tuple[Runs, ...]] = {1: (urban.coded(2), centres.coded(3))}
    if not setup.level2:
        return _Plan(height, width, centres, paints, states, {}, counts)

    dense_urban = dense.where((dense_people >= rules.dense_population)[dense_component])
    separate = any(s.semidense.row.size for s in scans) or (
        rules.semidense_density != rules.cluster_density or rules.semidense_connectivity != 8
    )
    if separate:
        semi = _concat([s.semidense for s in scans])
        semi_component, semi_people = _components(semi, height, rules.semidense_connectivity)
    else:
        semi, semi_component, semi_people = cluster, component, people
    near = np.zeros(semi_people.size, np.bool_)
    for core in (centres, dense_urban):
        _kernels.mark_near(
            semi.row_start(height), semi.start, semi.stop, semi_component, near,
            core.row_start(height), core.start, core.stop,
            int(rules.semidense_distance),
        )  # fmt: skip
    is_semi = (semi_people >= rules.semidense_population) & ~near
    code = np.zeros(people.size, np.uint8)
    code[people >= rules.rural_cluster_population] = 13
    code[people >= rules.cluster_population] = 21
    semi_code = np.where(is_semi, 22, 0).astype(np.uint8)
    paints[2] = (
        cluster.carrying(code[component]),
        semi.carrying(semi_code[semi_component]),
        dense_urban.coded(23),
        centres.coded(30),
    )
    low = {s.first_row: s.low for s in scans if s.low is not None}
    return _Plan(height, width, centres, paints, states, low, counts)


def _grown_centres(
    runs: Runs, setup: _Setup, states: Array | None, height: int, width: int
) -> Runs:
    """Smooth and fill centres; return their runs numbered 1, 2, … in row-major order."""
    from qala import _kernels

    if not runs.row.size:
        return runs.carrying(np.zeros(0, np.int32))
    rules = setup.rules
    cells = rules.gap_area / setup.cell_km2
    # strictly smaller than the area: 15 km² fills gaps of up to 14 cells of 1 km²
    max_gap = math.ceil(cells) - 1
    keys, labels = _kernels.grow_centres(
        runs.row, runs.start, runs.stop, runs.value.astype(np.int32), height, width,
        states if states is not None else np.zeros((0, 0), np.uint8),
        {"none": 0, "R2022A": 1, "R2023A": 2}[rules.smoothing],
        max_gap,
    )  # fmt: skip
    row, start, stop, label = _kernels.cells_to_runs(keys, labels, width)
    _, first, inverse = np.unique(label, return_index=True, return_inverse=True)
    rank = np.empty(first.size, np.int32)
    rank[np.argsort(first)] = np.arange(1, first.size + 1, dtype=np.int32)
    return Runs(row, start, stop, rank[inverse])


def _assemble_states(scans: Sequence[_Strip], height: int, width: int) -> Array | None:
    if all(s.states is None for s in scans):
        return None
    states = np.zeros((height, (width + 3) // 4), np.uint8)
    for s in scans:
        if s.states is not None:
            states[s.first_row : s.first_row + s.rows] = s.states.unpack()
    return states


def _check_values(
    scans: Sequence[_Strip], stats: Array, setup: _Setup, sources: Sequence[str]
) -> dict[str, float]:
    """Refuse impossible values, all of them at once; return what was counted."""
    from qala import _kernels as k

    name = sources[0] or "population"
    problems = Problems(name)
    negative, infinite, huge = (
        int(stats[:, i].sum()) for i in (k.S_NEGATIVE, k.S_INFINITE, k.S_HUGE)
    )
    if negative or infinite or huge:
        at = int(np.argmax(stats[:, k.S_FIRST_ROW] >= 0))
        row = int(stats[at, k.S_FIRST_ROW]) + scans[at].first_row
        where = f"first at row {row}, column {int(stats[at, k.S_FIRST_COL])}"
        value = stats[at, k.S_FIRST_VALUE]
        kinds = [
            f"{n} {word}"
            for n, word in (
                (negative, "negative"),
                (infinite, "infinite"),
                (huge, "impossibly large"),
            )
            if n
        ]
        remedy = (
            f"if {value:g} stands for missing cells, declare it: --nodata {value:g} "
            f"or gdal_edit.py -a_nodata {value:g}"
        )
        problems.add(
            f"{' and '.join(kinds)} counts of people, {where}: {value:g}",
            f"counts from 0 to {MAX_PEOPLE_PER_CELL:g} people per cell",
            remedy,
        )
    elif not np.isfinite(stats[:, k.S_POP_MAX]).any():
        problems.add("no cell holds a value", "people per cell", "check that it is the right tile")
    for label, unit, high, low in (
        ("built", setup.built_unit, stats[:, k.S_BUILT_MAX].max(), stats[:, k.S_BUILT_MIN].min()),
        ("land", setup.land_unit, stats[:, k.S_LAND_MAX].max(), stats[:, k.S_LAND_MIN].min()),
    ):
        if high == -np.inf:
            continue
        # half a per mille above the cell's area is rounding, more is another unit
        if high > unit * 1.0005:
            problems.add(
                f"{label} reaches {high:g}, more than a whole cell ({unit:g})",
                "at most the area of a cell",
                f"tell its unit with --{label}-unit m2, share or percent, or its missing value",
            )
        if low < 0:
            problems.add(
                f"{label} falls to {low:g}", "values of at least 0", "declare its missing value"
            )
    problems.raise_if_any()
    no_land = int(stats[:, k.S_NO_LAND].sum())
    if no_land:
        log.warning("%d cells hold people but no land; their density counts as infinite", no_land)
    return {
        "people": math.fsum(stats[:, k.S_PEOPLE]),
        "missing_cells": float(stats[:, k.S_MISSING].sum()),
        "people_without_land_cells": float(no_land),
    }


def _paint_strip(plan: _Plan, first_row: int, rows: int, level: int) -> Array:
    """Paint one strip: level 1 or 2, or 0 for the numbers of centres."""
    from qala import _kernels

    last = first_row + rows
    if level == 0:
        labels = np.zeros((rows, plan.width), np.int32)
        part = plan.centres.between(first_row, last)
        _kernels.paint_runs(labels, first_row, part.row, part.start, part.stop, part.value)
        return labels
    out = np.empty((rows, plan.width), np.uint8)
    empty = np.zeros((0, 0), np.uint8)
    states = plan.states[first_row:last] if plan.states is not None else empty
    plain, low_code, water = (1, 1, 0) if level == 1 else (11, 12, 10)
    low = plan.low[first_row].unpack() if level == 2 and first_row in plan.low else empty
    _kernels.paint_base(out, states, low, plain, low_code, water, CLASS_NODATA)
    for table in plan.paints[level]:
        part = table.between(first_row, last)
        _kernels.paint_runs(out, first_row, part.row, part.start, part.stop, part.value)
    return out
