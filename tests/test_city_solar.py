"""Roofs: area by side, and the sun's energy as an upper bound."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import shapely

from qala.city.solar import SIDES, clear_sky_energy, roof_faces, roof_potential
from qala.city.solids import make_solids
from qala.errors import InputError

pytest.importorskip("pvlib")
PLACE = (68.25, 43.3)


def houses() -> gpd.GeoDataFrame:
    boxes = [shapely.box(500_000 + 40 * i, 4_800_000, 500_012 + 40 * i, 4_800_008) for i in (0, 1)]
    return gpd.GeoDataFrame(
        {"height": 9.0, "min_height": 0.0, "base_z": 0.0, "roof_shape": ["gabled", "flat"],
         "roof_height": [4.0, 0.0], "roof_direction": np.nan, "whole": False},
        geometry=boxes, crs="EPSG:32642",
    )  # fmt: skip


def test_a_gabled_roof_faces_two_sides() -> None:
    solids = make_solids(houses())
    faces = roof_faces(solids)
    faces = faces[faces[:, 0] > 0]
    assert sorted(np.round(faces[:, 1]).tolist()) == [0, 45, 45]
    roofs = roof_potential(solids, 2, *PLACE)
    side = 12 * np.hypot(4, 4)
    by_name = dict(zip(SIDES, roofs.area[0], strict=True))
    assert by_name == pytest.approx({"flat": 0, "north": side, "east": 0, "south": side, "west": 0})
    assert roofs.area[1].tolist() == [96, 0, 0, 0, 0]
    assert roofs.energy.min() > 0


def test_the_south_gets_more_sun_than_the_north_and_clouds_take_their_share() -> None:
    south, north = (clear_sky_energy(*PLACE, 40.0, a) for a in (180.0, 0.0))
    level = clear_sky_energy(*PLACE, 0.0, 180.0)
    assert south > level > north > 0
    # a clear year at 43° N brings about 1,800 kWh/m² to level ground
    assert 1_600 < level < 2_100
    solids = make_solids(houses())
    full = roof_potential(solids, 2, *PLACE).energy
    half = roof_potential(solids, 2, *PLACE, clear_sky_index=0.5).energy
    assert half == pytest.approx(full / 2)
    with pytest.raises(InputError, match="clear-sky index"):
        roof_potential(solids, 2, *PLACE, clear_sky_index=1.4)
