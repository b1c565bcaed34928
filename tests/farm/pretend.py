"""What stands around a part of the farm, in its tests: an owner of streams, pretended workers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from parallel.farm.deployment import Deployment, Seat, Setup, WorkerLost
from parallel.farm.messages import Answer, Order
from parallel.farm.results import Done
from parallel.farm.stream import Stream, label
from parallel.farm.tasks import DEFAULT_POLICY, Job, Policy, Task


class Owner:
    """Has the tasks of streams, and ends them when it is told to."""

    def __init__(self, wanted: int = 4) -> None:
        self.tasks: list[tuple[Stream, Task]] = []
        self.closed: list[Stream] = []
        self.discarded: list[Callable[[], None]] = []
        self._wanted = wanted
        self._number = 0

    def open_stream(self, fn: Callable[..., Any] = abs, policy: Policy = DEFAULT_POLICY) -> Stream:
        return Stream(self, Job(0, label(fn)), fn, policy)

    def wanted(self, job: Job) -> int:
        return self._wanted

    def submit(self, stream: Stream, tasks: Sequence[Task]) -> None:
        stream.job.tasks += len(tasks)
        self.tasks += [(stream, task) for task in tasks]

    def next_number(self) -> int:
        self._number += 1
        return self._number

    def close_stream(self, stream: Stream) -> None:
        stream.job.tasks = 0
        self.tasks = [each for each in self.tasks if each[0] is not stream]
        self.closed.append(stream)

    def discard(self, close: Callable[[], None]) -> None:
        self.discarded.append(close)

    def end(self, which: int = 0, error: Exception | None = None) -> None:
        """One of the tasks ends; which of those that have not."""
        stream, task = self.tasks.pop(which)
        stream.job.tasks -= 1
        value = stream.fn(*task.args) if error is None else None
        stream.end(Done(task.args, value, error, task.tag, "w", 0.1, task.attempts))


class PretendSeat(Seat):
    """A worker as the farm sees it: what it was sent, and what the test lets it say."""

    def __init__(self, name: str = "w") -> None:
        self.name = name
        self.sent: list[Order] = []
        self.refuse: Callable[[Order], Exception | None] = lambda order: None
        self._say, self._heard = trio.open_memory_channel[Answer | Exception](100)

    async def send(self, order: Order) -> None:
        await trio.lowlevel.checkpoint()
        if (error := self.refuse(order)) is not None:
            raise error
        self.sent.append(order)

    async def receive(self) -> Answer:
        answer = await self._heard.receive()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def say(self, answer: Answer | Exception) -> None:
        self._say.send_nowait(answer)

    def die(self) -> None:
        self.say(WorkerLost("as told"))


class Pretend(Deployment):
    """Places as the test says."""

    def __init__(self, *places: str) -> None:
        self.where = list(places)
        self.seats: list[PretendSeat] = []
        self.starts = 0
        self.start_with: Callable[[], Any] = trio.lowlevel.checkpoint

    def places(self) -> Sequence[str]:
        return self.where

    @asynccontextmanager
    async def start(self, place: str, name: str, setup: Setup | None) -> AsyncIterator[Seat]:
        self.starts += 1
        await self.start_with()
        seat = PretendSeat(name)
        self.seats.append(seat)
        yield seat
