"""Cells of the Degree of Urbanisation: time, memory and growth beside peers.

One run compares, interleaved, each in a process of its own:

* ``decode``: reading and decompressing the files with two threads, the floor;
* ``qala``: scanning, joining, smoothing, filling, painting and writing;
* ``scipy``: the same rules as careful whole-array NumPy and SciPy.

Usage::

    python benchmarks/cells.py            # the country size, 2700 × 1700
    python benchmarks/cells.py --world    # the world at 1 km, with growth 1/16, 1/4, 1
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

WORLD = (18_000, 36_082)
COUNTRY = (1_700, 2_700)
SEED = 20231
CRS = "ESRI:54009"


# --- a synthetic planet, strip by strip -------------------------------------------


def _noise(
    rng: np.random.Generator, shape: tuple[int, int], cells: int
) -> tuple[np.ndarray, float]:
    """Smooth noise: random values on a coarse grid, interpolated; and cells per value."""
    from scipy.ndimage import zoom

    coarse = rng.normal(size=(shape[0] // cells + 3, shape[1] // cells + 3)).astype(np.float32)
    return zoom(coarse, 8, order=1), cells / 8


def make(folder: Path, shape: tuple[int, int]) -> dict[str, Path]:
    """Write population (float32 DEFLATE and float64 LZW), built-up and land of a seeded planet."""
    import rasterio
    from affine import Affine
    from rasterio.windows import Window

    height, width = shape
    names = {
        "pop32": "pop_float32_deflate.tif",
        "pop64": "pop_float64_lzw.tif",
        "built": "GHS_BUILT_S_synthetic.tif",
        "land": "GHS_LAND_synthetic.tif",
    }
    paths = {k: folder / f"{height}x{width}" / v for k, v in names.items()}
    if all(p.exists() for p in paths.values()):
        return paths
    paths["pop32"].parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED)
    relief, step = _noise(rng, shape, 900)
    wealth, wstep = _noise(rng, shape, 90)
    count = max(40, height * width // 1_500)
    cy, cx = rng.integers(0, height, count), rng.integers(0, width, count)
    people = np.minimum(900 * (rng.pareto(1.05, count) + 0.05), 2e7)
    # one city at least, so that a warm-up on a small raster passes through every loop
    cy[0], cx[0], people[0] = height // 2, width // 2, 5e6
    order = np.argsort(cy)
    cy, cx, people = cy[order], cx[order], people[order]
    common = {
        "driver": "GTiff", "height": height, "width": width, "count": 1, "crs": CRS,
        "tiled": True, "blockxsize": 512, "blockysize": 512, "num_threads": "ALL_CPUS",
        "transform": Affine(1000, 0, -18_041_000, 0, -1000, 9e6), "bigtiff": "IF_SAFER",
    }  # fmt: skip
    sinks = {
        "pop32": rasterio.open(
            paths["pop32"], "w", dtype="float32", compress="DEFLATE", nodata=-200, **common
        ),
        "pop64": rasterio.open(
            paths["pop64"], "w", dtype="float64", compress="LZW", nodata=-200, **common
        ),
        "built": rasterio.open(
            paths["built"], "w", dtype="uint32", compress="DEFLATE", nodata=2**32 - 1, **common
        ),
        "land": rasterio.open(
            paths["land"], "w", dtype="uint32", compress="DEFLATE", nodata=2**32 - 1, **common
        ),
    }
    for sink in sinks.values():
        sink.update_tags(SYNTHETIC="yes", seed=str(SEED))
        sink.set_band_unit(1, "m2") if sink.dtypes[0] == "uint32" else None
    halo = 60
    for top in range(0, height, 512):
        n = min(512, height - top)
        y = np.arange(top, top + n)
        rows = np.minimum((y / step).astype(int), relief.shape[0] - 1)
        cols = np.minimum((np.arange(width) / step).astype(int), relief.shape[1] - 1)
        land = relief[np.ix_(rows, cols)] > (0.35 if height > 1_000 else -9.0)
        wrows = np.minimum((y / wstep).astype(int), wealth.shape[0] - 1)
        wcols = np.minimum((np.arange(width) / wstep).astype(int), wealth.shape[1] - 1)
        pop = np.exp(2.2 * wealth[np.ix_(wrows, wcols)]).astype(np.float32)
        local = np.random.default_rng([SEED, top])
        pop *= local.exponential(1.0, pop.shape).astype(np.float32)
        pop[pop < 1.2] = 0
        first, last = np.searchsorted(cy, [top - halo, top + n + halo])
        for i in range(first, last):
            radius = max(0.8, np.sqrt(people[i] / 3_500) / 2.2)
            reach = int(min(halo, 3.2 * radius + 2))
            y0, y1 = max(cy[i] - reach, top), min(cy[i] + reach + 1, top + n)
            x0, x1 = max(cx[i] - reach, 0), min(cx[i] + reach + 1, width)
            if y0 >= y1 or x0 >= x1:
                continue
            d2 = (np.arange(y0, y1)[:, None] - cy[i]) ** 2 + (np.arange(x0, x1)[None] - cx[i]) ** 2
            blob = people[i] / (2 * np.pi * radius**2) * np.exp(-d2 / (2 * radius**2))
            part = pop[y0 - top : y1 - top, x0:x1]
            part += (blob * local.uniform(0.4, 1.6, blob.shape)).astype(np.float32)
        pop[~land] = 0
        share = np.where(land, 1_000_000, 0).astype(np.uint32)
        built = np.where(land, np.minimum(pop * 110, 700_000), 0).astype(np.uint32)
        window = Window(0, top, width, n)
        sinks["pop32"].write(pop, 1, window=window)
        sinks["pop64"].write(pop.astype(np.float64), 1, window=window)
        sinks["built"].write(built, 1, window=window)
        sinks["land"].write(share, 1, window=window)
    for sink in sinks.values():
        sink.close()
    return paths


# --- what is compared ----------------------------------------------------------


def decode(paths: list[str]) -> None:
    """Read and decompress whole files by two threads with handles of their own."""
    import rasterio
    from rasterio.windows import Window

    def read(job: tuple[str, int, int]) -> float:
        path, top, n = job
        with rasterio.Env(GDAL_CACHEMAX=96), rasterio.open(path) as source:
            return float(source.read(1, window=Window(0, top, source.width, n))[0, 0])

    jobs = []
    for path in paths:
        with rasterio.open(path) as source:
            jobs += [(path, t, min(512, source.height - t)) for t in range(0, source.height, 512)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(read, jobs))


def qala_cells(pop: str, built: str | None, land: str | None, levels: list[int], out: str) -> None:
    """Classify as the command line does, results written to disk."""
    import dask

    from qala.flows import cells_to_files

    with dask.config.set(scheduler="threads", num_workers=2):
        cells_to_files(
            pop, {level: f"{out}_l{level}.tif" for level in levels}, built=built, land=land,
            built_unit="m2" if built else None, land_unit="m2" if land else None,
        )  # fmt: skip


def whole_array(pop: np.ndarray, built: np.ndarray | None, land: np.ndarray | None, level: int):
    """The R2023A rules on whole arrays with NumPy and SciPy, as one would write them plainly."""
    from scipy import ndimage

    four, eight = ndimage.generate_binary_structure(2, 1), np.ones((3, 3), bool)
    with np.errstate(divide="ignore", invalid="ignore"):
        density = pop if land is None else pop / (land / 1e6)
        share = None
        if built is not None:
            share = np.round((built / 1e6) / (1.0 if land is None else land / 1e6), 3)
    water = np.zeros(pop.shape, bool)
    ignored = np.zeros(pop.shape, bool)
    if land is not None:
        ignored = (land < 5e5) & (pop == 0)
        water = ignored & (True if built is None else built == 0)

    def clusters(mask, structure, minimum):
        labels, count = ndimage.label(mask, structure)
        total = np.bincount(labels.ravel(), np.nan_to_num(pop).ravel(), count + 1)
        keep = total >= minimum
        keep[0] = False
        return labels, keep

    dense = density >= 1500
    if share is not None:
        dense |= share >= 0.2
    labels, keep = clusters(dense, four, 50_000)
    centre = np.where(keep[labels], labels, 0)
    dense_urban = None
    if level == 2:
        total = np.bincount(labels.ravel(), np.nan_to_num(pop).ravel())
        big = total >= 5_000
        big[0] = False
        dense_urban = big[labels]
    del labels
    padded = np.pad(centre, 1)
    counted = np.pad(~(ignored | water), 1, constant_values=True)
    while True:  # the frontier only: whole passes would take minutes
        near = ndimage.binary_dilation(padded > 0, eight) & (padded == 0)
        near[[0, -1], :] = near[:, [0, -1]] = False
        near[1:-1, 1:-1] &= ~water
        y, x = np.nonzero(near)
        around = np.stack([padded[y + i, x + j] for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j])
        valid = np.stack([counted[y + i, x + j] for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j])
        n = (valid | (around > 0)).sum(0)
        same = ((around[:, None] == around[None]) & (around > 0)[None]).sum(1)
        best = same.argmax(0)
        add = 2 * same[best, np.arange(best.size)] > n
        if not add.any():
            break
        padded[y[add], x[add]] = around[best[add], np.flatnonzero(add)]
    centre = padded[1:-1, 1:-1]
    holes, count = ndimage.label(centre == 0, four)
    size = np.bincount(holes.ravel(), minlength=count + 1)
    small = np.flatnonzero((size < 15) & (np.arange(count + 1) > 0))
    boxes = ndimage.find_objects(holes)
    for hole in small:
        box = boxes[hole - 1]
        if box[0].start == 0 or box[1].start == 0:
            continue
        if box[0].stop == holes.shape[0] or box[1].stop == holes.shape[1]:
            continue
        wide = tuple(slice(s.start - 1, s.stop + 1) for s in box)
        inside = holes[wide] == hole
        rim = centre[wide][ndimage.binary_dilation(inside, four) & ~inside]
        if (rim == rim[0]).all():
            centre[wide][inside] = rim[0]
    del holes
    labels, keep = clusters(density >= 300, eight, 5_000)
    urban = keep[labels]
    if level == 1:
        out = np.ones(pop.shape, np.uint8)
        out[water] = 0
        out[urban] = 2
        out[centre > 0] = 3
        return out
    core = (centre > 0) | dense_urban
    zone = ndimage.binary_dilation(core, eight, iterations=3)
    near = np.bincount(labels[zone], minlength=keep.size) > 0
    total = np.bincount(labels.ravel(), np.nan_to_num(pop).ravel(), keep.size)
    out = np.full(pop.shape, 11, np.uint8)
    out[water] = 10
    out[density >= 50] = 12
    village = total >= 500
    village[0] = False
    out[village[labels]] = 13
    out[urban] = 21
    semi = keep & ~near
    out[semi[labels]] = 22
    out[dense_urban] = 23
    out[centre > 0] = 30
    return out


def scipy_cells(pop: str, built: str | None, land: str | None, levels: list[int], out: str) -> None:
    """Read whole files, classify, write."""
    import rasterio

    with rasterio.open(pop) as source:
        profile = source.profile
        people = source.read(1)
    people[people == -200] = np.nan
    others = []
    for path in (built, land):
        if path is None:
            others.append(None)
            continue
        with rasterio.open(path) as source:
            others.append(source.read(1))
    profile.update(dtype="uint8", nodata=255, compress="DEFLATE", zlevel=1)
    for level in levels:
        classes = whole_array(people, *others, level)
        with rasterio.open(f"{out}_l{level}.tif", "w", **profile) as sink:
            sink.write(classes, 1)


# --- measuring ------------------------------------------------------------------


def child(job: dict) -> None:
    """Run one job in this process and print its time and peak memory."""
    kind = job.pop("kind")
    if kind == "qala":
        # start-up and compilation are reported apart: warm the compiled loops on a small raster
        begin = time.perf_counter()
        warm = job.pop("warm")
        qala_cells(
            warm["pop"], job["built"] and warm["built"], job["land"] and warm["land"],
            job["levels"], job["out"] + "_warm",
        )  # fmt: skip
        start_up = time.perf_counter() - begin
    else:
        job.pop("warm", None)
        start_up = 0.0
    begin = time.perf_counter()
    {"decode": decode, "qala": qala_cells, "scipy": scipy_cells}[kind](**job)
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mb": peak, "start_up": start_up}))


def measure(kind: str, **job: object) -> dict[str, float]:
    """Run one job in a process of its own."""
    text = json.dumps({"kind": kind, **job})
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "pipeline")}
    done = subprocess.run(
        [sys.executable, __file__, "--child", text],
        capture_output=True,
        text=True,
        env=env,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare(
    folder: Path, shape: tuple[int, int], *, runs: int, peers: bool, cases: list[str]
) -> dict[str, dict[str, float]]:
    """Measure one size and print its table."""
    paths = {k: str(v) for k, v in make(folder, shape).items()}
    small = {k: str(v) for k, v in make(folder, (256, 256)).items()}
    cells = shape[0] * shape[1]
    table = {
        "level 1, float64 LZW": ("pop64", False, [1]),
        "level 1, float32 DEFLATE": ("pop32", False, [1]),
        "level 1 + 2, three files": ("pop32", True, [1, 2]),
    }
    results: dict[str, dict[str, float]] = {}
    print(f"\n{shape[0]} × {shape[1]} = {cells / 1e6:.1f} M cells, medians of {runs}")
    for name, (pop, others, levels) in table.items():
        if cases and not any(c in name for c in cases):
            continue
        files = [paths[pop], *([paths["built"], paths["land"]] if others else [])]
        warm = {"pop": small[pop], "built": small["built"], "land": small["land"]}
        job = {
            "pop": paths[pop],
            "built": paths["built"] if others else None,
            "land": paths["land"] if others else None,
            "levels": levels,
        }
        kinds = ["decode", "qala", *(["scipy"] if peers else [])]
        seen: dict[str, list[dict[str, float]]] = {k: [] for k in kinds}
        for _ in range(runs):
            for kind in kinds:
                if kind == "decode":
                    seen[kind].append(measure(kind, paths=files))
                else:
                    out = str(folder / f"out_{kind}")
                    extra = {"warm": warm} if kind == "qala" else {}
                    seen[kind].append(measure(kind, **job, **extra, out=out))
        if peers:
            same_classes(folder, levels)
        medians = {
            k: {f: statistics.median(r[f] for r in v) for f in v[0]} for k, v in seen.items()
        }
        floor = medians["decode"]["seconds"]
        print(f"  {name}")
        for kind, m in medians.items():
            extra = (
                f", start-up and compilation {m['start_up']:.1f} s apart" if m["start_up"] else ""
            )
            print(
                f"    {kind:7s} {m['seconds']:8.2f} s  {m['seconds'] / floor:5.2f}× decode  "
                f"{cells / m['seconds'] / 1e6:7.1f} M cells/s  peak {m['peak_mb']:7.0f} MB{extra}"
            )
        if peers:
            a, b = medians["scipy"], medians["qala"]
            print(
                f"    qala is {a['seconds'] / b['seconds']:.1f}× as fast as scipy with "
                f"1/{a['peak_mb'] / b['peak_mb']:.1f} of its memory"
            )
        results[name] = {"seconds": medians["qala"]["seconds"], "peak": medians["qala"]["peak_mb"]}
    return results


def same_classes(folder: Path, levels: list[int]) -> None:
    """Both must give the same classes, else the comparison is worthless."""
    import rasterio

    for level in levels:
        with (
            rasterio.open(folder / f"out_qala_l{level}.tif") as a,
            rasterio.open(folder / f"out_scipy_l{level}.tif") as b,
        ):
            differ = sum(
                int((a.read(1, window=w) != b.read(1, window=w)).sum())
                for _, w in a.block_windows(1)
            )
        print(f"    level {level}: {differ} cells differ between qala and scipy")


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", action="store_true", help="18,000 × 36,082 and its 1/4 and 1/16")
    parser.add_argument("--peers", action="store_true", help="whole-array SciPy on the world too")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--case", action="append", default=[], help="only cases with this word")
    parser.add_argument("--folder", type=Path, default=Path("out/bench"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(json.loads(options.child))
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    if not options.world:
        compare(options.folder, COUNTRY, runs=options.runs, peers=True, cases=options.case)
        return
    growth = []
    for part in (16, 4, 1):
        shape = (WORLD[0] // int(part**0.5), WORLD[1] // int(part**0.5))
        found = compare(
            options.folder, shape, runs=options.runs, peers=options.peers and part == 1,
            cases=options.case,
        )  # fmt: skip
        growth.append((shape[0] * shape[1], found))
    print("\ngrowth with size, ns per cell")
    for name in growth[-1][1]:
        line = "  ".join(
            f"{cells / 1e6:6.1f} M: {found[name]['seconds'] / cells * 1e9:5.2f}"
            for cells, found in growth
        )
        print(f"  {name}: {line}")


if __name__ == "__main__":
    main()
