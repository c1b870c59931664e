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
    from qala.provenance import Recorder
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


def shown_epoch(rates: pd.DataFrame | None, epochs: Sequence[Any]) -> Any:
    """Return the epoch that maps and the page show: the newest with official figures."""
    if rates is not None:
        known = set(rates.loc[rates["official_share"].notna(), "epoch"])
        for epoch in reversed(epochs):
            if epoch in known:
                return epoch
    return epochs[-1]


def _suffix(epoch: Any) -> str:
    return "" if epoch is None else f"_{epoch}"


def write_cells(
    workflow: Workflow,
    stage: Path,
    data: Inputs,
    lazy: Mapping[Any, xr.Dataset],
    progress: Progress | None,
) -> list[Path]:
    """Write both levels, the centres' numbers and what reconciling left, in one computation."""
    from qala.raster import RasterFile, write_rasters

    folder = stage / "rasters"
    tags = {"SYNTHETIC": "yes"} if workflow.synthetic else {}
    files = []
    for epoch, found in lazy.items():
        others = {"built": data.built[epoch], "land": data.land[epoch]}
        for level in (1, 2):
            path = folder / f"degurba_l{level}{_suffix(epoch)}.tif"
            files.append(class_file(found[f"degurba_l{level}"], path, others, **tags))
        path = folder / f"urban_centres{_suffix(epoch)}.tif"
        files.append(RasterFile(found["centre"], path, tags=tags))
    for epoch, factors in data.factors.items():
        path = folder / f"population_reconciled{_suffix(epoch)}.tif"
        files.append(RasterFile(data.population[epoch], path))
        path = folder / f"correction_factors{_suffix(epoch)}.tif"
        files.append(RasterFile(factors.rename("factor"), path))
    return write_rasters(files, progress=progress)


def read_back(stage: Path, epoch: Any) -> dict[str, xr.DataArray]:
    """Open the class rasters just written."""
    import rasterio
    import xarray as xr

    from qala.raster import open_raster

    folder = stage / "rasters"
    found = {
        f"degurba_l{level}": open_raster(folder / f"degurba_l{level}{_suffix(epoch)}.tif", "cells")
        for level in (1, 2)
    }
    like = found["degurba_l1"]
    with rasterio.open(folder / f"urban_centres{_suffix(epoch)}.tif") as source:
        labels = xr.DataArray(source.read(1), like.coords, like.dims, name="centre")
    return {**found, "centre": labels}


def write_layers(
    workflow: Workflow,
    stage: Path,
    recorder: Recorder,
    classes: Mapping[Any, Mapping[str, xr.DataArray]],
    centres: Mapping[Any, gpd.GeoDataFrame],
    tables: Mapping[str, pd.DataFrame],
    data: Inputs,
) -> Path:
    """Write the GeoPackage: units, rates, centres, cells, sensitivity, inputs."""
    import pandas as pd

    from qala.config import title_of
    from qala.export.geopackage import (
        MAX_POLYGON_CELLS,
        Layer,
        cells_to_polygons,
        write_geopackage,
    )
    from qala.messages import in_languages, tr

    lang = workflow.outputs.language
    title = title_of(workflow, lang)
    shown = shown_epoch(tables.get("rates"), list(classes))
    layers: dict[str, Layer] = {}

    def layer(name: str, frame: Any, style: str | None, words: str | None = None) -> None:
        suffix = f", {name.rsplit('_', 1)[1]}" if words else ""
        titles = {k: v + suffix for k, v in in_languages(f"layer.{words or name}").items()}
        layers[name] = Layer(frame, title=titles, style=style)

    if data.units is not None:
        rates = tables["rates"]
        last = rates if shown is None else rates[rates["epoch"] == shown]
        layer("units", last, "units")
        layer("urban_share", last, "urban_share")
        layer("rates", pd.DataFrame(rates.drop(columns="geometry")), "table")
        layer("summary", tables["summary"], "table")
    for epoch, found in centres.items():
        name = f"urban_centres{_suffix(epoch)}"
        layer(name, found, "centres", "urban_centres" if epoch is not None else None)
    wanted = workflow.outputs.polygons
    cells = classes[shown]["degurba_l2"]
    if wanted or (wanted is None and cells.size <= MAX_POLYGON_CELLS):
        inhabited = cells_to_polygons(cells, codes=[30, 23, 22, 21, 13, 12])
        name = f"cells{_suffix(shown)}"
        layer(name, inhabited, "cells", "cells" if shown is not None else None)
    if "sensitivity" in tables:
        layer("sensitivity", tables["sensitivity"], "table")
    inputs = pd.DataFrame(recorder.inputs or [{"path": "", "bytes": 0, "sha256": ""}])
    layer("inputs", inputs.assign(path=[Path(p).name for p in inputs["path"]]), "table")
    metadata = {
        "title": title,
        "abstract": tr("gpkg.abstract", lang, title=title),
        "licence": "; ".join(workflow.sources) or GHSL_NOTICE,
        "sources": list(workflow.sources),
        "citation": "doi:10.2785/706535; doi:10.2760/098587",
        "keywords": ["degree of urbanisation", "urbanisation"],
        "provenance": {"parameters": recorder.parameters, "inputs": recorder.inputs},
        "synthetic": workflow.synthetic,
    }
    return write_geopackage(stage / "urbanisation.gpkg", layers, metadata=metadata, lang=lang)


def draw(
    workflow: Workflow,
    stage: Path,
    shown: Any,
    classes: Mapping[str, xr.DataArray],
    centres: gpd.GeoDataFrame,
    tables: Mapping[str, pd.DataFrame],
    data: Inputs,
) -> dict[str, dict[str, Path]]:
    """Draw every picture in every language: picture → language → file."""
    from qala import figures
    from qala.config import title_of
    from qala.messages import LANGUAGES, tr

    rates = tables.get("rates")
    units = whole = every = None
    if rates is not None:
        import pandas as pd

        every = pd.concat([pd.DataFrame(rates), tables["summary"]], ignore_index=True)
        whole = every if shown is None else every[every["epoch"] == shown]
        units = rates if shown is None else rates[rates["epoch"] == shown]
    level2, variants = classes["degurba_l2"], tables.get("sensitivity")
    jobs: dict[str, tuple[Callable[..., Path], tuple[Any, ...], dict[str, Any]]] = {
        "map_cells": (figures.map_cells, (level2, data.units, centres), {})
    }
    if _lost_on_the_whole(level2, centres):
        jobs["map_centres"] = (
            figures.map_cells, (level2, data.units, centres), {"focus": centres},
        )  # fmt: skip
    if every is not None:
        jobs["map_urban_share"] = (figures.map_units, (units, "urban_share"), {})
        jobs["map_units"] = (figures.map_units, (units, "degurba_l2"), {})
        jobs["chart_rates"] = (figures.chart_rates, (whole,), {})
        if every["epoch"].nunique() > 1:
            jobs["chart_change"] = (figures.chart_change, (every,), {})
    if variants is not None:
        jobs["chart_sensitivity"] = (figures.chart_sensitivity, (variants,), {})
        jobs["chart_sensitivity_centres"] = (
            figures.chart_sensitivity, (variants,), {"column": "centre_share"},
        )  # fmt: skip
    drawn: dict[str, dict[str, Path]] = {}
    for name, (function, arguments, extra) in jobs.items():
        for lang in LANGUAGES:
            place, heading = title_of(workflow, lang), tr(f"heading.{name}", lang)
            # the picture of change says its epochs itself
            dated = {} if shown is None or name == "chart_change" else {"subtitle": str(shown)}
            drawn.setdefault(name, {})[lang] = function(
                *arguments,
                title=f"{heading}: {place}" if place else heading,
                path=stage / "figures" / f"{name}_{lang}.png",
                lang=lang,
                source="; ".join(workflow.sources),
                synthetic=workflow.synthetic,
                **dated,
                **extra,
            )
    return drawn


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
    stage: Path,
    recorder: Recorder,
    shown: Any,
    pictures: Mapping[str, Mapping[str, Path]],
    tables: Mapping[str, pd.DataFrame],
    centres: gpd.GeoDataFrame,
) -> list[Path]:
    """Write the page that planners read."""
    import pandas as pd

    from qala.report import write_report

    whole = pd.concat([pd.DataFrame(tables["rates"]), tables["summary"]], ignore_index=True)
    if shown is not None:
        whole = whole[whole["epoch"] == shown]
    title = workflow.title
    return write_report(
        stage / "report",
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
            "inputs": [{**i, "path": Path(i["path"]).name} for i in recorder.inputs],
            "parameters": recorder.parameters,
            "steps": recorder.steps,
        },
    )
