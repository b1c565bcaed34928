"""A batch as an executor runs it, in whatever process or thread that happens to be."""

from __future__ import annotations

import atexit
import functools
import inspect
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any, NamedTuple

import trio

from .._pickled import dumps, loads
from ..errors import ParallelError
from ..failure import Failure
from .surroundings import Surroundings, no_manager, within


class Outcome(NamedTuple):
    """What came of a batch, pickled piece by piece: what cannot be read is one task's matter."""

    results: list[tuple[int, bytes, float, bool]]
    """Of each task its number, what it returned or how it failed, its seconds, and which it is."""
    unreadable: str | None = None
    """"setup", "function" or "arguments", if that could not be had here."""
    error: bytes = b""


class _Surrounded(NamedTuple):
    surroundings: Surroundings
    stack: ExitStack


_surrounded: dict[tuple[str, int], _Surrounded] = {}
"""By farm and thread: nobody tells an executor's threads apart but they themselves."""


def enter_farm(farm: str, setup: bytes) -> bytes | None:
    """Have what surrounds the tasks of that farm in this thread; what was raised, pickled."""
    try:
        _surroundings(farm, setup)
    except Exception as exc:
        return dumps(Failure(exc, skip=1))
    return None


def leave_farm(farm: str) -> None:
    """The farm is over: leave what surrounded its tasks in all threads of this process."""
    with ExitStack() as stacks:
        for key in [key for key in _surrounded if key[0] == farm]:
            stacks.push(_surrounded.pop(key).stack)
    _function.cache_clear()


@atexit.register
def _leave_all() -> None:
    for farm in {farm for farm, _ in _surrounded}:
        leave_farm(farm)


def run_batch(
    farm: str,
    setup: bytes,
    function: tuple[int, bytes],
    arguments: bytes,
    tasks: list[int],
    dropped: frozenset[int],
) -> Outcome:
    """Run those tasks that are not dropped."""
    what = "setup"
    try:
        here = _surroundings(farm, setup)
        what = "function"
        fn = _function(farm, *function)
        what = "arguments"
        calls = zip(tasks, loads(arguments, "the arguments"), strict=True)
    except Exception as exc:
        return Outcome([], what, dumps(Failure(exc, skip=1)))
    with within(here):
        return Outcome([_call(fn, args, task) for task, args in calls if task not in dropped])


def _surroundings(farm: str, setup: bytes) -> Surroundings:
    key = farm, threading.get_ident()
    if key in _surrounded:
        return _surrounded[key].surroundings
    here = Surroundings()
    with ExitStack() as stack:
        stack.callback(here.close)
        make = loads(setup, "setup")
        if make is not None:
            manager = make()
            if hasattr(manager, "__aenter__") and not hasattr(manager, "__enter__"):
                raise ParallelError(
                    "an async setup needs a worker of its own that goes on between its tasks, and "
                    "an executor has none: let setup return a plain context manager"
                )
            if not isinstance(manager, AbstractContextManager):
                raise no_manager(manager)
            here.state = stack.enter_context(manager)
        _surrounded[key] = _Surrounded(here, stack.pop_all())
    return here


@functools.lru_cache(maxsize=64)
def _function(_farm: str, _job: int, data: bytes) -> Callable[..., Any]:
    """It comes with each batch, and is unpickled once."""
    fn: Callable[..., Any] = loads(data, "the function")
    return fn


def _call(
    fn: Callable[..., Any], args: tuple[Any, ...], task: int
) -> tuple[int, bytes, float, bool]:
    start = time.perf_counter()
    try:
        value = fn(*args)
        if inspect.isawaitable(value):
            value = trio.run(_wait_for, value)
        seconds = time.perf_counter() - start
        return task, dumps(value, "the result"), seconds, False
    except Exception as exc:
        return task, dumps(Failure(exc, skip=1)), time.perf_counter() - start, True


async def _wait_for(value: Any) -> Any:
    return await value
