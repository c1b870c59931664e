"""Run by QGIS with a window: what a user types into the Python console, and what is seen.

Environment: QALA_TEST_SAMPLE, QALA_TEST_OUT. Writes JSON lines and screenshots there.
"""

import json
import os
import time
import traceback
from pathlib import Path

from qgis.core import (
    Qgis,
    QgsApplication,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsProject,
    QgsRasterLayer,
)
from qgis.PyQt.QtCore import QCoreApplication, Qt, QTimer
from qgis.PyQt.QtWidgets import QDockWidget, QPushButton
from qgis.utils import iface

OUT = Path(os.environ["QALA_TEST_OUT"])
SAMPLE = os.environ["QALA_TEST_SAMPLE"]
notes = (OUT / "window.jsonl").open("w", encoding="utf-8")


def say(name, value):
    notes.write(json.dumps({name: value}, ensure_ascii=False) + "\n")
    notes.flush()


def let_live(seconds):
    """Let the window work."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QCoreApplication.processEvents()
        time.sleep(0.01)


def drawn():
    """Wait until the map is drawn."""
    canvas = iface.mapCanvas()
    canvas.refresh()
    let_live(0.5)
    end = time.monotonic() + 20
    while canvas.isDrawing() and time.monotonic() < end:
        let_live(0.1)
    let_live(0.5)


def seen(name):
    iface.mainWindow().grab().save(str(OUT / f"{name}.png"))


def main():
    from console import console

    window = iface.mainWindow()
    window.showNormal()
    window.resize(1500, 900)
    for dock in window.findChildren(QDockWidget):
        if dock.objectName() in ("Browser", "Browser2", "theTileScaleDock", "LayerStyling"):
            dock.hide()
    console.show_console()
    let_live(0.5)
    shell = console._console.console.shell
    dock = console._console
    while not isinstance(dock, QDockWidget):
        # newer releases put it into one
        dock = dock.parent()
    # its name changed in QGIS 3.36
    panel = console._console.console
    printed = panel.shellOut if hasattr(panel, "shellOut") else panel.shell_output
    population = QgsRasterLayer(f"{SAMPLE}/GHS_POP_E2023_SYNTHETIC_54009_1000.tif", "population")
    QgsProject.instance().addMapLayer(population)
    iface.addVectorLayer(f"{SAMPLE}/units.gpkg", "districts", "ogr")
    # QGIS takes the CRS of the first layer a moment later
    let_live(0.5)
    QgsProject.instance().setCrs(QgsCoordinateReferenceSystem("EPSG:32642"))
    # a saved project: results go beside it
    QgsProject.instance().write(str(OUT / "my project.qgz"))

    # a clock that only ticks while the window lives
    ticks = []
    clock = QTimer()
    clock.setInterval(50)
    clock.timeout.connect(lambda: ticks.append(time.monotonic()))
    clock.start()

    def button():
        bar = iface.messageBar()
        return next((b for b in bar.findChildren(QPushButton) if b.text() == "Cancel"), None)

    # a run that is cancelled by its button
    state = {}

    def press():
        found = button()
        if found is not None and (OUT / "cancelled").exists():
            stop.stop()
            state["pressed"] = time.monotonic()
            found.click()

    stop = QTimer()
    stop.setInterval(100)
    stop.timeout.connect(press)
    stop.start()
    shell.runCommand("from qala.qgis import urbanisation")
    shell.runCommand(
        f"urbanisation('population', 'districts', 'unit', report=True, output='{OUT}/cancelled')"
    )
    say("cancel took", time.monotonic() - state.get("pressed", 0))
    say("cancel left", sorted(p.name for p in OUT.glob("cancelled/**/*")))
    say("cancel folder", (OUT / "cancelled").exists())
    say("layers after cancel", len(QgsProject.instance().mapLayers()))
    ticks.clear()

    # the run a newcomer types
    printed.clearConsole()
    iface.messageBar().clearWidgets()
    shell.runCommand("from qala.qgis import urbanisation")
    middle = QTimer()
    middle.setSingleShot(True)
    middle.setInterval(1500)

    def halfway():
        say("progress shown", button() is not None)
        seen("qgis-running")

    middle.timeout.connect(halfway)
    middle.start()
    begin = time.monotonic()
    shell.runCommand(
        "layers = urbanisation('population', units='districts', id='unit', title='Turkistan')"
    )
    end = time.monotonic()
    gaps = [b - a for a, b in zip([begin, *ticks], [*ticks, end], strict=True) if b <= end + 1]
    say("seconds", end - begin)
    say("ticks", len([t for t in ticks if begin <= t <= end]))
    say("longest gap", max(gaps))
    shown = printed.text()
    say("quiet", "Traceback" not in shown and "qala:" not in shown)
    root = QgsProject.instance().layerTreeRoot()
    say("group", root.children()[0].name())
    for node in root.children()[1:]:
        node.setItemVisibilityChecked(False)
        node.setExpanded(False)
    iface.messageBar().clearWidgets()
    dock.setMaximumHeight(230)
    window.resizeDocks([dock], [230], Qt.Vertical)
    legend = window.findChild(QDockWidget, "Layers")
    window.resizeDocks([legend], [330], Qt.Horizontal)
    let_live(0.5)
    window.resize(1500, 900)
    let_live(0.5)
    layers = QgsProject.instance().mapLayers().values()
    units = next(la for la in layers if la.customProperty("qala/layer") == "units")
    to = QgsCoordinateTransform(units.crs(), QgsProject.instance().crs(), QgsProject.instance())
    iface.mapCanvas().setExtent(to.transformBoundingBox(units.extent()))
    drawn()
    seen("qgis-console")
    shell.runCommand("urbanisation('population', 'districts', 'code')")
    output = printed.text()
    say("no traceback", "Traceback" not in output)
    say("sentence", "has no column 'code'" in output)

    say("beside results", sorted(p.name for p in OUT.glob("qala/*/*.gpkg*")))

    # the same from the toolbox: loaded with the styles of the file
    import processing

    before = set(QgsProject.instance().mapLayers())
    processing.runAndLoadResults(
        "qala:urbanisation",
        {
            "POPULATION": "population",
            "UNITS": "districts",
            "ID": "unit",
            "OUTPUT": str(OUT / "box"),
        },
    )
    let_live(1)
    new = [la for k, la in QgsProject.instance().mapLayers().items() if k not in before]
    say("toolbox", sorted([la.name(), la.renderer().type()] for la in new))
    say("menu", [a.text() for m in iface.pluginMenu().actions() if m.text() == "qala"
                 for a in m.menu().actions()])  # fmt: skip

    # what a planner opens
    package = os.environ.get("QALA_TEST_PROJECT")
    if package:
        dock.hide()
        iface.messageBar().clearWidgets()
        said = []
        QgsApplication.messageLog().messageReceived[str, str, Qgis.MessageLevel].connect(
            lambda text, tag, level: said.append(text) if level >= 1 else None
        )
        say("opened", iface.addProject(package))
        let_live(0.5)
        say("crs", QgsProject.instance().crs().authid())
        say("extent", iface.mapCanvas().extent().toString(0))
        drawn()
        seen("qgis-project")
        say("warnings", said)
        say("beside", sorted(p.name for p in Path(package[11:].split("?")[0]).parent.iterdir()))
        say("title", QgsProject.instance().title())


def go():
    try:
        main()
        say("done", True)
    except BaseException:  # noqa: BLE001  (a dialog would wait for ever)
        say("failed", traceback.format_exc())
    notes.close()
    os._exit(0)


# once the window is there
QTimer.singleShot(1500, go)
