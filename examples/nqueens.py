"""N queens: a real search, split over processes.

In how many ways can N queens stand on a board of N x N without one attacking another? Each process
gets one place for the first two queens and searches on from there; as many run at a time as the
hosts have slots. `count` is an ordinary sync function that knows nothing of all this.
"""

import sys
import time
from itertools import product

import trio

import parallel

KNOWN = {8: 92, 10: 724, 12: 14_200}


def count(n: int, columns: int = 0, left: int = 0, right: int = 0) -> int:
    """Ways to fill the rows that are left; the bits say which places of this row are attacked."""
    free = ~(columns | left | right) & ((1 << n) - 1)
    found = int(columns == (1 << n) - 1)
    while free:
        place = free & -free
        free ^= place
        found += count(n, columns | place, (left | place) << 1, (right | place) >> 1)
    return found


async def count_in_processes(n: int) -> int:
    """The same number, from a process for each place of the first two queens."""
    found: list[int] = []
    slots = trio.CapacityLimiter(max(1, sum(host.slots for host in parallel.hosts())))

    async def search(first: int, second: int) -> None:
        async with slots:
            left, right = (first << 1 | second) << 1, (first >> 1 | second) >> 1
            found.append(
                await parallel.run(
                    count, n, first | second, left, right, where=parallel.least_loaded
                )
            )

    async with trio.open_nursery() as nursery:
        for a, b in product(range(n), repeat=2):
            if abs(a - b) > 1:
                nursery.start_soon(search, 1 << a, 1 << b)
    return sum(found)


async def main() -> None:
    async with parallel.init(cluster=parallel.Cluster(sys.argv[1:])):
        for n, known in KNOWN.items():
            start = time.perf_counter()
            found = await count_in_processes(n)
            assert found == known
            print(f"{n:2} queens: {found:6,} ways, {time.perf_counter() - start:.2f} s")


trio.run(main)
