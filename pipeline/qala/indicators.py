"""Indicators of SDG 11 and kin: what spatial data can tell planners, unit by unit.

Every value carries its numerator, denominator, epoch, method and source. What the inputs do not
allow is listed as not computed with what it needs, and what such data can never tell (measured
speed of traffic, CO₂, air quality, use of energy, crime) as not computable; neither is ever 0.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qala import indicator_steps as steps_of
from qala.amenities import Amenities
from qala.errors import InputError
from qala.indicator_definitions import (
    DEFINITIONS,
    HIGH_METRES,
    MIN_GROWTH,
    NOT_COMPUTABLE,
    OPEN_METRES,
    POINT_METRES,
    SPACING_METRES,
    STOP_METRES,
    FunctionalAreas,
)
from qala.indicator_inputs import Job
from qala.indicator_steps import land_consumption
from qala.messages import tr
from qala.vector import some

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    import xarray as xr

    from qala.network import Network

    Rasters = xr.DataArray | Mapping[Hashable, xr.DataArray]

log = logging.getLogger("qala")

Progress = Callable[[int, int], None]

__all__ = ["FunctionalAreas", "Indicators", "land_consumption", "planning_indicators"]


@dataclass(frozen=True, eq=False)
class Indicators:
    """Values of all indicators, and the maps behind them.

    Attributes
    ----------
    rows
        One row an indicator, zone and epoch, texts as keys of the catalog; see :meth:`table`.
    units, areas
        The polygons the values belong to, with their ids in ``zone``.
    catchments
        Name → polygons: what lies within reach of stops, open space and services.
    settings
        Limits and sources.
    warnings
        What was met and left, in English.
    """

    rows: pd.DataFrame
    units: gpd.GeoDataFrame
    areas: gpd.GeoDataFrame | None
    catchments: Mapping[str, gpd.GeoDataFrame]
    settings: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    def table(self, lang: str = "en") -> pd.DataFrame:
        """Return the long table with its words in a language.

        Returns
        -------
        pandas.DataFrame
            ``group, sdg, indicator, item, title, zone_kind`` (all, unit, area)``, zone, name,
            epoch, since, value, unit, numerator, denominator, status`` (computed, not computed,
            not computable)``, note, method, source``. Shares are 0–1.
        """
        told: dict[Any, str] = {}

        def text(words: Any) -> str:
            if words is None:
                return ""
            key = (words[0], tuple(sorted(words[1].items())))
            if key not in told:
                told[key] = tr(words[0], lang, **words[1])
            return told[key]

        rows = self.rows
        pairs = zip(rows["indicator"], rows["item"], strict=True)
        titles = [DEFINITIONS[c].title(lang, item) for c, item in pairs]
        table = rows.assign(
            title=titles, note=rows["note"].map(text), method=rows["method"].map(text)
        )
        return table[list(COLUMNS)]

    def wide(self, kind: str = "unit") -> gpd.GeoDataFrame:
        """Return one row a unit or area, one column an indicator (its latest epoch).

        Parameters
        ----------
        kind
            ``unit`` or ``area``.

        Returns
        -------
        geopandas.GeoDataFrame
            ``zone, name``, a column an indicator computed anywhere (``indicator`` or
            ``indicator_item``), geometry.
        """
        frame = self.units if kind == "unit" else self.areas
        if frame is None:
            raise InputError("no functional areas were given", "areas", "pass --areas (areas=)")
        rows = self.rows[(self.rows["zone_kind"] == kind) & (self.rows["status"] == "computed")]
        # the last epoch of an indicator comes last, the longest pair of epochs first
        rows = rows.assign(_column=column_names(rows)).drop_duplicates(
            ["zone", "_column"], keep="last"
        )
        order = list(dict.fromkeys(column_names(self.rows)))
        table = rows.pivot(index="zone", columns="_column", values="value")
        table = table.reindex(columns=[c for c in order if c in table.columns])
        found = frame.merge(table.astype(float), how="left", left_on="zone", right_index=True)
        return found[[*(c for c in found.columns if c != "geometry"), "geometry"]]


def column_names(rows: pd.DataFrame) -> pd.Series[Any]:
    """Return the column of the wide table that each row of the long one belongs to."""
    item = rows["item"].map(lambda v: f"_{v}" if v else "")
    names: pd.Series[Any] = rows["indicator"] + item
    return names


COLUMNS = (
    "group", "sdg", "indicator", "item", "title", "zone_kind", "zone", "name", "epoch", "since",
    "value", "unit", "numerator", "denominator", "status", "note", "method", "source",
)  # fmt: skip


# --- the recipe -------------------------------------------------------------------------------


def planning_indicators(
    units: gpd.GeoDataFrame,
    population: Rasters,
    built: Rasters | None = None,
    land: Rasters | None = None,
    *,
    id: str,
    cells: Rasters | None = None,
    areas: FunctionalAreas | gpd.GeoDataFrame | None = None,
    official: pd.DataFrame | None = None,
    networks: Mapping[str, Network] | Network | None = None,
    amenities: Amenities | None = None,
    buildings: gpd.GeoDataFrame | None = None,
    points: Mapping[str, gpd.GeoDataFrame] | None = None,
    zones: Mapping[str, gpd.GeoDataFrame] | None = None,
    ruleset: str = "R2023A",
    stop_metres: float = STOP_METRES,
    high_metres: float = HIGH_METRES,
    open_metres: float = OPEN_METRES,
    point_metres: float | Mapping[str, float] = POINT_METRES,
    min_growth: float = MIN_GROWTH,
    spacing: float = SPACING_METRES,
    catchments: bool = True,
    sources: Mapping[str, str] | None = None,
    lang: str = "en",
    progress: Progress | None = None,
) -> Indicators:
    """Return indicators of SDG 11 and kin for units, functional areas and all units together.

    Parameters
    ----------
    units
        Polygons in any declared CRS, sound ones (:func:`qala.read_units`).
    population
        dims (y, x), people per cell of an equal-area grid; or a mapping of epochs to such
        rasters, all on one grid.
    built, land
        Built-up surface and permanent land on the same grid, m², share or percent per cell
        (``attrs["units"]``); a mapping of epochs, or one raster.
    id
        Column of unit ids.
    cells
        Level-2 classes by epoch, in place of classifying the population here.
    areas
        Functional areas; polygons with ``area`` alone, or with their cores and zones.
    official
        Official urban shares, as :func:`qala.rates.read_official` gives them.
    networks
        Roads by mode (``foot``, ``car``), or one network.
    amenities
        From :func:`qala.amenities.read_amenities`.
    buildings
        Of a twin: ``roof_area`` (m²) and ``solar_kwh`` (kWh a year).
    points, zones
        Name → points of facilities, and name → polygons of protection or risk.
    ruleset
        Rules of the urban cells.
    stop_metres, high_metres, open_metres
        Walking distances to stops, to stops of high capacity and to open space.
    point_metres
        Straight-line reach of given points, one for all or by name.
    min_growth
        Growth a year below which SDG 11.3.1 has no ratio.
    spacing
        Metres between the points that stand for the people of a cell.
    catchments
        Make the polygons of what is in reach.
    sources
        Name of the file each input came from, for the column ``source``.
    lang
        Language of names.
    progress
        Called with the number of steps done and in all.

    Returns
    -------
    Indicators
        See :meth:`Indicators.table` and :meth:`Indicators.wide`.

    Raises
    ------
    InputError
        When inputs are not sound or do not fit together. What they do not allow is no error:
        it is listed as not computed.

    Notes
    -----
    Formulas and sources of each indicator: docs/indicators.md.
    """
    job = Job.of(
        units, population, built, land, id=id, cells=cells, areas=areas, official=official,
        networks=networks, amenities=amenities, buildings=buildings, points=points, zones=zones,
        ruleset=ruleset, spacing=spacing, sources=sources, lang=lang,
    )  # fmt: skip
    limits = {
        "stop": stop_metres, "high": high_metres, "open": open_metres, "growth": min_growth,
    }  # fmt: skip
    for name, value in limits.items():
        if not value > 0:
            raise InputError(f"the limit {name!r} is {value}", "a number above 0")
    reach = _reach_of_points(points or {}, point_metres)
    steps: list[tuple[str, Callable[[], None]]] = [
        ("land", lambda: steps_of.tell_land(job, min_growth)),
        ("urban", lambda: steps_of.tell_urban(job)),
        ("growth", lambda: steps_of.tell_growth(job)),
        ("walk", lambda: steps_of.tell_walking(job, limits)),
        ("open", lambda: steps_of.tell_open_space(job)),
        ("services", lambda: steps_of.tell_services(job)),
        ("ways", lambda: steps_of.tell_ways(job)),
        ("zones", lambda: steps_of.tell_commuting(job)),
        ("roofs", lambda: steps_of.tell_roofs(job)),
        ("emergency", lambda: steps_of.tell_emergency(job)),
        ("points", lambda: steps_of.tell_points(job, reach)),
        ("risk", lambda: steps_of.tell_zones(job)),
    ]
    if catchments:
        steps.append(("catchments", lambda: steps_of.make_catchments(job, limits, reach)))
    for number, (name, step) in enumerate(steps):
        if progress:
            progress(number, len(steps))
        log.debug("indicators: %s", name)
        step()
    job.book.missing(NOT_COMPUTABLE, "indicator.needs.measurement")
    if progress:
        progress(len(steps), len(steps))
    return _result(job, limits)


def _reach_of_points(
    points: Mapping[str, Any], metres: float | Mapping[str, float]
) -> dict[str, float]:
    given = metres if isinstance(metres, Mapping) else dict.fromkeys(points, float(metres))
    reach = {name: float(given.get(name, POINT_METRES)) for name in points}
    wrong = [f"{name} ({value:g})" for name, value in reach.items() if not value > 0]
    if wrong:
        raise InputError(f"the reach of {some(wrong)} is not above 0", "metres above 0")
    return reach


def _result(job: Job, limits: Mapping[str, float]) -> Indicators:
    import geopandas as gpd

    zones = job.zones

    def frame(kind: str, layer: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
        chosen = zones.kind == kind
        names = {str(c): layer[c].to_numpy() for c in layer.columns if str(c).startswith("name_")}
        return gpd.GeoDataFrame(
            {"zone": zones.id[chosen], "name": zones.name[chosen], **names},
            geometry=np.asarray(layer.geometry.array, dtype=object), crs=layer.crs,
        )  # fmt: skip

    rows = job.book.rows()
    told = rows.drop_duplicates(["indicator", "item"])
    return Indicators(
        rows=rows,
        units=frame("unit", job.units),
        areas=None if job.areas is None else frame("area", job.areas.areas),
        catchments=dict(job.catchments),
        settings={
            "epochs": [str(e) for e in job.epochs],
            "limits": dict(limits),
            "spacing_metres": job.places.spacing,
            "places": int(job.places.lon.size),
            "networks": sorted(job.networks),
            "indicators": len(told),
        },
    )
