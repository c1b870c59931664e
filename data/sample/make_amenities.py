"""Make the SYNTHETIC stops, services, parks and networks of the sample region, as an OSM file.

No object of it is real: each settlement of ``settlements.csv`` gets as many as its people would
ask for, spread around its place. The invented roads of ``make_network.py`` are in it too, so that
one file serves `qala indicators` as extract and as network. See README.md beside this script.

    python data/sample/make_amenities.py [--out FILE]
"""

from __future__ import annotations

import argparse
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import osmium
import pandas as pd
from osmium.osm.mutable import Node, Way

log = logging.getLogger("qala.sample")

HERE = Path(__file__).resolve().parent
SEED = 2026
EPOCH = 2023
MARK = {"synthetic": "yes", "note": "SYNTHETIC: not an object of OpenStreetMap"}
#: people a km² that the radius of a settlement is drawn with
DENSITY = 3000.0
#: kind → (tags, least people of the settlement, people an object)
POINTS: dict[str, tuple[dict[str, str], float, float]] = {
    "school": ({"amenity": "school"}, 150, 2500),
    "kindergarten": ({"amenity": "kindergarten"}, 300, 2000),
    "hospital": ({"amenity": "hospital"}, 8000, 80_000),
    "fire": ({"amenity": "fire_station"}, 5000, 60_000),
    "stop": ({"highway": "bus_stop", "public_transport": "platform", "bus": "yes"}, 300, 700),
    "station": ({"railway": "station", "train": "yes"}, 15_000, 600_000),
}
#: side of a park, metres, and people a park
PARK = (160.0, 15_000.0)


class _Sink:
    """Nodes and ways, numbered after those of the roads."""

    def __init__(self, nodes: list[Any], ways: list[Any]) -> None:
        self.nodes, self.ways = nodes, ways

    def point(self, lon: float, lat: float, tags: dict[str, str]) -> int:
        number = len(self.nodes) + 1
        place = (round(lon, 6), round(lat, 6))
        self.nodes.append(Node(id=number, version=1, location=place, tags=tags))
        return number

    def line(self, corners: Any, tags: dict[str, str], *, closed: bool = False) -> None:
        refs = [self.point(x, y, {}) for x, y in corners]
        refs = refs + refs[:1] if closed else refs
        self.ways.append(Way(id=len(self.ways) + 1, version=1, nodes=refs, tags={**tags, **MARK}))


def read_roads(path: Path) -> tuple[list[Any], list[Any]]:
    """Return nodes and ways of the invented roads; both are numbered from 1."""
    nodes: list[Any] = []
    ways: list[Any] = []
    for thing in osmium.FileProcessor(str(path)):
        if thing.is_node():
            place = (thing.location.lon, thing.location.lat)
            nodes.append(Node(id=thing.id, version=1, location=place, tags=dict(thing.tags)))
        elif thing.is_way():
            refs = [n.ref for n in thing.nodes]
            ways.append(Way(id=thing.id, version=1, nodes=refs, tags=dict(thing.tags)))
    assert [n.id for n in nodes] == list(range(1, len(nodes) + 1))
    assert [w.id for w in ways] == list(range(1, len(ways) + 1))
    return nodes, ways


def equip(sink: _Sink, place: Any, rng: np.random.Generator) -> None:
    """Give one settlement what its people would ask for."""
    people = float(place.population)
    radius = max(math.sqrt(people / DENSITY / math.pi) * 1000, 250.0)
    north, east = 1 / 111_000.0, 1 / (111_320.0 * math.cos(math.radians(place.lat)))

    def somewhere(spread: float = 0.6) -> tuple[float, float]:
        x, y = rng.normal(0, spread * radius, 2)
        return place.lon + x * east, place.lat + y * north

    for tags, least, each in POINTS.values():
        if people >= least:
            for _ in range(math.ceil(people / each)):
                sink.point(*somewhere(), {**tags, **MARK})
    if people >= 1500:
        side, each = PARK
        for _ in range(math.ceil(people / each)):
            lon, lat = somewhere(0.4)
            half = side * rng.uniform(0.5, 1.5) / 2
            box = [(-half, -half), (half, -half), (half, half), (-half, half)]
            ring = [(lon + x * east, lat + y * north) for x, y in box]
            sink.line(ring, {"leisure": "park"}, closed=True)
    if people >= 10_000:
        _mains(sink, place, radius, east, north, city=people >= 50_000)


def _mains(
    sink: _Sink, place: Any, radius: float, east: float, north: float, *, city: bool
) -> None:
    """Draw water, power and, in cities, heat mains, cycle ways and a barrier-free promenade."""

    def across(shift: float, turn: bool) -> list[tuple[float, float]]:
        at = [(t * radius, shift * radius) for t in (-1.0, -0.5, 0.0, 0.5, 1.0)]
        return [
            (place.lon + (y if turn else x) * east, place.lat + (x if turn else y) * north)
            for x, y in at
        ]

    for shift in (-0.5, 0.0, 0.5):
        sink.line(across(shift, True), {"man_made": "pipeline", "substance": "water"})
    sink.line(across(-0.8, False), {"power": "minor_line"})
    if city:
        for shift in (-0.4, 0.1, 0.4):
            sink.line(across(shift, False), {"man_made": "pipeline", "substance": "hot_water"})
        sink.line(across(0.15, True), {"highway": "cycleway", "name": "SYNTHETIC"})
        sink.line(across(0.2, False),
                  {"highway": "footway", "wheelchair": "yes", "name": "SYNTHETIC"})  # fmt: skip
        sink.line(across(-0.2, False),
                  {"highway": "footway", "wheelchair": "no", "name": "SYNTHETIC"})  # fmt: skip


def main() -> None:
    """Make the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "amenities_SYNTHETIC.osm.pbf")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    rng = np.random.default_rng(SEED)
    table = pd.read_csv(HERE / "settlements.csv")
    table = table[(table["epoch"] == EPOCH) & (table["population"] > 0)].sort_values("id")
    sink = _Sink(*read_roads(HERE / "roads_SYNTHETIC.osm.pbf"))
    for place in table.itertuples():
        equip(sink, place, rng)
    header = osmium.io.Header()
    header.set("generator", "qala make_amenities.py, SYNTHETIC")
    arguments.out.unlink(missing_ok=True)
    with osmium.SimpleWriter(str(arguments.out), header=header) as out:
        for node in sink.nodes:
            out.add_node(node)
        for way in sink.ways:
            out.add_way(way)
    log.info("%s: %d nodes, %d ways, %d bytes", arguments.out, len(sink.nodes), len(sink.ways),
             arguments.out.stat().st_size)  # fmt: skip


if __name__ == "__main__":
    main()
