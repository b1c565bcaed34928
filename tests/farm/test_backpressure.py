"""Memory is bounded, whatever is read from and whoever reads."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest
import trio
import trio.testing

import parallel
from parallel.farm.stream import KEPT

from ..support import in_turn, resident_memory


def forget(_: object) -> None:
    pass


def grow(x: int) -> bytes:
    return bytes(1 << 20)


def keep(x: object) -> object:
    return x


class Counting:
    """An endless input that knows how far it was read."""

    def __init__(self, size: int = 0) -> None:
        self.read = 0
        self.size = size

    def __iter__(self) -> Iterator[object]:
        for self.read in itertools.count(1):
            yield np.zeros(self.size, np.uint8) if self.size else self.read

    async def slowly(self) -> AsyncIterator[object]:
        for item in self:
            yield item


@in_turn("is_async", [False, True])
@in_turn("ordered", [False, True])
@pytest.mark.slow
async def test_an_endless_input_is_read_no_further_than_keeps_the_workers_busy(
    farm: parallel.Farm, is_async: bool, ordered: bool
) -> None:
    source = Counting()
    xs = source.slowly() if is_async else source
    call = farm.imap if ordered else farm.imap_unordered
    limit = 4 * 2 * 512
    if ordered:
        limit += limit * KEPT
    async with call(keep, xs) as results:
        for taken in range(1, 20):
            for _ in range(50):
                await anext(results)
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert source.read - 50 * taken <= limit + 1


@pytest.mark.parametrize("function", [forget, keep])
async def test_large_arguments_and_results_wait_in_bounded_memory(
    farm: parallel.Farm, function: object
) -> None:
    assert callable(function)
    source = Counting(1 << 20)
    before = resident_memory()
    async with farm.imap(function, source) as results:
        for _ in range(100):
            await anext(results)
            await trio.testing.wait_all_tasks_blocked()
            assert source.read < 160
    assert resident_memory() - before < 200 << 20


async def test_large_results_that_nobody_takes_are_few(farm: parallel.Farm) -> None:
    source = Counting()
    async with farm.imap_unordered(grow, source) as results:
        for taken in range(1, 30):
            await anext(results)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert source.read - taken <= 20


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.slow
async def test_a_slow_master_of_an_endless_input_holds_up_its_reading(
    farm: parallel.Farm, is_async: bool
) -> None:
    source = Counting(1 << 20)
    before = resident_memory()
    taken = 0

    async def master(task: tuple[object, int], result: object) -> None:
        nonlocal taken
        taken += 1
        await trio.sleep(0.005)
        assert source.read - taken <= 40
        if taken == 200:
            raise LookupError("enough")

    tasks = ((item, number) for number, item in enumerate(source))

    async def slowly() -> AsyncIterator[tuple[object, int]]:
        for task in tasks:
            yield task

    with pytest.raises(LookupError, match="enough"):
        await farm.compute(keep, master, slowly() if is_async else tasks)
    assert resident_memory() - before < 200 << 20


async def test_submit_waits_at_its_target(farm: parallel.Farm) -> None:
    algorithm = farm.algorithm(keep, target=10)
    submitted = 0

    async def submit() -> None:
        nonlocal submitted
        async with algorithm:
            for x in range(100):
                await algorithm.submit(x)
                submitted += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(submit)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert submitted == 10 and algorithm.pending == 10 and algorithm.wanted == 0
        taken = 0
        async for _ in farm.results():
            taken += 1
            assert submitted <= 10 + taken
    assert taken == 100
