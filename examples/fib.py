"""Fibonacci: the naive recursion, spread over processes.

Above the cut-off both halves of a call are processes, side by side, and those do the same; below it
a process does the rest by itself. The code is what one would write with tasks alone: only
`parallel.run` says where it happens.
"""

import sys
import time

import trio

import parallel

N = 33
CUT_OFF = 28


def fib(n: int) -> int:
    """The recursion as it is in every book."""
    return n if n < 2 else fib(n - 1) + fib(n - 2)


async def fib_in_processes(n: int) -> tuple[int, int]:
    """The same number, and how many processes it took."""
    if n <= CUT_OFF:
        return fib(n), 1
    halves: list[tuple[int, int]] = []

    async def add_half(smaller: int) -> None:
        halves.append(await parallel.run(fib_in_processes, smaller, where=parallel.least_loaded))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(add_half, n - 1)
        nursery.start_soon(add_half, n - 2)
    (left, left_processes), (right, right_processes) = halves
    return left + right, left_processes + right_processes + 1


async def main() -> None:
    async with parallel.init(cluster=parallel.Cluster(sys.argv[1:])):
        start = time.perf_counter()
        number, processes = await parallel.run(fib_in_processes, N)
        seconds = time.perf_counter() - start
    start = time.perf_counter()
    assert number == fib(N) == 3_524_578
    alone = time.perf_counter() - start
    print(f"fib({N}) = {number:,}: {seconds:.2f} s in {processes} processes, {alone:.2f} s in one")


trio.run(main)
