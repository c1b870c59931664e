"""Maps and charts for slides: 16:9 PNG in Kazakh, Russian or English.

Maps are drawn in an equal-area projection about their own centre, so that
north is up and shapes are as on any atlas page; far from its central meridian
the grid's Mollweide projection would skew them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qala.errors import InputError, Problems
from qala.files import replacing
from qala.messages import LANGUAGES, tr
from qala.rules import COLOURS, level_codes

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

log = logging.getLogger("qala")

#: inches; 1920×1080 pixels at the default resolution
SIZE = (13.333, 7.5)
DPI = 144
#: narrow no-break space, between groups of digits and before the percent sign
_THIN = "\u202f"
_OFFICIAL = "#5b6b7b"
_FUNCTIONAL = "#c8102e"
_TEXT = "#1f2933"
_MUTED = "#6b7785"
_PARTS = {"growth_inside": "#2a6f97", "new_footprint": "#e9a23b", "reclassification": "#8d99ae"}
#: bars or dots a chart holds and a reader still reads
MAX_ROWS = 30
#: pixels along the longer side of a reprojected raster
_RASTER_PIXELS = 1800
#: ``unit`` of the row for all units together, as :func:`qala.rates.summarise` gives it
TOTAL = "all"
_SETTINGS = {
    "font.family": "DejaVu Sans",
    "font.size": 11.0,
    "text.color": _TEXT,
    "axes.labelcolor": _TEXT,
    "axes.edgecolor": "#c5ccd3",
    "xtick.color": _MUTED,
    "ytick.color": _TEXT,
    "axes.unicode_minus": True,
    "svg.hashsalt": "qala",
    "text.usetex": False,
    "text.parse_math": False,
}


# --- numbers ------------------------------------------------------------------


def number(value: float | None, lang: str = "en", *, digits: int = 0) -> str:
    """Return a number as its language writes it; a dash where it is missing.

    Parameters
    ----------
    value
        The number.
    lang
        ``en`` (1,234.5), ``ru`` or ``kk`` (1 234,5 with narrow spaces).
    digits
        Decimals.

    Examples
    --------
    >>> number(1234.56, "en", digits=1), number(1234.56, "kk", digits=1), number(float("nan"))
    ('1,234.6', '1\u202f234,6', '–')
    """
    if value is None or not math.isfinite(float(value)):
        return "–"
    text = f"{float(value):,.{digits}f}"
    if text.startswith("-"):
        # minus sign, and none before a rounded zero
        text = text[1:] if not text.strip("-0.,") else "\u2212" + text[1:]
    if lang == "en":
        return text
    return text.translate(str.maketrans(",.", f"{_THIN},"))


def percent(share: float | None, lang: str = "en", *, digits: int = 1) -> str:
    """Return a share of 0–1 in percent.

    Examples
    --------
    >>> percent(0.4532), percent(0.4532, "ru")
    ('45.3%', '45,3\u202f%')
    """
    if share is None or not math.isfinite(float(share)):
        return "–"
    return number(100 * float(share), lang, digits=digits) + ("%" if lang == "en" else f"{_THIN}%")


# --- the page -------------------------------------------------------------------


@contextmanager
def _page(title: str, lang: str, source: str, synthetic: bool, subtitle: str) -> Iterator[Figure]:
    """Give an empty page with title and foot, under fixed settings."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if lang not in LANGUAGES:
        raise InputError(f"language {lang!r}", "one of " + ", ".join(LANGUAGES))
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=SIZE, dpi=DPI, facecolor="white")
        FigureCanvasAgg(figure)
        size = _fitting(figure, title, 20, 0.93)
        figure.text(0.035, 0.945, title, size=size, weight="bold", va="center")
        if subtitle:
            figure.text(
                0.035, 0.9, subtitle, size=_fitting(figure, subtitle, 11.5, 0.93), color=_MUTED,
                va="center",
            )  # fmt: skip
        if source:
            text = tr("figure.source", lang, source=source)
            # the mark of synthetic data stands in the right third
            width = 125 if synthetic else 190
            figure.text(0.035, 0.014, _wrapped(text, width), size=8, color=_MUTED, va="bottom")
        if synthetic:
            figure.text(
                0.965,
                0.022,
                tr("figure.synthetic", lang),
                size=11,
                weight="bold",
                color="white",
                ha="right",
                va="bottom",
                bbox={"facecolor": "#b45309", "edgecolor": "none", "boxstyle": "round,pad=0.4"},
            )
        yield figure


def _wrapped(text: str, width: int) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width, break_long_words=False))


def _fitting(figure: Figure, text: str, size: float, share: float) -> float:
    """Return the size at which a line is not wider than a share of the page."""
    probe = figure.text(0, 0, text, size=size, weight="bold")
    width = probe.get_window_extent().width
    probe.remove()
    return size * min(1.0, share * figure.bbox.width / max(width, 1.0))


def _save(figure: Figure, path: str | Path) -> Path:
    """Write a PNG whole or not at all."""
    from qala.raster import require_writable

    target = Path(path)
    if target.suffix.lower() != ".png":
        raise InputError(f"{target.name} is not the name of a PNG", "a name ending in .png")
    require_writable(target)
    with replacing(target) as work:
        # no software version in the file, so that pictures can be compared
        figure.savefig(work, format="png", metadata={"Software": None})
    return target


# --- maps ------------------------------------------------------------------------


def map_cells(
    cells: xr.DataArray,
    units: gpd.GeoDataFrame | None = None,
    centres: gpd.GeoDataFrame | None = None,
    *,
    title: str,
    path: str | Path,
    lang: str = "en",
    source: str = "",
    subtitle: str = "",
    synthetic: bool = False,
    max_labels: int = 24,
    focus: gpd.GeoDataFrame | None = None,
) -> Path:
    """Draw cells by class, with unit borders and named urban centres.

    Parameters
    ----------
    cells
        dims (y, x), uint8; classes of level 1 or 2, 255 where there is no data.
    units
        Polygons whose borders are drawn; any CRS.
    centres
        Polygons with ``population`` (people) and ``name`` or ``name_kk``,
        ``name_ru``, ``name_en``; any CRS.
    title, subtitle
        Above the map.
    path
        PNG to write.
    lang
        ``en``, ``ru`` or ``kk``.
    source
        Sources and licences, below the map.
    synthetic
        Mark the picture as made from synthetic data.
    max_labels
        Centres named at most, the most populous first; names that would
        overlap are left out.
    focus
        Polygons that fill the map, with room for what surrounds them (see
        :func:`around`); any CRS. Without them the map shows all units, or all cells.

    Returns
    -------
    pathlib.Path
        The file written.

    Raises
    ------
    InputError
        When the cells are all without data, or the path is not a PNG's.
    """
    from matplotlib.patches import Patch

    from qala.grid import geobox_of

    values = np.asarray(cells.transpose("y", "x").compute().data)
    box = geobox_of(cells)
    level = 1 if values[values != 255].max(initial=0) <= 3 else 2
    if focus is None:
        picture, extent, crs = _upright(*_window_of_data(values, box, units))
    else:
        picture, extent, crs = _warped(values, box.transform, box.crs.proj, *around(focus))
    codes = level_codes(level)
    with _page(title, lang, source, synthetic, subtitle) as figure:
        axes = _map_axes(figure, extent)
        axes.imshow(
            _painted(picture), extent=extent, origin="upper", interpolation="nearest", zorder=1
        )
        if units is not None and len(units):
            _borders(axes, units, crs)
        present = set(np.unique(picture).tolist())
        handles = [
            Patch(facecolor=_hex(COLOURS[c]), edgecolor="#9aa5b1", linewidth=0.4,
                  label=tr(f"class.{c}", lang))
            for c in codes if c in present
        ]  # fmt: skip
        _legend(figure, axes, handles, tr("figure.cells", lang), lang)
        _furniture(figure, axes, lang)
        if centres is not None and len(centres):
            _centre_names(figure, axes, centres, crs, lang, max_labels)
        return _save(figure, path)


def map_units(
    units: gpd.GeoDataFrame,
    column: str,
    *,
    title: str,
    path: str | Path,
    lang: str = "en",
    source: str = "",
    subtitle: str = "",
    kind: str | None = None,
    synthetic: bool = False,
    max_labels: int = 40,
) -> Path:
    """Draw units by a share, a ratio, a class or a number.

    Parameters
    ----------
    units
        Polygons with ``column``, and ``name_kk``, ``name_ru``, ``name_en``,
        ``name`` or ``unit`` to name them; any CRS.
    column
        What is shown.
    title, path, lang, source, subtitle, synthetic
        As for :func:`map_cells`.
    kind
        ``share`` (0–1), ``ratio`` (diverging at 1), ``class`` (codes of the
        Degree of Urbanisation of units) or ``number`` (quantiles); told from
        the column's name where None.
    max_labels
        Units are named where they are at most so many.

    Returns
    -------
    pathlib.Path
        The file written.

    Raises
    ------
    InputError
        When the column is absent, holds no value, or its kind is unknown.
    """
    from matplotlib.patches import Patch

    from qala.export import styles

    if column not in units.columns:
        raise InputError(f"units have no column {column!r}", "one of " + ", ".join(units.columns))
    if units.crs is None:
        raise InputError("units have no CRS", "a declared CRS", "set it with set_crs()")
    kind = kind or _kind(column)
    shown = units[units.geometry.notna() & ~units.geometry.is_empty]
    values = np.asarray(shown[column].astype("float64"))
    if not np.isfinite(values).any():
        raise InputError(f"column {column!r} holds no value", "at least one number")
    crs = _local_crs(shown)
    drawn = shown.to_crs(crs)
    if kind == "class":
        level = 2 if np.nanmax(values) > 3 else 1
        classes = [
            (tr(f"unit.{c}", lang), COLOURS[c], values == c)
            for c in level_codes(level)
            if c not in (0, 10)
        ]
    else:
        if kind == "share":
            breaks: Sequence[float] = styles.SHARE_BREAKS
            colours: Sequence[tuple[int, int, int]] = styles.SHARE_COLOURS
        elif kind == "ratio":
            breaks, colours = styles.RATIO_BREAKS, styles.RATIO_COLOURS
        elif kind == "number":
            breaks, colours = _quantiles(values), styles.SHARE_COLOURS
        else:
            raise InputError(f"kind {kind!r}", "share, ratio, class or number")
        labels = styles.range_labels(breaks, lang, kind=kind)
        index = np.clip(np.digitize(values, breaks) - 1, 0, len(labels) - 1)
        finite = np.isfinite(values)
        classes = [
            (text, colour, finite & (index == i))
            for i, (text, colour) in enumerate(zip(labels, colours, strict=False))
        ]
        if kind in {"share", "number"}:
            classes = classes[::-1]
    missing = ~np.isfinite(values)
    if missing.any():
        words = tr("figure.no_ratio" if kind == "ratio" else "class.255", lang)
        classes.append((words, styles.MISSING_COLOUR, missing))
    with _page(title, lang, source, synthetic, subtitle) as figure:
        axes = _map_axes(figure, _extent(drawn.total_bounds))
        handles = []
        for text, colour, chosen in classes:
            if chosen.any():
                _fill(axes, drawn[chosen], _hex(colour))
            if chosen.any() or kind in {"ratio", "share"}:
                handles.append(
                    Patch(facecolor=_hex(colour), edgecolor="#6b7785", linewidth=0.5, label=text)
                )
        heading = styles.names([column], lang).get(column, column)
        _legend(figure, axes, handles, heading, lang)
        _furniture(figure, axes, lang)
        if len(drawn) <= max_labels:
            _unit_names(figure, axes, drawn, values, kind, lang)
        return _save(figure, path)


def _kind(column: str) -> str:
    if column.startswith("degurba"):
        return "class"
    if column.startswith("ratio"):
        return "ratio"
    if column.startswith("share") or column.endswith("share"):
        return "share"
    return "number"


def _quantiles(values: np.ndarray[Any, Any]) -> list[float]:
    bounds = np.unique(np.nanquantile(values, np.linspace(0, 1, 6)))
    if len(bounds) == 1:
        bounds = np.array([bounds[0], bounds[0] + 1])
    return [float(b) for b in bounds]


def _hex(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _painted(codes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return RGBA of class codes; transparent where there is none."""
    lookup = np.zeros((256, 4), np.uint8)
    for code, colour in COLOURS.items():
        lookup[code] = (*colour, 255)
    painted: np.ndarray[Any, Any] = lookup[codes]
    return painted


def _window_of_data(
    values: np.ndarray[Any, Any], box: Any, units: gpd.GeoDataFrame | None
) -> tuple[np.ndarray[Any, Any], Any, Any]:
    """Cut the raster to its data, and to the units with a margin where given."""
    from affine import Affine

    rows, cols = (np.nonzero((values != 255).any(axis=a))[0] for a in (1, 0))
    if not len(rows):
        raise InputError("all cells are without data", "classified cells", "check the input")
    r0, r1, c0, c1 = rows[0], rows[-1] + 1, cols[0], cols[-1] + 1
    t = box.transform
    if units is not None and len(units):
        left, bottom, right, top = units.to_crs(box.crs.proj).total_bounds
        margin = 0.03 * max(right - left, top - bottom)
        u0 = max(math.floor((top + margin - t.f) / t.e), r0)
        u1 = min(math.ceil((bottom - margin - t.f) / t.e), r1)
        v0 = max(math.floor((left - margin - t.c) / t.a), c0)
        v1 = min(math.ceil((right + margin - t.c) / t.a), c1)
        if u1 > u0 and v1 > v0:
            r0, r1, c0, c1 = u0, u1, v0, v1
        else:
            log.warning("units lie outside the cells: the map shows all cells")
    moved = Affine(t.a, t.b, t.c + c0 * t.a, t.d, t.e, t.f + r0 * t.e)
    return values[r0:r1, c0:c1].astype(np.uint8), moved, box.crs.proj


def _upright(
    values: np.ndarray[Any, Any], transform: Any, crs: Any
) -> tuple[np.ndarray[Any, Any], tuple[float, float, float, float], Any]:
    """Warp classes to a projection about their centre (nearest neighbour)."""
    from rasterio.warp import transform_bounds

    height, width = values.shape
    left, top = transform.c, transform.f
    right, bottom = left + width * transform.a, top + height * transform.e
    extent = (left, right, bottom, top)
    lonlat = _lonlat(np.array([(left + right) / 2]), np.array([(bottom + top) / 2]), crs)
    # a continent is as skewed about its centre as in the grid's own projection
    if not np.isfinite(lonlat).all() or max(right - left, top - bottom) > 6e6:
        step = max(1, math.ceil(max(height, width) / _RASTER_PIXELS))
        return values[::step, ::step], extent, crs
    target = _laea(lonlat[0][0], lonlat[1][0])
    box = transform_bounds(crs.to_wkt(), target.to_wkt(), left, bottom, right, top, densify_pts=51)
    picture, (left, right, bottom, top), _ = _warped(values, transform, crs, target, box)
    size = (right - left) / picture.shape[1]
    rows, cols = (np.nonzero((picture != 255).any(axis=a))[0] for a in (1, 0))
    r0, r1, c0, c1 = rows[0], rows[-1] + 1, cols[0], cols[-1] + 1
    cut = (left + c0 * size, left + c1 * size, top - r1 * size, top - r0 * size)
    return picture[r0:r1, c0:c1], cut, target


def around(focus: gpd.GeoDataFrame) -> tuple[Any, tuple[float, float, float, float]]:
    """Return a projection about polygons, and their box with room for suburbs and names.

    Parameters
    ----------
    focus
        Polygons; any CRS.

    Returns
    -------
    pyproj.CRS
        Lambert's azimuthal equal-area projection about their centre, metres.
    tuple
        left, bottom, right, top in it: a fifth of the longer side is added, at least 15 km.
    """
    crs = _local_crs(focus)
    left, bottom, right, top = (float(v) for v in focus.to_crs(crs).total_bounds)
    room = max(15_000.0, 0.2 * max(right - left, top - bottom))
    return crs, (left - room, bottom - room, right + room, top + room)


def _warped(
    values: np.ndarray[Any, Any],
    transform: Any,
    crs: Any,
    target: Any,
    box: tuple[float, float, float, float],
) -> tuple[np.ndarray[Any, Any], tuple[float, float, float, float], Any]:
    """Warp classes into a box of another projection (nearest neighbour)."""
    from affine import Affine
    from rasterio.warp import Resampling, reproject

    left, bottom, right, top = box
    size = max(right - left, top - bottom) / _RASTER_PIXELS
    shape = (math.ceil((top - bottom) / size), math.ceil((right - left) / size))
    picture = np.full(shape, 255, np.uint8)
    reproject(
        values.astype(np.uint8, copy=False),
        picture,
        src_transform=transform,
        src_crs=crs.to_wkt(),
        dst_transform=Affine(size, 0, left, 0, -size, top),
        dst_crs=target.to_wkt(),
        src_nodata=255,
        dst_nodata=255,
        resampling=Resampling.nearest,
    )
    return picture, (left, left + shape[1] * size, top - shape[0] * size, top), target


def _lonlat(x: Any, y: Any, crs: Any) -> Any:
    import pyproj

    transformer = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    return np.array(transformer.transform(x, y))


def _laea(longitude: float, latitude: float) -> Any:
    """Return Lambert's azimuthal equal-area projection about a point, metres."""
    import pyproj

    return pyproj.CRS.from_proj4(
        f"+proj=laea +lat_0={latitude:.4f} +lon_0={longitude:.4f} +datum=WGS84 +units=m +no_defs"
    )


def _local_crs(layer: gpd.GeoDataFrame) -> Any:
    left, bottom, right, top = layer.total_bounds
    lon, lat = _lonlat(np.array([(left + right) / 2]), np.array([(bottom + top) / 2]), layer.crs)
    return _laea(float(lon[0]), float(lat[0]))


def _extent(bounds: Any) -> tuple[float, float, float, float]:
    left, bottom, right, top = (float(b) for b in bounds)
    margin = 0.02 * max(right - left, top - bottom)
    return left - margin, right + margin, bottom - margin, top + margin


def _map_axes(figure: Figure, extent: tuple[float, float, float, float]) -> Axes:
    axes = figure.add_axes((0.035, 0.075, 0.67, 0.8))
    axes.set_xlim(extent[0], extent[1])
    axes.set_ylim(extent[2], extent[3])
    axes.set_aspect("equal", adjustable="box", anchor="C")
    axes.set_facecolor("white")
    axes.set_axis_off()
    return axes


def _fill(axes: Axes, layer: gpd.GeoDataFrame, colour: str) -> None:
    layer.plot(ax=axes, color=colour, edgecolor="#5b6673", linewidth=0.6, aspect=None, zorder=2)


def _borders(axes: Axes, units: gpd.GeoDataFrame, crs: Any) -> None:
    """Draw borders, and pale what lies outside all units."""
    import geopandas as gpd
    import shapely

    width = 0.8 if len(units) < 100 else 0.35
    drawn = units.to_crs(crs)
    drawn.boundary.plot(ax=axes, color="#30363d", linewidth=width, aspect=None, zorder=3)
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    inside = shapely.union_all(shapely.make_valid(drawn.geometry.to_numpy()))
    outside = gpd.GeoSeries([shapely.box(left, bottom, right, top).difference(inside)], crs=crs)
    if not outside.is_empty.all():
        outside.plot(ax=axes, color="white", alpha=0.62, linewidth=0, aspect=None, zorder=2.5)


def _legend(figure: Figure, axes: Axes, handles: list[Any], heading: str, lang: str) -> None:
    legend = figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.725, 0.87),
        title=_wrapped(heading, 27),
        frameon=False,
        alignment="left",
        handlelength=1.5,
        handleheight=1.1,
        labelspacing=0.65,
        fontsize=11,
        title_fontproperties={"weight": "bold", "size": 12},
    )
    for text in legend.get_texts():
        text.set_text(_wrapped(text.get_text(), 30))


def _furniture(figure: Figure, axes: Axes, lang: str) -> None:
    """Draw scale bar and north arrow in the column beside the map."""
    left, right = axes.get_xlim()
    axes.apply_aspect()
    metres_per_pixel = (right - left) / axes.get_window_extent().width
    wanted = 0.16 * figure.bbox.width * metres_per_pixel
    power = 10 ** math.floor(math.log10(wanted))
    length = max(m * power for m in (1, 2, 5) if m * power <= wanted)
    share = length / metres_per_pixel / figure.bbox.width
    bar = figure.add_axes((0.73, 0.105, share, 0.012))
    bar.set_xlim(0, 2)
    bar.set_ylim(0, 1)
    bar.axis("off")
    bar.fill_between([0, 1], 0, 1, color=_TEXT, linewidth=0)
    bar.fill_between([0, 2], 0, 1, facecolor="none", edgecolor=_TEXT, linewidth=1)
    km = length / 1000
    digits = 0 if km >= 1 else 1
    figure.text(0.73, 0.127, "0", size=9, ha="center")
    unit = tr("unit.km", lang)
    figure.text(
        0.73 + share, 0.127, f"{number(km, lang, digits=digits)}{_THIN}{unit}", size=9, ha="center"
    )
    figure.text(
        0.93, 0.125, tr("figure.north", lang), size=12, weight="bold", ha="center", va="center"
    )
    arrow = figure.add_axes((0.92, 0.145, 0.02, 0.055))
    arrow.set_xlim(-1, 1)
    arrow.set_ylim(0, 1)
    arrow.axis("off")
    arrow.fill([-0.8, 0, 0], [0, 0.25, 1], color=_TEXT)
    arrow.fill([0.8, 0, 0], [0, 0.25, 1], facecolor="white", edgecolor=_TEXT, linewidth=1)


def _name_columns(columns: Any, lang: str) -> list[str]:
    wanted = [f"name_{lang}", "name", "name_ru", "name_kk", "name_en", "unit"]
    return [c for c in wanted if c in columns]


def place_names(table: pd.DataFrame, lang: str) -> list[str]:
    """Return a name for each row in a language: its own, else any it has."""
    import pandas as pd

    columns = _name_columns(table.columns, lang)
    if not columns:
        return [""] * len(table)
    found = table[columns].astype(object).replace("", None).bfill(axis=1).iloc[:, 0]
    names = ["" if pd.isna(v) else str(v) for v in found]
    # the row of the whole often has no name of its own
    return [tr("report.total", lang) if n == TOTAL else n for n in names]


def _centre_names(
    figure: Figure, axes: Axes, centres: gpd.GeoDataFrame, crs: Any, lang: str, limit: int
) -> None:
    if "population" in centres.columns:
        centres = centres.sort_values("population", ascending=False, kind="stable")
    drawn = centres.to_crs(crs)
    drawn.boundary.plot(ax=axes, color="#4a0010", linewidth=0.7, aspect=None, zorder=4)
    points = drawn.geometry.representative_point()
    texts, places = [], []
    people = drawn["population"] if "population" in drawn.columns else [None] * len(drawn)
    for name, count, point in zip(place_names(drawn, lang), people, points, strict=True):
        parts = [name, number(count, lang) if count is not None else ""]
        text = "\n".join(p for p in parts if p)
        if text and name:
            texts.append(text)
            places.append((point.x, point.y))
    _place_labels(figure, axes, texts[:limit], places[:limit], size=9.5)


def _unit_names(
    figure: Figure,
    axes: Axes,
    drawn: gpd.GeoDataFrame,
    values: np.ndarray[Any, Any],
    kind: str,
    lang: str,
) -> None:
    points = drawn.geometry.representative_point()
    # big units first: their names have room, small ones take what is left
    order = np.argsort(-np.asarray(drawn.area), kind="stable")
    titles = place_names(drawn, lang)
    texts, places = [], []
    for i in order:
        value = values[i]
        shown = {
            "share": percent(value, lang),
            "ratio": number(value, lang, digits=2),
            "class": "",
        }.get(kind, number(value, lang))
        text = "\n".join(t for t in (_wrapped(titles[i], 18), shown) if t)
        if text:
            texts.append(text)
            places.append((points.iloc[i].x, points.iloc[i].y))
    _place_labels(figure, axes, texts, places, size=8.5, centred=True)


def _place_labels(
    figure: Figure,
    axes: Axes,
    texts: Sequence[str],
    places: Sequence[tuple[float, float]],
    *,
    size: float,
    centred: bool = False,
) -> int:
    """Write names so that none overlaps another; return how many had no room.

    Each name, in the given order, takes the first free place around its point.
    """
    from matplotlib.patheffects import withStroke

    frame = axes.get_window_extent()
    # names may leave the map for the white beside it, but not reach the legend
    room = (0.02 * figure.bbox.width, frame.y0, 0.715 * figure.bbox.width, frame.y1)
    taken: list[tuple[float, float, float, float]] = []
    pixels: Any = axes.transData.transform(places) if len(places) else []
    dropped = 0
    for text, (x, y) in zip(texts, pixels, strict=True):
        label = figure.text(0, 0, text, size=size, weight="bold", linespacing=1.05, zorder=9)
        extent = label.get_window_extent()
        w, h = extent.width, extent.height
        outward = math.atan2(y - (frame.y0 + frame.y1) / 2, x - (frame.x0 + frame.x1) / 2)
        for cx, cy, far in _spots(x, y, w, h, outward, centred):  # noqa: B007  (used below)
            spot = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
            inside = (
                spot[0] >= room[0]
                and spot[1] >= room[1]
                and spot[2] <= room[2]
                and spot[3] <= room[3]
            )
            if inside and not any(_overlap(spot, other) for other in taken):
                break
        else:
            label.remove()
            dropped += 1
            continue
        taken.append(spot)
        to_page = figure.transFigure.inverted().transform
        at = to_page((cx, cy))
        label.set(x=at[0], y=at[1], ha="center", va="center", multialignment="center")
        label.set_path_effects([withStroke(linewidth=2.6, foreground="white")])
        if far:
            _leader(figure, to_page((x, y)), to_page(_edge(spot, x, y)))
    if dropped:
        log.info("%d of %d names left out of the map: no room", dropped, len(texts))
    return dropped


def _spots(
    x: float, y: float, w: float, h: float, outward: float, centred: bool
) -> Iterator[tuple[float, float, bool]]:
    """Yield centres for a name, best first; those far off need a line to the point."""
    if centred:
        near = [(0.0, 0.0), (0, 0.5), (0, -0.5), (0.35, 0), (-0.35, 0)]
        yield from ((x + dx * w, y + dy * h, False) for dx, dy in near)
    else:
        around = [(1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1.4), (0, -1.4), (1.2, 0), (-1.2, 0)]
        yield from ((x + dx * (w / 2 + 5), y + dy * (h / 2 + 5), False) for dx, dy in around)
    for radius in (50, 80, 120, 170, 230, 300):
        for turn in (0, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 6):
            angle = outward + turn * math.pi / 6
            dx, dy = math.cos(angle), math.sin(angle)
            yield x + dx * (radius + w / 2), y + dy * (radius + h / 2), True


def _edge(spot: tuple[float, float, float, float], x: float, y: float) -> tuple[float, float]:
    """Return the point of a box that is nearest to a point."""
    return min(max(x, spot[0]), spot[2]), min(max(y, spot[1]), spot[3])


def _leader(figure: Figure, start: Any, end: Any) -> None:
    """Draw a line from a place to its name, with a dot at the place."""
    from matplotlib.lines import Line2D

    line = Line2D(
        [start[0], end[0]], [start[1], end[1]], transform=figure.transFigure, color=_TEXT,
        linewidth=0.8, marker="o", markersize=3, markevery=[0], zorder=8,
    )  # fmt: skip
    figure.add_artist(line)


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] + 5 and b[0] < a[2] + 5 and a[1] < b[3] + 3 and b[1] < a[3] + 3


# --- charts -----------------------------------------------------------------------


def _require(table: pd.DataFrame, subject: str, columns: Sequence[str]) -> None:
    problems = Problems(subject)
    for column in columns:
        if column not in table.columns:
            problems.add(f"no column {column!r}", "the columns " + ", ".join(columns))
    if not len(table):
        problems.add("no rows", "at least one row")
    problems.raise_if_any()


def epoch_rank(rates: pd.DataFrame) -> np.ndarray[Any, Any]:
    """Return the place of each row's epoch in time, from 0; rows without one are first."""
    import pandas as pd

    if "epoch" not in rates.columns:
        return np.zeros(len(rates), dtype=np.int64)
    epochs = [None if pd.isna(e) else e for e in rates["epoch"]]
    # years before names such as "2040 high"
    known = sorted({e for e in epochs if e is not None}, key=lambda e: (isinstance(e, str), e))
    rank = {None: 0, **{e: i for i, e in enumerate(known)}}
    return np.array([rank[e] for e in epochs], dtype=np.int64)


def last_epoch(rates: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the newest epoch; all where there is no epoch."""
    rank = epoch_rank(rates)
    newest: pd.DataFrame = rates[rank == rank.max(initial=0)]
    return newest


def is_total(rates: pd.DataFrame, total: str | None) -> np.ndarray[Any, Any]:
    """Tell which rows stand for the whole: those whose unit is ``total``."""
    if total is None or "unit" not in rates.columns:
        return np.zeros(len(rates), dtype=bool)
    return np.asarray(rates["unit"].astype(str) == str(total))


def chart_rates(
    rates: pd.DataFrame,
    *,
    path: str | Path,
    lang: str = "en",
    title: str | None = None,
    source: str = "",
    subtitle: str = "",
    synthetic: bool = False,
    total: str | None = TOTAL,
) -> Path:
    """Draw the official beside the functional urban share of each unit.

    Parameters
    ----------
    rates
        ``unit``, ``official_share`` and ``urban_share`` (0–1), optional
        ``epoch`` (the newest is drawn), ``name_kk``, ``name_ru``, ``name_en``.
    title, path, lang, source, subtitle, synthetic
        As for :func:`map_cells`.
    total
        Value of ``unit`` in the row of the whole, which is set apart.

    Returns
    -------
    pathlib.Path
        The file written.

    Raises
    ------
    InputError
        When a column is absent or there are no rows.

    Notes
    -----
    Of more than :data:`MAX_ROWS` units the most populous are drawn, and the
    picture says so.
    """
    _require(rates, "rates", ["unit", "urban_share"])
    table = last_epoch(rates).reset_index(drop=True)
    whole = is_total(table, total)
    table = table.assign(_total=whole, _name=place_names(table, lang))
    if "official_share" not in table.columns:
        table = table.assign(official_share=np.nan)
    units, cut = _most_populous(table[~table["_total"]])
    units = units.sort_values(["urban_share", "unit"], kind="stable", na_position="first")
    import pandas as pd

    rows = pd.concat([table[table["_total"]], units], ignore_index=True)
    note = tr("chart.largest", lang, shown=len(units), all=cut) if cut else ""
    with _page(
        title or tr("chart.rates.title", lang), lang, source, synthetic, _joined(subtitle, note)
    ) as figure:
        axes = figure.add_axes((0.235, 0.115, 0.6, 0.72))
        y = np.arange(len(rows), dtype=float)
        y[np.asarray(~rows["_total"])] += 0.4 * bool(rows["_total"].any())
        official = np.asarray(rows["official_share"].astype("float64")) * 100
        functional = np.asarray(rows["urban_share"].astype("float64")) * 100
        for value in y[np.asarray(rows["_total"])]:
            axes.axhspan(value - 0.5, value + 0.5, color="#eef1f4", zorder=0)
        axes.hlines(y, official, functional, color="#b8c0c9", linewidth=3, zorder=1)
        size = 90 if len(rows) <= 20 else 55
        axes.scatter(
            official, y, s=size, color=_OFFICIAL, zorder=3, label=tr("chart.official", lang)
        )
        axes.scatter(
            functional, y, s=size, color=_FUNCTIONAL, zorder=3, label=tr("chart.functional", lang)
        )
        small = 9.5 if len(rows) <= 20 else 8
        for value, a, b in zip(y, official, functional, strict=True):
            _end_labels(axes, value, a, b, lang, small)
        _unit_axis(axes, y, list(rows["_name"]), list(rows["_total"]), len(rows))
        axes.set_xlim(-6, 106)
        _percent_axis(axes, lang)
        axes.set_xlabel(tr("chart.share_axis", lang), size=10.5)
        _key(figure, axes)
        return _save(figure, path)


def _end_labels(
    axes: Axes, y: float, official: float, functional: float, lang: str, size: float
) -> None:
    """Write both percentages outside the dumbbell."""
    pairs = [(official, _OFFICIAL), (functional, _FUNCTIONAL)]
    pairs = sorted((p for p in pairs if math.isfinite(p[0])), key=lambda p: p[0])
    for index, (value, colour) in enumerate(pairs):
        first = index == 0 and len(pairs) == 2
        axes.annotate(
            number(value, lang, digits=1),
            (value, y),
            xytext=(-8 if first else 8, 0),
            textcoords="offset points",
            ha="right" if first else "left",
            va="center",
            size=size,
            color=colour,
        )


def _most_populous(units: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Return at most MAX_ROWS units, and how many there were if some are cut."""
    if len(units) <= MAX_ROWS:
        return units, 0
    if "population" in units.columns:
        return units.nlargest(MAX_ROWS, "population"), len(units)
    return units.head(MAX_ROWS), len(units)


def _joined(*texts: str) -> str:
    return " · ".join(t for t in texts if t)


def _unit_axis(axes: Axes, y: Any, labels: list[str], whole: list[bool], rows: int) -> None:
    import textwrap

    size = 11 if rows <= 20 else 8.5
    short = [textwrap.shorten(t, 34, placeholder="…") for t in labels]
    axes.set_yticks(y, short, size=size)
    for text, bold in zip(axes.get_yticklabels(), whole, strict=True):
        text.set_fontweight("bold" if bold else "normal")
    axes.set_ylim(float(y[0]) - 0.7, float(y[-1]) + 0.7)
    axes.tick_params(axis="y", length=0, pad=8)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _percent_axis(axes: Axes, lang: str) -> None:
    axes.set_xticks(
        range(0, 101, 20), [percent(v / 100, lang, digits=0) for v in range(0, 101, 20)]
    )
    axes.grid(axis="x", color="#e4e8ec", linewidth=0.8)
    axes.set_axisbelow(True)


def _key(figure: Figure, axes: Axes, columns: int = 3) -> None:
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc="lower left",
        bbox_to_anchor=(axes.get_position().x0 - 0.008, axes.get_position().y1 + 0.002),
        ncols=columns,
        frameon=False,
        fontsize=11,
        handletextpad=0.4,
        columnspacing=1.8,
    )


def chart_sensitivity(
    table: pd.DataFrame,
    *,
    path: str | Path,
    lang: str = "en",
    column: str = "urban_share",
    title: str | None = None,
    source: str = "",
    subtitle: str = "",
    synthetic: bool = False,
    official: float | None = None,
) -> Path:
    """Draw how the urban share hangs on the definition: range of each choice.

    Parameters
    ----------
    table
        Of :func:`qala.sensitivity`; one row a variant: ``variant`` ("default" for
        the definition as used), ``threshold`` (a field of
        :class:`qala.rules.CellRules`, or ``ruleset``), ``value`` (what it was set
        to) and ``column``.
    column
        A share, 0–1.
    official
        The official share, drawn as a line where given.
    title, path, lang, source, subtitle, synthetic
        As for :func:`map_cells`.

    Returns
    -------
    pathlib.Path
        The file written.

    Raises
    ------
    InputError
        When a column, the default row or every variant is absent.
    """
    _require(table, "sensitivity", ["variant", "threshold", "value", column])
    is_base = np.asarray(table["variant"].astype(str) == "default")
    if not is_base.any() or is_base.all():
        raise InputError(
            "sensitivity table without default or variants", "a row 'default' and others"
        )
    base = float(table[column][is_base].iloc[0])
    groups = []
    for name, rows in table[~is_base].groupby("threshold", sort=False):
        found = [
            (float(v) * 100, str(x) if name == "ruleset" else _setting(x, lang))
            for x, v in zip(rows["value"], rows[column], strict=True)
            if math.isfinite(float(v))
        ]
        if found:
            ends = [v for v, _ in found] + [base * 100]
            groups.append((max(ends) - min(ends), str(name), found))
    groups.sort(key=lambda g: (g[0], g[1]))
    groups = groups[-MAX_ROWS:]
    with _page(
        title or tr("chart.sensitivity.title", lang), lang, source, synthetic, subtitle
    ) as figure:
        axes = figure.add_axes((0.285, 0.115, 0.65, 0.72))
        y = np.arange(len(groups), dtype=float)
        for at, (_, _, found) in zip(y, groups, strict=True):
            ends = [v for v, _ in found] + [base * 100]
            axes.barh(at, max(ends) - min(ends), left=min(ends), height=0.42, color="#f0b8bf")
            axes.scatter(
                [v for v, _ in found], [at] * len(found), s=48, color=_FUNCTIONAL, zorder=3
            )
        axes.axvline(base * 100, color=_FUNCTIONAL, linewidth=1.6, zorder=2)
        marks = [(base * 100, tr("chart.base", lang, value=percent(base, lang)), _FUNCTIONAL)]
        if official is not None and math.isfinite(official):
            axes.axvline(official * 100, color=_OFFICIAL, linewidth=1.6, linestyle=(0, (4, 3)))
            text = tr("chart.official_value", lang, value=percent(official, lang))
            marks.append((official * 100, text, _OFFICIAL))
        values = [v for _, _, f in groups for v, _ in f] + [m[0] for m in marks]
        span = max(max(values) - min(values), 2.0)
        axes.set_xlim(min(values) - 0.14 * span, max(values) + 0.14 * span)
        _marks(axes, marks)
        for at, (_, _, found) in zip(y, groups, strict=True):
            _variant_labels(axes, at, found)
        labels = [_parameter(name, lang) for _, name, _ in groups]
        _unit_axis(axes, y, labels, [False] * len(y), len(y))
        axes.grid(axis="x", color="#e4e8ec", linewidth=0.8)
        axes.set_axisbelow(True)
        from matplotlib.ticker import FuncFormatter, MaxNLocator

        axes.xaxis.set_major_locator(MaxNLocator(8))
        digits = 0 if span > 6 else 1
        axes.xaxis.set_major_formatter(
            FuncFormatter(lambda v, _: percent(v / 100, lang, digits=digits))
        )
        axes.set_xlabel(tr("chart.functional_axis", lang), size=10.5)
        return _save(figure, path)


def _marks(axes: Axes, marks: list[tuple[float, str, str]]) -> None:
    """Name vertical lines above the chart, each on its own line of text if they are close."""
    low, high = axes.get_xlim()
    for index, (value, text, colour) in enumerate(marks):
        right = (value - low) / (high - low) > 0.6
        axes.annotate(
            text,
            (value, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 5 + 16 * index),
            textcoords="offset points",
            ha="right" if right else "left",
            size=11,
            weight="bold",
            color=colour,
        )


def _variant_labels(axes: Axes, y: float, found: list[tuple[float, str]]) -> None:
    """Write the settings below their dots; settings with close results share a text."""
    merged: list[tuple[list[float], list[str]]] = []
    low, high = axes.get_xlim()
    for value, text in sorted(found):
        if merged and value - merged[-1][0][-1] < 0.075 * (high - low):
            merged[-1][0].append(value)
            merged[-1][1].append(text)
        else:
            merged.append(([value], [text]))
    for values, texts in merged:
        axes.annotate(
            " / ".join(dict.fromkeys(texts)), (float(np.mean(values)), y - 0.23), xytext=(0, -2),
            textcoords="offset points", ha="center", va="top", size=9, color=_MUTED, zorder=5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )  # fmt: skip


def _setting(value: Any, lang: str) -> str:
    if value is None or value is False or str(value) in {"None", "False", "none", "off", ""}:
        return tr("chart.without", lang)
    try:
        amount = float(value)
    except (TypeError, ValueError):
        return str(value)
    digits = 0 if amount == round(amount) else 2
    return number(amount, lang, digits=digits)


def _parameter(name: str, lang: str) -> str:
    from qala.messages import catalog

    key = f"parameter.{name}"
    return tr(key, lang) if key in catalog() else name


def chart_change(
    rates: pd.DataFrame,
    *,
    path: str | Path,
    lang: str = "en",
    title: str | None = None,
    source: str = "",
    subtitle: str = "",
    synthetic: bool = False,
    total: str | None = TOTAL,
) -> Path:
    """Draw what changed the urban population between the last two epochs.

    Parameters
    ----------
    rates
        ``unit``, ``growth_inside``, ``new_footprint``, ``reclassification`` (people
        since the earlier epoch), optional ``epoch`` (the newest is drawn) and names.
    title, path, lang, source, subtitle, synthetic, total
        As for :func:`chart_rates`.

    Returns
    -------
    pathlib.Path
        The file written.

    Raises
    ------
    InputError
        When a column is absent or no row has a change.
    """
    _require(rates, "rates", ["unit", *_PARTS])
    table = last_epoch(rates)
    table = table[table[list(_PARTS)].notna().any(axis=1)].reset_index(drop=True)
    if not len(table):
        raise InputError("rates hold no change", "at least two epochs")
    table = table.assign(_total=is_total(table, total), _name=place_names(table, lang))
    # the whole would dwarf its parts: it is told in words
    units, cut = _most_populous(table[~table["_total"]])
    if not len(units):
        units = table
    parts = units[list(_PARTS)].fillna(0.0).astype("float64")
    order = np.argsort(np.asarray(parts.sum(axis=1)), kind="stable")
    units, parts = units.iloc[order], parts.iloc[order]
    largest = float(np.abs(parts.to_numpy()).max())
    scale, unit = (1e3, "chart.thousand_people") if largest >= 20_000 else (1.0, "chart.people")
    note = tr("chart.largest", lang, shown=len(units), all=cut) if cut else ""
    whole = table[table["_total"]]
    if len(whole):
        change = float(whole[list(_PARTS)].fillna(0.0).sum(axis=1).iloc[0])
        note = _joined(
            tr(
                "chart.change.total", lang, name=whole["_name"].iloc[0], value=_signed(change, lang)
            ),
            note,
        )
    with _page(
        title or tr("chart.change.title", lang), lang, source, synthetic, _joined(subtitle, note)
    ) as figure:
        axes = figure.add_axes((0.235, 0.115, 0.68, 0.72))
        y = np.arange(len(units), dtype=float)
        ups, downs = np.zeros(len(units)), np.zeros(len(units))
        for name, colour in _PARTS.items():
            values = parts[name].to_numpy() / scale
            left = np.where(values >= 0, ups, downs)
            axes.barh(
                y, values, left=left, height=0.62, color=colour, label=tr(f"column.{name}", lang)
            )
            ups += np.maximum(values, 0)
            downs += np.minimum(values, 0)
        axes.axvline(0, color=_TEXT, linewidth=1)
        for at, value, end in zip(y, parts.sum(axis=1) / scale, ups, strict=True):
            axes.annotate(
                _signed(float(value), lang, digits=1 if scale > 1 else 0), (end, at),
                xytext=(6, 0), textcoords="offset points", va="center", size=9, color=_TEXT,
            )  # fmt: skip
        low, high = float(downs.min()), float(ups.max())
        span = max(high - low, 1e-9)
        axes.set_xlim(low - 0.04 * span, high + 0.12 * span)
        _unit_axis(axes, y, list(units["_name"]), [False] * len(y), len(y))
        from matplotlib.ticker import FuncFormatter

        axes.xaxis.set_major_formatter(
            FuncFormatter(lambda v, _: number(v, lang, digits=_digits(span)))
        )
        axes.grid(axis="x", color="#e4e8ec", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_xlabel(tr(unit, lang), size=10.5)
        _key(figure, axes)
        return _save(figure, path)


def _digits(span: float) -> int:
    return 0 if span >= 5 else 1 if span >= 0.5 else 2


def _signed(value: float, lang: str, *, digits: int = 0) -> str:
    text = number(value, lang, digits=digits)
    return text if value <= 0 or not text.strip("0.,") else "+" + text
