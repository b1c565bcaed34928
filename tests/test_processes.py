"""`processes()`: the tree of running processes, as data and as text."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import trio

import parallel
from parallel._processes import ProcessInfo, render

from . import support


async def down(depth: int) -> None:
    """A cascade that waits at its end."""
    if depth:
        await parallel.run(down, depth - 1)
    else:
        await trio.sleep_forever()


async def look_from_here() -> str:
    return str(await parallel.processes())


async def burn(hub: parallel.Hub[None, float]) -> None:
    """Use half a second of processor time, then say how much, and wait."""
    while time.process_time() < 0.5:
        pass
    async for client, _ in hub:
        await hub.send(client, time.process_time())


async def allocate(hub: parallel.Hub[None, int], size: int) -> None:
    block = b"x" * size
    async for client, _ in hub:
        await hub.send(client, len(block))


async def test_the_tree_says_who_asked_for_whom(tree: None) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parallel.run, down, 2)
        nursery.start_soon(parallel.run, down, 0)
        await support.eventually(lambda: parallel.hosts()[0].running == 4)
        root = await parallel.processes()
        nursery.cancel_scope.cancel()
    assert root.pid == os.getpid()
    assert [info.name for info in root] == ["root", "down", "down", "down", "down"]
    depths = sorted(depth for _, depth in root.walk())
    assert depths == [0, 1, 1, 2, 3]
    assert len({info.pid for info in root}) == 5
    assert {info.host for info in root} == {"root"}


async def test_a_worker_sees_the_same_tree_and_itself_in_it(tree: None) -> None:
    text = await parallel.run(look_from_here)
    assert "look_from_here" in text
    assert str(os.getpid()) in text


async def test_the_name_that_a_process_was_given_is_shown(tree: None) -> None:
    async with trio.open_nursery() as nursery:

        async def start() -> None:
            await parallel.run(trio.sleep_forever, name="the sleeper")

        nursery.start_soon(start)
        await support.eventually(lambda: parallel.hosts()[0].running == 1)
        assert "the sleeper" in str(await parallel.processes())
        nursery.cancel_scope.cancel()


async def rename(hub: parallel.Hub[bytes, None]) -> None:
    """Be called as the client says, as far as the system lets it."""
    async for client, name in hub:
        Path("/proc/self/comm").write_bytes(name)
        await hub.send(client, None)


@support.in_turn("name", [b"gr\xc3\xb6\xc3", b") S 1 1 1", b"a\nb", b"\xff\xfe"])
async def test_whatever_a_process_calls_itself_it_stands_in_the_tree(
    tree: None, name: bytes
) -> None:
    async with parallel.spawn(rename) as (channel, process):
        await channel.send(name)
        await channel.receive()
        (info,) = (await parallel.processes()).children
        assert info.pid == process.pid
        assert info.memory and info.cpu is not None and info.started


async def read_own_name() -> str:
    return Path("/proc/self/comm").read_text()


async def test_a_long_name_is_cut_between_characters(tree: None) -> None:
    for name in ("a" * 20, "a" + "ö" * 20, "ö" * 20):
        assert len(await parallel.run(read_own_name, name=name)) > 5


async def test_processor_time_and_age_are_those_of_the_process(tree: None) -> None:
    async with parallel.spawn(burn) as (channel, _):
        await channel.send(None)
        used = await channel.receive()
        (info,) = (await parallel.processes()).children
    assert info.cpu is not None
    assert 0.4 <= info.cpu <= used + 0.5
    assert 0 <= time.time() - info.started < 60


async def test_memory_is_what_the_process_shares_with_nobody(tree: None) -> None:
    size = 50_000_000
    async with parallel.spawn(allocate, size) as (channel, _):
        await channel.send(None)
        assert await channel.receive() == size
        (info,) = (await parallel.processes()).children
    assert info.memory is not None
    assert size <= info.memory < size + 30_000_000


async def test_a_process_that_has_ended_is_not_in_the_tree(tree: None) -> None:
    await parallel.run(os.getpid)
    assert (await parallel.processes()).children == ()
    assert parallel.hosts()[0].running == 0


async def test_processes_outside_init_says_what_is_missing() -> None:
    with pytest.raises(parallel.ParallelError, match="init"):
        await parallel.processes()


def chain(depth: int) -> ProcessInfo:
    """A cascade as deep as you like."""
    info: tuple[ProcessInfo, ...] = ()
    for number in range(depth, 0, -1):
        info = (ProcessInfo(f"level {number}", "root", number, time.time(), 0.0, 2**20, info),)
    return info[0]


def test_a_deep_cascade_is_shown_whole() -> None:
    lines = render(chain(3000)).splitlines()
    assert len(lines) == 3001
    assert lines[-1].endswith("level 3000")


def test_the_text_has_a_line_for_each_process_with_its_figures() -> None:
    child = ProcessInfo("work", "root", 43, time.time() - 3725, 1.5, 5 * 2**20, ())
    root = ProcessInfo("root", "root", 42, time.time() - 5, None, None, (child,))
    title, first, second = str(root).splitlines()
    assert title.split() == ["PID", "HOST", "AGE", "CPU", "s", "MEMORY", "FUNCTION"]
    assert first.split() == ["42", "root", "5.0", "s", "-", "-", "root"]
    assert second.split() == ["43", "root", "1:02:05", "1.50", "5.0", "M", "work"]
    assert second.endswith("    work")
