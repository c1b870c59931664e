"""Fetching: bring files of the catalogs into a shared cache, whole and checked, once.

A transfer that broke off goes on where it stopped (HTTP ranges guarded by the
file's ETag). pooch does not resume, try mirrors or share a cache between
processes, so the loop is here, over requests. Locks are the system's own and go
with their process: a stale one cannot be.
"""

from __future__ import annotations

import contextlib
import email.utils
import fnmatch
import hashlib
import json
import logging
import os
import random
import re
import shutil
import socket
import stat
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit
from urllib.request import url2pathname

from qala.catalog import Asset, Box
from qala.errors import (
    InputError,
    PartialError,
    Problems,
    ProblemsError,
    QalaError,
    TemporaryError,
    is_full,
)
from qala.identity import file_hash, safe_url, write_json
from qala.locks import lock

if TYPE_CHECKING:
    import requests

    from qala.config import Model, Page

log = logging.getLogger("qala")

#: called with bytes done and in all (None where not known)
Progress = Callable[[int, int | None], None]

#: what a break costs at the most
_PIECE = 1 << 16
#: Windows follows links in a cache as anywhere
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_SPARE_BYTES = 64 << 20
_MAX_REDIRECTS = 5
_MAX_WAIT_S = 120.0
#: a GeoTIFF compresses hundredfold at the most; beyond it is a bomb
_MAX_RATIO = 2000
#: where a file comes from that lay in the cache before it was asked for
_BY_HAND = "brought by hand"
_AGAIN = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Fetched:
    """A file in the cache.

    Attributes
    ----------
    path
        File to read: the wanted member of a zip, or the file itself; None
        where the publisher has no such tile.
    archive
        The file as it was fetched.
    sha256
        Hash of the file as it was fetched.
    cached
        Whether it lay in the cache already.
    """

    asset: Asset
    path: Path | None
    archive: Path | None
    bytes: int
    sha256: str
    cached: bool


@dataclass(frozen=True)
class Options:
    """How to fetch.

    Attributes
    ----------
    offline
        Touch no network; refuse what is not in the cache.
    allow_local
        Allow ``file://`` and addresses of this machine or its network.
    refresh
        Ask whether files in the cache have changed at their source.
    attempts
        Tries without progress before an address is given up.
    timeout
        Seconds of silence after which a connection counts as stalled.
    pause
        Seconds before the second try; doubles with each further one.
    """

    offline: bool = False
    allow_local: bool = False
    refresh: bool = False
    attempts: int = 5
    timeout: float = 30.0
    pause: float = 1.0
    progress: Progress | None = field(default=None, compare=False)


class _Dead(InputError):
    """An address that gave a file that is not the right one."""


class _Gone(_Dead):
    """An address that will not give the file, however often it is asked."""

    def __init__(self, met: str, expected: str = "", remedy: str = "", code: int = 0) -> None:
        super().__init__(met, expected, remedy)
        self.code = code


class _Full(TemporaryError):
    """The disk has no room."""


def cache_folder() -> Path:
    """Return the shared cache: ``QALA_CACHE``, else the platform's own place."""
    named = os.environ.get("QALA_CACHE")
    if named:
        return Path(named).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("qala"))


def place_of(asset: Asset, cache: Path | None = None) -> Path:
    """Return where an asset lies in the cache, or would lie."""
    if "://" not in asset.url:
        return Path(asset.url)
    folder = (cache or cache_folder()) / _clean(asset.collection)
    if asset.version:
        folder /= _clean(asset.version)
    return folder / _clean(asset.filename)


def fetch(
    assets: Iterable[Asset], *, cache: str | Path | None = None, options: Options | None = None
) -> list[Fetched]:
    """Bring assets into the cache and check them.

    Parameters
    ----------
    assets
        From :func:`qala.catalog.assets_of`.
    cache
        Folder; default :func:`cache_folder`.
    options
        How to fetch.

    Returns
    -------
    list of Fetched
        In the order of the assets.

    Raises
    ------
    InputError
        When an address is dead, a hash or size does not fit, a zip is not
        sound, or files are missing offline; all are named. A
        :class:`qala.errors.PartialError` where the other files came.
    TemporaryError
        When servers fail or the disk is full: what came so far is kept, and
        the same call goes on from there.
    """
    chosen = options or Options()
    base = Path(cache) if cache else cache_folder()
    wanted = list(assets)
    if chosen.offline:
        _require_present(wanted, base)
    else:
        _require_space(wanted, base)
    found: list[Fetched] = []
    dead = Problems("fetching")
    later: list[TemporaryError] = []
    with contextlib.ExitStack() as stack:
        session: requests.Session | None = None
        for asset in wanted:
            if session is None and not chosen.offline:
                session = stack.enter_context(_session())
            try:
                found.append(_one(asset, base, session, chosen))
            except TemporaryError as error:
                later.append(error)
                if isinstance(error, _Full):
                    break
                # a network that is down need not be waited for with every file anew
                chosen = replace(chosen, attempts=1)
            except InputError as error:
                dead.add_error(error)
    if later:
        text = "; ".join(e.met for e in [*later, *dead.items])
        raise TemporaryError(text, later[0].expected, later[0].remedy or "run the same again later")
    if dead.items and found:
        named = ProblemsError(f"{len(found)} of {len(wanted)} files came, fetching the others",
                              dead.items)  # fmt: skip
        raise PartialError(str(named))
    dead.raise_if_any()
    return found


def source_of(path: str | Path) -> dict[str, Any] | None:
    """Return what is known about a file of the cache: address, hash, licence, citation."""
    file = Path(path)
    for name in (file, file.parent.with_suffix("") if file.parent.suffix == ".d" else None):
        if name is None:
            continue
        side = _side(name)
        try:
            found = json.loads(side.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return found if isinstance(found, dict) else None
    return None


def resolve_sources(
    workflow: Model,
    *,
    catalogs: Iterable[str | Path] = (),
    cache: str | Path | None = None,
    options: Options | None = None,
    missing: dict[str, str] | None = None,
) -> Model:
    """Fetch what a workflow names as ``catalog://…`` and put the files' paths there.

    Parameters
    ----------
    workflow
        From :func:`qala.config.load_workflow`. Its ``bbox``, else the extent
        of its units, chooses the tiles.
    catalogs
        Further catalogs.
    missing
        Where given, epochs whose files do not come are left out and noted here
        with the reason, as long as one is left.

    Returns
    -------
    Workflow
        The same one where it names none.

    Raises
    ------
    InputError, TemporaryError
        As :func:`fetch`; a workflow without some of its files is no partial
        success.
    """
    from qala.catalog import open_catalogs, resolve
    from qala.config import paths_of

    given: Any = workflow.inputs  # type: ignore[attr-defined]
    names = paths_of(given)
    if not any("catalog://" in json.dumps(getattr(given, n), default=str) for n in names):
        return workflow
    items = open_catalogs(catalogs)
    box = place_of_workflow(workflow)

    def brought(value: Any) -> Any:
        if isinstance(value, dict):
            return epochs_brought(value)
        if isinstance(value, list):
            flat = [brought(v) for v in value]
            return [f for v in flat for f in (v if isinstance(v, list) else [v])]
        if not isinstance(value, str) or not value.startswith("catalog://"):
            return value
        try:
            got = fetch(resolve(value, items, bbox=box), cache=cache, options=options)
        except PartialError as error:
            raise InputError(error.met, error.expected, error.remedy) from error
        paths = [str(f.path) for f in got if f.path is not None]
        if not paths:
            raise InputError(f"{value} has no file for the box {box}", "a box over land")
        return paths if len(paths) > 1 else paths[0]

    def epochs_brought(value: dict[Any, Any]) -> dict[Any, Any]:
        found = {}
        for epoch, source in value.items():
            try:
                found[epoch] = brought(source)
            except QalaError as error:
                if missing is None:
                    raise
                missing.setdefault(str(epoch), error.sentence())
        return found

    changes = {n: brought(getattr(given, n)) for n in names}
    people = changes["population"]
    if missing and isinstance(people, dict):
        changes["population"] = {e: s for e, s in people.items() if str(e) not in missing}
    if missing and not changes["population"]:
        raise InputError(
            "no epoch could be fetched: " + "; ".join(f"{e}: {w}" for e, w in missing.items())
        )
    return workflow.model_copy(update={"inputs": given.model_copy(update=changes)})


def place_of_workflow(workflow: Page) -> Box | None:
    """Return the box of a workflow in degrees: its own, else its units' extent, else None."""
    from qala.config import CityInputs

    if workflow.bbox is not None:
        return workflow.bbox
    given: Any = workflow.inputs  # type: ignore[attr-defined]
    if isinstance(given, CityInputs):
        path, layer, crs = given.area, given.area_layer, None
    elif given.units is not None:
        path, layer, crs = given.units.path, given.units.layer, given.units.crs
    else:
        return None
    if path is None:
        return None
    import pyogrio

    try:
        shapes = pyogrio.read_dataframe(path, layer=layer, columns=[])
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise InputError(f"{path} cannot be read ({error})", "a vector file") from error
    if crs:
        shapes = shapes.set_crs(crs, allow_override=True)
    # each shape by itself: the corners of a projected frame lie far from the country
    west, south, east, north = shapes.to_crs("EPSG:4326").total_bounds
    return (float(west), float(south), float(east), float(north))


# --- before anything is fetched ------------------------------------------------------


def _require_present(wanted: Sequence[Asset], base: Path) -> None:
    """Refuse to work offline without the files, naming what to bring and where to."""
    missing = []
    for asset in wanted:
        place = place_of(asset, base)
        if not place.is_file() and not (asset.sparse and _absent_mark(place).exists()):
            missing.append((asset, place))
    if not missing:
        return
    lines = "\n".join(
        f"  - from {safe_url(asset.url)}\n    to   {place}" for asset, place in missing
    )
    raise InputError(
        f"{len(missing)} of {len(wanted)} files are not in the cache, and --offline was asked for",
        "all of them there",
        f"bring them\n{lines}\nor run `qala fetch` on a machine with network and copy its cache",
    )


def _require_space(wanted: Sequence[Asset], base: Path) -> None:
    missing = [a for a in wanted if "://" in a.url and not place_of(a, base).is_file()]
    if not missing:
        return
    # a zip lies beside its unpacked member
    needed = sum((a.size or a.size_seen or 0) * (2 if a.member else 1) for a in missing)
    if needed:
        _require_free(base, needed)


def _require_free(folder: Path, needed: int) -> None:
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if needed + _SPARE_BYTES > free:
        raise _Full(
            f"{folder} has {free / 1e6:,.0f} MB free",
            f"{(needed + _SPARE_BYTES) / 1e6:,.0f} MB",
            "make room, or name another folder in QALA_CACHE",
        )


def _session() -> requests.Session:
    import requests

    session = requests.Session()
    # a compressed transfer would have another length than the file
    session.headers.update({"Accept-Encoding": "identity", "User-Agent": "qala"})
    return session


# --- one file ------------------------------------------------------------------------


def _one(asset: Asset, base: Path, session: Any, options: Options) -> Fetched:
    if "://" not in asset.url:
        return _local(asset)
    place = place_of(asset, base)
    _prepare(place, base)
    with _locked(place):
        known = _ready(place, asset)
        if known is not None and not (options.refresh and session is not None):
            return _done(asset, place, known, cached=True)
        if known is None and _absent_mark(place).exists() and not options.refresh:
            return Fetched(asset, None, None, 0, "", True)
        if not os.access(place.parent, os.W_OK):
            raise InputError(
                f"{place} is not the file that was fetched, and its folder is not writable",
                "a cache this user may write to", "name another folder in QALA_CACHE",
            )  # fmt: skip
        if session is None:
            _require_present([asset], base)
            raise InputError(
                f"{place} is not the file that was fetched, and --offline was asked for",
                f"the file of {safe_url(asset.url)}",
                f"bring it again; if it is meant as it is, remove {_side(place).name} beside it",
            )
        if known is not None and not _changed(asset, known, session, options):
            return _done(asset, place, known, cached=True)
        try:
            seen = _transfer(asset, place, session, options)
        except _Gone as error:
            if not (asset.sparse and error.code == 404):
                raise
            log.info("%s is not published (no land there?)", asset.filename)
            _absent_mark(place).touch()
            return Fetched(asset, None, None, 0, "", False)
        except OSError as error:
            raise _storage_error(error, place) from error
        if known is not None and known["sha256"] != seen["sha256"]:
            log.warning("%s changed at its source since %s", asset.filename, known["fetched"])
        return _done(asset, place, seen, cached=False)


def _local(asset: Asset) -> Fetched:
    """Check a file that lies in the catalog itself."""
    place = Path(asset.url)
    if not place.is_file():
        raise InputError(f"{place} does not exist", f"the file of {asset.item}")
    _require_sound(place, asset)
    return Fetched(asset, place, place, place.stat().st_size, file_hash(place), True)


def _prepare(place: Path, base: Path) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _storage_error(error, place) from error
    if not place.parent.resolve().is_relative_to(base.resolve()) or place.is_symlink():
        raise InputError(
            f"{place} leaves the cache by a symbolic link", "files in the cache itself",
            "remove the link",
        )  # fmt: skip
    # what is there already can be read from a cache of somebody else's
    if not os.access(place.parent, os.W_OK) and not place.is_file():
        raise InputError(
            f"{place.parent} is not writable", "a cache this user may write to",
            "name another folder in QALA_CACHE",
        )  # fmt: skip


def _storage_error(error: OSError, place: Path) -> QalaError:
    if is_full(place.parent, error):
        return _Full(
            f"{place.parent} is full ({error.strerror})", "room for the files",
            "make room and run the same again; what came so far is kept",
        )  # fmt: skip
    return InputError(
        f"{place} cannot be written ({error.strerror or error})", "a cache this user may write to",
        "name another folder in QALA_CACHE",
    )  # fmt: skip


@contextlib.contextmanager
def _locked(place: Path) -> Iterator[None]:
    """Hold a file of the cache; other runs that want it wait for it.

    Where the folder cannot be written to, nobody here fetches into it.
    """
    file = place.with_name(f".{place.name}.lock")
    if not os.access(place.parent, os.W_OK):
        yield
        return
    flags = os.O_CREAT | _NO_LINK | getattr(os, "O_CLOEXEC", 0)
    try:
        handle = os.open(file, os.O_RDWR | flags, 0o666)
    except PermissionError:
        # made by another user of the cache, and locked as well by one who may read it
        handle = os.open(file, os.O_RDONLY | flags)
    try:
        if not lock(handle):
            log.info("another run is fetching %s; waiting for it", place.name)
            lock(handle, wait=True)
        yield
    finally:
        os.close(handle)


def _ready(place: Path, asset: Asset) -> dict[str, Any] | None:
    """Return what is known about a file of the cache that is whole, else None."""
    if not place.is_file():
        return None
    known = source_of(place) or {}
    status = place.stat()
    if (known.get("bytes"), known.get("mtime_ns")) == (status.st_size, status.st_mtime_ns):
        recorded = known.get("checksum")
        if asset.checksum is None or asset.checksum in (recorded, f"sha256:{known['sha256']}"):
            return known
    # brought by hand, touched, or another hash is asked for now: look at the whole file
    by_hand = known.get("url", _BY_HAND) == _BY_HAND
    if not by_hand and known.get("sha256") != file_hash(place):
        log.warning("%s in the cache is not the file that was fetched", place.name)
        return None
    try:
        _require_sound(place, asset)
    except _Dead as error:
        if not by_hand:
            log.warning("%s in the cache is not the file that is published now", place.name)
            return None
        raise InputError(
            f"{error.met} in the cache, brought by hand", error.expected, f"remove {place}"
        ) from error
    return _note(asset, place, _BY_HAND if by_hand else asset.url, {})


def _note(asset: Asset, place: Path, url: str, headers: dict[str, str]) -> dict[str, Any]:
    """Write what is known about a file beside it."""
    status = place.stat()
    known = {
        "file": place.name,
        "url": safe_url(url),
        "sha256": file_hash(place),
        "checksum": asset.checksum,
        "bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
        "etag": headers.get("ETag"),
        "last_modified": headers.get("Last-Modified"),
        **{
            k: getattr(asset, k)
            for k in ("item", "collection", "version", "epoch", "licence", "citation", "notice")
        },
    }
    if os.access(place.parent, os.W_OK):
        write_json(_side(place), known)
    return known


def _side(place: Path) -> Path:
    return place.with_name(f"{place.name}.source.json")


def _absent_mark(place: Path) -> Path:
    return place.with_name(f"{place.name}.absent")


def _done(asset: Asset, place: Path, known: dict[str, Any], *, cached: bool) -> Fetched:
    path = place
    if zipfile.is_zipfile(place) and place.suffix.lower() == ".zip":
        try:
            path = unpack(place, asset.member or "*")[0]
        except OSError as error:
            raise _storage_error(error, place) from error
    return Fetched(asset, path, place, int(known["bytes"]), str(known["sha256"]), cached)


def _require_sound(file: Path, asset: Asset) -> None:
    """Check size, hash and, for a zip, every member's checksum.

    Raises
    ------
    _Dead
        When something does not fit.
    """
    size = file.stat().st_size
    if asset.size is not None and size != asset.size:
        raise _Dead(f"{asset.filename} has {size:,} bytes", f"{asset.size:,} as published")
    if asset.checksum:
        algorithm, _, digits = asset.checksum.partition(":")
        with file.open("rb") as handle:
            found = hashlib.file_digest(handle, algorithm).hexdigest()
        if found != digits:
            raise _Dead(
                f"{asset.filename} has the {algorithm} {found}", f"{digits} as published",
                "the file has changed or broke on its way: see whether a new version is out",
            )  # fmt: skip
    if asset.filename.lower().endswith(".zip"):
        try:
            with zipfile.ZipFile(file) as archive:
                broken = archive.testzip()
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
            raise _Dead(f"{asset.filename} is no sound zip ({error})", "a whole zip") from error
        if broken:
            raise _Dead(f"{asset.filename} is broken in {broken}", "a whole zip")


# --- the wire --------------------------------------------------------------------------


def _transfer(asset: Asset, place: Path, session: Any, options: Options) -> dict[str, Any]:
    """Fetch from the first address that gives a sound file, and put it in place."""
    part = place.with_name(f".{place.name}.part")
    dead: list[_Dead] = []
    later: list[TemporaryError] = []
    for url in (asset.url, *asset.mirrors):
        for again in (False, True):
            try:
                headers = _download(url, part, asset, session, options)
                _require_sound(part, asset)
                _require_md5(part, asset, session, options)
            except TemporaryError as error:
                if isinstance(error, _Full):
                    raise
                later.append(error)
                log.warning("%s", error)
                break
            except _Dead as error:
                _drop(part)
                # what came wrong may have been renewed on the way: once from the start
                if again or isinstance(error, _Gone):
                    dead.append(error)
                    log.warning("%s", error)
                    break
                log.info("%s; once again from the start", error)
            else:
                part.replace(place)
                _drop(part)
                _absent_mark(place).unlink(missing_ok=True)
                log.info("%s: %s bytes", asset.filename, f"{place.stat().st_size:,}")
                return _note(asset, place, url, headers)
    if later:
        raise later[0]
    if all(isinstance(e, _Gone) for e in dead):
        code = max(e.code for e in dead if isinstance(e, _Gone))
        met = "; ".join(e.met for e in dead)
        raise _Gone(met, dead[0].expected, dead[0].remedy, code)
    last = next(e for e in reversed(dead) if not isinstance(e, _Gone))
    raise _Dead("; ".join(e.met for e in dead), last.expected, last.remedy)


def _drop(part: Path) -> None:
    part.unlink(missing_ok=True)
    part.with_name(f"{part.name}.json").unlink(missing_ok=True)


def _download(url: str, part: Path, asset: Asset, session: Any, options: Options) -> dict[str, str]:
    """Fetch one address into the part file, going on after every break."""
    import requests

    if urlsplit(url).scheme == "file":
        return _copy(url, part, options)
    tries = 0
    for _ in range(100 * options.attempts):
        have = _kept(part, url)
        try:
            headers = _get(url, part, have, asset, session, options)
        except (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
            _Again,
        ) as error:
            after = error.seconds if isinstance(error, _Again) else None
            grown = part.stat().st_size > have if part.exists() else False
            tries = 1 if grown else tries + 1
            reason = str(error) if isinstance(error, _Again) else _reason(error)
            if tries >= options.attempts:
                raise TemporaryError(
                    f"{safe_url(url)} failed {tries} times ({reason})", "an answer",
                    "run the same again later; what came so far is kept",
                ) from None  # fmt: skip
            pause = options.pause * 2 ** (tries - 1) * random.uniform(0.8, 1.2)
            pause = min(_MAX_WAIT_S, max(pause, after or 0.0))
            log.info("%s: %s; again in %.1f s", asset.filename, reason, pause)
            time.sleep(pause)
        except requests.RequestException as error:
            raise _Dead(
                f"{safe_url(url)} answers nothing ({_reason(error)})", "an address"
            ) from None
        else:
            return headers
    raise TemporaryError(f"{safe_url(url)} breaks off again and again", "a steady connection")


class _Again(Exception):
    """The server asks to be asked again."""

    def __init__(self, reason: str, seconds: float | None = None) -> None:
        super().__init__(reason)
        self.seconds = seconds


def _reason(error: BaseException) -> str:
    """Return the kind of a network error; its text may hold the whole address."""
    words = {"ReadTimeout": "no data for too long", "ConnectTimeout": "no connection",
             "ChunkedEncodingError": "the transfer broke off",
             "ConnectionError": "the connection failed or broke off"}  # fmt: skip
    return words.get(type(error).__name__, type(error).__name__)


def _kept(part: Path, url: str) -> int:
    """Return how many bytes of an earlier try can be built on."""
    try:
        notes = json.loads(part.with_name(f"{part.name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        notes = {}
    if part.is_symlink():
        raise InputError(f"{part} is a symbolic link", "a file of the cache", "remove it")
    if notes.get("url") != hashlib.sha256(url.encode()).hexdigest() or not notes.get("validator"):
        _drop(part)
        return 0
    return part.stat().st_size if part.exists() else 0


def _get(
    url: str, part: Path, have: int, asset: Asset, session: Any, options: Options
) -> dict[str, str]:
    """Ask for a file from a byte on and write what comes."""
    request: dict[str, str] = {}
    notes = part.with_name(f"{part.name}.json")
    if have:
        validator = json.loads(notes.read_text(encoding="utf-8"))["validator"]
        request = {"Range": f"bytes={have}-", "If-Range": validator}
    with _answer(url, request, session, options) as response:
        code = response.status_code
        if code == 416 or (code == 206 and _range_start(response) != have):
            _drop(part)
            raise _Again("the file is another than before")
        if code in _AGAIN:
            raise _Again(f"answers {code}", _retry_after(response))
        if code not in (200, 206):
            raise _Gone(
                f"{safe_url(url)} answers {code}", "the file", "see whether it has moved", code
            )
        if code == 200:
            have = 0
        length = response.headers.get("Content-Length", "")
        total = have + int(length) if length.isdigit() else None
        if asset.size is not None and total is not None and total != asset.size:
            raise _Dead(f"{safe_url(url)} offers {total:,} bytes", f"{asset.size:,} as published")
        _require_free(part.parent, (total or 0) - have)
        headers = {k: v for k in ("ETag", "Last-Modified") if (v := response.headers.get(k))}
        etag = headers.get("ETag", "")
        # a weak ETag does not vouch for bytes
        validator = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")
        digest = hashlib.sha256(url.encode()).hexdigest()
        write_json(notes, {"url": digest, "validator": validator, "total": total})
        flags = os.O_WRONLY | os.O_CREAT | _NO_LINK | (0 if have else os.O_TRUNC)
        with os.fdopen(os.open(part, flags, 0o644), "wb") as sink:
            sink.seek(have)
            done = have
            for piece in response.iter_content(_PIECE):
                sink.write(piece)
                done += len(piece)
                if options.progress:
                    options.progress(done, total)
            sink.flush()
            os.fsync(sink.fileno())
    if total is not None and done < total:
        raise _Again(f"breaks off at {done:,} of {total:,} bytes")
    return headers


def _range_start(response: Any) -> int | None:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match.group(1)) if match else None


def _retry_after(response: Any) -> float | None:
    """Return the seconds a server asks for; a clock that is wrong can't make it long."""
    text = response.headers.get("Retry-After", "")
    if text.isdigit():
        return min(float(text), _MAX_WAIT_S)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    seconds = (moment - datetime.now(moment.tzinfo or UTC)).total_seconds()
    return min(max(seconds, 0.0), _MAX_WAIT_S)


@contextlib.contextmanager
def _answer(url: str, headers: dict[str, str], session: Any, options: Options) -> Iterator[Any]:
    """Ask, following redirects by hand so that each address is looked at."""
    for _ in range(_MAX_REDIRECTS + 1):
        _require_allowed(url, options)
        response = session.get(
            url, headers=headers, stream=True, allow_redirects=False,
            timeout=(min(10.0, options.timeout), options.timeout),
        )  # fmt: skip
        target = response.headers.get("Location")
        if response.status_code in (301, 302, 303, 307, 308) and target:
            response.close()
            onward = urljoin(url, target)
            if url.startswith("https:") and not onward.startswith("https:"):
                raise _Gone(f"{safe_url(url)} answers with an address that is not safe", "https")
            url = onward
            continue
        try:
            yield response
        finally:
            response.close()
        return
    raise _Gone(f"{safe_url(url)} answers with more than {_MAX_REDIRECTS} redirects", "the file")


def _require_allowed(url: str, options: Options) -> None:
    """Refuse other protocols, and addresses of this machine or its network.

    Raises
    ------
    _Dead
        Unless they are allowed.
    """
    import ipaddress

    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _Gone(f"{safe_url(url)} has another protocol", "http or https")
    if options.allow_local:
        return
    from requests.utils import get_environ_proxies

    host = parts.hostname
    try:
        names = [str(ipaddress.ip_address(host))]
    except ValueError:
        names = []
        if host == "localhost" or host.endswith((".localhost", ".local")):
            names = ["127.0.0.1"]
        elif not get_environ_proxies(url):
            # a name that is not known fails later, with the network's own words
            with contextlib.suppress(OSError, UnicodeError):
                names = [str(i[4][0]) for i in socket.getaddrinfo(host, None)]
    for name in names:
        if not ipaddress.ip_address(name.partition("%")[0]).is_global:
            raise _Gone(
                f"{safe_url(url)} lies on this machine or its network",
                "a public address; others only when allowed",
                "pass --allow-local if it is meant",
            )


def _copy(url: str, part: Path, options: Options) -> dict[str, str]:
    if not options.allow_local:
        raise _Gone(
            f"{safe_url(url)} is a file of this machine",
            "a public address; others only when allowed",
            "pass --allow-local if it is meant",
        )
    source = Path(url2pathname(urlsplit(url).path))
    if not source.is_file():
        raise _Gone(f"{source} answers nothing: it does not exist", "a file")
    _require_free(part.parent, source.stat().st_size)
    _drop(part)
    shutil.copyfile(source, part)
    return {}


def _require_md5(part: Path, asset: Asset, session: Any, options: Options) -> None:
    """Check the MD5 that a publisher puts beside a file."""
    import requests

    if not asset.md5_href:
        return
    try:
        with _answer(asset.md5_href, {}, session, options) as response:
            text = response.raw.read(1000).decode("ascii", "replace")
            code = response.status_code
    except requests.RequestException as error:
        raise TemporaryError(
            f"{safe_url(asset.md5_href)} failed ({_reason(error)})", "the file's MD5"
        ) from None
    match = re.match(r"\s*([0-9a-fA-F]{32})\b", text)
    if code != 200 or not match:
        raise TemporaryError(f"{safe_url(asset.md5_href)} answers {code}", "the file's MD5")
    with part.open("rb") as handle:
        found = hashlib.file_digest(handle, "md5").hexdigest()
    if found != match.group(1).lower():
        raise _Dead(f"{asset.filename} has the md5 {found}", f"{match.group(1)} as published")


def _changed(asset: Asset, known: dict[str, Any], session: Any, options: Options) -> bool:
    """Ask whether a file of the cache is another at its source by now."""
    import requests

    request = {}
    if known.get("etag"):
        request["If-None-Match"] = known["etag"]
    if known.get("last_modified"):
        request["If-Modified-Since"] = known["last_modified"]
    if not request or asset.checksum or urlsplit(asset.url).scheme == "file":
        return not asset.checksum
    try:
        with _answer(asset.url, request, session, options) as response:
            code: int = response.status_code
    except (requests.RequestException, _Dead) as error:
        log.warning("%s: cannot tell whether it changed (%s)", asset.filename, _reason(error))
        return False
    if code not in (200, 304):
        log.warning("%s: cannot tell whether it changed (answers %d)", asset.filename, code)
    return code == 200


# --- zips --------------------------------------------------------------------------------


def unpack(archive: str | Path, pattern: str = "*.tif") -> list[Path]:
    """Unpack the wanted members of a zip beside it, once.

    Parameters
    ----------
    archive
        Zip file; its members land in the folder ``<name>.d``.
    pattern
        Of the members' file names.

    Returns
    -------
    list of pathlib.Path
        In the order of their names.

    Raises
    ------
    InputError
        When any member climbs out of the archive, is a link, is encrypted or
        swells beyond measure, or none fits the pattern.
    """
    file = Path(archive)
    folder = file.with_name(f"{file.name}.d")
    problems = Problems(file.name)
    with zipfile.ZipFile(file) as source:
        wanted: dict[str, zipfile.ZipInfo] = {}
        for info in source.infolist():
            trouble = _trouble(info)
            if trouble:
                problems.add(f"member {info.filename!r} {trouble}", "plain files below the archive")
            name = Path(info.filename).name
            if info.is_dir() or not fnmatch.fnmatch(name.lower(), pattern.lower()):
                continue
            if name in wanted:
                problems.add(f"two members are called {name!r}", "one of a name")
            wanted[name] = info
        problems.raise_if_any()
        if not wanted:
            held = ", ".join(source.namelist()[:6])
            raise InputError(f"{file.name} holds {held or 'nothing'}", f"a member like {pattern}")
        lacking = {n: i for n, i in wanted.items() if not _is_there(folder / n, i)}
        if lacking:
            _require_free(file.parent, sum(i.file_size for i in lacking.values()))
        if folder.is_symlink():
            raise InputError(f"{folder} is a symbolic link", "a folder of the cache", "remove it")
        folder.mkdir(exist_ok=True)
        for name, info in lacking.items():
            _extract(source, info, folder / name)
    return [folder / name for name in sorted(wanted)]


def _is_there(target: Path, info: zipfile.ZipInfo) -> bool:
    if not target.is_file() or target.is_symlink() or target.stat().st_size != info.file_size:
        return False
    found = 0
    with target.open("rb") as handle:
        while piece := handle.read(_PIECE):
            found = zlib.crc32(piece, found)
    return found == info.CRC


def _trouble(info: zipfile.ZipInfo) -> str:
    # zipfile cuts names at a NUL and turns backslashes; look at the name as it was stored
    name = info.orig_filename
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name):
        return "is an absolute path"
    if ".." in re.split(r"[/\\]", name):
        return "climbs out of the archive"
    if "\x00" in name:
        return "has a broken name"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "is a symbolic link"
    if info.flag_bits & 1:
        return "is encrypted"
    if info.file_size > _MAX_RATIO * max(info.compress_size, 1000):
        return f"swells from {info.compress_size:,} to {info.file_size:,} bytes"
    return ""


def _extract(source: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> None:
    work = target.with_name(f".{target.name}.{os.getpid()}.work")
    try:
        with source.open(info) as member, work.open("wb") as sink:
            left = info.file_size
            while piece := member.read(_PIECE):
                left -= len(piece)
                if left < 0:
                    raise InputError(
                        f"{info.filename} is larger than the archive says", "a whole zip"
                    )
                sink.write(piece)
            sink.flush()
            os.fsync(sink.fileno())
        work.replace(target)
    except zipfile.BadZipFile as error:
        raise InputError(f"{info.filename} is broken ({error})", "a whole zip") from error
    finally:
        work.unlink(missing_ok=True)


def _clean(name: str) -> str:
    """Return a name that is safe as a file's."""
    cleaned = re.sub(r"[^\w.+@-]+", "_", name).lstrip(".")
    return cleaned or "file"
