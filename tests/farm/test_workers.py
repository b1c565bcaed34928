"""A farm's workers: kinds of them, those that come and go, and what is told of that."""

from __future__ import annotations

import os
import signal
import time
from contextlib import aclosing
from pathlib import Path

import pytest
import trio

import parallel
from parallel.farm import Kind, Policy, WorkerJoined, WorkerLeft
from parallel.launch.local import Local


def square(x: int) -> int:
    return x * x


def die(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def test_an_error_in_a_task_ends_no_worker_and_it_is_not_tried_again(
    farm: parallel.Farm, tmp_path: Path
) -> None:
    log = tmp_path / "log"

    def fail(x: int) -> None:
        with log.open("a") as file:
            file.write(f"{x}\n")
        raise LookupError(x)

    while len(farm.workers) < 2:
        await trio.sleep(0.01)
    before = farm.workers
    policy = Policy(retry=False)  # else it may be copied
    errors = await farm.map(fail, range(50), policy=policy, on_error="return")
    assert [type(error) for error in errors] == [LookupError] * 50
    assert sorted(map(int, log.read_text().split())) == list(range(50))
    assert farm.workers == before


@pytest.mark.slow
async def test_a_worker_that_is_busy_for_long_is_not_cut_off() -> None:
    """It cannot say a word meanwhile: what is asked whether it lives is its host's agent."""

    def hold_the_lock(seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            sum(range(5_000_000))

    cluster = parallel.Cluster([Local(name="other", slots=1)], root_slots=0)
    async with (
        parallel.init(cluster=cluster, heartbeat=1.0, grace=0.5),
        parallel.open_farm(workers={"other": 1}) as farm,
    ):
        await farm.map(square, [1])
        before = farm.workers
        await farm.map(hold_the_lock, [3.0], policy=Policy(retry=False))
        assert farm.workers == before


async def test_an_ordered_worker_gets_only_what_is_for_it(farm: parallel.Farm) -> None:
    name = await farm.add_worker("root", kind=Kind.ORDERED)
    algorithm = farm.algorithm(square)
    for x in range(20):
        await algorithm.submit(x)
        await algorithm.submit(x, worker=name, tag="own")
    async for done in farm.results():
        assert (done.worker == name) == (done.tag == "own")
    await farm.remove_worker(name)
    assert name not in farm.workers


async def test_an_intermingled_worker_takes_its_own_tasks_first_and_an_unordered_one_none(
    farm: parallel.Farm,
) -> None:
    mingled = await farm.add_worker("root", kind="intermingled")
    free = await farm.add_worker("root", kind="unordered")
    rest = farm.algorithm(time.sleep)
    for _ in range(100):
        await rest.submit(0.05)
    for _ in range(3):
        await rest.submit(0.05, worker=mingled, tag="own")
        await rest.submit(0.05, worker=free, tag="nobody's")
    results = [done async for done in farm.results()]
    assert len(results) == 103
    assert {done.tag for done in results if done.worker == free} == {None}
    own = [place for place, done in enumerate(results) if done.tag == "own"]
    assert {results[place].worker for place in own} == {mingled}
    assert max(own) < 50, "not behind a hundred others"
    assert [done.tag for done in farm.unrunnable()] == ["nobody's"] * 3


async def test_a_removed_worker_ends_what_it_is_at_and_hands_back_the_rest(
    farm: parallel.Farm, tmp_path: Path
) -> None:
    gate, log = tmp_path / "gate", tmp_path / "log"

    def wait(x: int) -> int:
        with log.open("a") as file:
            file.write(f"{x}\n")
        while x == 0 and not gate.exists():
            time.sleep(0.001)
        return x

    name = await farm.add_worker("root", kind=Kind.ORDERED)
    waiting = farm.algorithm(wait)
    await waiting.submit(0, worker=name, tag="at it")
    while not log.exists():
        await trio.sleep(0.001)
    await waiting.submit(1, worker=name, tag="for it")
    await waiting.submit(2, worker=name, do_it_anyway=True, tag="for anybody")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(farm.remove_worker, name)
        async with aclosing(farm.results()) as results:
            done = await anext(results)
            assert (done.tag, done.worker != name) == ("for anybody", True)
            assert name in farm.workers, "it is still at something"
            gate.touch()
            done = await anext(results)
            assert (done.tag, done.worker, done.attempts) == ("at it", name, 0)
    assert [done.tag for done in farm.unrunnable()] == ["for it"]
    assert sorted(log.read_text().split()) == ["0", "2"]


async def test_events_tell_of_a_worker_that_was_lost_and_of_the_one_that_follows(
    farm: parallel.Farm,
) -> None:
    while len(farm.workers) < 2:
        await trio.sleep(0.01)
    async with aclosing(farm.worker_events()) as events:
        there = [await anext(events), await anext(events)]
        assert {each.worker for each in there} == set(farm.workers)
        await farm.map(die, [33], policy=Policy(retry=False), on_error="return")
        left = await anext(events)
        assert isinstance(left, WorkerLeft) and isinstance(left.reason, parallel.WorkerDied)
        joined = await anext(events)
    assert isinstance(joined, WorkerJoined) and joined.worker not in {x.worker for x in there}


@pytest.mark.parametrize("workers", [0, -1, {"root": 1, "other": -1}])
async def test_a_number_of_workers_that_cannot_be_is_refused(workers: int, tree: None) -> None:
    with pytest.raises(ValueError, match="workers="):
        async with parallel.open_farm(workers=workers):
            raise AssertionError


async def test_a_farm_may_have_those_workers_alone_that_are_added(tree: None) -> None:
    async with parallel.open_farm(workers={}) as farm:
        assert farm.workers == {}
        await farm.add_worker("root")
        assert await farm.map(square, [3]) == [9]


async def test_a_worker_on_a_host_that_there_is_not_is_refused_and_the_farm_goes_on(
    farm: parallel.Farm,
) -> None:
    with pytest.raises(parallel.UnknownHost, match="elsewhere"):
        await farm.add_worker("elsewhere")
    assert await farm.map(square, [3]) == [9]


async def test_events_of_workers_end_with_their_farm(tree: None) -> None:
    seen: list[WorkerJoined | WorkerLeft] = []

    async def watch(farm: parallel.Farm) -> None:
        async for event in farm.worker_events():
            seen.append(event)

    async with trio.open_nursery() as nursery:
        async with parallel.open_farm(workers=1) as farm:
            nursery.start_soon(watch, farm)  # it ends with the farm
            await farm.map(square, [1])
    joined, left = seen
    assert isinstance(joined, WorkerJoined) and isinstance(left, WorkerLeft)
    assert joined.worker == left.worker
