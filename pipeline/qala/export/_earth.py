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


def enu(lon: Any, lat: Any, height: Any) -> Array:
    """Return the 4×4 matrices from east, north, up at places to earth-centred coordinates."""
    lon, lat, height = np.broadcast_arrays(lon, lat, height)
    sl, cl, sp, cp = np.sin(lon), np.cos(lon), np.sin(lat), np.cos(lat)
    out = np.zeros((*lon.shape, 4, 4))
    out[..., :3, 0] = np.stack([-sl, cl, np.zeros_like(sl)], axis=-1)
    out[..., :3, 1] = np.stack([-sp * cl, -sp * sl, cp], axis=-1)
    out[..., :3, 2] = np.stack([cp * cl, cp * sl, sp], axis=-1)
    out[..., :3, 3] = ecef(lon.ravel(), lat.ravel(), height.ravel()).reshape(*lon.shape, 3)
    out[..., 3, 3] = 1.0
    return out


def inverse(matrix: Array) -> Array:
    """Invert a turn and shift exactly, without losing metres to 6,000 km."""
    out = np.eye(4)
    out[:3, :3] = matrix[:3, :3].T
    out[:3, 3] = -matrix[:3, :3].T @ matrix[:3, 3]
    return out
