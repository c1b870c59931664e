"""Degree of Urbanisation of cells: published results, a plain second opinion, any chunking."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
import dask
import dask.array
import geopandas as gpd
import numpy as np
import plain
import pytest
import rasterio
import strategies
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import Planet, planets

from qala.errors import InputError
from qala.raster import open_raster
from qala.rules import CellRules
from qala.settlement import classify_cells, classify_levels, label_centres, urban_centres

#: published result → the keywords that give it
GOLDEN: dict[str, dict[str, Any]] = {
    "L1_default": {"level": 1},
    "L1_R2022A": {"level": 1, "ruleset": "R2022A"},
    "L1_manual2021_nobuilt": {"level": 1, "ruleset": "manual2021"},
    "L1_nosmooth_gap": {"level": 1, "smoothing": "none"},
    "L1_nosmooth_nogap": {"level": 1, "smoothing": "none", "gap_area": 0},
    "L1_smooth_nogap": {"level": 1, "gap_area": 0},
    "L1_nosmooth_gap_nobuilt": {"level": 1, "smoothing": "none", "centre_built": False},
    "L1_nosmooth_nogap_nobuilt": {
        "level": 1, "smoothing": "none", "gap_area": 0, "centre_built": False,
    },
    "L2_R2023A_2021rules": {"level": 2},
    "L2_default_2024": {"level": 2, "ruleset": "2024"},
    "L2_nobuilt_2021rules": {"level": 2, "centre_built": False},
    "L2_nobuilt_2024": {"level": 2, "ruleset": "2024", "centre_built": False},
}  # fmt: skip
PLACES = {
    "belgium": ("belgium/ghsl", "belgium/expected_cells", list(GOLDEN)),
    "stress": (
        "stress/input",
        "stress/expected",
        [k for k in GOLDEN if "_nobuilt" not in k or "manual" in k],
    ),
}


def ghsl(folder: Path, chunk: int | None = None) -> list[xr.DataArray]:
    """Open population, built-up and land of a folder as they are."""
    kinds = (("POP", "population"), ("BUILT_S", "built"), ("LAND", "land"))
    return [open_raster(folder / f"{n}.tif", q, chunk=chunk) for n, q in kinds]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def opened(reference: Path) -> dict[str, list[xr.DataArray]]:
    return {
        place: [a.compute() for a in ghsl(reference / given)]
        for place, (given, _, _) in PLACES.items()
    }


@pytest.mark.parametrize(
    ("place", "case"), [(p, c) for p, (_, _, cs) in PLACES.items() for c in cs]
)
def test_published_results_differ_in_no_cell(
    opened: dict[str, list[xr.DataArray]], reference: Path, place: str, case: str
) -> None:
    folder = reference / PLACES[place][1]
    with rasterio.open(folder / f"{case}.tif") as source:
        expected = source.read(1)
    got = classify_cells(*opened[place], **GOLDEN[case])
    builders.assert_same_cells(got.values, expected)


def test_every_published_result_is_compared(reference: Path) -> None:
    for _, expected, cases in PLACES.values():
        assert {p.stem for p in (reference / expected).glob("L*.tif")} == set(cases)
    assert sum(len(cases) for _, _, cases in PLACES.values()) == 20


@pytest.mark.parametrize("place", PLACES)
def test_published_results_read_strip_by_strip(reference: Path, place: str) -> None:
    given_folder, expected, cases = PLACES[place]
    arrays = ghsl(reference / given_folder, chunk=37)
    for case in ("L1_default", "L2_default_2024"):
        assert case in cases
        with rasterio.open(reference / expected / f"{case}.tif") as source:
            got = classify_cells(*arrays, **GOLDEN[case])
            builders.assert_same_cells(got.compute().values, source.read(1))


def test_a_difference_is_told_with_its_place() -> None:
    expected = np.ones((20, 20), np.uint8)
    got = expected.copy()
    got[7, 9] = 3
    told = builders.differing_cells(got, expected)
    assert told.startswith("1 of 400 cells differ")
    assert "     7      9      3        1" in told
    assert "3*" in told
    assert builders.differing_cells(got, got) == ""
    assert "shape" in builders.differing_cells(got[:3], expected)


def test_algeria_agrees_with_an_older_official_clip(reference: Path) -> None:
    # R2019A knew other rules (built-up 0.5 of the cell, no land layer) and its clusters are cut
    # by the clip, so that this is no golden result
    folder = reference / "algeria"
    people = open_raster(folder / "algeria_GHS_POP_E2015_R2019A_54009_1K.tif")
    built = open_raster(
        folder / "algeria_GHS_BUILT_LDS2014_R2018A_54009_1K.tif", "built", unit="percent"
    )
    with rasterio.open(folder / "algeria_GHS_SMOD_POP2015_R2019A_54009_1K.tif") as source:
        official = source.read(1)
    got = classify_cells(people, built, level=2, ruleset="R2022A").compute().values
    centre_got, centre_official = got == 30, official == 30
    overlap = (centre_got & centre_official).sum() / (centre_got | centre_official).sum()
    assert overlap > 0.9
    assert (got == official).mean() > 0.85


# --- a plain second opinion --------------------------------------------------------------


def arrays_of(given: Planet, unit: str = "m2", dtype: str = "float64") -> dict[str, Any]:
    scale = {"m2": builders.KM2, "share": 1.0, "percent": 100.0}[unit]
    found: dict[str, Any] = {"population": builders.raster(given.people.astype(dtype))}
    for name in ("built", "land"):
        values = getattr(given, name)
        found[name] = None
        if values is not None:
            found[name] = builders.raster((values * scale).astype(dtype), name, unit)
    return found


@settings(max_examples=120, deadline=None)
@given(planets, st.sampled_from(list(plain.RULES)), st.sampled_from([1, 2]))
def test_same_as_a_plain_version_on_whole_arrays(
    given_planet: Planet, ruleset: str, level: int
) -> None:
    got = classify_cells(**arrays_of(given_planet), level=level, ruleset=ruleset)
    expected = plain.classify(
        given_planet.people, given_planet.built, given_planet.land, level=level, ruleset=ruleset
    )
    builders.assert_same_cells(got.values, expected)


@pytest.mark.slow
@settings(max_examples=1500, deadline=None)
@given(planets, st.sampled_from(list(plain.RULES)), st.sampled_from([1, 2]))
def test_same_as_a_plain_version_at_length(given_planet: Planet, ruleset: str, level: int) -> None:
    got = classify_cells(**arrays_of(given_planet), level=level, ruleset=ruleset)
    expected = plain.classify(
        given_planet.people, given_planet.built, given_planet.land, level=level, ruleset=ruleset
    )
    builders.assert_same_cells(got.values, expected)


def test_the_grids_of_the_property_tests_hold_every_class() -> None:
    # a property that is only tried on empty land proves nothing
    seen: set[int] = set()
    for seed in range(60):
        found = strategies.planet(seed, 24, 24, with_built=True, with_land=True, gaps=0.02)
        for level in (1, 2):
            values = classify_cells(**arrays_of(found), level=level).values
            seen |= set(np.unique(values).tolist())
    assert seen == {0, 1, 2, 3, 10, 11, 12, 13, 21, 22, 23, 30, 255}


# --- any chunking, any scheduler, any type -------------------------------------------------


def lazily(arrays: dict[str, Any], rows: tuple[int, ...], cols: tuple[int, ...]) -> dict[str, Any]:
    """The same arrays in chunks; each input of its own kind."""
    found = {}
    for k, (name, array) in enumerate(arrays.items()):
        if array is None:
            found[name] = None
            continue
        chunks = (rows, cols) if k == 0 else (rows[::-1], -1) if k == 1 else (-1, cols)
        found[name] = array.copy(data=dask.array.from_array(array.values, chunks=chunks))
    return found


@settings(max_examples=50, deadline=None)
@given(st.data(), planets, st.sampled_from(["R2022A", "R2023A", "2024"]))
def test_chunks_never_change_the_result(
    data: st.DataObject, given_planet: Planet, ruleset: str
) -> None:
    arrays = arrays_of(given_planet)
    whole = classify_levels(**arrays, ruleset=ruleset)
    height, width = given_planet.people.shape
    rows = data.draw(strategies.chunkings(height))
    cols = data.draw(strategies.chunkings(width))
    with dask.config.set(scheduler=data.draw(st.sampled_from(["threads", "synchronous"]))):
        lazy = classify_levels(**lazily(arrays, rows, cols), ruleset=ruleset).compute()
    chunk = data.draw(st.integers(1, height + 3))
    stripped = classify_levels(**arrays, ruleset=ruleset, chunk=chunk)
    mixed = classify_levels(**lazily(arrays, rows, cols), ruleset=ruleset, chunk=chunk).compute()
    for found in (lazy, stripped, mixed):
        for name in ("degurba_l1", "degurba_l2", "centre"):
            builders.assert_same_cells(found[name].values, whole[name].values)


@settings(max_examples=25, deadline=None)
@given(planets, st.sampled_from(["m2", "share", "percent"]))
def test_number_types_and_units_never_change_the_result(given_planet: Planet, unit: str) -> None:
    expected = classify_levels(**arrays_of(given_planet))
    for dtype in ("float32", "float64"):
        found = classify_levels(**arrays_of(given_planet, unit, dtype))
        for name in ("degurba_l1", "degurba_l2", "centre"):
            builders.assert_same_cells(found[name].values, expected[name].values)


@settings(max_examples=25, deadline=None)
@given(planets, st.sampled_from(["manual2021", "R2022A", "R2023A", "2024"]))
def test_levels_from_one_scan_are_the_single_levels(given_planet: Planet, ruleset: str) -> None:
    arrays = arrays_of(given_planet)
    both = classify_levels(**arrays, ruleset=ruleset)
    for level in (1, 2):
        alone = classify_cells(**arrays, ruleset=ruleset, level=level)
        builders.assert_same_cells(both[f"degurba_l{level}"].values, alone.values)
        assert both[f"degurba_l{level}"].attrs == alone.attrs
    labels = label_centres(**arrays, ruleset=ruleset)
    builders.assert_same_cells(both["centre"].values, labels.values)
    builders.assert_same_cells(labels.values > 0, both["degurba_l1"].values == 3)
    builders.assert_same_cells(labels.values > 0, both["degurba_l2"].values == 30)
    # numbered in row-major order, without a gap
    flat = labels.values.ravel()
    numbers = flat[np.sort(np.unique(flat, return_index=True)[1])]
    assert numbers[numbers > 0].tolist() == list(range(1, int(flat.max()) + 1))


def test_worker_processes_give_the_same(reference: Path) -> None:
    from qala.compute import running

    arrays = ghsl(reference / "stress/input", chunk=64)
    whole = classify_levels(*[a.compute() for a in arrays], ruleset="2024")
    with running(2, processes=True):
        spread = classify_levels(*arrays, ruleset="2024").compute()
    for name in ("degurba_l1", "degurba_l2", "centre"):
        builders.assert_same_cells(spread[name].values, whole[name].values)


def test_inputs_stay_as_they_were_and_dims_may_be_turned() -> None:
    arrays = arrays_of(strategies.planet(3, 15, 18, with_built=True, with_land=True, gaps=0.1))
    kept = {k: v.copy(deep=True) for k, v in arrays.items()}
    expected = classify_cells(**arrays, level=2)
    for name, array in arrays.items():
        xr.testing.assert_identical(array, kept[name])
    turned = {k: v.transpose("x", "y") for k, v in arrays.items()}
    found = classify_cells(**turned, level=2)
    assert found.dims == ("y", "x")
    builders.assert_same_cells(found.values, expected.values)
    whole_numbers = arrays["population"].fillna(0).astype("int32")
    builders.assert_same_cells(
        classify_cells(whole_numbers).values, classify_cells(whole_numbers.astype(float)).values
    )


def test_lazy_input_is_not_computed_before_it_is_asked_for() -> None:
    def refuse(block: np.ndarray) -> np.ndarray:
        raise AssertionError("computed too early")

    people = builders.raster(builders.town())
    people = people.copy(
        data=dask.array.from_array(people.values, chunks=4).map_blocks(
            refuse, meta=np.zeros((0, 0))
        )
    )
    cells = classify_cells(people, level=2)
    assert cells.dtype == np.uint8
    assert dask.is_dask_collection(cells.data)
    with pytest.raises(AssertionError, match="too early"):
        cells.compute()


# --- thresholds ------------------------------------------------------------------------------


def block(value: float, shape: tuple[int, int], *, grid: tuple[int, int] = (16, 16)) -> np.ndarray:
    people = np.zeros(grid)
    people[5 : 5 + shape[0], 5 : 5 + shape[1]] = value
    return people


def count(code: int, people: np.ndarray, **keywords: Any) -> int:
    built, land = (
        None if (v := keywords.pop(k, None)) is None else builders.raster(v, k, "share")
        for k in ("built", "land")
    )
    return int((classify_cells(builders.raster(people), built, land, **keywords) == code).sum())


RING = block(4_000, (5, 6))
RING[7, 7:9] = 0
NEAR = np.zeros((16, 16))
NEAR[3:6, 3:6] = 6_000  # a centre
NEAR[3:6, 9:13] = 1_000  # four columns from it: three cells lie between
CORNERS = np.zeros((16, 16))
CORNERS[4, 4] = CORNERS[5, 5] = 1_300
VILLAGE = block(310, (1, 2))

#: threshold, code counted, people, common keywords, value → cells
CASES: list[tuple[str, int, np.ndarray, dict[str, Any], dict[Any, int]]] = [
    ("centre_density", 3, block(6_000, (3, 3)), {}, {None: 9, 6_000: 9, 6_001: 0}),
    ("centre_population", 3, block(6_000, (3, 3)), {}, {None: 9, 54_000: 9, 54_001: 0}),
    ("centre_built", 3, block(1_400, (6, 7)), {"built": block(0.3, (6, 7))},
     {None: 42, 0.3: 42, 0.31: 0, False: 0}),
    ("gap_area", 3, RING, {"smoothing": "none"}, {None: 30, 0: 28, 2: 28, 2.5: 30}),
    ("smoothing", 3, RING, {"gap_area": 0}, {"R2022A": 30, "R2023A": 30, "none": 28}),
    ("cluster_density", 2, block(310, (5, 5)), {}, {None: 25, 310: 25, 311: 0}),
    ("cluster_population", 2, block(310, (5, 5)), {}, {None: 25, 7_750: 25, 7_751: 0}),
    ("dense_population", 23, block(1_600, (2, 2)), {"level": 2}, {None: 4, 6_400: 4, 6_401: 0}),
    ("semidense_density", 22, block(1_000, (2, 3)), {"level": 2, "ruleset": "2024"},
     {None: 6, 1_000: 6, 1_001: 0}),
    ("semidense_population", 22, block(1_000, (2, 3)), {"level": 2, "ruleset": "2024"},
     {None: 6, 6_000: 6, 6_001: 0}),
    ("semidense_connectivity", 22, CORNERS, {"level": 2, "ruleset": "2024"}, {None: 0, 4: 0, 8: 2}),
    ("semidense_distance", 22, NEAR, {"level": 2}, {None: 12, 3: 12, 4: 0}),
    ("rural_cluster_population", 13, VILLAGE, {"level": 2}, {None: 2, 620: 2, 621: 0}),
    ("low_density", 12, block(60, (1, 1)), {"level": 2}, {None: 1, 60: 1, 60.5: 0}),
    ("water_land", 0, np.zeros((16, 16)), {"land": block(0.4, (16, 16)) + 0.4},
     {None: 135, 0.4: 0, 0.9: 256}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "code", "people", "common", "expected"), CASES, ids=[c[0] for c in CASES]
)
def test_each_threshold_changes_what_it_should(
    name: str, code: int, people: np.ndarray, common: dict[str, Any], expected: dict[Any, int]
) -> None:
    got = {v: count(code, people, **common, **({} if v is None else {name: v})) for v in expected}
    assert got == expected


def test_no_threshold_is_forgotten() -> None:
    assert {c[0] for c in CASES} == set(CellRules.__dataclass_fields__)


def test_majorities_differ_at_a_coast() -> None:
    people, land = np.zeros((9, 9)), np.ones((9, 9))
    people[2:6, 2:5] = 5_000
    people[2:5, 5] = 5_000
    # beside the notch at row 5, column 5 lie 4 cells of the centre, 1 of land and 3 of sea
    land[4:7, 6:] = 0
    for ruleset, added in (("R2022A", 0), ("R2023A", 1)):
        cells = classify_cells(
            builders.raster(people), None, builders.raster(land, "land", "share"), ruleset=ruleset
        )
        assert int(cells[5, 5] == 3) == added, ruleset


def test_neighbours_off_the_raster_count_as_outside() -> None:
    people = np.zeros((6, 6))
    people[0:3, 0:4] = 5_000
    people[0, 2] = 0
    # 5 neighbours of the gap at the edge lie in the centre, 3 off the raster: 10 exceeds 8
    cells = classify_cells(builders.raster(people), gap_area=0)
    assert cells.values[0, 2] == 3
    # two such cells have 4 each: were those off the raster left out of N, 8 would exceed 5
    people[0, 1] = 0
    cells = classify_cells(builders.raster(people), gap_area=0)
    assert (cells.values[0, 1:3] == 1).all()


@pytest.mark.parametrize("cells", [14, 15])
def test_gaps_of_fourteen_cells_are_filled_and_of_fifteen_not(cells: int) -> None:
    people = np.full((9, 9), 3_000.0)
    people[2:7, 3:6] = 0
    if cells == 14:
        people[2, 3] = 3_000
    found = classify_cells(builders.raster(people), smoothing="none")
    assert int((found == 3).sum()) == (81 if cells == 14 else 66)


def test_a_gap_between_two_centres_stays() -> None:
    people = np.zeros((8, 13))
    people[1:6, 1:6] = 3_000
    people[1:6, 7:12] = 3_000
    people[2:5, 5] = 0  # closed by the other centre alone, once they touch
    people[1, 6] = people[5, 6] = 0
    found = classify_cells(builders.raster(people), smoothing="none")
    assert (found.values[2:5, 5:7] != 3).all()


def test_people_without_land_are_told_and_dense(caplog: pytest.LogCaptureFixture) -> None:
    people = block(6_000, (3, 3))
    land = np.ones((16, 16))
    land[6, 6] = 0
    with caplog.at_level("WARNING", logger="qala"):
        cells = classify_cells(
            builders.raster(people), None, builders.raster(land, "land", "share")
        )
    assert int((cells == 3).sum()) == 9
    assert "1 cells hold people but no land" in caplog.text


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (-200.0, ["1 negative", "row 2, column 3: -200", "--nodata -200"]),
        (np.inf, ["1 infinite", "row 2, column 3: inf"]),
        (4294967295.0, ["1 impossibly large", "4.29497e+09", "--nodata"]),
        (3.4e38, ["1 impossibly large", "3.4e+38"]),
        (-3.4e38, ["1 negative", "-3.4e+38"]),
    ],
)
@pytest.mark.parametrize("chunk", [None, 1, 5])
def test_impossible_counts_are_refused_with_their_place(
    value: float, words: list[str], chunk: int | None
) -> None:
    people = builders.town()
    people[2, 3] = value
    with pytest.raises(InputError) as refused:
        classify_cells(builders.raster(people), chunk=chunk)
    for word in words:
        assert word in str(refused.value)


def test_several_problems_are_told_together() -> None:
    people = builders.town()
    people[2, 3] = -1
    built = builders.raster(np.full(people.shape, 4e9), "built", "m2")
    land = builders.raster(np.full(people.shape, -5.0), "land", "share")
    with pytest.raises(InputError) as refused:
        classify_cells(builders.raster(people), built, land)
    for word in ("3 problems", "1 negative", "built reaches 4e+09", "land falls to -5"):
        assert word in str(refused.value)


def test_shares_in_place_of_areas_are_refused() -> None:
    people = builders.raster(builders.town())
    with pytest.raises(InputError, match=r"built reaches 900000.*--built-unit"):
        classify_cells(people, builders.raster(np.full(people.shape, 9e5), "built", "share"))
    with pytest.raises(InputError, match=r"does not tell its unit.*--built-unit"):
        classify_cells(people, builders.raster(np.full(people.shape, 0.5), "built"))


def test_nothing_but_missing_cells_is_refused() -> None:
    with pytest.raises(InputError, match="no cell holds a value"):
        classify_cells(builders.raster(np.full((5, 5), np.nan)))


@pytest.mark.parametrize("level", [0, 3, "1", None])
def test_an_unknown_level_is_refused(level: Any) -> None:
    with pytest.raises(InputError, match="expected 1 or 2"):
        classify_cells(builders.raster(builders.town()), level=level)


# --- urban centres -------------------------------------------------------------------------------


def points(rows: list[tuple[str, float, float, float]], crs: Any = builders.GHSL_CRS) -> Any:
    return gpd.GeoDataFrame(
        {"name": [r[0] for r in rows], "population": [r[1] for r in rows]},
        geometry=gpd.points_from_xy(
            [builders.LEFT + r[2] * builders.KM for r in rows],
            [builders.TOP - r[3] * builders.KM for r in rows],
        ),
        crs=crs,
    )


def test_centres_carry_people_area_and_the_largest_place() -> None:
    people = np.zeros((12, 20))
    people[2:5, 2:5] = 6_000
    people[6:9, 10:14] = 5_000
    population = builders.raster(people)
    labels = label_centres(population)
    places = points([
        ("Quarter", 900, 3.5, 3.5), ("Town", 50_000, 2.5, 2.5), ("Far", 9e6, 18, 1),
        ("City", 60_000, 12.5, 7.5),
    ])  # fmt: skip
    found = urban_centres(labels, population, places)
    assert found["centre"].tolist() == [1, 2]
    assert found["name"].tolist() == ["Town", "City"]
    assert found["population"].tolist() == [54_000, 60_000]
    assert found["area_km2"].tolist() == [9.0, 12.0]
    assert found["density"].tolist() == [6_000, 5_000]
    np.testing.assert_allclose(found.area / 1e6, found["area_km2"])
    assert found.crs.to_authority() == ("ESRI", "54009")
    degrees = urban_centres(labels, population, places.to_crs(4326))
    assert degrees["name"].tolist() == ["Town", "City"]


def test_centres_that_touch_by_a_corner_stay_two() -> None:
    people = np.zeros((10, 10))
    people[1:4, 1:4] = 6_000
    people[4:7, 4:7] = 6_000
    population = builders.raster(people)
    labels = label_centres(population, smoothing="none")
    found = urban_centres(labels, population)
    assert len(found) == 2
    assert found["name"].isna().all()
    assert found["population"].tolist() == [54_000, 54_000]


def test_no_centre_gives_an_empty_layer_with_columns() -> None:
    population = builders.raster(np.full((5, 5), 10.0))
    found = urban_centres(label_centres(population), population, points([("A", 1, 2, 2)]))
    assert len(found) == 0
    assert {"centre", "name", "population", "area_km2", "density"} <= set(found.columns)
    assert found.crs is not None


def test_places_without_population_or_crs_or_name() -> None:
    population = builders.raster(builders.town())
    labels = label_centres(population)
    places = points([("B", 1, 5.5, 5.5), ("A", 2, 5.5, 4.5)])
    assert urban_centres(labels, population, places.drop(columns="population"))["name"][0] == "A"
    with pytest.raises(InputError, match="no CRS"):
        urban_centres(labels, population, places.set_crs(None, allow_override=True))
    with pytest.raises(InputError, match="name_kk"):
        urban_centres(labels, population, places.rename(columns={"name": "label"}))


def test_belgian_centres_hold_the_people_of_their_cells(reference: Path) -> None:
    people, built, land = ghsl(reference / "belgium/ghsl")
    labels = label_centres(people, built, land).compute()
    found = urban_centres(labels, people)
    values = people.compute().values
    assert len(found) == labels.values.max()
    np.testing.assert_allclose(
        found["population"].sum(), np.nansum(values[labels.values > 0]), rtol=1e-12
    )
    assert found["area_km2"].sum() == (labels.values > 0).sum()
    assert (found["population"] >= 50_000).all()
