"""What a run would do: steps, what is there already, memory and disk, before anything is read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qala.config import Page
    from qala.provenance import Recorder

#: megabytes that the libraries take before the first cell is read
_BASE_MB = 350
#: megabytes that pictures take
_DRAW_MB = 300
#: bytes a cell and epoch: classes of both levels and centres, read back whole
_CELL_BYTES = 12
#: bytes a cell while one epoch is at work: strips of people, built-up and land
_WORK_BYTES = 60
#: bytes a cell and epoch on disk: classes and centres, compressed
_DISK_BYTES = 0.5
_DISK_MB = 30
#: megabytes of memory and of disk a megabyte of an OpenStreetMap extract, made into a city
_MB_OF_EXTRACT = 150
_DISK_OF_EXTRACT = 40


def describe(workflow: Page, folder: str | Path, *, catalogs: Sequence[Path] = ()) -> list[str]:
    """Return lines about what a run would do; nothing is written, fetched or computed.

    Parameters
    ----------
    workflow
        From :func:`qala.config.load_workflow`.
    folder
        Output folder.
    catalogs
        Further catalogs, for ``catalog://`` inputs.

    Returns
    -------
    list of str
        Inputs with their state, steps, expected memory and disk, and whether
        the folder holds the result already or why not.
    """
    from qala import provenance
    from qala.config import input_files

    lines = ["reads"]
    files = input_files(workflow)
    remote = [str(f) for f in files if ":/" in str(f)]
    local = [f for f in files if ":/" not in str(f)]
    for file in local:
        state = f"{file.stat().st_size / 1e6:,.1f} MB" if file.is_file() else "MISSING"
        lines.append(f"  {file} ({state})")
    for address in remote:
        lines += [f"  {line}" for line in _from_catalog(workflow, address, catalogs)]
    target = Path(folder)
    whole = not remote and all(f.is_file() for f in local)
    recorder = None
    if whole:
        parameters = workflow.model_dump(mode="json", exclude={"out"})
        recorder = provenance.Recorder(parameters, local)
    lines.append("steps")
    lines += [f"  {n}. {step}" for n, step in enumerate(_steps(workflow, target, recorder), 1)]
    cells, epochs = _size(workflow)
    memory, disk, size = 0.0, 0.0, ""
    if cells:
        drawing = _DRAW_MB if getattr(getattr(workflow, "outputs", None), "figures", False) else 0
        memory = _BASE_MB + drawing + cells * (_CELL_BYTES * epochs + _WORK_BYTES) / 1e6
        disk = _DISK_MB + cells * epochs * _DISK_BYTES / 1e6
        size = f"{cells:,} cells, {epochs} epochs"
    extract = getattr(workflow.inputs, "osm", None)  # type: ignore[attr-defined]
    if extract and Path(extract).is_file():
        there = Path(extract).stat().st_size / 1e6
        memory, disk = _BASE_MB + there * _MB_OF_EXTRACT, there * _DISK_OF_EXTRACT
        size = f"the whole extract of {there:,.1f} MB; a part of it wants less"
    if size:
        lines.append(f"wants about {memory:,.0f} MB of memory and {disk:,.0f} MB of disk ({size})")
        here = Path(folder).absolute()
        while not here.exists():
            here = here.parent
        lines.append(
            f"has {_free_memory_mb():,.0f} MB of memory and "
            f"{shutil.disk_usage(here).free / 1e6:,.0f} MB of disk free"
        )
    if recorder is None:
        lines.append("what has changed is told once all inputs are there")
    elif provenance.unchanged(target, recorder.key):
        lines.append(f"nothing to do: {target} holds the result of the same inputs")
    else:
        reasons = provenance.why_changed(target, recorder) or ["no result is there yet"]
        lines.append("would work, because " + ", ".join(reasons))
    return lines


def _steps(workflow: Page, folder: Path, recorder: Recorder | None) -> list[str]:
    """Return the steps of a workflow, each with what keeps it from being taken over."""
    recipe = getattr(workflow, "workflow", "")
    if recipe == "indicators":
        drawn = ["draw maps"] if workflow.outputs.figures else []  # type: ignore[attr-defined]
        return ["indicators", *drawn, "write tables"]
    if recorder is None:
        return ["fetch or bring what is missing", "all further steps"]
    from qala import area_steps, urbanisation
    from qala.city import steps as city_steps

    rooms: dict[str, Any] = {"functional_areas": area_steps, "city": city_steps}
    room = rooms.get(recipe, urbanisation)
    return [f"{name}: {state}" for name, state in room.planned(workflow, folder, recorder)]


def _from_catalog(workflow: Page, address: str, catalogs: Sequence[Path]) -> list[str]:
    """Return what a catalog's address stands for and what of it is in the cache."""
    from qala.catalog import open_catalogs, resolve
    from qala.fetch import place_of, place_of_workflow
    from qala.identity import safe_url

    # a path in between has lost one of the slashes
    address = address.replace("catalog:/", "catalog://", 1) if "://" not in address else address
    if not address.startswith("catalog://"):
        return [safe_url(address)]
    found = resolve(address, open_catalogs(catalogs), bbox=place_of_workflow(workflow))
    there = sum(place_of(a).is_file() for a in found)
    return [f"{address}: {len(found)} files, {there} in the cache"]


def _size(workflow: Page) -> tuple[int, int]:
    """Return the cells of 1 km and the epochs of a workflow; 0 where not known yet."""
    from qala.errors import InputError
    from qala.raster import inspect

    population = getattr(workflow.inputs, "population", None)  # type: ignore[attr-defined]
    if population is None or not hasattr(workflow, "cells"):
        return 0, 0
    epochs = population if isinstance(population, dict) else {None: population}
    first = next(iter(epochs.values()))
    total = 0
    for file in [first] if isinstance(first, str) else first:
        if not Path(file).is_file():
            return 0, 0
        try:
            info = inspect(file, "population")
        except InputError:
            # told with its reason by `qala check` and by the run itself
            return 0, 0
        height, width = info.geobox.shape
        total += round(height * width * (info.geobox.transform.a / 1000.0) ** 2)
    return total, len(epochs)


def _free_memory_mb() -> float:
    import psutil

    free = float(psutil.virtual_memory().available)
    limit = Path("/sys/fs/cgroup/memory.max")
    # a container or a service may have less than the machine
    if limit.is_file() and os.access(limit, os.R_OK):
        text = limit.read_text().strip()
        if text.isdigit():
            free = min(free, float(text))
    return free / 1e6
