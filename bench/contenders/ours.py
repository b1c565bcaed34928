"""parallel itself, as its users call it."""

import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import trio

import parallel
from bench import conversations, noop, payload, workers
from bench.cpus import Cpu, Layout, ends, pin
from bench.memory import SETTLING, private
from bench.trio_turns import arriving
from bench.turns import Turns

DEPTH = 100
NEVER_GONE = 30.0  # seconds after which a process that still exists is an error


def process(turns: Turns) -> None:
    """Run a no-op in a fresh process."""
    trio.run(timing, turns, run_nothing)


def process_preloaded(turns: Turns) -> None:
    """Run a no-op whose module the fork server has already imported."""
    trio.run(timing, turns, run_nothing, (noop.__name__,))


def cascade(turns: Turns) -> None:
    """Run a function that runs itself in a fresh process, 100 deep."""
    trio.run(timing, turns, run_nested)


def cascade_preloaded(turns: Turns) -> None:
    """Run a cascade of a function whose module the fork server has already imported."""
    trio.run(timing, turns, run_nested, (workers.__name__,))


def cancellation(turns: Turns) -> None:
    """Cancel a cascade that waits at its deepest level; until none of its processes exists."""
    trio.run(cancel_cascades, turns)


def roundtrip(turns: Turns, layout: Layout) -> None:
    """Send a small string to a worker's hub and receive it back."""
    trio.run(call, turns, *ends(layout))


def oneway(turns: Turns) -> None:
    """Send small strings to a worker's hub; until its count comes back."""
    trio.run(pour, turns, *ends("apart"))


def array(turns: Turns) -> None:
    """Send an array to a worker's hub and receive it back."""
    trio.run(call_with_array, turns)


def memory(turns: Turns) -> None:
    """Spawn workers that wait for a message; weigh them."""
    trio.run(weigh, turns)


def memory_preloaded(turns: Turns) -> None:
    """Weigh workers whose function's module the fork server has already imported."""
    trio.run(weigh, turns, (noop.__name__,))


async def timing(
    turns: Turns, action: Callable[[], Awaitable[None]], preload: tuple[str, ...] = ()
) -> None:
    """Time an action over and over, inside one `init`."""
    async with parallel.init(preload=preload):
        await time_each(turns, action)


async def time_each(turns: Turns, action: Callable[[], Awaitable[None]]) -> None:
    """Time an action over and over."""
    async for operations in arriving(turns):
        costs = []
        for _ in range(operations):
            start = time.perf_counter()
            await action()
            costs.append(time.perf_counter() - start)
        turns.report(costs)


async def run_nothing() -> None:
    """Let a fresh process do nothing, and wait until it is gone."""
    await parallel.run(noop.nothing)


async def run_nested() -> None:
    """Run a cascade, and check that it got to the bottom."""
    assert await parallel.run(workers.descend, DEPTH) == DEPTH


async def call(turns: Turns, cpu: Cpu, workers_cpu: Cpu) -> None:
    """Time round trips."""
    async with parallel.init(), parallel.spawn(workers.echo_on, workers_cpu) as (channel, _):
        pin(cpu)
        async for operations in arriving(turns):
            turns.report(await conversations.pings(channel, operations))


async def pour(turns: Turns, cpu: Cpu, workers_cpu: Cpu) -> None:
    """Time one-way messages."""
    async with parallel.init(), parallel.spawn(workers.count_on, workers_cpu) as (channel, _):
        pin(cpu)
        async for operations in arriving(turns):
            turns.report(await conversations.one_way(channel, operations))


async def call_with_array(turns: Turns) -> None:
    """Time echoes of an array."""
    sent = payload.array()
    async with parallel.init(), parallel.spawn(workers.echo) as (channel, _):
        async for operations in arriving(turns):
            costs = []
            for _ in range(operations):
                start = time.perf_counter()
                await channel.send(sent)
                payload.check(sent, await channel.receive())
                costs.append(time.perf_counter() - start)
            turns.report(costs)


async def weigh(turns: Turns, preload: tuple[str, ...] = ()) -> None:
    """Weigh idle workers."""
    async with parallel.init(preload=preload):
        async for operations in arriving(turns):
            async with AsyncExitStack() as stack:
                spawned = [
                    await stack.enter_async_context(parallel.spawn(noop.idle))
                    for _ in range(operations)
                ]
                await trio.sleep(SETTLING)
                turns.report([private(process.pid) for _, process in spawned])


async def cancel_cascades(turns: Turns) -> None:
    """Time cancellations. The deepest level says through a FIFO that all levels are up."""
    with tempfile.TemporaryDirectory() as directory:
        fifo = Path(directory, "fifo")
        os.mkfifo(fifo)
        listening = os.open(fifo, os.O_RDWR)
        async with parallel.init():
            async for operations in arriving(turns):
                turns.report(
                    [await cancel_cascade(str(fifo), listening) for _ in range(operations)]
                )
        os.close(listening)


async def cancel_cascade(fifo: str, listening: int) -> float:
    """Start a cascade, cancel it, and return the seconds until its last process was gone."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_and_wait, fifo)
        await trio.lowlevel.wait_readable(listening)
        pids = [int(pid) for pid in os.read(listening, 65536).split()]
        assert len(pids) == DEPTH
        start = time.perf_counter()
        nursery.cancel_scope.cancel()
    with trio.fail_after(NEVER_GONE):
        while any(exists(pid) for pid in pids):  # noqa: ASYNC110  (a pid announces nothing)
            await trio.sleep(0.001)
    return time.perf_counter() - start


async def run_and_wait(fifo: str) -> None:
    """Run a cascade that never ends."""
    await parallel.run(workers.descend_and_wait, DEPTH, fifo)


def exists(pid: int) -> bool:
    """Tell whether a process exists; one that is dead but not reaped does."""
    return Path(f"/proc/{pid}").exists()
