"""The command ``qala indicators``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from qala.cli_areas import Language
from qala.indicator_definitions import (
    HIGH_METRES,
    MIN_GROWTH,
    OPEN_METRES,
    SPACING_METRES,
    STOP_METRES,
)

_LIMITS = "Limits"
_EPILOG = "What the inputs do not allow is listed as not computed, with what it needs."


def indicators(
    units: Annotated[Path, typer.Option(help="Territorial units.")],
    id: Annotated[str, typer.Option(help="Column of unit ids.")],
    population: Annotated[
        list[str], typer.Option(help="People per cell; for several epochs 2015=FILE 2020=FILE.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="GeoPackage to write; a CSV lies beside it.")
    ],
    built: Annotated[
        list[str] | None, typer.Option(help="Built-up surface, likewise (1: land consumption).")
    ] = None,
    land: Annotated[list[str] | None, typer.Option(help="Permanent land, likewise.")] = None,
    cells: Annotated[
        list[str] | None, typer.Option(help="Classes of `qala cells --level 2`, likewise.")
    ] = None,
    areas: Annotated[
        Path | None, typer.Option(help="Functional urban areas of `qala areas` (2, 8).")
    ] = None,
    city: Annotated[
        Path | None, typer.Option(help="Twin of `qala city`: its folder or city.gpkg (9: roofs).")
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(
            help="Network of `qala network`, one a mode, or an .osm.pbf for both (4 to 6, 8, 10)."
        ),
    ] = None,
    osm: Annotated[
        Path | None,
        typer.Option(help="OpenStreetMap extract: stops, open space, services, ways (4 to 7, 12)."),
    ] = None,
    points: Annotated[
        list[str] | None,
        typer.Option(help="Facilities, name=FILE or name=FILE@METRES; may be repeated (11)."),
    ] = None,
    zones: Annotated[
        list[str] | None,
        typer.Option(help="Protection or risk, name=FILE or FILE; may be repeated (13)."),
    ] = None,
    official: Annotated[
        Path | None, typer.Option(help="Official shares: unit, [epoch], urban_share or counts (2).")
    ] = None,
    figure: Annotated[Path | None, typer.Option(help="PNG of small maps.")] = None,
    page: Annotated[
        Path | None, typer.Option(help="HTML page in Kazakh, Russian and English.")
    ] = None,
    stop_metres: Annotated[
        float, typer.Option(min=1, rich_help_panel=_LIMITS, help="Walk to a stop.")
    ] = STOP_METRES,
    high_metres: Annotated[
        float, typer.Option(min=1, rich_help_panel=_LIMITS, help="Walk to rail, metro, ferry.")
    ] = HIGH_METRES,
    open_metres: Annotated[
        float, typer.Option(min=1, rich_help_panel=_LIMITS, help="Walk to open space.")
    ] = OPEN_METRES,
    min_growth: Annotated[
        float,
        typer.Option(min=1e-9, rich_help_panel=_LIMITS, help="Growth a year that 11.3.1 needs."),
    ] = MIN_GROWTH,
    spacing: Annotated[
        float,
        typer.Option(min=1, rich_help_panel=_LIMITS, help="Metres between points of a cell."),
    ] = SPACING_METRES,
    catchments: Annotated[
        bool, typer.Option("--catchments/--no-catchments", help="Layers of what is in reach.")
    ] = True,
    layer: Annotated[str | None, typer.Option(help="Layer of the units file.")] = None,
    units_crs: Annotated[
        str | None, typer.Option(help="CRS of the units, where the file declares none.")
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Repair units.")] = False,
    nodata: Annotated[
        float | None, typer.Option(help="Missing value of the population, where undeclared.")
    ] = None,
    built_unit: Annotated[
        str | None, typer.Option(help="m2, share or percent, where --built does not tell.")
    ] = None,
    land_unit: Annotated[
        str | None, typer.Option(help="m2, share or percent, where --land does not tell.")
    ] = None,
    ruleset: Annotated[str, typer.Option(help="Rules of urban cells.")] = "R2023A",
    title: Annotated[str, typer.Option(help="Title of map and file.")] = "",
    source: Annotated[str, typer.Option(help="Sources and licences, shown below the map.")] = "",
    synthetic: Annotated[
        bool, typer.Option("--synthetic", help="Mark the map: data are invented.")
    ] = False,
    lang: Annotated[Language, typer.Option(help="Language of words.")] = Language.en,
) -> None:
    """Compute indicators of SDG 11 and kin. They are told by unit and functional area."""
    from qala import compute
    from qala.cli import _Bar
    from qala.indicator_products import indicators_flow

    with compute.running():
        found, files = indicators_flow(
            units, population, output, id=id, built=built or [], land=land or [],
            cells=cells or [], areas=areas, city=city, networks=network or [], osm=osm,
            points=points or [], zones=zones or [], official=official, layer=layer,
            units_crs=units_crs, repair=repair, nodata=nodata, built_unit=built_unit,
            land_unit=land_unit, ruleset=ruleset, figure=figure, page=page, title=title,
            source=source, synthetic=synthetic, lang=lang.value, progress=_Bar("indicators"),
            stop_metres=stop_metres, high_metres=high_metres, open_metres=open_metres,
            min_growth=min_growth, spacing=spacing, catchments=catchments,
        )  # fmt: skip
    tell_indicators(found, lang.value)
    if synthetic:
        typer.echo("SYNTHETIC data: do not plan with these figures.")
    for path in files:
        typer.echo(str(path))


def tell_indicators(found: Any, lang: str) -> None:
    """Print the values of all units together, and what is not computed and why."""
    tell_table(found.table(lang), lang)


def tell_table(table: Any, lang: str) -> None:
    """Print the rows of all units together from a long table."""
    from qala.indicator_products import shown

    whole = table[table["zone_kind"] == "all"]
    for row in whole[whole["status"] == "computed"].itertuples():
        when = " ".join(str(v) for v in (row.since, row.epoch) if isinstance(v, str))
        typer.echo(f"{row.title[:72]:<72} {when:<9} {shown(row.value, row.unit, lang):>14}")
    lost = whole[whole["status"] != "computed"]
    for note, rows in lost.groupby("note", sort=False):
        names = [
            f"{name} {epoch}" if isinstance(epoch, str) else name
            for name, epoch in zip(rows["indicator"], rows["epoch"], strict=True)
        ]
        typer.echo(f"{rows['status'].iloc[0]}: {', '.join(names)}: {note}")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EPILOG)(indicators)
