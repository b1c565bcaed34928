"""A shell on a channel of an ssh connection, as streams of trio's. Only `_ssh_connection` uses it.

No task stands between: what the connection decrypts is put where the reader finds it, and what is
sent is encrypted and written at once.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import asyncssh  # noqa: TID253  # loaded with the first host that is reached by ssh
import trio

from ..abc import Shell
from ._ssh_transport import SocketTransport

if TYPE_CHECKING:
    Session = asyncssh.SSHClientSession[bytes]
    Channel = asyncssh.SSHClientChannel[bytes]
else:
    Session = asyncssh.SSHClientSession

WINDOW = 1 << 22
"""Bytes that the other side may send ahead of what has been taken here."""

PACKET = 1 << 17
"""Bytes of the largest packet that the other side may send."""

HIGH_WATER = 1 << 20
"""Bytes that wait to be received from which on the window is not opened again."""

CHUNK = 1 << 16
"""Bytes up to which small packets are received together."""


class ShellSession(Session):
    """Both directions of the channel, and how it ended."""

    def __init__(self) -> None:
        self.stdout = SessionReceiveStream(self)
        self.stderr = SessionReceiveStream(self)
        self.writable = trio.Event()
        self.writable.set()
        self.channel: Channel
        self.ended = False
        self.gone = trio.Event()
        self.end = ""
        self._error: Exception | None = None
        self._paused = False

    def shell(self, transport: SocketTransport) -> Shell:
        """What users of the session see."""
        return Shell(SessionSendStream(self, transport), self.stdout, self.stderr, lambda: self.end)

    async def close(self, *, hurry: bool) -> None:
        """End the shell: by the end of its stdin, else by signals. Takes 2 s at most.

        A server that has lost its client leaves alone what does not read, for as long as it likes.
        """
        await self.stdout.aclose()
        await self.stderr.aclose()
        steps: list[tuple[float, str | None]] = [(0.5, "TERM"), (0.5, "KILL")]
        for patience, signal in steps if hurry else [(1.0, None), *steps]:
            if not self.ended:
                if signal is None:
                    self.channel.write_eof()
                else:
                    self.channel.send_signal(signal)
            with trio.move_on_after(patience):
                await self.gone.wait()
                return

    def connection_made(self, chan: Channel) -> None:
        """The channel is there."""
        self.channel = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """The shell has written something."""
        stream = self.stdout if datatype is None else self.stderr
        stream.put(data)
        if not self._paused and self._unread >= HIGH_WATER:
            self._paused = True
            self.channel.pause_reading()

    @property
    def _unread(self) -> int:
        return self.stdout.size + self.stderr.size

    def taken(self) -> None:
        """Somebody has received something."""
        if self._paused and self._unread < HIGH_WATER // 2:
            self._paused = False
            if not self.ended:
                self.channel.resume_reading()

    def eof_received(self) -> bool:
        """The shell writes nothing more; its stdin stays open."""
        self.stdout.finish(None)
        self.stderr.finish(None)
        return True

    def pause_writing(self) -> None:
        """The window is full."""
        self.writable = trio.Event()

    def resume_writing(self) -> None:
        """There is room again."""
        self.writable.set()

    def exit_status_received(self, status: int) -> None:
        """The shell has ended."""
        self.end = f"its shell exited with code {status}"

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        """The shell has been killed."""
        name = signal if signal.startswith("SIG") else f"SIG{signal}"
        self.end = f"its shell was killed by {name}"

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel is gone, and perhaps the connection."""
        self.ended = True
        self.gone.set()
        if exc is not None:
            self._error = exc
            self.end = f"the ssh connection was lost: {exc}"
        self.stdout.finish(exc)
        self.stderr.finish(exc)
        self.writable.set()

    def check(self) -> None:
        """Raise where nothing can be sent any more."""
        if self.ended:
            raise trio.BrokenResourceError(self.end or "the shell has ended") from self._error


class SessionReceiveStream(trio.abc.ReceiveStream):
    """What the shell writes to stdout, or to stderr."""

    def __init__(self, session: ShellSession) -> None:
        self.size = 0
        self._session = session
        self._chunks: deque[bytes] = deque()
        self._arrived = trio.Event()
        self._finished = False
        self._error: Exception | None = None
        self._closed = False
        self._receiving = False

    def put(self, data: bytes) -> None:
        """Take what has arrived."""
        if not self._closed:
            self._chunks.append(data)
            self.size += len(data)
            self._arrived.set()

    def finish(self, error: Exception | None) -> None:
        """Nothing more will arrive."""
        if not self._finished:
            self._finished = True
            self._error = error
            self._arrived.set()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """See `trio.abc.ReceiveStream`; a lost connection raises `trio.BrokenResourceError`."""
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be >= 1")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving")
        self._receiving = True
        try:
            if self._chunks:
                await trio.lowlevel.checkpoint()
            while not (self._chunks or self._finished or self._closed):
                self._arrived = trio.Event()
                await self._arrived.wait()
        finally:
            self._receiving = False
        if self._closed:
            raise trio.ClosedResourceError
        if not self._chunks:
            await trio.lowlevel.checkpoint()
            if self._error is not None:
                raise trio.BrokenResourceError(str(self._error)) from self._error
            return b""
        data = self._take(max_bytes)
        self.size -= len(data)
        self._session.taken()
        return data

    def _take(self, max_bytes: int | None) -> bytes:
        chunks = self._chunks
        data = chunks.popleft()
        if max_bytes is not None and len(data) > max_bytes:
            chunks.appendleft(data[max_bytes:])
            return data[:max_bytes]
        limit = CHUNK if max_bytes is None else min(max_bytes, CHUNK)
        if not chunks or len(data) + len(chunks[0]) > limit:
            return data
        batch = [data]
        size = len(data)
        while chunks and size + len(chunks[0]) <= limit:
            batch.append(chunks.popleft())
            size += len(batch[-1])
        return b"".join(batch)

    async def aclose(self) -> None:
        """Take nothing more; what arrives is dropped."""
        self._closed = True
        self._chunks.clear()
        self.size = 0
        self._session.taken()
        self._arrived.set()
        await trio.lowlevel.checkpoint()


class SessionSendStream(trio.abc.SendStream):
    """The shell's stdin."""

    def __init__(self, session: ShellSession, transport: SocketTransport) -> None:
        self._session = session
        self._transport = transport
        self._closed = False
        self._sending = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See `trio.abc.SendStream`. Cancelled, it has sent nothing."""
        await self.wait_send_all_might_not_block()
        if data:
            try:
                self._transport.write_at_once(self._session.channel.write, bytes(data))
            except OSError as exc:
                raise trio.BrokenResourceError(self._session.end or str(exc)) from exc

    def send_nowait(self, data: bytes | memoryview) -> int:
        """See `parallel._link.Prompt`: all of it, or nothing."""
        if self._sending or self._closed or self._session.ended or not self._has_room:
            return 0
        try:
            self._transport.write_at_once(self._session.channel.write, bytes(data))
        except OSError:
            return 0
        return len(data)

    @property
    def _has_room(self) -> bool:
        return not self._transport.is_full and self._session.writable.is_set()

    async def wait_send_all_might_not_block(self) -> None:
        """Until there is room."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            self._check()
            while not self._has_room:
                await self._transport.wait_for_room()
                await self._session.writable.wait()
                self._check()
        finally:
            self._sending = False

    def _check(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError
        self._session.check()

    async def aclose(self) -> None:
        """The shell's end of file, after what has been sent."""
        if not self._closed:
            self._closed = True
            self._session.writable.set()
            if not self._session.ended:
                try:
                    self._session.channel.write_eof()
                except OSError:
                    pass  # it is gone already
        await trio.lowlevel.checkpoint()
