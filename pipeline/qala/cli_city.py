"""Commands of the 3D city: ``qala city``, ``qala serve``, ``qala registers``."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from qala.cli_areas import Language, parse_bbox

log = logging.getLogger("qala")

registers_app = typer.Typer(help="The five registers of a twin.", no_args_is_help=True)


def city(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the twin.")],
    osm: Annotated[
        Path | None, typer.Option(help="OpenStreetMap extract, .osm.pbf or .osm.")
    ] = None,
    extent: Annotated[str | None, typer.Argument(help="`all` for the whole extract.")] = None,
    bbox: Annotated[str | None, typer.Option(help="W,S,E,N in degrees.")] = None,
    area: Annotated[
        str | None, typer.Option(help="Polygons that bound the city: AREA.gpkg[:layer].")
    ] = None,
    terrain: Annotated[Path | None, typer.Option(help="Terrain heights, metres.")] = None,
    heights: Annotated[Path | None, typer.Option(help="Building heights, metres.")] = None,
    population: Annotated[Path | None, typer.Option(help="People per cell.")] = None,
    since: Annotated[
        Path | None, typer.Option(help="city.gpkg of an earlier run, to go on from.")
    ] = None,
    undulation: Annotated[
        float | None, typer.Option(help="Geoid above ellipsoid here, metres, for 3D Tiles.")
    ] = None,
    vertical_datum: Annotated[
        str | None, typer.Option(help="Vertical CRS of the terrain, where it does not tell.")
    ] = None,
    date: Annotated[
        str | None, typer.Option(help="Date of the sources, YYYY-MM-DD; default: the extract's.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the city.")] = None,
    clear_sky_index: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Measured over clear-sky irradiation, for roofs."),
    ] = None,
    lang: Annotated[Language, typer.Option(help="Language of words.")] = Language.en,
    demo: Annotated[
        bool, typer.Option("--demo", help="An invented Turkistan, no --osm needed.")
    ] = False,
) -> None:
    """Make the 3D twin of a city. It comes as GeoPackage, CityJSON, 3D Tiles and a web page."""
    from qala.city.twin import city_flow
    from qala.errors import InputError

    if demo:
        given_too = {"--osm": osm, "--bbox": bbox, "--area": area, "all": extent,
                     "--population": population}  # fmt: skip
        named = [k for k, v in given_too.items() if v is not None]
        if named:
            raise InputError(f"--demo together with {', '.join(named)}", "--demo alone",
                             "leave out one of them")  # fmt: skip
        from qala.city.demo import demo_flow

        _tell(demo_flow(
            output, terrain=terrain, heights=heights, since=since, undulation=undulation,
            vertical_datum=vertical_datum, date=date, name=name, clear_sky_index=clear_sky_index,
            lang=lang.value,
        ))  # fmt: skip
        typer.echo(f"open it with: qala serve {output}")
        return
    if osm is None:
        raise InputError("no extract was given", "--osm FILE.osm.pbf, or --demo")
    given = [extent is not None, bbox is not None, area is not None]
    if sum(given) != 1 or extent not in (None, "all"):
        raise InputError(
            "the extent is not told once" if extent in (None, "all") else f"extent is {extent!r}",
            "one of --bbox W,S,E,N, --area AREA.gpkg[:layer], or the word all",
        )
    found = city_flow(
        osm, output, bbox=parse_bbox(bbox), area=area, terrain=terrain, heights=heights,
        population=population, since=since, undulation=undulation, vertical_datum=vertical_datum,
        date=date, name=name, clear_sky_index=clear_sky_index, lang=lang.value,
    )  # fmt: skip
    _tell(found)
    typer.echo(f"open it with: qala serve {output}")


def _tell(found: dict[str, Any]) -> None:
    from qala.export.tiles3d import TileReport

    for key, value in found.items():
        if key == "changes":
            _tell_changes(value)
            continue
        text = str(value)
        if isinstance(value, TileReport | dict):
            parts = value if isinstance(value, dict) else asdict(value)
            text = ", ".join(
                f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in parts.items()
            )
        typer.echo(f"{key.ljust(10)} {text}")


def _tell_changes(changes: dict[str, dict[str, int]]) -> None:
    """Tell what changed, a line a layer."""
    if not changes:
        typer.echo("changes    nothing changed")
        return
    typer.echo("changes    (objects; layer `changes` of city.gpkg tells each)")
    width = max(len(name) for name in changes)
    for name, kinds in changes.items():
        words = ", ".join(f"{kinds[k]} {k}" for k in _CHANGES if k in kinds)
        typer.echo(f"  {name.ljust(width)}  {words}")


_CHANGES = ("created", "changed", "merged", "split", "abolished")


def tell_run(result: Any) -> None:
    """Print what a workflow ``city`` made, or had made when nothing changed."""
    _tell(result.record["counts"])


def tiles(
    source: Annotated[Path, typer.Argument(help="city.gpkg, as after an edit in a GIS.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder; default: tiles beside it.")
    ] = None,
    ids: Annotated[
        list[str] | None, typer.Option("--id", help="Object that changed; may be repeated.")
    ] = None,
    to_ellipsoid: Annotated[
        float | None, typer.Option(help="Metres added to heights; default: as before.")
    ] = None,
) -> None:
    """Bring the 3D Tiles of a city up to date. What changed in city.gpkg is found and written."""
    from qala.export.tiles3d import tiles_from_gpkg

    folder = output or source.parent / "tiles"
    report = tiles_from_gpkg(source, folder, ids=ids, to_ellipsoid=to_ellipsoid)
    typer.echo(f"{report.objects} objects, {report.written} of {report.tiles} tiles written")


def serve(
    folder: Annotated[Path, typer.Argument(help="Folder that `qala city` made.")],
    port: Annotated[int, typer.Option(help="Port.")] = 8000,
    host: Annotated[
        str, typer.Option(help="Address to listen on; the default lets nobody else in.")
    ] = "127.0.0.1",
) -> None:
    """Show a twin in the browser. Only this machine sees it by default."""
    from qala.export import web

    def ready(address: Any) -> None:
        typer.echo(f"{address} (stop with Ctrl+C)")

    web.serve(folder, port, host=host, ready=ready)


@registers_app.command("import")
def import_(
    folder: Annotated[Path, typer.Argument(help="Folder that `qala city` made.")],
    layer: Annotated[str, typer.Argument(help="Layer of registers.gpkg.")],
    source: Annotated[Path, typer.Argument(help="GeoPackage, GeoJSON or CSV.")],
    date: Annotated[str, typer.Option(help="Date from which it holds, YYYY-MM-DD.")],
    columns: Annotated[
        list[str] | None, typer.Option("--column", help="field=column of the source.")
    ] = None,
    source_layer: Annotated[str | None, typer.Option(help="Layer of the source.")] = None,
    crs: Annotated[
        str | None, typer.Option(help="CRS of a source that does not tell it; CSV: the twin's.")
    ] = None,
) -> None:
    """Import objects of a register; versions that differ are closed, never deleted."""
    from qala.city.registers import import_register
    from qala.errors import InputError

    pairs = {}
    for text in columns or []:
        field, sign, column = text.partition("=")
        if not sign:
            raise InputError(f"--column {text!r}", "field=column")
        pairs[field] = column
    found = import_register(
        folder, layer, source, columns=pairs or None, source_layer=source_layer, crs=crs,
        date=date,
    )  # fmt: skip
    _tell(found)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(city)
    app.command()(tiles)
    app.command()(serve)
    app.add_typer(registers_app, name="registers")
