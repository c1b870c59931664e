"""The plugin as a folder or zip, and its way into a profile. Standard library alone."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import sys
import uuid
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, Problems
from .environment import POINTER, default_profile, profiles_folder

_HERE = Path(__file__).resolve().parent
#: stands where the repository's address is not known yet
PLACEHOLDER_URL, PLACEHOLDER_EMAIL = "https://example.org/qala", "qala@example.org"
#: what the plugin repository asks for
REQUIRED = (
    "name",
    "qgisMinimumVersion",
    "description",
    "about",
    "version",
    "author",
    "email",
    "repository",
    "tracker",
    "license",
)
#: major versions of QGIS, the newest first
MAJORS = (4, 3)
MAX_ZIP_BYTES = 20_000_000
_COMPILED = (".so", ".pyd", ".dll", ".dylib", ".pyc", ".exe", ".o", ".a", ".whl", ".nbi", ".nbc")
_STAMP = (2026, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Installed:
    """Where things lie after set-up."""

    profile: Path
    plugin: Path
    python: str


def plugin_files(*, url: str = PLACEHOLDER_URL, email: str = PLACEHOLDER_EMAIL) -> dict[str, bytes]:
    """Return the plugin's files: path inside the folder ``qala`` → content."""
    from .. import __version__

    values = {"@VERSION@": __version__, "@URL@": url.rstrip("/"), "@EMAIL@": email}
    found: dict[str, bytes] = {}
    for file in sorted((_HERE / "plugin").iterdir()):
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            for mark, value in values.items():
                text = text.replace(mark, value)
            found[file.name] = text.encode()
    package = _HERE.parent
    for file in sorted(_HERE.glob("*.py")):
        if file.name == Path(__file__).name:
            continue
        found[f"qgis/{file.name}"] = file.read_bytes()
    found["errors.py"] = (package / "errors.py").read_bytes()
    found["export/__init__.py"] = b'"""Parts of qala that the plugin carries."""\n'
    found["export/arrangement.py"] = (package / "export" / "arrangement.py").read_bytes()
    return found


def write_zip(
    path: str | Path, *, url: str = PLACEHOLDER_URL, email: str = PLACEHOLDER_EMAIL
) -> Path:
    """Write the plugin as the repository takes it; equal sources give equal bytes.

    Raises
    ------
    InputError
        When the folder cannot be written to.
    """
    target = Path(path)
    work = target.with_name(f".{target.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        with zipfile.ZipFile(work, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in sorted(plugin_files(url=url, email=email).items()):
                entry = zipfile.ZipInfo(f"qala/{name}", _STAMP)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, content)
        work.replace(target)
    except OSError as error:
        raise InputError(f"{target} cannot be written ({error})", "a folder to write to") from error
    finally:
        work.unlink(missing_ok=True)
    return target


def check_zip(path: str | Path, *, publish: bool = False) -> None:
    """Hold a plugin zip against the rules of QGIS's plugin repository.

    Parameters
    ----------
    path
        The zip.
    publish
        Also refuse placeholders for address and e-mail.

    Raises
    ------
    InputError
        With everything that breaks a rule.

    Notes
    -----
    https://plugins.qgis.org/docs/publish: one folder with a plain ASCII name,
    ``metadata.txt`` with its keys, ``__init__.py`` with ``classFactory``,
    ``LICENSE``, no compiled or hidden files, no generated folders, small.
    """
    file = Path(path)
    problems = Problems(file.name)
    if file.stat().st_size > MAX_ZIP_BYTES:
        problems.add(f"{file.stat().st_size:,} bytes", f"at most {MAX_ZIP_BYTES:,}")
    with zipfile.ZipFile(file) as archive:
        listed = archive.namelist()
        roots = {n.split("/")[0] for n in listed}
        if len(roots) != 1 or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", next(iter(roots))):
            problems.add(f"top folders {sorted(roots)}", "one folder with an ASCII name")
        root = sorted(roots)[0]
        for name in listed:
            parts = name.split("/")
            if name.lower().endswith(_COMPILED):
                problems.add(f"{name} is compiled", "source files alone")
            if any(p.startswith(".") or p in ("__pycache__", "__MACOSX") for p in parts):
                problems.add(f"{name} is hidden or generated", "no such files")
        for needed in ("metadata.txt", "__init__.py", "LICENSE"):
            if f"{root}/{needed}" not in listed:
                problems.add(f"{needed} is missing", f"{root}/{needed}")
        problems.raise_if_any()
        if b"def classFactory(" not in archive.read(f"{root}/__init__.py"):
            problems.add("__init__.py has no classFactory", "the function QGIS calls")
        parser = configparser.ConfigParser(interpolation=None)
        parser.optionxform = str  # type: ignore[assignment, method-assign]
        parser.read_string(archive.read(f"{root}/metadata.txt").decode("utf-8"))
    general = parser["general"]
    for key in REQUIRED:
        if not general.get(key, "").strip():
            problems.add(f"metadata.txt: {key} is empty or missing", "a value")
    if "plugin" in general.get("name", "").lower():
        problems.add("metadata.txt: the name contains 'plugin'", "a name without it")
    if not re.fullmatch(r"\d+(\.\d+)+([.-]?\w+)?", general.get("version", "")):
        problems.add(f"metadata.txt: version {general.get('version')!r}", "for instance 1.2.0")
    if "\n" in general.get("description", ""):
        problems.add("metadata.txt: the description has several lines", "one line")
    if general.get("icon") and f"{root}/{general['icon']}" not in listed:
        problems.add(f"icon {general['icon']} is missing", "the file it names")
    if publish:
        for key in ("repository", "tracker", "email"):
            if "example.org" in general.get(key, ""):
                problems.add(f"metadata.txt: {key} is a placeholder", "the project's own")
    problems.raise_if_any()


def find_profile(
    profiles: str | Path | None = None, name: str | None = None, *, create: bool = False
) -> Path:
    """Return the folder of a QGIS profile.

    Parameters
    ----------
    profiles
        Folder that QGIS is given by ``--profiles-path``, or its ``profiles``;
        where None that of the newest QGIS that has been started here.
    name
        Profile; the one QGIS starts with where None.
    create
        Make the profile's folder where it is missing; QGIS fills it at its
        first start.

    Raises
    ------
    InputError
        When there is none, with those that are there.
    """
    base = Path(profiles) if profiles is not None else _own_profiles()
    if profiles is not None and base.name != "profiles":
        # as `qgis --profiles-path X`, which keeps them in X/profiles
        base = base / "profiles"
    folder = base / (name or default_profile(base))
    if folder.is_dir():
        return folder
    if create:
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise InputError(
                f"{folder} cannot be made ({error})", "a folder to write to"
            ) from error
        return folder
    there = sorted(p.name for p in base.iterdir() if p.is_dir()) if base.is_dir() else []
    listed = f"{base} holds {', '.join(there)}" if there else f"{base} holds no profile"
    raise InputError(
        f"{folder} does not exist", "the folder of a QGIS profile",
        f"{listed}; start QGIS once, or pass --profile or --profiles-path",
    )  # fmt: skip


def _own_profiles() -> Path:
    """Return QGIS's own folder of profiles, of the newest major version that has one."""
    for version in MAJORS:
        folder = Path(profiles_folder(version=version))
        if folder.is_dir():
            return folder
    return Path(profiles_folder())


def settings_file(profile: Path) -> Path:
    """Return the settings of a profile, which carry QGIS's major version in their name."""
    folder = profile / "QGIS"
    for version in MAJORS:
        file = folder / f"QGIS{version}.ini"
        if file.exists() or f"QGIS{version}" in profile.parts:
            return file
    return folder / "QGIS3.ini"


def install(profile: Path, python: str | None = None) -> Installed:
    """Put the plugin into a profile, enable it, and note the worker's Python.

    Parameters
    ----------
    profile
        Folder of the profile.
    python
        The worker's Python; the one that runs this where None.

    Raises
    ------
    InputError
        When the profile cannot be written to.
    """
    worker = python or sys.executable
    plugins = profile / "python" / "plugins"
    target = plugins / "qala"
    work = plugins / f".qala-{uuid.uuid4().hex[:8]}"
    old = plugins / f".qala-old-{uuid.uuid4().hex[:8]}"
    try:
        for name, content in plugin_files().items():
            file = work / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        if target.exists():
            target.rename(old)
        work.rename(target)
        note = profile / "qala" / POINTER
        note.parent.mkdir(exist_ok=True)
        text = json.dumps({"python": worker}, ensure_ascii=False, indent=1) + "\n"
        draft = note.with_name(f".{note.name}.{os.getpid()}")
        draft.write_text(text, encoding="utf-8")
        draft.replace(note)
        _enable(settings_file(profile))
    except OSError as error:
        raise InputError(
            f"the plugin cannot be installed in {profile} ({error})",
            "a profile that this user may write to",
            "close QGIS, or name another profile with --profile",
        ) from error
    finally:
        for leftover in (work, old):
            shutil.rmtree(leftover, ignore_errors=True)
    return Installed(profile, target, worker)


def _enable(file: Path) -> None:
    """Enable the plugin in a profile's settings, touching one line."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    changed = enabled(text)
    if changed != text:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f".{file.name}.{os.getpid()}")
        draft.write_text(changed, encoding="utf-8")
        draft.replace(file)


def enabled(settings: str) -> str:
    r"""Return QGIS's settings with the plugin enabled.

    Examples
    --------
    >>> enabled("[PythonPlugins]\nqala=false\nother=true\n")
    '[PythonPlugins]\nqala=true\nother=true\n'
    >>> enabled("[qgis]\nx=1\n")
    '[qgis]\nx=1\n\n[PythonPlugins]\nqala=true\n'
    """
    lines = settings.splitlines()
    begin = next((i for i, t in enumerate(lines) if t.strip() == "[PythonPlugins]"), None)
    if begin is None:
        return settings + ("\n" if settings else "") + "[PythonPlugins]\nqala=true\n"
    for number in range(begin + 1, len(lines)):
        if lines[number].startswith("["):
            break
        if lines[number].split("=")[0].strip() == "qala":
            lines[number] = "qala=true"
            return "\n".join(lines) + "\n"
    lines.insert(begin + 1, "qala=true")
    return "\n".join(lines) + "\n"
