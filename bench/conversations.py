"""Conversations: what the asking side of a channel does and times; the caller or another worker."""

import time
from typing import Any

from bench import payload
from parallel import Channel

AnyChannel = Channel[Any, Any]


async def pings(channel: AnyChannel, count: int) -> list[float]:
    """Send a small string and await it back, over and over; return what one round trip took."""
    start = time.perf_counter()
    for _ in range(count):
        await channel.send("ping")
        await channel.receive()
    return [(time.perf_counter() - start) / count]


async def one_way(channel: AnyChannel, count: int) -> list[float]:
    """Send small strings until their count comes back; return what one took."""
    start = time.perf_counter()
    for _ in range(count):
        await channel.send("ping")
    await channel.send(None)
    assert await channel.receive() == count
    return [(time.perf_counter() - start) / count]


async def arrays(channel: AnyChannel, count: int) -> list[float]:
    """Send an array until its size comes back, over and over; return what each took."""
    sent = payload.array()
    costs = []
    for _ in range(count):
        start = time.perf_counter()
        await channel.send(sent)
        assert await channel.receive() == payload.SIZE
        costs.append(time.perf_counter() - start)
    return costs
