"""What operating costs: re-runs, the workflow around the functions, workers, epochs, area, 100 m.

    python benchmarks/operate.py [--out out/bench/operate] [--only rerun,overhead,…] [--small]

Grids are those of make_national.py, SYNTHETIC, of Kazakhstan's real size. Every
measurement is a process of its own. Memory is the highest sum of the resident
sets of all its processes, looked at every tenth of a second; where the machine
has other work the processors' own seconds (``cpu_s``) tell more than the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).resolve().parent
WORKFLOW = HERE.parent / "workflows" / "national.yaml"
PICTURE = HERE.parent / "docs" / "images" / "operate-area.png"
EPOCHS = (2003, 2008, 2013, 2018, 2023)
#: numbers alone; pictures cost the same whatever the area
NUMBERS = ["outputs.figures=false", "outputs.report=false"]


def main() -> None:
    """Measure, print a table, and keep JSON and a picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/bench/operate"))
    parser.add_argument("--only", default="rerun,overhead,workers,epochs,area,fine")
    parser.add_argument("--small", action="store_true", help="a sixteenth of the area, for a try")
    parser.add_argument("--pairs", type=int, default=3, help="how often pairs are measured")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(json.loads(options.child))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    base = 1 / 16 if options.small else 1.0
    data = grids(options.out, base)
    file = options.out / "operate.json"
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    results["machine"] = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"
    for name in options.only.split(","):
        print(f"{name} …", flush=True)
        results[name] = globals()[f"measure_{name}"](options.out, data, base, options.pairs)
        print(json.dumps(results[name], indent=1), flush=True)
        file.write_text(json.dumps(results, indent=1) + "\n")
    if "area" in results and not options.small:
        draw(results["area"], PICTURE)


def grids(out: Path, share: float, *more: str) -> Path:
    """Make the grids of a share of the area, once."""
    folder = out / "_".join([f"data_{share:g}", *more]).replace("--", "")
    if not (folder / "done").exists():
        command = [sys.executable, str(HERE / "make_national.py"), str(folder)]
        command += ["--share", str(share), *more]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (folder / "done").touch()
    return folder


def watched(command: list[str], **environ: str) -> dict[str, Any]:
    """Run a command; return its seconds, those of its processes, and their memory together."""
    begin = time.perf_counter()
    process = psutil.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **environ},
    )  # fmt: skip
    peak, busy = 0, {}
    while process.poll() is None:
        total = 0
        try:
            for one in [process, *process.children(recursive=True)]:
                total += one.memory_info().rss
                busy[one.pid] = sum(one.cpu_times()[:2])
        except psutil.Error:
            pass
        peak = max(peak, total)
        try:
            process.wait(0.1)
        except psutil.TimeoutExpired:
            continue
    wall = time.perf_counter() - begin
    out, err = process.communicate()
    if process.returncode:
        raise SystemExit(err)
    used = sorted(busy.values(), reverse=True)
    return {"out": out, "wall_s": round(wall, 2), "cpu_s": round(sum(used), 2),
            "processes_s": [round(u, 1) for u in used if u > 0.5], "client_s": busy[process.pid],
            "peak_mb": round(peak / 1e6)}  # fmt: skip


def run(data: Path, out: Path, *, mode: str = "workflow", **options: Any) -> dict[str, Any]:
    """Run in a process of its own; return seconds and megabytes."""
    given = {"data": str(data.resolve()), "out": str(out), "mode": mode, **options}
    done = watched([sys.executable, str(Path(__file__).resolve()), "--child", json.dumps(given)])
    return {**json.loads(done.pop("out").splitlines()[-1]), **done}


def child(given: dict[str, Any]) -> None:
    """Do one run and print what it took."""
    os.environ["QALA_NATIONAL_DATA"] = given["data"]
    from qala import compute, flows
    from qala.config import load_workflow

    workflow = load_workflow(WORKFLOW, settings=given.get("settings", NUMBERS))
    epochs = given.get("epochs")
    if epochs:
        kept = {
            n: {e: f for e, f in getattr(workflow.inputs, n).items() if e in epochs}
            for n in ("population", "built")
        }
        inputs = workflow.inputs.model_copy(update=kept)
        workflow = workflow.model_copy(update={"inputs": inputs})
    with compute.running(given.get("workers", 2), processes=given.get("processes", False)):
        begin, used = time.perf_counter(), time.process_time()
        if given["mode"] == "bare":
            bare(workflow, Path(given["out"]))
        else:
            flows.urbanisation(workflow, out=given["out"], force=given.get("force", True))
        seconds, busy = time.perf_counter() - begin, time.process_time() - used
    print(json.dumps({"seconds": round(seconds, 2), "work_cpu_s": round(busy, 2)}))


def bare(workflow: Any, out: Path) -> None:
    """Call the functions that the workflow calls, without lock, hashes, steps, stage and record."""
    import pandas as pd

    from qala import products, sources
    from qala.rates import sensitivity, summarise, urbanisation_rates
    from qala.report import write_tables
    from qala.settlement import classify_levels, urban_centres

    units, official = sources.units_of(workflow), sources.official_of(workflow, None)
    centres, people, classes = {}, {}, {}
    for epoch in sources.sources_of(workflow, "population"):
        alone = sources.of_epoch(workflow, epoch)
        data = sources.open_grids(alone)
        people[epoch] = data.population[epoch]
        lazy = classify_levels(
            people[epoch], data.built[epoch], data.land[epoch], chunk=workflow.cells.chunk
        )
        products.write_cells(alone, out, data, {epoch: lazy}, None)
        people[epoch].sum(dtype="float64").compute()
        classes[epoch] = products.read_classes(out, epoch, 2)
        centres[epoch] = urban_centres(products.read_labels(out, epoch), people[epoch])
    rates = urbanisation_rates(units, people, id="unit", official=official, cells=classes)
    last = max(people)
    variants = sensitivity(
        people[last], data.built[last], data.land[last], units, id="unit",
        chunk=workflow.cells.chunk,
    )  # fmt: skip
    tables = {"rates": rates, "summary": summarise(rates), "sensitivity": variants}
    every = pd.concat([pd.DataFrame(c).assign(epoch=e) for e, c in centres.items()])
    tables["urban_centres"] = every
    write_tables(out / "tables", tables)
    products.write_layers(
        workflow, out, classes[last], centres, tables, units, shown=last, parameters={}, inputs=[]
    )


# --- what is measured ------------------------------------------------------------------


def measure_rerun(out: Path, data: Path, base: float, pairs: int) -> dict[str, Any]:
    """The command a second time, nothing changed: below 2 s with the start of Python."""
    command = [sys.executable, "-m", "qala.cli", "-q", "run", "national", "--out"]
    command.append(str(out / "rerun"))
    runs = [watched(command, QALA_NATIONAL_DATA=str(data.resolve())) for _ in range(1 + pairs)]
    again = runs[1:]
    # the processor's own seconds tell it on a machine with other work, too
    return {"first_s": runs[0]["wall_s"], "first_cpu_s": runs[0]["cpu_s"],
            "again_s": min(r["wall_s"] for r in again),
            "again_cpu_s": min(r["cpu_s"] for r in again),
            "below_2_s": min(r["cpu_s"] for r in again) < 2}  # fmt: skip


def measure_overhead(out: Path, data: Path, base: float, pairs: int) -> dict[str, Any]:
    """The workflow against the bare functions: less than 10 % more."""
    run(data, out / "warm", mode="bare")
    both = [
        (run(data, out / "workflow"), run(data, out / "bare", mode="bare")) for _ in range(pairs)
    ]
    workflow = min(w["work_cpu_s"] for w, _ in both)
    plain = min(b["work_cpu_s"] for _, b in both)
    share = workflow / plain - 1
    return {"workflow_cpu_s": workflow, "bare_cpu_s": plain, "overhead": round(share, 3),
            "workflow_s": min(w["seconds"] for w, _ in both),
            "bare_s": min(b["seconds"] for _, b in both),
            "below_10_percent": share < 0.1}  # fmt: skip


def measure_workers(out: Path, data: Path, base: float, pairs: int) -> dict[str, Any]:
    """Two against one, threads and processes, pictures and page included."""
    found: dict[str, Any] = {}
    for kind in ("threads", "processes"):
        took: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
        for _ in range(pairs):
            for n in (1, 2):
                took[n].append(run(
                    data, out / f"{kind}{n}", workers=n, processes=kind == "processes",
                    settings=[],
                ))  # fmt: skip
        ratios = sorted(a["wall_s"] / b["wall_s"] for a, b in zip(took[1], took[2], strict=True))
        one, two = (min(took[n], key=lambda r: float(r["wall_s"])) for n in (1, 2))
        found[kind] = {
            "one_s": one["wall_s"], "two_s": two["wall_s"],
            "times": round(ratios[len(ratios) // 2], 2),
            "one_cpu_s": one["cpu_s"], "two_cpu_s": two["cpu_s"],
            "one_mb": one["peak_mb"], "two_mb": two["peak_mb"],
        }  # fmt: skip
        if kind == "processes":
            # what must come one after the other: this process, and the busier of the workers
            shares = [r["processes_s"] for r in took[2]]
            found[kind]["by_processor_time"] = round(
                sum(one["processes_s"]) / (two["client_s"] + _busiest(two)), 2
            )
            found[kind]["processes_s"] = shares
    return found


def _busiest(run: dict[str, Any]) -> float:
    others = list(run["processes_s"])
    others.remove(round(run["client_s"], 1))
    return float(max(others, default=0.0))


def measure_epochs(out: Path, data: Path, base: float, pairs: int) -> list[dict[str, Any]]:
    """Memory and time as epochs are added."""
    return [{"epochs": n, **run(data, out / f"epochs{n}", epochs=EPOCHS[-n:])} for n in (1, 3, 5)]


def measure_area(out: Path, data: Path, base: float, pairs: int) -> list[dict[str, Any]]:
    """A quarter, the whole and four times the country."""
    rows = []
    for share in (0.25, 1.0, 4.0):
        folder = grids(out, share * base)
        rows.append({"area": share, **run(folder, out / f"area{share:g}")})
    return rows


def measure_fine(out: Path, data: Path, base: float, pairs: int) -> dict[str, Any]:
    """Cells of 100 m: the sum to 1 km beside reading alone, and a whole run of one epoch."""
    folder = grids(out, base, "--resolution=100", "--epochs=2023")
    reading = [sys.executable, "-c", _SUM.format(name=_names(folder)["population"], sum=False)]
    summing = [sys.executable, "-c", _SUM.format(name=_names(folder)["population"], sum=True)]
    both = []
    for _ in range(pairs):
        both.append(tuple(float(watched(c)["out"]) for c in (reading, summing)))
    read, summed = (min(b[n] for b in both) for n in (0, 1))
    whole = watched([
        sys.executable, "-m", "qala.cli", "-q", "run", "national", "--force", "--out",
        str(out / "fine"), "--set", f"inputs.population={{2023: {_names(folder)['population']}}}",
        "--set", f"inputs.built={{2023: {_names(folder)['built']}}}",
        "--set", f"inputs.land={_names(folder)['land']}",
    ], QALA_NATIONAL_DATA=str(folder.resolve()))  # fmt: skip
    whole.pop("out")
    return {"read_cpu_s": read, "sum_cpu_s": summed, "times": round(summed / read, 2),
            "run": whole, "below_4_gb": whole["peak_mb"] < 4000}  # fmt: skip


def _names(folder: Path) -> dict[str, str]:
    found = {"population": "POP_E2023", "built": "BUILT_S_E2023", "land": "LAND_E2018"}
    return {k: str(folder.resolve() / f"GHS_{v}_SYNTHETIC_54009_100.tif") for k, v in found.items()}


#: reads strips by two threads, and sums them or not; prints the processor's seconds
_SUM = """
import time, dask, numpy as np
from qala.raster import aggregate, open_raster
raster = open_raster({name!r})
small = raster.isel(y=slice(0, 1024))
(aggregate(small, 10) if {sum} else small).compute()
begin = time.process_time()
with dask.config.set(scheduler="threads", num_workers=2):
    if {sum}:
        aggregate(raster, 10).data.sum().compute()
    else:
        blocks = raster.data.to_delayed().ravel()
        dask.compute([dask.delayed(lambda b: b.shape)(b) for b in blocks])
print(time.process_time() - begin)
"""


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Plot time and memory over the area."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    area = [r["area"] * 5.02 for r in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, key, label in ((left, "seconds", "seconds"), (right, "peak_mb", "peak memory, MB")):
        axis.plot(area, [r[key] for r in rows], "o-", color="#1b6ca8")
        for x, row in zip(area, rows, strict=True):
            axis.annotate(
                f"{row[key]:,.0f}", (x, row[key]), (-7, 5), textcoords="offset points", ha="right"
            )
        axis.set(xlabel="million cells of 1 km, 5 epochs", ylabel=label, ylim=(0, None))
        axis.margins(x=0.12, y=0.2)
        axis.set_ylim(bottom=0)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle("Five epochs of a country by area: 1/4, 1 and 4 times Kazakhstan (SYNTHETIC)")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
