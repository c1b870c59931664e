"""Where a number came from, and why two runs differ.

Reads what :mod:`qala.provenance` leaves beside every output, and the metadata
inside GeoPackages that were copied elsewhere.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qala.errors import InputError
from qala.identity import file_hash
from qala.messages import said
from qala.provenance import RECORD, read_record

if TYPE_CHECKING:
    import pandas as pd

#: how deep a chain of runs is followed
_MAX_DEPTH = 20
#: layers and files → the step that made them, by the names that it has in one recipe or another
_STEPS: dict[str, tuple[str, ...]] = {
    "units": ("urbanisation rates",), "urban_share": ("urbanisation rates",),
    "rates": ("urbanisation rates", "rates"), "summary": ("urbanisation rates",),
    "urban_centres": ("delineate urban centres", "find urban centres"),
    "cells": ("classify cells",),
    "degurba_l1": ("classify cells",), "degurba_l2": ("classify cells",),
    "population_reconciled": ("make population grids",),
    "correction_factors": ("make population grids",),
    "sensitivity": ("sensitivity",), "joined": ("sensitivity",), "inputs": ("open inputs",),
    **dict.fromkeys(
        ("areas", "cores", "zones", "membership", "cities", "merges"), ("delineate areas",)
    ),
    "flows": ("commuters",), "network": ("read network",), "isochrones": ("isochrones",),
}  # fmt: skip


#: parameters that rules are in
_RULES = ("cells", "units", "areas", "city", "indicators", "bbox")


@dataclass(frozen=True)
class Node:
    """A file in the chain from an output back to its sources.

    Attributes
    ----------
    state
        ``as recorded``, ``changed since``, ``missing`` or ``not recorded``.
    cite
        Licences and citations.
    facts
        Lines about how it was made or where it came from.
    sources
        What it was made from.
    """

    name: str
    path: str
    sha256: str
    state: str
    facts: tuple[str, ...] = ()
    cite: tuple[str, ...] = ()
    sources: tuple[Node, ...] = field(default=())


def why(target: str) -> Node:
    """Return the chain from an output back to its sources.

    Parameters
    ----------
    target
        Output folder or a file of it, with ``:layer`` after a GeoPackage or
        folder to ask for one layer.

    Raises
    ------
    InputError
        When there is no record, or no such layer.
    """
    path, layer = _split(target)
    if not path.exists():
        raise InputError(f"{path} does not exist", "an output folder or a file of one")
    folder = path if path.is_dir() else _folder_of(path)
    record = read_record(folder) if folder is not None else None
    if record is None:
        if path.suffix.lower() != ".gpkg":
            raise InputError(
                f"no {RECORD} beside {path} tells of it", "an output of `qala run`",
                "name the folder that `qala run` wrote to",
            )  # fmt: skip
        record, folder = _from_geopackage(path), path.parent
    assert folder is not None
    names = _layers(path if path.suffix.lower() == ".gpkg" else folder, record)
    if layer is not None and layer not in names:
        raise InputError(
            f"{target} has no layer {layer!r}", f"one of {', '.join(sorted(names)) or 'none'}"
        )
    return _of_run(path, folder, record, layer, (), 0)


def _split(target: str) -> tuple[Path, str | None]:
    if Path(target).exists():
        return Path(target), None
    head, colon, tail = target.rpartition(":")
    return (Path(head), tail) if colon and head else (Path(target), None)


def _folder_of(path: Path) -> Path | None:
    """Return the output folder a file lies in: the nearest with a record that lists it."""
    for folder in list(path.resolve().parents)[:4]:
        record = read_record(folder)
        if record is not None:
            inside = path.resolve().relative_to(folder).as_posix()
            listed = {o["path"] for o in record.get("outputs", [])} | {RECORD, "item.json"}
            return folder if inside in listed else None
    return None


def _from_geopackage(path: Path) -> dict[str, Any]:
    """Return the record that a GeoPackage carries inside."""
    for text in _metadata(path):
        try:
            found = json.loads(text)
        except ValueError:
            continue
        inner = found.get("provenance") if isinstance(found, dict) else None
        if isinstance(inner, dict) and "inputs" in inner:
            notices = [str(found.get(k, "")) for k in ("licence", "citation")]
            return {**inner, "title": found.get("title"), "notices": [n for n in notices if n]}
    raise InputError(f"{path} carries no provenance of qala", "a GeoPackage that `qala run` wrote")


def _metadata(path: Path) -> list[str]:
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
            rows = db.execute(
                "SELECT metadata FROM gpkg_metadata WHERE mime_type = 'application/json'"
            )
            return [str(r[0]) for r in rows]
    except sqlite3.Error as error:
        raise InputError(f"{path} cannot be read ({error})", "a GeoPackage") from error


def _layers(path: Path, record: Mapping[str, Any]) -> set[str]:
    """Return the names that may stand after the colon."""
    files = [path] if path.is_file() else [
        path / o["path"] for o in record.get("outputs", []) if o["path"].endswith(".gpkg")
    ]  # fmt: skip
    names = {Path(o["path"]).stem for o in record.get("outputs", [])}
    for file in files:
        if not file.is_file():
            continue
        try:
            with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as db:
                names |= {str(r[0]) for r in db.execute("SELECT table_name FROM gpkg_contents")}
        except sqlite3.Error as error:
            raise InputError(f"{file} cannot be read ({error})", "a GeoPackage") from error
    return names


def _of_run(
    path: Path,
    folder: Path,
    record: Mapping[str, Any],
    layer: str | None,
    seen: tuple[str, ...],
    depth: int,
) -> Node:
    facts = []
    versions = record.get("versions") or {}
    if record.get("started"):
        facts.append(
            f"made {record['started']} on {record.get('host', '?')} in "
            f"{record.get('seconds', 0):.1f} s by qala {versions.get('qala', '?')} "
            f"(run {str(record.get('key', ''))[:12]})"
        )
    name = f"{path.name}:{layer}" if layer else path.name
    epoch = _epoch(layer or path.stem)
    step = _STEPS.get(re.sub(r"_\d{4}$", "", layer or path.stem))
    facts += [
        f"step {s['step']}: " + _said({k: v for k, v in s.items() if k not in ("step", "seconds")},
                                      epoch)
        for s in record.get("steps", [])
        if step is None or _is_step(s["step"], step, epoch)
    ]  # fmt: skip
    parameters = record.get("parameters") or {}
    rules = {k: v for k, v in parameters.items() if k in _RULES and v}
    facts.append("parameters " + ", ".join(f"{k}={v}" for k, v in sorted(_flat(rules).items())))
    facts += [f"warning: {w}" for w in record.get("warnings", [])]
    if record.get("synthetic"):
        facts.append("SYNTHETIC data: do not plan with these figures")
    outputs = {o["path"]: o["sha256"] for o in record.get("outputs", [])}
    own = None
    if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
        own = outputs.get(path.resolve().relative_to(folder.resolve()).as_posix())
    state, digest = "as recorded", own or ""
    if path.is_dir():
        digest = str(record.get("key", ""))
        odd = [p for p, h in outputs.items() if _state(folder / p, h) != "as recorded"]
        state = f"{', '.join(odd)} changed since" if odd else "as recorded"
    elif own is not None:
        state = _state(path, own)
    else:
        digest, state = file_hash(path), "not recorded"
    wanted = _reach(parameters, epoch)
    sources = [
        _source(i, seen, depth)
        for i in record.get("inputs", [])
        if wanted is None or i["path"] in wanted
    ]
    told = [said(words, "en") for words in parameters.get("sources", [])]
    cite = [*told, *record.get("notices", [])]
    return Node(
        name, str(path), digest, state, tuple(facts), tuple(dict.fromkeys(cite)), tuple(sources)
    )


def _is_step(name: str, steps: Sequence[str], epoch: str | None) -> bool:
    """Tell whether a step is one of those asked for, or that of an epoch asked for."""
    found = re.fullmatch(f"(?:{'|'.join(map(re.escape, steps))})(?: (\\d{{4}}))?", name)
    return found is not None and (None in (epoch, found.group(1)) or found.group(1) == epoch)


def _state(path: Path, digest: str) -> str:
    if not path.is_file():
        return "missing"
    return "as recorded" if file_hash(path) == digest else "changed since"


def _source(item: Mapping[str, Any], seen: tuple[str, ...], depth: int) -> Node:
    """Return an input, followed further where it is itself the output of a run."""
    from qala.fetch import source_of

    path, digest = Path(item["path"]), str(item["sha256"])
    state = _state(path, digest)
    folder = _folder_of(path) if path.exists() else None
    if folder is not None and str(path) not in seen and depth < _MAX_DEPTH:
        record = read_record(folder)
        assert record is not None
        node = _of_run(path, folder, record, None, (*seen, str(path)), depth + 1)
        return Node(node.name, str(path), digest, state, node.facts, node.cite, node.sources)
    known = source_of(path)
    if known is None:
        return Node(path.name, str(path), digest, state)
    facts = [
        f"fetched {known.get('fetched')} from {known.get('url')}",
        f"{known.get('collection')} version {known.get('version')}"
        + (f", epoch {known['epoch']}" if known.get("epoch") else ""),
    ]
    archive = known.get("file")
    if archive and archive != path.name:
        facts.append(f"member of {archive}, sha256 {known.get('sha256')}")
    cite = [str(known[k]) for k in ("citation", "licence", "notice") if known.get(k)]
    return Node(path.name, str(path), digest, state, tuple(facts), ("; ".join(cite),))


def _epoch(name: str) -> str | None:
    match = re.search(r"_(\d{4})$", name)
    return match.group(1) if match else None


def _reach(parameters: Mapping[str, Any], epoch: str | None) -> set[str] | None:
    """Return the inputs that bear on an epoch; None for all."""
    if epoch is None:
        return None
    found: set[str] = set()
    for key, value in _flat(parameters.get("inputs") or {}).items():
        years = [p for p in key.split(".") if re.fullmatch(r"\d{4}", p)]
        if isinstance(value, str) and (not years or epoch in years):
            found.add(value)
    return found


def _said(notes: Mapping[str, Any], epoch: str | None) -> str:
    parts = []
    for key, value in notes.items():
        shown = value
        if isinstance(value, dict):
            shown = value.get(epoch, value) if epoch else value
        parts.append(f"{key} {json.dumps(shown, ensure_ascii=False)}")
    return ", ".join(parts) or "done"


def text_of(node: Node, indent: str = "") -> list[str]:
    """Return the chain as lines, each level indented; what to cite comes last."""
    lines = [f"{indent}{node.name}"]
    inner = indent + "  "
    if node.sha256:
        lines.append(f"{inner}sha256 {node.sha256} ({node.state})" if "." in node.name else
                     f"{inner}run {node.sha256} ({node.state})")  # fmt: skip
    lines += [f"{inner}{fact}" for fact in node.facts]
    if node.sources:
        lines.append(f"{inner}from")
        for source in node.sources:
            lines += text_of(source, inner + "  ")
    if not indent:
        lines.append("cite")
        lines += [f"  - {c}" for c in dict.fromkeys(_citations(node))] or ["  (nothing stated)"]
    return lines


def _citations(node: Node) -> list[str]:
    return [*node.cite, *(c for s in node.sources for c in _citations(s))]


# --- two runs --------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """What differs between two runs.

    Attributes
    ----------
    causes
        Name → what changed: inputs, parameters, software.
    rows
        A row for each unit and epoch that differs: classes and shares before
        and after, and the causes that can explain it.
    only_first, only_second
        Units and epochs that only one of the runs has.
    """

    causes: dict[str, str]
    rows: pd.DataFrame
    only_first: list[str]
    only_second: list[str]


#: changes below it are rounding
_TOLERANCE = 1e-9


#: columns of units' names, the one that is shown first
_NAMES = ("name_en", "name", "name_ru", "name_kk")


@dataclass(frozen=True)
class _Compared:
    """What runs of a recipe are compared by: a table, its words and its numbers."""

    table: str
    words: tuple[str, ...]
    numbers: tuple[str, ...]


_COMPARED = {
    "urbanisation": _Compared(
        "rates", ("degurba_l1", "degurba_l2"),
        ("population", "official_share", "urban_share", "centre_share"),
    ),
    "functional_areas": _Compared("membership", ("role", "area"), ("population", "share")),
}  # fmt: skip


def diff_runs(first: str | Path, second: str | Path) -> Difference:
    """Compare two runs: which units changed class, share or area, and what explains it.

    Parameters
    ----------
    first, second
        Output folders of two runs of urbanisation with units, or of functional areas.

    Raises
    ------
    InputError
        When a folder is none of a run, the runs are of other kinds, or hold no such table.
    """
    import pandas as pd

    records = []
    for folder in (Path(first), Path(second)):
        record = read_record(folder)
        if record is None:
            raise InputError(f"{folder} holds no {RECORD}", "a folder that `qala run` wrote to")
        records.append(record)
    kinds = [str((r.get("parameters") or {}).get("workflow", "urbanisation")) for r in records]
    if kinds[0] != kinds[1] or kinds[0] not in _COMPARED:
        raise InputError(
            f"the runs are of {' and '.join(dict.fromkeys(kinds))}",
            f"two runs of {' or of '.join(_COMPARED)}",
            "a city tells its own history: see the layer history of its GeoPackage"
            if "city" in kinds else "",
        )  # fmt: skip
    how = _COMPARED[kinds[0]]
    tables = [
        _table(Path(folder), record, how.table)
        for folder, record in zip((first, second), records, strict=True)
    ]
    causes = _causes(*records)
    before, after = tables
    both = before.index.intersection(after.index)
    gone = [_named(*i) for i in before.index.difference(after.index)]
    new = [_named(*i) for i in after.index.difference(before.index)]
    columns = [c for c in (*how.words, *how.numbers) if c in before and c in after]
    differs = pd.DataFrame(index=both)
    for column in columns:
        a, b = before.loc[both, column], after.loc[both, column]
        if column in how.words:
            differs[column] = (a != b) & ~(a.isna() & b.isna())
        else:
            a, b = a.astype(float), b.astype(float)
            apart = (a - b).abs() > _TOLERANCE * a.abs().clip(lower=1.0)
            differs[column] = apart | (a.isna() != b.isna())
    rows = []
    for index in both[differs.any(axis=1).to_numpy()]:
        unit, epoch = index
        row: dict[str, Any] = {"unit": unit, "epoch": epoch}
        for column in columns:
            row[f"{column}_before"] = before.at[index, column]
            row[f"{column}_after"] = after.at[index, column]
        changed = {c for c in columns if differs.at[index, c]}
        names = (after.at[index, c] for c in _NAMES if c in after.columns)
        row["name"] = next((n for n in names if isinstance(n, str)), "")
        row["explained_by"] = " or ".join(_explains(causes, epoch, changed)) or "not recorded"
        rows.append(row)
    table = pd.DataFrame(rows, columns=None if rows else ["unit", "epoch", "explained_by"])
    main = next((c for c in ("urban_share", "share") if f"{c}_after" in table.columns), None)
    if main is not None:
        size = (table[f"{main}_after"] - table[f"{main}_before"]).abs()
        reclassified = pd.Series(False, index=table.index)
        for column in how.words:
            if f"{column}_after" in table.columns:
                reclassified |= differs.loc[differs.any(axis=1), column].to_numpy()
        order = pd.DataFrame({"class": reclassified, "size": size.fillna(0)})
        order = order.sort_values(["class", "size"], ascending=False, kind="stable")
        table = table.loc[order.index].reset_index(drop=True)
    return Difference(causes, table, gone, new)


def _table(folder: Path, record: Mapping[str, Any], name: str) -> pd.DataFrame:
    """Return a table of a run by unit and epoch."""
    import pandas as pd

    file = folder / "tables" / f"{name}.parquet"
    if not file.is_file():
        raise InputError(f"{folder} holds no table of {name}", "a run with units")
    table = pd.read_parquet(file)
    key = "unit" if name == "membership" else _id_column(table, record)
    epochs = (str(s["epoch"]) for s in record.get("steps", []) if s.get("epoch"))
    epoch: Any = table["epoch"].astype(str) if "epoch" in table else [next(epochs, "")] * len(table)
    table.index = pd.MultiIndex.from_arrays(
        [table[key].astype(str), epoch], names=["unit", "epoch"]
    )
    if "area_name" in table:
        # areas are numbered by their centres, and another grid numbers them anew
        table["area"] = table["area_name"]
    return table


def _named(unit: str, epoch: str) -> str:
    return f"{unit} ({epoch})" if epoch else unit


def _id_column(table: pd.DataFrame, record: Mapping[str, Any]) -> str:
    given = ((record.get("parameters") or {}).get("inputs") or {}).get("units") or {}
    for name in (given.get("id"), "unit"):
        if name in table.columns:
            return str(name)
    raise InputError(f"the table of rates has the columns {', '.join(table.columns)}", "a unit id")


def _causes(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, str]:
    """Return what differs between two records: parameter or input → how."""
    found: dict[str, str] = {}
    hashes = [{i["path"]: i["sha256"] for i in r.get("inputs", [])} for r in (first, second)]
    flats = [_flat(r.get("parameters") or {}) for r in (first, second)]
    silent = ("outputs.", "title", "sources", "out", "data")
    used: set[str] = set()
    for key in sorted({*flats[0], *flats[1]}):
        old, new = (f.get(key) for f in flats)
        # sources may be told in several languages
        is_input = any(
            isinstance(v, str) and v in h for v, h in zip((old, new), hashes, strict=True)
        )
        if is_input:
            used |= {str(v) for v in (old, new) if v}
            before = hashes[0].get(str(old)) if old else None
            after = hashes[1].get(str(new)) if new else None
            if before != after:
                found[key] = _replaced(old, new, before, after)
        elif old != new and not key.startswith(silent):
            found[key] = f"{old} → {new}"
    for path in sorted({*hashes[0], *hashes[1]} - used):
        before, after = (h.get(path) for h in hashes)
        if before != after:
            found[f"inputs.{Path(path).name}"] = _replaced(path, path, before, after)
    versions = [r.get("versions") or {} for r in (first, second)]
    for name in sorted({*versions[0], *versions[1]}):
        if versions[0].get(name) != versions[1].get(name):
            found[f"versions.{name}"] = f"{versions[0].get(name)} → {versions[1].get(name)}"
    if "versions.qala" not in found and first.get("code") != second.get("code"):
        found["code"] = "qala's own code changed"
    return found


def _replaced(old: Any, new: Any, before: str | None, after: str | None) -> str:
    if before is None:
        return f"{Path(str(new)).name} came in"
    if after is None:
        return f"{Path(str(old)).name} left"
    names = Path(str(old)).name
    if Path(str(new)).name != names:
        names += f" → {Path(str(new)).name}"
    return f"{names}, sha256 {before[:12]} → {after[:12]}"


#: what may change a column, by the first words of the cause's name
_REACH = {
    "population": ("inputs.population", "inputs.census", "inputs.units", "inputs.land",
                   "inputs.points", "inputs.places", "inputs.divide", "bbox", "units.overlay"),
    "official_share": ("inputs.official", "inputs.units", "bbox"),
}  # fmt: skip


def _explains(causes: Mapping[str, str], epoch: str, changed: set[str]) -> list[str]:
    """Return the causes that reach a unit and epoch, for the columns that changed."""
    roots: set[str] = set()
    for column in changed:
        roots |= set(_REACH.get(column, ()))
    shares = changed - set(_REACH)
    silent = ("inputs.official", "inputs.places", "versions.")
    found = []
    for key in causes:
        years = [p for p in key.split(".") if re.fullmatch(r"\d{4}", p)]
        if years and epoch and epoch not in years:
            continue
        if key.startswith(tuple(roots)) or (shares and not key.startswith(silent)):
            found.append(key)
    # other versions of libraries are named where nothing else can be it
    return found or [k for k in causes if k.startswith(("versions.", "code"))]


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested mapping with dotted keys."""
    found: dict[str, Any] = {}
    for key, inner in value.items():
        name = f"{prefix}{key}"
        if isinstance(inner, Mapping):
            found |= _flat(inner, f"{name}.")
        elif isinstance(inner, list):
            found |= {f"{name}.{n}" if len(inner) > 1 else name: v for n, v in enumerate(inner)}
        elif inner is not None:
            found[name] = inner
    return found


def diff_text(difference: Difference, *, limit: int = 40) -> list[str]:
    """Return a difference as lines for people."""
    lines = ["what differs between the runs:"]
    lines += [f"  {k}: {v}" for k, v in difference.causes.items()] or ["  nothing"]
    rows = difference.rows
    for title, names in (
        ("only in the first", difference.only_first),
        ("only in the second", difference.only_second),
    ):
        if names:
            lines.append(f"{title}: {', '.join(names[:20])}{' …' if len(names) > 20 else ''}")
    if rows.empty:
        lines.append("no unit changed its class or share")
        return lines
    level = next(
        (c for c in ("degurba_l2", "degurba_l1", "role") if f"{c}_after" in rows.columns), None
    )
    reclassified = 0
    shown = []
    for row in rows.to_dict("records"):
        words = []
        was, became = (_class_of(row, level, when) for when in ("before", "after"))
        if was != became:
            reclassified += 1
            words.append(f"{was} → {became}" if level == "role" else f"class {was} → {became}")
        for column, name in (
            ("urban_share", "urban share"), ("centre_share", "centre share"),
            ("official_share", "official share"), ("share", "commuters"),
        ):  # fmt: skip
            old, new = row.get(f"{column}_before"), row.get(f"{column}_after")
            if old is not None and new is not None and abs(new - old) > _TOLERANCE:
                words.append(
                    f"{name} {100 * old:.2f} → {100 * new:.2f} % ({100 * (new - old):+.2f})"
                )
        old, new = row.get("population_before"), row.get("population_after")
        if old is not None and new is not None and abs(new - old) > _TOLERANCE * max(1.0, old):
            words.append(f"people {old:,.0f} → {new:,.0f}")
        text = "; ".join(words) or "appears or vanishes"
        named = f"{row['unit']} {row['name']}" if row.get("name") else row["unit"]
        at = f" ({row['epoch']})" if row["epoch"] else ""
        shown.append(f"  {named}{at}: {text}; explained by {row['explained_by']}")
    lines.append(f"{len(rows)} units and epochs differ, {reclassified} of them in class:")
    lines += shown[:limit]
    if len(shown) > limit:
        lines.append(f"  … and {len(shown) - limit} more (--json has all)")
    return lines


def _class_of(row: Mapping[Any, Any], level: str | None, when: str) -> str:
    """Return the class of a row in words, with the area where it is a role in one."""
    found = "" if level is None else str(row[f"{level}_{when}"])
    area = row.get(f"area_{when}")
    return f"{found} of {area}" if level == "role" and found != "outside" else found


def as_plain(node: Node) -> dict[str, Any]:
    """Return a chain as JSON can hold it."""
    return {
        "name": node.name, "path": node.path, "sha256": node.sha256, "state": node.state,
        "facts": list(node.facts), "cite": list(node.cite),
        "sources": [as_plain(s) for s in node.sources],
    }  # fmt: skip


def diff_plain(difference: Difference) -> dict[str, Any]:
    """Return a difference as JSON can hold it."""
    rows: Sequence[dict[str, Any]] = json.loads(difference.rows.to_json(orient="records"))
    return {
        "causes": difference.causes, "rows": rows,
        "only_first": difference.only_first, "only_second": difference.only_second,
    }  # fmt: skip
