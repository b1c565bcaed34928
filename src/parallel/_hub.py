"""`Hub`: where many channels end, in one process."""

from __future__ import annotations

import selectors
import socket
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, NoReturn, TypeAlias, TypeVar

import trio

from ._channel import Channel, Pace, Wire
from ._endpoint import socket_pair
from ._member import Member, current_member
from ._wire.codec import Packed, pack, unpack
from ._wire.frames import Buffer, Frame, Kind
from ._wire.greetings import Peer, Reset
from .errors import MessageTooLarge, NotSendable, ProtocolError, RemoteError

ReceiveT = TypeVar("ReceiveT")
SendT = TypeVar("SendT")

Slow: TypeAlias = Literal["wait", "drop", "disconnect"]


TURNS_WITHOUT_POLL = 16
"""Messages of connections that have several, before the others are looked at again."""


class Client:
    """The other side of one of a hub's connections: who holds that channel."""

    __slots__ = ("__weakref__", "_wire", "label")

    def __init__(self, wire: HubWire, label: str | None) -> None:
        self._wire = wire
        self.label = label

    @property
    def host(self) -> str:
        """The name of its host."""
        return self._peer.host

    @property
    def pid(self) -> int:
        """Its process."""
        return self._peer.pid

    @property
    def name(self) -> str:
        """The name of its process: what it runs."""
        return self._peer.name

    @property
    def _peer(self) -> Peer:
        return self._wire.peer or Peer("?", -1, 0, "?")

    def __repr__(self) -> str:
        label = f" {self.label!r}" if self.label else ""
        return f"<client{label} {self.name!r} pid {self.pid} on {self.host!r}>"


# No named tuples: those would equal each other, and type checkers forget what a Message holds.


@dataclass(frozen=True, slots=True)
class Connected:
    """A channel has come."""

    client: Client


@dataclass(frozen=True, slots=True)
class Message(Generic[ReceiveT]):
    """A client has sent something."""

    client: Client
    value: ReceiveT


@dataclass(frozen=True, slots=True)
class Ended:
    """A client will send nothing more: `send_eof` or `close`."""

    client: Client


@dataclass(frozen=True, slots=True)
class Disconnected:
    """A client is gone; `reason` says why where that was not its own wish."""

    client: Client
    reason: BaseException | None


class HubStatistics(NamedTuple):
    """How much has gone through a hub."""

    clients: int
    messages_sent: int
    messages_received: int
    bytes_unsent: int


class HubWire(Wire):
    """One of a hub's connections."""

    def __init__(self, sock: socket.socket, member: Member, hub: Hub[Any, Any], label: str | None):
        super().__init__(sock, member)
        self.client = Client(self, label)
        self.hub = hub
        self.connected = False
        self.ready = False
        """It stands in the hub's queue of connections to look at."""

    @property
    def why_lost(self) -> BaseException:
        """As well as it is known."""
        return self.explanation or trio.BrokenResourceError("it was lost without a word")

    def on_peer(self) -> None:
        super().on_peer()
        self.hub.on_connected(self)


class Hub(Generic[ReceiveT, SendT]):
    """Receives `ReceiveT` from any number of channels, and sends `SendT` to each or to all.

    A worker gets one as its first argument; `open_hub` makes one anywhere. Iterate over it:

        async for client, message in hub:
            await hub.send(client, message.upper())

    The loop ends when every channel that was ever opened has sent its end or been lost. A channel
    that somebody is sending somewhere counts as open. One task iterates at a time.

    A hub cannot be sent to another process; send `hub.open_channel()` instead.
    """

    def __init__(self) -> None:
        self._member = current_member()
        self._selector = selectors.DefaultSelector()
        self._wires: set[HubWire] = set()
        self._sole: HubWire | None = None
        """The only connection, while it is waited for by itself."""
        self._speakers = 0
        """Connections that have not ended."""
        self._opened = False
        self._ready: deque[HubWire] = deque()
        self._events: deque[Event[ReceiveT]] = deque()
        self._pace = Pace()
        self._turns = 0
        self._listening = False
        self._closed = False
        self._sent = 0
        self._received = 0

    # Connections

    def open_channel(self, label: str | None = None) -> Channel[ReceiveT, SendT]:
        """A new channel to this hub, to use here or to send away; `label` tells it apart.

        The hub's loop goes on until it, and every channel made from it, has been closed.
        """
        if self._closed:
            raise trio.ClosedResourceError("this hub has been closed")
        ours, theirs = socket_pair()
        self.join(ours, label)
        return Channel(Wire(theirs, self._member), label)

    def join(self, sock: socket.socket, label: str | None = None) -> HubWire:
        """Take a connection in."""
        if self._sole is not None:
            trio.lowlevel.notify_closing(self._sole.endpoint.sock)
        wire = HubWire(sock, self._member, self, label)
        self._wires.add(wire)
        self._speakers += 1
        self._opened = True
        self._selector.register(sock, selectors.EVENT_READ, wire)
        self._member.greet(wire)
        return wire

    @property
    def clients(self) -> tuple[Client, ...]:
        """Those who hold a channel to this hub now and have said who they are."""
        return tuple(wire.client for wire in self._wires if wire.connected)

    # Receiving

    def __aiter__(self) -> AsyncIterator[tuple[Client, ReceiveT]]:
        return _Messages(self)

    def listen(self) -> AsyncIterator[Event[ReceiveT]]:
        """Every event in order: `Connected`, `Message`, `Ended`, `Disconnected`.

        Ends as the plain loop does, and raises as it does: `RemoteError` for a message that cannot
        be unpickled here (iterating can go on), `trio.ClosedResourceError` when the hub is closed
        meanwhile, `trio.BusyResourceError` when another task iterates.
        """
        return _Events(self)

    async def next_event(self) -> Event[ReceiveT] | None:
        """The next event; None when no channel can speak any more."""
        await self._pace.step()
        if self._listening:
            raise trio.BusyResourceError("another task is listening to this hub")
        self._listening = True
        try:
            while not self._events and not self._advance():
                if self._closed:
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
        wire = next(iter(self._wires)) if len(self._wires) == 1 else None
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
        if self._closed:
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
        self._received += 1
        try:
            value: ReceiveT = unpack(body, buffers, descriptors)
        except RemoteError as exc:
            exc.add_note(f"It was sent by {wire.client}.")
            raise
        self._events.append(Message(wire.client, value))

    def _handle(self, wire: HubWire, frame: Frame) -> None:
        if frame.kind is Kind.MESSAGE and wire.connected:
            self._take_message(wire, frame.body, frame.buffers, frame.descriptors)
        elif frame.kind is Kind.END:
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
        if wire.connected and not wire.got_end and wire.reset is None and not wire.settled.is_set():
            trio.lowlevel.spawn_system_task(self._part_later, wire)
            return
        self._wires.discard(wire)
        if not wire.got_end:
            self._speakers -= 1
        if wire.connected:
            self._events.append(Disconnected(wire.client, None if wire.got_end else wire.why_lost))
        wire.close()

    async def _part_later(self, wire: HubWire) -> None:
        await wire.explain()
        wire.settled.set()
        if not self._closed and not wire.closed:
            # At its end of file it is readable, so whoever listens will come by again.
            self._selector.register(wire.endpoint.sock, selectors.EVENT_READ, wire)

    # Sending

    async def send(self, client: Client, value: SendT) -> None:
        """Send `value` to one client; as `Channel.send`.

        Raises `trio.BrokenResourceError` for a client that has gone, with the reason as its cause.
        """
        await self._pace.step()
        wire = self._wire_of(client)
        packed = pack(value, max_size=wire.max_size)
        try:
            wire.check_sending()
            if not wire.try_send(packed):
                await wire.send(packed)
            self._sent += 1
            return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._check_open()
        raise self._gone(wire) from await wire.explain()

    def send_nowait(self, client: Client, value: SendT) -> None:
        """As `send`, but raises `trio.WouldBlock` where that would have to wait for room."""
        wire = self._wire_of(client)
        packed = pack(value, max_size=wire.max_size)
        wire.check_sending()
        if not wire.has_room(packed.size):
            raise trio.WouldBlock
        wire.accept(packed)
        if packed.buffers:
            wire.endpoint.own_unwritten()
        self._sent += 1

    async def broadcast(self, value: SendT, slow: Slow = "wait") -> int:
        """Send `value` to every client, serialised once; returns how many it went to.

        `slow` says what to do about clients whose buffer is full: "wait" until each has room (and
        only then send to any, so that a cancelled broadcast has sent nothing), "drop" the message
        for them, or "disconnect" them. Clients that have gone are skipped. Raises `NotSendable`,
        also for a value that holds a channel: every client would need one of its own.
        """
        await self._pace.step()
        self._check_open()
        packed = pack(value, max_size=self._member.settings.max_message_size)
        if packed.passengers:
            raise NotSendable("a broadcast", "parallel.Channel", "send one to each client instead")
        packed = Packed(packed.body, [memoryview(bytes(buffer)) for buffer in packed.buffers])
        while slow == "wait" and (full := self._without_room(packed.size)):
            try:
                await full[0].wait_for_room(packed.size)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # it has gone, and is skipped
            self._check_open()
        if slow == "disconnect":
            for wire in self._without_room(packed.size):
                self._disconnect(wire)
        return self._accept_everywhere(packed)

    def _disconnect(self, wire: HubWire) -> None:
        reason = trio.BrokenResourceError(f"{wire.client} did not read what it was sent")
        wire.abandon(Reset("slow", "disconnected a client that did not read"), reason)

    def _accept_everywhere(self, packed: Packed) -> int:
        reached = 0
        for wire in self._audience():
            if wire.has_room(packed.size):
                try:
                    wire.accept(packed)
                except trio.BrokenResourceError:
                    continue  # gone just now; skipped as the others that have
                reached += 1
        self._sent += reached
        return reached

    def _audience(self) -> list[HubWire]:
        return [wire for wire in self._wires if wire.connected and wire.can_send]

    def _without_room(self, size: int) -> list[HubWire]:
        return [wire for wire in self._audience() if not wire.has_room(size)]

    async def flushed(self) -> None:
        """Wait until all that was sent is in the sockets of those it was sent to, or they are gone.

        It survives the end of this process then.
        """
        await trio.lowlevel.checkpoint()
        for wire in list(self._wires):
            await wire.flushed()

    def _wire_of(self, client: Client) -> HubWire:
        self._check_open()
        wire = client._wire
        if wire.hub is not self:
            raise ValueError(f"{client} is not a client of this hub")
        if wire not in self._wires:
            raise self._gone(wire) from wire.explanation
        return wire

    def _gone(self, wire: HubWire) -> trio.BrokenResourceError:
        return trio.BrokenResourceError(f"{wire.client} has gone")

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this hub has been closed")

    # The end

    def statistics(self) -> HubStatistics:
        """What has gone through so far."""
        unsent = sum(wire.unwritten for wire in self._wires)
        return HubStatistics(len(self.clients), self._sent, self._received, unsent)

    def close(self, reset: Reset | None = None) -> None:
        """End every connection: properly, or with a reason. What was sent will still arrive."""
        if self._closed:
            return
        self._closed = True
        try:
            trio.lowlevel.notify_closing(self._selector.fileno())
        except RuntimeError:
            pass  # no trio here, so nobody listens
        self._selector.close()
        for wire in self._wires:
            wire.close(reset)
        self._wires.clear()
        self._ready.clear()

    async def aclose(self) -> None:
        """End every connection properly, and a checkpoint. What was sent will still arrive."""
        self.close()
        await trio.lowlevel.checkpoint()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a hub cannot be sent; send hub.open_channel() instead")

    def __repr__(self) -> str:
        return f"<parallel.Hub with {len(self._wires)} connections>"


Event: TypeAlias = Connected | Message[ReceiveT] | Ended | Disconnected


class _Events(AsyncIterator[Event[ReceiveT]]):
    def __init__(self, hub: Hub[ReceiveT, Any]) -> None:
        self._hub = hub

    async def __anext__(self) -> Event[ReceiveT]:
        event = await self._hub.next_event()
        if event is None:
            raise StopAsyncIteration
        return event


class _Messages(AsyncIterator[tuple[Client, ReceiveT]]):
    def __init__(self, hub: Hub[ReceiveT, Any]) -> None:
        self._hub = hub

    async def __anext__(self) -> tuple[Client, ReceiveT]:
        while (event := await self._hub.next_event()) is not None:
            if type(event) is Message:
                return event.client, event.value
        raise StopAsyncIteration


@asynccontextmanager
async def open_hub() -> AsyncGenerator[Hub[Any, Any], None]:
    """A hub in this process, for channels that you hand out.

        async with parallel.open_hub() as hub, trio.open_nursery() as nursery:
            with hub.open_channel() as channel:
                await parallel.spawn(worker, channel, nursery=nursery)
            async for client, message in hub: ...

    Leaving the block closes the hub; leaving it by an exception breaks its channels.
    """
    hub: Hub[Any, Any] = Hub()
    try:
        yield hub
    except BaseException as exc:
        hub.close(Reset("failed", f"left its hub with {type(exc).__name__}"))
        raise
    hub.close()
    await trio.lowlevel.checkpoint()
