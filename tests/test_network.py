"""Reading OpenStreetMap extracts as routable graphs."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import geopandas as gpd
import networkx as nx
import numpy as np
import osmium
import pyproj
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from qala import _routing
from qala.errors import InputError, TemporaryError
from qala.network import (
    OSM_NOTICE,
    Network,
    _components,
    load_network,
    network_flow,
    network_from_lines,
    network_from_osmnx,
    network_layers,
    query_network,
    read_network,
    save_network,
)
from qala.speeds import CLASSES, Profile, node_blocks, parse_duration, parse_maxspeed, way_profile

GEOD = pyproj.Geod(ellps="WGS84")


# Synthetic extracts -------------------------------------------------------------------------


def write_osm(
    path: Path,
    places: dict[int, tuple[float, float]],
    ways: list[tuple[list[int], dict[str, str]]],
    *,
    tags: dict[int, dict[str, str]] | None = None,
    ways_first: bool = False,
) -> Path:
    """Write a synthetic OSM XML file: nodes (lon, lat) and ways (nodes, tags)."""

    def tag_text(items: dict[str, str]) -> str:
        return "".join(f'<tag k="{k}" v="{v}"/>' for k, v in items.items())

    nodes = "".join(
        f'<node id="{i}" lon="{x}" lat="{y}">{tag_text((tags or {}).get(i, {}))}</node>'
        for i, (x, y) in places.items()
    )
    lines = "".join(
        f'<way id="{100 + i}">{"".join(f"<nd ref={chr(34)}{r}{chr(34)}/>" for r in refs)}'
        f"{tag_text(found)}</way>"
        for i, (refs, found) in enumerate(ways)
    )
    body = lines + nodes if ways_first else nodes + lines
    path.write_text(f'<osm version="0.6">{body}</osm>', encoding="utf-8")
    return path


#: a street of five nodes with a side street at the third, near Turkistan (synthetic)
PLACES = {
    1: (68.20, 43.30),
    2: (68.21, 43.30),
    3: (68.22, 43.31),
    4: (68.23, 43.30),
    5: (68.24, 43.30),
    6: (68.22, 43.33),
    7: (69.50, 43.30),
    8: (69.52, 43.30),
}
ROAD = {"highway": "residential"}


def arcs(network: Network) -> set[tuple[tuple[float, float], tuple[float, float]]]:
    """Return the arcs as pairs of coordinates."""
    start = np.repeat(np.arange(network.lon.size), np.diff(network.indptr))
    at = [(round(x, 5), round(y, 5)) for x, y in zip(network.lon, network.lat, strict=True)]
    return {(at[a], at[b]) for a, b in zip(start, network.indices, strict=True)}


# Tags ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "kmh"),
    [
        ("50", 50), ("50 km/h", 50), ("60 mph", 96.56064), ("5 knots", 9.26), ("RU:urban", 60),
        ("KZ:rural", 90), ("KZ:urban", 60), ("walk", 5), ("50;30", 30), ("80|60|60", 60),
        ("DE:zone:30", 30), ("DE:zone30", 30), ("XX:urban", 50), ("7,5", 7.5), ("none;80", 80),
        ("ru:urban", 60), ("RU: rural", 90), ("rural", 90), ("35mph", 56.32704), ("Walk", 5),
        ("IT:motorway", 130), ("100 KM/H", 100), ("KZ:living_street", 20),
    ],
)  # fmt: skip
def test_maxspeed_is_read(value: str, kmh: float) -> None:
    assert parse_maxspeed(value).kmh == pytest.approx(kmh)


@pytest.mark.parametrize("value", ["none", "signals", "variable", "DE:none"])
def test_maxspeed_without_a_number_is_understood(value: str) -> None:
    assert parse_maxspeed(value) == parse_maxspeed("none")
    assert parse_maxspeed(value).parsed


@pytest.mark.parametrize("value", ["", "fast", "600", "0", "-5", "5-10", "RU:moon", "50 @ (wet)"])
def test_maxspeed_not_understood_is_told(value: str) -> None:
    assert parse_maxspeed(value).kmh is None
    assert not parse_maxspeed(value).parsed


@pytest.mark.parametrize(
    ("tags", "mode", "ahead", "back"),
    [
        ({"oneway": "yes"}, "car", True, False),
        ({"oneway": "1"}, "car", True, False),
        ({"oneway": "-1"}, "car", False, True),
        ({"oneway": "reverse"}, "car", False, True),
        ({"oneway": "no"}, "car", True, True),
        ({"junction": "roundabout"}, "car", True, False),
        ({"junction": "circular"}, "car", True, False),
        ({"junction": "roundabout", "oneway": "no"}, "car", True, True),
        ({"highway": "motorway"}, "car", True, False),
        ({"highway": "motorway", "oneway": "no"}, "car", True, True),
        ({"highway": "motorway_link"}, "car", True, True),
        ({"oneway": "yes", "oneway:motor_vehicle": "no"}, "car", True, True),
        ({"motor_vehicle:backward": "no"}, "car", True, False),
        ({"vehicle:backward": "no", "motor_vehicle:backward": "destination"}, "car", True, True),
        ({"vehicle:backward": "no", "motorcar": "yes"}, "car", True, True),
        ({"motor_vehicle": "no", "motorcar:forward": "yes"}, "car", True, False),
        ({"access:forward": "private"}, "car", False, True),
        ({"access:forward": "private"}, "foot", False, True),
        ({"oneway": "-1", "motor_vehicle:forward": "no"}, "car", False, True),
        ({"oneway": "reversible"}, "car", True, True),
        ({"oneway": "yes"}, "foot", True, True),
        ({"oneway:foot": "yes"}, "foot", True, False),
        ({"foot:backward": "no"}, "foot", True, False),
    ],
)
def test_direction(tags: dict[str, str], mode: Any, ahead: bool, back: bool) -> None:
    profile = way_profile({"highway": "primary", **tags}, mode)
    assert profile is not None
    assert (profile.forward > 0, profile.backward > 0) == (ahead, back)


@pytest.mark.parametrize(
    ("tags", "mode", "usable"),
    [
        ({"highway": "primary"}, "car", True),
        ({"highway": "primary", "access": "no"}, "car", False),
        ({"highway": "primary", "access": "no", "motor_vehicle": "yes"}, "car", True),
        ({"highway": "primary", "vehicle": "no"}, "car", False),
        ({"highway": "primary", "vehicle": "no"}, "foot", True),
        ({"highway": "primary", "motor_vehicle": "no", "motorcar": "yes"}, "car", True),
        ({"highway": "track", "motor_vehicle": "agricultural"}, "car", False),
        ({"highway": "track"}, "car", True),
        ({"highway": "service", "access": "destination"}, "car", True),
        ({"highway": "service", "access": "private"}, "foot", False),
        ({"highway": "service", "access": "private", "foot": "yes"}, "foot", True),
        ({"highway": "footway"}, "car", False),
        ({"highway": "footway", "motor_vehicle": "yes"}, "car", True),
        ({"highway": "footway"}, "foot", True),
        ({"highway": "motorway"}, "foot", False),
        ({"highway": "trunk"}, "foot", True),
        ({"highway": "trunk", "motorroad": "yes"}, "foot", False),
        ({"highway": "construction"}, "car", False),
        ({"highway": "pedestrian", "area": "yes"}, "foot", True),
        ({"highway": "service", "area": "yes"}, "car", False),
        ({"route": "ferry"}, "car", True),
        ({"route": "hiking"}, "foot", False),
        ({"highway": "primary", "smoothness": "impassable"}, "car", False),
    ],
)
def test_access(tags: dict[str, str], mode: Any, usable: bool) -> None:
    assert (way_profile(tags, mode) is not None) == usable


@pytest.mark.parametrize(
    ("tags", "kmh"),
    [
        ({"highway": "trunk"}, 85),
        ({"highway": "residential", "maxspeed": "50"}, 40),
        ({"highway": "primary", "maxspeed": "100", "surface": "gravel"}, 40),
        ({"highway": "primary", "surface": "mud"}, 10),
        ({"highway": "primary", "surface": "asphalt; gravel"}, 40),
        ({"highway": "track", "tracktype": "grade5"}, 15),
        ({"highway": "primary", "maxspeed": "none"}, 65),
        ({"highway": "primary", "maxspeed": "quick"}, 65),
        ({"highway": "primary", "source:maxspeed": "RU:urban"}, 48),
    ],
)
def test_speed(tags: dict[str, str], kmh: float) -> None:
    profile = way_profile(tags, "car")
    assert profile is not None
    assert profile.forward == pytest.approx(kmh)


def test_speed_by_direction_and_counts() -> None:
    notes: Counter[str] = Counter()
    profile = way_profile(
        {"highway": "primary", "maxspeed": "60", "maxspeed:backward": "odd"}, "car", notes
    )
    assert profile is not None
    assert (profile.forward, profile.backward) == (48, 48)
    assert notes == {"maxspeed not understood": 1}
    profile = way_profile({"highway": "primary", "maxspeed:forward": "100"}, "car")
    assert profile is not None
    assert (profile.forward, profile.backward) == (80, 65)


@pytest.mark.parametrize(
    ("tags", "mode", "blocks"),
    [
        ({"barrier": "bollard"}, "car", True),
        ({"barrier": "bollard", "motor_vehicle": "yes"}, "car", False),
        ({"barrier": "bollard"}, "foot", False),
        ({"barrier": "bollard", "bollard": "removable"}, "car", False),
        ({"barrier": "bollard", "bollard": "fixed"}, "car", True),
        ({"barrier": "hampshire_gate"}, "car", False),
        ({"barrier": "gate"}, "car", False),
        ({"barrier": "lift_gate", "access": "private"}, "car", True),
        ({"barrier": "gate", "access": "private", "foot": "yes"}, "foot", False),
        ({"barrier": "toll_booth"}, "car", False),
        ({"barrier": "wall"}, "foot", True),
        ({"highway": "crossing"}, "car", False),
    ],
)
def test_barriers(tags: dict[str, str], mode: Any, blocks: bool) -> None:
    assert node_blocks(tags, mode) == blocks


def test_duration_of_ferries() -> None:
    assert parse_duration("00:20") == 1200
    assert parse_duration("1:02:03") == 3723
    assert parse_duration("PT20M") == 1200
    assert parse_duration("P1D") == parse_duration("PT") == 0


# Graph --------------------------------------------------------------------------------------


def test_street_with_side_street(tmp_path: Path) -> None:
    ways = [([1, 2], ROAD), ([2, 3, 4, 5], ROAD), ([3, 6], ROAD)]
    network = read_network(write_osm(tmp_path / "a.osm", PLACES, ways))
    # node 2 joins two ways of the same kind and is no junction
    assert network.lon.size == 4
    assert network.metres.size == 3
    assert network.indices.size == 6
    layer = network_layers(network)
    whole = sum(GEOD.geometry_length(line) for line in layer.geometry)
    assert network.metres.sum() == pytest.approx(whole, rel=1e-6)
    assert layer["class"].unique().tolist() == ["residential"]
    assert layer["speed_kmh"].to_numpy() == pytest.approx(25.0)
    assert layer["seconds"].to_numpy() == pytest.approx(network.metres * 3.6 / 25, rel=1e-6)
    summary = network.metadata["summary"]
    assert summary["dangling segments"] == 3
    assert summary["share of length in the largest strong component"] == 1.0
    assert network.metadata["notice"] == OSM_NOTICE
    at = pyproj.Transformer.from_crs("EPSG:4326", network.crs, always_xy=True)
    assert network.x == pytest.approx(np.asarray(at.transform(network.lon, network.lat)[0]))


def test_change_of_speed_is_kept(tmp_path: Path) -> None:
    ways = [([1, 2], ROAD), ([2, 3], {**ROAD, "maxspeed": "20"})]
    network = read_network(write_osm(tmp_path / "a.osm", PLACES, ways))
    assert sorted(network_layers(network)["speed_kmh"]) == [16.0, 25.0]


def test_oneway_arcs(tmp_path: Path) -> None:
    one, three, six = ((round(x, 5), round(y, 5)) for x, y in (PLACES[1], PLACES[3], PLACES[6]))
    ways = [([1, 2, 3], {**ROAD, "oneway": "yes"}), ([3, 6], {**ROAD, "oneway": "-1"})]
    network = read_network(write_osm(tmp_path / "a.osm", PLACES, ways))
    assert arcs(network) == {(one, three), (six, three)}
    layer = network_layers(network)
    assert layer["oneway"].all()
    assert layer["seconds"].notna().all()
    # the line is drawn the way it is driven
    starts = {(round(g.coords[0][0], 5), round(g.coords[0][1], 5)) for g in layer.geometry}
    assert starts == {one, six}
    assert network.metadata["summary"]["strong components"] == 3


def test_oneway_against_the_next_way_is_not_joined(tmp_path: Path) -> None:
    ways = [([1, 2], {**ROAD, "oneway": "yes"}), ([3, 2], {**ROAD, "oneway": "-1"})]
    network = read_network(write_osm(tmp_path / "a.osm", PLACES, ways))
    assert network.metres.size == 1  # drawn against each other, driven along
    ways = [([1, 2], {**ROAD, "oneway": "yes"}), ([3, 2], {**ROAD, "oneway": "yes"})]
    network = read_network(write_osm(tmp_path / "b.osm", PLACES, ways))
    assert network.metres.size == 2


def test_ring_alone(tmp_path: Path) -> None:
    ways = [([1, 2, 3, 1], ROAD)]
    network = read_network(write_osm(tmp_path / "a.osm", PLACES, ways))
    assert network.metres.size == 1
    assert network.from_node[0] == network.to_node[0]
    ring = [([1, 2], ROAD), ([2, 3], ROAD), ([3, 1], ROAD)]
    again = read_network(write_osm(tmp_path / "b.osm", PLACES, ring))
    assert again.metres.sum() == pytest.approx(network.metres.sum())


def test_barrier_blocks_cars_only(tmp_path: Path) -> None:
    file = write_osm(
        tmp_path / "a.osm", PLACES, [([1, 2, 3], ROAD)], tags={2: {"barrier": "bollard"}}
    )
    car, foot = read_network(file), read_network(file, mode="foot")
    assert car.metadata["summary"]["barriers that block"] == 1
    assert car.island.max() == 1
    assert car.lon.size == 4
    assert foot.island.max() == 0
    assert foot.metres.size == 1
    assert car.metres.sum() == pytest.approx(foot.metres.sum())


def test_two_networks_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = write_osm(tmp_path / "a.osm", PLACES, [([1, 2, 3, 4], ROAD), ([7, 8], ROAD)])
    network = read_network(file)
    summary = network.metadata["summary"]
    assert summary["weak components"] == 2
    assert summary["share of length in the largest weak component"] < 1
    assert "2 networks not connected" in summary["warnings"][0]
    assert "2 networks not connected" in caplog.text
    main = network.lon < 69
    assert (network.island[main] == 0).all()
    assert (network.island[~main] == 1).all()


def test_components_of_graphs_with_parallel_arcs() -> None:
    rng = np.random.default_rng(3)
    for nodes in (2, 30, 300):
        a, b = rng.integers(0, nodes, (2, nodes + nodes // 2))
        # every arc twice, as of two ways between the same crossings
        a, b = np.repeat(a, 2), np.repeat(b, 2)
        order = np.argsort(a, kind="stable")
        indptr = np.concatenate([[0], np.cumsum(np.bincount(a, minlength=nodes))])
        parts = {"from_node": a, "to_node": b, "metres": np.ones(a.size)}
        found = _components(parts, indptr, b[order].astype(np.int32))
        graph = nx.MultiDiGraph(list(zip(a.tolist(), b.tolist(), strict=True)))
        graph.add_nodes_from(range(nodes))
        kinds = (nx.strongly_connected_components, nx.weakly_connected_components)
        for label, expected in zip(found, kinds, strict=True):
            groups = {frozenset(np.flatnonzero(label == k).tolist()) for k in np.unique(label)}
            assert groups == {frozenset(g) for g in expected(graph)}


def test_ways_before_nodes_are_read(tmp_path: Path) -> None:
    ways = [([1, 2, 3], ROAD)]
    a = read_network(write_osm(tmp_path / "a.osm", PLACES, ways))
    b = read_network(write_osm(tmp_path / "b.osm", PLACES, ways, ways_first=True))
    assert b.metres == pytest.approx(a.metres)


def test_missing_coordinates_are_counted(tmp_path: Path) -> None:
    network = read_network(write_osm(tmp_path / "a.osm", PLACES, [([1, 2, 99, 3, 4], ROAD)]))
    assert network.metres.size == 2
    assert network.metadata["left out or not understood"]["vertices without coordinates"] == 1
    assert "1 vertices" in network.metadata["summary"]["warnings"][-1]


def test_unparsable_limits_are_counted_by_way(tmp_path: Path) -> None:
    odd = {**ROAD, "maxspeed": "fast, I think = %"}
    network = read_network(write_osm(tmp_path / "a.osm", PLACES, [([1, 2], odd), ([2, 3], odd)]))
    assert network.metadata["left out or not understood"]["maxspeed not understood"] == 2


def test_escaped_values_are_read(tmp_path: Path) -> None:
    found = {"name": "Жібек жолы, 5 = %", "highway": "primary", "maxspeed": "60 km/h"}
    network = read_network(write_osm(tmp_path / "a.osm", PLACES, [([1, 2], found)]))
    assert network_layers(network)["speed_kmh"].tolist() == [48.0]


def test_ferry_takes_its_timetable(tmp_path: Path) -> None:
    ferry = {"route": "ferry", "duration": "00:30"}
    network = read_network(write_osm(tmp_path / "a.osm", PLACES, [([1, 2, 3], ferry)]))
    assert network.forward.tolist() == [1800.0]
    assert network_layers(network)["class"].tolist() == ["ferry"]


def test_bbox_cuts(tmp_path: Path) -> None:
    file = write_osm(tmp_path / "a.osm", PLACES, [([1, 2, 3, 4, 5], ROAD), ([7, 8], ROAD)])
    network = read_network(file, bbox=(68.195, 43.2, 68.225, 43.4))
    assert network.lon.max() == pytest.approx(68.22)
    assert network.metadata["left out or not understood"]["vertices outside the bbox"] == 4


# Bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"mode": "train"}, "mode is 'train'"),
        ({"bbox": (70, 43, 69, 44)}, "bbox is"),
        ({"bbox": (10, 43, 11, 44)}, "no road lies in the bbox"),
        ({"crs": "EPSG:4326"}, "not in metres"),
        ({"crs": "EPSG:0"}, "not known"),
    ],
)
def test_wrong_arguments(tmp_path: Path, arguments: dict[str, Any], words: str) -> None:
    file = write_osm(tmp_path / "a.osm", PLACES, [([1, 2], ROAD)])
    with pytest.raises(InputError, match=words):
        read_network(file, **arguments)


def test_files_that_are_no_network(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_network(tmp_path / "none.osm.pbf")
    with pytest.raises(InputError, match="is a folder"):
        read_network(tmp_path)
    (tmp_path / "empty.osm.pbf").touch()
    with pytest.raises(InputError, match="0 bytes"):
        read_network(tmp_path / "empty.osm.pbf")
    (tmp_path / "text.osm.pbf").write_text("no pbf at all, only words")
    with pytest.raises(InputError, match="cannot be read as OpenStreetMap data"):
        read_network(tmp_path / "text.osm.pbf")
    (tmp_path / "roads.xyz").write_text("?")
    with pytest.raises(InputError, match="cannot be read as OpenStreetMap data"):
        read_network(tmp_path / "roads.xyz")


def test_extracts_without_roads(tmp_path: Path) -> None:
    house = write_osm(tmp_path / "a.osm", PLACES, [([1, 2, 3, 1], {"building": "yes"})])
    with pytest.raises(InputError, match="no way with a highway"):
        read_network(house)
    path = write_osm(tmp_path / "b.osm", PLACES, [([1, 2], {"highway": "footway"})])
    with pytest.raises(InputError, match="none a car can use"):
        read_network(path)
    assert read_network(path, mode="foot").metres.size == 1
    bare = write_osm(tmp_path / "c.osm", {}, [([1, 2], ROAD)])
    with pytest.raises(InputError, match="none of the 2 vertices"):
        read_network(bare)
    apart = write_osm(tmp_path / "d.osm", {1: PLACES[1]}, [([1, 2], ROAD)])
    with pytest.raises(InputError, match="no piece of road"):
        read_network(apart)


def test_truncated_pbf(reference: Path, tmp_path: Path) -> None:
    whole = (reference / "osm" / "monaco_2021.osm.pbf").read_bytes()
    cut = tmp_path / "cut.osm.pbf"
    cut.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(InputError, match="truncated"):
        read_network(cut)


# Against other programs ---------------------------------------------------------------------


def test_lengths_against_geodesic() -> None:
    rng = np.random.default_rng(3)
    lon, lat = rng.uniform(-180, 180, 200), rng.uniform(-80, 80, 200)
    azimuth, metres = rng.uniform(0, 360, 200), rng.uniform(1, 20_000, 200)
    to_lon, to_lat, _ = GEOD.fwd(lon, lat, azimuth, metres)
    ours = [_routing.metres_between(*p) for p in zip(lon, lat, to_lon, to_lat, strict=True)]
    assert np.array(ours) == pytest.approx(metres, rel=2e-5)
    near = np.abs(lat) < 60
    assert np.array(ours)[near] == pytest.approx(metres[near], rel=3e-6)


def plain_reading(path: Path) -> nx.MultiDiGraph:
    """Read an extract node by node with pyosmium, without contraction."""
    graph = nx.MultiDiGraph()
    blocked = {
        o.id for o in osmium.FileProcessor(str(path), osmium.osm.NODE)
        if node_blocks(dict(o.tags), "car")
    }  # fmt: skip
    for way in osmium.FileProcessor(str(path)).with_locations():
        if not way.is_way():
            continue
        profile = way_profile(dict(way.tags), "car")
        if profile is None:
            continue
        nodes = list(way.nodes)
        if profile.duration:
            known = [n for n in nodes if n.location.valid()]
            metres = GEOD.line_length([n.lon for n in known], [n.lat for n in known])
            kmh = metres * 3.6 / profile.duration
            profile = Profile(profile.road, kmh, kmh)
        for i, (a, b) in enumerate(pairwise(nodes)):
            if not (a.location.valid() and b.location.valid()):
                continue
            metres = GEOD.line_length([a.lon, b.lon], [a.lat, b.lat])
            u = (a.ref, way.id, i) if a.ref in blocked else a.ref
            v = (b.ref, way.id, i) if b.ref in blocked else b.ref
            graph.add_node(u, at=(round(a.lon, 7), round(a.lat, 7)))
            graph.add_node(v, at=(round(b.lon, 7), round(b.lat, 7)))
            if profile.forward:
                graph.add_edge(u, v, seconds=metres * 3.6 / profile.forward, metres=metres)
            if profile.backward:
                graph.add_edge(v, u, seconds=metres * 3.6 / profile.backward, metres=metres)
    return graph


@pytest.mark.parametrize("name", ["monaco_2021", "helsinki_centre_2019"])
def test_times_equal_networkx_on_the_plain_graph(reference: Path, name: str) -> None:
    path = reference / "osm" / f"{name}.osm.pbf"
    graph, network = plain_reading(path), read_network(path)
    driven = sum(d["metres"] for _, _, d in graph.edges(data=True))
    assert network.arc_metres.sum(dtype=np.float64) == pytest.approx(driven, rel=1e-5)
    places = {at: n for n, at in graph.nodes(data="at")}
    many = Counter(at for _, at in graph.nodes(data="at"))
    ours = list(zip(network.lon.round(7).tolist(), network.lat.round(7).tolist(), strict=True))
    # places with several nodes (barriers, levels) are left out of the comparison
    once = [v for v, at in enumerate(ours) if many[at] == 1]
    for source in once[:: len(once) // 5]:
        time, _ = _routing.nearest(
            network.indptr, network.indices, network.seconds,
            np.array([source]), np.zeros(1), np.zeros(1, np.int32), np.inf,
        )  # fmt: skip
        expected = nx.single_source_dijkstra_path_length(
            graph, places[ours[source]], weight="seconds"
        )
        wanted = np.array([expected.get(places[ours[v]], np.inf) for v in once])
        assert np.isfinite(wanted).sum() > 1
        assert time[once] == pytest.approx(wanted, rel=1e-4, abs=0.01)


@st.composite
def road_lines(draw: st.DrawFn) -> gpd.GeoDataFrame:
    """Lines along a small grid of points, with directions and limits (synthetic)."""
    number = draw(st.integers(1, 12))
    rows = []
    for _ in range(number):
        x, y = draw(st.integers(0, 4)), draw(st.integers(0, 4))
        line = [(x, y)]
        for _ in range(draw(st.integers(1, 5))):
            dx, dy = draw(st.sampled_from([(0, 1), (1, 0), (0, -1), (-1, 0), (1, 1)]))
            x, y = x + dx, y + dy
            line.append((x, y))
        rows.append(
            {
                "geometry": shapely.LineString([(68 + 0.01 * a, 43 + 0.01 * b) for a, b in line]),
                "oneway": draw(st.sampled_from(["yes", "no", "-1"])),
                "maxspeed": draw(st.sampled_from(["60", "40"])),
                "highway": "primary",
            }
        )
    return gpd.GeoDataFrame(rows, crs="EPSG:4326")


@settings(max_examples=60, deadline=None)
@given(road_lines(), st.data())
def test_contraction_keeps_times(lines: gpd.GeoDataFrame, data: st.DataObject) -> None:
    network = network_from_lines(lines)
    graph = nx.MultiDiGraph()
    for row in lines.itertuples():
        at = [(round(x, 6), round(y, 6)) for x, y in row.geometry.coords]
        kmh = 0.8 * float(row.maxspeed)
        for a, b in pairwise(at):
            seconds = GEOD.line_length([a[0], b[0]], [a[1], b[1]]) * 3.6 / kmh
            graph.add_nodes_from((a, b))
            if row.oneway in ("yes", "no"):
                graph.add_edge(a, b, w=seconds)
            if row.oneway in ("-1", "no"):
                graph.add_edge(b, a, w=seconds)
    at = list(zip(network.lon.round(6).tolist(), network.lat.round(6).tolist(), strict=True))
    assert set(at) <= set(graph)
    source = data.draw(st.integers(0, len(at) - 1))
    time, label = _routing.nearest(
        network.indptr, network.indices, network.seconds,
        np.array([source]), np.zeros(1), np.array([7], np.int32), np.inf,
    )  # fmt: skip
    wanted = nx.single_source_dijkstra_path_length(graph, at[source], weight="w")
    assert time == pytest.approx([wanted.get(p, np.inf) for p in at], rel=1e-5)
    assert (label == np.where(np.isfinite(time), 7, -1)).all()
    # nothing but true junctions and ends is left, save where speed or direction changes
    total = sum(GEOD.geometry_length(g) for g in lines.geometry)
    assert network.metres.sum(dtype=np.float64) == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("name", ["liechtenstein_2022", "monaco_2021", "helsinki_centre_2019"])
@pytest.mark.parametrize("mode", ["car", "foot"])
def test_real_extracts(reference: Path, name: str, mode: str) -> None:
    network = read_network(reference / "osm" / f"{name}.osm.pbf", mode=mode)
    summary = network.metadata["summary"]
    assert summary["share of length in the largest strong component"] > 0.8
    assert network.indptr[-1] == network.indices.size == network.seconds.size
    assert (network.seconds >= 0).all()
    assert np.isfinite(network.seconds).all()
    kmh = network_layers(network)["speed_kmh"]
    # a ferry takes what its timetable tells
    assert kmh[network.road != CLASSES.index("ferry")].max() <= (110 if mode == "car" else 5)
    assert (network.geometry_ptr[1:] - network.geometry_ptr[:-1] >= 2).all()
    assert {CLASSES[c] for c in np.unique(network.arc_class)} >= {"primary", "residential"}


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_threads_do_not_change_the_network(
    reference: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    path = reference / "osm" / "monaco_2021.osm.pbf"
    plain = read_network(path)
    monkeypatch.setattr("qala.network.usable_cores", lambda: threads)
    again = read_network(path)
    for name in ("lon", "lat", "from_node", "to_node", "forward", "backward", "geometry_lon"):
        assert np.array_equal(getattr(again, name), getattr(plain, name), equal_nan=True), name
    counted = "left out or not understood"
    assert again.metadata[counted] == plain.metadata[counted]


def test_ids_above_32_bits_and_below_zero(tmp_path: Path) -> None:
    big = {2**40 + k: at for k, at in PLACES.items()}
    ways = [([2**40 + 1, 2**40 + 2, 2**40 + 3], ROAD)]
    assert read_network(write_osm(tmp_path / "a.osm", big, ways)).metres.size == 1
    negative = {-k: at for k, at in PLACES.items()}
    with pytest.raises(InputError, match="renumber"):
        read_network(write_osm(tmp_path / "b.osm", negative, [([-1, -2], ROAD)]))


# Files --------------------------------------------------------------------------------------


def test_saved_network_comes_back(reference: Path, tmp_path: Path) -> None:
    network = read_network(reference / "osm" / "monaco_2021.osm.pbf")
    path = save_network(network, tmp_path / "monaco.net")
    again = load_network(path)
    for name, value in vars(network).items():
        if isinstance(value, np.ndarray):
            assert np.array_equal(getattr(again, name), value, equal_nan=True), name
            assert not getattr(again, name).flags.writeable
    assert dict(again.metadata) == json.loads(json.dumps(dict(network.metadata)))
    assert (again.mode, again.crs) == (network.mode, network.crs)
    assert [p.name for p in tmp_path.iterdir()] == ["monaco.net"]


def test_damaged_network_files(tmp_path: Path) -> None:
    file = write_osm(tmp_path / "a.osm", PLACES, [([1, 2, 3], ROAD)])
    path = save_network(read_network(file), tmp_path / "a.net")
    data = path.read_bytes()
    path.write_bytes(data[:-200])
    with pytest.raises(InputError, match="not a whole network file"):
        load_network(path)
    at = data.index(b"lat.npy") + 200
    path.write_bytes(data[:at] + bytes(b ^ 255 for b in data[at : at + 4]) + data[at + 4 :])
    with pytest.raises(InputError, match="not a whole network file"):
        load_network(path)
    path.write_text("words")
    with pytest.raises(InputError, match="not a whole network file"):
        load_network(path)
    with open(path, "wb") as sink:
        np.savez(sink, other=np.zeros(3))
    with pytest.raises(InputError, match="not a whole network file"):
        load_network(path)
    with pytest.raises(InputError, match="does not exist"):
        load_network(tmp_path / "none.net")


def test_newer_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_osm(tmp_path / "a.osm", PLACES, [([1, 2, 3], ROAD)])
    path = save_network(read_network(file), tmp_path / "a.net")
    monkeypatch.setattr("qala.network.FORMAT_VERSION", 2)
    with pytest.raises(InputError, match="version 1; expected version 2"):
        load_network(path)


def test_flow(tmp_path: Path) -> None:
    file = write_osm(tmp_path / "a.osm", PLACES, [([1, 2, 3], ROAD)])
    steps: list[tuple[int, int]] = []
    out = tmp_path / "sub" / "a.net"
    result = network_flow(file, "car", out, progress=lambda a, b: steps.append((a, b)))
    assert steps[0] == (0, 100)
    assert steps[-1] == (100, 100)
    assert steps == sorted(steps)
    assert result["bytes"] == out.stat().st_size
    assert result["summary"]["segments"] == 1
    json.dumps(result)
    with pytest.raises(InputError, match="is a folder"):
        network_flow(file, "car", tmp_path)


def test_command_tells_pieces_and_dangling_roads(tmp_path: Path) -> None:
    from qala.cli import app

    file = write_osm(tmp_path / "a.osm", PLACES, [([1, 2, 3, 4], ROAD), ([3, 6], ROAD)])
    net, layer = tmp_path / "roads.net", tmp_path / "roads.gpkg"
    arguments = ["--osm", file, "-o", net, "--layer", layer, "--lang", "ru"]
    done = CliRunner().invoke(app, ["network", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    for fact in (r"dangling segments +3", r"weak components +1", r"strong component +1\b"):
        assert re.search(fact, done.output), fact
    assert done.output.splitlines()[-2:] == [str(net), str(layer)]
    roads = gpd.read_file(layer, layer="network")
    assert roads["speed_kmh"].tolist() == [25.0] * 3
    assert {"network"} == set(gpd.read_file(layer, layer="layer_styles")["f_table_name"])


def test_names_of_other_kinds_are_refused(tmp_path: Path) -> None:
    file = write_osm(tmp_path / "a.osm", PLACES, [([1, 2, 3], ROAD)])
    with pytest.raises(InputError, match="2 problems"):
        network_flow(file, "car", tmp_path / "a.gpkg", layer=tmp_path / "a.shp")
    assert [p.name for p in tmp_path.iterdir()] == ["a.osm"]


# Other sources ------------------------------------------------------------------------------


def test_osmnx_graph_gives_the_same_network(tmp_path: Path) -> None:
    import osmnx

    ways = [
        ([1, 2, 3], {**ROAD, "maxspeed": "KZ:urban"}),
        ([3, 4, 5], {"highway": "primary", "oneway": "yes"}),
        ([3, 6], {**ROAD, "oneway": "-1"}),
    ]
    file = write_osm(tmp_path / "a.osm", PLACES, ways)
    network = read_network(file)
    for simplify in (False, True):
        graph = osmnx.graph_from_xml(file, simplify=simplify, retain_all=True)
        converted = network_from_osmnx(graph)
        assert arcs(converted) == arcs(network)
        assert np.sort(converted.seconds) == pytest.approx(np.sort(network.seconds), rel=1e-5)
        assert converted.metadata["notice"] == OSM_NOTICE


def test_live_query(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import osmnx
    import requests

    file = write_osm(tmp_path / "a.osm", PLACES, [([1, 2, 3], {**ROAD, "surface": "mud"})])
    asked = []

    def answer(bbox: Any, **options: Any) -> Any:
        asked.append((bbox, options["network_type"]))
        return osmnx.graph_from_xml(file, simplify=options["simplify"], retain_all=True)

    before = list(osmnx.settings.useful_tags_way)
    monkeypatch.setattr(osmnx, "graph_from_bbox", answer)
    network = query_network((68, 43, 69, 44), mode="car")
    assert asked == [((68.0, 43.0, 69.0, 44.0), "all")]
    # the surface is among the tags that were asked for
    assert network_layers(network)["speed_kmh"].tolist() == [10.0]
    assert osmnx.settings.useful_tags_way == before

    def refuse(*_: Any, **__: Any) -> None:
        raise requests.exceptions.ConnectionError("no route")

    monkeypatch.setattr(osmnx, "graph_from_bbox", refuse)
    with pytest.raises(TemporaryError, match="could not be asked"):
        query_network((68, 43, 69, 44))
    assert osmnx.settings.useful_tags_way == before


def test_osmnx_graph_without_edges() -> None:
    graph = nx.MultiDiGraph(crs="EPSG:4326")
    graph.add_node(1, x=0, y=0)
    with pytest.raises(InputError, match="no edges"):
        network_from_osmnx(graph)


def test_lines_that_are_none() -> None:
    points = gpd.GeoDataFrame({"name": ["a"]}, geometry=[shapely.Point(1, 2)])
    with pytest.raises(InputError, match="3 problems"):
        network_from_lines(points)
    lines = gpd.GeoDataFrame(
        {"highway": ["river"]}, geometry=[shapely.LineString([(1, 2), (3, 4)])], crs="EPSG:4326"
    )
    with pytest.raises(InputError, match="none a car can use"):
        network_from_lines(lines)
