"""The scheduling examples: units that systemd accepts, scripts that do what they say."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from qala.resources import resource

FOLDER = resource("workflows", "schedule")


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    fake = script(tmp_path / "fake", "exit 0")
    for file in FOLDER.glob("*.service"):
        text = file.read_text().replace("/usr/local/bin/qala", str(fake))
        text = text.replace("/usr/local/lib/qala/qala-notify", str(fake))
        (tmp_path / file.name).write_text(text)
    shutil.copy(FOLDER / "qala@.timer", tmp_path)
    units = ["qala@demo.service", "qala@demo.timer", "qala-failed@demo.service"]
    for unit in units:
        template = unit.replace("@demo", "@")
        shutil.copy(tmp_path / template, tmp_path / unit)
    done = subprocess.run(
        [analyze, "verify", "--man=no", *(str(tmp_path / u) for u in units)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    told = [line for line in done.stderr.splitlines() if str(tmp_path) in line or "qala" in line]
    assert done.returncode == 0, done.stderr
    assert not told


def test_unit_tries_again_on_exit_code_3_alone() -> None:
    text = (FOLDER / "qala@.service").read_text()
    assert "Restart=on-failure\n" in text
    assert "RestartPreventExitStatus=1 2 4\n" in text


def run_cron(
    tmp_path: Path, codes: list[int], page: str = "demo", **environ: str
) -> tuple[int, str, int]:
    """Run qala-cron with a command that ends with the codes in turn; return how often, too."""
    (tmp_path / "codes").write_text("\n".join(map(str, codes)) + "\n")
    (tmp_path / "calls").write_text("")
    fake = script(
        tmp_path / "qala",
        f'echo "$@" >> {tmp_path}/calls; echo a line of log\n'
        f"code=$(head -n 1 {tmp_path}/codes); sed -i 1d {tmp_path}/codes; exit $code",
    )
    own = {"QALA": str(fake), "QALA_PAUSE": "0", "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [str(FOLDER / "qala-cron"), page, "--out", "x y"],
        capture_output=True, text=True, check=False, env={**os.environ, **own, **environ},
    )  # fmt: skip
    calls = (tmp_path / "calls").read_text().splitlines()
    assert set(calls) == {f"run {page} --wait --out x y"}
    assert not list(tmp_path.glob("qala.*"))
    return done.returncode, done.stdout + done.stderr, len(calls)


def test_cron_is_silent_when_all_is_well(tmp_path: Path) -> None:
    assert run_cron(tmp_path, [0]) == (0, "", 1)


def test_cron_takes_a_page_by_its_path(tmp_path: Path) -> None:
    assert run_cron(tmp_path, [0], page=f"{tmp_path}/mine.yaml") == (0, "", 1)


def test_cron_tries_again_on_exit_code_3(tmp_path: Path) -> None:
    assert run_cron(tmp_path, [3, 3, 0]) == (0, "", 3)


@pytest.mark.parametrize("code", [1, 2, 4])
def test_cron_tells_of_a_failure_at_once(tmp_path: Path, code: int) -> None:
    ended, told, calls = run_cron(tmp_path, [code])
    assert (ended, calls) == (code, 1)
    assert f"exit code {code}" in told
    assert "a line of log" in told


def test_cron_gives_up_in_the_end(tmp_path: Path) -> None:
    ended, told, calls = run_cron(tmp_path, [3] * 9, QALA_TRIES="2")
    assert (ended, calls) == (3, 2)
    assert "exit code 3" in told


def test_crontab_has_five_fields_and_a_command() -> None:
    lines = (FOLDER / "crontab.example").read_text().splitlines()
    jobs = [line.split(maxsplit=5) for line in lines if line and line[0] in "0123456789*"]
    assert len(jobs) == 2
    for *when, command in jobs:
        assert len(when) == 5
        assert all(set(field) <= set("0123456789*/,-") for field in when)
        assert command.startswith("/usr/local/lib/qala/qala-cron ")


def test_failure_goes_to_a_webhook_that_is_not_printed(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    got: list[bytes] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    text = tmp_path / "log"
    text.write_text('it said "no" \\ and more\n')
    done = subprocess.run(
        [str(FOLDER / "qala-notify"), "demo", str(text)],
        capture_output=True, text=True, check=False,
        env={**os.environ, "QALA_WEBHOOK": f"http://127.0.0.1:{server.server_port}/s3cr3t",
             "no_proxy": "*"},
    )  # fmt: skip
    server.shutdown()
    server.server_close()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert json.loads(got[0])["text"].startswith('qala run demo failed\nit said "no" \\ and')
