"""Runs the tests of tests/contract that take a place on an engine of its own: `dask`, or `mpi`.

Dask's scheduler has descriptors and threads that come and go in the process that starts it, and an
MPI program is started by mpiexec; so both have a process to themselves.
"""

from __future__ import annotations

import inspect
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import trio

from parallel.farm import Executor
from tests.contract.places import EXECUTOR, KILLS, Place
from tests.contract.test_deployments import contract


@contextmanager
def mpi() -> Iterator[futures.Executor]:
    from mpi4py.futures import MPIPoolExecutor

    with MPIPoolExecutor() as executor:
        yield executor


@contextmanager
def dask() -> Iterator[futures.Executor]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client.get_executor()


def check(executor: futures.Executor, promises: set[str]) -> bool:
    """Run each test; print its name and "passed", or why not."""
    passed = True
    for name, test in contract().items():
        parameters = inspect.signature(test).parameters
        place = Place(Executor(executor, workers=2), promises)
        with tempfile.TemporaryDirectory() as path:
            arguments = {"place": place, "tmp_path": Path(path)}
            try:
                trio.run(lambda test=test, a=arguments, p=parameters: test(*(a[key] for key in p)))
            except BaseException:  # pytest.fail is one; told below
                passed = False
                print(name, "failed", flush=True)
                traceback.print_exc()
            else:
                print(name, "passed", flush=True)
    return passed


if __name__ == "__main__":
    kills = {KILLS} if sys.argv[1] == "dask" else set[str]()
    with {"dask": dask, "mpi": mpi}[sys.argv[1]]() as executor:
        passed = check(executor, EXECUTOR | kills)
    left = [thread for thread in threading.enumerate() if not thread.daemon]
    assert left == [threading.main_thread()], left
    sys.exit(not passed)
