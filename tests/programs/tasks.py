"""Tasks that any Python can import: this module needs the standard library alone."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path


def square(x: int) -> int:
    return x * x


def plus(x: int, y: int) -> int:
    return x + y


def joined(x: str, y: str) -> str:
    return x + y


def text(x: int) -> str:
    return str(x)


def over_20(x: int) -> int | None:
    return x if x > 20 else None


def minor(_: object) -> int:
    return sys.version_info.minor


def fails_at_7(x: int) -> int:
    if x == 7:
        raise ValueError("seven", x)
    return x


def lock_at_7(x: int) -> object:
    return threading.Lock() if x == 7 else x


class Unloadable:
    """Can be pickled, and not unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return refuse, ("unloadable",)


def refuse(why: str) -> None:
    raise RuntimeError(why)


def unloadable_at_7(x: int) -> object:
    return Unloadable() if x == 7 else x


def same(x: object) -> object:
    return x


def short_of_breath(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def dies_once_at_7(task: tuple[int, str]) -> int:
    """The file tells that it has died."""
    x, path = task
    if x == 7:
        try:
            Path(path).touch(exist_ok=False)
        except FileExistsError:
            return x
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def faulty(task: tuple[int, str, str]) -> int:
    """What may go wrong with it, and a file by which it knows what has."""
    x, fault, path = task
    if fault == "raises":
        raise ValueError("as told", x)
    if fault == "takes long":
        time.sleep(0.03)
    if fault == "dies once":
        try:
            Path(path).touch(exist_ok=False)
        except FileExistsError:
            return x * x
        os.kill(os.getpid(), signal.SIGKILL)
    return x * x


def faultless(task: tuple[int, str, str]) -> tuple[str, object]:
    """What has to come of it."""
    x, fault, _ = task
    return ("error", ("as told", x)) if fault == "raises" else ("value", x * x)


def dies(x: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return x


async def pause(seconds: float) -> float:
    import trio

    await trio.sleep(seconds)
    return seconds


@contextlib.contextmanager
def counter() -> Iterator[list[int]]:
    """A setup: what was counted, and whether it is over."""
    state = [0]
    yield state
    state.append(-1)


@contextlib.asynccontextmanager
async def async_counter():  # type: ignore[no-untyped-def]
    """Another."""
    yield [0]


def bad_setup() -> object:
    raise LookupError("there is no such database")


def count(_: object) -> int:
    from parallel.farm import worker_state

    worker_state()[0] += 1
    return worker_state()[0]
