"""parallel over ssh, as its users call it."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

import parallel
from bench import conversations, noop, workers
from bench.contenders.ours import time_each
from bench.trio_turns import arriving
from bench.turns import Turns
from parallel.launch.ssh import Ssh
from parallel.testing import open_hosts

Answer = Callable[[parallel.Hub[Any, Any]], Awaitable[None]]
Ask = Callable[[conversations.AnyChannel, int], Awaitable[list[float]]]


def process(turns: Turns) -> None:
    """Run a no-op in a fresh process of a host."""
    trio.run(run_nothings, turns)


def start(turns: Turns, count: str) -> None:
    """Start a cluster of hosts."""
    trio.run(start_clusters, turns, int(count))


def roundtrip(turns: Turns) -> None:
    """Send a small string to a host's hub and receive it back."""
    trio.run(talk, turns, workers.echo, conversations.pings)


def oneway(turns: Turns) -> None:
    """Send small strings to a host's hub; until its count comes back."""
    trio.run(talk, turns, workers.count, conversations.one_way)


def array(turns: Turns) -> None:
    """Send an array to a host's hub; until its size comes back."""
    trio.run(talk, turns, workers.weigh, conversations.arrays)


def roundtrip_between(turns: Turns) -> None:
    """Do as `roundtrip`, from another host."""
    trio.run(talk_between, turns, workers.echo, conversations.pings)


def array_between(turns: Turns) -> None:
    """Do as `array`, from another host."""
    trio.run(talk_between, turns, workers.weigh, conversations.arrays)


@asynccontextmanager
async def open_cluster(count: int) -> AsyncIterator[None]:
    """Have a cluster of so many hosts."""
    async with open_hosts(count) as hosts, parallel.init(cluster=parallel.Cluster(hosts)):
        yield


async def run_nothings(turns: Turns) -> None:
    """Time runs of a no-op."""

    async def run_nothing() -> None:
        await parallel.run(noop.nothing, where="host0")

    async with open_cluster(1):
        await time_each(turns, run_nothing)


async def start_clusters(turns: Turns, count: int) -> None:
    """Time starts."""
    async with open_hosts(count) as hosts:
        async for operations in arriving(turns):
            turns.report([await start_cluster(hosts) for _ in range(operations)])


async def start_cluster(hosts: list[Ssh]) -> float:
    """Start a cluster and end it; return the seconds that the start took."""
    start = time.perf_counter()
    async with parallel.init(cluster=parallel.Cluster(hosts)):
        return time.perf_counter() - start


async def talk(turns: Turns, answer: Answer, ask: Ask) -> None:
    """Talk to a host."""
    async with open_cluster(1), parallel.spawn(answer, where="host0") as (channel, _):
        async for operations in arriving(turns):
            turns.report(await ask(channel, operations))


async def talk_between(turns: Turns, answer: Answer, ask: Ask) -> None:
    """Let one host talk to another."""
    asking = parallel.spawn(workers.converse, answer, ask, "host1", where="host0")
    async with open_cluster(2), asking as (channel, _):
        async for operations in arriving(turns):
            await channel.send(operations)
            turns.report(await channel.receive())
