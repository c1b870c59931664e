"""Steps of a run, each kept under a key of its inputs, its parameters and the code.

A step's files lie in a store inside the output folder. They are taken over as
long as their key is the same, and made anew, with the reason said, when it is
not; a run that was cut off goes on behind its last whole step. What follows a
step hangs on what the step gave, not on why it was made: a step that gives the
same as before spares everything behind it.

Where worker processes of this machine are in force, steps that are ready run at
once in them; else one after the other here, and share out what they compute.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qala import compute
from qala.errors import QalaError
from qala.identity import code_hash, file_hash, is_below, scrub, write_json

if TYPE_CHECKING:
    from qala.provenance import Recorder

log = logging.getLogger("qala")

#: the store, inside the output folder
STORE = ".qala-steps"
_NOTE = "step.json"
_WORK = ".work-"

#: called with the folder to write into and the folders of the steps before
Make = Callable[..., dict[str, Any]]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Step:
    """One step: what it is called, what makes it, and what decides its result.

    Attributes
    ----------
    name
        As it is told to people and stands in the record; unique in a run.
    make
        Function of a module, called ``make(folder, before, **arguments)``: it
        writes its files into ``folder``, finds those of earlier steps in
        ``before`` (name → folder) and returns notes for the record.
    parts
        What decides the result beside the steps before and the code: a word
        for people (a file's name, a parameter) → its value or hash.
    arguments
        Further arguments of ``make``; they travel to other processes.
    after
        Names of the steps whose files it reads.
    here
        Arguments that cannot travel; given where the step runs in this process.
    """

    name: str
    make: Make
    parts: Mapping[str, Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    here: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """A step that is whole.

    Attributes
    ----------
    folder
        Where its files lie.
    files
        Their names → SHA-256.
    notes
        What it told of itself.
    reused
        Whether it was taken over.
    """

    folder: Path
    files: Mapping[str, str]
    notes: Mapping[str, Any]
    reused: bool

    @property
    def digest(self) -> str:
        """Hash of everything the step gave."""
        return _digest(sorted(self.files.items()))


class Steps:
    """The steps of one run over one output folder, which the run holds locked.

    Parameters
    ----------
    folder
        Output folder.
    recorder
        Told of every step.
    force
        Take nothing over.
    partial
        Go on without steps that fail for their input, and without what hangs on them.
    progress
        Called with steps done and in all where several run at once.
    """

    def __init__(
        self,
        folder: Path,
        recorder: Recorder,
        *,
        force: bool = False,
        partial: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self.store = folder / STORE
        self.recorder = recorder
        self.force, self.partial, self.progress = force, partial, progress
        self.done: dict[str, Done] = {}
        self.failed: dict[str, QalaError] = {}

    def run(self, steps: Sequence[Step]) -> None:
        """Take over or make steps; each comes behind those it names.

        Raises
        ------
        QalaError
            Of the first step that fails, unless a partial result was asked for.
        """
        self.store.mkdir(exist_ok=True)
        waiting = list(steps)
        active = compute.local_processes()
        if active is None:
            for step in waiting:
                if self._skipped(step) or self._taken_over(step):
                    continue
                try:
                    with _heard(step.name) as heard:
                        work, told, seconds = _made(
                            step, self._work(step), self._before(step), step.here
                        )
                except QalaError as error:
                    self._fails(step, error)
                else:
                    self._keep(step, work, told, seconds, heard)
            return
        self._run_at_once(waiting, active)

    def _run_at_once(self, waiting: list[Step], active: Any) -> None:
        """Run steps in worker processes as soon as those before them are done."""
        from distributed import as_completed

        total, workers = len(waiting), max(1, len(active.nthreads()))
        running: dict[str, Step] = {}
        queue = as_completed([], with_results=False)

        def start() -> None:
            for step in list(waiting):
                # handed over one by one, those named first first: a queue behind the longest
                # step would keep them from a worker that is free
                if len(running) == workers:
                    break
                if any(n not in self.done and n not in self.failed for n in step.after):
                    continue
                waiting.remove(step)
                if self._skipped(step) or self._taken_over(step):
                    continue
                future = active.submit(
                    _made_there, step.name, step.make, dict(step.arguments), self._work(step),
                    self._before(step), pure=False, key=f"{_slug(step.name)}-{uuid.uuid4().hex}",
                )  # fmt: skip
                running[future.key] = step
                queue.add(future)

        def start_all() -> None:
            before = -1
            # what was taken over may set others free at once
            while before != len(waiting):
                before = len(waiting)
                start()
            if self.progress:
                self.progress(total - len(waiting) - len(running), total)

        failure: QalaError | None = None
        try:
            start_all()
            while running:
                future = next(queue)
                step = running.pop(future.key)
                found = future.result()
                future.release()
                if not isinstance(found, QalaError):
                    work, told, seconds, heard = found
                    for level, message in heard:
                        log.log(level, "%s", message)
                    self._keep(step, work, told, seconds, heard)
                elif self.partial:
                    self._fails(step, found)
                else:
                    # steps that run beside it are ended and kept
                    failure = failure or found
                if failure is None:
                    start_all()
        except BaseException:
            # workers would write on into the store that the run leaves
            with suppress(OSError, TimeoutError):
                active.shutdown()
            raise
        if failure is not None:
            raise failure

    # --- one step ------------------------------------------------------------------

    def _before(self, step: Step) -> dict[str, Path]:
        return {n: self.done[n].folder for n in step.after if n in self.done}

    def _skipped(self, step: Step) -> bool:
        """Leave out a step that hangs on one that failed."""
        lost = next((n for n in step.after if n in self.failed), None)
        if lost is None:
            return False
        self.failed[step.name] = self.failed[lost]
        return True

    def _fails(self, step: Step, error: QalaError) -> None:
        if not self.partial:
            raise error
        log.warning("%s is left out: %s", step.name, error)
        self.failed[step.name] = error

    def _place(self, step: Step) -> Path:
        return self.store / _slug(step.name)

    def _work(self, step: Step) -> Path:
        return self.store / f"{_WORK}{_slug(step.name)}-{os.getpid()}-{uuid.uuid4().hex[:8]}"

    def _taken_over(self, step: Step) -> bool:
        """Take a step over from the store if nothing that decides it has changed."""
        place, parts = self._place(step), _key(step, self.done)
        note = read_note(place)
        reasons = why(note, parts, place, force=self.force)
        if reasons or note is None:
            reason = f", because {', '.join(reasons)}" if reasons else ""
            log.info("%s …%s", step.name, reason)
            return False
        log.info("%s: as before", step.name)
        for warning in note["warnings"]:
            log.warning("%s", warning)
        self.done[step.name] = Done(place, note["files"], note["notes"], True)
        self.recorder.note(step.name, float(note["seconds"]), note["notes"], reused=True)
        return True

    def _keep(
        self, step: Step, work: Path, told: dict[str, Any], seconds: float,
        heard: Sequence[tuple[int, str]],
    ) -> None:  # fmt: skip
        """Put a step that is whole into the store."""
        files = {
            p.relative_to(work).as_posix(): file_hash(p)
            for p in sorted(work.rglob("*")) if p.is_file()
        }  # fmt: skip
        note = {
            "step": step.name, "parts": _key(step, self.done), "files": files,
            "notes": json.loads(json.dumps(told, default=str)), "seconds": round(seconds, 3),
            "warnings": [scrub(m) for level, m in heard if level >= logging.WARNING],
        }  # fmt: skip
        write_json(work / _NOTE, note)
        place = self._place(step)
        shutil.rmtree(place, ignore_errors=True)
        work.replace(place)
        self.done[step.name] = Done(place, files, note["notes"], False)
        self.recorder.note(step.name, seconds, note["notes"], reused=False)

    # --- the store -----------------------------------------------------------------

    def tidy(self, keep: Collection[str] | None = None) -> None:
        """Remove work of dead runs; of a finished run also the steps that it did not have."""
        names = None if keep is None else {_slug(n) for n in keep}
        for entry in self.store.glob("*"):
            if entry.name.startswith(_WORK) or (names is not None and entry.name not in names):
                shutil.rmtree(entry, ignore_errors=True)
        # an empty store is none
        if self.store.is_dir() and not any(self.store.iterdir()):
            self.store.rmdir()

    def outputs(self, name: str, stage: Path, pattern: str = "*") -> list[Path]:
        """Put a step's files into the stage under their own names and return them."""
        done = self.done[name]
        found = []
        for file in sorted(done.files):
            source = done.folder / file
            if not source.match(pattern):
                continue
            target = stage / file
            target.parent.mkdir(parents=True, exist_ok=True)
            put(source, target)
            found.append(target)
        return found


def _key(step: Step, done: Mapping[str, Done]) -> dict[str, str]:
    """Return the hashes of all that decides a step, by the words people know it by."""
    found = {name: _digest(value) for name, value in step.parts.items()}
    found |= {_result_of(n): done[n].digest for n in step.after}
    return {**found, "qala's own code": code_hash()}


def _result_of(name: str) -> str:
    return f"the result of {name!r}"


def put(source: Path, target: Path) -> None:
    """Link a file into place, or copy it where it may be written to later or cannot be linked."""
    # SQLite finds its journal by the file's name: two names of one database break it
    if source.suffix.lower() != ".gpkg":
        try:
            os.link(source, target)
        except OSError:
            log.debug("%s cannot be linked and is copied", source)
        else:
            return
    shutil.copyfile(source, target)


def read_note(place: Path) -> dict[str, Any] | None:
    """Return what is kept with a step of the store; None where there is none to trust."""
    try:
        found = json.loads((place / _NOTE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    wanted = {"step": str, "parts": dict, "files": dict, "notes": dict, "seconds": int | float,
              "warnings": list}  # fmt: skip
    sound = isinstance(found, dict) and all(
        isinstance(found.get(name), kind) for name, kind in wanted.items()
    )
    return found if sound and all(map(is_below, found["files"])) else None


def kept_note(folder: Path, name: str) -> dict[str, Any] | None:
    """Return what is kept with a step of an output folder, by its name."""
    return read_note(folder / STORE / _slug(name))


def why(
    note: Mapping[str, Any] | None, parts: Mapping[str, str], place: Path, *, force: bool = False
) -> list[str]:
    """Say what keeps a step from being taken over; nothing where it can be, or never was made."""
    if note is None:
        return []
    if force:
        return ["--force was asked for"]
    before = note["parts"]
    found = [
        f"{name} {'changed' if name in before else 'is new'}"
        for name, value in parts.items()
        if before.get(name) != value
    ]
    found += [f"{name} is no longer used" for name in before if name not in parts]
    if not found:
        for name, digest in note["files"].items():
            file = place / name
            if not file.is_file():
                found.append(f"its {name} is missing")
            elif file_hash(file) != digest:
                found.append(f"its {name} is not the file that was written")
    return found


class Planned:
    """What :class:`Steps` would do over an output folder; nothing is made or changed.

    Attributes
    ----------
    told
        Name of each step and its state: ``as before``, ``new``, or why it would be made.
    """

    def __init__(self, folder: Path) -> None:
        self.store = folder / STORE
        self.done: dict[str, Done] = {}
        self.failed: dict[str, QalaError] = {}
        self.told: list[tuple[str, str]] = []

    def run(self, steps: Sequence[Step]) -> None:
        """Look at steps; each comes behind those it names."""
        for step in steps:
            place = self.store / _slug(step.name)
            note = read_note(place)
            state, files = "new", {}
            if note is not None:
                fresh = [n for n in step.after if not self.done[n].reused]
                parts = _key(step, self.done)
                for name in fresh:
                    # made anew it may give the same, and this step may stay
                    word = _result_of(name)
                    parts[word] = note["parts"].get(word, "")
                reasons = why(note, parts, place)
                files = note["files"]
                state = ", ".join(reasons) or "as before"
                if fresh and not reasons:
                    state = f"hangs on the result of {', '.join(map(repr, fresh))}"
            self.told.append((step.name, state))
            notes = note["notes"] if note else {}
            self.done[step.name] = Done(place, files, notes, state == "as before")


def _made(
    step: Step, work: Path, before: Mapping[str, Path], here: Mapping[str, Any]
) -> tuple[Path, dict[str, Any], float]:
    return _make(step.make, {**step.arguments, **here}, work, before)


def _make(
    make: Make, arguments: Mapping[str, Any], work: Path, before: Mapping[str, Path]
) -> tuple[Path, dict[str, Any], float]:
    begin = time.perf_counter()
    work.mkdir()
    try:
        told = make(work, before, **arguments)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return work, told, time.perf_counter() - begin


def _made_there(
    name: str, make: Make, arguments: Mapping[str, Any], work: Path, before: Mapping[str, Path]
) -> tuple[Path, dict[str, Any], float, list[tuple[int, str]]] | QalaError:
    """Make a step in a worker process: on its own, and with its messages brought back.

    A failure is given back, not raised: the worker would print its stack beside our sentence.
    """
    # a worker that died may have begun it before
    work = work.with_name(f"{work.name}-{os.getpid()}")
    log.setLevel(logging.INFO)
    with compute.alone(), _heard(name) as heard:
        try:
            work, told, seconds = _make(make, arguments, work, before)
        except QalaError as error:
            return error
    return work, told, seconds, heard


@contextmanager
def _heard(name: str) -> Iterator[list[tuple[int, str]]]:
    """Keep what is logged meanwhile."""
    kept: list[tuple[int, str]] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append((record.levelno, record.getMessage()))

    handler = Keeper(logging.INFO)
    log.addHandler(handler)
    try:
        yield kept
    finally:
        log.removeHandler(handler)


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name)


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
