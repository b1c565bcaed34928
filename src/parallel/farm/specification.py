"""The specification of a farm: what each of its calls returns, computed here, one by one.

Whatever a farm does with many workers has to come to what stands here (or to one of the results
that another order of completion would give). The functions are also of use by themselves: a program
that passes `sequential` where it would pass a farm runs without any process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from contextlib import aclosing
from typing import Any

import trio

from .derived import fold_ac, fold_adjacent, fold_here, fold_remotely, settle


async def compute(worker: Callable[..., Any], master: Callable[..., Any], tasks: Any) -> None:
    """Each task is run, and `master` may add others, until there is none left."""
    added: deque[tuple[Any, Any]] = deque()
    async with aclosing(_each(tasks)) as first:
        async for task in first:
            added.append(task)
            while added:
                await trio.lowlevel.checkpoint()
                a, c = added.popleft()
                added.extend(await settle(master((a, c), await settle(worker(a)))) or ())


async def map(f: Callable[..., Any], xs: Any) -> list[Any]:  # noqa: A001  # as the farm's
    """`[f(x) for x in xs]`."""
    async with aclosing(imap(f, xs)) as ys:
        return [y async for y in ys]


async def imap(f: Callable[..., Any], xs: Any) -> AsyncGenerator[Any, None]:
    """`(f(x) for x in xs)`."""
    if isinstance(xs, AsyncIterable):
        async for x in xs:
            yield await settle(f(x))
    else:
        for x in xs:
            await trio.lowlevel.checkpoint()
            yield await settle(f(x))


imap_unordered = imap


async def find_map(f: Callable[..., Any], xs: Any) -> Any:
    """The first `f(x)` that is not None."""
    async with aclosing(imap(f, xs)) as ys:
        async for y in ys:
            if y is not None:
                return y
    return None


async def map_local_fold(
    f: Callable[..., Any], fold: Callable[..., Any], init: Any, xs: Any
) -> Any:
    """`fold(... fold(fold(init, f(x0)), f(x1)) ..., f(xn))`; so are the three others."""
    return await fold_here(compute, f, fold, init, xs)


async def map_remote_fold(
    f: Callable[..., Any], fold: Callable[..., Any], init: Any, xs: Any
) -> Any:
    """As `map_local_fold`."""
    return await fold_remotely(compute, f, fold, init, xs)


async def map_fold_ac(f: Callable[..., Any], fold: Callable[..., Any], init: Any, xs: Any) -> Any:
    """As `map_local_fold`, if `fold` is associative and commutative."""
    return await fold_ac(compute, f, fold, init, xs)


async def map_fold_a(f: Callable[..., Any], fold: Callable[..., Any], init: Any, xs: Any) -> Any:
    """As `map_local_fold`, if `fold` is associative."""
    return await fold_adjacent(compute, f, fold, init, xs)


async def _each(xs: Any) -> AsyncGenerator[Any, None]:
    if isinstance(xs, AsyncIterable):
        async for x in xs:
            yield x
    else:
        for x in xs:
            yield x
