"""A link: the multiplexer over a stream of bytes between two agents.

What cannot be sent at once waits in an outbox that a task empties; who has bytes for a stream waits
while the outbox is full, so that each stream has its turn and a small message waits for little.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, runtime_checkable

import trio

from ._ends import NOWHERE, Data, End, abandon, discard, join
from ._wire.liveness import PINGS, Silence
from ._wire.multiplexer import (
    WINDOW,
    Credit,
    Ended,
    Event,
    Message,
    Multiplexer,
    Pong,
    Stopped,
)
from ._wire.multiplexer import Data as DataEvent
from ._wire.requests import Request, decode, encode_body
from .errors import ProtocolError

MAX_OUTBOX = 1 << 18
"""Bytes in the outbox from which on streams wait."""

GRANT = WINDOW // 8
"""Credit is sent when so many bytes have been taken: it costs a frame."""

BATCH = 1 << 17
"""Bytes that are joined for one write."""


CLOSED = "its link was closed"


@runtime_checkable
class Prompt(Protocol):
    """What a link's send stream may have beyond trio's: a way to send without a task's turn."""

    def send_nowait(self, data: Data) -> int:
        """Send now what can be sent now; return how many bytes. Called only if nobody sends.

        Never raises: where the stream is broken nothing can be sent, and `send_all` says why.
        """
        ...


class Flow:
    """An end that is a stream of a link."""

    def __init__(self, link: Link, stream: int) -> None:
        self._link = link
        self._stream = stream
        self._taken = 0
        self.eager = False
        """Grant at once: somebody waits for it."""
        self.other: End = NOWHERE

    def join(self, other: End) -> None:
        """What comes goes there."""
        self.other = other

    @property
    def room(self) -> Callable[[], Awaitable[None]] | None:
        """While the outbox is full."""
        return self._link.wait_for_room if self._link.is_full else None

    def deliver(self, data: Data, passengers: Sequence[End]) -> None:
        """Send it on."""
        self._link.send_data(self._stream, data, passengers)

    def finish(self) -> None:
        """Say so at the other side."""
        self._link.send_end(self._stream)

    def refuse(self) -> None:
        """Say so at the other side."""
        self._link.send_stop(self._stream)

    def grant(self, count: int) -> None:
        """Say so at the other side, now or when it is worth a frame."""
        self._taken += count
        if self.eager or self._taken >= GRANT:
            self._link.send_credit(self._stream, self._taken)
            self._taken = 0


class Link:
    """Messages and streams between this agent and another.

    `side` is 0 at one and 1 at the other. `heartbeat` is in seconds.
    """

    def __init__(
        self,
        send: trio.abc.SendStream,
        receive: trio.abc.ReceiveStream,
        side: int,
        heartbeat: float,
        on_message: Callable[[Request, list[End]], None],
    ) -> None:
        self._send_stream = send
        self._prompt = send if isinstance(send, Prompt) else None
        self._receive_stream = receive
        self._heartbeat = heartbeat
        self._on_message = on_message
        self._multiplexer = Multiplexer(side)
        self._flows: dict[int, Flow] = {}
        self._outbox: list[Data] = []
        self._size = 0
        self._wake = trio.Event()
        self._room = trio.Event()
        self._silence = Silence(heartbeat, trio.current_time())
        self._is_over = False
        self._is_writing = False
        self.round_trip: float | None = None
        """Seconds that the last ping took."""
        self._pinged = 0.0

    # The life of a link

    async def run(self, early: bytes = b"") -> str:
        """Serve until it is over; says why. `early` was read from it before."""
        reason = CLOSED
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                nursery.start_soon(self._ping)

                async def judge() -> None:
                    nonlocal reason
                    await self._wait_for_silence()
                    reason = f"its link was silent for {self._heartbeat:g} s (the heartbeat)"
                    nursery.cancel_scope.cancel()

                nursery.start_soon(judge)
                reason = await self._read(early) or reason
                nursery.cancel_scope.cancel()
        finally:
            self._end()
        return reason

    async def _read(self, early: bytes) -> str | None:
        """Until the end of the bytes; a reason that is worth telling."""
        data: bytes | bytearray = early
        try:
            while True:
                if data:
                    self._feed(bytes(data))
                data = await self._receive_stream.receive_some()
                if not data:
                    return None
        except ProtocolError as exc:
            return f"its link carried something that makes no sense: {exc}"
        except trio.ClosedResourceError:
            return None  # here
        except (trio.BrokenResourceError, OSError) as exc:
            return f"its link broke: {exc.__cause__ or exc}".removesuffix(": ")

    def _feed(self, data: bytes) -> None:
        self._silence.heard(trio.current_time())
        for event in self._multiplexer.feed(data):
            self._handle(event)
        answers = self._multiplexer.answers
        if answers:
            self._send(answers)
            self._multiplexer.answers = []

    async def _write(self) -> None:
        try:
            while True:
                while not self._outbox:
                    self._wake = trio.Event()
                    await self._wake.wait()
                self._is_writing = True
                await self._send_stream.send_all(self._take_batch())
                self._is_writing = False
                if not self.is_full:
                    self._room.set()  # whoever needs more waits again
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # reading will tell

    def _take_batch(self) -> bytes | memoryview:
        if len(self._outbox) == 1:
            only = self._outbox.pop()
            self._size = 0
            return only
        size = taken = 0
        for chunk in self._outbox:
            size += len(chunk)
            taken += 1
            if size >= BATCH:
                break
        batch = b"".join(self._outbox[:taken])
        del self._outbox[:taken]
        self._size -= size
        return batch

    async def _ping(self) -> None:
        while True:
            self._pinged = trio.current_time()
            self._send([self._multiplexer.ping(0)])
            await trio.sleep(self._heartbeat / PINGS)

    async def _wait_for_silence(self) -> None:
        while (pause := self._silence.look(trio.current_time())) is not None:  # noqa: ASYNC110
            await trio.sleep(pause)

    def _end(self) -> None:
        """Nothing comes any more, and nobody takes anything."""
        self._is_over = True
        self._outbox.clear()
        self._size = 0
        self._room.set()
        flows, self._flows = self._flows, {}
        for flow in flows.values():
            abandon(flow.other)

    # What happens

    def _handle(self, event: Event) -> None:
        match event:
            case DataEvent(stream, data, streams):
                passengers = [self._flow(new) for new in streams]
                self._other(stream).deliver(data, passengers)
            case Credit(stream, size):
                self._other(stream).grant(size)
            case Ended(stream):
                self._other(stream).finish()
                self._drop_if_over(stream)
            case Stopped(stream):
                self._other(stream).refuse()
            case Message(body, streams):
                self._on_message(decode(body), [self._flow(new) for new in streams])
            case Pong():
                self.round_trip = trio.current_time() - self._pinged

    def _flow(self, stream: int) -> Flow:
        flow = self._flows[stream] = Flow(self, stream)
        return flow

    def _other(self, stream: int) -> End:
        """What a stream is joined to; nothing while it is on its way beside another's bytes."""
        flow = self._flows.get(stream)
        return flow.other if flow is not None else NOWHERE

    def _drop_if_over(self, stream: int) -> None:
        if not self._multiplexer.is_open(stream):
            self._flows.pop(stream, None)

    # Sending

    @property
    def is_full(self) -> bool:
        """Whether streams should wait before they send more."""
        return self._size >= MAX_OUTBOX

    async def wait_for_room(self) -> None:
        """Until the outbox is no longer full."""
        while self.is_full:
            await self._wait_for_write()

    async def flushed(self) -> None:
        """Until all that was sent so far has left here, or the link is over."""
        while (self._outbox or self._is_writing) and not self._is_over:
            await self._wait_for_write()

    async def _wait_for_write(self) -> None:
        if self._room.is_set():  # who waits already must not be left with another event
            self._room = trio.Event()
        await self._room.wait()

    def send_message(self, request: Request, ends: Sequence[End] = ()) -> None:
        """Send a request, and with it these ends as streams."""
        if self._is_over:
            for end in ends:
                discard(end)
            return
        streams, frames = self._open(ends, 0)
        self._send([*frames, *self._multiplexer.message(encode_body(request))])
        self._join(streams, ends)

    async def say_last(self, request: Request) -> None:
        """Send something when the link is over for us, and perhaps not for the other side."""
        try:
            await self._send_stream.send_all(
                b"".join(self._multiplexer.message(encode_body(request)))
            )
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # there is none

    def send_data(self, stream: int, data: Data, passengers: Sequence[End]) -> None:
        """Send bytes of a stream, and with them these ends as streams."""
        if self._is_over or not self._multiplexer.may_send(stream):
            NOWHERE.deliver(data, passengers)
            return
        streams, frames = self._open(passengers, stream)
        self._send([*frames, *self._multiplexer.data(stream, data)])
        self._join(streams, passengers)

    def send_end(self, stream: int) -> None:
        """Say that a stream is finished."""
        self._send([self._multiplexer.end(stream)])
        self._drop_if_over(stream)

    def send_stop(self, stream: int) -> None:
        """Say that nobody takes what a stream brings."""
        self._send([self._multiplexer.stop(stream)])

    def send_credit(self, stream: int, count: int) -> None:
        """Say that so many bytes of a stream have been taken."""
        self._send([self._multiplexer.credit(stream, count)])

    def _open(self, ends: Sequence[End], beside: int) -> tuple[list[int], list[bytes]]:
        streams, frames = [], []
        for _ in ends:
            stream, frame = self._multiplexer.open(beside)
            streams.append(stream)
            frames.append(frame)
        return streams, frames

    def _join(self, streams: Sequence[int], ends: Sequence[End]) -> None:
        """When what they travel with is on its way: an end may have something to say at once."""
        for stream, end in zip(streams, ends, strict=True):
            join(self._flow(stream), end)

    def _send(self, chunks: Sequence[Data]) -> None:
        if self._is_over:
            return
        if self._prompt is not None and not self._outbox and not self._is_writing:
            data = b"".join(chunks)
            sent = self._prompt.send_nowait(data)
            if sent == len(data):
                return
            chunks = [memoryview(data)[sent:]]
        for chunk in chunks:
            if chunk:
                self._outbox.append(chunk)
                self._size += len(chunk)
        self._wake.set()
