"""Ring: a token goes 1,000 times through processes that hold channels to each other's hubs.

A channel travels inside a message like any other value and arrives as a new connection to the same
hub. The root brings the neighbours together that way, lets the token go, and closes its own
channels. There is no message that says "stop": the station where the token's journey ends returns
and closes the channel to its neighbour, whose loop ends with that, and so on around the ring.
"""

from __future__ import annotations

import sys
import time
from typing import TypeAlias

import trio

import parallel

STATIONS = 10
HOPS = 1_000

Link: TypeAlias = "parallel.Channel[Link | int, str]"


async def station(hub: parallel.Hub[Link | int, str]) -> int:
    """Pass the token on to the neighbour until it has made its hops; how many it made from here."""
    passed = 0
    messages = aiter(hub)
    root, neighbour = await anext(messages)
    await hub.send(root, "ready")
    assert isinstance(neighbour, parallel.Channel)
    async with neighbour:
        async for _, token in messages:
            if token == 0:
                break
            assert isinstance(token, int)
            await neighbour.send(token - 1)
            passed += 1
    return passed


async def main() -> None:
    async with (
        parallel.init(cluster=parallel.Cluster(sys.argv[1:])),
        trio.open_nursery() as nursery,
    ):
        pairs = [
            await parallel.spawn(station, nursery=nursery, where=parallel.round_robin)
            for _ in range(STATIONS)
        ]
        links = [link for link, _ in pairs]
        for link, neighbour in zip(links, links[1:] + links[:1], strict=True):
            await link.send(neighbour)
            assert await link.receive() == "ready"  # order is kept per channel, not between two
        start = time.perf_counter()
        await links[0].send(HOPS)
        for link in links:
            link.close()
        passed = [await process.result() for _, process in pairs]
        microseconds = (time.perf_counter() - start) / HOPS * 1e6
        assert passed == [HOPS // STATIONS] * STATIONS
        print(f"{sum(passed):,} hops through {STATIONS} processes: {microseconds:.0f} us each")


trio.run(main)
