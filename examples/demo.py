"""Demo: ping-pong, a broadcast and a cascade over three hosts, with something to look at.

The hosts are this machine ("root") and two that are reached by ssh: the library's own test hosts,
which are on this machine, too, so that nothing has to be set up. On a terminal a line shows how far
each part is; elsewhere only what came out of it is printed. `make demo` runs this. The other
examples show one thing each, and are shorter.
"""

import sys
import time
from collections import Counter

import trio

import parallel
from parallel.testing import open_hosts

HOSTS = ("root", "host0", "host1")
PINGS = 1_000
SUBSCRIBERS = 30
MESSAGES = 300
NEWS = b"." * 8_000
DEPTH = 30


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
    times: list[str] = []
    for host in HOSTS:
        start = time.perf_counter()
        async with parallel.spawn(pong, where=host) as (channel, process):
            for number in range(PINGS):
                await channel.send("ping")
                assert await channel.receive() == "pong"
                if number % 20 == 0:
                    show(f"ping-pong  [{bar(number, PINGS)}] process {process.pid} on {host}")
        assert await process.result() == PINGS
        times.append(f"{1e6 * (time.perf_counter() - start) / PINGS:.0f} us with {host}")
    report("ping-pong", f"{PINGS:,} round trips each: {', '.join(times)}")


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

    def levels(host: str) -> str:
        seen = [progress[client] for client in progress if client.host == host]
        return f"{host} [{''.join(' .:-=+*#@'[8 * number // MESSAGES] for number in seen)}]"

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
                control, process = await parallel.spawn(
                    subscribe, news, nap, nursery=nursery, where=HOSTS[number % len(HOSTS)]
                )
            control.close()
            subscribers.append(process)
            show(f"broadcast  {number + 1} subscribers")
        await all_here.wait()
        start = time.perf_counter()
        for number in range(MESSAGES):
            await hub.broadcast((number, NEWS), slow="drop")
            show(f"broadcast  {' '.join(map(levels, HOSTS))} {number:3} messages")
            await trio.sleep(0.002)
        await hub.broadcast((MESSAGES, b""))
        seconds = time.perf_counter() - start
        counts = [await process.result() for process in subscribers]
    assert counts[0] < MESSAGES
    text = (
        f"{MESSAGES} messages to {SUBSCRIBERS} processes on {len(HOSTS)} hosts in {seconds:.2f} s; "
    )
    report("broadcast", f"{text}a slow one got {counts[0]} and held up nobody")


# Cascade: each process runs the next on the next host; then the outermost is cancelled.


async def descend(level: int, reports: parallel.Channel[int, None]) -> None:
    """Say that we are there, and run the next level; the innermost one waits for ever."""
    async with reports:
        await reports.send(level)
        if level == DEPTH:
            await trio.sleep_forever()
        await parallel.run(descend, level + 1, reports, where=HOSTS[level % len(HOSTS)])


async def cascade() -> None:
    start = time.perf_counter()
    path = ""
    async with parallel.open_hub() as hub, trio.open_nursery() as nursery:
        with hub.open_channel() as reports:
            nursery.start_soon(parallel.run, descend, 1, reports)  # noqa: ASYNC111
            async for client, level in hub:
                path += client.host[-1]  # t, 0 or 1
                show(f"cascade    [{path:.<{DEPTH}}] process {client.pid} on {client.host}")
                if level == DEPTH:
                    break
        seconds = time.perf_counter() - start
        assert await running() == DEPTH
        start = time.perf_counter()
        nursery.cancel_scope.cancel()
    assert await running() == 0
    gone = time.perf_counter() - start
    text = f"{DEPTH} processes, each inside one on another host, in {seconds:.2f} s; "
    report("cascade", f"{text}cancelled and gone in {gone:.2f} s")


async def running() -> int:
    """How many processes of ours there are now."""
    names = [info.name for info in await parallel.processes()]
    return names.count("descend")


async def main() -> None:
    start = time.perf_counter()
    show("hosts      starting")
    async with open_hosts(2) as hosts, parallel.init(cluster=parallel.Cluster(hosts)):
        text = ", ".join(f"{host.name} ({host.slots} slots)" for host in parallel.hosts())
        report("hosts", f"{text}, ready in {time.perf_counter() - start:.2f} s")
        await ping_pong()
        await broadcast()
        await cascade()


try:
    trio.run(main)
except* KeyboardInterrupt:
    sys.exit("\ninterrupted")
