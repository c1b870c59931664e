"""qala: how urban a country really is, and a 3D twin of its cities.

The functions take and return xarray and geopandas objects and stay lazy until
computed. They are loaded on first use, so that importing qala is cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

#: public name → module that holds it
_PUBLIC = {
    "InputError": "errors",
    "QalaError": "errors",
    "TemporaryError": "errors",
    "aggregate": "raster",
    "area_rates": "fua_reports",
    "area_sensitivity": "fua_reports",
    "calibrate": "commuting",
    "classify_cells": "settlement",
    "classify_units": "units",
    "estimate_flows": "commuting",
    "functional_areas": "fua",
    "grid_from_points": "census",
    "isochrones": "travel",
    "label_centres": "settlement",
    "load_network": "network",
    "open_raster": "raster",
    "planning_indicators": "indicators",
    "read_network": "network",
    "read_units": "vector",
    "reconcile": "census",
    "sensitivity": "rates",
    "save_network": "network",
    "travel_times": "travel",
    "urban_centres": "settlement",
    "urbanisation_rates": "rates",
    "write_raster": "raster",
}

__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604  (names are strings)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"qala.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'qala' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
