"""`_link`: two agents' sides of a link over memory, with real sockets at their ends."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeAlias

import pytest
import trio
import trio.lowlevel
import trio.testing
from trio.testing import MemoryReceiveStream, MemorySendStream

from parallel._endpoint import socket_pair
from parallel._ends import Basin, End, Local, Spout, discard, join
from parallel._link import CLOSED, MAX_OUTBOX, Flow, Link
from parallel._pipes import PipeReceiveStream, PipeSendStream
from parallel._wire.link_frames import Kind, encode
from parallel._wire.multiplexer import WINDOW
from parallel._wire.requests import Failed, Request, Running, Survey, Watch

from .support import eventually
from .test_ends import Far, Process, exactly, greeted, send_with

HEARTBEAT = 30.0

Stream: TypeAlias = "trio.StapledStream[MemorySendStream, MemoryReceiveStream]"
"""One side of a pair that lies in memory."""


class Side:
    """An agent: its link, what it has heard, and why the link is over."""

    def __init__(
        self, stream: Stream, number: int, nursery: trio.Nursery, heartbeat: float
    ) -> None:
        self.stream = stream
        self.nursery = nursery
        self.requests: list[Request] = []
        self.ends: list[End] = []
        self.reason = ""
        self.locals: list[Local] = []
        self.over = trio.Event()
        self.link = Link(stream, stream, number, heartbeat, self.hear)

    def hear(self, request: Request, ends: list[End]) -> None:
        self.requests.append(request)
        self.ends.extend(ends)

    async def live(self) -> None:
        self.reason = await self.link.run()
        await self.stream.aclose()
        self.over.set()

    def socket(self) -> tuple[Process, Local]:
        """A process of this host, and its end here."""
        ours, theirs = socket_pair()
        self.locals.append(Local(ours, self.nursery))
        return Process(trio.socket.from_stdlib_socket(theirs)), self.locals[-1]


@asynccontextmanager
async def linked(heartbeat: float = HEARTBEAT) -> AsyncIterator[tuple[Side, Side]]:
    """Two of them."""
    one, two = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        sides = Side(one, 0, nursery, heartbeat), Side(two, 1, nursery, heartbeat)
        for side in sides:
            nursery.start_soon(side.live)
        yield sides
        await sides[0].stream.aclose()
        for side in sides:
            await side.over.wait()
        await trio.testing.wait_all_tasks_blocked()
        for side in sides:
            assert not side.link._flows
            for local in side.locals:
                local._endpoint.close()
        nursery.cancel_scope.cancel()


async def connect(near: Side, far: Side) -> tuple[Process, Process]:
    """A process on either host, at the two ends of a connection."""
    here, end = near.socket()
    near.link.send_message(Running(1), [end])
    await eventually(lambda: far.ends)
    there, end = far.socket()
    join(end, far.ends.pop())
    return await greeted(here), await greeted(there)


async def test_messages_arrive_in_order_in_both_directions() -> None:
    async with linked() as (near, far):
        for number in range(1000):
            near.link.send_message(Running(number))
            far.link.send_message(Watch("host0", number))
        await eventually(lambda: len(near.requests) == len(far.requests) == 1000)
        assert far.requests == [Running(number) for number in range(1000)]
        assert near.requests == [Watch("host0", number) for number in range(1000)]


async def test_joined_sockets_carry_bytes_both_ways_and_each_ends_by_itself() -> None:
    async with linked() as sides:
        here, there = await connect(*sides)
        async with here, there:
            text = os.urandom(3 * WINDOW + 7)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(here.send_all, text)
                assert await exactly(there, len(text)) == text
            await here.send_eof()
            assert await there.receive_some() == b""
            await there.send_all(b"heard")
            await there.send_eof()
            assert await exactly(here, 100) == b"heard"
        for side in sides:
            await eventually(lambda side=side: not side.link._flows)
            assert side.link._multiplexer.count == 0
            assert all(local._endpoint.sock.fileno() == -1 for local in side.locals)


async def test_a_socket_beside_bytes_comes_out_at_the_other_host() -> None:
    async with linked() as sides:
        here, there = await connect(*sides)
        async with here, there:
            mine, given = socket_pair()
            with given:
                send_with(here, b"take it", [given.fileno()])
            await trio.lowlevel.wait_readable(there.socket)
            sock = socket.socket(fileno=os.dup(there.socket.fileno()))
            with sock:
                data, (descriptor,), _, _ = socket.recv_fds(sock, 100, 5)
            assert data == b"take it"
            one = Process(trio.socket.from_stdlib_socket(mine))
            two = Process(trio.socket.from_stdlib_socket(socket.socket(fileno=descriptor)))
            async with await greeted(one), await greeted(two):
                await one.send_all(b"from here")
                assert await exactly(two, 9) == b"from here"
                await two.send_all(b"and back")
                assert await exactly(one, 8) == b"and back"
        for side in sides:
            await eventually(lambda side=side: side.link._multiplexer.count == 0)


async def test_a_process_that_closes_unread_what_comes_lets_the_sender_know() -> None:
    async with linked() as sides:
        here, there = await connect(*sides)
        async with here:
            await there.aclose()
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await here.send_all(b"x" * 1000)
                    await trio.lowlevel.checkpoint()
        for side in sides:
            await eventually(lambda side=side: side.link._multiplexer.count == 0)


async def test_an_end_that_is_no_socket_serves_as_well() -> None:
    async with linked() as (near, far):
        basin = Basin()
        near.link.send_message(Survey(), [basin])
        await eventually(lambda: far.ends)
        text = os.urandom(2 * WINDOW + 3)
        join(far.ends.pop(), Spout(text))
        await basin.full.wait()
        assert basin.data == text
        await eventually(lambda: not near.link._multiplexer.count)
        assert not far.link._multiplexer.count


async def test_what_is_let_go_of_at_one_side_is_over_at_both() -> None:
    async with linked() as (near, far):
        here, end = near.socket()
        near.link.send_message(Running(1), [end])
        await eventually(lambda: far.ends)
        discard(far.ends.pop())
        async with await greeted(here):
            assert await here.receive_some() == b""
            with pytest.raises(trio.BrokenResourceError):
                await here.send_all(b"x")
        for side in (near, far):
            await eventually(lambda side=side: side.link._multiplexer.count == 0)


# Who waits for whom


async def flood(process: Process) -> None:
    with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
        while True:
            await process.send_all(b"x" * 10_007)


async def test_a_process_that_does_not_read_stops_the_other_and_nobody_else() -> None:
    """The window is kept to the byte, however the bytes are cut: one more would cut the link."""
    async with linked() as sides:
        here, there = await connect(*sides)
        other_here, other_there = await connect(*sides)
        async with here, there, other_here, other_there:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(flood, here)
                await eventually(lambda: sides[0].locals[0]._allowed <= 0)
                await trio.testing.wait_all_tasks_blocked(0.01)
                held = sides[1].locals[0]._endpoint.unwritten
                assert WINDOW / 2 < held <= WINDOW
                await other_here.send_all(b"a small one")
                assert await exactly(other_there, 11) == b"a small one"
                assert len(await exactly(there, 2 * WINDOW)) == 2 * WINDOW  # and it goes on
                await there.aclose()
        assert sides[0].reason == sides[1].reason == ""


async def test_a_small_message_passes_while_streams_flood() -> None:
    """Before it at most an outbox's worth of bytes, however many there are who have some."""
    async with linked() as (near, far):
        came: list[int] = []

        class Sink(Far):
            def deliver(self, data: object, passengers: object) -> None:
                assert isinstance(data, bytes | memoryview)
                came.append(len(data))
                self.near.grant(len(data))

        async with trio.open_nursery() as nursery:
            processes = []
            for _ in range(8):
                here, end = near.socket()
                near.link.send_message(Running(1), [end])
                await eventually(lambda: far.ends)
                join(Sink(), far.ends.pop())
                processes.append(await greeted(here))
                nursery.start_soon(flood, processes[-1])
            await eventually(lambda: sum(came) > 8 * WINDOW)
            for number in range(20):
                before = sum(came)
                near.link.send_message(Failed(number))
                while far.requests[-1] != Failed(number):
                    await trio.lowlevel.checkpoint()
                assert sum(came) - before < 4 * MAX_OUTBOX
                assert near.link._size < 2 * MAX_OUTBOX + 8 * (1 << 16)
            for process in processes:
                await process.aclose()


async def test_every_stream_gets_its_turn() -> None:
    async with linked() as sides:
        pairs = [await connect(*sides) for _ in range(5)]
        text = os.urandom(2 * WINDOW)
        async with trio.open_nursery() as nursery:
            for here, there in pairs:
                nursery.start_soon(here.send_all, text)
                nursery.start_soon(compare, there, text)
        for process in (process for pair in pairs for process in pair):
            await process.aclose()


async def compare(process: Process, text: bytes) -> None:
    assert await exactly(process, len(text)) == text


async def test_flushed_waits_until_all_has_left() -> None:
    async with linked() as (near, far):
        await trio.testing.wait_all_tasks_blocked()
        await near.link.flushed()
        for number in range(5000):
            near.link.send_message(Running(number))
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(near.link.flushed)
        await eventually(lambda: len(far.requests) == 5000)


async def test_the_round_trip_is_measured() -> None:
    async with linked() as (near, far):
        await eventually(lambda: near.link.round_trip is not None)
        await eventually(lambda: far.link.round_trip is not None)


# The end of a link


async def test_with_the_link_everything_that_it_carried_is_over() -> None:
    async with linked() as sides:
        here, there = await connect(*sides)
        basin, unread = Basin(), Far()
        sides[0].link.send_message(Survey(), [basin])
        sides[0].link.send_message(Running(1), [unread])
        await sides[0].stream.aclose()
        for side in sides:
            await side.over.wait()
            assert side.reason == CLOSED
        assert await here.receive_some() == b""
        assert await there.receive_some() == b""
        await basin.full.wait()
        assert unread.refused == unread.finished == 1
        late = Far()
        sides[0].link.send_message(Running(2), [late])
        assert late.refused == late.finished == 1
        await here.aclose()
        await there.aclose()


@pytest.mark.parametrize(
    "garbage",
    [
        b"Last login: Sat Nov 21 on pts/0\r\n",
        b"\xff" * 100,
        encode(Kind.MESSAGE, 0, 5) + b"hello",
        encode(Kind.MESSAGE, 0, 1 << 60),
        encode(Kind.DATA, 8, 1) + b"x",
        encode(Kind.MESSAGE, 0, 60_000) + b"[" * 60_000,
    ],
)
async def test_garbage_ends_the_link_with_a_reason(garbage: bytes) -> None:
    mine, theirs = trio.testing.memory_stream_pair()
    heard: list[Request] = []
    link = Link(theirs, theirs, 0, HEARTBEAT, lambda request, ends: heard.append(request))
    await mine.send_all(garbage)
    reason = await link.run()
    assert reason.startswith("its link carried something that makes no sense: ")
    assert heard == []


async def test_what_was_read_before_the_link_began_counts() -> None:
    mine, theirs = trio.testing.memory_stream_pair()
    heard: list[Request] = []
    link = Link(theirs, theirs, 0, HEARTBEAT, lambda request, ends: heard.append(request))
    await mine.aclose()
    body = b'["Running", 7]'
    assert await link.run(encode(Kind.MESSAGE, 0, len(body)) + body) == CLOSED
    assert heard == [Running(7)]


async def test_a_link_that_breaks_says_how() -> None:
    class Broken(trio.abc.ReceiveStream):
        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError from ConnectionResetError("connection reset by peer")

        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()

    mine, theirs = trio.testing.memory_stream_pair()
    link = Link(theirs, Broken(), 0, HEARTBEAT, lambda request, ends: None)
    assert await link.run() == "its link broke: connection reset by peer"
    await mine.aclose()


# Silence


async def test_a_silent_link_is_dead_after_the_heartbeat(
    autojump_clock: trio.testing.MockClock,
) -> None:
    mine, theirs = trio.testing.memory_stream_pair()
    link = Link(theirs, theirs, 0, HEARTBEAT, lambda request, ends: None)
    began = trio.current_time()
    assert await link.run() == "its link was silent for 30 s (the heartbeat)"
    assert HEARTBEAT <= trio.current_time() - began < HEARTBEAT + 1
    await mine.aclose()


async def test_a_link_with_nothing_to_say_lives_on(autojump_clock: trio.testing.MockClock) -> None:
    async with linked() as (near, far):
        await trio.sleep(100 * HEARTBEAT)
        assert near.reason == far.reason == ""


async def test_a_judge_that_was_stopped_loses_nobody(mock_clock: trio.testing.MockClock) -> None:
    """The clock runs on while the agent stands still, as with SIGSTOP."""
    async with linked() as (near, far):
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            mock_clock.jump(10 * HEARTBEAT)
            await trio.testing.wait_all_tasks_blocked()
        assert near.reason == far.reason == ""
        near.link.send_message(Running(1))
        await trio.testing.wait_all_tasks_blocked()
        assert far.requests == [Running(1)]


async def test_a_stopped_peer_is_found_out_by_who_was_not_stopped(
    autojump_clock: trio.testing.MockClock,
) -> None:
    mine, theirs = trio.testing.memory_stream_pair()
    link = Link(theirs, theirs, 0, HEARTBEAT, lambda request, ends: None)
    async with trio.open_nursery() as nursery:
        far = Link(mine, mine, 1, HEARTBEAT, lambda request, ends: None)
        scope = trio.CancelScope()

        async def live_a_while() -> None:
            with scope:
                await far.run()

        nursery.start_soon(live_a_while)
        reasons: list[str] = []

        async def judge() -> None:
            reasons.append(await link.run())

        nursery.start_soon(judge)
        await trio.sleep(5 * HEARTBEAT)
        assert reasons == []
        scope.cancel()
        await trio.sleep(2 * HEARTBEAT)
        assert reasons == ["its link was silent for 30 s (the heartbeat)"]
    await mine.aclose()


async def test_a_flow_grants_at_once_only_where_somebody_waits() -> None:
    async with linked() as (near, far):
        source = Far()
        near.link.send_message(Running(1), [source])
        await eventually(lambda: far.ends)
        (flow,) = far.ends
        far.ends.clear()
        assert isinstance(flow, Flow)
        flow.grant(10)
        await trio.testing.wait_all_tasks_blocked()
        assert source.granted == 0
        flow.eager = True
        flow.grant(5)
        await trio.testing.wait_all_tasks_blocked()
        assert source.granted == 15
        source.near.finish()
        discard(flow)


class Hasty(PipeSendStream):
    """Takes a few bytes at once, and only every other time."""

    turns = at_once = 0

    def send_nowait(self, data: bytes | memoryview) -> int:
        self.turns += 1
        taken = super().send_nowait(data[: 7 * (self.turns % 2)])
        self.at_once += taken
        return taken


async def test_what_is_sent_at_once_keeps_its_place_before_what_waits() -> None:
    (there, here), (back, forth) = os.pipe(), os.pipe()
    heard: list[Request] = []
    async with (
        Hasty(here) as hasty,
        PipeReceiveStream(there) as received,
        PipeSendStream(forth) as answering,
        PipeReceiveStream(back) as answers,
        trio.open_nursery() as nursery,
    ):
        near = Link(hasty, answers, 0, HEARTBEAT, lambda request, ends: None)
        far = Link(answering, received, 1, HEARTBEAT, lambda request, ends: heard.append(request))
        nursery.start_soon(near.run)
        nursery.start_soon(far.run)
        for number in range(200):
            near.send_message(Running(number))
            if number % 3 == 0:
                await eventually(lambda number=number: Running(number) in heard)
        await eventually(lambda: len(heard) == 200)
        assert heard == [Running(number) for number in range(200)]
        assert hasty.at_once
        nursery.cancel_scope.cancel()
