"""Rasters: lazy reading and cloud-optimised writing on one grid.

Missing values become NaN here and nowhere else. What a raster measures (people
per cell, m² or share of a cell) is read from its metadata, or asked for.
"""

from __future__ import annotations

import glob
import logging
import os
import platform
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from qala.errors import InputError, Problems, storage_error
from qala.grid import (
    GHSL_CRS,
    GHSL_ORIGIN,
    cell_area_m2,
    describe_crs,
    geobox_of,
    require_equal_area,
    require_same_grid,
    same_crs,
)

if TYPE_CHECKING:
    import rasterio
    import xarray as xr

log = logging.getLogger("qala")

Quantity = Literal["population", "built", "land", "cells"]
Unit = Literal["people", "m2", "share", "percent", "class"]
QUANTITIES: tuple[Quantity, ...] = ("population", "built", "land", "cells")

#: GDAL's block cache while strips are read once each; its default of 5 % of
#: the memory would hold blocks that are never asked for again
BLOCK_CACHE_MB = 96
#: bytes of decoded strips that one worker may hold
STRIP_BYTES = 96 * 2**20
#: no cell holds so many people; undeclared missing values such as 4294967295 or 3.4e38 do
MAX_PEOPLE_PER_CELL = 1e8
#: above this many cells overviews of classes take the nearest cell instead of the
#: majority, and ZSTD replaces DEFLATE: both else take longer than the classification
LARGE_CELLS = 50_000_000
#: cells looked at to tell the unit of a built-up or land raster whose metadata does not
SAMPLE_CELLS = 4_000_000
#: nodata of cell classes and of other uint8 outputs
CLASS_NODATA = 255

_UNIT_WORDS: dict[str, Unit] = {
    "m2": "m2",
    "m²": "m2",
    "m^2": "m2",
    "square metres": "m2",
    "square meters": "m2",
    "share": "share",
    "fraction": "share",
    "proportion": "share",
    "1": "share",
    "%": "percent",
    "percent": "percent",
}


@dataclass(frozen=True)
class RasterInfo:
    """What a raster file says of itself.

    Attributes
    ----------
    path
        The file.
    geobox
        Its grid.
    dtype
        Data type of band 1.
    nodata
        Declared missing value, or None.
    unit
        What the values are, or None where the metadata does not tell.
    block_rows
        Height of a block; strips are read in multiples of it.
    tags
        File and band tags.
    """

    path: Path
    geobox: GeoBox
    dtype: np.dtype[Any]
    nodata: float | None
    unit: Unit | None
    block_rows: int
    tags: dict[str, str]


@contextmanager
def _gdal() -> Iterator[None]:
    import rasterio

    with rasterio.Env(GDAL_CACHEMAX=BLOCK_CACHE_MB):
        yield


def _open(path: str | Path) -> rasterio.DatasetReader:
    """Open a raster or say why it can't be opened."""
    import rasterio
    from rasterio.errors import RasterioIOError

    text = os.fspath(path)
    if not text.startswith(("/vsi", "<VRTDataset")) and "://" not in text:
        file = Path(text)
        if not file.exists():
            raise InputError(f"{text} does not exist", "a raster file", "check the path")
        if file.is_dir():
            raise InputError(f"{text} is a folder", "a raster file", "name the file in it")
        if file.stat().st_size == 0:
            raise InputError(f"{text} is empty (0 bytes)", "a raster file", "fetch it again")
    try:
        return rasterio.open(text)
    except RasterioIOError as error:
        raise InputError(
            f"{text} cannot be read as a raster ({error})",
            "a GeoTIFF or another format GDAL reads",
            "fetch or export it again; it may be truncated or of another kind",
        ) from error


def _unit_from_metadata(
    source: rasterio.DatasetReader, quantity: Quantity | None, path: Path
) -> Unit | None:
    if quantity == "population":
        return "people"
    if quantity == "cells":
        return "class"
    words = [source.units[0] or ""]
    tags = {**source.tags(), **source.tags(1)}
    words += [v for k, v in tags.items() if k.lower() in {"unit", "units", "unittype"}]
    for word in words:
        unit = _UNIT_WORDS.get(word.strip().lower())
        if unit:
            return unit
    # GHSL names its products in file and band: GHS_BUILT_S_… and GHS_LAND_… count m² per cell
    named = re.search(r"GHS_(BUILT_S|LAND)_", path.name) or source.descriptions[0] in (
        "BUILT_S",
        "LAND",
    )
    if named and np.issubdtype(np.dtype(source.dtypes[0]), np.integer):
        return "m2"
    return None


def unit_of_values(high: float, *, fractional: bool, cell_area: float) -> Unit | None:
    """Tell m² from shares by the values themselves, where no other reading is possible.

    A share ends at 1 and a percentage at 100, so that more can only be m²
    (or an undeclared missing value, which the classification refuses). Values
    up to 1 with fractions among them are shares. Between 1 and 100 percent and
    m² cannot be told apart, nor can zeros and ones alone.

    Parameters
    ----------
    high
        Largest value seen.
    fractional
        Whether a value strictly between 0 and 1 was seen.
    cell_area
        Area of a cell, m²; m² needs cells of more than 100 m².

    Examples
    --------
    >>> unit_of_values(1e6, fractional=False, cell_area=1e6)
    'm2'
    >>> unit_of_values(0.93, fractional=True, cell_area=1e6)
    'share'
    >>> unit_of_values(51.1, fractional=True, cell_area=1e6) is None
    True
    """
    if high > 100 and cell_area > 100:
        return "m2"
    if high <= 1 and fractional:
        return "share"
    return None


def _unit_from_values(source: str | Path, info: RasterInfo, nodata: float | None) -> Unit | None:
    """Look at blocks all over a raster until its unit is plain, or enough was seen.

    What is concluded from a part is verified when the whole is scanned: shares
    that turn out to exceed 1 are refused there.
    """
    from rasterio.errors import RasterioError

    area = cell_area_m2(info.geobox)
    # a byte cannot hold m² of a cell of 1 km², and 255 is often an undeclared missing value
    if info.dtype.kind not in "iuf" or info.dtype.itemsize == 1:
        return None
    high, fractional, seen = -np.inf, False, 0
    with _gdal(), _open(source) as reader:
        windows = [window for _, window in reader.block_windows(1)]
        for k in _spread(len(windows)):
            try:
                part = reader.read(1, window=windows[k])
            except RasterioError:
                # told with its rows where the whole is read
                log.debug("%s: block %d cannot be read", source, k)
                return None
            seen += part.size
            valid = ~np.isnan(part) if part.dtype.kind == "f" else np.ones(part.shape, bool)
            if nodata is not None:
                valid &= part != nodata
            values = part[valid]
            if values.size:
                high = max(high, float(values.max()))
                fractional |= bool(((values > 0) & (values < 1)).any())
            if unit_of_values(high, fractional=False, cell_area=area) or seen >= SAMPLE_CELLS:
                break
    unit = unit_of_values(high, fractional=fractional, cell_area=area)
    if unit is None and seen >= info.geobox.shape[0] * info.geobox.shape[1] and high == 0:
        # nothing at all: every unit means the same
        unit = "share"
    if unit is not None:
        log.info("%s: values up to %g are taken as %s", Path(info.path).name, high, unit)
    return unit


def _spread(count: int) -> Iterator[int]:
    """Yield 0 … count-1, far apart first, so that a few stand for the whole.

    Examples
    --------
    >>> list(_spread(5))
    [4, 2, 1, 3, 0]
    """
    step = 1 << max(count - 1, 0).bit_length()
    given: set[int] = set()
    while step >= 1:
        for k in range(step // 2, count, step):
            if k not in given:
                given.add(k)
                yield k
        step //= 2
    if count and 0 not in given:
        yield 0


@cache
def _crs(wkt: str) -> CRS:
    """Return one CRS for all files that declare it: looking up its code takes a while."""
    return CRS(wkt)


def inspect(path: str | Path, quantity: Quantity | None = None) -> RasterInfo:
    """Read what a raster file says of itself, without its values.

    Parameters
    ----------
    path
        Raster file.
    quantity
        What it is meant to hold; helps to tell the unit.

    Raises
    ------
    InputError
        When the file cannot be read or holds more than one band.
    """
    file = Path(path)
    with _open(path) as source:
        if source.count != 1:
            raise InputError(
                f"{path} has {source.count} bands", "one band", "extract it: gdal_translate -b 1"
            )
        crs = source.crs
        box = GeoBox(source.shape, source.transform, _crs(crs.to_wkt()) if crs else None)
        return RasterInfo(
            path=file,
            geobox=box,
            dtype=np.dtype(source.dtypes[0]),
            nodata=source.nodata,
            unit=_unit_from_metadata(source, quantity, file),
            block_rows=int(source.block_shapes[0][0]),
            tags={**source.tags(), **source.tags(1)},
        )


def strip_rows(
    width: int, height: int, block_rows: int, itemsize: int, *, chunk: int | None = None
) -> int:
    """Choose how many rows a strip has: whole blocks within the memory bound.

    Parameters
    ----------
    width, height
        Size of the raster in cells.
    block_rows
        Height of the file's blocks.
    itemsize
        Bytes per cell of everything read together.
    chunk
        Rows asked for by the user; wins over the bound.
    """
    if chunk is not None:
        if chunk < 1:
            raise InputError(f"chunk is {chunk}", "a number of rows of at least 1")
        return min(chunk, height)
    rows = max(1, STRIP_BYTES // max(1, width * itemsize))
    blocks = max(1, rows // block_rows) if block_rows < height else 1
    return int(min(height, max(blocks * block_rows, 1)))


def _float_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the smallest float type that holds every value of a type GHSL uses."""
    if dtype in (np.dtype("float32"), np.dtype("float64")):
        return dtype
    # counts of m² per cell reach 1e6 (1 km): exact in float32, which holds integers to 1.6e7
    return np.dtype("float32") if dtype.itemsize <= 4 else np.dtype("float64")


def _read_strip(
    path: str, start: int, stop: int, nodata: float | None, dtype: str, keep: bool
) -> np.ndarray[Any, Any]:
    """Read rows of a raster through a handle of its own, missing values as NaN."""
    from rasterio.errors import RasterioError
    from rasterio.windows import Window

    with _gdal(), _open(path) as source:
        try:
            values = source.read(1, window=Window(0, start, source.width, stop - start))
        except RasterioError as error:
            raise InputError(
                f"{path} breaks off in rows {start} to {stop} ({error})",
                "a complete file",
                "fetch or export it again",
            ) from error
    if keep:
        return cast("np.ndarray[Any, Any]", values)
    from qala._kernels import missing_to_nan

    return missing_to_nan(values, nodata, np.dtype(dtype))


def open_raster(
    path: str | Path | Sequence[str | Path],
    quantity: Quantity = "population",
    *,
    nodata: float | None = None,
    unit: Unit | None = None,
    chunk: int | None = None,
) -> xr.DataArray:
    """Open a raster lazily on its grid, one strip of rows a chunk.

    Parameters
    ----------
    path
        A file, or several tiles of one grid, which are joined.
    quantity
        What it holds: ``population`` (people per cell), ``built`` or ``land``
        (m², share or percent of a cell), ``cells`` (classes).
    nodata
        Missing value, where the file does not declare it.
    unit
        Unit of ``built`` and ``land``, where the file does not tell.
    chunk
        Rows per chunk; default: whole blocks within a memory bound.

    Returns
    -------
    xarray.DataArray
        dims (y, x), dask-backed, float with NaN where missing (uint8 for
        ``cells``); ``attrs["units"]`` is one of people, m2, share, percent, class.

    Raises
    ------
    InputError
        When a file cannot be read, has no CRS or several bands, or tiles do
        not fit one grid.
    """
    import dask.array
    import xarray as xr
    from dask.base import tokenize
    from odc.geo.xr import xr_coords

    paths = [path] if isinstance(path, str | os.PathLike) else list(path)
    if not paths:
        raise InputError("no raster was named", "at least one file")
    source: str | Path = paths[0]
    tiles = [inspect(p, quantity) for p in paths]
    info = tiles[0]
    if len(paths) > 1:
        source = _join_tiles(tiles)
        info = replace(inspect(source, quantity), path=tiles[0].path, unit=tiles[0].unit)
    box = info.geobox
    if box.crs is None or box.crs.geographic:
        require_equal_area(box, Path(paths[0]).name)
    keep = quantity == "cells"
    if keep and info.dtype != np.dtype("uint8"):
        raise InputError(
            f"{source} holds {info.dtype} values",
            "a class raster of uint8 as `qala cells` writes it",
            "name the output of `qala cells`",
        )
    if info.dtype.kind not in "iuf":
        raise InputError(
            f"{source} holds {info.dtype} values", "whole or floating-point numbers",
            "export the band of interest: gdal_translate -ot Float32",
        )  # fmt: skip
    dtype = info.dtype if keep else _float_type(info.dtype)
    missing = info.nodata if nodata is None else nodata
    height, width = box.shape
    rows = strip_rows(
        width, height, info.block_rows, info.dtype.itemsize + dtype.itemsize, chunk=chunk
    )
    starts = range(0, height, rows)
    stamp = [os.stat(p).st_mtime_ns for p in paths if os.path.exists(p)]
    name = "read-" + tokenize([os.fspath(p) for p in paths], stamp, rows, missing, str(dtype))
    import dask

    read = dask.delayed(_read_strip, pure=True)
    blocks = [
        dask.array.from_delayed(
            read(
                os.fspath(source),
                start,
                min(start + rows, height),
                missing,
                dtype.str,
                keep,
                dask_key_name=(f"{name}-{start}"),
            ),
            shape=(min(start + rows, height) - start, width),
            dtype=dtype,
        )
        for start in starts
    ]
    data = dask.array.concatenate(blocks, axis=0)
    found_unit = unit or info.unit
    if found_unit is None and quantity in ("built", "land"):
        found_unit = _unit_from_values(source, info, missing)
    attrs: dict[str, Any] = {"source": ", ".join(os.fspath(p) for p in paths)}
    if found_unit:
        attrs["units"] = found_unit
    if missing is not None or info.dtype.kind != "f":
        attrs["nodata_declared"] = True
    return xr.DataArray(data, coords=xr_coords(box), dims=("y", "x"), name=quantity, attrs=attrs)


def _join_tiles(infos: Sequence[RasterInfo]) -> str:
    """Describe tiles of one grid as a virtual raster in memory and return its name."""
    problems = Problems("tiles")
    first = infos[0]
    for info in infos:
        if info.geobox.crs is None:
            require_equal_area(info.geobox, info.path.name)
    for info in infos[1:]:
        a, b = first.geobox.transform, info.geobox.transform
        if not same_crs(info.geobox.crs, first.geobox.crs):
            problems.add(
                f"{info.path.name} has another CRS than {first.path.name}",
                "one CRS",
                f"reproject it to {describe_crs(first.geobox.crs.proj)}",
            )
        elif not _aligned(a, b):
            problems.add(
                f"{info.path.name} is not aligned with {first.path.name}",
                "tiles of one grid",
                "fetch the tiles of one product",
            )
        if info.unit != first.unit:
            problems.add(
                f"{info.path.name} is in {info.unit or 'an unknown unit'}",
                f"{first.unit or 'no declared unit'} as {first.path.name}",
                "fetch the tiles of one product",
            )
        if info.dtype != first.dtype or repr(info.nodata) != repr(first.nodata):
            problems.add(
                f"{info.path.name} is {info.dtype} with nodata {info.nodata}",
                f"{first.dtype} with nodata {first.nodata} as {first.path.name}",
                "fetch the tiles of one product",
            )
    _refuse_overlaps(infos, problems)
    problems.raise_if_any()
    boxes = [i.geobox.boundingbox for i in infos]
    left, top = min(b.left for b in boxes), max(b.top for b in boxes)
    right, bottom = max(b.right for b in boxes), min(b.bottom for b in boxes)
    size = first.geobox.transform.a
    width, height = round((right - left) / size), round((top - bottom) / size)
    gdal_type = {
        "float32": "Float32", "float64": "Float64", "uint8": "Byte", "uint16": "UInt16",
        "int16": "Int16", "uint32": "UInt32", "int32": "Int32", "int8": "Int8",
        "uint64": "UInt64", "int64": "Int64",
    }[first.dtype.name]  # fmt: skip
    nodata = first.nodata
    fill = "" if nodata is None else f"<NoDataValue>{nodata!r}</NoDataValue>"
    sources = []
    for info, box in zip(infos, boxes, strict=True):
        h, w = info.geobox.shape
        x, y = round((box.left - left) / size), round((top - box.top) / size)
        tag = "SimpleSource" if nodata is None else "ComplexSource"
        extra = "" if nodata is None else f"<NODATA>{nodata!r}</NODATA>"
        sources.append(
            f'<{tag}><SourceFilename relativeToVRT="0">{_xml(info.path.resolve())}'
            f"</SourceFilename><SourceBand>1</SourceBand>"
            f'<SrcRect xOff="0" yOff="0" xSize="{w}" ySize="{h}"/>'
            f'<DstRect xOff="{x}" yOff="{y}" xSize="{w}" ySize="{h}"/>{extra}</{tag}>'
        )
    crs = first.geobox.crs
    return (
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">'
        f"<SRS>{_xml(crs.to_wkt() if crs else '')}</SRS>"
        f"<GeoTransform>{left}, {size}, 0, {top}, 0, {-size}</GeoTransform>"
        f'<VRTRasterBand dataType="{gdal_type}" band="1">{fill}{"".join(sources)}'
        "</VRTRasterBand></VRTDataset>"
    )


def _aligned(a: Any, b: Any) -> bool:
    """Tell whether two north-up transforms share cell size and cell corners."""
    if abs(a.a - b.a) > 1e-6 or abs(a.e - b.e) > 1e-6:
        return False
    steps = ((a.c - b.c) / a.a, (a.f - b.f) / a.e)
    return all(abs(s - round(s)) < 1e-3 for s in steps)


def _refuse_overlaps(infos: Sequence[RasterInfo], problems: Problems) -> None:
    """Note tiles that claim the same cells: one of them would hide the other."""
    import shapely

    boxes = shapely.box(*np.array([i.geobox.boundingbox.bbox for i in infos]).T)
    # a hundredth of a cell is rounding of the corners
    inner = shapely.buffer(boxes, -0.01 * abs(infos[0].geobox.transform.a), join_style="mitre")
    first, second = shapely.STRtree(inner).query(inner, predicate="intersects")
    for a, b in zip(first[first < second], second[first < second], strict=True):
        problems.add(
            f"{infos[b].path.name} overlaps {infos[a].path.name}",
            "tiles beside each other",
            "name each tile once; several epochs are given as 2015=FILE 2020=FILE",
        )


def _xml(text: object) -> str:
    from xml.sax.saxutils import escape

    return escape(str(text))


def require_population(population: xr.DataArray) -> GeoBox:
    """Return the population's grid after the checks every flow needs.

    Raises
    ------
    InputError
        When the CRS is missing or not equal-area, or cells are not square.
    """
    box = geobox_of(population)
    require_equal_area(box, str(population.attrs.get("source", population.name or "population")))
    return box


def require_on_grid(population: xr.DataArray, **others: xr.DataArray | None) -> None:
    """Refuse rasters that do not share the population's grid, all at once."""
    box = geobox_of(population)
    problems = Problems("rasters")
    for name, raster in others.items():
        if raster is None:
            continue
        try:
            require_same_grid(box, geobox_of(raster), name)
        except InputError as error:
            problems.add_error(error)
    problems.raise_if_any()


def to_share(raster: xr.DataArray, *, cell_area: float | None = None) -> float:
    """Return the factor that turns a raster's values into shares of a cell.

    Raises
    ------
    InputError
        When the unit is not known.
    """
    area = cell_area_m2(geobox_of(raster)) if cell_area is None else cell_area
    factors = {"m2": 1.0 / area, "share": 1.0, "percent": 0.01}
    unit = raster.attrs.get("units")
    if unit not in factors:
        name = raster.name or "raster"
        raise InputError(
            f"{name} does not tell its unit, by neither its metadata nor its values",
            "m2, share or percent",
            f"pass --{name}-unit (m2, share or percent), {name}_unit in a workflow, or write it "
            "in the file with gdal_edit.py -units m2",
        )
    return factors[unit]


def aggregate(raster: xr.DataArray, factor: int) -> xr.DataArray:
    """Join blocks of factor × factor cells, for instance 100 m to 1 km.

    Counts and areas are summed; shares and percentages of a cell are averaged
    over the whole block, missing cells counting as none, which is the same.

    Parameters
    ----------
    raster
        dims (y, x); ``attrs["units"]`` tells shares and percentages apart.
    factor
        Cells to join along each side. Rows and columns that do not fill a block
        at an edge are joined as they are. Blocks start at the upper left corner;
        on GHSL's own lattice they start where GHSL's larger cells do, so that a
        clip fits the other products.

    Returns
    -------
    xarray.DataArray
        dims (y, x), lazy; NaN where every cell of a block is missing.
    """
    import dask.array
    import xarray as xr
    from odc.geo.xr import xr_coords

    from qala._kernels import fold_columns

    if factor < 1:
        raise InputError(f"factor is {factor}", "a whole number of at least 1")
    box = geobox_of(raster)
    height, width = box.shape
    top, left = _lattice_offset(box, factor)
    rows, cols = -(-(top + height) // factor), -(-(left + width) // factor)
    data = raster.transpose("y", "x").data
    data = dask.array.asarray(data).rechunk({1: -1})
    # along the rows first: a tenth of the cells is left where strips do not end with a block
    across = data.map_blocks(
        fold_columns, factor, left, cols, dtype="float64", meta=np.empty((0, 0)),
        chunks=(data.chunks[0], (cols,)),
    )  # fmt: skip
    each = max(1, max(data.chunks[0]) // factor)
    counts = [min(each, rows - first) for first in range(0, rows, each)]
    ends = [min(height, (first + n) * factor - top) for first, n in
            zip(range(0, rows, each), counts, strict=True)]  # fmt: skip
    strips = tuple(int(n) for n in np.diff([0, *ends]))
    summed = across.rechunk((strips, -1)).map_blocks(
        _fold_strip, factor, top, dtype="float64", meta=np.empty((0, 0)),
        chunks=(tuple(counts), (cols,)),
    )  # fmt: skip
    if raster.attrs.get("units") in ("share", "percent"):
        summed = summed / factor**2
    t = box.transform
    corner = (t.c - left * t.a, t.f - top * t.e)
    target = GeoBox(
        (rows, cols), Affine(t.a * factor, t.b, corner[0], t.d, t.e * factor, corner[1]), box.crs
    )
    return xr.DataArray(
        summed, xr_coords(target), ("y", "x"), name=raster.name, attrs=dict(raster.attrs)
    )


def _fold_strip(
    values: np.ndarray[Any, Any], factor: int, top: int, block_id: tuple[int, int] = (0, 0)
) -> np.ndarray[Any, Any]:
    from qala._kernels import fold_rows

    # only the first strip may begin amid a block
    return cast("np.ndarray[Any, Any]", fold_rows(values, factor, top if block_id[0] == 0 else 0))


def _lattice_offset(box: GeoBox, factor: int) -> tuple[int, int]:
    """Return by how many cells a grid starts below and right of GHSL's larger cells."""
    t = box.transform
    x, y = (t.c - GHSL_ORIGIN[0]) / t.a, (t.f - GHSL_ORIGIN[1]) / t.e
    on_lattice = abs(x - round(x)) < 1e-3 and abs(y - round(y)) < 1e-3
    if not on_lattice or t.b or t.d or not same_crs(box.crs, GHSL_CRS):
        return 0, 0
    return round(y) % factor, round(x) % factor


@dataclass(frozen=True)
class RasterFile:
    """A raster to be written and how.

    Attributes
    ----------
    data
        dims (y, x); dask-backed data is computed strip by strip.
    path
        GeoTIFF to write.
    nodata
        Declared missing value; default NaN for floats, 255 for uint8, 0 else.
    tags
        Metadata of the file.
    colours
        Colour table of a uint8 raster: value to (red, green, blue).
    """

    data: xr.DataArray
    path: Path
    nodata: float | None = None
    tags: dict[str, str] | None = None
    colours: dict[int, tuple[int, int, int]] | None = None


def write_raster(
    data: xr.DataArray,
    path: str | Path,
    *,
    nodata: float | None = None,
    tags: dict[str, str] | None = None,
    colours: dict[int, tuple[int, int, int]] | None = None,
    cloud_optimised: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write one raster; see :func:`write_rasters`."""
    file = RasterFile(data, Path(path), nodata, tags, colours)
    return write_rasters([file], cloud_optimised=cloud_optimised, progress=progress)[0]


def write_rasters(
    files: Sequence[RasterFile],
    *,
    cloud_optimised: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write rasters strip by strip, all from one computation.

    Each file appears whole or not at all; work that several of them share is
    done once.

    Parameters
    ----------
    files
        What to write and where.
    cloud_optimised
        Order the files as cloud-optimised GeoTIFFs with overviews.
    progress
        Called with the number of strips done and in all.

    Returns
    -------
    list of pathlib.Path
        The files written.

    Raises
    ------
    InputError
        When a folder cannot be written to or is full.
    """
    with tidy_folders(f.path.parent for f in files):
        for file in files:
            require_writable(file.path)
            _remove_leftovers(file.path)
        _write_rasters(files, cloud_optimised, progress)
    return [f.path for f in files]


def _write_rasters(
    files: Sequence[RasterFile],
    cloud_optimised: bool,
    progress: Callable[[int, int], None] | None,
) -> None:
    from contextlib import ExitStack

    import dask
    import rasterio
    from rasterio._err import CPLE_BaseError

    token = f"{_node()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    works = [f.path.with_name(f".{f.path.name}.{token}.work.tif") for f in files]
    finals = [f.path.with_name(f".{f.path.name}.{token}.tif") for f in files]
    try:
        with _gdal(), ExitStack() as stack:
            sinks = []
            for file, work in zip(files, works, strict=True):
                profile = _profile(file, fast=cloud_optimised)
                sink = stack.enter_context(rasterio.open(work, "w", **profile))
                _describe(sink, file)
                sinks.append(sink)
            lazies, targets = [], []
            for file, sink in zip(files, sinks, strict=True):
                if dask.is_dask_collection(file.data.data):
                    lazies.append(file.data.data)
                    targets.append(sink)
                else:
                    sink.write(np.asarray(file.data.data), 1)
            _store(lazies, targets, progress)
        for file, work, final in zip(files, works, finals, strict=True):
            if cloud_optimised:
                _to_cog(work, final, categorical=file.data.dtype.kind in "iu")
                work.unlink()
            else:
                work.replace(final)
        for file, final in zip(files, finals, strict=True):
            _require_whole(final, file)
        # renamed only when all are whole
        for file, final in zip(files, finals, strict=True):
            final.replace(file.path)
    except (OSError, rasterio.errors.RasterioError, CPLE_BaseError) as error:
        # the reason may lie in the first error, of which GDAL only tells that writing failed
        raise storage_error(files[0].path, error.__cause__ or error) from error
    finally:
        for path in (*works, *finals):
            path.unlink(missing_ok=True)
            path.with_name(f"{path.name}.aux.xml").unlink(missing_ok=True)


def _node() -> str:
    """Return this machine's name as it stands in the names of work files."""
    return re.sub(r"\W+", "_", platform.node()) or "host"


def _remove_leftovers(path: Path) -> None:
    """Remove work files that a killed run of this machine left beside an output."""
    pattern = re.compile(re.escape(f".{path.name}.{_node()}-") + r"(\d+)-[0-9a-f]{8}(\.work)?\.tif")
    for other in path.parent.glob(f".{glob.escape(path.name)}.*"):
        found = pattern.fullmatch(other.name)
        if found and not _alive(int(found.group(1))):
            log.info("%s of a run that was cut off is removed", other.name)
            other.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    import psutil

    return bool(psutil.pid_exists(pid))


def _require_whole(path: Path, file: RasterFile) -> None:
    """Open what was written once more: a full disk is not always told while writing."""
    import rasterio
    from rasterio.windows import Window

    shape = file.data.shape
    with _gdal(), rasterio.open(path) as source:
        if source.shape != shape or source.dtypes[0] != file.data.dtype.name:
            raise OSError(f"{file.path.name} came out as {source.shape} {source.dtypes[0]}")
        # the last block, and the top of the coarsest overview, lie where a cut would show
        rows, cols = source.block_shapes[0]
        row, col = (shape[0] - 1) // rows * rows, (shape[1] - 1) // cols * cols
        source.read(1, window=Window(col, row, shape[1] - col, shape[0] - row))


def _profile(file: RasterFile, *, fast: bool) -> dict[str, Any]:
    box = geobox_of(file.data)
    dtype = file.data.dtype
    nodata = file.nodata
    if nodata is None:
        nodata = float("nan") if dtype.kind == "f" else CLASS_NODATA if dtype == np.uint8 else 0
    height, width = box.shape
    return {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": 1,
        "dtype": dtype.name,
        "crs": box.crs.to_wkt() if box.crs else None,
        "transform": box.transform,
        "nodata": nodata,
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
        # a cloud-optimised file is copied from this one: then the fastest coding will do
        **({"compress": "ZSTD", "zstd_level": 1} if fast else {"compress": "DEFLATE"}),
        "predictor": 1 if dtype.kind in "iu" else 3,
        "num_threads": "ALL_CPUS",
        "bigtiff": "IF_SAFER",
    }


def _describe(sink: rasterio.io.DatasetWriter, file: RasterFile) -> None:
    if file.data.name:
        sink.set_band_description(1, str(file.data.name))
    units = file.data.attrs.get("units")
    if units:
        sink.set_band_unit(1, str(units))
    if file.tags:
        sink.update_tags(**file.tags)
    if file.colours:
        sink.write_colormap(1, {k: (*v, 255) for k, v in file.colours.items()})


def _to_cog(work: Path, final: Path, *, categorical: bool) -> None:
    import rasterio
    from rasterio.shutil import copy

    with rasterio.open(work) as source:
        large = source.width * source.height > LARGE_CELLS
    overviews = "AVERAGE" if not categorical else "NEAREST" if large else "MODE"
    with _gdal():
        copy(
            work,
            final,
            driver="COG",
            compress="ZSTD" if large else "DEFLATE",
            level=1 if large else 6,
            predictor="NO" if categorical else "YES",
            blocksize=512,
            overview_resampling=overviews,
            num_threads="ALL_CPUS",
            bigtiff="IF_SAFER",
        )


class _Target:
    """Writes the blocks of an array into an open raster, in any order."""

    def __init__(self, sink: rasterio.io.DatasetWriter, tell: Callable[[], None]) -> None:
        self.sink, self.tell = sink, tell

    def __setitem__(self, key: tuple[slice, slice], values: np.ndarray[Any, Any]) -> None:
        from rasterio.windows import Window

        rows, cols = key
        window = Window(cols.start, rows.start, cols.stop - cols.start, rows.stop - rows.start)
        self.sink.write(values, 1, window=window)
        self.tell()


def _store(
    lazies: Sequence[Any],
    sinks: Sequence[rasterio.io.DatasetWriter],
    progress: Callable[[int, int], None] | None,
) -> None:
    """Compute lazy arrays together and write each block as it comes."""
    from qala.compute import store

    if not lazies:
        return
    total = sum(int(np.prod(a.numblocks)) for a in lazies)
    done = 0

    def tell() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total)

    store(list(lazies), [_Target(s, tell) for s in sinks])


def require_apart(outputs: Iterable[str | Path], inputs: Iterable[str | Path]) -> None:
    """Refuse an output that would replace an input of the same job.

    Raises
    ------
    InputError
        Naming the file.
    """
    read = {Path(p).resolve() for p in inputs if "://" not in str(p)}
    for path in outputs:
        if Path(path).resolve() in read:
            raise InputError(
                f"{path} is read and written by the same command",
                "an output beside the inputs",
                "choose another name with -o",
            )


def require_writable(path: str | Path, *, make: bool = True) -> None:
    """Refuse a place that can't be written to, and make the folder of an output.

    Parameters
    ----------
    path
        File to write.
    make
        Make the folder; else only look whether that would succeed, so that a
        job refused later for its input leaves nothing behind.

    Raises
    ------
    InputError
        Before any work is done.
    """
    folder = Path(path).resolve().parent
    remedy = "choose another place with -o or --out"
    there = next(p for p in (folder, *folder.parents) if p.exists())
    if not there.is_dir():
        raise InputError(f"{there} is a file, not a folder", "a folder", remedy)
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{there} is not writable", "a folder this user may write to", remedy)
    if Path(path).is_dir():
        raise InputError(f"{path} is a folder", "the name of a file to write", remedy)
    require_closed(path)
    if make:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{folder} cannot be made ({error.strerror})", "a folder", remedy
            ) from error


@contextmanager
def tidy_folders(folders: Iterable[Path]) -> Iterator[None]:
    """Remove folders that were made meanwhile and hold nothing at the end."""
    made = {
        p for folder in folders for p in (folder.resolve(), *folder.resolve().parents)
        if not p.exists()
    }  # fmt: skip
    try:
        yield
    finally:
        for path in sorted(made, key=lambda p: -len(p.parts)):
            try:
                path.rmdir()
            except OSError:
                # it holds a result by now, or was never made
                log.debug("%s stays", path)


def require_closed(path: str | Path) -> None:
    """Refuse to replace a GeoPackage that another program holds open with unsaved pages.

    SQLite would play the pages of the old file's write-ahead log into the new
    file and break it; other kinds of files can be replaced while they are read.

    Raises
    ------
    InputError
        Naming the log beside the file.
    """
    log_file = Path(f"{path}-wal")
    if log_file.exists() and log_file.stat().st_size:
        raise InputError(
            f"{path} is open in another program ({log_file.name} lies beside it)",
            "a file that no program holds",
            "close it there (in QGIS remove its layers), or choose another name with -o or --out",
        )
