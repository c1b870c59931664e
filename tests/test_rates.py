"""Urbanisation rates: shares, change in three parts, official figures, sensitivity."""

from __future__ import annotations

import logging
from itertools import pairwise
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.xr import xr_coords
from shapely.geometry import box

from qala.errors import InputError
from qala.grid import GHSL_CRS, ghsl_geobox
from qala.raster import open_raster
from qala.rates import (
    URBAN_CODES,
    check_official,
    read_official,
    sensitivity,
    summarise,
    urbanisation_rates,
)
from qala.rules import level_codes
from qala.units import classify_units
from qala.vector import read_units

KM = 1_000.0
LEFT, TOP = 5_000_000.0, 5_000_000.0
CHANGE = ["growth_inside", "new_footprint", "reclassification"]


def raster(values: object) -> xr.DataArray:
    data = np.asarray(values)
    height, width = data.shape
    grid = ghsl_geobox((LEFT, TOP - height * KM, LEFT + width * KM, TOP))
    return xr.DataArray(data, xr_coords(grid), ("y", "x"))


def columns_of(height: int, *edges: float) -> gpd.GeoDataFrame:
    """Units that are bands of columns, from edge to edge."""
    shapes = [box(LEFT + a * KM, TOP - height * KM, LEFT + b * KM, TOP) for a, b in pairwise(edges)]
    codes = [f"u{k}" for k in range(len(shapes))]
    return gpd.GeoDataFrame({"code": codes, "name": codes}, geometry=shapes, crs=GHSL_CRS)


def random_epochs(seed: int, shape: tuple[int, int] = (6, 9), epochs: int = 3) -> tuple:
    random = np.random.default_rng(seed)
    people = {2000 + 5 * k: raster(random.gamma(0.5, 900, shape)) for k in range(epochs)}
    cells = {k: raster(random.choice(level_codes(2), shape).astype(np.uint8)) for k in people}
    return people, cells


# --- shares -----------------------------------------------------------------------


def test_shares_of_two_units_by_hand() -> None:
    people = raster([[600.0, 200, 100, 0], [100, 0, 100, 0]])
    cells = raster(np.array([[30, 23, 12, 11], [21, 10, 13, 11]], np.uint8))
    units = columns_of(2, 0, 2, 4)
    found = urbanisation_rates(
        units, people, id="code", cells=cells,
        official=pd.DataFrame({"code": ["u0", "u1"], "urban_share": [0.5, 0.25]}),
    )  # fmt: skip
    assert list(found.columns[:9]) == [
        "unit", "epoch", "population", "official_share", "centre_share", "urban_share", "ratio",
        "ratio_centre", "official_population",
    ]  # fmt: skip
    assert found["unit"].tolist() == ["u0", "u1"]
    assert found["epoch"].isna().all()
    assert found["population"].tolist() == [900, 200]
    assert found["centre_share"].tolist() == pytest.approx([600 / 900, 0])
    assert found["urban_share"].tolist() == [1, 0]
    assert found["ratio"].iloc[0] == 0.5
    assert np.isnan(found["ratio"].iloc[1])
    assert found["ratio_centre"].iloc[0] == pytest.approx(0.75)
    assert found["share_13"].tolist() == [0, 0.5]
    assert found["degurba_l2"].tolist() == [30, 13]
    assert found["name"].tolist() == ["u0", "u1"]
    assert found.crs.equals(units.crs)


def test_units_without_people_have_no_share() -> None:
    people = raster([[0.0, 0, 100, 0]])
    cells = raster(np.array([[11, 11, 12, 11]], np.uint8))
    found = urbanisation_rates(columns_of(1, 0, 2, 4), people, id="code", cells=cells)
    assert found["population"].tolist() == [0, 100]
    for column in ("centre_share", "urban_share", "share_11", "ratio"):
        assert np.isnan(found[column].iloc[0]), column
    assert found["urban_share"].iloc[1] == 0
    total = summarise(found)
    assert total["urban_share"].tolist() == [0]


def test_change_by_hand() -> None:
    before, now = raster([[100.0, 50, 30, 20]]), raster([[130.0, 80, 10, 25]])
    was = raster(np.array([[30, 12, 21, 11]], np.uint8))
    is_now = raster(np.array([[30, 21, 12, 11]], np.uint8))
    found = urbanisation_rates(
        columns_of(1, 0, 4), {2020: now, 2015: before}, id="code", cells={2015: was, 2020: is_now}
    )
    assert found["epoch"].tolist() == [2015, 2020]
    assert found[["urban_change", *CHANGE]].iloc[0].isna().all()
    last = found.iloc[1]
    assert last["previous_epoch"] == 2015
    assert last["growth_inside"] == pytest.approx(30)  # the centre grew
    assert last["new_footprint"] == pytest.approx(30)  # what the new suburb gained
    assert last["reclassification"] == pytest.approx(50 - 30)  # its people, less the lost cell's
    assert last["urban_change"] == pytest.approx(210 - 130)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["exact", "centres"]))
def test_the_three_parts_sum_to_the_change(seed: int, overlay: str) -> None:
    people, cells = random_epochs(seed)
    units = columns_of(6, 0, 2.3, 5.71, 9)
    found = urbanisation_rates(units, people, id="code", cells=cells, overlay=overlay)
    urban = sum(found[f"population_{c}"] for c in URBAN_CODES)
    for earlier, later in ((2000, 2005), (2005, 2010)):
        change = (
            urban[found["epoch"] == later].to_numpy() - urban[found["epoch"] == earlier].to_numpy()
        )
        rows = found[found["epoch"] == later]
        assert np.allclose(rows["urban_change"], change, rtol=0, atol=1e-8)
        assert np.allclose(rows[CHANGE].sum(axis=1), change, rtol=0, atol=1e-8)
    totals = summarise(found)
    assert np.allclose(totals["population"], [float(p.sum()) for p in people.values()])
    assert np.allclose(
        totals[CHANGE].sum(axis=1)[1:], np.diff(urban.groupby(found["epoch"]).sum()), atol=1e-8
    )


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 9))
def test_chunks_and_order_never_matter(seed: int, rows: int, cols: int) -> None:
    people, cells = random_epochs(seed, epochs=2)
    units = columns_of(6, 0, 1.5, 6, 9)
    eager = urbanisation_rates(units, people, id="code", cells=cells)
    lazy = urbanisation_rates(
        units,
        {k: v.chunk({"y": rows}) for k, v in people.items()},
        id="code",
        cells={str(k): v.chunk({"x": cols}) for k, v in reversed(cells.items())},
    )
    pd.testing.assert_frame_equal(eager, lazy, check_exact=True)
    turned = urbanisation_rates(units.iloc[::-1], people, id="code", cells=cells)
    one, other = (
        t.drop(columns="geometry").sort_values(["epoch", "unit"], ignore_index=True)
        for t in (eager, turned)
    )
    pd.testing.assert_frame_equal(one, other, check_exact=True)


@pytest.mark.parametrize("named", [False, int, str])
def test_the_table_survives_a_geopackage(tmp_path: Path, named: object) -> None:
    people, cells = random_epochs(5, epochs=2)
    if named is str:
        people, cells = ({f"run {k}": v for k, v in d.items()} for d in (people, cells))
    elif not named:
        people, cells = people[2000], cells[2000]
    people_at = people if not named else next(iter(people.values()))
    people_at[:, 8] = np.nan  # a unit without data, whose class is missing
    units = columns_of(6, 0, 4, 8, 9)
    found = urbanisation_rates(units, people, id="code", cells=cells)
    assert found["degurba_l2"].iloc[:3].isna().tolist() == [False, False, True]
    found.to_file(tmp_path / "rates.gpkg", layer="rates")
    back = gpd.read_file(tmp_path / "rates.gpkg", layer="rates")
    assert back["unit"].tolist() == found["unit"].tolist()
    assert back["epoch"].isna().equals(found["epoch"].isna())
    if named:
        assert back["epoch"].tolist() == found["epoch"].tolist()
    for column in ("population", "urban_share", "reclassification"):
        np.testing.assert_allclose(back[column].astype(float), found[column], err_msg=column)
    found.drop(columns="geometry").to_parquet(tmp_path / "rates.parquet")


def test_epochs_that_do_not_fit_are_refused() -> None:
    people, cells = random_epochs(1, epochs=2)
    units = columns_of(6, 0, 9)
    with pytest.raises(InputError, match="names no epoch"):
        urbanisation_rates(units, {}, id="code")
    with pytest.raises(InputError, match="the epoch 2000 twice"):
        urbanisation_rates(units, {2000: people[2000], "2000": people[2005]}, id="code")
    with pytest.raises(InputError, match="cells has no raster for 2005"):
        urbanisation_rates(units, people, id="code", cells={2000: cells[2000]})
    with pytest.raises(InputError, match="cells is one raster for 2 epochs"):
        urbanisation_rates(units, people, id="code", cells=cells[2000])
    with pytest.raises(InputError, match="population of 2005 is not on the grid"):
        urbanisation_rates(
            units, {2000: people[2000], 2005: people[2005][1:]}, id="code", cells=cells
        )


# --- official figures -------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "share", "people"),
    [
        ({"urban_share": [0.4, 0.0]}, [0.4, 0.0], [np.nan, np.nan]),
        ({"urban_percent": [40, 0]}, [0.4, 0.0], [np.nan, np.nan]),
        ({"urban": [40, 0], "total": [100, 50]}, [0.4, 0.0], [100, 50]),
        ({"urban": [40, 0], "rural": [60, 50]}, [0.4, 0.0], [100, 50]),
        ({"urban": [40, np.nan], "rural": [60, 50], "total": [100, 50]}, [0.4, np.nan], [100, 50]),
        ({"urban_share": [0.4, None], "total": [100, 50]}, [0.4, np.nan], [100, 50]),
    ],
)
def test_official_forms(columns: dict, share: list[float], people: list[float]) -> None:
    found = check_official(pd.DataFrame({"unit": ["a", "b"], **columns}))
    np.testing.assert_allclose(found["official_share"], share)
    np.testing.assert_allclose(found["official_population"], people)


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"urban_share": [62.3, 40]}, "values up to 62.3; expected 0 to 1: if they are percent"),
        ({"urban_percent": [0.6, 0.4]}, "look like shares"),
        ({"urban_percent": [140, 4]}, "values up to 140; expected 0 to 100"),
        ({"urban": [40, 0]}, "no urban share or population among the columns unit, urban"),
        ({"urban": [40, 0], "rural": [50, 50], "total": [100, 50]}, r"40 \+ 50 against 100"),
        ({"urban": [140, 0], "total": [100, 50]}, r"urban is above total: a \(140 of 100\)"),
        ({"urban": [40, 0], "total": [100, 50], "urban_share": [0.5, 0]}, "0.5 against 0.4"),
        ({"urban": [-4, 0], "total": [100, 50]}, r"urban is negative or infinite: a \(-4\)"),
        ({"urban": ["-", 0], "total": [100, 50]}, r"no numbers: a \('-'\).*leave unknown values"),
    ],
)
def test_official_contradictions_are_refused(columns: dict, text: str) -> None:
    with pytest.raises(InputError, match=text):
        check_official(pd.DataFrame({"unit": ["a", "b"], **columns}))


def test_official_units_must_be_known_and_single(caplog: pytest.LogCaptureFixture) -> None:
    people, cells = random_epochs(2, epochs=1)
    units = columns_of(6, 0, 4, 9)

    def rates(**columns: list[object]) -> gpd.GeoDataFrame:
        return urbanisation_rates(
            units, people, id="code", cells=cells, official=pd.DataFrame(columns)
        )

    with pytest.raises(InputError, match="1 units are not in the layer: Total"):
        rates(code=["u0", "u1", "Total"], urban_share=[0.1, 0.2, 0.3])
    with pytest.raises(InputError, match="1 units stand twice or more: u0"):
        rates(code=["u0", "u0"], urban_share=[0.1, 0.2])
    with pytest.raises(InputError, match="no column 'code' or 'unit'"):
        rates(name=["u0"], urban_share=[0.1])
    with caplog.at_level(logging.WARNING, "qala"):
        found = rates(unit=["u1"], urban_share=[0.2])
    assert "1 units have no official figure: u0" in caplog.text
    assert found["official_share"].isna().tolist() == [True, False]


def test_official_epochs_must_fit(caplog: pytest.LogCaptureFixture) -> None:
    people, cells = random_epochs(2, epochs=2)
    units = columns_of(6, 0, 9)
    plain = pd.DataFrame({"unit": ["u0"], "urban_share": [0.2]})
    with pytest.raises(InputError, match="table names no epoch, the population 2"):
        urbanisation_rates(units, people, id="code", cells=cells, official=plain)
    dated = plain.assign(year=[2005.0])
    # one epoch beside a grid of none is what a single file looks like
    found = urbanisation_rates(units, people[2000], id="code", cells=cells[2000], official=dated)
    assert found["official_share"].tolist() == [0.2]
    both = pd.concat([dated, dated.assign(year=2010)])
    with pytest.raises(InputError, match="table is for 2005, 2010, the population for no epoch"):
        urbanisation_rates(units, people[2000], id="code", cells=cells[2000], official=both)
    with caplog.at_level(logging.WARNING, "qala"):
        found = urbanisation_rates(units, people, id="code", cells=cells, official=dated)
    assert found["official_share"].isna().tolist() == [True, False]
    assert "no official figure for 2000" in caplog.text


def test_official_files(tmp_path: Path) -> None:
    table = pd.DataFrame({"unit": ["007", "08"], "urban": [40, 0], "total": [100, 50]})
    table.to_csv(tmp_path / "a.csv", index=False)
    table.to_csv(tmp_path / "b.csv", index=False, sep=";")
    table.to_parquet(tmp_path / "c.parquet")
    for name in ("a.csv", "b.csv", "c.parquet"):
        found = read_official(tmp_path / name)
        assert found["unit"].tolist() == ["007", "08"], name
        assert found["official_share"].tolist() == [0.4, 0.0], name
    with pytest.raises(InputError, match="does not exist"):
        read_official(tmp_path / "d.csv")
    (tmp_path / "e.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="cannot be read as a table"):
        read_official(tmp_path / "e.parquet")
    for content in (b"", b"\xff\xfe\x00u", b"unit,urban,total\n1,2,3,4,5\n"):
        (tmp_path / "f.csv").write_bytes(content)
        with pytest.raises(InputError, match="cannot be read as a table"):
            read_official(tmp_path / "f.csv")
    (tmp_path / "g.csv").write_text("unit;urban_percent\nшымкент;62,3\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"no numbers: шымкент \('62,3'\).*decimal point"):
        read_official(tmp_path / "g.csv")


def test_summary_gives_no_ratio_where_official_figures_are_missing() -> None:
    people, cells = random_epochs(3, epochs=1)
    units = columns_of(6, 0, 4, 9)

    def total(**columns: list[object]) -> pd.Series:
        official = pd.DataFrame(columns)
        rates = urbanisation_rates(units, people, id="code", cells=cells, official=official)
        return summarise(rates).iloc[0]

    whole = total(unit=["u0", "u1"], urban=[100, 30], total=[200, 100])
    assert whole["official_share"] == pytest.approx(130 / 300)
    assert whole["official_known"] == pytest.approx(1)
    assert whole["ratio"] == pytest.approx(130 / 300 / whole["urban_share"])
    part = total(unit=["u0"], urban=[100], total=[200])
    assert part["official_share"] == 0.5
    assert part["official_known"] < 1
    assert np.isnan(part["ratio"])
    with pytest.raises(InputError, match="official population is missing for 1 units"):
        total(unit=["u0", "u1"], urban_share=[0.5, 0.3], total=[200, None])


# --- with the classification ------------------------------------------------------


def belgium(reference: Path) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    folder = reference / "belgium" / "ghsl"
    return (
        open_raster(folder / "POP.tif"),
        open_raster(folder / "BUILT_S.tif", "built", unit="m2"),
        open_raster(folder / "LAND.tif", "land", unit="m2"),
    )


def test_belgium_by_classification_and_by_golden_cells(reference: Path) -> None:
    pytest.importorskip("qala.settlement")
    population, built, land = belgium(reference)
    units = read_units(reference / "belgium" / "units.gpkg", id="UID")
    cells = open_raster(
        reference / "belgium" / "expected_cells" / "L2_R2023A_2021rules.tif", "cells"
    )
    ours = urbanisation_rates(units, {2020: population}, built, land, id="UID", rules="2021")
    golden = urbanisation_rates(units, {2020: population}, id="UID", rules="2021", cells=cells)
    pd.testing.assert_frame_equal(ours, golden, check_exact=True)
    classified = classify_units(cells, population, units, id="UID", level=2, rules="2021")
    assert (classified["degurba_l2"].to_numpy() == ours["degurba_l2"].to_numpy()).all()
    total = summarise(ours).iloc[0]
    assert total["population"] == pytest.approx(11_553_261, rel=1e-6)
    assert total["centre_share"] == pytest.approx(0.3338, abs=1e-4)
    assert total["urban_share"] == pytest.approx(0.7864, abs=1e-4)


def test_sensitivity_of_belgium(reference: Path) -> None:
    pytest.importorskip("qala.settlement")
    population, built, land = belgium(reference)
    found = sensitivity(population, built, land)
    assert len(found) == 1 + 4 * 2 + 3 + 1
    first = found.iloc[0]
    assert (first["variant"], first["value"]) == ("default", "R2023A")
    assert first["centre_difference"] == first["urban_difference"] == 0
    by = found.set_index(["threshold", "value"])
    # a lower threshold never lowers what it bounds
    assert by.loc[("centre_density", 1200.0), "centre_difference"] > 0
    assert by.loc[("centre_density", 1800.0), "centre_difference"] < 0
    assert by.loc[("centre_population", 40_000.0), "centre_difference"] > 0
    assert by.loc[("cluster_density", 240.0), "urban_difference"] > 0
    assert by.loc[("cluster_density", 360.0), "urban_difference"] < 0
    assert by.loc[("cluster_population", 6_000.0), "urban_difference"] < 0
    assert by.loc[("centre_built", "off"), "centre_difference"] < 0
    golden = open_raster(
        reference / "belgium" / "expected_cells" / "L2_R2023A_2021rules.tif", "cells"
    )
    people = np.nan_to_num(population.to_numpy())
    expected = people[golden.to_numpy() == 30].sum() / people.sum()
    assert first["centre_share"] == pytest.approx(expected, rel=1e-12)


def test_sensitivity_within_units(reference: Path) -> None:
    pytest.importorskip("qala.settlement")
    population, built, land = belgium(reference)
    units = read_units(reference / "belgium" / "units.gpkg", id="UID")
    found = sensitivity(population, built, land, units, id="UID", ruleset="manual2021")
    total = summarise(
        urbanisation_rates(units, population, built, land, id="UID", ruleset="manual2021")
    )
    assert found["urban_share"].iloc[0] == pytest.approx(total["urban_share"].iloc[0], rel=1e-9)
    on = found[found["variant"] == "built-up rule"]
    assert on["value"].tolist() == [0.2]
    with pytest.raises(InputError, match="id is missing"):
        sensitivity(population, units=units)
    with pytest.raises(InputError, match="variation is 2"):
        sensitivity(population, variation=2)
