"""Terrain and people: bases, coverage, datums, and mass that is conserved."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from qala.city.people import spread_people
from qala.city.terrain import base_heights, describe_vertical, height_grid, undulation_at
from qala.errors import InputError

X, Y = 500_000.0, 4_800_000.0


def raster(
    path: Path, data: np.ndarray, *, cell: float = 10.0, crs: str = "EPSG:32642", **more: object
) -> Path:
    profile = {
        "driver": "GTiff", "dtype": "float32", "count": 1, "height": data.shape[0],
        "width": data.shape[1], "crs": crs, "nodata": -9999.0,
        "transform": rasterio.Affine(cell, 0, X, 0, -cell, Y + cell * data.shape[0]), **more,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as sink:
        sink.write(data.astype("float32"), 1)
    return path


def city(count: int = 10) -> gpd.GeoDataFrame:
    boxes = [shapely.box(X + 5 + 10 * i, Y + 2, X + 13 + 10 * i, Y + 8) for i in range(count)]
    table = gpd.GeoDataFrame(
        {"id": [f"way/{i}" for i in range(count)], "kind": "house"},
        geometry=boxes,
        crs="EPSG:32642",
    )
    table["parent"] = None
    table["floor_area"] = 48.0
    return table


def slope(width: int = 12) -> np.ndarray:
    return np.tile(100.0 + np.arange(width), (4, 1))


def test_no_building_floats(tmp_path: Path) -> None:
    out, vertical, issues = base_heights(city(), raster(tmp_path / "t.tif", slope()))
    # each outline lies over two cells; the lower counts
    assert out["base_z"].tolist() == [100.0 + i for i in range(10)]
    assert set(out["base_source"]) == {"terrain"}
    assert not issues
    assert "not stated" in vertical.datum
    assert not vertical.aligned


def test_without_terrain_the_base_is_stated() -> None:
    out, vertical, _ = base_heights(city(), None)
    assert out["base_z"].tolist() == [0.0] * 10
    assert "above the ground" in vertical.datum


def test_too_little_terrain_is_told_with_its_share(tmp_path: Path) -> None:
    short = raster(tmp_path / "short.tif", slope(5))
    with pytest.raises(InputError, match=r"covers 50\.0% of the 10 buildings"):
        base_heights(city(), short)


def test_voids_take_the_nearest_base_and_are_listed(tmp_path: Path) -> None:
    data = slope()
    data[:, 4:6] = -9999
    out, _, issues = base_heights(city(), raster(tmp_path / "v.tif", data), min_coverage=0.5)
    assert out["base_z"].notna().all()
    assert [i[1] for i in issues] == ["way/4"]
    assert (out["base_source"] == "nearest").sum() == 1


def test_impossible_heights_and_missing_crs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nodata"):
        base_heights(city(), raster(tmp_path / "n.tif", slope() - 32768))
    with pytest.raises(InputError, match="no CRS"):
        base_heights(city(), raster(tmp_path / "c.tif", slope(), crs=None))  # type: ignore[arg-type]


def test_vertical_datums_are_never_guessed() -> None:
    plain = pyproj.CRS("EPSG:32642")
    compound = pyproj.CRS("EPSG:32642+3855")
    assert describe_vertical(plain)[0].startswith("not stated")
    assert describe_vertical(compound) == ("EGM2008 height", False)
    assert describe_vertical(plain, "ellipsoidal")[1]
    with pytest.raises(InputError, match="one vertical datum"):
        describe_vertical(compound, "EPSG:5773")


def test_a_datum_without_its_grid_is_refused_not_passed_on() -> None:
    # without the grid PROJ would hand the heights on unchanged
    if pyproj.network.is_network_enabled():
        pytest.skip("PROJ may fetch grids here")
    if "egm08" in " ".join(p.name for p in Path(pyproj.datadir.get_data_dir()).iterdir()):
        pytest.skip("the grid is installed here")
    with pytest.raises(InputError, match="--undulation"):
        undulation_at(pyproj.CRS("EPSG:32642+3855"), 68.2, 43.2)


def test_undulation_moves_only_the_tiles(tmp_path: Path) -> None:
    file = raster(tmp_path / "g.tif", slope(), crs="EPSG:32642+3855")
    out, vertical, _ = base_heights(city(), file, undulation=-40.0)
    assert out["base_z"].min() == 100.0
    assert (vertical.to_ellipsoid, vertical.aligned) == (-40.0, True)


def test_the_grid_for_display_follows_the_terrain(tmp_path: Path) -> None:
    file = raster(tmp_path / "t.tif", slope(40))
    grid = height_grid(file, "EPSG:32642", (X + 50, Y + 5, X + 350, Y + 35), 9)
    assert grid.shape == (9, 9)
    assert (np.diff(grid[4]) > 0).all()
    data = slope(40)
    data[:, 15:18] = -9999
    holed = height_grid(
        raster(tmp_path / "h.tif", data), "EPSG:32642", (X + 50, Y + 5, X + 350, Y + 35), 9
    )
    assert np.abs(holed - grid).max() < 8


AREA = shapely.Polygon


def lonlat(box: shapely.Geometry) -> shapely.Geometry:
    move = pyproj.Transformer.from_crs("EPSG:32642", "EPSG:4326", always_xy=True)
    fine = shapely.segmentize(box, 10.0)
    return shapely.transform(fine, lambda p: np.column_stack(move.transform(p[:, 0], p[:, 1])))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 500), min_size=48, max_size=48), st.integers(1, 10))
def test_people_are_conserved(tmp_path_factory: pytest.TempPathFactory, values: list[float],
                              count: int) -> None:  # fmt: skip
    data = np.array(values).reshape(4, 12)
    file = raster(tmp_path_factory.mktemp("pop") / "p.tif", data)
    whole = lonlat(shapely.box(X, Y, X + 120, Y + 40))
    people, report = spread_people(city(count), file, whole)
    assert np.nansum(people) == pytest.approx(report.placed, abs=1e-6)
    assert report.placed + report.unplaced == pytest.approx(report.total, abs=1e-6)
    assert report.total == pytest.approx(data.astype("float32").sum(), rel=1e-4, abs=1e-3)
    assert report.unplaced == pytest.approx(0, abs=1e-6)


def test_homes_come_first_and_far_people_are_not_moved(tmp_path: Path) -> None:
    table = city(2)
    table["kind"] = ["house", "garage"]
    table.loc[1, "geometry"] = shapely.box(X + 6, Y + 8.5, X + 9, Y + 9.5)
    data = np.zeros((4, 12))
    data[3, 0], data[0, 11] = 50, 9
    file = raster(tmp_path / "p.tif", data)
    people, report = spread_people(table, file, None)
    assert people.tolist() == [50.0, 0.0]
    area = lonlat(shapely.box(X, Y, X + 120, Y + 40))
    _, report = spread_people(table, file, area, reach=20.0)
    assert report.unplaced == pytest.approx(9, rel=1e-3)


def test_negative_people_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="people in a cell"):
        spread_people(city(), raster(tmp_path / "p.tif", slope() - 200))
