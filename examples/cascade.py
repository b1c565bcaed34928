"""Cascade: processes that start processes that start processes.

`nest` asks for the next level from within a worker, with the same `run` that the root uses. Each
level waits for the one below; whoever dies or is cancelled takes everything below along.
"""

import sys
import time

import trio

import parallel


async def nest(levels: int) -> int:
    """Go that many processes deep; the depth that comes back."""
    if levels == 1:
        return 1
    return 1 + await parallel.run(nest, levels - 1, where=parallel.random)


async def main() -> None:
    async with parallel.init(cluster=parallel.Cluster(sys.argv[1:])):
        for levels in (1, 2, 10, 100):
            start = time.perf_counter()
            depth = await parallel.run(nest, levels, where=parallel.random)
            assert depth == levels
            seconds = time.perf_counter() - start
            print(f"{depth:3} processes, one inside the other: {1e3 * seconds:4.0f} ms")


trio.run(main)
