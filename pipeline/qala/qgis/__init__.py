"""qala from inside QGIS: ordinary functions that run elsewhere and bring layers back.

In QGIS's Python console::

    from qala.qgis import urbanisation
    urbanisation("population.tif", units="Districts", id="code")

runs qala in its own environment, as a process of its own, while the window
stays alive, and adds the styled layers of the result to the project.

Functions
---------
urbanisation
    Degree of Urbanisation, urban centres and urban shares of units.
functional_areas
    Cities with the zones that commute to them.
travel_times
    Seconds from populated cells to the nearest centres.
city
    The 3D layers of a city.
indicators
    Indicators of SDG 11 and kin for units and functional urban areas.
check
    Say whether files and layers can be used, and what to do if not.
open_results
    Add a GeoPackage or folder of results to the project, styled and grouped.
status
    Say which worker environment is used, and whether it works.

This package needs the standard library and ``qgis`` alone. qala itself is never
imported into QGIS: its libraries bring their own GDAL, PROJ and GEOS, which do
not go together with those that QGIS has loaded.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_CONSOLE = (
    "check",
    "city",
    "functional_areas",
    "indicators",
    "open_results",
    "status",
    "travel_times",
    "urbanisation",
)

__all__ = list(_CONSOLE)


def __getattr__(name: str) -> Any:
    # loaded on first use: set-up and its tests need no qgis
    if name in _CONSOLE:
        return getattr(import_module(".console", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_CONSOLE])
