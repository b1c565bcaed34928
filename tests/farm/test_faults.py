"""Whatever goes wrong with tasks and workers, caused on real ones: the rest goes on."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

import parallel
from parallel.farm import (
    Done,
    Kind,
    Policy,
    TaskLost,
    TaskTimeout,
    TaskUnrunnable,
    worker_state,
)
from parallel.farm.events import Event, WorkerLeft

from ..support import eventually, in_turn


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def observed(farm: parallel.Farm) -> list[Event]:
    seen: list[Event] = []
    farm._engine.observers.append(seen.append)
    return seen


def losses(events: list[Event]) -> int:
    return sum(isinstance(each, WorkerLeft) and each.reason is not None for each in events)


def departures(events: list[Event]) -> int:
    return sum(isinstance(each, WorkerLeft) for each in events)


async def all_results(farm: parallel.Farm) -> list[Done[Any]]:
    return [done async for done in farm.results()]


class Once:
    """A task that kills its worker the first time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, x: int) -> int:
        with self.path.open("a") as file:
            file.write(f"{x}\n")
        if x == 0 and self.path.read_text().count("0\n") == 1:
            die()
        return x

    @property
    def runs(self) -> int:
        return self.path.read_text().count("0\n")


@pytest.fixture
def once(tmp_path: Path) -> Once:
    return Once(tmp_path / "runs")


# -- the loss table ------------------------------------------------------------------------------


async def test_a_task_for_any_worker_is_queued_again(farm: parallel.Farm, once: Once) -> None:
    algorithm = farm.algorithm(once)
    await algorithm.submit(0)
    (done,) = await all_results(farm)
    assert (done.value, done.attempts, once.runs) == (0, 1, 2)


async def test_a_task_without_retry_is_given_up_and_has_run_once(
    farm: parallel.Farm, once: Once
) -> None:
    algorithm = farm.algorithm(once)
    await algorithm.submit(0, retry=False)
    await algorithm.submit(1, retry=False)
    results = {done.args[0]: done for done in await all_results(farm)}
    assert isinstance(results[0].error, TaskLost)
    assert isinstance(results[0].error.__cause__, parallel.WorkerDied)
    assert once.runs == 1
    assert results[1].unwrap() == 1


async def test_a_task_for_a_worker_that_is_lost_is_unrunnable(
    farm: parallel.Farm, once: Once
) -> None:
    name = await farm.add_worker("root", kind=Kind.ORDERED)
    algorithm = farm.algorithm(once)
    await algorithm.submit(0, worker=name, tag="first")
    await algorithm.submit(1, worker=name, tag="second")
    assert await all_results(farm) == []
    unrunnable = farm.unrunnable()
    assert [done.tag for done in unrunnable] == ["first", "second"]
    assert all(isinstance(done.error, TaskUnrunnable) for done in unrunnable)
    assert all(isinstance(done.error.__cause__, parallel.WorkerDied) for done in unrunnable)
    assert farm.unrunnable() == []
    assert once.runs == 1


async def test_a_task_for_a_worker_that_is_lost_is_done_anyway_where_it_may(
    farm: parallel.Farm, once: Once
) -> None:
    name = await farm.add_worker("root", kind=Kind.ORDERED)
    algorithm = farm.algorithm(once)
    await algorithm.submit(0, worker=name, do_it_anyway=True)
    (done,) = await all_results(farm)
    assert done.unwrap() == 0 and done.worker != name
    await algorithm.submit(1, worker=name, do_it_anyway=True)  # though it is gone by now
    (done,) = await all_results(farm)
    assert done.unwrap() == 1
    assert farm.unrunnable() == []


@in_turn("do_it_anyway", [False, True])
async def test_a_task_for_a_worker_that_never_was_is_unrunnable_at_once(
    farm: parallel.Farm, do_it_anyway: bool
) -> None:
    algorithm = farm.algorithm(abs)
    await algorithm.submit(1, worker="nobody", do_it_anyway=do_it_anyway)
    (done,) = farm.unrunnable()
    assert isinstance(done.error, TaskUnrunnable)
    assert await all_results(farm) == []


# -- poison --------------------------------------------------------------------------------------


def dies_at_half(x: int) -> int:
    if x == 50:
        die()
    return x


def exits_at_half(x: int) -> int:
    if x == 50:
        sys.exit(3)
    return x


def closes_everything_at_half(x: int) -> int:
    if x == 50:
        os.closerange(0, 1024)
    return x


def computes_and_dies_at_half(x: int) -> int:
    if x == 50:
        hold_the_lock(0.2)
        die()
    return x


@in_turn(
    "poison", [dies_at_half, exits_at_half, closes_everything_at_half, computes_and_dies_at_half]
)
@in_turn("attempts", [1, 3])
@pytest.mark.slow
async def test_poison_is_given_up_and_the_others_of_its_batch_are_not(
    farm: parallel.Farm, poison: Callable[[int], int], attempts: int
) -> None:
    assert await farm.map(abs, range(200)) == list(range(200))  # so that there are batches
    results: list[object] = list(
        await farm.map(poison, range(100), policy=Policy(attempts=attempts), on_error="return")
    )
    lost = results.pop(50)
    assert isinstance(lost, TaskLost), lost
    assert lost.attempts == attempts
    assert isinstance(lost.__cause__, parallel.WorkerDied)
    assert results == [x for x in range(100) if x != 50]


async def test_a_map_whose_task_is_given_up_says_which(farm: parallel.Farm) -> None:
    with pytest.raises(TaskLost, match=r"dies_at_half\(50\) lost its worker once"):
        await farm.map(dies_at_half, range(100), policy=Policy(attempts=1))
    assert await farm.map(abs, [-1]) == [1]


# -- timeouts ------------------------------------------------------------------------------------


def hold_the_lock(seconds: float) -> None:
    """So that no other thread and no signal handler runs."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(5_000_000))


def sleeps(x: int) -> int:
    if x == 5:
        time.sleep(1000)
    return x


async def sleeps_async(x: int) -> int:
    await trio.sleep(1000 if x == 5 else 0)
    return x


async def ignores_cancellation(x: int) -> int:
    if x == 5:
        with trio.CancelScope(shield=True):
            await trio.sleep(1000)
    return x


def matches(x: int) -> int:
    if x == 5:
        re.match(r"(a+)+$", "a" * 60 + "b")  # takes for ever, and holds the lock
    return x


@in_turn("stuck", [sleeps, sleeps_async, ignores_cancellation, matches])
@pytest.mark.slow
async def test_a_task_over_its_timeout_is_ended_alone(
    farm: parallel.Farm, stuck: Callable[[int], Any]
) -> None:
    results: list[object] = list(
        await farm.map(stuck, range(20), policy=Policy(timeout=0.5), on_error="return")
    )
    error = results.pop(5)
    assert isinstance(error, TaskTimeout) and error.timeout == 0.5
    assert results == [x for x in range(20) if x != 5]


async def test_no_task_is_judged_by_time_that_the_program_was_busy_itself(
    farm: parallel.Farm,
) -> None:
    def rest(x: int) -> int:
        time.sleep(0.05)
        return x

    results: list[int] = []
    async for y in farm.imap_unordered(rest, range(12), policy=Policy(timeout=0.5)):
        results.append(y)
        if len(results) in (2, 5):
            time.sleep(1.5)
    assert sorted(results) == list(range(12))


# -- stragglers ----------------------------------------------------------------------------------


class Straggler:
    """A task that takes for ever the first time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, x: int) -> int:
        if x == 3:
            try:
                self.path.touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                time.sleep(1000)
        time.sleep(0.01)
        return x


async def test_a_copy_of_a_straggler_runs_where_nobody_else_does_and_counts(
    farm: parallel.Farm, tmp_path: Path
) -> None:
    events = observed(farm)
    assert await farm.map(Straggler(tmp_path / "began"), range(10)) == list(range(10))
    await eventually(lambda: departures(events) == 1)  # the one that still slept
    assert losses(events) == 0


async def test_without_backups_there_is_no_copy(tmp_path: Path, tree: None) -> None:
    async with parallel.open_farm(workers=2, backups=False) as farm:
        algorithm = farm.algorithm(Straggler(tmp_path / "began"))
        for x in (0, 1, 2):
            await algorithm.submit(x)
        assert sorted([done.value async for done in farm.results()]) == [0, 1, 2]
        await algorithm.submit(3)  # alone, so that nobody takes it as one that waits
        with trio.move_on_after(1.0) as limit:
            async for _ in farm.results():
                pass
        assert limit.cancelled_caught, "a second one would have ended at once"


@pytest.mark.slow
async def test_what_waits_behind_a_slow_task_is_done_elsewhere(farm: parallel.Farm) -> None:
    def slow_at_20(x: int) -> int:
        time.sleep(3 if x == 20 else 0.001)
        return x

    assert await farm.map(slow_at_20, range(20)) == list(range(20))
    seen = []
    async with farm.imap_unordered(slow_at_20, range(60)) as results:
        async for y in results:
            seen.append(y)
    assert sorted(seen) == list(range(60))
    assert seen.index(20) >= 58


async def test_closing_early_ends_no_worker_that_has_only_short_tasks(farm: parallel.Farm) -> None:
    events = observed(farm)
    for _ in range(30):
        async with farm.imap_unordered(abs, range(100_000)) as results:
            async for _ in results:
                break
    assert await farm.map(abs, range(100)) == list(range(100))
    assert departures(events) == 0


# -- setup ---------------------------------------------------------------------------------------


class Setup:
    def __init__(self, enter: Callable[[], Any], leave: Callable[[], Any] = lambda: None) -> None:
        self.enter = enter
        self.leave = leave

    @contextmanager
    def __call__(self) -> Any:
        yield self.enter()
        self.leave()


def fail() -> None:
    raise LookupError("as told")


async def test_what_setup_raises_is_raised_here(tree: None) -> None:
    with pytest.raises(LookupError, match="as told"):
        async with parallel.open_farm(workers=2, setup=Setup(fail)) as farm:
            await farm.map(abs, [1])


async def test_what_setup_raises_at_the_end_is_raised_here(tree: None) -> None:
    with pytest.raises(LookupError, match="as told"):
        async with parallel.open_farm(workers=1, setup=Setup(os.getpid, fail)) as farm:
            assert await farm.map(abs, [1]) == [1]


async def test_a_setup_that_kills_its_worker_leaves_no_worker(tree: None) -> None:
    with pytest.raises(parallel.farm.NoWorkers) as caught:
        async with parallel.open_farm(workers=1, setup=Setup(die)) as farm:
            await farm.map(abs, [1])
    assert isinstance(caught.value.__cause__, parallel.WorkerDied)


@in_turn("hang", [lambda: time.sleep(1000), lambda: hold_the_lock(1000)])
async def test_a_farm_whose_setup_hangs_can_be_left(hang: Callable[[], Any], tree: None) -> None:
    async with parallel.open_farm(workers=1, setup=Setup(hang)):
        await trio.sleep(0.2)


@asynccontextmanager
async def state() -> AsyncIterator[dict[str, int]]:
    yield {"calls": 0}


def count(_: int) -> int:
    mine: dict[str, int] = worker_state()
    mine["calls"] += 1
    return mine["calls"]


async def test_tasks_have_the_state_of_their_worker(tree: None) -> None:
    async with parallel.open_farm(workers=1, setup=state) as farm:
        assert await farm.map(count, range(3)) == [1, 2, 3]


# -- what cannot be sent or read -----------------------------------------------------------------


def refuse(*_: object) -> Any:
    raise LookupError("not here")


class Unwelcome:
    """Can be sent, and not be read where it arrives."""

    def __reduce__(self) -> tuple[Any, ...]:
        return refuse, ()


class Unsendable:
    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("not me")


async def test_a_function_that_a_worker_cannot_read_fails_the_call(farm: parallel.Farm) -> None:
    guest = Unwelcome()
    with pytest.raises(parallel.RemoteError, match="not here"):
        await farm.map(lambda x: (x, guest), range(10))
    assert await farm.map(abs, [-1]) == [1]


async def test_a_function_that_cannot_be_sent_fails_the_call_and_ends_no_worker(
    farm: parallel.Farm,
) -> None:
    events = observed(farm)
    guest = Unsendable()
    with pytest.raises(parallel.NotSendable):
        await farm.map(lambda x: (x, guest), range(10))
    assert await farm.map(abs, [-1]) == [1]
    assert departures(events) == 0


@in_turn("guest", [Unwelcome(), Unsendable()])
async def test_an_argument_that_does_not_arrive_fails_alone(
    farm: parallel.Farm, guest: object
) -> None:
    assert await farm.map(abs, range(200)) == list(range(200))
    arguments: list[object] = [*range(100), guest, *range(100, 200)]
    results: list[Any] = list(await farm.map(type, arguments, on_error="return"))
    error = results.pop(100)
    assert isinstance(error, parallel.NotSendable | parallel.RemoteError)
    assert results == [int] * 200


@in_turn("guest", [Unwelcome, Unsendable])
@in_turn("limit", [None, 100.0])
async def test_a_result_that_does_not_arrive_fails_alone(
    farm: parallel.Farm, guest: Callable[[], Any], limit: float | None
) -> None:
    def bring(x: int) -> object:
        return guest() if x in (50, 51) else x

    results: list[Any] = list(
        await farm.map(bring, range(100), policy=Policy(timeout=limit), on_error="return")
    )
    for _ in range(2):
        error = results.pop(50)
        assert isinstance(error, parallel.NotSendable | parallel.RemoteError), error
    assert results == [x for x in range(100) if x not in (50, 51)]


@pytest.mark.slow
async def test_a_timeout_is_kept_behind_a_result_that_cannot_be_read(farm: parallel.Farm) -> None:
    def bring(x: int) -> object:
        if x % 2:
            time.sleep(1000)
        return Unwelcome()

    policy = Policy(timeout=0.3)
    results = await farm.map(bring, range(6), policy=policy, on_error="return")
    assert [type(each) for each in results] == [parallel.RemoteError, TaskTimeout] * 3


async def test_deep_in_its_stack_a_task_is_not_disturbed(farm: parallel.Farm) -> None:
    def dive(x: int) -> int:
        if x % 10:
            return x

        def down(depth: int) -> int:
            try:
                return down(depth + 1)
            except RecursionError:
                hold = time.monotonic() + 0.03
                while time.monotonic() < hold:
                    pass
                return depth

        return 0 if down(0) else 1

    assert await farm.map(dive, range(50)) == [x if x % 10 else 0 for x in range(50)]


# -- what tasks may do ---------------------------------------------------------------------------


async def test_a_task_may_write_to_stdout(
    farm: parallel.Farm, capfd: pytest.CaptureFixture[str]
) -> None:
    await farm.map(print, range(10))
    assert {*capfd.readouterr().out.split()} == {str(x) for x in range(10)}  # some may run twice


async def test_a_task_may_run_processes_and_a_farm_of_its_own(farm: parallel.Farm) -> None:
    async def nested(x: int) -> int:
        async with parallel.open_farm(workers=1) as inner:
            return sum(await inner.map(abs, range(x))) + await parallel.run(abs, -x)

    assert await farm.map(nested, range(4)) == [0, 1, 3, 6]


# -- leaving -------------------------------------------------------------------------------------


@in_turn("stuck", [sleeps, sleeps_async, matches])
@pytest.mark.slow
async def test_leaving_by_an_exception_ends_the_tasks(
    stuck: Callable[[int], Any], tree: None
) -> None:
    with pytest.raises(LookupError, match="as told"):
        async with parallel.open_farm(workers=2) as farm:
            async with farm.imap_unordered(stuck, range(7)) as results:
                await anext(results)
                fail()


@pytest.mark.slow
async def test_leaving_by_cancellation_ends_the_tasks(tree: None) -> None:
    with trio.move_on_after(0.5) as limit:
        async with parallel.open_farm(workers=2) as farm, trio.open_nursery() as nursery:
            nursery.start_soon(farm.map, sleeps, [5])
            nursery.start_soon(farm.map, matches, [5])
    assert limit.cancelled_caught


async def test_leaving_ends_tasks_that_nobody_waits_for(tree: None) -> None:
    async with parallel.open_farm(workers=2) as farm:
        results = farm.imap(sleeps, range(10))
        assert await anext(results) == 0


async def test_a_farm_on_no_such_host_says_so(tree: None) -> None:
    with pytest.raises(parallel.UnknownHost):
        async with parallel.open_farm(workers={"nowhere": 1}) as farm:
            await farm.map(abs, [1])


async def test_a_farm_outside_of_init_says_so() -> None:
    with pytest.raises(parallel.ParallelError, match=r"parallel\.init"):
        async with parallel.open_farm() as farm:
            await farm.map(abs, [1])
