"""Tasks for farms and pools: no-ops, three kernels that compute, run times to sleep."""

import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle, islice, pairwise, permutations
from typing import Any

Task = tuple[Callable[[Any], Any], list[Any]]
"""A function, and what it is to be called with."""

WORKERS = 2
PROVERS = 20
OBLIGATIONS = 320
ON_ONE = 40.0  # seconds of sleep in all


def nothing(x: int) -> int:
    return x


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def timed_nap(seconds: float) -> float:
    start = time.perf_counter()
    time.sleep(seconds)
    return time.perf_counter() - start


def make(kernel: str, grain: str, count: int) -> Task:
    """So many tasks of a kernel: "coarse" ones of 10 ms and more, or "fine" ones of 0.1 ms."""
    fn, xs = KERNELS[kernel, grain]()
    return fn, list(islice(cycle(xs), count))


# N queens: the ways to fill a board whose first rows are filled.


def queens(size: int, rows: tuple[int, ...]) -> int:
    columns = left = right = 0
    for place in rows:
        bit = 1 << place
        if (columns | left | right) & bit:
            return 0
        columns, left, right = columns | bit, (left | bit) << 1, (right | bit) >> 1
    return ways(size, columns, left, right)


def ways(size: int, columns: int, left: int, right: int) -> int:
    free = ~(columns | left | right) & ((1 << size) - 1)
    found = int(columns == (1 << size) - 1)
    while free:
        place = free & -free
        free ^= place
        found += ways(size, columns | place, (left | place) << 1, (right | place) >> 1)
    return found


def boards(size: int, depth: int) -> Task:
    rows = [
        rows
        for rows in permutations(range(size), depth)
        if all(abs(a - b) > 1 for a, b in pairwise(rows))
    ]
    random.Random(1).shuffle(rows)
    return partial(queens, size), rows


# The Mandelbrot set: a row of it.


def mandelbrot(width: int, y: float) -> bytes:
    return bytes(escape(complex(3 * x / width - 2.25, y)) for x in range(width))


def escape(c: complex) -> int:
    z = c
    for step in range(1, 100):
        if z.real * z.real + z.imag * z.imag > 4:
            return step
        z = z * z + c
    return 0


def lines(width: int) -> Task:
    return partial(mandelbrot, width), [2.5 * row / 101 - 1.25 for row in range(101)]


# The product of matrices of big integers: some rows of it.


def multiply(columns: list[list[int]], rows: list[list[int]]) -> list[list[int]]:
    return [
        [sum(x * y for x, y in zip(row, column, strict=True)) for column in columns] for row in rows
    ]


def parts(size: int, rows: int) -> Task:
    source = random.Random(1)
    matrix = [[source.getrandbits(512) for _ in range(size)] for _ in range(size)]
    return partial(multiply, matrix), [matrix[row : row + rows] for row in range(0, size, rows)]


KERNELS: dict[tuple[str, str], Callable[[], Task]] = {
    ("queens", "coarse"): partial(boards, 12, 1),
    ("queens", "fine"): partial(boards, 11, 3),
    ("mandelbrot", "coarse"): partial(lines, 3000),
    ("mandelbrot", "fine"): partial(lines, 24),
    ("matrix", "coarse"): partial(parts, 100, 3),
    ("matrix", "fine"): partial(parts, 14, 1),
}


# The provers' case: 80 conditions, 4 provers; most are done at once, some run into their limit.


def run_times() -> list[float]:
    """Seconds: log-normal, cut off at five times the mean, so many in all as `ON_ONE` says."""
    source = random.Random(2011)
    times = [source.lognormvariate(0, 2) for _ in range(OBLIGATIONS)]
    for _ in range(100):
        limit = 5 * sum(times) / len(times)
        times = [min(seconds, limit) for seconds in times]
    return [seconds * ON_ONE / sum(times) for seconds in times]


def without_overhead(times: list[float], workers: int) -> float:
    """Seconds until all are done where each goes to whoever is free first."""
    free_at = [0.0] * workers
    for seconds in times:
        free_at[free_at.index(min(free_at))] += seconds
    return max(free_at)


def measure() -> Iterator[str]:
    """How long the tasks of each kernel take."""
    for kernel, grain in KERNELS:
        fn, xs = make(kernel, grain, 100)
        start = time.perf_counter()
        for x in xs:
            fn(x)
        yield f"{kernel} {grain}: {(time.perf_counter() - start) * 10:.3f} ms each"


if __name__ == "__main__":
    print(*measure(), sep="\n")
