"""The grid as one value, and what is refused."""

from __future__ import annotations

import numpy as np
import pyproj
import pytest
import xarray as xr
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from qala.errors import InputError
from qala.grid import (
    GHSL_CRS,
    GHSL_ORIGIN,
    cell_area_m2,
    geobox_of,
    ghsl_geobox,
    grid_differences,
    is_equal_area,
    require_equal_area,
    require_same_grid,
    same_crs,
)

BOX = GeoBox((10, 12), Affine(1000, 0, 5e6, 0, -1000, 5e6), GHSL_CRS)


def with_transform(*numbers: float, crs: str = GHSL_CRS) -> GeoBox:
    return GeoBox((10, 12), Affine(*numbers), crs)


@given(
    st.floats(-1.7e7, 1.7e7), st.floats(-8.9e6, 8.9e6), st.floats(1, 5e4), st.floats(1, 5e4),
    st.sampled_from([100.0, 1000.0]),
)  # fmt: skip
def test_grids_cover_their_bounds_on_ghsl_lines(
    left: float, bottom: float, wide: float, high: float, resolution: float
) -> None:
    box = ghsl_geobox((left, bottom, left + wide, bottom + high), resolution=resolution)
    found = box.boundingbox
    assert found.left <= left + 1e-6
    assert found.bottom <= bottom + 1e-6
    assert found.right >= left + wide - 1e-6
    assert found.top >= bottom + high - 1e-6
    assert found.right - found.left < wide + 2 * resolution
    for value, origin in ((found.left, GHSL_ORIGIN[0]), (found.top, GHSL_ORIGIN[1])):
        assert ((value - origin) / resolution) % 1 == 0
    assert cell_area_m2(box) == resolution**2


@pytest.mark.parametrize(
    ("crs", "expected"),
    [
        (GHSL_CRS, True), ("EPSG:3035", True), ("EPSG:6933", True), ("EPSG:5070", True),
        ("EPSG:2163", True), ("ESRI:54034", True), ("EPSG:8857", True),
        ("+proj=sinu +units=m", True), ("+proj=aea +lat_1=40 +lat_2=50 +lon_0=68", True),
        ("EPSG:3857", False), ("EPSG:32642", False), ("EPSG:4326", False), ("EPSG:2154", False),
        ("EPSG:3395", False), ("EPSG:28412", False),
    ],
)  # fmt: skip
def test_which_crs_keep_area(crs: str, expected: bool) -> None:
    assert is_equal_area(crs) is expected
    # by what PROJ itself says of areas: the factor is 1 everywhere, or it is not
    value = pyproj.CRS(crs)
    if value.is_projected:
        area = value.area_of_use
        lon = np.linspace(area.west, area.east, 7)[2:5] if area else np.array([60.0, 70, 80])
        lat = np.linspace(area.south, area.north, 7)[2:5] if area else np.array([30.0, 45, 60])
        factors = pyproj.Proj(value).get_factors(*np.meshgrid(lon, lat))
        scale = factors.areal_scale
        assert bool(np.ptp(scale) < 1e-6) is expected


@pytest.mark.parametrize(
    ("box", "words"),
    [
        (with_transform(1000, 0, 0, 0, -1000, 0, crs="EPSG:3857"), "not equal-area"),
        (with_transform(0.01, 0, 60, 0, -0.01, 40, crs="EPSG:4326"), "degrees"),
        (with_transform(1000, 0, 0, 0, -500, 0), "1000 by 500 m.*square"),
        (with_transform(1000, 0, 0, 0, 1000, 0), "south-up"),
        (with_transform(-1000, 0, 0, 0, -1000, 0), "mirrored"),
        (with_transform(1000, 10, 0, 10, -1000, 0), "rotated"),
        (with_transform(3280, 0, 0, 0, -3280, 0, crs="+proj=moll +units=us-ft"), "foot"),
    ],
)
def test_grids_that_are_refused(box: GeoBox, words: str) -> None:
    with pytest.raises(InputError, match=words):
        require_equal_area(box, "population")


def test_every_difference_is_named() -> None:
    other = GeoBox((9, 12), Affine(1000, 0, 5e6 + 300, 0, -1000, 5e6), "EPSG:3035")
    assert [d.split()[0] for d in grid_differences(BOX, other)] == ["CRS", "origin", "size"]
    with pytest.raises(InputError, match=r"gdalwarp -t_srs ESRI:54009 -tr 1000 1000 -te 5000000"):
        require_same_grid(BOX, other, "land")
    nearly = GeoBox((10, 12), Affine(1000, 0, 5e6 + 0.4, 0, -1000, 5e6), GHSL_CRS)
    assert grid_differences(BOX, nearly) == []
    require_same_grid(BOX, nearly, "land")


@pytest.mark.parametrize("version", ["WKT1_GDAL", "WKT1_ESRI", "WKT2_2019"])
def test_one_crs_in_other_spellings(version: str) -> None:
    for code in (GHSL_CRS, "EPSG:3035"):
        assert same_crs(code, pyproj.CRS(code).to_wkt(version))
    assert not same_crs(GHSL_CRS, "EPSG:3035")
    assert not same_crs(GHSL_CRS, None)
    assert same_crs(None, None)


def test_arrays_without_a_grid() -> None:
    bare = xr.DataArray(np.zeros((3, 3)), dims=("y", "x"), name="population")
    with pytest.raises(InputError, match="population has no"):
        geobox_of(bare)
    uneven = bare.assign_coords(y=[3.0, 2, 0], x=[0.0, 1, 2])
    with pytest.raises(InputError, match="population has no"):
        geobox_of(uneven)
    assert geobox_of(xr.DataArray(np.zeros((10, 12)), xr_coords(BOX), ("y", "x"))) == BOX
