"""3D Tiles 1.1: a quadtree of binary glTF with the objects' attributes inside.

Standard: OGC 22-025r4; glTF 2.0 with EXT_mesh_features, EXT_structural_metadata
and KHR_mesh_quantization. Inner tiles hold the tallest and largest objects, so
that the city does not vanish from afar; children add the rest.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import logging
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qala.city import _kernels
from qala.city.classes import CLASSES, COLOURS, building_class
from qala.city.solids import PRISM, SCALE, Solids, Triangles
from qala.compute import usable_cores
from qala.errors import InputError
from qala.export._earth import E2, A, enu, inverse
from qala.export._files import replace_file

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
ENCODING = 4
#: tilesets up to this size are packed into one script, bytes
PACK_UP_TO = 24 * 2**20
#: cells of a level up to which they are counted in an array
DENSE = 4_000_000
_TEXTS = ("id", "parent", "name", "kind", "class", "height_source", "roof_shape", "lod")
#: columns of a GeoPackage that tiles are made from
_READ = ("id", "parent", "name", "kind", "height", "height_source", "height_lo", "height_hi",
         "min_height", "base_z", "roof_shape", "roof_height", "roof_direction",
         "roof_orientation", "lod", "valid_code", "footprint_area", "floor_area",
         "people")  # fmt: skip
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
    names = _column_names(table)
    prints, code = _prints(table, solids, shown), table.crs.to_epsg()
    records: dict[str, dict[str, Any]] = {}
    order = np.argsort(tree.tile, kind="stable")
    bounds = np.searchsorted(tree.tile[order], np.arange(len(tree.names) + 1))
    todo: list[tuple[str, Array]] = []
    for t, name in enumerate(tree.names):
        here = order[bounds[t] : bounds[t + 1]]
        digest = _digest(prints[here], names, to_ellipsoid, code)
        before = known.get(name)
        if before is not None and before["hash"] == digest and _glb_of(target, name).exists():
            records[name] = before
        else:
            records[name] = {"hash": digest}
            todo.append((name, shown[here]))
    _write_some(target, todo, records, table, solids, triangles, names, to_ellipsoid)
    # a plain run numbers rows as GDAL will: from 1
    numbers = table.index.to_numpy() if table.index.name == "fid" else np.arange(len(table)) + 1
    rows = solids.rows[shown]
    _remember(target, table["id"].to_numpy(object)[rows], numbers[rows], tree, prints, names)
    removed = 0
    for file in (target / "content").glob("*.glb"):
        if file.stem not in records:
            file.unlink()
            removed += 1
    _write_tree(target, tree, records, extras or {})
    return TileReport(len(tree.names), len(todo), len(tree.names) - len(todo), removed, len(shown))


def tiles_from_gpkg(
    path: str | Path,
    folder: str | Path,
    *,
    ids: Sequence[str] | None = None,
    to_ellipsoid: float | None = None,
) -> TileReport:
    """Make the tiles of a twin's GeoPackage anew, as after an edit in a GIS.

    Parameters
    ----------
    path
        ``city.gpkg``: solids are made and checked from the layer ``footprints``.
    folder
        Folder of the tileset, such as ``TWIN/tiles``.
    ids
        Objects that changed or went, where they are known: only their tiles are read and
        written. The rest is taken to be as the last run left it.
    to_ellipsoid
        Metres added to heights; as in the tileset that is there where None, else 0.

    Returns
    -------
    TileReport
        As of :func:`write_tiles`.

    Raises
    ------
    InputError
        When the file is no twin's GeoPackage, or holds nothing to show.

    Notes
    -----
    An object whose height or place changed stays in its tile with ``ids``; a run without
    them gives it the tile of its new size. Where ``ids`` names objects that the tiles don't
    hold, or the tiles are of another version, all are made, and the log says so.
    The CityJSON files and the 3-D index of a twin are not touched.
    """
    target = Path(folder)
    extras: dict[str, Any] = {}
    if (target / "tileset.json").exists():
        extras = json.loads((target / "tileset.json").read_text())["asset"].get("extras", {})
    lift = float(extras.get("addedToReachEllipsoid", 0.0)) if to_ellipsoid is None else to_ellipsoid
    report = None
    if ids is not None:
        report = _update(Path(path), target, [str(i) for i in ids], lift, extras)
    if report is None:
        table, solids, triangles = _from_gpkg(Path(path))
        report = write_tiles(table, solids, triangles, target, to_ellipsoid=lift, extras=extras)
    packed = target.parent / "web" / "tiles.js"
    if packed.exists():
        pack_tiles(target, packed)
    return report


def pack_tiles(tiles: Path, file: Path) -> None:
    """Pack small tilesets into one script, for pages opened as a file."""
    content = [tiles / "tileset.json", *sorted((tiles / "content").glob("*.glb"))]
    if sum(f.stat().st_size for f in content) > PACK_UP_TO:
        file.unlink(missing_ok=True)
        return
    packed = {
        f.relative_to(tiles).as_posix(): base64.b64encode(f.read_bytes()).decode() for f in content
    }
    replace_file(file, b"window.QALA_TILES=" + json.dumps(packed).encode() + b";\n")


def _from_gpkg(
    file: Path, numbers: Sequence[int] | None = None
) -> tuple[gpd.GeoDataFrame, Solids, Triangles]:
    """Read footprints (all, or those of some rows) and make their solids."""
    import pyogrio
    import pyogrio.errors

    from qala.city.solids import make_solids, triangulate

    if not file.is_file():
        raise InputError(f"{file} does not exist", "the city.gpkg of a twin")
    where = None if numbers is None else f"fid IN ({','.join(str(int(n)) for n in numbers)})"
    try:
        table = pyogrio.read_dataframe(
            file,
            layer="footprints",
            columns=list(_READ),
            where=where,
            fid_as_index=True,
            use_arrow=True,
        )
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise InputError(f"{file} cannot be read ({error})", "the city.gpkg of a twin") from error
    missing = [c for c in ("id", "parent", "kind", "height", "min_height", "base_z", "roof_shape",
                           "roof_height", "footprint_area", "lod") if c not in table]  # fmt: skip
    if missing:
        raise InputError(
            f"layer footprints of {file} lacks {', '.join(missing)}", "the city.gpkg of a twin"
        )
    # rows whose parts carry the solids; those without one by a fault are tried again
    whole = (table["lod"] == "0.2").to_numpy() & table["parent"].isna().to_numpy()
    if "valid_code" in table:
        whole &= (table["valid_code"] == 0).to_numpy()
    table["whole"] = whole
    if "roof_direction" not in table:
        table["roof_direction"] = np.nan
    if "roof_orientation" in table:
        table = table.rename(columns={"roof_orientation": "roof:orientation"})
    solids = make_solids(table)
    lods = table["lod"].to_numpy(object).copy()
    lods[solids.rows] = solids.lods
    table["lod"] = lods
    return table, solids, triangulate(solids)


def _update(
    file: Path, target: Path, ids: list[str], lift: float, extras: dict[str, Any]
) -> TileReport | None:
    """Write the tiles of some objects; None where all must be made."""
    import pyarrow as pa
    import pyarrow.compute as pc

    state, known = target / "objects.arrow", _known(target)
    if not state.exists() or not known:
        log.warning("%s tells no tiles of objects: all are made", target)
        return None
    with pa.ipc.open_file(pa.BufferReader(state.read_bytes())) as source:
        kept = source.read_all()
    told = kept.schema.metadata or {}
    if told.get(b"encoding") != str(ENCODING).encode() or any("side" not in r for r in
                                                              known.values()):  # fmt: skip
        log.warning("%s is of another version: all tiles are made", target)
        return None
    found = pc.index_in(pa.array(ids, pa.string()), kept["id"].combine_chunks())
    if found.null_count:
        log.warning("%d of the objects are in no tile yet: all are made", found.null_count)
        return None
    tile = kept["tile"].to_numpy()
    touched = np.unique(tile[found.to_numpy(zero_copy_only=False).astype(np.int64)])
    members = np.flatnonzero(np.isin(tile, touched))
    # a changed building's plate may have become a solid, but it has no tile to lie in
    table, solids, triangles = _from_gpkg(file, kept["fid"].to_numpy()[members].tolist())
    names = tuple(told[b"columns"].decode().split())
    shown = np.flatnonzero(solids.kinds >= PRISM)
    rows = solids.rows[shown]
    # the same objects in the same order as before; those gone or without a solid fall out
    before = dict(zip(kept["id"].take(members).to_pylist(), members, strict=True))
    where = np.array([before.get(i, -1) for i in table["id"].to_numpy(object)[rows]], np.int64)
    gone = set(before) - set(table["id"])
    if (
        (where < 0).any()
        or not gone <= set(ids)
        or set(names) - set(_column_names(table)) - set(_NUMBERS)
    ):
        log.warning("%s has been numbered anew: all tiles are made", file)
        return None
    order = np.argsort(where, kind="stable")
    shown, where = shown[order], where[order]
    prints, code = _prints(table, solids, shown), table.crs.to_epsg()
    tree = _Tree(
        list(known), np.array([r["side"] for r in known.values()]),
        np.array([r["parent"] for r in known.values()]), tile,
    )  # fmt: skip
    todo: list[tuple[str, Array]] = []
    for t in touched.tolist():
        here = np.flatnonzero(tile[where] == t)
        if not len(here):
            log.warning("a tile has become empty: all are made")
            return None
        name = tree.names[t]
        digest = _digest(prints[here], names, lift, code)
        if known[name]["hash"] != digest:
            known[name] = {"hash": digest}
            todo.append((name, shown[here]))
    for name in names:
        if name not in table:
            table[name] = np.nan
    _write_some(target, todo, known, table, solids, triangles, names, lift)
    keep = np.ones(len(tile), bool)
    keep[np.setdiff1d(members, where)] = False
    digests = kept["print"].to_numpy().copy()
    digests[where] = prints
    left = kept.filter(pa.array(keep))
    _remember(
        target, left["id"], left["fid"].to_numpy(),
        _Tree(tree.names, tree.side, tree.parent, tile[keep]), digests[keep], names,
    )  # fmt: skip
    _write_tree(target, tree, known, extras)
    return TileReport(len(tree.names), len(todo), len(tree.names) - len(todo), 0, int(keep.sum()))


def _glb_of(target: Path, name: str) -> Path:
    return target / "content" / f"{name}.glb"


def _write_some(
    target: Path, todo: list[tuple[str, Array]], records: dict[str, dict[str, Any]],
    table: gpd.GeoDataFrame, solids: Solids, triangles: Triangles, names: tuple[str, ...],
    lift: float,
) -> None:  # fmt: skip
    """Write the tiles of ``todo`` (name, solids) and put their places into their records."""
    if not todo:
        return
    # attributes of no more rows than are written
    rows, place = np.unique(
        solids.rows[np.concatenate([mine for _, mine in todo])], return_inverse=True
    )
    columns = _columns(table.iloc[rows], names)
    cuts = np.cumsum([len(mine) for _, mine in todo])[:-1]
    move = _geographic(table.crs)

    def write(job: tuple[tuple[str, Array], Array]) -> dict[str, Any]:
        (name, mine), here = job
        glb, region, matrix = _encode(solids, triangles, mine, here, columns, move, lift)
        replace_file(_glb_of(target, name), glb)
        return {"region": region, "matrix": matrix}

    jobs = list(zip(todo, np.split(place, cuts), strict=True))
    with ThreadPoolExecutor(min(usable_cores(), 4)) as pool:
        for (name, _), record in zip(todo, pool.map(write, jobs), strict=True):
            records[name] |= record


def _write_tree(
    target: Path, tree: _Tree, records: dict[str, dict[str, Any]], extras: dict[str, Any]
) -> None:
    """Write the tileset, and the record that the next run goes on from."""
    import msgspec

    for name, side, parent in zip(
        tree.names, tree.side.tolist(), tree.parent.tolist(), strict=True
    ):
        records[name] |= {"side": side, "parent": parent}
    replace_file(target / "tileset.json", msgspec.json.encode(_tileset(tree, records, extras)))
    kept = {name: records[name] for name in tree.names}
    replace_file(target / "tiles.json", msgspec.json.encode(kept))


def _remember(
    target: Path, ids: Any, numbers: Array, tree: _Tree, prints: Array,
    names: tuple[str, ...],
) -> None:  # fmt: skip
    """Keep each object's tile and digest, in the order of the tiles' features."""
    import pyarrow as pa

    kept = pa.table(
        {
            "id": ids if isinstance(ids, pa.ChunkedArray) else pa.array(ids, pa.string()),
            "fid": numbers.astype(np.int64), "tile": tree.tile.astype(np.int32), "print": prints,
        },
        metadata={"columns": " ".join(names), "encoding": str(ENCODING)},
    )  # fmt: skip
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, kept.schema) as writer:
        writer.write_table(kept)
    replace_file(target / "objects.arrow", sink.getvalue().to_pybytes())


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
        corner = cell.min(axis=0)
        across, deep = (cell.max(axis=0) - corner + 1).tolist()
        code = (cell[:, 0] - corner[0]) * deep + cell[:, 1] - corner[1]
        cells = across * deep
        if cells > DENSE:  # a few far islands
            found, code = np.unique(code, return_inverse=True)
            cells = len(found)
        else:
            found = np.arange(cells)
        # solids stand by falling weight, so a cell's first are its heaviest
        rank, filled = _kernels.rank_in_cells(code, cells)
        used = np.flatnonzero(filled)
        where = (np.cumsum(filled > 0) - 1)[code]
        keys = np.column_stack([found[used] // deep, found[used] % deep]) + corner
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


def _column_names(table: gpd.GeoDataFrame) -> tuple[str, ...]:
    """Return the attributes that travel in tiles; numbers that nothing has stay out."""
    numbers = [n for n in _NUMBERS if n in table and np.isfinite(table[n].to_numpy(float)).any()]
    return (*(n for n in _TEXTS if n == "class" or n in table), *numbers)


def _columns(table: gpd.GeoDataFrame, names: tuple[str, ...]) -> dict[str, Any]:
    """Return attributes: Arrow arrays of texts and float32 of numbers (NaN where not known)."""
    out: dict[str, Any] = {}
    for name in names:
        if name == "class":
            out[name] = _texts(building_class(table["kind"]))
        elif name in _TEXTS:
            out[name] = _texts(table[name])
        else:
            out[name] = table[name].to_numpy(float).astype(np.float32)
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
        if name in _NUMBERS:
            hashed = pd.util.hash_array(table[name].to_numpy(float))
        elif name in ("id", "class"):  # all differ; the class follows from the kind
            if name == "class":
                continue
            hashed = pd.util.hash_array(table[name].to_numpy(object), categorize=False)
        else:
            few = _texts(table[name]).dictionary_encode()
            words = pd.util.hash_array(few.dictionary.to_numpy(zero_copy_only=False))
            hashed = words[few.indices.to_numpy(zero_copy_only=False)]
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + hashed
    return np.asarray(out * np.uint64(0xBF58476D1CE4E5B9) + mixed[rows])


def _texts(column: Any) -> Any:
    """Return texts as one Arrow array, missing ones empty."""
    import pyarrow as pa

    made = pa.array(column, type=pa.string(), from_pandas=True)
    if isinstance(made, pa.ChunkedArray):
        made = made.combine_chunks()
    return made.fill_null("")


def _digest(prints: Array, names: tuple[str, ...], lift: float, code: int | None) -> str:
    """Return a digest of everything a tile is made of."""
    hashed = hashlib.blake2b(f"{ENCODING} {lift!r} {code} {names}".encode(), digest_size=16)
    hashed.update(prints.tobytes())
    return hashed.hexdigest()


def _encode(
    solids: Solids, triangles: Triangles, mine: Array, rows: Array, columns: dict[str, Any],
    move: Any, lift: float,
) -> tuple[bytes, list[float], list[float]]:  # fmt: skip
    """Return a tile's glb, region (radians, metres) and matrix (column by column).

    ``rows`` are the places of the tile's solids ``mine`` in ``columns``.
    """
    vo = solids.vertex_offsets
    v = solids.vertices[_kernels.ranges(vo[mine], vo[mine + 1])]
    starts = np.concatenate([[0], np.cumsum(vo[mine + 1] - vo[mine])])[:-1]
    lon, lat = move.transform(v[:, 0] / SCALE, v[:, 1] / SCALE)
    z = v[:, 2] / SCALE + lift
    # a hair wider than the corners: the region must contain them after rounding
    hair = 1e-9
    region = [
        float(np.radians(lon.min())) - hair, float(np.radians(lat.min())) - hair,
        float(np.radians(lon.max())) + hair, float(np.radians(lat.max())) + hair,
        float(z.min()) - 0.01, float(z.max()) + 0.01,
    ]  # fmt: skip
    matrix = enu((region[0] + region[2]) / 2, (region[1] + region[3]) / 2, region[4])
    xyz = np.empty((len(z), 3))
    _kernels.to_local(lon, lat, z, matrix, A, E2, xyz)
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
    attributes = {
        name: values[rows] if isinstance(values, np.ndarray) else values.take(rows)
        for name, values in columns.items()
    }
    colours = np.empty((count, 4), np.uint8)
    _kernels.paint(_palette(), _class_numbers(attributes["class"]), feature, roof, colours)
    glb = _glb(position, normal, feature, colours, corners, attributes, len(mine))
    return glb, region, matrix.T.ravel().tolist()


@functools.cache
def _palette() -> Array:
    """Return (wall or roof, class, rgba) in linear light as glTF wants; roofs a little darker."""
    srgb = np.array(list(COLOURS.values()), float) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    out = np.full((2, len(srgb), 4), 255, np.uint8)
    out[0, :, :3], out[1, :, :3] = np.rint(linear * 255), np.rint(linear * 0.8 * 255)
    return out


def _class_numbers(classes: Any) -> Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.index_in(classes, pa.array(CLASSES))
    return np.asarray(found.to_numpy(zero_copy_only=False), np.int64)


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
    import msgspec

    buffer = _Buffer()
    count = len(position)
    low, high = _kernels.bounds3(position)
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
         "min": low.tolist(), "max": high.tolist()},
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
        if not isinstance(values, np.ndarray):
            _, offsets, data = values.buffers()
            # a view of no bytes is not allowed
            text = (data.to_pybytes() if data is not None else b"") or b"\0"
            properties[name] = {
                "values": buffer.add(text),
                "stringOffsets": buffer.add(offsets.to_pybytes()[: 4 * (features + 1)]),
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
    head = msgspec.json.encode(document)
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
        matrix = own[i] if above is None else inverse(above) @ own[i]
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
    span = max(box[2] - box[0], box[3] - box[1]) * A
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
