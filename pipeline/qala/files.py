"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(file: Path, suffix: str = "") -> Iterator[Path]:
    """Give another name beside a file to write to; it becomes the file when all went well.

    Parameters
    ----------
    file
        The file; an older one stays until then.
    suffix
        End of the other name, for writers that choose by it.
    """
    work = file.with_name(f".{file.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}{suffix}")
    try:
        yield work
        work.replace(file)
    finally:
        work.unlink(missing_ok=True)


def replace_file(file: Path, data: bytes) -> None:
    """Write a file under another name beside it, then give it its own."""
    with replacing(file) as work:
        work.write_bytes(data)
