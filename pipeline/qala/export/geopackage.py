"""GeoPackage 1.3: layers with styles, words, metadata and a QGIS project in one file.

The file appears whole or not at all, in rollback-journal mode, so that reading
it never leaves anything beside it. The same inputs give equal tables: all
times come from ``timestamp`` or the environment's ``SOURCE_DATE_EPOCH``.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import numpy as np

from qala.city._columns import bytes_of
from qala.city.kept import Kept, Piece, head_of, pieces, schema_of
from qala.errors import InputError, Problems, QalaError, TemporaryError, is_full, storage_error
from qala.export.arrangement import arrange
from qala.export.project import STYLE_NAMES, embed_project, has_map
from qala.export.styles import STYLES, named_style, names, table
from qala.messages import LANGUAGES, said, tr

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    import xarray as xr

log = logging.getLogger("qala")

#: above so many cells polygons are slow to draw and heavy to send: write a
#: raster beside the GeoPackage instead
MAX_POLYGON_CELLS = 4_000_000
#: layers of more polygons than this are written some rows at a time
STREAMED = 20_000
#: share of unused pages from which on a file is packed
FREE_SHARE = 0.05
#: kinds of geometry in well-known binary
_POLYGON, _MULTI = 3, 6
_PAGES = ("freelist_count", "page_count")

_LAYER_STYLES = """
CREATE TABLE layer_styles (
  id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
  f_table_catalog TEXT(256), f_table_schema TEXT(256), f_table_name TEXT(256),
  f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT,
  useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30),
  update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now'))
)"""
# OGC 12-128r18 (GeoPackage 1.3.1), F.8 Metadata extension
_METADATA = """
CREATE TABLE gpkg_metadata (
  id INTEGER CONSTRAINT m_pk PRIMARY KEY ASC NOT NULL,
  md_scope TEXT NOT NULL DEFAULT 'dataset', md_standard_uri TEXT NOT NULL,
  mime_type TEXT NOT NULL DEFAULT 'text/xml', metadata TEXT NOT NULL DEFAULT ''
)"""
_METADATA_REFERENCE = """
CREATE TABLE gpkg_metadata_reference (
  reference_scope TEXT NOT NULL, table_name TEXT, column_name TEXT, row_id_value INTEGER,
  timestamp DATETIME NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')),
  md_file_id INTEGER NOT NULL, md_parent_id INTEGER,
  CONSTRAINT crmr_mfi_fk FOREIGN KEY (md_file_id) REFERENCES gpkg_metadata(id),
  CONSTRAINT crmr_mpi_fk FOREIGN KEY (md_parent_id) REFERENCES gpkg_metadata(id)
)"""
_METADATA_EXTENSION = "http://www.geopackage.org/spec131/#extension_metadata"
_ISO = "http://www.isotc211.org/2005/gmd"
#: QGIS reads a layer's metadata from a record of this standard
_QGIS = "http://mrcc.com/qgis.dtd"
_JSON = "https://www.w3.org/TR/prov-overview/"


@dataclass(frozen=True)
class Layer:
    """One layer of a GeoPackage.

    Attributes
    ----------
    data
        Features (with CRS), or a plain table; or polygons kept on disk.
    title
        Shown as the layer's identifier; unique in the file. The layer's name
        where empty. With a text for each language the file also holds projects
        in the languages that are not its own.
    description
        One or two sentences on what it holds.
    style
        A key of :data:`qala.export.styles.STYLES`, QML text, language to QML
        text, or None.
    aliases
        Column to the words shown for it, over those of the catalog.
    surfaces
        For layers of polygons: what gives some rows of ``data`` their geometry in place of
        their own, as Arrow well-known binary of MultiPolygon Z. Rows are then written some
        at a time.
    columns
        Of features: the columns to write, all where empty.
    """

    data: gpd.GeoDataFrame | pd.DataFrame | Kept
    title: str | Mapping[str, str] = ""
    description: str = ""
    style: str | Mapping[str, str] | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)
    surfaces: Callable[[Piece], Any] | None = None
    columns: Sequence[str] = ()

    def words(self, name: str, lang: str) -> str:
        """Return the title in a language, the layer's name where it has none."""
        text = self.title if isinstance(self.title, str) else self.title.get(lang, "")
        return text or name


def write_geopackage(
    path: str | Path,
    layers: Mapping[str, Layer],
    *,
    metadata: Mapping[str, Any] | None = None,
    lang: str = "en",
    timestamp: datetime | None = None,
) -> Path:
    """Write layers to a GeoPackage, with styles, metadata and a map that QGIS opens.

    Parameters
    ----------
    path
        The file; an older one is replaced when the new one is complete.
    layers
        Layer name to :class:`Layer`, in the order of the file.
    metadata
        ``title``, ``abstract``, ``licence``, ``citation``, ``keywords`` (list)
        and ``provenance`` (anything JSON can hold); further keys are kept in
        the JSON record. The print layout shows the title, ``sources`` (list;
        licence and citation where absent), and that the data is ``synthetic``.
    lang
        Language of the default styles; the other two lie beside them.
    timestamp
        Time noted in the file; ``SOURCE_DATE_EPOCH`` or now where None.

    Returns
    -------
    pathlib.Path
        The file written.

    Raises
    ------
    InputError
        For layers that a GeoPackage cannot hold (all problems at once), a
        folder that cannot be written to, or a full disk.
    TemporaryError
        When the file is locked.

    Notes
    -----
    OGC 12-128r18, GeoPackage 1.3.1. Geometry lies in column ``geom`` with an
    R-tree index; polygons, lines and points are stored as their multi types.
    A file with features holds a project for QGIS too, see
    :func:`qala.export.project.embed_project`.
    """
    import pyogrio
    import pyogrio.errors

    from qala.raster import require_writable

    target = Path(path)
    _check(target.name, layers, lang)
    require_writable(target)
    stamp = _stamp(timestamp)
    # styles first: what cannot be drawn should fail before anything is written
    styles = {name: _styles(layer, lang) for name, layer in layers.items()}
    work = target.with_name(f".{target.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.gpkg")
    try:
        for name, layer in layers.items():
            _write_layer(work, name, replace(layer, title=layer.words(name, lang)))
        _finish(work, layers, styles, dict(metadata or {}), lang, stamp)
        _embed(work, target.name, layers, dict(metadata or {}), lang)
        _compact(work)
        _validate(work, layers)
        work.replace(target)
    except (OSError, sqlite3.Error, pyogrio.errors.DataSourceError) as error:
        raise _explained(target, error) from error
    except (pyogrio.errors.DataLayerError, pyogrio.errors.FeatureError) as error:
        if is_full(target.parent, error):
            raise storage_error(target, error) from error
        raise InputError(
            f"{target}: a layer could not be written ({error})",
            "columns of numbers, text, times or truth values",
        ) from error
    finally:
        for leftover in _family(work):
            leftover.unlink(missing_ok=True)
    return target


def cells_to_polygons(
    cells: xr.DataArray, *, codes: Collection[int] | None = None, dissolve: bool = True
) -> gpd.GeoDataFrame:
    """Return a raster of classes as polygons.

    Parameters
    ----------
    cells
        dims (y, x); class codes, 255 where there is no data.
    codes
        Classes to keep; all where None.
    dissolve
        Join cells of one class that share an edge; else one square a cell.

    Returns
    -------
    geopandas.GeoDataFrame
        ``code``, ``label_kk``, ``label_ru``, ``label_en``, ``cells``
        (number), ``area_km2``; CRS of the raster.

    Raises
    ------
    InputError
        When there are more than :data:`MAX_POLYGON_CELLS` cells to draw.
    """
    import geopandas as gpd
    import rasterio.features
    import shapely

    from qala.grid import cell_area_m2, geobox_of, named_crs
    from qala.raster import CLASS_NODATA

    box = geobox_of(cells)
    # class codes are at most 30: one byte a cell
    values = np.asarray(cells.transpose("y", "x").compute().data)
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), CLASS_NODATA, values)
    values = np.ascontiguousarray(values, dtype=np.uint8)
    keep = values != CLASS_NODATA
    if codes is not None:
        keep &= np.isin(values, list(codes))
    count = int(keep.sum())
    if count > MAX_POLYGON_CELLS:
        raise InputError(
            f"{count:,} cells to turn into polygons",
            f"at most {MAX_POLYGON_CELLS:,}",
            "keep them as a raster beside the GeoPackage (qala.write_raster), or name fewer codes",
        )
    if dissolve:
        pairs = [
            (int(code), shape)
            for shape, code in rasterio.features.shapes(
                values, mask=keep, connectivity=4, transform=box.transform
            )
        ]
        code = np.array([c for c, _ in pairs], dtype=np.int16)
        geometry = np.array([shapely.geometry.shape(s) for _, s in pairs], dtype=object)
    else:
        row, col = np.nonzero(keep)
        code = values[row, col].astype(np.int16)
        t = box.transform
        left, top = t.c + col * t.a, t.f + row * t.e
        geometry = shapely.box(left, top + t.e, left + t.a, top)
    # most urban last, so that centres are drawn over the rest
    order = np.argsort(code, kind="stable")
    code, geometry = code[order], geometry[order]
    area = shapely.area(geometry) if len(geometry) else np.zeros(0)
    columns: dict[str, Any] = {"code": code}
    found = np.unique(code)
    for lang in ("kk", "ru", "en"):
        labels = np.array([tr(f"class.{c}", lang) for c in found], dtype=object)
        columns[f"label_{lang}"] = labels[np.searchsorted(found, code)] if len(found) else []
    columns["cells"] = np.rint(area / cell_area_m2(box)).astype(np.int32)
    columns["area_km2"] = area / 1e6
    return gpd.GeoDataFrame(columns, geometry=list(geometry), crs=named_crs(box))


# --- before writing ---------------------------------------------------------------


def _check(file: str, layers: Mapping[str, Layer], lang: str) -> None:
    """Gather everything a GeoPackage could not hold."""
    import geopandas as gpd

    problems = Problems(file)
    if lang not in LANGUAGES:
        problems.add(f"language {lang!r}", "one of " + ", ".join(LANGUAGES))
    if not layers:
        problems.add("no layers", "at least one layer")
    seen: dict[str, str] = {}
    for name, layer in layers.items():
        lower = name.lower()
        if not name or lower.startswith(("gpkg_", "rtree_", "sqlite_")) or lower == "layer_styles":
            problems.add(f"layer name {name!r} is reserved", "another name")
        for text in {lower, layer.words(name, lang).lower()}:
            if seen.setdefault(text, name) != name:
                problems.add(
                    f"layers {seen[text]!r} and {name!r} are both called {text!r}",
                    "names and titles that differ by more than case",
                )
        data = _shown(layer)
        fields = [str(c) for c in data.columns]
        spatial = isinstance(data, gpd.GeoDataFrame)
        if spatial:
            fields.remove(str(data.geometry.name))
            if data.crs is None:
                problems.add(
                    f"layer {name!r} has no CRS",
                    "a declared CRS",
                    "set it with set_crs() if you know it",
                )
            kinds = set(data.geom_type.dropna().str.removeprefix("Multi"))
            if len(kinds) > 1:
                problems.add(
                    f"layer {name!r} mixes {', '.join(sorted(kinds))}", "one geometry type a layer"
                )
        doubles = {c.lower() for c in fields if [f.lower() for f in fields].count(c.lower()) > 1}
        if doubles:
            problems.add(
                f"layer {name!r} has columns that differ only in case: "
                + ", ".join(sorted(doubles)),
                "column names that differ by more than case",
            )
        if spatial and "geom" in (c.lower() for c in fields):
            problems.add(
                f"layer {name!r} has a column 'geom' beside its geometry", "another name for it"
            )
    problems.raise_if_any()


def _stamp(timestamp: datetime | None) -> str:
    if timestamp is None:
        epoch = os.environ.get("SOURCE_DATE_EPOCH")
        if epoch is not None and not re.fullmatch(r"\d+", epoch):
            raise InputError(f"SOURCE_DATE_EPOCH is {epoch!r}", "seconds since 1970 in digits")
        timestamp = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    elif timestamp.tzinfo is None:
        timestamp = timestamp.replace(tzinfo=UTC)
    return timestamp.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _styles(layer: Layer, lang: str) -> dict[str, str]:
    """Return language → QML of a layer; one entry where the caller gave QML alone."""
    if layer.style is not None and not isinstance(layer.style, str):
        return {code: layer.style[code] for code in sorted(layer.style, key=lambda c: c != lang)}
    if layer.style is not None and layer.style not in STYLES:
        if not layer.style.lstrip().startswith("<"):
            raise InputError(f"style {layer.style!r}", "one of " + ", ".join(STYLES) + ", or QML")
        return {lang: layer.style}
    others = [code for code in LANGUAGES if code != lang]
    if layer.style is None:
        if _is_spatial(layer.data):
            return {}
        columns = [str(c) for c in layer.data.columns]
        return {k: table({**names(columns, k), **layer.aliases}) for k in (lang, *others)}
    return {
        k: named_style(layer.style, head_of(layer.data), lang=k, aliases=layer.aliases)
        for k in (lang, *others)
    }


def _shown(layer: Layer) -> Any:
    """Return the data with the columns that are written; without rows where it lies on disk."""
    data = head_of(layer.data)
    return data[[*layer.columns, data.geometry.name]] if layer.columns else data


def _is_spatial(data: Any) -> bool:
    import geopandas as gpd

    return isinstance(data, gpd.GeoDataFrame | Kept)


# --- writing ------------------------------------------------------------------------


def _write_layer(work: Path, name: str, layer: Layer) -> None:
    import pandas as pd
    import pyogrio

    if (
        isinstance(layer.data, Kept)
        or layer.surfaces is not None
        or (len(layer.data) > STREAMED and _is_polygons(layer.data))
    ):
        _stream_layer(work, name, layer)
        return
    data = _shown(layer).reset_index(drop=True)
    for column in data.columns:
        if isinstance(data[column].dtype, pd.CategoricalDtype):
            data = data.assign(**{column: data[column].astype(data[column].cat.categories.dtype)})
    options: dict[str, str] = {
        "IDENTIFIER": layer.words(name, ""),
        "DESCRIPTION": layer.description,
        "FID": "qala_fid" if "fid" in (str(c).lower() for c in data.columns) else "fid",
    }
    extra: dict[str, Any] = {}
    if _is_spatial(data):
        options |= {"GEOMETRY_NAME": "geom", "SPATIAL_INDEX": "YES"}
        kinds = sorted(set(data.geom_type.dropna().str.removeprefix("Multi")))
        if kinds and kinds[0] in {"Polygon", "LineString", "Point"}:
            # points stay points: few readers expect multipoints of one
            multi = kinds[0] != "Point" or "MultiPoint" in set(data.geom_type.dropna())
            extra["promote_to_multi"] = multi
            extra["geometry_type"] = f"Multi{kinds[0]}" if multi else kinds[0]
            if data.geometry.has_z.any():
                extra["geometry_type"] += " Z"
        elif not kinds:
            extra["geometry_type"] = "MultiPolygon"
    pyogrio.write_dataframe(
        data,
        work,
        layer=name,
        driver="GPKG",
        append=False,
        dataset_options={"VERSION": "1.3"},
        layer_options=options,
        **extra,
    )


def _is_polygons(data: Any) -> bool:
    return _is_spatial(data) and bool(data.geom_type.isin(["Polygon", "MultiPolygon"]).all())


def _stream_layer(work: Path, name: str, layer: Layer) -> None:
    """Write a large layer of polygons some rows at a time, without a copy of the whole."""
    import pyarrow as pa
    import pyogrio

    data, head = layer.data, _shown(layer)
    fields = schema_of(data, [c for c in head.columns if c != head.geometry.name])
    schema = pa.schema([*fields, pa.field("geom", pa.large_binary())])
    surfaces = layer.surfaces or _multipolygons

    failed: list[Exception] = []

    def batches() -> Iterator[Any]:
        try:
            for piece in pieces(data):
                arrays = [*(piece.columns.column(n) for n in fields.names), surfaces(piece)]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)
        except Exception as error:
            failed.append(error)
            raise

    deep = layer.surfaces is not None or bool(head.geometry.has_z.any())
    with ThreadPoolExecutor(1) as pool, _told(failed):
        pyogrio.write_arrow(
            pa.RecordBatchReader.from_batches(schema, _ahead(pool, batches())),
            work,
            layer=name,
            driver="GPKG",
            append=False,
            geometry_name="geom",
            geometry_type="MultiPolygon Z" if deep else "MultiPolygon",
            crs=head.crs.to_wkt(),
            dataset_options={"VERSION": "1.3"},
            layer_options={
                "IDENTIFIER": layer.words(name, ""), "DESCRIPTION": layer.description,
                "GEOMETRY_NAME": "geom", "SPATIAL_INDEX": "YES",
                "FID": "qala_fid" if "fid" in (n.lower() for n in fields.names) else "fid",
            },
        )  # fmt: skip


@contextmanager
def _told(failed: list[Exception]) -> Iterator[None]:
    """Raise what went wrong while rows were made: GDAL tells no more than that it did."""
    try:
        yield
    except RuntimeError as error:
        if failed:
            raise failed[0] from error
        raise


def _ahead(pool: ThreadPoolExecutor, items: Iterator[Any]) -> Iterator[Any]:
    """Make the next item while one is used."""
    made = pool.submit(next, items, None)
    while (item := made.result()) is not None:
        made = pool.submit(next, items, None)
        yield item


def _multipolygons(piece: Piece) -> Any:
    """Return outlines of rows as well-known binary of multipolygons."""
    import pyarrow as pa
    import pyarrow.compute as pc

    outlines = piece.outlines.cast(pa.large_binary())
    places, data = bytes_of(outlines)
    # the second byte tells what it is; what is missing has none
    there = np.flatnonzero(np.diff(places) > 1)
    single = np.zeros(len(outlines), bool)
    single[there] = data[places[there] + 1] == _POLYGON
    # little-endian, a multipolygon of one, whose dimensions are those of the polygon
    codes = np.zeros((len(outlines), 9), np.uint8)
    codes[:, 0], codes[:, 5] = 1, 1
    codes[there, 1:5] = data[places[there, None] + np.arange(1, 5)]
    codes[:, 1] += _MULTI - _POLYGON
    ends = np.arange(len(codes) + 1, dtype=np.int64) * codes.shape[1]
    heads = pa.Array.from_buffers(
        pa.large_binary(), len(codes), [None, pa.py_buffer(ends), pa.py_buffer(codes)]
    )
    joined = pc.binary_join_element_wise(heads, outlines, pa.scalar(b"", pa.large_binary()))
    return pc.if_else(pa.array(single), joined, outlines)


def _finish(
    work: Path,
    layers: Mapping[str, Layer],
    styles: Mapping[str, Mapping[str, str]],
    metadata: Mapping[str, Any],
    lang: str,
    stamp: str,
) -> None:
    """Add styles and metadata, and set every time to the stamp."""
    with closing(sqlite3.connect(work)) as db, db:
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute(_LAYER_STYLES)
        db.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, description, srs_id)"
            " VALUES ('layer_styles', 'attributes', 'layer_styles', 'Styles of the layers', 0)"
        )
        for name, texts in styles.items():
            column = "geom" if _is_spatial(layers[name].data) else ""
            rows = [
                ("", "", name, column, STYLE_NAMES[code], qml, code == lang, "", "", None, stamp)
                for code, qml in texts.items()
            ]
            db.executemany(
                "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name,"
                " f_geometry_column, styleName, styleQML, useAsDefault, description, owner, ui,"
                " update_time) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
                rows,
            )
        _add_metadata(db, layers, metadata, lang, stamp)
        db.execute("UPDATE gpkg_contents SET last_change = ?", (stamp,))


def _embed(
    work: Path, name: str, layers: Mapping[str, Layer], metadata: Mapping[str, Any], lang: str
) -> None:
    """Put projects into the file, where it has something to draw."""
    if not has_map(arrange(work)):
        return
    told = [_words(metadata.get("licence"), lang), _words(metadata.get("citation"), lang)]
    # a notice often names the licence already
    named = [s for s in told if not any(s != other and s in other for other in told)]
    sources = metadata.get("sources") or named
    embed_project(
        work, name=name, lang=lang, title=metadata.get("title") or "", sources=sources,
        synthetic=bool(metadata.get("synthetic")),
        titles={k: e.title for k, e in layers.items() if not isinstance(e.title, str)},
    )  # fmt: skip


def _compact(work: Path) -> None:
    """Give back free pages, where there are enough of them: it writes the whole file again."""
    with closing(sqlite3.connect(work)) as db:
        free, pages = (db.execute(f"PRAGMA {n}").fetchone()[0] for n in _PAGES)
        if free > FREE_SHARE * pages:
            db.execute("VACUUM")


def _add_metadata(
    db: sqlite3.Connection,
    layers: Mapping[str, Layer],
    metadata: Mapping[str, Any],
    lang: str,
    stamp: str,
) -> None:
    db.execute(_METADATA)
    db.execute(_METADATA_REFERENCE)
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'gpkg_extensions'").fetchone():
        db.execute(
            "CREATE TABLE gpkg_extensions (table_name TEXT, column_name TEXT,"
            " extension_name TEXT NOT NULL, definition TEXT NOT NULL, scope TEXT NOT NULL,"
            " CONSTRAINT ge_tce UNIQUE (table_name, column_name, extension_name))"
        )
    db.executemany(
        "INSERT INTO gpkg_extensions VALUES (?, NULL, 'gpkg_metadata', ?, 'read-write')",
        [(t, _METADATA_EXTENSION) for t in ("gpkg_metadata", "gpkg_metadata_reference")],
    )
    records: list[tuple[str, str, str, str, str, str | None]] = [
        ("dataset", _ISO, "text/xml", _iso_record(metadata, lang, stamp), "geopackage", None),
        (
            "dataset",
            _JSON,
            "application/json",
            json.dumps(metadata, ensure_ascii=False, sort_keys=True, indent=1, default=str),
            "geopackage",
            None,
        ),
    ]
    records += [
        ("dataset", _QGIS, "text/xml", _qgis_record(name, layer, metadata, lang), "table", name)
        for name, layer in layers.items()
    ]
    for number, (scope, standard, mime, text, reference, name) in enumerate(records, start=1):
        db.execute(
            "INSERT INTO gpkg_metadata VALUES (?,?,?,?,?)", (number, scope, standard, mime, text)
        )
        db.execute(
            "INSERT INTO gpkg_metadata_reference VALUES (?,?,NULL,NULL,?,?,NULL)",
            (reference, name, stamp, number),
        )


def _words(value: Any, lang: str) -> str:
    """Return text of a metadata value; lists are joined, of several languages one is chosen."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        return "; ".join(_words(v, lang) for v in value)
    if isinstance(value, Mapping) and set(value) <= set(LANGUAGES):
        return said(value, lang)
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def _iso_record(metadata: Mapping[str, Any], lang: str, stamp: str) -> str:
    """Return a short ISO 19139 record: title, abstract, citation, licence."""
    gmd, gco = _ISO, "http://www.isotc211.org/2005/gco"
    ET.register_namespace("gmd", gmd)
    ET.register_namespace("gco", gco)

    def put(parent: ET.Element, *tags: str) -> ET.Element:
        for tag in tags:
            parent = ET.SubElement(parent, f"{{{gmd}}}{tag}")
        return parent

    def text(parent: ET.Element, tag: str, value: str) -> None:
        ET.SubElement(put(parent, tag), f"{{{gco}}}CharacterString").text = value

    root = ET.Element(f"{{{gmd}}}MD_Metadata")
    text(root, "language", {"en": "eng", "ru": "rus", "kk": "kaz"}[lang])
    ET.SubElement(put(root, "dateStamp"), f"{{{gco}}}Date").text = stamp[:10]
    identification = put(root, "identificationInfo", "MD_DataIdentification")
    citation = put(identification, "citation", "CI_Citation")
    text(citation, "title", _words(metadata.get("title"), lang))
    text(citation, "otherCitationDetails", _words(metadata.get("citation"), lang))
    text(identification, "abstract", _words(metadata.get("abstract"), lang))
    keywords = metadata.get("keywords") or []
    if keywords:
        box = put(identification, "descriptiveKeywords", "MD_Keywords")
        for word in keywords:
            text(box, "keyword", _words(word, lang))
    rights = put(identification, "resourceConstraints", "MD_LegalConstraints")
    text(rights, "useLimitation", _words(metadata.get("licence"), lang))
    quality = put(root, "dataQualityInfo", "DQ_DataQuality", "lineage", "LI_Lineage")
    text(quality, "statement", _words(metadata.get("provenance"), lang))
    ET.indent(root, " ")
    return ET.tostring(root, encoding="unicode")


def _qgis_record(name: str, layer: Layer, metadata: Mapping[str, Any], lang: str) -> str:
    """Return the record that QGIS shows as a layer's metadata."""
    root = ET.Element("qgis", {"version": "3.22.0"})
    entries = {
        "identifier": name,
        "language": {"en": "ENG", "ru": "RUS", "kk": "KAZ"}[lang],
        "type": "dataset",
        "title": layer.words(name, lang),
        "abstract": layer.description or _words(metadata.get("abstract"), lang),
        "rights": _words(metadata.get("citation"), lang),
        "license": _words(metadata.get("licence"), lang),
    }
    for key, value in entries.items():
        if value:
            ET.SubElement(root, key).text = value
    ET.indent(root, " ")
    return ET.tostring(root, encoding="unicode")


# --- after writing -------------------------------------------------------------------


def _family(work: Path) -> list[Path]:
    """Return the file and what SQLite or GDAL may have left beside it."""
    return [
        work,
        *(work.with_name(work.name + s) for s in ("-wal", "-shm", "-journal", ".aux.xml")),
    ]


def _validate(work: Path, layers: Mapping[str, Layer]) -> None:
    """Read the file back: sound, every layer there with all its rows and CRS."""
    import pyogrio
    import pyproj

    problems = Problems(work.name)
    # not immutable=1: SQLite itself should say whether a journal is left
    with closing(sqlite3.connect(f"{work.resolve().as_uri()}?mode=ro", uri=True)) as db:
        state = db.execute("PRAGMA quick_check").fetchone()[0]
        if state != "ok":
            problems.add(f"SQLite reports {state}")
        if db.execute("PRAGMA journal_mode").fetchone()[0] != "delete":
            problems.add("the file is not in rollback-journal mode")
        for name, layer in layers.items():
            quoted = '"' + name.replace('"', '""') + '"'
            rows = db.execute(f"SELECT count(*) FROM {quoted}").fetchone()[0]
            if rows != len(layer.data):
                problems.add(f"layer {name!r} has {rows} rows", f"{len(layer.data)}")
    for name, layer in layers.items():
        info = pyogrio.read_info(work, layer=name)
        if _is_spatial(layer.data):
            crs = layer.data.crs
            if info["crs"] is None or not pyproj.CRS(info["crs"]).equals(crs, True):
                problems.add(f"layer {name!r} came back in CRS {info['crs']}", str(crs))
    left = [p.name for p in _family(work)[1:] if p.exists()]
    if left:
        problems.add(f"{', '.join(left)} left beside the file", "one file")
    problems.raise_if_any()


def _explained(target: Path, error: Exception) -> QalaError:
    text = str(error)
    if "locked" in text:
        return TemporaryError(
            f"{target} could not be written ({text})",
            "a file that no program holds",
            "close the program, then run again",
        )
    return storage_error(target, error)
