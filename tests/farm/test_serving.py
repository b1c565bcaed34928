"""What runs the tasks in a worker, told and heard message by message."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

import parallel
from parallel.farm.messages import Ask, Define, Drop, Forget, Order, Report, Run, Unreadable
from parallel.farm.serving import serve


class Worker:
    """A real one, and what it has said."""

    def __init__(self, channel: parallel.Channel[Any, Any]) -> None:
        self.channel = channel
        self.reports: list[Report] = []

    async def tell(self, *orders: Order) -> None:
        for order in orders:
            await self.channel.send(order)

    async def run(self, fn: Callable[..., Any], numbers: list[int], *, timed: bool = False) -> None:
        arguments = [(number,) for number in numbers]
        await self.tell(Define(0, fn), Run(0, numbers, arguments, timed))

    async def until(self, *numbers: int) -> dict[int, Any]:
        """What came of these."""
        while not {*numbers} <= self.done.keys():
            answer = await self.channel.receive()
            assert isinstance(answer, Report)
            self.reports.append(answer)
        return self.done

    @property
    def done(self) -> dict[int, Any]:
        return {each.task: each.value for report in self.reports for each in report.results}

    @property
    def begun(self) -> list[int]:
        return [report.begun for report in self.reports if report.begun is not None]


@pytest.fixture
async def worker(tree: None) -> AsyncIterator[Worker]:
    async with parallel.spawn(serve, None) as (channel, _):
        ready = await channel.receive()
        assert ready.results == []
        yield Worker(channel)


def same(x: int) -> int:
    return x


async def test_short_tasks_are_reported_together_and_in_their_order(worker: Worker) -> None:
    await worker.run(same, list(range(200)))
    assert list(await worker.until(199)) == list(range(200))
    assert len(worker.reports) < 100
    assert worker.reports[-1].read == 2


async def test_from_within_a_long_task_it_is_said_that_it_runs(worker: Worker) -> None:
    def long_at_3(x: int) -> int:
        time.sleep(0.2 if x == 3 else 0)
        return x

    await worker.run(long_at_3, list(range(5)))
    await worker.until(4)
    report = next(each for each in worker.reports if each.busy and each.begun == 3)
    assert 3 not in {result.task for result in report.results}


async def test_from_an_async_task_it_is_said_that_it_takes_long(worker: Worker) -> None:
    async def long_at_3(x: int) -> int:
        await trio.sleep(0.2 if x == 3 else 0)
        return x

    await worker.run(long_at_3, list(range(5)))
    await worker.until(4)
    assert any(report.busy and report.begun == 3 for report in worker.reports)


def wait_at_0(gate: Path) -> Callable[[int], int]:
    """That task waits for the file."""

    def fn(x: int) -> int:
        while x == 0 and not gate.exists():
            time.sleep(0.001)
        return x

    return fn


async def test_a_timed_task_is_announced_also_behind_dropped_ones(
    worker: Worker, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    await worker.run(wait_at_0(gate), list(range(6)), timed=True)
    await worker.tell(Drop([1, 2, 4]))
    gate.touch()
    await worker.until(5)
    assert {0, 3, 5} <= set(worker.begun)
    assert set(worker.done) == set(worker.begun), "whatever is run was announced"
    assert all(report.busy for report in worker.reports if report.begun is not None)


async def test_what_was_said_to_be_begun_is_run_though_it_is_dropped(worker: Worker) -> None:
    await worker.run(same, list(range(50)), timed=True)
    for number in range(50):
        await worker.tell(Drop([number]))
    await worker.tell(Run(0, [100], [(100,)], False))
    await worker.until(100)
    assert set(worker.begun) <= set(worker.done)


async def test_dropped_and_sent_again_a_task_is_run(worker: Worker, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    await worker.run(wait_at_0(gate), [0])
    await worker.tell(Run(0, [1, 2], [(1,), (2,)], False), Drop([1]), Run(0, [1], [(1,)], False))
    gate.touch()
    await worker.until(1, 2)
    assert list(worker.done) == [0, 2, 1]


async def test_it_answers_when_asked(worker: Worker) -> None:
    await worker.tell(Ask())
    assert await worker.channel.receive() == Report([], None, False, 0)


async def test_a_message_that_cannot_be_read_is_named(worker: Worker) -> None:
    class Unwelcome:
        def __reduce__(self) -> tuple[Any, ...]:
            return eval, ("1 / 0",)

    await worker.run(same, [0])
    await worker.until(0)
    await worker.tell(Run(0, [1], [(Unwelcome(),)], False))
    answer = await worker.channel.receive()
    assert isinstance(answer, Unreadable) and answer.number == 2
    assert "ZeroDivisionError" in str(answer.error.exception)


async def test_a_forgotten_function_is_gone(worker: Worker) -> None:
    await worker.run(same, [0])
    await worker.tell(Forget(0), Run(0, [1], [(1,)], False))
    done = await worker.until(1)
    assert isinstance(done[1].exception, KeyError)


async def test_its_end_waits_for_what_it_was_sent(tree: None) -> None:
    async with parallel.spawn(serve, None) as (channel, process):
        await channel.receive()
        worker = Worker(channel)
        await worker.run(same, list(range(20)))
        await channel.send_eof()
        await worker.until(19)
        with pytest.raises(trio.EndOfChannel):
            while True:
                await channel.receive()
    assert await process.result() is None
