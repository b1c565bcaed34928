"""Deployments of a farm that pass the same tests, and what each of them promises."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

import pytest

import parallel
from parallel.farm import Deployment

from ..programs import tasks
from ..support import ROOT

CLOSURES, ASYNC, SETUP, ASYNC_SETUP, TIMEOUTS, KILLS = (
    "closures",
    "async functions",
    "setup",
    "async setup",
    "timeouts",
    "kills",
)
"""What some deployments promise, and others refuse."""


@dataclass
class Place:
    """A deployment, and which of these it promises."""

    deployment: Deployment
    promises: set[str] = field(default_factory=set[str])

    def open_farm(self, **options: Any) -> AbstractContextManager[Any]:
        return parallel.open_farm(self.deployment, **options)  # type: ignore[return-value]


@functools.cache
def others() -> list[str]:
    """The Pythons of this machine that have another version than this one."""
    found = subprocess.run([ROOT / ".ci/pythons"], capture_output=True, text=True, check=True)
    mine = sys.version_info.minor
    minor = re.compile(rf"(python|versions/)3\.{mine}\b")
    return [path for path in found.stdout.split() if not minor.search(path)] or [sys.executable]


@contextmanager
def loky() -> Iterator[futures.Executor]:
    from loky import ProcessPoolExecutor

    with ProcessPoolExecutor(2) as executor:
        yield warm(executor)


@contextmanager
def process_pool() -> Iterator[futures.Executor]:
    with futures.ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        yield warm(executor)


def warm(executor: futures.Executor) -> futures.Executor:
    """It starts its processes when they are wanted first: now, not within a test."""
    assert len(list(executor.map(tasks.short_of_breath, [0.2] * 4))) == 4
    return executor


EXECUTORS: dict[str, Callable[[], AbstractContextManager[futures.Executor]]] = {
    "threads": lambda: futures.ThreadPoolExecutor(2),
    "process pool": process_pool,
    "loky": loky,
}
needs_loky = [pytest.mark.packages("loky"), pytest.mark.slow]
KINDS = [
    "sequential",
    "two in turns",
    "threads",
    "process pool",
    pytest.param("loky", marks=needs_loky),
    "other Pythons",
]
EXECUTOR = {CLOSURES, ASYNC, SETUP}
ALL = {CLOSURES, ASYNC, SETUP, ASYNC_SETUP, TIMEOUTS, KILLS}
