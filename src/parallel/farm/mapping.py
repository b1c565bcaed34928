"""Results as they come: what `Farm.imap` and `Farm.imap_unordered` return."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Generic, Literal, Self, TypeAlias, TypeVar, cast

import trio

from .feed import Feed
from .results import Done
from .stream import Stream

T = TypeVar("T")

MANY = 64
"""Results that are worth a look where nobody waits for each."""

OnError: TypeAlias = Literal["raise", "return"]
"""What becomes of a task's exception: the call fails with it, or it is the task's value."""


class Results(AsyncIterator[T], Generic[T]):
    """The values of tasks. Who stops reading early lets go of it, or calls `close`.

    async with farm.imap_unordered(f, xs) as results:   # closes it in any case
        async for y in results: ...
    """

    def __init__(self, stream: Stream, feed: Feed, on_error: OnError, *, ordered: bool) -> None:
        self._stream = stream
        self._feed = feed
        self._on_error = on_error
        self._ordered = ordered
        self._early: dict[int, Done[T]] = {}
        """What has ended before others that come before it, by their place."""
        self._next = 0
        self._is_closed = False

    async def __anext__(self) -> T:
        done = await self.next_done()
        if done is None:
            raise StopAsyncIteration
        return cast(T, done.value if done.error is None else done.error)

    async def in_order(self) -> list[T]:
        """All that there are, in the order of their tasks, whichever came first."""
        values: dict[int, T] = {}
        while (done := await self._take(MANY)) is not None:
            values[done.tag] = cast(T, done.value if done.error is None else done.error)
        return [values[place] for place in range(len(values))]

    async def next_done(self) -> Done[T] | None:
        """What came of the next task, with all that is known of it; None at the end."""
        if not self._ordered:
            return await self._take()
        while self._next not in self._early:
            done = await self._take()
            if done is None:
                return None
            self._early[done.tag] = done
            self._stream.kept = len(self._early)
        done = self._early.pop(self._next)
        self._stream.kept = len(self._early)
        self._next += 1
        return done

    async def _take(self, enough: int = 1) -> Done[T] | None:
        stream, feed = self._stream, self._feed
        await stream.step()
        while True:
            stream.check()
            try:
                feed.pull()
            except BaseException:
                self.close()  # it has read something that is no task
                raise
            if stream.done:
                break
            if feed.is_over and not stream.job.tasks:
                self.close()
                return None
            await stream.wait(enough)
        done = stream.done.popleft()
        if done.error is not None and self._on_error == "raise":
            self.close()
            done.raise_error(stream.name(done.args))
        return done

    def close(self) -> None:
        """End the tasks whose results nobody wants any more."""
        self._is_closed = True
        self._early.clear()
        self._feed.stop()
        self._stream.close()

    async def aclose(self) -> None:
        """`close`, and a checkpoint."""
        self.close()
        await trio.lowlevel.checkpoint()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self._is_closed:
            return
        try:
            self._stream.discard(self._feed.stop)
        except trio.RunFinishedError:
            pass  # and so there is no farm any more
