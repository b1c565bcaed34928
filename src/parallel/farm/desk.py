"""A desk: the farm's end of one worker, where orders wait and answers are read."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import trio

from ..errors import MessageTooLarge, NotSendable, RemoteError
from .deployment import Seat, WorkerLost
from .messages import Ask, Define, Forget, Order, Report, Run, Unreadable
from .tasks import Task


class Office(Protocol):
    """Who has the desks: the engine."""

    def function(self, job: int) -> Callable[..., Any] | None:
        """What the tasks of this job call; None when nobody wants them any more."""
        ...

    def spoil(self, job: int, error: BaseException) -> None:
        """What the tasks of this job call cannot be had in a worker."""
        ...

    def report(self, desk: Desk, report: Report) -> None:
        """The worker has said this."""
        ...

    def unsent(self, desk: Desk, tasks: list[int]) -> None:
        """The worker has not been sent these, for nobody wants them any more."""
        ...

    def miss(self, desk: Desk, tasks: list[int], error: BaseException) -> None:
        """The worker could not read these, or what it said of them could not be read."""
        ...

    def holds(self, name: str) -> list[int]:
        """The tasks that the worker has, in the order in which it will report them."""
        ...


class _Sent(NamedTuple):
    """A message that the worker may yet be unable to read."""

    number: int
    tasks: list[Task]


class Desk:
    """One worker, from when it is ready."""

    def __init__(
        self, office: Office, seat: Seat, name: str, place: str, scope: trio.CancelScope
    ) -> None:
        self.name = name
        self.place = place
        self.defined: set[int] = set()
        """Jobs of which the worker has the function."""
        self._office = office
        self._seat = seat
        self._scope = scope
        """Around all of its life."""
        self._outbox: deque[Order | list[Task]] = deque()
        self._news = trio.Event()
        self._released = False
        self._numbers = itertools.count()
        self._functions: dict[int, int] = {}
        """The number of the message with the function of each job."""
        self._sent: deque[_Sent] = deque()
        self._unread: tuple[BaseException, set[int]] | None = None
        """Why an answer could not be read, and which tasks it may have been about."""

    def post(self, order: Order) -> None:
        """Send this, after what was posted before."""
        self._outbox.append(order)
        self._news.set()

    def post_tasks(self, tasks: list[Task]) -> None:
        """Have the worker run these, after what was posted before."""
        self._outbox.append(tasks)
        self._news.set()

    def release(self) -> None:
        """End the worker when it has done what it was sent."""
        self._released = True
        self._news.set()

    def kill(self) -> None:
        """End the worker at once."""
        self._scope.cancel()

    async def work(self) -> None:
        """Send and read until the worker is released; raises when it is lost."""
        lost: BaseException | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, nursery.cancel_scope)
            try:
                await self._read()
            except (trio.BrokenResourceError, trio.EndOfChannel, WorkerLost) as exc:
                lost = exc
                nursery.cancel_scope.cancel()
        if lost is not None:
            raise lost

    # -- sending ---------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def _write(self, work: trio.CancelScope) -> None:
        try:
            while self._outbox or not self._released:
                if self._outbox:
                    await self._send_next()
                else:
                    self._news = trio.Event()
                    await self._news.wait()
        except (trio.BrokenResourceError, WorkerLost):
            return  # as reading will tell
        work.cancel()

    async def _send_next(self) -> None:
        order = self._outbox.popleft()
        if isinstance(order, list):
            job = order[0].job
            tasks = list(itertools.takewhile(lambda task: task.job is job, order))
            if rest := order[len(tasks) :]:
                self._outbox.appendleft(rest)
            await self._send_tasks(job.id, tasks)
        else:
            await self._send(order)

    async def _send(self, order: Order) -> int:
        if isinstance(order, Forget):
            self._functions.pop(order.job, None)
        await self._seat.send(order)
        return next(self._numbers)

    async def _send_tasks(self, job: int, tasks: list[Task]) -> None:
        fn = self._office.function(job)
        if fn is None:
            self._office.unsent(self, [task.id for task in tasks])
            return
        if job not in self.defined:
            self.defined.add(job)
            try:
                number = await self._send(Define(job, fn))
            except (NotSendable, MessageTooLarge) as exc:
                self._office.spoil(job, exc)
                self._office.unsent(self, [task.id for task in tasks])
                return
            self._functions[job] = number
        timed = any(task.policy.timeout is not None for task in tasks)
        run = Run(job, [task.id for task in tasks], [task.args for task in tasks], timed)
        try:
            number = await self._send(run)
        except (NotSendable, MessageTooLarge) as exc:
            self._send_singly(tasks, exc)
        else:
            self._sent.append(_Sent(number, tasks))

    def _send_singly(self, tasks: list[Task], error: BaseException) -> None:
        """One of them cannot be sent, or all together cannot."""
        if len(tasks) == 1:
            self._office.miss(self, [tasks[0].id], error)
        else:
            self._outbox.extendleft([task] for task in reversed(tasks))
            self._news.set()

    # -- reading ---------------------------------------------------------------------------------

    async def _read(self) -> None:
        while True:
            try:
                answer = await self._seat.receive()
            except RemoteError as exc:
                self._unread = (exc, set(self._office.holds(self.name)))
                self.post(Ask())
                continue
            if isinstance(answer, Unreadable):
                self._mend(answer)
            else:
                self._take(answer)

    def _take(self, report: Report) -> None:
        if self._unread is not None:
            error, possible = self._unread
            self._unread = None
            later = {result.task for result in report.results} | {report.begun}
            held = self._office.holds(self.name)
            before = itertools.takewhile(lambda task: task not in later, held)
            missed = [task for task in before if task in possible]
            if missed:
                self._office.miss(self, missed, error)
        self._office.report(self, report)
        while self._sent and self._sent[0].number < report.read:
            self._sent.popleft()

    def _mend(self, answer: Unreadable) -> None:
        """The worker could not read one of the messages: which, and what of it?"""
        error = answer.error.exception
        for job in [job for job, sent in self._functions.items() if sent == answer.number]:
            self._office.spoil(job, error)
        for sent in [sent for sent in self._sent if sent.number == answer.number]:
            self._sent.remove(sent)
            self._office.miss(self, [task.id for task in sent.tasks], error)
