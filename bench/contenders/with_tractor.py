"""tractor: actors, reached over TCP."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import tractor  # type: ignore[import-not-found, import-untyped, unused-ignore]
import trio

from bench.cpus import Cpu, Layout, ends, pin
from bench.trio_turns import arriving
from bench.turns import Turns


def process(turns: Turns) -> None:
    """Run a no-op in a fresh actor; until its nursery has seen it exit."""
    trio.run(run_nothings, turns)


def roundtrip(turns: Turns, layout: Layout) -> None:
    """Send a small string over a context's stream and receive it back."""
    trio.run(call, turns, *ends(layout))


async def run_nothings(turns: Turns) -> None:
    """Time fresh actors, below one root actor."""
    async with tractor.open_root_actor(loglevel="error"):
        async for operations in arriving(turns):
            turns.report([await run_nothing(f"nothing-{number}") for number in range(operations)])


async def run_nothing(name: str) -> float:
    """Let a fresh actor do nothing; return how long it took until it was gone."""
    start = time.perf_counter()
    async with tractor.open_nursery() as nursery:
        await nursery.run_in_actor(nothing, name=name)
    return time.perf_counter() - start


async def nothing() -> None:
    """Do nothing."""


async def call(turns: Turns, cpu: Cpu, actors_cpu: Cpu) -> None:
    """Time round trips."""
    async with streaming(actors_cpu) as stream:
        pin(cpu)
        async for operations in arriving(turns):
            start = time.perf_counter()
            for _ in range(operations):
                await stream.send("ping")
                await stream.receive()
            turns.report([(time.perf_counter() - start) / operations])


@asynccontextmanager
async def streaming(cpu: Cpu) -> AsyncIterator[Any]:
    """Open a stream to an actor that sends everything back."""
    async with tractor.open_nursery(loglevel="error") as nursery:
        portal = await nursery.start_actor("echo", enable_modules=[__name__])
        async with (
            portal.open_context(echo, cpu=cpu) as (context, _),
            context.open_stream() as stream,
        ):
            yield stream
        await portal.cancel_actor()


@tractor.context  # type: ignore[untyped-decorator, unused-ignore]
async def echo(ctx: Any, cpu: Cpu) -> None:
    """Send everything back."""
    pin(cpu)
    await ctx.started()
    async with ctx.open_stream() as stream:
        async for message in stream:
            await stream.send(message)
