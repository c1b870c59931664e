"""Where the work runs: threads of this process, processes, or an existing Dask cluster.

Only flows and above call this module; algorithms stay lazy.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from qala.errors import InputError, TemporaryError
from qala.identity import code_hash, safe_url

log = logging.getLogger("qala")


#: the client of worker processes that this process started, while they are in force
_local: Any | None = None
#: whether this process works for another one and shares nothing out
_alone = False


#: distributed makes glibc hand every freed block back at once, which fixes the size from which
#: blocks are mapped too: each array of a strip is then paged in anew, a quarter of a run's time
_WORKERS = {"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None}


def usable_cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def running(
    workers: int | None = None, *, cluster: str | None = None, processes: bool = False
) -> Iterator[None]:
    """Run everything computed inside on threads, processes or a cluster.

    Parameters
    ----------
    workers
        Threads or processes; default: the cores this process may use.
    cluster
        Address of a Dask scheduler (``tcp://host:8786``); wins over the others.
    processes
        Start worker processes on this machine instead of threads.

    Raises
    ------
    InputError
        When the address is not one, workers is below one, or the cluster's
        workers have another qala.
    TemporaryError
        When no scheduler answers there, or it is lost meanwhile.
    """
    import dask

    count = usable_cores() if workers is None else workers
    if count < 1:
        raise InputError(f"workers is {workers}", "a number of at least 1")
    if cluster is None and not processes:
        with dask.config.set(scheduler="threads", num_workers=count):
            yield
        return
    from distributed import Client, LocalCluster

    if cluster is None:
        with (
            dask.config.set(_WORKERS),
            LocalCluster(
                n_workers=count, threads_per_worker=1, dashboard_address=None,
                host="127.0.0.1",
                # what goes wrong there is told here, in a sentence
                silence_logs=logging.CRITICAL,
            ) as local,
            _own_scheduler(),
            Client(local) as active,
            _losing(active, "the worker processes of this machine"),
            _in_force(active),
        ):  # fmt: skip
            yield
        return
    if "://" not in cluster:
        raise InputError(f"cluster is {safe_url(cluster)!r}", "an address like tcp://host:8786")
    with _own_scheduler(), _connected(cluster) as active:
        _require_same_code(active)
        yield


@contextmanager
def _in_force(active: Any) -> Iterator[None]:
    global _local  # noqa: PLW0603 — which workers are in force is a fact of the process
    before, _local = _local, active
    try:
        yield
    finally:
        _local = before


def local_processes() -> Any | None:
    """Return the client of this machine's worker processes where they are in force.

    They see the same disks as this process, which an existing cluster need not.
    """
    return _local


@contextmanager
def alone() -> Iterator[None]:
    """Compute everything inside in this thread: the process is itself one of several workers."""
    import dask

    global _alone  # noqa: PLW0603 — see _in_force
    before, _alone = _alone, True
    try:
        with dask.config.set(scheduler="synchronous"):
            yield
    finally:
        _alone = before


@contextmanager
def _own_scheduler() -> Iterator[None]:
    """Undo what a client sets for the whole process, also when its cluster is lost."""
    import dask

    before = dask.config.get("scheduler", None)
    try:
        yield
    finally:
        if before is None:
            dask.config.config.pop("scheduler", None)
        else:
            dask.config.set(scheduler=before)


@contextmanager
def _connected(cluster: str) -> Iterator[Any]:
    """Connect to a scheduler and say in one sentence when it can't be reached or is lost."""
    from distributed import Client

    try:
        active = Client(cluster, timeout=10)
    except (OSError, TimeoutError, ValueError) as error:
        raise TemporaryError(
            f"no Dask scheduler answers at {safe_url(cluster)} ({type(error).__name__})",
            "a running scheduler",
            "start it with `dask scheduler`, or leave --cluster out to run here",
        ) from error
    with active, _losing(active, f"the Dask cluster at {safe_url(cluster)}"):
        yield active


#: seconds after which a scheduler that is gone counts as lost
_LOST_AFTER_S = 10.0


@contextmanager
def _losing(active: Any, name: str) -> Iterator[None]:
    """Say in one sentence when the cluster is lost while work goes on."""
    import asyncio
    import concurrent.futures

    import dask
    from distributed import KilledWorker, comm

    lost = (
        comm.CommClosedError, KilledWorker, asyncio.CancelledError,
        concurrent.futures.CancelledError, concurrent.futures.TimeoutError, TimeoutError,
    )  # fmt: skip
    try:
        with (
            dask.config.set({"distributed.comm.timeouts.connect": f"{_LOST_AFTER_S}s"}),
            warnings.catch_warnings(),
        ):
            # the places of millions of cells inside units travel once; that is what is meant
            warnings.filterwarnings("ignore", message="Sending large graph")
            yield
    except lost as error:
        if isinstance(error, KilledWorker):
            raise TemporaryError(
                f"{name} lost several workers over the same work ({error.task})",
                "workers with memory enough for a strip",
                "raise their --memory-limit or pass a smaller chunk, and run the same again",
            ) from error
        raise TemporaryError(
            f"{name} was lost ({type(error).__name__})", "a scheduler that stays",
            "run the same again when it is back: nothing was published, the inputs are untouched",
        ) from error  # fmt: skip


def _code() -> tuple[str, str]:
    from qala import __version__

    return __version__, code_hash()


def _require_same_code(active: Any) -> None:
    """Refuse workers that have another qala, whose results would be recorded as this one's."""
    try:
        found = active.run(_code)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"the workers cannot import qala ({error})", "the same installation on every worker",
            f"install qala {_code()[0]} there",
        ) from error  # fmt: skip
    if not found:
        log.warning("the cluster has no workers yet; waiting for them with the work")
    others = {safe_url(k): v[0] for k, v in found.items() if tuple(v) != _code()}
    if others:
        named = ", ".join(f"{k} has {v}" for k, v in others.items())
        raise InputError(
            f"workers have another qala: {named}", f"{_code()[0]} with the same code",
            "install the same version on every worker and restart them",
        )  # fmt: skip


def client() -> Any | None:
    """Return the distributed client in force, if one is."""
    import sys

    if _alone or "distributed" not in sys.modules:
        return None
    from distributed import get_client

    try:
        return get_client()
    except ValueError:
        return None


def store(lazies: list[Any], sinks: list[Any]) -> None:
    """Compute dask arrays together, block by block, into objects with ``__setitem__``.

    Blocks come in any order; one is written at a time. On a cluster they
    travel to this process, which alone writes.
    """
    import threading

    import dask.array
    from dask.array.core import slices_from_chunks

    active = client()
    if active is None:
        dask.array.store(lazies, sinks, lock=threading.Lock())
        return
    from distributed import as_completed

    blocks, targets = [], []
    for lazy, sink in zip(lazies, sinks, strict=True):
        blocks += list(lazy.to_delayed().ravel())
        targets += [(sink, where) for where in slices_from_chunks(lazy.chunks)]
    where: dict[str, list[Any]] = {}
    # told here already: to those who write files, a broken connection looks like a broken disk
    with _losing(active, "the Dask cluster"):
        futures = active.compute(blocks)
        for future, target in zip(futures, targets, strict=True):
            where.setdefault(future.key, []).append(target)
        waiting = as_completed({f.key: f for f in futures}.values(), with_results=True)
        # each block leaves the workers' memory once it is written
        del futures, future
        for done, values in waiting:
            if isinstance(values, BaseException):
                # a future that was cancelled hands its error over as if it were its result
                raise values
            for sink, key in where[done.key]:
                sink[key] = values
            done.release()
