"""`Process`: what its caller sees, and when."""

from __future__ import annotations

import atexit
import contextlib
import os
from pathlib import Path
from typing import Any

import pytest
import trio

import parallel
from parallel._connection import close_connections

from .support import in_turn


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A pipe with a name: who opens it waits for the other side."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


async def end_at(hub: parallel.Hub[Any, Any], gate: Path, value: object) -> object:
    """Return or raise `value`; the process ends when somebody opens the gate."""
    atexit.register(gate.read_bytes)
    if isinstance(value, Exception):
        raise value
    return value


async def test_a_value_is_there_before_the_process_has_ended(tree: None, gate: Path) -> None:
    async with parallel.spawn(end_at, gate, ["a value"]) as (_, process):
        value = await process.result()
        assert value == ["a value"]
        assert process.returncode is None
        gate.write_bytes(b"")
        ending = await process.wait()
    assert process.returncode == 0
    assert ending.value is value
    assert await process.result() is value


async def test_an_exception_is_there_before_the_process_has_ended(tree: None, gate: Path) -> None:
    with pytest.raises(ValueError, match="no") as raised:
        async with parallel.spawn(end_at, gate, ValueError("no")) as (_, process):
            with trio.CancelScope(shield=True):  # the body of the block is cancelled
                with pytest.raises(ValueError, match="no") as early:
                    await process.result()
                assert process.returncode is None
                gate.write_bytes(b"")
                assert (await process.wait()).error is early.value
    assert raised.value is early.value


async def test_what_result_raises_in_the_block_is_raised_once(tree: None, gate: Path) -> None:
    with pytest.raises(ValueError, match="no"):
        async with parallel.spawn(end_at, gate, ValueError("no")) as (_, process):
            with trio.CancelScope(shield=True):
                try:
                    await process.result()
                finally:
                    gate.write_bytes(b"")


async def test_a_value_is_there_while_the_worker_lingers(tree: None) -> None:
    async with parallel.spawn(linger, 3) as (channel, process):
        assert await process.result() == 3
        assert process.returncode is None
        assert [await channel.receive() for _ in range(3)] == [0, 1, bytes(1 << 20)]
        await process.wait()
        assert process.returncode == 0


async def linger(hub: parallel.Hub[Any, Any], count: int) -> int:
    """Return with something said that does not fit into a socket."""
    connected = await anext(hub.listen())
    assert isinstance(connected, parallel.Connected)
    for value in (0, 1, bytes(1 << 20)):
        await hub.send(connected.client, value)
    return count


# A channel that an exception closes


async def serve(hub: parallel.Hub[Any, Any]) -> str:
    async for client, value in hub:
        await hub.send(client, value)
    return "nobody is left"


async def test_a_process_cancelled_with_its_channel_does_not_see_that_end_first(
    tree: None,
) -> None:
    for _ in range(5):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                channel, process = await parallel.spawn(serve, nursery=nursery)
                async with channel:
                    await channel.send("hello")
                    assert await channel.receive() == "hello"
                    scope.cancel()
                    await channel.receive()
        assert (await process.wait()).status == "cancelled"


async def test_a_process_that_an_error_around_its_channel_ends_is_cancelled(tree: None) -> None:
    for _ in range(3):
        with pytest.raises(ExceptionGroup) as raised:
            async with trio.open_nursery(strict_exception_groups=True) as nursery:
                channel, process = await parallel.spawn(serve, nursery=nursery)
                async with channel:
                    raise ValueError("no")
        assert [str(error) for error in raised.value.exceptions] == ["no"]
        assert (await process.wait()).status == "cancelled"


@in_turn("error", [None, ValueError("no")])
async def test_a_channel_closed_by_what_ends_there_is_closed(
    tree: None, error: ValueError | None
) -> None:
    async with trio.open_nursery() as nursery:
        channel, process = await parallel.spawn(serve, nursery=nursery)
        with trio.CancelScope() as inner, contextlib.suppress(ValueError):
            with channel:
                inner.cancel()
                if error is not None:
                    raise error
                await trio.sleep_forever()
        with pytest.raises(trio.ClosedResourceError):
            await channel.send("too late")
    assert await process.result() == "nobody is left"


async def return_when_told(hub: parallel.Hub[Any, Any], gate: Path) -> str:
    await trio.to_thread.run_sync(gate.read_bytes)
    return "done"


@pytest.mark.own_tree
async def test_a_process_is_seen_to_its_end_when_all_that_was_left_open_is_closed(
    tree: None, gate: Path
) -> None:
    async with trio.open_nursery() as nursery:
        _, process = await parallel.spawn(return_when_told, gate, nursery=nursery)
        close_connections(None)
        await trio.to_thread.run_sync(gate.write_bytes, b"")
        assert (await process.wait()).value == "done"
