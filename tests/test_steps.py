"""Steps of a run: taken over while nothing changed, made anew with the reason said."""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from qala import compute
from qala.errors import InputError
from qala.provenance import Recorder
from qala.steps import STORE, Planned, Step, Steps, put

log = logging.getLogger("qala")


def letters(folder: Path, before: Mapping[str, Path], *, text: str) -> dict[str, Any]:
    if text == "bad":
        raise InputError("bad text", "a good one")
    if text == "odd":
        log.warning("an odd text")
    (folder / "text.txt").write_text(text)
    return {"letters": len(text)}


def upper(folder: Path, before: Mapping[str, Path], **_: Any) -> dict[str, Any]:
    for name, place in before.items():
        (folder / f"{name}.txt").write_text((place / "text.txt").read_text().upper())
    return {}


def letters_later(
    folder: Path, before: Mapping[str, Path], *, text: str, until: str | None = None
) -> dict[str, Any]:
    end = time.monotonic() + (1 if until is None else 60)
    while time.monotonic() < end and not (until and Path(until).exists()):
        time.sleep(0.05)
    return letters(folder, before, text=text)


def killed_once(folder: Path, before: Mapping[str, Path], *, mark: str) -> dict[str, Any]:
    if not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / "text.txt").write_text("alive")
    return {}


def steps_of(a: str = "x", b: str = "y") -> list[Step]:
    return [
        Step("a", letters, {"a.csv": a}, {"text": a}),
        Step("b", letters, {"b.csv": b}, {"text": b}),
        Step("up", upper, {}, {}, ("a", "b")),
        Step("only b", upper, {"colour": "red"}, {}, ("b",)),
    ]


def run(folder: Path, steps: list[Step], **options: Any) -> tuple[Steps, dict[str, bool]]:
    recorder = Recorder({}, [])
    found = Steps(folder, recorder, **options)
    found.run(steps)
    assert {s["step"] for s in recorder.steps} == set(found.done)
    return found, {name: done.reused for name, done in found.done.items()}


def test_only_what_changed_is_made_and_the_reason_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "propagate", True)
    caplog.set_level(logging.INFO, "qala")
    assert not any(run(tmp_path, steps_of())[1].values())
    assert all(run(tmp_path, steps_of())[1].values())
    assert "up: as before" in caplog.text
    caplog.clear()
    _, reused = run(tmp_path, steps_of(a="new"))
    assert reused == {"a": False, "b": True, "up": False, "only b": True}
    assert "a …, because a.csv changed" in caplog.text
    assert "up …, because the result of 'a' changed" in caplog.text
    assert (tmp_path / STORE / "up" / "a.txt").read_text() == "NEW"


def test_a_step_that_gives_the_same_spares_those_behind_it(tmp_path: Path) -> None:
    run(tmp_path, steps_of())
    again = steps_of()
    again[0] = Step("a", letters, {"a.csv": "touched"}, {"text": "x"})
    assert run(tmp_path, again)[1] == {"a": False, "b": True, "up": True, "only b": True}


def test_files_that_were_touched_or_lost_are_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "propagate", True)
    caplog.set_level(logging.INFO, "qala")
    run(tmp_path, steps_of())
    (tmp_path / STORE / "a" / "text.txt").write_text("edited")
    (tmp_path / STORE / "only-b" / "b.txt").unlink()
    (tmp_path / STORE / "b" / "step.json").write_text("{}")
    assert run(tmp_path, steps_of())[1] == {"a": False, "b": False, "up": True, "only b": False}
    assert "its text.txt is not the file that was written" in caplog.text
    assert "its b.txt is missing" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        {"parts": []}, {"files": 5}, {"notes": None}, {"seconds": "x"}, {"warnings": 5},
        {"files": {"../../victim": "0"}}, {"files": {"/etc/passwd": "0"}},
    ],
)  # fmt: skip
def test_notes_that_cannot_be_trusted_are_none(tmp_path: Path, change: dict[str, Any]) -> None:
    run(tmp_path, steps_of())
    note = tmp_path / STORE / "a" / "step.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | change))
    assert run(tmp_path, steps_of())[1] == {"a": False, "b": True, "up": True, "only b": True}


def test_another_code_makes_everything_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, steps_of())
    monkeypatch.setattr("qala.steps.code_hash", lambda: "another")
    assert not any(run(tmp_path, steps_of())[1].values())
    assert not any(run(tmp_path, steps_of(), force=True)[1].values())


def test_warnings_and_notes_are_told_again(tmp_path: Path) -> None:
    for _ in range(2):
        recorder = Recorder({}, [])
        with recorder.listening():
            Steps(tmp_path, recorder).run([Step("a", letters, {}, {"text": "odd"})])
        assert recorder.warnings == ["an odd text"]
        assert recorder.steps[0]["letters"] == 3
    assert recorder.steps[0]["reused"] is True


def test_a_failure_leaves_whole_steps_alone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="bad text"):
        run(tmp_path, steps_of(b="bad"))
    assert [p.name for p in (tmp_path / STORE).iterdir()] == ["a"]
    found, reused = run(tmp_path, steps_of(b="bad"), partial=True)
    assert reused == {"a": True}
    assert set(found.failed) == {"b", "up", "only b"}
    assert run(tmp_path, steps_of())[1]["a"]


def test_the_store_keeps_what_the_last_run_had(tmp_path: Path) -> None:
    found, _ = run(tmp_path, steps_of())
    (tmp_path / STORE / ".work-a-1-dead").mkdir()
    found.tidy()
    assert len(list((tmp_path / STORE).iterdir())) == 4
    found.tidy(keep={"a", "only b"})
    assert sorted(p.name for p in (tmp_path / STORE).iterdir()) == ["a", "only-b"]
    found.tidy(keep=set())
    assert not (tmp_path / STORE).exists()


def test_a_plan_tells_what_a_run_would_do(tmp_path: Path) -> None:
    def told(steps: list[Step]) -> dict[str, str]:
        plan = Planned(tmp_path)
        plan.run(steps)
        return dict(plan.told)

    assert set(told(steps_of()).values()) == {"new"}
    assert not list(tmp_path.iterdir())
    run(tmp_path, steps_of())
    assert set(told(steps_of()).values()) == {"as before"}
    assert told(steps_of(a="new")) == {
        "a": "a.csv changed", "b": "as before", "up": "hangs on the result of 'a'",
        "only b": "as before",
    }  # fmt: skip


def test_secrets_of_parameters_are_not_kept(tmp_path: Path) -> None:
    run(tmp_path, [Step("a", letters, {"sources": "https://ann:geheim@host"}, {"text": "x"})])
    assert "geheim" not in json.dumps([p.read_text() for p in tmp_path.rglob("*.json")])


def test_databases_are_copied_and_other_files_linked(tmp_path: Path) -> None:
    for name, linked in (("a.gpkg", False), ("a.tif", True)):
        (tmp_path / name).write_bytes(b"1")
        put(tmp_path / name, tmp_path / f"other-{name}")
        same = (tmp_path / name).stat().st_ino == (tmp_path / f"other-{name}").stat().st_ino
        assert same is linked


def test_worker_processes_make_steps_at_once_and_a_dead_one_is_replaced(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    mark = Step("killed", killed_once, {}, {"mark": str(tmp_path / "mark")})
    with compute.running(2, processes=True):
        recorder = Recorder({}, [])
        (tmp_path / "out").mkdir()
        found = Steps(tmp_path / "out", recorder, progress=lambda *n: told.append(n))
        with recorder.listening():
            found.run([*steps_of(a="odd"), mark])
        slow = Step("slow", letters_later, {}, {"text": "slow"})
        with pytest.raises(InputError, match="bad text"):
            Steps(tmp_path / "out", Recorder({}, [])).run([slow, *steps_of(b="bad", a="new")])
        # what ran beside the step that failed is whole and kept; nothing was begun after it
        store = tmp_path / "out" / STORE
        assert (store / "slow" / "step.json").is_file()
        assert (store / "up" / "a.txt").read_text() == "ODD"
        assert not [p for p in store.glob(".work-*") if "killed" not in p.name]
        last = str(store / "s5" / "step.json")
        slow = Step("slow", letters_later, {}, {"text": "slow", "until": last})
        longest = [slow, *(Step(f"s{n}", letters, {}, {"text": str(n)}) for n in range(6))]
        alone = Recorder({}, [])
        Steps(tmp_path / "out", alone, force=True).run(longest)
    # the others did not queue behind the one named first
    assert [s["step"] for s in alone.steps][-1] == "slow"
    assert recorder.warnings == ["an odd text"]
    assert (tmp_path / "out" / STORE / "up" / "a.txt").read_text() == "ODD"
    assert (tmp_path / "out" / STORE / "killed" / "text.txt").read_text() == "alive"
    assert told[-1] == (5, 5)
    assert {s["step"] for s in recorder.steps} == {"a", "b", "up", "only b", "killed"}
    found.tidy()
    assert not list((tmp_path / "out" / STORE).glob(".work-*"))
