"""A farm that somebody interrupts: `interrupted_farm.py SCENE`. It says when it is at work."""

from __future__ import annotations

import sys
import time

import trio

import parallel


def work(x: int) -> int:
    if x == 5:
        print("ready", flush=True)
        time.sleep(1000)
    return x


def forget(x: int) -> None:
    pass


async def in_map(farm: parallel.Farm) -> None:
    await farm.map(work, range(6))


async def in_endless_map(farm: parallel.Farm) -> None:
    """Always in the midst of the farm's own code."""
    print("ready", flush=True)
    numbers = iter(int, 1)
    async for _ in farm.imap_unordered(forget, numbers):
        pass


async def in_submit(farm: parallel.Farm) -> None:
    algorithm = farm.algorithm(work, target=3)
    for x in range(6, 1000):
        await algorithm.submit(5 if x == 7 else x)
        if x == 7:
            async for _ in farm.results():
                pass


async def main(scene: str) -> None:
    async with parallel.init(grace=30.0), parallel.open_farm(workers=2) as farm:
        await globals()[scene](farm)


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
