"""A city by a workflow: made, left alone, and gone on from."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from builders import qala

from qala.city import steps
from qala.city.demo import write_synthetic_turkistan
from qala.city.twin import city_flow
from qala.config import load_workflow
from qala.errors import InputError
from qala.steps import STORE


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


def files_of(folder: Path) -> dict[str, bytes]:
    """Everything a run gave that tells no time."""
    told = {"provenance.json", "item.json", "registers.gpkg"}
    return {
        f.relative_to(folder).as_posix(): f.read_bytes()
        for f in sorted(folder.rglob("*"))
        if f.is_file() and STORE not in f.parts and f.name not in told
    }


@pytest.mark.parametrize("grounded", [False, True])
def test_exports_from_a_kept_twin_are_those_of_one_in_memory(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grounded: bool
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    ground = page.parent / "ground.tif"
    profile = {
        "driver": "GTiff",
        "dtype": "float32",
        "count": 1,
        "height": 90,
        "width": 90,
        "crs": 4326,
        "transform": rasterio.Affine(0.001, 0, 68.226, 0, -0.001, 43.343),
    }
    with rasterio.open(ground, "w", **profile) as sink:
        sink.write(np.hypot(*np.mgrid[:90, :90]).astype("float32"), 1)
    change = ["--set", "inputs.terrain=ground.tif"] if grounded else []
    done = qala("run", page, "--out", tmp_path / "steps", *change)
    assert done.code == 0, done.err
    city_flow(page.parent / "a.osm.pbf", tmp_path / "flow", name="Small town", synthetic=True,
              date="2025-01-01", terrain=ground if grounded else None)  # fmt: skip
    a, b = files_of(tmp_path / "steps"), files_of(tmp_path / "flow")
    assert a.keys() == b.keys()
    assert ("terrain.tif" in a) == grounded
    assert [name for name in a if a[name] != b[name]] == []


def test_another_language_leaves_the_twin_alone(page: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = qala("run", page, "--out", out)
    assert first.code == 0, first.err
    change = ["--set", "outputs.language=kk"]
    planned = qala("run", page, "--out", out, *change, "--dry-run")
    told = dict(line.strip().split(". ", 1)[1].split(": ", 1) for line in planned.out.splitlines()
                if line.strip()[:1].isdigit())  # fmt: skip
    spared = {"make the twin", "write index", "write summary"}
    assert {name for name, state in told.items() if state == "as before"} == spared
    assert told["write page"].startswith("outputs.language changed")
    again = qala("run", page, "--out", out, *change)
    assert again.code == 0, again.err
    for name in spared:
        assert f"{name}: as before" in again.err
    assert "write CityJSON …, because outputs.language changed" in again.err
    assert 'lang="kk"' in (out / "web" / "index.html").read_text()
    # another extract under the same name is found by its hash
    copy = tmp_path / "other" / "a.osm.pbf"
    copy.parent.mkdir()
    copy.write_bytes((page.parent / "b.osm.pbf").read_bytes())
    told = qala("run", page, "--out", out, "--set", f"inputs.osm={copy}", "--dry-run").out
    assert "make the twin: a.osm.pbf changed" in told
    # a twin of the same sources is no earlier state of them
    assert "changes" not in json.loads((out / "provenance.json").read_text())["counts"]


def test_a_city_that_was_cut_off_goes_on_behind_its_last_whole_step(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def broken(*_: Any, **__: Any) -> None:
        raise InputError("no page today", "another day")

    with monkeypatch.context() as patch:
        patch.setattr(steps, "export_page", broken)
        assert qala("run", page, "--out", out).code == 2
    assert not (out / "city.gpkg").exists()
    again = qala("run", page, "--out", out)
    assert again.code == 0, again.err
    for name in ("make the twin", "write GeoPackage", "write CityJSON", "write 3D Tiles"):
        assert f"{name}: as before" in again.err
    assert "write page …" in again.err


def test_a_city_killed_at_random_goes_on_to_the_same_files(page: Path, tmp_path: Path) -> None:
    env = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    command = [sys.executable, "-c", "from qala.cli import main; main()", "run", page, "--out"]
    begin = time.monotonic()
    subprocess.run([*command, tmp_path / "whole"], env=env, check=True, capture_output=True)
    takes = time.monotonic() - begin
    out = tmp_path / "killed"
    rng = np.random.default_rng(int(time.time()))
    for moment in np.sort(rng.uniform(0.2, 1.0, 4)):
        with subprocess.Popen([*command, out], env=env, stderr=subprocess.DEVNULL) as run:
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.wait(moment * takes)
            run.kill()
    subprocess.run([*command, out], env=env, check=True, capture_output=True)
    assert files_of(out) == files_of(tmp_path / "whole")
    assert not [f for f in (out / STORE).iterdir() if f.name.startswith(".work")]


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
