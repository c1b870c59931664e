"""Recipes: what the command line, workflows and the QGIS console call.

Each is a page of named steps over the lower rooms; only here and above is
anything computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qala.rules import COLOURS

if TYPE_CHECKING:
    import xarray as xr

    from qala.raster import Unit

GHSL_NOTICE = (
    "GHSL data: European Commission, Joint Research Centre, reuse with acknowledgement "
    "(doi:10.2760/098587)"
)
Progress = Callable[[int, int], None]


def cells_to_files(
    population: str | Path | Sequence[str | Path],
    outputs: Mapping[int, str | Path],
    *,
    built: str | Path | Sequence[str | Path] | None = None,
    land: str | Path | Sequence[str | Path] | None = None,
    ruleset: str = "R2023A",
    chunk: int | None = None,
    nodata: float | None = None,
    built_unit: Unit | None = None,
    land_unit: Unit | None = None,
    cloud_optimised: bool = True,
    progress: Progress | None = None,
    **thresholds: Any,
) -> list[Path]:
    """Classify the cells of raster files and write the classes.

    Parameters
    ----------
    population, built, land
        Raster files, or tiles of one grid.
    outputs
        Level (1 or 2) → file to write; several levels share one scan.
    ruleset, chunk, **thresholds
        As for :func:`qala.settlement.classify_cells`.
    nodata
        Missing value of the population, where the file does not declare it.
    built_unit, land_unit
        m2, share or percent, where the files do not tell.
    cloud_optimised
        Write cloud-optimised GeoTIFFs with overviews.
    progress
        Called with strips done and in all.

    Returns
    -------
    list of pathlib.Path
        The files written.

    Raises
    ------
    InputError
        As :func:`qala.settlement.classify_cells`.
    """
    from qala.raster import RasterFile, open_raster, require_writable, write_rasters
    from qala.settlement import classify_cells, classify_levels

    for path in outputs.values():
        require_writable(path)
    people = open_raster(population, "population", nodata=nodata, chunk=chunk)
    others = {
        "built": None if built is None else open_raster(built, "built", unit=built_unit),
        "land": None if land is None else open_raster(land, "land", unit=land_unit),
    }
    rules = {"ruleset": ruleset, "chunk": chunk, **thresholds}
    if len(outputs) == 1:
        level = next(iter(outputs))
        found = {level: classify_cells(people, **others, level=level, **rules)}
    else:
        both = classify_levels(people, **others, **rules)
        found = {level: both[f"degurba_l{level}"] for level in outputs}
    files = [
        RasterFile(
            data=found[level],
            path=Path(path),
            tags=_tags(found[level], others),
            colours={k: v for k, v in COLOURS.items() if (k < 10) == (level == 1)},
        )
        for level, path in outputs.items()
    ]
    return write_rasters(files, cloud_optimised=cloud_optimised, progress=progress)


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
