"""From an extract to the twin: exports that agree, history, index."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from gltf import gltf_faults

from qala.city import kept
from qala.city import open as open_twin
from qala.city.check import check_cityjson, check_twin, read_glb
from qala.city.history import Earlier, compare, read_objects
from qala.city.index import write_index
from qala.city.model import Twin
from qala.city.solids import make_solids
from qala.city.twin import build_twin, city_flow, summary, write_gpkg
from qala.errors import InputError
from qala.export import geopackage
from qala.export.cityjson import Vertices, write_cityjson
from qala.export.tiles3d import tiles_from_gpkg, write_tiles

BOX = (7.415, 43.728, 7.425, 43.735)


@pytest.fixture(scope="session")
def extract(reference: Path) -> Path:
    return reference / "osm" / "monaco_2021.osm.pbf"


@pytest.fixture(scope="session")
def twin(extract: Path) -> Twin:
    return build_twin(extract, date="2026-01-01", name="Monaco")


@pytest.fixture(scope="session")
def folder(extract: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("twin") / "monaco"
    (out / ".table-killed").mkdir(parents=True)
    (out / ".table-killed" / "buildings.arrow").touch()
    city_flow(extract, out, date="2026-01-01", name="Monaco")
    return out


def test_the_whole_twin_passes_its_check(folder: Path, twin: Twin) -> None:
    found = check_twin(folder)
    assert found["objects"] == len(twin.buildings)
    assert not [f.name for f in folder.iterdir() if f.name.startswith(".")]
    assert found["solids"] == 1216  # two of 1,218 lie underground
    assert found["lods"]["2.0"] >= 4


def test_the_geopackage_is_1_3_with_a_style_and_the_columns(folder: Path) -> None:
    db = sqlite3.connect(folder / "city.gpkg")
    assert db.execute("PRAGMA user_version").fetchone()[0] == 10300
    style = db.execute(
        "SELECT styleQML, f_geometry_column FROM layer_styles WHERE f_table_name='buildings'"
        " AND useAsDefault"
    ).fetchone()
    db.close()
    assert "renderer-3d" in style[0]
    assert style[1] == "geom"
    table = gpd.read_file(folder / "city.gpkg", layer="buildings")
    for column in ("id", "parent", "height", "height_source", "height_lo", "height_hi", "base_z",
                   "roof_shape", "lod", "valid_code", "valid_from", "valid_to", "floor_area",
                   "people"):  # fmt: skip
        assert column in table
    assert table.crs.to_epsg() == 32632
    assert set(table.geom_type) == {"MultiPolygon"}
    assert shapely.has_z(table.geometry.to_numpy()).all()
    assert table["height_source"].isin(["tag", "levels", "ghsl", "neighbour", "type"]).all()
    plan = gpd.read_file(folder / "city.gpkg", layer="footprints")
    assert plan.is_valid.all()
    assert plan["id"].tolist() == table["id"].tolist()
    issues = gpd.read_file(folder / "city.gpkg", layer="issues")
    assert {"layer", "id", "action", "reason"} <= set(issues.columns)


def test_a_box_keeps_each_building_once(extract: Path) -> None:
    west, south, east, north = BOX
    middle = (west + east) / 2
    left = build_twin(extract, bbox=(west, south, middle, north))
    right = build_twin(extract, bbox=(middle, south, east, north))
    both = build_twin(extract, bbox=BOX)
    a, b = (set(t.buildings["id"].str.split("#").str[0]) for t in (left, right))
    assert not a & b
    assert a | b == set(both.buildings["id"].str.split("#").str[0])
    inside = both.layers["streets"].to_crs(4326).total_bounds
    assert inside[0] >= west - 1e-6
    assert inside[2] <= east + 1e-6


def test_an_area_file_and_an_empty_area(extract: Path, tmp_path: Path) -> None:
    file = tmp_path / "area.gpkg"
    gpd.GeoDataFrame(geometry=[shapely.box(*BOX)], crs=4326).to_file(file, layer="here")
    assert len(build_twin(extract, area=f"{file}:here").buildings) == len(
        build_twin(extract, bbox=BOX).buildings
    )
    with pytest.raises(InputError, match="no building in the area"):
        build_twin(extract, bbox=(68.0, 43.0, 68.1, 43.1))
    with pytest.raises(InputError, match="W,S,E,N"):
        build_twin(extract, bbox=(8.0, 43.0, 7.0, 44.0))


def test_summary_adds_up(twin: Twin) -> None:
    table = summary(twin).set_index("measure")["value"]
    assert table["buildings"] + table["building_parts"] == len(twin.buildings)
    shares = table[[i for i in table.index if i.startswith("height_from_")]]
    assert shares.sum() == pytest.approx(1)
    assert table["floor_area"] == pytest.approx(twin.buildings["floor_area"].sum())


# --- CityJSON -----------------------------------------------------------------------


CASES = [
    ("invalid_missing_type", "json", 'no "type"'),
    ("invalid_out_of_range_vertex_index", "json", "vertex index 99 of 3 vertices"),
    ("invalid_u64_f64_bounds", "json", "18446744073709551616"),
    ("invalid_cityjsonfeature_root_id_unresolved", "city.jsonl", "missing-main-object"),
]


@pytest.mark.parametrize(("case", "suffix", "reason"), CASES)
def test_invalid_files_are_refused_for_the_right_reason(
    reference: Path, case: str, suffix: str, reason: str
) -> None:
    with pytest.raises(InputError) as caught:
        check_cityjson(reference / "cityjson" / "invalid" / case / f"{case}.{suffix}")
    assert reason in str(caught.value)


def test_a_published_model_is_accepted(reference: Path) -> None:
    found = check_cityjson(reference / "cityjson" / "delft.city.json")
    assert found["objects"] == 570
    # its solids have no ground surface: told, not refused
    assert found["geometry_warnings"] == {302: 160}


CUBE = {
    "type": "CityJSON", "version": "2.0",
    "transform": {"scale": [0.001] * 3, "translate": [0, 0, 0]},
    "CityObjects": {"a": {"type": "Building", "geometry": [{
        "type": "Solid", "lod": "1.2",
        "boundaries": [[[[3, 2, 1, 0]], [[4, 5, 6, 7]], [[0, 1, 5, 4]], [[1, 2, 6, 5]],
                        [[2, 3, 7, 6]], [[3, 0, 4, 7]]]],
    }]}},
    "vertices": [[0, 0, 0], [9000, 0, 0], [9000, 9000, 0], [0, 9000, 0], [0, 0, 5000],
                 [9000, 0, 5000], [9000, 9000, 5000], [0, 9000, 5000]],
}  # fmt: skip


def _reversed(document: dict[str, Any]) -> None:
    shell = document["CityObjects"]["a"]["geometry"][0]["boundaries"][0]
    shell[:] = [[ring[::-1] for ring in surface] for surface in shell]


def _shell(document: dict[str, Any]) -> list[Any]:
    return document["CityObjects"]["a"]["geometry"][0]["boundaries"][0]


SPOILT: dict[str, tuple[Any, str]] = {
    "inside out": (_reversed, "code 405"),
    "one surface reversed": (lambda d: _shell(d)[1][0].reverse(), "code 303"),
    "open": (lambda d: _shell(d).pop(), "code 302"),
    "two corners": (lambda d: _shell(d)[0].__setitem__(0, [0, 1]), "code 101"),
    "index below 0": (lambda d: _shell(d)[0][0].__setitem__(0, -1), "less than the minimum"),
    "dangling parent": (
        lambda d: d["CityObjects"].update(b={"type": "BuildingPart", "parents": ["no"]}),
        "parent 'no' is not in the file",
    ),
    "no parent": (lambda d: d["CityObjects"].update(b={"type": "BuildingPart"}), '"parents"'),
    "its own parent": (lambda d: d["CityObjects"]["a"].update(parents=["a"]), "its own parent"),
    "version 1.0": (lambda d: d.update(version="1.0"), "it is CityJSON 1.0"),
    "version 1.1": (lambda d: d.update(version="1.1"), "it is CityJSON 1.1"),
    "no transform": (lambda d: d.pop("transform"), '"transform" is a required'),
    "scale 0": (lambda d: d["transform"].update(scale=[0, 1, 1]), "scale not 0"),
    "fractions": (lambda d: d["vertices"][0].__setitem__(0, 0.5), "not of type"),
    "lod number": (lambda d: d["CityObjects"]["a"]["geometry"][0].update(lod=1.2), "lod"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_every_way_to_spoil_a_model_is_told(case: str, tmp_path: Path) -> None:
    file = tmp_path / "cube.city.json"
    file.write_text(json.dumps(CUBE))
    assert check_cityjson(file)["geometry_warnings"] == {}
    spoil, reason = SPOILT[case]
    document = json.loads(json.dumps(CUBE))
    spoil(document)
    file.write_text(json.dumps(document))
    with pytest.raises(InputError) as caught:
        check_cityjson(file)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"a": {', '"a": {"type": "Building"}, "a": {', "key 'a' stands twice"),
        ("[0, 0, 0], [9000", "[NaN, 0, 0], [9000", "NaN is no number of JSON"),
        ("{", "hello {", "it is not JSON"),
        ("[0, 0, 0], [9000", "[1e999, 0, 0], [9000", "vertices/0/0"),
    ],
)
def test_texts_that_are_no_model_are_told(tmp_path: Path, old: str, new: str, reason: str) -> None:
    file = tmp_path / "cube.city.json"
    file.write_text(json.dumps(CUBE).replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        check_cityjson(file)
    assert reason in str(caught.value)
    file.write_bytes(b'{"type": "\xff"}')
    with pytest.raises(InputError, match="UTF-8"):
        check_cityjson(file)


def test_both_forms_hold_the_same_buildings(folder: Path) -> None:
    whole = json.loads((folder / "city.city.json").read_text())
    lines = [json.loads(x) for x in (folder / "city.city.jsonl").read_text().splitlines()]
    assert lines[0]["type"] == "CityJSON"
    joined: dict[str, Any] = {}
    for feature in lines[1:]:
        assert feature["id"] in feature["CityObjects"]
        joined |= feature["CityObjects"]
    assert joined.keys() == whole["CityObjects"].keys()
    assert whole["metadata"]["referenceSystem"].endswith("/EPSG/0/32632")
    assert "OpenStreetMap" in whole["metadata"]["title"]
    name, item = next((k, v) for k, v in whole["CityObjects"].items() if v.get("children"))
    assert all(whole["CityObjects"][c]["parents"] == [name] for c in item["children"])


def test_faults_in_a_file_are_all_told(folder: Path, tmp_path: Path) -> None:
    document = json.loads((folder / "city.city.json").read_text())
    items = list(document["CityObjects"].values())
    items[0]["parents"] = ["nobody"]
    items[1]["geometry"][0]["lod"] = 1.2
    items[2]["type"] = "Castle"
    bad = tmp_path / "bad.city.json"
    bad.write_text(json.dumps(document))
    with pytest.raises(InputError) as caught:
        check_cityjson(bad)
    text = str(caught.value)
    assert "lod" in text
    assert "Castle" in text
    bad.write_text('{"type": "CityJSON", "type": "CityJSON"}')
    with pytest.raises(InputError, match="stands twice"):
        check_cityjson(bad)
    bad.write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        check_cityjson(bad)


def test_unsorted_ids_are_refused(twin: Twin, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sorted"):
        write_cityjson(twin.buildings.iloc[::-1], tmp_path / "x.city.json")


@pytest.mark.parametrize("rows", [1, 300, 20_000])  # bits that tell all alike, some, hardly any
def test_distinct_vertices_are_numbered_as_they_are_met(rows: int) -> None:
    rng = np.random.default_rng(3)
    known = Vertices(rows)
    v = rng.integers(-40_000_000, 40_000_000, (20_000, 3))
    v[::3] = v[1::3][: len(v[::3])]
    for part in np.array_split(v, 3):
        known.meet(part)
    added = [known.add(part) for part in np.array_split(v, 7)]
    places, new = (np.concatenate(parts) for parts in zip(*added, strict=True))
    assert (v[new][places] == v).all()
    assert known.count == new.sum() == len(np.unique(v, axis=0))
    assert (np.diff(np.unique(places, return_index=True)[1]) > 0).all()  # as first met


@pytest.mark.parametrize("rows", [1, 7, 300])
def test_rows_taken_at_a_time_and_where_they_lie_never_change_a_file(
    twin: Twin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    table = twin.buildings.iloc[:700]
    table = table[table["parent"].isna() | table["parent"].isin(table["id"])]
    write_cityjson(table, tmp_path / "a.city.json", tmp_path / "a.city.jsonl")
    write_index(table, tmp_path / "a")
    monkeypatch.setattr(kept, "BATCH", rows)
    on_disk = kept.keep(table, tmp_path / "table.arrow")
    assert len(list(on_disk.pieces())) == -(-len(table) // rows)
    for name, source in (("b", table), ("c", on_disk)):
        write_cityjson(source, tmp_path / f"{name}.city.json", tmp_path / f"{name}.city.jsonl")
        write_index(source, tmp_path / name)
        for kind in (".city.json", ".city.jsonl", "/index3d.json", "/index3d.dat"):
            assert Path(f"{tmp_path}/a{kind}").read_bytes() == (
                Path(f"{tmp_path}/{name}{kind}").read_bytes()
            )
    document = json.loads((tmp_path / "a.city.json").read_text())
    assert list(document["CityObjects"]) == table["id"].tolist()
    found = np.array(document["vertices"])
    assert len(np.unique(found, axis=0)) == len(found)
    extent = document["metadata"]["geographicalExtent"]
    real = found * 0.001 + document["transform"]["translate"]
    assert np.allclose(extent[:3], real.min(axis=0), atol=0.002)
    assert np.allclose(extent[3:], real.max(axis=0), atol=0.002)


def test_rows_written_at_a_time_never_change_a_layer(
    twin: Twin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = replace(twin, buildings=twin.buildings.iloc[:500])
    write_gpkg(part, tmp_path / "a.gpkg")
    monkeypatch.setattr(geopackage, "STREAMED", 37)
    monkeypatch.setattr(kept, "BATCH", 37)
    write_gpkg(part, tmp_path / "b.gpkg")
    on_disk = replace(part, buildings=kept.keep(part.buildings, tmp_path / "table.arrow"))
    write_gpkg(on_disk, tmp_path / "c.gpkg")
    for layer in ("buildings", "footprints", "streets"):
        a, *others = (gpd.read_file(tmp_path / f"{x}.gpkg", layer=layer) for x in "abc")
        for b in others:
            assert a.drop(columns="geometry").equals(b.drop(columns="geometry"))
            assert (a.geometry.to_wkb() == b.geometry.to_wkb()).all()
            assert a.crs == b.crs
    assert summary(part).equals(summary(on_disk))
    solids = make_solids(part.buildings)
    shapes = gpd.read_file(tmp_path / "a.gpkg", layer="buildings").geometry
    counts = np.bincount(solids.rows, np.diff(solids.surface_offsets), 500)
    assert (shapely.get_num_geometries(shapes.to_numpy()) == counts).all()


# --- 3D Tiles -----------------------------------------------------------------------


def test_only_changed_tiles_are_written_again(twin: Twin, tmp_path: Path) -> None:
    out = tmp_path / "tiles"
    first = write_tiles(twin.buildings, out, leaf=100, inner=20)
    assert first.written == first.tiles > 20
    again = write_tiles(twin.buildings, out, leaf=100, inner=20)
    assert (again.written, again.unchanged) == (0, first.tiles)
    changed = twin.buildings.copy()
    changed.loc[changed.index[-3:], "name"] = "Renamed"
    third = write_tiles(changed, out, leaf=100, inner=20)
    assert 1 <= third.written <= 3
    (out / "tiles.json").write_text("{")
    fourth = write_tiles(changed, out, leaf=100, inner=20)
    for damaged in ("{", "[]", '{"asset": 1}'):
        (out / "tileset.json").write_text(damaged)
        with pytest.raises(InputError, match="is damaged"):
            tiles_from_gpkg(tmp_path / "city.gpkg", out)
    assert fourth.written == fourth.tiles


def test_the_tallest_stand_in_the_root(folder: Path, twin: Twin) -> None:
    document, body = read_glb(folder / "tiles" / "content" / "root.glb")
    table = document["extensions"]["EXT_structural_metadata"]["propertyTables"][0]
    view = document["bufferViews"][table["properties"]["height"]["values"]]
    heights = np.frombuffer(
        body[view["byteOffset"] : view["byteOffset"] + view["byteLength"]], "<f4"
    )
    assert heights.max() == np.float32(twin.buildings["height"].max())
    assert heights.mean() > twin.buildings["height"].mean()
    used = document["extensionsUsed"]
    assert {"EXT_mesh_features", "EXT_structural_metadata"} <= set(used)


def test_a_damaged_twin_is_told(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    tileset = json.loads((copy / "tiles" / "tileset.json").read_text())
    tileset["root"]["children"][0]["boundingVolume"]["region"][2] += 0.1
    (copy / "tiles" / "tileset.json").write_text(json.dumps(tileset))
    next((copy / "tiles" / "content").glob("[0-9]_*.glb")).unlink()
    with pytest.raises(InputError) as caught:
        check_twin(copy)
    assert "outside its parent" in str(caught.value)
    assert "missing" in str(caught.value)
    (copy / "web" / "index.html").unlink()
    with pytest.raises(InputError, match=r"web/index\.html is missing"):
        check_twin(copy)


def test_every_tile_passes_the_gltf_validator(folder: Path) -> None:
    files = list((folder / "tiles" / "content").glob("*.glb"))
    assert files
    assert gltf_faults(files) == {}


def test_the_geopackages_pass_gdals_own_check(folder: Path) -> None:
    python = "/usr/bin/python3"
    module = "osgeo_utils.samples.validate_gpkg"
    clean = {"PATH": "/usr/bin:/bin"}  # the system's GDAL and nothing of this environment
    if (
        not Path(python).exists()
        or subprocess.run(
            [python, "-c", f"import {module}"], env=clean, capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("no GDAL for the system's Python (apt-get install python3-gdal)")
    for name in ("city.gpkg", "registers.gpkg"):
        found = subprocess.run([python, "-m", module, str(folder / name)], env=clean,
                               capture_output=True, text=True, check=False)  # fmt: skip
        assert found.returncode == 0, found.stdout + found.stderr


# --- history ------------------------------------------------------------------------


def test_a_second_run_on_the_same_source_changes_nothing(
    extract: Path, folder: Path, tmp_path: Path
) -> None:
    result = city_flow(extract, tmp_path / "b", since=folder / "city.gpkg", date="2026-02-01")
    assert result["changes"] == {}
    table = gpd.read_file(tmp_path / "b" / "city.gpkg", layer="buildings")
    assert set(table["valid_from"].astype(str).str[:10]) == {"2026-01-01"}


def _edited(twin: Twin) -> tuple[Twin, dict[str, str]]:
    """Return the twin of a later day: one gone, one new, one changed, two merged, one split."""
    table = twin.buildings[twin.buildings["parent"].isna() & ~twin.buildings["whole"]]
    table = table.reset_index(drop=True).copy()
    # houses apart from all others, so that each event is its own
    far = [shapely.box(380_000 + 50 * i, 4_850_000, 380_020 + 50 * i, 4_850_010) for i in range(7)]
    before = table.iloc[:7].copy().set_geometry(far, crs=table.crs)
    before["id"] = [f"way/{i}" for i in range(7)]
    before["height"], before["valid_from"] = 9.0, "2026-01-01"
    after = before.copy()
    after["valid_from"] = "2026-03-01"
    shapes = after.geometry.to_numpy().copy()
    after.loc[1, "height"] = 12.0  # changed
    shapes[2] = shapely.box(380_100, 4_850_000, 380_170, 4_850_010)  # takes in way/3
    half = shapely.box(380_200, 4_850_000, 380_210, 4_850_010)
    other = shapely.box(380_210, 4_850_000, 380_220, 4_850_010)
    shapes[4] = half
    after = after.set_geometry(shapes, crs=table.crs)
    import pandas as pd

    extra = after.iloc[[4, 4]].copy()
    extra["id"] = ["way/90", "way/91"]
    extra = extra.set_geometry(
        [other, shapely.box(390_000, 4_850_000, 390_010, 4_850_010)], crs=table.crs
    )
    after = pd.concat([after.drop(index=[3, 5]), extra], ignore_index=True)
    names = {"changed": "way/1", "merged": "way/2", "split": "way/4", "created": "way/91",
             "abolished": "way/5"}  # fmt: skip
    old = Earlier(before, None, None)
    return replace(twin, buildings=after), {**names, "old": old}  # type: ignore[dict-item]


def test_every_register_event_is_told_and_nothing_is_deleted(twin: Twin) -> None:
    later, names = _edited(twin)
    updated, changes = compare(later, names.pop("old"))  # type: ignore[arg-type]
    told = {k: set(v) for k, v in changes.groupby("change")["id"]}
    for change, name in names.items():
        assert name in told[change], change
    height = changes[(changes["id"] == "way/1") & (changes["field"] == "height")].iloc[0]
    assert (height["old"], height["new"]) == ("9", "12")
    merged = changes[changes["change"] == "merged"].iloc[0]
    assert merged["old"] == "way/2, way/3"
    split = changes[changes["change"] == "split"].iloc[0]
    assert split["new"] == "way/4, way/90"
    valid = updated.buildings.set_index("id")["valid_from"]
    assert valid["way/0"] == "2026-01-01"
    assert valid["way/1"] == "2026-03-01"
    ended = updated.layers["history"].set_index("id")["valid_to"]
    assert {"way/1", "way/2", "way/3", "way/4", "way/5"} <= set(ended.index)
    assert set(ended) == {"2026-03-01"}


def test_an_earlier_day_and_another_file_are_refused(
    twin: Twin, folder: Path, tmp_path: Path
) -> None:
    earlier = read_objects(folder)
    old = replace(twin, buildings=twin.buildings.assign(valid_from="2020-01-01"))
    with pytest.raises(InputError, match="later day"):
        compare(old, earlier)
    with pytest.raises(InputError, match="does not exist"):
        read_objects(tmp_path / "none.gpkg")


# --- index --------------------------------------------------------------------------


def test_the_index_answers_from_disk_as_geometry_does(folder: Path, twin: Twin) -> None:
    table = twin.buildings[twin.buildings["lod"] != "0.2"]
    box = table.total_bounds
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    with open_twin(folder) as index:
        got = set(index.query((x - 200, y - 200, 30.0, x + 200, y + 200, 500.0)))
        b = table.bounds
        wanted = table[
            (b["minx"] <= x + 200) & (b["maxx"] >= x - 200) & (b["miny"] <= y + 200)
            & (b["maxy"] >= y - 200) & (table["height"] >= 30.0)
        ]  # fmt: skip
        assert got == set(wanted["id"])
        assert len(index.query(tuple(box))) == len(table)
        tallest = table.loc[table["height"].idxmax()]
        point = tallest.geometry.representative_point()
        assert index.nearest((point.x, point.y, tallest["height"] + 1)) == [tallest["id"]]
        down = index.ray((point.x, point.y, 400.0), (0, 0, -2.0), 500.0)
        assert down[0] == tallest["id"]
        with pytest.raises(InputError):
            index.query((1, 2, 0, 1))
    with pytest.raises(InputError, match="index3d"):
        open_twin(folder / "web")
