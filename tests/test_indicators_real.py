"""Indicators on real Liechtenstein and Belgium, against slow and plain computations.

People of Liechtenstein and the second epoch of Belgium are SYNTHETIC: made here from outlines of
buildings, and by scaling the real grid of 2020.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import rasterio
import shapely
import xarray as xr
from odc.geo.xr import xr_coords
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

from qala.amenities import read_amenities
from qala.city.osm import read_osm
from qala.grid import ghsl_geobox
from qala.indicators import Indicators, planning_indicators
from qala.network import network_layers, read_network

CRS = "ESRI:54009"
GEOD = pyproj.Geod(ellps="WGS84")
EARTH = 6_371_008.8


def metres(lon: Any, lat: Any, lon0: Any, lat0: Any) -> np.ndarray:
    a, b, c, d = (np.radians(v) for v in (lon, lat, lon0, lat0))
    h = np.sin((b - d) / 2) ** 2 + np.cos(b) * np.cos(d) * np.sin((a - c) / 2) ** 2
    return 2 * EARTH * np.arcsin(np.sqrt(h))


def geodesic_km(line: Any) -> float:
    """Length of lines on the ellipsoid, one by one."""
    parts = [g for g in shapely.get_parts(line) if g.geom_type == "LineString"]
    return sum(GEOD.geometry_length(p) for p in parts) / 1000


@pytest.fixture(scope="module")
def extract(reference: Path) -> Path:
    return reference / "osm" / "liechtenstein_2022.osm.pbf"


@pytest.fixture(scope="module")
def liechtenstein(extract: Path) -> dict[str, Any]:
    """SYNTHETIC people: one per 60 m² of outline, on GHSL's grid; the country in two halves."""
    outlines = read_osm(extract, layers=("buildings",)).layers["buildings"]
    shapes = shapely.convex_hull(outlines.geometry.to_crs(CRS).to_numpy())
    area, at = shapely.area(shapes), shapely.get_coordinates(shapely.centroid(shapes))
    low, high = at.min(axis=0), at.max(axis=0)
    grid = ghsl_geobox((*low, *high))
    t = grid.transform
    people = np.zeros(grid.shape)
    cell = ((t.f - at[:, 1]) // 1000).astype(int), ((at[:, 0] - t.c) // 1000).astype(int)
    np.add.at(people, cell, area / 60)
    middle = (low[1] + high[1]) / 2 + 137  # cuts cells
    halves = [shapely.box(*low, high[0], middle), shapely.box(low[0], middle, *high)]
    units = gpd.GeoDataFrame({"id": ["south", "north"]}, geometry=halves, crs=CRS)
    found = read_amenities(extract)
    networks = {m: read_network(extract, mode=m) for m in ("foot", "car")}
    raster = xr.DataArray(people, xr_coords(grid), ("y", "x"), name="population")
    return {
        "people": people, "grid": grid, "units": units, "amenities": found,
        "networks": networks, "raster": raster,
    }  # fmt: skip


@pytest.fixture(scope="module")
def walked(liechtenstein: dict[str, Any]) -> Indicators:
    case = liechtenstein
    return planning_indicators(
        case["units"], case["raster"], id="id", amenities=case["amenities"],
        networks=case["networks"], catchments=False,
    )  # fmt: skip


def places(case: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(lon, lat, people in the south, people in the north), a point a hectare, one by one."""
    t, rows = case["grid"].transform, []
    halves = list(case["units"].geometry)
    for r, c in np.argwhere(case["people"] > 0):
        square = shapely.box(t.c + c * 1000, t.f - (r + 1) * 1000, t.c + (c + 1) * 1000,
                             t.f - r * 1000)  # fmt: skip
        steps = (np.arange(10) + 0.5) * 100
        x = np.repeat([t.c + c * 1000 + steps], 10, axis=0).ravel()
        y = np.repeat([t.f - r * 1000 - steps], 10, axis=0).T.ravel()
        weight = []
        for half in halves:
            part = case["people"][r, c] * square.intersection(half).area / 1e6
            inside = shapely.intersects_xy(half, x, y)
            if part > 0 and not inside.any():
                inside[:] = True
            weight.append(np.where(inside, part / max(inside.sum(), 1), 0.0))
        rows.append(np.column_stack([x, y, *weight]))
    table = np.concatenate(rows)
    lon, lat = pyproj.Transformer.from_crs(CRS, 4326, always_xy=True).transform(*table[:, :2].T)
    return lon, lat, table[:, 2], table[:, 3]


def test_straight_lines_against_all_pairs(liechtenstein: dict[str, Any]) -> None:
    case = liechtenstein
    found = planning_indicators(
        case["units"], case["raster"], id="id", amenities=case["amenities"], catchments=False
    )
    lon, lat, south, north = places(case)
    stops = case["amenities"].stops
    near = np.zeros(lon.size, bool)
    for point in stops.geometry:
        near |= metres(lon, lat, point.x, point.y) <= 500
    rows = found.table().query("indicator == 'stop_500m'").set_index("zone")
    for zone, people in (("south", south), ("north", north), ("all", south + north)):
        assert rows.loc[zone, "numerator"] == pytest.approx(people[near].sum(), rel=1e-6)
        assert rows.loc[zone, "denominator"] == pytest.approx(people.sum(), rel=1e-6)
    assert (rows["method"].str.contains("straight line")).all()


def test_walks_against_scipy_on_the_drawn_lines(
    liechtenstein: dict[str, Any], walked: Indicators
) -> None:
    case = liechtenstein
    lines = network_layers(case["networks"]["foot"])
    # pieces of at most 50 m, joined where their ends meet
    ends: dict[tuple[float, float], int] = {}
    arcs: list[tuple[int, int, float]] = []
    for line, length in zip(lines.geometry, lines["metres"], strict=True):
        pieces = max(int(np.ceil(length / 50)), 1)
        at = [line.interpolate(k / pieces, normalized=True) for k in range(pieces + 1)]
        key = [ends.setdefault((round(p.x, 7), round(p.y, 7)), len(ends)) for p in at]
        arcs += [(a, b, float(length) / pieces) for a, b in pairwise(key)]
    a, b, m = (np.array(v) for v in zip(*arcs, strict=True))
    graph = coo_matrix((m, (a, b)), shape=(len(ends), len(ends))).tocsr()
    node = np.array(list(ends))
    from scipy.spatial import cKDTree

    tree = cKDTree(node * [np.cos(np.radians(47.15)), 1.0])

    def hook(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        _, k = tree.query(np.column_stack([np.asarray(x) * np.cos(np.radians(47.15)), y]))
        return k, metres(x, y, *node[k].T)

    stops = case["amenities"].stops
    goal, off = hook(stops.geometry.x, stops.geometry.y)
    # a source joined to every stop by the line from it to the road
    extra = coo_matrix((off + 1e-6, (np.full(goal.size, len(ends)), goal)),
                       shape=(len(ends) + 1, len(ends) + 1))  # fmt: skip
    whole = coo_matrix(graph).reshape(graph.shape)
    whole.resize(len(ends) + 1, len(ends) + 1)
    reach = dijkstra((whole + extra).tocsr(), directed=False, indices=len(ends))[:-1]
    lon, lat, south, north = places(case)
    k, access = hook(lon, lat)
    near = reach[k] + access <= 500
    rows = walked.table().query("indicator == 'stop_500m'").set_index("zone")
    for zone, people in (("south", south), ("north", north), ("all", south + north)):
        # pieces are cut at slightly other places, which moves a point in some hundreds
        assert rows.loc[zone, "value"] == pytest.approx(people[near].sum() / people.sum(), abs=0.01)
    assert rows["method"].str.contains("foot network").all()
    # nobody walks a shorter way than the straight line
    straight = planning_indicators(
        case["units"], case["raster"], id="id", amenities=case["amenities"], catchments=False
    )
    far = straight.table().query("indicator == 'stop_500m'").set_index("zone")
    assert (rows["value"] < far["value"]).all()


def test_roads_and_green_one_by_one(liechtenstein: dict[str, Any], walked: Indicators) -> None:
    case, found = liechtenstein, liechtenstein["amenities"]
    halves = case["units"].to_crs(4326).set_index("id").geometry
    table = walked.table().set_index(["indicator", "zone"])
    roads = found.ways[found.ways["road"]]
    # borders of the halves are straight in Mollweide, nearly so in degrees
    dense = gpd.GeoSeries(
        shapely.segmentize(case["units"].geometry.to_numpy(), 500), crs=CRS
    ).to_crs(4326)
    for zone, shape in zip(halves.index, dense, strict=True):
        km = sum(geodesic_km(line.intersection(shape)) for line in roads.geometry)
        assert table.loc[("roads_density", zone), "numerator"] == pytest.approx(km, rel=1e-4)
    parks = found.open_space.to_crs(CRS).geometry.make_valid()
    once = shapely.union_all(parks.to_numpy())
    for zone, half in zip(halves.index, case["units"].geometry, strict=True):
        area = once.intersection(half).area
        assert table.loc[("open_space_per_person", zone), "numerator"] == pytest.approx(
            area, rel=1e-6
        )


def test_hospital_minutes_are_a_median_of_people(
    liechtenstein: dict[str, Any], walked: Indicators
) -> None:
    from qala.travel import travel_times

    case = liechtenstein
    lon, lat, south, north = places(case)
    points = gpd.GeoDataFrame(geometry=gpd.points_from_xy(lon, lat), crs=4326)
    goals = case["amenities"].services["hospital"][["geometry"]]
    times = travel_times(case["networks"]["car"], points, goals, max_minutes=1).nearest
    minutes = times["seconds"].to_numpy(float) / 60
    order = np.argsort(minutes)
    table = walked.table().set_index(["indicator", "zone"])
    for zone, people in (("south", south), ("north", north)):
        total = np.cumsum(people[order])
        half = minutes[order][np.searchsorted(total, people.sum() / 2)]
        assert table.loc[("hospital_minutes_car", zone), "value"] == pytest.approx(half, rel=1e-3)
        share = people[minutes <= 15].sum() / people.sum()
        assert table.loc[("hospital_15min_car", zone), "value"] == pytest.approx(share, abs=1e-3)


def test_belgium_growth_of_some_communes_by_plain_overlay(reference: Path) -> None:
    from qala.raster import open_raster
    from qala.vector import read_units

    folder = reference / "belgium"
    people = open_raster(folder / "ghsl" / "POP.tif").load()
    built = open_raster(folder / "ghsl" / "BUILT_S.tif", "built").load()
    land = open_raster(folder / "ghsl" / "LAND.tif", "land")
    columns = np.arange(people.shape[1])[None, :]
    # SYNTHETIC earlier epoch: fewer people in the west, less built in the east
    earlier = people * (0.90 + 0.1 * columns / people.shape[1])
    was = (built * (1.0 - 0.1 * columns / people.shape[1])).assign_attrs(built.attrs)
    layer = folder / "units.gpkg"
    id = next(c for c in gpd.read_file(layer, rows=1).columns if c != "geometry")
    units = read_units(layer, id=id)
    found = planning_indicators(
        units, {2015: earlier.assign_attrs(people.attrs), 2020: people}, {2015: was, 2020: built},
        land, id=id,
    )  # fmt: skip
    table = found.table().set_index(["indicator", "zone", "epoch"])
    with rasterio.open(folder / "expected_cells" / "L2_R2023A_2021rules.tif") as source:
        golden = source.read(1)
    t = rasterio.open(folder / "ghsl" / "POP.tif").transform
    shapes = units.to_crs(CRS)
    now, before = np.nan_to_num(people.values), np.nan_to_num(earlier.values)
    v1, v0 = np.nan_to_num(built.values), np.nan_to_num(was.values)
    for number in (3, 120, 333, 580):
        shape, zone = shapes.geometry.iloc[number], str(shapes[id].iloc[number])
        left, bottom, right, top = shape.bounds
        sums = np.zeros(5)
        for r in range(int((t.f - top) // 1000), int((t.f - bottom) // 1000) + 1):
            for c in range(int((left - t.c) // 1000), int((right - t.c) // 1000) + 1):
                x, y = t.c + c * 1000, t.f - r * 1000
                part = shape.intersection(shapely.box(x, y - 1000, x + 1000, y)).area / 1e6
                inside = 0 <= r < now.shape[0] and 0 <= c < now.shape[1]
                if not part or not inside:
                    continue
                urban = golden[r, c] in (30, 23, 22, 21)
                sums += part * np.array(
                    [now[r, c], before[r, c], v1[r, c], v0[r, c], urban * now[r, c]]
                )
        p1, p0, b1, b0, urban = sums
        lcr, pgr = (b1 - b0) / b0 / 5, np.log(p1 / p0) / 5
        row = table.loc[("lcrpgr", zone, "2020")]
        assert row["numerator"] == pytest.approx(lcr, rel=1e-3)
        assert row["denominator"] == pytest.approx(pgr, rel=1e-3)
        assert row["value"] == pytest.approx(lcr / pgr, rel=2e-3)
        share = table.loc[("urban_share", zone, "2020"), "value"]
        # golden classes are those of other unit rules but the same cells
        assert share == pytest.approx(urban / p1, rel=1e-3)
    assert found.units.shape[0] == 581
