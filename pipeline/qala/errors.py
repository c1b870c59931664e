"""Errors that tell a user what was met, what was expected, and what to do.

Exit codes are part of the command's contract with schedulers: 0 done, 2 bad
input, 3 temporary (try again), 4 partial.
"""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

EXIT_INPUT = 2
EXIT_TEMPORARY = 3
EXIT_PARTIAL = 4


class QalaError(Exception):
    """A failure that is explained to the user in one sentence or a short list.

    Parameters
    ----------
    met
        What was found, with the value and where it was found.
    expected
        What would have been right.
    remedy
        What the user can do about it.
    """

    exit_code = EXIT_INPUT

    def __init__(self, met: str, expected: str = "", remedy: str = "") -> None:
        self.met, self.expected, self.remedy = met, expected, remedy
        super().__init__(self.sentence())

    def sentence(self) -> str:
        """Return the whole message as it is shown."""
        text = self.met.rstrip(".")
        if self.expected:
            text += f"; expected {self.expected.rstrip('.')}"
        if self.remedy:
            text += f": {self.remedy.rstrip('.')}"
        return text + "."

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes whole, whatever a kind of error is made from."""
        return (_revived, (type(self), self.args, self.__dict__))


def _revived(kind: type[QalaError], arguments: tuple[Any, ...], state: dict[str, Any]) -> QalaError:
    error = kind.__new__(kind)
    error.args = arguments
    error.__dict__.update(state)
    return error


class InputError(QalaError):
    """The input cannot be used as it is."""


class TemporaryError(QalaError):
    """The same command may succeed later (lock held, network down)."""

    exit_code = EXIT_TEMPORARY


class PartialError(InputError):
    """Some of what was asked for could not be made; the rest is there."""

    exit_code = EXIT_PARTIAL


#: bytes below which a disk counts as full where the error does not name the reason
NO_ROOM = 65_536
_FULL_WORDS = ("no space left", "disk is full", "disk full", "quota exceeded")


def storage_error(target: str | Path, error: BaseException) -> QalaError:
    """Return what to raise when a file could not be written.

    A full disk is a temporary failure: the same command succeeds once there is
    room. Anything else is for people to mend.

    Examples
    --------
    >>> storage_error("/out/a.tif", OSError(errno.ENOSPC, "No space left on device")).exit_code
    3
    >>> storage_error("/out/a.tif", PermissionError(errno.EACCES, "Permission denied")).exit_code
    2
    >>> storage_error("a.gpkg", OSError("sqlite3_exec(CREATE …) failed: no such disk")).met
    'a.gpkg could not be written (no such disk)'
    """
    # GDAL puts whole scripts of SQL before the reason
    text = str(error).rpartition(") failed: ")[2]
    if is_full(Path(target).parent, error):
        return TemporaryError(
            f"{target} could not be written ({text})", "room on the disk",
            "free some space, or choose another folder with -o or --out, and run the same again",
        )  # fmt: skip
    return InputError(
        f"{target} could not be written ({text})", "a folder that this user may write to",
        "choose another folder with -o or --out",
    )  # fmt: skip


def is_full(folder: Path, error: BaseException) -> bool:
    """Tell whether it is a full disk that kept something from being written."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    if any(word in str(error).lower() for word in _FULL_WORDS):
        return True
    # GDAL and SQLite do not always name it
    return folder.is_dir() and shutil.disk_usage(folder).free < NO_ROOM


class ProblemsError(InputError):
    """Several problems of one input, gathered before raising."""

    def __init__(self, subject: str, problems: list[QalaError]) -> None:
        self.problems = list(problems)
        lines = "\n".join(f"  - {p.sentence()}" for p in self.problems)
        count = len(self.problems)
        word = "problem" if count == 1 else "problems"
        super().__init__(f"{subject}: {count} {word}\n{lines}")

    def sentence(self) -> str:
        """Return the list of problems, one a line."""
        return self.met


class Problems:
    """Collects the problems of one input so that all are told at once.

    Examples
    --------
    >>> problems = Problems("population.tif")
    >>> problems.add("no CRS", "an equal-area CRS", "assign one")
    >>> problems.raise_if_any()
    Traceback (most recent call last):
    ...
    qala.errors.InputError: population.tif: no CRS; expected an equal-area CRS: assign one.
    """

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.items: list[QalaError] = []

    def add(self, met: str, expected: str = "", remedy: str = "") -> None:
        """Note one problem."""
        self.items.append(InputError(met, expected, remedy))

    def add_error(self, error: QalaError) -> None:
        """Note a problem that another check raised, keeping each of a list apart."""
        if isinstance(error, ProblemsError):
            self.items.extend(error.problems)
        else:
            self.items.append(error)

    def raise_if_any(self) -> None:
        """Raise one error for everything noted so far.

        Raises
        ------
        InputError
            When at least one problem was added.
        """
        if not self.items:
            return
        if len(self.items) == 1:
            only = self.items[0]
            raise InputError(f"{self.subject}: {only.met}", only.expected, only.remedy)
        raise ProblemsError(self.subject, self.items)
