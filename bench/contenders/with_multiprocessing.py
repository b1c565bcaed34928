"""multiprocessing: its processes. (Its pipes are in a module of their own, which imports NumPy.)"""

import multiprocessing
import sys
import time

from bench.clock import timed
from bench.memory import SETTLING, private
from bench.turns import Turns

DEPTH = 100
FORKSERVER = multiprocessing.get_context("forkserver")
FORK = multiprocessing.get_context("fork")


def process(turns: Turns) -> None:
    """Start a Process from the fork server, and join it."""
    FORKSERVER.set_forkserver_preload([__name__])
    for operations in turns:
        turns.report([timed(run_nothing) for _ in range(operations)])


def cascade(turns: Turns) -> None:
    """Fork a Process that forks the next one and joins it, 100 deep."""
    for operations in turns:
        turns.report([timed(run_nested) for _ in range(operations)])


def memory(turns: Turns) -> None:
    """Start Processes from the fork server that sleep; weigh them."""
    FORKSERVER.set_forkserver_preload([__name__])
    for operations in turns:
        idle = [FORKSERVER.Process(target=time.sleep, args=(60,)) for _ in range(operations)]
        for worker in idle:
            worker.start()
        time.sleep(SETTLING)
        turns.report([private(worker.pid) for worker in idle if worker.pid is not None])
        for worker in idle:
            worker.kill()
            worker.join()


def nothing() -> None:
    """Do nothing."""


def run_nothing() -> None:
    """Let a fresh process do nothing, and wait until it is gone."""
    worker = FORKSERVER.Process(target=nothing)
    worker.start()
    worker.join()
    assert worker.exitcode == 0


def run_nested() -> None:
    """Run a cascade, and check that it got to the bottom."""
    worker = FORK.Process(target=descend, args=(DEPTH,))
    worker.start()
    worker.join()
    assert worker.exitcode == DEPTH


def descend(depth: int) -> None:
    """Run the levels below; exit with how many there are, this one included."""
    below = 0
    if depth > 1:
        worker = FORK.Process(target=descend, args=(depth - 1,))
        worker.start()
        worker.join()
        below = worker.exitcode or 0
    sys.exit(below + 1)
