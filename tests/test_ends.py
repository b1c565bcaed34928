"""`_ends`: what agents join to each other, over real sockets."""

from __future__ import annotations

import array
import os
import resource
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager

import pytest
import trio

from parallel._endpoint import socket_pair
from parallel._ends import (
    NOWHERE,
    Basin,
    Data,
    End,
    Local,
    Spout,
    abandon,
    discard,
    join,
    to_descriptors,
)
from parallel._wire.frames import RELAYED
from parallel._wire.multiplexer import WINDOW

from .support import eventually


class Far:
    """The other end of a joint, which keeps what it hears and says what it is told to."""

    room = None

    def __init__(self) -> None:
        self.heard = b""
        self.passengers: list[End] = []
        self.granted = 0
        self.finished = 0
        self.refused = 0
        self.near: End = NOWHERE

    def join(self, other: End) -> None:
        self.near = other

    def deliver(self, data: Data, passengers: Sequence[End]) -> None:
        self.heard += data
        self.passengers.extend(passengers)

    def finish(self) -> None:
        self.finished += 1

    def refuse(self) -> None:
        self.refused += 1

    def grant(self, count: int) -> None:
        self.granted += count


opened: list[Local] = []
"""By `a_process`."""


@pytest.fixture
async def nursery() -> AsyncIterator[trio.Nursery]:
    """For the tasks of an agent, which end with it."""
    async with trio.open_nursery() as nursery:
        yield nursery
        for local in opened:
            abandon(local)
        opened.clear()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


Process = trio.SocketStream
"""A process at the other end of our socket."""


def a_process(nursery: trio.Nursery, far: End | None = None) -> tuple[Process, Local]:
    """A process, and the end of it, joined to `far`."""
    ours, theirs = socket_pair()
    local = Local(ours, nursery)
    opened.append(local)
    if far is not None:
        join(local, far)
    return Process(trio.socket.from_stdlib_socket(theirs)), local


async def greeted(process: Process) -> Process:
    assert await exactly(process, len(RELAYED)) == RELAYED
    return process


async def exactly(process: Process, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await process.receive_some(size - len(data))
        if not more:
            break
        data += more
    return data


# A socket of this host


async def test_who_is_at_a_socket_learns_that_an_agent_is_at_the_other_end(
    nursery: trio.Nursery,
) -> None:
    process, _ = a_process(nursery, Far())
    async with await greeted(process):
        pass


async def test_bytes_go_both_ways(nursery: trio.Nursery) -> None:
    far = Far()
    process, local = a_process(nursery, far)
    async with await greeted(process):
        await process.send_all(b"there")
        await eventually(lambda: far.heard == b"there")
        local.deliver(b"and back", ())
        assert await exactly(process, 8) == b"and back"
        assert far.granted == 8


async def test_each_direction_ends_by_itself(nursery: trio.Nursery) -> None:
    far = Far()
    process, local = a_process(nursery, far)
    async with await greeted(process):
        await process.send_eof()
        await eventually(lambda: far.finished == 1)
        local.deliver(b"still there", ())
        assert await exactly(process, 11) == b"still there"
        local.finish()
        assert await process.receive_some() == b""
        await eventually(lambda: local._endpoint.sock.fileno() == -1)


async def test_after_the_far_end_s_last_word_the_process_may_go_on(nursery: trio.Nursery) -> None:
    far = Far()
    process, local = a_process(nursery, far)
    async with await greeted(process):
        local.deliver(b"last", ())
        local.finish()
        assert await exactly(process, 100) == b"last"
        await process.send_all(b"more")
        await eventually(lambda: far.heard == b"more")
        assert far.finished == 0
    await eventually(lambda: far.finished == 1)
    assert local._endpoint.sock.fileno() == -1


async def test_a_process_that_is_refused_finds_out_when_it_sends(nursery: trio.Nursery) -> None:
    far = Far()
    process, local = a_process(nursery, far)
    async with await greeted(process):
        local.refuse()
        await eventually(lambda: far.finished == 1)
        with pytest.raises(trio.BrokenResourceError):
            await process.send_all(b"x")
        local.deliver(b"it still hears", ())
        assert await exactly(process, 14) == b"it still hears"


async def test_who_has_used_up_its_window_is_refused_all_the_same(nursery: trio.Nursery) -> None:
    far = Far()
    process, local = a_process(nursery, far)
    async with await greeted(process):
        nursery.start_soon(send_until_broken, process)
        await eventually(lambda: local._allowed <= 0)
        await trio.testing.wait_all_tasks_blocked(0.01)  # its socket is full as well
        local.refuse()
        await eventually(lambda: far.finished == 1)


async def send_until_broken(process: Process) -> None:
    with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
        while True:
            await process.send_all(b"x" * 10_007)


async def test_a_process_that_is_gone_refuses_what_comes(nursery: trio.Nursery) -> None:
    far = Far()
    process, local = a_process(nursery, far)
    await (await greeted(process)).aclose()
    await eventually(lambda: far.finished == 1)
    local.deliver(b"x", ())
    assert far.refused == 1
    passenger = Far()
    local.deliver(b"y", [passenger])
    assert passenger.refused == passenger.finished == 1
    local.finish()
    assert local._endpoint.sock.fileno() == -1


async def test_at_most_a_window_is_read_before_it_is_granted(nursery: trio.Nursery) -> None:
    far = Far()
    process, local = a_process(nursery, far)
    async with await greeted(process):
        nursery.start_soon(send_until_broken, process)
        await eventually(lambda: local._allowed <= 0)
        await trio.testing.wait_all_tasks_blocked(0.01)
        held = len(far.heard)
        assert WINDOW / 2 < held <= WINDOW
        local.grant(100_000)
        await eventually(lambda: len(far.heard) > held)
        local.refuse()


async def test_of_a_process_that_reads_nothing_only_what_its_socket_holds_is_granted(
    nursery: trio.Nursery,
) -> None:
    far = Far()
    process, local = a_process(nursery, far)
    async with process:
        local.deliver(b"x" * WINDOW, ())
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert far.granted < WINDOW / 2
        assert 0 < local._endpoint.unwritten <= WINDOW
        assert len(await exactly(process, WINDOW + len(RELAYED))) == WINDOW + len(RELAYED)
        await eventually(lambda: far.granted == WINDOW)


async def test_what_was_delivered_is_written_before_the_end(nursery: trio.Nursery) -> None:
    process, local = a_process(nursery, Far())
    async with process:
        local.deliver(b"x" * WINDOW, ())
        local.finish()
        got = await exactly(process, 2 * WINDOW)
        assert len(got) == WINDOW + len(RELAYED)


async def test_a_socket_that_was_full_before_is_greeted_when_there_is_room(
    nursery: trio.Nursery,
) -> None:
    ours, theirs = socket_pair()
    ours.setblocking(False)
    filled = 0
    with pytest.raises(BlockingIOError):
        while True:
            filled += ours.send(b"x" * 4096)
    local = Local(ours, nursery)
    opened.append(local)
    join(local, Far())
    local.finish()
    async with Process(trio.socket.from_stdlib_socket(theirs)) as process:
        got = await exactly(process, filled + 1000)
        assert got[filled:] == RELAYED


async def test_a_gate_is_passed_before_anything_is_handed_on(nursery: trio.Nursery) -> None:
    far = Far()
    passed = trio.Event()
    ours, theirs = socket_pair()
    opened.append(Local(ours, nursery, passed.wait))
    join(opened[-1], far)
    async with await greeted(Process(trio.socket.from_stdlib_socket(theirs))) as process:
        await process.send_all(b"x")
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert far.heard == b""
        passed.set()
        await eventually(lambda: far.heard == b"x")


# Descriptors


def send_with(process: Process, data: bytes, descriptors: Sequence[int]) -> None:
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
    sock = socket.socket(fileno=os.dup(process.socket.fileno()))
    with sock:
        sock.sendmsg([data], [rights])


async def receive_with(process: Process, size: int) -> tuple[bytes, list[int]]:
    data, descriptors = b"", array.array("i")
    while len(data) < size:
        await trio.lowlevel.wait_readable(process.socket)
        sock = socket.socket(fileno=os.dup(process.socket.fileno()))
        with sock:
            more, ancillary, _, _ = sock.recvmsg(size - len(data), 1000)
        data += more
        for _, _, rights in ancillary:
            descriptors.frombytes(rights)
    return data, descriptors.tolist()


async def test_sockets_beside_bytes_become_ends_and_ends_sockets(nursery: trio.Nursery) -> None:
    """A process hands a socket to another, by way of two joined ends."""
    (one, first), (two, second) = a_process(nursery), a_process(nursery)
    join(first, second)
    async with await greeted(one), await greeted(two):
        mine, given = socket_pair()
        with given:
            send_with(one, b"take it", [given.fileno()])
        data, (descriptor,) = await receive_with(two, 7)
        assert data == b"take it"
        here = Process(trio.socket.from_stdlib_socket(mine))
        there = Process(trio.socket.from_stdlib_socket(socket.socket(fileno=descriptor)))
        async with await greeted(here), await greeted(there):
            await here.send_all(b"hello")
            assert await exactly(there, 5) == b"hello"
            await there.send_all(b"well")
            await there.send_eof()
            assert await exactly(here, 100) == b"well"


async def test_what_is_no_socket_leads_nowhere(nursery: trio.Nursery) -> None:
    far = Far()
    process, _ = a_process(nursery, far)
    async with await greeted(process):
        send_with(process, b"x", [1])
        await eventually(lambda: far.passengers)
        assert far.passengers == [NOWHERE]
        friend = Far()
        join(friend, far.passengers[0])
        assert friend.refused == friend.finished == 1


async def test_what_is_let_go_of_ends_for_the_process_too(nursery: trio.Nursery) -> None:
    process, local = a_process(nursery)
    discard(local)
    async with await greeted(process):
        assert await process.receive_some() == b""
        with pytest.raises(trio.BrokenResourceError):
            await process.send_all(b"x")
    await eventually(lambda: local._endpoint.sock.fileno() == -1)


@contextmanager
def no_more_files() -> Iterator[None]:
    """As with `ulimit -n`."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.dup(0)
    os.close(spare)
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_with_too_many_open_files_ends_are_let_go_of_and_nothing_else_happens(
    nursery: trio.Nursery,
) -> None:
    ends = [Far(), Far()]
    with no_more_files():
        assert to_descriptors(ends, nursery) == []
    for end in ends:
        assert end.refused == end.finished == 1


async def test_a_connection_whose_passengers_cannot_go_on_is_refused(
    nursery: trio.Nursery,
) -> None:
    far = Far()
    process, local = a_process(nursery, far)
    async with await greeted(process):
        passenger = Far()
        with no_more_files():
            local.deliver(b"x", [passenger])
        assert far.refused == passenger.refused == 1
        local.finish()
        assert await process.receive_some() == b""


# Ends that are no socket


async def test_a_spout_gives_what_it_has_as_far_as_it_may_and_then_its_end() -> None:
    text = os.urandom(WINDOW * 2 + 5)
    spout, far = Spout(text), Far()
    join(far, spout)
    assert far.heard == text[:WINDOW]
    far.near.grant(10)
    assert far.heard == text[: WINDOW + 10]
    assert far.finished == 0
    far.near.grant(WINDOW * 2)
    assert far.heard == text
    assert far.finished == 1
    far.near.grant(1)
    assert far.finished == 1


async def test_a_spout_that_nobody_wants_or_that_has_nothing_ends() -> None:
    wanted, unwanted = Far(), Far()
    join(wanted, Spout(b""))
    assert (wanted.heard, wanted.finished) == (b"", 1)
    spout = Spout(b"x" * (WINDOW + 1))
    join(unwanted, spout)
    spout.refuse()
    spout.refuse()
    spout.grant(10)
    assert (len(unwanted.heard), unwanted.finished) == (WINDOW, 1)


async def test_a_basin_keeps_all_that_comes(nursery: trio.Nursery) -> None:
    basin = Basin()
    process, local = a_process(nursery)
    join(local, basin)
    async with await greeted(process):
        assert await process.receive_some() == b""  # a basin gives nothing
        text = os.urandom(WINDOW * 2 + 5)
        await process.send_all(text)
        assert not basin.full.is_set()
        await process.send_eof()
        await basin.full.wait()
        assert basin.data == text


async def test_what_is_delivered_nowhere_is_dropped_with_what_comes_along() -> None:
    passenger = Far()
    NOWHERE.deliver(b"x", [passenger])
    assert passenger.refused == passenger.finished == 1
