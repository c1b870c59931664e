"""Workflows: a YAML page → one frozen, validated value; every problem told at once."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from qala.errors import InputError, Problems, ProblemsError
from qala.identity import scrub
from qala.messages import said
from qala.resources import resource

#: a workflow is a page; more is a mistake or an attack
MAX_BYTES = 1_000_000
#: a workflow nests four levels deep; the reader of YAML recurses
MAX_DEPTH = 30

#: names of types that stand between the keys in pydantic's places
_TYPE_TAG = re.compile(r"(str|int|float|bool|list\[.*\]|dict\[.*\])")

Source = str | list[str]
Model = TypeVar("Model", bound="Page")
Gridded = TypeVar("Gridded", bound="Run")


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class UnitsInput(_Model):
    """Territorial units: a vector layer and its id column."""

    path: str = Field(description="GeoPackage, GeoJSON, Shapefile or GeoParquet")
    id: str = Field(description="column of unit ids")
    layer: str | None = Field(None, description="layer, where the file has several")
    crs: str | None = Field(None, description="CRS, where the file does not declare it")
    repair: bool = Field(False, description="repair invalid geometry instead of refusing it")
    max_overlap: float | None = Field(
        None, ge=0, le=1, description="overlap of two units that is tolerated, share of the smaller"
    )


class CensusInput(_Model):
    """Census points or published totals that the population grid must meet."""

    points: str | None = Field(None, description="points with counts; makes the grid")
    value: str = Field("population", description="column of people in the points")
    spread: Literal["cell", "settlement"] = Field(
        "settlement", description="put people into their cell, or spread settlements by density"
    )
    totals: str | None = Field(None, description="table: unit, [epoch], population")
    place: Literal["none", "uniform"] = Field(
        "none", description="people of units where the grid has none"
    )


class Inputs(_Model):
    """What goes in."""

    population: Source | dict[int, Source] | None = Field(
        None, description="people per cell: a file, tiles, or epoch → file(s)"
    )
    built: Source | dict[int, Source] | None = Field(None, description="built-up surface, likewise")
    land: Source | dict[int, Source] | None = Field(None, description="permanent land, likewise")
    population_nodata: float | None = Field(None, description="missing value, where undeclared")
    built_unit: Literal["m2", "share", "percent"] | None = Field(
        None, description="unit of built, where the file does not tell"
    )
    land_unit: Literal["m2", "share", "percent"] | None = Field(
        None, description="unit of land, where the file does not tell"
    )
    units: UnitsInput | None = Field(None, description="territorial units")
    official: str | None = Field(None, description="table of official urban shares")
    places: str | None = Field(None, description="named places, to name the urban centres")
    census: CensusInput | None = Field(None, description="points or totals to meet")
    prepared: Literal["kazakhstan-turkistan"] | None = Field(
        None, description="a prepared set of sources in the data folder"
    )


class CellsStep(_Model):
    """How cells are classified."""

    ruleset: Literal["manual2021", "R2022A", "R2023A", "2024"] = "R2023A"
    thresholds: dict[str, float | bool | str] = Field(default_factory=dict)
    chunk: int | None = Field(None, ge=1, description="rows per strip")

    @field_validator("ruleset", mode="before")
    @classmethod
    def _word(cls, value: Any) -> Any:
        # YAML reads the name 2024 as a number
        return str(value) if type(value) is int else value

    @model_validator(mode="after")
    def _known(self) -> CellsStep:
        from qala.rules import cell_rules

        try:
            cell_rules(self.ruleset, **self.thresholds)
        except InputError as error:
            problems = error.problems if isinstance(error, ProblemsError) else [error]
            raise ValueError("\n".join(p.sentence() for p in problems)) from error
        return self


class UnitsStep(_Model):
    """How units are classified."""

    rules: Literal["2021", "2024"] = "2024"
    overlay: Literal["exact", "centres"] = "exact"

    @field_validator("rules", mode="before")
    @classmethod
    def _word(cls, value: Any) -> Any:
        # YAML reads the name 2024 as a number
        return str(value) if type(value) is int else value


class Outputs(_Model):
    """What comes out."""

    language: Literal["en", "ru", "kk"] = "en"
    figures: bool = True
    report: bool = True
    sensitivity: bool = True
    polygons: bool | None = Field(
        None, description="cells as polygons; default: up to some million cells"
    )


#: words in one language, or in several
_Words = dict[Literal["en", "ru", "kk"], str] | str


class Page(_Model):
    """What every recipe has."""

    title: _Words = Field("", description="name of the region")
    synthetic: bool = Field(False, description="mark every picture as synthetic")
    sources: list[_Words] = Field(
        default_factory=list, description="citations and licences, each in one or several languages"
    )
    data: str | None = Field(
        None, description="folder of relative paths; `sample` is the packaged region"
    )
    out: str | None = Field(None, description="output folder; --out wins")
    bbox: tuple[float, float, float, float] | None = Field(
        None, description="west, south, east, north in degrees: cut everything to it"
    )

    @field_validator("title", "sources")
    @classmethod
    def _shown(cls, value: Any) -> Any:
        # they stand on every map and page: addresses lose their secrets at once
        if isinstance(value, dict):
            return {k: scrub(v) for k, v in value.items()}
        return [cls._shown(v) for v in value] if isinstance(value, list) else scrub(value)

    @field_validator("bbox")
    @classmethod
    def _box(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is not None:
            west, south, east, north = value
            if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
                raise ValueError("expected west < east and south < north in degrees")
        return value


class Run(Page):
    """What recipes over grids have."""

    inputs: Inputs
    cells: CellsStep = Field(default_factory=lambda: CellsStep.model_validate({}))

    @model_validator(mode="after")
    def _enough(self) -> Run:
        given = self.inputs
        if given.prepared is None and given.population is None:
            if given.census is None or given.census.points is None:
                raise ValueError("inputs need population, census.points or prepared")
            if given.units is None:
                raise ValueError("inputs.census.points needs inputs.units")
        if given.census is not None and given.census.totals and given.units is None:
            raise ValueError("inputs.census.totals needs inputs.units")
        if given.official and given.units is None and given.prepared is None:
            raise ValueError("inputs.official needs inputs.units")
        return self


class Workflow(Run):
    """A run from grids and units to urban shares, maps, tables and a report."""

    workflow: Literal["urbanisation"] = Field(description="which recipe")
    units: UnitsStep = Field(default_factory=UnitsStep)
    outputs: Outputs = Field(default_factory=lambda: Outputs.model_validate({}))


class DivideInput(_Model):
    """How the land of the units is divided among the places, to the nearest."""

    id: str = Field("id", description="column of ids in the places")
    unit: str = Field("unit", description="column of the places that names their unit")
    population: str = Field("population", description="column of people in the places")


class AreaInputs(Inputs):
    """What functional urban areas are drawn from."""

    network: str | None = Field(
        None, description="network of `qala network`, or an OpenStreetMap extract"
    )
    flows: str | None = Field(None, description="commuters: origin, destination, commuters")
    employed: str | None = Field(None, description="employed residents: unit, employed")
    cores: str | None = Field(None, description="given cores: unit, city")
    calibrate: str | None = Field(None, description="flows on the same units to fit the decay on")
    divide: DivideInput | None = Field(
        None, description="divide the units among the places; units of settlements"
    )


class AreasStep(_Model):
    """How areas are drawn."""

    method: Literal["flows", "network", "distance", "isochrone", "cellwise"] = Field(
        description="given flows, or an estimate from network minutes or straight lines; or one "
        "of the baselines"
    )
    epoch: int | None = Field(None, description="epoch of the people; default: the last official")
    threshold: float = Field(0.15, gt=0, le=1, description="share of commuters that joins a unit")
    beta: float | None = Field(None, gt=0, description="decay per km or minute")
    minutes: float = Field(90.0, gt=0, description="limit of the isochrone")
    min_city: float = Field(100_000.0, ge=0, description="least people of an isochrone's city")
    city_share: float = Field(
        0.5, gt=0, le=1, description="share of people in a centre that makes a city"
    )
    merge: bool | None = Field(None, description="join cities; default: unless they are given")
    unknown: Literal["error", "outside"] = Field(
        "error", description="flows of units that are not in the layer"
    )
    reporting: str | None = Field(None, description="column of units by which rates are told")
    minimum_flow: float = Field(100.0, ge=0, description="smallest flow drawn, commuters")


class AreaOutputs(_Model):
    """What comes out."""

    language: Literal["en", "ru", "kk"] = "en"
    figures: bool = True
    sensitivity: bool = True


class AreasWorkflow(Run):
    """A run from units, people and commuting to functional urban areas."""

    workflow: Literal["functional_areas"] = Field(description="which recipe")
    inputs: AreaInputs
    areas: AreasStep
    outputs: AreaOutputs = Field(default_factory=AreaOutputs)

    @model_validator(mode="after")
    def _fits(self) -> AreasWorkflow:
        given, method, wrong = self.inputs, self.areas.method, []
        if given.units is None and given.prepared is None:
            wrong.append("inputs.units is missing")
        if method == "flows" and given.flows is None:
            wrong.append("areas.method flows needs inputs.flows")
        if method == "network" and given.network is None:
            wrong.append("areas.method network needs inputs.network")
        if given.flows is not None and method != "flows":
            wrong.append(f"inputs.flows is given, and areas.method is {method}")
        if given.network is not None and method == "distance":
            wrong.append("inputs.network is given, and areas.method is distance")
        if given.divide is not None and given.places is None and given.prepared is None:
            wrong.append("inputs.divide needs inputs.places")
        for name, value in (("calibrate", given.calibrate), ("beta", self.areas.beta)):
            if value is not None and method not in ("network", "distance"):
                wrong.append(f"{name} is given, and areas.method is {method}: no estimate")
        if given.calibrate is not None and self.areas.beta is not None:
            wrong.append("inputs.calibrate and areas.beta are both given")
        if given.cores is not None and method == "cellwise":
            wrong.append("inputs.cores is given, and areas.method cellwise grows urban centres")
        if given.employed is not None and given.flows is None and given.calibrate is None:
            wrong.append("inputs.employed needs inputs.flows or inputs.calibrate")
        if wrong:
            raise ValueError("\n".join(wrong))
        return self


class CityInputs(_Model):
    """What a city is made from."""

    osm: str | None = Field(None, description="OpenStreetMap extract, .osm.pbf or .osm")
    demo: bool = Field(False, description="the invented Turkistan, in place of an extract")
    area: str | None = Field(None, description="polygons that bound the city; or bbox, or neither")
    area_layer: str | None = Field(None, description="layer of area, where it has several")
    terrain: str | None = Field(None, description="terrain heights, metres")
    heights: str | None = Field(None, description="building heights, metres")
    population: str | None = Field(None, description="people per cell")


class CityStep(_Model):
    """How a city is made."""

    name: str | None = Field(None, description="name of the city")
    date: str | None = Field(
        None,
        pattern=r"^\d{4}-\d{2}-\d{2}$",
        description="date of the sources; default: the extract's",
    )
    undulation: float | None = Field(None, description="geoid above ellipsoid here, metres")
    vertical_datum: str | None = Field(
        None, description="vertical CRS of the terrain, where it does not tell"
    )
    clear_sky_index: float | None = Field(
        None, ge=0, le=1, description="measured over clear-sky irradiation, for roofs"
    )
    history: bool = Field(
        True, description="go on from the twin in the output folder, and close what has changed"
    )

    @field_validator("date", mode="before")
    @classmethod
    def _day(cls, value: Any) -> Any:
        # YAML reads a day as a date
        return value.isoformat() if type(value) is date else value


class CityOutputs(_Model):
    """What comes out."""

    language: Literal["en", "ru", "kk"] = "en"


class CityWorkflow(Page):
    """A run from an OpenStreetMap extract to the 3D twin of a city."""

    workflow: Literal["city"] = Field(description="which recipe")
    inputs: CityInputs
    city: CityStep = Field(default_factory=lambda: CityStep.model_validate({}))
    outputs: CityOutputs = Field(default_factory=CityOutputs)

    @model_validator(mode="after")
    def _fits(self) -> CityWorkflow:
        given, wrong = self.inputs, []
        if (given.osm is not None) == given.demo:
            wrong.append("inputs needs osm, or demo: true")
        if given.demo:
            named = [n for n in ("area", "population") if getattr(given, n) is not None]
            named += ["bbox"] if self.bbox is not None else []
            if named:
                wrong.append(f"inputs.demo is given with {', '.join(named)}: it has its own")
        if given.area is not None and self.bbox is not None:
            wrong.append("inputs.area and bbox are both given")
        if given.area_layer is not None and given.area is None:
            wrong.append("inputs.area_layer needs inputs.area")
        if wrong:
            raise ValueError("\n".join(wrong))
        return self


class IndicatorInputs(Inputs):
    """What indicators are computed from; whatever is missing is told in the result."""

    classes: Source | dict[int, Source] | None = Field(
        None, description="cells that `qala cells --level 2` wrote, likewise"
    )
    areas: str | None = Field(None, description="functional urban areas of `qala areas`")
    twin: str | None = Field(None, description="city.gpkg of `qala city`")
    osm: str | None = Field(None, description="OpenStreetMap extract: stops, open space, services")
    foot: str | None = Field(None, description="foot network of `qala network`, or an extract")
    car: str | None = Field(None, description="car network of `qala network`, or an extract")
    points: dict[str, str] = Field(
        default_factory=dict, description="facilities: name → file of points"
    )
    zones: dict[str, str] = Field(
        default_factory=dict, description="protection or risk: name → file of polygons"
    )


class IndicatorsStep(_Model):
    """Limits; the defaults are those of UN-Habitat's metadata."""

    stop_metres: float = Field(500.0, gt=0, description="walk to a stop")
    high_metres: float = Field(1000.0, gt=0, description="walk to rail, metro or ferry")
    open_metres: float = Field(400.0, gt=0, description="walk to open space")
    point_metres: float | dict[str, float] = Field(
        500.0, description="reach of the points, one for all or by name"
    )
    min_growth: float = Field(0.0005, gt=0, description="growth a year that 11.3.1 needs")
    spacing: float = Field(100.0, gt=0, description="metres between the points of a cell")
    catchments: bool = Field(True, description="layers of what is in reach")


class IndicatorOutputs(_Model):
    """What comes out."""

    language: Literal["en", "ru", "kk"] = "en"
    figures: bool = True
    report: bool = True


class IndicatorsWorkflow(Run):
    """A run from grids, units and an extract to indicators of SDG 11 and kin."""

    workflow: Literal["indicators"] = Field(description="which recipe")
    inputs: IndicatorInputs
    indicators: IndicatorsStep = Field(default_factory=lambda: IndicatorsStep.model_validate({}))
    outputs: IndicatorOutputs = Field(default_factory=IndicatorOutputs)

    @model_validator(mode="after")
    def _fits(self) -> IndicatorsWorkflow:
        given, wrong = self.inputs, []
        if given.units is None:
            wrong.append("inputs.units is missing")
        if given.population is None:
            wrong.append("inputs.population is missing")
        wrong += [
            f"inputs.{name} is not for indicators"
            for name in ("places", "census", "prepared")
            if getattr(given, name) is not None
        ]
        if self.bbox is not None:
            wrong.append("bbox is not for indicators: cut the units instead")
        if self.cells.thresholds or self.cells.chunk is not None:
            wrong.append("cells.thresholds and cells.chunk are not for indicators: give classes")
        if isinstance(self.indicators.point_metres, dict):
            strange = sorted(set(self.indicators.point_metres) - set(given.points))
            wrong += [f"indicators.point_metres names {n}, which is no point" for n in strange]
        if wrong:
            raise ValueError("\n".join(wrong))
        return self


AnyWorkflow = Workflow | AreasWorkflow | CityWorkflow | IndicatorsWorkflow
#: recipe → the model of its page
RECIPES: dict[str, type[AnyWorkflow]] = {
    "urbanisation": Workflow,
    "functional_areas": AreasWorkflow,
    "city": CityWorkflow,
    "indicators": IndicatorsWorkflow,
}


def load_workflow(
    path: str | Path, *, settings: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> AnyWorkflow:
    """Read and check a workflow.

    Parameters
    ----------
    path
        YAML file, or the name of a packaged workflow (``demo``, ``smoke``, …).
    settings
        ``key=value`` changes; keys are dotted, values are YAML.
    environ
        Environment for ``${NAME}`` in values; default: the process's own.

    Returns
    -------
    Workflow, AreasWorkflow, CityWorkflow or IndicatorsWorkflow
        By its key ``workflow``. Paths are absolute.

    Raises
    ------
    InputError
        With every unknown key, wrong type and missing file name at once.
    """
    import yaml

    file = _find(path)
    raw = _parse(file)
    problems = Problems(f"workflow {file.name}")
    if not isinstance(raw, dict):
        held = "nothing" if raw is None else f"a {type(raw).__name__}"
        raise InputError(
            f"workflow {file.name} holds {held}", "a mapping of keys",
            "start from a packaged one, for instance workflows/demo.yaml",
        )  # fmt: skip
    for setting in settings:
        key, sign, text = setting.partition("=")
        if not sign or not key.strip():
            problems.add(f"--set {setting!r}", "key=value, for instance cells.ruleset=2024")
            continue
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            problems.add(f"--set {setting!r} has no YAML value", "key=value")
            continue
        _assign(raw, key.strip().split("."), value, problems)
    filled = _fill(raw, dict(os.environ if environ is None else environ), problems, "")
    recipe = filled.get("workflow")
    model = RECIPES.get(recipe, Workflow) if isinstance(recipe, str) else Workflow
    try:
        checked = model.model_validate(filled)
    except ValidationError as error:
        for item in _merged(error.errors()):
            _explain(problems, item)
        problems.raise_if_any()
        raise
    problems.raise_if_any()
    return _absolute(checked, file)


def workflow_schema() -> dict[str, Any]:
    """Return the JSON schema of a workflow, for editors that complete and check YAML."""
    either = Annotated[AnyWorkflow, Field(discriminator="workflow")]
    schema: dict[str, Any] = TypeAdapter(either).json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "qala workflow"
    return schema


def title_of(workflow: Page, lang: str) -> str:
    """Return the region's name in a language."""
    return said(workflow.title, lang)


def credits_of(workflow: Page, lang: str) -> list[str]:
    """Return the citations and licences of the sources in a language."""
    return [said(words, lang) for words in workflow.sources]


def _find(path: str | Path) -> Path:
    file = Path(path)
    if file.is_file():
        return file
    if file.suffix == "" and file.name == str(path):
        try:
            return resource("workflows", f"{file.name}.yaml")
        except FileNotFoundError:
            pass
    elif file.parts[:-1] == ("workflows",):
        # `workflows/demo.yaml` also works where the repository is not at hand
        try:
            return resource("workflows", file.name)
        except FileNotFoundError:
            pass
    names = ", ".join(sorted(p.stem for p in resource("workflows").glob("*.yaml")))
    if file.is_dir():
        raise InputError(f"workflow {path} is a folder", f"a YAML file or one of {names}")
    raise InputError(
        f"workflow {path} does not exist", f"a YAML file or one of {names}", "check the path"
    )


def _parse(file: Path) -> Any:
    import yaml

    size = file.stat().st_size
    if size > MAX_BYTES:
        raise InputError(
            f"workflow {file.name} has {size:,} bytes", f"a page of at most {MAX_BYTES:,} bytes",
            "name the YAML file of the workflow, not a file of data",
        )  # fmt: skip
    try:
        # Windows editors put a byte-order mark first
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"workflow {file.name} is not UTF-8 text", "a YAML file", "save it as UTF-8"
        ) from error
    try:
        # aliases can make a page expand to gigabytes, and no workflow needs them
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise InputError(
                    f"workflow {file.name} nests deeper than {MAX_DEPTH} levels", "a page of keys"
                )
            if isinstance(event, yaml.AliasEvent):
                line = event.start_mark.line + 1  # type: ignore[union-attr]
                raise InputError(
                    f"workflow {file.name} uses an alias in line {line}", "plain values",
                    "write the value out",
                )  # fmt: skip
        return yaml.load(text, Loader=_strict_loader())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise InputError(
            f"workflow {file.name} is not YAML{where} ({getattr(error, 'problem', error)})",
            "key: value lines, indented by spaces",
        ) from error


def _strict_loader() -> Any:
    """Return a safe loader that refuses a key that stands twice."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    def mapping(loader: Any, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = loader.construct_object(key_node, deep=True)
            if not isinstance(key, str | int):
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is neither a word nor a year", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return dict(loader.construct_pairs(node, deep=True))

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    return Loader


def _assign(raw: dict[str, Any], keys: list[str], value: Any, problems: Problems) -> None:
    at: Any = raw
    for depth, key in enumerate(keys[:-1]):
        nested = at.setdefault(key, {})
        if nested is None or not isinstance(nested, dict):
            if depth == len(keys) - 1 or nested is not None:
                problems.add(
                    f"--set {'.'.join(keys)}: {'.'.join(keys[: depth + 1])} is {nested!r}",
                    "a key of the workflow",
                )
                return
            at[key] = nested = {}
        at = nested
    last = keys[-1]
    # epochs are numbers
    at[int(last) if last.isdigit() and any(isinstance(k, int) for k in at) else last] = value


def _fill(value: Any, environ: Mapping[str, str], problems: Problems, key: str) -> Any:
    """Replace ``${NAME}`` by the environment's value."""
    if isinstance(value, dict):
        return {k: _fill(v, environ, problems, f"{key}.{k}".lstrip(".")) for k, v in value.items()}
    if isinstance(value, list):
        return [_fill(v, environ, problems, key) for v in value]
    if not isinstance(value, str):
        return value

    def named(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in environ:
            problems.add(
                f"{key} needs the environment variable {name}",
                f"a value, for instance export {name}=/folder",
                f"or pass --set {key}=…",
            )
            return ""
        return environ[name]

    return re.sub(r"\$\{(\w+)\}", named, value)


def _merged(items: Sequence[Any]) -> list[dict[str, Any]]:
    """Make one problem of the several that a key of several types gives."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for item in items:
        loc = tuple(item["loc"])
        tagged = bool(loc) and _TYPE_TAG.fullmatch(str(loc[-1])) is not None
        if not tagged:
            found[loc] = dict(item)
        elif any(len(i["loc"]) > len(loc) and i["loc"][: len(loc) - 1] == loc[:-1] for i in items):
            # another type fits the value, and says what is wrong inside it
            continue
        elif (*loc[:-1], "*") in found:
            found[(*loc[:-1], "*")]["msg"] += f" or {item['msg'].removeprefix('Input should be ')}"
        else:
            found[(*loc[:-1], "*")] = {**item, "loc": loc[:-1]}
    return list(found.values())


def _explain(problems: Problems, item: Any) -> None:
    parts = [str(p) for p in item["loc"]]
    key = ".".join(p for p in parts if p != "[key]" and not _TYPE_TAG.fullmatch(p))
    kind, text = item["type"], item["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        problems.add(
            f"key {key!r} is unknown", "a key of the workflow", "see workflows/schema.json"
        )
    elif kind == "missing":
        problems.add(f"key {key!r} is missing", "a value", "see workflows/schema.json")
    elif kind == "value_error":
        for line in text.split("\n"):
            problems.add(f"{key + ': ' if key else ''}{line}")
    else:
        shown = repr(item.get("input"))
        problems.add(f"{key} is {shown[:80]}", text[0].lower() + text[1:])


#: inputs that are paths, or hold them
_PATHS = ("population", "built", "land", "official", "places")
_AREA_PATHS = ("network", "flows", "employed", "cores", "calibrate")


_CITY_PATHS = ("osm", "area", "terrain", "heights", "population")


_INDICATOR_PATHS = ("classes", "areas", "twin", "osm", "foot", "car", "points", "zones")


def paths_of(given: Inputs | CityInputs) -> tuple[str, ...]:
    """Return the names of the inputs that are paths, or hold them."""
    if isinstance(given, CityInputs):
        return _CITY_PATHS
    if isinstance(given, IndicatorInputs):
        return (*_PATHS, *_INDICATOR_PATHS)
    return (*_PATHS, *_AREA_PATHS) if isinstance(given, AreaInputs) else _PATHS


def _absolute(workflow: Model, file: Path) -> Model:
    """Make every path absolute: relative ones start at ``data``, else at the YAML file."""
    if workflow.data == "sample":
        base = resource("sample")
    elif workflow.data:
        base = (file.parent / Path(workflow.data).expanduser()).resolve()
    else:
        base = file.resolve().parent

    def place(value: str) -> str:
        if value.startswith("/vsi") or "://" in value:
            return value
        return str((base / Path(value).expanduser()).resolve())

    def source(value: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, dict):
            return {k: source(v) for k, v in value.items()}
        return [place(v) for v in value] if isinstance(value, list) else place(value)

    given: Any = workflow.inputs  # type: ignore[attr-defined]
    changes: dict[str, Any] = {name: source(getattr(given, name)) for name in paths_of(given)}
    if isinstance(given, CityInputs):
        inputs = given.model_copy(update=changes)
        return workflow.model_copy(update={"inputs": inputs, "data": str(base)})
    if given.units is not None:
        changes["units"] = given.units.model_copy(update={"path": place(given.units.path)})
    if given.census is not None:
        changes["census"] = given.census.model_copy(
            update={"points": source(given.census.points), "totals": source(given.census.totals)}
        )
    inputs = given.model_copy(update=changes)
    return workflow.model_copy(update={"inputs": inputs, "data": str(base)})


def input_files(workflow: Page) -> list[Path]:
    """Return every file the workflow names, without repeats."""
    given: Any = workflow.inputs  # type: ignore[attr-defined]
    found: list[str] = []

    def add(value: Any) -> None:
        if value is None:
            return
        if isinstance(value, dict):
            for v in value.values():
                add(v)
        elif isinstance(value, list):
            found.extend(value)
        else:
            found.append(value)

    for name in paths_of(given):
        add(getattr(given, name))
    if isinstance(given, CityInputs):
        return [Path(p) for p in dict.fromkeys(found)]
    if given.units is not None:
        found.append(given.units.path)
    if given.census is not None:
        add(given.census.points)
        add(given.census.totals)
    if given.prepared is not None:
        from qala.kazakhstan import source_files

        found += [str(p) for p in source_files(workflow.data or ".")]
    return [Path(p) for p in dict.fromkeys(found)]


def require_files(workflow: Page) -> None:
    """Refuse a workflow whose files are absent or addresses, naming all of them.

    Raises
    ------
    InputError
        With each missing file and the folder it was looked for in.
    """
    problems = Problems("workflow inputs")
    for file in input_files(workflow):
        text = str(file)
        # a path takes one of an address's slashes away
        if text.startswith("catalog:/"):
            continue
        # one letter before the colon is a drive
        if re.match(r"/vsi(curl|s3|gs|az|adls|oss|swift|hdfs|webhdfs)|\w{2,}:/", text):
            shown = scrub(re.sub(r"(\w{2,}:/)(?!/)", r"\1/", text))
            problems.add(
                f"{shown} is an address", "a file, or catalog://… of a catalog that names it",
                "bring it with `qala fetch`: the record holds the hash of all that is read",
            )  # fmt: skip
        elif not text.startswith("/vsi") and not file.exists():
            problems.add(f"{file} does not exist", "a file", "bring it there, or change the path")
    problems.raise_if_any()
