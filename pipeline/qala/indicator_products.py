"""Products of indicators: from files to a GeoPackage, a table and a map."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from qala.errors import InputError, Problems, QalaError
from qala.files import replacing
from qala.indicator_definitions import DEFINITIONS, POINT_METRES, FunctionalAreas
from qala.indicators import COLUMNS, Indicators, Progress, column_names, planning_indicators
from qala.messages import LANGUAGES, Words, said, tr

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

    from qala.config import IndicatorsWorkflow
    from qala.export.geopackage import Layer
    from qala.network import Network
    from qala.provenance import Recorder

log = logging.getLogger("qala")

#: indicators a map is drawn of first, as far as they are computed
HEADLINES = (
    "lcrpgr", "urban_share", "transit_access", "open_space_400m", "hospital_minutes_car",
    "emergency_fire_10min", "growth_inside_people", "school_15min_foot", "people_in_zones",
    "solar_per_person", "roads_density", "population_growth_rate", "built_per_person",
)  # fmt: skip
#: small maps on a page at most
MOST_MAPS = 6
_GREENS = ((0, 104, 55), (49, 163, 84), (120, 198, 121), (173, 221, 142), (217, 240, 163))


# --- from files -------------------------------------------------------------------------------


def indicators_flow(
    units: str | Path,
    population: Sequence[str],
    output: str | Path,
    *,
    id: str,
    built: Sequence[str] = (),
    land: Sequence[str] = (),
    cells: Sequence[str] = (),
    areas: str | Path | None = None,
    city: str | Path | None = None,
    networks: Sequence[str] = (),
    osm: str | Path | None = None,
    points: Sequence[str] = (),
    zones: Sequence[str] = (),
    official: str | Path | None = None,
    layer: str | None = None,
    units_crs: str | None = None,
    repair: bool = False,
    nodata: float | None = None,
    built_unit: Any = None,
    land_unit: Any = None,
    ruleset: str = "R2023A",
    figure: str | Path | None = None,
    page: str | Path | None = None,
    title: Words = "",
    source: Words = "",
    synthetic: bool = False,
    lang: str = "en",
    progress: Progress | None = None,
    **options: Any,
) -> tuple[Indicators, list[Path]]:
    """Compute indicators from files and write GeoPackage, CSV and, where wanted, a map.

    Parameters
    ----------
    units, id, layer, units_crs, repair
        As for :func:`qala.read_units`.
    population, built, land, cells
        Files, each plain or as ``epoch=file``; a single one of land serves every epoch.
    output
        GeoPackage to write; the long table lies beside it as CSV.
    areas
        GeoPackage of ``qala areas``, or any layer of polygons with ``area``.
    city
        Folder of a twin, or its ``city.gpkg``.
    networks
        Files of ``qala network``, or an extract, of which both modes are made; ``foot=FILE`` and
        ``car=FILE`` take one of them.
    osm
        OpenStreetMap extract.
    points
        ``name=file`` or ``name=file@metres``.
    zones
        ``name=file`` or a file.
    official
        Table of official shares; see :func:`qala.rates.read_official`.
    nodata, built_unit, land_unit, ruleset
        As for :func:`qala.flows.cells_to_files`.
    figure, page, title, source, synthetic
        PNG of small maps, HTML page in three languages, what stands above and below them, and
        the mark of invented data.
    lang
        Language of words.
    progress
        Called with the number of steps done and in all.
    **options
        Limits of :func:`qala.indicators.planning_indicators`.

    Returns
    -------
    tuple
        The indicators and the files written.

    Raises
    ------
    InputError
        When inputs are not sound; nothing is written then.
    """
    from qala.export.geopackage import write_geopackage
    from qala.raster import require_apart, require_writable

    target = Path(output)
    table = target.with_suffix(".csv")
    named = [Path(p) for p in (target, table, *(f for f in (figure, page) if f))]
    point_files, reach = _points_given(points)
    zone_files = _zones_given(zones)
    read = [
        *(s.split("=", 1)[-1] for s in (*population, *built, *land, *cells, *networks)),
        units, *(p for p in (areas, osm, official) if p), *point_files.values(),
        *zone_files.values(), *([_city_file(city)] if city else []),
    ]  # fmt: skip
    if target.suffix.lower() != ".gpkg":
        raise InputError(
            f"{target} is no name of a GeoPackage", "a name ending in .gpkg", "rename -o"
        )
    require_apart(named, read)
    for path in named:
        require_writable(path, make=False)
    given = _opened(
        units, population, built, land, cells, areas, city, networks, osm, point_files, zone_files,
        official, id=id, layer=layer, units_crs=units_crs, repair=repair, nodata=nodata,
        built_unit=built_unit, land_unit=land_unit,
    )  # fmt: skip
    if reach:
        options["point_metres"] = reach
    found = planning_indicators(
        **given, id=id, ruleset=ruleset, lang=lang, progress=progress, **options
    )
    amenities = given["amenities"]
    notices: list[Words] = [source]
    notices += [amenities.notice] if amenities is not None else []
    notices += [str(n.metadata.get("notice", "")) for n in (given["networks"] or {}).values()]
    heading: dict[str, str] = {code: heading_of(title, code) for code in LANGUAGES}
    credit = "; ".join(_credits(notices, lang))
    metadata: dict[str, Any] = {
        "title": heading,
        "sources": [n for n in notices if n],
        "licence": credit,
        "citation": "UN-Habitat, SDG indicator metadata 11.2.1, 11.3.1, 11.7.1",
        "provenance": {"settings": dict(found.settings), "inputs": described(read)},
        "synthetic": synthetic,
    }
    marks: dict[str, Any] = {"lang": lang, "synthetic": synthetic}
    for path in named:
        path.parent.mkdir(parents=True, exist_ok=True)
    # all files are made before the first appears under its name
    with TemporaryDirectory(prefix=".qala-", dir=target.parent) as folder:
        stage = Path(folder)
        made = {target: stage / target.name, table: stage / table.name}
        layers = layers_of_indicators(found, lang)
        write_geopackage(made[target], layers, metadata=metadata, lang=lang)
        write_csv(found, made[table], lang)
        if figure is not None:
            made[Path(figure)] = map_indicators(
                found, stage / Path(figure).name, title=heading[lang], source=credit, **marks
            )
        if page is not None:
            made[Path(page)] = _page_with_maps(
                found, stage / Path(page).name, title, notices, described(read), **marks
            )
        for path, work in made.items():
            shutil.move(work, path)
    files = list(made)
    return found, files


def _page_with_maps(
    found: Indicators, page: Path, title: Words,
    notices: Sequence[Words],
    inputs: list[dict[str, Any]], *, synthetic: bool, lang: str,
) -> Path:  # fmt: skip
    """Write the page with a map in each language."""
    from qala.indicator_report import write_indicator_page

    with TemporaryDirectory(prefix="qala-") as folder:
        figures: dict[str, str | Path] = {}
        for code in LANGUAGES:
            figures[code] = map_indicators(
                found, Path(folder) / f"map_{code}.png", lang=code,
                source="; ".join(_credits(notices, code)), title=heading_of(title, code),
                synthetic=synthetic,
            )  # fmt: skip
        return write_indicator_page(
            found, page, title=title, figures=figures, sources=[n for n in notices if n],
            inputs=inputs,
            synthetic=synthetic, lang=lang,
        )  # fmt: skip


def heading_of(title: Words, lang: str) -> str:
    """Return the heading of maps and pages of indicators, with the name of the region."""
    place, words = said(title, lang), tr("indicator.map_title", lang)
    return f"{words}: {place}" if place else words


def _credits(notices: Sequence[Words], lang: str) -> list[str]:
    return list(dict.fromkeys(said(n, lang) for n in notices if n))


def described(files: Sequence[Any]) -> list[dict[str, Any]]:
    """Return name, size and hash of input files; addresses as they are."""
    from qala.provenance import describe_input

    once = dict.fromkeys(Path(str(f)).resolve() for f in files)
    return [describe_input(f) for f in once if f.is_file()]


def _opened(
    units: Any, population: Any, built: Any, land: Any, cells: Any, areas: Any, city: Any,
    networks: Any, osm: Any, points: Mapping[str, Path], zones: Mapping[str, Path], official: Any,
    *, id: str, layer: str | None, units_crs: str | None, repair: bool, nodata: float | None,
    built_unit: Any, land_unit: Any,
) -> dict[str, Any]:  # fmt: skip
    """Open all inputs, gathering what is wrong with them."""
    from qala.amenities import read_amenities
    from qala.raster import open_raster
    from qala.rates import read_official
    from qala.sources import epochs_of
    from qala.vector import read_units

    problems = Problems("qala indicators")
    found: dict[str, Any] = {}

    def attempt(name: str, read: Any) -> None:
        try:
            found[name] = read()
        except QalaError as error:
            problems.add_error(error)

    def rasters(files: Sequence[str], quantity: Any, **how: Any) -> Any:
        opened = {e: open_raster(p, quantity, **how) for e, p in epochs_of(files).items()}
        if not opened:
            return None
        return opened[None] if set(opened) == {None} else opened

    attempt("population", lambda: rasters(population, "population", nodata=nodata))
    attempt("built", lambda: rasters(built, "built", unit=built_unit))
    attempt("land", lambda: rasters(land, "land", unit=land_unit))
    attempt("cells", lambda: rasters(cells, "cells"))
    attempt("units", lambda: read_units(units, id=id, layer=layer, crs=units_crs, repair=repair))
    attempt("areas", lambda: None if areas is None else read_areas(areas))
    attempt("official", lambda: None if official is None else read_official(official, id))
    attempt("buildings", lambda: None if city is None else read_buildings(city))
    attempt("points", lambda: {n: _read_layer(p, n) for n, p in points.items()})
    attempt("zones", lambda: {n: _read_layer(p, n) for n, p in zones.items()})
    attempt("networks", lambda: open_networks(networks))
    attempt("amenities", lambda: None if osm is None else read_amenities(osm))
    problems.raise_if_any()
    _fit_epochs(found)
    name = _names_of
    found["sources"] = {
        "population": name(population), "built": name(built), "land": name(land),
        "cells": name(cells), "areas": name([areas]), "official": name([official]),
        "city": name([city]), "network": name(networks), "osm": name([osm]),
        **{f"points {n}": p.name for n, p in points.items()},
        **{f"zones {n}": p.name for n, p in zones.items()},
    }  # fmt: skip
    return found


def _fit_epochs(found: dict[str, Any]) -> None:
    """Let a single raster serve where epochs leave no doubt: land always, others for one."""
    one = not isinstance(found["population"], dict)
    for name in ("built", "land", "cells"):
        other = found[name]
        if isinstance(other, dict) and len(other) == 1 and (one or name == "land"):
            found[name] = next(iter(other.values()))


def _names_of(files: Sequence[Any]) -> str:
    return ", ".join(Path(str(f).split("=", 1)[-1]).name for f in files if f)


def open_networks(files: Sequence[str]) -> dict[str, Network]:
    """Open road networks by mode.

    Parameters
    ----------
    files
        Files of ``qala network``; an extract (``.osm.pbf``) makes both modes, ``foot=FILE`` or
        ``car=FILE`` one of them.

    Raises
    ------
    InputError
        When a file is none, or a mode is given twice.
    """
    from qala.areas import open_network
    from qala.indicator_definitions import MODES

    found: dict[str, Network] = {}
    problems = Problems("networks")
    for text in files:
        mode, sign, path = text.partition("=")
        if not sign or mode not in MODES:
            mode, path = "", text
        extract = path.lower().endswith((".pbf", ".osm", ".osm.gz", ".osm.bz2"))
        for wanted in ((mode,) if mode else MODES) if extract else (mode,):
            try:
                network = open_network(path, mode=wanted) if extract else open_network(path)
            except QalaError as error:
                problems.add_error(error)
                continue
            if wanted and network.mode != wanted:
                problems.add(f"{path} is a network of mode {network.mode}", f"mode {wanted}")
            elif network.mode in found:
                problems.add(f"two networks of mode {network.mode} are given", "one of each mode")
            else:
                found[network.mode] = network
    problems.raise_if_any()
    return found


def _points_given(points: Sequence[str]) -> tuple[dict[str, Path], dict[str, float]]:
    """Read ``name=file`` and ``name=file@metres``."""
    files: dict[str, Path] = {}
    reach: dict[str, float] = {}
    problems = Problems("--points")
    for text in points:
        name, sign, path = text.partition("=")
        if not sign or not name.strip() or not path.strip():
            problems.add(f"{text!r}", "name=file, such as cameras=cameras.gpkg@100")
            continue
        match = re.fullmatch(r"(.+)@([\d.]+)", path)
        name = _column(name)
        if name in files:
            problems.add(f"the name {name} stands twice", "another name for each layer")
        files[name] = Path(match[1] if match else path)
        reach[name] = float(match[2]) if match else POINT_METRES
    problems.raise_if_any()
    return files, reach


def _zones_given(zones: Sequence[str]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for text in zones:
        name, sign, path = text.partition("=")
        if not sign or Path(text).exists():
            name, path = Path(text).stem, text
        name = _column(name)
        if name in files:
            raise InputError(f"--zones names {name} twice", "another name for each: name=file")
        files[name] = Path(path)
    return files


def _column(name: str) -> str:
    """Return a name as it can stand in a column: letters of any script, digits, _."""
    return re.sub(r"\W+", "_", name.strip()).strip("_").lower() or "layer"


def _read_layer(path: Path, name: str) -> gpd.GeoDataFrame:
    """Read one layer of points or polygons."""
    from qala.sources import read_places

    frame = read_places(path)
    if not hasattr(frame, "geometry") or frame.active_geometry_name is None:
        raise InputError(f"{path} ({name}) is a table without geometry", "points or polygons")
    if frame.crs is None:
        raise InputError(
            f"{path} ({name}) has no CRS", "a declared CRS", "assign it with ogr2ogr -a_srs"
        )
    return frame[frame.geometry.notna() & ~frame.geometry.is_empty].reset_index(drop=True)


def read_areas(path: str | Path) -> FunctionalAreas:
    """Read functional areas: the GeoPackage of ``qala areas``, or one layer of polygons.

    Raises
    ------
    InputError
        When the file cannot be read, has no polygons, CRS or id.
    """
    import geopandas as gpd
    import pyogrio
    import pyogrio.errors

    file = Path(path)
    if not file.exists():
        raise InputError(f"{file} does not exist", "areas as `qala areas` writes them")
    try:
        names = [str(n) for n in pyogrio.list_layers(file)[:, 0]]
        layers = {
            n: gpd.read_file(file, layer=n)
            for n in (("areas", "cores", "zones") if "areas" in names else names[:1])
            if n in names
        }
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise InputError(f"{file} cannot be read ({error})", "a GeoPackage of areas") from error
    first = next(iter(layers))
    frame = layers[first]
    problems = Problems(f"{file.name}, layer {first}")
    if not isinstance(frame, gpd.GeoDataFrame) or not len(frame):
        raise InputError(f"{file}, layer {first}, holds no polygon", "functional areas")
    if frame.crs is None:
        problems.add("no CRS", "a declared CRS", "assign it with ogr2ogr -a_srs")
    if "area" not in frame.columns:
        id = next((c for c in ("id", "fua_id", "fua_code", "code") if c in frame.columns), None)
        if id is None:
            problems.add(
                f"no column 'area' among {', '.join(map(str, frame.columns))}",
                "the id of each area in a column 'area'",
                "rename it",
            )
        else:
            frame = frame.rename(columns={id: "area"})
    problems.raise_if_any()
    twice = frame["area"].duplicated()
    if twice.any():
        frame = frame.dissolve("area", as_index=False)
    cores, zones = layers.get("cores"), layers.get("zones")
    return FunctionalAreas(
        frame,
        None if cores is None or not len(cores) else cores,
        None if zones is None or not len(zones) else zones,
    )


def _city_file(city: str | Path) -> Path:
    path = Path(city)
    return path / "city.gpkg" if path.is_dir() else path


def read_buildings(city: str | Path) -> gpd.GeoDataFrame:
    """Read the buildings of a twin with their roofs.

    Raises
    ------
    InputError
        When there is no twin, or no layer ``footprints`` in it.
    """
    import geopandas as gpd
    import pyogrio
    import pyogrio.errors

    file = _city_file(city)
    expected = "a folder of `qala city`, or its city.gpkg"
    if not file.exists():
        raise InputError(f"{file} does not exist", expected, "make it with qala city")
    try:
        names = [str(n) for n in pyogrio.list_layers(file)[:, 0]]
        if "footprints" not in names:
            raise InputError(f"{file} has no layer footprints but {', '.join(names)}", expected)
        frame = gpd.read_file(file, layer="footprints")
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise InputError(f"{file} cannot be read ({error})", expected) from error
    lost = [c for c in ("roof_area", "solar_kwh") if c not in frame.columns]
    if lost:
        raise InputError(f"footprints of {file} have no column {', '.join(lost)}", expected)
    return frame


# --- layers -----------------------------------------------------------------------------------


def layers_of_indicators(found: Indicators, lang: str = "en") -> dict[str, Layer]:
    """Return the layers of a GeoPackage: maps by unit and area, catchments, the long table.

    Parameters
    ----------
    found
        From :func:`qala.indicators.planning_indicators`.
    lang
        Language of titles, legends and notes.

    Returns
    -------
    dict
        Layer name to :class:`qala.export.geopackage.Layer`: ``indicators_units``,
        ``indicators_areas``, one a catchment, ``indicators`` and ``definitions``.
    """
    from qala.export import styles
    from qala.export.geopackage import Layer

    words = {c: tr(f"indicator.column.{c}", lang) for c in COLUMNS if c not in _KNOWN}
    layers: dict[str, Layer] = {}
    for kind in ("unit", "area"):
        if kind == "area" and found.areas is None:
            continue
        frame = found.wide(kind)
        name, order = f"indicators_{kind}s", headline(found, frame)
        titles: dict[str, str] = {}
        for code in LANGUAGES:
            # the legend tells by which indicator the map is coloured
            shows = f": {titles_of(found, code)[order[0]]}" if order else ""
            titles[code] = f"{tr(f'layer.{name}', code)}{shows}"
        layers[name] = Layer(
            frame, titles, aliases=titles_of(found, lang),
            style={code: _wide_style(found, frame, code) for code in LANGUAGES},
        )  # fmt: skip
    for name, shape in found.catchments.items():
        titles = {
            code: tr("indicator.catchment", code, name=_reach_name(name, code))
            for code in LANGUAGES
        }
        style: dict[str, str] = {code: _catchment_style(shape, code) for code in LANGUAGES}
        layers[name] = Layer(shape, titles, style=style)
    layers["indicators"] = Layer(
        found.table(lang), {code: tr("layer.indicators", code) for code in LANGUAGES},
        style=styles.table({**words, **_unit_words(lang)}),
    )  # fmt: skip
    layers["definitions"] = Layer(
        definitions_table(), {code: tr("layer.definitions", code) for code in LANGUAGES},
        style=styles.table(words),
    )  # fmt: skip
    return layers


#: columns of the long table that the catalog has words for already
_KNOWN = frozenset({"epoch", "unit", "name"})


def _unit_words(lang: str) -> dict[str, str]:
    from qala.export import styles

    return styles.names(["epoch", "name"], lang)


def titles_of(found: Indicators, lang: str) -> dict[str, str]:
    """Return the words of the wide table's columns."""
    rows = found.rows.drop_duplicates(["indicator", "item"])
    pairs = zip(rows["indicator"], rows["item"], column_names(rows), strict=True)
    return {column: DEFINITIONS[code].title(lang, item) for code, item, column in pairs}


def definitions_table() -> pd.DataFrame:
    """Return what each indicator is: code, group, unit, goal, titles in three languages."""
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "indicator": d.code, "group": d.group, "unit": d.unit, "sdg": d.sdg,
                **{f"title_{lang}": d.title(lang) for lang in LANGUAGES},
            }
            for d in DEFINITIONS.values()
        ]
    )  # fmt: skip


def headline(found: Indicators, frame: gpd.GeoDataFrame) -> list[str]:
    """Return the columns of the wide table worth a map, most telling first."""
    known = {*titles_of(found, "en")}
    columns = [c for c in frame.columns if c in known]
    told = [c for c in columns if frame[c].notna().any()]
    first = [c for h in HEADLINES for c in told if c == h or c.startswith(f"{h}_")]
    return [*dict.fromkeys(first), *(c for c in told if c not in first)]


def unit_of(found: Indicators, column: str) -> str:
    """Return the unit of a column of the wide table."""
    rows = found.rows
    return str(rows.loc[column_names(rows) == column, "unit"].iloc[0])


def shown(value: float, unit: str, lang: str = "en") -> str:
    """Return a value with three digits that count, shares in percent; a dash where it is missing.

    Examples
    --------
    >>> shown(0.4567, "share"), shown(0.00123, "km/km2"), shown(123456, "m2", "ru")
    ('45.7%', '0.00123', '123\u202f456')
    """
    from qala.figures import number, percent

    if unit in ("share", "share/year"):
        return percent(value, lang, digits=2 if unit == "share/year" else 1)
    size = int(np.floor(np.log10(abs(value)))) if value and np.isfinite(value) else 0
    return number(value, lang, digits=min(max(2 - size, 0), 5))


def _breaks(values: Any, unit: str) -> list[float]:
    """Return bounds of classes: fixed for shares, else quantiles."""
    from qala.export import styles
    from qala.figures import _quantiles

    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    if unit == "share" and known.min() >= 0 and known.max() <= 1:
        return list(styles.SHARE_BREAKS)
    # what differs by rounding alone is one class
    span = max(float(np.abs(known).max()), 1e-12)
    return _quantiles(np.round(known, int(np.clip(6 - np.floor(np.log10(span)), 0, 12))))


def _labels(breaks: Sequence[float], unit: str, lang: str) -> list[str]:
    """Return the words of classes, with the digits that tell them apart."""
    from itertools import pairwise

    from qala.figures import number, percent

    if unit in ("share", "share/year"):
        digits = 0 if unit == "share" and min(np.diff(breaks)) >= 0.01 else 2
        texts = [percent(b, lang, digits=digits) for b in breaks]
    else:
        step = float(min(np.diff(breaks)))
        digits = int(np.clip(1 - np.floor(np.log10(step)), 0, 4)) if step > 0 else 2
        texts = [number(b, lang, digits=digits) for b in breaks]
    return [f"{a} – {b}" for a, b in pairwise(texts)]


def _wide_style(found: Indicators, frame: gpd.GeoDataFrame, lang: str) -> str:
    """Return a graduated style by the most telling indicator."""
    from qala.export import styles

    order = headline(found, frame)
    label = '"name"'
    if not order:
        return styles.outline(colour=(90, 90, 90), label=label)
    column = order[0]
    unit = unit_of(found, column)
    breaks = _breaks(frame[column], unit)
    colours = styles.SHARE_COLOURS[: len(breaks) - 1]
    return styles.graduated(
        column, breaks, colours, _labels(breaks, unit, lang),
        missing=tr("indicator.no_map", lang) if bool(frame[column].isna().any()) else None,
        label=label, aliases=titles_of(found, lang),
    )  # fmt: skip


def _reach_name(name: str, lang: str) -> str:
    """Return the words of a catchment: what, and how far."""
    from qala.messages import catalog

    match = re.fullmatch(r"(.+)_([\d.]+)m", name)
    what, metres = (match[1], match[2]) if match else (name, "")
    key = f"indicator.reach.{what}"
    words = tr(key, lang) if key in catalog() else what
    return f"{words}, {tr('indicator.metres', lang, metres=metres)}" if metres else words


def _catchment_style(shape: gpd.GeoDataFrame, lang: str) -> str:
    from qala.export import styles

    if "minutes" not in shape.columns:
        return styles.outline(colour=(0, 90, 50), fill=(120, 198, 121), stroke_mm=0.2, opacity=0.5)
    bands = sorted(shape["minutes"].unique())
    step = max(len(_GREENS) // max(len(bands), 1), 1)
    classes = [
        (float(b), tr("indicator.minutes", lang, minutes=f"{b:g}"), _GREENS[min(i * step, 4)])
        for i, b in enumerate(bands)
    ]
    return styles.categorised("minutes", classes, opacity=0.6)


def write_csv(found: Indicators, path: str | Path, lang: str = "en") -> Path:
    """Write the long table as CSV, whole or not at all."""
    target = Path(path)
    with replacing(target) as work:
        found.table(lang).to_csv(work, index=False, float_format="%.10g")
    return target


# --- map --------------------------------------------------------------------------------------


def map_indicators(
    found: Indicators,
    path: str | Path,
    *,
    title: str,
    lang: str = "en",
    source: str = "",
    subtitle: str = "",
    synthetic: bool = False,
    columns: Sequence[str] | None = None,
) -> Path:
    """Draw up to six indicators as small maps of the units.

    Parameters
    ----------
    found
        From :func:`qala.indicators.planning_indicators`.
    path
        PNG to write.
    title, lang, source, subtitle, synthetic
        As for :func:`qala.figures.map_cells`.
    columns
        Columns of the wide table; default: the most telling that are computed.

    Returns
    -------
    pathlib.Path
        The file written.

    Raises
    ------
    InputError
        When no indicator is computed for any unit.
    """
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    from qala import figures
    from qala.export import styles

    frame = found.wide()
    chosen = list(columns or headline(found, frame))[:MOST_MAPS]
    if not chosen:
        raise InputError("no indicator is computed for any unit", "at least one to draw")
    crs = figures._local_crs(frame)
    drawn = frame.to_crs(crs)
    words = titles_of(found, lang)
    across = min(3, len(chosen))
    down = -(-len(chosen) // across)
    left, bottom, right, top = drawn.total_bounds
    room = 0.02 * max(right - left, top - bottom)
    aspect = (right - left + 2 * room) / (top - bottom + 2 * room)
    page_wide, page_high = figures.SIZE
    wide, high = 0.95 / across, 0.83 / down
    # the map as large as it fits, the legend right beside it
    tall = min(high * 0.8, wide * 0.66 * page_wide / aspect / page_high)
    broad = tall * page_high * aspect / page_wide
    with figures._page(title, lang, source, synthetic, subtitle) as figure:
        for number, column in enumerate(chosen):
            row, place = divmod(number, across)
            x, y = 0.035 + place * wide, 0.05 + (down - 1 - row) * high
            axes = figure.add_axes((x, y + high * 0.82 - tall, broad, tall))
            axes.set_axis_off()
            axes.set_aspect("equal")
            axes.set_xlim(left - room, right + room)
            axes.set_ylim(bottom - room, top + room)
            unit = unit_of(found, column)
            values = drawn[column].to_numpy(dtype=np.float64)
            breaks = _breaks(values, unit)
            index = np.clip(np.digitize(values, breaks) - 1, 0, len(breaks) - 2)
            known = np.isfinite(values)
            colours = [figures._hex(c) for c in styles.SHARE_COLOURS]
            missing = figures._hex(styles.MISSING_COLOUR)
            fill = [to_rgb(colours[i] if k else missing) for i, k in zip(index, known, strict=True)]
            thin = 0.15 if len(drawn) > 200 else 0.4
            drawn.plot(ax=axes, color=fill, edgecolor="#6b7785", linewidth=thin, aspect=None)
            handles = [
                Patch(facecolor=colours[i], edgecolor="#6b7785", linewidth=0.4, label=text)
                for i, text in reversed(list(enumerate(_labels(breaks, unit, lang))))
            ]
            if not known.all():
                text = tr("indicator.no_map", lang)
                handles.append(Patch(facecolor=missing, edgecolor="#6b7785", label=text))
            figure.legend(
                handles=handles, loc="upper left", frameon=False, fontsize=8.5,
                bbox_to_anchor=(x + broad, y + high * 0.8), handlelength=1.1,
                handleheight=1.0, labelspacing=0.35,
            )  # fmt: skip
            figure.text(
                x, y + high * 0.86, figures._wrapped(words[column], int(wide * page_wide / 0.105)),
                size=10.5, weight="bold", va="bottom",
            )  # fmt: skip
        return figures._save(figure, path)


# --- workflow ---------------------------------------------------------------------------------


def indicators_recipe(
    workflow: IndicatorsWorkflow, stage: Path, recorder: Recorder
) -> tuple[list[Path], dict[str, pd.DataFrame], dict[str, Any]]:
    """Make the files of a workflow ``indicators`` in a staging folder.

    Parameters
    ----------
    workflow
        From :func:`qala.config.load_workflow`.
    stage
        Folder to write to.
    recorder
        Takes the steps down.

    Returns
    -------
    tuple
        Files, tables by name, and what else the record tells.
    """
    from qala.config import credits_of
    from qala.report import write_tables

    given, lang = workflow.inputs, workflow.outputs.language

    def epochs(source: Any) -> list[str]:
        if source is None:
            return []
        named = source if isinstance(source, dict) else {None: source}
        tiles = [str(e) for e, files in named.items() if isinstance(files, list)]
        if tiles:
            raise InputError("several files are named for one raster", "one file an epoch",
                             "join tiles with gdalbuildvrt")  # fmt: skip
        return [p if e is None else f"{e}={p}" for e, p in named.items()]

    units = given.units
    assert units is not None
    networks = [f"{m}={p}" for m, p in (("foot", given.foot), ("car", given.car)) if p]
    with recorder.step("indicators") as notes:
        found, files = indicators_flow(
            units.path, epochs(given.population), stage / "indicators.gpkg",
            id=units.id, built=epochs(given.built), land=epochs(given.land),
            cells=epochs(given.classes), areas=given.areas, city=given.twin, networks=networks,
            osm=given.osm, points=_with_reach(given.points, workflow.indicators.point_metres),
            zones=[f"{n}={p}" for n, p in given.zones.items()], official=given.official,
            layer=units.layer, units_crs=units.crs, repair=units.repair,
            nodata=given.population_nodata, built_unit=given.built_unit,
            land_unit=given.land_unit, page=stage / "report" / "index.html"
            if workflow.outputs.report else None,
            title=workflow.title,
            source={code: "; ".join(credits_of(workflow, code)) for code in LANGUAGES},
            synthetic=workflow.synthetic, lang=lang, ruleset=workflow.cells.ruleset,
            **workflow.indicators.model_dump(exclude={"point_metres"}),
        )  # fmt: skip
        # the table of a run lies with its other tables
        files = [f for f in files if f.suffix != ".csv"]
        (stage / "indicators.csv").unlink()
        counts = found.rows.drop_duplicates(["indicator", "item"])["status"].value_counts()
        notes |= {"units": len(found.units), **{str(k): int(v) for k, v in counts.items()}}
    if workflow.outputs.figures:
        with recorder.step("draw maps"):
            for code in LANGUAGES:
                files.append(
                    map_indicators(
                        found, stage / "figures" / f"map_indicators_{code}.png", lang=code,
                        title=heading_of(workflow.title, code),
                        source="; ".join(credits_of(workflow, code)), synthetic=workflow.synthetic,
                    )
                )  # fmt: skip
    tables = {"indicators": found.table(lang)}
    with recorder.step("write tables"):
        files += write_tables(stage / "tables", tables)
    return files, tables, {"title": workflow.title, "synthetic": workflow.synthetic}


def _with_reach(points: Mapping[str, str], metres: float | Mapping[str, float]) -> list[str]:
    """Return points as the command takes them, with their reach."""
    each = metres if isinstance(metres, Mapping) else dict.fromkeys(points, metres)
    return [f"{n}={p}@{each.get(n, POINT_METRES):g}" for n, p in points.items()]
