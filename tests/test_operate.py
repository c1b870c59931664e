"""The operators' commands end to end, and disks that are full or read-only."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from qala import fetch as fetching
from qala.catalog import Asset
from qala.config import load_workflow
from qala.errors import InputError, TemporaryError
from qala.fetch import Options, fetch, place_of, resolve_sources
from qala.resources import resource

SAMPLE = "GHS_POP_E2023_SYNTHETIC_54009_1000.tif"
BOX = [64.0, 40.0, 72.0, 46.0]


def qala(*arguments: Any, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "qala.cli", *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=300, env={**os.environ, **environ},
    )  # fmt: skip


def own_catalog(folder: Path, href: str, **asset: Any) -> Path:
    """Write a catalog of one item that serves the sample's population of 2023."""
    folder.mkdir(exist_ok=True)
    west, south, east, north = BOX
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    item = {
        "type": "Feature", "stac_version": "1.1.0", "id": "sample-pop-2023", "bbox": BOX,
        "geometry": {"type": "Polygon", "coordinates": [ring]}, "links": [],
        "properties": {
            "datetime": "2023-01-01T00:00:00Z", "qala:product": "sample-pop", "qala:epoch": 2023,
            "qala:resolution": 1000, "version": "1", "license": "CC0-1.0",
            "sci:citation": "SYNTHETIC sample of qala", "proj:code": "ESRI:54009",
        },
        "assets": {"data": {"href": href, "roles": ["data"], **asset}},
    }  # fmt: skip
    (folder / "item.json").write_text(json.dumps(item))
    return folder


NUMBERS = ["--set", "outputs.figures=false", "--set", "outputs.report=false"]
SECRET = "http://ann:geheim@127.0.0.1:9/a.tif?token=s3cr3t"


@pytest.fixture(scope="module")
def plain(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run whose parameters hold a secret, and what it said."""
    folder = tmp_path_factory.mktemp("plain")
    done = qala("run", "smoke", "--out", folder, "--set", f'sources=["{SECRET}"]', *NUMBERS)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_catalog_commands() -> None:
    listed = qala("catalog", "list")
    assert listed.returncode == 0, listed.stderr
    assert "ghs-pop-r2023a" in listed.stdout
    shown = qala("catalog", "show", "ghs-land-r2022a")
    assert "doi:10.2905/AB7AD451" in shown.stdout
    found = qala("catalog", "search", "--bbox", "66,40,71,46", "--epoch", "2020", "--json")
    rows = json.loads(found.stdout)
    assert {"item": "GHS_SMOD_E2020_GLOBE_R2023A_54009_1000", "product": "smod", "epoch": "2020",
            "metres": "1000", "unit": "class", "files": "3"} in rows  # fmt: skip
    assert qala("catalog", "check").returncode == 0
    for wrong in (["show", "x"], ["search", "--bbox", "1,2"], ["check", "/nowhere"]):
        done = qala("catalog", *wrong)
        assert done.returncode == 2
        assert "error:" in done.stderr
        assert "Traceback" not in done.stderr


def test_fetch_command_offline_names_files(tmp_path: Path) -> None:
    call = ["fetch", "pop", "--epoch", 2020, "--resolution", 1000, "--bbox", "67,43,68,44"]
    done = qala(*call, "--offline", QALA_CACHE=str(tmp_path))
    assert done.returncode == 2
    name = "GHS_POP_E2020_GLOBE_R2023A_54009_1000_V1_0_R4_C24.zip"
    assert f"{tmp_path}/ghs-pop-r2023a/R2023A_V1-0/{name}" in done.stderr
    planned = qala(*call, "--dry-run", QALA_CACHE=str(tmp_path))
    assert (planned.returncode, "to fetch" in planned.stdout) == (0, True)
    assert not list(tmp_path.iterdir())
    many = qala("fetch", "pop", "--bbox", "67,43,68,44", "--offline", QALA_CACHE=str(tmp_path))
    assert many.returncode == 2
    assert "pass --epoch and --resolution" in many.stderr


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_run_fetches_what_its_workflow_names(
    tmp_path: Path, plain: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    shutil.make_archive(str(site / "pop"), "zip", resource("sample"), SAMPLE)
    with serving(site) as url:
        catalog = own_catalog(tmp_path / "mine", f"{url}/pop.zip", **{"qala:member": "*.tif"})
        call = [
            "run", "smoke", "--out", tmp_path / "out", "--catalog", catalog,
            "--set", "inputs.population.2023=catalog://sample-pop?epoch=2023",
            *NUMBERS,
        ]  # fmt: skip
        refused = qala(*call, QALA_CACHE=str(tmp_path / "cache"))
        assert refused.returncode == 2
        assert "--allow-local" in refused.stderr
        done = qala(*call, "--allow-local", QALA_CACHE=str(tmp_path / "cache"))
        assert done.returncode == 0, done.stderr
    again = qala(*call, "--offline", QALA_CACHE=str(tmp_path / "cache"))
    assert again.returncode == 0, again.stderr
    assert "Nothing changed" in again.stdout
    same = "tables/rates.csv"
    assert (tmp_path / "out" / same).read_bytes() == (plain[0] / same).read_bytes()
    told = qala("why", f"{tmp_path / 'out'}:rates")
    assert told.returncode == 0, told.stderr
    assert "SYNTHETIC sample of qala; CC0-1.0" in told.stdout
    assert "/pop.zip" in told.stdout
    compared = qala("diff", plain[0], tmp_path / "out", "--json")
    assert compared.returncode == 0, compared.stderr
    assert json.loads(compared.stdout)["rows"] == []


def test_outputs_are_the_next_run_s_catalog(
    plain: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder = plain[0]
    checked = qala("catalog", "check", folder)
    assert checked.returncode == 0, checked.stderr
    found = qala("fetch", "urbanisation", "--asset", "tables/rates.csv", "--catalog", folder)
    assert found.stdout.strip() == str(folder / "tables" / "rates.csv")


def test_addresses_of_a_workflow_are_resolved_by_its_box(tmp_path: Path) -> None:
    address = "catalog://pop?epoch=2020&resolution=1000"
    workflow = load_workflow("smoke", settings=[f"inputs.population.2023={address}"], environ={})
    with pytest.raises(InputError, match="R4_C24"):
        resolve_sources(workflow, cache=tmp_path, options=Options(offline=True))
    plain = load_workflow("smoke", environ={})
    assert resolve_sources(plain) is plain


def test_secrets_reach_neither_logs_nor_records(
    plain: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    lost = qala("run", "smoke", "--out", tmp_path, "--cluster", "tcp://ann:geheim@127.0.0.1:9")
    assert lost.returncode == 3
    folder, ran = plain
    files = [p for p in folder.rglob("*") if p.suffix in (".json", ".gpkg", ".csv")]
    written = [p.read_bytes().decode("utf-8", "replace") for p in files]
    assert len(written) > 4
    for text in (lost.stdout, lost.stderr, ran.stdout, ran.stderr, *written):
        assert "geheim" not in text
        assert "s3cr3t" not in text


# --- real small disks ------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk takes root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def big_asset(folder: Path) -> Asset:
    (folder / "big.bin").write_bytes(os.urandom(3_000_000))
    return Asset(
        item="a", key="data", url=(folder / "big.bin").as_uri(), filename="big.bin",
        collection="c", version="1",
    )  # fmt: skip


LOCAL = Options(allow_local=True, attempts=1)


def test_full_disk_is_seen_before(disk: Path, tmp_path: Path) -> None:
    with pytest.raises(TemporaryError, match="MB free"):
        fetch([big_asset(tmp_path)], cache=disk, options=LOCAL)


def test_disk_that_fills_up_meanwhile(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset = big_asset(tmp_path)
    monkeypatch.setattr(fetching, "_require_free", lambda folder, needed: None)
    with pytest.raises(TemporaryError, match="is full"):
        fetch([asset], cache=disk, options=LOCAL)
    assert not place_of(asset, disk).exists()
    # room was made: the same call goes through
    subprocess.run(["mount", "-o", "remount,size=9m", str(disk)], check=True)
    assert fetch([asset], cache=disk, options=LOCAL)[0].bytes == 3_000_000


def test_read_only_disk(disk: Path, tmp_path: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(InputError, match=r"cannot be written|not writable"):
        fetch([big_asset(tmp_path)], cache=disk, options=LOCAL)


def test_read_only_cache_gives_what_it_has(disk: Path, tmp_path: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=90m", str(disk)], check=True)
    content = (tmp_path / "x.tif", tmp_path / "y.tif")
    for file in content:
        file.write_bytes(os.urandom(1000))
    shutil.make_archive(str(tmp_path / "x"), "zip", tmp_path, "x.tif")
    assets = [
        Asset(item="a", key=n, url=(tmp_path / n).as_uri(), filename=n, collection="c", version="1",
              member="*.tif" if n == "x.zip" else None)
        for n in ("x.zip", "y.tif")
    ]  # fmt: skip
    fetch(assets, cache=disk, options=LOCAL)
    # a clock that was wrong: the file is looked at again, which cannot be noted
    os.utime(place_of(assets[1], disk), (2**32, 2**32))
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for options in (LOCAL, Options(offline=True)):
        got = fetch(assets, cache=disk, options=options)
        assert all(g.cached for g in got)
        assert [g.path.read_bytes() for g in got if g.path] == [f.read_bytes() for f in content]
    with pytest.raises(InputError, match=r"cannot be written|not writable"):
        fetch([big_asset(tmp_path)], cache=disk, options=LOCAL)
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    place_of(assets[1], disk).write_bytes(b"other")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(InputError, match="is not the file that was fetched, and its folder"):
        fetch(assets[1:], cache=disk, options=LOCAL)


def test_runs_on_disks_that_are_full_or_read_only(disk: Path) -> None:
    out = disk / "out"
    call = ["run", "smoke", "--out", out, *NUMBERS]

    def resize(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)

    # the steps go into it for a while, the GeoPackage does not
    resize("size=500k")
    full = qala(*call)
    assert full.returncode == 3, full.stderr
    assert "could not be written" in full.stderr
    assert not (out / "provenance.json").exists()
    left = [p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()]
    assert left
    assert all(n.startswith(".qala-steps/") and ".work-" not in n for n in left), left
    resize("size=40m")
    done = qala(*call)
    assert done.returncode == 0, done.stderr
    assert "read units: as before" in done.stderr
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    # a full disk and a read-only one leave the result that is there as it was
    (disk / "ballast").write_bytes(bytes(shutil.disk_usage(disk).free - 100_000))
    changed = [*call, "--set", "cells.ruleset=2024"]
    assert qala(*changed).returncode == 3
    (disk / "ballast").unlink()
    resize("ro")
    refused = qala(*changed)
    assert refused.returncode == 2
    assert "is not writable" in refused.stderr
    kept = {p: b for p, b in before.items() if ".qala-steps" not in p.parts}
    assert {p: p.read_bytes() for p in kept} == kept
