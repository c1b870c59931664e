"""Small inputs that tests are made of, and the command run in this process."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import geopandas as gpd
import numpy as np
import rasterio
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from shapely.geometry import box

from qala.grid import GHSL_CRS, ghsl_geobox

KM = 1_000.0
LEFT, TOP = 5_000_000.0, 5_000_000.0
KM2 = 1e6


def geobox(height: int, width: int) -> GeoBox:
    """A grid of 1 km on GHSL's lattice."""
    return ghsl_geobox((LEFT, TOP - height * KM, LEFT + width * KM, TOP))


@functools.cache
def coords(height: int, width: int) -> dict[Any, Any]:
    """Coordinates of that grid; made once, since parsing a CRS takes a tenth of a second."""
    return dict(xr_coords(geobox(height, width)))


def raster(
    values: Any, name: str = "population", unit: str | None = None, **attrs: Any
) -> xr.DataArray:
    """An array on the grid of :func:`geobox`."""
    values = np.asarray(values)
    attrs = {**attrs, **({"units": unit} if unit else {})}
    return xr.DataArray(values, coords(*values.shape), ("y", "x"), name=name, attrs=attrs)


def write_tif(
    path: Path,
    values: Any,
    *,
    nodata: float | None = None,
    crs: str | None = GHSL_CRS,
    cell: float = KM,
    origin: tuple[float, float] = (LEFT, TOP),
    unit: str | None = None,
    **profile: Any,
) -> Path:
    """Write a plain GeoTIFF as users have them; a third axis first means bands."""
    values = np.asarray(values)
    bands = values if values.ndim == 3 else values[None]
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", height=bands.shape[1], width=bands.shape[2],
        count=bands.shape[0], dtype=bands.dtype, crs=crs, nodata=nodata,
        transform=Affine(cell, 0, origin[0], 0, -cell, origin[1]), **profile,
    ) as sink:  # fmt: skip
        sink.write(bands)
        if unit:
            sink.set_band_unit(1, unit)
    return path


def town(height: int = 12, width: int = 14) -> np.ndarray:
    """People of a centre of 9 cells, a cluster around it, and villages."""
    people = np.zeros((height, width))
    people[3:8, 3:8] = 400
    people[4:7, 4:7] = 6_000
    people[10, 10:13] = 310
    people[1, 11] = 60
    return people


def squares(ids: Sequence[Any] = ("a", "b"), crs: Any = GHSL_CRS) -> gpd.GeoDataFrame:
    """Units of 7 × 12 cells beside each other over :func:`town`."""
    shapes = [
        box(LEFT + 7 * k * KM, TOP - 12 * KM, LEFT + 7 * (k + 1) * KM, TOP) for k in range(len(ids))
    ]
    return gpd.GeoDataFrame({"unit": list(ids)}, geometry=shapes, crs=crs)


# --- the command -----------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit code and words."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The line that tells the failure."""
        at = self.err.find("error: ")
        return self.err[at:] if at >= 0 else self.err


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Put logging and signals back as they were."""
    log = logging.getLogger("qala")
    kept = list(log.handlers), log.propagate, log.level
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        log.handlers[:], log.propagate = kept[0], kept[1]
        log.setLevel(kept[2])
        signal.signal(signal.SIGTERM, handler)


def qala(*arguments: Any) -> Outcome:
    """Run the command in this process, through the function that the script calls."""
    from qala.cli import main

    out, err = io.StringIO(), io.StringIO()
    code = 0
    with (
        _undisturbed(),
        patch.object(sys, "argv", ["qala", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    return Outcome(code, out.getvalue(), err.getvalue())


def listing(folder: Path) -> list[str]:
    """Every file below a folder, hidden ones too."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


# --- golden results --------------------------------------------------------------------


def differing_cells(got: Any, expected: Any) -> str:
    """Say how many cells differ, which, and show the map around the first; empty if none."""
    got, expected = np.asarray(got), np.asarray(expected)
    if got.shape != expected.shape:
        return f"shape {got.shape} instead of {expected.shape}"
    rows, cols = np.nonzero(got != expected)
    if not rows.size:
        return ""
    lines = [f"{rows.size} of {got.size} cells differ", "   row column    got expected"]
    lines += [
        f"{r:6d} {c:6d} {got[r, c]!s:>6} {expected[r, c]!s:>8}"
        for r, c in list(zip(rows, cols, strict=True))[:12]
    ]
    if rows.size > 12:
        lines.append(f"  … and {rows.size - 12} more")
    r, c = int(rows[0]), int(cols[0])
    window = (slice(max(0, r - 4), r + 5), slice(max(0, c - 6), c + 7))
    lines.append(f"around row {r}, column {c}: got, and * where expected differs")
    for left, right in zip(got[window], expected[window], strict=True):
        lines.append(
            " ".join(f"{a!s:>3}{' ' if a == b else '*'}" for a, b in zip(left, right, strict=True))
        )
    return "\n".join(lines)


def assert_same_cells(got: Any, expected: Any) -> None:
    """Fail with a map of the difference."""
    told = differing_cells(got, expected)
    assert not told, f"\n{told}"
