"""Echo server: 500 processes on one hub.

One worker serves. 100 client processes get a channel to it as an argument; each of them runs four
callers in processes below itself and hands the channel on to them, while it uses it as well. Every
copy is a connection of its own. The server never asks how many there will be: its loop ends when
the last channel has been closed.
"""

import sys
import time

import trio

import parallel

CLIENTS = 100
CALLERS = 4

Line = parallel.Channel[str, str]


async def echo(hub: parallel.Hub[str, str]) -> int:
    """Send every message back to where it came from; how many clients there were."""
    clients: set[parallel.Client] = set()
    async for client, message in hub:
        clients.add(client)
        await hub.send(client, message)
    return len(clients)


async def call(name: str, line: Line) -> int:
    """Ask once; how many processes did."""
    async with line:
        await line.send(f"I am {name}")
        assert await line.receive() == f"I am {name}"
    return 1


async def serve_a_client(name: str, line: Line) -> int:
    """Ask, then run the callers below, all at once; how many processes asked."""
    asked = [await call(name, line.clone())]

    async def run_caller(number: int) -> None:
        caller = f"{name}.{number}"
        asked.append(await parallel.run(call, caller, line, where=parallel.round_robin))

    async with line, trio.open_nursery() as nursery:
        for number in range(CALLERS):
            nursery.start_soon(run_caller, number)
    return sum(asked)


async def main() -> None:
    asked: list[int] = []

    async def run_client(number: int, line: Line) -> None:
        client = str(number)
        asked.append(await parallel.run(serve_a_client, client, line, where=parallel.round_robin))

    start = time.perf_counter()
    async with parallel.init(cluster=parallel.Cluster(sys.argv[1:])):
        async with parallel.spawn(echo, where=parallel.least_loaded) as (line, server):
            async with trio.open_nursery() as nursery:
                for number in range(CLIENTS):
                    nursery.start_soon(run_client, number, line)
        assert sum(asked) == await server.result() == CLIENTS * (1 + CALLERS)
    seconds = time.perf_counter() - start
    print(f"{sum(asked)} processes talked with one hub: {seconds:.2f} s")


trio.run(main)
