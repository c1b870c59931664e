"""Roofs by tilt and orientation, and the sun's energy they could give.

An upper bound: clear skies all year, no shade of neighbours. A measured clear-sky index of the
place turns it into an estimate.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from qala.city import _kernels
from qala.city.heights import Assumption
from qala.city.solids import Solids
from qala.errors import InputError

log = logging.getLogger("qala")

Array = np.ndarray[Any, Any]

#: every assumed number of the solar potential
ASSUMPTIONS: dict[str, Assumption] = {
    "flat_tilt": Assumption(10.0, "degree", "roofs below this count as flat; project assumption"),
    "module_efficiency": Assumption(0.20, "share", "project assumption: common silicon module"),
    "performance_ratio": Assumption(0.80, "share", "project assumption: losses of inverter, "
                                    "cables, heat and dirt"),
    "usable_share": Assumption(0.60, "share", "project assumption: room left by chimneys, edges "
                               "and ways"),
    "clear_sky_index": Assumption(1.0, "ratio", "clear sky all year: an upper bound"),
    "year": Assumption(2021.0, "year", "a year without a leap day; the sun's path hardly differs"),
}  # fmt: skip

#: directions a sloped roof may face, and flat roofs
SIDES = ("flat", "north", "east", "south", "west")
_TILT_STEP, _AZIMUTH_STEP = 10.0, 15.0


@dataclass(frozen=True)
class Roofs:
    """Roof area (m²) by side, (S, 5) in the order of :data:`SIDES`, and energy (S) kWh a year."""

    area: Array
    energy: Array


def roof_faces(solids: Solids) -> Array:
    """Return area (m²), tilt and azimuth (degrees) of every surface; area 0 where it is no roof."""
    out = np.zeros((len(solids.surface_types), 3))
    _kernels.roof_faces(
        solids.vertices, solids.vertex_offsets, solids.surface_offsets, solids.ring_offsets,
        solids.index_offsets, solids.indices, solids.surface_types, out,
    )  # fmt: skip
    return out


@lru_cache(maxsize=1024)
def clear_sky_energy(lon: float, lat: float, tilt: float, azimuth: float) -> float:
    """Return the clear-sky irradiation of a plane, kWh/m² a year.

    Parameters
    ----------
    lon, lat
        Place, degrees.
    tilt, azimuth
        Of the plane, degrees from level and clockwise from north.

    Raises
    ------
    InputError
        When pvlib is not installed.

    Notes
    -----
    pvlib: Ineichen-Perez clear sky with its Linke turbidity climatology, isotropic diffuse
    light (Holmgren et al. 2018, doi:10.21105/joss.00884), hour by hour.
    """
    import pandas as pd

    pvlib = _pvlib()
    sky, sun = _year(round(lon, 2), round(lat, 2))
    total = pvlib.irradiance.get_total_irradiance(
        tilt, azimuth, sun["apparent_zenith"], sun["azimuth"], sky["dni"], sky["ghi"], sky["dhi"]
    )
    hourly: pd.Series = total["poa_global"]
    return float(hourly.clip(lower=0).sum() / 1000)


def _pvlib() -> Any:
    try:
        import pvlib  # type: ignore[import-untyped]
    except ImportError as error:
        raise InputError(
            "pvlib is not installed", "pvlib for the roofs' solar potential", "pip install pvlib"
        ) from error
    return pvlib


@lru_cache(maxsize=4)
def _year(lon: float, lat: float) -> tuple[Any, Any]:
    import pandas as pd

    pvlib = _pvlib()
    year = int(ASSUMPTIONS["year"].value)
    hours = pd.date_range(f"{year}-01-01 00:30", f"{year}-12-31 23:30", freq="1h", tz="UTC")
    place = pvlib.location.Location(lat, lon)
    sun = place.get_solarposition(hours)
    return place.get_clearsky(hours, solar_position=sun), sun


def roof_potential(
    solids: Solids, rows: int, lon: float, lat: float, *, clear_sky_index: float | None = None
) -> Roofs:
    """Return roof area by side and the electricity roofs could give.

    Parameters
    ----------
    solids
        Solids of a table.
    rows
        Rows of the table.
    lon, lat
        Middle of the city, degrees.
    clear_sky_index
        Measured irradiation over clear-sky irradiation, 0–1; 1 gives the upper bound.

    Returns
    -------
    Roofs
        For each row of the table.

    Notes
    -----
    Energy = Σ area × usable share × irradiation × clear-sky index × module efficiency ×
    performance ratio (:data:`ASSUMPTIONS`). Irradiation is taken for tilts in steps of 10° and
    azimuths in steps of 15°. Neighbours' and terrain's shade is left out.
    """
    index = ASSUMPTIONS["clear_sky_index"].value if clear_sky_index is None else clear_sky_index
    if not 0 < index <= 1:
        raise InputError(f"clear-sky index is {index:g}", "a number above 0 and up to 1")
    faces = roof_faces(solids)
    area, tilt, azimuth = faces.T
    row = solids.rows[np.repeat(np.arange(len(solids)), np.diff(solids.surface_offsets))]
    live = (area > 0) & (np.repeat(solids.kinds, np.diff(solids.surface_offsets)) >= 0)
    flat = tilt < ASSUMPTIONS["flat_tilt"].value
    side = np.where(flat, 0, 1 + np.floor((azimuth + 45.0) % 360.0 / 90.0).astype(int))
    out = np.bincount(row[live] * 5 + side[live], weights=area[live], minlength=rows * 5)
    t = np.where(flat, 0.0, np.rint(tilt / _TILT_STEP) * _TILT_STEP)
    a = np.where(flat, 180.0, (np.rint(azimuth / _AZIMUTH_STEP) * _AZIMUTH_STEP) % 360.0)
    kinds, which = np.unique(np.column_stack([t, a])[live], axis=0, return_inverse=True)
    sun = np.array([clear_sky_energy(lon, lat, float(x), float(y)) for x, y in kinds])
    factor = index * float(
        np.prod([ASSUMPTIONS[k].value
                 for k in ("module_efficiency", "performance_ratio", "usable_share")])
    )  # fmt: skip
    energy = np.bincount(
        row[live], weights=area[live] * sun[which.ravel()] * factor, minlength=rows
    ) if len(kinds) else np.zeros(rows)  # fmt: skip
    return Roofs(out.reshape(rows, 5), energy)
