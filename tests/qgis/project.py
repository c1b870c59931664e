"""Run by QGIS's own Python: opens the project inside a GeoPackage and looks at it.

Arguments: the GeoPackage, a folder for pictures, then places as x,y (of the map's CRS).
Prints one JSON line a fact.
"""

import json
import os
import sys
from pathlib import Path

from qgis._3d import Qgs3D
from qgis.core import (
    Qgis,
    QgsApplication,
    QgsLayoutExporter,
    QgsMapRendererSequentialJob,
    QgsMapSettings,
    QgsProject,
    QgsRectangle,
)
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor

FILE, OUT = sys.argv[1], Path(sys.argv[2])
PLACES = [tuple(map(float, text.split(","))) for text in sys.argv[3:]]


def say(name, value):
    print(json.dumps({name: value}, ensure_ascii=False), flush=True)


app = QgsApplication([], False)
app.initQgis()
# QGIS with a window does this at its start
Qgs3D.initialize()
warnings = []
QgsApplication.messageLog().messageReceived[str, str, Qgis.MessageLevel].connect(
    lambda text, tag, level: (
        warnings.append(text) if level in (Qgis.Warning, Qgis.Critical) else None
    )
)
project = QgsProject.instance()
say("read", project.read(f"geopackage:{FILE}?projectName=qala"))
say("title", project.title())
say("crs", project.crs().authid())
root = project.layerTreeRoot()
say("legend", [[n.name(), n.isVisible()] for n in root.children()])
say("tables", [n.name() for g in root.findGroups() for n in g.children()])
say("broken", [la.name() for la in project.mapLayers().values() if not la.isValid()])
say("paths", sorted({la.source().split("|")[0].split(":")[-1 if ":" in la.source() else 0]
                     for la in project.mapLayers().values()}))  # fmt: skip


def colour(x, y, layers, half=40):
    job = QgsMapSettings()
    job.setLayers(layers)
    job.setOutputSize(QSize(11, 11))
    job.setDestinationCrs(project.crs())
    job.setTransformContext(project.transformContext())
    job.setBackgroundColor(QColor("white"))
    # close up a label would cover the place
    job.setFlag(QgsMapSettings.DrawLabeling, half > 1)
    job.setExtent(QgsRectangle(x - half, y - half, x + half, y + half))
    run = QgsMapRendererSequentialJob(job)
    run.start()
    run.waitForFinished()
    found = run.renderedImage().pixelColor(5, 5)
    return [found.red(), found.green(), found.blue()]


visible = project.mapThemeCollection().masterVisibleLayers()
say("shown", [la.name() for la in visible])
say("colours", [colour(x, y, visible) for x, y in PLACES])
say("near colours", [colour(x, y, visible, 0.5) for x, y in PLACES])
say("far", [colour(x, y, visible, 5000) for x, y in PLACES])
say("near and far", [[la.name() for la in visible if la.isInScaleRange(n)] for n in (1e5, 3e6)])
say("3d", [la.name() for la in project.mapLayers().values()
           if hasattr(la, "renderer3D") and la.renderer3D() is not None])  # fmt: skip
words = {}
for layer in project.mapLayers().values():
    for index in range(layer.fields().count() if hasattr(layer, "fields") else 0):
        setup = layer.editorWidgetSetup(index)
        if setup.type() == "ValueMap":
            pairs = {k: v for part in setup.config()["map"] for k, v in part.items()}
            words[f"{layer.name()}/{layer.attributeDisplayName(index)}"] = pairs
say("words", words)
view = project.viewSettings().defaultViewExtent()
say("view", [view.xMinimum(), view.yMinimum(), view.xMaximum(), view.yMaximum()])
layout = project.layoutManager().layouts()[0]
page = layout.pageCollection().page(0).pageSize()
say("layout", [layout.name(), page.width(), page.height()])
say("items", sorted(i.id() for i in layout.items() if hasattr(i, "id") and i.id()))
say("texts", {i: layout.itemById(i).currentText() for i in ("title", "scale", "sources")})
frame = layout.itemById("map")
say("scale", frame.scale())
settings = QgsLayoutExporter.ImageExportSettings()
settings.dpi = 100
say("printed", QgsLayoutExporter(layout).exportToImage(str(OUT / "qgis-layout.png"), settings) == 0)
say("warnings", warnings)
sys.stdout.flush()
os._exit(0)
