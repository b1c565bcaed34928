"""Channels on their way: wherever one stands it arrives, and a hub's loop ends when it should."""

from __future__ import annotations

import random
import resource
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import parallel

from . import support
from .elsewhere import host
from .puppets import (
    Channel,
    Explosive,
    Hub,
    come_home,
    converse_sync,
    hand_back,
    hand_back_sync,
    hop,
    pass_on,
    puppet,
    read_nothing_and_be_killed,
    return_to_sender,
    say,
    send_and_be_killed,
    serve,
)
from .schedules import Node, act, random_tree
from .support import alone, in_turn

HANG = 30
"""Seconds after which something hangs."""


@pytest.fixture
def member() -> Iterator[None]:
    with alone():
        yield


@pytest.fixture
async def hub(member: None) -> AsyncIterator[Hub]:
    async with parallel.open_hub() as hub:
        yield hub


@asynccontextmanager
async def carrier() -> AsyncIterator[tuple[Hub, parallel.Client, Channel]]:
    """Another hub, the client that it knows, and that client's channel."""
    async with parallel.open_hub() as hub:
        with hub.open_channel() as channel:
            event = await anext(hub.listen())
            assert event is not None
            yield hub, event.client, channel


async def take(hub: Hub) -> Any:
    _, value = await anext(aiter(hub))
    return value


async def check_ends(hub: Hub, *values: object) -> None:
    """The loop gives these messages, in whatever order, and ends."""
    with trio.fail_after(HANG):
        received = [value async for _, value in hub]
    assert sorted(map(repr, received)) == sorted(map(repr, values))


async def check_goes_on(hub: Hub) -> None:
    """The loop does not end by itself."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(check_ends, hub)
        await wait_all_tasks_blocked()
        assert nursery.child_tasks
        nursery.cancel_scope.cancel()


# Ways to travel


async def test_a_channel_travels_as_an_argument(tree: None) -> None:
    async with parallel.open_hub() as hub:
        with hub.open_channel() as channel:
            await parallel.run(say, channel, "hello")
            await channel.send("the original is still open")
        await check_ends(hub, "hello", "the original is still open")


async def test_a_channel_travels_inside_of_an_argument(tree: None) -> None:
    async with parallel.open_hub() as hub:
        with hub.open_channel() as channel:
            await parallel.run(lambda args: say(args["to"][0], "hello"), {"to": (channel,)})
        await check_ends(hub, "hello")


async def test_a_channel_travels_in_a_partial(tree: None) -> None:
    async with parallel.open_hub() as hub:
        with hub.open_channel() as channel:
            await parallel.run(partial(say, channel, "hello"))
        await check_ends(hub, "hello")


async def test_a_channel_travels_in_a_closure(tree: None) -> None:
    async with parallel.open_hub() as hub:
        with hub.open_channel() as channel:

            async def job() -> None:
                async with channel:
                    await channel.send("hello")

            await parallel.run(job)
        await check_ends(hub, "hello")


async def test_a_channel_travels_as_a_result(tree: None) -> None:
    async with parallel.open_hub() as hub:
        with hub.open_channel("given") as channel:
            returned = await parallel.run(hand_back, channel)
        async with returned:
            await returned.send("the worker is gone, its channel is not")
        await check_ends(hub, "the worker is gone, its channel is not")


async def test_a_channel_travels_in_a_message_both_ways(tree: None) -> None:
    async with parallel.open_hub() as hub, parallel.spawn(return_to_sender) as (line, _):
        with hub.open_channel() as channel:
            await line.send(channel)
        with await line.receive() as returned:
            await returned.send("hello")
        await line.aclose()
        await check_ends(hub, "hello")


async def test_a_channel_that_stands_in_a_message_twice_arrives_once(hub: Hub) -> None:
    async with carrier() as (other, _, line):
        with hub.open_channel() as channel:
            await line.send([channel, {"again": channel}])
        first, second = await take(other)
        assert second["again"] is first
        first.close()
        await check_ends(hub)


async def test_a_channel_can_be_sent_over_itself(hub: Hub) -> None:
    with hub.open_channel() as channel:
        await channel.send(channel)
    with await take(hub) as received:
        await received.send("round")
    await check_ends(hub, "round")


async def test_a_channel_arrives_ready_to_use_at_once_in_both_directions(tree: None) -> None:
    async with parallel.spawn(serve) as (channel, process):

        async def job() -> Any:
            channel.send_nowait(21)
            return await channel.receive()

        assert await parallel.run(job) == 42
        await channel.send(1)
        assert await channel.receive() == 2
    assert len(await process.result()) == 2


async def test_a_channel_comes_home_to_the_process_of_its_hub(tree: None) -> None:
    async with parallel.spawn(come_home) as (channel, process):
        await channel.send(channel)
        await parallel.run(say, channel, channel, "from afar")
    assert sorted(map(str, await process.result())) == ["from afar", "home", "home"]


async def test_a_label_travels_along(tree: None) -> None:
    async with parallel.open_hub() as hub:
        with hub.open_channel("blue") as channel:
            await parallel.run(say, channel, "hello")
        labels = {event.client.label async for event in hub.listen()}
        assert labels == {"blue"}


async def test_sync_functions_take_and_return_channels(tree: None) -> None:
    async with parallel.open_hub() as hub, trio.open_nursery() as nursery:
        nursery.start_soon(serve, hub)
        with hub.open_channel() as channel:
            assert await parallel.run(converse_sync, channel, 21) == 42
            returned = await parallel.run(hand_back_sync, channel)
            async with returned:
                await returned.send(4)
                assert await returned.receive() == 8


async def test_a_channel_makes_many_hops(tree: None) -> None:
    async with parallel.open_hub() as hub:
        with hub.open_channel() as channel:
            assert await parallel.run(hop, channel, 15) == 16
        await check_ends(hub, "from the lowest")


async def test_a_channel_goes_to_and_fro(tree: None) -> None:
    async with parallel.open_hub() as hub, parallel.spawn(return_to_sender) as (line, _):
        traveller = hub.open_channel()
        for _ in range(100 if host() == "root" else 30):  # elsewhere each time is one more relay
            with traveller:
                await line.send(traveller)
            traveller = await line.receive()
        async with traveller:
            await traveller.send("home again")
        await line.aclose()
        await check_ends(hub, "home again")


@pytest.fixture
def many_open_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@in_turn("count", [200, 201, 333])
async def test_one_message_carries_hundreds_of_channels(
    tree: None, many_open_files: None, count: int
) -> None:
    async with parallel.open_hub() as hub, parallel.spawn(pass_on) as (line, process):
        with ExitStack() as stack:
            first = stack.enter_context(hub.open_channel())
            clones = [stack.enter_context(first.clone()) for _ in range(count - 1)]
            await line.send([first, *clones])
        await check_ends(hub, *[("used by", process.pid)] * count)
    assert await process.result() == count


# Channels that never arrive


@pytest.mark.parametrize("read", ["nothing", "the one before"])
async def test_a_channel_in_a_message_that_is_never_received_is_closed_with_its_carrier(
    hub: Hub, read: str
) -> None:
    async with carrier() as (other, client, line):
        with hub.open_channel() as channel:
            await other.send(client, "before")
            await other.send(client, [channel])
            await line.send("before")
            await line.send([channel])
        if read == "the one before":  # then the next one is here too
            assert await line.receive() == await take(other) == "before"
        await check_goes_on(hub)
    await check_ends(hub)


async def test_a_send_that_was_cancelled_while_it_waited_for_room_connects_nothing(
    hub: Hub,
) -> None:
    async with carrier() as (other, _, line):
        line.send_nowait(bytes(1_000_000))
        with hub.open_channel() as channel:
            assert isinstance(await anext(hub.listen()), parallel.Connected)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(line.send, [channel, bytes(100_000)])
                await wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            await wait_all_tasks_blocked()
        events = [type(event) async for event in hub.listen()]
        assert events[0] is parallel.Ended
        assert parallel.Connected not in events
        assert await take(other) == bytes(1_000_000)


async def test_a_send_that_would_have_to_wait_connects_nothing(hub: Hub) -> None:
    async with carrier() as (_, _, line):
        line.send_nowait(bytes(1_000_000))
        with hub.open_channel() as channel:
            with pytest.raises(trio.WouldBlock):
                line.send_nowait([channel, bytes(100_000)])
        await check_ends(hub)


async def test_a_message_that_cannot_be_pickled_connects_nothing(hub: Hub) -> None:
    async with carrier() as (_, _, line):
        with hub.open_channel() as channel:
            with pytest.raises(parallel.NotSendable):
                await line.send([channel, hub])
        await check_ends(hub)


@pytest.mark.parametrize("order", ["channel first", "channel last"])
async def test_a_message_that_cannot_be_unpickled_closes_what_it_carried(
    hub: Hub, order: str
) -> None:
    async with carrier() as (other, _, line):
        with hub.open_channel() as channel:
            message = [channel, Explosive("no")]
            await line.send(message if order == "channel first" else message[::-1])
        with pytest.raises(parallel.RemoteError):
            await take(other)
        await check_ends(hub)


async def test_a_channel_in_a_message_over_the_limit_connects_nothing() -> None:
    with alone(max_message_size=10_000):
        async with parallel.open_hub() as hub, carrier() as (_, _, line):
            with hub.open_channel() as channel:
                with pytest.raises(parallel.MessageTooLarge):
                    await line.send([channel, bytes(20_000)])
            await check_ends(hub)


async def test_a_channel_to_somebody_who_has_gone_connects_nothing(hub: Hub) -> None:
    async with carrier() as (other, _, line):
        other.close()
        with hub.open_channel() as channel:
            with pytest.raises(trio.BrokenResourceError):
                await line.send(channel)
            with pytest.raises(trio.BrokenResourceError):
                line.send_nowait(channel)
        await check_ends(hub)


async def test_a_closed_channel_cannot_be_sent_and_the_error_says_so(hub: Hub) -> None:
    async with carrier() as (_, _, line):
        channel = hub.open_channel()
        channel.close()
        with pytest.raises(parallel.NotSendable, match="has been closed"):
            await line.send({"to": channel})


async def test_a_channel_that_is_closed_while_its_message_waits_is_not_sent(hub: Hub) -> None:
    async with carrier() as (other, _, line):
        line.send_nowait(bytes(1_000_000))
        channel = hub.open_channel()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def send() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await line.send([channel, bytes(100_000)])

            await wait_all_tasks_blocked()
            channel.close()
            assert await take(other) == bytes(1_000_000)
        await line.send("the carrier is none the worse")
        assert await take(other) == "the carrier is none the worse"
        await check_ends(hub)


async def test_a_channel_whose_hub_has_gone_arrives_broken_and_its_message_whole(
    member: None,
) -> None:
    async with parallel.open_hub() as gone:
        early, late = gone.open_channel(), gone.open_channel()
        async with carrier() as (other, _, line):
            await line.send([early, "sent while there was a hub"])
            gone.close()
            await line.send([late, "sent when there was none"])
            for text in ("sent while there was a hub", "sent when there was none"):
                received, rest = await take(other)
                assert rest == text
                with received, pytest.raises(trio.BrokenResourceError):
                    await received.send("hello?")
    early.close()
    late.close()


async def test_a_channel_whose_hub_s_process_was_killed_arrives_and_names_it(tree: None) -> None:
    async with carrier() as (other, _, line):
        with pytest.raises(parallel.WorkerDied):
            async with parallel.spawn(puppet) as (channel, process):
                await channel.send(("say", ["hello"]))
                assert await channel.receive() == "hello"
                clone = channel.clone()
                await channel.send(("be killed", None))
                await trio.sleep_forever()
        with clone:
            await line.send(clone)
        with await take(other) as received:
            for call in (received.receive, partial(received.send, "hello?")):
                with pytest.raises(trio.BrokenResourceError) as info:
                    await call()
                assert isinstance(info.value.__cause__, parallel.WorkerDied)
                assert info.value.__cause__.pid == process.pid
                assert info.value.__cause__.signal == "SIGKILL"


async def test_a_result_that_holds_a_channel_to_a_dead_hub_arrives(tree: None) -> None:
    async def job() -> Any:
        async with parallel.open_hub() as hub:
            channel = hub.open_channel()
        return "the rest is fine", channel

    text, channel = await parallel.run(job)
    assert text == "the rest is fine"
    with channel, pytest.raises(trio.BrokenResourceError):
        await channel.receive()


async def expect_death(call: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(parallel.WorkerDied):
        await call()


async def test_a_channel_arrives_though_its_sender_was_killed_after_sending_it(
    tree: None,
) -> None:
    async with parallel.open_hub() as over, parallel.open_hub() as hub:
        with over.open_channel() as line, hub.open_channel() as cargo:
            await expect_death(partial(parallel.run, send_and_be_killed, line, cargo))
        with await take(over) as channel:
            await channel.send("it outlived its sender")
        await check_ends(hub, "it outlived its sender")


async def test_a_channel_is_gone_with_the_receiver_that_was_killed_before_it_read_it(
    tree: None,
) -> None:
    async with parallel.open_hub() as hub:

        async def job() -> None:
            async with parallel.spawn(read_nothing_and_be_killed) as (line, _):
                for _ in range(3):
                    with hub.open_channel() as cargo:
                        await line.send(cargo)
                await trio.sleep_forever()

        await expect_death(job)
        await check_ends(hub)


async def test_a_channel_is_gone_with_the_worker_that_could_not_begin(tree: None) -> None:
    async with parallel.open_hub() as hub:
        with hub.open_channel() as cargo, pytest.raises(parallel.RemoteError, match="no way"):
            await parallel.run(print, cargo, Explosive("no way"))
        await check_ends(hub)


async def test_a_channel_in_a_result_that_nobody_waits_for_is_closed(tree: None) -> None:
    async with parallel.open_hub() as hub:
        with hub.open_channel() as cargo:
            with trio.CancelScope() as scope:

                async def job() -> Any:
                    async with cargo:
                        await cargo.send("now")
                    return None

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(parallel.run, job)
                    assert await take(hub) == "now"
                    scope.cancel()
        await check_ends(hub)


# The model: a hub's loop ends when it should


@dataclass
class Carrier:
    """A connection that carries messages, and what is in them."""

    hub: Hub
    client: parallel.Client
    channel: Channel
    up: deque[int] = field(default_factory=deque)
    down: deque[int] = field(default_factory=deque)
    """For each message on its way: how many channels it holds; minus one more if it explodes."""


class Model:
    """Does at random what can be done with channels, and knows how many of them can speak."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.hub: Hub = parallel.Hub()
        self.held: list[Channel] = []
        self.mute: list[Channel] = []
        self.carriers: list[Carrier] = []
        self.said = 0
        self.speakers = 0
        self.history: list[str] = []

    async def open(self) -> None:
        self.held.append(self.hub.open_channel())
        self.speakers += 1

    async def clone(self) -> None:
        self.held.append(self.random.choice(self.held).clone())
        self.speakers += 1

    def pick(self) -> Channel:
        self.speakers -= 1
        return self.held.pop(self.random.randrange(len(self.held)))

    async def close(self) -> None:
        self.pick().close()

    async def drop(self) -> None:
        with pytest.warns(ResourceWarning, match="never closed"):
            self.pick()

    async def end(self) -> None:
        channel = self.pick()
        await channel.send_eof()
        self.mute.append(channel)

    async def close_mute(self) -> None:
        if self.mute:
            self.mute.pop().close()

    async def say(self) -> None:
        await self.random.choice(self.held).send(self.said)
        self.said += 1

    async def make_carrier(self) -> None:
        hub: Hub = parallel.Hub()
        channel = hub.open_channel()
        event = await anext(hub.listen())
        self.carriers.append(Carrier(hub, event.client, channel))

    async def ship(self) -> None:
        if not self.carriers:
            await self.make_carrier()
        carrier = self.random.choice(self.carriers)
        count = self.random.randint(1, min(3, len(self.held)))
        cargo: list[object] = [*self.random.sample(self.held, count)]
        explosive = self.random.random() < 0.2
        if explosive:
            cargo.insert(self.random.randint(0, count), Explosive("no"))
        entry = -1 - count if explosive else count
        if self.random.random() < 0.5:
            await carrier.channel.send(cargo)
            carrier.up.append(entry)
        else:
            await carrier.hub.send(carrier.client, cargo)
            carrier.down.append(entry)
        self.speakers += count

    async def arrive(self) -> None:
        carriers = [carrier for carrier in self.carriers if carrier.up or carrier.down]
        if not carriers:
            return
        carrier = self.random.choice(carriers)
        queue = self.random.choice([q for q in (carrier.up, carrier.down) if q])
        entry = queue.popleft()
        receive = partial(take, carrier.hub) if queue is carrier.up else carrier.channel.receive
        if entry < 0:
            with pytest.raises(parallel.RemoteError):
                await receive()
            self.speakers -= -1 - entry
        else:
            self.held += await receive()

    async def lose_carrier(self) -> None:
        if not self.carriers:
            return
        carrier = self.carriers.pop(self.random.randrange(len(self.carriers)))
        lost = [carrier.up, carrier.down]
        if self.random.random() < 0.5:
            carrier.hub.close()
            carrier.channel.close()
        else:
            carrier.channel.close()
            carrier.hub.close()
        self.speakers -= sum(entry if entry > 0 else -1 - entry for q in lost for entry in q)

    async def wait_in_vain(self) -> None:
        async with carrier() as (_, _, line):
            line.send_nowait(bytes(1_000_000))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(line.send, [*self.held[:3], bytes(100_000)])
                await wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()

    async def step(self) -> None:
        """Do something; there is at least one speaker, but perhaps none that we hold."""
        always = [self.arrive, self.arrive, self.lose_carrier, self.close_mute]
        holding = [self.close, self.close, self.drop, self.end, self.say, self.wait_in_vain]
        growing = [self.open, self.clone, self.clone, self.ship, self.ship, self.ship]
        if self.speakers < 4:
            growing *= 2
        action = self.random.choice(always + holding + growing if self.held else always)
        self.history.append(action.__name__)
        await action()

    def tidy_up(self) -> None:
        self.hub.close()
        for channel in (*self.held, *self.mute):
            channel.close()
        for carrier in self.carriers:
            carrier.hub.close()
            carrier.channel.close()


async def check_schedule(seed: int) -> int:
    """Until the last speaker is gone, or long enough; how many steps that were."""
    model = Model(seed)
    received: list[int] = []
    ended = trio.Event()

    async def listen() -> None:
        async for _, number in model.hub:
            received.append(number)
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await model.open()
        steps = 0
        while model.speakers and steps < 40:
            await wait_all_tasks_blocked()
            assert not ended.is_set(), (seed, model.history)
            await model.step()
            steps += 1
        await wait_all_tasks_blocked()
        assert ended.is_set() == (model.speakers == 0), (seed, model.history)
        assert sorted(received) == list(range(model.said)), (seed, model.history)
        nursery.cancel_scope.cancel()
    model.tidy_up()
    return steps


@pytest.mark.parametrize("first", range(0, 200, 50))
async def test_the_loop_ends_exactly_with_the_last_speaker_whatever_happens_on_the_way(
    member: None, many_open_files: None, first: int
) -> None:
    steps = [await check_schedule(seed) for seed in range(first, first + 50)]
    assert sum(steps) > 500


# The same with processes


async def run_schedule(seed: int) -> None:
    """A tree of processes does what its nodes say; its messages arrive, and the loop ends."""
    tree = random_tree(random.Random(seed))
    heard: dict[int, list[int]] = {}
    async with parallel.open_hub() as hub, trio.open_nursery() as nursery:
        channel = hub.open_channel()

        @nursery.start_soon
        async def run() -> None:
            async with channel:
                await act(tree, channel)

        with trio.fail_after(HANG):
            async for _, (number, count) in hub:
                heard.setdefault(number, []).append(count)
    for node in tree.walk():
        said = heard.get(node.number, [])
        assert said == list(range(len(said))), (seed, node)
        if node.is_sure:
            assert len(said) == node.will_say, (seed, node)


@pytest.mark.slow
async def test_the_loop_ends_when_it_should_over_random_trees_of_processes(tree: None) -> None:
    seeds = iter(range(max(4, 2 * support.ROUNDS)))

    async def work() -> None:
        for seed in seeds:
            await run_schedule(seed)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(work)


def test_a_schedule_knows_who_can_be_relied_on() -> None:
    dead = Node(2, says=[3, 0], ending="be killed", below=[Node(3, says=[1])])
    root = Node(1, says=[2, 1, 0], below=[dead, Node(4, says=[1])])
    root.settle(sure=True)
    assert [node.is_sure for node in root.walk()] == [True, False, False, True]
    assert root.will_say == 3
