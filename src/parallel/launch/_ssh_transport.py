"""A socket of trio's as a transport of asyncio's: what an ssh connection runs on.

asyncio's own, under trio-asyncio, costs three task switches for each read. Here a task of trio's
reads and hands over, and what is written goes to the socket at once.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any, Protocol

import trio

READ_SIZE = 1 << 17
HIGH_WATER = 1 << 20
"""Bytes that wait to be written from which on writers should wait."""
_MAX_GATHER = 64


class Receiver(Protocol):
    """What the transport calls: the part of `asyncio.Protocol` that ssh connections have."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> object: ...


class SocketTransport(asyncio.Transport):
    """Carries bytes between a connected socket and a protocol while `run` runs."""

    def __init__(self, sock: socket.socket, protocol: Receiver) -> None:
        super().__init__({"socket": sock, **_addresses(sock)})
        sock.setblocking(False)
        self._sock = sock
        self._protocol = protocol
        self._backlog: deque[memoryview] = deque()
        self._backlog_size = 0
        self._backlog_grew = trio.Event()
        self._has_room = trio.Event()
        self._has_room.set()
        self._closing = False
        self._closed = False
        self._error: Exception | None = None
        self._held: list[bytes | bytearray | memoryview[Any]] | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be connected, until either side closes."""
        try:
            self._protocol.connection_made(self)
            task_status.started()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write_backlog)
                await self._read()
                nursery.cancel_scope.cancel()
        finally:
            # Also when cancelled: whoever waits for the connection must not do so for ever.
            self.abort()
            self._protocol.connection_lost(self._error)

    async def _read(self) -> None:
        sock, protocol = self._sock, self._protocol
        while True:
            try:
                await trio.lowlevel.wait_readable(sock)
                data = sock.recv(READ_SIZE)
            except BlockingIOError:
                continue
            except trio.ClosedResourceError:
                break
            except OSError as exc:
                if not self._closed:  # else what closed it has said why
                    self._error = exc
                break
            if not data:
                protocol.eof_received()
                break
            protocol.data_received(data)
            if self._closed:
                break

    # Writing

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Send now what the socket takes, the rest soon."""
        if self._closing:
            return
        if self._held is not None:
            self._held.append(data)
            return
        view = memoryview(data)
        if not self._backlog:
            try:
                sent = self._sock.send(view)
            except BlockingIOError:
                sent = 0
            except OSError as exc:
                self._fail(exc)
                return
            if sent == len(view):
                return
            view = view[sent:]
        self._backlog.append(view)
        self._backlog_size += len(view)
        self._backlog_grew.set()
        if self._backlog_size > HIGH_WATER and self._has_room.is_set():
            self._has_room = trio.Event()

    def write_at_once(self, write: Callable[[bytes], None], data: bytes) -> None:
        """Call `write`, and send in one go what that writes here: asyncssh splits each packet.

        Else the other side is woken up for the first half.
        """
        self._held = []
        try:
            write(data)
        finally:
            pieces, self._held = self._held, None
            self.write(b"".join(pieces))

    @property
    def is_full(self) -> bool:
        """Whether whoever writes should wait for room."""
        return self._backlog_size > HIGH_WATER and not self._closed

    async def wait_for_room(self) -> None:
        """Until less waits here, or nothing ever will be sent again."""
        await self._has_room.wait()

    async def _write_backlog(self) -> None:
        while not self._closed:
            await self._backlog_grew.wait()
            self._backlog_grew = trio.Event()
            try:
                while self._backlog:
                    await trio.lowlevel.wait_writable(self._sock)
                    self._write_some()
            except trio.ClosedResourceError:
                return
            except OSError as exc:
                self._fail(exc)
                return
            if self._closing:
                self.abort()

    def _write_some(self) -> None:
        backlog = self._backlog
        try:
            sent = self._sock.sendmsg(list(islice(backlog, _MAX_GATHER)))
        except BlockingIOError:
            return
        self._backlog_size -= sent
        while backlog and sent >= len(backlog[0]):
            sent -= len(backlog.popleft())
        if sent:
            backlog[0] = backlog[0][sent:]
        if self._backlog_size <= HIGH_WATER // 2:
            self._has_room.set()

    def _fail(self, exc: OSError) -> None:
        self._error = exc
        self.abort()

    # The end

    def is_closing(self) -> bool:
        """Whether nothing more can be written."""
        return self._closing

    def close(self) -> None:
        """Close when what was written is gone."""
        self._closing = True
        if not self._backlog:
            self.abort()

    def abort(self) -> None:
        """Close now."""
        self._closing = True
        if self._closed:
            return
        self._closed = True
        self._backlog.clear()
        self._backlog_size = 0
        self._has_room.set()
        self._backlog_grew.set()
        trio.lowlevel.notify_closing(self._sock)
        self._sock.close()


def _addresses(sock: socket.socket) -> dict[str, Any]:
    """As asyncio's transports tell them; none for a socket that has none."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return {}
    return {"sockname": sock.getsockname(), "peername": sock.getpeername()}
