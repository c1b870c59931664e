"""The grid as one value: an :class:`odc.geo.geobox.GeoBox`, and checks on it.

CRS, transform and shape are never passed apart. The target grid of the Global
Human Settlement Layer (GHSL) is World Mollweide (ESRI:54009), 1 km or 100 m,
aligned to the origin of GHSL's own tiles.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from affine import Affine
from odc.geo.geobox import GeoBox

from qala.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

#: World Mollweide, the CRS of GHSL's equal-area products
GHSL_CRS = "ESRI:54009"
#: upper left corner of GHSL's global grid, metres (GHSL Data Package 2023, doi:10.2760/098587)
GHSL_ORIGIN = (-18_041_000.0, 9_000_000.0)
#: cell size the Degree of Urbanisation is defined on, metres
DEGURBA_RESOLUTION = 1000.0

# Projection methods that keep area, by their names in EPSG, ESRI and PROJ.
_EQUAL_AREA = (
    "equal area",
    "mollweide",
    "sinusoidal",
    "eckert ii",
    "eckert iv",
    "eckert vi",
    "equal earth",
    "hammer",
    "goode",
    "bonne",
    "behrmann",
    "mcbryde",
    "craster",
    "interrupted_goode",
)


def ghsl_geobox(
    bounds: tuple[float, float, float, float], *, resolution: float = DEGURBA_RESOLUTION
) -> GeoBox:
    """Return the smallest grid aligned to GHSL that covers the bounds.

    Parameters
    ----------
    bounds
        ``(left, bottom, right, top)`` in ESRI:54009, metres.
    resolution
        Cell size in metres.

    Examples
    --------
    >>> box = ghsl_geobox((5_365_247, 4_852_865, 5_896_365, 5_448_434))
    >>> box.shape.yx, box.transform.c, box.transform.f
    ((597, 532), 5365000.0, 5449000.0)
    """
    x0, y0 = GHSL_ORIGIN
    left = math.floor((bounds[0] - x0) / resolution) * resolution + x0
    right = math.ceil((bounds[2] - x0) / resolution) * resolution + x0
    top = math.ceil((bounds[3] - y0) / resolution) * resolution + y0
    bottom = math.floor((bounds[1] - y0) / resolution) * resolution + y0
    shape = (round((top - bottom) / resolution), round((right - left) / resolution))
    return GeoBox(shape, Affine(resolution, 0.0, left, 0.0, -resolution, top), GHSL_CRS)


def geobox_of(data: xr.DataArray) -> GeoBox:
    """Return the grid of a raster.

    Raises
    ------
    InputError
        When the array carries no CRS or its coordinates are not a regular grid.
    """
    import odc.geo.xr  # noqa: F401  (registers the accessor)

    box = data.odc.geobox
    name = data.name or "raster"
    if not isinstance(box, GeoBox):
        raise InputError(
            f"{name} has no regular grid of coordinates",
            "dims (y, x) with evenly spaced coordinates",
            "open it with qala.open_raster",
        )
    if box.crs is None:
        raise InputError(
            f"{name} has no CRS",
            f"an equal-area CRS such as {GHSL_CRS}",
            "assign it with data.odc.assign_crs('ESRI:54009') if you know that it is so",
        )
    return box


def describe_crs(crs: Any) -> str:
    """Return a short name of a CRS for messages: authority code, else its name."""
    import pyproj

    try:
        value = pyproj.CRS.from_user_input(crs)
    except pyproj.exceptions.CRSError:
        return str(crs)[:60]
    authority = value.to_authority(min_confidence=70)
    return ":".join(authority) if authority else value.name


def same_crs(one: Any, other: Any) -> bool:
    """Tell whether two CRS are one, also where files spell the same WKT in other ways.

    Examples
    --------
    >>> import pyproj
    >>> same_crs("ESRI:54009", pyproj.CRS("ESRI:54009").to_wkt("WKT1_GDAL"))
    True
    >>> same_crs("ESRI:54009", "EPSG:3857")
    False
    """
    import pyproj

    if one is None or other is None:
        return one is other
    if one == other:
        return True
    a, b = (pyproj.CRS.from_user_input(crs) for crs in (one, other))
    if a.equals(b, ignore_axis_order=True):
        return True
    # a file's own code first: datum ensembles and axis order make equal WKTs look unlike
    codes = [_code_of(crs) for crs in (a, b)]
    return codes[0] is not None and codes[0] == codes[1]


def _code_of(crs: Any) -> tuple[str, str] | None:
    named = crs.to_json_dict().get("id")
    if named:
        return str(named["authority"]), str(named["code"])
    found: tuple[str, str] | None = crs.to_authority(min_confidence=70)
    return found


def is_equal_area(crs: Any) -> bool:
    """Tell whether a CRS keeps area, by the name of its projection method.

    Examples
    --------
    >>> is_equal_area("ESRI:54009"), is_equal_area("EPSG:3035"), is_equal_area("EPSG:3857")
    (True, True, False)
    """
    import pyproj

    value = pyproj.CRS.from_user_input(crs)
    if not value.is_projected or value.coordinate_operation is None:
        return False
    method = value.coordinate_operation.method_name.lower()
    return any(name in method for name in _EQUAL_AREA)


def require_equal_area(box: GeoBox, name: str = "raster") -> None:
    """Refuse a grid whose cells do not all have the same area.

    Raises
    ------
    InputError
        When the CRS is missing, geographic, not equal-area or not in metres,
        or the grid is rotated or its cells are not square.
    """
    remedy = f"reproject it to {GHSL_CRS} (gdalwarp -t_srs {GHSL_CRS} -r sum for counts of people)"
    if box.crs is None:
        raise InputError(
            f"{name} has no CRS",
            f"an equal-area CRS such as {GHSL_CRS}",
            f"if it is GHSL's, declare it with gdal_edit.py -a_srs {GHSL_CRS}",
        )
    crs = box.crs.proj
    if crs.is_geographic:
        raise InputError(
            f"{name} is in {describe_crs(crs)} (degrees)",
            "an equal-area CRS in metres, since cells of degrees differ in area",
            remedy,
        )
    if not is_equal_area(crs):
        raise InputError(
            f"{name} is in {describe_crs(crs)}, which is not equal-area",
            f"an equal-area CRS such as {GHSL_CRS}",
            remedy,
        )
    units = {axis.unit_name for axis in crs.axis_info}
    if not units <= {"metre", "meter"}:
        raise InputError(f"{name} has axes in {', '.join(sorted(units))}", "metres", remedy)
    t = box.transform
    if t.b or t.d:
        raise InputError(f"{name} is a rotated grid", "a north-up grid", remedy)
    if t.e >= 0 or t.a <= 0:
        raise InputError(
            f"{name} is stored south-up or mirrored", "rows from north to south", remedy
        )
    if abs(t.a + t.e) > 1e-6 * t.a:
        raise InputError(f"{name} has cells of {t.a:g} by {-t.e:g} m", "square cells", remedy)


def cell_area_m2(box: GeoBox) -> float:
    """Return the area of one cell in m² (equal-area grids)."""
    return float(abs(box.transform.a * box.transform.e))


def grid_differences(box: GeoBox, other: GeoBox) -> list[str]:
    """List in words how two grids differ; empty when they are the same."""
    found = []
    if not same_crs(box.crs, other.crs):
        found.append(f"CRS {describe_crs(other.crs)} against {describe_crs(box.crs)}")
    t, o = box.transform, other.transform
    # a thousandth of a cell: coordinates that went through text or float32
    tolerance = 1e-3 * abs(t.a)
    if abs(t.a - o.a) > 1e-6 * abs(t.a) or abs(t.e - o.e) > 1e-6 * abs(t.e):
        found.append(f"cell size {o.a:g} m against {t.a:g} m")
    elif abs(t.c - o.c) > tolerance or abs(t.f - o.f) > tolerance:
        found.append(f"origin ({o.c:.0f}, {o.f:.0f}) against ({t.c:.0f}, {t.f:.0f})")
    if box.shape != other.shape:
        found.append(
            f"size {other.shape.y}×{other.shape.x} cells against {box.shape.y}×{box.shape.x}"
        )
    return found


def require_same_grid(box: GeoBox, other: GeoBox, name: str, reference: str = "population") -> None:
    """Refuse a raster that does not lie on the reference grid.

    Raises
    ------
    InputError
        Naming every difference: CRS, cell size, origin, size.
    """
    found = grid_differences(box, other)
    if found:
        raise InputError(
            f"{name} is not on the grid of {reference}: {'; '.join(found)}",
            "the same CRS, cell size, origin and size",
            f"warp {name} onto it: gdalwarp -t_srs {describe_crs(box.crs)} -tr {box.transform.a:g} "
            f"{-box.transform.e:g} -te {' '.join(f'{v:.0f}' for v in box.boundingbox.bbox)}",
        )


def named_crs(box: GeoBox) -> Any:
    """Return a grid's CRS under its authority's code where it has one.

    Rasters often describe ESRI:54009 in words alone; a vector layer that says the
    same would be shown as a nameless CRS.

    Examples
    --------
    >>> named_crs(ghsl_geobox((0, 0, 9_000, 9_000))).to_authority()
    ('ESRI', '54009')
    """
    import pyproj

    crs = box.crs.proj if box.crs is not None else None
    if crs is None:
        return None
    # from 70 on PROJ vouches for an equivalent definition, whatever the names
    authority = crs.to_authority(min_confidence=70)
    return crs if authority is None else pyproj.CRS.from_authority(*authority)
