"""Rasters: missing values, units, strips, sums, and files that appear whole or not at all."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import builders
import dask.array
import numpy as np
import pytest
import rasterio
from builders import KM, LEFT, TOP, listing, raster, write_tif
from hypothesis import given, settings
from hypothesis import strategies as st

from qala import raster as module
from qala.errors import InputError
from qala.grid import GHSL_ORIGIN, geobox_of, ghsl_geobox, grid_differences
from qala.raster import (
    RasterFile,
    _spread,
    aggregate,
    inspect,
    open_raster,
    require_writable,
    strip_rows,
    to_share,
    write_raster,
    write_rasters,
)

DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("chunk", [None, 1, 3])
def test_missing_values_of_every_type_become_nan(
    tmp_path: Path, dtype: str, chunk: int | None
) -> None:
    values = np.arange(35).reshape(5, 7).astype(dtype)
    missing = np.iinfo(dtype).max if dtype[0] in "ui" else -200
    values[2, 3] = missing
    path = write_tif(tmp_path / "a.tif", values, nodata=missing)
    found = open_raster(path, chunk=chunk)
    expected = values.astype(float)
    expected[2, 3] = np.nan
    np.testing.assert_array_equal(found.compute().values, expected)
    assert found.dtype.kind == "f"
    # reading twice gives the same: nothing is changed under the reader's hands
    np.testing.assert_array_equal(found.compute().values, expected)


def test_missing_values_named_by_the_user_win(tmp_path: Path) -> None:
    values = np.arange(6.0).reshape(2, 3)
    path = write_tif(tmp_path / "a.tif", values, nodata=1)
    assert np.isnan(open_raster(path).compute().values).tolist()[0] == [False, True, False]
    named = open_raster(path, nodata=2).compute().values
    assert np.isnan(named).tolist()[0] == [False, False, True]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 5_000), st.integers(1, 5_000), st.integers(1, 600), st.integers(1, 16),
    st.none() | st.integers(1, 6_000),
)  # fmt: skip
def test_strips_are_whole_blocks_within_the_raster(
    width: int, height: int, block: int, itemsize: int, chunk: int | None
) -> None:
    rows = strip_rows(width, height, block, itemsize, chunk=chunk)
    assert 1 <= rows <= height
    if chunk is not None:
        assert rows == min(chunk, height)
    elif rows < height:
        assert rows % block == 0 or rows == block


@given(st.integers(0, 300))
def test_samples_reach_every_block_far_ones_first(count: int) -> None:
    order = list(_spread(count))
    assert sorted(order) == list(range(count))
    if count > 8:
        assert np.ptp(order[:4]) > count / 3


def test_units_are_told_from_few_blocks_of_a_large_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.zeros((1024, 1024), np.uint32)
    values[500:] = 640_000
    path = write_tif(
        tmp_path / "L.tif", values, tiled=True, blockxsize=128, blockysize=128, compress="DEFLATE"
    )
    seen = []
    read = rasterio.DatasetReader.read
    monkeypatch.setattr(
        rasterio.DatasetReader, "read", lambda *a, **k: seen.append(k["window"]) or read(*a, **k)
    )
    assert open_raster(path, "land").attrs["units"] == "m2"
    assert 1 <= len(seen) < 8
    seen.clear()
    # a name or a tag tells without a look at the values
    for name, tag in (("GHS_LAND_E2018.tif", None), ("x.tif", "m2")):
        named = write_tif(tmp_path / name, values, unit=tag)
        assert open_raster(named, "land").attrs["units"] == "m2"
    assert open_raster(path, "land", unit="percent").attrs["units"] == "percent"
    assert seen == []
    # nothing but zeros in what is looked at: not told
    monkeypatch.setattr(module, "SAMPLE_CELLS", 128 * 128)
    blank = write_tif(tmp_path / "Z.tif", values * 0, tiled=True, blockxsize=128, blockysize=128)
    assert "units" not in open_raster(blank, "land").attrs
    assert len(seen) == 1


def test_units_of_tiles_come_from_the_tiles(tmp_path: Path) -> None:
    values = np.full((4, 4), 90, np.uint32)
    tiles = [
        write_tif(tmp_path / f"GHS_BUILT_S_{k}.tif", values, origin=(LEFT + 4 * k * KM, TOP))
        for k in range(2)
    ]
    found = open_raster(tiles, "built")
    assert found.attrs["units"] == "m2"
    assert found.shape == (4, 8)
    assert to_share(found) == 1e-6


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 11), st.integers(0, 2**31))
def test_sums_of_blocks(height: int, width: int, factor: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    values = random.integers(0, 50, (height, width)).astype(float)
    values[random.random(values.shape) < 0.2] = np.nan
    lazy = raster(values).copy(data=dask.array.from_array(values, chunks=(7, 5)))
    found = aggregate(lazy, factor).compute()
    box = geobox_of(found)
    assert box.transform.a == KM * factor
    # on GHSL's lattice of larger cells
    for corner, origin in zip((box.transform.c, box.transform.f), GHSL_ORIGIN, strict=True):
        assert (corner - origin) % (KM * factor) == 0
    top, left = round((box.transform.f - TOP) / KM), round((LEFT - box.transform.c) / KM)
    assert 0 <= top < factor
    assert 0 <= left < factor
    for r in range(found.shape[0]):
        for c in range(found.shape[1]):
            rows = slice(max(0, r * factor - top), (r + 1) * factor - top)
            cols = slice(max(0, c * factor - left), (c + 1) * factor - left)
            part = values[rows, cols]
            expected = np.nan if np.isnan(part).all() else np.nansum(part)
            np.testing.assert_equal(found.values[r, c], expected)
    assert np.nansum(found.values) == np.nansum(values)


def test_shares_are_averaged_where_areas_are_summed() -> None:
    # on the lattice of 5 km, whose cells begin beside this grid
    areas = raster(np.full((4, 4), 250_000.0), "built", "m2")
    for unit, value in (("share", 0.25), ("percent", 25.0)):
        part = aggregate(raster(np.full((4, 4), value), "built", unit), 5)
        whole = aggregate(areas, 5)
        np.testing.assert_allclose(part.values * to_share(part), whole.values * to_share(whole))
        assert part.attrs["units"] == unit


def test_a_real_tile_of_100_m_keeps_its_people(reference: Path) -> None:
    fine = open_raster(reference / "belgium/ghsl/westflanders_pop_100m.tif")
    coarse = aggregate(fine, 10)
    np.testing.assert_allclose(float(coarse.sum()), float(fine.sum(dtype="float64")), rtol=1e-12)
    # the clip begins amid a cell of 1 km, and still fits GHSL's products of 1 km
    assert geobox_of(fine).transform.c % 1_000 == 500
    assert grid_differences(geobox_of(coarse), ghsl_geobox(geobox_of(fine).boundingbox.bbox)) == []


# --- writing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32", "float64"])
@pytest.mark.parametrize("cloud_optimised", [True, False])
@pytest.mark.parametrize("chunks", [None, (9, 50), (40, 13)])
def test_what_is_written_is_read_back(
    tmp_path: Path, dtype: str, cloud_optimised: bool, chunks: Any
) -> None:
    values = np.random.default_rng(2).integers(0, 200, (60, 50)).astype(dtype)
    array = raster(values, "cells", "class")
    if chunks:
        array = array.copy(data=dask.array.from_array(values, chunks=chunks))
    steps = []
    path = write_raster(
        array, tmp_path / "new" / "a.tif", tags={"TITLE": "Қала"}, cloud_optimised=cloud_optimised,
        progress=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    with rasterio.open(path) as source:
        np.testing.assert_array_equal(source.read(1), values)
        assert source.dtypes == (dtype,)
        assert source.tags()["TITLE"] == "Қала"
        assert source.units == ("class",)
        layout = source.tags(ns="IMAGE_STRUCTURE").get("LAYOUT")
        assert (layout == "COG") is cloud_optimised
    assert geobox_of(open_raster(path)) == geobox_of(array)
    assert inspect(path).nodata is not None
    assert listing(tmp_path) == ["new/a.tif"]
    if chunks:
        assert steps[-1] == (len(steps), len(steps))


def test_files_written_together_appear_together(tmp_path: Path) -> None:
    good = raster(np.zeros((30, 20)), "a")

    def fail(block: np.ndarray) -> np.ndarray:
        raise InputError("a bad strip", "a good one", "mend it")

    lazy = dask.array.zeros((30, 20), chunks=10).map_blocks(fail, meta=np.zeros((0, 0)))
    (tmp_path / "a.tif").write_bytes(b"old")
    files = [RasterFile(good, tmp_path / "a.tif"),
             RasterFile(good.copy(data=lazy), tmp_path / "deep" / "b.tif")]  # fmt: skip
    with pytest.raises(InputError, match="a bad strip"):
        write_rasters(files)
    assert listing(tmp_path) == ["a.tif"]
    assert (tmp_path / "a.tif").read_bytes() == b"old"
    assert not (tmp_path / "deep").exists()


def test_a_file_that_came_out_short_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = module._to_cog

    def short(work: Path, final: Path, **keywords: Any) -> None:
        make(work, final, **keywords)
        data = final.read_bytes()
        final.write_bytes(data[: len(data) // 2])

    monkeypatch.setattr(module, "_to_cog", short)
    values = np.random.default_rng(2).random((700, 700))
    with pytest.raises(InputError, match="could not be written"):
        write_raster(raster(values), tmp_path / "a.tif")
    assert listing(tmp_path) == []


def test_many_may_read_one_raster_at_a_time(tmp_path: Path) -> None:
    values = np.random.default_rng(2).random((300, 40))
    found = open_raster(write_tif(tmp_path / "a.tif", values, compress="LZW"), chunk=7)
    results: list[bool] = []

    def read() -> None:
        results.append(bool((found.compute().values == values).all()))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 4


def test_looking_for_a_place_makes_nothing(tmp_path: Path) -> None:
    require_writable(tmp_path / "a" / "b" / "c.tif", make=False)
    assert listing(tmp_path) == []
    assert not (tmp_path / "a").exists()
    require_writable(tmp_path / "a" / "b" / "c.tif")
    assert (tmp_path / "a" / "b").is_dir()


def test_cells_must_be_classes(tmp_path: Path) -> None:
    path = write_tif(tmp_path / "a.tif", builders.town())
    with pytest.raises(InputError, match=r"float64 values.*qala cells"):
        open_raster(path, "cells")
    with pytest.raises(InputError, match="no raster was named"):
        open_raster([])
    with pytest.raises(InputError, match="chunk is 0"):
        open_raster(path, chunk=0)
    with pytest.raises(InputError, match="factor is 0"):
        aggregate(open_raster(path), 0)
