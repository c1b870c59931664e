"""Roads of an OpenStreetMap PBF file as arrays.

Why a reader of our own beside osmium: handing the ways of an extract from osmium to arrays goes
through Python objects or text and costs several times the reading itself; here compiled loops
decode only what a road network needs, blob by blob on all threads. osmium reads everything else
(XML, the city's objects), and the tests hold both readers against each other.

A file is read in two rounds: the ways, then the places of only those nodes that the ways asked
for use. In a sorted file every blob is inflated once; blobs out of order are met and read again.

Format: OpenStreetMap wiki, "PBF Format" (fileformat.proto, osmformat.proto).
"""

from __future__ import annotations

import bz2
import functools
import importlib
import lzma
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from qala.compute import usable_cores
from qala.errors import InputError

Ints = npt.NDArray[np.integer[Any]]
Bytes = bytes | memoryview
T = TypeVar("T")

#: limits of the format, bytes
MAX_HEADER = 64 * 1024
MAX_BLOB = 32 * 1024 * 1024
#: what a file may require of its reader
FEATURES = frozenset(("OsmSchema-V0.6", "DenseNodes", "LocationsOnWays"))
_REMEDY = "fetch it again and compare its checksum; it may be truncated"


@dataclass(frozen=True)
class Blob:
    """Where a blob of data lies in the file.

    Attributes
    ----------
    number
        From 0, the header's blob included.
    start
        Byte at which it begins, its own header included.
    offset, size
        Byte at which its content begins, and bytes of it.
    """

    number: int
    start: int
    offset: int
    size: int


@dataclass(frozen=True, eq=False)
class Ways:
    """Ways as ragged arrays, tags as text once per combination.

    Attributes
    ----------
    ptr
        (ways + 1,) int64 offsets into ``refs``.
    profile
        (ways,) int32 index into ``tags``.
    refs
        (vertices,) int64 node ids.
    lon, lat
        (vertices,) int32, 1e-7 degree, :data:`NOWHERE` where the way holds no places itself.
    tags
        Combinations of the tags asked for.
    """

    ptr: Ints
    profile: Ints
    refs: Ints
    lon: Ints
    lat: Ints
    tags: list[dict[str, str]]


@dataclass(frozen=True, eq=False)
class Nodes:
    """Places of nodes, and the nodes that carry a tag asked for.

    Attributes
    ----------
    lon, lat
        int32, 1e-7 degree, one for every id asked for; NOWHERE where the file has none.
    ids
        (tagged,) int64.
    profile
        (tagged,) int32 index into ``tags``.
    tags
        Combinations of the tags asked for.
    """

    lon: Ints
    lat: Ints
    ids: Ints
    profile: Ints
    tags: list[dict[str, str]]


def is_pbf(path: Path) -> bool:
    """Tell by its first bytes whether a file is PBF, or by its name where it holds too few."""
    with open(path, "rb") as file:
        head = file.read(64)
    return b"OSMHeader" in head or path.name.lower().endswith(".pbf")


class PbfFile:
    """An open PBF file whose blobs are known; use it in a ``with`` statement.

    Parameters
    ----------
    path
        The file.
    threads
        Threads that inflate and decode; default: the cores this process may use.

    Raises
    ------
    InputError
        When the file is no PBF, ends inside a blob, or requires what is not known here.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        self.path = path
        self.threads = threads or usable_cores()
        self._lock = threading.Lock()
        self._file = open(path, "rb")  # noqa: SIM115
        try:
            self.blobs = self._index()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> PbfFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def damaged(self, blob: Blob, what: str) -> InputError:
        """Return the error of a blob that cannot be read."""
        return InputError(
            f"{self.path} is damaged: {what} (blob {blob.number}, which starts at byte "
            f"{blob.start:,})",
            "a whole .osm.pbf file",
            _REMEDY,
        )

    def _read(self, offset: int, size: int) -> bytes:
        with self._lock:
            self._file.seek(offset)
            return self._file.read(size)

    def _index(self) -> list[Blob]:
        """List the blobs of data after looking at the file's own header."""
        total = self.path.stat().st_size
        found: list[Blob] = []
        at = number = 0
        while at < total:
            head = self._read(at, 4)
            size = int.from_bytes(head, "big")
            whole = Blob(number, at, at + 4 + size, 0)
            if len(head) == 4 and size > MAX_HEADER:
                if number == 0:
                    raise InputError(
                        f"{self.path} cannot be read as OpenStreetMap data in PBF format (its "
                        f"first 4 bytes tell a header of {size:,} bytes)",
                        "a .osm.pbf file",
                        "check what it is; XML must be named .osm",
                    )
                raise self.damaged(whole, f"a header of {size:,} bytes where at most {MAX_HEADER:,}"
                                   " are allowed")  # fmt: skip
            kind, length = self._blob_header(whole, self._read(at + 4, size), size)
            blob = Blob(number, at, at + 4 + size, length)
            if len(head) < 4 or blob.offset + length > total:
                raise InputError(
                    f"{self.path} is truncated: it ends at byte {total:,} inside blob {number}, "
                    f"which starts at byte {at:,} and needs {blob.offset + length - total:,} more",
                    "a whole .osm.pbf file",
                    _REMEDY,
                )
            if number == 0:
                if kind != "OSMHeader":
                    raise self.damaged(blob, f"it begins with {kind!r} and not with OSMHeader")
                self._require_features(blob)
            elif kind == "OSMData":
                found.append(blob)
            at = blob.offset + length
            number += 1
        return found

    def _blob_header(self, blob: Blob, text: bytes, size: int) -> tuple[str, int]:
        if blob.offset - blob.start >= 4 and size == 0:
            raise self.damaged(blob, "a header of 0 bytes")
        if len(text) < size:
            raise InputError(
                f"{self.path} is truncated: it ends inside the header of blob {blob.number}, "
                f"which starts at byte {blob.start:,}",
                "a whole .osm.pbf file",
                _REMEDY,
            )
        kind, length = "", -1
        for number, value in self._fields(blob, text):
            if number == 1 and isinstance(value, bytes):
                kind = value.decode("utf-8", "replace")
            elif number == 3 and isinstance(value, int):
                length = value
        if not 0 <= length <= MAX_BLOB:
            raise self.damaged(blob, f"a blob of {length:,} bytes where at most {MAX_BLOB:,} "
                               "are allowed")  # fmt: skip
        return kind, length

    def _fields(self, blob: Blob, text: bytes) -> Iterator[tuple[int, int | bytes]]:
        try:
            yield from _fields(text)
        except ValueError as error:
            raise self.damaged(blob, str(error)) from error

    def _require_features(self, blob: Blob) -> None:
        content = self.inflate(blob)
        required = {
            value.decode("utf-8", "replace")
            for number, value in self._fields(blob, content)
            if number == 4 and isinstance(value, bytes)
        }
        if "HistoricalInformation" in required:
            raise InputError(
                f"{self.path} holds the history of its objects",
                "one version of every object",
                "take one day of it: osmium time-filter FILE 2026-01-01T00:00:00Z -o NEW.osm.pbf",
            )
        unknown = sorted(required - FEATURES)
        if unknown:
            raise InputError(
                f"{self.path} requires {', '.join(unknown)} of its reader",
                f"at most {', '.join(sorted(FEATURES))}",
                "write it anew: osmium cat FILE -o NEW.osm.pbf",
            )

    def inflate(self, blob: Blob) -> bytes:
        """Return the content of a blob.

        Raises
        ------
        InputError
            When it is damaged or packed in a way that cannot be undone here.
        """
        text = self._read(blob.offset, blob.size)
        if len(text) < blob.size:
            raise self.damaged(blob, "the file became shorter while it was read")
        size = -1
        packed: tuple[int, bytes] | None = None
        for number, value in self._fields(blob, text):
            if number == 2 and isinstance(value, int):
                size = value
            elif isinstance(value, bytes):
                packed = number, value
        if packed is None:
            raise self.damaged(blob, "a blob without content")
        if size > MAX_BLOB:
            raise self.damaged(blob, f"a block of {size:,} bytes where at most {MAX_BLOB:,} "
                               "are allowed")  # fmt: skip
        number, value = packed
        if number == 1:
            return value
        if number not in _UNPACK:
            raise self.damaged(blob, f"a packing numbered {number} that is not known")
        name, unpack = _UNPACK[number]
        try:
            content = unpack(value, size)
        except ImportError as error:
            raise InputError(
                f"blob {blob.number} of {self.path} is packed with {name}, and the Python package "
                f"{error.name} is not installed",
                "zlib, lzma or no packing",
                f"pip install {error.name}, or write it anew: osmium cat FILE -o NEW.osm.pbf",
            ) from error
        except (lzma.LZMAError, OSError, EOFError, ValueError, RuntimeError) as error:
            raise self.damaged(blob, f"{name} data that cannot be unpacked ({error})") from error
        if len(content) != size:
            raise self.damaged(blob, f"a block of {len(content):,} bytes that should have {size:,}")
        return content

    def each(
        self, blobs: Sequence[Blob], work: Callable[[_Block], T], told: Callable[[int], None]
    ) -> Iterator[T]:
        """Do the work on the block in every blob, on threads, in the order of the file."""

        def one(blob: Blob) -> T:
            try:
                return work(_block(self.inflate(blob)))
            except ValueError as error:
                raise self.damaged(blob, str(error)) from error

        with ThreadPoolExecutor(self.threads) as pool:
            try:
                for done, result in enumerate(pool.map(one, blobs), 1):
                    yield result
                    told(done)
            finally:
                pool.shutdown(cancel_futures=True)


#: kinds of a group of objects by the number of its fields
NODES, DENSE, WAYS = 1, 2, 3


@dataclass(frozen=True, eq=False)
class _Block:
    """An inflated block: ranges of the table of texts and of the groups, scale of coordinates.

    ``groups`` hold the number of their fields (one kind of object a group), start and end.
    """

    buffer: Ints
    texts: tuple[int, int]
    groups: tuple[tuple[int, int, int], ...]
    granularity: int
    lat_offset: int
    lon_offset: int

    @property
    def scale(self) -> tuple[int, int, int]:
        return self.granularity, self.lat_offset, self.lon_offset

    def holds(self, *kinds: int) -> bool:
        return any(kind in kinds for kind, _, _ in self.groups)


def _block(content: bytes) -> _Block:
    texts, groups = (0, 0), []
    scale = {17: 100, 19: 0, 20: 0}
    for number, kind, a, b in _ranges(content, 0, len(content)):
        if number == 1 and kind == 2:
            texts = a, b
        elif number == 2 and kind == 2 and b > a:
            groups.append((_varint(content, a)[0] >> 3, a, b))
        elif number in scale and kind == 0:
            value = _varint(content, a)[0]
            scale[number] = value - 2**64 if value >= 2**63 else value
    if not 0 < scale[17] <= 1_000_000_000:
        raise ValueError(f"a granularity of coordinates of {scale[17]}")
    if max(abs(scale[19]), abs(scale[20])) > 360_000_000_000:
        raise ValueError("an offset of coordinates beyond the earth")
    return _Block(np.frombuffer(content, np.uint8), texts, tuple(groups), *scale.values())


def _varint(text: Bytes, i: int) -> tuple[int, int]:
    value = shift = 0
    while i < len(text) and shift < 64:
        byte = text[i]
        value |= (byte & 127) << shift
        i += 1
        if byte < 128:
            return value, i
        shift += 7
    raise ValueError("a number runs past the end of its field")


def _ranges(text: Bytes, i: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield number, kind, start and end of the fields of a message."""
    while i < end:
        key, i = _varint(text, i)
        kind, to = key & 7, i
        if kind == 0:
            to = _varint(text, i)[1]
        elif kind == 2:
            size, i = _varint(text, i)
            to = i + size
        elif kind in (1, 5):
            to = i + (8 if kind == 1 else 4)
        else:
            raise ValueError("a field has a type that the format does not know")
        if to > end:
            raise ValueError("a field is longer than the message it is in")
        yield key >> 3, kind, i, to
        i = to


def _fields(text: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of the fields of a small message."""
    for number, kind, a, b in _ranges(text, 0, len(text)):
        yield number, _varint(text, a)[0] if kind == 0 else text[a:b]


@functools.cache
def _inflation() -> Any:
    """Return ISA-L, which takes half the time of zlib, wherever there is a build of it."""
    try:
        return importlib.import_module("isal.isal_zlib")
    except ImportError:
        return zlib


def _zlib(data: bytes, size: int) -> bytes:
    library = _inflation()
    inflater = library.decompressobj()
    try:
        # one byte more than promised is enough to know that the promise is wrong
        content = bytes(inflater.decompress(data, max(size, 0) + 1))
        if not inflater.eof:
            # the checksum stands behind the last byte
            content += inflater.decompress(inflater.unconsumed_tail, 1)
    except library.error as error:
        raise ValueError(str(error)) from error
    if not inflater.eof:
        raise ValueError("it ends too early or is longer than told")
    return content


def _lzma(data: bytes, size: int) -> bytes:
    return lzma.LZMADecompressor().decompress(data, max(size, 0) + 1)


def _bzip2(data: bytes, size: int) -> bytes:
    return bz2.BZ2Decompressor().decompress(data, max(size, 0) + 1)


def _lz4(data: bytes, size: int) -> bytes:
    block = importlib.import_module("lz4.block")
    return bytes(block.decompress(data, uncompressed_size=size))


def _zstd(data: bytes, size: int) -> bytes:
    zstandard = importlib.import_module("zstandard")
    try:
        return bytes(zstandard.ZstdDecompressor().decompress(data, max_output_size=max(size, 1)))
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error


#: packings by the number of their field in Blob
_UNPACK: dict[int, tuple[str, Callable[[bytes, int], bytes]]] = {
    3: ("zlib", _zlib),
    4: ("lzma", _lzma),
    5: ("bzip2", _bzip2),
    6: ("lz4", _lz4),
    7: ("zstd", _zstd),
}


# ---- rounds ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Keys:
    """The keys that matter, as the kernels look them up."""

    names: tuple[str, ...]
    arrays: tuple[Ints, Ints, Ints, Ints]

    def wanted(self, names: Sequence[str]) -> npt.NDArray[np.bool_]:
        return np.isin(np.array(self.names), list(names))


@dataclass(frozen=True, eq=False)
class _Texts:
    """Where the texts of a block lie, their codes among the keys, and hashes known so far."""

    at: Ints
    to: Ints
    code: Ints
    known: Ints

    @property
    def arrays(self) -> tuple[Ints, Ints, Ints, Ints]:
        return self.at, self.to, self.code, self.known


def _texts(block: _Block, keys: _Keys) -> _Texts:
    at, to, code = _kernels().find_keys(block.buffer, *block.texts, *keys.arrays)
    return _Texts(at, to, code, np.zeros(at.size, np.uint64))


def _kernels() -> Any:
    return importlib.import_module("qala._pbf_kernels")


def _keys(names: Sequence[str]) -> _Keys:
    fnv = importlib.import_module("qala._routing").fnv
    hashes = np.array([fnv(name) for name in names], np.uint64)
    order = np.argsort(hashes)
    encoded = [name.encode() for name in names]
    ptr = np.concatenate(([0], np.cumsum([len(t) for t in encoded]))).astype(np.int64)
    text = np.frombuffer(b"".join(encoded), np.uint8)
    return _Keys(tuple(names), (hashes[order], order.astype(np.int32), ptr, text))


class _Combinations:
    """Numbers the combinations of tags of all blocks; fed by threads."""

    def __init__(self, keys: _Keys) -> None:
        self.keys = keys
        self.by_hash: dict[int, dict[str, str]] = {}

    def note(self, block: _Block, hashes: Ints, ranges: Ints, texts: _Texts) -> tuple[Ints, Ints]:
        """Return the distinct hashes and their number per object; read the tags of new ones."""
        distinct, first, number = np.unique(hashes, return_index=True, return_inverse=True)
        content: bytes | None = None
        for value, row in zip(distinct.tolist(), first.tolist(), strict=True):
            if value not in self.by_hash:
                content = block.buffer.tobytes() if content is None else content
                at = ranges[4 * row : 4 * row + 4].tolist()
                # equal hashes tell equal tags, so it does not matter which thread comes first
                self.by_hash[value] = self._tags(content, at, texts)
        return distinct, number

    def _tags(self, content: bytes, at: list[int], texts: _Texts) -> dict[str, str]:
        k, k_end, v, v_end = at
        found = {}
        while k < k_end:
            key, k = _varint(content, k)
            if v_end > v:
                value, v = _varint(content, v)
            else:
                # keys and values of dense nodes take turns
                value, k = _varint(content, k)
            code = int(texts.code[key])
            if code >= 0:
                text = content[texts.at[value] : texts.to[value]]
                found[self.keys.names[code]] = text.decode("utf-8", "replace")
        return found

    def number(self, parts: Sequence[tuple[Ints, Ints]]) -> tuple[Ints, list[dict[str, str]]]:
        """Number (hashes, number per object) of all blocks through, in the order of the file."""
        numbers: dict[int, int] = {}
        joined = []
        for distinct, number in parts:
            table = [numbers.setdefault(value, len(numbers)) for value in distinct.tolist()]
            joined.append(np.array(table, np.int32)[number])
        return _joined(joined, np.int32), [self.by_hash[value] for value in numbers]


def _joined(parts: Sequence[Ints], dtype: Any) -> Ints:
    return np.concatenate(parts) if parts else np.empty(0, dtype)


def first_ways(file: PbfFile) -> int:
    """Return the place of the first blob with ways or relations, were the file sorted."""

    def only_nodes(blob: Blob) -> bool:
        try:
            block = _block(file.inflate(blob))
        except ValueError as error:
            raise file.damaged(blob, str(error)) from error
        return all(kind in (NODES, DENSE) for kind, _, _ in block.groups)

    low, high = 0, len(file.blobs)
    while low < high:
        middle = (low + high) // 2
        if only_nodes(file.blobs[middle]):
            low = middle + 1
        else:
            high = middle
    return low


def read_ways(
    file: PbfFile,
    blobs: Sequence[Blob],
    keys: Sequence[str],
    wanted: Sequence[str],
    told: Callable[[int], None],
) -> tuple[Ways, list[Blob]]:
    """Read the ways that carry one of the wanted keys.

    Parameters
    ----------
    file
        The file.
    blobs
        Those of it to read.
    keys
        Keys whose values are kept.
    wanted
        Those of the keys that make a way worth keeping.
    told
        Called with the number of blobs done.

    Returns
    -------
    tuple
        The ways, and the blobs met that hold nodes.

    Raises
    ------
    InputError
        When a blob is damaged.
    """
    kernels, table = _kernels(), _keys(keys)
    names = _Combinations(table)
    mask = table.wanted(wanted)

    def work(block: _Block) -> Any:
        found = []
        texts: _Texts | None = None
        for kind, a, b in block.groups:
            if kind == WAYS:
                texts = _texts(block, table) if texts is None else texts
                ptr, hashes, ranges, *vertices = kernels.read_ways(
                    block.buffer, a, b, *texts.arrays, mask, *block.scale
                )
                distinct, number = names.note(block, hashes, ranges, texts)
                found.append((distinct, number, np.diff(ptr), *vertices))
        return block.holds(NODES, DENSE), found

    results = list(file.each(blobs, work, told))
    held = [blob for blob, (nodes, _) in zip(blobs, results, strict=True) if nodes]
    parts = [part for _, found in results for part in found]
    profile, tags = names.number([part[:2] for part in parts])
    ptr = np.zeros(profile.size + 1, np.int64)
    np.cumsum(_joined([part[2] for part in parts], np.int64), out=ptr[1:])
    refs, lon, lat = (
        _joined([part[i] for part in parts], kind)
        for i, kind in ((3, np.int64), (4, np.int32), (5, np.int32))
    )
    return Ways(ptr, profile, refs, lon, lat, tags), held


def place_nodes(
    file: PbfFile,
    blobs: Sequence[Blob],
    ids: Ints,
    keys: Sequence[str],
    wanted: Sequence[str],
    told: Callable[[int], None],
) -> tuple[Nodes, bool]:
    """Look up the places of nodes, and read the nodes that carry one of the wanted keys.

    Parameters
    ----------
    file, blobs, keys, wanted, told
        As in :func:`read_ways`.
    ids
        Sorted distinct ids.

    Returns
    -------
    tuple
        The nodes, and whether ways were met among them.

    Raises
    ------
    InputError
        When a blob is damaged.
    """
    kernels, table = _kernels(), _keys(keys)
    names = _Combinations(table)
    mask = table.wanted(wanted)
    lon = np.full(ids.size, kernels.NOWHERE, np.int32)
    lat = lon.copy()

    def work(block: _Block) -> Any:
        found = []
        texts: _Texts | None = None
        for kind, a, b in block.groups:
            if kind not in (NODES, DENSE):
                continue
            texts = _texts(block, table) if texts is None else texts
            if kind == NODES:
                tagged = kernels.plain_nodes(
                    block.buffer, a, b, *texts.arrays, mask, *block.scale, ids, lon, lat
                )
                found.append((*names.note(block, tagged[1], tagged[2], texts), tagged[0]))
                continue
            for fields in _dense(block, a, b):
                node = kernels.dense_nodes(
                    block.buffer, *fields[1], *fields[8], *fields[9], *block.scale, ids, lon, lat
                )
                # only a table of texts that has a wanted key needs a look at tags
                if fields[10][1] > fields[10][0] and mask[texts.code[texts.code >= 0]].any():
                    tagged = kernels.dense_tags(
                        block.buffer, *fields[10], node, *texts.arrays, mask
                    )
                    found.append((*names.note(block, tagged[1], tagged[2], texts), tagged[0]))
        return block.holds(WAYS), found

    results = list(file.each(blobs, work, told))
    parts = [part for _, found in results for part in found]
    profile, tags = names.number([part[:2] for part in parts])
    tagged = _joined([part[2] for part in parts], np.int64)
    return Nodes(lon, lat, tagged, profile, tags), any(ways for ways, _ in results)


def _dense(block: _Block, start: int, end: int) -> Iterator[dict[int, tuple[int, int]]]:
    """Yield the ranges of ids (1), tags (10) and places (8, 9) of the dense nodes of a group."""
    content = block.buffer.data
    for number, kind, a, b in _ranges(content, start, end):
        if number != DENSE or kind != 2:
            raise ValueError("a group of nodes holds something else")
        fields = dict.fromkeys((1, 8, 9, 10), (0, 0))
        for part, form, p, q in _ranges(content, a, b):
            if part in fields:
                if form != 2:
                    raise ValueError("numbers that belong together are not packed")
                fields[part] = p, q
        yield fields
