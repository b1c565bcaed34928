"""Connections: receiving and closing."""

from __future__ import annotations

import os

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from parallel._connection import close_connections
from parallel._sending import flush_all
from parallel._wire.codec import Packed
from parallel._wire.frames import HEADER_SIZE, Kind
from parallel._wire.greetings import Reset, encode_peer
from parallel.errors import MessageTooLarge, ProtocolError

from .connections import (
    PEER,
    Pair,
    connected,
    fill_up,
    message,
    receive,
    receive_all,
)

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


@pytest.mark.parametrize("size", [0, 1 << 20])
async def test_a_large_message_that_breaks_off_is_none(pair: Pair, size: int) -> None:
    """Memory for all of it has been there since its first bytes came."""
    near, far = pair
    near.accept(Packed(bytes(size), [memoryview(bytes(1 << 20))] if not size else []))
    assert near.endpoint.unwritten
    near.endpoint.close()
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
    assert frames[-1].kind is Kind.CLOSE
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
    assert end.kind is Kind.CLOSE


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
    assert [frame.kind for frame in frames] == [Kind.MESSAGE, Kind.CLOSE]
    os.close(go)
    assert os.waitpid(pid, 0)[1] == 0
    os.close(started)
    os.close(start)
