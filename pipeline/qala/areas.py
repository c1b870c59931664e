"""Functional urban areas from opened inputs and from files, by any of the methods."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from qala.area_products import (
    chart_area_sensitivity,
    kind_of,
    layers_of,
    main_roads,
    map_areas,
    subtitle_of,
)
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
    Cities,
    Commuters,
    cities_of,
    commuters_of,
    functional_areas,
    people_of_units,
)
from qala.fua_reports import (
    area_rates,
    area_sensitivity,
    compare_areas,
    official_at,
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
        are not stored, nor is a unit's way to itself: its point is one, its people are not.
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
    pairs = pairs[pairs["origin"] != pairs["centre"]]
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


def cell_seconds(
    network: Network, population: xr.DataArray, labels: xr.DataArray | None
) -> dict[str, xr.DataArray]:
    """Return travel times of populated cells to their nearest urban centre, and its number.

    Parameters
    ----------
    network
        Roads.
    population, labels
        dims (y, x), one grid.

    Returns
    -------
    dict
        ``seconds`` and ``nearest``, dims (y, x), NaN where there is no way.
    """
    from qala.travel import travel_times

    near = travel_times(network, population, cast("xr.DataArray", labels)).nearest
    at = near["origin"].to_numpy(dtype=np.int64)
    found = {}
    for name, column in (("seconds", "seconds"), ("nearest", "centre")):
        values = np.full(population.shape, np.nan)
        values.ravel()[at] = near[column].to_numpy(dtype=np.float64, na_value=np.nan)
        found[name] = cast("xr.DataArray", labels).copy(data=values)
    return found


# --- from inputs to areas -----------------------------------------------------------------------

#: bands of the layer of isochrones, minutes
BANDS = (15, 30, 45, 60, 90)
#: how far the bands reach from a road, metres: they are read at the scale of a region
BAND_WALK = 3000.0


@dataclass(frozen=True)
class Delineated:
    """Areas with what belongs to them.

    Attributes
    ----------
    areas
        The result.
    units, id, points
        The units, their column of ids, and where their distances are measured from.
    rates
        As :func:`qala.fua_reports.area_rates` gives it.
    labels
        dims (y, x): urban centres, where the cities were found from them.
    calibration
        Where the decay was fitted.
    isochrones, roads
        Bands around the cities and main roads, where a network is given.
    outlines
        Cells of a cell-wise estimate.
    notices
        What the network's source wants to be said.
    """

    areas: Areas
    units: gpd.GeoDataFrame
    id: str
    points: gpd.GeoSeries
    rates: pd.DataFrame
    labels: xr.DataArray | None = None
    calibration: Calibration | None = None
    isochrones: gpd.GeoDataFrame | None = None
    roads: gpd.GeoDataFrame | None = None
    outlines: gpd.GeoDataFrame | None = None
    notices: tuple[str, ...] = ()


def open_network(path: str | Path, *, mode: str = "car") -> Network:
    """Load a saved network, or read one from an OpenStreetMap extract.

    Raises
    ------
    InputError
        When the file is neither.
    """
    from qala.network import load_network, read_network

    name = Path(path).name.lower()
    if name.endswith((".pbf", ".osm", ".osm.gz", ".osm.bz2")):
        return read_network(path, mode=mode)
    return load_network(path)


def delineate(
    units: gpd.GeoDataFrame,
    id: str,
    population: xr.DataArray,
    *,
    built: xr.DataArray | None = None,
    land: xr.DataArray | None = None,
    network: Network | None = None,
    flows: str | Path | None = None,
    employed: str | Path | None = None,
    distance: bool = False,
    isochrone: float | None = None,
    cellwise: bool = False,
    min_city: float = 100_000.0,
    threshold: float = THRESHOLD,
    beta: float | None = None,
    calibrate_on: str | Path | None = None,
    cores: str | Path | None = None,
    merge: bool | None = None,
    city_share: float = CITY_SHARE,
    unknown: str = "error",
    official: pd.DataFrame | None = None,
    reporting: str | None = None,
    sensitivity: bool = True,
    ruleset: str = "R2023A",
    lang: str = "en",
    **thresholds: Any,
) -> Delineated:
    """Delineate functional urban areas from opened inputs, by any of the methods.

    Parameters
    ----------
    units
        Sound polygons; see :func:`qala.read_units`.
    id
        Column of unit ids.
    population, built, land
        dims (y, x), one equal-area grid; the latter two serve the urban centres.
    network
        Roads: times between units, and the layers of isochrones and roads.
    official
        Official figures of one epoch by reporting unit (:func:`qala.rates.read_official`).
    reporting
        Column of units by which rates are told; default: all units together, or with
        ``official`` each unit.
    sensitivity
        Run the variants.
    flows, employed, distance, isochrone, cellwise, min_city, threshold, beta, calibrate_on
        As for :func:`areas_flow`.
    cores, merge, city_share, unknown, ruleset, lang, **thresholds
        As for :func:`areas_flow`.

    Returns
    -------
    Delineated
        Areas, rates and layers.

    Raises
    ------
    InputError
        When options do not fit together or inputs are not sound.
    """
    check_options(
        flows, network, distance, isochrone, beta, calibrate_on, employed, cellwise, cores
    )
    _require_reporting(units, reporting)
    labels = None
    if cores is None:
        labels = find_centres(population, built, land, ruleset=ruleset, **thresholds)
    people, points = people_of_units(units, population, id)
    cities = find_cities(units, id, population, labels, cores=cores, city_share=city_share)
    names = city_names(units, id, people, core_units(cities), lang)
    seconds = cell_times = commuters = calibration = None
    if cellwise:
        cell_times = None if network is None else cell_seconds(network, population, labels)
    elif network is not None and flows is None:
        seconds = unit_seconds(network, cast("gpd.GeoSeries", points))
    if not cellwise and isochrone is None:
        commuters, calibration = find_commuters(
            units, id, people, cast("gpd.GeoSeries", points), population, flows=flows,
            employed=employed, seconds=seconds, beta=beta, calibrate_on=calibrate_on,
            unknown=unknown,
        )  # fmt: skip
    result, outlines = draw_areas(
        units, id, population, people, cities, names, labels=labels, commuters=commuters,
        seconds=seconds, cell_times=cell_times, isochrone=isochrone, min_city=min_city,
        threshold=threshold, merge=merge, city_share=city_share, lang=lang,
    )  # fmt: skip
    if calibrate_on is not None:
        result = with_agreement(result, units, id, calibrate_on, employed, unknown)
    if sensitivity and result.flows is not None:
        result = area_sensitivity(result)
    rates = rates_of(result, units, id, reporting=reporting, official=official)
    bands = roads = None
    notices: tuple[str, ...] = ()
    if network is not None:
        goals = city_goals(
            units, id, population, people, core_units(cities), labels,
            min_city=0.0 if isochrone is None else min_city,
        )  # fmt: skip
        bands = city_isochrones(network, goals)
        roads, lowest = main_roads(network)
        notices = (str(network.metadata.get("notice", "")),)
        result = replace(
            result, counts={**result.counts, **told_of(network, len(roads), lowest)}
        )  # fmt: skip
    return Delineated(
        result, units, id, cast("gpd.GeoSeries", points), rates, labels, calibration, bands, roads,
        outlines, tuple(n for n in notices if n),
    )  # fmt: skip


def find_centres(
    population: xr.DataArray,
    built: xr.DataArray | None = None,
    land: xr.DataArray | None = None,
    *,
    ruleset: str = "R2023A",
    **thresholds: Any,
) -> xr.DataArray:
    """Number the urban centres of a grid; parameters as for :func:`delineate`.

    Raises
    ------
    InputError
        When there is none.
    """
    from qala.settlement import label_centres

    labels = label_centres(population, built, land, ruleset=ruleset, **thresholds).compute()
    if not int(labels.max()) > 0:
        raise InputError(
            f"the grid has no urban centre by the rules {ruleset}, and so no city",
            "cells of a centre's density that touch and hold 50,000 people or more",
            "check that the population is people per cell, or give the cities with --cores",
        )
    return labels


def find_cities(
    units: gpd.GeoDataFrame,
    id: str,
    population: xr.DataArray | None,
    labels: xr.DataArray | None,
    *,
    cores: str | Path | None = None,
    city_share: float = CITY_SHARE,
) -> Cities | pd.Series:
    """Return the cities of urban centres, or given ones; parameters as for :func:`delineate`.

    Raises
    ------
    InputError
        When no unit is part of a city.
    """
    if cores is not None:
        return read_cores(cores)
    grid, centres = cast("xr.DataArray", population), cast("xr.DataArray", labels)
    found = cities_of(units, grid, centres, id=id, city_share=city_share)
    if not len(found.cores):
        raise InputError(
            f"no unit is part of a city: none has {city_share:.0%} of its people in an urban "
            "centre", "units small enough to follow the urban centres",
            "use finer units (settlements, communes), or lower city_share",
        )  # fmt: skip
    return found


def core_units(cities: Cities | pd.Series) -> pd.Series:
    """Return the city of each core unit."""
    return cities.cores if isinstance(cities, Cities) else cities


def find_commuters(
    units: gpd.GeoDataFrame,
    id: str,
    people: Any,
    points: gpd.GeoSeries,
    population: xr.DataArray | None,
    *,
    flows: str | Path | None = None,
    employed: str | Path | None = None,
    seconds: csr_matrix | None = None,
    beta: float | None = None,
    calibrate_on: str | Path | None = None,
    unknown: str = "error",
) -> tuple[Commuters, Calibration | None]:
    """Return given flows, or an estimate and where its decay was fitted.

    Parameters
    ----------
    people, points
        Of each unit, from :func:`qala.fua.people_of_units`.
    population
        dims (y, x); people of cells, for an estimate.
    seconds
        Between units, from :func:`unit_seconds`; straight lines without them.
    units, id, flows, employed, beta, calibrate_on, unknown
        As for :func:`delineate`.
    """
    calibration = None
    extra: dict[str, Any] = {"beta": beta}
    if flows is not None:
        extra = {"flows": flows, "employed": employed, "unknown": unknown}
    elif calibrate_on is not None:
        calibration, found = _calibrated(
            units, id, calibrate_on, employed, seconds, points, unknown
        )
        extra |= found
    commuters = commuters_of(
        units, people, id=id, population=population, seconds=seconds, points=points, **extra
    )
    return commuters, calibration


def draw_areas(
    units: gpd.GeoDataFrame,
    id: str,
    population: xr.DataArray | None,
    people: Any,
    cities: Cities | pd.Series,
    names: Mapping[str, str] | None,
    *,
    labels: xr.DataArray | None = None,
    commuters: Commuters | None = None,
    seconds: csr_matrix | None = None,
    cell_times: Mapping[str, xr.DataArray] | None = None,
    isochrone: float | None = None,
    min_city: float = 100_000.0,
    threshold: float = THRESHOLD,
    merge: bool | None = None,
    city_share: float = CITY_SHARE,
    lang: str = "en",
) -> tuple[Areas, gpd.GeoDataFrame | None]:
    """Return the areas of commuters, of an isochrone, or, with neither, of cells.

    Parameters
    ----------
    people
        Of each unit.
    cities, names
        From :func:`find_cities` and :func:`city_names`.
    population
        dims (y, x); people of cells, for all but commuters.
    labels, cell_times
        Urban centres, and :func:`cell_seconds` of a network: for cells.
    commuters
        From :func:`find_commuters`.
    seconds
        Between units: for an isochrone.
    units, id, isochrone, min_city, threshold, merge, city_share, lang
        As for :func:`delineate`.

    Returns
    -------
    tuple
        Areas, and the outlines of a cell-wise estimate.
    """
    if commuters is not None:
        found = functional_areas(
            units, id=id, flows=commuters, cores=cities, population=people, threshold=threshold,
            merge_threshold=threshold, merge=merge, city_share=city_share, names=names, lang=lang,
        )  # fmt: skip
        return found, None
    from qala.fua_estimates import CELL_MODEL, cellwise_units, isochrone_areas

    grid = cast("xr.DataArray", population)
    if isochrone is not None:
        found = isochrone_areas(
            units, id=id, cores=core_units(cities), population=grid, seconds=seconds,
            minutes_limit=isochrone, min_city=min_city, names=names, lang=lang,
        )  # fmt: skip
        return found, None
    if cell_times is not None:
        log.warning(
            "the cell-wise model was fitted on straight lines (%s), not on network times",
            CELL_MODEL.source,
        )
    cells = cellwise_units(
        units, id=id, population=grid, labels=cast("xr.DataArray", labels),
        cores=core_units(cities), names=names, lang=lang, **cast("Any", cell_times or {}),
    )  # fmt: skip
    return cells.areas, cells.outlines


def rates_of(
    areas: Areas,
    units: gpd.GeoDataFrame,
    id: str,
    *,
    reporting: str | None = None,
    official: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return :func:`qala.fua_reports.area_rates`; parameters as for :func:`delineate`."""
    if official is not None and reporting is None:
        reporting = id
    told_by = None
    if reporting is not None:
        _require_reporting(units, reporting)
        told_by = dict(zip(as_ids(units[id]), as_ids(units[reporting]), strict=True))
    return area_rates(areas.membership, reporting=told_by, official=official)


def _require_reporting(units: gpd.GeoDataFrame, reporting: str | None) -> None:
    if reporting is not None and reporting not in units.columns:
        raise InputError(
            f"the units have no column {reporting!r} to tell rates by",
            f"one of {some(c for c in units.columns if c != units.geometry.name)}",
            "name it with --reporting (areas.reporting), or leave it out",
        )


def told_of(network: Network, in_layer: int, lowest: str) -> dict[str, Any]:
    """Return what is counted of a network and its layer of main roads."""
    return {
        "network_segments": int(network.metres.size),
        "network_segments_in_layer": in_layer,
        "network_lowest_class_in_layer": lowest,
    }


def city_goals(
    units: gpd.GeoDataFrame,
    id: str,
    population: xr.DataArray,
    people: Any,
    cores: pd.Series,
    labels: xr.DataArray | None,
    *,
    min_city: float = 0.0,
) -> gpd.GeoDataFrame:
    """Return the polygons that a way to a city ends at: its urban centre, or its core units.

    Parameters
    ----------
    units, id, population
        As for :func:`delineate`.
    people
        Of each unit.
    cores
        City of each core unit.
    labels
        dims (y, x); urban centres. Without them the way ends at the edge of the cores, which
        may be far outside a city whose units are large.
    min_city
        Least people of a city of core units.
    """
    from qala.settlement import urban_centres

    if labels is not None:
        centres = urban_centres(labels, population)
        return centres[centres["centre"].astype(str).isin(set(cores))]
    city = cores.reindex(as_ids(units[id])).to_numpy(dtype=object)
    inside = units.assign(city=city, people=people)[["city", "people", units.geometry.name]]
    goals = inside[inside["city"].notna()].dissolve("city", aggfunc="sum", as_index=False)
    return goals[goals["people"] >= min_city]


def city_isochrones(
    network: Network, goals: gpd.GeoDataFrame, *, bands: Sequence[float] = BANDS
) -> gpd.GeoDataFrame:
    """Return bands of travel time to the nearest city.

    Parameters
    ----------
    network
        Roads.
    goals
        From :func:`city_goals`.
    bands
        Minutes.

    Returns
    -------
    geopandas.GeoDataFrame
        ``minutes`` (int), ``area_km2``, geometry; longest first; CRS of the network.
    """
    from qala.travel import isochrones

    found = isochrones(
        network, goals, [float(b) for b in bands], direction="to", merge=True,
        max_walk_metres=BAND_WALK,
    )  # fmt: skip
    found["minutes"] = found["minutes"].round().astype(int)
    return found.drop(columns="id")


def areas_flow(
    population: str | Path,
    units: str | Path | gpd.GeoDataFrame,
    id: str,
    *,
    out: str | Path,
    built: str | Path | None = None,
    land: str | Path | None = None,
    layer: str | None = None,
    network: str | Path | None = None,
    official: str | Path | None = None,
    epoch: int | None = None,
    minimum_flow: float = 100.0,
    figure: str | Path | None = None,
    repair: bool = False,
    units_crs: str | None = None,
    lang: str = "en",
    source: str = "",
    **options: Any,
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
    network
        Network saved by :func:`qala.network.save_network`, or an OpenStreetMap extract.
    official
        Table of official urban shares by reporting unit (``reporting``, else the units);
        see :func:`qala.rates.read_official`.
    epoch
        Epoch of the official figures; default: that of the population's file name.
    minimum_flow
        Smallest flow drawn, commuters.
    figure
        PNG of the map; that of the sensitivity lies beside it, its name ending
        in ``_sensitivity``.
    repair
        Repair units; see :func:`qala.vector.check_units`.
    units_crs
        CRS of a layer of units that declares none.
    lang
        Language of reasons, titles and map.
    source
        Sources and licences shown below the map and kept in the file.
    **options
        As for :func:`delineate`: ``flows``, ``employed`` (tables, see :mod:`qala.commuting`);
        ``distance`` (estimate flows from the straight line); ``isochrone`` (minutes: the
        baseline of :func:`qala.fua_estimates.isochrone_areas`) with ``min_city`` (people);
        ``cellwise`` (:func:`qala.fua_estimates.cellwise_units`); ``threshold`` (share of
        commuters, of merging as well); ``beta`` (per km or minute: the plain exponential);
        ``calibrate_on`` (flow table on the same units, from which decay and jobs are taken);
        ``cores`` (in place of urban centres); ``merge``, ``city_share``, ``unknown`` as for
        :func:`qala.fua.functional_areas`; ``reporting``; ``ruleset`` and thresholds of
        :func:`qala.settlement.label_centres`.

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

    check_options(
        options.get("flows"), network, options.get("distance", False), options.get("isochrone"),
        options.get("beta"), options.get("calibrate_on"), options.get("employed"),
        options.get("cellwise", False), options.get("cores"),
    )  # fmt: skip
    targets = [Path(out), *([Path(figure)] if figure else [])]
    for target in targets:
        require_writable(target)
    layer_of_units = _read_units(units, id, layer, repair, units_crs)
    table = None if official is None else _official(official, population, epoch, id, options)
    found = delineate(
        layer_of_units, id, open_raster(population, "population"),
        built=None if built is None else open_raster(built, "built"),
        land=None if land is None else open_raster(land, "land"),
        network=None if network is None else open_network(network),
        official=table, lang=lang, **options,
    )  # fmt: skip
    result = found.areas
    source = "; ".join(
        [*([source] if source else []), *(n for n in found.notices if n not in source)]
    )
    title = tr(f"areas.legend_{kind_of(result)}", lang)
    metadata = {
        "title": title,
        "citation": source,
        "provenance": {"settings": dict(result.settings), "counts": dict(result.counts)},
    }
    layers = layers_of_delineated(found, minimum_flow=minimum_flow)
    write_geopackage(out, layers, metadata=metadata, lang=lang)
    if figure is not None:
        map_areas(
            result, layer_of_units, title=title, path=figure,
            lang=lang, source=source, subtitle=subtitle_of(result, lang),
        )  # fmt: skip
        if result.sensitivity is not None:
            chart = Path(figure).with_name(f"{Path(figure).stem}_sensitivity.png")
            targets.append(chart_area_sensitivity(result, path=chart, lang=lang, source=source))
    return {
        "areas": result,
        "outputs": targets,
        "counts": dict(result.counts),
        "settings": dict(result.settings),
        "calibration": found.calibration,
        "rates": found.rates,
    }


def layers_of_delineated(found: Delineated, *, minimum_flow: float = 100.0) -> dict[str, Any]:
    """Return the layers of a GeoPackage; see :func:`qala.area_products.layers_of`."""
    return layers_of(
        found.areas, found.units, id=found.id, points=found.points, minimum_flow=minimum_flow,
        rates=found.rates, calibration=found.calibration, isochrones=found.isochrones,
        roads=found.roads, outlines=found.outlines,
    )  # fmt: skip


def _official(
    path: str | Path, population: str | Path, epoch: int | None, id: str, options: Mapping[str, Any]
) -> pd.DataFrame:
    """Read the official figures of the population's epoch."""
    from qala.rates import read_official
    from qala.sources import epochs_of

    table = read_official(path, options.get("reporting") or id)
    named = next(iter(epochs_of([Path(population).name]))) if epoch is None else epoch
    return official_at(table, named)


def check_options(
    flows: Any, network: Any, distance: bool, isochrone: float | None, beta: Any,
    calibrate_on: Any, employed: Any, cellwise: bool = False, cores: Any = None,
) -> None:  # fmt: skip
    """Refuse options of ``qala areas`` that do not fit together, all at once."""
    problems = Problems("qala areas")
    baseline = isochrone is not None or cellwise
    # beside flows, or a baseline, the network is what isochrones and times are taken from
    chosen = [
        name
        for name, given in (
            ("--flows", flows is not None),
            ("--network", network is not None and not baseline and flows is None),
            ("--distance", distance and not cellwise),
            ("--isochrone", isochrone is not None),
            ("--cellwise", cellwise),
        )
        if given
    ]
    if len(chosen) != 1:
        problems.add(
            f"{' and '.join(chosen) or 'no source of commuting'} given",
            "one of --flows, --network, --distance, --isochrone, --cellwise (all with or without "
            "--network but --distance)",
        )
    if distance and network is not None and cellwise:
        problems.add("--cellwise is given with --network and --distance", "one of the two")
    if cellwise and cores is not None:
        problems.add("--cellwise is given with --cores", "urban centres, which it grows from")
    estimated = (network is not None or distance) and flows is None and not baseline
    if beta is not None and not estimated:
        problems.add("--beta is given without an estimate", "--distance or --network")
    if beta is not None and calibrate_on is not None:
        problems.add("both --beta and --calibrate are given", "one of them")
    if calibrate_on is not None and not estimated:
        problems.add("--calibrate is given without an estimate", "--distance or --network")
    if employed is not None and flows is None and calibrate_on is None:
        problems.add("--employed is given without flows", "--flows or --calibrate")
    problems.raise_if_any()


def _read_units(
    units: Any, id: str, layer: str | None, repair: bool, crs: str | None = None
) -> gpd.GeoDataFrame:
    from qala.vector import check_units, read_units

    if hasattr(units, "geometry"):
        return check_units(units, id=id, repair=repair)
    return read_units(units, id=id, layer=layer, crs=crs, repair=repair)


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
        costs, per = minutes(seconds, units, points=points), "min"
    # the choice among forms is the held-back zones', not the fit's: see docs/functional-areas.md
    fit = calibrate(
        given, costs, jobs, per=cast("Any", per), free=("beta", "shape"), source=str(table)
    )
    log.info("calibrated on %s\n%s", table, fit.report())
    return fit, {"decay": fit.decay, "jobs": jobs}


def with_agreement(
    result: Areas, units: gpd.GeoDataFrame, id: str, table: Any, employed: Any, unknown: str
) -> Areas:
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
    told = {
        "calibration_in_or_out": found.in_or_out,
        "calibration_jaccard": found.jaccard,
        "calibration_jaccard_people": found.jaccard_people,
    }
    return replace(result, counts={**result.counts, **told})


def city_names(
    units: gpd.GeoDataFrame, id: str, people: Any, cores: pd.Series, lang: str
) -> dict[str, str] | None:
    """Return the name of each city's most populous unit, where the units have names."""
    import pandas as pd

    from qala.figures import place_names

    if not any(str(c) == "name" or str(c).startswith("name_") for c in units.columns):
        return None
    size, _ = people_of_units(units, people, id)
    table = pd.DataFrame(
        {"unit": as_ids(units[id]), "name": place_names(units, lang), "people": size}
    ).set_index("unit")
    # cores in no unit are told with the rest of them
    cores = cores[cores.index.isin(table.index)]
    table = table.loc[list(cores.index)].assign(city=cores.to_numpy())
    best = table.sort_values("people", ascending=False).drop_duplicates("city")
    return dict(zip(best["city"], best["name"], strict=True))
