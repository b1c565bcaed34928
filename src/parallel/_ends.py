"""Ends: what an agent joins to each other, so that a socket on one host becomes one on another.

An end is where bytes, and other ends beside them, come from and go to: a socket of this host, or
a stream of a link. Two ends are joined, and each hands what it gets to the other. A window of bytes
may be under way; who has taken some grants as many to the one that they came from.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain
from typing import Protocol, TypeAlias

import trio

from ._endpoint import Endpoint, close_all, socket_pair
from ._wire.frames import READ_SIZE, RELAYED
from ._wire.multiplexer import WINDOW

Data: TypeAlias = bytes | memoryview


class End(Protocol):
    """What the end at the other side of a joint calls."""

    def deliver(self, data: Data, passengers: Sequence[End]) -> None:
        """Take bytes, with ends that travel beside the first of them."""

    def finish(self) -> None:
        """Nothing more comes."""

    def refuse(self) -> None:
        """Nobody takes what you have to give any more: stop, and finish the other."""

    def grant(self, count: int) -> None:
        """So many bytes of yours have been taken."""

    @property
    def room(self) -> Callable[[], Awaitable[None]] | None:
        """What to wait for before the next `deliver`; None for nothing."""

    def join(self, other: End) -> None:
        """From now on the other end is that one."""


def join(first: End, second: End) -> None:
    """Each gets what the other has."""
    first.join(second)
    second.join(first)


class Useless:
    """The end that leads nowhere: it has nothing and wants nothing."""

    room = None

    def deliver(self, data: Data, passengers: Sequence[End]) -> None:
        """Drop it."""
        for passenger in passengers:
            discard(passenger)

    def finish(self) -> None:
        """It does not mind."""

    def refuse(self) -> None:
        """It has nothing."""

    def grant(self, count: int) -> None:
        """It has nothing."""

    def join(self, other: End) -> None:
        """Let the other end know."""
        abandon(other)


NOWHERE = Useless()


def abandon(end: End) -> None:
    """Let go of an end: it gets nothing and nobody takes what it has."""
    end.refuse()
    end.finish()


def discard(end: End) -> None:
    """The same for one that has not been joined to anything."""
    join(end, NOWHERE)


class Spout:
    """An end that gives bytes that are known already, and then is at its end."""

    room = None

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._allowed = WINDOW
        self._other: End = NOWHERE

    def join(self, other: End) -> None:
        """Begin."""
        self._other = other
        if self._data:
            self.grant(0)
        else:
            other.finish()

    def grant(self, count: int) -> None:
        """Go on."""
        self._allowed += count
        piece, self._data = self._data[: self._allowed], self._data[self._allowed :]
        if piece:
            self._allowed -= len(piece)
            self._other.deliver(piece, ())
            if not self._data:
                self._other.finish()

    def deliver(self, data: Data, passengers: Sequence[End]) -> None:
        """It takes nothing."""
        NOWHERE.deliver(data, passengers)

    def finish(self) -> None:
        """It takes nothing."""

    def refuse(self) -> None:
        """Nobody wants the rest."""
        if self._data:
            self._data = self._data[:0]
            self._other.finish()


class Basin:
    """An end that keeps what it gets until the end of that."""

    room = None

    def __init__(self) -> None:
        self.data = b""
        self.full = trio.Event()
        self._other: End = NOWHERE

    def join(self, other: End) -> None:
        """Give nothing to it."""
        self._other = other
        other.finish()

    def deliver(self, data: Data, passengers: Sequence[End]) -> None:
        """Keep it."""
        NOWHERE.deliver(b"", passengers)
        self.data += data
        self._other.grant(len(data))

    def finish(self) -> None:
        """It is all there."""
        self.full.set()

    def refuse(self) -> None:
        """It gives nothing."""

    def grant(self, count: int) -> None:
        """It gives nothing."""


Gate: TypeAlias = Callable[[], Awaitable[None]]


class Local:
    """An end that is a socket of this host, read by a task of `nursery`."""

    room = None

    def __init__(
        self, sock: socket.socket, nursery: trio.Nursery, gate: Gate | None = None
    ) -> None:
        self._endpoint = Endpoint(sock)
        self._nursery = nursery
        self._gate = gate
        """To be passed before anything is handed on."""
        self._other: End = NOWHERE
        self._allowed = WINDOW - READ_SIZE
        """May be read on, and with the last read so much more; a byte over WINDOW ends the link."""
        self._ungranted = 0
        """Bytes that were delivered here and have not been granted yet."""
        self._more = trio.Event()
        self._unread = True
        self._refused = False
        """Nobody takes what our process has to say."""
        self._finishing = False
        """The other end has nothing more for us."""
        self._deaf = False
        """The process at our socket takes nothing more."""
        self._writing = False
        try:
            self._endpoint.push_one(RELAYED)
        except OSError:
            pass  # as reading will tell

    @classmethod
    def of(cls, descriptor: int, nursery: trio.Nursery) -> End:
        """The same, of a socket's descriptor; of any other it leads nowhere."""
        try:
            return cls(socket.socket(fileno=descriptor), nursery)
        except OSError:
            close_all([descriptor])
            return NOWHERE

    def join(self, other: End) -> None:
        """Begin: what the socket has goes there."""
        self._other = other
        self._nursery.start_soon(self._read)
        if self._endpoint.unwritten:  # its peer does not read, so even our greeting has to wait
            self._start_writing()

    # From the socket

    async def _read(self) -> None:
        descriptors: deque[int] = deque()
        try:
            await self._read_all(descriptors)
        except trio.Cancelled:  # the agent ends
            self._endpoint.close()
            raise
        finally:
            close_all(descriptors)
        self._unread = False
        self._other.finish()
        if self._endpoint.is_closed_there():  # our process takes nothing more either
            self._be_deaf()
        self._close_if_over()

    async def _read_all(self, descriptors: deque[int]) -> None:
        endpoint = self._endpoint
        drained = False
        while self._unread:
            if self._allowed <= 0 and not self._refused:
                self._more = trio.Event()
                await self._more.wait()
                continue
            if (room := self._other.room) is not None:
                await room()
            data = None if drained else endpoint.read(descriptors)
            drained = False
            if data is None:
                await trio.lowlevel.wait_readable(endpoint.sock)
                continue
            if not data or endpoint.descriptors_lost:
                endpoint.stop_reading()  # too many open files: what follows would make no sense
                break
            assert isinstance(data, bytes)
            if self._gate is not None:
                await self._gate()
            self._allowed -= len(data)
            drained = len(data) < READ_SIZE  # another read would most likely be in vain
            passengers = [
                Local.of(descriptors.popleft(), self._nursery) for _ in range(len(descriptors))
            ]
            (NOWHERE if self._refused else self._other).deliver(data, passengers)

    def grant(self, count: int) -> None:
        """Read on."""
        self._allowed += count
        self._more.set()

    def refuse(self) -> None:
        """Stop reading: our process finds out when it next sends something."""
        if self._unread:
            self._refused = True  # what lies in the socket comes before its end
            self._endpoint.stop_reading()
            self._more.set()

    # To the socket

    def deliver(self, data: Data, passengers: Sequence[End]) -> None:
        """Write it, now or when there is room."""
        if self._deaf:
            NOWHERE.deliver(data, passengers)
            return
        descriptors = to_descriptors(passengers, self._nursery)
        if len(descriptors) < len(passengers):  # without them the bytes make no sense
            self._be_deaf()
            return
        try:
            if descriptors:
                self._endpoint.push([data], descriptors)
            else:
                self._endpoint.push_one(data)
        except OSError:
            self._be_deaf()
            return
        if not self._endpoint.unwritten:
            self._other.grant(len(data))
            return
        self._ungranted += len(data)
        self._start_writing()

    def _start_writing(self) -> None:
        if not self._writing:
            self._writing = True
            self._nursery.start_soon(self._write)

    async def _write(self) -> None:
        endpoint = self._endpoint
        try:
            while endpoint.unwritten:
                await trio.lowlevel.wait_writable(endpoint.sock)
                endpoint.write()
                self._grant_written()
        except trio.Cancelled:  # the agent ends
            endpoint.close()
            raise
        except OSError:
            self._be_deaf()
        finally:
            self._writing = False
        if self._finishing:
            self._shut()

    def _grant_written(self) -> None:
        written = self._ungranted - self._endpoint.unwritten
        if written > 0:
            self._ungranted -= written
            self._other.grant(written)

    def _be_deaf(self) -> None:
        self._deaf = True
        self._endpoint.drop()
        self._other.refuse()

    def finish(self) -> None:
        """What was delivered is still written."""
        self._finishing = True
        if not self._endpoint.unwritten:
            self._shut()

    def _shut(self) -> None:
        if self._unread:
            try:
                self._endpoint.sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the process was faster
        self._close_if_over()

    def _close_if_over(self) -> None:
        if not self._unread and self._finishing and not self._endpoint.unwritten:
            self._endpoint.close()


def to_descriptors(
    ends: Sequence[End], nursery: trio.Nursery, gate: Gate | None = None
) -> list[int]:
    """The descriptors of new sockets, each with its other end joined to one of `ends`.

    `gate` is for the first. With too many open files there are none, and the ends are let go of.
    """
    pairs: list[tuple[socket.socket, socket.socket]] = []
    try:
        for _ in ends:
            pairs.append(socket_pair())
    except OSError:
        for sock in chain.from_iterable(pairs):
            sock.close()
        for end in ends:
            discard(end)
        return []
    for (ours, _), end in zip(pairs, ends, strict=True):
        join(Local(ours, nursery, gate), end)
        gate = None
    return [theirs.detach() for _, theirs in pairs]
