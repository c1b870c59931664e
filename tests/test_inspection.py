"""``qala check`` on every kind of file, sound and not, and ``qala doctor``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import builders
import geopandas as gpd
import numpy as np
import pytest
import rasterio
from builders import LEFT, TOP, listing, qala, write_tif
from shapely.geometry import Point, Polygon

from qala import inspection
from qala.inspection import examine, inspect_file
from qala.resources import resource

PEOPLE = builders.town()


def told(path: Path) -> str:
    """The words on a file, checked to leave it and its folder as they were."""
    folder = path.parent
    before = listing(folder) if folder.exists() else []
    data = path.read_bytes() if path.is_file() else b""
    found = inspect_file(path)
    assert (listing(folder) if folder.exists() else []) == before
    assert not path.is_file() or path.read_bytes() == data
    assert found.text().startswith(f"{path}: {found.kind}, {'' if found.sound else 'NOT '}sound")
    assert found.sound is not bool(found.problems)
    return found.text()


@pytest.mark.parametrize(
    ("values", "profile", "words"),
    [
        (PEOPLE, {}, ["raster, sound", "ESRI:54009", "12 × 14 cells of 1000 × 1000", "float64",
                      "not declared", f"sum {PEOPLE.sum():,.0f}", "aligned to GHSL"]),
        (PEOPLE, {"crs": None}, ["NOT sound", "has no CRS", "gdal_edit.py -a_srs"]),
        (PEOPLE, {"crs": "EPSG:4326", "cell": 0.01, "origin": (68, 43)}, ["NOT sound", "degrees"]),
        (PEOPLE, {"crs": "EPSG:3857"}, ["NOT sound", "not equal-area"]),
        (np.where(PEOPLE == 0, -200, PEOPLE), {},
         ["NOT sound", "falls to -200", "gdal_edit.py -a_nodata -200"]),
        (np.where(PEOPLE == 0, -200, PEOPLE), {"nodata": -200}, ["raster, sound", "-200"]),
        (np.where(PEOPLE == 0, 2**32 - 1, PEOPLE).astype("uint32"), {},
         ["NOT sound", "reaches 4.29497e+09", "-a_nodata"]),
        (np.where(PEOPLE == 0, np.inf, PEOPLE), {}, ["NOT sound", "infinite"]),
        (np.full((4, 4), np.nan), {}, ["NOT sound", "every cell is missing"]),
        (PEOPLE / 1e6, {}, ["sound", "read as share"]),
        ((PEOPLE * 100).astype("uint32"), {}, ["sound", "read as m2"]),
        (PEOPLE / 100, {}, ["sound", "does not tell its unit", "--built-unit"]),
        (PEOPLE, {"unit": "m2"}, ["unit", "m2"]),
        (np.tile(np.array([3, 2, 1, 0], np.uint8), (4, 1)), {"nodata": 255},
         ["sound", "classes of the Degree of Urbanisation, level 1"]),
        (np.tile(np.array([30, 21, 11, 10], np.uint8), (4, 1)), {}, ["level 2"]),
        (np.stack([PEOPLE, PEOPLE]), {}, ["NOT sound", "has 2 bands", "gdal_translate -b 1"]),
    ],
)  # fmt: skip
def test_rasters(tmp_path: Path, values: Any, profile: dict[str, Any], words: list[str]) -> None:
    text = told(write_tif(tmp_path / "a.tif", values, **profile))
    for word in words:
        assert word in text, text


def test_large_rasters_are_sampled_to_their_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(1).random((1_000, 300))
    path = write_tif(tmp_path / "a.tif", values, compress="DEFLATE")
    monkeypatch.setattr(inspection, "_ALL_CELLS", 20_000)
    assert "% of the strips" in told(path)
    path.write_bytes(path.read_bytes()[:-2_000])
    assert "NOT sound" in told(path)


@pytest.mark.parametrize("kind", ["gpkg", "geojson", "parquet", "shp", "fgb"])
def test_layers(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    units = builders.squares(["Түркістан", "Кентау"])
    if kind == "parquet":
        units.to_parquet(path)
    else:
        units.to_file(path, engine="pyogrio")
    text = told(path)
    assert ", sound" in text
    assert "2 features" in text
    assert "id columns" in text
    assert "unit" in text
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert "NOT sound" in told(path)


def test_layers_that_need_care(tmp_path: Path) -> None:
    bow = Polygon([(LEFT, TOP), (LEFT + 2, TOP - 2), (LEFT + 2, TOP), (LEFT, TOP - 2)])
    units = gpd.GeoDataFrame({"id": [1, 2]}, geometry=[bow, None])
    units.to_file(tmp_path / "a.gpkg", engine="pyogrio")
    text = told(tmp_path / "a.gpkg")
    for word in ("has no CRS", "1 features without geometry", "1 invalid geometries", "--repair"):
        assert word in text
    places = gpd.GeoDataFrame({"id": [1]}, geometry=[Point(68, 43)], crs=4326)
    places.to_file(tmp_path / "b.gpkg", engine="pyogrio")
    assert "1 features, Point, EPSG:4326" in told(tmp_path / "b.gpkg")
    (tmp_path / "c.gpkg").write_bytes(b"SQLite format 3\x00" + b"\x00" * 200)
    assert "NOT sound" in told(tmp_path / "c.gpkg")


def test_tables(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("unit;population\nТүркістан;5\n", encoding="utf-8")
    assert "population (int64)" in told(path)
    path.write_text("unit,population\n")
    assert "it has no rows" in told(path)
    path.write_bytes("unit,population\nТуркестан,5\n".encode("cp1251"))
    assert "save it as UTF-8" in told(path)
    gpd.pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "a.parquet")
    assert "table, sound" in told(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and no more")
    assert "NOT sound" in told(tmp_path / "b.parquet")


def test_workflows(tmp_path: Path) -> None:
    assert "workflow, sound" in told(resource("workflows", "smoke.yaml"))
    page = tmp_path / "w.yaml"
    page.write_text("workflow: urbanisation\ninputs: {population: P.tif}\n")
    assert "P.tif does not exist" in told(page)
    page.write_text("workflow: urbanisation\nspeed: 1\n")
    assert "'speed' is unknown" in told(page)


def test_json_pictures_and_pages(tmp_path: Path) -> None:
    assert "JSON, sound" in told(resource("workflows", "schema.json"))
    (tmp_path / "a.json").write_text("{")
    assert "NOT sound" in told(tmp_path / "a.json")
    (tmp_path / "l.json").write_text(json.dumps([1, 2]))
    assert "2 values" in told(tmp_path / "l.json")
    builders.squares().to_crs(4326).to_file(tmp_path / "g.json", driver="GeoJSON")
    assert "2 features" in told(tmp_path / "g.json")
    import matplotlib.image

    matplotlib.image.imsave(tmp_path / "p.png", np.zeros((40, 40)))
    assert "picture, sound" in told(tmp_path / "p.png")
    data = (tmp_path / "p.png").read_bytes()
    (tmp_path / "p.png").write_bytes(data[:-9])
    assert "cut short" in told(tmp_path / "p.png")
    (tmp_path / "r.html").write_text("<html><body></body></html>\n")
    assert "page, sound" in told(tmp_path / "r.html")
    (tmp_path / "r.html").write_text("<html><body>")
    assert "NOT sound" in told(tmp_path / "r.html")


def test_osm_extracts(reference: Path, tmp_path: Path) -> None:
    whole = reference / "osm" / "monaco_2021.osm.pbf"
    text = told(whole)
    for word in ("OSM extract, sound", "2021-12-03", "7.409", "ODbL 1.0"):
        assert word in text
    data = whole.read_bytes()
    cut = tmp_path / "cut.osm.pbf"
    for size in (3, 30, 100_000, len(data) - 1):
        cut.write_bytes(data[:size])
        assert "NOT sound" in told(cut), size
    cut.write_bytes(b"people" * 1_000)
    assert "no block of OSM data at byte 0" in told(cut)


def test_what_is_not_there_or_not_known(tmp_path: Path) -> None:
    assert "does not exist" in told(tmp_path / "none.tif")
    (tmp_path / "zero.tif").write_bytes(b"")
    assert "0 bytes" in told(tmp_path / "zero.tif")
    (tmp_path / "a.docx").write_bytes(b"PK")
    assert "qala reads rasters" in told(tmp_path / "a.docx")
    assert "holds no provenance.json" in told(tmp_path)


def test_several_files_end_with_two_if_one_is_not_sound(tmp_path: Path) -> None:
    good = write_tif(tmp_path / "a.tif", PEOPLE)
    bad = write_tif(tmp_path / "b.tif", -PEOPLE)
    both = qala("check", good, bad)
    assert both.code == 2
    assert "a.tif: raster, sound" in both.out
    assert "b.tif: raster, NOT sound" in both.out
    assert qala("check", good).code == 0


def test_every_packaged_file_is_sound(tmp_path: Path) -> None:
    copy = tmp_path / "sample"
    shutil.copytree(
        resource("sample"), copy, ignore=shutil.ignore_patterns("*.md", "*.py", "*.xml")
    )
    for path in sorted(copy.iterdir()):
        text = told(path)
        assert ", sound" in text
        if path.suffix == ".tif":
            with rasterio.open(path) as source:
                assert source.tags()["SYNTHETIC"] == "yes"
            assert "SYNTHETIC data" in text


def test_the_doctor_sees_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    lines, healthy = examine()
    text = "\n".join(lines)
    for word in ("numpy", "GDAL", "PROJ", "GPKG", "COG", "ESRI:54009", "packaged sample",
                 "GiB free", "cores"):  # fmt: skip
        assert word in text
    assert healthy, text
    told_by_command = qala("doctor")
    assert told_by_command.code == 0
    # what is missing is told with the way to get it
    import pyogrio

    monkeypatch.setattr(pyogrio, "list_drivers", lambda **_: {})
    lines, healthy = examine()
    assert not healthy
    assert any("MISSING" in line and "install pyogrio" in line for line in lines)
    assert qala("doctor").code == 2
