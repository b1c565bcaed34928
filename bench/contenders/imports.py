"""Imports: whole interpreters, from start to exit, that import one thing."""

import importlib.util
import subprocess
import sys

from bench.clock import timed
from bench.turns import Turns


def parallel(turns: Turns) -> None:
    """Import what a program uses of parallel: its names are loaded when they are used first."""
    interpret(turns, "parallel", "from parallel import Channel, Hub, init, run, spawn")


def parallel_unused(turns: Turns) -> None:
    """Import parallel and use nothing of it."""
    interpret(turns, "parallel", "import parallel")


def trio(turns: Turns) -> None:
    """Import trio."""
    interpret(turns, "trio", "import trio")


def nothing(turns: Turns) -> None:
    """Import what every interpreter has imported anyway."""
    interpret(turns, "sys", "import sys")


def interpret(turns: Turns, module: str, statement: str) -> None:
    """Time interpreters that execute a statement, if there is that module."""
    if importlib.util.find_spec(module) is None:
        turns.missing(f"module {module}")
        return
    command = [sys.executable, "-c", statement]
    for operations in turns:
        turns.report(
            [timed(lambda: subprocess.run(command, check=True)) for _ in range(operations)]
        )
