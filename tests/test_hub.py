"""`Hub`: many channels end in one process. Its events, whom it reaches, and when its loop ends.

What needs no second process is tested without one.
"""

from __future__ import annotations

import copy
import os
import pickle
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import parallel
from parallel import Connected, Disconnected, Ended, Message

from .puppets import (
    Channel,
    Explosive,
    Hub,
    ask,
    cascade,
    count_messages,
    flood,
    say_a_lot_and_return,
    say_much_and_return,
    say_much_and_vanish,
    serve,
    talk_and,
)
from .support import alone, eventually, in_turn

Client = parallel.Client


@pytest.fixture
def member() -> Iterator[None]:
    with alone():
        yield


@pytest.fixture
async def hub(member: None) -> AsyncIterator[Hub]:
    async with parallel.open_hub() as hub:
        yield hub


@asynccontextmanager
async def connect(hub: Hub, *labels: str) -> AsyncIterator[list[tuple[Channel, Client]]]:
    """Channels in this process with the clients that the hub sees at their other ends."""
    with ExitStack() as stack:
        connected = []
        for label in labels:
            channel = stack.enter_context(hub.open_channel(label))
            event = await anext(hub.listen())
            assert isinstance(event, Connected)
            connected.append((channel, event.client))
        yield connected


async def all_events(hub: Hub) -> list[tuple[type, str | None]]:
    """The events until the loop ends: kind and client's label."""
    return [(type(event), event.client.label) async for event in hub.listen()]


async def fill_up(hub: Hub, client: Client) -> int:
    """Send numbers until one more would have to wait; how many."""
    count, before = 0, -1
    while count > before:
        before = count
        try:
            while True:
                hub.send_nowait(client, count)
                count += 1
        except trio.WouldBlock:
            await wait_all_tasks_blocked()  # until the socket is full too
    return count


async def receive_all(channel: Channel) -> list[Any]:
    return [value async for value in channel]


# Events


async def test_events_come_in_the_order_in_which_things_happened(hub: Hub) -> None:
    with hub.open_channel("a") as a:
        await a.send(1)
        await a.send(2)
        await a.send_eof()
    events = [event async for event in hub.listen()]
    client = events[0].client
    assert events == [
        Connected(client),
        Message(client, 1),
        Message(client, 2),
        Ended(client),
        # Once nobody can speak any more the loop ends, whether or not they have hung up.
        *[Disconnected(client, None)] * (len(events) - 4),
    ]


async def test_a_client_that_closes_has_ended_and_is_gone_without_a_reason(hub: Hub) -> None:
    with hub.open_channel("stays"):
        hub.open_channel("goes").close()
        listener = hub.listen()
        seen = [await anext(listener) for _ in range(4)]
    goes = [event for event in seen if event.client.label == "goes"]
    client = goes[0].client
    assert goes == [Connected(client), Ended(client), Disconnected(client, None)]


async def test_a_client_that_sent_its_end_is_still_there(hub: Hub) -> None:
    async with connect(hub, "a", "b") as [(a, client), _]:
        await a.send_eof()
        assert await anext(hub.listen()) == Ended(client)
        assert client in hub.clients
        await hub.send(client, "you may still listen")
        assert await a.receive() == "you may still listen"
        a.close()
        assert await anext(hub.listen()) == Disconnected(client, None)
        assert client not in hub.clients


async def test_plain_iteration_gives_messages_alone(hub: Hub) -> None:
    with hub.open_channel("a") as a, hub.open_channel("b") as b:
        await a.send(1)
        await b.send(2)
    assert sorted([(client.label, value) async for client, value in hub]) == [("a", 1), ("b", 2)]


async def test_a_client_tells_who_it_is_and_can_be_a_key(hub: Hub) -> None:
    async with connect(hub, "first", "second") as [(_, first), (_, second)]:
        assert (first.host, first.pid, first.name) == ("root", os.getpid(), "root")
        assert (first.label, second.label) == ("first", "second")
        assert {first: 1, second: 2}[first] == 1
        assert set(hub.clients) == {first, second}
        assert "first" in repr(first)
        assert str(os.getpid()) in repr(first)


async def test_a_channel_s_clone_is_a_client_of_its_own_with_the_same_label(hub: Hub) -> None:
    async with connect(hub, "a") as [(a, client)]:
        with a.clone() as clone:
            event = await anext(hub.listen())
            assert isinstance(event, Connected)
            assert event.client != client
            assert event.client.label == "a"
            await hub.send(event.client, "for the clone")
            assert await clone.receive() == "for the clone"
            with pytest.raises(trio.WouldBlock):
                a.receive_nowait()


async def test_a_message_that_cannot_be_unpickled_raises_and_the_loop_can_go_on(hub: Hub) -> None:
    async with connect(hub, "a") as [(a, _)]:
        await a.send(Explosive("no such luck"))
        await a.send("fine")
        messages = aiter(hub)
        with pytest.raises(parallel.RemoteError, match="no such luck") as info:
            await anext(messages)
        assert "'a'" in "".join(info.value.__notes__)
        assert (await anext(messages))[1] == "fine"


async def test_only_one_task_can_listen(hub: Hub) -> None:
    async with connect(hub, "a") as [(a, _)]:
        async with trio.open_nursery() as nursery:
            received: list[object] = []

            @nursery.start_soon
            async def listen() -> None:
                received.append(await anext(aiter(hub)))

            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await anext(aiter(hub))
            with pytest.raises(trio.BusyResourceError):
                await anext(hub.listen())
            await a.send("for the first")
        assert len(received) == 1


async def test_listening_can_be_cancelled_and_loses_nothing(hub: Hub) -> None:
    async with connect(hub, "a", "b") as [(a, _), (b, _)]:
        received = []
        for number in range(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(hub.listen().__anext__)
                await wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            await (a if number % 2 else b).send(number)
            received.append((await anext(aiter(hub)))[1])
        assert received == list(range(20))


async def test_statistics_tell_what_has_gone_through(hub: Hub) -> None:
    assert hub.statistics() == parallel.HubStatistics(0, 0, 0, 0)
    async with connect(hub, "a", "b") as [(a, first), (b, _)]:
        await a.send(1)
        await anext(aiter(hub))
        await hub.broadcast("to both")
        count = await fill_up(hub, first)
        statistics = hub.statistics()
        assert statistics.clients == 2
        assert statistics.messages_sent == 2 + count
        assert statistics.messages_received == 1
        assert statistics.bytes_unsent > 0
        assert await b.receive() == "to both"


# Who they are when they are in other processes


REASONS: dict[str, tuple[type[BaseException] | None, str]] = {
    "close": (None, ""),
    "return": (None, ""),
    "raise": (parallel.WorkerDied, "ValueError: no"),
    "be killed": (parallel.WorkerDied, "SIGKILL"),
    "exit": (parallel.WorkerDied, "exited with code 0"),
    "sleep": (parallel.WorkerCancelled, "cancelled"),
}
REASONS |= {f"end, then {end}": reason for end, reason in REASONS.items()}
"""That a client will send nothing more does not mean that its end is what it wished."""


@in_turn("end", REASONS)
async def test_disconnected_says_what_became_of_a_worker(tree: None, end: str) -> None:
    kind, text = REASONS[end]
    async with parallel.open_hub() as hub, trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        @nursery.start_soon
        async def run() -> None:
            with scope, hub.open_channel("worker") as channel:
                try:
                    await parallel.run(talk_and, end, channel)
                except (ValueError, parallel.WorkerDied):
                    assert end.split()[-1] in ("raise", "killed", "exit")

        with hub.open_channel():  # who has said its end holds nobody up
            async for event in hub.listen():
                if event.client.pid == os.getpid():
                    continue
                match event:
                    case Message(client, value):
                        assert value == "hello"
                        assert client.name == "talk_and"
                        assert client.label == "worker"
                        if end.endswith("sleep"):
                            scope.cancel()
                    case Disconnected(client, reason):
                        break
        if kind is None:
            assert reason is None
        else:
            assert isinstance(reason, kind)
            assert isinstance(reason, parallel.WorkerDied | parallel.WorkerCancelled)
            assert reason.pid == client.pid
            assert text in str(reason)


async def run_clients(channel: Channel) -> set[int]:
    """Four processes that each ask through a channel of their own; who they are."""
    pids = set()

    async def run(first: int) -> None:
        pids.add(await parallel.run(ask, channel, first, 25))

    async with channel, trio.open_nursery() as nursery:
        for first in range(0, 100, 25):
            nursery.start_soon(run, first)
    return pids


async def test_a_hub_in_the_root_serves_workers(tree: None) -> None:
    async with parallel.open_hub() as hub, trio.open_nursery() as nursery:
        asked: list[set[int]] = []

        @nursery.start_soon
        async def run() -> None:
            asked.append(await run_clients(hub.open_channel()))

        served = await serve(hub)
    assert asked == [served]
    assert len(served) == 4


async def test_a_hub_in_a_worker_serves_other_workers(tree: None) -> None:
    async with parallel.spawn(serve) as (channel, process):
        asked = await run_clients(channel)
    assert await process.result() == asked
    assert len(asked) == 4


async def test_every_process_of_a_cascade_can_have_a_hub(tree: None) -> None:
    async with parallel.spawn(cascade, 3) as (channel, process):
        assert await ask(channel, 0, 10) == os.getpid()
    assert await process.result() == {os.getpid()}


# Sending to one


async def test_a_message_goes_to_one_client_alone(hub: Hub) -> None:
    async with connect(hub, "a", "b") as [(a, first), (b, second)]:
        await hub.send(first, "for a")
        hub.send_nowait(second, "for b")
        assert await a.receive() == "for a"
        assert await b.receive() == "for b"


async def test_send_nowait_raises_where_send_would_wait(hub: Hub) -> None:
    async with connect(hub, "a", "b") as [(a, first), (_, second)]:
        count = await fill_up(hub, first)
        hub.send_nowait(second, "there is room")
        with pytest.raises(trio.WouldBlock):
            hub.send_nowait(first, bytes(1000))
        assert [await a.receive() for _ in range(count)] == list(range(count))


async def test_a_client_of_another_hub_is_refused(hub: Hub) -> None:
    async with parallel.open_hub() as other, connect(other, "a") as [(_, client)]:
        with pytest.raises(ValueError, match="not a client of this hub"):
            await hub.send(client, "hello")
        with pytest.raises(ValueError, match="not a client of this hub"):
            hub.send_nowait(client, "hello")


async def test_sending_to_a_client_that_has_gone_is_broken_at_once(
    hub: Hub, autojump_clock: MockClock
) -> None:
    async with connect(hub, "a", "stays") as [(a, client), _]:
        await a.send("unread")
        a.close()
        before = trio.current_time()
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError, match=r"'a'.* has gone") as info:
                await hub.send(client, "are you there?")
            assert info.value.__cause__ is None
        with pytest.raises(trio.BrokenResourceError):
            hub.send_nowait(client, "are you there?")
        assert trio.current_time() == before
        listener = hub.listen()
        assert [type(await anext(listener)) for _ in range(3)] == [Message, Ended, Disconnected]
        with pytest.raises(trio.BrokenResourceError, match=r"'a'.* has gone"):
            await hub.send(client, "are you there?")


async def test_after_a_send_has_failed_everything_can_be_received_in_order(hub: Hub) -> None:
    async with connect(hub, "goes", "stays") as [(goes, client), _]:
        count = 0
        with pytest.raises(trio.WouldBlock):
            while True:
                goes.send_nowait((count, bytes(count % 3000)))
                count += 1
        goes.close()  # which goes on to send what waits
        with pytest.raises(trio.BrokenResourceError):
            await hub.send(client, "too late")
        messages = aiter(hub)
        received = [(await anext(messages))[1][0] for _ in range(count)]
        assert received == list(range(count))


@pytest.mark.parametrize("listening", [False, True])
async def test_whoever_waits_to_send_is_told_that_the_client_goes(
    hub: Hub, listening: bool
) -> None:
    async with connect(hub, "stays") as [_]:
        for _ in range(20):
            async with (
                connect(hub, "goes") as [(channel, client)],
                trio.open_nursery() as nursery,
            ):
                await fill_up(hub, client)
                if listening:
                    nursery.start_soon(listen_until_gone, hub)
                nursery.start_soon(expect_gone, partial(hub.send, client, bytes(1000)))
                nursery.start_soon(expect_gone, partial(hub.send, client, np.zeros(100_000)))
                await wait_all_tasks_blocked()
                channel.close()
            if not listening:
                await listen_until_gone(hub)


async def listen_until_gone(hub: Hub) -> None:
    async for event in hub.listen():
        if isinstance(event, Disconnected):
            return


async def expect_gone(call: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(trio.BrokenResourceError, match=r"'goes'.* has gone"):
        await call()


async def test_sending_to_a_worker_that_was_killed_names_it(tree: None) -> None:
    async with parallel.open_hub() as hub, trio.open_nursery() as nursery:
        with hub.open_channel("worker") as channel:
            job = partial(parallel.run, talk_and, "sleep", channel)
            nursery.start_soon(expect_death, job)
            client, _ = await anext(aiter(hub))
            os.kill(client.pid, signal.SIGKILL)
            with pytest.raises(trio.BrokenResourceError) as info:
                while True:
                    await hub.send(client, bytes(10_000))
            assert isinstance(info.value.__cause__, parallel.WorkerDied)
            assert info.value.__cause__.signal == "SIGKILL"
            assert info.value.__cause__.pid == client.pid


async def expect_death(call: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(parallel.WorkerDied):
        await call()


# Broadcasts


class Counted:
    """Counts how often it is pickled."""

    count = 0

    def __reduce__(self) -> Any:
        Counted.count += 1
        return str, ("counted",)


async def test_a_broadcast_reaches_every_client_and_is_serialised_once(hub: Hub) -> None:
    async with connect(hub, *"abcdefghij") as connected:
        Counted.count = 0
        assert await hub.broadcast(Counted()) == 10
        assert Counted.count == 1
        for channel, _ in connected:
            assert await channel.receive() == "counted"


async def test_broadcasts_and_messages_keep_their_order(hub: Hub) -> None:
    async with connect(hub, "a", "b") as [(a, client), (b, _)]:
        for number in range(0, 100, 2):
            await hub.broadcast(number)
            await hub.send(client, number + 1)
        assert [await a.receive() for _ in range(100)] == list(range(100))
        assert [await b.receive() for _ in range(50)] == list(range(0, 100, 2))


async def test_what_was_broadcast_may_be_changed_afterwards(hub: Hub) -> None:
    async with connect(hub, "a", "b") as [(a, _), (b, _)]:
        array = np.zeros(200_000)
        await hub.broadcast(array)
        assert hub.statistics().bytes_unsent
        array[:] = 1
        for channel in (a, b):
            received = await channel.receive()
            assert not received.any()
            received[:] = 1


async def test_a_broadcast_skips_those_who_have_gone(hub: Hub) -> None:
    async with connect(hub, *"abc") as [(a, _), (b, _), (c, _)]:
        b.close()
        assert await hub.broadcast("hello") == 2
        assert await a.receive() == await c.receive() == "hello"


async def test_a_broadcast_waits_until_every_client_has_room(hub: Hub) -> None:
    async with connect(hub, "slow", "fast") as [(slow, client), (fast, _)]:
        count = await fill_up(hub, client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.broadcast, bytes(1000))
            await wait_all_tasks_blocked()
            with pytest.raises(trio.WouldBlock):
                fast.receive_nowait()
            assert [await slow.receive() for _ in range(count)] == list(range(count))
        assert await slow.receive() == await fast.receive() == bytes(1000)


async def test_a_broadcast_that_is_cancelled_while_it_waits_has_reached_nobody(hub: Hub) -> None:
    async with connect(hub, "slow", "fast") as [(slow, client), (fast, _)]:
        count = await fill_up(hub, client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.broadcast, bytes(1000))
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await hub.aclose()
        assert await receive_all(fast) == []
        assert await receive_all(slow) == list(range(count))


async def test_a_broadcast_that_waits_for_a_client_that_goes_skips_it(hub: Hub) -> None:
    async with connect(hub, *"abcd") as connected:
        for (gone, client), _ in zip(connected[:-1], range(3), strict=True):
            await fill_up(hub, client)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(hub.broadcast, bytes(1000))
                await wait_all_tasks_blocked()
                assert len(nursery.child_tasks) == 1
                gone.close()
        last, _ = connected[-1]
        assert [await last.receive() for _ in range(3)] == [bytes(1000)] * 3


async def test_a_slow_client_can_be_left_out_of_a_broadcast(hub: Hub) -> None:
    async with connect(hub, "slow", "fast") as [(slow, client), (fast, _)]:
        count = await fill_up(hub, client)
        assert await hub.broadcast(bytes(1000), slow="drop") == 1
        assert await fast.receive() == bytes(1000)
        await hub.aclose()
        assert await receive_all(slow) == list(range(count))


async def test_a_slow_client_can_be_disconnected_by_a_broadcast(hub: Hub) -> None:
    async with connect(hub, "slow", "fast") as [(slow, client), (fast, _)]:
        count = await fill_up(hub, client)
        assert await hub.broadcast(bytes(1000), slow="disconnect") == 1
        assert await fast.receive() == bytes(1000)
        event = await anext(hub.listen())
        assert isinstance(event, Disconnected)
        assert event.client == client
        assert "did not read" in str(event.reason)
        with pytest.raises(trio.BrokenResourceError):
            await hub.send(client, "are you there?")
        # What it was sent before is not taken from it.
        assert [await slow.receive() for _ in range(count)] == list(range(count))
        with pytest.raises(trio.BrokenResourceError) as info:
            await slow.receive()
        assert isinstance(info.value.__cause__, parallel.ParallelError)
        assert "did not read" in str(info.value.__cause__)


@pytest.mark.parametrize("reads", [False, True])
async def test_the_loop_ends_without_those_who_were_disconnected(hub: Hub, reads: bool) -> None:
    async with connect(hub, "slow") as [(slow, client)], trio.open_nursery() as nursery:
        events: list[tuple[type, str | None]] = []

        @nursery.start_soon
        async def listen() -> None:
            events.extend(await all_events(hub))

        await wait_all_tasks_blocked()
        await fill_up(hub, client)
        assert await hub.broadcast(bytes(1000), slow="disconnect") == 0
        if reads:
            with pytest.raises(trio.BrokenResourceError):
                await receive_all(slow)
        await wait_all_tasks_blocked()
        assert events == [(Disconnected, "slow")]


async def test_a_broadcast_cannot_carry_a_channel(hub: Hub) -> None:
    async with connect(hub, "a", "b") as [(a, _), _]:
        with pytest.raises(parallel.NotSendable, match="one to each client"):
            await hub.broadcast({"reply to": a})
        assert await hub.broadcast("fine") == 2
        assert await a.receive() == "fine"


async def test_a_broadcast_that_cannot_be_pickled_reaches_nobody(hub: Hub) -> None:
    async with connect(hub, "a") as [(a, _)]:
        with pytest.raises(parallel.NotSendable):
            await hub.broadcast(hub)
        assert await hub.broadcast("fine") == 1
        assert await a.receive() == "fine"


# Nobody is in another's way


async def test_a_client_that_floods_does_not_starve_the_others(hub: Hub) -> None:
    async with connect(hub, "loud", "quiet") as [(loud, _), (quiet, _)]:
        for number in range(2000):
            await loud.send(number)
        messages = aiter(hub)
        await anext(messages)
        await quiet.send("a word")
        before = 0
        while (await anext(messages))[0].label == "loud":
            before += 1
        assert before < 64


@pytest.mark.own_tree  # it leaves channels to the end of `init`
async def test_workers_that_flood_do_not_starve_the_others(tree: None) -> None:
    async with parallel.open_hub() as hub, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(parallel.run, flood, hub.open_channel("loud"))
        messages = aiter(hub)
        heard: set[Client] = set()
        while len(heard) < 3:
            heard.add((await anext(messages))[0])
        with hub.open_channel("quiet") as quiet:
            for number in range(10):
                await quiet.send(number)
                before = 0
                while (message := await anext(messages))[0].label == "loud":
                    before += 1
                assert message[1] == number
                assert before < 500
        nursery.cancel_scope.cancel()


async def test_a_flood_lets_other_tasks_run(hub: Hub) -> None:
    async with connect(hub, "loud") as [(loud, _)], trio.open_nursery() as nursery:
        for number in range(1000):
            await loud.send(number)
        turns = 0

        @nursery.start_soon
        async def count() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        await trio.lowlevel.checkpoint()
        messages = aiter(hub)
        for number in range(1000):
            assert (await anext(messages))[1] == number
        assert turns >= 1000 // 64 - 1
        nursery.cancel_scope.cancel()


async def test_a_client_that_does_not_read_holds_up_only_itself(hub: Hub) -> None:
    async with connect(hub, "slow", "fast") as [(slow, client), (fast, _)]:
        await fill_up(hub, client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.send, client, bytes(1000))
            await wait_all_tasks_blocked()
            for number in range(1000):
                await fast.send(number)
                other, value = await anext(aiter(hub))
                await hub.send(other, value)
                assert await fast.receive() == number
            await slow.send("it can still be heard")
            assert await anext(aiter(hub)) == (client, "it can still be heard")
            nursery.cancel_scope.cancel()


# When the loop ends


async def has_ended(hub: Hub) -> bool:
    """Whether the loop ends now, after what has happened so far."""
    ended = False
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def listen() -> None:
            nonlocal ended
            await all_events(hub)
            ended = True

        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return ended


async def test_the_loop_waits_while_no_channel_was_ever_opened(hub: Hub) -> None:
    assert not await has_ended(hub)


async def test_the_loop_ends_with_the_only_channel(hub: Hub) -> None:
    with hub.open_channel():
        assert not await has_ended(hub)
    assert await has_ended(hub)


async def test_the_loop_ends_with_the_last_of_several_channels(hub: Hub) -> None:
    with hub.open_channel(), hub.open_channel() as b, hub.open_channel() as c:
        b.close()
        assert not await has_ended(hub)
        await c.send_eof()
        assert not await has_ended(hub)
    assert await has_ended(hub)


async def test_an_end_that_was_sent_counts_as_much_as_closing(hub: Hub) -> None:
    with hub.open_channel() as channel:
        await channel.send("last")
        await channel.send_eof()
        assert [value async for _, value in hub] == ["last"]
        assert await has_ended(hub)


async def test_a_clone_keeps_the_loop_going(hub: Hub) -> None:
    channel = hub.open_channel()
    clone = channel.clone()
    channel.close()
    assert not await has_ended(hub)
    second = clone.clone()
    clone.close()
    assert not await has_ended(hub)
    await second.send_eof()
    assert await has_ended(hub)
    second.close()


async def test_a_channel_that_was_dropped_does_not_keep_the_loop_going(hub: Hub) -> None:
    with pytest.warns(ResourceWarning):
        hub.open_channel()
    assert await has_ended(hub)


async def test_a_loop_that_has_ended_goes_on_with_a_new_channel(hub: Hub) -> None:
    hub.open_channel().close()
    assert await has_ended(hub)
    with hub.open_channel() as channel:
        await channel.send("hello again")
        assert (await anext(aiter(hub)))[1] == "hello again"
        assert not await has_ended(hub)
    assert await has_ended(hub)


async def test_the_loop_ends_when_the_last_speaker_is_killed(tree: None) -> None:
    async with parallel.open_hub() as hub, trio.open_nursery() as nursery:
        channel = hub.open_channel()
        nursery.start_soon(expect_death, partial(parallel.run, talk_and, "be killed", channel))
        async for event in hub.listen():
            if isinstance(event, Message):
                channel.close()


async def test_a_worker_serves_until_its_spawner_leaves_the_block(tree: None) -> None:
    async with parallel.spawn(count_messages) as (channel, process):
        for number in range(10):
            await channel.send(number)
    assert await process.result() == 10


async def test_a_worker_serves_until_everybody_has_left(tree: None) -> None:
    async with parallel.spawn(count_messages) as (channel, process):
        clones = [channel.clone() for _ in range(5)]
        await channel.aclose()
        for clone in clones:
            async with clone:
                await clone.send("hello")
        assert await process.result() == 5


# The end


async def test_a_hub_that_is_closed_ends_its_channels_after_what_it_sent(hub: Hub) -> None:
    async with connect(hub, "a", "b") as [(a, client), (b, _)]:
        count = await fill_up(hub, client)
        await hub.aclose()
        await hub.aclose()
        assert await receive_all(a) == list(range(count))
        assert await receive_all(b) == []
        for call in (
            partial(hub.send, client, "too late"),
            partial(hub.broadcast, "too late"),
            hub.listen().__anext__,
        ):
            with pytest.raises(trio.ClosedResourceError):
                await call()
        with pytest.raises(trio.ClosedResourceError):
            hub.send_nowait(client, "too late")
        with pytest.raises(trio.ClosedResourceError):
            hub.open_channel()
        assert hub.clients == ()


@pytest.mark.parametrize("clients", [0, 1, 2])
async def test_closing_a_hub_wakes_whoever_listens(hub: Hub, clients: int) -> None:
    async with connect(hub, *"ab"[:clients]), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def listen() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await anext(hub.listen())

        await wait_all_tasks_blocked()
        hub.close()


async def test_closing_a_hub_wakes_whoever_waits_to_send(hub: Hub) -> None:
    async with connect(hub, "slow", "fast") as [(_, client), _], trio.open_nursery() as nursery:

        async def expect_closed(call: Callable[[], Awaitable[object]]) -> None:
            with pytest.raises(trio.ClosedResourceError):
                await call()

        await fill_up(hub, client)
        nursery.start_soon(expect_closed, partial(hub.send, client, bytes(1000)))
        nursery.start_soon(expect_closed, partial(hub.broadcast, bytes(1000)))
        await wait_all_tasks_blocked()
        hub.close()


async def test_a_hub_cannot_be_sent_and_says_what_can(hub: Hub) -> None:
    async with connect(hub, "a") as [(a, _)]:
        with pytest.raises(parallel.NotSendable, match=r"hub\.open_channel\(\)"):
            await a.send(hub)
        with pytest.raises(TypeError, match=r"hub\.open_channel\(\)"):
            pickle.dumps(hub)
        with pytest.raises(TypeError, match=r"hub\.open_channel\(\)"):
            copy.deepcopy(hub)


async def test_a_hub_cannot_be_a_closure_variable_of_a_task(tree: None) -> None:
    async with parallel.open_hub() as hub:
        with pytest.raises(parallel.NotSendable, match=r"'hub'.*hub\.open_channel\(\)"):
            await parallel.run(lambda: hub.clients)


async def test_flushed_waits_until_everything_is_in_the_sockets(hub: Hub) -> None:
    async with connect(hub, "slow", "gone") as [(slow, client), (gone, other)]:
        count = await fill_up(hub, client)
        await fill_up(hub, other)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.flushed)
            await wait_all_tasks_blocked()
            assert [await slow.receive() for _ in range(count)] == list(range(count))
            await wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 1
            gone.close()
        assert hub.statistics().bytes_unsent == 0


async def test_what_is_flushed_survives_the_process(tree: None) -> None:
    received = []

    async def listen(clone: Channel) -> None:
        with clone, pytest.raises(trio.BrokenResourceError):
            await clone.send(3000)
            async for value in clone:
                received.append(value)

    async with trio.open_nursery() as nursery:
        with pytest.raises(parallel.WorkerDied):
            async with parallel.spawn(say_much_and_vanish) as (channel, _):
                nursery.start_soon(listen, channel.clone())
                await trio.sleep_forever()
    assert received == list(range(3000))


# A worker that has returned lingers


@in_turn("count", [5, 100, 9_000])
async def test_nothing_that_a_worker_sent_before_it_returned_is_dropped(
    tree: None, count: int
) -> None:
    async with trio.open_nursery() as nursery:
        channel, process = await parallel.spawn(say_much_and_return, nursery=nursery)
        async with channel:
            await channel.send(count)
            assert await channel.receive() == 0
            if count <= 100:  # it need not wait for us
                await eventually(lambda: process.returncode == 0)
            assert await receive_all(channel) == list(range(1, count))
        assert await process.result() == "all said"


@asynccontextmanager
async def lingering() -> AsyncIterator[tuple[Channel, parallel.Process[str]]]:
    """A worker that has returned, and the channel for which it has more than any buffer holds."""
    async with parallel.spawn(say_a_lot_and_return, 2) as (slow, process), slow.clone() as fast:
        await slow.send("go")
        await fast.send("me too")
        with pytest.raises(trio.EndOfChannel):  # for the others that is the end
            await fast.receive()
        await parallel.run(os.getpid)  # in that time it would have gone
        assert process.returncode is None
        yield slow, process


async def test_a_worker_that_has_returned_lingers_until_its_client_has_taken_everything(
    tree: None,
) -> None:
    async with lingering() as (channel, process):
        assert await channel.receive() == bytes(5_000_000)
        with pytest.raises(trio.EndOfChannel):
            await channel.receive()
        assert await process.result() == "all said"


async def test_a_worker_that_has_returned_lingers_until_its_client_has_closed(tree: None) -> None:
    async with lingering() as (channel, process):
        channel.close()
        assert await process.result() == "all said"


async def test_a_worker_that_lingers_goes_when_its_caller_leaves_the_block(tree: None) -> None:
    async with lingering() as (_, process):
        pass
    assert await process.result() == "all said"


async def test_a_worker_that_lingers_can_be_cancelled_and_its_result_stands(tree: None) -> None:
    async with lingering() as (_, process):
        process.cancel()
        assert (await process.wait()).value == "all said"


async def greet(hub: parallel.Hub[Any, Any], report: parallel.Channel[Any, Any]) -> None:
    async with report:
        await report.send("hello")
        async for client, _ in hub:
            await hub.send(client, "sent")


async def test_a_hub_tells_of_clients_that_its_host_took_along_before_it_looked() -> None:
    async with parallel.init(grace=0.2), parallel.open_hub() as hub:
        report = hub.open_channel()
        with pytest.raises(parallel.HostDied):
            async with parallel.spawn(greet, report) as (channel, _):
                report.close()
                await channel.send("have you sent it?")
                await channel.receive()
                os.kill(await parallel.run(os.getppid), signal.SIGKILL)
                await trio.sleep_forever()
        everybody = [event async for event in hub.listen()]
    events = [event for event in everybody if event.client.name == "greet"]
    match events:
        case [Connected(), Message(_, "hello"), Disconnected(_, parallel.HostDied())]:
            pass
        case _:
            raise AssertionError(events)
