"""Registers: filled where open data can, documented otherwise, imported with checks."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import pandas as pd
import pyogrio
import pytest
import shapely

from qala.city.registers import LAYERS, import_register, schema_table
from qala.city.twin import city_flow
from qala.errors import InputError


@pytest.fixture
def folder(reference: Path, tmp_path: Path) -> Path:
    out = tmp_path / "twin"
    city_flow(reference / "osm" / "monaco_2021.osm.pbf", out, bbox=(7.42, 43.73, 7.43, 43.74),
              date="2026-01-01")  # fmt: skip
    return out


def test_every_layer_is_there_with_its_geometry_and_schema(folder: Path) -> None:
    layers = dict(pyogrio.list_layers(folder / "registers.gpkg"))
    for spec in LAYERS:
        assert layers[spec.name] == spec.geometry
    schema = pyogrio.read_dataframe(folder / "registers.gpkg", layer="schema")
    assert len(schema) == len(schema_table())
    assert set(schema["register"]) == {
        "land", "urban_planning", "addresses", "nature", "real_estate",
    }  # fmt: skip
    addresses = pyogrio.read_dataframe(folder / "registers.gpkg", layer="addresses")
    assert len(addresses) > 50
    buildings = pyogrio.read_dataframe(folder / "city.gpkg", layer="buildings")
    related = addresses["building_id"].dropna()
    assert len(related) > 20
    assert set(related) <= set(buildings["id"])
    names = {f"{x.name}.id" for x in LAYERS} | {"buildings.id", ""}
    assert set(schema_table()["relation"]) <= names


def test_import_closes_what_changed_and_refuses_what_is_wrong(folder: Path, tmp_path: Path) -> None:
    box = shapely.box(373_000, 4_843_000, 373_020, 4_843_020)
    rows = pd.DataFrame(
        {"number": ["1", "2"], "id": ["p/1", "p/2"], "category": ["settlement", "moon"],
         "wkt": [box.wkt, shapely.transform(box, lambda p: p + 50).wkt]}
    )  # fmt: skip
    file = tmp_path / "parcels.csv"
    rows.to_csv(file, index=False)
    with pytest.raises(InputError) as caught:
        import_register(folder, "land_parcels", file, date="2026-02-01")
    assert "no column cadastral_number" in str(caught.value)
    assert "category holds moon" in str(caught.value)
    rows["category"] = "settlement"
    rows.to_csv(file, index=False)
    named = {"cadastral_number": "number"}
    first = import_register(folder, "land_parcels", file, columns=named, date="2026-02-01")
    assert first == {"created": 2, "changed": 0, "unchanged": 0}
    rows.loc[0, "category"] = "industry"
    rows.to_csv(file, index=False)
    second = import_register(folder, "land_parcels", file, columns=named, date="2026-03-01")
    assert second == {"created": 0, "changed": 1, "unchanged": 1}
    parcels = gpd.read_file(folder / "registers.gpkg", layer="land_parcels")
    assert len(parcels) == 3
    closed = parcels[parcels["valid_to"].notna()]
    assert closed["id"].tolist() == ["p/1"]
    assert closed["category"].tolist() == ["settlement"]


def test_relations_must_lead_somewhere(folder: Path, tmp_path: Path) -> None:
    rows = gpd.GeoDataFrame(
        {"id": ["r/1"], "cadastral_number": ["7"], "building_id": ["way/0"]},
        geometry=[shapely.Point(7.42, 43.73)], crs=4326,
    )  # fmt: skip
    file = tmp_path / "estate.geojson"
    rows.to_file(file)
    with pytest.raises(InputError, match=r"building_id names way/0"):
        import_register(folder, "real_estate", file, date="2026-02-01")
    with pytest.raises(InputError, match="no register layer"):
        import_register(folder, "castles", file, date="2026-02-01")


BROKEN = {
    "no well-known text": ("id,housenumber,wkt\na/1,3,NOT WKT\n", "wkt holds 'NOT WKT' in row 1"),
    "no number": ("id,housenumber,x,y\na/1,3,abc,5\n", "x holds 'abc' in row 1"),
    "no geometry": ("id,housenumber\na/1,3\n", "has no geometry"),
    "another encoding": ("id,housenumber,x,y\na/1,дом,1,2\n".encode("cp1251"), "not UTF-8"),
    "nothing": ("", "is no table"),
    "another CRS": ("id,housenumber,x,y\na/1,3,7.42,43.73\n", "km from the city"),
    "no day": ("id,housenumber,valid_from,x,y\na/1,3,2026-13-40,{x},{y}\n", "'2026-13-40'"),
    "no event": ("id,housenumber,event,x,y\na/1,3,moved,{x},{y}\n", "event holds moved"),
    "no building": ("id,housenumber,building_id,x,y\na/1,3,way/0,{x},{y}\n", "names way/0"),
    "twice": ("id,housenumber,x,y\na/1,3,{x},{y}\na/1,4,{x},{y}\n", "id a/1 stands twice"),
}


def test_broken_files_are_told_and_change_nothing(folder: Path, tmp_path: Path) -> None:
    before = (folder / "registers.gpkg").read_bytes()
    file = tmp_path / "rows.csv"
    for case, (text, reason) in BROKEN.items():
        raw = text.encode() if isinstance(text, str) else text
        file.write_bytes(raw.replace(b"{x}", b"373400").replace(b"{y}", b"4844300"))
        with pytest.raises(InputError) as caught:
            import_register(folder, "addresses", file, date="2026-02-01")
        assert reason in str(caught.value), case
    with pytest.raises(InputError, match="YYYY-MM-DD"):
        import_register(folder, "addresses", file, date="tomorrow")
    with pytest.raises(InputError, match="no register layer"):
        import_register(folder, "castles", file, date="2026-02-01")
    assert (folder / "registers.gpkg").read_bytes() == before


def test_tables_of_spreadsheets_and_named_crs_are_read(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("id;housenumber;street;x;y\na/1;5 б;Әл-Фараби;7,425;43,735\n", "utf-8-sig")
    found = import_register(folder, "addresses", file, crs="EPSG:4326", date="2026-02-01")
    assert found["created"] == 1
    row = pyogrio.read_dataframe(folder / "registers.gpkg", layer="addresses").set_index("id")
    assert row.loc["a/1", "street"] == "Әл-Фараби"
    assert row.loc["a/1"].geometry.x == pytest.approx(373_000, abs=2_000)
