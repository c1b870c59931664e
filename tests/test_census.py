"""Census: points to grid, grid to totals; mass is conserved."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.xr import xr_coords

from qala.census import Spread, grid_from_points, reconcile
from qala.errors import InputError
from qala.grid import ghsl_geobox

BOX = ghsl_geobox((5_500_000, 5_100_000, 5_530_000, 5_120_000))
X0, Y0 = 5_500_000, 5_100_000


def _points(x, y, people, crs="ESRI:54009", **columns):
    return gpd.GeoDataFrame(
        {"population": people, **columns}, geometry=gpd.points_from_xy(x, y), crs=crs
    )


def _grid(values, box=BOX):
    return xr.DataArray(
        np.asarray(values, dtype="float64"), coords=xr_coords(box), dims=("y", "x"), name="p"
    )


def _people(seed=7, empty=0.3):
    rng = np.random.default_rng(seed)
    values = rng.lognormal(4, 2, BOX.shape)
    values[rng.random(BOX.shape) < empty] = 0
    return _grid(values)


def _units(polygons, totals, ids=None):
    ids = [f"u{i}" for i in range(len(polygons))] if ids is None else ids
    return gpd.GeoDataFrame({"unit": ids, "population": totals}, geometry=polygons, crs=BOX.crs)


def _voronoi(seed, count):
    """Units that tile the grid with borders at any angle."""
    rng = np.random.default_rng(seed)
    frame = shapely.box(X0, Y0, X0 + 30_000, Y0 + 20_000)
    seeds = shapely.multipoints(
        np.column_stack([X0 + rng.uniform(0, 30_000, count), Y0 + rng.uniform(0, 20_000, count)])
    )
    cells = shapely.get_parts(shapely.voronoi_polygons(seeds, extend_to=frame))
    cells = shapely.intersection(cells, frame)
    return list(cells[shapely.area(cells) > 0])


def _overlay_sums(grid, polygons):
    """Sum a grid over polygons by area, by shapely alone: independent of the code tested."""
    rows, cols = np.divmod(np.arange(grid.size), grid.shape[1])
    cells = shapely.box(
        X0 + cols * 1000, Y0 + 20_000 - (rows + 1) * 1000, X0 + (cols + 1) * 1000,
        Y0 + 20_000 - rows * 1000,
    )  # fmt: skip
    return np.array(
        [
            (shapely.area(shapely.intersection(cells, p)) / 1e6 * grid.ravel()).sum()
            for p in polygons
        ]
    )


def test_each_point_counts_in_its_cell():
    points = _points([X0 + 500, X0 + 999, X0 + 1000], [Y0 + 500] * 3, [10, 5, 7])
    grid = grid_from_points(points, BOX)
    assert grid.values[-1, :3].tolist() == [15, 7, 0]
    assert grid.sum() == 22
    assert grid.attrs["units"] == "people"


def test_degrees_are_projected():
    here = _points([X0 + 12_300], [Y0 + 7_700], [100]).to_crs(4326)
    grid = grid_from_points(here, BOX)
    assert np.argwhere(grid.values > 0).tolist() == [[12, 12]]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 60),
    method=st.sampled_from(["cell", "settlement"]),
    with_land=st.booleans(),
)
def test_mass_is_conserved_in_any_order(seed, count, method, with_land):
    rng = np.random.default_rng(seed)
    points = _points(
        X0 + rng.uniform(0, 30_000, count),
        Y0 + rng.uniform(0, 20_000, count),
        np.round(rng.lognormal(7, 3, count)),
    )
    land = None
    if with_land:
        land = _grid(rng.choice([0, 250_000, 1_000_000], BOX.shape))
    kwargs = {"method": method, "land": land, "unplaced": "list"}
    grid = grid_from_points(points, BOX, **kwargs)
    given_people = points.population.sum() - grid.attrs["unplaced_people"]
    assert abs(grid.sum() - given_people) <= 1e-9 * max(given_people, 1)
    assert (grid.values >= 0).all()
    if land is not None:
        assert (grid.values[land.values == 0] == 0).all()
    shuffled = points.sample(frac=1, random_state=seed)
    np.testing.assert_array_equal(grid_from_points(shuffled, BOX, **kwargs), grid)


def test_a_city_does_not_stand_in_one_cell():
    people = 215_873
    city = _points([X0 + 15_200], [Y0 + 10_700], [people])
    grid = grid_from_points(city, BOX, method="settlement").values
    assert grid.max() <= Spread().central_density
    centre = grid[grid >= 1500]
    # GHS-UCDB R2019A gives Turkistan 215,873 people on 42 km²
    assert 30 <= centre.size <= 60
    assert centre.sum() > 0.7 * people


def test_a_small_village_stays_where_it_is():
    village = _points([X0 + 15_500], [Y0 + 10_500], [300])
    grid = grid_from_points(village, BOX, method="settlement").values
    assert grid[9, 15] > 290


def test_points_off_the_grid_are_named():
    points = _points([X0 - 1, X0 + 1, X0 + 30_000], [Y0 + 1] * 3, [5, 6, 7], name=["A", "B", "C"])
    with pytest.raises(InputError, match=r"2 points with 12 people.*2 off the grid.*A, C"):
        grid_from_points(points, BOX)
    grid = grid_from_points(points, BOX, unplaced="list")
    assert grid.attrs["unplaced"] == ["A", "C"]
    assert (grid.attrs["unplaced_people"], grid.attrs["people"]) == (12, 6)


def test_no_land_in_reach_is_named():
    points = _points([X0 + 500], [Y0 + 500], [100], name=["Atlantis"])
    with pytest.raises(InputError, match=r"1 without land in reach.*Atlantis"):
        grid_from_points(points, BOX, land=_grid(np.zeros(BOX.shape)), method="settlement")


def test_every_fault_of_points_is_told_at_once():
    points = gpd.GeoDataFrame(
        {
            "population": [1, -2, np.inf, None, "x", 3],
            "name": ["a", "negative", "infinite", "missing", "word", "line"],
        },
        geometry=[*gpd.points_from_xy([0] * 5, [0] * 5), shapely.LineString([(0, 0), (1, 1)])],
    )
    with pytest.raises(InputError) as caught:
        grid_from_points(points, BOX)
    text = str(caught.value)
    for word in ("no CRS", "negative", "infinite", "missing", "word", "line"):
        assert word in text
    with pytest.raises(InputError, match="no column 'people'"):
        grid_from_points(_points([X0], [Y0], [1]), BOX, value="people")


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 9), deviation=st.floats(0, 2.5))
def test_exact_overlay_of_the_result_gives_every_total(seed, count, deviation):
    polygons = _voronoi(seed, count)
    before = _people(seed)
    rng = np.random.default_rng(seed)
    totals = _overlay_sums(before.values, polygons) * rng.lognormal(0, deviation, len(polygons))
    done = reconcile(before, _units(polygons, totals), id="unit")
    assert abs(done.population.sum() - totals.sum()) <= 1e-9 * totals.sum()
    np.testing.assert_allclose(
        (done.factors * before).fillna(0).values, done.population.values, rtol=1e-12
    )
    # units that own no cell of their own may contradict each other: they are named
    met = ~np.isin(done.units.unit, done.unmet.unit)
    if deviation < 0.3:
        assert met.all()
    assert (done.unmet.reason.str.contains("contradict")).all()
    np.testing.assert_allclose(done.units.after[met], totals[met], rtol=1e-9)
    found = _overlay_sums(done.population.values, polygons)
    # the overlay inside works with parts in single precision
    np.testing.assert_allclose(found[met], totals[met], rtol=1e-5)


def test_a_cell_inside_one_unit_is_scaled_by_its_factor():
    left = shapely.box(X0, Y0, X0 + 10_500, Y0 + 20_000)
    right = shapely.box(X0 + 10_500, Y0, X0 + 30_000, Y0 + 20_000)
    before = _grid(np.full(BOX.shape, 10.0))
    done = reconcile(before, _units([left, right], [4200.0, 1950.0]), id="unit")
    factors = done.factors.values
    assert np.ptp(factors[:, :10]) < 1e-12
    assert np.ptp(factors[:, 11:]) < 1e-12
    # the cut column lies between the two, at their geometric mean
    np.testing.assert_allclose(factors[:, 10], np.sqrt(factors[:, 0] * factors[:, 29]), rtol=1e-9)
    np.testing.assert_allclose(done.units.after, [4200, 1950], rtol=1e-12)
    assert done.units.before.tolist() == [2100, 3900]


def test_centres_give_a_cell_to_one_unit():
    left = shapely.box(X0, Y0, X0 + 10_400, Y0 + 20_000)
    right = shapely.box(X0 + 10_400, Y0, X0 + 30_000, Y0 + 20_000)
    before = _grid(np.full(BOX.shape, 10.0))
    done = reconcile(before, _units([left, right], [1000.0, 8000.0]), id="unit", overlay="centres")
    assert done.population.values[:, :10].sum() == pytest.approx(1000, rel=1e-12)
    np.testing.assert_allclose(done.factors.values[:, 10:], 2.0, rtol=1e-12)


def test_unmet_units_are_named_with_the_reason():
    values = np.full(BOX.shape, 10.0)
    values[:, :5] = 0
    empty = shapely.box(X0, Y0, X0 + 5_000, Y0 + 20_000)
    fine = shapely.box(X0 + 5_000, Y0, X0 + 20_000, Y0 + 20_000)
    unpublished = shapely.box(X0 + 20_000, Y0, X0 + 30_000, Y0 + 20_000)
    outside = shapely.box(X0 - 9_000, Y0, X0 - 5_000, Y0 + 5_000)
    units = _units([empty, fine, unpublished, outside], [500, 6000, None, 70])
    done = reconcile(_grid(values), units, id="unit")
    assert done.unmet.set_index("unit").reason.to_dict() == {
        "u0": "no people in its cells",
        "u3": "no cell of the grid",
    }
    assert done.units.set_index("unit").reason["u2"] == "no published total"
    assert done.units.set_index("unit").after["u2"] == pytest.approx(2000)
    assert done.placed == 0
    land = _grid(np.where(np.arange(30) < 2, 0, 1e6) * np.ones((20, 1)))
    filled = reconcile(_grid(values), units, id="unit", place="uniform", land=land)
    assert filled.unmet.unit.tolist() == ["u3"]
    assert filled.placed == 500
    got = filled.population.values
    assert got[:, :2].sum() == 0
    np.testing.assert_allclose(got[:, 2:5], 500 / 60)
    assert got[:, :5].sum() == pytest.approx(500, rel=1e-12)


def test_a_unit_of_nobody_is_emptied():
    left = shapely.box(X0, Y0, X0 + 10_500, Y0 + 20_000)
    right = shapely.box(X0 + 10_500, Y0, X0 + 30_000, Y0 + 20_000)
    done = reconcile(_people(), _units([left, right], [0, 9000]), id="unit")
    assert not len(done.unmet)
    assert done.population.values[:, :11].sum() == 0
    assert done.population.sum() == pytest.approx(9000, rel=1e-12)


def test_totals_that_contradict_each_other_are_said():
    # two halves of one cell hold the same people by any overlay: 10 and 90 cannot both be met
    halves = [
        shapely.box(X0, Y0, X0 + 500, Y0 + 1000),
        shapely.box(X0 + 500, Y0, X0 + 1000, Y0 + 1000),
        shapely.box(X0 + 10_000, Y0, X0 + 20_000, Y0 + 10_000),
    ]
    done = reconcile(_grid(np.full(BOX.shape, 10.0)), _units(halves, [10, 90, 777]), id="unit")
    assert done.unmet.unit.tolist() == ["u0", "u1"]
    assert "contradict" in done.unmet.reason[0]
    # people are kept even so
    assert done.units.after[:2].sum() == pytest.approx(100, rel=1e-9)
    assert done.units.after[2] == pytest.approx(777, rel=1e-9)


def test_missing_cells_stay_missing_and_chunks_do_not_matter():
    before = _people()
    before[:3, :4] = np.nan
    polygons = _voronoi(3, 6)
    units = _units(polygons, np.linspace(1e4, 9e4, len(polygons)))
    whole = reconcile(before, units, id="unit")
    assert np.isnan(whole.population.values[:3, :4]).all()
    assert not len(whole.unmet)
    for chunks in ({"y": 1}, {"y": 7, "x": 4}, {"y": 20, "x": 30}):
        parts = reconcile(before.chunk(chunks), units, id="unit")
        assert parts.population.chunks is not None
        np.testing.assert_array_equal(parts.population.values, whole.population.values)
        pd.testing.assert_frame_equal(parts.units, whole.units)


def test_faults_of_grid_and_totals_are_told():
    square = shapely.box(X0, Y0, X0 + 5_000, Y0 + 5_000)
    with pytest.raises(InputError, match=r"negative.*u0"):
        reconcile(_people(), _units([square], [-1]), id="unit")
    with pytest.raises(InputError, match="no column 'code'"):
        reconcile(_people(), _units([square], [1]), id="code")
    bad = _people()
    bad[0, 0] = -200
    with pytest.raises(InputError, match=r"1 cells are negative.*-200"):
        reconcile(bad, _units([square], [1]), id="unit")
