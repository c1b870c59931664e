"""``qala check`` and ``qala doctor``: what a file is, and whether this machine is fit."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qala.errors import InputError, QalaError, TemporaryError

_RASTERS = {".tif", ".tiff", ".vrt", ".img", ".nc", ".asc", ".cog"}
_VECTORS = {".gpkg", ".geojson", ".json", ".shp", ".fgb", ".parquet", ".kml", ".gml"}
_TABLES = {".csv", ".tsv"}
_PICTURES = {".png", ".html"}
#: cells read from a raster to judge its values; beyond, strips are sampled
_ALL_CELLS = 30_000_000


@dataclass(frozen=True)
class Finding:
    """What was found of one file."""

    path: Path
    kind: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether it can be used."""
        return not self.problems

    def text(self) -> str:
        """Return the finding as lines for a terminal."""
        verdict = "sound" if self.sound else "NOT sound"
        lines = [f"{self.path}: {self.kind}, {verdict}"]
        width = max((len(k) for k, _ in self.facts), default=0)
        lines += [f"  {k.ljust(width)}  {v}" for k, v in self.facts]
        lines += [f"  problem: {p}" for p in self.problems]
        lines += [f"  note: {n}" for n in self.notes]
        return "\n".join(lines)


def inspect_file(path: Path) -> Finding:
    """Say what a file is and whether it is sound.

    Parameters
    ----------
    path
        A raster, vector layer, table, workflow or output folder of qala.
    """
    if not path.exists():
        return Finding(path, "no such file", problems=["it does not exist: check the path"])
    try:
        if path.is_dir():
            return _twin(path) if (path / "city.gpkg").exists() else _folder(path)
        if path.stat().st_size == 0:
            return Finding(path, "empty file", problems=["it has 0 bytes: fetch it again"])
        suffix = path.suffix.lower()
        if _is_cityjson(path):
            return _cityjson(path)
        if suffix in _RASTERS:
            return _raster(path)
        if suffix in {".yaml", ".yml"}:
            return _workflow(path)
        if suffix in _TABLES:
            return _table(path)
        if suffix == ".pbf":
            return _extract(path)
        if suffix in {".json", ".geojson"} and not _is_geojson(path):
            return _json(path)
        if suffix in _VECTORS:
            return _vector(path)
        if suffix in _PICTURES:
            return _picture(path)
    except QalaError as error:
        return Finding(path, "file", problems=[str(error)])
    return Finding(
        path,
        "unknown kind",
        problems=[
            "qala reads rasters, vector layers, tables (CSV), OSM extracts (PBF), CityJSON and "
            "workflows (YAML): save or export it as one of these"
        ],
    )


def _twin(path: Path) -> Finding:
    """Check a twin of a city: all formats, ids, solids and tiles."""
    from qala.city.check import check_twin

    found = check_twin(path)
    return Finding(path, "3D city of qala city", [(k, str(v)) for k, v in found.items()])


def _is_cityjson(path: Path) -> bool:
    """Tell a CityJSON file by its name, or a JSON file by how it begins."""
    if path.suffix.lower() == ".jsonl":
        return True
    if path.suffix.lower() != ".json":
        return False
    with path.open("rb") as handle:
        head = handle.read(4096)
    return path.name.lower().endswith(".city.json") or b"CityObjects" in head or b"CityJSON" in head


def _cityjson(path: Path) -> Finding:
    """Check a CityJSON file or sequence."""
    from qala.city.check import check_cityjson

    found = check_cityjson(path)
    return Finding(path, "CityJSON", [(k, str(v)) for k, v in found.items()])


def _folder(path: Path) -> Finding:
    """Check an output folder of qala against its record."""
    from qala.identity import file_hash
    from qala.provenance import RECORD, read_record, settle

    notes = []
    try:
        if settle(path):
            notes.append("the last run was cut off while publishing; its files are in place now")
    except TemporaryError:
        notes.append("a run is writing to it at this moment")
    record = read_record(path)
    if record is None:
        return Finding(
            path,
            "folder",
            problems=[f"it holds no {RECORD}: name a file, or an output of qala run"],
        )
    problems = []
    for output in record["outputs"]:
        file = path / output["path"]
        if not file.is_file():
            problems.append(f"{output['path']} is missing: run the workflow again")
        elif file_hash(file) != output["sha256"]:
            problems.append(f"{output['path']} is not the file that was written")
    facts = [
        ("made", f"{record['started']} by qala {record['versions']['qala']}"),
        ("inputs", str(len(record["inputs"]))),
        ("outputs", str(len(record["outputs"]))),
        ("warnings", str(len(record["warnings"]))),
    ]
    return Finding(path, "output of qala run", facts, problems, notes)


def _raster(path: Path) -> Finding:
    from qala.grid import GHSL_ORIGIN, describe_crs, require_equal_area
    from qala.raster import inspect, unit_of_values

    info = inspect(path)
    box = info.geobox
    t = box.transform
    facts = [
        ("CRS", describe_crs(box.crs.proj) if box.crs else "none"),
        ("grid", f"{box.shape.y} × {box.shape.x} cells of {t.a:g} × {-t.e:g}, "
                 f"upper left {t.c:.0f}, {t.f:.0f}"),
        ("type", str(info.dtype)),
        ("nodata", "not declared" if info.nodata is None else f"{info.nodata:g}"),
        ("unit", info.unit or "not told"),
    ]  # fmt: skip
    problems, notes = [], []
    try:
        require_equal_area(box, path.name)
    except InputError as error:
        problems.append(str(error))
    aligned = all(abs((a - b) / t.a - round((a - b) / t.a)) < 1e-3
                  for a, b in zip((t.c, t.f), GHSL_ORIGIN, strict=True))  # fmt: skip
    if not problems:
        facts.append(("aligned to GHSL", "yes" if aligned and t.a in (100.0, 1000.0) else "no"))
    if info.tags.get("SYNTHETIC") == "yes":
        notes.append("SYNTHETIC data")
    values, share = _values(path, info)
    if values.size == 0:
        problems.append("every cell is missing: check that it is the right tile")
        return Finding(path, "raster", facts, problems, notes)
    low, high = float(values.min()), float(values.max())
    facts.append(("values", f"{low:g} to {high:g}, sum {values.sum(dtype='float64'):,.0f}"
                            + ("" if share == 1 else f" ({share:.0%} of the strips)")))  # fmt: skip
    if np.isinf(values).any():
        problems.append("it holds infinite values: declare them as nodata or repair them")
    elif high > 4e9:
        problems.append(
            f"it reaches {high:g}: if that stands for missing cells, declare it "
            f"(gdal_edit.py -a_nodata {high:g} {path.name})"
        )
    codes = {0, 1, 2, 3, 10, 11, 12, 13, 21, 22, 23, 30}
    if info.dtype == np.uint8 and set(np.unique(values).astype(int)) <= codes:
        level = 2 if high > 3 else 1
        notes.append(f"classes of the Degree of Urbanisation, level {level}")
    elif low < 0:
        problems.append(
            f"it falls to {low:g}: if that stands for missing cells, declare it "
            f"(gdal_edit.py -a_nodata {low:g} {path.name})"
        )
    elif info.unit is None and "pop" not in f"{path.name} {info.tags}".lower():
        fractional = bool(((values > 0) & (values < 1)).any())
        unit = unit_of_values(high, fractional=fractional, cell_area=abs(t.a * t.e))
        notes.append(
            f"as built-up or land its values are read as {unit}" if unit else
            "as built-up or land it does not tell its unit: pass --built-unit or --land-unit"
        )  # fmt: skip
    return Finding(path, "raster", facts, problems, notes)


def _values(path: Path, info: Any) -> tuple[np.ndarray[Any, Any], float]:
    """Return the valid values of a raster, or of evenly spaced strips of a large one."""
    import rasterio
    from rasterio.errors import RasterioError
    from rasterio.windows import Window

    height, width = info.geobox.shape
    rows = max(1, min(height, info.block_rows))
    starts = list(range(0, height, rows))
    step = max(1, -(-height * width // _ALL_CELLS))
    # the last strip too: that is where a file cut short breaks off
    picked = sorted({*starts[::step], starts[-1]})
    parts = []
    with rasterio.open(path) as source:
        for start in picked:
            window = Window(0, start, width, min(rows, height - start))
            try:
                part = source.read(1, window=window)
            except RasterioError as error:
                raise InputError(
                    f"{path} breaks off in rows {start} to {start + rows} ({error})",
                    "a complete file",
                    "fetch or export it again",
                ) from error
            valid = ~np.isnan(part) if part.dtype.kind == "f" else np.ones(part.shape, bool)
            if info.nodata is not None:
                valid &= part != info.nodata
            parts.append(part[valid])
    return np.concatenate(parts), len(picked) / len(starts)


def _vector(path: Path) -> Finding:
    import geopandas as gpd
    import pyogrio
    import pyogrio.errors
    import shapely

    problems: list[str] = []
    facts: list[tuple[str, str]] = []
    notes: list[str] = []
    kind = "vector file"
    if path.suffix.lower() == ".gpkg":
        kind = "GeoPackage"
        problems += _sqlite_problems(path)
        if problems:
            return Finding(path, kind, facts, problems)
    try:
        if path.suffix.lower() == ".parquet":
            if not _has_geometry(path):
                return _table(path)
            frames = [("", gpd.read_parquet(path))]
        else:
            layers = [str(n) for n, _ in pyogrio.list_layers(path)]
            frames = [(n, pyogrio.read_dataframe(path, layer=n)) for n in layers]
    except (
        pyogrio.errors.DataSourceError,
        pyogrio.errors.DataLayerError,
        pyogrio.errors.FeatureError,
        pyogrio.errors.GeometryError,
        OSError,
        ValueError,
    ) as error:
        return Finding(path, kind, problems=[f"it cannot be read ({error}): export it again"])
    if not frames:
        problems.append("it holds no layer: export it again")
    for name, frame in frames:
        label = f"layer {name}" if name else "layer"
        if not isinstance(frame, gpd.GeoDataFrame):
            facts.append((label, f"{len(frame)} rows without geometry"))
            continue
        shapes = frame.geometry
        kinds = ", ".join(sorted(shapes.geom_type.dropna().unique())) or "no geometry"
        crs = frame.crs.to_string()[:40] if frame.crs else "no CRS"
        facts.append((label, f"{len(frame)} features, {kinds}, {crs}"))
        if frame.crs is None:
            problems.append(f"{label} has no CRS: declare it with ogr2ogr -a_srs")
        if len(frame) == 0:
            problems.append(f"{label} is empty")
        missing = int((shapes.isna() | shapes.is_empty).sum())
        if missing:
            problems.append(f"{label}: {missing} features without geometry: delete or draw them")
        invalid = int((~shapely.is_valid(shapes.dropna().array)).sum())
        if invalid:
            problems.append(f"{label}: {invalid} invalid geometries: pass --repair, or fix in QGIS")
        ids = [
            c for c in frame.columns
            if c != shapes.name and frame[c].notna().all() and frame[c].is_unique
            and frame[c].dtype.kind != "f"
        ]  # fmt: skip
        if ids and len(frame) > 1:
            facts.append(("  id columns", ", ".join(map(str, ids[:6]))))
    return Finding(path, kind, facts, problems, notes)


def _has_geometry(path: Path) -> bool:
    """Tell whether a Parquet file is a GeoParquet file."""
    import pyarrow.parquet

    return b"geo" in (pyarrow.parquet.read_schema(path).metadata or {})


def _is_geojson(path: Path) -> bool:
    """Tell GeoJSON from other JSON by how it begins."""
    with path.open("rb") as handle:
        head = handle.read(4_096)
    return path.suffix.lower() == ".geojson" or b"Feature" in head or b"coordinates" in head


def _json(path: Path) -> Finding:
    """Check a JSON document that is no layer: a schema, a record, a style."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        return Finding(path, "JSON", problems=[f"it cannot be read ({error}): export it again"])
    keys = (
        ", ".join(list(value)[:8])
        if isinstance(value, dict)
        else f"{len(value)} values"
        if isinstance(value, list)
        else type(value).__name__
    )
    return Finding(path, "JSON", [("holds", keys)], notes=["no vector layer"])


def _picture(path: Path) -> Finding:
    """Check that a picture or page of a report is whole."""
    data = path.read_bytes()
    if path.suffix.lower() == ".png":
        whole = data.startswith(b"\x89PNG\r\n\x1a\n") and b"IEND" in data[-16:]
        kind = "picture"
    else:
        whole = b"</html>" in data[-64:].lower()
        kind = "page"
    problems = [] if whole else ["it is cut short: run the workflow again"]
    return Finding(path, kind, [("size", f"{len(data):,} bytes")], problems)


def _extract(path: Path) -> Finding:
    """Check an OSM extract: every block there to its last byte, without unpacking them."""
    import osmium

    kind, blocks, at = "OSM extract", 0, 0
    size = path.stat().st_size
    with path.open("rb") as handle:
        while at < size:
            length = int.from_bytes(handle.read(4), "big")
            # the format allows headers of 64 KiB and blocks of 32 MiB
            header = handle.read(length) if 0 < length <= 65_536 else b""
            data = _block_size(header) if header and len(header) == length else None
            if data is None or data > 32 * 2**20:
                return Finding(path, kind, problems=[
                    f"no block of OSM data at byte {at:,}: it is no PBF file or damaged; "
                    "fetch it again"
                ])  # fmt: skip
            at += 4 + length + data
            blocks += 1
            handle.seek(at)
    if at != size:
        return Finding(path, kind, problems=[
            f"it breaks off in its block {blocks} ({at - size:,} bytes are missing): fetch it again"
        ])  # fmt: skip
    try:
        with osmium.io.Reader(str(path), osmium.osm.NOTHING) as reader:
            header, box = reader.header(), reader.header().box()
            facts = [("blocks", f"{blocks:,}"), ("made by", header.get("generator", "unknown"))]
            when = header.get("osmosis_replication_timestamp", "")
            facts += [("as of", when)] if when else []
            facts += [("box", str(box))] if box.valid() else []
    except RuntimeError as error:
        return Finding(path, kind, problems=[f"it cannot be read ({error}): fetch it again"])
    return Finding(path, kind, facts, notes=["© OpenStreetMap contributors, ODbL 1.0"])


def _block_size(header: bytes) -> int | None:
    """Return the size of the block that a header of the PBF format announces, or None."""
    at, size, kind = 0, None, b""

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = header[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    try:
        while at < len(header):
            tag = number()
            if tag & 7 == 0:
                value = number()
                size = value if tag >> 3 == 3 else size
            elif tag & 7 == 2:
                length = number()
                kind = header[at : at + length] if tag >> 3 == 1 else kind
                at += length
            else:
                return None
    except IndexError:
        return None
    return size if kind in (b"OSMHeader", b"OSMData") else None


def _sqlite_problems(path: Path) -> list[str]:
    """Return what SQLite finds wrong with a GeoPackage, opened without changing it."""
    try:
        uri = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
        connection = sqlite3.connect(uri, uri=True)
        try:
            verdict = connection.execute("PRAGMA quick_check").fetchone()[0]
            tables = {r[0] for r in connection.execute("SELECT name FROM sqlite_master")}
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        return [f"it is truncated or no GeoPackage ({error}): fetch or export it again"]
    if verdict != "ok":
        return [f"the database is damaged ({verdict}): fetch or export it again"]
    if "gpkg_contents" not in tables:
        return ["it is an SQLite file without the tables of a GeoPackage: export it as GPKG"]
    return []


def _table(path: Path) -> Finding:
    import pandas as pd

    try:
        if path.suffix.lower() == ".parquet":
            table = pd.read_parquet(path)
        else:
            table = pd.read_csv(path, sep=None, engine="python")
    except (
        UnicodeDecodeError,
        pd.errors.ParserError,
        pd.errors.EmptyDataError,
        OSError,
        ValueError,
    ) as error:
        return Finding(
            path,
            "table",
            problems=[f"it cannot be read ({error}): save it as UTF-8 CSV with commas"],
        )
    facts = [
        ("rows", str(len(table))),
        ("columns", ", ".join(f"{c} ({table[c].dtype})" for c in table.columns)),
    ]
    problems = [] if len(table) else ["it has no rows"]
    return Finding(path, "table", facts, problems)


def _workflow(path: Path) -> Finding:
    from qala.config import input_files, load_workflow, require_files

    workflow = load_workflow(path)
    facts = [("recipe", workflow.workflow), ("reads", f"{len(input_files(workflow))} files")]
    problems = []
    try:
        require_files(workflow)
    except QalaError as error:
        problems.append(str(error))
    return Finding(path, "workflow", facts, problems)


# --- the machine -------------------------------------------------------------------


def examine() -> tuple[list[str], bool]:
    """Return lines on this machine and whether qala can work on it."""
    import psutil
    import pyogrio
    import pyproj
    import rasterio

    from qala.compute import usable_cores
    from qala.provenance import versions
    from qala.resources import resource

    lines = [f"qala on {platform.platform()}, Python {platform.python_version()}"]
    healthy = True
    lines += [f"  {name} {version}" for name, version in versions().items() if name != "python"]
    lines.append(f"  GDAL {rasterio.__gdal_version__} (rasters), "
                 f"{'.'.join(map(str, pyogrio.__gdal_version__))} (vectors)")  # fmt: skip
    lines.append(f"  PROJ {pyproj.proj_version_str}, data in {pyproj.datadir.get_data_dir()}")

    def told(ok: bool, fine: str, bad: str) -> None:
        nonlocal healthy
        healthy &= ok
        lines.append(f"  ok       {fine}" if ok else f"  MISSING  {bad}")

    with rasterio.Env() as env:
        drivers = env.drivers()
    told({"GTiff", "COG"} <= set(drivers), "raster drivers GTiff, COG",
         "raster driver COG: install rasterio ≥ 1.4 from PyPI")  # fmt: skip
    writable = pyogrio.list_drivers(write=True)
    told("GPKG" in writable, "vector driver GPKG", "vector driver GPKG: install pyogrio from PyPI")
    try:
        pyproj.CRS.from_user_input("ESRI:54009")
        found = True
    except pyproj.exceptions.CRSError:
        found = False
    told(found, "World Mollweide (ESRI:54009)",
         "PROJ's database: unset PROJ_DATA and PROJ_LIB, or reinstall pyproj")  # fmt: skip
    grid = Path(pyproj.datadir.get_data_dir()) / "us_nga_egm08_25.tif"
    if grid.exists():
        lines.append("  ok       EGM2008 geoid grid")
    else:
        lines.append("  note     no EGM2008 geoid grid: heights above the ellipsoid need it "
                     "(pyproj sync --file us_nga_egm08_25)")  # fmt: skip
    for folder in ("catalogs", "workflows", "sample"):
        try:
            resource(folder)
            lines.append(f"  ok       packaged {folder}")
        except FileNotFoundError as error:
            told(False, "", str(error))
    memory = psutil.virtual_memory()
    free, total = (v / 2**30 for v in (memory.available, memory.total))
    lines.append(f"  memory   {free:.1f} GiB free of {total:.1f}, {usable_cores()} cores")
    told(memory.available > 2**30, "memory for the whole world at 1 km (1 GB)",
         "memory: 1 GiB free is wanted; pass --workers 1 and a small --chunk")  # fmt: skip
    lines.append(f"  disk     {psutil.disk_usage(os.getcwd()).free / 2**30:.0f} GiB free here")
    return lines, healthy
