"""Runs on a real Dask cluster of separate processes, on good days and bad."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from qala import compute, flows
from qala.config import Workflow, load_workflow
from qala.errors import EXIT_TEMPORARY, InputError, TemporaryError
from qala.identity import file_hash

SETTINGS = ["cells.chunk=8", "outputs.figures=false", "outputs.report=false"]


class Cluster:
    """A scheduler and its workers, each a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = ""
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, module: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{module}{len(self.processes)}.log").open("wb")
        process = subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{module}", *arguments],
            stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, "DASK_DISTRIBUTED__ADMIN__TICK__LIMIT": "30s", **environment},
        )  # fmt: skip
        self.processes.append(process)
        return process

    @property
    def scheduler(self) -> subprocess.Popen[bytes]:
        return self.processes[0]

    @property
    def workers(self) -> list[subprocess.Popen[bytes]]:
        return self.processes[1:]


@contextmanager
def cluster_of(
    folder: Path, workers: int, *arguments: str, **environment: str
) -> Iterator[Cluster]:
    from distributed import Client

    folder.mkdir(parents=True, exist_ok=True)
    found = Cluster(folder)
    where = folder / "scheduler.json"
    try:
        found.start(
            "dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
            "--scheduler-file", str(where), **environment,
        )  # fmt: skip
        for n in range(workers):
            found.start(
                "dask_worker", "--scheduler-file", str(where), "--nthreads", "1", "--no-nanny",
                "--no-dashboard", "--name", f"w{n}", "--host", "127.0.0.1",
                "--local-directory", str(folder / f"w{n}"), *arguments, **environment,
            )  # fmt: skip
        limit = time.monotonic() + 60
        while not where.exists():
            assert time.monotonic() < limit, (folder / "dask_scheduler0.log").read_text()
            time.sleep(0.05)
        with Client(scheduler_file=str(where)) as client:
            client.wait_for_workers(workers, timeout=90)
            found.address = client.scheduler.address
        yield found
    finally:
        for process in found.processes:
            process.kill()
        for process in found.processes:
            process.wait(20)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster_of(tmp_path_factory.mktemp("four"), 4) as found:
        yield found


@pytest.fixture(scope="module")
def workflow() -> Workflow:
    return load_workflow("smoke", settings=SETTINGS, environ={})


def tables(folder: Path) -> dict[str, str]:
    """Return the hashes of everything that has no time in it."""
    return {
        str(p.relative_to(folder)): file_hash(p)
        for p in sorted([*folder.glob("tables/*"), *folder.glob("rasters/*.tif")])
    }


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, workflow: Workflow) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("threads")
    with compute.running(2):
        flows.urbanisation(workflow, out=folder)
    found = tables(folder)
    assert len(found) >= 7
    return found


def test_four_processes_give_what_threads_give(
    four: Cluster, workflow: Workflow, plain: dict[str, str], tmp_path: Path
) -> None:
    with compute.running(cluster=four.address):
        result = flows.urbanisation(workflow, out=tmp_path)
    assert result.fresh
    assert tables(tmp_path) == plain


def test_command_on_a_cluster(four: Cluster, plain: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "qala.cli", "run", "smoke", "--out", str(tmp_path)]
    command += [f"--set={s}" for s in SETTINGS] + ["--cluster", four.address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert tables(tmp_path) == plain


def test_local_processes_give_what_threads_give(
    workflow: Workflow, plain: dict[str, str], tmp_path: Path
) -> None:
    with compute.running(2, processes=True):
        flows.urbanisation(workflow, out=tmp_path)
    assert tables(tmp_path) == plain


def test_error_of_a_worker_arrives_whole(four: Cluster, tmp_path: Path) -> None:
    import numpy as np
    import rasterio

    workflow = load_workflow("smoke", settings=SETTINGS, environ={})
    source = next(iter(workflow.inputs.population.values()))  # type: ignore[union-attr]
    bad = tmp_path / "pop.tif"
    with rasterio.open(source) as given:
        values, profile = given.read(1), given.profile
    values[np.isfinite(values)] = -5
    with rasterio.open(bad, "w", **profile) as sink:
        sink.write(values, 1)
    settings = [*SETTINGS, f"inputs.population.2023={bad}"]
    with compute.running(cluster=four.address), pytest.raises(InputError, match="negative"):
        flows.urbanisation(
            load_workflow("smoke", settings=settings, environ={}), out=tmp_path / "out"
        )
    assert not (tmp_path / "out" / "provenance.json").exists()


def on_strip(number: int, action: Callable[[], Any]) -> Callable[[int, int], None]:
    """Return a progress callback that acts once, when a strip has been written."""
    done = threading.Event()

    def progress(now: int, total: int) -> None:
        if now >= number and not done.is_set():
            done.set()
            action()

    return progress


@pytest.mark.parametrize("victim", [0, 1])
def test_worker_killed_in_the_middle(
    workflow: Workflow, plain: dict[str, str], tmp_path: Path, victim: int
) -> None:
    with cluster_of(tmp_path / "cluster", 2) as cluster:
        kill = on_strip(3, lambda: cluster.workers[victim].send_signal(signal.SIGKILL))
        with compute.running(cluster=cluster.address):
            flows.urbanisation(workflow, out=tmp_path / "out", progress=kill)
        assert cluster.workers[victim].wait(20) == -signal.SIGKILL
    assert tables(tmp_path / "out") == plain


def test_lost_scheduler_is_told_and_the_run_can_be_resumed(
    workflow: Workflow,
    plain: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compute, "_LOST_AFTER_S", 2.0)
    with cluster_of(tmp_path / "cluster", 1) as cluster:
        kill = on_strip(3, lambda: cluster.scheduler.send_signal(signal.SIGKILL))
        with (
            pytest.raises(TemporaryError, match="was lost") as met,
            compute.running(cluster=cluster.address),
        ):
            flows.urbanisation(workflow, out=tmp_path / "out", progress=kill)
    assert met.value.exit_code == EXIT_TEMPORARY
    assert not (tmp_path / "out" / "provenance.json").exists()
    with compute.running(1):
        flows.urbanisation(workflow, out=tmp_path / "out")
    assert tables(tmp_path / "out") == plain


def test_no_scheduler_at_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(TemporaryError, match="no Dask scheduler") as met,
        compute.running(cluster="tcp://ann:geheim@127.0.0.1:9"),
    ):
        pass
    assert "geheim" not in str(met.value)
    with pytest.raises(InputError, match="an address"), compute.running(cluster="here"):
        pass


def test_memory_limit_that_forces_spilling(
    workflow: Workflow, plain: dict[str, str], tmp_path: Path
) -> None:
    from distributed import Client

    # defined here so that it travels by value: workers do not have the tests
    def spilled_bytes(dask_worker: Any) -> float:
        metrics = dask_worker.data.cumulative_metrics
        return float(sum(v for k, v in metrics.items() if "disk-write" in k and "bytes" in k))

    # whatever a worker holds beyond a few kilobytes goes to disk
    limits = {
        "DASK_DISTRIBUTED__WORKER__MEMORY__TARGET": "0.00001",
        "DASK_DISTRIBUTED__WORKER__MEMORY__SPILL": "0.00002",
        "DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE": "False",
        "DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE": "False",
    }
    with cluster_of(tmp_path / "c", 1, "--memory-limit", "600MB", **limits) as cluster:
        with compute.running(cluster=cluster.address):
            flows.urbanisation(workflow, out=tmp_path / "out")
        with Client(cluster.address) as client:
            spilled = sum(client.run(spilled_bytes).values())
    assert spilled > 0
    assert tables(tmp_path / "out") == plain


def test_workers_with_another_code_are_refused(
    four: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qala.compute.code_hash", lambda: "other")
    with (
        pytest.raises(InputError, match="another qala"),
        compute.running(cluster=four.address),
    ):
        pass
