"""Much of everything: a million messages, a gigabyte in one, a hundred clients, a long life."""

from __future__ import annotations

import gc
import itertools
import os
import random
import time
from collections import Counter
from typing import Any

import pytest
import trio

import parallel

from . import support
from .elsewhere import host
from .programs import growth
from .puppets import (
    Channel,
    ask,
    count_in_bounds,
    echo,
    flood,
    memory,
    publish,
    send_in_bounds,
    send_one_in_bounds,
    subscribe,
    subscribe_and_sleep,
    subscribe_many,
    take_one_in_bounds,
    talk_and_raise,
)

MIB = 1 << 20
MILLION = 1_000_000 if support.ROUNDS >= 50 else 20_000 * support.ROUNDS
HUGE = 1 << 30 if support.ROUNDS >= 50 else 128 * MIB
SECONDS = min(60.0, 1.2 * support.ROUNDS)
RUNS = min(2000, 40 * support.ROUNDS)
SPAWNS = min(200, 4 * support.ROUNDS)


@pytest.mark.slow
async def test_a_million_messages_need_no_more_memory_than_a_few(tree: None) -> None:
    async with parallel.spawn(count_in_bounds) as (channel, process):
        grown_here = await parallel.run(send_in_bounds, channel, MILLION)
    received, grown_there = await process.result()
    assert received == MILLION
    assert grown_here < 8 * MIB
    assert grown_there < 8 * MIB


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "copies"), [("array", 0), ("bytes", 1)])
async def test_one_huge_message_is_in_memory_once_on_either_side_and_bytes_are_pickled(
    tree: None, kind: str, copies: int
) -> None:
    async with parallel.spawn(take_one_in_bounds) as (channel, process):
        grown_here = await parallel.run(send_one_in_bounds, channel, kind, HUGE)
    size, grown_there = await process.result()
    assert size == HUGE
    assert grown_here < copies * HUGE + 32 * MIB
    assert grown_there < (copies + 1) * HUGE + 32 * MIB


@pytest.mark.slow
async def test_a_broadcast_reaches_a_hundred_processes(tree: None) -> None:
    taken: list[list[object]] = []

    async def take(channel: Channel) -> None:
        taken.append(await parallel.run(subscribe, channel))

    messages: list[object] = [*range(100), bytes(2 * MIB)]
    async with parallel.spawn(publish, 100, "wait", messages) as (channel, process):
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(take, channel)
            own = [message async for message in channel]  # the spawner is a client too
        reached, grown = await process.result()
    assert taken == [[*range(100), 2 * MIB, "the end"]] * 100
    assert len(own) == 102
    assert reached == 101 * 101
    # Once for all, not once for each.
    assert grown < 101 * 65_536 + 8 * MIB


@pytest.mark.parametrize("slow", ["drop", "disconnect"])
async def test_one_slow_client_among_a_hundred_is_in_nobody_s_way(tree: None, slow: str) -> None:
    taken: list[int] = []
    messages: list[object] = [bytes(10_000)] * 100

    async with trio.open_nursery() as nursery:
        channel, process = await parallel.spawn(publish, 100, slow, messages, 99, nursery=nursery)

        async def take(count: int) -> None:
            taken.extend(await parallel.run(subscribe_many, channel, count))

        async with channel, trio.open_nursery() as sleeper:
            sleeper.start_soon(parallel.run, subscribe_and_sleep, channel)
            async with trio.open_nursery() as readers:
                for _ in range(3):
                    readers.start_soon(take, 33)
            if slow == "disconnect":
                await process.wait()  # for those it does not linger
            else:
                assert process.returncode is None
            sleeper.cancel_scope.cancel()
    assert taken == [100] * 99
    reached, grown = await process.result()
    assert 99 * 100 < reached < 101 * 100
    # Each connection holds back at most its buffer and one message.
    assert grown < 101 * (65_536 + 10_000) + 2 * MIB


async def test_two_tasks_that_receive_at_once_share_and_lose_nothing(tree: None) -> None:
    received: list[int] = []

    async def receive(channel: Channel) -> None:
        while True:
            try:
                received.append(await channel.receive())
            except trio.BusyResourceError:
                await trio.lowlevel.checkpoint()
            except trio.EndOfChannel:
                return

    async with parallel.spawn(echo) as (channel, process), trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(receive, channel)
        for number in range(10_000):
            await channel.send(number)
        await channel.send_eof()
    assert await process.result() == 10_000
    assert received == list(range(10_000))


# Hours in a minute


class Program:
    """Does everything that programs do, again and again."""

    def __init__(self) -> None:
        self.random = random.Random(1)
        self.runs = itertools.count()
        self.spawns = itertools.count()
        self.hub: parallel.Hub[Any, Any] = parallel.Hub()
        self.keeps_the_hub_open = self.hub.open_channel()
        self.served: set[int] = set()

    async def run_many(self, limit: int) -> None:
        while (number := next(self.runs)) < limit:
            await self.run_one(number)

    async def run_one(self, number: int) -> None:
        match number % 10:
            case 0:
                with pytest.raises(ValueError, match="no"):
                    with self.hub.open_channel() as channel:
                        await parallel.run(talk_and_raise, channel)
            case 1:
                with trio.move_on_after(self.random.random() * 0.02):
                    await parallel.run(trio.sleep_forever)
            case 2:
                assert await parallel.run(bytes, 500_000) == bytes(500_000)
            case _:
                assert await parallel.run(abs, -number) == number

    async def spawn_many(self, limit: int) -> None:
        while (number := next(self.spawns)) < limit:
            async with parallel.spawn(echo) as (channel, _):
                await channel.send(number)
                assert await channel.receive() == number

    async def clients_come_and_go(self, until: float) -> None:
        """A client or two at a time, each for a few messages; some leave without a word."""
        while time.monotonic() < until:
            with self.hub.open_channel() as channel:
                if self.random.random() < 0.3:
                    with trio.move_on_after(self.random.random() * 0.02):
                        await parallel.run(flood, channel)
                else:
                    await parallel.run(ask, channel, 0, 5)
            await trio.sleep(0.01)

    async def serve_them(self) -> None:
        """Double what is a number; who is gone is gone."""
        async for client, message in self.hub:
            self.served.add(client.pid)
            if isinstance(message, int):
                try:
                    self.hub.send_nowait(client, 2 * message)
                except (trio.BrokenResourceError, trio.WouldBlock):
                    pass

    async def live(self, runs: int, spawns: int, seconds: float) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.serve_them)
            async with trio.open_nursery() as workers:
                for _ in range(3):
                    workers.start_soon(self.run_many, runs)
                workers.start_soon(self.spawn_many, spawns)
                workers.start_soon(self.clients_come_and_go, time.monotonic() + seconds)
            # Who serves sees them leave; then there is none but ours.
            await support.eventually(lambda: len(self.hub.clients) == 1)
            nursery.cancel_scope.cancel()

    async def close(self) -> None:
        self.keeps_the_hub_open.close()
        await self.hub.aclose()


SPARE = "parallel: spare"
LASTING = Counter({"parallel-keeper": 1, "parallel-forkse": 1})
"""What a host has of its own beside its spares."""

BETWEEN = Counter({"parallel: agent": 1, "parallel-agent": 1})


def lasting(mark: str) -> list[int]:
    """The pids of what lasts as long as the program, and does something."""
    names = support.marked_processes(mark).items()
    return [pid for pid, name in names if name not in (SPARE, "parallel-keeper")]


def resident(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * 4096


def descriptors(pid: int) -> int:
    """But for those to each child, for of spares there may be one more at one time.

    That is a connection; on another host there are two pipes as well, for what it will print.
    """
    is_here = any(pid in growth.children(child) for child in growth.children(os.getpid()))
    return len(os.listdir(f"/proc/{pid}/fd")) - len(growth.children(pid)) * (1 if is_here else 3)


async def settled(mark: str) -> None:
    """Until there are no processes but those of the hosts themselves."""
    hosts = 1 if host() == "root" else 2
    expected = LASTING if hosts == 1 else LASTING + LASTING + BETWEEN

    def is_settled() -> bool:
        names = Counter(support.marked_processes(mark).values())
        spares = names.pop(SPARE, 0)
        return 2 * hosts <= spares <= 3 * hosts and names == expected

    await support.eventually(is_settled)
    gc.collect()


@pytest.mark.slow
async def test_a_program_that_does_everything_for_long_is_afterwards_as_it_was(
    tree: None, mark: str
) -> None:
    program = Program()
    await program.live(max(50, RUNS // 10), max(10, SPAWNS // 10), SECONDS / 10)
    await settled(mark)
    servers = lasting(mark)
    before = memory("VmRSS"), [resident(pid) for pid in servers]
    opened = len(support.open_descriptors()), [descriptors(pid) for pid in servers]
    program.runs, program.spawns = itertools.count(), itertools.count()
    await program.live(RUNS, SPAWNS, SECONDS)
    await settled(mark)
    assert len(program.served) > SECONDS
    assert lasting(mark) == servers
    assert len(support.open_descriptors()) <= opened[0]
    assert memory("VmRSS") - before[0] < 8 * MIB
    # An agent remembers more of the last thousand dead than a fork server does.
    little = 4 * MIB if host() == "root" else 8 * MIB
    for pid, had, used in zip(servers, opened[1], before[1], strict=True):
        assert descriptors(pid) <= had
        assert resident(pid) - used < little
    assert all(child.name == "agent" for child in (await parallel.processes()).children)
    await program.close()
