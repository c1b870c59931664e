"""Road networks: an OpenStreetMap extract as a routable graph of a mode, with times in seconds.

Roads are read from PBF by :mod:`qala.pbf`, from XML by osmium, cut at junctions, joined where a
road simply goes on, and kept as plain arrays. The graph is free of turn costs: a node may be left
by any open arc.
"""

from __future__ import annotations

import importlib
import json
import logging
import re
import tempfile
import time as clock
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from qala import pbf
from qala.compute import usable_cores
from qala.errors import InputError, Problems, TemporaryError, storage_error
from qala.files import replacing
from qala.grid import GHSL_CRS
from qala.pbf import is_pbf
from qala.raster import require_writable
from qala.speeds import CLASSES, KEYS, Mode, Profile, node_blocks, require_mode, way_profile

if TYPE_CHECKING:
    import geopandas as gpd
    import networkx as nx

log = logging.getLogger("qala")

OSM_NOTICE = "© OpenStreetMap contributors, ODbL 1.0"
FORMAT = "qala-network"
#: raised when the arrays of a saved network change their meaning
FORMAT_VERSION = 1
#: a second network with at least this share of all length is told to the user; smaller ones
#: are the tracks and yards at the edge of every extract
SEPARATE_SHARE = 0.02

Progress = Callable[[int, int], None]
Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.floating[Any]]
Bounds = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Network:
    """A directed road graph of one mode, contracted between junctions.

    Segments are pieces of road between two nodes; arcs are the directions in which they are
    open. Arrays are read-only.

    Attributes
    ----------
    lon, lat
        (nodes,) float64, degrees WGS 84.
    x, y
        (nodes,) float64, in ``crs``.
    component
        (nodes,) int32, strongly connected component; 0 is the one with most road.
    island
        (nodes,) int32, weakly connected component; 0 is the one with most road.
    indptr, indices
        Compressed sparse rows of the arcs: int64 (nodes + 1,), int32 (arcs,).
    seconds
        (arcs,) float32.
    arc_segment
        (arcs,) int32: segment of an arc, -1 - segment where it runs against the drawing.
    from_node, to_node
        (segments,) int32.
    metres
        (segments,) float32, ellipsoidal length.
    forward, backward
        (segments,) float32 seconds along and against the drawing, NaN where closed.
    road
        (segments,) uint8 code in :data:`qala.speeds.CLASSES`.
    geometry_ptr
        (segments + 1,) int64 offsets of the vertices of each segment.
    geometry_lon, geometry_lat
        (vertices,) int32, 1e-7 degree.
    crs
        Projected CRS of x and y.
    mode
        ``car`` or ``foot``.
    metadata
        Source, counts, shares, warnings and notice.
    """

    lon: Floats
    lat: Floats
    x: Floats
    y: Floats
    component: Ints
    island: Ints
    indptr: Ints
    indices: Ints
    seconds: Floats
    arc_segment: Ints
    from_node: Ints
    to_node: Ints
    metres: Floats
    forward: Floats
    backward: Floats
    road: Ints
    geometry_ptr: Ints
    geometry_lon: Ints
    geometry_lat: Ints
    crs: str
    mode: Mode
    metadata: Mapping[str, Any]

    def __repr__(self) -> str:
        """Return sizes instead of arrays."""
        return (
            f"Network(mode={self.mode!r}, nodes={self.lon.size}, segments={self.metres.size}, "
            f"arcs={self.indices.size}, km={float(self.metres.sum(dtype='f8')) / 1000:.1f})"
        )

    @property
    def arc_metres(self) -> Floats:
        """(arcs,) length of each arc in metres."""
        return self.metres[self._segment_of_arc()]

    @property
    def arc_class(self) -> Ints:
        """(arcs,) class code of each arc."""
        return self.road[self._segment_of_arc()]

    def _segment_of_arc(self) -> Ints:
        return np.where(self.arc_segment < 0, -1 - self.arc_segment, self.arc_segment)


@dataclass(frozen=True, eq=False)
class _Ways:
    """Ways that the mode can use as ragged arrays, before they are cut.

    ``ptr`` (ways + 1,) offsets of the vertices, ``profile`` (ways,) into ``profiles``; of every
    vertex ``node`` (number of the node, -1 where its place is not known), ``lon``, ``lat``;
    ``blocked`` (nodes,) where a barrier stops the mode.
    """

    ptr: Ints
    profile: Ints
    node: Ints
    lon: Ints
    lat: Ints
    profiles: list[Profile | None]
    blocked: npt.NDArray[np.bool_]


def read_network(
    osm: str | Path,
    *,
    mode: str = "car",
    bbox: Bounds | None = None,
    crs: str = GHSL_CRS,
    progress: Progress | None = None,
) -> Network:
    """Read an OpenStreetMap extract as a routable graph.

    Parameters
    ----------
    osm
        PBF, or OSM XML (also gzipped or bzip2).
    mode
        ``car`` or ``foot``; see :mod:`qala.speeds` for classes, access and speeds.
    bbox
        ``(west, south, east, north)`` in degrees; roads are cut where they leave it.
    crs
        Projected CRS of the metric coordinates.
    progress
        Called with the hundredths done and 100.

    Returns
    -------
    Network
        With everything left out or not understood counted in ``metadata``.

    Raises
    ------
    InputError
        When the file is missing, truncated or not OpenStreetMap data, holds no road the
        mode can use, none in the bbox, or no coordinates.
    """
    travel = require_mode(mode)
    path = _require_osm(osm)
    box = _require_bbox(bbox)
    _require_projected(crs)
    started = clock.perf_counter()
    _tell(progress, 0, _STEPS)
    ways, counts, seen = (_read_pbf if is_pbf(path) else _read_text)(path, travel, progress)
    missing, total = int(np.count_nonzero(ways.node < 0)), ways.node.size
    if seen["ways with a highway or route tag"] == 0:
        raise InputError(
            f"{path} holds no way with a highway or route tag",
            "an extract with roads",
            "check how it was made; extracts of buildings or boundaries hold none",
        )
    if not ways.profile.size:
        raise InputError(
            f"{path} holds {seen['ways with a highway or route tag']} ways with a highway or "
            f"route tag but none a {travel} can use",
            f"roads open to mode {travel}",
            "choose another --mode or a wider extract",
        )
    if total and missing == total:
        raise InputError(
            f"none of the {total} vertices of ways in {path} has coordinates",
            "the nodes of all ways" + ("" if is_pbf(path) else " with non-negative ids"),
            "make the extract with complete ways (osmium extract --strategy complete_ways); "
            "give new objects positive ids with osmium renumber",
        )
    ways, outside = _cut_to(ways, box)
    counts["vertices without coordinates"] = missing
    counts["vertices outside the bbox"] = outside
    network = _build(ways, travel, crs, str(path.name), counts, seen, box)
    _warn(network, path)
    network.metadata["summary"]["build_seconds"] = round(clock.perf_counter() - started, 3)
    _tell(progress, _STEPS, _STEPS)
    return network


def routing_kernels() -> Any:
    """Return the module of compiled kernels; importing it loads numba, so not before need."""
    return importlib.import_module("qala._routing")


def _tell(progress: Progress | None, done: int, total: int) -> None:
    if progress:
        progress(done, total)


def _require_osm(osm: str | Path) -> Path:
    path = Path(osm)
    expected, remedy = "an OpenStreetMap extract (.osm.pbf, .osm, .osm.gz)", "check the path"
    if not path.exists():
        raise InputError(f"{path} does not exist", expected, remedy)
    if path.is_dir():
        raise InputError(f"{path} is a folder", expected, "name the file in it")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes)", expected, "fetch it again")
    return path


def _require_bbox(bbox: Bounds | None) -> Bounds | None:
    if bbox is None:
        return None
    west, south, east, north = (float(v) for v in bbox)
    if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
        raise InputError(
            f"bbox is {bbox}", "west < east and south < north in degrees", "correct the order"
        )
    return west, south, east, north


def _require_projected(crs: str) -> None:
    import pyproj

    try:
        found = pyproj.CRS.from_user_input(crs)
    except pyproj.exceptions.CRSError as error:
        raise InputError(
            f"crs {crs!r} is not known", f"a projected CRS such as {GHSL_CRS}"
        ) from error
    if not found.is_projected or found.axis_info[0].unit_name not in ("metre", "meter"):
        raise InputError(f"crs {crs} is not in metres", f"a projected CRS such as {GHSL_CRS}")


_NOWHERE = np.int32(-(2**31))


#: progress is told in hundredths; reading ends at the second number, the rest is building
_STEPS, _READ = 100, 80


def _read_pbf(
    path: Path, mode: Mode, progress: Progress | None
) -> tuple[_Ways, Counter[str], dict[str, int]]:
    """Read the roads of a PBF file: the ways, then the places of the nodes they use."""
    with pbf.PbfFile(path) as file:
        blobs = file.blobs

        def told(before: int) -> Callable[[int], None]:
            def tell(done: int) -> None:
                _tell(progress, min(_READ * (before + done) // max(len(blobs), 1), _READ), _STEPS)

            return tell

        first = pbf.first_ways(file)
        while True:
            found, mixed = pbf.read_ways(file, blobs[first:], KEYS, _ROADS, told(0))
            profiles, counts = _profiles(found.tags, found.profile, mode)
            ptr, profile, kept = _usable(found.ptr, found.profile, profiles)
            refs = found.refs[kept]
            ids, node = _numbered(refs)
            nodes, unsorted = pbf.place_nodes(
                file,
                [*blobs[:first], *mixed],
                ids,
                KEYS,
                _BARRIERS,
                told(len(blobs) - first),
            )
            if not unsorted or first == 0:
                break
            # ways lie before the place where sorted files begin them: all blobs are read again
            log.info("%s is not sorted by kind and is read twice", path)
            first = 0
    lon, lat = nodes.lon[node], nodes.lat[node]
    # places that ways carry themselves count where the file leaves their nodes out
    own = lon == _NOWHERE
    lon[own], lat[own] = found.lon[kept][own], found.lat[kept][own]
    node[lon == _NOWHERE] = -1
    blocked = _blocked(ids, nodes.ids, nodes.profile, nodes.tags, mode)
    seen = {
        "ways with a highway or route tag": int(found.profile.size),
        "barriers": int(nodes.ids.size),
    }
    return _Ways(ptr, profile, node, lon, lat, profiles, blocked), counts, seen


#: keys that make a way or a node worth reading
_ROADS, _BARRIERS = ("highway", "route"), ("barrier",)


def _read_text(
    path: Path, mode: Mode, progress: Progress | None
) -> tuple[_Ways, Counter[str], dict[str, int]]:
    """Read the roads of another format: filtered by osmium in C++, then what is left.

    osmium writes the roads, with places, as lines of text; a way seen from Python node by
    node would cost several times the whole scan.
    """
    with tempfile.TemporaryDirectory(prefix="qala-") as folder:
        text = Path(folder) / "roads.opl"
        _filter(path, text)
        _tell(progress, _READ // 2, _STEPS)
        scan = _read_opl(text)
        # files with ways before nodes are read once more, nodes first
        if (scan.lon == _NOWHERE).any():
            _filter(path, text, nodes_first=True)
            scan = _read_opl(text)
    _tell(progress, _READ, _STEPS)
    profiles, counts = _profiles(scan.tags, scan.profile[scan.profile >= 0], mode)
    ptr, profile, kept = _usable(scan.ptr, scan.profile, profiles)
    refs, lon, lat = scan.refs[kept], scan.lon[kept], scan.lat[kept]
    ids, node = _numbered(refs)
    beyond = (np.abs(lon.astype(np.int64)) > 1_800_000_000) | (
        np.abs(lat.astype(np.int64)) > 900_000_000
    )
    lon[beyond] = lat[beyond] = _NOWHERE
    node[beyond] = -1
    blocked = _blocked(ids, scan.node_id, scan.node_profile, scan.tags, mode)
    seen = {
        "ways with a highway or route tag": int(scan.profile.size),
        "barriers": int(scan.node_id.size),
    }
    return _Ways(ptr, profile, node, lon, lat, profiles, blocked), counts, seen


def _profiles(
    tags: Sequence[Mapping[str, str]], used: Ints, mode: Mode
) -> tuple[list[Profile | None], Counter[str]]:
    """Read each combination of tags once, and count by the ways that carry it."""
    uses = np.bincount(used, minlength=len(tags)).tolist()
    counts: Counter[str] = Counter()
    profiles: list[Profile | None] = []
    for combination, number in zip(tags, uses, strict=True):
        notes: Counter[str] = Counter()
        profiles.append(way_profile(combination, mode, notes) if number else None)
        for reason, times in notes.items():
            counts[reason] += times * number
    return profiles, counts


def _usable(
    ptr: Ints, profile: Ints, profiles: Sequence[Profile | None]
) -> tuple[Ints, Ints, npt.NDArray[np.bool_]]:
    """Leave out the ways the mode cannot use; tell also which vertices stay."""
    keep = np.array([p is not None for p in profiles] + [False])[profile]
    lengths = np.diff(ptr)
    left = np.concatenate(([0], np.cumsum(lengths[keep]))).astype(np.int64)
    return left, profile[keep], np.repeat(keep, lengths)


def _numbered(refs: Ints) -> tuple[Ints, Ints]:
    """Return the sorted distinct values, and the place of every value among them (int32)."""
    order = np.argsort(refs)
    ordered = refs[order]
    new = np.ones(refs.size, bool)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    number = np.empty(refs.size, np.int32)
    number[order] = np.cumsum(new, dtype=np.int32) - 1
    return ordered[new], number


def _blocked(
    ids: Ints, barriers: Ints, profile: Ints, tags: Sequence[Mapping[str, str]], mode: Mode
) -> npt.NDArray[np.bool_]:
    """Tell which of the nodes carry a barrier that stops the mode."""
    stops = np.array([node_blocks(combination, mode) for combination in tags] + [False])
    found = np.zeros(ids.size, bool)
    mine = barriers[stops[profile]]
    at = np.minimum(np.searchsorted(ids, mine), max(ids.size - 1, 0))
    if ids.size:
        found[at[ids[at] == mine]] = True
    return found


@dataclass(frozen=True, eq=False)
class _Scan:
    """What a text holds of ways and barriers; tags as text, once per combination."""

    ptr: Ints
    profile: Ints
    refs: Ints
    lon: Ints
    lat: Ints
    node_id: Ints
    node_profile: Ints
    tags: list[dict[str, str]]


def _filter(path: Path, text: Path, *, nodes_first: bool = False) -> None:
    import osmium

    node, way = osmium.osm.NODE, osmium.osm.WAY
    places = osmium.NodeLocationsForWays(osmium.index.create_map("flex_mem"))
    places.ignore_errors()
    roads = osmium.filter.KeyFilter("highway", "route").enable_for(way)
    barriers = osmium.filter.KeyFilter("barrier").enable_for(node)
    file = osmium.io.File(str(text), "opl,add_metadata=false,locations_on_ways=true")
    try:
        if nodes_first:
            osmium.apply(osmium.io.Reader(str(path), node), places)
        reader = osmium.io.Reader(str(path), node | way)
        with osmium.SimpleWriter(file, overwrite=True) as sink:
            osmium.apply(reader, places, roads, barriers, sink)
        reader.close()
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as OpenStreetMap data ({error})",
            "a complete .osm.pbf or .osm file",
            "fetch it again and compare its checksum; it may be truncated",
        ) from error
    except OSError as error:
        raise InputError(
            f"the roads of {path} could not be written to {text.parent} ({error})",
            "about twice the size of the extract free",
            "set TMPDIR to a folder with room",
        ) from error


def _read_opl(text: Path) -> _Scan:
    size = text.stat().st_size
    buffer = np.memmap(text, np.uint8, "r").view(np.ndarray) if size else np.empty(0, np.uint8)
    kernels = routing_kernels()
    hashes = np.sort(np.array([kernels.fnv(key) for key in KEYS], np.uint64))
    edges = _line_starts(buffer, usable_cores())
    with ThreadPoolExecutor(len(edges) - 1) as pool:
        parts = list(
            pool.map(lambda ab: kernels.scan_opl(buffer[ab[0] : ab[1]], hashes), pairwise(edges))
        )
    tags = [
        _tags(buffer[at + a : at + b].tobytes().decode("utf-8", "replace"))
        for at, part in zip(edges[:-1], parts, strict=True)
        for a, b in zip(part[7].tolist(), part[8].tolist(), strict=True)
    ]
    # the parts number their vertices and profiles from 0
    vertices = np.cumsum([0] + [part[2].size for part in parts])
    profiles = np.cumsum([0] + [part[7].size for part in parts])
    shift = {0: vertices, 1: profiles, 6: profiles}
    joined = []
    for k in range(7):
        pieces = [part[k][1 if k == 0 else 0 :] for part in parts]
        if k in shift:
            pieces = [
                np.where(v >= 0, v + int(d), v) for v, d in zip(pieces, shift[k], strict=False)
            ]
        joined.append(np.concatenate([np.zeros(1, np.int64), *pieces] if k == 0 else pieces))
    ptr, profile, refs, lon, lat, node_id, node_profile = joined
    return _Scan(ptr, profile, refs, lon, lat, node_id, node_profile, tags)


def _line_starts(buffer: Ints, parts: int) -> list[int]:
    """Divide a text into parts of about the same length at the starts of lines."""
    starts = [0]
    for k in range(1, parts):
        at = max(buffer.size * k // parts, starts[-1])
        while at < buffer.size and buffer[at - 1] != ord("\n"):
            at += 1
        if starts[-1] < at < buffer.size:
            starts.append(at)
    return [*starts, int(buffer.size)]


_ESCAPE = re.compile(r"%([0-9a-fA-F]+)%")
_KEPT = frozenset(KEYS)


def _tags(text: str) -> dict[str, str]:
    """Read the tags that matter from OPL's ``key=value,key=value``."""
    found = {}
    for item in text.split(","):
        key, _, value = item.partition("=")
        if key in _KEPT or "%" in key:
            found[_plain(key)] = _plain(value)
    return found


def _plain(text: str) -> str:
    return _ESCAPE.sub(lambda m: chr(int(m[1], 16)), text) if "%" in text else text


def _cut_to(ways: _Ways, box: Bounds | None) -> tuple[_Ways, int]:
    """Take away the vertices outside the box; roads end there."""
    if box is None:
        return ways, 0
    west, south, east, north = (round(v * 1e7) for v in box)
    known = ways.node >= 0
    inside = (ways.lon >= west) & (ways.lon <= east) & (ways.lat >= south) & (ways.lat <= north)
    if not (inside & known).any():
        corners = [f(v[known]) / 1e7 for f in (np.min, np.max) for v in (ways.lon, ways.lat)]
        at = "the roads lie in " + ", ".join(f"{v:.3f}" for v in corners)
        raise InputError(
            f"no road lies in the bbox {box}", "west, south, east, north in degrees", at
        )
    node = np.where(inside, ways.node, -1).astype(np.int32)
    return replace(ways, node=node), int(np.count_nonzero(known & ~inside))


def _build(
    ways: _Ways,
    mode: Mode,
    crs: str,
    source: str,
    counts: Counter[str],
    seen: dict[str, int],
    box: Bounds | None,
    notice: str = OSM_NOTICE,
) -> Network:
    """Cut ways at junctions, join what goes on, and make the graph."""
    kernels = routing_kernels()
    table = [p or Profile(0, 0.0, 0.0) for p in ways.profiles]
    road = np.array([p.road for p in table] + [0], np.uint8)[ways.profile]
    forward = np.array([p.forward for p in table] + [0.0])[ways.profile]
    backward = np.array([p.backward for p in table] + [0.0])[ways.profile]
    duration = np.array([p.duration for p in table] + [0.0])[ways.profile]
    count = kernels.count_uses(ways.ptr, ways.node, ways.blocked.size)
    first, last, a, b, way, metres, nodes = kernels.cut_ways(
        ways.ptr, ways.node, count, ways.blocked, ways.lon, ways.lat
    )
    if not first.size:
        raise InputError(
            f"{source} holds {ways.profile.size} usable ways but no piece of road with two "
            "known ends",
            "ways with the coordinates of their nodes",
            "make the extract with complete ways (osmium extract --strategy complete_ways)",
        )
    timed = duration > 0
    if timed.any():
        # a ferry's crossing takes what its timetable tells
        length = np.bincount(way, metres, minlength=ways.profile.size)
        kmh = np.where(timed, length * 3.6 / np.maximum(duration, 1.0), 0.0)
        forward = np.where(timed & (kmh > 0) & (forward > 0), kmh, forward)
        backward = np.where(timed & (kmh > 0) & (backward > 0), kmh, backward)
    lon, lat, a, b, metres, road, forward, backward, ptr, glon, glat = kernels.merge_chains(
        first, last, a, b, nodes, metres, road[way], forward[way], backward[way], ways.lon, ways.lat
    )
    with np.errstate(divide="ignore"):
        ahead = np.where(forward > 0, metres * 3.6 / forward, np.nan)
        back = np.where(backward > 0, metres * 3.6 / backward, np.nan)
    parts = {
        "lon": lon,
        "lat": lat,
        "from_node": a,
        "to_node": b,
        "metres": metres.astype(np.float32),
        "forward": ahead.astype(np.float32),
        "backward": back.astype(np.float32),
        "road": road,
        "geometry_ptr": ptr,
        "geometry_lon": glon,
        "geometry_lat": glat,
    }
    summary: dict[str, Any] = {
        **seen,
        "ways used": int(ways.profile.size),
        "barriers that block": int(ways.blocked.sum()),
    }
    metadata = {
        "source": source,
        "bbox": list(box) if box else None,
        "notice": notice,
        "summary": summary,
        "left out or not understood": {k: int(v) for k, v in sorted(counts.items()) if v},
    }
    return _assemble(parts, mode, crs, metadata)


def _assemble(
    parts: dict[str, npt.NDArray[Any]], mode: Mode, crs: str, metadata: dict[str, Any]
) -> Network:
    """Add arcs, components and metric coordinates to segments."""
    import pyproj

    nodes = parts["lon"].size
    indptr, indices, seconds, arc_segment = routing_kernels().arcs_csr(
        nodes, parts["from_node"], parts["to_node"], parts["forward"], parts["backward"], False
    )
    if "component" not in parts:
        parts["component"], parts["island"] = _components(parts, indptr, indices)
        metadata["summary"].update(_connectivity(parts))
    to_metric = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    if "x" not in parts:
        parts["x"], parts["y"] = (
            np.asarray(v) for v in to_metric.transform(parts["lon"], parts["lat"])
        )
    metadata["crs"], metadata["mode"] = crs, mode
    arrays = {
        **parts,
        "indptr": indptr,
        "indices": indices,
        "seconds": seconds,
        "arc_segment": arc_segment,
    }
    for array in arrays.values():
        array.flags.writeable = False
    return Network(**arrays, crs=crs, mode=mode, metadata=MappingProxyType(metadata))


def _components(
    parts: dict[str, npt.NDArray[Any]], indptr: Ints, indices: Ints
) -> tuple[Ints, Ints]:
    """Label strongly and weakly connected components, 0 the one with most road."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    nodes = indptr.size - 1
    start = np.repeat(np.arange(nodes, dtype=indices.dtype), np.diff(indptr))
    # two ways between the same nodes become one: SciPy never ends over an arc that is there twice
    graph = coo_array((np.ones(indices.size), (start, indices)), (nodes, nodes)).tocsr()
    results = []
    for kind in ("strong", "weak"):
        number, label = connected_components(graph, directed=True, connection=kind)
        a, b = label[parts["from_node"]], label[parts["to_node"]]
        length = np.bincount(a, np.where(a == b, parts["metres"], 0.0), minlength=number)
        rank = np.empty(number, np.int32)
        rank[np.argsort(-length, kind="stable")] = np.arange(number, dtype=np.int32)
        results.append(rank[label])
    return results[0], results[1]


def _connectivity(parts: dict[str, npt.NDArray[Any]]) -> dict[str, Any]:
    """Count components, dead ends and their length."""
    a, b, metres = parts["from_node"], parts["to_node"], parts["metres"].astype(np.float64)
    nodes, total = parts["lon"].size, float(metres.sum())
    degree = np.bincount(a, minlength=nodes) + np.bincount(b, minlength=nodes)
    dangling = (degree[a] == 1) | (degree[b] == 1)
    strong, weak = parts["component"], parts["island"]
    in_strong = (strong[a] == 0) & (strong[b] == 0)
    by_island = np.bincount(weak[a], metres)
    open_arcs = int((~np.isnan(parts["forward"])).sum() + (~np.isnan(parts["backward"])).sum())
    return {
        "nodes": int(nodes),
        "segments": int(a.size),
        "arcs": open_arcs,
        "kilometres": round(total / 1000, 3),
        "strong components": int(strong.max()) + 1,
        "share of length in the largest strong component": _share(metres[in_strong].sum(), total),
        "weak components": int(weak.max()) + 1,
        "share of length in the largest weak component": _share(by_island[0], total),
        "kilometres of the largest weak components": [
            round(float(v) / 1000, 3) for v in by_island[:5] if v > 0
        ],
        "dangling segments": int(dangling.sum()),
        "kilometres of dangling segments": round(float(metres[dangling].sum()) / 1000, 3),
    }


def _share(part: float, total: float) -> float:
    return round(float(part) / total, 6) if total > 0 else 0.0


def _warn(network: Network, path: Path | str) -> None:
    """Say what a user would want to know before using the network."""
    summary, left = network.metadata["summary"], network.metadata["left out or not understood"]
    warnings = []
    pieces = summary["kilometres of the largest weak components"]
    if len(pieces) > 1 and pieces[1] >= SEPARATE_SHARE * summary["kilometres"]:
        lengths = ", ".join(f"{v:.1f} km" for v in pieces)
        warnings.append(
            f"{summary['weak components']} networks not connected with each other, the largest "
            f"{lengths}; there is no way from one to another"
        )
    if left.get("vertices without coordinates"):
        warnings.append(
            f"{left['vertices without coordinates']} vertices of ways have no coordinates; "
            "roads end there"
        )
    if left.get("maxspeed not understood"):
        warnings.append(
            f"maxspeed of {left['maxspeed not understood']} ways was not understood; "
            "they go by class"
        )
    network.metadata["summary"]["warnings"] = warnings
    for text in warnings:
        log.warning("%s: %s", path, text)


def network_from_lines(
    lines: gpd.GeoDataFrame,
    *,
    mode: str = "car",
    crs: str = GHSL_CRS,
    source: str = "lines",
    notice: str = "",
) -> Network:
    """Make a network from road lines, for instance a national road layer.

    Lines join where they share a vertex, to 1e-7 degree.

    Parameters
    ----------
    lines
        Lines with a CRS; columns named as OpenStreetMap tags (``highway``, ``maxspeed``,
        ``oneway``, ``surface``, ``access`` …), missing values empty.
    mode
        ``car`` or ``foot``.
    crs
        Projected CRS of the metric coordinates.
    source, notice
        Where the lines come from and how they are to be credited.

    Raises
    ------
    InputError
        When there is no CRS, no ``highway`` column, other geometries than lines, or no usable road.
    """
    import shapely

    travel = require_mode(mode)
    _require_projected(crs)
    problems = Problems(source)
    if lines.crs is None:
        problems.add("the lines have no CRS", "a CRS", "assign it with set_crs")
    if "highway" not in lines.columns and "route" not in lines.columns:
        problems.add("the lines have no column highway", "the class of road as in OpenStreetMap")
    wrong = (
        lines.geometry.isna()
        | lines.geometry.is_empty
        | (~lines.geom_type.isin(["LineString", "MultiLineString"]))
    )
    if len(lines) == 0 or wrong.any():
        problems.add(
            f"{int(wrong.sum())} of {len(lines)} geometries are no lines", "lines", "filter them"
        )
    problems.raise_if_any()
    flat = lines.to_crs("EPSG:4326").explode(index_parts=False, ignore_index=True)
    geometry = np.asarray(flat.geometry.values)
    count = shapely.get_num_coordinates(geometry)
    at = np.round(shapely.get_coordinates(geometry) * 1e7).astype(np.int64)
    refs = (at[:, 0] << 32) ^ (at[:, 1] & 0xFFFFFFFF)
    present = [c for c in KEYS if c in flat.columns]
    codes, combinations = _combinations(flat[present])
    profiles, counts = _profiles(combinations, codes, travel)
    if not any(p is not None for p in profiles):
        raise InputError(
            f"{source} holds {len(flat)} lines but none a {travel} can use",
            f"roads open to mode {travel}",
            "check the values of highway and access",
        )
    ptr, profile, kept = _usable(
        np.concatenate(([0], np.cumsum(count))).astype(np.int64), codes.astype(np.int32), profiles
    )
    ids, node = _numbered(refs[kept])
    ways = _Ways(
        ptr,
        profile,
        node,
        at[kept, 0].astype(np.int32),
        at[kept, 1].astype(np.int32),
        profiles,
        np.zeros(ids.size, bool),
    )
    network = _build(ways, travel, crs, source, counts, {"lines": len(lines)}, None, notice)
    _warn(network, source)
    return network


def _combinations(table: Any) -> tuple[Ints, list[dict[str, str]]]:
    """Number the distinct rows of a table of tags; lists become ``a;b``, missing values go."""
    import pandas as pd

    text = pd.DataFrame({c: table[c].map(_tag_text) for c in table.columns})
    codes = text.groupby(list(text.columns), sort=False).ngroup().to_numpy()
    _, first = np.unique(codes, return_index=True)
    rows = text.iloc[first].to_dict("records")
    return codes, [{str(k): v for k, v in row.items() if v} for row in rows]


def _tag_text(value: Any) -> str:
    if isinstance(value, list | tuple | set):
        return ";".join(str(v) for v in value)
    if value is None or value is False or (isinstance(value, float) and np.isnan(value)):
        return ""
    if value is True:
        return "yes"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def network_from_osmnx(
    graph: nx.MultiDiGraph[Any], *, mode: str = "car", crs: str = GHSL_CRS
) -> Network:
    """Convert a graph of osmnx, for instance of a live query.

    Directions are those of the graph's edges; speeds are computed from the tags by the same
    tables as for extracts. Of several classes on a simplified edge the first counts, of
    several limits the lowest. Query with the tags that matter:
    ``osmnx.settings.useful_tags_way`` should hold :data:`qala.speeds.KEYS`.

    Parameters
    ----------
    graph
        From ``osmnx.graph_from_*``, simplified or not.
    mode
        ``car`` or ``foot``; should be that of the query (``drive``, ``walk``).
    crs
        Projected CRS of the metric coordinates.

    Raises
    ------
    InputError
        When the graph has no edges or its edges no highway.
    """
    import osmnx
    import pandas as pd

    if graph.number_of_edges() == 0:
        raise InputError("the graph has no edges", "a graph with roads", "widen the query")
    edges = osmnx.convert.graph_to_gdfs(graph, nodes=False, fill_edge_geometry=True)
    edges = edges.to_crs("EPSG:4326").reset_index()
    if "highway" not in edges:
        raise InputError("the edges have no highway", "edges with the tags of their ways")
    first = edges["highway"].map(lambda v: v[0] if isinstance(v, list) else v)
    drop = [c for c in edges.columns if c.startswith(("oneway", "junction")) or ":backward" in c]
    edges = edges.drop(columns=drop).assign(highway=first)
    # osmnx stores a two-way road as two edges; one of the two is enough to draw
    low, high = np.minimum(edges["u"], edges["v"]), np.maximum(edges["u"], edges["v"])
    name = edges["osmid"].map(_sorted_text) if "osmid" in edges else pd.Series("", edges.index)
    key = pd.DataFrame({"u": low, "v": high, "w": name, "m": edges["length"].round(2)})
    pair = key.groupby(list(key.columns)).ngroup()
    ahead = edges["u"] <= edges["v"]
    both = ahead.groupby(pair).transform("nunique") == 2
    keep = ~both | ahead
    lines = edges[keep].assign(oneway=np.where(both[keep], "no", "yes"))
    return network_from_lines(lines, mode=mode, crs=crs, source="osmnx graph", notice=OSM_NOTICE)


def query_network(bbox: Bounds, *, mode: str = "car", crs: str = GHSL_CRS) -> Network:
    """Ask OpenStreetMap's Overpass service for the roads of a box, through osmnx.

    For cities; take an extract for a country.

    Parameters
    ----------
    bbox
        ``(west, south, east, north)`` in degrees.
    mode
        ``car`` or ``foot``.
    crs
        Projected CRS of the metric coordinates.

    Raises
    ------
    InputError
        When the box is wrong or holds no road.
    TemporaryError
        When the service cannot be reached or refuses.
    """
    import osmnx
    import requests

    travel, box = require_mode(mode), _require_bbox(bbox)
    tags = osmnx.settings.useful_tags_way
    try:
        # osmnx takes the tags to keep from its global settings only
        osmnx.settings.useful_tags_way = list(KEYS)
        graph = osmnx.graph_from_bbox(
            box,
            network_type="walk" if travel == "foot" else "all",
            custom_filter='["highway"]',
            simplify=False,
            retain_all=True,
        )
    except requests.exceptions.RequestException as error:
        raise TemporaryError(
            f"OpenStreetMap could not be asked ({error})",
            "a connection to overpass-api.de",
            "try again, or read an extract with --osm",
        ) from error
    except osmnx._errors.ResponseStatusCodeError as error:
        raise TemporaryError(
            f"OpenStreetMap's service refused ({error})", remedy="try again later"
        ) from error
    except (osmnx._errors.InsufficientResponseError, ValueError) as error:
        raise InputError(f"no road was found in {box} ({error})", "a box with roads") from error
    finally:
        osmnx.settings.useful_tags_way = tags
    return network_from_osmnx(graph, mode=travel, crs=crs)


def _sorted_text(value: Any) -> str:
    return ",".join(sorted(map(str, value))) if isinstance(value, list) else str(value)


# ---- files ----------------------------------------------------------------------------------

_SAVED = (
    "lon",
    "lat",
    "x",
    "y",
    "component",
    "island",
    "from_node",
    "to_node",
    "metres",
    "forward",
    "backward",
    "road",
    "geometry_ptr",
    "geometry_lon",
    "geometry_lat",
)


def save_network(network: Network, path: str | Path) -> Path:
    """Write a network to one file; it appears whole or not at all.

    Parameters
    ----------
    network
        From :func:`read_network` or its kin.
    path
        File to write; NumPy's zip of arrays with checksums, uncompressed.

    Raises
    ------
    InputError
        When the folder cannot be written to.
    """
    target = Path(path)
    require_writable(target)
    header = {"format": FORMAT, "version": FORMAT_VERSION, "mode": network.mode, "crs": network.crs}
    text = json.dumps({**header, "metadata": dict(network.metadata)}, ensure_ascii=False)
    arrays = {name: getattr(network, name) for name in _SAVED}
    try:
        with replacing(target) as work:
            with open(work, "wb") as sink:
                np.savez(sink, header=np.frombuffer(text.encode(), np.uint8), **arrays)
            load_network(work)
    except OSError as error:
        raise storage_error(target, error) from error
    return target


def load_network(path: str | Path) -> Network:
    """Read a network that :func:`save_network` wrote.

    Raises
    ------
    InputError
        When the file is missing, damaged, of another kind or of a newer version.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{file} does not exist", "a file of `qala network`", "check the path")
    remedy = "make it again with `qala network --osm EXTRACT -o NET`"
    try:
        with np.load(file, allow_pickle=False) as stored:
            header = json.loads(stored["header"].tobytes())
            if header.get("format") != FORMAT:
                raise KeyError("format")
            if header["version"] != FORMAT_VERSION:
                raise InputError(
                    f"{file} is a network of version {header['version']}",
                    f"version {FORMAT_VERSION}",
                    remedy,
                )
            parts = {name: stored[name] for name in _SAVED}
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError, OSError, TypeError) as error:
        raise InputError(
            f"{file} is not a whole network file ({error})", "a file of `qala network`", remedy
        ) from error
    return _assemble(parts, require_mode(header["mode"]), header["crs"], header["metadata"])


def network_layers(network: Network) -> gpd.GeoDataFrame:
    """Return the segments as lines for maps and GeoPackages.

    Returns
    -------
    geopandas.GeoDataFrame
        EPSG:4326, one row a segment, drawn in the open direction: segment, class, oneway,
        speed_kmh, seconds, speed_back_kmh, seconds_back (NaN where closed), metres,
        component (0 the largest strongly connected), island (0 the largest weakly connected).
    """
    import geopandas as gpd
    import shapely

    coordinates = np.column_stack([network.geometry_lon, network.geometry_lat]) * 1e-7
    lines = shapely.from_ragged_array(
        shapely.GeometryType.LINESTRING, coordinates, (network.geometry_ptr,)
    )
    against = np.isnan(network.forward)
    lines[against] = shapely.reverse(lines[against])
    ahead = np.where(against, network.backward, network.forward)
    back = np.where(against, np.nan, network.backward)
    with np.errstate(divide="ignore", invalid="ignore"):
        kmh, kmh_back = network.metres * 3.6 / ahead, network.metres * 3.6 / back
    strong = np.maximum(network.component[network.from_node], network.component[network.to_node])
    return gpd.GeoDataFrame(
        {
            "segment": np.arange(network.metres.size, dtype=np.int32),
            "class": np.array(CLASSES, dtype=object)[network.road],
            "oneway": np.isnan(back),
            "speed_kmh": np.round(kmh, 1),
            "seconds": ahead,
            "speed_back_kmh": np.round(kmh_back, 1),
            "seconds_back": back,
            "metres": network.metres,
            "component": strong,
            "island": network.island[network.from_node],
        },
        geometry=lines,
        crs="EPSG:4326",
    )


def network_flow(
    osm: str | Path,
    mode: str,
    out: str | Path,
    *,
    bbox: Bounds | None = None,
    crs: str = GHSL_CRS,
    layer: str | Path | None = None,
    lang: str = "en",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Read an extract, save the network, and return what was met.

    Fields not among a frozen network's arrays are those of ``metadata``; the command
    ``qala network`` prints them. ``layer`` names a GeoPackage for the roads with their speeds,
    styled, with words in the language ``lang``.

    Raises
    ------
    InputError
        As :func:`read_network`; before any work when the outputs cannot be written or the
        network's name is that of another kind of file.
    """
    _require_names(Path(out), None if layer is None else Path(layer))
    network = read_network(osm, mode=mode, bbox=bbox, crs=crs, progress=progress)
    path = save_network(network, out)
    if layer is not None:
        _write_layer(network, Path(layer), lang)
    return {
        **network.metadata,
        "out": str(path),
        "bytes": path.stat().st_size,
        "arrays": {f.name: int(getattr(network, f.name).size) for f in fields(network)[:-3]},
    }


def _require_names(out: Path, layer: Path | None) -> None:
    problems = Problems("outputs")
    if out.suffix.lower() in (".gpkg", ".geojson", ".shp", ".csv", ".parquet", ".graphml", ".pbf"):
        problems.add(
            f"-o {out} has the name of another kind of file",
            "a name such as roads.net: the network is a file of its own kind",
            "name a GeoPackage for QGIS with --layer",
        )
    if layer is not None and layer.suffix.lower() != ".gpkg":
        problems.add(f"--layer {layer} is no GeoPackage", "a name that ends in .gpkg", "rename it")
    problems.raise_if_any()
    for path in (out, layer):
        if path is not None:
            require_writable(path)


def _write_layer(network: Network, path: Path, lang: str) -> None:
    """Write the roads with their speeds as a styled GeoPackage."""
    from qala.area_products import layer_of_roads, main_roads
    from qala.export.geopackage import write_geopackage
    from qala.messages import tr

    metadata = {
        "title": tr("network.title", lang),
        "citation": str(network.metadata["notice"]),
        "provenance": dict(network.metadata),
    }
    write_geopackage(path, layer_of_roads(main_roads(network)[0]), metadata=metadata, lang=lang)
