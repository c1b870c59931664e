"""The command: bad input is one clear sentence, exit code 2, and nothing half-written."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import builders
import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from builders import KM, LEFT, TOP, Outcome, listing, qala, write_tif
from geopandas.testing import assert_geodataframe_equal

import qala as package

PEOPLE = builders.town()
SOURCE = Path(package.__file__).resolve().parents[1]


def process(*arguments: Any, cwd: Path | None = None, **options: Any) -> Outcome:
    """Run the command as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "qala.cli", *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd, check=False,
        env={**os.environ, "PYTHONPATH": str(SOURCE), **options.pop("env", {})}, **options,
    )  # fmt: skip
    return Outcome(done.returncode, done.stdout, done.stderr)


def refused(outcome: Outcome, *words: str, code: int = 2) -> None:
    """Check exit code, the words of the message, and its three parts."""
    assert outcome.code == code, outcome
    assert "Traceback" not in outcome.err
    for word in words:
        assert word in outcome.error, f"{word!r} not in {outcome.error!r}"
    assert outcome.error.startswith("error: ")
    assert "expected " in outcome.error, outcome.error
    # a remedy follows the expectation
    assert ": " in outcome.error.split("expected ", 1)[1], outcome.error
    assert outcome.out == ""


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out" / "cells.tif"


def classify(out: Path, population: Path, *more: Any) -> Outcome:
    """Run `qala cells` and check that a failure leaves nothing, not even the folder."""
    outcome = qala("cells", "--population", population, "-o", out, *more)
    if outcome.code:
        assert not out.parent.exists(), listing(out.parent)
    return outcome


# --- grids -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ({"crs": None}, ["no CRS", "equal-area", "gdal_edit.py -a_srs ESRI:54009"]),
        ({"crs": "EPSG:4326", "cell": 0.01, "origin": (68.0, 44.0)},
         ["EPSG:4326 (degrees)", "equal-area CRS in metres", "gdalwarp"]),
        ({"crs": "EPSG:3857"}, ["EPSG:3857, which is not equal-area", "ESRI:54009", "gdalwarp"]),
        ({"crs": "EPSG:32642"}, ["EPSG:32642, which is not equal-area", "gdalwarp"]),
        ({"crs": "EPSG:2163", "cell": 100.0},
         ["cells of 100 m", "1000 m", "qala.aggregate(population, 10)"]),
        ({"cell": 250.0}, ["cells of 250 m", "qala.aggregate(population, 4)"]),
        ({"cell": 1_500.0}, ["cells of 1500 m", "gdalwarp -tr 1000 1000"]),
    ],
    ids=["no CRS", "degrees", "web Mercator", "UTM", "100 m", "250 m", "1500 m"],
)  # fmt: skip
def test_grids_that_cannot_be_classified(
    tmp_path: Path, out: Path, profile: dict[str, Any], words: list[str]
) -> None:
    population = write_tif(tmp_path / "POP.tif", PEOPLE, **profile)
    refused(classify(out, population), *words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"origin": (LEFT + 3 * KM, TOP)},
         ["origin (5003000, 5000000) against (5000000, 5000000)"]),
        ({"cell": 500.0}, ["cell size 500 m against 1000 m"]),
        ({"crs": "EPSG:3035"}, ["CRS EPSG:3035 against ESRI:54009"]),
        ({"values": np.ones((9, 14))}, ["size 9×14 cells against 12×14"]),
    ],
    ids=["origin", "resolution", "CRS", "size"],
)  # fmt: skip
def test_rasters_on_other_grids(
    tmp_path: Path, out: Path, change: dict[str, Any], words: list[str]
) -> None:
    population = write_tif(tmp_path / "POP.tif", PEOPLE)
    values = change.pop("values", np.ones(PEOPLE.shape))
    built = write_tif(tmp_path / "B.tif", 0.5 * values, unit="share", **change)
    land = write_tif(tmp_path / "L.tif", values, unit="share", **change)
    outcome = classify(out, population, "--built", built, "--land", land)
    refused(
        outcome, "2 problems", "built is not on the grid of population", "land", "gdalwarp", *words
    )


@pytest.mark.parametrize(
    ("values", "dtype", "words"),
    [
        (-200, "float32", ["row 0, column 0: -200", "--nodata -200", "-a_nodata -200"]),
        (4294967295, "float64", ["impossibly large", "--nodata 4.29497e+09"]),
        (3.4028235e38, "float32", ["impossibly large", "3.40282e+38"]),
        (-3.4028235e38, "float32", ["negative", "-3.40282e+38"]),
        (-1, "float64", ["1 negative", "from 0 to 1e+08 people per cell"]),
        (np.inf, "float64", ["1 infinite"]),
        (-np.inf, "float64", ["1 infinite"]),
        (4294967295, "uint32", ["impossibly large"]),
    ],
)
def test_values_that_are_no_people(
    tmp_path: Path, out: Path, values: float, dtype: str, words: list[str]
) -> None:
    people = PEOPLE.astype(dtype)
    people[0, 0] = values
    refused(classify(out, write_tif(tmp_path / "POP.tif", people)), "POP.tif", *words)


@pytest.mark.parametrize("value", [-200.0, 4294967295.0, 3.4028234663852886e38])
def test_missing_values_declared_by_the_user(tmp_path: Path, out: Path, value: float) -> None:
    people = PEOPLE.astype("float32")
    people[0, 0] = value
    population = write_tif(tmp_path / "POP.tif", people)
    assert classify(out, population, "--nodata", repr(value)).code == 0
    with rasterio.open(out) as cells:
        assert cells.read(1)[0, 0] == 255
        assert (cells.read(1) == 3).sum() == 9


def test_nan_is_missing_without_being_declared(tmp_path: Path, out: Path) -> None:
    people = PEOPLE.copy()
    people[0, :3] = np.nan
    assert classify(out, write_tif(tmp_path / "POP.tif", people)).code == 0
    with rasterio.open(out) as cells:
        assert (cells.read(1) == 255).sum() == 3


def test_empty_and_many_banded_and_complex_rasters(tmp_path: Path, out: Path) -> None:
    nothing = write_tif(tmp_path / "N.tif", np.full(PEOPLE.shape, np.nan))
    refused(classify(out, nothing), "N.tif: no cell holds a value", "right tile")
    declared = write_tif(tmp_path / "D.tif", np.full(PEOPLE.shape, -200.0), nodata=-200)
    refused(classify(out, declared), "no cell holds a value")
    bands = write_tif(tmp_path / "M.tif", np.stack([PEOPLE] * 3))
    refused(classify(out, bands), "has 3 bands", "one band", "gdal_translate -b 1")
    complicated = write_tif(tmp_path / "C.tif", PEOPLE.astype("complex64"))
    refused(classify(out, complicated), "complex64 values")


# --- units of built-up and land ---------------------------------------------------------------


def built_case(tmp_path: Path, out: Path, built: np.ndarray, *more: Any, **profile: Any) -> Outcome:
    population = write_tif(tmp_path / "POP.tif", PEOPLE)
    return classify(
        out, population, "--built", write_tif(tmp_path / "B.tif", built, **profile), *more
    )


ROW = np.linspace(0, 1, PEOPLE.size).reshape(PEOPLE.shape)


@pytest.mark.parametrize(
    ("built", "profile", "unit"),
    [
        ((ROW * 950_000).astype("uint32"), {"nodata": 4294967295}, "m2"),
        ((ROW * 950_000).astype("float32"), {}, "m2"),
        (ROW.astype("float32"), {}, "share"),
        (0.4 * ROW, {}, "share"),
        (100 * ROW, {"unit": "percent"}, "percent"),
        (100 * ROW, {"unit": "%"}, "percent"),
        (100 * ROW, {"unit": "m²"}, "m2"),
        (np.zeros(PEOPLE.shape), {}, "share"),
    ],
)
def test_units_that_metadata_or_values_tell(
    tmp_path: Path, out: Path, built: np.ndarray, profile: dict[str, Any], unit: str
) -> None:
    assert built_case(tmp_path, out, built, **profile).code == 0
    with rasterio.open(out) as cells:
        told = cells.read(1)
    assert built_case(tmp_path, out, built, "--built-unit", unit, **profile).code == 0
    with rasterio.open(out) as cells:
        builders.assert_same_cells(told, cells.read(1))


@pytest.mark.parametrize(
    "built",
    [100 * ROW, 51.1 * ROW, (ROW > 0.5).astype(float), (100 * ROW).astype("uint16"),
     (255 * ROW).astype("uint8")],
    ids=["percent", "up to 51", "zeros and ones", "whole percent", "bytes"],
)  # fmt: skip
def test_units_that_nothing_tells_are_asked_for(
    tmp_path: Path, out: Path, built: np.ndarray
) -> None:
    refused(
        built_case(tmp_path, out, built),
        "built does not tell its unit", "m2, share or percent", "--built-unit", "gdal_edit.py",
    )  # fmt: skip


def test_units_told_wrong_are_found_by_the_values(tmp_path: Path, out: Path) -> None:
    areas = (ROW * 950_000).astype("uint32")
    refused(
        built_case(tmp_path, out, areas, "--built-unit", "share"),
        "built reaches 950000, more than a whole cell (1)", "--built-unit",
    )  # fmt: skip
    too_much = areas.astype("float64")
    too_much[3, 3] = 4294967295
    refused(built_case(tmp_path, out, too_much), "4.29497e+09", "missing value")
    refused(built_case(tmp_path, out, -ROW, "--built-unit", "share"), "built falls to -1")


def test_plain_ghsl_files_need_no_word_on_units(reference: Path, tmp_path: Path) -> None:
    folder = reference / "stress" / "input"
    out = tmp_path / "c.tif"
    outcome = qala(
        "cells", "--population", folder / "POP.tif", "--built", folder / "BUILT_S.tif",
        "--land", folder / "LAND.tif", "-o", out,
    )  # fmt: skip
    assert outcome.code == 0, outcome
    with (
        rasterio.open(out) as cells,
        rasterio.open(reference / "stress" / "expected" / "L1_default.tif") as expected,
    ):
        builders.assert_same_cells(cells.read(1), expected.read(1))
        assert (cells.dtypes, cells.nodata) == (("uint8",), 255)
        with rasterio.open(folder / "POP.tif") as population:
            assert (cells.crs, cells.transform) == (population.crs, population.transform)


# --- files ------------------------------------------------------------------------------------


def test_files_that_are_not_rasters(tmp_path: Path, out: Path) -> None:
    refused(classify(out, tmp_path / "none.tif"), "does not exist", "check the path")
    refused(classify(out, tmp_path), "is a folder")
    (tmp_path / "zero.tif").write_bytes(b"")
    refused(classify(out, tmp_path / "zero.tif"), "is empty (0 bytes)", "fetch it again")
    (tmp_path / "text.tif").write_text("people")
    refused(classify(out, tmp_path / "text.tif"), "cannot be read as a raster")


@pytest.mark.parametrize("part", [0.2, 0.6, 0.95])
def test_truncated_rasters(tmp_path: Path, out: Path, part: float) -> None:
    random = np.random.default_rng(1).gamma(0.5, 500, (600, 700))
    whole = write_tif(tmp_path / "POP.tif", random, compress="DEFLATE", tiled=True,
                      blockxsize=128, blockysize=128).read_bytes()  # fmt: skip
    cut = tmp_path / "cut.tif"
    cut.write_bytes(whole[: int(part * len(whole))])
    refused(classify(out, cut), "cut.tif", "fetch or export it again")
    found = qala("check", cut)
    assert found.code == 2
    assert "NOT sound" in found.out


def test_corrupt_blocks_are_told_with_their_rows(tmp_path: Path, out: Path) -> None:
    random = np.random.default_rng(1).gamma(0.5, 500, (600, 700))
    path = write_tif(tmp_path / "POP.tif", random, compress="DEFLATE")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4_000] = b"\xff" * 4_000
    path.write_bytes(bytes(data))
    refused(classify(out, path), "breaks off in rows", "a complete file")


def test_tiles_of_one_grid_are_joined(tmp_path: Path, out: Path) -> None:
    whole = write_tif(tmp_path / "P.tif", PEOPLE, nodata=-200)
    built = (ROW * 600_000).astype("uint32")
    west, east = (write_tif(tmp_path / f"{n}.tif", PEOPLE[:, s], nodata=-200,
                            origin=(LEFT + x * KM, TOP))
                  for n, s, x in (("w", slice(0, 6), 0), ("e", slice(6, None), 6)))  # fmt: skip
    tiles = [
        write_tif(tmp_path / f"GHS_BUILT_S_{n}.tif", built[r], origin=(LEFT, TOP - y * KM))
        for n, r, y in (("n", slice(0, 5), 0), ("s", slice(5, None), 5))
    ]
    one = write_tif(tmp_path / "B.tif", built)
    assert classify(out, whole, "--built", one, "--level", 2).code == 0
    with rasterio.open(out) as cells:
        expected = cells.read(1)
    outcome = qala(
        "cells", "--population", east, "--population", west, "--built", tiles[0],
        "--built", tiles[1], "--level", 2, "-o", out,
    )  # fmt: skip
    assert outcome.code == 0, outcome
    with rasterio.open(out) as cells:
        builders.assert_same_cells(cells.read(1), expected)


def test_tiles_that_do_not_fit_are_all_told(tmp_path: Path, out: Path) -> None:
    first = write_tif(tmp_path / "a.tif", PEOPLE)
    shifted = write_tif(tmp_path / "b.tif", PEOPLE, origin=(LEFT + 14 * KM, TOP + 300))
    other = write_tif(tmp_path / "c.tif", PEOPLE, crs="EPSG:3035", origin=(LEFT, TOP - 12 * KM))
    kind = write_tif(
        tmp_path / "d.tif", PEOPLE.astype("float32"), nodata=-200, origin=(LEFT - 14 * KM, TOP)
    )
    refused(
        classify(out, first, *(w for t in (shifted, other, kind) for w in ("--population", t))),
        "tiles: 3 problems", "b.tif is not aligned", "c.tif has another CRS", "d.tif is float32",
    )  # fmt: skip
    refused(
        classify(out, first, "--population", first), "a.tif overlaps a.tif", "name each tile once"
    )


# --- places to write to -------------------------------------------------------------------------


@pytest.fixture
def population(tmp_path: Path) -> Path:
    return write_tif(tmp_path / "POP.tif", PEOPLE)


def test_outputs_that_cannot_be(tmp_path: Path, population: Path) -> None:
    below_a_file = population / "cells.tif"
    refused(
        qala("cells", "--population", population, "-o", below_a_file), "is a file, not a folder"
    )
    folder = tmp_path / "folder.tif"
    folder.mkdir()
    refused(qala("cells", "--population", population, "-o", folder), "is a folder")
    before = population.read_bytes()
    refused(
        qala("cells", "--population", population, "-o", population),
        "is read and written by the same command", "choose another name",
    )  # fmt: skip
    assert population.read_bytes() == before
    assert listing(tmp_path) == ["POP.tif"]


#: runs as root once, so that everything is loaded, then as a user without rights
AS_NOBODY = """
import os, sys
from qala.cli import app, main
population, out, *given = sys.argv[1:]
app(["cells", "--population", population, "-o", out], standalone_mode=False)
app(["run", "smoke", "--dry-run"], standalone_mode=False)
os.setgid(65534), os.setuid(65534)
sys.argv = ["qala", *given]
main()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become a user without rights")
def test_folders_without_the_right_to_write(tmp_path: Path, population: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:2]):
        # pytest's own folders; that of the machine above them stays as it is
        folder.chmod(folder.stat().st_mode | 0o055)
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o555)
    for given in (["cells", "--population", population, "-o", locked / "c.tif"],
                  ["cells", "--population", population, "-o", locked / "new" / "c.tif"],
                  ["run", "smoke", "--out", locked / "run"]):  # fmt: skip
        script = [sys.executable, "-c", AS_NOBODY, population, tmp_path / "c.tif", *given]
        done = subprocess.run(
            list(map(str, script)), capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
        )  # fmt: skip
        outcome = Outcome(done.returncode, done.stdout.partition("smoke\n")[2], done.stderr)
        refused(outcome, "locked is not writable", "-o or --out")
    assert listing(locked) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A disk of 96 kB."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", folder],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    if made.returncode:
        pytest.skip(f"no small disk can be mounted here ({made.stderr.strip()})")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("form", ["--cog", "--no-cog"])
def test_a_full_disk_leaves_the_old_file(small_disk: Path, tmp_path: Path, form: str) -> None:
    out = small_disk / "cells.tif"
    out.write_bytes(b"old")
    random = np.random.default_rng(1).choice([0, 60, 400, 2_000], (700, 700)).astype("float32")
    population = write_tif(tmp_path / "P.tif", random)
    outcome = process("cells", "--population", population, "--level", 2, form, "-o", out)
    assert outcome.code == 3, outcome
    assert "could not be written" in outcome.error
    assert "free some space" in outcome.error
    assert out.read_bytes() == b"old"
    assert listing(small_disk) == ["cells.tif"]


def test_a_full_disk_ends_a_run_without_traces(small_disk: Path) -> None:
    outcome = process("run", "smoke", "--set", "outputs.figures=false", "--out", small_disk / "run")
    assert outcome.code == 3, outcome
    assert "free some space" in outcome.error
    # whole steps stay, so that the same command goes on behind them once there is room
    assert all(name.startswith("run/.qala-steps/") for name in listing(small_disk))
    assert not [name for name in listing(small_disk) if ".work-" in name]


def test_a_class_raster_open_elsewhere_is_replaced_whole(population: Path, out: Path) -> None:
    assert classify(out, population).code == 0
    with rasterio.open(out) as reader:
        before = reader.read(1)
        assert classify(out, population, "--level", 2).code == 0
        # the reader keeps the file that it opened
        builders.assert_same_cells(reader.read(1), before)
    with rasterio.open(out) as cells:
        assert 30 in cells.read(1)


# --- units ------------------------------------------------------------------------------------


@pytest.fixture
def job(tmp_path: Path, population: Path) -> list[Any]:
    cells = tmp_path / "cells.tif"
    assert qala("cells", "--population", population, "--level", 2, "-o", cells).code == 0
    return ["units", "--cells", cells, "--population", population, "--id", "unit",
            "-o", tmp_path / "out" / "units.gpkg"]  # fmt: skip


def classify_layer(job: list[Any], layer: gpd.GeoDataFrame | Path, *more: Any) -> Outcome:
    out = Path(job[-1])
    path = layer if isinstance(layer, Path) else out.parents[1] / "layer.gpkg"
    if isinstance(layer, gpd.GeoDataFrame):
        layer.to_file(path, engine="pyogrio")
    outcome = qala(*job, "--units", path, *more)
    if outcome.code:
        assert not out.parent.exists(), listing(out.parent)
    return outcome


def changed(column: str, values: list[Any]) -> gpd.GeoDataFrame:
    return builders.squares().assign(**{column: values})


def shaped(*shapes: Any) -> gpd.GeoDataFrame:
    return builders.squares().set_geometry(list(shapes), crs=builders.GHSL_CRS)


BOW = shapely.Polygon([(LEFT, TOP), (LEFT + 4e3, TOP - 4e3), (LEFT + 4e3, TOP), (LEFT, TOP - 4e3)])
WEST, EAST = builders.squares().geometry


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (shaped(BOW, EAST), ["1 unit has invalid geometry: a (Self-intersection", "--repair"]),
        (shaped(WEST, shapely.affinity.translate(EAST, -3e3)), ["overlap", "a and b (36.0 km²"]),
        (shaped(WEST, None), ["b", "geometry"]),
        (changed("unit", ["a", "a"]), ["1 id stands twice", "dissolve"]),
        (changed("unit", ["a", None]), ["1 of 2 ids in column 'unit' are missing"]),
        (builders.squares().iloc[:0], ["no unit"]),
        (builders.squares().rename(columns={"unit": "code"}), ["no column 'unit'", "code", "--id"]),
        (builders.squares().set_crs(None, allow_override=True), ["no CRS", "--units-crs"]),
        (builders.squares().set_crs(4326, allow_override=True), ["degrees", "--units-crs"]),
        (builders.squares().pipe(lambda u: u.set_geometry(u.translate(5e5))), ["outside"]),
    ],
    ids=["invalid", "overlapping", "null", "twice", "no id", "empty", "column", "no CRS",
         "wrong CRS", "elsewhere"],
)  # fmt: skip
def test_layers_of_units_that_cannot_be_used(
    job: list[Any], layer: gpd.GeoDataFrame, words: list[str]
) -> None:
    refused(classify_layer(job, layer), *words)


def test_all_problems_of_a_layer_are_told_at_once(job: list[Any]) -> None:
    bad = shaped(BOW, EAST).assign(unit=["a", "a"])
    refused(classify_layer(job, bad), "2 problems", "invalid geometry", "stands twice")


def test_units_partly_outside_are_told_with_their_share(job: list[Any]) -> None:
    moved = shaped(WEST, shapely.affinity.translate(EAST, 3_500))
    outcome = classify_layer(job, moved)
    assert outcome.code == 0
    assert "lie partly outside the raster" in outcome.err
    assert "b (50 %)" in outcome.err
    layer = gpd.read_file(job[-1], layer="units").set_index("unit")
    assert layer["population"].sum() <= PEOPLE.sum()
    assert {"degurba_l1", "degurba_l2", "population_30"} <= set(layer.columns)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_truncated_layers(job: list[Any], tmp_path: Path, part: float) -> None:
    whole = tmp_path / "whole.gpkg"
    builders.squares([f"u{k}" for k in range(400)]).to_file(whole, engine="pyogrio")
    cut = tmp_path / "cut.gpkg"
    data = whole.read_bytes()
    cut.write_bytes(data[: int(part * len(data))])
    refused(classify_layer(job, cut), "cut.gpkg", "fetch or export it again")
    found = qala("check", cut)
    assert found.code == 2
    assert "NOT sound" in found.out


def test_files_that_are_no_layers(job: list[Any], tmp_path: Path) -> None:
    text = tmp_path / "text.gpkg"
    text.write_text("unit,population\n")
    refused(classify_layer(job, text), "cannot be read")
    refused(classify_layer(job, tmp_path / "none.gpkg"), "does not exist")


def test_a_geopackage_open_in_another_program_is_not_replaced(
    job: list[Any], tmp_path: Path
) -> None:
    units = tmp_path / "u.gpkg"
    builders.squares().to_file(units, engine="pyogrio")
    out = Path(job[-1])
    assert qala(*job, "--units", units).code == 0
    holder = sqlite3.connect(out)
    try:
        # as QGIS opens its layers
        holder.execute("PRAGMA journal_mode=WAL")
        holder.execute("CREATE TABLE note (text)")
        holder.commit()
        before = listing(out.parent)
        refused(qala(*job, "--units", units), "is open in another program", "close it there")
        assert listing(out.parent) == before
        assert holder.execute("SELECT count(*) FROM units").fetchone() == (2,)
    finally:
        holder.close()
    assert qala(*job, "--units", units).code == 0
    assert gpd.read_file(out, layer="units")["unit"].tolist() == ["a", "b"]


def test_cells_of_another_grid_or_none_at_all(job: list[Any], tmp_path: Path) -> None:
    units = tmp_path / "u.gpkg"
    builders.squares().to_file(units, engine="pyogrio")
    at = job.index("--population") + 1
    other = write_tif(tmp_path / "other.tif", PEOPLE[:8])
    refused(qala(*job[:at], other, *job[at + 1 :], "--units", units), "size", "12×14")
    at = job.index("--cells") + 1
    refused(
        qala(*job[:at], other, *job[at + 1 :], "--units", units), "float64 values", "qala cells"
    )


def test_rates_say_what_is_wrong_with_epochs(population: Path, tmp_path: Path) -> None:
    units = tmp_path / "u.gpkg"
    builders.squares().to_file(units, engine="pyogrio")
    out = tmp_path / "out" / "rates.gpkg"
    common = ["rates", "--units", units, "--id", "unit", "-o", out]
    outcome = qala(*common, "--population", population, "--population", population)
    refused(outcome, "have no epoch", "2020=file.tif")
    outcome = qala(*common, "--population", f"2020={population}", "--official", tmp_path / "no.csv")
    refused(outcome, "no.csv")
    assert not out.parent.exists()
    assert qala(*common, "--population", f"2020={population}").code == 0
    assert set(gpd.read_file(out, layer="rates")["epoch"]) == {2020}


def test_one_raster_of_land_serves_every_epoch(population: Path, tmp_path: Path) -> None:
    units, out = tmp_path / "u.gpkg", tmp_path / "rates.gpkg"
    builders.squares().to_file(units, engine="pyogrio")
    land = write_tif(tmp_path / "L.tif", np.full(PEOPLE.shape, 1e6, "float32"), unit="m2")
    job = ["rates", "--units", units, "--id", "unit", "-o", out, "--population",
           f"2015={population}", "--population", f"2020={population}"]  # fmt: skip
    found = []
    for given in (land, f"2018={land}"):
        outcome = qala(*job, "--land", given)
        assert outcome.code == 0, outcome.err
        found.append(gpd.read_file(out, layer="rates"))
    assert "land of 2018 serves every epoch" in outcome.err
    assert_geodataframe_equal(*found)
    refused(qala(*job, "--land", f"2018={land}", "--land", f"2015={land}"), "no raster for 2020")


# --- workflows -----------------------------------------------------------------------------------


def test_workflows_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    page = tmp_path / "w.yaml"
    page.write_text("workflow: urbanisation\nspeed: 9\ninputs: {population: P.tif}\nbbox: [1, 2]\n")
    out = tmp_path / "out"
    outcome = qala("run", page, "--out", out, "--set", "cells.chunk=-4", "--set", "nonsense")
    refused(
        outcome, "w.yaml: 5 problems", "key 'speed' is unknown", "bbox", "cells.chunk is -4",
        "--set 'nonsense'",
    )  # fmt: skip
    refused(qala("run", "nowhere", "--out", out), "does not exist", "demo")
    page.write_text("workflow: urbanisation\ninputs: {population: P.tif, built: B.tif}\n")
    refused(qala("run", page, "--out", out), "2 problems", "P.tif does not exist", "B.tif")
    assert not out.exists()


def test_a_run_refused_for_its_data_leaves_nothing(tmp_path: Path) -> None:
    write_tif(tmp_path / "P.tif", -PEOPLE)
    page = tmp_path / "w.yaml"
    page.write_text("workflow: urbanisation\ninputs: {population: P.tif}\n")
    out = tmp_path / "deep" / "out"
    refused(qala("run", page, "--out", out), "P.tif", "negative")
    assert not out.parent.exists()


# --- everyday -----------------------------------------------------------------------------------


def test_any_folder_and_any_letters(tmp_path: Path) -> None:
    folder = tmp_path / "Қала мен ауыл (копия)"
    write_tif(folder / "Тұрғындар 2023 ң.tif", PEOPLE)
    builders.squares(["Түркістан", "Сауран"]).to_file(folder / "аудандар ü.gpkg", engine="pyogrio")
    first = process(
        "cells", "--population", "Тұрғындар 2023 ң.tif", "--level", 2, "-o", "шығу/торлар 1.tif",
        cwd=folder,
    )  # fmt: skip
    assert first.code == 0, first
    second = process(
        "units", "--cells", "шығу/торлар 1.tif", "--population", "Тұрғындар 2023 ң.tif",
        "--units", "аудандар ü.gpkg", "--id", "unit", "-o", "шығу/бірлік.gpkg", cwd=folder,
    )  # fmt: skip
    assert second.code == 0, second
    layer = gpd.read_file(folder / "шығу" / "бірлік.gpkg", layer="units")
    assert layer["unit"].tolist() == ["Түркістан", "Сауран"]
    assert listing(folder / "шығу") == ["бірлік.gpkg", "торлар 1.tif"]
    assert qala("check", *sorted(folder.rglob("*.*"))).code == 0


def test_version_loads_nothing_heavy() -> None:
    told = process("--version")
    assert told == Outcome(0, f"qala {package.__version__}\n", "")
    script = (
        "import sys, qala.cli; heavy = {'numpy', 'xarray', 'rasterio', 'numba', 'dask', 'pandas',"
        " 'geopandas', 'pyproj', 'matplotlib', 'pydantic', 'osmnx', 'scipy', 'shapely'};"
        " print(sorted(heavy & set(sys.modules)))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )  # fmt: skip
    assert loaded.stdout.strip() == "[]"


def test_wrong_options_end_with_two() -> None:
    for given in (["cells"], ["cells", "--level", "3"], ["nonsense"], ["run"], ["check"]):
        outcome = qala(*given)
        assert outcome.code == 2, outcome
        assert "Traceback" not in outcome.err


def test_logs_are_lines_of_json_away_from_a_terminal(population: Path, out: Path) -> None:
    built = write_tif(population.parent / "B.tif", (ROW * 900_000).astype("uint32"))
    outcome = classify(out, population, "--built", built)
    lines = [json.loads(line) for line in outcome.err.splitlines()]
    assert {"time", "level", "message"} == set(lines[0])
    assert "taken as m2" in lines[0]["message"]
    assert classify(out, population, "--built", built).code == 0
    quiet = qala("--quiet", "cells", "--population", population, "--built", built, "-o", out)
    assert quiet.err == ""


def test_the_reader_of_the_output_may_leave(population: Path) -> None:
    command = f"{sys.executable} -m qala.cli check {population} {population} | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "error" not in done.stderr


def test_work_files_of_a_killed_job_are_removed_by_the_next(population: Path, out: Path) -> None:
    from qala.raster import _node

    out.parent.mkdir()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = [f".cells.tif.{_node()}-{dead.pid}-0123abcd{end}" for end in (".tif", ".work.tif")]
    alive = f".cells.tif.{_node()}-{os.getpid()}-0123abcd.tif"
    mine = ".cells.tif.notes.tif"
    for name in (*left, alive, mine):
        (out.parent / name).write_bytes(b"x")
    assert classify(out, population).code == 0
    assert listing(out.parent) == sorted([alive, mine, "cells.tif"])
