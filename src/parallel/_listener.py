"""A listener: turns what arrives on a hub's connections into events, each in its turn."""

from __future__ import annotations

import selectors
import socket
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Generic, TypeAlias, TypeVar

import trio

from ._channel import Pace
from ._client import Client, HubWire
from ._connection import ENDS
from ._member import Member
from ._wire.codec import unpack
from ._wire.frames import Buffer, Frame, Kind
from ._wire.greetings import Reset
from .errors import MessageTooLarge, ProtocolError, RemoteError

ReceiveT = TypeVar("ReceiveT")

TURNS_WITHOUT_POLL = 16
"""Messages of connections that have several, before the others are looked at again."""


class _Happening:
    """What events have in common: their slots are their fields.

    No named tuples: those would equal each other, and type checkers forget what a `Message` holds.
    No dataclasses: to make four would take 2 ms of every program's start, and a frozen one takes
    twice as long to fill.
    """

    __slots__: tuple[str, ...] = ()

    def _facts(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self.__slots__}

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._facts() == self._facts()

    def __hash__(self) -> int:
        return hash((type(self), *self._facts().values()))

    def __repr__(self) -> str:
        facts = ", ".join(f"{name}={fact!r}" for name, fact in self._facts().items())
        return f"{type(self).__name__}({facts})"


class Connected(_Happening):
    """A channel has come."""

    __slots__ = ("client",)
    __match_args__ = ("client",)

    def __init__(self, client: Client) -> None:
        self.client = client


class Message(_Happening, Generic[ReceiveT]):
    """A client has sent something."""

    __slots__ = ("client", "value")
    __match_args__ = ("client", "value")

    def __init__(self, client: Client, value: ReceiveT) -> None:
        self.client = client
        self.value = value


class Ended(_Happening):
    """A client will send nothing more: `send_eof` or `close`."""

    __slots__ = ("client",)
    __match_args__ = ("client",)

    def __init__(self, client: Client) -> None:
        self.client = client


class Disconnected(_Happening):
    """A client is gone; `reason` says why where that was not its own wish."""

    __slots__ = ("client", "reason")
    __match_args__ = ("client", "reason")

    def __init__(self, client: Client, reason: BaseException | None) -> None:
        self.client = client
        self.reason = reason


Event: TypeAlias = Connected | Message[ReceiveT] | Ended | Disconnected


class Listener(Generic[ReceiveT]):
    """A hub's connections, and what comes from them."""

    def __init__(self, member: Member, pace: Pace) -> None:
        self.member = member
        self.pace = pace
        self.wires: set[HubWire] = set()
        self.received = 0
        self.closed = False
        self._selector = selectors.DefaultSelector()
        self._sole: HubWire | None = None
        """The only connection, while it is waited for by itself."""
        self._speakers = 0
        """Connections that have not ended."""
        self._opened = False
        self._ready: deque[HubWire] = deque()
        self._events: deque[Event[ReceiveT]] = deque()
        self._turns = 0
        self._listening = False

    def join(self, sock: socket.socket, label: str | None = None) -> HubWire:
        """Take a connection in."""
        if self._sole is not None:
            trio.lowlevel.notify_closing(self._sole.endpoint.sock)
        wire = HubWire(sock, self.member, self, label)
        self.wires.add(wire)
        self._speakers += 1
        self._opened = True
        self._selector.register(sock, selectors.EVENT_READ, wire)
        self.member.greet(wire)
        return wire

    async def next_event(self) -> Event[ReceiveT] | None:
        """The next event; None when no channel can speak any more."""
        await self.pace.step()
        if self._listening:
            raise trio.BusyResourceError("another task is listening to this hub")
        self._listening = True
        try:
            while not self._events and not self._advance():
                if self.closed:
                    raise trio.ClosedResourceError("this hub has been closed")
                if self._opened and not self._speakers:
                    return None
                await self._wait()
        finally:
            self._listening = False
        return self._events.popleft()

    async def _wait(self) -> None:
        """Until a connection has something to read, or there is one more, or none.

        One connection is waited for by itself: what comes by way of the selector, an epoll within
        trio's, wakes this process up on another processor, which costs up to 45 us.
        """
        wire = next(iter(self.wires)) if len(self.wires) == 1 else None
        if wire is None or wire.at_eof:
            await trio.lowlevel.wait_readable(self._selector.fileno())
            self._poll()
            return
        self._sole = wire
        try:
            await trio.lowlevel.wait_readable(wire.endpoint.sock)
        except trio.ClosedResourceError:
            return
        finally:
            self._sole = None
        if not wire.closed:
            self._fill(wire)

    def _poll(self) -> None:
        """Read from every connection that has something and nothing left to look at."""
        if self.closed:
            return
        for key, _ in self._selector.select(0):
            self._fill(key.data)

    def _fill(self, wire: HubWire) -> None:
        if not wire.ready:
            wire.fill()
            wire.ready = True
            self._ready.append(wire)

    def _advance(self) -> bool:
        """Take one frame of the next connection in turn, until there is an event."""
        self._turns += 1
        if self._turns % TURNS_WITHOUT_POLL == 0:
            self._poll()
        while self._ready and not self._events:
            wire = self._ready.popleft()
            body = wire.reader.next_small() if wire.connected else None
            if body is not None:
                self._ready.append(wire)
                self._take_message(wire, body)
            else:
                wire.ready = False
                self._advance_frame(wire)
        return bool(self._events)

    def _advance_frame(self, wire: HubWire) -> None:
        try:
            frame = wire.next()
        except (ProtocolError, MessageTooLarge):
            frame = None  # it has failed, and goes the way of the lost
        if frame is not None:
            wire.ready = True
            self._ready.append(wire)
            self._handle(wire, frame)
        elif wire.at_eof:
            self._part(wire)

    def _take_message(
        self,
        wire: HubWire,
        body: Buffer,
        buffers: Sequence[Buffer] = (),
        descriptors: Sequence[int] = (),
    ) -> None:
        self.received += 1
        try:
            value: ReceiveT = unpack(body, buffers, descriptors)
        except RemoteError as exc:
            exc.add_note(f"It was sent by {wire.client}.")
            raise
        self._events.append(Message(wire.client, value))

    def _handle(self, wire: HubWire, frame: Frame) -> None:
        if frame.kind is Kind.MESSAGE and wire.connected:
            self._take_message(wire, frame.body, frame.buffers, frame.descriptors)
        elif frame.kind in ENDS:
            self._speakers -= 1
            if wire.connected:
                self._events.append(Ended(wire.client))
        elif frame.kind is Kind.CLONE and frame.descriptors:
            self.join(socket.socket(fileno=frame.descriptors[0]), wire.client.label)
        else:
            wire.fail(ProtocolError(f"a {frame.kind.name} to a hub"))

    def on_connected(self, wire: HubWire) -> None:
        """A client has said who it is."""
        if not wire.connected:
            wire.connected = True
            self._events.append(Connected(wire.client))

    def _part(self, wire: HubWire) -> None:
        """A connection is at its end; if it was lost, the fork server may know why."""
        self._selector.unregister(wire.endpoint.sock)
        known = wire.got_close or wire.reset is not None or wire.settled.is_set()
        if wire.connected and not known:
            trio.lowlevel.spawn_system_task(self._part_later, wire)
            return
        self.wires.discard(wire)
        if not wire.got_end:
            self._speakers -= 1
        if wire.connected:
            self._events.append(
                Disconnected(wire.client, None if wire.got_close else wire.why_lost)
            )
        wire.close()

    async def _part_later(self, wire: HubWire) -> None:
        await wire.explain()
        wire.settled.set()
        if not self.closed and not wire.closed:
            # At its end of file it is readable, so whoever listens will come by again.
            self._selector.register(wire.endpoint.sock, selectors.EVENT_READ, wire)

    def close(self, reset: Reset | None = None) -> None:
        """End every connection: properly, or with a reason. What was sent will still arrive."""
        if self.closed:
            return
        self.closed = True
        try:
            trio.lowlevel.notify_closing(self._selector.fileno())
        except RuntimeError:
            pass  # no trio here, so nobody listens
        self._selector.close()
        for wire in self.wires:
            wire.close(reset)
        self.wires.clear()
        self._ready.clear()


class Events(AsyncIterator[Event[ReceiveT]]):
    """Every event of a listener."""

    def __init__(self, listener: Listener[ReceiveT]) -> None:
        self._listener = listener

    async def __anext__(self) -> Event[ReceiveT]:
        event = await self._listener.next_event()
        if event is None:
            raise StopAsyncIteration
        return event


class Messages(AsyncIterator[tuple[Client, ReceiveT]]):
    """A listener's messages alone."""

    def __init__(self, listener: Listener[ReceiveT]) -> None:
        self._listener = listener

    async def __anext__(self) -> tuple[Client, ReceiveT]:
        while (event := await self._listener.next_event()) is not None:
            if type(event) is Message:
                return event.client, event.value
        raise StopAsyncIteration
