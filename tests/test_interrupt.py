"""Ctrl-C on a terminal: the root alone hears it, and ends its tree.

The programs are in `programs/interrupted.py`; each has a terminal of its own.
"""

from __future__ import annotations

import os
import pty
import random
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from .programs import growth
from .support import IMPORT_PATH, MARK, ROUNDS

PROGRAM = Path(__file__).with_name("programs") / "interrupted.py"
AT_A_LINE = Path(__file__).with_name("programs") / "interrupted_at_a_line.py"
LONG = 30.0
AT_ONCE = 10.0
CTRL_C = b"\x03"


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, mark: str, scene: str, grace: float) -> None:
        self.mark = mark
        environment = {**os.environ, MARK: mark, "PYTHONPATH": IMPORT_PATH}
        arguments = [sys.executable, str(PROGRAM), scene, str(grace)]
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            os.execve(sys.executable, arguments, environment)
        self.output = ""

    def read(self, seconds: float) -> bool:
        """Once; False at the end."""
        if not select.select([self.descriptor], [], [], seconds)[0]:
            raise TimeoutError(f"it is silent after {self.output!r}")
        try:
            data = os.read(self.descriptor, 1 << 16)
        except OSError:
            return False  # the last one has closed it
        self.output += data.decode().replace("\r\n", "\n")
        return bool(data)

    def wait_for(self, word: str, count: int = 1) -> None:
        deadline = time.monotonic() + AT_ONCE
        while self.output.count(f"{word}\n") < count:
            assert self.read(deadline - time.monotonic()), self.output

    def press(self, key: bytes = CTRL_C) -> None:
        os.write(self.descriptor, key)

    def wait(self, seconds: float = AT_ONCE) -> int:
        """Until the program has ended; its returncode. Nothing of it is left then."""
        deadline = time.monotonic() + seconds
        while self.read(deadline - time.monotonic()):
            pass
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        assert growth.marked(self.mark) == {}, self.output
        return os.waitstatus_to_exitcode(status)

    @property
    def said(self) -> str:
        """Without what the terminal shows of the key."""
        return self.output.replace("^C", "")

    def close(self) -> None:
        for pid in growth.marked(self.mark):
            os.kill(pid, signal.SIGKILL)
        if self.pid:
            os.waitpid(self.pid, 0)
        os.close(self.descriptor)


@contextmanager
def terminal(mark: str, scene: str, grace: float = LONG) -> Iterator[Terminal]:
    program = Terminal(mark, scene, grace)
    try:
        yield program
    finally:
        program.close()


ONE_TRACEBACK = re.compile(
    r"Traceback \(most recent call last\):\n( .*\n|\n)+KeyboardInterrupt\n", re.MULTILINE
)


ONE_GROUP = re.compile(
    r"  \+ Exception Group Traceback \(most recent call last\):\n"
    r"(  \|  .*\n)+"
    r"  \| (BaseExceptionGroup|trio\.MultiError): .*\n"  # the second before trio 0.25
    r"  \+-\+-+ 1 -+\n"
    r"    \| Traceback \(most recent call last\):\n"
    r"(    \|  .*\n)+"
    r"    \| KeyboardInterrupt\n"
    r"    \+-+\n",
    re.MULTILINE,
)


def is_one_group(text: str) -> bool:
    """A traceback of a group with one interrupt in it, and nothing but that."""
    return ONE_GROUP.fullmatch(text) is not None


def is_one_traceback(text: str) -> bool:
    """And nothing but that."""
    return ONE_TRACEBACK.fullmatch(text) is not None


@pytest.mark.parametrize(
    "scene",
    [
        "cascade",
        "sync function",
        "sleeping sync function",
        "block",
        "receive",
        "own code",
        "idle",
    ],
)
def test_an_interrupt_ends_the_tree_with_one_traceback_and_pythons_exit_status(
    scene: str, mark: str
) -> None:
    with terminal(f"{mark}-1", scene) as program:
        program.wait_for("ready")
        program.press()
        assert program.wait() == -signal.SIGINT
        assert is_one_traceback(program.said.removeprefix("ready\n")), program.output


def test_an_interrupt_ends_a_crowd_of_workers_without_a_word_of_theirs(mark: str) -> None:
    with terminal(f"{mark}-1", "crowd") as program:
        program.wait_for("ready", 10)
        program.press()
        assert program.wait() == 1  # as for any group of exceptions
        assert is_one_group(program.said.removeprefix(10 * "ready\n")), program.output


@pytest.mark.parametrize("scene", ["stubborn", "stubborn cascade", "stubborn block"])
def test_a_second_interrupt_skips_grace(scene: str, mark: str) -> None:
    with terminal(f"{mark}-1", scene) as program:
        program.wait_for("ready")
        program.press()
        program.wait_for("cleaning up")
        program.press()
        assert program.wait() == -signal.SIGINT
        said = program.said.removeprefix("ready\n").removeprefix("cleaning up\n")
        assert is_one_traceback(said), program.output


def test_without_a_second_interrupt_a_stubborn_worker_has_its_grace(mark: str) -> None:
    with terminal(f"{mark}-1", "stubborn", grace=0.5) as program:
        program.wait_for("ready")
        program.press()
        start = time.monotonic()
        assert program.wait() == -signal.SIGINT
        assert 0.4 < time.monotonic() - start < 1.5
        said = program.said.removeprefix("ready\n").removeprefix("cleaning up\n")
        assert is_one_traceback(said), program.output


def test_an_interrupt_while_init_is_left_skips_grace(mark: str) -> None:
    with terminal(f"{mark}-1", "leaving") as program:
        program.wait_for("cleaning up")
        program.press()
        assert program.wait() == 1  # as for any group of exceptions
        assert is_one_group(program.said.removeprefix("ready\ncleaning up\n")), program.output


@pytest.mark.slow
@pytest.mark.parametrize("scene", ["run", "block", "nursery", "hub", "cluster"])
def test_an_interrupt_at_any_line_of_the_package_ends_the_program_and_leaves_nothing(
    scene: str, mark: str
) -> None:
    environment = {**os.environ, MARK: mark, "PYTHONPATH": IMPORT_PATH}

    def say(*arguments: str) -> str:
        command = [sys.executable, str(AT_A_LINE), scene, *arguments]
        return subprocess.check_output(command, env=environment, text=True)

    lines = say("0", "0").strip()
    assert say(lines, str(ROUNDS // 2 if scene == "cluster" else ROUNDS)) == ""
    assert growth.marked(mark) == {}


@pytest.mark.slow
async def test_an_interrupt_at_any_moment_leaves_nothing(mark: str) -> None:
    limit = trio.CapacityLimiter(8)
    async with trio.open_nursery() as nursery:
        for number in range(ROUNDS):
            nursery.start_soon(interrupt_at_random, f"{mark}-{number}", limit)


async def interrupt_at_random(mark: str, limit: trio.CapacityLimiter) -> None:
    await trio.to_thread.run_sync(interrupt_in_thread, mark, limiter=limit)


def interrupt_in_thread(mark: str) -> None:
    with terminal(mark, "any moment") as program:
        program.wait_for("ready")
        time.sleep(random.random() * 0.5)
        program.press()
        assert program.wait() == -signal.SIGINT, program.output
        assert is_one_traceback(program.said.removeprefix("ready\n")), program.output
