"""The terrain as 3D Tiles 1.1: one textured mesh under the city, in its own tileset."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np

from qala.city.relief import Relief
from qala.export._earth import ecef, enu
from qala.files import replace_file

Array = np.ndarray[Any, Any]

FOLDER = "terrain"


def write_terrain_tiles(
    relief: Relief | None,
    crs: Any,
    folder: str | Path,
    *,
    picture: bytes,
    to_ellipsoid: float = 0.0,
    extras: dict[str, Any] | None = None,
) -> Path | None:
    """Write the tileset of the terrain, or remove an earlier one where there is no terrain.

    Parameters
    ----------
    relief
        The terrain.
    crs
        Its projected CRS.
    folder
        Folder of the tileset: ``tileset.json`` and ``terrain.glb``.
    picture
        PNG of the ground over the relief's box, north up.
    to_ellipsoid
        Metres added to heights.
    extras
        Kept in ``asset.extras`` of the tileset.

    Returns
    -------
    pathlib.Path or None
        ``tileset.json``.
    """
    where = Path(folder)
    if relief is None:
        shutil.rmtree(where, ignore_errors=True)
        return None
    from pyproj import Transformer

    where.mkdir(parents=True, exist_ok=True)
    left, bottom, right, top = relief.box
    move = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    x, y, z = relief.vertices.T
    lon, lat = (np.radians(v) for v in move.transform(x, y))
    middle = np.radians(move.transform((left + right) / 2, (bottom + top) / 2))
    height = z + to_ellipsoid
    frame = enu(float(middle[0]), float(middle[1]), float(height.min()))
    local = (ecef(lon, lat, height) - frame[:3, 3]) @ frame[:3, :3]
    # glTF: x east, y up, z south
    place = np.column_stack([local[:, 0], local[:, 2], -local[:, 1]]).astype("<f4")
    data = _glb(place, relief.triangles, texture_places(relief), picture)
    replace_file(where / "terrain.glb", data)
    edge = 1e-8  # single precision moves a corner by some millimetres
    west, east = float(lon.min()) - edge, float(lon.max()) + edge
    if east - west > np.pi:  # across 180° east
        west, east = -np.pi, np.pi
    region = [
        west, float(lat.min()) - edge, east,
        float(lat.max()) + edge, float(height.min()) - 0.02, float(height.max()) + 0.02,
    ]  # fmt: skip
    tileset = {
        "asset": {"version": "1.1", "generator": "qala", "extras": extras or {}},
        "geometricError": max(right - left, top - bottom),
        "root": {
            "boundingVolume": {"region": region},
            "geometricError": 0.0,
            "refine": "ADD",
            "transform": frame.T.ravel().tolist(),
            "content": {"uri": "terrain.glb"},
        },
    }
    replace_file(where / "tileset.json", json.dumps(tileset).encode())
    return where / "tileset.json"


def texture_places(relief: Relief) -> Array:
    """Return where each vertex lies on the ground's picture: (V, 2), 0–1 from its top left."""
    left, bottom, right, top = relief.box
    u = (relief.vertices[:, 0] - left) / (right - left)
    v = (top - relief.vertices[:, 1]) / (top - bottom)
    return np.column_stack([u, v]).astype("<f4")


def normals(place: Array, triangles: Array) -> Array:
    """Return the normals of vertices: those of their triangles, by area."""
    corners = place[triangles].astype(float)
    face = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    out = np.zeros((len(place), 3))
    for i in range(3):
        for axis in range(3):
            out[:, axis] += np.bincount(triangles[:, i], face[:, axis], len(place))
    size = np.linalg.norm(out, axis=1)
    out[size == 0] = (0.0, 1.0, 0.0)
    return np.asarray(out / np.linalg.norm(out, axis=1, keepdims=True))


def _glb(place: Array, triangles: Array, uv: Array, picture: bytes) -> bytes:
    parts = [
        (place.tobytes(), 34962), (normals(place, triangles).astype("<f4").tobytes(), 34962),
        (uv.tobytes(), 34962), (triangles.astype("<u4").tobytes(), 34963), (picture, 0),
    ]  # fmt: skip
    views: list[dict[str, int]] = []
    body = b""
    for data, target in parts:
        views.append({"buffer": 0, "byteOffset": len(body), "byteLength": len(data)})
        if target:
            views[-1]["target"] = target
        body += data + b"\0" * (-len(data) % 4)
    count = len(place)
    document = {
        "asset": {"version": "2.0", "generator": "qala"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "terrain"}],
        "meshes": [{"primitives": [{
            "attributes": {"POSITION": 0, "NORMAL": 1, "TEXCOORD_0": 2},
            "indices": 3, "material": 0, "mode": 4,
        }]}],
        "materials": [{"pbrMetallicRoughness": {
            "baseColorTexture": {"index": 0}, "metallicFactor": 0.0, "roughnessFactor": 1.0,
        }}],
        "textures": [{"source": 0, "sampler": 0}],
        # clamped at the edges
        "samplers": [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}],
        "images": [{"bufferView": 4, "mimeType": "image/png"}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": count, "type": "VEC3",
             "min": place.min(axis=0).tolist(), "max": place.max(axis=0).tolist()},
            {"bufferView": 1, "componentType": 5126, "count": count, "type": "VEC3"},
            {"bufferView": 2, "componentType": 5126, "count": count, "type": "VEC2"},
            {"bufferView": 3, "componentType": 5125, "count": triangles.size, "type": "SCALAR"},
        ],
        "bufferViews": views,
        "buffers": [{"byteLength": len(body)}],
    }  # fmt: skip
    head = json.dumps(document).encode()
    head += b" " * (-len(head) % 4)
    total = 12 + 8 + len(head) + 8 + len(body)
    return b"".join([
        struct.pack("<4sII", b"glTF", 2, total), struct.pack("<I4s", len(head), b"JSON"), head,
        struct.pack("<I4s", len(body), b"BIN\0"), body,
    ])  # fmt: skip
