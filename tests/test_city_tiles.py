"""Tiles are a function of the objects: not of jobs, rows' order, or the way they were edited."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from qala.city.check import read_glb
from qala.errors import InputError
from qala.export import tiles3d
from qala.export.geopackage import Layer, write_geopackage
from qala.export.tiles3d import tiles_from_gpkg, write_tiles


def city(count: int, seed: int = 1, side: float = 4000.0) -> gpd.GeoDataFrame:
    """Boxes, L-shapes and courtyards of all roofs at random places."""
    rng = np.random.default_rng(seed)
    rings = {
        0: [(0, 0), (1, 0), (1, 1), (0, 1)],
        1: [(0, 0), (1, 0), (1, 0.5), (0.5, 0.5), (0.5, 1), (0, 1)],
    }
    shapes = []
    for i in range(count):
        x, y, size = *rng.uniform(0, side, 2), rng.uniform(6, 30)
        ring = np.array(rings[int(rng.integers(2))]) * size + (500_000 + x, 4_790_000 + y)
        hole = shapely.Point(ring.mean(axis=0)).buffer(0.5, quad_segs=2)
        shape = shapely.Polygon(ring)
        shapes.append(shapely.difference(shape, hole) if i % 7 == 0 else shape)
    return gpd.GeoDataFrame(
        {
            "id": [f"way/{i}" for i in range(count)], "parent": None,
            "kind": rng.choice(["house", "school"], count),
            "name": np.where(rng.random(count) < 0.5, "Үй", None),
            "height": np.round(rng.uniform(3, 40, count), 1), "height_source": "tag",
            "min_height": 0.0, "base_z": np.round(rng.uniform(200, 260, count), 2),
            "roof_shape": rng.choice(["flat", "gabled", "skillion", "dome"], count),
            "roof_height": 1.5, "roof_direction": np.nan, "lod": "1.2", "valid_code": 0,
            "people": rng.uniform(0, 9, count),
        },
        geometry=shapely.set_precision(shapes, 0.001), crs="EPSG:32642",
    )  # fmt: skip


def content(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in (folder / "content").iterdir()} | {
        "tileset": (folder / "tileset.json").read_bytes()
    }


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 9))
def test_jobs_rows_and_their_order_never_change_a_tile(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, job: int, rows: int,
    seed: int,
) -> None:  # fmt: skip
    tmp = tmp_path_factory.mktemp("tiles")
    table = city(250, seed)
    write_tiles(table, tmp / "plain", inner=20)
    with monkeypatch.context() as patch:
        patch.setattr(tiles3d, "JOB", job)
        patch.setattr(tiles3d, "ROWS", rows)
        mixed = table.sample(frac=1, random_state=seed).reset_index(drop=True)
        write_tiles(mixed, tmp / "mixed", inner=20)
        write_geopackage(tmp / "c.gpkg", {"footprints": Layer(mixed)})
        patch.setattr(tiles3d._write, "__defaults__", (tiles3d.LEAF, 20))
        tiles_from_gpkg(tmp / "c.gpkg", tmp / "file")
    assert content(tmp / "plain") == content(tmp / "mixed") == content(tmp / "file")


def edit(table: gpd.GeoDataFrame, what: str) -> gpd.GeoDataFrame:
    out = table.copy()
    if what == "attribute":
        out.loc[5, "name"] = "renamed"
    elif what == "height":
        out.loc[5, "height"] += 30
    elif what == "moved":
        out.loc[[5], "geometry"] = out.geometry.loc[[5]].translate(1500, 0)
    elif what == "deleted":
        out = out.drop(index=5)
    elif what == "roof":
        out.loc[5, "roof_shape"] = "flat" if out.loc[5, "roof_shape"] != "flat" else "skillion"
    else:
        extra = out.iloc[[5]].assign(id="way/new")
        extra = extra.set_geometry(extra.geometry.translate(3000, 3000))
        out = pd.concat([out, extra], ignore_index=True)
    return out


@pytest.mark.parametrize("what", ["attribute", "height", "moved", "deleted", "roof", "created"])
def test_an_edit_is_found_and_only_its_tiles_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(tiles3d._write, "__defaults__", (tiles3d.LEAF, 20))  # many tiles
    table = city(1500)
    file, folder = tmp_path / "city.gpkg", tmp_path / "tiles"
    write_geopackage(file, {"footprints": Layer(table)})
    first = tiles_from_gpkg(file, folder)
    assert first.written == first.tiles > 20
    assert tiles_from_gpkg(file, folder).written == 0
    write_geopackage(file, {"footprints": Layer(edit(table, what))})
    report = tiles_from_gpkg(file, folder)
    # a changed size or place may move others up and down the tree
    most = 1 if what in ("attribute", "roof") else 15
    assert 0 < report.written <= most
    tiles_from_gpkg(file, tmp_path / "anew")
    assert content(folder) == content(tmp_path / "anew")


def test_rows_that_an_edit_left_unfinished_are_all_told(tmp_path: Path) -> None:
    table = city(30)
    table.loc[3, "height"] = np.nan
    table.loc[4, "id"] = None
    table.loc[5, "height"] = -2.0
    table.loc[[6], "geometry"] = None
    file = tmp_path / "city.gpkg"
    write_geopackage(file, {"footprints": Layer(table)})
    with pytest.raises(InputError) as caught:
        tiles_from_gpkg(file, tmp_path / "tiles")
    text = str(caught.value)
    for told in ("row 4: no height", "row 5: no id", "row 6: a height that", "row 7: no outline"):
        assert told in text
    assert not (tmp_path / "tiles").exists()
    twin = city(30)
    twin.loc[9, "id"] = "way/8"
    write_geopackage(file, {"footprints": Layer(twin)})
    with pytest.raises(InputError, match="way/8"):
        tiles_from_gpkg(file, tmp_path / "tiles")


def test_corners_lie_where_proj_puts_them(tmp_path: Path) -> None:
    """The fitted map is true to a tenth of a millimetre beside single precision."""
    table = city(300, side=60_000.0).assign(roof_shape="flat")
    write_tiles(table, tmp_path, inner=50)
    records: dict[str, Any] = json.loads((tmp_path / "tiles.json").read_text())
    to_ecef = Transformer.from_crs("EPSG:32642", "EPSG:4978", always_xy=True)
    outlines = table.set_index("id").geometry
    for name in ("root", *sorted(records)[:5]):
        document, body = read_glb(tmp_path / "content" / f"{name}.glb")
        accessor = document["accessors"][0]
        view = document["bufferViews"][0]
        data = np.frombuffer(body, "<f4", accessor["count"] * 3, view["byteOffset"])
        east, up, south = data.reshape(-1, 3).T.astype(float)
        matrix = np.array(records[name]["matrix"]).reshape(4, 4).T
        earth = np.column_stack([east, -south, up]) @ matrix[:3, :3].T + matrix[:3, 3]
        x, y, _ = to_ecef.transform(*earth.T, direction="INVERSE")
        cloud = shapely.MultiPoint(shapely.get_coordinates(outlines.to_numpy()))
        corners = shapely.points(x, y)
        span = max(np.ptp(x), np.ptp(y))
        near = shapely.distance(corners, cloud)
        assert near.max() < 2e-3 + span * 2e-7
