"""Monte Carlo: pi, by throwing darts at a square. The same throws wherever the tasks run.

Each task has a seed of its own, so that neither the number of workers nor the order in which they
are done changes the result. `map_fold_ac` adds two counts at a time, on the workers.
"""

import math
import operator
import random
from functools import partial

import trio
from _where import open_farm, parser

KNOWN = {(40, 10_000): 314_272}


def hits(darts: int, seed: int) -> int:
    """How many of so many darts land in the quarter of the circle."""
    throw = random.Random(seed).random
    return sum(throw() ** 2 + throw() ** 2 < 1 for _ in range(darts))


async def main(on: str, tasks: int, darts: int) -> None:
    async with open_farm(on) as farm:
        found = await farm.map_fold_ac(partial(hits, darts), operator.add, 0, range(tasks))
    assert found == KNOWN.get((tasks, darts), found)
    estimate = 4 * found / (tasks * darts)
    error = 4 * math.sqrt(math.pi / 4 * (1 - math.pi / 4) / (tasks * darts))
    assert abs(estimate - math.pi) < 5 * error
    print(f"{tasks * darts:,} darts: pi = {estimate:.4f}, give or take {error:.4f}")


line = parser(__doc__)
line.add_argument("--tasks", type=int, default=40)
line.add_argument("--darts", type=int, default=10_000, help="of each task")
options = line.parse_args()
trio.run(main, options.on, options.tasks, options.darts)
