"""Where the work runs: threads of this process, processes, or an existing Dask cluster.

Only flows and above call this module; algorithms stay lazy.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from qala.errors import InputError, TemporaryError


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
        When the address is not one, or workers is below one.
    TemporaryError
        When no scheduler answers there.
    """
    import dask

    count = workers or usable_cores()
    if count < 1:
        raise InputError(f"workers is {workers}", "a number of at least 1")
    if cluster is None and not processes:
        with dask.config.set(scheduler="threads", num_workers=count):
            yield
        return
    from distributed import Client, LocalCluster

    if cluster is None:
        with (
            LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=None) as local,
            Client(local),
        ):
            yield
        return
    if "://" not in cluster:
        raise InputError(f"cluster is {cluster!r}", "an address like tcp://host:8786")
    try:
        client = Client(cluster, timeout=10)
    except (OSError, TimeoutError, ValueError) as error:
        raise TemporaryError(
            f"no Dask scheduler answers at {cluster} ({error})",
            "a running scheduler",
            "start it with `dask scheduler`, or leave --cluster out to run here",
        ) from error
    with client:
        yield


def client() -> Any | None:
    """Return the distributed client in force, if one is."""
    import sys

    if "distributed" not in sys.modules:
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
    futures = active.compute(blocks)
    where = {f.key: target for f, target in zip(futures, targets, strict=True)}
    waiting = as_completed(futures, with_results=True)
    # each block leaves the workers' memory once it is written
    del futures
    for future, values in waiting:
        sink, key = where[future.key]
        sink[key] = values
        future.release()
