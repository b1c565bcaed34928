"""`kill -9` at random moments, of everything that a tree consists of.

The trees are cascades of twenty workers, most of which have started a program (plain, in a session
of its own, as a daemon) or forked a helper (with `os.fork`, with `multiprocessing`); the root has
helpers too. Their innermost worker sleeps, computes, holds the interpreter lock or ignores whatever
it is told. See `programs/growth.py`.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from .programs import growth
from .support import IMPORT_PATH, MARK, ROUNDS

PROGRAMS = Path(__file__).with_name("programs")
AT_ONCE = 8
GRACE = 0.5
DEPTH = 20


def environment(mark: str) -> dict[str, str]:
    return {**os.environ, MARK: mark, "PYTHONPATH": IMPORT_PATH}


@contextmanager
def nothing_outlives(mark: str) -> Iterator[None]:
    """Do not let a failure here spoil what comes after it."""
    try:
        yield
    finally:
        for pid in growth.marked(mark):
            kill(pid)


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["middle", "leaf", "spare", "forkserver", "keeper"])
async def test_whoever_is_killed_takes_along_what_is_below_and_is_named_above(
    victim: str, mark: str
) -> None:
    """The rounds are in `programs/rounds_of_killing.py`, which ends with 0 if all was well."""
    shares = [len(range(start, ROUNDS, AT_ONCE)) for start in range(AT_ONCE)]
    async with trio.open_nursery() as nursery:
        for number, rounds in enumerate(shares):
            if rounds:
                nursery.start_soon(kill_in_rounds, victim, rounds, f"{mark}-{number}")


async def kill_in_rounds(victim: str, rounds: int, mark: str) -> None:
    program = str(PROGRAMS / "rounds_of_killing.py")
    seed = str(random.random())
    with nothing_outlives(mark), nothing_outlives(f"{mark}.0"):
        done = await trio.run_process(
            [sys.executable, program, victim, str(rounds), seed],
            env=environment(mark),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    said = (done.stdout + done.stderr).decode()
    assert (done.returncode, said) == (0, ""), f"with seed {seed}: {said}"


@pytest.mark.slow
async def test_when_the_root_is_killed_its_whole_tree_ends(mark: str) -> None:
    limit = trio.CapacityLimiter(AT_ONCE)
    async with trio.open_nursery() as nursery:
        for number in range(ROUNDS):
            nursery.start_soon(kill_a_root, f"{mark}-{number}", limit)


async def kill_a_root(mark: str, limit: trio.CapacityLimiter) -> None:
    async with limit:
        with nothing_outlives(mark):
            await grow_and_kill_the_root(mark)


async def grow_and_kill_the_root(mark: str) -> None:
    """The kill comes at a random depth plus a random moment, or while the host is started."""
    depth = random.randrange(DEPTH)
    program = str(PROGRAMS / "root_to_kill.py")
    root = await trio.lowlevel.open_process(
        [sys.executable, program, str(DEPTH), str(random.random())],
        env=environment(mark),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert root.stdout is not None
    output = Output(root.stdout)
    await output.wait_for(b"level" if depth else b"init", depth or 1)
    await trio.sleep(random.random() * (0.01 if depth else 0.2))
    root.kill()
    left: set[int] = set()
    with trio.move_on_after(GRACE + 1) as limit:
        await root.wait()
        # Everybody but the keeper and the root's helpers holds the output open.
        await output.wait_for_end()
        while left := growth.marked(mark).keys() - output.helpers:
            await trio.sleep(0.01)
    await root.stdout.aclose()
    for helper in output.helpers:
        kill(helper)
    assert not limit.cancelled_caught, f"left behind: {growth.marked(mark)}, {left}"
    assert output.noise == []


class Output:
    """What a tree says, line by line."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self.stream = stream
        self.lines: list[bytes] = []
        self.partial = b""

    async def wait_for(self, word: bytes, count: int) -> None:
        while self.count(word) < count:
            assert await self.read(), self.lines

    async def wait_for_end(self) -> None:
        while await self.read():
            pass

    async def read(self) -> bool:
        data = await self.stream.receive_some()
        *lines, self.partial = (self.partial + data).split(b"\n")
        self.lines += lines
        return bool(data)

    def count(self, word: bytes) -> int:
        return sum(line.split()[0] == word for line in self.lines if line)

    @property
    def helpers(self) -> set[int]:
        return {int(line.split()[1]) for line in self.lines if line.startswith(b"helper")}

    @property
    def noise(self) -> list[bytes]:
        return [line for line in self.lines if line.split()[:1] not in _WORDS]


_WORDS = ([b"init"], [b"level"], [b"helper"])
