"""The Degree of Urbanisation of cells written plainly on whole arrays, as a second opinion.

Every rule stands here once more, from the published text, without runs,
strips, frontiers or compiled code. Far too slow for maps; right for grids of
some hundred cells.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

FOUR = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)
EIGHT = np.ones((3, 3), bool)
AROUND = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]

RULES: dict[str, dict[str, Any]] = {
    "manual2021": {"built": None, "smoothing": "five"},
    "R2022A": {"built": 0.5, "smoothing": "five"},
    "R2023A": {"built": 0.2, "smoothing": "majority"},
    "2024": {"built": 0.2, "smoothing": "majority", "semi": (900, FOUR, 2_500, 2)},
}


def classify(
    people: np.ndarray,
    built: np.ndarray | None,
    land: np.ndarray | None,
    *,
    level: int,
    ruleset: str,
    gap: float = 15,
) -> np.ndarray:
    """Classify cells of 1 km²; people per cell, built and land as shares of a cell."""
    rules = RULES[ruleset]
    missing = np.isnan(people) if land is None else np.isnan(people) & ~(land < 0.5)
    with np.errstate(divide="ignore", invalid="ignore"):
        ground = np.ones(people.shape) if land is None else land
        density = np.where(people > 0, people / ground, 0.0)
        share = np.zeros(people.shape)
        if built is not None:
            share = np.where(built > 0, np.round(built / ground, 3), 0.0)
    dry = ~(ground < 0.5) if land is None else ground >= 0.5
    nobody, bare = ~(people > 0), True if built is None else ~(built > 0)
    water = ~dry & nobody & bare & ~missing
    uncounted = (~dry & (people == 0) & ~np.isnan(ground)) | water | missing

    dense = density >= 1500
    if built is not None and rules["built"] is not None:
        dense |= share >= rules["built"]
    centres = _label(dense, FOUR, people, 50_000)
    centres = _smooth(centres, rules["smoothing"], water, missing, uncounted)
    centres = _fill(centres, gap)
    urban = _label(density >= 300, EIGHT, people, 5_000) > 0
    if level == 1:
        out = np.ones(people.shape, np.uint8)
        out[water] = 0
        out[missing] = 255
        out[urban] = 2
        out[centres > 0] = 3
        return out

    dense_urban = _label(dense, FOUR, people, 5_000) > 0
    floor, structure, minimum, distance = rules.get("semi", (300, EIGHT, 5_000, 3))
    candidates = _label(density >= floor, structure, people, minimum)
    zone = ndimage.binary_dilation((centres > 0) | dense_urban, EIGHT, iterations=distance)
    semi = (candidates > 0) & ~np.isin(candidates, candidates[zone])
    out = np.full(people.shape, 11, np.uint8)
    out[water] = 10
    out[missing] = 255
    out[density >= 50] = 12
    out[_label(density >= 300, EIGHT, people, 500) > 0] = 13
    out[urban] = 21
    out[semi] = 22
    out[dense_urban] = 23
    out[centres > 0] = 30
    return out


def _label(mask: np.ndarray, structure: np.ndarray, people: np.ndarray, minimum: float) -> Any:
    """Number the clusters that have enough people; 0 elsewhere."""
    labels, count = ndimage.label(mask, structure)
    for k in range(1, count + 1):
        if np.nansum(people[labels == k]) < minimum:
            labels[labels == k] = 0
    return labels


def _smooth(
    centres: np.ndarray, how: str, water: np.ndarray, missing: np.ndarray, uncounted: np.ndarray
) -> np.ndarray:
    """Add cells by the majority of their neighbours, all at once, until none is added."""
    height, width = centres.shape
    while True:
        added = {}
        for r in range(height):
            for c in range(width):
                if centres[r, c] or missing[r, c] or (how == "majority" and water[r, c]):
                    continue
                near = [(r + i, c + j) for i, j in AROUND]
                inner = [(y, x) for y, x in near if 0 <= y < height and 0 <= x < width]
                belong = [centres[y, x] for y, x in inner if centres[y, x]]
                if not belong:
                    continue
                most = max(belong.count(k) for k in belong)
                first = next(k for k in belong if belong.count(k) == most)
                left_out = sum(bool(uncounted[y, x] and not centres[y, x]) for y, x in inner)
                enough = most >= 5 if how == "five" else 2 * most > 8 - left_out
                if enough:
                    added[r, c] = first
        if not added:
            return centres
        centres = centres.copy()
        for cell, label in added.items():
            centres[cell] = label


def _fill(centres: np.ndarray, gap: float) -> np.ndarray:
    """Give small holes to the one centre around them."""
    holes, count = ndimage.label(centres == 0, FOUR)
    padded = np.pad(centres, 1, constant_values=-1)
    filled = centres.copy()
    for k in range(1, count + 1):
        hole = np.pad(holes == k, 1)
        rim = set(padded[ndimage.binary_dilation(hole, FOUR) & ~hole].tolist())
        if hole.sum() < gap and len(rim) == 1 and rim != {-1}:
            filled[holes == k] = rim.pop()
    return filled
