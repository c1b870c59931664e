"""A small extract with every fault a mapper makes, from file to the layer of issues."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import pytest
from extracts import Extract

from qala.city.check import check_twin
from qala.city.twin import city_flow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    osm = Extract()
    heights = ["12 m", "12,5", "39'", "-3", "abc"]
    for i, text in enumerate(heights):
        osm.box(100 + i, 2 * i, 0, height=text)
    osm.box(110, 10, 0, building__levels="2.5")
    osm.box(111, 12, 0, height="5", min_height="8")
    osm.way(120, [(0, 4), (1, 5), (1, 4), (0, 5)], building="yes")
    osm.box(121, 2, 4)
    osm.box(122, 2, 4)
    osm.way(123, [(4, 4), (5, 4), (5, 5)], close=False, building="yes")
    osm.way(124, [(6, 4), (6.05, 4), (6.05, 4.05)], building="yes")
    osm.way(125, [(8, 4), (9, 4), (9, 5), (8.5, 4), (8, 5)], building="yes")
    osm.box(130, 10, 4, building="house", roof__shape="gabled", height="8")
    osm.way(131, [(14, 4), (15, 4), (15, 5), (14, 5)], building__part="yes", height="4")
    osm.way(140, [(0, -1), (15, -1)], close=False, highway="residential", width="wide")
    osm.box(150, 0, 8, height="9", location="underground")
    osm.box(151, 2, 8, layer="-1")
    osm.box(152, 4, 8, layer="-1", height="6")
    osm.box(153, 6, 8, building="demolished")
    osm.box(154, 8, 8, building="no")
    osm.box(155, 10, 8, building="house", roof__shape="gabled", height="4", roof__height="9")
    osm.way(156, [(0, 12), (3, 12), (3, 15), (0, 15)], building="yes", height="5")
    osm.way(157, [(1, 13), (2, 13), (2, 14), (1, 14)])
    osm.relation(1, [("way", 156, "outer"), ("way", 157, "inner")], type="multipolygon",
                 building="school", height="7")  # fmt: skip
    osm.relation(2, [("way", 999, "outer")], type="multipolygon", building="yes")
    osm.relation(3, [("way", 998, "outer")], type="multipolygon", natural="water")
    osm.refs(158, [1, 2, 999_999, 1], building="yes")
    osm.way(159, [(6, 12), (8, 12), (8, 14), (6, 14)], height="5")
    osm.way(160, [(6, 12), (7, 13), (6, 14)])
    osm.relation(4, [("way", 159, "outer"), ("way", 160, "inner")], type="multipolygon",
                 building="yes", height="5")  # fmt: skip
    file = osm.write(tmp_path_factory.mktemp("bad") / "bad.osm")
    out = file.parent / "twin"
    city_flow(file, out, name="Synthetic", date="2026-01-01", lang="kk")
    return out


def test_every_fault_is_listed_with_its_object_and_the_twin_is_valid(folder: Path) -> None:
    check_twin(folder)
    issues = gpd.read_file(folder / "city.gpkg", layer="issues")
    told = {(r.id, r.action): r.reason for r in issues.itertuples()}
    assert "not above 0" in told["way/103", "refused"]
    assert "not a length" in told["way/104", "refused"]
    assert "min_height 8 m" in told["way/111", "refused"]
    assert "invalid outline" in told["way/120", "repaired"]
    assert "the same as that of way/121" in told["way/122", "refused"]
    assert "not closed" in told["way/123", "refused"]
    assert "smaller than" in told["way/124", "refused"]
    assert ("way/125", "repaired") in told
    assert "outside any building" in told["way/131", "repaired"]
    assert "width refused" in told["way/140", "refused"]


def test_what_does_not_stand_above_the_ground_is_told_and_left_out(folder: Path) -> None:
    issues = gpd.read_file(folder / "city.gpkg", layer="issues")
    told = {(r.layer, r.id): (r.action, r.reason) for r in issues.itertuples()}
    assert "location=underground" in told["buildings", "way/150"][1]
    assert "layer=-1" in told["buildings", "way/151"][1]
    assert "demolished" in told["buildings", "way/153"][1]
    assert "roof:height" in told["buildings", "way/155"][1]
    assert told["buildings", "way/156"] == (
        "refused",
        "drawn again as the outer ring of relation/1",
    )
    assert "do not close" in told["buildings", "relation/2"][1]
    assert "do not close" in told["water", "relation/3"][1]
    assert "outside the extract" in told["buildings", "way/158"][1]
    table = gpd.read_file(folder / "city.gpkg", layer="footprints").set_index("id")
    assert not {"way/150", "way/151", "way/153", "way/154", "way/156"} & set(table.index)
    assert table.loc["way/152", "height"] == 6
    school = table.loc["relation/1"].geometry
    assert school.area == pytest.approx(school.convex_hull.area * 8 / 9, rel=1e-3)
    # a hole that touches its outline is opened, or cut away
    shape = table.loc["relation/4"].geometry if "relation/4" in table.index else None
    assert shape is None or shape.is_valid
    assert ("buildings", "relation/4") in told or shape is not None


def test_heights_are_read_and_the_next_source_is_asked(folder: Path) -> None:
    table = gpd.read_file(folder / "city.gpkg", layer="buildings").set_index("id")
    assert table.loc[["way/100", "way/101"], "height"].tolist() == [12.0, 12.5]
    assert table.loc["way/102", "height"] == pytest.approx(39 * 0.3048, abs=1e-3)
    assert table.loc["way/110", "height"] == 7.5
    assert table.loc["way/110", "height_source"] == "levels"
    assert set(table.loc[["way/103", "way/104"], "height_source"]) <= {"neighbour", "type"}
    assert table.loc["way/130", "lod"] == "2.0"
    assert "way/122" not in table.index
    assert (table["min_height"] < table["height"]).all()
    assert table.crs.to_epsg() == 32642
