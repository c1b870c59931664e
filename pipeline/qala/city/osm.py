"""One pass over an OpenStreetMap extract: the raw objects of each city layer.

Nothing is judged here but what cannot become a geometry; heights, parts and
repairs belong to :mod:`qala.city.buildings`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qala.errors import InputError

if TYPE_CHECKING:
    import geopandas as gpd
    import pyproj
    import shapely

log = logging.getLogger("qala")

NOTICE = "© OpenStreetMap contributors, ODbL 1.0"

#: tags of buildings that are kept as columns
BUILDING_TAGS = (
    "building", "building:part", "height", "building:height", "est_height", "min_height",
    "building:levels", "building:min_level", "roof:shape", "roof:height", "roof:levels",
    "roof:angle", "roof:direction", "roof:orientation", "name",
)  # fmt: skip
#: values of ``building`` that say that nothing stands there (any more, or yet)
NOT_BUILT = {"none", "proposed", "planned", "demolished", "razed", "removed", "destroyed"}
#: tags that tell of a height above the ground
_ABOVE = ("height", "building:height", "est_height", "building:levels", "roof:levels")

_GREEN = {
    ("leisure", v) for v in ("park", "garden", "golf_course", "common", "dog_park",
                             "nature_reserve", "playground")
} | {
    ("landuse", v) for v in ("forest", "grass", "meadow", "recreation_ground", "village_green",
                             "cemetery", "orchard", "vineyard", "allotments", "flowerbed")
} | {
    ("natural", v) for v in ("wood", "grassland", "scrub", "heath", "wetland", "tree_row")
}  # fmt: skip
_WATER = {("natural", "water"), ("waterway", "riverbank"), ("landuse", "reservoir"),
          ("landuse", "basin"), ("waterway", "dock"), ("leisure", "swimming_pool")}  # fmt: skip
_POI_KEYS = ("amenity", "shop", "office", "tourism", "healthcare", "craft", "leisure", "emergency")
_NO_POI = {"parking", "parking_space", "bench", "waste_basket", "bicycle_parking", "recycling",
           "vending_machine", "swimming_pool", "garden", "park", "pitch", "playground",
           "fire_hydrant", "parking_entrance", "waste_disposal", "common",
           "golf_course"}  # fmt: skip
_PIPES = {"gas": "gas", "natural_gas": "gas", "hot_water": "heat", "heat": "heat",
          "steam": "heat", "water": "water", "drinking_water": "water", "rainwater": "sewage",
          "sewage": "sewage", "wastewater": "sewage", "oil": "oil", "fuel": "oil"}  # fmt: skip
_KEYS = (
    "building", "building:part", "highway", "landuse", "natural", "leisure", "waterway", "power",
    "man_made", "telecom", "public_transport", "railway", "amenity", "shop", "office", "tourism",
    "healthcare", "craft", "emergency", "addr:housenumber", "boundary", "type",
)  # fmt: skip
#: keys that most objects of an extract carry, and the layers for whose sake they are read
_ONLY_FOR = {
    "building": ("buildings",),
    "building:part": ("buildings",),
    "addr:housenumber": ("addresses",),
    "type": ("buildings",),
}


class _Rows:
    """Rows of one layer while the file is read; none are kept of a layer nobody wants.

    Parameters
    ----------
    columns
        Tags that are kept; None for a layer nobody wants.
    """

    def __init__(self, columns: tuple[str, ...] | None) -> None:
        self.wanted = columns is not None
        self.ids: list[str] = []
        self.kinds: list[str] = []
        self.wkb: list[bytes] = []
        self.tags: dict[str, list[str | None]] = {c: [] for c in columns or ()}
        # most values come again and again
        self.words: dict[str, str] = {}

    def add(self, osm_id: str, kind: str, wkb: str, tags: dict[str, str]) -> None:
        if not self.wanted:
            return
        self.ids.append(osm_id)
        self.kinds.append(self.words.setdefault(kind, kind))
        self.wkb.append(bytes.fromhex(wkb))
        for name, values in self.tags.items():
            value = tags.get(name)
            values.append(value if value is None else self.words.setdefault(value, value))

    def drop(self, ids: Collection[str]) -> None:
        """Leave out objects."""
        keep = [i for i, osm_id in enumerate(self.ids) if osm_id not in ids]
        for values in (self.ids, self.kinds, self.wkb, *self.tags.values()):
            values[:] = [values[i] for i in keep]  # type: ignore[index]


@dataclass(frozen=True)
class OsmCity:
    """What one extract holds, in degrees (EPSG:4326).

    Attributes
    ----------
    layers
        Layer name → table with ``id, kind``, tag columns and geometry. Outlines of
        buildings are polygons as drawn, valid or not.
    members
        Part id → building id, from relations of type ``building``.
    issues
        (layer, id, action, reason) of objects that could not become a geometry.
    """

    layers: dict[str, gpd.GeoDataFrame]
    members: dict[str, str]
    issues: list[tuple[str, str, str, str]]


def read_osm(
    path: str | Path,
    *,
    layers: Collection[str] | None = None,
    tags: Mapping[str, Collection[str]] | None = None,
) -> OsmCity:
    """Read city layers of an extract in one pass.

    Parameters
    ----------
    path
        OpenStreetMap extract (``.osm.pbf``, ``.osm``, ``.osm.gz``).
    layers
        Names of the layers wanted; all of a twin where None. ``stations`` (stations and halts
        drawn as areas) is read only when it is named. Without ``buildings`` and ``addresses``
        the extract of a country is read in a fraction of the memory.
    tags
        Layer → further tags that are kept as columns.

    Raises
    ------
    InputError
        When the file is absent, empty, or broken.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{file} does not exist", "an OpenStreetMap extract (.osm.pbf)")
    if file.stat().st_size == 0:
        raise InputError(f"{file} is empty (0 bytes)", "an OpenStreetMap extract", "fetch it again")
    try:
        return _read(file, layers, tags or {})
    except RuntimeError as error:  # libosmium's only kind of error
        raise InputError(
            f"{file} cannot be read to its end ({error})",
            "a whole OpenStreetMap extract (.osm.pbf)",
            "fetch it again; it may be truncated or of another kind",
        ) from error


def _read(
    file: Path, layers: Collection[str] | None, tags_of: Mapping[str, Collection[str]]
) -> OsmCity:
    import osmium

    factory = osmium.geom.WKBFactory()
    columns = {
        name: (*of_layer, *(t for t in tags_of.get(name, ()) if t not in of_layer))
        for name, of_layer in _COLUMNS.items()
        if layers is None or name in layers
    }
    if layers is not None and "stations" in layers:
        columns["stations"] = tuple(tags_of.get("stations", ()))
    # every kind of object is recognised; what nobody asked for is not kept
    rows = {name: _Rows(columns.get(name)) for name in (*_COLUMNS, "stations")}
    issues: list[tuple[str, str, str, str]] = []
    members: dict[str, str] = {}
    wanted: dict[str, str] = {}
    outer: dict[str, str] = {}
    keys = osmium.filter.KeyFilter(
        *(k for k in _KEYS if k not in _ONLY_FOR or set(_ONLY_FOR[k]) & set(columns))
    )
    for thing in osmium.FileProcessor(str(file)).with_areas(keys).with_filter(keys):
        tags = dict(thing.tags)
        if thing.is_node():
            _node(thing, tags, factory, rows, issues)
        elif thing.is_way():
            _way(thing, tags, factory, rows, issues)
        elif thing.is_relation():
            _relation(thing, tags, members, wanted, outer)
        else:
            _area(thing, tags, factory, rows, issues)
    told = {(layer, osm_id) for layer, osm_id, _, _ in issues}
    drawn = {layer: {i for i in table.ids if i in wanted} for layer, table in rows.items()}
    issues.extend(
        (layer, osm_id, "refused", "the relation's members do not close to an outline, or lie "
         "outside the extract")
        for osm_id, layer in sorted(wanted.items())
        if layer in columns and osm_id not in drawn[layer] and (layer, osm_id) not in told
    )  # fmt: skip
    _drop_twins(rows["buildings"], outer, issues)
    # the rows of a layer are let go with its turn
    frames = {name: _frame(rows.pop(name)) for name in columns}
    return OsmCity(frames, members, issues)


def _drop_twins(
    buildings: _Rows, outer: dict[str, str], issues: list[tuple[str, str, str, str]]
) -> None:
    """Leave out ways that a relation draws as its outer ring: the same building twice."""
    built = set(buildings.ids)
    twins = {way: relation for way, relation in outer.items() if way in built and relation in built}
    if not twins:
        return
    buildings.drop(twins)
    issues.extend(
        ("buildings", way, "refused", f"drawn again as the outer ring of {relation}")
        for way, relation in sorted(twins.items())
    )


def _stands(tags: dict[str, str]) -> str:
    """Tell whether tags mean a building or part above the ground: why not, or an empty text."""
    kind = tags.get("building", tags.get("building:part", ""))
    if kind in NOT_BUILT:
        return f"tagged building={kind}: nothing stands there"
    if tags.get("location") == "underground":
        return "underground (location=underground)"
    layer = tags.get("layer", "0").strip()
    if layer.startswith("-") and layer.strip("-0.") and "location" not in tags and not any(
        k in tags for k in _ABOVE
    ):  # fmt: skip
        return f"underground (layer={layer[:10]}, and nothing tells of a height)"
    return ""


def _is_building(tags: dict[str, str]) -> bool:
    return tags.get("building", "no") != "no" or tags.get("building:part", "no") != "no"


#: tag columns of each layer
_COLUMNS: dict[str, tuple[str, ...]] = {
    "buildings": BUILDING_TAGS,
    "streets": ("name", "surface", "lanes", "width", "oneway", "maxspeed", "bridge", "tunnel",
                "sidewalk", "cycleway", "wheelchair"),
    "railways": ("name", "electrified", "gauge", "bridge", "tunnel"),
    "landuse": ("name",),
    "green": ("name", "access"),
    "water": ("name",),
    "waterways": ("name", "tunnel"),
    "networks": ("name", "operator", "voltage", "substance", "location", "network_kind"),
    "stops": ("name", "ref", "operator", "wheelchair"),
    "pois": ("name", "operator", "opening_hours", "wheelchair", "poi_key"),
    "addresses": ("addr:street", "addr:housenumber", "addr:postcode", "addr:city"),
    "protected_areas": ("name", "protect_class", "protection_title", "operator"),
}  # fmt: skip


def _node(thing: Any, tags: dict[str, str], factory: Any, rows: Any, issues: Any) -> None:
    osm_id = f"node/{thing.id}"
    if "building" in tags and tags["building"] != "no":
        issues.append(
            ("buildings", osm_id, "refused", "a building drawn as a point has no outline")
        )
    found: list[tuple[str, str]] = []
    transport, railway = tags.get("public_transport"), tags.get("railway")
    if tags.get("highway") == "bus_stop" or transport in ("platform", "station"):
        found.append(("stops", transport or "bus_stop"))
    elif railway in ("station", "halt", "tram_stop"):
        found.append(("stops", railway))
    elif tags.get("amenity") in ("bus_station", "ferry_terminal"):
        found.append(("stops", tags["amenity"]))
    found.extend(_poi(tags))
    if "addr:housenumber" in tags:
        found.append(("addresses", "address"))
    if not found:
        return
    wkb = factory.create_point(thing)
    for layer, kind in found:
        rows[layer].add(osm_id, kind, wkb, tags)


def _poi(tags: dict[str, str]) -> list[tuple[str, str]]:
    for key in _POI_KEYS:
        value = tags.get(key)
        if value and value not in _NO_POI:
            tags["poi_key"] = key
            return [("pois", value)]
    return []


def _way(thing: Any, tags: dict[str, str], factory: Any, rows: Any, issues: Any) -> None:
    osm_id = f"way/{thing.id}"
    is_building = _is_building(tags)
    found: list[tuple[str, str]] = []
    if is_building:
        under = _stands(tags)
        if under:
            issues.append(("buildings", osm_id, "refused", under))
            is_building = False
        elif not thing.is_closed():
            issues.append(("buildings", osm_id, "refused", "the outline is not closed"))
            is_building = False
        elif len(thing.nodes) < 4:
            issues.append(("buildings", osm_id, "refused", "the outline has fewer than 3 corners"))
            is_building = False
    highway = tags.get("highway")
    if highway and tags.get("area") != "yes" and highway not in (
        "proposed", "construction", "platform", "elevator", "rest_area", "services", "bus_stop",
    ):  # fmt: skip
        found.append(("streets", highway))
    if tags.get("railway") in ("rail", "light_rail", "tram", "subway", "narrow_gauge", "funicular"):
        found.append(("railways", tags["railway"]))
    if tags.get("waterway") in ("river", "stream", "canal", "drain", "ditch"):
        found.append(("waterways", tags["waterway"]))
    network = _network(tags)
    if network:
        tags["network_kind"] = network[0]
        found.append(("networks", network[1]))
    if is_building and not rows["buildings"].wanted:
        is_building = False
    if not is_building and not any(rows[layer].wanted for layer, _ in found):
        return
    import osmium

    try:
        wkb = factory.create_linestring(thing)
    except osmium.InvalidLocationError:
        layer = "buildings" if is_building else found[0][0]
        issues.append((layer, osm_id, "refused", "nodes of it lie outside the extract"))
        return
    except RuntimeError:
        layer = "buildings" if is_building else found[0][0]
        issues.append((layer, osm_id, "refused", "fewer than two nodes in different places"))
        return
    if is_building:
        rows["buildings"].add(osm_id, tags.get("building", "yes"), wkb, tags)
    for layer, kind in found:
        rows[layer].add(osm_id, kind, wkb, tags)


def _network(tags: dict[str, str]) -> tuple[str, str] | None:
    power = tags.get("power")
    if power in ("line", "minor_line", "cable"):
        return "power", power
    if tags.get("man_made") == "pipeline":
        return _PIPES.get(tags.get("substance", ""), "other"), "pipeline"
    if tags.get("telecom") == "line" or tags.get("communication") == "line":
        return "telecom", "line"
    return None


def _relation(
    thing: Any, tags: dict[str, str], members: Any, wanted: dict[str, str], outer: dict[str, str]
) -> None:
    kind = tags.get("type")
    osm_id = f"relation/{thing.id}"
    if kind in ("multipolygon", "boundary"):
        if _is_building(tags):
            wanted[osm_id] = "buildings"
            for m in thing.members:
                if m.type == "w" and m.role in ("outer", ""):
                    outer[f"way/{m.ref}"] = osm_id
        else:
            layers = _ground(tags)
            if layers:
                wanted[osm_id] = layers[0][0]
    elif kind == "building":
        name = {"w": "way", "r": "relation"}
        named = [(m.role, f"{name.get(m.type, 'node')}/{m.ref}") for m in thing.members]
        outline = [ref for role, ref in named if role == "outline"]
        for role, ref in named:
            if role == "part" and outline:
                members[ref] = outline[0]


def _ground(tags: dict[str, str]) -> list[tuple[str, str]]:
    """Return (layer, kind) of an area of land, green, water or protection."""
    found: list[tuple[str, str]] = []
    pairs = [(k, tags[k]) for k in ("leisure", "landuse", "natural", "waterway") if k in tags]
    water = [v for k, v in pairs if (k, v) in _WATER]
    green = [v for k, v in pairs if (k, v) in _GREEN]
    if water:
        found.append(("water", water[0]))
    elif green:
        found.append(("green", green[0]))
    if "landuse" in tags:
        found.append(("landuse", tags["landuse"]))
    if tags.get("boundary") in ("protected_area", "national_park") or (
        tags.get("leisure") == "nature_reserve"
    ):
        found.append(("protected_areas", tags.get("boundary", "nature_reserve")))
    return found


def _area(thing: Any, tags: dict[str, str], factory: Any, rows: Any, issues: Any) -> None:
    from_way = thing.from_way()
    osm_id = f"{'way' if from_way else 'relation'}/{thing.orig_id()}"
    found: list[tuple[str, str]] = []
    building = _is_building(tags)
    if building and not from_way:
        under = _stands(tags)
        if under:
            issues.append(("buildings", osm_id, "refused", under))
        else:
            found.append(("buildings", tags.get("building", "yes")))
    found += _ground(tags)
    if not building or from_way:
        found.extend(_poi(tags))
    if "addr:housenumber" in tags:
        found.append(("addresses", "address"))
    if tags.get("public_transport") == "station" or tags.get("railway") in ("station", "halt"):
        found.append(("stations", tags.get("railway", "station")))
    if not any(rows[layer].wanted for layer, _ in found):
        return
    try:
        wkb = factory.create_multipolygon(thing)
    except RuntimeError:
        if not (building and not from_way):  # outlines that fail are listed once, by relation
            issues.append((found[0][0], osm_id, "refused", "the area's rings do not close"))
        return
    for layer, kind in found:
        rows[layer].add(osm_id, kind, wkb, tags)


def _frame(rows: _Rows) -> gpd.GeoDataFrame:
    import geopandas as gpd
    import pandas as pd
    import shapely

    lists: dict[str, list[Any]] = {"id": rows.ids, "kind": rows.kinds, **rows.tags}
    columns = {}
    for name, values in lists.items():
        columns[name] = np.array(values, dtype=object)
        values.clear()
    # columns apart, as they came: one block of all would be a copy
    table = pd.DataFrame(columns, dtype="object", copy=False)
    geometry = shapely.from_wkb(np.array(rows.wkb, dtype=object))
    return gpd.GeoDataFrame(table, geometry=geometry, crs="EPSG:4326")


def in_area(layer: gpd.GeoDataFrame, area: shapely.Geometry, *, clip: bool) -> gpd.GeoDataFrame:
    """Keep what lies in an area given in degrees.

    Parameters
    ----------
    layer
        EPSG:4326.
    area
        Polygon in EPSG:4326.
    clip
        Cut at the border (streets, land); otherwise an object belongs to the
        area that holds its centre, so that neighbouring areas share none.
    """
    import shapely

    shapely.prepare(area)
    geometry = layer.geometry.to_numpy()
    if not clip:
        box = shapely.bounds(geometry)
        x, y = (box[:, 0] + box[:, 2]) / 2, (box[:, 1] + box[:, 3]) / 2
        x[box[:, 2] - box[:, 0] > 180.0] = 180.0  # drawn across 180° east
        return layer[shapely.intersects_xy(area, x, y)].reset_index(drop=True)
    hit = shapely.intersects(area, geometry)
    kept = layer[hit].copy()
    inside = shapely.contains_properly(area, kept.geometry.to_numpy())
    dimension = shapely.get_dimensions(kept.geometry.to_numpy())
    cut = kept.geometry.to_numpy().copy()
    cut[~inside] = shapely.intersection(shapely.make_valid(cut[~inside]), area)
    kept = kept.set_geometry(cut, crs=layer.crs)
    same = (shapely.get_dimensions(cut) == dimension) & ~shapely.is_empty(cut)
    return kept[same].reset_index(drop=True)


def middle_of(box: tuple[float, float, float, float]) -> tuple[float, float]:
    """Return the middle of a box in degrees; one wider than half the Earth spans 180° east.

    Examples
    --------
    >>> middle_of((-179.8, 66.0, 179.6, 67.0))
    (179.9, 66.5)
    """
    west, south, east, north = (float(v) for v in box)
    if east - west > 180.0:
        west, east = east, west + 360.0
    lon = round((west + east) / 2, 9)
    return lon - 360.0 if lon > 180.0 else lon, (south + north) / 2


def local_utm(area: tuple[float, float, float, float]) -> pyproj.CRS:
    """Return the WGS 84 / UTM zone of the middle of a box in degrees."""
    import pyproj
    from pyproj.aoi import AreaOfInterest
    from pyproj.database import query_utm_crs_info

    lon, lat = middle_of(area)
    if not (-180 <= lon <= 180 and -80 <= lat <= 84):
        raise InputError(f"the area's middle is {lon:g}, {lat:g}", "degrees between 80 S and 84 N")
    found = query_utm_crs_info("WGS 84", AreaOfInterest(lon, lat, lon, lat), contains=True)
    return pyproj.CRS.from_epsg(int(found[0].code))


def to_crs(
    layer: gpd.GeoDataFrame, move: Callable[[Any, Any], tuple[Any, Any]], crs: Any
) -> gpd.GeoDataFrame:
    """Reproject a layer by one call on all its coordinates."""
    import shapely

    def both(xy: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.column_stack(move(xy[:, 0], xy[:, 1]))

    return layer.set_geometry(shapely.transform(layer.geometry.to_numpy(), both), crs=crs)
