"""The bare fork: the least that a fresh trio process can cost.

It forks as a fork server would: from a small process that has imported trio, its objects frozen so
that no child's collector touches (and so copies) their pages.
"""

import gc
import os
import signal
import time

import trio

from bench.clock import timed
from bench.memory import SETTLING, private
from bench.turns import Turns


def process(turns: Turns) -> None:
    """Fork, `trio.run` a no-op, exit; until the exit is reaped."""
    gc.collect()
    gc.freeze()
    for operations in turns:
        turns.report([timed(fork_and_wait) for _ in range(operations)])


def memory(turns: Turns) -> None:
    """Fork processes that idle in trio; weigh them."""
    gc.collect()
    gc.freeze()
    for operations in turns:
        pids = [fork_idle() for _ in range(operations)]
        time.sleep(SETTLING)
        turns.report([private(pid) for pid in pids])
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


async def nothing() -> None:
    """Do nothing."""


def fork_and_wait() -> None:
    """Let a fresh process do nothing, and wait until it is gone."""
    pid = os.fork()
    if pid == 0:
        try:
            trio.run(nothing)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def fork_idle() -> int:
    """Start a fresh process that idles; return its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            trio.run(trio.sleep_forever)
        finally:
            os._exit(0)
    return pid
