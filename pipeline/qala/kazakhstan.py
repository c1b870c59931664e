"""Kazakhstan's units, places and official statistics, brought to one set of ids.

OpenStreetMap names units in Russian, the Bureau of National Statistics (BNS)
in Kazakh; explicit tables in ``catalogs/kazakhstan`` match them. Results made
from these carry "© OpenStreetMap contributors, ODbL 1.0".
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from qala.census import Reconciled, Spread, grid_from_points, reconcile
from qala.errors import InputError, Problems
from qala.grid import GHSL_CRS, ghsl_geobox
from qala.resources import resource
from qala.units import coverage

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    import xarray as xr
    from odc.geo.geobox import GeoBox

log = logging.getLogger("qala")

OSM_NOTICE = "© OpenStreetMap contributors, ODbL 1.0"
_FILES = {
    "districts": "turkistan_districts_OSM_ODbL.geojson",
    "oblasts": "osm_boundaries_KZ_oblasts_2023.geojson",
    "places": "hotosm_kaz_populated_places_points.geojson",
    "bns2023": "derived_BNS_population_2023_tidy.csv",
    "bns2026": "turkistan_region_statistics_BNS_2026.json",
}
_BNS_2023 = "BNS, population by type of settlement, 1 January 2023"
_BNS_2026 = "BNS, population of Turkistan region, start of 2026"
_OSM_TAG = "OpenStreetMap, tag population (undated)"
#: people of a place without a figure, before it is scaled to its unit: medians of
#: the 299 places of the region that OpenStreetMap gives a population
_TYPICAL = {"city": 50_000.0, "town": 20_000.0, "village": 1071.0, "hamlet": 223.0}
_TYPICAL_DWELLING = 11.0
#: standard deviation of the logarithm of the populations above 50 of its villages (1.07)
_VILLAGE_SPREAD = 1.07
_SHYMKENT = "kz.79"
#: share of a cell inside the units that counts as the whole cell, and the weight of the others
_WHOLE, _CUT = 0.999, 1e-6


class Turkistan(NamedTuple):
    """Input of the Turkistan run.

    Attributes
    ----------
    units
        The 17 units of Turkistan region and Shymkent, ESRI:54009, without
        overlaps or gaps: ``unit, name_kk, name_ru, name_en, kind, geometry``.
    places
        Settlements, EPSG:4326: ``id, unit, name_kk, name_ru, name_en, place,
        population, year, source, source_id, modelled, geometry``.
    official
        ``unit, epoch, population, urban, rural, source``; people, missing where
        nothing is published.
    """

    units: gpd.GeoDataFrame
    places: gpd.GeoDataFrame
    official: pd.DataFrame


def prepare_turkistan(folder: str | Path, *, seed: int | None = None) -> Turkistan:
    """Bring the boundaries, places and statistics of Turkistan region together.

    Settlements take the figure of BNS 2023 where it names them, else their
    OpenStreetMap tag. What then remains of a unit's total is shared among its
    other places by kind and marked as modelled.

    Parameters
    ----------
    folder
        Folder with the source files.
    seed
        Draw the sizes of modelled villages from a log-normal distribution with
        the spread of the known ones; default: the median of their kind.

    Raises
    ------
    InputError
        When files or rows of the matching tables are missing; all at once.
    """
    base = Path(folder)
    _require_files(base, ["districts", "oblasts", "places", "bns2023", "bns2026"])
    units = _units(base)
    official = _official(base, units["unit"].tolist())
    places = _places(base, units, official, seed)
    return Turkistan(units, places, official)


def prepare_regions(folder: str | Path) -> tuple[gpd.GeoDataFrame, pd.DataFrame]:
    """Bring the 17 regions and 3 cities of republican significance together.

    Parameters
    ----------
    folder
        Folder with the source files.

    Returns
    -------
    tuple
        Units in ESRI:54009 (``unit, name_kk, name_ru, name_en, geometry``) and
        the official table of 2023 as :func:`prepare_turkistan` gives it.
    """
    import geopandas as gpd

    base = Path(folder)
    _require_files(base, ["oblasts", "bns2023"])
    table = _table("oblasts.csv")
    shapes = gpd.read_file(base / _FILES["oblasts"]).to_crs(GHSL_CRS)
    units = _match(table, shapes, "id", "oblasts")
    statistics = _bns_2023(base, "02")
    statistics = statistics[statistics["oblast_kk"] == statistics["name_kk"]]
    return units.drop(columns=["boundary_id", "bns_name_kk"]), _official_2023(table, statistics)


def populate(
    data: Turkistan,
    *,
    grid: GeoBox | None = None,
    land: xr.DataArray | None = None,
    spread: Spread | None = None,
    epoch: int = 2023,
) -> Reconciled:
    """Make the population grid from the places and scale it to the units' totals.

    Parameters
    ----------
    data
        As :func:`prepare_turkistan` gives it.
    grid
        Target; default: GHSL's 1 km grid around the units with 5 km of margin.
    land
        m² or share of land per cell, or another weight of where people stand.
    spread
        Density profile of settlements.
    epoch
        Epoch of the official totals.

    Returns
    -------
    Reconciled
        ``population.attrs`` also holds ``people_published`` and
        ``people_modelled``: people placed at figures published for a settlement
        and at modelled ones, before scaling. Cells no unit touches are missing.
    """
    box = grid or around(data.units)
    points = data.places
    covered = np.asarray(coverage(data.units, box, id="unit").matrix.sum(axis=0)).reshape(box.shape)
    # people of a place at the border stand on its own side of it: cells cut by the outer
    # border only take those who find no whole cell in reach
    room = np.where(covered > _WHOLE, 1.0, np.where(covered > 0, _CUT, 0.0))
    if land is not None:
        room = room * land.fillna(0).values
    people = grid_from_points(
        points,
        box,
        method="settlement",
        spread=spread,
        land=_on_grid(room, box),
        label="name_kk",
    )
    modelled = points["modelled"] == "yes"
    counts = {
        "people_published": int(points.loc[~modelled, "population"].sum()),
        "people_modelled": int(points.loc[modelled, "population"].sum()),
    }
    log.info(
        "%d people of %d settlements with a published figure, %d of %d modelled ones",
        counts["people_published"],
        int((~modelled).sum()),
        counts["people_modelled"],
        int(modelled.sum()),
    )
    totals = data.official[data.official["epoch"] == epoch]
    units = data.units.merge(totals[["unit", "population"]], on="unit", how="left")
    done = reconcile(people.where(covered > 0), units, id="unit", land=land)
    done.population.attrs.update(counts)
    return done


def _on_grid(values: Any, box: GeoBox) -> xr.DataArray:
    import xarray as xr
    from odc.geo.xr import xr_coords

    return xr.DataArray(values, coords=xr_coords(box), dims=("y", "x"), name="land")


def around(units: gpd.GeoDataFrame, *, margin: float = 5000.0) -> GeoBox:
    """Return GHSL's 1 km grid around units, with a margin in metres."""
    left, bottom, right, top = units.to_crs(GHSL_CRS).total_bounds
    return ghsl_geobox((left - margin, bottom - margin, right + margin, top + margin))


def _require_files(base: Path, names: list[str]) -> None:
    problems = Problems(str(base))
    for name in names:
        if not (base / _FILES[name]).exists():
            problems.add(f"{_FILES[name]} is missing", "the source file")
    problems.raise_if_any()


def _table(name: str) -> pd.DataFrame:
    import pandas as pd

    return pd.read_csv(resource("catalogs", "kazakhstan", name))


def _match(table: pd.DataFrame, shapes: gpd.GeoDataFrame, key: str, name: str) -> gpd.GeoDataFrame:
    """Join boundaries to a matching table, every row on both sides once."""
    import geopandas as gpd

    missing = sorted(set(table["boundary_id"]) - set(shapes[key]))
    if missing:
        raise InputError(
            f"boundaries {', '.join(map(str, missing))} of the matching table are not in {name}",
            "the file the table was made for",
            "take that file, or correct catalogs/kazakhstan",
        )
    geometry = shapes.set_index(key).geometry.loc[table["boundary_id"]].to_numpy()
    return gpd.GeoDataFrame(table.copy(), geometry=geometry, crs=shapes.crs)


def _units(base: Path) -> gpd.GeoDataFrame:
    import geopandas as gpd
    import pandas as pd

    table = _table("units.csv")
    shapes = gpd.read_file(base / _FILES["districts"])[["osm_id", "geometry"]]
    shapes = shapes.rename(columns={"osm_id": "boundary_id"})
    cities = gpd.read_file(base / _FILES["oblasts"])[["id", "geometry"]]
    cities = cities[cities["id"].isin(table.loc[table["unit"] == _SHYMKENT, "boundary_id"])]
    shapes = pd.concat([shapes, cities.rename(columns={"id": "boundary_id"})]).to_crs(GHSL_CRS)
    units = _match(table, shapes, "boundary_id", "the districts")
    units = cut_exclaves(units)
    # Shymkent comes from another file than its neighbours: it takes the hole they leave
    city = units["unit"] == _SHYMKENT
    units.loc[city, "geometry"] = [_hole(units.geometry[~city], units.geometry[city].iloc[0])]
    return units.drop(columns=["boundary_id", "bns_name_kk"]).sort_values("unit", ignore_index=True)


def cut_exclaves(units: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Cut a unit's detached part out of the unit that wholly encloses it.

    Such a part is drawn twice where the enclosing polygon lacks the hole: in
    Turkistan region 71 km² of Arys inside Baidibek district. The part belongs to
    the unit that names it as a part of its own.

    Parameters
    ----------
    units
        Polygons in a projected CRS.
    """
    import shapely

    out = units.copy()
    parts = out.geometry.explode()
    tree = shapely.STRtree(out.geometry.to_numpy())
    inner, outer = tree.query(parts.to_numpy(), predicate="covered_by")
    owner = out.index.get_indexer(parts.index)[inner]
    # a polygon drawn twice is no exclave of itself
    smaller = parts.area.to_numpy()[inner] < out.area.to_numpy()[outer]
    other = (owner != outer) & smaller
    geometry = out.geometry.to_numpy().copy()
    for part, enclosing in zip(inner[other], outer[other], strict=True):
        area = parts.iloc[part].area
        log.warning("exclave of %.1f km² cut out of the unit around it", area / 1e6)
        geometry[enclosing] = shapely.difference(geometry[enclosing], parts.iloc[part])
    out["geometry"] = geometry
    return out


def _hole(around_it: gpd.GeoSeries, city: Any) -> Any:
    """Return the gap that units leave where a city lies."""
    import shapely

    rings = [
        shapely.Polygon(ring)
        for part in shapely.get_parts(around_it.union_all())
        for ring in part.interiors
    ]
    inside = [r for r in rings if r.contains(city.representative_point())]
    if len(inside) != 1:
        raise InputError("the units leave no gap for the city among them", "one hole")
    share = inside[0].intersection(city).area / city.area
    if share < 0.99:
        raise InputError(f"the gap holds {share:.0%} of the city's own boundary", "at least 99 %")
    return inside[0]


def _bns_2023(base: Path, sheet: str) -> pd.DataFrame:
    import pandas as pd

    table = pd.read_csv(base / _FILES["bns2023"], dtype={"sheet": str})
    for column in ("oblast_kk", "name_kk"):
        table[column] = table[column].str.split().str.join(" ")
    return table[table["sheet"] == sheet]


def _official_2023(table: pd.DataFrame, statistics: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    names = table["bns_name_kk"].str.split().str.join(" ")
    found = statistics.drop_duplicates("name_kk").set_index("name_kk")
    missing = sorted(set(names) - set(found.index))
    if missing:
        raise InputError(f"BNS 2023 has no rows {', '.join(missing)}", "the names of the table")
    rows = found.loc[names.tolist()]
    return pd.DataFrame(
        {
            "unit": table["unit"].to_numpy(),
            "epoch": 2023,
            "population": rows["total"].to_numpy(),
            "urban": rows["urban"].to_numpy(),
            "rural": rows["rural"].to_numpy(),
            "source": _BNS_2023,
        }
    )


def _official(base: Path, ids: list[str]) -> pd.DataFrame:
    import pandas as pd

    table = _table("units.csv")
    statistics = _bns_2023(base, "02")
    statistics = statistics[statistics["oblast_kk"].isin(["Түркістан", "Шымкент қаласы"])]
    first = _official_2023(table, statistics)
    profiles = json.loads((base / _FILES["bns2026"]).read_text(encoding="utf-8"))["profiles"]
    start = {p["id"]: _start_of_year(p) for p in profiles}
    published = [start.get(unit) for unit in ids]
    second = pd.DataFrame(
        {
            "unit": ids,
            "epoch": 2026,
            "population": pd.array(published, dtype="Int64"),
            "urban": pd.NA,
            "rural": pd.NA,
            "source": [_BNS_2026 if p is not None else "" for p in published],
        }
    )
    both = pd.concat([first, second[second["population"].notna()]], ignore_index=True)
    counts = ["population", "urban", "rural"]
    return both.astype(dict.fromkeys(counts, "Int64")).sort_values(
        ["epoch", "unit"], ignore_index=True
    )


def _start_of_year(profile: dict[str, Any]) -> int | None:
    """Return the population at the start of 2026 that a profile of BNS states."""
    for metric in profile["metrics"]:
        if metric["id"] == "population":
            for fact in metric["facts"]:
                if fact["label"] == "на начало 2026 года":
                    return int("".join(c for c in fact["value"] if c.isdigit()))
    return None


def _places(
    base: Path, units: gpd.GeoDataFrame, official: pd.DataFrame, seed: int | None
) -> gpd.GeoDataFrame:
    import geopandas as gpd
    import pandas as pd

    raw = gpd.read_file(base / _FILES["places"])
    inside = gpd.sjoin(
        raw.to_crs(GHSL_CRS), units[["unit", "geometry"]], predicate="within"
    ).sort_values("osm_id")
    raw = raw.loc[inside.index]
    known = _table("settlements.csv").set_index("osm_id")
    bns = _bns_2023(base, "03")
    bns = bns[bns["oblast_kk"].isin(["Түркістан", "Шымкент қаласы"])]
    bns_people = bns.drop_duplicates("name_kk").set_index("name_kk")["total"]
    missing = sorted(set(known.index) - set(raw["osm_id"]))
    missing += sorted(set(known["bns_name_kk"]) - set(bns_people.index))
    if missing:
        raise InputError(
            f"settlements {', '.join(map(str, missing))} of the matching table are not found",
            "the files the table was made for",
        )
    figure = raw["osm_id"].map(known["bns_name_kk"].map(bns_people))
    tag = pd.to_numeric(raw["population"], errors="coerce")
    tables = {c: raw["osm_id"].map(known[c]) for c in ("name_kk", "name_ru", "name_en")}
    places = gpd.GeoDataFrame(
        {
            "id": "osm." + raw["osm_id"].astype(str),
            "unit": inside["unit"],
            "name_kk": tables["name_kk"].fillna(raw["name:kk"].where(_cyrillic(raw["name:kk"])))
            .fillna(raw["name"]),
            "name_ru": tables["name_ru"].fillna(raw["name:ru"]),
            "name_en": tables["name_en"].fillna(raw["name:en"]),
            "place": raw["place"],
            "population": figure.fillna(tag),
            "year": pd.array([2023 if f else pd.NA for f in figure.notna()], dtype="Int64"),
            "source": np.where(figure.notna(), _BNS_2023, np.where(tag.notna(), _OSM_TAG, "")),
            "source_id": raw["osm_id"].map(known["bns_name_kk"]).fillna(
                "node " + raw["osm_id"].astype(str)
            ),
        },
        geometry=raw.geometry,
        crs=raw.crs,
    )  # fmt: skip
    places["modelled"] = np.where(places["population"].isna(), "yes", "no")
    totals = official[official["epoch"] == 2023].set_index("unit")["population"].astype(float)
    return _share_remainders(places, totals, seed).reset_index(drop=True)


def _cyrillic(names: pd.Series) -> pd.Series:
    """Tell Kazakh names in Cyrillic from those in Arabic script, both tagged kk."""
    return names.str.contains("[А-Яа-яӘәҒғҚқҢңӨөҰұҮүҺһІі]", regex=True, na=False)


def _share_remainders(
    places: gpd.GeoDataFrame, totals: pd.Series, seed: int | None
) -> gpd.GeoDataFrame:
    """Give places without a figure what published figures leave of their unit."""
    import pandas as pd

    known = places.groupby("unit")["population"].sum().reindex(totals.index).fillna(0)
    rest = totals - known
    over = rest[rest < 0]
    if len(over):
        log.warning(
            "settlements' figures exceed the unit's total (scaled down later): %s",
            ", ".join(f"{u} by {-v:.0f}" for u, v in over.items()),
        )
    weight = places["place"].map(_TYPICAL).fillna(_TYPICAL_DWELLING)
    if seed is not None:
        draw = np.random.default_rng(seed).normal(0.0, _VILLAGE_SPREAD, len(places))
        weight = weight * np.exp(draw)
    modelled = places["modelled"] == "yes"
    weight = weight.where(modelled, 0.0)
    total_weight = weight.groupby(places["unit"]).transform("sum")
    exact = places["unit"].map(rest.clip(lower=0)) * weight / total_weight.where(total_weight > 0)
    # whole people: the largest remainders are rounded up, so that units still add up
    floor = np.floor(exact)
    short = (exact - floor).groupby(places["unit"]).transform("sum").round()
    rank = (exact - floor).where(modelled).groupby(places["unit"]).rank(
        method="first", ascending=False
    )  # fmt: skip
    shared = floor + (rank <= short)
    places["population"] = places["population"].fillna(shared).fillna(0.0).astype("int64")
    places.loc[modelled, "source"] = "modelled: share of what is left of the unit's total"
    places.loc[modelled, "year"] = pd.NA
    # villages inside a city whose figure is the whole unit hold nobody besides
    empty = places["population"] == 0
    if empty.any():
        log.info("%d places left out: their unit's total is placed elsewhere", int(empty.sum()))
    return places[~empty]


def source_files(folder: str | Path) -> list[Path]:
    """Return the files that the prepared sets are made from."""
    return [Path(folder) / name for name in _FILES.values()]
