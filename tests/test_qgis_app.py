"""QGIS itself: the console without and with a window, and the Processing plugin.

With ``QALA_QGIS_PICTURES`` naming a folder, the screenshots are kept there.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import qala
from qala.export.project import embed_project, project_uri
from qala.qgis import install, requests
from qala.qgis.worker import Run

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
PACKAGE = Path(qala.__file__).parents[1]
SAMPLE = HERE.parent / "data/sample"
POPULATION = SAMPLE / "GHS_POP_E2023_SYNTHETIC_54009_1000.tif"
PICTURE_BYTES = 300_000
#: as QGIS's own launchers and users' profiles set them
DIRTY = {
    "PROJ_LIB": "/usr/share/proj",
    "GDAL_DATA": "/usr/share/gdal",
    "PYTHONHOME": "/usr",
    "LD_LIBRARY_PATH": "/usr/lib/x86_64-linux-gnu",
}


def variables(home: Path, **more: str) -> dict[str, str]:
    """Return the environment QGIS is started in."""
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": str(home),
        "TMPDIR": str(home),
        "XDG_RUNTIME_DIR": str(home),
        "LC_ALL": "C.UTF-8",
        "QALA_PYTHON": sys.executable,
        # QGIS would else write statistics beside the rasters of the repository
        "GDAL_PAM_ENABLED": "NO",
        **more,
    }


def need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program, path="/usr/bin:/bin") is None:
            pytest.skip(f"{program} is not installed (tests/qgis/run.sh installs it)")


def facts(lines: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for line in lines:
        if line.startswith("{"):
            found.update(json.loads(line))
    return found


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def profiles(tmp_path: Path) -> Path:
    """A folder of profiles with the plugin installed in profile t."""
    base = tmp_path / "config"
    install.install(install.find_profile(base, "t", create=True), sys.executable)
    return base


def keep(picture: Path) -> None:
    """Keep a screenshot for the documentation, where that is asked for."""
    assert picture.stat().st_size < PICTURE_BYTES
    folder = os.environ.get("QALA_QGIS_PICTURES")
    if folder:
        shutil.copy(picture, Path(folder) / picture.name)


# --- the console without a window -------------------------------------------------------


def test_console_functions_in_a_dirty_environment(tmp_path: Path, home: Path):
    need("qgis_process.bin")
    run = subprocess.run(
        ["/usr/bin/python3", str(HERE / "qgis/console.py"), str(PACKAGE), str(SAMPLE),
         str(tmp_path)],
        env=variables(home, QT_QPA_PLATFORM="offscreen", **DIRTY), capture_output=True, text=True,
        timeout=240, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    found = facts(run.stdout.splitlines())
    assert found["heavy"] == [], "qala.qgis imports more than qgis and the standard library"
    assert len(found["ids"]) == 3
    assert "KZ-өзгерді" in found["ids"], "unsaved edits go in"
    assert found["back"] == found["ids"], "the selection alone, joined by id"
    assert found["joined"] is True
    assert found["still editing"] is True
    assert found["group"][0] == "Түркістан"
    assert found["group"][1][:2] == ["Қала орталықтары, 2023", "Аумақтық бірліктер сыныптары"]
    assert found["styles"] == ["categorizedSymbol", "degurba_l2"]
    assert found["again"][0] == "Түркістан (2)"
    assert found["indicators"][0] == "indicators_units"
    assert found["indicators"][1] == found["ids"], "joined back by the user's own ids"
    assert found["areas"] == ["Функционалды қалалық аймақтар", True]
    assert found["check"] == [True, False]
    assert found["status"] is True
    assert found["help"][1] is True
    sentences = {
        "no such layer": "'Население' is neither a file nor a layer of the project",
        "no such column": "layer 'Аудандар' has no column 'code'; expected one of КАТО коды, Атауы",
        "no id": "no column of unit ids",
        "wrong rules": "ruleset 'R1999'",
        "wrong threshold": "'centre_densty' is unknown",
        "two ways": "distance and isochrone are given",
        "wrong box": "west < east",
        "nothing selected": "nothing is selected in layer 'Аудандар'",
        "no worker": "pip install qala, then qala qgis-setup",
    }
    for name, words in sentences.items():
        returned, said = found[name]
        assert returned is None
        assert words in said
        assert "Traceback" not in said
    assert found["in a script"][0] == "InputError"
    # nothing but the result: no temporary files, no half-made folders
    left = {p.name for p in tmp_path.iterdir()} - {"home"}
    assert left == {"Нәтиже", "areas.gpkg", "indicators.gpkg", "indicators.csv"}
    assert not list(home.glob("qala-*"))


# --- the console in a window --------------------------------------------------------------


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run over the sample hands to planners; its grids are SYNTHETIC."""
    folder = tmp_path_factory.mktemp("package")
    workflow = requests.urbanisation_workflow(
        folder / "workflow.yaml",
        population={2023: [str(POPULATION)]},
        built={None: [str(SAMPLE / "GHS_BUILT_S_E2023_SYNTHETIC_54009_1000.tif")]},
        land={None: [str(SAMPLE / "GHS_LAND_E2018_SYNTHETIC_54009_1000.tif")]},
        units=str(SAMPLE / "units.gpkg"), layer=None, id="unit",
        official=str(SAMPLE / "official.csv"), places=str(SAMPLE / "settlements.csv"),
        ruleset="R2023A", rules="2024", thresholds={}, lang="en", title="Turkistan region",
        report=False, sensitivity=False, repair=False,
    )  # fmt: skip
    Run(sys.executable, ["run", str(workflow), "--out", str(folder / "out")]).outcome()
    sources = [
        "Boundaries and places: © OpenStreetMap contributors, ODbL 1.0",
        "Population totals: Bureau of National Statistics of Kazakhstan",
        "Grids: SYNTHETIC, modelled on GHSL's grid",
    ]
    return embed_project(
        folder / "out/urbanisation.gpkg", title="Turkistan region and Shymkent, 2023",
        sources=sources, synthetic=True,
    )  # fmt: skip


@pytest.fixture
def package(result: Path, tmp_path: Path) -> Path:
    """The GeoPackage alone in a folder of its own."""
    folder = tmp_path / "package"
    folder.mkdir()
    return Path(shutil.copy(result, folder))


def test_the_layout_prints(package: Path, tmp_path: Path, home: Path):
    need("qgis_process.bin")
    run = subprocess.run(
        ["/usr/bin/python3", str(HERE / "qgis/project.py"), str(package), str(tmp_path)],
        env=variables(home, QT_QPA_PLATFORM="offscreen"), capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    found = facts(run.stdout.splitlines())
    assert found["printed"] is True
    assert found["broken"] == []
    assert found["warnings"] == []
    assert "SYNTHETIC" in found["texts"]["sources"]
    assert "synthetic" in found["items"]
    colours_of_the_degree(tmp_path / "qgis-layout.png", 2_000)
    keep(tmp_path / "qgis-layout.png")


def test_console_in_the_window(tmp_path: Path, home: Path, profiles: Path, package: Path):
    need("qgis", "xvfb-run")
    out = tmp_path / "out"
    out.mkdir()
    command = [
        "xvfb-run", "-a", "-s", "-screen 0 1600x1000x24", "qgis", "--nologo", "--noversioncheck",
        "--profiles-path", str(profiles), "--profile", "t",
        "--code", str(HERE / "qgis/window.py"),
    ]  # fmt: skip
    values = variables(
        home, QALA_TEST_SAMPLE=str(SAMPLE), QALA_TEST_OUT=str(out),
        QALA_TEST_PROJECT=project_uri(package), **DIRTY,
    )  # fmt: skip
    # the profile names the worker, as after qgis-setup
    del values["QALA_PYTHON"]
    bytes_before = package.read_bytes()
    with subprocess.Popen(
        command, env=values, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            process.wait(timeout=240)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    lines = (out / "window.jsonl").read_text(encoding="utf-8").splitlines()
    found = facts(lines)
    assert found.get("done") is True, found.get("failed", lines)
    # cancelled by its button: nothing of it is left
    assert found["cancel left"] == []
    assert found["cancel folder"] is False
    assert found["layers after cancel"] == 2
    # the window lived while the worker ran
    assert found["progress shown"] is True
    assert found["ticks"] >= 10
    assert found["longest gap"] < found["seconds"] / 2
    assert found["quiet"] is True
    assert found["group"] == "Turkistan"
    assert found["beside results"] == ["urbanisation.gpkg"]
    assert found["no traceback"] is True
    assert found["sentence"] is True
    assert ["Units by class", "categorizedSymbol"] in found["toolbox"]
    assert len(found["menu"]) == 3
    # the project inside a GeoPackage
    assert found["opened"] is True
    assert found["title"] == "Turkistan region and Shymkent, 2023"
    assert found["crs"] == "EPSG:32642"
    assert found["warnings"] == []
    assert found["beside"] == ["urbanisation.gpkg"]
    assert package.read_bytes() == bytes_before
    for name in ("qgis-console", "qgis-running", "qgis-project"):
        picture = out / f"{name}.png"
        colours_of_the_degree(picture, 0 if name == "qgis-running" else 2_000)
        keep(picture)


def colours_of_the_degree(picture: Path, least: int) -> None:
    """Look for the official colours of city, suburb and village on a screenshot."""
    import matplotlib.image as mpimg
    import numpy as np

    from qala.rules import COLOURS

    image = (mpimg.imread(picture)[..., :3] * 255).round().astype(int)
    assert image.shape[1] >= 1200
    for code in (30, 21, 13):
        count = int((np.abs(image - COLOURS[code]).sum(axis=2) < 6).sum())
        assert count >= min(least, 200 if code == 30 else least), (picture.name, code, count)


# --- Processing ----------------------------------------------------------------------------


def process(
    home: Path, profiles: Path, *arguments: str, **more: str
) -> subprocess.CompletedProcess[str]:
    need("qgis_process.bin")
    plugins = profiles / "profiles/t/python/plugins"
    values = variables(home, QT_QPA_PLATFORM="offscreen", QGIS_PLUGINPATH=str(plugins), **more)
    return subprocess.run(
        ["qgis_process.bin", *arguments], env=values, capture_output=True, text=True, timeout=600,
        check=False,
    )  # fmt: skip


@pytest.fixture
def enabled(home: Path, profiles: Path) -> Path:
    ran = process(home, profiles, "plugins", "enable", "qala")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return profiles


def options(values: Mapping[str, Any]) -> list[str]:
    return [f"--{k}={v}" for k, v in values.items()]


def test_plugin_lists_its_algorithms_with_help(home: Path, enabled: Path):
    listed = process(home, enabled, "list").stdout
    names = ("urbanisation", "functionalareas", "traveltimes", "citylayers", "indicators",
             "checkdata")  # fmt: skip
    for name in names:
        assert f"qala:{name}" in listed
        text = process(home, enabled, "help", f"qala:{name}").stdout
        lines = text.splitlines()
        begin, end = lines.index("Arguments"), lines.index("Outputs")
        named = [
            i
            for i in range(begin, end)
            if ": " in lines[i] and not lines[i].startswith(("\t", "-"))
        ]
        assert named
        # each parameter has a line of help below its name
        for i in named:
            assert lines[i + 1].startswith("\t"), lines[i]
            assert not lines[i + 1].startswith("\tArgument type"), lines[i]


def test_urbanisation_runs_in_a_dirty_environment(tmp_path: Path, home: Path, enabled: Path):
    out = tmp_path / "нәтиже"
    given = {"POPULATION": POPULATION, "UNITS": SAMPLE / "units.gpkg", "ID": "unit",
             "LANGUAGE": 3, "CENTRE_DENSITY": 1500, "OUTPUT": out}  # fmt: skip
    ran = process(home, enabled, "run", "qala:urbanisation", *options(given), **DIRTY)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    results = dict(
        line.split(":\t") for line in ran.stdout.split("Results")[-1].splitlines() if ":\t" in line
    )
    assert results["OUTPUT"] == str(out)
    assert results["UNITS_CLASSES"] == f"{out}/urbanisation.gpkg|layername=units"
    import geopandas as gpd

    units = gpd.read_file(out / "urbanisation.gpkg", layer="units")
    assert len(units) == 18
    assert set(units["degurba_l2"]) <= {30, 23, 22, 21, 13, 12, 11}
    assert not list(home.glob("qala-*"))


def test_functional_areas_travel_times_and_models(tmp_path, home, enabled, result):
    out = tmp_path / "areas.gpkg"
    given = {"POPULATION": POPULATION, "UNITS": SAMPLE / "units.gpkg", "ID": "unit", "HOW": 0,
             "OUTPUT": out}  # fmt: skip
    ran = process(home, enabled, "run", "qala:functionalareas", *options(given))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"AREAS:\t{out}|layername=areas" in ran.stdout
    assert f"MEMBERSHIP:\t{out}|layername=membership" in ran.stdout
    out = tmp_path / "times.gpkg"
    # an output of one algorithm, as a model hands it to the next
    centres = f"{result}|layername=urban_centres_2023"
    given = {"NETWORK": SAMPLE / "roads_SYNTHETIC.osm.pbf", "ORIGINS": centres,
             "POPULATION": POPULATION, "MAX_MINUTES": 60, "OUTPUT": out}  # fmt: skip
    ran = process(home, enabled, "run", "qala:traveltimes", *options(given))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "TIMES:\t" in ran.stdout
    import pyogrio

    assert len(pyogrio.list_layers(out)) >= 1


def test_city_layers_of_a_real_place(tmp_path, home, enabled, reference):
    out = tmp_path / "city"
    given = {"OSM": reference / "osm/monaco_2021.osm.pbf",
             "EXTENT": "7.415,7.425,43.73,43.74 [EPSG:4326]", "OUTPUT": out}  # fmt: skip
    ran = process(home, enabled, "run", "qala:citylayers", *options(given))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"BUILDINGS:\t{out}/city.gpkg|layername=buildings" in ran.stdout
    import pyogrio

    assert pyogrio.read_info(out / "city.gpkg", layer="buildings")["features"] > 100


def test_indicators_of_two_years(tmp_path: Path, home: Path, enabled: Path):
    out = tmp_path / "көрсеткіштер.gpkg"
    given = {
        "POPULATION": SAMPLE / "GHS_POP_E2026_SYNTHETIC_54009_1000.tif", "EPOCH": 2026,
        "POPULATION_BEFORE": POPULATION, "EPOCH_BEFORE": 2023,
        "BUILT": SAMPLE / "GHS_BUILT_S_E2026_SYNTHETIC_54009_1000.tif",
        "BUILT_BEFORE": SAMPLE / "GHS_BUILT_S_E2023_SYNTHETIC_54009_1000.tif",
        "UNITS": SAMPLE / "units.gpkg", "ID": "unit", "ZONES": SAMPLE / "units.gpkg",
        "LANGUAGE": 3, "OUTPUT": out,
    }  # fmt: skip
    ran = process(home, enabled, "run", "qala:indicators", *options(given), **DIRTY)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"UNITS_INDICATORS:\t{out}|layername=indicators_units" in ran.stdout
    import geopandas as gpd

    units = gpd.read_file(out, layer="indicators_units")
    assert len(units) == 18
    table = gpd.read_file(out, layer="indicators")
    # from the earlier year to the later one, and people inside the zones
    assert {"2023"} <= set(table["since"].dropna().astype(str).str[:4])
    assert not list(home.glob("qala-*"))


@pytest.mark.parametrize(
    ("algorithm", "given", "words"),
    [
        ("urbanisation", {"POPULATION": POPULATION, "UNITS": SAMPLE / "units.gpkg"}, "ID is empty"),
        ("urbanisation", {"POPULATION": POPULATION, "RULESET": 9}, "RULESET"),
        ("functionalareas", {"POPULATION": POPULATION, "UNITS": SAMPLE / "units.gpkg", "ID": "unit",
                             "HOW": 2}, "FLOWS is empty"),
        ("urbanisation", {"POPULATION": SAMPLE / "units.gpkg"}, "POPULATION"),
        ("indicators", {"POPULATION": POPULATION, "UNITS": SAMPLE / "units.gpkg", "ID": "unit",
                        "POPULATION_BEFORE": POPULATION}, "EPOCH is empty"),
        ("citylayers", {"OSM": "/nowhere.osm.pbf"}, "neither a file nor a layer"),
    ],
)  # fmt: skip
def test_bad_parameters_are_told(tmp_path, home, enabled, algorithm, given, words):
    target = tmp_path / "x.gpkg"
    ran = process(home, enabled, "run", f"qala:{algorithm}", *options(given), f"--OUTPUT={target}")
    assert ran.returncode != 0
    assert words in ran.stdout + ran.stderr
    assert "Traceback" not in ran.stdout + ran.stderr
    assert not target.exists()


def test_check_data_says_what_is_wrong(tmp_path: Path, home: Path, enabled: Path):
    bad = tmp_path / "bad.tif"
    bad.write_bytes(b"not a raster")
    ran = process(home, enabled, "run", "qala:checkdata", f"--FILE={SAMPLE / 'units.gpkg'}")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "SOUND:\ttrue" in ran.stdout
    ran = process(home, enabled, "run", "qala:checkdata", f"--FILE={bad}")
    assert "SOUND:\tfalse" in ran.stdout
    ran = process(home, enabled, "run", "qala:checkdata", f"--FILE={bad}", "--STRICT=true")
    assert ran.returncode != 0


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_cancel_kills_the_worker_and_leaves_nothing(tmp_path, home, enabled, sent):
    need("qgis_process.bin")
    out = tmp_path / "out"
    given = {"POPULATION": POPULATION, "UNITS": SAMPLE / "units.gpkg", "ID": "unit",
             "REPORT": "true", "OUTPUT": out}  # fmt: skip
    plugins = enabled / "profiles/t/python/plugins"
    values = variables(home, QT_QPA_PLATFORM="offscreen", QGIS_PLUGINPATH=str(plugins))
    with subprocess.Popen(
        ["qgis_process.bin", "run", "qala:urbanisation", *options(given)], env=values,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as qgis:  # fmt: skip
        assert until(lambda: list(out.glob(".qala-staging-*")) or qgis.poll() is not None)
        # what a run keeps to go on from must go as well
        assert until(lambda: list(out.glob(".qala-steps/*/step.json")))
        [stage] = out.glob(".qala-staging-*")
        worker = int(stage.name.rpartition("-")[2])
        qgis.send_signal(sent)
        assert until(lambda: not Path(f"/proc/{worker}").exists())
        # QGIS itself ends after SIGINT only once the algorithm has returned
        qgis.wait(timeout=60)
    assert not out.exists() or not any(out.rglob("*.*"))
    assert until(lambda: not list(home.glob("qala-*")), 5)


def until(true: Any, seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.05)
    return False


def test_setup_is_found_by_qgis(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch):
    need("qgis_process.bin")
    from qala.cli_qgis import _found_by_qgis

    for name, value in variables(home).items():
        monkeypatch.setenv(name, value)
    done = install.install(install.find_profile(tmp_path, "t", create=True))
    assert _found_by_qgis(done.profile) == "QGIS     finds the plugin"
