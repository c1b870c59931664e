"""Make the sample region: southern Kazakhstan around Turkistan, on GHSL's 1 km grid.

Settlements, their populations and the units' totals are published figures; the
grids of population, built-up surface and land are modelled from them and carry
the tag SYNTHETIC=yes. See README.md beside this script.

    python data/sample/make_sample.py --data FOLDER [--out FOLDER]

FOLDER holds the folder ``kazakhstan`` of the reference data; the environment
variable QALA_REFERENCE_DATA names it as well.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from scipy.ndimage import gaussian_filter

from qala.census import Spread
from qala.kazakhstan import OSM_NOTICE, Turkistan, around, populate, prepare_turkistan
from qala.raster import write_raster
from qala.units import coverage

log = logging.getLogger("qala.sample")

SEED = 2026
EPOCHS = (2023, 2026)
#: metres; Visvalingam-Whyatt on the edges that units share
SIMPLIFY_TOLERANCE = 300.0
MARGIN = 5000.0
PEOPLE_NODATA = -200.0
AREA_NODATA = 4_294_967_295.0

#: Approximate outline of the Shardara reservoir (degrees): no source of water bodies is
#: at hand, so it is drawn by hand into the gap that settlements leave.
SHARDARA = [
    (68.00, 41.20), (68.06, 41.225), (68.17, 41.185), (68.25, 41.155), (68.40, 41.115),
    (68.52, 41.085), (68.50, 41.055), (68.35, 41.06), (68.20, 41.075), (68.05, 41.10),
    (68.00, 41.12),
]  # fmt: skip

#: Built-up share of land by people per km² of land. The exponent is that of GHS-BUILT-S
#: against GHS-POP (R2023A, E2020) over the cells of Belgium with more than 300 people.
#: The level: 0.56 built-up at 3,574 people per km² (median of the 27 urban centres of
#: Kazakhstan in GHS-UCDB R2019A), brought from R2019A to R2023A by the ratio of their
#: thresholds for urban centres, 0.20 / 0.50.
BUILT_EXPONENT = 0.58
BUILT_AT = (3574.0, 0.56 * 0.20 / 0.50)

#: Buildings that nobody lives in: a share of what stands within some km, uneven as the field
#: above but drawn apart. An assumption; without it the built-up rule would change nothing.
#: Homes then are the rest of the level above.
HOME_SHARE = 0.75
WORK_SHARE = 0.4
WORK_KM = 1.5
WORK_TEXTURE = 0.8
WORK_LEAST = 0.002

#: The growth of Turkistan since 2023 stands half inside the old footprint, half in a new
#: quarter at its eastern edge, built ahead of its people. An assumption, so that the
#: table of change has every kind of growth to tell.
TURKISTAN = "kz.61.10"
SHYMKENT = "kz.79"
NEW_QUARTER = (68.315, 43.272)
NEW_QUARTER_SHARE = 0.5
NEW_QUARTER_BUILT = 0.25
NEW_QUARTER_RADIUS = 1500.0
#: undated tag of OpenStreetMap: BNS publishes no 2026 figure for Shymkent in the source
SHYMKENT_2026 = 1_222_055

#: Cities are no discs: where people stand varies by a smooth random field, the exponential of
#: a normal with this standard deviation, correlated over these distances (km). An assumption.
TEXTURE = 0.5
TEXTURE_KM = (1.0, 3.0)

LICENCE = "ODbL 1.0 (derived from OpenStreetMap); statistics of BNS"


@dataclass(frozen=True)
class Region:
    """Everything of the sample, before it is written."""

    units: gpd.GeoDataFrame
    settlements: gpd.GeoDataFrame
    official: pd.DataFrame
    grids: dict[str, xr.DataArray]
    unmet: list[str]


def make(folder: Path) -> Region:
    """Build the region from the source files."""
    source = prepare_turkistan(folder, seed=SEED)
    units = generalise(source.units)
    grid = around(units, margin=MARGIN)
    inside = _inside(units, grid)
    land = land_area(grid)
    texture = uneven(grid, SEED, TEXTURE)
    works = uneven(grid, SEED + 1, WORK_TEXTURE)
    settlements = settlements_by_epoch(source)
    grids = {"GHS_LAND_E2018": land.where(inside)}
    unmet: list[str] = []
    built_before: xr.DataArray | None = None
    for epoch in EPOCHS:
        points = settlements[settlements["epoch"] == epoch]
        data = source._replace(
            units=units, places=points, official=_with_shymkent(source.official, epoch)
        )
        done = populate(data, grid=grid, land=land * texture, spread=Spread(), epoch=epoch)
        unmet += [f"{unit} in {epoch}" for unit in done.unmet["unit"]]
        built = built_up(done.population, land, works, new_quarter=epoch == EPOCHS[-1])
        if built_before is not None:
            # GHS-BUILT-S never shrinks from one epoch to the next
            built = xr.where(built < built_before, built_before, built)
        built_before = built
        grids[f"GHS_POP_E{epoch}"] = done.population
        grids[f"GHS_BUILT_S_E{epoch}"] = built
    return Region(units, settlements, source.official, grids, unmet)


def generalise(units: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Simplify boundaries together, so that neighbours still share their edges."""
    out = units.copy()
    shapes = shapely.coverage_simplify(units.geometry.to_numpy(), SIMPLIFY_TOLERANCE)
    # whole metres: the same rounding on both sides of an edge, and the same file anywhere
    shapes = shapely.transform(shapes, np.round)
    if not (shapely.is_valid(shapes).all() and shapely.coverage_is_valid(shapes)):
        raise SystemExit("generalised units overlap or are invalid: lower SIMPLIFY_TOLERANCE")
    out["geometry"] = shapes
    return out


def land_area(grid: GeoBox) -> xr.DataArray:
    """Return m² of land per cell: all of it but the drawn reservoir."""
    water = gpd.GeoDataFrame(
        {"unit": ["reservoir"]}, geometry=[shapely.Polygon(SHARDARA)], crs=4326
    ).to_crs(grid.crs)
    share = _sum_over_units(water, grid)
    return _array(np.round((1.0 - share) * 1e6), grid, "land", "m2")


def uneven(grid: GeoBox, seed: int, deviation: float) -> xr.DataArray:
    """Return a smooth random field around 1: things stand denser here than there."""
    noise = np.random.default_rng(seed).standard_normal((len(TEXTURE_KM), *grid.shape))
    smooth = [gaussian_filter(n, km) for n, km in zip(noise, TEXTURE_KM, strict=True)]
    normal = sum(s / s.std() for s in smooth) / np.sqrt(len(smooth))
    return _array(np.exp(deviation * normal), grid, "texture", "1")


def settlements_by_epoch(source: Turkistan) -> gpd.GeoDataFrame:
    """Return settlements of the first epoch, and of the second grown with their unit."""
    first = source.places.assign(epoch=EPOCHS[0])
    official = source.official.set_index(["epoch", "unit"])["population"].astype("float64")
    ratio = official.loc[EPOCHS[1]] / official.loc[EPOCHS[0]]
    second = first.assign(
        epoch=EPOCHS[1],
        population=(first["population"] * first["unit"].map(ratio)).round(),
        source="modelled: figure of 2023 grown with its unit",
        modelled="yes",
        year=pd.array([pd.NA] * len(first), dtype="Int64"),
    )
    shymkent = second["unit"] == SHYMKENT
    second.loc[shymkent, "population"] = SHYMKENT_2026
    second.loc[shymkent, "source"] = "OpenStreetMap, tag population (undated)"
    second.loc[shymkent, "modelled"] = "no"
    city = second["unit"] == TURKISTAN
    before = float(first.loc[first["unit"] == TURKISTAN, "population"].sum())
    moved = round((float(second.loc[city, "population"].sum()) - before) * NEW_QUARTER_SHARE)
    quarter = (
        second[city]
        .head(1)
        .assign(
            id="model.turkistan-new-quarter",
            name_kk="Түркістан, жаңа орам",
            name_ru="Туркестан, новый квартал",
            name_en="Turkistan, new quarter",
            place="quarter",
            population=moved,
            source="modelled: half of the city's growth since 2023",
            source_id="",
            geometry=[shapely.Point(NEW_QUARTER)],
        )
    )
    second.loc[city, "population"] = second.loc[city, "population"] - moved
    both = pd.concat([first, second, quarter], ignore_index=True)
    both["population"] = both["population"].astype("int64")
    both = both.sort_values(
        ["epoch", "unit", "population", "id"], ascending=[True, True, False, True]
    )
    return both.reset_index(drop=True)


def built_up(
    population: xr.DataArray, land: xr.DataArray, works: xr.DataArray, *, new_quarter: bool
) -> xr.DataArray:
    """Return m² of built-up surface per cell: homes by density, and what stands near them."""
    ground = land.values / 1e6
    people = population.values
    with np.errstate(invalid="ignore", divide="ignore"):
        density = np.where(ground > 0, people / ground, 0.0)
    at, share_there = BUILT_AT
    share = np.where(
        density >= 1.0, HOME_SHARE * share_there * (density / at) ** BUILT_EXPONENT, 0.0
    )
    near = WORK_SHARE * gaussian_filter(np.nan_to_num(share), WORK_KM) * works.values
    share = share + np.where(near >= WORK_LEAST, near, 0.0)
    share = np.where(np.isnan(people), np.nan, np.minimum(share, 0.8))
    if new_quarter:
        spot = gpd.GeoSeries([shapely.Point(NEW_QUARTER)], crs=4326).to_crs("ESRI:54009")
        disc = gpd.GeoDataFrame({"unit": ["quarter"]}, geometry=spot.buffer(NEW_QUARTER_RADIUS))
        part = _sum_over_units(disc, population.odc.geobox)
        share = np.where(np.isnan(people), np.nan, np.maximum(share, part * NEW_QUARTER_BUILT))
    return population.copy(data=np.round(share * ground * 1e6)).rename("built").assign_attrs(
        units="m2"
    )  # fmt: skip


def write(region: Region, out: Path) -> None:
    """Write every file; each appears whole or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    places = region.settlements
    table = pd.DataFrame(places.drop(columns="geometry"))
    table.insert(5, "lon", places.geometry.x.round(6))
    table.insert(6, "lat", places.geometry.y.round(6))
    columns = ["id", "unit", "epoch", "name_kk", "name_ru", "name_en", "place", "lon", "lat",
               "population", "year", "source", "source_id", "modelled"]  # fmt: skip
    _write_csv(table[columns], out / "settlements.csv")
    _write_csv(region.official, out / "official.csv")
    _write_units(region.units, out / "units.gpkg")
    for name, grid in region.grids.items():
        area = name.startswith(("GHS_BUILT", "GHS_LAND"))
        nodata = AREA_NODATA if area else PEOPLE_NODATA
        values = grid.fillna(nodata).astype("uint32" if area else "float32")
        write_raster(
            values,
            out / f"{name}_SYNTHETIC_54009_1000.tif",
            nodata=nodata,
            tags={
                "SYNTHETIC": "yes",
                "units": "m2" if area else "people",
                "seed": str(SEED),
                "source": f"data/sample/make_sample.py of qala, from BNS and OSM; {OSM_NOTICE}",
                "licence": LICENCE,
                "TIFFTAG_DATETIME": "2026:01:01 00:00:00",
            },
        )


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    work = path.with_name(f".{path.name}.{os.getpid()}")
    table.to_csv(work, index=False, lineterminator="\n")
    work.replace(path)


def _write_units(units: gpd.GeoDataFrame, path: Path) -> None:
    import pyogrio

    work = path.with_name(f".{os.getpid()}.{path.name}")
    # a fixed time of change, so that the same input gives the same file
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": "2026-01-01T00:00:00.000Z"})
    pyogrio.write_dataframe(
        units,
        work,
        layer="units",
        driver="GPKG",
        VERSION="1.2",
        layer_metadata={
            "attribution": OSM_NOTICE,
            "licence": "ODbL 1.0",
            "generalised": f"shared edges simplified, tolerance {SIMPLIFY_TOLERANCE:g} m",
        },
    )
    work.replace(path)


def _with_shymkent(official: pd.DataFrame, epoch: int) -> pd.DataFrame:
    rows = official[official["epoch"] == epoch]
    if SHYMKENT in set(rows["unit"]):
        return rows
    extra = {"unit": [SHYMKENT], "epoch": [epoch], "population": [SHYMKENT_2026]}
    return pd.concat([rows[list(extra)], pd.DataFrame(extra)], ignore_index=True)


def _inside(units: gpd.GeoDataFrame, grid: GeoBox) -> xr.DataArray:
    """Tell which cells any unit touches: only these hold values."""
    return _array(_sum_over_units(units, grid) > 0, grid, "inside", "1")


def _sum_over_units(units: gpd.GeoDataFrame, grid: GeoBox) -> np.ndarray:
    parts = coverage(units, grid, id="unit").matrix
    return np.clip(np.asarray(parts.sum(axis=0)).reshape(grid.shape), 0.0, 1.0)


def _array(values: np.ndarray, grid: GeoBox, name: str, units: str) -> xr.DataArray:
    return xr.DataArray(
        values, coords=xr_coords(grid), dims=("y", "x"), name=name, attrs={"units": units}
    )


def _tell(region: Region) -> None:
    for epoch in EPOCHS:
        rows = region.settlements[region.settlements["epoch"] == epoch]
        real = rows["modelled"] == "no"
        print(
            f"{epoch}: {rows.loc[real, 'population'].sum():,} people of {real.sum()} settlements "
            f"with a published figure, {rows.loc[~real, 'population'].sum():,} of "
            f"{(~real).sum()} modelled; grid {float(region.grids[f'GHS_POP_E{epoch}'].sum()):,.0f}"
        )
    if region.unmet:
        print("unmet:", ", ".join(region.unmet))


def main(arguments: list[str] | None = None) -> int:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("QALA_REFERENCE_DATA"))
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent)
    options = parser.parse_args(arguments)
    if not options.data:
        parser.error("name the reference data with --data or QALA_REFERENCE_DATA")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    region = make(Path(options.data) / "kazakhstan")
    write(region, options.out)
    _tell(region)
    return 0


if __name__ == "__main__":
    sys.exit(main())
