"""Frames over a socket, in trio: room, borrowed memory, descriptors, closing while unwritten."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

import parallel._connection as module
from parallel._connection import Connection, close_connections, flush_all
from parallel._endpoint import socket_pair
from parallel._wire.codec import Packed
from parallel._wire.frames import HEADER_SIZE, Frame, Kind
from parallel._wire.greetings import Peer, Reset, encode_peer
from parallel.errors import MessageTooLarge, ProtocolError

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
            module._unwritten.discard(connection)


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Connection, Connection]]:
    with connected() as both:
        yield both


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


# Sending


@pytest.mark.parametrize("size", [0, 1, 5000, 70_000, 3_000_000])
@pytest.mark.parametrize("buffers", [0, 1, 3])
async def test_a_message_arrives_whole_whatever_its_size(
    pair: Pair, size: int, buffers: int
) -> None:
    near, far = pair
    body = os.urandom(size)
    parts = [os.urandom(size + 1) for _ in range(buffers)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(near.send, message(body, *parts))
        frame = await far.receive()
    assert frame is not None
    assert bytes(frame.body) == body
    assert [bytes(buffer) for buffer in frame.buffers] == parts


async def test_a_burst_arrives_in_order_mixed_with_messages_of_every_other_kind(
    pair: Pair,
) -> None:
    near, far = pair
    sizes = [1, 3, 20, 5000, 1, 1, 1, 1, 70_000, 7] * 40
    received: list[tuple[int, int]] = []

    async def collect() -> None:
        for number, _ in enumerate(sizes):
            frame = await far.receive()
            assert frame is not None
            parts = [frame.body, *frame.buffers]
            assert all(bytes(part) == bytes([number % 256]) * len(part) for part in parts)
            received.append((len(frame.body), len(frame.buffers)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(collect)
        for number, size in enumerate(sizes):
            piece = bytes([number % 256]) * size
            await near.send(message(piece, *([piece] if number % 7 == 0 else [])))
    assert received == [(size, int(n % 7 == 0)) for n, size in enumerate(sizes)]


async def test_a_burst_without_a_pause_is_written_as_soon_as_there_is_one(pair: Pair) -> None:
    near, far = pair
    for number in range(200):
        near.accept(message(b"%d" % number))
    assert [await receive(far) for _ in range(200)] == [b"%d" % n for n in range(200)]
    assert near.unwritten == 0


async def test_who_computes_between_messages_holds_none_of_them_back(pair: Pair) -> None:
    near, far = pair
    for number in range(50):
        time.sleep(2 * module.PACE)
        near.accept(message(b"%d" % number))
        far.fill()
        frame = far.next()
        assert frame is not None
        assert frame.body == b"%d" % number


async def test_a_burst_is_not_held_back_beyond_the_next_message() -> None:
    with connected(room=ROOM) as (near, far):
        for number in range(50):
            near.accept(message(b"%d" % number))
        assert near.unwritten
        time.sleep(2 * module.PACE)
        near.accept(message(b"50"))
        assert near.unwritten == 0
        assert [await receive(far) for _ in range(51)] == [b"%d" % n for n in range(51)]


async def test_the_end_comes_behind_a_burst(pair: Pair) -> None:
    near, far = pair
    for number in range(200):
        near.accept(message(b"%d" % number))
    near.close()
    frames = await receive_all(far)
    assert [bytes(frame.body) for frame in frames[:-1]] == [b"%d" % n for n in range(200)]
    assert frames[-1].kind is Kind.END


async def test_send_waits_when_the_buffer_is_full_and_goes_on_when_the_peer_reads(
    pair: Pair,
) -> None:
    near, far = pair
    sent = await fill_up(near)
    assert near.unwritten <= BUFFER
    done = trio.Event()

    async def send_one_more() -> None:
        with assert_checkpoints():
            await near.send(message(b"x" * 5000))
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_one_more)
        await wait_all_tasks_blocked()
        assert not done.is_set()
        for body in sent:
            assert await receive(far) == body
        await done.wait()
        assert await receive(far) == b"x" * 5000


async def test_a_message_larger_than_the_buffer_waits_until_nothing_else_does(
    pair: Pair,
) -> None:
    near, far = pair
    sent = await fill_up(near)
    huge = os.urandom(5 * BUFFER)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(near.send, message(huge))
        await wait_all_tasks_blocked()
        assert near.unwritten <= BUFFER
        assert [await receive(far) for _ in sent] == sent
        assert await receive(far) == huge


async def test_a_send_that_is_cancelled_while_it_waits_for_room_has_sent_nothing(
    pair: Pair,
) -> None:
    near, far = pair
    sent = await fill_up(near)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(near.send, message(b"never" * 1000))
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    near.close()
    bodies = [bytes(frame.body) for frame in await receive_all(far) if frame.kind is Kind.MESSAGE]
    assert bodies == sent


async def test_send_keeps_borrowed_memory_until_it_is_written(pair: Pair) -> None:
    near, far = pair
    memory = bytearray(os.urandom(200_000))
    wanted = bytes(memory)

    async def send_and_reuse() -> None:
        await near.send(message(b"", memory))
        memory[:] = bytes(len(memory))
        memory.clear()  # which fails while somebody holds a view

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_and_reuse)
        await wait_all_tasks_blocked()
        frame = await far.receive()
    assert frame is not None
    assert bytes(frame.buffers[0]) == wanted


async def test_a_send_that_is_cancelled_after_it_was_accepted_has_sent_everything(
    pair: Pair,
) -> None:
    near, far = pair
    memory = bytearray(os.urandom(200_000))
    wanted = bytes(memory)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def cancel_it() -> None:
                await wait_all_tasks_blocked()
                assert near.unwritten
                scope.cancel()

            await near.send(message(b"", memory))
            memory[:] = bytes(len(memory))
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    frame = await far.receive()
    assert frame is not None
    assert bytes(frame.buffers[0]) == wanted


async def test_several_senders_wait_in_turn_and_nothing_is_mixed_up(pair: Pair) -> None:
    near, far = pair

    async def send_many(letter: bytes) -> None:
        for number in range(30):
            await near.send(message(letter + b"%d" % number, bytes(letter) * 3000))

    found: dict[bytes, list[int]] = {b"a": [], b"b": [], b"c": [], b"d": []}
    async with trio.open_nursery() as nursery:
        for letter in found:
            nursery.start_soon(send_many, letter)
        for _ in range(120):
            frame = await far.receive()
            assert frame is not None
            body = bytes(frame.body)
            assert bytes(frame.buffers[0]) == body[:1] * 3000
            found[body[:1]].append(int(body[1:]))
    assert all(numbers == list(range(30)) for numbers in found.values())


async def test_a_sender_that_waits_is_told_when_the_peer_goes(pair: Pair) -> None:
    near, far = pair
    await fill_up(near)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def send() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await near.send(message(b"x" * 5000))

        await wait_all_tasks_blocked()
        far.close()
    assert near.unwritten == 0
    assert not near.can_send


async def test_a_sender_whose_memory_is_borrowed_goes_on_when_the_peer_goes(pair: Pair) -> None:
    near, far = pair
    memory = bytearray(200_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(near.send, message(b"", memory))
        await wait_all_tasks_blocked()
        far.close()
    memory.clear()


async def test_flushed_waits_until_the_socket_has_taken_everything(pair: Pair) -> None:
    near, far = pair
    sent = await fill_up(near)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(near.flushed)
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        assert [await receive(far) for _ in sent] == sent
    assert near.unwritten == 0


async def test_flush_all_waits_for_closed_connections_too(pair: Pair) -> None:
    near, far = pair
    sent = await fill_up(near)
    near.close()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flush_all)
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        frames = await receive_all(far)
    assert [bytes(frame.body) for frame in frames[:-1]] == sent


async def test_flush_all_does_not_wait_for_whom_we_have_abandoned(pair: Pair) -> None:
    near, far = pair
    sent = await fill_up(near)
    near.abandon(Reset("slow", "too slow"), trio.BrokenResourceError())
    await flush_all()
    assert not near.can_send
    assert await near.receive() is None
    near.close()
    frames = await receive_all(far)
    assert [bytes(frame.body) for frame in frames] == sent
    assert far.reset == Reset("slow", "too slow")


def test_what_one_event_loop_could_not_write_the_next_one_does() -> None:
    with connected() as (near, far):
        for _ in range(20):
            trio.run(near.send, message(b"x" * 400))
        near.accept(message(b"y" * 90_000))  # and with none at all

        async def receive_what_there_is() -> list[bytes]:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(flush_all)
                found = [await receive(far) for _ in range(21)]
            return found

        assert trio.run(receive_what_there_is) == [b"x" * 400] * 20 + [b"y" * 90_000]


# Descriptors


@pytest.mark.parametrize("count", [1, 200, 201, 300])
async def test_a_message_carries_its_descriptors_however_many(pair: Pair, count: int) -> None:
    near, far = pair
    passengers = [Passenger() for _ in range(count)]
    near.accept(Packed(b"before"))
    near.accept(Packed(b"with them", [], passengers))
    near.accept(Packed(b"behind"))
    assert await receive(far) == b"before"
    frame = await far.receive()
    assert frame is not None
    assert len(frame.descriptors) == count
    for number, (passenger, descriptor) in enumerate(
        zip(passengers, frame.descriptors, strict=True)
    ):
        os.write(descriptor, b"%d" % number)
        assert os.read(passenger.reader, 10) == b"%d" % number
        os.close(descriptor)
        passenger.close()
    assert await receive(far) == b"behind"


@pytest.mark.parametrize("count", [1, 300])
@pytest.mark.parametrize("burst", [0, 100])
async def test_descriptors_for_a_peer_that_has_gone_are_closed(count: int, burst: int) -> None:
    with connected(room=ROOM) as (near, far):
        for _ in range(burst):
            near.accept(message(b"of a burst"))
        far.close()
        passengers = [Passenger() for _ in range(count)]
        with pytest.raises(trio.BrokenResourceError):
            near.accept(Packed(b"", [], passengers))
        for passenger in passengers:
            assert passenger.has_ended
            passenger.close()


@pytest.mark.parametrize("count", [1, 300])
async def test_descriptors_that_wait_for_a_peer_that_goes_are_closed(
    pair: Pair, count: int
) -> None:
    near, far = pair
    await fill_up(near)
    passengers = [Passenger() for _ in range(count)]
    near.accept(Packed(b"", [], passengers))
    far.close()
    await wait_all_tasks_blocked()
    for passenger in passengers:
        assert passenger.has_ended
        passenger.close()


async def test_when_one_passenger_cannot_depart_the_others_stay(pair: Pair) -> None:
    near, far = pair

    class Stubborn(Passenger):
        def depart(self) -> int:
            os.close(self.writer)
            raise RuntimeError("not me")

    passengers = [Passenger(), Stubborn(), Passenger()]
    with pytest.raises(RuntimeError):
        near.accept(Packed(b"", [], passengers))
    os.close(passengers[2].writer)
    near.accept(Packed(b"the connection is none the worse"))
    assert await receive(far) == b"the connection is none the worse"
    for passenger in passengers:
        assert passenger.has_ended
        passenger.close()


async def arrived_but_not_read(far: Connection) -> None:
    """It lies in the socket."""


async def read_but_not_taken(far: Connection) -> None:
    far.fill()


async def read_ahead(far: Connection) -> None:
    far.read_ahead()


@pytest.mark.parametrize("stage", [arrived_but_not_read, read_but_not_taken, read_ahead])
@pytest.mark.parametrize("lingers", [False, True])
async def test_closing_closes_the_descriptors_of_messages_that_nobody_took(
    pair: Pair, stage: Callable[[Connection], object], lingers: bool
) -> None:
    near, far = pair
    passenger = Passenger()
    near.accept(Packed(b"", [], [passenger]))
    if lingers:
        far.accept(message(b"what nobody has read" * 1000))
        assert far.endpoint.unwritten
    await stage(far)  # type: ignore[misc]
    far.close()
    assert passenger.has_ended
    passenger.close()


# Receiving


async def test_greetings_and_resets_are_kept_and_not_handed_out(pair: Pair) -> None:
    near, far = pair
    near.push(Kind.HELLO, encode_peer(PEER))
    near.accept(message(b"between"))
    near.close(Reset("failed", "raised ValueError: no"))
    assert [bytes(frame.body) for frame in await receive_all(far)] == [b"between"]
    assert far.peer == PEER
    assert far.reset == Reset("failed", "raised ValueError: no")
    assert not far.got_end


async def test_the_end_is_told_apart_from_the_end_of_the_bytes(pair: Pair) -> None:
    near, far = pair
    near.end()
    near.end()
    frame = await far.receive()
    assert frame is not None
    assert frame.kind is Kind.END
    assert far.got_end
    assert not far.at_eof
    far.accept(message(b"the other way is open"))
    assert await receive(near) == b"the other way is open"
    near.close()
    assert await far.receive() is None
    assert far.at_eof


async def test_bytes_without_an_end_end_without_a_word(pair: Pair) -> None:
    near, far = pair
    near.accept(message(b"last"))
    near.endpoint.close()
    assert await receive(far) == b"last"
    assert await far.receive() is None
    assert far.at_eof
    assert not far.got_end


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n...............",
        bytes(HEADER_SIZE),
        b"\xff" * 100,
    ],
    ids=["text", "zeros", "ones"],
)
async def test_bytes_that_are_no_frame_end_the_connection_for_both(
    pair: Pair, garbage: bytes
) -> None:
    near, far = pair
    near.accept(message(b"fine"))
    near.endpoint.push_one(garbage)
    assert await receive(far) == b"fine"
    with pytest.raises(ProtocolError) as info:
        await far.receive()
    assert far.cause is info.value
    assert not far.can_send
    assert await near.receive() is None


@pytest.mark.parametrize(
    "packed", [message(bytes(1001)), message(b"", bytes(1001))], ids=["body", "buffer"]
)
async def test_a_message_over_the_receivers_limit_ends_the_connection(packed: Packed) -> None:
    with connected(limit=1000) as (near, far):
        near.accept(message(bytes(1000)))
        near.accept(packed)
        assert await receive(far) == bytes(1000)
        with pytest.raises(MessageTooLarge) as info:
            await far.receive()
        assert info.value.limit == 1000
        assert info.value.size >= 1001
        assert await near.receive() is None


async def test_reading_ahead_finds_the_reason_and_loses_no_message(pair: Pair) -> None:
    near, far = pair
    near.push(Kind.HELLO, encode_peer(PEER))
    sent = [b"one", b"two", b"three"]
    for body in sent:
        near.accept(message(body))
    near.close(Reset("cancelled"))
    assert await receive(far) == sent[0]
    far.read_ahead()
    assert far.reset == Reset("cancelled")
    assert far.peer == PEER
    assert [bytes(frame.body) for frame in await receive_all(far)] == sent[1:]


async def test_when_the_other_process_is_gone_what_it_sent_can_still_be_received(
    pair: Pair,
) -> None:
    near, far = pair
    near.accept(message(b"last words"))
    copy = os.dup(near.endpoint.sock.fileno())  # as a fork of that process would hold one
    near.endpoint.close()
    cause = RuntimeError("it died")
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def receive_until_the_end() -> None:
            assert await receive(far) == b"last words"
            assert await far.receive() is None

        await wait_all_tasks_blocked()
        far.peer_gone(cause)
    with pytest.raises(trio.BrokenResourceError) as info:
        far.check_sending()
    assert info.value.__cause__ is cause
    os.close(copy)


# Closing


async def test_what_was_accepted_before_closing_arrives_and_then_the_end(pair: Pair) -> None:
    near, far = pair
    sent = await fill_up(near)
    near.close()
    near.close()
    with pytest.raises(trio.ClosedResourceError):
        near.check_sending()
    frames = await receive_all(far)
    assert [bytes(frame.body) for frame in frames[:-1]] == sent
    assert frames[-1].kind is Kind.END
    assert near.endpoint.sock.fileno() == -1


async def test_who_closes_with_something_unwritten_takes_nothing_more(pair: Pair) -> None:
    near, far = pair
    await fill_up(near)
    near.close()
    with pytest.raises(trio.BrokenResourceError):
        far.accept(message(b"too late"))


async def test_closing_wakes_whoever_waits_to_send(pair: Pair) -> None:
    near, _ = pair
    await fill_up(near)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def send() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await near.send(message(b"x" * 5000))

        await wait_all_tasks_blocked()
        near.close()


async def test_closing_wakes_whoever_waits_to_receive(pair: Pair) -> None:
    near, _ = pair
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await near.receive()

        await wait_all_tasks_blocked()
        near.close()


async def test_closing_gives_borrowed_memory_back_and_sends_it_all_the_same(pair: Pair) -> None:
    near, far = pair
    memory = bytearray(os.urandom(200_000))
    wanted = bytes(memory)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(near.send, message(b"", memory))
        await wait_all_tasks_blocked()
        near.close()
    memory.clear()
    frame, end = await receive_all(far)
    assert bytes(frame.buffers[0]) == wanted
    assert end.kind is Kind.END


async def test_all_connections_of_a_process_can_be_closed_at_once() -> None:
    with connected() as (near, far), connected() as (other, _):
        near.accept(message(b"last"))
        close_connections(Reset("failed", "why not"))
        assert near.closed
        assert far.closed
        assert other.closed
        await flush_all()


async def test_a_peer_that_goes_while_we_linger_ends_that(pair: Pair) -> None:
    near, far = pair
    await fill_up(near)
    near.close()
    await wait_all_tasks_blocked()
    assert near.endpoint.sock.fileno() != -1
    far.close()
    await flush_all()
    assert near.endpoint.sock.fileno() == -1


async def test_a_fork_holds_no_connection_open(pair: Pair) -> None:
    near, far = pair
    near.accept(message(b"once, not twice"))
    wait, go = os.pipe()
    started, start = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go)
        os.write(start, b"x")
        os.read(wait, 1)
        os._exit(0)
    os.close(wait)
    os.read(started, 1)
    near.close()
    frames = await receive_all(far)
    assert [frame.kind for frame in frames] == [Kind.MESSAGE, Kind.END]
    os.close(go)
    assert os.waitpid(pid, 0)[1] == 0
    os.close(started)
    os.close(start)
