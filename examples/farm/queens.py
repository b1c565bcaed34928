"""N queens: a search whose tasks make new ones. Functory's first example.

In how many ways can N queens stand on a board of N x N without one attacking another? A task is a
board whose first rows are filled. Near the top its result are the boards that follow, and `master`
makes tasks of them; farther down it is the number of ways. The second half of a task, here its
depth, stays with the master.
"""

import time
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import trio
from _where import open_farm, parser

KNOWN = {6: 4, 8: 92, 9: 352, 10: 724, 11: 2_680, 12: 14_200, 13: 73_712, 14: 365_596}


class Board(NamedTuple):
    """What the queens so far attack in the next row: a bit for each place."""

    columns: int = 0
    left: int = 0
    right: int = 0


def following(size: int, board: Board) -> Iterator[Board]:
    """The boards with one queen more."""
    columns, left, right = board
    free = ~(columns | left | right) & ((1 << size) - 1)
    while free:
        place = free & -free
        free ^= place
        yield Board(columns | place, (left | place) << 1, (right | place) >> 1)


def count(size: int, board: Board) -> int:
    """Ways to fill the rows that are left."""
    if board.columns == (1 << size) - 1:
        return 1
    return sum(count(size, board) for board in following(size, board))


def explore(size: int, depth: int, board: Board) -> list[Board] | int:
    """The boards that follow, while there are less than `depth` queens; then the number of ways."""
    if board.columns.bit_count() < depth:
        return list(following(size, board))
    return count(size, board)


async def main(on: str, size: int, depth: int) -> None:
    total = tasks = 0

    def master(task: tuple[Board, int], result: list[Board] | int) -> list[tuple[Board, int]]:
        nonlocal total, tasks
        tasks += 1
        if isinstance(result, int):
            total += result
            return []
        return [(board, task[1] + 1) for board in result]

    start = time.perf_counter()
    async with open_farm(on) as farm:
        await farm.compute(partial(explore, size, depth), master, [(Board(), 0)])
    assert total == KNOWN.get(size, total)
    print(f"{size} queens: {total:,} ways, {tasks} tasks, {time.perf_counter() - start:.2f} s")


line = parser(__doc__)
line.add_argument("--size", type=int, default=9)
line.add_argument("--depth", type=int, default=2, help="queens before it counts")
options = line.parse_args()
trio.run(main, options.on, options.size, options.depth)
