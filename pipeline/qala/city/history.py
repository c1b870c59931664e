"""What changed since an earlier twin: nothing is deleted, validity is closed and opened.

The register events are those of an address or real-estate register: created,
changed (old and new value), merged, split, abolished.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qala.errors import InputError

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

    from qala.city.model import Twin

log = logging.getLogger("qala")

#: fields whose change is told
FIELDS = ("kind", "name", "parent", "height", "height_source", "min_height", "base_z", "roof_shape",
          "roof_height", "geometry")  # fmt: skip
#: numbers that differ by less are the same (coordinates lie on millimetres)
SAME = 1e-3
#: share of an outline that must lie in another for a merge or a split
WITHIN = 0.5
#: columns of the layer ``changes``
COLUMNS = ("change", "id", "field", "old", "new", "date")


@dataclass(frozen=True)
class Earlier:
    """Objects of an earlier twin: those valid, and those closed before."""

    objects: gpd.GeoDataFrame
    history: gpd.GeoDataFrame | None
    changes: pd.DataFrame | None


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
        layers = {row[0] for row in pyogrio.list_layers(file)}
        if "footprints" not in layers:
            raise InputError(f"{file} has no layer footprints", "the city.gpkg of an earlier run")
        objects = pyogrio.read_dataframe(file, layer="footprints")
        history = pyogrio.read_dataframe(file, layer="history") if "history" in layers else None
        changes = (
            pyogrio.read_dataframe(file, layer="changes", read_geometry=False)
            if "changes" in layers
            else None
        )
    except pyogrio.errors.DataSourceError as error:
        raise InputError(f"{file} cannot be read ({error})", "a GeoPackage") from error
    missing = [c for c in ("id", "parent", "height", "valid_from", "kind") if c not in objects]
    if missing:
        raise InputError(f"layer footprints of {file} lacks {', '.join(missing)}",
                         "the city.gpkg of an earlier run")  # fmt: skip
    return Earlier(objects, history, changes)


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
        The twin – unchanged objects keep their ``valid_from``, versions that ended
        lie in the layer ``history`` with ``valid_to`` – and the changes of this
        run: ``change`` (created, changed, merged, split, abolished), ``id``, ``field``,
        ``old``, ``new``, ``date``.

    Raises
    ------
    InputError
        When the two twins lie in different CRS, or the new one is older.
    """
    import geopandas as gpd
    import pandas as pd
    import shapely

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
    old_place = pd.Series(np.arange(len(old)), index=old["id"])
    at = old_place.reindex(new["id"]).to_numpy(float)
    known = np.flatnonzero(~np.isnan(at))
    before = at[known].astype(int)
    rows: list[tuple[str, str, str, str | None, str | None]] = []
    differs = np.zeros(len(known), bool)
    ids = new["id"].to_numpy(object)
    shape_changed = np.zeros(len(new), bool)
    for field in FIELDS:
        if field == "geometry":
            a = shapely.normalize(_planar(old)[before])
            b = shapely.normalize(_planar(new)[known])
            wrong = ~shapely.equals_exact(a, b, tolerance=SAME)
            shape_changed[known[wrong]] = True
            texts_a: list[str | None] = [f"{v:.2f} m²" for v in shapely.area(a[wrong])]
            texts_b: list[str | None] = [f"{v:.2f} m²" for v in shapely.area(b[wrong])]
        elif field in old and field in new:
            wrong, texts_a, texts_b = _differences(old[field], new[field], before, known)
        else:
            continue
        differs |= wrong
        rows += [
            ("changed", i, field, a, b)
            for i, a, b in zip(ids[known[wrong]], texts_a, texts_b, strict=True)
        ]
    created = np.isnan(at)
    gone = ~old["id"].isin(new["id"]).to_numpy()
    rows += _events(old, new, gone, created, shape_changed)
    valid_from = new["valid_from"].to_numpy(object).copy()
    same = known[~differs]
    valid_from[same] = old["valid_from"].astype(str).to_numpy(object)[before[~differs]]
    closed = old.iloc[np.concatenate([np.flatnonzero(gone), before[differs]]).astype(int)].copy()
    closed["valid_to"] = date
    parts = [p for p in (earlier.history, closed) if p is not None and len(p)]
    history = (
        gpd.GeoDataFrame(pd.concat(parts, ignore_index=True), crs=new.crs) if parts else closed
    )
    changes = pd.DataFrame(rows, columns=list(COLUMNS[:-1]), dtype="object")
    changes["date"] = date
    layers = {**twin.layers, "history": history}
    updated = replace(twin, buildings=new.assign(valid_from=valid_from), layers=layers)
    return updated, changes


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
        part = (old["parent"].notna().to_numpy()[o]) != (new["parent"].notna().to_numpy()[n])
        o, n = o[~part], n[~part]
        shared = shapely.area(shapely.intersection(was[o], now[n]))
        into = shared / shapely.area(was[o]) >= WITHIN  # the old lies in the new
        out_of = shared / shapely.area(now[n]) >= WITHIN  # the new lies in the old
        for target in np.unique(n[into]):
            sources = o[into & (n == target)]
            names = [str(old_ids[i]) for i in sources]
            if len(names) >= 2 and any(gone[i] for i in sources):
                rows.append(("merged", str(new_ids[target]), "id", ", ".join(names),
                             str(new_ids[target])))  # fmt: skip
                merged_old |= {str(old_ids[i]) for i in sources if gone[i]}
                explained.add(str(new_ids[target]))
        for source in np.unique(o[out_of]):
            targets = n[out_of & (o == source)]
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
