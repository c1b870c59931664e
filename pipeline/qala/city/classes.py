"""Classes of buildings for colours and legends, from OpenStreetMap's building types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

#: class → (red, green, blue); distinguishable with the common colour-vision deficiencies
#: (after Wong 2011, doi:10.1038/nmeth.1618, lightened for shaded walls)
COLOURS: dict[str, tuple[int, int, int]] = {
    "housing": (232, 190, 120),
    "trade": (86, 160, 211),
    "industry": (150, 130, 170),
    "public": (0, 158, 115),
    "worship": (204, 121, 167),
    "outbuilding": (166, 142, 118),
    "other": (222, 222, 222),
}
CLASSES = tuple(COLOURS)

_MEMBERS = {
    "housing": "house detached semidetached_house terrace bungalow farm villa residential "
               "apartments dormitory cabin static_caravan houseboat",
    "trade": "commercial retail office supermarket hotel kiosk shop bank restaurant "
             "parking",
    "industry": "industrial warehouse factory manufacture works power substation "
                "transformer_tower storage_tank silo hangar",
    "public": "school kindergarten university college hospital clinic public civic government "
              "fire_station train_station transportation sports_hall stadium library museum "
              "townhall castle sports_centre grandstand bridge",
    "worship": "mosque church cathedral chapel temple synagogue shrine religious monastery "
               "mausoleum presbytery",
    "outbuilding": "garage garages shed hut greenhouse carport roof service barn stable cowshed "
                   "farm_auxiliary sty outbuilding boathouse allotment_house container tent "
                   "toilets ruins bunker",
}  # fmt: skip
_CLASS_OF = {kind: name for name, kinds in _MEMBERS.items() for kind in kinds.split()}


def building_class(kinds: pd.Series) -> np.ndarray[Any, Any]:
    """Return the class of each building type; ``other`` where the type says nothing."""
    return np.asarray(kinds.map(_CLASS_OF).fillna("other").to_numpy(object))
