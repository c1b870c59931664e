"""``qala qgis-setup``: plugin and worker for QGIS, without administrator rights."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from qala.errors import InputError


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("qgis-setup")(qgis_setup)


def qgis_setup(
    profile: Annotated[
        str | None, typer.Option(help="QGIS profile; default: the one QGIS starts with.")
    ] = None,
    profiles_path: Annotated[
        Path | None, typer.Option(help="Folder of the profiles; default: QGIS's own.")
    ] = None,
    environment: Annotated[
        Path | None,
        typer.Option(help="Worker environment to use, made if absent; default: this one."),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="What pip installs into a new environment.")
    ] = None,
    zip_file: Annotated[
        Path | None, typer.Option("--zip", help="Only write the plugin as a zip file.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Address of the project, for --zip.")] = None,
    email: Annotated[str | None, typer.Option(help="E-mail of the authors, for --zip.")] = None,
) -> None:
    """Install the QGIS plugin. It is told where qala lives, and both are checked."""
    from qala.qgis import install

    if zip_file is not None:
        install.write_zip(
            zip_file, url=url or install.PLACEHOLDER_URL, email=email or install.PLACEHOLDER_EMAIL
        )
        install.check_zip(zip_file, publish=url is not None)
        typer.echo(str(zip_file))
        if url is None:
            typer.echo("for your own use; the plugin repository needs --url and --email", err=True)
        return
    folder = install.find_profile(profiles_path, profile, create=True)
    python = sys.executable if environment is None else _environment(environment, source)
    done = install.install(folder, python)
    typer.echo(f"profile  {done.profile}")
    typer.echo(f"plugin   {done.plugin}")
    typer.echo(f"worker   {done.python}, {_version(python)}")
    typer.echo(_found_by_qgis(folder))
    typer.echo("Start QGIS (again, if it is open): Processing Toolbox, qala. Console: see docs.")


def _environment(folder: Path, source: str | None) -> str:
    """Return the Python of an environment; make it where it is missing."""
    from qala.qgis.environment import python_of

    for candidate in python_of(str(folder))[1:]:
        if os.access(candidate, os.X_OK):
            return candidate
    typer.echo(f"making the environment {folder} …", err=True)
    wanted = source or _own_source()
    commands = [[sys.executable, "-m", "venv", str(folder)]]
    windows = sys.platform == "win32"
    python = str(folder / ("Scripts/python.exe" if windows else "bin/python"))
    quiet = ["--quiet", "--disable-pip-version-check"]
    commands.append([python, "-m", "pip", "install", *quiet, wanted])
    for command in commands:
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            shutil.rmtree(folder, ignore_errors=True)
            said = (ended.stderr or ended.stdout).strip().splitlines()
            raise InputError(
                f"{' '.join(command[1:4])} failed ({said[-1] if said else 'it said nothing'})",
                "an environment with qala",
                "pass --source, or name an environment that holds qala",
            )
    return python


def _own_source() -> str:
    """Return where this qala was installed from, for pip."""
    import json
    from importlib import metadata

    from qala import __version__

    text = metadata.distribution("qala").read_text("direct_url.json")
    found = str(json.loads(text)["url"]) if text else ""
    return found if found.startswith("file:") else f"qala=={__version__}"


def _version(python: str) -> str:
    """Ask the worker for its version, as QGIS will.

    Raises
    ------
    InputError
        When it does not work.
    """
    from qala.qgis.worker import Run

    return Run(python, ["--version"]).outcome().output[0]


def _found_by_qgis(profile: Path) -> str:
    """Say whether QGIS itself finds the algorithms, where it can be asked."""
    from qala.qgis.environment import clean_environment

    program = shutil.which("qgis_process.bin") or shutil.which("qgis_process")
    if program is None:
        return "QGIS    not asked: qgis_process is not on PATH"
    variables = {
        **clean_environment(),
        "QT_QPA_PLATFORM": "offscreen",
        "QGIS_PLUGINPATH": str(profile / "python" / "plugins"),
        # the system's Python, not that of this environment
        "PATH": os.pathsep.join(("/usr/bin", "/bin", os.environ.get("PATH", ""))),
    }
    variables.pop("PYTHONNOUSERSITE", None)
    try:
        ended = subprocess.run(
            [program, "plugins"], env=variables, capture_output=True, text=True, check=False,
            timeout=90,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"QGIS     not asked: {error}"
    if any(line.split()[-1:] == ["qala"] for line in ended.stdout.splitlines()):
        return "QGIS     finds the plugin"
    raise InputError(
        "QGIS does not find the plugin in the profile", "qala among its plugins",
        f"run {program} plugins and look at what it says",
    )  # fmt: skip
