"""Ctrl-C while a farm is at work: the program ends with it, and nothing is left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ..support import IMPORT_PATH, ROUNDS
from ..terminals import is_one_traceback, on_terminal

PROGRAM = Path(__file__).parents[1] / "programs" / "interrupted_farm.py"


SCENES = ["in_map", "in_endless_map", "in_submit"]


def interrupt(scene: str, delay: float) -> str:
    """By a signal to the root alone; what it says then."""
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), scene],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": IMPORT_PATH},
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        time.sleep(delay)
        program.send_signal(signal.SIGINT)
        _, said = program.communicate(timeout=25)
        assert program.returncode in (1, -signal.SIGINT), said
        return said


@pytest.mark.parametrize("scene", SCENES)
def test_ctrl_c_on_a_terminal_ends_the_farm_with_one_traceback(scene: str, mark: str) -> None:
    """The terminal sends it to the whole group of processes that is in its foreground."""
    with on_terminal(f"{mark}-1", PROGRAM, scene) as program:
        program.wait_for("ready")
        program.press()
        assert program.wait() == -signal.SIGINT, program.output
        assert is_one_traceback(program.said.replace("ready\n", "")), program.output


@pytest.mark.parametrize("scene", SCENES)
def test_an_interrupt_ends_the_farm_and_its_tasks_at_once(scene: str, mark: str) -> None:
    said = interrupt(scene, 0.0)
    assert said.splitlines()[-1] == "KeyboardInterrupt", said


@pytest.mark.slow
def test_an_interrupt_at_any_moment_ends_a_busy_farm(mark: str) -> None:
    for _ in range(max(2, ROUNDS // 4)):
        said = interrupt("in_endless_map", random.random() * 0.2)
        assert said.splitlines()[-1] == "KeyboardInterrupt", said
