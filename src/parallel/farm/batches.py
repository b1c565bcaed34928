"""Seats whose work is done by the farm's own task that receives from them, a batch at a time.

What is sent is pickled at once and waits here; `receive` takes the next batch and sees to it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import trio

from .._pickled import dumps
from .deployment import Seat
from .messages import Answer, Ask, Define, Drop, Forget, Order, Report, Run


@dataclass(slots=True)
class Function:
    """The function of a job, pickled, and the number of the message that brought it."""

    job: int
    data: bytes
    message: int
    loaded: Any = None
    """Unpickled again, where that is of use here."""


@dataclass(slots=True)
class Batch:
    """Tasks of one job that were sent together."""

    function: Function
    message: int
    tasks: list[int]
    arguments: bytes
    """Pickled: a list of tuples."""
    timed: bool
    dropped: set[int] = field(default_factory=set[int])
    """Those of the tasks that are not to be run."""
    is_done: bool = False


class BatchSeat(Seat):
    """A worker that has no process of its own to talk with."""

    def __init__(self) -> None:
        self._functions: dict[int, Function] = {}
        self._batches: deque[Batch] = deque()
        self._answers: deque[Answer] = deque()
        self._news = trio.Event()
        self._messages = 0

    async def send(self, order: Order) -> None:
        """Put it where `receive` finds it."""
        await trio.lowlevel.checkpoint()
        match order:
            case Run():
                self._batches.append(self._batch(order))
            case Define(job, fn):
                data = dumps(fn, "the function")
                self._functions[job] = Function(job, data, self._messages)
            case Forget(job):
                self._functions.pop(job, None)
            case Drop(tasks):
                for batch in self._batches:
                    batch.dropped.update(set(batch.tasks).intersection(tasks))
            case Ask():
                self.answer(Report([]))
        self._messages += 1
        self._news.set()

    def _batch(self, run: Run) -> Batch:
        arguments = dumps(run.arguments, "the arguments")
        return Batch(self._functions[run.job], self._messages, run.tasks, arguments, run.timed)

    async def receive(self) -> Answer:
        """The next answer; works until there is one."""
        while not self._answers:
            if self._batches:
                batch = self._batches[0]
                await self.work_on(batch)
                if batch.is_done:
                    self._batches.popleft()
            else:
                self._news = trio.Event()
                await self._news.wait()
        return self._answers.popleft()

    def answer(self, answer: Answer) -> None:
        """Let `receive` return this."""
        if isinstance(answer, Report):
            read = self._batches[0].message if self._batches else self._messages
            answer = answer._replace(busy=answer.begun is not None, read=read)
        self._answers.append(answer)

    @abstractmethod
    async def work_on(self, batch: Batch) -> None:
        """Run some tasks of the batch and `answer`; after the last one it `is_done`.

        Cancelled, it leaves nothing running where that can be helped.
        """
