"""A small extract with every fault a mapper makes, from file to the layer of issues."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import quoteattr

import geopandas as gpd
import pytest

from qala.city.check import check_twin
from qala.city.twin import city_flow

LON, LAT = 68.25, 43.29
STEP = 1.0 / 8_000  # about 10 m


class Extract:
    """Writes ways as OpenStreetMap XML; places are in steps of about 10 m."""

    def __init__(self) -> None:
        self.nodes: list[str] = []
        self.ways: list[str] = []

    def way(self, number: int, corners: list[tuple[float, float]], close: bool = True,
            **tags: str) -> None:  # fmt: skip
        refs = []
        for x, y in corners:
            refs.append(len(self.nodes) + 1)
            self.nodes.append(
                f'<node id="{refs[-1]}" version="1" lat="{LAT + y * STEP:.7f}"'
                f' lon="{LON + x * STEP * 1.37:.7f}"/>'
            )
        refs += refs[:1] if close else []
        inner = "".join(f'<nd ref="{r}"/>' for r in refs)
        inner += "".join(
            f"<tag k={quoteattr(k.replace('__', ':'))} v={quoteattr(v)}/>" for k, v in tags.items()
        )
        self.ways.append(f'<way id="{number}" version="1">{inner}</way>')

    def box(self, number: int, x: float, y: float, **tags: str) -> None:
        corners = [(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)]
        self.way(number, corners, **{"building": "yes", **tags})

    def write(self, path: Path) -> Path:
        body = "".join(self.nodes + self.ways)
        path.write_text(f'<osm version="0.6" generator="test">{body}</osm>')
        return path


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
