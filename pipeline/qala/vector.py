"""Territorial units: reading, checking and repairing polygon layers.

Every problem of a layer is gathered and told at once, with the ids concerned.
A layer that passes has unique ids, valid polygons, a declared CRS that its
coordinates can be in, and no area that two units claim.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qala.errors import InputError, Problems
from qala.grid import GHSL_CRS, describe_crs, is_equal_area

if TYPE_CHECKING:
    import geopandas as gpd
    from numpy.typing import NDArray
    from odc.geo.geobox import GeoBox

log = logging.getLogger("qala")

#: Share of the smaller unit that two units may both claim. Borders digitised apart overlap by
#: slivers (0.14 % at most among the 589 Belgian communes of 2011); one percent and more is land
#: claimed twice (Arys and Baydibek in OpenStreetMap: 71 km², 1.1 % of Arys).
MAX_OVERLAP = 0.005
#: Longest edge that is moved to another CRS by its two ends, metres. An edge of 2 km that is
#: straight in degrees bends by less than 1 m up to 80° of latitude (L² tan φ / 8R = 0.44 m).
MAX_EDGE_M = 2_000.0
#: ids shown of a long list in messages
SHOWN = 5
_DEGREE_M = 111_320.0


def some(names: Iterable[Any], count: int | None = None) -> str:
    """Return the first names of a list and how many more there are.

    Examples
    --------
    >>> some("abcdefgh")
    'a, b, c, d, e and 3 more'
    """
    listed = [str(n) for n in names]
    total = len(listed) if count is None else count
    shown = ", ".join(listed[:SHOWN])
    return f"{shown} and {total - SHOWN} more" if total > SHOWN else shown


def read_units(
    path: str | Path,
    *,
    id: str,
    layer: str | None = None,
    crs: Any = None,
    repair: bool = False,
    max_overlap: float = MAX_OVERLAP,
) -> gpd.GeoDataFrame:
    """Read territorial units and check that they can be used.

    Parameters
    ----------
    path
        GeoPackage, GeoJSON, Shapefile or another vector format of GDAL, or
        GeoParquet.
    id
        Column of unit ids.
    layer
        Layer of a file that holds several.
    crs
        CRS of the coordinates, where the file declares none or a wrong one; it
        wins over the file's, which is logged.
    repair, max_overlap
        As for :func:`check_units`.

    Returns
    -------
    geopandas.GeoDataFrame
        One row a unit, all columns of the file, geometry in the file's CRS.

    Raises
    ------
    InputError
        When the file is missing, truncated or no vector file, the layer is
        absent or must be named, or the units are not sound; see
        :func:`check_units`.
    """
    text = os.fspath(path)
    _require_file(text)
    if text.lower().endswith((".parquet", ".geoparquet")):
        units = _read_parquet(text)
    else:
        units = _read_gdal(text, layer)
    name = Path(text).name if layer is None else f"{Path(text).name}, layer {layer}"
    if crs is not None:
        units = _declare(units, crs, name)
    return check_units(units, id=id, name=name, repair=repair, max_overlap=max_overlap)


def check_units(
    units: gpd.GeoDataFrame,
    *,
    id: str,
    name: str = "units",
    repair: bool = False,
    max_overlap: float = MAX_OVERLAP,
) -> gpd.GeoDataFrame:
    """Refuse units that would give wrong sums, or repair what can be.

    Parameters
    ----------
    units
        Polygons or multipolygons in any declared CRS, degrees or metres.
    id
        Column of unit ids.
    name
        What the layer is called in messages.
    repair
        Make invalid polygons valid (``shapely.make_valid``, polygon parts only)
        and give area that two units claim to the smaller of them: a city drawn
        over a district without a hole is cut out of it. Both are logged and
        counted in ``attrs``.
    max_overlap
        Share of the smaller unit that two units may both claim. Below it,
        overlaps are taken for slivers of digitising: logged, counted in
        ``attrs`` and left, so that their people count in both units.

    Returns
    -------
    geopandas.GeoDataFrame
        The units, with 2-D geometry; ``attrs`` holds ``repaired_geometries``,
        ``overlaps`` (pairs) and ``overlap_km2``, ``overlap_repaired``.

    Raises
    ------
    InputError
        With all problems found: the id column is missing, ids are null or
        twice, there is no unit, geometry is null, empty, invalid or not a
        polygon, the CRS is missing or cannot be that of the coordinates, units
        overlap.

    Examples
    --------
    >>> import geopandas as gpd
    >>> from shapely.geometry import box
    >>> squares = [box(0, 0, 1e3, 1e3), box(1e3, 0, 2e3, 1e3)]
    >>> units = gpd.GeoDataFrame({"id": ["a", "b"]}, geometry=squares, crs=3035)
    >>> check_units(units, id="id").attrs["overlaps"]
    0
    >>> check_units(units, id="code")
    Traceback (most recent call last):
    ...
    qala.errors.InputError: units: there is no column 'code'; expected one of: id: name ...
    """
    import shapely

    if not 0 <= max_overlap <= 1:
        raise InputError(f"max_overlap is {max_overlap!r}", "a share from 0 to 1")
    problems = Problems(name)
    labels = _check_ids(units, id, problems)
    crs_ok = _check_crs(units, problems)
    if len(units) == 0:
        problems.add("the layer holds no unit", "at least one polygon", "check filters and layer")
        problems.raise_if_any()
    geometry = shapely.force_2d(np.asarray(units.geometry.array, dtype=object))
    sound, geometry, repaired = _check_geometry(geometry, labels, problems, repair)
    counts: dict[str, Any] = {"repaired_geometries": repaired}
    if repaired:
        log.warning("%s: %d invalid geometries made valid", name, repaired)
    if crs_ok:
        geometry, found = _check_overlaps(
            geometry, sound, units.crs, labels, problems, name, repair, max_overlap
        )
        counts.update(found)
    problems.raise_if_any()
    result = units.set_geometry(_series(geometry, units))
    result.attrs = {**units.attrs, **counts}
    return result


def to_crs_of(units: gpd.GeoDataFrame, box: GeoBox) -> NDArray[np.object_]:
    """Return the geometry of units in the CRS of a grid, long edges densified first.

    An edge that is straight in one CRS is bent in another; edges longer than
    :data:`MAX_EDGE_M` are split before, so that the polygons keep their place
    to about a metre.

    Parameters
    ----------
    units
        Polygons in any declared CRS.
    box
        The grid.

    Returns
    -------
    numpy.ndarray
        Shapely geometries in the order of the units.

    Raises
    ------
    InputError
        When the units have no CRS, or cannot be represented in the grid's.
    """
    import geopandas as gpd
    import pyproj
    import shapely

    if units.crs is None:
        raise InputError(
            "the units have no CRS",
            "a declared CRS",
            "pass crs= to qala.read_units, or set it with units.set_crs(...)",
        )
    source, target = pyproj.CRS(units.crs), pyproj.CRS(box.crs.to_wkt() if box.crs else None)
    geometry: NDArray[np.object_] = np.asarray(units.geometry.array, dtype=object)
    if _same_crs(source, target):
        return geometry
    step = MAX_EDGE_M / _metres_per_unit(source)
    dense = shapely.segmentize(geometry, step)
    added = int(
        shapely.get_num_coordinates(dense).sum() - shapely.get_num_coordinates(geometry).sum()
    )
    log.info(
        "units reprojected from %s to %s; %d vertices added on edges longer than %.0f m",
        describe_crs(source),
        describe_crs(target),
        added,
        MAX_EDGE_M,
    )
    moved = np.asarray(gpd.GeoSeries(dense, crs=source).to_crs(target).array, dtype=object)
    bounds = shapely.bounds(moved)
    if not np.isfinite(bounds).all():
        raise InputError(
            f"{int((~np.isfinite(bounds)).any(axis=1).sum())} units have no place in "
            f"{describe_crs(target)}",
            "coordinates inside the area both CRS cover",
            "check the declared CRS of the units",
        )
    # reprojecting can fold a ring over itself where it turned back within millimetres
    broken = ~shapely.is_valid(moved)
    if broken.any():
        log.info("%d geometries made valid after reprojection", int(broken.sum()))
        moved[broken] = _polygons_only(shapely.make_valid(moved[broken]))
    return moved


# --- reading ----------------------------------------------------------------------


def _require_file(text: str) -> None:
    if text.startswith("/vsi") or "://" in text:
        return
    file = Path(text)
    if not file.exists():
        raise InputError(f"{text} does not exist", "a layer of units", "check the path")
    if file.is_dir() and file.suffix.lower() != ".gdb":
        raise InputError(f"{text} is a folder", "a file of units", "name the file in it")
    if file.is_file() and file.stat().st_size == 0:
        raise InputError(f"{text} is empty (0 bytes)", "a layer of units", "fetch it again")


def _read_parquet(text: str) -> gpd.GeoDataFrame:
    import geopandas as gpd
    import pyarrow as pa

    try:
        return gpd.read_parquet(text)
    except (pa.ArrowInvalid, OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{text} cannot be read as GeoParquet ({error})",
            "a complete GeoParquet file with a geometry column",
            "fetch or export it again, or pass the units as GeoPackage",
        ) from error


def _read_gdal(text: str, layer: str | None) -> gpd.GeoDataFrame:
    import geopandas as gpd
    import pyogrio
    from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, GeometryError

    broken = (DataSourceError, DataLayerError, FeatureError, GeometryError, OSError, RuntimeError)

    def refused(error: BaseException | str) -> InputError:
        return InputError(
            f"{text} cannot be read as a vector layer ({error})",
            "a complete GeoPackage, GeoJSON, Shapefile or GeoParquet",
            "fetch or export it again; it may be truncated or of another kind",
        )

    try:
        layers = [str(n) for n in pyogrio.list_layers(text)[:, 0]]
    except broken as error:
        raise refused(error) from error
    if not layers:
        raise InputError(f"{text} holds no layer", "a layer of units", "export it again")
    if layer is not None and layer not in layers:
        raise InputError(
            f"{text} has no layer {layer!r}", f"one of: {', '.join(layers)}", "name one of these"
        )
    if layer is None and len(layers) > 1:
        raise InputError(
            f"{text} holds {len(layers)} layers",
            f"the name of one: {', '.join(layers)}",
            "pass --layer (layer=)",
        )
    try:
        info = pyogrio.read_info(text, layer=layer or layers[0], force_feature_count=True)
        # rings that cannot be read become null geometry, which the checks name by id
        units = pyogrio.read_dataframe(text, layer=layer or layers[0], on_invalid="ignore")
    except broken as error:
        raise refused(error) from error
    if info["features"] >= 0 and len(units) != info["features"]:
        raise refused(f"{len(units)} of {info['features']} rows could be read")
    if not isinstance(units, gpd.GeoDataFrame):
        raise InputError(
            f"{text}, layer {layer or layers[0]}, is a table without geometry",
            "polygons",
            f"name a layer with polygons; layers: {', '.join(layers)}",
        )
    return units


def _declare(units: gpd.GeoDataFrame, crs: Any, name: str) -> gpd.GeoDataFrame:
    import pyproj

    try:
        declared = pyproj.CRS.from_user_input(crs)
    except pyproj.exceptions.CRSError as error:
        raise InputError(f"crs is {crs!r}", "a CRS such as EPSG:4326 or ESRI:54009") from error
    if units.crs is not None and not pyproj.CRS(units.crs).equals(declared, True):
        log.warning(
            "%s: taken as %s as told, in place of %s in the file",
            name,
            describe_crs(declared),
            describe_crs(units.crs),
        )
    return units.set_crs(declared, allow_override=True)


# --- checks -----------------------------------------------------------------------


def _check_ids(units: gpd.GeoDataFrame, id: str, problems: Problems) -> NDArray[np.object_]:
    """Return what to call each unit in messages; row numbers where ids don't serve."""
    rows = np.array([f"row {i + 1}" for i in range(len(units))], dtype=object)
    if id not in units.columns or id == units.geometry.name:
        columns = [str(c) for c in units.columns if c != units.geometry.name]
        problems.add(
            f"there is no column {id!r}",
            f"one of: {', '.join(columns) or '(no column but the geometry)'}",
            "name the column of unit ids with --id (id=)",
        )
        return rows
    values = units[id]
    null = np.asarray(values.isna()) | (np.asarray(values.astype(str).str.strip()) == "")
    if null.any():
        problems.add(
            f"{int(null.sum())} of {len(units)} ids in column {id!r} are missing: "
            f"{some(rows[null])}",
            "an id for every unit",
            "fill them in, or name another column",
        )
    twice = np.asarray(values.duplicated(keep=False)) & ~null
    if twice.any():
        names = list(dict.fromkeys(str(v) for v in values[twice]))
        problems.add(
            f"{_count(len(names), 'id stands', 'ids stand')} twice or more in column {id!r}: "
            f"{some(names)}",
            "one row a unit",
            f"dissolve the parts of a unit into one multipolygon (units.dissolve({id!r})), "
            "or name another column",
        )
    labels = np.asarray(values.astype(str), dtype=object).copy()
    labels[null] = rows[null]
    return labels


def _check_crs(units: gpd.GeoDataFrame, problems: Problems) -> bool:
    """Note a missing CRS, or one that the coordinates cannot be in."""
    import pyproj

    # GeoPackages say "undefined" by a CRS of that name, which older GDAL hands on as one
    if units.crs is None or str(units.crs.name).startswith("Undefined"):
        problems.add(
            "the layer has no CRS",
            "a declared CRS",
            "pass --units-crs (crs=), if you know it, for instance EPSG:4326 for degrees",
        )
        return False
    if len(units) == 0:
        return True
    crs = pyproj.CRS(units.crs)
    left, bottom, right, top = (float(v) for v in units.total_bounds)
    if not np.isfinite([left, bottom, right, top]).any():
        return True  # nothing but empty geometry, told elsewhere
    place = f"x {left:.6g} to {right:.6g}, y {bottom:.6g} to {top:.6g}"
    remedy = "find out the true CRS and pass it as --units-crs (crs=)"
    if crs.is_geographic:
        if left < -360 or right > 360 or bottom < -90.001 or top > 90.001:
            problems.add(
                f"the layer is declared as {describe_crs(crs)} (degrees) but lies at {place}",
                "longitude within ±180 and latitude within ±90",
                remedy,
            )
            return False
        return True
    if max(abs(left), abs(right)) <= 180 and max(abs(bottom), abs(top)) <= 90:
        problems.add(
            f"the layer is declared as {describe_crs(crs)} (metres) but lies at {place}, "
            "which look like degrees",
            "coordinates in metres",
            f"pass --units-crs EPSG:4326 (crs=) if they are degrees; otherwise {remedy}",
        )
        return False
    back = pyproj.Transformer.from_crs(crs, crs.geodetic_crs or 4326, always_xy=True)
    middle = back.transform((left + right) / 2, (bottom + top) / 2)
    if not np.isfinite(middle).all():
        problems.add(
            f"the layer lies at {place}, where {describe_crs(crs)} has no coordinates",
            "coordinates inside the CRS",
            remedy,
        )
        return False
    return True


def _check_geometry(
    geometry: NDArray[np.object_],
    labels: NDArray[np.object_],
    problems: Problems,
    repair: bool,
) -> tuple[NDArray[np.bool_], NDArray[np.object_], int]:
    """Note geometry that is no valid polygon; return which is sound, repaired when asked."""
    import shapely

    null = shapely.is_missing(geometry)
    empty = ~null & shapely.is_empty(geometry)
    kind = shapely.get_type_id(geometry)
    polygon = np.isin(kind, (3, 6))
    other = ~null & ~empty & ~polygon
    finite = np.isfinite(shapely.bounds(geometry)).all(axis=1)
    infinite = polygon & ~empty & ~finite
    for which, text in (
        (null, "no geometry, or one that cannot be read"),
        (empty, "empty geometry"),
        (infinite, "coordinates that are not numbers"),
    ):
        if which.any():
            problems.add(
                f"{_count(int(which.sum()), 'unit has', 'units have')} {text}: "
                f"{some(labels[which])}",
                "a polygon for every unit",
                "draw or remove these units",
            )
    if other.any():
        kinds = sorted({g.geom_type for g in geometry[other]})
        problems.add(
            f"{_count(int(other.sum()), 'unit is', 'units are')} {' and '.join(kinds)}: "
            f"{some(labels[other])}",
            "Polygon or MultiPolygon",
            "remove them, or name the layer of polygons",
        )
    sound = polygon & ~empty & finite
    invalid = sound.copy()
    invalid[sound] = ~shapely.is_valid(geometry[sound])
    repaired = 0
    if invalid.any() and repair:
        geometry = geometry.copy()
        geometry[invalid] = _polygons_only(shapely.make_valid(geometry[invalid]))
        lost = invalid & (shapely.area(geometry) <= 0)
        repaired = int((invalid & ~lost).sum())
        if lost.any():
            problems.add(
                f"{_count(int(lost.sum()), 'unit has', 'units have')} no area left after repair: "
                f"{some(labels[lost])}",
                "polygons with an area",
                "draw these units again",
            )
            sound &= ~lost
    elif invalid.any():
        reasons = shapely.is_valid_reason(geometry[invalid])
        told = [f"{n} ({r})" for n, r in zip(labels[invalid], reasons, strict=True)]
        problems.add(
            f"{_count(int(invalid.sum()), 'unit has', 'units have')} invalid geometry: "
            f"{some(told)}",
            "polygons whose rings do not cross",
            "pass --repair (repair=True) to make them valid, or mend them in QGIS "
            "(Vector geometry, Fix geometries)",
        )
        sound &= ~invalid
    return sound, geometry, repaired


def _check_overlaps(
    geometry: NDArray[np.object_],
    sound: NDArray[np.bool_],
    crs: Any,
    labels: NDArray[np.object_],
    problems: Problems,
    name: str,
    repair: bool,
    max_overlap: float,
) -> tuple[NDArray[np.object_], dict[str, Any]]:
    """Note units that claim the same land; cut it from the larger one when asked."""
    import shapely

    counts: dict[str, Any] = {"overlaps": 0, "overlap_km2": 0.0, "overlap_repaired": False}
    rows = np.flatnonzero(sound)
    shapes = geometry[rows]
    first, second = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    once = first < second
    first, second = first[once], second[once]
    shared = _polygons_only(shapely.intersection(shapes[first], shapes[second]))
    there = shapely.area(shared) > 0
    first, second, shared = first[there], second[there], shared[there]
    if not first.size:
        return geometry, counts
    whole = _areas_km2(shapes, crs)
    common = _areas_km2(shared, crs)
    # noise of the intersection itself: less than a square metre is no overlap
    there = common > 1e-6
    first, second, common = first[there], second[there], common[there]
    if not first.size:
        return geometry, counts
    share = common / np.minimum(whole[first], whole[second])
    counts |= {"overlaps": int(first.size), "overlap_km2": float(common.sum())}
    order = np.argsort(-common, kind="stable")
    told = [
        f"{labels[rows[first[k]]]} and {labels[rows[second[k]]]} ({_km2(common[k])}, "
        f"{_percent(share[k])} of the smaller)"
        for k in order
    ]
    real = share > max_overlap
    if repair:
        geometry = geometry.copy()
        geometry[rows] = _cut_larger(shapes, whole, first, second)
        gone = np.zeros(len(geometry), bool)
        gone[rows] = shapely.area(geometry[rows]) <= 0
        if gone.any():
            problems.add(
                f"{_count(int(gone.sum()), 'unit lies', 'units lie')} wholly under smaller units: "
                f"{some(labels[gone])}",
                "land of its own for every unit",
                "remove the double units",
            )
        counts["overlap_repaired"] = True
        log.warning(
            "%s: %s that two units claimed given to the smaller: %s",
            name,
            _km2(float(common.sum())),
            some(told),
        )
    elif real.any():
        worst = [told[i] for i, k in enumerate(order) if real[k]]
        problems.add(
            f"{_count(int(real.sum()), 'pair of units overlaps', 'pairs of units overlap')} by "
            f"{_km2(float(common[real].sum()))} in all: {some(worst)}",
            f"units that share no land (slivers up to {100 * max_overlap:g} % of the smaller unit "
            "are let pass)",
            "mend the borders; or pass --repair (repair=True), which gives the shared land to the "
            "smaller unit; or raise max_overlap, whereby its people count twice",
        )
    else:
        log.warning(
            "%s: %d slivers of %s in all lie in two units, whose people count in both: %s",
            name,
            first.size,
            _km2(float(common.sum())),
            some(told),
        )
    return geometry, counts


def _cut_larger(
    shapes: NDArray[np.object_],
    whole: NDArray[np.float64],
    first: NDArray[np.intp],
    second: NDArray[np.intp],
) -> NDArray[np.object_]:
    """Cut from each unit what smaller units claim of it."""
    import geopandas as gpd
    import shapely

    swap = whole[first] < whole[second]
    larger, smaller = np.where(swap, second, first), np.where(swap, first, second)
    claims = gpd.GeoDataFrame({"larger": larger}, geometry=shapes[smaller]).dissolve("larger")
    cut = shapes.copy()
    where = claims.index.to_numpy()
    left = shapely.difference(shapes[where], np.asarray(claims.geometry.array, dtype=object))
    cut[where] = _polygons_only(shapely.make_valid(left))
    return cut


# --- geometry ---------------------------------------------------------------------


def _polygons_only(geometry: NDArray[np.object_]) -> NDArray[np.object_]:
    """Return the polygon parts of geometries; empty multipolygons where there are none."""
    import shapely

    geometry = np.asarray(geometry, dtype=object)
    mixed = shapely.get_type_id(geometry) == 7
    result = geometry.copy()
    result[~np.isin(shapely.get_type_id(geometry), (3, 6, 7))] = shapely.MultiPolygon()
    if mixed.any():
        parts, owner = shapely.get_parts(geometry[mixed], return_index=True)
        # a collection may hold multipolygons; their parts are needed
        parts, inner = shapely.get_parts(parts, return_index=True)
        owner = owner[inner]
        keep = shapely.get_type_id(parts) == 3
        groups = np.full(int(mixed.sum()), shapely.MultiPolygon(), dtype=object)
        if keep.any():
            found, position = np.unique(owner[keep], return_inverse=True)
            groups[found] = shapely.multipolygons(parts[keep], indices=position)
        result[mixed] = groups
    return result


def _areas_km2(geometry: NDArray[np.object_], crs: Any) -> NDArray[np.float64]:
    """Return areas in km², in an equal-area CRS."""
    import geopandas as gpd
    import pyproj
    import shapely

    if is_equal_area(crs):
        scale = _metres_per_unit(pyproj.CRS(crs)) ** 2
        return np.asarray(shapely.area(geometry) * scale / 1e6, dtype=np.float64)
    series = gpd.GeoSeries(geometry, crs=crs).to_crs(GHSL_CRS)
    return np.asarray(shapely.area(np.asarray(series.array, dtype=object)) / 1e6, np.float64)


def _same_crs(one: Any, other: Any) -> bool:
    """Tell whether two CRS are one, also where a file spells its WKT in another way."""
    codes = [crs.to_authority(min_confidence=70) for crs in (one, other)]
    return bool(one.equals(other, True)) or (codes[0] is not None and codes[0] == codes[1])


def _metres_per_unit(crs: Any) -> float:
    """Return how many metres one unit of a CRS is; of a degree, along a meridian."""
    if crs.is_geographic:
        return _DEGREE_M
    return float(crs.axis_info[0].unit_conversion_factor) if crs.axis_info else 1.0


def _series(geometry: NDArray[np.object_], units: gpd.GeoDataFrame) -> gpd.GeoSeries:
    import geopandas as gpd

    return gpd.GeoSeries(geometry, index=units.index, crs=units.crs, name=units.geometry.name)


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _km2(value: float) -> str:
    return f"{value:,.1f} km²" if value >= 0.1 else f"{value:.2g} km²"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"
