"""Feeds: as many tasks as are wanted, from any source."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from parallel.farm.feed import Feed

from .pretend import Owner


def to_task(x: object) -> tuple[tuple[object], None]:
    return (x,), None


async def test_a_plain_source_is_read_as_far_as_is_wanted(nursery: trio.Nursery) -> None:
    owner = Owner(wanted=3)
    source = iter(range(5))
    feed = Feed(owner.open_stream(), source, to_task, nursery)
    feed.pull()
    feed.pull()
    assert [task.args for _, task in owner.tasks] == [(0,), (1,), (2,)]
    assert not feed.is_over


async def test_an_async_source_is_read_as_far_as_is_wanted_and_closed(
    nursery: trio.Nursery,
) -> None:
    closed = False

    async def count() -> AsyncIterator[int]:
        nonlocal closed
        try:
            for x in range(1000):
                yield x
        finally:
            closed = True

    owner = Owner(wanted=3)
    stream = owner.open_stream()
    feed = Feed(stream, count(), to_task, nursery)
    await trio.testing.wait_all_tasks_blocked()
    assert len(owner.tasks) == 3
    for _ in range(3):
        owner.end()
        await stream.take()
    feed.pull()
    await trio.testing.wait_all_tasks_blocked()
    assert len(owner.tasks) == 3
    feed.stop()
    await trio.testing.wait_all_tasks_blocked()
    assert closed


async def test_a_source_that_never_waits_is_read_no_more_after_stop(nursery: trio.Nursery) -> None:
    class Source:
        def __aiter__(self) -> Source:
            return self

        async def __anext__(self) -> int:
            feed.stop()
            stream.close()
            return 1

    stream = Owner().open_stream()
    feed = Feed(stream, Source(), to_task, nursery)
    with trio.fail_after(5):
        await trio.testing.wait_all_tasks_blocked()
    assert feed.is_over


async def test_what_an_async_source_raises_goes_to_the_reader(nursery: trio.Nursery) -> None:
    async def fail() -> AsyncIterator[int]:
        yield 1
        raise LookupError("as told")

    stream = Owner().open_stream()
    Feed(stream, fail(), to_task, nursery)
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(LookupError, match="as told"):
        await stream.take()
