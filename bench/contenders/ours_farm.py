"""parallel's farm, as its users call it."""

import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio

import parallel
from bench import tasks
from bench.contenders.ours_ssh import open_cluster
from bench.trio_turns import arriving
from bench.turns import Turns

Work = Callable[[parallel.Farm, int], Awaitable[float | None]]
"""Gives a farm so many tasks; returns how long they took themselves, if that does not count."""

NAP = 0.025  # long enough to travel alone
LONG = 0.2  # seconds of a task of which one is lost


def noops(turns: Turns) -> None:
    """Run no-ops on two workers."""
    trio.run(work, turns, tasks.WORKERS, run_noops)


def generated(turns: Turns) -> None:
    """Run no-ops of which each makes the next."""
    trio.run(work, turns, tasks.WORKERS, run_generated)


def kernel(turns: Turns, name: str, grain: str) -> None:
    """Compute on two workers."""
    trio.run(work, turns, tasks.WORKERS, partial(run_kernel, name, grain))


def provers(turns: Turns, order: str) -> None:
    """Run the provers' case on twenty workers."""
    trio.run(work, turns, tasks.PROVERS, partial(run_provers, order))


def ssh_noops(turns: Turns) -> None:
    """Run no-ops on an ssh host."""
    trio.run(work_far_away, turns, run_noops)


def ssh_naps(turns: Turns) -> None:
    """Run naps on an ssh host, each sent alone; what they take longer than the naps."""
    trio.run(work_far_away, turns, run_naps)


def recovery(turns: Turns, *victim: str) -> None:
    """Run naps on two workers; kill one of these in the middle of a nap, or none."""
    trio.run(work, turns, tasks.WORKERS, partial(run_and_kill, bool(victim)))


@asynccontextmanager
async def farm_of(workers: int) -> AsyncIterator[parallel.Farm]:
    """A farm whose workers are all there."""
    async with parallel.init(), parallel.open_farm(workers=workers) as farm:
        await until_there(farm, workers)
        yield farm


async def until_there(farm: parallel.Farm, workers: int) -> None:
    """Wait for the workers."""
    while len(farm.workers) < workers:  # noqa: ASYNC110  (simple, and not timed)
        await trio.sleep(0.001)


async def work(turns: Turns, workers: int, run: Work) -> None:
    """Time calls of one farm, per task."""
    async with farm_of(workers) as farm:
        await time_each(turns, farm, run)


async def work_far_away(turns: Turns, run: Work) -> None:
    """The same with a worker on an ssh host."""
    async with open_cluster(1), parallel.open_farm(workers={"host0": 1}) as farm:
        await until_there(farm, 1)
        await time_each(turns, farm, run)


async def time_each(turns: Turns, farm: parallel.Farm, run: Work) -> None:
    """Time calls of a farm, per task."""
    async for count in arriving(turns):
        start = time.perf_counter()
        less = await run(farm, count) or 0.0
        turns.report([(time.perf_counter() - start - less) / count])


async def run_noops(farm: parallel.Farm, count: int) -> None:
    """Read no-ops as they come."""
    number = 0
    async for _ in farm.imap_unordered(tasks.nothing, range(count)):
        number += 1
    assert number == count


async def run_generated(farm: parallel.Farm, count: int) -> None:
    """A hundred chains of tasks."""

    def master(task: tuple[int, None], result: int) -> list[tuple[int, None]]:
        return [(result - 100, None)] if result >= 100 else []

    await farm.compute(tasks.nothing, master, [(count - 1 - chain, None) for chain in range(100)])


async def run_kernel(name: str, grain: str, farm: parallel.Farm, count: int) -> None:
    """Compute."""
    fn, xs = tasks.make(name, grain, count)
    await farm.map(fn, xs)


async def run_provers(order: str, farm: parallel.Farm, count: int) -> None:
    """Sleep, longest first or in the order of the conditions."""
    times = tasks.run_times()
    assert count == len(times)
    if order == "longest":
        times.sort(reverse=True)
    assert sorted(await farm.map(tasks.nap, times)) == sorted(times)


async def run_naps(farm: parallel.Farm, count: int) -> float:
    """Sleep, in one worker; how long that took there."""
    return sum(await farm.map(tasks.timed_nap, [NAP] * count))


async def run_and_kill(kill: bool, farm: parallel.Farm, count: int) -> None:
    """Sleep; and kill a worker when a quarter has been done."""
    await until_there(farm, tasks.WORKERS)
    pids: list[int] = []
    async for pid in farm.imap_unordered(nap_and_tell, [LONG] * count):
        pids.append(pid)
        if kill and len(pids) == count // 4:
            await trio.sleep(LONG / 2)
            os.kill(pid, signal.SIGKILL)
    assert len(pids) == count


def nap_and_tell(seconds: float) -> int:
    """Sleep, and say where."""
    time.sleep(seconds)
    return os.getpid()
