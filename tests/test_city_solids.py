"""Solids: closed, oriented, planar – for any outline, or a lower level of detail."""

from __future__ import annotations

from dataclasses import replace

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from qala.city.buildings import clean_outlines
from qala.city.solids import (
    DOME,
    GABLED,
    HIPPED,
    PLATE,
    PRISM,
    PYRAMIDAL,
    SKILLION,
    check_solids,
    check_triangles,
    make_solids,
    to_multipolygons,
    triangulate,
    volumes,
)
from qala.errors import InputError

EAST, NORTH = 500_000.0, 4_800_000.0


def table(shapes: list[shapely.Geometry], **columns: object) -> gpd.GeoDataFrame:
    out = gpd.GeoDataFrame(geometry=shapes, crs="EPSG:32642")
    defaults: dict[str, object] = {
        "height": 9.0, "min_height": 0.0, "base_z": 0.0, "roof_shape": "unknown",
        "roof_height": 0.0, "roof_direction": np.nan, "whole": False,
    }  # fmt: skip
    for name, value in {**defaults, **columns}.items():
        out[name] = value
    return out


def box(width: float = 12.0, depth: float = 8.0, turn: float = 0.0) -> shapely.Polygon:
    from shapely import affinity

    shape = shapely.box(EAST, NORTH, EAST + width, NORTH + depth)
    return affinity.rotate(shape, turn)


def test_a_prism_has_the_volume_of_its_outline_times_its_height() -> None:
    hole = shapely.box(EAST + 3, NORTH + 3, EAST + 6, NORTH + 5)
    shape = shapely.difference(box(), hole)
    solids = make_solids(table([shape], min_height=2.0, base_z=100.0))
    volume, roof = volumes(solids)
    assert volume[0] == pytest.approx((96 - 6) * 7)
    assert roof[0] == pytest.approx(90)
    assert solids.vertices[:, 2].min() == 102_000
    assert check_solids(solids).tolist() == [0]
    triangles = triangulate(solids)
    assert check_triangles(solids, triangles).tolist() == [0]


@pytest.mark.parametrize("turn", [0.0, 17.0, 123.4])
@pytest.mark.parametrize(
    ("shape", "kind", "share"),
    [
        ("gabled", GABLED, 1 / 2),
        ("hipped", HIPPED, None),
        ("pyramidal", PYRAMIDAL, 1 / 3),
        ("skillion", SKILLION, 1 / 2),
        ("dome", DOME, None),
    ],
)
def test_roofs_are_closed_and_hold_the_right_volume(
    turn: float, shape: str, kind: int, share: float | None
) -> None:
    solids = make_solids(table([box(turn=turn)], roof_shape=shape, roof_height=3.0))
    assert solids.kinds.tolist() == [kind]
    assert solids.valid_codes.tolist() == [0]
    assert check_solids(solids).tolist() == [0]
    assert check_triangles(solids, triangulate(solids)).tolist() == [0]
    volume, roof = volumes(solids)
    attic = volume[0] - 96 * 6
    if share is None:
        assert 96 * 3 / 3 < attic < 96 * 3
    else:
        assert attic == pytest.approx(96 * 3 * share, rel=1e-3)
    assert roof[0] > 96


def test_ridge_follows_orientation_and_direction() -> None:
    along = make_solids(table([box()], roof_shape="gabled", roof_height=3.0))
    across = make_solids(
        table([box()], roof_shape="gabled", roof_height=3.0, **{"roof:orientation": "across"})
    )
    facing_east = make_solids(
        table([box()], roof_shape="gabled", roof_height=3.0, roof_direction=90.0)
    )

    def ridge(solids: object) -> np.ndarray:
        return np.abs(np.diff(solids.vertices[8:10, :2], axis=0)[0])  # type: ignore[attr-defined]

    assert ridge(along).tolist() == [12_000, 0]
    assert ridge(across).tolist() == [0, 8_000]
    assert ridge(facing_east).tolist() == [0, 8_000]


def test_outlines_that_do_not_suit_a_roof_become_prisms() -> None:
    corners = [(0, 0), (9, 0), (9, 3), (4, 3), (4, 9), (0, 9)]
    bent = shapely.Polygon([(EAST + x, NORTH + y) for x, y in corners])
    solids = make_solids(table([bent, bent], roof_shape=["gabled", "dome"], roof_height=2.0))
    assert solids.kinds.tolist() == [PRISM, PRISM]
    assert solids.lods.tolist() == ["1.2", "1.2"]


def test_whole_buildings_are_plates_and_an_outline_touching_itself_too() -> None:
    corners = [(0, 0), (4, 0), (2, 2), (4, 4), (0, 4), (2, 2)]
    pinched = shapely.Polygon([(EAST + x, NORTH + y) for x, y in corners])
    solids = make_solids(table([box(), pinched], whole=[True, False]))
    assert solids.kinds.tolist() == [PLATE, PLATE]
    assert solids.valid_codes.tolist() == [0, 104]


def test_an_outline_whose_corner_lies_on_its_own_edge_has_no_solid() -> None:
    corners = [(0, 0), (9, 0), (9, 6), (4, 6), (5, 0), (3, 6), (0, 6)]  # (5, 0) on the first edge
    touching = shapely.Polygon([(EAST + x, NORTH + y) for x, y in corners])
    hole = shapely.Polygon([(EAST + 3, NORTH), (EAST + 5, NORTH + 2), (EAST + 1, NORTH + 2)])
    shapes = [touching, shapely.Polygon(box().exterior, [hole.exterior]), box()]
    solids = make_solids(table(shapes))
    assert solids.valid_codes.tolist() == [104, 104, 0]
    assert solids.kinds.tolist() == [PLATE, PLATE, PRISM]


@pytest.mark.parametrize("corners", [30, 90, 700])
def test_outlines_of_many_corners_are_cut_and_closed(corners: int) -> None:
    angle = np.arange(corners) / corners * 2 * np.pi
    radius = np.where(np.arange(corners) % 2, 40.0, 30.0)
    star = shapely.Polygon(
        np.column_stack([EAST + radius * np.cos(angle), NORTH + radius * np.sin(angle)])
    )
    yard = shapely.Point(EAST, NORTH).buffer(5)
    solids = make_solids(table([star, shapely.difference(star, yard)]))
    assert solids.kinds.tolist() == [PRISM, PRISM]
    assert (check_triangles(solids, triangulate(solids)) == 0).all()


def test_the_check_finds_what_is_broken() -> None:
    solids = make_solids(table([box()]))
    turned = solids.indices.copy()
    turned[:4] = turned[:4][::-1]
    assert check_solids(replace(solids, indices=turned)).tolist() == [303]
    gone = solids.surface_offsets.copy()
    gone[-1] -= 1
    assert check_solids(replace(solids, surface_offsets=gone)).tolist() == [302]
    warped = solids.vertices.copy()
    warped[-1, 2] += 500
    assert check_solids(replace(solids, vertices=warped)).tolist() == [203]
    flipped = solids.vertices * np.array([1, 1, -1])
    assert check_solids(replace(solids, vertices=flipped)).tolist() == [405]
    same = solids.vertices.copy()
    same[1] = same[0]
    assert check_solids(replace(solids, vertices=same)).tolist() == [102]


def test_degrees_are_refused() -> None:
    with pytest.raises(InputError, match="projected"):
        make_solids(table([shapely.box(68, 43, 69, 44)]).set_crs(4326, allow_override=True))


def test_multipolygons_carry_every_surface() -> None:
    solids = make_solids(table([box(), box(turn=30)], roof_shape="gabled", roof_height=2.0))
    shapes = shapely.from_wkb(to_multipolygons(solids, 2).to_pylist())
    assert shapely.get_coordinates(shapes[0], include_z=True)[:, 2].max() == 9.0
    assert [shapely.get_num_geometries(s) for s in shapes] == [7, 7]
    assert all(shapely.has_z(s) for s in shapes)


@st.composite
def outlines(draw: st.DrawFn) -> shapely.Geometry:
    """Rings of any kind: star-shaped, crossing, with holes that may touch."""
    count = draw(st.integers(3, 14))
    angles = sorted(draw(st.lists(st.floats(0, 6.28), min_size=count, max_size=count)))
    radii = draw(st.lists(st.floats(0.2, 60), min_size=count, max_size=count))
    if draw(st.booleans()):
        angles = draw(st.permutations(angles))
    xy = [(EAST + r * np.cos(a), NORTH + r * np.sin(a)) for a, r in zip(angles, radii, strict=True)]
    holes = []
    if draw(st.booleans()):
        x, y = draw(st.floats(-20, 20)), draw(st.floats(-20, 20))
        holes = [shapely.box(EAST + x, NORTH + y, EAST + x + 3, NORTH + y + 2).exterior.coords]
    return shapely.Polygon(xy, holes)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(outlines(), min_size=1, max_size=5),
    st.sampled_from(["flat", "gabled", "hipped", "pyramidal", "skillion", "dome"]),
)
def test_whatever_survives_cleaning_is_a_valid_solid_or_says_why(
    shapes: list[shapely.Geometry], roof: str
) -> None:
    drawn = gpd.GeoDataFrame(
        {"id": [f"way/{i}" for i in range(len(shapes))]}, geometry=shapes, crs="EPSG:32642"
    )
    clean, issues = clean_outlines(drawn)
    assert {i[1] for i in issues} | set(clean["id"]) == set(drawn["id"])
    if not len(clean):
        return
    ready = table(list(clean.geometry.explode()), roof_shape=roof, roof_height=2.0)
    solids = make_solids(ready)
    assert (check_solids(solids) == 0).all()
    assert ((solids.kinds >= PRISM) | (solids.valid_codes > 0)).all()
    assert (check_triangles(solids, triangulate(solids)) == 0).all()
    volume, _ = volumes(solids)
    prism = solids.kinds == PRISM
    expected = ready.area.to_numpy()[solids.rows] * 9.0
    assert np.allclose(volume[prism], expected[prism], rtol=1e-4, atol=0.5)
