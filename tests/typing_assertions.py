"""What type checkers infer for a user's program: mypy --strict and pyright both check this file.

Nothing here runs. A wrong use carries a `type: ignore`, which both checkers report as soon as it
is not needed any more.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import functools
import operator
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import assert_type

import trio

import parallel
from parallel import Channel, Host, Hub, Placement, Process

# What users write


def square(x: int) -> int:
    return x * x


def describe(name: str, size: int = 0, *, loud: bool = False) -> str:
    return name


async def fetch(url: str) -> bytes:
    return url.encode()


async def nothing() -> None: ...


class Model:
    def __init__(self, size: int) -> None:
        self.size = size

    def fit(self, data: list[float]) -> Model:
        return self

    async def predict(self, x: float) -> float:
        return x

    @classmethod
    def load(cls, path: str) -> Model:
        return cls(1)

    def __call__(self, x: int) -> str:
        return str(x)


async def upper(hub: Hub[str, str]) -> int:
    return 0


async def sum_up(hub: Hub[int, float], start: int, step: float) -> list[int]:
    return [start]


async def takes_channel(channel: Channel[str, int]) -> None: ...


# run


async def results_of_run() -> None:
    assert_type(await parallel.run(square, 3), int)
    assert_type(await parallel.run(describe, "a", 3), str)
    assert_type(await parallel.run(fetch, "url"), bytes)
    assert_type(await parallel.run(nothing), None)
    assert_type(await parallel.run(lambda: 5), int)
    assert_type(await parallel.run(lambda: [1.5]), list[float])
    assert_type(await parallel.run(lambda: fetch("url")), bytes)
    assert_type(await parallel.run(functools.partial(describe, "a", loud=True)), str)
    assert_type(await parallel.run(functools.partial(fetch, "a")), bytes)
    assert_type(await parallel.run(Model(1).fit, [1.0]), Model)
    assert_type(await parallel.run(Model(1).predict, 1.0), float)
    assert_type(await parallel.run(Model.load, "path"), Model)
    assert_type(await parallel.run(Model(1), 3), str)
    assert_type(await parallel.run(Model, 3), Model)
    assert_type(await parallel.run(str.upper, "a"), str)


async def options_of_run(placement: Placement) -> None:
    await parallel.run(square, 3, where="host0", name="squaring", env={"A": "1"}, cwd="/tmp")
    await parallel.run(square, 3, where=None)
    await parallel.run(square, 3, where=parallel.random)
    await parallel.run(square, 3, where=parallel.round_robin)
    await parallel.run(square, 3, where=parallel.least_loaded)
    await parallel.run(square, 3, where=parallel.random_in(["a", "b"]))
    await parallel.run(square, 3, where=lambda hosts: hosts[0].name)
    await parallel.run(square, 3, where=placement)


async def wrong_uses_of_run() -> None:
    await parallel.run(square, "3")  # type: ignore[arg-type]
    await parallel.run(square)  # type: ignore[arg-type,call-arg]
    await parallel.run(square, 3, 4)  # type: ignore[arg-type,call-arg]
    await parallel.run(square(3))  # type: ignore[call-overload]
    await parallel.run(square, 3, where=5)  # type: ignore[call-overload]
    await parallel.run(square, 3, nursery=None)  # type: ignore[call-overload]
    text: str = await parallel.run(square, 3)  # type: ignore[arg-type]
    assert text


# spawn


async def spawn_as_a_block() -> None:
    async with parallel.spawn(upper) as (channel, process):
        assert_type(channel, Channel[str, str])
        assert_type(process, Process[int])
    async with parallel.spawn(sum_up, 1, 2.5, where="root") as (numbers, summing):
        assert_type(numbers, Channel[int, float])
        assert_type(summing, Process[list[int]])
    assert_type(
        parallel.spawn(upper), AbstractAsyncContextManager[tuple[Channel[str, str], Process[int]]]
    )


async def spawn_in_a_nursery(nursery: trio.Nursery) -> None:
    channel, process = await parallel.spawn(upper, nursery=nursery)
    assert_type(channel, Channel[str, str])
    assert_type(process, Process[int])
    numbers, summing = await parallel.spawn(sum_up, 1, 2.5, nursery=nursery, name="summing")
    assert_type(numbers, Channel[int, float])
    assert_type(summing, Process[list[int]])


async def wrong_uses_of_spawn(nursery: trio.Nursery) -> None:
    parallel.spawn(sum_up, "1", 2.5)  # type: ignore[arg-type,call-arg]
    parallel.spawn(sum_up, 1)  # type: ignore[arg-type]
    parallel.spawn(square, 1)  # type: ignore[arg-type]
    parallel.spawn(fetch, "url")  # type: ignore[arg-type]
    async with parallel.spawn(upper, nursery=nursery):  # type: ignore[attr-defined]
        pass


async def what_a_process_tells() -> None:
    async with parallel.spawn(sum_up, 1, 2.5) as (_, process):
        assert_type(await process.result(), list[int])
        ending = await process.wait()
        assert_type(ending.value, list[int] | None)
        assert_type(ending.error, BaseException | None)
        assert_type(process.host, str)
        assert_type(process.pid, int)
        assert_type(process.name, str)
        assert_type(process.returncode, int | None)
        process.cancel()


def processes_are_covariant(process: Process[bool]) -> Process[int]:
    return process


# Channels


async def messages_through_a_channel(channel: Channel[str, int]) -> None:
    await channel.send("text")
    channel.send_nowait("text")
    assert_type(await channel.receive(), int)
    assert_type(channel.receive_nowait(), int)
    async for message in channel:
        assert_type(message, int)
    assert_type(channel.clone(), Channel[str, int])
    await channel.send_eof()
    await takes_channel(channel)
    async with channel as same:
        assert_type(same, Channel[str, int])
    with channel.clone() as cloned:
        assert_type(cloned, Channel[str, int])


async def wrong_uses_of_a_channel(channel: Channel[str, int], other: Channel[int, int]) -> None:
    await channel.send(5)  # type: ignore[arg-type]
    channel.send_nowait(b"bytes")  # type: ignore[arg-type]
    text: str = await channel.receive()  # type: ignore[assignment]
    assert text
    await takes_channel(other)  # type: ignore[arg-type]


def a_channel_is_both_of_trio_s(channel: Channel[str, int]) -> None:
    send: trio.abc.SendChannel[str] = channel
    receive: trio.abc.ReceiveChannel[int] = channel
    assert send
    assert receive


async def channels_as_arguments(hub: Hub[str, int]) -> None:
    await parallel.run(takes_channel, hub.open_channel())
    await parallel.run(takes_channel, Channel[int, int].clone)  # type: ignore[arg-type]


# Hubs


async def a_hub(hub: Hub[str, int]) -> None:
    async for client, message in hub:
        assert_type(client, parallel.Client)
        assert_type(message, str)
        await hub.send(client, 5)
        hub.send_nowait(client, 5)
        assert_type(client.host, str)
        assert_type(client.pid, int)
        assert_type(client.label, str | None)
    await hub.broadcast(5)
    await hub.broadcast(5, slow="drop")
    assert_type(hub.open_channel("label"), Channel[str, int])
    assert_type(hub.clients, tuple[parallel.Client, ...])


async def a_hub_s_events(hub: Hub[str, int]) -> None:
    async for event in hub.listen():
        match event:
            case parallel.Connected(client):
                assert_type(client, parallel.Client)
            case parallel.Message(client, value):
                assert_type(client, parallel.Client)
                assert_type(value, str)
            case parallel.Ended(client):
                assert_type(client, parallel.Client)
            case parallel.Disconnected(client, reason):
                assert_type(client, parallel.Client)
                assert_type(reason, BaseException | None)


async def wrong_uses_of_a_hub(hub: Hub[str, int], client: parallel.Client) -> None:
    await hub.send(client, "text")  # type: ignore[arg-type]
    await hub.broadcast("text")  # type: ignore[arg-type]
    await hub.broadcast(5, slow="later")  # type: ignore[arg-type]
    channel: Channel[int, str] = hub.open_channel()  # type: ignore[assignment]
    assert channel


async def a_hub_that_one_opens() -> None:
    async with parallel.open_hub() as hub:
        typed: Hub[str, int] = hub
        assert_type(typed.open_channel(), Channel[str, int])


# init, clusters, placements


async def the_root() -> None:
    async with parallel.init():
        pass
    async with parallel.init(
        cluster=parallel.Cluster(root_slots=3),
        preload=["numpy"],
        spares=1,
        grace=1,
        heartbeat=2.5,
        max_message_size=None,
        buffer_size=1 << 20,
    ) as value:
        assert_type(value, None)
    parallel.init(parallel.Cluster())  # type: ignore[call-arg]
    parallel.init(grace="5")  # type: ignore[arg-type]


def what_is_known_of_hosts() -> None:
    assert_type(parallel.hosts(), tuple[Host, ...])
    assert_type(parallel.current_host(), str)
    host = parallel.hosts()[0]
    assert_type(host.name, str)
    assert_type(host.slots, int)
    assert_type(host.running, int)


async def what_is_known_of_processes() -> None:
    tree = await parallel.processes()
    assert_type(tree, parallel.ProcessInfo)


def placements(hosts: Sequence[Host]) -> None:
    functions: list[Placement] = [
        parallel.random,
        parallel.round_robin,
        parallel.least_loaded,
        parallel.random_in(("a", "b")),
        lambda hosts: hosts[0].name,
    ]
    assert_type(functions[0](hosts), str)
    functions.append(lambda hosts: hosts[0].slots)  # type: ignore[arg-type,return-value]


# Wrappers that users write around run


async def timed(function: Callable[[], Awaitable[int]]) -> int:
    return await parallel.run(function)


async def over_all(numbers: AsyncIterator[int]) -> list[int]:
    return [await parallel.run(square, number) async for number in numbers]


# Farms


def perhaps(number: int) -> str | None:
    return str(number) if number else None


async def what_a_farm_gives(farm: parallel.Farm) -> None:
    assert_type(await farm.map(square, [1]), list[int])
    assert_type(await farm.map(fetch, ["a"]), list[bytes])
    assert_type(await farm.map(square, range(3), on_error="return"), list[int | Exception])
    async for number in farm.imap(square, [1]):
        assert_type(number, int)
    async for data in farm.imap_unordered(fetch, ["a"]):
        assert_type(data, bytes)
    assert_type(await farm.map(functools.partial(describe, size=1), ["name"]), list[str])
    assert_type(await farm.find_map(perhaps, [1]), str | None)
    assert_type(await farm.find_map(fetch, ["url"]), bytes | None)
    await farm.map(square, ["1"])  # type: ignore[arg-type]
    assert_type(await farm.map_local_fold(square, operator.add, 0, [1]), int)


# Errors


def facts_of_errors(error: parallel.WorkerDied, other: parallel.UnknownHost) -> None:
    assert_type(error.returncode, int | None)
    assert_type(error.signal, str | None)
    assert_type(error.maybe_oom, bool)
    assert_type(other.known, tuple[str, ...])
    general: parallel.ParallelError = error
    assert general
