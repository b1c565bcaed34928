"""A cascade over several hosts whose processes talk, print and have started programs.

Light on imports: every worker loads it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import NamedTuple

import trio

import parallel
from tests.programs import growth

PAUSE = 0.002
"""Seconds between two messages of a pair: all pairs together shall not take a whole processor."""


class Level(NamedTuple):
    """A process of the cascade says that it is there; `below` is where the next one will be."""

    host: str
    pid: int
    below: str | None


async def spread(
    hub: parallel.Hub[int, int],
    plan: Sequence[str],
    seed: str,
    report: parallel.Channel[Level, object],
) -> None:
    """Be one level of the cascade, whose others run on the hosts in `plan`; never returns."""
    rng = random.Random(f"{seed} {len(plan)}")
    if rng.random() < 0.7:
        rng.choice(growth.STARTERS)()
    here = parallel.current_host()
    await report.send(Level(here, os.getpid(), plan[0] if plan else None))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(echo, hub)
        nursery.start_soon(print_for_ever, f"{here} has {len(plan)} below")
        if plan:
            async with parallel.spawn(spread, plan[1:], seed, report, where=plan[0]) as (
                channel,
                _,
            ):
                await chat(channel)
        else:
            await parallel.run(rng.choices(growth.LEAVES, (3, 3, 3, 3, 1))[0])


async def echo(hub: parallel.Hub[int, int]) -> None:
    """Until nobody speaks any more, or nobody listens."""
    async for client, number in hub:
        try:
            await hub.send(client, number)
        except trio.BrokenResourceError:
            continue  # there may be others


async def chat(channel: parallel.Channel[int, int]) -> None:
    """Ask and be answered for ever."""
    number = 0
    while True:
        await channel.send(number)
        assert await channel.receive() == number
        number += 1
        await trio.sleep(PAUSE)


async def print_for_ever(line: str) -> None:
    """Something for the root's terminal."""
    while True:
        print(line)
        await trio.sleep(5 * PAUSE)
