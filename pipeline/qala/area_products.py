"""Products of functional urban areas: the map, the picture of sensitivity, layers."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qala.commuting import Calibration
from qala.errors import InputError
from qala.fua import Areas
from qala.fua_reports import desire_lines
from qala.messages import LANGUAGES, in_languages, tr

if TYPE_CHECKING:
    from collections.abc import Iterable

    import geopandas as gpd
    import pandas as pd

    from qala.network import Network

log = logging.getLogger("qala")

#: colours of areas in turn, largest area first; cores are drawn darker
_PALETTE = (
    "#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#9c755f", "#d4a017", "#e15759", "#499894",
    "#d37295", "#79706e", "#86bc25", "#6b6ecf",
)  # fmt: skip
#: segments of the road layer at most: such a layer has some 15 MB
MOST_ROADS = 50_000
#: dark near to light far (ColorBrewer YlGnBu)
_BANDS = (
    (8, 64, 129), (43, 140, 190), (123, 204, 196), (186, 228, 188), (224, 243, 219),
    (240, 249, 232),
)  # fmt: skip
#: bounds of the classes of minutes to a centre
_MINUTES = (0, 15, 30, 60, 90, 120)
_SPEEDS = (0, 20, 40, 60, 80, 130)
_SPEED_COLOURS = ((165, 15, 21), (222, 85, 50), (253, 174, 97), (145, 191, 110), (26, 120, 70))
#: below this share of agreeing variants a unit is drawn as unsure; of the Belgian communes told
#: so by an estimate, a quarter are wrong, of the others one in fifteen (docs/functional-areas.md)
UNSURE = 0.8


# --- map ------------------------------------------------------------------------------


def map_areas(
    areas: Areas,
    units: gpd.GeoDataFrame,
    *,
    title: str,
    path: str | Path,
    lang: str = "en",
    source: str = "",
    subtitle: str = "",
    synthetic: bool = False,
    roads: gpd.GeoDataFrame | None = None,
    max_labels: int = 30,
) -> Path:
    """Draw areas with their cities, commuting zones, and the units that are unsure.

    Parameters
    ----------
    areas
        Result of :func:`qala.fua.functional_areas` or an isochrone.
    units
        The units, in the order of the membership.
    title, path, lang, source, subtitle, synthetic
        As for :func:`qala.figures.map_cells`.
    roads
        Lines with ``class`` (:func:`main_roads`); trunk and primary roads are drawn.
    max_labels
        Areas named at most, the most populous first.

    Returns
    -------
    pathlib.Path
        The PNG written.
    """
    from matplotlib.colors import to_rgb
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    from qala import figures

    crs = figures._local_crs(units)
    drawn = units.to_crs(crs)
    role = areas.membership["role"].to_numpy()
    area = areas.membership["area"].to_numpy()
    order = areas.areas.sort_values("population", ascending=False)
    colour = {a: _PALETTE[i % len(_PALETTE)] for i, a in enumerate(order["area"])}

    def shade(name: str, light: float) -> tuple[float, ...]:
        return tuple(1 - (1 - v) * light for v in to_rgb(colour[name]))

    fill = [
        (0.945, 0.945, 0.93) if r == "outside" else shade(a, 1.0 if r == "core" else 0.45)
        for r, a in zip(role, area, strict=True)
    ]
    with figures._page(title, lang, source, synthetic, subtitle) as figure:
        axes = figures._map_axes(figure, _window(drawn, role))
        thin = 0.25 if len(units) > 100 else 0.5
        drawn.plot(ax=axes, color=fill, edgecolor="white", linewidth=thin, aspect=None, zorder=2)
        handles: list[Any] = [
            Patch(facecolor=shade(a, 1.0), label=tr("role.core", lang)) for a in order["area"][:1]
        ]
        handles += [
            Patch(facecolor=shade(a, 0.45), label=tr("role.zone", lang)) for a in order["area"][:1]
        ]
        handles.append(
            Patch(facecolor="#f1f1ed", edgecolor="#c5ccd3", label=tr("role.outside", lang))
        )
        if "stability" in areas.membership.columns:
            unsure = (areas.membership["stability"] < UNSURE).to_numpy() & (role != "core")
            if unsure.any():
                drawn[unsure].plot(
                    ax=axes, facecolor="none", edgecolor="#44505c", linewidth=0, hatch="////",
                    aspect=None, zorder=2.5,
                )  # fmt: skip
                handles.append(
                    Patch(
                        facecolor="white",
                        edgecolor="#44505c",
                        hatch="////",
                        label=tr(
                            "areas.unsure", lang, share=figures.percent(UNSURE, lang, digits=0)
                        ),
                    )
                )
        if len(areas.areas):
            areas.areas.to_crs(crs).boundary.plot(
                ax=axes, color="#1f2933", linewidth=1.0, aspect=None, zorder=3
            )
        if roads is not None:
            main = roads[roads["class"].str.contains("motorway|trunk|primary")].to_crs(crs)
            if len(main):
                main.plot(ax=axes, color="#8a5a2b", linewidth=0.9, aspect=None, zorder=2.8)
                handles.append(
                    Line2D([], [], color="#8a5a2b", lw=1.2, label=tr("areas.main_roads", lang))
                )
        heading = tr(f"areas.legend_{kind_of(areas)}", lang)
        figures._legend(figure, axes, handles, heading, lang)
        figures._furniture(figure, axes, lang)
        if areas.sensitivity is not None and len(areas.sensitivity.joined):
            # one area or two is what planners ask of near cities
            told = areas.sensitivity.joined["verdict"].head(2)
            note = "\n\n".join(figures._wrapped(text, 38) for text in told)
            figure.text(0.735, 0.56, note, size=9.3, va="top", color="#44505c", linespacing=1.35)
        cores = areas.cores.to_crs(crs).set_index("area")
        texts, places = [], []
        for row in order.head(max_labels).itertuples():
            if row.area not in cores.index:
                continue
            # the city's largest part, so that the name stands on it
            point = max(
                getattr(cores.geometry[row.area], "geoms", [cores.geometry[row.area]]),
                key=lambda g: g.area,
            ).representative_point()
            texts.append(f"{row.name}\n{figures.number(row.population, lang)}")
            places.append((point.x, point.y))
        figures._place_labels(figure, axes, texts, places, size=9.5)
        return figures._save(figure, path)


def _window(drawn: gpd.GeoDataFrame, role: Any) -> tuple[float, float, float, float]:
    """Return the extent of the areas with room around them, or of all units if there are none."""
    from qala import figures

    whole = drawn.total_bounds
    inside = drawn[role != "outside"]
    if not len(inside):
        return figures._extent(whole)
    left, bottom, right, top = inside.total_bounds
    room = 0.12 * max(right - left, top - bottom)
    return figures._extent(
        (
            max(left - room, whole[0]),
            max(bottom - room, whole[1]),
            min(right + room, whole[2]),
            min(top + room, whole[3]),
        )
    )


def kind_of(areas: Areas) -> str:
    """Return the kind of areas that titles tell: flows, estimated, isochrone or cellwise."""
    method = str(areas.settings["method"])
    return "estimated" if method.startswith("huff") else method


def chart_area_sensitivity(
    areas: Areas,
    *,
    path: str | Path,
    lang: str = "en",
    source: str = "",
    title: str = "",
    synthetic: bool = False,
) -> Path:
    """Draw the share of people in areas over thresholds, with a band for β.

    Parameters
    ----------
    areas
        Result of :func:`qala.fua_reports.area_sensitivity`.
    path, lang, source, title, synthetic
        As for :func:`map_areas`.

    Returns
    -------
    pathlib.Path
        The PNG written.

    Raises
    ------
    InputError
        When the areas carry no sensitivity.
    """
    from qala import figures
    from qala.figures import number, percent

    if areas.sensitivity is None:
        raise InputError("the areas carry no sensitivity", "the result of area_sensitivity")
    table = areas.sensitivity.variants
    heading = title or tr("areas.sensitivity_title", lang)
    with figures._page(heading, lang, source, synthetic, "") as figure:
        axes = figure.add_axes((0.08, 0.12, 0.6, 0.74))
        forms = table.groupby(table["shape"].fillna(0), sort=False)
        for (shape, rows), colour in zip(forms, ("#c8102e", "#2a6f97", "#5b6b7b"), strict=False):
            by = rows.groupby("threshold")["population_share"]
            middle = rows[rows["beta_factor"] == 1.0].set_index("threshold")["population_share"]
            label = (
                tr("areas.sensitivity_given", lang)
                if not shape
                else tr(
                    "areas.sensitivity_form", lang, shape=number(shape, lang, digits=2),
                    low=number(rows["beta"].min(), lang, digits=3),
                    high=number(rows["beta"].max(), lang, digits=3),
                )
            )  # fmt: skip
            axes.fill_between(by.min().index, by.min(), by.max(), color=colour, alpha=0.18, lw=0)
            axes.plot(middle.index, middle, color=colour, lw=2.2, marker="o", label=label)
        base = areas.membership
        inside = base.loc[base["role"] != "outside", "population"].sum()
        axes.plot(
            [areas.settings["threshold"]], [inside / base["population"].sum()], marker="o", ms=13,
            mfc="none", mec="#1f2933", mew=2, ls="", label=tr("areas.sensitivity_base", lang),
        )  # fmt: skip
        ticks = sorted(table["threshold"].unique())
        axes.set_xticks(ticks, [percent(v, lang, digits=0) for v in ticks])
        axes.set_ylim(0, 1)
        axes.set_yticks(
            np.linspace(0, 1, 6), [percent(v, lang, digits=0) for v in np.linspace(0, 1, 6)]
        )
        axes.set_xlabel(tr("areas.sensitivity_x", lang))
        axes.set_ylabel(tr("areas.sensitivity_y", lang))
        axes.grid(axis="y", color="#e4e8ec")
        axes.spines[["top", "right"]].set_visible(False)
        handles, labels = axes.get_legend_handles_labels()
        labels = [figures._wrapped(text, 34) for text in labels]
        figure.legend(
            handles, labels, loc="upper left", bbox_to_anchor=(0.7, 0.87), frameon=False,
            labelspacing=1.0,
        )  # fmt: skip
        return figures._save(figure, path)


# --- layers ---------------------------------------------------------------------------


def layers_of(
    areas: Areas,
    units: gpd.GeoDataFrame,
    *,
    id: str,
    points: gpd.GeoSeries | None = None,
    minimum_flow: float = 100.0,
    rates: pd.DataFrame | None = None,
    calibration: Calibration | None = None,
    isochrones: gpd.GeoDataFrame | None = None,
    roads: gpd.GeoDataFrame | None = None,
    outlines: gpd.GeoDataFrame | None = None,
) -> dict[str, Any]:
    """Return the layers of a GeoPackage: areas, cores, zones, membership, flows and tables.

    Titles and legends are in every language.

    Parameters
    ----------
    areas
        The result.
    units
        The units, in the order of the membership.
    id
        Column of unit ids.
    points
        Ends of the desire lines.
    minimum_flow
        Smaller flows into cities are not drawn, commuters.
    rates
        Table of :func:`qala.fua_reports.area_rates`.
    calibration
        Where the decay was fitted.
    isochrones
        Bands of travel time to the nearest city, with ``minutes``.
    roads
        From :func:`main_roads`.
    outlines
        Cells of a cell-wise estimate.

    Returns
    -------
    dict
        Layer name to :class:`qala.export.geopackage.Layer`.
    """
    import geopandas as gpd
    import pandas as pd

    from qala.export import styles
    from qala.export.geopackage import Layer

    shown = gpd.GeoDataFrame(
        areas.membership.copy(), geometry=units.geometry.to_numpy(), crs=units.crs
    )
    names = [c for c in units.columns if str(c).startswith("name") and c not in shown.columns]
    # the columns of a membership come first, in the order that readers of it expect
    after = shown.columns.get_loc("reason") + 1
    for position, column in enumerate(names):
        shown.insert(after + position, column, units[column].to_numpy())
    layers = {
        "areas": Layer(
            areas.areas, in_languages("areas.layer_areas"),
            style=styles.outline(colour=(31, 41, 51), stroke_mm=0.7, label='"name"'),
        ),
        "cores": Layer(
            areas.cores, in_languages("areas.layer_cores"),
            style=styles.outline(colour=(120, 0, 20), fill=(196, 30, 58), stroke_mm=0.3),
        ),
        "zones": Layer(
            areas.zones, in_languages("areas.layer_zones"),
            style=styles.outline(colour=(200, 120, 90), fill=(247, 182, 148), stroke_mm=0.3),
        ),
        "membership": Layer(
            shown, in_languages("areas.layer_membership"),
            style={k: _role_style(shown.columns, k) for k in LANGUAGES},
        ),
    }  # fmt: skip
    if areas.flows is not None:
        lines = desire_lines(
            areas.flows, units, points=points, minimum=minimum_flow, membership=areas.membership
        )
        if len(lines):
            key = "areas.layer_flows_estimated" if areas.flows.estimated else "areas.layer_flows"
            layers["flows"] = Layer(
                lines, in_languages(key), style=styles.outline(
                    colour=(60, 90, 160), geometry="LineString", stroke_mm=0.3, opacity=0.6
                ),
            )  # fmt: skip
    if outlines is not None and len(outlines):
        layers["cellwise"] = Layer(
            outlines, in_languages("areas.layer_cellwise"),
            style=styles.outline(colour=(90, 60, 140), fill=(200, 185, 225), opacity=0.7),
        )  # fmt: skip
    if roads is not None and len(roads):
        layers |= layer_of_roads(roads)
    if isochrones is not None and len(isochrones):
        layers["isochrones"] = Layer(
            isochrones, in_languages("areas.layer_isochrones"),
            style={k: _minutes_style(isochrones, k) for k in LANGUAGES},
        )  # fmt: skip
    tables: dict[str, tuple[pd.DataFrame | None, str]] = {
        "cities": (areas.cities, "areas.layer_cities"),
        "merges": (areas.merges, "areas.layer_merges"),
        "rates": (rates, "areas.layer_rates"),
    }
    if areas.sensitivity is not None:
        tables["sensitivity"] = (areas.sensitivity.variants, "areas.layer_sensitivity")
        tables["joined"] = (areas.sensitivity.joined, "areas.layer_joined")
    if calibration is not None:
        lines_of = calibration.report().splitlines()
        tables["calibration"] = (pd.DataFrame({"result": lines_of}), "areas.layer_calibration")
    for name, (table, key) in tables.items():
        if table is not None and len(table):
            layers[name] = Layer(table, in_languages(key), style="table")
    return layers


def _role_style(columns: Iterable[str], lang: str) -> str:
    """Return a style by the role of a unit."""
    from qala.export import styles

    roles = [
        ("core", tr("role.core", lang), (196, 30, 58)),
        ("zone", tr("role.zone", lang), (247, 182, 148)),
        ("outside", tr("role.outside", lang), (238, 238, 230)),
    ]
    return styles.categorised(
        "role", roles, stroke=(120, 120, 120), stroke_mm=0.15, aliases=styles.names(columns, lang)
    )


def _minutes_style(isochrones: gpd.GeoDataFrame, lang: str) -> str:
    """Return a style by band, the nearest darkest."""
    from qala.export import styles

    bands = sorted(set(isochrones["minutes"]))
    classes = [
        (band, tr("areas.minutes", lang, minutes=band), _BANDS[min(i, len(_BANDS) - 1)])
        for i, band in enumerate(bands)
    ]
    return styles.categorised("minutes", classes, opacity=0.6)


def _speed_style(lang: str) -> str:
    """Return a style by speed."""
    from qala.export import styles

    labels = [
        tr("areas.kmh", lang, low=low, high=high) for low, high in itertools.pairwise(_SPEEDS)
    ]
    return styles.graduated(
        "speed_kmh", _SPEEDS, _SPEED_COLOURS, labels, geometry="LineString", stroke_mm=0.4
    )


def layers_of_times(
    nearest: gpd.GeoDataFrame,
    pairs: pd.DataFrame,
    centres: gpd.GeoDataFrame | None,
    isochrones: gpd.GeoDataFrame,
    roads: gpd.GeoDataFrame,
) -> dict[str, Any]:
    """Return the layers of a GeoPackage of travel times, titles and legends in every language.

    Parameters
    ----------
    nearest
        Places with ``minutes`` to their nearest centre.
    pairs
        Long table of times.
    centres
        Points or polygons; None where they were cells.
    isochrones
        Bands with ``minutes``.
    roads
        From :func:`main_roads`.

    Returns
    -------
    dict
        Layer name to :class:`qala.export.geopackage.Layer`.
    """
    from qala.export import styles
    from qala.export.geopackage import Layer

    words = {k: {"centre": tr("times.centre", k)} for k in LANGUAGES}
    layers = {}
    if centres is not None:
        kind = "Point" if centres.geom_type.iloc[0] == "Point" else "Polygon"
        layers["centres"] = Layer(
            centres, in_languages("times.layer_centres"),
            style=styles.outline(colour=(196, 30, 58), geometry=kind),
        )  # fmt: skip
    layers["nearest"] = Layer(
        nearest, in_languages("times.layer_nearest"),
        style={k: _near_style(nearest, k, words[k]) for k in LANGUAGES},
    )  # fmt: skip
    layers |= layer_of_roads(roads)
    layers["isochrones"] = Layer(
        isochrones, in_languages("times.layer_isochrones"),
        style={k: _minutes_style(isochrones, k) for k in LANGUAGES},
    )  # fmt: skip
    layers["pairs"] = Layer(
        pairs, in_languages("times.layer_pairs"),
        style={
            k: styles.table({**styles.names(pairs.columns, k), **words[k]}) for k in LANGUAGES
        },
    )  # fmt: skip
    return layers


def _near_style(nearest: gpd.GeoDataFrame, lang: str, words: dict[str, str]) -> str:
    """Return a style of places by minutes to their centre, the nearest darkest."""
    from qala.export import styles

    breaks = (*_MINUTES, max(1.01 * _MINUTES[-1], float(nearest["minutes"].max())))
    labels = [tr("areas.minutes", lang, minutes=b) for b in _MINUTES[1:]]
    labels.append(tr("times.over", lang, minutes=_MINUTES[-1]))
    return styles.graduated(
        "minutes", breaks, _BANDS, labels, geometry="Point", stroke=None,
        missing=tr("times.unreached", lang),
        aliases={**styles.names(nearest.columns, lang), **words},
    )  # fmt: skip


def layer_of_roads(roads: gpd.GeoDataFrame) -> dict[str, Any]:
    """Return the roads of :func:`main_roads` as the one layer of a GeoPackage."""
    from qala.export.geopackage import Layer

    style: dict[str, str] = {k: _speed_style(k) for k in LANGUAGES}
    return {"network": Layer(roads, in_languages("areas.layer_network"), style=style)}


def main_roads(network: Network, *, most: int = MOST_ROADS) -> tuple[gpd.GeoDataFrame, str]:
    """Return the roads of a network as lines, the main ones where it is large.

    Parameters
    ----------
    network
        Roads.
    most
        Segments at most: classes are taken from motorways down while they fit; motorways and
        trunk roads are kept in any case.

    Returns
    -------
    tuple
        Lines as :func:`qala.network.network_layers` gives them, and the lowest class kept.
    """
    from qala.network import network_layers
    from qala.speeds import CLASS_CODE, CLASSES

    counts = np.cumsum(np.bincount(network.road, minlength=len(CLASSES)))
    last = max(int(np.searchsorted(counts, most, side="right")) - 1, CLASS_CODE["trunk_link"])
    lines = network_layers(network)
    kept = lines[network.road <= last]
    present = np.flatnonzero(np.bincount(network.road) > 0)
    lowest = CLASSES[int(present[present <= last].max())] if len(kept) else ""
    if len(kept) < len(lines):
        log.info(
            "layer network holds %d of %d segments, down to class %s",
            len(kept), len(lines), lowest,
        )  # fmt: skip
    return kept, lowest


def subtitle_of(areas: Areas, lang: str) -> str:
    """Return the rule in one line, as it stands below the map's title."""
    from qala.figures import number, percent

    settings = areas.settings
    if settings["method"] == "isochrone":
        return tr(
            "areas.subtitle_isochrone", lang, minutes=number(settings["minutes"], lang),
            people=number(settings["min_city"], lang),
        )  # fmt: skip
    if settings["method"] == "cellwise":
        return tr("areas.subtitle_cellwise", lang)
    limit = percent(settings["threshold"], lang, digits=0)
    if settings["method"] == "flows":
        return tr("areas.subtitle_flows", lang, limit=limit)
    return tr(
        "areas.subtitle_estimated", lang, limit=limit,
        beta=number(settings["beta"], lang, digits=3),
        shape=number(settings["shape"], lang, digits=2),
    )  # fmt: skip
