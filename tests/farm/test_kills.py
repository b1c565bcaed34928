"""`kill -9` at random moments, of workers and all parts of a host, while 2,000 tasks run."""

from __future__ import annotations

import os
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio

import parallel
from parallel.farm import Policy
from parallel.farm.events import Event, TaskRetried
from parallel.launch.local import Local

from ..hosts import is_up, kill, named
from ..support import ROUNDS, eventually, marked_processes

TASKS = 2000
OTHER = Local(name="other", slots=2)
PATIENT = Policy(attempts=1000)


def work(x: int) -> int:
    end = time.perf_counter() + 0.0002
    while time.perf_counter() < end:
        pass
    return x * x


@asynccontextmanager
async def killing(victims: Callable[[], list[int]]) -> AsyncIterator[None]:
    """Some of these, while the block runs."""

    async def kill_some() -> None:
        for _ in range(random.randint(1, 3)):
            await trio.sleep(random.random() * 0.15)
            if pids := victims():
                kill(random.choice(pids))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(kill_some)
        yield
        nursery.cancel_scope.cancel()


async def squares(farm: parallel.Farm) -> None:
    assert await farm.map(work, range(TASKS), policy=PATIENT) == [x * x for x in range(TASKS)]


def workers_of(mark: str, farm: parallel.Farm) -> list[int]:
    """Their processes are named as they are; those of the other host too."""
    names = {f"parallel: {name}"[:15] for name in farm.workers}
    return [pid for pid, name in marked_processes(mark).items() if name in names]


@pytest.mark.slow
async def test_whatever_workers_are_killed_the_result_is_right(mark: str) -> None:
    async with parallel.init(grace=0.5), parallel.open_farm(workers=2) as farm:
        assert await farm.map(abs, range(100)) == list(range(100))
        assert workers_of(mark, farm)
        for _ in range(ROUNDS):
            async with killing(lambda: workers_of(mark, farm)):
                await squares(farm)


@pytest.mark.slow
@pytest.mark.parametrize(
    "program", ["parallel-agent", "parallel-keeper", "parallel-forkse", "workers"]
)
async def test_whatever_of_another_host_is_killed_the_result_is_right(
    program: str, mark: str
) -> None:
    cluster = parallel.Cluster([OTHER], root_slots=1)
    async with parallel.init(cluster=cluster, grace=0.5), parallel.open_farm() as farm:
        own = own_programs(mark)

        def victims() -> list[int]:
            if program == "workers":
                return workers_of(mark, farm)
            found = marked_processes(mark)
            return [pid for pid, name in found.items() if name == program and pid not in own]

        for _ in range(ROUNDS):
            if not is_up("other"):
                await cluster.add(OTHER)
            await eventually(lambda: sorted(farm.workers.values()) == ["other"] * 2 + ["root"], 60)
            async with killing(victims):
                await squares(farm)
            await squares(farm)
            if program != "workers":
                await eventually(lambda: not victims() or is_up("other"), 60)


def own_programs(mark: str) -> set[int]:
    """The keeper of the root's host, this process's child, and the fork server below it."""
    found = marked_processes(mark)
    keepers = {
        pid
        for pid, name in found.items()
        if name == "parallel-keeper" and parent(pid) == os.getpid()
    }
    below = {
        pid for pid, name in found.items() if name == "parallel-forkse" and parent(pid) in keepers
    }
    assert keepers and below
    return keepers | below


def parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


@pytest.mark.slow
async def test_a_killed_hosts_places_are_lost_and_come_again_with_it(mark: str) -> None:
    cluster = parallel.Cluster([OTHER], root_slots=1)
    async with parallel.init(cluster=cluster, grace=0.5), parallel.open_farm() as farm:
        await eventually(lambda: len(farm.workers) == 3, 60)
        for _ in range(3):
            kill(named(marked_processes(mark), "parallel-agent"))
            await eventually(lambda: list(farm.workers.values()) == ["root"], 60)
            await squares(farm)
            while is_up("other"):
                await trio.sleep(0.005)
            await cluster.add(OTHER)
            await eventually(lambda: sorted(farm.workers.values()) == ["other"] * 2 + ["root"], 60)


@pytest.mark.slow
async def test_a_number_of_workers_is_kept_when_a_host_is_lost_and_comes_again(mark: str) -> None:
    cluster = parallel.Cluster([OTHER], root_slots=1)
    async with parallel.init(cluster=cluster, grace=0.5), parallel.open_farm(workers=3) as farm:
        for _ in range(2):
            await eventually(lambda: sorted(farm.workers.values()) == ["other"] * 2 + ["root"], 60)
            kill(named(marked_processes(mark), "parallel-agent"))
            await eventually(lambda: list(farm.workers.values()) == ["root"] * 3, 60)
            await squares(farm)
            while is_up("other"):
                await trio.sleep(0.005)
            await cluster.add(OTHER)
            await squares(farm)
        await eventually(lambda: sorted(farm.workers.values()) == ["other"] * 2 + ["root"], 60)


@pytest.mark.slow
async def test_a_host_that_is_removed_in_the_midst_of_a_map_takes_no_task_along(mark: str) -> None:
    cluster = parallel.Cluster([OTHER], root_slots=1)
    async with parallel.init(cluster=cluster, grace=0.5), parallel.open_farm() as farm:
        for _ in range(3):
            await eventually(lambda: sorted(farm.workers.values()) == ["other"] * 2 + ["root"], 60)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(squares, farm)
                await trio.sleep(random.random() * 0.15)
                await cluster.remove("other")
            await eventually(lambda: list(farm.workers.values()) == ["root"], 60)
            await cluster.add(OTHER)


@pytest.mark.slow
async def test_a_farm_that_has_lost_its_last_host_fails_until_there_is_one_again(mark: str) -> None:
    cluster = parallel.Cluster([OTHER], root_slots=1)
    async with (
        parallel.init(cluster=cluster, grace=0.5),
        parallel.open_farm(workers={"other": 2}) as farm,
    ):
        await eventually(lambda: len(farm.workers) == 2, 60)
        kill(named(marked_processes(mark), "parallel-agent"))
        with pytest.raises(parallel.farm.NoWorkers):
            await farm.map(time.sleep, [1000.0] * 4)
        while is_up("other"):
            await trio.sleep(0.005)
        await cluster.add(OTHER)
        await eventually(lambda: len(farm.workers) == 2, 60)
        await squares(farm)


async def test_a_worker_killed_in_the_middle_costs_what_it_had(tree: None) -> None:
    def rest(x: int) -> tuple[int, int]:
        time.sleep(0.01)
        return x, os.getpid()

    async with parallel.open_farm(workers=2) as farm:
        events: list[Event] = []
        farm._engine.observers.append(events.append)
        got: list[int] = []
        async for x, pid in farm.imap_unordered(rest, range(300)):
            got.append(x)
            if len(got) == 150:
                kill(pid)
        assert sorted(got) == list(range(300))
        retried = [each for each in events if isinstance(each, TaskRetried)]
        assert len({each.worker for each in retried}) == 1
        numbers = [each.task.id for each in retried]
        assert len(numbers) == len(set(numbers)) <= 30  # two batches are four tasks
