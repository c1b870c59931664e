"""Make grids of Kazakhstan's real size for the national workflow. SYNTHETIC: do not plan with them.

Settlements of seeded sizes are laid into the 20 regions and grow from epoch to
epoch; each region's people add up to its official figure of 2023. With the
folder of reference data at hand the regions are the real ones (OpenStreetMap);
without it they are made up too.

    python benchmarks/make_national.py OUT [--reference FOLDER] [--epochs 2003,2008,…]
                                       [--resolution 1000] [--share 1.0] [--seed 1]

``--resolution 100`` makes 30,000 × 17,000 cells; ``--share 0.25`` a quarter of the area.
"""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
import shapely
from rasterio.features import rasterize
from rasterio.windows import Window

from qala.grid import GHSL_CRS, ghsl_geobox
from qala.resources import resource

BASE = 2023
EPOCHS = (2003, 2008, 2013, 2018, 2023)
BLOCK = 512
#: the country's extent where no boundaries are at hand, ESRI:54009, metres
EXTENT = (3_760_000.0, 4_850_000.0, 6_760_000.0, 6_550_000.0)
NOTICE = "SYNTHETIC: modelled by qala on GHSL's grid; not an observation"


def main() -> None:
    """Write rasters, units and official figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--reference", type=Path, default=os.environ.get("QALA_REFERENCE_DATA"))
    parser.add_argument("--epochs", default=",".join(map(str, EPOCHS)))
    parser.add_argument("--resolution", type=int, default=1000, choices=(100, 1000))
    parser.add_argument("--share", type=float, default=1.0, help="of the country's area, 0.25 to 4")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(options.seed)
    units, official = regions(options.reference, rng)
    if options.share != 1.0:
        # the same country stretched, so that cells change in number and nothing else does
        fold = math.sqrt(options.share)
        units["geometry"] = units.scale(fold, fold, origin=(EXTENT[0], EXTENT[3]))
    epochs = [int(e) for e in options.epochs.split(",")]
    units.to_file(options.out / "units.gpkg", driver="GPKG")
    official.to_csv(options.out / "official.csv", index=False)
    places = settlements(units, official, rng)
    write_grids(options.out, units, places, epochs, options.resolution, rng)
    people = official["population"].sum()
    print(f"{options.out}: {len(units)} units, {len(places)} settlements, {people:,.0f} people")
    print(f"QALA_NATIONAL_DATA={options.out.resolve()} qala run national")


def regions(
    reference: Path | str | None, rng: np.random.Generator
) -> tuple[gpd.GeoDataFrame, pd.DataFrame]:
    """Return the 20 regions and their official figures."""
    if reference and (Path(reference) / "kazakhstan").is_dir():
        from qala.kazakhstan import prepare_regions

        units, official = prepare_regions(Path(reference) / "kazakhstan")
        return units.to_crs(GHSL_CRS), official
    names = pd.read_csv(resource("catalogs", "kazakhstan", "oblasts.csv"))
    left, bottom, right, top = EXTENT
    seeds = np.column_stack(
        [rng.uniform(left, right, len(names)), rng.uniform(bottom, top, len(names))]
    )
    cells = shapely.voronoi_polygons(shapely.multipoints(seeds), extend_to=shapely.box(*EXTENT))
    parts = shapely.intersection(shapely.get_parts(cells), shapely.box(*EXTENT))
    units = gpd.GeoDataFrame(names.drop(columns="boundary_id"), geometry=parts, crs=GHSL_CRS)
    total = rng.lognormal(13.3, 0.5, len(units)).round()
    urban = (total * rng.uniform(0.35, 0.85, len(units))).round()
    official = pd.DataFrame({
        "unit": units["unit"], "epoch": BASE, "population": total.astype(int),
        "urban": urban.astype(int), "rural": (total - urban).astype(int), "source": NOTICE,
    })  # fmt: skip
    return units, official


def settlements(
    units: gpd.GeoDataFrame, official: pd.DataFrame, rng: np.random.Generator
) -> pd.DataFrame:
    """Return settlements: place, people of the base year, growth a year.

    Sizes follow the rank-size rule within the urban and the rural people of a region.
    """
    rows = []
    counts = official[official["epoch"] == BASE].set_index("unit")
    for unit, shape in zip(units["unit"], units.geometry, strict=True):
        total = float(counts.at[unit, "population"])
        urban = float(np.nan_to_num(counts.at[unit, "urban"], nan=0.6 * total))
        towns = 1 if shape.area < 5e9 else max(3, round(urban / 60_000))
        villages = max(2, round((total - urban) / 900))
        size = np.concatenate([
            urban * _zipf(towns, 1.1), (total - urban) * _zipf(villages, 0.35),
        ])  # fmt: skip
        left, bottom, right, top = shape.bounds
        found = np.empty((0, 2))
        while len(found) < len(size):
            points = rng.uniform((left, bottom), (right, top), (4 * len(size), 2))
            inside = shapely.contains_xy(shape, points[:, 0], points[:, 1])
            found = np.vstack([found, points[inside]])
        place = found[: len(size)]
        if towns == 1:
            place[0] = shape.representative_point().coords[0]
        growth = rng.normal(-0.002, 0.012, len(size)) + 0.008 * np.log10(np.maximum(size, 10) / 1e3)
        rows.append(pd.DataFrame({
            "unit": unit, "x": place[:, 0], "y": place[:, 1], "people": size, "growth": growth
        }))  # fmt: skip
    return pd.concat(rows, ignore_index=True)


def _zipf(count: int, power: float) -> np.ndarray[Any, Any]:
    weight = 1.0 / np.arange(1, count + 1) ** power
    return weight / weight.sum()


def write_grids(
    out: Path,
    units: gpd.GeoDataFrame,
    places: pd.DataFrame,
    epochs: list[int],
    resolution: int,
    rng: np.random.Generator,
) -> None:
    """Write population and built-up of every epoch, and land, strip by strip."""
    left, bottom, right, top = units.total_bounds
    box = ghsl_geobox((left, bottom, right, top), resolution=resolution)
    # strips of whole kilometres, so that fine cells add up to the coarse ones
    height, width = box.shape
    print(f"{width:,} × {height:,} cells of {resolution} m")
    people, x, y, grow = _people(places, rng)
    col = np.floor((x - box.transform.c) / resolution).astype(np.int64)
    row = np.floor((box.transform.f - y) / resolution).astype(np.int64)
    inside = (col >= 0) & (col < width) & (row >= 0) & (row < height)
    order = np.argsort(row[inside], kind="stable")
    col, row, people, grow = (v[inside][order] for v in (col, row, people, grow))
    lakes = _lakes(units, rng)
    profile = {
        "driver": "GTiff", "height": height, "width": width, "count": 1, "crs": GHSL_CRS,
        "transform": box.transform, "tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK,
        "compress": "DEFLATE", "zlevel": 1, "bigtiff": "IF_SAFER",
    }  # fmt: skip
    area = float(resolution) ** 2
    names = {
        **{("pop", e): f"GHS_POP_E{e}_SYNTHETIC_54009_{resolution}.tif" for e in epochs},
        **{("built", e): f"GHS_BUILT_S_E{e}_SYNTHETIC_54009_{resolution}.tif" for e in epochs},
        ("land", 2018): f"GHS_LAND_E2018_SYNTHETIC_54009_{resolution}.tif",
    }
    kinds = {"pop": ("float32", -200.0, "people"), "built": ("uint32", 2**32 - 1, "m2"),
             "land": ("uint32", 2**32 - 1, "m2")}  # fmt: skip
    sinks = {}
    for key, name in names.items():
        dtype, nodata, unit = kinds[key[0]]
        sink = rasterio.open(out / name, "w", dtype=dtype, nodata=nodata, **profile)
        sink.update_tags(SYNTHETIC="yes", SOURCE_NOTICE=NOTICE)
        sink.set_band_unit(1, unit)
        sinks[key] = sink
    for first in range(0, height, BLOCK):
        rows = min(BLOCK, height - first)
        window = Window(0, first, width, rows)
        shape = (rows, width)
        move = box.transform * box.transform.translation(0, first)
        country = rasterize(units.geometry, shape, transform=move, dtype="uint8").astype(bool)
        wet = rasterize(lakes, shape, transform=move, dtype="uint8").astype(bool)
        a, b = np.searchsorted(row, [first, first + rows])
        cell = (row[a:b] - first) * width + col[a:b]
        lived = np.zeros(rows * width, bool)
        lived[cell] = True
        dry = ~wet | lived.reshape(shape)
        land = np.where(dry, area, 0)
        sinks["land", 2018].write(np.where(country, land, 2**32 - 1).astype("uint32"), 1,
                                  window=window)  # fmt: skip
        for epoch in epochs:
            now = people[a:b] * np.exp(grow[a:b] * (epoch - BASE))
            grid = np.bincount(cell, now, rows * width).reshape(shape)
            grid[~country] = -200
            sinks["pop", epoch].write(grid.astype("float32"), 1, window=window)
            dense = np.maximum(grid, 0) * (1e6 / area)
            share = np.minimum(0.75, 0.012 * np.power(dense, 0.42))
            built = np.where(country, (area * share).round(), 2**32 - 1).astype("uint32")
            sinks["built", epoch].write(built, 1, window=window)
    for sink in sinks.values():
        sink.close()


def _people(places: pd.DataFrame, rng: np.random.Generator) -> tuple[np.ndarray[Any, Any], ...]:
    """Return points of people around their settlements: people, x, y, growth."""
    size = places["people"].to_numpy()
    count = np.clip(size / 40, 1, 40_000).astype(int)
    index = np.repeat(np.arange(len(size)), count)
    # cities are denser: square metres a person falls with size
    spread = np.sqrt(size * 1e6 / np.clip(90 * size**0.28, 300, 5500)) / 2.4
    # as many in the middle as in any ring: a disc of falling density
    turn, far = rng.uniform(0, 2 * np.pi, len(index)), rng.gamma(1.6, 0.75, len(index))
    x = places["x"].to_numpy()[index] + spread[index] * far * np.cos(turn)
    y = places["y"].to_numpy()[index] + spread[index] * far * np.sin(turn)
    return (size / count)[index], x, y, places["growth"].to_numpy()[index]


def _lakes(units: gpd.GeoDataFrame, rng: np.random.Generator) -> list[Any]:
    left, bottom, right, top = units.total_bounds
    points = shapely.points(rng.uniform(left, right, 160), rng.uniform(bottom, top, 160))
    return list(shapely.buffer(points, rng.lognormal(8.6, 0.7, 160)))


if __name__ == "__main__":
    main()
