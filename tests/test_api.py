"""`run` and `spawn`, as a user first meets them."""

from __future__ import annotations

import os

import pytest
import trio

import parallel


async def upper(hub: parallel.Hub[str, str]) -> int:
    served = 0
    async for client, message in hub:
        await hub.send(client, message.upper())
        served += 1
    return served


async def test_run_returns_the_value_of_a_function_in_another_process(tree: None) -> None:
    assert await parallel.run(os.getpid) != os.getpid()


async def test_spawn_gives_a_channel_and_a_process(tree: None) -> None:
    async with parallel.spawn(upper) as (channel, process):
        await channel.send("ping")
        assert await channel.receive() == "PING"
    assert await process.result() == 1


async def test_spawn_in_a_nursery(tree: None) -> None:
    async with trio.open_nursery() as nursery:
        channel, process = await parallel.spawn(upper, nursery=nursery)
        async with channel:
            await channel.send("ping")
            assert await channel.receive() == "PING"
    assert await process.result() == 1


async def test_an_exception_arrives_as_its_own_type(tree: None) -> None:
    with pytest.raises(ZeroDivisionError):
        await parallel.run(lambda: 1 / 0)


async def test_run_outside_init_says_what_is_missing() -> None:
    with pytest.raises(parallel.ParallelError, match="init"):
        await parallel.run(os.getpid)
