"""What runs on a host at the far end of a bad link, and here what talks with it."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import trio

import parallel
from tests.programs import growth


async def echo(hub: parallel.Hub[Any, Any]) -> int:
    """Answer everybody, to much with little; returns how often."""
    served = 0
    async for client, message in hub:
        await hub.send(client, digest(message) if isinstance(message, bytes) else message)
        served += 1
    return served


def digest(message: bytes) -> str:
    """What one can tell it by."""
    return hashlib.sha256(message).hexdigest()


async def publish(hub: parallel.Hub[Any, Any]) -> None:
    """When told something, tell it to all."""
    async for _, message in hub:
        await hub.broadcast(message)


async def stay_and_have(where: str) -> None:
    """For ever, with programs, and a process elsewhere that has some too."""
    growth.start_program_in_own_session()
    growth.start_daemon()
    async with trio.open_nursery() as nursery:
        if where:
            nursery.start_soon(lambda: parallel.run(stay_and_have, "", where=where))
        await trio.sleep_forever()


async def where_am_i(where: str) -> list[str]:
    """The host of this process and of one that it starts."""
    here = parallel.current_host()
    return [here, await parallel.run(parallel.current_host, where=where)]


async def use_all_of_it(host: str) -> None:
    """Runs, nested runs, channels, a hub with clients on both sides, and a large message."""
    assert await parallel.run(where_am_i, "root", where=host) == [host, "root"]
    async with parallel.spawn(echo, where=host) as (channel, process):
        for number in range(5):
            await channel.send(number)
        assert [await channel.receive() for _ in range(5)] == list(range(5))
        large = os.urandom(1 << 20)
        await channel.send(large)
        assert await channel.receive() == digest(large)
    assert await process.result() == 6
    async with parallel.spawn(publish) as (channel, _):
        assert await parallel.run(take, channel, where=host) == "news"
        assert await channel.receive() == "news"


async def take(channel: parallel.Channel[Any, Any]) -> Any:
    """Ask for it, and be told."""
    await channel.send("news")
    async with channel:
        return await channel.receive()


async def subscribe(channel: parallel.Channel[str, str]) -> str:
    """Be there, and be told something."""
    async with channel:
        await channel.send("here")
        return f"{parallel.current_host()} heard {await channel.receive()}"
