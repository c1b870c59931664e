"""Inputs of a run: opened, cut to the region, summed to 1 km, reconciled with totals."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from qala.errors import InputError, Problems

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    import xarray as xr

    from qala.config import Gridded, Run
    from qala.raster import Quantity

log = logging.getLogger("qala")

#: what an epoch is made of
LAYERS: tuple[Literal["population", "built", "land"], ...] = ("population", "built", "land")


@dataclass(frozen=True)
class Inputs:
    """Opened inputs of an urbanisation run, by epoch.

    Attributes
    ----------
    population, built, land
        Rasters on one grid of 1 km; built and land may be None.
    units, official, places
        Territorial units, checked official figures, named points, or None.
    factors
        Correction factors of reconciled epochs.
    """

    population: dict[Any, xr.DataArray]
    built: dict[Any, xr.DataArray | None]
    land: dict[Any, xr.DataArray | None]
    units: gpd.GeoDataFrame | None
    official: pd.DataFrame | None
    places: gpd.GeoDataFrame | None
    factors: dict[Any, xr.DataArray]


def epochs_of(sources: Sequence[str]) -> dict[Any, str]:
    """Tell epochs of files given as ``2020=file``, or by GHSL's file names.

    Examples
    --------
    >>> epochs_of(["2015=a.tif", "GHS_POP_E2020_GLOBE_R2023A_54009_1000_V1_0.tif"])
    {2015: 'a.tif', 2020: 'GHS_POP_E2020_GLOBE_R2023A_54009_1000_V1_0.tif'}
    """
    found: dict[Any, str] = {}
    for source in sources:
        match = re.match(r"(\d{4})=(.+)", source) or re.search(r"_E(\d{4})_", Path(source).name)
        path = source.split("=", 1)[1] if re.match(r"\d{4}=", source) else source
        epoch = int(match.group(1)) if match else None
        if epoch in found:
            named = f"epoch {epoch}" if epoch else "no epoch"
            raise InputError(
                f"{path} and {found[epoch]} have {named}", "one file an epoch",
                "write 2020=file.tif",
            )  # fmt: skip
        found[epoch] = path
    return found


def open_inputs(workflow: Run, *, units: gpd.GeoDataFrame | None = None) -> Inputs:
    """Open, cut, sum to 1 km, and reconcile what the workflow names.

    Parameters
    ----------
    workflow
        From :func:`qala.config.load_workflow`.
    units
        Its units, where they have been read already.
    """
    given = workflow.inputs
    if given.prepared is not None:
        return _open_prepared(workflow)
    units = units_of(workflow) if units is None else units
    land = _open_epochs(workflow, "land")
    if sources_of(workflow, "population"):
        population = _open_epochs(workflow, "population")
    else:
        population = _population_from_points(workflow, units, land)
    population, units = cut(workflow, population, units)
    data = _with_layers(population, _open_epochs(workflow, "built"), land)
    factors: dict[Any, xr.DataArray] = {}
    if given.census is not None and given.census.totals and units is not None:
        population, factors = _reconciled(workflow, population, units, data.land)
    return Inputs(
        population, data.built, data.land, units, official_of(workflow, units),
        None if given.places is None else read_places(given.places), factors,
    )  # fmt: skip


def units_of(workflow: Run) -> gpd.GeoDataFrame | None:
    """Read the territorial units of a workflow, whole."""
    from qala.vector import read_units

    given = workflow.inputs.units
    if given is None:
        return None
    extra = {} if given.max_overlap is None else {"max_overlap": given.max_overlap}
    return read_units(
        given.path, id=given.id, layer=given.layer, crs=given.crs, repair=given.repair, **extra
    )


def official_of(workflow: Run, units: gpd.GeoDataFrame | None) -> pd.DataFrame | None:
    """Read the official figures of a workflow; with a box those of the units in it alone."""
    from qala.rates import read_official

    given = workflow.inputs
    if given.official is None or given.units is None:
        return None
    official = read_official(given.official, given.units.id)
    if units is not None and workflow.bbox is not None:
        # units outside the cut are no mistake of the table
        official = official[official["unit"].isin(units[given.units.id])]
    return official


def sources_of(workflow: Run, quantity: Quantity) -> dict[Any, Any]:
    """Return the files of a quantity by epoch, in order of time."""
    source = getattr(workflow.inputs, quantity)
    if source is None:
        return {}
    if not isinstance(source, dict):
        name = source if isinstance(source, str) else source[0]
        epoch = next(iter(epochs_of([Path(name).name])))
        source = {epoch if quantity == "population" else None: source}
    return dict(sorted(source.items(), key=lambda item: item[0] or 0))


def at_epoch(found: Mapping[Any, Any], epoch: Any, name: str) -> Any:
    """Return what serves an epoch: its own, the only one, or None where there is none at all.

    Raises
    ------
    InputError
        When there are several and none is of the epoch.
    """
    if not found:
        return None
    if epoch in found:
        return found[epoch]
    if len(found) == 1:
        return next(iter(found.values()))
    raise InputError(
        f"{name} has no file for epoch {epoch}",
        f"one for each of the population's epochs, or one for all; it has {list(found)}",
    )


def of_epoch(workflow: Gridded, epoch: Any) -> Gridded:
    """Return the workflow with the rasters of one epoch alone."""
    changes: dict[str, Any] = {"population": {epoch: sources_of(workflow, "population")[epoch]}}
    for name in LAYERS[1:]:
        source = at_epoch(sources_of(workflow, name), epoch, name)
        changes[name] = None if source is None else {epoch: source}
    return with_inputs(workflow, **changes)


def with_inputs(workflow: Gridded, **changes: Any) -> Gridded:
    """Return the workflow with other inputs."""
    return workflow.model_copy(update={"inputs": workflow.inputs.model_copy(update=changes)})


def there(workflow: Gridded) -> tuple[Gridded, dict[str, str]]:
    """Leave out epochs of which a file is missing, as long as one epoch is left.

    Returns
    -------
    (Workflow, dict)
        The workflow, and the epochs left out with the reason.
    """
    epochs = sources_of(workflow, "population")
    missing: dict[str, str] = {}
    for epoch in epochs:
        alone = of_epoch(workflow, epoch)
        for name in LAYERS:
            for source in sources_of(alone, name).values():
                named = [source] if isinstance(source, str) else source
                gone = [
                    f for f in named
                    if ":/" not in f and not f.startswith("/vsi") and not Path(f).exists()
                ]  # fmt: skip
                if gone:
                    missing.setdefault(str(epoch), f"{', '.join(gone)} does not exist.")
    kept = {e: s for e, s in epochs.items() if str(e) not in missing}
    if not missing or not kept:
        return workflow, {}
    changes: dict[str, Any] = {"population": kept}
    for name in LAYERS[1:]:
        found = sources_of(workflow, name)
        if len(found) > 1:
            changes[name] = {e: s for e, s in found.items() if e in kept}
    return with_inputs(workflow, **changes), missing


def open_source(workflow: Run, files: Any, quantity: Quantity) -> xr.DataArray:
    """Open a raster, or tiles of one, as the workflow says; cells as they are."""
    from qala.raster import open_raster

    return open_raster(
        files,
        quantity,
        nodata=workflow.inputs.population_nodata if quantity == "population" else None,
        unit=getattr(workflow.inputs, f"{quantity}_unit", None),
        chunk=workflow.cells.chunk,
    )


def fold_of(box: Any) -> int:
    """Return how many cells of a grid make one of 1 km, along a side; 1 where none are finer."""
    size = box.transform.a
    fold = round(1000 / size) if size else 0
    return fold if fold > 1 and abs(fold * size - 1000) < 1e-6 else 1


def _open_epochs(workflow: Run, quantity: Quantity) -> dict[Any, Any]:
    """Open the rasters of a quantity, summed to 1 km where they are finer."""
    from qala.grid import geobox_of
    from qala.raster import aggregate

    opened = {}
    for epoch, files in sources_of(workflow, quantity).items():
        raster = open_source(workflow, files, quantity)
        fold = fold_of(geobox_of(raster))
        if fold > 1:
            log.info("%s: cells summed to 1 km", quantity)
            raster = aggregate(raster, fold)
        opened[epoch] = raster
    return opened


def open_grids(workflow: Run) -> Inputs:
    """Open the rasters of all epochs on one grid of 1 km, cut to the box; nothing else."""
    built, land = _open_epochs(workflow, "built"), _open_epochs(workflow, "land")
    return _with_layers(open_population(workflow), built, land)


def open_population(workflow: Run) -> dict[Any, xr.DataArray]:
    """Open the people of all epochs as :func:`open_grids` does, without the other rasters."""
    population, _ = cut(workflow, _open_epochs(workflow, "population"), None)
    return population


def _with_layers(
    population: dict[Any, Any], built: Mapping[Any, Any], land: Mapping[Any, Any], **more: Any
) -> Inputs:
    """Put built-up and land on the population's window, epoch by epoch."""
    like = next(iter(population.values()))

    def placed(found: Mapping[Any, Any], name: str) -> dict[Any, Any]:
        at = {e: at_epoch(found, e, name) for e in population}
        return {e: None if r is None else _to_window(r, like, name) for e, r in at.items()}

    return Inputs(
        population, placed(built, "built"), placed(land, "land"),
        **{"units": None, "official": None, "places": None, "factors": {}, **more},
    )  # fmt: skip


def _to_window(raster: xr.DataArray, like: xr.DataArray, name: str) -> xr.DataArray:
    """Cut a raster of the same grid to the window of another."""
    from qala.grid import geobox_of, require_same_grid

    box, target = geobox_of(raster), geobox_of(like)
    if box.shape == target.shape:
        return raster
    size = box.transform.a
    row = (box.transform.f - target.transform.f) / size
    col = (target.transform.c - box.transform.c) / size
    fits = (
        abs(size - target.transform.a) < 1e-6
        and abs(row - round(row)) < 1e-3
        and abs(col - round(col)) < 1e-3
        and round(row) >= 0
        and round(col) >= 0
        and round(row) + target.shape[0] <= box.shape[0]
        and round(col) + target.shape[1] <= box.shape[1]
    )
    if not fits:
        require_same_grid(target, box, name)
    rows = slice(round(row), round(row) + target.shape[0])
    cols = slice(round(col), round(col) + target.shape[1])
    return raster.isel(y=rows, x=cols)


def cut(
    workflow: Run, population: dict[Any, Any], units: gpd.GeoDataFrame | None
) -> tuple[dict[Any, Any], gpd.GeoDataFrame | None]:
    """Cut rasters to the workflow's box, and units to those that it touches."""
    if workflow.bbox is None:
        return population, units
    import shapely
    from odc.geo.geom import BoundingBox

    from qala.grid import geobox_of

    box = geobox_of(next(iter(population.values())))
    area = BoundingBox(*workflow.bbox, crs="EPSG:4326").polygon.segmented(0.1).to_crs(box.crs)
    left, bottom, right, top = area.boundingbox.bbox
    t = box.transform
    rows = slice(
        max(0, math.floor((t.f - top) / t.a)), min(box.shape[0], math.ceil((t.f - bottom) / t.a))
    )
    cols = slice(
        max(0, math.floor((left - t.c) / t.a)), min(box.shape[1], math.ceil((right - t.c) / t.a))
    )
    if rows.start >= rows.stop or cols.start >= cols.stop:
        raise InputError(
            f"bbox {workflow.bbox} lies outside the population grid",
            "west, south, east, north in degrees, over the grid",
        )
    cut = {e: p.isel(y=rows, x=cols) for e, p in population.items()}
    if units is not None:
        inner = geobox_of(next(iter(cut.values()))).extent.geom
        shapes = units.geometry.to_crs(str(box.crs))
        # a unit of which a sliver is left would get a share of that sliver
        inside = shapely.area(shapely.intersection(shapes.to_numpy(), inner)) >= 0.5 * shapes.area
        left_out = int((~inside).sum())
        if left_out:
            log.info("%d units lie outside the box by half or more and are left out", left_out)
        units = units[inside.to_numpy() if hasattr(inside, "to_numpy") else inside]
        if not len(units):
            raise InputError("no unit lies within the bbox by half", "a larger box")
    return cut, units


def _population_from_points(
    workflow: Run, units: gpd.GeoDataFrame | None, land: Mapping[Any, Any]
) -> dict[Any, xr.DataArray]:
    """Make the population grid from census points around the units."""
    from qala.census import grid_from_points
    from qala.kazakhstan import around

    census = workflow.inputs.census
    assert census is not None
    assert census.points is not None
    assert units is not None
    points = read_places(census.points)
    box = around(units.to_crs("ESRI:54009"))
    ground = next(iter(land.values())) if land else None
    groups = points.groupby("epoch") if "epoch" in points.columns else [(None, points)]
    return {
        (None if epoch is None else int(epoch)): grid_from_points(
            part, box, value=census.value, method=census.spread, land=ground
        )
        for epoch, part in groups
    }


def _reconciled(
    workflow: Run,
    population: dict[Any, xr.DataArray],
    units: gpd.GeoDataFrame,
    land: Mapping[Any, Any],
) -> tuple[dict[Any, xr.DataArray], dict[Any, xr.DataArray]]:
    """Scale the grids to the published totals, epoch by epoch."""
    from qala.census import reconcile

    census = workflow.inputs.census
    assert census is not None
    assert census.totals is not None
    assert workflow.inputs.units is not None
    key = workflow.inputs.units.id
    table = _read_csv(Path(census.totals), dtype={"unit": str})
    problems = Problems(Path(census.totals).name)
    for column in ("unit", "population"):
        if column not in table.columns:
            problems.add(f"no column {column!r}", "unit, [epoch], population")
    problems.raise_if_any()
    done, factors = {}, {}
    for epoch, people in population.items():
        rows = table
        if "epoch" in table.columns and epoch is not None:
            rows = table[table["epoch"] == epoch]
            if rows.empty:
                log.warning("%s has no totals for %s; its grid stays", census.totals, epoch)
                done[epoch] = people
                continue
        totals = rows.set_index("unit")["population"]
        wanted = units.assign(population=units[key].astype(str).map(totals))
        result = reconcile(
            people.compute(), wanted, id=key, place=census.place, land=land.get(epoch)
        )
        done[epoch], factors[epoch] = result.population, result.factors
    return done, factors


def _open_prepared(workflow: Run) -> Inputs:
    """Bring a prepared set of sources together: points to grid, grid to totals."""
    from qala.kazakhstan import populate, prepare_turkistan

    sources = prepare_turkistan(str(workflow.data))
    land = _open_epochs(workflow, "land")
    ground = next(iter(land.values())) if land else None
    epoch = 2023
    result = populate(sources, land=ground, epoch=epoch)
    official = sources.official[sources.official["epoch"] == epoch]
    return Inputs(
        population={epoch: result.population},
        built={epoch: None},
        land={epoch: ground},
        units=sources.units,
        official=official,
        places=sources.places,
        factors={epoch: result.factors},
    )


def read_places(path: str | Path) -> gpd.GeoDataFrame:
    """Read named points: a vector file, or a CSV with ``lon`` and ``lat`` in degrees.

    Raises
    ------
    InputError
        When the file is absent or a table lacks its coordinates.
    """
    import geopandas as gpd
    import pandas as pd
    import pyogrio.errors

    file = Path(path)
    if not file.exists():
        raise InputError(f"{file} does not exist", "a file of places")
    if file.suffix.lower() != ".csv":
        try:
            return gpd.read_file(file)
        except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
            raise InputError(f"{file} cannot be read ({error})", "a vector file or CSV") from error
    table = _read_csv(file)
    if not {"lon", "lat"} <= set(table.columns):
        raise InputError(
            f"{file.name} has the columns {', '.join(map(str, table.columns))}",
            "lon and lat in degrees (WGS 84)",
            "rename the columns of coordinates",
        )
    place = {c: pd.to_numeric(table[c], errors="coerce") for c in ("lon", "lat")}
    wrong = place["lon"].isna() | place["lat"].isna()
    wrong |= (place["lon"].abs() > 180) | (place["lat"].abs() > 90)
    if wrong.any():
        raise InputError(
            f"{file.name}: {int(wrong.sum())} rows have no place in degrees, first row "
            f"{int(np.flatnonzero(wrong)[0]) + 1}",
            "lon from -180 to 180 and lat from -90 to 90",
            "mend these rows, or swap the columns if they are the wrong way round",
        )
    points = gpd.points_from_xy(place["lon"], place["lat"])
    return gpd.GeoDataFrame(table, geometry=points, crs="EPSG:4326")


def _read_csv(file: Path, **options: Any) -> pd.DataFrame:
    """Read a table, or say why it can't be read."""
    import pandas as pd

    try:
        table: pd.DataFrame = pd.read_csv(file, **options)
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(
            f"{file} cannot be read as a table ({error})",
            "a CSV with a line of column names",
            "save it as UTF-8 CSV with commas",
        ) from error
    return table


def places_at(places: gpd.GeoDataFrame | None, epoch: Any) -> gpd.GeoDataFrame | None:
    """Return the places of an epoch, where the table tells epochs apart."""
    if places is None or "epoch" not in places.columns or epoch is None:
        return places
    return places[places["epoch"] == epoch]
