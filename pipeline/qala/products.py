"""Products of a run: class rasters, GeoPackage, pictures and the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qala.rules import COLOURS

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    import xarray as xr

    from qala.config import Workflow
    from qala.raster import RasterFile
    from qala.sources import Inputs

GHSL_NOTICE = (
    "GHSL data: European Commission, Joint Research Centre, reuse with acknowledgement "
    "(doi:10.2760/098587)"
)
Progress = Callable[[int, int], None]
#: pictures of a run → their names on the report's page, in its order
_PICTURES = {
    "chart_rates": "rates",
    "map_cells": "cells",
    "map_centres": "centres",
    "map_urban_share": "urban_share",
    "map_units": "map",
    "chart_change": "change",
    "chart_sensitivity": "sensitivity",
}


def class_file(
    cells: xr.DataArray, path: str | Path, others: Mapping[str, Any], **tags: str
) -> RasterFile:
    """Return a class raster with its colours and metadata, ready to be written."""
    from qala.raster import RasterFile

    first_level = cells.attrs["level"] == 1
    colours = {k: v for k, v in COLOURS.items() if (k < 10) == first_level}
    return RasterFile(cells, Path(path), tags={**_tags(cells, others), **tags}, colours=colours)


def _tags(classes: xr.DataArray, others: Mapping[str, xr.DataArray | None]) -> dict[str, str]:
    """Return the metadata that a class raster carries."""
    from qala import __version__

    return {
        "TITLE": str(classes.attrs["long_name"]),
        "RULESET": str(classes.attrs["ruleset"]),
        "LEVEL": str(classes.attrs["level"]),
        "INPUTS": ", ".join(["population", *(k for k, v in others.items() if v is not None)]),
        "SOFTWARE": f"qala {__version__}",
        "SOURCE_NOTICE": GHSL_NOTICE,
    }


def suffix_of(epoch: Any) -> str:
    """Return what names of files and layers end with."""
    return "" if epoch is None else f"_{epoch}"


def write_cells(
    workflow: Workflow,
    folder: Path,
    data: Inputs,
    lazy: Mapping[Any, xr.Dataset],
    progress: Progress | None,
) -> list[Path]:
    """Write both levels and the centres' numbers below ``rasters/``, in one computation."""
    from qala.raster import RasterFile, write_rasters

    tags = {"SYNTHETIC": "yes"} if workflow.synthetic else {}
    files = []
    for epoch, found in lazy.items():
        others = {"built": data.built[epoch], "land": data.land[epoch]}
        for level in (1, 2):
            path = _class_path(folder, epoch, level)
            files.append(class_file(found[f"degurba_l{level}"], path, others, **tags))
        files.append(RasterFile(found["centre"], _label_path(folder, epoch), tags=tags))
    return write_rasters(files, progress=progress)


def _class_path(folder: Path, epoch: Any, level: int) -> Path:
    return folder / "rasters" / f"degurba_l{level}{suffix_of(epoch)}.tif"


def _label_path(folder: Path, epoch: Any) -> Path:
    return folder / "rasters" / f"urban_centres{suffix_of(epoch)}.tif"


def read_classes(folder: Path, epoch: Any, level: int) -> xr.DataArray:
    """Open the classes that :func:`write_cells` wrote."""
    from qala.raster import open_raster

    return open_raster(_class_path(folder, epoch, level), "cells")


def read_labels(folder: Path, epoch: Any) -> xr.DataArray:
    """Read the numbers of the centres that :func:`write_cells` wrote."""
    import rasterio
    import xarray as xr

    like = read_classes(folder, epoch, 1)
    with rasterio.open(_label_path(folder, epoch)) as source:
        return xr.DataArray(source.read(1), like.coords, like.dims, name="centre")


def write_layers(
    workflow: Workflow,
    folder: Path,
    cells: xr.DataArray,
    centres: Mapping[Any, gpd.GeoDataFrame],
    tables: Mapping[str, pd.DataFrame],
    units: gpd.GeoDataFrame | None,
    *,
    shown: Any,
    parameters: Mapping[str, Any],
    inputs: Sequence[Mapping[str, Any]],
) -> Path:
    """Write the GeoPackage: units, rates, centres, cells, sensitivity, inputs."""
    import pandas as pd

    from qala.config import credits_of, title_of
    from qala.export.geopackage import (
        MAX_POLYGON_CELLS,
        Layer,
        cells_to_polygons,
        write_geopackage,
    )
    from qala.messages import in_languages, tr

    lang = workflow.outputs.language
    title = title_of(workflow, lang)
    layers: dict[str, Layer] = {}

    def layer(name: str, frame: Any, style: str | None, words: str | None = None) -> None:
        suffix = f", {name.rsplit('_', 1)[1]}" if words else ""
        titles = {k: v + suffix for k, v in in_languages(f"layer.{words or name}").items()}
        layers[name] = Layer(frame, title=titles, style=style)

    if units is not None:
        rates = tables["rates"]
        last = rates if shown is None else rates[rates["epoch"] == shown]
        layer("units", last, "units")
        layer("urban_share", last, "urban_share")
        layer("rates", pd.DataFrame(rates.drop(columns="geometry")), "table")
        layer("summary", tables["summary"], "table")
    for epoch, found in centres.items():
        name = f"urban_centres{suffix_of(epoch)}"
        layer(name, found, "centres", "urban_centres" if epoch is not None else None)
    wanted = workflow.outputs.polygons
    if wanted or (wanted is None and cells.size <= MAX_POLYGON_CELLS):
        inhabited = cells_to_polygons(cells, codes=[30, 23, 22, 21, 13, 12])
        name = f"cells{suffix_of(shown)}"
        layer(name, inhabited, "cells", "cells" if shown is not None else None)
    if "sensitivity" in tables:
        layer("sensitivity", tables["sensitivity"], "table")
    read = pd.DataFrame(list(inputs) or [{"path": "", "bytes": 0, "sha256": ""}])
    layer("inputs", read.assign(path=[Path(p).name for p in read["path"]]), "table")
    metadata = {
        "title": workflow.title,
        "abstract": tr("gpkg.abstract", lang, title=title),
        "licence": "; ".join(credits_of(workflow, lang)) or GHSL_NOTICE,
        "sources": list(workflow.sources),
        "citation": "doi:10.2785/706535; doi:10.2760/098587",
        "keywords": ["degree of urbanisation", "urbanisation"],
        "provenance": {"parameters": dict(parameters), "inputs": list(inputs)},
        "synthetic": workflow.synthetic,
    }
    return write_geopackage(folder / "urbanisation.gpkg", layers, metadata=metadata, lang=lang)


def draw_picture(
    name: str,
    workflow: Workflow,
    folder: Path,
    shown: Any,
    *,
    cells: Callable[[], xr.DataArray],
    centres: Callable[[], gpd.GeoDataFrame],
    units: Callable[[], gpd.GeoDataFrame | None],
    tables: Callable[[], Mapping[str, pd.DataFrame]],
) -> list[Path]:
    """Draw a picture below ``figures/`` in every language, reading only what it needs.

    Parameters
    ----------
    name
        A key of ``_PICTURES``, or ``chart_sensitivity_centres``.
    workflow, shown
        The run, and the epoch that maps show.
    folder
        Where ``figures/`` is made.
    cells, centres, units, tables
        Give level-2 classes, urban centres, units and tables when asked.

    Returns
    -------
    list of pathlib.Path
        None for a picture of the centres where the whole map shows them well.
    """
    from qala import figures
    from qala.config import credits_of, title_of
    from qala.messages import LANGUAGES, tr

    job = _job(name, shown, cells, centres, units, tables)
    if job is None:
        return []
    function, arguments, extra = job
    drawn = []
    for lang in LANGUAGES:
        place, heading = title_of(workflow, lang), tr(f"heading.{name}", lang)
        # the picture of change says its epochs itself
        dated = {} if shown is None or name == "chart_change" else {"subtitle": str(shown)}
        drawn.append(
            getattr(figures, function)(
                *arguments,
                title=f"{heading}: {place}" if place else heading,
                path=folder / "figures" / f"{name}_{lang}.png",
                lang=lang,
                source="; ".join(credits_of(workflow, lang)),
                synthetic=workflow.synthetic,
                **dated,
                **extra,
            )
        )
    return drawn


def _job(
    name: str,
    shown: Any,
    cells: Callable[[], xr.DataArray],
    centres: Callable[[], gpd.GeoDataFrame],
    units: Callable[[], gpd.GeoDataFrame | None],
    tables: Callable[[], Mapping[str, pd.DataFrame]],
) -> tuple[str, tuple[Any, ...], dict[str, Any]] | None:
    """Return the function of a picture, what it draws, and its options."""
    import pandas as pd

    if name == "map_cells":
        return "map_cells", (cells(), units(), centres()), {}
    if name == "map_centres":
        found, level2 = centres(), cells()
        if not _lost_on_the_whole(level2, found):
            return None
        return "map_cells", (level2, units(), found), {"focus": found}
    held = tables()
    if name.startswith("chart_sensitivity"):
        options = {"column": "centre_share"} if name.endswith("_centres") else {}
        return "chart_sensitivity", (held["sensitivity"],), options
    rates = held["rates"]
    every = pd.concat([pd.DataFrame(rates), held["summary"]], ignore_index=True)
    if name == "chart_change":
        return "chart_change", (every,), {}
    if name == "chart_rates":
        return "chart_rates", (every if shown is None else every[every["epoch"] == shown],), {}
    column = {"map_urban_share": "urban_share", "map_units": "degurba_l2"}[name]
    return "map_units", (rates if shown is None else rates[rates["epoch"] == shown], column), {}


def _lost_on_the_whole(cells: xr.DataArray, centres: gpd.GeoDataFrame) -> bool:
    """Tell whether the urban centres want a map of their own."""
    from qala.figures import around
    from qala.grid import geobox_of

    if not len(centres):
        return False
    _, (left, bottom, right, top) = around(centres)
    cell = abs(geobox_of(cells).transform.a * geobox_of(cells).transform.e)
    return bool((right - left) * (top - bottom) < 0.4 * cells.size * cell)


def write_page(
    workflow: Workflow,
    folder: Path,
    shown: Any,
    pictures: Mapping[str, Mapping[str, Path]],
    tables: Mapping[str, pd.DataFrame],
    centres: gpd.GeoDataFrame,
    *,
    parameters: Mapping[str, Any],
    inputs: Sequence[Mapping[str, Any]],
) -> list[Path]:
    """Write the page that planners read."""
    import pandas as pd

    from qala.report import write_report

    whole = pd.concat([pd.DataFrame(tables["rates"]), tables["summary"]], ignore_index=True)
    if shown is not None:
        whole = whole[whole["epoch"] == shown]
    title = workflow.title
    return write_report(
        folder / "report",
        rates=whole.drop(columns="geometry"),
        centres=centres,
        sensitivity=tables.get("sensitivity"),
        figures={_PICTURES[k]: pictures[k] for k in _PICTURES if k in pictures},
        lang=workflow.outputs.language,
        summary={
            "place": title if isinstance(title, str) else dict(title),
            "synthetic": workflow.synthetic,
            "ruleset": workflow.cells.ruleset,
            "thresholds": dict(workflow.cells.thresholds),
            "sources": list(workflow.sources),
        },
        provenance={
            "inputs": [{**i, "path": Path(i["path"]).name} for i in inputs],
            "parameters": dict(parameters),
        },
    )
