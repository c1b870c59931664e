"""What files, addresses and the code itself are called in records and logs.

Hashes, JSON written whole, and addresses without their secrets. Lowest room of
all but :mod:`qala.errors`: everything may import it, it imports nothing of qala.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from qala.files import replacing

_SECRET_KEYS = ("token", "key", "signature", "sig", "password", "secret", "credential")


def file_hash(path: str | Path) -> str:
    """Return the SHA-256 of a file, read in pieces."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@functools.cache
def code_hash() -> str:
    """Return the hash of the package's own sources, as they were first asked for."""
    digest = hashlib.sha256()
    root = Path(__file__).parent
    for file in sorted(root.rglob("*.py")):
        digest.update(str(file.relative_to(root)).encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def write_json(path: Path, value: Any) -> Path:
    """Write JSON whole or not at all."""
    text = json.dumps(value, ensure_ascii=False, indent=1, default=str)
    with replacing(path) as work, work.open("w", encoding="utf-8") as handle:
        handle.write(text + "\n")
        handle.flush()
        os.fsync(handle.fileno())
    return path


def is_below(name: str) -> bool:
    """Tell whether a name of a file, as a record has it, stays below the record's folder."""
    path = Path(name)
    return not path.is_absolute() and ".." not in path.parts


def has_secret(url: str) -> bool:
    """Tell whether an address carries a user, password or token."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return scrub(url) != url
    keys = {k.casefold() for k in parse_qs(parts.query, keep_blank_values=True)}
    return "@" in parts.netloc or any(s in k for k in keys for s in _SECRET_KEYS)


def safe_url(url: str) -> str:
    """Return an address as it may be shown: without user, password and query.

    Examples
    --------
    >>> safe_url("https://ann:pw@host/a.zip?token=abc")
    'https://host/a.zip?…'
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return scrub(url)
    if not parts.scheme or not parts.netloc:
        return url
    host = parts.netloc.rsplit("@", 1)[-1]
    return f"{parts.scheme}://{host}{parts.path}" + ("?…" if parts.query else "")


def scrub(text: str) -> str:
    """Return a text with the secrets of its addresses blotted out.

    Examples
    --------
    >>> scrub("got https://ann:pw@host/a?token=abc&x=1, then tcp://b:c@host:8786")
    'got https://…@host/a?token=…&x=1, then tcp://…@host:8786'
    """
    text = re.sub(r"(?<=://)[^/\s@\"']+@", "…@", text)
    words = "|".join(_SECRET_KEYS)
    return re.sub(rf"(?i)([?&][^=&\s]*(?:{words})[^=&\s]*=)[^&\s\"',;)]+", r"\1…", text)
