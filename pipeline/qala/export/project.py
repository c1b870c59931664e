"""The QGIS project inside a GeoPackage: layers in order, legend, print layout.

The project is written as text by this module, without QGIS, and is read by
QGIS 3.22 and later. It lies in table ``qgis_projects`` as the hexadecimal text
of a zipped ``.qgs`` file, and names its layers relative to the GeoPackage
(``./file.gpkg|layername=units``), so that the file can be moved, but not
renamed.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import math
import re
import sqlite3
import uuid
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from qala.errors import InputError
from qala.export.arrangement import MapLayer, arrange, open_unchanged
from qala.messages import LANGUAGES, Words, said, tr
from qala.rules import COLOURS, level_codes

if TYPE_CHECKING:
    import pyproj

log = logging.getLogger("qala")

#: name of the project within the file
PROJECT = "qala"
#: names of a layer's styles in the file, and of the projects in further languages
STYLE_NAMES: dict[str, str] = {"en": "English", "ru": "Русский", "kk": "Қазақша"}
#: A3 landscape and the frame of its map, mm
PAGE = (420.0, 297.0)
_FRAME = (10.0, 26.0, 292.0, 246.0)
_SIDE = (308.0, 26.0, 102.0)
#: degrees of longitude up to which one UTM zone serves the whole map
_UTM_SPAN = 9.0
#: names for ids that are the same in every run
_NAMESPACE = uuid.UUID("6a1b3f0e-7c55-5e0b-9c6e-716a6c610001")
#: features from which a layer of classes gets an overview for small scales
OVERVIEW_FROM = 100_000
#: denominator of the scale at which it takes over, per metre of a cell: a cell is 0.7 mm there
_TAKES_OVER = 1_500
#: larger ones would help nobody
_MAX_OVERVIEW_CELLS = 400_000_000
#: features up to which the extent is taken vertex by vertex
_MAX_FEATURES = 20_000
_STYLE_KEYS = (
    "labelsEnabled",
    "simplifyDrawingHints",
    "simplifyDrawingTol",
    "simplifyMaxScale",
    "simplifyAlgorithm",
    "simplifyLocal",
    "hasScaleBasedVisibilityFlag",
    "minScale",
    "maxScale",
    "readOnly",
)
_NORTH = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 20 28"><path d="M10 0l7 20-7-5-7 5z" '
    'fill="#333"/><text x="10" y="28" font-family="sans-serif" font-size="8" font-weight="bold" '
    'text-anchor="middle" fill="#333">N</text></svg>'
)


@dataclass(frozen=True)
class View:
    """What a map shows: CRS, centre and ground size.

    Attributes
    ----------
    authid, wkt
        CRS by authority code (may be empty) and as WKT.
    x, y
        Centre, m.
    width, height
        Ground size of what is to be seen, m.
    """

    authid: str
    wkt: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Overview:
    """A raster in the file that stands for a layer at small scales.

    Attributes
    ----------
    table
        Name of the raster in the GeoPackage.
    scale
        Denominator from which on it is drawn in place of the layer.
    """

    table: str
    scale: int


def embed_project(
    path: str | Path,
    *,
    lang: str = "en",
    title: Words = "",
    sources: Sequence[Words] = (),
    synthetic: bool = False,
    overview_from: int = OVERVIEW_FROM,
    name: str | None = None,
    titles: Mapping[str, Mapping[str, str]] | None = None,
) -> Path:
    """Put a QGIS project with map, legend and A3 print layout into a GeoPackage.

    :func:`qala.export.geopackage.write_geopackage` does so for every file with
    something to draw.

    Parameters
    ----------
    path
        GeoPackage with layers and default styles.
    lang
        Language of titles and layout.
    title
        Heading of the layout, in one or several languages; the file's name where empty.
    sources
        Citations and licences, printed on the layout; each in one or several languages.
    synthetic
        Print that the data is synthetic.
    overview_from
        Features from which a layer of class codes (column ``code``) also gets
        a raster for small scales, in the same file.
    name
        Name the file will have, which the project keeps; that of ``path``
        where None.
    titles
        Layer → language → words. The file then also gets projects in the other
        languages, called ``qala English`` and the like.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    InputError
        When the file is no GeoPackage, or has no layer to draw.

    Notes
    -----
    Columns of class codes also get words in forms and tables (value maps), in
    the project and in the styles of the file. The project's CRS is the UTM
    zone of the middle, or an equal-area one where the map is wider: Mollweide
    shears regions far from its middle. Equal files give equal bytes.
    """
    target = Path(path)
    if lang not in LANGUAGES:
        raise InputError(f"language {lang!r}", "one of " + ", ".join(LANGUAGES))
    if not target.exists():
        raise InputError(f"{target} does not exist", "a GeoPackage")
    try:
        layers = arrange(target)
        styles, crs, stamp = _contents(target, layers)
    except sqlite3.DatabaseError as error:
        raise InputError(f"{target} is no GeoPackage ({error})", "a GeoPackage") from error
    if not has_map(layers):
        raise InputError(f"{target} has no layer with features to draw", "at least one")
    made = {e.name: _overview(target, e, lang, stamp) for e in layers if e.rows >= overview_from}
    overviews = {name: found for name, found in made.items() if found is not None}
    file, view = name or target.name, _view(target, layers, crs)
    projects = {}
    for code in (lang, *(c for c in LANGUAGES if titles and c != lang)):
        named = [replace(e, title=(titles or {}).get(e.name, {}).get(code) or e.title)
                 for e in layers]  # fmt: skip
        words = {
            layer: _with_words(found.get(STYLE_NAMES[code], found[""]), code)
            for layer, found in styles.items()
        }
        text = project_xml(
            file, named, words, crs, view,
            lang=code, title=said(title, code) or Path(file).stem,
            sources=[said(words, code) for words in sources], synthetic=synthetic, stamp=stamp,
            overviews=overviews,
        )  # fmt: skip
        key = PROJECT if code == lang else f"{PROJECT} {STYLE_NAMES[code]}"
        projects[key] = _zipped(text, stamp).hex()
    note = json.dumps({"last_modified_time": stamp[:19], "last_modified_user": "qala"})
    with closing(sqlite3.connect(target)) as db, db:
        # the rollback journal makes this whole or not at all, and is gone afterwards
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute(
            "CREATE TABLE IF NOT EXISTS qgis_projects"
            "(name TEXT PRIMARY KEY, metadata BLOB, content BLOB)"
        )
        db.executemany(
            "INSERT OR REPLACE INTO qgis_projects VALUES (?,?,?)",
            [(key, note, content) for key, content in projects.items()],
        )
        by_name = {name: code for code, name in STYLE_NAMES.items()}
        query = "SELECT id, styleName, styleQML FROM layer_styles"
        for row, language, style in db.execute(query).fetchall() if styles else ():
            styled = _with_words(style, by_name.get(language, "en"))
            db.execute("UPDATE layer_styles SET styleQML = ? WHERE id = ?", (styled, row))
    return target


def has_map(layers: Iterable[MapLayer]) -> bool:
    """Return whether a project of these layers has anything to draw."""
    return any(entry.shown and entry.extent for entry in layers)


def project_uri(path: str | Path) -> str:
    """Return what QGIS opens: ``qgis "geopackage:/a/b.gpkg?projectName=qala"``."""
    return f"geopackage:{Path(path).resolve()}?projectName={PROJECT}"


# --- reading ---------------------------------------------------------------------------


def _contents(
    path: Path, layers: Sequence[MapLayer]
) -> tuple[dict[str, dict[str, str]], dict[int, tuple[str, str]], str]:
    """Return styles by layer and name, CRS by srs_id (authority code, WKT), and the file's time.

    The default style of a layer has the name "".
    """
    with closing(open_unchanged(path)) as db:
        known = {r[0] for r in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        styles: dict[str, dict[str, str]] = {}
        if "layer_styles" in known:
            query = "SELECT f_table_name, styleName, styleQML, useAsDefault FROM layer_styles"
            for layer, name, style, default in db.execute(query):
                styles.setdefault(layer, {})[name] = style
                if default:
                    styles[layer][""] = style
        styles = {layer: found for layer, found in styles.items() if "" in found}
        used = {entry.srs_id for entry in layers}
        crs = {}
        for srs_id, organization, code, wkt in db.execute(
            "SELECT srs_id, organization, organization_coordsys_id, definition"
            " FROM gpkg_spatial_ref_sys"
        ):
            if srs_id in used:
                crs[srs_id] = _named_crs(organization, code, wkt)
        stamp = db.execute("SELECT max(last_change) FROM gpkg_contents").fetchone()[0]
    return styles, crs, str(stamp)


def _named_crs(organization: str, code: int, wkt: str) -> tuple[str, str]:
    if organization.upper() in {"EPSG", "ESRI", "IAU"}:
        return f"{organization.upper()}:{code}", wkt
    if wkt == "undefined":
        return "", ""
    import pyproj

    # a CRS that lost its code on the way, as Mollweide does in some rasters
    found = pyproj.CRS(wkt).to_authority(min_confidence=90)
    return (":".join(found) if found else ""), wkt


def _view(path: Path, layers: Sequence[MapLayer], crs: Mapping[int, tuple[str, str]]) -> View:
    """Return the CRS of the map and what of it holds the layers shown."""
    import numpy as np
    import pyproj

    boxes = []
    for entry in layers:
        if entry.shown and entry.extent and crs[entry.srs_id] != ("", ""):
            source = pyproj.CRS(crs[entry.srs_id][0] or crs[entry.srs_id][1])
            boxes.append((source, _boxes(path, entry)))
    if not boxes:
        raise InputError(f"{path.name}: no layer that is shown has a CRS", "a CRS")

    def points(target: pyproj.CRS) -> Any:
        """Return the corners of all boxes in a CRS, (n, 2), those that it has."""
        parts = []
        for source, box in boxes:
            x, y = box[:, [0, 2, 0, 2]].ravel(), box[:, [1, 1, 3, 3]].ravel()
            if source != target:
                x, y = pyproj.Transformer.from_crs(source, target, always_xy=True).transform(x, y)
            parts.append(np.column_stack([x, y]))
        found = np.vstack(parts)
        return found[np.isfinite(found).all(axis=1)]

    view = _map_crs(points)
    if view is None:
        # what is tied to another place is not on this map
        view = boxes[0][0]
        boxes = [(source, box) for source, box in boxes if source == view]
    found = points(view)
    if not len(found):
        raise InputError(f"{path.name}: no layer lies where its CRS holds", "the right CRS")
    (left, bottom), (right, top) = found.min(axis=0), found.max(axis=0)
    authority = view.to_authority()
    return View(
        ":".join(authority) if authority and authority[0] in {"EPSG", "ESRI"} else "",
        view.to_wkt("WKT2_2019"),
        float(left + right) / 2,
        float(bottom + top) / 2,
        max(float(right - left), 10.0),
        max(float(top - bottom), 10.0),
    )


def _map_crs(points: Callable[[pyproj.CRS], Any]) -> pyproj.CRS | None:
    """Return the CRS for a map of points; None where they have no place on Earth.

    The UTM zone of the middle, or an equal-area one where the map is wider.
    """
    import numpy as np
    import pyproj
    import pyproj.exceptions

    try:
        places = points(pyproj.CRS.from_epsg(4326))
    except pyproj.exceptions.ProjError:
        # a local CRS, tied to nothing
        return None
    if not len(places):
        return None
    lon, lat = places[:, 0], (places[:, 1].min() + places[:, 1].max()) / 2
    # regions across the antimeridian are whole when counted from Greenwich eastwards
    lon = min(lon, np.mod(lon, 360.0), key=np.ptp)
    middle = (float(lon.min() + lon.max()) / 2 + 180) % 360 - 180
    if np.ptp(lon) <= _UTM_SPAN and abs(lat) < 80:
        zone = min(60, int((middle + 180) // 6) + 1)
        return pyproj.CRS.from_epsg((32600 if lat >= 0 else 32700) + zone)
    return pyproj.CRS.from_proj4(
        f"+proj=laea +lat_0={lat:.0f} +lon_0={middle:.0f} +datum=WGS84 +units=m +no_defs"
    )


def _boxes(path: Path, entry: MapLayer) -> Any:
    """Return boxes (n, 4), min x, min y, max x, max y, that together hold a layer.

    Vertices where features are few, so that a region keeps its shape in
    another CRS; else the box of all.
    """
    import numpy as np

    assert entry.extent is not None
    if entry.rows <= _MAX_FEATURES:
        import pyogrio
        import shapely

        geometry = pyogrio.raw.read(path, layer=entry.name, columns=[])[2]
        points = shapely.get_coordinates(shapely.from_wkb(geometry))
        if len(points):
            return np.hstack([points, points])
    return np.array([entry.extent], dtype=float)


# --- overviews -------------------------------------------------------------------------


def _overview(path: Path, entry: MapLayer, lang: str, stamp: str) -> Overview | None:
    """Write a layer of class codes as a coloured raster into the file; None for other layers.

    The cell is the smallest width of a feature, so that squares of a grid come
    back one to one. QGIS draws a million squares in seconds, the raster at once.
    """
    import numpy as np
    import pyogrio
    import rasterio
    import rasterio.features
    import rasterio.transform
    import shapely
    from rasterio.enums import Resampling

    if "POLYGON" not in entry.geometry or entry.extent is None:
        return None
    if "code" not in pyogrio.read_info(path, layer=entry.name)["fields"]:
        return None
    info, _, shapes, fields = pyogrio.raw.read(path, layer=entry.name, columns=["code"])
    geometry, codes = shapely.from_wkb(shapes), np.asarray(fields[0])
    bounds = shapely.bounds(geometry)
    cell = float(np.nanmin(bounds[:, 2] - bounds[:, 0]))
    left, bottom, right, top = entry.extent
    table = f"{entry.name}_overview"
    if cell <= 0 or (right - left) * (top - bottom) > _MAX_OVERVIEW_CELLS * cell**2:
        log.warning("%s: no overview for small scales, its cells are too many", entry.name)
        return None
    width, height = round((right - left) / cell), round((top - bottom) / cell)
    with closing(sqlite3.connect(path)) as db:
        query = "SELECT 1 FROM gpkg_contents WHERE table_name = ?"
        there = db.execute(query, (table,)).fetchone()
    if there is None:
        place = rasterio.transform.from_origin(left, top, cell, cell)
        values = np.full((height, width), 255, np.uint8)
        size = bounds[:, 2:] - bounds[:, :2]
        if np.allclose(size, cell, rtol=1e-6):
            # squares of the grid: each is its own cell
            col = np.floor((bounds[:, 0] - left) / cell + 0.5).astype(int)
            row = np.floor((top - bounds[:, 3]) / cell + 0.5).astype(int)
            values[row, col] = codes
        else:
            rasterio.features.rasterize(
                zip(geometry, codes, strict=True), out=values, transform=place
            )
        colours = {code: (*colour, 255) for code, colour in COLOURS.items()}
        with rasterio.open(
            path, "w", driver="GPKG", APPEND_SUBDATASET="YES", RASTER_TABLE=table,
            RASTER_IDENTIFIER=tr("qgis.overview", lang, title=entry.title), TILE_FORMAT="PNG8",
            width=width, height=height, count=1, dtype="uint8", crs=info["crs"], transform=place,
        ) as file:  # fmt: skip
            # colours first: tiles written before them would be grey
            file.write_colormap(1, {**colours, 255: (0, 0, 0, 0)})
            file.write(values, 1)
        steps = [2**n for n in range(1, 9) if 2**n * 256 <= max(width, height)]
        if steps:
            with rasterio.open(f"GPKG:{path}:{table}", "r+") as file:
                file.build_overviews(steps, Resampling.nearest)
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("UPDATE gpkg_contents SET last_change = ?", (stamp,))
    return Overview(table, round(cell * _TAKES_OVER))


# --- words for codes -------------------------------------------------------------------


def _domain(column: str, lang: str) -> dict[str, str]:
    """Return code → words for a column of class codes; empty for others."""
    kind = {"degurba_l1": ("unit", 1), "degurba_l2": ("unit", 2), "code": ("class", 2)}.get(column)
    if kind is None:
        return {}
    prefix, level = kind
    return {str(c): tr(f"{prefix}.{c}", lang) for c in level_codes(level) if c not in (0, 10)}


def _with_words(qml: str, lang: str) -> str:
    """Return a style in which codes show as words, and the row number not at all."""
    if "<fieldConfiguration" in qml:
        return qml
    head, sign, _ = qml.partition("<qgis")
    root = ET.fromstring(qml[len(head) :] if sign else qml)
    columns = [a.get("field", "") for a in root.iter("alias")]
    domains = {c: d for c in columns if (d := _domain(c, lang))}
    if not columns:
        ET.indent(root, " ")
        return head + ET.tostring(root, encoding="unicode") + "\n"
    box = ET.SubElement(root, "fieldConfiguration")
    hidden = ET.SubElement(ET.SubElement(box, "field", {"name": "fid"}), "editWidget")
    hidden.set("type", "Hidden")
    ET.SubElement(ET.SubElement(hidden, "config"), "Option")
    for column, domain in domains.items():
        widget = ET.SubElement(ET.SubElement(box, "field", {"name": column}), "editWidget")
        widget.set("type", "ValueMap")
        options = ET.SubElement(ET.SubElement(widget, "config"), "Option", {"type": "Map"})
        listed = ET.SubElement(options, "Option", {"type": "List", "name": "map"})
        for code, words in domain.items():
            pair = ET.SubElement(listed, "Option", {"type": "Map"})
            ET.SubElement(pair, "Option", {"type": "QString", "name": words, "value": code})
    ET.indent(root, " ")
    return head + ET.tostring(root, encoding="unicode") + "\n"


# --- the project's text ----------------------------------------------------------------


def project_xml(
    file: str,
    layers: Sequence[MapLayer],
    styles: Mapping[str, str],
    crs: Mapping[int, tuple[str, str]],
    view: View,
    *,
    lang: str,
    title: str,
    sources: Sequence[str],
    synthetic: bool,
    stamp: str,
    overviews: Mapping[str, Overview],
) -> str:
    """Return the project as QGIS's own text format.

    Parameters
    ----------
    file
        Name of the GeoPackage.
    layers
        In the order of the legend; see :func:`qala.export.arrangement.arrange`.
    styles
        Layer name → QML.
    crs
        srs_id → authority code, WKT.
    view
        What the map shows.
    lang, title, sources, synthetic
        As for :func:`embed_project`.
    stamp
        Time noted in the project.
    overviews
        Layer name → its overview.
    """
    root = ET.Element(
        "qgis",
        {
            # the oldest version meant: older files are read by newer ones, which say so
            "version": "3.22.16-Białowieża",
            "projectname": title,
            "saveUser": "qala",
            "saveUserFull": "qala",
            "saveDateTime": stamp[:19],
        },
    )
    ET.SubElement(root, "homePath", {"path": ""})
    ET.SubElement(root, "title").text = title
    _srs(ET.SubElement(root, "projectCrs"), view.authid, view.wkt)
    # as QGIS makes ids, the same in every run; it replaces ids of 10 letters and fewer
    ids = {e.name: f"{e.name}_{uuid.uuid5(_NAMESPACE, e.name)}".replace("-", "_") for e in layers}
    _tree(root, file, layers, ids, lang, overviews)
    canvas = ET.SubElement(root, "mapcanvas", {"name": "theMapCanvas", "annotationsVisible": "1"})
    ET.SubElement(canvas, "units").text = "meters"
    box = _extent(view, _FRAME[2] / _FRAME[3], 1.05)
    extent = ET.SubElement(canvas, "extent")
    for key, value in box.items():
        ET.SubElement(extent, key).text = f"{value:.3f}"
    ET.SubElement(canvas, "rotation").text = "0"
    _srs(ET.SubElement(canvas, "destinationsrs"), view.authid, view.wkt)
    drawn = ET.SubElement(root, "projectlayers")
    for entry in layers:
        layer = _map_layer(drawn, file, entry, ids[entry.name], styles.get(entry.name), crs)
        if entry.name in overviews:
            _scales(layer, 0, overviews[entry.name].scale)
            _overview_layer(drawn, file, entry, ids[entry.name], overviews[entry.name], crs, lang)
    order = ET.SubElement(root, "layerorder")
    for entry in layers:
        ET.SubElement(order, "layer", {"id": ids[entry.name]})
    _properties(root)
    about = ET.SubElement(root, "projectMetadata")
    for key, text in (("title", title), ("author", "qala"), ("creation", stamp[:19])):
        ET.SubElement(about, key).text = text
    if sources:
        ET.SubElement(about, "abstract").text = "; ".join(sources)
    layouts = ET.SubElement(root, "Layouts")
    _layout(
        layouts, file, layers, ids, view, lang=lang, title=title, sources=sources,
        synthetic=synthetic,
    )  # fmt: skip
    settings = ET.SubElement(root, "ProjectViewSettings", {"UseProjectScales": "0"})
    seen = ET.SubElement(settings, "DefaultViewExtent", {k: f"{v:.3f}" for k, v in box.items()})
    _srs(seen, view.authid, view.wkt)
    ET.indent(root, " ")
    head = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
    return head + ET.tostring(root, encoding="unicode") + "\n"


def _srs(parent: ET.Element, authid: str, wkt: str) -> None:
    box = ET.SubElement(parent, "spatialrefsys")
    ET.SubElement(box, "wkt").text = wkt
    ET.SubElement(box, "authid").text = authid


def _extent(view: View, ratio: float, margin: float) -> dict[str, float]:
    """Return the box of a frame (width / height) that holds the view."""
    height = max(view.height, view.width / ratio) * margin
    width = height * ratio
    return {
        "xmin": view.x - width / 2,
        "ymin": view.y - height / 2,
        "xmax": view.x + width / 2,
        "ymax": view.y + height / 2,
    }


def _source(file: str, entry: MapLayer) -> str:
    return f"./{file}|layername={entry.name}"


def _tree(
    root: ET.Element,
    file: str,
    layers: Sequence[MapLayer],
    ids: Mapping[str, str],
    lang: str,
    overviews: Mapping[str, Overview],
) -> None:
    """Write the legend: map layers, then a group of tables."""
    top = ET.SubElement(root, "layer-tree-group")
    tables = [entry for entry in layers if entry.group == "tables"]
    for entry in layers:
        if entry.group == "tables":
            continue
        if entry.name not in overviews:
            _tree_layer(top, file, entry, ids[entry.name])
            continue
        # one box to tick for the layer and what stands for it from afar
        both = ET.SubElement(
            top,
            "layer-tree-group",
            {
                "name": entry.title,
                "checked": "Qt::Checked" if entry.shown else "Qt::Unchecked",
                "expanded": "1" if entry.shown else "0",
            },
        )
        _tree_layer(both, file, replace(entry, shown=True), ids[entry.name])
        ET.SubElement(
            both,
            "layer-tree-layer",
            {
                "id": f"{ids[entry.name]}_overview",
                "name": tr("qgis.overview", lang, title=entry.title),
                "checked": "Qt::Checked",
                "expanded": "0",
                "providerKey": "gdal",
                "source": f"GPKG:./{file}:{overviews[entry.name].table}",
            },
        )
    if tables:
        group = ET.SubElement(
            top,
            "layer-tree-group",
            {"name": tr("qgis.tables", lang), "checked": "Qt::Unchecked", "expanded": "0"},
        )
        for entry in tables:
            _tree_layer(group, file, entry, ids[entry.name])
    order = ET.SubElement(top, "custom-order", {"enabled": "0"})
    for entry in layers:
        ET.SubElement(order, "item").text = ids[entry.name]


def _tree_layer(parent: ET.Element, file: str, entry: MapLayer, id: str) -> None:
    ET.SubElement(
        parent,
        "layer-tree-layer",
        {
            "id": id,
            "name": entry.title,
            "checked": "Qt::Checked" if entry.shown else "Qt::Unchecked",
            "expanded": "1" if entry.shown else "0",
            "providerKey": "ogr",
            "source": _source(file, entry),
        },
    )


def _map_layer(
    parent: ET.Element,
    file: str,
    entry: MapLayer,
    id: str,
    style: str | None,
    crs: Mapping[int, tuple[str, str]],
) -> ET.Element:
    shape = next((s for s in ("Polygon", "Line", "Point") if s.upper() in entry.geometry), "")
    attributes = {
        "type": "vector",
        "geometry": shape or "No geometry",
        "styleCategories": "AllStyleCategories",
    }
    layer = ET.SubElement(parent, "maplayer", attributes)
    ET.SubElement(layer, "id").text = id
    ET.SubElement(layer, "datasource").text = _source(file, entry)
    ET.SubElement(layer, "layername").text = entry.title
    if shape:
        _srs(ET.SubElement(layer, "srs"), *crs.get(entry.srs_id, ("", "")))
    ET.SubElement(layer, "provider", {"encoding": "UTF-8"}).text = "ogr"
    if style:
        source = ET.fromstring(style[style.index("<qgis") :])
        for key in _STYLE_KEYS:
            value = source.get(key)
            if value is not None:
                layer.set(key, value)
        layer.extend(list(source))
    manager = ET.SubElement(layer, "map-layer-style-manager", {"current": "default"})
    ET.SubElement(manager, "map-layer-style", {"name": "default"})
    return layer


def _scales(layer: ET.Element, largest: int, smallest: int) -> None:
    """Draw a layer between two scales, given by denominators."""
    layer.set("hasScaleBasedVisibilityFlag", "1")
    layer.set("maxScale", str(largest))
    layer.set("minScale", str(smallest))


def _overview_layer(
    parent: ET.Element,
    file: str,
    entry: MapLayer,
    id: str,
    overview: Overview,
    crs: Mapping[int, tuple[str, str]],
    lang: str,
) -> None:
    layer = ET.SubElement(parent, "maplayer", {"type": "raster"})
    _scales(layer, overview.scale, 1_000_000_000)
    ET.SubElement(layer, "id").text = f"{id}_overview"
    ET.SubElement(layer, "datasource").text = f"GPKG:./{file}:{overview.table}"
    ET.SubElement(layer, "layername").text = tr("qgis.overview", lang, title=entry.title)
    _srs(ET.SubElement(layer, "srs"), *crs[entry.srs_id])
    ET.SubElement(layer, "provider").text = "gdal"
    bands = {"redBand": "1", "greenBand": "2", "blueBand": "3", "alphaBand": "4"}
    pipe = ET.SubElement(layer, "pipe")
    ET.SubElement(pipe, "rasterrenderer", {"type": "multibandcolor", "opacity": "1", **bands})


def _properties(root: ET.Element) -> None:
    """Write the settings QGIS looks for: relative paths, a white map, kilometres."""
    values: dict[str, dict[str, tuple[str, str]]] = {
        "Gui": {f"CanvasColor{part}Part": ("int", "255") for part in ("Red", "Green", "Blue")},
        "Measurement": {
            "AreaUnits": ("QString", "km2"),
            "DistanceUnits": ("QString", "km"),
        },
        "Paths": {"Absolute": ("bool", "false")},
        "SpatialRefSys": {"ProjectionsEnabled": ("int", "1")},
    }
    box = ET.SubElement(root, "properties")
    for group, entries in values.items():
        part = ET.SubElement(box, group)
        for key, (kind, value) in entries.items():
            ET.SubElement(part, key, {"type": kind}).text = value


# --- the print layout ------------------------------------------------------------------


def nice_scale(least: float) -> int:
    """Return the next round scale.

    Examples
    --------
    >>> nice_scale(2_130_000), nice_scale(7_600), nice_scale(10_000)
    (2250000, 8000, 10000)
    """
    power = 10.0 ** math.floor(math.log10(max(least, 1.0)))
    for step in (1, 1.25, 1.5, 1.75, 2, 2.25, 2.5, 2.75, 3, 4, 5, 6, 8, 10):
        if step * power >= least * (1 - 1e-9):
            return round(step * power)
    return round(10 * power)


def _layout(
    parent: ET.Element,
    file: str,
    layers: Sequence[MapLayer],
    ids: Mapping[str, str],
    view: View,
    *,
    lang: str,
    title: str,
    sources: Sequence[str],
    synthetic: bool,
) -> None:
    """Write an A3 map: title, map, legend, scale, north, sources."""
    from qala import __version__

    layout = ET.SubElement(
        parent, "Layout", {"name": tr("qgis.layout", lang), "units": "mm", "printResolution": "300"}
    )
    pages = ET.SubElement(layout, "PageCollection")
    page = _item(pages, 65638, "page", (0, 0, *PAGE), background=True, z=0)
    symbol = ET.SubElement(
        page, "symbol", {"type": "fill", "name": "", "alpha": "1", "clip_to_extent": "1"}
    )
    white = ET.SubElement(
        symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"}
    )
    options = ET.SubElement(white, "Option", {"type": "Map"})
    for key, value in (("color", "255,255,255,255"), ("style", "solid"), ("outline_style", "no")):
        ET.SubElement(options, "Option", {"type": "QString", "name": key, "value": value})
    least = max(view.width / (_FRAME[2] / 1000), view.height / (_FRAME[3] / 1000)) * 1.02
    scale = nice_scale(least)
    width, height = scale * _FRAME[2] / 1000, scale * _FRAME[3] / 1000
    # items on top come first
    side_x, side_y, side_width = _SIDE
    _label(layout, "title", title, (_FRAME[0], 8, 400, 14), size=24, bold=True, z=6)
    _scale_bar(layout, scale, lang, (side_x, 230, side_width, 12))
    words = (
        f"{tr('qgis.scale', lang)} 1 : "
        f"[% format_number(map_get(item_variables('map'), 'map_scale'), 0, "
        f"'{'en' if lang == 'en' else 'ru'}') %]"
    )
    _label(layout, "scale", words, (side_x, 245, side_width - 16, 7), size=10, z=5)
    arrow = _item(
        layout, 65640, "north", (side_x + side_width - 14, 226, 12, 17), z=5,
        file="base64:" + base64.b64encode(_NORTH.encode()).decode(), mode="0", resizeMode="0",
        anchorPoint="4", northMode="0", northOffset="0", pictureRotation="0",
        pictureWidth="0", pictureHeight="0", svgFillColor="51,51,51,255",
        svgBorderColor="51,51,51,255", svgBorderWidth="0.2", mapUuid=_uuid("map"),
    )  # fmt: skip
    ET.SubElement(arrow, "PictureExpression", {"active": "", "expression": ""})
    listed = list(dict.fromkeys(s.strip() for s in sources if s.strip()))
    notes = [tr("qgis.sources", lang, sources="; ".join(listed))] if listed else []
    notes.append(tr("qgis.made", lang, version=__version__))
    _label(layout, "sources", "\n".join(notes), (_FRAME[0], 275, 400, 17), size=8, z=5)
    if synthetic:
        _label(
            layout, "synthetic", tr("qgis.synthetic", lang), (side_x, 254, side_width, 16),
            size=11, bold=True, colour=(178, 24, 43), z=5,
        )  # fmt: skip
    _legend(layout, file, layers, ids, lang, (side_x, side_y, side_width, 196))
    frame = _item(
        layout, 65639, "map", _FRAME, frame=True, background=True, z=1, drawCanvasItems="true",
        mapRotation="0", mapFlags="0", keepLayerSet="false", followPreset="false",
        followPresetName="", labelMargin="0,mm", isTemporal="0",
    )  # fmt: skip
    edges = {
        "xmin": view.x - width / 2,
        "ymin": view.y - height / 2,
        "xmax": view.x + width / 2,
        "ymax": view.y + height / 2,
    }
    ET.SubElement(frame, "Extent", {k: f"{v:.6f}" for k, v in edges.items()})
    _srs(ET.SubElement(frame, "crs"), view.authid, view.wkt)
    ET.SubElement(frame, "LayerSet")
    ET.SubElement(frame, "AtlasMap", {"scalingMode": "2", "margin": "0.1", "atlasDriven": "0"})
    ET.SubElement(layout, "Atlas", {"enabled": "0", "coverageLayer": "", "hideCoverage": "0"})


def _uuid(name: str) -> str:
    return "{" + str(uuid.uuid5(_NAMESPACE, name)) + "}"


def _item(
    parent: ET.Element,
    kind: int,
    id: str,
    place: tuple[float, float, float, float],
    *,
    z: int,
    frame: bool = False,
    background: bool = False,
    **attributes: str,
) -> ET.Element:
    """Add an item; ``place`` is x, y, width, height in mm."""
    x, y, width, height = place
    item = ET.SubElement(
        parent,
        "LayoutItem",
        {
            "type": str(kind),
            "id": id,
            "uuid": _uuid(id),
            "templateUuid": _uuid(id),
            "position": f"{x:g},{y:g},mm",
            "positionOnPage": f"{x:g},{y:g},mm",
            "size": f"{width:g},{height:g},mm",
            "referencePoint": "0",
            "itemRotation": "0",
            "frame": str(frame).lower(),
            "frameJoinStyle": "miter",
            "outlineWidthM": "0.3,mm",
            "background": str(background).lower(),
            "zValue": str(z),
            "visibility": "1",
            "opacity": "1",
            "blendMode": "0",
            "excludeFromExports": "0",
            "positionLock": "false",
            "groupUuid": "",
            **attributes,
        },
    )
    ET.SubElement(item, "FrameColor", {"red": "90", "green": "90", "blue": "90", "alpha": "255"})
    white = {"red": "255", "green": "255", "blue": "255", "alpha": "255"}
    ET.SubElement(item, "BackgroundColor", white)
    return item


def _font(size: float, bold: bool = False) -> dict[str, str]:
    return {
        "style": "",
        # Qt finds the machine's own sans serif by the hint 0, so that no font is missing
        "description": f"Sans Serif,{size:g},-1,0,{75 if bold else 50},0,0,0,0,0",
    }


def _label(
    layout: ET.Element,
    id: str,
    text: str,
    place: tuple[float, float, float, float],
    *,
    size: float,
    z: int,
    bold: bool = False,
    colour: tuple[int, int, int] = (34, 34, 34),
) -> None:
    item = _item(
        layout, 65641, id, place, z=z, labelText=text, htmlState="0", halign="1", valign="32",
        marginX="0", marginY="0",
    )  # fmt: skip
    ET.SubElement(item, "LabelFont", _font(size, bold))
    red, green, blue = map(str, colour)
    ET.SubElement(item, "FontColor", {"red": red, "green": green, "blue": blue, "alpha": "255"})


def _scale_bar(
    layout: ET.Element, scale: int, lang: str, place: tuple[float, float, float, float]
) -> None:
    """Add a bar of two parts, about 50 mm long, in km or m."""
    ground = scale * 0.025
    step = nice_scale(ground / 1.6)
    in_km = step >= 1000
    item = _item(
        layout, 65646, "scale bar", place, z=5, style="Single Box", mapUuid=_uuid("map"),
        unitType="km" if in_km else "meters", unitLabel=tr("qgis.km" if in_km else "qgis.m", lang),
        numMapUnitsPerScaleBarUnit="1", numUnitsPerSegment=f"{step / 1000 if in_km else step:g}",
        numSegments="2", numSegmentsLeft="0", numSubdivisions="1", segmentSizeMode="0",
        segmentMillimeters=f"{step / scale * 1000:g}", height="3", labelBarSpace="2",
        boxContentSpace="0", alignment="0", labelHorizontalPlacement="0",
        labelVerticalPlacement="0", minBarWidth="30", maxBarWidth="90", outlineWidth="0.3",
        lineJoinStyle="miter", lineCapStyle="square", subdivisionsHeight="1.5",
    )  # fmt: skip
    ET.SubElement(
        item,
        "text-style",
        {
            "fontSize": "10",
            "fontSizeUnit": "Point",
            "fontWeight": "50",
            "textColor": "34,34,34,255",
            "textOpacity": "1",
        },
    )


def _legend(
    layout: ET.Element,
    file: str,
    layers: Iterable[MapLayer],
    ids: Mapping[str, str],
    lang: str,
    place: tuple[float, float, float, float],
) -> None:
    """Add a legend of the map's layers; those not drawn are left out as it is drawn."""
    item = _item(
        layout, 65642, "legend", place, z=4, title=tr("qgis.legend", lang), titleAlignment="1",
        map_uuid=_uuid("map"), legendFilterByMap="1", legendFilterByAtlas="0",
        resizeToContents="1", columnCount="1", splitLayer="0", equalColumnWidth="0",
        symbolWidth="7", symbolHeight="4", symbolAlignment="1", minSymbolSize="0",
        maxSymbolSize="0", boxSpace="0", columnSpace="2", lineSpacing="1", wrapChar="",
        fontColor="#222222", rasterBorder="1", rasterBorderColor="0,0,0,255",
        rasterBorderWidth="0", wmsLegendWidth="50", wmsLegendHeight="25",
    )  # fmt: skip
    box = ET.SubElement(item, "styles")
    for name, size, bold, edges in (
        ("title", 14, True, {"marginBottom": "3"}),
        ("group", 12, True, {"marginTop": "3"}),
        ("subgroup", 11, True, {"marginTop": "4"}),
        ("symbol", 10, False, {"marginTop": "1.8"}),
        ("symbolLabel", 10, False, {"marginTop": "1.8", "marginLeft": "2"}),
    ):
        style = ET.SubElement(
            box, "style", {"name": name, "indent": "0", "alignment": "1", **edges}
        )
        ET.SubElement(style, "styleFont", _font(size, bold))
    tree = ET.SubElement(item, "layer-tree-group")
    for entry in layers:
        if entry.group != "tables":
            _tree_layer(tree, file, entry, ids[entry.name])


def _zipped(text: str, stamp: str) -> bytes:
    """Return the project as QGIS zips it; the same text gives the same bytes."""
    numbers = [int(n) for n in re.findall(r"\d+", stamp)[:6]]
    when = tuple(numbers) if len(numbers) == 6 and numbers[0] >= 1980 else (1980, 1, 1, 0, 0, 0)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        entry = zipfile.ZipInfo(f"{PROJECT}.qgs", when)  # type: ignore[arg-type]
        entry.compress_type = zipfile.ZIP_DEFLATED
        entry.external_attr = 0o644 << 16
        archive.writestr(entry, text.encode("utf-8"))
    return buffer.getvalue()
