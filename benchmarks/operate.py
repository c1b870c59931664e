"""What operating costs: re-runs, the workflow around the functions, processes, epochs, area.

    python benchmarks/operate.py [--out out/bench/operate] [--only rerun,overhead,…] [--small]

Grids are those of make_national.py, SYNTHETIC, of Kazakhstan's real size. Every
measurement is a process of its own; memory is its highest resident set.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
WORKFLOW = HERE.parent / "workflows" / "national.yaml"
EPOCHS = (2003, 2008, 2013, 2018, 2023)
#: numbers alone; pictures cost the same whatever the area
NUMBERS = ["outputs.figures=false", "outputs.report=false"]


def main() -> None:
    """Measure, print a table, and keep JSON and a picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/bench/operate"))
    parser.add_argument("--only", default="rerun,overhead,workers,epochs,area")
    parser.add_argument("--small", action="store_true", help="a sixteenth of the area, for a try")
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
        results[name] = globals()[f"measure_{name}"](options.out, data, base)
        print(json.dumps(results[name], indent=1), flush=True)
        file.write_text(json.dumps(results, indent=1) + "\n")
    if "area" in results:
        draw(results["area"], options.out / "area.png")


def grids(out: Path, share: float) -> Path:
    """Make the grids of a share of the area, once."""
    folder = out / f"data_{share:g}"
    if not (folder / "official.csv").exists():
        command = [sys.executable, str(HERE / "make_national.py"), str(folder)]
        subprocess.run([*command, "--share", str(share)], check=True, stdout=subprocess.DEVNULL)
    return folder


def run(data: Path, out: Path, *, mode: str = "workflow", **options: Any) -> dict[str, float]:
    """Run in a process of its own; return seconds and megabytes."""
    given = {"data": str(data.resolve()), "out": str(out), "mode": mode, **options}
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), "--child", json.dumps(given)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    wall = time.perf_counter() - begin
    if done.returncode:
        raise SystemExit(done.stderr)
    return {**json.loads(done.stdout.splitlines()[-1]), "wall_s": round(wall, 2)}


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
        begin = time.perf_counter()
        if given["mode"] == "bare":
            bare(workflow, Path(given["out"]))
        else:
            flows.urbanisation(workflow, out=given["out"], force=given.get("force", True))
        seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": round(seconds, 2), "peak_mb": round(peak)}))


def bare(workflow: Any, out: Path) -> None:
    """Call the functions that the workflow calls, without lock, hashes, stage and record."""
    import pandas as pd

    from qala import products, sources
    from qala.export.geopackage import Layer, write_geopackage
    from qala.rates import sensitivity, summarise, urbanisation_rates
    from qala.report import write_tables
    from qala.settlement import classify_levels, urban_centres

    data = sources.open_inputs(workflow)
    for people in data.population.values():
        people.sum(dtype="float64").compute()
    lazy = {
        e: classify_levels(p, data.built[e], data.land[e], chunk=workflow.cells.chunk)
        for e, p in data.population.items()
    }
    products.write_cells(workflow, out, data, lazy, None)
    classes = {e: products.read_back(out, e) for e in lazy}
    centres = {e: urban_centres(c["centre"], data.population[e]) for e, c in classes.items()}
    rates = urbanisation_rates(
        data.units, data.population, id="unit", official=data.official,
        cells={e: c["degurba_l2"] for e, c in classes.items()},
    )  # fmt: skip
    last = max(lazy)
    variants = sensitivity(
        data.population[last], data.built[last], data.land[last], data.units, id="unit",
        chunk=workflow.cells.chunk,
    )  # fmt: skip
    tables = {"rates": rates, "summary": summarise(rates), "sensitivity": variants}
    every = pd.concat([pd.DataFrame(c).assign(epoch=e) for e, c in centres.items()])
    tables["urban_centres"] = every
    write_tables(out / "tables", tables)
    shown = rates[rates["epoch"] == last]
    layers = {
        "units": Layer(shown, style="units"), "urban_share": Layer(shown, style="urban_share"),
        "rates": Layer(pd.DataFrame(rates.drop(columns="geometry"))),
        "summary": Layer(tables["summary"]), "sensitivity": Layer(variants),
        **{f"urban_centres_{e}": Layer(c, style="centres") for e, c in centres.items()},
    }  # fmt: skip
    write_geopackage(out / "urbanisation.gpkg", layers)


# --- what is measured ------------------------------------------------------------------


def measure_rerun(out: Path, data: Path, base: float) -> dict[str, Any]:
    """The command a second time, nothing changed: below 2 s with the start of Python."""
    command = [sys.executable, "-m", "qala.cli", "-q", "run", "national", "--out"]
    command.append(str(out / "rerun"))
    environ = {**os.environ, "QALA_NATIONAL_DATA": str(data.resolve())}
    seconds, busy = [], []
    for _ in range(4):
        begin, used = time.perf_counter(), _used()
        subprocess.run(command, check=True, env=environ, stdout=subprocess.DEVNULL)
        seconds.append(round(time.perf_counter() - begin, 2))
        busy.append(round(_used() - used, 2))
    # the processor's own seconds tell it on a machine with other work, too
    return {"first_s": seconds[0], "again_s": min(seconds[1:]), "again_cpu_s": min(busy[1:]),
            "below_2_s": min(seconds[1:]) < 2}  # fmt: skip


def _used() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure_overhead(out: Path, data: Path, base: float) -> dict[str, Any]:
    """The workflow against the bare functions: less than 10 % more."""
    run(data, out / "warm", mode="bare")
    pairs = [(run(data, out / "workflow"), run(data, out / "bare", mode="bare")) for _ in range(3)]
    workflow = min(w["seconds"] for w, _ in pairs)
    plain = min(b["seconds"] for _, b in pairs)
    share = workflow / plain - 1
    return {"workflow_s": workflow, "bare_s": plain, "overhead": round(share, 3),
            "below_10_percent": share < 0.1}  # fmt: skip


def measure_workers(out: Path, data: Path, base: float) -> dict[str, Any]:
    """Two against one, threads and processes."""
    found: dict[str, Any] = {}
    for kind in ("threads", "processes"):
        took = {
            n: min(
                run(data, out / f"{kind}{n}", workers=n, processes=kind == "processes")["seconds"]
                for _ in range(2)
            )
            for n in (1, 2)
        }
        found[kind] = {"one_s": took[1], "two_s": took[2], "times": round(took[1] / took[2], 2)}
    return found


def measure_epochs(out: Path, data: Path, base: float) -> list[dict[str, Any]]:
    """Memory and time as epochs are added."""
    return [{"epochs": n, **run(data, out / f"epochs{n}", epochs=EPOCHS[-n:])} for n in (1, 3, 5)]


def measure_area(out: Path, data: Path, base: float) -> list[dict[str, Any]]:
    """A quarter, the whole and four times the country."""
    rows = []
    for share in (0.25, 1.0, 4.0):
        folder = grids(out, share * base)
        rows.append({"area": share, **run(folder, out / f"area{share:g}")})
    return rows


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
