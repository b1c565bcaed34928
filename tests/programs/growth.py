"""What the root programs grow: a cascade whose workers have started things by themselves.

Light on imports: it is loaded by a new process in every round.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import trio

import parallel

MARK = "PARALLEL_TEST"
FOREVER = 1000


# What a process may have started


def start_plain_program() -> None:
    subprocess.Popen(["sleep", str(FOREVER)])


def start_program_in_own_session() -> None:
    subprocess.Popen(["sleep", str(FOREVER)], start_new_session=True)


def start_daemon() -> None:
    """Twice forked and in a session of its own; its parent is whoever adopts orphans."""
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                os.execvp("sleep", ["sleep", str(FOREVER)])
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def fork_helper(prepare: Callable[[], object] = bool) -> int:
    """A copy of this process that executes nothing else."""
    pid = os.fork()
    if pid == 0:
        try:
            prepare()
            while True:
                time.sleep(FOREVER)
        finally:
            os._exit(0)
    return pid


def start_multiprocessing_helper(prepare: Callable[[], object] = bool) -> int:
    helper = multiprocessing.get_context("fork").Process(
        target=_sleep, args=(prepare,), daemon=True
    )
    helper.start()
    assert helper.pid is not None
    return helper.pid


def _sleep(prepare: Callable[[], object]) -> None:
    prepare()
    time.sleep(FOREVER)


STARTERS: tuple[Callable[[], object], ...] = (
    start_plain_program,
    start_program_in_own_session,
    start_daemon,
    fork_helper,
    start_multiprocessing_helper,
)


# What the innermost process does


async def sleep_for_ever() -> None:
    await trio.sleep_forever()


async def ignore_cancellation() -> None:
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()


def swallow_interruptions() -> None:
    while True:
        try:
            time.sleep(FOREVER)
        except BaseException:
            continue


def hold_the_interpreter_lock() -> None:
    """In C code that no signal gets out of: it locks a mutex twice."""
    library = ctypes.PyDLL(None)
    mutex = ctypes.create_string_buffer(128)
    for _ in range(2):
        library.pthread_mutex_lock(mutex)


def compute_for_ever() -> None:
    while True:
        pass


LEAVES: tuple[Callable[[], object], ...] = (
    sleep_for_ever,
    ignore_cancellation,
    swallow_interruptions,
    hold_the_interpreter_lock,
    compute_for_ever,
)


async def nest(levels: int, seed: str, talk: bool = False) -> None:
    """Go `levels` deep, starting something at each level; never returns."""
    rng = random.Random(f"{seed} {levels}")
    if talk:
        os.write(1, b"level\n")
    if rng.random() < 0.7:
        rng.choice(STARTERS)()
    if levels > 2:
        grow = nest_in_own_loop if rng.random() < 0.1 else nest
        await parallel.run(grow, levels - 1, seed, talk)
    else:
        await parallel.run(rng.choices(LEAVES, (3, 3, 3, 3, 1))[0])  # one takes a whole processor


def nest_in_own_loop(levels: int, seed: str, talk: bool) -> None:
    """A sync function with a loop of its own."""
    trio.run(nest, levels, seed, talk)


# Looking


def marked(mark: str) -> dict[int, str]:
    """Every living process with the mark: pid and command."""
    wanted = f"{MARK}={mark}".encode()
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            entry = Path("/proc", name)
            try:
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    state = (
                        (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
                    )
                    if state != "Z":
                        found[int(name)] = (entry / "comm").read_text(errors="replace").strip()
            except OSError:
                continue  # gone in the meantime
    return found


def children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found
