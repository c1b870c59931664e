"""Files that travel with the package: catalogs, workflows, schema, sample region.

In a wheel they lie in ``qala/_data``; in a checkout they are the top-level
folders themselves, so that there is one copy of each.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parents[1]
#: name of a resource folder → its place in a checkout
_FOLDERS = {"catalogs": "catalogs", "workflows": "workflows", "sample": "data/sample"}


def resource(folder: str, *parts: str) -> Path:
    """Return the path of a packaged file or folder.

    Parameters
    ----------
    folder
        One of ``catalogs``, ``workflows``, ``sample``.
    *parts
        Path below it.

    Raises
    ------
    FileNotFoundError
        When the installation lacks the resource.
    """
    for base in (_PACKAGE / "_data" / folder, _CHECKOUT / _FOLDERS[folder]):
        path = base.joinpath(*parts)
        if path.exists():
            return path
    name = "/".join((folder, *parts))
    raise FileNotFoundError(f"qala's own file {name!r} is missing: reinstall qala")
