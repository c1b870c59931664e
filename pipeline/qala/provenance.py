"""What went in, with which parameters and versions, beside every output.

Outputs are made in a staging folder and published together; a run that is cut
off while publishing is finished by the next one from its journal.
"""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from qala.errors import InputError, TemporaryError
from qala.identity import code_hash, file_hash, is_below, scrub, write_json
from qala.locks import lock, remove_freed, remove_held
from qala.raster import require_closed, require_writable, tidy_folders

log = logging.getLogger("qala")

RECORD = "provenance.json"
_JOURNAL = ".qala-publish.json"
_LOCK = ".qala.lock"
_STAGING = ".qala-staging-"
_PACKAGES = (
    "numpy", "scipy", "numba", "rasterio", "xarray", "odc-geo", "dask", "geopandas", "shapely",
    "pyproj", "pyogrio", "exactextract", "pandas", "pyarrow", "matplotlib",
)  # fmt: skip


def describe_input(path: Path) -> dict[str, Any]:
    """Return the path, size and hash of an input file."""
    return {"path": str(path), "bytes": path.stat().st_size, "sha256": file_hash(path)}


def with_parts(paths: Sequence[Path]) -> list[Path]:
    """Return files with those they are made of: a Shapefile's others, a virtual raster's tiles."""
    found: list[Path] = []
    for path in paths:
        found.append(path)
        suffix = path.suffix.lower()
        if suffix == ".shp":
            found += sorted(
                p for p in path.parent.glob(f"{glob.escape(path.stem)}.*")
                if p != path and p.suffix.lower() in {".dbf", ".shx", ".prj", ".cpg"}
            )  # fmt: skip
        elif suffix == ".vrt" and path.is_file():
            import rasterio

            try:
                with rasterio.open(path) as source:
                    found += [Path(f) for f in source.files[1:]]
            except rasterio.errors.RasterioIOError:
                # said with its reason where the raster is opened
                log.debug("%s cannot be opened", path)
    return list(dict.fromkeys(found))


def hashes_by_name(files: Sequence[Path], hashes: Mapping[str, str]) -> dict[str, str]:
    """Return the hashes of files and of those they are made of, by the names people know.

    Parameters
    ----------
    files
        Inputs of a run.
    hashes
        Path → SHA-256, as :attr:`Recorder.hashes`; a file that it lacks keeps its path.
    """
    found: dict[str, str] = {}
    for path in with_parts(files):
        word = scrub(path.name if path.name not in found else str(path))
        found[word] = hashes.get(str(path), str(path))
    return found


def versions() -> dict[str, str]:
    """Return the versions of qala and of what it computes with."""
    from qala import __version__

    found = {"qala": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def run_key(parameters: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]]) -> str:
    """Return what decides the result: parameters, input hashes, code version."""
    from qala import __version__

    decisive = {
        "qala": __version__,
        "code": code_hash(),
        "parameters": parameters,
        "inputs": [i["sha256"] for i in inputs],
    }
    text = json.dumps(decisive, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


class Recorder:
    """Collects steps, sums and warnings while a run goes on."""

    def __init__(self, parameters: Mapping[str, Any], inputs: Sequence[Path]) -> None:
        self.started = datetime.now(UTC)
        self._clock = time.perf_counter()
        self.inputs = [describe_input(p) for p in with_parts(inputs) if p.is_file()]
        self.key = run_key(parameters, self.inputs)
        # addresses may carry passwords; they decide the key, and are kept nowhere
        self.parameters: dict[str, Any] = json.loads(scrub(json.dumps(parameters, default=str)))
        self.steps: list[dict[str, Any]] = []
        self.warnings: list[str] = []

    @property
    def hashes(self) -> dict[str, str]:
        """Path of each input → SHA-256."""
        return {i["path"]: i["sha256"] for i in self.inputs}

    @contextmanager
    def step(self, name: str) -> Iterator[dict[str, Any]]:
        """Time a step; what is put into the yielded mapping is kept with it."""
        log.info("%s …", name)
        begin = time.perf_counter()
        notes: dict[str, Any] = {}
        yield notes
        self.note(name, time.perf_counter() - begin, notes)

    def note(
        self, name: str, seconds: float, notes: Mapping[str, Any], *, reused: bool = False
    ) -> None:
        """Keep a step that was timed elsewhere, or taken over from the run before."""
        told = {"reused": True} if reused else {}
        self.steps.append({"step": name, "seconds": round(seconds, 3), **told, **notes})

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Keep every warning that is logged meanwhile."""
        keep = self.warnings

        class Keeper(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                keep.append(scrub(record.getMessage()))

        handler = Keeper(logging.WARNING)
        log.addHandler(handler)
        try:
            yield
        finally:
            log.removeHandler(handler)

    def record(self, outputs: Sequence[Path], root: Path, **more: Any) -> dict[str, Any]:
        """Return the whole record, outputs with their hashes."""
        return {
            "tool": "qala",
            "key": self.key,
            "code": code_hash(),
            "started": self.started.isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - self._clock, 3),
            "host": platform.node(),
            "platform": platform.platform(),
            "command": [scrub(a) for a in (Path(sys.argv[0]).name, *sys.argv[1:])],
            "versions": versions(),
            "parameters": self.parameters,
            "inputs": self.inputs,
            "steps": self.steps,
            "warnings": self.warnings,
            **more,
            "outputs": [
                {
                    "path": p.relative_to(root).as_posix(),
                    "bytes": p.stat().st_size,
                    "sha256": file_hash(p),
                }
                for p in sorted(outputs)
            ],
        }


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return the record of an output folder, or None where there is none to trust."""
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    return found if isinstance(found, dict) and _is_record(found) else None


def _is_record(found: Mapping[str, Any]) -> bool:
    """Tell whether a record has what its readers take from it, and names its own folder alone."""
    kinds = {"inputs": list, "outputs": list, "steps": list, "warnings": list,
             "parameters": dict, "versions": dict}  # fmt: skip
    if found.get("tool") != "qala" or not all(
        isinstance(found.get(name, kind()), kind) for name, kind in kinds.items()
    ):
        return False
    wanted = {"inputs": ("path", "sha256"), "outputs": ("path", "sha256"), "steps": ("step",)}
    for name, keys in wanted.items():
        for entry in found.get(name, []):
            if not isinstance(entry, dict) or not all(isinstance(entry.get(k), str) for k in keys):
                return False
    return all(is_below(o["path"]) and "bytes" in o for o in found.get("outputs", []))


def unchanged(folder: Path, key: str) -> bool:
    """Tell whether the folder holds the whole result of the same run."""
    record = read_record(folder)
    if record is None or record.get("key") != key or record.get("missing"):
        return False
    for output in record.get("outputs", []):
        file = folder / output["path"]
        if not file.is_file() or file.stat().st_size != output["bytes"]:
            return False
        if file_hash(file) != output["sha256"]:
            return False
    return True


def why_changed(folder: Path, recorder: Recorder) -> list[str]:
    """Say in words what differs from the run whose result lies in the folder."""
    record = read_record(folder)
    if record is None:
        return []
    found = []
    before = {i["path"]: i["sha256"] for i in record.get("inputs", [])}
    for item in recorder.inputs:
        name = Path(item["path"]).name
        if item["path"] not in before:
            found.append(f"{name} is new")
        elif before[item["path"]] != item["sha256"]:
            found.append(f"{name} changed")
    now = {i["path"] for i in recorder.inputs}
    found += [f"{Path(p).name} is no longer used" for p in before if p not in now]
    old = json.loads(json.dumps(record.get("parameters", {}), default=str))
    new = json.loads(json.dumps(recorder.parameters, default=str))
    found += [f"{k} changed" for k in sorted({*old, *new}) if old.get(k) != new.get(k)]
    if record.get("versions", {}).get("qala") != versions()["qala"]:
        found.append("qala itself is another version")
    elif record.get("code") != code_hash():
        found.append("qala's own code changed")
    if not found and record.get("key") == recorder.key:
        for output in record.get("outputs", []):
            file = folder / output["path"]
            if not file.is_file():
                found.append(f"the result {output['path']} is missing")
            elif file_hash(file) != output["sha256"]:
                found.append(f"the result {output['path']} is not the file that was written")
    return found


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold an output folder for one run; the lock goes with the process.

    A folder that was made for the run and stayed empty is removed again.

    Raises
    ------
    InputError
        When the folder cannot be made or written to.
    TemporaryError
        When another run holds it and ``wait`` is false.
    """
    with tidy_folders([folder]), _lock(folder, wait):
        yield


@contextmanager
def _lock(folder: Path, wait: bool) -> Iterator[None]:
    """Lock a file in the folder that is removed with the lock."""
    path = folder / _LOCK
    while True:
        require_writable(folder / RECORD)
        with path.open("a") as handle:
            if not lock(handle.fileno(), wait=wait):
                raise TemporaryError(
                    f"another run is writing to {folder}",
                    "one run at a time",
                    "wait for it, pass --wait, or choose another folder with --out",
                )
            # the holder before may have removed the file that was waited for
            try:
                same = os.path.samestat(path.stat(), os.fstat(handle.fileno()))
            except FileNotFoundError:
                same = False
            if not same:
                continue
            try:
                yield
            finally:
                remove_held(path)
                handle.close()
                remove_freed(path)
            return


def settle(folder: Path) -> bool:
    """Finish the publication of a run that was cut off, if no run is at work there.

    Returns
    -------
    bool
        Whether files were moved into place.

    Raises
    ------
    TemporaryError
        When another run holds the folder.
    """
    if not (folder / _JOURNAL).exists():
        return False
    with locked(folder):
        return recover(folder)


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Give a staging folder inside the output folder; clean up leftovers of dead runs."""
    for held in folder.glob("*-wal"):
        require_closed(folder / held.name.removesuffix("-wal"))
    if recover(folder):
        log.info("the run before was cut off while publishing; its files are in place now")
    for leftover in folder.glob(f"{_STAGING}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    for leftover in (*folder.glob(f".{_JOURNAL}.*"), *folder.glob(f".{RECORD}.*")):
        leftover.unlink(missing_ok=True)
    stage = folder / f"{_STAGING}{os.getpid()}"
    stage.mkdir()
    try:
        yield stage
    finally:
        if not (folder / _JOURNAL).exists():
            shutil.rmtree(stage, ignore_errors=True)


def publish(stage: Path, folder: Path, outputs: Sequence[Path], obsolete: Sequence[str]) -> None:
    """Move staged outputs into place; a journal lets the next run finish a broken move.

    Parameters
    ----------
    stage
        Staging folder from :func:`staged`.
    folder
        Output folder.
    outputs
        Files below ``stage``; the record goes last.
    obsolete
        Relative paths of the run before that this one does not write.
    """
    moves = [p.relative_to(stage).as_posix() for p in outputs]
    moves.sort(key=lambda m: (m == RECORD, m))
    for name in moves:
        require_closed(folder / name)
    for output in outputs:
        with output.open("rb") as handle:
            os.fsync(handle.fileno())
    plan = {"stage": stage.name, "moves": moves, "obsolete": list(obsolete)}
    write_json(folder / _JOURNAL, plan)
    recover(folder)


def recover(folder: Path) -> bool:
    """Finish the moves of a run that was cut off while publishing."""
    journal = folder / _JOURNAL
    if not journal.exists():
        return False
    plan = _read_journal(journal)
    stage = folder / plan["stage"]
    for name in plan["moves"]:
        source, target = stage / name, folder / name
        if source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            source.replace(target)
    for name in plan["obsolete"]:
        (folder / name).unlink(missing_ok=True)
    journal.unlink()
    shutil.rmtree(stage, ignore_errors=True)
    return True


def _read_journal(journal: Path) -> dict[str, Any]:
    """Read a journal and refuse one that names places outside its folder."""
    remedy = f"delete {journal} and run again"
    try:
        plan = json.loads(journal.read_text(encoding="utf-8"))
        names = [plan["stage"], *plan["moves"], *plan["obsolete"]]
        outside = not all(is_below(n) for n in names)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{journal} is damaged", "qala's own journal", remedy) from error
    if outside or len(Path(names[0]).parts) != 1 or not names[0].startswith(_STAGING):
        raise InputError(
            f"{journal} names a place outside its folder", "qala's own journal", remedy
        )
    return dict(plan)
