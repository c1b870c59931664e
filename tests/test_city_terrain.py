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
from qala.city.relief import contours, drape, facets, interval_of, make_relief, write_terrain_raster
from qala.city.terrain import base_heights, describe_vertical, lower_to_relief, undulation_at
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


def test_turned_and_mirrored_terrain_is_read_where_it_lies(tmp_path: Path) -> None:
    plane = 100.0 + np.tile(np.arange(60), (40, 1))
    mirrored = rasterio.Affine(10, 0, X - 200, 0, 10, Y - 200)
    out, _, _ = base_heights(city(), raster(tmp_path / "m.tif", plane, transform=mirrored))
    assert out["base_z"].tolist() == [120.0 + i for i in range(10)]
    c, s = 10 * np.cos(np.radians(5)), 10 * np.sin(np.radians(5))
    turned = rasterio.Affine(c, s, X - 200, s, -c, Y + 200)
    out, _, _ = base_heights(
        city(), raster(tmp_path / "t.tif", plane, transform=turned, nodata=None)
    )
    assert np.abs(out["base_z"] - [120.0 + i for i in range(10)]).max() < 4


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


BOX = (X + 50.0, Y + 50.0, X + 950.0, Y + 750.0)


def hills(noise: float = 0.0) -> np.ndarray:
    x, y = np.meshgrid(np.arange(100), np.arange(80))
    smooth = 300 + 40 * np.sin(x / 15) * np.cos(y / 18) + 0.3 * x
    return np.asarray(smooth + np.random.default_rng(3).normal(0, noise, smooth.shape))


def test_the_relief_is_a_closed_plan_of_triangles_near_the_terrain(tmp_path: Path) -> None:
    relief = make_relief(raster(tmp_path / "t.tif", hills()), "EPSG:32642", BOX, datum="EGM2008")
    a, b, c = (relief.vertices[relief.triangles[:, i], :2] for i in range(3))
    area = ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2
    assert (area > 0).all()  # counter-clockwise from above
    assert area.sum() == pytest.approx(900 * 700)
    assert relief.filled == 0
    assert relief.datum == "EGM2008"
    assert relief.max_error <= 10 / 30 + 0.01
    # the surface itself, smoothing aside: heights at vertices follow the raster
    x, y, z = relief.vertices.T
    truth = 300 + 40 * np.sin((x - X - 5) / 150) * np.cos((Y + 795 - y) / 180)
    truth += 0.03 * (x - X - 5)
    assert np.abs(z - truth).max() < 1.5


def test_smoothing_keeps_noise_from_growing_the_mesh(tmp_path: Path) -> None:
    plain = 300 + np.random.default_rng(3).normal(0, 0.5, (80, 100))
    file = raster(tmp_path / "n.tif", plain)
    smooth = make_relief(file, "EPSG:32642", BOX, max_error=0.6)
    raw = make_relief(file, "EPSG:32642", BOX, max_error=0.6, smoothing=0.0)
    assert len(raw.triangles) > 30 * len(smooth.triangles)


def test_voids_and_edges_are_filled_and_their_share_is_told(tmp_path: Path) -> None:
    data = hills()
    data[:, 40:50] = -9999
    relief = make_relief(raster(tmp_path / "v.tif", data), "EPSG:32642", BOX)
    assert relief.filled == pytest.approx(100 / 900, abs=0.02)
    assert relief.heights.min() > 200
    beyond = (X - 450.0, Y + 50.0, X + 450.0, Y + 750.0)
    file = raster(tmp_path / "e.tif", hills(), nodata=None)
    assert make_relief(file, "EPSG:32642", beyond).filled == pytest.approx(0.5, abs=0.03)


def test_facets_contours_and_drape_agree_with_a_plane(tmp_path: Path) -> None:
    plane = 100.0 + np.tile(np.arange(100), (80, 1))  # 1 m up in 10 m to the east
    file = raster(tmp_path / "p.tif", plane)
    relief = make_relief(file, "EPSG:32642", BOX, smoothing=0.0)
    table = facets(relief, "EPSG:32642", "2026-01-01")
    assert table["id"].is_unique
    assert table["slope"].to_numpy() == pytest.approx(np.degrees(np.arctan(0.1)), abs=0.02)
    assert table["aspect"].to_numpy() == pytest.approx(270.0, abs=0.2)  # downhill to the west
    assert table.area.sum() == pytest.approx(900 * 700)
    lines = contours(relief, "EPSG:32642", "2026-01-01")
    step = interval_of(relief)
    assert step == 5.0
    assert (np.diff(lines["elevation"]) == step).all()
    assert lines["length"].to_numpy() == pytest.approx(700, abs=0.5)
    street = gpd.GeoDataFrame(
        {"id": ["way/1"]}, crs="EPSG:32642",
        geometry=[shapely.LineString([(X + 105, Y + 100), (X + 505, Y + 100)])],
    )  # fmt: skip
    lifted = drape(street, relief, file).geometry.iloc[0]
    xyz = shapely.get_coordinates(lifted, include_z=True)
    assert len(xyz) > 10
    assert xyz[:, 2] == pytest.approx(100 + (xyz[:, 0] - X - 5) / 10, abs=0.02)
    assert lifted.length == pytest.approx(400)
    assert "z_source" not in drape(street, relief, file)
    far = street.set_geometry(shapely.transform(street.geometry, lambda p: p - [0, 70]))
    z = shapely.get_coordinates(drape(far, relief, file).geometry.iloc[0], include_z=True)[:, 2]
    assert z[[0, -1]].tolist() == [110.0, 150.0]  # outside the box: the cell as it is


def test_no_building_floats_over_the_smoothed_terrain(tmp_path: Path) -> None:
    file = raster(tmp_path / "n.tif", hills(2.0))
    boxes = [shapely.box(x, y, x + 8, y + 8) for x in np.arange(X + 100, X + 900, 40)
             for y in np.arange(Y + 100, Y + 700, 40)]  # fmt: skip
    table = gpd.GeoDataFrame({"id": [f"way/{i}" for i in range(len(boxes))], "kind": "house"},
                             geometry=boxes, crs="EPSG:32642")  # fmt: skip
    table["parent"] = None
    relief = make_relief(file, "EPSG:32642", BOX)
    based, _, _ = base_heights(table, file)
    stood = lower_to_relief(based, relief)
    xy, index = shapely.get_coordinates(table.geometry.to_numpy(), return_index=True)
    ground = relief.at(xy[:, 0], xy[:, 1])
    assert (based["base_z"].to_numpy()[index] > ground + 0.01).any()
    assert (stood["base_z"].to_numpy()[index] <= ground + 0.001).all()


def test_terrain_in_degrees_and_its_raster(tmp_path: Path) -> None:
    size = 0.0001
    place = rasterio.Affine(size, 0, 68.25, 0, -size, 43.30)
    data = np.tile(200.0 + np.arange(200) * 0.1, (150, 1))
    file = raster(tmp_path / "d.tif", data, crs="EPSG:4326", transform=place)
    left, bottom = pyproj.Transformer.from_crs(4326, 32642, always_xy=True).transform(
        68.253, 43.288
    )
    relief = make_relief(
        file, "EPSG:32642", (left, bottom, left + 1000, bottom + 900), datum="not stated"
    )
    assert relief.heights.min() == pytest.approx(203, abs=0.5)
    out = write_terrain_raster(relief, "EPSG:32642", tmp_path / "terrain.tif")
    with rasterio.open(out) as src:
        assert src.crs.to_epsg() == 32642
        assert "vertical_datum" in src.tags()
        xs, ys = src.xy(10, 20)
        assert src.read(1)[10, 20] == pytest.approx(relief.at(np.array([xs]), np.array([ys]))[0])


@pytest.mark.parametrize("crs", ["EPSG:4269+8228", "EPSG:4269+6360"])
def test_heights_in_feet_are_refused(tmp_path: Path, crs: str) -> None:
    file = raster(tmp_path / "f.tif", slope(), crs="EPSG:32642")
    with rasterio.open(file, "r+") as sink:
        sink.units = ("ft",)
    with pytest.raises(InputError, match="holds heights in ft"):
        base_heights(city(), file)
    place = rasterio.Affine(0.0001, 0, -75.001, 0, -0.0001, 40.001)
    data = np.full((40, 40), 500.0)
    file = raster(tmp_path / "c.tif", data, crs=crs, transform=place)
    there = gpd.GeoDataFrame(
        {"id": ["way/1"], "kind": ["house"], "parent": [None]},
        geometry=[shapely.box(-75.0, 40.0, -74.9999, 40.0001)], crs="EPSG:4326",
    ).to_crs(32618)  # fmt: skip
    with pytest.raises(InputError, match="foot"):
        base_heights(there, file)


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


def test_bridges_and_tunnels_run_straight_from_ground_to_ground(tmp_path: Path) -> None:
    x = np.arange(100)
    valley = np.tile(np.abs(x - 45.0) * 2 + 100, (80, 1))  # 90 m deep, its floor at x = 455
    relief = make_relief(file := raster(tmp_path / "v.tif", valley), "EPSG:32642", BOX,
                         smoothing=0.0)  # fmt: skip

    def way(*corners: tuple[float, float]) -> shapely.LineString:
        return shapely.LineString([(X + a, Y + b) for a, b in corners])

    rows = [
        ("road", None, None, way((105, 100), (205, 100))),
        # one bridge in two ways, joined over the floor of the valley
        ("bridge 1", "yes", None, way((205, 100), (455, 100))),
        ("bridge 2", "viaduct", None, way((455, 100), (805, 100))),
        ("road on", None, None, way((805, 100), (855, 100))),
        ("not one", "no", "no", way((205, 300), (805, 300))),
        ("tunnel", None, "yes", way((205, 400), (355, 450), (805, 400))),
        # nothing but bridges, in a ring
        ("ring 1", "yes", None, way((205, 500), (405, 600), (805, 500))),
        ("ring 2", "yes", None, way((805, 500), (405, 450), (205, 500))),
    ]
    names, bridge, tunnel, shapes = (list(column) for column in zip(*rows, strict=True))
    streets = gpd.GeoDataFrame(
        {"id": names, "bridge": bridge, "tunnel": tunnel}, geometry=shapes, crs="EPSG:32642"
    )
    out = drape(streets, relief, file).set_index("id")
    assert out["z_source"].to_dict() == {
        r[0]: "terrain" if r[0] in ("road", "road on", "not one") else "ends" for r in rows
    }

    def heights(name: str) -> tuple[np.ndarray, np.ndarray]:
        xyz = shapely.get_coordinates(out.geometry[name], include_z=True)
        return xyz[:, 0] - X, xyz[:, 2]

    ground = 100 + np.abs(np.array([205.0, 805.0]) - 455) / 5
    for name in ("bridge 1", "bridge 2"):
        along, z = heights(name)
        assert len(along) > 5
        assert z == pytest.approx(np.interp(along, [205, 805], ground), abs=0.05)
    along, z = heights("not one")
    assert z.min() < 105
    _, z = heights("tunnel")
    assert z[[0, -1]] == pytest.approx(ground, abs=0.05)
    assert (np.diff(z) > 0).all()
    for name in ("ring 1", "ring 2"):
        _, z = heights(name)
        assert sorted(z[[0, -1]]) == pytest.approx(ground, abs=0.05)
