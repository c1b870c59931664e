"""Compiled inner loops over runs of cells; no Dask and no files here.

A *run* is a horizontal stretch of cells that meet one criterium: row, first
column, column after the last, and the people in it. Whole continents shrink to
some million runs, so that clusters are joined without ever holding the raster.
All loops release the GIL.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

Array = np.ndarray[Any, Any]

# state of a cell, two bits each, four cells a byte
PLAIN, EMPTY_COAST, WATER, MISSING = 0, 1, 2, 3

# columns of the statistics a scan returns
(
    S_NEGATIVE,
    S_INFINITE,
    S_HUGE,
    S_MISSING,
    S_PEOPLE,
    S_NO_LAND,
    S_BUILT_MAX,
    S_LAND_MAX,
    S_BUILT_MIN,
    S_LAND_MIN,
    S_FIRST_ROW,
    S_FIRST_COL,
    S_FIRST_VALUE,
    S_POP_MAX,
) = range(14)
N_STATS = 14


@njit(cache=True, nogil=True)
def sum_by_class(indptr, indices, parts, values, column, count):
    """Return units × classes sums of cell values, for the parts of units in cells (CSR)."""
    sums = np.zeros((indptr.size - 1, count))
    for unit in range(indptr.size - 1):
        for k in range(indptr[unit], indptr[unit + 1]):
            cell = indices[k]
            sums[unit, column[cell]] += parts[k] * values[cell]
    return sums


def missing_to_nan(values: Array, nodata: float | None, dtype: np.dtype[Any]) -> Array:
    """Return values as floats with NaN where they equal the missing value.

    The values are changed in place where they can be: the caller has just read them.
    """
    if values.dtype.kind == "f":
        if nodata is not None and nodata == nodata:
            _replace(values, values.dtype.type(nodata))
        return values
    if values.dtype.itemsize == dtype.itemsize:
        # same size: rewritten in place, a strip of memory less
        result = values.view(dtype)
        _convert(values, result, np.nan if nodata is None else nodata)
        return result
    result = np.empty(values.shape, dtype)
    if nodata is None:
        result[...] = values
    else:
        _convert(values, result, nodata)
    return result


@njit(cache=True, nogil=True)
def fold_columns(values: Array, factor: int, left: int, width: int) -> Array:
    """Return the sums of every ``factor`` cells along each row; NaN where all are missing.

    The first sum takes ``factor - left`` cells. Sums run from left to right, so
    that they do not depend on how rows are cut into strips.
    """
    rows, cols = values.shape
    result = np.empty((rows, width), np.float64)
    for r in range(rows):
        row = values[r]
        for k in range(width):
            part = row[max(0, k * factor - left) : min(cols, (k + 1) * factor - left)]
            total = 0.0
            for v in part:
                total += v
            if total != total:
                # only now look for which are missing
                total, seen = 0.0, False
                for v in part:
                    if v == v:
                        total += v
                        seen = True
                if not seen:
                    total = np.nan
            result[r, k] = total
    return result


@njit(cache=True, nogil=True)
def fold_rows(values: Array, factor: int, top: int) -> Array:
    """Return the sums of every ``factor`` rows, as :func:`fold_columns` does along them."""
    rows, cols = values.shape
    height = (top + rows + factor - 1) // factor
    result = np.full((height, cols), np.nan)
    for r in range(rows):
        k = (r + top) // factor
        for c in range(cols):
            v = values[r, c]
            if v == v:
                result[k, c] = v if result[k, c] != result[k, c] else result[k, c] + v
    return result


@njit(cache=True, nogil=True)
def _replace(values: Array, nodata: float) -> None:
    rows, cols = values.shape
    for r in range(rows):
        for c in range(cols):
            if values[r, c] == nodata:
                values[r, c] = np.nan


@njit(cache=True, nogil=True)
def _convert(values: Array, result: Array, nodata: float) -> None:
    rows, cols = values.shape
    for r in range(rows):
        for c in range(cols):
            v = values[r, c]
            result[r, c] = np.nan if v == nodata else v


@njit(cache=True, nogil=True)
def _grow(values: Array) -> Array:
    larger = np.empty(values.size * 2, values.dtype)
    larger[: values.size] = values
    return larger


@njit(cache=True, nogil=True)
def scan(
    pop: Array,
    built: Array,
    land: Array,
    has_built: bool,
    has_land: bool,
    built_unit: float,
    land_unit: float,
    cell_km2: float,
    centre_density: float,
    use_built: bool,
    centre_built: float,
    cluster_density: float,
    semi_density: float,
    low_density: float,
    water_land: float,
    level2: bool,
    separate_semi: bool,
    people_limit: float,
) -> Any:
    """Scan a strip once and return its runs, states and statistics.

    Parameters
    ----------
    pop, built, land
        2-D floats, NaN where missing; built and land may be dummies.
    built_unit, land_unit
        Divisors that turn values into shares of a cell.

    Returns
    -------
    tuple
        Three run tables (candidates of centres; cluster cells; semi-dense
        cells), each (rows, starts, stops, people); the packed states and
        whether any is not plain; the packed low-density bits; statistics.
    """
    rows, cols = pop.shape
    states = np.zeros((rows, (cols + 3) // 4), np.uint8)
    any_state = False
    low = np.zeros((rows if level2 else 0, (cols + 7) // 8), np.uint8)
    any_low = False
    # one byte of criteria a cell, rows padded to whole words of eight
    flags = np.zeros((rows, (cols + 7) // 8 * 8), np.uint8)
    # rows without any are never read again, so that their pages are never made
    marked = np.zeros(rows, np.uint8)
    n0, n1, n2 = 0, 0, 0
    negative, infinite, huge, missing, no_land = 0, 0, 0, 0, 0
    people, pop_max = 0.0, -np.inf
    built_min, built_max, land_min, land_max = np.inf, -np.inf, np.inf, -np.inf
    first_row, first_col, first_value = -1, -1, 0.0
    plain = not has_built and not has_land
    for r in range(rows):
        before = 0
        row_people = 0.0
        for group in range(0, cols, 4):
            # four states make a byte: gathered here, written once
            four = 0
            for c in range(group, min(group + 4, cols)):
                p = np.float64(pop[r, c])
                if plain and p == 0.0:
                    before = 0
                    continue
                if p == 0.0 and has_land and (not has_built or built[r, c] == 0.0):
                    # most cells: nobody and nothing built, on sea or on open land
                    before = 0
                    share = np.float64(land[r, c])
                    if share == share:
                        if share > land_max:
                            land_max = share
                        if share < land_min:
                            land_min = share
                        if has_built:
                            built_min, built_max = min(built_min, 0.0), max(built_max, 0.0)
                        if share < land_unit and not share / land_unit >= water_land:
                            four |= 2 << (2 * (c & 3))
                        continue
                share = 1.0
                state = 0
                flag = 0
                if p != p:
                    missing += 1
                elif p < 0.0 or p > people_limit:
                    if p == np.inf or p == -np.inf:
                        infinite += 1
                    elif p < 0.0:
                        negative += 1
                    else:
                        huge += 1
                    if first_row < 0:
                        first_row, first_col, first_value = r, c, p
                else:
                    row_people += p
                    if p > pop_max:
                        pop_max = p
                b = 0.0
                if has_built:
                    b = np.float64(built[r, c])
                    if b > built_max:
                        built_max = b
                    if b < built_min:
                        built_min = b
                if has_land:
                    share = np.float64(land[r, c])
                    if share > land_max:
                        land_max = share
                    if share < land_min:
                        land_min = share
                    share /= land_unit
                    if not share >= water_land:
                        if share != share and p != p:
                            state = 3
                        elif not p > 0.0 and not b > 0.0:
                            state = 2
                        elif p == 0.0 and share == share:
                            state = 1
                    elif p != p:
                        state = 3
                    if share == 0.0 and p > 0.0:
                        no_land += 1
                elif p != p:
                    state = 3
                if state:
                    four |= state << (2 * (c & 3))
                if p > 0.0:
                    # people on a cell without land: infinitely dense, as in the R reference
                    density = p / share / cell_km2 if share != 0.0 else np.inf
                    if density >= centre_density:
                        flag |= 1
                    if density >= cluster_density:
                        flag |= 2
                    if separate_semi and density >= semi_density:
                        flag |= 4
                    if level2 and density >= low_density:
                        low[r, c >> 3] |= np.uint8(1 << (c & 7))
                        any_low = True
                if use_built and b > 0.0:
                    part = b / built_unit
                    part = part / share if share != 0.0 else np.inf
                    # rounded to three decimals before the test, as GHSL does
                    if np.floor(part * 1000.0 + 0.5) / 1000.0 >= centre_built:
                        flag |= 1
                if flag:
                    flags[r, c] = flag
                    marked[r] |= flag
                    opened = flag & ~before
                    n0 += opened & 1
                    n1 += (opened >> 1) & 1
                    n2 += (opened >> 2) & 1
                before = flag
            if four:
                states[r, group >> 2] = four
                any_state = True
        # a sum a row: the same whatever rows a strip has
        people += row_people
    if pop_max == -np.inf and missing < rows * cols and not (negative or infinite or huge):
        pop_max = 0.0
    stats = np.zeros(N_STATS)
    stats[S_NEGATIVE], stats[S_INFINITE], stats[S_HUGE] = negative, infinite, huge
    stats[S_MISSING], stats[S_PEOPLE], stats[S_NO_LAND] = missing, people, no_land
    stats[S_BUILT_MIN], stats[S_BUILT_MAX] = built_min, built_max
    stats[S_LAND_MIN], stats[S_LAND_MAX] = land_min, land_max
    stats[S_FIRST_ROW], stats[S_FIRST_COL], stats[S_FIRST_VALUE] = first_row, first_col, first_value
    stats[S_POP_MAX] = pop_max
    return (
        _runs_of(flags, marked, 1, n0, pop),
        _runs_of(flags, marked, 2, n1, pop),
        _runs_of(flags, marked, 4, n2, pop),
        states,
        any_state,
        low,
        any_low,
        stats,
    )


@njit(cache=True, nogil=True)
def _runs_of(flags: Array, marked: Array, bit: int, count: int, pop: Array) -> Any:
    """List the runs of cells with a criterium and the people in them."""
    row = np.empty(count, np.int32)
    start = np.empty(count, np.int32)
    stop = np.empty(count, np.int32)
    people = np.empty(count, np.float64)
    if count == 0:
        return row, start, stop, people
    rows, cols = pop.shape
    words = flags.view(np.uint64)
    n = 0
    for r in range(rows):
        c = 0 if marked[r] & bit else cols
        while c < cols:
            # eight empty cells at a time
            if c & 7 == 0 and words[r, c >> 3] == 0:
                c += 8
                continue
            if not flags[r, c] & bit:
                c += 1
                continue
            begin = c
            total = 0.0
            while c < cols and flags[r, c] & bit:
                p = np.float64(pop[r, c])
                if p > 0.0:
                    total += p
                c += 1
            row[n], start[n], stop[n], people[n] = r, begin, c, total
            n += 1
    return row, start, stop, people


@njit(cache=True, nogil=True)
def _root(parent: Array, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True, nogil=True)
def join_runs(row_start: Array, start: Array, stop: Array, reach: int) -> Any:
    """Join runs of neighbouring rows into components.

    Parameters
    ----------
    row_start
        Index of the first run of each row, and one past the last.
    start, stop
        First column and column after the last of each run, sorted within rows.
    reach
        0 for 4-connected, 1 for 8-connected components.

    Returns
    -------
    tuple
        Component of each run, numbered in row-major order of their first run,
        and their number.
    """
    n = start.size
    parent = np.arange(n)
    for row in range(1, row_start.size - 1):
        i, i_end = row_start[row - 1], row_start[row]
        j, j_end = row_start[row], row_start[row + 1]
        while i < i_end and j < j_end:
            if start[i] < stop[j] + reach and start[j] < stop[i] + reach:
                a, b = _root(parent, i), _root(parent, j)
                if a < b:
                    parent[b] = a
                elif b < a:
                    parent[a] = b
            if stop[i] < stop[j]:
                i += 1
            else:
                j += 1
    component = np.empty(n, np.int32)
    count = 0
    for i in range(n):
        root = _root(parent, i)
        # the root of a component is its first run, so it was numbered already
        if root == i:
            component[i] = count
            count += 1
        else:
            component[i] = component[root]
    return component, count


@njit(cache=True, nogil=True)
def sum_by(component: Array, values: Array, count: int) -> Array:
    """Sum values by component, in order, so that the sum never depends on chunks."""
    total = np.zeros(count)
    for i in range(component.size):
        total[component[i]] += values[i]
    return total


@njit(cache=True, nogil=True)
def mark_near(
    row_start: Array,
    start: Array,
    stop: Array,
    component: Array,
    marked: Array,
    other_row_start: Array,
    other_start: Array,
    other_stop: Array,
    distance: int,
) -> None:
    """Mark components with a cell within some 8-neighbour steps of other runs."""
    height = row_start.size - 1
    for row in range(height):
        if row_start[row] == row_start[row + 1]:
            continue
        for other in range(max(0, row - distance), min(height, row + distance + 1)):
            i, i_end = row_start[row], row_start[row + 1]
            j, j_end = other_row_start[other], other_row_start[other + 1]
            while i < i_end and j < j_end:
                low, high = other_start[j] - distance, other_stop[j] + distance
                if start[i] < high and low < stop[i]:
                    marked[component[i]] = True
                if stop[i] < high:
                    i += 1
                else:
                    j += 1


# --- sparse cells: an open-addressing table from row·width+column to a label -------


@njit(cache=True, nogil=True)
def _slot(keys: Array, key: int) -> int:
    mask = keys.size - 1
    # a full mix (MurmurHash3's finaliser): neighbouring cells must not crowd together
    h = np.uint64(key)
    h = (h ^ (h >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    h = (h ^ (h >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    i = np.int64((h ^ (h >> np.uint64(33))) & np.uint64(mask))
    while keys[i] != -1 and keys[i] != key:
        i = (i + 1) & mask
    return i


@njit(cache=True, nogil=True)
def _label_at(keys: Array, labels: Array, key: int) -> int:
    i = _slot(keys, key)
    return labels[i] if keys[i] == key else -1


@njit(cache=True, nogil=True)
def _enlarge(keys: Array, labels: Array) -> Any:
    more_keys = np.full(keys.size * 2, -1, np.int64)
    more_labels = np.empty(keys.size * 2, np.int32)
    for i in range(keys.size):
        if keys[i] != -1:
            j = _slot(more_keys, keys[i])
            more_keys[j] = keys[i]
            more_labels[j] = labels[i]
    return more_keys, more_labels


@njit(cache=True, nogil=True)
def _state_at(states: Array, row: int, col: int) -> int:
    if states.shape[0] == 0:
        return 0
    return (states[row, col >> 2] >> np.uint8(2 * (col & 3))) & 3


@njit(cache=True, nogil=True)
def grow_centres(
    row: Array,
    start: Array,
    stop: Array,
    label: Array,
    height: int,
    width: int,
    states: Array,
    smoothing: int,
    max_gap_cells: int,
) -> Any:
    """Smooth the edges of centres, then fill their gaps.

    Only the frontier is visited: neighbours of cells added in the last pass.

    Parameters
    ----------
    row, start, stop, label
        Runs of the centres.
    states
        Packed states of all cells, or an array without rows.
    smoothing
        0 none, 1 five of eight neighbours (R2022A), 2 majority among neighbours
        that are land or populated (R2023A).
    max_gap_cells
        Largest gap to fill, cells.

    Returns
    -------
    tuple
        Sorted keys (row·width+column) of all centre cells and their labels.
    """
    total = 0
    for i in range(row.size):
        total += stop[i] - start[i]
    capacity = 1024
    while capacity < 3 * total:
        capacity *= 2
    keys = np.full(capacity, -1, np.int64)
    labels = np.empty(capacity, np.int32)
    fresh = np.empty(total, np.int64)
    n = 0
    for i in range(row.size):
        for c in range(start[i], stop[i]):
            key = np.int64(row[i]) * width + c
            j = _slot(keys, key)
            keys[j] = key
            labels[j] = label[i]
            fresh[n] = key
            n += 1
    count = n
    while smoothing and fresh.size:
        # candidates: cells beside those added last, outside every centre
        candidates = np.empty(max(64, fresh.size), np.int64)
        m = 0
        for key in fresh:
            r, c = key // width, key % width
            for rr in range(max(0, r - 1), min(height, r + 2)):
                for cc in range(max(0, c - 1), min(width, c + 2)):
                    other = rr * width + cc
                    if _label_at(keys, labels, other) < 0:
                        if m == candidates.size:
                            candidates = _grow(candidates)
                        candidates[m] = other
                        m += 1
        candidates = np.unique(candidates[:m])
        added = np.empty(candidates.size, np.int64)
        given = np.empty(candidates.size, np.int32)
        m = 0
        seen_label = np.empty(8, np.int32)
        seen_count = np.empty(8, np.int64)
        for key in candidates:
            r, c = key // width, key % width
            state = _state_at(states, r, c)
            if state == MISSING or (smoothing == 2 and state == WATER):
                continue
            valid = 0
            kinds = 0
            for rr in range(r - 1, r + 2):
                for cc in range(c - 1, c + 2):
                    if rr == r and cc == c:
                        continue
                    if rr < 0 or cc < 0 or rr >= height or cc >= width:
                        valid += 1
                        continue
                    lab = _label_at(keys, labels, rr * width + cc)
                    if lab >= 0:
                        valid += 1
                        k = 0
                        while k < kinds and seen_label[k] != lab:
                            k += 1
                        if k == kinds:
                            seen_label[k] = lab
                            seen_count[k] = 0
                            kinds += 1
                        seen_count[k] += 1
                    elif _state_at(states, rr, cc) == PLAIN:
                        valid += 1
            best = 0
            for k in range(1, kinds):
                # the first met in row-major order wins a tie
                if seen_count[k] > seen_count[best]:
                    best = k
            if kinds == 0:
                continue
            if (smoothing == 1 and seen_count[best] >= 5) or (
                smoothing == 2 and 2 * seen_count[best] > valid
            ):
                added[m] = key
                given[m] = seen_label[best]
                m += 1
        fresh = added[:m].copy()
        for k in range(m):
            if 2 * (count + 1) > keys.size:
                keys, labels = _enlarge(keys, labels)
            j = _slot(keys, fresh[k])
            keys[j] = fresh[k]
            labels[j] = given[k]
            count += 1
    if max_gap_cells > 0:
        found = np.empty(64, np.int64)
        mark = np.empty(64, np.int32)
        m = 0
        queue = np.empty(max_gap_cells + 1, np.int64)
        for s in range(keys.size):
            # the first cell of a gap in row-major order lies right of and below
            # cells of its centre; looking below each centre cell finds it
            if keys[s] < 0:
                continue
            r, c = keys[s] // width + 1, keys[s] % width
            if r >= height or c == 0:
                continue
            lab = labels[s]
            key = r * width + c
            if _label_at(keys, labels, key) >= 0 or _label_at(keys, labels, key - 1) != lab:
                continue
            queue[0] = key
            size = 1
            head = 0
            enclosed = True
            while head < size and enclosed:
                rr, cc = queue[head] // width, queue[head] % width
                head += 1
                for way in range(4):
                    nr = rr + (way == 1) - (way == 0)
                    nc = cc + (way == 3) - (way == 2)
                    if nr < 0 or nc < 0 or nr >= height or nc >= width:
                        enclosed = False
                        break
                    other = nr * width + nc
                    found_label = _label_at(keys, labels, other)
                    if found_label >= 0:
                        if found_label != lab:
                            enclosed = False
                            break
                        continue
                    known = False
                    for q in range(size):
                        if queue[q] == other:
                            known = True
                            break
                    if not known:
                        if size == max_gap_cells:
                            enclosed = False
                            break
                        queue[size] = other
                        size += 1
            if enclosed:
                for q in range(size):
                    if m == found.size:
                        found, mark = _grow(found), _grow(mark)
                    found[m] = queue[q]
                    mark[m] = lab
                    m += 1
        for k in range(m):
            if 2 * (count + 1) > keys.size:
                keys, labels = _enlarge(keys, labels)
            j = _slot(keys, found[k])
            if keys[j] == -1:
                count += 1
            keys[j] = found[k]
            labels[j] = mark[k]
    kept = np.empty(count, np.int64)
    kept_label = np.empty(count, np.int32)
    m = 0
    for s in range(keys.size):
        if keys[s] >= 0:
            kept[m] = keys[s]
            kept_label[m] = labels[s]
            m += 1
    order = np.argsort(kept[:m])
    return kept[:m][order], kept_label[:m][order]


@njit(cache=True, nogil=True)
def cells_to_runs(keys: Array, labels: Array, width: int) -> Any:
    """Turn sorted cell keys into runs of equal label."""
    n = keys.size
    row = np.empty(n, np.int32)
    start = np.empty(n, np.int32)
    stop = np.empty(n, np.int32)
    label = np.empty(n, np.int32)
    m = 0
    for i in range(n):
        r, c = keys[i] // width, keys[i] % width
        if m and row[m - 1] == r and stop[m - 1] == c and label[m - 1] == labels[i]:
            stop[m - 1] = c + 1
        else:
            row[m], start[m], stop[m], label[m] = r, c, c + 1, labels[i]
            m += 1
    return row[:m].copy(), start[:m].copy(), stop[:m].copy(), label[:m].copy()


@njit(cache=True, nogil=True)
def paint_base(
    out: Array, states: Array, low: Array, plain: int, dense: int, water: int, missing: int
) -> None:
    """Fill a strip with the classes that need no clusters.

    Cells are ``plain``, or ``dense`` where their low-density bit is set;
    ``water`` and ``missing`` replace ``plain`` where the state says so.
    """
    rows, cols = out.shape
    has_states, has_low = states.shape[0] > 0, low.shape[0] > 0
    for r in range(rows):
        if has_low:
            for c in range(cols):
                out[r, c] = dense if (low[r, c >> 3] >> np.uint8(c & 7)) & 1 else plain
        else:
            out[r, :] = plain
        if has_states:
            for byte in range(states.shape[1]):
                four = states[r, byte]
                if four == 0:
                    continue
                for k in range(4):
                    c = 4 * byte + k
                    state = (four >> np.uint8(2 * k)) & 3
                    if c >= cols or state < 2:
                        continue
                    if state == 3:
                        out[r, c] = missing
                    elif out[r, c] == plain:
                        out[r, c] = water


@njit(cache=True, nogil=True)
def paint_runs(
    out: Array, first_row: int, row: Array, start: Array, stop: Array, value: Array
) -> None:
    """Paint runs over a strip; runs of value 0 are left out."""
    for i in range(row.size):
        if value[i] != 0:
            out[row[i] - first_row, start[i] : stop[i]] = value[i]
