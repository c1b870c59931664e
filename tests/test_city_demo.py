"""The synthetic Turkistan: the monument in its place, the rest honest about being invented."""

from __future__ import annotations

from pathlib import Path

import osmium
import pytest

from qala.city.check import check_twin
from qala.city.demo import HEIGHT, MAUSOLEUM, PLAN, write_synthetic_turkistan
from qala.city.twin import build_twin, city_flow
from qala.errors import InputError
from qala.messages import tr


def test_a_small_city_around_the_mausoleum(tmp_path: Path) -> None:
    file = tmp_path / "turkistan.osm.pbf"
    count = write_synthetic_turkistan(file, buildings=400)
    assert 380 < count < 430
    for thing in osmium.FileProcessor(str(file)):
        if len(thing.tags):
            assert "synthetic" in thing.tags or "UNESCO" in thing.tags["source"]
    twin = build_twin(file)
    table = twin.buildings.set_index("id")
    monument = table[table["name"] == "Қожа Ахмет Ясауи кесенесі"]
    whole = monument[monument["parent"].isna()].iloc[0]
    assert whole["height"] == pytest.approx(HEIGHT)
    assert whole["footprint_area"] == pytest.approx(PLAN[0] * PLAN[1], rel=0.01)
    centre = twin.buildings.geometry[table["name"].eq(whole["name"]).to_numpy()].to_crs(4326)
    assert centre.iloc[0].centroid.x == pytest.approx(MAUSOLEUM[0], abs=1e-4)
    assert (table["valid_code"] == 0).all()
    assert twin.buildings.crs.to_epsg() == 32642
    assert {"power", "heat", "gas"} <= set(twin.layers["networks"]["network"])
    assert len(twin.layers["stops"]) > 0
    domes = monument[(monument["roof_shape"] == "dome") & (monument["lod"] == "2.0")]
    assert len(domes) == 2


def test_an_invented_city_does_not_claim_a_source(tmp_path: Path) -> None:
    file = tmp_path / "turkistan.osm.pbf"
    write_synthetic_turkistan(file, buildings=150)
    notice = tr("city.page.synthetic", "kk")
    city_flow(file, tmp_path / "twin", lang="kk", notice=notice)
    check_twin(tmp_path / "twin")
    for name in ("web/index.html", "city.city.json", "tiles/tileset.json"):
        text = (tmp_path / "twin" / name).read_text(encoding="utf-8")
        assert notice in text, name
        assert "OpenStreetMap contributors" not in text


def test_equal_seeds_give_equal_cities_and_few_buildings_are_refused(tmp_path: Path) -> None:
    a, b = tmp_path / "a.osm.pbf", tmp_path / "b.osm.pbf"
    assert write_synthetic_turkistan(a, buildings=200) == write_synthetic_turkistan(
        b, buildings=200
    )
    with pytest.raises(InputError):
        write_synthetic_turkistan(a, buildings=3)
