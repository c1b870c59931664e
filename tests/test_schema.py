"""The JSON schema of workflows is what the models say, and the packaged pages keep it."""

from __future__ import annotations

import json

import pydantic
import pytest
from builders import qala
from packaging.version import Version

from qala.config import workflow_schema
from qala.resources import resource


@pytest.mark.skipif(
    Version(pydantic.VERSION) < Version("2.11"), reason="older pydantic words the schema otherwise"
)
def test_the_schema_is_up_to_date() -> None:
    text = resource("workflows", "schema.json").read_text(encoding="utf-8")
    assert json.loads(text) == workflow_schema(), (
        "made from the models: qala schema > workflows/schema.json"
    )
    printed = qala("schema")
    assert printed.code == 0
    assert printed.out == text


def test_every_key_is_explained() -> None:
    schema = workflow_schema()
    parts = schema["$defs"]
    assert {"Workflow", "AreasWorkflow", "IndicatorsWorkflow", "CityWorkflow"} <= set(parts)
    plain = {"ruleset", "thresholds", "rules", "overlay", "language", "figures", "report",
             "sensitivity", "inputs", "cells", "units", "outputs", "city"}  # fmt: skip
    for name, part in parts.items():
        assert part["additionalProperties"] is False, name
        assert part["description"], name
        for key, value in part["properties"].items():
            told = value.get("description") or "$ref" in value or "const" in value
            assert key in plain or told, f"{name}.{key}"
