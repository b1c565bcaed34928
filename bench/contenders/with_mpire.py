"""mpire: a pool of one worker, which leaving its block ends."""

import os

from mpire.pool import WorkerPool

from bench.clock import timed
from bench.turns import Turns


def process(turns: Turns) -> None:
    """Start a pool, run a no-op, end the pool."""
    for operations in turns:
        turns.report([timed(run_nothing) for _ in range(operations)])


def run_nothing() -> None:
    """Let a fresh worker do nothing, and wait until it is gone."""
    with WorkerPool(n_jobs=1) as pool:
        pool.apply(os.getpid)
