"""Road networks side by side with other programs, in one run: ratios, memory, growth.

    python benchmarks/network.py [--osm EXTRACT] [--copies 22] [--file F] [--only read,graph]

Without an extract of some 60 MB at hand, `--osm` is copied `--copies` times side by side
(synthetic: ids and longitudes are shifted). Other programs are measured where they are installed.
Times are medians of three runs each in a process of its own, interleaved: of the wall, of the
processor (all threads; what counts on a busy machine), and of the processor for the whole process
with its imports. Ratios count, not seconds. Nothing here is a gate.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
RUNS = 3


def now() -> Any:
    """Return the time of the wall and of the processor, seconds."""
    return np.array([time.perf_counter(), time.process_time()])


def both(spent: Any, prefix: str = "") -> dict[str, float]:
    """Name the two times."""
    return {f"{prefix}seconds": float(spent[0]), f"{prefix}cpu": float(spent[1])}


# ---- one measurement, in a process of its own ------------------------------------------------


def scan(path: str) -> dict[str, Any]:
    """Decode the whole file with pyosmium and hand nothing to Python: the floor."""
    import osmium

    nothing = osmium.filter.KeyFilter("no such key")
    return {"objects": sum(1 for _ in osmium.FileProcessor(path).with_filter(nothing))}


def ours(path: str) -> dict[str, Any]:
    """Read the extract as a routable graph."""
    from qala.network import read_network

    network = read_network(path)
    return {"nodes": int(network.lon.size), "arcs": int(network.indices.size)}


def ours_saved(path: str) -> dict[str, Any]:
    """Read the saved network."""
    from qala.network import load_network

    return {"nodes": int(load_network(path).lon.size)}


def with_pyrosm(path: str) -> dict[str, Any]:
    """Read the driving network with pyrosm: edges and nodes, no graph yet."""
    import pyrosm

    nodes, edges = pyrosm.OSM(path).get_network(network_type="driving", nodes=True)
    return {"nodes": len(nodes), "edges": len(edges)}


def with_pyrosm_graph(path: str) -> dict[str, Any]:
    """Make a routable graph with pyrosm, in networkx."""
    import pyrosm

    osm = pyrosm.OSM(path)
    nodes, edges = osm.get_network(network_type="driving", nodes=True)
    graph = osm.to_graph(nodes, edges, graph_type="networkx")
    return {"nodes": graph.number_of_nodes(), "edges": graph.number_of_edges()}


def with_osmnx(path: str) -> dict[str, Any]:
    """Make a graph with osmnx from XML."""
    import osmnx

    graph = osmnx.graph_from_xml(path)
    return {"nodes": graph.number_of_nodes(), "edges": graph.number_of_edges()}


def road_grid(side: int) -> tuple[Any, Any, Any, Any]:
    """Return a synthetic street grid: arcs of side × side nodes, 4 a node, in seconds."""
    rng = np.random.default_rng(0)
    number = np.arange(side * side, dtype=np.int32).reshape(side, side)
    a = np.concatenate([number[:, :-1].ravel(), number[:-1].ravel()])
    b = np.concatenate([number[:, 1:].ravel(), number[1:].ravel()])
    # half of the streets are missing, as blocks of different size would have it
    keep = rng.random(a.size) < 0.55
    a, b = a[keep], b[keep]
    return a, b, rng.uniform(2, 20, a.size), rng.choice(side * side, 300, replace=False)


def graph_ours(side: str) -> dict[str, Any]:
    """Build the arcs and search from 300 sources."""
    from qala import _routing as kernels

    a, b, seconds, sources = road_grid(int(side))
    small = road_grid(40)
    timings = {}
    for name, (u, v, w, s) in (
        ("warm", (*small[:3], small[3][:2])),
        ("run", (a, b, seconds, sources)),
    ):
        nodes = int(max(u.max(), v.max())) + 1
        inside = s[s < nodes]
        start = now()
        indptr, indices, weight, _ = kernels.arcs_csr(nodes, u, v, w, w, True)
        found, _ = kernels.nearest(
            indptr,
            indices,
            weight,
            inside,
            np.zeros(inside.size),
            np.arange(inside.size, dtype=np.int32),
            np.inf,
        )
        timings[name] = now() - start
        start = now()
        reach = _catchments(kernels, indptr, indices, weight, inside)
        timings[name + " catchments"] = now() - start
    return {
        **both(timings["run"]), **both(timings["run catchments"], "catchments "), "pairs": reach,
        "sum": float(found[np.isfinite(found)].sum()), "arcs": int(indices.size),
    }  # fmt: skip


def _catchments(kernels: Any, indptr: Any, indices: Any, weight: Any, sources: Any) -> int:
    """List the nodes within 15 minutes of each source, on two threads."""
    from concurrent.futures import ThreadPoolExecutor

    nodes = indptr.size - 1
    hooks = np.arange(nodes + 1, dtype=np.int64), np.arange(nodes, dtype=np.int32), np.zeros(nodes)
    groups = np.arange(sources.size, dtype=np.int64)

    def search(mine: Any) -> int:
        return kernels.catchments(
            indptr, indices, weight, np.arange(sources.size + 1, dtype=np.int64), sources,
            np.zeros(sources.size), mine, 900.0, *hooks,
        )[0].size  # fmt: skip

    with ThreadPoolExecutor(2) as pool:
        return sum(pool.map(search, [groups[::2], groups[1::2]]))


def graph_networkx(side: str) -> dict[str, Any]:
    """Do the same with networkx."""
    import networkx as nx

    a, b, seconds, sources = road_grid(int(side))
    start = now()
    graph = nx.DiGraph()
    a_, b_, w_ = a.tolist(), b.tolist(), seconds.astype(np.float32).tolist()
    graph.add_weighted_edges_from(zip(a_, b_, w_, strict=True))
    graph.add_weighted_edges_from(zip(b_, a_, w_, strict=True))
    mine = [s for s in sources.tolist() if s in graph]
    found = nx.multi_source_dijkstra_path_length(graph, mine)
    spent = now() - start
    start = now()
    pairs = sum(len(nx.single_source_dijkstra_path_length(graph, s, cutoff=900)) for s in mine)
    return {
        **both(spent), **both(now() - start, "catchments "), "pairs": pairs,
        "sum": sum(found.values()),
    }  # fmt: skip


def graph_scipy(side: str) -> dict[str, Any]:
    """Do the same with scipy; catchments in batches of 20."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import dijkstra

    a, b, seconds, sources = road_grid(int(side))
    start = now()
    n = int(side) ** 2
    both = np.concatenate([a, b]), np.concatenate([b, a])
    graph = coo_array((np.concatenate([seconds, seconds]), both), shape=(n, n)).tocsr()
    found = dijkstra(graph, indices=sources, min_only=True)
    spent = now() - start
    start = now()
    pairs = sum(
        int(np.isfinite(dijkstra(graph, indices=sources[i : i + 20], limit=900)).sum())
        for i in range(0, sources.size, 20)
    )
    return {
        **both(spent), **both(now() - start, "catchments "), "pairs": pairs,
        "sum": float(found[np.isfinite(found)].sum()),
    }  # fmt: skip


def surface(size: int, sources: int) -> tuple[Any, Any]:
    """Return a synthetic smooth friction surface, seconds per metre, and labelled sources."""
    from scipy.ndimage import gaussian_filter, zoom

    rng = np.random.default_rng(0)
    coarse = gaussian_filter(rng.normal(size=(size // 8 + 1, size // 8 + 1)), 1.5)
    friction = np.exp(zoom(coarse, 8, order=1)[:size, :size] * 4 - 1.5).clip(0.03, 2.0)
    labels = np.zeros((size, size), np.int32)
    if sources == 1:
        labels[size // 2, size // 2] = 1
    else:
        labels.ravel()[rng.choice(size * size, sources, replace=False)] = np.arange(1, sources + 1)
    return friction, labels


def friction_ours(size: str, sources: str = "300") -> dict[str, Any]:
    """Spread from the sources tile by tile."""
    from qala.travel import TILE, _least_cost

    friction, labels = surface(int(size), int(sources))
    warm = np.ones((9, 9)), np.eye(9, dtype=np.int32)
    _least_cost(*warm, 1000.0, np.inf, 4, 2)
    start = now()
    seconds, _ = _least_cost(friction, labels, 1000.0, np.inf, TILE, 2)
    return {**both(now() - start), "sum": float(seconds.sum())}


def friction_xarray_spatial(size: str, sources: str = "300") -> dict[str, Any]:
    """Do the same with xarray-spatial's cost_distance."""
    import xarray as xr
    from xrspatial import cost_distance

    friction, labels = surface(int(size), int(sources))

    def run(cost: Any, start: Any) -> Any:
        axis = np.arange(cost.shape[0], dtype=np.float64)
        coords = {"y": axis * 1000, "x": axis * 1000}
        wrap = {"dims": ("y", "x"), "coords": coords, "attrs": {"res": (1000.0, 1000.0)}}
        made = cost_distance(
            xr.DataArray(start.astype(np.float64), **wrap), xr.DataArray(cost, **wrap)
        )
        return made.values

    run(np.ones((9, 9)), np.eye(9))
    start = now()
    found = run(friction, labels)
    return {
        **both(now() - start),
        "sum": float(np.nansum(found, dtype=np.float64)),
    }


def friction_skimage(size: str, sources: str = "300") -> dict[str, Any]:
    """Do the same with scikit-image's MCP_Geometric."""
    from skimage.graph import MCP_Geometric

    friction, labels = surface(int(size), int(sources))
    start = now()
    found, _ = MCP_Geometric(friction * 1000.0).find_costs(np.argwhere(labels > 0))
    return {**both(now() - start), "sum": float(found.sum())}


MEASURES: dict[str, Callable[..., dict[str, Any]]] = {
    f.__name__: f
    for f in (
        scan, ours, ours_saved, with_pyrosm, with_pyrosm_graph, with_osmnx,
        graph_ours, graph_networkx, graph_scipy,
        friction_ours, friction_xarray_spatial, friction_skimage,
    )
}  # fmt: skip


#: loaded before the clock starts
IMPORTS = {
    "scan": ("osmium",),
    "ours": ("osmium", "qala._pbf_kernels", "scipy.sparse.csgraph", "pyproj"),
    "ours_saved": ("qala._routing", "scipy.sparse.csgraph", "pyproj"),
    "with_pyrosm": ("pyrosm",),
    "with_pyrosm_graph": ("pyrosm", "networkx"),
    "with_osmnx": ("osmnx",),
}


def peak_mb() -> float:
    """Return the peak memory of this process alone, where the system tells it."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(t for t in status.read_text().splitlines() if t.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def child(name: str, arguments: list[str]) -> None:
    """Run one measurement and print it."""
    for module in IMPORTS.get(name, ()):
        importlib.import_module(module)
    start = now()
    result = MEASURES[name](*arguments)
    spent = both(now() - start)
    # measurements with a clock of their own leave the building of their data out
    whole = {"process": time.process_time(), "peak_mb": peak_mb()}
    print(json.dumps({**spent, **whole, **result}))


# ---- comparison ------------------------------------------------------------------------------


def measure(jobs: dict[str, list[str]], runs: int = RUNS) -> dict[str, dict[str, float]]:
    """Run the jobs in turn, several times, and return medians."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'pipeline'}:{os.environ.get('PYTHONPATH', '')}",
    }
    results: dict[str, list[dict[str, float]]] = {}
    for _ in range(runs):
        for title, arguments in jobs.items():
            command = [sys.executable, __file__, "--child", *arguments]
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode:
                print(f"  {title}: failed: {done.stderr.strip().splitlines()[-1:]}")
                continue
            results.setdefault(title, []).append(json.loads(done.stdout.splitlines()[-1]))
    return {
        title: {key: statistics.median(r[key] for r in rows) for key in rows[0]}
        for title, rows in results.items()
    }


def show(
    title: str, results: dict[str, dict[str, float]], base: str, extra: tuple[str, ...] = ()
) -> None:
    """Print a table with ratios to one row."""
    print(f"\n{title}")
    for name, row in results.items():
        ratio = row["seconds"] / results[base]["seconds"]
        more = "".join(f"  {key} {row[key]:.6g}" for key in extra if key in row)
        cpu = f"{row['cpu']:8.2f} s of processor {row['cpu'] / results[base]['cpu']:8.2f} ×"
        head = f"  {name:<34}{row['seconds']:9.3f} s {ratio:8.2f} × {cpu}"
        print(f"{head} {row['peak_mb']:7.0f} MB{more}")


def present(module: str, why: str) -> bool:
    """Tell whether a program can be measured, and say so where not."""
    found = importlib.util.find_spec(module) is not None
    if not found:
        print(f"  {module} is not installed: {why} is not compared")
    return found


def copies_of(path: Path, folder: Path, number: int) -> Path:
    """Write an extract several times side by side, with other ids (synthetic)."""
    import osmium

    out = folder / f"copies-{number}.osm.pbf"
    # ids are numbered anew from 1, as dense as a country's
    first: dict[int, int] = {}
    nodes = [
        (o.id, o.location.lon, o.location.lat, dict(o.tags))
        for o in osmium.FileProcessor(str(path), osmium.osm.NODE)
    ]
    ways = [
        ([n.ref for n in o.nodes], dict(o.tags))
        for o in osmium.FileProcessor(str(path), osmium.osm.WAY)
    ]
    for i, node in enumerate(nodes):
        first[node[0]] = i + 1
    make = osmium.osm.mutable
    with osmium.SimpleWriter(str(out), overwrite=True) as sink:
        for k in range(number):
            for i, (_, lon, lat, tags) in enumerate(nodes):
                sink.add_node(
                    make.Node(
                        id=k * len(nodes) + i + 1,
                        version=1,
                        location=(lon + 0.2 * k, lat),
                        tags=tags,
                    )
                )
        for k in range(number):
            for i, (refs, tags) in enumerate(ways):
                known = [k * len(nodes) + first[r] for r in refs if r in first]
                sink.add_way(make.Way(id=k * len(ways) + i + 1, version=1, nodes=known, tags=tags))
    return out


def compare_reading(osm: Path, copies: int, folder: Path, whole: Path | None) -> None:
    """Compare the way from an extract to a graph, and its growth with size."""
    from qala.network import read_network, save_network

    for number in sorted({max(copies // 4, 1), copies}) if whole is None else [0]:
        file = whole or (copies_of(osm, folder, number) if number > 1 else osm)
        saved = save_network(read_network(file), folder / "saved.net")
        jobs = {
            "pyosmium scan (floor)": ["scan", str(file)],
            "qala, extract to graph": ["ours", str(file)],
        }
        jobs["qala, network saved before"] = ["ours_saved", str(saved)]
        if present("pyrosm", "reading by pyrosm"):
            jobs["pyrosm, edges and nodes, no graph"] = ["with_pyrosm", str(file)]
            jobs["pyrosm, extract to graph"] = ["with_pyrosm_graph", str(file)]
        size = file.stat().st_size / 1e6
        show(
            f"Reading {size:.1f} MB (saved: {saved.stat().st_size / 1e6:.1f} MB)",
            measure(jobs),
            "pyosmium scan (floor)",
            ("nodes", "arcs", "edges", "process"),
        )
    if present("osmnx", "reading XML by osmnx"):
        import osmium

        xml = folder / "roads.osm"
        with osmium.SimpleWriter(str(xml), overwrite=True) as sink:
            for o in osmium.FileProcessor(str(osm)):
                sink.add(o)
        jobs = {"qala from XML": ["ours", str(xml)], "qala from PBF": ["ours", str(osm)]}
        jobs["osmnx from XML"] = ["with_osmnx", str(xml)]
        show(
            f"The same roads as XML ({xml.stat().st_size / 1e6:.0f} MB)",
            measure(jobs),
            "qala from XML",
            ("nodes", "process"),
        )


def compare_graphs(sides: list[int]) -> None:
    """Compare build and query of shortest times."""
    for side in sides:
        jobs = {"qala": ["graph_ours", str(side)], "scipy": ["graph_scipy", str(side)]}
        if present("networkx", "the search of networkx"):
            jobs["networkx"] = ["graph_networkx", str(side)]
        results = measure(jobs)
        arcs = int(results["qala"]["arcs"])
        show(
            f"Nearest of 300 sources, {side * side} nodes, {arcs} arcs: build and query",
            results,
            "qala",
            ("sum",),
        )
        areas = {
            n: {**r, "seconds": r["catchments seconds"], "cpu": r["catchments cpu"]}
            for n, r in results.items()
        }
        show("Catchments of 15 minutes of each source", areas, "qala", ("pairs",))


def compare_friction(sizes: list[int]) -> None:
    """Compare least-cost times on a friction surface."""
    for size in sizes:
        for sources in (300, 1):
            jobs = {"qala": ["friction_ours", str(size), str(sources)]}
            if present("xrspatial", "the surface of xarray-spatial"):
                jobs["xarray-spatial"] = ["friction_xarray_spatial", str(size), str(sources)]
            if present("skimage", "the surface of scikit-image"):
                jobs["scikit-image MCP"] = ["friction_skimage", str(size), str(sources)]
            results = measure(jobs, runs=RUNS if size < 5000 else 1)
            show(f"Friction surface {size}², {sources} sources", results, "qala", ("sum",))


def main() -> None:
    """Run the comparisons."""
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3:])
        return
    data = os.environ.get("QALA_REFERENCE_DATA", str(ROOT.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--osm", type=Path, default=Path(data) / "osm" / "liechtenstein_2022.osm.pbf"
    )
    parser.add_argument("--copies", type=int, default=22)
    parser.add_argument("--file", type=Path, help="an extract read as it is, not copied")
    parser.add_argument("--only", default="read,graph,friction")
    parser.add_argument("--sizes", default="1500,6000")
    options = parser.parse_args()
    chosen = options.only.split(",")
    sys.path.insert(0, str(ROOT / "pipeline"))
    if "read" in chosen:
        if options.osm.exists():
            with tempfile.TemporaryDirectory() as folder:
                compare_reading(options.osm, options.copies, Path(folder), options.file)
        else:
            print(
                f"{options.osm} is not there: reading is not compared; name an extract with --osm"
            )
    if "graph" in chosen:
        compare_graphs([300, 700])
    if "friction" in chosen:
        compare_friction([int(v) for v in options.sizes.split(",")])


if __name__ == "__main__":
    main()
