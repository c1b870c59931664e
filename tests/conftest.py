"""Fixtures shared by the tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def reference() -> Path:
    """Folder of real reference data; tests that need it are skipped where it is absent."""
    named = os.environ.get("QALA_REFERENCE_DATA")
    folder = Path(named) if named else _ROOT.parent / "shared" / "data"
    if not (folder / "README.md").exists():
        pytest.skip(f"reference data not found at {folder}; set QALA_REFERENCE_DATA")
    return folder
