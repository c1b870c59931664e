"""GeoPackages: whole or not at all, styled, described, equal for equal inputs."""

from __future__ import annotations

import errno
import hashlib
import json
import sqlite3
import subprocess
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pyproj
import pytest
import shapely
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.xr import xr_coords
from shapely.geometry import Point, box

from qala.errors import InputError, ProblemsError, TemporaryError
from qala.export import geopackage, styles
from qala.export.geopackage import Layer, cells_to_polygons, write_geopackage
from qala.grid import ghsl_geobox
from qala.messages import LANGUAGES, tr
from qala.raster import open_raster
from qala.rules import COLOURS, level_codes

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def raster(values: np.ndarray) -> xr.DataArray:
    height, width = values.shape
    grid = ghsl_geobox((0, 0, width * 1000.0, height * 1000.0))
    return xr.DataArray(values.astype(np.uint8), xr_coords(grid), ("y", "x"))


def layers() -> dict[str, Layer]:
    units = gpd.GeoDataFrame(
        {
            "unit": ["Түркістан", "Кентау"],
            "degurba_l2": [30, 11],
            "urban_share": [1.0, None],
            "ratio": [0.4, 1.3],
        },
        geometry=[box(0, 0, 2000, 1000), box(2000, 0, 4000, 1000)],
        crs="ESRI:54009",
    )
    centres = gpd.GeoDataFrame(
        {"name": ["Түркістан"], "name_ru": ["Туркестан"], "population": [179742.0]},
        geometry=[box(0, 0, 1000, 1000)],
        crs="ESRI:54009",
    )
    cells = cells_to_polygons(raster(np.array([[30, 30, 11, 255], [30, 21, 11, 11]])))
    return {
        "cells": Layer(cells, "Ұяшықтар", "Классы ячеек", style="cells"),
        "units": Layer(units, "Бірліктер", style="units", aliases={"ratio": "Моё слово"}),
        "share": Layer(units, "Үлес", style="urban_share"),
        "ratio": Layer(units, "Қатынас", style="ratio"),
        "centres": Layer(centres, style="centres"),
        "rates": Layer(pd.DataFrame({"unit": ["a", "b", "c"], "urban_share": [0.1, 0.2, None]})),
    }


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("out") / "Түркістан өңірі.gpkg"
    metadata = {
        "title": "Қала & село",
        "licence": "CC BY 4.0",
        "citation": "GHSL R2023A <doi>",
        "keywords": ["қала", "город"],
        "provenance": {"inputs": [{"path": "POP.tif", "sha256": "00"}]},
    }
    return write_geopackage(path, layers(), metadata=metadata, lang="kk", timestamp=NOON)


def rows(path: Path, sql: str) -> list[tuple]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(sql).fetchall()


def test_layers_come_back_with_crs_geometry_and_index(file: Path):
    for name, layer in layers().items():
        info = pyogrio.read_info(file, layer=name)
        assert info["features"] == len(layer.data)
        if isinstance(layer.data, gpd.GeoDataFrame):
            assert pyproj.CRS(info["crs"]).to_authority() == ("ESRI", "54009")
            assert info["geometry_name"] == "geom"
            assert info["capabilities"]["fast_spatial_filter"]
    assert rows(file, "SELECT organization, organization_coordsys_id, srs_id FROM "
                      "gpkg_spatial_ref_sys WHERE organization = 'ESRI'") == [
        ("ESRI", 54009, 54009)
    ]  # fmt: skip
    assert rows(file, "PRAGMA user_version") == [(10300,)]
    contents = dict(rows(file, "SELECT table_name, data_type FROM gpkg_contents"))
    assert contents["rates"] == "attributes"
    assert contents["units"] == "features"
    words = rows(file, "SELECT identifier, description FROM gpkg_contents WHERE table_name='cells'")
    assert words == [("Ұяшықтар", "Классы ячеек")]
    back = gpd.read_file(file, layer="units")
    assert list(back["unit"]) == ["Түркістан", "Кентау"]
    assert back.geometry.area.tolist() == [2e6, 2e6]


def test_reading_changes_nothing_and_leaves_nothing(file: Path):
    before = hashlib.sha256(file.read_bytes()).hexdigest()
    gpd.read_file(file, layer="cells")
    assert rows(file, "PRAGMA journal_mode") == [("delete",)]
    assert hashlib.sha256(file.read_bytes()).hexdigest() == before
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_each_layer_has_one_default_style_and_the_other_languages(file: Path):
    found = rows(
        file,
        "SELECT f_table_name, f_geometry_column, styleName, useAsDefault, styleQML"
        " FROM layer_styles",
    )
    for name, layer in layers().items():
        mine = [r for r in found if r[0] == name]
        assert {r[1] for r in mine} == {"geom" if isinstance(layer.data, gpd.GeoDataFrame) else ""}
        assert {r[2] for r in mine} == {"English", "Қазақша", "Русский"}
        assert len(mine) == 3
        assert [r[2] for r in mine if r[3]] == ["Қазақша"]
        for r in mine:
            ET.fromstring(r[4].split("\n", 1)[1])


def colours(qml: str) -> dict[str, tuple[str, str]]:
    """Return legend label → (value or range, colour) of a style."""
    root = ET.fromstring(qml.split("\n", 1)[1])
    fills = {
        s.get("name"): s.find(".//Option[@name='color']").get("value") for s in root.iter("symbol")
    }
    entries = [*root.iter("category"), *root.iter("range")]
    return {
        e.get("label"): (e.get("value") or e.get("upper"), fills[e.get("symbol")]) for e in entries
    }


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("level", [1, 2])
def test_cell_style_has_official_colours_and_words(lang: str, level: int):
    data = pd.DataFrame({"code": level_codes(level)})
    shown = colours(styles.named_style("cells", data, lang=lang))
    assert shown == {
        tr(f"class.{c}", lang): (str(c), ",".join(map(str, (*COLOURS[c], 255))))
        for c in level_codes(level)
    }


def test_graduated_style_draws_missing_values_only_where_there_are_some():
    data = pd.DataFrame({"urban_share": [0.1, None]})
    assert "No data" in colours(styles.named_style("urban_share", data))
    full = colours(styles.named_style("urban_share", data.dropna()))
    assert list(full) == ["0–20%", "20–40%", "40–60%", "60–80%", "80–100%"]
    # a share that rounding lifted above 1 still has a class
    assert float(full["80–100%"][0]) > 1


def test_styles_refuse_what_they_cannot_draw():
    with pytest.raises(InputError, match="neither degurba_l2"):
        styles.named_style("units", pd.DataFrame({"a": [1]}))
    with pytest.raises(ProblemsError, match="2 problems"):
        styles.graduated("x", [1, 0, 2], [(0, 0, 0)], ["a"])
    with pytest.raises(InputError, match="no symbol"):
        styles.outline(geometry="TIN")


def test_style_text_escapes_what_users_write():
    qml = styles.categorised("a", [('"<&>', "<b>", (1, 2, 3))], label="\"a\" || '<'")
    assert colours(qml) == {"<b>": ('"<&>', "1,2,3,255")}


def test_metadata_is_kept_as_iso_json_and_for_qgis(file: Path):
    found = rows(
        file,
        "SELECT md_standard_uri, mime_type, metadata, reference_scope, table_name"
        " FROM gpkg_metadata JOIN gpkg_metadata_reference ON md_file_id = id",
    )
    iso = next(r for r in found if "isotc211" in r[0])
    texts = [e.text for e in ET.fromstring(iso[2]).iter() if e.tag.endswith("CharacterString")]
    assert {"kaz", "Қала & село", "GHSL R2023A <doi>", "CC BY 4.0", "город"} <= set(texts)
    record = json.loads(next(r[2] for r in found if r[1] == "application/json"))
    assert record["provenance"]["inputs"][0]["path"] == "POP.tif"
    mine = {r[4]: ET.fromstring(r[2]) for r in found if r[3] == "table"}
    assert set(mine) == set(layers())
    assert mine["cells"].findtext("license") == "CC BY 4.0"
    assert mine["cells"].findtext("title") == "Ұяшықтар"
    extensions = rows(file, "SELECT count(*) FROM gpkg_extensions WHERE "
                            "extension_name = 'gpkg_metadata'")  # fmt: skip
    assert extensions == [(2,)]


def test_same_inputs_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    a = write_geopackage(tmp_path / "a.gpkg", layers(), timestamp=NOON)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(int(NOON.timestamp())))
    b = write_geopackage(tmp_path / "b.gpkg", layers())
    for table in ("gpkg_contents", "layer_styles", "gpkg_metadata_reference", "units", "cells"):
        assert rows(a, f"SELECT * FROM {table}") == rows(b, f"SELECT * FROM {table}")
    stamps = rows(a, "SELECT DISTINCT last_change FROM gpkg_contents")
    assert stamps == [("2026-01-01T12:00:00.000Z",)]
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(InputError, match="SOURCE_DATE_EPOCH"):
        write_geopackage(tmp_path / "c.gpkg", layers())


def test_all_problems_at_once_and_nothing_written(tmp_path: Path):
    good = layers()["units"].data
    bad = {
        "gpkg_x": Layer(good, "one"),
        "A": Layer(good.set_crs(None, allow_override=True), "two"),
        "a": Layer(good.assign(UNIT=1), "two"),
        "mixed": Layer(
            gpd.GeoDataFrame(geometry=[Point(0, 0), box(0, 0, 1, 1)], crs="ESRI:54009"), "three"
        ),
    }
    with pytest.raises(ProblemsError) as error:
        write_geopackage(tmp_path / "x.gpkg", bad)
    text = str(error.value)
    for words in ("reserved", "no CRS", "both called 'a'", "both called 'two'", "case: unit",
                  "mixes Point, Polygon"):  # fmt: skip
        assert words in text
    with pytest.raises(InputError, match="no layers"):
        write_geopackage(tmp_path / "x.gpkg", {})
    with pytest.raises(InputError, match="style 'nonsense'"):
        write_geopackage(tmp_path / "x.gpkg", {"a": Layer(good, style="nonsense")})
    assert not list(tmp_path.iterdir())


def test_a_failed_run_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "out.gpkg"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(geopackage, "_validate", full)
    with pytest.raises(TemporaryError, match="free some space"):
        write_geopackage(path, layers())
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["out.gpkg"]
    monkeypatch.undo()
    write_geopackage(path, layers())
    assert pyogrio.read_info(path, layer="rates")["features"] == 3


def test_lost_rows_are_found_before_the_file_appears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write = geopackage._write_layer

    def losing(work: Path, name: str, layer: Layer) -> None:
        write(work, name, Layer(layer.data.iloc[1:], layer.title))

    monkeypatch.setattr(geopackage, "_write_layer", losing)
    with pytest.raises(InputError, match="rows"):
        write_geopackage(tmp_path / "out.gpkg", layers())
    assert not list(tmp_path.iterdir())


def test_awkward_columns_and_empty_layers(tmp_path: Path):
    data = gpd.GeoDataFrame(
        {
            "fid": [5, 5],
            "kind": pd.Categorical(["a", "б"]),
            "when": pd.to_datetime(["2020-01-01", None]),
            "flag": [True, False],
            "small": np.array([1, 255], np.uint8),
        },
        geometry=[Point(1, 2), None],
        crs="EPSG:4326",
    )
    path = write_geopackage(
        tmp_path / "x.gpkg",
        {"a": Layer(data), "none": Layer(data.iloc[:0]), "t": Layer(pd.DataFrame({"x": []}))},
    )
    back = gpd.read_file(path, layer="a")
    assert list(back["fid"]) == [5, 5]
    assert list(back["kind"]) == ["a", "б"]
    assert list(back["small"]) == [1, 255]
    assert back.geometry.isna().tolist() == [False, True]
    assert len(gpd.read_file(path, layer="none")) == 0


# --- cells as polygons ---------------------------------------------------------------

_codes = st.sampled_from([30, 21, 11, 10, 255])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), st.data())
def test_polygons_hold_the_cells_of_each_class(height: int, width: int, data: st.DataObject):
    flat = data.draw(st.lists(_codes, min_size=height * width, max_size=height * width))
    values = np.array(flat).reshape(height, width)
    cells = raster(values)
    for dissolve in (True, False):
        found = cells_to_polygons(cells, dissolve=dissolve)
        counts = found.groupby("code")["cells"].sum().to_dict() if len(found) else {}
        assert counts == {c: int((values == c).sum()) for c in set(flat) - {255}}
        assert found.is_valid.all()
        for polygon, code in zip(found.geometry, found["code"], strict=True):
            point = polygon.representative_point()
            assert cells.sel(x=point.x, y=point.y, method="nearest") == code


def test_polygons_of_chosen_codes_carry_words():
    found = cells_to_polygons(raster(np.array([[30, 11], [30, 11]])), codes=[30])
    columns = ["code", "label_kk", "label_ru", "label_en", "cells", "area_km2"]
    assert found[columns].to_numpy().tolist() == [
        [30, "Қала орталығы", "Городской центр", "Urban centre", 2, 2.0]
    ]  # fmt: skip
    assert found.crs.to_authority() == ("ESRI", "54009")


def test_too_many_cells_are_refused_with_a_way_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(geopackage, "MAX_POLYGON_CELLS", 3)
    with pytest.raises(InputError, match="raster beside the GeoPackage"):
        cells_to_polygons(raster(np.full((2, 2), 11)))


def test_belgium_keeps_its_cells(reference: Path, tmp_path: Path):
    cells = open_raster(reference / "belgium/expected_cells/L2_default_2024.tif", "cells")
    polygons = cells_to_polygons(cells)
    path = write_geopackage(tmp_path / "be.gpkg", {"cells": Layer(polygons, style="cells")})
    back = gpd.read_file(path, layer="cells")
    codes, counts = np.unique(np.asarray(cells.compute()), return_counts=True)
    expected = {int(c): int(n) for c, n in zip(codes, counts, strict=True) if c in COLOURS}
    assert back.groupby("code")["cells"].sum().to_dict() == expected
    assert back.groupby("code").geometry.apply(lambda g: g.area.sum() / 1e6).to_dict() == (
        pytest.approx(expected)
    )


_QGIS = """
import os, sys
from qgis.core import *
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor
app = QgsApplication([], False); app.initQgis()
for name, x, y in (("cells", 500, 1500), ("cells", 1500, 500), ("units", 1000, 500),
                   ("share", 1000, 500), ("share", 3000, 500), ("ratio", 3000, 500)):
    layer = QgsVectorLayer(sys.argv[1] + "|layername=" + name, name, "ogr")
    job = QgsMapSettings(); job.setLayers([layer]); job.setOutputSize(QSize(11, 11))
    job.setDestinationCrs(layer.crs()); job.setBackgroundColor(QColor("white"))
    job.setExtent(QgsRectangle(x - 50, y - 50, x + 50, y + 50))
    run = QgsMapRendererSequentialJob(job); run.start(); run.waitForFinished()
    colour = run.renderedImage().pixelColor(5, 5)
    print(name, colour.red(), colour.green(), colour.blue(), layer.crs().authid(), flush=True)
centres = QgsVectorLayer(sys.argv[1] + "|layername=centres", "c", "ogr")
print("labels", centres.labelsEnabled(), centres.labeling().settings().fieldName, flush=True)
table = QgsVectorLayer(sys.argv[1] + "|layername=rates", "t", "ogr")
print("alias", table.attributeAlias(table.fields().indexOf("urban_share")), flush=True)
print("licence", table.metadata().licenses()[0], flush=True)
os._exit(0)
"""


def test_qgis_applies_the_styles(file: Path, tmp_path: Path):
    python = Path("/usr/bin/python3")
    environment = {"PATH": "/usr/bin:/bin", "QT_QPA_PLATFORM": "offscreen", "HOME": str(tmp_path),
                   "LC_ALL": "C.UTF-8"}  # fmt: skip
    probe = [str(python), "-c", "import qgis.core"]
    if (
        not python.exists()
        or subprocess.run(probe, env=environment, capture_output=True, check=False).returncode
    ):
        pytest.skip("QGIS is not installed for /usr/bin/python3")
    before = hashlib.sha256(file.read_bytes()).hexdigest()
    script = tmp_path / "look.py"
    script.write_text(_QGIS, encoding="utf-8")
    run = subprocess.run(
        [str(python), str(script), str(file)], env=environment, capture_output=True, text=True,
        timeout=120, check=True,
    )  # fmt: skip
    lines = run.stdout.splitlines()
    assert lines[:6] == [
        "cells 255 0 0 ESRI:54009",
        "cells 255 255 0 ESRI:54009",
        "units 255 0 0 ESRI:54009",
        "share 189 0 38 ESRI:54009",
        "share 204 204 204 ESRI:54009",
        "ratio 239 138 98 ESRI:54009",
    ]
    assert lines[6].startswith("labels True coalesce(")
    assert lines[7] == "alias " + tr("column.urban_share", "kk")
    assert lines[8] == "licence CC BY 4.0"
    assert hashlib.sha256(file.read_bytes()).hexdigest() == before
    assert [p.name for p in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("deep", [True, False])
def test_polygons_written_some_at_a_time_are_those_written_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deep: bool
) -> None:
    corners = np.random.default_rng(1).uniform(0, 100, (60, 3, 3))
    shapes = shapely.polygons(corners if deep else corners[..., :2])
    shapes[7] = shapely.multipolygons(shapes[[7, 8]])
    shapes[9] = None
    table = gpd.GeoDataFrame({"n": range(60)}, geometry=shapes, crs=32642)
    found = []
    for most in (1000, 1):
        monkeypatch.setattr(geopackage, "STREAMED", most)
        write_geopackage(tmp_path / "x.gpkg", {"x": Layer(table)})
        found.append(gpd.read_file(tmp_path / "x.gpkg", layer="x"))
    assert found[0].drop(columns="geometry").equals(found[1].drop(columns="geometry"))
    assert found[0].geometry.to_wkb().equals(found[1].geometry.to_wkb())
    assert found[1].has_z.sum() == (59 if deep else 0)


def test_what_goes_wrong_while_rows_are_made_is_told(tmp_path: Path) -> None:
    def surfaces(piece: Any) -> Any:
        raise InputError(f"{len(piece)} rows", "none")

    table = gpd.GeoDataFrame({"n": [1]}, geometry=[box(0, 0, 1, 1)], crs=32642)
    with pytest.raises(InputError, match="1 rows"):
        write_geopackage(tmp_path / "x.gpkg", {"x": Layer(table, surfaces=surfaces)})
    assert not list(tmp_path.iterdir())
