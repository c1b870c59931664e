"""Odd tags and geometries at random: a twin is always made, and every solid in it is valid.

Solids are checked here from the written CityJSON with code of this test alone.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from extracts import Extract

from qala.city.check import check_twin
from qala.city.twin import city_flow

HEIGHTS = ("12 m", "12,5", "39'", "-3", "abc", "5'6\"", "10-12", "0", "1e9", "9", "25.4", "3;4",
           "~7", "", " 8 ", "nan", "inf", "12.5.1", "७", "15м", "999", "1001", "0.01",
           "0.4")  # fmt: skip
LEVELS = ("2", "2.5", "3;4", "-1", "0", "EG", "1e3", "12", "", "nan", "0.5", "200", "201")
SHAPES = ("flat", "gabled", "hipped", "pyramidal", "skillion", "dome", "onion", "round",
          "half-hipped", "mansard", "yes", "GABLED", "many;kinds", "cone", "saltbox")  # fmt: skip
KINDS = ("yes", "house", "no", "garage", "roof", "carport", "church", "construction", "proposed",
         "demolished", "жилой дом", "apartments;shop", "")  # fmt: skip
MORE = ("roof:height", "min_height", "roof:angle", "roof:direction", "roof:orientation",
        "roof:levels", "building:min_level", "layer", "location", "est_height", "building:height",
        "building:part", "min_level")  # fmt: skip
VALUES = ("1", "3", "30", "89", "90", "NE", "along", "across", "-1", "underground", "200", "2,5",
          "40°", "yes", "no", "surface")  # fmt: skip


def outline(rng: np.random.Generator, x: float, y: float) -> tuple[list[tuple[float, float]], bool]:
    """Return corners, and whether the ring is to be closed."""
    kind = int(rng.integers(0, 12))
    w, d = rng.uniform(0.02, 1.6, 2)
    box = [(x, y), (x + w, y), (x + w, y + d), (x, y + d)]
    if kind < 4:
        return box, True
    if kind == 4:  # crossing itself
        return [box[0], box[2], box[1], box[3]], True
    if kind == 5:  # a spike
        return [*box, (x, y + d / 2), (x - 0.5, y + d / 2), (x, y + d / 2)], True
    if kind == 6:  # corners that repeat
        return [box[0], box[0], box[1], box[1], box[2], box[3], box[3]], True
    if kind == 7:  # touching itself
        return [box[0], (x + w / 2, y), box[1], box[2], (x + w / 2, y), box[3]], True
    if kind == 8:  # all on one line
        return [(x, y), (x + w, y), (x + 2 * w, y)], True
    if kind == 9:
        return box, False
    if kind == 10:  # a star of many corners
        angle = np.sort(rng.uniform(0, 2 * np.pi, 9))
        r = rng.uniform(0.2, 0.9, 9)
        ring = np.column_stack([x + r * np.cos(angle), y + r * np.sin(angle)])
        return [tuple(p) for p in ring.tolist()], True
    turn = rng.uniform(0, np.pi)
    c, s = np.cos(turn), np.sin(turn)
    return [(x + c * (a - x) - s * (b - y), y + s * (a - x) + c * (b - y)) for a, b in box], True


def random_extract(seed: int, count: int) -> Extract:
    rng = np.random.default_rng(seed)
    osm = Extract(lon=float(rng.choice([68.25, -70.6, 18.4])),
                  lat=float(rng.choice([43.29, -33.45, 64.1, -0.0003])))  # fmt: skip
    osm.box(1, -3, -3)  # one building is certain
    for i in range(count):
        x, y = (float(v) for v in rng.uniform(0, 1.6 * np.sqrt(count), 2))
        corners, close = outline(rng, x, y)
        tags: dict[str, str] = {}
        for key, values, share in (
            ("building", KINDS, 0.9), ("height", HEIGHTS, 0.5), ("building:levels", LEVELS, 0.4),
            ("roof:shape", SHAPES, 0.5),
        ):  # fmt: skip
            if rng.random() < share:
                tags[key] = str(rng.choice(values))
        for key in rng.choice(MORE, 3):
            tags[str(key)] = str(rng.choice(VALUES))
        osm.way(10 + i, corners, close, **{k.replace(":", "__"): v for k, v in tags.items()})
        if rng.random() < 0.1:  # a relation of this way and others, some of which are not there
            others = [("way", int(n), str(r)) for n, r in zip(
                rng.integers(10, 20 + i, 3), rng.choice(["inner", "outer", "part", ""], 3),
                strict=True)]  # fmt: skip
            kind = str(rng.choice(["multipolygon", "building", "boundary"]))
            first = "outline" if kind == "building" else "outer"
            osm.relation(100_000 + i, [("way", 10 + i, first), *others], type=kind, building="yes")
    return osm


def rings_of(solid: list[Any], vertices: np.ndarray) -> list[list[np.ndarray]]:
    return [[vertices[ring] for ring in surface] for shell in solid for surface in shell]


def faults(solid: list[Any], vertices: np.ndarray) -> str:
    """Return what is wrong with a solid, by the definition of ISO 19107; empty if nothing."""
    edges: Counter[tuple[int, int]] = Counter()
    place: dict[bytes, int] = {}
    volume = 0.0
    for surface in rings_of(solid, vertices):
        area = np.zeros(3)
        for ring in surface:
            ids = [place.setdefault(p.tobytes(), len(place)) for p in np.ascontiguousarray(ring)]
            if len(set(ids)) != len(ids) or len(ids) < 3:
                return "a ring repeats a corner"
            edges.update(zip(ids, ids[1:] + ids[:1], strict=True))
            area += np.cross(ring - ring[0], np.roll(ring, -1, axis=0) - ring[0]).sum(axis=0) / 2
        size = np.linalg.norm(area)
        if size == 0:
            return "a surface has no area"
        corners = np.vstack(surface)
        middle = corners.mean(axis=0)
        if np.abs((corners - middle) @ (area / size)).max() > 0.02:
            return "a surface is not flat"
        volume += middle @ area / 3
        # in its own plane the surface must be a valid polygon
        drop = int(np.abs(area).argmax())
        flat = [np.delete(r, drop, axis=1) for r in surface]
        if not shapely.Polygon(flat[0], flat[1:]).is_valid:
            return "a surface crosses itself"
    if any(n != 1 or edges[b, a] != 1 for (a, b), n in edges.items()):
        return "an edge is not met once each way"
    return "" if volume > 0 else "it is inside out"


@pytest.mark.parametrize("seed", range(4))
def test_any_extract_becomes_a_valid_twin(tmp_path: Path, seed: int) -> None:
    out = tmp_path / "twin"
    result = city_flow(random_extract(seed, 250).write(tmp_path / "x.osm"), out, date="2026-01-01")
    check_twin(out)
    document = json.loads((out / "city.city.json").read_text())
    vertices = np.array(document["vertices"], float) * document["transform"]["scale"]
    solids = 0
    for name, item in document["CityObjects"].items():
        for geometry in item["geometry"]:
            if geometry["type"] == "Solid":
                solids += 1
                wrong = faults(geometry["boundaries"], vertices)
                assert not wrong, (name, wrong)
    assert solids == result["solids"] > 50
    table = gpd.read_file(out / "city.gpkg", layer="buildings")
    assert (table["height"] > table["min_height"]).all()
    assert (table["min_height"] >= 0).all()
    assert np.isfinite(table["height"]).all()
    assert (table["height_lo"] <= table["height"]).all()
    assert (table["height"] <= table["height_hi"]).all()
    # every building drawn is in the twin, or in the list of issues with its reason
    issues = gpd.read_file(out / "city.gpkg", layer="issues")
    assert issues["reason"].str.len().min() > 5
    here = set(table["id"].str.split("#").str[0]) | set(table["source_id"]) | set(issues["id"])
    drawn = _drawn(tmp_path / "x.osm")
    assert drawn <= here, sorted(drawn - here)[:5]


def _drawn(path: Path) -> set[str]:
    """Ids of ways tagged as buildings or parts."""
    import xml.etree.ElementTree as ET

    out = set()
    for way in ET.parse(path).getroot().iter("way"):
        tags = {t.get("k"): t.get("v") for t in way.iter("tag")}
        if any(tags.get(k, "no") != "no" for k in ("building", "building:part")):
            out.add(f"way/{way.get('id')}")
    return out


def test_a_city_across_180_degrees_east_keeps_its_size(tmp_path: Path) -> None:
    osm = Extract(lon=179.9995, lat=-16.8)
    for i in range(30):
        osm.box(1 + i, (i % 6) * 2, (i // 6) * 2, height="9")
    out = tmp_path / "twin"
    city_flow(osm.write(tmp_path / "x.osm"), out, date="2026-01-01")
    check_twin(out)
    table = gpd.read_file(out / "city.gpkg", layer="footprints")
    assert table.crs.to_epsg() in (32701, 32760)
    west, south, east, north = table.total_bounds
    assert east - west < 400
    assert north - south < 400
