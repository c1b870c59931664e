"""Catalogs: qala's own, users', hostile ones, and a run as a catalog."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from builders import qala
from hypothesis import given, settings
from hypothesis import strategies as st

from qala.catalog import (
    assets_of,
    check_catalog,
    open_catalogs,
    resolve,
    search,
    stac_item,
    write_item,
)
from qala.errors import InputError
from qala.resources import resource

TURKISTAN = (67.0, 43.0, 69.0, 44.5)
KAZAKHSTAN = (46.49, 40.56, 87.32, 55.45)
ROOT = Path(__file__).resolve().parents[1]


def test_own_catalogs_are_sound() -> None:
    assert "12 collections, 77 items" in check_catalog(resource("catalogs"))[0]


def test_own_catalogs_are_what_the_generator_writes(tmp_path: Path) -> None:
    catalogs = resource("catalogs")
    (tmp_path / "kazakhstan").symlink_to(catalogs / "kazakhstan")
    made = tmp_path / "made"
    subprocess.run(
        [sys.executable, str(ROOT / "data" / "make_catalogs.py"), "--out", str(made)], check=True
    )
    for file in made.rglob("*.json"):
        kept = catalogs / file.relative_to(made)
        assert kept.read_text() == file.read_text(), f"{kept} is stale: run data/make_catalogs.py"
    own = {p.relative_to(catalogs) for p in catalogs.rglob("*.json")} - {Path("ghsl_tiles.json")}
    assert own == {p.relative_to(made) for p in made.rglob("*.json")}


@pytest.mark.parametrize(
    ("product", "epochs", "sizes"),
    [
        ("pop", set(range(1975, 2031, 5)), {100, 1000}),
        ("built-s", set(range(1975, 2031, 5)), {100, 1000}),
        ("smod", set(range(1975, 2031, 5)), {1000}),
        ("land", {2018}, {100, 1000}),
        ("built-h", {2018}, {100}),
    ],
)
def test_every_epoch_and_resolution_is_there(
    product: str, epochs: set[int], sizes: set[int]
) -> None:
    found = search(open_catalogs(), product=product)
    assert {i.properties["qala:epoch"] for i in found} == epochs
    assert {i.properties["qala:resolution"] for i in found} == sizes


def test_every_item_has_its_terms_and_no_made_up_hash() -> None:
    for item in open_catalogs():
        terms = item.extra_fields["qala:terms"]
        assert terms["license"], item.id
        assert terms["sci:citation"], item.id
        for asset in item.assets.values():
            remote = "://" in asset.href
            assert ("file:checksum" in asset.extra_fields) != remote, item.id
            if remote:
                assert "address" in item.properties["qala:unverified"]


def test_tiles_of_turkistan() -> None:
    item = search(open_catalogs(), product="pop", epoch=2020, resolution=1000)[0]
    files = assets_of(item, bbox=TURKISTAN)
    assert [f.tile for f in files] == ["R4_C24"]
    assert files[0].url.endswith(
        "/GHS_POP_GLOBE_R2023A/GHS_POP_E2020_GLOBE_R2023A_54009_1000/V1-0/tiles/"
        "GHS_POP_E2020_GLOBE_R2023A_54009_1000_V1_0_R4_C24.zip"
    )
    assert (files[0].unit, files[0].nodata, files[0].crs) == ("people", -200, "ESRI:54009")
    assert files[0].licence == "CC-BY-4.0"
    assert len(assets_of(item)) == 1
    assert assets_of(item)[0].filename == "GHS_POP_E2020_GLOBE_R2023A_54009_1000_V1_0.zip"


@given(
    west=st.floats(47, 85), south=st.floats(41, 54), width=st.floats(0.01, 2),
    height=st.floats(0.01, 1),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_tiles_cover_the_box_and_no_tile_is_idle(
    west: float, south: float, width: float, height: float
) -> None:
    import numpy as np
    from pyproj import Transformer

    item = search(open_catalogs(), product="pop", epoch=2020, resolution=100)[0]
    box = (west, south, west + width, south + height)
    names = {f.tile for f in assets_of(item, bbox=box)}
    tiles = json.loads(resource("catalogs", "ghsl_tiles.json").read_text())["tiles"]
    move = Transformer.from_crs("EPSG:4326", "ESRI:54009", always_xy=True)
    lon, lat = np.meshgrid(np.linspace(box[0], box[2], 30), np.linspace(box[1], box[3], 30))
    x, y = move.transform(lon.ravel(), lat.ravel())
    hit = {
        name for name, (left, bottom, right, top) in tiles.items()
        if ((x > left) & (x < right) & (y > bottom) & (y < top)).any()
    }  # fmt: skip
    assert hit <= names
    for name in names - hit:
        left, bottom, right, top = tiles[name]
        near = (x > left - 9000) & (x < right + 9000) & (y > bottom - 9000) & (y < top + 9000)
        assert near.any(), name


def test_terrain_tiles_are_named_by_their_corner() -> None:
    files = resolve("catalog://dem", open_catalogs(), bbox=(-0.5, -0.5, 0.5, 0.5))
    assert [f.tile for f in files] == [
        "S01_00_W001_00", "S01_00_E000_00", "N00_00_W001_00", "N00_00_E000_00"
    ]  # fmt: skip


def test_addresses_of_the_catalog_are_checked() -> None:
    items = open_catalogs()
    found = resolve("catalog://pop?epoch=2020&resolution=1000", items, bbox=TURKISTAN)
    assert len(found) == 1
    assert resolve("catalog://ghs-fua-r2019a", items)[0].member == "*.gpkg"
    for bad in (
        "catalog://pop", "catalog://nothing", "catalog://pop?epoch=two&resolution=1000",
        "catalog://pop?epoch=2020&resolution=1000&x=1", "catalog://ghs-fua-r2019a/nothing",
        "catalog://copernicus-glo-30", "catalog:pop", "catalog://[bad",
    ):  # fmt: skip
        with pytest.raises(InputError):
            resolve(bad, items)


# --- catalogs that are not sound -----------------------------------------------------


def page(**changes: Any) -> dict[str, Any]:
    properties = {
        "datetime": "2020-01-01T00:00:00Z", "qala:product": "pop", "qala:epoch": 2020,
        "qala:resolution": 1000, "version": "1", "license": "CC0-1.0", "sci:citation": "me",
        "proj:code": "ESRI:54009", **changes.pop("properties", {}),
    }  # fmt: skip
    asset = {"href": "./a.tif", **changes.pop("asset", {})}
    ring = [[60, 40], [61, 40], [61, 41], [60, 41], [60, 40]]
    return {
        "type": "Feature", "stac_version": "1.1.0", "id": "mine",
        "geometry": {"type": "Polygon", "coordinates": [ring]}, "bbox": [60, 40, 61, 41],
        "properties": {k: v for k, v in properties.items() if v != "drop"},
        "links": [], "assets": {"data": asset}, **changes,
    }  # fmt: skip


def put(folder: Path, item: dict[str, Any], **links: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.tif").write_bytes(b"raster")
    (folder / "item.json").write_text(json.dumps(item))
    hrefs = links.get("hrefs", ["./item.json"])
    (folder / "catalog.json").write_text(json.dumps({
        "type": "Catalog", "stac_version": "1.1.0", "id": "mine", "description": "x",
        "links": [{"rel": "item", "href": h} for h in hrefs],
    }))  # fmt: skip
    return folder


def test_own_catalog_of_a_user(tmp_path: Path) -> None:
    folder = put(tmp_path / "mine", page())
    check_catalog(folder)
    found = search(open_catalogs([folder]), product="mine")
    files = assets_of(found[0])
    assert [f.url for f in files] == [str(folder / "a.tif")]
    from qala.fetch import Options, fetch

    assert fetch(files, options=Options(offline=True))[0].path == folder / "a.tif"


@pytest.mark.parametrize(
    ("item", "told"),
    [
        (page(properties={"qala:product": "drop"}), "qala:product is missing"),
        (page(properties={"version": "drop"}), "version is missing"),
        (page(properties={"license": "drop"}), "license is missing"),
        (page(properties={"sci:citation": "drop"}), "sci:citation is missing"),
        (page(properties={"qala:epoch": 2015}), "contradicts datetime"),
        (page(properties={"qala:epoch": "2020"}), "a year"),
        (page(properties={"qala:resolution": -1}), "metres above 0"),
        (page(properties={"proj:code": 54009}), "a CRS like"),
        (page(properties={"datetime": "drop"}), "datetime"),
        (page(bbox=[61, 40, 60, 41]), "west < east"),
        (page(id="../x"), "letters, digits"),
        (page(assets={}), "at least one file"),
        (page(stac_version=7), "STAC 1.1"),
        (page(asset={"href": "../../etc/passwd"}), "climbs out"),
        (page(asset={"href": "/etc/passwd"}), "not relative"),
        (page(asset={"href": "./gone.tif"}), "dead"),
        (page(asset={"href": "ftp://example.org/a.tif"}), "address of kind 'ftp'"),
        (page(asset={"href": "https://ann:geheim@example.org/a"}), "holds a secret"),
        (page(asset={"href": "https://example.org/a?token=geheim"}), "holds a secret"),
        (page(asset={"href": "https://example.org/{tile}.zip"}), "qala:tiles"),
        (page(asset={"href": "https://e.org/{tile}.zip", "qala:tiles": "../../t"}), "climbs out"),
        (page(asset={"file:checksum": "12201234"}), "a multihash"),
        (page(asset={"file:checksum": "1220" + 64 * "0"}), "does not fit its hash"),
        (page(asset={"file:size": 7}), "has 6 bytes"),
        (page(asset={"file:size": "six"}), "bytes"),
        (page(asset={"bands": [{"nodata": "none"}]}), "nodata"),
        (page(asset={"qala:mirrors": ["../../x"]}), "climbs out"),
    ],
)
def test_unsound_items_are_told(tmp_path: Path, item: dict[str, Any], told: str) -> None:
    folder = put(tmp_path / "a" / "mine", item)
    with pytest.raises(InputError) as met:
        check_catalog(folder)
    assert told in str(met.value)
    assert "geheim" not in str(met.value)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    item = page(properties={"version": "drop", "qala:epoch": 1}, asset={"href": "../../x"})
    with pytest.raises(InputError) as met:
        check_catalog(put(tmp_path / "a" / "mine", item))
    for told in ("version is missing", "1900 to 2100", "climbs out"):
        assert told in str(met.value)


@pytest.mark.parametrize(
    ("href", "told"),
    [
        ("../other/item.json", "climbs out"),
        ("/etc/passwd", "not relative"),
        ("https://example.org/item.json", "not relative"),
        ("file:///etc/passwd", "not relative"),
        ("gone.json", "dead"),
        ("catalog.json", "linked twice"),
    ],
)
def test_links_stay_in_the_catalog(tmp_path: Path, href: str, told: str) -> None:
    put(tmp_path / "other", page())
    folder = put(tmp_path / "mine", page(), hrefs=["./item.json", href])
    for reader in (check_catalog, lambda p: open_catalogs([p])):
        with pytest.raises(InputError, match=told):
            reader(folder)


def test_symbolic_link_out_of_the_catalog(tmp_path: Path) -> None:
    put(tmp_path / "other", page())
    folder = put(tmp_path / "mine", page(), hrefs=["./link.json"])
    (folder / "link.json").symlink_to(tmp_path / "other" / "item.json")
    with pytest.raises(InputError, match="climbs out"):
        open_catalogs([folder])


def test_hostile_asset_is_refused_without_a_check(tmp_path: Path) -> None:
    folder = put(tmp_path / "a" / "mine", page(asset={"href": "../../../etc/passwd"}))
    with pytest.raises(InputError, match="climbs out"):
        open_catalogs([folder])


@pytest.mark.parametrize(
    ("item", "told"),
    [
        (page(id=None), "id is None"),
        (page(id="../../x"), "letters, digits"),
        (page(collection=5), "collection is 5"),
        (page(bbox="60,40,61,41"), "west < east"),
        (page(properties={"qala:epochs": 5}), "qala:epochs is 5"),
        (page(properties={"qala:epoch": [2020]}), "a year"),
        (page(asset={"bands": 5}), "bands is 5"),
        (page(asset={"bands": ["people"]}), "bands is"),
        (page(asset={"qala:mirrors": 5}), "qala:mirrors is 5"),
        (page(asset={"qala:member": 5}), "qala:member is 5"),
        (page(asset={"file:size": "10"}), "file:size is '10'"),
        (page(asset={"file:checksum": "zzzz"}), "a multihash"),
        (page(asset={"href": "http://[bad/a.tif"}), "cannot be read"),
        (page(asset={"href": "http://ann:geheim@[bad/a.tif"}), "cannot be read"),
    ],
)
def test_fields_that_nothing_can_use_are_refused_by_every_reader(
    tmp_path: Path, item: dict[str, Any], told: str
) -> None:
    folder = put(tmp_path / "mine", item)
    for reader in (check_catalog, lambda p: open_catalogs([p])):
        with pytest.raises(InputError) as met:
            reader(folder)
        assert told in str(met.value)
        assert "geheim" not in str(met.value)


@pytest.mark.parametrize("text", ["{", "[]", '{"tiles": 5}', '{"tiles": {"a": [1]}, "crs": "x"}'])
def test_tile_scheme_that_is_none(tmp_path: Path, text: str) -> None:
    folder = put(tmp_path, page(asset={"href": "https://e.org/{tile}.zip", "qala:tiles": "t.json"}))
    (folder / "t.json").write_text(text)
    (found,) = search(open_catalogs([folder]), product="mine")
    with pytest.raises(InputError, match=r"tile scheme t\.json cannot be read"):
        assets_of(found, bbox=(60, 40, 61, 41))


def test_secrets_of_addresses_are_not_shown(tmp_path: Path) -> None:
    item = page(asset={"href": "https://ann:geheim@example.org/a.tif?token=s3cr3t"})
    shown = qala("catalog", "show", "mine", "--catalog", put(tmp_path, item))
    assert shown.code == 0
    assert "https://example.org/a.tif?…" in shown.out
    assert "geheim" not in shown.out + shown.err
    assert "s3cr3t" not in shown.out + shown.err


def test_ids_that_stand_twice(tmp_path: Path) -> None:
    folder = put(tmp_path / "mine", page(), hrefs=["./item.json", "./second.json"])
    (folder / "second.json").write_text(json.dumps(page()))
    with pytest.raises(InputError, match="stands also in"):
        check_catalog(folder)


@pytest.mark.parametrize("text", ["", "[]", '{"type": "Feature"', "[" * 100_000, '{"type": "x"}'])
def test_what_is_no_page_is_told(tmp_path: Path, text: str) -> None:
    file = tmp_path / "catalog.json"
    file.write_text(text)
    with pytest.raises(InputError):
        check_catalog(file)


def test_huge_page_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "catalog.json"
    file.write_text(" " * 5_000_001)
    with pytest.raises(InputError, match="at most"):
        check_catalog(file)


# --- a run as a catalog --------------------------------------------------------------


def test_run_is_a_catalog_for_the_next(tmp_path: Path) -> None:
    import numpy as np

    from qala.grid import ghsl_geobox
    from qala.provenance import Recorder
    from qala.raster import write_raster

    xarray = pytest.importorskip("xarray")
    from odc.geo.xr import xr_coords

    box = ghsl_geobox((5_000_000, 5_200_000, 5_010_000, 5_210_000))
    data = xarray.DataArray(np.ones(box.shape, "uint8"), xr_coords(box), ("y", "x"), name="cells")
    file = write_raster(data, tmp_path / "rasters" / "degurba_l1_2020.tif")
    recorder = Recorder({"workflow": "urbanisation", "sources": ["me, CC0"]}, [])
    record = recorder.record([file], tmp_path, title={"en": "Here"}, synthetic=True)
    item = write_item(tmp_path, record)
    assert json.loads(item.read_text()) == stac_item(tmp_path, record)
    check_catalog(tmp_path)
    found = search(open_catalogs([tmp_path]), product="urbanisation", epoch=2020)
    files = assets_of(found[0], key="rasters/degurba_l1_2020.tif")
    assert (files[0].url, files[0].epoch) == (str(file), 2020)
    assert files[0].checksum == f"sha256:{record['outputs'][0]['sha256']}"
    assert files[0].citation == "me, CC0"
    west, south, east, north = found[0].bbox or (0, 0, 0, 0)
    assert 50 < west < east < 70
    assert 40 < south < north < 50
    file.write_bytes(b"other")
    with pytest.raises(InputError, match="bytes"):
        check_catalog(tmp_path)
