"""Functional urban areas as steps: from units, people and commuting to layers and pictures.

Each function makes one step of :mod:`qala.steps`, as in :mod:`qala.urbanisation`, whose steps
for inputs serve here too. Minutes on a network and flows are steps by themselves, so that
another threshold, name or picture leaves them alone.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from qala import sources
from qala.area_products import (
    chart_area_sensitivity,
    kind_of,
    main_roads,
    map_areas,
    subtitle_of,
)
from qala.areas import (
    Delineated,
    cell_seconds,
    city_goals,
    city_isochrones,
    city_names,
    core_units,
    draw_areas,
    find_centres,
    find_cities,
    find_commuters,
    layers_of_delineated,
    open_network,
    rates_of,
    settlement_units,
    told_of,
    unit_seconds,
    with_agreement,
)
from qala.commuting import Calibration, Decay, Flows, as_ids
from qala.errors import InputError, Problems
from qala.fua import (
    Areas,
    Borders,
    Cities,
    Commuters,
    Frame,
    Sensitivity,
    people_of_units,
)
from qala.fua_reports import area_sensitivity, official_at, told_in
from qala.messages import LANGUAGES, in_languages, tr
from qala.steps import Planned, Step, Steps
from qala.urbanisation import Plan, load_units, plain
from qala.vector import some

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    import xarray as xr

    from qala.config import AreasWorkflow
    from qala.network import Network
    from qala.provenance import Recorder
    from qala.steps import Progress

log = logging.getLogger("qala")

_DIVIDED, _CENTRES, _PEOPLE = "divide units", "find urban centres", "people of units"
_CITIES, _NETWORK, _TIMES = "find cities", "read network", "travel times"
_COMMUTERS, _AREAS, _BANDS = "commuters", "delineate areas", "isochrones"
_SENSITIVITY, _RATES, _TABLES, _LAYERS = "sensitivity", "rates", "write tables", "write GeoPackage"
_PICTURES = ("map_areas", "chart_sensitivity")


def areas_recipe(
    workflow: AreasWorkflow, stage: Path, recorder: Recorder, steps: Steps
) -> tuple[list[Path], dict[str, pd.DataFrame], dict[str, Any]]:
    """Run the job; return its files in the stage, its tables, and more for the record."""
    plan = AreasPlan(workflow, recorder.hashes)
    plan.begin(recorder, steps)
    steps.run(plan.behind(recorder))
    files: list[Path] = []
    for name in (_CENTRES, _TABLES, _LAYERS, *(f"draw {p}" for p in plan.pictures())):
        if name in steps.done:
            files += steps.outputs(name, stage)
    before = {name: done.folder for name, done in steps.done.items()}
    tables = _tables(before)
    joined = tables.get("joined")
    more = {
        "title": workflow.title,
        "synthetic": workflow.synthetic,
        "method": str(steps.done[_AREAS].notes["settings"]["method"]),
        "verdicts": [] if joined is None else joined["verdict"].tolist(),
    }
    return files, tables, more


def planned(workflow: AreasWorkflow, folder: Path, recorder: Recorder) -> list[tuple[str, str]]:
    """Tell of each step whether it would be taken over; see :meth:`AreasPlan.ahead`."""
    return AreasPlan(workflow, recorder.hashes).ahead(folder, recorder)


class AreasPlan(Plan):
    """The steps of a workflow of functional urban areas, over one epoch."""

    rest = "all further steps"

    def __init__(self, workflow: AreasWorkflow, hashes: Mapping[str, str]) -> None:
        super().__init__(cast("Any", workflow), hashes)
        self.step, self.method = workflow.areas, workflow.areas.method
        self.network, self.flows = workflow.inputs.network, workflow.inputs.flows
        self.cores, self.calibrate = workflow.inputs.cores, workflow.inputs.calibrate
        self.divide = workflow.inputs.divide
        self.epoch: Any = None
        unit_id = self.id
        if self.divide is not None:
            self.id = self.divide.id
        self.reporting = self.step.reporting or (unit_id if self.divide is not None else None)

    def open(self, steps: Steps | None = None) -> None:
        """Open every input without reading it through, so that what is wrong is told at once."""
        if self.epochs:
            self._choose(sources.official_of(self.workflow, None))
        super().open(steps)

    def prepared(self, steps: Steps | Planned) -> None:
        """Put the files of the steps so far in place of the inputs."""
        super().prepared(steps)
        self.official = self._choose(self.official)

    def _choose(self, official: pd.DataFrame | None) -> pd.DataFrame | None:
        """Leave one epoch, and return the official figures of it."""
        self.epoch, table = _epoch_of(self.step.epoch, self.epochs, official)
        self.epochs = [self.epoch]
        self.workflow = sources.of_epoch(self.workflow, self.epoch)
        return table

    # --- the steps -----------------------------------------------------------------

    def preparing(self) -> list[Step]:
        """Return the steps that bring inputs into the form that the others read."""
        found = super().preparing()
        if self.network is not None:
            files = self._files(self.network)
            # the longest first, so that the others run beside it
            found.insert(0, Step(_NETWORK, read_roads, files, {"path": self.network}))
        return found

    def behind(self, recorder: Recorder, progress: Progress | None = None) -> list[Step]:
        """Return all steps over prepared inputs."""
        workflow, outputs = cast("AreasWorkflow", self.workflow), self.workflow.outputs
        given, step, lang = workflow.inputs, self.step, outputs.language
        grid = {"workflow": workflow, "epoch": self.epoch}
        unit = {"id": self.id}
        named = {"the units' column of ids": self.id}
        people_on_grid = {**self._raw("population", [self.epoch]), "bbox": workflow.bbox}
        sums = self._sums(self.epoch, ["population"])
        units = self._units()
        found: list[Step] = []

        def add(
            name: str, make: Any, parts: Mapping[str, Any], arguments: Mapping[str, Any],
            *after: str,
        ) -> None:  # fmt: skip
            found.append(Step(name, make, parts, arguments, tuple(dict.fromkeys(after))))

        if self.divide is not None:
            cut = self.given.bbox is not None
            parts = {**self._files(given.places), "inputs.divide": self.divide.model_dump(),
                     "epoch": self.epoch, "bbox": cut}  # fmt: skip
            add(_DIVIDED, divide, parts, {**grid, "cut": cut}, *units)
            units = (_DIVIDED,)
        centres: tuple[str, ...] = ()
        if self.cores is None:
            parts = {**self._grids(self.epoch), **self._rules(), "synthetic": workflow.synthetic}
            add(_CENTRES, mark_centres, parts, grid, *self._sums(self.epoch))
            centres = (_CENTRES,)
        add(_PEOPLE, count_people, {**people_on_grid, **named}, {**grid, **unit}, *units, *sums)
        parts = {**self._files(self.cores), **named}
        if self.cores is None:
            parts |= {**people_on_grid, "areas.city_share": step.city_share}
        add(_CITIES, place_cities, parts, {**grid, **unit}, *units, *centres,
            *(sums if centres else ()))  # fmt: skip
        located = (*units, _PEOPLE, _CITIES)

        times: tuple[str, ...] = ()
        if self.network is not None and self.method == "cellwise":
            add(_TIMES, time_cells, people_on_grid, grid, _NETWORK, *centres, *sums)
            times = (_TIMES,)
        elif self.network is not None and self.method != "flows":
            add(_TIMES, time_units, {}, {}, _NETWORK, _PEOPLE)
            times = (_TIMES,)
        commuters: tuple[str, ...] = ()
        if self.method in ("flows", "network", "distance"):
            parts = {**named, "areas.beta": step.beta, **self._tables_of_flows()}
            estimated = self.flows is None
            if estimated:
                parts |= people_on_grid
            add(_COMMUTERS, find_flows, parts, {**grid, **unit}, *units, _PEOPLE, *times,
                *(sums if estimated else ()))  # fmt: skip
            commuters = (_COMMUTERS,)

        parts = {**named, "areas.method": self.method, "outputs.language": lang}
        after = [*located, *commuters]
        if commuters:
            parts |= {"areas.threshold": step.threshold, "areas.merge": step.merge,
                      "areas.city_share": None if self.cores else step.city_share}  # fmt: skip
            if self.calibrate is not None:
                parts |= self._tables_of_flows()
        else:
            parts |= people_on_grid
            after += [*times, *sums]
        if self.method == "isochrone":
            parts |= {"areas.minutes": step.minutes, "areas.min_city": step.min_city}
        if self.method == "cellwise":
            after += centres
        if self.network is not None:
            after.append(_NETWORK)
        add(_AREAS, delineate, parts, {**grid, **unit}, *after)

        bands: tuple[str, ...] = ()
        if self.network is not None:
            parts = {**named, **(people_on_grid if centres else {})}
            if self.method == "isochrone":
                parts["areas.min_city"] = step.min_city
            add(_BANDS, spread, parts, {**grid, **unit}, _NETWORK, *located, *centres,
                *(sums if centres else ()))  # fmt: skip
            bands = (_NETWORK, _BANDS)
        varied: tuple[str, ...] = ()
        if outputs.sensitivity and commuters:
            add(_SENSITIVITY, vary, {}, {}, _AREAS, *commuters)
            varied = (_SENSITIVITY,)
        drawn = (_AREAS, *commuters, *units, _PEOPLE, *varied)
        words = {"title": workflow.title, "sources": list(workflow.sources),
                 "synthetic": workflow.synthetic, **named}  # fmt: skip
        for name in self.pictures():
            add(f"draw {name}", draw, words, {"workflow": workflow, "name": name, **unit},
                *drawn, *bands[:1])  # fmt: skip
        parts = {
            **named,
            **self._official(),
            "areas.reporting": self.reporting,
            "epoch": self.epoch,
        }
        add(_RATES, rate, parts, {**unit, "reporting": self.reporting, "official": self.official},
            _AREAS, *units, *self._units())  # fmt: skip
        add(_TABLES, write_tables, {}, {}, *drawn, _RATES)
        parameters, inputs = recorder.parameters, recorder.inputs
        add(_LAYERS, write_layers, {**parameters, "the input files": inputs},
            {"workflow": workflow, **unit, "parameters": parameters, "inputs": inputs},
            *drawn, _RATES, *bands)  # fmt: skip
        return found

    def _tables_of_flows(self) -> dict[str, Any]:
        given = cast("AreasWorkflow", self.workflow).inputs
        named = [f for f in (given.flows, given.employed, given.calibrate) if f is not None]
        return {**self._files(named), **({"areas.unknown": self.step.unknown} if named else {})}

    def pictures(self) -> list[str]:
        """Return the names of the pictures, in order."""
        outputs = self.workflow.outputs
        if not outputs.figures:
            return []
        varied = outputs.sensitivity and self.method in ("flows", "network", "distance")
        return list(_PICTURES if varied else _PICTURES[:1])


def _epoch_of(
    wanted: int | None, epochs: Sequence[Any], official: pd.DataFrame | None
) -> tuple[Any, pd.DataFrame | None]:
    """Return the epoch of the people, and the official figures of it."""
    from qala.rates import check_official

    table = official
    if table is not None and "official_share" not in table.columns:
        table = check_official(table, "unit")
    if wanted is not None and wanted not in epochs:
        raise InputError(f"areas.epoch is {wanted}", f"an epoch of the population: {some(epochs)}")
    epoch = epochs[-1] if wanted is None else wanted
    if table is not None and wanted is None:
        known = set(table.loc[table["official_share"].notna(), "epoch"].astype(str))
        epoch = next((e for e in reversed(epochs) if str(e) in known), epoch)
    return epoch, None if table is None else official_at(table, epoch)


# --- the steps themselves ---------------------------------------------------------------


def read_roads(folder: Path, before: Mapping[str, Path], *, path: str) -> dict[str, Any]:
    """Read the network, and its main roads as lines."""
    from qala.network import save_network

    network = open_network(path)
    summary = dict(network.metadata.get("summary", {}))
    # of the same roads the same file, however long it took
    seconds = summary.pop("build_seconds", None)
    metadata = {**network.metadata, "summary": summary}
    save_network(replace(network, metadata=metadata), folder / "network.npz")
    roads, lowest = main_roads(network)
    roads.to_parquet(folder / "roads.parquet")
    told = {**told_of(network, len(roads), lowest), "notice": str(metadata.get("notice", ""))}
    _write_json(folder / "network.json", told)
    return {"network": {**summary, "build_seconds": seconds}}


def divide(
    folder: Path, before: Mapping[str, Path], *, workflow: AreasWorkflow, epoch: Any, cut: bool
) -> dict[str, Any]:
    """Divide the units among their settlements."""
    import geopandas as gpd

    given, how = workflow.inputs, workflow.inputs.divide
    assert how is not None
    id = "unit" if given.units is None else given.units.id
    if given.places is not None:
        read = sources.read_places(given.places)
    else:
        made = next(p / "places.parquet" for p in before.values())
        read = gpd.read_parquet(made)
    places = cast("gpd.GeoDataFrame", sources.places_at(read, epoch))
    problems = Problems("inputs.places")
    for column in (how.id, how.unit, how.population):
        if column not in places.columns:
            problems.add(f"no column {column!r}", some(places.columns), "see inputs.divide")
    problems.raise_if_any()
    if how.unit != id:
        places = places.drop(columns=id, errors="ignore").rename(columns={how.unit: id})
    districts = cast("gpd.GeoDataFrame", load_units(before))
    if cut:
        # places of districts outside the cut are no mistake of the table
        places = places[places[id].isin(districts[id])]
    units = settlement_units(places, districts, id=how.id, district=id, population=how.population)
    units.to_parquet(folder / "units.parquet")
    return {"units": len(units)}


def mark_centres(
    folder: Path, before: Mapping[str, Path], *, workflow: AreasWorkflow, epoch: Any
) -> dict[str, Any]:
    """Number the urban centres of the grid."""
    from qala.raster import write_raster

    data, cells = sources.open_grids(workflow), workflow.cells
    labels = find_centres(
        data.population[epoch].compute(), data.built[epoch], data.land[epoch],
        ruleset=cells.ruleset, **cells.thresholds,
    )  # fmt: skip
    tags = {"SYNTHETIC": "yes"} if workflow.synthetic else {}
    write_raster(labels, folder / "rasters" / "urban_centres.tif", tags=tags)
    return {"urban_centres": int(labels.max())}


def count_people(
    folder: Path, before: Mapping[str, Path], *, workflow: AreasWorkflow, epoch: Any, id: str
) -> dict[str, Any]:
    """Count the people of each unit and find where on average they live."""
    import geopandas as gpd

    units = _units(before)
    people, points = people_of_units(units, _population(workflow, epoch), id)
    table = gpd.GeoDataFrame({"unit": as_ids(units[id]), "people": people}, geometry=points)
    table.to_parquet(folder / "people.parquet")
    return {"epoch": str(epoch), "units": len(units), "people": float(people.sum())}


def place_cities(
    folder: Path, before: Mapping[str, Path], *, workflow: AreasWorkflow, epoch: Any, id: str
) -> dict[str, Any]:
    """Find the units that form cities."""
    import pandas as pd

    given = workflow.inputs.cores
    population = None if given is not None else _population(workflow, epoch)
    cities = find_cities(
        _units(before), id, population, None if population is None else _labels(before, population),
        cores=given, city_share=workflow.areas.city_share,
    )  # fmt: skip
    cores = core_units(cities)
    pd.DataFrame({"unit": list(cores.index), "city": list(cores)}).to_parquet(
        folder / "cores.parquet"
    )
    if isinstance(cities, Cities):
        cities.centres.to_parquet(folder / "centres.parquet")
        pd.DataFrame({"share": cities.centre_share}).to_parquet(folder / "shares.parquet")
    return {"cities": cores.nunique(), "core_units": len(cores)}


def time_units(folder: Path, before: Mapping[str, Path]) -> dict[str, Any]:
    """Find the travel times between units on the network."""
    _, points = _people(before)
    seconds = unit_seconds(_network(before), points)
    _write_arrays(folder / "times.npz", seconds=seconds)
    return {"pairs": int(seconds.nnz)}


def time_cells(
    folder: Path, before: Mapping[str, Path], *, workflow: AreasWorkflow, epoch: Any
) -> dict[str, Any]:
    """Find the travel times from populated cells to their nearest urban centre."""
    population = _population(workflow, epoch)
    found = cell_seconds(_network(before), population, _labels(before, population))
    _write_arrays(folder / "times.npz", **{k: v.values for k, v in found.items()})
    return {"cells": int(found["seconds"].notnull().sum())}


def find_flows(
    folder: Path, before: Mapping[str, Path], *, workflow: AreasWorkflow, epoch: Any, id: str
) -> dict[str, Any]:
    """Bring given flows onto the units, or estimate them."""
    given, step = workflow.inputs, workflow.areas
    people, points = _people(before)
    commuters, calibration = find_commuters(
        _units(before), id, people, points,
        None if given.flows is not None else _population(workflow, epoch),
        flows=given.flows, employed=given.employed, seconds=_times(before).get("seconds"),
        beta=step.beta, calibrate_on=given.calibrate, unknown=step.unknown,
    )  # fmt: skip
    flows = commuters.flows
    _write_arrays(
        folder / "commuters.npz", ids=flows.ids.astype(str), matrix=flows.matrix,
        employed=flows.employed, costs=commuters.costs, pull=commuters.pull,
        nearby=commuters.nearby,
    )  # fmt: skip
    told = {
        "estimated": flows.estimated,
        "decay": None if flows.decay is None else asdict(flows.decay),
        "counts": dict(flows.counts),
        "km_a_minute": commuters.km_a_minute,
        "jobs_known": commuters.jobs_known,
        "calibration": None if calibration is None else asdict(calibration),
    }
    _write_json(folder / "commuters.json", told)
    return {"pairs": int(flows.matrix.nnz), "commuters": float(flows.matrix.sum())}


def delineate(
    folder: Path, before: Mapping[str, Path], *, workflow: AreasWorkflow, epoch: Any, id: str
) -> dict[str, Any]:
    """Draw the areas by the rules."""
    given, step, lang = workflow.inputs, workflow.areas, workflow.outputs.language
    units, (people, _), cities = _units(before), _people(before), _cities(before)
    commuters, _ = _commuters(before)
    # people of units suffice for flows
    population = None if commuters is not None else _population(workflow, epoch)
    times = _times(before)
    cell_times = seconds = None
    if population is not None and "nearest" in times:
        cell_times = {k: population.copy(data=v) for k, v in times.items()}
    elif population is not None:
        seconds = times.get("seconds")
    result, outlines = draw_areas(
        units, id, population, people, cities,
        city_names(units, id, people, core_units(cities), lang),
        labels=None if population is None else _labels(before, population), commuters=commuters,
        seconds=seconds, cell_times=cell_times,
        isochrone=step.minutes if step.method == "isochrone" else None, min_city=step.min_city,
        threshold=step.threshold, merge=step.merge, city_share=step.city_share, lang=lang,
    )  # fmt: skip
    if given.calibrate is not None:
        result = with_agreement(result, units, id, given.calibrate, given.employed, step.unknown)
    if _NETWORK in before:
        told = _read_json(before[_NETWORK] / "network.json")
        told.pop("notice")
        result = replace(result, counts={**result.counts, **told})
    save_areas(result, folder)
    if outlines is not None:
        outlines.to_parquet(folder / "outlines.parquet")
    return {"settings": dict(result.settings), "counts": dict(result.counts)}


def spread(
    folder: Path, before: Mapping[str, Path], *, workflow: AreasWorkflow, epoch: Any, id: str
) -> dict[str, Any]:
    """Draw bands of travel time around the cities."""
    population = _population(workflow, epoch)
    people, _ = _people(before)
    goals = city_goals(
        _units(before), id, population, people, core_units(_cities(before)),
        _labels(before, population),
        min_city=workflow.areas.min_city if workflow.areas.method == "isochrone" else 0.0,
    )  # fmt: skip
    bands = city_isochrones(_network(before), goals)
    bands.to_parquet(folder / "isochrones.parquet")
    return {"bands": len(bands)}


def vary(folder: Path, before: Mapping[str, Path]) -> dict[str, Any]:
    """Tell how the areas hang on threshold and decay."""
    import pandas as pd

    varied = area_sensitivity(load_areas(before)).sensitivity
    assert varied is not None
    varied.variants.to_parquet(folder / "variants.parquet")
    varied.joined.to_parquet(folder / "joined.parquet")
    table = {"stability": varied.stability.to_numpy(), "in_area": varied.in_area.to_numpy()}
    pd.DataFrame(table).to_parquet(folder / "units.parquet")
    return {"variants": len(varied.variants)}


def rate(
    folder: Path, before: Mapping[str, Path], *, id: str, reporting: str | None,
    official: pd.DataFrame | None,
) -> dict[str, Any]:  # fmt: skip
    """Take the shares of cities and zones beside the official ones."""
    areas, units = load_areas(before), _units(before)
    rates = rates_of(areas, units, id, reporting=reporting, official=official)
    rates.to_parquet(folder / "rates.parquet")
    return {"rows": len(rates), "people": float(areas.membership["population"].sum())}


def write_tables(folder: Path, before: Mapping[str, Path]) -> dict[str, Any]:
    """Write every table as CSV and Parquet."""
    from qala import report

    tables = _tables(before)
    report.write_tables(folder / "tables", tables)
    return {name: len(table) for name, table in tables.items()}


def write_layers(
    folder: Path, before: Mapping[str, Path], *, workflow: AreasWorkflow, id: str,
    parameters: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    """Write the GeoPackage."""
    from qala.export.geopackage import write_geopackage

    found, lang = load(before, id), workflow.outputs.language
    metadata = {
        "title": workflow.title or in_languages(f"areas.legend_{kind_of(found.areas)}"),
        "licence": _credit(workflow, found, lang),
        "sources": [*workflow.sources, *found.notices],
        "citation": "doi:10.1787/d58cb34d-en",
        "provenance": {"parameters": parameters, "inputs": inputs},
        "synthetic": workflow.synthetic,
    }
    layers = layers_of_delineated(found, minimum_flow=workflow.areas.minimum_flow)
    write_geopackage(folder / "areas.gpkg", layers, metadata=metadata, lang=lang)
    return {name: len(layer.data) for name, layer in layers.items()}


def draw(
    folder: Path, before: Mapping[str, Path], *, workflow: AreasWorkflow, name: str, id: str
) -> dict[str, Any]:
    """Draw one picture in every language."""
    from qala.config import title_of

    found = load(before, id)
    for lang in LANGUAGES:
        areas, place = in_language(found, lang), title_of(workflow, lang)
        common: dict[str, Any] = {
            "path": folder / "figures" / f"{name}_{lang}.png", "lang": lang,
            "source": _credit(workflow, found, lang), "synthetic": workflow.synthetic,
        }  # fmt: skip
        key = f"areas.legend_{kind_of(areas)}" if name == "map_areas" else "areas.sensitivity_title"
        heading = tr(key, lang)
        common["title"] = f"{heading}: {place}" if place else heading
        if name == "map_areas":
            map_areas(
                areas, found.units, subtitle=subtitle_of(areas, lang), roads=found.roads, **common
            )
        else:
            chart_area_sensitivity(areas, **common)
    return {"pictures": len(LANGUAGES)}


def in_language(found: Delineated, lang: str) -> Areas:
    """Return the areas with names and verdicts in another language; reasons stay."""
    areas = found.areas
    if lang == areas.settings["lang"]:
        return areas
    cities = areas.membership.loc[areas.membership["city"].notna()].set_index("unit")["city"]
    people = areas.membership["population"].to_numpy(dtype=np.float64)
    names = city_names(found.units, found.id, people, cities, lang) or {}
    return told_in(areas, names, lang)


# --- files between steps ------------------------------------------------------------------


def load(before: Mapping[str, Path], id: str) -> Delineated:
    """Read areas with all that belongs to them and is there."""

    def layer(step: str, name: str) -> Any:
        file = before[step] / name if step in before else None
        return None if file is None or not file.is_file() else _read(file)

    notice = ""
    if _NETWORK in before:
        notice = str(_read_json(before[_NETWORK] / "network.json")["notice"])
    _, calibration = _commuters(before)
    _, points = _people(before)
    return Delineated(
        load_areas(before), _units(before), id, points, layer(_RATES, "rates.parquet"),
        calibration=calibration, isochrones=layer(_BANDS, "isochrones.parquet"),
        roads=layer(_NETWORK, "roads.parquet"), outlines=layer(_AREAS, "outlines.parquet"),
        notices=(notice,) if notice else (),
    )  # fmt: skip


_LAYERS_OF_AREAS = ("areas", "cores", "zones", "membership", "cities", "merges")


def save_areas(areas: Areas, folder: Path) -> None:
    """Write areas but for their flows, which are of an earlier step."""
    for name in _LAYERS_OF_AREAS:
        getattr(areas, name).to_parquet(folder / f"{name}.parquet")
    _write_json(
        folder / "areas.json", {"settings": dict(areas.settings), "counts": dict(areas.counts)}
    )
    frame = areas._frame
    if frame is not None:
        borders = frame.borders
        _write_arrays(
            folder / "frame.npz", neighbours=borders.neighbours, edge=borders.edge, city=frame.city
        )


def load_areas(before: Mapping[str, Path]) -> Areas:
    """Read areas with their flows, and with their sensitivity where that is there."""
    import pandas as pd

    folder = before[_AREAS]
    parts = {name: _read(folder / f"{name}.parquet") for name in _LAYERS_OF_AREAS}
    told = _read_json(folder / "areas.json")
    table, cities = parts["membership"], parts["cities"]
    commuters, _ = _commuters(before)
    sensitivity = frame = None
    if commuters is not None:
        arrays = _read_arrays(folder / "frame.npz")
        frame = Frame(
            commuters.flows.ids, Borders(arrays["neighbours"], arrays["edge"]), arrays["city"],
            tuple(cities["city"]), dict(zip(cities["city"], cities["name"], strict=True)),
            np.nan_to_num(table["population"].to_numpy(dtype=np.float64)),
            told["settings"]["merge_threshold"], commuters,
        )  # fmt: skip
    if _SENSITIVITY in before:
        place = before[_SENSITIVITY]
        units = pd.read_parquet(place / "units.parquet").set_axis(table["unit"].to_numpy())
        sensitivity = Sensitivity(
            _read(place / "variants.parquet"), units["stability"], units["in_area"],
            _read(place / "joined.parquet"),
        )  # fmt: skip
        parts["membership"] = table.assign(**{c: units[c].to_numpy() for c in units.columns})
    return Areas(
        **parts, flows=None if commuters is None else commuters.flows, settings=told["settings"],
        counts=told["counts"], sensitivity=sensitivity, _frame=frame,
    )  # fmt: skip


def _tables(before: Mapping[str, Path]) -> dict[str, pd.DataFrame]:
    """Return the tables; the membership with the units' names and that of their area."""
    import pandas as pd

    areas, units = load_areas(before), _units(before)
    table = areas.membership.copy()
    names = [c for c in units.columns if str(c).startswith("name") and c not in table.columns]
    label = dict(zip(areas.areas["area"], areas.areas["name"], strict=True))
    after = list(table.columns).index("reason") + 1
    table.insert(after, "area_name", table["area"].map(label))
    for position, column in enumerate(names):
        table.insert(after + position, column, units[column].to_numpy())
    tables = {
        "areas": pd.DataFrame(areas.areas.drop(columns="geometry")),
        "membership": table,
        "rates": _read(before[_RATES] / "rates.parquet"),
        "cities": areas.cities,
    }
    if areas.sensitivity is not None:
        tables |= {"sensitivity": areas.sensitivity.variants, "joined": areas.sensitivity.joined}
    return tables


def _units(before: Mapping[str, Path]) -> gpd.GeoDataFrame:
    if _DIVIDED in before:
        return _read(before[_DIVIDED] / "units.parquet")
    return cast("gpd.GeoDataFrame", load_units(before))


def _population(workflow: AreasWorkflow, epoch: Any) -> xr.DataArray:
    return sources.open_population(workflow)[epoch].compute()


def _labels(before: Mapping[str, Path], like: xr.DataArray) -> xr.DataArray | None:
    """Read the numbers of the urban centres, on the grid of the people."""
    import rasterio

    if _CENTRES not in before:
        return None
    with rasterio.open(before[_CENTRES] / "rasters" / "urban_centres.tif") as source:
        return like.copy(data=source.read(1)).rename("centre")


def _people(before: Mapping[str, Path]) -> tuple[Any, gpd.GeoSeries]:
    table = _read(before[_PEOPLE] / "people.parquet")
    return table["people"].to_numpy(), table.geometry


def _cities(before: Mapping[str, Path]) -> Cities | pd.Series:
    import pandas as pd

    folder = before[_CITIES]
    cores: pd.Series = _read(folder / "cores.parquet").set_index("unit")["city"]
    if not (folder / "centres.parquet").is_file():
        return cores
    people, points = _people(before)
    share = pd.read_parquet(folder / "shares.parquet")["share"].to_numpy()
    return Cities(cores, _read(folder / "centres.parquet"), people, share, points)


def _network(before: Mapping[str, Path]) -> Network:
    from qala.network import load_network

    return load_network(before[_NETWORK] / "network.npz")


def _times(before: Mapping[str, Path]) -> dict[str, Any]:
    return _read_arrays(before[_TIMES] / "times.npz") if _TIMES in before else {}


def _commuters(before: Mapping[str, Path]) -> tuple[Commuters | None, Calibration | None]:
    if _COMMUTERS not in before:
        return None, None
    arrays = _read_arrays(before[_COMMUTERS] / "commuters.npz")
    told = _read_json(before[_COMMUTERS] / "commuters.json")
    decay, fit = told["decay"], told["calibration"]
    flows = Flows(
        arrays["ids"].astype(object), arrays["matrix"], arrays["employed"], told["estimated"],
        None if decay is None else Decay(**decay), told["counts"],
    )  # fmt: skip
    if fit is not None:
        fit = Calibration(**{**fit, "decay": Decay(**fit["decay"]), "free": tuple(fit["free"])})
    commuters = Commuters(
        flows, arrays.get("costs"), arrays.get("pull"), arrays.get("nearby"), told["km_a_minute"],
        told["jobs_known"],
    )  # fmt: skip
    return commuters, fit


def _credit(workflow: AreasWorkflow, found: Delineated, lang: str) -> str:
    """Return sources and licences, with what the network's source wants to be said."""
    from qala.config import credits_of

    # notices of networks are English: one that the page translates is not told twice
    known = "; ".join(credits_of(workflow, "en"))
    return "; ".join([*credits_of(workflow, lang), *(n for n in found.notices if n not in known)])


def _read(file: Path) -> Any:
    """Read a table or layer; text as objects, None where there is none, as it was written."""
    import geopandas as gpd
    import pandas as pd
    import pyarrow.parquet as pq

    layer = b"geo" in (pq.read_schema(file).metadata or {})
    table = gpd.read_parquet(file) if layer else pd.read_parquet(file)
    for column in table.columns:
        if pd.api.types.is_string_dtype(table[column].dtype):
            text = table[column].astype(object)
            table[column] = pd.Series(text.where(text.notna(), None), dtype=object)
    return table


def _write_arrays(file: Path, **arrays: Any) -> None:
    """Write arrays and square sparse matrices; None is left out."""
    parts: dict[str, Any] = {}
    for name, value in arrays.items():
        if hasattr(value, "indptr"):
            parts |= {f"{name}.{p}": getattr(value, p) for p in ("data", "indices", "indptr")}
        elif value is not None:
            parts[name] = value
    with file.open("wb") as sink:
        np.savez(sink, **parts)


def _read_arrays(file: Path) -> dict[str, Any]:
    from scipy.sparse import csr_matrix

    with np.load(file, allow_pickle=False) as stored:
        parts = {name: stored[name] for name in stored.files}
    found: dict[str, Any] = {k: v for k, v in parts.items() if "." not in k}
    for name in [k.removesuffix(".indptr") for k in parts if k.endswith(".indptr")]:
        values, columns, starts = (parts[f"{name}.{p}"] for p in ("data", "indices", "indptr"))
        size = starts.size - 1
        found[name] = csr_matrix((values, columns, starts), shape=(size, size))
    return found


def _write_json(file: Path, value: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(value, ensure_ascii=False, default=plain), encoding="utf-8")


def _read_json(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8")))


__all__ = ["AreasPlan", "areas_recipe", "planned"]
