"""The project inside a GeoPackage: whole, the same each time, and what QGIS makes of it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sqlite3
import subprocess
import zipfile
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pyproj
import pytest
import rasterio
import xarray as xr
from odc.geo.xr import xr_coords
from shapely.geometry import MultiPolygon, Point, box

from qala.areas import areas_flow
from qala.city.demo import write_synthetic_turkistan
from qala.city.styles import HEIGHT_BREAKS, HEIGHT_COLOURS
from qala.city.twin import build_twin, write_gpkg
from qala.errors import InputError
from qala.export.arrangement import arrange
from qala.export.geopackage import Layer, cells_to_polygons, write_geopackage
from qala.export.project import PROJECT, embed_project, nice_scale
from qala.export.styles import (
    categorised,
)
from qala.grid import ghsl_geobox
from qala.messages import LANGUAGES, in_languages, tr
from qala.rules import COLOURS

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SCRIPT = Path(__file__).parent / "qgis/project.py"
SOURCES = ["Шекаралар: © OpenStreetMap contributors, ODbL 1.0", "GHSL R2023A"]


def layers() -> dict[str, Layer]:
    """A town, a suburb and a village near Turkistan, 60 km across; SYNTHETIC."""
    x, y = 5_590_000.0, 5_130_000.0
    shapes = [box(x + 20e3 * i, y, x + 20e3 * (i + 1), y + 20e3) for i in range(3)]
    units = gpd.GeoDataFrame(
        {"unit": ["а", "ә", "б"], "degurba_l2": [30, 21, 13], "urban_share": [1.0, 0.7, None]},
        geometry=shapes,
        crs="ESRI:54009",
    )
    centres = gpd.GeoDataFrame(
        {"name": ["Түркістан"], "population": [179742.0]},
        geometry=[box(x + 5e3, y + 5e3, x + 9e3, y + 9e3)],
        crs="ESRI:54009",
    )
    table = pd.DataFrame(units.drop(columns="geometry"))
    return {
        "units": Layer(units, "Бірліктер & сыныптар", style="units"),
        "urban_share": Layer(units, "Үлес", style="urban_share"),
        "rates": Layer(table, "Көрсеткіштер", style="table"),
        "urban_centres_2023": Layer(centres, "Орталықтар 2023", style="centres"),
        "urban_centres_2015": Layer(centres, "Орталықтар 2015", style="centres"),
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "Түркістан өңірі"
    folder.mkdir()
    path = write_geopackage(folder / "нәтиже & ко.gpkg", layers(), lang="kk", timestamp=NOON)
    return embed_project(path, lang="kk", title="Түркістан <облысы>", sources=SOURCES)


def project_of(path: Path) -> ET.Element:
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute("SELECT name, metadata, content FROM qgis_projects").fetchall()
    assert [r[0] for r in rows] == [PROJECT]
    assert json.loads(rows[0][1])["last_modified_time"] == "2026-01-01T12:00:00"
    archive = zipfile.ZipFile(io.BytesIO(bytes.fromhex(rows[0][2])))
    assert archive.namelist() == ["qala.qgs"]
    return ET.fromstring(archive.read("qala.qgs").decode().split("\n", 1)[1])


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- without QGIS ----------------------------------------------------------------------


def test_layers_lie_in_the_order_of_a_map(file: Path):
    found = arrange(file)
    assert [(e.name, e.group, e.shown) for e in found] == [
        ("urban_centres_2023", "map", True),
        ("urban_centres_2015", "map", False),
        ("units", "map", True),
        ("urban_share", "map", False),
        ("rates", "tables", False),
    ]
    assert [e.rows for e in found] == [1, 1, 3, 3, 3]


def test_project_names_its_layers_relative_to_the_file(file: Path):
    root = project_of(file)
    sources = {e.text for e in root.iter("datasource")}
    assert sources == {f"./{file.name}|layername={name}" for name in layers()}
    ids = [e.text or "" for e in root.findall("projectlayers/maplayer/id")]
    # QGIS gives a layer with a shorter id a new one, and the legend loses it
    assert all(len(i) > 10 for i in ids)
    assert len(set(ids)) == 5
    tree = [e.get("id") for e in root.find("layer-tree-group").iter("layer-tree-layer")]
    assert sorted(tree) == sorted(ids)


def test_project_is_the_same_each_time_and_changes_no_row(tmp_path: Path):
    first, second = tmp_path / "a/x.gpkg", tmp_path / "b/x.gpkg"
    for path in (first, second):
        path.parent.mkdir()
    write_geopackage(first, layers(), timestamp=NOON)
    shutil.copy(first, second)
    before = {n: gpd.read_file(first, layer=n).to_wkt() for n in ("units", "urban_centres_2023")}
    for path in (first, second):
        embed_project(path, title="t", sources=SOURCES, synthetic=True)
    assert digest(first) == digest(second)
    embed_project(first, title="t", sources=SOURCES, synthetic=True)
    with closing(sqlite3.connect(first)) as a, closing(sqlite3.connect(second)) as b:
        for table in ("qgis_projects", "layer_styles"):
            query = f"SELECT * FROM {table}"
            assert a.execute(query).fetchall() == b.execute(query).fetchall()
        assert a.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    for name, text in before.items():
        assert gpd.read_file(first, layer=name).to_wkt().equals(text)
    assert [p.name for p in first.parent.iterdir()] == ["x.gpkg"]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_words_of_the_layout_and_of_codes(tmp_path: Path, lang: str):
    path = write_geopackage(tmp_path / "x.gpkg", layers(), lang=lang, timestamp=NOON)
    embed_project(path, lang=lang, title="T", sources=SOURCES)
    root = project_of(path)
    texts = [e.get("labelText") for e in root.iter("LayoutItem") if e.get("labelText")]
    assert any(tr("qgis.scale", lang) in t for t in texts)
    assert any(SOURCES[0] in t for t in texts)
    assert root.find("Layouts/Layout").get("name") == tr("qgis.layout", lang)
    with closing(sqlite3.connect(path)) as db:
        styles = dict(
            db.execute(
                "SELECT styleName, styleQML FROM layer_styles WHERE f_table_name = 'units'"
            ).fetchall()
        )
    for name, code in (("English", "en"), ("Русский", "ru"), ("Қазақша", "kk")):
        qml = ET.fromstring(styles[name].split("\n", 1)[1])
        pairs = {
            o.get("value"): o.get("name")
            for f in qml.iter("field") if f.get("name") == "degurba_l2"
            for o in f.iter("Option") if o.get("value")
        }  # fmt: skip
        assert pairs["30"] == tr("unit.30", code)


@pytest.mark.parametrize(
    ("west", "width", "expected"),
    [(68.0, 1.0, "EPSG:32642"), (5.0, 1.0, "EPSG:32631"), (46.0, 41.0, "")],
)
def test_crs_of_the_map_suits_the_region(tmp_path: Path, west: float, width: float, expected: str):
    data = gpd.GeoDataFrame({"a": [1]}, geometry=[box(west, 43, west + width, 44)], crs=4326)
    path = write_geopackage(tmp_path / "x.gpkg", {"areas": Layer(data)}, timestamp=NOON)
    root = project_of(embed_project(path))
    assert (root.findtext("projectCrs/spatialrefsys/authid") or "") == expected
    crs = pyproj.CRS(root.findtext("projectCrs/spatialrefsys/wkt"))
    seen = {c.tag: float(c.text or 0) for c in root.find("mapcanvas/extent")}
    to = pyproj.Transformer.from_crs(4326, crs, always_xy=True)
    for corner in ((west, 43), (west + width, 44)):
        x, y = to.transform(*corner)
        assert seen["xmin"] < x < seen["xmax"]
        assert seen["ymin"] < y < seen["ymax"]


@pytest.mark.parametrize("least", [900, 1_000, 24_999, 25_001, 2_999_999])
def test_scales_are_round_and_large_enough(least: int):
    scale = nice_scale(least)
    assert least <= scale <= least * 1.34
    assert float(f"{scale:.2e}") == scale


def test_what_cannot_be_a_map_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="does not exist"):
        embed_project(tmp_path / "no.gpkg")
    (tmp_path / "text.gpkg").write_text("not a database, though long enough to be read" * 50)
    with pytest.raises(InputError, match="no GeoPackage"):
        embed_project(tmp_path / "text.gpkg")
    table = write_geopackage(tmp_path / "t.gpkg", {"t": Layer(pd.DataFrame({"a": [1]}))})
    before = digest(table)
    with pytest.raises(InputError, match="no layer with features"):
        embed_project(table)
    empty = layers()["units"].data.iloc[:0]
    path = write_geopackage(tmp_path / "e.gpkg", {"units": Layer(empty, style="units")})
    with pytest.raises(InputError, match="no layer with features"):
        embed_project(path)
    with pytest.raises(InputError, match="language 'de'"):
        embed_project(table, lang="de")
    assert digest(table) == before


def test_a_region_across_the_antimeridian_is_one_map(tmp_path: Path):
    parts = [box(179, -18, 180, -17), box(-180, -18, -179, -17)]
    data = gpd.GeoDataFrame({"a": [1, 2]}, geometry=parts, crs=4326)
    path = write_geopackage(tmp_path / "x.gpkg", {"areas": Layer(data)}, timestamp=NOON)
    seen = {c.tag: float(c.text or 0) for c in project_of(path).find("mapcanvas/extent")}
    assert seen["xmax"] - seen["xmin"] < 500_000


def test_a_crs_tied_to_nothing_is_the_map_s_own(tmp_path: Path):
    local = pyproj.CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]')
    data = gpd.GeoDataFrame({"a": [1]}, geometry=[box(0, 0, 90, 50)], crs=local)
    path = write_geopackage(tmp_path / "x.gpkg", {"areas": Layer(data)}, timestamp=NOON)
    root = project_of(path)
    assert "site" in (root.findtext("projectCrs/spatialrefsys/wkt") or "")
    seen = {c.tag: float(c.text or 0) for c in root.find("mapcanvas/extent")}
    assert seen["xmin"] < 0
    assert seen["xmax"] > 90


def test_every_geopackage_with_features_holds_a_project(tmp_path: Path):
    told = {"title": "Ауыл", "licence": "CC BY 4.0", "citation": "doi:1", "synthetic": True}
    path = write_geopackage(tmp_path / "a.gpkg", layers(), metadata=told, timestamp=NOON)
    texts = {e.get("id"): e.get("labelText") for e in project_of(path).iter("LayoutItem")}
    assert texts["title"] == "Ауыл"
    assert "CC BY 4.0; doi:1" in (texts["sources"] or "")
    assert texts["synthetic"] == tr("qgis.synthetic", "en")
    named = write_geopackage(
        tmp_path / "b.gpkg", layers(), metadata={**told, "sources": ["Statbel"]}, timestamp=NOON
    )
    texts = {e.get("id"): e.get("labelText") for e in project_of(named).iter("LayoutItem")}
    assert "Statbel" in (texts["sources"] or "")
    assert "CC BY" not in (texts["sources"] or "")
    # a project that names another file would open nothing
    assert {e.text.split("|")[0] for e in project_of(named).iter("datasource")} == {"./b.gpkg"}
    table = write_geopackage(tmp_path / "t.gpkg", {"t": Layer(pd.DataFrame({"a": [1]}))})
    with closing(sqlite3.connect(table)) as db:
        names = {r[0] for r in db.execute("SELECT name FROM sqlite_master")}
    assert "qgis_projects" not in names


def test_the_file_holds_a_project_in_each_language(tmp_path: Path):
    titles = in_languages("layer.units")
    units = layers()["units"].data
    given = {
        "units": Layer(units, titles, style="units"),
        "own": Layer(
            units, {k: f"{k} 1" for k in LANGUAGES},
            style={k: categorised("unit", [("а", k, (1, 2, 3))]) for k in LANGUAGES},
        ),
    }  # fmt: skip
    told = {"title": {k: f"place {k}" for k in LANGUAGES},
            "sources": ["Statbel", {"en": "grids", "kk": "торлар", "ru": "растры"}]}  # fmt: skip
    path = write_geopackage(tmp_path / "x.gpkg", given, metadata=told, lang="ru", timestamp=NOON)
    with closing(sqlite3.connect(path)) as db:
        rows = dict(db.execute("SELECT name, content FROM qgis_projects"))
        default = db.execute(
            "SELECT styleName, styleQML FROM layer_styles"
            " WHERE f_table_name = 'own' AND useAsDefault"
        ).fetchall()
        title = db.execute(
            "SELECT identifier FROM gpkg_contents WHERE table_name = 'units'"
        ).fetchone()
    assert title == (titles["ru"],)
    assert [n for n, _ in default] == ["Русский"]
    assert 'label="ru"' in default[0][1]
    assert set(rows) == {"qala", "qala English", "qala Қазақша"}
    for name, code in (("qala", "ru"), ("qala English", "en"), ("qala Қазақша", "kk")):
        archive = zipfile.ZipFile(io.BytesIO(bytes.fromhex(rows[name])))
        root = ET.fromstring(archive.read("qala.qgs").decode().split("\n", 1)[1])
        named = {e.get("name") for e in root.iter("layer-tree-layer")}
        assert named == {titles[code], f"{code} 1"}
        legend = {e.get("label") for e in root.iter("category")}
        assert {code, tr("unit.30", code)} <= legend
        assert root.find("Layouts/Layout").get("name") == tr("qgis.layout", code)
        texts = {e.get("id"): e.get("labelText") for e in root.iter("LayoutItem")}
        assert texts["title"] == f"place {code}"
        assert f"Statbel; {told['sources'][1][code]}" in texts["sources"]


def test_no_style_names_a_font(tmp_path: Path):
    path = write_geopackage(tmp_path / "x.gpkg", layers(), timestamp=NOON)
    with closing(sqlite3.connect(path)) as db:
        styles = [r[0] for r in db.execute("SELECT styleQML FROM layer_styles")]
    assert styles
    # QGIS warns of fonts a machine lacks; without a name it takes its own
    assert not [s for s in styles if "fontFamily" in s]
    assert not [e for e in project_of(path).iter() if e.get("fontFamily")]


def test_points_and_a_file_without_styles(tmp_path: Path):
    points = gpd.GeoDataFrame({"a": [1]}, geometry=[Point(68.2, 43.3)], crs=4326)
    points.to_file(tmp_path / "p.gpkg", layer="stops")
    embed_project(tmp_path / "p.gpkg")
    with closing(sqlite3.connect(tmp_path / "p.gpkg")) as db:
        assert db.execute("SELECT count(*) FROM qgis_projects").fetchone() == (1,)


# --- in QGIS ------------------------------------------------------------------------------


def qgis(script: Path, *arguments: str, home: Path, user: int | None = None) -> dict[str, object]:
    """Run a script by QGIS's own Python; skip where there is none."""
    python = Path("/usr/bin/python3")
    values = {"PATH": "/usr/bin:/bin", "QT_QPA_PLATFORM": "offscreen", "HOME": str(home),
              "LC_ALL": "C.UTF-8", "XDG_RUNTIME_DIR": str(home), "TMPDIR": str(home)}  # fmt: skip
    probe = [str(python), "-c", "import qgis.core"]
    if (
        not python.exists()
        or subprocess.run(probe, env=values, capture_output=True, check=False).returncode
    ):
        pytest.skip("QGIS is not installed for /usr/bin/python3")
    run = subprocess.run(
        [str(python), str(script), *arguments], env=values, capture_output=True, text=True,
        timeout=150, check=False, **({} if user is None else {"user": user, "group": user}),
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    found: dict[str, object] = {}
    for line in run.stdout.splitlines():
        if line.startswith("{"):
            found.update(json.loads(line))
    return found


def places(*points: tuple[float, float], crs: str) -> list[str]:
    to = pyproj.Transformer.from_crs("ESRI:54009", crs, always_xy=True)
    return ["{:.3f},{:.3f}".format(*to.transform(x, y)) for x, y in points]


def test_qgis_opens_the_map_with_the_official_colours(file: Path, tmp_path: Path):
    x, y = 5_590_000.0, 5_130_000.0
    looked = places(
        (x + 15e3, y + 15e3), (x + 30e3, y + 10e3), (x + 50e3, y + 10e3), (x - 5e3, y),
        (x + 5e3, y + 7e3), crs="EPSG:32642",
    )  # fmt: skip
    before = digest(file)
    found = qgis(SCRIPT, str(file), str(tmp_path), *looked, home=tmp_path)
    assert found["read"] is True
    assert found["broken"] == []
    assert found["warnings"] == []
    assert found["crs"] == "EPSG:32642"
    assert found["title"] == "Түркістан <облысы>"
    assert found["shown"] == ["Орталықтар 2023", "Бірліктер & сыныптар"]
    assert found["tables"] == ["Көрсеткіштер"]
    assert found["colours"] == [
        list(COLOURS[30]), list(COLOURS[21]), list(COLOURS[13]), [255, 255, 255], [150, 0, 20]
    ]  # fmt: skip
    words = found["words"]
    assert isinstance(words, dict)
    [column] = [k for k in words if k.startswith("Бірліктер")]
    assert words[column][tr("unit.30", "kk")] == "30"
    assert found["layout"] == [tr("qgis.layout", "kk"), 420.0, 297.0]
    items = found["items"]
    assert isinstance(items, list)
    assert {"legend", "map", "north", "scale", "scale bar", "sources", "title"} <= set(items)
    texts = found["texts"]
    assert isinstance(texts, dict)
    assert texts["title"] == "Түркістан <облысы>"
    assert texts["scale"].startswith("Масштаб 1 : ")
    assert "OpenStreetMap" in texts["sources"]
    scale = found["scale"]
    assert isinstance(scale, float)
    assert nice_scale(scale * 0.999) == pytest.approx(scale, rel=1e-6)
    # opening, drawing and printing left the file and its folder as they were
    assert digest(file) == before
    assert [p.name for p in file.parent.iterdir()] == [file.name]
    printed(tmp_path / "qgis-layout.png")


def printed(picture: Path) -> None:
    """Look at the printed map: colours of classes in the frame, and the same in the legend."""
    import matplotlib.image as mpimg
    import numpy as np

    image = (mpimg.imread(picture)[..., :3] * 255).round().astype(int)
    height, width = image.shape[:2]
    assert (width, height) == pytest.approx((420 / 25.4 * 100, 297 / 25.4 * 100), abs=2)
    frame, side = image[:, : int(width * 0.72)], image[:, int(width * 0.73) :]
    for code in (30, 21, 13):
        for part, least in ((frame, 1000), (side, 100)):
            assert (np.abs(part - COLOURS[code]).sum(axis=2) < 6).sum() > least, code


@pytest.mark.parametrize("dissolve", [True, False])
def test_many_cells_are_drawn_from_a_raster_at_small_scales(tmp_path: Path, dissolve: bool):
    codes = np.kron(np.array([[30, 21], [13, 255]], np.uint8), np.ones((20, 20), np.uint8))
    grid = ghsl_geobox((5_590_000, 5_130_000, 5_630_000, 5_170_000))
    raster = xr.DataArray(codes, xr_coords(grid), ("y", "x"))
    data = cells_to_polygons(raster, dissolve=dissolve)
    if dissolve:
        # one patch of one cell, so that the cell's size can be told
        speck = gpd.GeoDataFrame(
            {"code": [11]}, geometry=[box(5_629e3, 5_130e3, 5_630e3, 5_131e3)], crs=data.crs
        )
        data = pd.concat([data, speck], ignore_index=True)
    folder = tmp_path / "ұяшықтар"
    folder.mkdir()
    path = write_geopackage(
        folder / "x.gpkg", {"cells": Layer(data, "Ұяшықтар", style="cells")}, timestamp=NOON
    )
    embed_project(path, lang="kk", overview_from=2)
    rows = len(data)
    assert pyogrio.read_info(path, layer="cells")["features"] == rows
    with closing(sqlite3.connect(path)) as db:
        contents = dict(db.execute("SELECT table_name, last_change FROM gpkg_contents"))
        assert set(contents.values()) == {"2026-01-01T12:00:00.000Z"}
        assert db.execute("PRAGMA user_version").fetchone() == (10300,)
    # again: the raster is there already
    embed_project(path, lang="kk", overview_from=2)
    with rasterio.open(f"GPKG:{path}:cells_overview") as file:
        assert (file.width, file.height, file.count) == (40, 40, 4)
        assert [int(v) for v in file.read()[:3, 5, 5]] == list(COLOURS[30])
        assert file.read(4)[30, 30] == 0
    assert [p.name for p in path.parent.iterdir()] == ["x.gpkg"]
    x, y = 5_590e3, 5_130e3
    looked = places((x + 9.5e3, y + 29.5e3), (x + 29.5e3, y + 29.5e3), (x + 9.5e3, y + 9.5e3),
                    crs="EPSG:32642")  # fmt: skip
    before = digest(path)
    found = qgis(SCRIPT, str(path), str(tmp_path), *looked, home=tmp_path)
    overview = tr("qgis.overview", "kk", title="Ұяшықтар")
    assert found["broken"] == []
    assert found["warnings"] == []
    assert found["near and far"] == [["Ұяшықтар"], [overview]]
    expected = [list(COLOURS[c]) for c in (30, 21, 13)]
    assert found["colours"] == expected
    assert found["far"] == expected
    assert found["legend"] == [["Ұяшықтар", True]]
    assert digest(path) == before
    assert [p.name for p in path.parent.iterdir()] == ["x.gpkg"]


def test_qgis_opens_it_from_a_folder_it_cannot_write_to(file: Path, tmp_path: Path):
    if os.geteuid() != 0:
        user = None
    else:
        # root writes anywhere: look as nobody does
        user = 65534
        for folder in (tmp_path, *tmp_path.parents):
            if folder == Path("/tmp"):
                break
            folder.chmod(folder.stat().st_mode | 0o055)
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o777)
    file.chmod(0o444)
    file.parent.chmod(0o555)
    before = digest(file)
    try:
        try:
            found = qgis(SCRIPT, str(file), str(home), home=home, user=user)
        except PermissionError:
            pytest.skip("cannot become another user here")
        assert found["read"] is True
        assert found["broken"] == []
        assert found["shown"] == ["Орталықтар 2023", "Бірліктер & сыныптар"]
        assert digest(file) == before
        assert [p.name for p in file.parent.iterdir()] == [file.name]
    finally:
        file.parent.chmod(0o755)


def test_qgis_opens_it_after_the_folder_moved(file: Path, tmp_path: Path):
    moved = tmp_path / "elsewhere"
    file.parent.rename(moved)
    found = qgis(SCRIPT, str(moved / file.name), str(tmp_path), home=tmp_path)
    assert found["broken"] == []
    assert found["paths"] == [str(moved / file.name)]


def keep(picture: Path, name: str) -> None:
    """Keep a picture for the documentation, where that is asked for."""
    folder = os.environ.get("QALA_QGIS_PICTURES")
    if folder:
        shutil.copy(picture, Path(folder) / name)


def a_roof(solid: MultiPolygon) -> Point:
    """Return a point inside the largest roof of a building, off its edges."""
    top = max(p.exterior.coords[0][2] for p in solid.geoms)
    low = min(p.exterior.coords[0][2] for p in solid.geoms)
    roofs = [p for p in solid.geoms if min(c[2] for c in p.exterior.coords) > (top + low) / 3]
    return max(roofs, key=lambda p: p.area).representative_point()


def test_a_city_opens_with_its_heights_and_in_3d(tmp_path: Path):
    extract = tmp_path / "small.osm.pbf"
    write_synthetic_turkistan(extract, buildings=300)
    twin = build_twin(extract, date="2026-01-01", synthetic=True)
    path = write_gpkg(twin, tmp_path / "city.gpkg", lang="kk")
    table = twin.buildings
    simple = table[table["parent"].isna() & ~table["id"].isin(table["parent"])]
    simple = simple.sort_values("height").iloc[[0, len(simple) // 2, -1]]
    solids = gpd.read_file(path, layer="buildings").set_index("id").geometry
    middle = [a_roof(solids[name]) for name in simple["id"]]
    found = qgis(
        SCRIPT, str(path), str(tmp_path), *(f"{p.x:.3f},{p.y:.3f}" for p in middle), home=tmp_path
    )
    assert found["read"] is True
    assert found["broken"] == []
    assert found["warnings"] == []
    assert found["3d"] == [tr("city.layer.buildings", "kk")]
    of_height = np.searchsorted(HEIGHT_BREAKS, simple["height"].to_numpy(), side="right") - 1
    expected = [list(HEIGHT_COLOURS[i]) for i in of_height]
    assert len(set(of_height)) > 1
    assert found["near colours"] == expected
    shown = found["shown"]
    assert isinstance(shown, list)
    order = [tr(f"city.layer.{n}", "kk") for n in ("buildings", "streets", "networks", "green")]
    assert [n for n in shown if n in order] == order
    texts = found["texts"]
    assert isinstance(texts, dict)
    assert "SYNTHETIC" in texts["sources"] or "OpenStreetMap" in texts["sources"]
    items = found["items"]
    assert isinstance(items, list)
    assert "synthetic" in items
    keep(tmp_path / "qgis-layout.png", "qgis-city-layout.png")


def test_functional_areas_open_with_cores_and_zones(tmp_path: Path):
    sample = Path(__file__).parents[1] / "data/sample"
    path = tmp_path / "areas.gpkg"
    areas_flow(
        population=sample / "GHS_POP_E2023_SYNTHETIC_54009_1000.tif", units=sample / "units.gpkg",
        id="unit", distance=True, out=path, lang="ru", source="Границы: OpenStreetMap, ODbL 1.0",
    )  # fmt: skip
    units = gpd.read_file(path, layer="membership").to_crs("EPSG:32642")
    places = [
        units.geometry[units["role"] == role].iloc[0].representative_point()
        for role in ("core", "outside")
    ]
    before = digest(path)
    found = qgis(
        SCRIPT, str(path), str(tmp_path), *(f"{p.x:.3f},{p.y:.3f}" for p in places), home=tmp_path
    )
    assert found["broken"] == []
    assert found["warnings"] == []
    assert found["crs"] == "EPSG:32642"
    assert found["near colours"] == [[196, 30, 58], [238, 238, 230]]
    assert found["title"] == tr("areas.legend_estimated", "ru")
    texts = found["texts"]
    assert isinstance(texts, dict)
    assert "ODbL" in texts["sources"]
    assert digest(path) == before
    keep(tmp_path / "qgis-layout.png", "qgis-areas-layout.png")
