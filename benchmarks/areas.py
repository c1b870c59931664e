"""Functional urban areas: time and memory on synthetic units and flows.

Run: ``python benchmarks/areas.py``. Prints one line a case; nothing is asserted
against the clock. Each case runs in a process of its own, so that its peak
memory is its own.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time

import numpy as np

CASES = {
    "given 600 dense": {"side": 25, "units": 600, "dense": True, "mode": "given"},
    "given 10000 sparse": {"side": 100, "units": 10_000, "dense": False, "mode": "given"},
    "estimate 600": {"side": 25, "units": 600, "dense": True, "mode": "estimate"},
    "estimate 10000": {"side": 100, "units": 10_000, "dense": False, "mode": "estimate"},
    "band 10000": {"side": 100, "units": 10_000, "dense": False, "mode": "band"},
}
REPEATS = 3


def squares(side: int, count: int):
    """Return synthetic square units of 8 km with wavy borders, and their people."""
    import geopandas as gpd
    import shapely

    x, y = np.meshgrid(np.arange(side), np.arange(side))
    boxes = shapely.box(x * 8e3, y * 8e3, (x + 1) * 8e3, (y + 1) * 8e3).ravel()[:count]
    shapes = shapely.segmentize(boxes, 200.0)
    wave = shapely.transform(
        shapes, lambda c: c + np.column_stack([150 * np.sin(c[:, 1] / 900), 0 * c[:, 0]])
    )
    rng = np.random.default_rng(1)
    people = rng.lognormal(8, 1, count)
    units = gpd.GeoDataFrame(
        {"unit": [f"{i:05d}" for i in range(count)]}, geometry=wave, crs="ESRI:54009"
    )
    return units, people


def flow_table(units, people, dense: bool):
    """Return a synthetic table of flows: all pairs, or about 200 destinations a unit."""
    import pandas as pd
    from scipy.sparse import csr_matrix

    from qala.commuting import Decay, distances, huff_shares

    reach = 1e4 if dense else 65.0
    shares = huff_shares(distances(units, reach=reach), people, Decay(0.15))
    pairs = csr_matrix(shares).tocoo()
    ids = units["unit"].to_numpy()
    return pd.DataFrame(
        {
            "origin": ids[pairs.row],
            "destination": ids[pairs.col],
            "commuters": np.ceil(pairs.data * people[pairs.row]),
        }
    )


def run(case: dict) -> dict:
    """Time one case."""
    import pandas as pd

    from qala.commuting import DECAY_KM
    from qala.fua import functional_areas
    from qala.fua_reports import area_sensitivity

    units, people = squares(case["side"], case["units"])
    largest = np.argsort(-people)[: max(case["units"] // 50, 5)]
    ids = units["unit"].to_numpy()
    cores = pd.DataFrame({"unit": ids[largest], "city": ids[largest]})
    table = flow_table(units, people, case["dense"]) if case["mode"] == "given" else None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = []
    for _ in range(REPEATS if case["mode"] != "band" else 1):
        start = time.perf_counter()
        if table is not None:
            areas = functional_areas(
                units, id="unit", flows=table, cores=cores, population=people, merge=True
            )
        else:
            areas = functional_areas(
                units, id="unit", distance=True, decay=DECAY_KM, cores=cores, population=people,
                merge=True,
            )  # fmt: skip
        if case["mode"] == "band":
            area_sensitivity(areas)
        seconds.append(time.perf_counter() - start)
    return {
        "units": case["units"],
        "pairs": int(areas.flows.matrix.nnz),
        "areas": len(areas.areas),
        "seconds": round(statistics.median(seconds), 2),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "peak_before_mb": round(before),
    }


def main() -> None:
    """Run every case, or the one named."""
    if len(sys.argv) > 1:
        print(json.dumps(run(CASES[sys.argv[1]])))
        return
    for name in CASES:
        done = subprocess.run(
            [sys.executable, __file__, name], check=True, capture_output=True, text=True
        )
        print(f"{name:20s} {done.stdout.strip()}", flush=True)


if __name__ == "__main__":
    main()
