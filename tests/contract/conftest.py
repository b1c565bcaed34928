"""Each test that takes a `place` runs on every deployment."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext
from multiprocessing import resource_tracker
from typing import Any

import pytest

import parallel
from parallel.farm import Executor, Interpreters, Processes, Sequential
from parallel.launch.local import Local

from ..support import ROOT
from .places import (
    ALL,
    ASYNC,
    ASYNC_SETUP,
    CLOSURES,
    EXECUTOR,
    EXECUTORS,
    KILLS,
    KINDS,
    SETUP,
    TIMEOUTS,
    Place,
    others,
)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Iterator[tuple[str, Any]]:
    """What runs the tasks, and the engine that takes longest to start."""
    resource_tracker.ensure_running()  # spawned processes have one, once for all
    with EXECUTORS.get(request.param, nullcontext)() as executor:
        yield request.param, executor


@pytest.fixture
async def place(kind: tuple[str, Any]) -> AsyncIterator[Place]:
    name, executor = kind
    match name:
        case "processes":
            async with parallel.init(grace=2.0):
                yield Place(Processes(2), ALL)
        case "processes of another host":
            cluster = parallel.Cluster([Local(name="far", python=sys.executable)])
            async with parallel.init(grace=2.0, cluster=cluster):
                yield Place(Processes({"far": 2}), ALL)
        case "sequential":
            yield Place(Sequential(), {CLOSURES, ASYNC, SETUP, ASYNC_SETUP})
        case "two in turns":
            yield Place(Sequential(2), {CLOSURES, ASYNC, SETUP, ASYNC_SETUP})
        case "other Pythons":
            argvs = [["env", f"PYTHONPATH={ROOT}", python] for python in others()]
            yield Place(Interpreters((argvs * 2)[:2]), {TIMEOUTS, KILLS})
        case _:
            yield Place(Executor(executor, workers=2), EXECUTOR)
