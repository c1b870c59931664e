"""Travel times, isochrones and friction surfaces."""

from __future__ import annotations

import itertools
import re
import sqlite3
from pathlib import Path
from typing import Any

import geopandas as gpd
import networkx as nx
import numpy as np
import pandas as pd
import pyogrio
import pyproj
import pytest
import rasterio
import shapely
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra
from typer.testing import CliRunner

from qala.errors import InputError
from qala.network import Network, network_from_lines, read_network, save_network
from qala.raster import write_raster
from qala.travel import friction_times, isochrones, times_flow, travel_times

GEOD = pyproj.Geod(ellps="WGS84")
CRS = "ESRI:54009"
METRES = pyproj.Transformer.from_crs("EPSG:4326", CRS, always_xy=True)


def road(points: list[tuple[float, float]], **tags: str) -> dict[str, Any]:
    return {"geometry": shapely.LineString(points), "highway": "primary", "maxspeed": "75", **tags}


def network_of(*roads: dict[str, Any]) -> Network:
    """Make a synthetic network; a limit of 75 km/h is driven at 60."""
    return network_from_lines(gpd.GeoDataFrame(list(roads), crs="EPSG:4326"))


def points(*at: tuple[float, float], **columns: Any) -> gpd.GeoDataFrame:
    x, y = zip(*at, strict=True)
    return gpd.GeoDataFrame(columns, geometry=gpd.points_from_xy(x, y), crs="EPSG:4326")


def grid(bounds: tuple[float, float, float, float], cell: float = 1000.0) -> GeoBox:
    """Return the grid of Mollweide cells that covers bounds in degrees."""
    x, y = METRES.transform(
        [bounds[0], bounds[2], bounds[0], bounds[2]], [bounds[1], bounds[3], bounds[3], bounds[1]]
    )
    left, bottom = np.floor(min(x) / cell) * cell, np.floor(min(y) / cell) * cell
    width, height = int(np.ceil((max(x) - left) / cell)), int(np.ceil((max(y) - bottom) / cell))
    return GeoBox((height, width), Affine(cell, 0, left, 0, -cell, bottom + height * cell), CRS)


def raster(values: np.ndarray[Any, Any], box: GeoBox, name: str = "population") -> xr.DataArray:
    coords = xr_coords(box)
    return xr.DataArray(values, coords=coords, dims=tuple(coords)[:2], name=name)


STRAIGHT = road([(68.0, 43.0), (68.1, 43.0), (68.4, 43.0)])


# Times on the network -----------------------------------------------------------------------


def test_time_is_access_and_road() -> None:
    network = network_of(STRAIGHT)
    origin = points((68.0, 43.01), people=[12.0])
    result = travel_times(network, origin, points((68.4, 43.0)))
    row = result.nearest.iloc[0]
    access = GEOD.line_length([68.0, 68.0], [43.01, 43.0])
    drive = GEOD.line_length([68.0, 68.1, 68.4], [43.0, 43.0, 43.0])
    assert row["access_metres"] == pytest.approx(access, rel=3e-3)
    assert row["seconds"] == pytest.approx(access * 3.6 / 5 + drive * 3.6 / 60, rel=3e-3)
    assert row["by"] == "network"
    assert row["centre"] == 1
    assert result.pairs["seconds"].to_numpy() == pytest.approx([row["seconds"]])
    assert result.summary["people network"] == 12.0


def test_village_beside_a_long_road_enters_it_at_once() -> None:
    # no junction for 32 km: the road is entered where it passes
    result = travel_times(network_of(STRAIGHT), points((68.2, 43.001)), points((68.4, 43.0)))
    assert result.nearest["access_metres"][0] < 300
    drive = GEOD.line_length([68.2, 68.4], [43.0, 43.0]) * 3.6 / 60
    assert result.nearest["seconds"][0] == pytest.approx(drive, abs=200)


def test_motorways_are_entered_at_junctions_only() -> None:
    network = network_of(
        road([(68.0, 43.0), (68.4, 43.0)], highway="motorway", oneway="no"),
        road([(68.4, 43.0), (68.4, 43.02)]),
    )
    result = travel_times(network, points((68.2, 43.0)), points((68.4, 43.02)), fallback=None)
    assert result.nearest["by"][0] == "unreached"
    result = travel_times(
        network, points((68.2, 43.0)), points((68.4, 43.02)), max_access_metres=50_000
    )
    assert result.nearest["access_metres"][0] == pytest.approx(16_300, rel=0.02)


def test_direction_counts_on_one_way_roads() -> None:
    network = network_of(
        road([(68.0, 43.0), (68.1, 43.0)], oneway="yes"),
        road([(68.1, 43.0), (68.1, 43.1), (68.0, 43.1), (68.0, 43.0)], oneway="yes"),
    )
    a, b = points((68.0, 43.0)), points((68.1, 43.0))
    there = travel_times(network, a, b).nearest["seconds"][0]
    back = travel_times(network, a, b, direction="from").nearest["seconds"][0]
    assert there == pytest.approx(GEOD.line_length([68.0, 68.1], [43, 43]) * 0.06, abs=75)
    assert back > 2 * there
    assert travel_times(network, b, a).nearest["seconds"][0] == pytest.approx(back, abs=75)


def test_many_to_many_equals_networkx(reference: Path) -> None:
    network = read_network(reference / "osm" / "monaco_2021.osm.pbf")
    at = np.column_stack([network.lon, network.lat]).round(7)
    _, place, times = np.unique(at, axis=0, return_inverse=True, return_counts=True)
    main = np.flatnonzero((network.component == 0) & (times[place] == 1))
    rng = np.random.default_rng(0)
    a, b = rng.choice(main, 40, replace=False), rng.choice(main, 7, replace=False)
    origins = points(*zip(network.lon[a], network.lat[a], strict=True))
    goals = points(*zip(network.lon[b], network.lat[b], strict=True))
    graph = nx.DiGraph()
    start = np.repeat(np.arange(network.lon.size), np.diff(network.indptr))
    for u, v, s in zip(start.tolist(), network.indices.tolist(), network.seconds, strict=True):
        if not graph.has_edge(u, v) or graph[u][v]["w"] > s:
            graph.add_edge(u, v, w=float(s))
    result = travel_times(network, origins, goals, max_minutes=4)
    table = result.pairs.set_index(["origin", "centre"])["seconds"]
    missing = 0
    for i, u in enumerate(a):
        reach = nx.single_source_dijkstra_path_length(graph, u, weight="w")
        for j, v in enumerate(b):
            if reach[v] <= 239:
                assert table[i + 1, j + 1] == pytest.approx(reach[v], abs=0.5)
            elif reach[v] > 241:
                assert (i + 1, j + 1) not in table.index
                missing += 1
        best = min(reach[v] for v in b)
        assert result.nearest["seconds"][i] == pytest.approx(best, abs=0.5)
    assert missing > 0


def test_threads_do_not_change_the_result(reference: Path) -> None:
    network = read_network(reference / "osm" / "liechtenstein_2022.osm.pbf")
    rng = np.random.default_rng(1)
    origins = points(*zip(rng.uniform(9.48, 9.6, 300), rng.uniform(47.06, 47.25, 300), strict=True))
    goals = origins.iloc[:11]
    one = travel_times(network, origins, goals, threads=1)
    three = travel_times(network, origins, goals, threads=3)
    pd.testing.assert_frame_equal(one.pairs, three.pairs)
    pd.testing.assert_frame_equal(one.nearest, three.nearest)
    least = one.pairs.groupby("origin")["seconds"].min()
    near = one.nearest.set_index("origin")["seconds"]
    assert least.to_numpy() == pytest.approx(near[least.index].to_numpy())
    own = one.pairs[one.pairs["origin"] == one.pairs["centre"]]
    assert len(own) == 11


# Cells and centres --------------------------------------------------------------------------


@pytest.fixture
def cells() -> tuple[xr.DataArray, xr.DataArray]:
    """People along and off a road, and two centres at its ends (synthetic)."""
    box = grid((67.98, 42.95, 68.45, 43.2))
    people = np.zeros(box.shape)
    labels = np.zeros(box.shape)
    rows, cols = [], []
    for lon, lat in ((68.01, 43.0), (68.2, 43.0), (68.38, 43.0), (68.2, 43.15)):
        x, y = METRES.transform(lon, lat)
        rows.append(int((box.transform.f - y) / 1000))
        cols.append(int((x - box.transform.c) / 1000))
    people[rows, cols] = [100, 20, 300, 7]
    labels[rows[0], cols[0]] = 4
    labels[rows[2], cols[2] : cols[2] + 2] = 9
    people[0, 0] = np.nan
    return raster(people, box), raster(labels, box, "centres")


def test_cells_to_the_edge_of_centres(cells: tuple[xr.DataArray, xr.DataArray]) -> None:
    population, labels = cells
    result = travel_times(network_of(STRAIGHT), population, labels)
    near = result.nearest.set_index("people")
    assert near.loc[100.0, ["centre", "seconds", "by"]].tolist() == [4, 0.0, "inside"]
    assert near.loc[300.0, ["centre", "seconds", "by"]].tolist() == [9, 0.0, "inside"]
    assert near.loc[20.0, "by"] == "network"
    # the cell off the road walks straight, 13 km or so from the nearest centre's edge
    assert near.loc[7.0, "by"] == "walk"
    assert 14_000 < near.loc[7.0, "seconds"] * 5 / 3.6 < 24_000
    assert not near.loc[7.0, "within"]
    assert set(result.pairs.loc[result.pairs["origin"] == near.loc[20.0, "origin"], "centre"]) == {
        4,
        9,
    }
    # from one centre to the edge of the other, less than to its far end
    other = result.pairs.query("centre == 9 and by == 'network'").set_index("origin")["seconds"]
    whole = GEOD.line_length([68.01, 68.38], [43, 43]) * 0.06
    # at most the half diagonal of a cell lies between its centre and the road
    assert 0.9 * whole < other[near.loc[100.0, "origin"]] < whole + 708 * 0.72
    assert result.summary["origins walk"] == 1
    assert result.summary["people off the network"] == 7.0
    assert result.summary["people beyond the limit"] == 7.0
    assert "from 1 of 4 origins (7 people)" in result.summary["warnings"][0]
    total = sum(
        result.summary[f"people {k}"]
        for k in ("inside", "network", "walk", "friction", "unreached")
    )
    assert total == pytest.approx(427)
    cell = population.values.ravel()[near["origin"].to_numpy(np.int64)]
    assert cell == pytest.approx(near.index.to_numpy())


def test_polygons_are_reached_at_their_edge(cells: tuple[xr.DataArray, xr.DataArray]) -> None:
    population, _ = cells
    shapes = gpd.GeoDataFrame(
        {"name": ["west", "east"]},
        geometry=[shapely.box(67.99, 42.99, 68.05, 43.01), shapely.box(68.35, 42.99, 68.5, 43.01)],
        crs="EPSG:4326",
    )
    result = travel_times(network_of(STRAIGHT), population, shapes, destination_id="name")
    near = result.nearest.set_index("people")
    assert near.loc[100.0, ["centre", "by"]].tolist() == ["west", "inside"]
    assert near.loc[20.0, "centre"] in ("west", "east")
    edge = GEOD.line_length([68.2, 68.35], [43, 43]) * 0.06
    assert near.loc[20.0, "seconds"] == pytest.approx(
        edge + near.loc[20.0, "access_seconds"], abs=60
    )


def test_no_fallback_leaves_cells_unreached(cells: tuple[xr.DataArray, xr.DataArray]) -> None:
    population, labels = cells
    result = travel_times(network_of(STRAIGHT), population, labels, fallback=None)
    row = result.nearest.set_index("people").loc[7.0]
    assert row["by"] == "unreached"
    assert np.isnan(row["seconds"])
    assert pd.isna(row["centre"])
    assert result.summary["people unreached"] == 7.0
    assert 7.0 not in result.pairs["origin"].to_numpy()


def test_friction_as_fallback(cells: tuple[xr.DataArray, xr.DataArray]) -> None:
    population, labels = cells
    friction = raster(
        np.full(population.shape, 0.36), grid((67.98, 42.95, 68.45, 43.2)), "friction"
    )
    result = travel_times(network_of(STRAIGHT), population, labels, fallback=friction)
    row = result.nearest.set_index("people").loc[7.0]
    assert row["by"] == "friction"
    direct = friction_times(friction, labels)
    expected = float(direct["seconds"].values.ravel()[int(row["origin"])])
    assert row["seconds"] == pytest.approx(expected)
    assert row["centre"] == int(direct["nearest"].values.ravel()[int(row["origin"])])


def test_island_without_a_centre_is_told() -> None:
    network = network_of(STRAIGHT, road([(69.0, 43.0), (69.2, 43.0)]))
    origins = points((68.1, 43.0), (69.1, 43.0), people=[5.0, 6.0])
    result = travel_times(network, origins, points((68.0, 43.0)))
    assert result.nearest["by"].tolist() == ["network", "walk"]
    assert result.summary["people off the network"] == 6.0
    assert result.summary["ids off the network"] == [2]
    assert result.summary["warnings"][0].endswith("0 are unreached: 2")
    # with a centre of its own the island is a network like any other
    both = travel_times(network, origins, points((68.0, 43.0), (69.2, 43.0)))
    assert both.nearest["centre"].tolist() == [1, 2]
    assert both.nearest["by"].tolist() == ["network", "network"]
    assert len(both.pairs) == 2


def test_centre_off_the_network_is_told() -> None:
    result = travel_times(
        network_of(STRAIGHT), points((68.1, 43.0)), points((68.0, 43.0), (75.0, 50.0))
    )
    assert result.summary["centres off the network"] == [2]
    assert "1 centres lie off the network: 2" in result.summary["warnings"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"destinations": points((10.0, 50.0))}, "no destination lies on or near the network"),
        ({"max_minutes": 0}, "max_minutes is 0"),
        ({"direction": "up"}, "direction is 'up'"),
        ({"fallback": "fly", "origins": points((68.2, 43.5))}, "fallback is 'fly'"),
        ({"origins": points((68.1, 43.0)).set_crs(None, allow_override=True)}, "no CRS"),
        ({"origins": points((68.1, 43.0)).iloc[:0]}, "empty"),
        ({"origin_id": "code"}, "no column 'code'"),
        (
            {"origins": points((68, 43), (68, 43), code=["a", "a"]), "origin_id": "code"},
            "repeated or missing",
        ),
    ],
)
def test_wrong_arguments(change: dict[str, Any], words: str) -> None:
    arguments = {"origins": points((68.1, 43.0)), "destinations": points((68.0, 43.0)), **change}
    with pytest.raises(InputError, match=words):
        travel_times(network_of(STRAIGHT), **arguments)


def test_rasters_that_are_none(cells: tuple[xr.DataArray, xr.DataArray]) -> None:
    population, labels = cells
    network = network_of(STRAIGHT)
    with pytest.raises(InputError, match="no cell of origins has people"):
        travel_times(network, population * 0, labels)
    with pytest.raises(InputError, match="hold negative people"):
        travel_times(network, population - 1, labels)
    with pytest.raises(InputError, match="no cell is labelled"):
        travel_times(network, population, labels * 0)
    with pytest.raises(InputError, match="not whole numbers"):
        travel_times(network, population, labels * 0.3)


# Friction -----------------------------------------------------------------------------------


def plain_least_cost(
    friction: np.ndarray[Any, Any], sources: np.ndarray[Any, Any], cell: float
) -> np.ndarray[Any, Any]:
    """Return least costs by scipy's Dijkstra on the whole grid."""
    height, width = friction.shape
    number = np.arange(height * width).reshape(height, width)
    rows, cols, costs = [], [], []
    for dr, dc in ((0, 1), (1, 0), (1, 1), (1, -1)):
        a = number[: height - dr, max(0, -dc) : width - max(0, dc)].ravel()
        b = number[dr:, max(0, dc) : width - max(0, -dc)].ravel()
        cost = 0.5 * (friction.ravel()[a] + friction.ravel()[b]) * np.hypot(dr, dc) * cell
        ok = np.isfinite(cost)
        rows.append(a[ok]), cols.append(b[ok]), costs.append(cost[ok])
    graph = coo_array(
        (np.concatenate(costs), (np.concatenate(rows), np.concatenate(cols))),
        shape=(number.size, number.size),
    ).tocsr()
    starts = np.flatnonzero((sources > 0).ravel() & np.isfinite(friction).ravel())
    return dijkstra(graph, directed=False, indices=starts, min_only=True).reshape(friction.shape)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 24), st.integers(1, 24), st.integers(1, 9), st.integers(0, 10**6),
    st.sampled_from([1, 2]),
)  # fmt: skip
def test_friction_equals_plain_dijkstra(
    height: int, width: int, tile: int, seed: int, threads: int
) -> None:
    rng = np.random.default_rng(seed)
    friction = rng.uniform(0.01, 3, (height, width))
    friction[rng.random((height, width)) < 0.25] = np.nan
    sources = (rng.random((height, width)) < 0.05) * rng.integers(1, 5, (height, width))
    sources[height // 2, width // 2] = 3
    friction[height // 2, width // 2] = 1.0
    box = GeoBox((height, width), Affine(100, 0, 0, 0, -100, 0), CRS)
    result = friction_times(raster(friction, box), raster(sources, box), tile=tile, threads=threads)
    wanted = plain_least_cost(friction, sources, 100.0)
    found = result["seconds"].values
    assert np.array_equal(np.isnan(found), np.isinf(wanted))
    assert found[~np.isnan(found)] == pytest.approx(wanted[np.isfinite(wanted)])
    # the label is that of a source with just this time
    for label in np.unique(sources[sources > 0]):
        own = plain_least_cost(friction, np.where(sources == label, 1, 0), 100.0)
        mine = result["nearest"].values == label
        assert found[mine] == pytest.approx(own[mine])
    assert ((result["nearest"].values == 0) == np.isnan(found)).all()


def test_friction_limit_and_bad_input() -> None:
    box = GeoBox((5, 50), Affine(100, 0, 0, 0, -100, 0), CRS)
    friction, start = raster(np.ones(box.shape), box), np.zeros(box.shape)
    start[2, 0] = 1
    sources = raster(start, box)
    near = friction_times(friction, sources, max_minutes=10, tile=7)["seconds"]
    assert near.max() == 600.0
    assert int(near.notnull().sum()) < near.size
    with pytest.raises(InputError, match="no cell is a source"):
        friction_times(friction, sources * 0)
    with pytest.raises(InputError, match="impassable"):
        friction_times(friction * np.nan, sources)
    with pytest.raises(InputError, match="not on the grid"):
        friction_times(friction, sources.isel(x=slice(1, None)))
    degrees = GeoBox((5, 50), Affine(0.1, 0, 0, 0, -0.1, 0), "EPSG:4326")
    with pytest.raises(InputError, match="not square metres"):
        friction_times(raster(np.ones(box.shape), degrees), raster(start, degrees))


# Isochrones ---------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["from", "to"])
def test_isochrones_are_nested_and_valid(reference: Path, direction: Any) -> None:
    network = read_network(reference / "osm" / "liechtenstein_2022.osm.pbf")
    start = points((9.5209, 47.1410), (9.5026, 47.0660), name=["Vaduz", "Balzers"])
    bands = isochrones(network, start, (5, 10, 20), direction=direction, id_column="name")
    assert bands["minutes"].tolist() == [20, 10, 5] * 2
    assert bands.geometry.is_valid.all()
    assert bands.crs == CRS
    here = start.to_crs(CRS).geometry
    for (_, own), place in zip(bands.groupby("id", sort=False), here, strict=True):
        large, middle, small = own.geometry
        assert small.difference(middle).area < 1e-6 * small.area
        assert middle.difference(large).area < 1e-6 * middle.area
        assert small.contains(place)
        assert small.area < middle.area < large.area
        # nothing is reached faster than 110 km/h and the walk at the end
        far = shapely.hausdorff_distance(small, place)
        assert far < 5 * 60 * 110 / 3.6 * 1.6


def test_isochrone_agrees_with_times(reference: Path) -> None:
    network = read_network(reference / "osm" / "liechtenstein_2022.osm.pbf")
    start = points((9.5209, 47.1410))
    rng = np.random.default_rng(4)
    on_road = np.flatnonzero((network.component == 0) & (rng.random(network.lon.size) < 0.1))
    places = points(*zip(network.lon[on_road], network.lat[on_road], strict=True))
    seconds = travel_times(network, places, start, direction="from").nearest["seconds"]
    area = isochrones(network, start, [10]).geometry[0]
    inside = places.to_crs(CRS).within(area).to_numpy()
    assert inside[seconds < 9 * 60].mean() > 0.99
    assert inside[seconds > 11.5 * 60].mean() < 0.02
    assert (seconds > 11.5 * 60).sum() > 20


def test_isochrones_across_the_date_line() -> None:
    """The same roads have the same areas on the date line as elsewhere."""
    areas = []
    for middle in (20.0, 180.0):
        at = [((middle + k * 0.05 + 180) % 360 - 180, 65.0) for k in range(-4, 5)]
        network = network_of(*[road(list(pair)) for pair in itertools.pairwise(at)])
        found = isochrones(network, points(at[2]), [5, 20])
        assert found.is_valid.all()
        areas.append(found["area_km2"].tolist())
    assert areas[1] == pytest.approx(areas[0], rel=0.02)


def test_isochrones_far_apart_are_drawn_coarser(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qala.travel.MOST_CELLS", 1e6)
    network = network_of(road([(10.0, 50.0), (10.1, 50.0)]), road([(40.0, 55.0), (40.1, 55.0)]))
    found = isochrones(network, points((10.0, 50.0), (40.0, 55.0)), [15], merge=True)
    assert "drawn in cells of" in caplog.text
    assert found.is_valid.all()
    west, _, east, _ = found.to_crs("EPSG:4326").total_bounds
    assert (west, east) == pytest.approx((10.0, 40.1), abs=0.1)


def test_isochrone_off_the_network() -> None:
    network = network_of(STRAIGHT)
    with pytest.raises(InputError, match="none of the 1 points"):
        isochrones(network, points((10.0, 10.0)))
    with pytest.raises(InputError, match="minutes are"):
        isochrones(network, points((68.0, 43.0)), (0, 5))
    bands = isochrones(network, points((68.0, 43.0), (10.0, 10.0)), [5])
    assert bands.geometry.is_empty.tolist() == [False, True]
    # a wedge of 5 km, the road at 60 km/h; to either side as far as 5 km/h lead in the time left
    assert bands["area_km2"][0] == pytest.approx(5 * 0.417 + np.pi * 0.417**2 / 2, rel=0.1)
    merged = isochrones(network, points((68.0, 43.0), (68.4, 43.0)), [5], merge=True)
    assert merged["area_km2"].tolist() == pytest.approx([2 * bands["area_km2"][0]], rel=0.05)


# Flow ---------------------------------------------------------------------------------------


def test_flow_writes_each_kind(cells: tuple[xr.DataArray, xr.DataArray], tmp_path: Path) -> None:
    population, _ = cells
    net = save_network(network_of(STRAIGHT), tmp_path / "a.net")
    pop = write_raster(population.astype("float32"), tmp_path / "pop.tif")
    goals = tmp_path / "goals.gpkg"
    points((68.0, 43.0), (68.4, 43.0), code=["w", "e"]).to_file(goals)
    for kind in ("csv", "parquet", "tif", "gpkg"):
        out = tmp_path / "out" / f"t.{kind}"
        result = times_flow(net, goals, pop, 120, out, id_column="code")
        assert result["out"] == str(out)
        assert result["people"] == 427
    folder = tmp_path / "out"
    assert sorted(p.name for p in folder.iterdir()) == ["t.csv", "t.gpkg", "t.parquet", "t.tif"]
    table = pd.read_csv(folder / "t.csv")
    assert table.columns.tolist() == ["origin", "centre", "seconds", "by"]
    assert set(table["centre"]) == {"w", "e"}
    assert len(pd.read_parquet(folder / "t.parquet")) == len(table)
    with rasterio.open(folder / "t.tif") as source:
        assert source.units[0] == "s" or source.tags()["units"] == "s"
        assert int(np.isfinite(source.read(1)).sum()) == 4
    assert len(gpd.read_file(folder / "t.gpkg", layer="nearest")) == 4
    assert len(pyogrio.read_dataframe(folder / "t.gpkg", layer="pairs")) == len(table)
    assert len(gpd.read_file(folder / "t.gpkg", layer="network")) == 1
    styled = pyogrio.read_dataframe(folder / "t.gpkg", layer="layer_styles")
    assert set(styled["f_table_name"]) == {"centres", "nearest", "network", "isochrones", "pairs"}
    assert gpd.read_file(folder / "t.gpkg", layer="isochrones")["minutes"].tolist() == [
        90,
        60,
        30,
        15,
    ]


def test_command_tells_every_fact_in_words(
    cells: tuple[xr.DataArray, xr.DataArray], tmp_path: Path
) -> None:
    from qala.cli import app

    net = save_network(network_of(STRAIGHT), tmp_path / "a.net")
    pop = write_raster(cells[0].astype("float32"), tmp_path / "pop.tif")
    goals = tmp_path / "goals.gpkg"
    points((68.0, 43.0), (68.4, 43.0), code=["батыс", "шығыс"]).to_file(goals)
    out = tmp_path / "t.gpkg"
    arguments = ["--network", net, "--from", goals, "--id", "code", "--population", pop, "-o", out]
    done = CliRunner().invoke(app, ["times", *map(str, arguments), "--lang", "kk"])
    assert done.exit_code == 0, done.output
    assert re.search(r"origins network +\d", done.output)
    assert done.output.splitlines()[-1] == str(out)
    layer = pyogrio.read_dataframe(out, layer="pairs")
    assert set(layer["centre"]) == {"батыс", "шығыс"}
    with sqlite3.connect(out) as file:
        titles = {row[0] for row in file.execute("select identifier from gpkg_contents")}
    assert "Орталықтар" in titles


def test_flow_with_classes_and_bad_names(
    cells: tuple[xr.DataArray, xr.DataArray], tmp_path: Path
) -> None:
    population, labels = cells
    classes = (labels > 0).astype("uint8") * 19 + 11
    file = write_raster(classes.astype("uint8"), tmp_path / "cells.tif")
    result = times_flow(network_of(STRAIGHT), file, population, 120, tmp_path / "t.csv")
    assert result["centres"] == 2
    assert result["origins inside"] == 2
    rural = write_raster((classes * 0 + 11).astype("uint8"), tmp_path / "rural.tif")
    with pytest.raises(InputError, match="holds no urban centre"):
        times_flow(network_of(STRAIGHT), rural, population, 120, tmp_path / "t.csv")
    with pytest.raises(InputError, match="no kind of output known"):
        times_flow(network_of(STRAIGHT), file, population, 120, tmp_path / "t.docx")
    with pytest.raises(InputError, match="does not exist"):
        times_flow(tmp_path / "no.net", file, population, 120, tmp_path / "t.csv")
