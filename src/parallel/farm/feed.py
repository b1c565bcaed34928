"""A feed: gives a stream its tasks, as many as it wants, from any iterable."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
)
from contextlib import aclosing, asynccontextmanager
from itertools import islice
from typing import Any, TypeAlias, TypeVar

import trio

from .stream import Stream

T = TypeVar("T")

Source: TypeAlias = Iterable[T] | AsyncIterable[T]
"""What a farm takes its tasks from; it may be endless."""

ToTask: TypeAlias = Callable[[Any], tuple[tuple[Any, ...], Any]]
"""From an item to the arguments of its task, and its tag."""


class Feed:
    """Items of a source, on their way into a stream.

    A plain iterable is read whenever somebody asks for a result; an async one by a task of the
    farm, for it may take its time.
    """

    def __init__(
        self, stream: Stream, source: Source[Any], to_task: ToTask, nursery: trio.Nursery
    ) -> None:
        self._stream = stream
        self._to_task = to_task
        self._items: Iterator[Any] | None = None
        self._room = trio.Event()
        self._scope = trio.CancelScope()
        self.is_over = False
        """The source has nothing more."""
        if isinstance(source, AsyncIterable):
            nursery.start_soon(self._read, aiter(source))
        else:
            self._items = iter(source)

    def pull(self) -> None:
        """Add as many tasks as are wanted."""
        if self.is_over or not (wanted := self._stream.wanted):
            return
        if self._items is None:
            self._room.set()
            return
        items = list(islice(self._items, wanted))
        self.is_over = len(items) < wanted
        if items:
            arguments, tags = zip(*map(self._to_task, items), strict=True)
            self._stream.add(arguments, tags)

    def stop(self) -> None:
        """Read no more."""
        self.is_over = True
        self._scope.cancel()

    async def _read(self, items: AsyncIterator[Any]) -> None:
        with self._scope:
            try:
                async with _closing(items):
                    await self._read_all(items)
            except (Exception, KeyboardInterrupt) as exc:
                self._stream.fail(exc)
        self.is_over = True
        self._stream.wake()

    async def _read_all(self, items: AsyncIterator[Any]) -> None:
        async for item in items:
            if self.is_over:
                return  # who never waits for anything does not notice that it is cancelled
            args, tag = self._to_task(item)
            self._stream.add([args], [tag])
            self._stream.wake()
            while self._stream.is_full:
                self._room = trio.Event()
                await self._room.wait()


@asynccontextmanager
async def _closing(items: AsyncIterator[Any]) -> AsyncGenerator[None, None]:
    """An async generator is closed when nobody reads on."""
    if isinstance(items, AsyncGenerator):
        async with aclosing(items):
            yield
    else:
        yield
