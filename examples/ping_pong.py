"""Ping-pong: a process that answers messages, and its caller.

Start here. `upper` runs in a process of its own: each message that arrives on its hub is answered
to the client that sent it, and the loop ends when nobody is left who could send one. `main` talks
with it through a channel, and asks for its result when it is gone.
"""

import sys
import time

import trio

import parallel

ROUNDS = 2_000


async def upper(hub: parallel.Hub[str, str]) -> int:
    """Answer every message in capitals; how many there were."""
    served = 0
    async for client, message in hub:
        await hub.send(client, message.upper())
        served += 1
    return served


async def main() -> None:
    async with parallel.init(cluster=parallel.Cluster(sys.argv[1:])):
        async with parallel.spawn(upper, where=parallel.least_loaded) as (channel, process):
            start = time.perf_counter()
            for _ in range(ROUNDS):
                await channel.send("ping")
                assert await channel.receive() == "PING"
            microseconds = (time.perf_counter() - start) / ROUNDS * 1e6
        assert await process.result() == ROUNDS
        print(f"{ROUNDS:,} times ping and pong with process {process.pid} ", end="")
        print(f"on {process.host}: {microseconds:.0f} us each")


trio.run(main)
