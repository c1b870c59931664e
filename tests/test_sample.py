"""The sample region: consistent, marked as synthetic, and made again by its script."""

from __future__ import annotations

import importlib.util
import sys

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from scipy import ndimage

from qala.grid import GHSL_ORIGIN, geobox_of
from qala.raster import open_raster
from qala.resources import resource
from qala.units import coverage

SAMPLE = resource("sample")
RASTERS = sorted(SAMPLE.glob("*.tif"))
EPOCHS = (2023, 2026)


def _raster(name):
    quantity = {"POP": "population", "BUI": "built", "LAN": "land"}[name[:3]]
    return open_raster(SAMPLE / f"GHS_{name}_SYNTHETIC_54009_1000.tif", quantity).load()


def _units():
    return gpd.read_file(SAMPLE / "units.gpkg", layer="units")


def _table(name):
    return pd.read_csv(SAMPLE / name)


def test_it_is_small():
    assert sum(f.stat().st_size for f in SAMPLE.iterdir() if f.is_file()) < 4 * 2**20


@pytest.mark.parametrize("path", RASTERS, ids=lambda p: p.name)
def test_rasters_lie_on_ghsls_grid_and_say_that_they_are_modelled(path):
    with rasterio.open(path) as source:
        assert source.tags()["SYNTHETIC"] == "yes"
        assert "SYNTHETIC" in path.name
        assert {"seed", "source", "licence", "units"} <= set(source.tags())
        assert "OpenStreetMap" in source.tags()["source"]
        assert source.crs.to_string() == "ESRI:54009" or "Mollweide" in source.crs.to_wkt()
        t = source.transform
        assert (t.a, t.e) == (1000.0, -1000.0)
        assert (t.c - GHSL_ORIGIN[0]) % 1000 == 0
        assert (t.f - GHSL_ORIGIN[1]) % 1000 == 0
        area = "POP" not in path.name
        assert source.dtypes[0] == ("uint32" if area else "float32")
        assert source.nodata == (4294967295 if area else -200)


@pytest.mark.parametrize("epoch", EPOCHS)
def test_units_hold_their_published_totals(epoch):
    population = _raster(f"POP_E{epoch}")
    units = _units()
    found = coverage(units, geobox_of(population), id="unit").matrix @ np.nan_to_num(
        population.values.astype("float64")
    ).reshape(-1)
    official = _table("official.csv").query("epoch == @epoch").set_index("unit").population
    got = pd.Series(found, index=units.unit)
    np.testing.assert_allclose(got[official.index], official, rtol=1e-6)
    assert len(official) == (18 if epoch == 2023 else 17)
    # BNS gives no figure of 2026 for Shymkent
    assert ("kz.79" in official.index) == (epoch == 2023)


def test_units_are_the_17_and_shymkent_without_overlaps():
    units = _units()
    assert len(units) == 18
    assert units.unit.is_unique
    assert units.is_valid.all()
    assert shapely.coverage_is_valid(units.geometry.to_numpy())
    # 116,263 km² of the region and 1,165 km² of Shymkent, before they were generalised
    assert units.area.sum() / 1e6 == pytest.approx(117_428, rel=1e-3)
    for column in ("name_kk", "name_ru", "name_en", "kind"):
        assert units[column].str.len().min() > 0


def test_settlements_add_up_and_say_where_each_figure_comes_from():
    places = _table("settlements.csv")
    official = _table("official.csv").set_index(["epoch", "unit"]).population
    sums = places.groupby(["epoch", "unit"]).population.sum()
    assert (sums[2023] == official[2023]).all()
    np.testing.assert_allclose(sums[2026][official[2026].index], official[2026], rtol=1e-4)
    assert not places.duplicated(["epoch", "id"]).any()
    assert places.source.notna().all()
    assert (places.population > 0).all()
    assert set(places.modelled) == {"yes", "no"}
    assert places.source[places.modelled == "yes"].str.startswith("modelled").all()
    assert not places.source[places.modelled == "no"].str.startswith("modelled").any()
    first = places[places.epoch == 2023].set_index("name_kk")
    assert first.population["Түркістан"] == 220_133
    assert first.population["Кентау"] == 74_464


@pytest.mark.parametrize("epoch", EPOCHS)
def test_nobody_stands_on_water_and_no_cell_is_built_beyond_its_land(epoch):
    population, built = _raster(f"POP_E{epoch}"), _raster(f"BUILT_S_E{epoch}")
    land = _raster("LAND_E2018")
    water = land.values == 0
    assert water.sum() > 200
    assert population.values[water].sum() == 0
    assert (built.values <= land.values)[np.isfinite(built.values)].all()
    for raster in (built, land):
        np.testing.assert_array_equal(np.isnan(raster), np.isnan(population))


def test_the_known_centres_come_out():
    population = _raster("POP_E2023")
    labels, count = ndimage.label(population.values >= 1500)
    people = ndimage.sum(population.values, labels, np.arange(1, count + 1))
    places = _table("settlements.csv").query("epoch == 2023 and place in ['city', 'town']")
    points = gpd.GeoSeries(
        gpd.points_from_xy(places.lon, places.lat), index=places.name_en, crs=4326
    ).to_crs("ESRI:54009")
    cell = ~geobox_of(population).transform
    at = {
        name: labels[int(cell.e * p.y + cell.f), int(cell.a * p.x + cell.c)]
        for name, p in points.items()
    }
    big = {name for name, k in at.items() if k and people[k - 1] >= 50_000}
    assert big == {"Shymkent", "Turkistan", "Kentau"}
    # GHS-UCDB R2019A: Turkistan stands on 42 km²
    assert 35 <= (labels == at["Turkistan"]).sum() <= 50


def test_turkistan_grows_inside_and_at_its_edge():
    before, after = _raster("BUILT_S_E2023"), _raster("BUILT_S_E2026")
    assert not (after < before).any()
    quarter = _table("settlements.csv").set_index("id").loc["model.turkistan-new-quarter"]
    spot = gpd.GeoSeries(gpd.points_from_xy([quarter.lon], [quarter.lat]), crs=4326)
    spot = spot.to_crs("ESRI:54009")
    gain = after.sel(x=spot.x[0], y=spot.y[0], method="nearest") - before.sel(
        x=spot.x[0], y=spot.y[0], method="nearest"
    )
    assert float(gain) > 50_000


def test_the_script_makes_the_same_files_again(reference, tmp_path, monkeypatch):
    # no __pycache__ in a folder that goes into the wheel
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path = SAMPLE / "make_sample.py"
    spec = importlib.util.spec_from_file_location("make_sample", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    module.main(["--data", str(reference), "--out", str(tmp_path)])
    for name in ("settlements.csv", "official.csv"):
        assert (tmp_path / name).read_bytes() == (SAMPLE / name).read_bytes()
    again = gpd.read_file(tmp_path / "units.gpkg")
    assert again.drop(columns="geometry").equals(_units().drop(columns="geometry"))
    assert shapely.equals_exact(again.geometry, _units().geometry, 1.0).all()
    assert len(RASTERS) == 5
    for old in RASTERS:
        with rasterio.open(old) as a, rasterio.open(tmp_path / old.name) as b:
            assert a.profile["transform"] == b.profile["transform"]
            # another version of a library may round the last digit otherwise
            np.testing.assert_allclose(a.read(1), b.read(1), rtol=1e-5, atol=1e-3)


def test_amenities_are_made_again_and_say_that_they_are_modelled(tmp_path):
    import subprocess

    from qala.amenities import read_amenities

    script = SAMPLE / "make_amenities.py"
    if not script.exists():
        pytest.skip("the scripts of the sample are not packaged")
    out = tmp_path / "a.osm.pbf"
    subprocess.run([sys.executable, str(script), "--out", str(out)], check=True, timeout=120)
    kept = SAMPLE / "amenities_SYNTHETIC.osm.pbf"
    found, again = read_amenities(kept), read_amenities(out)
    assert len(found.stops) > 1000
    assert found.stops["high"].sum() >= 5
    assert all(len(layer) for layer in found.services.values())
    assert found.ways.geometry.geom_equals(again.ways.geometry).all()
    assert found.stops.geometry.geom_equals(again.stops.geometry).all()
    import osmium

    unmarked = [
        thing.id
        for thing in osmium.FileProcessor(str(kept))
        if len(thing.tags) and thing.tags.get("synthetic") != "yes"
    ]
    assert unmarked == []
