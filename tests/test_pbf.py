"""Our own reader of PBF against osmium, and against files that are odd or damaged."""

from __future__ import annotations

import bz2
import contextlib
import lzma
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import osmium
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qala import network, pbf
from qala.errors import InputError, QalaError
from qala.network import read_network
from qala.speeds import KEYS

NOWHERE = -(2**31)


def roads_of(path: Path, threads: int | None = None) -> dict[str, Any]:
    """Read ways and barriers as plain Python values, every node of the ways placed."""
    with pbf.PbfFile(path, threads) as file:
        ways, _ = pbf.read_ways(file, file.blobs, KEYS, ("highway", "route"), lambda n: None)
        ids = np.unique(ways.refs)
        nodes, _ = pbf.place_nodes(file, file.blobs, ids, KEYS, ("barrier",), lambda n: None)
    at = np.column_stack([nodes.lon, nodes.lat]).tolist()
    places = {i: (x, y) for i, (x, y) in zip(ids.tolist(), at, strict=True)}
    return {
        "ways": [
            (ways.refs[a:b].tolist(), ways.tags[p])
            for a, b, p in zip(ways.ptr[:-1], ways.ptr[1:], ways.profile, strict=True)
        ],
        "places": {k: v for k, v in places.items() if NOWHERE not in v},
        "barriers": [
            (i, nodes.tags[p]) for i, p in zip(nodes.ids.tolist(), nodes.profile, strict=True)
        ],
    }


def by_osmium(path: Path) -> dict[str, Any]:
    """Do the same with osmium, object by object."""
    ways, places, barriers = [], {}, []
    for o in osmium.FileProcessor(str(path), osmium.osm.NODE | osmium.osm.WAY):
        tags = {t.k: t.v for t in o.tags if t.k in KEYS}
        if isinstance(o, osmium.osm.Way):
            if "highway" in tags or "route" in tags:
                ways.append(([n.ref for n in o.nodes], tags))
            continue
        if o.location.valid():
            places[o.id] = (o.location.x, o.location.y)
        if "barrier" in tags:
            barriers.append((o.id, tags))
    used = {ref for refs, _ in ways for ref in refs}
    return {
        "ways": ways,
        "places": {k: v for k, v in places.items() if k in used},
        "barriers": barriers,
    }


def same(path: Path, threads: int | None = None) -> None:
    mine, theirs = roads_of(path, threads), by_osmium(path)
    for key, value in theirs.items():
        assert mine[key] == value, key


# Real extracts ------------------------------------------------------------------------------


def test_zlib_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(256)) * 99
    packed_data = zlib.compress(data)
    assert pbf._zlib(packed_data, len(data)) == data
    monkeypatch.setattr(pbf, "_inflation", lambda: zlib)
    assert pbf._zlib(packed_data, len(data)) == data


@pytest.mark.parametrize("name", ["monaco_2021", "helsinki_centre_2019"])
def test_real_extracts_as_osmium_reads_them(reference: Path, name: str) -> None:
    same(reference / "osm" / f"{name}.osm.pbf")


@pytest.mark.parametrize("name", ["liechtenstein_2022", "monaco_2021", "helsinki_centre_2019"])
@pytest.mark.parametrize("mode", ["car", "foot"])
def test_both_paths_give_the_same_roads(reference: Path, name: str, mode: Any) -> None:
    path = reference / "osm" / f"{name}.osm.pbf"
    ours, counts, seen = network._read_pbf(path, mode, None)
    text, text_counts, text_seen = network._read_text(path, mode, None)
    assert (counts, seen) == (text_counts, text_seen)
    for field in ("ptr", "node", "lon", "lat", "blocked"):
        assert np.array_equal(getattr(ours, field), getattr(text, field)), field
    assert [ours.profiles[i] for i in ours.profile] == [text.profiles[i] for i in text.profile]


# Generated extracts -------------------------------------------------------------------------

WORDS = st.sampled_from(
    ["primary", "yes", "no", "-1", "RU:urban", "60 mph", "", "a=b,c", "Тұран көшесі", "x" * 300]
)
TAGS = st.dictionaries(
    st.sampled_from(["highway", "route", "maxspeed", "oneway", "barrier", "name", "building", "é"]),
    WORDS,
    max_size=5,
)
IDS = st.integers(-(2**40), 2**40)


@st.composite
def extracts(draw: st.DrawFn) -> tuple[dict[int, Any], list[Any]]:
    ids = draw(st.lists(IDS, min_size=1, max_size=30, unique=True))
    nodes = {i: (draw(st.floats(-180, 180)), draw(st.floats(-90, 90)), draw(TAGS)) for i in ids}
    refs = st.lists(st.sampled_from(ids) | IDS, max_size=12)
    return nodes, draw(st.lists(st.tuples(refs, TAGS), max_size=12))


def write(
    path: Path, nodes: dict[int, Any], ways: list[Any], options: str, order: str = "nodes first"
) -> Path:
    """Write an extract with osmium."""
    make = osmium.osm.mutable
    things = [
        lambda sink, i=i, n=n: sink.add_node(make.Node(id=i, location=n[:2], tags=n[2]))
        for i, n in nodes.items()
    ]
    lines = [
        lambda sink, i=i, w=w: sink.add_way(make.Way(id=i + 1, nodes=w[0], tags=w[1]))
        for i, w in enumerate(ways)
    ]
    if order == "ways first":
        things = [*lines, *things]
    elif order == "mixed":
        things = [f for pair in zip(lines, things, strict=False) for f in pair] + things[
            len(lines) :
        ] + lines[len(things) :]  # fmt: skip
    else:
        things += lines
    path.unlink(missing_ok=True)
    with osmium.SimpleWriter(osmium.io.File(str(path), f"pbf{options}")) as sink:
        for add in things:
            add(sink)
    return path


@pytest.mark.parametrize(
    "options", ["", ",pbf_dense_nodes=false", ",pbf_compression=none", ",add_metadata=false"]
)
@pytest.mark.parametrize("order", ["nodes first", "ways first", "mixed"])
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(found=extracts())
def test_generated_extracts(tmp_path: Path, options: str, order: str, found: Any) -> None:
    same(write(tmp_path / "a.osm.pbf", *found, options, order), 2)


def test_threads_do_not_change_the_result(reference: Path) -> None:
    path = reference / "osm" / "monaco_2021.osm.pbf"
    assert roads_of(path, 1) == roads_of(path, 5)


# A writer of odd files ----------------------------------------------------------------------


def number(value: int) -> bytes:
    value %= 2**64
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def zigzag(value: int) -> int:
    return (value << 1) ^ (value >> 63)


def deltas(values: Sequence[int]) -> bytes:
    steps = [b - a for a, b in zip([0, *values], values, strict=False)]
    return b"".join(number(zigzag(v)) for v in steps)


def message(*fields: tuple[int, int | bytes]) -> bytes:
    out = b""
    for key, value in fields:
        if isinstance(value, int):
            out += number(key << 3) + number(value)
        else:
            out += number(key << 3 | 2) + number(len(value)) + value
    return out


def packed(kind: str, data: bytes) -> bytes:
    if kind == "raw":
        return message((1, data))
    names: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
        "zlib": (3, zlib.compress),
        "lzma": (4, lzma.compress),
        "bzip2": (5, bz2.compress),
        "odd": (9, bytes),
    }
    key, pack = names[kind]
    return message((2, len(data)), (key, pack(data)))


def blob(data: bytes, name: bytes = b"OSMData", kind: str = "zlib") -> bytes:
    body = packed(kind, data)
    head = message((1, name), (3, len(body)))
    return len(head).to_bytes(4, "big") + head + body


def header(*required: bytes) -> bytes:
    fields = [(4, name) for name in required or (b"OsmSchema-V0.6", b"DenseNodes")]
    return blob(message(*fields), b"OSMHeader")


TEXTS = ["", "highway", "residential", "barrier", "bollard", "name", "A"]
TABLE = message(*((1, t.encode()) for t in TEXTS))
#: ids, longitudes and latitudes in 1e-7 degree
STREET = [5, 3, 9], [682000000, 682000100, 682000200], [433000000, 433000100, 433000000]


def dense(ids: Sequence[int], lon: Sequence[int], lat: Sequence[int], tags: bytes = b"") -> bytes:
    parts = [(1, deltas(ids)), (8, deltas(lat)), (9, deltas(lon))]
    return message((2, message(*parts, *([(10, tags)] if tags else []))))


def way(ref: Sequence[int], *more: tuple[int, bytes]) -> bytes:
    return message((3, message((1, 7), (2, number(1)), (3, number(2)), (8, deltas(ref)), *more)))


def block(*groups: bytes, scale: Sequence[tuple[int, int]] = ()) -> bytes:
    return message((1, TABLE), *((2, g) for g in groups), *scale)


def store(path: Path, *blobs: bytes) -> Path:
    path.write_bytes(b"".join(blobs))
    return path


#: tags of the second of three nodes: barrier=bollard
BOLLARD = number(0) + number(3) + number(4) + number(0) + number(0)


@pytest.mark.parametrize("kind", ["raw", "zlib", "lzma", "bzip2"])
def test_packings(tmp_path: Path, kind: str) -> None:
    nodes, ways = block(dense(*STREET, BOLLARD)), block(way([5, 3, 9]))
    path = store(tmp_path / "a.pbf", header(), blob(nodes, kind=kind), blob(ways, kind=kind))
    found = roads_of(path)
    assert found["ways"] == [([5, 3, 9], {"highway": "residential"})]
    assert found["places"] == dict(zip(STREET[0], zip(*STREET[1:], strict=True), strict=True))
    assert found["barriers"] == [(3, {"barrier": "bollard"})]
    # the bollard cuts the street in two
    assert read_network(path).island.max() == 1


def test_groups_of_several_kinds_in_one_block(tmp_path: Path) -> None:
    whole = block(way([5, 3]), dense(*STREET), way([3, 9]), message((4, message((1, 1)))))
    other = blob(b"anything", b"Extension")
    path = store(tmp_path / "a.pbf", header(), blob(whole), blob(block()))
    same(path)
    assert len(roads_of(path)["ways"]) == 2
    # blobs of unknown types are to be passed over, which osmium does not
    more = store(tmp_path / "b.pbf", header(), other, blob(whole), blob(block()), other)
    assert roads_of(more) == roads_of(path)
    assert read_network(more).metres.size == 1


@pytest.mark.parametrize(
    ("granularity", "offset"), [(1000, 0), (1, 0), (100, 123456789), (7, -999), (10**6, 5 * 10**8)]
)
def test_scale_of_coordinates(tmp_path: Path, granularity: int, offset: int) -> None:
    nano = 68_200_000_000
    stored = [(nano - offset) // granularity + k for k in (0, 1, 500)]
    scale = [(17, granularity), (19, offset), (20, offset)]
    nodes = block(dense([1, 2, 3], stored, stored, b""), scale=scale)
    path = store(tmp_path / "a.pbf", header(), blob(nodes), blob(block(way([1, 2, 3]))))
    same(path)
    degrees = [(v * granularity + offset) * 1e-9 for v in stored]
    found = roads_of(path)["places"]
    assert [found[i][0] * 1e-7 for i in (1, 2, 3)] == pytest.approx(degrees, abs=1e-7)


def test_places_that_are_none_on_earth(tmp_path: Path) -> None:
    lon = [1_900_000_000, 2**62, 682000000, 682000100]
    nodes = block(dense([1, 2, 3, 4], lon, [433000000] * 4))
    path = store(tmp_path / "a.pbf", header(), blob(nodes), blob(block(way([1, 2, 3, 4]))))
    assert set(roads_of(path)["places"]) == {3, 4}
    made = read_network(path)
    assert made.metadata["left out or not understood"]["vertices without coordinates"] == 2
    assert made.metres.size == 1


def test_places_on_ways(reference: Path, tmp_path: Path) -> None:
    source = reference / "osm" / "monaco_2021.osm.pbf"
    path = tmp_path / "located.osm.pbf"
    places = osmium.NodeLocationsForWays(osmium.index.create_map("flex_mem"))
    with osmium.SimpleWriter(osmium.io.File(str(path), "pbf,locations_on_ways=true")) as sink:
        for o in osmium.FileProcessor(str(source)).with_filter(places):
            # as `osmium add-locations-to-ways` does, only tagged nodes stay
            if not isinstance(o, osmium.osm.Node) or len(o.tags):
                sink.add(o)
    plain, located = read_network(source), read_network(path)
    for name in ("lon", "lat", "metres", "forward", "backward", "geometry_lon"):
        assert np.array_equal(getattr(located, name), getattr(plain, name), equal_nan=True), name


def test_blobs_out_of_order_are_found(tmp_path: Path) -> None:
    """Neither a flag nor the order of blobs is trusted."""
    nodes = [blob(block(dense([i], [682000000 + i * 1000], [433000000]))) for i in range(1, 9)]
    ways = [blob(block(way([i, i + 1]))) for i in range(1, 8)]
    orders = ([*nodes, *ways], [*ways, *nodes], [ways[0], *nodes, *ways[1:]],
              [*nodes[:5], *ways, *nodes[5:]])  # fmt: skip
    lengths = {
        round(float(read_network(store(tmp_path / "a.pbf", header(), *order)).metres.sum()), 3)
        for order in orders
    }
    assert len(lengths) == 1


# Damage -------------------------------------------------------------------------------------

GOOD = (header(), blob(block(dense(*STREET, BOLLARD))), blob(block(way([5, 3, 9]))))


@pytest.mark.parametrize(
    ("blobs", "words"),
    [
        ((header(b"HistoricalInformation"),), "history of its objects.*time-filter"),
        ((header(b"OsmSchema-V0.6", b"Magic-2"),), "requires Magic-2"),
        ((blob(b"", b"OSMData"),), "begins with 'OSMData'"),
        ((GOOD[0], blob(block(), kind="odd")), "packing numbered 9.*blob 1, which starts at byte"),
        ((GOOD[0], blob(b"\x0a\xff")), "blob 1"),
        ((GOOD[0], blob(block(message((3, b"\x12\x01\x63\x1a\x01\x02"))))), "names a text"),
        ((GOOD[0], blob(block(dense([1, 2], [1], [1, 2])))), "another number of nodes"),
        ((GOOD[0], blob(block(dense([1, 2], [1, 2], [1, 2], b"\x00")))), "another number of nodes"),
        ((GOOD[0], blob(block(way([1]) + dense(*STREET)))), "holds something else"),
        ((GOOD[0], blob(block(scale=[(17, 0)]))), "granularity"),
        ((GOOD[0], blob(block(scale=[(19, 2**60)]))), "offset"),
        ((GOOD[0], bytes(40)), "header of 0 bytes"),
        ((GOOD[0], (2**20).to_bytes(4, "big") + bytes(40)), "header of 1,048,576 bytes"),
        ((GOOD[0], message((1, b"OSMData"))), "truncated"),
    ],
)
def test_damaged_files_are_told(tmp_path: Path, blobs: Sequence[bytes], words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_network(store(tmp_path / "a.osm.pbf", *blobs))


@pytest.mark.parametrize("library", ["isal", "zlib"])
def test_a_bomb_is_not_inflated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    if library == "zlib":
        monkeypatch.setattr(pbf, "_inflation", lambda: zlib)
    body = message((2, 100), (3, zlib.compress(bytes(50_000_000))))
    head = message((1, b"OSMData"), (3, len(body)))
    bomb = len(head).to_bytes(4, "big") + head + body
    with pytest.raises(InputError, match="longer than told"):
        read_network(store(tmp_path / "a.pbf", GOOD[0], bomb))
    body = message((2, 2**40), (3, b""))
    head = message((1, b"OSMData"), (3, len(body)))
    with pytest.raises(InputError, match="at most"):
        read_network(store(tmp_path / "a.pbf", GOOD[0], len(head).to_bytes(4, "big") + head + body))


def test_checksum_of_zlib_is_looked_at(tmp_path: Path) -> None:
    data = zlib.compress(block(way([1, 2])))
    body = message((2, len(zlib.decompress(data))), (3, data[:-1] + bytes([data[-1] ^ 1])))
    head = message((1, b"OSMData"), (3, len(body)))
    path = store(tmp_path / "a.pbf", GOOD[0], len(head).to_bytes(4, "big") + head + body)
    with pytest.raises(InputError, match="zlib data that cannot be unpacked"):
        read_network(path)


def test_missing_unpacker_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(data: bytes, size: int) -> bytes:
        raise ModuleNotFoundError("no", name="zstandard")

    monkeypatch.setitem(pbf._UNPACK, 9, ("zstd", absent))
    path = store(tmp_path / "a.pbf", GOOD[0], blob(block(), kind="odd"))
    with pytest.raises(InputError, match=r"packed with zstd.*pip install zstandard"):
        read_network(path)


def test_every_truncation_is_an_error(tmp_path: Path) -> None:
    whole = b"".join(GOOD)
    edges = {0, len(GOOD[0]), len(GOOD[0]) + len(GOOD[1])}
    for size in range(1, len(whole)):
        path = store(tmp_path / "a.osm.pbf", whole[:size])
        words = "truncated" if size not in edges else "no way with a highway"
        with pytest.raises(InputError, match=words):
            read_network(path)


def test_truncated_real_extract_names_the_byte(reference: Path, tmp_path: Path) -> None:
    data = (reference / "osm" / "monaco_2021.osm.pbf").read_bytes()
    path = store(tmp_path / "a.osm.pbf", data[: len(data) * 2 // 3])
    with pytest.raises(InputError, match=r"ends at byte 305,\d+ inside blob \d+.*checksum"):
        read_network(path)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(at=st.integers(0, 10**6), flip=st.integers(1, 255), more=st.integers(0, 3))
def test_flipped_bytes_never_crash(tmp_path: Path, at: int, flip: int, more: int) -> None:
    """Unpacked data has no checksum: every damage reaches the kernels."""
    blobs = [
        header(),
        blob(block(dense(*STREET, BOLLARD)), kind="raw"),
        blob(block(message((1, message((1, 4), (2, number(3)), (3, number(4)), (8, 2), (9, 2))))),
             kind="raw"),
        blob(block(way([5, 3, 9], (9, deltas([1, 2, 3])), (10, deltas([1, 2, 3])))), kind="raw"),
    ]  # fmt: skip
    data = bytearray(b"".join(blobs))
    for k in range(more + 1):
        data[(at + k * 7919) % len(data)] ^= flip
    path = store(tmp_path / "a.osm.pbf", bytes(data))
    # sound or told, never another kind of failure
    with contextlib.suppress(QalaError):
        read_network(path)
