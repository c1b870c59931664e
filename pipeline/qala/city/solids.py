"""Closed solids from outlines and heights, checked one by one.

LoD1.2 is the prism of the outline; LoD2 adds gabled, hipped, pyramidal,
skillion and dome roofs where the outline allows (levels of detail after Biljecki
et al. 2016, doi:10.1016/j.compenvurbsys.2016.04.005). Coordinates are whole
millimetres, so that equal points are equal.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qala.city import _kernels
from qala.city._columns import bytes_of, floats, texts, wkb_of
from qala.city._kernels import (
    DOME,
    DOME_RINGS,
    GABLED,
    HIPPED,
    PLATE,
    PRISM,
    PYRAMIDAL,
    ROOF,
    SKILLION,
)
from qala.compute import usable_cores
from qala.errors import InputError

if TYPE_CHECKING:
    import geopandas as gpd

__all__ = [
    "DOME", "GABLED", "HIPPED", "PLATE", "PRISM", "PYRAMIDAL", "ROOF", "SCALE", "SKILLION",
    "SURFACES", "VALID_CODES", "Solids", "Triangles", "check_solids", "check_triangles",
    "make_solids", "to_multipolygons", "triangulate", "volumes",
]  # fmt: skip

log = logging.getLogger("qala")

Array = np.ndarray[Any, Any]

#: millimetres per metre: coordinates are whole numbers of them
SCALE = 1000
#: a surface may leave its plane by this much, mm (val3dity's default, 0.01 m)
PLANAR_MM = 10.0
#: corners of a rectangular outline may leave 90° by this much, degrees
RECTANGULAR_DEG = 15.0
#: columns that solids are made from
_COLUMNS = ("height", "min_height", "base_z", "roof_shape", "roof_height", "roof_direction",
            "roof:orientation", "whole")  # fmt: skip
#: bytes of a multipolygon of one outline with four corners; longer ones have more
_FOUR_CORNERS = 102
#: polygons made into solids at a time by one thread
BATCH = 10_000
#: corners that leave a straight line by less than this are dropped under sloped roofs, metres
STRAIGHT_M = 0.05

SURFACES = ("GroundSurface", "WallSurface", "RoofSurface")
_KINDS = {"gabled": GABLED, "hipped": HIPPED, "pyramidal": PYRAMIDAL, "skillion": SKILLION,
          "dome": DOME}  # fmt: skip

#: what each ``valid_code`` means (numbers of val3dity, Ledoux 2018, doi:10.1186/s40965-018-0043-x)
VALID_CODES: dict[int, str] = {
    0: "valid",
    101: "a ring has fewer than 3 points",
    102: "a ring repeats a point",
    104: "the outline crosses or touches itself",
    203: "a surface is not planar",
    302: "the shell is not closed",
    303: "an edge belongs to more than two surfaces",
    405: "the shell is inside out or has no volume",
}


@dataclass(frozen=True)
class Solids:
    """Many solids in flat arrays.

    Attributes
    ----------
    vertices
        (V, 3) whole millimetres in the CRS of the outlines.
    vertex_offsets
        (S + 1) first vertex of each solid.
    surface_offsets
        (S + 1) first surface of each solid.
    ring_offsets
        (F + 1) first ring of each surface.
    index_offsets
        (R + 1) first index of each ring.
    indices
        Vertices of the rings, counted from the solid's first.
    surface_types
        (F) 0 ground, 1 wall, 2 roof.
    kinds
        (S) −1 plate (an outline without a solid), 0 prism, 1 gabled, 2 hipped,
        3 pyramidal, 4 skillion, 5 dome.
    valid_codes
        (S) why a better level of detail was left, or 0.
    rows
        (S) row of the table each belongs to.
    """

    vertices: Array
    vertex_offsets: Array
    surface_offsets: Array
    ring_offsets: Array
    index_offsets: Array
    indices: Array
    surface_types: Array
    kinds: Array
    valid_codes: Array
    rows: Array

    def __len__(self) -> int:
        """Return the number of solids."""
        return len(self.kinds)

    @property
    def lods(self) -> Array:
        """Level of detail of each solid: 0.2, 1.2 or 2.0."""
        return np.asarray(np.select([self.kinds < 0, self.kinds == 0], ["0.2", "1.2"], "2.0"))


def check_solids(solids: Solids, *, planar_mm: float = PLANAR_MM) -> Array:
    """Check every solid: rings, planarity, each half-edge once with its reverse, volume.

    Parameters
    ----------
    solids
        Solids in whole millimetres; plates are not checked.
    planar_mm
        Greatest distance from a surface's plane, mm.

    Returns
    -------
    numpy.ndarray
        (S) code of :data:`VALID_CODES`.
    """
    codes = np.zeros(len(solids), np.int32)
    spread = np.ptp(solids.vertices, axis=0).max(initial=0) if len(solids) == 1 else 0
    if spread >= 1 << 21:
        log.warning("a solid is wider than 2 km")
    _kernels.check(
        solids.vertices, solids.vertex_offsets, solids.surface_offsets, solids.ring_offsets,
        solids.index_offsets, solids.indices, solids.kinds, planar_mm, codes,
    )  # fmt: skip
    return codes


def volumes(solids: Solids) -> tuple[Array, Array]:
    """Return the volume (m³) and the roof area (m²) of each solid."""
    out, roofs = np.zeros(len(solids)), np.zeros(len(solids))
    _kernels.volumes(
        solids.vertices, solids.vertex_offsets, solids.surface_offsets, solids.ring_offsets,
        solids.index_offsets, solids.indices, solids.kinds, out, roofs, solids.surface_types,
    )  # fmt: skip
    return out, roofs


def make_solids(table: gpd.GeoDataFrame) -> Solids:
    """Make a solid of every building and part, at the best level of detail that is valid.

    Parameters
    ----------
    table
        Projected CRS in metres; ``geometry`` polygons, ``height, min_height, base_z,
        roof_shape, roof_height, roof_direction, whole`` and, if there,
        ``roof:orientation``. Rows with ``whole`` become plates: their parts carry
        the solids.

    Returns
    -------
    Solids
        In the order of the table. Where a roof fails the check, ``valid_codes``
        tells why and the solid is the prism; where the prism fails too, a plate.

    Raises
    ------
    InputError
        When the CRS is not projected in metres.
    """
    if table.crs is None or not table.crs.is_projected:
        raise InputError(
            "the outlines are not in a projected CRS", "metres, such as the local UTM zone"
        )
    columns = {c: table[c].to_numpy() for c in _COLUMNS if c in table}
    shapes = table.geometry.to_numpy()

    def some(first: int) -> Solids:
        part = {c: v[first : first + BATCH] for c, v in columns.items()}
        made = solids_of(part, wkb_of(shapes[first : first + BATCH]))
        return replace(made, rows=made.rows + first)

    steps = range(0, len(table), BATCH)
    if len(steps) <= 1:
        return some(0)
    with ThreadPoolExecutor(min(usable_cores(), 4)) as pool:
        return join(list(pool.map(some, steps)))


def solids_of(columns: Mapping[str, Any], outlines: Any) -> Solids:
    """Make solids as :func:`make_solids` does, without a GeoDataFrame.

    Parameters
    ----------
    columns
        The table's columns, as NumPy, pandas or Arrow arrays.
    outlines
        Polygons as Arrow well-known binary, metres.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import shapely

    count = len(outlines)

    def of(name: str, default: float = np.nan) -> Array:
        return floats(columns[name]) if name in columns else np.full(count, default)

    roofs = texts(columns["roof_shape"]).dictionary_encode()
    known = np.array([_KINDS.get(n, PRISM) for n in roofs.dictionary.to_pylist()], np.int64)
    kinds = known[roofs.indices.to_numpy()] if count else np.zeros(0, np.int64)
    rise = of("roof_height", 0.0)
    kinds[~(rise >= 0.1)] = PRISM
    if "whole" in columns:
        kinds[np.asarray(columns["whole"], bool)] = PLATE
    limit = np.sin(np.radians(RECTANGULAR_DEG))
    # four corners have none to lose
    many = np.flatnonzero((kinds > PRISM) & (np.diff(bytes_of(outlines)[0]) > _FOUR_CORNERS))
    if len(many):
        straight = wkb_of(shapely.simplify(shapely.from_wkb(outlines.take(many)), STRAIGHT_M))
        *rings, row = _rings(straight)
        wanted = kinds[many][row]
        _kernels.suits(*rings, wanted, limit)
        lost = np.zeros(len(many), bool)
        lost[row[wanted == PRISM]] = True
        kinds[many[lost]] = PRISM  # others keep the outline as it is
        mask = np.zeros(count, bool)
        mask[many[~lost]] = True
        outlines = pc.replace_with_mask(
            outlines, pa.array(mask), straight.filter(pa.array(~lost)).cast(outlines.type)
        )
    xy, ro, po, rows = _rings(outlines)
    kinds = kinds[rows]
    _kernels.suits(xy, ro, po, kinds, limit)
    base = of("base_z", 0.0)
    z0 = _mm(base + of("min_height", 0.0))[rows]
    z1 = _mm(base + of("height"))[rows]
    z0[kinds == PLATE] = _mm(base)[rows][kinds == PLATE]
    ze = z1 - _mm(rise)[rows]
    across = np.zeros(len(rows), bool)
    if "roof:orientation" in columns:
        turned = pc.equal(texts(columns["roof:orientation"]), "across")
        across = turned.to_numpy(zero_copy_only=False)[rows]
    direction = of("roof_direction")[rows]

    faults = np.zeros(len(kinds), np.int32)
    good = np.empty(len(kinds), np.bool_)
    _kernels.sound(xy, ro, po, good)
    faults[~good] = 104
    kinds[faults != 0] = PLATE
    for _ in range(3):  # roof, then prism, then plate
        solids = _assemble(xy, ro, po, kinds, z0, ze, z1, direction, across, faults, rows)
        found = check_solids(solids)
        wrong = found != 0
        if not wrong.any():
            return solids
        faults[wrong] = found[wrong]
        kinds[wrong] = np.where(kinds[wrong] > PRISM, PRISM, PLATE)
    return solids


def join(parts: Sequence[Solids]) -> Solids:
    """Return solids of several tables' rows, one after another, as one value."""
    if len(parts) == 1:
        return parts[0]

    def offsets(name: str) -> Array:
        arrays = [getattr(p, name) for p in parts]
        steps = np.cumsum([0, *(a[-1] for a in arrays)])
        moved = [a[:-1] + d for a, d in zip(arrays, steps[:-1], strict=True)]
        return np.concatenate([*moved, steps[-1:]])

    def flat(name: str) -> Array:
        return np.concatenate([getattr(p, name) for p in parts])

    return Solids(
        flat("vertices"), offsets("vertex_offsets"), offsets("surface_offsets"),
        offsets("ring_offsets"), offsets("index_offsets"), flat("indices"), flat("surface_types"),
        flat("kinds"), flat("valid_codes"), flat("rows"),
    )  # fmt: skip


def _mm(metres: Array) -> Array:
    return np.asarray(np.rint(metres * SCALE).astype(np.int64))


def _rings(outlines: Any) -> tuple[Array, Array, Array, Array]:
    """Return rings of outlines (Arrow well-known binary) and the row of each polygon.

    Open rings in millimetres, outer left-turning, holes right-turning, no straight corners.
    """
    places, data = bytes_of(outlines)
    sizes = _kernels.wkb_sizes(places, data)
    if sizes[0] < 0:
        raise InputError("an outline is neither polygon nor multipolygon", "polygons of buildings")
    grid = np.empty((sizes[2], 2), np.int64)
    rings, polygons = np.empty(sizes[1] + 1, np.int64), np.empty(sizes[0] + 1, np.int64)
    rows = np.empty(sizes[0], np.int64)
    _kernels.wkb_rings(places, data, SCALE, grid, rings, polygons, rows)
    _kernels.orient(grid, rings, polygons)
    out, offsets = np.empty_like(grid), np.empty(len(rings), np.int64)
    used = _kernels.drop_straight(grid, rings, out, offsets)
    return out[:used], offsets, polygons, rows


def _assemble(
    xy: Array, ro: Array, po: Array, kinds: Array, z0: Array, ze: Array, z1: Array,
    direction: Array, across: Array, codes: Array, rows: Array,
) -> Solids:  # fmt: skip
    count = len(kinds)
    n = ro[po[1:]] - ro[po[:-1]] if count else np.zeros(0, np.int64)
    rings = np.diff(po)
    dome = np.where(kinds == DOME, DOME_RINGS - 1, 0)
    most_v = int((n * (2 + dome) + 2).sum())
    most_f = int((n * (2 + 2 * dome) + 6).sum())
    most_r = most_f + int(2 * rings.sum())
    most_i = int((n * (9 + 6 * dome) + 24).sum())
    v = np.empty((most_v, 3), np.int64)
    vo, so = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
    ring_offsets, index_offsets = np.zeros(most_f + 1, np.int64), np.zeros(most_r + 1, np.int64)
    indices, types = np.empty(most_i, np.int32), np.empty(most_f, np.uint8)
    nv, nf, nr, ni = _kernels.build(
        xy, ro, po, kinds, z0, ze, z1, direction, across,
        v, vo, so, ring_offsets, index_offsets, indices, types,
    )  # fmt: skip
    return Solids(
        v[:nv], vo, so, ring_offsets[: nf + 1], index_offsets[: nr + 1], indices[:ni],
        types[:nf], kinds.copy(), codes.copy(), rows,
    )  # fmt: skip


@dataclass(frozen=True)
class Triangles:
    """Triangles of solids.

    Attributes
    ----------
    corners
        (T, 3) places in ``Solids.indices``: a corner belongs to one surface, so
        that each surface can have its own normal.
    offsets
        (S + 1) first triangle of each solid.
    """

    corners: Array
    offsets: Array


def triangulate(solids: Solids) -> Triangles:
    """Cut every surface into triangles that use all its corners and no other.

    Outlines are cut by clipping ears in whole numbers; those with holes or many corners
    go through mapbox_earcut, or the constrained Delaunay triangulation of GEOS where that
    drops a corner. A roof over its ground gets the same cut, the other side up.

    Returns
    -------
    Triangles
        Sorted by solid and surface, oriented like their surface.

    Raises
    ------
    InputError
        When an outline can't be cut: it touches itself.
    """
    rings, surfaces = len(solids.index_offsets) - 1, len(solids.surface_types)
    count = len(solids.indices) + 2 * (rings - surfaces) - 2 * surfaces
    tri = np.zeros((count, 3), np.int32)
    offsets = np.zeros(len(solids) + 1, np.int64)
    needs = np.empty(len(solids), np.int64)
    _kernels.triangles(
        solids.vertices, solids.vertex_offsets, solids.surface_offsets, solids.ring_offsets,
        solids.index_offsets, solids.indices, solids.kinds, solids.surface_types, tri, offsets,
        needs,
    )  # fmt: skip
    todo = np.flatnonzero(needs >= 0)
    for cut in (_earcut, _delaunay):
        if not len(todo):
            break
        todo = todo[_cut(solids, todo, needs, tri, cut)]
    if len(todo):
        raise InputError(
            f"the outline of row {solids.rows[todo[0]]} cannot be cut into triangles",
            "an outline that does not touch itself",
        )
    return Triangles(tri, offsets)


def _cut(
    solids: Solids, todo: Array, needs: Array, tri: Array, cut: Callable[[Array, Array], Array]
) -> Array:
    """Cut the grounds of some solids into ``tri``; tell which could not be cut."""
    made: list[Array] = []
    for s in todo.tolist():
        first = solids.ring_offsets[solids.surface_offsets[s]]
        last = solids.ring_offsets[solids.surface_offsets[s] + 1]
        ends = solids.index_offsets[first + 1 : last + 1] - solids.index_offsets[first]
        base = solids.vertex_offsets[s]
        points = solids.vertices[base : base + ends[-1], :2]
        made.append(cut((points - points[0]).astype(float), ends.astype(np.uint32)))
    bad = np.zeros(len(todo), bool)
    _kernels.put_cuts(
        todo, np.concatenate(made), np.cumsum([0, *(len(m) for m in made)]), needs, solids.vertices,
        solids.vertex_offsets, solids.surface_offsets, solids.ring_offsets, solids.index_offsets,
        solids.kinds, tri, bad,
    )  # fmt: skip
    return bad


def _earcut(points: Array, ends: Array) -> Array:
    import mapbox_earcut

    found = mapbox_earcut.triangulate_float64(points, ends)
    return np.asarray(found, np.int64).reshape(-1, 3)


def _delaunay(points: Array, ends: Array) -> Array:
    """Cut by GEOS where earcut drops a corner."""
    import shapely

    rings: list[Any] = [shapely.linearrings(r) for r in np.split(points, ends[:-1].astype(int))]
    shape = shapely.polygons(rings[0], holes=rings[1:] or None)
    cut = shapely.get_parts(shapely.constrained_delaunay_triangles(shape))
    corners = shapely.get_coordinates(cut).reshape(-1, 4, 2)[:, :3]
    place = {tuple(np.rint(p).astype(int)): i for i, p in enumerate(points)}
    keys = np.rint(corners).astype(int)
    return np.array([[place[tuple(k)] for k in t] for t in keys], np.int64).reshape(-1, 3)


def check_triangles(solids: Solids, triangles: Triangles) -> Array:
    """Check the triangulated solids as :func:`check_solids` does their surfaces."""
    count = len(triangles.corners)
    steps = np.arange(count + 1, dtype=np.int64)
    mesh = Solids(
        solids.vertices, solids.vertex_offsets, triangles.offsets, steps, steps * 3,
        solids.indices[triangles.corners.ravel()], np.zeros(count, np.uint8), solids.kinds,
        solids.valid_codes,
        solids.rows,
    )  # fmt: skip
    return check_solids(mesh)


def rows_of_solids(solids: Solids, count: int) -> Array:
    """Return (count + 1) the first solid of each row of the table.

    Raises
    ------
    InputError
        When the solids are not in the order of their rows.
    """
    if (np.diff(solids.rows) < 0).any():
        raise InputError("solids are not in the order of their rows", "rows that do not fall")
    return np.searchsorted(solids.rows, np.arange(count + 1))


def to_multipolygons(solids: Solids, count: int) -> Any:
    """Return the surfaces of each table row as one MultiPolygon with z, metres.

    Parameters
    ----------
    solids
        Solids of a table.
    count
        Rows of the table.

    Returns
    -------
    pyarrow.Array
        Well-known binary.

    Notes
    -----
    Walls stand upright, so the geometry is a solid's boundary and not a valid
    area on the map: measure footprints on the layer ``footprints``.
    """
    import pyarrow as pa

    first = rows_of_solids(solids, count)
    rings, surfaces = len(solids.index_offsets) - 1, len(solids.surface_types)
    size = 9 * (count + surfaces) + 4 * rings + 24 * (len(solids.indices) + rings)
    out, starts = np.empty(size, np.uint8), np.empty(count + 1, np.int64)
    used = _kernels.surfaces_wkb(
        first, solids.surface_offsets, solids.ring_offsets, solids.index_offsets, solids.indices,
        solids.vertex_offsets, solids.vertices, SCALE, out, starts,
    )  # fmt: skip
    return pa.Array.from_buffers(
        pa.large_binary(), count, [None, pa.py_buffer(starts), pa.py_buffer(out[:used])]
    )
