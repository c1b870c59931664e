"""Recipes: what the command line, workflows and the QGIS console call.

Each is a page of named steps over the lower rooms; only here and above is
anything computed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qala.errors import InputError

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

    from qala.config import (
        AnyWorkflow,
        AreasWorkflow,
        CityWorkflow,
        IndicatorsWorkflow,
        Page,
        Workflow,
    )
    from qala.provenance import Recorder
    from qala.raster import Quantity, Unit
    from qala.steps import Steps

log = logging.getLogger("qala")

Progress = Callable[[int, int], None]


def cells_to_files(
    population: str | Path | Sequence[str | Path],
    outputs: Mapping[int, str | Path],
    *,
    built: str | Path | Sequence[str | Path] | None = None,
    land: str | Path | Sequence[str | Path] | None = None,
    ruleset: str = "R2023A",
    chunk: int | None = None,
    nodata: float | None = None,
    built_unit: Unit | None = None,
    land_unit: Unit | None = None,
    cloud_optimised: bool = True,
    progress: Progress | None = None,
    **thresholds: Any,
) -> list[Path]:
    """Classify the cells of raster files and write the classes.

    Parameters
    ----------
    population, built, land
        Raster files, or tiles of one grid.
    outputs
        Level (1 or 2) → file to write; several levels share one scan.
    ruleset, chunk, **thresholds
        As for :func:`qala.settlement.classify_cells`.
    nodata
        Missing value of the population, where the file does not declare it.
    built_unit, land_unit
        m2, share or percent, where the files do not tell.
    cloud_optimised
        Write cloud-optimised GeoTIFFs with overviews.
    progress
        Called with strips done and in all.

    Returns
    -------
    list of pathlib.Path
        The files written.

    Raises
    ------
    InputError
        As :func:`qala.settlement.classify_cells`.
    """
    from qala.products import class_file
    from qala.raster import open_raster, require_apart, require_writable, write_rasters
    from qala.settlement import classify_cells, classify_levels

    require_apart(outputs.values(), _files(population, built, land))
    for path in outputs.values():
        require_writable(path, make=False)
    people = open_raster(population, "population", nodata=nodata, chunk=chunk)
    others: dict[str, Any] = {
        "built": None if built is None else open_raster(built, "built", unit=built_unit),
        "land": None if land is None else open_raster(land, "land", unit=land_unit),
    }
    rules: dict[str, Any] = {"ruleset": ruleset, "chunk": chunk, **thresholds}
    if len(outputs) == 1:
        level = next(iter(outputs))
        found = {level: classify_cells(people, **others, level=level, **rules)}
    else:
        both = classify_levels(people, **others, **rules)
        found = {level: both[f"degurba_l{level}"] for level in outputs}
    files = [class_file(found[level], path, others) for level, path in outputs.items()]
    return write_rasters(files, cloud_optimised=cloud_optimised, progress=progress)


def _files(*given: str | Path | Sequence[str | Path] | None) -> list[str | Path]:
    """Return single files and lists of files as one list."""
    found: list[str | Path] = []
    for files in given:
        if isinstance(files, str | Path):
            found.append(files)
        elif files is not None:
            found += files
    return found


# --- units and rates from files ---------------------------------------------------


def units_to_file(
    cells: str | Path,
    population: str | Path | Sequence[str | Path],
    units: str | Path,
    output: str | Path,
    *,
    id: str,
    level: int | None = None,
    rules: str = "2024",
    overlay: str = "exact",
    layer: str | None = None,
    units_crs: str | None = None,
    repair: bool = False,
    nodata: float | None = None,
    lang: str = "en",
) -> gpd.GeoDataFrame:
    """Classify units by the classes of their cells and write layer ``units``.

    Parameters
    ----------
    cells
        Class raster as :func:`cells_to_files` writes it.
    population
        People per cell on the same grid.
    units
        Vector file of territorial units.
    output
        GeoPackage to write.
    id
        Column of unit ids.
    level
        1 or 2; default: the level of the cells.
    rules, overlay
        As for :func:`qala.classify_units`.
    layer, units_crs, repair
        As for :func:`qala.read_units`.
    nodata
        Missing value of the population, where undeclared.
    lang
        Language of the style's words.

    Returns
    -------
    geopandas.GeoDataFrame
        The layer written.

    Raises
    ------
    InputError
        When inputs do not fit together; nothing is written then.
    """
    from qala.export.geopackage import Layer, write_geopackage
    from qala.raster import open_raster, require_apart, require_population, require_writable
    from qala.units import classify_units
    from qala.vector import read_units

    require_apart([output], _files(cells, population, units))
    require_writable(output, make=False)
    people = open_raster(population, "population", nodata=nodata)
    require_population(people)
    classes = open_raster(cells, "cells")
    given = read_units(units, id=id, layer=layer, crs=units_crs, repair=repair)
    found = classify_units(
        classes, people, given, id=id,
        level=level or level_of(cells), rules=rules, overlay=overlay,  # type: ignore[arg-type]
    )  # fmt: skip
    write_geopackage(output, {"units": Layer(found, style="units")}, lang=lang)
    return found


def level_of(cells: str | Path) -> int:
    """Return the level of a class raster, from its metadata or its codes.

    Raises
    ------
    InputError
        When the raster holds no classes of one level.
    """
    import numpy as np

    from qala.raster import inspect, open_raster
    from qala.rules import level_codes

    info = inspect(cells, "cells")
    if info.tags.get("LEVEL") in ("1", "2"):
        return int(info.tags["LEVEL"])
    codes = {int(v) for v in np.unique(open_raster(cells, "cells").values)} - {255}
    for level in (1, 2):
        if codes <= set(level_codes(level)):
            return level
    raise InputError(
        f"{cells} holds the values {sorted(codes)[:12]}",
        "classes of one level: 3 2 1 0, or 30 23 22 21 13 12 11 10",
        "name the output of `qala cells`",
    )


def rates_to_file(
    population: Sequence[str],
    units: str | Path,
    output: str | Path,
    *,
    id: str,
    built: Sequence[str] = (),
    land: Sequence[str] = (),
    official: str | Path | None = None,
    layer: str | None = None,
    units_crs: str | None = None,
    repair: bool = False,
    nodata: float | None = None,
    built_unit: Unit | None = None,
    land_unit: Unit | None = None,
    ruleset: str = "R2023A",
    rules: str = "2024",
    overlay: str = "exact",
    chunk: int | None = None,
    lang: str = "en",
    **thresholds: Any,
) -> gpd.GeoDataFrame:
    """Compute urbanisation rates of units and write layer ``rates``.

    Parameters
    ----------
    population, built, land
        Files, each plain or as ``epoch=file``; a single one serves every epoch.
    units, id, layer, units_crs, repair
        As for :func:`qala.read_units`.
    output
        GeoPackage to write.
    official
        Table of official shares; see :func:`qala.rates.read_official`.
    nodata, built_unit, land_unit, ruleset, chunk, **thresholds
        As for :func:`cells_to_files`.
    rules, overlay
        As for :func:`qala.classify_units`.
    lang
        Language of the style's words.

    Returns
    -------
    geopandas.GeoDataFrame
        The layer written.

    Raises
    ------
    InputError
        When inputs do not fit together; nothing is written then.
    """
    from qala.export.geopackage import Layer, write_geopackage
    from qala.raster import open_raster, require_apart, require_writable
    from qala.rates import summarise, urbanisation_rates
    from qala.sources import epochs_of
    from qala.vector import read_units

    read = [*epochs_of(population).values(), *epochs_of(built).values(), *epochs_of(land).values()]
    require_apart([output], [*read, units, *([official] if official else [])])
    require_writable(output, make=False)

    def rasters(files: Sequence[str], quantity: Quantity, unit: Unit | None) -> Any:
        opened = {
            epoch: open_raster(
                path, quantity, unit=unit, nodata=nodata if quantity == "population" else None
            )
            for epoch, path in epochs_of(files).items()
        }
        if not opened:
            return None
        return next(iter(opened.values())) if len(opened) == 1 and None in opened else opened

    people = rasters(population, "population", None)
    others = {
        "built": rasters(built, "built", built_unit),
        "land": rasters(land, "land", land_unit),
    }
    for name, found in others.items():
        if isinstance(found, dict) and len(found) == 1:
            (epoch,) = found
            if isinstance(people, dict) and epoch not in people:
                log.info("%s of %s serves every epoch", name, epoch)
            others[name] = found[epoch]
    given = read_units(units, id=id, layer=layer, crs=units_crs, repair=repair)
    found = urbanisation_rates(
        given, people, **others, id=id, official=official, ruleset=ruleset,
        rules=rules, overlay=overlay, chunk=chunk, **thresholds,  # type: ignore[arg-type]
    )  # fmt: skip
    write_geopackage(
        output,
        {"rates": Layer(found, style="urban_share"), "summary": Layer(summarise(found))},
        lang=lang,
    )
    return found


# --- the main job ------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """What a run leaves: the folder, its files, its tables, and whether it worked."""

    folder: Path
    files: list[Path]
    tables: Mapping[str, pd.DataFrame]
    record: dict[str, Any]
    fresh: bool

    @property
    def missing(self) -> Mapping[str, str]:
        """Parts that could not be made, each with its reason; empty for a whole result."""
        return dict(self.record.get("missing") or {})

    @property
    def rates(self) -> pd.DataFrame | None:
        """Urban shares by unit."""
        return self.tables.get("rates")

    @property
    def summary(self) -> pd.DataFrame | None:
        """Urban shares of all units together."""
        return self.tables.get("summary")

    @property
    def centres(self) -> pd.DataFrame | None:
        """Urban centres."""
        return self.tables.get("urban_centres")


#: files and tables of a recipe, and what else its record tells
Made = tuple[list[Path], Mapping[str, Any], dict[str, Any]]


def run(
    workflow: AnyWorkflow,
    *,
    out: str | Path | None = None,
    force: bool = False,
    wait: bool = False,
    partial: bool = False,
    missing: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Result:
    """Run a workflow by its recipe.

    One of :func:`urbanisation`, :func:`functional_areas`, :func:`city_twin` and
    :func:`indicators`.

    Parameters
    ----------
    workflow
        From :func:`qala.config.load_workflow`.
    out, force, wait, partial, missing, progress
        As for :func:`urbanisation`.
    """
    if workflow.workflow == "functional_areas":
        return functional_areas(workflow, out=out, force=force, wait=wait, progress=progress)
    if workflow.workflow == "city":
        return city_twin(workflow, out=out, force=force, wait=wait)
    if workflow.workflow == "indicators":
        return indicators(workflow, out=out, force=force, wait=wait)
    return urbanisation(
        workflow, out=out, force=force, wait=wait, partial=partial, missing=missing,
        progress=progress,
    )  # fmt: skip


def urbanisation(
    workflow: Workflow,
    *,
    out: str | Path | None = None,
    force: bool = False,
    wait: bool = False,
    partial: bool = False,
    missing: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Result:
    """Run the main job: from grids and units to urban shares, maps and tables.

    Parameters
    ----------
    workflow
        From :func:`qala.config.load_workflow`.
    out
        Output folder; wins over the workflow's.
    force
        Work even if the folder holds the result of the same inputs.
    wait
        Wait for another run on the folder instead of refusing.
    partial
        Leave out epochs that cannot be made, as long as one can; ``missing`` of
        the result names them.
    missing
        Epochs that the caller has left out already, each with its reason.
    progress
        Called with strips done and in all while rasters are written; with
        worker processes with steps.

    Returns
    -------
    Result
        Its files appear in the folder together, with ``provenance.json``.

    Raises
    ------
    InputError
        When inputs are not sound; nothing is written then.
    TemporaryError
        When another run holds the folder.
    """
    from qala.urbanisation import recipe

    return _resumable(
        workflow,
        lambda stage, recorder, steps: recipe(workflow, stage, recorder, steps, progress),
        out=out, force=force, wait=wait, partial=partial, missing=missing, progress=progress,
    )  # fmt: skip


def functional_areas(
    workflow: AreasWorkflow,
    *,
    out: str | Path | None = None,
    force: bool = False,
    wait: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Run the job of functional urban areas: layers, tables, maps.

    Parameters
    ----------
    workflow
        From :func:`qala.config.load_workflow`.
    out, force, wait
        As for :func:`urbanisation`.
    progress
        Called with steps done and in all with worker processes.

    Returns
    -------
    Result
        With the tables ``areas``, ``membership``, ``rates`` and, where they were asked for,
        ``sensitivity`` and ``joined``.

    Raises
    ------
    InputError
        When inputs are not sound; nothing is written then.
    TemporaryError
        When another run holds the folder.
    """
    from qala.area_steps import areas_recipe

    return _resumable(
        workflow, lambda stage, recorder, steps: areas_recipe(workflow, stage, recorder, steps),
        out=out, force=force, wait=wait, progress=progress,
    )  # fmt: skip


def city_twin(
    workflow: CityWorkflow,
    *,
    out: str | Path | None = None,
    force: bool = False,
    wait: bool = False,
) -> Result:
    """Run the job of a city's 3D twin.

    Parameters
    ----------
    workflow
        From :func:`qala.config.load_workflow`.
    out, force, wait
        As for :func:`urbanisation`.

    Returns
    -------
    Result
        With the table ``measures``. Unless the workflow says otherwise, a twin of
        the same place that lies in the folder is gone on from: ids stay, and what
        has changed is closed, not deleted. ``registers.gpkg`` of such a twin stays
        as it is, with all that was imported into it.

    Raises
    ------
    InputError
        When inputs are not sound; nothing is written then.
    TemporaryError
        When another run holds the folder.
    """
    from qala.city.steps import city_recipe

    folder = Path(out or workflow.out or "out").resolve()
    return _resumable(
        workflow,
        lambda stage, recorder, steps: city_recipe(workflow, stage, recorder, steps, folder),
        out=out, force=force, wait=wait,
    )  # fmt: skip


def indicators(
    workflow: IndicatorsWorkflow,
    *,
    out: str | Path | None = None,
    force: bool = False,
    wait: bool = False,
) -> Result:
    """Run the job of indicators of SDG 11 and kin.

    Parameters
    ----------
    workflow
        From :func:`qala.config.load_workflow`.
    out, force, wait
        As for :func:`urbanisation`.

    Returns
    -------
    Result
        With the table ``indicators``.

    Raises
    ------
    InputError
        When inputs are not sound; nothing is written then.
    TemporaryError
        When another run holds the folder.
    """
    from qala.indicator_products import indicators_recipe

    return _resumable(
        workflow, lambda stage, recorder, steps: indicators_recipe(workflow, stage, recorder),
        out=out, force=force, wait=wait,
    )  # fmt: skip


def _resumable(
    workflow: Page,
    make: Callable[[Path, Recorder, Steps], Made],
    *,
    out: str | Path | None,
    force: bool,
    wait: bool,
    partial: bool = False,
    missing: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Result:
    """Make a recipe's files in a staging folder and publish them, unless nothing changed."""
    from qala import catalog, provenance
    from qala.config import input_files, require_files
    from qala.identity import write_json
    from qala.steps import Steps

    folder = Path(out or workflow.out or "out").resolve()
    require_files(workflow)
    with provenance.locked(folder, wait=wait), provenance.staged(folder) as stage:
        parameters = workflow.model_dump(mode="json", exclude={"out"})
        recorder = provenance.Recorder(parameters, input_files(workflow))
        steps = Steps(folder, recorder, force=force, partial=partial, progress=progress)
        steps.tidy()
        if not force and not missing and provenance.unchanged(folder, recorder.key):
            return _kept(folder)
        for reason in provenance.why_changed(folder, recorder):
            log.info("working again: %s", reason)
        try:
            with recorder.listening():
                files, tables, more = make(stage, recorder, steps)
            lost = {**(missing or {}), **more.pop("missing", {})}
            if lost:
                more["missing"] = lost
            before = provenance.read_record(folder) or {}
            living = more.pop("living", [])
            lasting = [f for f in files if f.relative_to(stage).as_posix() not in living]
            record = recorder.record(lasting, stage, **more)
            files.append(catalog.write_item(stage, record))
            kept = {o["path"] for o in record["outputs"]} | set(living)
            obsolete = [o["path"] for o in before.get("outputs", []) if o["path"] not in kept]
            files.append(write_json(stage / provenance.RECORD, record))
            published = [folder / f.relative_to(stage) for f in files]
            provenance.publish(stage, folder, files, obsolete)
            # steps of a former run that this one does not have
            steps.tidy(keep=None if lost else set(steps.done))
        finally:
            steps.tidy()
    return Result(folder, published, tables, record, True)


def _kept(folder: Path) -> Result:
    """Return the result that lies in the folder already."""
    import pandas as pd

    from qala import provenance

    record = provenance.read_record(folder) or {}
    files = [folder / o["path"] for o in record.get("outputs", [])]
    tables = {
        f.stem: pd.read_parquet(f)
        for f in files
        if f.parent.name == "tables" and f.suffix == ".parquet"
    }
    if (folder / "summary.csv") in files:
        tables["measures"] = pd.read_csv(folder / "summary.csv")
    files.append(folder / provenance.RECORD)
    return Result(folder, files, tables, record, False)
