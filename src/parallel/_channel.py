"""`Channel`: one end of a conversation with a hub."""

from __future__ import annotations

import socket
import sys
import warnings
import weakref
from collections.abc import Awaitable
from functools import partial
from typing import Any, Generic, NoReturn, Self, SupportsIndex, TypeVar

import trio

from ._connection import ENDS, Connection
from ._endpoint import socket_pair
from ._member import Child, Member, current_member
from ._table import read_hosts
from ._wire.codec import arrive, claim, pack, unpack
from ._wire.frames import RELAYED, Frame, Kind
from ._wire.greetings import Peer, Reset
from ._wire.news import ROOT_HOST
from ._wire.record import Record
from .errors import HostDied, ParallelError, ProtocolError, WorkerCancelled, WorkerDied

SendT = TypeVar("SendT")
ReceiveT = TypeVar("ReceiveT")

CALLS_WITHOUT_YIELD = 64
"""Calls that need not wait yield this seldom: a checkpoint costs as much as a message."""

TURNS = 10
"""Times that other tasks run before an exception that closes a channel has reached its nursery."""

PATIENCE = 1.0
"""Seconds that the end of a connection waits for the fork server to say why."""

INTERVAL = 0.01
"""Seconds between two looks for what nobody reports: a last word, a lost host on the way."""


class ChannelStatistics(Record):
    """How much has gone through a channel."""

    messages_sent: int
    messages_received: int
    bytes_unsent: int
    bytes_received: int
    """Unsent: accepted, not yet taken by the other side's socket; received: not yet a message."""


def _is_relayed(sock: socket.socket) -> bool:
    """An agent says so before it hands on a connection, so that it is known from the start."""
    try:
        return sock.recv(len(RELAYED), socket.MSG_PEEK | socket.MSG_DONTWAIT) == RELAYED
    except OSError:
        return False  # nothing has come yet, or nobody is there


class Wire(Connection):
    """The connection between a channel and its hub: greeted, watched, its end explained."""

    def __init__(self, sock: socket.socket, member: Member) -> None:
        settings = member.settings
        super().__init__(sock, settings.max_message_size, settings.buffer_size)
        self.member = member
        self.is_relayed = _is_relayed(sock)
        self.report_expected = False
        """The fork server will say when the process at the other end is gone."""
        self.child: Child | None = None
        """The process at the other end, if this is the channel that its caller got."""
        self.via: tuple[str, ...] = ()
        """Hosts that are neither end's and that it leads through, for it was handed over there."""

    def on_peer(self) -> None:
        """The other side has said who it is: end with it."""
        if self.peer is not None and self.peer.via:
            self.via = self.peer.via
        self.report_expected = True
        self.member.watch(self)

    async def explain(self) -> BaseException | None:
        """Why the connection ended without the other side's word, as far as it gets known."""
        with trio.move_on_after(PATIENCE):
            while not self._is_explained():
                self._look_on_the_way()
                with trio.move_on_after(INTERVAL):
                    await self.settled.wait()
        return self.explanation

    def _is_explained(self) -> bool:
        """Whether nothing is left to wait for.

        Across hosts, that the peer takes nothing more can be known before the last that it said.
        """
        if self.broken and not self.closed:
            self.read_ahead()
        lost = (self.at_eof or self.broken) and not self.got_close and self.reset is None
        return self.settled.is_set() or not (lost and self.report_expected)

    def _look_on_the_way(self) -> None:
        """It is settled by the end of a host that it leads through."""
        for host in read_hosts(self.member.table) if self.via else ():
            if host.down and host.name in self.via:
                self.cause = HostDied(host.name, host.down)
                self.settled.set()
                return

    @property
    def via_from_here(self) -> tuple[str, ...]:
        """What a channel leads through that is handed over in this process."""
        here = self.member.settings.host
        known = (ROOT_HOST, self.peer and self.peer.host, *self.via)
        return self.via if here in known else (*self.via, here)

    def close_after_cancelling(self) -> None:
        """`close`, because of an exception that may be about to cancel the process as well.

        It shall hear of that first, and not fail for want of a peer, or return as if all was well.
        """
        self.retire()
        try:
            trio.lowlevel.spawn_system_task(self._release_later, name="parallel: close a channel")
        except RuntimeError:  # no trio here, so nobody is cancelled
            self.release()

    async def _release_later(self) -> None:
        assert self.child is not None
        try:
            for _ in range(TURNS):
                await trio.lowlevel.checkpoint()
            if self.child.cancelling:
                await self.child.exited.wait()
        finally:
            self.release()

    @property
    def explanation(self) -> BaseException | None:
        """What is known by now."""
        peer, cause = self.peer, self.cause
        if self.reset is None or peer is None:
            proper_exit = isinstance(cause, WorkerDied) and cause.returncode == 0
            return None if self.got_close and proper_exit else cause
        if self.reset.reason == "cancelled":
            return WorkerCancelled(peer.host, peer.pid, peer.name)
        if self.reset.reason in ("slow", "abandoned"):  # that was no death
            who = f"{peer.name!r} (pid {peer.pid} on host {peer.host!r})"
            return ParallelError(f"{who} {self.reset.text}")
        return WorkerDied(peer.host, peer.pid, peer.name, reason=self.reset.text)


class Pace:
    """Makes calls that need not wait notice cancellation, and yield every now and then."""

    __slots__ = ("_calls",)

    def __init__(self) -> None:
        self._calls = 0

    def step(self) -> Awaitable[None]:
        """Await this first in every call."""
        self._calls += 1
        if self._calls < CALLS_WITHOUT_YIELD:
            return trio.lowlevel.checkpoint_if_cancelled()  # noqa: ASYNC105  # the caller awaits it
        self._calls = 0
        return trio.lowlevel.checkpoint()  # noqa: ASYNC105


class Channel(
    trio.abc.SendChannel[SendT], trio.abc.ReceiveChannel[ReceiveT], Generic[SendT, ReceiveT]
):
    """One end of a connection to a `Hub`: sends `SendT` to it, receives `ReceiveT` from it.

    You get one from `parallel.spawn`, from `Hub.open_channel`, or by receiving one: a channel may
    stand in a closure, an argument, a result or another channel's message, and arrives as a new
    connection to the same hub, ready to use at once.

    Everything is as with trio's channels. The errors:

    * `trio.EndOfChannel` from `receive`: the hub has said that nothing will follow.
    * `trio.ClosedResourceError`: this end has been closed (or `send` was called after `send_eof`).
    * `trio.BrokenResourceError`: the hub's process raised, was cancelled or died; its `__cause__`
      says which. What had arrived before can still be received.
    * `trio.BusyResourceError`: another task is receiving from this channel right now.
    """

    def __init__(self, wire: Wire, label: str | None = None) -> None:
        self._wire = wire
        self._label = label
        self._pace = Pace()
        self._sent = 0
        self._received = 0
        self._broken_errors: weakref.WeakSet[BaseException] = weakref.WeakSet()
        try:
            wire.member.greet(wire, wire.via)
        except trio.BrokenResourceError:
            pass  # the hub has gone meanwhile, as the first use of this channel will tell

    @property
    def wire(self) -> Wire:
        """The connection itself, for the rest of the package."""
        return self._wire

    async def send(self, value: SendT) -> None:
        """Send `value`; returns when it has been accepted into the buffer.

        From then on it will arrive, whether or not this end is closed, and `value` may be changed.
        Cancelled, it has sent nothing. Raises `NotSendable`, which names what in `value` cannot be
        pickled, `MessageTooLarge`, and the errors of every channel.
        """
        await self._pace.step()
        wire = self._wire
        try:
            wire.check_sending()
        except trio.BrokenResourceError:
            await self._raise_broken()
        packed = pack(value, max_size=wire.max_size)
        try:
            if not wire.try_send(packed):
                await wire.send(packed)
        except trio.BrokenResourceError:
            await self._raise_broken()
        self._sent += 1

    def send_nowait(self, value: SendT) -> None:
        """As `send`, but raises `trio.WouldBlock` where that would have to wait for room."""
        wire = self._wire
        try:
            wire.check_sending()
            packed = pack(value, max_size=wire.max_size)
            if not wire.has_room(packed.size):
                raise trio.WouldBlock
            wire.accept(packed)
        except trio.BrokenResourceError:
            raise self._broken() from wire.explanation
        if packed.buffers:
            wire.endpoint.own_unwritten()
        self._sent += 1

    async def send_eof(self) -> None:
        """Say that nothing will follow; receiving goes on."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._wire.closed:
            raise trio.ClosedResourceError("this channel has been closed")
        self._wire.end()

    async def receive(self) -> ReceiveT:
        """The next message; waits for it. Cancelled, it has lost nothing.

        Raises `RemoteError` for a message that cannot be unpickled here; the channel can go on.
        """
        await self._pace.step()
        wire = self._wire
        while True:
            body = wire.reader.next_small()
            if body is not None:
                self._received += 1
                small: ReceiveT = unpack(body)
                return small
            frame = self._next()
            if frame is not None:
                return self._unpack(frame)
            if wire.at_eof:
                await self._raise_broken()
            await trio.lowlevel.wait_readable(wire.endpoint.sock)
            if not wire.closed:
                wire.fill()

    def receive_nowait(self) -> ReceiveT:
        """As `receive`, but raises `trio.WouldBlock` where nothing has arrived yet."""
        while (frame := self._next()) is None:
            if self._wire.at_eof:
                raise self._broken() from self._wire.explanation
            if not self._wire.fill():
                raise trio.WouldBlock
        return self._unpack(frame)

    def _next(self) -> Frame | None:
        """The next message that has arrived; raises at the end."""
        wire = self._wire
        if wire.closed:
            raise trio.ClosedResourceError("this channel has been closed")
        frame = wire.next()
        if wire.got_end and (frame is None or frame.kind in ENDS):
            raise trio.EndOfChannel
        return frame

    def _unpack(self, frame: Frame) -> ReceiveT:
        if frame.kind is not Kind.MESSAGE:
            error = ProtocolError(f"a {frame.kind.name} on a channel")
            self._wire.fail(error)
            raise error
        self._received += 1
        value: ReceiveT = unpack(frame.body, frame.buffers, frame.descriptors)
        return value

    async def _raise_broken(self) -> NoReturn:
        cause = await self._wire.explain()
        raise self._broken() from cause

    def _broken(self) -> trio.BrokenResourceError:
        peer = self._wire.peer
        who = f"{peer.name!r} (pid {peer.pid} on host {peer.host!r})" if peer else "the other side"
        error = trio.BrokenResourceError(f"the channel to {who} is broken")
        self._broken_errors.add(error)
        return error

    def raised(self, error: BaseException) -> bool:
        """Whether `error` is this channel's report of being broken."""
        return error in self._broken_errors

    def close(self) -> None:
        """Say that nothing will follow and take nothing more. What was sent will still arrive.

        When an exception ends a block around the channel and its process with it, the process is
        cancelled, and does not see the channel end before.
        """
        wire = self._wire
        if wire.closed or wire.child is None or sys.exc_info()[0] is None:
            wire.close()
        else:
            wire.close_after_cancelling()

    async def aclose(self) -> None:
        """`close`, and a checkpoint."""
        self.close()
        await trio.lowlevel.checkpoint()

    def clone(self) -> Channel[SendT, ReceiveT]:
        """A new connection to the same hub, in this process; to be closed on its own."""
        return _arrive(self.depart(), self._label, self._wire.peer, self._wire.via)

    def statistics(self) -> ChannelStatistics:
        """What has gone through so far."""
        wire = self._wire
        return ChannelStatistics(self._sent, self._received, wire.unwritten, wire.reader.buffered)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        """Travel: `depart` is called when the message is accepted, `_arrive` where it ends up."""
        self._check_portable()
        wire = self._wire
        unpickle = partial(_arrive, label=self._label, peer=wire.peer)
        if via := wire.via_from_here:
            unpickle = partial(unpickle, via=via)
        return arrive, (claim(self), unpickle)

    def _check_portable(self) -> None:
        if self._wire.closed or self._wire.sent_end:
            raise trio.ClosedResourceError("this channel has been closed, it cannot be sent")

    def depart(self) -> int:
        """Open a new connection to the hub; the descriptor of its near end.

        The hub hears of it on this connection, so it cannot see the end of this one first.
        """
        self._check_portable()
        near, far = socket_pair()
        try:
            self._wire.push(Kind.CLONE, descriptors=[far.detach()])
        except trio.BrokenResourceError:
            pass  # the hub has gone: so the new one arrives broken, as if that happened on the way
        return near.detach()

    def __del__(self) -> None:
        if not self._wire.closed:
            warnings.warn(f"{self!r} was never closed", ResourceWarning, stacklevel=2, source=self)
            self._wire.close(Reset("abandoned", "dropped its channel without closing it"))

    def __repr__(self) -> str:
        state = "closed" if self._wire.closed else f"to {self._wire.peer}"
        return f"<parallel.Channel {state}>"


def _arrive(
    descriptor: int, label: str | None, peer: Peer | None, via: tuple[str, ...] = ()
) -> Channel[Any, Any]:
    wire = Wire(socket.socket(fileno=descriptor), current_member())
    wire.via = tuple(host for host in via if host != wire.member.settings.host)
    if peer is not None:
        wire.peer = peer  # it will say so itself, unless it has gone by now
        wire.on_peer()
    return Channel(wire, label)
