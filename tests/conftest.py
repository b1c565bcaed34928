"""After every test nothing is left: no process, no descriptor."""

from __future__ import annotations

import gc
import os
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

import parallel

from . import support
from .connections import Pair, connected


def pytest_collection_finish() -> None:
    """What is loaded by now stays: without it the collections below take 2 ms instead of 80."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def mark(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The mark of this test's processes; afterwards there must be none, and no descriptor more."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv(support.MARK, mark)
    monkeypatch.setenv("PYTHON_COLORS", "0")  # tracebacks are compared as text
    gc.collect()
    before = support.open_descriptors()
    yield mark
    left = support.wait_until_gone(mark, 1.0)
    support.kill_all(left)
    assert not left, f"processes left behind: {left}"
    gc.collect()
    after = support.open_descriptors()
    new = {number: what for number, what in after.items() if before.get(number) != what}
    assert len(after) <= len(before), f"descriptors left open: {new}"


@pytest.fixture
async def tree() -> AsyncIterator[None]:
    """Inside `parallel.init`."""
    async with parallel.init(grace=2.0):
        yield


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    """The two ends of a connection, without a tree."""
    with connected() as both:
        yield both


@pytest.fixture
def no_coredump() -> Iterator[None]:
    """For tests that crash on purpose."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, limits[1]))
    os.environ.setdefault("PYTHONFAULTHANDLER", "")
    yield
    resource.setrlimit(resource.RLIMIT_CORE, limits)
