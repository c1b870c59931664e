"""Outputs appear together or not at all, whenever the process is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import qala as package
from qala import provenance
from qala.errors import InputError, TemporaryError
from qala.identity import write_json
from qala.inspection import inspect_file

SOURCE = Path(package.__file__).resolve().parents[1]
NAMES = ["a.txt", "maps/b.txt", "maps/c.txt", "tables/d.txt"]


def work(folder: Path, text: str, names: list[str] = NAMES) -> None:
    """Publish files of one content, as a run does."""
    with provenance.locked(folder), provenance.staged(folder) as stage:
        recorder = provenance.Recorder({"text": text}, [])
        files = []
        for name in names:
            (stage / name).parent.mkdir(parents=True, exist_ok=True)
            (stage / name).write_text(text)
            files.append(stage / name)
        before = provenance.read_record(folder) or {}
        record = recorder.record(files, stage)
        kept = {o["path"] for o in record["outputs"]}
        obsolete = [o["path"] for o in before.get("outputs", []) if o["path"] not in kept]
        files.append(write_json(stage / provenance.RECORD, record))
        provenance.publish(stage, folder, files, obsolete)


def contents(folder: Path) -> dict[str, str]:
    """Every file but the record, with its content; hidden ones too."""
    return {
        p.relative_to(folder).as_posix(): p.read_text()
        for p in folder.rglob("*")
        if p.is_file() and p.name != provenance.RECORD
    }


def test_a_new_result_replaces_the_old_one_and_what_it_no_longer_writes(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    work(folder, "old")
    (folder / "my notes.txt").write_text("mine")
    work(folder, "new", NAMES[:2])
    assert contents(folder) == {"a.txt": "new", "maps/b.txt": "new", "my notes.txt": "mine"}
    found = inspect_file(folder)
    assert found.sound
    assert ("outputs", "2") in found.facts


#: kills itself right before the n-th change of the file system
KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_provenance
from qala import provenance

folder, at = Path(sys.argv[2]), int(sys.argv[3])
count = 0

def deadly(function):
    def call(*arguments, **keywords):
        global count
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
        return function(*arguments, **keywords)
    return call

for name in ("replace", "unlink", "mkdir", "rmdir"):
    setattr(Path, name, deadly(getattr(Path, name)))
provenance.shutil.rmtree = deadly(provenance.shutil.rmtree)
test_provenance.work(folder, "new", test_provenance.NAMES[1:] + ["e.txt"])
"""


def test_killed_before_any_change_of_the_folder(tmp_path: Path) -> None:
    old = dict.fromkeys(NAMES, "old")
    new = dict.fromkeys([*NAMES[1:], "e.txt"], "new")
    seen = []
    for at in range(60):
        folder = tmp_path / f"out{at}"
        work(folder, "old")
        # one warm process a step: forked from this one, it has all it needs loaded
        pid = os.fork()
        if pid == 0:
            try:
                sys.argv = ["x", str(Path(__file__).parent), str(folder), str(at)]
                exec(KILLED, {"__name__": "killed"})
                os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(pid, 0)
        ended = os.WIFEXITED(status)
        assert ended or os.WTERMSIG(status) == signal.SIGKILL
        assert not ended or os.WEXITSTATUS(status) == 0
        # the check finishes what was begun
        assert inspect_file(folder).sound
        visible = {k: v for k, v in contents(folder).items() if not k.startswith(".")}
        assert visible in (old, new), f"mixed after {at} changes"
        seen.append(visible == new)
        # the next run leaves nothing of the dead one
        work(folder, "newer")
        assert contents(folder) == dict.fromkeys(NAMES, "newer")
        if ended:
            break
    assert ended, "the process was killed at every step and never finished"
    # first the old results, then the new ones, and both were met
    assert seen == sorted(seen)
    assert 2 < sum(seen) < len(seen)


def test_a_damaged_or_foreign_journal_moves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    work(folder, "old")
    secret = tmp_path / "secret.txt"
    secret.write_text("keep")
    journal = folder / ".qala-publish.json"
    for plan in (
        {"stage": "../", "moves": [], "obsolete": []},
        {"stage": ".qala-staging-1", "moves": [], "obsolete": ["../secret.txt"]},
        {"stage": ".qala-staging-1", "moves": ["/etc/passwd"], "obsolete": []},
        {"stage": ".qala-staging-1/../..", "moves": ["secret.txt"], "obsolete": []},
        {"moves": []},
        [],
    ):
        journal.write_text(json.dumps(plan))
        with pytest.raises(InputError, match="journal"):
            provenance.recover(folder)
        assert not inspect_file(folder).sound
    journal.write_text("{")
    with pytest.raises(InputError, match="damaged"):
        provenance.recover(folder)
    assert secret.read_text() == "keep"
    journal.unlink()
    assert inspect_file(folder).sound


def test_files_that_changed_afterwards_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    work(folder, "old")
    key = (provenance.read_record(folder) or {})["key"]
    assert provenance.unchanged(folder, key)
    (folder / "a.txt").write_text("odl")
    (folder / "maps/b.txt").unlink()
    assert not provenance.unchanged(folder, key)
    found = inspect_file(folder)
    assert not found.sound
    assert any("a.txt is not the file" in p for p in found.problems)
    assert any("maps/b.txt is missing" in p for p in found.problems)
    reasons = provenance.why_changed(folder, provenance.Recorder({"text": "old"}, []))
    assert any("a.txt" in r for r in reasons)
    assert any("maps/b.txt is missing" in r for r in reasons)


def test_what_changed_is_named(tmp_path: Path) -> None:
    inputs = [tmp_path / n for n in ("p.tif", "u.shp", "u.dbf")]
    for path in inputs:
        path.write_text("x")
    folder = tmp_path / "out"
    folder.mkdir()
    recorder = provenance.Recorder({"chunk": 1, "speed": 2}, inputs[:2])
    assert [Path(i["path"]).name for i in recorder.inputs] == ["p.tif", "u.shp", "u.dbf"]
    write_json(folder / provenance.RECORD, recorder.record([], folder))
    assert provenance.why_changed(folder, recorder) == []
    # the table of a Shapefile counts as much as its shapes
    inputs[2].write_text("y")
    (tmp_path / "new.csv").write_text("z")
    again = provenance.Recorder({"chunk": 1, "speed": 3}, [inputs[1], tmp_path / "new.csv"])
    assert again.key != recorder.key
    assert provenance.why_changed(folder, again) == [
        "u.dbf changed", "new.csv is new", "p.tif is no longer used", "speed changed",
    ]  # fmt: skip


def test_a_folder_is_held_by_one_run(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with (
        provenance.locked(folder),
        pytest.raises(TemporaryError, match="another run"),
        provenance.locked(folder),
    ):
        pass
    # nothing was made, so nothing stays
    assert not folder.exists()
    with provenance.locked(folder):
        (folder / "x").write_text("")
    assert [p.name for p in folder.iterdir()] == ["x"]


def test_waiting_for_the_run_before(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from qala import provenance
        with provenance.locked(Path(sys.argv[1]), wait=True):
            with (Path(sys.argv[1]) / "log").open("a") as log:
                log.write(sys.argv[2]); log.flush()
                log.write(sys.argv[2])
        """
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    with provenance.locked(folder):
        waiting = [
            subprocess.Popen([sys.executable, "-c", script, str(folder), name], env=environment)
            for name in "abc"
        ]
        time.sleep(0.2)
        assert not (folder / "log").exists()
    for process in waiting:
        assert process.wait(60) == 0
    text = (folder / "log").read_text()
    assert sorted(text[i : i + 2] for i in (0, 2, 4)) == ["aa", "bb", "cc"]
    assert [p.name for p in folder.iterdir()] == ["log"]


def test_records_that_cannot_be_read_are_no_records(tmp_path: Path) -> None:
    outside = {"path": "../../victim", "sha256": "", "bytes": 0}
    for text in (
        "", "{", "[]", '{"tool": "other"}', '{"tool": "qala", "outputs": 5}',
        '{"tool": "qala", "inputs": [{}]}', '{"tool": "qala", "steps": [{}]}',
        '{"tool": "qala", "parameters": []}', json.dumps({"tool": "qala", "outputs": [outside]}),
    ):  # fmt: skip
        (tmp_path / provenance.RECORD).write_text(text)
        assert provenance.read_record(tmp_path) is None
        assert not provenance.unchanged(tmp_path, "x")
        assert not inspect_file(tmp_path).sound
