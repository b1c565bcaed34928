"""Maps and folds, each derived from `compute`: by the farm's as by the sequential one.

`compute(worker, master, tasks)` runs `worker(a)` for each task `(a, c)` and calls `master((a, c),
result)` with what comes of it, which returns more tasks; it ends when there is none left. All is
due to Functory (Filliatre and Kalyanasundaram, 2011).
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")

Tasks: TypeAlias = Iterable[tuple[Any, Any]]
Compute: TypeAlias = Callable[[Callable[..., Any], Callable[..., Any], Any], Awaitable[None]]


async def settle(value: Any) -> Any:
    """What a function returned that may be async."""
    return await value if inspect.isawaitable(value) else value


async def fold_here(
    compute: Compute, f: Callable[..., Any], fold: Callable[..., Any], init: Any, xs: Any
) -> Any:
    """`fold` runs here, in the order in which the results come."""
    total = init

    async def master(_: object, y: Any) -> Tasks:
        nonlocal total
        total = await settle(fold(total, y))
        return ()

    await compute(f, master, with_each(xs, None))
    return total


async def fold_remotely(
    compute: Compute, f: Callable[..., Any], fold: Callable[..., Any], init: Any, xs: Any
) -> Any:
    """`fold` runs on workers, once at a time, in the order in which the results come."""
    total = init
    waiting: deque[Any] = deque()
    is_folding = False

    def master(task: tuple[Any, str], result: Any) -> Tasks:
        nonlocal total, is_folding
        if task[1] == "map":
            waiting.append(result)
        else:
            total, is_folding = result, False
        if is_folding or not waiting:
            return ()
        is_folding = True
        return [(("fold", total, waiting.popleft()), "fold")]

    await compute(partial(map_or_fold, f, fold), master, _to_map(xs, "map"))
    return total


async def fold_ac(
    compute: Compute, f: Callable[..., Any], fold: Callable[..., Any], init: Any, xs: Any
) -> Any:
    """`fold` is associative and commutative: any two results are folded, many at a time."""
    spare: list[Any] = [init]

    def master(_: object, result: Any) -> Tasks:
        if spare:
            return [(("fold", spare.pop(), result), None)]
        spare.append(result)
        return ()

    await compute(partial(map_or_fold, f, fold), master, _to_map(xs, None))
    return spare[0]


async def fold_adjacent(
    compute: Compute, f: Callable[..., Any], fold: Callable[..., Any], init: Any, xs: Any
) -> Any:
    """`fold` is associative: neighbours are folded, many at a time; `init` stands before all."""
    by_start: dict[int, tuple[int, Any]] = {0: (1, init)}
    by_end: dict[int, int] = {1: 0}

    def master(task: tuple[Any, tuple[int, int]], result: Any) -> Tasks:
        start, end = task[1]
        if start in by_end:
            first = by_end.pop(start)
            _, value = by_start.pop(first)
            return [(("fold", value, result), (first, end))]
        if end in by_start:
            last, value = by_start.pop(end)
            del by_end[last]
            return [(("fold", result, value), (start, last))]
        by_start[start] = (end, result)
        by_end[end] = start
        return ()

    def place(number: int) -> tuple[int, int]:
        return number + 1, number + 2

    await compute(partial(map_or_fold, f, fold), master, _to_map(xs, place))
    ((_, total),) = by_start.values()
    return total


def map_or_fold(f: Callable[..., Any], fold: Callable[..., Any], item: tuple[Any, ...]) -> Any:
    """What workers call."""
    what, *args = item
    return f(*args) if what == "map" else fold(*args)


def _to_map(xs: Any, local: Any) -> Any:
    return with_each(xs, local, lambda x: ("map", x))


def with_each(xs: Any, local: Any, form: Callable[[Any], Any] = lambda x: x) -> Any:
    """Tasks from items, each with what stays here: `local`, or what that makes of its number."""

    def task(number: int, x: Any) -> tuple[Any, Any]:
        return form(x), local(number) if callable(local) else local

    async def tasks(xs: AsyncIterable[Any]) -> AsyncIterator[tuple[Any, Any]]:
        number = 0
        async for x in xs:
            yield task(number, x)
            number += 1

    if isinstance(xs, AsyncIterable):
        return tasks(xs)
    return (task(number, x) for number, x in enumerate(xs))
