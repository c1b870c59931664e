"""What a dry run tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from qala import flows
from qala.config import load_workflow
from qala.plan import describe

SETTINGS = ["outputs.figures=false", "outputs.report=false"]


def test_plan_tells_steps_needs_and_state(tmp_path: Path) -> None:
    workflow = load_workflow("smoke", settings=SETTINGS, environ={})
    out = tmp_path / "out"
    before = describe(workflow, out)
    text = "\n".join(before)
    assert "units.gpkg (0.2 MB)" in text
    assert "4. urbanisation rates" in text
    assert "draw maps" not in text
    assert "MB of memory and" in text
    assert "no result is there yet" in before[-1]
    assert not out.exists()
    flows.urbanisation(workflow, out=out)
    assert describe(workflow, out)[-1].startswith("nothing to do")
    other = load_workflow("smoke", settings=[*SETTINGS, "cells.ruleset=2024"], environ={})
    assert describe(other, out)[-1] == "would work, because cells changed"


def test_plan_tells_what_is_missing_and_what_is_to_fetch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QALA_CACHE", str(tmp_path / "cache"))
    settings = ["inputs.land=catalog://land?resolution=1000", "inputs.official=gone.csv"]
    lines = describe(load_workflow("smoke", settings=settings, environ={}), tmp_path)
    text = "\n".join(lines)
    assert "gone.csv (MISSING)" in text
    assert "catalog://land?resolution=1000: 1 files, 0 in the cache" in text
    assert lines[-1] == "what has changed is told once all inputs are there"
