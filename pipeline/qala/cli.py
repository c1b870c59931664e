"""The command ``qala``: thin words around :mod:`qala.flows`.

Exit codes: 0 done, 2 bad input, 3 temporary (try again later), 4 partial.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from qala import __version__, cli_areas, cli_city, cli_indicators, cli_operate, cli_qgis
from qala.cli_areas import Language
from qala.cli_examples import add_examples
from qala.errors import (
    EXIT_INPUT,
    EXIT_PARTIAL,
    EXIT_TEMPORARY,
    InputError,
    QalaError,
    is_full,
    storage_error,
)
from qala.identity import scrub

app = typer.Typer(
    name="qala",
    help="How urban a country really is: urbanisation rates from open data, and a 3D twin.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
log = logging.getLogger("qala")


class Ruleset(StrEnum):
    """Named rules of the cell classification."""

    manual2021 = "manual2021"
    R2022A = "R2022A"
    R2023A = "R2023A"
    rules2024 = "2024"


class Level(StrEnum):
    """Level of the Degree of Urbanisation."""

    one = "1"
    two = "2"


class UnitRules(StrEnum):
    """Year of the level-2 rules of units."""

    y2021 = "2021"
    y2024 = "2024"


class Overlay(StrEnum):
    """How cells cut by a border are shared."""

    exact = "exact"
    centres = "centres"


class Smoothing(StrEnum):
    """Majority rule at the edge of centres."""

    R2022A = "R2022A"
    R2023A = "R2023A"
    none = "none"


class RasterUnit(StrEnum):
    """Unit of built-up and land rasters."""

    m2 = "m2"
    share = "share"
    percent = "percent"


#: more files than these are told by their folders
_MANY_FILES = 100
_THRESHOLDS = "Thresholds (default: the ruleset's)"
PopulationFile = Annotated[
    list[str],
    typer.Option(
        "--population", help="People per cell; several tiles may be named.", show_default=False
    ),
]
Threshold = Annotated[float | None, typer.Option(rich_help_panel=_THRESHOLDS, min=0)]
NodataOption = Annotated[
    float | None, typer.Option(help="Missing value of the population, where undeclared.")
]
BuiltUnitOption = Annotated[
    RasterUnit | None, typer.Option(help="Unit of the built-up raster, where it does not tell.")
]
LandUnitOption = Annotated[
    RasterUnit | None, typer.Option(help="Unit of the land raster, where it does not tell.")
]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Threads; default: the cores at hand.")
]
ClusterOption = Annotated[
    str | None, typer.Option(help="Address of a Dask scheduler, tcp://host:8786.")
]
UnitsCrsOption = Annotated[
    str | None, typer.Option(help="CRS of the units, where the file declares none or a wrong one.")
]
LayerOption = Annotated[str | None, typer.Option(help="Layer of the units file.")]
RepairOption = Annotated[
    bool, typer.Option("--repair", help="Repair invalid or overlapping units instead of refusing.")
]
LangOption = Annotated[Language, typer.Option(help="Language of words in the output.")]


class _JsonLines(logging.Formatter):
    """Log lines that machines read."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(
            {
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
                "level": record.levelname.lower(),
                "message": scrub(record.getMessage()),
            },
            ensure_ascii=False,
        )


class _Plain(logging.Formatter):
    """Log lines that people read."""

    def format(self, record: logging.LogRecord) -> str:
        return scrub(super().format(record))


def _log_to_stderr(verbose: bool, quiet: bool) -> None:
    handler = logging.StreamHandler()
    if sys.stderr.isatty():
        handler.setFormatter(_Plain("%(message)s"))
    else:
        handler.setFormatter(_JsonLines())
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel(logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"qala {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tell more.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Tell warnings alone.")] = False,
) -> None:
    """Options of every command."""
    _log_to_stderr(verbose, quiet)


class _Bar:
    """A progress bar on a terminal, silence elsewhere."""

    def __init__(self, text: str, unit: str = "strip") -> None:
        self.text, self.unit = text, unit
        self.bar: Any = None

    def __call__(self, done: int, total: int) -> None:
        if not sys.stderr.isatty():
            return
        if self.bar is None:
            from tqdm import tqdm

            self.bar = tqdm(total=total, desc=self.text, unit=self.unit, leave=False)
        self.bar.update(done - self.bar.n)
        if done == total:
            self.bar.close()


def _said(paths: list[Path]) -> None:
    for path in paths:
        typer.echo(str(path))


def _show_rates(rates: Any, summary: Any, lang: str) -> None:
    """Print the headline table: units, and all of them together last."""
    import pandas as pd

    from qala.report import console_table

    rows = pd.concat([pd.DataFrame(rates), pd.DataFrame(summary)], ignore_index=True)
    typer.echo(console_table(rows.drop(columns="geometry", errors="ignore"), lang))


@app.command()
def run(
    workflow: Annotated[str, typer.Argument(help="A YAML file, or the name of one of ours.")],
    out: Annotated[Path | None, typer.Option(help="Output folder; wins over the file's.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, for instance cells.ruleset=2024.")
    ] = None,
    workers: WorkersOption = None,
    cluster: ClusterOption = None,
    force: Annotated[bool, typer.Option("--force", help="Work even if nothing changed.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for another run on the same folder.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the workflow and its files, write nothing.")
    ] = False,
    processes: Annotated[
        bool, typer.Option("--processes", help="Worker processes on this machine, not threads.")
    ] = False,
    catalog: Annotated[
        list[Path] | None, typer.Option(help="Further catalog for catalog:// inputs.")
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Fetch nothing; name what is missing.")
    ] = False,
    allow_local: Annotated[
        bool, typer.Option("--allow-local", help="Fetch from file:// and this network too.")
    ] = False,
    partial: Annotated[
        bool,
        typer.Option(
            "--partial",
            help="Leave out epochs that cannot be fetched or read; exit code 4 tells of it.",
        ),
    ] = False,
) -> None:
    """Run a workflow with all that belongs. It goes on from where an earlier run ended.

    Workflows: demo, smoke, belgium, kazakhstan, national (urban shares); areas,
    areas-belgium (functional urban areas); city (a 3D twin); indicators; or a
    file of your own.
    """
    from qala import compute, flows, plan, sources
    from qala.config import Workflow, load_workflow, require_files
    from qala.fetch import Options, resolve_sources

    checked = load_workflow(workflow, settings=settings or [])
    options = Options(offline=offline, allow_local=allow_local)
    missing: dict[str, str] = {}
    if partial and not isinstance(checked, Workflow):
        raise InputError(
            f"--partial with the workflow {checked.workflow}", "an urbanisation of several epochs",
            "leave it out: the others are made whole or not at all",
        )  # fmt: skip
    if not dry_run:
        checked = resolve_sources(
            checked, catalogs=catalog or [], options=options, missing=missing if partial else None
        )
    if isinstance(checked, Workflow) and partial:
        checked, gone = sources.there(checked)
        missing |= gone
    if dry_run:
        require_files(checked)
        folder = Path(out or checked.out or "out").resolve()
        typer.echo(f"{checked.workflow}: the workflow is sound; it")
        typer.echo("\n".join(plan.describe(checked, folder, catalogs=catalog or [])))
        typer.echo(f"writes to {folder}")
        return
    begin = time.perf_counter()
    with compute.running(workers, cluster=cluster, processes=processes):
        result = flows.run(
            checked, out=out, force=force, wait=wait, partial=partial, missing=missing,
            progress=_Bar("cells"),
        )  # fmt: skip
    if checked.workflow == "functional_areas":
        cli_areas.tell_run(result, checked.outputs.language)
    elif checked.workflow == "city":
        cli_city.tell_run(result)
    elif checked.workflow == "indicators":
        cli_indicators.tell_table(result.tables["indicators"], checked.outputs.language)
    elif result.rates is not None and result.summary is not None:
        _show_rates(result.rates, result.summary, checked.outputs.language)
    elif result.centres is not None:
        typer.echo(result.centres.to_string(index=False))
    typer.echo("")
    if checked.workflow == "city":
        synthetic = bool(result.record.get("synthetic"))
        typer.echo(
            "SYNTHETIC: the city is invented." if synthetic
            else f"open it with: qala serve {result.folder}"
        )  # fmt: skip
    elif checked.synthetic:
        typer.echo("SYNTHETIC data: the grids are modelled; do not plan with these figures.")
    if not result.fresh:
        typer.echo(f"Nothing changed since the last run; its results lie in {result.folder}")
    else:
        seconds = time.perf_counter() - begin
        warned = len(result.record.get("warnings", []))
        typer.echo(
            f"{len(result.files)} files in {seconds:.1f} s, {warned} warnings, in {result.folder}"
        )
    names = sorted(p.relative_to(result.folder) for p in result.files)
    folders = {n.parts[0] for n in names if len(n.parts) > 1}
    # the tiles of a city are thousands
    few = len(names) <= _MANY_FILES
    _said(names if few else [n for n in names if len(n.parts) == 1])
    _said([] if few else sorted(Path(f"{f}/…") for f in folders))
    if result.missing:
        for epoch, reason in result.missing.items():
            typer.echo(f"MISSING {epoch}: {scrub(reason)}", err=True)
        typer.echo(f"partial: without {', '.join(result.missing)}; run the same again later")
        raise typer.Exit(EXIT_PARTIAL)


@app.command()
def cells(
    population: PopulationFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="GeoTIFF of classes to write.")],
    built: Annotated[
        list[str] | None, typer.Option(help="Built-up surface on the same grid.")
    ] = None,
    land: Annotated[list[str] | None, typer.Option(help="Permanent land on the same grid.")] = None,
    level: Annotated[Level, typer.Option(help="Level of the classes.")] = Level.one,
    ruleset: Annotated[Ruleset, typer.Option(help="Named rules.")] = Ruleset.R2023A,
    chunk: Annotated[int | None, typer.Option(min=1, help="Rows per strip.")] = None,
    nodata: NodataOption = None,
    built_unit: BuiltUnitOption = None,
    land_unit: LandUnitOption = None,
    cog: Annotated[
        bool, typer.Option("--cog/--no-cog", help="Cloud-optimised GeoTIFF with overviews.")
    ] = True,
    workers: WorkersOption = None,
    cluster: ClusterOption = None,
    centre_density: Threshold = None,
    centre_population: Threshold = None,
    centre_built: Annotated[
        float | None, typer.Option(rich_help_panel=_THRESHOLDS, min=0, max=1)
    ] = None,
    built_rule: Annotated[
        bool,
        typer.Option(
            "--built-rule/--no-built-rule",
            rich_help_panel=_THRESHOLDS,
            help="Whether built-up cells may join centres and dense clusters.",
        ),
    ] = True,
    smoothing: Annotated[Smoothing | None, typer.Option(rich_help_panel=_THRESHOLDS)] = None,
    gap_area: Threshold = None,
    cluster_density: Threshold = None,
    cluster_population: Threshold = None,
    dense_population: Threshold = None,
    semidense_density: Threshold = None,
    semidense_population: Threshold = None,
    semidense_connectivity: Annotated[
        int | None, typer.Option(rich_help_panel=_THRESHOLDS, help="4 or 8.")
    ] = None,
    semidense_distance: Annotated[
        int | None, typer.Option(rich_help_panel=_THRESHOLDS, min=0)
    ] = None,
    rural_cluster_population: Threshold = None,
    low_density: Threshold = None,
    water_land: Annotated[
        float | None, typer.Option(rich_help_panel=_THRESHOLDS, min=0, max=1)
    ] = None,
) -> None:
    """Classify cells by the Degree of Urbanisation. Gives uint8, nodata 255."""
    from qala import compute, flows

    given = {
        "centre_density": centre_density,
        "centre_population": centre_population,
        "centre_built": centre_built if built_rule else False,
        "smoothing": None if smoothing is None else smoothing.value,
        "gap_area": gap_area,
        "cluster_density": cluster_density,
        "cluster_population": cluster_population,
        "dense_population": dense_population,
        "semidense_density": semidense_density,
        "semidense_population": semidense_population,
        "semidense_connectivity": semidense_connectivity,
        "semidense_distance": semidense_distance,
        "rural_cluster_population": rural_cluster_population,
        "low_density": low_density,
        "water_land": water_land,
    }
    with compute.running(workers, cluster=cluster):
        written = flows.cells_to_files(
            _one(population),
            {int(level.value): output},
            built=_one(built),
            land=_one(land),
            ruleset=ruleset.value,
            chunk=chunk,
            nodata=nodata,
            built_unit=built_unit.value if built_unit else None,
            land_unit=land_unit.value if land_unit else None,
            cloud_optimised=cog,
            progress=_Bar("cells"),
            **{k: v for k, v in given.items() if v is not None},
        )
    _said(written)


def _one(files: list[str] | None) -> Any:
    """Return a single file as such, several as tiles."""
    if not files:
        return None
    return files[0] if len(files) == 1 else files


@app.command()
def units(
    cells: Annotated[Path, typer.Option(help="Classes that `qala cells` wrote.")],
    population: PopulationFile,
    units: Annotated[Path, typer.Option(help="Territorial units.")],
    id: Annotated[str, typer.Option(help="Column of unit ids.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="GeoPackage to write.")],
    level: Annotated[
        Level | None, typer.Option(help="Level of the classes; default: that of the cells.")
    ] = None,
    rules: Annotated[UnitRules, typer.Option(help="Rules of level 2.")] = UnitRules.y2024,
    overlay: Annotated[Overlay, typer.Option(help="Cells cut by a border.")] = Overlay.exact,
    layer: LayerOption = None,
    units_crs: UnitsCrsOption = None,
    repair: RepairOption = False,
    nodata: NodataOption = None,
    lang: LangOption = Language.en,
) -> None:
    """Classify units by the cells their people live in."""
    from qala import compute, flows

    with compute.running():
        found = flows.units_to_file(
            cells, _one(population), units, output, id=id,
            level=int(level.value) if level else None, rules=rules.value, overlay=overlay.value,
            layer=layer, units_crs=units_crs, repair=repair, nodata=nodata, lang=lang.value,
        )  # fmt: skip
    column = "degurba_l2" if "degurba_l2" in found.columns else "degurba_l1"
    counts = found[column].value_counts(dropna=False).sort_index(ascending=False)
    typer.echo("\n".join(f"{code}: {count} units" for code, count in counts.items()))
    _said([output])


@app.command()
def rates(
    units: Annotated[Path, typer.Option(help="Territorial units.")],
    id: Annotated[str, typer.Option(help="Column of unit ids.")],
    population: Annotated[
        list[str], typer.Option(help="People per cell; for several epochs 2015=FILE 2020=FILE.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="GeoPackage to write.")],
    built: Annotated[list[str] | None, typer.Option(help="Built-up surface, likewise.")] = None,
    land: Annotated[list[str] | None, typer.Option(help="Permanent land, likewise.")] = None,
    official: Annotated[
        Path | None, typer.Option(help="Official shares: unit, [epoch], urban_share or counts.")
    ] = None,
    ruleset: Annotated[Ruleset, typer.Option(help="Named rules.")] = Ruleset.R2023A,
    rules: Annotated[UnitRules, typer.Option(help="Rules of level 2.")] = UnitRules.y2024,
    overlay: Annotated[Overlay, typer.Option(help="Cells cut by a border.")] = Overlay.exact,
    layer: LayerOption = None,
    units_crs: UnitsCrsOption = None,
    repair: RepairOption = False,
    nodata: NodataOption = None,
    built_unit: BuiltUnitOption = None,
    land_unit: LandUnitOption = None,
    chunk: Annotated[int | None, typer.Option(min=1, help="Rows per strip.")] = None,
    workers: WorkersOption = None,
    cluster: ClusterOption = None,
    lang: LangOption = Language.en,
) -> None:
    """Compute official and functional urban shares of units."""
    from qala import compute, flows
    from qala.rates import summarise

    with compute.running(workers, cluster=cluster):
        found = flows.rates_to_file(
            population, units, output, id=id, built=built or [], land=land or [],
            official=official, layer=layer, units_crs=units_crs, repair=repair, nodata=nodata,
            built_unit=built_unit.value if built_unit else None,
            land_unit=land_unit.value if land_unit else None,
            ruleset=ruleset.value, rules=rules.value, overlay=overlay.value, chunk=chunk,
            lang=lang.value,
        )  # fmt: skip
    _show_rates(found, summarise(found), lang.value)
    _said([output])


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(help="Rasters, vectors, tables, workflows, …")],
) -> None:
    """Say what files are, whether sound, and the remedy if not."""
    from qala.inspection import inspect_file

    bad = 0
    for file in files:
        found = inspect_file(file)
        typer.echo(found.text())
        bad += not found.sound
    if bad:
        raise typer.Exit(EXIT_INPUT)


@app.command()
def doctor() -> None:
    """Show versions, drivers, memory, and what is missing."""
    from qala.inspection import examine

    lines, healthy = examine()
    typer.echo("\n".join(lines))
    if not healthy:
        raise typer.Exit(EXIT_INPUT)


@app.command(hidden=True)
def schema() -> None:
    """Print the JSON schema of a workflow."""
    from qala.config import workflow_schema

    typer.echo(json.dumps(workflow_schema(), ensure_ascii=False, indent=1))


for part in (cli_areas, cli_city, cli_indicators, cli_operate, cli_qgis):
    part.register(app)
add_examples(app)


def _stop(signum: int, frame: Any) -> None:
    """Leave in order when a scheduler ends the job, so that work files are removed."""
    raise SystemExit(128 + signum)


def main() -> None:
    """Run the command; a failure is one sentence and an exit code."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        app(standalone_mode=True)
    except QalaError as error:
        typer.echo(f"error: {scrub(str(error))}", err=True)
        raise SystemExit(error.exit_code) from None
    except MemoryError:
        typer.echo("error: not enough memory; pass a smaller --chunk or --workers 1.", err=True)
        raise SystemExit(EXIT_INPUT) from None
    except BrokenPipeError:
        # the reader of the output has seen enough; Python would complain again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except OSError as error:
        place = Path(error.filename or Path.cwd() / "output")
        if is_full(place.parent, error):
            full = storage_error(error.filename or "a file", error)
            typer.echo(f"error: {scrub(str(full))}", err=True)
            raise SystemExit(EXIT_TEMPORARY) from None
        typer.echo(
            f"error: {scrub(str(error))}; expected files that can be read and room to write: "
            "check the path and the free space.",
            err=True,
        )
        raise SystemExit(EXIT_INPUT) from None


if __name__ == "__main__":
    main()
