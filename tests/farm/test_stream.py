"""Streams: tasks in, what came of them out."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing

from .pretend import Owner


async def test_results_come_in_the_order_in_which_tasks_end() -> None:
    owner = Owner()
    stream = owner.open_stream()
    stream.add([(-1,), (-2,)], ["a", "b"])
    owner.end(1)
    owner.end(0)
    first, second = await stream.take(), await stream.take()
    assert first is not None and (first.tag, first.value) == ("b", 2)
    assert second is not None and (second.tag, second.value) == ("a", 1)
    assert await stream.take() is None


async def test_who_waits_is_woken_when_it_is_closed() -> None:
    stream = Owner().open_stream()
    stream.add([(1,)], [None])
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.take)
            await trio.testing.wait_all_tasks_blocked()
            stream.close()


async def test_who_waits_is_told_what_has_gone_wrong() -> None:
    stream = Owner().open_stream()
    stream.add([(1,)], [None])

    async def wait() -> None:
        with pytest.raises(LookupError):
            await stream.take()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        stream.fail(LookupError())
    with pytest.raises(LookupError):
        stream.add([(1,)], [None])


async def test_cancelled_a_reader_has_taken_nothing() -> None:
    owner = Owner()
    stream = owner.open_stream()
    stream.add([(-1,)], [None])
    owner.end()
    with trio.CancelScope() as scope:
        scope.cancel()
        await stream.take()
    assert stream.pending == 1
    assert await stream.take() is not None


async def test_more_is_wanted_when_half_is_done() -> None:
    owner = Owner(wanted=4)
    stream = owner.open_stream()
    assert stream.wanted == 4
    stream.add([(1,)] * 4, [None] * 4)
    assert stream.wanted == 0
    owner.end()
    assert stream.wanted == 0, "what nobody has taken counts"
    await stream.take()
    assert stream.wanted == 0
    owner.end()
    await stream.take()
    assert stream.wanted == 2


def double(x: object) -> None:
    pass


async def test_tasks_are_named_for_people() -> None:
    stream = Owner().open_stream(partial(partial(double), 1))
    assert stream.label == "double"
    assert len(stream.name(["x" * 1000])) < 100
