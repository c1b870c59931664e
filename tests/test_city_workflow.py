"""A city by a workflow: made, left alone, and gone on from."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
import pytest
from builders import qala

from qala.city.demo import write_synthetic_turkistan
from qala.config import load_workflow
from qala.errors import InputError


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("city")
    write_synthetic_turkistan(folder / "a.osm.pbf", buildings=150)
    write_synthetic_turkistan(folder / "b.osm.pbf", buildings=210)
    text = "workflow: city\ntitle: {en: Small town}\nsynthetic: true\ninputs: {osm: a.osm.pbf}\n"
    (folder / "town.yaml").write_text(text + "city: {date: '2025-01-01'}\n")
    return folder / "town.yaml"


def test_a_city_is_made_left_alone_and_gone_on_from(page: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    planned = qala("run", page, "--out", out, "--dry-run")
    assert planned.code == 0, planned.err
    assert "1. make the twin" in planned.out
    assert "MB of memory" in planned.out
    assert not out.exists()
    first = qala("run", page, "--out", out)
    assert first.code == 0, first.err
    record = json.loads((out / "provenance.json").read_text())
    named = {o["path"] for o in record["outputs"]}
    assert {"city.gpkg", "city.city.json", "tiles/tileset.json", "web/index.html"} <= named
    assert (out / "registers.gpkg").is_file()
    assert "registers.gpkg" not in named
    found = gpd.read_file(out / "city.gpkg", layer="buildings")
    assert found["parent"].isna().sum() == record["counts"]["buildings"]
    # the registers grow by imports, and that is no reason to work again
    with (out / "registers.gpkg").open("ab") as registers:
        registers.write(b"imported")
    again = qala("run", page, "--out", out)
    assert again.code == 0, again.err
    assert "Nothing changed since the last run" in again.out
    change = ["--set", "inputs.osm=b.osm.pbf", "--set", "city.date=2026-01-01"]
    more = qala("run", page, "--out", out, *change)
    assert more.code == 0, more.err
    assert "going on from the twin" in more.err
    assert (out / "registers.gpkg").read_bytes().endswith(b"imported")
    record = json.loads((out / "provenance.json").read_text())
    assert record["counts"]["changes"]
    why = qala("why", out)
    assert "a.osm.pbf" not in why.out
    assert "b.osm.pbf" in why.out
    fresh = qala("run", page, "--out", out, *change, "--set", "city.history=false", "--force")
    assert fresh.code == 0, fresh.err
    assert "going on" not in fresh.err


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (["inputs.osm=null"], "needs osm, or demo"),
        (["inputs.demo=true"], "needs osm, or demo"),
        (["inputs.osm=null", "inputs.demo=true", "bbox=[68,43,69,44]"], "given with bbox"),
        (["inputs.area=a.gpkg", "bbox=[68,43,69,44]"], "both given"),
        (["inputs.area_layer=x"], "needs inputs.area"),
        (["city.date=yesterday"], "city.date"),
        (["cells.ruleset=2024"], "'cells' is unknown"),
    ],
)
def test_pages_that_do_not_fit(page: Path, change: list[str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        load_workflow(page, settings=change)


def test_a_failed_city_leaves_nothing(page: Path, tmp_path: Path) -> None:
    done = qala("run", page, "--out", tmp_path / "out", "--set", "bbox=[0,0,1,1]")
    assert done.code == 2, done
    assert not (tmp_path / "out").exists()
