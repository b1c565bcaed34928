"""Pieces: what the parts of a round trip on a channel cost by themselves. `python -m bench.pieces`.

All in one process, so that none of it waits: what is left of a round trip is trio's waiting and the
kernel's switching from one process to the other. docs/profiles.md reads the figures.
"""

import statistics
import time
from collections.abc import Awaitable, Callable

import trio
from rich.console import Console

import parallel
from parallel._channel import Pace
from parallel._endpoint import Endpoint, socket_pair
from parallel._wire.codec import pack, unpack
from parallel._wire.frames import FrameReader, Kind, encode

ROUNDS, TIMES = 15, 2000
MESSAGE = "ping"


def timed(action: Callable[[], object]) -> float:
    """Return the microseconds that an action takes, the loop around it included."""
    costs = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(TIMES):
            action()
        costs.append((time.perf_counter() - start) / TIMES * 1e6)
    return statistics.median(costs)


async def timed_async(action: Callable[[], Awaitable[object]]) -> float:
    """Return the microseconds that an async action takes."""
    costs = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(TIMES):
            await action()
        costs.append((time.perf_counter() - start) / TIMES * 1e6)
    return statistics.median(costs)


async def measure() -> dict[str, float]:
    """Return the microseconds of each piece, once."""
    here, there = socket_pair()
    with here, there:
        frame = encode(Kind.MESSAGE, pack(MESSAGE).body)
        reader, endpoint = FrameReader(), Endpoint(there)

        def bare() -> None:
            here.send(frame)
            there.recv(4096)

        def ours() -> None:
            here.send(frame)
            endpoint.read(reader.descriptors)

        def cut() -> None:
            reader.feed(frame)
            reader.next_small()

        async def wait() -> None:
            await trio.lowlevel.wait_readable(there)

        plain = timed(bare)
        pieces = {
            "send and recv": plain,
            "recvmsg, for descriptors, in place of recv": timed(ours) - plain,
            "pickle": timed(lambda: pack(MESSAGE)),
            "a frame made": timed(lambda: encode(Kind.MESSAGE, frame)),
            "a frame cut out": timed(cut),
            "unpickle": timed(lambda: unpack(pack(MESSAGE).body)) - timed(lambda: pack(MESSAGE)),
            "a checkpoint if cancelled": await timed_async(Pace().step),
        }
        here.send(frame)
        pieces["trio: wait for what is there"] = await timed_async(wait)
    return pieces


async def bare_round_trip() -> float:
    """Return the microseconds of a bare trio loop's round trip within this process."""
    here, there = socket_pair()
    with here, there:

        async def around() -> None:
            for one, other in ((here, there), (there, here)):
                one.send(b"ping")
                await trio.lowlevel.wait_readable(other)
                other.recv(4096)

        return await timed_async(around)


async def round_trip() -> float:
    """Return the microseconds of a round trip whose two ends are in this process."""
    async with parallel.init(spares=0), parallel.open_hub() as hub:
        with hub.open_channel() as channel:
            messages = aiter(hub)

            async def around() -> None:
                await channel.send(MESSAGE)
                client, message = await anext(messages)
                await hub.send(client, message)
                await channel.receive()

            return await timed_async(around)


def main() -> None:
    """Measure and print."""
    console = Console(highlight=False)
    for name, cost in trio.run(measure).items():
        console.print(f"{cost:7.2f} us  {name}")
    console.print(f"{trio.run(bare_round_trip):7.2f} us  a bare round trip within one process")
    console.print(f"{trio.run(round_trip):7.2f} us  a round trip on a channel within one process")


if __name__ == "__main__":
    main()
