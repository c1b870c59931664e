"""Compiled loops over the corners and surfaces of solids.

Arrays are laid out as in :class:`qala.city.solids.Solids`; coordinates are whole
millimetres. numba infers the types.
"""

# mypy: ignore-errors
# ruff: noqa: PLR1714, SIM109

from __future__ import annotations

import functools

import numpy as np
from numba import njit

#: dividing by 0 raises nothing: less to compile
jit = functools.partial(njit, cache=True, nogil=True, error_model="numpy")

_ARRAYS = "i4[::1], i8[::1], i8[::1], u1[::1], i8[::1]"
#: one signature each, whatever whole numbers they are called with
_PUT = f"void({_ARRAYS}, i8, i8, i8, i8, i8, i8, i8)"
_PUT_QUAD = f"void(i8[:, ::1], i8, {_ARRAYS}, i8, i8, i8, i8)"
GROUND, WALL, ROOF = 0, 1, 2
PLATE, PRISM, GABLED, HIPPED, PYRAMIDAL, SKILLION, DOME = -1, 0, 1, 2, 3, 4, 5
#: rings of a dome between eaves and top
DOME_RINGS = 4
#: corners up to which an outline without holes is cut here, and not by earcut
CLIPPED = 64


@jit()
def orient(xy, ring_offsets, poly_offsets):
    """Turn closed rings in place: outer ones left, holes right."""
    for p in range(len(poly_offsets) - 1):
        for r in range(poly_offsets[p], poly_offsets[p + 1]):
            a, b = ring_offsets[r], ring_offsets[r + 1]
            twice = 0
            for i in range(a + 1, b - 2):  # seen from the first corner, so that products stay small
                ux, uy = xy[i, 0] - xy[a, 0], xy[i, 1] - xy[a, 1]
                wx, wy = xy[i + 1, 0] - xy[a, 0], xy[i + 1, 1] - xy[a, 1]
                twice += ux * wy - uy * wx
            if (twice < 0) == (r == poly_offsets[p]) and twice != 0:
                for i in range((b - a) // 2):
                    for c in range(2):
                        xy[a + i, c], xy[b - 1 - i, c] = xy[b - 1 - i, c], xy[a + i, c]


@jit()
def _inside(xy, a, b, x, y):
    """Tell whether the open ring a:b holds a point that lies on none of its edges."""
    odd = False
    j = b - 1
    for i in range(a, b):
        if (xy[i, 1] > y) != (xy[j, 1] > y):
            # which side of the edge, by whole numbers
            turn = (xy[j, 0] - xy[i, 0]) * (y - xy[i, 1]) - (x - xy[i, 0]) * (xy[j, 1] - xy[i, 1])
            if (turn > 0) == (xy[j, 1] > xy[i, 1]):
                odd = not odd
        j = i
    return odd


@jit()
def _side(xy, a, b, c):
    """Sign of the turn a, b, c."""
    turn = (xy[b, 0] - xy[a, 0]) * (xy[c, 1] - xy[a, 1]) - (xy[b, 1] - xy[a, 1]) * (
        xy[c, 0] - xy[a, 0]
    )
    return 1 if turn > 0 else (-1 if turn < 0 else 0)


@jit()
def _between(xy, a, b, c):
    """Tell whether c lies in the box of a and b."""
    return min(xy[a, 0], xy[b, 0]) <= xy[c, 0] <= max(xy[a, 0], xy[b, 0]) and min(
        xy[a, 1], xy[b, 1]
    ) <= xy[c, 1] <= max(xy[a, 1], xy[b, 1])


@jit()
def sound(xy, ring_offsets, poly_offsets, out):
    """Tell which outlines cross and touch themselves nowhere, in whole numbers.

    Every pair of edges is looked at: a corner on another edge would leave walls that touch,
    and a roof whose triangles do not meet its walls.
    """
    nxt = np.empty(64, np.int64)
    for p in range(len(poly_offsets) - 1):
        first, last = poly_offsets[p], poly_offsets[p + 1]
        a, b = ring_offsets[first], ring_offsets[last]
        m = b - a
        state = 1
        for r in range(first, last):
            if ring_offsets[r + 1] - ring_offsets[r] < 3:
                state = 0
        if state == 0:
            out[p] = False
            continue
        if m > len(nxt):
            nxt = np.empty(2 * m, np.int64)
        for r in range(first, last):
            for i in range(ring_offsets[r], ring_offsets[r + 1] - 1):
                nxt[i - a] = i + 1
            nxt[ring_offsets[r + 1] - 1 - a] = ring_offsets[r]
        for i in range(a, b):
            i1 = nxt[i - a]
            x0, x1 = min(xy[i, 0], xy[i1, 0]), max(xy[i, 0], xy[i1, 0])
            y0, y1 = min(xy[i, 1], xy[i1, 1]), max(xy[i, 1], xy[i1, 1])
            for j in range(i + 1, b):
                j1 = nxt[j - a]
                if (
                    max(xy[j, 0], xy[j1, 0]) < x0 or min(xy[j, 0], xy[j1, 0]) > x1
                    or max(xy[j, 1], xy[j1, 1]) < y0 or min(xy[j, 1], xy[j1, 1]) > y1
                ):  # fmt: skip
                    continue
                if xy[i, 0] == xy[j, 0] and xy[i, 1] == xy[j, 1]:
                    state = 0
                    break
                if j == i1 or j1 == i:
                    continue  # straight corners and spikes were dropped before
                s0, s1 = _side(xy, i, i1, j), _side(xy, i, i1, j1)
                t0, t1 = _side(xy, j, j1, i), _side(xy, j, j1, i1)
                if s0 * s1 < 0 and t0 * t1 < 0:
                    state = 0
                    break
                if (
                    (s0 == 0 and _between(xy, i, i1, j)) or (s1 == 0 and _between(xy, i, i1, j1))
                    or (t0 == 0 and _between(xy, j, j1, i)) or (t1 == 0 and _between(xy, j, j1, i1))
                ):  # fmt: skip
                    state = 0
                    break
            if state == 0:
                break
        if state == 1:
            for r in range(first + 1, last):
                x, y = xy[ring_offsets[r], 0], xy[ring_offsets[r], 1]
                if not _inside(xy, a, ring_offsets[first + 1], x, y):
                    state = 0
                for q in range(first + 1, last):
                    if q != r and _inside(xy, ring_offsets[q], ring_offsets[q + 1], x, y):
                        state = 0
        out[p] = state == 1


@jit()
def drop_straight(xy, ring_offsets, out_xy, out_offsets):
    """Copy open rings without repeated and exactly collinear points."""
    cursor = 0
    out_offsets[0] = 0
    for r in range(len(ring_offsets) - 1):
        first, last = ring_offsets[r], ring_offsets[r + 1] - 1  # the closing point is left out
        start = cursor
        for i in range(first, last):
            x, y = xy[i, 0], xy[i, 1]
            while True:
                if cursor > start and out_xy[cursor - 1, 0] == x and out_xy[cursor - 1, 1] == y:
                    cursor -= 1
                    continue
                if cursor - start >= 2:
                    ax, ay = out_xy[cursor - 2, 0], out_xy[cursor - 2, 1]
                    bx, by = out_xy[cursor - 1, 0], out_xy[cursor - 1, 1]
                    if (bx - ax) * (y - by) - (by - ay) * (x - bx) == 0:
                        cursor -= 1
                        continue
                break
            out_xy[cursor, 0] = x
            out_xy[cursor, 1] = y
            cursor += 1
        changed = True
        while changed and cursor - start >= 3:  # around the ring's own start
            changed = False
            ax, ay = out_xy[cursor - 2, 0], out_xy[cursor - 2, 1]
            bx, by = out_xy[cursor - 1, 0], out_xy[cursor - 1, 1]
            cx, cy = out_xy[start, 0], out_xy[start, 1]
            if (bx - ax) * (cy - by) - (by - ay) * (cx - bx) == 0:
                cursor -= 1
                changed = True
                continue
            dx, dy = out_xy[start + 1, 0], out_xy[start + 1, 1]
            if (cx - bx) * (dy - cy) - (cy - by) * (dx - cx) == 0:
                for j in range(start, cursor - 1):
                    out_xy[j, 0] = out_xy[j + 1, 0]
                    out_xy[j, 1] = out_xy[j + 1, 1]
                cursor -= 1
                changed = True
        out_offsets[r + 1] = cursor
    return cursor


@jit()
def _convex(xy, a, b):
    """Tell whether the open ring a:b turns left at every corner, once around."""
    n = b - a
    turns = 0
    for i in range(n):
        ax, ay = xy[a + i, 0], xy[a + i, 1]
        bx, by = xy[a + (i + 1) % n, 0], xy[a + (i + 1) % n, 1]
        cx, cy = xy[a + (i + 2) % n, 0], xy[a + (i + 2) % n, 1]
        if (bx - ax) * (cy - by) - (by - ay) * (cx - bx) <= 0:
            return False
        if (by - ay >= 0) != (cy - by >= 0):
            turns += 1
    return turns <= 2


@jit()
def suits(xy, ring_offsets, poly_offsets, kinds, cos_limit):
    """Set kinds back to the prism where the outline doesn't allow the roof."""
    for p in range(len(kinds)):
        kind = kinds[p]
        if kind <= PRISM or kind == SKILLION:
            continue
        r = poly_offsets[p]
        a, b = ring_offsets[r], ring_offsets[r + 1]
        fits = poly_offsets[p + 1] - r == 1 and _convex(xy, a, b)
        if fits and (kind == GABLED or kind == HIPPED):
            fits = b - a == 4
            for i in range(4 if fits else 0):
                ux = xy[a + (i + 1) % 4, 0] - xy[a + i, 0]
                uy = xy[a + (i + 1) % 4, 1] - xy[a + i, 1]
                vx = xy[a + (i + 2) % 4, 0] - xy[a + (i + 1) % 4, 0]
                vy = xy[a + (i + 2) % 4, 1] - xy[a + (i + 1) % 4, 1]
                dot = float(ux) * vx + float(uy) * vy
                if abs(dot) > cos_limit * np.hypot(ux, uy) * np.hypot(vx, vy):
                    fits = False
        if not fits:
            kinds[p] = PRISM


@jit()
def _downhill(xy, a, b, direction):
    """Unit vector down the slope: as tagged, else square to the longest edge."""
    if not np.isnan(direction):
        return np.sin(np.radians(direction)), np.cos(np.radians(direction))
    best, dx, dy = -1.0, 0.0, 1.0
    n = b - a
    for i in range(n):
        ux = float(xy[a + (i + 1) % n, 0] - xy[a + i, 0])
        uy = float(xy[a + (i + 1) % n, 1] - xy[a + i, 1])
        size = np.hypot(ux, uy)
        if size > best + 0.5:
            best, dx, dy = size, uy / size, -ux / size
    return dx, dy


@jit()
def _ridge_first(xy, a, direction, across):
    """Corner from which the ridge's parallel edge starts: 0 or 1."""
    ux, uy = float(xy[a + 1, 0] - xy[a, 0]), float(xy[a + 1, 1] - xy[a, 1])
    vx, vy = float(xy[a + 2, 0] - xy[a + 1, 0]), float(xy[a + 2, 1] - xy[a + 1, 1])
    lu, lv = np.hypot(ux, uy), np.hypot(vx, vy)
    if not np.isnan(direction):  # the roof faces there: the ridge runs square to it
        dx, dy = np.sin(np.radians(direction)), np.cos(np.radians(direction))
        return 0 if abs(ux * dx + uy * dy) / lu <= abs(vx * dx + vy * dy) / lv else 1
    along = 0 if lu >= lv else 1
    return 1 - along if across else along


@jit()
def _flat4(v, p0, p1, p2, p3):
    """Tell whether four vertices share a plane, within a millimetre."""
    ax, ay, az = v[p1, 0] - v[p0, 0], v[p1, 1] - v[p0, 1], v[p1, 2] - v[p0, 2]
    bx, by, bz = v[p2, 0] - v[p0, 0], v[p2, 1] - v[p0, 1], v[p2, 2] - v[p0, 2]
    cx, cy, cz = v[p3, 0] - v[p0, 0], v[p3, 1] - v[p0, 1], v[p3, 2] - v[p0, 2]
    nx, ny, nz = float(ay * bz - az * by), float(az * bx - ax * bz), float(ax * by - ay * bx)
    size = np.sqrt(nx * nx + ny * ny + nz * nz)
    return size > 0 and abs(nx * cx + ny * cy + nz * cz) <= 1.5 * size


@jit(_PUT)
def _put(indices, index_offsets, ring_offsets, types, at, kind, n, a, b, c, d, e):
    """Append a surface of one ring of ``n`` corners; ``at`` holds surface, ring and index."""
    q = at[2]
    indices[q], indices[q + 1], indices[q + 2] = a, b, c
    if n > 3:
        indices[q + 3] = d
    if n > 4:
        indices[q + 4] = e
    at[2] += n
    at[1] += 1
    index_offsets[at[1]] = at[2]
    types[at[0]] = kind
    at[0] += 1
    ring_offsets[at[0]] = at[1]


@jit(_PUT_QUAD)
def _put_quad(v, base, indices, index_offsets, ring_offsets, types, at, a, b, c, d):
    """Append a roof surface of four corners, as two triangles if it is warped."""
    if _flat4(v, base + a, base + b, base + c, base + d):
        _put(indices, index_offsets, ring_offsets, types, at, ROOF, 4, a, b, c, d, 0)
    else:
        _put(indices, index_offsets, ring_offsets, types, at, ROOF, 3, a, b, c, 0, 0)
        _put(indices, index_offsets, ring_offsets, types, at, ROOF, 3, a, c, d, 0, 0)


@jit()
def build(xy, ro, po, kinds, z0, ze, z1, direction, across,
           v, vo, so, ring_offsets, index_offsets, indices, types):  # fmt: skip
    """Fill the arrays of all solids; return the numbers of vertices, surfaces, rings, indices."""
    at = np.zeros(3, np.int64)
    nv = 0
    vo[0] = so[0] = ring_offsets[0] = index_offsets[0] = 0
    for p in range(len(kinds)):
        kind = kinds[p]
        first, last = po[p], po[p + 1]
        a, b = ro[first], ro[last]
        n = b - a
        base = nv
        dx, dy, smin, smax = 0.0, 0.0, 0.0, 0.0
        if kind == SKILLION:
            dx, dy = _downhill(xy, a, ro[first + 1], direction[p])
            smin, smax = np.inf, -np.inf
            for i in range(a, b):
                s = (xy[i, 0] - xy[a, 0]) * dx + (xy[i, 1] - xy[a, 1]) * dy
                smin, smax = min(smin, s), max(smax, s)
        for i in range(a, b):
            v[nv, 0], v[nv, 1], v[nv, 2] = xy[i, 0], xy[i, 1], z0[p]
            nv += 1
        if kind == PLATE:
            for r in range(first, last):
                for i in range(ro[r], ro[r + 1]):
                    indices[at[2]] = i - a
                    at[2] += 1
                at[1] += 1
                index_offsets[at[1]] = at[2]
            types[at[0]] = GROUND
            at[0] += 1
            ring_offsets[at[0]] = at[1]
            vo[p + 1], so[p + 1] = nv, at[0]
            continue
        for i in range(a, b):
            z = z1[p] if kind == PRISM else ze[p]
            if kind == SKILLION:
                s = (xy[i, 0] - xy[a, 0]) * dx + (xy[i, 1] - xy[a, 1]) * dy
                z = z1[p] - np.int64(np.rint((z1[p] - ze[p]) * (s - smin) / (smax - smin)))
            v[nv, 0], v[nv, 1], v[nv, 2] = xy[i, 0], xy[i, 1], z
            nv += 1
        # the ground looks down: its rings run the other way
        for r in range(first, last):
            for i in range(ro[r + 1] - 1, ro[r] - 1, -1):
                indices[at[2]] = i - a
                at[2] += 1
            at[1] += 1
            index_offsets[at[1]] = at[2]
        types[at[0]] = GROUND
        at[0] += 1
        ring_offsets[at[0]] = at[1]
        if kind == PRISM or kind == SKILLION:
            for r in range(first, last):
                for i in range(ro[r], ro[r + 1]):
                    indices[at[2]] = i - a + n
                    at[2] += 1
                at[1] += 1
                index_offsets[at[1]] = at[2]
            types[at[0]] = ROOF
            at[0] += 1
            ring_offsets[at[0]] = at[1]
        k = 0  # corner where the ridge's parallel edge starts
        if kind == GABLED or kind == HIPPED:
            k = _ridge_first(xy, a, direction[p], across[p])
            c0, c1, c2, c3 = a + k, a + (k + 1) % 4, a + (k + 2) % 4, a + (k + 3) % 4
            fx, fy = (xy[c3, 0] + xy[c0, 0]) / 2, (xy[c3, 1] + xy[c0, 1]) / 2
            tx, ty = (xy[c1, 0] + xy[c2, 0]) / 2, (xy[c1, 1] + xy[c2, 1]) / 2
            if kind == HIPPED:
                size = np.hypot(tx - fx, ty - fy)
                width = np.hypot(xy[c2, 0] - xy[c1, 0], xy[c2, 1] - xy[c1, 1])
                back = min(width / 2, 0.45 * size)  # all four slopes alike on a long outline
                ux, uy = (tx - fx) / size * back, (ty - fy) / size * back
                fx, fy, tx, ty = fx + ux, fy + uy, tx - ux, ty - uy
            v[nv, 0], v[nv, 1], v[nv, 2] = np.int64(np.rint(fx)), np.int64(np.rint(fy)), z1[p]
            v[nv + 1, 0], v[nv + 1, 1] = np.int64(np.rint(tx)), np.int64(np.rint(ty))
            v[nv + 1, 2] = z1[p]
            nv += 2
        for r in range(first, last):
            s, m = ro[r] - a, ro[r + 1] - ro[r]
            for i in range(m):
                j = (i + 1) % m
                gable = kind == GABLED and (i - k) % 2 == 1
                # under a gable the ridge's end is a corner of the wall
                top = s + i + n if not gable else (9 if (i - k) % 4 == 1 else 8)
                _put(indices, index_offsets, ring_offsets, types, at, WALL, 5 if gable else 4,
                     s + i, s + j, s + j + n, top, s + i + n)  # fmt: skip
        if kind == GABLED or kind == HIPPED:
            t0, t1, t2, t3 = 4 + k, 4 + (k + 1) % 4, 4 + (k + 2) % 4, 4 + (k + 3) % 4
            _put_quad(v, base, indices, index_offsets, ring_offsets, types, at, t0, t1, 9, 8)
            _put_quad(v, base, indices, index_offsets, ring_offsets, types, at, t2, t3, 8, 9)
            if kind == HIPPED:
                _put(indices, index_offsets, ring_offsets, types, at, ROOF, 3, t1, t2, 9, 0, 0)
                _put(indices, index_offsets, ring_offsets, types, at, ROOF, 3, t3, t0, 8, 0, 0)
        elif kind == PYRAMIDAL or kind == DOME:
            area, cx, cy = 0.0, 0.0, 0.0
            for i in range(n):
                x0, y0 = float(xy[a + i, 0] - xy[a, 0]), float(xy[a + i, 1] - xy[a, 1])
                j = a + (i + 1) % n
                x1, y1 = float(xy[j, 0] - xy[a, 0]), float(xy[j, 1] - xy[a, 1])
                w = x0 * y1 - x1 * y0
                area, cx, cy = area + w, cx + (x0 + x1) * w, cy + (y0 + y1) * w
            cx, cy = cx / (3 * area), cy / (3 * area)
            lower = n
            rings = DOME_RINGS if kind == DOME else 1
            for ring in range(1, rings):
                angle = np.pi / 2 * ring / rings
                shrink, rise = np.cos(angle), np.sin(angle)
                upper = nv - base
                for i in range(n):
                    x, y = xy[a + i, 0] - xy[a, 0], xy[a + i, 1] - xy[a, 1]
                    v[nv, 0] = xy[a, 0] + np.int64(np.rint(cx + (x - cx) * shrink))
                    v[nv, 1] = xy[a, 1] + np.int64(np.rint(cy + (y - cy) * shrink))
                    v[nv, 2] = ze[p] + np.int64(np.rint((z1[p] - ze[p]) * rise))
                    nv += 1
                for i in range(n):
                    j = (i + 1) % n
                    _put_quad(v, base, indices, index_offsets, ring_offsets, types, at,
                              lower + i, lower + j, upper + j, upper + i)  # fmt: skip
                lower = upper
            v[nv, 0] = xy[a, 0] + np.int64(np.rint(cx))
            v[nv, 1] = xy[a, 1] + np.int64(np.rint(cy))
            v[nv, 2] = z1[p]
            top = nv - base
            nv += 1
            for i in range(n):
                _put(indices, index_offsets, ring_offsets, types, at, ROOF, 3,
                     lower + i, lower + (i + 1) % n, top, 0, 0)  # fmt: skip
        vo[p + 1], so[p + 1] = nv, at[0]
    return nv, at[0], at[1], at[2]


@jit()
def _mix(h, word):
    """Mix a word into 64 bits (the steps of SplitMix64)."""
    h = (h ^ word) * np.uint64(0xBF58476D1CE4E5B9)
    return h ^ (h >> np.uint64(29))


@jit()
def _slot(keys, mask, key):
    """Place of a key in an open hash table, or the empty one (-1) where it belongs."""
    h = _mix(np.uint64(7), np.uint64(key))
    k = np.int64(h >> np.uint64(20)) & mask
    while keys[k] >= 0 and keys[k] != key:
        k = (k + 1) & mask
    return k


@jit()
def check(v, vo, so, ring_offsets, index_offsets, indices, kinds, planar, codes):
    """Write the first fault of each solid: rings, planes, half-edges, volume."""
    low = np.empty(3, np.int64)
    room = 256
    # open hash tables: of places with the vertex first met there, of half-edges with their number
    keys, found = np.full(room, -1, np.int64), np.empty(room, np.int64)
    name = np.empty(room, np.int64)
    for s in range(len(kinds)):
        codes[s] = 0
        if kinds[s] < PRISM:
            continue
        base, n = vo[s], vo[s + 1] - vo[s]
        r0, r1 = ring_offsets[so[s]], ring_offsets[so[s + 1]]
        # one name for each place, whichever vertices stand there
        for d in range(3):
            low[d] = v[base, d]
            for i in range(n):
                low[d] = min(low[d], v[base + i, d])
        e0, e1 = index_offsets[r0], index_offsets[r1]
        while room < 2 * max(n, e1 - e0):
            room *= 2
        if room > len(keys):
            keys, found = np.full(room, -1, np.int64), np.empty(room, np.int64)
            name = np.empty(room, np.int64)
        # as much of the tables as this solid needs
        mask = 15
        while mask + 1 < 2 * max(n, e1 - e0):
            mask = 2 * mask + 1
        for i in range(n):
            key = (((v[base + i, 0] - low[0]) << 42) | ((v[base + i, 1] - low[1]) << 21)
                   | (v[base + i, 2] - low[2]))  # fmt: skip
            k = _slot(keys, mask, key)
            if keys[k] < 0:
                keys[k], found[k] = key, i
            name[i] = found[k]
        keys[: mask + 1] = -1
        volume = 0.0
        worst = 0.0
        for f in range(so[s], so[s + 1]):
            nx, ny, nz = 0.0, 0.0, 0.0
            ox, oy, oz = 0.0, 0.0, 0.0
            for r in range(ring_offsets[f], ring_offsets[f + 1]):
                q0, m = index_offsets[r], index_offsets[r + 1] - index_offsets[r]
                if m < 3:
                    codes[s] = 101
                for i in range(m):
                    p, q = indices[q0 + i], indices[q0 + (i + 1) % m]
                    if p < 0 or p >= n or q < 0 or q >= n:
                        codes[s] = 302
                        break
                    if name[p] == name[q]:
                        codes[s] = 102
                    k = _slot(keys, mask, name[p] * n + name[q])
                    if keys[k] < 0:
                        keys[k], found[k] = name[p] * n + name[q], 0
                    found[k] += 1
                    px, py, pz = (float(v[base + p, 0] - low[0]), float(v[base + p, 1] - low[1]),
                                  float(v[base + p, 2] - low[2]))  # fmt: skip
                    qx, qy, qz = (float(v[base + q, 0] - low[0]), float(v[base + q, 1] - low[1]),
                                  float(v[base + q, 2] - low[2]))  # fmt: skip
                    nx += py * qz - pz * qy
                    ny += pz * qx - px * qz
                    nz += px * qy - py * qx
                    if r == ring_offsets[f] and i == 0:
                        ox, oy, oz = px, py, pz
                if codes[s]:
                    break
            if codes[s]:
                break
            size = np.sqrt(nx * nx + ny * ny + nz * nz)
            # six times the volume under the surface: twice its vector area times a point
            volume += nx * ox + ny * oy + nz * oz
            if size == 0:
                codes[s] = 203
                break
            for q in range(index_offsets[ring_offsets[f]], index_offsets[ring_offsets[f + 1]]):
                p = indices[q]
                away = ((float(v[base + p, 0] - low[0]) - ox) * nx
                        + (float(v[base + p, 1] - low[1]) - oy) * ny
                        + (float(v[base + p, 2] - low[2]) - oz) * nz)  # fmt: skip
                worst = max(worst, abs(away) / size)
        if codes[s] == 0 and worst > planar:
            codes[s] = 203
        judge = codes[s] == 0
        for r in range(r0, r1 if judge else r0):
            q0, m = index_offsets[r], index_offsets[r + 1] - index_offsets[r]
            for i in range(m):
                p, q = name[indices[q0 + i]], name[indices[q0 + (i + 1) % m]]
                if found[_slot(keys, mask, p * n + q)] > 1:
                    codes[s] = 303
                elif keys[_slot(keys, mask, q * n + p)] < 0 and codes[s] == 0:
                    codes[s] = 302
        keys[: mask + 1] = -1
        if codes[s] == 0 and volume <= 0:
            codes[s] = 405


@jit()
def volumes(v, vo, so, ring_offsets, index_offsets, indices, kinds, out, roofs, types):
    """Volume of each solid and area of its roof."""
    for s in range(len(kinds)):
        base = vo[s]
        total, roof = 0.0, 0.0
        for f in range(so[s], so[s + 1]):
            nx, ny, nz = 0.0, 0.0, 0.0
            first = base + indices[index_offsets[ring_offsets[f]]]
            for r in range(ring_offsets[f], ring_offsets[f + 1]):
                q0, m = index_offsets[r], index_offsets[r + 1] - index_offsets[r]
                for i in range(m):
                    p, q = base + indices[q0 + i], base + indices[q0 + (i + 1) % m]
                    px, py, pz = (float(v[p, 0] - v[base, 0]), float(v[p, 1] - v[base, 1]),
                                  float(v[p, 2] - v[base, 2]))  # fmt: skip
                    qx, qy, qz = (float(v[q, 0] - v[base, 0]), float(v[q, 1] - v[base, 1]),
                                  float(v[q, 2] - v[base, 2]))  # fmt: skip
                    nx += py * qz - pz * qy
                    ny += pz * qx - px * qz
                    nz += px * qy - py * qx
            total += (nx * (v[first, 0] - v[base, 0]) + ny * (v[first, 1] - v[base, 1])
                      + nz * (v[first, 2] - v[base, 2]))  # fmt: skip
            if types[f] == ROOF:
                roof += np.sqrt(nx * nx + ny * ny + nz * nz) / 2
        out[s] = total / 6e9 if kinds[s] >= PRISM else 0.0
        roofs[s] = roof / 1e6


@jit()
def _turn(v, a, b, c):
    """Twice the area of a triangle of vertices seen from above; positive when it turns left."""
    return (v[b, 0] - v[a, 0]) * (v[c, 1] - v[a, 1]) - (v[b, 1] - v[a, 1]) * (v[c, 0] - v[a, 0])


@jit()
def _clip(v, base, n, after, before, out):
    """Cut the simple left-turning ring base:base + n into triangles by clipping ears.

    Whole numbers, so that every triangle has area and no corner is lost; returns
    how many were found (n - 2 but where the ring touches itself).
    """
    for i in range(n):
        after[i], before[i] = (i + 1) % n, (i + n - 1) % n
    left, found, at, tried = n, 0, 0, 0
    while left > 3 and tried < left:
        p, q = before[at], after[at]
        ear = _turn(v, base + p, base + at, base + q) > 0
        k = after[q]
        while ear and k != p:
            # only a corner that turns right can lie in the ear
            if (
                _turn(v, base + before[k], base + k, base + after[k]) <= 0
                and _turn(v, base + q, base + p, base + k) >= 0
                and _turn(v, base + p, base + at, base + k) >= 0
                and _turn(v, base + at, base + q, base + k) >= 0
            ):
                ear = False
            k = after[k]
        if ear:
            out[found, 0], out[found, 1], out[found, 2] = p, at, q
            found += 1
            after[p], before[q] = q, p
            left -= 1
            tried = 0
            at = after[q]  # not the neighbour: triangles stay rounder
        else:
            at = q
            tried += 1
    if left == 3 and _turn(v, base + before[at], base + at, base + after[at]) > 0:
        out[found, 0], out[found, 1], out[found, 2] = before[at], at, after[at]
        found += 1
    return found


@jit()
def triangles(v, vo, so, ring_offsets, index_offsets, indices, kinds, types, tri, offsets, needs):
    """Cut every surface into triangles; leave room for outlines with holes and mark them.

    Grounds, and the roofs over them, are cut in the plane; walls are convex.
    """
    cut = np.empty((CLIPPED, 3), np.int64)
    after, before = np.empty(CLIPPED, np.int64), np.empty(CLIPPED, np.int64)
    t = 0
    offsets[0] = 0
    for s in range(len(vo) - 1):
        base = vo[s]
        needs[s] = -1
        lid = kinds[s] == PRISM or kinds[s] == SKILLION
        for f in range(so[s], so[s + 1]):
            r0, r1 = ring_offsets[f], ring_offsets[f + 1]
            q0, m = index_offsets[r0], index_offsets[r1] - index_offsets[r0]
            if f == so[s]:
                count = m + 2 * (r1 - r0 - 1) - 2
                found = 0
                if r1 - r0 == 1 and m <= CLIPPED:
                    fan = True
                    for k in range(m):
                        if _turn(v, base + k, base + (k + 1) % m, base + (k + 2) % m) <= 0:
                            fan = False
                            break
                    # a ring may turn left everywhere and still wind twice; outlines are simple
                    if fan:
                        for k in range(m - 2):
                            cut[k, 0], cut[k, 1], cut[k, 2] = 0, k + 1, k + 2
                        found = m - 2
                    else:
                        found = _clip(v, base, m, after, before, cut)
                if found != count:
                    needs[s] = t
                elif kinds[s] == PLATE:
                    for k in range(count):
                        for c in range(3):
                            tri[t + k, c] = q0 + cut[k, c]
                else:
                    # the ground's ring runs the other way
                    for k in range(count):
                        for c in range(3):
                            tri[t + k, c] = q0 + m - 1 - cut[k, 2 - c]
                            if lid:
                                tri[t + count + k, c] = q0 + m + cut[k, c]
                t += count
            elif lid and f == so[s] + 1:
                t += m + 2 * (r1 - r0 - 1) - 2  # cut as the ground below it
            else:
                begin = 0
                if m == 4 and types[f] == ROOF:
                    # a roof's quadrangle is cut where both halves look up
                    p = base + indices[q0]
                    q, w = base + indices[q0 + 1], base + indices[q0 + 2]
                    e = base + indices[q0 + 3]
                    begin = 1 if _turn(v, p, q, w) <= 0 or _turn(v, p, w, e) <= 0 else 0
                for k in range(m - 2):
                    tri[t, 0] = q0 + begin
                    tri[t, 1] = q0 + (begin + k + 1) % m
                    tri[t, 2] = q0 + (begin + k + 2) % m
                    t += 1
        offsets[s + 1] = t
    return t


@jit()
def put_cuts(todo, cuts, cut_offsets, needs, v, vo, so, ring_offsets, index_offsets, kinds, tri,
             bad):  # fmt: skip
    """Write triangles of outlines, given by their corners, into grounds and roofs; mark misfits.

    ``bad`` tells those whose triangles are too few or don't cover the outline.
    """
    for i in range(len(todo)):
        s = todo[i]
        f = so[s]
        r0, r1 = ring_offsets[f], ring_offsets[f + 1]
        q0, m = index_offsets[r0], index_offsets[r1] - index_offsets[r0]
        count = m + 2 * (r1 - r0 - 1) - 2
        c0 = cut_offsets[i]
        bad[i] = cut_offsets[i + 1] - c0 != count
        if bad[i]:
            continue
        base = vo[s]
        area = 0.0
        for r in range(r0, r1):
            a, n = index_offsets[r] - q0, index_offsets[r + 1] - index_offsets[r]
            for k in range(n):
                area += _turn(v, base, base + a + k, base + a + (k + 1) % n)
        mirrored = np.empty(m, np.int64)  # place in the ground of each corner
        for r in range(r0, r1):
            a, e = index_offsets[r] - q0, index_offsets[r + 1] - q0
            for k in range(a, e):
                mirrored[k] = q0 + a + e - 1 - k
        covered = 0.0
        for j in range(count):
            x, y, z = cuts[c0 + j, 0], cuts[c0 + j, 1], cuts[c0 + j, 2]
            turn = _turn(v, base + x, base + y, base + z)
            if turn < 0:
                y, z = z, y
            if turn == 0:
                bad[i] = True
            covered += abs(turn)
            t = needs[s] + j
            if kinds[s] == PLATE:
                tri[t, 0], tri[t, 1], tri[t, 2] = q0 + x, q0 + y, q0 + z
            else:
                tri[t, 0], tri[t, 1], tri[t, 2] = mirrored[z], mirrored[y], mirrored[x]
                if kinds[s] == PRISM or kinds[s] == SKILLION:
                    roof = t + count
                    tri[roof, 0], tri[roof, 1], tri[roof, 2] = q0 + m + x, q0 + m + y, q0 + m + z
        bad[i] |= abs(covered - area) > 1e-9 * area + 0.5


@jit()
def mesh(mine, xyz, starts, so, ring_offsets, index_offsets, indices, tri, tri_offsets, types,
         palette, classes, position, normal, feature, colours, corners):  # fmt: skip
    """Fill a tile's arrays: a corner of each surface with its normal, feature and colour.

    Walls and roofs have the colours of their feature's class.
    """
    at, t = 0, 0
    for k in range(len(mine)):
        s = mine[k]
        base = starts[k]
        first = at
        i0 = index_offsets[ring_offsets[so[s]]]
        for f in range(so[s], so[s + 1]):
            nx, ny, nz = 0.0, 0.0, 0.0
            begin = at
            side = 1 if types[f] == ROOF else 0
            ox, oy, oz = 0.0, 0.0, 0.0
            for r in range(ring_offsets[f], ring_offsets[f + 1]):
                q0, m = index_offsets[r], index_offsets[r + 1] - index_offsets[r]
                if at == begin:
                    p = base + indices[q0]
                    ox, oy, oz = xyz[p, 0], xyz[p, 1], xyz[p, 2]
                p = base + indices[q0 + m - 1]
                px, py, pz = xyz[p, 0] - ox, xyz[p, 1] - oy, xyz[p, 2] - oz
                for i in range(m):
                    q = base + indices[q0 + i]
                    qx, qy, qz = xyz[q, 0] - ox, xyz[q, 1] - oy, xyz[q, 2] - oz
                    nx += py * qz - pz * qy
                    ny += pz * qx - px * qz
                    nz += px * qy - py * qx
                    px, py, pz = qx, qy, qz
                    # glTF's y points up
                    position[at, 0] = xyz[q, 0]
                    position[at, 1] = xyz[q, 2]
                    position[at, 2] = -xyz[q, 1]
                    feature[at] = k
                    for c in range(4):
                        colours[at, c] = palette[side, classes[k], c]
                    at += 1
            size = 127 / np.sqrt(nx * nx + ny * ny + nz * nz)
            a, b, c = np.int8(np.rint(nx * size)), np.int8(np.rint(nz * size)), np.int8(
                np.rint(-ny * size))  # fmt: skip
            for j in range(begin, at):
                normal[j, 0], normal[j, 1], normal[j, 2] = a, b, c
        for j in range(tri_offsets[s], tri_offsets[s + 1]):
            for c in range(3):
                corners[t] = tri[j, c] - i0 + first
                t += 1


@jit()
def ranges(starts, ends):
    """Join the ranges start:end of each pair."""
    total = 0
    for i in range(len(starts)):
        total += ends[i] - starts[i]
    out = np.empty(total, np.int64)
    at = 0
    for i in range(len(starts)):
        for j in range(starts[i], ends[i]):
            out[at] = j
            at += 1
    return out


@jit()
def roof_faces(v, vo, so, ring_offsets, index_offsets, indices, types, out):
    """Write area (m²), tilt and azimuth (degrees, clockwise from north) of roofs; area 0 else."""
    for s in range(len(vo) - 1):
        base = vo[s]
        for f in range(so[s], so[s + 1]):
            out[f, 0] = 0.0
            if types[f] != ROOF:
                continue
            nx, ny, nz = 0.0, 0.0, 0.0
            for r in range(ring_offsets[f], ring_offsets[f + 1]):
                q0, m = index_offsets[r], index_offsets[r + 1] - index_offsets[r]
                for i in range(m):
                    p, q = base + indices[q0 + i], base + indices[q0 + (i + 1) % m]
                    px = float(v[p, 0] - v[base, 0])
                    py = float(v[p, 1] - v[base, 1])
                    pz = float(v[p, 2] - v[base, 2])
                    qx = float(v[q, 0] - v[base, 0])
                    qy = float(v[q, 1] - v[base, 1])
                    qz = float(v[q, 2] - v[base, 2])
                    nx += py * qz - pz * qy
                    ny += pz * qx - px * qz
                    nz += px * qy - py * qx
            size = np.sqrt(nx * nx + ny * ny + nz * nz)
            out[f, 0] = size / 2e6
            out[f, 1] = np.degrees(np.arccos(min(max(nz / size, -1.0), 1.0)))
            out[f, 2] = np.degrees(np.arctan2(nx, ny)) % 360.0


@jit()
def rank_in_cells(code, cells):
    """Place of each object among those of its cell before it, and the number in each cell."""
    seen = np.zeros(cells, np.int64)
    out = np.empty(len(code), np.int64)
    for i in range(len(code)):
        out[i] = seen[code[i]]
        seen[code[i]] += 1
    return out, seen


@jit()
def bounds3(points):
    """Lowest and highest of three columns."""
    out = np.empty((2, 3), points.dtype)
    for c in range(3):
        out[0, c] = points[0, c]
        out[1, c] = points[0, c]
    for i in range(len(points)):
        for c in range(3):
            out[0, c] = min(out[0, c], points[i, c])
            out[1, c] = max(out[1, c], points[i, c])
    return out


@jit()
def place(v, scale, lift, cx, cy, hx, hy, fit, out):
    """Put vertices into a tile's axes by polynomials of the fourth degree."""
    for i in range(len(v)):
        u, w = (v[i, 0] / scale - cx) / hx, (v[i, 1] / scale - cy) / hy
        z = v[i, 2] / scale + lift
        for c in range(3):
            ground, up = 0.0, 0.0
            k, pu = 0, 1.0
            for a in range(5):
                pw = pu
                for _ in range(5 - a):
                    ground += fit[c, k] * pw
                    up += fit[c + 3, k] * pw
                    pw *= w
                    k += 1
                pu *= u
            out[i, c] = ground + z * up


@jit()
def hash_words(words, out):
    """Mix a column of 64-bit words into the digests of rows."""
    for i in range(len(words)):
        out[i] = _mix(out[i] + np.uint64(0x9E3779B97F4A7C15), words[i])


@jit()
def hash_texts(offsets, data, out):
    """Mix a column of texts into the digests of rows."""
    for i in range(len(offsets) - 1):
        h = _mix(out[i] + np.uint64(0x9E3779B97F4A7C15), np.uint64(offsets[i + 1] - offsets[i]))
        word, filled = np.uint64(0), np.uint64(0)
        for j in range(offsets[i], offsets[i + 1]):
            word |= np.uint64(data[j]) << filled
            filled += np.uint64(8)
            if filled == np.uint64(64):
                h = _mix(h, word)
                word, filled = np.uint64(0), np.uint64(0)
        out[i] = _mix(h, word)


@jit()
def _count_at(data, at):
    return (np.int64(data[at]) | (np.int64(data[at + 1]) << 8) | (np.int64(data[at + 2]) << 16)
            | (np.int64(data[at + 3]) << 24))  # fmt: skip


@jit()
def _kind_at(data, at):
    """Kind of a geometry (3 polygon, 6 multipolygon) and its dimensions, ISO or extended."""
    code = _count_at(data, at + 1)
    deep = 2
    if code & 0x80000000:
        deep += 1
    if code & 0x40000000:
        deep += 1
    code &= 0xFFFF
    if code >= 1000:
        deep = 4 if code >= 3000 else 3
    return code % 1000, deep


@jit()
def wkb_sizes(offsets, data):
    """Polygons, rings and points of outlines in well-known binary; -1 where one is no polygon."""
    polygons, rings, points = 0, 0, 0
    for i in range(len(offsets) - 1):
        at, end = offsets[i], offsets[i + 1]
        left = 1 if end - at >= 9 else 0
        while left > 0:
            kind, deep = _kind_at(data, at)
            count = _count_at(data, at + 5)
            whole = data[at] == 1
            at += 9
            if kind == 6 and whole:
                left = count
                continue
            if kind != 3 or not whole:
                return -1, 0, 0
            for _ in range(count):
                size = _count_at(data, at)
                points += size
                at += 4 + 8 * deep * size
            polygons += 1
            rings += count
            left -= 1
    return polygons, rings, points


@jit()
def _double_at(data, at, bits, number):
    word = np.uint64(0)
    for k in range(8):
        word |= np.uint64(data[at + k]) << np.uint64(8 * k)
    bits[0] = word
    return number[0]


@jit()
def wkb_rings(offsets, data, scale, xy, rings, polygons, rows):
    """Read outlines that :func:`wkb_sizes` counted, in whole 1/``scale``."""
    bits = np.empty(1, np.uint64)
    number = bits.view(np.float64)
    p, r, n = 0, 0, 0
    rings[0] = polygons[0] = 0
    for i in range(len(offsets) - 1):
        at, end = offsets[i], offsets[i + 1]
        left = 1 if end - at >= 9 else 0
        while left > 0:
            kind, deep = _kind_at(data, at)
            count = _count_at(data, at + 5)
            at += 9
            if kind == 6:
                left = count
                continue
            for _ in range(count):
                size = _count_at(data, at)
                at += 4
                for _ in range(size):
                    xy[n, 0] = np.int64(np.rint(_double_at(data, at, bits, number) * scale))
                    xy[n, 1] = np.int64(np.rint(_double_at(data, at + 8, bits, number) * scale))
                    at += 8 * deep
                    n += 1
                r += 1
                rings[r] = n
            rows[p] = i
            p += 1
            polygons[p] = r
            left -= 1


@jit()
def survey(offsets, data, scale, prints, bounds, area):
    """Digest, box and area of outlines in well-known binary: polygons and multipolygons.

    Coordinates count as whole 1/``scale``, and one polygon as a multipolygon of one, so that
    a file gives what memory gave. An outline that is missing or no polygon has area 0.
    """
    bits = np.empty(1, np.uint64)
    number = bits.view(np.float64)
    for i in range(len(offsets) - 1):
        area[i] = 0.0
        bounds[i, 0] = bounds[i, 1] = np.inf
        bounds[i, 2] = bounds[i, 3] = -np.inf
        at, end = offsets[i], offsets[i + 1]
        h = np.uint64(0)
        left = 1 if end - at >= 9 else 0
        while left > 0:
            kind, deep = _kind_at(data, at)
            count = _count_at(data, at + 5)
            whole = data[at] == 1
            at += 9
            if kind == 6 and whole:
                left = count
                continue
            if kind != 3 or not whole:
                area[i] = 0.0
                break
            h = _mix(h, np.uint64(count))
            for r in range(count):
                size = _count_at(data, at)
                at += 4
                h = _mix(h, np.uint64(size))
                fx, fy, px, py, ring = 0.0, 0.0, 0.0, 0.0, 0.0
                for j in range(size):
                    x = _double_at(data, at, bits, number)
                    y = _double_at(data, at + 8, bits, number)
                    at += 8 * deep
                    h = _mix(h, np.uint64(np.int64(np.rint(x * scale))))
                    h = _mix(h, np.uint64(np.int64(np.rint(y * scale))))
                    bounds[i, 0], bounds[i, 1] = min(bounds[i, 0], x), min(bounds[i, 1], y)
                    bounds[i, 2], bounds[i, 3] = max(bounds[i, 2], x), max(bounds[i, 3], y)
                    if j == 0:
                        fx, fy = x, y
                    else:
                        ring += (px - fx) * (y - fy) - (x - fx) * (py - fy)
                    px, py = x, y
                # the first ring is the outline, the others are cut out
                area[i] += abs(ring) / 2 if r == 0 else -abs(ring) / 2
            left -= 1
        prints[i] = _mix(prints[i] + np.uint64(0x9E3779B97F4A7C15), h)


# --- text and binary of the exports ---------------------------------------------------


@jit()
def _digits(out, at, n):
    """Write a whole number in decimal; return the place after it."""
    if n < 0:
        out[at] = 45
        at += 1
        n = -n
    size, rest = 1, n
    while rest >= 10:
        rest //= 10
        size += 1
    for k in range(at + size - 1, at - 1, -1):
        out[k] = 48 + n % 10
        n //= 10
    return at + size


@jit()
def _words(out, at, word):
    """Write bytes; return the place after them."""
    for c in word:
        out[at] = c
        at += 1
    return at


@jit()
def vertices_text(v, low, out, starts):
    """Write vertices less ``low`` as ``[x,y,z],`` each."""
    at = 0
    for i in range(len(v)):
        starts[i] = at
        out[at] = 91
        at += 1
        for d in range(3):
            at = _digits(out, at, v[i, d] - low[d])
            out[at] = 93 if d == 2 else 44
            at += 1
        out[at] = 44
        at += 1
    starts[len(v)] = at
    return at


@jit()
def geometry_text(first, kinds, so, ring_offsets, index_offsets, indices, vo, numbers, types,
                  plate, prism, roof, between, end, out, starts):  # fmt: skip
    """Write the CityJSON geometries of each row, whose solids are ``first[row]:first[row + 1]``.

    ``numbers`` are the vertices' places in the file; the words between come as bytes.
    Plates of one row are one geometry.
    """
    at = 0
    for row in range(len(first) - 1):
        starts[row] = at
        for s in range(first[row], first[row + 1]):
            flat = kinds[s] == PLATE
            if s > first[row]:
                out[at] = 44
                at += 1
            if not flat:
                at = _words(out, at, prism if kinds[s] == PRISM else roof)
            elif s == first[row] or kinds[s - 1] != PLATE:
                at = _words(out, at, plate)
            for f in range(so[s], so[s + 1]):
                out[at] = 91
                at += 1
                for r in range(ring_offsets[f], ring_offsets[f + 1]):
                    out[at] = 91
                    at += 1
                    for q in range(index_offsets[r], index_offsets[r + 1]):
                        at = _digits(out, at, numbers[vo[s] + indices[q]])
                        out[at] = 44
                        at += 1
                    out[at - 1] = 93
                    out[at] = 44
                    at += 1
                out[at - 1] = 93
                out[at] = 44
                at += 1
            at -= 1
            if flat:
                if s + 1 == first[row + 1] or kinds[s + 1] != PLATE:
                    out[at], out[at + 1] = 93, 125
                    at += 2
            else:
                at = _words(out, at, between)
                for f in range(so[s], so[s + 1]):
                    out[at], out[at + 1] = 48 + types[f], 44
                    at += 2
                at = _words(out, at - 1, end)
    starts[len(first) - 1] = at
    return at


@jit()
def _bit_of(v, i, bits):
    """Return the digest of a vertex, and the word and bit that stand for it."""
    h = _mix(_mix(_mix(np.uint64(1), np.uint64(v[i, 0])), np.uint64(v[i, 1])),
             np.uint64(v[i, 2]))  # fmt: skip
    k = np.int64(h >> np.uint64(20)) & (64 * len(bits) - 1)
    return h, k >> 6, np.uint64(1) << np.uint64(k & 63)


@jit()
def meet_vertices(v, once, twice):
    """Mark vertices that are met, and those met again or mistaken for one; count the latter."""
    again = 0
    for i in range(len(v)):
        _, word, bit = _bit_of(v, i, once)
        if once[word] & bit:
            twice[word] |= bit
            again += 1
        else:
            once[word] |= bit
    return again


@jit()
def number_vertices(v, twice, count, known, numbers, slots, used, out, new):
    """Give each vertex its place among the distinct ones, as they are first met.

    Those that no bit of ``twice`` marks are met once and are not kept. ``known[:used]`` are
    kept with their ``numbers``, ``slots`` an open hash table of their places (0 where empty,
    else one more), more than half empty. Returns how many are distinct, and how many kept.
    """
    mask = len(slots) - 1
    for i in range(len(v)):
        h, word, bit = _bit_of(v, i, twice)
        new[i] = True
        out[i] = count
        if twice[word] & bit:
            k = np.int64(h >> np.uint64(20)) & mask
            while True:
                n = slots[k] - 1
                if n < 0:
                    slots[k] = used + 1
                    for d in range(3):
                        known[used, d] = v[i, d]
                    numbers[used] = count
                    used += 1
                    break
                if known[n, 0] == v[i, 0] and known[n, 1] == v[i, 1] and known[n, 2] == v[i, 2]:
                    out[i] = numbers[n]
                    new[i] = False
                    break
                k = (k + 1) & mask
        if new[i]:
            count += 1
    return count, used


@jit()
def _put_double(out, at, bits, number, value):
    number[0] = value
    word = bits[0]
    for k in range(8):
        out[at + k] = np.uint8((word >> np.uint64(8 * k)) & np.uint64(255))
    return at + 8


@jit()
def _put_count(out, at, n):
    for k in range(4):
        out[at + k] = (n >> (8 * k)) & 255
    return at + 4


@jit()
def surfaces_wkb(first, so, ring_offsets, index_offsets, indices, vo, v, scale, out, starts):
    """Write each row's surfaces as a MultiPolygon Z in well-known binary (ISO, little-endian)."""
    bits = np.empty(1, np.uint64)
    number = bits.view(np.float64)
    at = 0
    for row in range(len(first) - 1):
        starts[row] = at
        out[at] = 1
        at = _put_count(out, at + 1, 1006)
        at = _put_count(out, at, so[first[row + 1]] - so[first[row]])
        for s in range(first[row], first[row + 1]):
            for f in range(so[s], so[s + 1]):
                out[at] = 1
                at = _put_count(out, at + 1, 1003)
                at = _put_count(out, at, ring_offsets[f + 1] - ring_offsets[f])
                for r in range(ring_offsets[f], ring_offsets[f + 1]):
                    q0, m = index_offsets[r], index_offsets[r + 1] - index_offsets[r]
                    at = _put_count(out, at, m + 1)
                    for i in range(m + 1):  # closed by its first corner
                        p = vo[s] + indices[q0 + i % m]
                        for d in range(3):
                            at = _put_double(out, at, bits, number, v[p, d] / scale)
    starts[len(first) - 1] = at
    return at
