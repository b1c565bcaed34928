"""`Process`: what its caller sees, and when."""

from __future__ import annotations

import atexit
import os
from pathlib import Path
from typing import Any

import pytest
import trio

import parallel


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
