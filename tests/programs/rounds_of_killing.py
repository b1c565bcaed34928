"""Kill one kind of process of one's own tree, time and again, and look what becomes of it.

    python rounds_of_killing.py VICTIM ROUNDS SEED

The kill comes when the cascade has grown to a random depth, plus a random moment. The program ends
with an exception if anything is left of the tree, or if no exception names what was killed.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import trio

import parallel
from parallel._member import current_member
from parallel._table import Entry, read_table
from tests.programs import growth

DEPTH = 20
GRACE = 0.5
HOST_PROGRAMS = {"parallel-keeper", "parallel-forkse", "parallel: spare"}


class Tree(NamedTuple):
    """The host's own processes."""

    mark: str
    keeper: int
    fork_server: int

    def workers(self) -> list[Entry]:
        return sorted(read_table(current_member().table)[1], key=lambda entry: entry.started)

    def spares(self) -> list[int]:
        busy = {entry.pid for entry in self.workers()}
        return [pid for pid in growth.children(self.fork_server) if pid not in busy]


def find_tree(mark: str) -> Tree:
    found = growth.marked(mark)
    keepers = [pid for pid in growth.children(os.getpid()) if pid in found]
    (keeper,) = keepers
    (fork_server,) = growth.children(keeper)
    return Tree(mark, keeper, fork_server)


class Killer:
    """Kills when the time has come, and remembers whom and when."""

    def __init__(self, tree: Tree, victim: str, rng: random.Random) -> None:
        self.tree = tree
        self.victim = victim
        self.rng = rng
        self.pid = 0
        self.at = float("inf")

    async def kill(self) -> None:
        least = {"middle": 3, "leaf": 1}.get(self.victim, 0)
        depth = self.rng.randint(least, DEPTH)
        while len(self.tree.workers()) < depth:
            await trio.sleep(0.001)
        await trio.sleep(self.rng.random() * 0.01)
        self.pid = self._choose()
        self.at = time.monotonic()
        os.kill(self.pid, signal.SIGKILL)

    def _choose(self) -> int:
        match self.victim:
            case "keeper":
                return self.tree.keeper
            case "forkserver":
                return self.tree.fork_server
            case "middle":
                return self.rng.choice(self.tree.workers()[1:-1]).pid
            case _:
                return self.tree.workers()[-1].pid

    def check_time(self) -> None:
        taken = time.monotonic() - self.at
        assert taken < GRACE + 1, f"everything was gone only after {taken:.2f} s"


def check_left(mark: str, allowed: set[str]) -> None:
    left = growth.marked(mark)
    bad = {pid: name for pid, name in left.items() if name not in allowed}
    assert not bad, f"left behind: {bad}"


async def kill_once(tree: Tree, victim: str, rng: random.Random) -> tuple[Killer, Exception]:
    """Grow and kill; what the root gets to know of it."""
    killer = Killer(tree, victim, rng)
    error: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(killer.kill)
        try:
            await parallel.run(growth.nest, DEPTH, str(rng.random()))
        except parallel.ParallelError as exc:
            error = exc
    assert error is not None
    return killer, error


async def kill_worker(victim: str, rounds: int, rng: random.Random) -> None:
    """Who is above the victim is told, ends, and everything below is gone when the root knows."""
    mark = new_mark(0)
    async with parallel.init(grace=GRACE):
        tree = find_tree(mark)
        for _ in range(rounds):
            with own_helpers():
                killer, error = await kill_once(tree, victim, rng)
                killer.check_time()
                check_left(mark, HOST_PROGRAMS)
            assert isinstance(error, parallel.WorkerDied), repr(error)
            assert (error.pid, error.returncode) == (killer.pid, -signal.SIGKILL), repr(error)
            assert await parallel.run(os.getpid)
    check_left(mark, set())


async def kill_host_program(victim: str, rounds: int, rng: random.Random) -> None:
    """The root is told that its host has died, when everything of it is gone."""
    for number in range(rounds):
        mark = new_mark(number)
        async with parallel.init(grace=GRACE):
            with own_helpers():
                killer, error = await kill_once(find_tree(mark), victim, rng)
                killer.check_time()
                check_left(mark, set())
            assert isinstance(error, parallel.HostDied), repr(error)
            assert error.host == "root"
            name = {"keeper": "keeper", "forkserver": "fork server"}[victim]
            assert f"its {name}" in error.reason, repr(error)
            assert "SIGKILL" in error.reason, repr(error)


async def kill_spare(victim: str, rounds: int, rng: random.Random) -> None:
    """Nobody but a call that was given this very spare notices."""
    mark = new_mark(0)
    async with parallel.init(grace=GRACE):
        tree = find_tree(mark)
        for _ in range(rounds):
            killed: set[int] = set()
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(call_beside_killing, rng.random() * 0.1, killed)
                for _ in range(3):
                    await trio.sleep(rng.random() * 0.05)
                    if spares := tree.spares():
                        killed.add(pid := rng.choice(spares))
                        kill_if_there(pid)
            while killed & set(growth.children(tree.fork_server)):
                await trio.sleep(0.001)  # until then one of them may be given work
            assert await parallel.run(os.getpid)
    check_left(mark, set())


async def call_beside_killing(delay: float, killed: set[int]) -> None:
    await trio.sleep(delay)
    died = 0
    try:
        assert await parallel.run(os.getpid)
    except parallel.WorkerDied as exc:
        died = exc.pid
    assert not died or died in killed, f"{died} was not killed here"


def kill_if_there(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def new_mark(number: int) -> str:
    """A mark for the tree, which the root and its own helpers do not have."""
    os.environ[growth.MARK] = mark = f"{BASE}.{number}"
    return mark


@contextmanager
def own_helpers() -> Iterator[None]:
    """The root's own: they have copies of all that it has, and nobody but the root ends them."""
    helpers = [growth.fork_helper(), growth.start_multiprocessing_helper()]
    try:
        yield
        for pid in helpers:
            assert os.waitpid(pid, os.WNOHANG) == (0, 0), "the root's own helper has ended"
    finally:
        for pid in helpers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


VICTIMS: dict[str, Callable[..., object]] = {
    "middle": kill_worker,
    "leaf": kill_worker,
    "spare": kill_spare,
    "forkserver": kill_host_program,
    "keeper": kill_host_program,
}

if __name__ == "__main__":
    BASE = os.environ[growth.MARK]
    victim, rounds, seed = sys.argv[1:]
    trio.run(VICTIMS[victim], victim, int(rounds), random.Random(seed))
