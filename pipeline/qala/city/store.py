"""A twin kept in a folder, for the exports that are made from it later."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qala.city.kept import keep, open_kept
from qala.city.model import Twin
from qala.city.people import PeopleReport
from qala.city.relief import Relief
from qala.city.terrain import Vertical

if TYPE_CHECKING:
    import pandas as pd

_BUILDINGS, _ISSUES, _CHANGES = "buildings.arrow", "issues.feather", "changes.feather"
_RELIEF, _REST = "relief.npz", "twin.json"
_ARRAYS = ("vertices", "triangles", "heights")


def save_twin(twin: Twin, folder: Path, changes: pd.DataFrame | None = None) -> None:
    """Keep a twin, and the list of its changes.

    Parameters
    ----------
    twin
        The twin; how long its steps took is not kept.
    folder
        Folder for its files.
    changes
        What the layer ``changes`` of its GeoPackage tells.
    """
    import shapely

    crs = twin.buildings.crs
    keep(twin.buildings, folder / _BUILDINGS)
    (folder / "layers").mkdir()
    for name, layer in twin.layers.items():
        layer.to_feather(folder / "layers" / f"{name}.feather")
    twin.issues.to_feather(folder / _ISSUES)
    if changes is not None:
        changes.to_feather(folder / _CHANGES)
    relief = twin.relief
    if relief is not None:
        with (folder / _RELIEF).open("wb") as file:
            np.savez(file, **{k: getattr(relief, k) for k in _ARRAYS})
    rest = {
        "name": twin.name, "area_km2": twin.area_km2, "notice": twin.notice,
        "synthetic": twin.synthetic, "crs": crs.to_wkt(), "vertical": asdict(twin.vertical),
        "area": None if twin.area is None else shapely.to_wkb(twin.area, hex=True),
        "people": None if twin.people is None else asdict(twin.people),
        "relief": None if relief is None else {
            "box": list(relief.box), "max_error": relief.max_error, "filled": relief.filled,
            "datum": relief.datum, "source": relief.source,
        },
        "layers": list(twin.layers),
    }  # fmt: skip
    (folder / _REST).write_text(json.dumps(rest, default=float), encoding="utf-8")


def load_twin(folder: Path) -> tuple[Twin, pd.DataFrame | None]:
    """Return a twin that was kept, its buildings on disk, and the list of its changes."""
    import geopandas as gpd
    import pandas as pd
    import shapely

    rest: dict[str, Any] = json.loads((folder / _REST).read_text(encoding="utf-8"))
    layers = {n: gpd.read_feather(folder / "layers" / f"{n}.feather") for n in rest["layers"]}
    relief = None
    if rest["relief"] is not None:
        with np.load(folder / _RELIEF) as arrays:
            told = {**rest["relief"], "box": tuple(rest["relief"]["box"])}
            relief = Relief(**{k: arrays[k] for k in _ARRAYS}, **told)
    changes = folder / _CHANGES
    twin = Twin(
        name=rest["name"],
        buildings=open_kept(folder / _BUILDINGS, rest["crs"]),
        layers=layers,
        issues=pd.read_feather(folder / _ISSUES),
        vertical=Vertical(**rest["vertical"]),
        people=None if rest["people"] is None else PeopleReport(**rest["people"]),
        area_km2=rest["area_km2"],
        area=None if rest["area"] is None else shapely.from_wkb(rest["area"]),
        notice=rest["notice"],
        synthetic=rest["synthetic"],
        relief=relief,
    )
    return twin, pd.read_feather(changes) if changes.is_file() else None
