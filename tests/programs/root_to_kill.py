"""A root with helpers of its own that grows a cascade and waits for its end.

    python root_to_kill.py DEPTH SEED

Says `helper PID` for each helper, `init`, and then each worker says `level` where it begins.
"""

from __future__ import annotations

import os
import sys

import trio

import parallel
from tests.programs import growth

GRACE = 0.5


def hold_no_output() -> None:
    """Whoever reads the tree's output shall see its end, not that of the helpers."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(null, stream)


async def main(depth: int, seed: str) -> None:
    os.write(1, b"init\n")
    async with parallel.init(grace=GRACE):
        helpers = [
            growth.fork_helper(hold_no_output),
            growth.start_multiprocessing_helper(hold_no_output),
        ]
        for pid in helpers:
            os.write(1, f"helper {pid}\n".encode())
        await parallel.run(growth.nest, depth, seed, True)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), sys.argv[2])
