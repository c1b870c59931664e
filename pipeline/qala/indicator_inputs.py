"""Inputs of indicators, opened and overlaid once, and the book their values are written in."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qala.amenities import Amenities
from qala.errors import InputError, Problems
from qala.grid import cell_area_m2, geobox_of
from qala.indicator_definitions import (
    DEFINITIONS,
    EXTRACT_METRES,
    EXTRACT_SHARE,
    FunctionalAreas,
    Words,
)
from qala.messages import LANGUAGES, tr
from qala.places import Places, in_degrees, people_places, straight_metres, tree_of
from qala.raster import aggregate, require_on_grid, require_population, to_share
from qala.rates import _by_epoch, _serving
from qala.units import Coverage, coverage, require_some_inside
from qala.vector import some, to_crs_of

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    import xarray as xr
    from numpy.typing import NDArray
    from odc.geo.geobox import GeoBox
    from scipy.sparse import csr_matrix

    from qala.network import Network

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]
    Rasters = xr.DataArray | Mapping[Hashable, xr.DataArray]

log = logging.getLogger("qala")

# --- zones ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Zones:
    """Polygons that values are summed in, and the zones they are told of.

    Polygons are units, then areas, then commuting zones; ``sums`` (zones × polygons) makes the
    told ones: all units together, units, areas.
    """

    kind: NDArray[Any]
    id: NDArray[Any]
    name: NDArray[Any]
    sums: csr_matrix
    shapes: NDArray[np.object_]
    degrees: NDArray[np.object_]
    cover: Coverage
    units: int
    areas: int

    def told(self, polygons: Any) -> Floats:
        """Return sums of polygons as sums of zones."""
        return np.asarray(self.sums @ np.asarray(polygons, dtype=np.float64))

    @property
    def km2(self) -> Floats:
        """Area of zones, km²."""
        return self.told(self.cover.area_m2 / 1e6)


def _zones(units: gpd.GeoDataFrame, id: str, areas: FunctionalAreas | None, box: GeoBox,
           lang: str) -> Zones:  # fmt: skip
    """Overlay units, areas and commuting zones with a grid."""
    import geopandas as gpd
    import pandas as pd
    from scipy.sparse import csr_matrix

    from qala.figures import place_names

    frames = [_named(units, id, lang, place_names)]
    if areas is not None:
        frames.append(_named(areas.areas, "area", lang, place_names))
        if areas.zones is not None and len(areas.zones):
            frames.append(_named(areas.zones, "area", lang, place_names))
    crs = frames[0].crs
    parts = [f.to_crs(crs) for f in frames]
    polygons = gpd.GeoDataFrame(pd.concat(parts, ignore_index=True), crs=crs)
    polygons["number"] = np.arange(len(polygons))
    cover = coverage(polygons, box, id="number")
    few = len(frames[0])
    require_some_inside(_first(cover, few, frames[0]["zone"].to_numpy()))
    lost = cover.inside[few:] <= 0
    if lost.any():
        names = polygons["zone"].to_numpy()[few:][lost]
        raise InputError(
            f"{int(lost.sum())} of {len(lost)} functional areas or commuting zones lie wholly "
            f"outside the population grid: {some(dict.fromkeys(names))}",
            "areas of the same region",
            "add the raster tiles that cover them, or take these areas out",
        )
    shapes = to_crs_of(polygons, box)
    size = len(parts[1]) if areas is not None else 0
    row = np.concatenate([np.zeros(few), np.arange(1, few + size + 1)]).astype(np.int64)
    column = np.concatenate([np.arange(few), np.arange(few + size)]).astype(np.int64)
    sums = csr_matrix((np.ones(row.size), (row, column)), shape=(few + size + 1, len(polygons)))
    told = polygons.iloc[: few + size]
    return Zones(
        kind=np.array(["all", *["unit"] * few, *["area"] * size], dtype=object),
        id=np.array(["all", *told["zone"].astype(str)], dtype=object),
        name=np.array([tr("indicator.all_units", lang), *told["name"]], dtype=object),
        sums=sums,
        shapes=shapes,
        degrees=in_degrees(shapes, box),
        cover=cover,
        units=few,
        areas=size,
    )


def _first(cover: Coverage, count: int, ids: NDArray[Any]) -> Coverage:
    """Return the part of an overlay that tells of units, for its checks."""
    return replace(
        cover, ids=ids, parts=cover.parts[:count], touched=cover.touched[:count],
        inside=cover.inside[:count], area_m2=cover.area_m2[:count],
    )  # fmt: skip


def _named(frame: gpd.GeoDataFrame, id: str, lang: str, names: Any) -> gpd.GeoDataFrame:
    """Return polygons with their id in ``zone`` and a name."""
    import geopandas as gpd

    ids = frame[id].astype(str).str.strip().to_numpy(dtype=object)
    known = any(str(c) == "name" or str(c).startswith("name_") for c in frame.columns)
    name = names(frame, lang) if known else ids
    return gpd.GeoDataFrame(
        {"zone": ids, "name": np.asarray(name, dtype=object)},
        geometry=np.asarray(frame.geometry.array, dtype=object), crs=frame.crs,
    )  # fmt: skip


# --- the book ---------------------------------------------------------------------------------


class Book:
    """Rows of the long table while they are found."""

    def __init__(self, zones: Zones) -> None:
        self.zones = zones
        self.parts: list[pd.DataFrame] = []
        self.found: set[str] = set()

    def add(
        self,
        code: str,
        value: Any,
        *,
        method: Words | str,
        source: str,
        numerator: Any = np.nan,
        denominator: Any = np.nan,
        epoch: Any = None,
        since: Any = None,
        item: str = "",
        why: Any = None,
        note: Any = None,
        only: Bools | None = None,
    ) -> None:
        """Note the values of all zones.

        ``why`` tells of zones without a value what keeps it from being computed; ``note`` says
        something of those that have one. Each is one text, or an array with one a zone.
        """
        import pandas as pd

        zones = self.zones
        size = len(zones.id)
        values = np.broadcast_to(np.asarray(value, dtype=np.float64), size)
        known = np.isfinite(values)
        notes = np.where(known, texts(note, size), texts(why, size))
        definition = DEFINITIONS[code]
        table = pd.DataFrame(
            {
                "group": definition.group,
                "sdg": definition.sdg,
                "indicator": code,
                "item": item,
                "zone_kind": zones.kind,
                "zone": zones.id,
                "name": zones.name,
                "epoch": None if epoch is None else str(epoch),
                "since": None if since is None else str(since),
                "value": np.where(known, values, np.nan),
                "unit": definition.unit,
                "numerator": np.broadcast_to(np.asarray(numerator, np.float64), size),
                "denominator": np.broadcast_to(np.asarray(denominator, np.float64), size),
                "status": np.where(known, "computed", "not computed"),
                "note": notes,
                "method": texts(words_of(method), size),
                "source": source,
            }
        )
        # a zone without a value has no numerator either: a 0 would look like one
        table.loc[~known, ["numerator", "denominator"]] = np.nan
        if only is not None:
            table = table[only]
        self.parts.append(table)
        self.found.add(code)

    def share(self, code: str, numerator: Any, denominator: Any, **more: Any) -> None:
        """Note a quotient; where the denominator is 0 it is not computed."""
        top, bottom = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            value = np.where(bottom > 0, top / bottom, np.nan)
        served = more.pop("served", None)
        why = more.pop("why", ("indicator.note.nothing", {}))
        if served is not None:
            value, why = served.apply(value, why)
            more["note"] = served.notes
        self.add(code, value, numerator=top, denominator=bottom, why=why, **more)

    def missing(self, codes: Sequence[str], needs: Words | str, *, item: str = "") -> None:
        """List indicators that the inputs do not allow, with what they need."""
        import pandas as pd

        for code in codes:
            if code in self.found:
                continue
            definition = DEFINITIONS[code]
            never = definition.group == 0
            self.parts.append(
                pd.DataFrame(
                    {
                        "group": definition.group, "sdg": definition.sdg, "indicator": code,
                        "item": item, "zone_kind": "all", "zone": "all",
                        "name": self.zones.name[:1], "epoch": None, "since": None,
                        "value": np.nan, "unit": definition.unit, "numerator": np.nan,
                        "denominator": np.nan,
                        "status": "not computable" if never else "not computed",
                        "note": texts(words_of(needs), 1), "method": texts(None, 1), "source": "",
                    }
                )
            )  # fmt: skip
            self.found.add(code)

    def rows(self) -> pd.DataFrame:
        """Return all rows in the order of the definitions; what is not computable last."""
        import pandas as pd

        order = {code: number for number, code in enumerate(DEFINITIONS)}
        table = pd.concat(self.parts, ignore_index=True)
        rank = table["indicator"].map(order)
        return (
            table.assign(_rank=rank)
            .sort_values("_rank", kind="stable", ignore_index=True)
            .drop(columns="_rank")
        )


def words_of(text: Words | str | None) -> Words | None:
    """Return a text of the catalog with its values; a key alone has none."""
    return (text, {}) if isinstance(text, str) else text


def untold(notes: NDArray[np.object_]) -> Bools:
    """Return where no text is told yet."""
    return np.array([note is None for note in notes], dtype=bool)


def texts(words: Any, size: int) -> NDArray[np.object_]:
    """Return one text a zone."""
    if isinstance(words, np.ndarray):
        return words
    found = np.empty(size, dtype=object)
    for k in range(size):
        found[k] = words_of(words)
    return found


@dataclass(frozen=True, eq=False)
class Job:
    """Opened and overlaid inputs, and the book their indicators are written in."""

    zones: Zones
    book: Book
    epochs: list[Any]
    people: dict[Any, Floats]
    built: dict[Any, Floats | None]
    places: Places
    #: on the grid of 1 km: its zones, people, built-up m², classes, land share
    coarse: Coarse | None
    units: gpd.GeoDataFrame
    id: str
    areas: FunctionalAreas | None
    official: pd.DataFrame | None
    networks: Mapping[str, Network]
    amenities: Amenities | None
    buildings: gpd.GeoDataFrame | None
    points: Mapping[str, gpd.GeoDataFrame]
    risk: Mapping[str, gpd.GeoDataFrame]
    sources: Mapping[str, str]
    lang: str
    served: Mapping[str, Served]
    population: xr.DataArray
    catchments: dict[str, gpd.GeoDataFrame] = field(default_factory=dict)

    @property
    def epoch(self) -> Any:
        """The last epoch, that access is told of."""
        return self.epochs[-1]

    def source(self, *names: str) -> str:
        """Return the names of the files behind an indicator."""
        return "; ".join(dict.fromkeys(self.sources[n] for n in names if self.sources.get(n)))

    def within(self, *sources: str) -> Served | None:
        """Return which zones sources cover together: ``osm``, ``foot``, ``car``."""
        found: Served | None = None
        for name in sources:
            one = self.served.get(name)
            if one is not None:
                found = one if found is None else found.joined(one)
        return found

    @classmethod
    def of(
        cls, units: gpd.GeoDataFrame, population: Rasters, built: Rasters | None,
        land: Rasters | None, *, id: str, cells: Rasters | None, areas: Any, official: Any,
        networks: Any, amenities: Amenities | None, buildings: Any, points: Any, zones: Any,
        ruleset: str, spacing: float, sources: Mapping[str, str] | None, lang: str,
    ) -> Job:  # fmt: skip
        """Check inputs, gathering what is wrong, and overlay them."""
        if lang not in LANGUAGES:
            raise InputError(f"language {lang!r}", "one of " + ", ".join(LANGUAGES))
        if not spacing > 0:
            raise InputError(f"spacing is {spacing}", "metres above 0")
        rasters = _by_epoch(population, "population")
        epochs = list(rasters)
        first = rasters[epochs[0]]
        box = require_population(first)
        surface = _serving_known(built, epochs, "built")
        ground = _serving(land, epochs, "land")
        classes = None if cells is None else _serving(cells, epochs, "cells")
        require_on_grid(
            first,
            **{f"population of {e}": rasters[e] for e in epochs[1:]},
            **{f"built of {e}": r for e, r in surface.items() if r is not None},
            **{f"land of {e}": r for e, r in ground.items() if r is not None},
        )
        found = _areas_of(areas)
        modes = _networks_of(networks)
        _check_layers(points or {}, zones or {}, buildings, found)
        if id not in units.columns:
            raise InputError(
                f"the units have no column {id!r}",
                f"one of: {', '.join(str(c) for c in units.columns if c != units.geometry.name)}",
                "name the column of unit ids with --id (id=)",
            )
        told = _zones(units, id, found, box, lang)
        people = _people(told.cover, rasters)
        have = {e: r for e, r in surface.items() if r is not None}
        area = cell_area_m2(box)
        values = told.cover.take(*have.values()) if have else []
        m2 = dict.fromkeys(epochs, None) | {
            e: np.nan_to_num(v.astype(np.float64)) * to_share(r) * area
            for (e, r), v in zip(have.items(), values, strict=True)
        }
        coarse = _coarse(
            told, units, id, found, rasters, surface, ground, classes, people, m2, ruleset, lang
        )
        places = people_places(told.cover, people[epochs[-1]], told.shapes, spacing=spacing)
        served = _all_served(told, places, amenities, modes)
        return cls(
            zones=told, book=Book(told), epochs=epochs, people=people, built=m2, places=places,
            coarse=coarse, units=units, id=id, areas=found, official=official, networks=modes,
            amenities=amenities, buildings=buildings, points=points or {}, risk=zones or {},
            sources=sources or {}, lang=lang, served=served, population=rasters[epochs[-1]],
        )  # fmt: skip


def _serving_known(built: Any, epochs: Sequence[Any], name: str) -> dict[Any, Any]:
    """Return the built-up surface of each epoch; None where an epoch has none."""
    if built is None:
        return dict.fromkeys(epochs)
    if not isinstance(built, Mapping):
        if len(epochs) > 1:
            log.warning("one raster of %s for %d epochs: it serves the last", name, len(epochs))
        return {**dict.fromkeys(epochs), epochs[-1]: built}
    given = _by_epoch(built, name)
    strange = [e for e in given if e not in epochs]
    if strange:
        raise InputError(
            f"{name} is given for {some(strange)}, the population for {some(epochs)}",
            "epochs of the population",
            "name the same epochs in --population and --built",
        )
    return {e: given.get(e) for e in epochs}


def _areas_of(areas: Any) -> FunctionalAreas | None:
    if areas is None or isinstance(areas, FunctionalAreas):
        return areas
    return FunctionalAreas(areas)


def _networks_of(networks: Any) -> Mapping[str, Network]:
    if networks is None:
        return {}
    if not isinstance(networks, Mapping):
        return {networks.mode: networks}
    wrong = [f"{k} is of mode {n.mode}" for k, n in networks.items() if k != n.mode]
    if wrong:
        raise InputError(f"networks are mixed up: {some(wrong)}", "foot → foot, car → car")
    return networks


def _check_layers(
    points: Mapping[str, Any], zones: Mapping[str, Any], buildings: Any,
    areas: FunctionalAreas | None,
) -> None:  # fmt: skip
    """Refuse layers that cannot be placed, all at once."""
    problems = Problems("layers")
    wanted = [
        *((f"points {n!r}", f, {"Point", "MultiPoint"}) for n, f in points.items()),
        *((f"zones {n!r}", f, {"Polygon", "MultiPolygon"}) for n, f in zones.items()),
    ]
    if buildings is not None:
        wanted.append(("buildings of the twin", buildings, {"Polygon", "MultiPolygon"}))
        lost = [c for c in ("roof_area", "solar_kwh") if c not in buildings.columns]
        if lost:
            problems.add(f"buildings of the twin have no column {', '.join(lost)}",
                         "the layer footprints of city.gpkg")  # fmt: skip
    if areas is not None:
        for name, frame in (("areas", areas.areas), ("cores", areas.cores), ("zones", areas.zones)):
            if frame is None:
                continue
            wanted.append((f"functional {name}", frame, {"Polygon", "MultiPolygon"}))
            if "area" not in frame.columns:
                problems.add(f"functional {name} have no column 'area'",
                             "areas as `qala areas` writes them")  # fmt: skip
    for name, frame, kinds in wanted:
        if frame.crs is None:
            problems.add(f"{name} have no CRS", "a declared CRS", "assign it with set_crs()")
        met = set(frame.geom_type.dropna()) - kinds
        if met:
            problems.add(f"{name} hold {', '.join(sorted(met))}", " or ".join(sorted(kinds)))
        if not len(frame):
            problems.add(f"{name} are empty", "at least one feature")
    problems.raise_if_any()


def _people(cover: Coverage, rasters: Mapping[Any, xr.DataArray]) -> dict[Any, Floats]:
    """Return people at the cells of an overlay, by epoch; negative ones are refused."""
    values = cover.take(*rasters.values())
    problems = Problems("population")
    found = {}
    for epoch, value in zip(rasters, values, strict=True):
        numbers = value.astype(np.float64)
        with np.errstate(invalid="ignore"):
            wrong = (numbers < 0) | np.isinf(numbers)
        if wrong.any():
            named = "" if epoch is None else f" of {epoch}"
            problems.add(
                f"{int(wrong.sum())} cells{named} hold negative or infinite counts, such as "
                f"{numbers[wrong][0]:g}",
                "people per cell, at least 0",
                "declare the missing value with --nodata",
            )
        found[epoch] = np.nan_to_num(numbers)
    problems.raise_if_any()
    return found


@dataclass(frozen=True, eq=False)
class Coarse:
    """Cells of 1 km, on which the Degree of Urbanisation is defined."""

    zones: Zones
    population: dict[Any, xr.DataArray]
    classes: dict[Any, xr.DataArray]
    people: dict[Any, Floats]
    built: dict[Any, Floats | None]
    codes: dict[Any, NDArray[Any]]
    land: Floats


def _coarse(
    zones: Zones, units: Any, id: str, areas: Any, rasters: Mapping[Any, xr.DataArray],
    built: Mapping[Any, Any], land: Mapping[Any, Any], cells: Mapping[Any, Any] | None,
    people: dict[Any, Floats], m2: dict[Any, Floats | None], ruleset: str, lang: str,
) -> Coarse | None:  # fmt: skip
    """Sum rasters to 1 km where they are finer, and classify the cells; None where they do not."""
    from qala.settlement import classify_cells

    box = zones.cover.box
    size = box.transform.a
    fold = round(1000.0 / size)
    if fold < 1 or abs(fold * size - 1000.0) > 1e-6:
        log.warning("cells of %g m do not make cells of 1 km; urban shares are left out", size)
        return None

    def folded(raster: Any) -> Any:
        return raster if raster is None or fold == 1 else aggregate(raster, fold)

    coarse = {e: folded(r) for e, r in rasters.items()}
    surface = {e: folded(r) for e, r in built.items()}
    ground = {e: folded(r) for e, r in land.items()}
    classes = {
        e: (
            classify_cells(coarse[e], surface[e], ground[e], level=2, ruleset=ruleset)
            if cells is None
            else cells[e]
        ).compute()
        for e in coarse
    }
    here = zones
    if fold > 1:
        here = _zones(units, id, areas, geobox_of(coarse[next(iter(coarse))]), lang)
        people = _people(here.cover, coarse)
        have = {e: r for e, r in surface.items() if r is not None}
        values = here.cover.take(*have.values()) if have else []
        area = cell_area_m2(here.cover.box)
        m2 = dict.fromkeys(rasters, None) | {
            e: np.nan_to_num(v.astype(np.float64)) * to_share(r) * area
            for (e, r), v in zip(have.items(), values, strict=True)
        }
    codes = dict(zip(classes, here.cover.take(*classes.values()), strict=True))
    last = ground[list(coarse)[-1]]
    share = np.ones(here.cover.cells.size)
    if last is not None:
        (value,) = here.cover.take(last)
        share = np.clip(np.nan_to_num(value.astype(np.float64)) * to_share(last), 0, 1)
    return Coarse(here, coarse, classes, people, m2, codes, share)


@dataclass(frozen=True, eq=False)
class Served:
    """Which zones a source covers, by the people who live near what it maps.

    Attributes
    ----------
    share
        Share of a zone's people who live near it.
    kind
        ``extract`` or ``network``: what the share is of, a word a zone.
    """

    share: Floats
    kind: NDArray[np.object_]

    @property
    def notes(self) -> NDArray[np.object_]:
        """Return what is said of zones that are covered in part."""
        notes = texts(None, len(self.share))
        for k in np.flatnonzero((self.share >= EXTRACT_SHARE) & (self.share < 0.95)):
            out = {"share": round(100 * (1 - float(self.share[k])))}
            notes[k] = (f"indicator.note.partly_outside_{self.kind[k]}", out)
        return notes

    def apply(self, value: Floats, why: Any) -> tuple[Floats, NDArray[np.object_]]:
        """Take the values of zones outside away, and say so."""
        outside = ~(self.share >= EXTRACT_SHARE)
        reasons = texts(why, len(self.share)).copy()
        for k in np.flatnonzero(outside):
            reasons[k] = (f"indicator.note.outside_{self.kind[k]}", {})
        return np.where(outside, np.nan, value), reasons

    def joined(self, other: Served) -> Served:
        """Return what both cover, zone by zone."""
        less = other.share < self.share
        return Served(
            np.where(less, other.share, self.share), np.where(less, other.kind, self.kind)
        )


def served_by(
    zones: Zones, places: Places, lon: Floats, lat: Floats, kind: str, metres: float
) -> Served:
    """Return which zones points of a source cover.

    Parameters
    ----------
    zones, places
        The zones, and the people in them.
    lon, lat
        Points of all that the source maps, degrees.
    kind
        ``extract`` or ``network``.
    metres
        People farther from every point live outside.
    """
    near = straight_metres(places.lon, places.lat, lon, lat) <= metres
    weights = places.weights
    whole = zones.told(weights @ np.ones(near.size))
    inside = zones.told(weights @ near.astype(np.float64))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(whole > 0, inside / whole, np.nan)
    # land without people belongs to the source where something of it lies there
    bare = ~(whole > 0)
    if bare.any():
        hit = np.zeros(len(zones.shapes))
        tree = tree_of(lon, lat)
        hit[np.unique(tree.query(zones.degrees, predicate="intersects")[0])] = 1.0
        share = np.where(bare, (zones.told(hit) > 0).astype(np.float64), share)
    return Served(share, np.full(len(share), kind, dtype=object))


def _mapped_points(amenities: Amenities) -> tuple[Floats, Floats]:
    """Return points of all that people of an extract live near: streets, stops, services, green."""
    import shapely

    streets = shapely.segmentize(amenities.ways.geometry.to_numpy(), 0.01)
    layers = [amenities.stops, amenities.green, *amenities.services.values()]
    others = [layer.geometry.to_numpy() for layer in layers]
    at = np.concatenate([shapely.get_coordinates(shapes) for shapes in (streets, *others)])
    return at[:, 0], at[:, 1]


def _road_points(network: Network) -> tuple[Floats, Floats]:
    """Return points along the roads of a network, at most some kilometre apart."""
    import shapely

    drawn = np.column_stack([network.geometry_lon, network.geometry_lat]) * 1e-7
    lines = shapely.from_ragged_array(
        shapely.GeometryType.LINESTRING, drawn, (network.geometry_ptr,)
    )
    at = shapely.get_coordinates(shapely.segmentize(lines, 0.01))
    return at[:, 0], at[:, 1]


def _all_served(
    zones: Zones, places: Places, amenities: Amenities | None, networks: Mapping[str, Network]
) -> dict[str, Served]:
    """Return what each source covers; one that covers nobody is of another region.

    Raises
    ------
    InputError
        Naming every source that lies elsewhere.
    """
    from qala.travel import MAX_ACCESS_METRES

    found: dict[str, Served] = {}
    problems = Problems("indicators")
    named: list[tuple[str, str, str, Any, Any]] = [
        (mode, f"the {mode} network", "network", *_road_points(net))
        for mode, net in networks.items()
    ]
    if amenities is not None:
        name = amenities.source or "the extract"
        named.append(("osm", name, "extract", *_mapped_points(amenities)))
    for key, name, kind, lon, lat in named:
        reach = MAX_ACCESS_METRES if kind == "network" else EXTRACT_METRES
        found[key] = served_by(zones, places, lon, lat, kind, reach)
        if places.lon.size and lon.size and not found[key].share[0] > 0:
            there, here = (
                f"{x.min():.3f} to {x.max():.3f} east, {y.min():.3f} to {y.max():.3f} north"
                for x, y in ((lon, lat), (places.lon, places.lat))
            )
            problems.add(
                f"{name} maps nothing near anybody: it covers {there}",
                f"one of the units, whose people live {here}",
                "name the extract of their region",
            )
    problems.raise_if_any()
    return found
