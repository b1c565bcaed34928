"""Imports: whole interpreters, from start to exit, that import one thing."""

import importlib.util
import subprocess
import sys

from bench.clock import timed
from bench.turns import Turns


def parallel(turns: Turns) -> None:
    """Import parallel."""
    interpret(turns, "parallel")


def trio(turns: Turns) -> None:
    """Import trio."""
    interpret(turns, "trio")


def nothing(turns: Turns) -> None:
    """Import what every interpreter has imported anyway."""
    interpret(turns, "sys")


def interpret(turns: Turns, module: str) -> None:
    """Time interpreters that import a module."""
    if importlib.util.find_spec(module) is None:
        turns.missing(module)
        return
    command = [sys.executable, "-c", f"import {module}"]
    for operations in turns:
        turns.report(
            [timed(lambda: subprocess.run(command, check=True)) for _ in range(operations)]
        )
