"""How fast it is in QGIS: python tests/qgis/measure.py [million] [console].

Run it with the Python of qala's environment; it starts QGIS's own Python for
what is measured there. ``million``: a GeoPackage of a million square cells is
opened and drawn whole, in 1200 × 800 pixels, through its project, without and
with the overview. ``console``: a call from the console beside the same command
line, four times each, alternately; the least of each counts. SYNTHETIC data.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "data/sample"


def in_qgis(part: str, folder: Path) -> None:
    values = {"PATH": "/usr/bin:/bin", "QT_QPA_PLATFORM": "offscreen", "HOME": str(folder),
              "QALA_PYTHON": sys.executable, "GDAL_PAM_ENABLED": "NO", "LC_ALL": "C.UTF-8",
              "XDG_RUNTIME_DIR": str(folder)}  # fmt: skip
    subprocess.run(
        ["/usr/bin/python3", __file__, f"in-{part}", str(folder)], env=values, check=True
    )


def make_million(folder: Path) -> None:
    import numpy as np
    import xarray as xr
    from odc.geo.xr import xr_coords
    from scipy.ndimage import gaussian_filter

    from qala.export.geopackage import Layer, cells_to_polygons, write_geopackage
    from qala.export.project import embed_project
    from qala.grid import ghsl_geobox

    noise = gaussian_filter(np.random.default_rng(1).random((1000, 1000)), 1.2)
    levels = np.quantile(noise, [0.5, 0.8, 0.9, 0.94, 0.97, 0.99])
    codes = np.array([11, 12, 13, 21, 22, 23, 30], np.uint8)[np.searchsorted(levels, noise)]
    grid = ghsl_geobox((5_000_000, 4_500_000, 6_000_000, 5_500_000))
    squares = cells_to_polygons(xr.DataArray(codes, xr_coords(grid), ("y", "x")), dissolve=False)
    layers = {"cells": Layer(squares, "Cells", style="cells")}
    # the overview is written apart, to be measured
    with patch("qala.export.geopackage.embed_project"):
        path = write_geopackage(folder / "with.gpkg", layers)
    shutil.copy(path, folder / "without.gpkg")
    embed_project(folder / "without.gpkg", overview_from=10**9)
    begin = time.perf_counter()
    embed_project(folder / "with.gpkg")
    print(f"overview written in {time.perf_counter() - begin:.1f} s")


def draw_million(folder: Path) -> None:
    from qgis.core import QgsApplication, QgsMapRendererParallelJob, QgsMapSettings, QgsProject
    from qgis.PyQt.QtCore import QSize

    app = QgsApplication([], False)
    app.initQgis()
    for name in ("without", "with", "without", "with"):
        project = QgsProject()
        begin = time.perf_counter()
        project.read(f"geopackage:{folder}/{name}.gpkg?projectName=qala")
        opened = time.perf_counter() - begin
        job = QgsMapSettings()
        job.setLayers(project.mapThemeCollection().masterVisibleLayers())
        job.setOutputSize(QSize(1200, 800))
        job.setDestinationCrs(project.crs())
        job.setTransformContext(project.transformContext())
        job.setExtent(project.viewSettings().defaultViewExtent())
        run = QgsMapRendererParallelJob(job)
        begin = time.perf_counter()
        run.start()
        run.waitForFinished()
        drawn = time.perf_counter() - begin
        print(f"{name} overview: opened in {opened:.2f} s, drawn in {drawn:.2f} s", flush=True)
    os._exit(0)


def call_console(folder: Path) -> None:
    sys.path.insert(0, str(ROOT / "pipeline"))
    from qgis.core import QgsApplication, QgsProject, QgsVectorLayer

    app = QgsApplication([], False)
    app.initQgis()
    from qala.qgis import requests, urbanisation

    population = str(SAMPLE / "GHS_POP_E2023_SYNTHETIC_54009_1000.tif")
    workflow = requests.urbanisation_workflow(
        folder / "workflow.yaml", population={None: [population]}, built={}, land={},
        units=str(SAMPLE / "units.gpkg"), layer=None, id="unit", official=None, places=None,
        ruleset="R2023A", rules="2024", thresholds={}, lang="en", title="", report=False,
        sensitivity=False, repair=False,
    )  # fmt: skip
    units = QgsVectorLayer(str(SAMPLE / "units.gpkg"), "districts", "ogr")
    QgsProject.instance().addMapLayer(units)
    seconds = {"command": [], "console": []}
    for number in range(4):
        begin = time.perf_counter()
        subprocess.run(
            [os.environ["QALA_PYTHON"], "-m", "qala.cli", "run", str(workflow), "--out",
             str(folder / f"command{number}")],
            check=True, capture_output=True, cwd=ROOT / "pipeline",
        )  # fmt: skip
        seconds["command"].append(round(time.perf_counter() - begin, 2))
        begin = time.perf_counter()
        urbanisation(population, "districts", "unit", output=str(folder / f"console{number}"))
        seconds["console"].append(round(time.perf_counter() - begin, 2))
    print(json.dumps(seconds))
    over = min(seconds["console"]) - min(seconds["command"])
    print(f"a call from the console takes {over:+.2f} s beside the command", flush=True)
    os._exit(0)


def main() -> None:
    parts = sys.argv[1:] or ["million", "console"]
    if parts[0] == "in-million":
        draw_million(Path(parts[1]))
    if parts[0] == "in-console":
        call_console(Path(parts[1]))
    with tempfile.TemporaryDirectory() as folder:
        for part in parts:
            if part == "million":
                make_million(Path(folder))
            in_qgis(part, Path(folder))


if __name__ == "__main__":
    main()
