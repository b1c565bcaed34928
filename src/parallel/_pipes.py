"""Pipes: streams of descriptors, as a link wants them.

trio's own tries to read before it waits, which fails for whoever answers one message with another.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from operator import index

import trio

READ_SIZE = 1 << 18
SIZE = 1 << 20
"""Bytes that may wait to be read. By default it is a sixteenth; for each both ends wake up."""

_SET_SIZE = getattr(fcntl, "F_SETPIPE_SZ", None)


class PipeSendStream(trio.abc.SendStream):
    """A descriptor that is written; it is made non-blocking, and is closed with the stream."""

    def __init__(self, descriptor: int) -> None:
        self._stream = trio.lowlevel.FdStream(descriptor)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See `trio.abc.SendStream`."""
        await self._stream.send_all(data)

    def send_nowait(self, data: bytes | memoryview) -> int:
        """See `parallel._link.Prompt`."""
        try:
            return os.write(self._stream.fileno(), data)
        except OSError:
            return 0

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream`."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """See `trio.abc.SendStream`."""
        await self._stream.aclose()


class PipeReceiveStream(trio.abc.ReceiveStream):
    """A descriptor that is read; it is made non-blocking, and is closed with the stream."""

    def __init__(self, descriptor: int) -> None:
        if _SET_SIZE is not None:
            with suppress(OSError):  # it is a socket, or this user has many pipes
                fcntl.fcntl(descriptor, _SET_SIZE, SIZE)
        self._stream = trio.lowlevel.FdStream(descriptor)

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """See `trio.abc.ReceiveStream`."""
        size = READ_SIZE if max_bytes is None else index(max_bytes)
        if size > 0 <= self._stream.fileno():
            await trio.lowlevel.wait_readable(self._stream.fileno())
            try:
                return os.read(self._stream.fileno(), size)
            except OSError:
                pass  # somebody was faster, or it broke: the stream's own words tell
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        """See `trio.abc.ReceiveStream`."""
        await self._stream.aclose()
