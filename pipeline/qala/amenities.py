"""What an OpenStreetMap extract offers to planning indicators: stops, open space, services, ways.

Tags are read here and nowhere else; what each word means is told beside the table that holds it.
Tag meanings follow the OpenStreetMap wiki (Key:public_transport, Key:leisure, Key:cycleway,
Key:wheelchair, Key:man_made).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qala.errors import InputError

if TYPE_CHECKING:
    import geopandas as gpd
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from qala.city.osm import OsmCity

    Bools = NDArray[np.bool_]

log = logging.getLogger("qala")

#: services that people travel to, and how OpenStreetMap calls them
SERVICES: Mapping[str, tuple[str, ...]] = {
    "school": ("school",),
    "kindergarten": ("kindergarten",),
    "hospital": ("hospital",),
    "fire": ("fire_station",),
}
#: kinds of green that are open to everybody, after the open public spaces of SDG 11.7.1 (parks,
#: gardens, playgrounds, recreation grounds); forests, meadows, golf courses are green, not open
OPEN_SPACE = frozenset(
    {"park", "garden", "playground", "common", "dog_park", "recreation_ground", "village_green"}
)
#: access that shuts the public out
_SHUT = frozenset({"private", "no", "customers", "permit", "members"})
#: roads of cars; service ways and tracks are left out of densities
ROADS = frozenset(
    {
        "motorway", "motorway_link", "trunk", "trunk_link", "primary", "primary_link",
        "secondary", "secondary_link", "tertiary", "tertiary_link", "unclassified",
        "residential", "living_street", "road",
    }
)  # fmt: skip
#: ways made for walking
PATHS = frozenset({"footway", "pedestrian", "path", "steps", "corridor", "living_street"})
_CYCLE_TAGS = ("cycleway", "cycleway:both", "cycleway:left", "cycleway:right")
#: values that put a way for bicycles on or beside a road
_CYCLE_LANES = frozenset({"lane", "track", "opposite_lane", "opposite_track"})
#: pipes and lines whose density is told
NETWORKS = ("water", "heat", "power")

_LAYERS = ("streets", "stops", "stations", "pois", "green", "networks", "protected_areas")
_TRANSIT_TAGS = (
    "public_transport", "railway", "amenity", "station", "train", "subway", "light_rail", "ferry",
    "bus", "disused", "abandoned",
)  # fmt: skip
_TAGS: Mapping[str, tuple[str, ...]] = {
    "streets": ("bicycle", "foot", "wheelchair", *_CYCLE_TAGS),
    "stops": _TRANSIT_TAGS,
    "stations": _TRANSIT_TAGS,
}


@dataclass(frozen=True)
class Amenities:
    """Layers of an extract in degrees (EPSG:4326), sorted by what indicators ask for.

    Attributes
    ----------
    stops
        Points of public transport with ``high``: rail, metro and ferry.
    open_space
        Areas of :data:`OPEN_SPACE` that nobody is shut out of.
    green
        All green areas, the open ones included.
    services
        Points of each of :data:`SERVICES`.
    ways
        Lines with the truth values ``road``, ``cycle`` (made for bicycles, or with a lane or track
        for them), ``path`` (made for walking), ``barrier_free`` (a path tagged as passable by
        wheelchair) and ``rated`` (a path that tells whether it is).
    networks
        Lines of each of :data:`NETWORKS`.
    protected
        Protected areas.
    source
        Name of the file.
    notice
        Attribution.
    """

    stops: gpd.GeoDataFrame
    open_space: gpd.GeoDataFrame
    green: gpd.GeoDataFrame
    services: Mapping[str, gpd.GeoDataFrame]
    ways: gpd.GeoDataFrame
    networks: Mapping[str, gpd.GeoDataFrame]
    protected: gpd.GeoDataFrame
    source: str = ""
    notice: str = "© OpenStreetMap contributors, ODbL 1.0"


def read_amenities(path: str | Path) -> Amenities:
    """Read an extract in one pass.

    Parameters
    ----------
    path
        OpenStreetMap extract (``.osm.pbf``, ``.osm``, ``.osm.gz``).

    Raises
    ------
    InputError
        When it cannot be read, or holds nothing of what indicators ask for.
    """
    from qala.city.osm import read_osm

    found = read_osm(path, layers=_LAYERS, tags=_TAGS)
    if not any(len(layer) for layer in found.layers.values()):
        raise InputError(
            f"{path} holds no street, stop, service, green or network",
            "an extract of a region as people live in it",
            "check how it was made; extracts of boundaries hold none",
        )
    return amenities_of(found, Path(path).name)


def amenities_of(city: OsmCity, source: str = "") -> Amenities:
    """Sort the layers of an extract.

    Parameters
    ----------
    city
        From :func:`qala.city.osm.read_osm`; tags it was not asked to keep count as absent.
    source
        Name of the file.
    """
    layers = city.layers
    green, pois = layers["green"], layers["pois"]
    open_to_all = green["kind"].isin(OPEN_SPACE) & ~_tag(green, "access").isin(_SHUT)
    services = {name: _points(pois[pois["kind"].isin(kinds)]) for name, kinds in SERVICES.items()}
    lines = layers["networks"]
    return Amenities(
        stops=_stops(layers),
        open_space=_areas(green[open_to_all]),
        green=_areas(green),
        services=services,
        ways=_ways(layers["streets"]),
        networks={k: lines[lines["network_kind"] == k][["id", "geometry"]] for k in NETWORKS},
        protected=_areas(layers["protected_areas"]),
        source=source,
    )


def _tag(layer: pd.DataFrame, name: str) -> pd.Series[Any]:
    """Return a tag as text, empty where it is absent."""
    import pandas as pd

    if name not in layer.columns:
        return pd.Series("", index=layer.index, dtype=object)
    return layer[name].fillna("").astype(str)


def _points(layer: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Return places as points with id, kind and name; an area stands by a point inside it."""
    from qala.city.streets import to_points

    kept = layer[[c for c in ("id", "kind", "name") if c in layer.columns] + ["geometry"]]
    return to_points(kept.reset_index(drop=True))


def _areas(layer: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Return the polygons of a layer, made valid."""
    from qala.city.streets import with_area

    dimension = layer.geometry.type.isin(["Polygon", "MultiPolygon"])
    kept = layer.loc[dimension, ["id", "kind", "geometry"]].reset_index(drop=True)
    return with_area(kept).drop(columns="area")


def _stops(layers: Mapping[str, gpd.GeoDataFrame]) -> gpd.GeoDataFrame:
    """Return stops as points, told apart by what stops there."""
    import geopandas as gpd
    import pandas as pd

    pois = layers["pois"]
    terminals = pois[pois["kind"].isin(["bus_station", "ferry_terminal"])]
    parts = [p for p in (layers["stops"], layers.get("stations"), terminals) if p is not None]
    kept = [p for p in parts if len(p)]
    if not kept:
        return gpd.GeoDataFrame(
            {"id": [], "kind": [], "name": [], "high": []}, geometry=[], crs="EPSG:4326"
        )
    table = gpd.GeoDataFrame(pd.concat(kept, ignore_index=True), crs="EPSG:4326")
    gone = _tag(table, "disused").eq("yes") | _tag(table, "abandoned").eq("yes")
    table = table[~gone].reset_index(drop=True)
    railway, station = _tag(table, "railway"), _tag(table, "station")
    told = pd.Series(False, index=table.index)
    for name in ("train", "subway", "ferry"):
        told |= _tag(table, name).eq("yes")
    rail = railway.isin(["station", "halt"]) | table["kind"].isin(["halt"])
    # the wiki uses railway=station for trams and light rail too; UN-Habitat counts trams as low
    rail &= ~station.isin(["tram", "light_rail", "funicular", "miniature"])
    ferry = table["kind"].eq("ferry_terminal") | _tag(table, "amenity").eq("ferry_terminal")
    high = (rail | ferry | told | station.eq("subway")).to_numpy(dtype=bool)
    return _points(table).assign(high=high)


def _ways(streets: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Return streets with what they serve."""
    kind = streets["kind"]
    bicycle, wheelchair = _tag(streets, "bicycle"), _tag(streets, "wheelchair")
    beside = kind.isin(["path", "footway", "pedestrian", "track"]) & bicycle.eq("designated")
    lane = kind.eq("cycleway")
    for name in _CYCLE_TAGS:
        lane |= _tag(streets, name).isin(_CYCLE_LANES)
    path = kind.isin(PATHS)
    return streets[["id", "kind", "geometry"]].assign(
        road=kind.isin(ROADS),
        cycle=beside | lane,
        path=path,
        barrier_free=path & wheelchair.isin(["yes", "designated"]) & kind.ne("steps"),
        rated=path & wheelchair.ne(""),
    )
