"""The synthetic Turkistan: the monument in its place, the rest honest about being invented."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import osmium
import pandas as pd
import pyogrio
import pytest
from typer.testing import CliRunner

from qala.city.check import check_twin
from qala.city.demo import HEIGHT, MAUSOLEUM, PLAN, demo_flow, write_synthetic_turkistan
from qala.city.twin import build_twin
from qala.cli import app
from qala.errors import InputError
from qala.export.tiles3d import tiles_from_gpkg
from qala.messages import tr


def test_a_small_city_around_the_mausoleum(tmp_path: Path) -> None:
    file = tmp_path / "turkistan.osm.pbf"
    count = write_synthetic_turkistan(file, buildings=400)
    assert 380 < count < 430
    for thing in osmium.FileProcessor(str(file)):
        if len(thing.tags):
            assert "synthetic" in thing.tags or "UNESCO" in thing.tags["source"]
    twin = build_twin(file)
    table = twin.buildings.set_index("id")
    monument = table[table["name"] == "Қожа Ахмет Ясауи кесенесі"]
    whole = monument[monument["parent"].isna()].iloc[0]
    assert whole["height"] == pytest.approx(HEIGHT)
    assert whole["footprint_area"] == pytest.approx(PLAN[0] * PLAN[1], rel=0.01)
    centre = twin.buildings.geometry[table["name"].eq(whole["name"]).to_numpy()].to_crs(4326)
    assert centre.iloc[0].centroid.x == pytest.approx(MAUSOLEUM[0], abs=1e-4)
    assert (table["valid_code"] == 0).all()
    assert twin.buildings.crs.to_epsg() == 32642
    assert {"power", "heat", "gas"} <= set(twin.layers["networks"]["network"])
    assert len(twin.layers["stops"]) > 0
    domes = monument[(monument["roof_shape"] == "dome") & (monument["lod"] == "2.0")]
    assert len(domes) == 2


def test_the_demo_is_marked_everywhere_and_has_people(tmp_path: Path) -> None:
    out = tmp_path / "twin"
    demo_flow(out, buildings=150, lang="kk")
    check_twin(out)
    notice = tr("city.page.synthetic", "kk")
    for name in ("web/index.html", "city.city.json", "tiles/tileset.json", "summary.csv"):
        text = (out / name).read_text(encoding="utf-8")
        assert notice in text, name
        assert "OpenStreetMap contributors" not in text
    assert tr("city.demo.name", "kk") in (out / "web" / "index.html").read_text(encoding="utf-8")
    measures = pd.read_csv(out / "summary.csv").set_index("measure")["value"]
    assert measures["synthetic"] == 1
    assert measures["people"] > 1000
    assert measures["people"] + measures["people_unplaced"] == pytest.approx(
        measures["people_in_grid"]
    )
    with closing(sqlite3.connect(out / "city.gpkg")) as db:
        record = db.execute(
            "SELECT metadata FROM gpkg_metadata WHERE mime_type = 'application/json'"
        ).fetchone()[0]
    assert "SYNTHETIC" in json.loads(record)["abstract"]


def test_the_demo_takes_no_extract(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["city", "--demo", "--osm", "x.pbf", "-o", str(tmp_path)])
    assert isinstance(told.exception, InputError)
    assert "--osm" in str(told.exception)
    told = CliRunner().invoke(app, ["city", "-o", str(tmp_path)])
    assert "--demo" in str(told.exception)


def test_equal_seeds_give_equal_cities_and_few_buildings_are_refused(tmp_path: Path) -> None:
    a, b = tmp_path / "a.osm.pbf", tmp_path / "b.osm.pbf"
    assert write_synthetic_turkistan(a, buildings=200) == write_synthetic_turkistan(
        b, buildings=200
    )
    with pytest.raises(InputError):
        write_synthetic_turkistan(a, buildings=3)


def test_tiles_from_the_geopackage_are_those_of_the_run(tmp_path: Path) -> None:
    out = tmp_path / "twin"
    demo_flow(out, buildings=1500)
    gpkg, folder = out / "city.gpkg", out / "tiles"
    report = tiles_from_gpkg(gpkg, folder)
    assert report.tiles > 4
    assert report.written == 0  # solids made from footprints are the ones the run made
    table = pyogrio.read_dataframe(gpkg, layer="footprints")
    ids = table["id"].iloc[[100, 700]].tolist()
    table.loc[table["id"].isin(ids), "name"] = "edited"
    gone = table["id"].iloc[300]
    pyogrio.write_dataframe(table, gpkg, layer="footprints")
    report = tiles_from_gpkg(gpkg, folder, ids=ids)
    assert 0 < report.written <= 2
    tiles_from_gpkg(gpkg, tmp_path / "whole")
    for name in (f.name for f in (tmp_path / "whole" / "content").iterdir()):
        a, b = folder / "content" / name, tmp_path / "whole" / "content" / name
        assert a.read_bytes() == b.read_bytes(), name
    assert (folder / "objects.arrow").read_bytes() == (
        tmp_path / "whole" / "objects.arrow"
    ).read_bytes()
    with closing(sqlite3.connect(gpkg)) as db, db:  # as an editor that deletes
        db.create_function("ST_IsEmpty", 1, lambda _: 0)
        for axis in ("MinX", "MaxX", "MinY", "MaxY"):
            db.create_function(f"ST_{axis}", 1, lambda _: 0.0)
        db.execute("DELETE FROM footprints WHERE id = ?", (gone,))
    assert tiles_from_gpkg(gpkg, folder, ids=[gone]).objects == report.objects - 1
    assert tiles_from_gpkg(gpkg, tmp_path / "anew").objects == report.objects - 1


def test_unknown_objects_and_renumbered_files_make_all_tiles(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "twin"
    demo_flow(out, buildings=600)
    gpkg, folder = out / "city.gpkg", out / "tiles"
    tiles_from_gpkg(gpkg, folder, ids=["way/999999"])
    assert "in no tile yet" in caplog.text
    table = pyogrio.read_dataframe(gpkg, layer="footprints").iloc[::-1]
    pyogrio.write_dataframe(table, gpkg, layer="footprints")
    report = tiles_from_gpkg(gpkg, folder, ids=[table["id"].iloc[5]])
    assert "numbered anew" in caplog.text
    assert report.objects == len(table) - 1  # the monument's whole stands as parts
    with pytest.raises(InputError, match="does not exist"):
        tiles_from_gpkg(tmp_path / "none.gpkg", folder)
