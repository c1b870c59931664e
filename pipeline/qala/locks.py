"""Locks on files that end with the process that holds them, on any platform.

Kept lock libraries leave the file behind or replace it by a marker that outlives
a killed process; an output folder should hold neither.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

#: what Windows answers for a byte that another process holds
_HELD = frozenset({errno.EACCES, errno.EDEADLK, getattr(errno, "EDEADLOCK", errno.EDEADLK)})
#: seconds between looks at a lock that Windows cannot wait for
_PAUSE = 0.1


def lock(descriptor: int, *, wait: bool = False, platform: str | None = None) -> bool:
    """Take the lock of an open file, which closing the file gives back.

    Parameters
    ----------
    descriptor
        Of a file open for writing.
    wait
        Wait until it is free.
    platform
        As ``sys.platform``.

    Returns
    -------
    bool
        False where another process holds it.

    Raises
    ------
    OSError
        When the file system knows no locks.

    Notes
    -----
    ``flock`` on POSIX; on Windows the first byte of the file is locked, which
    may lie behind its end (LockFile, "Remarks").
    """
    if (platform or sys.platform) == "win32":
        return _lock_byte(descriptor, wait)
    fcntl: Any = import_module("fcntl")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _lock_byte(descriptor: int, wait: bool) -> bool:
    msvcrt: Any = import_module("msvcrt")
    while True:
        os.lseek(descriptor, 0, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if error.errno not in _HELD:
                raise
            if not wait:
                return False
            time.sleep(_PAUSE)
        else:
            return True


def remove_held(path: Path, *, platform: str | None = None) -> None:
    """Remove a lock file while its lock is held, where the platform allows it.

    Before the lock is given back, so that nobody takes a lock on a file
    without a name. Windows keeps open files; there :func:`remove_freed` does it.
    """
    if (platform or sys.platform) != "win32":
        path.unlink(missing_ok=True)


def remove_freed(path: Path, *, platform: str | None = None) -> None:
    """Remove a lock file after its lock was given back, on Windows."""
    if (platform or sys.platform) == "win32":
        # the next holder has it open already
        with contextlib.suppress(PermissionError):
            path.unlink(missing_ok=True)
