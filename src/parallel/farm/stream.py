"""A stream: the tasks of one call to a farm, and what comes of them."""

from __future__ import annotations

import reprlib
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import trio

from .results import Done
from .tasks import Job, Policy, Task

CALLS_WITHOUT_YIELD = 64
"""Calls that need not wait yield this seldom: a checkpoint costs more than a task."""

KEPT = 8
"""So many results that are kept back for their order count as one."""

_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = 60

_briefly = reprlib.Repr()
_briefly.maxstring = _briefly.maxother = 400


def brief(error: BaseException) -> str:
    """An exception, for people to read; whatever it does when it is asked."""
    return _briefly.repr(error)


def brief_call(name: str, args: Sequence[Any]) -> str:
    """A call, for people to read."""
    return f"{name}({', '.join(map(_brief.repr, args))})"


def label(fn: Callable[..., Any]) -> str:
    """A function, for people to read."""
    while isinstance(fn, partial):
        fn = fn.func
    name: str = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    return name


class Owner(Protocol):
    """What runs a stream's tasks: the engine."""

    def wanted(self, job: Job) -> int:
        """How many tasks at once keep every worker busy."""
        ...

    def submit(self, stream: Stream, tasks: Sequence[Task]) -> None:
        """The stream has these tasks."""
        ...

    def next_number(self) -> int:
        """The number of a new task."""
        ...

    def close_stream(self, stream: Stream) -> None:
        """Its tasks are of no use any more."""
        ...

    def discard(self, close: Callable[[], None]) -> None:
        """Close something soon; may be called from anywhere, while garbage is collected too."""
        ...


class Stream:
    """Tasks go in, what came of them comes out in the order in which that happens."""

    def __init__(self, owner: Owner, job: Job, fn: Callable[..., Any], policy: Policy) -> None:
        self._owner = owner
        self.job = job
        self.fn = fn
        self.policy = policy
        self.done: deque[Done[Any]] = deque()
        """What has ended and was not taken."""
        self.kept = 0
        """What was taken and is kept back, for others come before it."""
        self.on_end: Callable[[Done[Any]], None] | None = None
        """Gets what has ended, in place of `done`."""
        self.on_fail: Callable[[], None] | None = None
        self.error: BaseException | None = None
        """Why nothing more will come."""
        self.total: int | None = None
        """How many tasks there will be, where that is known."""
        self._added = 0
        self._parked = trio.lowlevel.ParkingLot()
        self._calls = 0
        self._low = 0
        self._enough = 1
        """Results that wake who waits."""

    @property
    def pending(self) -> int:
        """Tasks that have been added, and whose results nobody has."""
        return self.job.tasks + len(self.done) + self.kept

    @property
    def ended(self) -> int:
        """Tasks that have ended, one way or the other."""
        return self._added - self.job.tasks

    @property
    def wanted(self) -> int:
        """How many tasks more would keep every worker busy; 0 while there are enough.

        Some at a time, for one by one they would cost more.
        """
        load = self._load
        if load > self._low:
            return 0
        limit = self._owner.wanted(self.job)
        self._low = limit // 2
        return max(0, limit - load)

    @property
    def is_full(self) -> bool:
        """Whether there are enough to keep every worker busy."""
        return self._load >= self._owner.wanted(self.job)

    @property
    def _load(self) -> int:
        """`pending`, but what is kept back counts less: a slow task before it stops nobody soon."""
        return self.job.tasks + len(self.done) + self.kept // KEPT

    def add(
        self,
        arguments: Sequence[tuple[Any, ...]],
        tags: Sequence[Any],
        *,
        worker: str | None = None,
        policy: Policy | None = None,
    ) -> None:
        """Let the function be called with each of these; a tag for each comes back with it."""
        number, job, chosen = self._owner.next_number, self.job, policy or self.policy
        self.check()
        self._added += len(arguments)
        self._owner.submit(
            self,
            [
                Task(number(), job, args, chosen, worker, tag)
                for args, tag in zip(arguments, tags, strict=True)
            ],
        )

    async def take(self) -> Done[Any] | None:
        """What has ended next; None when nothing is pending. Cancelled, it has taken nothing."""
        await self.step()
        while not self.done:
            self.check()
            if not self.job.tasks:
                return None
            await self.wait()
        return self.done.popleft()

    async def step(self) -> None:
        """Notice cancellation; every now and then a checkpoint."""
        self._calls += 1
        if self._calls % CALLS_WITHOUT_YIELD:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()

    async def wait(self, enough: int = 1) -> None:
        """Until something has ended, has gone wrong, or somebody calls `wake`.

        Who wants all results anyway says how many are `enough`, and wakes seldom; earlier when one
        has failed, or when there may be too few tasks.
        """
        self._enough = enough
        await self._parked.park()

    def wake(self) -> None:
        """There is something new."""
        if self._parked:
            self._parked.unpark_all()

    def check(self) -> None:
        """Raise what has gone wrong, if something has."""
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        """What has not ended is of no use any more, nor what nobody has taken."""
        self._owner.close_stream(self)
        self.done.clear()
        self.kept = 0
        self.wake()

    def discard(self, also: Callable[[], None]) -> None:
        """`also` and `close`, soon; may be called from anywhere, while garbage is collected too."""

        def close() -> None:
            also()
            self.close()

        self._owner.discard(close)

    # What the engine calls

    def end(self, done: Done[Any]) -> None:
        """A task has ended."""
        if self.on_end is not None:
            self.on_end(done)
            return
        self.done.append(done)
        if self._parked and (
            len(self.done) >= self._enough or done.error is not None or self.job.tasks <= self._low
        ):
            self._parked.unpark_all()

    def fail(self, error: BaseException) -> None:
        """Nothing more will come of it."""
        if self.error is None:
            self.error = error
        self.close()
        self.wake()
        if self.on_fail is not None:
            self.on_fail()

    @property
    def label(self) -> str:
        """The function, for people to read."""
        return self.job.name

    def name(self, args: Sequence[Any]) -> str:
        """One of its tasks, for people to read."""
        return brief_call(self.label, args)
