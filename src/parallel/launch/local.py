"""`Local`: another host on this machine, for tests and to keep work apart."""

from __future__ import annotations

import sys
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from ..abc import Launcher, Shell
from .command import SHELL, run_shell


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Local(Launcher):
    """Another host on this machine: processes of their own, reached through pipes.

        Cluster([Local(name="left"), Local(name="right")])

    Settings of all hosts: see `parallel.abc.Launcher`; `python` is this program's own by default.
    """

    name: str = "localhost"
    python: str | None = sys.executable

    def open(self) -> AbstractAsyncContextManager[Shell]:
        """Run a shell."""
        return run_shell(self.name, [SHELL])
