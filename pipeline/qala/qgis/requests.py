"""What is asked of the worker: arguments of the command ``qala``, from plain values.

Shared by the console and the Processing algorithms. Standard library alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import Problems

RULESETS = ("R2023A", "manual2021", "R2022A", "2024")
UNIT_RULES = ("2024", "2021")
LANGUAGES = ("en", "ru", "kk")


def urbanisation_workflow(
    file: Path,
    *,
    population: Mapping[int | None, Sequence[str]],
    built: Mapping[int | None, Sequence[str]],
    land: Mapping[int | None, Sequence[str]],
    units: str | None,
    layer: str | None,
    id: str | None,
    official: str | None,
    places: str | None,
    ruleset: str,
    rules: str,
    thresholds: Mapping[str, Any],
    lang: str,
    title: str,
    report: bool,
    sensitivity: bool,
    repair: bool,
    built_unit: str | None = None,
    land_unit: str | None = None,
) -> Path:
    """Write a workflow for ``qala run``; JSON is YAML too.

    Raises
    ------
    InputError
        With every value out of range at once.
    """
    problems = Problems("urbanisation")
    if not population:
        problems.add("no population raster", "people per cell, on GHSL's grid")
    if ruleset not in RULESETS:
        problems.add(f"ruleset {ruleset!r}", "one of " + ", ".join(RULESETS))
    if rules not in UNIT_RULES:
        problems.add(f"rules {rules!r}", "one of " + ", ".join(UNIT_RULES))
    if lang not in LANGUAGES:
        problems.add(f"language {lang!r}", "one of " + ", ".join(LANGUAGES))
    if units is not None and not id:
        problems.add("no column of unit ids", "id=, for instance id='code'")
    if units is None and (official or id):
        problems.add("official figures or an id without units", "units=, the layer of units")
    problems.raise_if_any()

    def source(files: Mapping[int | None, Sequence[str]]) -> Any:
        if not files:
            return None
        if set(files) == {None}:
            return list(files[None])
        return {epoch: list(paths) for epoch, paths in files.items()}

    inputs: dict[str, Any] = {
        "population": source(population),
        "built": source(built),
        "land": source(land),
        "official": official,
        "places": places,
        "built_unit": built_unit,
        "land_unit": land_unit,
    }
    if units is not None:
        inputs["units"] = {"path": units, "layer": layer, "id": id, "repair": repair}
    workflow = {
        "workflow": "urbanisation",
        "title": title,
        "inputs": {k: v for k, v in inputs.items() if v is not None},
        "cells": {"ruleset": ruleset, "thresholds": dict(thresholds)},
        "units": {"rules": rules},
        "outputs": {
            "language": lang,
            "figures": report,
            "report": report,
            "sensitivity": sensitivity,
        },
    }
    # epochs are numbers in YAML, and JSON has no keys of that kind
    text = json.dumps(workflow, ensure_ascii=False, indent=1)
    for epoch in {e for group in (population, built, land) for e in group if e is not None}:
        text = text.replace(f'"{epoch}": [', f"{epoch}: [")
    file.write_text(text + "\n", encoding="utf-8")
    return file


def options(**values: Any) -> list[str]:
    """Return command-line options: None and False leave one out, lists repeat it.

    Examples
    --------
    >>> options(max_minutes=90, repair=True, land=None, built=["a", "b"])
    ['--max-minutes', '90', '--repair', '--built', 'a', '--built', 'b']
    """
    found: list[str] = []
    for name, value in values.items():
        flag = "--" + name.replace("_", "-")
        if value is None or value is False:
            continue
        if value is True:
            found.append(flag)
        elif isinstance(value, (list, tuple)):
            for item in value:
                found += [flag, str(item)]
        else:
            found += [flag, f"{value:g}" if isinstance(value, float) else str(value)]
    return found


def by_epoch(files: Mapping[int | None, Sequence[str]]) -> list[str]:
    """Return files as ``epoch=file``, plain where there is no epoch.

    Examples
    --------
    >>> by_epoch({2015: ["a.tif"], 2020: ["b.tif"]}), by_epoch({None: ["c.tif"]})
    (['2015=a.tif', '2020=b.tif'], ['c.tif'])
    """
    return [
        path if epoch is None else f"{epoch}={path}"
        for epoch, paths in files.items()
        for path in paths
    ]


def how_of_areas(
    *, flows: str | None, network: str | None, distance: bool, isochrone: float | None
) -> list[str]:
    """Return the options that say how commuting is known, exactly one way.

    Raises
    ------
    InputError
        When none or several ways are named.
    """
    named = {
        "flows": flows, "network": network, "distance": distance or None, "isochrone": isochrone
    }  # fmt: skip
    given = [k for k, v in named.items() if v is not None]
    problems = Problems("functional_areas")
    if len(given) != 1:
        met = "nothing says how people commute" if not given else " and ".join(given) + " are given"
        problems.add(met, "one of flows, network, distance, isochrone", "distance needs no data")
    if isochrone is not None and isochrone <= 0:
        problems.add(f"isochrone {isochrone} minutes", "more than 0")
    problems.raise_if_any()
    return options(flows=flows, network=network, distance=distance, isochrone=isochrone)
