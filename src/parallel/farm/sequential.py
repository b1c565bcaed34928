"""Workers in this very process: for tests, and to look into what tasks do."""

from __future__ import annotations

import inspect
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from .._pickled import dumps, loads
from ..errors import RemoteError, UnknownHost
from ..failure import Failure
from .batches import Batch, BatchSeat
from .deployment import Deployment, Seat, Setup
from .messages import Report, Unreadable
from .surroundings import surrounded
from .tasks import Result

PLACE = "here"


class Sequential(Deployment):
    """Runs the tasks here, one by one, in the order in which they were given.

        async with parallel.open_farm(parallel.farm.Sequential()) as farm: ...

    It needs no `parallel.init`, `breakpoint()` works in tasks, and an exception has the frames that
    it passed through. Functions, arguments and results are pickled as everywhere, so that what
    works here can be sent anywhere. A sync task holds up the whole program, so nothing can end it:
    a `timeout` and cancellation end async tasks only.

    Args:
        workers: More than one take turns, at each `await` of an async task.
    """

    def __init__(self, workers: int = 1) -> None:
        if workers < 1:
            raise ValueError(f"workers={workers}: at least one")
        self._workers = workers

    def places(self) -> Sequence[str]:
        """All of them here."""
        return [PLACE] * self._workers

    @asynccontextmanager
    async def start(self, place: str, name: str, setup: Setup | None) -> AsyncGenerator[Seat, None]:
        """A worker here."""
        if place != PLACE:
            raise UnknownHost(place, (PLACE,))
        async with surrounded(loads(dumps(setup, "setup"))):
            yield _SequentialSeat()


class _SequentialSeat(BatchSeat):
    """Runs one task each time that it is asked for an answer."""

    def __init__(self) -> None:
        super().__init__()
        self._loaded: Batch | None = None
        self._todo: deque[tuple[int, tuple[Any, ...]]] = deque()
        """Of that batch, those that have not been run."""
        self._begun: int | None = None

    async def work_on(self, batch: Batch) -> None:
        """Run the next task, or say that it is about to begin."""
        await trio.lowlevel.checkpoint()  # so that what has been sent arrives, and others run
        if self._loaded is not batch:
            self._load(batch)
        while self._todo and self._todo[0][0] in batch.dropped:
            self._todo.popleft()
        if self._todo:
            number, args = self._todo[0]
            if batch.timed and self._begun != number:
                self._begun = number
                self.answer(Report([], number))
                return
            self._todo.popleft()
            self.answer(Report([await _run(number, batch.function.loaded, args)]))
        batch.is_done = not self._todo

    def _load(self, batch: Batch) -> None:
        function = batch.function
        message = function.message
        self._loaded = batch
        self._todo.clear()
        try:
            if function.loaded is None:
                function.loaded = loads(function.data, "the function")
            message = batch.message
            arguments = loads(batch.arguments, "the arguments")
        except RemoteError as exc:
            self.answer(Unreadable(message, Failure(exc)))
        else:
            self._todo.extend(zip(batch.tasks, arguments, strict=True))


async def _run(number: int, fn: Callable[..., Any], args: tuple[Any, ...]) -> Result:
    start = time.perf_counter()
    value: Any
    try:
        value = fn(*args)
        if inspect.isawaitable(value):
            value = await value
        value, failed = loads(dumps(value, "the result"), "the result"), False
    except Exception as exc:
        value, failed = Failure(exc), True
    return Result(number, value, time.perf_counter() - start, failed)
