"""A connection: frames over an endpoint, in a process that may run trio.

`_sending` is its other half. Nothing reads in the background: whoever receives reads, so an unread
message stays in the sender's way.
"""

from __future__ import annotations

import socket
import weakref
from collections import deque

import trio

from ._endpoint import Endpoint, close_all
from ._sending import Sender
from ._wire.frames import Frame, FrameReader, Kind
from ._wire.greetings import Peer, Reset, decode_peer, decode_reset, encode_reset
from .errors import MessageTooLarge, ProtocolError

READS_IN_A_ROW = 16
"""How often a large message is read on before other tasks get their turn."""

ENDS = (Kind.END, Kind.CLOSE)
"""No message will follow; only the second says that a lost connection was not lost."""

_MESSAGE = Kind.MESSAGE

_connections: weakref.WeakSet[Connection] = weakref.WeakSet()


class Connection(Sender):
    """Frames in both directions: what `Sender` sends, and here is received; and the end of both."""

    def __init__(self, sock: socket.socket, max_size: int, buffer_size: int) -> None:
        super().__init__(Endpoint(sock), buffer_size)
        self.reader = FrameReader(max_size)
        self.max_size = max_size
        self.peer: Peer | None = None
        self.got_end = False
        self.got_close = False
        self.reset: Reset | None = None
        self.is_relayed = False
        """An agent is at the other end of the socket, and the peer on another host."""
        self.settled = trio.Event()
        """`cause` is known, or never will be."""
        self._said_goodbye = False
        self._ahead: deque[Frame] = deque()
        """Frames that `read_ahead` found; while there are any, `reader` has none that is whole."""
        _connections.add(self)

    # Receiving

    async def receive(self) -> Frame | None:
        """The next frame; None at the end of the bytes. Raises `ProtocolError`."""
        while (frame := self.next()) is None and not self.at_eof:
            await trio.lowlevel.wait_readable(self.endpoint.sock)
            self.fill()
        return frame

    def next(self) -> Frame | None:
        """The next frame that has arrived as a whole; greetings and resets are dealt with here."""
        return self._ahead.popleft() if self._ahead else self._next_read()

    def _next_read(self) -> Frame | None:
        while True:
            try:
                frame = self.reader.next()
                if frame is None or frame.kind is _MESSAGE or not self._is_ours(frame):
                    return frame
            except (ProtocolError, MessageTooLarge) as exc:
                self.fail(exc)
                raise

    def _is_ours(self, frame: Frame) -> bool:
        if frame.kind is Kind.HELLO:
            self.peer = decode_peer(frame.body)
            self.on_peer()
        elif frame.kind is Kind.RESET:
            self.reset = decode_reset(frame.body)
        elif frame.kind is Kind.RELAYED:
            self.is_relayed = True
        else:
            said_before = self.got_end
            self.got_close |= frame.kind is Kind.CLOSE
            self.got_end |= frame.kind in ENDS
            return frame.kind is Kind.DESCRIPTORS or (said_before and frame.kind is Kind.CLOSE)
        return True

    def on_peer(self) -> None:
        """The other side has said who it is."""

    def fill(self) -> bool:
        """Read what is there; False when nothing is there now. Sets `at_eof`."""
        reader, endpoint = self.reader, self.endpoint
        for _ in range(READS_IN_A_ROW):
            data = endpoint.read(reader.descriptors, reader.target)
            if data is None:
                return False
            if endpoint.descriptors_lost:
                self.fail(ProtocolError("descriptors did not arrive: too many open files here"))
            if not data:
                self.at_eof = True
                reader.finish()
            elif isinstance(data, int):
                reader.filled(data)
            else:
                reader.feed(data)
            if reader.target is None:
                break
        return True

    def read_ahead(self) -> None:
        """The other side takes nothing more: find out whether it has said why.

        That lies behind what nobody has received yet, which is little: who does not read any more
        sends nothing but what it had accepted before.
        """
        try:
            while not self.at_eof and self.fill():
                while (frame := self._next_read()) is not None:
                    self._ahead.append(frame)
        except (ProtocolError, MessageTooLarge):
            pass  # `cause` says so

    def fail(self, exc: BaseException) -> None:
        """The bytes make no sense, so nothing after them does."""
        self.at_eof = True
        self.cause = exc
        self.settled.set()
        self.endpoint.shut()

    def peer_gone(self, cause: BaseException) -> None:
        """The other process has died: what it sent can be received, then comes the end.

        Shutting our own side gives the same end of file as if no fork of that process held a copy
        of its socket. What an agent relays may still be on its way, and the agent ends it.
        """
        if not self.settled.is_set():
            self.cause = cause
            self.settled.set()
            if self.is_relayed:
                self._break(cause)
            else:
                self.endpoint.shut()
        if self.closed:
            self.release()

    # Closing

    def end(self) -> None:
        """Say that no message will follow."""
        if not self.sent_end:
            self.sent_end = True
            self._say(Kind.END)

    def _say(self, kind: Kind, body: bytes = b"") -> None:
        if not self.broken:
            try:
                self.push(kind, body)
            except trio.BrokenResourceError:
                pass  # it wanted to know nothing more anyway

    def _say_goodbye(self, reset: Reset | None) -> None:
        self.sent_end = True
        if not self._said_goodbye:
            self._said_goodbye = True
            if reset is None:
                self._say(Kind.CLOSE)
            else:
                self._say(Kind.RESET, encode_reset(reset))

    def close(self, reset: Reset | None = None) -> None:
        """End and release; what was accepted is still sent. With `reset`: it is no proper end."""
        if not self.closed:
            self.retire()
            self.release(reset)

    def retire(self) -> None:
        """Be closed, as this process sees it; the other side hears of it with `release`."""
        self.closed = True
        close_all(self.reader.descriptors)
        for frame in self._ahead:
            close_all(frame.descriptors)
        self._ahead.clear()
        self.reader = FrameReader(self.max_size)
        self._notify_closing()
        self.release_writers()

    def release(self, reset: Reset | None = None) -> None:
        """Say goodbye; what was accepted is still sent."""
        if self.released:
            return
        self._say_goodbye(reset)
        self.released = True
        if self.endpoint.unwritten:
            self.endpoint.stop_reading()
            self.endpoint.drop_unread()
        else:
            self.endpoint.close()

    def discard(self) -> None:
        """As `close`, where nobody is left at the other end to be told."""
        self.broken = self.sent_end = True
        self.endpoint.drop()
        self.close()
        self.release()

    def abandon(self, reset: Reset, cause: BaseException) -> None:
        """Have done with a peer that takes too long; this process's end will not wait for it.

        Whoever receives here finds the end, and closes.
        """
        self._say_goodbye(reset)
        self.give_up()
        self.cause = cause
        self.settled.set()
        self.endpoint.stop_reading()

    def leave_to_owner(self) -> None:
        """`close_connections` passes it by: a task may be about to read it to its end."""
        _connections.discard(self)

    def _notify_closing(self) -> None:
        try:
            trio.lowlevel.notify_closing(self.endpoint.sock)
        except RuntimeError:
            pass  # no trio here, so nobody waits

    def __repr__(self) -> str:
        return f"<connection {self.endpoint.sock.fileno()} with {self.peer}>"


def close_connections(reset: Reset | None) -> None:
    """Close every connection that this process has left open, properly or with a reason.

    But not those to its own workers, which `Process.live` sees to their ends.
    """
    for connection in list(_connections):
        connection.close(reset)
        connection.release(reset)
