"""Broadcast: one hub, many subscribers, a slow one among them.

Each message is serialised once and goes to everybody. What about a subscriber that does not keep
up? That is for the publisher to say: wait for it, drop what it has no room for, or disconnect it.
Here are the first two. Whichever it is, what arrives arrives in order, and no memory grows.
"""

import sys
import time
from typing import Literal

import trio

import parallel

SUBSCRIBERS = 20
MESSAGES = 200
PACE = 0.0005
NAP = 0.02
NEWS = b"." * 16_000
LAST = -1

Tick = tuple[int, bytes]
Ticks = parallel.Channel[str, Tick]


async def subscribe(_: parallel.Hub[None, None], ticks: Ticks, nap: float) -> int:
    """Read until the last message, with a nap after each; how many came."""
    numbers: list[int] = []
    async with ticks:
        await ticks.send("I am here")
        async for number, _news in ticks:
            if number == LAST:
                break
            numbers.append(number)
            await trio.sleep(nap)
    assert numbers == sorted(numbers)
    return len(numbers)


async def publish(slow: Literal["wait", "drop"]) -> None:
    """Start the subscribers, broadcast to them, and look at what came."""
    async with parallel.open_hub() as hub, trio.open_nursery() as nursery:
        subscribers: list[parallel.Process[int]] = []
        for number in range(SUBSCRIBERS):
            nap = NAP if number == 0 else 0.0
            with hub.open_channel() as ticks:  # ours; the subscriber gets one of its own
                control, process = await parallel.spawn(
                    subscribe, ticks, nap, nursery=nursery, where=parallel.round_robin
                )
            control.close()
            subscribers.append(process)
        here: set[parallel.Client] = set()
        async for client, _ in hub:
            here.add(client)
            if len(here) == SUBSCRIBERS:
                break

        start = time.perf_counter()
        messages = sent = 0
        # Where messages may be dropped: on until one was, however slow this machine is.
        while messages < MESSAGES or (slow == "drop" and sent == messages * SUBSCRIBERS):
            sent += await hub.broadcast((messages, NEWS), slow=slow)
            messages += 1
            await trio.sleep(PACE)
        seconds = time.perf_counter() - start
        await hub.broadcast((LAST, b""))
        slowest, *others = [await process.result() for process in subscribers]

    assert slowest + sum(others) == sent
    if slow == "wait":
        assert {slowest, *others} == {messages}
    else:
        assert slowest < messages
    print(f"{slow}: {messages:,} messages in {seconds:.2f} s; the slow subscriber got ", end="")
    print(f"{slowest:,}, the {len(others)} others {min(others):,} to {max(others):,}")


async def main() -> None:
    async with parallel.init(cluster=parallel.Cluster(sys.argv[1:])):
        await publish(slow="wait")
        await publish(slow="drop")


trio.run(main)
