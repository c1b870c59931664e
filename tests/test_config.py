"""Workflows: one frozen value, or every problem at once with its key and a remedy."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from builders import qala
from pydantic import ValidationError

from qala.config import AnyWorkflow, input_files, load_workflow, require_files, title_of
from qala.errors import InputError
from qala.resources import resource

MINIMAL = "workflow: urbanisation\ninputs: {population: P.tif}\n"


def page(folder: Path, text: str | bytes) -> Path:
    path = folder / "w.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refused(path: Path, *words: str, **keywords: Any) -> str:
    with pytest.raises(InputError) as error:
        load_workflow(path, **keywords)
    for word in words:
        assert word in str(error.value), f"{word!r} not in {error.value}"
    return str(error.value)


def test_every_problem_is_told_at_once_with_its_key(tmp_path: Path) -> None:
    text = """
workflow: urbanization
speed: 5
bbox: [70, 43, 60, 44]
inputs:
  population: {first: P.tif}
  built_unit: acres
  units: {path: U.gpkg, layer: 5}
  pop: x
cells:
  ruleset: R2099
  chunk: many
units: {rules: "2019"}
outputs: {language: de, figures: perhaps}
sources: one
"""
    told = refused(
        page(tmp_path, text),
        "workflow w.yaml: 14 problems", "workflow is 'urbanization'", "key 'speed' is unknown",
        "bbox: expected west < east", "inputs.population.first is 'first'",
        "inputs.built_unit is 'acres'",
        "key 'inputs.units.id' is missing", "inputs.units.layer is 5", "'inputs.pop' is unknown",
        "cells.ruleset is 'R2099'", "cells.chunk is 'many'", "units.rules is '2019'",
        "outputs.language is 'de'", "outputs.figures is 'perhaps'", "sources is 'one'",
    )  # fmt: skip
    # pydantic's own names of types are no keys
    assert "dict[" not in told
    assert "list[str]" not in told


def test_thresholds_are_checked_with_the_rest(tmp_path: Path) -> None:
    text = (
        MINIMAL
        + """
cells:
  thresholds: {centre_density: -1, centre_people: 5, smoothing: much, gap_area: .inf,
               low_density: .nan, semidense_distance: 1.5, water_land: 2, centre_built: true}
speed: 1
"""
    )
    refused(
        page(tmp_path, text),
        "9 problems", "centre_density is -1.0", "'centre_people' is unknown", "smoothing is 'much'",
        "gap_area is inf", "low_density is nan", "semidense_distance is 1.5", "water_land is 2.0",
        "centre_built is True", "'speed' is unknown",
    )  # fmt: skip
    good = MINIMAL + "cells: {thresholds: {centre_density: 1200, centre_built: false}}\n"
    found = load_workflow(page(tmp_path, good)).cells.thresholds
    assert found == {"centre_density": 1200, "centre_built": False}
    assert found["centre_built"] is False


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["holds nothing", "a mapping of keys"]),
        ("- a\n- b\n", ["holds a list"]),
        ("workflow: [", ["is not YAML", "line"]),
        ("a: 1\n\tb: 2\n", ["is not YAML in line 2", "indented by spaces"]),
        ("workflow: urbanisation\nworkflow: urbanisation\n", ["'workflow' stands twice", "line 2"]),
        ("inputs:\n  built: a\n  built: b\n", ["'built' stands twice", "line 3"]),
        ("inputs: &x {built: a}\ncells: *x\n", ["uses an alias in line 2", "write the value out"]),
        ("a: !!python/object/apply:os.system ['true']\n", ["is not YAML in line 1"]),
        ("? [1, 2]\n: 3\n", ["neither a word nor a year"]),
        ("a: " + "[" * 5_000 + "]" * 5_000, ["nests deeper than"]),
        ("a: " + "x" * 1_000_001, ["1,000,004 bytes", "at most 1,000,000"]),
        ("workflow: \xe4".encode("latin-1"), ["is not UTF-8", "save it as UTF-8"]),
        (b"\x00\x01\x02", ["w.yaml"]),
        (MINIMAL.replace("P.tif", "'${NO_SUCH_FOLDER}/P.tif'"),
         ["inputs.population needs the environment variable NO_SUCH_FOLDER", "export", "--set"]),
        ("workflow: urbanisation\ninputs: {}\n", ["inputs need population, census.points"]),
        (MINIMAL + "bbox: [1, 2, 3]\n", ["bbox"]),
        ("workflow: urbanisation\n", ["key 'inputs' is missing"]),
    ],
)  # fmt: skip
def test_pages_that_are_no_workflows(tmp_path: Path, text: str | bytes, words: list[str]) -> None:
    refused(page(tmp_path, text), *words)


def test_aliases_that_would_fill_the_memory(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 30)]
    refused(page(tmp_path, "\n".join(lines)), "uses an alias in line 2")


def test_a_byte_order_mark_and_windows_lines_do_no_harm(tmp_path: Path) -> None:
    text = ("\ufeff" + MINIMAL).replace("\n", "\r\n")
    assert load_workflow(page(tmp_path, text)).workflow == "urbanisation"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["nonsense"], ["--set 'nonsense'", "key=value"]),
        (["=5"], ["--set '=5'"]),
        (["cells.ruleset"], ["key=value, for instance cells.ruleset=2024"]),
        (["cells.ruleset=[1"], ["has no YAML value"]),
        (["cells.speed=5"], ["key 'cells.speed' is unknown"]),
        (["workflow.name=x"], ["workflow is 'urbanisation'"]),
        (["inputs.population.2020=x"], ["inputs.population is 'P.tif'"]),
        (["cells.chunk=0", "bad", "units.rules=x"],
         ["3 problems", "cells.chunk is 0", "--set 'bad'", "units.rules is 'x'"]),
    ],
)  # fmt: skip
def test_settings_that_are_wrong(tmp_path: Path, settings: list[str], words: list[str]) -> None:
    refused(page(tmp_path, MINIMAL), *words, settings=settings)


def test_settings_change_single_values(tmp_path: Path) -> None:
    path = page(tmp_path, MINIMAL.replace("P.tif", "{2015: A.tif, 2020: B.tif}"))
    found = load_workflow(
        path,
        settings=["cells.ruleset=2024", "cells.thresholds.gap_area=9",
                  "inputs.population.2020=C.tif",
                  "title=Түркістан = Turkistan", "outputs.report=no", "bbox=[67, 42, 69, 44]"],
    )  # fmt: skip
    # a ruleset named by a number, as YAML reads it
    assert found.cells.ruleset == "2024"
    assert found.cells.thresholds == {"gap_area": 9}
    assert found.inputs.population == {2015: str(tmp_path / "A.tif"), 2020: str(tmp_path / "C.tif")}
    assert found.title == "Түркістан = Turkistan"
    assert found.outputs.report is False
    assert found.bbox == (67, 42, 69, 44)


def test_paths_start_at_the_data_folder_or_the_page(tmp_path: Path) -> None:
    text = MINIMAL.replace("P.tif", "[a.tif, /b.tif, s3://c.tif, /vsizip/d.zip/d.tif]")
    found = load_workflow(page(tmp_path, text)).inputs.population
    assert found == [str(tmp_path / "a.tif"), "/b.tif", "s3://c.tif", "/vsizip/d.zip/d.tif"]
    beside = load_workflow(page(tmp_path, text + "data: grids\n"))
    assert beside.inputs.population[0] == str(tmp_path / "grids" / "a.tif")  # type: ignore[index]
    named = load_workflow(page(tmp_path, text + "data: ${GRIDS}/x\n"), environ={"GRIDS": "/mnt"})
    assert named.inputs.population[0] == "/mnt/x/a.tif"  # type: ignore[index]


def test_missing_files_are_all_named(tmp_path: Path) -> None:
    text = """
workflow: urbanisation
inputs:
  population: {2020: P.tif}
  built: [B1.tif, B2.tif]
  units: {path: U.gpkg, id: unit}
  census: {totals: T.csv}
"""
    found = load_workflow(page(tmp_path, text))
    assert [p.name for p in input_files(found)] == ["P.tif", "B1.tif", "B2.tif", "U.gpkg", "T.csv"]
    (tmp_path / "B1.tif").write_text("")
    with pytest.raises(InputError, match="4 problems") as error:
        require_files(found)
    for name in ("P.tif", "B2.tif", "U.gpkg", "T.csv"):
        assert f"{tmp_path / name} does not exist" in str(error.value)


@pytest.mark.parametrize("name", sorted(p.stem for p in resource("workflows").glob("*.yaml")))
def test_packaged_workflows_are_sound(name: str, tmp_path: Path) -> None:
    text = resource("workflows", f"{name}.yaml").read_text(encoding="utf-8")
    environ = dict.fromkeys(re.findall(r"\$\{(\w+)\}", text), str(tmp_path))
    found = load_workflow(name, environ=environ)
    assert isinstance(found, AnyWorkflow)
    for lang in ("en", "ru", "kk"):
        assert title_of(found, lang)
    if found.data and Path(found.data) == resource("sample"):
        require_files(found)
        assert found.synthetic
    # by name, by path, and by the path in a checkout
    copy = tmp_path / f"{name}.yaml"
    shutil.copy(resource("workflows", f"{name}.yaml"), copy)
    again = load_workflow(copy, environ=environ)
    assert again.model_dump(exclude={"data", "inputs"}) == found.model_dump(
        exclude={"data", "inputs"}
    )


def test_a_workflow_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(tmp_path / "none.yaml", "does not exist", "belgium, city, demo", "check the path")
    refused(tmp_path, "is a folder")
    monkeypatch.chdir(tmp_path)
    assert load_workflow("workflows/demo.yaml").synthetic
    refused(Path("../demo"), "does not exist")


def test_a_workflow_cannot_be_changed(tmp_path: Path) -> None:
    found = load_workflow(page(tmp_path, MINIMAL))
    with pytest.raises(ValidationError):
        found.title = "x"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        found.cells.chunk = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    "address",
    [
        "https://ann:geheim@example.org/P.tif?token=s3cr3t", "http://127.0.0.1:9/P.tif",
        "file:///etc/passwd", "s3://bucket/P.tif", "/vsicurl/https://example.org/P.tif",
    ],
)  # fmt: skip
def test_addresses_that_no_record_could_hold_are_refused(tmp_path: Path, address: str) -> None:
    page = tmp_path / "w.yaml"
    page.write_text(MINIMAL.replace("P.tif", f"'{address}'"))
    for more in ((), ("--dry-run",)):
        refused = qala("run", page, "--out", tmp_path / "out", *more)
        assert refused.code == 2
        assert "is an address; expected a file, or catalog://" in refused.error
        assert "geheim" not in refused.error
        assert "s3cr3t" not in refused.error
    assert not (tmp_path / "out").exists()
