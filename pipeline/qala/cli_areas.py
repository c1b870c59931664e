"""Commands of functional urban areas: ``qala network``, ``qala times``, ``qala areas``."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class Mode(StrEnum):
    """Means of travel."""

    car = "car"
    foot = "foot"


class Language(StrEnum):
    """Language of words in outputs."""

    en = "en"
    ru = "ru"
    kk = "kk"


def _tell(summary: dict[str, Any], depth: int = 0) -> None:
    """Print a summary, one fact a line; tables and long lists are left to the files."""
    plain = {k: v for k, v in summary.items() if not isinstance(v, dict)}
    width = max((len(k) for k in plain), default=0)
    for key, value in plain.items():
        typer.echo(f"{'  ' * depth}{key.ljust(width)}  {_plain(value)[:400]}".rstrip())
    for key, value in summary.items():
        if isinstance(value, dict) and value:
            typer.echo(f"{'  ' * depth}{key}:")
            _tell(value, depth + 1)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 100 else f"{value:,.0f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(_plain(v) for v in value) or "-"
    return "-" if value is None else str(value)


def network(
    osm: Annotated[Path, typer.Option(help="OpenStreetMap extract, .osm.pbf or .osm.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Network file to write.")],
    mode: Annotated[Mode, typer.Option(help="Means of travel.")] = Mode.car,
    bbox: Annotated[
        str | None, typer.Option(help="W,S,E,N in degrees: read only what lies there.")
    ] = None,
    crs: Annotated[str, typer.Option(help="Metric CRS of the network.")] = "ESRI:54009",
    layer: Annotated[
        Path | None, typer.Option(help="GeoPackage to write too: roads with speeds, for QGIS.")
    ] = None,
    lang: Annotated[Language, typer.Option(help="Language of words in --layer.")] = Language.en,
) -> None:
    """Make a routable network from an OpenStreetMap extract."""
    from qala.cli import _Bar
    from qala.network import network_flow

    found = network_flow(
        osm, mode.value, output, bbox=parse_bbox(bbox), crs=crs, layer=layer, lang=lang.value,
        progress=_Bar("roads", "%"),
    )  # fmt: skip
    # warnings stand in the log already, and the arrays' lengths follow from the counts
    summary = {k: v for k, v in found["summary"].items() if k != "warnings"}
    _tell({k: v for k, v in found.items() if k != "arrays"} | {"summary": summary})
    for path in (found["out"], layer):
        if path is not None:
            typer.echo(str(path))


def parse_bbox(text: str | None) -> tuple[float, float, float, float] | None:
    """Read ``W,S,E,N`` in degrees.

    Raises
    ------
    InputError
        When it is not four numbers in order.

    Examples
    --------
    >>> parse_bbox("7.41,43.72,7.44,43.76")
    (7.41, 43.72, 7.44, 43.76)
    """
    from qala.errors import InputError

    if text is None:
        return None
    try:
        west, south, east, north = (float(v) for v in text.replace(" ", "").split(","))
    except ValueError as error:
        raise InputError(f"--bbox is {text!r}", "W,S,E,N in degrees, four numbers") from error
    if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
        raise InputError(f"--bbox is {text!r}", "west < east and south < north, in degrees")
    return west, south, east, north


def times(
    network: Annotated[Path, typer.Option(help="Network that `qala network` wrote.")],
    centres: Annotated[
        Path, typer.Option("--from", help="Points, polygons, or a class raster with its centres.")
    ],
    population: Annotated[Path, typer.Option(help="People per cell.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help=".gpkg, .tif, .csv or .parquet to write.")
    ],
    max_minutes: Annotated[float, typer.Option(min=1, help="Limit of the journeys.")] = 120.0,
    id: Annotated[str | None, typer.Option(help="Column of the centres' ids.")] = None,
    friction: Annotated[
        Path | None, typer.Option(help="Seconds per metre, for cells that no road leads from.")
    ] = None,
    lang: Annotated[Language, typer.Option(help="Language of words in a .gpkg.")] = Language.en,
) -> None:
    """Time every populated cell to the centres in reach."""
    from qala import compute
    from qala.cli import _Bar
    from qala.travel import times_flow

    with compute.running():
        summary = times_flow(
            network, centres, population, max_minutes, output, id_column=id, friction=friction,
            lang=lang.value, progress=_Bar("times", "step"),
        )  # fmt: skip
    _tell({k: v for k, v in summary.items() if k not in ("warnings", "out")})
    typer.echo(summary["out"])


def areas(
    population: Annotated[Path, typer.Option(help="People per cell.")],
    units: Annotated[Path, typer.Option(help="Territorial units.")],
    id: Annotated[str, typer.Option(help="Column of unit ids.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="GeoPackage to write.")],
    built: Annotated[Path | None, typer.Option(help="Built-up surface on the same grid.")] = None,
    land: Annotated[Path | None, typer.Option(help="Permanent land on the same grid.")] = None,
    flows: Annotated[
        Path | None, typer.Option(help="Commuters: origin, destination, commuters.")
    ] = None,
    employed: Annotated[
        Path | None, typer.Option(help="Employed residents: unit, employed.")
    ] = None,
    network: Annotated[
        Path | None,
        typer.Option(help="Estimate flows from this network's times (or an .osm.pbf's)."),
    ] = None,
    distance: Annotated[
        bool, typer.Option("--distance", help="Estimate flows from straight-line distance.")
    ] = False,
    isochrone: Annotated[
        float | None, typer.Option(min=1, help="Baseline: minutes around large cities.")
    ] = None,
    cellwise: Annotated[
        bool,
        typer.Option(
            "--cellwise",
            help="GHS-FUA-like estimate cell by cell, on --network times or straight lines; "
            "its model was fitted on Belgium alone.",
        ),
    ] = False,
    min_city: Annotated[
        float, typer.Option(help="Least people of a city for the isochrone.")
    ] = 100_000.0,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Share of commuters that joins a unit.")
    ] = 0.15,
    beta: Annotated[
        float | None, typer.Option(min=0, help="Decay per km or minute; default: calibrated.")
    ] = None,
    calibrate: Annotated[
        Path | None, typer.Option(help="Flows on the same units to fit the decay on.")
    ] = None,
    cores: Annotated[
        Path | None, typer.Option(help="Given cores: unit, city; in place of urban centres.")
    ] = None,
    city_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of people in a centre that makes a city.")
    ] = 0.5,
    reporting: Annotated[
        str | None, typer.Option(help="Column of units by which rates are told.")
    ] = None,
    official: Annotated[
        Path | None,
        typer.Option(help="Official urban shares by reporting unit, else by unit."),
    ] = None,
    epoch: Annotated[
        int | None, typer.Option(help="Epoch of the official shares; default: the population's.")
    ] = None,
    figure: Annotated[Path | None, typer.Option(help="PNG of the map.")] = None,
    layer: Annotated[str | None, typer.Option(help="Layer of the units file.")] = None,
    units_crs: Annotated[
        str | None, typer.Option(help="CRS of units that declare none, such as EPSG:4326.")
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Repair units.")] = False,
    unknown: Annotated[
        str, typer.Option(help="Flows of units not in the layer: error or outside.")
    ] = "error",
    ruleset: Annotated[str, typer.Option(help="Rules of the urban centres.")] = "R2023A",
    source: Annotated[str, typer.Option(help="Sources and licences, shown below the map.")] = "",
    lang: Annotated[Language, typer.Option(help="Language of words.")] = Language.en,
) -> None:
    """Delineate functional urban areas from commuting."""
    from qala import compute
    from qala.areas import areas_flow

    with compute.running():
        found = areas_flow(
            population, units, id, out=output, built=built, land=land, layer=layer, flows=flows,
            employed=employed, network=network, distance=distance, isochrone=isochrone,
            cellwise=cellwise, min_city=min_city, threshold=threshold, beta=beta,
            calibrate_on=calibrate, cores=cores,
            city_share=city_share, unknown=unknown, reporting=reporting, official=official,
            epoch=epoch, figure=figure,
            ruleset=ruleset, units_crs=units_crs, repair=repair, lang=lang.value, source=source,
        )  # fmt: skip
    _tell({**found["settings"], **found["counts"]})
    if found["calibration"] is not None:
        typer.echo(str(found["calibration"]))
    typer.echo("")
    result = found["areas"]
    verdicts = [] if result.sensitivity is None else result.sensitivity.joined["verdict"].tolist()
    tell_areas(result.areas, found["rates"], verdicts, str(result.settings["method"]), lang.value)
    for path in found["outputs"]:
        typer.echo(str(path))


def tell_areas(
    areas: Any, rates: Any, verdicts: Sequence[str], method: str, lang: str, *, rows: int = 40
) -> None:
    """Print the areas with their people, the rates, and the pairs of cities in doubt.

    Parameters
    ----------
    areas, rates
        Tables of :class:`qala.fua.Areas` and :func:`qala.fua_reports.area_rates`.
    verdicts
        Sentences on pairs of cities, most in doubt first.
    method
        Of the areas' settings.
    lang
        ``en``, ``ru`` or ``kk``.
    rows
        Areas told at most.
    """
    from qala.messages import tr

    table = areas.sort_values("population", ascending=False)
    columns = [
        "name", "population", "core_population", "zone_population", "core_units", "zone_units",
    ]  # fmt: skip
    typer.echo(table[columns].head(rows).to_string(index=False, float_format="{:,.0f}".format))
    if len(table) > rows:
        typer.echo(f"{len(table) - rows} more in layer areas")
    shares = ["unit", "population", "core_share", "zone_share", "outside_share", "area_share"]
    shares += ["official_share", "ratio"] if rates["official_share"].notna().any() else []
    typer.echo("")
    # a table of all units is for the file
    told = rates if len(rates) <= rows else rates.tail(1)
    number = {"population": "{:,.0f}".format}
    typer.echo(
        told[shares].to_string(
            index=False, formatters=number, float_format="{:.3f}".format, na_rep="-"
        )
    )
    if len(verdicts):
        typer.echo("")
        for text in verdicts[:3]:
            typer.echo(text)
    if method == "cellwise":
        typer.echo("")
        typer.echo(tr("areas.subtitle_cellwise", lang))


def tell_run(result: Any, lang: str) -> None:
    """Print what a workflow ``functional_areas`` found, or had found when nothing changed."""
    record = result.record
    tell_areas(
        result.tables["areas"], result.tables["rates"], record["verdicts"], record["method"], lang
    )


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(network)
    app.command()(times)
    app.command()(areas)
