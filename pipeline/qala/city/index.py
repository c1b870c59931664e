"""A persistent 3-D index of the twin's objects: box, nearest and ray queries from disk."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qala.city.kept import Kept, pieces
from qala.errors import InputError
from qala.files import replacing

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

Array = np.ndarray[Any, Any]

_NAME = "index3d"


def write_index(table: gpd.GeoDataFrame | Kept, folder: str | Path) -> Path:
    """Write the boxes of all solids as an R*-tree on disk.

    Parameters
    ----------
    table
        Buildings with ``id, lod, base_z, min_height, height`` and outlines, in memory or on disk.
    folder
        Twin folder; the files are ``index3d.dat``, ``index3d.idx`` and ``index3d.json``.

    Notes
    -----
    libspatialindex bulk loads the boxes; its page cache and not the city bounds
    the memory of a query.
    """
    from rtree import index

    where = Path(folder)
    where.mkdir(parents=True, exist_ok=True)
    for suffix in (".dat", ".idx"):
        (where / f".{_NAME}{suffix}").unlink(missing_ok=True)
    properties = index.Property(dimension=3, leaf_capacity=100, index_capacity=100)
    tree = index.Index(
        str(where / f".{_NAME}"), _entries(table), properties=properties, interleaved=True
    )
    tree.close()
    for suffix in (".dat", ".idx"):
        (where / f".{_NAME}{suffix}").replace(where / f"{_NAME}{suffix}")
    with replacing(where / f"{_NAME}.json") as part, part.open("w", encoding="utf-8") as out:
        out.write(f'{{"crs": "EPSG:{table.crs.to_epsg()}", "ids": [')
        comma = ""
        for live, _ in _live(table):
            text = json.dumps(live["id"].tolist())[1:-1]
            if text:
                out.write(comma + text)
                comma = ", "
        out.write("]}")
    return where / f"{_NAME}.json"


def _live(table: gpd.GeoDataFrame | Kept) -> Iterator[tuple[pd.DataFrame, Array]]:
    """Give the rows that have a solid, some at a time, with the boxes of their outlines."""
    for piece in pieces(table, ("id", "lod", "base_z", "min_height", "height")):
        part = piece.frame()
        live = (part["lod"] != "0.2").to_numpy()
        yield part[live], piece.boxes[live]


def _entries(table: gpd.GeoDataFrame | Kept) -> Iterator[tuple[int, tuple[float, ...], None]]:
    """Give number and box of each solid."""
    first = 0
    for live, flat in _live(table):
        base, low, high = (live[c].to_numpy(float) for c in ("base_z", "min_height", "height"))
        boxes = np.column_stack([flat[:, :2], base + low, flat[:, 2:], base + high]).tolist()
        for number, box in enumerate(boxes, first):
            yield number, tuple(box), None
        first += len(boxes)


@dataclass(frozen=True)
class CityIndex:
    """The open index of a twin.

    Attributes
    ----------
    tree
        R*-tree on disk.
    ids
        Object id of each entry.
    crs
        CRS of all coordinates; metres.
    """

    tree: Any
    ids: Sequence[str]
    crs: str

    def query(self, box: Sequence[float]) -> list[str]:
        """Return ids of objects whose box meets a box.

        Parameters
        ----------
        box
            x0, y0, x1, y1 or x0, y0, z0, x1, y1, z1 in metres.
        """
        if len(box) == 4:
            box = (box[0], box[1], -1e6, box[2], box[3], 1e6)
        if len(box) != 6 or any(box[i] > box[i + 3] for i in range(3)):
            raise InputError(f"box {tuple(box)}", "x0, y0, z0, x1, y1, z1 with x0 <= x1 and so on")
        return sorted({self.ids[i] for i in self.tree.intersection(tuple(box))})

    def nearest(self, point: Sequence[float], count: int = 1) -> list[str]:
        """Return ids of the objects whose boxes lie nearest to x, y, z (metres), nearest first."""
        if len(point) != 3:
            raise InputError(f"point {tuple(point)}", "x, y, z in metres")
        place = tuple(float(v) for v in point) * 2
        near = {
            item.id: float(
                np.linalg.norm(
                    np.maximum(
                        np.maximum(np.array(item.bbox[:3]) - place3, place3 - item.bbox[3:]), 0.0
                    )
                )
            )
            for place3 in (np.asarray(point, float),)
            for item in self.tree.nearest(place, count, objects=True)
        }
        return [self.ids[i] for i in sorted(near, key=lambda i: (near[i], self.ids[i]))][:count]

    def ray(self, origin: Sequence[float], direction: Sequence[float], length: float) -> list[str]:
        """Return ids of objects whose boxes a ray meets, in the order it enters them.

        Parameters
        ----------
        origin
            x, y, z in metres.
        direction
            Any length but 0.
        length
            How far the ray goes, metres.
        """
        start, way = np.asarray(origin, float), np.asarray(direction, float)
        size = float(np.linalg.norm(way))
        if size == 0 or length <= 0:
            raise InputError("the ray has no direction or length", "a direction and metres above 0")
        way = way / size
        entered: dict[str, float] = {}
        # boxes along the ray are asked piece by piece, so that a long ray stays narrow
        step = max(length / 64, 25.0)
        for begin in np.arange(0.0, length, step):
            ends = np.vstack([start + way * begin, start + way * min(begin + step, length)])
            piece = tuple(ends.min(axis=0)) + tuple(ends.max(axis=0))
            for item in self.tree.intersection(piece, objects=True):
                low, high = np.array(item.bbox[:3]), np.array(item.bbox[3:])
                at = _enters(start, way, low, high)
                if at is not None and at <= length:
                    name = self.ids[item.id]
                    entered[name] = min(entered.get(name, np.inf), at)
        return sorted(entered, key=lambda n: (entered[n], n))

    def close(self) -> None:
        """Close the files."""
        self.tree.close()

    def __enter__(self) -> CityIndex:
        """Use as a context."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files."""
        self.close()

    def __iter__(self) -> Iterator[str]:
        """Iterate over the ids of all objects."""
        return iter(self.ids)


def _enters(start: Array, way: Array, low: Array, high: Array) -> float | None:
    """Distance at which a ray enters a box, 0 inside it, None when it misses."""
    near, far = 0.0, np.inf
    for d in range(3):
        if abs(way[d]) < 1e-12:
            if start[d] < low[d] or start[d] > high[d]:
                return None
            continue
        a, b = (low[d] - start[d]) / way[d], (high[d] - start[d]) / way[d]
        near, far = max(near, min(a, b)), min(far, max(a, b))
    return float(near) if near <= far else None


def open_index(path: str | Path) -> CityIndex:
    """Open the index of a twin folder (or of the ``city.gpkg`` in it).

    Raises
    ------
    InputError
        When there is no index.
    """
    from rtree import index

    where = Path(path)
    where = where.parent if where.suffix == ".gpkg" else where
    record = where / f"{_NAME}.json"
    if not record.is_file():
        raise InputError(f"{where} has no {_NAME}.json", "a twin folder made by qala city")
    data = json.loads(record.read_text())
    tree = index.Index(str(where / _NAME), properties=index.Property(dimension=3, overwrite=False))
    return CityIndex(tree, data["ids"], data["crs"])
