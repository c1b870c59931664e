"""The page of indicators for planners: one file, offline, in Kazakh, Russian and English."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qala.indicator_products import heading_of, headline, shown, titles_of, unit_of
from qala.messages import LANGUAGES, Words, said, tr

if TYPE_CHECKING:
    import geopandas as gpd

    from qala.indicators import Indicators

#: units on the page at most; the rest is in the tables
MOST_ROWS = 100
#: columns of a table of units
MOST_COLUMNS = 8


def write_indicator_page(
    found: Indicators,
    path: str | Path,
    *,
    title: Words = "",
    figures: Mapping[str, str | Path] | None = None,
    sources: Sequence[Words] = (),
    inputs: Sequence[Mapping[str, Any]] = (),
    synthetic: bool = False,
    lang: str = "kk",
) -> Path:
    """Write the page: maps, all units together, tables of units and areas, what is missing.

    Parameters
    ----------
    found
        From :func:`qala.indicators.planning_indicators`.
    path
        HTML file; replaced when the new one is complete.
    title
        Name of the region, a text or language → text.
    figures
        Language → PNG of :func:`qala.indicator_products.map_indicators`.
    sources
        Attributions, each a text or language → text.
    inputs
        Files with ``path`` and ``sha256``.
    synthetic
        Mark the page.
    lang
        Language shown first.

    Returns
    -------
    pathlib.Path
        The file written.

    Raises
    ------
    InputError
        When the place cannot be written to.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    from qala._indicator_page import PAGE
    from qala.raster import require_writable
    from qala.report import _LANGUAGE_NAMES, _inputs, _picture, _write_text

    target = Path(path)
    require_writable(target)

    def each(text: Callable[[str], str]) -> Markup:
        texts: dict[str, str] = {code: text(code) for code in LANGUAGES}
        if len(set(texts.values())) == 1:
            return Markup("{}").format(texts[lang])
        span = Markup('<span lang="{}">{}</span>')
        return Markup("").join(span.format(code, words) for code, words in texts.items())

    heading = partial(heading_of, title)
    tables: dict[str, Any] = {code: found.table(code) for code in LANGUAGES}

    def cell(i: Any, column: str) -> Markup:
        return each(lambda code: str(tables[code].loc[i, column]))

    def amount(value: Any, unit: str) -> Markup:
        return each(lambda code: shown(value, unit, code))

    def names_of(rows: list[Any]) -> Markup:
        return each(lambda code: "; ".join(dict.fromkeys(tables[code].loc[rows, "title"])))

    first = tables[lang]
    told = first["zone_kind"] == "all"
    whole = [
        {
            "title": cell(i, "title"),
            "epoch": " – ".join(str(v) for v in (row["since"], row["epoch"]) if isinstance(v, str)),
            "value": amount(row["value"], row["unit"]),
            "method": cell(i, "method"),
            "note": cell(i, "note") if row["note"] else "",
        }
        for i, row in first[told & (first["status"] == "computed")].iterrows()
    ]
    lost = first[told & (first["status"] != "computed")]
    missing = [
        (cell(rows.index[0], "note"), names_of(list(rows.index)))
        for _, rows in lost.groupby("note", sort=False)
    ]
    frames = [("indicator.page.units", found.wide("unit"))]
    if found.areas is not None:
        frames.append(("indicator.page.areas", found.wide("area")))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    page = environment.from_string(PAGE).render(
        lang=lang,
        languages=list(_LANGUAGE_NAMES.items()),
        t=lambda key: each(lambda code: tr(key, code)),
        column=lambda name: each(
            lambda code: (
                tr("column.epoch", code)
                if name == "epoch"
                else tr(f"indicator.column.{name}", code)
            )
        ),
        title=each(heading),
        plain_title=heading(lang),
        titles=json.dumps({c: heading(c) for c in LANGUAGES}, ensure_ascii=False).replace(
            "<", "\\u003c"
        ),
        synthetic=synthetic,
        picture=_picture("indicators", figures, lang) if figures else [],
        whole=whole,
        tables=[_table(found, frame, key, each) for key, frame in frames],
        missing=missing,
        sources=[each(partial(said, s)) for s in sources],
        inputs=_inputs({"inputs": list(inputs)}),
    )
    _write_text(target, page)
    return target


def _table(found: Indicators, frame: gpd.GeoDataFrame, key: str, each: Any) -> dict[str, Any]:
    """Return the headline indicators of the first units, told in every language."""
    from qala.figures import place_names

    columns = headline(found, frame)[:MOST_COLUMNS]
    words = {code: titles_of(found, code) for code in LANGUAGES}
    units = {column: unit_of(found, column) for column in columns}
    names = {code: place_names(frame, code) for code in LANGUAGES}

    def amount(value: Any, unit: str) -> Any:
        return each(lambda code: shown(value, unit, code))

    def word(column: str) -> Any:
        return each(lambda code: words[code][column])

    def name(i: int) -> Any:
        return each(lambda code: names[code][i])

    rows = [
        {
            "name": name(i),
            "cells": [amount(frame[column].iloc[i], units[column]) for column in columns],
        }
        for i in range(min(len(frame), MOST_ROWS))
    ]
    rest = len(frame) - len(rows)
    return {
        "title": each(lambda c: tr(key, c)),
        "head": [each(lambda c: tr("indicator.column.name", c)), *(word(c) for c in columns)],
        "rows": rows,
        "more": each(lambda c: tr("report.more", c, count=rest)) if rest else "",
    }
