"""Default styles of layers as QML, the text QGIS stores beside a layer.

Three builders (:func:`categorised`, :func:`graduated`, :func:`outline`) return
QML for any layer; :func:`named_style` holds the project's own choices. Colours
of classes are those of the Degree of Urbanisation (:data:`qala.rules.COLOURS`).
The text is read by QGIS 3.22 and later.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from qala.errors import InputError, Problems
from qala.messages import catalog, tr
from qala.rules import COLOURS, level_codes

if TYPE_CHECKING:
    import pandas as pd

Colour = tuple[int, int, int]

#: bounds of the classes of a share of people; fixed, so that maps compare
SHARE_BREAKS: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
#: light to dark, readable in grey and by colour-blind people (ColorBrewer YlOrRd, 5 classes)
SHARE_COLOURS: tuple[Colour, ...] = (
    (255, 255, 178),
    (254, 204, 92),
    (253, 141, 60),
    (240, 59, 32),
    (189, 0, 38),
)
#: bounds of official share / functional share: around 1 both agree
RATIO_BREAKS: tuple[float, ...] = (0.0, 0.5, 0.8, 0.95, 1.05, 1.25, 2.0, 1e6)
#: blue where the official share is lower, red where it is higher (ColorBrewer RdBu, 7 classes)
RATIO_COLOURS: tuple[Colour, ...] = (
    (33, 102, 172),
    (103, 169, 207),
    (209, 229, 240),
    (247, 247, 247),
    (253, 219, 199),
    (239, 138, 98),
    (178, 24, 43),
)
MISSING_COLOUR: Colour = (204, 204, 204)
#: darker than the cells of urban centres, so that their outline shows on them
CENTRE_COLOUR: Colour = (150, 0, 20)
#: stands for "no value" in a graduated style, which QGIS would else leave blank
_MISSING = -1e9

#: keys that :func:`named_style` knows
STYLES: tuple[str, ...] = ("cells", "centres", "units", "urban_share", "ratio", "table")


def names(columns: Iterable[str], lang: str = "en") -> dict[str, str]:
    """Return the words for the columns the catalog knows (keys ``column.*``).

    Examples
    --------
    >>> names(["population", "code_of_mine"])
    {'population': 'Population, people'}
    """
    known = catalog()
    return {c: tr(f"column.{c}", lang) for c in columns if f"column.{c}" in known}


def range_labels(breaks: Sequence[float], lang: str = "en", *, kind: str = "share") -> list[str]:
    """Return legend labels of graduated classes.

    Parameters
    ----------
    breaks
        Bounds, one more than classes; a first bound of 0 or a last bound of
        1e6 and more is open for ratios and numbers.
    lang
        ``en``, ``ru`` or ``kk``.
    kind
        ``share`` (0–1, shown in percent), ``ratio`` or ``number``.

    Examples
    --------
    >>> range_labels([0, 0.5, 1])
    ['0–50%', '50–100%']
    """
    from qala.figures import number, percent

    if kind == "share":
        gap = "" if lang == "en" else "\u202f"
        bounds = [percent(b, lang, digits=0).rstrip("%").strip() for b in breaks]
        return [f"{a}–{b}{gap}%" for a, b in pairwise(bounds)]
    digits = 2 if kind == "ratio" else 0
    texts = []
    for low, high in pairwise(breaks):
        a, b = number(low, lang, digits=digits), number(high, lang, digits=digits)
        if kind == "ratio" and low <= 0:
            texts.append(f"< {b}")
        elif kind == "ratio" and high >= 1e6:
            texts.append(f"≥ {a}")
        else:
            texts.append(f"{a}–{b}")
    return texts


def categorised(
    column: str,
    classes: Sequence[tuple[object, str, Colour]],
    *,
    geometry: str = "Polygon",
    stroke: Colour | None = None,
    stroke_mm: float = 0.2,
    opacity: float = 1.0,
    other: tuple[str, Colour] | None = None,
    label: str | None = None,
    aliases: Mapping[str, str] | None = None,
) -> str:
    """Return a style with one symbol a value.

    Parameters
    ----------
    column
        The column of the values.
    classes
        ``(value, legend label, colour)`` in the order of the legend.
    geometry
        ``Polygon``, ``LineString`` or ``Point`` (``Multi…`` too).
    stroke
        Colour of the outline; None draws none.
    stroke_mm
        Width of outline or line, mm.
    opacity
        Of the whole layer, 0–1.
    other
        Label and colour of all other values, missing ones included.
    label
        QGIS expression of the text at each feature.
    aliases
        Column to the words shown for it.

    Raises
    ------
    InputError
        When there is no class or the geometry type is unknown.
    """
    if not classes:
        raise InputError(f"no classes for {column!r}", "at least one value with label and colour")
    root = _root(label is not None, opacity)
    renderer = _renderer(root, "categorizedSymbol", attr=column)
    categories = ET.SubElement(renderer, "categories")
    symbols = ET.SubElement(renderer, "symbols")
    rows = [*classes, *([("", *other)] if other else [])]
    for index, (value, text, colour) in enumerate(rows):
        ET.SubElement(
            categories,
            "category",
            {"render": "true", "symbol": str(index), "value": str(value), "label": text},
        )
        _symbol(symbols, str(index), geometry, fill=colour, stroke=stroke, stroke_mm=stroke_mm)
    return _finish(root, geometry, label, aliases)


def graduated(
    column: str,
    breaks: Sequence[float],
    colours: Sequence[Colour],
    labels: Sequence[str],
    *,
    geometry: str = "Polygon",
    stroke: Colour | None = (110, 110, 110),
    stroke_mm: float = 0.2,
    opacity: float = 1.0,
    missing: str | None = None,
    label: str | None = None,
    aliases: Mapping[str, str] | None = None,
) -> str:
    """Return a style with one symbol an interval of numbers.

    Parameters
    ----------
    column
        A numeric column.
    breaks
        Rising bounds, one more than ``colours``; the outer two are widened by
        a millionth, so that 1.0000000002 still belongs to the last class.
    colours, labels
        Of each class.
    geometry, stroke, stroke_mm, opacity, label, aliases
        As for :func:`categorised`.
    missing
        Legend label of features without a value, drawn grey; None leaves
        them out.

    Raises
    ------
    InputError
        When the counts do not fit or bounds do not rise.
    """
    problems = Problems(f"graduated style of {column!r}")
    if len(breaks) != len(colours) + 1 or len(labels) != len(colours):
        problems.add(
            f"{len(breaks)} bounds, {len(colours)} colours, {len(labels)} labels",
            "one bound more than colours, and as many labels as colours",
        )
    if any(b <= a for a, b in pairwise(breaks)):
        problems.add(f"bounds {list(breaks)}", "bounds that rise")
    problems.raise_if_any()
    root = _root(label is not None, opacity)
    quoted = '"' + column.replace('"', '""') + '"'
    attr = f"coalesce({quoted}, {_MISSING:.0f})" if missing else column
    renderer = _renderer(root, "graduatedSymbol", attr=attr, graduatedMethod="GraduatedColor")
    ranges = ET.SubElement(renderer, "ranges")
    symbols = ET.SubElement(renderer, "symbols")
    margin = 1e-6 * (breaks[-1] - breaks[0])
    bounds = [breaks[0] - margin, *breaks[1:-1], breaks[-1] + margin]
    rows = list(zip(bounds[:-1], bounds[1:], labels, colours, strict=True))
    if missing:
        rows.append((_MISSING - 1, _MISSING + 1, missing, MISSING_COLOUR))
    for index, (low, high, text, colour) in enumerate(rows):
        ET.SubElement(
            ranges,
            "range",
            {
                "render": "true",
                "symbol": str(index),
                "lower": f"{low:.15f}",
                "upper": f"{high:.15f}",
                "label": text,
            },
        )
        _symbol(symbols, str(index), geometry, fill=colour, stroke=stroke, stroke_mm=stroke_mm)
    return _finish(root, geometry, label, aliases)


def outline(
    *,
    colour: Colour = CENTRE_COLOUR,
    stroke_mm: float = 0.6,
    fill: Colour | None = None,
    geometry: str = "Polygon",
    opacity: float = 1.0,
    label: str | None = None,
    aliases: Mapping[str, str] | None = None,
) -> str:
    """Return a style with one symbol: an outline, filled or not.

    Parameters
    ----------
    colour
        Of the outline (of the symbol, for lines and points).
    fill
        Colour of the inside; None leaves it open.
    geometry, stroke_mm, opacity, label, aliases
        As for :func:`categorised`.
    """
    root = _root(label is not None, opacity)
    renderer = _renderer(root, "singleSymbol")
    symbols = ET.SubElement(renderer, "symbols")
    inside = fill if "Polygon" in geometry else colour
    _symbol(symbols, "0", geometry, fill=inside, stroke=colour, stroke_mm=stroke_mm)
    return _finish(root, geometry, label, aliases)


def table(aliases: Mapping[str, str] | None = None) -> str:
    """Return the style of a table without geometry: words for its columns."""
    return _finish(_root(False, 1.0), "", None, aliases)


def named_style(
    key: str, data: pd.DataFrame, *, lang: str = "en", aliases: Mapping[str, str] | None = None
) -> str:
    """Return the project's own style for a layer.

    Parameters
    ----------
    key
        ``cells`` (classes of cells by ``code``), ``centres`` (red outline with
        name), ``units`` (classes of units by ``degurba_l2`` or ``degurba_l1``),
        ``urban_share``, ``ratio`` (official over functional share, diverging
        at 1) or ``table`` (no symbols).
    data
        The layer; the columns it has decide what is shown.
    lang
        Language of legend, labels and column names.
    aliases
        Words for columns, over those of the catalog.

    Raises
    ------
    InputError
        When the key is unknown or the layer lacks the column.
    """
    columns = [str(c) for c in data.columns]
    words = {**names(columns, lang), **(aliases or {})}
    if key not in STYLES:
        raise InputError(f"style {key!r}", "one of " + ", ".join(STYLES) + ", or QML text")
    if key == "table":
        return table(words)
    no_data = tr("class.255", lang)
    if key == "cells":
        codes = _codes(data["code"]) if "code" in columns else set()
        level = _need(key, "code", columns) and (1 if codes <= {0, 1, 2, 3} else 2)
        classes = [(c, tr(f"class.{c}", lang), COLOURS[c]) for c in level_codes(level)]
        return categorised("code", classes, aliases=words)
    if key == "centres":
        label = _centre_label(columns, lang)
        return outline(colour=CENTRE_COLOUR, label=label, aliases=words)
    if key == "units":
        column = next((c for c in ("degurba_l2", "degurba_l1") if c in columns), None)
        if column is None:
            raise InputError(
                "the layer has neither degurba_l2 nor degurba_l1", "units with their classes"
            )
        codes_of = level_codes(2 if column.endswith("2") else 1)
        classes = [(c, tr(f"unit.{c}", lang), COLOURS[c]) for c in codes_of if c not in (0, 10)]
        return categorised(
            column,
            classes,
            stroke=(90, 90, 90),
            other=(no_data, MISSING_COLOUR),
            aliases=words,
        )
    _need(key, key, columns)
    share = key == "urban_share"
    breaks, colours = (SHARE_BREAKS, SHARE_COLOURS) if share else (RATIO_BREAKS, RATIO_COLOURS)
    return graduated(
        key,
        breaks,
        colours,
        range_labels(breaks, lang, kind="share" if share else "ratio"),
        missing=(no_data if share else tr("figure.no_ratio", lang))
        if bool(data[key].isna().any())
        else None,
        aliases=words,
    )


def _need(key: str, column: str, columns: Collection[str]) -> bool:
    if column not in columns:
        raise InputError(f"style {key!r} for a layer without column {column!r}", f"{column!r}")
    return True


def _codes(values: pd.Series[int]) -> set[int]:
    return {int(v) for v in values.dropna().unique()}


def _centre_label(columns: Collection[str], lang: str) -> str | None:
    """Name in the language, else any name; population below it."""
    order = [f"name_{lang}", "name", "name_en", "name_ru", "name_kk"]
    found = [f'"{c}"' for c in dict.fromkeys(order) if c in columns]
    if not found:
        return None
    name = f"coalesce({', '.join(found)}, '')" if len(found) > 1 else f"coalesce({found[0]}, '')"
    if "population" not in columns:
        return name
    places = f"format_number(\"population\", 0, '{'en' if lang == 'en' else 'ru'}')"
    return f"{name} || '\\n' || {places}"


# --- QML -----------------------------------------------------------------------


def _root(labels: bool, opacity: float) -> ET.Element:
    root = ET.Element(
        "qgis",
        {
            "version": "3.22.0",
            "styleCategories": "Symbology|Labeling|Fields|Forms|AttributeTable|Rendering",
            "labelsEnabled": "1" if labels else "0",
            "simplifyDrawingHints": "1",
            "simplifyDrawingTol": "1",
        },
    )
    root.set("_opacity", f"{opacity:g}")
    return root


def _renderer(root: ET.Element, kind: str, **attributes: str) -> ET.Element:
    common = {"type": kind, "symbollevels": "0", "enableorderby": "0", "forceraster": "0"}
    return ET.SubElement(root, "renderer-v2", {**common, **attributes})


def _rgba(colour: Colour | None, alpha: int = 255) -> str:
    red, green, blue = colour or (0, 0, 0)
    return f"{red},{green},{blue},{alpha if colour else 0}"


def _symbol(
    parent: ET.Element,
    name: str,
    geometry: str,
    *,
    fill: Colour | None,
    stroke: Colour | None,
    stroke_mm: float,
) -> None:
    base = geometry.removeprefix("Multi").split(" ")[0]
    if base in {"Polygon", "CurvePolygon", "Surface", "GeometryCollection"}:
        kind, layer = "fill", "SimpleFill"
        options = {
            "color": _rgba(fill),
            "style": "solid" if fill else "no",
            "outline_color": _rgba(stroke),
            "outline_style": "solid" if stroke else "no",
            "outline_width": f"{stroke_mm:g}",
            "outline_width_unit": "MM",
            "joinstyle": "round",
        }
    elif base in {"LineString", "LinearRing", "Curve"}:
        kind, layer = "line", "SimpleLine"
        options = {
            "line_color": _rgba(fill),
            "line_style": "solid",
            "line_width": f"{stroke_mm:g}",
            "line_width_unit": "MM",
            "capstyle": "round",
            "joinstyle": "round",
        }
    elif base == "Point":
        kind, layer = "marker", "SimpleMarker"
        options = {
            "name": "circle",
            "color": _rgba(fill),
            "outline_color": _rgba(stroke or (255, 255, 255)),
            "outline_style": "solid",
            "outline_width": f"{stroke_mm:g}",
            "size": "2.4",
            "size_unit": "MM",
        }
    else:
        raise InputError(f"geometry type {geometry!r} has no symbol", "points, lines or polygons")
    symbol = ET.SubElement(
        parent,
        "symbol",
        {"type": kind, "name": name, "alpha": "1", "clip_to_extent": "1", "force_rhr": "0"},
    )
    part = ET.SubElement(
        symbol, "layer", {"class": layer, "enabled": "1", "locked": "0", "pass": "0"}
    )
    box = ET.SubElement(part, "Option", {"type": "Map"})
    for key, value in options.items():
        ET.SubElement(box, "Option", {"type": "QString", "name": key, "value": value})


def _finish(
    root: ET.Element, geometry: str, label: str | None, aliases: Mapping[str, str] | None
) -> str:
    opacity = root.attrib.pop("_opacity")
    if label is not None:
        _labels(root, label, "Polygon" in geometry)
    ET.SubElement(root, "blendMode").text = "0"
    ET.SubElement(root, "featureBlendMode").text = "0"
    ET.SubElement(root, "layerOpacity").text = opacity
    if aliases:
        box = ET.SubElement(root, "aliases")
        for index, (column, words) in enumerate(aliases.items()):
            ET.SubElement(box, "alias", {"field": column, "index": str(index), "name": words})
    ET.indent(root, " ")
    head = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
    return head + ET.tostring(root, encoding="unicode") + "\n"


def _labels(root: ET.Element, expression: str, polygons: bool) -> None:
    labeling = ET.SubElement(root, "labeling", {"type": "simple"})
    settings = ET.SubElement(labeling, "settings", {"calloutType": "simple"})
    style = ET.SubElement(
        settings,
        "text-style",
        {
            "fieldName": expression,
            "isExpression": "1",
            # no family: QGIS warns of fonts a machine lacks, its own default is always there
            "fontSize": "9",
            "fontSizeUnit": "Point",
            "fontWeight": "63",
            "textColor": "40,0,0,255",
            "textOpacity": "1",
            "multilineHeight": "1",
        },
    )
    ET.SubElement(
        style,
        "text-buffer",
        {
            "bufferDraw": "1",
            "bufferSize": "0.9",
            "bufferSizeUnits": "MM",
            "bufferColor": "255,255,255,255",
            "bufferOpacity": "0.85",
            "bufferJoinStyle": "128",
        },
    )
    ET.SubElement(settings, "text-format", {"multilineAlign": "1", "wrapChar": ""})
    # 1: around the centroid; 0 would be around the point of a point layer
    ET.SubElement(
        settings,
        "placement",
        {"placement": "0" if polygons else "6", "dist": "1.5", "distUnits": "MM", "priority": "7"},
    )
    ET.SubElement(settings, "rendering", {"obstacle": "0", "scaleVisibility": "0"})
