"""Checks of what a twin is made of: CityJSON files and whole twin folders.

The structure is checked by a JSON schema written for this project after the
text of CityJSON 2.0.1 (OGC 20-072r5), run by jsonschema-rs; then the references
between vertices, surfaces and objects; then every solid's geometry.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from qala.errors import InputError, Problems

log = logging.getLogger("qala")

#: problems told of one file before the rest is only counted
MOST_TOLD = 20

_FIRST = (
    "Bridge", "Building", "CityFurniture", "CityObjectGroup", "GenericCityObject", "LandUse",
    "OtherConstruction", "PlantCover", "SolitaryVegetationObject", "TINRelief", "TransportSquare",
    "Railway", "Road", "Tunnel", "WaterBody", "Waterway",
)  # fmt: skip
_SECOND = (
    "BridgePart", "BridgeInstallation", "BridgeConstructiveElement", "BridgeRoom",
    "BridgeFurniture", "BuildingPart", "BuildingInstallation", "BuildingConstructiveElement",
    "BuildingFurniture", "BuildingStorey", "BuildingRoom", "BuildingUnit", "TunnelPart",
    "TunnelInstallation", "TunnelConstructiveElement", "TunnelHollowSpace", "TunnelFurniture",
)  # fmt: skip
#: depth of ``boundaries`` of each kind of geometry
_DEPTHS = {
    "MultiPoint": 1, "MultiLineString": 2, "MultiSurface": 3, "CompositeSurface": 3, "Solid": 4,
    "MultiSolid": 5, "CompositeSolid": 5,
}  # fmt: skip
_LARGEST = 2**63 - 1


def _nested(depth: int) -> dict[str, Any]:
    item: dict[str, Any] = {"type": "integer", "minimum": 0}
    for _ in range(depth):
        item = {"type": "array", "items": item}
    return item


def _values(depth: int) -> dict[str, Any]:
    item: dict[str, Any] = {"type": ["integer", "null"], "minimum": 0}
    for _ in range(depth):
        item = {"type": ["array", "null"], "items": item}
    return item


def _geometry(kind: str) -> dict[str, Any]:
    depth = _DEPTHS[kind]
    return {
        "type": "object",
        "required": ["type", "lod", "boundaries"],
        "properties": {
            "type": {"const": kind},
            "lod": {"type": "string", "pattern": r"^(\d|[0-3]\.[0-3])$"},
            "boundaries": _nested(depth),
            "semantics": {
                "type": "object",
                "required": ["surfaces", "values"],
                "properties": {
                    "surfaces": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["type"],
                            "properties": {"type": {"type": "string", "pattern": r"^(\+|[A-Z])"}},
                        },
                    },
                    "values": _values(max(depth - 2, 1)),
                },
            },
        },
    }


def _schema(root: str) -> dict[str, Any]:
    objects = {
        "type": "object",
        "additionalProperties": {
            "type": "object",
            "required": ["type"],
            "properties": {
                "type": {
                    "anyOf": [
                        {"enum": [*_FIRST, *_SECOND]},
                        {"type": "string", "pattern": r"^\+"},
                    ]
                },
                "attributes": {"type": "object"},
                "parents": {"type": "array", "items": {"type": "string"}, "minItems": 1},
                "children": {"type": "array", "items": {"type": "string"}},
                "geographicalExtent": {
                    "type": "array", "items": {"type": "number"}, "minItems": 6, "maxItems": 6,
                },
                "geometry": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["type"],
                        "properties": {"type": {"enum": [*_DEPTHS, "GeometryInstance"]}},
                        "allOf": [
                            {
                                "if": {"properties": {"type": {"const": kind}}},
                                "then": _geometry(kind),
                            }
                            for kind in _DEPTHS
                        ],
                    },
                },
            },
            "if": {"properties": {"type": {"enum": list(_SECOND)}}},
            "then": {"required": ["type", "parents"]},
        },
    }  # fmt: skip
    vertices = {
        "type": "array",
        "items": {
            "type": "array", "minItems": 3, "maxItems": 3,
            "items": {"type": "integer", "minimum": -_LARGEST, "maximum": _LARGEST},
        },
    }  # fmt: skip
    three = {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3}
    schema: dict[str, Any] = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "required": ["type", "CityObjects", "vertices"],
        "properties": {
            "type": {"const": root},
            "CityObjects": objects,
            "vertices": vertices,
            "appearance": {"type": "object"},
            "geometry-templates": {"type": "object"},
            "extensions": {"type": "object"},
        },
    }
    if root == "CityJSONFeature":
        schema["required"].append("id")
        schema["properties"]["id"] = {"type": "string"}
        return schema
    schema["required"] += ["version", "transform"]
    schema["properties"] |= {
        "version": {"type": "string", "pattern": r"^2\.0$"},
        "transform": {
            "type": "object",
            "required": ["scale", "translate"],
            "properties": {"scale": three, "translate": three},
        },
        "metadata": {
            "type": "object",
            "properties": {
                "referenceSystem": {
                    "type": "string",
                    "pattern": r"^https?://www\.opengis\.net/def/crs/[^/]+/[^/]+/[^/]+$",
                },
                "geographicalExtent": {
                    "type": "array", "items": {"type": "number"}, "minItems": 6, "maxItems": 6,
                },
                "title": {"type": "string"},
                "identifier": {"type": "string"},
                "referenceDate": {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"},
            },
        },
    }  # fmt: skip
    return schema


@cache
def _validator(root: str) -> Any:
    import jsonschema_rs

    return jsonschema_rs.validator_for(_schema(root))


def check_cityjson(path: str | Path) -> dict[str, Any]:
    """Check a CityJSON 2.0 file or a CityJSONSeq.

    Parameters
    ----------
    path
        ``.city.json``, or ``.jsonl`` with a document a line.

    Returns
    -------
    dict
        ``objects``, ``vertices``, ``solids``, ``lods`` (number by level),
        ``terrain_triangles`` (of TINRelief), and ``geometry_warnings`` (solids that are
        open, warped or inside out: number by code of
        :data:`qala.city.solids.VALID_CODES`).

    Raises
    ------
    InputError
        Listing every problem of structure or reference: schema, numbers out of
        bounds, indices without a vertex, unknown parents or children, a feature
        whose id is not among its objects; and every solid that is open, turned
        inside out, or whose surfaces do not fit together.

    Notes
    -----
    Two faults are counted as ``geometry_warnings`` and not refused, since published models
    have them and readers can use them: surfaces that are warped (code 203) or cross
    themselves (104), and solids without a ground, where all solids of the file are so and
    none claims otherwise by its semantics. The project's own twins must have none
    (:func:`check_twin`).
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{file} does not exist", "a CityJSON file")
    problems = _Limited(file.name)
    total: dict[str, Any] = {
        "objects": 0, "vertices": 0, "solids": 0, "lods": {}, "geometry_warnings": {},
        "terrain_triangles": 0,
    }  # fmt: skip
    seq = file.suffix == ".jsonl"
    transform: dict[str, Any] | None = None
    seen: set[str] = set()
    shells = _Shells()
    for where, text in _documents(file, seq):
        try:
            document = json.loads(text, object_pairs_hook=_no_repeats, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            problems.add(f"{where}it is not JSON ({error})", "one JSON document")
            continue
        root = document.get("type") if isinstance(document, dict) else None
        kind = "CityJSONFeature" if root == "CityJSONFeature" else "CityJSON"
        if not _structure(document, kind, where, problems):
            # a fault elsewhere must not hide a wrong reference
            if _objects_sound(document):
                _references(document, where, problems)
            continue
        if kind == "CityJSON":
            if seq and transform is not None:
                problems.add(f"{where}a second CityJSON header", "one header, then features")
            transform = document["transform"]
        elif not seq:
            problems.add(f"{where}a CityJSONFeature alone", "CityJSON, or .city.jsonl for features")
        if kind == "CityJSONFeature":
            name = document["id"]
            if name not in document["CityObjects"]:
                problems.add(
                    f"{where}feature id {name!r} is none of its city objects",
                    "the id of the feature's main object",
                )
            if name in seen:
                problems.add(f"{where}feature id {name!r} stands twice", "unique ids")
            seen.add(name)
        _references(document, where, problems)
        if not problems.found:
            shells.add(document)
        total["objects"] += len(document["CityObjects"])
        total["terrain_triangles"] += sum(
            len(g["boundaries"])
            for o in document["CityObjects"].values()
            if o["type"] == "TINRelief"
            for g in o.get("geometry", [])
        )
        total["vertices"] += len(document["vertices"])
    if seq and transform is None and not problems.found:
        problems.add("no header line", 'a first line of type "CityJSON" with the transform')
    if not problems.found and transform is not None:
        shells.judge(transform, total, problems)
    problems.raise_if_any()
    return total


class _Limited:
    """Gathers problems, tells the first ones and counts the rest."""

    def __init__(self, subject: str) -> None:
        self.problems = Problems(subject)
        self.found = 0

    def add(self, met: str, expected: str = "") -> None:
        self.found += 1
        if self.found <= MOST_TOLD:
            self.problems.add(met, expected)

    def raise_if_any(self) -> None:
        if self.found > MOST_TOLD:
            self.problems.add(f"and {self.found - MOST_TOLD} more problems")
        self.problems.raise_if_any()


def _documents(file: Path, seq: bool) -> Iterator[tuple[str, str]]:
    try:
        if not seq:
            yield "", file.read_text(encoding="utf-8")
            return
        with file.open(encoding="utf-8") as source:
            text = source.read()
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 text ({error})", "a CityJSON file") from error
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        # a single document may be spread over lines
        json.loads(text)
    except ValueError:
        yield from ((f"line {n}: ", line) for n, line in enumerate(lines, start=1))
    else:
        yield "", text


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        names = [k for k, _ in pairs]
        twice = next(k for k in names if names.count(k) > 1)
        raise ValueError(f"key {twice!r} stands twice in one object")
    return out


def _structure(document: Any, kind: str, where: str, problems: _Limited) -> bool:
    if isinstance(document, dict) and "type" not in document:
        problems.add(f'{where}the document has no "type"', '"type": "CityJSON"')
        return False
    if isinstance(document, dict) and kind == "CityJSON" and _older(document.get("version")):
        problems.add(f"{where}it is CityJSON {document['version']}",
                     "CityJSON 2.0; upgrade it, for instance with cjio")  # fmt: skip
        return False
    good = True
    big = _too_big(document)
    if big:
        problems.add(f"{where}vertex {big[0]} holds {big[1]}",
                     "whole numbers that fit 64 bits")  # fmt: skip
        good = False
    if isinstance(document, dict) and "transform" in document:
        good &= _bounds(document["transform"], where, problems)
    if not good:
        return False  # the validator reads numbers into 64 bits
    for error in _validator(kind).iter_errors(document):
        place = "/".join(str(p) for p in error.instance_path)
        problems.add(f"{where}{place or 'document'}: {error.message[:200]}", "CityJSON 2.0")
        good = False
        if problems.found > MOST_TOLD:
            break
    return good


def _older(version: Any) -> bool:
    """Tell whether a version is that of an earlier standard."""
    return isinstance(version, str) and version[:1] in ("0", "1")


@cache
def _part_validator() -> Any:
    import jsonschema_rs

    schema = _schema("CityJSON")
    schema["required"] = ["CityObjects", "vertices"]
    schema["properties"] = {k: schema["properties"][k] for k in ("CityObjects", "vertices")}
    return jsonschema_rs.validator_for(schema)


def _objects_sound(document: Any) -> bool:
    """Tell whether city objects and vertices are formed well enough to follow references."""
    return not _too_big(document) and bool(_part_validator().is_valid(document))


def _too_big(document: Any) -> tuple[int, Any] | None:
    """Return (place, value) of a vertex coordinate that no 64-bit integer holds."""
    vertices = document.get("vertices") if isinstance(document, dict) else None
    if not isinstance(vertices, list):
        return None
    try:
        np.array(vertices, dtype=np.int64)
    except (OverflowError, ValueError, TypeError):
        for i, vertex in enumerate(vertices):
            for value in vertex if isinstance(vertex, list) else []:
                if isinstance(value, int) and abs(value) > _LARGEST:
                    return i, value
    return None


def _bounds(transform: Any, where: str, problems: _Limited) -> bool:
    """Refuse transform values that no 64-bit float holds."""
    good = True
    for key in ("scale", "translate"):
        values = transform.get(key) if isinstance(transform, dict) else None
        for value in values if isinstance(values, list) else []:
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            try:
                finite = math.isfinite(float(value))
            except OverflowError:
                finite = False
            if not finite or (key == "scale" and value == 0):
                text = str(value)
                text = text if len(text) < 30 else text[:27] + "..."
                problems.add(f"{where}transform.{key} holds {text}",
                             "a number that fits 64 bits, scale not 0")  # fmt: skip
                good = False
    return good


def _flat(boundaries: Any, depth: int) -> list[int]:
    for _ in range(depth - 1):
        boundaries = [x for part in boundaries for x in part]
    return list(boundaries)


def _references(document: dict[str, Any], where: str, problems: _Limited) -> None:
    objects = document["CityObjects"]
    count = len(document["vertices"])
    for name, item in objects.items():
        for geometry in item.get("geometry", []):
            if geometry["type"] == "GeometryInstance":
                continue
            depth = _DEPTHS[geometry["type"]]
            ids = _flat(geometry["boundaries"], depth)
            top = max(ids, default=-1)
            if top >= count:
                problems.add(
                    f"{where}{name}: vertex index {top} of {count} vertices",
                    f"an index from 0 to {count - 1}",
                )
            _semantics(name, geometry, depth, where, problems)
        for parent in item.get("parents", []):
            if parent == name:
                problems.add(f"{where}{name}: it is its own parent")
            elif parent not in objects:
                problems.add(f"{where}{name}: parent {parent!r} is not in the file")
            elif name not in objects[parent].get("children", []):
                problems.add(f"{where}{name}: parent {parent!r} does not name it as a child")
        for child in item.get("children", []):
            if child not in objects:
                problems.add(f"{where}{name}: child {child!r} is not in the file")
            elif item["type"] != "CityObjectGroup" and (
                name not in objects[child].get("parents", [])
            ):
                problems.add(f"{where}{name}: child {child!r} does not name it as a parent")


def _semantics(
    name: str, geometry: dict[str, Any], depth: int, where: str, problems: _Limited
) -> None:
    semantics = geometry.get("semantics")
    if not semantics:
        return
    values, surfaces = semantics["values"], len(semantics["surfaces"])
    boundaries = geometry["boundaries"]
    for _ in range(max(depth - 3, 0)):
        if values is None or any(v is None for v in values):
            return
        values = [x for part in values for x in part]
        boundaries = [x for part in boundaries for x in part]
    if values is None:
        return
    if len(values) != len(boundaries):
        problems.add(f"{where}{name}: {len(values)} semantic values for {len(boundaries)} surfaces",
                     "one each")  # fmt: skip
    top = max((v for v in values if v is not None), default=-1)
    if top >= surfaces:
        problems.add(f"{where}{name}: semantic value {top} of {surfaces} surfaces")


#: codes that a reader can live with in models of others
_BEARABLE = (104, 203)


class _Shells:
    """Gathers the solids of a file and judges them together."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.lods: list[str] = []
        self.claims: list[bool] = []
        self.corners: list[np.ndarray[Any, Any]] = []
        self.rings: list[int] = []  # corners of each ring
        self.surfaces: list[int] = []  # rings of each surface
        self.solids: list[int] = []  # surfaces of each solid

    def add(self, document: dict[str, Any]) -> None:
        """Take the solids of a document."""
        flat: list[int] = []
        for name, item in document["CityObjects"].items():
            for geometry in item.get("geometry", []):
                kind = geometry["type"]
                if kind not in ("Solid", "MultiSolid", "CompositeSolid"):
                    continue
                found = geometry["boundaries"]
                for solid in [found] if kind == "Solid" else found:
                    surfaces = [surface for shell in solid for surface in shell]
                    self.names.append(name)
                    self.lods.append(geometry["lod"])
                    self.claims.append(bool(geometry.get("semantics")))
                    self.solids.append(len(surfaces))
                    for surface in surfaces:
                        self.surfaces.append(len(surface))
                        for ring in surface:
                            self.rings.append(len(ring))
                            flat += ring
        if flat:
            vertices = np.array(document["vertices"], dtype=np.int64).reshape(-1, 3)
            self.corners.append(vertices[flat])

    def judge(
        self, transform: dict[str, Any], total: dict[str, Any], problems: _Limited
    ) -> None:  # fmt: skip
        """Count solids by level of detail and fault; add those that cannot be borne."""
        from qala.city.solids import PRISM, VALID_CODES, Solids, check_solids

        for lod in self.lods:
            total["lods"][lod] = total["lods"].get(lod, 0) + 1
        total["solids"] = len(self.names)
        if not self.corners:
            return
        # coordinates in whole millimetres; other units of the CRS are not our concern
        scale = np.asarray(transform["scale"], float) * 1000.0
        exact = np.allclose(scale, np.rint(scale)) and bool((scale >= 1).all())
        corners = np.vstack(self.corners) * (np.rint(scale).astype(np.int64) if exact else 1)
        tolerance = 10.0 if exact else 0.01 / float(np.mean(np.abs(transform["scale"])))
        surface_offsets, ring_offsets, index_offsets = (
            np.concatenate([[0], np.cumsum(n)]).astype(np.int64)
            for n in (self.solids, self.surfaces, self.rings)
        )
        ends = index_offsets[ring_offsets[surface_offsets]]
        count = len(self.names)
        codes = check_solids(
            Solids(
                corners, ends, surface_offsets, ring_offsets, index_offsets,
                (np.arange(len(corners)) - np.repeat(ends[:-1], np.diff(ends))).astype(np.int32),
                np.zeros(len(ring_offsets) - 1, np.uint8), np.full(count, PRISM),
                np.zeros(count, np.int32), np.arange(count),
            ), planar_mm=tolerance,
        )  # fmt: skip
        bottomless = np.zeros(count, bool)
        for i in np.flatnonzero(codes == 302):
            first, last = ring_offsets[surface_offsets[[i, i + 1]]]
            rings = [corners[a:b] for a, b in pairwise(index_offsets[first : last + 1])]
            bottomless[i] = _open_below(rings)
        convention = bool(bottomless.all()) and not any(self.claims)
        for code in np.unique(codes[codes != 0]).tolist():
            here = codes == code
            total["geometry_warnings"][code] = int(here.sum())
            if code in _BEARABLE or (code == 302 and convention):
                continue
            for i in np.flatnonzero(here):
                problems.add(f"{self.names[i]}: {VALID_CODES[code]} (code {code})",
                             "closed solids whose surfaces face outwards")  # fmt: skip


def _open_below(rings: list[np.ndarray[Any, Any]]) -> bool:
    """Tell whether a shell lacks nothing but its ground."""
    ends = np.vstack([np.hstack([r, np.roll(r, -1, axis=0)]) for r in rings])
    there = {tuple(e) for e in ends.tolist()}
    lowest = ends[:, 2].min()
    alone = [e for e in there if (*e[3:], *e[:3]) not in there]
    return bool(alone) and all(e[2] == lowest and e[5] == lowest for e in alone)


#: columns that a twin's layer ``buildings`` must have
BUILDING_COLUMNS = (
    "id", "parent", "height", "height_source", "height_lo", "height_hi", "base_z", "roof_shape",
    "lod", "valid_code", "valid_from", "valid_to", "floor_area", "people",
)  # fmt: skip


def check_twin(folder: str | Path) -> dict[str, Any]:
    """Check a twin folder: GeoPackage, CityJSON, CityJSONSeq, 3D Tiles, page.

    Parameters
    ----------
    folder
        Folder made by ``qala city``.

    Returns
    -------
    dict
        ``objects``, ``solids``, ``tiles``, ``issues`` and ``lods``.

    Raises
    ------
    InputError
        Listing everything that is wrong: a missing file, a column, an id that
        differs between formats, a solid that is not closed, a tile outside its
        parent, or one that lacks content.
    """
    where = Path(folder)
    if not where.is_dir():
        raise InputError(f"{where} is not a folder", "a twin folder made by qala city")
    problems = _Limited(str(where))
    needed = ("city.gpkg", "city.city.json", "city.city.jsonl", "tiles/tileset.json",
              "web/index.html", "web/viewer.js", "web/ground.js", "summary.csv")  # fmt: skip
    for name in needed:
        if not (where / name).is_file():
            problems.add(f"{name} is missing", "a twin written to its end; run qala city again")
    problems.raise_if_any()
    result, ids, solids = _check_gpkg(where / "city.gpkg", problems)
    triangles = result.get("terrain_triangles", 0)
    terrain = 1 if triangles else 0
    for name in ("city.city.json", "city.city.jsonl"):
        try:
            found = check_cityjson(where / name)
        except InputError as error:
            problems.problems.add_error(error)
            problems.found += 1
            continue
        for code, count in found["geometry_warnings"].items():
            problems.add(f"{name}: {count} solids with code {code}", "closed and valid solids")
        if found["objects"] - terrain != len(ids):
            problems.add(f"{name} holds {found['objects'] - terrain} objects, city.gpkg {len(ids)}")
        if found["terrain_triangles"] != triangles:
            problems.add(f"{name} holds {found['terrain_triangles']} triangles of terrain, "
                         f"city.gpkg {triangles}")  # fmt: skip
        if found["solids"] != solids:
            problems.add(f"{name} holds {found['solids']} solids, city.gpkg {solids}")
    tiles = _check_tiles(where / "tiles", ids, problems)
    if tiles["objects"] != solids:
        problems.add(f"the tiles hold {tiles['objects']} objects, city.gpkg {solids} solids")
    if triangles:
        _check_terrain(where, problems)
    problems.raise_if_any()
    return {**result, "tiles": tiles["tiles"]}


def _check_terrain(where: Path, problems: _Limited) -> None:
    """Check that the terrain's own tile and raster are there and whole."""
    import rasterio
    from rasterio.errors import RasterioIOError

    for name in ("terrain.tif", "terrain/tileset.json", "terrain/terrain.glb"):
        if not (where / name).is_file():
            problems.add(f"{name} is missing", "a twin written to its end; run qala city again")
            return
    try:
        with rasterio.open(where / "terrain.tif") as src:
            src.read(1, window=((0, 1), (0, 1)))
        document, body = read_glb(where / "terrain" / "terrain.glb")
    except (InputError, RasterioIOError) as error:
        problems.add(f"the terrain cannot be read ({error})", "a whole file")
        return
    tileset = json.loads((where / "terrain" / "tileset.json").read_text())
    region = tileset["root"]["boundingVolume"]["region"]
    place = document["accessors"][document["meshes"][0]["primitives"][0]["attributes"]["POSITION"]]
    xyz = np.frombuffer(_view(document, body, place["bufferView"]), "<f4").reshape(-1, 3)
    matrix = np.array(tileset["root"]["transform"]).reshape(4, 4).T
    if not _contains([a + s for a, s in zip(region, _SLACK, strict=True)], _region(xyz, matrix)):
        problems.add("terrain.glb: corners lie outside the tile's region")


#: float32 offsets move a corner by up to about a centimetre (radians, metres)
_SLACK = (-2e-9, -2e-9, 2e-9, 2e-9, -0.02, 0.02)


def _region(xyz: np.ndarray[Any, Any], matrix: Any) -> list[float]:
    """Return west, south, east, north (radians), lowest, highest of corners in glTF's axes."""
    from pyproj import Transformer

    east = np.column_stack([xyz[:, 0], -xyz[:, 2], xyz[:, 1]]).astype(float)
    earth = east @ matrix[:3, :3].T + matrix[:3, 3]
    move = Transformer.from_crs("EPSG:4978", "EPSG:4979", always_xy=True)
    lon, lat, height = move.transform(*earth.T)
    sides = np.radians([np.min(lon), np.min(lat), np.max(lon), np.max(lat)])
    return [*sides.tolist(), float(height.min()), float(height.max())]


def _check_gpkg(path: Path, problems: _Limited) -> tuple[dict[str, Any], set[str], int]:
    import sqlite3
    from contextlib import closing

    import pyogrio
    import shapely

    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        sound = db.execute("PRAGMA quick_check").fetchone()[0]
    if version != 10300:
        problems.add(f"city.gpkg has user_version {version}", "10300 (GeoPackage 1.3)")
    if sound != "ok":
        problems.add(f"city.gpkg is damaged ({sound})", "a whole file")
    layers = {row[0] for row in pyogrio.list_layers(path)}
    for name in ("buildings", "footprints", "issues"):
        if name not in layers:
            problems.add(f"city.gpkg has no layer {name}")
    if "buildings" not in layers:
        return {}, set(), 0
    table = pyogrio.read_dataframe(path, layer="buildings")
    missing = [c for c in BUILDING_COLUMNS if c not in table]
    for column in missing:
        problems.add(f"layer buildings has no column {column}")
    if missing:
        return {}, set(), 0
    ids = set(table["id"])
    if len(ids) != len(table):
        problems.add(f"{len(table) - len(ids)} building ids repeat", "unique ids")
    lost = set(table["parent"].dropna()) - ids
    if lost:
        problems.add(
            f"parent {sorted(lost)[0]} of {len(lost)} is no building", "an id of the layer"
        )
    live = table["valid_to"].isna()
    table = table[live]
    ids = set(table["id"])
    wrong = (table["height_lo"] > table["height"]) | (table["height"] > table["height_hi"])
    if wrong.any():
        problems.add(
            f"{table['id'][wrong].iloc[0]}: height outside its range ({wrong.sum()} in all)"
        )
    solid = (table["lod"] != "0.2").to_numpy()
    shapes = table.geometry.to_numpy()[solid]
    if (shapely.is_empty(shapes) | shapely.is_missing(shapes)).any() or not shapely.has_z(
        shapes
    ).all():
        problems.add("buildings with a solid have no surfaces with z", "MultiPolygonZ")
        return {}, ids, int(solid.sum())
    codes = _check_surfaces(shapes)
    for code in np.unique(codes[codes != 0]).tolist():
        bad = table["id"].to_numpy(object)[solid][codes == code]
        problems.add(f"layer buildings: {bad[0]} has code {code} ({len(bad)} in all)",
                     "closed and valid solids")  # fmt: skip
    lods, counts = np.unique(table["lod"].to_numpy(str), return_counts=True)
    triangles = pyogrio.read_info(path, layer="terrain")["features"] if "terrain" in layers else 0
    issues = pyogrio.read_info(path, layer="issues")["features"] if "issues" in layers else 0
    result = {
        "objects": len(table), "solids": int(solid.sum()), "issues": int(issues),
        "terrain_triangles": int(triangles),
        "lods": dict(zip(lods.tolist(), counts.tolist(), strict=True)),
    }  # fmt: skip
    return result, ids, int(solid.sum())


def _check_surfaces(shapes: Any) -> np.ndarray[Any, Any]:
    """Check MultiPolygonZ as solids, by the coordinates alone."""
    import shapely

    from qala.city.solids import PRISM, Solids, check_solids

    _, coords, (rings, polygons, multis) = shapely.to_ragged_array(shapes)
    keep = np.ones(len(coords), bool)
    keep[np.asarray(rings[1:]) - 1] = False  # the closing point of each ring
    grid = np.rint(coords[keep] * 1000).astype(np.int64)
    index_offsets = np.asarray(rings) - np.arange(len(rings))
    surface_offsets = np.asarray(multis, np.int64)
    ring_offsets = np.asarray(polygons, np.int64)
    ends = index_offsets[ring_offsets[surface_offsets]].astype(np.int64)
    local = np.arange(len(grid)) - np.repeat(ends[:-1], np.diff(ends))
    count = len(shapes)
    return check_solids(
        Solids(
            grid, ends, surface_offsets, ring_offsets, index_offsets.astype(np.int64),
            local.astype(np.int32), np.zeros(len(ring_offsets) - 1, np.uint8),
            np.full(count, PRISM), np.zeros(count, np.int32), np.arange(count),
        )
    )  # fmt: skip


def _check_tiles(folder: Path, ids: set[str], problems: _Limited) -> dict[str, int]:
    tileset = json.loads((folder / "tileset.json").read_text())
    if tileset.get("asset", {}).get("version") != "1.1":
        problems.add("tileset.json is not 3D Tiles 1.1")
    total = {"tiles": 0, "objects": 0}
    seen: set[str] = set()
    stack: list[tuple[dict[str, Any], list[float] | None, float, Any]] = [
        (tileset["root"], None, tileset["geometricError"], np.eye(4))
    ]
    while stack:
        tile, outer, error, above = stack.pop()
        region = tile["boundingVolume"]["region"]
        if outer is not None and not _contains(outer, region):
            problems.add(f"tile {_uri(tile)} lies outside its parent's region")
        if tile["geometricError"] > error:
            problems.add(f"tile {_uri(tile)} has a larger geometric error than its parent")
        matrix = above @ np.array(tile.get("transform", np.eye(4).T.ravel())).reshape(4, 4).T
        if "content" not in tile:
            problems.add("a tile has no content", "something to show at every zoom")
        else:
            total["tiles"] += 1
            names = _check_glb(folder / tile["content"]["uri"], region, matrix, problems)
            total["objects"] += len(names)
            twice = seen & names
            if twice:
                problems.add(f"{sorted(twice)[0]} stands in two tiles")
            if names - ids:
                problems.add(f"{sorted(names - ids)[0]} is in the tiles and not in city.gpkg")
            seen |= names
        stack += [(c, region, tile["geometricError"], matrix) for c in tile.get("children", [])]
    return total


def _uri(tile: dict[str, Any]) -> str:
    return str(tile.get("content", {}).get("uri", "without content"))


def _contains(outer: list[float], inner: list[float]) -> bool:
    return (
        outer[0] <= inner[0] and outer[1] <= inner[1] and outer[4] <= inner[4]
        and outer[2] >= inner[2] and outer[3] >= inner[3] and outer[5] >= inner[5]
    )  # fmt: skip


def read_glb(path: str | Path) -> tuple[dict[str, Any], bytes]:
    """Return the JSON and the binary chunk of a glb.

    Raises
    ------
    InputError
        When its lengths or marks are wrong.
    """
    import struct

    data = Path(path).read_bytes()
    if len(data) < 28 or data[:4] != b"glTF" or struct.unpack("<I", data[8:12])[0] != len(data):
        raise InputError(f"{path} is not a whole glb", "binary glTF 2.0")
    size = struct.unpack("<I", data[12:16])[0]
    return json.loads(data[20 : 20 + size]), data[28 + size :]


def _view(document: dict[str, Any], body: bytes, number: int) -> bytes:
    view = document["bufferViews"][number]
    return body[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]


def _check_glb(path: Path, region: list[float], matrix: Any, problems: _Limited) -> set[str]:
    """Check that a tile's corners lie in its region; return the ids of its objects."""
    if not path.is_file():
        problems.add(f"{path.name} is missing")
        return set()
    try:
        document, body = read_glb(path)
    except InputError as error:
        problems.problems.add_error(error)
        problems.found += 1
        return set()
    table = document["extensions"]["EXT_structural_metadata"]["propertyTables"][0]
    id_column = table["properties"]["id"]
    text = _view(document, body, id_column["values"])
    offsets = np.frombuffer(_view(document, body, id_column["stringOffsets"]), "<u4")
    names = [text[a:b].decode() for a, b in pairwise(offsets.tolist())]
    attributes = document["meshes"][0]["primitives"][0]["attributes"]
    accessors = document["accessors"]
    place = accessors[attributes["POSITION"]]
    xyz = np.frombuffer(_view(document, body, place["bufferView"]), "<f4").reshape(-1, 3)
    feature = np.frombuffer(
        _view(document, body, accessors[attributes["_FEATURE_ID_0"]]["bufferView"]), "<f4"
    )
    index = accessors[document["meshes"][0]["primitives"][0]["indices"]]
    corners = np.frombuffer(
        _view(document, body, index["bufferView"]),
        "<u2" if index["componentType"] == 5123 else "<u4",
    )
    if corners.max() >= len(xyz) or feature.max() >= len(names):
        problems.add(f"{path.name} points outside its vertices or features")
        return set(names)
    widened = [a + s for a, s in zip(region, _SLACK, strict=True)]
    if not _contains(widened, _region(xyz, matrix)):
        problems.add(f"{path.name}: corners lie outside the tile's region")
    return set(names)
