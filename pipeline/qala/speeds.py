"""Speeds, access and direction of OSM ways: the tables, and how tags are read.

Free-flow speeds of a car are those of OSRM's car profile (Project-OSRM, ``profiles/car.lua``;
Luxen & Vetter 2011, doi:10.1145/2093973.2094062): a speed by road class, a cap by surface,
smoothness and track type, and 0.8 of the limit where a limit is tagged, because the mean speed
stays below it. OSRM closes tracks to cars; they are open here at the speed GraphHopper's car
profile gives them, because in dry country many villages hang on nothing else.

Tag meanings follow the OpenStreetMap wiki: Key:access, Key:oneway, Key:maxspeed, Key:barrier,
"Default speed limits".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from qala.errors import InputError

Mode = Literal["car", "foot"]
MODES: tuple[Mode, ...] = ("car", "foot")

#: road classes in the order of their codes in a network (uint8)
CLASSES: tuple[str, ...] = (
    "motorway",
    "motorway_link",
    "trunk",
    "trunk_link",
    "primary",
    "primary_link",
    "secondary",
    "secondary_link",
    "tertiary",
    "tertiary_link",
    "unclassified",
    "residential",
    "living_street",
    "service",
    "road",
    "track",
    "pedestrian",
    "footway",
    "path",
    "cycleway",
    "bridleway",
    "steps",
    "corridor",
    "ferry",
    "other",
)
CLASS_CODE: Mapping[str, int] = MappingProxyType({name: i for i, name in enumerate(CLASSES)})

#: km/h by class; OSRM car profile; ``track`` and ``road`` GraphHopper car profile
CAR_KMH: Mapping[str, float] = MappingProxyType(
    {
        "motorway": 90.0,
        "motorway_link": 45.0,
        "trunk": 85.0,
        "trunk_link": 40.0,
        "primary": 65.0,
        "primary_link": 30.0,
        "secondary": 55.0,
        "secondary_link": 25.0,
        "tertiary": 40.0,
        "tertiary_link": 20.0,
        "unclassified": 25.0,
        "residential": 25.0,
        "living_street": 10.0,
        "service": 15.0,
        "road": 20.0,
        "track": 15.0,
        "ferry": 5.0,
    }
)
#: km/h on foot by class; OSRM foot profile (5 km/h, stairs 2)
FOOT_KMH: Mapping[str, float] = MappingProxyType(
    {
        **{
            name: 5.0
            for name in CLASSES
            if name not in ("motorway", "motorway_link", "other", "steps")
        },
        "steps": 2.0,
    }
)
CLASS_KMH: Mapping[str, Mapping[str, float]] = MappingProxyType({"car": CAR_KMH, "foot": FOOT_KMH})

#: share of a tagged limit that is driven on average; OSRM car profile (speed_reduction)
LIMIT_SHARE = 0.8

#: caps of a car's km/h by surface, smoothness and track type; OSRM car profile
SURFACE_KMH: Mapping[str, float] = MappingProxyType(
    {
        "cement": 80.0,
        "compacted": 80.0,
        "fine_gravel": 80.0,
        "paving_stones": 60.0,
        "metal": 60.0,
        "bricks": 60.0,
        "grass": 40.0,
        "wood": 40.0,
        "sett": 40.0,
        "grass_paver": 40.0,
        "gravel": 40.0,
        "unpaved": 40.0,
        "ground": 40.0,
        "dirt": 40.0,
        "pebblestone": 40.0,
        "tartan": 40.0,
        "cobblestone": 30.0,
        "clay": 30.0,
        "earth": 20.0,
        "stone": 20.0,
        "rocky": 20.0,
        "sand": 20.0,
        "mud": 10.0,
    }
)
SMOOTHNESS_KMH: Mapping[str, float] = MappingProxyType(
    {
        "intermediate": 80.0,
        "bad": 40.0,
        "very_bad": 20.0,
        "horrible": 10.0,
        "very_horrible": 5.0,
        "impassable": 0.0,
    }
)
TRACKTYPE_KMH: Mapping[str, float] = MappingProxyType(
    {"grade1": 60.0, "grade2": 40.0, "grade3": 30.0, "grade4": 25.0, "grade5": 20.0}
)
#: factors of the walking speed by surface; OSRM foot profile
FOOT_SURFACE: Mapping[str, float] = MappingProxyType(
    {"fine_gravel": 0.75, "gravel": 0.75, "pebblestone": 0.75, "mud": 0.5, "sand": 0.5}
)

#: straight-line speed between a place and the network, km/h, both modes: walking on open
#: ground (Weiss et al. 2018, doi:10.1038/nature25181: at most 5 km/h off roads)
ACCESS_KMH: Mapping[str, float] = MappingProxyType({"car": 5.0, "foot": 5.0})

#: legal limits a mapper names by context, km/h ("Default speed limits", OpenStreetMap wiki);
#: Kazakhstan and Russia: traffic rules for cars, 60 in settlements, 90 outside
CONTEXT_KMH: Mapping[str, float] = MappingProxyType(
    {
        "urban": 50.0,
        "rural": 90.0,
        "motorway": 120.0,
        "trunk": 100.0,
        "living_street": 20.0,
        "residential": 50.0,
        "pedestrian_zone": 10.0,
        "bicycle_road": 30.0,
        "school": 30.0,
        "KZ:urban": 60.0,
        "KZ:rural": 90.0,
        "KZ:motorway": 110.0,
        "RU:urban": 60.0,
        "RU:rural": 90.0,
        "RU:motorway": 110.0,
        "KZ:living_street": 20.0,
        "RU:living_street": 20.0,
        "KG:urban": 60.0,
        "KG:rural": 90.0,
        "UZ:urban": 70.0,
        "UZ:rural": 100.0,
        "BY:urban": 60.0,
        "BY:motorway": 110.0,
        "UA:urban": 50.0,
        "UA:motorway": 130.0,
        "AT:rural": 100.0,
        "AT:motorway": 130.0,
        "BE:urban": 50.0,
        "BE-VLG:rural": 70.0,
        "BE:rural": 90.0,
        "CH:urban": 50.0,
        "CH:rural": 80.0,
        "CH:trunk": 100.0,
        "DE:rural": 100.0,
        "DE:living_street": 7.0,
        "FR:rural": 80.0,
        "FR:motorway": 130.0,
        "FI:rural": 80.0,
        "DK:rural": 80.0,
        "DK:motorway": 130.0,
        "NL:rural": 80.0,
        "NL:motorway": 130.0,
        "NO:rural": 80.0,
        "SE:rural": 70.0,
        "IT:trunk": 110.0,
        "IT:motorway": 130.0,
        "PL:motorway": 140.0,
        "CZ:motorway": 130.0,
        "CZ:trunk": 110.0,
        "SK:motorway": 130.0,
        "HU:trunk": 110.0,
        "HU:motorway": 130.0,
        "RO:motorway": 130.0,
        "BG:motorway": 140.0,
        "TR:rural": 90.0,
        "GB:nsl_restricted": 48.28,
        "GB:nsl_single": 96.56,
        "GB:nsl_dual": 112.65,
        "GB:motorway": 112.65,
        "US:urban": 40.23,
        "US:rural": 88.51,
    }
)
#: a limit above this is a typing error, km/h
MAX_LIMIT_KMH = 160.0
WALK_KMH = 5.0
_KMH_PER_MPH = 1.609344
_KMH_PER_KNOT = 1.852

_ACCESS_KEYS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"car": ("motorcar", "motor_vehicle", "vehicle", "access"), "foot": ("foot", "access")}
)
_CLOSED = frozenset(
    {"no", "private", "agricultural", "forestry", "emergency", "psv", "bus", "military"}
    | {"use_sidepath"}
)
#: barriers on a node that let a car pass unless an access tag closes them (OSRM car profile)
_OPEN_TO_CARS = frozenset(
    {
        "no",
        "entrance",
        "gate",
        "lift_gate",
        "swing_gate",
        "sliding_gate",
        "bump_gate",
        "hampshire_gate",
    }
    | {"toll_booth", "border_control", "checkpoint", "sally_port", "cattle_grid"}
    | {"height_restrictor", "kerb", "arch", "traffic_island"}
)
#: barriers on a node that stop people on foot
_CLOSED_TO_FEET = frozenset(
    {"wall", "fence", "retaining_wall", "city_wall", "hedge", "ditch", "guard_rail"}
)

_YES = frozenset(("yes", "true", "1"))
_NO = frozenset(("no", "false", "0"))
_BACK = frozenset(("-1", "reverse"))

#: tags that tell anything about access, direction or speed; the rest of a way is not looked at
KEYS: tuple[str, ...] = (
    "highway",
    "route",
    "junction",
    "area",
    "motorroad",
    "oneway",
    "oneway:motorcar",
    "oneway:motor_vehicle",
    "oneway:vehicle",
    "oneway:foot",
    "access",
    "vehicle",
    "motor_vehicle",
    "motorcar",
    "foot",
    "access:forward",
    "access:backward",
    "vehicle:forward",
    "vehicle:backward",
    "motor_vehicle:forward",
    "motor_vehicle:backward",
    "motorcar:forward",
    "motorcar:backward",
    "foot:forward",
    "foot:backward",
    "impassable",
    "maxspeed",
    "maxspeed:forward",
    "maxspeed:backward",
    "maxspeed:type",
    "source:maxspeed",
    "zone:maxspeed",
    "zone:traffic",
    "surface",
    "smoothness",
    "tracktype",
    "duration",
    "barrier",
    "bollard",
)


def require_mode(mode: str) -> Mode:
    """Return the mode of travel or refuse it.

    Raises
    ------
    InputError
        When it is not one of :data:`MODES`.
    """
    for known in MODES:
        if mode == known:
            return known
    raise InputError(f"mode is {mode!r}", " or ".join(MODES), "choose it with --mode")


@dataclass(frozen=True)
class Limit:
    """What a ``maxspeed`` value says.

    Attributes
    ----------
    kmh
        The limit in km/h, None where there is none to apply.
    parsed
        False when the value means nothing known.
    """

    kmh: float | None
    parsed: bool = True


_NUMBER = re.compile(r"^(\d{1,3}(?:[.,]\d+)?)\s*(km/h|kmh|kph|mph|mp/h|knots?)?\.?$", re.IGNORECASE)
_ZONE = re.compile(r"^(?:[A-Z]{2}(?:-[A-Z]{1,3})?:)?zone:?(\d{2,3})$", re.IGNORECASE)
_CONTEXT = re.compile(r"^([A-Z]{2}(?:-[A-Z]{1,3})?)\s*:\s*([a-z_]+)$", re.IGNORECASE)
#: values that leave the speed to the class of the road
_NO_NUMBER = frozenset(("none", "signals", "variable", "unposted", "implicit", "sign", "markings"))


def parse_maxspeed(value: str) -> Limit:
    """Read one ``maxspeed`` value (Key:maxspeed, OpenStreetMap wiki).

    Parameters
    ----------
    value
        Text of the tag. Of several values the lowest counts.

    Examples
    --------
    >>> parse_maxspeed("50").kmh, parse_maxspeed("RU:urban").kmh, parse_maxspeed("50;30").kmh
    (50.0, 60.0, 30.0)
    >>> round(parse_maxspeed("60 mph").kmh, 1), parse_maxspeed("signals")
    (96.6, Limit(kmh=None, parsed=True))
    >>> parse_maxspeed("fast")
    Limit(kmh=None, parsed=False)
    """
    parts = [part.strip() for part in re.split(r"[;|]", value) if part.strip()]
    if not parts:
        return Limit(None, parsed=False)
    limits = [_parse_one(part) for part in parts]
    known = [limit.kmh for limit in limits if limit.kmh is not None]
    if known:
        return Limit(min(known))
    return Limit(None, parsed=all(limit.parsed for limit in limits))


def _parse_one(text: str) -> Limit:
    found = _NUMBER.match(text)
    if found:
        number = float(found[1].replace(",", "."))
        unit = (found[2] or "").lower()
        if unit in ("mph", "mp/h"):
            number *= _KMH_PER_MPH
        elif unit.startswith("knot"):
            number *= _KMH_PER_KNOT
        return Limit(number) if 0 < number <= MAX_LIMIT_KMH else Limit(None, parsed=False)
    if text.lower() == "walk" or text.lower().endswith(":walk"):
        return Limit(WALK_KMH)
    if text.lower() in _NO_NUMBER or text.endswith(":none"):
        return Limit(None)
    zone = _ZONE.match(text)
    if zone:
        return Limit(float(zone[1]))
    context = _CONTEXT.match(text)
    country, kind = (context[1].upper(), context[2].lower()) if context else ("", text.lower())
    # the country's own limit, else what most countries have
    for name in (f"{country}:{kind}", kind):
        if name in CONTEXT_KMH:
            return Limit(CONTEXT_KMH[name])
    return Limit(None, parsed=False)


@dataclass(frozen=True)
class Profile:
    """How a way with given tags is travelled.

    Attributes
    ----------
    road
        Code of the class in :data:`CLASSES`.
    forward, backward
        Speed in km/h along and against the way, 0 where closed.
    duration
        Seconds a ferry takes from end to end, 0 where not told.
    """

    road: int
    forward: float
    backward: float
    duration: float = 0.0


_DURATION = re.compile(r"^(?:(\d{1,3}):)?(\d{1,3})(?::(\d{2}))?$")
_ISO_DURATION = re.compile(r"^PT(?=\d)(?:(\d{1,3})H)?(?:(\d{1,4})M)?(?:(\d{1,5})S)?$")


def parse_duration(value: str) -> float:
    """Return seconds of a ferry's ``duration``, else 0.

    ``hh:mm``, ``hh:mm:ss``, minutes, or ISO 8601 (Key:duration, OpenStreetMap wiki).

    Examples
    --------
    >>> parse_duration("01:30"), parse_duration("20"), parse_duration("PT1H5M")
    (5400.0, 1200.0, 3900.0)
    >>> parse_duration("soon")
    0.0
    """
    found = _DURATION.match(value.strip()) or _ISO_DURATION.match(value.strip())
    if not found:
        return 0.0
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(hours * 3600 + minutes * 60 + seconds)


def way_profile(
    tags: Mapping[str, str], mode: Mode, counts: Counter[str] | None = None
) -> Profile | None:
    """Return how a way is travelled, or None where the mode cannot use it.

    Parameters
    ----------
    tags
        Tags of the way.
    mode
        ``car`` or ``foot``.
    counts
        Receives why ways are left out and which values were not understood.

    Notes
    -----
    Access: the most specific key decides (Key:access), in each direction: for a car
    ``motorcar``, ``motor_vehicle``, ``vehicle``, ``access``; on foot ``foot``, ``access``.
    ``destination``, ``customers``, ``permissive`` and ``permit`` are open: a trip to or from the
    place is meant.

    Examples
    --------
    >>> way_profile({"highway": "primary", "maxspeed": "KZ:urban"}, "car")
    Profile(road=4, forward=48.0, backward=48.0, duration=0.0)
    >>> way_profile({"highway": "residential", "access": "private"}, "car") is None
    True
    """
    notes = Counter[str]() if counts is None else counts
    ferry = tags.get("route") == "ferry"
    name = "ferry" if ferry else tags.get("highway", "")
    speeds = CLASS_KMH[mode]
    allowed = _access(tags, mode)
    if name not in speeds:
        # a class the mode does not use by itself is open only where its own tag says so
        own = any(
            tags.get(key) in ("yes", "designated", "permissive") for key in _ACCESS_KEYS[mode][:-1]
        )
        if not own or name not in CLASS_CODE:
            notes["other class" if name in CLASS_CODE else "not a road"] += 1
            return None
        kmh = 10.0 if mode == "car" else WALK_KMH
    else:
        kmh = speeds[name]
    if not any(allowed):
        notes["no access"] += 1
        return None
    if mode == "car" and tags.get("area") == "yes":
        notes["area"] += 1
        return None
    if tags.get("impassable") == "yes":
        notes["no access"] += 1
        return None
    if mode == "foot" and tags.get("motorroad") == "yes" and tags.get("foot") is None:
        notes["no access"] += 1
        return None
    forward_open, backward_open = (
        open_ and granted
        for open_, granted in zip(_directions(tags, mode, name, notes), allowed, strict=True)
    )
    if mode == "car" and not ferry:
        forward, backward = _car_speeds(tags, kmh, notes)
    else:
        factor = 1.0
        if mode == "foot":
            surfaces = tags.get("surface", "").split(";")
            factor = min(FOOT_SURFACE.get(value.strip(), 1.0) for value in surfaces)
        forward = backward = kmh * factor
    forward, backward = forward * forward_open, backward * backward_open
    if forward <= 0 and backward <= 0:
        notes["no access"] += 1
        return None
    duration = parse_duration(tags["duration"]) if ferry and "duration" in tags else 0.0
    return Profile(CLASS_CODE[name], forward, backward, duration)


def _closed(value: str) -> bool:
    """Tell whether an access value lets nobody through; of several one open is enough."""
    return all(part.strip() in _CLOSED for part in value.split(";"))


def _access(tags: Mapping[str, str], mode: Mode) -> tuple[bool, bool]:
    """Return whether access is granted along and against the way: the most specific key decides."""
    granted = []
    for direction in ("forward", "backward"):
        said = (
            tags.get(key) for name in _ACCESS_KEYS[mode] for key in (f"{name}:{direction}", name)
        )
        value = next((v for v in said if v is not None), None)
        granted.append(value is None or not _closed(value))
    return granted[0], granted[1]


def _directions(
    tags: Mapping[str, str], mode: Mode, name: str, notes: Counter[str]
) -> tuple[bool, bool]:
    """Return whether the way is open along and against its drawing."""
    forward = backward = True
    if mode == "foot":
        value = tags.get("oneway:foot")
    else:
        value = next(
            (
                tags[k]
                for k in ("oneway:motorcar", "oneway:motor_vehicle", "oneway:vehicle", "oneway")
                if k in tags
            ),
            None,
        )
        implied = name == "motorway" or tags.get("junction") in ("roundabout", "circular")
        if value is None and implied:
            value = "yes"
    if value in _YES:
        backward = False
    elif value in _BACK:
        forward = False
    elif value is not None and value not in _NO:
        # reversible and alternating lanes are open either way for a part of the day
        notes[
            f"oneway={value}" if value in ("reversible", "alternating") else "oneway not understood"
        ] += 1
    return forward, backward


def _car_speeds(tags: Mapping[str, str], kmh: float, notes: Counter[str]) -> tuple[float, float]:
    """Return km/h along and against the way, before direction is looked at."""

    def limit_of(*keys: str) -> float | None:
        for key in keys:
            value = tags.get(key)
            if value is None:
                continue
            limit = parse_maxspeed(value)
            # the kin of maxspeed tell mostly where a limit comes from, not what it is
            if not limit.parsed and key.startswith("maxspeed") and key != "maxspeed:type":
                notes["maxspeed not understood"] += 1
            if limit.kmh is not None:
                return limit.kmh * LIMIT_SHARE
        return None

    both = ("maxspeed", "zone:maxspeed", "maxspeed:type", "source:maxspeed", "zone:traffic")
    caps = {"surface": SURFACE_KMH, "smoothness": SMOOTHNESS_KMH, "tracktype": TRACKTYPE_KMH}
    # of several values the worst counts
    cap = min(
        table.get(value.strip(), float("inf"))
        for key, table in caps.items()
        for value in tags.get(key, "").split(";")
    )
    shared = limit_of(*both)
    results = []
    for direction in ("maxspeed:forward", "maxspeed:backward"):
        own = limit_of(direction) if direction in tags else None
        limit = own if own is not None else shared
        results.append(min(kmh if limit is None else limit, cap))
    return results[0], results[1]


def node_blocks(tags: Mapping[str, str], mode: Mode) -> bool:
    """Tell whether a barrier on a node stops the mode (Key:barrier, OpenStreetMap wiki).

    Examples
    --------
    >>> node_blocks({"barrier": "bollard"}, "car"), node_blocks({"barrier": "bollard"}, "foot")
    (True, False)
    >>> node_blocks({"barrier": "gate", "access": "private"}, "car")
    True
    """
    barrier = tags.get("barrier")
    if barrier is None:
        return False
    for key in _ACCESS_KEYS[mode]:
        value = tags.get(key)
        if value is not None:
            return _closed(value)
    if mode == "car":
        # rising and removable bollards let those through who may pass
        sunk = barrier == "bollard" and tags.get("bollard") in ("rising", "removable")
        return barrier not in _OPEN_TO_CARS and not sunk
    return barrier in _CLOSED_TO_FEET
