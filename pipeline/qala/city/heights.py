"""Heights of buildings: what tags say, where a height came from and how wide it may be.

Every number used here stands in :data:`ASSUMPTIONS` with its source.
"""

from __future__ import annotations

import logging
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from qala.errors import InputError

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

log = logging.getLogger("qala")

#: where a height may come from, best first
HEIGHT_SOURCES = ("tag", "levels", "ghsl", "neighbour", "type")


@dataclass(frozen=True)
class Assumption:
    """A number that is not measured, with its unit and where it is taken from."""

    value: float
    unit: str
    source: str


_S3DB = "OpenStreetMap wiki, Simple 3D Buildings"
#: every assumed number of the height chain
ASSUMPTIONS: dict[str, Assumption] = {
    "level_height": Assumption(3.0, "m", "VoxCity (Fujiwara et al. 2025), 3.0 m a level"),
    "level_height_lo": Assumption(2.5, "m", "OSM2World default height per level, 2.5 m"),
    "level_height_hi": Assumption(3.5, "m", "as far above VoxCity's 3.0 m as OSM2World is below"),
    "roof_angle": Assumption(30.0, "degree", "project assumption where neither roof:height, "
                             "roof:angle nor roof:levels is tagged"),
    "max_height": Assumption(1000.0, "m", "above the tallest building of the world (828 m, CTBUH)"),
    "max_levels": Assumption(200.0, "levels", "above the tallest building of the world (163 "
                             "floors, CTBUH)"),
    "foot": Assumption(0.3048, "m", "international foot, exact"),
    "inch": Assumption(0.0254, "m", "international inch, exact"),
    "open_roof": Assumption(0.3, "m", "thickness of a roof without walls (building=roof, carport); "
                            "project assumption"),
    "neighbour_distance": Assumption(300.0, "m", "project assumption: same quarter"),
    "neighbour_count": Assumption(8.0, "buildings", "project assumption: nearest of the same type"),
    "neighbour_least": Assumption(3.0, "buildings", "fewest that give a median with a spread"),
}  # fmt: skip

#: levels of a building whose type alone is known (OSM2World's and VoxCity's
#: practice: small outbuildings one level, houses two)
TYPE_LEVELS: dict[str, float] = {
    **dict.fromkeys(
        ("garage", "garages", "shed", "hut", "greenhouse", "carport", "roof", "cabin", "kiosk",
         "service", "static_caravan", "toilets", "bunker", "stable", "sty", "cowshed", "barn",
         "farm_auxiliary", "transformer_tower", "container", "tent", "ruins", "allotment_house",
         "boathouse", "storage_tank", "outbuilding", "conservatory", "gazebo", "guardhouse"),
        1.0,
    ),
    **dict.fromkeys(
        ("house", "detached", "semidetached_house", "terrace", "bungalow", "farm", "villa",
         "residential"),
        2.0,
    ),
    "apartments": 4.0, "office": 4.0, "hotel": 4.0, "dormitory": 4.0, "hospital": 4.0,
    "university": 3.0, "school": 2.0, "kindergarten": 2.0, "retail": 1.0, "supermarket": 1.0,
    "industrial": 2.0, "warehouse": 2.0, "commercial": 2.0, "mosque": 3.0, "church": 3.0,
    "cathedral": 5.0, "chapel": 2.0,
}  # fmt: skip
#: buildings that are a roof on posts: no walls, no floors
WITHOUT_WALLS = ("roof", "carport")
#: levels where the type says nothing (``building=yes``)
DEFAULT_LEVELS = 2.0

_NUMBER = r"(?P<number>[+-]?\d+(?:[.,]\d+)?|[+-]?[.,]\d+)"
_METRES = re.compile(rf"^{_NUMBER}\s*(?:m|meter|meters|metre|metres|м|mtr)?\.?$", re.IGNORECASE)
_FEET = re.compile(
    r"^(?P<sign>[+-]?)(?P<feet>\d+(?:[.,]\d+)?)\s*(?:'|′|ft\.?|feet|foot)"
    r"(?:\s*(?P<inches>\d+(?:[.,]\d+)?)\s*(?:\"|″|''|in\.?|inch|inches)?)?$",
    re.IGNORECASE,
)
_CENTIMETRES = re.compile(rf"^{_NUMBER}\s*cm$", re.IGNORECASE)


@dataclass(frozen=True)
class Parsed:
    """A tag's number: the value, half of its written precision, or why it is refused."""

    value: float
    half_step: float = 0.0
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Whether the tag gave a usable number."""
        return not self.problem


def _refuse(why: str) -> Parsed:
    return Parsed(math.nan, 0.0, why)


def _step(text: str) -> float:
    """Half of the last written digit's place: 12 → 0.5, 12.5 → 0.05."""
    digits = re.split(r"[.,]", text)
    return 0.5 * 10.0 ** -(len(digits[1]) if len(digits) > 1 else 0)


@lru_cache(maxsize=65536)
def parse_length(text: str) -> Parsed:
    """Read a length as people write it in OpenStreetMap.

    Parameters
    ----------
    text
        For instance ``12``, ``12 m``, ``12,5``, ``39'``, ``12'6"``, ``40 ft``.

    Returns
    -------
    Parsed
        Metres; or the problem, when the text is not one number with a known unit.

    Examples
    --------
    >>> [round(parse_length(t).value, 3) for t in ("12 m", "12,5", "39'", "-3")]
    [12.0, 12.5, 11.887, -3.0]
    >>> parse_length("abc").problem
    "'abc' is not a length"
    """
    plain = text.strip()
    found = _METRES.match(plain)
    if found:
        number = found["number"]
        return Parsed(float(number.replace(",", ".")), _step(number))
    found = _CENTIMETRES.match(plain)
    if found:
        number = found["number"]
        return Parsed(float(number.replace(",", ".")) / 100.0, _step(number) / 100.0)
    found = _FEET.match(plain)
    if found:
        foot, inch = ASSUMPTIONS["foot"].value, ASSUMPTIONS["inch"].value
        metres = float(found["feet"].replace(",", ".")) * foot
        step = _step(found["feet"]) * foot
        if found["inches"]:
            metres += float(found["inches"].replace(",", ".")) * inch
            step = _step(found["inches"]) * inch
        return Parsed(-metres if found["sign"] == "-" else metres, step)
    if re.search(r"\d\s*[;/|-]\s*\d", plain):
        return _refuse(f"{text[:40]!r} holds several values")
    return _refuse(f"{text[:40]!r} is not a length")


def parse_height(text: str) -> Parsed:
    """Read a height above ground; refuse what no building can have.

    Examples
    --------
    >>> parse_height("-3").problem
    "height '-3' is not above 0"
    >>> parse_height("12000").problem
    "height '12000' is above 1000 m"
    """
    parsed = parse_length(text)
    if not parsed.ok:
        return parsed
    if parsed.value <= 0:
        return _refuse(f"height {text[:40]!r} is not above 0")
    limit = ASSUMPTIONS["max_height"].value
    if parsed.value > limit:
        return _refuse(f"height {text[:40]!r} is above {limit:g} m")
    return parsed


def parse_min_height(text: str) -> Parsed:
    """Read the height at which a part begins; 0 or more."""
    parsed = parse_length(text)
    if parsed.ok and parsed.value < 0:
        return _refuse(f"min_height {text[:40]!r} is below 0")
    if parsed.ok and parsed.value > ASSUMPTIONS["max_height"].value:
        return _refuse(f"min_height {text[:40]!r} is above {ASSUMPTIONS['max_height'].value:g} m")
    return parsed


@lru_cache(maxsize=65536)
def parse_levels(text: str) -> Parsed:
    """Read a number of levels; halves are allowed.

    Examples
    --------
    >>> parse_levels("2.5").value, parse_levels("2,5").value
    (2.5, 2.5)
    >>> parse_levels("3-4").problem
    "levels '3-4' are not a number"
    """
    plain = text.strip().replace(",", ".")
    try:
        value = float(plain)
    except ValueError:
        return _refuse(f"levels {text[:40]!r} are not a number")
    limit = ASSUMPTIONS["max_levels"].value
    if not math.isfinite(value) or value < 0 or value > limit:
        return _refuse(f"levels {text[:40]!r} are not between 0 and {limit:g}")
    return Parsed(value, 0.0)


def parse_angle(text: str) -> Parsed:
    """Read a slope in degrees, above 0 and below 85."""
    plain = text.strip().rstrip("°").strip().replace(",", ".")
    try:
        value = float(plain)
    except ValueError:
        return _refuse(f"angle {text[:40]!r} is not a number")
    if not 0 < value < 85:
        return _refuse(f"angle {text[:40]!r} is not between 0 and 85 degrees")
    return Parsed(value)


_POINTS = ("N NNE NE ENE E ESE SE SSE", "S SSW SW WSW W WNW NW NNW")
_COMPASS = {name: i * 22.5 for i, name in enumerate(" ".join(_POINTS).split())}


def parse_direction(text: str) -> Parsed:
    """Read a compass direction in degrees clockwise from north, or a letter such as NE.

    Examples
    --------
    >>> parse_direction("SSW").value, parse_direction("370").value
    (202.5, 10.0)
    """
    plain = text.strip().upper().rstrip("°")
    if plain in _COMPASS:
        return Parsed(_COMPASS[plain])
    try:
        value = float(plain.replace(",", "."))
    except ValueError:
        return _refuse(f"direction {text[:40]!r} is not a number or compass point")
    if not math.isfinite(value):
        return _refuse(f"direction {text[:40]!r} is not finite")
    return Parsed(value % 360.0)


def parse_column(
    tags: pd.Series, parser: Any
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], dict[int, str]]:
    """Parse a column of tags, each distinct text once.

    Returns
    -------
    tuple
        values (NaN where absent or refused), half steps, and position → problem.
    """
    import pandas as pd

    codes, texts = pd.factorize(tags, use_na_sentinel=True)
    parsed = [parser(str(t)) for t in texts]
    values = np.array([*(p.value for p in parsed), math.nan])
    steps = np.array([*(p.half_step for p in parsed), 0.0])
    bad = np.array([*(not p.ok for p in parsed), False])
    problems = {int(i): parsed[codes[i]].problem for i in np.flatnonzero(bad[codes])}
    return values[codes], steps[codes], problems


def type_levels(kinds: pd.Series) -> np.ndarray[Any, Any]:
    """Return the assumed number of levels of each building type."""
    return kinds.map(TYPE_LEVELS).fillna(DEFAULT_LEVELS).to_numpy(float)


def assign_heights(
    buildings: gpd.GeoDataFrame,
    ghsl: np.ndarray[Any, Any] | None = None,
    ghsl_range: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None = None,
) -> tuple[gpd.GeoDataFrame, list[tuple[str, str]]]:
    """Give every building a height, its source and its range.

    The first source that holds wins: ``height``, ``building:height`` and
    ``est_height`` (source ``tag``); ``building:levels`` (``levels``); a height
    raster (``ghsl``); the median of the nearest of the same type
    (``neighbour``); the type's usual levels (``type``). A refused tag is listed
    and the next source is asked.

    Parameters
    ----------
    buildings
        Projected CRS in metres; columns ``id``, ``kind``, ``footprint_area`` and the
        tags ``height``, ``building:height``, ``est_height``, ``building:levels``,
        ``building:min_level``, ``min_height``, ``roof:*``.
    ghsl
        Height from a raster at each building, metres, NaN where it has none.
    ghsl_range
        Lowest and highest raster height around each building, metres.

    Returns
    -------
    tuple
        The buildings with ``height, height_source, height_lo, height_hi, min_height,
        levels, roof_shape, roof_height, roof_source, roof_direction`` and a list of
        (id, reason) for every refused tag. ``height`` reaches from the ground to
        the top of the roof.

    Notes
    -----
    The range of a tag is its written precision (12 → 11.5–12.5), of levels
    2.5–3.5 m a level (:data:`ASSUMPTIONS`), of a raster the lowest and highest
    cell around the building, of neighbours their quartiles (both at least half a
    level to each side), of a type one level more or less. It tells how far the
    source itself leaves the height open, not an error that was measured.
    """
    count = len(buildings)
    ids = buildings["id"].to_numpy()
    issues: list[tuple[str, str]] = []

    def column(name: str, parser: Any) -> tuple[Any, Any]:
        if name not in buildings:
            return np.full(count, np.nan), np.zeros(count)
        values, steps, problems = parse_column(buildings[name], parser)
        issues.extend((ids[i], f"{name} refused: {why}") for i, why in problems.items())
        return values, steps

    per_level = ASSUMPTIONS["level_height"].value
    half = per_level / 2  # no estimate is surer than half a level
    low_level, high_level = (
        ASSUMPTIONS["level_height_lo"].value,
        ASSUMPTIONS["level_height_hi"].value,
    )
    height = np.full(count, np.nan)
    low, high = height.copy(), height.copy()
    source = np.full(count, "", dtype=object)

    levels, _ = column("building:levels", parse_levels)
    roof_levels, _ = column("roof:levels", parse_levels)
    min_level, _ = column("building:min_level", parse_levels)
    min_height, _ = column("min_height", parse_min_height)
    min_height = np.where(np.isnan(min_height), min_level * per_level, min_height)
    min_height = np.nan_to_num(min_height, nan=0.0)

    for name in ("height", "building:height", "est_height"):
        values, steps = column(name, parse_height)
        under = ~np.isnan(values) & (values <= min_height)
        issues.extend(
            (ids[i], f"{name} refused: {values[i]:g} m is not above min_height {min_height[i]:g} m")
            for i in np.flatnonzero(under)
        )
        take = np.isnan(height) & ~np.isnan(values) & ~under
        height[take], source[take] = values[take], "tag"
        low[take], high[take] = (values - steps)[take], (values + steps)[take]

    shape, roof_height, roof_source, direction = _roofs(buildings, column, roof_levels, issues)
    extra = np.nan_to_num(roof_height)

    def from_levels(found: np.ndarray[Any, Any], name: str) -> None:
        top = found * per_level + extra
        take = np.isnan(height) & ~np.isnan(found) & (top > min_height)
        under = np.isnan(height) & ~np.isnan(found) & ~take
        issues.extend(
            (ids[i], f"levels refused: {found[i]:g} levels end at or below min_height "
             f"{min_height[i]:g} m") for i in np.flatnonzero(under)
        )  # fmt: skip
        height[take], source[take] = top[take], name
        low[take] = np.maximum(found * low_level + extra, 0.1)[take]
        high[take] = (found * high_level + extra)[take]

    from_levels(levels, "levels")
    if ghsl is not None:
        take = np.isnan(height) & (np.nan_to_num(ghsl) > np.maximum(min_height, 1.0))
        height[take], source[take] = ghsl[take], "ghsl"
        lo, hi = ghsl_range if ghsl_range is not None else (ghsl, ghsl)
        low[take] = np.clip(lo, 1.0, np.maximum(ghsl - half, 1.0))[take]
        high[take] = np.maximum(hi, ghsl + half)[take]
    known = np.isin(source, ["tag", "levels"]) & (min_height == 0)
    mid, q1, q3 = _neighbours(buildings, height, known)
    take = np.isnan(height) & (np.nan_to_num(mid) > min_height)
    height[take], source[take] = mid[take], "neighbour"
    low[take] = np.minimum(q1, mid - half)[take]
    high[take] = np.maximum(q3, mid + half)[take]

    usual = type_levels(buildings["kind"])
    take = np.isnan(height)
    top = min_height + usual * per_level + np.where(take, extra, 0)
    height[take], source[take] = top[take], "type"
    low[take] = (min_height + np.maximum(usual - 1, 1) * low_level)[take]
    high[take] = (min_height + (usual + 1) * high_level + extra)[take]

    # a roof can't be as high as the building that carries it
    too_high = ~np.isnan(roof_height) & (roof_height >= height - min_height - 0.1)
    tagged = too_high & (roof_source == "tag")
    issues.extend(
        (ids[i], f"roof:height refused: {roof_height[i]:g} m leaves no wall under a height of "
         f"{height[i]:g} m") for i in np.flatnonzero(tagged)
    )  # fmt: skip
    roof_height = np.where(too_high, (height - min_height) / 2, roof_height)
    # a roof on posts begins under itself, where no tag says otherwise
    slab = np.where(shape == "flat", 0.0, np.nan_to_num(roof_height))
    slab += ASSUMPTIONS["open_roof"].value
    posts = buildings["kind"].isin(WITHOUT_WALLS).to_numpy() & (min_height == 0) & (slab < height)
    min_height = np.where(posts, height - slab, min_height)
    out = buildings.assign(
        height=np.round(height, 3),
        height_source=source.astype(str),
        height_lo=np.round(np.minimum(np.maximum(low, min_height), height), 3),
        height_hi=np.round(np.maximum(high, height), 3),
        min_height=np.round(min_height, 3),
        levels=levels,
        min_level=np.nan_to_num(min_level),
        roof_shape=shape,
        roof_height=np.round(np.where(shape == "flat", 0.0, np.nan_to_num(roof_height)), 3),
        roof_source=roof_source.astype(str),
        roof_direction=direction,
    )
    return out, issues


#: roof shapes as tagged → the shape modelled
ROOF_SHAPES: dict[str, str] = {
    "flat": "flat", "gabled": "gabled", "pitched": "gabled", "saltbox": "gabled",
    "hipped": "hipped", "half-hipped": "hipped", "side_hipped": "hipped",
    "pyramidal": "pyramidal", "tented": "pyramidal", "cone": "pyramidal",
    "skillion": "skillion", "lean_to": "skillion", "shed": "skillion",
    "dome": "dome", "onion": "dome", "round": "round",
}  # fmt: skip


def _roofs(
    buildings: gpd.GeoDataFrame,
    column: Any,
    roof_levels: np.ndarray[Any, Any],
    refused: list[tuple[str, str]],
) -> tuple[Any, Any, Any, Any]:
    """Return roof shape, height above the eaves, source and direction."""
    count = len(buildings)
    tagged = (
        buildings["roof:shape"].astype("object")
        if "roof:shape" in buildings
        else _nothing(count, buildings.index)
    )
    shape = tagged.map(ROOF_SHAPES).fillna(tagged).where(tagged.notna(), "unknown").to_numpy(object)
    words = np.array([bool(re.fullmatch(r"[a-z_ -]+", str(v))) and v != "yes" for v in shape])
    ids = buildings["id"].to_numpy()
    refused += [
        (ids[i], f"roof:shape refused: {str(shape[i])[:40]!r} names no shape")
        for i in np.flatnonzero(~words)
    ]
    shape[~words] = "unknown"
    roof_height, _ = column("roof:height", parse_length)
    roof_height = np.where(roof_height > 0, roof_height, np.nan)
    angle, _ = column("roof:angle", parse_angle)
    direction, _ = column("roof:direction", parse_direction)
    source = np.where(np.isnan(roof_height), "", "tag").astype(object)
    sloped = np.isin(shape, ["gabled", "hipped", "pyramidal", "skillion", "dome", "round"])
    from_levels = np.isnan(roof_height) & (roof_levels > 0)
    roof_height = np.where(
        from_levels, roof_levels * ASSUMPTIONS["level_height"].value, roof_height
    )
    source[from_levels] = "levels"
    width = (
        buildings["outline_width"].to_numpy(float)
        if "outline_width" in buildings
        else np.full(count, np.nan)
    )
    run = np.where(shape == "skillion", width, width / 2)
    from_angle = np.isnan(roof_height) & sloped & ~np.isnan(angle)
    roof_height = np.where(from_angle, np.tan(np.radians(angle)) * run, roof_height)
    source[from_angle] = "angle"
    assumed = np.isnan(roof_height) & sloped & ~np.isnan(run)
    slope = math.tan(math.radians(ASSUMPTIONS["roof_angle"].value))
    roof_height = np.where(assumed, np.minimum(slope * run, 6.0), roof_height)
    source[assumed] = "assumed"
    source[(source == "") & (shape == "flat")] = "tag"
    source[source == ""] = "none"
    return shape, roof_height, source, direction


def _nothing(count: int, index: Any) -> pd.Series:
    import pandas as pd

    return pd.Series([None] * count, index=index, dtype="object")


def _neighbours(
    buildings: gpd.GeoDataFrame, height: np.ndarray[Any, Any], known: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Median and quartiles of the nearest known heights of the same type."""
    from scipy.spatial import cKDTree

    count = len(buildings)
    out = np.full((3, count), np.nan)
    if not known.any():
        return out[0], out[1], out[2]
    reach = ASSUMPTIONS["neighbour_distance"].value
    most, least = (int(ASSUMPTIONS[k].value) for k in ("neighbour_count", "neighbour_least"))
    centre = buildings.geometry.centroid
    xy = np.column_stack([centre.x, centre.y])
    wanting = np.isnan(height)
    kinds = buildings["kind"].to_numpy(object)
    for kind in np.unique(kinds[wanting].astype(str)):
        here = np.flatnonzero(known & (kinds == kind))
        ask = np.flatnonzero(wanting & (kinds == kind))
        if len(here) < least:
            continue
        near, index = cKDTree(xy[here]).query(
            xy[ask], k=min(most, len(here)), distance_upper_bound=reach
        )
        near, index = near.reshape(len(ask), -1), index.reshape(len(ask), -1)
        values = np.append(height[here], np.nan)[index]
        enough = np.isfinite(near).sum(axis=1) >= least
        out[:, ask[enough]] = np.nanpercentile(values[enough], [50, 25, 75], axis=1)
    return out[0], out[1], out[2]


def pixel_of(transform: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """Return column and row (with fractions) of places on a raster."""
    inverse = ~transform
    return (
        inverse.a * x + inverse.b * y + inverse.c,
        inverse.d * x + inverse.e * y + inverse.f,
    )


def raster_heights(
    buildings: gpd.GeoDataFrame, path: str
) -> tuple[np.ndarray[Any, Any], tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Read a height raster (such as GHS-BUILT-H) at each building's centre.

    Parameters
    ----------
    buildings
        Projected CRS.
    path
        GeoTIFF of heights in metres.

    Returns
    -------
    tuple
        Height at each building and (lowest, highest) of the 3×3 cells around it,
        metres; NaN where the raster has none.

    Raises
    ------
    InputError
        When the raster has no CRS or holds impossible heights.

    References
    ----------
    GHS-BUILT-H R2023A: Pesaresi and Politis (2023),
    doi:10.2905/85005901-3A49-48DD-9D19-6261354F56FE.
    """
    import rasterio
    from pyproj import Transformer
    from rasterio.windows import Window
    from rasterio.windows import from_bounds as window_of

    centre = buildings.geometry.centroid
    with rasterio.open(path) as src:
        if src.crs is None:
            raise InputError(f"{path} has no CRS", "a georeferenced height raster")
        move = Transformer.from_crs(buildings.crs, src.crs, always_xy=True)
        x, y = move.transform(centre.x.to_numpy(), centre.y.to_numpy())
        window = window_of(x.min(), y.min(), x.max(), y.max(), src.transform)
        window = Window(
            math.floor(window.col_off) - 2, math.floor(window.row_off) - 2,
            math.ceil(window.width) + 5, math.ceil(window.height) + 5,
        )  # fmt: skip
        data = src.read(1, window=window, boundless=True, masked=True).astype(float)
        values = np.ma.filled(data, np.nan)
        transform = src.window_transform(window)
    col, row = (np.floor(v).astype(int) for v in pixel_of(transform, x, y))
    top = ASSUMPTIONS["max_height"].value
    if np.nanmax(values, initial=0.0) > top:
        raise InputError(
            f"{path} holds heights up to {np.nanmax(values):g}", f"metres below {top:g}",
            "name a raster of building heights in metres",
        )  # fmt: skip
    values[values <= 0] = np.nan
    around = np.stack([values[row + i, col + j] for i in (-1, 0, 1) for j in (-1, 0, 1)])
    with np.errstate(all="ignore"):
        empty = np.isnan(around).all(axis=0)
        low = np.where(empty, np.nan, np.nanmin(np.where(empty, 0, around), axis=0))
        high = np.where(empty, np.nan, np.nanmax(np.where(empty, 0, around), axis=0))
    return values[row, col], (low, high)
