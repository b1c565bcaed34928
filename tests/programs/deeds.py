"""What workers do to themselves, and values that misbehave on their way.

Light on imports: every worker loads it.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import ctypes
import mmap
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import trio

import parallel

from . import growth

FOREVER = 1000


class OwnBaseError(BaseException):
    """No `Exception`."""


# Ends


def exit_at_once(code: int) -> NoReturn:
    os._exit(code)


def exit_properly(code: object) -> NoReturn:
    sys.exit(code)  # type: ignore[arg-type]


async def exit_from_a_task(code: object) -> None:
    async with trio.open_nursery(strict_exception_groups=True) as nursery:
        nursery.start_soon(trio.sleep_forever)
        sys.exit(code)  # type: ignore[arg-type]


def interrupt() -> NoReturn:
    raise KeyboardInterrupt


def raise_base_exception() -> NoReturn:
    raise OwnBaseError("of my own")


def raise_base_group() -> NoReturn:
    raise BaseExceptionGroup("both", [OwnBaseError("of my own"), ValueError("plain")])


def segfault() -> None:
    ctypes.string_at(0)


def abort() -> None:
    os.abort()


def kill_oneself(number: int) -> None:
    os.kill(os.getpid(), number)


def use_too_much_memory() -> int:
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    return len(bytearray(1 << 31))


def be_killed_for_memory(group: str) -> None:
    """In a control group with a limit, touch more than that."""
    Path(group, "cgroup.procs").write_text(str(os.getpid()))
    with mmap.mmap(-1, 1 << 28) as memory:
        for start in range(0, len(memory), mmap.PAGESIZE):
            memory[start] = 1


def close_all_descriptors() -> None:
    os.closerange(0, 1 << 16)


def in_async(function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    """The same from within an async function."""

    async def run() -> Any:
        await trio.lowlevel.checkpoint()
        value = function(*args)
        await trio.lowlevel.checkpoint()
        return value

    return run


# Standard streams and exits


def write_to_descriptors() -> str:
    os.write(1, b"to descriptor 1\n")
    os.write(2, b"to descriptor 2\n")
    print("printed")
    return "done"


def read_standard_input() -> tuple[bytes, str, str]:
    raw = os.read(0, 100)
    text = sys.stdin.read()
    try:
        line = input()
    except EOFError:
        line = "end of file"
    return raw, text, line


def leave_things_for_the_exit(path: str, value: object) -> object:
    def note(text: str) -> None:
        with open(path, "a") as file:
            file.write(f"{text}\n")

    def later() -> None:
        time.sleep(0.2)
        note("thread")

    atexit.register(note, "atexit")
    threading.Thread(target=later).start()
    threading.Thread(target=time.sleep, args=(FOREVER,), daemon=True).start()
    sys.stdout.write("unflushed")
    if isinstance(value, BaseException):
        raise value
    return value


def hang_at_exit(value: object) -> object:
    atexit.register(time.sleep, FOREVER)
    return value


def leave_a_thread(value: object) -> object:
    threading.Thread(target=time.sleep, args=(FOREVER,)).start()
    return value


# Forks


def fork_and_return(value: object) -> object:
    growth.fork_helper()
    return value


def return_twice(path: str) -> str:
    """The forked copy returns from this function as well."""
    if os.fork() == 0:
        Path(path).write_text("was here")
        return "from the copy"
    while not (os.path.exists(path) and os.path.getsize(path)):
        time.sleep(0.001)
    return "from the original"


def use_multiprocessing(method: str) -> list[int]:
    context = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        return pool.map(abs, [-1, -2, -3])


def use_executor() -> list[int]:
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        return list(pool.map(abs, [-1, -2, -3]))


# Programs of a worker's own


def start_everything() -> None:
    for start in growth.STARTERS:
        start()


def start_and_return() -> str:
    start_everything()
    return "returned"


def start_and_raise() -> NoReturn:
    start_everything()
    raise ValueError("on purpose")


def start_and_sleep(path: str) -> None:
    start_everything()
    Path(path).touch()
    time.sleep(FOREVER)


async def start_and_sleep_async(path: str) -> None:
    start_everything()
    Path(path).touch()
    await trio.sleep_forever()


def start_a_stubborn_program(path: str) -> None:
    """A shell that ignores whatever can be ignored, and its own child."""
    subprocess.Popen(["sh", "-c", "trap '' TERM HUP INT; sleep 1000 & wait; sleep 1000"])
    Path(path).touch()
    time.sleep(FOREVER)


# Ignoring cancellation


def begin(path: str) -> None:
    """Tell that the function runs."""
    Path(path).touch()


async def shield_itself(path: str) -> None:
    begin(path)
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()


async def swallow_cancellation(path: str) -> None:
    begin(path)
    while True:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            pass


async def hang_in_finally(path: str) -> None:
    begin(path)
    try:
        await trio.sleep_forever()
    finally:
        time.sleep(FOREVER)


async def never_await(path: str) -> None:
    begin(path)
    while True:
        pass


async def stop_itself(path: str) -> None:
    begin(path)
    os.kill(os.getpid(), signal.SIGSTOP)


def ignore_sigterm(path: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    begin(path)
    time.sleep(FOREVER)


def swallow_everything(path: str) -> None:
    signal.signal(signal.SIGTERM, lambda *_: None)
    begin(path)
    growth.swallow_interruptions()


async def hold_the_interpreter_lock(path: str) -> None:
    begin(path)
    growth.hold_the_interpreter_lock()


def hold_the_interpreter_lock_in_sync(path: str) -> None:
    signal.signal(signal.SIGTERM, lambda *_: None)
    begin(path)
    growth.hold_the_interpreter_lock()


def compute_for_ever(path: str) -> None:
    begin(path)
    growth.compute_for_ever()


def sleep_in_sync(path: str) -> None:
    begin(path)
    time.sleep(FOREVER)


async def sleep_above(function: Callable[[str], Any], path: str) -> None:
    """The ignorant one is a grandchild."""
    await parallel.run(function, path)


async def clean_up(path: str) -> None:
    begin(path)
    try:
        await trio.sleep_forever()
    finally:
        Path(path).write_text("cleaned up")


async def answer_despite_cancellation(path: str) -> str:
    begin(path)
    try:
        await trio.sleep_forever()
    except trio.Cancelled:
        return "a value"
    return "never"


async def raise_despite_cancellation(path: str) -> None:
    begin(path)
    try:
        await trio.sleep_forever()
    finally:
        raise ValueError("on the way out")


# Values that misbehave on their way


def misbehave(how: str) -> str:
    match how:
        case "error":
            raise ValueError("on purpose")
        case "exit":
            sys.exit(3)
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "hang":
            time.sleep(FOREVER)
    return how


def misbehave_elsewhere(how: str, pid: int) -> object:
    """While being unpickled in another process than the one with that pid."""
    return misbehave(how) if os.getpid() != pid else UnpicklesBadly(how)


class UnpicklesBadly:
    def __init__(self, how: str) -> None:
        self.how = how

    def __reduce__(self) -> tuple[Any, ...]:
        return misbehave_elsewhere, (self.how, os.getpid())


class PicklesBadly:
    def __init__(self, how: str) -> None:
        self.how = how

    def __reduce__(self) -> tuple[Any, ...]:
        misbehave(self.how)
        return PicklesBadly, (self.how,)


class PicklesBadlyError(Exception):
    def __init__(self, how: str) -> None:
        super().__init__(f"pickling it does {how}")
        self.how = how

    def __reduce__(self) -> tuple[Any, ...]:
        misbehave(self.how)
        return PicklesBadlyError, (self.how,)


class UnpicklesBadlyError(Exception):
    def __init__(self, how: str) -> None:
        super().__init__(f"unpickling it does {how}")
        self.how = how

    def __reduce__(self) -> tuple[Any, ...]:
        return misbehave_elsewhere, (self.how, os.getpid())


class TwoArgumentsError(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text} ({code})")
        self.code = code


class BadTextError(Exception):
    def __init__(self, how: str) -> None:
        self.how = how

    def __str__(self) -> str:
        return misbehave(self.how)


def take(value: object) -> str:
    return "taken"


def give(kind: type[Any], *args: Any) -> Any:
    return kind(*args)


def fail(kind: type[BaseException], *args: Any) -> NoReturn:
    raise kind(*args)


async def give_async(kind: type[Any], *args: Any) -> Any:
    return kind(*args)


async def fail_async(kind: type[BaseException], *args: Any) -> NoReturn:
    raise kind(*args)


async def echo(hub: parallel.Hub[int, int]) -> str:
    async for client, number in hub:
        await hub.send(client, number)
    return "served"
