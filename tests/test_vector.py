"""Unit layers: what is read, refused and repaired."""

from __future__ import annotations

import logging
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import LineString, MultiPolygon, Point, Polygon, box

from qala.errors import InputError
from qala.grid import GHSL_CRS, ghsl_geobox
from qala.vector import check_units, read_units, to_crs_of

KM = 1_000.0


def squares(count: int = 3, **columns: list[object]) -> gpd.GeoDataFrame:
    """Squares of 1 km in a row, 5,000 km east of the origin."""
    shapes = [box(5e6 + k * KM, 0, 5e6 + (k + 1) * KM, KM) for k in range(count)]
    table = {"code": [f"u{k}" for k in range(count)], **columns}
    return gpd.GeoDataFrame(table, geometry=shapes, crs=GHSL_CRS)


def replaced(units: gpd.GeoDataFrame, row: int, shape: object) -> gpd.GeoDataFrame:
    shapes = units.geometry.to_list()
    shapes[row] = shape
    return units.set_geometry(gpd.GeoSeries(shapes, crs=units.crs))


BOWTIE = Polygon([(5e6, 0), (5e6 + KM, KM), (5e6 + KM, 0), (5e6, KM)])


# --- files ------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "shp", "parquet"])
def test_every_format_gives_the_same_units(tmp_path: Path, suffix: str) -> None:
    units = squares().to_crs(4326) if suffix == "geojson" else squares()
    path = tmp_path / f"units.{suffix}"
    if suffix == "parquet":
        units.to_parquet(path)
    else:
        units.to_file(path)
    found = read_units(path, id="code")
    assert found["code"].tolist() == ["u0", "u1", "u2"]
    assert found.crs.equals(units.crs)
    assert np.allclose(found.area, units.area)


def test_a_missing_or_empty_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_units(tmp_path / "none.gpkg", id="code")
    (tmp_path / "none.gpkg").touch()
    with pytest.raises(InputError, match="0 bytes"):
        read_units(tmp_path / "none.gpkg", id="code")
    with pytest.raises(InputError, match="is a folder"):
        read_units(tmp_path, id="code")


@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "shp", "parquet"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"units.{suffix}"
    many = squares(400)
    if suffix == "parquet":
        many.to_parquet(path)
    else:
        (many.to_crs(4326) if suffix == "geojson" else many).to_file(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError):
        read_units(path, id="code")


def test_a_text_file_is_no_layer(tmp_path: Path) -> None:
    path = tmp_path / "notes.gpkg"
    path.write_text("not a layer")
    with pytest.raises(InputError, match="cannot be read as a vector layer"):
        read_units(path, id="code")


def test_layers_are_listed_when_the_name_is_wrong_or_needed(tmp_path: Path) -> None:
    path = tmp_path / "units.gpkg"
    squares().to_file(path, layer="districts")
    squares(2).to_file(path, layer="oblasts")
    with pytest.raises(InputError, match=r"no layer 'towns'.*districts, oblasts"):
        read_units(path, id="code", layer="towns")
    with pytest.raises(InputError, match=r"holds 2 layers.*districts, oblasts"):
        read_units(path, id="code")
    assert len(read_units(path, id="code", layer="oblasts")) == 2


def test_a_declared_crs_wins_and_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "units.gpkg"
    squares().set_crs(3035, allow_override=True).to_file(path)
    with caplog.at_level(logging.WARNING, "qala"):
        found = read_units(path, id="code", crs=GHSL_CRS)
    assert found.crs.equals(squares().crs)
    assert "in place of EPSG:3035" in caplog.text
    with pytest.raises(InputError, match="crs is 'nonsense'"):
        read_units(path, id="code", crs="nonsense")


# --- checks -----------------------------------------------------------------------


def test_sound_units_pass_unchanged() -> None:
    units = squares(name=["A", "B", "C"])
    found = check_units(units, id="code")
    assert found.drop(columns="geometry").equals(units.drop(columns="geometry"))
    assert found.geometry.geom_equals(units.geometry).all()
    assert found.attrs["overlaps"] == 0
    assert found.attrs["repaired_geometries"] == 0


def test_all_problems_are_told_at_once() -> None:
    units = replaced(squares(6), 1, None)
    units = replaced(units, 2, Polygon())
    units = replaced(units, 3, LineString([(5e6, 0), (5e6, 1)]))
    units = replaced(units, 4, BOWTIE)
    units["code"] = ["u0", "u1", "u2", "u3", "u4", "u0"]
    with pytest.raises(InputError) as caught:
        check_units(units, id="code", name="layer")
    text = str(caught.value)
    assert "layer: 5 problems" in text
    assert "1 id stands twice" in text
    assert "no geometry, or one that cannot be read: u1" in text
    assert "empty geometry: u2" in text
    assert "1 unit is LineString: u3" in text
    assert "invalid geometry: u4 (Self-intersection" in text
    assert "--repair" in text


def test_a_missing_id_column_lists_the_columns() -> None:
    with pytest.raises(InputError, match="no column 'id'; expected one of: code, name"):
        check_units(squares(name=["A", "B", "C"]), id="id")


@pytest.mark.parametrize("empty", [None, "", "  ", np.nan])
def test_missing_ids_are_named_by_row(empty: object) -> None:
    with pytest.raises(InputError, match="1 of 3 ids in column 'code' are missing: row 2"):
        check_units(squares(code=["a", empty, "c"]), id="code")


def test_many_ids_are_cut_short() -> None:
    with pytest.raises(InputError, match=r"20 ids stand twice.*u0, u1, u2, u3, u4 and 15 more"):
        check_units(squares(40, code=[f"u{k % 20}" for k in range(40)]), id="code")


def test_an_empty_layer_and_a_missing_crs_are_refused() -> None:
    with pytest.raises(InputError, match="holds no unit"):
        check_units(squares().iloc[:0], id="code")
    bare = gpd.GeoDataFrame({"code": ["a"]}, geometry=[box(0, 0, 1, 1)])
    with pytest.raises(InputError, match=r"no CRS.*--units-crs"):
        check_units(bare, id="code")


def test_points_are_refused() -> None:
    units = gpd.GeoDataFrame({"code": ["a"]}, geometry=[Point(5e6, 0)], crs=GHSL_CRS)
    with pytest.raises(InputError, match="1 unit is Point: a"):
        check_units(units, id="code")


def test_degrees_declared_as_metres_and_the_reverse_are_refused() -> None:
    degrees = squares().to_crs(4326)
    with pytest.raises(InputError, match="which look like degrees"):
        check_units(degrees.set_crs(GHSL_CRS, allow_override=True), id="code")
    with pytest.raises(InputError, match=r"EPSG:4326 \(degrees\) but lies at x 5e\+06"):
        check_units(squares().set_crs(4326, allow_override=True), id="code")
    assert len(check_units(degrees, id="code")) == 3


def test_coordinates_outside_the_projection_are_refused() -> None:
    far = squares().translate(3e7, 3e7)
    with pytest.raises(InputError, match="has no coordinates"):
        check_units(squares().set_geometry(far), id="code")


def test_repair_makes_valid_and_counts(caplog: pytest.LogCaptureFixture) -> None:
    units = replaced(squares(), 0, BOWTIE)
    with caplog.at_level(logging.WARNING, "qala"):
        found = check_units(units, id="code", repair=True)
    assert found.attrs["repaired_geometries"] == 1
    assert "1 invalid geometries made valid" in caplog.text
    assert found.is_valid.all()
    assert found.area.iloc[0] == pytest.approx(KM * KM / 2)


def test_repair_keeps_polygon_parts_only() -> None:
    # a square with a spike, which make_valid turns into a polygon and a line
    spiked = Polygon([(5e6, 0), (5e6, KM), (5e6 + KM, KM), (5e6 + KM, 0), (5e6 - KM, 0)])
    found = check_units(replaced(squares(), 0, spiked), id="code", repair=True)
    assert set(found.geom_type) <= {"Polygon", "MultiPolygon"}
    assert found.area.iloc[0] == pytest.approx(KM * KM)
    line = Polygon([(5e6, 0), (5e6 + KM, 0), (5e6, 0)])
    with pytest.raises(InputError, match="no area left after repair: u0"):
        check_units(replaced(squares(), 0, line), id="code", repair=True)


def test_real_overlaps_are_refused_with_pairs_and_area() -> None:
    units = replaced(squares(), 0, box(5e6, 0, 5e6 + 1.2 * KM, KM))
    with pytest.raises(InputError, match=r"1 pair .* u0 and u1 \(0\.2 km², 20 % of the smaller\)"):
        check_units(units, id="code")
    with pytest.raises(InputError, match="max_overlap is 2"):
        check_units(units, id="code", max_overlap=2)
    assert check_units(units, id="code", max_overlap=0.3).attrs["overlap_km2"] == pytest.approx(0.2)


def test_slivers_are_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    units = replaced(squares(), 0, box(5e6, 0, 5e6 + 1.001 * KM, KM))
    with caplog.at_level(logging.WARNING, "qala"):
        found = check_units(units, id="code")
    assert found.attrs["overlaps"] == 1
    assert found.attrs["overlap_km2"] == pytest.approx(0.001)
    assert "1 slivers" in caplog.text


def test_repair_cuts_a_city_out_of_its_district() -> None:
    district, city = box(5e6, 0, 5e6 + 10 * KM, 10 * KM), box(5e6 + KM, KM, 5e6 + 3 * KM, 3 * KM)
    units = gpd.GeoDataFrame(
        {"code": ["district", "city"]}, geometry=[district, city], crs=GHSL_CRS
    )
    with pytest.raises(InputError, match=r"4.0 km², 100 % of the smaller"):
        check_units(units, id="code")
    found = check_units(units, id="code", repair=True)
    assert found.area.tolist() == pytest.approx([96 * KM**2, 4 * KM**2])
    assert check_units(found, id="code").attrs["overlaps"] == 0


def test_repair_cannot_save_a_unit_drawn_twice() -> None:
    units = replaced(squares(), 1, squares().geometry.iloc[0])
    with pytest.raises(InputError, match="lies wholly under smaller units"):
        check_units(units, id="code", repair=True)


def test_third_dimension_is_dropped() -> None:
    units = replaced(squares(), 0, shapely.force_3d(squares().geometry.iloc[0], 5.0))
    assert not check_units(units, id="code").has_z.any()


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(1, 9), st.integers(1, 9)),
        min_size=2,
        max_size=7,
    )
)
def test_repaired_units_never_overlap_and_keep_their_union(
    drawn: list[tuple[int, int, int, int]],
) -> None:
    shapes = [box(5e6 + x * KM, y * KM, 5e6 + (x + w) * KM, (y + h) * KM) for x, y, w, h in drawn]
    units = gpd.GeoDataFrame({"code": range(len(shapes))}, geometry=shapes, crs=GHSL_CRS)
    try:
        found = check_units(units, id="code", repair=True)
    except InputError as error:
        assert "wholly under smaller units" in str(error)  # noqa: PT017
        return
    assert found.area.sum() == pytest.approx(units.union_all().area)
    assert check_units(found, id="code", max_overlap=0).attrs["overlaps"] == 0


# --- reprojection -----------------------------------------------------------------


def test_long_edges_are_densified_before_reprojection() -> None:
    # ten degrees along a parallel, straight in degrees and in Mollweide alike;
    # its meridians are curves there
    shape = box(60, 40, 70, 50)
    units = gpd.GeoDataFrame({"code": ["a"]}, geometry=[shape], crs=4326)
    moved = to_crs_of(units, ghsl_geobox((5e6, 4e6, 6e6, 6e6)))[0]
    fine = gpd.GeoSeries([shapely.segmentize(shape, 0.001)], crs=4326).to_crs(GHSL_CRS).iloc[0]
    coarse = units.to_crs(GHSL_CRS).geometry.iloc[0]
    assert moved.symmetric_difference(fine).area / fine.area < 1e-6
    assert coarse.symmetric_difference(fine).area / fine.area > 1e-4
    assert shapely.hausdorff_distance(moved.exterior, fine.exterior) < 20
    assert max(shapely.distance(shapely.points(moved.exterior.coords), fine.exterior)) < 1


def test_same_crs_is_left_alone() -> None:
    units = squares()
    assert (to_crs_of(units, ghsl_geobox((0, 0, KM, KM))) == units.geometry.to_numpy()).all()
    with pytest.raises(InputError, match="no CRS"):
        to_crs_of(units.set_crs(None, allow_override=True), ghsl_geobox((0, 0, KM, KM)))


# --- real layers ------------------------------------------------------------------


def test_real_layers(reference: Path, caplog: pytest.LogCaptureFixture) -> None:
    belgium = read_units(reference / "belgium" / "units.gpkg", id="UID")
    assert len(belgium) == 581
    assert belgium.attrs["overlaps"] == 0
    with caplog.at_level(logging.WARNING, "qala"):
        communes = read_units(reference / "belgium" / "commuting" / "communes_2011.gpkg", id="unit")
    assert communes.attrs["overlaps"] == 13
    assert "13 slivers of 0.08 km²" in caplog.text


def test_overlap_of_two_districts_of_turkistan_is_found_and_repaired(reference: Path) -> None:
    path = reference / "kazakhstan" / "turkistan_districts_OSM_ODbL.geojson"
    with pytest.raises(InputError, match=r"1 pair of units overlaps by 71\.1 km² in all: Арысь"):
        read_units(path, id="name")
    found = read_units(path, id="name", repair=True)
    assert found.attrs["overlap_km2"] == pytest.approx(71.11, abs=0.01)
    assert all(isinstance(g, Polygon | MultiPolygon) for g in found.geometry)
    total = found.to_crs(GHSL_CRS).area.sum() / 1e6
    assert total == pytest.approx(116_263, abs=1)
    assert check_units(found, id="name").attrs["overlaps"] == 0
