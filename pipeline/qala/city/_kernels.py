"""Compiled loops over the corners and surfaces of solids.

Arrays are laid out as in :class:`qala.city.solids.Solids`; coordinates are whole
millimetres. numba infers the types.
"""

# mypy: ignore-errors
# ruff: noqa: PLR1714, SIM109

from __future__ import annotations

import numpy as np
from numba import njit

GROUND, WALL, ROOF = 0, 1, 2
PLATE, PRISM, GABLED, HIPPED, PYRAMIDAL, SKILLION, DOME = -1, 0, 1, 2, 3, 4, 5
#: rings of a dome between eaves and top
DOME_RINGS = 4


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def revisits(xy, ring_offsets, poly_offsets):
    """Tell which outlines of open rings visit a point more than once."""
    out = np.zeros(len(poly_offsets) - 1, np.bool_)
    for p in range(len(out)):
        a, b = ring_offsets[poly_offsets[p]], ring_offsets[poly_offsets[p + 1]]
        if b - a <= 24:
            for i in range(a, b):
                for j in range(a, i):
                    if xy[i, 0] == xy[j, 0] and xy[i, 1] == xy[j, 1]:
                        out[p] = True
        else:
            # millimetres of an outline fit in 32 bits (4,000 km)
            key = np.sort((xy[a:b, 0] - xy[a, 0]) * (1 << 32) + (xy[a:b, 1] - xy[a, 1]))
            for i in range(1, b - a):
                if key[i] == key[i - 1]:
                    out[p] = True
    return out


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def _flat4(v, p0, p1, p2, p3):
    """Tell whether four vertices share a plane, within a millimetre."""
    ax, ay, az = v[p1, 0] - v[p0, 0], v[p1, 1] - v[p0, 1], v[p1, 2] - v[p0, 2]
    bx, by, bz = v[p2, 0] - v[p0, 0], v[p2, 1] - v[p0, 1], v[p2, 2] - v[p0, 2]
    cx, cy, cz = v[p3, 0] - v[p0, 0], v[p3, 1] - v[p0, 1], v[p3, 2] - v[p0, 2]
    nx, ny, nz = float(ay * bz - az * by), float(az * bx - ax * bz), float(ax * by - ay * bx)
    size = np.sqrt(nx * nx + ny * ny + nz * nz)
    return size > 0 and abs(nx * cx + ny * cy + nz * cz) <= 1.5 * size


@njit(cache=True, nogil=True)
def _put(indices, index_offsets, ring_offsets, types, at, ids, kind):
    """Append a surface of one ring; ``at`` holds the cursors (surface, ring, index)."""
    for i in ids:
        indices[at[2]] = i
        at[2] += 1
    at[1] += 1
    index_offsets[at[1]] = at[2]
    types[at[0]] = kind
    at[0] += 1
    ring_offsets[at[0]] = at[1]


@njit(cache=True, nogil=True)
def _put_quad(v, base, indices, index_offsets, ring_offsets, types, at, a, b, c, d):
    """Append a roof surface of four corners, as two triangles if it is warped."""
    if _flat4(v, base + a, base + b, base + c, base + d):
        _put(indices, index_offsets, ring_offsets, types, at, (a, b, c, d), ROOF)
    else:
        _put(indices, index_offsets, ring_offsets, types, at, (a, b, c), ROOF)
        _put(indices, index_offsets, ring_offsets, types, at, (a, c, d), ROOF)


@njit(cache=True, nogil=True)
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
                if gable:
                    top = 9 if (i - k) % 4 == 1 else 8
                    _put(indices, index_offsets, ring_offsets, types, at,
                         (s + i, s + j, s + j + n, top, s + i + n), WALL)  # fmt: skip
                else:
                    _put(indices, index_offsets, ring_offsets, types, at,
                         (s + i, s + j, s + j + n, s + i + n), WALL)  # fmt: skip
        if kind == GABLED or kind == HIPPED:
            t0, t1, t2, t3 = 4 + k, 4 + (k + 1) % 4, 4 + (k + 2) % 4, 4 + (k + 3) % 4
            _put_quad(v, base, indices, index_offsets, ring_offsets, types, at, t0, t1, 9, 8)
            _put_quad(v, base, indices, index_offsets, ring_offsets, types, at, t2, t3, 8, 9)
            if kind == HIPPED:
                _put(indices, index_offsets, ring_offsets, types, at, (t1, t2, 9), ROOF)
                _put(indices, index_offsets, ring_offsets, types, at, (t3, t0, 8), ROOF)
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
                _put(indices, index_offsets, ring_offsets, types, at,
                     (lower + i, lower + (i + 1) % n, top), ROOF)  # fmt: skip
        vo[p + 1], so[p + 1] = nv, at[0]
    return nv, at[0], at[1], at[2]


@njit(cache=True, nogil=True)
def check(v, vo, so, ring_offsets, index_offsets, indices, kinds, planar, codes):
    """Write the first fault of each solid: rings, planes, half-edges, volume."""
    for s in range(len(kinds)):
        codes[s] = 0
        if kinds[s] < PRISM:
            continue
        base, n = vo[s], vo[s + 1] - vo[s]
        r0, r1 = ring_offsets[so[s]], ring_offsets[so[s + 1]]
        # one name for each place, whichever vertices stand there
        low = np.empty(3, np.int64)
        for d in range(3):
            low[d] = v[base, d]
            for i in range(n):
                low[d] = min(low[d], v[base + i, d])
        key = np.empty(n, np.int64)
        for i in range(n):
            key[i] = (((v[base + i, 0] - low[0]) << 42) | ((v[base + i, 1] - low[1]) << 21)
                      | (v[base + i, 2] - low[2]))  # fmt: skip
        order = np.argsort(key)
        name = np.empty(n, np.int64)
        count = 0
        for i in range(n):
            if i > 0 and key[order[i]] != key[order[i - 1]]:
                count += 1
            name[order[i]] = count
        e0, e1 = index_offsets[r0], index_offsets[r1]
        edge = np.empty(e1 - e0, np.int64)
        back = np.empty(e1 - e0, np.int64)
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
                    edge[q0 - e0 + i] = name[p] * n + name[q]
                    back[q0 - e0 + i] = name[q] * n + name[p]
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
        if codes[s]:
            continue
        if worst > planar:
            codes[s] = 203
            continue
        edge.sort()
        back.sort()
        for i in range(len(edge)):
            if i > 0 and edge[i] == edge[i - 1]:
                codes[s] = 303
            elif edge[i] != back[i] and codes[s] == 0:
                codes[s] = 302
        if codes[s] == 0 and volume <= 0:
            codes[s] = 405


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def fans(v, vo, so, ring_offsets, index_offsets, indices, tri, tri_surface, needs):
    """Cut convex surfaces into fans; leave room for the others and mark them."""
    t = 0
    for s in range(len(vo) - 1):
        base = vo[s]
        for f in range(so[s], so[s + 1]):
            r0, r1 = ring_offsets[f], ring_offsets[f + 1]
            q0, m = index_offsets[r0], index_offsets[r0 + 1] - index_offsets[r0]
            total = index_offsets[r1] - q0
            fan = r1 - r0 == 1
            if fan and m > 3:
                nx, ny, nz = 0.0, 0.0, 0.0
                for i in range(m):
                    p, q = base + indices[q0 + i], base + indices[q0 + (i + 1) % m]
                    px, py, pz = (float(v[p, 0] - v[base, 0]), float(v[p, 1] - v[base, 1]),
                                  float(v[p, 2] - v[base, 2]))  # fmt: skip
                    qx, qy, qz = (float(v[q, 0] - v[base, 0]), float(v[q, 1] - v[base, 1]),
                                  float(v[q, 2] - v[base, 2]))  # fmt: skip
                    nx += py * qz - pz * qy
                    ny += pz * qx - px * qz
                    nz += px * qy - py * qx
                for i in range(m):
                    p = base + indices[q0 + i]
                    q = base + indices[q0 + (i + 1) % m]
                    w = base + indices[q0 + (i + 2) % m]
                    ax, ay, az = (float(v[q, 0] - v[p, 0]), float(v[q, 1] - v[p, 1]),
                                  float(v[q, 2] - v[p, 2]))  # fmt: skip
                    bx, by, bz = (float(v[w, 0] - v[q, 0]), float(v[w, 1] - v[q, 1]),
                                  float(v[w, 2] - v[q, 2]))  # fmt: skip
                    turn = ((ay * bz - az * by) * nx + (az * bx - ax * bz) * ny
                            + (ax * by - ay * bx) * nz)  # fmt: skip
                    if turn <= 0:
                        fan = False
                        break
                # a ring may turn left everywhere and still wind twice; outlines are simple
            count = total + 2 * (r1 - r0 - 1) - 2
            needs[f] = -1 if fan else t
            for i in range(count):
                tri_surface[t] = f
                if fan:
                    tri[t, 0] = q0
                    tri[t, 1] = q0 + i + 1
                    tri[t, 2] = q0 + i + 2
                t += 1
    return t


@njit(cache=True, nogil=True)
def mesh(mine, xyz, starts, vo, so, ring_offsets, index_offsets, indices, tri, tri_offsets,
          types, position, normal, feature, roof, corners):  # fmt: skip
    """Fill a tile's arrays: a corner of each surface with its normal and feature."""
    at, t = 0, 0
    for k in range(len(mine)):
        s = mine[k]
        base = starts[k]
        first = at
        i0 = index_offsets[ring_offsets[so[s]]]
        for f in range(so[s], so[s + 1]):
            nx, ny, nz = 0.0, 0.0, 0.0
            begin = at
            ox, oy, oz = 0.0, 0.0, 0.0
            for r in range(ring_offsets[f], ring_offsets[f + 1]):
                q0, m = index_offsets[r], index_offsets[r + 1] - index_offsets[r]
                for i in range(m):
                    p, q = base + indices[q0 + i], base + indices[q0 + (i + 1) % m]
                    if at == begin:
                        ox, oy, oz = xyz[p, 0], xyz[p, 1], xyz[p, 2]
                    px, py, pz = xyz[p, 0] - ox, xyz[p, 1] - oy, xyz[p, 2] - oz
                    qx, qy, qz = xyz[q, 0] - ox, xyz[q, 1] - oy, xyz[q, 2] - oz
                    nx += py * qz - pz * qy
                    ny += pz * qx - px * qz
                    nz += px * qy - py * qx
                    # glTF's y points up
                    position[at, 0] = xyz[p, 0]
                    position[at, 1] = xyz[p, 2]
                    position[at, 2] = -xyz[p, 1]
                    feature[at] = k
                    roof[at] = types[f] == ROOF
                    at += 1
            size = np.sqrt(nx * nx + ny * ny + nz * nz)
            for j in range(begin, at):
                normal[j, 0] = np.int8(np.rint(127 * nx / size))
                normal[j, 1] = np.int8(np.rint(127 * nz / size))
                normal[j, 2] = np.int8(np.rint(-127 * ny / size))
        for j in range(tri_offsets[s], tri_offsets[s + 1]):
            for c in range(3):
                corners[t] = tri[j, c] - i0 + first
                t += 1


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def ring_areas(points, index_offsets, ring_offsets, surfaces, at):
    """Twice the area of each surface whose corners lie in ``points[at[i]:at[i + 1]]``."""
    out = np.zeros(len(surfaces))
    for i in range(len(surfaces)):
        f = surfaces[i]
        begin = index_offsets[ring_offsets[f]]
        for r in range(ring_offsets[f], ring_offsets[f + 1]):
            q0 = index_offsets[r] - begin + at[i]
            m = index_offsets[r + 1] - index_offsets[r]
            for j in range(m):
                k = (j + 1) % m
                out[i] += (
                    points[q0 + j, 0] * points[q0 + k, 1] - points[q0 + k, 0] * points[q0 + j, 1]
                )
    return out


@njit(cache=True, nogil=True)
def mirror(roofs, needs, ring_offsets, index_offsets, indices, vo, solid, so, tri):
    """Cut roofs as the ground below them, the other side up."""
    for i in range(len(roofs)):
        f, s = roofs[i], solid[i]
        ground = so[s]  # a solid's ground is its first surface
        n = (vo[s + 1] - vo[s]) // 2
        place = np.empty(2 * n, np.int64)
        for q in range(index_offsets[ring_offsets[f]], index_offsets[ring_offsets[f + 1]]):
            place[indices[q]] = q
        total = index_offsets[ring_offsets[f + 1]] - index_offsets[ring_offsets[f]]
        total += 2 * (ring_offsets[f + 1] - ring_offsets[f] - 1) - 2
        for t in range(total):
            for k in range(3):
                tri[needs[f] + t, k] = place[indices[tri[needs[ground] + t, 2 - k]] + n]


@njit(cache=True, nogil=True)
def fingerprints(solids, v, vo, so, ring_offsets, index_offsets, indices, kinds, out):
    """Mix everything a solid is made of into 64 bits (the mixing step of SplitMix64)."""
    for i in range(len(solids)):
        s = solids[i]
        h = np.uint64(0x9E3779B97F4A7C15) + np.uint64(kinds[s] + 2)
        for j in range(vo[s], vo[s + 1]):
            for d in range(3):
                h = (h ^ np.uint64(v[j, d])) * np.uint64(0xBF58476D1CE4E5B9)
                h ^= h >> np.uint64(29)
        r0, r1 = ring_offsets[so[s]], ring_offsets[so[s + 1]]
        for q in range(index_offsets[r0], index_offsets[r1]):
            h = (h ^ np.uint64(indices[q])) * np.uint64(0x94D049BB133111EB)
            h ^= h >> np.uint64(31)
        for r in range(r0, r1):
            h = (h ^ np.uint64(index_offsets[r + 1] - index_offsets[r0])) * np.uint64(
                0x94D049BB133111EB
            )
            h ^= h >> np.uint64(31)
        out[i] = h


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def rank_in_cells(code, cells):
    """Place of each object among those of its cell before it, and the number in each cell."""
    seen = np.zeros(cells, np.int64)
    out = np.empty(len(code), np.int64)
    for i in range(len(code)):
        out[i] = seen[code[i]]
        seen[code[i]] += 1
    return out, seen


@njit(cache=True, nogil=True)
def to_local(lon, lat, z, matrix, a, e2, out):
    """Turn degrees and ellipsoidal metres into the axes of a 4×4 matrix's frame."""
    for i in range(len(lon)):
        u, w = np.radians(lon[i]), np.radians(lat[i])
        sin, cos = np.sin(w), np.cos(w)
        n = a / np.sqrt(1 - e2 * sin * sin)
        dx = (n + z[i]) * cos * np.cos(u) - matrix[0, 3]
        dy = (n + z[i]) * cos * np.sin(u) - matrix[1, 3]
        dz = (n * (1 - e2) + z[i]) * sin - matrix[2, 3]
        for c in range(3):
            out[i, c] = dx * matrix[0, c] + dy * matrix[1, c] + dz * matrix[2, c]


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def paint(palette, classes, feature, roof, out):
    """Give each corner the colour of its feature's class: walls, or roofs."""
    for i in range(len(feature)):
        k = classes[np.int64(feature[i])]
        side = 1 if roof[i] else 0
        for c in range(4):
            out[i, c] = palette[side, k, c]
