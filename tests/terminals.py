"""Programs on terminals of their own, and what they say there when somebody presses Ctrl-C."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .programs import growth
from .support import IMPORT_PATH, MARK

AT_ONCE = 10.0
CTRL_C = b"\x03"


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, mark: str, program: Path, *words: str) -> None:
        self.mark = mark
        environment = {**os.environ, MARK: mark, "PYTHONPATH": IMPORT_PATH}
        arguments = [sys.executable, str(program), *words]
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
def on_terminal(mark: str, program: Path, *words: str) -> Iterator[Terminal]:
    """Run it; whatever happens, it has ended then."""
    terminal = Terminal(mark, program, *words)
    try:
        yield terminal
    finally:
        terminal.close()


_TRACEBACK = re.compile(
    r"Traceback \(most recent call last\):\n( .*\n|\n)+KeyboardInterrupt\n", re.MULTILINE
)


_GROUP = re.compile(
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
    return _GROUP.fullmatch(text) is not None


def is_one_traceback(text: str) -> bool:
    """And nothing but that."""
    return _TRACEBACK.fullmatch(text) is not None
