"""CityJSON 2.0 and CityJSONSeq of a twin's buildings.

Standard: CityJSON 2.0.1 (OGC 20-072r5, doi:10.1186/s40965-019-0064-0); a line of
CityJSONSeq is one building with its parts.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qala.city.relief import TERRAIN, Relief
from qala.city.solids import PLATE, SCALE, SURFACES, Solids
from qala.errors import InputError

if TYPE_CHECKING:
    import geopandas as gpd

Array = np.ndarray[Any, Any]

#: columns that travel as attributes, where the table has them
ATTRIBUTES = (
    "kind", "name", "height", "height_source", "height_lo", "height_hi", "min_height", "base_z",
    "roof_shape", "roof_source", "lod", "valid_code", "floor_area", "people", "valid_from",
    "valid_to",
)  # fmt: skip
#: solids encoded before they are written out; bounds the memory
CHUNK = 20_000

_SEMANTICS = [{"type": name} for name in SURFACES]


@contextmanager
def _no_collector() -> Iterator[None]:
    """Pause the garbage collector: many small lists that all live on cost it much."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def write_cityjson(
    table: gpd.GeoDataFrame,
    solids: Solids,
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
        Buildings sorted by id, projected CRS with an EPSG code; ``id, parent`` and
        attribute columns.
    solids
        Their solids in whole millimetres.
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
    Scale is 0.001: the solids lie on whole millimetres and were checked there.
    Each file appears whole or not at all.
    """
    import os
    import uuid

    code = table.crs.to_epsg() if table.crs is not None else None
    if code is None:
        raise InputError("the buildings' CRS has no EPSG code", "a UTM zone such as EPSG:32642")
    ids = table["id"].tolist()
    if len(set(ids)) != len(ids) or any(b < a for a, b in pairwise(ids)):
        raise InputError("building ids repeat or are not sorted", "a table sorted by unique id")
    v = solids.vertices
    low = v.min(axis=0) if len(v) else np.zeros(3, np.int64)
    high = v.max(axis=0) if len(v) else low
    ground = _ground(relief)
    if ground is not None:
        low, high = np.minimum(low, ground.min(axis=0)), np.maximum(high, ground.max(axis=0))
    head = _head(code, low, high, title, attribution)
    targets = [Path(path)] + ([Path(seq_path)] if seq_path else [])
    works = [t.with_name(f".{t.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}") for t in targets]
    try:
        with _no_collector():
            _write_whole(works[0], head, table, solids, low, relief)
            if seq_path:
                _write_seq(works[1], head, table, solids, low, relief)
        for work, target in zip(works, targets, strict=True):
            work.replace(target)
    finally:
        for work in works:
            work.unlink(missing_ok=True)


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


def unique_vertices(v: Array) -> tuple[Array, Array]:
    """Return distinct rows of whole-number vertices and the place of each row among them."""
    if not len(v):
        return v, np.zeros(0, np.int64)
    import pandas as pd

    low = v.min(axis=0)
    shift = (v - low).astype(np.int64)
    _, deep, high = (int(n) for n in shift.max(axis=0) + 1)
    # columns first: their number times the heights fits in 64 bits where x·y·z would not
    column, columns = pd.factorize(shift[:, 0] * deep + shift[:, 1])
    place, keys = pd.factorize(column * high + shift[:, 2])  # as met: near corners stay near
    which, z = np.divmod(keys, high)
    x, y = np.divmod(columns[which], deep)
    return np.column_stack([x, y, z]) + low, place


def _objects(
    table: gpd.GeoDataFrame, solids: Solids, flat: Sequence[int], first: int, last: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (id, city object) of the table's rows first:last, with indices from ``flat``."""
    s0, s1 = np.searchsorted(solids.rows, [first, last])
    so = solids.surface_offsets[s0 : s1 + 1].tolist()
    f0 = so[0]
    ring_offsets = solids.ring_offsets[f0 : so[-1] + 1].tolist()
    r0 = ring_offsets[0]
    index_offsets = solids.index_offsets[r0 : ring_offsets[-1] + 1].tolist()
    i0 = index_offsets[0]
    types = solids.surface_types[f0 : so[-1]].tolist()
    kinds = solids.kinds[s0:s1].tolist()
    lods = solids.lods[s0:s1].tolist()
    row_solids = np.searchsorted(solids.rows, np.arange(first, last + 1)) - s0
    starts = row_solids.tolist()
    part = table.iloc[first:last]
    columns = [(name, _plain(part[name])) for name in ATTRIBUTES if name in part]
    ids, parents = part["id"].tolist(), _plain(part["parent"])
    children: dict[str, list[str]] = {}
    for child, parent in zip(ids, parents, strict=True):
        if parent is not None:
            children.setdefault(parent, []).append(child)
    for row, name in enumerate(ids):
        geometry: list[dict[str, Any]] = []
        for s in range(starts[row], starts[row + 1]):
            surfaces = [
                [
                    flat[index_offsets[r - r0] - i0 : index_offsets[r - r0 + 1] - i0]
                    for r in range(ring_offsets[f - f0], ring_offsets[f - f0 + 1])
                ]
                for f in range(so[s], so[s + 1])
            ]
            if kinds[s] == PLATE:
                geometry.append({"type": "MultiSurface", "lod": "0.2", "boundaries": surfaces})
            else:
                geometry.append(
                    {
                        "type": "Solid",
                        "lod": lods[s],
                        "boundaries": [surfaces],
                        "semantics": {
                            "surfaces": _SEMANTICS,
                            "values": [types[so[s] - f0 : so[s + 1] - f0]],
                        },
                    }
                )
        if len(geometry) > 1:  # plates of several pieces are one geometry
            geometry = [
                {
                    "type": "MultiSurface",
                    "lod": "0.2",
                    "boundaries": [b for g in geometry for b in g["boundaries"]],
                }
            ]
        item: dict[str, Any] = {
            "type": "Building",
            "attributes": {k: v[row] for k, v in columns if v[row] is not None},
            "geometry": geometry,
        }
        parent = parents[row]
        if parent is not None:
            item["type"] = "BuildingPart"
            item["parents"] = [parent]
        if name in children:
            item["children"] = children[name]
        yield name, item


def _plain(column: Any) -> list[Any]:
    """Return values that JSON can hold; missing ones as None."""
    values = column.tolist()
    missing = column.isna().to_numpy().copy()
    if column.dtype.kind == "f":
        missing |= ~np.isfinite(column.to_numpy())
    if not missing.any():
        return list(values)
    return [None if gone else v for v, gone in zip(values, missing.tolist(), strict=True)]


def _groups(table: gpd.GeoDataFrame) -> Array:
    """Return the first row of each top building (its parts follow it)."""
    alone = table["parent"].isna().to_numpy()
    return np.append(np.flatnonzero(alone), len(table))


def _chunks(table: gpd.GeoDataFrame) -> Iterator[tuple[int, int]]:
    """Yield row ranges that never part a building from its parts."""
    starts = _groups(table)
    at = 0
    while at < len(starts) - 1:
        after = min(at + CHUNK, len(starts) - 1)
        yield int(starts[at]), int(starts[after])
        at = after


def _write_whole(
    work: Path, head: dict[str, Any], table: gpd.GeoDataFrame, solids: Solids, low: Array,
    relief: Relief | None,
) -> None:  # fmt: skip
    import msgspec

    encode = msgspec.json.encode
    found, place = unique_vertices(solids.vertices)
    # corners of every ring, as places in the file's one list of vertices
    owner = _index_solids(solids)
    everywhere = place[solids.indices + solids.vertex_offsets[owner]]
    with work.open("wb") as sink:
        sink.write(encode(head)[:-1] + b',"CityObjects":{')
        comma = b"\n"
        for first, last in _chunks(table):
            i0, i1 = _index_range(solids, first, last)
            flat = everywhere[i0:i1].tolist()
            text = b",\n".join(
                encode(name) + b":" + encode(item)
                for name, item in _objects(table, solids, flat, first, last)
            )
            sink.write(comma + text)
            comma = b",\n"
        if relief is not None:
            item = _terrain(relief, len(found))
            sink.write(comma + encode(TERRAIN) + b":" + encode(item))
            found = np.vstack([found, np.rint(relief.vertices * SCALE).astype(np.int64)])
        sink.write(b'},\n"vertices":[')
        for start in range(0, len(found), 200_000):
            block = encode((found[start : start + 200_000] - low).tolist())
            sink.write((b"," if start else b"") + block[1:-1])
        sink.write(b"]}\n")


def _write_seq(
    work: Path, head: dict[str, Any], table: gpd.GeoDataFrame, solids: Solids, low: Array,
    relief: Relief | None,
) -> None:  # fmt: skip
    import msgspec

    encode = msgspec.json.encode
    starts = _groups(table)
    solid_first = np.searchsorted(solids.rows, starts)
    vertex_first = solids.vertex_offsets[solid_first]
    # corners counted from the first vertex of their feature
    owner = _index_solids(solids)
    feature = np.searchsorted(solid_first, np.arange(len(solids)), side="right") - 1
    local = solids.indices + (solids.vertex_offsets[:-1] - vertex_first[feature])[owner]
    with work.open("wb") as sink:
        sink.write(encode({**head, "CityObjects": {}, "vertices": []}) + b"\n")
        group = 0
        for first, last in _chunks(table):
            i0, i1 = _index_range(solids, first, last)
            flat = local[i0:i1].tolist()
            s0, s1 = np.searchsorted(solids.rows, [first, last])
            v0, v1 = solids.vertex_offsets[s0], solids.vertex_offsets[s1]
            vertices = (solids.vertices[v0:v1] - low).tolist()
            lines: list[bytes] = []
            objects: dict[str, Any] = {}
            row = first
            for name, item in _objects(table, solids, flat, first, last):
                objects[name] = item
                row += 1
                if row == starts[group + 1]:
                    a, b = int(vertex_first[group] - v0), int(vertex_first[group + 1] - v0)
                    lines.append(
                        encode(
                            {
                                "type": "CityJSONFeature",
                                "id": next(iter(objects)),
                                "CityObjects": objects,
                                "vertices": vertices[a:b],
                            }
                        )
                    )
                    objects = {}
                    group += 1
            sink.write(b"\n".join(lines) + b"\n")
        ground = _ground(relief)
        if relief is not None and ground is not None:
            feature_of = {
                "type": "CityJSONFeature", "id": TERRAIN,
                "CityObjects": {TERRAIN: _terrain(relief, 0)}, "vertices": (ground - low).tolist(),
            }  # fmt: skip
            sink.write(encode(feature_of) + b"\n")


def _index_solids(solids: Solids) -> Array:
    """Return the solid of every index."""
    ends = solids.index_offsets[solids.ring_offsets[solids.surface_offsets]]
    return np.repeat(np.arange(len(solids)), np.diff(ends))


def _index_range(solids: Solids, first: int, last: int) -> tuple[int, int]:
    s0, s1 = np.searchsorted(solids.rows, [first, last])
    a, b = solids.index_offsets[solids.ring_offsets[solids.surface_offsets[[s0, s1]]]]
    return int(a), int(b)
