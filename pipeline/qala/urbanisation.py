"""The main job as steps: from grids and units to urban shares, layers, pictures and the page.

Each function here makes one step of :mod:`qala.steps`: it reads files of earlier
steps, writes its own, and returns notes for the record. What goes from step to
step goes through files, so that a step taken over and one just made give the same.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qala import products, sources
from qala.config import input_files
from qala.errors import QalaError
from qala.steps import Planned, Step, Steps

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    import xarray as xr

    from qala.config import Workflow
    from qala.provenance import Recorder
    from qala.raster import Quantity
    from qala.steps import Progress

log = logging.getLogger("qala")

_UNITS, _MADE = "read units", "make population grids"
_RATES, _SENSITIVITY, _TABLES = "urbanisation rates", "sensitivity", "write tables"
_LAYERS, _PAGE = "write GeoPackage", "write report"


def recipe(
    workflow: Workflow,
    stage: Path,
    recorder: Recorder,
    steps: Steps,
    progress: Progress | None = None,
) -> tuple[list[Path], Mapping[str, Any], dict[str, Any]]:
    """Run the job; return its files in the stage, its tables, and more for the record."""
    plan = Plan(workflow, recorder.hashes)
    plan.begin(recorder, steps)
    if steps.partial:
        # which epochs there are to tell of is known once each was tried
        steps.run(plan.classifying(progress))
        plan.drop_failed(steps)
        if _SENSITIVITY in steps.failed:
            # its epoch failed; another is shown instead
            del steps.failed[_SENSITIVITY]
            steps.run([plan.sensitivity()])
        steps.run(plan.telling(recorder))
    else:
        steps.run(plan.behind(recorder, progress))
    files: list[Path] = []
    if _MADE in steps.done:
        files += steps.outputs(_MADE, stage, "rasters/*.tif")
    for epoch in plan.epochs:
        files += steps.outputs(_named("classify cells", epoch), stage)
    files += steps.outputs(_TABLES, stage) + steps.outputs(_LAYERS, stage)
    for name in plan.pictures():
        files += steps.outputs(f"draw {name}", stage, "figures/*")
    if _PAGE in steps.done:
        files += steps.outputs(_PAGE, stage)
    more: dict[str, Any] = {"title": workflow.title, "synthetic": workflow.synthetic}
    if plan.missing:
        more["missing"] = plan.missing
    before = {name: done.folder for name, done in steps.done.items()}
    return files, _tables(before, plan.epochs), more


class Plan:
    """The steps of a workflow, as far as they are known; nothing here computes.

    Parameters
    ----------
    workflow
        From :func:`qala.config.load_workflow`.
    hashes
        Input file → SHA-256.
    """

    #: what is told of the steps that are not known yet
    rest = "the steps of each epoch"

    def __init__(self, workflow: Workflow, hashes: Mapping[str, str]) -> None:
        self.workflow = self.given = workflow
        self.hashes = hashes
        # rasters that steps have made
        self.inner: set[str] = set()
        given = workflow.inputs
        self.makes_grids = given.prepared is not None or (
            given.census is not None and bool(given.census.points or given.census.totals)
        )
        self.epochs: list[Any] = list(sources.sources_of(workflow, "population"))
        if given.prepared is not None:
            self.epochs = []
        self.official: pd.DataFrame | None = None
        self.missing: dict[str, str] = {}
        # quantity and epoch of rasters that are finer than 1 km → the step that sums them
        self.summed: dict[tuple[Quantity, Any], str] = {}
        self.id = "unit" if given.units is None else given.units.id
        self.has_units = given.units is not None or given.prepared is not None

    def begin(self, recorder: Recorder, steps: Steps) -> None:
        """Open the inputs and bring them into the form that the steps behind read."""
        with recorder.step("open inputs") as notes:
            self.open(steps)
            notes["epochs"] = [str(e) for e in self.epochs]
        steps.run(self.preparing())
        self.prepared(steps)

    def ahead(self, folder: Path, recorder: Recorder) -> list[tuple[str, str]]:
        """Tell of each step whether it would be taken over; nothing is made.

        Returns
        -------
        list of (str, str)
            Name and state, as :class:`qala.steps.Planned` tells it.
        """
        self.open()
        store = Planned(folder)
        store.run(self.preparing())
        try:
            self.prepared(store)
        except FileNotFoundError:
            # epochs are known once the grids are made
            return [*store.told, (self.rest, "new")]
        store.run(self.behind(recorder))
        return store.told

    # --- what is looked at first ---------------------------------------------------

    def open(self, steps: Steps | None = None) -> None:
        """Open every input without reading it through, so that what is wrong is told at once."""
        given = self.workflow.inputs
        if given.places is not None:
            sources.read_places(given.places)
        sources.official_of(self.workflow, None)
        if not self.epochs:
            # these are known once the grids are made
            for quantity in sources.LAYERS:
                self._find_finer(quantity)
        first: QalaError | None = None
        for epoch in list(self.epochs):
            try:
                alone = sources.of_epoch(self.workflow, epoch)
                sources.open_grids(alone)
                for quantity in sources.LAYERS:
                    self._find_finer(quantity, epoch)
            except QalaError as error:
                if steps is None or not steps.partial:
                    raise
                first = first or error
                self._lose(epoch, error)
        if first is not None and not self.epochs:
            raise first

    def _find_finer(self, quantity: Quantity, epoch: Any = None) -> None:
        from qala.raster import inspect

        found = sources.sources_of(self.workflow, quantity)
        if epoch is not None and found:
            found = {k: v for k, v in found.items() if len(found) == 1 or k == epoch}
        for key, files in found.items():
            info = inspect(files if isinstance(files, str) else files[0], quantity)
            if sources.fold_of(info.geobox) > 1:
                words = " ".join([quantity, *([str(key)] if key is not None else [])])
                self.summed[quantity, key] = f"sum {words} to 1 km"

    def _lose(self, epoch: Any, error: QalaError) -> None:
        log.warning("epoch %s is left out: %s", epoch, error)
        self.epochs.remove(epoch)
        self.missing[str(epoch)] = error.sentence()

    def drop_failed(self, steps: Steps) -> None:
        """Leave out the epochs of which a step failed."""
        for epoch in list(self.epochs):
            names = (_named("classify cells", epoch), _named("delineate urban centres", epoch))
            error = next((steps.failed[n] for n in names if n in steps.failed), None)
            if error is not None:
                self.epochs.remove(epoch)
                self.missing[str(epoch)] = error.sentence()
                if not self.epochs:
                    raise error

    # --- the steps -----------------------------------------------------------------

    def preparing(self) -> list[Step]:
        """Return the steps that bring inputs into the form that the others read."""
        found = []
        given, workflow = self.workflow.inputs, self.workflow
        for (quantity, key), name in self.summed.items():
            files = sources.sources_of(workflow, quantity)[key]
            found.append(Step(
                name, sum_raster,
                {**self._files(files), "bbox": workflow.bbox,
                 **self._reading(quantity)},
                {"workflow": workflow, "files": files, "quantity": quantity},
            ))  # fmt: skip
        if given.units is not None:
            parts = {**self._files(given.units.path), "bbox": workflow.bbox,
                     "inputs.units": given.units.model_dump(exclude={"path"})}  # fmt: skip
            if workflow.bbox is not None and self.epochs:
                parts["the grid"] = self._grid()
            found.append(Step(_UNITS, read_units, parts, {"workflow": workflow}))
        if self.makes_grids:
            parts = {"inputs.census": None if given.census is None else given.census.model_dump(
                         exclude={"points", "totals"}),
                     "inputs.prepared": given.prepared, "bbox": workflow.bbox}  # fmt: skip
            if given.prepared is not None:
                parts |= self._files([str(f) for f in input_files(workflow)])
            elif given.census is not None:
                named = [f for f in (given.census.points, given.census.totals) if f]
                parts |= self._files(named)
            for quantity in ("population", "land"):
                parts |= self._raw(quantity, self.epochs)
            found.append(Step(
                _MADE, make_grids, parts, {"workflow": workflow, "summed": dict(self.summed)},
                after=(*self.summed.values(), *([_UNITS] if given.units else [])),
            ))  # fmt: skip
        return found

    def prepared(self, steps: Steps | Planned) -> None:
        """Put the files of the steps so far in place of the inputs."""
        changes: dict[str, Any] = {}
        for epoch, error in self._failed_sums(steps):
            if epoch is None:
                raise error
            self._lose(epoch, error)
        for quantity in sources.LAYERS:
            found = sources.sources_of(self.workflow, quantity)
            if quantity == "population" and self.makes_grids:
                continue
            changes[quantity] = {
                key: str(steps.done[self.summed[quantity, key]].folder / f"{quantity}.tif")
                if (quantity, key) in self.summed else files
                for key, files in found.items()
                if quantity != "population" or key in self.epochs
            } or None  # fmt: skip
        if self.makes_grids:
            if _MADE in steps.failed:
                raise steps.failed[_MADE]
            done = steps.done[_MADE]
            made = json.loads((done.folder / "epochs.json").read_text(encoding="utf-8"))
            changes["population"] = {e: str(done.folder / f) for e, f in made}
            changes |= {"census": None, "prepared": None}
            self.epochs = [e for e, _ in made]
            self.workflow = self.workflow.model_copy(update={"bbox": None})
        before = {n: d.folder for n, d in steps.done.items()}
        if self.given.inputs.prepared is not None:
            self.official = _read(before[_MADE] / "official.parquet")
        else:
            self.official = sources.official_of(self.given, load_units(before))
        for found in changes.values():
            if isinstance(found, dict):
                self.inner |= {f for f in found.values() if isinstance(f, str)}
        self.inner -= set(self.hashes)
        self.workflow = sources.with_inputs(self.workflow, **changes)

    def _failed_sums(self, steps: Steps | Planned) -> list[tuple[Any, QalaError]]:
        found: dict[Any, QalaError] = {}
        for (_, key), name in self.summed.items():
            if name in steps.failed:
                found[key] = steps.failed[name]
        return list(found.items())

    def behind(self, recorder: Recorder, progress: Progress | None = None) -> list[Step]:
        """Return all steps over prepared inputs."""
        return [*self.classifying(progress), *self.telling(recorder)]

    def classifying(self, progress: Progress | None = None) -> list[Step]:
        """Return the steps of each epoch by itself, and those that need no other."""
        # the longest first: the others run beside it
        found = [self.sensitivity()] if self.workflow.outputs.sensitivity else []
        for epoch in self.epochs:
            alone = sources.of_epoch(self.workflow, epoch)
            classes = _named("classify cells", epoch)
            found.append(Step(
                classes, classify,
                {**self._grids(epoch), **self._rules(), "synthetic": self.workflow.synthetic},
                {"workflow": alone, "epoch": epoch}, self._sums(epoch),
                {"progress": progress},
            ))  # fmt: skip
        for epoch in self.epochs:
            places = self.workflow.inputs.places
            found.append(Step(
                _named("delineate urban centres", epoch), delineate,
                {**self._raw("population", [epoch]), **self._files(places)},
                {"workflow": sources.of_epoch(self.workflow, epoch), "epoch": epoch},
                (_named("classify cells", epoch), *self._sums(epoch, ["population"])),
            ))  # fmt: skip
        return found

    def sensitivity(self) -> Step:
        """Return the step that varies the definition, at the epoch that is shown."""
        shown = self.shown()
        return Step(
            _SENSITIVITY, vary,
            {**self._grids(shown), **self._rules(), "inputs.units.id": self.id,
             "units.overlay": self.workflow.units.overlay},
            {"workflow": sources.of_epoch(self.workflow, shown), "id": self.id},
            (*self._sums(shown), *self._units()),
        )  # fmt: skip

    def telling(self, recorder: Recorder) -> list[Step]:
        """Return the steps over all epochs: rates, tables, layers, pictures, the page."""
        workflow, outputs = self.workflow, self.workflow.outputs
        classes = tuple(_named("classify cells", e) for e in self.epochs)
        centres = tuple(_named("delineate urban centres", e) for e in self.epochs)
        shown = self.shown()
        found = []
        rates: tuple[str, ...] = ()
        if self.has_units:
            parts = {"inputs.units.id": self.id, "units.rules": workflow.units.rules,
                     "units.overlay": workflow.units.overlay, **self._official(),
                     **self._raw("population", self.epochs)}  # fmt: skip
            after = [*classes, *self._units()]
            for epoch in self.epochs:
                after += [n for n in self._sums(epoch, ["population"]) if n not in after]
            arguments = {"workflow": workflow, "epochs": self.epochs, "id": self.id,
                         "official": self.official}  # fmt: skip
            found.append(Step(_RATES, rate, parts, arguments, tuple(after)))
            rates = (_RATES,)
        varied = (_SENSITIVITY,) if outputs.sensitivity else ()
        tables = (*centres, *rates, *varied)
        found.append(Step(_TABLES, write_tables, {}, {"epochs": self.epochs}, tables))
        words = {"title": workflow.title, "sources": list(workflow.sources),
                 "synthetic": workflow.synthetic}  # fmt: skip
        shown_class = _named("classify cells", shown)
        pictures = []
        for name in self.pictures():
            after = [*self._units()]
            if name.startswith(("map_cells", "map_centres")):
                after += [shown_class, _named("delineate urban centres", shown)]
            elif name.startswith("chart_sensitivity"):
                after = [_SENSITIVITY]
            else:
                after += [_RATES]
            pictures.append(Step(
                f"draw {name}", draw,
                {**words, "shown": shown, "outputs.report": outputs.report},
                {"workflow": workflow, "name": name, "shown": shown}, tuple(after),
            ))  # fmt: skip
        parameters, inputs = recorder.parameters, recorder.inputs
        found.append(Step(
            _LAYERS, write_layers,
            {**parameters, "the input files": inputs},
            {"workflow": workflow, "epochs": self.epochs, "shown": shown,
             "parameters": parameters, "inputs": inputs},
            (*tables, shown_class, *self._units()),
        ))  # fmt: skip
        found += pictures
        if outputs.figures and outputs.report and rates:
            parts = {**words, "outputs.language": outputs.language,
                     "cells": parameters.get("cells"), "inputs": inputs}  # fmt: skip
            found.append(Step(
                _PAGE, write_page, parts,
                {"workflow": workflow, "epochs": self.epochs, "shown": shown,
                 "parameters": parameters, "inputs": inputs},
                (*tables, *(p.name for p in pictures)),
            ))  # fmt: skip
        return found

    def pictures(self) -> list[str]:
        """Return the names of the pictures, in order."""
        outputs = self.workflow.outputs
        if not outputs.figures:
            return []
        found = ["map_cells", "map_centres"]
        if self.has_units:
            found += ["map_urban_share", "map_units", "chart_rates"]
            found += ["chart_change"] if len(self.epochs) > 1 else []
        if outputs.sensitivity:
            found += ["chart_sensitivity", "chart_sensitivity_centres"]
        return found

    def shown(self) -> Any:
        """Return the epoch that maps and the page show: the newest with official figures."""
        table = self.official
        if table is not None and "official_share" in table.columns:
            told = table.loc[table["official_share"].notna(), "epoch"]
            if told.isna().any():
                return self.epochs[-1]
            known = {str(e) for e in told}
            return next((e for e in reversed(self.epochs) if str(e) in known), self.epochs[-1])
        return self.epochs[-1]

    # --- what decides a step -------------------------------------------------------

    def _files(self, files: Any) -> dict[str, Any]:
        """Return the hashes of files and of those they are made of, by their names."""
        from qala.provenance import hashes_by_name

        if files is None:
            return {}
        given = [files] if isinstance(files, str) else list(files)
        return dict(hashes_by_name([Path(f) for f in given], self.hashes))

    def _raw(self, quantity: str, epochs: Sequence[Any]) -> dict[str, Any]:
        """Return the files of a quantity that no step has made from others."""
        found: dict[str, Any] = {}
        given = sources.sources_of(self.workflow, quantity)  # type: ignore[arg-type]
        for epoch in epochs or given:
            files = sources.at_epoch(given, epoch, quantity)
            names = [files] if isinstance(files, str) else list(files or [])
            raw = [f for f in names if f not in self.inner]
            found |= self._files(raw)
        return found | (self._reading(quantity) if found else {})

    def _reading(self, quantity: str) -> dict[str, Any]:
        key = "population_nodata" if quantity == "population" else f"{quantity}_unit"
        return {f"inputs.{key}": getattr(self.workflow.inputs, key)}

    def _grids(self, epoch: Any) -> dict[str, Any]:
        found: dict[str, Any] = {"bbox": self.workflow.bbox}
        for quantity in sources.LAYERS:
            found |= self._raw(quantity, [epoch])
        return found

    def _sums(self, epoch: Any, quantities: Sequence[Quantity] = sources.LAYERS) -> tuple[str, ...]:
        """Return the steps that made the rasters of an epoch."""
        found = []
        for quantity in quantities:
            if quantity == "population" and self.makes_grids:
                found.append(_MADE)
                continue
            keys = [k for q, k in self.summed if q == quantity]
            mine = keys if len(keys) == 1 else [k for k in keys if k == epoch]
            found += [self.summed[quantity, k] for k in mine]
        return tuple(found)

    def _units(self) -> tuple[str, ...]:
        if not self.has_units:
            return ()
        return (_MADE,) if self.makes_grids else (_UNITS,)

    def _official(self) -> dict[str, Any]:
        given = self.workflow.inputs.official
        return {} if given is None else self._files(given)

    def _rules(self) -> dict[str, Any]:
        cells = self.workflow.cells
        return {"cells.ruleset": cells.ruleset,
                **{f"cells.thresholds.{k}": v for k, v in cells.thresholds.items()}}  # fmt: skip

    def _grid(self) -> str:
        from qala.grid import geobox_of

        alone = sources.of_epoch(self.workflow, self.epochs[0])
        box = geobox_of(sources.open_source(alone, alone.inputs.population[self.epochs[0]],  # type: ignore[index]
                                            "population"))  # fmt: skip
        return f"{box.shape} {tuple(box.transform)} {box.crs}"


def planned(workflow: Workflow, folder: Path, recorder: Recorder) -> list[tuple[str, str]]:
    """Tell of each step whether it would be taken over; see :meth:`Plan.ahead`."""
    return Plan(workflow, recorder.hashes).ahead(folder, recorder)


def _named(step: str, epoch: Any) -> str:
    return step if epoch is None else f"{step} {epoch}"


# --- the steps themselves ---------------------------------------------------------------


def sum_raster(
    folder: Path, before: Mapping[str, Path], *, workflow: Workflow, files: Any, quantity: Quantity
) -> dict[str, Any]:
    """Sum fine cells to 1 km, so that everything behind reads small files."""
    from qala.grid import geobox_of
    from qala.raster import aggregate, write_raster

    raster = sources.open_source(workflow, files, quantity)
    summed = aggregate(raster, sources.fold_of(geobox_of(raster)))
    cut, _ = sources.cut(workflow, {None: summed}, None)
    write_raster(cut[None], folder / f"{quantity}.tif", cloud_optimised=False)
    return {"cells": [int(n) for n in raster.shape], "cells_of_1_km": [*cut[None].shape]}


def read_units(folder: Path, before: Mapping[str, Path], *, workflow: Workflow) -> dict[str, Any]:
    """Read, check and cut the territorial units."""
    units = sources.units_of(workflow)
    if workflow.bbox is not None and sources.sources_of(workflow, "population"):
        first = next(iter(sources.sources_of(workflow, "population")))
        alone = sources.of_epoch(workflow, first)
        _, units = sources.cut(workflow, sources.open_population(alone), units)
    assert units is not None
    units.to_parquet(folder / "units.parquet")
    return {"units": len(units)}


def make_grids(
    folder: Path, before: Mapping[str, Path], *, workflow: Workflow,
    summed: Mapping[tuple[Quantity, Any], str],
) -> dict[str, Any]:  # fmt: skip
    """Make population grids from points, or bring them to published totals."""
    from qala.raster import RasterFile, write_rasters

    changes: dict[str, Any] = {}
    for quantity in ("population", "land"):
        found = sources.sources_of(workflow, quantity)
        changes[quantity] = {
            key: str(before[summed[quantity, key]] / f"{quantity}.tif")
            if (quantity, key) in summed else files
            for key, files in found.items()
        } or None  # fmt: skip
    given = sources.with_inputs(workflow, **changes, built=None, official=None, places=None)
    data = sources.open_inputs(given, units=load_units(before))
    if data.units is not None:
        data.units.to_parquet(folder / "units.parquet")
    if workflow.inputs.prepared is not None:
        _write(data.official, folder / "official.parquet")
        if data.places is not None:
            data.places.to_parquet(folder / "places.parquet")
    files, made = [], []
    for epoch, people in data.population.items():
        kind = "population_reconciled" if epoch in data.factors else "population"
        room = "rasters" if epoch in data.factors else "made"
        name = f"{room}/{kind}{products.suffix_of(epoch)}.tif"
        files.append(RasterFile(people, folder / name))
        made.append([epoch, name])
        if epoch in data.factors:
            name = f"rasters/correction_factors{products.suffix_of(epoch)}.tif"
            files.append(RasterFile(data.factors[epoch].rename("factor"), folder / name))
    write_rasters(files)
    (folder / "epochs.json").write_text(json.dumps(made), encoding="utf-8")
    return {"people": {str(e): _people(p) for e, p in data.population.items()}}


def classify(
    folder: Path, before: Mapping[str, Path], *, workflow: Workflow, epoch: Any,
    progress: Progress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Classify the cells of an epoch at both levels and number the centres."""
    import numpy as np

    from qala.settlement import classify_levels

    data = sources.open_grids(workflow)
    people = data.population[epoch]
    found = classify_levels(
        people, data.built[epoch], data.land[epoch], ruleset=workflow.cells.ruleset,
        chunk=workflow.cells.chunk, **workflow.cells.thresholds,
    )  # fmt: skip
    products.write_cells(workflow, folder, data, {epoch: found}, progress)
    codes, counts = np.unique(products.read_classes(folder, epoch, 2).values, return_counts=True)
    return {
        "people": _people(people),
        "cells": {str(int(c)): int(n) for c, n in zip(codes, counts, strict=True)},
    }


def delineate(
    folder: Path, before: Mapping[str, Path], *, workflow: Workflow, epoch: Any
) -> dict[str, Any]:
    """Draw the urban centres of an epoch, with their people and names."""
    from qala.settlement import urban_centres

    labels = products.read_labels(before[_named("classify cells", epoch)], epoch)
    places = None
    if workflow.inputs.places is not None:
        places = sources.read_places(workflow.inputs.places)
    elif (before.get(_MADE, folder) / "places.parquet").is_file():
        import geopandas as gpd

        places = gpd.read_parquet(before[_MADE] / "places.parquet")
    people = sources.open_population(workflow)[epoch]
    centres = urban_centres(labels, people, sources.places_at(places, epoch))
    centres.to_parquet(folder / "centres.parquet")
    return {"urban_centres": len(centres), "people": float(centres["population"].sum())}


def vary(
    folder: Path, before: Mapping[str, Path], *, workflow: Workflow, id: str
) -> dict[str, Any]:
    """Tell how the shares of an epoch hang on the definition."""
    from qala.rates import sensitivity

    data = sources.open_grids(workflow)
    epoch = next(iter(data.population))
    units = load_units(before)
    thresholds: dict[str, Any] = dict(workflow.cells.thresholds)
    table = sensitivity(
        data.population[epoch], data.built[epoch], data.land[epoch], units,
        id=None if units is None else id, overlay=workflow.units.overlay,
        ruleset=workflow.cells.ruleset, chunk=workflow.cells.chunk, **thresholds,
    )  # fmt: skip
    # values of several kinds (0.2, "2024", "off") have no type in Parquet; JSON keeps them
    rows = table.to_dict("records")
    text = json.dumps({"columns": list(table.columns), "rows": rows}, default=plain)
    (folder / "sensitivity.json").write_text(text, encoding="utf-8")
    return {"variants": len(table), "epoch": str(epoch)}


def rate(
    folder: Path, before: Mapping[str, Path], *, workflow: Workflow, epochs: Sequence[Any],
    id: str, official: pd.DataFrame | None,
) -> dict[str, Any]:  # fmt: skip
    """Take the shares of every unit and epoch beside the official ones."""
    from qala.rates import summarise, urbanisation_rates

    people = {e: sources.open_population(sources.of_epoch(workflow, e))[e] for e in epochs}
    cells = {e: products.read_classes(before[_named("classify cells", e)], e, 2) for e in epochs}
    units = load_units(before)
    assert units is not None
    rates = urbanisation_rates(
        units, people, id=id, official=official, cells=cells, rules=workflow.units.rules,
        overlay=workflow.units.overlay,
    )  # fmt: skip
    rates.to_parquet(folder / "rates.parquet")
    summarise(rates).to_parquet(folder / "summary.parquet")
    return {"rows": len(rates), "people": float(rates["population"].sum())}


def write_tables(
    folder: Path, before: Mapping[str, Path], *, epochs: Sequence[Any]
) -> dict[str, Any]:
    """Write every table as CSV and Parquet."""
    from qala import report

    tables = _tables(before, epochs)
    report.write_tables(folder / "tables", tables)
    return {name: len(table) for name, table in tables.items()}


def write_layers(
    folder: Path, before: Mapping[str, Path], *, workflow: Workflow, epochs: Sequence[Any],
    shown: Any, parameters: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    """Write the GeoPackage."""
    classes = products.read_classes(before[_named("classify cells", shown)], shown, 2)
    products.write_layers(
        workflow, folder, classes, {e: _centres(before, e) for e in epochs},
        _tables(before, epochs), load_units(before), shown=shown, parameters=parameters,
        inputs=inputs,
    )  # fmt: skip
    return {}


def draw(
    folder: Path, before: Mapping[str, Path], *, workflow: Workflow, name: str, shown: Any
) -> dict[str, Any]:
    """Draw one picture in every language."""
    from qala import report

    def cells() -> xr.DataArray:
        return products.read_classes(before[_named("classify cells", shown)], shown, 2)

    drawn = products.draw_picture(
        name, workflow, folder, shown, cells=cells,
        centres=lambda: _centres(before, shown), units=lambda: load_units(before),
        tables=lambda: _tables(before, []),
    )  # fmt: skip
    if workflow.outputs.report and drawn:
        # packed here, where pictures are drawn at once, and not one after the other in the page
        (folder / "page").mkdir()
        for path in drawn:
            (folder / "page" / path.name).write_bytes(report.pack_picture(path))
    return {"pictures": len(drawn)}


def write_page(
    folder: Path, before: Mapping[str, Path], *, workflow: Workflow, epochs: Sequence[Any],
    shown: Any, parameters: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    """Write the page that planners read."""
    pictures: dict[str, dict[str, Path]] = {}
    for step, place in before.items():
        for path in sorted((place / "page").glob("*.png")) if step.startswith("draw ") else []:
            name, _, lang = path.stem.rpartition("_")
            pictures.setdefault(name, {})[lang] = path
    products.write_page(
        workflow, folder, shown, pictures, _tables(before, epochs), _centres(before, shown),
        parameters=parameters, inputs=inputs,
    )  # fmt: skip
    return {}


# --- files between steps ------------------------------------------------------------------


def load_units(before: Mapping[str, Path]) -> gpd.GeoDataFrame | None:
    """Read the units that an earlier step left; None where there are none."""
    import geopandas as gpd

    # cut together with grids that were made
    for name in (_MADE, _UNITS):
        file = before[name] / "units.parquet" if name in before else None
        if file is not None and file.is_file():
            return gpd.read_parquet(file)
    return None


def _centres(before: Mapping[str, Path], epoch: Any) -> gpd.GeoDataFrame:
    import geopandas as gpd

    return gpd.read_parquet(before[_named("delineate urban centres", epoch)] / "centres.parquet")


def _tables(before: Mapping[str, Path], epochs: Sequence[Any]) -> dict[str, Any]:
    """Read the tables of the steps before, those of several epochs below each other."""
    import geopandas as gpd
    import pandas as pd

    tables: dict[str, Any] = {}
    if epochs:
        parts = [pd.DataFrame(_centres(before, e)).assign(epoch=e) for e in epochs]
        table = pd.concat(parts, ignore_index=True)
        first = ["epoch", "centre"]
        rest = [c for c in table.columns if c not in (*first, "geometry")]
        tables["urban_centres"] = table[[*first, *rest]]
    if _RATES in before:
        tables["rates"] = gpd.read_parquet(before[_RATES] / "rates.parquet")
        tables["summary"] = pd.read_parquet(before[_RATES] / "summary.parquet")
    if _SENSITIVITY in before:
        text = (before[_SENSITIVITY] / "sensitivity.json").read_text(encoding="utf-8")
        held = json.loads(text)
        tables["sensitivity"] = pd.DataFrame(held["rows"], columns=held["columns"])
    return tables


def _write(table: pd.DataFrame | None, path: Path) -> None:
    if table is not None:
        table.to_parquet(path)


def _read(path: Path) -> pd.DataFrame | None:
    import pandas as pd

    return pd.read_parquet(path) if path.is_file() else None


def _people(population: xr.DataArray) -> float:
    return float(population.sum(dtype="float64").compute())


def plain(value: Any) -> Any:
    """Return what JSON can hold of a number of NumPy, or of anything else its text."""
    return value.item() if hasattr(value, "item") else str(value)


__all__ = ["Plan", "load_units", "recipe"]
