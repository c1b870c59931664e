"""Thresholds of the Degree of Urbanisation: one table, each with its source.

Sources
-------
M21
    Eurostat, UN-Habitat, OECD et al. (2021), *Applying the Degree of
    Urbanisation*, doi:10.2785/706535.
M24
    The manual's revision of July 2024 (Eurostat, *Statistics Explained*).
D22, D23
    Joint Research Centre, *GHSL Data Package 2022* (doi:10.2760/19817) and
    *2023* (doi:10.2760/098587).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from qala.errors import InputError, Problems

Ruleset = Literal["manual2021", "R2022A", "R2023A", "2024"]
RULESETS: tuple[Ruleset, ...] = ("manual2021", "R2022A", "R2023A", "2024")
Smoothing = Literal["R2022A", "R2023A", "none"]
#: beyond these the search of neighbours would take hours and mean nothing
MAX_GAP = 1_000
MAX_DISTANCE = 100


@dataclass(frozen=True)
class CellRules:
    """Every threshold of the cell classification; all comparisons are ≥.

    Attributes
    ----------
    centre_density
        People per km² of land of an urban-centre cell (M21).
    centre_population
        People of an urban centre (M21).
    centre_built
        Built-up share of land that also makes a candidate of a centre or dense
        cluster; None leaves the rule out. 0.5 in D22; 0.20 in D23: the published
        "optimal" world mean, never computed from a window.
    smoothing
        Majority rule: ``R2022A`` (5 of 8 neighbours; M21, D22), ``R2023A``
        (majority of neighbours that are land or populated; D23) or ``none``.
    gap_area
        Gaps in a centre smaller than this are filled, km²; 0 leaves them (M21).
    cluster_density, cluster_population
        Urban cluster and suburban cells: people per km², people (M21).
    dense_population
        Dense urban cluster: people (M21).
    semidense_density, semidense_population, semidense_connectivity
        Semi-dense urban cluster (M21; changed in M24).
    semidense_distance
        Cells that must lie between a semi-dense cluster and any centre or dense
        cluster, counted by 8-neighbour steps (M21: 3; M24: 2).
    rural_cluster_population
        People of a rural cluster (M21).
    low_density
        People per km² that part low from very low density rural cells (M21).
    water_land
        Share of land below which an empty cell is water (D22).
    """

    centre_density: float = 1500.0
    centre_population: float = 50_000.0
    centre_built: float | None = 0.20
    smoothing: Smoothing = "R2023A"
    gap_area: float = 15.0
    cluster_density: float = 300.0
    cluster_population: float = 5_000.0
    dense_population: float = 5_000.0
    semidense_density: float = 300.0
    semidense_population: float = 5_000.0
    semidense_connectivity: int = 8
    semidense_distance: int = 3
    rural_cluster_population: float = 500.0
    low_density: float = 50.0
    water_land: float = 0.5


_TABLE: dict[Ruleset, CellRules] = {
    "manual2021": CellRules(centre_built=None, smoothing="R2022A"),
    "R2022A": CellRules(centre_built=0.5, smoothing="R2022A"),
    "R2023A": CellRules(),
    "2024": CellRules(
        semidense_density=900.0,
        semidense_population=2_500.0,
        semidense_connectivity=4,
        semidense_distance=2,
    ),
}


def cell_rules(ruleset: str = "R2023A", **thresholds: Any) -> CellRules:
    """Return the rules of a ruleset with single thresholds changed.

    Parameters
    ----------
    ruleset
        ``manual2021``, ``R2022A``, ``R2023A`` or ``2024``.
    **thresholds
        Fields of :class:`CellRules`; None keeps the ruleset's value, except
        for ``centre_built``, where False leaves the built-up rule out.

    Raises
    ------
    InputError
        For an unknown ruleset or threshold, or a value out of range; all at once.

    Examples
    --------
    >>> cell_rules("2024", centre_population=75_000).centre_population
    75000
    >>> cell_rules("R2023A", centre_built=False).centre_built is None
    True
    """
    problems = Problems("cell rules")
    if ruleset not in RULESETS:
        problems.add(f"ruleset {ruleset!r}", "one of " + ", ".join(RULESETS))
    known = {f.name for f in fields(CellRules)}
    chosen: dict[str, Any] = {}
    for name, value in thresholds.items():
        if name not in known:
            problems.add(f"threshold {name!r} is unknown", "one of " + ", ".join(sorted(known)))
        elif name == "centre_built" and value is False:
            chosen[name] = None
        elif value is not None:
            chosen[name] = value
            _check(problems, name, value)
    problems.raise_if_any()
    return replace(_TABLE[ruleset], **chosen)  # type: ignore[index]


def _check(problems: Problems, name: str, value: Any) -> None:
    if name == "smoothing":
        if value not in ("R2022A", "R2023A", "none"):
            problems.add(f"smoothing is {value!r}", "R2022A, R2023A or none")
        return
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0:
        problems.add(f"{name} is {value!r}", "a finite number of at least 0")
    elif name == "semidense_connectivity" and value not in (4, 8):
        problems.add(f"{name} is {value!r}", "4 or 8")
    elif name == "semidense_distance" and int(value) != value:
        problems.add(f"{name} is {value!r}", "a whole number of cells")
    elif name == "semidense_distance" and value > MAX_DISTANCE:
        problems.add(f"{name} is {value!r}", f"at most {MAX_DISTANCE} cells")
    elif name == "gap_area" and value > MAX_GAP:
        problems.add(f"{name} is {value!r}", f"at most {MAX_GAP} km²")
    elif name in {"centre_built", "water_land"} and value > 1:
        problems.add(f"{name} is {value!r}", "a share from 0 to 1")


def level_codes(level: int) -> tuple[int, ...]:
    """Return the class codes of a level, most urban first, water last.

    Raises
    ------
    InputError
        When the level is neither 1 nor 2.
    """
    if level == 1:
        return (3, 2, 1, 0)
    if level == 2:
        return (30, 23, 22, 21, 13, 12, 11, 10)
    raise InputError(f"level is {level!r}", "1 or 2")


#: colours of the classes as GHS-SMOD and the Degree of Urbanisation draw them
#: (GHSL Data Package 2023, doi:10.2760/098587, table of GHS-SMOD L2 classes)
COLOURS: dict[int, tuple[int, int, int]] = {
    30: (255, 0, 0),
    23: (115, 38, 0),
    22: (168, 112, 0),
    21: (255, 255, 0),
    13: (55, 86, 35),
    12: (171, 205, 102),
    11: (205, 245, 122),
    10: (122, 182, 245),
    3: (255, 0, 0),
    2: (255, 170, 0),
    1: (115, 178, 115),
    0: (122, 182, 245),
}
