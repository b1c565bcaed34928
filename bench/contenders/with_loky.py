"""loky: an executor of one worker, which its shutdown ends; one that stays."""

import os
import time

import loky  # type: ignore[import-not-found, import-untyped, unused-ignore]

from bench import tasks
from bench.clock import timed
from bench.contenders.with_pools import with_executor
from bench.memory import SETTLING, private
from bench.turns import Turns


def process(turns: Turns) -> None:
    """Start an executor, run a no-op, shut it down."""
    for operations in turns:
        turns.report([timed(run_nothing) for _ in range(operations)])


def memory(turns: Turns) -> None:
    """Start executors and let each run a no-op; weigh their workers."""
    for operations in turns:
        executors = [loky.ProcessPoolExecutor(max_workers=1) for _ in range(operations)]
        pids = [executor.submit(os.getpid).result() for executor in executors]
        time.sleep(SETTLING)
        turns.report([private(pid) for pid in pids])
        for executor in executors:
            executor.shutdown()


def noops(turns: Turns) -> None:
    """Map a no-op, with chunks of one."""
    with loky.ProcessPoolExecutor(tasks.WORKERS) as executor:
        with_executor(turns, executor)


def run_nothing() -> None:
    """Let a fresh worker do nothing, and wait until it is gone."""
    with loky.ProcessPoolExecutor(max_workers=1) as executor:
        executor.submit(os.getpid).result()
