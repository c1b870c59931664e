"""Functional urban areas as a job: the sample's network, layers, workflow and command."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import yaml
from builders import qala
from typer.testing import CliRunner

from qala import flows
from qala.areas import areas_flow, open_network, settlement_units, unit_seconds
from qala.cli import app
from qala.config import AreasWorkflow, Workflow, load_workflow, workflow_schema
from qala.errors import InputError
from qala.resources import resource
from qala.sources import read_places

SAMPLE = resource("sample")
POPULATION = SAMPLE / "GHS_POP_E2023_SYNTHETIC_54009_1000.tif"
ROADS = SAMPLE / "roads_SYNTHETIC.osm.pbf"


@pytest.fixture(scope="module")
def settlements(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Units of settlements of the sample, as a file."""
    places = read_places(SAMPLE / "settlements.csv")
    districts = gpd.read_file(SAMPLE / "units.gpkg")
    units = settlement_units(places[places["epoch"] == 2023], districts, id="id", district="unit")
    path = tmp_path_factory.mktemp("units") / "settlements.gpkg"
    units.to_file(path, layer="units")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> flows.Result:
    workflow = load_workflow("areas")
    return flows.run(workflow, out=tmp_path_factory.mktemp("areas") / "out")


# --- the sample's network -------------------------------------------------------------


def test_sample_network_is_whole_and_says_that_it_is_synthetic(tmp_path: Path) -> None:
    import osmium

    assert ROADS.stat().st_size < 2_000_000
    network = open_network(ROADS)
    summary = network.metadata["summary"]
    assert summary["weak components"] == summary["strong components"] == 1
    assert 5_000 < summary["kilometres"] < 10_000
    tags = [dict(w.tags) for w in osmium.FileProcessor(str(ROADS)) if w.is_way()]
    assert all(t["synthetic"] == "yes" and "SYNTHETIC" in t["name"] for t in tags)
    assert {t["highway"] for t in tags} == {"trunk", "primary", "secondary", "tertiary"}
    with pytest.raises(InputError):
        open_network(tmp_path / "none.osm.pbf")


def test_ways_between_units_leave_out_the_way_to_oneself() -> None:
    # a stored zero would make everybody work at home
    points = gpd.GeoSeries.from_xy([68.25, 68.5, 69.6], [43.3, 43.5, 42.3], crs="EPSG:4326")
    seconds = unit_seconds(open_network(ROADS), points)
    assert not seconds.diagonal().any()
    assert seconds.nnz == 6


def test_sample_network_is_what_its_script_makes(tmp_path: Path) -> None:
    out = tmp_path / "roads.osm.pbf"
    script = SAMPLE / "make_network.py"
    subprocess.run([sys.executable, str(script), "--out", str(out)], check=True, timeout=120)
    made, kept = open_network(out), open_network(ROADS)
    for name in ("lon", "lat", "seconds", "road", "geometry_lon"):
        np.testing.assert_array_equal(getattr(made, name), getattr(kept, name))


# --- the workflow ---------------------------------------------------------------------


def test_workflow_leaves_layers_tables_and_pictures(run: flows.Result) -> None:
    names = {p.relative_to(run.folder).as_posix() for p in run.files}
    pictures = {f"figures/map_areas_{lang}.png" for lang in ("en", "ru", "kk")}
    pictures |= {f"figures/chart_sensitivity_{lang}.png" for lang in ("en", "ru", "kk")}
    tables = {
        f"tables/{t}.{s}"
        for t in ("areas", "membership", "rates", "cities", "sensitivity", "joined")
        for s in ("csv", "parquet")
    }
    assert names >= pictures | tables | {"areas.gpkg", "provenance.json"}
    left = {p.relative_to(run.folder).as_posix() for p in run.folder.rglob("*") if p.is_file()}
    assert {n for n in left if not n.startswith(".qala-steps/")} == names
    layers = set(pyogrio.list_layers(run.folder / "areas.gpkg")[:, 0])
    assert layers >= {
        "areas", "cores", "zones", "membership", "flows", "network", "isochrones", "rates",
        "sensitivity", "joined",
    }  # fmt: skip
    styled = pyogrio.read_dataframe(run.folder / "areas.gpkg", layer="layer_styles")
    assert {"network", "isochrones", "flows"} <= set(styled["f_table_name"])


def test_kentau_and_turkistan_are_answered_with_how_sure(run: flows.Result) -> None:
    assert set(run.tables["areas"]["name"]) == {"Turkistan", "Shymkent"}
    verdict = run.record["verdicts"][0]
    assert verdict.startswith("Kentau and Turkistan are one area")
    assert "not sure" in verdict
    pair = run.tables["joined"].iloc[0]
    assert pair["lowest"] < 0.15 < pair["share"] < pair["highest"]


def test_rates_join_official_shares_by_district(run: flows.Result) -> None:
    rates = run.tables["rates"].set_index("unit")
    assert len(rates) == 18 + 1
    people = rates[["core", "zone", "outside"]].sum(axis=1)
    np.testing.assert_allclose(people, rates["population"])
    official = pd.read_csv(SAMPLE / "official.csv").query("epoch == 2023").set_index("unit")
    share = official["urban"] / (official["urban"] + official["rural"])
    np.testing.assert_allclose(rates["official_share"].drop("total"), share[rates.index[:-1]])
    total = rates.loc["total"]
    assert total["official_share"] == pytest.approx(
        official["urban"].sum() / official[["urban", "rural"]].sum().sum()
    )
    assert total["ratio"] == pytest.approx(total["official_share"] / total["area_share"])


def test_isochrones_grow_and_hold_their_city(run: flows.Result) -> None:
    bands = pyogrio.read_dataframe(run.folder / "areas.gpkg", layer="isochrones")
    bands = bands.sort_values("minutes")
    assert bands["minutes"].tolist() == [15, 30, 45, 60, 90]
    assert bands["area_km2"].is_monotonic_increasing
    cells = gpd.GeoSeries.from_xy([68.27], [43.3], crs=4326).to_crs(bands.crs)
    assert bands.contains(cells.iloc[0]).all()
    roads = pyogrio.read_dataframe(run.folder / "areas.gpkg", layer="network")
    assert (roads["speed_kmh"] > 0).all()


def test_nothing_is_done_twice(run: flows.Result) -> None:
    again = flows.run(load_workflow("areas"), out=run.folder)
    assert not again.fresh
    assert again.record["verdicts"] == run.record["verdicts"]
    pd.testing.assert_frame_equal(again.tables["areas"], run.tables["areas"], check_dtype=False)


def test_only_what_a_change_reaches_is_made_again(run: flows.Result, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(SAMPLE, data)
    page = tmp_path / "w.yaml"
    text = yaml.safe_load(resource("workflows", "areas.yaml").read_text(encoding="utf-8"))
    text |= {"data": str(data), "outputs": {"figures": False}}
    page.write_text(yaml.safe_dump(text))

    given: list[str] = []

    def made(*settings: str) -> set[str]:
        given.extend(settings)
        result = flows.run(load_workflow(page, settings=given), out=out)
        done = {s["step"] for s in result.record["steps"] if not s.get("reused")}
        return done - {"open inputs"} if result.fresh else set()

    everything = made()
    times = {"read network", "travel times", "isochrones"}
    told = {"rates", "write tables", "write GeoPackage"}
    drawn = {"delineate areas", "sensitivity", *told}
    assert everything >= {"read units", "divide units", "find cities", *times, "commuters", *drawn}
    # the threshold is of the rules alone, and the dry run says so
    planned = qala("run", page, "--out", out, "--dry-run", "--set", "areas.threshold=0.2")
    assert "travel times: as before" in planned.out
    assert "delineate areas: areas.threshold changed" in planned.out
    assert "sensitivity: hangs on the result of 'delineate areas'" in planned.out
    assert made("areas.threshold=0.2") == drawn
    compared = qala("diff", run.folder, out)
    assert compared.code == 0, compared.err
    assert "  areas.threshold: 0.15 → 0.2\n32 units and epochs differ, 32 of them" in compared.out
    assert "(2023): zone of Shymkent → outside; explained by areas.threshold\n" in compared.out
    chain = qala("why", f"{out}:zones")
    assert "step delineate areas: settings" in chain.out
    assert "areas.threshold=0.2" in chain.out
    assert "step rates" not in chain.out
    assert made("areas.beta=0.05") == {"commuters", *drawn}
    assert made() == set()
    # names of cities stand in the reasons; another share may leave the cities what they were
    assert made("outputs.language=ru", "areas.city_share=0.51") == {"find cities", *drawn}
    # official figures are told beside the areas
    table = (data / "official.csv").read_text()
    (data / "official.csv").write_text(table.replace("220133", "220134"))
    assert made() == told
    # a network under another name is read and timed anew; times that stay spare what follows them
    shutil.copy(data / "roads_SYNTHETIC.osm.pbf", tmp_path / "roads.osm.pbf")
    found = made(f"inputs.network={tmp_path / 'roads.osm.pbf'}")
    assert found == {*times, "delineate areas", "write GeoPackage"}
    # a step that was tampered with is made again
    (out / ".qala-steps" / "travel-times" / "times.npz").write_bytes(b"cut")
    (out / "tables" / "rates.csv").unlink()
    assert made() == {"travel times"}


def test_areas_do_not_hang_on_where_steps_run(run: flows.Result, tmp_path: Path) -> None:
    from qala.compute import running

    with running(2, processes=True):
        found = flows.run(load_workflow("areas"), out=tmp_path)
    names = [p.relative_to(run.folder) for p in run.files if p.suffix in {".csv", ".tif", ".png"}]
    assert len(names) == 13
    for name in names:
        assert (found.folder / name).read_bytes() == (run.folder / name).read_bytes(), name


def test_command_prints_areas_and_verdict(run: flows.Result) -> None:
    told = CliRunner().invoke(app, ["run", "areas", "--out", str(run.folder)])
    assert told.exit_code == 0, told.output
    assert "Kentau and Turkistan are one area" in told.output
    assert "Shymkent" in told.output
    assert "Nothing changed" in told.output


def test_problems_of_a_page_of_areas_are_told_together(tmp_path: Path) -> None:
    page = tmp_path / "w.yaml"
    page.write_text(
        "workflow: functional_areas\n"
        "inputs: {population: P.tif, flows: F.csv, employed: E.csv, calibrate: G.csv}\n"
        "areas: {method: network, beta: 0.1}\n"
    )
    with pytest.raises(InputError) as caught:
        load_workflow(page)
    text = str(caught.value)
    for words in (
        "inputs.units is missing", "needs inputs.network", "inputs.flows is given",
        "calibrate and areas.beta",
    ):  # fmt: skip
        assert words in text
    page.write_text("workflow: functional_areas\ninputs: {population: P.tif}\nareas: {method: x}\n")
    with pytest.raises(InputError, match=r"areas.method is 'x'"):
        load_workflow(page)


def test_column_to_tell_rates_by_is_asked_for(
    run: flows.Result, settlements: Path, tmp_path: Path
) -> None:
    before = (run.folder / "provenance.json").read_bytes()
    workflow = load_workflow("areas", settings=["areas.reporting=nope"])
    with pytest.raises(InputError, match="no column 'nope' to tell rates by; expected one of id"):
        flows.run(workflow, out=run.folder)
    assert (run.folder / "provenance.json").read_bytes() == before
    with pytest.raises(InputError, match="no column 'nope' to tell rates by"):
        areas_flow(
            POPULATION, settlements, "id", out=tmp_path / "o.gpkg", distance=True, reporting="nope"
        )


def test_paths_of_areas_are_absolute_and_asked_for() -> None:
    from qala.config import input_files

    workflow = load_workflow("areas")
    assert isinstance(workflow, AreasWorkflow)
    assert ROADS.resolve() in input_files(workflow)
    assert isinstance(load_workflow("demo"), Workflow)


def test_schema_holds_every_recipe() -> None:
    kept = workflow_schema()
    assert set(kept["discriminator"]["mapping"]) == {
        "urbanisation", "functional_areas", "city", "indicators",
    }  # fmt: skip


# --- the command ----------------------------------------------------------------------


@pytest.mark.parametrize("network", [False, True])
def test_cellwise_estimate_on_units(settlements: Path, tmp_path: Path, network: bool) -> None:
    out = tmp_path / "areas.gpkg"
    found = areas_flow(
        POPULATION, settlements, "id", out=out, cellwise=True, network=ROADS if network else None,
        figure=tmp_path / "areas.png",
    )  # fmt: skip
    settings = found["settings"]
    assert settings["model"] == "GHS-FUA-like"
    assert "Belgium" in settings["model_source"]
    assert settings["times"] == ("network" if network else "straight line")
    table = found["areas"].membership
    inside = table["role"] != "outside"
    assert (table.loc[table["role"] == "zone", "share"] >= 0.5).all()
    assert (table.loc[~inside, "share"].fillna(0) < 0.5).all()
    assert table["stability"].between(0, 1).all()
    assert (table.loc[table["role"] == "core", "stability"] == 1).all()
    layers = set(pyogrio.list_layers(out)[:, 0])
    assert "cellwise" in layers
    assert ({"network", "isochrones"} <= layers) == network
    shapes = pyogrio.read_dataframe(out, layer="cellwise")
    assert set(shapes["area"]) == set(table.loc[inside, "area"])


def test_official_shares_join_by_unit_and_epoch(settlements: Path, tmp_path: Path) -> None:
    arguments = [
        "--quiet", "areas", "--population", str(POPULATION), "--units", str(settlements),
        "--id", "id", "--distance", "--official", str(SAMPLE / "official.csv"),
        "--reporting", "unit", "-o", str(tmp_path / "o.gpkg"),
    ]  # fmt: skip
    told = CliRunner().invoke(app, arguments)
    assert told.exit_code == 0, told.output
    assert "official_share" in told.output
    rates = pyogrio.read_dataframe(tmp_path / "o.gpkg", layer="rates")
    assert rates.set_index("unit").loc["kz.79", "ratio"] == pytest.approx(1, abs=0.01)
    assert {"core", "zone", "outside", "official_share", "ratio"} <= set(rates.columns)


def test_main_roads_fit_their_limit() -> None:
    from qala.area_products import main_roads

    network = open_network(ROADS)
    whole, lowest = main_roads(network)
    assert (len(whole), lowest) == (network.metres.size, "tertiary")
    some, lowest = main_roads(network, most=400)
    assert 0 < len(some) <= 400
    assert lowest == "secondary"
    few, lowest = main_roads(network, most=1)
    assert set(few["class"]) == {"trunk"}


def test_given_cores_are_told_as_given_on_the_map(settlements: Path, tmp_path: Path) -> None:
    places = gpd.read_file(settlements).sort_values("population", ascending=False)
    cores = pd.DataFrame({"unit": places["id"].head(3), "city": places["name_en"].head(3)})
    cores.to_csv(tmp_path / "cores.csv", index=False)
    found = areas_flow(
        POPULATION, settlements, "id", out=tmp_path / "o.gpkg", distance=True,
        cores=tmp_path / "cores.csv",
    )  # fmt: skip
    verdicts = found["areas"].sensitivity.joined["verdict"]
    assert len(verdicts)
    assert verdicts.str.contains("given as two cities").all()
    assert not verdicts.str.contains("sure").any()


def test_grid_without_a_city_and_units_without_crs(tmp_path: Path) -> None:
    from builders import GHSL_CRS, squares, write_tif

    write_tif(tmp_path / "pop.tif", np.full((12, 14), 40.0))
    units = squares()
    units.set_crs(None, allow_override=True).to_file(tmp_path / "u.gpkg")
    arguments = {"id": units.columns[0], "out": tmp_path / "o.gpkg", "distance": True}
    with pytest.raises(InputError, match="pass --units-crs"):
        areas_flow(tmp_path / "pop.tif", tmp_path / "u.gpkg", **arguments)
    with pytest.raises(InputError, match=r"no urban centre by the rules R2023A.*--cores"):
        areas_flow(tmp_path / "pop.tif", tmp_path / "u.gpkg", units_crs=GHSL_CRS, **arguments)
    assert not (tmp_path / "o.gpkg").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cellwise": True, "flows": "f.csv"}, "--flows and --cellwise given"),
        ({"cellwise": True, "cores": "c.csv"}, "--cellwise is given with --cores"),
        ({"cellwise": True, "beta": 0.1}, "--beta is given without an estimate"),
        ({"flows": "f.csv", "network": "n", "calibrate_on": "g.csv"}, "--calibrate is given"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        areas_flow("p.tif", "u.gpkg", "id", out=tmp_path / "o.gpkg", **options)


def test_belgian_workflow_with_given_cores(reference: Path, tmp_path: Path, monkeypatch) -> None:
    from qala.fua_reports import compare_areas

    monkeypatch.setenv("QALA_REFERENCE_DATA", str(reference))
    cores = "inputs.cores=belgium/commuting/official_cores_2019.csv"
    workflow = load_workflow("areas-belgium", settings=[cores, "outputs.figures=false"])
    run = flows.run(workflow, out=tmp_path)
    listed = pd.read_csv(
        reference / "belgium" / "commuting" / "official_fua_members_2019.csv",
        dtype={"lau_code": str},
    )
    inside = listed["fua_id"].notna()
    official = pd.DataFrame(
        {
            "unit": listed["lau_code"],
            "area": listed["fua_id"].where(inside, None),
            "role": np.where(listed["is_core"], "core", np.where(inside, "zone", "outside")),
        }
    )
    found = compare_areas(run.tables["membership"], official)
    assert (found.in_or_out, found.same_area, found.units) == (589, 588, 589)
    assert not any("sure" in v for v in run.record["verdicts"])
