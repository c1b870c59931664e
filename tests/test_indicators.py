"""Indicators: numbers that can be worked out by hand, and inputs that do not allow them."""

from __future__ import annotations

from itertools import pairwise

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from builders import KM, LEFT, TOP, geobox, raster, squares
from pyproj import Transformer
from scipy.sparse import csr_matrix
from shapely.geometry import LineString, Point, box

from qala.amenities import Amenities
from qala.errors import InputError
from qala.indicator_definitions import DEFINITIONS, NOT_COMPUTABLE, FunctionalAreas
from qala.indicators import Indicators, land_consumption, planning_indicators
from qala.places import kilometres_in, people_places, square_metres_in, weighted_medians
from qala.units import coverage

TO_DEGREES = Transformer.from_crs("ESRI:54009", "EPSG:4326", always_xy=True).transform


def at(x: float, y: float) -> tuple[float, float]:
    """Degrees of a place x km east and y km south of the grid's corner."""
    lon, lat = TO_DEGREES(LEFT + x * KM, TOP - y * KM)
    return float(lon), float(lat)


def layer(shapes: list, **columns: object) -> gpd.GeoDataFrame:
    data = {"id": [str(i) for i in range(len(shapes))], **columns}
    return gpd.GeoDataFrame(data, geometry=list(shapes), crs="EPSG:4326")


def area(x0: float, y0: float, x1: float, y1: float) -> shapely.Polygon:
    corners = [at(x0, y0), at(x1, y0), at(x1, y1), at(x0, y1)]
    return shapely.Polygon(corners)


def nothing(**columns: object) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame({"id": [], **{k: [] for k in columns}}, geometry=[], crs="EPSG:4326")


def ways(lines: list, **flags: list[bool]) -> gpd.GeoDataFrame:
    names = ("road", "cycle", "path", "barrier_free", "rated")
    full = {n: flags.get(n, [False] * len(lines)) for n in names}
    return layer(lines, kind=["residential"] * len(lines), **full)


def extract(**layers: object) -> Amenities:
    """An extract of one street along both units, and what is given."""
    street = ways([LineString([at(0.2, 1), at(3.8, 1)])], road=[True])
    services = {s: nothing(kind=1, name=1) for s in ("school", "kindergarten", "hospital", "fire")}
    given: dict = {
        "stops": nothing(kind=1, name=1, high=1), "open_space": nothing(kind=1),
        "green": nothing(kind=1), "ways": street, "protected": nothing(kind=1),
        "networks": {k: nothing() for k in ("water", "heat", "power")}, "source": "x.osm.pbf",
    }  # fmt: skip
    given |= layers
    given["services"] = services | dict(given.get("services", {}))
    return Amenities(**given)


def people(values: object) -> object:
    return raster(np.asarray(values, dtype=float))


def two_units() -> gpd.GeoDataFrame:
    """Units a and b: 2 × 2 km each, beside each other."""
    corners = [box(LEFT, TOP - 2 * KM, LEFT + 2 * KM, TOP),
               box(LEFT + 2 * KM, TOP - 2 * KM, LEFT + 4 * KM, TOP)]  # fmt: skip
    return gpd.GeoDataFrame({"id": ["a", "b"]}, geometry=corners, crs="ESRI:54009")


def value(found: Indicators, code: str, zone: str, **where: object) -> pd.Series:
    table = found.table()
    chosen = (table["indicator"] == code) & (table["zone"] == zone)
    for column, wanted in where.items():
        chosen &= table[column] == wanted
    assert chosen.sum() == 1, (code, zone, where, int(chosen.sum()))
    return table[chosen].iloc[0]


def test_land_consumption_by_hand() -> None:
    lcr, pgr, ratio = land_consumption([100, 0, 100], [121, 5, 121], [1000, 10, 1000],
                                       [1000 * np.exp(0.1), 20, 1000.1], 10)  # fmt: skip
    assert lcr[0] == pytest.approx(0.021)
    assert pgr[0] == pytest.approx(0.01)
    assert ratio[0] == pytest.approx(2.1)
    assert np.isnan(lcr[1])  # nothing was built: no rate
    assert np.isnan(ratio[2])  # people hardly changed: no ratio


def test_two_epochs_of_two_units() -> None:
    before = people([[100, 100, 50, 50], [100, 100, 50, 50]])
    now = people([[110, 110, 50, 50], [110, 110, 50, 50]])
    was = raster(np.full((2, 4), 20_000.0), "built", "m2")
    built = raster(np.array([[22_000.0] * 2 + [20_000.0] * 2] * 2), "built", "m2")
    found = planning_indicators(
        two_units(), {2015: before, 2020: now}, {2015: was, 2020: built}, id="id"
    )
    row = value(found, "lcrpgr", "a")
    assert row["since"] == "2015"
    assert row["numerator"] == pytest.approx(0.02)  # 10 % in 5 years
    assert row["denominator"] == pytest.approx(np.log(1.1) / 5)
    assert row["value"] == pytest.approx(0.02 / (np.log(1.1) / 5))
    still = value(found, "lcrpgr", "b")
    assert np.isnan(still["value"])
    assert still["status"] == "not computed"
    assert "hardly" in still["note"] or "less than" in still["note"]
    assert value(found, "land_consumption_rate", "b")["value"] == 0.0
    whole = value(found, "population_growth_rate", "all")
    assert (whole["numerator"], whole["denominator"]) == (640.0, 600.0)
    assert value(found, "built_per_person", "a", epoch="2020")["value"] == pytest.approx(200)


def test_one_epoch_is_told_and_never_zero() -> None:
    found = planning_indicators(two_units(), people(np.full((2, 4), 10.0)), id="id")
    table = found.table("ru")
    assert set(table["indicator"]) == set(DEFINITIONS)
    lost = table[table["status"] == "not computed"]
    assert lost["value"].isna().all()
    assert (lost["note"] != "").all()
    assert "два года" in lost.set_index("indicator").loc["lcrpgr", "note"]
    never = table[table["status"] == "not computable"]
    assert tuple(never["indicator"]) == NOT_COMPUTABLE
    assert table.iloc[-1]["status"] == "not computable"


def test_people_near_a_stop_by_straight_line() -> None:
    # cell (0, 0) holds 100 people at 100 points; a stop in its middle reaches 500 m
    grid = np.zeros((2, 4))
    grid[0, 0], grid[1, 3] = 100.0, 300.0
    stop = layer([Point(at(0.5, 0.5))], kind=["bus_stop"], name=["x"], high=[False])
    found = planning_indicators(two_units(), people(grid), id="id", amenities=extract(stops=stop))
    # points of the cell in degrees, measured on a sphere, one by one
    offsets = (np.arange(10) + 0.5) / 10
    lon0, lat0 = np.radians(at(0.5, 0.5))
    inside = 0
    for x in offsets:
        for y in offsets:
            lon, lat = np.radians(at(x, y))
            h = np.sin((lat - lat0) / 2) ** 2
            h += np.cos(lat) * np.cos(lat0) * np.sin((lon - lon0) / 2) ** 2
            inside += 2 * 6_371_008.8 * np.arcsin(np.sqrt(h)) <= 500
    assert 10 < inside < 100
    row = value(found, "stop_500m", "a")
    assert row["numerator"] == pytest.approx(inside)
    assert row["value"] == pytest.approx(inside / 100)
    assert "straight line" in row["method"]
    assert value(found, "stop_500m", "b")["value"] == 0.0
    assert value(found, "transit_access", "all")["value"] == pytest.approx(inside / 400)
    assert value(found, "high_capacity_1km", "all")["status"] == "not computed"
    reach = found.catchments["stops_500m"]
    assert reach["area_km2"].iloc[0] == pytest.approx(np.pi / 4, rel=0.01)


def test_a_rail_station_reaches_farther() -> None:
    grid = np.full((2, 4), 100.0)
    stops = layer([Point(at(1, 1))], kind=["station"], name=["x"], high=[True])
    found = planning_indicators(two_units(), people(grid), id="id", amenities=extract(stops=stops))
    near = value(found, "stop_500m", "a")["value"]
    far = value(found, "high_capacity_1km", "a")["value"]
    assert far > near > 0
    assert value(found, "transit_access", "a")["value"] == far


def test_a_border_cuts_a_cell_and_people_stay_whole() -> None:
    # b holds three quarters of cell (0, 0); the stop stands in a's quarter
    units = gpd.GeoDataFrame(
        {"id": ["a", "b"]},
        geometry=[box(LEFT, TOP - KM, LEFT + 250, TOP), box(LEFT + 250, TOP - KM, LEFT + KM, TOP)],
        crs="ESRI:54009",
    )
    cover = coverage(units, geobox(2, 4), id="id")
    count = np.array([80.0])
    places = people_places(cover, count, np.asarray(units.geometry.array, dtype=object))
    assert places.weights.sum(axis=1).A1.tolist() == pytest.approx([20.0, 60.0])
    mine = places.weights[0].indices
    back = Transformer.from_crs("EPSG:4326", "ESRI:54009", always_xy=True).transform
    x, _ = back(places.lon[mine], places.lat[mine])
    assert sorted({round(v - LEFT) for v in x}) == [50, 150, 250]
    # a strip without a point of its own takes all points of the cell
    thin = units.assign(geometry=[box(LEFT, TOP - KM, LEFT + 20, TOP), units.geometry[1]])
    cover = coverage(thin, geobox(2, 4), id="id")
    places = people_places(cover, count, np.asarray(thin.geometry.array, dtype=object))
    assert places.weights[0].sum() == pytest.approx(80 * 0.02)
    assert places.weights[0].nnz == 100


def test_weighted_medians_against_repeated_values() -> None:
    rng = np.random.default_rng(3)
    weights = rng.integers(0, 5, (6, 40))
    values = rng.normal(size=40)
    got = weighted_medians(csr_matrix(weights.astype(float)), values)
    for row, found in zip(weights, got, strict=True):
        every = np.sort(np.repeat(values, row))
        assert found == every[int(np.ceil(every.size / 2)) - 1]


def test_kilometres_are_cut_at_borders() -> None:
    line = LineString([(10, 50), (10.5, 50), (11, 50)])
    zones = np.array([box(9, 49, 10.25, 51), box(10.25, 49, 12, 51), box(0, 0, 1, 1)], dtype=object)
    found = kilometres_in(np.array([line], dtype=object), zones).toarray()[:, 0]
    from pyproj import Geod

    ellipsoid = Geod(ellps="WGS84")
    quarter = ellipsoid.inv(10, 50, 10.25, 50)[2] / 1000
    assert found[0] == pytest.approx(quarter, rel=1e-4)
    assert found[1] == pytest.approx(3 * quarter, rel=1e-4)
    assert found[2] == 0.0


def test_areas_are_cut_at_borders() -> None:
    parks = np.array([box(0, 0, 2, 1), box(5, 5, 6, 6)], dtype=object)
    zones = np.array([box(0, 0, 1, 1), box(1, 0, 10, 10)], dtype=object)
    assert square_metres_in(parks, zones).tolist() == pytest.approx([1.0, 2.0])


def test_open_space_roads_and_zones_by_hand() -> None:
    grid = np.full((2, 4), 100.0)
    park = area(0.2, 0.2, 0.4, 0.4)  # 0.04 km² of the grid's equal-area CRS
    parks = layer([park, park], kind=["park", "garden"])
    flood = layer([area(0, 0, 1, 2), area(0.5, 0, 1.5, 2)])  # overlap counts once: 1.5 × 2 km
    found = planning_indicators(
        two_units(), people(grid), raster(np.full((2, 4), 10_000.0), "built", "m2"), id="id",
        amenities=extract(open_space=parks, green=parks), zones={"flood": flood},
    )  # fmt: skip
    row = value(found, "open_space_per_person", "a")
    assert row["numerator"] == pytest.approx(40_000, rel=1e-3)
    assert row["value"] == pytest.approx(100, rel=1e-3)
    assert value(found, "open_space_per_built", "a")["value"] == pytest.approx(1.0, rel=1e-3)
    assert value(found, "open_space_share", "a")["status"] == "not computed"  # no urban cell
    row = value(found, "people_in_zones", "a", item="flood")
    assert row["numerator"] == pytest.approx(300, rel=1e-3)
    assert value(found, "people_in_zones", "b", item="flood")["value"] == 0
    road = value(found, "roads_density", "a")
    street = kilometres_in(
        np.array([LineString([at(0.2, 1), at(2, 1)])], dtype=object),
        np.array([area(-9, -9, 9, 9)], dtype=object),
    ).sum()
    assert road["numerator"] == pytest.approx(street, rel=1e-3)
    assert road["denominator"] == pytest.approx(4.0)
    assert "people_in_zones_flood" in found.wide().columns


def test_units_outside_the_extract_have_no_values() -> None:
    grid = np.zeros((2, 40))
    grid[:, :2] = 100
    grid[:, 38:] = 100
    units = gpd.GeoDataFrame(
        {"id": ["a", "far"]},
        geometry=[box(LEFT, TOP - 2 * KM, LEFT + 2 * KM, TOP),
                  box(LEFT + 38 * KM, TOP - 2 * KM, LEFT + 40 * KM, TOP)],
        crs="ESRI:54009",
    )  # fmt: skip
    stop = layer([Point(at(0.5, 0.5))], kind=["bus_stop"], name=["x"], high=[False])
    found = planning_indicators(units, people(grid), id="id", amenities=extract(stops=stop))
    row = value(found, "stop_500m", "far")
    assert row["status"] == "not computed"
    assert "outside" in row["note"]
    assert np.isnan(row["numerator"])
    assert value(found, "roads_density", "far")["status"] == "not computed"
    whole = value(found, "stop_500m", "all")
    assert "50 %" in whole["note"]


def test_growth_inside_the_earlier_footprint() -> None:
    # 3 × 3 km of 6,000 people: an urban centre; it gains 90 and the empty land 10
    before = np.zeros((9, 9))
    before[3:6, 3:6] = 6_000
    now = before.copy()
    now[3:6, 3:6] += 10
    now[0, 0] = 10
    whole = box(LEFT, TOP - 9 * KM, LEFT + 9 * KM, TOP)
    units = gpd.GeoDataFrame({"id": ["x"]}, geometry=[whole], crs="ESRI:54009")
    found = planning_indicators(units, {2015: people(before), 2020: people(now)}, id="id")
    row = value(found, "growth_inside_people", "x")
    assert (row["numerator"], row["denominator"]) == (90.0, 100.0)
    assert row["value"] == pytest.approx(0.9)
    assert value(found, "centre_share", "x", epoch="2015")["value"] == 1.0
    back = planning_indicators(units, {2015: people(now), 2020: people(before)}, id="id")
    assert "no growth" in value(back, "growth_inside_people", "x")["note"]


def test_functional_areas_are_told_beside_units() -> None:
    grid = np.full((2, 4), 100.0)
    shapes = gpd.GeoDataFrame(
        {"area": ["F1"], "name": ["Қала"]},
        geometry=[box(LEFT, TOP - 2 * KM, LEFT + 3 * KM, TOP)],
        crs="ESRI:54009",
    )
    zones = shapes.assign(geometry=[box(LEFT + 2 * KM, TOP - 2 * KM, LEFT + 3 * KM, TOP)])
    cores = shapes.assign(geometry=[box(LEFT, TOP - 2 * KM, LEFT + 2 * KM, TOP)])
    found = planning_indicators(
        two_units(), people(grid), id="id", areas=FunctionalAreas(shapes, cores, zones)
    )
    assert value(found, "area_share", "b")["value"] == pytest.approx(0.5)
    assert value(found, "area_share", "all")["value"] == pytest.approx(0.75)
    row = value(found, "zone_people_share", "F1")
    assert (row["numerator"], row["denominator"]) == (200.0, 600.0)
    assert row["name"] == "Қала"
    assert value(found, "zone_15min", "all")["status"] == "not computed"
    assert found.wide("area")["zone_people_share"].tolist() == pytest.approx([1 / 3])


def test_given_points() -> None:
    grid = np.full((2, 4), 100.0)
    cameras = layer([Point(at(0.5, 0.5)), Point(at(0.6, 0.5)), Point(at(3, 1))])
    found = planning_indicators(
        two_units(), people(grid), id="id", points={"cameras": cameras}, point_metres=200
    )
    row = value(found, "points_per_1000", "a")
    assert (row["numerator"], row["value"]) == (2.0, 5.0)
    assert value(found, "points_per_km2", "b")["value"] == pytest.approx(0.25)
    assert 0 < value(found, "points_covered", "a")["value"] < 0.2
    assert "200 m" in value(found, "points_covered", "a")["method"]
    assert "cameras_200m" in found.catchments


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "code"}, "no column 'code'"),
        ({"population": raster(np.full((2, 4), -5.0))}, "negative"),
        ({"population": {2015: raster(np.ones((2, 4))), 2020: raster(np.ones((3, 4)))}}, "2020"),
        ({"built": {1999: raster(np.ones((2, 4)), "built", "m2")}}, "1999"),
        ({"units": squares().to_crs("ESRI:54009").translate(9e6)}, "outside"),
        ({"points": {"c": gpd.GeoDataFrame(geometry=[Point(0, 0)])}}, "no CRS"),
        ({"zones": {"z": layer([Point(0, 0)])}}, "Point"),
        ({"lang": "de"}, "language"),
        ({"stop_metres": 0}, "above 0"),
    ],
)
def test_bad_input_is_one_clear_error(change: dict, message: str) -> None:
    given: dict = {"units": two_units(), "population": people(np.ones((2, 4))), "id": "id"}
    if "units" in change:
        change = {"units": gpd.GeoDataFrame({"id": ["a", "b"]}, geometry=list(change["units"]),
                                            crs="ESRI:54009")}  # fmt: skip
    with pytest.raises(InputError, match=message):
        planning_indicators(**{**given, **change})


def test_an_extract_of_another_region_is_refused() -> None:
    far = ways([LineString([(7.41, 43.72), (7.42, 43.73)])], road=[True])
    with pytest.raises(InputError, match=r"x\.osm\.pbf maps nothing near anybody"):
        planning_indicators(
            two_units(), people(np.ones((2, 4))), id="id", amenities=extract(ways=far)
        )


def lines_network(lines: list, mode: str) -> object:
    from qala.network import network_from_lines

    frame = layer(lines).assign(highway="residential", maxspeed="36", oneway="no")
    return network_from_lines(frame, mode=mode)


def test_minutes_by_car_along_one_road() -> None:
    # a straight road at 0.8 × 36 km/h; a school at its west end, people in the cell at its east
    ends = [at(0.5, 0.5), at(3.5, 0.5)]
    middle = [at(0.5 + 0.01 * k, 0.5) for k in range(301)]
    road = LineString(middle)
    net = lines_network([road], "car")
    grid = np.zeros((2, 4))
    grid[0, 3] = 100.0
    school = layer([Point(ends[0])], kind=["school"], name=["x"])
    found = planning_indicators(
        two_units(), people(grid), id="id", networks=net, spacing=1000,
        amenities=extract(services={"school": school, "fire": school}),
    )  # fmt: skip
    from pyproj import Geod

    km = Geod(ellps="WGS84").geometry_length(road) / 1000
    speed = float(km / (np.nansum(net.forward) / 3600))
    row = value(found, "school_minutes_car", "b")
    assert row["value"] == pytest.approx(60 * km / speed, rel=0.01)
    assert value(found, "school_15min_car", "b")["value"] == 1.0
    reached = 60 * km / speed <= 5
    assert value(found, "emergency_fire_5min", "b")["value"] == float(reached)
    assert value(found, "school_minutes_foot", "all")["status"] == "not computed"
    assert value(found, "school_minutes_car", "a")["note"] != ""
    assert value(found, "hospital_minutes_car", "all")["status"] == "not computed"


def test_a_walk_round_a_river_is_longer_than_the_line() -> None:
    # the only bridge is 1 km down: people at (1.5, 0.5) see the stop at (1.2, 0.5) across the river
    street = LineString([at(1.2, 0.5), at(1.2, 1.5), at(1.5, 1.5), at(1.5, 0.5)])
    net = lines_network([street], "foot")
    grid = np.zeros((2, 4))
    grid[0, 1] = 100.0
    stop = layer([Point(at(1.2, 0.5))], kind=["bus_stop"], name=["x"], high=[False])
    given = {"id": "id", "amenities": extract(stops=stop), "spacing": 1000, "catchments": False}
    line = planning_indicators(two_units(), people(grid), **given)
    walk = planning_indicators(two_units(), people(grid), networks={"foot": net}, **given)
    assert value(line, "stop_500m", "a")["value"] == 1.0
    row = value(walk, "stop_500m", "a")
    assert row["value"] == 0.0
    assert "foot network" in row["method"]


def test_commuting_zone_by_minutes() -> None:
    road = LineString([at(0.05 * k, 0.5) for k in range(1, 80)])
    net = lines_network([road], "car")
    grid = np.array([[100.0, 100, 100, 100], [0, 0, 0, 0]])
    core = box(LEFT, TOP - 2 * KM, LEFT + KM, TOP)
    rest = box(LEFT + KM, TOP - 2 * KM, LEFT + 4 * KM, TOP)
    frame = gpd.GeoDataFrame({"area": ["F"]}, geometry=[core.union(rest)], crs="ESRI:54009")
    areas = FunctionalAreas(frame, frame.assign(geometry=[core]), frame.assign(geometry=[rest]))
    found = planning_indicators(two_units(), people(grid), id="id", areas=areas, networks=net)
    row = value(found, "zone_15min", "F")
    assert (row["numerator"], row["denominator"]) == (300.0, 300.0)
    assert value(found, "zone_people_share", "all")["value"] == pytest.approx(0.75)


def test_roofs_of_the_twin() -> None:
    houses = gpd.GeoDataFrame(
        {"roof_area": [100.0, 50.0], "solar_kwh": [10_000.0, 4_000.0]},
        geometry=[area(0.2, 0.2, 0.21, 0.21), area(0.5, 0.5, 0.51, 0.51)],
        crs="EPSG:4326",
    )
    found = planning_indicators(
        two_units(), people(np.full((2, 4), 10.0)), id="id", buildings=houses
    )
    assert value(found, "roof_area", "a")["value"] == 150.0
    assert value(found, "solar_potential", "a")["value"] == pytest.approx(0.014)
    assert value(found, "solar_per_person", "a")["value"] == pytest.approx(14_000 / 40)
    lost = value(found, "roof_area", "b")
    assert lost["status"] == "not computed"
    assert np.isnan(lost["numerator"])


def test_a_grid_of_100_m_is_used_as_it_is() -> None:
    import xarray as xr
    from odc.geo.xr import xr_coords

    from qala.grid import ghsl_geobox

    fine = ghsl_geobox((LEFT, TOP - 2 * KM, LEFT + 4 * KM, TOP), resolution=100)
    values = np.zeros(fine.shape)
    values[0, 0], values[5, 9] = 7.0, 30.0
    grid = xr.DataArray(values, xr_coords(fine), ("y", "x"), name="population")
    stop = layer([Point(at(0.05, 0.05))], kind=["bus_stop"], name=["x"], high=[False])
    found = planning_indicators(two_units(), grid, id="id", amenities=extract(stops=stop))
    row = value(found, "stop_500m", "a")
    assert (row["numerator"], row["denominator"]) == (7.0, 37.0)
    assert value(found, "urban_share", "a")["status"] == "computed"


def test_people_of_units_are_those_of_the_exact_overlay() -> None:
    rng = np.random.default_rng(7)
    grid = rng.random((6, 8)) * 1000
    cuts = np.sort(rng.random(4)) * 8 * KM
    edges = [0, *cuts, 8 * KM]
    shapes = [box(LEFT + a, TOP - 5.3 * KM, LEFT + b, TOP - 0.4 * KM)
              for a, b in pairwise(edges)]  # fmt: skip
    units = gpd.GeoDataFrame({"id": range(5)}, geometry=shapes, crs="ESRI:54009")
    cover = coverage(units, geobox(6, 8), id="id")
    (count,) = cover.take(people(grid))
    for spacing in (1000, 333, 100):
        found = people_places(cover, count, np.asarray(units.geometry.array), spacing=spacing)
        assert np.allclose(found.weights.sum(axis=1).A1, cover.parts @ count)
