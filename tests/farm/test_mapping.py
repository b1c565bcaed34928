"""Results: in order or not, and closed in every way."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import trio

from parallel.farm.feed import Feed
from parallel.farm.mapping import OnError, Results

from .pretend import Owner


def results(
    owner: Owner,
    nursery: trio.Nursery,
    source: Iterator[int],
    *,
    ordered: bool = True,
    on_error: OnError = "raise",
) -> Results[int]:
    stream = owner.open_stream()
    numbers = iter(range(1000))
    feed = Feed(stream, source, lambda x: ((x,), next(numbers)), nursery)
    return Results(stream, feed, on_error, ordered=ordered)


@pytest.mark.parametrize("ordered", [False, True])
async def test_they_come_in_order_if_they_shall(nursery: trio.Nursery, ordered: bool) -> None:
    owner = Owner(wanted=3)
    found = results(owner, nursery, iter([1, 2, 3]), ordered=ordered)
    found._feed.pull()
    for which in (2, 1, 0):
        owner.end(which)
    assert [y async for y in found] == ([1, 2, 3] if ordered else [3, 2, 1])


async def test_after_a_failure_there_is_nothing(nursery: trio.Nursery) -> None:
    owner = Owner()
    found = results(owner, nursery, iter([1, 2, 3]))
    found._feed.pull()
    owner.end(1, LookupError("as told"))
    owner.end(0)
    with pytest.raises(LookupError, match="as told") as caught:
        await anext(found)
    assert caught.value.__notes__ == ["It was raised by abs(2) on the worker 'w'."]
    assert owner.closed
    with pytest.raises(StopAsyncIteration):
        await anext(found)


async def test_what_a_source_raises_ends_the_tasks(nursery: trio.Nursery) -> None:
    def source() -> Iterator[int]:
        yield 1
        raise LookupError("as told")

    owner = Owner()
    found = results(owner, nursery, source())
    with pytest.raises(LookupError, match="as told"):
        await anext(found)
    assert owner.closed
    with pytest.raises(StopAsyncIteration):
        await anext(found)


async def test_a_failure_may_stand_for_its_result(nursery: trio.Nursery) -> None:
    owner = Owner()
    found = results(owner, nursery, iter([1, 2]), on_error="return")
    found._feed.pull()
    owner.end(0, LookupError("as told"))
    owner.end(0)
    first, second = [y async for y in found]
    assert isinstance(first, LookupError) and second == 2


async def test_dropped_they_are_closed_soon_but_not_at_once(nursery: trio.Nursery) -> None:
    """Garbage is collected at any moment, in the midst of the farm's own work too."""
    owner = Owner()
    found = results(owner, nursery, iter([1, 2]))
    found._feed.pull()
    del found
    gc.collect()
    assert not owner.closed
    (close,) = owner.discarded
    close()
    assert owner.closed and not owner.tasks


async def test_closed_they_are_not_closed_again_when_they_are_dropped(
    nursery: trio.Nursery,
) -> None:
    owner = Owner()
    async with results(owner, nursery, iter([1, 2])) as found:
        pass
    del found
    gc.collect()
    assert not owner.discarded
