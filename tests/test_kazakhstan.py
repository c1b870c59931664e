"""Kazakhstan's sources: ids match, totals hold, what is modelled is counted."""

from __future__ import annotations

import logging

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely

from qala.errors import InputError
from qala.kazakhstan import cut_exclaves, populate, prepare_regions, prepare_turkistan


@pytest.fixture(scope="module")
def turkistan(reference):
    return prepare_turkistan(reference / "kazakhstan")


def test_an_exclave_is_cut_out_of_the_unit_around_it():
    whole, inner = shapely.box(0, 0, 10, 10), shapely.box(4, 4, 6, 6)
    units = gpd.GeoDataFrame(
        {"unit": ["around", "exclave"]},
        geometry=[whole, shapely.MultiPolygon([inner, shapely.box(20, 0, 30, 10)])],
        crs="ESRI:54009",
    )
    out = cut_exclaves(units)
    assert out.area.tolist() == [96, 104]
    assert out.geometry[1].equals(units.geometry[1])


def test_units_tile_the_region(turkistan):
    units = turkistan.units
    assert len(units) == 18
    assert shapely.coverage_is_valid(units.geometry.to_numpy())
    area = units.set_index("unit").area / 1e6
    # the 71 km² drawn twice belong to Arys, whose own part they are, not to Baidibek around them
    assert area["kz.61.16"] == pytest.approx(6483.7, abs=0.5)
    assert area["kz.61.36"] == pytest.approx(7220.2 - 71.1, abs=0.5)


def test_the_official_table_is_the_published_one(turkistan):
    first = turkistan.official.query("epoch == 2023").set_index("unit")
    region = first.drop("kz.79")
    assert (region.population.sum(), region.urban.sum()) == (2_119_063, 519_154)
    assert first.population["kz.79"] == 1_191_877
    assert (first.urban + first.rural == first.population).all()
    second = turkistan.official.query("epoch == 2026")
    # the 17 units sum to BNS's own total of the region
    assert second.population.sum() == 2_149_205
    assert second.urban.isna().all()


def test_places_add_up_to_their_units(turkistan):
    places = turkistan.places
    sums = places.groupby("unit").population.sum()
    official = turkistan.official.query("epoch == 2023").set_index("unit").population
    assert (sums == official).all()
    assert len(places) > 900
    published = places[places.modelled == "no"].population.sum()
    assert published == 2_273_542


def test_a_seed_draws_villages_of_the_same_sum(reference, turkistan):
    drawn = prepare_turkistan(reference / "kazakhstan", seed=1).places
    known = turkistan.places.set_index("id")
    both = drawn.set_index("id").join(known.population.rename("median"))
    given = both.modelled == "no"
    assert (both.population[given] == both["median"][given]).all()
    assert (both.population[~given] != both["median"][~given]).mean() > 0.9
    pd.testing.assert_series_equal(
        drawn.groupby("unit").population.sum(), turkistan.places.groupby("unit").population.sum()
    )


def test_the_grid_holds_every_unit_and_tells_what_is_modelled(turkistan, caplog):
    with caplog.at_level(logging.INFO, logger="qala"):
        done = populate(turkistan)
    assert "2273542 people of 299 settlements with a published figure" in caplog.text
    assert not len(done.unmet)
    np.testing.assert_allclose(done.units.after, done.units.total, rtol=1e-9)
    attrs = done.population.attrs
    assert attrs["people_published"] + attrs["people_modelled"] == 3_310_940
    # all but a few of those on cells that the outer border cuts
    assert float(done.population.sum()) == pytest.approx(3_310_940, rel=1e-3)
    assert np.nanmedian(done.factors) == pytest.approx(1, abs=0.1)


def test_regions_match_by_table(reference):
    units, official = prepare_regions(reference / "kazakhstan")
    assert len(units) == 20
    assert official.population.sum() == 19_765_004
    assert official.urban.sum() == 12_208_259
    assert set(official.unit) == set(units.unit)


def test_missing_files_are_named_at_once(tmp_path):
    with pytest.raises(InputError) as caught:
        prepare_turkistan(tmp_path)
    assert str(caught.value).count("is missing") == 5
