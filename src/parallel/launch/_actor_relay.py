"""An actor's shell where the host's link is: what comes over a channel. Only `actor` uses it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import trio

from .._channel import Channel
from ..abc import Shell
from ..errors import HostUnreachable
from ._actor_wire import WINDOW, Word

CHUNK = 1 << 16
"""Bytes that travel together at most."""

_numbers = count(1)

PATIENCE = 3.0
"""Seconds that an actor has to end its shell."""


@asynccontextmanager
async def open_relayed(host: str, channel: Channel[Word, Word]) -> AsyncGenerator[Shell, None]:
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        relay = _Relay(channel, next(_numbers))
        nursery.start_soon(relay.run_shielded)
        try:
            await relay.send("open")
            relay.asked = True
            await relay.started.wait()
            if relay.refusal:
                raise HostUnreachable(host, relay.refusal)
            stdout, stderr = _ReceiveStream(relay.stdout[1]), _ReceiveStream(relay.stderr[1])
            yield Shell(_SendStream(relay), stdout, stderr, lambda: relay.end)
        except BaseException as exc:  # noqa: ASYNC103  # raised below
            failure = exc
        with trio.move_on_after(PATIENCE) as patience:
            patience.shield = True
            if relay.asked:
                await relay.close()
        relay.scope.cancel()
    if failure is not None:
        raise failure


class _Relay:
    """What comes from the first process, told apart."""

    def __init__(self, channel: Channel[Word, Word], number: int) -> None:
        self.channel = channel
        self.number = number
        """Of the shell: the last words of one before may still be on their way."""
        # Room, for who reads only one of them at first.
        self.stdout = trio.open_memory_channel[bytes](WINDOW)
        self.stderr = trio.open_memory_channel[bytes](WINDOW)
        self.scope = trio.CancelScope(shield=True)
        self.asked = False
        self.started = trio.Event()
        self.refusal = ""
        self.end = ""
        self.ended = trio.Event()

    async def run_shielded(self) -> None:
        """Until `scope` is cancelled: `close` waits for what comes last."""
        with self.scope:
            await self.run()

    async def run(self) -> None:
        try:
            async for number, what, *more in self.channel:
                if number != self.number:
                    continue
                if what == "started":
                    self.started.set()
                elif what == "ended":
                    self._end(more[0])
                    return
                else:
                    await self._put(self.stdout if what == "out" else self.stderr, more[0])
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        self._end("the program's first process has ended it")

    async def _put(self, pipe: Any, data: bytes) -> None:
        try:
            await pipe[0].send(data)
        except trio.BrokenResourceError:
            pass  # nobody wants it

    async def send(self, *word: Any) -> None:
        await self.channel.send((self.number, *word))

    def _end(self, why: str) -> None:
        self.end = why
        if not self.started.is_set():
            self.refusal = why
            self.started.set()
        for sender, _ in (self.stdout, self.stderr):
            sender.close()
        self.ended.set()

    async def close(self) -> None:
        for _, receiver in (self.stdout, self.stderr):
            receiver.close()
        try:
            await self.send("close")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # then it knows
        await self.ended.wait()


class _ReceiveStream(trio.abc.ReceiveStream):
    def __init__(self, source: trio.MemoryReceiveChannel[bytes]) -> None:
        self._source = source
        self._rest = b""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """See `trio.abc.ReceiveStream`."""
        if self._rest:
            await trio.lowlevel.checkpoint()
        else:
            try:
                self._rest = await self._source.receive()
            except trio.EndOfChannel:
                return b""
        data, self._rest = self._rest[:max_bytes], self._rest[max_bytes or CHUNK :]
        return data

    async def aclose(self) -> None:
        """Take nothing more."""
        await self._source.aclose()


class _SendStream(trio.abc.SendStream):
    def __init__(self, relay: _Relay) -> None:
        self._relay = relay
        self._closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See `trio.abc.SendStream`."""
        view = memoryview(data)
        await self.wait_send_all_might_not_block()
        for start in range(0, len(view), CHUNK):
            await self._relay.send("in", bytes(view[start : start + CHUNK]))

    async def wait_send_all_might_not_block(self) -> None:
        """Nobody can tell; it does not wait."""
        await trio.lowlevel.checkpoint()
        if self._closed:
            raise trio.ClosedResourceError

    async def aclose(self) -> None:
        """The shell's end of file."""
        await trio.lowlevel.checkpoint()
        if not self._closed:
            self._closed = True
            try:
                await self._relay.send("eof")
            except trio.BrokenResourceError:
                pass  # it has gone
