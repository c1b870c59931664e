"""How each indicator is computed; formulas and sources stand in docs/indicators.md."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from qala.amenities import NETWORKS
from qala.errors import InputError
from qala.grid import cell_area_m2, geobox_of
from qala.indicator_definitions import (
    ACCESS_MINUTES,
    EMERGENCY_MINUTES,
    EMERGENCY_NAMES,
    MIN_GROWTH,
    MODES,
    OUTLINE_METRES,
    PIECE_METRES,
    SERVICE_NAMES,
    WALK_SECONDS,
    ZONE_MINUTES,
    Words,
)
from qala.indicator_inputs import Job, Zones, texts, untold
from qala.places import (
    Places,
    clipped_to,
    in_grid,
    kilometres_in,
    square_metres_in,
    straight_metres,
    tree_of,
    weighted_medians,
)
from qala.rates import URBAN_CODES, summarise, urbanisation_rates
from qala.units import coverage
from qala.vector import _polygons_only

if TYPE_CHECKING:
    import geopandas as gpd
    import xarray as xr
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from qala.network import Network

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

log = logging.getLogger("qala")

# --- 1 to 3: land, urban shares, growth -------------------------------------------------------


def _years(epochs: Sequence[Any]) -> list[tuple[Any, Any, int]]:
    """Return pairs of epochs with the years between them: first to last, then each step."""
    dated = [e for e in epochs if isinstance(e, int)]
    pairs = list(pairwise(dated))
    if len(dated) > 2:
        pairs.insert(0, (dated[0], dated[-1]))
    return [(a, b, b - a) for a, b in pairs]


def land_consumption(
    built_before: Any, built_now: Any, people_before: Any, people_now: Any, years: float,
    *, min_growth: float = MIN_GROWTH,
) -> tuple[Floats, Floats, Floats]:  # fmt: skip
    """Return land consumption rate, population growth rate, and their ratio (SDG 11.3.1).

    Parameters
    ----------
    built_before, built_now
        Built-up area at both epochs, any unit.
    people_before, people_now
        People at both epochs.
    years
        Between the epochs.
    min_growth
        Least growth or loss a year at which the ratio says anything.

    Returns
    -------
    tuple of numpy.ndarray
        LCR = (V₁ − V₀) / V₀ / t and PGR = ln(P₁ / P₀) / t, shares a year; LCR / PGR, NaN where
        PGR, growth or loss, is below ``min_growth``. NaN where nothing was built or nobody lived.

    Raises
    ------
    InputError
        When years is not positive.

    Notes
    -----
    Source: UN-Habitat, SDG indicator metadata 11.3.1 (2021).

    Examples
    --------
    >>> [round(float(v), 4) for v in land_consumption(100, 121, 1000, 1105.17, 10)]
    [0.021, 0.01, 2.1]
    """
    if not years > 0:
        raise InputError(f"years between the epochs are {years}", "a number above 0")
    v0, v1, p0, p1 = (
        np.asarray(v, dtype=np.float64)
        for v in (built_before, built_now, people_before, people_now)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        lcr = np.where(v0 > 0, (v1 - v0) / v0 / years, np.nan)
        pgr = np.where((p0 > 0) & (p1 > 0), np.log(p1 / p0) / years, np.nan)
        ratio = np.where(np.abs(pgr) >= min_growth, lcr / pgr, np.nan)
    return lcr, pgr, ratio


def tell_land(job: Job, min_growth: float) -> None:
    """Tell SDG 11.3.1: land consumption over population growth."""
    codes = ["lcrpgr", "land_consumption_rate", "population_growth_rate", "built_per_person"]
    zones, book = job.zones, job.book
    parts = zones.cover.parts
    people = {e: zones.told(parts @ v) for e, v in job.people.items()}
    built = {e: zones.told(parts @ v) for e, v in job.built.items() if v is not None}
    source = job.source("population", "built")
    for epoch, m2 in built.items():
        book.share("built_per_person", m2, people[epoch], epoch=epoch, source=source,
                   method="indicator.method.built_per_person")  # fmt: skip
    for before, now, years in _years(job.epochs):
        common: dict[str, Any] = {"epoch": now, "since": before, "source": source}
        nan = np.full(len(zones.id), np.nan)
        v0, v1 = built.get(before, nan), built.get(now, nan)
        lcr, pgr, ratio = land_consumption(
            v0, v1, people[before], people[now], years, min_growth=min_growth
        )
        book.add("population_growth_rate", pgr, numerator=people[now], denominator=people[before],
                 method=("indicator.method.pgr", {"years": years}),
                 why="indicator.note.nobody_before", **common)  # fmt: skip
        if before not in built or now not in built:
            continue
        book.add("land_consumption_rate", lcr, numerator=v1 - v0, denominator=v0,
                 method=("indicator.method.lcr", {"years": years}),
                 why="indicator.note.nothing_built", **common)  # fmt: skip
        why = texts("indicator.note.nobody_before", len(ratio))
        for k in np.flatnonzero(np.isnan(lcr)):
            why[k] = ("indicator.note.nothing_built", {})
        for k in np.flatnonzero(np.abs(pgr) < min_growth):
            why[k] = ("indicator.note.no_growth_ratio", {"percent": f"{100 * min_growth:g}"})
        book.add("lcrpgr", ratio, numerator=lcr, denominator=pgr,
                 method="indicator.method.lcrpgr", why=why, **common)  # fmt: skip
    if len(job.epochs) < 2:
        book.missing(codes[:3], "indicator.needs.two_epochs")
    elif not _years(job.epochs):
        book.missing(codes[:3], "indicator.needs.years")
    book.missing(codes, "indicator.needs.built_epochs" if codes[3] in book.found
                 else "indicator.needs.built")  # fmt: skip


def tell_urban(job: Job) -> None:
    """Tell official and functional urban shares, and who lives in functional areas."""
    codes = ["official_urban_share", "urban_share", "centre_share", "urban_ratio", "area_share"]
    book, zones, coarse = job.book, job.zones, job.coarse
    size = len(zones.id)
    if coarse is not None:
        table = urbanisation_rates(
            job.units, coarse.population, id=job.id, official=job.official, cells=coarse.classes
        ) if job.epochs != [None] else urbanisation_rates(
            job.units, coarse.population[None], id=job.id, official=job.official,
            cells=coarse.classes[None],
        )  # fmt: skip
        whole = summarise(table)
        of_areas = None
        if job.areas is not None:
            frame = job.areas.areas
            of_areas = urbanisation_rates(frame, coarse.population, id="area", cells=coarse.classes)
        for number, epoch in enumerate(job.epochs):

            def told(
                column: str, units: Any = table, all_units: Any = whole, number: int = number
            ) -> Floats:
                first = units[column].to_numpy(dtype=np.float64, na_value=np.nan)
                rows = len(job.units)
                values = np.full(size, np.nan)
                values[0] = all_units[column].to_numpy(dtype=np.float64, na_value=np.nan)[number]
                values[1 : rows + 1] = first[number * rows : (number + 1) * rows]
                if of_areas is not None and column in of_areas:
                    rest = of_areas[column].to_numpy(dtype=np.float64, na_value=np.nan)
                    values[rows + 1 :] = rest[number * zones.areas : (number + 1) * zones.areas]
                return values

            people = told("population")
            common: dict[str, Any] = {"epoch": epoch, "why": "indicator.note.nobody"}
            source = job.source("population", "built", "land", "cells")
            for code in ("urban_share", "centre_share"):
                value = told(code)
                book.add(code, value, numerator=value * people, denominator=people,
                         method=f"indicator.method.{code}", source=source, **common)  # fmt: skip
            if job.official is not None:
                only = zones.kind != "area"
                value = told("official_share")
                count = told("official_population")
                book.add("official_urban_share", value, numerator=value * count, denominator=count,
                         method="indicator.method.official", source=job.source("official"),
                         epoch=epoch, why="indicator.note.no_official", only=only)  # fmt: skip
                book.add("urban_ratio", told("ratio"), numerator=value,
                         denominator=told("urban_share"), method="indicator.method.ratio",
                         source=job.source("official", "population"), epoch=epoch,
                         why="indicator.note.no_ratio", only=only)  # fmt: skip
    if job.areas is not None:
        inside = _people_inside(job, job.areas.areas)
        whole_people = zones.told(zones.cover.parts @ job.people[job.epoch])
        book.share("area_share", zones.told(inside), whole_people, epoch=job.epoch,
                   method="indicator.method.area_share", source=job.source("areas", "population"),
                   why="indicator.note.nobody", only=zones.kind != "area")  # fmt: skip
    if job.official is None:
        book.missing(["official_urban_share", "urban_ratio"], "indicator.needs.official")
    if job.areas is None:
        book.missing(["area_share"], "indicator.needs.areas")
    book.missing(codes, "indicator.needs.kilometre")


def _people_inside(job: Job, layer: gpd.GeoDataFrame) -> Floats:
    """Return the people of each polygon inside the areas of a layer, by exact overlay."""
    import geopandas as gpd
    import shapely

    zones = job.zones
    box = zones.cover.box
    owner, shapes = clipped_to(in_grid(layer, box), zones.shapes)
    shapes = _polygons_only(shapes) if len(shapes) else shapes
    solid = np.array([s is not None for s in shapes], dtype=bool)
    solid[solid] = shapely.area(shapes[solid]) > 0
    found = np.zeros(len(zones.shapes))
    if not solid.any():
        return found
    pieces = gpd.GeoDataFrame(
        {"number": np.arange(int(solid.sum()))}, geometry=shapes[solid], crs=str(box.crs)
    )
    cover = coverage(pieces, box, id="number")
    slot = np.searchsorted(zones.cover.cells, cover.cells)
    slot = np.clip(slot, 0, max(zones.cover.cells.size - 1, 0))
    known = zones.cover.cells[slot] == cover.cells
    people = np.where(known, job.people[job.epoch][slot], 0.0)
    np.add.at(found, owner[solid], cover.parts @ people)
    return found


def tell_growth(job: Job) -> None:
    """Tell how much of the growth lies inside the earlier urban footprint."""
    codes = ["growth_inside_people", "growth_inside_built"]
    book, coarse = job.book, job.coarse
    if len(job.epochs) < 2:
        book.missing(codes, "indicator.needs.two_epochs")
    if coarse is None:
        book.missing(codes, "indicator.needs.kilometre")
        return
    zones = coarse.zones
    for before, now in zip(job.epochs[:-1], job.epochs[1:], strict=True):
        urban = np.isin(coarse.codes[before], URBAN_CODES).astype(np.float64)
        common: dict[str, Any] = {"epoch": now, "since": before}
        for code, layer in (
            (codes[0], coarse.people),
            (codes[1], coarse.built),
        ):
            first, second = layer[before], layer[now]
            if first is None or second is None:
                continue
            gain = second - first
            # without a footprint there is nothing to grow inside of: no 0
            bare = ~(zones.told(zones.cover.parts @ urban) > 0)
            why = texts("indicator.note.no_growth", len(bare))
            for k in np.flatnonzero(bare):
                why[k] = ("indicator.note.no_footprint", {})
            whole = np.where(bare, np.nan, zones.told(zones.cover.parts @ gain))
            book.share(
                code, zones.told(zones.cover.parts @ (gain * urban)), whole,
                method=f"indicator.method.{code}", why=why,
                source=job.source("population", "built", "cells"), **common,
            )  # fmt: skip
    book.missing(codes, "indicator.needs.built_epochs")


# --- 4 and 5: what lies within walking distance, open space -----------------------------------


def _lonlat(layer: gpd.GeoDataFrame) -> tuple[Floats, Floats]:
    points = layer.geometry.to_crs("EPSG:4326") if layer.crs is not None else layer.geometry
    if points.geom_type.eq("MultiPoint").any():
        points = points.explode()
    return points.x.to_numpy(), points.y.to_numpy()


def _outline(layer: gpd.GeoDataFrame) -> tuple[Floats, Floats]:
    """Return points along the edges of areas, some 50 m apart."""
    import shapely

    edges = shapely.boundary(layer.geometry.to_crs("EPSG:4326").to_numpy())
    # a degree of longitude is shorter than one of latitude: there the points lie closer
    at = shapely.get_coordinates(shapely.segmentize(edges, OUTLINE_METRES / 111_320.0))
    return at[:, 0], at[:, 1]


def _by_length(network: Network) -> Network:
    """Return a foot network whose seconds tell metres at 5 km/h, stairs and mud alike."""
    pace = network.metres * np.float32(WALK_SECONDS)
    return replace(
        network,
        forward=np.where(np.isnan(network.forward), np.float32(np.nan), pace),
        backward=np.where(np.isnan(network.backward), np.float32(np.nan), pace),
    )


def _walked(job: Job, goals: Sequence[tuple[Floats, Floats]]) -> list[Floats]:
    """Return metres on foot from places to the nearest of each set: by network, else straight."""
    places = job.places
    foot = job.networks.get("foot")
    if foot is None:
        return [straight_metres(places.lon, places.lat, *goal) for goal in goals]
    from qala.travel import nearest_seconds

    found = nearest_seconds(
        _by_length(foot), places.lon, places.lat, goals, piece_metres=PIECE_METRES
    )
    return [np.asarray(seconds / WALK_SECONDS) for seconds in found]


def _how(job: Job, key: str, **values: Any) -> Words:
    """Return a method note that says whether distances are walked or straight."""
    kind = "network" if "foot" in job.networks else "straight"
    return f"indicator.method.{key}_{kind}", values


def tell_walking(job: Job, limits: Mapping[str, float]) -> None:
    """Tell who lives within a walk of stops (SDG 11.2.1) and of open space (11.7.1)."""
    book, zones, found = job.book, job.zones, job.amenities
    transit = ["transit_access", "stop_500m", "high_capacity_1km"]
    if found is None:
        book.missing([*transit, "open_space_400m"], "indicator.needs.osm")
        return
    weights = job.places.weights
    people = zones.told(weights @ np.ones(weights.shape[1]))
    high = found.stops[found.stops["high"].astype(bool)] if len(found.stops) else found.stops
    sets: dict[str, tuple[Floats, Floats]] = {}
    if len(found.stops):
        sets["stops"] = _lonlat(found.stops)
    if len(high):
        sets["high"] = _lonlat(high)
    if len(found.open_space):
        sets["open"] = _outline(found.open_space)
    metres = dict(zip(sets, _walked(job, list(sets.values())), strict=True))
    if "open" in metres:
        metres["open"] = np.where(_inside(job, found.open_space), 0.0, metres["open"])

    def tell(code: str, reached: Bools, key: str, **values: Any) -> None:
        book.share(
            code, zones.told(weights @ reached.astype(np.float64)), people, epoch=job.epoch,
            method=_how(job, key, **values), source=job.source("osm", "network", "population"),
            why="indicator.note.nobody", served=job.within("osm", "foot"),
        )  # fmt: skip

    stop, far = f"{limits['stop']:g}", f"{limits['high']:g}"
    if "stops" in metres:
        near = metres["stops"] <= limits["stop"]
        tell("stop_500m", near, "stops", metres=stop, count=len(found.stops))
        rail = np.zeros(near.size, bool)
        if "high" in metres:
            rail = metres["high"] <= limits["high"]
            tell("high_capacity_1km", rail, "high", metres=far, count=len(high))
        tell("transit_access", near | rail, "transit", metres=stop, far=far)
    if "open" in metres:
        tell("open_space_400m", metres["open"] <= limits["open"], "open",
             metres=f"{limits['open']:g}", count=len(found.open_space))  # fmt: skip
    book.missing(["high_capacity_1km"] if "stops" in metres else transit,
                 "indicator.needs.high" if "stops" in metres
                 else "indicator.needs.stops")  # fmt: skip
    book.missing(["open_space_400m"], "indicator.needs.open_space")


def _inside(job: Job, areas: gpd.GeoDataFrame) -> Bools:
    """Return which places lie in areas."""
    places = job.places
    tree = tree_of(places.lon, places.lat)
    _, hit = tree.query(areas.geometry.to_crs("EPSG:4326").to_numpy(), predicate="intersects")
    inside = np.zeros(places.lon.size, bool)
    inside[hit] = True
    return inside


def tell_open_space(job: Job) -> None:
    """Tell how much open and green space there is (SDG 11.7.1)."""
    codes = ["open_space_share", "green_share", "open_space_per_built", "open_space_per_person"]
    book, zones, found, coarse = job.book, job.zones, job.amenities, job.coarse
    if found is None:
        book.missing(codes, "indicator.needs.osm")
        return
    if not len(found.green):
        book.missing(codes, "indicator.needs.green")
        return
    if not len(found.open_space):
        book.missing([c for c in codes if c != "green_share"], "indicator.needs.open_space")
    box = zones.cover.box
    source = job.source("osm", "population", "built", "land")
    common: dict[str, Any] = {"epoch": job.epoch, "source": source, "served": job.within("osm")}
    open_parts = in_grid(found.open_space, box)
    if coarse is not None:
        urban = np.isin(coarse.codes[job.epoch], URBAN_CODES)
        km2 = cell_area_m2(coarse.zones.cover.box)
        ground = zones.told(coarse.zones.cover.parts @ (urban * coarse.land * km2))
        extent = _urban_shapes(coarse.classes[job.epoch])
        for code, parts in (
            ("open_space_share", open_parts),
            ("green_share", in_grid(found.green, box)),
        ):
            if code in book.found:
                continue
            _, clipped = clipped_to(parts, extent)
            area = zones.told(square_metres_in(_solid(clipped), zones.shapes))
            book.share(code, area, ground, method=f"indicator.method.{code}",
                       why="indicator.note.no_urban_cells", **common)  # fmt: skip
    if "open_space_per_person" not in book.found:
        area = zones.told(square_metres_in(open_parts, zones.shapes))
        people = zones.told(zones.cover.parts @ job.people[job.epoch])
        book.share("open_space_per_person", area, people, why="indicator.note.nobody",
                   method="indicator.method.open_space_per_person", **common)  # fmt: skip
        built = job.built[job.epoch]
        if built is not None:
            book.share("open_space_per_built", area, zones.told(zones.cover.parts @ built),
                       method="indicator.method.open_space_per_built",
                       why="indicator.note.nothing_built", **common)  # fmt: skip
    book.missing(["open_space_per_built"], "indicator.needs.built")
    book.missing(codes, "indicator.needs.kilometre")


def _solid(shapes: NDArray[np.object_]) -> NDArray[np.object_]:
    """Return the polygons among clipped shapes."""
    import shapely

    if not len(shapes):
        return shapes
    parts: NDArray[np.object_] = np.asarray(shapely.get_parts(shapes), dtype=object)
    return np.asarray(parts[shapely.get_dimensions(parts) == 2], dtype=object)


def _urban_shapes(classes: xr.DataArray) -> NDArray[np.object_]:
    """Return urban cells as polygons of the grid, cells that touch by an edge joined."""
    import rasterio.features
    import shapely

    mask = np.isin(classes.transpose("y", "x").values, URBAN_CODES)
    found = rasterio.features.shapes(
        mask.astype(np.uint8), mask=mask, connectivity=4, transform=geobox_of(classes).transform
    )
    shapes = [shapely.geometry.shape(s) for s, _ in found]
    out = np.empty(len(shapes), dtype=object)
    out[:] = shapes
    return out


# --- 6, 8 and 10: travel times ----------------------------------------------------------------


def tell_services(job: Job) -> None:
    """Tell the time to schools, kindergartens and hospitals."""
    book, zones, found = job.book, job.zones, job.amenities

    def codes(service: str, mode: str) -> list[str]:
        within = [f"{service}_{m}min_{mode}" for m in ACCESS_MINUTES]
        return [f"{service}_minutes_{mode}", *within]

    every = [c for s in SERVICE_NAMES for m in MODES for c in codes(s, m)]
    if found is None:
        book.missing(every, "indicator.needs.osm")
        return
    from qala.travel import nearest_seconds

    known = {s: _lonlat(found.services[s]) for s in SERVICE_NAMES if len(found.services[s])}
    places = job.places
    people = zones.told(places.weights @ np.ones(places.lon.size))
    told = _told_weights(zones, places)
    for mode, network in job.networks.items():
        times = nearest_seconds(network, places.lon, places.lat, list(known.values()))
        for service, seconds in zip(known, times, strict=True):
            minutes = np.asarray(seconds / 60.0, dtype=np.float64)
            count = len(found.services[service])
            common: dict[str, Any] = {
                "epoch": job.epoch,
                "source": job.source("osm", "network", "population"),
                "method": (f"indicator.method.service_{mode}", {"count": count}),
            }
            value = weighted_medians(told, minutes)
            why = texts("indicator.note.nobody", len(value))
            for k in np.flatnonzero(np.isinf(value)):
                why[k] = ("indicator.note.unreached", {})
            served = job.within("osm", mode)
            if served is not None:
                value, why = served.apply(value, why)
            book.add(f"{service}_minutes_{mode}", value, denominator=people, why=why,
                     note=None if served is None else served.notes, **common)  # fmt: skip
            for limit in ACCESS_MINUTES:
                reached = zones.told(places.weights @ (minutes <= limit).astype(np.float64))
                book.share(f"{service}_{limit}min_{mode}", reached, people, served=served,
                           why="indicator.note.nobody", **common)  # fmt: skip
    for service in SERVICE_NAMES:
        for mode in MODES:
            book.missing(
                codes(service, mode),
                f"indicator.needs.network_{mode}" if mode not in job.networks
                else ("indicator.needs.service", {}),
            )  # fmt: skip


def _told_weights(zones: Zones, places: Places) -> csr_matrix:
    """Return people of told zones (all, units, areas) at places."""
    return (zones.sums @ places.weights).tocsr()


def tell_commuting(job: Job) -> None:
    """Tell the people of commuting zones by their time to the city (SDG 11.a)."""
    codes = ["zone_people_share", *(f"zone_{m}min" for m in ZONE_MINUTES)]
    book, zones, areas = job.book, job.zones, job.areas
    if areas is None:
        book.missing(codes, "indicator.needs.areas")
        return
    if areas.zones is None or areas.cores is None or not len(areas.zones):
        book.missing(codes, "indicator.needs.zones_of_areas")
        return
    first = zones.units + zones.areas
    parts = zones.cover.parts[first:]
    people = job.people[job.epoch]
    # commuting zones by the row of their area in the told zones
    known = areas.areas["area"].astype(str).tolist()
    slot = np.array([zones.units + 1 + known.index(a) if a in known else -1
                     for a in areas.zones["area"].astype(str)])  # fmt: skip
    mine = slot >= 0

    def by_area(values: Floats) -> Floats:
        found = np.full(len(zones.id), np.nan)
        found[slot[mine]] = np.asarray(values)[mine]
        found[0] = float(np.asarray(values)[mine].sum())
        return found

    total = by_area(parts @ people)
    only = np.isfinite(total)
    common: dict[str, Any] = {
        "epoch": job.epoch, "only": only, "why": "indicator.note.nobody",
        "source": job.source("areas", "network", "population"),
    }  # fmt: skip
    whole = np.full(len(zones.id), np.nan)
    area_people = zones.told(zones.cover.parts @ people)
    whole[zones.kind == "area"] = area_people[zones.kind == "area"]
    whole[0] = float(area_people[zones.kind == "area"].sum())
    book.share("zone_people_share", total, whole, method="indicator.method.zone_people", **common)
    car = job.networks.get("car")
    if car is None:
        book.missing(codes, "indicator.needs.network_car")
        return
    seconds = _seconds_to_cores(job, car, areas.cores)
    for limit in ZONE_MINUTES:
        reached = by_area(parts @ (people * (seconds <= limit * 60)))
        book.share(f"zone_{limit}min", reached, total, method="indicator.method.zone_within",
                   served=job.within("car"), **common)  # fmt: skip


def _seconds_to_cores(job: Job, car: Network, cores: gpd.GeoDataFrame) -> Floats:
    """Return seconds from cells to the nearest city, at the cells of the overlay."""
    from qala.travel import travel_times

    cells, width = job.zones.cover.cells, job.population.shape[1]
    wanted = np.zeros(cells.size, bool)
    wanted[np.unique(job.zones.cover.parts[job.zones.units + job.zones.areas :].indices)] = True
    wanted &= job.people[job.epoch] > 0
    seconds = np.full(cells.size, np.inf)
    if not wanted.any():
        return seconds
    # the window of these cells alone: the raster may be that of the world
    row, col = cells[wanted] // width, cells[wanted] % width
    top, left = int(row.min()), int(col.min())
    window = job.population.isel(
        y=slice(top, int(row.max()) + 1), x=slice(left, int(col.max()) + 1)
    )
    grid = np.zeros(window.shape)
    grid[row - top, col - left] = job.people[job.epoch][wanted]
    near = travel_times(
        car, window.copy(data=grid), cores.reset_index(drop=True), max_minutes=0.01
    ).nearest
    found = near["origin"].to_numpy(dtype=np.int64)
    number = (found // window.shape[1] + top) * width + found % window.shape[1] + left
    at = np.searchsorted(cells, number)
    seconds[at] = np.where(near["by"].isin(["inside", "network"]), near["seconds"], np.inf)
    return seconds


def tell_emergency(job: Job) -> None:
    """Tell who is reached from fire stations and hospitals in time."""
    book, zones, found = job.book, job.zones, job.amenities
    codes = {s: [f"emergency_{s}_{m}min" for m in EMERGENCY_MINUTES] for s in EMERGENCY_NAMES}
    every = [c for group in codes.values() for c in group]
    if found is None:
        book.missing(every, "indicator.needs.osm")
        return
    car = job.networks.get("car")
    if car is None:
        book.missing(every, "indicator.needs.network_car")
        return
    from qala.travel import nearest_seconds

    places = job.places
    known = {s: _lonlat(found.services[s]) for s in EMERGENCY_NAMES if len(found.services[s])}
    times = nearest_seconds(car, places.lon, places.lat, list(known.values()), direction="from")
    people = zones.told(places.weights @ np.ones(places.lon.size))
    for service, seconds in zip(known, times, strict=True):
        for limit in EMERGENCY_MINUTES:
            reached = zones.told(places.weights @ (seconds <= limit * 60).astype(np.float64))
            book.share(
                f"emergency_{service}_{limit}min", reached, people, epoch=job.epoch,
                method=("indicator.method.emergency", {"count": len(found.services[service])}),
                source=job.source("osm", "network", "population"), served=job.within("osm", "car"),
                why="indicator.note.nobody",
            )  # fmt: skip
    book.missing(every, "indicator.needs.service")


# --- 7, 9, 11 to 13: ways, roofs, given layers ------------------------------------------------


def tell_ways(job: Job) -> None:
    """Tell cycle ways, barrier-free paths, and the density of roads, pipes and lines."""
    codes = ["cycle_km", "cycle_share", "barrier_free_km", "barrier_free_share", "roads_density",
             *(f"{kind}_density" for kind in NETWORKS)]  # fmt: skip
    book, zones, found = job.book, job.zones, job.amenities
    if found is None:
        book.missing(codes, "indicator.needs.osm")
        return
    common: dict[str, Any] = {"source": job.source("osm")}
    ways = found.ways
    if len(ways):
        km = kilometres_in(ways.geometry.to_numpy(), zones.degrees)
        length = {
            name: zones.told(km @ ways[name].to_numpy(dtype=np.float64))
            for name in ("road", "cycle", "path", "barrier_free", "rated")
        }
        book.share("roads_density", length["road"], zones.km2, served=job.within("osm"),
                   method="indicator.method.roads_density", **common)  # fmt: skip
        if length["cycle"][0] > 0:
            _tell_km(job, "cycle", length["cycle"], length["road"], common)
        if length["rated"][0] > 0:
            _tell_km(
                job,
                "barrier_free",
                length["barrier_free"],
                length["path"],
                common,
                length["rated"],
            )
    for kind in NETWORKS:
        lines = found.networks[kind]
        if not len(lines):
            continue
        km = kilometres_in(lines.geometry.to_numpy(), zones.degrees)
        book.share(f"{kind}_density", zones.told(km @ np.ones(len(lines))), zones.km2,
                   served=job.within("osm"), method="indicator.method.network_density",
                   **common)  # fmt: skip
    book.missing(["cycle_km", "cycle_share"], "indicator.needs.cycle")
    book.missing(["barrier_free_km", "barrier_free_share"], "indicator.needs.barrier_free")
    book.missing(["roads_density"], "indicator.needs.roads")
    book.missing(codes, "indicator.needs.pipes")


def _tell_km(
    job: Job, name: str, km: Floats, of: Floats, common: dict[str, Any], rated: Floats | None = None
) -> None:
    """Tell length and share of ways; ``rated`` is the length that tells what it is."""
    value, why, notes = km, None, texts(None, len(km))
    served = job.within("osm")
    if served is not None:
        value, why = served.apply(km, None)
        notes = served.notes
    if rated is not None:
        for k in np.flatnonzero((of > 0) & untold(notes)):
            share = round(100 * rated[k] / of[k], 1)
            notes[k] = ("indicator.note.rated", {"share": f"{share:g}"})
    method = f"indicator.method.{name}"
    job.book.add(f"{name}_km", value, numerator=km, method=method, why=why, note=notes, **common)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where((of > 0) & np.isfinite(value), km / of, np.nan)
    if why is None:
        why = texts(None, len(km))
    for k in np.flatnonzero(untold(why)):
        why[k] = ("indicator.note.no_ways", {})
    job.book.add(f"{name}_share", share, numerator=km, denominator=of, method=method, why=why,
                 note=notes, **common)  # fmt: skip


def _points_in(zones: Zones, lon: Floats, lat: Floats, values: Floats) -> Floats:
    """Return the sum of points' values in each polygon."""
    tree = tree_of(lon, lat)
    zone, hit = tree.query(zones.degrees, predicate="intersects")
    return np.bincount(zone, weights=values[hit], minlength=len(zones.degrees)).astype(np.float64)


def tell_roofs(job: Job) -> None:
    """Tell roof area and solar potential of the twin."""
    codes = ["roof_area", "solar_potential", "solar_per_person"]
    book, zones, layer = job.book, job.zones, job.buildings
    if layer is None:
        book.missing(codes, "indicator.needs.city")
        return
    inside = layer.geometry.representative_point().to_crs("EPSG:4326")
    lon, lat = inside.x.to_numpy(), inside.y.to_numpy()

    def told(values: Any) -> Floats:
        return zones.told(_points_in(zones, lon, lat, np.asarray(values, dtype=np.float64)))

    count = told(np.ones(len(layer)))
    roof = told(layer["roof_area"].fillna(0))
    kwh = told(layer["solar_kwh"].fillna(0))
    none = count <= 0
    common: dict[str, Any] = {
        "source": job.source("city"), "why": "indicator.note.outside_twin",
    }  # fmt: skip
    note = texts(None, len(count))
    for k in np.flatnonzero(~none):
        note[k] = ("indicator.note.buildings", {"count": int(count[k])})
    people = zones.told(zones.cover.parts @ job.people[job.epoch])
    book.add("roof_area", np.where(none, np.nan, roof), numerator=roof, note=note,
             method="indicator.method.roof_area", **common)  # fmt: skip
    if not layer["solar_kwh"].notna().any():
        book.missing(codes, "indicator.needs.solar")
        return
    book.add("solar_potential", np.where(none, np.nan, kwh / 1e6), numerator=kwh, note=note,
             method="indicator.method.solar", **common)  # fmt: skip
    with np.errstate(invalid="ignore", divide="ignore"):
        each = np.where(none | ~(people > 0), np.nan, kwh / people)
    book.add("solar_per_person", each, numerator=kwh, denominator=people, epoch=job.epoch,
             note=note, method="indicator.method.solar_per_person", **common)  # fmt: skip


def tell_points(job: Job, reach: Mapping[str, float]) -> None:
    """Tell what given points of facilities cover."""
    book, zones, places = job.book, job.zones, job.places
    people = zones.told(places.weights @ np.ones(places.lon.size))
    for name, layer in job.points.items():
        lon, lat = _lonlat(layer)
        count = zones.told(_points_in(zones, lon, lat, np.ones(lon.size)))
        if not count[0] > 0:
            log.warning("none of the %d points of %s lies in a unit", len(layer), name)
        near = straight_metres(places.lon, places.lat, lon, lat) <= reach[name]
        common: dict[str, Any] = {"item": name, "source": job.source(f"points {name}")}
        book.share("points_covered", zones.told(places.weights @ near.astype(np.float64)), people,
                   epoch=job.epoch, why="indicator.note.nobody",
                   method=("indicator.method.points_covered", {"metres": f"{reach[name]:g}"}),
                   **common)  # fmt: skip
        book.share(
            "points_per_1000",
            count,
            people / 1000,
            epoch=job.epoch,
            why="indicator.note.nobody",
            method="indicator.method.points",
            **common,
        )
        book.share("points_per_km2", count, zones.km2, method="indicator.method.points", **common)
    book.missing(["points_covered", "points_per_1000", "points_per_km2"],
                 "indicator.needs.points")  # fmt: skip


def tell_zones(job: Job) -> None:
    """Tell the people in given zones, or else in protected areas of the extract."""
    book, zones = job.book, job.zones
    people = zones.told(zones.cover.parts @ job.people[job.epoch])
    layers: dict[str, tuple[Any, str, Any]] = {
        name: (layer, f"zones {name}", None) for name, layer in job.risk.items()
    }
    found = job.amenities
    if not layers and found is not None and len(found.protected):
        layers = {"protected_areas": (found.protected, "osm", job.within("osm"))}
    for name, (layer, source, served) in layers.items():
        inside = zones.told(_people_inside(job, layer))
        book.share("people_in_zones", inside, people, epoch=job.epoch, item=name,
                   method="indicator.method.people_in_zones", source=job.source(source),
                   why="indicator.note.nobody", served=served)  # fmt: skip
    book.missing(["people_in_zones"], "indicator.needs.zones")


# --- catchments and the result ----------------------------------------------------------------


def make_catchments(job: Job, limits: Mapping[str, float], reach: Mapping[str, float]) -> None:
    """Make the polygons of what lies within reach."""
    found, made = job.amenities, job.catchments
    foot, car = job.networks.get("foot"), job.networks.get("car")
    size = _resolution(job)
    if found is not None:
        high = found.stops[found.stops["high"].astype(bool)] if len(found.stops) else found.stops
        for name, layer, metres in (
            ("stops", found.stops, limits["stop"]),
            ("high_capacity", high, limits["high"]),
            ("open_space", found.open_space, limits["open"]),
        ):
            near = _near(layer, job)
            if not len(near):
                continue
            key = f"{name}_{metres:g}m"
            if foot is None:
                made[key] = straight_catchment(near, metres)
            else:
                made[key] = _walk_catchment(foot, near, metres, size)
        if car is not None:
            for service in EMERGENCY_NAMES:
                near = _near(found.services[service], job)
                if not len(near):
                    continue
                made[f"emergency_{service}"] = _bands(car, near, EMERGENCY_MINUTES, "from", size)
    for name, layer in job.points.items():
        key = f"{name}_{reach[name]:g}m"
        # a layer of points may be called stops too
        key = f"points_{key}" if key in made else key
        made[key] = straight_catchment(layer.to_crs("EPSG:4326"), reach[name])


def _near(layer: gpd.GeoDataFrame, job: Job) -> gpd.GeoDataFrame:
    """Return what lies in or near the units, so that catchments are not made of a whole extract."""
    import shapely

    if not len(layer):
        return layer
    bounds = np.array(shapely.total_bounds(job.zones.degrees))
    left, bottom, right, top = bounds + np.array([-0.05, -0.05, 0.05, 0.05])
    return layer.cx[left:right, bottom:top].reset_index(drop=True)


def _resolution(job: Job) -> float:
    """Return the cell of contoured surfaces, metres: some 2,500 across the region."""
    import shapely

    left, bottom, right, top = shapely.total_bounds(job.zones.shapes)
    return float(max(right - left, top - bottom) / 2500)


def straight_catchment(layer: gpd.GeoDataFrame, metres: float) -> gpd.GeoDataFrame:
    """Return the area within straight-line metres of points or areas.

    Parameters
    ----------
    layer
        EPSG:4326.
    metres
        Reach.

    Returns
    -------
    geopandas.GeoDataFrame
        EPSG:4326, one row: ``metres``, ``area_km2``, geometry.
    """
    import geopandas as gpd
    import shapely

    from qala.figures import _local_crs

    local = layer.to_crs(_local_crs(layer))
    joined = shapely.union_all(shapely.buffer(local.geometry.to_numpy(), metres, quad_segs=16))
    frame = gpd.GeoDataFrame({"metres": [metres]}, geometry=[joined], crs=local.crs)
    frame.insert(1, "area_km2", frame.area / 1e6)
    return frame.to_crs("EPSG:4326")


def _walk_catchment(
    foot: Network, layer: gpd.GeoDataFrame, metres: float, size: float
) -> gpd.GeoDataFrame:
    minutes = metres * WALK_SECONDS / 60.0
    frame = _bands(_by_length(foot), layer, (minutes,), "to", size, walk=min(100.0, metres))
    return frame.assign(metres=metres)[["metres", "area_km2", "geometry"]]


def _bands(
    network: Network, layer: gpd.GeoDataFrame, minutes: Sequence[float], direction: Any,
    size: float, *, walk: float = 500.0,
) -> gpd.GeoDataFrame:  # fmt: skip
    from qala.travel import isochrones

    least = 20.0 if network.mode == "foot" else 50.0
    found = isochrones(
        network, layer[["geometry"]], minutes, direction=direction, merge=True,
        max_walk_metres=walk, resolution=max(size, least),
    )  # fmt: skip
    return found.drop(columns="id").to_crs("EPSG:4326")
