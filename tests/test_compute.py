"""Where the work runs."""

from __future__ import annotations

import os

import dask
import dask.array
import numpy as np
import pytest

from qala.compute import client, running, store, usable_cores
from qala.errors import InputError, TemporaryError


def where() -> int:
    return os.getpid()


def test_threads_by_default() -> None:
    with running(2):
        assert dask.config.get("scheduler") == "threads"
        assert dask.config.get("num_workers") == 2
        assert dask.compute(dask.delayed(where)())[0] == os.getpid()
        assert client() is None
    assert dask.config.get("scheduler", None) is None
    assert usable_cores() >= 1


@pytest.mark.parametrize("workers", [0, -1])
def test_numbers_that_are_none(workers: int) -> None:
    with pytest.raises(InputError, match=f"workers is {workers}"), running(workers):
        pass


def test_addresses_that_lead_nowhere() -> None:
    with pytest.raises(InputError, match=r"tcp://host:8786"), running(cluster="localhost"):
        pass
    # a port that nobody listens on
    with (
        pytest.raises(TemporaryError, match="no Dask scheduler answers") as error,
        running(cluster="tcp://127.0.0.1:9"),
    ):
        pass
    assert error.value.exit_code == 3


class Sink:
    """Keeps blocks where they belong, and counts them."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.values = np.full(shape, -1.0)
        self.blocks = 0

    def __setitem__(self, key: tuple[slice, slice], values: np.ndarray) -> None:
        self.values[key] = values
        self.blocks += 1


@pytest.mark.parametrize("processes", [False, True])
def test_blocks_arrive_once_each_in_this_process(processes: bool) -> None:
    values = np.arange(60.0).reshape(10, 6)
    lazy = dask.array.from_array(values, chunks=(3, 4))
    shared = lazy.sum()
    sinks = [Sink((10, 6)), Sink((10, 6))]
    with running(2, processes=processes):
        assert (client() is not None) is processes
        store([lazy + 0, lazy * 0 + shared], sinks)
    np.testing.assert_array_equal(sinks[0].values, values)
    np.testing.assert_array_equal(sinks[1].values, np.full((10, 6), values.sum()))
    assert [s.blocks for s in sinks] == [8, 8]


def test_an_existing_cluster_is_used() -> None:
    from distributed import LocalCluster

    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        running(cluster=cluster.scheduler_address),
    ):
        sink = Sink((4, 4))
        store([dask.array.ones((4, 4), chunks=2)], [sink])
        assert sink.values.sum() == 16
        assert client() is not None
    assert client() is None


def test_an_error_of_a_block_comes_through() -> None:
    def fail(block: np.ndarray) -> np.ndarray:
        raise InputError("a bad strip")

    lazy = dask.array.zeros((4, 4), chunks=2).map_blocks(fail, meta=np.zeros((0, 0)))
    for processes in (False, True):
        with (
            running(1, processes=processes), pytest.raises(InputError, match="a bad strip"),
        ):  # fmt: skip
            store([lazy], [Sink((4, 4))])
