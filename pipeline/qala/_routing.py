"""Compiled kernels of the road network: reading, contraction, shortest times.

All release the interpreter's lock, so that independent sources run on threads. Times are
float64 seconds, nodes int32, coordinates int32 in units of 1e-7 degree (OpenStreetMap's own).
"""

from __future__ import annotations

import numpy as np
from numba import njit

#: coordinate of a vertex whose place is not known
NOWHERE = np.int32(-(2**31))
SCALE = 1e-7

_A = 6_378_137.0
_E2 = 6.69437999014e-3
_FNV = np.uint64(14695981039346656037)
_PRIME = np.uint64(1099511628211)
_MIX = np.uint64(0x9E3779B97F4A7C15)


def fnv(text: str) -> int:
    """Return the 64-bit FNV-1a hash of a text, as the kernels compute it."""
    value = int(_FNV)
    for byte in text.encode():
        value = ((value ^ byte) * int(_PRIME)) % 2**64
    return value


@njit(cache=True, nogil=True)
def metres_between(lon1, lat1, lon2, lat2):
    """Return ellipsoidal metres between two near points, degrees.

    Radii of curvature at the mean latitude (WGS 84); within 1e-6 of the geodesic up to 30 km.
    """
    mean = np.radians(0.5 * (lat1 + lat2))
    s = np.sin(mean)
    w = 1.0 - _E2 * s * s
    prime = _A / np.sqrt(w)
    dlon = lon2 - lon1
    if dlon > 180.0:
        dlon -= 360.0
    elif dlon < -180.0:
        dlon += 360.0
    dy = np.radians(lat2 - lat1) * prime * (1.0 - _E2) / w
    dx = np.radians(dlon) * prime * np.cos(mean)
    return np.sqrt(dx * dx + dy * dy)


@njit(cache=True, nogil=True)
def _grown(array, size):
    bigger = np.empty(max(size, 2 * array.size), array.dtype)
    bigger[: array.size] = array
    return bigger


@njit(cache=True, nogil=True)
def _decimal(buf, i, n):
    """Read a decimal number as 1e-7 units; return it and the place after it."""
    negative = False
    if i < n and buf[i] == 45:
        negative = True
        i += 1
    whole = np.int64(0)
    digits = 0
    while i < n and 48 <= buf[i] <= 57:
        whole = whole * 10 + (buf[i] - 48)
        i += 1
        digits += 1
    part = np.int64(0)
    scale = np.int64(10_000_000)
    if i < n and buf[i] == 46:
        i += 1
        while i < n and 48 <= buf[i] <= 57:
            if scale > 1:
                scale //= 10
                part += (buf[i] - 48) * scale
            i += 1
            digits += 1
    value = whole * 10_000_000 + part
    if digits == 0:
        return np.int64(NOWHERE), i
    return (-value if negative else value), i


@njit(cache=True, nogil=True)
def scan_opl(buf, keys):
    """Read ways and tagged nodes of a text in osmium's OPL format.

    ``keys`` are sorted hashes of the tag keys that matter; ways with equal values of them
    share a profile, told by the place of the first such list of tags.
    """
    n = buf.size
    way_ptr = np.zeros(1 << 16, np.int64)
    way_prof = np.empty(1 << 16, np.int32)
    refs = np.empty(1 << 18, np.int64)
    lon = np.empty(1 << 18, np.int32)
    lat = np.empty(1 << 18, np.int32)
    node_id = np.empty(1 << 12, np.int64)
    node_prof = np.empty(1 << 12, np.int32)
    prof_hash = np.empty(1 << 12, np.uint64)
    prof_at = np.empty((1 << 12), np.int64)
    prof_to = np.empty((1 << 12), np.int64)
    table = np.full(1 << 14, -1, np.int32)
    ways = 0
    vertices = 0
    nodes = 0
    profiles = 0
    i = 0
    while i < n:
        kind = buf[i]
        i += 1
        ident = np.int64(0)
        negative = False
        if i < n and buf[i] == 45:
            negative = True
            i += 1
        while i < n and 48 <= buf[i] <= 57:
            ident = ident * 10 + (buf[i] - 48)
            i += 1
        if negative:
            ident = -ident
        profile = -1
        first = vertices
        while i < n and buf[i] != 10:
            if buf[i] == 32:
                i += 1
                continue
            field = buf[i]
            i += 1
            if field == 84:  # T: tags
                start = i
                whole = _FNV
                while i < n and buf[i] != 32 and buf[i] != 10:
                    key = _FNV
                    at = i
                    while i < n and buf[i] != 61 and buf[i] != 32 and buf[i] != 10:
                        key = (key ^ np.uint64(buf[i])) * _PRIME
                        i += 1
                    while i < n and buf[i] != 44 and buf[i] != 32 and buf[i] != 10:
                        i += 1
                    slot = np.searchsorted(keys, key)
                    if slot < keys.size and keys[slot] == key:
                        for j in range(at, i):
                            whole = (whole ^ np.uint64(buf[j])) * _PRIME
                        whole = (whole ^ np.uint64(44)) * _PRIME
                    if i < n and buf[i] == 44:
                        i += 1
                mask = table.size - 1
                slot = np.int64((whole * _MIX) >> np.uint64(33)) & mask
                while table[slot] >= 0 and prof_hash[table[slot]] != whole:
                    slot = (slot + 1) & mask
                profile = table[slot]
                if profile < 0:
                    if profiles == prof_at.size:
                        prof_hash = _grown(prof_hash, 0)
                        prof_at = _grown(prof_at, 0)
                        prof_to = _grown(prof_to, 0)
                    profile = profiles
                    prof_hash[profile] = whole
                    prof_at[profile] = start
                    prof_to[profile] = i
                    table[slot] = profile
                    profiles += 1
                    if 2 * profiles > table.size:
                        table = np.full(4 * table.size, -1, np.int32)
                        mask = table.size - 1
                        for p in range(profiles):
                            slot = np.int64((prof_hash[p] * _MIX) >> np.uint64(33)) & mask
                            while table[slot] >= 0:
                                slot = (slot + 1) & mask
                            table[slot] = p
            elif field == 78:  # N: nodes of a way
                while i < n and buf[i] == 110:
                    i += 1
                    ref = np.int64(0)
                    negative = False
                    if i < n and buf[i] == 45:
                        negative = True
                        i += 1
                    while i < n and 48 <= buf[i] <= 57:
                        ref = ref * 10 + (buf[i] - 48)
                        i += 1
                    x = np.int64(NOWHERE)
                    y = np.int64(NOWHERE)
                    if i < n and buf[i] == 120:
                        x, i = _decimal(buf, i + 1, n)
                    if i < n and buf[i] == 121:
                        y, i = _decimal(buf, i + 1, n)
                    if vertices == refs.size:
                        refs = _grown(refs, 0)
                        lon = _grown(lon, 0)
                        lat = _grown(lat, 0)
                    refs[vertices] = -ref if negative else ref
                    if x == NOWHERE or y == NOWHERE:
                        x = np.int64(NOWHERE)
                        y = np.int64(NOWHERE)
                    lon[vertices] = x
                    lat[vertices] = y
                    vertices += 1
                    if i < n and buf[i] == 44:
                        i += 1
            else:
                while i < n and buf[i] != 32 and buf[i] != 10:
                    i += 1
        i += 1
        if kind == 119:
            if ways + 1 == way_ptr.size:
                way_ptr = _grown(way_ptr, 0)
                way_prof = _grown(way_prof, 0)
            way_prof[ways] = profile
            ways += 1
            way_ptr[ways] = vertices
        else:
            vertices = first
            if kind == 110 and profile >= 0:
                if nodes == node_id.size:
                    node_id = _grown(node_id, 0)
                    node_prof = _grown(node_prof, 0)
                node_id[nodes] = ident
                node_prof[nodes] = profile
                nodes += 1
    return (
        way_ptr[: ways + 1].copy(),
        way_prof[:ways].copy(),
        refs[:vertices].copy(),
        lon[:vertices].copy(),
        lat[:vertices].copy(),
        node_id[:nodes].copy(),
        node_prof[:nodes].copy(),
        prof_at[:profiles].copy(),
        prof_to[:profiles].copy(),
    )


@njit(cache=True, nogil=True)
def count_uses(way_ptr, node_of, nodes):
    """Count how often each node is used; -1 is a vertex whose place is not known.

    An end of a piece counts twice, so that two or more marks a junction or an end.
    """
    count = np.zeros(nodes, np.uint8)
    for w in range(way_ptr.size - 1):
        a, b = way_ptr[w], way_ptr[w + 1]
        for k in range(a, b):
            v = node_of[k]
            if v < 0:
                continue
            end = k == a or k == b - 1 or node_of[k - 1] < 0 or node_of[k + 1] < 0
            if count[v] < 250:
                count[v] += 2 if end else 1
    return count


@njit(cache=True, nogil=True)
def cut_ways(way_ptr, node_of, count, blocked, lon, lat):
    """Cut ways at junctions, ends and barriers into segments of consecutive vertices.

    At a barrier every segment end gets a node of its own: nothing passes.
    """
    bound = 0
    for k in range(node_of.size):
        v = node_of[k]
        if v >= 0 and (count[v] >= 2 or blocked[v]):
            bound += 1
    nodes = count.size
    first = np.empty(bound, np.int64)
    last = np.empty(bound, np.int64)
    from_node = np.empty(bound, np.int32)
    to_node = np.empty(bound, np.int32)
    way = np.empty(bound, np.int32)
    metres = np.empty(bound, np.float64)
    made = 0
    for w in range(way_ptr.size - 1):
        a, b = way_ptr[w], way_ptr[w + 1]
        start = np.int64(-1)
        length = 0.0
        for k in range(a, b):
            v = node_of[k]
            if v < 0:
                start = np.int64(-1)
                continue
            if start < 0:
                start = k
                length = 0.0
                continue
            length += metres_between(
                lon[k - 1] * SCALE, lat[k - 1] * SCALE, lon[k] * SCALE, lat[k] * SCALE
            )
            if count[v] >= 2 or blocked[v]:
                u = node_of[start]
                if u != v or length > 0.0:
                    if blocked[u]:
                        u = nodes
                        nodes += 1
                    if blocked[v]:
                        v = nodes
                        nodes += 1
                    first[made] = start
                    last[made] = k
                    from_node[made] = u
                    to_node[made] = v
                    way[made] = w
                    metres[made] = length
                    made += 1
                start = k
                length = 0.0
    return (
        first[:made].copy(),
        last[:made].copy(),
        from_node[:made].copy(),
        to_node[:made].copy(),
        way[:made].copy(),
        metres[:made].copy(),
        nodes,
    )


@njit(cache=True, nogil=True)
def _partners(from_node, to_node, nodes, road, forward, backward):
    """Pair the two segment ends at nodes where one road simply goes on."""
    m = from_node.size
    degree = np.zeros(nodes, np.int32)
    ends = np.full((nodes, 2), -1, np.int32)
    for s in range(m):
        for e in range(2):
            v = from_node[s] if e == 0 else to_node[s]
            if degree[v] < 2:
                ends[v, degree[v]] = 2 * s + e
            degree[v] += 1
    partner = np.full(2 * m, -1, np.int32)
    for v in range(nodes):
        if degree[v] != 2:
            continue
        p, q = ends[v, 0], ends[v, 1]
        s, t = p >> 1, q >> 1
        if s == t or road[s] != road[t]:
            continue
        if (p & 1) != (q & 1):
            same = forward[s] == forward[t] and backward[s] == backward[t]
        else:
            same = forward[s] == backward[t] and backward[s] == forward[t]
        if same:
            partner[p] = q
            partner[q] = p
    return partner


@njit(cache=True, nogil=True)
def merge_chains(first, last, from_node, to_node, nodes, metres, road, forward, backward, lon, lat):
    """Join segments at nodes that are no junctions and gather their geometry."""
    m = from_node.size
    partner = _partners(from_node, to_node, nodes, road, forward, backward)
    done = np.zeros(m, np.bool_)
    order = np.empty(m, np.int32)
    turned = np.zeros(m, np.bool_)
    chain_ptr = np.zeros(m + 1, np.int64)
    chains = 0
    placed = 0
    for ring in range(2):  # open chains first; what is left then are rings
        for s0 in range(m):
            if done[s0] or (ring == 0 and partner[2 * s0] >= 0 and partner[2 * s0 + 1] >= 0):
                continue
            s = s0
            back = ring == 0 and partner[2 * s0] >= 0
            while True:
                done[s] = True
                order[placed] = s
                turned[placed] = back
                placed += 1
                nxt = partner[2 * s + (0 if back else 1)]
                if nxt < 0 or done[nxt >> 1]:
                    break
                s = nxt >> 1
                back = (nxt & 1) == 1
            chains += 1
            chain_ptr[chains] = placed
    points = 0
    for c in range(chains):
        points += 1
        for j in range(chain_ptr[c], chain_ptr[c + 1]):
            points += last[order[j]] - first[order[j]]
    geom_ptr = np.zeros(chains + 1, np.int64)
    geom_lon = np.empty(points, np.int32)
    geom_lat = np.empty(points, np.int32)
    out_from = np.empty(chains, np.int32)
    out_to = np.empty(chains, np.int32)
    out_metres = np.zeros(chains, np.float64)
    out_road = np.empty(chains, np.uint8)
    out_forward = np.empty(chains, np.float64)
    out_backward = np.empty(chains, np.float64)
    g = 0
    for c in range(chains):
        a, b = chain_ptr[c], chain_ptr[c + 1]
        s = order[a]
        out_from[c] = to_node[s] if turned[a] else from_node[s]
        out_road[c] = road[s]
        out_forward[c] = backward[s] if turned[a] else forward[s]
        out_backward[c] = forward[s] if turned[a] else backward[s]
        for j in range(a, b):
            s = order[j]
            steps = last[s] - first[s]
            for k in range(0 if j == a else 1, steps + 1):
                v = last[s] - k if turned[j] else first[s] + k
                geom_lon[g] = lon[v]
                geom_lat[g] = lat[v]
                g += 1
            out_metres[c] += metres[s]
        s = order[b - 1]
        out_to[c] = from_node[s] if turned[b - 1] else to_node[s]
        geom_ptr[c + 1] = g
    # number the nodes that are left
    number = np.full(nodes, -1, np.int32)
    left = 0
    for c in range(chains):
        for e in range(2):
            v = out_from[c] if e == 0 else out_to[c]
            if number[v] < 0:
                number[v] = left
                left += 1
            if e == 0:
                out_from[c] = number[v]
            else:
                out_to[c] = number[v]
    node_lon = np.empty(left, np.float64)
    node_lat = np.empty(left, np.float64)
    for c in range(chains):
        node_lon[out_from[c]] = geom_lon[geom_ptr[c]] * SCALE
        node_lat[out_from[c]] = geom_lat[geom_ptr[c]] * SCALE
        node_lon[out_to[c]] = geom_lon[geom_ptr[c + 1] - 1] * SCALE
        node_lat[out_to[c]] = geom_lat[geom_ptr[c + 1] - 1] * SCALE
    return (
        node_lon,
        node_lat,
        out_from,
        out_to,
        out_metres,
        out_road,
        out_forward,
        out_backward,
        geom_ptr,
        geom_lon,
        geom_lat,
    )


@njit(cache=True, nogil=True)
def csr(nodes, from_node, to_node):
    """Sort arcs by their start: (indptr, order) with order the arcs in CSR position."""
    indptr = np.zeros(nodes + 1, np.int64)
    for a in range(from_node.size):
        indptr[from_node[a] + 1] += 1
    for v in range(nodes):
        indptr[v + 1] += indptr[v]
    at = indptr[:-1].copy()
    order = np.empty(from_node.size, np.int64)
    for a in range(from_node.size):
        order[at[from_node[a]]] = a
        at[from_node[a]] += 1
    return indptr, order


@njit(cache=True, nogil=True)
def arcs_csr(nodes, from_node, to_node, forward, backward, reverse):
    """Build the arcs of two-way segments in CSR; a NaN time is a closed direction.

    With ``reverse`` the arcs are turned, so that searching from a goal gives times to it.
    Returns indptr, indices, seconds, and the segment of each arc (-1 - s against its drawing).
    """
    m = from_node.size
    indptr = np.zeros(nodes + 1, np.int64)
    for s in range(m):
        u, v = from_node[s], to_node[s]
        if reverse:
            u, v = v, u
        if not np.isnan(forward[s]):
            indptr[u + 1] += 1
        if not np.isnan(backward[s]):
            indptr[v + 1] += 1
    for v in range(nodes):
        indptr[v + 1] += indptr[v]
    at = indptr[:-1].copy()
    indices = np.empty(indptr[nodes], np.int32)
    seconds = np.empty(indptr[nodes], np.float32)
    segment = np.empty(indptr[nodes], np.int32)
    for s in range(m):
        u, v = from_node[s], to_node[s]
        if reverse:
            u, v = v, u
        if not np.isnan(forward[s]):
            k = at[u]
            at[u] += 1
            indices[k] = v
            seconds[k] = forward[s]
            segment[k] = s
        if not np.isnan(backward[s]):
            k = at[v]
            at[v] += 1
            indices[k] = u
            seconds[k] = backward[s]
            segment[k] = -1 - s
    return indptr, indices, seconds, segment


@njit(cache=True, nogil=True)
def refine(nodes, from_node, to_node, metres, forward, backward, geom_ptr, lon, lat, pieces):
    """Cut segments into ``pieces`` of equal length, with nodes between them."""
    m = from_node.size
    extra = 0
    total = 0
    for s in range(m):
        extra += pieces[s] - 1
        total += pieces[s]
    new_lon = np.empty(extra, np.float64)
    new_lat = np.empty(extra, np.float64)
    owner = np.empty(total, np.int32)
    out_from = np.empty(total, np.int32)
    out_to = np.empty(total, np.int32)
    out_forward = np.empty(total, np.float64)
    out_backward = np.empty(total, np.float64)
    node = nodes
    p = 0
    for s in range(m):
        k = pieces[s]
        previous = from_node[s]
        step = metres[s] / k
        walked = 0.0
        g = geom_ptr[s]
        edge = 0.0
        if k > 1:
            edge = metres_between(
                lon[g] * SCALE, lat[g] * SCALE, lon[g + 1] * SCALE, lat[g + 1] * SCALE
            )
        for j in range(1, k + 1):
            if j < k:
                goal = j * step
                while walked + edge < goal and g + 2 < geom_ptr[s + 1]:
                    walked += edge
                    g += 1
                    edge = metres_between(
                        lon[g] * SCALE, lat[g] * SCALE, lon[g + 1] * SCALE, lat[g + 1] * SCALE
                    )
                share = (goal - walked) / edge if edge > 0.0 else 0.0
                share = min(max(share, 0.0), 1.0)
                # the short way round, also across the date line
                east = np.float64(lon[g + 1]) - np.float64(lon[g])
                if east > 1.8e9:
                    east -= 3.6e9
                elif east < -1.8e9:
                    east += 3.6e9
                at = lon[g] + share * east
                if at > 1.8e9:
                    at -= 3.6e9
                elif at < -1.8e9:
                    at += 3.6e9
                new_lon[node - nodes] = at * SCALE
                new_lat[node - nodes] = (lat[g] + share * (lat[g + 1] - lat[g])) * SCALE
                current = node
                node += 1
            else:
                current = to_node[s]
            out_from[p] = previous
            out_to[p] = current
            out_forward[p] = forward[s] / k
            out_backward[p] = backward[s] / k
            owner[p] = s
            p += 1
            previous = current
    return new_lon, new_lat, out_from, out_to, out_forward, out_backward, owner


# ---- shortest times -------------------------------------------------------------------------


@njit(cache=True, nogil=True, inline="always")
def _up(heap, key, place, i):
    node, value = heap[i], key[i]
    while i > 0:
        parent = (i - 1) >> 2
        if key[parent] <= value:
            break
        heap[i] = heap[parent]
        key[i] = key[parent]
        place[heap[i]] = i
        i = parent
    heap[i] = node
    key[i] = value
    place[node] = i


@njit(cache=True, nogil=True, inline="always")
def _down(heap, key, place, size):
    """Move the last entry to the emptied root of a four-way heap."""
    node, value = heap[size], key[size]
    i = 0
    while True:
        child = 4 * i + 1
        if child >= size:
            break
        best = child
        stop = min(child + 4, size)
        for c in range(child + 1, stop):
            if key[c] < key[best]:
                best = c
        if key[best] >= value:
            break
        heap[i] = heap[best]
        key[i] = key[best]
        place[heap[i]] = i
        i = best
    heap[i] = node
    key[i] = value
    place[node] = i


@njit(cache=True, nogil=True)
def nearest(indptr, indices, seconds, sources, seeds, labels, limit):
    """Return the time from the nearest source and its label, for every node."""
    n = indptr.size - 1
    time = np.full(n, np.inf)
    label = np.full(n, -1, np.int32)
    place = np.full(n, -1, np.int32)
    heap = np.empty(n, np.int32)
    key = np.empty(n, np.float64)
    size = 0
    for i in range(sources.size):
        v = sources[i]
        if seeds[i] < time[v] and seeds[i] <= limit:
            time[v] = seeds[i]
            label[v] = labels[i]
            if place[v] < 0:
                heap[size] = v
                key[size] = seeds[i]
                place[v] = size
                size += 1
            else:
                key[place[v]] = seeds[i]
            _up(heap, key, place, place[v])
    while size > 0:
        u = heap[0]
        at = key[0]
        size -= 1
        if size > 0:
            _down(heap, key, place, size)
        place[u] = -2
        for a in range(indptr[u], indptr[u + 1]):
            v = indices[a]
            if place[v] == -2:
                continue
            t = at + seconds[a]
            if t < time[v] and t <= limit:
                time[v] = t
                label[v] = label[u]
                if place[v] == -1:
                    heap[size] = v
                    key[size] = t
                    place[v] = size
                    size += 1
                else:
                    key[place[v]] = t
                _up(heap, key, place, place[v])
    return time, label


@njit(cache=True, nogil=True)
def catchments(
    indptr, indices, seconds, group_ptr, sources, seeds, groups, limit, hook_ptr, hooked, hook_cost
):
    """Search from each group of sources alone and list what is reached within the limit.

    ``hook_ptr``/``hooked``/``hook_cost`` hang places on nodes (CSR by node) with the seconds
    between them, one node a place. Returns arrays (place, group, seconds), group by group.
    """
    n = indptr.size - 1
    time = np.full(n, np.inf)
    place = np.full(n, -1, np.int32)
    heap = np.empty(n, np.int32)
    key = np.empty(n, np.float64)
    touched = np.empty(n, np.int32)
    out_place = np.empty(1 << 12, np.int32)
    out_group = np.empty(1 << 12, np.int32)
    out_time = np.empty(1 << 12, np.float32)
    rows = 0
    for g in groups:
        size = 0
        seen = 0
        for i in range(group_ptr[g], group_ptr[g + 1]):
            v = sources[i]
            if seeds[i] < time[v] and seeds[i] <= limit:
                time[v] = seeds[i]
                if place[v] < 0:
                    touched[seen] = v
                    seen += 1
                    heap[size] = v
                    key[size] = seeds[i]
                    place[v] = size
                    size += 1
                else:
                    key[place[v]] = seeds[i]
                _up(heap, key, place, place[v])
        while size > 0:
            u = heap[0]
            at = key[0]
            size -= 1
            if size > 0:
                _down(heap, key, place, size)
            place[u] = -2
            for h in range(hook_ptr[u], hook_ptr[u + 1]):
                t = at + hook_cost[h]
                if t <= limit:
                    if rows == out_place.size:
                        out_place = _grown(out_place, 0)
                        out_group = _grown(out_group, 0)
                        out_time = _grown(out_time, 0)
                    out_place[rows] = hooked[h]
                    out_group[rows] = g
                    out_time[rows] = t
                    rows += 1
            for a in range(indptr[u], indptr[u + 1]):
                v = indices[a]
                if place[v] == -2:
                    continue
                t = at + seconds[a]
                if t < time[v] and t <= limit:
                    time[v] = t
                    if place[v] == -1:
                        touched[seen] = v
                        seen += 1
                        heap[size] = v
                        key[size] = t
                        place[v] = size
                        size += 1
                    else:
                        key[place[v]] = t
                    _up(heap, key, place, place[v])
        for i in range(seen):
            time[touched[i]] = np.inf
            place[touched[i]] = -1
    return out_place[:rows].copy(), out_group[:rows].copy(), out_time[:rows].copy()


# ---- friction surface -----------------------------------------------------------------------


@njit(cache=True, nogil=True)
def relax_tiles(time, label, friction, cell, tile, tiles, fresh, limit):
    """Carry times through the named tiles; tell which neighbours must be looked at again.

    Each tile takes what flows in over its border and runs Dijkstra's search inside, on copies
    with a frame of one cell. ``fresh`` tiles start from every cell that has a time. No two tiles
    of a call may touch. Returns for each tile and each of its nine neighbours the earliest time
    that changed at their common border, infinite where nothing did.
    """
    height, width = friction.shape
    labelled = label.size > 0
    side = tile + 2
    cost = np.empty(side * side, np.float64)
    best = np.empty(side * side, np.float64)
    mark = np.empty(side * side, np.int32)
    place = np.empty(side * side, np.int32)
    heap = np.empty(side * side, np.int32)
    key = np.empty(side * side, np.float64)
    changed = np.full((tiles.shape[0], 9), np.inf)
    steps = np.array([-side - 1, -side, -side + 1, -1, 1, side - 1, side, side + 1], dtype=np.int64)
    root = np.sqrt(2.0)
    lengths = np.array([root, 1.0, root, 1.0, 1.0, root, 1.0, root])
    for t in range(tiles.shape[0]):
        r0, c0 = tiles[t, 0] * tile, tiles[t, 1] * tile
        h, w = min(tile, height - r0), min(tile, width - c0)
        place[:] = -1
        for i in range(-1, h + 1):
            r = r0 + i
            for j in range(-1, w + 1):
                c = c0 + j
                v = (i + 1) * side + j + 1
                cost[v] = np.nan
                best[v] = np.inf
                if 0 <= r < height and 0 <= c < width:
                    f = friction[r, c]
                    # NaN, negative and infinite cells keep NaN, which fails every comparison
                    if f >= 0.0 and f < np.inf:
                        cost[v] = 0.5 * cell * f
                        best[v] = time[r, c]
                        if labelled:
                            mark[v] = label[r, c]
        size = 0
        for i in range(h):
            edge = i == 0 or i == h - 1
            step = 1 if edge or fresh[t] else max(w - 1, 1)
            for j in range(0, w, step):
                v = (i + 1) * side + j + 1
                push = fresh[t] and best[v] < np.inf
                if edge or j == 0 or j == w - 1:
                    for k in range(8):
                        n = v + steps[k]
                        ni, nj = n // side - 1, n % side - 1
                        if 0 <= ni < h and 0 <= nj < w:
                            continue
                        value = best[n] + (cost[n] + cost[v]) * lengths[k]
                        if value < best[v] and value <= limit:
                            best[v] = value
                            push = True
                            if labelled:
                                mark[v] = mark[n]
                if push:
                    heap[size] = v
                    key[size] = best[v]
                    place[v] = size
                    size += 1
                    _up(heap, key, place, size - 1)
        # the frame is read no more and must not be reached
        for j in range(w + 2):
            best[j] = -np.inf
            best[(h + 1) * side + j] = -np.inf
        for i in range(h + 2):
            best[i * side] = -np.inf
            best[i * side + w + 1] = -np.inf
        out = changed[t]
        while size > 0:
            u = heap[0]
            at = key[0]
            size -= 1
            if size > 0:
                _down(heap, key, place, size)
            place[u] = -1
            here = cost[u]
            for k in range(8):
                v = u + steps[k]
                value = at + (here + cost[v]) * lengths[k]
                if value < best[v] and value <= limit:
                    best[v] = value
                    if labelled:
                        mark[v] = mark[u]
                    if place[v] < 0:
                        heap[size] = v
                        key[size] = value
                        place[v] = size
                        size += 1
                        _up(heap, key, place, size - 1)
                    else:
                        key[place[v]] = value
                        _up(heap, key, place, place[v])
            i, j = u // side - 1, u % side - 1
            if i == 0 or j == 0 or i == h - 1 or j == w - 1:
                for a in range(3):
                    if (a == 0 and i > 0) or (a == 2 and i < h - 1):
                        continue
                    for b in range(3):
                        if (b == 0 and j > 0) or (b == 2 and j < w - 1):
                            continue
                        if at < out[3 * a + b]:
                            out[3 * a + b] = at
        out[4] = np.inf
        for i in range(h):
            for j in range(w):
                v = (i + 1) * side + j + 1
                if best[v] < time[r0 + i, c0 + j]:
                    time[r0 + i, c0 + j] = best[v]
                    if labelled:
                        label[r0 + i, c0 + j] = mark[v]
    return changed
