"""What stands still (SIGSTOP, a debugger, a frozen container): who waits for it, and who does not.

Links and agents that stand still are in `test_network_failures`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

import parallel

from .hosts import kill
from .programs.distant import echo
from .puppets import count_messages
from .support import IMPORT_PATH, eventually, killed_in_the_end, marked_processes

GRACE = 0.5


@contextmanager
def frozen(*pids: int) -> Iterator[None]:
    kill(*pids, number=signal.SIGSTOP)
    try:
        yield
    finally:
        kill(*pids, number=signal.SIGCONT)


async def test_a_frozen_worker_makes_only_those_wait_who_send_to_it(tree: None) -> None:
    sent = 0

    async def send(channel: parallel.Channel[bytes, None]) -> None:
        nonlocal sent
        async with channel:
            for _ in range(100):
                await channel.send(bytes(100_000))
                sent += 1

    async with parallel.spawn(count_messages) as (channel, process):
        async with trio.open_nursery() as nursery:
            with frozen(process.pid):
                nursery.start_soon(send, channel)
                for _ in range(20):
                    assert await parallel.run(os.getpid) != process.pid
                assert sent < 10
    assert await process.result() == 100


async def test_a_frozen_fork_server_makes_calls_wait_and_channels_go_on(tree: None) -> None:
    fork_server = await parallel.run(os.getppid)
    async with parallel.spawn(echo) as (channel, process):
        async with trio.open_nursery() as nursery:
            with frozen(fork_server):
                nursery.start_soon(parallel.run, os.getpid)
                for number in range(1000):
                    await channel.send(number)
                    assert await channel.receive() == number
                assert len(nursery.child_tasks) == 1
    assert await process.result() == 1000


PROGRAM = f"""
import os, sys, trio, parallel
from tests.programs import growth
from tests.programs.distant import echo

async def main():
    async with parallel.init(grace={GRACE}):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(parallel.run, growth.nest, 4, "a seed")
            async with parallel.spawn(echo) as (channel, process):
                for number in range(2):
                    print(os.getpid(), await parallel.run(os.getppid), flush=True)
                    await trio.to_thread.run_sync(sys.stdin.readline)
                    await channel.send(number)
                    assert await channel.receive() == number
            print(await process.result(), flush=True)
            nursery.cancel_scope.cancel()

trio.run(main)
"""


@contextmanager
def a_program(mark: str) -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    """It is there, with a cascade of processes; the root's pid and its fork server's."""
    argv = [sys.executable, "-c", PROGRAM]
    environment = {**os.environ, "PYTHONPATH": IMPORT_PATH}
    pipe = subprocess.PIPE
    with killed_in_the_end(argv, env=environment, stdin=pipe, stdout=pipe) as program:
        assert program.stdout is not None
        root, fork_server = map(int, program.stdout.readline().split())
        yield program, root, fork_server


@pytest.mark.slow
def test_a_host_that_was_frozen_as_a_whole_goes_on_as_if_nothing_had_happened(mark: str) -> None:
    with a_program(mark) as (program, _, _):
        with frozen(*marked_processes(mark)):
            time.sleep(4 * GRACE)
        assert program.communicate("\n\n")[0].splitlines()[1:] == ["2"]
        assert program.returncode == 0


async def test_when_the_root_of_a_frozen_fork_server_is_killed_the_keeper_ends_all(
    mark: str,
) -> None:
    with a_program(mark) as (program, root, fork_server):
        kill(fork_server, number=signal.SIGSTOP)
        kill(root)
        await eventually(lambda: not marked_processes(mark), GRACE + 1)
        program.wait()
