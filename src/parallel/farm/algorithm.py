"""An algorithm: tasks that a program submits one by one, each with a policy of its own."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any, Generic, Self, TypeVar

import trio

from .results import Done, TaskUnrunnable
from .stream import Stream
from .tasks import Policy

T = TypeVar("T")


class Mailbox:
    """What came of the tasks of all algorithms of a farm."""

    def __init__(self) -> None:
        self.done: deque[Done[Any]] = deque()
        self.unrunnable: list[Done[Any]] = []
        self.algorithms: list[Algorithm[Any]] = []
        self.parked = trio.lowlevel.ParkingLot()

    @property
    def is_over(self) -> bool:
        """Whether nothing will come, unless somebody submits something."""
        return not any(each.is_open or each.pending for each in self.algorithms)

    def wake(self) -> None:
        """There is something new."""
        if self.parked:
            self.parked.unpark_all()


class Algorithm(Generic[T]):
    """Tasks that call one function. `Farm.algorithm` makes one; the idea is CL-MW's.

    What comes of them is read from `Farm.results`. Within an `async with` block around an algorithm
    more tasks are to be expected, so that those results do not end.
    """

    def __init__(self, mailbox: Mailbox, stream: Stream, target: int, policy: Policy) -> None:
        if target < 1:
            raise ValueError(f"target={target}: at least one task has to be under way")
        self._mailbox = mailbox
        self._stream = stream
        self._untaken = 0
        """Results that nobody has."""
        self._room = trio.lowlevel.ParkingLot()
        self.target = target
        """How many tasks shall be pending; from there on `submit` waits."""
        self.policy = policy
        """What `submit` takes where it is told nothing else."""
        self.is_open = False
        self._is_closed = False
        mailbox.algorithms.append(self)

    @property
    def name(self) -> str:
        """That of the function."""
        return self._stream.label

    @property
    def pending(self) -> int:
        """Tasks that were submitted, and whose results nobody has taken."""
        return self._stream.job.tasks + self._untaken

    @property
    def wanted(self) -> int:
        """How many more make it `target`."""
        return max(0, self.target - self.pending)

    async def submit(
        self,
        *args: Any,
        worker: str | None = None,
        tag: Any = None,
        do_it_anyway: bool | None = None,
        retry: bool | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # of the task
        attempts: int | None = None,
    ) -> None:
        """Have the function called with `args`; waits while `target` tasks are pending.

        A result counts until it has been taken from `Farm.results`: who submits more than `target`
        tasks does that in another task than the one that takes.

        Args:
            args: What the function gets.
            worker: The name of the worker that shall do it; None for any.
            tag: Comes back with the result.
            do_it_anyway: Where `worker` is lost, let another do it. A task for a worker that there
                never was is unrunnable all the same.
            retry: Whether it may be run again when its worker is lost; False is the only guarantee
                against a second run.
            timeout: Seconds that it may run.
            attempts: So many workers it may take along.

        Each of the last four is as the algorithm's `policy` says where it is not given. Cancelled
        while it waits, it has submitted nothing. Raises `trio.ClosedResourceError` after `close`.
        """
        await trio.lowlevel.checkpoint()
        while self.pending >= self.target and not self._is_closed:
            self._stream.check()
            await self._room.park()
        if self._is_closed:
            raise trio.ClosedResourceError("this algorithm has been closed")
        self._submit(args, worker, tag, do_it_anyway, retry, timeout, attempts)

    def _submit(
        self,
        args: tuple[Any, ...],
        worker: str | None,
        tag: Any,
        do_it_anyway: bool | None,
        retry: bool | None,
        timeout: float | None,
        attempts: int | None,
    ) -> None:
        given: dict[str, Any] = {
            "do_it_anyway": do_it_anyway,
            "retry": retry,
            "timeout": timeout,
            "attempts": attempts,
        }
        changes = {name: value for name, value in given.items() if value is not None}
        policy = replace(self.policy, **changes) if changes else self.policy
        self._stream.add([args], [tag], worker=worker, policy=policy)

    def end(self, done: Done[T]) -> None:
        """One of its tasks has ended."""
        done = done._replace(algorithm=self)
        if isinstance(done.error, TaskUnrunnable):
            self._mailbox.unrunnable.append(done)
            self.make_room()
        else:
            self._untaken += 1
            self._mailbox.done.append(done)
        self._mailbox.wake()

    def close(self) -> None:
        """Forget the tasks that have not ended, and let the workers forget the function.

        What has ended can still be taken. An algorithm that is not closed ends with its farm.
        """
        self._is_closed = True
        self.is_open = False
        self._stream.close()
        self._room.unpark_all()
        self._let_go()
        self._mailbox.wake()

    def _let_go(self) -> None:
        if self._is_closed and not self._untaken and self in self._mailbox.algorithms:
            self._mailbox.algorithms.remove(self)

    def taken(self) -> None:
        """Somebody has one of its results."""
        self._untaken -= 1
        self._let_go()
        self.make_room()
        if not self.pending:
            self._mailbox.wake()

    def make_room(self) -> None:
        """One task less is pending."""
        if self._room:
            self._room.unpark()

    def fail(self) -> None:
        """Nothing more will come of it, as `check` says."""
        self._room.unpark_all()
        self._mailbox.wake()

    def check(self) -> None:
        """Raise what has gone wrong, if something has."""
        self._stream.check()

    async def __aenter__(self) -> Self:
        self.is_open = True
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.is_open = False
        self._mailbox.wake()
