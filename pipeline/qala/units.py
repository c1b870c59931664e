"""Degree of Urbanisation of territorial units: overlay of polygons with cells, and the rules.

An overlay is made once (:func:`coverage`) and serves any number of rasters and
epochs of one grid. It holds only cells that some unit covers.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from odc.geo.geobox import GeoBox

from qala.errors import InputError, Problems
from qala.grid import cell_area_m2, describe_crs, geobox_of, require_equal_area, require_same_grid
from qala.raster import CLASS_NODATA
from qala.rules import level_codes
from qala.vector import some, to_crs_of

if TYPE_CHECKING:
    import geopandas as gpd
    import xarray as xr
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    Floats = NDArray[np.float64]

log = logging.getLogger("qala")

Overlay = Literal["exact", "centres"]
OVERLAYS: tuple[Overlay, ...] = ("exact", "centres")
UnitRules = Literal["2021", "2024"]
UNIT_RULES: tuple[UnitRules, ...] = ("2021", "2024")
#: cells of a raster of unit numbers held at once when centres are found
_BURN_CELLS = 16 * 2**20


@dataclass(frozen=True)
class Coverage:
    """Which cells of a grid belong to which units, and by how much.

    Attributes
    ----------
    box
        The grid.
    ids
        Ids of the units, in their order.
    overlay
        ``exact``: parts are shares of a cell's area. ``centres``: parts are 1
        for the unit that holds the cell's centre.
    cells
        int64, row-major numbers of the cells that any unit covers, ascending.
    parts
        scipy CSR, units × ``cells``: part of the cell that belongs to the unit.
    touched
        scipy CSR, units × ``cells``: 1 for cells touched by a unit that holds
        no cell's centre (``centres`` only; such a unit has no row in ``parts``).
    inside
        Share of each unit's area within the grid's extent, 0 to 1.
    area_m2
        Area of each unit in the grid's CRS, m².
    """

    box: GeoBox
    ids: NDArray[Any]
    overlay: Overlay
    cells: NDArray[np.int64]
    parts: csr_matrix
    touched: csr_matrix
    inside: Floats
    area_m2: Floats

    @property
    def matrix(self) -> csr_matrix:
        """Parts over all cells of the grid: scipy CSR, units × (rows · columns), row-major."""
        from scipy.sparse import csr_matrix

        height, width = self.box.shape
        return csr_matrix(
            (self.parts.data, self.cells[self.parts.indices], self.parts.indptr),
            shape=(self.parts.shape[0], height * width),
        )

    def take(self, *rasters: xr.DataArray) -> list[NDArray[Any]]:
        """Return the values of rasters at :attr:`cells`, read together.

        Only the rows and columns the units span are read; lazy rasters are
        computed strip by strip and never held whole.

        Parameters
        ----------
        *rasters
            dims (y, x) on this grid, eager or lazy.

        Returns
        -------
        list of numpy.ndarray
            One 1-D array a raster.

        Raises
        ------
        InputError
            When a raster lies on another grid.
        """
        import dask

        for raster in rasters:
            require_same_grid(self.box, geobox_of(raster), str(raster.name or "raster"), "the grid")
        # the places of the cells go into the graph once, however many rasters there are
        places: dict[tuple[int, ...], list[Any]] = {}
        return list(dask.compute(*(self._pick(raster, places) for raster in rasters)))

    def _pick(self, raster: xr.DataArray, places: dict[tuple[int, ...], list[Any]]) -> Any:
        width = self.box.shape[1]
        data = raster.transpose("y", "x").data
        if not hasattr(data, "dask"):
            return np.asarray(data).ravel()[self.cells]
        import dask
        import dask.array

        if not self.cells.size:
            return np.empty(0, data.dtype)
        rows = tuple(data.chunks[0])
        if rows not in places:
            edges = np.concatenate([[0], np.cumsum(rows)])
            cuts = np.searchsorted(self.cells, edges * width)
            cols = self.cells % width
            left, right = int(cols.min()), int(cols.max()) + 1
            places[rows] = [
                (
                    slice(int(edges[k]), int(edges[k + 1])),
                    slice(left, right),
                    dask.delayed((self.cells[a:b] // width - edges[k]).astype(np.int32), pure=True),
                    dask.delayed((cols[a:b] - left).astype(np.int32), pure=True),
                    int(b - a),
                )
                for k, (a, b) in enumerate(pairwise(cuts))
                if b > a
            ]
        pick = dask.delayed(_pick_cells, pure=True)
        picked = [
            dask.array.from_delayed(
                pick(data[window, span], row, col), shape=(count,), dtype=data.dtype
            )
            for window, span, row, col, count in places[rows]
        ]
        return dask.array.concatenate(picked)


def _pick_cells(block: NDArray[Any], rows: NDArray[Any], cols: NDArray[Any]) -> NDArray[Any]:
    picked: NDArray[Any] = np.asarray(block)[rows, cols]
    return picked


def coverage(
    units: gpd.GeoDataFrame, geobox: GeoBox, *, id: str, overlay: Overlay = "exact"
) -> Coverage:
    """Overlay units with the cells of a grid, once for all rasters on it.

    Parameters
    ----------
    units
        Polygons in any declared CRS; reprojected to the grid's, long edges
        densified first. Sound ones: see :func:`qala.vector.check_units`.
    geobox
        An equal-area grid.
    id
        Column of unit ids.
    overlay
        ``exact`` divides cells cut by a border by area (exactextract);
        ``centres`` gives each cell to the unit that holds its centre (GDAL's
        polygon fill, units burnt in ascending order of their ids).

    Returns
    -------
    Coverage
        Sparse: its memory follows the cells covered, not units × raster.

    Raises
    ------
    InputError
        When the id column or a CRS is missing, the grid is not equal-area, or
        the overlay is unknown. Units outside the grid have no cells and
        ``inside`` 0; they are no error here.

    Examples
    --------
    >>> import geopandas as gpd
    >>> from shapely.geometry import box
    >>> from qala.grid import ghsl_geobox
    >>> grid = ghsl_geobox((0, 0, 3_000, 2_000))
    >>> units = gpd.GeoDataFrame({"id": ["a"]}, geometry=[box(0, 0, 1_500, 1_000)], crs=grid.crs)
    >>> coverage(units, grid, id="id").matrix.toarray().tolist()
    [[0.0, 0.0, 0.0, 1.0, 0.5, 0.0]]
    """
    import shapely

    if overlay not in OVERLAYS:
        raise InputError(f"overlay is {overlay!r}", "exact or centres")
    if id not in units.columns:
        raise InputError(
            f"the units have no column {id!r}",
            f"one of: {', '.join(str(c) for c in units.columns if c != units.geometry.name)}",
            "name the column of unit ids with --id (id=)",
        )
    require_equal_area(geobox, "the grid")
    shapes = to_crs_of(units, geobox)
    extent = geobox.boundingbox
    frame = shapely.box(extent.left, extent.bottom, extent.right, extent.top)
    area = np.asarray(shapely.area(shapes), dtype=np.float64)
    inside = np.ones(len(shapes))
    crossing = ~_within(shapely.bounds(shapes), extent)
    if crossing.any():
        within = shapely.area(shapely.intersection(shapes[crossing], frame))
        inside[crossing] = np.clip(within / area[crossing], 0.0, 1.0)
    unit, cell, part = _exact_parts(shapes, geobox)
    none = np.empty(0, np.int64)
    touching = (none, none, np.empty(0))
    if overlay == "centres":
        order = np.argsort(units[id].astype(str).to_numpy(dtype=str), kind="stable")
        burnt_unit, burnt_cell = _centre_cells(shapes, geobox, order)
        without = np.ones(len(shapes), bool)
        without[burnt_unit] = False
        left = without[unit]
        touching = (unit[left], cell[left], np.ones(int(left.sum())))
        unit, cell, part = burnt_unit, burnt_cell, np.ones(burnt_unit.size)
    # sorted, then each once: np.unique hashes first and takes ten times as long on millions
    cells = np.sort(np.concatenate([cell, touching[1]]))
    cells = cells[np.concatenate([[True], cells[1:] != cells[:-1]])] if cells.size else cells
    return Coverage(
        box=geobox,
        ids=units[id].to_numpy(),
        overlay=overlay,
        cells=cells,
        parts=_csr(unit, cell, part, cells, len(shapes)),
        touched=_csr(*touching, cells, len(shapes)),
        inside=inside,
        area_m2=area,
    )


def _within(bounds: Floats, extent: Any) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = (
        (bounds[:, 0] >= extent.left)
        & (bounds[:, 1] >= extent.bottom)
        & (bounds[:, 2] <= extent.right)
        & (bounds[:, 3] <= extent.top)
    )
    return inside


def _csr(
    unit: NDArray[np.int64],
    cell: NDArray[np.int64],
    part: Floats,
    cells: NDArray[np.int64],
    count: int,
) -> csr_matrix:
    """Return a CSR matrix whose rows list cells in ascending order, so that sums never vary."""
    from scipy.sparse import csr_matrix

    matrix = csr_matrix((part, (unit, np.searchsorted(cells, cell))), shape=(count, cells.size))
    matrix.sort_indices()
    return matrix


def _exact_parts(
    shapes: NDArray[np.object_], box: GeoBox
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Return (unit, cell, part of the cell) by exact area, as three long arrays."""
    import geopandas as gpd
    from exactextract import exact_extract
    from exactextract.raster import NumPyRasterSource

    extent = box.boundingbox
    # one byte seen as a whole raster: only the cells' places are needed
    blank = np.broadcast_to(np.zeros((1, 1), np.uint8), box.shape)
    layer = gpd.GeoDataFrame(geometry=shapes, crs=box.crs.to_wkt() if box.crs else None)
    grid = NumPyRasterSource(
        blank,
        xmin=extent.left,
        ymin=extent.bottom,
        xmax=extent.right,
        ymax=extent.top,
        srs_wkt=layer.crs.to_wkt(),
    )
    found = exact_extract(grid, layer, ["cell_id", "coverage"], output="pandas")
    counts = found["cell_id"].map(len).to_numpy(dtype=np.int64)
    if not counts.sum():
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    unit = np.repeat(np.arange(len(shapes)), counts)
    cell = np.concatenate(found["cell_id"].to_list()).astype(np.int64)
    part = np.concatenate(found["coverage"].to_list()).astype(np.float64)
    keep = part > 0
    return unit[keep], cell[keep], part[keep]


def _centre_cells(
    shapes: NDArray[np.object_], box: GeoBox, order: NDArray[np.intp]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (unit, cell) for every cell whose centre lies in a unit."""
    import shapely
    from rasterio.features import rasterize

    height, width = box.shape
    resolution, left, top = box.transform.a, box.transform.c, box.transform.f
    bounds = shapely.bounds(shapes)
    # window of whole cells around all units, within the raster
    col0 = int(np.clip(np.floor((np.nanmin(bounds[:, 0]) - left) / resolution), 0, width))
    col1 = int(np.clip(np.ceil((np.nanmax(bounds[:, 2]) - left) / resolution), 0, width))
    row0 = int(np.clip(np.floor((top - np.nanmax(bounds[:, 3])) / resolution), 0, height))
    row1 = int(np.clip(np.ceil((top - np.nanmin(bounds[:, 1])) / resolution), 0, height))
    if col1 <= col0 or row1 <= row0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    rows = max(1, _BURN_CELLS // (col1 - col0))
    owners, numbers = [], []
    for first in range(row0, row1, rows):
        last = min(first + rows, row1)
        upper, lower = top - first * resolution, top - last * resolution
        chosen = order[(bounds[order, 1] < upper) & (bounds[order, 3] > lower)]
        if not chosen.size:
            continue
        window = box[first:last, col0:col1]
        burnt = rasterize(
            zip(shapes[chosen], (chosen + 1).tolist(), strict=True),
            out_shape=window.shape,
            transform=window.transform,
            fill=0,
            dtype="int32",
        )
        row, col = np.nonzero(burnt)
        owners.append(burnt[row, col].astype(np.int64) - 1)
        numbers.append((row + first).astype(np.int64) * width + col + col0)
    if not owners:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    return np.concatenate(owners), np.concatenate(numbers)


# --- sums -------------------------------------------------------------------------


@dataclass(frozen=True)
class UnitSums:
    """People and area of each unit by cell class.

    Attributes
    ----------
    codes
        Class codes, most urban first, water last.
    people
        (units, codes), people in each class.
    area
        (units, codes), km² of cells with data in each class.
    population
        (units,), people in all cells of the unit, those without a class included.
    decisive
        (units, codes), what the class is decided on: people, or people of
        touched cells, or km² of land where there is nobody.
    basis
        (units,), ``population``, ``touched``, ``area`` or ``none``.
    data_km2
        (units,), km² of the unit's cells with data.
    """

    codes: tuple[int, ...]
    people: Floats
    area: Floats
    population: Floats
    decisive: Floats
    basis: NDArray[np.object_]
    data_km2: Floats


def unit_sums(
    cover: Coverage, classes: NDArray[Any], people: NDArray[Any], *, level: int
) -> UnitSums:
    """Sum people and area of units by cell class.

    Parameters
    ----------
    cover
        The overlay.
    classes
        Class codes at ``cover.cells``; 255 where there is no data.
    people
        People at ``cover.cells``; NaN where missing.
    level
        1 or 2.

    Raises
    ------
    InputError
        When the classes are not those of the level.
    """
    codes = level_codes(level)
    column = np.full(256, -1, np.int8)
    column[list(codes)] = np.arange(len(codes))
    column[CLASS_NODATA] = len(codes)
    found = column[classes]
    if (found < 0).any():
        strange = sorted({int(v) for v in classes[found < 0]})
        other = 2 if level == 1 else 1
        fits = set(strange) <= set(level_codes(other))
        raise InputError(
            f"cells hold the classes {some(strange)}",
            f"those of level {level}: {', '.join(map(str, codes))}, and {CLASS_NODATA}",
            f"pass --level {other} (level={other})" if fits else "use the output of `qala cells`",
        )
    known = np.isfinite(people)
    counted = np.where(known, people, 0.0).astype(np.float64)
    km2 = cell_area_m2(cover.box) / 1e6
    data = known & (found < len(codes))
    by_people = _by_class(cover.parts, counted, found, len(codes) + 1)
    near_people = _by_class(cover.touched, counted, found, len(codes) + 1)[:, :-1]
    extents = data * km2
    area = _by_class(cover.parts, extents, found, len(codes) + 1)[:, :-1]
    near_area = _by_class(cover.touched, extents, found, len(codes) + 1)[:, :-1]
    unclassed = float(counted[found == len(codes)].sum())
    if unclassed > 0:
        log.warning("%.0f people of the units stand in cells without a class", unclassed)

    touched = np.diff(cover.touched.indptr) > 0
    decisive = np.where(touched[:, None], near_people, by_people[:, :-1])
    extent = np.where(touched[:, None], near_area, area)
    nobody = decisive.sum(axis=1) <= 0
    # the manual shares out land: an uninhabited lake is no town
    land = extent.copy()
    land[:, -1] = 0.0
    decisive = np.where(nobody[:, None], land, decisive)
    basis = np.where(touched, "touched", "population").astype(object)
    basis[nobody] = "area"
    basis[nobody & (extent.sum(axis=1) <= 0)] = "none"
    return UnitSums(
        codes=codes,
        people=by_people[:, :-1],
        area=area,
        population=by_people.sum(axis=1),
        decisive=decisive,
        basis=basis,
        data_km2=extent.sum(axis=1),
    )


def _by_class(parts: csr_matrix, values: Floats, column: NDArray[Any], count: int) -> Floats:
    """Return units × classes sums of cell values."""
    from qala import _kernels

    sums: Floats = _kernels.sum_by_class(
        parts.indptr, parts.indices, parts.data, values, column, count
    )
    return sums


# --- rules ------------------------------------------------------------------------


def _shares(values: Floats) -> Floats:
    """Return each row divided by its sum; NaN where that is 0."""
    total = values.sum(axis=1, keepdims=True)
    shares: Floats = np.divide(values, total, out=np.full_like(values, np.nan), where=total > 0)
    return shares


def level1_class(centre: Any, rural: Any) -> NDArray[np.int16]:
    """Return the level-1 class of units from two shares.

    City (3): at least half in urban centres. Town or semi-dense area (2):
    otherwise, and at most half in rural cells. Rural area (1): the rest.

    Source: Eurostat et al. (2021), doi:10.2785/706535, section 7.2.

    Examples
    --------
    >>> level1_class([0.5, 0.4, 0.1], [0.5, 0.5, 0.6]).tolist()
    [3, 2, 1]
    """
    centre, rural = np.asarray(centre), np.asarray(rural)
    return np.select([centre >= 0.5, rural <= 0.5], [3, 2], 1).astype(np.int16)


def level2_class(shares: Any, *, rules: UnitRules = "2024") -> NDArray[np.int16]:
    """Return the level-2 class of units from their shares by cell class.

    Parameters
    ----------
    shares
        (units, 8): shares of 30, 23, 22, 21, 13, 12, 11, 10.
    rules
        ``2024``: dense town (23) if centres and dense clusters hold at least
        half; semi-dense town (22) if that is below half and suburban and rural
        cells hold less than half; else suburban (21). Village (13) if centres,
        clusters and rural clusters hold at least half; mostly uninhabited (11)
        if very low density cells do; else dispersed (12).
        ``2021``: suburban (21) if dense and semi-dense hold no more than
        suburban cells; else dense (23) or semi-dense (22), by the larger; rural
        by the largest of 13, 12, 11. Ties go to the more urban class.

    Notes
    -----
    Sources: Eurostat et al. (2021), doi:10.2785/706535; for ``2024``, the
    manual's revision of July 2024 (Eurostat, Statistics Explained).

    Examples
    --------
    >>> level2_class([[0, 0.3, 0.3, 0.2, 0.2, 0, 0, 0]], rules="2024").tolist()
    [22]
    >>> level2_class([[0, 0.3, 0.3, 0.2, 0.2, 0, 0, 0]], rules="2021").tolist()
    [23]
    """
    if rules not in UNIT_RULES:
        raise InputError(f"rules is {rules!r}", "2021 or 2024")
    shares = np.asarray(shares, dtype=np.float64)
    centre, dense, semi, suburban, cluster, low, very_low = shares.T[:7]
    rural = cluster + low + very_low
    urban_clusters = dense + semi + suburban
    level1 = level1_class(centre, rural)
    if rules == "2024":
        town = np.select([centre + dense >= 0.5, suburban + rural < 0.5], [23, 22], 21)
        village = np.select(
            [cluster + centre + urban_clusters >= 0.5, very_low >= 0.5], [13, 11], 12
        )
    else:
        town = np.select([dense + semi <= suburban, dense >= semi], [21, 23], 22)
        village = np.select(
            [(cluster >= low) & (cluster >= very_low), low >= very_low], [13, 12], 11
        )
    return np.select([level1 == 3, level1 == 2], [30, town], village).astype(np.int16)


def classes_of(sums: UnitSums, *, rules: UnitRules = "2024") -> dict[str, Any]:
    """Return the classes of units: ``degurba_l1`` and, at level 2, ``degurba_l2``.

    Integers; nullable ones, with a missing class, where a unit has no data.
    """
    import pandas as pd

    shares = _shares(sums.decisive)
    level2 = len(sums.codes) == 8
    # land shares of nothing but water: nobody lives there, so the least urban class
    watery = (sums.basis == "area") & ~(sums.decisive.sum(axis=1) > 0)
    shares[watery] = 0.0
    shares[watery, -2] = 1.0
    rural = shares[:, 4] + shares[:, 5] + shares[:, 6] if level2 else shares[:, 2]
    found = {"degurba_l1": level1_class(shares[:, 0], rural)}
    if level2:
        found["degurba_l2"] = level2_class(shares, rules=rules)
    unknown = sums.basis == "none"
    if not unknown.any():
        return dict(found)
    return {name: pd.arrays.IntegerArray(code, unknown) for name, code in found.items()}


def classify_units(
    cells: xr.DataArray,
    population: xr.DataArray,
    units: gpd.GeoDataFrame,
    *,
    id: str,
    level: int = 1,
    rules: UnitRules = "2024",
    overlay: Overlay = "exact",
    cover: Coverage | None = None,
) -> gpd.GeoDataFrame:
    """Classify territorial units by the cells their people live in.

    Parameters
    ----------
    cells
        dims (y, x), uint8; cell classes of the same level, 255 without data;
        from :func:`qala.classify_cells`.
    population
        dims (y, x), people per cell on the same grid, NaN where missing.
    units
        Polygons in any declared CRS, sound ones (:func:`qala.read_units`).
    id
        Column of unit ids.
    level
        1 or 2.
    rules
        Level-2 rules of ``2024`` or ``2021``; see :func:`level2_class`.
    overlay
        Cells cut by a border: ``exact`` by area, or ``centres``.
    cover
        An overlay of the same units made by :func:`coverage`, to save time.

    Returns
    -------
    geopandas.GeoDataFrame
        The units in their own CRS and order, with these columns added:

        ``population``
            People; missing for a unit without a cell centre (``centres``), so
            that nobody counts twice.
        ``population_30`` … ``population_10`` or ``population_3`` … ``population_0``
            People by cell class.
        ``share_30`` …
            Their shares of ``population``; NaN where nobody lives.
        ``degurba_l1``
            3 city, 2 town or semi-dense area, 1 rural area.
        ``degurba_l2``
            At level 2: 30, 23, 22, 21, 13, 12, 11.
        ``basis``
            What decided: ``population``; ``touched`` (people of the cells
            touched, where a unit holds no cell centre); ``area`` (land by cell
            class, water left out, where nobody lives); ``none`` (no data: the
            classes are missing).
        ``coverage``
            Share of the unit's area inside the raster with data, 0 to 1.

    Raises
    ------
    InputError
        When rasters differ in grid, classes are of another level, or units lie
        wholly outside the raster.

    Notes
    -----
    Source: Eurostat et al. (2021), doi:10.2785/706535, and its revision of July
    2024. Water cells count in a unit's people but in no share that decides.
    """
    _check_choices(level, rules, overlay)
    if cover is None:
        cover = coverage(units, geobox_of(population), id=id, overlay=overlay)
    require_some_inside(cover)
    classes, people = cover.take(cells, population)
    sums = unit_sums(cover, classes, people, level=level)
    covered = covered_share(cover, sums)
    tell_exceptions(cover, sums, covered)
    return _with_columns(units, _columns(cover, sums, covered, rules))


def _check_choices(level: int, rules: str, overlay: str) -> None:
    problems = Problems("units")
    if level not in (1, 2):
        problems.add(f"level is {level!r}", "1 or 2")
    if rules not in UNIT_RULES:
        problems.add(f"rules is {rules!r}", "2021 or 2024")
    if overlay not in OVERLAYS:
        problems.add(f"overlay is {overlay!r}", "exact or centres")
    problems.raise_if_any()


def require_some_inside(cover: Coverage) -> None:
    """Refuse units that lie wholly outside the raster.

    Raises
    ------
    InputError
        Naming them.
    """
    outside = cover.inside <= 0
    if not outside.any():
        return
    extent = cover.box.boundingbox
    every = bool(outside.all())
    raise InputError(
        f"{int(outside.sum())} of {len(cover.ids)} units lie wholly outside the raster: "
        f"{some(cover.ids[outside])}",
        f"units within x {extent.left:.0f} to {extent.right:.0f}, y {extent.bottom:.0f} to "
        f"{extent.top:.0f} ({describe_crs(cover.box.crs)})",
        "check the CRS of the units, or name rasters of this region"
        if every
        else "add the raster tiles that cover them, or take these units out",
    )


def covered_share(cover: Coverage, sums: UnitSums) -> Floats:
    """Return the share of each unit's area inside the raster with data.

    By area for the exact overlay; by cells for centres, times the share inside
    the raster.
    """
    if cover.overlay == "exact":
        share = sums.data_km2 * 1e6 / cover.area_m2
    else:
        km2 = cell_area_m2(cover.box) / 1e6
        cells = np.diff(cover.parts.indptr) + np.diff(cover.touched.indptr)
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.nan_to_num(sums.data_km2 / (cells * km2)) * cover.inside
    # areas from two libraries agree to about 1e-7
    return np.where(share > 1 - 1e-6, 1.0, share)


def tell_exceptions(cover: Coverage, sums: UnitSums, covered: Floats) -> None:
    """Log which units were treated by an exception, with their number."""
    partly = (covered < 1) & (sums.basis != "none")
    if partly.any():
        order = np.flatnonzero(partly)[np.argsort(covered[partly], kind="stable")]
        told = [f"{cover.ids[k]} ({100 * covered[k]:.3g} %)" for k in order]
        log.warning(
            "%d units lie partly outside the raster or its data; share inside: %s",
            len(told),
            some(told),
        )
    for basis, text in (
        ("touched", "hold no cell centre and are classified by the cells they touch"),
        ("area", "have no people and are classified by area"),
        ("none", "have no data in the raster and no class"),
    ):
        which = sums.basis == basis
        if which.any():
            log.warning("%d units %s: %s", int(which.sum()), text, some(cover.ids[which]))


def _columns(cover: Coverage, sums: UnitSums, covered: Floats, rules: UnitRules) -> dict[str, Any]:
    uncounted = (np.diff(cover.touched.indptr) > 0) | (sums.basis == "none")
    population = np.where(uncounted, np.nan, sums.population)
    people = np.where(uncounted[:, None], np.nan, sums.people)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(population[:, None] > 0, people / population[:, None], np.nan)
    return {
        "population": population,
        **{f"population_{c}": people[:, k] for k, c in enumerate(sums.codes)},
        **{f"share_{c}": shares[:, k] for k, c in enumerate(sums.codes)},
        **classes_of(sums, rules=rules),
        "basis": sums.basis,
        "coverage": covered,
    }


def _with_columns(units: gpd.GeoDataFrame, columns: dict[str, Any]) -> gpd.GeoDataFrame:
    """Return units with columns added before the geometry, older ones of the same name replaced."""
    import pandas as pd

    geometry = units.geometry.name
    taken: Sequence[str] = [c for c in columns if c in units.columns]
    if taken:
        log.warning("columns of the units replaced by results: %s", some(taken))
    given = units.drop(columns=[*taken, geometry])
    table = pd.concat([given, pd.DataFrame(columns, index=units.index)], axis=1)
    return units[[geometry]].join(table)[[*table.columns, geometry]]
