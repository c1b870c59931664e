"""3D Tiles 1.1: a quadtree of binary glTF with the objects' attributes inside.

Standard: OGC 22-025r4; glTF 2.0 with EXT_mesh_features, EXT_structural_metadata
and KHR_mesh_quantization. Inner tiles hold the tallest and largest objects, so
that the city does not vanish from afar; children add the rest.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import struct
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qala.city import _kernels
from qala.city.classes import COLOURS, building_class
from qala.city.solids import PRISM, SCALE, Solids, Triangles
from qala.compute import usable_cores
from qala.errors import InputError

if TYPE_CHECKING:
    import geopandas as gpd

log = logging.getLogger("qala")

Array = np.ndarray[Any, Any]

#: side of the smallest tiles, metres
LEAF = 500.0
#: objects that an inner tile shows of all below it
INNER = 400
#: geometric error of a tile = its side over this: children of 500 m appear within about 4 km
ERROR_SHARE = 16.0
#: changes when equal inputs no longer give equal tiles
ENCODING = 3
#: WGS 84: equatorial radius (m) and square of the eccentricity
_A, _E2 = 6378137.0, 6.69437999014131699614e-3

_TEXTS = ("id", "parent", "name", "kind", "class", "height_source", "roof_shape", "lod")
_NUMBERS = ("height", "height_lo", "height_hi", "base_z", "floor_area", "people")


@dataclass(frozen=True)
class TileReport:
    """What a run of :func:`write_tiles` did."""

    tiles: int
    written: int
    unchanged: int
    removed: int
    objects: int


def write_tiles(
    table: gpd.GeoDataFrame,
    solids: Solids,
    triangles: Triangles,
    folder: str | Path,
    *,
    to_ellipsoid: float = 0.0,
    extras: dict[str, Any] | None = None,
    leaf: float = LEAF,
    inner: int = INNER,
) -> TileReport:
    """Write a tileset; tiles whose inputs are as before stay as they are.

    Parameters
    ----------
    table
        Buildings, projected CRS in metres.
    solids, triangles
        Their solids and these cut into triangles.
    folder
        Folder for ``tileset.json`` and ``content/``.
    to_ellipsoid
        Metres added to heights to make them ellipsoidal.
    extras
        Kept in the tileset's asset: datum, notices.
    leaf
        Side of the smallest tiles, metres.
    inner
        Objects an inner tile shows.

    Returns
    -------
    TileReport
        Number of tiles, of those written, left and removed, and of objects.

    Raises
    ------
    InputError
        When there is nothing to show.
    """
    target = Path(folder)
    (target / "content").mkdir(parents=True, exist_ok=True)
    shown = np.flatnonzero(solids.kinds >= PRISM)
    if not len(shown):
        raise InputError("no building has a solid", "at least one building in the area")
    tree = _quadtree(table, solids, shown, leaf, inner)
    known = _known(target)
    move = _geographic(table.crs)
    columns = _columns(table)
    prints, code = _prints(table, solids, shown), table.crs.to_epsg()
    records: dict[str, dict[str, Any]] = {}
    order = np.argsort(tree.tile, kind="stable")
    bounds = np.searchsorted(tree.tile[order], np.arange(len(tree.names) + 1))
    todo: list[tuple[str, str, Array]] = []
    for t, name in enumerate(tree.names):
        here = order[bounds[t] : bounds[t + 1]]
        digest = _digest(prints[here], tuple(columns), to_ellipsoid, code)
        before = known.get(name)
        if (
            before is not None
            and before["hash"] == digest
            and (target / "content" / f"{name}.glb").exists()
        ):
            records[name] = before
        else:
            todo.append((name, digest, shown[here]))

    def write(job: tuple[str, str, Array]) -> dict[str, Any]:
        name, digest, mine = job
        glb, region, matrix = _encode(solids, triangles, mine, columns, move, to_ellipsoid)
        _replace(target / "content" / f"{name}.glb", glb)
        return {"hash": digest, "region": region, "matrix": matrix}

    with ThreadPoolExecutor(min(usable_cores(), 4)) as pool:
        for (name, _, _), record in zip(todo, pool.map(write, todo), strict=True):
            records[name] = record
    written = len(todo)
    removed = 0
    for file in (target / "content").glob("*.glb"):
        if file.stem not in records:
            file.unlink()
            removed += 1
    tileset = _tileset(tree, records, extras or {})
    _replace(
        target / "tileset.json",
        json.dumps(tileset, separators=(",", ":"), ensure_ascii=False).encode(),
    )
    _replace(target / "tiles.json", json.dumps(records, separators=(",", ":")).encode())
    return TileReport(len(tree.names), written, len(tree.names) - written, removed, len(shown))


def _replace(file: Path, data: bytes) -> None:
    work = file.with_name(f".{file.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        work.write_bytes(data)
        work.replace(file)
    finally:
        work.unlink(missing_ok=True)


def _known(target: Path) -> dict[str, Any]:
    """Return the record of the last run; empty when there is none that can be read."""
    file = target / "tiles.json"
    if not file.exists():
        return {}
    try:
        return dict(json.loads(file.read_text()))
    except (ValueError, OSError) as error:
        log.warning("%s cannot be read (%s); all tiles are written again", file, error)
        return {}


# --- the quadtree -------------------------------------------------------------------


@dataclass(frozen=True)
class _Tree:
    """Tile names, side and parent of each, and the tile of each shown solid."""

    names: list[str]
    side: Array
    parent: Array
    tile: Array


def _quadtree(
    table: gpd.GeoDataFrame, solids: Solids, shown: Array, leaf: float, inner: int
) -> _Tree:
    """Place solids on a grid fixed to the CRS, so that a change moves few others.

    Every inner cell takes the ``inner`` most visible of what lies below it.
    """
    first = solids.vertex_offsets[shown]
    # corners of the outline stand first; their first one places the solid for good
    xy = solids.vertices[first, :2] / SCALE
    grid = np.floor(xy / leaf).astype(np.int64)
    low = grid.min(axis=0)
    span = int((grid.max(axis=0) - low).max()) + 1
    depth = max(int(np.ceil(np.log2(span))), 0) if span > 1 else 0
    rows = solids.rows[shown]
    height = (table["height"] - table["min_height"]).to_numpy(float)[rows]
    area = table["footprint_area"].to_numpy(float)[rows]
    # seen from afar: the silhouette, height by width
    weight = height * np.sqrt(area)
    tile = np.full(len(shown), -1)
    names: list[str] = []
    sides: list[float] = []
    parents: list[int] = []
    above = np.full(len(shown), -1)  # tile that the solid's cell one level up became
    left = np.argsort(-weight, kind="stable")
    for level in range(-1, depth + 1):
        # one root over all; below it cells are counted from the CRS's own origin, so that
        # a city that grows keeps its tiles
        step = 1 << (depth - level)
        cell = np.floor_divide(grid[left], step) if level >= 0 else np.zeros_like(grid[left])
        packed, where = np.unique((cell[:, 0] << 32) + cell[:, 1], return_inverse=True)
        keys = np.column_stack([packed >> 32, packed & 0xFFFFFFFF])
        # solids stand by falling weight: a stable order keeps that within each cell
        order = np.argsort(where, kind="stable")
        starts = np.searchsorted(where[order], np.arange(len(keys)))
        rank = np.empty(len(left), np.int64)
        rank[order] = np.arange(len(left)) - starts[where[order]]
        here = len(names)
        names += [f"{depth - level}_{x}_{y}" if level >= 0 else "root" for x, y in keys.tolist()]
        sides += [leaf * step] * len(keys)
        up = np.full(len(keys), -1)
        up[where] = above[left]
        parents += up.tolist()
        take = rank < inner if level < depth else np.ones(len(left), bool)
        tile[left[take]] = here + where[take]
        above[left] = here + where
        left = left[~take]
        if not len(left):
            break
    return _Tree(names, np.array(sides), np.array(parents), tile)


# --- one tile -----------------------------------------------------------------------


def _geographic(crs: Any) -> Any:
    from pyproj import Transformer

    return Transformer.from_crs(crs, "EPSG:4326", always_xy=True)


def _columns(table: gpd.GeoDataFrame) -> dict[str, Any]:
    """Return the attributes that travel in tiles: arrays of texts and of numbers."""
    out: dict[str, Any] = {name: _texts(table[name]) for name in _TEXTS if name in table}
    out["class"] = building_class(table["kind"])
    for name in _NUMBERS:
        if name in table:
            numbers = table[name].to_numpy(float)
            if np.isfinite(numbers).any():  # NaN stands for a number that is not known
                out[name] = numbers.astype(np.float32)
    return out


def _prints(table: gpd.GeoDataFrame, solids: Solids, shown: Array) -> Array:
    """Return 64 bits for each shown solid that stand for its shape and attributes."""
    import pandas as pd

    rows = solids.rows[shown]
    out = np.empty(len(shown), np.uint64)
    _kernels.fingerprints(
        shown, solids.vertices, solids.vertex_offsets, solids.surface_offsets, solids.ring_offsets,
        solids.index_offsets, solids.indices, solids.kinds, out,
    )  # fmt: skip
    names = [c for c in (*_TEXTS, *_NUMBERS) if c in table]
    mixed = np.zeros(len(table), np.uint64)
    for name in names:
        column = table[name]
        values = column.to_numpy(float) if name in _NUMBERS else _texts(column)
        hashed = pd.util.hash_array(np.asarray(values), categorize=name in _TEXTS[1:])
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + hashed
    return np.asarray(out * np.uint64(0xBF58476D1CE4E5B9) + mixed[rows])


def _texts(column: Any) -> Array:
    """Return a column as an array of texts, missing ones empty."""
    values = column.to_numpy(object)
    return np.asarray(np.where(column.isna().to_numpy(), "", values), dtype=object)


def _digest(prints: Array, names: tuple[str, ...], lift: float, code: int | None) -> str:
    """Return a digest of everything a tile is made of."""
    hashed = hashlib.blake2b(f"{ENCODING} {lift!r} {code} {names}".encode(), digest_size=16)
    hashed.update(prints.tobytes())
    return hashed.hexdigest()


def _ecef(lon: Array, lat: Array, height: Array) -> Array:
    sin, cos = np.sin(lat), np.cos(lat)
    n = _A / np.sqrt(1 - _E2 * sin * sin)
    return np.column_stack(
        [
            (n + height) * cos * np.cos(lon),
            (n + height) * cos * np.sin(lon),
            (n * (1 - _E2) + height) * sin,
        ]
    )


def _enu(lon: float, lat: float, height: float) -> Array:
    """Return the 4×4 matrix from east, north, up at a place to earth-centred coordinates."""
    sl, cl, sp, cp = np.sin(lon), np.cos(lon), np.sin(lat), np.cos(lat)
    out = np.eye(4)
    out[:3, 0] = (-sl, cl, 0)
    out[:3, 1] = (-sp * cl, -sp * sl, cp)
    out[:3, 2] = (cp * cl, cp * sl, sp)
    out[:3, 3] = _ecef(np.array([lon]), np.array([lat]), np.array([height]))[0]
    return out


def _encode(
    solids: Solids, triangles: Triangles, mine: Array, columns: dict[str, Any], move: Any,
    lift: float,
) -> tuple[bytes, list[float], list[float]]:  # fmt: skip
    """Return a tile's glb, region (radians, metres) and matrix (column by column)."""
    vo = solids.vertex_offsets
    v = solids.vertices[_kernels.ranges(vo[mine], vo[mine + 1])]
    starts = np.concatenate([[0], np.cumsum(vo[mine + 1] - vo[mine])])[:-1]
    lon, lat = move.transform(v[:, 0] / SCALE, v[:, 1] / SCALE)
    lon, lat = np.radians(lon), np.radians(lat)
    z = v[:, 2] / SCALE + lift
    # a hair wider than the corners: the region must contain them after rounding
    hair = 1e-9
    region = [
        float(lon.min()) - hair, float(lat.min()) - hair, float(lon.max()) + hair,
        float(lat.max()) + hair, float(z.min()) - 0.01, float(z.max()) + 0.01,
    ]  # fmt: skip
    matrix = _enu((region[0] + region[2]) / 2, (region[1] + region[3]) / 2, region[4])
    xyz = (_ecef(lon, lat, z) - matrix[:3, 3]) @ matrix[:3, :3]
    so = solids.surface_offsets
    ends = solids.index_offsets[solids.ring_offsets[so[mine + 1]]]
    count = int((ends - solids.index_offsets[solids.ring_offsets[so[mine]]]).sum())
    tris = int((triangles.offsets[mine + 1] - triangles.offsets[mine]).sum())
    position = np.empty((count, 3), np.float32)
    normal = np.zeros((count, 4), np.int8)
    feature = np.empty(count, np.float32)
    roof = np.empty(count, np.bool_)
    corners = np.empty(tris * 3, np.uint32)
    _kernels.mesh(
        mine, xyz, starts, vo, solids.surface_offsets, solids.ring_offsets, solids.index_offsets,
        solids.indices, triangles.corners, triangles.offsets, solids.surface_types, position,
        normal, feature, roof, corners,
    )  # fmt: skip
    rows = solids.rows[mine]
    attributes = {name: values[rows] for name, values in columns.items()}
    colours = _colours(attributes["class"], feature, roof)
    glb = _glb(position, normal, feature, colours, corners, attributes, len(mine))
    return glb, region, matrix.T.ravel().tolist()


def _colours(classes: Array, feature: Array, roof: Array) -> Array:
    """Return a colour for each corner by class, linear as glTF wants; roofs a little darker."""
    srgb = np.array([COLOURS[name] for name in classes.tolist()], float) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    per_corner = linear[feature.astype(np.int64)] * np.where(roof, 0.8, 1.0)[:, None]
    out = np.full((len(feature), 4), 255, np.uint8)
    out[:, :3] = np.rint(per_corner * 255)
    return out


class _Buffer:
    """Collects the views of a glb's one buffer."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0
        self.views: list[dict[str, Any]] = []

    def add(self, data: bytes, **more: Any) -> int:
        self.views.append({"buffer": 0, "byteOffset": self.size, "byteLength": len(data), **more})
        pad = -len(data) % 8
        self.parts += [data, b"\0" * pad]
        self.size += len(data) + pad
        return len(self.views) - 1


def _glb(
    position: Array, normal: Array, feature: Array, colour: Array, corners: Array,
    attributes: dict[str, Any], features: int,
) -> bytes:  # fmt: skip
    """Return a binary glTF of one mesh with its property table."""
    buffer = _Buffer()
    count = len(position)
    small = count <= 65535
    index = corners.astype(np.uint16) if small else corners
    views = [
        buffer.add(position.tobytes(), byteStride=12, target=34962),
        buffer.add(normal.tobytes(), byteStride=4, target=34962),
        buffer.add(colour.tobytes(), byteStride=4, target=34962),
        buffer.add(feature.tobytes(), byteStride=4, target=34962),
        buffer.add(index.tobytes(), target=34963),
    ]
    accessors = [
        {"bufferView": views[0], "componentType": 5126, "count": count, "type": "VEC3",
         "min": position.min(axis=0).tolist(), "max": position.max(axis=0).tolist()},
        {"bufferView": views[1], "componentType": 5120, "normalized": True, "count": count,
         "type": "VEC3"},
        {"bufferView": views[2], "componentType": 5121, "normalized": True, "count": count,
         "type": "VEC4"},
        {"bufferView": views[3], "componentType": 5126, "count": count, "type": "SCALAR"},
        {"bufferView": views[4], "componentType": 5123 if small else 5125, "count": len(index),
         "type": "SCALAR"},
    ]  # fmt: skip
    properties: dict[str, Any] = {}
    classes: dict[str, Any] = {}
    for name, values in attributes.items():
        if values.dtype == object:
            encoded = [str(v).encode() for v in values.tolist()]
            offsets = np.concatenate([[0], np.cumsum([len(e) for e in encoded])]).astype(np.uint32)
            # a view of no bytes is not allowed
            text = b"".join(encoded) or b"\0"
            properties[name] = {
                "values": buffer.add(text),
                "stringOffsets": buffer.add(offsets.tobytes()),
                "stringOffsetType": "UINT32",
            }
            classes[name] = {"type": "STRING"}
        else:
            properties[name] = {"values": buffer.add(values.tobytes())}
            classes[name] = {"type": "SCALAR", "componentType": "FLOAT32"}
    document = {
        "asset": {"version": "2.0", "generator": "qala"},
        "extensionsUsed": [
            "EXT_mesh_features", "EXT_structural_metadata", "KHR_mesh_quantization",
        ],
        "extensionsRequired": ["KHR_mesh_quantization"],
        "extensions": {
            "EXT_structural_metadata": {
                "schema": {
                    "id": "qala_buildings",
                    "classes": {"building": {"properties": classes}},
                },
                "propertyTables": [
                    {"class": "building", "count": features, "properties": properties}
                ],
            }
        },
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [
            {
                "primitives": [
                    {
                        "attributes": {
                            "POSITION": 0, "NORMAL": 1, "COLOR_0": 2, "_FEATURE_ID_0": 3,
                        },
                        "indices": 4,
                        "material": 0,
                        "mode": 4,
                        "extensions": {
                            "EXT_mesh_features": {
                                "featureIds": [
                                    {"featureCount": features, "attribute": 0, "propertyTable": 0}
                                ]
                            }
                        },
                    }
                ]
            }
        ],
        "materials": [
            {"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0}}
        ],
        "accessors": accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": buffer.size}],
    }  # fmt: skip
    head = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    # the binary chunk must start at a multiple of 8 bytes for the metadata
    head += b" " * ((-(len(head) + 20)) % 8)
    body = b"".join(buffer.parts)
    total = 12 + 8 + len(head) + 8 + len(body)
    return b"".join(
        [
            struct.pack("<4sII", b"glTF", 2, total),
            struct.pack("<I4s", len(head), b"JSON"), head,
            struct.pack("<I4s", len(body), b"BIN\0"), body,
        ]
    )  # fmt: skip


# --- the tileset --------------------------------------------------------------------


def _tileset(tree: _Tree, records: dict[str, Any], extras: dict[str, Any]) -> dict[str, Any]:
    """Join tiles to a tree whose regions contain their children's."""
    count = len(tree.names)
    regions = [list(records[name]["region"]) for name in tree.names]
    own = [np.array(records[name]["matrix"]).reshape(4, 4).T for name in tree.names]
    children: list[list[int]] = [[] for _ in range(count)]
    for i, parent in enumerate(tree.parent.tolist()):
        if parent >= 0:
            children[parent].append(i)
    for i in range(count - 1, -1, -1):  # children stand after their parents
        for child in children[i]:
            regions[i] = _around(regions[i], regions[child])

    def node(i: int, above: Array | None) -> dict[str, Any]:
        matrix = own[i] if above is None else _inverse(above) @ own[i]
        out: dict[str, Any] = {
            "boundingVolume": {"region": regions[i]},
            "geometricError": float(tree.side[i] / ERROR_SHARE) if children[i] else 0.0,
            "transform": matrix.T.ravel().tolist(),
            "content": {"uri": f"content/{tree.names[i]}.glb"},
        }
        if children[i]:
            out["refine"] = "ADD"
            out["children"] = [node(c, own[i]) for c in children[i]]
        return out

    root = node(0, None)
    root.setdefault("refine", "ADD")
    box = root["boundingVolume"]["region"]
    span = max(box[2] - box[0], box[3] - box[1]) * _A
    return {
        "asset": {"version": "1.1", "generator": "qala", "extras": extras},
        "geometricError": max(float(span), root["geometricError"] * 2, 1.0),
        "root": root,
    }


def _around(a: list[float], b: list[float]) -> list[float]:
    return [
        min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]), min(a[4], b[4]),
        max(a[5], b[5]),
    ]  # fmt: skip


def _inverse(matrix: Array) -> Array:
    """Invert a turn and shift exactly, without losing metres to 6,000 km."""
    out = np.eye(4)
    out[:3, :3] = matrix[:3, :3].T
    out[:3, 3] = -matrix[:3, :3].T @ matrix[:3, 3]
    return out
