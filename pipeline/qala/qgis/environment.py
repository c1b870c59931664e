"""Where the worker lives: QGIS profiles, environments, and clean variables.

Standard library alone, any platform's rules on any platform, so that they can
be tested where QGIS does not run.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

from ..errors import InputError

#: variables with which QGIS and its launchers point at their own libraries
DROPPED = frozenset(
    {
        "GDAL_DATA",
        "GDAL_DRIVER_PATH",
        "MPLBACKEND",
        "PROJ_DATA",
        "PROJ_LIB",
        "PYTHONEXECUTABLE",
        "PYTHONHOME",
        "PYTHONPATH",
        "PYTHONPLATLIBDIR",
        "PYTHONSTARTUP",
        "QGIS_PREFIX_PATH",
        "QT_PLUGIN_PATH",
        "VIRTUAL_ENV",
        "__PYVENV_LAUNCHER__",
    }
)
_DROPPED_PREFIXES = ("LD_", "DYLD_")
#: the file in a profile that names the worker's Python
POINTER = "worker.json"
_SET_UP = (
    "make the worker environment once, in a terminal: pip install qala, then qala qgis-setup; "
    "or name its Python in the variable QALA_PYTHON"
)


def clean_environment(
    environ: Mapping[str, str] | None = None, *, platform: str | None = None
) -> dict[str, str]:
    """Return environment variables without what points at QGIS's libraries.

    Parameters
    ----------
    environ
        Variables to start from; this process's where None.
    platform
        As ``sys.platform``.

    Examples
    --------
    >>> clean_environment({"PROJ_LIB": "/usr/share/proj", "LD_PRELOAD": "x", "HOME": "/h"},
    ...                   platform="linux")
    {'HOME': '/h', 'MPLBACKEND': 'Agg', 'PYTHONNOUSERSITE': '1'}
    """
    platform = platform or sys.platform
    kept = {
        name: value
        for name, value in (os.environ if environ is None else environ).items()
        if name.upper() not in DROPPED and not name.upper().startswith(_DROPPED_PREFIXES)
    }
    if platform == "win32":
        # libraries are also found along PATH there
        for name in [n for n in kept if n.upper() == "PATH"]:
            parts = [p for p in kept[name].split(";") if not _is_qgis_folder(p)]
            kept[name] = ";".join(parts)
    return {**kept, "MPLBACKEND": "Agg", "PYTHONNOUSERSITE": "1"}


def _is_qgis_folder(text: str) -> bool:
    parts = [p.lower() for p in PureWindowsPath(text).parts]
    return any(p.startswith(("qgis", "osgeo4w")) for p in parts)


def profiles_folder(
    environ: Mapping[str, str] | None = None,
    *,
    platform: str | None = None,
    home: str | None = None,
    version: int = 3,
) -> PurePath:
    r"""Return the folder in which QGIS keeps its profiles.

    Parameters
    ----------
    environ
        Environment variables; this process's where None.
    platform
        As ``sys.platform``: ``linux``, ``darwin``, ``win32``.
    home
        The user's folder; found where None.
    version
        Major version of QGIS.

    Notes
    -----
    QGIS user guide, "Working with user profiles"; ``QGIS_CUSTOM_CONFIG_PATH``
    wins as it does in QGIS itself.

    Examples
    --------
    >>> str(profiles_folder({}, platform="linux", home="/home/a"))
    '/home/a/.local/share/QGIS/QGIS3/profiles'
    >>> str(profiles_folder({"APPDATA": "C:/Users/a/AppData/Roaming"}, platform="win32"))
    'C:\\Users\\a\\AppData\\Roaming\\QGIS\\QGIS3\\profiles'
    """
    values = os.environ if environ is None else environ
    platform = platform or sys.platform
    kind: type[PurePath] = PureWindowsPath if platform == "win32" else PurePosixPath
    if values.get("QGIS_CUSTOM_CONFIG_PATH"):
        return kind(values["QGIS_CUSTOM_CONFIG_PATH"]) / "profiles"
    base = kind(home if home is not None else str(Path.home()))
    if platform == "win32":
        roaming = kind(values["APPDATA"]) if values.get("APPDATA") else base / "AppData/Roaming"
        folder = roaming / "QGIS"
    elif platform == "darwin":
        folder = base / "Library/Application Support/QGIS"
    else:
        shared = values.get("XDG_DATA_HOME")
        folder = (kind(shared) if shared else base / ".local/share") / "QGIS"
    return folder / f"QGIS{version}" / "profiles"


def default_profile(profiles: Path) -> str:
    """Return the profile that QGIS starts with: that of ``profiles.ini``, else ``default``."""
    file = profiles / "profiles.ini"
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return "default"
    for line in lines:
        key, sign, value = line.partition("=")
        if sign and key.strip() == "defaultProfile" and value.strip():
            return value.strip().strip('"')
    return "default"


def python_of(place: str, *, platform: str | None = None) -> list[str]:
    """Return where an environment's Python may lie, given as a folder or a program.

    Examples
    --------
    >>> python_of("/opt/qala", platform="linux")
    ['/opt/qala', '/opt/qala/bin/python3', '/opt/qala/bin/python']
    >>> python_of("/opt/qala/bin/qala", platform="linux")[-1]
    '/opt/qala/bin/python'
    """
    windows = (platform or sys.platform) == "win32"
    kind: type[PurePath] = PureWindowsPath if windows else PurePosixPath
    path = kind(place)
    if path.stem.lower() == "qala" and path.parent.name.lower() in {"bin", "scripts"}:
        # the command itself: its Python lies beside it, or above it under Windows
        beside = [path.parent / n for n in (("python.exe",) if windows else ("python3", "python"))]
        return [str(p) for p in beside] + ([str(path.parents[1] / "python.exe")] if windows else [])
    if windows:
        inside = [path / "Scripts" / "python.exe", path / "python.exe"]
    else:
        inside = [path / "bin" / "python3", path / "bin" / "python"]
    return [str(path), *map(str, inside)]


def _program(place: str) -> str | None:
    """Return the Python at a place that is there and can be run."""
    for candidate in python_of(place):
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    return None


def find_python(
    setting: str | None = None,
    *,
    profile: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> tuple[str, str]:
    """Return the worker's Python, and where it was named.

    Parameters
    ----------
    setting
        What the user chose: a Python, an environment's folder, or a ``qala``.
    profile
        Folder of the QGIS profile.
    environ
        Environment variables; this process's where None.

    Raises
    ------
    InputError
        When none is found, with how to make one; when one was named that is
        not there, rather than taking another.

    Notes
    -----
    Looked for in this order: the setting, ``QALA_PYTHON``, the profile
    (``qala/worker.json``, then ``qala/env``), the command ``qala`` on PATH.
    """
    values = os.environ if environ is None else environ
    for place, named in (
        (setting, "the setting qala/python"),
        (values.get("QALA_PYTHON"), "QALA_PYTHON"),
    ):
        if place:
            found = _program(os.path.expanduser(place))
            if found is None:
                raise InputError(
                    f"{named} names {place}, where there is no Python",
                    "the Python of qala's environment, or its folder",
                    _SET_UP,
                )
            return found, named
    if profile is not None:
        pointer = profile / "qala" / POINTER
        if pointer.exists():
            try:
                place = json.loads(pointer.read_text(encoding="utf-8"))["python"]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{pointer} cannot be read ({error})", "the file that qgis-setup writes",
                    "run qala qgis-setup again",
                ) from error  # fmt: skip
            found = _program(str(place))
            if found is None:
                raise InputError(
                    f"the profile names {place}, where there is no Python any more",
                    "qala's environment",
                    "run qala qgis-setup again",
                )
            return found, str(pointer)
        found = _program(str(profile / "qala" / "env"))
        if found is not None:
            return found, str(profile / "qala" / "env")
    command = shutil.which("qala", path=values.get("PATH"))
    if command is not None:
        found = _program(os.path.realpath(command)) or _program(command)
        if found is not None:
            return found, "PATH"
    raise InputError("qala's worker environment was not found", "an environment with qala", _SET_UP)
