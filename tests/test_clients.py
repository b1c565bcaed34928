"""`clients`: the connections of a fork server, over real sockets, without a process."""

from __future__ import annotations

import errno
import os
import selectors
import socket
from collections.abc import Iterator

import pytest

from parallel._endpoint import MAX_DESCRIPTORS, Endpoint, close_all, socket_pair
from parallel._host.clients import MAX_UNWRITTEN, Clients
from parallel._wire.requests import (
    Cut,
    Refused,
    Request,
    RequestReader,
    Start,
    Stop,
    Watch,
    encode,
)

NO_DESCRIPTOR = 1 << 20


class Server:
    """A selector with clients, and what it has heard of them."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, Request]] = []
        self.descriptors: list[int] = []
        self.lost: list[int] = []
        self.undelivered: list[tuple[int, Request, int | None]] = []
        self.removes: dict[int, int] = {}
        """Whom to remove when somebody asks."""
        self.selector = selectors.DefaultSelector()
        self.clients = Clients(self.selector, self.answer, self.lost.append, self.not_delivered)
        self.peers: dict[int, socket.socket] = {}

    def answer(self, number: int, request: Request, descriptors: list[int]) -> None:
        self.asked.append((number, request))
        self.descriptors += descriptors
        if number in self.removes:
            self.clients.remove(self.removes[number])

    def not_delivered(self, number: int, request: Request, exc: OSError) -> None:
        self.undelivered.append((number, request, exc.errno))

    def connect(self, number: int) -> socket.socket:
        """A new client; the process's end of its connection."""
        ours, theirs = socket_pair()
        self.clients.add(number, Endpoint(ours))
        self.peers[number] = theirs
        return theirs

    def turn(self) -> bool:
        """Serve whoever is ready now; whether there was somebody."""
        ready = self.selector.select(0)
        for key, events in ready:
            key.data(events)
        return bool(ready)

    def heard(self, number: int) -> list[Request]:
        """What a process is told, which reads until nothing comes any more."""
        reader, peer = RequestReader(), self.peers[number]
        peer.setblocking(False)
        try:
            while data := peer.recv(1 << 20):
                reader.feed(data)
                self.turn()
        except (BlockingIOError, ConnectionResetError):
            pass
        return [item[0] for item in iter(reader.next, None)]

    def close(self) -> None:
        for number, peer in self.peers.items():
            self.clients.remove(number)
            peer.close()
        close_all(self.descriptors)
        self.selector.close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def pass_on(peer: socket.socket, data: bytes, count: int = 1) -> int:
    """Say that with the writing end of a pipe, so many times; the reading end."""
    reading, writing = os.pipe()
    socket.send_fds(peer, [data], [writing] * count)
    os.close(writing)
    return reading


def is_ended(reading: int) -> bool:
    """Whether nobody has the other end of that pipe any more."""
    os.set_blocking(reading, False)
    try:
        return os.read(reading, 1) == b""
    except BlockingIOError:
        return False
    finally:
        os.close(reading)


# What is asked


def test_a_request_comes_whole_however_it_was_cut(server: Server) -> None:
    peer = server.connect(5)
    for byte in encode(Watch("root", 1)) + encode(Stop()):
        peer.send(bytes([byte]))
        server.turn()
    assert server.asked == [(5, Watch("root", 1)), (5, Stop())]


def test_each_request_comes_with_its_descriptors(server: Server) -> None:
    peer = server.connect(5)
    reading = pass_on(peer, encode(Start(1, "root", "f"), 2) + encode(Stop()), 2)
    server.turn()
    assert server.asked == [(5, Start(1, "root", "f")), (5, Stop())]
    assert len(server.descriptors) == 2
    close_all(server.descriptors)
    assert is_ended(reading)
    server.descriptors.clear()


def test_who_was_removed_is_not_served_in_the_same_round(server: Server) -> None:
    server.removes = {1: 2, 2: 1}
    for number in (1, 2):
        server.connect(number).send(encode(Stop()))
    server.turn()
    assert len(server.asked) == 1
    assert not server.turn()


# What is sent


def test_what_is_sent_arrives_in_order(server: Server) -> None:
    server.connect(5)
    requests = [Refused(number, "no") for number in range(10)]
    for request in requests:
        server.clients.send(5, request)
    assert server.heard(5) == requests


def test_who_does_not_read_is_not_read_from_and_loses_no_answer(server: Server) -> None:
    slow, other = server.connect(1), server.connect(2)
    count = 0
    while server.turn() or count * 1000 < 3 * MAX_UNWRITTEN:
        server.clients.send(1, Refused(count, "x" * 1000))
        count += 1
    for peer in (slow, other):
        peer.send(encode(Stop()))
    server.turn()
    assert server.asked == [(2, Stop())]
    heard = server.heard(1)
    assert server.asked == [(2, Stop()), (1, Stop())]
    assert [answer.request for answer in heard if isinstance(answer, Refused)] == [*range(count)]


def test_what_is_sent_to_nobody_has_its_descriptors_closed(server: Server) -> None:
    reading, writing = os.pipe()
    server.clients.send(77, Stop(), [writing])
    assert is_ended(reading)


def test_who_cannot_be_told_something_is_named_with_the_reason(server: Server) -> None:
    server.connect(5)
    server.clients.send(5, Stop(), [NO_DESCRIPTOR])
    assert server.undelivered == [(5, Stop(), errno.EBADF)]
    server.clients.send(5, Stop())
    assert server.heard(5) == [Stop()]


def test_what_is_sent_to_the_dying_is_lost_and_so_are_they(server: Server) -> None:
    server.connect(5).close()
    server.clients.send(5, Stop())
    assert server.undelivered == []
    assert server.lost == []
    server.turn()
    assert server.lost == [5]


# Who is lost


def test_who_closes_its_connection_is_lost_once_with_all_that_it_left(server: Server) -> None:
    peer = server.connect(5)
    reading = pass_on(peer, encode(Stop(), 1)[:-1])
    peer.close()
    while server.turn():
        pass
    assert server.lost == [5]
    assert server.asked == []
    assert is_ended(reading)


def test_who_says_what_makes_no_sense_is_told_so_and_lost_alone(server: Server) -> None:
    peer, other = server.connect(1), server.connect(2)
    peer.send(encode(Stop()) + b"\xff" * 100)
    server.turn()
    assert server.asked == [(1, Stop())]
    assert server.lost == [1]
    (cut,) = server.heard(1)
    assert isinstance(cut, Cut)
    assert "4294967295 bytes" in cut.reason
    other.send(encode(Stop()))
    server.turn()
    assert server.asked[1:] == [(2, Stop())]


def test_who_heaps_up_descriptors_is_lost_and_they_are_closed(server: Server) -> None:
    peer = server.connect(5)
    readings = []
    for byte in encode(Stop())[:3]:
        readings.append(pass_on(peer, bytes([byte]), MAX_DESCRIPTORS // 2))
        server.turn()
    assert server.lost == [5]
    (cut,) = server.heard(5)
    assert isinstance(cut, Cut)
    assert "descriptors" in cut.reason
    ended = [is_ended(reading) for reading in readings]
    assert all(ended)


def test_who_is_removed_finds_its_connection_closed_and_is_not_lost(server: Server) -> None:
    peer = server.connect(5)
    server.clients.remove(5)
    server.clients.remove(5)
    assert peer.recv(1) == b""
    assert not server.turn()
    assert server.lost == []
