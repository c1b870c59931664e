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
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qala.city import _kernels
from qala.city._columns import bytes_of, floats, texts, wkb_of
from qala.city.classes import CLASSES, COLOURS, building_class
from qala.city.solids import PRISM, SCALE, Solids, Triangles, solids_of, triangulate
from qala.compute import usable_cores
from qala.errors import InputError, Problems
from qala.export._earth import A, ecef, enu
from qala.files import replace_file, replacing

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
ENCODING = 6
#: tilesets up to this size are packed into one script, bytes
PACK_UP_TO = 24 * 2**20
#: cells of a level up to which they are counted in an array
DENSE = 4_000_000
_TEXTS = ("id", "parent", "name", "kind", "class", "height_source", "roof_shape", "lod")
#: numbers of the classes, which travel as colours
_CLASS = "class number"
_NUMBERS = ("height", "height_lo", "height_hi", "base_z", "floor_area", "people")
#: what an object's digest is made of, besides its outline
_HASHED = (("id", "parent", "name", "kind", "height_source", "roof_shape", "roof_orientation"),
           (*_NUMBERS, "min_height", "roof_height", "roof_direction"))  # fmt: skip
#: columns of a GeoPackage that tiles are made from; those without which there are none
_READ = (*_HASHED[0], *_HASHED[1], "lod", "valid_code")
_NEEDED = ("id", "parent", "kind", "height", "min_height", "base_z", "roof_shape", "roof_height",
           "lod")  # fmt: skip
#: objects made into tiles at a time by one thread, and rows read at a time
JOB, ROWS = 4_000, 16_384
#: points along a side of the grid that a tile's map to the globe is fitted to
GRID = 7
#: greatest error of that fit, metres; beyond it every corner is asked of PROJ
FIT = 1e-4


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
        Buildings as :func:`qala.city.solids.make_solids` takes them, projected CRS in metres.
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

    Notes
    -----
    Solids are made and checked tile by tile, of no more objects than a few tiles hold;
    only a few numbers of each object are kept.
    """
    rows = np.arange(len(table))
    if "whole" in table:
        rows = rows[~table["whole"].to_numpy(bool)]
    part = table if len(rows) == len(table) else table.iloc[rows]
    columns = {c: part[c] for c in part.columns if c != part.geometry.name}
    if "roof:orientation" in columns:
        columns["roof_orientation"] = columns["roof:orientation"]
    # a plain run numbers rows as GDAL will: from 1
    numbers = part.index.to_numpy() if table.index.name == "fid" else rows + 1
    outlines = wkb_of(part.geometry)
    objects = _join_surveys([_survey(columns, outlines, numbers, "the table")], "the table")
    names = _column_names(columns, objects)
    shapes = table.geometry.to_numpy()
    # columns of the job's rows alone are copied
    wanted = [c for c in (*_READ, "roof:orientation") if c in table]
    plain = {c: table[c].to_numpy() for c in wanted}

    def take(numbers: Array) -> tuple[dict[str, Any], Any]:
        at = table.index.get_indexer(numbers) if table.index.name == "fid" else numbers - 1
        return {c: v[at] for c, v in plain.items()}, wkb_of(shapes[at])

    return _write(objects, take, names, table.crs, Path(folder), to_ellipsoid, extras or {},
                  leaf, inner)  # fmt: skip


def tiles_from_gpkg(
    path: str | Path,
    folder: str | Path,
    *,
    ids: Sequence[str] | None = None,
    to_ellipsoid: float | None = None,
    extras: dict[str, Any] | None = None,
) -> TileReport:
    """Bring the tiles of a twin's GeoPackage up to date, as after an edit in a GIS.

    Parameters
    ----------
    path
        ``city.gpkg``: solids are made and checked from the layer ``footprints``.
    folder
        Folder of the tileset, such as ``TWIN/tiles``.
    ids
        Objects that changed or went, where they are known: nothing but their tiles is read
        or written, and the rest is taken to be as the last run left it. Where None, all
        objects are compared with the digests of the last run.
    to_ellipsoid
        Metres added to heights; as in the tileset that is there where None, else 0.
    extras
        Kept in the tileset's asset; as in the tileset that is there where None.

    Returns
    -------
    TileReport
        As of :func:`write_tiles`.

    Raises
    ------
    InputError
        When the file is no twin's GeoPackage, rows lack their id, height or outline, or
        there is nothing to show.

    Notes
    -----
    An object whose height or place changed stays in its tile with ``ids``; a run without
    them gives it the tile of its new size. Where ``ids`` names objects that the tiles don't
    hold, or the tiles are of another version, all are compared, and the log says so.
    The CityJSON files and the 3-D index of a twin are not touched.
    """
    import msgspec

    file, target = Path(path), Path(folder)
    if extras is None:
        extras = {}
        if (target / "tileset.json").exists():
            try:
                before = msgspec.json.decode((target / "tileset.json").read_bytes())
                extras = dict(before["asset"].get("extras", {}))
            except (msgspec.MsgspecError, ValueError, TypeError, KeyError, AttributeError) as error:
                raise InputError(
                    f"{target / 'tileset.json'} is damaged ({error})",
                    "the tileset that `qala city` wrote, which tells its heights' datum",
                    "make the twin again with `qala city`",
                ) from error
    lift = float(extras.get("addedToReachEllipsoid", 0.0)) if to_ellipsoid is None else to_ellipsoid
    if not file.is_file():
        raise InputError(f"{file} does not exist", "the city.gpkg of a twin")
    report = None
    if ids is not None:
        report = _update(file, target, [str(i) for i in ids], lift, extras)
    if report is None:
        objects, names, crs = _survey_gpkg(file)
        report = _write(
            objects, lambda fids: _rows_of(file, fids), names, crs, target, lift, extras
        )
    packed = target.parent / "web" / "tiles.js"
    if packed.exists() and (report.written or report.removed):
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


# --- what tiles are planned from ------------------------------------------------------


@dataclass(frozen=True)
class _Objects:
    """The few numbers of each object that are kept for all of them.

    Attributes
    ----------
    ids
        Arrow strings.
    number
        (N) number of its row at the source.
    prints
        (N) 64 bits that stand for its outline and attributes.
    middle
        (N, 2) middle of its box, metres.
    weight
        (N) how far off it is seen: the silhouette, height by width.
    known
        Attributes that some object has.
    """

    ids: Any
    number: Array
    prints: Array
    middle: Array
    weight: Array
    known: frozenset[str]


def _survey(columns: Mapping[str, Any], wkb: Any, number: Array, where: str) -> _Objects:
    """Return what is kept of some rows, given by columns (pandas or Arrow) and outlines."""
    count = len(number)
    prints = np.zeros(count, np.uint64)
    bounds, area = np.empty((count, 4)), np.empty(count)
    places, data = bytes_of(wkb)
    _kernels.survey(places, data, SCALE, prints, bounds, area)
    ids = texts(columns["id"])
    for name in _HASHED[0]:
        if name in columns:
            _kernels.hash_texts(*bytes_of(texts(columns[name])), prints)
        else:
            _kernels.hash_texts(np.zeros(count + 1, np.int32), np.zeros(0, np.uint8), prints)
    known = set()
    numbers: dict[str, Array] = {}
    for name in _HASHED[1]:
        values = floats(columns[name]) if name in columns else np.full(count, np.nan)
        numbers[name] = values
        # one NaN and one zero, whichever bits they came with
        clean = np.where(np.isnan(values), np.nan, values + 0.0)
        _kernels.hash_words(clean.view(np.uint64), prints)
        if np.isfinite(values).any():
            known.add(name)
    _refuse_gaps(where, number, places, ids, numbers, area)
    weight = (numbers["height"] - np.nan_to_num(numbers["min_height"])) * np.sqrt(area)
    middle = (bounds[:, :2] + bounds[:, 2:]) / 2
    # copied, as a column of a batch from GDAL holds all others
    return _Objects(ids.take(np.arange(count)), number, prints, middle, weight, frozenset(known))


def _boxes(columns: Mapping[str, Any], wkb: Any) -> Array:
    """Return (N, 6) left, bottom, right, top, lowest, highest of rows, metres."""
    count = len(wkb)
    out, flat = np.empty((count, 6)), np.empty((count, 4))
    _kernels.survey(*bytes_of(wkb), SCALE, np.zeros(count, np.uint64), flat, np.empty(count))
    base, low, high = (floats(columns[n]) for n in ("base_z", "min_height", "height"))
    out[:, :4], out[:, 4], out[:, 5] = flat, base + np.nan_to_num(low), base + high
    return out


def _refuse_gaps(
    where: str, number: Array, places: Array, ids: Any, numbers: dict[str, Array], area: Array
) -> None:
    """Gather rows that no solid can be made of, as an edit may leave them."""
    names = bytes_of(ids)[0]
    faults = {
        "no outline": (np.diff(places) == 0) | ~(area > 0),
        "no id": np.diff(names) == 0,
        "no height": ~np.isfinite(numbers["height"]),
        "no base_z": ~np.isfinite(numbers["base_z"]),
        "a height that is not above min_height":
            numbers["height"] <= np.nan_to_num(numbers["min_height"]),
    }  # fmt: skip
    problems = Problems(where)
    for what, wrong in faults.items():
        rows = number[wrong].tolist()
        if rows:
            more = f" and {len(rows) - 10} more" if len(rows) > 10 else ""
            told = ", ".join(map(str, rows[:10])) + more
            problems.add(f"row {told}: {what}", "a building with id, outline, height and base_z",
                         "fill it in, or delete the row")  # fmt: skip
    problems.raise_if_any()


def _join_surveys(parts: list[_Objects], where: str) -> _Objects:
    """Return pieces as one, and refuse ids that stand twice."""
    import pyarrow as pa

    ids = pa.concat_arrays([p.ids for p in parts])
    twice = _repeated(ids)
    if twice:
        raise InputError(
            f"{where}: {len(twice)} ids stand twice ({', '.join(twice[:5])})", "one row an id",
            "give copies an id of their own",
        )  # fmt: skip

    def all_of(name: str) -> Array:
        return np.concatenate([getattr(p, name) for p in parts])

    known: frozenset[str] = frozenset().union(*(p.known for p in parts))
    return _Objects(
        ids, all_of("number"), all_of("prints"), all_of("middle"), all_of("weight"), known
    )


def _repeated(ids: Any) -> list[str]:
    """Return texts that stand twice; a digest of each tells where to look closer."""
    import pyarrow as pa
    import pyarrow.compute as pc

    prints = np.zeros(len(ids), np.uint64)
    _kernels.hash_texts(*bytes_of(ids), prints)
    ordered = np.sort(prints)
    doubles = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(doubles):
        return []
    counted = ids.filter(pa.array(np.isin(prints, doubles))).value_counts()
    found = counted.filter(pc.greater(counted.field("counts"), 1)).field("values")
    return [str(v) for v in found.to_pylist()]


def _survey_gpkg(file: Path) -> tuple[_Objects, tuple[str, ...], Any]:
    """Survey the footprints of a GeoPackage, some rows at a time."""
    import pyarrow as pa
    import pyogrio
    import pyogrio.errors
    import pyproj

    parts: list[_Objects] = []
    try:
        with pyogrio.open_arrow(
            file, layer="footprints", columns=list(_READ), batch_size=ROWS, use_pyarrow=True,
            return_fids=True,
        ) as (meta, reader):  # fmt: skip
            missing = [c for c in _NEEDED if c not in meta["fields"]]
            if missing:
                raise InputError(
                    f"layer footprints of {file} lacks {', '.join(missing)}",
                    "the city.gpkg of a twin",
                )
            # older pyogrio names those that were not asked for, too
            fields = [str(f) for f in meta["fields"] if f in _READ]
            for batch in reader:
                whole = _whole(batch)
                some = batch.filter(pa.array(~whole)) if whole.any() else batch
                columns = {c: some.column(c) for c in fields}
                # GDAL puts the row's number first and the outline last
                number = some.column(0).to_numpy(zero_copy_only=False).astype(np.int64)
                parts.append(_survey(columns, some.column(some.num_columns - 1), number, str(file)))
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise InputError(f"{file} cannot be read ({error})", "the city.gpkg of a twin") from error
    if not parts:
        raise InputError(f"{file} has no footprints", "at least one building in the area")
    objects = _join_surveys(parts, str(file))
    return objects, _column_names(fields, objects), pyproj.CRS.from_user_input(meta["crs"])


def _whole(rows: Any) -> Array:
    """Tell rows whose parts carry the solids; those without one by a fault are tried again."""
    import pyarrow.compute as pc

    out = pc.and_(
        pc.fill_null(pc.equal(rows.column("lod"), "0.2"), False), pc.is_null(rows.column("parent"))
    )
    if "valid_code" in rows.schema.names:
        out = pc.and_(out, pc.fill_null(pc.equal(rows.column("valid_code"), 0), True))
    return np.asarray(out.to_numpy(zero_copy_only=False), bool)


def _rows_of(file: Path, fids: Array) -> tuple[dict[str, Any], Any]:
    """Read some footprints: their columns with ``fid``, and outlines, in the order asked."""
    import pyarrow.compute as pc
    import pyogrio

    meta, found = pyogrio.read_arrow(
        file,
        layer="footprints",
        columns=list(_READ),
        where=f"fid IN ({','.join(map(str, np.sort(fids).tolist()))})",
        return_fids=True,
    )
    # GDAL puts the row's number first and the outline last
    at = pc.index_in(fids, found.column(0)).drop_null() if len(found) else []
    found = found.take(at).combine_chunks()
    columns: dict[str, Any] = {
        str(c): found.column(str(c)).combine_chunks() for c in meta["fields"] if c in _READ
    }
    columns["fid"] = found.column(0).to_numpy()
    if "roof_orientation" in columns:
        columns["roof:orientation"] = columns["roof_orientation"]
    return columns, found.column(found.num_columns - 1).combine_chunks()


def _update(
    file: Path, target: Path, ids: list[str], lift: float, extras: dict[str, Any]
) -> TileReport | None:
    """Write the tiles of some objects; None where all must be compared."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyogrio
    import pyproj

    state, known = target / "objects.arrow", _known(target)
    if not state.exists() or not known:
        log.warning("%s tells no tiles of objects: all are made", target)
        return None
    with pa.OSFile(str(state)) as file_of, pa.ipc.open_file(file_of) as source:
        kept = source.read_all()
    told = kept.schema.metadata or {}
    if told.get(b"encoding") != str(ENCODING).encode():
        log.warning("%s is of another version: all tiles are made", target)
        return None
    found = pc.index_in(pa.array(ids, pa.string()), kept["id"].combine_chunks())
    if found.null_count:
        log.warning("%d of the objects are in no tile yet: all are compared", found.null_count)
        return None
    tile = kept["tile"].to_numpy()
    touched = np.unique(tile[found.to_numpy(zero_copy_only=False).astype(np.int64)])
    members = np.flatnonzero(np.isin(tile, touched))
    columns, outlines = _rows_of(file, kept["fid"].to_numpy()[members])
    mine = kept["id"].take(members).to_pylist()
    here = dict(zip(mine, members.tolist(), strict=True))
    now = columns["id"].to_pylist()
    where = np.array([here.get(i, -1) for i in now], np.int64)
    names = tuple(told[b"columns"].decode().split())
    if (where < 0).any() or not set(mine) - set(now) <= set(ids):
        log.warning("%s has been numbered anew: all tiles are compared", file)
        return None
    objects = _survey(columns, outlines, columns["fid"], str(file))
    crs = pyproj.CRS.from_user_input(pyogrio.read_info(file, layer="footprints")["crs"])
    code = crs.to_epsg()
    place = {n: i for i, n in enumerate(columns["fid"].tolist())}

    def take(numbers: Array) -> tuple[dict[str, Any], Any]:
        at = np.array([place[n] for n in numbers.tolist()])
        some = {c: v[at] if isinstance(v, np.ndarray) else v.take(at) for c, v in columns.items()}
        return some, outlines.take(at)

    tree = _Tree(
        list(known), np.array([r["side"] for r in known.values()]),
        np.array([r["parent"] for r in known.values()]), tile, np.arange(len(tile)),
    )  # fmt: skip
    todo: list[tuple[str, Array]] = []
    places = np.arange(len(tile))
    for t in touched.tolist():
        rows = np.flatnonzero(tile[where] == t)
        rows = rows[np.lexsort((objects.prints[rows], -objects.weight[rows]))]
        places[np.sort(where[rows])] = where[rows]
        if not len(rows):
            log.warning("a tile has become empty: all are compared")
            return None
        digest = _digest(objects.prints[rows], names, lift, code)
        if known[tree.names[t]]["hash"] != digest:
            known[tree.names[t]] |= {"hash": digest}
            todo.append((tree.names[t], rows))
    _write_some(target, todo, known, objects, take, names, crs, lift)
    keep = np.ones(len(tile), bool)
    keep[np.setdiff1d(members, where)] = False
    places = places[keep[places]]
    prints = kept["print"].to_numpy().copy()
    prints[where] = objects.prints
    _remember(target, places, kept["id"].combine_chunks(), kept["fid"].to_numpy(), tile, prints,
              names)  # fmt: skip
    _write_tree(target, tree, known, extras)
    shown = sum(r["objects"] for r in known.values())
    return TileReport(len(tree.names), len(todo), len(tree.names) - len(todo), 0, shown)


# --- writing what changed -------------------------------------------------------------


Take = Callable[[Array], tuple[dict[str, Any], Any]]


def _write(
    objects: _Objects, take: Take, names: tuple[str, ...], crs: Any, target: Path, lift: float,
    extras: dict[str, Any], leaf: float = LEAF, inner: int = INNER,
) -> TileReport:  # fmt: skip
    """Plan the tiles of all objects and write those that differ from the last run."""
    if not len(objects.prints):
        raise InputError("no building has a solid", "at least one building in the area")
    (target / "content").mkdir(parents=True, exist_ok=True)
    tree = _quadtree(objects, leaf, inner)
    known = _known(target)
    code = crs.to_epsg()
    there = {f.name for f in (target / "content").iterdir()}
    records: dict[str, dict[str, Any]] = {}
    # within a tile as seen from afar
    order = tree.order[np.argsort(tree.tile[tree.order], kind="stable")]
    bounds = np.searchsorted(tree.tile[order], np.arange(len(tree.names) + 1))
    todo: list[tuple[str, Array]] = []
    for t, name in enumerate(tree.names):
        here = order[bounds[t] : bounds[t + 1]]
        digest = _digest(objects.prints[here], names, lift, code)
        before = known.get(name)
        if (
            before is not None
            and before["hash"] == digest
            and (before["objects"] == 0 or f"{name}.glb" in there)
        ):
            records[name] = before
        else:
            records[name] = {"hash": digest}
            todo.append((name, here))
    _write_some(target, todo, records, objects, take, names, crs, lift)
    _remember(target, order, objects.ids, objects.number, tree.tile, objects.prints, names)
    removed = 0
    # what an earlier run left and this one did not write
    for file in there:
        name, _, kind = file.rpartition(".")
        if kind == "glb" and not records.get(name, {}).get("objects"):
            _glb_of(target, name).unlink()
            removed += 1
    _write_tree(target, tree, records, extras)
    shown = sum(r["objects"] for r in records.values())
    if not shown:
        raise InputError("no building has a solid", "at least one building in the area")
    return TileReport(len(tree.names), len(todo), len(tree.names) - len(todo), removed, shown)


def _glb_of(target: Path, name: str) -> Path:
    return target / "content" / f"{name}.glb"


def _write_some(
    target: Path, todo: list[tuple[str, Array]], records: dict[str, dict[str, Any]],
    objects: _Objects, take: Take, names: tuple[str, ...], crs: Any, lift: float,
) -> None:  # fmt: skip
    """Write the tiles of ``todo`` (name, objects) and put their places into their records."""
    if not todo:
        return
    jobs: list[list[int]] = [[]]
    load = 0
    for k, (_, mine) in enumerate(todo):
        if jobs[-1] and load + len(mine) > JOB:
            jobs.append([])
            load = 0
        jobs[-1].append(k)
        load += len(mine)

    def run(job: list[int]) -> list[tuple[_Frame, int]]:
        mine = np.concatenate([todo[k][1] for k in job])
        data, outlines = take(objects.number[mine])
        ends = np.cumsum([len(todo[k][1]) for k in job])
        frames = _frames(_around_groups(_boxes(data, outlines), ends, lift), crs)
        solids = solids_of(data, outlines)
        triangles = triangulate(solids)
        shown = np.flatnonzero(solids.kinds >= PRISM)
        at = solids.rows[shown]
        columns = _columns(data, names, solids, len(outlines))
        cuts = np.searchsorted(at, [0, *ends])
        counts = np.diff(cuts).tolist()
        for k, frame, first, last in zip(job, frames, cuts[:-1], cuts[1:], strict=True):
            if last > first:
                some, rows = shown[first:last], at[first:last]
                glb = _encode(solids, triangles, some, rows, columns, frame, lift)
                replace_file(_glb_of(target, todo[k][0]), glb)
        return list(zip(frames, counts, strict=True))

    with ThreadPoolExecutor(min(usable_cores(), 4)) as pool:
        for job, made in zip(jobs, pool.map(run, jobs), strict=True):
            for k, (frame, count) in zip(job, made, strict=True):
                records[todo[k][0]] |= {
                    "region": frame.region, "matrix": frame.matrix.T.ravel().tolist(),
                    "objects": count,
                }  # fmt: skip


def _around_groups(boxes: Array, ends: Array, lift: float) -> Array:
    """Return the box around each group of boxes, lifted."""
    starts = np.concatenate([[0], ends[:-1]])
    lows, highs = (f.reduceat(boxes, starts) for f in (np.minimum, np.maximum))
    return np.column_stack([lows[:, :2], highs[:, 2:4], lows[:, 4] + lift, highs[:, 5] + lift])


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
    target: Path, order: Array, ids: Any, numbers: Array, tile: Array, prints: Array,
    names: tuple[str, ...],
) -> None:  # fmt: skip
    """Keep each object's tile and digest in an order, that of the tiles' features."""
    import pyarrow as pa

    schema = pa.schema(
        {"id": pa.string(), "fid": pa.int64(), "tile": pa.int32(), "print": pa.uint64()},
        metadata={"columns": " ".join(names), "encoding": str(ENCODING)},
    )
    with (
        replacing(target / "objects.arrow") as work,
        pa.OSFile(str(work), "wb") as sink,
        pa.ipc.new_file(sink, schema) as writer,
    ):
        for first in range(0, len(order), ROWS):
            some = order[first : first + ROWS]
            values = [
                ids.take(pa.array(some)),
                *(pa.array(a[some]) for a in (numbers, tile, prints)),
            ]
            writer.write_batch(pa.record_batch(values, schema=schema))


def _known(target: Path) -> dict[str, Any]:
    """Return the record of the last run; empty when there is none that can be read."""
    import msgspec

    file = target / "tiles.json"
    if not file.exists():
        return {}
    try:
        found = dict(msgspec.json.decode(file.read_bytes()))
        return found if all("objects" in r for r in found.values()) else {}
    except (msgspec.MsgspecError, ValueError, OSError) as error:
        log.warning("%s cannot be read (%s); all tiles are written again", file, error)
        return {}


# --- the quadtree -------------------------------------------------------------------


@dataclass(frozen=True)
class _Tree:
    """Tile names, side and parent of each; the tile of each object, and objects as seen from afar.

    Equals stand by their digest, not by the source's order.
    """

    names: list[str]
    side: Array
    parent: Array
    tile: Array
    order: Array


def _quadtree(objects: _Objects, leaf: float, inner: int) -> _Tree:
    """Place objects on a grid fixed to the CRS, so that a change moves few others.

    Every inner cell takes the ``inner`` most visible of what lies below it.
    """
    x, y = (np.floor(objects.middle[:, d] / leaf).astype(np.int32) for d in (0, 1))
    span = int(max(np.ptp(x), np.ptp(y))) + 1
    depth = max(int(np.ceil(np.log2(span))), 0) if span > 1 else 0
    count = len(x)
    tile = np.full(count, -1, np.int32)
    names: list[str] = []
    sides: list[float] = []
    parents: list[int] = []
    above = np.full(count, -1, np.int32)  # tile that the object's cell one level up became
    order = left = np.lexsort((objects.prints, -objects.weight))
    for level in range(-1, depth + 1):
        # one root over all; below it cells are counted from the CRS's own origin, so that
        # a city that grows keeps its tiles
        step = 1 << (depth - level)
        # a shift rounds down, below zero too
        east, north = (
            g[left] >> (depth - level) if level >= 0 else np.zeros(len(left), np.int32)
            for g in (x, y)
        )
        corner = np.array([east.min(), north.min()])
        across, deep = int(east.max() - corner[0]) + 1, int(north.max() - corner[1]) + 1
        code = (east - corner[0]).astype(np.int64) * deep + (north - corner[1])
        cells = across * deep
        if cells > DENSE:  # a few far islands
            found, code = np.unique(code, return_inverse=True)
            cells = len(found)
        else:
            found = np.arange(cells)
        # objects stand by falling weight, so a cell's first are its heaviest
        rank, filled = _kernels.rank_in_cells(code, cells)
        used = np.flatnonzero(filled)
        where = (np.cumsum(filled > 0, dtype=np.int32) - 1)[code]
        keys = np.column_stack([found[used] // deep, found[used] % deep]) + corner
        here = len(names)
        names += [f"{depth - level}_{i}_{j}" if level >= 0 else "root" for i, j in keys.tolist()]
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
    return _Tree(names, np.array(sides), np.array(parents), tile, order)


# --- one tile -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Frame:
    """Where a tile lies on the globe.

    Attributes
    ----------
    region
        West, south, east, north (radians), lowest, highest (m).
    matrix
        From the tile's east, north and up to earth-centred coordinates.
    middle, half
        Of the box in the CRS, metres.
    fit
        (6, 15) polynomials of x and y: place at height 0, and the way up; None where
        they miss by more than :data:`FIT`.
    move
        CRS to degrees, for tiles without a fit.
    """

    region: list[float]
    matrix: Array
    middle: tuple[float, float]
    half: tuple[float, float]
    fit: Array | None
    move: Any


@functools.cache
def _fitting() -> tuple[Array, Array, Array]:
    """Return the points of the grid from -1 to 1, their polynomials' terms and the solver."""
    side = np.linspace(-1, 1, GRID)
    u, w = (a.ravel() for a in np.meshgrid(side, side))
    terms = np.column_stack([u**i * w**j for i in range(5) for j in range(5 - i)])
    return np.column_stack([u, w]), terms, np.linalg.pinv(terms)


def _frames(boxes: Array, crs: Any) -> list[_Frame]:
    """Fit each box's map to the globe; one call of PROJ for all of them."""
    from pyproj import Transformer

    move = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    points, terms, solver = _fitting()
    middle = (boxes[:, :2] + boxes[:, 2:4]) / 2
    half = np.maximum((boxes[:, 2:4] - boxes[:, :2]) / 2, 0.5)
    xy = middle[:, None] + points * half[:, None]
    lon, lat = move.transform(xy[..., 0].ravel(), xy[..., 1].ravel())
    lon = np.radians(np.asarray(lon)).reshape(len(boxes), -1)
    lat = np.radians(np.asarray(lat)).reshape(len(boxes), -1)
    # lines of the CRS bulge between the points of the grid
    step = half.max(axis=1) * 2 / (GRID - 1)
    hair = (1 + np.abs(np.tan(lat)).max(axis=1)) * step**2 / (4 * A * A) + 1e-9
    wide = hair / np.cos(lat).min(axis=1)
    # across 180° east a region goes round the Earth: children then lie in it all the same
    around = np.ptp(lon, axis=1) > np.pi
    east = np.where(around[:, None], lon % (2 * np.pi), lon)
    regions = np.column_stack([
        np.where(around, -np.pi, lon.min(axis=1) - wide), lat.min(axis=1) - hair,
        np.where(around, np.pi, lon.max(axis=1) + wide), lat.max(axis=1) + hair,
        boxes[:, 4] - 0.01, boxes[:, 5] + 0.01,
    ])  # fmt: skip
    count = len(boxes)
    matrices = enu((east.min(axis=1) + east.max(axis=1)) / 2,
                   (regions[:, 1] + regions[:, 3]) / 2, regions[:, 4])  # fmt: skip
    ground = ecef(lon.ravel(), lat.ravel(), np.zeros(lon.size)).reshape(count, -1, 3)
    up = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)
    turn = matrices[:, :3, :3]
    wanted = np.concatenate([(ground - matrices[:, None, :3, 3]) @ turn, up @ turn], axis=-1)
    fits = solver @ wanted
    missed = np.abs(terms @ fits - wanted).max(axis=1)
    # the way up is multiplied by heights of some kilometres at most
    good = (missed[:, :3].max(axis=1) <= FIT / 2) & (missed[:, 3:].max(axis=1) * 9000 <= FIT / 2)
    fits = np.ascontiguousarray(np.swapaxes(fits, 1, 2))
    return [
        _Frame(region, matrices[k], tuple(middle[k].tolist()), tuple(half[k].tolist()),
               fits[k] if good[k] else None, move)
        for k, region in enumerate(regions.tolist())
    ]  # fmt: skip


def _column_names(columns: Iterable[str], objects: _Objects) -> tuple[str, ...]:
    """Return the attributes that travel in tiles; numbers that nothing has stay out."""
    there = set(columns)
    numbers = [n for n in _NUMBERS if n in objects.known]
    return (*(n for n in _TEXTS if n in ("class", "lod") or n in there), *numbers)


def _columns(
    data: Mapping[str, Any], names: tuple[str, ...], solids: Solids, count: int
) -> dict[str, Any]:
    """Return attributes: Arrow arrays of texts and float32 of numbers (NaN where not known)."""
    import pandas as pd

    out: dict[str, Any] = {}
    for name in names:
        if name == "class":
            kinds = texts(data["kind"]).to_numpy(zero_copy_only=False)
            out[name] = texts(building_class(pd.Series(kinds)))
            out[_CLASS] = _class_numbers(out[name])
        elif name == "lod":
            lods = np.full(count, "0.2", object)
            lods[solids.rows] = solids.lods
            out[name] = texts(lods)
        elif name in _TEXTS:
            out[name] = texts(data[name])
        else:
            values = floats(data[name]) if name in data else np.full(count, np.nan)
            out[name] = values.astype(np.float32)
    return out


def _digest(prints: Array, names: tuple[str, ...], lift: float, code: int | None) -> str:
    """Return a digest of everything a tile is made of."""
    hashed = hashlib.blake2b(f"{ENCODING} {lift!r} {code} {names}".encode(), digest_size=16)
    hashed.update(prints.tobytes())
    return hashed.hexdigest()


def _encode(
    solids: Solids, triangles: Triangles, mine: Array, rows: Array, columns: dict[str, Any],
    frame: _Frame, lift: float,
) -> bytes:  # fmt: skip
    """Return the glb of the solids ``mine``, whose rows in ``columns`` do not fall."""
    vo = solids.vertex_offsets
    v = solids.vertices[_kernels.ranges(vo[mine], vo[mine + 1])]
    starts = np.concatenate([[0], np.cumsum(vo[mine + 1] - vo[mine])])[:-1]
    xyz = np.empty((len(v), 3))
    if frame.fit is not None:
        _kernels.place(v, SCALE, lift, *frame.middle, *frame.half, frame.fit, xyz)
    else:
        lon, lat = frame.move.transform(v[:, 0] / SCALE, v[:, 1] / SCALE)
        earth = ecef(np.radians(lon), np.radians(lat), v[:, 2] / SCALE + lift)
        xyz = (earth - frame.matrix[:3, 3]) @ frame.matrix[:3, :3]
    so = solids.surface_offsets
    ends = solids.index_offsets[solids.ring_offsets[so[mine + 1]]]
    count = int((ends - solids.index_offsets[solids.ring_offsets[so[mine]]]).sum())
    tris = int((triangles.offsets[mine + 1] - triangles.offsets[mine]).sum())
    first, last = int(rows[0]), int(rows[-1]) + 1
    if last - first == len(rows):  # as nearly always: each row has its one solid
        attributes = {name: values[first:last] for name, values in columns.items()}
    else:
        attributes = {
            name: values[rows] if isinstance(values, np.ndarray) else values.take(rows)
            for name, values in columns.items()
        }
    classes = attributes.pop(_CLASS)
    index = np.uint16 if count <= 65535 else np.uint32
    # the views of the one buffer, in order: their bytes, or room for them
    views: list[Any] = [count * 12, count * 4, count * 4, count * 4, tris * 3 * index().itemsize]
    for values in attributes.values():
        if isinstance(values, np.ndarray):
            views.append(values)
        else:
            offsets, data = bytes_of(values)
            text = data[offsets[0] : offsets[-1]]
            # a view of no bytes is not allowed
            views += [text if len(text) else b"\0", (offsets - offsets[0]).astype("<u4")]
    sizes = [v if isinstance(v, int) else v.nbytes if isinstance(v, np.ndarray) else len(v)
             for v in views]  # fmt: skip
    starts8 = list(accumulate((-(-n // 8) * 8 for n in sizes), initial=0))
    body = np.zeros(starts8[-1], np.uint8)

    def view(k: int, kind: Any) -> Array:
        return body[starts8[k] : starts8[k] + sizes[k]].view(kind)

    position = view(0, np.float32).reshape(-1, 3)
    corners = view(4, index)
    _kernels.mesh(
        mine, xyz, starts, so, solids.ring_offsets, solids.index_offsets,
        solids.indices, triangles.corners, triangles.offsets, solids.surface_types, _palette(),
        classes, position, view(1, np.int8).reshape(-1, 4), view(3, np.float32),
        view(2, np.uint8).reshape(-1, 4), corners,
    )  # fmt: skip
    for k, values in enumerate(views[5:], start=5):
        raw = values.view(np.uint8) if isinstance(values, np.ndarray) else values
        body[starts8[k] : starts8[k] + sizes[k]] = np.frombuffer(raw, np.uint8)
    low, high = _kernels.bounds3(position)
    head = _header(
        {name: isinstance(v, np.ndarray) for name, v in attributes.items()}, count, tris, len(mine),
        low.tolist(), high.tolist(), starts8, sizes,
    )  # fmt: skip
    total = 12 + 8 + len(head) + 8 + len(body)
    return b"".join(
        [
            struct.pack("<4sII", b"glTF", 2, total),
            struct.pack("<I4s", len(head), b"JSON"), head,
            struct.pack("<I4s", len(body), b"BIN\0"), body.data,
        ]
    )  # fmt: skip


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


@functools.lru_cache(maxsize=64)
def _document(columns: tuple[tuple[str, bool], ...]) -> tuple[bytes, bytes]:
    """Return what stands before and after the numbers of a tile in its JSON.

    ``columns`` are names of attributes and whether they are numbers.
    """
    import msgspec

    properties: dict[str, Any] = {}
    classes: dict[str, Any] = {}
    view = 5
    for name, number in columns:
        if number:
            properties[name] = {"values": view}
            classes[name] = {"type": "SCALAR", "componentType": "FLOAT32"}
        else:
            properties[name] = {"values": view, "stringOffsets": view + 1,
                                "stringOffsetType": "UINT32"}  # fmt: skip
            classes[name] = {"type": "STRING"}
        view += 1 if number else 2
    features = "features of the tile"
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
    }  # fmt: skip
    before = msgspec.json.encode(document)[:-1]
    return tuple(before.split(msgspec.json.encode(features)))  # type: ignore[return-value]


def _header(
    columns: dict[str, bool], count: int, tris: int, features: int, low: list[float],
    high: list[float], starts: list[int], sizes: list[int],
) -> bytes:  # fmt: skip
    """Return a tile's JSON, padded so that the binary chunk starts at a multiple of 8 bytes."""
    import msgspec

    parts = _document(tuple(columns.items()))
    small = count <= 65535
    accessors = [
        {"bufferView": 0, "componentType": 5126, "count": count, "type": "VEC3", "min": low,
         "max": high},
        {"bufferView": 1, "componentType": 5120, "normalized": True, "count": count,
         "type": "VEC3"},
        {"bufferView": 2, "componentType": 5121, "normalized": True, "count": count,
         "type": "VEC4"},
        {"bufferView": 3, "componentType": 5126, "count": count, "type": "SCALAR"},
        {"bufferView": 4, "componentType": 5123 if small else 5125, "count": tris * 3,
         "type": "SCALAR"},
    ]  # fmt: skip
    more = ['"byteStride":12,"target":34962,', *['"byteStride":4,"target":34962,'] * 3,
            '"target":34963,']  # fmt: skip
    views = ",".join([
        f'{{"buffer":0,{more[k] if k < 5 else ""}"byteOffset":{starts[k]},"byteLength":{size}}}'
        for k, size in enumerate(sizes)
    ])  # fmt: skip
    head = b"%b,\"accessors\":%b,\"bufferViews\":[%b],\"buffers\":[{\"byteLength\":%d}]}" % (
        str(features).encode().join(parts), msgspec.json.encode(accessors), views.encode(),
        starts[-1],
    )  # fmt: skip
    return head + b" " * ((-(len(head) + 20)) % 8)


# --- the tileset --------------------------------------------------------------------


def _tileset(tree: _Tree, records: dict[str, Any], extras: dict[str, Any]) -> dict[str, Any]:
    """Join tiles to a tree whose regions contain their children's."""
    count = len(tree.names)
    regions = [list(records[name]["region"]) for name in tree.names]
    own = np.array([records[name]["matrix"] for name in tree.names]).reshape(-1, 4, 4)
    own = np.swapaxes(own, 1, 2)
    children: list[list[int]] = [[] for _ in range(count)]
    for i, parent in enumerate(tree.parent.tolist()):
        if parent >= 0:
            children[parent].append(i)
    for i in range(count - 1, -1, -1):  # children stand after their parents
        for child in children[i]:
            regions[i] = _around(regions[i], regions[child])

    parents = np.maximum(tree.parent, 0)
    turned = np.swapaxes(own[parents, :3, :3], 1, 2)
    relative = own.copy()
    # a turn and shift is undone exactly, without losing metres to 6,000 km
    relative[:, :3, :3] = turned @ own[:, :3, :3]
    shift = own[:, :3, 3] - own[parents, :3, 3]
    relative[:, :3, 3] = (turned @ shift[..., None])[..., 0]
    relative[0] = own[0]
    transforms = np.swapaxes(relative, 1, 2).reshape(count, 16).tolist()

    def node(i: int) -> dict[str, Any]:
        out: dict[str, Any] = {
            "boundingVolume": {"region": regions[i]},
            "geometricError": float(tree.side[i] / ERROR_SHARE) if children[i] else 0.0,
            "transform": transforms[i],
        }
        if records[tree.names[i]]["objects"]:
            out["content"] = {"uri": f"content/{tree.names[i]}.glb"}
        if children[i]:
            out["refine"] = "ADD"
            out["children"] = [node(c) for c in children[i]]
        return out

    root = node(0)
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
