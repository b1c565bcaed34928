"""The farm as its users see it, on processes of this machine."""

from __future__ import annotations

import operator
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NoReturn

import pytest
import trio
import trio.testing

import parallel
from parallel.farm import (
    Done,
    Kind,
    Policy,
    Status,
    TaskLost,
    TaskTimeout,
    WorkerJoined,
    WorkerLeft,
)


@pytest.fixture
async def farm(tree: None) -> AsyncIterator[parallel.Farm]:
    async with parallel.open_farm(workers=2) as farm:
        yield farm


def square(x: int) -> int:
    return x * x


async def later(x: int) -> int:
    await trio.sleep(0.001)
    return x + 1


async def test_map_keeps_the_order(farm: parallel.Farm) -> None:
    assert await farm.map(square, range(1000)) == [x * x for x in range(1000)]


async def test_functions_may_be_async(farm: parallel.Farm) -> None:
    assert await farm.map(later, range(20)) == list(range(1, 21))


async def test_imap_unordered_gives_each_result_once(farm: parallel.Farm) -> None:
    results = [y async for y in farm.imap_unordered(square, range(1000))]
    assert sorted(results) == [x * x for x in range(1000)]


async def test_folds_come_to_what_a_loop_comes_to(farm: parallel.Farm) -> None:
    for fold in (farm.map_local_fold, farm.map_remote_fold, farm.map_fold_ac):
        assert await fold(square, operator.add, 0, range(100)) == 328_350
    digits = await farm.map_fold_a(str, operator.add, "", range(100))
    assert digits == "".join(map(str, range(100)))


async def test_results_may_make_new_tasks(farm: parallel.Farm) -> None:
    seen: list[tuple[int, str]] = []

    def master(task: tuple[int, str], result: int) -> list[tuple[int, str]]:
        seen.append((result, task[1]))
        return [(task[0] - 1, task[1] + c) for c in "ab"] if task[0] else []

    await farm.compute(square, master, [(3, "")])
    assert len(seen) == len(set(seen)) == 15
    assert sorted(result for result, _ in seen) == [0] * 8 + [1] * 4 + [4] * 2 + [9]


def fails_at_57(x: int) -> int:
    if x == 57:
        raise ValueError(x)
    return x


async def test_an_exception_ends_the_call_and_says_which_task_had_it(farm: parallel.Farm) -> None:
    with pytest.raises(ValueError, match="57") as caught:
        await farm.map(fails_at_57, range(1000))
    assert "fails_at_57(57)" in caught.value.__notes__[0]
    assert await farm.map(square, [3]) == [9]


async def test_an_exception_can_stand_for_its_result(farm: parallel.Farm) -> None:
    results: list[object] = list(await farm.map(fails_at_57, range(100), on_error="return"))
    assert isinstance(results.pop(57), ValueError)
    assert results == [x for x in range(100) if x != 57]


def dies_at_33(x: int) -> int:
    if x == 33:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


async def test_a_task_that_kills_its_workers_is_given_up_and_the_rest_goes_on(
    farm: parallel.Farm,
) -> None:
    results: list[object] = list(await farm.map(dies_at_33, range(100), on_error="return"))
    lost = results.pop(33)
    assert isinstance(lost, TaskLost) and lost.attempts == 3
    assert isinstance(lost.__cause__, parallel.WorkerDied)
    assert results == [x for x in range(100) if x != 33]


def hangs_at_3(x: int) -> int:
    if x == 3:
        time.sleep(1000)
    return x


async def test_a_task_over_its_timeout_is_ended_alone(farm: parallel.Farm) -> None:
    results: list[object] = list(
        await farm.map(hangs_at_3, range(10), policy=Policy(timeout=0.3), on_error="return")
    )
    assert isinstance(results.pop(3), TaskTimeout)
    assert results == [x for x in range(10) if x != 3]


async def test_find_map_ends_the_other_tasks(farm: parallel.Farm) -> None:
    def look(x: int) -> int | None:
        if x == 4:
            time.sleep(1000)
        return x if x > 20 else None

    found = await farm.find_map(look, range(1000))
    assert found is not None and found > 20


async def test_an_endless_async_input_is_read_as_far_as_results_are(farm: parallel.Farm) -> None:
    read = 0

    async def count() -> AsyncIterator[int]:
        nonlocal read
        while True:
            yield read
            read += 1

    async for y in farm.imap(square, count()):
        if y == 100**2:
            break
    assert y == 100**2
    before = read
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert read - before <= 1


async def test_a_computation_goes_step_by_step(farm: parallel.Farm) -> None:
    got: list[int] = []

    def master(_: tuple[int, None], result: int) -> None:
        got.append(result)

    computation = farm.computation(square, master)
    assert computation.status is Status.DONE
    for x in range(3):
        computation.add_task((x, None))
    assert computation.pending == 3
    while await computation.step(timeout=10) is Status.RUNNING:
        pass
    assert sorted(got) == [0, 1, 4]
    computation.kill()
    assert computation.status is Status.DEAD
    with pytest.raises(trio.ClosedResourceError):
        computation.add_task((1, None))


async def test_an_algorithm_waits_at_its_target_and_results_come_with_their_tags(
    farm: parallel.Farm,
) -> None:
    algorithm = farm.algorithm(square, target=5)
    results: list[Done[int]] = []

    async def submit() -> None:
        async with algorithm:
            for x in range(50):
                await algorithm.submit(x, tag=f"#{x}")
                assert algorithm.pending <= 5
            await algorithm.submit(0, worker="nobody")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(submit)
        await trio.testing.wait_all_tasks_blocked()
        async for done in farm.results():
            results.append(done)
    assert {done.tag: done.value for done in results} == {f"#{x}": x * x for x in range(50)}
    (unrunnable,) = farm.unrunnable()
    assert unrunnable.worker == "nobody"


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


async def test_outside_of_init_there_is_no_farm() -> None:
    with pytest.raises(parallel.ParallelError, match="init"):
        async with parallel.open_farm():
            pass


async def test_what_setup_raises_is_raised_around_the_farm(tree: None) -> None:
    def setup() -> NoReturn:
        raise ValueError("no database here")

    with pytest.raises(ValueError, match="no database here"):
        async with parallel.open_farm(setup=setup) as farm:
            await farm.map(square, [1])


async def test_a_worker_on_a_host_that_there_is_not_is_refused_and_the_farm_goes_on(
    farm: parallel.Farm,
) -> None:
    with pytest.raises(parallel.UnknownHost, match="elsewhere"):
        await farm.add_worker("elsewhere")
    assert await farm.map(square, [3]) == [9]


async def test_a_slow_task_at_the_head_of_a_map_stops_nobody(
    farm: parallel.Farm, tmp_path: Path
) -> None:
    last = tmp_path / "last"

    async def first_waits_for_last(x: int) -> int:
        if x == 9_999:
            last.touch()
        while x == 0 and not last.exists():
            await trio.sleep(0.01)
        return x

    assert await farm.map(first_waits_for_last, range(10_000)) == list(range(10_000))


async def test_events_of_workers_end_with_their_farm(tree: None) -> None:
    seen: list[WorkerJoined | WorkerLeft] = []

    async def watch(farm: parallel.Farm) -> None:
        async for event in farm.worker_events():
            seen.append(event)

    async with trio.open_nursery() as nursery:
        async with parallel.open_farm(workers=1) as farm:
            nursery.start_soon(watch, farm)  # noqa: ASYNC111  # it ends with the farm
            await farm.map(square, [1])
    joined, left = seen
    assert isinstance(joined, WorkerJoined) and isinstance(left, WorkerLeft)
    assert joined.worker == left.worker


async def test_a_closed_algorithm_takes_no_tasks_and_what_had_ended_can_be_taken(
    farm: parallel.Farm,
) -> None:
    algorithm = farm.algorithm(square)
    await algorithm.submit(3)
    while not farm._mailbox.done:
        await trio.sleep(0.001)
    algorithm.close()
    with pytest.raises(trio.ClosedResourceError):
        await algorithm.submit(4)
    assert [done.value async for done in farm.results()] == [9]
    assert farm.pending == farm.target == 0
