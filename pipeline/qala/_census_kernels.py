"""Compiled loop of the census: settlements spread over cells."""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def spread_points(
    out: Any,
    rows: Any,
    cols: Any,
    people: Any,
    radius: Any,
    reach: float,
    land: Any,
    on_land: bool,
) -> Any:
    """Add each settlement's people to cells by a Gaussian integrated over each cell.

    Parameters
    ----------
    out
        (rows, cols) people, added to in place.
    rows, cols
        (points,) position of each point in cells, fractional.
    people
        (points,) people.
    radius
        (points,) b of the profile ``exp(-(r/b)²)``, in cells.
    reach
        Half width of the window, in multiples of b.
    land
        (rows, cols) weight of each cell; used when ``on_land``.
    on_land
        Whether ``land`` counts.

    Returns
    -------
    numpy.ndarray
        (points,) bool, whether a settlement found cells to stand on.
    """
    height, width = out.shape
    placed = np.zeros(rows.size, dtype=np.bool_)
    for i in range(rows.size):
        b = max(radius[i], 1e-6)
        half = reach * b
        top, bottom = max(0, int(rows[i] - half)), min(height - 1, int(rows[i] + half))
        left, right = max(0, int(cols[i] - half)), min(width - 1, int(cols[i] + half))
        down = np.empty(bottom - top + 1)
        across = np.empty(right - left + 1)
        # the Gaussian is a product of one along rows and one along columns
        for r in range(down.size):
            down[r] = math.erf((top + r + 1 - rows[i]) / b) - math.erf((top + r - rows[i]) / b)
        for c in range(across.size):
            across[c] = math.erf((left + c + 1 - cols[i]) / b) - math.erf((left + c - cols[i]) / b)
        whole = 0.0
        for r in range(down.size):
            for c in range(across.size):
                w = down[r] * across[c]
                if on_land:
                    w *= land[top + r, left + c]
                whole += w
        if whole <= 0.0:
            continue
        placed[i] = True
        share = people[i] / whole
        for r in range(down.size):
            for c in range(across.size):
                w = down[r] * across[c]
                if on_land:
                    w *= land[top + r, left + c]
                out[top + r, left + c] += share * w
    return placed
