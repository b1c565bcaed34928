"""mpire: a pool of one worker, which leaving its block ends; one that stays."""

import os

from mpire.pool import WorkerPool

from bench import tasks
from bench.clock import timed
from bench.contenders import with_pools
from bench.turns import Turns


def process(turns: Turns) -> None:
    """Start a pool, run a no-op, end the pool."""
    for operations in turns:
        turns.report([timed(run_nothing) for _ in range(operations)])


def noops(turns: Turns) -> None:
    """Map a no-op, with chunks of one."""
    with WorkerPool(tasks.WORKERS, keep_alive=True) as pool:

        def run(task: tasks.Task) -> None:
            fn, xs = task
            with_pools.exhaust(pool.imap_unordered(fn, xs, chunk_size=1), len(xs))

        with_pools.take(turns, run, with_pools.noops)


def run_nothing() -> None:
    """Let a fresh worker do nothing, and wait until it is gone."""
    with WorkerPool(n_jobs=1) as pool:
        pool.apply(os.getpid)
