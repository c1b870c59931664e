"""Thresholds: one table, single changes, mistakes told all at once."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from qala.errors import InputError
from qala.rules import COLOURS, RULESETS, CellRules, cell_rules, level_codes


def test_rulesets_differ_as_published() -> None:
    rules = {name: cell_rules(name) for name in RULESETS}
    assert {n: r.centre_built for n, r in rules.items()} == {
        "manual2021": None, "R2022A": 0.5, "R2023A": 0.2, "2024": 0.2,
    }  # fmt: skip
    assert {n: r.smoothing for n, r in rules.items()} == {
        "manual2021": "R2022A", "R2022A": "R2022A", "R2023A": "R2023A", "2024": "R2023A",
    }  # fmt: skip
    semi = (
        "semidense_density",
        "semidense_population",
        "semidense_connectivity",
        "semidense_distance",
    )
    for name, rule in rules.items():
        expected = (900, 2_500, 4, 2) if name == "2024" else (300, 5_000, 8, 3)
        assert tuple(getattr(rule, f) for f in semi) == expected
    for rule in rules.values():
        assert (rule.centre_density, rule.centre_population, rule.gap_area) == (1500, 50_000, 15)
        assert (rule.cluster_density, rule.cluster_population) == (300, 5_000)
        assert (rule.dense_population, rule.rural_cluster_population) == (5_000, 500)
        assert (rule.low_density, rule.water_land) == (50, 0.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("centre_density", -1), ("centre_density", float("nan")), ("centre_density", float("inf")),
        ("centre_density", "1500"), ("centre_density", True), ("centre_built", 1.5),
        ("centre_built", True), ("water_land", 2), ("smoothing", "R2019A"), ("smoothing", 1),
        ("semidense_connectivity", 6), ("semidense_distance", 1.5),
        ("semidense_distance", float("inf")), ("semidense_distance", 1_000), ("gap_area", 1e9),
        ("centre_people", 5),
    ],
)  # fmt: skip
def test_values_out_of_range(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"{name}.*expected"):
        cell_rules("R2023A", **{name: value})


def test_all_mistakes_at_once() -> None:
    with pytest.raises(InputError, match="3 problems") as error:
        cell_rules("R1999", gap_area=-1, speed=2)
    for word in ("'R1999'", "manual2021, R2022A, R2023A, 2024", "gap_area is -1", "'speed'"):
        assert word in str(error.value)


def test_none_keeps_and_false_leaves_out() -> None:
    assert cell_rules("R2023A", centre_built=None, gap_area=None) == cell_rules("R2023A")
    assert cell_rules("R2023A", centre_built=False).centre_built is None
    assert cell_rules("R2022A", gap_area=0).gap_area == 0
    with pytest.raises(FrozenInstanceError):
        CellRules().gap_area = 3  # type: ignore[misc]


def test_every_code_has_a_colour() -> None:
    assert set(level_codes(1)) | set(level_codes(2)) == set(COLOURS)
    with pytest.raises(InputError):
        level_codes(3)
