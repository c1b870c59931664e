"""What a twin is: the values that recipes make and exports are written from.

Lowest of the city's modules: it imports nothing of the exports, which import it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qala.city.osm import NOTICE

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

    from qala.city.people import PeopleReport
    from qala.city.relief import Relief
    from qala.city.terrain import Vertical

Issue = tuple[str, str, str, str]

#: columns of the layer ``buildings``, in order
COLUMNS = (
    "id", "parent", "kind", "class", "name", "height", "height_source", "height_lo", "height_hi",
    "min_height", "base_z", "base_source", "levels", "roof_shape", "roof_height", "roof_direction",
    "roof_orientation", "roof_source", "lod", "valid_code", "valid_from", "valid_to",
    "footprint_area", "floor_area", "roof_area", "volume", "roof_flat_area", "roof_north_area",
    "roof_east_area", "roof_south_area", "roof_west_area", "solar_kwh", "people", "source_id",
)  # fmt: skip


@dataclass(frozen=True)
class Twin:
    """Everything a twin is written from.

    Attributes
    ----------
    name
        Short name of the city.
    buildings
        Table of buildings and parts, footprints as geometry, local UTM zone. Solids are made
        from it where they are needed, some rows at a time (:func:`qala.city.solids.make_solids`).
    layers
        The other layers: streets, land, networks, points.
    issues
        ``layer, id, action, reason`` of every repaired or refused object.
    vertical
        What heights refer to.
    people
        Where the people of the grid went; None without a grid.
    area_km2
        Area of the twin, km².
    area
        The area in EPSG:4326; None for the whole extract.
    timings
        Seconds of each step.
    notice
        Attribution of the sources, carried into every export.
    synthetic
        Whether the city is invented.
    relief
        The terrain as a surface; None without one.
    """

    name: str
    buildings: gpd.GeoDataFrame
    layers: dict[str, gpd.GeoDataFrame]
    issues: pd.DataFrame
    vertical: Vertical
    people: PeopleReport | None
    area_km2: float
    area: Any = None
    timings: dict[str, float] = field(default_factory=dict)
    notice: str = NOTICE
    synthetic: bool = False
    relief: Relief | None = None


def is_day(text: str) -> bool:
    """Tell whether a text is a day of ISO 8601, with or without a time after it."""
    from datetime import date

    try:
        date.fromisoformat(str(text)[:10])
    except ValueError:
        return False
    return True
