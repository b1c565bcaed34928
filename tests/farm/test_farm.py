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
    Policy,
    Status,
    TaskLost,
    TaskTimeout,
)


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
    await is_at_rest(farm)


async def is_at_rest(farm: parallel.Farm) -> None:
    """No task is left, and each worker has been heard of, or replaced."""
    counts = farm.statistics()
    assert counts.running == counts.waiting == 0
    workers = await farm.map(where, range(50))
    while len(set(workers)) < 2:
        workers = await farm.map(where, range(50))


def where(_: int) -> int:
    time.sleep(0.005)
    return os.getpid()


@pytest.mark.parametrize("fails", ["worker", "master"])
async def test_an_exception_ends_the_other_tasks_of_a_call(farm: parallel.Farm, fails: str) -> None:
    def work(x: int) -> int:
        if x == 1 and fails == "worker":
            raise LookupError("as told")
        time.sleep(1000 if x == 0 else 0)
        return x

    def master(task: tuple[int, None], result: int) -> None:
        if fails == "master":
            raise LookupError("as told")

    with pytest.raises(LookupError, match="as told"):
        await farm.compute(work, master, [(x, None) for x in range(10)])
    await is_at_rest(farm)


@pytest.mark.slow
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


async def test_computations_go_on_at_the_same_time_and_one_after_the_other(
    farm: parallel.Farm,
) -> None:
    def collatz(n: int) -> int:
        return n // 2 if n % 2 == 0 else 3 * n + 1

    steps = dict.fromkeys(range(2, 30), 0)

    def master(task: tuple[int, int], result: int) -> list[tuple[int, int]]:
        steps[task[1]] += 1
        return [(result, task[1])] if result != 1 else []

    for starts in (range(2, 16), range(16, 30)):
        computations = []
        for start in starts:
            computations.append(farm.computation(collatz, master))
            computations[-1].add_task((start, start))
        async with trio.open_nursery() as nursery:
            for computation in computations[1:]:
                nursery.start_soon(computation.run)
            while await computations[0].step() is Status.RUNNING:
                pass
        assert all(each.status is Status.DONE for each in computations)
    for start, count in steps.items():
        n = start
        for _ in range(count):
            n = collatz(n)
        assert n == 1 and count > 0
    assert (steps[27], steps[16]) == (111, 4)


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


async def test_the_farm_counts_what_all_its_algorithms_want(farm: parallel.Farm) -> None:
    squares, sleeps = farm.algorithm(square, target=5), farm.algorithm(time.sleep, target=10)
    assert (farm.pending, farm.target, farm.wanted) == (0, 15, 15)
    for x in range(3):
        await squares.submit(x)
        await sleeps.submit(0.01)
    assert (farm.pending, farm.target, farm.wanted) == (6, 15, 9)
    async for done in farm.results():
        assert (done.seconds >= 0.01) == (done.algorithm is sleeps)
    assert (farm.pending, farm.target, farm.wanted) == (0, 15, 15)


async def test_what_cannot_be_called_or_understood_is_refused(farm: parallel.Farm) -> None:
    with pytest.raises(TypeError, match="None is none"):
        await farm.map(None, [1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="on_error='rase'"):
        farm.imap(square, [1], on_error="rase")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="timeout=nan"):
        Policy(timeout=float("nan"))
    with pytest.raises(ValueError, match="attempts=0"):
        Policy(attempts=0)
    with pytest.raises(ValueError, match="odd"):
        await farm.add_worker("root", kind="odd")
    assert await farm.map(square, [3]) == [9]


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
