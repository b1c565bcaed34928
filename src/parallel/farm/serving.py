"""A server: what runs a farm's tasks in a worker.

Tasks run one at a time, in the order in which they came; a sync one in the main thread, with
nothing in between. The results of short tasks travel together, those of long ones each by itself.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from types import FrameType
from typing import Any, NamedTuple

import trio

from .._client import Client
from .._hub import Hub
from .._listener import Connected, Message
from ..errors import MessageTooLarge, NotSendable, RemoteError
from ..failure import Failure
from .deployment import Setup
from .messages import Answer, Ask, Define, Drop, Forget, Order, Report, Run, Unreadable
from .tasks import Result

SLICE = 0.002
"""Seconds that tasks run for before what came of them is sent."""

LATE = 0.01
"""Seconds after which that is sent from within the task that is running."""

_state: Any = None


def worker_state() -> Any:
    """For tasks: what the `setup` of their farm gave to the worker that runs them; else None."""
    return _state


@asynccontextmanager
async def surrounded(setup: Setup | None) -> AsyncGenerator[None, None]:
    """The work of a worker, in what surrounds it."""
    global _state
    if setup is None:
        yield
        return
    surroundings: Any = setup()
    if isinstance(surroundings, AbstractAsyncContextManager):
        async with surroundings as _state:
            yield
    elif isinstance(surroundings, AbstractContextManager):
        with surroundings as _state:
            yield
    else:
        raise TypeError(f"setup() returned {surroundings!r}, which is no context manager")


async def serve(hub: Hub[Order, Answer], setup: Setup | None) -> None:
    """Do what the one client says, until it says no more."""
    async with surrounded(setup):
        events = hub.listen()
        async for event in events:
            if isinstance(event, Connected):
                await _Server(hub, event.client).serve()
                return


class _Task(NamedTuple):
    number: int
    job: int
    args: tuple[Any, ...]
    timed: bool


class _Server:
    def __init__(self, hub: Hub[Order, Answer], client: Client) -> None:
        self.hub = hub
        self.client = client
        self.functions: dict[int, Callable[..., Any]] = {}
        self.queue: deque[_Task] = deque()
        self.dropped: set[int] = set()
        self.results: list[Result] = []
        """Not sent yet."""
        self.current: int | None = None
        """The task that is running."""
        self.news = trio.Event()
        self.over = False

    async def serve(self) -> None:
        signal.signal(signal.SIGALRM, self._report_late)
        await self._report()  # which says that this worker is ready
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read)
                await self._work()
        except* trio.BrokenResourceError:
            pass  # the farm has gone, or wants nothing more of this worker

    async def _read(self) -> None:
        events = self.hub.listen()
        number = 0
        while True:
            try:
                event = await anext(events)
            except RemoteError as exc:
                await self.hub.send(self.client, Unreadable(number, Failure(exc)))
                number += 1
            except StopAsyncIteration:
                break
            else:
                if isinstance(event, Message):
                    number += 1
                    await self._take(event.value)
        self.over = True
        self.news.set()

    async def _take(self, order: Order) -> None:
        match order:
            case Run(job, tasks, arguments, timed):
                self.queue.extend(
                    _Task(number, job, args, timed)
                    for number, args in zip(tasks, arguments, strict=True)
                )
                self.news.set()
            case Define(job, fn):
                self.functions[job] = fn
            case Forget(job):
                self.functions.pop(job, None)
            case Drop(tasks):
                # Of those that have run already there may be others to come, taken back again.
                self.dropped.update({task.number for task in self.queue}.intersection(tasks))
            case Ask():
                await self._report()

    async def _work(self) -> None:
        while True:
            while not self.queue:
                if self.results:
                    await self._report()
                elif self.over:
                    return
                else:
                    self.news = trio.Event()
                    await self.news.wait()
            if self.results or self.queue[0].timed:
                await self._report(self.queue[0].number)
                await trio.lowlevel.checkpoint()  # so that what has come is read
            started = time.perf_counter()
            awaitable = self._run_some()
            if awaitable is not None:
                await self._wait_for(awaitable, started)

    async def _wait_for(self, awaitable: Awaitable[Any], started: float) -> None:
        number = self.current
        assert number is not None
        if self.results:
            await self._report()
        try:
            value, failed = await awaitable, False
        except Exception as exc:
            value, failed = Failure(exc, skip=1), True
        self.current = None
        self.results.append(Result(number, value, time.perf_counter() - started, failed))

    def _run_some(self) -> Awaitable[Any] | None:
        """Tasks for a slice of time; what the last one wants to be awaited.

        SIGTERM ends the process at once meanwhile: what runs here could not be cancelled.
        """
        clock = time.perf_counter
        end = clock() + SLICE
        on_sigterm = signal.signal(signal.SIGTERM, signal.SIG_DFL)
        is_mine = signal.getsignal(signal.SIGALRM) == self._report_late
        if is_mine:
            signal.setitimer(signal.ITIMER_REAL, LATE)
        try:
            while self.queue:
                number, job, args, timed = self.queue[0]
                if timed and self.results:
                    break
                self.queue.popleft()
                if number in self.dropped:
                    self.dropped.discard(number)
                    continue
                self.current = number
                start = clock()
                value: Any
                try:
                    value, failed = self.functions[job](*args), False
                except Exception as exc:
                    value, failed = Failure(exc, skip=1), True
                if hasattr(type(value), "__await__"):
                    awaitable: Awaitable[Any] = value
                    return awaitable
                self.current = None
                now = clock()
                self.results.append(Result(number, value, now - start, failed))
                if now > end:
                    break
        finally:
            if is_mine:
                signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGTERM, on_sigterm)
        return None

    def _report_late(self, _signum: int, _frame: FrameType | None) -> None:
        """In the midst of a task that takes longer than those before it, whose results wait."""
        if self.current is not None and self.results:
            results, self.results = self.results, []
            try:
                self.hub.send_nowait(self.client, Report(results, self.current))
            except (trio.WouldBlock, trio.BrokenResourceError, NotSendable, MessageTooLarge):
                self.results = results  # when the task is done then

    async def _report(self, begun: int | None = None) -> None:
        results, self.results = self.results, []
        if begun is None:
            begun = self.current
        try:
            await self.hub.send(self.client, Report(results, begun))
        except (NotSendable, MessageTooLarge):
            for result in results:
                await self._report_one(result)
            await self.hub.send(self.client, Report([], begun))

    async def _report_one(self, result: Result) -> None:
        try:
            await self.hub.send(self.client, Report([result]))
        except (NotSendable, MessageTooLarge) as exc:
            failure = Result(result.task, Failure(exc), result.seconds, failed=True)
            await self.hub.send(self.client, Report([failure]))
