"""Wide: 100 children at once.

To show that all are there at the same time, each child reports on a channel to the root's hub and
waits for the word to go on, which is broadcast when the last one has come.
"""

import os
import sys
import time

import trio

import parallel

CHILDREN = 100


async def child(number: int, channel: parallel.Channel[int, str]) -> int:
    """Report, wait for the word, work."""
    async with channel:
        await channel.send(os.getpid())
        assert await channel.receive() == "go"
    return number * number


async def main() -> None:
    squares: dict[int, int] = {}

    async def call(number: int, channel: parallel.Channel[int, str]) -> None:
        async with channel:
            squares[number] = await parallel.run(child, number, channel, where=parallel.round_robin)

    start = time.perf_counter()
    async with (
        parallel.init(cluster=parallel.Cluster(sys.argv[1:])),
        parallel.open_hub() as hub,
        trio.open_nursery() as nursery,
    ):
        for number in range(CHILDREN):
            nursery.start_soon(call, number, hub.open_channel())
        pids: set[int] = set()
        async for _, pid in hub:
            pids.add(pid)
            if len(pids) == CHILDREN:
                await hub.broadcast("go")
    seconds = time.perf_counter() - start
    assert squares == {number: number * number for number in range(CHILDREN)}
    print(f"{len(pids)} processes at once, started, met and gone: {seconds:.2f} s")


trio.run(main)
