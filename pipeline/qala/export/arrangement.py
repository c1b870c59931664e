"""How the layers of a GeoPackage lie on a map: order, groups, what is shown at first.

Standard library alone: the QGIS plugin carries this file too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

#: tables that belong to QGIS or to the format, not to the user
_OWN = frozenset({"layer_styles", "qgis_projects"})
#: first words of layer names → group, and rank on the map within it (low is on top)
_RULES: tuple[tuple[str, str, int], ...] = (
    ("urban_centres", "map", 10),
    ("centres", "map", 11),
    ("areas", "map", 20),
    ("cores", "map", 15),
    ("zones", "map", 25),
    ("commuting", "map", 25),
    ("flows", "map", 5),
    ("stops", "map", 3),
    ("pois", "map", 4),
    ("buildings", "map", 12),
    ("footprints", "map", 14),
    ("streets", "map", 16),
    ("railways", "map", 17),
    ("networks", "map", 18),
    ("network", "map", 18),
    ("waterways", "map", 30),
    ("water", "map", 32),
    ("green", "map", 34),
    ("contours", "map", 36),
    ("protected_areas", "map", 38),
    ("landuse", "map", 40),
    ("indicators_units", "map", 44),
    ("indicators_areas", "map", 43),
    ("units", "map", 50),
    ("membership", "map", 45),
    ("rates", "map", 52),
    ("urban_share", "map", 54),
    ("isochrones", "map", 56),
    ("times", "map", 60),
    ("nearest", "map", 60),
    ("cells", "map", 62),
    ("terrain", "map", 70),
)
#: of other layers: above those that cover the map
_RANK_BY_KIND = {"POINT": 6, "LINESTRING": 19, "POLYGON": 42}
_KNOWN = frozenset(name for name, _, _ in _RULES)
#: layers that clutter a first look, or lie below another that shows the same
_QUIET = ("addresses", "contours", "footprints", "pois", "protected_areas", "stops", "zones")
#: layers of objects that are no more: below all others, not shown
_PAST = "history"
_PAST_RANK = 90
#: layers that cover the map: only the first of them is shown at first
_COVERS = (
    "nearest",
    "indicators_areas",
    "indicators_units",
    "units",
    "urban_share",
    "rates",
    "cells",
    "times",
    "membership",
    "isochrones",
    "landuse",
)


@dataclass(frozen=True)
class MapLayer:
    """A layer of a GeoPackage and its place in the legend.

    Attributes
    ----------
    name, title
        Name of the table; words shown for it.
    geometry
        As the GeoPackage declares it (``MULTIPOLYGON``), empty for tables.
    srs_id
        Key into ``gpkg_spatial_ref_sys``.
    extent
        min x, min y, max x, max y in its CRS, or None.
    group
        ``map`` or ``tables``.
    shown
        Whether it is drawn when the map opens.
    rows
        Number of features.
    """

    name: str
    title: str
    geometry: str
    srs_id: int
    extent: tuple[float, float, float, float] | None
    group: str
    shown: bool
    rows: int


def open_unchanged(path: str | Path) -> sqlite3.Connection:
    """Open a GeoPackage for reading, so that nothing is written to it or beside it."""
    return sqlite3.connect(f"{Path(path).resolve().as_uri()}?mode=ro&immutable=1", uri=True)


def arrange(path: str | Path) -> list[MapLayer]:
    """Return the layers of a GeoPackage, the topmost first, tables last.

    Parameters
    ----------
    path
        GeoPackage.

    Raises
    ------
    sqlite3.DatabaseError
        When the file is no GeoPackage.
    """
    with closing(open_unchanged(path)) as db:
        known = {r[0] for r in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        shapes = (
            dict(db.execute("SELECT table_name, geometry_type_name FROM gpkg_geometry_columns"))
            if "gpkg_geometry_columns" in known
            else {}
        )
        # GDAL keeps the number of rows, which spares reading all of a large table
        counted = (
            dict(db.execute("SELECT table_name, feature_count FROM gpkg_ogr_contents"))
            if "gpkg_ogr_contents" in known
            else {}
        )
        found = []
        for number, row in enumerate(
            db.execute(
                "SELECT table_name, data_type, identifier, srs_id, min_x, min_y, max_x, max_y"
                " FROM gpkg_contents ORDER BY rowid"
            ).fetchall()
        ):
            name, kind, title, srs = row[:4]
            if name in _OWN or kind not in ("features", "attributes"):
                continue
            quoted = '"' + name.replace('"', '""') + '"'
            rows = counted.get(name)
            if rows is None:
                rows = int(db.execute(f"SELECT count(*) FROM {quoted}").fetchone()[0])
            extent = tuple(row[4:8]) if None not in row[4:8] else None
            shape = str(shapes.get(name, ""))
            found.append(
                (_rank(name, shape), number, (name, title or name, shape, srs, extent, rows))
            )
    found.sort(key=lambda f: f[:2])
    spatial = [(f[2][0], f[2][5]) for f in found if f[2][2]]
    # a file of stops alone shows its stops
    # what has no place of its own is not shown at first beside what has
    first = [f for f in spatial if (base := _base(f[0])) in _KNOWN and base not in _QUIET]
    shown = _shown(first) or _shown(spatial)
    return [
        MapLayer(name, title, shape, srs, extent, "map" if shape else "tables", name in shown, rows)
        for _, _, (name, title, shape, srs, extent, rows) in found
    ]


def _base(name: str) -> str:
    """Return a layer's name without its year.

    Examples
    --------
    >>> _base("urban_centres_2023"), _base("urban_share")
    ('urban_centres', 'urban_share')
    """
    head, _, tail = name.rpartition("_")
    return head if head and tail.isdigit() else name


def _rank(name: str, shape: str) -> int:
    if not shape:
        return 1000
    base = _base(name)
    if base.startswith(_PAST):
        return _PAST_RANK
    for prefix, _, rank in _RULES:
        if base == prefix:
            return rank
    for kind, rank in _RANK_BY_KIND.items():
        if kind in shape:
            return rank
    return 49


def _shown(spatial: Iterable[tuple[str, int]]) -> set[str]:
    """Return the layers to draw at first: one cover, one epoch of each other layer."""
    shown: set[str] = set()
    seen: set[str] = set()
    covered = False
    for name, rows in spatial:
        base = _base(name)
        if not rows or base in seen:
            continue
        if base in _COVERS:
            if covered:
                continue
            covered = True
        seen.add(base)
        shown.add(name)
    return shown
