"""The five registers of a city's single GIS: schemas, domains, relations, and import.

Land cadastre, urban-planning cadastre, address register, nature-protection cadastre and
real-estate register. Layers that open data can fill are filled; the others are empty tables
whose columns, value domains and relations are written beside them, waiting for import.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Collection, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from qala.city.model import is_day
from qala.errors import InputError, Problems
from qala.files import replacing

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

    from qala.city.model import Twin

log = logging.getLogger("qala")

Kind = Literal["text", "number", "date"]
Geometry = Literal["MultiPolygon", "MultiLineString", "Point"]
FILE = "registers.gpkg"


@dataclass(frozen=True)
class Field:
    """A column: its kind, what it may hold and what it points to."""

    name: str
    kind: Kind
    about: str
    domain: tuple[str, ...] = ()
    relation: str = ""
    required: bool = False


@dataclass(frozen=True)
class RegisterLayer:
    """A layer of a register."""

    register: str
    name: str
    geometry: Geometry
    about: str
    fields: tuple[Field, ...]
    filled_from: str = ""


_COMMON = (
    Field("id", "text", "Stable identifier of the object", required=True),
    Field("valid_from", "date", "Day from which this version holds"),
    Field("valid_to", "date", "Day on which it ended; empty while it holds"),
    Field("source", "text", "Where this version comes from: OpenStreetMap, or the file imported"),
)
_BUILDING = Field("building_id", "text", "Building it belongs to", relation="buildings.id")

LAYERS: tuple[RegisterLayer, ...] = (
    RegisterLayer("land", "land_parcels", "MultiPolygon", "Parcels of the land cadastre", (
        *_COMMON,
        Field("cadastral_number", "text", "Number in the land cadastre", required=True),
        Field("category", "text", "Category of the land", ("agricultural", "settlement",
              "industry", "protected", "forest", "water", "reserve")),
        Field("purpose", "text", "Purpose for which it may be used"),
        Field("area", "number", "Area by the documents, m²"),
        Field("address_id", "text", "Its address", relation="addresses.id"),
    )),
    RegisterLayer("urban_planning", "general_plan", "MultiPolygon", "Zones of the General Plan", (
        *_COMMON,
        Field("zone", "text", "Functional zone", ("residential", "public", "industrial",
              "transport", "recreation", "special", "agricultural", "reserve"), required=True),
        Field("horizon", "number", "Year the plan looks to"),
        Field("name", "text", "Name of the zone"),
    )),
    RegisterLayer("urban_planning", "detailed_plan", "MultiPolygon",
                  "Blocks of the Detailed Plans", (
        *_COMMON,
        Field("plan", "text", "Name of the plan"),
        Field("use", "text", "Permitted use"),
        Field("max_levels", "number", "Greatest number of levels"),
        Field("max_density", "number", "Greatest share of the block that may be built over"),
    )),
    RegisterLayer("urban_planning", "regulation_lines", "MultiLineString",
                  "Lines that limit building", (
        *_COMMON,
        Field("kind", "text", "Kind of line", ("red", "yellow", "blue", "green", "building"),
              required=True),
        Field("document", "text", "Decision that set it"),
    )),
    RegisterLayer("urban_planning", "construction_objects", "MultiPolygon",
                  "Sites and buildings under construction", (
        *_COMMON,
        Field("status", "text", "Stage", ("planned", "construction", "completed")),
        Field("name", "text", "Name of the object"),
        _BUILDING,
    ), "OpenStreetMap building=construction and landuse=construction"),
    RegisterLayer("addresses", "addresses", "Point", "Addresses and their events", (
        *_COMMON,
        Field("street", "text", "Street"),
        Field("housenumber", "text", "Number of the house", required=True),
        Field("postcode", "text", "Postal code"),
        Field("city", "text", "Settlement"),
        Field("event", "text", "What happened to it last", ("created", "renamed", "abolished",
              "boundary_changed", "merged", "split")),
        _BUILDING,
    ), "OpenStreetMap addr:*"),
    RegisterLayer("nature", "protected_areas", "MultiPolygon", "Protected natural areas", (
        *_COMMON,
        Field("name", "text", "Name"),
        Field("category", "text", "Category of protection"),
        Field("operator", "text", "Who runs it"),
    ), "OpenStreetMap boundary=protected_area, national_park and leisure=nature_reserve"),
    RegisterLayer("nature", "water_protection_zones", "MultiPolygon",
                  "Zones and strips along water", (
        *_COMMON,
        Field("kind", "text", "Zone or strip", ("zone", "strip"), required=True),
        Field("water_name", "text", "Water it protects"),
        Field("width", "number", "Width, m"),
    )),
    RegisterLayer("nature", "protection_zones", "MultiPolygon", "Sanitary and other zones", (
        *_COMMON,
        Field("kind", "text", "What it protects from or protects", ("sanitary", "heritage",
              "network", "airport", "other"), required=True),
        Field("name", "text", "Name"),
    )),
    RegisterLayer("real_estate", "real_estate", "Point", "Objects of the real-estate register", (
        *_COMMON,
        Field("cadastral_number", "text", "Number in the register", required=True),
        Field("kind", "text", "Kind of object", ("building", "flat", "non_residential",
              "structure", "unfinished")),
        Field("area", "number", "Area by the technical passport, m²"),
        Field("right", "text", "Kind of right", ("ownership", "lease", "use", "management")),
        Field("encumbrance", "text", "Kind of encumbrance, if any", ("mortgage", "arrest",
              "easement", "lease", "other")),
        Field("technical_passport", "text", "Number of the technical passport"),
        _BUILDING,
    )),
)  # fmt: skip


def schema_table() -> pd.DataFrame:
    """Return the schema of every register layer, a row a column."""
    import pandas as pd

    rows = [
        (layer.register, layer.name, layer.geometry, f.name, f.kind, f.required,
         ", ".join(f.domain), f.relation, f.about, layer.filled_from or "import only")
        for layer in LAYERS
        for f in layer.fields
    ]  # fmt: skip
    columns = ["register", "layer", "geometry", "field", "kind", "required", "domain", "relation",
               "about", "filled_from"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def from_twin(twin: Twin, *, event: str | None = "created") -> dict[str, gpd.GeoDataFrame]:
    """Fill the layers that open data can fill; ``event`` is what happened to addresses."""
    import geopandas as gpd
    import pandas as pd

    crs = twin.buildings.crs
    out = {layer.name: _empty(layer, crs) for layer in LAYERS}
    addresses = twin.layers["addresses"]
    if len(addresses):
        out["addresses"] = _shaped("addresses", gpd.GeoDataFrame({
            "id": addresses["id"], "street": addresses["addr_street"],
            "housenumber": addresses["addr_housenumber"], "postcode": addresses["addr_postcode"],
            "city": addresses["addr_city"], "valid_from": addresses["valid_from"],
            "building_id": _buildings_at(twin, addresses), "source": OSM, "event": event,
        }, geometry=addresses.geometry, crs=crs))  # fmt: skip
    areas = twin.layers["protected_areas"]
    if len(areas):
        out["protected_areas"] = _shaped("protected_areas", gpd.GeoDataFrame({
            "id": areas["id"], "name": areas["name"], "category": areas["protection_title"],
            "operator": areas["operator"], "valid_from": areas["valid_from"], "source": OSM,
        }, geometry=areas.geometry, crs=crs))  # fmt: skip
    sites = twin.layers["landuse"]
    sites = sites[sites["kind"] == "construction"]
    built = twin.buildings[twin.buildings["kind"] == "construction"]
    rows = pd.concat(
        [
            pd.DataFrame({"id": sites["id"], "name": sites["name"], "building_id": None,
                          "valid_from": sites["valid_from"], "geometry": sites.geometry}),
            pd.DataFrame({"id": built["id"], "name": built["name"], "building_id": built["id"],
                          "valid_from": built["valid_from"], "geometry": built.geometry}),
        ],
        ignore_index=True,
    )  # fmt: skip
    if len(rows):
        rows["status"], rows["source"] = "construction", OSM
        out["construction_objects"] = _shaped(
            "construction_objects", gpd.GeoDataFrame(rows, geometry="geometry", crs=crs)
        )
    return out


#: source of rows that the twin itself fills
OSM = "OpenStreetMap"


def carry_on(twin: Twin, folder: str | Path, since: str | Path | None = None) -> Path:
    """Write the registers of a twin, going on from those of an earlier one.

    Parameters
    ----------
    twin
        The twin of this run.
    folder
        Its folder.
    since
        ``city.gpkg`` of the earlier run. Without one, registers that lie in the folder
        stay as they are.

    Returns
    -------
    pathlib.Path
        ``registers.gpkg``.

    Notes
    -----
    Rows that open data filled follow it: a version that differs is closed and a new one
    opened, one that is gone is closed, and addresses tell the event. What was imported
    stays as it is.
    """
    import pyogrio

    target = Path(folder) / FILE
    before = target
    if since is not None:
        old = Path(since)
        before = (old if old.is_dir() else old.parent) / FILE
        before = before if before.is_file() else target
    if since is None or not before.is_file():
        return target if target.is_file() else write_registers(from_twin(twin), target)
    here = {str(row[0]) for row in pyogrio.list_layers(before)}
    crs = twin.buildings.crs
    now = {
        x.name: _shaped(x.name, _named(pyogrio.read_dataframe(before, layer=x.name)).to_crs(crs))
        if x.name in here else _empty(x, crs)
        for x in LAYERS
    }  # fmt: skip
    day = str(twin.buildings["valid_from"].max())
    for name, fresh in from_twin(twin, event=None).items():
        if layer_named(name).filled_from:
            now[name] = _followed(now[name], fresh, layer_named(name), day)
    return write_registers(now, target)


def _followed(
    old: gpd.GeoDataFrame, new: gpd.GeoDataFrame, spec: RegisterLayer, day: str
) -> gpd.GeoDataFrame:
    """Close and open versions of the rows that open data filled."""
    import geopandas as gpd
    import pandas as pd

    old, new = _named(old).reset_index(drop=True), _named(new).reset_index(drop=True)
    mine = old["valid_to"].isna() & old["id"].astype(str).str.match(r"(node|way|relation)/")
    mine &= old["source"].isna() | (old["source"] == OSM)
    live = old[mine]
    live = live[~live["id"].duplicated()]
    imported = set(old["id"][old["valid_to"].isna() & ~mine])
    new = new[~new["id"].isin(imported)].reset_index(drop=True)
    at = live.reset_index().set_index("id")["index"].reindex(new["id"])
    before = at.notna().to_numpy()
    same = np.zeros(len(new), bool)
    rows = live.loc[at[before].astype(int)] if before.any() else live.iloc[:0]
    ignored = {"event"} | set(_VALIDITY)
    if before.any():
        same[before] = _same(new[before], rows, spec, ignored)
    gone = live.index[~live["id"].isin(new["id"])]
    old.loc[gone, "valid_to"] = day
    old.loc[at.to_numpy()[before & ~same].astype(int), "valid_to"] = day
    fresh = new[~same].copy()
    fresh["valid_from"] = day
    if "event" in fresh:
        old.loc[gone, "event"] = "abolished"
        known = before[~same]
        event = np.where(known, "renamed", "created").astype(object)
        if known.any():
            was = live.loc[at.to_numpy()[before & ~same].astype(int)]
            named = _same(fresh[known], was, spec, ignored | {"building_id"}, geometry=False)
            event[known] = np.where(named, "boundary_changed", "renamed")
        fresh["event"] = event
    kept = [x for x in (old, fresh) if len(x)]
    return gpd.GeoDataFrame(pd.concat(kept, ignore_index=True), crs=new.crs) if kept else old


def _buildings_at(twin: Twin, points: gpd.GeoDataFrame) -> list[str | None]:
    """Return the whole building under each point."""
    import shapely

    whole = twin.buildings[twin.buildings["parent"].isna()]
    tree = shapely.STRtree(whole.geometry.to_numpy())
    at, building = tree.query(points.geometry.to_numpy(), predicate="intersects")
    out: list[str | None] = [None] * len(points)
    ids = whole["id"].to_numpy(object)
    for a, b in zip(at[::-1].tolist(), building[::-1].tolist(), strict=True):
        out[a] = ids[b]
    return out


def layer_named(name: str) -> RegisterLayer:
    """Return a register layer.

    Raises
    ------
    InputError
        When there is none of that name.
    """
    found = next((layer for layer in LAYERS if layer.name == name), None)
    if found is None:
        raise InputError(
            f"no register layer {name!r}", "one of " + ", ".join(x.name for x in LAYERS)
        )
    return found


def _empty(layer: RegisterLayer, crs: Any) -> gpd.GeoDataFrame:
    import geopandas as gpd
    import pandas as pd

    data = {
        f.name: pd.Series([], dtype="float64" if f.kind == "number" else "object")
        for f in layer.fields
    }
    return gpd.GeoDataFrame(data, geometry=gpd.GeoSeries([], crs=crs), crs=crs)


def _shaped(name: str, rows: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Bring rows to a layer's columns."""
    layer = layer_named(name)
    out = rows.copy()
    for field in layer.fields:
        if field.name not in out:
            out[field.name] = np.nan if field.kind == "number" else None
    import shapely

    # registers lie in the plane; heights stay in city.gpkg
    out = out.set_geometry(shapely.force_2d(out.geometry.to_numpy()), crs=out.crs)
    return out[[*(f.name for f in layer.fields), out.geometry.name]]


def write_registers(layers: Mapping[str, gpd.GeoDataFrame], path: str | Path) -> Path:
    """Write ``registers.gpkg``: every layer, empty ones too, and the table ``schema``."""
    import pyogrio

    target = Path(path)
    with replacing(target, ".gpkg") as work:
        for layer in LAYERS:
            pyogrio.write_dataframe(
                layers[layer.name].reset_index(drop=True), work, layer=layer.name, driver="GPKG",
                geometry_type=layer.geometry, promote_to_multi=layer.geometry != "Point",
                dataset_options={"VERSION": "1.3"},
                layer_options={"GEOMETRY_NAME": "geom", "DESCRIPTION": layer.about,
                               "IDENTIFIER": layer.name},
            )  # fmt: skip
        pyogrio.write_dataframe(schema_table(), work, layer="schema", driver="GPKG")
        with closing(sqlite3.connect(work)) as db, db:
            db.execute("PRAGMA journal_mode = DELETE")
    return target


def import_register(
    twin_dir: str | Path,
    layer: str,
    source: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    source_layer: str | None = None,
    crs: Any = None,
    date: str,
) -> dict[str, int]:
    """Import objects of a register; versions that differ are closed, never deleted.

    Parameters
    ----------
    twin_dir
        Twin folder with ``registers.gpkg``.
    layer
        A register layer, for instance ``land_parcels``.
    source
        GeoPackage, GeoJSON, or CSV in UTF-8 with a column ``wkt`` (or ``x`` and ``y``).
    columns
        Column of the register → column of the source, where names differ.
    source_layer
        Layer of the source, where it has several.
    crs
        CRS of a source that does not tell it; a CSV is in the twin's CRS where None.
    date
        Day from which the objects hold (ISO 8601).

    Returns
    -------
    dict
        Number ``created``, ``changed`` and ``unchanged``.

    Raises
    ------
    InputError
        With every problem of the source: missing columns or ids, values outside
        their domain, dates that are none, another kind of geometry, relations to nothing,
        places far from the city.
    """
    import pandas as pd
    import pyogrio

    spec = layer_named(layer)
    if not is_day(date):
        raise InputError(f"date is {date!r}", "a day as YYYY-MM-DD")
    file = Path(twin_dir) / FILE
    if not file.is_file():
        raise InputError(f"{file} does not exist", "a twin folder made by qala city")
    now = {x.name: pyogrio.read_dataframe(file, layer=x.name) for x in LAYERS}
    here = now[layer].crs
    rows = _read_source(Path(source), source_layer, here, crs).rename(
        columns={theirs: ours for ours, theirs in (columns or {}).items()}
    )
    buildings = pyogrio.read_dataframe(
        Path(twin_dir) / "city.gpkg", layer="buildings", columns=["id"], read_geometry=False
    )
    known = {"buildings.id": set(buildings["id"])}
    known |= {f"{x.name}.id": set(now[x.name]["id"]) for x in LAYERS}
    bounds = pyogrio.read_info(Path(twin_dir) / "city.gpkg", layer="footprints")["total_bounds"]
    _check_rows(rows, spec, known, str(source), bounds)
    rows = _shaped(layer, _named(rows))
    rows["source"] = rows["source"].where(rows["source"].notna(), Path(source).name)
    rows["valid_from"] = rows["valid_from"].where(rows["valid_from"].notna(), date)
    old = _named(now[layer])
    live = old[old["valid_to"].isna()]
    at = live.reset_index().set_index("id")["index"].reindex(rows["id"])
    before = at.notna().to_numpy()
    same = np.zeros(len(rows), bool)
    same[before] = _same(rows[before], live.loc[at[before].astype(int)], spec)
    ended = at.to_numpy()[before & ~same].astype(int)
    old.loc[ended, "valid_to"] = date
    fresh = rows[~same]
    fresh.loc[before[~same], "valid_from"] = date
    kept = [x for x in (old, fresh) if len(x)]
    if kept:
        import geopandas as gpd

        now[layer] = gpd.GeoDataFrame(pd.concat(kept, ignore_index=True), crs=here)
    write_registers(now, file)
    return {
        "created": int((~before).sum()),
        "changed": int((before & ~same).sum()),
        "unchanged": int(same.sum()),
    }


def _named(rows: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Call the geometry ``geometry``, whatever the file called it."""
    return rows if rows.geometry.name == "geometry" else rows.rename_geometry("geometry")


def _read_csv(source: Path, crs: Any, given: Any) -> gpd.GeoDataFrame:
    """Read a table with a column ``wkt``, or ``x`` and ``y``; comma, semicolon or tab between."""
    import geopandas as gpd
    import pandas as pd

    try:
        with source.open(encoding="utf-8-sig") as file:
            head = file.readline()
        mark = max(",;\t", key=head.count)
        table = pd.read_csv(source, dtype=str, sep=mark, encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{source} is not UTF-8 text ({error})", "a table in UTF-8",
                         "save it as CSV UTF-8") from error  # fmt: skip
    except (pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        raise InputError(
            f"{source} is no table ({error})", "rows of equal length under a line of names"
        ) from error
    problems = Problems(str(source))
    if "wkt" in table:
        texts = table.pop("wkt")
        place = gpd.GeoSeries.from_wkt(texts, on_invalid="ignore")
        wrong = texts[place.isna()]
        if len(wrong):
            problems.add(
                f"wkt holds {str(wrong.iloc[0])[:40]!r} in row {wrong.index[0] + 1} "
                f"({len(wrong)} in all)", "well-known text such as POINT (1 2)",
            )  # fmt: skip
    elif {"x", "y"} <= set(table.columns):
        numbers = []
        for name in ("x", "y"):
            texts = table.pop(name)
            value = pd.to_numeric(texts.str.replace(",", ".", regex=False), errors="coerce")
            wrong = texts[~np.isfinite(value)]
            if len(wrong):
                problems.add(f"{name} holds {str(wrong.iloc[0])[:40]!r} in row "
                             f"{wrong.index[0] + 1} ({len(wrong)} in all)", "numbers")  # fmt: skip
            numbers.append(value)
        place = gpd.GeoSeries(gpd.points_from_xy(*numbers))
    else:
        raise InputError(f"{source} has no geometry", "a column wkt, or x and y")
    problems.raise_if_any()
    return gpd.GeoDataFrame(table, geometry=place, crs=given or crs).to_crs(crs)


def _read_source(source: Path, layer: str | None, crs: Any, given: Any = None) -> gpd.GeoDataFrame:
    import geopandas as gpd
    import pyogrio.errors

    if not source.is_file():
        raise InputError(f"{source} does not exist", "a GeoPackage, GeoJSON or CSV")
    if source.suffix.lower() == ".csv":
        return _read_csv(source, crs, given)
    try:
        found = gpd.read_file(source, layer=layer) if layer else gpd.read_file(source)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise InputError(f"{source} cannot be read ({error})", "a GeoPackage or GeoJSON") from error
    if isinstance(found, gpd.GeoDataFrame) and found.crs is None and given is not None:
        found = found.set_crs(given)
    if not isinstance(found, gpd.GeoDataFrame) or found.crs is None:
        raise InputError(f"{source} has no CRS", "a layer with a CRS", "name it with --crs")
    return found.to_crs(crs)


#: rows of a register farther from the city than this are in another CRS, metres
FAR = 200_000.0


def _check_rows(
    rows: gpd.GeoDataFrame, spec: RegisterLayer, known: Mapping[str, set[str]], name: str,
    bounds: Any,
) -> None:  # fmt: skip
    import pandas as pd
    import shapely

    problems = Problems(name)
    for field in spec.fields:
        if field.name not in rows:
            if field.required:
                problems.add(f"no column {field.name}", field.about,
                             f"name it with --column {field.name}=COLUMN")  # fmt: skip
            continue
        values = rows[field.name]
        empty = values.isna()
        if field.required and empty.any():
            problems.add(f"{field.name} is empty in {int(empty.sum())} rows", "a value in each row")
        given = values[~empty]
        if field.domain:
            odd = sorted(set(given.astype(str)) - set(field.domain))
            if odd:
                problems.add(f"{field.name} holds {', '.join(odd[:5])}",
                             "one of " + ", ".join(field.domain))  # fmt: skip
        if field.relation:
            lost = sorted(set(given.astype(str)) - known[field.relation])
            if lost:
                problems.add(f"{field.name} names {', '.join(lost[:5])} ({len(lost)} in all)",
                             f"an object of {field.relation}")  # fmt: skip
        if field.kind == "number":
            wrong = given[pd.to_numeric(given, errors="coerce").isna()]
            if len(wrong):
                problems.add(f"{field.name} holds {wrong.iloc[0]!r}", "numbers")
        if field.kind == "date":
            odd = [v for v in given.astype(str) if not is_day(v)]
            if odd:
                problems.add(f"{field.name} holds {odd[0]!r}", "days as YYYY-MM-DD")
    if "id" in rows:
        twice = rows["id"][rows["id"].duplicated()]
        if len(twice):
            problems.add(f"id {twice.iloc[0]} stands twice ({len(twice)} in all)", "unique ids")
    if len(rows):
        city = shapely.box(*bounds)
        away = shapely.distance(rows.geometry.to_numpy(), city)
        if np.nanmax(away, initial=0.0) > FAR:
            problems.add(
                f"a place lies {np.nanmax(away) / 1000:,.0f} km from the city",
                f"places within {FAR / 1000:g} km, in the twin's CRS",
                "name the source's CRS with --crs, for instance EPSG:4326 for degrees",
            )
    kind = spec.geometry.removeprefix("Multi")
    wrong_kind = ~rows.geom_type.str.removeprefix("Multi").isin([kind])
    if wrong_kind.any():
        problems.add(f"{int(wrong_kind.sum())} rows are no {kind}", f"{kind} geometries")
    if not rows.geometry.is_valid.all():
        problems.add(f"{int((~rows.geometry.is_valid).sum())} geometries are invalid",
                     "valid ones", "repair them in QGIS: Fix geometries")  # fmt: skip
    problems.raise_if_any()


#: columns that tell of a version and not of the object
_VALIDITY = ("id", "valid_from", "valid_to", "source")


def _same(
    new: gpd.GeoDataFrame, old: gpd.GeoDataFrame, spec: RegisterLayer,
    ignored: Collection[str] = _VALIDITY, *, geometry: bool = True,
) -> Any:  # fmt: skip
    """Return which rows hold what they held, validity aside."""
    import pandas as pd
    import shapely

    a = shapely.normalize(_multi(new.geometry.to_numpy()))
    b = shapely.normalize(_multi(old.geometry.to_numpy()))
    same = shapely.equals_exact(a, b, tolerance=1e-3) | (not geometry)
    for field in spec.fields:
        if field.name in ignored:
            continue
        x, y = new[field.name].to_numpy(object), old[field.name].to_numpy(object)
        if field.kind == "number":
            x = pd.to_numeric(pd.Series(x), errors="coerce").to_numpy(float)
            y = pd.to_numeric(pd.Series(y), errors="coerce").to_numpy(float)
        gone_x, gone_y = pd.isna(x), pd.isna(y)
        same &= (gone_x & gone_y) | (~gone_x & ~gone_y & (x.astype(str) == y.astype(str)))
    return same


def _multi(shapes: Any) -> Any:
    """Multi-geometries of one piece as that piece."""
    import shapely

    out = shapes.copy()
    one = (shapely.get_type_id(shapes) >= 4) & (shapely.get_num_geometries(shapes) == 1)
    out[one] = shapely.get_geometry(shapes[one], 0)
    return out
