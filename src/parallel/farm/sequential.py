"""A farm without processes: its one worker is this program, and runs one task after the other."""

from __future__ import annotations

import inspect
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from ..failure import Failure
from .deployment import Deployment, Seat, Setup
from .messages import Answer, Ask, Define, Drop, Forget, Order, Report, Run
from .serving import surrounded
from .tasks import Result


class Sequential(Deployment):
    """Tasks run here, in the order in which they were added: for tests and for debugging."""

    def places(self) -> Sequence[str]:
        """One."""
        return ["here"]

    @asynccontextmanager
    async def start(self, place: str, name: str, setup: Setup | None) -> AsyncGenerator[Seat, None]:
        """This program."""
        async with surrounded(setup):
            yield _Here()


class _Here(Seat):
    def __init__(self) -> None:
        self._functions: dict[int, Callable[..., Any]] = {}
        self._queue: deque[tuple[int, int, tuple[Any, ...]]] = deque()
        self._asked = False
        self._news = trio.Event()

    async def send(self, order: Order) -> None:
        await trio.lowlevel.checkpoint()
        match order:
            case Define(job, fn):
                self._functions[job] = fn
            case Forget(job):
                self._functions.pop(job, None)
            case Run(job, tasks, arguments, _):
                self._queue.extend(
                    (number, job, args) for number, args in zip(tasks, arguments, strict=True)
                )
            case Drop(tasks):
                self._queue = deque(task for task in self._queue if task[0] not in tasks)
            case Ask():
                self._asked = True
        self._news.set()

    async def receive(self) -> Answer:
        await trio.lowlevel.checkpoint()
        while not self._queue:
            if self._asked:
                self._asked = False
                return Report([])
            self._news = trio.Event()
            await self._news.wait()
        number, job, args = self._queue.popleft()
        start = time.perf_counter()
        try:
            value = self._functions[job](*args)
            value, failed = await value if inspect.isawaitable(value) else value, False
        except Exception as exc:
            value, failed = Failure(exc, skip=1), True
        return Report([Result(number, value, time.perf_counter() - start, failed)])
