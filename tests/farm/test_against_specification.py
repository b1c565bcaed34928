"""A farm gives what its specification gives, whatever it is given to do."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import hypothesis.strategies as st
import pytest
import trio
import trio.lowlevel
from hypothesis import HealthCheck, given, settings

import parallel
from parallel.farm import specification

from ..support import FORMS, ROUNDS, formed

FEW = settings(
    max_examples=60 if ROUNDS >= 50 else 15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def double(x: int) -> int:
    return 2 * x


async def double_later(x: int) -> int:
    await trio.lowlevel.checkpoint()
    return 2 * x


def fails_sometimes(x: int) -> int:
    if x % 7 == 3:
        raise ValueError(x)
    return x


def find(x: int) -> int | None:
    return x if x % 5 == 0 else None


FUNCTIONS = st.sampled_from([double, double_later])
INPUTS = st.lists(st.integers(-1000, 1000), max_size=60)


class Together:
    """One event loop and one farm for all examples; hypothesis knows nothing of either."""

    def __init__(self, farm: parallel.Farm, token: trio.lowlevel.TrioToken) -> None:
        self.farm = farm
        self.token = token

    def run(self, function: Any, *args: Any) -> Any:
        return trio.from_thread.run(function, *args, trio_token=self.token)


@pytest.fixture
async def together(tree: None) -> AsyncIterator[Together]:
    async with parallel.open_farm(workers=2) as farm:
        yield Together(farm, trio.lowlevel.current_trio_token())


async def in_thread(together: Together, test: Any) -> None:
    await trio.to_thread.run_sync(test, together)


@FEW
@given(FUNCTIONS, INPUTS, FORMS)
def check_maps(together: Together, f: Any, xs: list[int], form: str) -> None:
    async def both() -> None:
        farm = together.farm
        expected = await specification.map(f, xs)
        assert await farm.map(f, formed(form, xs)) == expected
        assert [y async for y in farm.imap(f, formed(form, xs))] == expected
        unordered = [y async for y in farm.imap_unordered(f, formed(form, xs))]
        assert Counter(unordered) == Counter(expected)

    together.run(both)


@FEW
@given(FUNCTIONS, INPUTS, FORMS)
def check_folds(together: Together, f: Any, xs: list[int], form: str) -> None:
    async def both() -> None:
        farm = together.farm
        for name in ("map_local_fold", "map_remote_fold", "map_fold_ac", "map_fold_a"):
            expected = await getattr(specification, name)(f, operator.add, 5, xs)
            assert await getattr(farm, name)(f, operator.add, 5, formed(form, xs)) == expected
        text = await specification.map_fold_a(str, operator.add, "", xs)
        assert await farm.map_fold_a(str, operator.add, "", formed(form, xs)) == text

    together.run(both)


@FEW
@given(INPUTS, FORMS)
def check_find(together: Together, xs: list[int], form: str) -> None:
    async def both() -> None:
        found = await together.farm.find_map(find, formed(form, xs))
        if await specification.find_map(find, xs) is None:
            assert found is None
        else:
            assert found in xs and find(found) == found

    together.run(both)


@FEW
@given(INPUTS)
def check_failures(together: Together, xs: list[int]) -> None:
    async def both() -> None:
        try:
            expected = await specification.map(fails_sometimes, xs)
        except ValueError:
            with pytest.raises(ValueError, match=r"-?\d+"):
                await together.farm.map(fails_sometimes, xs)
        else:
            assert await together.farm.map(fails_sometimes, xs) == expected
        results = await together.farm.map(fails_sometimes, xs, on_error="return")
        for x, y in zip(xs, results, strict=True):
            assert y == x or (isinstance(y, ValueError) and y.args == (x,))

    together.run(both)


TREES = st.recursive(st.just([]), lambda inner: st.lists(inner, max_size=4), max_leaves=30)


@FEW
@given(st.lists(TREES, max_size=5), FORMS, st.booleans())
def check_generated(together: Together, trees: list[Any], form: str, is_async: bool) -> None:
    """Each task makes one for each branch below it; all are known by their paths."""

    async def gather(compute: Any, tasks: Any) -> Counter[Any]:
        seen: Counter[Any] = Counter()

        def master(task: tuple[Any, str], result: int) -> list[tuple[Any, str]]:
            tree, path = task
            seen[path, result] += 1
            return [(branch, f"{path}.{number}") for number, branch in enumerate(tree)]

        async def master_later(task: tuple[Any, str], result: int) -> list[tuple[Any, str]]:
            await trio.lowlevel.checkpoint()
            return master(task, result)

        await compute(len, master_later if is_async else master, tasks)
        return seen

    async def both() -> None:
        tasks = [(tree, str(number)) for number, tree in enumerate(trees)]
        expected = await gather(specification.compute, tasks)
        assert await gather(together.farm.compute, formed(form, tasks)) == expected

    together.run(both)


@pytest.mark.parametrize(
    "check", [check_maps, check_folds, check_find, check_failures, check_generated]
)
async def test_a_farm_gives_what_its_specification_gives(check: Any, together: Together) -> None:
    await in_thread(together, check)
