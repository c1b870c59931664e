"""What each indicator is, and every distance, time and limit with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from qala.amenities import NETWORKS
from qala.messages import tr

if TYPE_CHECKING:
    import geopandas as gpd

#: every distance, time and limit, with its source
STOP_METRES = 500.0  # SDG 11.2.1 metadata (UN-Habitat 2021): low-capacity public transport
HIGH_METRES = 1_000.0  # the same: rail, metro, ferry
OPEN_METRES = 400.0  # SDG 11.7.1 training module (UN-Habitat 2018): five minutes on foot
ACCESS_MINUTES = (15, 30)
ZONE_MINUTES = (15, 30, 45, 60, 90)  # 90: Makhrova, Safronov & Abilov 2023
EMERGENCY_MINUTES = (5, 10, 15)
POINT_METRES = 500.0  # project assumption: radius of given point facilities
#: below this growth a year the ratio of SDG 11.3.1 says nothing; project assumption
MIN_GROWTH = 0.0005
#: distance of the points that stand for the people of a cell, metres: GHSL's finest grid
SPACING_METRES = 100.0
#: points of people at most; they are set wider apart where there would be more
MOST_PLACES = 20_000_000
#: people farther from every mapped street are taken to live outside the extract, metres
EXTRACT_METRES = 3_000.0
#: below this share of people within the extract nothing of it is told of a zone
EXTRACT_SHARE = 0.5
#: a piece of road that walkers may enter between two nodes, metres
PIECE_METRES = 50.0
OUTLINE_METRES = 50.0
WALK_SECONDS = 3.6 / 5.0  # seconds a metre at 5 km/h (qala.speeds.WALK_KMH)

SERVICE_NAMES = ("school", "kindergarten", "hospital")
EMERGENCY_NAMES = ("fire", "hospital")
MODES = ("foot", "car")
#: what such data cannot tell
NOT_COMPUTABLE = ("traffic_speed", "co2", "air_quality", "energy_use", "crime")


@dataclass(frozen=True)
class Definition:
    """What an indicator is.

    Attributes
    ----------
    code
        Its name in tables.
    group
        1 to 13 as in docs/indicators.md; 0 for what is not computable.
    unit
        Unit of the value.
    sdg
        Indicator or target of the Sustainable Development Goals; empty where there is none.
    key
        Key of its title in the catalog.
    words
        Placeholders of the title → keys of the catalog.
    values
        Placeholders of the title → numbers.
    """

    code: str
    group: int
    unit: str
    sdg: str = ""
    key: str = ""
    words: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)

    def title(self, lang: str = "en", item: str = "") -> str:
        """Return the title in a language; ``item`` names the layer it was told of."""
        words = {name: tr(key, lang) for name, key in self.words.items()}
        text = tr(self.key or f"indicator.{self.code}", lang, **words, **self.values)
        return f"{text}: {item}" if item else text


def _definitions() -> dict[str, Definition]:
    found = [
        Definition("lcrpgr", 1, "ratio", "11.3.1"),
        Definition("land_consumption_rate", 1, "share/year", "11.3.1"),
        Definition("population_growth_rate", 1, "share/year", "11.3.1"),
        Definition("built_per_person", 1, "m2/person", "11.3.1"),
        Definition("official_urban_share", 2, "share"),
        Definition("urban_share", 2, "share"),
        Definition("centre_share", 2, "share"),
        Definition("urban_ratio", 2, "ratio"),
        Definition("area_share", 2, "share"),
        Definition("growth_inside_people", 3, "share"),
        Definition("growth_inside_built", 3, "share"),
        Definition("transit_access", 4, "share", "11.2.1"),
        Definition("stop_500m", 4, "share", "11.2.1"),
        Definition("high_capacity_1km", 4, "share", "11.2.1"),
        Definition("open_space_share", 5, "share", "11.7.1"),
        Definition("green_share", 5, "share", "11.7.1"),
        Definition("open_space_per_built", 5, "ratio", "11.7.1"),
        Definition("open_space_per_person", 5, "m2/person", "11.7.1"),
        Definition("open_space_400m", 5, "share", "11.7.1"),
    ]
    for service in SERVICE_NAMES:
        for mode in MODES:
            words = {"service": f"service.{service}", "mode": f"travel.{mode}"}
            found.append(
                Definition(
                    f"{service}_minutes_{mode}", 6, "minutes", key="indicator.service_minutes",
                    words=words,
                )
            )  # fmt: skip
            found += [
                Definition(
                    f"{service}_{m}min_{mode}", 6, "share", key="indicator.service_within",
                    words=words, values={"minutes": m},
                )
                for m in ACCESS_MINUTES
            ]  # fmt: skip
    found += [
        Definition("cycle_km", 7, "km"),
        Definition("cycle_share", 7, "share"),
        Definition("barrier_free_km", 7, "km"),
        Definition("barrier_free_share", 7, "share"),
        Definition("zone_people_share", 8, "share", "11.a"),
        *(
            Definition(
                f"zone_{m}min", 8, "share", "11.a", "indicator.zone_within", values={"minutes": m}
            )
            for m in ZONE_MINUTES
        ),
        Definition("roof_area", 9, "m2"),
        Definition("solar_potential", 9, "GWh/year", "7.2"),
        Definition("solar_per_person", 9, "kWh/year/person", "7.2"),
    ]
    for service in EMERGENCY_NAMES:
        found += [
            Definition(
                f"emergency_{service}_{m}min", 10, "share", key="indicator.emergency_within",
                words={"service": f"service.{service}"}, values={"minutes": m},
            )
            for m in EMERGENCY_MINUTES
        ]  # fmt: skip
    found += [
        Definition("points_covered", 11, "share"),
        Definition("points_per_1000", 11, "1/1000 people"),
        Definition("points_per_km2", 11, "1/km2"),
        Definition("roads_density", 12, "km/km2"),
        *(
            Definition(
                f"{kind}_density", 12, "km/km2", key="indicator.network_density",
                words={"network": f"network_kind.{kind}"},
            )
            for kind in NETWORKS
        ),
        Definition("people_in_zones", 13, "share", "11.5"),
        *(Definition(code, 0, "") for code in NOT_COMPUTABLE),
    ]  # fmt: skip
    return {d.code: d for d in found}


#: all indicators in the order of tables
DEFINITIONS: Mapping[str, Definition] = MappingProxyType(_definitions())

#: a text of the catalog with its values, so that it can be told in any language
Words = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class FunctionalAreas:
    """Areas as ``qala areas`` writes them.

    Attributes
    ----------
    areas
        Polygons with ``area`` (id) and, where known, ``name``.
    cores, zones
        Cities and commuting zones with ``area``; None where unknown.
    """

    areas: gpd.GeoDataFrame
    cores: gpd.GeoDataFrame | None = None
    zones: gpd.GeoDataFrame | None = None
