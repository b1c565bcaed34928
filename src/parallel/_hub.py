"""`Hub`: where many channels end, in one process."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Generic, Literal, NoReturn, TypeAlias, TypeVar

import trio

from ._channel import Channel, Pace, Wire
from ._client import Client, HubWire
from ._endpoint import socket_pair
from ._listener import Event, Events, Listener, Messages
from ._member import current_member
from ._wire.codec import Packed, pack
from ._wire.greetings import Reset
from ._wire.record import Record
from .errors import NotSendable

ReceiveT = TypeVar("ReceiveT")
SendT = TypeVar("SendT")

Slow: TypeAlias = Literal["wait", "drop", "disconnect"]


class HubStatistics(Record):
    """How much has gone through a hub."""

    clients: int
    messages_sent: int
    messages_received: int
    bytes_unsent: int


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
        self._pace = Pace()
        self._listener: Listener[ReceiveT] = Listener(self._member, self._pace)
        self._sent = 0

    # Connections

    def open_channel(self, label: str | None = None) -> Channel[ReceiveT, SendT]:
        """A new channel to this hub, to use here or to send away; `label` tells it apart.

        The hub's loop goes on until it, and every channel made from it, has been closed.
        """
        if self._listener.closed:
            raise trio.ClosedResourceError("this hub has been closed")
        ours, theirs = socket_pair()
        self.join(ours, label)
        return Channel(Wire(theirs, self._member), label)

    def join(self, sock: socket.socket, label: str | None = None) -> HubWire:
        """Take a connection in."""
        return self._listener.join(sock, label)

    @property
    def clients(self) -> tuple[Client, ...]:
        """Those who hold a channel to this hub now and have said who they are."""
        return tuple(wire.client for wire in self._listener.wires if wire.connected)

    # Receiving

    def __aiter__(self) -> AsyncIterator[tuple[Client, ReceiveT]]:
        return Messages(self._listener)

    def listen(self) -> AsyncIterator[Event[ReceiveT]]:
        """Every event in order: `Connected`, `Message`, `Ended`, `Disconnected`.

        Ends as the plain loop does, and raises as it does: `RemoteError` for a message that cannot
        be unpickled here (iterating can go on), `trio.ClosedResourceError` when the hub is closed
        meanwhile, `trio.BusyResourceError` when another task iterates.
        """
        return Events(self._listener)

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
        return [wire for wire in self._listener.wires if wire.connected and wire.can_send]

    def _without_room(self, size: int) -> list[HubWire]:
        return [wire for wire in self._audience() if not wire.has_room(size)]

    async def flushed(self) -> None:
        """Wait until all that was sent is in the sockets of those it was sent to, or they are gone.

        It survives the end of this process then.
        """
        await trio.lowlevel.checkpoint()
        for wire in list(self._listener.wires):
            await wire.flushed()

    def _wire_of(self, client: Client) -> HubWire:
        self._check_open()
        wire = client._wire
        if wire.owner is not self._listener:
            raise ValueError(f"{client} is not a client of this hub")
        if wire not in self._listener.wires:
            raise self._gone(wire) from wire.explanation
        return wire

    def _gone(self, wire: HubWire) -> trio.BrokenResourceError:
        return trio.BrokenResourceError(f"{wire.client} has gone")

    def _check_open(self) -> None:
        if self._listener.closed:
            raise trio.ClosedResourceError("this hub has been closed")

    # The end

    def statistics(self) -> HubStatistics:
        """What has gone through so far."""
        unsent = sum(wire.unwritten for wire in self._listener.wires)
        return HubStatistics(len(self.clients), self._sent, self._listener.received, unsent)

    def close(self, reset: Reset | None = None) -> None:
        """End every connection: properly, or with a reason. What was sent will still arrive."""
        self._listener.close(reset)

    async def aclose(self) -> None:
        """End every connection properly, and a checkpoint. What was sent will still arrive."""
        self.close()
        await trio.lowlevel.checkpoint()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a hub cannot be sent; send hub.open_channel() instead")

    def __repr__(self) -> str:
        return f"<parallel.Hub with {len(self._listener.wires)} connections>"


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
