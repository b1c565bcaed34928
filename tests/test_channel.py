"""`Channel`: the contracts of trio's channels, kept between processes.

What needs no second process is tested without one: there the hub is in this process.
"""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import parallel
from parallel import _channel
from parallel._wire.greetings import Reset

from .elsewhere import host
from .puppets import Channel, Hub, answer_at_length, puppet, say_something_odd
from .support import alone, in_turn

Client = parallel.Client


@pytest.fixture
def member() -> Iterator[None]:
    with alone():
        yield


@pytest.fixture(params=["this process", "a worker"])
async def channel(request: pytest.FixtureRequest) -> AsyncIterator[Channel]:
    """A channel to a puppet."""
    if request.param == "a worker":
        async with parallel.init(grace=2.0), parallel.spawn(puppet) as (channel, process):
            yield channel
            process.cancel()
    else:
        with alone():
            async with parallel.open_hub() as hub, trio.open_nursery() as nursery:
                nursery.start_soon(run_puppet, hub)
                with hub.open_channel() as channel:
                    yield channel
                nursery.cancel_scope.cancel()


async def run_puppet(hub: Hub) -> None:
    await puppet(hub)
    await hub.aclose()


@dataclass
class Line:
    """A channel, and both its ends in this process."""

    hub: Hub
    client: Client
    channel: Channel


@asynccontextmanager
async def connect() -> AsyncIterator[Line]:
    async with parallel.open_hub() as hub:
        with hub.open_channel() as channel:
            event = await anext(hub.listen())
            assert isinstance(event, parallel.Connected)
            yield Line(hub, event.client, channel)


@pytest.fixture
async def line(member: None) -> AsyncIterator[Line]:
    async with connect() as line:
        yield line


async def next_message(hub: Hub) -> Any:
    _, value = await anext(aiter(hub))
    return value


async def fill_up(channel: Channel) -> int:
    """Send numbers until one more would have to wait; how many."""
    count, before = 0, -1
    while count > before:
        before = count
        try:
            while True:
                channel.send_nowait(count)
                count += 1
        except trio.WouldBlock:
            await wait_all_tasks_blocked()  # until the socket is full too
    return count


# The scenarios of trio's own channels


async def test_what_is_sent_is_received(channel: Channel) -> None:
    await channel.send(("say", ["one", 2, None]))
    assert await channel.receive() == "one"
    assert await channel.receive() == 2
    assert await channel.receive() is None


async def test_receive_nowait_never_waits(channel: Channel) -> None:
    with pytest.raises(trio.WouldBlock):
        channel.receive_nowait()
    await channel.send(("say", [1, 2]))
    assert await channel.receive() == 1
    received = None
    while received is None:
        try:
            received = channel.receive_nowait()
        except trio.WouldBlock:
            await trio.lowlevel.checkpoint()
    assert received == 2
    with pytest.raises(trio.WouldBlock):
        channel.receive_nowait()


async def test_send_nowait_raises_where_send_would_wait(channel: Channel) -> None:
    channel.send_nowait(("say", ["there was room"]))
    assert await channel.receive() == "there was room"
    channel.send_nowait(("read nothing", None))
    assert await channel.receive() == "from now on"
    assert await fill_up(channel) > 100


async def test_a_receive_that_was_cancelled_took_nothing(channel: Channel) -> None:
    for number in range(20):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(channel.receive)
                await wait_all_tasks_blocked()
                scope.cancel()
        await channel.send(("say", [number]))
        assert await channel.receive() == number


async def test_iterating_receives_until_the_end(channel: Channel) -> None:
    await channel.send(("say", range(30)))
    await channel.send_eof()
    assert [value async for value in channel] == list(range(30))


async def test_the_end_comes_again_and_again(channel: Channel) -> None:
    await channel.send(("say", ["last"]))
    await channel.send(("return", None))
    assert await channel.receive() == "last"
    for _ in range(3):
        with pytest.raises(trio.EndOfChannel):
            await channel.receive()
        with pytest.raises(trio.EndOfChannel):
            channel.receive_nowait()


async def test_after_send_eof_receiving_goes_on(channel: Channel) -> None:
    await channel.send(("say", ["a", "b"]))
    await channel.send_eof()
    await channel.send_eof()
    with pytest.raises(trio.ClosedResourceError):
        await channel.send("too late")
    with pytest.raises(trio.ClosedResourceError):
        channel.send_nowait("too late")
    assert await channel.receive() == "a"
    assert await channel.receive() == "b"
    with pytest.raises(trio.EndOfChannel):
        await channel.receive()


async def test_a_closed_channel_says_so_in_every_call(channel: Channel) -> None:
    await channel.aclose()
    await channel.aclose()
    channel.close()
    for call in (
        partial(channel.send, "too late"),
        channel.receive,
        channel.send_eof,
    ):
        with pytest.raises(trio.ClosedResourceError):
            await call()
    for call_nowait in (
        partial(channel.send_nowait, "too late"),
        channel.receive_nowait,
        channel.clone,
    ):
        with pytest.raises(trio.ClosedResourceError):
            call_nowait()


async def test_closing_wakes_whoever_waits_to_receive(channel: Channel) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect, trio.ClosedResourceError, channel.receive)
        await wait_all_tasks_blocked()
        channel.close()


async def test_closing_wakes_whoever_waits_to_send(channel: Channel) -> None:
    await channel.send(("read nothing", None))
    assert await channel.receive() == "from now on"
    await fill_up(channel)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect, trio.ClosedResourceError, partial(channel.send, bytes(60_000)))
        await wait_all_tasks_blocked()
        channel.close()


async def expect(kind: type[BaseException], call: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(kind):
        await call()


async def test_a_second_task_that_receives_is_told_that_the_channel_is_busy(
    channel: Channel,
) -> None:
    received = []

    async def receive() -> None:
        received.append(await channel.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await channel.receive()
        await channel.send(("say", ["for the first"]))
    assert received == ["for the first"]


async def test_several_tasks_send_on_one_channel(channel: Channel) -> None:
    async def say(first: int) -> None:
        for number in range(first, first + 100):
            await channel.send(("say", [number]))

    async with trio.open_nursery() as nursery:
        for first in range(0, 500, 100):
            nursery.start_soon(say, first)
        received = [await channel.receive() for _ in range(500)]
    assert sorted(received) == list(range(500))
    for first in range(0, 500, 100):
        assert [n for n in received if first <= n < first + 100] == list(range(first, first + 100))


async def test_clones_are_closed_one_by_one(channel: Channel) -> None:
    with channel.clone() as clone, clone.clone() as second:
        clone.close()
        with pytest.raises(trio.ClosedResourceError):
            await clone.send("too late")
        for living in (second, channel):
            await living.send(("say", ["hello"]))
            assert await living.receive() == "hello"
    with pytest.raises(trio.ClosedResourceError):
        second.clone()


async def test_closing_a_clone_wakes_only_those_who_wait_for_it(channel: Channel) -> None:
    received = []

    async def receive() -> None:
        received.append(await channel.receive())

    with channel.clone() as clone:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect, trio.ClosedResourceError, clone.receive)
            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            clone.close()
            await channel.send(("say", ["still here"]))
    assert received == ["still here"]


async def test_many_producers_each_close_their_own_clone(line: Line) -> None:
    async def produce(clone: Channel, first: int) -> None:
        async with clone:
            for number in range(first, first + 3):
                await clone.send(number)

    async with trio.open_nursery() as nursery:
        for first in range(0, 30, 3):
            nursery.start_soon(produce, line.channel.clone(), first)
        line.channel.close()
        received = [value async for _, value in line.hub]
    assert sorted(received) == list(range(30))


async def test_order_is_kept_both_ways(channel: Channel) -> None:
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def ask() -> None:
            for number in range(0, 5000, 5):
                await channel.send(("say", range(number, number + 5)))

        for number in range(5000):
            assert await channel.receive() == number


async def test_statistics_tell_what_has_gone_through(line: Line) -> None:
    channel = line.channel
    assert channel.statistics() == parallel.ChannelStatistics(0, 0, 0, 0)
    await channel.send("out")
    for number in range(3):
        await line.hub.send(line.client, number)
    await line.hub.flushed()
    assert await channel.receive() == 0
    statistics = channel.statistics()
    assert statistics.messages_sent == 1
    assert statistics.messages_received == 1
    assert statistics.bytes_received > 0
    count = await fill_up(channel)
    statistics = channel.statistics()
    assert statistics.messages_sent == 1 + count
    assert 0 < statistics.bytes_unsent < (1 << 16) + 100  # its buffer and one message


# What a message keeps


async def test_a_large_array_arrives_equal_and_writable(channel: Channel) -> None:
    for array in (np.arange(10.0), np.arange(1_000_000.0), np.eye(500, dtype=np.float32)):
        await channel.send(("say", [array]))
        received = await channel.receive()
        assert received.dtype == array.dtype
        assert np.array_equal(received, array)
        received += 1
        assert not np.array_equal(received, array)


async def test_an_array_may_be_changed_once_send_has_returned(channel: Channel) -> None:
    for _ in range(5):
        array = np.zeros(500_000)
        await channel.send(("say", [array]))
        array[:] = 1
        assert not (await channel.receive()).any()


async def test_an_object_may_be_changed_while_it_waits_in_the_buffer(line: Line) -> None:
    message: dict[str, Any] = {"array": np.zeros(500_000), "list": [1, 2, 3], "bytes": bytearray(9)}
    line.channel.send_nowait(message)
    assert line.channel.statistics().bytes_unsent
    message["array"][:] = 1
    message["list"].clear()
    message["bytes"][:] = b"x" * 9
    received = await next_message(line.hub)
    assert not received["array"].any()
    assert received["list"] == [1, 2, 3]
    assert received["bytes"] == bytes(9)


async def test_an_array_may_be_changed_once_a_send_was_cancelled_that_counts_as_sent(
    line: Line,
) -> None:
    array = np.zeros(500_000)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def cancel_it() -> None:
                await wait_all_tasks_blocked()
                scope.cancel()

            await line.channel.send(array)
            array[:] = 1
            assert line.channel.statistics().messages_sent == 1
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert not (await next_message(line.hub)).any()


async def test_a_send_that_was_cancelled_while_it_waited_for_room_has_sent_nothing(
    line: Line,
) -> None:
    count = await fill_up(line.channel)
    array = np.zeros(500_000)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(line.channel.send, array)
            await wait_all_tasks_blocked()
            scope.cancel()
    line.channel.close()
    assert [value async for _, value in line.hub] == list(range(count))


async def test_what_was_sent_before_closing_arrives(line: Line) -> None:
    count = await fill_up(line.channel)
    line.channel.close()
    assert [value async for _, value in line.hub] == list(range(count))


# What goes wrong


async def test_what_cannot_be_sent_is_named_and_leaves_the_channel_usable(
    channel: Channel,
) -> None:
    with pytest.raises(parallel.NotSendable, match=r"item 'lock' of .*: _thread.lock"):
        await channel.send({"lock": threading.Lock()})
    with pytest.raises(parallel.NotSendable):
        channel.send_nowait(threading.Lock())
    assert channel.statistics().messages_sent == 0
    await channel.send(("say", ["still here"]))
    assert await channel.receive() == "still here"


async def test_a_message_that_cannot_be_unpickled_raises_and_the_channel_goes_on(
    tree: None,
) -> None:
    async with parallel.spawn(say_something_odd) as (channel, process):
        await channel.send("go")
        with pytest.raises(parallel.RemoteError, match=f"LookupError: made in {process.pid}"):
            await channel.receive()
        assert await channel.receive() == "something sensible"


async def test_a_message_that_would_exit_while_being_unpickled_raises_like_any_other(
    line: Line,
) -> None:
    class Exit:
        def __reduce__(self) -> Any:
            return exit, (3,)

    await line.hub.send(line.client, Exit())
    with pytest.raises(parallel.RemoteError, match="SystemExit"):
        await line.channel.receive()


async def test_a_message_over_the_limit_is_refused_and_leaves_the_channel_usable() -> None:
    with alone(max_message_size=10_000):
        async with connect() as line:
            for message in (bytes(10_000), np.zeros(1 << 17)):
                with pytest.raises(parallel.MessageTooLarge) as info:
                    await line.channel.send(message)
                assert info.value.limit == 10_000
                assert info.value.size > 10_000
                with pytest.raises(parallel.MessageTooLarge):
                    line.channel.send_nowait(message)
                with pytest.raises(parallel.MessageTooLarge):
                    await line.hub.send(line.client, message)
                with pytest.raises(parallel.MessageTooLarge):
                    await line.hub.broadcast(message)
            await line.channel.send(bytes(9_000))
            assert await next_message(line.hub) == bytes(9_000)


async def test_the_limit_holds_in_workers_and_for_tasks_and_results_too() -> None:
    async with parallel.init(grace=2.0, max_message_size=100_000):
        with pytest.raises(parallel.MessageTooLarge):
            async with parallel.spawn(answer_at_length) as (channel, _):
                await channel.send(200_000)
                assert await channel.receive() == "it was too large"
        with pytest.raises(parallel.MessageTooLarge):
            await parallel.run(len, bytes(200_000))
        assert await parallel.run(len, bytes(90_000)) == 90_000


async def test_a_channel_that_was_never_closed_warns_and_breaks(member: None) -> None:
    async with parallel.open_hub() as hub:
        events = hub.listen()
        with pytest.warns(ResourceWarning, match="never closed"):
            hub.open_channel("forgotten")
        kinds = [type(event) async for event in events]
        assert kinds == [parallel.Connected, parallel.Disconnected]


async def test_only_parallel_itself_copies_a_channel(line: Line) -> None:
    for copying in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="only be sent by parallel"):
            copying(line.channel)
    with pytest.raises(TypeError, match="only be sent by parallel"):
        copy.deepcopy({"in": [line.channel]})


# A hub that ends without a word


@dataclass
class Fate:
    """How to end a puppet, what its block raises, and what its channels report."""

    command: tuple[str, object] | None
    raised: type[BaseException] | None
    cause: type[BaseException]
    text: str


FATES = {
    "raises": Fate(("raise", ValueError("no")), ValueError, parallel.WorkerDied, "ValueError: no"),
    "exits": Fate(("raise", SystemExit(3)), parallel.WorkerDied, parallel.WorkerDied, "SystemExit"),
    "is killed": Fate(("be killed", None), parallel.WorkerDied, parallel.WorkerDied, "SIGKILL"),
    "is cancelled": Fate(None, None, parallel.WorkerCancelled, "cancelled"),
}


@asynccontextmanager
async def clone_of_the_dead(fate: Fate, *last_words: object) -> AsyncIterator[tuple[Channel, int]]:
    """A clone of a channel to a puppet that has met its fate, and the puppet's pid."""
    clone: Channel | None = None
    process: parallel.Process[Any]
    raised: type[BaseException] | None = None
    try:
        async with parallel.spawn(puppet) as (channel, process):
            clone = channel.clone()
            await clone.send(("say", ["here I am", *last_words]))
            assert await clone.receive() == "here I am"
            if fate.command is None:
                process.cancel()
            else:
                await channel.send(fate.command)
                await trio.sleep_forever()
    except (ValueError, parallel.WorkerDied) as exc:
        raised = type(exc)
    assert raised is fate.raised
    assert clone is not None
    with clone:
        yield clone, process.pid


def check_cause(error: BaseException, fate: Fate, pid: int) -> None:
    assert str(pid) in str(error)
    cause = error.__cause__
    assert isinstance(cause, fate.cause)
    assert isinstance(cause, parallel.WorkerDied | parallel.WorkerCancelled)
    assert (cause.host, cause.pid, cause.name) == (host(), pid, "puppet")
    assert fate.text in str(cause)


@in_turn("fate", FATES.values(), ids=FATES)
async def test_when_the_hub_s_process_ends_so_receiving_says_how_after_its_last_words(
    tree: None, fate: Fate
) -> None:
    async with clone_of_the_dead(fate, "last", "words") as (channel, pid):
        assert await channel.receive() == "last"
        assert channel.receive_nowait() == "words"
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError) as info:
                await channel.receive()
            check_cause(info.value, fate, pid)
        with pytest.raises(trio.BrokenResourceError) as info:
            channel.receive_nowait()
        check_cause(info.value, fate, pid)


@in_turn("fate", FATES.values(), ids=FATES)
async def test_when_the_hub_s_process_ends_so_sending_says_how(tree: None, fate: Fate) -> None:
    async with clone_of_the_dead(fate, "never received") as (channel, pid):
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError) as info:
                await channel.send("are you there?")
            check_cause(info.value, fate, pid)
        with pytest.raises(trio.BrokenResourceError) as info:
            channel.send_nowait("are you there?")
        check_cause(info.value, fate, pid)


async def test_sending_to_a_hub_that_has_returned_is_broken_for_no_bad_reason(tree: None) -> None:
    async with parallel.spawn(puppet) as (channel, process):
        await channel.send(("return", "done"))
        assert (await process.wait()).value == "done"
        with pytest.raises(trio.BrokenResourceError) as info:
            await channel.send("too late")
        assert info.value.__cause__ is None
        with pytest.raises(trio.EndOfChannel):
            await channel.receive()


async def test_sending_to_a_hub_that_has_been_closed_is_broken_at_once(
    member: None, autojump_clock: MockClock
) -> None:
    async with parallel.open_hub() as hub:
        channel = hub.open_channel()
    before = trio.current_time()
    with pytest.raises(trio.BrokenResourceError) as info:
        await channel.send("too late")
    assert info.value.__cause__ is None
    assert trio.current_time() == before
    channel.close()


async def test_after_a_send_has_failed_everything_can_be_received_in_order(line: Line) -> None:
    count = 0
    with pytest.raises(trio.WouldBlock):
        while True:
            line.hub.send_nowait(line.client, (count, bytes(count % 3000)))
            count += 1
    await line.hub.aclose()  # which goes on to send what waits
    with pytest.raises(trio.BrokenResourceError):
        await line.channel.send("too late")
    received = [number async for number, _ in line.channel]
    assert received == list(range(count))


async def test_who_takes_nothing_more_may_say_why_later(line: Line) -> None:
    """As a peer on another host, whose agent lets go of what is sent to it at once."""
    wire = line.channel.wire
    wire.endpoint.stop_reading()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def send() -> None:
            with pytest.raises(trio.BrokenResourceError) as info:
                await line.hub.send(line.client, b"x")
            assert isinstance(info.value.__cause__, parallel.WorkerDied)
            assert info.value.__cause__.reason == "its last words"

        await wait_all_tasks_blocked()
        wire.close(Reset("failed", "its last words"))


async def test_a_hub_that_was_left_by_an_exception_breaks_its_channels(member: None) -> None:
    with pytest.raises(ZeroDivisionError):
        async with parallel.open_hub() as hub:
            channel = hub.open_channel()
            raise ZeroDivisionError
    with pytest.raises(trio.BrokenResourceError) as info:
        await channel.receive()
    assert "ZeroDivisionError" in str(info.value.__cause__)
    channel.close()


async def test_whoever_waits_to_send_is_told_when_the_hub_goes(line: Line) -> None:
    await fill_up(line.channel)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(expect, trio.BrokenResourceError, partial(line.channel.send, "x"))
        await wait_all_tasks_blocked()
        await line.hub.aclose()


# Fairness and cancellation


async def test_a_flood_of_sends_lets_other_tasks_run(line: Line) -> None:
    async def flood() -> None:
        for number in range(_channel.CALLS_WITHOUT_YIELD * 11):
            await line.channel.send(number)

    assert await turns_during(flood) >= 10


async def test_a_flood_of_receives_lets_other_tasks_run(line: Line) -> None:
    count = _channel.CALLS_WITHOUT_YIELD * 11
    for number in range(count):
        await line.hub.send(line.client, number)
    await line.hub.flushed()

    async def flood() -> None:
        for number in range(count):
            assert await line.channel.receive() == number

    assert await turns_during(flood) >= 10


async def turns_during(flood: Callable[[], Awaitable[None]]) -> int:
    """How often another task gets its turn while that runs."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await trio.lowlevel.checkpoint()
        await flood()
        nursery.cancel_scope.cancel()
    return turns


async def test_every_call_notices_that_it_is_cancelled_and_has_done_nothing(line: Line) -> None:
    await line.hub.send(line.client, "kept")
    for call in (
        partial(line.channel.send, "never"),
        line.channel.receive,
        line.channel.send_eof,
        partial(line.hub.send, line.client, "never"),
        partial(line.hub.broadcast, "never"),
        line.hub.flushed,
        line.hub.listen().__anext__,
    ):
        with trio.CancelScope() as scope:
            scope.cancel()
            await call()
        assert scope.cancelled_caught
    assert await line.channel.receive() == "kept"
    await line.channel.send("the first")
    assert await next_message(line.hub) == "the first"


async def test_aclose_closes_even_when_it_is_cancelled(line: Line) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await line.channel.aclose()
    assert scope.cancelled_caught
    with pytest.raises(trio.ClosedResourceError):
        await line.channel.receive()


async def test_a_receive_that_timed_out_leaves_the_channel_as_it_was(
    line: Line, autojump_clock: MockClock
) -> None:
    with trio.move_on_after(10) as scope:
        await line.channel.receive()
    assert scope.cancelled_caught
    await line.channel.send("fine")
    assert await next_message(line.hub) == "fine"
