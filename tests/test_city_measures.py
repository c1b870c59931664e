"""Measures of a city that can be worked out by hand, and its index against brute force."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from extracts import Extract

from qala.city import open as open_twin
from qala.city.index import write_index
from qala.city.model import Twin
from qala.city.solar import ASSUMPTIONS, clear_sky_energy
from qala.city.twin import build_twin, summary


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Twin:
    where = tmp_path_factory.mktemp("measures")
    osm = Extract()
    osm.box(1, 0, 0, building="house", height="9", building__levels="3")
    osm.box(2, 3, 0, building="house", height="8", roof__shape="gabled", roof__height="2",
            roof__orientation="along")  # fmt: skip
    osm.box(3, 6, 0, building="roof", height="4")
    osm.box(4, 9, 0, building="shed")
    osm.way(10, [(-1, -1), (9, -1)], close=False, highway="residential")
    osm.way(11, [(-1, 3), (9, 3)], close=False, power="line")
    people = where / "people.tif"
    with rasterio.open(
        people, "w", driver="GTiff", dtype="float32", count=1, width=1, height=1, crs="EPSG:4326",
        transform=rasterio.Affine(0.01, 0, 68.245, 0, -0.01, 43.295),
    ) as sink:  # fmt: skip
        sink.write(np.array([[100.0]], "float32"), 1)
    return build_twin(osm.write(where / "x.osm"), population=people, date="2026-01-01")


def test_volume_floors_and_roofs_are_what_a_ruler_gives(twin: Twin) -> None:
    table = twin.buildings.set_index("id")
    plan = table["footprint_area"]
    assert table.loc["way/1", "volume"] == pytest.approx(9 * plan["way/1"], rel=1e-5)
    assert table.loc["way/2", "volume"] == pytest.approx((6 + 2 / 2) * plan["way/2"], rel=1e-3)
    assert table.loc["way/3", "volume"] == pytest.approx(0.3 * plan["way/3"], rel=1e-4)
    assert table.loc["way/1", "floor_area"] == pytest.approx(3 * plan["way/1"])
    assert table.loc["way/3", "floor_area"] == 0
    half = np.sqrt(plan["way/2"]) / 2
    slope = np.hypot(half, 2) / half
    assert table.loc["way/2", "roof_area"] == pytest.approx(plan["way/2"] * slope, rel=1e-3)
    sides = table.loc["way/2", ["roof_north_area", "roof_south_area"]]
    assert sides.to_numpy(float) == pytest.approx(plan["way/2"] * slope / 2, rel=1e-3)
    assert table.loc["way/1", "roof_flat_area"] == pytest.approx(plan["way/1"], rel=1e-4)


def test_people_go_by_floor_area_to_homes_and_none_is_lost(twin: Twin) -> None:
    table = twin.buildings.set_index("id")
    assert table["people"].sum() == pytest.approx(100)
    homes = table.loc[["way/1", "way/2"]]
    share = homes["people"] / homes["people"].sum()
    assert share.to_numpy() == pytest.approx(
        (homes["floor_area"] / homes["floor_area"].sum()).to_numpy()
    )
    assert table.loc[["way/3", "way/4"], "people"].tolist() == [0.0, 0.0]


def test_the_sun_on_a_flat_roof_and_the_summary(twin: Twin) -> None:
    table = twin.buildings.set_index("id")
    sun = clear_sky_energy(68.2507, 43.2901, 0.0, 180.0)
    assert 1500 < sun < 2200  # kWh/m² a year under a clear sky at 43° north
    share = np.prod([ASSUMPTIONS[k].value for k in
                     ("module_efficiency", "performance_ratio", "usable_share")])  # fmt: skip
    expected = table.loc["way/1", "roof_area"] * sun * share
    assert table.loc["way/1", "solar_kwh"] == pytest.approx(expected, rel=0.01)
    told = summary(twin).set_index("measure")["value"]
    street = twin.layers["streets"]["length"].sum() / 1000
    assert told["streets_length"] == pytest.approx(street)
    assert told["streets_density"] == pytest.approx(street / twin.area_km2)
    line = twin.layers["networks"]["length"].sum() / 1000
    assert told["network_power_density"] == pytest.approx(line / twin.area_km2)
    assert told["built_volume"] == pytest.approx(table["volume"].sum())
    assert told["people"] == pytest.approx(100)
    assert told["terrain"] == 0


def test_the_index_equals_brute_force(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    osm = Extract()
    for i in range(300):
        x, y = (float(v) for v in rng.uniform(0, 60, 2))
        osm.box(1 + i, x, y, height=f"{rng.uniform(3, 60):.1f}")
    table = build_twin(osm.write(tmp_path / "x.osm"), date="2026-01-01").buildings
    write_index(table, tmp_path)
    ids = table["id"].to_numpy(object)
    bounds = table.bounds.to_numpy(float)
    low = np.column_stack([bounds[:, :2], table["base_z"] + table["min_height"]])
    high = np.column_stack([bounds[:, 2:], table["base_z"] + table["height"]])
    west, south, east, north = table.total_bounds
    with open_twin(tmp_path) as index:
        for _ in range(60):
            a = np.array([rng.uniform(west, east), rng.uniform(south, north), rng.uniform(0, 50)])
            b = a + rng.uniform(1, 300, 3)
            hit = (low <= b).all(axis=1) & (high >= a).all(axis=1)
            assert set(index.query((*a, *b))) == set(ids[hit])
            gap = np.linalg.norm(np.maximum(np.maximum(low - a, a - high), 0), axis=1)
            near = index.nearest(tuple(a), 5)
            row = {name: i for i, name in enumerate(ids)}
            found = gap[[row[n] for n in near]]
            assert found == pytest.approx(np.sort(gap)[:5], abs=1e-6)
            way = rng.normal(size=3)
            way /= np.linalg.norm(way)
            length = float(rng.uniform(50, 900))
            with np.errstate(divide="ignore"):
                t = np.stack([(low - a) / way, (high - a) / way])
            first, last = t.min(axis=0).max(axis=1), t.max(axis=0).min(axis=1)
            met = (last >= np.maximum(first, 0)) & (first <= length)
            got = index.ray(a, way, length)
            assert set(got) == set(ids[met])
            enters = np.maximum(first, 0)[[row[n] for n in got]]
            assert (np.diff(enters) >= -1e-9).all()
