# ruff: noqa: E402
"""Run by QGIS's own Python without a window: the console's functions, headless.

Arguments: folder of the package, folder of the sample, folder to write to.
Prints one JSON line a check; the test compares them.
"""

import builtins
import io
import json
import os
import sys
from contextlib import redirect_stderr

PACKAGE, SAMPLE, OUT = sys.argv[1:4]
sys.path.insert(0, PACKAGE)
from qgis.core import (
    QgsApplication,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsFeature,
    QgsField,
    QgsGeometry,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QVariant

app = QgsApplication([], False)
app.initQgis()
# newer releases load numpy themselves
loaded = set(sys.modules)

real_import = builtins.__import__
asked = set()


def watched(name, globals=None, locals=None, fromlist=(), level=0):
    asked.add(name.split(".")[0] if not level else "qala")
    return real_import(name, globals, locals, fromlist, level)


builtins.__import__ = watched
from qala.qgis import (
    check,
    city,
    functional_areas,
    indicators,
    open_results,
    status,
    travel_times,
    urbanisation,
)

builtins.__import__ = real_import
from qala.errors import InputError


def say(name, value):
    print(json.dumps({name: value}, ensure_ascii=False), flush=True)


own = {m.split(".")[0] for m in sys.modules} - {m.split(".")[0] for m in loaded}
say("heavy", sorted(own & {"numpy", "pandas", "rasterio", "shapely", "pydantic", "yaml", "typer"}))
say("typed", callable(city) and callable(functional_areas) and callable(travel_times))

project = QgsProject.instance()
population = QgsRasterLayer(f"{SAMPLE}/GHS_POP_E2023_SYNTHETIC_54009_1000.tif", "Халық саны")
project.addMapLayer(population)

# a memory layer in another CRS with Cyrillic names, edits not saved, part of it selected
source = QgsVectorLayer(f"{SAMPLE}/units.gpkg", "units", "ogr")
units = QgsVectorLayer("MultiPolygon?crs=EPSG:4326", "Аудандар", "memory")
units.dataProvider().addAttributes(
    [QgsField("КАТО коды", QVariant.String), QgsField("Атауы", QVariant.String),
     QgsField("fid", QVariant.Int)]
)  # fmt: skip
units.updateFields()
to = QgsCoordinateTransform(source.crs(), QgsCoordinateReferenceSystem("EPSG:4326"), project)
made = []
for feature in source.getFeatures():
    shape = QgsGeometry(feature.geometry())
    shape.transform(to)
    copy = QgsFeature(units.fields())
    copy.setGeometry(shape)
    copy.setAttributes([f"KZ-{feature['unit']}", feature["name_kk"], 7])
    made.append(copy)
units.dataProvider().addFeatures(made)
project.addMapLayer(units)
wanted = [f.id() for f in units.getFeatures() if f["КАТО коды"] in ("KZ-KZ-79", "KZ-611010000")]
first = [f.id() for f in units.getFeatures()][:3]
units.selectByIds(wanted or first)
units.startEditing()
edited = units.selectedFeatureIds()[0]
units.changeAttributeValue(edited, 0, "KZ-өзгерді")
ids = sorted(f["КАТО коды"] for f in units.selectedFeatures())
say("ids", ids)

added = urbanisation(
    "Халық саны", "Аудандар", "КАТО коды", selected_only=True, join=True,
    output=f"{OUT}/Нәтиже", language="kk", title="Түркістан",
)  # fmt: skip
column = "КАТО коды" if "КАТО коды" in [f.name() for f in added["units"].fields()] else "unit"
say("back", sorted(f[column] for f in added["units"].getFeatures()))
joined = {
    f["КАТО коды"]: f["qala_urban_share"] for f in units.getFeatures() if f["КАТО коды"] in ids
}
result = {f[column]: f["urban_share"] for f in added["units"].getFeatures()}
say("joined", joined == result and len(result) == len(ids))
say("still editing", units.isEditable())
group = project.layerTreeRoot().children()[0]
say("group", [group.name(), [c.name() for c in group.children()]])
say("styles", [added["units"].renderer().type(), added["units"].renderer().classAttribute()])

areas = functional_areas(
    "Халық саны", f"{SAMPLE}/units.gpkg", "unit", distance=True, language="kk",
    output=f"{OUT}/areas.gpkg",
)  # fmt: skip
say("areas", [areas["areas"].name(), "reason" in [f.name() for f in areas["membership"].fields()]])

shown = indicators(
    {2023: "Халық саны"}, "Аудандар", "КАТО коды", zones={"қорық": "Аудандар"},
    selected_only=True, join=True, language="kk", output=f"{OUT}/indicators.gpkg",
)  # fmt: skip
own = [f.name() for f in units.fields() if f.name().startswith("qala_")]
filled = [
    f["КАТО коды"]
    for f in units.getFeatures()
    if {str(f[n]) for n in own} - {"NULL", "None"}
]  # fmt: skip
say("indicators", [next(iter(shown)), sorted(filled)])

before = len(project.mapLayers())
opened = open_results(f"{OUT}/Нәтиже/urbanisation.gpkg", title="Түркістан")
say("again", [project.layerTreeRoot().children()[0].name(), len(project.mapLayers()) - before])


def sentence(call, *arguments, **named):
    """As at the prompt: what a mistake prints, and that nothing is returned."""
    text = io.StringIO()
    scope = {"call": call, "arguments": arguments, "named": named}
    with redirect_stderr(text):
        exec(compile("found = call(*arguments, **named)", "<input>", "exec"), scope)
    return [scope["found"], text.getvalue().strip()]


say("no such layer", sentence(urbanisation, "Население"))
say("no such column", sentence(urbanisation, "Халық саны", "Аудандар", "code"))
say("no id", sentence(urbanisation, "Халық саны", "Аудандар"))
say("wrong rules", sentence(urbanisation, "Халық саны", ruleset="R1999"))
say("wrong threshold", sentence(urbanisation, "Халық саны", centre_densty=3, output=f"{OUT}/x"))
say("two ways", sentence(functional_areas, "Халық саны", "Аудандар", "КАТО коды",
                         distance=True, isochrone=90))  # fmt: skip
say("wrong box", sentence(city, f"{SAMPLE}/units.gpkg", bbox=(70, 40, 60, 41)))
units.removeSelection()
say("nothing selected", sentence(urbanisation, "Халық саны", "Аудандар", "КАТО коды",
                                 selected_only=True))  # fmt: skip
try:
    open_results(f"{OUT}/absent.gpkg")
except InputError as error:
    say("in a script", [type(error).__name__, str(error)])
say("check", [check("Халық саны", units), check(__file__)])
say("status", status())
say("help", [urbanisation.__doc__.splitlines()[0], "selected_only" in urbanisation.__doc__])
os.environ["QALA_PYTHON"] = f"{OUT}/nowhere"
say("no worker", sentence(status))
sys.stdout.flush()
# PyQGIS ends badly when its objects outlive it
os._exit(0)
