"""Workers: what our own side runs in its processes."""

import os

import trio

import parallel
from bench.cpus import Cpu, pin


async def descend(depth: int) -> int:
    """Run the levels below; return how many there are, this one included."""
    return 1 + (await parallel.run(descend, depth - 1) if depth > 1 else 0)


async def descend_and_wait(depth: int, fifo: str, above: tuple[int, ...] = ()) -> None:
    """Run the levels below; the deepest writes every level's pid to a FIFO, then waits."""
    pids = (*above, os.getpid())
    if depth > 1:
        await parallel.run(descend_and_wait, depth - 1, fifo, pids)
    else:
        with open(fifo, "w") as top:
            top.write(" ".join(map(str, pids)))
        await trio.sleep_forever()


async def echo(hub: parallel.Hub[object, object]) -> None:
    """Send everything back."""
    async for client, message in hub:
        await hub.send(client, message)


async def echo_on(hub: parallel.Hub[object, object], cpu: Cpu) -> None:
    """Send everything back, from a CPU of the caller's choice."""
    pin(cpu)
    await echo(hub)


async def count_on(hub: parallel.Hub[str | None, int], cpu: Cpu) -> None:
    """Answer every None with how many messages came before it; from that CPU."""
    pin(cpu)
    messages = 0
    async for client, message in hub:
        if message is None:
            await hub.send(client, messages)
            messages = 0
        else:
            messages += 1
