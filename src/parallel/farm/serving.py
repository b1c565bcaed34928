"""A server: what runs a farm's tasks in a worker.

Tasks run one at a time, in the order in which they came; a sync one in the main thread, with
nothing in between. The results of short tasks travel together, those of long ones each by itself.
"""

from __future__ import annotations

import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
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
from .surroundings import surrounded
from .tasks import Result

SLICE = 0.002
"""Seconds that tasks run for before what came of them is sent."""

LATE = 0.01
"""Seconds after which that is sent from within the task that is running."""

AGAIN = 0.25
"""Seconds after which a task that was announced as a long one is announced again: the farm may have
been unable to read the results that came with the announcement."""


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
        self.announced: int | None = None
        """The task that was last said to be begun: it is run, though it were dropped."""
        self.busy: int | None = None
        """The task after which it was said that no other is begun without a report."""
        self.long: set[int] = set()
        """Jobs of which the last task took so long that what came of it went by itself."""
        self.read = 0
        """Messages that have been read."""
        self.news = trio.Event()
        self.waits = trio.Event()
        """Set when an async task begins to wait."""
        self.over = False

    async def serve(self) -> None:
        signal.signal(signal.SIGALRM, self._report_late)
        await self._report()  # which says that this worker is ready
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read)
                nursery.start_soon(self._tell_late)
                await self._work()
                nursery.cancel_scope.cancel()
        except* trio.BrokenResourceError:
            pass  # the farm has gone, or wants nothing more of this worker

    async def _read(self) -> None:
        events = self.hub.listen()
        while True:
            try:
                event = await anext(events)
            except RemoteError as exc:
                await self.hub.send(self.client, Unreadable(self.read, Failure(exc)))
                self.read += 1
            except StopAsyncIteration:
                break
            else:
                if isinstance(event, Message):
                    await self._take(event.value)
                    self.read += 1
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
                self.long.discard(job)
            case Drop(tasks):
                # Of those that have run already there may be others to come, taken back again.
                waiting = {task.number for task in self.queue} - {self.announced}
                self.dropped.update(waiting.intersection(tasks))
            case Ask():
                await self._report()

    async def _work(self) -> None:
        while True:
            if has_read := bool(self.long and self.results and not self.queue):
                # What comes next is likely to be here: then one message tells of both.
                await self._let_read()
            while not self.queue:
                if self.results:
                    await self._report()
                elif self.over:
                    return
                else:
                    self.news = trio.Event()
                    await self.news.wait()
            if self.queue[0].number in self.dropped:
                self.dropped.discard(self.queue.popleft().number)
                continue
            if self.results or self.queue[0].timed:
                await self._announce()
                if not has_read:
                    await trio.lowlevel.checkpoint()  # so that what has come is read
            started = time.perf_counter()
            awaitable = self._run_some()
            if awaitable is not None:
                await self._wait_for(awaitable, started)

    async def _let_read(self) -> None:
        """Let `_read` find what has come; in a turn of the loop it may be the second to run."""
        for _ in range(2):
            if not self.queue:
                await trio.lowlevel.checkpoint()

    async def _announce(self) -> None:
        """Say what was done, and what is done next; in two messages where that is timed.

        For the first one may be such that the farm cannot read it.
        """
        number, job, _, timed = self.queue[0]
        self.announced = number
        if timed and self.results:
            await self._report()
        await self._report(number, busy=timed or job in self.long)

    async def _wait_for(self, awaitable: Awaitable[Any], started: float) -> None:
        number = self.current
        assert number is not None
        if self.results:
            await self._report(number, busy=True)
        self.waits.set()
        try:
            value, failed = await awaitable, False
        except Exception as exc:
            value, failed = Failure(exc, skip=1), True
        self.current = None
        self.results.append(Result(number, value, time.perf_counter() - started, failed))

    async def _tell_late(self) -> None:
        """Say that an async task takes longer, as `_report_late` does of others."""
        while True:
            await self.waits.wait()
            self.waits = trio.Event()
            number = self.current
            await trio.sleep(self._patience(number))
            if number is not None and number == self.current:
                await self._report(number, busy=True)

    def _run_some(self) -> Awaitable[Any] | None:
        """Tasks for a slice of time; what the last one wants to be awaited.

        SIGTERM ends the process at once meanwhile: what runs here could not be cancelled.
        """
        clock = time.perf_counter
        end = clock() + SLICE
        on_sigterm = signal.signal(signal.SIGTERM, signal.SIG_DFL)
        is_mine = signal.getsignal(signal.SIGALRM) == self._report_late
        if is_mine:
            signal.setitimer(signal.ITIMER_REAL, self._patience(self.queue[0].number))
        try:
            while self.queue:
                number, job, args, timed = self.queue[0]
                if timed and number != self.announced:
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
                if now - start > SLICE:
                    self.long.add(job)
                elif self.long:
                    self.long.discard(job)
                if number == self.busy or now > end:
                    break
        finally:
            if is_mine:
                signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGTERM, on_sigterm)
        return None

    def _patience(self, number: int | None) -> float:
        return AGAIN if number is not None and number == self.busy else LATE

    def _report_late(self, _signum: int, frame: FrameType | None) -> None:
        """In the midst of a task that takes longer: that it does, and what came of others before.

        After it comes a report in any case. An exception here would be the task's.
        """
        if self.current is None or _is_deep(frame):
            return
        results, self.results = self.results, []
        report = Report(results, self.current, True, self.read)
        try:
            self.hub.send_nowait(self.client, report)
            self.busy = self.current
        except Exception:  # it would be the task's
            self.results = results  # when the task is done then

    async def _report(self, begun: int | None = None, *, busy: bool = False) -> None:
        results, self.results = self.results, []
        try:
            await self._say(results, begun, busy)
        except (NotSendable, MessageTooLarge):
            for result in results:
                await self._report_one(result, begun)
            await self._say([], begun, busy)

    async def _report_one(self, result: Result, begun: int | None) -> None:
        try:
            await self._say([result], begun)
        except (NotSendable, MessageTooLarge) as exc:
            failure = Result(result.task, Failure(exc), result.seconds, failed=True)
            await self._say([failure], begun)

    async def _say(self, results: list[Result], begun: int | None, busy: bool = False) -> None:
        if begun is None:
            begun = self.current
        self.busy = begun if busy else None
        await self.hub.send(self.client, Report(results, begun, busy, self.read))


def _is_deep(frame: FrameType | None) -> bool:
    """Whether there may be too little left of the stack to do anything."""
    room = sys.getrecursionlimit() - _FRAMES
    while frame is not None and room > 0:
        frame, room = frame.f_back, room - 1
    return frame is not None


_FRAMES = 200
"""What it takes to send something, at most."""
