"""A server under guard: started, awaited, and ended with all that came from it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from . import SEARCHED, guard

PATIENCE = 20.0
"""Seconds after which a server that does not start, or does not end, is a failure."""


class Guarded:
    """A server's directory, its guard, and what came from it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """What the server has printed."""
        return (self.directory / "log").read_text(errors="replace")

    def start(self, *command: str, **variables: str) -> None:
        """Run the server under its guard. It does not carry the mark of the test."""
        with (self.directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-IS", guard.__file__, str(self.directory), *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd="/",
                env={"PATH": SEARCHED, **variables},
                start_new_session=True,
            )

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait for what the server does; what it printed is the error if it does not."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self._process is not None
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"the server did not start in time:\n{self.log}")
            time.sleep(0.002)

    def pids(self) -> dict[int, str]:
        """All that came from the server and lives, itself included: pid and command."""
        return guard.descendants(self._process.pid) if self._process else {}

    def stop(self) -> None:
        """End all of it. Cannot be interrupted for long."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(PATIENCE)
        shutil.rmtree(self.directory, ignore_errors=True)  # the guard has done so if there was one


@contextmanager
def open_guarded() -> Iterator[Guarded]:
    """For one server, which ends with the block: a directory that every user may enter."""
    server = Guarded(Path(tempfile.mkdtemp(prefix="parallel-test-")))
    try:
        os.chmod(server.directory, 0o755)
        yield server
    finally:
        server.stop()
