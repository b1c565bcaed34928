"""Maps and folds, derived from a `compute` that ends tasks in any order."""

from __future__ import annotations

import operator
import random
from collections.abc import AsyncIterator
from typing import Any

import hypothesis.strategies as st
import trio
from hypothesis import given

from parallel.farm.derived import fold_ac, fold_adjacent, fold_here, fold_remotely, settle

from ..support import examples

LISTS = st.lists(st.integers(), max_size=30)


def shuffled(chance: random.Random) -> Any:
    """As a farm of many workers."""

    async def compute(worker: Any, master: Any, tasks: Any) -> None:
        if isinstance(tasks, AsyncIterator):
            waiting = [task async for task in tasks]
        else:
            waiting = list(tasks)
        while waiting:
            a, c = waiting.pop(chance.randrange(len(waiting)))
            waiting += await settle(master((a, c), await settle(worker(a)))) or ()

    return compute


def double(x: int) -> int:
    return 2 * x


@examples(200)
@given(LISTS, st.randoms(use_true_random=False))
def test_sums_are_right_in_any_order(xs: list[int], chance: random.Random) -> None:
    async def check() -> None:
        for derived in (fold_here, fold_remotely, fold_ac, fold_adjacent):
            total = await derived(shuffled(chance), double, operator.add, 7, xs)
            assert total == 7 + 2 * sum(xs)

    trio.run(check)


@examples(200)
@given(LISTS, st.randoms(use_true_random=False))
def test_neighbours_are_folded_in_their_order(xs: list[int], chance: random.Random) -> None:
    async def source() -> AsyncIterator[int]:
        for x in xs:
            yield x

    async def check() -> None:
        for items in (xs, source()):
            text = await fold_adjacent(shuffled(chance), str, operator.add, ">", items)
            assert text == ">" + "".join(map(str, xs))

    trio.run(check)
