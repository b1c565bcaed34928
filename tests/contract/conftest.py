"""Each test that takes a `place` runs on every deployment; on processes all do in one tree."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext
from multiprocessing import resource_tracker
from typing import Any

import pytest

from parallel.farm import Executor, Interpreters, Sequential

from ..support import ROOT
from .places import (
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

# Spawned processes have one, once for all: now, so that it belongs to no test's tree.
resource_tracker.ensure_running()


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Iterator[tuple[str, Any]]:
    """What runs the tasks, and the engine that takes longest to start."""
    with EXECUTORS.get(request.param, nullcontext)() as executor:
        yield request.param, executor


@pytest.fixture
async def place(kind: tuple[str, Any]) -> AsyncIterator[Place]:
    name, executor = kind
    match name:
        case "sequential":
            yield Place(Sequential(), {CLOSURES, ASYNC, SETUP, ASYNC_SETUP})
        case "two in turns":
            yield Place(Sequential(2), {CLOSURES, ASYNC, SETUP, ASYNC_SETUP})
        case "other Pythons":
            argvs = [["env", f"PYTHONPATH={ROOT}", python] for python in others()]
            yield Place(Interpreters((argvs * 2)[:2]), {TIMEOUTS, KILLS})
        case _:
            yield Place(Executor(executor, workers=2), EXECUTOR)
