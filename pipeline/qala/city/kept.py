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

from qala.city._columns import wkb_of

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

    from qala.city.solids import Solids

#: rows of a batch of the file
BATCH = 10_000
_GEOMETRY = "geometry"
#: left, bottom, right, top of each outline, beside its columns
_BOX = ("minx", "miny", "maxx", "maxy")
#: tells the number of rows, for which all batches would be read otherwise
_ROWS = b"rows"


@dataclass(frozen=True)
class Piece:
    """Some rows of a table of polygons, as exports take them.

    Attributes
    ----------
    columns
        Arrow record batch of the columns.
    outlines
        Arrow well-known binary.
    boxes
        (N, 4) left, bottom, right, top of each outline.
    """

    columns: Any
    outlines: Any
    boxes: np.ndarray[Any, Any]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.outlines)

    def frame(self) -> pd.DataFrame:
        """Return the columns."""
        found: pd.DataFrame = self.columns.to_pandas()
        return found

    def solids(self) -> Solids:
        """Make the solids of the rows."""
        from qala.city.solids import solids_of

        names = self.columns.schema.names
        return solids_of(dict(zip(names, self.columns.columns, strict=True)), self.outlines)

    def rows(self, first: int, last: int) -> Piece:
        """Return some of the rows."""
        count = last - first
        return Piece(
            self.columns.slice(first, count), self.outlines.slice(first, count),
            self.boxes[first:last],
        )  # fmt: skip

    def before(self, other: Piece) -> Piece:
        """Return these rows and those of another piece."""
        import pyarrow as pa

        both = pa.Table.from_batches([self.columns, other.columns]).combine_chunks()
        return Piece(
            pa.record_batch([c.combine_chunks() for c in both.columns], schema=both.schema),
            pa.concat_arrays([self.outlines, other.outlines]),
            np.concatenate([self.boxes, other.boxes]),
        )


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

        # copied out of their batch, of which they would hold all columns
        parts = [b.column(0).take(np.arange(len(b))) for b in self._batches([name])]
        found: pd.Series = pa.chunked_array(parts, self.schema.field(name).type).to_pandas()
        return found.rename(name)

    @functools.cached_property
    def bounds(self) -> pd.DataFrame:
        """Left, bottom, right, top of each outline, as of a GeoDataFrame."""
        import pandas as pd

        boxes = [_boxes_of(b) for b in self._batches(_BOX)]
        return pd.DataFrame(np.concatenate([np.empty((0, 4)), *boxes]), columns=list(_BOX))

    @property
    def total_bounds(self) -> np.ndarray[Any, Any]:
        """Left, bottom, right, top of all outlines."""
        box = self.bounds.to_numpy()
        return np.concatenate([box[:, :2].min(axis=0), box[:, 2:].max(axis=0)])

    def head(self) -> gpd.GeoDataFrame:
        """Return the columns without rows."""
        import geopandas as gpd

        return gpd.GeoDataFrame(self.schema.empty_table().to_pandas(), geometry=[], crs=self.crs)

    def pieces(self, columns: Sequence[str] | None = None) -> Iterator[Piece]:
        """Read the rows batch by batch; outlines always, of the columns those named."""
        names = [c for c in self.schema.names if columns is None or c in columns]
        for batch in self._batches([*names, _GEOMETRY, *_BOX]):
            yield Piece(batch.select(names), batch.column(len(names)), _boxes_of(batch))

    def _batches(self, names: Sequence[str]) -> Iterator[Any]:
        import pyarrow as pa

        all_of = [*self.schema.names, _GEOMETRY, *_BOX]
        options = pa.ipc.IpcReadOptions(included_fields=[all_of.index(n) for n in names])
        # not mapped into memory, where every page that was read would count
        with pa.OSFile(str(self.file)) as file, pa.ipc.open_file(file, options=options) as source:
            for i in range(source.num_record_batches):
                yield source.get_batch(i).select(list(names))


def _boxes_of(batch: Any) -> np.ndarray[Any, Any]:
    return np.column_stack([np.asarray(batch.column(c)) for c in _BOX])


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

    from qala.files import replacing

    schema = schema_of(table)
    boxes = [pa.field(c, pa.float64()) for c in _BOX]
    fields = [*schema, pa.field(_GEOMETRY, pa.binary()), *boxes]
    whole = pa.schema(fields, metadata={_ROWS: str(len(table))})
    with (
        replacing(Path(file)) as work,
        pa.OSFile(str(work), "wb") as sink,
        pa.ipc.new_file(sink, whole) as writer,
    ):
        for piece in pieces(table):
            sides = [pa.array(side) for side in piece.boxes.T]
            values = [*piece.columns.columns, piece.outlines, *sides]
            writer.write_batch(pa.record_batch(values, schema=whole))
    return open_kept(file, table.crs)


def open_kept(file: str | Path, crs: Any) -> Kept:
    """Return the table of a file that :func:`keep` wrote."""
    import pyarrow as pa
    import pyproj

    with pa.OSFile(str(file)) as source, pa.ipc.open_file(source) as found:
        schema = found.schema
    crs, count = pyproj.CRS.from_user_input(crs), int(schema.metadata[_ROWS])
    return Kept(Path(file), crs, pa.schema(list(schema)[: -1 - len(_BOX)]), count)


def pieces(table: gpd.GeoDataFrame | Kept, columns: Sequence[str] | None = None) -> Iterator[Piece]:
    """Give the rows of a table some at a time, wherever it lies.

    Parameters
    ----------
    table
        In memory or on disk.
    columns
        Those needed beside the outlines; all where None.
    """
    import pyarrow as pa
    import shapely

    if isinstance(table, Kept):
        yield from table.pieces(columns)
        return
    schema = schema_of(table, columns)
    for first in range(0, len(table), BATCH):
        part = table.iloc[first : first + BATCH]
        shapes = part.geometry.to_numpy()
        yield Piece(
            pa.record_batch(_columns(part, schema), schema=schema), wkb_of(shapes),
            shapely.bounds(shapes),
        )  # fmt: skip


def head_of(table: Any) -> Any:
    """Return what tells a table's columns and CRS: itself in memory, else without rows."""
    return table.head() if isinstance(table, Kept) else table


def schema_of(table: gpd.GeoDataFrame | Kept, columns: Sequence[str] | None = None) -> Any:
    """Return the Arrow schema of a table's columns, or of some, outlines aside."""
    import pyarrow as pa

    if isinstance(table, Kept):
        fields = list(table.schema)
    else:
        wanted = [c for c in table.columns if columns is None or c in columns]
        fields = [
            pa.field(str(c), _arrow_type(table[c])) for c in wanted if c != table.geometry.name
        ]
    return pa.schema([f for f in fields if columns is None or f.name in columns])


def _columns(part: pd.DataFrame, schema: Any) -> list[Any]:
    """Return some rows' columns as Arrow arrays of a schema."""
    import pyarrow as pa

    arrays = [pa.array(part[f.name], type=f.type, from_pandas=True) for f in schema]
    return [a.combine_chunks() if isinstance(a, pa.ChunkedArray) else a for a in arrays]


def _arrow_type(column: Any) -> Any:
    """Return the Arrow type of a column; text where nothing tells."""
    import pyarrow as pa

    kind = pa.array(column.head(0) if column.dtype != object else column, from_pandas=True).type
    if pa.types.is_null(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind):
        return pa.string()
    return kind
