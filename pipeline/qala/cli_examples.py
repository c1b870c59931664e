"""What ``--help`` of each command ends with: lines that can be copied."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

#: command → lines; a test runs each through the parser of its command
EXAMPLES: dict[str, tuple[str, ...]] = {
    "run": (
        "qala run demo --out out/demo",
        "qala run mycountry.yaml --dry-run",
        "qala run mycountry.yaml --out results --set cells.ruleset=2024",
        "qala run national --processes --partial --wait",
    ),
    "cells": (
        "qala cells --population POP.tif -o cells.tif",
        "qala cells --population POP.tif --built BUILT.tif --land LAND.tif --level 2 -o cells.tif",
    ),
    "units": (
        "qala units --cells cells.tif --population POP.tif --units units.gpkg --id code"
        " -o classified.gpkg",
    ),
    "rates": (
        "qala rates --units units.gpkg --id code --population 2015=A.tif --population 2020=B.tif"
        " --land LAND.tif --official official.csv -o rates.gpkg",
    ),
    "check": ("qala check POP.tif units.gpkg official.csv twin/",),
    "network": (
        "qala network --osm kazakhstan.osm.pbf -o roads.net",
        "qala network --osm city.osm.pbf --mode foot --bbox 68.1,43.2,68.4,43.4 -o foot.net",
    ),
    "times": (
        "qala times --network roads.net --from centres.gpkg --id name --population POP.tif"
        " -o times.gpkg",
    ),
    "areas": (
        "qala areas --population POP.tif --units units.gpkg --id code --distance -o areas.gpkg",
        "qala areas --population POP.tif --units units.gpkg --id code --flows flows.csv"
        " -o areas.gpkg",
        "qala areas --population POP.tif --units units.gpkg --id code --network roads.net"
        " -o areas.gpkg",
    ),
    "city": (
        "qala city --demo -o demo",
        "qala city --osm liechtenstein.osm.pbf all -o twin",
        "qala city --osm newer.osm.pbf all --since twin/city.gpkg -o twin2",
    ),
    "tiles": ("qala tiles twin/city.gpkg",),
    "serve": ("qala serve twin --port 8765",),
    "indicators": (
        "qala indicators --units units.gpkg --id code --population POP.tif --osm city.osm.pbf"
        " -o out.gpkg",
        "qala indicators --units units.gpkg --id code --population 2015=A.tif"
        " --population 2020=B.tif --built 2015=C.tif --built 2020=D.tif --osm X.osm.pbf"
        " --network X.osm.pbf --areas areas.gpkg --city twin --points cameras=cameras.gpkg@100"
        " --zones flood=flood.gpkg --figure map.png -o out.gpkg",
    ),
    "fetch": ("qala fetch pop --epoch 2020 --resolution 1000 --bbox 66,40,71,46",),
    "why": ("qala why out/demo/urbanisation.gpkg:rates",),
    "diff": ("qala diff out/before out/after",),
    "qgis-setup": ("qala qgis-setup", "qala qgis-setup --zip qala.zip"),
}


def add_examples(app: typer.Typer) -> None:
    """Put the examples below the options of their commands."""
    for command in app.registered_commands:
        name = command.name or getattr(command.callback, "__name__", "").rstrip("_")
        lines = EXAMPLES.get(name)
        if lines:
            # \b keeps lines as they are: what is broken in two cannot be copied
            shown = "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
            command.epilog = "\n\n".join(p for p in (shown, command.epilog) if p)
