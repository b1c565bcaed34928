"""The pools of Python's library, on tasks one by one; and the same work with no pool at all."""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from typing import Any

from bench import tasks
from bench.turns import Turns

FORK = multiprocessing.get_context("fork")

Run = Callable[[tasks.Task], None]


def take(turns: Turns, run: Run, make: Callable[[int], tasks.Task]) -> None:
    """Time runs, per task."""
    for count in turns:
        task = make(count)
        start = time.perf_counter()
        run(task)
        turns.report([(time.perf_counter() - start) / count])


def noops(count: int) -> tasks.Task:
    """No-ops."""
    return tasks.nothing, list(range(count))


def exhaust(results: Iterable[object], count: int) -> None:
    """Read results."""
    assert sum(1 for _ in results) == count


def multiprocessing_pool(turns: Turns, *kernel: str) -> None:
    """multiprocessing.Pool.imap_unordered."""
    make = partial(tasks.make, *kernel) if kernel else noops
    with FORK.Pool(tasks.WORKERS) as pool:

        def run(task: tasks.Task) -> None:
            fn, xs = task
            exhaust(pool.imap_unordered(fn, xs, chunksize=1), len(xs))

        take(turns, run, make)


def futures(turns: Turns) -> None:
    """concurrent.futures.ProcessPoolExecutor.map."""
    with ProcessPoolExecutor(tasks.WORKERS, mp_context=FORK) as executor:
        with_executor(turns, executor)


def with_executor(turns: Turns, executor: Executor) -> None:
    """Any executor."""

    def run(task: tasks.Task) -> None:
        fn, xs = task
        exhaust(executor.map(fn, xs, chunksize=1), len(xs))

    take(turns, run, noops)


def sequential(turns: Turns, *kernel: str) -> None:
    """A loop, in one process."""

    def run(task: tasks.Task) -> None:
        fn, xs = task
        for x in xs:
            fn(x)

    take(turns, run, partial(tasks.make, *kernel))


def halves(turns: Turns, *kernel: str) -> None:
    """A loop in each of two forks, over every other task: what the machine has to give just now."""

    def half(fn: Callable[[Any], Any], xs: list[Any]) -> None:
        pid = os.fork()
        if pid == 0:
            for x in xs:
                fn(x)
            os._exit(0)
        pids.append(pid)

    def run(task: tasks.Task) -> None:
        fn, xs = task
        for start in range(tasks.WORKERS):
            half(fn, xs[start :: tasks.WORKERS])
        while pids:
            os.waitpid(pids.pop(), 0)

    pids: list[int] = []
    take(turns, run, partial(tasks.make, *kernel))


def one_prover(turns: Turns) -> None:
    """The provers' case on one worker: what its sleeps add up to."""
    for count in turns:
        turns.report([sum(tasks.run_times()) / count])


def free_provers(turns: Turns) -> None:
    """The same on twenty, in the order of the conditions, if nothing cost anything."""
    for count in turns:
        turns.report([tasks.without_overhead(tasks.run_times(), tasks.PROVERS) / count])
