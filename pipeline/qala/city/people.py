"""People per building: a population grid spread by floor area, mass conserved.

Binary dasymetric mapping (Mennis 2003, doi:10.1111/0033-0124.10042) with floor
area as the weight.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qala.city.classes import building_class
from qala.city.heights import pixel_of
from qala.errors import InputError

if TYPE_CHECKING:
    import geopandas as gpd
    import shapely

log = logging.getLogger("qala")

Array = np.ndarray[Any, Any]

#: people of a cell without buildings move to the nearest cell that has some, up to here, metres:
#: grids built from satellite images and outlines drawn by hand lie a cell or two apart
REACH = 1000.0


@dataclass(frozen=True)
class PeopleReport:
    """Where the people of the area's cells went: they add up to ``total``.

    Attributes
    ----------
    total
        People in the area by the grid.
    placed
        People given to buildings.
    moved
        Of those, people from cells without buildings.
    unplaced
        People farther than the reach from any building.
    """

    total: float
    placed: float
    moved: float
    unplaced: float


def spread_people(
    table: gpd.GeoDataFrame,
    population: str | Path,
    area: shapely.Geometry | None = None,
    *,
    reach: float = REACH,
) -> tuple[Array, PeopleReport]:
    """Spread each cell's people over its buildings by floor area.

    Parameters
    ----------
    table
        Buildings, projected CRS in metres; ``floor_area`` (m², NaN for rows whose
        parts carry it) and ``kind``.
    population
        GeoTIFF of people per cell.
    area
        Area in EPSG:4326; cells on its border count by the share inside. Without
        one, only cells with buildings count.
    reach
        How far people of cells without buildings may move, metres.

    Returns
    -------
    tuple
        People of each row (NaN where ``floor_area`` is), and what was placed.

    Raises
    ------
    InputError
        When the grid has no CRS, holds negative numbers, or lies elsewhere.

    Notes
    -----
    Within a cell homes get all people; where there are none, every building but
    outbuildings; where these are all, they.
    """
    import rasterio
    from pyproj import Transformer
    from rasterio.windows import Window

    weight = np.nan_to_num(table["floor_area"].to_numpy(float))
    live = np.flatnonzero(weight > 0)
    centre = table.geometry.iloc[live].representative_point()
    with rasterio.open(population) as src:
        if src.crs is None:
            raise InputError(f"{population} has no CRS", "a georeferenced population grid")
        move = Transformer.from_crs(table.crs, src.crs, always_xy=True)
        x, y = move.transform(centre.x.to_numpy(), centre.y.to_numpy())
        col, row = (np.floor(v).astype(int) for v in pixel_of(src.transform, x, y))
        inside = (col >= 0) & (row >= 0) & (col < src.width) & (row < src.height)
        if not inside.any():
            raise InputError(
                f"{population} does not reach the area", "a population grid of the city"
            )
        c0, c1, r0, r1 = _window(src, col[inside], row[inside], area)
        data = src.read(1, window=Window(c0, r0, c1 - c0, r1 - r0), masked=True).astype(float)
        people = np.nan_to_num(np.ma.filled(data, 0.0))
        if (people < 0).any():
            raise InputError(
                f"{population} holds {people.min():g} people in a cell",
                "0 or more", "declare the missing value with gdal_edit.py -a_nodata",
            )  # fmt: skip
        transform = src.window_transform(Window(c0, r0, c1 - c0, r1 - r0))
        cell = float(np.sqrt(abs(transform.a * transform.e)))
        projected = src.crs.is_projected
        if area is not None:
            people = people * _share(area, people.shape, transform, src.crs)
    index = np.where(inside, (row - r0) * (c1 - c0) + col - c0, -1)
    here = (index >= 0) & (index < people.size)
    flat = people.ravel().copy()
    built = np.zeros(people.size, bool)
    built[index[here]] = True
    total = float(flat.sum()) if area is not None else float(flat[built].sum())
    moved = 0.0
    if area is not None:
        # a degree is about 111 km
        steps = reach / (cell if projected else cell * 111_320.0)
        moved = _move(flat, built, people.shape, steps)
    flat[~built] = 0.0
    out = np.where(np.isnan(table["floor_area"].to_numpy(float)), np.nan, 0.0)
    rank = _order(table)[live][here]
    best = np.full(people.size, 9)
    np.minimum.at(best, index[here], rank)
    w = np.where(rank == best[index[here]], weight[live][here], 0.0)
    sums = np.bincount(index[here], weights=w, minlength=people.size)
    out[live[here]] = flat[index[here]] * w / sums[index[here]]
    placed = float(np.nansum(out))
    report = PeopleReport(total, placed, moved, total - placed)
    if report.unplaced > 0.5:
        log.warning("%.0f of %.0f people live farther than %.0f m from any building",
                    report.unplaced, total, reach)  # fmt: skip
    return out, report


def _order(table: gpd.GeoDataFrame) -> Array:
    """Rank of each building for people of its cell: homes, others, outbuildings."""
    kind = building_class(table["kind"])
    return np.select([np.isin(kind, ["housing", "other"]), kind == "outbuilding"], [0, 2], 1)


def _window(
    src: Any, col: Array, row: Array, area: shapely.Geometry | None
) -> tuple[int, int, int, int]:
    c0, c1, r0, r1 = int(col.min()), int(col.max()) + 1, int(row.min()), int(row.max()) + 1
    if area is not None:
        import shapely
        from rasterio.warp import transform_bounds

        left, bottom, right, top = transform_bounds("EPSG:4326", src.crs, *shapely.bounds(area))
        ca, ra = pixel_of(src.transform, left, top)
        cb, rb = pixel_of(src.transform, right, bottom)
        c0, c1 = min(c0, int(np.floor(ca))), max(c1, int(np.ceil(cb)))
        r0, r1 = min(r0, int(np.floor(ra))), max(r1, int(np.ceil(rb)))
    return max(c0, 0), min(c1, src.width), max(r0, 0), min(r1, src.height)


def _share(area: shapely.Geometry, shape: tuple[int, int], transform: Any, crs: Any) -> Array:
    """Share of each cell that lies in the area."""
    import geopandas as gpd
    import shapely
    from exactextract import exact_extract
    from exactextract.raster import NumPyRasterSource
    from pyproj import Transformer

    move = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    fine = shapely.segmentize(area, 0.005)
    there = shapely.transform(fine, lambda p: np.column_stack(move.transform(p[:, 0], p[:, 1])))
    left, top = transform.c, transform.f
    source = NumPyRasterSource(
        np.ones(shape), xmin=left, ymax=top, xmax=left + transform.a * shape[1],
        ymin=top + transform.e * shape[0], srs_wkt=crs.to_wkt(),
    )  # fmt: skip
    zone = gpd.GeoDataFrame(geometry=[there], crs=crs)
    found = exact_extract(source, zone, ["cell_id", "coverage"], output="pandas")
    out = np.zeros(shape)
    out.ravel()[np.asarray(found["cell_id"][0], int)] = found["coverage"][0]
    return out


def _move(flat: Array, built: Array, shape: tuple[int, int], steps: float) -> float:
    """Move people of empty cells to the nearest built cell; return how many."""
    from scipy.spatial import cKDTree

    orphan = np.flatnonzero(~built & (flat > 0))
    homes = np.flatnonzero(built)
    if not len(orphan) or not len(homes):
        return 0.0
    tree = cKDTree(np.column_stack(np.unravel_index(homes, shape)))
    near, which = tree.query(
        np.column_stack(np.unravel_index(orphan, shape)), distance_upper_bound=steps + 1e-9
    )
    good = np.isfinite(near)
    np.add.at(flat, homes[which[good]], flat[orphan[good]])
    moved = float(flat[orphan[good]].sum())
    flat[orphan[good]] = 0.0
    return moved
