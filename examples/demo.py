"""Demo: ping-pong, a broadcast and a cascade, with something to look at.

On a terminal a line shows how far each part is; elsewhere only what came out of it is printed.
`make demo` runs this. The other examples show one thing each, and are shorter.
"""

import sys
import time
from collections import Counter

import trio

import parallel

PINGS = 10_000
SUBSCRIBERS = 30
MESSAGES = 300
NEWS = b"." * 4_000
DEPTH = 100


def show(text: str) -> None:
    """Write over the terminal's line; without a terminal do nothing."""
    if sys.stdout.isatty():
        print(f"\r\x1b[K{text}", end="", flush=True)


def report(part: str, text: str) -> None:
    """Say what came out of a part."""
    show("")
    print(f"{part:<11}{text}", flush=True)


def bar(done: int, total: int, width: int = 40) -> str:
    return "#" * (done * width // total) + "." * (width - done * width // total)


# Ping-pong: a process that answers.


async def pong(hub: parallel.Hub[str, str]) -> int:
    """Answer every message; how many there were."""
    served = 0
    async for client, message in hub:
        await hub.send(client, message.replace("i", "o"))
        served += 1
    return served


async def ping_pong() -> None:
    start = time.perf_counter()
    async with parallel.spawn(pong) as (channel, process):
        for number in range(PINGS):
            await channel.send("ping")
            assert await channel.receive() == "pong"
            if number % 200 == 0:
                show(f"ping-pong  [{bar(number, PINGS)}] with process {process.pid}")
    assert await process.result() == PINGS
    each = (time.perf_counter() - start) / PINGS
    report("ping-pong", f"{PINGS:,} round trips, {1e6 * each:.0f} us each")


# Broadcast: one publisher, many subscribers; the first one is slow, and misses some.

News = parallel.Channel[int, tuple[int, bytes]]


async def subscribe(_: parallel.Hub[None, None], news: News, nap: float) -> int:
    """Read until the last message, and tell how far we are; how many messages came."""
    count = 0
    async with news:
        await news.send(0)
        async for number, _text in news:
            if number == MESSAGES:
                break
            count += 1
            await news.send(number + 1)
            await trio.sleep(nap)
    return count


async def broadcast() -> None:
    progress: Counter[parallel.Client] = Counter()
    all_here = trio.Event()

    async def follow(hub: parallel.Hub[int, tuple[int, bytes]]) -> None:
        async for client, number in hub:
            progress[client] = number
            if len(progress) == SUBSCRIBERS:
                all_here.set()

    async with parallel.open_hub() as hub, trio.open_nursery() as nursery:
        nursery.start_soon(follow, hub)
        subscribers: list[parallel.Process[int]] = []
        for number in range(SUBSCRIBERS):
            nap = 0.02 if number == 0 else 0.0
            with hub.open_channel() as news:
                control, process = await parallel.spawn(subscribe, news, nap, nursery=nursery)
            control.close()
            subscribers.append(process)
            show(f"broadcast  {number + 1} subscribers")
        await all_here.wait()
        start = time.perf_counter()
        for number in range(MESSAGES):
            await hub.broadcast((number, NEWS), slow="drop")
            levels = [" .:-=+*#@"[8 * seen // MESSAGES] for seen in progress.values()]
            show(f"broadcast  [{''.join(levels)}] {number:3} messages")
            await trio.sleep(0.002)
        await hub.broadcast((MESSAGES, b""))
        seconds = time.perf_counter() - start
        counts = [await process.result() for process in subscribers]
    assert counts[0] < MESSAGES
    text = f"{MESSAGES} messages to {SUBSCRIBERS} processes in {seconds:.2f} s; "
    report("broadcast", f"{text}a slow one got {counts[0]} and held up nobody")


# Cascade: each process runs the next; then the outermost is cancelled.


async def descend(levels: int, reports: parallel.Channel[int, None]) -> None:
    """Say that we are there, and run the next level; the innermost one waits for ever."""
    async with reports:
        await reports.send(levels)
        if levels == 1:
            await trio.sleep_forever()
        await parallel.run(descend, levels - 1, reports)


async def cascade() -> None:
    start = time.perf_counter()
    async with parallel.open_hub() as hub, trio.open_nursery() as nursery:
        with hub.open_channel() as reports:
            nursery.start_soon(parallel.run, descend, DEPTH, reports)  # noqa: ASYNC111
            async for client, levels in hub:
                depth = DEPTH - levels + 1
                show(f"cascade    [{bar(depth, DEPTH)}] process {client.pid}")
                if depth == DEPTH:
                    break
        seconds = time.perf_counter() - start
        assert await running() == DEPTH
        start = time.perf_counter()
        nursery.cancel_scope.cancel()
    assert await running() == 0
    gone = time.perf_counter() - start
    text = f"{DEPTH} processes, one inside the other, in {seconds:.2f} s; "
    report("cascade", f"{text}cancelled and gone in {gone:.2f} s")


async def running() -> int:
    """How many processes there are now, without this one."""
    return sum(1 for _ in await parallel.processes()) - 1


async def main() -> None:
    async with parallel.init():
        await ping_pong()
        await broadcast()
        await cascade()


trio.run(main)
