"""A desk: orders go out in order, and what goes wrong with one is said of it alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

import parallel
from parallel import NotSendable, RemoteError
from parallel.farm.deployment import WorkerLost
from parallel.farm.desk import Desk
from parallel.farm.messages import Ask, Define, Forget, Report, Run, Unreadable
from parallel.farm.tasks import Job, Result, Task

from .pretend import PretendSeat


class Office:
    """Hears what a desk says."""

    def __init__(self) -> None:
        self.functions: dict[int, Callable[..., Any]] = {0: abs, 1: len}
        self.spoiled: list[int] = []
        self.reports: list[Report] = []
        self.never_sent: list[int] = []
        self.missed: list[list[int]] = []
        self.held: list[int] = []

    def function(self, job: int) -> Callable[..., Any] | None:
        return self.functions.get(job)

    def spoil(self, job: int, error: BaseException) -> None:
        self.spoiled.append(job)

    def report(self, desk: Desk, report: Report) -> None:
        self.reports.append(report)
        for result in report.results:
            self.held.remove(result.task)

    def unsent(self, desk: Desk, tasks: list[int]) -> None:
        self.never_sent += tasks

    def miss(self, desk: Desk, tasks: list[int], error: BaseException) -> None:
        self.missed.append(tasks)

    def holds(self, name: str) -> list[int]:
        return list(self.held)


class Scene:
    def __init__(self) -> None:
        self.office = Office()
        self.seat = PretendSeat()
        self.scope = trio.CancelScope()
        self.desk = Desk(self.office, self.seat, "w", "here", self.scope)
        self.jobs = [Job(0), Job(1), Job(2)]
        self.number = 0

    def tasks(self, job: int, count: int) -> list[Task]:
        made = [Task(self.number + each, self.jobs[job], (each,)) for each in range(count)]
        self.number += count
        self.office.held += [task.id for task in made]
        return made

    def runs(self) -> list[list[int]]:
        return [order.tasks for order in self.seat.sent if isinstance(order, Run)]


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    made = Scene()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.desk.work)
        yield made
        nursery.cancel_scope.cancel()


settled = trio.testing.wait_all_tasks_blocked


async def test_a_function_is_sent_before_its_first_tasks() -> None:
    async with scene() as here:
        here.desk.post_tasks(here.tasks(0, 2))
        here.desk.post_tasks(here.tasks(0, 1))
        here.desk.post(Forget(0))
        await settled()
        kinds = [type(order) for order in here.seat.sent]
        assert kinds == [Define, Run, Run, Forget]


async def test_tasks_that_nobody_wants_any_more_are_not_sent_and_that_is_said() -> None:
    async with scene() as here:
        here.desk.post_tasks(here.tasks(2, 2))
        await settled()
        assert here.seat.sent == [] and here.office.never_sent == [0, 1]


async def test_a_function_that_cannot_be_sent_spoils_its_job() -> None:
    async with scene() as here:
        here.seat.refuse = lambda order: (
            NotSendable("it", "lock") if isinstance(order, Define) else None
        )
        here.desk.post_tasks(here.tasks(0, 2))
        await settled()
        assert here.office.spoiled == [0] and here.office.never_sent == [0, 1]


async def test_of_tasks_that_cannot_be_sent_only_the_culprit_fails_and_the_order_is_kept() -> None:
    async with scene() as here:
        here.seat.refuse = lambda order: (
            NotSendable("it", "lock") if isinstance(order, Run) and 1 in order.tasks else None
        )
        here.desk.post_tasks([*here.tasks(0, 3), *here.tasks(1, 2)])
        here.desk.post_tasks(here.tasks(0, 1))
        await settled()
        assert here.office.missed == [[1]]
        assert here.runs() == [[0], [2], [3, 4], [5]]


async def test_tasks_that_a_worker_could_not_read_are_missed_once() -> None:
    async with scene() as here:
        here.desk.post_tasks(here.tasks(0, 3))
        await settled()
        here.seat.say(Unreadable(1, parallel.Failure(LookupError())))
        here.seat.say(Unreadable(1, parallel.Failure(LookupError())))
        await settled()
        assert here.office.missed == [[0, 1, 2]] and here.office.spoiled == []


async def test_a_function_that_a_worker_could_not_read_spoils_its_job() -> None:
    async with scene() as here:
        here.desk.post_tasks(here.tasks(0, 3))
        await settled()
        here.seat.say(Unreadable(0, parallel.Failure(LookupError())))
        await settled()
        assert here.office.spoiled == [0]


async def test_of_an_answer_that_cannot_be_read_it_is_known_which_tasks_it_was_about() -> None:
    async with scene() as here:
        here.desk.post_tasks(here.tasks(0, 5))
        await settled()
        here.seat.say(RemoteError("LookupError", "", ""))
        await settled()
        assert isinstance(here.seat.sent[-1], Ask)
        here.seat.say(Report([Result(2, None, 0.1)], 3))
        await settled()
        assert here.office.missed == [[0, 1]]


async def test_what_was_sent_is_forgotten_when_it_was_read() -> None:
    async with scene() as here:
        for _ in range(10):
            here.desk.post_tasks(here.tasks(0, 1))
        await settled()
        assert len(here.desk._sent) == 10
        here.seat.say(Report([], 0, read=10))  # a function, and nine times tasks
        await settled()
        assert len(here.desk._sent) == 1


async def test_released_it_sends_what_waits_and_ends() -> None:
    here = Scene()
    here.desk.post_tasks(here.tasks(0, 1))
    here.desk.release()
    with trio.fail_after(5):
        await here.desk.work()
    assert here.runs() == [[0]]


async def test_a_lost_worker_is_raised() -> None:
    here = Scene()
    here.seat.die()
    with pytest.raises(WorkerLost):
        await here.desk.work()
