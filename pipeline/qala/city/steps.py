"""The city's twin as steps: the table once, and each export by itself.

Each function here makes one step of :mod:`qala.steps`: it reads the twin that the first step
kept, writes its own files, and returns notes for the record.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qala.city.twin import (
    export_cityjson,
    export_page,
    export_tiles,
    make_twin,
    name_of,
    tell_counts,
    write_gpkg,
    write_summary,
)
from qala.steps import Planned, Step, Steps, kept_note

if TYPE_CHECKING:
    from qala.city.model import Twin
    from qala.config import CityWorkflow
    from qala.provenance import Recorder

log = logging.getLogger("qala")

_TWIN, _LAYERS, _JSON = "make the twin", "write GeoPackage", "write CityJSON"
_TILES, _PAGE, _INDEX, _SUMMARY = "write 3D Tiles", "write page", "write index", "write summary"
#: grows by imports after the run, and is not the run's alone
_REGISTERS = "registers.gpkg"
_MADE_OF, _SINCE = "made of", "the twin before"


def city_recipe(
    workflow: CityWorkflow, stage: Path, recorder: Recorder, steps: Steps, folder: Path
) -> tuple[list[Path], Mapping[str, Any], dict[str, Any]]:
    """Run the job; return its files in the stage, its tables, and more for the record."""
    import pandas as pd

    since = _earlier(workflow, recorder, folder)
    plan = _steps(workflow, recorder, folder, since)
    steps.run(plan)
    files = [f for s in plan[1:] for f in steps.outputs(s.name, stage)]
    if since is None or not (folder / _REGISTERS).is_file():
        files += steps.outputs(_TWIN, stage, _REGISTERS)
    tables = {"measures": pd.read_csv(stage / "summary.csv")}
    notes = steps.done[_TWIN].notes
    counts = {k: v for k, v in notes.items() if k not in (_MADE_OF, _SINCE)}
    more: dict[str, Any] = {
        "title": workflow.title or workflow.city.name or "", "living": [_REGISTERS],
        "counts": {**counts, "tiles": steps.done[_TILES].notes["tiles"]},
        "synthetic": workflow.synthetic or workflow.inputs.demo,
    }  # fmt: skip
    return files, tables, more


def planned(workflow: CityWorkflow, folder: Path, recorder: Recorder) -> list[tuple[str, str]]:
    """Tell of each step whether it would be taken over; see :func:`qala.urbanisation.planned`."""
    store = Planned(folder)
    store.run(_steps(workflow, recorder, folder, _earlier(workflow, recorder, folder)))
    return store.told


# --- the steps ------------------------------------------------------------------------


def _steps(
    workflow: CityWorkflow, recorder: Recorder, folder: Path, since: Path | None
) -> list[Step]:
    from qala.identity import file_hash, scrub
    from qala.provenance import hashes_by_name

    given, city, lang = workflow.inputs, workflow.city, workflow.outputs.language
    options: dict[str, Any] = {
        "bbox": workflow.bbox, "undulation": city.undulation, "vertical_datum": city.vertical_datum,
        "date": city.date, "clear_sky_index": city.clear_sky_index,
    }  # fmt: skip
    files = {k: getattr(given, k) for k in ("osm", "area", "terrain", "heights", "population")}
    parts = {
        **{f"inputs.{k}": scrub(Path(f).name) for k, f in files.items() if f is not None},
        **hashes_by_name([Path(f) for f in files.values() if f is not None], recorder.hashes),
        **options, "inputs.area_layer": given.area_layer, "inputs.demo": given.demo,
    }  # fmt: skip
    parts = json.loads(json.dumps(parts, default=str))
    if files["area"] is not None and given.area_layer is not None:
        files["area"] = f"{files['area']}:{given.area_layer}"
    # an earlier twin counts where the sources are others: this run's own twin is no news
    note = kept_note(folder, _TWIN)
    before = None if since is None else file_hash(since)
    if note is not None and note["notes"].get(_MADE_OF) == parts:
        before = note["notes"].get(_SINCE)
    arguments = {"files": files, "options": options, "demo": given.demo, "since": since,
                 "notes": {_MADE_OF: parts, _SINCE: before}}  # fmt: skip
    words = {"words": _words(workflow)}
    spoken = {**words, "lang": lang}
    # what decides a step is told to people by these names
    called = {"the city's name and notice": words["words"]}
    told = {**called, "outputs.language": lang}
    of_twin = (_TWIN,)
    return [
        Step(_TWIN, keep_twin, {**parts, _SINCE: before}, arguments),
        Step(_LAYERS, write_layers, told, spoken, of_twin),
        Step(_JSON, write_json, told, spoken, of_twin),
        Step(_TILES, write_tiles, called, words, (_TWIN, _LAYERS)),
        Step(_PAGE, write_page, told, spoken, (_TWIN, _TILES)),
        Step(_INDEX, write_index, {}, {}, of_twin),
        Step(_SUMMARY, write_measures, called, words, of_twin),
    ]


def _words(workflow: CityWorkflow) -> dict[str, Any]:
    """Return what exports call the city and its sources."""
    from qala.city.demo import demo_words
    from qala.city.osm import NOTICE
    from qala.config import title_of

    given, lang = workflow.inputs, workflow.outputs.language
    name = workflow.city.name or title_of(workflow, lang) or None
    if given.demo:
        return demo_words(lang, name)
    return {"name": name or name_of(str(given.osm)), "notice": NOTICE,
            "synthetic": workflow.synthetic}  # fmt: skip


def _earlier(workflow: CityWorkflow, recorder: Recorder, folder: Path) -> Path | None:
    """Return the twin in the folder, where the run goes on from it."""
    from qala import provenance

    before, file = provenance.read_record(folder), folder / "city.gpkg"
    if not workflow.city.history or before is None or not file.is_file():
        return None
    if _place_of(before.get("parameters") or {}) == _place_of(recorder.parameters):
        return file
    log.warning("the twin in %s is of another place; its history ends there", folder)
    return None


def _place_of(parameters: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return which city a record is of."""
    given = parameters.get("inputs") or {}
    return (
        parameters.get("workflow"), parameters.get("bbox"), given.get("area"),
        given.get("area_layer"), given.get("demo"), (parameters.get("city") or {}).get("name"),
    )  # fmt: skip


# --- what they make --------------------------------------------------------------------


def keep_twin(
    folder: Path, before: Mapping[str, Path], *, files: Mapping[str, Any],
    options: Mapping[str, Any], demo: bool, since: Path | None, notes: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Make the twin from its sources, and its registers."""
    from qala.city.demo import demo_sources
    from qala.city.registers import carry_on
    from qala.city.store import save_twin

    if since is not None:
        log.info("going on from the twin in %s", since.parent)
    with demo_sources(demo) as invented:
        twin, changes, listed = make_twin(**{**files, **options, **invented}, since=since)
    carry_on(twin, folder)
    save_twin(twin, folder, listed)
    return {**notes, **tell_counts(twin, changes)}


def _loaded(before: Mapping[str, Path], words: Mapping[str, Any]) -> tuple[Twin, Any]:
    from qala.city.store import load_twin

    twin, changes = load_twin(before[_TWIN])
    return replace(twin, **words), changes


def write_layers(
    folder: Path, before: Mapping[str, Path], *, words: Mapping[str, Any], lang: str
) -> dict[str, Any]:
    """Write ``city.gpkg``."""
    twin, changes = _loaded(before, words)
    write_gpkg(twin, folder / "city.gpkg", lang=lang, changes=changes)
    return {}


def write_json(
    folder: Path, before: Mapping[str, Path], *, words: Mapping[str, Any], lang: str
) -> dict[str, Any]:
    """Write CityJSON and CityJSONSeq."""
    export_cityjson(_loaded(before, words)[0], folder, lang=lang)
    return {}


def write_tiles(
    folder: Path, before: Mapping[str, Path], *, words: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the tileset."""
    report = export_tiles(_loaded(before, words)[0], before[_LAYERS] / "city.gpkg", folder)
    return {"tiles": report.tiles, "objects": report.objects}


def write_page(
    folder: Path, before: Mapping[str, Path], *, words: Mapping[str, Any], lang: str
) -> dict[str, Any]:
    """Write the page and the terrain it stands on."""
    export_page(_loaded(before, words)[0], folder, tiles=before[_TILES] / "tiles", lang=lang)
    return {}


def write_index(folder: Path, before: Mapping[str, Path]) -> dict[str, Any]:
    """Write the 3-D index."""
    from qala.city import index

    index.write_index(_loaded(before, {})[0].buildings, folder)
    return {}


def write_measures(
    folder: Path, before: Mapping[str, Path], *, words: Mapping[str, Any]
) -> dict[str, Any]:
    """Write ``summary.csv``."""
    write_summary(_loaded(before, words)[0], folder)
    return {}
