"""One tree for all tests that only use one: to start it takes most of their time.

A test with the fixture `tree` runs in the tree that the one before had, if that had one and passed,
and the same hosts: the root's, and those that a mark `hosts` names. It has to leave it as it was:
without a process more. Tests that look at how a tree begins or ends, or at what its processes print
or are marked with, have one of their own: see `is_shared`.

The event loop is trio's guest mode: it stands still between two tests.
"""

from __future__ import annotations

import os
import queue
import sys
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

import outcome
import pytest
import trio
import trio.testing

import parallel
from parallel.launch.local import Local

from . import support

Function = Callable[[], Awaitable[Any]]

OWN = {"mark", "capfd", "capsys", "no_coredump", "few_files", "many_open_files", "autojump_clock"}
"""Fixtures that a tree has to be started after, or that look at its processes."""

PRELOAD = ["pytest", "hypothesis", "numpy", "trio.testing", "parallel.farm.serving"]
"""What workers import with the modules of the tests: it takes them longer than all else."""

PATIENCE = 2.0
"""Seconds that a test's processes have to end after it."""


def is_shared(item: pytest.Item) -> bool:
    """Whether a test runs in the common tree."""
    names = getattr(item, "fixturenames", ())
    if "tree" not in names or item.get_closest_marker("own_tree"):
        return False
    definitions = item._fixtureinfo.name2fixturedefs  # type: ignore[attr-defined]
    asked = {*item._fixtureinfo.argnames}  # type: ignore[attr-defined]
    for name in definitions.keys() - {"mark"}:
        asked |= {*definitions[name][-1].argnames}
    return not asked & OWN


def hosts_of(item: pytest.Item) -> tuple[str, ...]:
    """Those that a test has beside the root's own."""
    marker = item.get_closest_marker("hosts")
    return marker.args if marker is not None else ()


def init_with(hosts: tuple[str, ...]) -> AbstractAsyncContextManager[None]:
    """`parallel.init` with these hosts, which are this machine."""
    launchers = [Local(name=name, python=sys.executable) for name in hosts]
    cluster = parallel.Cluster(launchers) if hosts else None
    return parallel.init(cluster=cluster, preload=PRELOAD, grace=2.0)


class Tree:
    """An event loop within `init`, which runs one test after the other."""

    def __init__(self, hosts: tuple[str, ...]) -> None:
        self.hosts = hosts
        self.calls: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self.send, self.functions = trio.open_memory_channel[Function](1)
        self.result: outcome.Outcome[Any] | None = None
        self.mark = uuid.uuid4().hex
        self.failed = False
        trio.lowlevel.start_guest_run(
            self._serve,
            run_sync_soon_threadsafe=self.calls.put,
            done_callback=self._tell,
        )
        self._wait()

    def _tell(self, result: outcome.Outcome[Any]) -> None:
        self.result = result

    def _wait(self) -> Any:
        """Let the loop go on until it says something."""
        while self.result is None:
            self.calls.get()()
        result, self.result = self.result, None
        return result.unwrap()

    async def _serve(self) -> None:
        self.token = trio.lowlevel.current_trio_token()
        os.environ[support.MARK] = self.mark
        async with init_with(self.hosts):
            del os.environ[support.MARK]  # what others start between two tests is not its own
            self._tell(outcome.Value(None))
            async for function in self.functions:
                self._tell(await outcome.acapture(self._run, function))

    async def _run(self, function: Function) -> Any:
        value = await function()
        await trio.testing.wait_all_tasks_blocked(0.005)  # what is closed in the background
        with trio.move_on_after(PATIENCE):
            while left := await self._left():
                await trio.sleep(0.01)
        assert not left, f"processes left behind: {left}"
        return value

    async def _left(self) -> list[str]:
        children = (await parallel.processes()).children
        return [child.name for child in children if child.name != "agent"]

    def run(self, function: Function) -> Any:
        """Run a test."""
        self.token.run_sync_soon(self.send.send_nowait, function)
        try:
            return self._wait()
        except BaseException:
            self.failed = True
            raise

    def close(self) -> None:
        """Leave `init`; nothing is left then."""
        with suppress(trio.RunFinishedError):  # it has failed in the middle of a test
            self.token.run_sync_soon(self.send.close)
            self._wait()
        left = support.wait_until_gone(self.mark, 1.0)
        support.kill_all(left)
        assert not left, f"processes left behind: {left}"


_tree: Tree | None = None


def prepare(hosts: tuple[str, ...] | None) -> None:
    """Before a test: have a tree with these hosts or none."""
    global _tree
    if _tree is not None and (_tree.hosts != hosts or _tree.failed):
        tree, _tree = _tree, None
        tree.close()
    if hosts is not None and _tree is None:
        _tree = Tree(hosts)


def is_open() -> bool:
    """Whether this test runs in the common tree."""
    return _tree is not None


def run(function: Function, *, clock: object, instruments: object) -> Any:
    """As `trio.run`, for a test in the common tree."""
    assert _tree is not None
    return _tree.run(function)
