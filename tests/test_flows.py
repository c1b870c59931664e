"""Jobs as a command: killed at any moment, run twice at once, run again."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import yaml
from builders import LEFT, TOP, listing, qala, town, write_tif

import qala as package
from qala.inspection import inspect_file
from qala.resources import resource

SOURCE = Path(package.__file__).resolve().parents[1]
#: pictures take most of the time and none of the risk
FAST = ["--set", "outputs.figures=false", "--workers", "1"]
VARIANTS = {
    "smoke": {"a": [], "b": ["--set", "cells.ruleset=2024", "--set", "units.rules=2021"]},
    "areas": {"a": [], "b": ["--set", "areas.threshold=0.2", "--set", "areas.beta=0.05"]},
}


def start(out: Path, variant: str, *more: str, workflow: str = "smoke") -> subprocess.Popen[str]:
    call = [sys.executable, "-m", "qala.cli", "run", workflow, "--out", str(out), *FAST,
            *VARIANTS[workflow][variant], *more]  # fmt: skip
    return subprocess.Popen(
        call, env={**os.environ, "PYTHONPATH": str(SOURCE)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def tables(folder: Path) -> dict[str, str]:
    """Hashes of what must come out byte by byte the same: tables and class rasters."""
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for kind in ("tables", "rasters")
        for p in sorted((folder / kind).iterdir())
    }


@dataclass(frozen=True)
class Finished:
    """Whole runs of both variants: their folders, their tables, the seconds they took."""

    workflow: str
    folders: dict[str, Path]
    tables: dict[str, dict[str, str]]
    seconds: float


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finish("smoke", tmp_path_factory)


def finish(workflow: str, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folders, seconds = {}, 0.0
    for name in VARIANTS[workflow]:
        folders[name] = tmp_path_factory.mktemp("whole") / name
        begin = time.monotonic()
        run = start(folders[name], name, workflow=workflow)
        out, err = run.communicate(timeout=900)
        assert run.returncode == 0, err
        assert "SYNTHETIC" in out
        # the first run compiles
        seconds = time.monotonic() - begin
    found = {name: tables(folder) for name, folder in folders.items()}
    assert found["a"] != found["b"]
    return Finished(workflow, folders, found, seconds)


def kill_again_and_again(finished: Finished, out: Path, times: int) -> int:
    """Kill runs at random moments; return how many were killed before they ended."""
    dice = random.Random(20231)
    shutil.copytree(finished.folders["a"], out)
    held, killed = "a", 0
    for _ in range(times):
        wanted = "b" if held == "a" else "a"
        run = start(out, wanted, workflow=finished.workflow)
        try:
            run.wait(dice.uniform(0, 1.15 * finished.seconds))
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGKILL)
            killed += 1
        run.communicate()
        found = inspect_file(out)
        assert found.sound, found.text()
        seen = tables(out)
        assert seen in (finished.tables[held], finished.tables[wanted]), listing(out)
        held = wanted if seen == finished.tables[wanted] else held
        if run.returncode == 0:
            assert held == wanted
    wanted = "b" if held == "a" else "a"
    run = start(out, wanted, workflow=finished.workflow)
    _, err = run.communicate(timeout=900)
    assert run.returncode == 0, err
    assert tables(out) == finished.tables[wanted]
    # nothing of the dead runs is left
    assert listing(out) == listing(finished.folders[wanted])
    return killed


def test_killed_at_random_moments(finished: Finished, tmp_path: Path) -> None:
    assert kill_again_and_again(finished, tmp_path / "out", 12) >= 6


def test_areas_killed_at_random_moments(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    assert kill_again_and_again(finish("areas", tmp_path_factory), tmp_path / "out", 5) >= 2


@pytest.mark.slow
def test_killed_at_random_moments_at_length(finished: Finished, tmp_path: Path) -> None:
    assert kill_again_and_again(finished, tmp_path / "out", 50) >= 25


def test_ended_by_a_scheduler_it_cleans_up(finished: Finished, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = start(out, "a")
    assert run.stderr is not None
    # the log says when the work has begun
    assert "open inputs" in run.stderr.readline()
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=60)
    assert run.returncode == 128 + signal.SIGTERM
    # whole steps may stay for the next run, work on others does not
    assert all(n.startswith(".qala-steps/") and ".work-" not in n for n in listing(out))


def test_run_again_it_does_no_work_and_says_so(finished: Finished, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished.folders["a"], out)
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
    again = qala("run", "smoke", "--out", out, *FAST)
    assert again.code == 0, again.err
    assert "Nothing changed since the last run" in again.out
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()} == before
    # the table is shown all the same
    assert "Turkistan" in again.out


def test_what_changed_is_said(finished: Finished, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(resource("sample"), data)
    page = tmp_path / "mine.yaml"
    text = yaml.safe_load(resource("workflows", "smoke.yaml").read_text())
    text |= {"data": str(data), "outputs": {"figures": False, "sensitivity": False}}
    page.write_text(yaml.safe_dump(text))
    out = tmp_path / "out"
    first = qala("run", page, "--out", out)
    assert first.code == 0, first.err
    assert "working again" not in first.err
    with (data / "official.csv").open("a") as table:
        table.write("\n")
    second = qala("run", page, "--out", out)
    assert second.code == 0, second.err
    assert "working again: official.csv changed" in second.err
    assert second.err.count("working again") == 1
    (out / "tables" / "rates.csv").unlink()
    third = qala("run", page, "--out", out)
    assert "the result tables/rates.csv is missing" in third.err
    assert (out / "tables" / "rates.csv").exists()
    assert qala("check", out).code == 0


def test_only_the_steps_that_a_change_reaches_are_made_again(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(resource("sample"), data)
    page = tmp_path / "mine.yaml"
    text = yaml.safe_load(resource("workflows", "smoke.yaml").read_text())
    page.write_text(yaml.safe_dump(text | {"data": str(data), "outputs": {"figures": False}}))

    def made(*more: str) -> set[str]:
        done = qala("run", page, "--out", out, *more)
        assert done.code == 0, done.err
        record = json.loads((out / "provenance.json").read_text())
        return {s["step"] for s in record["steps"] if not s.get("reused")} - {"open inputs"}

    classes, centres = "classify cells 2023", "delineate urban centres 2023"
    rest = {"urbanisation rates", "write tables", "write GeoPackage"}
    assert made() == {"read units", classes, centres, "sensitivity", *rest}
    table = (data / "official.csv").read_text()
    assert "220133" in table
    (data / "official.csv").write_text(table.replace("220133", "220134"))
    planned = qala("run", page, "--out", out, "--dry-run")
    assert f"{classes}: as before" in planned.out
    assert "urbanisation rates: official.csv changed" in planned.out
    assert "write tables: hangs on the result of 'urbanisation rates'" in planned.out
    assert made() == rest
    # words of pictures and layers alone
    assert made("--set", "outputs.language=ru") == {"write GeoPackage"}
    # how units are told from their cells leaves the cells alone, and the centres
    assert made("--set", "units.rules=2021") - rest == set()
    # a threshold of the cells reaches everything but the units
    found = made("--set", "cells.ruleset=2024")
    assert found >= {classes, centres, "sensitivity", "urbanisation rates", "write GeoPackage"}
    assert "read units" not in found


def test_another_column_of_ids_reaches_all_that_names_units(tmp_path: Path) -> None:
    units = gpd.read_file(resource("sample") / "units.gpkg")
    units["other"] = [f"x{i}" for i in range(len(units))]
    units.to_file(tmp_path / "units.gpkg", layer="units")
    call = ["run", "smoke", *FAST, "--set", f"inputs.units.path={tmp_path / 'units.gpkg'}",
            "--set", "inputs.units.layer=units", "--set", "inputs.official=null"]  # fmt: skip
    assert qala(*call, "--out", tmp_path / "out").code == 0
    other = [*call, "--set", "inputs.units.id=other"]
    again = qala(*other, "--out", tmp_path / "out")
    assert again.code == 0, again.err
    # the cells are the same, whatever the units are called
    assert "classify cells 2023: as before" in again.err
    assert qala(*other, "--out", tmp_path / "fresh").code == 0
    assert tables(tmp_path / "out") == tables(tmp_path / "fresh")
    found = [
        json.loads(gpd.read_file(f / "urbanisation.gpkg", layer="rates").to_json())
        for f in (tmp_path / "out", tmp_path / "fresh")
    ]
    assert found[0] == found[1]


def test_a_partial_result_names_what_is_missing(tmp_path: Path) -> None:
    for epoch, people in ((2010, 1.0), (2015, 1.1), (2020, 1.2)):
        write_tif(tmp_path / f"P{epoch}.tif", town() * people)
    whole = (tmp_path / "P2015.tif").read_bytes()
    page = tmp_path / "w.yaml"
    page.write_text(
        "workflow: urbanisation\noutputs: {figures: false, sensitivity: false}\n"
        "inputs: {population: {2010: P2010.tif, 2015: P2015.tif, 2020: P2020.tif}}\n"
    )
    out = tmp_path / "out"
    # a file that opens and breaks off, one that does not open, one that is not there
    broken = [whole[: len(whole) * 2 // 3], b"no raster", None]
    for content in broken:
        (tmp_path / "P2015.tif").unlink(missing_ok=True)
        if content is not None:
            (tmp_path / "P2015.tif").write_bytes(content)
        refused = qala("run", page, "--out", out)
        assert refused.code == 2, refused
        assert not (out / "provenance.json").exists()
        part = qala("run", page, "--out", out, "--partial")
        assert part.code == 4, part
        assert "partial: without 2015" in part.out
        assert "P2015.tif" in part.err
        assert sorted(p.name for p in (out / "rasters").glob("degurba_l1*")) == [
            "degurba_l1_2010.tif", "degurba_l1_2020.tif",
        ]  # fmt: skip
        assert list(json.loads((out / "provenance.json").read_text())["missing"]) == ["2015"]
        assert qala("check", out).code == 0
        shutil.rmtree(out)
    (tmp_path / "P2010.tif").unlink()
    (tmp_path / "P2020.tif").unlink()
    assert qala("run", page, "--out", out, "--partial").code == 2


def test_a_partial_result_is_completed_by_the_next_run(tmp_path: Path) -> None:
    for epoch in (2010, 2020):
        write_tif(tmp_path / f"P{epoch}.tif", town())
    whole = (tmp_path / "P2020.tif").read_bytes()
    page = tmp_path / "w.yaml"
    page.write_text(
        "workflow: urbanisation\noutputs: {figures: false, sensitivity: false}\n"
        "inputs: {population: {2010: P2010.tif, 2020: P2020.tif}}\n"
    )
    (tmp_path / "P2020.tif").unlink()
    assert qala("run", page, "--out", tmp_path / "out", "--partial").code == 4
    (tmp_path / "P2020.tif").write_bytes(whole)
    done = qala("run", page, "--out", tmp_path / "out", "--partial")
    assert done.code == 0, done
    assert "classify cells 2010: as before" in done.err
    assert qala("run", page, "--out", tmp_path / "direct").code == 0
    assert tables(tmp_path / "out") == tables(tmp_path / "direct")


def test_two_runs_on_one_folder(finished: Finished, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = start(out, "a")
    assert first.stderr is not None
    assert "open inputs" in first.stderr.readline()
    # stopped, it holds the folder for as long as it takes
    first.send_signal(signal.SIGSTOP)
    try:
        second = qala("run", "smoke", "--out", out, *FAST)
        assert second.code == 3, second
        assert "another run is writing to" in second.error
        assert "--wait" in second.error
        third = start(out, "b", "--wait")
    finally:
        first.send_signal(signal.SIGCONT)
    _, err = first.communicate(timeout=900)
    assert first.returncode == 0, err
    _, err = third.communicate(timeout=900)
    assert third.returncode == 0, err
    assert tables(out) == finished.tables["b"]
    assert inspect_file(out).sound


def test_a_run_does_not_depend_on_where_it_works(finished: Finished, tmp_path: Path) -> None:
    from qala.compute import running

    with running(2, processes=True):
        from qala.config import load_workflow
        from qala.flows import urbanisation

        workflow = load_workflow("smoke", settings=["outputs.figures=false", "cells.chunk=7"])
        result = urbanisation(workflow, out=tmp_path / "out")
    assert result.fresh
    assert tables(result.folder) == finished.tables["a"]


def test_dry_runs_write_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = qala("run", "smoke", "--out", out, "--dry-run")
    assert told.code == 0
    assert "units.gpkg" in told.out
    assert str(out) in told.out
    assert not out.exists()


def test_grids_of_100_m_are_summed_and_fit_the_other_products(tmp_path: Path) -> None:
    people = np.kron(town(), np.full((10, 10), 0.01))
    write_tif(tmp_path / "fine.tif", people[3:, 4:], cell=100.0,
              origin=(LEFT + 400, TOP - 300))  # fmt: skip
    write_tif(tmp_path / "B.tif", np.full((12, 14), 1e5), unit="m2")
    page = tmp_path / "w.yaml"
    page.write_text(
        "workflow: urbanisation\noutputs: {figures: false, sensitivity: false}\n"
        "inputs: {population: {2020: fine.tif}, built: B.tif}\n"
    )
    outcome = qala("run", page, "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    with rasterio.open(tmp_path / "out" / "rasters" / "degurba_l1_2020.tif") as cells:
        assert cells.shape == (12, 14)
        assert (cells.transform.c, cells.transform.f) == (LEFT, TOP)
        assert (cells.read(1) == 3).sum() == 9


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("name,population\nA,1\n", ["columns name, population", "lon and lat in degrees"]),
        ("name,lon,lat\nA,east,43\n", ["1 rows have no place in degrees, first row 1"]),
        ("name,lon,lat\nA,68,43\nB,43,168\n", ["first row 2", "swap the columns"]),
        ("", ["cannot be read as a table"]),
        (b"\xff\xfe\x00", ["cannot be read as a table", "UTF-8"]),
    ],
)
def test_places_that_cannot_be_used(tmp_path: Path, table: str | bytes, words: list[str]) -> None:
    (tmp_path / "places.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
    write_tif(tmp_path / "P.tif", town())
    page = tmp_path / "w.yaml"
    page.write_text(
        "workflow: urbanisation\noutputs: {figures: false, sensitivity: false}\n"
        "inputs: {population: P.tif, places: places.csv}\n"
    )
    outcome = qala("run", page, "--out", tmp_path / "out")
    assert outcome.code == 2, outcome
    for word in words:
        assert word in outcome.error
    assert not (tmp_path / "out").exists()
