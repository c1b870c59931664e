"""Speed and memory of the 3D city, with peers beside it where they are installed.

Run: ``python benchmarks/city.py [--count 100000] [--osm FILE.osm.pbf]``. Outlines are synthetic and
say so; peers (trimesh, py3dtilers) get the same outlines and heights, fewer of them where they
would take minutes, and are compared by buildings a second.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import shapely

from qala.city.buildings import floor_area
from qala.city.solids import make_solids, to_multipolygons, triangulate
from qala.export.cityjson import write_cityjson
from qala.export.tiles3d import tiles_from_gpkg, write_tiles


def outlines(count: int, seed: int = 1) -> gpd.GeoDataFrame:
    """Synthetic city: rectangles, L- and U-shapes and courtyards on a 40 m grid."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(count)))
    shapes = {
        "box": [(0, 0), (1, 0), (1, 1), (0, 1)],
        "l": [(0, 0), (1, 0), (1, 0.5), (0.5, 0.5), (0.5, 1), (0, 1)],
        "u": [(0, 0), (1, 0), (1, 1), (0.7, 1), (0.7, 0.4), (0.3, 0.4), (0.3, 1), (0, 1)],
    }
    kinds = rng.choice(3, count, p=[0.6, 0.25, 0.15])
    place = np.column_stack([np.arange(count) % side, np.arange(count) // side]) * 40.0
    size = rng.uniform(8, 28, (count, 2))
    turn = rng.uniform(0, np.pi, count)
    made = np.empty(count, object)
    for k, ring in enumerate(shapes.values()):
        here = np.flatnonzero(kinds == k)
        xy = (np.array([*ring, ring[0]]) - 0.5)[None] * size[here][:, None]
        c, s = np.cos(turn[here])[:, None], np.sin(turn[here])[:, None]
        x = c * xy[..., 0] - s * xy[..., 1] + place[here, :1] + 500_000
        y = s * xy[..., 0] + c * xy[..., 1] + place[here, 1:] + 4_790_000
        made[here] = shapely.polygons(np.stack([x, y], axis=-1))
    table = gpd.GeoDataFrame(
        {
            "id": [f"way/{i:07d}" for i in range(count)], "parent": None, "source_id": "",
            "kind": rng.choice(["house", "apartments", "retail", "yes"], count), "name": None,
            "height": np.round(rng.gamma(3, 4, count) + 3, 1), "height_source": "tag",
            "min_height": 0.0, "base_z": np.round(rng.uniform(200, 260, count), 2),
            "roof_shape": np.where(rng.random(count) < 0.3, "gabled", "flat"),
            "roof_height": 2.0, "roof_direction": np.nan, "whole": False, "levels": np.nan,
            "min_level": 0.0, "people": 2.0,
        },
        geometry=shapely.set_precision(made, 0.001), crs="EPSG:32642",
    )  # fmt: skip
    table["height_lo"], table["height_hi"] = table["height"] - 0.05, table["height"] + 0.05
    table["footprint_area"] = table.area
    table["floor_area"] = floor_area(table)
    return table


CPU = False


def clock() -> float:
    """Return seconds of the wall clock, or of the processor where others use the machine."""
    return time.process_time() if CPU else time.perf_counter()


def best(run: Callable[[], Any], times: int = 3) -> tuple[float, Any]:
    """Return the median seconds of several runs and the last result."""
    taken, out = [], None
    for _ in range(times):
        start = clock()
        out = run()
        taken.append(clock() - start)
    return float(np.median(taken)), out


def ours(table: gpd.GeoDataFrame, work: Path, times: int) -> dict[str, float]:
    """Time each export of the same table, from outlines in memory."""
    from qala.export.geopackage import Layer, write_geopackage

    count = len(table)
    out: dict[str, float] = {}

    def solids() -> Any:
        made = make_solids(table)
        return made, triangulate(made)

    solids()  # compiled loops are loaded once
    out["solids"], (made, _) = best(solids, times)
    lods = table.assign(lod=made.lods, valid_code=made.valid_codes)

    def tiles() -> Any:
        shutil.rmtree(work / "tiles", ignore_errors=True)
        return write_tiles(lods, work / "tiles")

    out["tiles"], _ = best(tiles, times)
    changed = lods.copy()
    changed.loc[changed.index[count // 2 : count // 2 + 10], "name"] = "changed"
    state = [lods, changed]

    def again() -> Any:
        state.reverse()
        return write_tiles(state[0], work / "tiles")

    out["tiles, 10 changed"], report = best(again, times)
    print(f"  10 changed: {report.written} of {report.tiles} tiles written")
    out["cityjson + seq"], _ = best(
        lambda: write_cityjson(lods, made, work / "c.city.json", work / "c.city.jsonl"), times
    )

    def gpkg() -> None:
        shapes = to_multipolygons(made, count)
        layer = gpd.GeoDataFrame(lods.drop(columns="geometry"), geometry=shapes, crs=lods.crs)
        write_geopackage(work / "c.gpkg", {"buildings": Layer(layer)})

    out["geopackage"], _ = best(gpkg, times)
    write_geopackage(work / "f.gpkg", {"footprints": Layer(lods)})
    shutil.rmtree(work / "tiles")
    start = work / "start"

    def whole() -> Any:
        shutil.rmtree(start, ignore_errors=True)
        return tiles_from_gpkg(work / "f.gpkg", start)

    out["gpkg to tiles"], _ = best(whole, times)
    ids = lods["id"].iloc[count // 2 : count // 2 + 10].tolist()
    turn = [0]

    def edited() -> Any:
        turn[0] += 1
        with sqlite3.connect(work / "f.gpkg") as db:
            # the triggers name them; no geometry changes here, so that none is called
            for name in ("IsEmpty", "MinX", "MaxX", "MinY", "MaxY"):
                db.create_function(f"ST_{name}", 1, lambda _: 0)
            marks = ",".join("?" * len(ids))
            db.execute(f"UPDATE footprints SET name = 'v{turn[0]}' WHERE id IN ({marks})", ids)
        db.close()

    def some() -> Any:
        return tiles_from_gpkg(work / "f.gpkg", start, ids=ids)

    taken = []
    for _ in range(times):
        edited()
        seconds, report = best(some, 1)
        taken.append(seconds)
    out["gpkg to tiles, 10 named"] = float(np.median(taken))
    print(f"  10 named: {report.written} of {report.tiles} tiles written")
    return out


def trimesh_rate(table: gpd.GeoDataFrame, work: Path, count: int) -> float | None:
    """Buildings a second of trimesh: extrude each outline, one glb."""
    try:
        import trimesh
    except ImportError:
        return None
    some = table.iloc[:count]
    start = clock()
    origin = some.total_bounds[:2]
    meshes = [
        trimesh.creation.extrude_polygon(
            shapely.transform(g, lambda p: p - origin), h
        )
        for g, h in zip(some.geometry, some["height"], strict=True)
    ]  # fmt: skip
    trimesh.Scene(meshes).export(work / "peer.glb")
    return count / (clock() - start)


def main() -> None:
    """Print a table of seconds and buildings a second."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--peers", type=int, default=2_000, help="buildings given to peers")
    parser.add_argument("--osm", help="an extract for the whole way")
    parser.add_argument("--cpu", action="store_true", help="processor time: on a busy machine")
    options = parser.parse_args()
    global CPU  # noqa: PLW0603  (a script's switch)
    CPU = options.cpu
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        table = outlines(options.count)
        print(f"{options.count} synthetic outlines")
        found = ours(table, work, options.times)
        for name, seconds in found.items():
            print(f"  {name:24} {seconds:8.3f} s {options.count / seconds:12,.0f} buildings/s")
        to_tiles = found["solids"] + found["tiles"]
        whole = to_tiles + found["cityjson + seq"] + found["geopackage"]
        for name, seconds in (("solids to tiles", to_tiles), ("all three formats", whole)):
            print(f"  {name:24} {seconds:8.3f} s {options.count / seconds:12,.0f} buildings/s")
        print(f"  change of 10         {to_tiles / found['tiles, 10 changed']:8.1f} times faster")
        ratio = found["gpkg to tiles"] / found["gpkg to tiles, 10 named"]
        print(f"  10 named             {ratio:8.1f} times faster than all from the GeoPackage")
        rate = trimesh_rate(table, work, options.peers)
        if rate is None:
            print("  trimesh is not installed: no peer")
        else:
            print(f"  trimesh              {rate:12,.0f} buildings/s, "
                  f"{options.count / to_tiles / rate:.0f} times slower")  # fmt: skip
        if options.osm:
            from qala.city.twin import city_flow

            seconds, result = best(lambda: city_flow(options.osm, work / "twin"), options.times)
            print(f"{options.osm}: {result['solids']} solids, all exports in {seconds:.1f} s")
            print("  " + ", ".join(f"{k} {v:.2f}" for k, v in result["timings"].items()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak {peak:,.0f} MB")


if __name__ == "__main__":
    main()
