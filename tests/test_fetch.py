"""Fetching, against a local server that does what servers do on bad days."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import multiprocessing
import os
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from builders import qala, town, write_tif

from qala import fetch as fetching
from qala.catalog import Asset
from qala.errors import (
    EXIT_INPUT,
    EXIT_PARTIAL,
    EXIT_TEMPORARY,
    InputError,
    PartialError,
    TemporaryError,
)
from qala.fetch import Options, cache_folder, fetch, place_of, source_of, unpack
from qala.identity import has_secret, safe_url

DATA = bytes(range(256)) * 4000  # a megabyte that differs everywhere


@dataclass
class Site:
    """What the server serves, and what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    tricks: dict[str, list[Callable[[Any, bytes], bool]]] = field(default_factory=dict)
    url: str = ""

    def ranges(self, path: str) -> list[str | None]:
        return [h.get("Range") for p, h in self.asked if p == path]


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


@pytest.fixture
def site() -> Iterator[Site]:
    state = Site()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            pass

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            state.asked.append((path, dict(self.headers.items())))
            data = state.files.get(path, b"")
            queue = state.tricks.get(path)
            if queue and queue.pop(0)(self, data):
                return
            if path not in state.files:
                self.answer(404, b"no")
                return
            self.serve(data)

        def serve(self, data: bytes, upto: int | None = None) -> None:
            if self.headers.get("If-None-Match") == _etag(data):
                self.answer(304, b"")
                return
            start, code = 0, 200
            wanted = self.headers.get("Range", "")
            if wanted and self.headers.get("If-Range") in (None, _etag(data)):
                start, code = int(wanted.removeprefix("bytes=").rstrip("-")), 206
                if start >= len(data):
                    self.answer(416, b"")
                    return
            self.send_response(code)
            self.send_header("ETag", _etag(data))
            self.send_header("Content-Length", str(len(data) - start))
            if code == 206:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            self.wfile.write(data[start:upto])
            if upto is not None:
                self.close_connection = True

        def answer(self, code: int, body: bytes, **headers: str) -> None:
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    server.server_close()


QUICK = Options(allow_local=True, attempts=3, timeout=0.5, pause=0.01)


def asset_at(site: Site, path: str = "/a.bin", data: bytes = DATA, **more: Any) -> Asset:
    site.files.setdefault(path, data)
    given: dict[str, Any] = {
        "item": "a", "key": "data", "url": site.url + path, "filename": Path(path).name,
        "collection": "test", "version": "1", "licence": "CC0", "citation": "made up",
    }  # fmt: skip
    return Asset(**(given | more))


def breaks_at(count: int) -> Callable[[Any, bytes], bool]:
    def trick(handler: Any, data: bytes) -> bool:
        handler.serve(data, upto=count)
        return True

    return trick


def answers(code: int, **headers: str) -> Callable[[Any, bytes], bool]:
    def trick(handler: Any, data: bytes) -> bool:
        handler.answer(code, b"", **headers)
        return True

    return trick


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def test_file_comes_once(site: Site, tmp_path: Path) -> None:
    asset = asset_at(site, checksum=f"sha256:{sha(DATA)}", size=len(DATA))
    seen: list[tuple[int, int | None]] = []
    first = fetch(
        [asset], cache=tmp_path, options=replace(QUICK, progress=lambda *a: seen.append(a))
    )
    again = fetch([asset], cache=tmp_path, options=QUICK)
    assert first[0].path is not None
    assert first[0].path.read_bytes() == DATA
    assert (first[0].cached, again[0].cached) == (False, True)
    assert first[0].sha256 == again[0].sha256 == sha(DATA)
    assert len(site.asked) == 1
    assert seen[-1] == (len(DATA), len(DATA))
    known = source_of(first[0].path)
    assert known is not None
    assert (known["licence"], known["citation"], known["sha256"]) == ("CC0", "made up", sha(DATA))


def test_broken_transfer_goes_on_where_it_stopped(site: Site, tmp_path: Path) -> None:
    asset = asset_at(site)
    site.tricks["/a.bin"] = [breaks_at(300_000), breaks_at(700_000)]
    got = fetch([asset], cache=tmp_path, options=QUICK)
    assert got[0].sha256 == sha(DATA)
    starts = [int(r.removeprefix("bytes=").rstrip("-")) if r else 0 for r in site.ranges("/a.bin")]
    assert starts[0] == 0
    assert 0 < starts[1] <= 300_000 < starts[2] <= 700_000


def test_next_run_goes_on_too(site: Site, tmp_path: Path) -> None:
    asset = asset_at(site)
    site.tricks["/a.bin"] = [breaks_at(400_000), *[answers(503)] * 3]
    with pytest.raises(TemporaryError, match="503") as met:
        fetch([asset], cache=tmp_path, options=QUICK)
    assert met.value.exit_code == EXIT_TEMPORARY
    site.asked.clear()
    assert fetch([asset], cache=tmp_path, options=QUICK)[0].sha256 == sha(DATA)
    assert site.ranges("/a.bin")[0] not in (None, "bytes=0-")


def test_changed_file_is_not_mixed(site: Site, tmp_path: Path) -> None:
    asset = asset_at(site)
    other = bytes(reversed(DATA)) + b"longer"

    def then_changes(handler: Any, data: bytes) -> bool:
        handler.serve(data, upto=500_000)
        site.files["/a.bin"] = other
        return True

    site.tricks["/a.bin"] = [then_changes]
    got = fetch([asset], cache=tmp_path, options=QUICK)
    assert got[0].path is not None
    assert got[0].path.read_bytes() == other


def test_stalled_server_is_given_up_and_resumed(site: Site, tmp_path: Path) -> None:
    asset = asset_at(site)

    def stalls(handler: Any, data: bytes) -> bool:
        handler.send_response(200)
        handler.send_header("ETag", _etag(data))
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:100_000])
        handler.wfile.flush()
        time.sleep(1.5)
        handler.close_connection = True
        return True

    site.tricks["/a.bin"] = [stalls]
    begin = time.monotonic()
    assert fetch([asset], cache=tmp_path, options=QUICK)[0].sha256 == sha(DATA)
    assert time.monotonic() - begin < 20


@pytest.mark.parametrize("claimed", [len(DATA) + 5000, len(DATA) - 5000])
def test_server_that_lies_about_length(site: Site, tmp_path: Path, claimed: int) -> None:
    archive = zipped({"a.tif": DATA[:50_000], "b.txt": b"x" * 9000})
    asset = asset_at(site, "/a.zip", archive, member="*.tif")
    lie = len(archive) + (claimed - len(DATA)) // 50

    def lies(handler: Any, data: bytes) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", str(lie))
        handler.end_headers()
        handler.wfile.write(data)
        handler.close_connection = True
        return True

    site.tricks["/a.zip"] = [lies] * 60
    with pytest.raises((TemporaryError, InputError)):
        fetch([asset], cache=tmp_path, options=QUICK)
    assert not place_of(asset, tmp_path).exists()
    site.tricks.clear()
    got = fetch([asset], cache=tmp_path, options=QUICK)
    assert got[0].path is not None
    assert got[0].path.read_bytes() == DATA[:50_000]


@pytest.mark.parametrize("code", [429, 500, 502, 503])
def test_busy_server_is_asked_again(site: Site, tmp_path: Path, code: int) -> None:
    asset = asset_at(site)
    site.tricks["/a.bin"] = [answers(code, Retry_After="0"), answers(code)]
    assert fetch([asset], cache=tmp_path, options=QUICK)[0].sha256 == sha(DATA)
    assert len(site.asked) == 3


def test_retry_after_in_the_past_by_a_wrong_clock(site: Site, tmp_path: Path) -> None:
    asset = asset_at(site)
    site.tricks["/a.bin"] = [answers(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT")]
    assert fetch([asset], cache=tmp_path, options=QUICK)[0].sha256 == sha(DATA)


def test_dead_links_are_all_named_and_the_rest_comes(site: Site, tmp_path: Path) -> None:
    good = asset_at(site)
    dead = [replace(good, url=f"{site.url}/gone{n}.bin", filename=f"gone{n}.bin") for n in (1, 2)]
    with pytest.raises(PartialError) as met:
        fetch([dead[0], good, dead[1]], cache=tmp_path, options=QUICK)
    assert met.value.exit_code == EXIT_PARTIAL
    assert "1 of 3 files came" in str(met.value)
    assert "gone1.bin answers 404" in str(met.value)
    assert "gone2.bin answers 404" in str(met.value)
    assert place_of(good, tmp_path).read_bytes() == DATA
    assert len([p for p, _ in site.asked if p == "/gone1.bin"]) == 1
    with pytest.raises(InputError) as met:
        fetch(dead, cache=tmp_path, options=QUICK)
    assert not isinstance(met.value, PartialError)
    # what may come later is told first: the same call is worth another try
    site.tricks["/busy.bin"] = [answers(503)] * 9
    busy = replace(good, url=f"{site.url}/busy.bin", filename="busy.bin")
    with pytest.raises(TemporaryError, match="gone1"):
        fetch([dead[0], good, busy], cache=tmp_path, options=QUICK)


def test_mirror_serves_when_the_first_address_fails(site: Site, tmp_path: Path) -> None:
    asset = asset_at(site, "/mirror.bin")
    asset = replace(asset, url=f"{site.url}/first.bin", mirrors=(asset.url,), filename="a.bin")
    assert fetch([asset], cache=tmp_path, options=QUICK)[0].sha256 == sha(DATA)
    site.tricks["/first.bin"] = [answers(500)] * 3
    got = fetch([replace(asset, version="2")], cache=tmp_path, options=QUICK)
    assert got[0].sha256 == sha(DATA)


def test_wrong_hash_is_refused_and_a_right_mirror_taken(site: Site, tmp_path: Path) -> None:
    asset = asset_at(site, checksum=f"sha256:{sha(b'other')}")
    with pytest.raises(InputError, match="sha256"):
        fetch([asset], cache=tmp_path, options=QUICK)
    assert not place_of(asset, tmp_path).exists()
    site.files["/b.bin"] = b"other"
    right = replace(asset, mirrors=(f"{site.url}/b.bin",))
    assert fetch([right], cache=tmp_path, options=QUICK)[0].bytes == 5


def test_size_that_does_not_fit_is_refused_before_it_comes(site: Site, tmp_path: Path) -> None:
    asset = asset_at(site, size=123)
    with pytest.raises(InputError, match="123 as published"):
        fetch([asset], cache=tmp_path, options=QUICK)


def test_md5_beside_the_file(site: Site, tmp_path: Path) -> None:
    site.files["/a.bin.md5"] = f"{hashlib.md5(DATA).hexdigest()}  a.bin\n".encode()
    asset = asset_at(site, md5_href=f"{site.url}/a.bin.md5")
    assert fetch([asset], cache=tmp_path, options=QUICK)[0].sha256 == sha(DATA)
    site.files["/a.bin.md5"] = b"0" * 32 + b"  a.bin\n"
    with pytest.raises(InputError, match="md5"):
        fetch([replace(asset, version="2")], cache=tmp_path, options=QUICK)


def test_tile_without_land_is_no_error(site: Site, tmp_path: Path) -> None:
    asset = replace(asset_at(site), url=f"{site.url}/sea.tif", filename="sea.tif", sparse=True)
    assert fetch([asset], cache=tmp_path, options=QUICK)[0].path is None
    site.asked.clear()
    assert fetch([asset], cache=tmp_path, options=QUICK)[0].path is None
    offline = Options(offline=True)
    assert fetch([asset], cache=tmp_path, options=offline)[0].path is None
    assert not site.asked


def test_offline_names_what_to_bring_and_where_to(site: Site, tmp_path: Path) -> None:
    asset = asset_at(site)
    secret = replace(asset, url=asset.url.replace("http://", "http://ann:pw@") + "?token=abc")
    with pytest.raises(InputError) as met:
        fetch([secret], cache=tmp_path, options=Options(offline=True))
    text = str(met.value)
    assert "a.bin" in text
    assert str(place_of(asset, tmp_path).parent) in text
    assert "pw" not in text
    assert "abc" not in text
    place_of(asset, tmp_path).parent.mkdir(parents=True)
    place_of(asset, tmp_path).write_bytes(DATA)
    got = fetch([asset], cache=tmp_path, options=Options(offline=True))
    assert (got[0].cached, got[0].sha256) == (True, sha(DATA))
    assert not site.asked


def test_file_brought_by_hand_must_fit(site: Site, tmp_path: Path) -> None:
    asset = asset_at(site, checksum=f"sha256:{sha(DATA)}")
    place = place_of(asset, tmp_path)
    place.parent.mkdir(parents=True)
    place.write_bytes(b"half")
    with pytest.raises(InputError, match="brought by hand"):
        fetch([asset], cache=tmp_path, options=QUICK)


def test_damaged_file_of_the_cache_is_fetched_again(site: Site, tmp_path: Path) -> None:
    asset = asset_at(site, checksum=f"sha256:{sha(DATA)}")
    place = fetch([asset], cache=tmp_path, options=QUICK)[0].path
    assert place is not None
    place.write_bytes(DATA[:-1] + b"!")
    assert fetch([asset], cache=tmp_path, options=QUICK)[0].sha256 == sha(DATA)
    assert place.read_bytes() == DATA


def test_refresh_asks_and_keeps_what_is_the_same(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asset = asset_at(site)
    fetch([asset], cache=tmp_path, options=QUICK)
    anew = replace(QUICK, refresh=True)
    assert fetch([asset], cache=tmp_path, options=anew)[0].cached
    site.files["/a.bin"] = b"new"
    with caplog.at_level(logging.WARNING, "qala"):
        got = fetch([asset], cache=tmp_path, options=anew)
    assert (got[0].cached, got[0].bytes) == (False, 3)
    assert "changed at its source" in caplog.text


def test_local_addresses_only_when_allowed(site: Site, tmp_path: Path) -> None:
    asset = asset_at(site)
    plain = replace(QUICK, allow_local=False)
    port = site.url.rsplit(":", 1)[1]
    file = tmp_path / "b.bin"
    file.write_bytes(b"here")
    for url in (
        asset.url, f"http://localhost:{port}/a.bin", f"http://[::1]:{port}/a.bin",
        f"http://0x7f000001:{port}/a.bin", "http://169.254.169.254/latest", file.as_uri(),
        "ftp://example.org/a.bin",
    ):  # fmt: skip
        with pytest.raises(InputError):
            fetch([replace(asset, url=url)], cache=tmp_path / "c", options=plain)
    assert not site.asked
    got = fetch([replace(asset, url=file.as_uri())], cache=tmp_path / "c", options=QUICK)
    assert got[0].bytes == 4


def test_redirects_are_followed_a_few_times(site: Site, tmp_path: Path) -> None:
    asset = asset_at(site)
    moved = replace(asset, url=f"{site.url}/moved.bin")
    site.tricks["/moved.bin"] = [answers(302, Location="/a.bin")]
    assert fetch([moved], cache=tmp_path, options=QUICK)[0].sha256 == sha(DATA)
    site.tricks["/round.bin"] = [answers(302, Location="/round.bin")] * 9
    with pytest.raises(InputError, match="redirects"):
        fetch([replace(asset, url=f"{site.url}/round.bin", version="2")], cache=tmp_path,
              options=QUICK)  # fmt: skip


def test_secrets_are_never_logged(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asset = asset_at(site)
    url = asset.url.replace("http://", "http://ann:geheim@") + "?token=s3cr3t"
    site.tricks["/a.bin"] = [answers(500), breaks_at(1000), answers(403)]
    with caplog.at_level(logging.DEBUG, "qala"), pytest.raises(InputError) as met:
        fetch([replace(asset, url=url)], cache=tmp_path, options=QUICK)
    site.tricks.clear()
    with caplog.at_level(logging.DEBUG, "qala"):
        got = fetch([replace(asset, url=url)], cache=tmp_path, options=QUICK)
    written = "".join(
        p.read_text(errors="replace") for p in tmp_path.rglob("*.json") if p.is_file()
    )
    assert got[0].sha256 == sha(DATA)
    for text in (caplog.text, str(met.value), written):
        assert "geheim" not in text
        assert "s3cr3t" not in text
    assert has_secret(url)
    assert safe_url(url).endswith("/a.bin?…")


def test_zip_gives_its_member(site: Site, tmp_path: Path) -> None:
    archive = zipped({"docs/read.pdf": b"pdf", "GHS_X_V1_0_R4_C24.tif": b"raster"})
    asset = asset_at(site, "/x.zip", archive, member="GHS_X_V1_0*.tif")
    got = fetch([asset], cache=tmp_path, options=QUICK)[0]
    assert got.path is not None
    assert got.path.name == "GHS_X_V1_0_R4_C24.tif"
    assert got.path.read_bytes() == b"raster"
    known = source_of(got.path)
    assert known is not None
    assert known["sha256"] == sha(archive)
    # what was unpacked is the archive's, also after somebody wrote into it
    got.path.write_bytes(b"RASTER")
    again = fetch([asset], cache=tmp_path, options=replace(QUICK, offline=True))[0]
    assert again.path is not None
    assert again.path.read_bytes() == b"raster"


@pytest.mark.parametrize(
    "name", ["../out.tif", "a/../../out.tif", "/etc/out.tif", "..\\out.tif", "C:\\out.tif"]
)
def test_zip_slip_is_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / "cache" / "x.zip"
    file.parent.mkdir()
    file.write_bytes(zipped({"good.tif": b"1", name: b"2"}))
    with pytest.raises(InputError, match=r"climbs out|absolute"):
        unpack(file)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["cache", "x.zip"]


def test_zip_links_bombs_and_strangers_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("a.tif")
    link.external_attr = 0o120777 << 16
    file = tmp_path / "x.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="symbolic link"):
        unpack(file)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.tif", b"\0" * 60_000_000)
    with pytest.raises(InputError, match="swells"):
        unpack(file)
    file.write_bytes(zipped({"a.txt": b"1"}))
    with pytest.raises(InputError, match="a member like"):
        unpack(file)


def test_symbolic_links_out_of_the_cache_are_refused(site: Site, tmp_path: Path) -> None:
    asset = asset_at(site)
    outside = tmp_path / "outside"
    outside.mkdir()
    cache = tmp_path / "cache"
    (cache / "test").mkdir(parents=True)
    (cache / "test" / "1").symlink_to(outside)
    with pytest.raises(InputError, match="symbolic link"):
        fetch([asset], cache=cache, options=QUICK)
    (cache / "test" / "1").unlink()
    place_of(asset, cache).parent.mkdir()
    place_of(asset, cache).with_name(".a.bin.part").symlink_to(outside / "x")
    with pytest.raises(InputError):
        fetch([asset], cache=cache, options=QUICK)
    assert list(outside.iterdir()) == []


def test_hostile_names_stay_in_the_cache(tmp_path: Path) -> None:
    hostile = Asset(
        item="a", key="b", url="https://example.org/x", filename="../../etc/passwd",
        collection="../..", version="../x",
    )  # fmt: skip
    place = place_of(hostile, tmp_path)
    assert place.resolve().is_relative_to(tmp_path)
    assert ".." not in place.parts


def test_file_that_changed_in_the_cache_is_not_taken_for_the_fetched_one(
    site: Site, tmp_path: Path
) -> None:
    asset = asset_at(site)
    place = place_of(asset, tmp_path)
    fetch([asset], cache=tmp_path, options=QUICK)
    # a clock that was wrong changes no file
    os.utime(place, (2**32, 2**32))
    assert fetch([asset], cache=tmp_path, options=QUICK)[0].cached
    for content in (DATA[:-1] + b"x", DATA[:500], b""):
        place.write_bytes(content)
        with pytest.raises(InputError, match="is not the file that was fetched, and --offline"):
            fetch([asset], cache=tmp_path, options=replace(QUICK, offline=True))
        again = fetch([asset], cache=tmp_path, options=QUICK)[0]
        assert (again.cached, again.sha256) == (False, sha(DATA))
        assert place.read_bytes() == DATA
    # what somebody brought may be brought anew
    place.write_bytes(b"mine")
    place.with_name(f"{place.name}.source.json").unlink()
    for content in (b"mine", b"newer"):
        place.write_bytes(content)
        mine = fetch([asset], cache=tmp_path, options=replace(QUICK, offline=True))[0]
        assert (mine.cached, mine.sha256) == (True, sha(content))
        known = source_of(place)
        assert known is not None
        assert known["url"] == "brought by hand"


def test_disk_space_is_looked_at_first(site: Site, tmp_path: Path) -> None:
    asset = asset_at(site, size=10**18)
    with pytest.raises(TemporaryError, match="MB free"):
        fetch([asset], cache=tmp_path, options=QUICK)
    assert not site.asked


def test_stale_lock_is_harmless(site: Site, tmp_path: Path) -> None:
    asset = asset_at(site)
    place = place_of(asset, tmp_path)
    place.parent.mkdir(parents=True)
    place.with_name(f".{place.name}.lock").write_text("99999")
    assert fetch([asset], cache=tmp_path, options=QUICK)[0].sha256 == sha(DATA)


def _fetch_in_child(asset: Asset, cache: Path, queue: Any) -> None:
    queue.put(fetch([asset], cache=cache, options=replace(QUICK, timeout=10.0))[0].sha256)


def test_two_runs_share_one_transfer(site: Site, tmp_path: Path) -> None:
    asset = asset_at(site)

    def slowly(handler: Any, data: bytes) -> bool:
        time.sleep(1.0)
        handler.serve(data)
        return True

    site.tricks["/a.bin"] = [slowly]
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    children = [
        context.Process(target=_fetch_in_child, args=(asset, tmp_path, queue)) for _ in range(2)
    ]
    for child in children:
        child.start()
    hashes = [queue.get(timeout=60) for _ in children]
    for child in children:
        child.join(20)
    assert hashes == [sha(DATA)] * 2
    assert len(site.asked) == 1


def test_cache_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QALA_CACHE", str(tmp_path / "shared"))
    assert cache_folder() == tmp_path / "shared"
    monkeypatch.delenv("QALA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "qala"


def test_sidecar_is_json(site: Site, tmp_path: Path) -> None:
    got = fetch([asset_at(site)], cache=tmp_path, options=QUICK)[0]
    assert got.archive is not None
    side = got.archive.with_name(f"{got.archive.name}.source.json")
    assert json.loads(side.read_text())["url"] == f"{site.url}/a.bin"


@pytest.mark.parametrize(("trouble", "code"), [(404, EXIT_INPUT), (503, EXIT_TEMPORARY)])
def test_epochs_that_do_not_come_are_left_out_when_asked_for(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: int, code: int
) -> None:
    monkeypatch.setenv("QALA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetching, "Options", partial(Options, attempts=2, timeout=2.0, pause=0.01))
    out = tmp_path / "out"
    ring = [[-180, -90], [180, -90], [180, 90], [-180, 90], [-180, -90]]
    for epoch in (2015, 2020):
        raster = write_tif(tmp_path / f"P{epoch}.tif", town() * epoch / 2020)
        site.files[f"/P{epoch}.tif"] = raster.read_bytes()
        item = {
            "type": "Feature", "stac_version": "1.1.0", "id": f"people-{epoch}", "links": [],
            "bbox": [-180, -90, 180, 90], "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {
                "datetime": f"{epoch}-01-01T00:00:00Z", "qala:product": "people",
                "qala:epoch": epoch, "version": "1", "license": "CC0-1.0",
            },
            "assets": {"data": {"href": f"{site.url}/P{epoch}.tif?token=s3cr3t"}},
        }  # fmt: skip
        (tmp_path / str(epoch)).mkdir()
        (tmp_path / str(epoch) / "item.json").write_text(json.dumps(item))
    gone = site.files.pop("/P2015.tif")
    if trouble != 404:
        site.tricks["/P2015.tif"] = [answers(trouble)] * 8
    page = tmp_path / "w.yaml"
    page.write_text(
        "workflow: urbanisation\noutputs: {figures: false, sensitivity: false}\n"
        "inputs: {population: {2015: 'catalog://people?epoch=2015', "
        "2020: 'catalog://people?epoch=2020'}}\n"
    )
    own = ["--catalog", tmp_path / "2015", "--catalog", tmp_path / "2020", "--allow-local"]
    call = ["run", page, "--out", out, *own]
    refused = qala(*call)
    assert refused.code == code, refused
    assert f"P2015.tif?… {'answers' if trouble == 404 else 'failed'}" in refused.error
    assert not out.exists()

    part = qala(*call, "--partial")
    assert part.code == EXIT_PARTIAL, part
    assert "partial: without 2015" in part.out
    assert "MISSING 2015: " in part.err
    record = json.loads((out / "provenance.json").read_text())
    assert list(record["missing"]) == ["2015"]
    assert f"answers {trouble}" in record["missing"]["2015"]
    assert "s3cr3t" not in json.dumps(record) + refused.err + part.err + part.out
    assert qala("check", out).code == 0
    plain = page.with_name("plain.yaml")
    plain.write_text(page.read_text().replace("2015: 'catalog://people?epoch=2015', ", ""))
    whole = qala("run", plain, "--out", tmp_path / "plain", *own)
    assert whole.code == 0, whole.err
    made = sorted(p.relative_to(out) for k in ("tables", "rasters") for p in (out / k).iterdir())
    assert len(made) == 5
    for name in made:
        assert (out / name).read_bytes() == (tmp_path / "plain" / name).read_bytes(), name

    # it is there the next night
    site.files["/P2015.tif"] = gone
    site.tricks.clear()
    done = qala(*call, "--partial")
    assert done.code == 0, done.err
    assert "missing" not in json.loads((out / "provenance.json").read_text())
    assert (out / "rasters" / "degurba_l1_2015.tif").is_file()
    # and where none comes there is nothing to publish
    shutil.rmtree(tmp_path / "cache")
    site.files.clear()
    before = (out / "provenance.json").read_bytes()
    none = qala(*call, "--partial", "--force")
    assert none.code == EXIT_INPUT, none
    assert "no epoch could be fetched" in none.error
    assert (out / "provenance.json").read_bytes() == before
