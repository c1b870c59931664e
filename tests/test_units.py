"""Degree of Urbanisation of units: overlay, sums, rules, and the Belgian municipalities."""

from __future__ import annotations

import logging
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from shapely.geometry import Point, box

from qala.errors import InputError
from qala.grid import GHSL_CRS, geobox_of, ghsl_geobox
from qala.raster import open_raster
from qala.rules import level_codes
from qala.units import (
    classify_units,
    coverage,
    level1_class,
    level2_class,
)
from qala.vector import read_units

KM = 1_000.0
LEFT, TOP = 5_000_000.0, 5_000_000.0


def grid(height: int = 12, width: int = 15) -> GeoBox:
    return ghsl_geobox((LEFT, TOP - height * KM, LEFT + width * KM, TOP))


def raster(values: np.ndarray, name: str) -> xr.DataArray:
    return xr.DataArray(values, xr_coords(grid(*values.shape)), ("y", "x"), name=name)


def people_and_cells(
    seed: int, level: int = 2, shape: tuple[int, int] = (12, 15)
) -> tuple[xr.DataArray, xr.DataArray]:
    random = np.random.default_rng(seed)
    people = random.gamma(0.4, 800, shape)
    codes = random.choice(level_codes(level), shape).astype(np.uint8)
    return raster(people, "population"), raster(codes, "cells")


def frame(shapes: list[object], crs: object = GHSL_CRS) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(
        {"code": [f"u{k}" for k in range(len(shapes))]}, geometry=shapes, crs=crs
    )


def km_box(x0: float, y0: float, x1: float, y1: float) -> object:
    """A box by columns and rows of the grid, counted from its upper left corner."""
    return box(LEFT + x0 * KM, TOP - y1 * KM, LEFT + x1 * KM, TOP - y0 * KM)


def voronoi(seed: int, count: int, shape: tuple[int, int] = (12, 15)) -> gpd.GeoDataFrame:
    """A partition of the whole grid into irregular units."""
    random = np.random.default_rng(seed)
    spots = shapely.points(
        LEFT + random.uniform(0, shape[1] * KM, count),
        TOP - random.uniform(0, shape[0] * KM, count),
    )
    whole = km_box(0, 0, shape[1], shape[0])
    cells = shapely.get_parts(shapely.voronoi_polygons(shapely.multipoints(spots), extend_to=whole))
    return frame(list(shapely.intersection(cells, whole)))


# --- overlay ----------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 12))
def test_exact_overlay_equals_shapely_intersection(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    shapes = []
    for _ in range(count):
        angles = np.sort(random.uniform(0, 2 * np.pi, random.integers(3, 12)))
        reach = random.uniform(50, 5 * KM, angles.size)
        x, y = LEFT + random.uniform(-2, 17) * KM, TOP - random.uniform(-2, 14) * KM
        ring = np.c_[x + reach * np.cos(angles), y + reach * np.sin(angles)]
        shapes.append(shapely.make_valid(shapely.convex_hull(shapely.multipoints(ring))))
    units = frame(shapes)
    cover = coverage(units, grid(), id="code")
    rows, cols = np.indices(grid().shape)
    cells = shapely.box(
        LEFT + cols * KM, TOP - (rows + 1) * KM, LEFT + (cols + 1) * KM, TOP - rows * KM
    ).ravel()
    expected = shapely.area(shapely.intersection(np.array(shapes)[:, None], cells)) / KM**2
    found = cover.matrix.toarray()
    assert np.abs(found - expected).max() < 1e-6
    inside = np.minimum(expected.sum(axis=1) * KM**2 / shapely.area(shapes), 1)
    assert np.allclose(cover.inside, inside)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 25), st.sampled_from(["exact", "centres"]))
def test_a_partition_conserves_people(seed: int, count: int, overlay: str) -> None:
    population, cells = people_and_cells(seed)
    units = voronoi(seed, count)
    cover = coverage(units, grid(), id="code", overlay=overlay)
    people = cover.parts @ cover.take(population)[0]
    # exactextract keeps parts of cells in single precision
    assert people.sum() == pytest.approx(float(population.sum()), rel=1e-6)
    if overlay == "centres":
        assert people.sum() == pytest.approx(float(population.sum()), rel=1e-12)
    found = classify_units(cells, population, units, id="code", level=2, overlay=overlay)
    parts = found[[f"population_{c}" for c in level_codes(2)]]
    assert np.allclose(parts.sum(axis=1), found["population"].fillna(0))


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["exact", "centres"]),
    st.sampled_from([1, 2]),
    st.tuples(st.integers(1, 12), st.integers(1, 15)),
    st.tuples(st.integers(1, 12), st.integers(1, 15)),
)
def test_chunks_and_order_of_units_never_matter(
    seed: int, overlay: str, level: int, one: tuple[int, int], other: tuple[int, int]
) -> None:
    population, cells = people_and_cells(seed, level)
    units = voronoi(seed, 11)
    rules = {"id": "code", "level": level, "overlay": overlay}
    eager = classify_units(cells, population, units, **rules)
    lazy = classify_units(
        cells.chunk({"y": one[0], "x": one[1]}),
        population.chunk({"y": other[0], "x": other[1]}),
        units,
        **rules,
    )
    pd.testing.assert_frame_equal(eager, lazy, check_exact=True)
    order = np.random.default_rng(seed).permutation(len(units))
    turned = classify_units(cells, population, units.iloc[order], **rules)
    pd.testing.assert_frame_equal(eager.iloc[order], turned, check_exact=True)


def test_only_the_rows_of_the_units_are_read() -> None:
    import dask.array

    read = []

    def block(block_info: dict | None = None) -> np.ndarray:
        (first, last), _ = block_info[None]["array-location"]
        read.append(first)
        return np.ones((last - first, 15))

    data = dask.array.map_blocks(block, chunks=((2,) * 6, (15,)), dtype=float)
    population = xr.DataArray(data, xr_coords(grid()), ("y", "x"))
    cover = coverage(frame([km_box(1, 4.5, 3, 5.5)]), grid(), id="code")
    read.clear()
    values = cover.take(population)[0]
    assert values.tolist() == [1.0] * 4
    assert read == [4]


def test_overlay_of_the_whole_world_stays_small() -> None:
    world = GeoBox(
        (18_000, 36_082),
        grid().transform.translation(-18_041_000, 9_000_000) * grid().transform.scale(KM, -KM),
        GHSL_CRS,
    )
    for overlay in ("exact", "centres"):
        cover = coverage(frame([km_box(0, 0, 2, 2)]), world, id="code", overlay=overlay)
        assert cover.parts.shape == (1, 4)
        assert cover.matrix.shape == (1, 18_000 * 36_082)
        rows, cols = np.divmod(cover.cells, 36_082)
        assert rows.tolist() == [4000, 4000, 4001, 4001]
        assert cols.tolist() == [23_041, 23_042, 23_041, 23_042]


def test_units_in_degrees_give_the_same_as_in_metres() -> None:
    population, cells = people_and_cells(4)
    units = voronoi(4, 9)
    metres = classify_units(cells, population, units, id="code", level=2)
    dense = units.set_geometry(units.segmentize(100))
    degrees = classify_units(cells, population, dense.to_crs(4326), id="code", level=2)
    assert degrees.crs.to_epsg() == 4326
    assert np.allclose(degrees["population"], metres["population"], rtol=1e-5)
    assert (degrees["degurba_l2"] == metres["degurba_l2"]).all()


# --- exceptions -------------------------------------------------------------------


def test_a_unit_without_a_cell_centre_uses_the_cells_it_touches(
    caplog: pytest.LogCaptureFixture,
) -> None:
    people = np.zeros((4, 4))
    people[0, 0], people[0, 1] = 900, 100
    codes = np.ones((4, 4), np.uint8)
    codes[0, 0] = 3
    units = frame([km_box(0.9, 0.1, 1.2, 0.3), km_box(0, 1, 4, 4)])
    with caplog.at_level(logging.WARNING, "qala"):
        found = classify_units(
            raster(codes, "cells"), raster(people, "population"), units, id="code",
            overlay="centres",
        )  # fmt: skip
    assert found["degurba_l1"].tolist() == [3, 1]
    assert found["basis"].tolist() == ["touched", "area"]
    assert np.isnan(found["population"].iloc[0])
    assert "hold no cell centre" in caplog.text
    exact = classify_units(raster(codes, "cells"), raster(people, "population"), units, id="code")
    assert exact["population"].iloc[0] == pytest.approx(0.02 * 900 + 0.04 * 100)
    assert exact["basis"].tolist() == ["population", "area"]


def test_units_without_people_are_classified_by_land() -> None:
    people = np.zeros((4, 4))
    codes = np.zeros((4, 4), np.uint8)
    codes[:, :2] = [[3, 1], [3, 1], [3, 1], [2, 1]]
    units = frame([km_box(0, 0, 1, 4), km_box(0, 0, 4, 4), km_box(2, 0, 4, 4)])
    found = classify_units(raster(codes, "cells"), raster(people, "population"), units, id="code")
    # three quarters centre; 3 of 8 km² of land centre, 4 of 8 rural; a lake
    assert found["degurba_l1"].tolist() == [3, 2, 1]
    assert found["basis"].tolist() == ["area"] * 3
    assert found["population"].tolist() == [0, 0, 0]
    assert found[[f"share_{c}" for c in level_codes(1)]].isna().all(axis=None)
    codes2 = np.full((4, 4), 10, np.uint8)
    lake = classify_units(
        raster(codes2, "cells"), raster(people, "population"), units, id="code", level=2
    )
    assert lake["degurba_l2"].tolist() == [11, 11, 11]


@pytest.mark.parametrize("overlay", ["exact", "centres"])
def test_units_partly_outside_are_told_with_the_share(
    overlay: str, caplog: pytest.LogCaptureFixture
) -> None:
    population, cells = people_and_cells(1, 1, (4, 4))
    population[:, 3] = np.nan
    cells[:, 3] = 255
    units = frame([km_box(-1, 0, 1, 4), km_box(0, 0, 2, 2), km_box(2, 0, 4, 4)])
    with caplog.at_level(logging.WARNING, "qala"):
        found = classify_units(cells, population, units, id="code", overlay=overlay)
    assert found["coverage"].tolist() == pytest.approx([0.5, 1.0, 0.5])
    assert "2 units lie partly outside the raster or its data; share inside: u0 (50 %)" in (
        caplog.text
    )
    assert found["population"].iloc[2] == pytest.approx(float(population[:, 2].sum()))


def test_units_wholly_outside_are_refused() -> None:
    population, cells = people_and_cells(1, 1, (4, 4))
    units = frame([km_box(0, 0, 1, 1), km_box(50, 0, 51, 4)])
    with pytest.raises(InputError, match=r"1 of 2 units lie wholly outside the raster: u1.*tiles"):
        classify_units(cells, population, units, id="code")
    with pytest.raises(InputError, match=r"2 of 2 units.*check the CRS"):
        classify_units(cells, population, units.translate(1e6).to_frame("geometry").assign(
            code=["a", "b"]), id="code")  # fmt: skip


@pytest.mark.parametrize("overlay", ["exact", "centres"])
def test_units_over_missing_data_get_no_class(overlay: str) -> None:
    population, cells = people_and_cells(1, 2, (4, 4))
    population[:, 3] = np.nan
    cells[:, 3] = 255
    units = frame([km_box(3, 0, 4, 4), km_box(0, 0, 2, 2)])
    found = classify_units(cells, population, units, id="code", level=2, overlay=overlay)
    assert found["basis"].tolist() == ["none", "population"]
    assert found["degurba_l2"].isna().tolist() == [True, False]
    assert np.isnan(found["population"].iloc[0])
    assert found["coverage"].tolist() == [0.0, 1.0]


def test_people_in_cells_without_a_class_are_counted_and_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    population, cells = people_and_cells(1, 1, (4, 4))
    cells[0, 0] = 255
    with caplog.at_level(logging.WARNING, "qala"):
        found = classify_units(cells, population, frame([km_box(0, 0, 4, 4)]), id="code")
    assert found["population"].iloc[0] == pytest.approx(float(population.sum()))
    assert "stand in cells without a class" in caplog.text


def test_bad_choices_and_grids_are_refused() -> None:
    population, cells = people_and_cells(1, 2, (4, 4))
    units = frame([km_box(0, 0, 4, 4)])
    with pytest.raises(InputError, match="3 problems"):
        classify_units(cells, population, units, id="code", level=3, rules="x", overlay="y")
    with pytest.raises(InputError, match=r"hold the classes .*: pass --level 2"):
        classify_units(cells, population, units, id="code", level=1)
    with pytest.raises(InputError, match="no column 'name'"):
        classify_units(cells, population, units, id="name", level=2)
    with pytest.raises(InputError, match="cells is not on the grid"):
        classify_units(cells[:3], population, units, id="code", level=2)


def test_given_columns_stay_and_old_results_are_replaced() -> None:
    population, cells = people_and_cells(1, 1, (4, 4))
    units = frame([km_box(0, 0, 4, 4)]).assign(name="A", population=-1.0)
    units.index = [7]
    found = classify_units(cells, population, units, id="code")
    assert list(found.columns) == [
        "code", "name", "population", "population_3", "population_2", "population_1",
        "population_0", "share_3", "share_2", "share_1", "share_0", "degurba_l1", "basis",
        "coverage", "geometry",
    ]  # fmt: skip
    assert found["population"].iloc[0] > 0
    assert found.index.tolist() == [7]
    assert isinstance(found, gpd.GeoDataFrame)


# --- rules ------------------------------------------------------------------------


def test_level_1_thresholds_are_reached_by_equality() -> None:
    assert level1_class([0.5, 0.49, 0.49, 0], [0.5, 0.5, 0.51, 1]).tolist() == [3, 2, 1, 1]


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        # 30, 23, 22, 21, 13, 12, 11, 10 → (2024, 2021)
        ([0.5, 0, 0, 0, 0.5, 0, 0, 0], (30, 30)),
        ([0.4, 0.1, 0, 0.2, 0.3, 0, 0, 0], (23, 21)),
        ([0.0, 0.3, 0.3, 0.2, 0.2, 0, 0, 0], (22, 23)),
        ([0.0, 0.2, 0.3, 0.2, 0.3, 0, 0, 0], (21, 22)),
        ([0.0, 0.3, 0.3, 0.4, 0.0, 0, 0, 0], (22, 23)),
        ([0.0, 0.2, 0.2, 0.4, 0.2, 0, 0, 0], (21, 21)),
        ([0.0, 0.0, 0.0, 0.2, 0.3, 0.4, 0.1, 0], (13, 12)),
        ([0.0, 0.0, 0.0, 0.0, 0.3, 0.4, 0.3, 0], (12, 12)),
        ([0.0, 0.0, 0.0, 0.0, 0.5, 0.0, 0.5, 0], (13, 13)),
        ([0.0, 0.0, 0.0, 0.0, 0.2, 0.2, 0.6, 0], (11, 11)),
        ([0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0], (11, 12)),
    ],
)
def test_level_2_rules(shares: list[float], expected: tuple[int, int]) -> None:
    found = tuple(int(level2_class([shares], rules=r)[0]) for r in ("2024", "2021"))
    assert found == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=8, max_size=8).filter(any))
def test_level_2_always_refines_level_1(counts: list[int]) -> None:
    shares = np.array([counts]) / sum(counts)
    level1 = int(level1_class(shares[:, 0], shares[:, 4] + shares[:, 5] + shares[:, 6])[0])
    for rules in ("2021", "2024"):
        assert int(level2_class(shares, rules=rules)[0]) // 10 == level1


# --- Belgium ----------------------------------------------------------------------

GOLDEN = [
    ("L1_exact", "L1_default", 1, "2024", "exact", "flexurba_L1"),
    ("L1_cells_1km", "L1_default", 1, "2024", "centres", "flexurba_L1"),
    ("L2_exact_2021", "L2_R2023A_2021rules", 2, "2021", "exact", "flexurba_L2"),
    ("L2_cells_1km_2021", "L2_R2023A_2021rules", 2, "2021", "centres", "flexurba_L2"),
    ("L2_exact_2024_corrected", "L2_default_2024", 2, "2024", "exact", "L2_corrected_SUrb"),
]
#: Units at the outermost row or column of the country. The R package cuts the rasters to the
#: units' bounds by whole cells and loses the cells cut there, up to 1.5 % of a unit's people;
#: ours equal the intersection of polygons. Classes are the same.
CUT_OFF_IN_GOLDEN = [13014, 63012, 85045, 85047]


@pytest.mark.parametrize(("table", "cells", "level", "rules", "overlay", "column"), GOLDEN)
def test_belgian_municipalities(
    reference: Path, table: str, cells: str, level: int, rules: str, overlay: str, column: str
) -> None:
    folder = reference / "belgium"
    expected = pd.read_csv(folder / "expected_units" / f"{table}.csv").set_index("UID")
    found = classify_units(
        open_raster(folder / "expected_cells" / f"{cells}.tif", "cells"),
        open_raster(folder / "ghsl" / "POP.tif"),
        read_units(folder / "units.gpkg", id="UID"),
        id="UID",
        level=level,
        rules=rules,
        overlay=overlay,
    )
    found = found.set_index("UID").loc[expected.index]
    for ours, theirs in (("degurba_l1", "flexurba_L1"), (f"degurba_l{level}", column)):
        differ = found.index[found[ours] != expected[theirs].astype(int)]
        assert len(found) == 581
        assert not len(differ), f"{len(differ)} units differ in {ours}: {list(differ)}"
    cut = CUT_OFF_IN_GOLDEN if overlay == "exact" else []
    inner = ~found.index.isin(cut)
    pairs = {"population": "Tot_Pop", ("population_30" if level == 2 else "population_3"): (
        "UCentre_Pop"
    )}  # fmt: skip
    if level == 2:
        names = {23: "DUC", 22: "SDUC", 21: "SUrb", 13: "RC", 12: "LDR", 11: "VLDR"}
        pairs |= {f"population_{c}": f"{n}_Pop" for c, n in names.items()}
        pairs |= {f"share_{c}": f"{n}_share" for c, n in names.items()}
    for ours, theirs in pairs.items():
        np.testing.assert_allclose(
            found[ours][inner], expected[theirs][inner], rtol=1e-9, atol=1e-8, err_msg=ours
        )
    assert (found["population"][~inner] > expected["Tot_Pop"][~inner]).all()


def test_people_of_every_municipality_equal_an_intersection_of_polygons(reference: Path) -> None:
    folder = reference / "belgium"
    population = open_raster(folder / "ghsl" / "POP.tif").compute()
    units = read_units(folder / "units.gpkg", id="UID")
    cover = coverage(units, geobox_of(population), id="UID")
    people = np.nan_to_num(population.to_numpy())
    found = cover.matrix @ people.ravel()
    transform = geobox_of(population).transform
    rows, cols = np.indices(people.shape)
    cells = shapely.box(
        transform.c + cols * KM,
        transform.f - (rows + 1) * KM,
        transform.c + (cols + 1) * KM,
        transform.f - rows * KM,
    ).ravel()
    shapes = units.geometry.to_numpy()
    unit, cell = shapely.STRtree(cells).query(shapes, predicate="intersects")
    shared = shapely.area(shapely.intersection(shapes[unit], cells[cell])) / KM**2
    expected = np.bincount(unit, shared * people.ravel()[cell], len(units))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_a_point_is_no_unit() -> None:
    with pytest.raises(InputError, match="outside"):
        classify_units(
            *people_and_cells(1, 1, (4, 4))[::-1], frame([Point(0, 0).buffer(10)]), id="code"
        )
