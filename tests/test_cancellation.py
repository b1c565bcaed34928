"""Cancellation at every await: nothing is lost and nothing is left; and who raises what."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import parallel

from . import support
from .elsewhere import host
from .puppets import (
    Channel,
    Hub,
    clean_up_slowly,
    count_messages,
    despite,
    echo,
    fail_when_told,
    fall,
    ignore_and_start_again,
    ignore_behind_a_shield,
    ignore_in_a_loop,
    ignore_in_an_async_loop,
    ignore_in_c,
    puppet,
    raise_a_bundle,
    report_and_sleep,
    say,
    tell_and,
    tell_and_sync,
)
from .support import alone

GRACE = 1.0
"""Seconds, for those who ignore that they are cancelled."""


@pytest.fixture
def member() -> Iterator[None]:
    with alone():
        yield


class _CancelAtStep(trio.abc.Instrument):
    """Cancels a scope after so many steps of any task."""

    def __init__(self, scope: trio.CancelScope, steps: int) -> None:
        self.scope = scope
        self.left = steps

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self.scope.cancel()


@contextmanager
def cancelled_at(step: int) -> Iterator[trio.CancelScope]:
    """A scope that is cancelled at that scheduling point, if it is still there then."""
    with trio.CancelScope() as scope:
        instrument = _CancelAtStep(scope, step)
        trio.lowlevel.add_instrument(instrument)
        try:
            yield scope
        finally:
            trio.lowlevel.remove_instrument(instrument)


async def at_every_step(attempt: Callable[[], Awaitable[None]], steps: int) -> None:
    """Try it cancelled at each scheduling point in turn; the last ones are never reached.

    Whoever is cancelled may be done all the same: what comes despite that is not lost.
    """
    reached = completed = 0
    for step in range(1, steps):
        with cancelled_at(step) as scope:
            await attempt()
            completed += not scope.cancel_called
        reached += scope.cancel_called
    assert reached
    assert completed


async def nothing_runs() -> bool:
    """Whether this program has no worker."""
    return all(child.name == "agent" for child in (await parallel.processes()).children)


# At every await: nothing is lost, nothing is left


@support.in_turn("function", [os.getpid, partial(trio.sleep, 0)], ids=["sync", "async"])
async def test_run_can_be_cancelled_anywhere(tree: None, function: Callable[[], Any]) -> None:
    async def attempt() -> None:
        try:
            await parallel.run(function)
        finally:
            with trio.CancelScope(shield=True):
                assert await nothing_runs()

    await at_every_step(attempt, steps=30)


async def test_a_run_with_large_arguments_can_be_cancelled_anywhere(tree: None) -> None:
    async def attempt() -> None:
        try:
            assert await parallel.run(len, bytes(3_000_000)) == 3_000_000
        finally:
            with trio.CancelScope(shield=True):
                assert await nothing_runs()

    await at_every_step(attempt, steps=60)


async def test_a_spawn_block_can_be_cancelled_anywhere(tree: None) -> None:
    async def attempt() -> None:
        try:
            async with parallel.spawn(echo) as (channel, process):
                await channel.send("ping")
                assert await channel.receive() == "ping"
            assert await process.result() == 1
        finally:
            with trio.CancelScope(shield=True):
                assert await nothing_runs()

    await at_every_step(attempt, steps=60)


async def test_a_spawn_in_a_nursery_can_be_cancelled_anywhere_and_leaves_the_nursery_alone(
    tree: None,
) -> None:
    async with trio.open_nursery() as nursery:
        cancelled = 0
        for step in range(1, 30):
            started: list[tuple[Channel, parallel.Process[int]]] = []
            with cancelled_at(step):
                started.append(await parallel.spawn(echo, nursery=nursery))
            for channel, process in started:
                async with channel:
                    await channel.send("ping")
                    assert await channel.receive() == "ping"
                assert await process.result() == 1
            if not started:
                cancelled += 1
                assert await nothing_runs()
                assert not nursery.child_tasks
        assert not nursery.cancel_scope.cancel_called
        assert 0 < cancelled < 29


@support.in_turn("kind", ["run", "block", "nursery"])
async def test_whatever_is_cancelled_at_any_moment_leaves_nothing(tree: None, kind: str) -> None:
    chance = random.Random(kind)

    async def attempt() -> None:
        with trio.move_on_after(chance.random() * 0.05):
            match kind:
                case "run":
                    await parallel.run(trio.sleep_forever)
                case "block":
                    async with parallel.spawn(echo) as (channel, _):
                        while True:
                            await channel.send(bytes(chance.randrange(200_000)))
                            await channel.receive()
                case _:
                    async with trio.open_nursery() as nursery:
                        channel, _ = await parallel.spawn(count_messages, nursery=nursery)
                        async with channel:
                            await parallel.run(say, channel, "hello")
                            await trio.sleep_forever()

    limiter = trio.CapacityLimiter(4)

    async def limited() -> None:
        async with limiter:
            await attempt()

    async with trio.open_nursery() as nursery:
        for _ in range(support.ROUNDS):
            nursery.start_soon(limited)
    assert await nothing_runs()


@asynccontextmanager
async def connect() -> AsyncIterator[tuple[Hub, parallel.Client, Channel]]:
    async with parallel.open_hub() as hub:
        with hub.open_channel() as channel:
            event = await anext(hub.listen())
            assert event is not None
            yield hub, event.client, channel


@pytest.mark.parametrize("size", [10, 30_000, 300_000], ids=["small", "medium", "large"])
async def test_a_send_that_is_cancelled_anywhere_has_sent_all_or_nothing(
    member: None, size: int
) -> None:
    async with connect() as (hub, _, channel), trio.open_nursery() as nursery:
        received: list[int] = []
        sent: list[int] = []

        @nursery.start_soon
        async def receive() -> None:
            async for _, (number, filling) in hub:
                assert filling == bytes(size)
                received.append(number)

        step = 0
        completed = False
        while not completed:
            step += 1
            with cancelled_at(step):
                for number in range(1000 * step, 1000 * step + 12):
                    await channel.send((number, bytearray(size)))
                    sent.append(number)
                completed = True
            await wait_all_tasks_blocked()
            assert received == sent
        assert step > 3 or size == 10
        nursery.cancel_scope.cancel()


async def test_a_send_of_an_array_that_is_cancelled_anywhere_has_sent_all_or_nothing(
    member: None,
) -> None:
    numpy = pytest.importorskip("numpy")
    async with connect() as (hub, client, channel), trio.open_nursery() as nursery:
        received: list[int] = []
        sent: list[int] = []

        @nursery.start_soon
        async def receive() -> None:
            async for array in channel:
                assert (array == array[0]).all()
                received.append(int(array[0]))

        step = 0
        completed = False
        while not completed:
            step += 1
            array = numpy.zeros(40_000)
            with cancelled_at(step):
                for number in range(100 * step, 100 * step + 8):
                    array[:] = number
                    await hub.send(client, array)
                    sent.append(number)
                completed = True
            array[:] = -1
            await wait_all_tasks_blocked()
            assert received == sent
        assert step > 3
        nursery.cancel_scope.cancel()


async def test_a_receive_that_is_cancelled_anywhere_has_lost_nothing(member: None) -> None:
    async with connect() as (hub, client, channel), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def send() -> None:
            for number in range(4000):
                await hub.send(client, (number, bytes(random.Random(number).randrange(5000))))
            await hub.aclose()

        received: list[int] = []
        step = 0
        while len(received) < 4000:
            step += 1
            with cancelled_at(step % 7 + 1):
                async for number, _ in channel:
                    received.append(number)
        assert received == list(range(4000))
        assert step > 7


@pytest.mark.parametrize("clients", [1, 3])
async def test_listening_that_is_cancelled_anywhere_has_lost_no_event(
    member: None, clients: int
) -> None:
    async with parallel.open_hub() as hub, trio.open_nursery() as nursery:

        async def speak(channel: Channel) -> None:
            async with channel:
                for number in range(200):
                    await channel.send((number, bytes(random.Random(number).randrange(9000))))

        for _ in range(clients):
            nursery.start_soon(speak, hub.open_channel())
        events: dict[parallel.Client, list[Any]] = {}
        step, ended = 0, False
        while not ended:
            step += 1
            with cancelled_at(step % 7 + 1):
                async for event in hub.listen():
                    events.setdefault(event.client, []).append(event)
                ended = True
        assert len(events) == clients
        for client, mine in events.items():
            assert mine[0] == parallel.Connected(client)
            assert [message.value[0] for message in mine[1:201]] == list(range(200))
            assert mine[201] == parallel.Ended(client)
        assert step > 7


async def test_a_broadcast_that_is_cancelled_anywhere_has_reached_all_or_none(
    member: None,
) -> None:
    async with parallel.open_hub() as hub, trio.open_nursery() as nursery:
        received: list[list[int]] = [[], [], []]

        async def receive(channel: Channel, into: list[int]) -> None:
            async with channel:
                async for number, _ in channel:
                    into.append(number)

        for into in received:
            nursery.start_soon(receive, hub.open_channel(), into)
            await anext(hub.listen())
        sent: list[int] = []
        step, completed = 0, False
        while not completed:
            step += 1
            with cancelled_at(step):
                for number in range(100 * step, 100 * step + 10):
                    await hub.broadcast((number, bytes(100_000)))
                    sent.append(number)
                completed = True
            await wait_all_tasks_blocked()
            assert received == [sent, sent, sent]
        assert step > 3
        nursery.cancel_scope.cancel()


# Downwards


async def test_a_cascade_of_a_hundred_is_cancelled_from_the_root_and_every_level_cleans_up(
    tree: None,
) -> None:
    async with parallel.open_hub() as hub:
        with hub.open_channel() as channel, trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(parallel.run, fall, channel, 99)
                _, first = await anext(aiter(hub))
                assert first == "the lowest runs"
                before = time.monotonic()
                scope.cancel()
        assert scope.cancelled_caught
        assert time.monotonic() - before < 2.0 + 1
        assert await nothing_runs()
        assert sorted([depth async for _, depth in hub]) == list(range(100))


STUBBORN: dict[str, Callable[..., Any]] = {
    "a sync loop that ignores SIGTERM": ignore_in_a_loop,
    "an async loop without awaits": partial(tell_and, stubborn=ignore_in_an_async_loop),
    "a shield": partial(tell_and, stubborn=ignore_behind_a_shield),
    "C code that holds the lock": partial(tell_and, stubborn=ignore_in_c),
    "a loop that starts processes": partial(tell_and, stubborn=ignore_and_start_again),
}


@pytest.fixture
async def hasty_tree() -> AsyncIterator[None]:
    async with parallel.init(grace=GRACE):
        yield


@support.in_turn("function", STUBBORN.values(), ids=STUBBORN)
@pytest.mark.slow
async def test_who_ignores_that_it_is_cancelled_is_killed_after_grace(
    hasty_tree: None, function: Callable[..., Any]
) -> None:
    async with parallel.open_hub() as hub:
        with hub.open_channel() as channel, trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(parallel.run, function, channel)
                await anext(aiter(hub))
                before = time.monotonic()
                scope.cancel()
        assert scope.cancelled_caught
        assert GRACE <= time.monotonic() - before < GRACE + 1
        assert await nothing_runs()


def nested(depth: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """That function so many processes further down."""
    for _ in range(depth):
        function = partial(run_nested, function)
    return function


async def run_nested(function: Callable[..., Any], channel: Channel) -> Any:
    async with channel:
        return await parallel.run(function, channel)


async def test_one_deadline_holds_for_everything_below(mark: str) -> None:
    async with parallel.init(grace=GRACE), parallel.open_hub() as hub:
        function = nested(3, partial(tell_and, stubborn=ignore_behind_a_shield))
        with hub.open_channel() as channel, trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(parallel.run, function, channel)
                await anext(aiter(hub))
                before = time.monotonic()
                scope.cancel()
        assert GRACE <= time.monotonic() - before < GRACE + 1
        assert await nothing_runs()


async def test_who_cancels_late_gives_no_later_deadline_than_it_was_given_itself() -> None:
    async with parallel.init(grace=GRACE), parallel.open_hub() as hub:
        function = partial(clean_up_slowly, below=ignore_behind_a_shield, seconds=0.7 * GRACE)
        with hub.open_channel() as channel, trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(parallel.run, function, channel)
                await anext(aiter(hub))
                before = time.monotonic()
                scope.cancel()
        assert GRACE <= time.monotonic() - before < GRACE + 0.7
        assert await nothing_runs()


async def test_a_sync_function_is_sent_sigterm_at_once() -> None:
    async with parallel.init(grace=60.0), parallel.open_hub() as hub:
        with hub.open_channel() as channel, trio.CancelScope() as scope, trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                sleep = partial(tell_and_sync, stubborn=partial(time.sleep, 1000))
                nursery.start_soon(parallel.run, sleep, channel)
                await anext(aiter(hub))
                scope.cancel()
        assert scope.cancelled_caught
        assert await nothing_runs()


def tidy_up(channel: Channel) -> None:
    """A sync function that has something to do about SIGTERM."""

    def handle(*_: object) -> None:
        raise LookupError("tidied up")

    signal.signal(signal.SIGTERM, handle)
    channel.send_nowait("hello")
    time.sleep(1000)


async def test_a_sync_function_may_handle_sigterm_itself(tree: None) -> None:
    async with parallel.open_hub() as hub, trio.open_nursery() as nursery:
        with hub.open_channel() as channel:

            async def expect_it(scope: trio.CancelScope) -> None:
                with scope, pytest.raises(LookupError, match="tidied up"):
                    await parallel.run(tidy_up, channel)

            scope = trio.CancelScope()
            nursery.start_soon(expect_it, scope)
            await anext(aiter(hub))
            scope.cancel()


# process.cancel()


async def test_a_process_that_was_cancelled_lets_its_block_end_normally(tree: None) -> None:
    async with parallel.spawn(echo) as (channel, process):
        await channel.send("ping")
        assert await channel.receive() == "ping"
        process.cancel()
        process.cancel()
        ending = await process.wait()
        assert ending.status == "cancelled"
        assert ending.error is None
        with pytest.raises(parallel.WorkerCancelled) as info:
            await process.result()
        assert (info.value.host, info.value.pid, info.value.name) == (host(), process.pid, "echo")
        with pytest.raises(trio.BrokenResourceError) as broken:
            await channel.receive()
        assert isinstance(broken.value.__cause__, parallel.WorkerCancelled)
    process.cancel()
    with pytest.raises(parallel.WorkerCancelled):
        await process.result()


async def test_a_process_that_was_cancelled_leaves_its_nursery_alone(tree: None) -> None:
    async with trio.open_nursery() as nursery:
        channel, process = await parallel.spawn(echo, nursery=nursery)
        process.cancel()
        with channel, pytest.raises(trio.BrokenResourceError):
            await channel.receive()
        assert (await process.wait()).status == "cancelled"
        assert not nursery.cancel_scope.cancel_called


async def test_a_value_that_comes_despite_the_cancellation_stands(tree: None) -> None:
    async with parallel.spawn(despite, "a value") as (channel, process):
        await channel.send("go")
        assert await channel.receive() == "ready"
        process.cancel()
        assert await process.result() == "a value"
        assert (await process.wait()).status == "returned"


async def test_an_exception_that_comes_despite_the_cancellation_arrives(tree: None) -> None:
    with pytest.raises(LookupError, match="while cleaning up"):
        async with parallel.spawn(despite, LookupError("while cleaning up")) as (channel, process):
            await channel.send("go")
            assert await channel.receive() == "ready"
            process.cancel()
            await trio.sleep_forever()
    with pytest.raises(LookupError):
        await process.result()


async def return_despite(channel: Channel) -> str:
    try:
        await report_and_sleep(channel)
    except trio.Cancelled:  # that is what is tested
        return "a value"
    return "not cancelled"


async def test_run_returns_a_value_that_comes_despite_its_cancellation(tree: None) -> None:
    returned = None
    async with parallel.open_hub() as hub, trio.open_nursery() as nursery:
        with hub.open_channel() as channel:
            scope = trio.CancelScope()

            async def run() -> None:
                nonlocal returned
                with scope:
                    returned = await parallel.run(return_despite, channel)

            nursery.start_soon(run)
            await anext(aiter(hub))
            scope.cancel()
    assert returned == "a value"
    assert not scope.cancelled_caught


async def test_an_exception_during_cleanup_is_not_lost_when_the_block_is_cancelled(
    tree: None,
) -> None:
    with pytest.raises(LookupError, match="while cleaning up"):
        with trio.CancelScope() as scope:
            async with parallel.spawn(despite, LookupError("while cleaning up")) as (channel, _):
                await channel.send("go")
                assert await channel.receive() == "ready"
                scope.cancel()
                await trio.sleep_forever()


async def test_a_block_that_is_cancelled_takes_its_process_along(tree: None) -> None:
    with trio.CancelScope() as scope:
        async with parallel.spawn(echo) as (_, process):
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert (await process.wait()).status == "cancelled"
    assert process.returncode is not None


# The block: body and child


async def test_a_child_s_failure_cancels_the_body_and_is_raised_bare(tree: None) -> None:
    cancelled = False
    with pytest.raises(LookupError, match="no") as info:
        async with parallel.spawn(fail_when_told, LookupError("no")) as (channel, _):
            await channel.send("now")
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                cancelled = True
                raise
    assert cancelled
    assert info.value.__cause__ is None
    assert info.value.__context__ is None


async def test_a_child_that_is_killed_cancels_the_body_and_is_named(tree: None) -> None:
    with pytest.raises(parallel.WorkerDied) as info:
        async with parallel.spawn(echo) as (_, process):
            os.kill(process.pid, signal.SIGKILL)
            await trio.sleep_forever()
    assert info.value.pid == process.pid
    assert info.value.signal == "SIGKILL"


async def test_a_child_s_failure_is_raised_though_the_body_never_noticed(tree: None) -> None:
    with pytest.raises(LookupError, match="no"):
        async with parallel.spawn(fail_when_told, LookupError("no")) as (channel, process):
            channel.send_nowait("now")
            with trio.CancelScope(shield=True):
                await process.wait()


async def test_the_body_s_error_cancels_the_child_and_is_raised_as_it_is(tree: None) -> None:
    error = LookupError("no")
    error.add_note("a note")
    with pytest.raises(LookupError) as info:
        async with parallel.spawn(echo) as (_, process):
            raise error from KeyError("the cause")
    assert info.value is error
    assert isinstance(error.__cause__, KeyError)
    assert error.__notes__ == ["a note"]
    assert (await process.wait()).status == "cancelled"


async def test_the_errors_of_body_and_child_come_in_a_group_the_body_s_first(tree: None) -> None:
    mine = KeyError("mine")
    with pytest.raises(ExceptionGroup) as info:
        async with parallel.spawn(despite, LookupError("the child's")) as (channel, _):
            await channel.send("go")
            assert await channel.receive() == "ready"
            raise mine
    first, second = info.value.exceptions
    assert first is mine
    assert isinstance(second, LookupError)
    assert str(second) == "the child's"


async def break_by_receiving(channel: Channel) -> None:
    with trio.CancelScope(shield=True):
        await channel.receive()


async def break_by_sending(channel: Channel) -> None:
    with trio.CancelScope(shield=True):
        while True:
            await channel.send(bytes(10_000))


async def break_by_sending_nowait(channel: Channel) -> None:
    with trio.CancelScope(shield=True):
        while True:
            try:
                channel.send_nowait("x")
            except trio.WouldBlock:
                await trio.lowlevel.checkpoint()


async def break_by_receiving_nowait(channel: Channel) -> None:
    with trio.CancelScope(shield=True):
        while True:
            try:
                channel.receive_nowait()
            except trio.WouldBlock:
                await trio.lowlevel.checkpoint()


async def break_in_two_tasks(channel: Channel) -> None:
    with trio.CancelScope(shield=True):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(break_by_receiving, channel)
            nursery.start_soon(break_by_sending, channel)


@support.in_turn(
    "breaking",
    [
        break_by_receiving,
        break_by_sending,
        break_by_receiving_nowait,
        break_by_sending_nowait,
        break_in_two_tasks,
    ],
)
async def test_the_block_s_own_broken_channel_gives_way_to_the_child_s_error(
    tree: None, breaking: Callable[[Channel], Awaitable[None]]
) -> None:
    with pytest.raises(LookupError, match="no"):
        async with parallel.spawn(fail_when_told, LookupError("no")) as (channel, _):
            await channel.send("now")
            await breaking(channel)


async def test_another_broken_channel_does_not_give_way(tree: None) -> None:
    with pytest.raises(ExceptionGroup) as info:
        async with parallel.spawn(fail_when_told, LookupError("no")) as (channel, process):
            with pytest.raises(LookupError):
                async with parallel.spawn(fail_when_told, LookupError("other")) as (other, _):
                    clone = other.clone()
                    await other.send("now")
                    await trio.sleep_forever()
            await channel.send("now")
            with clone, trio.CancelScope(shield=True):
                await process.wait()
                await clone.receive()
    first, second = info.value.exceptions
    assert isinstance(first, trio.BrokenResourceError)
    assert isinstance(second, LookupError)
    assert str(second) == "no"


async def test_leaving_the_block_closes_the_channel_and_waits(tree: None) -> None:
    async with parallel.spawn(count_messages) as (channel, process):
        await channel.send("ping")
    with pytest.raises(trio.ClosedResourceError):
        await channel.send("pong")
    assert process.returncode == 0
    assert await process.result() == 1


# The nursery's process


async def test_what_fails_before_the_start_is_raised_there_and_leaves_the_nursery_alone(
    tree: None,
) -> None:
    async with trio.open_nursery() as nursery:
        with pytest.raises(parallel.NotSendable):
            await parallel.spawn(puppet_with, nursery, nursery=nursery)
        with pytest.raises(parallel.RemoteError):
            await parallel.spawn(puppet_with, Unwelcome(), nursery=nursery)
        assert not nursery.child_tasks
        assert not nursery.cancel_scope.cancel_called
    assert await nothing_runs()


async def puppet_with(hub: Hub, something: object) -> None:
    await puppet(hub)


class Unwelcome:
    """Can be pickled only."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


async def test_what_fails_after_the_start_is_raised_in_the_nursery(tree: None) -> None:
    with pytest.raises((LookupError, ExceptionGroup)) as info:
        async with trio.open_nursery() as nursery:
            channel, _ = await parallel.spawn(fail_when_told, LookupError("no"), nursery=nursery)
            async with channel:
                await channel.send("now")
                await trio.sleep_forever()
    error: BaseException = info.value
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, LookupError)


async def test_a_nursery_that_is_cancelled_takes_its_processes_along(tree: None) -> None:
    started = []
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            started.append(await parallel.spawn(echo, nursery=nursery))
        nursery.cancel_scope.cancel()
    for channel, process in started:
        channel.close()
        assert (await process.wait()).status == "cancelled"
    assert await nothing_runs()


# What hangs on an exception


async def raise_in_a_block() -> None:
    async with parallel.spawn(raise_with_a_hub):
        await trio.sleep_forever()


async def raise_with_a_hub(hub: Hub) -> None:
    raise_a_bundle()


@support.in_turn(
    "raising",
    [
        partial(parallel.run, raise_a_bundle),
        raise_in_a_block,
        partial(parallel.run, partial(parallel.run, raise_a_bundle)),
    ],
    ids=["run", "block", "two levels"],
)
async def test_an_exception_keeps_its_cause_context_notes_and_members(
    tree: None, raising: Callable[[], Awaitable[None]]
) -> None:
    with pytest.raises(ExceptionGroup, match="both") as info:
        await raising()
    group = info.value
    assert group.__notes__ == ["a note"]
    one, two = group.exceptions
    assert isinstance(one, TypeError)
    assert one.__notes__ == ["a note of its own"]
    assert isinstance(two, OSError)
    assert two.errno == 2
    cause = group.__cause__
    assert isinstance(cause, ValueError)
    assert group.__context__ is cause
    assert isinstance(cause.__context__, KeyError)
    assert cause.__cause__ is None
