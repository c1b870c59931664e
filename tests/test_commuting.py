"""Flow tables, estimated flows and their calibration."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from qala.commuting import (
    DECAY_KM,
    KM_A_MINUTE,
    Decay,
    as_ids,
    calibrate,
    choose_decay,
    distances,
    estimate_flows,
    flows_on_units,
    huff_shares,
    minutes,
    own_distance,
    pace,
    read_cores,
    read_employed,
    read_flows,
)
from qala.errors import InputError


def squares(n: int = 5, size: float = 10_000.0) -> gpd.GeoDataFrame:
    """Return a synthetic grid of n × n square units in an equal-area CRS, metres."""
    x, y = np.meshgrid(np.arange(n), np.arange(n))
    boxes = shapely.box(x * size, y * size, (x + 1) * size, (y + 1) * size).ravel()
    ids = [f"{i:03d}" for i in range(n * n)]
    return gpd.GeoDataFrame({"unit": ids}, geometry=boxes, crs="ESRI:54009")


def table(*rows: tuple[object, object, object]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["origin", "destination", "commuters"])


# --- reading ------------------------------------------------------------------


def test_leading_zeros_survive_a_file(tmp_path: Path) -> None:
    path = tmp_path / "flows.csv"
    path.write_text("origin,destination,commuters\n05,5,3\n005,05,4.5\n")
    found = read_flows(path)
    assert found["origin"].tolist() == ["05", "005"]
    assert found["commuters"].tolist() == [3.0, 4.5]


def test_parquet_and_csv_read_alike(tmp_path: Path) -> None:
    flows = table(("a", "b", 3), ("b", "b", 9))
    flows.to_csv(tmp_path / "f.csv", index=False)
    flows.to_parquet(tmp_path / "f.parquet")
    pd.testing.assert_frame_equal(
        read_flows(tmp_path / "f.csv"), read_flows(tmp_path / "f.parquet")
    )


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_separators_marks_and_the_order_of_columns(
    tmp_path: Path, separator: str, encoding: str
) -> None:
    path = tmp_path / "flows.csv"
    rows = [["year", "commuters", " destination", "origin"], ["2011", "3", "Қала", "Әл-Фараби"]]
    path.write_text("\n".join(separator.join(r) for r in rows), encoding=encoding)
    found = read_flows(path)
    assert found.to_numpy().tolist() == [["Әл-Фараби", "Қала", 3.0]]


def test_ids_that_lost_their_zeros_are_told_so() -> None:
    with pytest.raises(InputError, match="differ from the units' ids by zeros in front"):
        flows_on_units(table(("1", "2", 3)), ["01", "02"])
    with pytest.raises(InputError) as caught:
        flows_on_units(table(("1", "x", 3)), ["01", "02"])
    assert "as destination (3 commuters): x; expected ids of the units' layer: correct" in str(
        caught.value
    )


def test_all_problems_of_a_flow_table_are_told_at_once() -> None:
    flows = table(("a", "b", -3), ("a", "c", "many"), ("b", "c", 1), ("b", "c", 2), (None, "c", 1))
    with pytest.raises(InputError) as caught:
        read_flows(flows)
    text = str(caught.value)
    assert "a → b (-3)" in text
    assert "a → c ('many')" in text
    assert "1 pair stands twice or more: b → c" in text
    assert "1 ids in column 'origin' are missing: row 5" in text


def test_flow_and_unit_problems_name_units_and_counts() -> None:
    flows = table(("a", "x", 3), ("a", "b", 30), ("y", "b", 4), ("b", "b", 1))
    employed = pd.DataFrame({"unit": ["a", "z"], "employed": [20, 5]})
    with pytest.raises(InputError) as caught:
        flows_on_units(flows, ["a", "b"], employed=employed)
    text = str(caught.value)
    assert "1 flow names 1 unknown unit as origin (4 commuters): y" in text
    assert "1 flow names 1 unknown unit as destination (3 commuters): x" in text
    assert "1 unit of the employed residents is not among the units: z" in text
    assert "1 unit has fewer employed residents than commuters: a (20 employed, 33" in text


def test_missing_columns_and_files() -> None:
    with pytest.raises(InputError, match="lacks the column destination"):
        read_flows(pd.DataFrame({"origin": [], "commuters": []}))
    with pytest.raises(InputError, match="does not exist"):
        read_employed("nowhere.csv")
    with pytest.raises(InputError, match="1 unit stands twice or more: a"):
        read_cores(pd.DataFrame({"unit": ["a", "a"], "city": ["x", "y"]}))


def test_binary_file_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "flows.csv"
    path.write_bytes(bytes(range(128, 256)) * 20)
    with pytest.raises(InputError, match="cannot be read as a table"):
        read_flows(path)


def test_missing_denominators_are_the_sum_of_flows_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    flows = table(("a", "b", 30), ("a", "a", 10), ("b", "b", 5))
    with caplog.at_level(logging.WARNING, "qala"):
        found = flows_on_units(
            flows, ["a", "b", "c"], employed=pd.DataFrame({"unit": ["b"], "employed": [9]})
        )
    assert found.employed.tolist() == [40, 9, 0]
    assert found.counts["denominators_from_flows"] == 2
    assert found.counts["units_without_employed"] == 1
    assert "2 of 3 units have no number of employed residents" in caplog.text


def test_places_outside_count_in_the_denominator_only() -> None:
    flows = table(("a", "a", 10), ("a", "abroad", 30))
    found = flows_on_units(flows, ["a"], unknown="outside")
    assert found.employed.tolist() == [40]
    assert found.matrix.sum() == 10
    assert found.counts["commuters_outside"] == 30
    with pytest.raises(InputError, match="unknown is 'drop'; expected error or outside"):
        flows_on_units(flows, ["a"], unknown="drop")


def test_ids_of_any_type_are_one_unit() -> None:
    assert as_ids([1, 1.0, "1", np.int64(1), np.float64(1)]).tolist() == ["1"] * 5
    assert as_ids([None, np.nan, ""]).tolist() == [None] * 3


# --- distances ----------------------------------------------------------------


def test_distance_is_the_same_in_any_crs() -> None:
    units = squares(3)
    a = distances(units).toarray()
    b = distances(units.to_crs(4326), points=units.geometry.representative_point()).toarray()
    np.testing.assert_allclose(a, b, rtol=2e-3)


def test_distance_against_geodesics() -> None:
    points = gpd.GeoSeries(
        gpd.points_from_xy([68.27, 68.50, 69.60], [43.30, 43.52, 42.32]), crs=4326
    )
    x, y = points.x, points.y
    units = gpd.GeoDataFrame(geometry=shapely.box(x - 0.02, y - 0.02, x + 0.02, y + 0.02), crs=4326)
    found = distances(units, points=points, reach=200).toarray()
    import pyproj

    geod = pyproj.Geod(ellps="WGS84")
    km = geod.inv(68.27, 43.30, 69.60, 42.32)[2] / 1000
    assert found[0, 2] == pytest.approx(km, rel=1e-4)
    assert found[1, 0] == found[0, 1] > 0


def test_reach_bounds_the_pairs() -> None:
    units = squares(6)
    # Mollweide stretches 11.1 km to 10 from west to east at the equator, and 9 from south to north
    near = distances(units, reach=12)
    assert near.nnz == 36 + 2 * 2 * 6 * 5
    assert near.diagonal() == pytest.approx(0.5 * np.sqrt(100 / np.pi))


def test_coinciding_points_are_still_a_pair() -> None:
    units = squares(2).iloc[[0, 0]].reset_index(drop=True)
    assert distances(units).nnz == 4


def test_minutes_take_own_way_and_refuse_nonsense() -> None:
    units = squares(2)
    seconds = np.full((4, 4), 600.0)
    seconds[0, 3] = np.inf
    found = minutes(seconds, units)
    assert found[0, 1] == 10
    assert found.nnz == 15
    np.fill_diagonal(seconds, 0)
    own = minutes(seconds, units, own_speed=30).diagonal()
    np.testing.assert_allclose(own, own_distance(units) * 2)
    # by default as fast as between units
    between = distances(units)
    between.setdiag(0)
    between.eliminate_zeros()
    own = minutes(between * 120.0, units).diagonal()
    np.testing.assert_allclose(own, own_distance(units) * 2)
    with pytest.raises(InputError, match="2×2"):
        minutes(np.ones((2, 2)), units)
    with pytest.raises(InputError, match="negative or infinite"):
        minutes(csr_matrix(np.full((4, 4), -1.0)), units)


def test_pace_needs_pairs_that_are_connected(caplog: pytest.LogCaptureFixture) -> None:
    units = squares(3)
    with caplog.at_level("WARNING", logger="qala"):
        assert pace(csr_matrix((9, 9)), units) == KM_A_MINUTE
    assert "no two units 5 to 50 km apart are connected" in caplog.text
    seconds = np.full((9, 9), np.inf)
    seconds[0, 1] = seconds[1, 0] = 300.0
    km = distances(units)[0, 1]
    assert pace(minutes(seconds, units), units) == pytest.approx(km / 5, rel=1e-6)


# --- the estimate -------------------------------------------------------------


def plain_huff(km: np.ndarray, people: np.ndarray, beta: float) -> np.ndarray:
    weight = people[None] * np.exp(-beta * km)
    return weight / weight.sum(axis=1, keepdims=True)


def test_beta_alone_is_the_plain_model() -> None:
    units = squares(4)
    people = np.arange(1, 17) * 1000.0
    found = estimate_flows(units, id="unit", people=people, beta=0.0985)
    km = distances(units).toarray()
    np.testing.assert_allclose(
        found.matrix.toarray(), people[:, None] * plain_huff(km, people, 0.0985)
    )
    assert found.estimated
    assert found.decay is not None
    assert found.decay.shape == 1


def test_a_pass_moves_jobs_to_the_middle() -> None:
    units = squares(5)
    people = np.full(25, 1000.0)
    flat = estimate_flows(units, id="unit", people=people, decay=Decay(0.1))
    moved = estimate_flows(units, id="unit", people=people, decay=Decay(0.1, passes=1))
    jobs = [np.asarray(f.matrix.sum(axis=0)).ravel()[12] for f in (flat, moved)]
    assert jobs[1] > jobs[0] > 1000
    known = estimate_flows(units, id="unit", people=people, jobs=people, decay=Decay(0.1, passes=1))
    np.testing.assert_allclose(known.matrix.toarray(), flat.matrix.toarray())


@settings(deadline=None, max_examples=30)
@given(
    people=st.lists(st.floats(0, 1e6), min_size=9, max_size=9).filter(lambda v: sum(v) > 1),
    beta=st.floats(1e-3, 50),
    shape=st.floats(0.1, 1.5),
    passes=st.integers(0, 2),
    order=st.permutations(range(9)),
)
def test_shares_sum_to_one_and_do_not_hang_on_order(
    people: list[float], beta: float, shape: float, passes: int, order: list[int]
) -> None:
    units = squares(3)
    weights = np.array(people)
    decay = Decay(beta, shape=shape, passes=passes)
    shares = huff_shares(distances(units), weights, decay).toarray()
    sums = shares.sum(axis=1)
    assert ((np.abs(sums - 1) < 1e-9) | (sums == 0)).all()
    assert (shares >= 0).all()
    assert (shares <= 1 + 1e-12).all()
    turned = huff_shares(distances(units.iloc[order]), weights[order], decay).toarray()
    np.testing.assert_allclose(turned, shares[np.ix_(order, order)], atol=1e-9)


def test_units_without_people_are_counted() -> None:
    people = np.array([0.0, 5, 5, 5])
    found = estimate_flows(squares(2), id="unit", people=people)
    assert found.counts["units_without_people"] == 1
    assert found.matrix[0].sum() == 0
    with pytest.raises(InputError, match="no unit has people or jobs"):
        estimate_flows(squares(2), id="unit", people=np.zeros(4))
    with pytest.raises(InputError, match="missing or negative in 1 units: row 2"):
        estimate_flows(squares(2), id="unit", people=[1, -2, 3, 4])


def test_decay_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="beta is -1"):
        Decay(-1)
    with pytest.raises(InputError, match="per km, the costs are in min"):
        choose_decay("min", None, DECAY_KM)
    with pytest.raises(InputError, match="both beta and decay"):
        choose_decay("km", 0.1, DECAY_KM)


# --- calibration --------------------------------------------------------------


@pytest.mark.parametrize("truth", [Decay(0.15), Decay(0.9, shape=0.5)])
def test_calibration_finds_the_decay_that_made_the_flows(truth: Decay) -> None:
    units = squares(12)
    rng = np.random.default_rng(7)
    people = rng.lognormal(9, 1, 144)
    costs = distances(units)
    shares = huff_shares(costs, people, truth)
    drawn = [rng.multinomial(int(p), row) for p, row in zip(people, shares.toarray(), strict=True)]
    i, j = np.nonzero(drawn)
    flows = flows_on_units(
        table(*zip(units["unit"].to_numpy()[i], units["unit"].to_numpy()[j],
                   np.array(drawn)[i, j], strict=True)),
        units["unit"],
    )  # fmt: skip
    fit = calibrate(flows, costs, people, start=Decay(0.05, shape=truth.shape))
    assert fit.decay.beta == pytest.approx(truth.beta, rel=0.02)
    low, high = fit.interval
    assert low < fit.decay.beta < high
    assert fit.beta_se < 0.05 * truth.beta
    assert fit.zones_held_back == 29
    assert fit.common_held_back > 0.9
    assert fit.cost_estimated == pytest.approx(fit.cost_observed, rel=0.05)
    both = calibrate(flows, costs, people, start=Decay(0.05, shape=0.7), free=("beta", "shape"))
    assert both.decay.shape == pytest.approx(truth.shape, abs=0.05)
    assert "held back 29" in str(fit)


def test_calibration_is_the_likelihood_of_an_independent_computation() -> None:
    """β of a dense likelihood written out anew, and an interval that holds the truth."""
    from scipy.optimize import minimize_scalar

    units = squares(8)
    km, ids = distances(units).toarray(), units["unit"].to_numpy()
    rng = np.random.default_rng(3)
    people = rng.lognormal(8, 1, 64)
    truth, held = 0.12, []
    for _ in range(20):
        drawn = np.array(
            [rng.multinomial(400, row) for row in plain_huff(km, people, truth)], dtype=float
        )
        i, j = np.nonzero(drawn)
        flows = flows_on_units(table(*zip(ids[i], ids[j], drawn[i, j], strict=True)), ids)
        fit = calibrate(flows, distances(units), people, start=Decay(0.05), hold_back=0)

        def loss(beta: float, drawn: np.ndarray = drawn) -> float:
            return float(-(drawn * np.log(plain_huff(km, people, beta))).sum())

        plain = minimize_scalar(loss, bounds=(0.01, 1), method="bounded", options={"xatol": 1e-7})
        assert fit.decay.beta == pytest.approx(plain.x, rel=1e-4)
        low, high = fit.interval
        held.append(low <= truth <= high)
    # 95 % intervals: fewer than 15 of 20 would come about once in 3,000 times
    assert sum(held) >= 15


def test_people_nearby_do_not_hang_on_units_nor_on_the_size_of_cells() -> None:
    from affine import Affine
    from odc.geo.geobox import GeoBox
    from odc.geo.xr import wrap_xr

    from qala.fua import people_nearby

    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 3000, (30, 30)).astype(np.float64)
    box = GeoBox((30, 30), Affine(1000, 0, 0, 0, -1000, 30_000), "ESRI:54009")
    fine = GeoBox((60, 60), Affine(500, 0, 0, 0, -500, 30_000), "ESRI:54009")
    units = gpd.GeoDataFrame(
        {"unit": ["cell", "block"]},
        geometry=[shapely.box(15e3, 14e3, 16e3, 15e3), shapely.box(10e3, 10e3, 20e3, 20e3)],
        crs="ESRI:54009",
    )
    found = people_nearby(units, wrap_xr(coarse, box), id="unit")
    y, x = np.mgrid[0:30, 0:30]
    disc = np.hypot(y - 15, x - 15) <= 5
    assert found[0] == pytest.approx(coarse[disc].sum())
    halves = np.repeat(np.repeat(coarse / 4, 2, axis=0), 2, axis=1)
    np.testing.assert_allclose(people_nearby(units, wrap_xr(halves, fine), id="unit"), found)
    empty = people_nearby(units, wrap_xr(coarse * 0, box), id="unit")
    assert (empty == 0).all()


def test_people_go_farther_to_an_agglomeration() -> None:
    units = squares(5)
    people = np.full(25, 1000.0)
    nearby = np.where(np.arange(25) == 12, 500_000.0, 100_000.0)
    flat = estimate_flows(units, id="unit", people=people, decay=Decay(1, shape=0.5))
    found = estimate_flows(
        units, id="unit", people=people, decay=Decay(1, shape=0.5, draw=0.06), nearby=nearby
    )
    change = (found.matrix.toarray() / flat.matrix.toarray())[0]
    assert change[12] > 1.1
    assert (np.delete(change, 12) < 1).all()
    # with jobs known nothing stands in for them
    known = estimate_flows(
        units, id="unit", people=people, jobs=people, decay=Decay(1, shape=0.5, draw=0.06)
    )
    np.testing.assert_allclose(known.matrix.toarray(), flat.matrix.toarray())
    with pytest.raises(InputError, match="draw is 1"):
        Decay(1, draw=1)
    with pytest.raises(InputError, match="has a draw"):
        huff_shares(distances(units), people, Decay(1, draw=0.06))


def test_calibration_refuses_estimates_and_too_little() -> None:
    units = squares(2)
    people = np.ones(4)
    estimate = estimate_flows(units, id="unit", people=people)
    with pytest.raises(InputError, match="flows are estimates"):
        calibrate(estimate, distances(units), people)
    flows = flows_on_units(table(("000", "001", 5)), units["unit"])
    with pytest.raises(InputError, match="units with flows to fit on"):
        calibrate(flows, distances(units), people)


def test_held_back_zones_do_not_hang_on_order() -> None:
    units = squares(6)
    rng = np.random.default_rng(1)
    ids = units["unit"].to_numpy()
    rows = [(a, b, int(rng.integers(1, 50))) for a in ids for b in ids]
    people = rng.uniform(10, 100, 36)
    one = calibrate(flows_on_units(table(*rows), ids), distances(units), people)
    order = rng.permutation(36)
    turned = units.iloc[order].reset_index(drop=True)
    other = calibrate(
        flows_on_units(table(*rows[::-1]), turned["unit"]), distances(turned), people[order]
    )
    assert other.decay.beta == pytest.approx(one.decay.beta, rel=1e-4)
    assert other.loss_held_back == pytest.approx(one.loss_held_back, rel=1e-6)


def test_belgian_calibration(reference: Path) -> None:
    """The defaults are what the census of 2011 gives, and hold on zones held back."""
    from qala.fua import people_nearby, people_of_units
    from qala.raster import open_raster

    base = reference / "belgium"
    units = gpd.read_file(base / "commuting" / "communes_2011.gpkg")
    flows = flows_on_units(
        base / "commuting" / "flows_2011.csv",
        units["unit"],
        employed=base / "commuting" / "employed_2011.csv",
    )
    people, points = people_of_units(
        units, open_raster(base / "ghsl" / "POP.tif", "population"), "unit"
    )
    grid = open_raster(base / "ghsl" / "POP.tif", "population")
    nearby = people_nearby(units, grid, id="unit")
    costs = distances(units, points=points)
    plain = calibrate(flows, costs, people, start=Decay(0.1))
    root = calibrate(flows, costs, people, start=replace(DECAY_KM, draw=0.0))
    drawn = calibrate(flows, costs, people, start=DECAY_KM, nearby=nearby)
    both = calibrate(flows, costs, people, start=DECAY_KM, nearby=nearby, free=("beta", "draw"))
    assert plain.interval[0] < 0.101 < plain.interval[1]
    assert drawn.interval[0] < DECAY_KM.beta < drawn.interval[1]
    assert both.decay.draw == pytest.approx(DECAY_KM.draw, abs=0.006)
    assert root.loss_held_back < plain.loss_held_back - 0.2
    # a destination's surroundings tell something of zones that the fit has not seen
    assert drawn.loss_held_back < root.loss_held_back - 0.01
    assert drawn.common_held_back > 0.7
