"""Workers: what our own side runs in its processes, which import no more than that takes."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import trio

import parallel
from bench.cpus import Cpu, pin

if TYPE_CHECKING:
    from bench.conversations import AnyChannel


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
    """Do as `count`, from a CPU of the caller's choice."""
    pin(cpu)
    await count(hub)


async def count(hub: parallel.Hub[str | None, int]) -> None:
    """Answer every None with how many messages came before it."""
    messages = 0
    async for client, message in hub:
        if message is None:
            await hub.send(client, messages)
            messages = 0
        else:
            messages += 1


async def weigh(hub: parallel.Hub[Any, int]) -> None:
    """Answer every array with its size."""
    async for client, array in hub:
        await hub.send(client, array.nbytes)


async def converse(
    hub: parallel.Hub[int, list[float]],
    answer: Callable[[parallel.Hub[Any, Any]], Awaitable[None]],
    ask: Callable[[AnyChannel, int], Awaitable[list[float]]],
    where: str,
) -> None:
    """Talk to another host, as often as one is told; answer with what that took."""
    async with parallel.spawn(answer, where=where) as (channel, _):
        async for client, operations in hub:
            await hub.send(client, await ask(channel, operations))
