"""STAC catalogs: which asset serves a place and an epoch, under which terms.

Catalogs are static files read with pystac, never over the network. qala's own
lie in ``catalogs/``; users add theirs by path, and each run's folder is one.

Fields of their own, beside STAC's: ``qala:product``, ``qala:epoch``,
``qala:resolution`` (metres), ``qala:unit``; on assets ``qala:tiles`` (a tile
scheme; the address then holds ``{tile}``), ``qala:member`` (pattern of the file
wanted in a zip), ``qala:mirrors``, ``qala:md5_href``, ``qala:sparse`` (tiles
without land are not published). ``qala:unverified`` names what could not be
read from the publisher.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from qala.errors import InputError, Problems
from qala.identity import has_secret, safe_url, scrub, write_json
from qala.messages import said
from qala.resources import resource

if TYPE_CHECKING:
    import pystac

Box = tuple[float, float, float, float]

#: a catalog page is kilobytes; more is a mistake or an attack
MAX_BYTES = 5_000_000
MAX_ITEMS = 100_000
#: a run's STAC item, beside its provenance
ITEM = "item.json"
_NAME = re.compile(r"[\w][\w.+@-]*")
#: multihash prefix → algorithm and hexadecimal digits (STAC file extension)
_MULTIHASH = {"1220": ("sha256", 64), "1114": ("sha1", 40), "d50110": ("md5", 32)}


@dataclass(frozen=True)
class Asset:
    """One file to fetch, with what must be known to check and cite it.

    Attributes
    ----------
    url
        Address, or the path of a file that lies in the catalog.
    mirrors
        Other addresses of the same file.
    filename
        Name in the cache.
    size
        Bytes, where published; ``size_seen`` is a hint for disk space alone.
    checksum
        ``algorithm:hexadecimal``, where published.
    member
        Pattern of the file wanted inside a zip.
    sparse
        Whether the publisher leaves tiles without land out.
    """

    item: str
    key: str
    url: str
    filename: str
    collection: str
    version: str
    mirrors: tuple[str, ...] = ()
    size: int | None = None
    size_seen: int | None = None
    checksum: str | None = None
    md5_href: str | None = None
    member: str | None = None
    tile: str | None = None
    sparse: bool = False
    product: str = ""
    epoch: int | None = None
    licence: str = ""
    citation: str = ""
    notice: str = ""
    unit: str | None = None
    nodata: float | None = None
    crs: str | None = None


def default_paths() -> list[Path]:
    """Return qala's own catalog and those that ``QALA_CATALOGS`` names."""
    named = os.environ.get("QALA_CATALOGS", "")
    return [resource("catalogs", "catalog.json"), *(Path(p) for p in named.split(os.pathsep) if p)]


def open_catalogs(paths: Iterable[str | Path] = ()) -> list[pystac.Item]:
    """Read the items of qala's own catalogs and of further ones.

    Parameters
    ----------
    paths
        Catalog, collection or item files, or folders that hold
        ``catalog.json``, ``collection.json`` or a run's ``item.json``.

    Returns
    -------
    list of pystac.Item
        Each with its collection set, in the order of the catalogs.

    Raises
    ------
    InputError
        With every problem of a catalog that is not sound.
    """
    found: list[pystac.Item] = []
    for path in [*default_paths(), *paths]:
        entry = _entry(path)
        pages, problems = _walk(entry)
        for page in pages:
            _check_paths(page, entry.parent, problems)
            _check_fields(page, entry.parent, problems)
        problems.raise_if_any()
        found += _items(pages)
    return found


def search(
    items: Iterable[pystac.Item],
    *,
    bbox: Box | None = None,
    epoch: int | None = None,
    product: str | None = None,
    resolution: float | None = None,
) -> list[pystac.Item]:
    """Return the items that serve a place, epoch, product and resolution.

    Parameters
    ----------
    bbox
        West, south, east, north in degrees.
    epoch
        Year; items without one serve every year.
    product
        Product (``pop``), collection or item id.
    resolution
        Cell size in metres.
    """
    wanted = None if product is None else product.casefold()

    def serves(item: pystac.Item) -> bool:
        own = item.properties
        if wanted is not None and wanted not in {
            str(own.get("qala:product", "")).casefold(),
            str(item.collection_id or "").casefold(),
            item.id.casefold(),
        }:
            return False
        years = {own.get("qala:epoch"), *own.get("qala:epochs", [])} - {None}
        if epoch is not None and years and epoch not in years:
            return False
        if resolution is not None and own.get("qala:resolution") != resolution:
            return False
        return bbox is None or item.bbox is None or _overlap(bbox, item.bbox)

    return [item for item in items if serves(item)]


def assets_of(item: pystac.Item, *, bbox: Box | None = None, key: str | None = None) -> list[Asset]:
    """Return the files of an item: the tiles a box touches, else the whole.

    Parameters
    ----------
    item
        From :func:`open_catalogs`.
    bbox
        West, south, east, north in degrees.
    key
        Name of one asset; default: tiles where a box is given, else the
        others that hold data.

    Raises
    ------
    InputError
        When there is no such asset, or only tiles and no box.
    """
    if key is not None and key not in item.assets:
        raise InputError(
            f"{item.id} has no asset {key!r}", f"one of {', '.join(sorted(item.assets))}"
        )
    tiled = [k for k, a in item.assets.items() if a.extra_fields.get("qala:tiles")]
    whole = [
        k for k, a in item.assets.items()
        if k not in tiled and (not a.roles or "data" in a.roles)
    ]  # fmt: skip
    keys = [key] if key else tiled if bbox is not None and tiled else whole
    if not item.assets:
        raise InputError(f"{item.id} has no assets", "an item that holds files")
    if not keys:
        raise InputError(f"{item.id} comes in tiles", "a place: --bbox west,south,east,north")
    found: list[Asset] = []
    for name in keys:
        if name in tiled and bbox is None:
            raise InputError(f"{item.id} comes in tiles", "a place: --bbox west,south,east,north")
        found += _files(item, name, bbox)
    return found


def resolve(address: str, items: Sequence[pystac.Item], *, bbox: Box | None = None) -> list[Asset]:
    """Return the files that a ``catalog://`` address names.

    Parameters
    ----------
    address
        ``catalog://PRODUCT/ASSET?epoch=2020&resolution=1000``; PRODUCT is a
        product, collection or item id; the rest may be left out.

    Raises
    ------
    InputError
        When it names nothing, or several items.
    """
    try:
        parts = urlsplit(address)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme != "catalog" or not parts.netloc:
        raise InputError(f"{address!r} is no catalog address", "catalog://pop?epoch=2020")
    asked = {k: v[-1] for k, v in parse_qs(parts.query).items()}
    unknown = set(asked) - {"epoch", "resolution"}
    problems = Problems(address)
    if unknown:
        problems.add(f"unknown {', '.join(sorted(unknown))}", "epoch and resolution")
    for name in ("epoch", "resolution"):
        if name in asked and not re.fullmatch(r"\d+(\.\d+)?", asked[name]):
            problems.add(f"{name} is {asked[name]!r}", "a number")
    problems.raise_if_any()
    epoch = int(asked["epoch"]) if "epoch" in asked else None
    size = float(asked["resolution"]) if "resolution" in asked else None
    found = search(items, bbox=bbox, epoch=epoch, product=parts.netloc, resolution=size)
    if len(found) != 1:
        names = ", ".join(i.id for i in found[:4]) + (" …" if len(found) > 4 else "")
        raise InputError(
            f"{address} names {len(found)} items" + (f" ({names})" if names else ""),
            "exactly one",
            "see `qala catalog search`",
        )
    return assets_of(found[0], bbox=bbox, key=parts.path.strip("/") or None)


# --- files of an item --------------------------------------------------------------


def _files(item: pystac.Item, key: str, bbox: Box | None) -> list[Asset]:
    asset = item.assets[key]
    more = asset.extra_fields
    base = Path(str(item.get_self_href())).parent
    terms = item.extra_fields.get("qala:terms", {})
    bands = more.get("bands") or [{}]
    common: dict[str, Any] = {
        "item": item.id,
        "key": key,
        "collection": item.collection_id or item.id,
        "version": str(item.properties.get("version", "")),
        "size": more.get("file:size"),
        "size_seen": more.get("qala:size_seen"),
        "checksum": _checksum(more.get("file:checksum")),
        "md5_href": more.get("qala:md5_href"),
        "member": more.get("qala:member"),
        "sparse": bool(more.get("qala:sparse", False)),
        "product": str(item.properties.get("qala:product", "")),
        "epoch": more.get("qala:epoch", item.properties.get("qala:epoch")),
        "licence": str(item.properties.get("license") or terms.get("license", "")),
        "citation": str(item.properties.get("sci:citation") or terms.get("sci:citation", "")),
        "notice": str(terms.get("qala:notice", "")),
        "unit": item.properties.get("qala:unit"),
        "nodata": bands[0].get("nodata"),
        "crs": item.properties.get("proj:code"),
    }
    scheme = more.get("qala:tiles")
    tiles = _tiles(scheme, base, bbox) if scheme and bbox is not None else [None]
    if not tiles:
        raise InputError(
            f"no tile of {item.id} touches the box {bbox}", "a box over land, in degrees"
        )
    found = []
    for tile in tiles:

        def put(href: str, tile: str | None = tile) -> str:
            text = href if tile is None else href.replace("{tile}", tile)
            return text if "://" in text else str((base / text).resolve())

        url = put(asset.href)
        name = Path(urlsplit(url).path if "://" in url else url).name
        mirrors = tuple(put(m) for m in more.get("qala:mirrors", []))
        found.append(Asset(url=url, filename=name, mirrors=mirrors, tile=tile, **common))
    return found


def _checksum(multihash: str | None) -> str | None:
    """Return ``algorithm:hexadecimal`` of a multihash, or None where it is not one."""
    for prefix, (algorithm, digits) in _MULTIHASH.items():
        if multihash and re.fullmatch(f"{prefix}[0-9a-f]{{{digits}}}", multihash.lower()):
            return f"{algorithm}:{multihash.lower()[len(prefix) :]}"
    return None


def _tiles(scheme: str, base: Path, bbox: Box) -> list[str | None]:
    """Return the names of the tiles that a box in degrees touches."""
    import math

    west, south, east, north = bbox
    if scheme == "degree":
        return [
            f"{'NS'[lat < 0]}{abs(lat):02d}_00_{'EW'[lon < 0]}{abs(lon):03d}_00"
            for lat in range(math.floor(south), math.ceil(north))
            for lon in range(math.floor(west), math.ceil(east))
        ]
    import numpy as np
    import pyproj.exceptions
    import shapely
    from pyproj import Transformer

    try:
        table = json.loads((base / scheme).read_text(encoding="utf-8"))
        edges = np.array(list(table["tiles"].values()), dtype=float).reshape(-1, 4)
        move = Transformer.from_crs("EPSG:4326", table["crs"], always_xy=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError,
            pyproj.exceptions.CRSError) as error:  # fmt: skip
        raise InputError(
            f"tile scheme {scheme} cannot be read ({error})",
            "JSON with crs, and tiles: name to left, bottom, right, top",
        ) from error
    # the box's sides are curves in the scheme's projection
    ring = shapely.segmentize(shapely.box(west, south, east, north), 0.1)
    area = shapely.transform(ring, lambda xy: np.column_stack(move.transform(xy[:, 0], xy[:, 1])))
    if not np.isfinite(shapely.get_coordinates(area)).all():
        raise InputError(f"the box {bbox} lies outside {table['crs']}", "degrees on the globe")
    boxes = shapely.box(*edges.T)
    # tiles that only share an edge with the box hold nothing of it
    hit = shapely.area(shapely.intersection(shapely.make_valid(area), boxes)) > 0
    names = [name for name, touched in zip(table["tiles"], hit, strict=True) if touched]
    odd = [n for n in names if not _NAME.fullmatch(n)]
    if odd:
        raise InputError(f"tile scheme {scheme} names {odd[0]!r}", "letters, digits, . _ -")
    return names


def _overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


# --- reading, offline and within the catalog's folder --------------------------------


@dataclass(frozen=True)
class _Page:
    file: Path
    raw: dict[str, Any]
    parent: Path | None


def _entry(path: str | Path) -> Path:
    """Return the file a catalog starts with."""
    given = Path(path).expanduser()
    if given.is_dir():
        for name in ("catalog.json", "collection.json", ITEM):
            if (given / name).is_file():
                return (given / name).resolve()
        raise InputError(f"{given} holds no catalog.json", "a folder with a STAC catalog")
    if not given.is_file():
        raise InputError(f"catalog {given} does not exist", "a STAC file or its folder")
    return given.resolve()


def _walk(entry: Path) -> tuple[list[_Page], Problems]:
    """Read a catalog's pages, refusing every link that leaves its folder."""
    problems = Problems(f"catalog {entry.parent.name}/{entry.name}")
    root = entry.parent
    pages: list[_Page] = []
    seen: set[Path] = set()
    todo: list[tuple[Path, Path | None]] = [(entry, None)]
    while todo:
        file, parent = todo.pop(0)
        if file in seen:
            problems.add(f"{_below(file, root)} is linked twice", "a tree of pages")
            continue
        seen.add(file)
        if len(seen) > MAX_ITEMS:
            problems.add(f"more than {MAX_ITEMS:,} pages", "a smaller catalog")
            break
        raw = _load(file, root, problems)
        if raw is None:
            continue
        pages.append(_Page(file, raw, parent))
        links = raw.get("links")
        for link in links if isinstance(links, list) else []:
            if not isinstance(link, dict) or link.get("rel") not in ("child", "item"):
                continue
            target = _inside(link.get("href"), file, root, problems, f"{link['rel']} link")
            if target is not None:
                todo.append((target, file))
    return pages, problems


def _load(file: Path, root: Path, problems: Problems) -> dict[str, Any] | None:
    name = _below(file, root)
    try:
        size = file.stat().st_size
        if size > MAX_BYTES:
            problems.add(f"{name} has {size:,} bytes", f"at most {MAX_BYTES:,}")
            return None
        raw = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        problems.add(f"{name} cannot be read ({error.strerror})", "a file")
        return None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        problems.add(f"{name} is not JSON ({error})", "a STAC page")
        return None
    if not isinstance(raw, dict) or raw.get("type") not in ("Catalog", "Collection", "Feature"):
        problems.add(f"{name} is no STAC page", "type Catalog, Collection or Feature")
        return None
    return raw


def _inside(
    href: Any, file: Path, root: Path, problems: Problems, what: str, *, must_exist: bool = True
) -> Path | None:
    """Return the file of a relative link, or None with a problem noted."""
    name = _below(file, root)
    if not isinstance(href, str) or not href:
        problems.add(f"{name}: {what} has no address", "a relative path")
        return None
    if "://" in href or href.startswith(("/", "\\", "~")) or re.match(r"[A-Za-z]:", href):
        problems.add(f"{name}: {what} {safe_url(href)!r} is not relative", "a path in the catalog")
        return None
    target = (file.parent / href).resolve()
    if not target.is_relative_to(root):
        problems.add(f"{name}: {what} {href!r} climbs out of the catalog", "a path below it")
        return None
    if must_exist and not target.is_file():
        problems.add(f"{name}: {what} {href!r} is dead", "a file that exists")
        return None
    return target


def _check_paths(page: _Page, root: Path, problems: Problems) -> None:
    """Refuse assets whose files lie outside the catalog, before anything reads them."""
    assets = page.raw.get("assets")
    for key, asset in assets.items() if isinstance(assets, dict) else ():
        more = asset if isinstance(asset, dict) else {}
        scheme = more.get("qala:tiles")
        mirrors = more.get("qala:mirrors")
        paths = [more.get("href"), *(mirrors if isinstance(mirrors, list) else [])]
        if scheme != "degree":
            paths.append(scheme)
        for path in paths:
            if path is not None and not (isinstance(path, str) and "://" in path):
                _inside(path, page.file, root, problems, f"asset {key}", must_exist=False)


def _check_fields(page: _Page, root: Path, problems: Problems) -> None:
    """Refuse fields that no reader could use; which of them an item needs is another question."""
    if page.raw["type"] != "Feature":
        return
    name, raw = _below(page.file, root), page.raw

    def wrong(met: str, expected: str) -> None:
        problems.add(f"{name}: {met}", expected)

    if not isinstance(raw.get("id"), str) or not _NAME.fullmatch(raw["id"]):
        wrong(f"id is {raw.get('id')!r}", "letters, digits, . _ -")
    if raw.get("collection") is not None and not isinstance(raw["collection"], str):
        wrong(f"collection is {raw['collection']!r}", "a name")
    if raw.get("bbox") is not None:
        _check_box(raw["bbox"], wrong)
    own = raw["properties"] if isinstance(raw.get("properties"), dict) else {}
    for field in ("qala:epoch", "qala:epochs"):
        years = own.get(field, []) if field == "qala:epochs" else [own.get(field)]
        if not isinstance(years, list) or not all(y is None or _is_year(y) for y in years):
            wrong(f"{field} is {own[field]!r}", "a year from 1900 to 2100, or null")
    size = own.get("qala:resolution")
    if size is not None and not (_number(size) and size > 0):
        wrong(f"qala:resolution is {size!r}", "metres above 0, or null")
    assets = raw.get("assets")
    for key, asset in assets.items() if isinstance(assets, dict) else ():
        if isinstance(asset, dict):
            _check_asset_fields(f"asset {key}", asset, wrong)


def _is_year(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1900 <= value <= 2100


def _check_asset_fields(name: str, asset: Mapping[str, Any], wrong: Any) -> None:
    checksum = asset.get("file:checksum")
    if checksum is not None and (not isinstance(checksum, str) or not _checksum(checksum)):
        wrong(
            f"{name}: file:checksum is {str(checksum)[:80]!r}",
            "a multihash in hexadecimal: 1220 and 64 digits of SHA-256",
        )
    for field in ("file:size", "qala:size_seen"):
        size = asset.get(field)
        if size is not None and not (_number(size) and size >= 0 and size == int(size)):
            wrong(f"{name}: {field} is {size!r}", "bytes")
    for field in ("qala:member", "qala:md5_href"):
        if asset.get(field) is not None and not isinstance(asset[field], str):
            wrong(f"{name}: {field} is {asset[field]!r}", "a text")
    mirrors = asset.get("qala:mirrors", [])
    if not isinstance(mirrors, list) or not all(isinstance(m, str) for m in mirrors):
        wrong(f"{name}: qala:mirrors is {mirrors!r}", "a list of addresses")
    bands = asset.get("bands", [])
    if not isinstance(bands, list) or not all(isinstance(b, dict) for b in bands):
        wrong(f"{name}: bands is {bands!r}", "a list of descriptions")
        bands = []
    for band in bands:
        missing = band.get("nodata")
        if missing is not None and not _number(missing) and missing not in ("nan", "inf", "-inf"):
            wrong(f"{name}: nodata is {missing!r}", "a number or nan")
    for address in _addresses(asset):
        try:
            # a port out of range is told when it is asked for
            urlsplit(address).port  # noqa: B018
        except ValueError:
            wrong(f"{name}: the address {scrub(address)!r} cannot be read", "https://host/path")


def _addresses(asset: Mapping[str, Any]) -> list[str]:
    """Return the addresses of an asset, as far as they are text."""
    mirrors = asset.get("qala:mirrors")
    given = [asset.get("href"), *(mirrors if isinstance(mirrors, list) else [])]
    return [a for a in (*given, asset.get("qala:md5_href")) if isinstance(a, str)]


def _below(file: Path, root: Path) -> str:
    return str(file.relative_to(root)) if file.is_relative_to(root) else file.name


def _items(pages: Sequence[_Page]) -> Iterator[pystac.Item]:
    """Make items of pages; terms of the collection go with them."""
    import pystac

    by_file = {p.file: p for p in pages}
    for page in pages:
        if page.raw["type"] != "Feature":
            continue
        try:
            item = pystac.Item.from_dict(
                {**page.raw, "links": []}, href=str(page.file), migrate=False
            )
        except (pystac.STACError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{page.file} is no sound STAC item ({error})", "an item",
                f"see `qala catalog check {page.file.parent}`",
            ) from error  # fmt: skip
        parent = by_file.get(page.parent) if page.parent else None
        if parent is not None and parent.raw["type"] == "Collection":
            names = ("license", "sci:citation", "sci:doi", "qala:notice", "title", "version")
            item.extra_fields["qala:terms"] = {k: parent.raw[k] for k in names if parent.raw.get(k)}
        yield item


# --- checking ------------------------------------------------------------------------


def check_catalog(path: str | Path) -> list[str]:
    """Check a catalog offline: STAC's schema, and the rules that fetching relies on.

    Parameters
    ----------
    path
        Catalog, collection or item file, or a folder that holds one.

    Returns
    -------
    list of str
        A line for each page read.

    Raises
    ------
    InputError
        With every problem at once: fields missing or wrong, paths that climb
        out, epochs that contradict the date, ids that stand twice, hashes that
        are none or do not fit, addresses with secrets.
    """
    entry = _entry(path)
    pages, problems = _walk(entry)
    root = entry.parent
    validators = _validators()
    ids: dict[tuple[str, str], str] = {}
    by_file = {p.file: p for p in pages}
    for page in pages:
        name = _below(page.file, root)
        kind = page.raw["type"]
        _check_fields(page, root, problems)
        for error in sorted(validators[kind].iter_errors(page.raw), key=lambda e: str(e.path))[:5]:
            place = ".".join(map(str, error.absolute_path)) or "the page"
            problems.add(f"{name}: {place}: {error.message[:160]}", "as STAC 1.1 has it")
        own = page.raw.get("id")
        if not isinstance(own, str) or not _NAME.fullmatch(own):
            if kind != "Feature":
                problems.add(f"{name}: id is {own!r}", "letters, digits, . _ -")
        elif (kind, own) in ids:
            problems.add(f"{name}: id {own!r} stands also in {ids[kind, own]}", "one id a page")
        else:
            ids[kind, own] = name
        if kind == "Feature":
            parent = by_file.get(page.parent) if page.parent else None
            _check_item(page, root, parent, problems)
        elif kind == "Collection":
            for field in ("license", "sci:citation"):
                if not page.raw.get(field):
                    problems.add(f"{name}: {field} is missing", "the terms of the data")
    problems.raise_if_any()
    count = {k: sum(p.raw["type"] == k for p in pages) for k in ("Collection", "Feature")}
    return [
        f"{entry}: sound, {count['Collection']} collections, {count['Feature']} items, "
        f"{sum(len(p.raw.get('assets', {})) for p in pages)} assets"
    ]


def _validators() -> dict[str, Any]:
    from jsonschema import Draft7Validator
    from pystac.validation.local_validator import get_local_schema_cache
    from referencing import Registry, Resource

    schemas = get_local_schema_cache()
    registry: Any = Registry().with_resources(
        [(k, Resource.from_contents(v)) for k, v in schemas.items()]
    )
    found = {}
    for kind, word in (("Feature", "item"), ("Collection", "collection"), ("Catalog", "catalog")):
        schema = next(v for k, v in schemas.items() if k.endswith(f"/{word}.json"))
        found[kind] = Draft7Validator(schema, registry=registry)
    return found


def _check_item(page: _Page, root: Path, parent: _Page | None, problems: Problems) -> None:
    name = _below(page.file, root)
    own = page.raw.get("properties")
    own = own if isinstance(own, dict) else {}
    terms = parent.raw if parent is not None and parent.raw["type"] == "Collection" else {}

    def wrong(met: str, expected: str) -> None:
        problems.add(f"{name}: {met}", expected)

    for field in ("qala:product", "version"):
        if not own.get(field):
            wrong(f"{field} is missing", "a word")
    if not (own.get("license") or terms.get("license")):
        wrong("license is missing here and in the collection", "an SPDX name or other")
    if not (own.get("sci:citation") or terms.get("sci:citation")):
        wrong("sci:citation is missing here and in the collection", "how to cite the data")
    epoch, moment = own.get("qala:epoch"), own.get("datetime")
    if _is_year(epoch) and isinstance(moment, str) and not moment.startswith(f"{epoch}-"):
        wrong(f"qala:epoch {epoch} contradicts datetime {moment}", "the same year")
    if not own.get("datetime") and not (own.get("start_datetime") and own.get("end_datetime")):
        wrong("datetime is missing", "datetime, or start_datetime and end_datetime")
    code = own.get("proj:code")
    if not isinstance(code, str) or not re.fullmatch(r"[A-Z]+:\d+", code):
        wrong(f"proj:code is {code!r}", "a CRS like ESRI:54009")
    if page.raw.get("bbox") is None:
        _check_box(None, wrong)
    collection = page.raw.get("collection")
    if terms and collection != terms.get("id"):
        wrong(f"collection is {collection!r}", f"{terms.get('id')!r}, where it hangs")
    assets = page.raw.get("assets")
    if not isinstance(assets, dict) or not assets:
        wrong("no assets", "at least one file")
        return
    for key, asset in assets.items():
        if isinstance(asset, dict):
            _check_asset(page, root, key, asset, problems)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_box(box: Any, wrong: Any) -> None:
    sound = isinstance(box, list) and len(box) == 4 and all(map(_number, box))
    if not sound or not (-180 <= box[0] < box[2] <= 180 and -90 <= box[1] < box[3] <= 90):
        wrong(f"bbox is {box!r}", "west < east and south < north in degrees")


def _check_asset(
    page: _Page, root: Path, key: str, asset: Mapping[str, Any], problems: Problems
) -> None:
    name = f"{_below(page.file, root)}: asset {key}"
    checksum, size = asset.get("file:checksum"), asset.get("file:size")
    scheme = asset.get("qala:tiles")
    addresses = _addresses(asset)
    for address in addresses:
        if address == asset.get("qala:md5_href"):
            continue
        if ("{tile}" in address) != bool(scheme):
            problems.add(f"{name}: {safe_url(address)}", "{tile} with qala:tiles, never one alone")
    if scheme is not None and scheme != "degree":
        _inside(scheme, page.file, root, problems, f"asset {key}: qala:tiles")
    for address in addresses:
        if "://" not in address:
            local = _inside(address, page.file, root, problems, f"asset {key}")
            if local is not None:
                _check_local(local, name, size, checksum, problems)
            continue
        scheme_of = address.partition("://")[0].lower()
        if scheme_of not in ("https", "http", "file"):
            problems.add(f"{name}: address of kind {scheme_of!r}", "https")
        if has_secret(address):
            problems.add(
                f"{name}: {safe_url(address)} holds a secret",
                "an address without one",
                "keep secrets in ~/.netrc",
            )


def _check_local(file: Path, name: str, size: Any, checksum: Any, problems: Problems) -> None:
    import hashlib

    if _number(size) and file.stat().st_size != size:
        problems.add(f"{name}: {file.name} has {file.stat().st_size:,} bytes", f"{size:,}")
        return
    known = _checksum(checksum) if isinstance(checksum, str) else None
    if known:
        algorithm, digits = known.split(":")
        with file.open("rb") as handle:
            if hashlib.file_digest(handle, algorithm).hexdigest() != digits:
                problems.add(f"{name}: {file.name} does not fit its hash", f"{algorithm} {digits}")


# --- a run's result as an item ---------------------------------------------------------


def stac_item(folder: str | Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's outputs as a STAC item, so that they are the next run's input.

    Parameters
    ----------
    folder
        Folder of the outputs (or the stage they lie in).
    record
        As :meth:`qala.provenance.Recorder.record` returns it.

    Returns
    -------
    dict
        To be written as ``item.json`` in the folder.
    """
    import pystac

    base = Path(folder)
    bbox, code = _extent(base, record)
    west, south, east, north = bbox
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    title = record.get("title") or ""
    title = title if isinstance(title, str) else next(iter(title.values()), "")
    started = str(record.get("started", ""))
    key = str(record.get("key", ""))
    parameters = record.get("parameters") or {}
    assets: dict[str, Any] = {}
    epochs = set()
    for output in record.get("outputs", []):
        path = str(output["path"])
        year = re.search(r"_(\d{4})\.", path)
        entry: dict[str, Any] = {
            "href": f"./{path}",
            "type": _MEDIA.get(Path(path).suffix.lower(), "application/octet-stream"),
            "roles": ["overview" if path.startswith(("figures/", "report/")) else "data"],
            "file:size": output["bytes"],
            "file:checksum": "1220" + output["sha256"],
        }
        if year:
            entry["qala:epoch"] = int(year.group(1))
            epochs.add(int(year.group(1)))
        assets[path] = entry
    item = pystac.Item(
        f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', _folder_name(base)) or 'run'}-{key[:12]}",
        {"type": "Polygon", "coordinates": [ring]},
        list(bbox),
        None,
        {
            "title": title,
            "start_datetime": f"{min(epochs)}-01-01T00:00:00Z" if epochs else started,
            "end_datetime": f"{max(epochs)}-12-31T23:59:59Z" if epochs else started,
            "created": started.replace("+00:00", "Z"),
            "license": "other",
            "sci:citation": "; ".join(said(s, "en") for s in parameters.get("sources", []))
            or f"qala, {title}",
            "version": str((record.get("versions") or {}).get("qala", "")),
            "proj:code": code,
            "processing:software": {"qala": str((record.get("versions") or {}).get("qala", ""))},
            "qala:product": str(parameters.get("workflow", "run")),
            "qala:epoch": None,
            "qala:epochs": sorted(epochs),
            "qala:synthetic": bool(record.get("synthetic", False)),
            "qala:key": key,
        },
    ).to_dict(include_self_link=False, transform_hrefs=False)
    item["assets"] = assets
    item["links"] = [{"rel": "via", "href": "./provenance.json", "type": "application/json"}]
    return item


def write_item(folder: str | Path, record: Mapping[str, Any]) -> Path:
    """Write :func:`stac_item` beside the outputs and return its path."""
    return write_json(Path(folder) / ITEM, stac_item(folder, record))


_MEDIA = {
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".gpkg": "application/geopackage+sqlite3", ".parquet": "application/vnd.apache.parquet",
    ".csv": "text/csv", ".json": "application/json", ".html": "text/html", ".png": "image/png",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}  # fmt: skip


def _folder_name(base: Path) -> str:
    resolved = base.resolve()
    # a stage lies in the folder it will be published to
    return resolved.parent.name if resolved.name.startswith(".qala-staging-") else resolved.name


def _extent(base: Path, record: Mapping[str, Any]) -> tuple[Box, str]:
    """Return the box in degrees and the CRS of the first raster of a run."""
    import rasterio
    from rasterio.warp import transform_bounds

    for output in record.get("outputs", []):
        if str(output["path"]).endswith(".tif"):
            with rasterio.open(base / output["path"]) as source:
                box = transform_bounds(source.crs, "EPSG:4326", *source.bounds, densify_pts=21)
                code = source.crs.to_authority()
                west, south, east, north = (round(v, 6) for v in box)
                return (west, south, east, north), ":".join(code) if code else "ESRI:54009"
    return (-180.0, -90.0, 180.0, 90.0), "EPSG:4326"
