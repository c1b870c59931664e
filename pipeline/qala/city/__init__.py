"""The 3D city: buildings, terrain, streets and networks of one area as a digital twin.

Heavy modules are loaded on first use.

Examples
--------
``qala.city.open("TWIN_DIR").query((x0, y0, z0, x1, y1, z1))`` returns the ids of the
objects in a box, from the index on disk.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qala.city.index import CityIndex

__all__ = ["build_twin", "check_cityjson", "check_twin", "city_flow", "open"]

_PLACES = {
    "build_twin": "twin",
    "city_flow": "twin",
    "check_cityjson": "check",
    "check_twin": "check",
}


def open(path: str | Path) -> CityIndex:
    """Open the 3-D index of a twin folder without loading the twin.

    Parameters
    ----------
    path
        Twin folder, or the ``city.gpkg`` in it.

    Raises
    ------
    InputError
        When there is no index.
    """
    from qala.city.index import open_index

    return open_index(path)


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        from importlib import import_module

        return getattr(import_module(f"qala.city.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'qala.city' has no attribute {name!r}")
