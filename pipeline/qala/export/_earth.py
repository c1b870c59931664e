"""Earth-centred coordinates of WGS 84 and the local frames in them."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

#: WGS 84: equatorial radius (m) and square of the eccentricity
A, E2 = 6378137.0, 6.69437999014131699614e-3


def ecef(lon: Array, lat: Array, height: Array) -> Array:
    """Return earth-centred x, y, z (m) of places in radians and ellipsoidal metres."""
    sin, cos = np.sin(lat), np.cos(lat)
    n = A / np.sqrt(1 - E2 * sin * sin)
    return np.column_stack(
        [
            (n + height) * cos * np.cos(lon),
            (n + height) * cos * np.sin(lon),
            (n * (1 - E2) + height) * sin,
        ]
    )


def enu(lon: float, lat: float, height: float) -> Array:
    """Return the 4×4 matrix from east, north, up at a place to earth-centred coordinates."""
    sl, cl, sp, cp = np.sin(lon), np.cos(lon), np.sin(lat), np.cos(lat)
    out = np.eye(4)
    out[:3, 0] = (-sl, cl, 0)
    out[:3, 1] = (-sp * cl, -sp * sl, cp)
    out[:3, 2] = (cp * cl, cp * sl, sp)
    out[:3, 3] = ecef(np.array([lon]), np.array([lat]), np.array([height]))[0]
    return out


def inverse(matrix: Array) -> Array:
    """Invert a turn and shift exactly, without losing metres to 6,000 km."""
    out = np.eye(4)
    out[:3, :3] = matrix[:3, :3].T
    out[:3, 3] = -matrix[:3, :3].T @ matrix[:3, 3]
    return out
