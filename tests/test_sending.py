"""The sending half of a connection."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

import parallel._sending as module
from parallel._connection import Connection
from parallel._sending import flush_all
from parallel._wire.codec import Packed
from parallel._wire.frames import Kind
from parallel._wire.greetings import Reset

from .connections import (
    BUFFER,
    ROOM,
    Pair,
    Passenger,
    connected,
    fill_up,
    message,
    receive,
    receive_all,
)

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
    assert frames[-1].kind is Kind.CLOSE


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
