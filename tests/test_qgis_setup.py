"""The way into QGIS without QGIS: paths, variables, plugin zip, worker, set-up."""

from __future__ import annotations

import configparser
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
import typer
from typer.testing import CliRunner

import qala
from qala.cli_qgis import register
from qala.errors import InputError, TemporaryError
from qala.qgis import environment, install, requests
from qala.qgis.worker import Cancelled, Event, Run, read_line

PACKAGE = Path(qala.__file__).parents[1]


# --- where things lie ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("platform", "environ", "home", "expected"),
    [
        ("linux", {}, "/home/a", "/home/a/.local/share/QGIS/QGIS3/profiles"),
        ("linux", {"XDG_DATA_HOME": "/d"}, "/home/a", "/d/QGIS/QGIS3/profiles"),
        ("linux", {"QGIS_CUSTOM_CONFIG_PATH": "/q"}, "/home/a", "/q/profiles"),
        (
            "darwin",
            {},
            "/Users/Айгүл",
            "/Users/Айгүл/Library/Application Support/QGIS/QGIS3/profiles",
        ),
        (
            "win32",
            {"APPDATA": r"C:\Users\Айгүл\AppData\Roaming"},
            r"C:\Users\Айгүл",
            r"C:\Users\Айгүл\AppData\Roaming\QGIS\QGIS3\profiles",
        ),
        ("win32", {}, r"C:\Users\a", r"C:\Users\a\AppData\Roaming\QGIS\QGIS3\profiles"),
        ("win32", {"QGIS_CUSTOM_CONFIG_PATH": r"D:\q"}, r"C:\Users\a", r"D:\q\profiles"),
    ],
)
def test_profiles_lie_where_qgis_keeps_them(platform, environ, home, expected):
    found = environment.profiles_folder(environ, platform=platform, home=home)
    kind = PureWindowsPath if platform == "win32" else PurePosixPath
    assert isinstance(found, kind)
    assert found == kind(expected)


def test_profile_of_the_next_major_version():
    found = environment.profiles_folder({}, platform="linux", home="/h", version=4)
    assert str(found) == "/h/.local/share/QGIS/QGIS4/profiles"


def test_the_default_profile_is_the_one_named(tmp_path: Path):
    assert environment.default_profile(tmp_path) == "default"
    (tmp_path / "profiles.ini").write_text("[core]\ndefaultProfile=Жоспар\n", encoding="utf-8")
    assert environment.default_profile(tmp_path) == "Жоспар"


def test_variables_of_qgis_do_not_reach_the_worker():
    given = dict.fromkeys(
        ["PROJ_DATA", "PROJ_LIB", "GDAL_DATA", "GDAL_DRIVER_PATH", "PYTHONHOME", "PYTHONPATH",
         "PYTHONEXECUTABLE", "LD_PRELOAD", "LD_LIBRARY_PATH", "QT_PLUGIN_PATH",
         "DYLD_LIBRARY_PATH", "__PYVENV_LAUNCHER__"], "x",
    )  # fmt: skip
    clean = environment.clean_environment({**given, "LANG": "kk_KZ.UTF-8"}, platform="linux")
    assert not set(given) & set(clean)
    assert clean["LANG"] == "kk_KZ.UTF-8"


def test_windows_loses_the_folders_of_qgis_from_path():
    path = r"C:\Program Files\QGIS 3.34\bin;C:\OSGeo4W\apps\qt5\bin;C:\Windows\system32;D:\qgisdata"
    clean = environment.clean_environment({"Path": path}, platform="win32")
    assert clean["Path"] == r"C:\Windows\system32"
    kept = environment.clean_environment({"PATH": "/opt/qgis/bin:/usr/bin"}, platform="linux")
    assert kept["PATH"] == "/opt/qgis/bin:/usr/bin"


@pytest.mark.parametrize(
    ("place", "platform", "expected"),
    [
        ("/opt/env", "linux", "/opt/env/bin/python3"),
        ("/opt/env/bin/qala", "darwin", "/opt/env/bin/python3"),
        (r"C:\env", "win32", r"C:\env\Scripts\python.exe"),
        (r"C:\env\Scripts\qala.exe", "win32", r"C:\env\Scripts\python.exe"),
        (r"C:\conda\Scripts\qala.exe", "win32", r"C:\conda\python.exe"),
    ],
)
def test_python_of_an_environment(place, platform, expected):
    assert expected in environment.python_of(place, platform=platform)


def make_python(place: Path) -> str:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("#!/bin/sh\n")
    place.chmod(0o755)
    return str(place)


def test_the_worker_is_looked_for_in_order(tmp_path: Path):
    profile = tmp_path / "profile"
    on_path = make_python(tmp_path / "path/bin/python3")
    make_python(tmp_path / "path/bin/qala")
    values = {"PATH": str(tmp_path / "path/bin")}
    find = environment.find_python
    assert find(None, profile=profile, environ=values) == (on_path, "PATH")
    made = make_python(profile / "qala/env/bin/python3")
    assert find(None, profile=profile, environ=values)[0] == made
    noted = make_python(tmp_path / "noted/python")
    (profile / "qala/worker.json").write_text(json.dumps({"python": noted}))
    assert find(None, profile=profile, environ=values)[0] == noted
    variable = make_python(tmp_path / "variable/bin/python")
    values["QALA_PYTHON"] = str(tmp_path / "variable")
    assert find(None, profile=profile, environ=values) == (variable, "QALA_PYTHON")
    setting = make_python(tmp_path / "setting/bin/python3")
    assert find(setting, profile=profile, environ=values)[0] == setting


def test_a_worker_that_was_named_but_is_gone_is_told_not_replaced(tmp_path: Path):
    make_python(tmp_path / "path/bin/python3")
    make_python(tmp_path / "path/bin/qala")
    values = {"PATH": str(tmp_path / "path/bin")}
    with pytest.raises(InputError, match="setting qala/python names /nowhere"):
        environment.find_python("/nowhere", environ=values)
    with pytest.raises(InputError, match="QALA_PYTHON names /nowhere"):
        environment.find_python(None, environ={**values, "QALA_PYTHON": "/nowhere"})
    pointer = tmp_path / "qala/worker.json"
    pointer.parent.mkdir()
    pointer.write_text('{"python": "/nowhere"}')
    with pytest.raises(InputError, match="run qala qgis-setup again"):
        environment.find_python(None, profile=tmp_path, environ=values)
    pointer.write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        environment.find_python(None, profile=tmp_path, environ=values)
    with pytest.raises(InputError, match="pip install qala, then qala qgis-setup"):
        environment.find_python(None, environ={"PATH": str(tmp_path)})


# --- the plugin ----------------------------------------------------------------------


def test_zip_keeps_the_rules_of_the_repository_and_is_the_same_each_time(tmp_path: Path):
    one = install.write_zip(tmp_path / "one.zip")
    two = install.write_zip(tmp_path / "two.zip")
    assert one.read_bytes() == two.read_bytes()
    install.check_zip(one)
    with zipfile.ZipFile(one) as archive:
        names = archive.namelist()
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_string(archive.read("qala/metadata.txt").decode())
        assert f'__version__ = "{qala.__version__}"' in archive.read("qala/__init__.py").decode()
    assert parser["general"]["version"] == qala.__version__
    assert parser["general"]["hasprocessingprovider"] == "yes"
    assert "qala/qgis/provider.py" in names
    assert "qala/qgis/install.py" not in names
    assert one.stat().st_size < 100_000


def test_publishing_needs_the_real_address(tmp_path: Path):
    file = install.write_zip(tmp_path / "q.zip")
    with pytest.raises(InputError, match="placeholder"):
        install.check_zip(file, publish=True)
    install.write_zip(file, url="https://git.example.kz/qala", email="a@example.kz")
    install.check_zip(file, publish=True)


def test_a_bad_zip_is_told_everything_at_once(tmp_path: Path):
    file = tmp_path / "bad.zip"
    good = install.plugin_files()
    metadata = good["metadata.txt"].decode().replace("description=", "x=").replace(
        "name=qala", "name=qala plugin"
    )  # fmt: skip
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("qala/__init__.py", "")
        archive.writestr("qala/metadata.txt", metadata.replace("version=0", "version=x0"))
        archive.writestr("qala/LICENSE", "MIT")
    with pytest.raises(InputError) as error:
        install.check_zip(file)
    for words in ("classFactory", "description is empty", "contains 'plugin'", "version 'x0",
                  "icon icon.svg is missing"):  # fmt: skip
        assert words in str(error.value)
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("қала/a.so", "other/.git/x", "other/__pycache__/a.pyc"):
            archive.writestr(name, "")
    with pytest.raises(InputError) as error:
        install.check_zip(file)
    for words in ("top folders", "a.so is compiled", "hidden or generated", "LICENSE is missing"):
        assert words in str(error.value)


def test_the_plugin_has_no_imports_beyond_qgis_and_the_standard_library():
    import ast

    allowed = {*sys.stdlib_module_names, "qgis", "processing"}
    for name, content in install.plugin_files().items():
        if not name.endswith(".py"):
            continue
        for node in ast.walk(ast.parse(content)):
            found = []
            if isinstance(node, ast.Import):
                found = [a.name for a in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found = [node.module or ""]
            for module in found:
                assert module.split(".")[0] in allowed, f"{name} imports {module}"


def test_the_plugin_is_written_for_the_python_of_old_releases():
    import ast

    for name, content in install.plugin_files().items():
        if name.endswith(".py"):
            # QGIS 3.22 for Windows carries Python 3.9
            ast.parse(content, feature_version=(3, 9))


def test_install_enables_the_plugin_and_notes_the_worker(tmp_path: Path):
    settings = tmp_path / "QGIS/QGIS3.ini"
    settings.parent.mkdir()
    settings.write_text('[core]\na="ә"\n\n[PythonPlugins]\nother=true\n', encoding="utf-8")
    done = install.install(tmp_path, "/env/bin/python")
    (done.plugin / "left over from an older version.py").write_text("")
    again = install.install(tmp_path, "/env/bin/python")
    assert not (again.plugin / "left over from an older version.py").exists()
    assert settings.read_text(encoding="utf-8") == (
        '[core]\na="ә"\n\n[PythonPlugins]\nqala=true\nother=true\n'
    )
    assert json.loads((tmp_path / "qala/worker.json").read_text()) == {"python": "/env/bin/python"}
    assert [p.name for p in (tmp_path / "python/plugins").iterdir()] == ["qala"]


def test_a_profile_that_is_not_there_is_told_with_those_that_are(tmp_path: Path):
    (tmp_path / "profiles/work").mkdir(parents=True)
    with pytest.raises(InputError, match="holds work"):
        install.find_profile(tmp_path, "play")
    assert install.find_profile(tmp_path, "work") == tmp_path / "profiles/work"
    assert install.find_profile(tmp_path / "profiles", "work") == tmp_path / "profiles/work"


def test_the_newest_qgis_that_was_started_is_served(tmp_path, monkeypatch):
    monkeypatch.delenv("QGIS_CUSTOM_CONFIG_PATH", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(environment.sys, "platform", "linux")
    three, four = (tmp_path / f"QGIS/QGIS{n}/profiles/default" for n in (3, 4))
    assert install.find_profile(create=True) == three
    assert install.settings_file(three).name == "QGIS3.ini"
    four.mkdir(parents=True)
    assert install.find_profile() == four
    done = install.install(four, "python")
    assert "qala=true" in (four / "QGIS/QGIS4.ini").read_text()
    assert done.profile == four


def test_setup_by_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    app = typer.Typer()
    app.callback()(lambda: None)
    register(app)
    # whether QGIS itself finds the plugin is asked in test_qgis_app.py
    monkeypatch.setattr("shutil.which", lambda name, path=None: None)
    ran = CliRunner().invoke(
        app, ["qgis-setup", "--profiles-path", str(tmp_path), "--profile", "Жоспар"]
    )
    assert ran.exit_code == 0, ran.output
    profile = tmp_path / "profiles/Жоспар"
    assert (profile / "python/plugins/qala/metadata.txt").exists()
    assert f"qala {qala.__version__}" in ran.output
    assert "not asked" in ran.output
    ran = CliRunner().invoke(app, ["qgis-setup", "--zip", str(tmp_path / "qala.zip")])
    assert ran.exit_code == 0
    install.check_zip(tmp_path / "qala.zip")


def test_setup_refuses_an_environment_without_qala(tmp_path: Path):
    from qala.cli_qgis import _version

    empty = tmp_path / "env"
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(empty)], check=True, timeout=60
    )
    with pytest.raises(InputError, match="has no qala"):
        _version(str(empty / "bin/python"))


# --- what is asked of the worker --------------------------------------------------------


def test_a_workflow_for_the_worker_is_one_that_qala_reads(tmp_path: Path):
    from qala.config import load_workflow

    file = requests.urbanisation_workflow(
        tmp_path / "w.yaml",
        population={2015: ["/a/б.tif"], 2020: ["/a/c.tif", "/a/d.tif"]}, built={}, land={},
        units="/a/units.gpkg", layer="units", id="КАТО", official=None, places=None,
        ruleset="R2023A", rules="2024", thresholds={"centre_density": 1400.0}, lang="kk",
        title="Түркістан: \"2015\"", report=False, sensitivity=True, repair=True,
    )  # fmt: skip
    read = load_workflow(file)
    assert read.inputs.population == {2015: ["/a/б.tif"], 2020: ["/a/c.tif", "/a/d.tif"]}
    assert read.inputs.units is not None
    assert (read.inputs.units.id, read.inputs.units.repair) == ("КАТО", True)
    assert read.cells.thresholds == {"centre_density": 1400.0}
    assert read.title == 'Түркістан: "2015"'
    assert (read.outputs.report, read.outputs.sensitivity) == (False, True)


def test_all_mistakes_of_a_request_at_once(tmp_path: Path):
    with pytest.raises(InputError) as error:
        requests.urbanisation_workflow(
            tmp_path / "w.yaml", population={}, built={}, land={}, units="u.gpkg", layer=None,
            id=None, official=None, places=None, ruleset="x", rules="y", thresholds={}, lang="de",
            title="", report=False, sensitivity=False, repair=False,
        )  # fmt: skip
    for words in (
        "no population",
        "ruleset 'x'",
        "rules 'y'",
        "language 'de'",
        "no column of unit",
    ):
        assert words in str(error.value)
    assert not (tmp_path / "w.yaml").exists()
    with pytest.raises(InputError, match="nothing says how people commute"):
        requests.how_of_areas(flows=None, network=None, distance=False, isochrone=None)
    assert requests.how_of_areas(flows=None, network=None, distance=False, isochrone=90) == [
        "--isochrone", "90"
    ]  # fmt: skip


# --- the worker --------------------------------------------------------------------------


def test_lines_of_the_worker():
    said = read_line('{"level": "warning", "message": "6 cells have no land"}')
    assert said == Event("warning", "6 cells have no land")
    assert read_line('{"level": "info", "message": "x", "progress": 0.5}') == Event(
        "info", "x", 0.5
    )
    assert read_line("{broken") == Event("text", "{broken")
    assert read_line("\n") is None


def fake(tmp_path: Path, body: str) -> str:
    """A Python whose qala does what ``body`` says."""
    package = tmp_path / "fake/qala"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "cli.py").write_text(body)
    script = tmp_path / "fake/python"
    script.write_text(
        "#!/bin/sh\n"
        "# arguments: -I -X utf8 -c CODE …; -I is left out so that the fake is found\n"
        f'shift; PYTHONPATH="{tmp_path}/fake" exec "{sys.executable}" "$@"\n'
    )
    script.chmod(0o755)
    return str(script)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # a zombie has ended
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until(true, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.05)
    return False


def test_the_real_worker_in_a_dirty_environment(tmp_path: Path):
    dirty = {
        **os.environ, "PROJ_LIB": str(tmp_path), "GDAL_DATA": str(tmp_path),
        "PYTHONHOME": str(tmp_path), "PYTHONPATH": str(tmp_path), "LD_LIBRARY_PATH": str(tmp_path),
    }  # fmt: skip
    (tmp_path / "qala.py").write_text("raise SystemExit('the wrong qala')")
    file = tmp_path / "бос.csv"
    file.write_text("unit,population\na,1\n", encoding="utf-8")
    outcome = Run(sys.executable, ["check", str(file)], environ=dirty).outcome()
    assert any("sound" in line for line in outcome.output)
    assert any("бос.csv" in line for line in outcome.output)


def test_sentences_of_the_worker_arrive_whole(tmp_path: Path):
    python = fake(
        tmp_path,
        "import sys\n"
        "def main():\n"
        "    sys.stderr.write('error: units: 2 problems\\n  - a\\n  - ә\\n')\n"
        "    raise SystemExit({'run': 2, 'later': 3}[sys.argv[1]])\n",
    )
    with pytest.raises(InputError) as error:
        Run(python, ["run"]).outcome()
    assert "units: 2 problems\n  - a\n  - ә" in str(error.value)
    with pytest.raises(TemporaryError):
        Run(python, ["later"]).outcome()


def test_a_command_the_worker_lacks_is_said(tmp_path: Path):
    with pytest.raises(InputError, match=r"no command 'fly-to-the-moon'.*a newer qala"):
        Run(sys.executable, ["fly-to-the-moon"]).outcome()
    with pytest.raises(InputError, match="does not know this option of 'check'"):
        Run(sys.executable, ["check", "--fly", "x"]).outcome()
    with pytest.raises(InputError, match="cannot be started"):
        Run(str(tmp_path / "nowhere"), [])


_STUBBORN = """
import os, pathlib, signal, subprocess, sys, time
def main():
    folder = pathlib.Path(sys.argv[1]); folder.mkdir()
    (folder / f".qala-staging-{os.getpid()}").mkdir()
    (folder.parent / f".out.gpkg.{os.getpid()}-1.gpkg").write_text("half")
    (folder.parent / ".other.999999-1.gpkg").write_text("another run's")
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    if sys.argv[2] == "stubborn":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    print(os.getpid(), child.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("manner", ["willing", "stubborn"])
def test_cancel_ends_all_processes_and_leaves_nothing(tmp_path, monkeypatch, manner):
    monkeypatch.setattr("qala.qgis.worker.GRACE", 1.0)
    python = fake(tmp_path, _STUBBORN)
    output = tmp_path / "out"
    run = Run(python, [str(output), manner], output=output)
    said: list[Event] = []
    assert wait_until(lambda: said.extend(run.events(0.1)) or said)
    pids = [int(p) for p in said[0].text.split()]
    assert all(alive(p) for p in pids)
    run.cancel()
    assert wait_until(lambda: not any(alive(p) for p in pids))
    with pytest.raises(Cancelled):
        run.outcome()
    assert sorted(p.name for p in tmp_path.iterdir()) == [".other.999999-1.gpkg", "fake"]


def test_the_worker_ends_when_its_parent_is_killed(tmp_path: Path):
    python = fake(tmp_path, _STUBBORN)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    parent = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "import qala.qgis.worker as w; w.GRACE = 1.0\n"
        "run = w.Run(sys.argv[2], [sys.argv[3], 'stubborn'], scratch=sys.argv[4])\n"
        "while not (said := run.events(0.2)): pass\n"
        "print(said[0].text, flush=True); time.sleep(600)\n"
    )
    arguments = [str(PACKAGE), python, str(tmp_path / "out"), str(scratch)]
    with subprocess.Popen(
        [sys.executable, "-c", parent, *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pids = [int(p) for p in process.stdout.readline().split()]
        assert len(pids) == 2
        process.send_signal(signal.SIGKILL)
    assert wait_until(lambda: not any(alive(p) for p in pids))
    assert not scratch.exists()


def test_a_worker_killed_from_outside_is_told(tmp_path: Path):
    python = fake(tmp_path, _STUBBORN)
    run = Run(python, [str(tmp_path / "out"), "stubborn"], output=tmp_path / "out")
    said: list[Event] = []
    assert wait_until(lambda: said.extend(run.events(0.1)) or said)
    pids = [int(p) for p in said[0].text.split()]
    # its child holds the pipes, which must not hold the caller
    os.kill(pids[0], signal.SIGKILL)
    with pytest.raises(InputError, match="ended by signal 9"):
        run.outcome()
    assert wait_until(lambda: not alive(pids[1]))
