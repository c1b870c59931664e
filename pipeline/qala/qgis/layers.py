"""Layers of QGIS → files the worker reads; files it wrote → styled, grouped layers."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qgis.core import (  # type: ignore[import-not-found]
    QgsCoordinateTransformContext,
    QgsFields,
    QgsMapLayer,
    QgsProject,
    QgsRasterLayer,
    QgsSettings,
    QgsVectorFileWriter,
    QgsVectorLayer,
    QgsVectorLayerJoinInfo,
)

from ..errors import InputError
from ..export.arrangement import arrange

#: columns of results that are joined back to the user's own layer
_JOINED = (
    "degurba_l1",
    "degurba_l2",
    "population",
    "urban_share",
    "centre_share",
    "official_share",
    "ratio",
    "area",
    "role",
    "share",
)
#: of columns joined to the user's own layer
_PREFIX = "qala_"
_TABLES = {"en": "Tables", "ru": "Таблицы", "kk": "Кестелер"}
_URL = re.compile(r"^[a-z][a-z0-9+]*://|^/vsi", re.IGNORECASE)


def language() -> str:
    """Return the language of QGIS's own window: ``kk``, ``ru``, else ``en``."""
    chosen = str(QgsSettings().value("locale/userLocale", "en") or "en")[:2].lower()
    return chosen if chosen in ("kk", "ru") else "en"


def find_layer(given: Any, what: str) -> Any:
    """Return a layer of the project by name or id, or the layer itself, or None for a path.

    Raises
    ------
    InputError
        When several layers share the name.
    """
    if isinstance(given, QgsMapLayer):
        return given
    if not isinstance(given, str):
        return None
    project = QgsProject.instance()
    by_id = project.mapLayer(given)
    if by_id is not None:
        return by_id
    named = project.mapLayersByName(given)
    if len(named) > 1:
        raise InputError(
            f"{what}: {len(named)} layers of the project are called {given!r}",
            "one layer",
            "rename the others, or pass the layer itself (iface.activeLayer())",
        )
    return named[0] if named else None


def raster_path(given: Any, what: str) -> str:
    """Return the file of a raster given as a layer, a layer's name or a path.

    Raises
    ------
    InputError
        When it is no raster file.
    """
    layer = find_layer(given, what)
    if layer is None:
        return file_path(given, what, "a raster file or a raster layer of the project")
    if not isinstance(layer, QgsRasterLayer):
        raise InputError(f"{what}: {layer.name()!r} is no raster layer", "a raster layer")
    if not layer.isValid():
        raise InputError(
            f"{what}: layer {layer.name()!r} is broken", "a layer whose file can be read",
            "repair its source (right click, Change Data Source)",
        )  # fmt: skip
    source = layer.source().split("|")[0]
    if layer.dataProvider().name() != "gdal" or not Path(source).exists():
        raise InputError(
            f"{what}: layer {layer.name()!r} is not a file ({source[:80]})",
            "a raster in a file",
            "save it as GeoTIFF first (right click, Export, Save As)",
        )
    return str(Path(source).resolve())


def file_path(given: Any, what: str, expected: str) -> str:
    """Return the absolute path of a file that is there.

    Raises
    ------
    InputError
        When it is neither a path nor a layer of the project.
    """
    if not isinstance(given, (str, Path)):
        raise InputError(f"{what} is {given!r} ({type(given).__name__})", expected)
    text = str(given)
    if _URL.match(text):
        return text
    path = Path(text).expanduser()
    if not path.is_absolute():
        home = QgsProject.instance().homePath()
        path = (Path(home) if home else Path.home()) / path
    if not path.exists():
        names = sorted({la.name() for la in QgsProject.instance().mapLayers().values()})
        listed = f"; the project's layers are {', '.join(names[:12])}" if names else ""
        raise InputError(
            f"{what}: {text!r} is neither a file nor a layer of the project{listed}", expected
        )
    return str(path.resolve())


def vector_path(
    given: Any, what: str, folder: Path, *, id: str | None = None, selected_only: bool = False
) -> tuple[str, str | None, Any]:
    """Return a file the worker can read, its layer's name, and the layer itself.

    Parameters
    ----------
    given
        Vector layer of the project, its name, or a path (``file.gpkg|layername=x``).
    what
        What it is for, in messages.
    folder
        Where a layer that is no plain file is written as a GeoPackage.
    id
        Column that must be there.
    selected_only
        Take the selected features alone.

    Raises
    ------
    InputError
        When the layer cannot be used; with the columns it has.
    """
    layer = find_layer(given, what)
    if layer is None:
        if selected_only:
            raise InputError(
                f"{what} is a path; selected_only needs a layer of the project", "a vector layer"
            )
        text, _, name = str(given).partition("|layername=")
        path = file_path(text if name else given, what, "a vector file or layer of the project")
        return path, name.split("|")[0] or None, None
    if not isinstance(layer, QgsVectorLayer) or not layer.isValid():
        raise InputError(f"{what}: {layer.name()!r} is no vector layer that can be read", "one")
    names = [layer.fields().at(i).name() for i in _own_columns(layer)]
    if id is not None and id not in names:
        raise InputError(
            f"layer {layer.name()!r} has no column {id!r}", f"one of {', '.join(names)}"
        )
    if not layer.crs().isValid():
        raise InputError(
            f"layer {layer.name()!r} has no CRS", "a layer with a CRS",
            "set it (right click, Layer CRS, Set)",
        )  # fmt: skip
    if selected_only and layer.selectedFeatureCount() == 0:
        raise InputError(
            f"nothing is selected in layer {layer.name()!r}", "selected features",
            "select some, or leave selected_only out",
        )  # fmt: skip
    if layer.featureCount() == 0:
        raise InputError(f"layer {layer.name()!r} is empty", "features")
    return str(_exported(layer, what, folder, selected_only)), what, layer


def single_layer(given: Any, what: str, folder: Path) -> str:
    """Return a file the worker can read without naming a layer of it.

    Raises
    ------
    InputError
        When the layer cannot be used.
    """
    path, name, layer = vector_path(given, what, folder)
    if layer is None and name is not None:
        named = QgsVectorLayer(f"{path}|layername={name}", what, "ogr")
        path = vector_path(named, what, folder)[0]
    return path


def _own_columns(layer: Any) -> list[int]:
    """Return the columns of a layer without those that :func:`join_back` shows."""
    fields = layer.fields()
    return [
        i
        for i in range(fields.count())
        if not (
            fields.fieldOrigin(i) == QgsFields.FieldOrigin.OriginJoin
            and fields.at(i).name().startswith(_PREFIX)
        )
    ]


def _exported(layer: Any, what: str, folder: Path, selected_only: bool) -> Path:
    """Write a layer as it is now, edits included, to a GeoPackage of its own."""
    path = folder / f"{what}.gpkg"
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName = "GPKG"
    options.layerName = what
    options.fileEncoding = "UTF-8"
    options.onlySelectedFeatures = selected_only
    options.attributes = _own_columns(layer)
    # a layer may bring a column fid of its own
    options.layerOptions = ["FID=qala_fid", "GEOMETRY_NAME=geom", "SPATIAL_INDEX=NO"]
    written = QgsVectorFileWriter.writeAsVectorFormatV3(
        layer, str(path), QgsCoordinateTransformContext(), options
    )
    if written[0] != QgsVectorFileWriter.WriterError.NoError:
        raise InputError(
            f"layer {layer.name()!r} cannot be written to a GeoPackage ({written[1]})",
            "columns that differ by more than case, and one geometry type",
        )
    return path


# --- results -----------------------------------------------------------------------


def result_layers(path: Path) -> list[tuple[str, Any, bool]]:
    """Return the layers of a GeoPackage: group, layer with its default style, shown at first.

    Raises
    ------
    InputError
        When the file is no GeoPackage.
    """
    try:
        arranged = arrange(path)
    except sqlite3.DatabaseError as error:
        raise InputError(f"{path} is no GeoPackage ({error})", "results of qala") from error
    made = []
    for entry in arranged:
        layer = QgsVectorLayer(f"{path}|layername={entry.name}", entry.title, "ogr")
        if not layer.isValid():
            raise InputError(f"layer {entry.name!r} of {path} cannot be opened", "a sound file")
        layer.setCustomProperty("qala/layer", entry.name)
        made.append((entry.group, layer, entry.shown))
    return made


def add_results(path: Path, title: str, rasters: Sequence[Path] = ()) -> dict[str, Any]:
    """Add the layers of a result to the project, in a group of their own on top.

    Returns
    -------
    dict
        Name of the layer in the file → layer.
    """
    project = QgsProject.instance()
    root = project.layerTreeRoot()
    group = root.insertGroup(0, _free_name(root, title))
    tables: Any = None
    added: dict[str, Any] = {}
    for kind, layer, shown in result_layers(path):
        project.addMapLayer(layer, False)
        if kind == "tables":
            if tables is None:
                tables = group.addGroup(_TABLES[language()])
            node = tables.addLayer(layer)
        else:
            node = group.addLayer(layer)
        node.setItemVisibilityChecked(shown)
        node.setExpanded(shown)
        added[layer.customProperty("qala/layer")] = layer
    for file in rasters:
        layer = QgsRasterLayer(str(file), file.stem)
        if not layer.isValid():
            raise InputError(f"{file} cannot be opened", "a raster")
        project.addMapLayer(layer, False)
        place = len(group.children()) - (1 if tables is not None else 0)
        node = group.insertLayer(place, layer)
        node.setItemVisibilityChecked(False)
        node.setExpanded(False)
        added[file.stem] = layer
    if tables is not None:
        tables.setExpanded(False)
    if len(project.mapLayers()) == len(added):
        first = next((la for la in added.values() if la.isSpatial() and la.crs().isValid()), None)
        if first is not None:
            project.setCrs(first.crs())
    return added


def _free_name(root: Any, title: str) -> str:
    name, number = title, 2
    while root.findGroup(name) is not None:
        name, number = f"{title} ({number})", number + 1
    return name


def join_back(
    layer: Any, result: Any, id: str, *, by: str = "unit", columns: Sequence[str] | None = None
) -> list[str]:
    """Join a result to the user's layer by id, without changing its data.

    Parameters
    ----------
    layer, result
        The user's layer and the result.
    id
        Column of ids of the user's layer, and of the result where it has it.
    by
        The result's column of ids where it has another name.
    columns
        What to join; the columns of units where None.

    Returns
    -------
    list of str
        The columns that the layer now shows as ``qala_…``.
    """
    names = [f.name() for f in result.fields()]
    columns = [c for c in (_JOINED if columns is None else columns) if c in names and c != id]
    info = QgsVectorLayerJoinInfo()
    info.setJoinLayer(result)
    info.setJoinFieldName(id if id in names else by)
    info.setTargetFieldName(id)
    info.setPrefix(_PREFIX)
    info.setUsingMemoryCache(True)
    info.setJoinFieldNamesSubset(columns)
    for old in list(layer.vectorJoins()):
        if old.prefix() == _PREFIX:
            layer.removeJoin(old.joinLayerId())
    if not layer.addJoin(info):
        raise InputError(
            f"the results cannot be joined to {layer.name()!r} by {id!r}", "a vector layer"
        )
    return [f"{_PREFIX}{c}" for c in columns]
