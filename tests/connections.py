"""What the tests of a connection's halves share: two of them, joined."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from parallel._connection import Connection
from parallel._endpoint import socket_pair
from parallel._wire.codec import Packed
from parallel._wire.frames import Frame, Kind
from parallel._wire.greetings import Peer

SMALL = 4608
"""Bytes: about the smallest send buffer that Linux gives."""

ROOM = 1 << 18

BUFFER = 10_000
LIMIT = 1 << 40

PEER = Peer("somewhere", 7, 4711, "somebody")


@contextmanager
def connected(limit: int = LIMIT, room: int = SMALL) -> Iterator[tuple[Connection, Connection]]:
    left, right = socket_pair()
    for sock in (left, right):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
    near, far = Connection(left, LIMIT, BUFFER), Connection(right, limit, BUFFER)
    try:
        yield near, far
    finally:
        for connection in (near, far):
            connection.close()
            connection.endpoint.close()
            connection.give_up()


Pair = tuple[Connection, Connection]


def message(body: bytes, *buffers: bytearray | bytes) -> Packed:
    return Packed(body, [memoryview(buffer) for buffer in buffers])


async def receive(connection: Connection) -> bytes:
    """The body of the next message."""
    frame = await connection.receive()
    assert frame is not None
    assert frame.kind is Kind.MESSAGE
    return bytes(frame.body)


async def receive_all(connection: Connection) -> list[Frame]:
    """Every frame until the end of the bytes."""
    found = []
    while (frame := await connection.receive()) is not None:
        found.append(frame)
    return found


async def fill_up(connection: Connection) -> list[bytes]:
    """Send until there is no room for 5,000 bytes more; what was sent."""
    sent = []
    while connection.has_room(5000):
        body = os.urandom(5000)
        await connection.send(message(body))
        sent.append(body)
    return sent


class Passenger:
    """Travels as the writing end of a pipe."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def depart(self) -> int:
        return self.writer

    def close(self) -> None:
        os.close(self.reader)

    @property
    def has_ended(self) -> bool:
        """Whether nobody holds the writing end any more."""
        os.set_blocking(self.reader, False)
        try:
            return os.read(self.reader, 1) == b""
        except BlockingIOError:
            return False
