"""The whole way from an OpenStreetMap extract to a twin folder, and back to its objects."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qala.city.buildings import clean_outlines, table_of_clean
from qala.city.classes import building_class
from qala.city.heights import ASSUMPTIONS, TYPE_LEVELS
from qala.city.history import PAST, compare, counts, read_objects
from qala.city.index import write_index
from qala.city.kept import head_of, keep
from qala.city.model import COLUMNS, Issue, Twin, is_day
from qala.city.osm import NOTICE, OsmCity, in_area, local_utm, middle_of, read_osm, to_crs
from qala.city.people import spread_people
from qala.city.relief import ASSUMPTIONS as RELIEF
from qala.city.relief import contours, drape, facets, ground_box, make_relief
from qala.city.solar import ASSUMPTIONS as SOLAR
from qala.city.solids import (
    VALID_CODES,
    make_solids,
    to_multipolygons,
    volumes,
)  # fmt: skip
from qala.city.streets import street_widths, to_points, with_area, with_length
from qala.city.styles import aliases, layer_style
from qala.city.terrain import MIN_COVERAGE, base_heights, lower_to_relief
from qala.errors import InputError
from qala.files import replacing
from qala.messages import LANGUAGES, tr

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    import shapely

    from qala.city.kept import Piece
    from qala.export.tiles3d import TileReport

log = logging.getLogger("qala")


def read_area(area: str | Path) -> shapely.Geometry:
    """Read an area from ``FILE[:layer]`` as one polygon in EPSG:4326.

    Raises
    ------
    InputError
        When the file has no polygon or no CRS.
    """
    import geopandas as gpd
    import pyogrio.errors
    import shapely

    text, layer = str(area), None
    if not Path(text).exists() and ":" in text:
        text, layer = text.rsplit(":", 1)
    if not Path(text).exists():
        raise InputError(f"{text} does not exist", "a vector file with the area")
    try:
        found = gpd.read_file(text, layer=layer) if layer else gpd.read_file(text)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise InputError(f"{area} cannot be read ({error})", "a vector layer") from error
    if found.crs is None:
        raise InputError(
            f"{area} has no CRS", "a layer with a CRS", "assign it with ogr2ogr -a_srs"
        )
    shapes = found.to_crs(4326).geometry.to_numpy()
    shapes = shapely.make_valid(shapes[np.isin(shapely.get_type_id(shapes), [3, 6])])
    if not len(shapes):
        raise InputError(f"{area} holds no polygon", "a polygon of the area")
    return shapely.union_all(shapes)


def _area_of(bbox: tuple[float, float, float, float] | None, area: str | Path | Any | None) -> Any:
    import shapely

    if bbox is not None and area is not None:
        raise InputError("both a box and an area were given", "one of --bbox and --area")
    if bbox is not None:
        west, south, east, north = bbox
        if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
            raise InputError(
                f"the box is {west:g},{south:g},{east:g},{north:g}",
                "W,S,E,N in degrees with W < E and S < N",
            )
        return shapely.box(west, south, east, north)
    if area is None or str(area) == "all":
        return None
    return read_area(area) if isinstance(area, str | Path) else area


def build_twin(
    osm: str | Path | OsmCity,
    *,
    bbox: tuple[float, float, float, float] | None = None,
    area: str | Path | shapely.Geometry | None = None,
    terrain: str | Path | None = None,
    heights: str | Path | None = None,
    population: str | Path | None = None,
    undulation: float | None = None,
    vertical_datum: str | None = None,
    min_coverage: float = MIN_COVERAGE,
    date: str | None = None,
    name: str | None = None,
    clear_sky_index: float | None = None,
    notice: str = NOTICE,
    synthetic: bool = False,
) -> Twin:
    """Make the twin of an area in memory.

    Parameters
    ----------
    osm
        OpenStreetMap extract, or what :func:`qala.city.osm.read_osm` gave.
    bbox
        West, south, east, north in degrees.
    area
        ``FILE[:layer]`` of polygons, a polygon in EPSG:4326, or ``all``.
    terrain
        GeoTIFF of terrain heights, metres.
    heights
        GeoTIFF of building heights, metres.
    population
        GeoTIFF of people per cell.
    undulation, vertical_datum, min_coverage
        See :func:`qala.city.terrain.base_heights`.
    date
        Day from which the objects are valid (ISO 8601); the extract's own day where
        None, and today where it tells none.
    name
        Name of the city; made of the extract's file name where None.
    clear_sky_index
        See :func:`qala.city.solar.roof_potential`.
    notice
        Attribution of the sources; OpenStreetMap's unless the extract is something else.
    synthetic
        Whether the city is invented; the summary and the metadata say so.

    Raises
    ------
    InputError
        When an input can't be used, or the area holds no building.
    """
    import pandas as pd
    import shapely
    from pyproj import Transformer

    times: dict[str, float] = {}
    clock = _Clock(times)
    if date is not None and not is_day(date):
        raise InputError(f"date is {date!r}", "a day as YYYY-MM-DD")
    polygon = _area_of(bbox, area)
    raw = osm if isinstance(osm, OsmCity) else read_osm(osm)
    title = name or (name_of(osm) if not isinstance(osm, OsmCity) else "city")
    clock("read")
    layers, members, issues = dict(raw.layers), raw.members, _issues_here(raw, polygon)
    # what is read here is let go layer by layer
    del raw
    if polygon is not None:
        layers = {
            k: in_area(v, polygon, clip=k in _CLIPPED) if len(v) else v for k, v in layers.items()
        }
    outlines = layers.pop("buildings")
    if not len(outlines):
        where = "the extract" if polygon is None else "the area"
        raise InputError(
            f"no building in {where}",
            "at least one closed outline tagged building=*",
            "check the area's coordinates (degrees, west first) against the extract's",
        )
    box = tuple(outlines.total_bounds) if polygon is None else polygon.bounds
    crs = local_utm(box)
    move = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform
    outlines = to_crs(outlines, move, crs)
    clean, found = clean_outlines(outlines)
    del outlines
    if not len(clean):
        raise InputError("no outline of the area is usable", "at least one valid outline",
                         "; ".join(i[3] for i in found[:3]))  # fmt: skip
    issues += found
    table, found = table_of_clean(clean, members, heights=str(heights) if heights else None)
    del clean
    issues += found
    clock("buildings")
    table, vertical, found = base_heights(
        table, terrain, undulation=undulation, vertical_datum=vertical_datum,
        min_coverage=min_coverage,
    )  # fmt: skip
    issues += found
    relief = None
    if terrain is not None:
        relief = make_relief(
            terrain, crs, ground_box(tuple(table.total_bounds)), datum=vertical.datum
        )
        if relief.filled > 0:
            issues.append(
                ("terrain", "terrain", "repaired", f"{relief.filled:.1%} of the ground has no "
                 "terrain (voids, or beyond its edge); the nearest height stands there")
            )  # fmt: skip
        table = lower_to_relief(table, relief)
    clock("terrain")
    table, found = _with_solids(table, box, clear_sky_index)
    issues += found
    clock("solids")
    report = None
    if population is not None:
        table["people"], report = spread_people(table, population, polygon)
    else:
        table["people"] = np.nan
    day = date or source_day(osm)
    table["valid_from"], table["valid_to"] = day, pd.Series([None] * len(table), dtype="object")
    others, found = _other_layers(layers, move, crs, day)
    issues += found
    if relief is not None and terrain is not None:
        others = {k: drape(v, relief, terrain) for k, v in others.items()}
        others |= {"terrain": facets(relief, crs, day), "contours": contours(relief, crs, day)}
    if polygon is None and box[2] - box[0] > 180.0:  # across 180° east
        there = shapely.box(*table.total_bounds)
    else:
        hull = polygon if polygon is not None else shapely.box(*box)
        there = shapely.transform(
            shapely.segmentize(hull, 0.01), lambda p: np.column_stack(move(p[:, 0], p[:, 1]))
        )
    area_km2 = float(shapely.area(there)) / 1e6
    clock("layers")
    table = _ordered(table)
    listed = pd.DataFrame(
        list(dict.fromkeys(issues)), columns=["layer", "id", "action", "reason"], dtype="object"
    )
    return Twin(
        title,
        table,
        others,
        listed,
        vertical,
        report,
        area_km2,
        polygon,
        times,
        notice,
        synthetic,
        relief,
    )


def name_of(extract: str | Path) -> str:
    """Return a name for people from an extract's file name: ``liechtenstein-latest.osm.pbf``."""
    words = Path(extract).name.split(".")[0].replace("_", " ").replace("-", " ").split()
    text = " ".join(w for w in words if w != "latest") or "city"
    return text[:1].upper() + text[1:]


def source_day(osm: str | Path | OsmCity) -> str:
    """Return the day of an extract by its header, or today where it tells none."""
    import osmium

    today = datetime.now(UTC).strftime("%Y-%m-%d")
    if isinstance(osm, OsmCity):
        return today
    with osmium.io.Reader(str(osm)) as reader:
        stamp = reader.header().get("osmosis_replication_timestamp") or ""
    try:
        return datetime.fromisoformat(stamp.replace("Z", "+00:00")).strftime("%Y-%m-%d")
    except ValueError:
        return today


class _Clock:
    def __init__(self, times: dict[str, float]) -> None:
        self.times, self.last = times, time.perf_counter()

    def __call__(self, step: str) -> None:
        now = time.perf_counter()
        self.times[step] = round(now - self.last, 3)
        self.last = now


#: folder of the table while exports are written, beside them: it is as large as they are
_ASIDE = ".table-"
#: rows whose solids are measured at a time
MEASURED = 10_000
#: layers cut at the border of the area
_CLIPPED = {"streets", "railways", "landuse", "green", "water", "waterways", "networks",
            "protected_areas"}  # fmt: skip


def _issues_here(raw: OsmCity, polygon: Any) -> list[Issue]:
    """Return what could not be read; objects without a place belong to every area."""
    if polygon is None:
        return list(raw.issues)
    return [i for i in raw.issues if i[0] == "buildings"]


def _with_solids(
    table: gpd.GeoDataFrame, box: Any, clear_sky_index: float | None
) -> tuple[gpd.GeoDataFrame, list[Issue]]:
    """Add what is measured on solids, some rows at a time: the solids are not kept."""
    parts = [
        _measures(table.iloc[first : first + MEASURED], box, clear_sky_index)
        for first in range(0, len(table), MEASURED)
    ]
    table = table.assign(**{k: np.concatenate([p[k] for p in parts]) for k in parts[0]})
    lod, code = (table[c].to_numpy() for c in ("lod", "valid_code"))
    issues = [
        ("buildings", str(table["id"].iloc[i]), "repaired",
         f"code {code[i]}: {VALID_CODES[int(code[i])]}; exported as LoD{lod[i]}")
        for i in np.flatnonzero(code)
    ]  # fmt: skip
    return table, issues


def _measures(
    table: gpd.GeoDataFrame, box: Any, clear_sky_index: float | None
) -> dict[str, np.ndarray[Any, Any]]:
    """Return level of detail, fault, volume, roof area by side and solar potential of rows."""
    from qala.city.solar import SIDES, roof_potential

    solids, count = make_solids(table), len(table)
    volume, roof = volumes(solids)
    lod = np.full(count, "0.2", dtype=object)
    lod[solids.rows] = solids.lods
    code = np.zeros(count, np.int64)
    np.maximum.at(code, solids.rows, solids.valid_codes)
    lon, lat = middle_of(box)
    roofs = roof_potential(solids, count, lon, lat, clear_sky_index=clear_sky_index)
    numbers: dict[str, Any] = {
        "volume": np.round(np.bincount(solids.rows, volume, count), 2),
        "roof_area": np.round(np.bincount(solids.rows, roof, count), 2),
        **{f"roof_{side}_area": np.round(roofs.area[:, i], 2) for i, side in enumerate(SIDES)},
        "solar_kwh": np.round(roofs.energy, 1),
    }
    plates = lod == "0.2"
    return {
        "lod": lod, "valid_code": code,
        **{k: np.where(plates, np.nan, v) for k, v in numbers.items()},
    }  # fmt: skip


def _ordered(table: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    table = table.assign(**{"class": building_class(table["kind"])})
    if "roof:orientation" in table:
        table["roof_orientation"] = table["roof:orientation"]
    rest = [c for c in table.columns if c not in COLUMNS]
    return table[[*(c for c in COLUMNS if c in table), *rest]]


def _other_layers(
    layers: dict[str, gpd.GeoDataFrame], move: Callable[..., Any], crs: Any, day: str
) -> tuple[dict[str, gpd.GeoDataFrame], list[Issue]]:
    issues: list[Issue] = []
    out: dict[str, gpd.GeoDataFrame] = {}
    for name, layer in layers.items():
        there = to_crs(layer, move, crs) if len(layer) else layer.set_crs(crs, allow_override=True)
        if name == "streets":
            there, found = street_widths(there)
            issues += found
        elif name in ("railways", "waterways", "networks"):
            there = with_length(there)
            if name == "networks":
                there = there.rename(columns={"network_kind": "network"})
        elif name in ("landuse", "green", "water", "protected_areas"):
            there = with_area(there)
        elif name in ("pois", "addresses", "stops"):
            there = to_points(there)
        there = there.rename(columns={c: c.replace(":", "_") for c in there.columns if ":" in c})
        there.insert(2, "valid_from", day)
        there.insert(3, "valid_to", None)
        place = there.pop("geometry")
        out[name] = there.set_geometry(place, crs=crs)
    return out, issues


def summary(twin: Twin) -> pd.DataFrame:
    """Return the measures of a twin: measure, value, unit, note."""
    import pandas as pd
    import shapely

    table = twin.buildings
    solid = table["lod"] != "0.2"
    rows: list[tuple[str, float, str, str]] = []

    def add(measure: str, value: float, unit: str, note: str = "") -> None:
        rows.append((measure, float(value), unit, note))

    tops = table["parent"].isna()
    if twin.synthetic:
        add("synthetic", 1, "flag", f"SYNTHETIC: {twin.notice}")
    add("area", twin.area_km2, "km2", "the box of the buildings where no area was given"
        if twin.area is None else "as given")  # fmt: skip
    add("buildings", tops.sum(), "count")
    add("building_parts", (~tops).sum(), "count")
    for lod, count in table["lod"].value_counts().sort_index().items():
        add(f"objects_lod_{lod}", count, "count", "plates of buildings with parts"
            if lod == "0.2" else "")  # fmt: skip
    add("objects_with_valid_code", (table["valid_code"] != 0).sum(), "count",
        "exported at a lower level of detail")  # fmt: skip
    for source, count in table["height_source"][solid].value_counts().items():
        add(
            f"height_from_{source}", count / max(solid.sum(), 1), "share", "of objects with a solid"
        )
    if twin.relief is None:
        add("terrain", 0, "flag", "none given: the base of the city is flat, at 0")
    else:
        r = twin.relief
        add("terrain", 1, "flag", f"{r.source}; datum: {r.datum}")
        add("terrain_min", r.vertices[:, 2].min(), "m")
        add("terrain_max", r.vertices[:, 2].max(), "m")
        add("terrain_triangles", len(r.triangles), "count")
        add("terrain_error", r.max_error, "m", "largest distance of the triangles from the "
            "smoothed heights")  # fmt: skip
        add("terrain_filled", r.filled, "share", "of the ground, from the nearest height")
    height, volume = table["height"][solid], table["volume"][solid]
    add("height_median", height.median(), "m")
    add("height_max", height.max(), "m")
    add("built_volume", volume.sum(), "m3", "sum over solids; overlapping outlines count twice")
    add("footprint_area", table["footprint_area"][tops].sum(), "m2")
    add("floor_area", table["floor_area"].sum(), "m2", "footprint times levels, above ground")
    add("roof_area", table["roof_area"].sum(), "m2", "sloped where the roof is modelled")
    for side in ("flat", "north", "east", "south", "west"):
        add(f"roof_area_{side}", table[f"roof_{side}_area"].sum(), "m2",
            "tilt below 10 degrees" if side == "flat" else f"sloped, facing {side}")  # fmt: skip
    add("solar_potential", table["solar_kwh"].sum() / 1e6, "GWh/year",
        "clear sky and no shade unless a clear-sky index was given; see assumptions")  # fmt: skip
    add("floor_area_ratio", table["floor_area"].sum() / (twin.area_km2 * 1e6), "ratio",
        "floor area over the area")  # fmt: skip
    if twin.people is not None:
        p = twin.people
        add("people", p.placed, "people", "in buildings, by floor area")
        add("people_in_grid", p.total, "people", "in the area's cells; people + people_unplaced")
        add("people_unplaced", p.unplaced, "people", "no building within reach")
        add("people_moved", p.moved, "people", "from cells without a building to the nearest")
    for name in ("streets", "railways", "waterways"):
        km = twin.layers[name]["length"].sum() / 1000
        add(f"{name}_length", km, "km")
        add(f"{name}_density", km / twin.area_km2, "km/km2")
    networks = twin.layers["networks"]
    for kind, group in networks.groupby("network")["length"]:
        add(f"network_{kind}_length", group.sum() / 1000, "km", "where mapped")
        add(f"network_{kind}_density", group.sum() / 1000 / twin.area_km2, "km/km2", "where mapped")
    for name in ("green", "water"):
        shapes = twin.layers[name].geometry.to_numpy()
        joined = shapely.area(shapely.union_all(shapes)) if len(shapes) else 0.0
        add(f"{name}_area", joined / 1e6, "km2", "overlaps counted once")
    for name in ("stops", "pois", "addresses"):
        add(name, len(twin.layers[name]), "count")
    for action in ("repaired", "refused"):
        add(f"issues_{action}", (twin.issues["action"] == action).sum(), "count",
            "see layer issues")  # fmt: skip
    return pd.DataFrame(rows, columns=["measure", "value", "unit", "note"])


def assumptions_table() -> pd.DataFrame:
    """Return every assumed number of the height chain with its source."""
    import pandas as pd

    rows = [(k, a.value, a.unit, a.source) for k, a in ASSUMPTIONS.items()]
    practice = "practice of OSM2World and VoxCity: outbuildings one level, houses two"
    rows += [(f"solar: {k}", a.value, a.unit, a.source) for k, a in SOLAR.items()]
    rows += [(f"terrain: {k}", a.value, a.unit, a.source) for k, a in RELIEF.items()]
    rows += [(f"levels of building={k}", v, "levels", practice) for k, v in TYPE_LEVELS.items()]
    return pd.DataFrame(rows, columns=["name", "value", "unit", "source"])


def write_gpkg(twin: Twin, path: str | Path, *, lang: str = "en", changes: Any = None) -> Path:
    """Write the twin's GeoPackage: styled layers, issues and assumptions.

    The layer ``buildings`` holds the surfaces of each solid (MultiPolygonZ), the layer
    ``footprints`` valid outlines for work in the plane; both share their ids.
    """
    from qala.export.geopackage import Layer, write_geopackage

    head = head_of(twin.buildings)
    columns = [c for c in COLUMNS if c in head]
    data: dict[str, Any] = dict.fromkeys(_POLYGONS, twin.buildings)
    data |= {k: v for k, v in twin.layers.items() if len(v)}
    data["issues"] = twin.issues
    data["assumptions"] = assumptions_table()
    if changes is not None:
        data["changes"] = changes

    def layer(name: str, frame: Any) -> Layer:
        shown = head[columns] if name in _POLYGONS else frame
        return Layer(
            frame, title={k: _titled(name, k) for k in LANGUAGES}, style=_styled(name, shown),
            description=_described(name, twin), aliases=aliases(shown.columns, lang),
            surfaces=_surfaces if name == "buildings" else None,
            columns=columns if name in _POLYGONS else (),
        )  # fmt: skip

    layers = {name: layer(name, frame) for name, frame in data.items()}
    return write_geopackage(
        path, layers, lang=lang,
        metadata={
            "title": tr("city.title", lang, name=twin.name),
            "abstract": (
                ("SYNTHETIC. " if twin.synthetic else "")
                + f"3D city layers. Heights: {twin.vertical.datum}; base: {twin.vertical.source}."
            ),
            "licence": "ODbL 1.0" if twin.notice == NOTICE else twin.notice,
            "citation": twin.notice,
            "keywords": ["3D city", "digital twin", "buildings",
                         "SYNTHETIC" if twin.synthetic else "OpenStreetMap"],
            "synthetic": twin.synthetic,
        },
    )  # fmt: skip


def _styled(name: str, frame: Any) -> dict[str, str] | None:
    """Return the style of a layer by language, or None where QGIS's own will do."""
    found: dict[str, str] = {
        k: qml for k in LANGUAGES if (qml := layer_style(name, frame, k)) is not None
    }
    return found or None


def _titled(name: str, lang: str) -> str:
    if name.startswith(PAST):
        layer = tr(f"city.layer.{name.removeprefix(PAST)}", lang)
        return tr("city.layer.history_of", lang, layer=layer)
    return tr(f"city.layer.{name}", lang)


def _described(name: str, twin: Twin) -> str:
    if name.startswith(PAST):
        return _DESCRIPTIONS["history"]
    text = _DESCRIPTIONS.get(name, "")
    return f"{text}. Heights: {twin.vertical.datum}" if name in ("terrain", "contours") else text


#: layers of the table of buildings
_POLYGONS = ("buildings", "footprints")


def _surfaces(piece: Piece) -> Any:
    """Return the surfaces of some buildings' solids."""
    return to_multipolygons(piece.solids(), len(piece))


_DESCRIPTIONS = {
    "buildings": "Surfaces of each building's solid; areas are measured on layer footprints",
    "terrain": "Terrain as triangles: smoothed heights, with slope and aspect in degrees",
    "contours": "Contours of the smoothed terrain, every fifth is main",
    "footprints": "Outlines of buildings and parts in the plane",
    "history": "Earlier versions of objects, with the day they ended in valid_to",
    "changes": "Created, changed, merged, split and abolished objects of each run",
    "issues": "Objects of the sources that were repaired or refused, and why",
    "assumptions": "Numbers that are assumed and not measured, with their sources",
    "streets": "Carriageways with their width in metres and where it comes from",
    "networks": "Power, heat, gas, water and other lines as far as they are mapped",
}


def city_flow(
    osm: str | Path,
    out: str | Path,
    *,
    bbox: tuple[float, float, float, float] | None = None,
    area: str | Path | None = None,
    terrain: str | Path | None = None,
    heights: str | Path | None = None,
    population: str | Path | None = None,
    since: str | Path | None = None,
    undulation: float | None = None,
    vertical_datum: str | None = None,
    min_coverage: float = MIN_COVERAGE,
    date: str | None = None,
    name: str | None = None,
    clear_sky_index: float | None = None,
    notice: str = NOTICE,
    synthetic: bool = False,
    lang: str = "en",
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Make a twin folder from an OpenStreetMap extract.

    Parameters
    ----------
    osm
        OpenStreetMap extract.
    out
        Folder for ``city.gpkg, registers.gpkg, city.city.json, city.city.jsonl,
        tiles/tileset.json, web/index.html, index3d.*, summary.csv`` and, with terrain,
        ``terrain.tif, terrain/tileset.json``.
    bbox, area, terrain, heights, population, undulation, vertical_datum, min_coverage, date, name,
    clear_sky_index, notice, synthetic
        See :func:`build_twin`.
    since
        ``city.gpkg`` of an earlier run: ids and validity go on from it, and what
        changed is written to its layer ``changes``. A run into the same folder
        goes on from the twin there only when it is named here.
    lang
        Language of titles, styles and the page: en, ru or kk.
    progress
        Called with the name of each step when it begins.

    Returns
    -------
    dict
        ``folder``, ``buildings``, ``solids``, ``lods``, ``issues``, ``tiles``,
        ``timings`` (s) and, with ``since``, ``changes``: objects by layer and kind.

    Raises
    ------
    InputError
        When an input can't be used; nothing is written then.
    """
    from qala.city.registers import carry_on
    from qala.raster import require_writable

    folder = Path(out)
    if folder.is_file():
        raise InputError(f"{folder} is a file", "a folder for the twin", "choose another -o")
    require_writable(folder / "city.gpkg")
    tell = progress or (lambda step: log.info("city: %s", step))
    tell("reading and building")
    twin, changes, listed = make_twin(
        osm, bbox=bbox, area=area, terrain=terrain, heights=heights, population=population,
        undulation=undulation, vertical_datum=vertical_datum, min_coverage=min_coverage, date=date,
        name=name, clear_sky_index=clear_sky_index, notice=notice, synthetic=synthetic, since=since,
    )  # fmt: skip
    tell("writing registers.gpkg")
    carry_on(twin, folder, since)
    for left in folder.glob(f"{_ASIDE}*"):  # of a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=_ASIDE) as work:
        # from here on buildings are read from disk, some at a time
        twin = replace(twin, buildings=keep(twin.buildings, Path(work) / "buildings.arrow"))
        tiles = _exports(twin, folder, tell, lang=lang, changes=listed)
        return {
            "folder": str(folder), **tell_counts(twin, changes), "tiles": tiles,
            "timings": twin.timings,
        }  # fmt: skip


def make_twin(
    osm: str | Path, *, since: str | Path | None = None, **options: Any
) -> tuple[Twin, pd.DataFrame | None, pd.DataFrame | None]:
    """Make a twin, going on from an earlier one.

    Parameters
    ----------
    osm, **options
        As of :func:`build_twin`.
    since
        ``city.gpkg`` of an earlier run.

    Returns
    -------
    tuple
        The twin; what changed in this run, and in all runs so far (None without ``since``).
    """
    import pandas as pd

    twin = build_twin(osm, **options)
    if since is None:
        return twin, None, None
    earlier = read_objects(since)
    twin, changes = compare(twin, earlier)
    kept = [c for c in (earlier.changes, changes) if c is not None and len(c)]
    return twin, changes, pd.concat(kept, ignore_index=True) if kept else changes


def tell_counts(twin: Twin, changes: pd.DataFrame | None) -> dict[str, Any]:
    """Return what a twin holds in numbers, and objects that changed by layer and kind."""
    table = twin.buildings
    lods = table["lod"].value_counts().sort_index()
    return {
        "buildings": int(table["parent"].isna().sum()),
        "solids": int(lods[lods.index != "0.2"].sum()),
        "lods": {str(k): int(n) for k, n in lods.items()},
        "issues": len(twin.issues),
        **({} if changes is None else {"changes": counts(changes)}),
    }


def _exports(
    twin: Twin, folder: Path, tell: Callable[[str], None], *, lang: str, changes: Any
) -> Any:
    """Write everything but the registers; return what was done to the tiles."""
    clock = _Clock(twin.timings)
    # GDAL writes while Python encodes the other formats
    with ThreadPoolExecutor(1) as pool:
        tell("writing city.gpkg")
        job = pool.submit(write_gpkg, twin, folder / "city.gpkg", lang=lang, changes=changes)
        tell("writing CityJSON")
        export_cityjson(twin, folder, lang=lang)
        clock("cityjson")
        write_index(twin.buildings, folder)
        clock("index")
        write_summary(twin, folder)
        clock("summary")
        job.result()
    clock("geopackage, the rest of it")
    tell("writing 3D Tiles")
    tiles = export_tiles(twin, folder / "city.gpkg", folder)
    clock("tiles")
    tell("writing the page")
    export_page(twin, folder, tiles=folder / "tiles", lang=lang)
    clock("web")
    return tiles


def export_cityjson(twin: Twin, folder: Path, *, lang: str) -> None:
    """Write ``city.city.json`` and ``city.city.jsonl``."""
    from qala.export.cityjson import write_cityjson

    write_cityjson(
        twin.buildings, folder / "city.city.json", folder / "city.city.jsonl",
        title=tr("city.title", lang, name=twin.name), attribution=twin.notice, relief=twin.relief,
    )  # fmt: skip


def export_tiles(twin: Twin, gpkg: Path, folder: Path) -> TileReport:
    """Write ``tiles`` from the footprints of the twin's GeoPackage."""
    from qala.export.tiles3d import tiles_from_gpkg

    return tiles_from_gpkg(
        gpkg, folder / "tiles", to_ellipsoid=twin.vertical.to_ellipsoid, extras=_extras(twin)
    )


def export_page(twin: Twin, folder: Path, *, tiles: Path, lang: str) -> None:
    """Write ``web`` and the terrain that it stands on; small tilesets are packed into it."""
    from qala.city.relief import write_terrain_raster
    from qala.export.terrain3d import write_terrain_tiles
    from qala.export.web import ground_picture, write_web

    picture = ground_picture(twin)
    write_web(twin, folder / "web", tiles=tiles, picture=picture, lang=lang)
    write_terrain_tiles(
        twin.relief, twin.buildings.crs, folder / "terrain", picture=picture,
        to_ellipsoid=twin.vertical.to_ellipsoid, extras=_extras(twin),
    )  # fmt: skip
    if twin.relief is None:
        (folder / "terrain.tif").unlink(missing_ok=True)
    else:
        write_terrain_raster(twin.relief, twin.buildings.crs, folder / "terrain.tif")


def write_summary(twin: Twin, folder: Path) -> None:
    """Write ``summary.csv``."""
    with replacing(folder / "summary.csv") as work:
        summary(twin).to_csv(work, index=False)


def _extras(twin: Twin) -> dict[str, Any]:
    v = twin.vertical
    return {
        "title": twin.name,
        "notice": twin.notice,
        "synthetic": twin.synthetic,
        "verticalDatum": v.datum,
        "baseHeights": v.source,
        "addedToReachEllipsoid": v.to_ellipsoid,
        "alignedWithEllipsoid": v.aligned,
        "crs": f"EPSG:{twin.buildings.crs.to_epsg()}",
    }
