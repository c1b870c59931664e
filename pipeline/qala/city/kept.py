"""A table kept on disk: rows come some at a time, columns one at a time.

What is written from the table of buildings reads it through :func:`pieces`, and so takes a
GeoDataFrame in memory and a :class:`Kept` alike.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

#: rows of a batch of the file
BATCH = 10_000
_GEOMETRY = "geometry"
#: left, bottom, right, top of each outline, beside its columns
_BOX = ("minx", "miny", "maxx", "maxy")


@dataclass(frozen=True)
class Kept:
    """Polygons with their columns in an Arrow file.

    Attributes
    ----------
    file
        The file; outlines lie there as well-known binary.
    crs
        CRS of the outlines.
    schema
        Names and Arrow types of the columns, outlines aside.
    count
        Rows.
    """

    file: Path
    crs: Any
    schema: Any
    count: int

    @property
    def columns(self) -> list[str]:
        """Names of the columns; the outlines come last."""
        return [*self.schema.names, _GEOMETRY]

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.count

    def __contains__(self, name: str) -> bool:
        """Tell whether there is such a column."""
        return name in self.columns

    def __getitem__(self, name: str) -> pd.Series:
        """Read one column."""
        import pyarrow as pa

        parts = [b.column(0) for b in self._batches([name])]
        found: pd.Series = pa.chunked_array(parts, self.schema.field(name).type).to_pandas()
        return found.rename(name)

    @functools.cached_property
    def bounds(self) -> pd.DataFrame:
        """Left, bottom, right, top of each outline, as of a GeoDataFrame."""
        import pandas as pd

        boxes = [np.column_stack([np.asarray(c) for c in b.columns]) for b in self._batches(_BOX)]
        return pd.DataFrame(np.concatenate([np.empty((0, 4)), *boxes]), columns=list(_BOX))

    @property
    def total_bounds(self) -> np.ndarray[Any, Any]:
        """Left, bottom, right, top of all outlines."""
        box = self.bounds.to_numpy()
        return np.concatenate([box[:, :2].min(axis=0), box[:, 2:].max(axis=0)])

    def head(self) -> gpd.GeoDataFrame:
        """Return the columns without rows."""
        return self._frame(self.schema.empty_table(), [])

    def pieces(self, columns: Sequence[str] | None = None) -> Iterator[gpd.GeoDataFrame]:
        """Read the rows batch by batch; outlines always, of the columns those named."""
        names = [c for c in self.schema.names if columns is None or c in columns]
        for batch in self._batches([*names, _GEOMETRY]):
            yield self._frame(batch.select(names), batch.column(len(names)))

    def _frame(self, columns: Any, outlines: Any) -> gpd.GeoDataFrame:
        import geopandas as gpd
        import shapely

        shapes = shapely.from_wkb(np.asarray(outlines, dtype=object))
        return gpd.GeoDataFrame(columns.to_pandas(), geometry=shapes, crs=self.crs)

    def _batches(self, names: Sequence[str]) -> Iterator[Any]:
        import pyarrow as pa

        all_of = [*self.schema.names, _GEOMETRY, *_BOX]
        options = pa.ipc.IpcReadOptions(included_fields=[all_of.index(n) for n in names])
        # not mapped into memory, where every page that was read would count
        with pa.OSFile(str(self.file)) as file, pa.ipc.open_file(file, options=options) as source:
            for i in range(source.num_record_batches):
                yield source.get_batch(i).select(list(names))


def keep(table: gpd.GeoDataFrame, file: str | Path) -> Kept:
    """Write polygons and their columns to an Arrow file.

    Parameters
    ----------
    table
        Polygons; columns of numbers, texts or truth values.
    file
        The file; an older one is replaced when the new one is whole.
    """
    import pyarrow as pa
    import shapely

    from qala.export._files import replacing

    names = [str(c) for c in table.columns if c != table.geometry.name]
    schema = pa.schema([pa.field(c, arrow_type(table[c])) for c in names])
    boxes = [pa.field(c, pa.float64()) for c in _BOX]
    whole = pa.schema([*schema, pa.field(_GEOMETRY, pa.binary()), *boxes])
    with (
        replacing(Path(file)) as work,
        pa.OSFile(str(work), "wb") as sink,
        pa.ipc.new_file(sink, whole) as writer,
    ):
        for first in range(0, len(table), BATCH):
            part = table.iloc[first : first + BATCH]
            shapes = part.geometry.to_numpy()
            values = [*columns_of(part, schema), pa.array(shapely.to_wkb(shapes), pa.binary()),
                      *(pa.array(side) for side in shapely.bounds(shapes).T)]  # fmt: skip
            writer.write_batch(pa.record_batch(values, schema=whole))
    return open_kept(file, table.crs)


def open_kept(file: str | Path, crs: Any) -> Kept:
    """Return the table of a file that :func:`keep` wrote."""
    import pyarrow as pa

    with pa.OSFile(str(file)) as source, pa.ipc.open_file(source) as found:
        schema, count = found.schema, found.count_rows()
    return Kept(Path(file), crs, pa.schema(list(schema)[: -1 - len(_BOX)]), count)


def pieces(
    table: gpd.GeoDataFrame | Kept, columns: Sequence[str] | None = None
) -> Iterator[gpd.GeoDataFrame]:
    """Give the rows of a table some at a time, wherever it lies.

    Parameters
    ----------
    table
        In memory or on disk.
    columns
        Those needed beside the outlines; all where None.
    """
    if isinstance(table, Kept):
        yield from table.pieces(columns)
        return
    for first in range(0, len(table), BATCH):
        yield table.iloc[first : first + BATCH]


def head_of(table: Any) -> Any:
    """Return what tells a table's columns and CRS: itself in memory, else without rows."""
    return table.head() if isinstance(table, Kept) else table


def schema_of(table: gpd.GeoDataFrame | Kept, columns: Sequence[str]) -> Any:
    """Return the Arrow schema of some columns."""
    import pyarrow as pa

    if isinstance(table, Kept):
        return pa.schema([table.schema.field(c) for c in columns])
    return pa.schema([pa.field(str(c), arrow_type(table[c])) for c in columns])


def columns_of(part: pd.DataFrame, schema: Any) -> list[Any]:
    """Return some rows' columns as Arrow arrays of a schema."""
    import pyarrow as pa

    arrays = [pa.array(part[f.name], type=f.type, from_pandas=True) for f in schema]
    return [a.combine_chunks() if isinstance(a, pa.ChunkedArray) else a for a in arrays]


def arrow_type(column: Any) -> Any:
    """Return the Arrow type of a column; text where nothing tells."""
    import pyarrow as pa

    kind = pa.array(column.head(0) if column.dtype != object else column, from_pandas=True).type
    if pa.types.is_null(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind):
        return pa.string()
    return kind
