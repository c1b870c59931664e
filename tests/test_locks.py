"""Locks: held by one, free after any end, and Windows's rules where Windows is not."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from qala import locks, provenance
from qala.errors import TemporaryError

HOLDER = """
import sys
from pathlib import Path
from qala.locks import lock
handle = open(sys.argv[1], "a")
print(lock(handle.fileno()), flush=True)
sys.stdin.read()
"""


def holder(file: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    return process


def test_a_lock_is_free_again_when_its_process_is_killed(tmp_path: Path):
    file = tmp_path / "құлып"
    with holder(file) as process, file.open("a") as handle:
        assert not locks.lock(handle.fileno())
        process.send_signal(signal.SIGKILL)
        assert locks.lock(handle.fileno(), wait=True)


class Bytes:
    """What ``msvcrt`` does: a byte of a file is locked, others are refused."""

    LK_NBLCK = 2

    def __init__(self, *, busy: int = 0, error: int = errno.EACCES) -> None:
        self.busy, self.error, self.calls = busy, error, []  # type: ignore[var-annotated]

    def locking(self, descriptor: int, mode: int, count: int) -> None:
        self.calls.append((os.lseek(descriptor, 0, os.SEEK_CUR), mode, count))
        if self.busy:
            self.busy -= 1
            raise OSError(self.error, "held")


@pytest.fixture
def handle(tmp_path: Path):
    with (tmp_path / "x").open("a+") as file:
        file.write("12345")
        yield file


@pytest.mark.parametrize("code", [errno.EACCES, errno.EDEADLK])
def test_windows_locks_the_first_byte(handle, monkeypatch: pytest.MonkeyPatch, code: int):
    given = Bytes(busy=1, error=code)
    monkeypatch.setitem(sys.modules, "msvcrt", given)
    assert not locks.lock(handle.fileno(), platform="win32")
    assert locks.lock(handle.fileno(), platform="win32")
    # always the same byte, else two would not meet
    assert given.calls == [(0, Bytes.LK_NBLCK, 1)] * 2


def test_windows_waits_by_looking_again(handle, monkeypatch: pytest.MonkeyPatch):
    given, slept = Bytes(busy=3), []
    monkeypatch.setitem(sys.modules, "msvcrt", given)
    monkeypatch.setattr(locks, "time", SimpleNamespace(sleep=slept.append))
    assert locks.lock(handle.fileno(), wait=True, platform="win32")
    assert len(slept) == 3


def test_windows_tells_other_errors(handle, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "msvcrt", Bytes(busy=1, error=errno.EINVAL))
    with pytest.raises(OSError, match="held"):
        locks.lock(handle.fileno(), platform="win32")


def test_the_file_goes_while_held_or_on_windows_afterwards(tmp_path: Path):
    file = tmp_path / "x"
    file.touch()
    locks.remove_held(file, platform="win32")
    locks.remove_freed(file, platform="linux")
    assert file.exists()
    locks.remove_freed(file, platform="win32")
    assert not file.exists()
    locks.remove_held(file, platform="linux")


def test_a_folder_is_held_by_the_same_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A run's folder under Windows's rules: refused while held, nothing left afterwards."""
    given = Bytes()
    monkeypatch.setitem(sys.modules, "msvcrt", given)
    monkeypatch.setattr(locks.sys, "platform", "win32")
    with provenance._lock(tmp_path, wait=False):
        assert [p.name for p in tmp_path.iterdir()] == [provenance._LOCK]
    assert not list(tmp_path.iterdir())
    with pytest.raises(ZeroDivisionError), provenance._lock(tmp_path, wait=False):
        _ = 1 / 0
    assert not list(tmp_path.iterdir())
    given.busy = 1
    with pytest.raises(TemporaryError, match="another run"), provenance._lock(tmp_path, wait=False):
        pass
