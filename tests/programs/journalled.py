"""A program with a journal, to be killed and started again.

    RUN=0 python journalled.py FOLDER

Writes to FOLDER/log, a line each: `began`, `ran RUN TASK` where a worker has done something,
`saw RUN TASK` where the program has what came of it, and at the end `result VALUE`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import trio

import parallel

TASKS = 60
FOLDER = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()


@dataclass
class Item:
    """What plain pickle knows by its name alone."""

    value: int


def note(*words: object) -> None:
    log = os.open(FOLDER / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, (" ".join(map(str, words)) + "\n").encode())
    os.close(log)


def ran(task: str) -> None:
    time.sleep(0.002)
    note("ran", os.environ["RUN"], task)


def saw(task: str) -> None:
    note("saw", os.environ["RUN"], task)


def square(x: int) -> Item:
    ran(f"square{x}")
    return Item(x * x)


def same(text: str) -> str:
    ran("same")
    return text


def grow(name: str) -> str:
    ran(f"grow{name}")
    return name


def add(a: int, b: int) -> int:
    ran("add")
    return a + b


def one(item: Item) -> int:
    """Always the same, for results are folded in the order in which they come."""
    ran(f"one{item.value}")
    return 1


async def main() -> None:
    note("began")
    results: list[object] = []

    def master(task: tuple[str, int], name: str) -> Iterable[tuple[str, int]]:
        saw(f"grow{name}")
        results.append(name)
        return [(name + c, task[1] + 1) for c in "ab"] if task[1] < 4 else ()

    async with parallel.init(grace=0.5):
        async with parallel.open_farm(workers=2, journal=FOLDER / "journal") as farm:
            items = []
            async for x in farm.imap(square, range(TASKS)):
                saw(f"square{len(items)}")
                items.append(x)
            assert len(await farm.map(same, ["x"] * 10)) == 10
            await farm.compute(grow, master, [("", 0)])
            total = await farm.map_remote_fold(one, add, 0, items)
    note("result", total, len(results), ",".join(sorted(map(str, results))))


if __name__ == "__main__":
    trio.run(main)
