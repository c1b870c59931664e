"""CityJSON 2.0 and CityJSONSeq of a twin's buildings.

Standard: CityJSON 2.0.1 (OGC 20-072r5, doi:10.1186/s40965-019-0064-0); a line of
CityJSONSeq is one building with its parts.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qala.city import _kernels
from qala.city.kept import Kept, Piece, pieces
from qala.city.relief import TERRAIN, Relief
from qala.city.solids import SCALE, SURFACES, Solids, rows_of_solids
from qala.errors import InputError
from qala.files import replacing

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

Array = np.ndarray[Any, Any]

#: columns that travel as attributes, where the table has them
ATTRIBUTES = (
    "kind", "name", "height", "height_source", "height_lo", "height_hi", "min_height", "base_z",
    "roof_shape", "roof_source", "lod", "valid_code", "floor_area", "people", "valid_from",
    "valid_to",
)  # fmt: skip
#: bits that tell vertices apart, an object: some ten vertices of it, and few mistaken
BITS = 128

_SURFACES = ",".join(f'{{"type":"{name}"}}' for name in SURFACES)


def _bytes(text: str) -> Array:
    return np.frombuffer(text.encode(), np.uint8)


#: words of a geometry around its boundaries and the values of its semantics
_PLATE = _bytes('{"type":"MultiSurface","lod":"0.2","boundaries":[')
_PRISM = _bytes('{"type":"Solid","lod":"1.2","boundaries":[[')
_ROOF = _bytes('{"type":"Solid","lod":"2.0","boundaries":[[')
_BETWEEN = _bytes(']],"semantics":{"surfaces":[' + _SURFACES + '],"values":[[')
_END = _bytes("]]}}")


def write_cityjson(
    table: gpd.GeoDataFrame | Kept,
    path: str | Path,
    seq_path: str | Path | None = None,
    *,
    title: str = "",
    attribution: str = "",
    relief: Relief | None = None,
) -> None:
    """Write the buildings as one CityJSON file and as CityJSONSeq.

    Parameters
    ----------
    table
        Buildings as :func:`qala.city.solids.make_solids` takes them, in memory or on disk, sorted
        by id, projected CRS with an EPSG code; ``id, parent`` and attribute columns.
    path
        ``.city.json`` to write.
    seq_path
        ``.city.jsonl`` to write as well.
    title
        Title in the metadata.
    attribution
        Notice of the sources, kept in the title.
    relief
        The terrain, written as one TINRelief.

    Raises
    ------
    InputError
        When the CRS has no EPSG code, ids repeat, or rows aren't sorted by id.

    Notes
    -----
    Scale is 0.001: the solids lie on whole millimetres and are checked there. They are made
    some buildings at a time, twice: first to tell which vertices several share. What is kept of
    all are a few bits a vertex, and the shared ones. Each file appears whole or not at all.
    """
    code = table.crs.to_epsg() if table.crs is not None else None
    if code is None:
        raise InputError("the buildings' CRS has no EPSG code", "a UTM zone such as EPSG:32642")
    vertices = Vertices(len(table))
    low, high = _look_through(table, vertices)
    ground = _ground(relief)
    if ground is not None:
        low, high = np.minimum(low, ground.min(axis=0)), np.maximum(high, ground.max(axis=0))
    head = _head(code, low, high, title, attribution)
    with ExitStack() as stack:
        works = [stack.enter_context(replacing(Path(f))) for f in (path, seq_path) if f is not None]
        _write(works, head, table, vertices, low, relief)


def _ground(relief: Relief | None) -> Array | None:
    """Return the terrain's vertices in whole millimetres."""
    return None if relief is None else np.rint(relief.vertices * SCALE).astype(np.int64)


def _terrain(relief: Relief, first: int) -> dict[str, Any]:
    """Return the terrain as a city object whose vertices begin at ``first``."""
    corners = (relief.triangles + first)[:, None, :]
    return {
        "type": "TINRelief",
        "attributes": {
            "verticalDatum": relief.datum, "source": relief.source, "maxError": relief.max_error,
            "filledShare": round(relief.filled, 4),
        },
        "geometry": [
            {"type": "CompositeSurface", "lod": "1", "boundaries": corners.tolist()}
        ],
    }  # fmt: skip


def _head(code: int, low: Array, high: Array, title: str, attribution: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "geographicalExtent": [*(low / SCALE).tolist(), *(high / SCALE).tolist()],
        "referenceSystem": f"https://www.opengis.net/def/crs/EPSG/0/{code}",
    }
    # the standard's metadata has no field for a notice; the title travels everywhere
    words = " – ".join(w for w in (title, attribution) if w)
    if words:
        metadata["title"] = words
    return {
        "type": "CityJSON",
        "version": "2.0",
        "transform": {"scale": [1 / SCALE] * 3, "translate": (low / SCALE).tolist()},
        "metadata": metadata,
    }


#: columns that solids and boxes are made of, and those that order them
_SHAPING = ("id", "parent", "height", "min_height", "base_z", "roof_shape", "roof_height",
            "roof_direction", "roof:orientation", "whole")  # fmt: skip


def _look_through(table: gpd.GeoDataFrame | Kept, vertices: Vertices) -> tuple[Array, Array]:
    """Meet all vertices; return the lowest and highest corner of all objects, whole millimetres."""
    box = np.full((2, 3), [[np.inf], [-np.inf]])
    last = ""
    for piece in pieces(table, _SHAPING):
        part = piece.frame()
        ids = [last, *part["id"].tolist()]
        if any(b <= a for a, b in pairwise(ids)):
            raise InputError("building ids repeat or are not sorted", "a table sorted by unique id")
        last = ids[-1]
        vertices.meet(piece.solids().vertices)
        base = part["base_z"].to_numpy(float)
        low, high = (np.nan_to_num(part[c].to_numpy(float)) for c in ("min_height", "height"))
        lows = (*piece.boxes[:, :2].min(axis=0), (base + np.minimum(low, 0)).min())
        highs = (*piece.boxes[:, 2:].max(axis=0), (base + high).max())
        box[0], box[1] = np.minimum(box[0], lows), np.maximum(box[1], highs)
    out = np.rint(np.where(np.isfinite(box), box, 0.0) * SCALE).astype(np.int64)
    return out[0], out[1]


class Vertices:
    """Distinct vertices in the order they are met, of which only those met again are kept.

    Parameters
    ----------
    rows
        Objects that are expected: decides how many bits tell vertices apart.
    """

    def __init__(self, rows: int) -> None:
        words = 1 << max((rows * BITS // 64).bit_length(), 4)
        self.once, self.twice = np.zeros(words, np.uint64), np.zeros(words, np.uint64)
        self.again = self.count = self.used = 0
        self.known: Array | None = None

    def meet(self, v: Array) -> None:
        """Look at vertices (whole numbers) that will be added; each comes by once."""
        self.again += _kernels.meet_vertices(v, self.once, self.twice)

    def add(self, v: Array) -> tuple[Array, Array]:
        """Return the place of each vertex among the distinct ones, and whether it is new there."""
        if self.known is None:
            self.once = self.once[:0]
            room = 2 * self.again + 1
            self.known, self.numbers = np.empty((room, 3), np.int64), np.empty(room, np.int64)
            self.slots = np.zeros(1 << (2 * room).bit_length(), np.int32)
        out, new = np.empty(len(v), np.int64), np.empty(len(v), np.bool_)
        self.count, self.used = _kernels.number_vertices(
            v, self.twice, self.count, self.known, self.numbers, self.slots, self.used, out, new
        )
        return out, new


def vertices_text(v: Array, low: Array) -> tuple[bytes, Array]:
    """Return ``[x,y,z],`` of each vertex less ``low``, and where each begins."""
    wide = max(len(str(int(n))) for n in np.abs(v - low).max(axis=0, initial=0)) + 1
    out, starts = np.empty(len(v) * (3 * wide + 5), np.uint8), np.empty(len(v) + 1, np.int64)
    used = _kernels.vertices_text(v, low, out, starts)
    return out[:used].tobytes(), starts


def _geometries(solids: Solids, count: int, numbers: Array) -> tuple[bytes, list[int]]:
    """Return the geometries of each row as JSON, and where each row's begins."""
    digits = len(str(int(numbers.max(initial=0)))) + 1
    rings, surfaces = len(solids.index_offsets) - 1, len(solids.surface_types)
    constant = len(_PLATE) + len(_ROOF) + len(_BETWEEN) + len(_END) + 8
    size = len(solids.indices) * digits + 4 * rings + 6 * surfaces + constant * len(solids)
    out, starts = np.empty(size, np.uint8), np.empty(count + 1, np.int64)
    used = _kernels.geometry_text(
        rows_of_solids(solids, count), solids.kinds, solids.surface_offsets, solids.ring_offsets,
        solids.index_offsets, solids.indices, solids.vertex_offsets, numbers, solids.surface_types,
        _PLATE, _PRISM, _ROOF, _BETWEEN, _END, out, starts,
    )  # fmt: skip
    return out[:used].tobytes(), starts.tolist()


def _attributes(part: pd.DataFrame, lods: Array) -> list[bytes]:
    """Return the attributes of each row as a JSON object, missing ones left out."""
    import msgspec

    names = [n for n in ATTRIBUTES if n in part or n == "lod"]
    columns = [lods.tolist() if n == "lod" else _plain(part[n]) for n in names]
    shape: Any = msgspec.defstruct(
        "Attributes", [(n, Any, None) for n in names], omit_defaults=True, gc=False
    )
    return list(map(msgspec.json.Encoder().encode, map(shape, *columns)))


def _write(
    works: Sequence[Path], head: dict[str, Any], table: gpd.GeoDataFrame | Kept,
    vertices: Vertices, low: Array, relief: Relief | None,
) -> None:  # fmt: skip
    """Write the whole file and, where there is a second, the sequence, some buildings at a time."""
    import msgspec

    encode = msgspec.json.encode
    with ExitStack() as stack:
        whole = stack.enter_context(works[0].open("wb"))
        seq = stack.enter_context(works[1].open("wb")) if len(works) > 1 else None
        # vertices stand behind all objects in the file
        listed = stack.enter_context(tempfile.TemporaryFile(dir=works[0].parent))
        whole.write(encode(head)[:-1] + b',"CityObjects":{')
        if seq is not None:
            seq.write(encode({**head, "CityObjects": {}, "vertices": []}) + b"\n")
        comma = b"\n"
        for piece in _whole_buildings(table):
            solids, part = piece.solids(), piece.frame()
            numbers, new = vertices.add(solids.vertices)
            listed.write(vertices_text(solids.vertices[new], low)[0])
            objects, lines = _chunk(part, solids, numbers, low, seq is not None)
            whole.write(comma + b",\n".join(objects))
            comma = b",\n"
            if seq is not None:
                seq.write(b"\n".join(lines) + b"\n")
        ground = _ground(relief)
        if relief is not None and ground is not None:
            item = _terrain(relief, vertices.count)
            whole.write(comma + encode(TERRAIN) + b":" + encode(item))
            listed.write(vertices_text(ground, low)[0])
            if seq is not None:
                feature = {
                    "type": "CityJSONFeature", "id": TERRAIN,
                    "CityObjects": {TERRAIN: _terrain(relief, 0)},
                    "vertices": (ground - low).tolist(),
                }  # fmt: skip
                seq.write(encode(feature) + b"\n")
        whole.write(b'},\n"vertices":[')
        # without the last comma
        listed.truncate(max(listed.tell() - 1, 0))
        listed.seek(0)
        shutil.copyfileobj(listed, whole, 1 << 20)
        whole.write(b"]}\n")


def _whole_buildings(table: gpd.GeoDataFrame | Kept) -> Iterator[Piece]:
    """Give the rows some at a time, and never part a building from its parts behind it."""
    left: Piece | None = None
    for piece in pieces(table, (*_SHAPING, *ATTRIBUTES)):
        part = piece if left is None else left.before(piece)
        tops = np.flatnonzero(np.asarray(part.columns.column("parent").is_null()))
        cut = int(tops[-1]) if len(tops) else 0
        if cut:
            yield part.rows(0, cut)
        left = part.rows(cut, len(part))
    if left is not None:
        yield left


def _chunk(
    part: pd.DataFrame, solids: Solids, places: Array, low: Array, both: bool
) -> tuple[list[bytes], list[bytes]]:
    """Return the city objects of some buildings, and the lines of their features."""
    import msgspec

    encode = msgspec.json.encode
    count = len(part)
    lods = np.full(count, "0.2", object)
    lods[solids.rows] = solids.lods
    attributes = _attributes(part, lods)
    text, at = _geometries(solids, count, places)
    ids, parents = part["id"].tolist(), _plain(part["parent"])
    names = [encode(i) for i in ids]
    children: dict[str, list[bytes]] = {}
    for name, parent in zip(names, parents, strict=True):
        if parent is not None:
            children.setdefault(parent, []).append(name)
    heads, tails = [], []
    for row, parent in enumerate(parents):
        kind = b"Building" if parent is None else b"BuildingPart"
        heads.append(
            b'%b:{"type":"%b","attributes":%b,"geometry":[' % (names[row], kind, attributes[row])
        )
        tail = b"]" if parent is None else b'],"parents":[%b]' % encode(parent)
        if ids[row] in children:
            tail += b',"children":[%b]' % b",".join(children[ids[row]])
        tails.append(tail + b"}")
    objects = [heads[r] + text[at[r] : at[r + 1]] + tails[r] for r in range(count)]
    if not both:
        return objects, []
    # corners counted from the first vertex of their feature
    groups = _groups(part)
    begin = solids.vertex_offsets[rows_of_solids(solids, count)[groups]]
    numbers = np.arange(len(solids.vertices)) - np.repeat(begin[:-1], np.diff(begin))
    local, at = _geometries(solids, count, numbers)
    corners, where = vertices_text(solids.vertices, low)
    cuts = where[begin].tolist()
    lines = []
    for g, (a, b) in enumerate(pairwise(groups.tolist())):
        inside = b",".join([heads[r] + local[at[r] : at[r + 1]] + tails[r] for r in range(a, b)])
        lines.append(
            b'{"type":"CityJSONFeature","id":%b,"CityObjects":{%b},"vertices":[%b]}'
            % (names[a], inside, corners[cuts[g] : cuts[g + 1] - 1])
        )
    return objects, lines


def _plain(column: Any) -> list[Any]:
    """Return values that JSON can hold; missing ones as None."""
    values = column.tolist()
    missing = column.isna().to_numpy().copy()
    if column.dtype.kind == "f":
        missing |= ~np.isfinite(column.to_numpy())
    if not missing.any():
        return list(values)
    return [None if gone else v for v, gone in zip(values, missing.tolist(), strict=True)]


def _groups(table: pd.DataFrame) -> Array:
    """Return the first row of each top building (its parts follow it)."""
    alone = table["parent"].isna().to_numpy()
    return np.append(np.flatnonzero(alone), len(table))
