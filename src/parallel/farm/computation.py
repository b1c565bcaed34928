"""A computation: tasks whose results make new tasks, step by step."""

from __future__ import annotations

import enum
import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, TypeAlias, TypeVar

import trio

from .derived import settle
from .results import Done
from .stream import Stream

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")

NewTasks: TypeAlias = Iterable[tuple[A, C]] | None
Master: TypeAlias = Callable[[tuple[A, C], B], Awaitable[NewTasks[A, C]] | NewTasks[A, C]]


class Status(enum.Enum):
    """How far a computation is."""

    RUNNING = "running"
    """It has tasks."""
    DONE = "done"
    """It has none; more can be added."""
    DEAD = "dead"
    """It was killed, or something in it has failed."""


class Computation(Generic[A, B, C]):
    """Tasks `(a, c)` of which workers get `a`, until no result makes a new one.

    `Farm.computation` makes one. The idea, and the names, are those of Functory.

        computation = farm.computation(worker, master)
        computation.add_task((a, c))
        while await computation.step() is Status.RUNNING: ...
    """

    def __init__(self, open_stream: Callable[[], Stream], master: Master[A, C, B]) -> None:
        self._open_stream = open_stream
        self.stream = open_stream()
        """For `Farm.compute`, which feeds it."""
        self._master = master
        self._is_dead = False
        self._is_stepping = False

    @property
    def status(self) -> Status:
        """RUNNING while there are tasks, then DONE; DEAD for ever after a failure or `kill`."""
        if self._is_dead:
            return Status.DEAD
        return Status.RUNNING if self.stream.pending else Status.DONE

    @property
    def pending(self) -> int:
        """Tasks whose results `master` has not had."""
        return self.stream.pending

    def add_task(self, task: tuple[A, C]) -> None:
        """One more. Raises `trio.ClosedResourceError` in a dead computation."""
        self._check()
        self.stream.add([(task[0],)], [task[1]])

    async def step(self, timeout: float | None = None) -> Status:  # noqa: ASYNC109  # Functory's
        """Wait for one result, `timeout` seconds at most; let `master` have it, add its new tasks.

        Raises what the worker or `master` raised; the computation is dead then. Cancelled while it
        waits it has lost nothing.
        """
        self._check()
        if self._is_stepping:
            raise trio.BusyResourceError("another task is stepping this computation")
        self._is_stepping = True
        done = None
        try:
            with trio.move_on_after(math.inf if timeout is None else timeout):
                done = await self.stream.take()
            if done is not None:
                await self._go_on(self.stream, done)
        except trio.Cancelled:
            raise
        except BaseException:
            self.kill()
            raise
        finally:
            self._is_stepping = False
        return self.status

    async def _go_on(self, stream: Stream, done: Done[B]) -> None:
        task = (done.args[0], done.tag)
        if done.error is not None:
            done.raise_error(stream.name(done.args))
        made: NewTasks[A, C] = await settle(self._master(task, done.unwrap()))
        new = list(made or ())
        if new and stream is self.stream and not self._is_dead:  # as `master` may have changed
            stream.add([(a,) for a, _ in new], [c for _, c in new])

    async def run(self) -> None:
        """Step until there is no task left."""
        while await self.step() is Status.RUNNING:
            pass

    def clear(self) -> None:
        """Forget all tasks: who runs one ends it. New ones can be added."""
        self._check()
        self.stream.close()
        self.stream = self._open_stream()

    def kill(self) -> None:
        """Forget all tasks, for ever."""
        self._is_dead = True
        self.stream.close()

    def _check(self) -> None:
        if self._is_dead:
            raise trio.ClosedResourceError("this computation is dead")
