"""What changed since an earlier twin: nothing is deleted, validity is closed and opened.

Every layer of objects is followed: buildings, streets, land, networks, points. The events are
those of an address or real-estate register: created, changed (old and new value), merged,
split, abolished.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qala.errors import InputError

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

    from qala.city.model import Twin

log = logging.getLogger("qala")

#: fields of buildings whose change is told; of other layers every column is
FIELDS = ("kind", "name", "parent", "height", "height_source", "min_height", "base_z", "roof_shape",
          "roof_height", "geometry")  # fmt: skip
#: numbers that differ by less are the same (coordinates lie on millimetres)
SAME = 1e-3
#: share of an outline or line that must lie in another for a merge or a split
WITHIN = 0.5
#: a line lies on another when it is no farther from it, metres
BESIDE = 0.5
#: columns of the layer ``changes``
COLUMNS = ("change", "layer", "id", "field", "old", "new", "date")
#: columns that follow from the geometry, or tell of validity
_DERIVED = {"id", "valid_from", "valid_to", "length", "area", "z_source", "geometry"}
#: layers made from the terrain: told as a whole
_GROUND = ("terrain", "contours")
#: tables and layers of an earlier twin that hold no objects of their own
_OTHERS = {"buildings", "footprints", "issues", "assumptions", "changes", "history",
           "layer_styles", "qgis_projects"}  # fmt: skip
#: prefix of layers with versions that ended
PAST = "history_"

Row = tuple[str, str, str, str, str | None, str | None]


@dataclass(frozen=True)
class Earlier:
    """Objects of an earlier twin: those valid, and those closed before.

    Attributes
    ----------
    objects, history
        Outlines of buildings and parts.
    changes
        Changes told before.
    layers, histories
        The other layers by name.
    """

    objects: gpd.GeoDataFrame
    history: gpd.GeoDataFrame | None
    changes: pd.DataFrame | None
    layers: dict[str, gpd.GeoDataFrame] = field(default_factory=dict)
    histories: dict[str, gpd.GeoDataFrame] = field(default_factory=dict)


def read_objects(path: str | Path) -> Earlier:
    """Read the objects of an earlier ``city.gpkg``.

    Raises
    ------
    InputError
        When it is not a twin's GeoPackage.
    """
    import pyogrio
    import pyogrio.errors

    file = Path(path)
    file = file / "city.gpkg" if file.is_dir() else file
    if not file.is_file():
        raise InputError(f"{file} does not exist", "the city.gpkg of an earlier run")
    try:
        listed = pyogrio.list_layers(file)
        layers = {row[0] for row in listed}
        if "footprints" not in layers:
            raise InputError(f"{file} has no layer footprints", "the city.gpkg of an earlier run")
        objects = pyogrio.read_dataframe(file, layer="footprints")
        history = pyogrio.read_dataframe(file, layer="history") if "history" in layers else None
        changes = (
            pyogrio.read_dataframe(file, layer="changes", read_geometry=False)
            if "changes" in layers
            else None
        )
        spatial = [name for name, kind in listed if kind is not None and name not in _OTHERS]
        read = {name: pyogrio.read_dataframe(file, layer=name) for name in spatial}
    except pyogrio.errors.DataSourceError as error:
        raise InputError(f"{file} cannot be read ({error})", "a GeoPackage") from error
    if changes is not None and "layer" not in changes:
        changes.insert(1, "layer", "buildings")
    # layers that a user added hold no validity: they are not the twin's
    ours = {k: v for k, v in read.items() if {"id", "valid_from"} <= set(v.columns)}
    histories = {k.removeprefix(PAST): v for k, v in ours.items() if k.startswith(PAST)}
    others = {k: v for k, v in ours.items() if not k.startswith(PAST)}
    missing = [c for c in ("id", "parent", "height", "valid_from", "kind") if c not in objects]
    if missing:
        raise InputError(f"layer footprints of {file} lacks {', '.join(missing)}",
                         "the city.gpkg of an earlier run")  # fmt: skip
    return Earlier(objects, history, changes, others, histories)


def compare(twin: Twin, earlier: Earlier) -> tuple[Twin, pd.DataFrame]:
    """Carry validity on from an earlier twin and list what changed.

    Parameters
    ----------
    twin
        The new twin; its ``valid_from`` is the day of this run.
    earlier
        Objects of the earlier one.

    Returns
    -------
    tuple
        The twin – unchanged objects of every layer keep their ``valid_from``, versions
        that ended lie in ``history`` (buildings) and ``history_LAYER`` with ``valid_to`` –
        and the changes of this run: ``change`` (created, changed, merged, split,
        abolished), ``layer``, ``id``, ``field``, ``old``, ``new``, ``date``. Terrain is told
        as a whole.

    Raises
    ------
    InputError
        When the two twins lie in different CRS, or the new one is older.
    """
    import pandas as pd

    new, old = twin.buildings, earlier.objects
    if old.crs != new.crs:
        raise InputError(
            f"the earlier twin is in {old.crs.to_string()}, this one in {new.crs.to_string()}",
            "twins of the same area and UTM zone",
            "run without --since",
        )
    date = str(new["valid_from"].iloc[0])
    if (old["valid_from"].astype(str) > date).any():
        raise InputError(
            f"the earlier twin is valid from {old['valid_from'].max()}, this run from {date}",
            "a later day for this run",
            "give the day of the sources with --date",
        )
    fields = [f for f in FIELDS if f == "geometry" or (f in old and f in new)]
    rows, valid_from, ended = _follow("buildings", old, new, fields)
    layers = {**twin.layers, "history": _joined(earlier.history, ended, date)}
    for name in sorted(set(twin.layers) | set(earlier.layers)):
        now = twin.layers.get(name)
        was = earlier.layers.get(name)
        was = _nothing_of(now) if was is None else _unique(was, name)
        now = _nothing_of(was) if now is None else now
        if not len(was) and not len(now):
            continue
        told, since, closed = _follow(name, was, now, _fields(was, now), new.crs)
        rows += _as_a_whole(name, was, now) if told and name in _GROUND else told
        if name in twin.layers:
            layers[name] = now.assign(valid_from=since)
        past = _joined(earlier.histories.get(name), closed, date)
        if len(past):
            layers[PAST + name] = past
    changes = pd.DataFrame(rows, columns=list(COLUMNS[:-1]), dtype="object")
    changes["date"] = date
    return replace(twin, buildings=new.assign(valid_from=valid_from), layers=layers), changes


def counts(changes: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Return the number of objects of each layer by what happened to them."""
    objects = changes.drop_duplicates(["layer", "change", "id"])
    return {
        str(layer): {str(k): int(n) for k, n in group["change"].value_counts(sort=False).items()}
        for layer, group in objects.groupby("layer", sort=True)
    }


def _nothing_of(table: gpd.GeoDataFrame | None) -> gpd.GeoDataFrame:
    assert table is not None
    return table.iloc[:0]


def _unique(table: gpd.GeoDataFrame, name: str) -> gpd.GeoDataFrame:
    twice = table["id"].duplicated()
    if twice.any():
        log.warning("layer %s of the earlier twin: %d ids repeat; the first of each counts",
                    name, int(twice.sum()))  # fmt: skip
    return table[~twice].reset_index(drop=True)


def _fields(was: gpd.GeoDataFrame, now: gpd.GeoDataFrame) -> list[str]:
    """Columns of both that say something of their own."""
    drop = _DERIVED | {was.geometry.name, now.geometry.name}
    return [*(c for c in now.columns if c in was and c not in drop), "geometry"]


def _as_a_whole(name: str, was: gpd.GeoDataFrame, now: gpd.GeoDataFrame) -> list[Row]:
    """One row for a terrain that changed: its pieces have no life of their own."""
    if not len(was):
        return [("created", name, name, "", None, None)]
    if not len(now):
        return [("abolished", name, name, "", None, None)]
    return [("changed", name, name, "geometry", f"{len(was)} pieces", f"{len(now)} pieces")]


def _joined(
    before: gpd.GeoDataFrame | None, closed: gpd.GeoDataFrame, date: str
) -> gpd.GeoDataFrame:
    """Return versions that ended before and those that end now."""
    import geopandas as gpd
    import pandas as pd

    closed = closed.assign(valid_to=date) if len(closed) else closed
    parts = [p for p in (before, closed) if p is not None and len(p)]
    if not parts:
        return closed
    return gpd.GeoDataFrame(pd.concat(parts, ignore_index=True), crs=closed.crs)


def _follow(
    layer: str, old: gpd.GeoDataFrame, new: gpd.GeoDataFrame, fields: list[str], crs: Any = None
) -> tuple[list[Row], Any, gpd.GeoDataFrame]:
    """Compare two versions of a layer.

    Returns
    -------
    tuple
        Rows of ``changes``, ``valid_from`` of the new objects, and the old rows that ended.
    """
    import pandas as pd

    if crs is not None and len(old) and old.crs != crs:
        old = old.to_crs(crs)
    old_place = pd.Series(np.arange(len(old)), index=old["id"])
    at = old_place.reindex(new["id"]).to_numpy(float)
    known = np.flatnonzero(~np.isnan(at))
    before = at[known].astype(int)
    rows: list[Row] = []
    differs = np.zeros(len(known), bool)
    ids = new["id"].to_numpy(object)
    reshaped = np.zeros(len(new), bool)
    was, now = _planar(old), _planar(new)
    for name in fields:
        if name == "geometry":
            wrong, texts_a, texts_b = _moved(was[before], now[known])
            reshaped[known[wrong]] = True
        else:
            wrong, texts_a, texts_b = _differences(old[name], new[name], before, known)
        differs |= wrong
        rows += [
            ("changed", layer, i, name, a, b)
            for i, a, b in zip(ids[known[wrong]], texts_a, texts_b, strict=True)
        ]
    created = np.isnan(at)
    gone = ~old["id"].isin(new["id"]).to_numpy()
    rows += [
        (what, layer, name, column, a, b)
        for what, name, column, a, b in _events(old, new, gone, created, reshaped)
    ]
    valid_from = new["valid_from"].to_numpy(object).copy()
    same = known[~differs]
    valid_from[same] = old["valid_from"].astype(str).to_numpy(object)[before[~differs]]
    ended = np.concatenate([np.flatnonzero(gone), before[differs]]).astype(int)
    return rows, valid_from, old.iloc[ended].copy()


def _moved(
    a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], list[str | None], list[str | None]]:
    """Return which shapes differ in the plane, and the measure of both as text."""
    import shapely

    wrong = ~shapely.equals_exact(shapely.normalize(a), shapely.normalize(b), tolerance=SAME)
    # corners on a straight line, as draped lines have them, are no change
    line = np.flatnonzero(wrong & (shapely.get_dimensions(b) == 1))
    if len(line):
        plain_a, plain_b = (shapely.normalize(shapely.simplify(v[line], SAME)) for v in (a, b))
        wrong[line] = ~shapely.equals_exact(plain_a, plain_b, tolerance=SAME)

    def text(shape: Any) -> str | None:
        kind = shapely.get_dimensions(shape)
        if kind == 0:
            return f"{shapely.get_x(shape):.2f}, {shapely.get_y(shape):.2f}"
        return f"{shape.area:.2f} m²" if kind == 2 else f"{shape.length:.2f} m"

    return np.asarray(wrong), [text(g) for g in a[wrong]], [text(g) for g in b[wrong]]


def _planar(table: gpd.GeoDataFrame) -> np.ndarray[Any, Any]:
    """Outlines in the plane; polygons of one piece alike whether single or multi."""
    import shapely

    shapes = shapely.force_2d(table.geometry.to_numpy())
    single = (shapely.get_type_id(shapes) == 6) & (shapely.get_num_geometries(shapes) == 1)
    out = shapes.copy()
    out[single] = shapely.get_geometry(shapes[single], 0)
    return np.asarray(out)


def _differences(
    old: pd.Series, new: pd.Series, before: Any, known: Any
) -> tuple[np.ndarray[Any, Any], list[str | None], list[str | None]]:
    """Return which values differ, and both as text."""
    import pandas as pd

    a, b = old.to_numpy()[before], new.to_numpy()[known]
    empty_a, empty_b = pd.isna(a), pd.isna(b)
    if pd.api.types.is_numeric_dtype(old) and pd.api.types.is_numeric_dtype(new):
        wrong = np.abs(a.astype(float) - b.astype(float)) > SAME
    else:
        wrong = a.astype(str) != b.astype(str)
    wrong = np.where(empty_a | empty_b, empty_a != empty_b, wrong)

    def text(values: Any, empty: Any) -> list[str | None]:
        return [
            None if e else (f"{v:g}" if isinstance(v, float | np.floating) else str(v))
            for v, e in zip(values[wrong], empty[wrong], strict=True)
        ]

    return wrong, text(a, empty_a), text(b, empty_b)


def _events(
    old: gpd.GeoDataFrame, new: gpd.GeoDataFrame, gone: Any, created: Any, reshaped: Any
) -> list[tuple[str, str, str, str | None, str | None]]:
    """Tell creations, mergers, splits and abolitions by how outlines lie in one another."""
    import shapely

    old_ids, new_ids = old["id"].to_numpy(object), new["id"].to_numpy(object)
    # whole buildings stand for their parts; a part's event is its own
    was, now = _planar(old), _planar(new)
    touched = created | reshaped
    was_ended = np.flatnonzero(gone | np.isin(old_ids, new_ids[reshaped]))
    now_begun = np.flatnonzero(touched)
    rows: list[tuple[str, str, str, str | None, str | None]] = []
    merged_old: set[str] = set()
    split_new: set[str] = set()
    explained: set[str] = set()
    if len(was_ended) and len(now_begun):
        tree = shapely.STRtree(now[now_begun])
        o, n = tree.query(was[was_ended], predicate="intersects")
        o, n = was_ended[o], now_begun[n]
        if "parent" in old and "parent" in new:
            part = (old["parent"].notna().to_numpy()[o]) != (new["parent"].notna().to_numpy()[n])
            o, n = o[~part], n[~part]
        o_in, n_in = _shares(was[o], now[n])
        into, out_of = o_in >= WITHIN, n_in >= WITHIN  # old in new, new in old
        for target, sources in _several(n[into], o[into]):
            names = [str(old_ids[i]) for i in sources]
            if len(names) >= 2 and any(gone[i] for i in sources):
                rows.append(("merged", str(new_ids[target]), "id", ", ".join(names),
                             str(new_ids[target])))  # fmt: skip
                merged_old |= {str(old_ids[i]) for i in sources if gone[i]}
                explained.add(str(new_ids[target]))
        for source, targets in _several(o[out_of], n[out_of]):
            names = [str(new_ids[i]) for i in targets]
            if len(names) >= 2 and any(created[i] for i in targets):
                rows.append(("split", str(old_ids[source]), "id", str(old_ids[source]),
                             ", ".join(names)))  # fmt: skip
                split_new |= {str(new_ids[i]) for i in targets if created[i]}
                merged_old |= {str(old_ids[source])} if gone[source] else set()
        # one outline drawn anew under another id
        one = into & out_of & gone[o] & created[n]
        for i in np.flatnonzero(one):
            a, b = str(old_ids[o[i]]), str(new_ids[n[i]])
            if a not in merged_old and b not in split_new | explained:
                rows.append(("changed", b, "id", a, b))
                merged_old.add(a)
                explained.add(b)
    rows += [
        ("created", str(i), "", None, None)
        for i in new_ids[created]
        if str(i) not in split_new | explained
    ]
    rows += [
        ("abolished", str(i), "", None, None) for i in old_ids[gone] if str(i) not in merged_old
    ]
    return rows


def _several(keys: Any, values: Any) -> list[tuple[int, Any]]:
    """Return the keys that have two values or more, with them."""
    order = np.argsort(keys, kind="stable")
    found, first = np.unique(keys[order], return_index=True)
    groups = np.split(values[order], first[1:]) if len(found) else []
    return [(int(k), g) for k, g in zip(found, groups, strict=True) if len(g) > 1]


def _shares(was: Any, now: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return how much of each old shape lies in its new one, and the other way round.

    Areas by area, lines by length beside one another; points share nothing.
    """
    import shapely

    kind = np.minimum(shapely.get_dimensions(was), shapely.get_dimensions(now))
    one, other = np.zeros(len(was)), np.zeros(len(was))
    flat = kind == 2
    shared = shapely.area(shapely.intersection(was[flat], now[flat]))
    one[flat] = shared / np.maximum(shapely.area(was[flat]), 1e-9)
    other[flat] = shared / np.maximum(shapely.area(now[flat]), 1e-9)
    line = kind == 1
    for out, a, b in ((one, was[line], now[line]), (other, now[line], was[line])):
        beside = shapely.length(shapely.intersection(a, shapely.buffer(b, BESIDE)))
        out[line] = beside / np.maximum(shapely.length(a), 1e-9)
    return one, other
