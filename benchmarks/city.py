"""Speed and memory of the 3D city, with a peer beside it where it is installed.

Run: ``python benchmarks/city.py [--count 100000] [--grow 1000000] [--osm FILE.osm.pbf]``. Outlines
are synthetic and say so. The peer (trimesh) gets the same outlines and heights, in turns with us,
fewer of them where it would take minutes, and is compared by buildings a second. Sizes for memory
run in processes of their own.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import shapely

from qala.city.buildings import floor_area
from qala.city.kept import Piece, keep, open_kept
from qala.city.solids import make_solids, to_multipolygons, triangulate
from qala.export.cityjson import write_cityjson
from qala.export.geopackage import Layer, write_geopackage
from qala.export.tiles3d import tiles_from_gpkg, write_tiles


def outlines(count: int, seed: int = 1) -> gpd.GeoDataFrame:
    """Synthetic city: rectangles, L- and U-shapes on a 40 m grid."""
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
        made[here] = shapely.polygons(np.round(np.stack([x, y], axis=-1), 3))
    table = gpd.GeoDataFrame(
        {
            "id": [f"way/{i:07d}" for i in range(count)], "parent": None, "source_id": "",
            "kind": rng.choice(["house", "apartments", "retail", "yes"], count), "name": None,
            "height": np.round(rng.gamma(3, 4, count) + 3, 1), "height_source": "tag",
            "min_height": 0.0, "base_z": np.round(rng.uniform(200, 260, count), 2),
            "roof_shape": np.where(rng.random(count) < 0.3, "gabled", "flat"),
            "roof_height": 2.0, "roof_direction": np.nan, "whole": False, "levels": np.nan,
            "min_level": 0.0, "people": 2.0, "lod": "1.2", "valid_code": 0,
        },
        geometry=made, crs="EPSG:32642",
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


def write_buildings(table: Any, file: Path) -> None:
    """Write surfaces and outlines as ``qala city`` does; solids are made on the way."""

    def surfaces(piece: Piece) -> Any:
        return to_multipolygons(piece.solids(), len(piece))

    write_geopackage(
        file, {"buildings": Layer(table, surfaces=surfaces), "footprints": Layer(table)}
    )


def write_all(table: Any, work: Path) -> None:
    """Write all three formats as ``qala city`` does: GDAL writes while CityJSON is encoded."""
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(write_buildings, table, work / "c.gpkg")
        write_cityjson(table, work / "c.city.json", work / "c.city.jsonl")
        job.result()
    shutil.rmtree(work / "tiles", ignore_errors=True)
    tiles_from_gpkg(work / "c.gpkg", work / "tiles")


def ours(table: gpd.GeoDataFrame, work: Path, times: int) -> dict[str, float]:
    """Time each export of the same table, from outlines in memory; solids are made on the way."""
    count = len(table)
    out: dict[str, float] = {}
    triangulate(make_solids(table.iloc[:1000]))  # compiled loops are loaded once
    out["outlines to solids, triangles"], _ = best(lambda: triangulate(make_solids(table)), times)

    def tiles() -> Any:
        shutil.rmtree(work / "tiles", ignore_errors=True)
        return write_tiles(table, work / "tiles")

    def cityjson() -> Any:
        write_cityjson(table, work / "c.city.json", work / "c.city.jsonl")

    def everything() -> None:
        write_all(keep(table, work / "table.arrow"), work)

    out["outlines to tiles"], _ = best(tiles, times)
    out["outlines to cityjson and seq"], _ = best(cityjson, times)
    out["outlines to geopackage"], _ = best(lambda: write_buildings(table, work / "c.gpkg"), times)
    out["outlines to all three"], _ = best(everything, times)
    write_geopackage(work / "f.gpkg", {"footprints": Layer(table)})
    start = work / "start"

    def whole() -> Any:
        shutil.rmtree(start, ignore_errors=True)
        return tiles_from_gpkg(work / "f.gpkg", start)

    out["geopackage to tiles"], _ = best(whole, times)
    ids = table["id"].iloc[count // 2 : count // 2 + 10].tolist()
    for name, named in (("10 edited, found by qala tiles", None), ("10 edited, named", ids)):
        taken = []
        for turn in range(times):
            edit(work / "f.gpkg", ids, f"{name} {turn}")
            seconds, report = best(
                lambda n=named: tiles_from_gpkg(work / "f.gpkg", start, ids=n), 1
            )
            taken.append(seconds)
        out[name] = float(np.median(taken))
        print(f"  {name}: {report.written} of {report.tiles} tiles written")
    return out


def edit(file: Path, ids: list[str], text: str) -> None:
    """Change the name of some buildings, as an edit in a GIS."""
    with sqlite3.connect(file) as db:
        # the triggers name them; no geometry changes here, so that none is called
        for name in ("IsEmpty", "MinX", "MaxX", "MinY", "MaxY"):
            db.create_function(f"ST_{name}", 1, lambda _: 0)
        marks = ",".join("?" * len(ids))
        db.execute(f"UPDATE footprints SET name = ? WHERE id IN ({marks})", [text, *ids])
    db.close()


def against_trimesh(table: gpd.GeoDataFrame, work: Path, count: int, times: int) -> None:
    """Print both ways from outlines in memory to glb, measured in turns by both clocks.

    trimesh extrudes every outline (its triangulation runs in compiled code) and writes one glb. We
    extrude, check, add roofs, and write a tree of tiles with attributes, normals and colours.
    """
    try:
        import trimesh
    except ImportError:
        print("  trimesh is not installed: no peer")
        return
    some = table.iloc[:count]
    origin = some.total_bounds[:2]

    def peer() -> None:
        meshes = [
            trimesh.creation.extrude_polygon(shapely.transform(g, lambda p: p - origin), h)
            for g, h in zip(some.geometry, some["height"], strict=True)
        ]
        trimesh.Scene(meshes).export(work / "peer.glb")

    def us() -> None:
        shutil.rmtree(work / "tiles", ignore_errors=True)
        write_tiles(table, work / "tiles")

    rates: dict[str, list[tuple[float, float]]] = {"trimesh": [], "qala": []}
    for _ in range(times):
        for name, run, size in (("trimesh", peer, len(some)), ("qala", us, len(table))):
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            rates[name].append((size / wall, size / cpu))
    for k, kind in enumerate(("wall clock", "processor time")):
        a, b = (np.array([r[k] for r in rates[n]]) for n in ("trimesh", "qala"))
        pairs = ", ".join(f"{x:.0f}" for x in b / a)
        print(f"  trimesh {np.median(a):,.0f}/s, outlines to tiles {np.median(b):,.0f}/s by "
              f"{kind}: {np.median(b / a):.1f} times (pairs {pairs})")  # fmt: skip


def grow(count: int, what: str) -> None:
    """Do one thing with so many buildings and print its peak; another process makes them."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        make = [sys.executable, __file__, "--make", folder, "--count", str(count)]
        subprocess.run(make, check=True)
        start = time.perf_counter(), time.process_time()
        if what == "exports":
            write_all(open_kept(work / "table.arrow", "EPSG:32642"), work)
        else:
            tiles_from_gpkg(work / "f.gpkg", work / "tiles")
        wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
        print(json.dumps({"count": count, "wall": wall, "cpu": cpu, "peak": peak()}))


def make_inputs(count: int, work: Path) -> None:
    """Write so many outlines as a table kept on disk and as footprints of a GeoPackage."""
    table = outlines(count)
    keep(table, work / "table.arrow")
    write_geopackage(work / "f.gpkg", {"footprints": Layer(table)})


def peak() -> float:
    """Return the most memory this process has had, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def growth(sizes: list[int]) -> None:
    """Print peak memory of each size."""
    for what in ("tiles", "exports"):
        for count in sizes:
            told = subprocess.run([sys.executable, __file__, "--one", what, "--count", str(count)],
                                  capture_output=True, text=True, check=True)  # fmt: skip
            r = json.loads(told.stdout.splitlines()[-1])
            words = "geopackage to tiles" if what == "tiles" else "table on disk to all three"
            print(f"  {words}, {count:,} buildings: peak {r['peak']:,.0f} MB; "
                  f"{r['wall']:.1f} s wall, {r['cpu']:.1f} s processor")  # fmt: skip


def main() -> None:
    """Print a table of seconds and buildings a second."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--peers", type=int, default=2_000, help="buildings given to peers")
    parser.add_argument("--grow", type=int, help="buildings of a second size: memory of both")
    parser.add_argument("--osm", help="an extract for the whole way")
    parser.add_argument("--cpu", action="store_true", help="processor time: on a busy machine")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--make", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make_inputs(options.count, Path(options.make))
        return
    if options.one:
        grow(options.count, options.one)
        return
    global CPU  # noqa: PLW0603  (a script's switch)
    CPU = options.cpu
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        table = outlines(options.count)
        print(f"{options.count:,} synthetic outlines")
        found = ours(table, work, options.times)
        for name, seconds in found.items():
            rate = f"{options.count / seconds:12,.0f} buildings/s" if "10" not in name else ""
            print(f"  {name:30} {seconds:8.3f} s {rate}")
        for name in ("10 edited, found by qala tiles", "10 edited, named"):
            for other in ("outlines to all three", "geopackage to tiles"):
                print(f"  {name}: {found[other] / found[name]:.0f} times faster than {other}")
        against_trimesh(table, work, options.peers, options.times)
        if options.osm:
            from qala.city.twin import city_flow

            seconds, result = best(lambda: city_flow(options.osm, work / "twin"), options.times)
            print(f"{options.osm}: {result['solids']} solids, all exports in {seconds:.1f} s")
            print("  " + ", ".join(f"{k} {v:.2f}" for k, v in result["timings"].items()))
    if options.grow:
        growth([options.count, options.grow])


if __name__ == "__main__":
    main()
