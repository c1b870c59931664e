"""The worker: qala in its own environment, as a process that can be cancelled.

Nothing here waits on a pipe in the caller's thread, so that a window stays
alive. The worker reads its standard input: when that closes, because the run
was cancelled or QGIS is gone, it interrupts itself, tidies up and ends; what
does not end in time is killed with all its children.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import EXIT_TEMPORARY, InputError, QalaError, TemporaryError
from .environment import clean_environment

#: seconds a cancelled worker has to tidy up
GRACE = 4.0
#: seconds to read what an ended worker still had to say
_LAST_WORDS = 2.0
_EXIT_INTERRUPTED = 130
#: names that qala uses in an output folder
_LOCK, _JOURNAL, _STORE = ".qala.lock", ".qala-publish.json", ".qala-steps"

_BOOTSTRAP = """
import contextlib, os, shutil, signal, sys, threading, time
leash = os.dup(0)
stopped = threading.Event()
nothing = os.open(os.devnull, os.O_RDONLY)
os.dup2(nothing, 0)
def watch():
    while os.read(leash, 1024):
        pass
    stopped.set()
    for folder in {scratch}:
        shutil.rmtree(folder, ignore_errors=True)
    if os.name == "posix":
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    else:
        import _thread
        _thread.interrupt_main()
    time.sleep({grace})
    if os.name == "posix":
        os.killpg(0, signal.SIGKILL)
    os._exit({code})
threading.Thread(target=watch, daemon=True).start()
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv[0] = "qala"
from qala.cli import main
try:
    main()
finally:
    if stopped.is_set():
        # a cancelled run is not gone on with: what it kept for that goes, and its new folder
        for folder in {unfinished}:
            shutil.rmtree(os.path.join(folder, {store!r}), ignore_errors=True)
            with contextlib.suppress(OSError):
                os.rmdir(folder)
"""

#: steps of `qala run`, with the share done when each begins
_SHARES = {
    "open inputs": 0.02,
    "classify cells": 0.15,
    "delineate urban centres": 0.35,
    "urbanisation rates": 0.4,
    "sensitivity": 0.5,
    "write tables": 0.6,
    "write GeoPackage": 0.65,
    "draw maps and charts": 0.75,
    "write report": 0.95,
}


class Cancelled(QalaError):
    """The user stopped the run; nothing was left behind."""


@dataclass(frozen=True)
class Event:
    """One thing the worker said.

    Attributes
    ----------
    level
        ``info``, ``warning``, ``error`` (log lines), ``output`` or ``text``.
    text
        What was said.
    share
        Share of the work done, 0–1, or None where unknown.
    """

    level: str
    text: str
    share: float | None = None


@dataclass(frozen=True)
class Outcome:
    """How a run ended: exit code, lines of output, warnings, seconds."""

    code: int
    output: tuple[str, ...]
    warnings: tuple[str, ...]
    seconds: float


def read_line(line: str, stream: str = "error") -> Event | None:
    """Return what a line of the worker means; None for an empty one.

    Parameters
    ----------
    line
        As written, with or without its end.
    stream
        ``output`` for standard output, else ``error``.

    Examples
    --------
    >>> read_line('{"time": "…", "level": "info", "message": "classify cells …"}')
    Event(level='info', text='classify cells', share=0.15)
    >>> read_line("a.gpkg", "output")
    Event(level='output', text='a.gpkg', share=None)
    """
    text = line.rstrip()
    if not text:
        return None
    if stream == "output":
        return Event("output", text)
    if text.startswith("{"):
        try:
            said = json.loads(text)
        except ValueError:
            return Event("text", text)
        if isinstance(said, dict) and "message" in said:
            message = str(said["message"])
            if message.endswith(" …"):
                message = message[:-2]
            # a step of one epoch is called "classify cells 2023"
            step = re.sub(r"( \d{4})?( ….*|: as before)?$", "", message)
            step = "draw maps and charts" if step.startswith("draw ") else step
            share = said.get("progress", _SHARES.get(step))
            if not isinstance(share, (int, float)):
                share = None
            return Event(str(said.get("level", "info")), message, share)
    return Event("text", text)


class Run:
    """A worker under way.

    Parameters
    ----------
    python
        The worker's Python, from :func:`qala.qgis.environment.find_python`.
    arguments
        Of the command ``qala``.
    output
        File or folder the run writes to; what a killed run leaves beside it
        is removed.
    scratch
        Folder of temporary inputs, removed even if this process is killed.
    environ
        Variables to start from; this process's where None. They are cleaned.

    Raises
    ------
    InputError
        When the program cannot be started.
    """

    def __init__(
        self,
        python: str,
        arguments: Sequence[str],
        *,
        output: str | Path | None = None,
        scratch: str | Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.arguments = tuple(str(a) for a in arguments)
        self.output = None if output is None else Path(output)
        self.cancelled = False
        self._new_folder = self.output is not None and not self.output.exists()
        self.said: list[Event] = []
        self._queue: queue.Queue[Event | None] = queue.Queue()
        self._open = 2
        self._ended: float | None = None
        self._begin = time.perf_counter()
        code = _BOOTSTRAP.format(
            grace=GRACE,
            code=_EXIT_INTERRUPTED,
            scratch=[] if scratch is None else [str(scratch)],
            unfinished=[str(self.output)] if self._new_folder else [],
            store=_STORE,
        )
        # -I: neither the working folder nor PYTHON* variables decide what is imported
        command = [python, "-I", "-X", "utf8", "-c", code, *self.arguments]
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=clean_environment(environ),
                cwd=str(Path.home()),
                **_apart(),
            )
        except OSError as error:
            raise InputError(
                f"the worker {python} cannot be started ({error})",
                "the Python of qala's environment",
                "run qala qgis-setup again",
            ) from error
        for stream, name in ((self.process.stdout, "output"), (self.process.stderr, "error")):
            threading.Thread(target=self._listen, args=(stream, name), daemon=True).start()

    def _listen(self, stream: Any, name: str) -> None:
        with stream:
            for raw in stream:
                event = read_line(raw.decode("utf-8", "replace"), name)
                if event is not None:
                    self._queue.put(event)
        self._queue.put(None)

    @property
    def running(self) -> bool:
        """Whether the worker still runs or has more to say."""
        if self.process.poll() is None:
            return True
        if self._ended is None:
            self._ended = time.monotonic()
        if time.monotonic() - self._ended > _LAST_WORDS:
            # a child of its own holds the pipes; it is killed with its group
            self._open = 0
        return self._open > 0

    def events(self, seconds: float = 0.0) -> list[Event]:
        """Return what was said since the last call, waiting at most so long for the first."""
        found: list[Event] = []
        limit = time.monotonic() + seconds
        while self._open:
            try:
                event = (
                    self._queue.get(timeout=max(0.0, limit - time.monotonic()))
                    if (seconds and not found)
                    else self._queue.get_nowait()
                )
            except queue.Empty:
                break
            if event is None:
                self._open -= 1
            else:
                found.append(event)
        if not self._open and self.process.poll() is None and seconds:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=max(0.0, limit - time.monotonic()))
        self.said += found
        return found

    def cancel(self) -> None:
        """Stop the worker with its children and remove what it left unfinished."""
        self.cancelled = True
        process = self.process
        _close(process.stdin)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=GRACE)
        _kill_group(process)
        process.wait()
        self._remove_unfinished()

    def outcome(self) -> Outcome:
        """Return how a run that has ended went.

        Raises
        ------
        Cancelled
            When it was cancelled.
        InputError, TemporaryError
            With the worker's own sentence.
        """
        while self.running:
            self.events(0.2)
        self.events()
        _close(self.process.stdin)
        code = int(self.process.returncode)
        if self.cancelled:
            raise Cancelled("cancelled; nothing was left behind")
        # children must not outlive it, whatever ended it
        _kill_group(self.process)
        if code < 0:
            self._remove_unfinished()
        if code:
            raise self._explained(code)
        return Outcome(
            code,
            tuple(e.text for e in self.said if e.level == "output"),
            tuple(e.text for e in self.said if e.level == "warning"),
            time.perf_counter() - self._begin,
        )

    def _explained(self, code: int) -> QalaError:
        """Return the error that the worker told."""
        lines = [e.text for e in self.said if e.level == "text"]
        kind = TemporaryError if code == EXIT_TEMPORARY else InputError
        for number, line in enumerate(lines):
            if line.startswith("error: "):
                sentence = "\n".join([line[len("error: ") :], *lines[number + 1 :]])
                return kind(sentence)
            if line.startswith("Error: "):
                met = line[len("Error: ") :]
                command = next((a for a in self.arguments if not a.startswith("-")), "")
                if "No such command" in met:
                    return InputError(
                        f"the qala of the worker environment has no command '{command}'",
                        "a newer qala",
                        "update it there (pip install --upgrade qala), then run qala qgis-setup",
                    )
                if "No such option" in met:
                    return InputError(
                        f"the qala of the worker environment does not know this option of "
                        f"'{command}' ({met.rstrip('.')})",
                        "a qala of the same version as the plugin",
                        "update it, then run qala qgis-setup",
                    )
                return kind(met)
        if lines and "No module named 'qala" in lines[-1]:
            return InputError(
                "the worker's Python has no qala",
                "qala's own environment",
                "run qala qgis-setup in it, or pip install qala there",
            )
        if code < 0:
            return InputError(
                f"the worker was ended by signal {-code}",
                "memory enough for the job",
                "use a smaller region, or close other programs",
            )
        last = lines[-1] if lines else "it said nothing"
        return InputError(
            f"the worker failed with exit code {code} ({last})",
            "exit code 0",
            "the log has the details: Log Messages panel, tab qala",
        )

    def _remove_unfinished(self) -> None:
        """Remove the working files of this process beside its output."""
        if self.output is None:
            return
        own = str(self.process.pid)
        for folder in (self.output, self.output.parent):
            if not folder.is_dir() or (folder / _JOURNAL).exists():
                # a journal: the next run finishes the move that was cut off
                continue
            for entry in folder.iterdir():
                parts = entry.name.replace("-", ".").split(".")
                if not entry.name.startswith(".") or own not in parts:
                    continue
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink()
        if self._new_folder and self.output.is_dir():
            shutil.rmtree(self.output / _STORE, ignore_errors=True)
            lock = self.output / _LOCK
            if {p.name for p in self.output.iterdir()} <= {lock.name}:
                if lock.exists():
                    lock.unlink()
                self.output.rmdir()


def _apart() -> dict[str, Any]:
    """Return how to start a process in a group of its own, without a window."""
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
        return {"creationflags": flags}
    return {"start_new_session": True}


def _close(stream: Any) -> None:
    try:
        stream.close()
    except OSError:
        # the reader is gone already
        return


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if sys.platform == "win32":
        if process.poll() is None:
            subprocess.run(
                ["taskkill", "/T", "/F", "/PID", str(process.pid)], capture_output=True, check=False
            )
        return
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        # none of them is left
        return
