"""Buildings and their parts from outlines as drawn: repaired, related, measured.

Every row carries a stable id (``way/123``, ``relation/45``, part
``way/123#p2``). What was repaired or refused is listed with its id and reason.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from qala.city.heights import ASSUMPTIONS, WITHOUT_WALLS, assign_heights, type_levels
from qala.city.osm import BUILDING_TAGS

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

log = logging.getLogger("qala")

#: coordinates are kept on a grid of one millimetre, as CityJSON stores them
GRID = 0.001
#: outlines smaller than this are refused, m² (a phone box is about 0.8 m²)
MIN_AREA = 1.0
#: parts that cover less of the outline than this leave a remainder ...
COVERED = 0.90
#: ... which stays as one more part when it is more than this share
REMAINDER = 0.10
#: a part belongs to the outline that holds at least this share of it
BELONGS = 0.5
#: outlines cleaned at a time
CLEANED = 20_000
#: width of the gap that opens an outline touching itself, metres
GAP = 0.02

Issue = tuple[str, str, str, str]

#: tags that stay columns of the table, or whose name a column of it has
_STAY = ("height", "min_height", "name", "roof:orientation")

_HEIGHT_TAGS = (
    "height", "building:height", "est_height", "building:levels", "roof:levels", "roof:shape",
    "roof:height", "roof:angle", "roof:direction", "roof:orientation",
)  # fmt: skip
#: a part that has one of these is described by itself
_OWN = ("height", "building:height", "est_height", "building:levels", "roof:levels")


def clean_outlines(
    outlines: gpd.GeoDataFrame, *, min_area: float = MIN_AREA
) -> tuple[gpd.GeoDataFrame, list[Issue]]:
    """Turn outlines as drawn into valid polygons, or list why not.

    Parameters
    ----------
    outlines
        Projected CRS in metres, column ``id``; polygons or closed lines.
    min_area
        Smallest outline kept, m².

    Returns
    -------
    tuple
        Outlines as valid (Multi)Polygons on a millimetre grid whose rings touch
        neither themselves nor each other, and the issues
        (layer, id, action, reason).
    """
    raw, ids = outlines.geometry.to_numpy(), outlines["id"].to_numpy(object)
    steps = [slice(i, i + CLEANED) for i in range(0, len(raw), CLEANED)]
    parts = [_clean(raw[s], ids[s], min_area) for s in steps]
    shapes = np.concatenate([np.empty(0, object), *(p[0] for p in parts)])
    good = np.concatenate([np.empty(0, bool), *(p[1] for p in parts)])
    out = outlines.set_geometry(shapes, crs=outlines.crs)[good]
    twice, found = _drawn_twice(out)
    return out[~twice].reset_index(drop=True), [*(i for p in parts for i in p[2]), *found]


def _clean(
    shapes: np.ndarray[Any, Any], ids: np.ndarray[Any, Any], min_area: float
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], list[Issue]]:
    """Return some outlines as valid polygons, which of them are usable, and the issues."""
    import shapely

    issues: list[Issue] = []

    def note(mask: np.ndarray[Any, Any], action: str, reason: str) -> None:
        issues.extend(("buildings", str(i), action, reason) for i in ids[mask])

    shapes = shapes.copy()
    lines = np.isin(shapely.get_type_id(shapes), [1, 2])
    closed = lines & shapely.is_closed(shapes) & (shapely.get_num_coordinates(shapes) >= 4)
    coords, index = shapely.get_coordinates(shapes[closed], return_index=True)
    shapes[closed] = shapely.polygons(shapely.linearrings(coords, indices=index))
    note(lines & ~closed, "refused", "the outline is not closed")
    invalid = ~(lines & ~closed) & ~shapely.is_valid(shapes)
    crossing = np.flatnonzero(invalid)
    if len(crossing):
        reasons = shapely.is_valid_reason(shapes[crossing])
        shapes[crossing] = shapely.make_valid(shapes[crossing], method="structure")
        issues.extend(
            ("buildings", str(ids[i]), "repaired", f"invalid outline ({_plain(why)})")
            for i, why in zip(crossing, reasons, strict=True)
        )
    good = ~(lines & ~closed)
    shapes[good] = shapely.set_precision(shapes[good], GRID)
    shapes = _polygons_only(shapes)
    area = shapely.area(shapes)
    tiny = good & (area < min_area)
    note(tiny, "refused", f"the outline is smaller than {min_area:g} m²")
    good &= ~tiny
    shapes, opened = _open_touching(shapes, good)
    note(opened, "repaired", f"rings touch; opened by {GAP:g} m")
    parts, owner = shapely.get_parts(shapes, return_index=True)
    small = shapely.area(parts) < min_area
    lost = np.zeros(len(shapes), bool)
    lost[owner[small]] = True
    if (lost & good).any():
        note(lost & good, "repaired", f"pieces smaller than {min_area:g} m² dropped")
        for i in np.flatnonzero(lost & good):
            shapes[i] = shapely.multipolygons(parts[(owner == i) & ~small])
        good &= ~shapely.is_empty(shapes)
    place = {str(osm_id): i for i, osm_id in enumerate(ids)}
    issues.sort(key=lambda issue: place[issue[1]])
    return shapely.normalize(shapes), good, issues


def _drawn_twice(table: gpd.GeoDataFrame) -> tuple[np.ndarray[Any, Any], list[Issue]]:
    """Tell rows whose outline is that of an earlier one."""
    import pandas as pd
    import shapely

    shapes, part = table.geometry.to_numpy(), _is_part(table)
    # only outlines of equal box and number of corners can be equal
    look = np.column_stack([shapely.bounds(shapes), shapely.get_num_coordinates(shapes), part])
    alike = np.flatnonzero(pd.DataFrame(look).duplicated(keep=False).to_numpy())
    twice = np.zeros(len(table), bool)
    if not len(alike):
        return twice, []
    # a part may fill its building's whole outline: compare like with like
    codes = pd.factorize(shapely.to_wkb(shapes[alike]))[0] * 2 + part[alike]
    ids = table["id"].to_numpy(object)[alike]
    first = pd.Series(ids).groupby(codes).transform("first").to_numpy()
    again = pd.Series(codes).duplicated().to_numpy()
    twice[alike[again]] = True
    return twice, [
        ("buildings", str(i), "refused", f"the outline is the same as that of {other}")
        for i, other in zip(ids[again], first[again], strict=True)
    ]


def _plain(reason: str) -> str:
    return str(reason).split("[", maxsplit=1)[0].strip().lower() or "invalid"


def _is_part(table: gpd.GeoDataFrame) -> np.ndarray[Any, Any]:
    """Whether a row is a building:part that is not a building as well."""
    if "building:part" not in table:
        return np.zeros(len(table), bool)
    part = table["building:part"].notna() & (table["building:part"] != "no")
    own = table["building"].notna() & (table["building"] != "no")
    return np.asarray((part & ~own).to_numpy(bool))


def _polygons_only(shapes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Keep the polygons of collections that a repair left behind."""
    import shapely

    out = shapes.copy()
    mixed = np.flatnonzero(~np.isin(shapely.get_type_id(shapes), [3, 6]))
    for i in mixed:
        pieces = shapely.get_parts(shapely.get_parts(shapes[i]))
        out[i] = shapely.multipolygons(pieces[shapely.get_type_id(pieces) == 3])
    return out


def single_polygons(shapes: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """Return the polygons of shapes and the shape of each, without copies where all are single."""
    import shapely

    if (shapely.get_type_id(shapes) == 3).all():
        return shapes, np.arange(len(shapes))
    return shapely.get_parts(shapes, return_index=True)


def touching(shapes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Tell which polygons visit a point more than once (ring ends aside)."""
    import shapely

    parts, owner = single_polygons(shapes)
    coords, index = shapely.get_coordinates(parts, return_index=True)
    rings = shapely.get_num_interior_rings(parts) + 1
    grid = np.rint(coords / GRID).astype(np.int64)
    order = np.lexsort((grid[:, 1], grid[:, 0], index))
    same = (np.diff(grid[order], axis=0) == 0).all(axis=1) & (np.diff(index[order]) == 0)
    repeats = np.bincount(index[order][1:][same], minlength=len(parts))
    out = np.zeros(len(shapes), bool)
    out[owner[repeats > rings]] = True
    return out


def _open_touching(
    shapes: np.ndarray[Any, Any], good: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Cut a gap where rings of one outline touch, so that its walls do not."""
    import shapely

    opened = good & touching(shapes)
    out = shapes.copy()
    for i in np.flatnonzero(opened):
        coords = np.vstack([shapely.get_coordinates(r)[:-1] for r in _rings(shapes[i])])
        values, counts = np.unique(np.rint(coords / GRID), axis=0, return_counts=True)
        points = shapely.points(values[counts > 1] * GRID)
        gaps = shapely.union_all(shapely.buffer(points, GAP / 2, cap_style="square"))
        out[i] = _polygons_only(
            np.array([shapely.set_precision(shapely.difference(shapes[i], gaps), GRID)])
        )[0]
    return out, opened


def _rings(shape: Any) -> Any:
    import shapely

    return shapely.get_rings(shapely.get_parts(shape))


def relate_parts(
    table: gpd.GeoDataFrame,
    members: dict[str, str],
    *,
    covered: float = COVERED,
    remainder: float = REMAINDER,
    belongs: float = BELONGS,
    min_area: float = MIN_AREA,
) -> tuple[gpd.GeoDataFrame, list[Issue]]:
    """Give every part its building, and every building the parts that stand for it.

    Parameters
    ----------
    table
        Clean outlines of buildings and parts with their tags.
    members
        Part id → building id from relations of type ``building``; they win over
        containment.
    covered, remainder
        When parts cover less than ``covered`` of an outline and the rest is more
        than ``remainder`` of it, the rest stays as part ``#p0``.
    belongs
        Share of a part that must lie in an outline to belong to it.
    min_area
        Smallest remainder kept, m².

    Returns
    -------
    tuple
        One row an object: single polygons with ``id, parent, source_id, whole``.
        A building with parts is a row with ``whole`` True, which carries no solid;
        a building of several pieces is divided alike.

    References
    ----------
    OpenStreetMap wiki, Simple 3D Buildings: where parts exist the outline is not
    extruded, unless parts do not fill it.
    """
    import geopandas as gpd
    import pandas as pd
    import shapely

    issues: list[Issue] = []
    is_part = _is_part(table)
    parts, whole = table[is_part].copy(), table[~is_part].copy()
    owner = _owners(parts, whole, members, belongs)
    stray = owner < 0
    issues.extend(
        ("buildings", str(i), "repaired", "part outside any building; kept as a building")
        for i in parts["id"].to_numpy(object)[stray]
    )
    strays = parts[stray].copy()
    strays["building"] = strays["building:part"]
    strays["kind"] = strays["building:part"].where(strays["building:part"] != "yes", "yes")
    parts, owner = parts[~stray].copy(), owner[~stray]
    parts["parent"] = whole["id"].to_numpy(object)[owner]
    parts = _inherit(parts, whole.iloc[owner])
    rest = _remainders(parts, owner, whole, covered, remainder, min_area)
    with_parts = np.zeros(len(whole), bool)
    with_parts[owner] = True
    whole["whole"] = with_parts
    plain = pd.concat([whole, strays], ignore_index=True)
    plain["whole"] = plain["whole"].fillna(False).astype(bool)
    plain["parent"] = None
    plain["source_id"] = plain["id"]
    pieces = _pieces(plain)
    # numbered by their own id, so that a part keeps its number while others stay
    parts["_number"] = parts["id"].str.split("/").str[-1].astype("int64")
    parts = parts.sort_values(["parent", "_number"], kind="stable")
    rank = parts.groupby("parent").cumcount() + 1
    parts["source_id"] = parts["id"]
    parts["id"] = parts["parent"] + "#p" + rank.astype(str)
    if len(rest):
        rest["source_id"] = rest["parent"]
        rest["id"] = rest["parent"] + "#p0"
    parts = pd.concat([parts, rest], ignore_index=True) if len(rest) else parts
    parts["whole"] = False
    parts = _pieces(parts, keep_parent=True)
    out = pd.concat([pieces, parts], ignore_index=True).drop(columns=["_number"], errors="ignore")
    out = gpd.GeoDataFrame(out, geometry="geometry", crs=table.crs)
    out["whole"] = out["whole"].astype(bool)
    assert shapely.get_type_id(out.geometry.to_numpy()[~out["whole"]]).max(initial=3) == 3
    return out, issues


def _owners(
    parts: gpd.GeoDataFrame, whole: gpd.GeoDataFrame, members: dict[str, str], belongs: float
) -> np.ndarray[Any, Any]:
    """Row of the building of each part, -1 where none."""
    import pandas as pd
    import shapely

    owner = np.full(len(parts), -1)
    if not len(parts) or not len(whole):
        return owner
    shapes, outlines = parts.geometry.to_numpy(), whole.geometry.to_numpy()
    tree = shapely.STRtree(outlines)
    part, building = tree.query(shapes, predicate="intersects")
    share = shapely.area(shapely.intersection(shapes[part], outlines[building]))
    share /= shapely.area(shapes[part])
    # the smallest outline that holds it, when outlines lie in one another
    order = np.lexsort((shapely.area(outlines[building]), -np.minimum(share, 0.99).round(2), part))
    first = np.unique(part[order], return_index=True)[1]
    best = order[first]
    best = best[share[best] >= belongs]
    owner[part[best]] = building[best]
    if members:
        row = pd.Series(np.arange(len(whole)), index=whole["id"])
        named = parts["id"].map(members).map(row)
        owner = np.where(named.notna(), named.fillna(-1), owner).astype(int)
    return owner


def _inherit(parts: gpd.GeoDataFrame, parents: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Let parts without any height of their own take their building's tags."""
    own = np.zeros(len(parts), bool)
    for tag in _OWN:
        own |= parts[tag].notna().to_numpy()
    for tag in _HEIGHT_TAGS:
        theirs = parents[tag].to_numpy(object)
        parts[tag] = np.where(own | parts[tag].notna(), parts[tag], theirs)
    kind = parts["building:part"].to_numpy(object)
    vague = np.isin(kind.astype(str), ["yes", "base", "part"])
    parts["kind"] = np.where(vague, parents["kind"].to_numpy(object), kind)
    parts["name"] = parts["name"].where(parts["name"].notna(), parents["name"].to_numpy(object))
    return parts


def _remainders(
    parts: gpd.GeoDataFrame, owner: np.ndarray[Any, Any], whole: gpd.GeoDataFrame,
    covered: float, remainder: float, min_area: float,
) -> gpd.GeoDataFrame:  # fmt: skip
    """Return what parts leave of their outlines, where that is much."""
    import shapely

    rows = np.unique(owner)
    if not len(rows):
        return whole.iloc[:0].copy()
    shapes = parts.geometry.to_numpy()
    order = np.argsort(owner, kind="stable")
    groups = np.split(shapes[order], np.flatnonzero(np.diff(owner[order])) + 1)
    union = np.array([shapely.union_all(g) for g in groups])
    outlines = whole.geometry.to_numpy()[rows]
    left = shapely.difference(outlines, union)
    share = shapely.area(left) / shapely.area(outlines)
    keep = (1 - share < covered) & (share > remainder)
    rest = whole.iloc[rows[keep]].copy()
    rest["parent"] = rest["id"]
    # slivers along edges that were drawn twice are no building
    thin = 0.1
    left = shapely.buffer(shapely.buffer(left[keep], -thin, join_style="mitre"), thin,
                          join_style="mitre")  # fmt: skip
    left = _polygons_only(shapely.set_precision(shapely.intersection(left, outlines[keep]), GRID))
    left, _ = _open_touching(left, np.ones(len(left), bool))
    rest = rest.set_geometry(left, crs=whole.crs)
    return rest[shapely.area(left) >= min_area]


def _pieces(table: gpd.GeoDataFrame, *, keep_parent: bool = False) -> gpd.GeoDataFrame:
    """Divide rows of several polygons into one row each, largest first."""
    import pandas as pd
    import shapely

    shapes = table.geometry.to_numpy()
    single = shapely.get_type_id(shapes) == 3
    one = (~single) & (shapely.get_num_geometries(shapes) == 1)
    if one.any():
        shapes = shapes.copy()
        shapes[one] = shapely.get_geometry(shapes[one], 0)
        table = table.set_geometry(shapes, crs=table.crs)
        single |= one
    split = ~single & ~table["whole"].to_numpy(bool)
    if not split.any():
        return table
    many = table[split]
    parts, index = shapely.get_parts(many.geometry.to_numpy(), return_index=True)
    order = np.lexsort((-shapely.area(parts), index))
    parts, index = parts[order], index[order]
    rank = pd.Series(index).groupby(index).cumcount().to_numpy() + 1
    pieces = many.iloc[index].set_geometry(parts, crs=table.crs)
    if keep_parent:
        pieces["id"] = [f"{i}.{n}" for i, n in zip(pieces["id"], rank, strict=True)]
        return pd.concat([table[~split], pieces], ignore_index=True)
    pieces["parent"] = pieces["id"]
    pieces["id"] = [f"{i}#p{n}" for i, n in zip(pieces["id"], rank, strict=True)]
    owners = many.copy()
    owners["whole"] = True
    return pd.concat([table[~split], owners, pieces], ignore_index=True)


def building_table(
    outlines: gpd.GeoDataFrame,
    members: dict[str, str] | None = None,
    *,
    heights: str | None = None,
    min_area: float = MIN_AREA,
) -> tuple[gpd.GeoDataFrame, list[Issue]]:
    """Make the table of buildings: clean outlines, parts, heights, roofs, floor area.

    Parameters
    ----------
    outlines
        Outlines as drawn with OpenStreetMap tags, projected CRS in metres.
    members
        Part id → building id from relations.
    heights
        GeoTIFF of building heights in metres, such as GHS-BUILT-H.
    min_area
        Smallest outline kept, m².

    Returns
    -------
    tuple
        Buildings sorted by id – polygons with ``id, parent, source_id, whole, kind,
        height, height_source, height_lo, height_hi, min_height, levels, roof_shape,
        roof_height, roof_source, roof_direction, footprint_area, floor_area`` –
        and the issues (layer, id, action, reason).
    """
    clean, issues = clean_outlines(outlines, min_area=min_area)
    table, found = table_of_clean(clean, members, heights=heights, min_area=min_area)
    return table, issues + found


def table_of_clean(
    clean: gpd.GeoDataFrame,
    members: dict[str, str] | None = None,
    *,
    heights: str | None = None,
    min_area: float = MIN_AREA,
) -> tuple[gpd.GeoDataFrame, list[Issue]]:
    """Make the table of buildings as :func:`building_table` does, of outlines that are clean.

    A caller who cleans them and lets go of those as drawn saves their memory meanwhile.
    """
    import shapely

    from qala.city.heights import raster_heights

    table, issues = relate_parts(clean, members or {}, min_area=min_area)
    table["footprint_area"] = shapely.area(table.geometry.to_numpy())
    table["outline_width"] = _width(table)
    ghsl, spread = raster_heights(table, heights) if heights and len(table) else (None, None)
    table, refused = assign_heights(table, ghsl, spread)
    issues += [("buildings", i, "refused", why) for i, why in dict.fromkeys(refused)]
    table = _whole_heights(table)
    table["floor_area"] = floor_area(table)
    # what was read of tags stands in columns of its own now
    table = table.drop(columns=["outline_width", *(t for t in BUILDING_TAGS if t not in _STAY)])
    return table.sort_values("id", kind="stable").reset_index(drop=True), issues


def _width(table: gpd.GeoDataFrame) -> np.ndarray[Any, Any]:
    """Shorter side of the smallest rectangle around each outline with a roof shape, metres."""
    import shapely

    width = np.full(len(table), np.nan)
    ask = np.flatnonzero(table["roof:shape"].notna())
    if not len(ask):
        return width
    hull = shapely.oriented_envelope(table.geometry.to_numpy()[ask])
    box = shapely.get_type_id(hull) == 3
    corners = shapely.get_coordinates(hull[box]).reshape(-1, 5, 2)
    sides = np.hypot(*np.moveaxis(np.diff(corners, axis=1)[:, :2], 2, 0))
    width[ask[box]] = sides.min(axis=1)
    return width


def _whole_heights(table: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Let a building with parts be as high as its highest part."""
    parts = table[table["parent"].notna()]
    if parts.empty:
        return table
    top = parts.loc[parts.groupby("parent")["height"].idxmax()].set_index("parent")
    here = table["whole"] & table["id"].isin(top.index)
    ids = table.loc[here, "id"]
    table = table.copy(deep=False)  # its caller is done with it
    for column in ("height", "height_source", "height_lo", "height_hi"):
        table.loc[here, column] = top[column].reindex(ids).to_numpy()
    table.loc[here, "min_height"] = (
        parts.groupby("parent")["min_height"].min().reindex(ids).to_numpy()
    )
    return table


def floor_area(table: pd.DataFrame) -> np.ndarray[Any, Any]:
    """Return the floor area above ground, m²: footprint × levels.

    Levels are those tagged less ``building:min_level``; where none are tagged, the
    whole levels of 3.0 m that fit under the eaves, at least one. Roofs without walls
    have none. Buildings that have parts carry none: their parts do.
    """
    per_level = ASSUMPTIONS["level_height"].value
    walls = table["height"] - table["min_height"] - table["roof_height"]
    fitting = np.maximum(np.floor(walls.to_numpy(float) / per_level + 0.5), 1.0)
    typed = (table["height_source"] == "type").to_numpy()
    fitting = np.where(typed, type_levels(table["kind"]), fitting)
    tagged = (table["levels"] - table["min_level"]).to_numpy(float)
    levels = np.where(tagged > 0, tagged, fitting)
    area = table["footprint_area"].to_numpy(float) * levels
    area[table["kind"].isin(WITHOUT_WALLS).to_numpy()] = 0.0
    return np.asarray(np.where(table["whole"], np.nan, area))
