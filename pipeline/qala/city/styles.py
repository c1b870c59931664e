"""Default styles of the twin's layers in QGIS, flat and in 3D."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from qala.city.classes import COLOURS
from qala.messages import catalog, tr

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

#: bounds of the height classes, metres, and their colours (ColorBrewer YlOrRd, 7 classes)
HEIGHT_BREAKS = (0.0, 4.0, 7.0, 10.0, 16.0, 25.0, 40.0, 1000.0)
HEIGHT_COLOURS = (
    (255, 255, 178), (254, 217, 118), (254, 178, 76), (253, 141, 60), (252, 78, 42), (227, 26, 28),
    (177, 0, 38),
)  # fmt: skip
#: colours of the height's source: the surer, the darker (ColorBrewer YlGnBu)
SOURCE_COLOURS: dict[str, tuple[int, int, int]] = {
    "tag": (37, 52, 148), "levels": (44, 127, 184), "ghsl": (65, 182, 196),
    "neighbour": (161, 218, 180), "type": (235, 235, 190),
}  # fmt: skip
NETWORK_COLOURS: dict[str, tuple[int, int, int]] = {
    "power": (214, 39, 40), "heat": (255, 127, 14), "gas": (230, 200, 30), "water": (31, 119, 180),
    "sewage": (140, 86, 75), "oil": (60, 60, 60), "telecom": (148, 103, 189),
    "other": (127, 127, 127),
}  # fmt: skip
GROUND_COLOURS: dict[str, tuple[int, int, int]] = {
    "landuse": (238, 232, 222), "green": (186, 214, 165), "water": (158, 198, 224),
    "streets": (255, 255, 255), "railways": (120, 120, 120), "waterways": (120, 175, 215),
}  # fmt: skip

#: terrain from the lowest to the highest place (hypsometric tints as in atlases)
TERRAIN_COLOURS = (
    (172, 208, 165), (198, 218, 170), (222, 225, 178), (236, 220, 178), (222, 196, 156),
    (205, 176, 142), (190, 168, 150), (226, 222, 218),
)  # fmt: skip
CONTOUR_COLOUR = (150, 110, 70)

# QGIS draws each surface where its z says, walls included
_RENDERER_3D = """ <renderer-3d type="vector">
  <symbol material_type="phong" type="polygon">
   <data add-back-faces="1" alt-binding="vertex" alt-clamping="absolute" culling-mode="no-culling"
    extrusion-height="0" height="0" invert-normals="0" rendered-facade="3"/>
   <material ambient="140,128,110,255" diffuse="232,190,120,255" shininess="0"
    specular="0,0,0,255"/>
   <data-defined-properties><Option/></data-defined-properties>
   <edges color="90,90,90,255" enabled="1" width="1"/>
  </symbol>
 </renderer-3d>
"""


def aliases(columns: Iterable[str], lang: str = "en") -> dict[str, str]:
    """Return the words for the columns that have some."""
    known = catalog()
    return {c: tr(f"city.column.{c}", lang) for c in columns if f"city.column.{c}" in known}


def layer_style(name: str, frame: pd.DataFrame, lang: str = "en") -> str | None:
    """Return the QML of a layer, or None where QGIS's own will do."""
    columns = frame.columns
    from qala.export.styles import categorised, graduated, outline

    words = aliases(columns, lang)
    if name == "buildings":
        labels = height_labels(lang)
        qml = graduated(
            "height", HEIGHT_BREAKS, HEIGHT_COLOURS, labels, stroke=(90, 90, 90), stroke_mm=0.1,
            aliases=words,
        )  # fmt: skip
        return qml.replace("</qgis>", _RENDERER_3D + "</qgis>")
    if name == "footprints":
        classes = [(c, tr(f"city.class.{c}", lang), rgb) for c, rgb in COLOURS.items()]
        return categorised("class", classes, stroke=(110, 110, 110), stroke_mm=0.1, aliases=words)
    if name == "terrain":
        breaks = height_steps(frame["z_mean"])
        unit = tr("city.page.metres", lang)
        labels = [f"{a:g}–{b:g} {unit}" for a, b in pairwise(breaks)]
        qml = graduated(
            "z_mean", breaks, TERRAIN_COLOURS[: len(labels)], labels, stroke=None, aliases=words
        )
        ground = _RENDERER_3D.replace("232,190,120", "222,215,196").replace(
            'edges color="90,90,90,255" enabled="1"', 'edges color="90,90,90,255" enabled="0"'
        )
        return qml.replace("</qgis>", ground + "</qgis>")
    if name == "contours":
        kinds = [(k, tr(f"city.contour.{k}", lang), rgb) for k, rgb in (
            (1, CONTOUR_COLOUR), (0, (205, 180, 150)))]  # fmt: skip
        text = 'if("main" = 1, format_number("elevation", 0), \'\')'
        return categorised(
            "main", kinds, geometry="LineString", stroke_mm=0.18, label=text, aliases=words
        )
    if name == "networks":
        rows = [(k, tr(f"city.network.{k}", lang), rgb) for k, rgb in NETWORK_COLOURS.items()]
        return categorised(
            "network", rows, geometry="LineString", stroke_mm=0.5, aliases=words
        )  # fmt: skip
    if name in ("landuse", "green", "water", "protected_areas"):
        colour = GROUND_COLOURS.get(name, (120, 160, 90))
        edge = tuple(int(c * 0.8) for c in colour)
        fill = None if name == "protected_areas" else colour
        return outline(colour=edge, fill=fill, stroke_mm=0.15, aliases=words)  # type: ignore[arg-type]
    if name in ("streets", "railways", "waterways"):
        line = {"streets": (150, 150, 150)}.get(name, GROUND_COLOURS[name])
        width = {"streets": 0.5}.get(name, 0.4)
        return outline(colour=line, stroke_mm=width, geometry="LineString", aliases=words)
    if name in ("stops", "pois", "addresses"):
        points = {"stops": (31, 90, 180), "pois": (180, 80, 140), "addresses": (150, 150, 150)}
        return outline(colour=points[name], geometry="Point", stroke_mm=0.1, aliases=words)
    return None


def height_steps(values: pd.Series) -> list[float]:
    """Return bounds of up to eight equal height classes in round metres."""
    low, high = float(values.min()), float(values.max())
    count = len(TERRAIN_COLOURS)
    step = next((s for s in (0.5, 1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500)
                 if math.floor(low / s) * s + count * s >= high), 1000)  # fmt: skip
    first = math.floor(low / step) * step
    used = max(min(math.ceil((high - first) / step), count), 1)
    return [first + i * step for i in range(used + 1)]


def height_labels(lang: str) -> list[str]:
    """Return the legend texts of the height classes."""
    unit = tr("city.page.metres", lang)
    inner = [f"{a:g}–{b:g} {unit}" for a, b in pairwise(HEIGHT_BREAKS[:-1])]
    return [*inner, f"≥ {HEIGHT_BREAKS[-2]:g} {unit}"]
