"""trio-parallel: a worker context of its own for every call, so that the worker is a fresh one."""

import os
import time

import trio
import trio_parallel  # type: ignore[import-not-found, import-untyped, unused-ignore]

from bench.trio_turns import arriving
from bench.turns import Turns


def process(turns: Turns) -> None:
    """Open a context, run a no-op, close the context."""
    trio.run(run_nothings, turns)


async def run_nothings(turns: Turns) -> None:
    """Time calls in fresh workers."""
    async for operations in arriving(turns):
        turns.report([await run_nothing() for _ in range(operations)])


async def run_nothing() -> float:
    """Let a fresh worker do nothing, and wait until it is gone; return how long that took."""
    start = time.perf_counter()
    async with trio_parallel.open_worker_context() as context:
        await context.run_sync(os.getpid)
    return time.perf_counter() - start
