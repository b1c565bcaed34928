"""Pure: the streams of a link, and which frames are legal when.

A stream is what a socket between two processes of one host is: bytes in both directions, and other
streams that travel beside them as descriptors do. Each direction of it is open until its sender
says END. Who does not want its bytes any more says RESET, to which the sender answers END.

                by its sender      by its receiver
    direction   DATA      END      CREDIT    RESET
    open        open      ended    open      stopped
    stopped     stopped   ended    stopped   -
    ended       -         -        ended     ended

(-: a `ProtocolError`. A stream is gone when both of its directions have ended; a CREDIT or RESET
may have crossed the END, and is dropped.)

A sender has a window of bytes for each stream, which the receiver's credit opens again: that holds
for the whole way, over any number of links, so whoever passes a stream on holds at most a window.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

from ..errors import ProtocolError
from .link_frames import MAX_DATA, Kind, LinkFrame, LinkReader, encode

WINDOW = 1 << 20
"""Bytes that may be under way in one direction of a stream."""

MAX_STREAMS = 1 << 16
"""Streams of a link at once; each has a descriptor at either end."""

Chunk: TypeAlias = bytes | memoryview


class Message(NamedTuple):
    """A request has come, with these new streams."""

    body: bytes
    streams: list[int]


class Data(NamedTuple):
    """Bytes of a stream have come, with these new streams beside the first of them."""

    stream: int
    data: memoryview
    streams: list[int]


class Credit(NamedTuple):
    """The stream may send so many bytes more."""

    stream: int
    size: int


class Ended(NamedTuple):
    """Nothing more comes from the stream."""

    stream: int


class Stopped(NamedTuple):
    """Nobody takes what the stream sends."""

    stream: int


class Pong(NamedTuple):
    """The other side is there."""

    token: int


Event: TypeAlias = Message | Data | Credit | Ended | Stopped | Pong


class _Stream:
    """One stream as seen from one side."""

    __slots__ = ("got_end", "may_receive", "sent_end", "stopped", "stopping")

    def __init__(self) -> None:
        self.sent_end = False
        self.got_end = False
        self.stopping = False
        """We take no more of it."""
        self.stopped = False
        """They take no more of it."""
        self.may_receive = WINDOW


class Multiplexer:
    """One side of a link: what is to be sent for an action, and what has happened by a read.

    `side` is 0 for one and 1 for the other, so that both can name new streams.
    """

    def __init__(self, side: int) -> None:
        self._streams: dict[int, _Stream] = {}
        self._reader = LinkReader()
        self._side = side
        self._next = 2 + side
        self._last_theirs = 0
        self._arrived: dict[int, list[int]] = {}
        """New streams that are on their way beside a stream's next bytes."""
        self.answers: list[bytes] = []
        """Frames that are due because of what `feed` has seen."""

    @property
    def count(self) -> int:
        """How many streams there are."""
        return len(self._streams)

    # Sending

    def open(self, beside: int = 0) -> tuple[int, bytes]:
        """A new stream and its frame, to be sent right before what it travels with."""
        stream = self._next
        self._next += 2
        self._streams[stream] = _Stream()
        return stream, encode(Kind.OPEN, stream, beside)

    def message(self, body: bytes) -> list[Chunk]:
        """A request, with the streams that were opened beside nothing since the last."""
        return [encode(Kind.MESSAGE, 0, len(body)), body]

    def is_open(self, stream: int) -> bool:
        """Whether one of its directions is still open."""
        return stream in self._streams

    def may_send(self, stream: int) -> bool:
        """Whether somebody would take bytes of the stream."""
        state = self._streams.get(stream)
        return state is not None and not state.sent_end and not state.stopped

    def data(self, stream: int, data: Chunk) -> list[Chunk]:
        """Bytes of a stream; nothing once it has ended or nobody takes them."""
        if not data or not self.may_send(stream):
            return []
        if len(data) <= MAX_DATA:
            return [encode(Kind.DATA, stream, len(data)), data]
        chunks: list[Chunk] = []
        view = memoryview(data)
        while view:
            piece, view = view[:MAX_DATA], view[MAX_DATA:]
            chunks += [encode(Kind.DATA, stream, len(piece)), piece]
        return chunks

    def credit(self, stream: int, count: int) -> bytes:
        """So many bytes of the stream have been taken."""
        state = self._streams.get(stream)
        if state is None or state.got_end:
            return b""
        state.may_receive += count
        return encode(Kind.CREDIT, stream, count)

    def end(self, stream: int) -> bytes:
        """Nothing more will come from here."""
        state = self._streams.get(stream)
        if state is None or state.sent_end:
            return b""
        state.sent_end = True
        self._drop_if_over(stream, state)
        return encode(Kind.END, stream, 0)

    def stop(self, stream: int) -> bytes:
        """Nobody here takes what comes any more."""
        state = self._streams.get(stream)
        if state is None or state.got_end or state.stopping:
            return b""
        state.stopping = True
        return encode(Kind.RESET, stream, 0)

    def ping(self, token: int) -> bytes:
        """Ask whether the other side is there."""
        return encode(Kind.PING, 0, token)

    def _drop_if_over(self, stream: int, state: _Stream) -> None:
        if state.sent_end and state.got_end:
            del self._streams[stream]

    # Receiving

    def feed(self, data: bytes | memoryview) -> Iterator[Event]:
        """What these bytes say. Raises `ProtocolError`; nothing after it makes sense then."""
        for frame in self._reader.feed(data):
            event = self._handle(frame)
            if event is not None:
                yield event

    def _handle(self, frame: LinkFrame) -> Event | None:
        match frame.kind:
            case Kind.DATA:
                return self._data(frame)
            case Kind.CREDIT if self.may_send(frame.stream):
                return Credit(frame.stream, frame.number)
            case Kind.MESSAGE:
                assert isinstance(frame.body, bytes)
                return Message(frame.body, self._arrived.pop(0, []))
            case Kind.OPEN:
                self._open(frame)
            case Kind.END:
                return self._ended(frame)
            case Kind.RESET:
                return self._stopped(frame)
            case Kind.PING:
                self.answers = [encode(Kind.PONG, 0, frame.number)]  # one will do for several
            case Kind.PONG:
                return Pong(frame.number)
            case _:
                self._check_known(frame)
        return None

    def _data(self, frame: LinkFrame) -> Event | None:
        state = self._state(frame)
        if state.got_end:
            raise ProtocolError(f"stream {frame.stream} sent something after its end")
        state.may_receive -= len(frame.body)
        if state.may_receive < 0:
            raise ProtocolError(f"stream {frame.stream} sent more than it may")
        streams = self._arrived.pop(frame.stream, [])
        assert isinstance(frame.body, memoryview)
        return Data(frame.stream, frame.body, streams)

    def _open(self, frame: LinkFrame) -> None:
        stream, beside = frame.stream, frame.number
        if stream <= max(self._last_theirs, 1) or stream % 2 == self._side:
            raise ProtocolError(f"stream {stream} cannot be opened from there")
        if len(self._streams) >= MAX_STREAMS:
            raise ProtocolError(f"there are more than {MAX_STREAMS} streams")
        if beside and self._known(beside).got_end:
            raise ProtocolError(f"stream {beside} sent something after its end")
        self._last_theirs = stream
        self._streams[stream] = _Stream()
        self._arrived.setdefault(beside, []).append(stream)

    def _ended(self, frame: LinkFrame) -> Event:
        state = self._state(frame)
        if state.got_end:
            raise ProtocolError(f"stream {frame.stream} ended twice")
        if frame.stream in self._arrived:
            raise ProtocolError(f"stream {frame.stream} ended before what travels beside it")
        state.got_end = True
        self._drop_if_over(frame.stream, state)
        return Ended(frame.stream)

    def _stopped(self, frame: LinkFrame) -> Event | None:
        state = self._streams.get(frame.stream)
        if state is None or state.sent_end:
            self._check_known(frame)
            return None
        if state.stopped:
            raise ProtocolError(f"stream {frame.stream} was reset twice")
        state.stopped = True
        return Stopped(frame.stream)

    def _state(self, frame: LinkFrame) -> _Stream:
        return self._known(frame.stream)

    def _known(self, stream: int) -> _Stream:
        state = self._streams.get(stream)
        if state is None:
            raise ProtocolError(f"there is no stream {stream}")
        return state

    def _check_known(self, frame: LinkFrame) -> None:
        """CREDIT and RESET may cross the end of their stream; but it has to have been there."""
        stream = frame.stream
        last = self._next - 2 if stream % 2 == self._side else self._last_theirs
        if not 2 <= stream <= last:
            raise ProtocolError(f"there was no stream {stream}")
