"""What a farm says it has done."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator

import pytest
import trio

import parallel
from parallel.farm import Policy
from parallel.farm.statistics import MOST_FUNCTIONS, OTHERS, WINDOW, Tally
from parallel.farm.stream import Stream
from parallel.farm.tasks import DEFAULT_POLICY, Job


@pytest.fixture
async def farm(tree: None) -> AsyncIterator[parallel.Farm]:
    async with parallel.open_farm(workers=2, backups=False) as farm:
        yield farm


def square(x: int) -> int:
    time.sleep(0.001)
    return x * x


def fails_at_3(x: int) -> int:
    if x == 3:
        raise ValueError(x)
    return x


def dies_at_3(x: int) -> int:
    if x == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


async def test_it_begins_with_nothing(farm: parallel.Farm) -> None:
    empty = farm.statistics()
    assert (empty.done, empty.failed, empty.lost, empty.running, empty.waiting) == (0,) * 5
    assert empty.functions == () and empty.rate == 0.0


async def test_tasks_are_counted_by_what_became_of_them(farm: parallel.Farm) -> None:
    await farm.map(square, range(20))
    await farm.map(fails_at_3, range(10), on_error="return")
    await farm.map(dies_at_3, range(10), policy=Policy(attempts=2), on_error="return")
    await farm.map(time.sleep, [1000], policy=Policy(timeout=0.05), on_error="return")
    algorithm = farm.algorithm(square)
    await algorithm.submit(1, worker="nobody")
    counts = farm.statistics()
    assert counts.done == 20 + 9 + 9
    assert counts.failed == 1 + 1
    assert counts.lost == 1 + 1
    assert counts.retried >= 1
    assert counts.ended == 42
    assert counts.running == counts.waiting == 0


async def test_functions_and_workers_have_counts_of_their_own(farm: parallel.Farm) -> None:
    await farm.map(square, range(20))
    await farm.map(abs, range(5))
    counts = farm.statistics()
    names = {each.name: each for each in counts.functions}
    assert names["square"].done == 20 and names["abs"].done == 5
    assert names["square"].seconds >= 0.001
    assert counts.seconds >= 20 * 0.001
    assert {each.name for each in counts.workers} == set(farm.workers)
    assert {each.place for each in counts.workers} == {"root"}
    assert sum(each.done for each in counts.workers) >= 25
    assert sum(each.busy for each in counts.workers) >= 20 * 0.001


@pytest.mark.own_tree
async def test_what_is_under_way_is_with_workers_or_waits(farm: parallel.Farm) -> None:
    algorithm = farm.algorithm(time.sleep)
    for _ in range(10):
        await algorithm.submit(1000)
    while len(farm.workers) < 2:
        await trio.sleep(0.01)
    counts = farm.statistics()
    assert 2 <= counts.running <= 4, "one to run and one so that nobody waits"
    assert counts.running + counts.waiting == 10
    assert counts.done == 0


class Nobody:
    """Who owns the streams below."""

    def wanted(self, job: Job) -> int:
        raise NotImplementedError

    def submit(self, *args: object) -> None:
        raise NotImplementedError

    def next_number(self) -> int:
        raise NotImplementedError

    def close_stream(self, stream: Stream) -> None:
        raise NotImplementedError


def stream(name: str, tasks: int) -> Stream:
    """One whose tasks have all ended."""
    job = Job(0, name)
    for _ in range(tasks):
        job.measured(0.5)
    new = Stream(Nobody(), job, print, DEFAULT_POLICY)
    new._added = tasks
    return new


async def test_however_many_functions_there_are_memory_is_bounded() -> None:
    tally = Tally(0.0)
    for number in range(2 * MOST_FUNCTIONS):
        tally.close(stream(f"f{number}", 1))
    functions = tally.summary([], (), 1.0).functions
    assert len(functions) == MOST_FUNCTIONS + 1
    assert functions[-1] == (OTHERS, MOST_FUNCTIONS, 0.5)


async def test_the_rate_is_that_of_the_last_seconds() -> None:
    tally, under_way = Tally(0.0), stream("f", 0)
    for second in range(100):
        under_way._added += 5 if second < 50 else 20
        tally.sample([under_way], second + 1.0)
    assert tally.summary([under_way], (), 100.0).rate == pytest.approx(20)
    assert tally.summary([under_way], (), 100.0 + 3 * WINDOW).rate == 0.0


async def test_how_many_tasks_there_will_be_is_known_where_all_calls_say_so() -> None:
    tally, open_ended, sized = Tally(0.0), stream("f", 3), stream("g", 2)
    sized.total = 10
    tally.close(stream("h", 4))
    assert tally.expected([sized]) == 14
    assert tally.expected([sized, open_ended]) == 17
    open_ended.job.tasks = 1
    assert tally.expected([sized, open_ended]) is None
