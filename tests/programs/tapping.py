"""A launcher whose link is tapped: what it is told is put among the bytes that the link carries."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

import trio

import parallel
from parallel.abc import Launcher, Shell


class Forgery(NamedTuple):
    """Bytes for one end of a link that its other end has not sent; none: the link is cut there."""

    for_the_host: bool
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tapped(Launcher):
    """The same host as `inner`; forgeries come by a channel."""

    inner: Launcher
    forgeries: parallel.Channel[str, Forgery | None]

    def open(self) -> AbstractAsyncContextManager[Shell]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[Shell, None]:
        async with self.inner.open() as shell, trio.open_nursery() as nursery:
            send, receive = trio.open_memory_channel[bytes](math.inf)
            stdin = Sender(shell.stdin)
            nursery.start_soon(pump, shell.stdout, send)
            nursery.start_soon(forge, self.forgeries, stdin, send)
            try:
                yield Shell(stdin, Receiver(receive), shell.stderr, shell.why_ended)
            finally:
                nursery.cancel_scope.cancel()


async def pump(stdout: trio.abc.ReceiveStream, send: trio.MemorySendChannel[bytes]) -> None:
    """What the host says."""
    try:
        while data := await stdout.receive_some():
            send.send_nowait(bytes(data))
    except trio.BrokenResourceError:
        pass
    send.send_nowait(b"")


async def forge(
    forgeries: parallel.Channel[str, Forgery | None],
    stdin: Sender,
    send: trio.MemorySendChannel[bytes],
) -> None:
    """As if the host, or we, had said it. It answers who asks whether it is done."""
    await forgeries.send("here")
    async for forgery in forgeries:
        if forgery is None:
            await forgeries.send("done")
        elif not forgery.for_the_host:
            send.send_nowait(forgery.data)
        elif forgery.data:
            await stdin.send_all(forgery.data)
        else:
            await stdin.aclose()


class Sender(trio.abc.SendStream):
    """Stdin, for several to write to."""

    def __init__(self, stream: trio.abc.SendStream) -> None:
        self.stream = stream
        self.lock = trio.Lock()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        async with self.lock:
            await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self.stream.aclose()


class Receiver(trio.abc.ReceiveStream):
    """Stdout, and what is said to be."""

    def __init__(self, receive: trio.MemoryReceiveChannel[bytes]) -> None:
        self.receive = receive
        self.ended = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if not self.ended:
            data = await self.receive.receive()
            self.ended = not data
            return data
        return b""

    async def aclose(self) -> None:
        await self.receive.aclose()
