"""Where numbers came from, and why two runs differ."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from qala.errors import InputError
from qala.identity import write_json
from qala.lineage import diff_plain, diff_runs, diff_text, text_of, why
from qala.provenance import RECORD, Recorder


def a_run(
    folder: Path,
    files: dict[str, Path],
    rates: dict[str, tuple[int, float, float]],
    **parameters: Any,
) -> Path:
    """Write a folder as a run leaves it: a table, a record."""
    (folder / "tables").mkdir(parents=True)
    rows = [
        {"unit": unit, "epoch": epoch, "degurba_l2": klass, "population": people,
         "urban_share": share, "official_share": 0.5, "name_en": unit.upper()}
        for unit, (klass, people, share) in rates.items()
        for epoch in (2015, 2020)
    ]  # fmt: skip
    table = folder / "tables" / "rates.parquet"
    pd.DataFrame(rows).to_parquet(table)
    given = {
        "workflow": "urbanisation", "sources": ["made up, CC0"],
        "inputs": {
            "population": {"2015": str(files["pop15"]), "2020": str(files["pop20"])},
            "land": str(files["land"]),
        },
        "cells": {"ruleset": "R2023A"},
    } | parameters  # fmt: skip
    recorder = Recorder(given, list(files.values()))
    with recorder.step("urbanisation rates") as notes:
        notes["rows"] = len(rows)
    write_json(folder / RECORD, recorder.record([table], folder))
    return folder


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    found = {}
    for name in ("pop15", "pop20", "land"):
        found[name] = tmp_path / f"{name}.tif"
        found[name].write_bytes(name.encode())
    return found


RATES = {"a": (30, 1000.0, 0.9), "b": (12, 50.0, 0.0)}


def test_chain_leads_to_the_sources(tmp_path: Path, files: dict[str, Path]) -> None:
    folder = a_run(tmp_path / "run", files, RATES)
    node = why(f"{folder}:rates")
    assert [s.name for s in node.sources] == ["pop15.tif", "pop20.tif", "land.tif"]
    assert node.cite == ("made up, CC0",)
    text = "\n".join(text_of(node))
    assert "step urbanisation rates: rows 4" in text
    assert "made up, CC0" in text
    assert node.sources[0].sha256 in text


def test_layer_of_an_epoch_has_only_its_sources(tmp_path: Path, files: dict[str, Path]) -> None:
    folder = a_run(tmp_path / "run", files, RATES)
    (folder / "tables" / "cells_2020.csv").write_text("x")
    record = json.loads((folder / RECORD).read_text())
    record["outputs"].append({"path": "tables/cells_2020.csv", "bytes": 1, "sha256": "0"})
    write_json(folder / RECORD, record)
    assert [s.name for s in why(f"{folder}:cells_2020").sources] == ["pop20.tif", "land.tif"]


def test_changed_and_missing_sources_are_told(tmp_path: Path, files: dict[str, Path]) -> None:
    folder = a_run(tmp_path / "run", files, RATES)
    files["pop15"].write_bytes(b"new")
    files["land"].unlink()
    states = {s.name: s.state for s in why(str(folder)).sources}
    assert states == {
        "pop15.tif": "changed since", "pop20.tif": "as recorded", "land.tif": "missing"
    }  # fmt: skip
    (folder / "tables" / "rates.parquet").write_bytes(b"edited")
    assert "rates.parquet changed since" in why(str(folder)).state


def test_chain_goes_through_runs_and_the_cache(tmp_path: Path, files: dict[str, Path]) -> None:
    first = a_run(tmp_path / "first", files, RATES)
    cached = tmp_path / "cache" / "pop15.tif"
    cached.parent.mkdir()
    cached.write_bytes(b"fetched")
    write_json(cached.with_name("pop15.tif.source.json"), {
        "url": "https://example.org/pop15.tif", "sha256": "0", "licence": "CC-BY-4.0",
        "citation": "JRC", "collection": "ghs", "version": "1", "file": "pop15.tif",
    })  # fmt: skip
    given = files | {"pop20": first / "tables" / "rates.parquet", "pop15": cached}
    node = why(str(a_run(tmp_path / "second", given, RATES)))
    inner = {s.name: s for s in node.sources}
    assert [s.name for s in inner["rates.parquet"].sources] == [
        "pop15.tif", "pop20.tif", "land.tif"
    ]  # fmt: skip
    assert "JRC; CC-BY-4.0" in "\n".join(text_of(node))


def test_geopackage_far_from_its_folder_tells(tmp_path: Path) -> None:
    file = tmp_path / "copy.gpkg"
    inside = {
        "licence": "CC0", "citation": "doi:1",
        "provenance": {
            "parameters": {"cells": {"ruleset": "2024"}},
            "inputs": [{"path": "/gone/pop.tif", "sha256": "ab", "bytes": 1}],
        },
    }  # fmt: skip
    with sqlite3.connect(file) as db:
        db.execute("CREATE TABLE gpkg_metadata (mime_type TEXT, metadata TEXT)")
        db.execute("CREATE TABLE gpkg_contents (table_name TEXT)")
        db.execute("INSERT INTO gpkg_contents VALUES ('units')")
        db.execute("INSERT INTO gpkg_metadata VALUES ('application/json', ?)", [json.dumps(inside)])
    node = why(f"{file}:units")
    assert (node.state, node.sources[0].sha256, node.sources[0].state) == (
        "not recorded", "ab", "missing"
    )  # fmt: skip
    assert node.cite == ("CC0", "doi:1")
    with pytest.raises(InputError, match="no layer"):
        why(f"{file}:nothing")


@pytest.mark.parametrize("target", ["nowhere", "nowhere:rates", "empty", "stranger.tif"])
def test_what_has_no_record_is_told(tmp_path: Path, target: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "stranger.tif").write_bytes(b"x")
    with pytest.raises(InputError):
        why(str(tmp_path / target))


def test_stranger_in_a_run_s_folder_is_not_claimed(tmp_path: Path, files: dict[str, Path]) -> None:
    folder = a_run(tmp_path / "run", files, RATES)
    (folder / "mine.csv").write_text("x")
    with pytest.raises(InputError, match="no provenance"):
        why(str(folder / "mine.csv"))


def test_parameter_explains_a_change(tmp_path: Path, files: dict[str, Path]) -> None:
    first = a_run(tmp_path / "first", files, RATES)
    second = a_run(
        tmp_path / "second", files, RATES | {"a": (23, 1000.0, 0.8)}, cells={"ruleset": "2024"}
    )
    found = diff_runs(first, second)
    assert found.causes == {"cells.ruleset": "R2023A → 2024"}
    assert list(found.rows["unit"]) == ["a", "a"]
    assert set(found.rows["explained_by"]) == {"cells.ruleset"}
    text = "\n".join(diff_text(found))
    assert "2 units and epochs differ, 2 of them in class" in text
    assert "a A (2015): class 30 → 23; urban share 90.00 → 80.00 % (-10.00)" in text
    assert diff_plain(found)["rows"][0]["urban_share_after"] == 0.8


def test_input_explains_its_own_epoch_alone(tmp_path: Path, files: dict[str, Path]) -> None:
    first = a_run(tmp_path / "first", files, RATES)
    files["pop20"].write_bytes(b"renewed")
    second = a_run(tmp_path / "second", files, RATES)
    table = pd.read_parquet(second / "tables" / "rates.parquet")
    table.loc[table["epoch"] == 2020, "population"] += 5
    table.to_parquet(second / "tables" / "rates.parquet")
    found = diff_runs(first, second)
    assert list(found.causes) == ["inputs.population.2020"]
    assert set(found.rows["epoch"]) == {"2020"}
    assert set(found.rows["explained_by"]) == {"inputs.population.2020"}


def test_several_causes_are_all_named(tmp_path: Path, files: dict[str, Path]) -> None:
    first = a_run(tmp_path / "first", files, RATES)
    files["pop20"].write_bytes(b"renewed")
    second = a_run(
        tmp_path / "second", files, {k: (c, p + 1, s / 2) for k, (c, p, s) in RATES.items()},
        cells={"ruleset": "2024"},
    )  # fmt: skip
    rows = diff_runs(first, second).rows.set_index(["unit", "epoch"])["explained_by"]
    assert rows["a", "2020"] == "cells.ruleset or inputs.population.2020"
    assert rows["a", "2015"] == "cells.ruleset"


def test_equal_runs_differ_in_nothing(tmp_path: Path, files: dict[str, Path]) -> None:
    first = a_run(tmp_path / "first", files, RATES)
    second = a_run(tmp_path / "second", files, RATES)
    found = diff_runs(first, second)
    assert (found.causes, len(found.rows)) == ({}, 0)
    assert "no unit changed" in "\n".join(diff_text(found))


def test_runs_that_cannot_be_compared_are_refused(tmp_path: Path, files: dict[str, Path]) -> None:
    first = a_run(tmp_path / "first", files, RATES)
    second = a_run(tmp_path / "second", files, RATES, workflow="indicators")
    for pair in ((first, second), (second, second)):
        with pytest.raises(InputError, match="indicators; expected two runs of urban"):
            diff_runs(*pair)


def test_units_of_one_run_only_are_named(tmp_path: Path, files: dict[str, Path]) -> None:
    first = a_run(tmp_path / "first", files, RATES)
    second = a_run(tmp_path / "second", files, {"a": RATES["a"], "c": (11, 5.0, 0.0)})
    found = diff_runs(first, second)
    assert found.only_first == ["b (2015)", "b (2020)"]
    assert found.only_second == ["c (2015)", "c (2020)"]
    with pytest.raises(InputError):
        diff_runs(first, tmp_path)
