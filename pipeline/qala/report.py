"""What a planner reads: one page, tables, and the headline on the terminal.

The page is a single HTML file that asks nothing of the network: pictures are
embedded, Kazakh, Russian and English stand side by side behind a switch.
"""

from __future__ import annotations

import base64
import json
import logging
import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qala._report_page import PAGE
from qala.errors import InputError, Problems, storage_error
from qala.figures import TOTAL, epoch_rank, is_total, last_epoch, number, percent, place_names
from qala.files import replacing
from qala.messages import LANGUAGES, catalog, said, tr
from qala.rules import CellRules, cell_rules

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("qala")

#: rows of a table on the page; the rest lies in the tables beside it
MAX_PAGE_ROWS = 60
_HEADLINE = (
    "population",
    "official_share",
    "urban_share",
    "centre_share",
    "ratio",
)
_SHARES = ("official_share", "urban_share", "centre_share")


# --- the page ------------------------------------------------------------------------


def write_report(
    folder: str | Path,
    *,
    rates: pd.DataFrame,
    summary: Mapping[str, Any] | None = None,
    centres: pd.DataFrame | None = None,
    sensitivity: pd.DataFrame | None = None,
    figures: Mapping[str, str | Path | Mapping[str, str | Path]] | None = None,
    provenance: Mapping[str, Any] | None = None,
    lang: str = "kk",
    total: str | None = TOTAL,
) -> list[Path]:
    """Write ``index.html``: the answer, its tables, pictures, method and sources.

    Parameters
    ----------
    folder
        Where the page goes; made if absent.
    rates
        ``unit``, ``urban_share``, optional ``epoch`` (the newest is shown),
        ``population``, ``official_share``, ``centre_share``, ``ratio``,
        ``degurba_l1``, ``degurba_l2``, ``name_kk``, ``name_ru``, ``name_en``.
    summary
        What the row of the whole does not tell: ``place`` (text, or language →
        text), ``synthetic`` (true or false), ``ruleset``, ``thresholds``
        (mapping), ``sources`` (list of texts, or of mappings with ``title``,
        ``licence``, ``citation``, ``url``), and any of the columns above.
    centres
        Urban centres with ``population``, ``area_km2`` and names.
    sensitivity
        As for :func:`qala.figures.chart_sensitivity`; gives the range of answers.
    figures
        Name → PNG, or name → language → PNG, in the order of the page.
    provenance
        Record of the run; ``inputs`` (list of mappings with ``path`` and
        ``sha256``) is shown as a table, all of it folded below.
    lang
        Language shown first.
    total
        Value of ``unit`` in the row of the whole, for instance of
        ``pandas.concat([rates, qala.rates.summarise(rates)])``.

    Returns
    -------
    list of pathlib.Path
        The files written.

    Raises
    ------
    InputError
        When columns or pictures are absent, or the folder cannot be written to.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    from qala.raster import require_writable

    target = Path(folder) / "index.html"
    _check(rates, figures or {}, lang)
    require_writable(target)
    summary = dict(summary or {})
    newest = last_epoch(rates).reset_index(drop=True)
    whole = is_total(newest, total)
    head: dict[str, Any] = {}
    if whole.any():
        head.update({str(k): v for k, v in newest[whole].iloc[0].items()})
    head.update(summary)

    def each(text: Callable[[str], str]) -> Markup:
        """Return one text in every language, one span where they agree."""
        texts: dict[str, str] = {code: text(code) for code in LANGUAGES}
        if len(set(texts.values())) == 1:
            return Markup("{}").format(texts[lang])
        span = Markup('<span lang="{}">{}</span>')
        return Markup("").join(span.format(code, words) for code, words in texts.items())

    rules = cell_rules(str(head.get("ruleset", "R2023A")), **dict(head.get("thresholds") or {}))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    page = environment.from_string(PAGE).render(
        lang=lang,
        languages=list(_LANGUAGE_NAMES.items()),
        t=lambda key, **values: each(lambda code: tr(key, code, **values)),
        title=each(lambda code: _title(head, code)),
        plain_title=_title(head, lang),
        titles=json.dumps({c: _title(head, c) for c in LANGUAGES}, ensure_ascii=False).replace(
            "<", "\\u003c"
        ),
        synthetic=bool(head.get("synthetic")),
        official=each(lambda code: percent(_float(head, "official_share"), code)),
        has_official=math.isfinite(_float(head, "official_share")),
        functional=each(lambda code: percent(_float(head, "urban_share"), code)),
        has_headline=math.isfinite(_float(head, "urban_share")),
        of_people=each(lambda code: _of_people(head, code)),
        in_centres=each(
            lambda code: tr(
                "report.centres_share", code, value=percent(_float(head, "centre_share"), code)
            )
        )
        if math.isfinite(_float(head, "centre_share"))
        else "",
        verdict=each(lambda code: _verdict(head, code)),
        tables=[
            _unit_table(newest, whole, each),
            *([_centre_table(centres, each)] if centres is not None and len(centres) else []),
        ],
        pictures=[_picture(name, files, lang) for name, files in (figures or {}).items()],
        method=[each(_method_sentence(n, rules, head)) for n in range(1, 6)],
        span=_range(sensitivity, each),
        sources=[_source(s, each) for s in head.get("sources") or []],
        inputs=_inputs(provenance),
        record=json.dumps(
            provenance or {}, ensure_ascii=False, indent=2, sort_keys=True, default=str
        ),
    )
    _write_text(target, page)
    return [target]


_LANGUAGE_NAMES = {"kk": "Қазақша", "ru": "Русский", "en": "English"}


def _check(rates: pd.DataFrame, figures: Mapping[str, Any], lang: str) -> None:
    problems = Problems("report")
    if lang not in LANGUAGES:
        problems.add(f"language {lang!r}", "one of " + ", ".join(LANGUAGES))
    for column in ("unit", "urban_share"):
        if column not in rates.columns:
            problems.add(f"rates have no column {column!r}", "the table of qala.urbanisation_rates")
    for name, files in figures.items():
        for file in files.values() if isinstance(files, Mapping) else [files]:
            if not Path(file).is_file():
                problems.add(f"figure {name!r} is not there: {file}", "a PNG file")
    problems.raise_if_any()


def _float(values: Mapping[str, Any], key: str) -> float:
    value = values.get(key)
    return float("nan") if value is None else float(value)


def _text(value: Any) -> str:
    """Return a value as text; missing ones are empty."""
    import pandas as pd

    return "" if value is None or value is pd.NA or value != value else str(value)  # noqa: PLR0124


def _place(head: Mapping[str, Any], lang: str) -> str:
    place = head.get("place")
    if isinstance(place, Mapping):
        return _text(said(place, lang))
    if place:
        return _text(place)
    return _text(head.get(f"name_{lang}")) or _text(head.get("name"))


def _title(head: Mapping[str, Any], lang: str) -> str:
    place = _place(head, lang)
    return tr("report.title_of", lang, place=place) if place else tr("report.title", lang)


def _of_people(head: Mapping[str, Any], lang: str) -> str:
    people = _float(head, "population")
    if not math.isfinite(people):
        return ""
    epoch = _text(head.get("epoch"))
    text = tr("report.of_people", lang, people=number(people, lang), epoch=epoch)
    return text if epoch else text.rstrip(" ,")


def _verdict(head: Mapping[str, Any], lang: str) -> str:
    official, functional = _float(head, "official_share"), _float(head, "urban_share")
    if not math.isfinite(official):
        return tr("report.no_official", lang)
    if not functional > 0:
        return ""
    ratio = official / functional
    key = "report.higher" if ratio >= 1 else "report.lower"
    return tr(key, lang, ratio=number(ratio, lang, digits=2))


def _method_sentence(n: int, rules: CellRules, head: Mapping[str, Any]) -> Callable[[str], str]:
    return lambda code: tr(f"report.method.{n}", code, **_rule_values(rules, head, code))


def _rule_values(rules: CellRules, head: Mapping[str, Any], lang: str) -> dict[str, str]:
    wanted = ("centre_density", "centre_population", "cluster_density", "cluster_population")
    values = {name: number(getattr(rules, name), lang) for name in wanted}
    return {**values, "ruleset": str(head.get("ruleset", "R2023A"))}


def _cell(column: str, value: Any, lang: str) -> str:
    """Return a value of a table as its column wants it."""
    if column in _SHARES or column.startswith("share_"):
        return percent(_number(value), lang)
    if column.startswith("ratio"):
        return number(_number(value), lang, digits=2)
    if column.startswith("degurba"):
        code = _number(value)
        return tr(f"unit.{int(code)}", lang) if math.isfinite(code) else "–"
    if column == "area_km2":
        return number(_number(value), lang)
    if column == "epoch":
        return _text(value)
    return number(_number(value), lang)


def _number(value: Any) -> float:
    import pandas as pd

    return float("nan") if value is None or pd.isna(value) else float(value)


def _unit_table(rates: pd.DataFrame, whole: Any, each: Any) -> dict[str, Any]:
    """Return rows of units, the whole first, then by functional share."""
    columns = [c for c in _HEADLINE if c in rates.columns and rates[c].notna().any()]
    columns += [c for c in ("degurba_l2", "degurba_l1") if c in rates.columns][:1]
    order = np.lexsort((-rates["urban_share"].fillna(-1).to_numpy("float64"), ~whole))
    return _table("report.table", "report.more", rates, columns, order, whole, "column.unit", each)


def _centre_table(centres: pd.DataFrame, each: Any) -> dict[str, Any]:
    columns = [c for c in ("population", "area_km2", "density") if c in centres.columns]
    people = centres.get("population")
    order = np.arange(len(centres))
    if people is not None:
        order = np.argsort(-people.fillna(-1).to_numpy("float64"), kind="stable")
    nothing = np.zeros(len(centres), dtype=bool)
    return _table(
        "report.centres",
        "report.more",
        centres,
        columns,
        order,
        nothing,
        "report.centre_name",
        each,
    )


def _table(
    title: str,
    more: str,
    data: pd.DataFrame,
    columns: Sequence[str],
    order: Any,
    whole: Any,
    first: str,
    each: Any,
) -> dict[str, Any]:
    named = {code: place_names(data, code) for code in LANGUAGES}
    rows = []
    for i in order[:MAX_PAGE_ROWS]:
        record = data.iloc[int(i)]
        name = each(lambda code, i=i: named[code][i] or _numbered(data.iloc[int(i)], code))
        cells = [each(lambda code, c=c, record=record: _cell(c, record[c], code)) for c in columns]
        rows.append({"name": name, "cells": cells, "whole": bool(whole[i])})
    rest = len(order) - len(rows)
    return {
        "title": each(lambda code: tr(title, code)),
        "head": [
            each(lambda code: tr(first, code)),
            *(each(lambda code, c=c: tr(f"column.{c}", code)) for c in columns),
        ],
        "text": [c.startswith("degurba") for c in columns],
        "rows": rows,
        "more": each(lambda code: tr(more, code, count=number(rest, code))) if rest else "",
    }


def _numbered(record: pd.Series[Any], lang: str) -> str:
    """Return what stands for a missing name: the number of a centre, if it has one."""
    if "centre" not in record.index:
        return tr("report.unnamed", lang)
    return f"{tr('report.centre_name', lang)} {record['centre']}"


def _picture(
    name: str, files: str | Path | Mapping[str, str | Path], lang: str
) -> list[tuple[str, str, str]]:
    """Return (language, data URI, name) of one figure; no language where all share it."""
    if not isinstance(files, Mapping):
        return [("", _data_uri(Path(files)), _figure_name(name, lang))]
    missing = [code for code in LANGUAGES if code not in files]
    fallback = files.get(lang) or next(iter(files.values()))
    if len(files) == 1:
        return [("", _data_uri(Path(fallback)), _figure_name(name, lang))]
    if missing:
        log.warning("figure %r lacks %s: another language stands in", name, ", ".join(missing))
    return [
        (code, _data_uri(Path(files.get(code, fallback))), _figure_name(name, code))
        for code in LANGUAGES
    ]


def _figure_name(name: str, lang: str) -> str:
    """Return what a picture shows, for those who can't see it."""
    key = f"figure.{name}"
    return tr(key, lang) if key in catalog() else name


def pack_picture(path: Path) -> bytes:
    """Return a picture as the page holds it: a PNG of 256 colours.

    They are enough on a page, at a third of the bytes. One that has a palette already is
    taken as it is.

    Raises
    ------
    InputError
        When the file is not a sound PNG.
    """
    from io import BytesIO

    from PIL import Image, UnidentifiedImageError

    packed = BytesIO()
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            if picture.mode == "P":
                picture.load()
                return path.read_bytes()
            colours = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
            colours.save(packed, format="PNG", optimize=True)
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(
            f"{path} is not a sound PNG ({error})", "a picture made by qala.figures"
        ) from error
    return packed.getvalue()


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(pack_picture(path)).decode("ascii")


def _range(sensitivity: pd.DataFrame | None, each: Any) -> Any:
    if sensitivity is None or "urban_share" not in sensitivity.columns:
        return ""
    values = sensitivity["urban_share"].dropna()
    if not len(values):
        return ""
    low, high = float(values.min()), float(values.max())
    return each(
        lambda code: tr(
            "report.trust.definition", code, low=percent(low, code), high=percent(high, code)
        )
    )


def _source(source: Any, each: Any) -> dict[str, Any]:
    if not isinstance(source, Mapping):
        return {"title": _text(source), "licence": "", "citation": "", "url": ""}
    if set(source) <= set(LANGUAGES):
        title = each(lambda code: said(source, code))
        return {"title": title, "licence": "", "citation": "", "url": ""}
    found = {key: _text(source.get(key)) for key in ("title", "licence", "citation", "url")}
    # a link must lead to a page, never run anything
    if not found["url"].startswith(("https://", "http://")):
        found["url"] = ""
    return found


def _inputs(provenance: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Return (name, hash) of the inputs of a record, whichever way it lists them."""
    inputs = (provenance or {}).get("inputs") or []
    entries = inputs.items() if isinstance(inputs, Mapping) else enumerate(inputs)
    rows = []
    for key, entry in entries:
        if isinstance(entry, Mapping):
            names = ("path", "name", "file", "title")
            name = next((_text(entry[k]) for k in names if entry.get(k)), str(key))
            rows.append((name, _text(entry.get("sha256") or entry.get("hash"))))
        else:
            rows.append((str(key) if isinstance(inputs, Mapping) else _text(entry), _text(entry)))
    return rows


# --- tables ----------------------------------------------------------------------------


def write_tables(folder: str | Path, tables: Mapping[str, pd.DataFrame]) -> list[Path]:
    """Write each table as CSV and as Parquet.

    Parameters
    ----------
    folder
        Where they go; made if absent.
    tables
        Name of the file without suffix → table; geometry is left out.

    Returns
    -------
    list of pathlib.Path
        ``name.csv`` and ``name.parquet`` of each.

    Raises
    ------
    InputError
        When a name is no plain file name or the folder cannot be written to.

    Notes
    -----
    CSV follows RFC 4180 in UTF-8 without byte order mark: commas, CRLF, floats
    by ten significant digits, missing values empty. Parquet keeps full precision.
    """
    import pandas as pd

    from qala.raster import require_writable

    root = Path(folder)
    written = []
    for name, data in tables.items():
        if not name or Path(name).name != name:
            raise InputError(f"table name {name!r}", "a file name without folder")
        plain = data
        if hasattr(data, "geometry"):
            plain = pd.DataFrame(data.drop(columns=data.geometry.name))
        csv, parquet = root / f"{name}.csv", root / f"{name}.parquet"
        require_writable(csv)
        text = plain.to_csv(index=False, float_format="%.10g", lineterminator="\r\n")
        _write_text(csv, text)
        # a column of mixed settings ("2024", 0.2, False) has no type of its own
        mixed = [c for c in plain.columns if plain[c].dtype == object and _is_mixed(plain[c])]
        plain = plain.copy() if mixed else plain
        for column in mixed:
            plain[column] = [_text(v) or None for v in plain[column]]
        _replace(parquet, lambda work, plain=plain: plain.to_parquet(work, index=False))  # type: ignore[misc]
        written += [csv, parquet]
    return written


def _is_mixed(column: pd.Series[Any]) -> bool:
    return len({type(v) for v in column.dropna()}) > 1


def _write_text(target: Path, text: str) -> None:
    _replace(target, lambda work: work.write_bytes(text.encode("utf-8")))


def _replace(target: Path, write: Callable[[Path], Any]) -> None:
    """Write a file whole or not at all."""
    try:
        with replacing(target) as work:
            write(work)
    except OSError as error:
        raise storage_error(target, error) from error


# --- terminal --------------------------------------------------------------------------


def console_table(
    rates: pd.DataFrame, lang: str = "en", *, total: str | None = TOTAL, rows: int = 40
) -> str:
    """Return the headline table as text with aligned columns.

    Parameters
    ----------
    rates
        As for :func:`write_report`; all epochs are shown.
    lang
        ``en``, ``ru`` or ``kk``.
    total
        Value of ``unit`` in the row of the whole, which stands last.
    rows
        Rows shown at most; what is left out is said.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame(
    ...     {"unit": ["Түркістан", "Кентау"], "population": [1e5, 2e4],
    ...      "official_share": [1, 1], "urban_share": [0.9, 0.5]}
    ... )
    >>> print(console_table(table, "en"))
    Unit        People  Official  Functional
    Түркістан  100,000    100.0%       90.0%
    Кентау      20,000    100.0%       50.0%
    """
    whole = is_total(rates, total)
    order = np.lexsort((-rates["urban_share"].fillna(-1).to_numpy("float64"), whole))
    order = order[np.argsort(epoch_rank(rates)[order], kind="stable")]
    shown = order[:rows] if len(order) > rows else order
    # the whole must never be what is left out
    lost = [i for i in order[rows:] if whole[i]]
    data = rates.iloc[[*shown, *lost]]
    columns = [c for c in ("epoch", *_HEADLINE) if c in data.columns and data[c].notna().any()]
    if "epoch" in columns and data["epoch"].nunique() == 1:
        columns.remove("epoch")
    header = [tr("console.unit", lang), *(tr(f"console.{c}", lang) for c in columns)]
    body = [
        [name, *(_cell(c, row[c], lang).replace("\u202f", " ") for c in columns)]
        for name, (_, row) in zip(place_names(data, lang), data.iterrows(), strict=True)
    ]
    widths = [max(_width(r[i]) for r in [header, *body]) for i in range(len(header))]
    lines = []
    for r in [header, *body]:
        cells = [_padded(r[0], widths[0], left=True)]
        cells += [_padded(v, w, left=False) for v, w in zip(r[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    marks = whole[[*shown, *lost]]
    for at in reversed(np.flatnonzero(marks)):
        lines.insert(int(at) + 1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    rest = len(order) - len(data)
    if rest:
        lines.append(tr("report.more", lang, count=number(rest, lang)).replace("\u202f", " "))
    return "\n".join(lines)


def _width(text: str) -> int:
    """Return the columns a text takes on a terminal: letters, not code points."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in unicodedata.normalize("NFC", text)
    )


def _padded(text: str, width: int, *, left: bool) -> str:
    gap = " " * (width - _width(text))
    return text + gap if left else gap + text
