"""The terrain as a layer of its own: a triangulated surface, contours and a smooth raster.

The heights are smoothed before they are triangulated: noise of half a metre would grow the
mesh thirtyfold. Without terrain there is no relief, and the base of the city is flat.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qala.city.heights import Assumption, pixel_of
from qala.files import replacing

if TYPE_CHECKING:
    import geopandas as gpd

log = logging.getLogger("qala")

Array = np.ndarray[Any, Any]

#: every assumed number of the relief
ASSUMPTIONS: dict[str, Assumption] = {
    "smoothing": Assumption(1.0, "cells", "Gaussian sigma before triangulation; noise of 0.5 m "
                            "grows a mesh thirtyfold"),
    "error_share": Assumption(1 / 30, "share", "largest error of the triangles over the cell: 1 m "
                              "for a 30 m terrain, below its own error (SRTM 9 m at 90 %, Farr "
                              "et al. 2007)"),
    "error_least": Assumption(0.25, "m", "finer than a kerb and a step; project assumption"),
    "most_cells": Assumption(1536.0, "cells", "along the longer side; coarser beyond"),
    "most_triangles": Assumption(250_000.0, "triangles", "what a browser and QGIS still turn"),
}  # fmt: skip
#: contour intervals that people read easily, metres
INTERVALS = (0.25, 0.5, 1.0, 2.0, 2.5, 5.0, 10.0, 20.0, 25.0, 50.0, 100.0, 200.0)
#: about as many contours between the lowest and the highest place
CONTOURS = 24
#: margin around the buildings, share of the longer side and metres
MARGIN, MARGIN_LEAST = 0.06, 30.0
#: id of the terrain in every export
TERRAIN = "terrain"


@dataclass(frozen=True)
class Relief:
    """The terrain of a twin.

    Attributes
    ----------
    vertices
        (V, 3) metres in the twin's CRS and the terrain's own vertical datum.
    triangles
        (T, 3) places of vertices, counter-clockwise from above.
    heights
        (rows, columns) smoothed heights, metres, north first; the outermost lie on ``box``.
    box
        left, bottom, right, top, metres.
    max_error
        Largest distance of the triangles from ``heights``, metres.
    filled
        Share of the box where the terrain is void or ends; the nearest height stands there.
    datum
        Name of the vertical datum, or that it is not known.
    source
        Name of the terrain file.
    """

    vertices: Array
    triangles: Array
    heights: Array
    box: tuple[float, float, float, float]
    max_error: float
    filled: float
    datum: str
    source: str

    @property
    def steps(self) -> tuple[float, float]:
        """Distance of heights along x and y, metres."""
        rows, columns = self.heights.shape
        left, bottom, right, top = self.box
        return (right - left) / (columns - 1), (top - bottom) / (rows - 1)

    def at(self, x: Array, y: Array) -> Array:
        """Return the smoothed height at places, metres; NaN outside the box."""
        from scipy.ndimage import map_coordinates

        dx, dy = self.steps
        left, bottom, right, top = self.box
        inside = (x >= left) & (x <= right) & (y >= bottom) & (y <= top)
        out = np.full(len(x), np.nan)
        place = [(top - y[inside]) / dy, (x[inside] - left) / dx]
        out[inside] = map_coordinates(self.heights, place, order=1, mode="nearest")
        return out


def ground_box(bounds: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """Return the box of the ground around the bounds of the buildings, metres."""
    left, bottom, right, top = (float(v) for v in bounds)
    edge = max(right - left, top - bottom) * MARGIN + MARGIN_LEAST
    return left - edge, bottom - edge, right + edge, top + edge


def make_relief(
    terrain: str | Path,
    crs: Any,
    box: tuple[float, float, float, float],
    *,
    datum: str = "",
    smoothing: float | None = None,
    max_error: float | None = None,
) -> Relief:
    """Triangulate the terrain of a box.

    Parameters
    ----------
    terrain
        GeoTIFF of heights in metres, any CRS.
    crs
        Projected CRS of the box.
    box
        left, bottom, right, top, metres.
    datum
        Name of the vertical datum.
    smoothing
        Sigma of the Gaussian, cells; :data:`ASSUMPTIONS` where None.
    max_error
        Largest error of the triangles, metres; a thirtieth of the terrain's cell
        where None, at least 0.25 m.

    Returns
    -------
    Relief
        Voids take the nearest height; ``filled`` tells their share.

    References
    ----------
    Garland and Heckbert (1995), Fast polygonal approximation of terrains and height
    fields, through pydelatin (hmm, M. Fogleman).
    """
    from pydelatin import Delatin
    from scipy.ndimage import gaussian_filter

    data, cell, void = _read(terrain, crs, box)
    sigma = ASSUMPTIONS["smoothing"].value if smoothing is None else smoothing
    left, bottom, right, top = box
    rows, columns = data.shape
    smooth = gaussian_filter(data, sigma, mode="nearest") if sigma > 0 else data
    error = max_error
    if error is None:
        error = max(cell * ASSUMPTIONS["error_share"].value, ASSUMPTIONS["error_least"].value)
    # heights above the lowest: single precision then keeps millimetres
    low = float(smooth.min())
    mesh = Delatin((smooth - low).astype(np.float32), max_error=error,
                   max_triangles=int(ASSUMPTIONS["most_triangles"].value))  # fmt: skip
    points, corners = np.asarray(mesh.vertices, float), np.asarray(mesh.triangles, np.int64)
    vertices = np.column_stack(
        [
            left + points[:, 0] * (right - left) / (columns - 1),
            bottom + points[:, 1] * (top - bottom) / (rows - 1),  # rows count from the south
            points[:, 2] + low,
        ]
    )
    vertices = np.round(vertices, 3)
    a, b, c = (vertices[corners[:, i], :2] for i in range(3))
    turn = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    corners[turn < 0] = corners[turn < 0][:, ::-1]
    return Relief(
        vertices, corners[turn != 0], smooth, box, round(float(mesh.error), 3), float(void),
        datum, Path(terrain).name,
    )  # fmt: skip


def _read(
    terrain: str | Path, crs: Any, box: tuple[float, float, float, float]
) -> tuple[Array, float, float]:
    """Return heights on a grid over the box, the terrain's own cell, and the share of voids."""
    import rasterio
    from pyproj import Transformer
    from rasterio.enums import Resampling
    from rasterio.vrt import WarpedVRT
    from rasterio.windows import Window

    left, bottom, right, top = box
    long, short = max(right - left, top - bottom), min(right - left, top - bottom)
    with rasterio.open(terrain) as src:
        move = Transformer.from_crs(crs, src.crs, always_xy=True)
        x, y = move.transform((left + right) / 2, (bottom + top) / 2)
        # one cell to the east and one to the south, measured where the city is
        px, py = move.transform(
            [x, x + src.transform.a, x + src.transform.b],
            [y, y + src.transform.d, y + src.transform.e],
            direction="INVERSE",
        )
        cell = math.sqrt(
            math.hypot(px[1] - px[0], py[1] - py[0]) * math.hypot(px[2] - px[0], py[2] - py[0])
        )
        step = min(max(cell, long / ASSUMPTIONS["most_cells"].value), short / 32)
        columns, rows = (max(math.ceil(s / step) + 1, 33) for s in (right - left, top - bottom))
        dx, dy = (right - left) / (columns - 1), (top - bottom) / (rows - 1)
        grid = rasterio.Affine(dx, 0, left - dx / 2, 0, -dy, top + dy / 2)
        how = Resampling.average if step > 1.5 * cell else Resampling.bilinear
        with WarpedVRT(src, crs=crs, transform=grid, width=columns, height=rows,
                       add_alpha=False, resampling=how) as warped:  # fmt: skip
            read = warped.read(1, window=Window(0, 0, columns, rows), masked=True)
        data = np.ma.filled(read.astype(float), np.nan) * src.scales[0] + src.offsets[0]
        inside = _reached(src, move, left + dx * np.arange(columns), top - dy * np.arange(rows))
    data[~inside] = np.nan
    void = ~np.isfinite(data)
    if void.all():
        return np.zeros_like(data), cell, 1.0
    if void.any():
        from scipy.ndimage import distance_transform_edt

        nearest = distance_transform_edt(void, return_distances=False, return_indices=True)
        data = data[tuple(nearest)]
    return data, cell, float(void.mean())


def _reached(src: Any, move: Any, x: Array, y: Array) -> Array:
    """Tell which places of a grid lie on the raster: one without nodata has zeros outside."""
    xx, yy = np.meshgrid(x, y)
    column, row = pixel_of(src.transform, *move.transform(xx, yy))
    return np.asarray((column >= 0) & (row >= 0) & (column <= src.width) & (row <= src.height))


def facets(relief: Relief, crs: Any, day: str) -> gpd.GeoDataFrame:
    """Return the triangles as a layer.

    Returns
    -------
    geopandas.GeoDataFrame
        ``id`` (by place: the same triangle keeps it), ``z_min, z_mean, z_max`` (m),
        ``slope`` and ``aspect`` (degrees; downhill, clockwise from north), validity,
        polygons with z.
    """
    import geopandas as gpd
    import pandas as pd
    import shapely

    corners = relief.vertices[relief.triangles]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    flat = np.hypot(normal[:, 0], normal[:, 1])
    rings = corners[:, [0, 1, 2, 0]].reshape(-1, 3)
    shapes = shapely.polygons(
        shapely.linearrings(rings, indices=np.repeat(np.arange(len(corners)), 4))
    )
    middle = corners.mean(axis=1)
    east, north = (np.rint(middle[:, i] * 100).astype(np.int64) for i in (0, 1))
    z = corners[:, :, 2]
    table = pd.DataFrame({
        "id": [f"tin/{e}_{n}" for e, n in zip(east.tolist(), north.tolist(), strict=True)],
        "kind": "tin",
        "valid_from": day, "valid_to": pd.Series([None] * len(z), dtype="object"),
        "z_min": np.round(z.min(axis=1), 3), "z_mean": np.round(z.mean(axis=1), 3),
        "z_max": np.round(z.max(axis=1), 3),
        "slope": np.round(np.degrees(np.arctan2(flat, normal[:, 2])), 2),
        "aspect": np.round(np.degrees(np.arctan2(normal[:, 0], normal[:, 1])) % 360.0, 1),
    })  # fmt: skip
    return gpd.GeoDataFrame(table, geometry=shapes, crs=crs)


def interval_of(relief: Relief) -> float:
    """Return a contour interval that people read easily, metres."""
    wanted = float(np.ptp(relief.heights)) / CONTOURS
    return next((v for v in INTERVALS if v >= wanted), INTERVALS[-1])


def contours(relief: Relief, crs: Any, day: str) -> gpd.GeoDataFrame:
    """Return contours of the smoothed heights, a row a height.

    Returns
    -------
    geopandas.GeoDataFrame
        ``id, elevation`` (m), ``main`` (1 for every fifth), ``length`` (m), validity, lines
        with z.
    """
    import contourpy
    import geopandas as gpd
    import pandas as pd
    import shapely

    step = interval_of(relief)
    left, bottom, right, top = relief.box
    rows, columns = relief.heights.shape
    generator = contourpy.contour_generator(
        np.linspace(left, right, columns), np.linspace(top, bottom, rows), relief.heights
    )
    low, high = float(relief.heights.min()), float(relief.heights.max())
    numbers = range(math.floor(low / step) + 1, math.ceil(high / step))
    found: list[tuple[int, Any]] = []
    for number in numbers:
        parts = [np.asarray(p) for p in generator.lines(number * step)]
        lines = [shapely.LineString(np.round(p, 3)) for p in parts if len(p) > 1]
        if lines:
            shape = shapely.MultiLineString(lines)
            found.append((number, shapely.force_3d(shape, round(number * step, 3))))
    level = np.array([n for n, _ in found], np.int64)
    shapes = np.array([s for _, s in found], dtype=object)
    table = pd.DataFrame({
        "id": [f"contour/{n * step:g}" for n in level.tolist()],
        "kind": "contour",
        "valid_from": day, "valid_to": pd.Series([None] * len(level), dtype="object"),
        "elevation": np.round(level * step, 3), "main": (level % 5 == 0).astype(np.int64),
        "length": np.round(shapely.length(shapes), 1) if len(shapes) else np.zeros(0),
    })  # fmt: skip
    return gpd.GeoDataFrame(table, geometry=shapes, crs=crs)


def drape(layer: gpd.GeoDataFrame, relief: Relief, terrain: str | Path) -> gpd.GeoDataFrame:
    """Give the objects of a layer the terrain's heights.

    Lines get a corner at least every two cells, so that they follow the ground; polygons and
    points keep their corners. Places outside the relief's box take the terrain as it is,
    places that it does not reach the nearest height. Bridges and tunnels run straight from the
    ground at one end to the ground at the other, several that are joined as one; where a layer
    tells of them, ``z_source`` is "ends" for these and "terrain" for others.
    """
    import shapely

    if not len(layer):
        return layer
    shapes = layer.geometry.to_numpy()
    line = shapely.get_dimensions(shapes) == 1
    if line.any():
        shapes = shapes.copy()
        shapes[line] = shapely.segmentize(shapes[line], max(2 * max(relief.steps), 20.0))
    xy = shapely.get_coordinates(shapes)
    z = relief.at(xy[:, 0], xy[:, 1])
    far = np.isnan(z)
    if far.any():
        z[far] = _sample(terrain, layer.crs, xy[far])
        lost = np.isnan(z)
        if lost.any():
            left, bottom, right, top = relief.box
            x, y = np.clip(xy[lost, 0], left, right), np.clip(xy[lost, 1], bottom, top)
            z[lost] = relief.at(x, y)
    if line.all() and ("bridge" in layer or "tunnel" in layer):
        over = _off_ground(layer)
        z = _between_ends(shapes, over, xy, z)
        layer = layer.assign(z_source=np.where(over, "ends", "terrain"))
    lifted = shapely.force_3d(shapes)
    xyz = np.column_stack([xy, np.round(z, 3)])
    return layer.set_geometry(shapely.set_coordinates(lifted, xyz), crs=layer.crs)


def _off_ground(lines: gpd.GeoDataFrame) -> Array:
    """Tell which lines are bridges or tunnels."""
    out = np.zeros(len(lines), bool)
    for tag in ("bridge", "tunnel"):
        if tag in lines:
            out |= (lines[tag].notna() & (lines[tag] != "no")).to_numpy(bool)
    return out


def _between_ends(shapes: Array, over: Array, xy: Array, z: Array) -> Array:
    """Return heights of all corners, those of the lines ``over`` straight between their ends.

    Where only such lines meet, their heights are joined: along a chain of them the height
    runs evenly from ground to ground.
    """
    import shapely
    from scipy.sparse import csgraph, csr_matrix, diags
    from scipy.sparse.linalg import spsolve

    parts, row = shapely.get_parts(shapes, return_index=True)
    ends = np.cumsum(shapely.get_num_coordinates(parts))
    starts = ends - np.diff(ends, prepend=0)
    mine = np.flatnonzero(over[row])
    if not len(mine):
        return z
    step = np.concatenate([[0.0], np.hypot(*np.diff(xy, axis=0).T)])
    step[starts] = 0.0
    way = np.cumsum(step)
    first, last = starts[mine], ends[mine] - 1
    length = np.maximum(way[last] - way[first], 1e-3)
    # corners are one node where they lie in the same millimetre
    _, node = np.unique(np.rint(xy * 1000).astype(np.int64), axis=0, return_inverse=True)
    node = node.ravel()
    count = int(node.max()) + 1
    a, b = node[first], node[last]
    inside = np.zeros(len(xy), bool)
    inside[_runs(first, last)] = True
    held = np.bincount(a, minlength=count) + np.bincount(b, minlength=count) == 1
    held[node[~inside]] = True
    height = np.zeros(count)
    height[node] = z
    joined = csr_matrix((1 / length, (a, b)), (count, count))
    joined = joined + joined.T
    # a ring of bridges that nothing holds stays on the ground
    _, group = csgraph.connected_components(joined, directed=False)
    held |= ~np.isin(group, group[held])
    met = np.zeros(count, bool)
    met[a] = met[b] = True
    free, fixed = np.flatnonzero(met & ~held), np.flatnonzero(met & held)
    if len(free):
        pull = (diags(np.asarray(joined.sum(axis=1)).ravel()) - joined).tocsr()
        height[free] = spsolve(pull[free][:, free].tocsc(), -pull[free][:, fixed] @ height[fixed])
    at = _runs(first, last)
    k = np.repeat(np.arange(len(mine)), last - first + 1)
    share = (way[at] - way[first][k]) / length[k]
    out = z.copy()
    out[at] = height[a][k] + (height[b] - height[a])[k] * share
    return out


def _runs(first: Array, last: Array) -> Array:
    """Return the numbers from each first to its last."""
    sizes = last - first + 1
    begin = np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.asarray(np.repeat(first, sizes) + np.arange(int(sizes.sum())) - begin)


#: cells along a side up to which terrain outside the relief's box is read as it is
_SAMPLED = 4000


def _sample(terrain: str | Path, crs: Any, xy: Array) -> Array:
    """Return the terrain at places by the nearest cell; NaN where it has none."""
    import rasterio
    from pyproj import Transformer
    from rasterio.windows import Window

    out = np.full(len(xy), np.nan)
    with rasterio.open(terrain) as src:
        move = Transformer.from_crs(crs, src.crs, always_xy=True)
        column, row = (
            np.floor(v) for v in pixel_of(src.transform, *move.transform(xy[:, 0], xy[:, 1]))
        )
        good = (column >= 0) & (row >= 0) & (column < src.width) & (row < src.height)
        if not good.any():
            return out
        c0, r0 = int(column[good].min()), int(row[good].min())
        width, height = int(column[good].max()) - c0 + 1, int(row[good].max()) - r0 + 1
        share = max(width / _SAMPLED, height / _SAMPLED, 1.0)
        shape = (max(round(height / share), 1), max(round(width / share), 1))
        read = src.read(1, window=Window(c0, r0, width, height), out_shape=shape, masked=True)
        data = np.ma.filled(read.astype(float), np.nan) * src.scales[0] + src.offsets[0]
    rows = np.minimum((row[good] - r0) * shape[0] // height, shape[0] - 1).astype(int)
    columns = np.minimum((column[good] - c0) * shape[1] // width, shape[1] - 1).astype(int)
    out[good] = data[rows, columns]
    return out


def write_terrain_raster(relief: Relief, crs: Any, path: str | Path) -> Path:
    """Write the smoothed heights as a cloud-optimised GeoTIFF with its datum in the tags."""
    import rasterio

    target = Path(path)
    rows, columns = relief.heights.shape
    dx, dy = relief.steps
    left, _, _, top = relief.box
    with (
        replacing(target, ".tif") as work,
        rasterio.open(
            work, "w", driver="COG", dtype="float32", count=1, height=rows, width=columns, crs=crs,
            transform=rasterio.Affine(dx, 0, left - dx / 2, 0, -dy, top + dy / 2),
            compress="DEFLATE", predictor="YES",
        ) as sink,
    ):  # fmt: skip
        sink.write(relief.heights.astype(np.float32), 1)
        sink.set_band_description(1, "terrain height, m")
        sink.units = ("metre",)
        sink.update_tags(
            vertical_datum=relief.datum, source=relief.source,
            smoothing=f"Gaussian, {ASSUMPTIONS['smoothing'].value:g} cell",
        )  # fmt: skip
    return target
