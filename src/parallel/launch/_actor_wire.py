"""Messages over a stream of tractor's, with what that lacks. Only `actor` uses it."""

from __future__ import annotations

import select
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import trio

Word: TypeAlias = "list[Any] | tuple[Any, ...]"
"""A message: what it is, and then what belongs to it."""

WINDOW = 16
"""So many messages wait for whoever takes them; tractor fails a stream in which 64 do."""

INTERVAL = 0.5
"""Seconds between two looks whether the process at the other end is still there."""

CREDIT = ["credit"]


class Wire:
    """Messages over a stream of tractor's, with the flow control that those lack."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._credit = trio.Semaphore(WINDOW)
        self._arrived, self._waiting = trio.open_memory_channel[Word](WINDOW)

    async def run(self) -> None:
        """Never waits for anybody, so that what returns credit is not stuck behind the rest."""
        async for word in self._stream:
            if word == CREDIT:
                self._credit.release()
            else:
                self._arrived.send_nowait(word)
        self._arrived.close()

    async def watch(self, channel: Any) -> None:
        """Notice that the process at the other end is gone, which tractor tells nobody."""
        poll = select.poll()
        poll.register(channel.msgstream.stream.socket.fileno(), getattr(select, "POLLRDHUP", 0))
        while channel.connected() and not poll.poll(0):  # noqa: ASYNC110  # tractor waits for it
            await trio.sleep(INTERVAL)
        self._arrived.close()

    async def send(self, word: Word) -> None:
        await self._credit.acquire()
        await self._stream.send(word)

    async def receive(self) -> Word:
        try:
            word = await self._waiting.receive()
        except trio.EndOfChannel:
            return ["ended", "the tractor actor has gone"]
        await self._stream.send(CREDIT)
        return word


@asynccontextmanager
async def open_wire(stream: Any, channel: Any) -> AsyncGenerator[Wire, None]:
    wire = Wire(stream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.run)
        nursery.start_soon(wire.watch, channel)
        yield wire
        nursery.cancel_scope.cancel()
