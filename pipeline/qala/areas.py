"""Functional urban areas as outputs: units of settlements, map, layers, and the recipe."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from qala.commuting import (
    REACH,
    Calibration,
    as_ids,
    calibrate,
    distances,
    flows_on_units,
    minutes,
    read_cores,
)
from qala.errors import InputError, Problems
from qala.fua import (
    CITY_SHARE,
    THRESHOLD,
    Areas,
    area_rates,
    area_sensitivity,
    cities_of,
    compare_areas,
    desire_lines,
    functional_areas,
    weighted_centres,
)
from qala.messages import tr
from qala.vector import some

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    import xarray as xr
    from scipy.sparse import csr_matrix

    from qala.network import Network

log = logging.getLogger("qala")

#: colours of areas in turn, largest area first; cores are drawn darker
_PALETTE = (
    "#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#9c755f", "#d4a017", "#e15759", "#499894",
    "#d37295", "#79706e", "#86bc25", "#6b6ecf",
)  # fmt: skip
#: below this share of agreeing variants a unit is drawn as unsure; of the Belgian communes told
#: so by an estimate, a quarter are wrong, of the others one in fifteen (docs/functional-areas.md)
UNSURE = 0.8


# --- units of settlements -----------------------------------------------------------


def settlement_units(
    places: gpd.GeoDataFrame,
    districts: gpd.GeoDataFrame,
    *,
    id: str,
    district: str,
    population: str = "population",
) -> gpd.GeoDataFrame:
    """Divide districts among their settlements, each point of land to the nearest.

    Districts of thousands of km² hold several towns and no commuting zone can be
    drawn from them. Where no finer borders are published, the land nearest to a
    settlement stands for it.

    Parameters
    ----------
    places
        Points with ``id``, ``district`` (of which they are counted) and
        ``population``; those without people are left out.
    districts
        Polygons with the column ``district``; any declared projected CRS.
    id
        Column of place ids, unique.
    district
        Column of district ids in both layers.
    population
        Column of people.

    Returns
    -------
    geopandas.GeoDataFrame
        All columns of the places, geometry in the CRS of the districts. A
        district without settlements is one unit, with no people.

    Raises
    ------
    InputError
        For ids that stand twice or places of unknown districts.
    """
    import geopandas as gpd
    import pandas as pd
    import shapely

    problems = Problems("settlements")
    twice = places[id][places[id].duplicated()]
    if len(twice):
        problems.add(f"{len(twice)} ids stand twice: {some(twice)}", "unique ids")
    known = set(districts[district])
    strange = places[~places[district].isin(known)]
    if len(strange):
        problems.add(
            f"{len(strange)} places are of unknown districts: {some(strange[id])}", "known ones"
        )
    problems.raise_if_any()
    people = pd.to_numeric(places[population], errors="coerce").fillna(0)
    lived = places[people > 0].to_crs(districts.crs)
    # two places at one point cannot both have land: the larger stands for both
    xy = pd.DataFrame({"x": lived.geometry.x.round(1), "y": lived.geometry.y.round(1)})
    order = lived.assign(**xy).sort_values(population, ascending=False)
    first = order.drop_duplicates(["x", "y"])
    sums = order.groupby(["x", "y"])[population].sum()
    first = first.assign(
        **{population: sums.loc[list(zip(first["x"], first["y"], strict=True))].to_numpy()}
    )
    if len(first) < len(lived):
        log.info("%d settlements share a point with another", len(lived) - len(first))
    parts = []
    for _, row in districts.iterrows():
        inside = first[first[district] == row[district]]
        if not len(inside):
            empty: dict[str, Any] = {c: None for c in places.columns if c != places.geometry.name}
            empty |= {id: f"{row[district]}-", district: row[district], population: 0.0}
            parts.append(gpd.GeoDataFrame([empty], geometry=[row.geometry], crs=districts.crs))
            continue
        points = shapely.multipoints(inside.geometry.to_numpy())
        cells: Any = shapely.get_parts(
            shapely.voronoi_polygons(points, extend_to=row.geometry, ordered=True)
        )
        land = shapely.intersection(cells if len(inside) > 1 else [row.geometry], row.geometry)
        kept = inside.drop(columns=["x", "y"]).set_geometry(
            gpd.GeoSeries(land, index=inside.index, crs=districts.crs)
        )
        parts.append(kept)
    units = pd.concat(parts, ignore_index=True)
    units = gpd.GeoDataFrame(units, geometry="geometry", crs=districts.crs)
    units = units[~units.geometry.is_empty]
    # an intersection may leave lines beside its polygons
    pieces, owner = shapely.get_parts(units.geometry.to_numpy(), return_index=True)
    solid = shapely.get_type_id(pieces) == shapely.GeometryType.POLYGON
    units.geometry = shapely.multipolygons(pieces[solid], indices=owner[solid])
    return units.sort_values(id, ignore_index=True)


# --- network times ------------------------------------------------------------------


def unit_seconds(
    network: Network, points: gpd.GeoSeries, *, max_minutes: float = REACH["min"]
) -> csr_matrix:
    """Return travel times between units on a network, in seconds.

    Parameters
    ----------
    network
        Roads, from :func:`qala.network.load_network` or its kin.
    points
        A point a unit, in any declared CRS.
    max_minutes
        Farther pairs are left out.

    Returns
    -------
    scipy.sparse.csr_matrix
        Units × units, seconds from row to column; pairs that are not reached
        are not stored.
    """
    import geopandas as gpd
    from scipy.sparse import csr_matrix

    from qala.travel import travel_times

    size = len(points)
    frame = gpd.GeoDataFrame(
        {"number": np.arange(size)}, geometry=points.to_numpy(), crs=points.crs
    )
    pairs = travel_times(
        network, frame, frame, max_minutes=max_minutes, origin_id="number",
        destination_id="number",
    ).pairs  # fmt: skip
    return csr_matrix(
        (
            np.maximum(pairs["seconds"].to_numpy(dtype=np.float64), 1e-3),
            (
                pairs["origin"].to_numpy(dtype=np.int64),
                pairs["centre"].to_numpy(dtype=np.int64),
            ),
        ),
        shape=(size, size),
    )


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
    max_labels
        Areas named at most, the most populous first.

    Returns
    -------
    pathlib.Path
        The PNG written.
    """
    from matplotlib.colors import to_rgb
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
        heading = tr(f"areas.legend_{_kind(areas)}", lang)
        figures._legend(figure, axes, handles, heading, lang)
        figures._furniture(figure, axes, lang)
        if areas.sensitivity is not None and len(areas.sensitivity.joined):
            # one area or two is what planners ask of near cities
            note = figures._wrapped(areas.sensitivity.joined["verdict"].iloc[0], 38)
            figure.text(0.735, 0.5, note, size=10, va="top", color="#44505c", linespacing=1.35)
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


def _kind(areas: Areas) -> str:
    method = str(areas.settings["method"])
    return "estimated" if method.startswith("huff") else method


def chart_area_sensitivity(
    areas: Areas, *, path: str | Path, lang: str = "en", source: str = "", title: str = ""
) -> Path:
    """Draw the share of people in areas over thresholds, with a band for β.

    Parameters
    ----------
    areas
        Result of :func:`qala.fua.area_sensitivity`.
    path, lang, source, title
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
    with figures._page(heading, lang, source, False, "") as figure:
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
    lang: str = "en",
) -> dict[str, Any]:
    """Return the layers of a GeoPackage: areas, cores, zones, membership, flows and tables.

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
        Table of :func:`qala.fua.area_rates`.
    calibration
        Where the decay was fitted.
    lang
        Language of titles and legends.

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
    for position, column in enumerate(names):
        shown.insert(1 + position, column, units[column].to_numpy())
    words = styles.names(shown.columns, lang)
    roles = [
        ("core", tr("role.core", lang), (196, 30, 58)),
        ("zone", tr("role.zone", lang), (247, 182, 148)),
        ("outside", tr("role.outside", lang), (238, 238, 230)),
    ]
    grey = (120, 120, 120)
    layers = {
        "areas": Layer(
            areas.areas, tr("areas.layer_areas", lang),
            style=styles.outline(colour=(31, 41, 51), stroke_mm=0.7, label='"name"'),
        ),
        "cores": Layer(
            areas.cores, tr("areas.layer_cores", lang),
            style=styles.outline(colour=(120, 0, 20), fill=(196, 30, 58), stroke_mm=0.3),
        ),
        "zones": Layer(
            areas.zones, tr("areas.layer_zones", lang),
            style=styles.outline(colour=(200, 120, 90), fill=(247, 182, 148), stroke_mm=0.3),
        ),
        "membership": Layer(
            shown, tr("areas.layer_membership", lang),
            style=styles.categorised("role", roles, stroke=grey, stroke_mm=0.15, aliases=words),
        ),
    }  # fmt: skip
    if areas.flows is not None:
        lines = desire_lines(
            areas.flows, units, points=points, minimum=minimum_flow, membership=areas.membership
        )
        if len(lines):
            key = "areas.layer_flows_estimated" if areas.flows.estimated else "areas.layer_flows"
            layers["flows"] = Layer(
                lines, tr(key, lang), style=styles.outline(
                    colour=(60, 90, 160), geometry="LineString", stroke_mm=0.3, opacity=0.6
                ),
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
            layers[name] = Layer(table, tr(key, lang), style="table")
    return layers


# --- the recipe -----------------------------------------------------------------------


def areas_flow(
    population: str | Path,
    units: str | Path | gpd.GeoDataFrame,
    id: str,
    *,
    out: str | Path,
    built: str | Path | None = None,
    land: str | Path | None = None,
    layer: str | None = None,
    flows: str | Path | None = None,
    employed: str | Path | None = None,
    network: str | Path | None = None,
    distance: bool = False,
    isochrone: float | None = None,
    min_city: float = 100_000.0,
    threshold: float = THRESHOLD,
    beta: float | None = None,
    calibrate_on: str | Path | None = None,
    cores: str | Path | None = None,
    merge: bool | None = None,
    city_share: float = CITY_SHARE,
    unknown: str = "error",
    reporting: str | None = None,
    minimum_flow: float = 100.0,
    figure: str | Path | None = None,
    ruleset: str = "R2023A",
    repair: bool = False,
    lang: str = "en",
    source: str = "",
    **thresholds: Any,
) -> dict[str, Any]:
    """Delineate functional urban areas from files and write a GeoPackage.

    Parameters
    ----------
    population, built, land
        Rasters of one equal-area grid; the latter two serve the urban centres.
    units
        Layer of units, or units already read.
    id
        Column of unit ids.
    out
        GeoPackage to write.
    layer
        Layer of a file that holds several.
    flows, employed
        Tables of commuters and employed residents; see :mod:`qala.commuting`.
    network
        Network saved by :func:`qala.network.save_network`.
    distance
        Estimate flows from the straight line.
    isochrone
        Minutes: the baseline of :func:`qala.fua_estimates.isochrone_areas`, on
        the network's times where one is given.
    min_city
        Least people of a city for the isochrone.
    threshold
        Share of commuters; that of merging is the same.
    beta
        Per km or minute, the plain exponential model.
    calibrate_on
        Flow table on the same units, from which the decay (β and shape) and
        the jobs of each unit are taken; ``--calibrate``.
    cores
        Given cores, in place of urban centres.
    merge, city_share, unknown
        As for :func:`qala.fua.functional_areas`.
    reporting
        Column of units by which rates are told.
    minimum_flow
        Smallest flow drawn, commuters.
    figure
        PNG of the map; that of the sensitivity lies beside it, its name ending
        in ``_sensitivity``.
    ruleset, **thresholds
        Of the urban centres; see :func:`qala.settlement.label_centres`.
    repair
        Repair units; see :func:`qala.vector.check_units`.
    lang
        Language of reasons, titles and map.
    source
        Sources and licences shown below the map and kept in the file.

    Returns
    -------
    dict
        ``areas`` (the :class:`qala.fua.Areas`), ``outputs`` (paths), ``counts``,
        ``settings``, ``calibration``, ``rates``.

    Raises
    ------
    InputError
        When options do not fit together or inputs are not sound.
    """
    from qala.export.geopackage import write_geopackage
    from qala.raster import open_raster, require_writable

    _check_options(flows, network, distance, isochrone, beta, calibrate_on, employed)
    targets = [Path(out), *([Path(figure)] if figure else [])]
    for target in targets:
        require_writable(target)
    layer_of_units = _read_units(units, id, layer, repair)
    people = open_raster(population, "population")
    labels = None
    if cores is None:
        from qala.settlement import label_centres

        labels = label_centres(
            people,
            None if built is None else open_raster(built, "built"),
            None if land is None else open_raster(land, "land"),
            ruleset=ruleset,
            **thresholds,
        )
    points = weighted_centres(layer_of_units, people, id=id)
    seconds = None
    if network is not None:
        from qala.network import load_network

        seconds = unit_seconds(load_network(network), points)
    core_table = None if cores is None else read_cores(cores)
    calibration = None
    if isochrone is not None:
        result = _isochrone(
            layer_of_units, id, people, labels, core_table, seconds, isochrone, min_city,
            city_share, lang,
        )  # fmt: skip
    else:
        extra: dict[str, Any] = {}
        if flows is not None:
            extra = {"flows": flows, "employed": employed, "unknown": unknown}
        else:
            extra = {"seconds": seconds, "distance": seconds is None, "beta": beta}
            if calibrate_on is not None:
                calibration, found = _calibrated(
                    layer_of_units, id, calibrate_on, employed, seconds, points, unknown
                )
                extra |= found
        result = functional_areas(
            layer_of_units,
            id=id,
            cores=core_table,
            population=people,
            labels=labels,
            points=points,
            threshold=threshold,
            merge_threshold=threshold,
            merge=merge,
            city_share=city_share,
            names=_city_names(layer_of_units, id, people, labels, core_table, city_share, lang),
            lang=lang,
            **extra,
        )
        result = area_sensitivity(result)
        if calibration is not None:
            _log_agreement(result, layer_of_units, id, calibrate_on, employed, unknown)
    rates = area_rates(
        result.membership,
        reporting=None
        if reporting is None
        else dict(zip(as_ids(layer_of_units[id]), layer_of_units[reporting], strict=True)),
    )
    layers = layers_of(
        result, layer_of_units, id=id, points=points, minimum_flow=minimum_flow, rates=rates,
        calibration=calibration, lang=lang,
    )  # fmt: skip
    metadata = {
        "title": tr(f"areas.legend_{_kind(result)}", lang),
        "citation": source,
        "provenance": {"settings": dict(result.settings), "counts": dict(result.counts)},
    }
    write_geopackage(out, layers, metadata=metadata, lang=lang)
    if figure is not None:
        map_areas(
            result, layer_of_units, title=tr(f"areas.legend_{_kind(result)}", lang), path=figure,
            lang=lang, source=source, subtitle=_subtitle(result, lang),
        )  # fmt: skip
        if result.sensitivity is not None:
            chart = Path(figure).with_name(f"{Path(figure).stem}_sensitivity.png")
            targets.append(chart_area_sensitivity(result, path=chart, lang=lang, source=source))
    return {
        "areas": result,
        "outputs": targets,
        "counts": dict(result.counts),
        "settings": dict(result.settings),
        "calibration": calibration,
        "rates": rates,
    }


def _check_options(
    flows: Any, network: Any, distance: bool, isochrone: float | None, beta: Any,
    calibrate_on: Any, employed: Any,
) -> None:  # fmt: skip
    problems = Problems("qala areas")
    chosen = [
        name
        for name, given in (
            ("--flows", flows is not None),
            ("--network", network is not None and isochrone is None),
            ("--distance", distance),
            ("--isochrone", isochrone is not None),
        )
        if given
    ]
    if len(chosen) != 1:
        problems.add(
            f"{' and '.join(chosen) or 'no source of commuting'} given",
            "one of --flows, --network, --distance, --isochrone (with or without --network)",
        )
    estimated = network is not None or distance
    if beta is not None and not (estimated and isochrone is None):
        problems.add("--beta is given without an estimate", "--distance or --network")
    if beta is not None and calibrate_on is not None:
        problems.add("both --beta and --calibrate are given", "one of them")
    if calibrate_on is not None and not (estimated and isochrone is None):
        problems.add("--calibrate is given without an estimate", "--distance or --network")
    if employed is not None and flows is None and calibrate_on is None:
        problems.add("--employed is given without flows", "--flows or --calibrate")
    problems.raise_if_any()


def _read_units(units: Any, id: str, layer: str | None, repair: bool) -> gpd.GeoDataFrame:
    from qala.vector import check_units, read_units

    if hasattr(units, "geometry"):
        return check_units(units, id=id, repair=repair)
    return read_units(units, id=id, layer=layer, repair=repair)


def _isochrone(
    units: gpd.GeoDataFrame, id: str, people: xr.DataArray, labels: Any, cores: Any, seconds: Any,
    limit: float, min_city: float, city_share: float, lang: str,
) -> Areas:  # fmt: skip
    from qala.fua_estimates import isochrone_areas

    if cores is None:
        cores = cities_of(units, people, labels, id=id, city_share=city_share).cores
    return isochrone_areas(
        units, id=id, cores=cores, population=people, seconds=seconds, minutes_limit=limit,
        min_city=min_city, lang=lang,
        names=_city_names(units, id, people, labels, cores, city_share, lang),
    )  # fmt: skip


def _calibrated(
    units: gpd.GeoDataFrame, id: str, table: Any, employed: Any, seconds: Any,
    points: gpd.GeoSeries, unknown: str,
) -> tuple[Calibration, dict[str, Any]]:  # fmt: skip
    """Return the fit, and jobs and decay for the estimate."""
    given = flows_on_units(
        table, as_ids(units[id]), employed=employed, unknown=cast("Any", unknown)
    )
    jobs = np.asarray(given.matrix.sum(axis=0)).ravel()
    if seconds is None:
        costs, per = distances(units, points=points), "km"
    else:
        costs, per = minutes(seconds, units), "min"
    # the choice among forms is the held-back zones', not the fit's: see docs/functional-areas.md
    fit = calibrate(
        given, costs, jobs, per=cast("Any", per), free=("beta", "shape"), source=str(table)
    )
    log.info("calibrated on %s\n%s", table, fit.report())
    return fit, {"decay": fit.decay, "jobs": jobs}


def _log_agreement(
    result: Areas, units: gpd.GeoDataFrame, id: str, table: Any, employed: Any, unknown: str
) -> None:
    """Hold the estimated areas against those of the flows they were calibrated on."""
    given = flows_on_units(
        table, as_ids(units[id]), employed=employed, unknown=cast("Any", unknown)
    )
    cores = result.membership.loc[result.membership["city"].notna(), ["unit", "area"]]
    real = functional_areas(
        units,
        id=id,
        flows=given,
        cores=cores.rename(columns={"area": "city"}),
        population=result.membership["population"].to_numpy(),
        threshold=result.settings["threshold"],
    )
    found = compare_areas(result.membership, real.membership)
    log.info(
        "against the areas of the flows themselves: %d of %d units alike in or out, Jaccard of the "
        "commuting zones %.3f by units, %.3f by people",
        found.in_or_out, found.units, found.jaccard, found.jaccard_people,
    )  # fmt: skip
    cast("dict[str, Any]", result.counts).update(
        calibration_in_or_out=found.in_or_out,
        calibration_jaccard=found.jaccard,
        calibration_jaccard_people=found.jaccard_people,
    )


def _city_names(
    units: gpd.GeoDataFrame, id: str, people: xr.DataArray, labels: Any, cores: Any,
    city_share: float, lang: str,
) -> dict[str, str] | None:  # fmt: skip
    """Return the name of each city's most populous unit, where the units have names."""
    import pandas as pd

    from qala.figures import place_names

    if not any(str(c) == "name" or str(c).startswith("name_") for c in units.columns):
        return None
    from qala.fua import _people

    size, _ = _people(units, people, id)
    if cores is None:
        cores = cities_of(units, people, labels, id=id, city_share=city_share).cores
    table = pd.DataFrame(
        {"unit": as_ids(units[id]), "name": place_names(units, lang), "people": size}
    ).set_index("unit")
    table = table.loc[list(cores.index)].assign(city=cores.to_numpy())
    best = table.sort_values("people", ascending=False).drop_duplicates("city")
    return dict(zip(best["city"], best["name"], strict=True))


def _subtitle(areas: Areas, lang: str) -> str:
    from qala.figures import number, percent

    settings = areas.settings
    if settings["method"] == "isochrone":
        return tr(
            "areas.subtitle_isochrone", lang, minutes=number(settings["minutes"], lang),
            people=number(settings["min_city"], lang),
        )  # fmt: skip
    limit = percent(settings["threshold"], lang, digits=0)
    if settings["method"] == "flows":
        return tr("areas.subtitle_flows", lang, limit=limit)
    return tr(
        "areas.subtitle_estimated", lang, limit=limit,
        beta=number(settings["beta"], lang, digits=3),
        shape=number(settings["shape"], lang, digits=2),
    )  # fmt: skip


__all__ = [
    "areas_flow",
    "chart_area_sensitivity",
    "layers_of",
    "map_areas",
    "settlement_units",
    "unit_seconds",
]
