"""Columns of a table, pandas or Arrow, as the plain arrays that compiled loops read."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def texts(column: Any) -> Any:
    """Return texts as one Arrow array, missing ones empty."""
    import pyarrow as pa

    if isinstance(column, pa.Array):
        made = column.cast(pa.string())
    else:
        made = pa.array(column, type=pa.string(), from_pandas=True)
    if isinstance(made, pa.ChunkedArray):
        made = made.combine_chunks()
    return made.fill_null("")


def floats(column: Any) -> Array:
    """Return numbers of a pandas or Arrow column, NaN where there is none."""
    import pyarrow as pa

    if isinstance(column, pa.Array):
        return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), float)
    if isinstance(column, np.ndarray):
        return np.asarray(column, float)
    return np.asarray(column.to_numpy(float, na_value=np.nan))


def bytes_of(array: Any) -> tuple[Array, Array]:
    """Return offsets and bytes of an Arrow array of texts or bytes."""
    import pyarrow as pa

    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    wide = pa.types.is_large_binary(array.type) or pa.types.is_large_string(array.type)
    kind = np.int64 if wide else np.int32
    _, places, data = array.buffers()
    offsets = np.frombuffer(places, kind)[array.offset : array.offset + len(array) + 1]
    return offsets, np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)


def wkb_of(shapes: Any) -> Any:
    """Return geometries as an Arrow array of well-known binary."""
    import pyarrow as pa
    import shapely

    return pa.array(shapely.to_wkb(np.asarray(shapes, object)), pa.binary())
