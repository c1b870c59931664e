"""Buildings: repairs and refusals by id, parts and the rest they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd
import pytest
import shapely

from qala.city import buildings
from qala.city.buildings import building_table, clean_outlines, touching
from qala.city.osm import BUILDING_TAGS, local_utm, read_osm
from qala.errors import InputError

X, Y = 500_000.0, 4_800_000.0


def at(x0: float, y0: float, x1: float, y1: float) -> shapely.Polygon:
    return shapely.box(X + x0, Y + y0, X + x1, Y + y1)


def drawn(rows: list[tuple[str, shapely.Geometry, dict[str, Any]]]) -> gpd.GeoDataFrame:
    data: dict[str, list[Any]] = {"id": [r[0] for r in rows]}
    for tag in BUILDING_TAGS:
        data[tag] = [r[2].get(tag) for r in rows]
    data["kind"] = [r[2].get("building", "yes") for r in rows]
    return gpd.GeoDataFrame(data, geometry=[r[1] for r in rows], crs="EPSG:32642")


HOUSE = {"building": "house"}


def test_outlines_as_drawn_are_repaired_or_refused_by_id() -> None:
    bow = shapely.Polygon([(X, Y), (X + 10, Y + 10), (X + 10, Y), (X, Y + 10)])
    touch = shapely.Polygon(
        at(50, 0, 70, 20).exterior.coords,
        [[(X + 50, Y + 10), (X + 55, Y + 12), (X + 55, Y + 8)]],
    )
    open_line = shapely.LineString([(X, Y), (X + 5, Y), (X + 5, Y + 5)])
    closed = shapely.LineString(at(100, 0, 110, 10).exterior.coords)
    table = drawn(
        [
            ("way/1", bow, HOUSE),
            ("way/2", at(20, 0, 20.5, 1), HOUSE),
            ("way/3", touch, HOUSE),
            ("way/4", open_line, HOUSE),
            ("way/5", closed, HOUSE),
            ("way/6", at(100, 0, 110, 10), HOUSE),
        ]
    )
    clean, issues = clean_outlines(table)
    told = {i[1]: (i[2], i[3]) for i in issues}
    assert told["way/1"][0] == "repaired"
    assert told["way/2"] == ("refused", "the outline is smaller than 1 m²")
    assert told["way/3"][0] == "repaired"
    assert "touch" in told["way/3"][1]
    assert told["way/4"] == ("refused", "the outline is not closed")
    assert told["way/6"] == ("refused", "the outline is the same as that of way/5")
    assert clean["id"].tolist() == ["way/1", "way/3", "way/5"]
    assert shapely.is_valid(clean.geometry.to_numpy()).all()
    assert not touching(clean.geometry.to_numpy()).any()
    # two triangles of 25 m² each
    assert clean.area[0] == pytest.approx(50, abs=0.5)


@pytest.mark.parametrize("rows", [1, 3, 1000])
def test_outlines_cleaned_at_a_time_never_change_a_table(
    reference: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    raw = read_osm(reference / "osm" / "monaco_2021.osm.pbf")
    outlines = raw.layers["buildings"].to_crs(32632)
    # the same again under other ids, and lines that do not close
    twice = outlines.iloc[:40].assign(id=[f"way/x{i}" for i in range(40)])
    lines = outlines.iloc[40:60].assign(id=[f"way/y{i}" for i in range(20)])
    lines = lines.set_geometry(shapely.linestrings([[(X, Y), (X + i, Y)] for i in range(1, 21)]))
    outlines = pd.concat([outlines.iloc[:300], twice, lines.set_crs(32632, allow_override=True)])
    whole, issues = clean_outlines(outlines)
    assert len(issues) >= 60
    monkeypatch.setattr(buildings, "CLEANED", rows)
    table, found = clean_outlines(outlines)
    assert found == issues
    assert table.drop(columns="geometry").equals(whole.drop(columns="geometry"))
    assert (table.geometry.to_wkb() == whole.geometry.to_wkb()).all()


def test_parts_stand_for_their_building_and_leave_a_remainder() -> None:
    table = drawn(
        [
            ("way/10", at(0, 0, 20, 10), {**HOUSE, "building:levels": "2"}),
            ("way/11", at(0, 0, 5, 10), {"building:part": "yes", "height": "20"}),
            ("way/12", at(5, 0, 10, 10), {"building:part": "yes"}),
            ("way/20", at(40, 0, 60, 10), HOUSE),
            ("way/21", at(40, 0, 59, 10), {"building:part": "yes"}),
            ("way/30", at(90, 0, 99, 9), {"building:part": "yes"}),
        ]
    )
    out, issues = building_table(table)
    out = out.set_index("id")
    assert set(out.index) == {
        "way/10", "way/10#p0", "way/10#p1", "way/10#p2", "way/20", "way/20#p1", "way/30",
    }  # fmt: skip
    assert out.loc["way/10", "whole"]
    assert out.loc["way/10#p1", "height"] == 20.0
    # a part without levels or height takes its building's
    assert out.loc["way/10#p2", "height"] == 6.0
    assert out.loc["way/10#p2", "source_id"] == "way/12"
    # half is covered: the rest stays; 95 % is covered: it does not
    assert out.loc["way/10#p0", "footprint_area"] == pytest.approx(100, abs=0.1)
    assert out.loc["way/10", "height"] == 20.0
    assert out["floor_area"].isna().equals(out["whole"])
    assert [i for i in issues if i[1] == "way/30"] == [
        ("buildings", "way/30", "repaired", "part outside any building; kept as a building")
    ]


def test_a_part_named_by_a_relation_belongs_to_it() -> None:
    table = drawn(
        [
            ("way/1", at(0, 0, 10, 10), HOUSE),
            ("way/2", at(9, 0, 20, 10), {"building:part": "yes", "height": "4"}),
        ]
    )
    out, _ = building_table(table, {"way/2": "way/1"})
    assert "way/1#p1" in set(out["id"])


def test_a_building_of_two_pieces_is_divided() -> None:
    two = shapely.union(at(0, 0, 10, 10), at(20, 0, 25, 10))
    out, _ = building_table(drawn([("relation/7", two, HOUSE)]))
    assert out["id"].tolist() == ["relation/7", "relation/7#p1", "relation/7#p2"]
    assert out["footprint_area"].tolist()[1:] == [100.0, 50.0]


def test_floor_area_counts_levels() -> None:
    rows = [
        ("way/1", at(0, 0, 10, 10), {**HOUSE, "building:levels": "3"}),
        ("way/2", at(20, 0, 30, 10), {**HOUSE, "height": "12"}),
        ("way/3", at(40, 0, 50, 10), {"building": "garage"}),
    ]
    out, _ = building_table(drawn(rows))
    assert out["floor_area"].tolist() == [300.0, 400.0, 100.0]


def test_a_broken_extract_says_so(tmp_path: Any, reference: Any) -> None:
    whole = (reference / "osm" / "monaco_2021.osm.pbf").read_bytes()
    broken = tmp_path / "broken.osm.pbf"
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cannot be read to its end"):
        read_osm(broken)
    broken.write_bytes(b"")
    with pytest.raises(InputError, match="empty"):
        read_osm(broken)
    with pytest.raises(InputError, match="does not exist"):
        read_osm(tmp_path / "none.osm.pbf")


def test_the_local_zone() -> None:
    assert local_utm((68.2, 43.2, 68.4, 43.4)).to_epsg() == 32642
    assert local_utm((9.47, 47.0, 9.6, 47.3)).to_epsg() == 32632
    with pytest.raises(InputError):
        local_utm((0.0, 88.0, 1.0, 89.0))
