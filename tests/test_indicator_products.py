"""Indicators from files to files: the command, its layers, words and refusals."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
from builders import KM, LEFT, TOP, listing, qala, write_tif
from pyproj import Transformer
from shapely.geometry import Point, box

from qala.amenities import read_amenities
from qala.errors import InputError
from qala.indicator_products import open_networks, read_areas, read_buildings, shown
from qala.indicators import COLUMNS

TO_DEGREES = Transformer.from_crs("ESRI:54009", "EPSG:4326", always_xy=True).transform


def osm(path: Path, nodes: list[tuple], ways: list[tuple]) -> Path:
    """Write OpenStreetMap XML: nodes (x km, y km, tags), ways (node numbers from 0, tags)."""

    def tags(pairs: dict) -> str:
        return "".join(f'<tag k="{k}" v="{v}"/>' for k, v in pairs.items())

    lines = ['<?xml version="1.0" encoding="UTF-8"?><osm version="0.6">']
    for number, (x, y, pairs) in enumerate(nodes, 1):
        lon, lat = TO_DEGREES(LEFT + x * KM, TOP - y * KM)
        lines.append(f'<node id="{number}" version="1" lon="{lon:.7f}" lat="{lat:.7f}">'
                     f"{tags(pairs)}</node>")  # fmt: skip
    for number, (refs, pairs) in enumerate(ways, 1):
        inside = "".join(f'<nd ref="{r + 1}"/>' for r in refs)
        lines.append(f'<way id="{number}" version="1">{inside}{tags(pairs)}</way>')
    path.write_text("\n".join([*lines, "</osm>"]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything `qala indicators` reads, 4 × 2 km."""
    folder = tmp_path_factory.mktemp("town")
    people = np.array([[900.0, 800, 50, 60], [700, 600, 40, 30]])
    write_tif(folder / "p20.tif", people)
    write_tif(folder / "p15.tif", people * 0.9)
    write_tif(folder / "b20.tif", people * 100, unit="m2")
    write_tif(folder / "b15.tif", people * 80, unit="m2")
    units = gpd.GeoDataFrame(
        {"code": ["A1", "B2"], "name_kk": ["Қала", "Ауыл"], "name_en": ["Town", "Village"],
         "name_ru": ["Город", "Аул"]},
        geometry=[box(LEFT, TOP - 2 * KM, LEFT + 2 * KM, TOP),
                  box(LEFT + 2 * KM, TOP - 2 * KM, LEFT + 4 * KM, TOP)],
        crs="ESRI:54009",
    )  # fmt: skip
    units.to_crs(4326).to_file(folder / "units.gpkg")
    nodes = [
        (0.1, 1.0, {}), (1.0, 1.0, {}), (2.0, 1.0, {}), (3.9, 1.0, {}),  # the street
        (1.0, 0.1, {}), (1.0, 1.9, {}),
        (0.5, 0.9, {"highway": "bus_stop"}),
        (1.5, 0.9, {"railway": "station"}),
        (1.0, 0.8, {"amenity": "school", "name": "Мектеп"}),
        (0.6, 0.5, {"amenity": "hospital"}),
        (0.3, 1.2, {"amenity": "fire_station"}),
        (0.8, 1.1, {}), (1.0, 1.1, {}), (1.0, 1.3, {}), (0.8, 1.3, {}),  # a park
    ]  # fmt: skip
    ways = [
        ([0, 1, 2, 3], {"highway": "secondary", "cycleway": "lane"}),
        ([4, 1, 5], {"highway": "residential"}),
        ([11, 12, 13, 14, 11], {"leisure": "park"}),
        ([0, 4], {"power": "line"}),
        ([4, 2], {"highway": "footway", "wheelchair": "yes"}),
    ]
    osm(folder / "town.osm", nodes, ways)
    cameras = [Point(TO_DEGREES(LEFT + 0.5 * KM, TOP - KM))]
    gpd.GeoDataFrame({"n": [1]}, geometry=cameras, crs=4326).to_file(folder / "cams.geojson")
    flood = gpd.GeoDataFrame({"n": [1]}, geometry=[box(LEFT, TOP - 2 * KM, LEFT + KM, TOP)],
                             crs="ESRI:54009")  # fmt: skip
    flood.to_file(folder / "flood.gpkg")
    (folder / "official.csv").write_text("code,urban_share\nA1,1.0\nB2,0.0\n", encoding="utf-8")
    return folder


def everything(town: Path, out: Path, *more: str) -> list[str]:
    return [
        "indicators", "--units", str(town / "units.gpkg"), "--id", "code",
        "--population", f"2015={town / 'p15.tif'}", "--population", f"2020={town / 'p20.tif'}",
        "--built", f"2015={town / 'b15.tif'}", "--built", f"2020={town / 'b20.tif'}",
        "--osm", str(town / "town.osm"), "--network", str(town / "town.osm"),
        "--points", f"cams={town / 'cams.geojson'}@300", "--zones", str(town / "flood.gpkg"),
        "-o", str(out), *more,
    ]  # fmt: skip


def test_the_whole_way(town: Path, tmp_path: Path) -> None:
    out, page, figure = (tmp_path / n for n in ("i.gpkg", "i.html", "i.png"))
    done = qala(*everything(town, out, "--page", page, "--figure", figure, "--synthetic",
                            "--lang", "kk", "--title", "Сынақ"))  # fmt: skip
    assert done.code == 0, done.err
    assert "not computed: roof_area" in done.out
    assert "not computable: traffic_speed" in done.out
    assert "SYNTHETIC" in done.out
    layers = [str(n) for n in pyogrio.list_layers(out)[:, 0]]
    assert {"indicators_units", "stops_500m", "high_capacity_1000m", "open_space_400m",
            "emergency_fire", "emergency_hospital", "cams_300m", "indicators",
            "definitions"} <= set(layers)  # fmt: skip
    units = gpd.read_file(out, layer="indicators_units").set_index("zone")
    assert units.loc["A1", "name"] == "Қала"
    assert units.loc["A1", "people_in_zones_flood"] == pytest.approx(1600 / 3000, rel=1e-3)
    assert units.loc["B2", "points_per_km2_cams"] == 0.0
    assert units.loc["A1", "lcrpgr"] == pytest.approx(0.05 / (np.log(1 / 0.9) / 5), rel=1e-6)
    assert units["cycle_share"].notna().all()
    table = pd.read_csv(tmp_path / "i.csv")
    assert tuple(table.columns) == COLUMNS
    assert table.loc[table["indicator"] == "co2", "status"].tolist() == ["not computable"]
    assert table["title"].str.contains("Жерді игеру").any()
    assert not (table["status"].ne("computed") & table["value"].notna()).any()
    with sqlite3.connect(out) as db:
        styled = {r[0] for r in db.execute("SELECT f_table_name FROM layer_styles")}
        (record,) = db.execute(
            "SELECT metadata FROM gpkg_metadata WHERE mime_type = 'application/json'"
        ).fetchone()
    assert set(layers) - {"layer_styles"} <= styled
    assert "sha256" in record
    assert '"synthetic": true' in record
    html = page.read_text(encoding="utf-8")
    for words in ("Есептелмеді", "Не вычислено", "Not computed", "Қала", "Город", "Town"):
        assert words in html
    assert "http" not in html.replace("http-equiv", "")  # nothing is fetched
    assert figure.read_bytes()[:4] == b"\x89PNG"


def test_without_an_extract_what_is_left(town: Path, tmp_path: Path) -> None:
    out = tmp_path / "few.gpkg"
    done = qala("indicators", "--units", town / "units.gpkg", "--id", "code", "--population",
                town / "p20.tif", "--official", town / "official.csv", "-o", out)  # fmt: skip
    assert done.code == 0, done.err
    units = gpd.read_file(out, layer="indicators_units").set_index("zone")
    assert units["official_urban_share"].tolist() == [1.0, 0.0]
    assert "stop_500m" not in units.columns
    assert "needs an OpenStreetMap extract (--osm)" in done.out


def test_all_problems_are_told_at_once_and_nothing_is_written(town: Path, tmp_path: Path) -> None:
    before = listing(tmp_path)
    done = qala(
        "indicators", "--units", town / "units.gpkg", "--id", "nope", "--population",
        tmp_path / "no.tif", "--osm", tmp_path / "no.osm.pbf", "--areas", town / "p20.tif",
        "--city", tmp_path, "--zones", tmp_path / "no.gpkg", "-o", tmp_path / "new" / "i.gpkg",
    )  # fmt: skip
    assert done.code == 2
    for words in ("no.tif does not exist", "no column 'nope'", "no.osm.pbf does not exist",
                  "city.gpkg does not exist", "no.gpkg does not exist", "p20.tif"):  # fmt: skip
        assert words in done.err, words
    assert "Traceback" not in done.err
    assert listing(tmp_path) == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--points", "cams"], "name=file"),
        (["--points", "a=x.gpkg", "--points", "a=y.gpkg"], "twice"),
        (["--population", "2020=other.tif"], "epoch 2020"),
        (["-o", "out.tif"], "GeoPackage"),
    ],
)
def test_single_mistakes(town: Path, tmp_path: Path, more: list[str], message: str) -> None:
    done = qala(*everything(town, tmp_path / "i.gpkg", *more))
    assert done.code == 2
    assert message in done.err
    assert listing(tmp_path) == []


def test_tags_are_read_as_the_wiki_means_them(tmp_path: Path) -> None:
    nodes = [
        (0, 0, {"railway": "station", "station": "light_rail"}),
        (0.1, 0, {"railway": "halt"}),
        (0.2, 0, {"public_transport": "platform", "bus": "yes", "highway": "bus_stop"}),
        (0.3, 0, {"public_transport": "station", "subway": "yes"}),
        (0.4, 0, {"amenity": "ferry_terminal"}),
        (0.5, 0, {"highway": "bus_stop", "disused": "yes"}),
        *[(x, y, {}) for x, y in ((1, 1), (1.2, 1), (1.2, 1.2), (1, 1.2))],
        *[(x, y, {}) for x, y in ((2, 1), (2.2, 1), (2.2, 1.2), (2, 1.2))],
    ]
    ring, other = [6, 7, 8, 9, 6], [10, 11, 12, 13, 10]
    ways = [
        (ring, {"leisure": "garden", "access": "private"}),
        (other, {"leisure": "park"}),
        ([6, 7], {"highway": "cycleway"}),
        ([7, 8], {"highway": "path", "bicycle": "designated", "wheelchair": "no"}),
        ([8, 9], {"highway": "residential", "cycleway:right": "track"}),
        ([9, 6], {"highway": "steps", "wheelchair": "yes"}),
        ([10, 11], {"man_made": "pipeline", "substance": "hot_water"}),
        (other, {"railway": "station", "building": "train_station"}),
    ]
    found = read_amenities(osm(tmp_path / "t.osm", nodes, ways))
    high = dict(zip(found.stops["id"], found.stops["high"], strict=True))
    assert high == {"node/1": False, "node/2": True, "node/3": False, "node/4": True,
                    "node/5": True, "way/8": True}  # fmt: skip
    assert len(found.green) == 2
    assert found.open_space["kind"].tolist() == ["park"]
    ways_found = found.ways.set_index("id")
    assert ways_found.loc[["way/3", "way/4", "way/5", "way/6"], "cycle"].tolist() == [
        True, True, True, False,
    ]  # fmt: skip
    assert not ways_found["barrier_free"].any()  # steps are none, whatever their tag
    assert ways_found["rated"].sum() == 2
    assert len(found.networks["heat"]) == 1
    with pytest.raises(InputError, match="holds no street"):
        read_amenities(osm(tmp_path / "e.osm", [(0, 0, {"addr:housenumber": "1"})], []))


def test_networks_by_mode(town: Path) -> None:
    file = str(town / "town.osm")
    assert set(open_networks([file])) == {"foot", "car"}
    assert set(open_networks([f"foot={file}"])) == {"foot"}
    with pytest.raises(InputError, match="two networks of mode foot"):
        open_networks([file, f"foot={file}"])
    with pytest.raises(InputError, match="not a whole network file"):
        open_networks([str(town / "p20.tif")])


def test_areas_and_twins_are_told_what_they_lack(town: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'area'"):
        read_areas(town / "flood.gpkg")
    with pytest.raises(InputError, match="no layer footprints"):
        read_buildings(town / "units.gpkg")
    plain = gpd.read_file(town / "flood.gpkg").assign(fua_code=["X"])
    plain.to_file(tmp_path / "a.gpkg", layer="fua")
    found = read_areas(tmp_path / "a.gpkg")
    assert found.areas["area"].tolist() == ["X"]
    assert found.cores is None


def test_numbers_as_people_read_them() -> None:
    assert shown(float("nan"), "share") == "–"
    assert shown(0.0, "km/km2") == "0.00"
    assert shown(1234567.8, "m2", "kk") == "1\u202f234\u202f568"


def page(town: Path, file: Path, extra: str = "") -> Path:
    """Write a workflow over the town."""
    file.write_text(
        f"""workflow: indicators
title: {{en: Town, ru: Город, kk: Қала}}
synthetic: true
sources: ["invented for the test"]
data: {town}
out: {file.parent / "out"}
inputs:
  population: {{2015: p15.tif, 2020: p20.tif}}
  built: {{2015: b15.tif, 2020: b20.tif}}
  units: {{path: units.gpkg, id: code}}
  osm: town.osm
  foot: town.osm
  points: {{cams: cams.geojson}}
  zones: {{flood: flood.gpkg}}
indicators: {{point_metres: {{cams: 300}}, catchments: false}}
outputs: {{language: kk, figures: false, report: false}}
{extra}""",
        encoding="utf-8",
    )
    return file


def test_a_workflow_is_made_once(town: Path, tmp_path: Path) -> None:
    file = page(town, tmp_path / "i.yaml")
    assert qala("run", file, "--dry-run").code == 0
    done = qala("run", file)
    assert done.code == 0, done.err
    out = tmp_path / "out"
    assert {"indicators.gpkg", "tables/indicators.csv", "tables/indicators.parquet",
            "provenance.json"} <= set(listing(out))  # fmt: skip
    table = pd.read_parquet(out / "tables" / "indicators.parquet")
    assert table["title"].str.contains("Жерді игеру").any()
    assert "300 м" in table.loc[table["indicator"] == "points_covered", "method"].iloc[0]
    again = qala("run", file)
    assert again.code == 0, again.err
    assert "Nothing changed" in again.out
    assert "co2" in again.out


@pytest.mark.parametrize(
    ("extra", "message"),
    [("bbox: [0, 0, 1, 1]", "bbox"), ("wrong: 1", "wrong"), ("cells: {chunk: 2}", "chunk")],
)
def test_a_wrong_workflow_is_refused(town: Path, tmp_path: Path, extra: str, message: str) -> None:
    done = qala("run", page(town, tmp_path / "i.yaml", extra))
    assert done.code == 2
    assert message in done.err
    assert listing(tmp_path) == ["i.yaml"]
