"""Small files written whole or not at all."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def replace_file(file: Path, data: bytes) -> None:
    """Write a file under another name beside it, then give it its own."""
    work = file.with_name(f".{file.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        work.write_bytes(data)
        work.replace(file)
    finally:
        work.unlink(missing_ok=True)
