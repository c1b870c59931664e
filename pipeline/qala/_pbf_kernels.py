"""Compiled kernels of the PBF reader: groups of one inflated block of OpenStreetMap's format.

All release the interpreter's lock, so that blocks are read on threads. Field numbers are those
of ``osmformat.proto`` (OpenStreetMap wiki, "PBF Format"). Coordinates leave as int32 in units of
1e-7 degree. Every read is checked against the end of its field: a damaged block raises
``ValueError`` and never reads beyond the buffer.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from qala._routing import _FNV, _MIX, _PRIME, NOWHERE

#: entries stepped over one by one before the place of an id is searched by halves
_STEPS = 8
#: the shortest way with a tag takes 8 bytes: two fields of 3 in a field of 2 and its content
_WAY = 8
#: nanodegrees
_LON = np.int64(180_000_000_000)
_LAT = np.int64(90_000_000_000)

# wrappers that nobody calls would be compiled too
_INNER = {"cache": True, "nogil": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_OUTER = {"cache": True, "nogil": True, "no_cfunc_wrapper": True}


@njit(**_INNER)
def _varint(buf, i, end):
    # most numbers have one byte
    if i < end and buf[i] < 128:
        return np.uint64(buf[i]), i + 1
    value = np.uint64(0)
    shift = np.uint64(0)
    while i < end:
        byte = buf[i]
        i += 1
        value |= np.uint64(byte & 127) << shift
        if byte < 128:
            return value, i
        shift += np.uint64(7)
        if shift > np.uint64(63):
            break
    raise ValueError("a number runs past the end of its field")


@njit(**_INNER)
def _field(buf, i, end):
    """Return number and kind of the field at i, where its content starts and ends."""
    key, i = _varint(buf, i, end)
    number = np.int64(key >> np.uint64(3))
    kind = np.int64(key & np.uint64(7))
    size, to = _varint(buf, i, end)
    if kind == 2:
        i = to
        if size > np.uint64(end - i):
            raise ValueError("a field is longer than the message it is in")
        to = i + np.int64(size)
    elif kind == 1 or kind == 5:
        to = i + (8 if kind == 1 else 4)
        if to > end:
            raise ValueError("a field is longer than the message it is in")
    elif kind != 0:
        raise ValueError("a field has a type that the format does not know")
    return number, kind, i, to


@njit(**_INNER)
def _deltas(buf, a, b, out):
    """Undo zigzag and differences of a packed list of numbers; return how many there are."""
    raw = np.uint64(0)
    shift = np.uint64(0)
    value = np.int64(0)
    count = 0
    for byte in buf[a:b]:
        raw |= np.uint64(byte & 127) << shift
        if byte >= 128:
            shift += np.uint64(7)
            if shift > np.uint64(63):
                raise ValueError("a number has more than 64 bits")
        else:
            value += np.int64(raw >> np.uint64(1)) ^ -np.int64(raw & np.uint64(1))
            out[count] = value
            count += 1
            raw = np.uint64(0)
            shift = np.uint64(0)
    if shift != 0:
        raise ValueError("a list of numbers ends inside a number")
    return count


@njit(**_INNER)
def _degrees(value, granularity, offset, limit):
    """Return a stored coordinate in 1e-7 degree, towards zero as osmium rounds, or NOWHERE."""
    # numbers that are no place on the earth would run over when multiplied
    bound = 4 * limit // granularity + 4
    if value > bound or value < -bound:
        return NOWHERE
    nano = value * granularity + offset
    if nano > limit or nano < -limit:
        return NOWHERE
    units = nano // 100 if nano >= 0 else -((-nano) // 100)
    return np.int32(units)


@njit(**_OUTER)
def find_keys(buf, start, end, key_hash, key_code, key_ptr, key_text):
    """Return where the texts of a table lie, and the code of each among the keys, else -1."""
    # a text takes two bytes at least
    at = np.empty((end - start) // 2 + 1, np.int64)
    to = np.empty(at.size, np.int64)
    code = np.empty(at.size, np.int32)
    longest = 0
    for k in range(key_code.size):
        longest = max(longest, key_ptr[k + 1] - key_ptr[k])
    count = 0
    i = start
    while i < end:
        number, kind, a, i = _field(buf, i, end)
        if number != 1 or kind != 2:
            continue
        at[count] = a
        to[count] = i
        code[count] = -1
        if i - a <= longest:
            value = _FNV
            for byte in buf[a:i]:
                value = (value ^ np.uint64(byte)) * _PRIME
            slot = np.searchsorted(key_hash, value)
            if slot < key_hash.size and key_hash[slot] == value:
                k = key_code[slot]
                same = key_ptr[k + 1] - key_ptr[k] == i - a
                for j in range(i - a):
                    same = same and key_text[key_ptr[k] + j] == buf[a + j]
                if same:
                    code[count] = k
        count += 1
    return at[:count].copy(), to[:count].copy(), code[:count].copy()


@njit(**_INNER)
def _value_hash(buf, at, to, known, v):
    if v >= np.uint64(at.size):
        raise ValueError("a tag names a text that is not there")
    if known[v] == 0:
        value = _FNV
        for byte in buf[at[v] : to[v]]:
            value = (value ^ np.uint64(byte)) * _PRIME
        known[v] = value
    return known[v]


@njit(**_OUTER)
def read_ways(buf, start, end, at, to, code, known, wanted, granularity, lat_offset, lon_offset):
    """Read the ways of a group that carry a wanted key.

    Returns offsets of the ways' vertices, a hash of the tags that matter of every way, the
    ranges of its keys and values, the node ids, and stored coordinates (NOWHERE where there are
    none).
    """
    most = (end - start) // _WAY + 1
    way_ptr = np.zeros(most + 1, np.int64)
    tags = np.empty(most, np.uint64)
    ranges = np.empty(4 * most, np.int64)
    refs = np.empty(end - start, np.int64)
    east = np.empty(0, np.int64)
    north = np.empty(0, np.int64)
    lon = np.empty(0, np.int32)
    lat = np.empty(0, np.int32)
    ways = 0
    vertices = 0
    i = start
    while i < end:
        number, kind, a, i = _field(buf, i, end)
        if number != 3 or kind != 2:
            raise ValueError("a group of ways holds something else")
        k = k_end = v = v_end = r = r_end = x = x_end = y = y_end = np.int64(0)
        while a < i:
            part, kind, p, a = _field(buf, a, i)
            if kind != 2:
                # the id; lists that are not packed are written by nobody
                if part == 2 or part == 3 or part >= 8:
                    raise ValueError("numbers that belong together are not packed")
            elif part == 2:
                k, k_end = p, a
            elif part == 3:
                v, v_end = p, a
            elif part == 8:
                r, r_end = p, a
            elif part == 9:
                y, y_end = p, a
            elif part == 10:
                x, x_end = p, a
        keep = False
        p = k
        while p < k_end:
            key, p = _varint(buf, p, k_end)
            if key >= np.uint64(code.size):
                raise ValueError("a tag names a text that is not there")
            keep = keep or (code[key] >= 0 and wanted[code[key]])
        if not keep:
            continue
        ranges[4 * ways] = k
        ranges[4 * ways + 1] = k_end
        ranges[4 * ways + 2] = v
        ranges[4 * ways + 3] = v_end
        whole = _FNV
        while k < k_end:
            key, k = _varint(buf, k, k_end)
            value, v = _varint(buf, v, v_end)
            if code[key] >= 0:
                mixed = np.uint64(code[key] + 1) * _MIX
                whole = (whole ^ mixed ^ _value_hash(buf, at, to, known, value)) * _PRIME
        if v != v_end:
            raise ValueError("a way has more values than keys")
        found = _deltas(buf, r, r_end, refs[vertices:])
        if x_end > x or y_end > y:
            if lon.size == 0:
                lon = np.full(refs.size, NOWHERE, np.int32)
                lat = np.full(refs.size, NOWHERE, np.int32)
                east = np.empty(refs.size, np.int64)
                north = np.empty(refs.size, np.int64)
            if _deltas(buf, x, x_end, east) != found or _deltas(buf, y, y_end, north) != found:
                raise ValueError("a way has places for another number of nodes than its own")
            for j in range(found):
                at_x = _degrees(east[j], granularity, lon_offset, _LON)
                at_y = _degrees(north[j], granularity, lat_offset, _LAT)
                if at_x != NOWHERE and at_y != NOWHERE:
                    lon[vertices + j] = at_x
                    lat[vertices + j] = at_y
        vertices += found
        tags[ways] = whole
        ways += 1
        way_ptr[ways] = vertices
    if lon.size == 0:
        lon = np.full(vertices, NOWHERE, np.int32)
        lat = np.full(vertices, NOWHERE, np.int32)
    return (
        way_ptr[: ways + 1].copy(),
        tags[:ways].copy(),
        ranges[: 4 * ways].copy(),
        refs[:vertices].copy(),
        lon[:vertices].copy(),
        lat[:vertices].copy(),
    )


@njit(**_INNER)
def _seek(ids, value, p, last):
    """Return the place of an id among sorted ones, given that of the one read before it."""
    a = np.int64(0)
    if value > last:
        a = p
        steps = 0
        while a < ids.size and ids[a] < value:
            a += 1
            steps += 1
            if steps == _STEPS:
                break
        if steps < _STEPS:
            return a
    b = np.int64(ids.size)
    while a < b:
        middle = (a + b) // 2
        if ids[middle] < value:
            a = middle + 1
        else:
            b = middle
    return a


@njit(**_INNER)
def _place(ids, node, east, north, count, granularity, lat_offset, lon_offset, lon, lat):
    """Write the places of the nodes that are asked for."""
    p = np.int64(0)
    last = np.int64(-(2**63))
    for j in range(count):
        p = _seek(ids, node[j], p, last)
        last = node[j]
        if p < ids.size and ids[p] == last:
            at_x = _degrees(east[j], granularity, lon_offset, _LON)
            at_y = _degrees(north[j], granularity, lat_offset, _LAT)
            if at_x != NOWHERE and at_y != NOWHERE:
                lon[p] = at_x
                lat[p] = at_y


@njit(**_OUTER)
def dense_nodes(
    buf, n, n_end, y, y_end, x, x_end, granularity, lat_offset, lon_offset, ids, lon, lat
):
    """Write the places of the dense nodes whose id is asked for; return the ids of all.

    ``ids`` are sorted and distinct; ``lon`` and ``lat`` receive the places.
    """
    node = np.empty(n_end - n, np.int64)
    count = _deltas(buf, n, n_end, node)
    east = np.empty(x_end - x, np.int64)
    north = np.empty(y_end - y, np.int64)
    if _deltas(buf, x, x_end, east) != count or _deltas(buf, y, y_end, north) != count:
        raise ValueError("nodes have places for another number of nodes than there are ids")
    _place(ids, node, east, north, count, granularity, lat_offset, lon_offset, lon, lat)
    return node[:count].copy()


@njit(**_OUTER)
def dense_tags(buf, start, end, node, at, to, code, known, wanted):
    """Return of the dense nodes with a wanted key the id, a hash and the range of its tags."""
    found = np.empty(node.size, np.int64)
    tags = np.empty(node.size, np.uint64)
    ranges = np.zeros(4 * node.size, np.int64)
    count = 0
    done = 0
    first = start
    keep = False
    whole = _FNV
    raw = np.uint64(0)
    shift = np.uint64(0)
    key = np.uint64(0)
    i = start
    for byte in buf[start:end]:
        i += 1
        raw |= np.uint64(byte & 127) << shift
        if byte >= 128:
            shift += np.uint64(7)
            if shift > np.uint64(63):
                raise ValueError("a number has more than 64 bits")
            continue
        if key != 0:
            if code[key] >= 0:
                keep = keep or wanted[code[key]]
                mixed = np.uint64(code[key] + 1) * _MIX
                whole = (whole ^ mixed ^ _value_hash(buf, at, to, known, raw)) * _PRIME
            key = np.uint64(0)
        elif raw != 0:
            key = raw
            if key >= np.uint64(code.size):
                raise ValueError("a tag names a text that is not there")
        else:
            if done == node.size:
                raise ValueError("nodes have tags for another number of nodes than there are ids")
            if keep:
                found[count] = node[done]
                tags[count] = whole
                ranges[4 * count] = first
                ranges[4 * count + 1] = i - 1
                count += 1
            done += 1
            first = i
            keep = False
            whole = _FNV
        raw = np.uint64(0)
        shift = np.uint64(0)
    if done != node.size or i != first:
        raise ValueError("nodes have tags for another number of nodes than there are ids")
    return found[:count].copy(), tags[:count].copy(), ranges[: 4 * count].copy()


@njit(**_OUTER)
def plain_nodes(
    buf, start, end, at, to, code, known, wanted, granularity, lat_offset, lon_offset,
    ids, lon, lat,
):  # fmt: skip
    """Do what the two kernels above do for nodes that are written one by one."""
    most = (end - start) // 2 + 1
    node = np.empty(most, np.int64)
    east = np.empty(most, np.int64)
    north = np.empty(most, np.int64)
    found = np.empty(most, np.int64)
    tags = np.empty(most, np.uint64)
    ranges = np.empty(4 * most, np.int64)
    one = np.empty(1, np.int64)
    nodes = 0
    count = 0
    i = start
    while i < end:
        number, kind, a, i = _field(buf, i, end)
        if number != 1 or kind != 2:
            raise ValueError("a group of nodes holds something else")
        k = k_end = v = v_end = np.int64(0)
        parts = 0
        while a < i:
            part, kind, p, a = _field(buf, a, i)
            if part == 1 or part == 8 or part == 9:
                if kind != 0:
                    raise ValueError("a node's id or place is no number")
                _deltas(buf, p, a, one)
                parts |= 1 if part == 1 else (2 if part == 8 else 4)
                if part == 1:
                    node[nodes] = one[0]
                elif part == 8:
                    north[nodes] = one[0]
                else:
                    east[nodes] = one[0]
            elif part == 2 or part == 3:
                if kind != 2:
                    raise ValueError("numbers that belong together are not packed")
                if part == 2:
                    k, k_end = p, a
                else:
                    v, v_end = p, a
        if parts != 7:
            raise ValueError("a node has no id or no place")
        keep = False
        whole = _FNV
        ranges[4 * count] = k
        ranges[4 * count + 1] = k_end
        ranges[4 * count + 2] = v
        ranges[4 * count + 3] = v_end
        while k < k_end:
            key, k = _varint(buf, k, k_end)
            value, v = _varint(buf, v, v_end)
            if key >= np.uint64(code.size):
                raise ValueError("a tag names a text that is not there")
            if code[key] >= 0:
                keep = keep or wanted[code[key]]
                mixed = np.uint64(code[key] + 1) * _MIX
                whole = (whole ^ mixed ^ _value_hash(buf, at, to, known, value)) * _PRIME
        if keep:
            found[count] = node[nodes]
            tags[count] = whole
            count += 1
        nodes += 1
    _place(ids, node, east, north, nodes, granularity, lat_offset, lon_offset, lon, lat)
    return found[:count].copy(), tags[:count].copy(), ranges[: 4 * count].copy()
