"""Ctrl-C on a terminal: the root alone hears it, and ends its tree.

The programs are in `programs/interrupted.py`; each has a terminal of its own.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import trio

from .programs import growth
from .support import IMPORT_PATH, MARK, ROUNDS
from .terminals import Terminal, is_one_group, is_one_traceback, on_terminal

PROGRAM = Path(__file__).with_name("programs") / "interrupted.py"
AT_A_LINE = Path(__file__).with_name("programs") / "interrupted_at_a_line.py"
LONG = 30.0


def terminal(mark: str, scene: str, grace: float = LONG) -> AbstractContextManager[Terminal]:
    return on_terminal(mark, PROGRAM, scene, str(grace))


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
    assert say(lines, str(-(-ROUNDS // 2) if scene == "cluster" else ROUNDS)) == ""
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
