"""`command`: a function from bytes to bytes that any program can be.

The program reads frames on stdin and writes one on stdout for each, in that order, until its stdin
ends. A frame is a length, four bytes with the most significant one first, and so many bytes.
"""

from __future__ import annotations

import os
import selectors
import shlex
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import ParallelError, describe_exit
from .surroundings import surroundings

LARGEST = 1 << 27
"""Bytes of the largest frame. A line of text that stands where a frame should begins with a byte
above that, so a program that prints what it should not is found out at once."""

PATIENCE = 1.0
"""Seconds that a program has to end by itself, once its stdin has or after it closed its stdout."""

KEPT = 4000
"""Bytes that are kept of the end of its stderr."""

CHUNK = 1 << 16


@dataclass(eq=False)
class CommandFailed(ParallelError):
    """A program that is run by `command` has ended, or did not keep to the frames.

    `returncode` is as in `subprocess.Popen`: negative for a signal; None where it had to be killed
    or was never started. `stderr` is the end of what it has written there.
    """

    argv: tuple[str, ...]
    reason: str
    returncode: int | None = None
    stderr: str = ""

    def __str__(self) -> str:
        text = f"{shlex.join(self.argv)} {self.reason}"
        return f"{text}; the end of its stderr:\n{self.stderr}" if self.stderr else text


def command(argv: Sequence[str]) -> Callable[[bytes], bytes]:
    """A function from bytes to bytes that runs on any workers: the program `argv`.

        sorted_lines = await farm.map(parallel.farm.command(["./sorter"]), [b"b\\na\\n", ...])

    Each worker starts the program once, with the first task, and sends each argument as a frame:
    four bytes of length, big-endian, then the bytes; the frame that comes back is the result.
    Before the worker ends, the program's stdin does. If it ends, or writes anything but one frame,
    that task raises `CommandFailed`, and the next one starts it anew.

    Args:
        argv: The program and its arguments, as in `subprocess.Popen`, looked up on the worker.
    """
    if isinstance(argv, str) or not argv:
        raise TypeError(f"argv={argv!r}: a list of words is needed, and a program first")
    return Command(tuple(argv))


@dataclass(frozen=True, slots=True)
class Command:
    """`command` makes one."""

    argv: tuple[str, ...]

    def __call__(self, data: bytes) -> bytes:
        """Have the program answer."""
        if len(data) > LARGEST:
            raise ValueError(f"{len(data)} bytes are more than the {LARGEST} of the largest frame")
        key = self.argv, threading.get_ident()  # a task may have threads
        here = surroundings()
        child = here.keep(key, lambda: _Child(self.argv))
        try:
            return child.exchange(data)
        except BaseException:
            here.discard(key)  # where it stands is not known any more
            raise


class _Child:
    def __init__(self, argv: tuple[str, ...]) -> None:
        self._argv = argv
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
            )
        except OSError as exc:
            raise CommandFailed(argv, f"could not be executed: {exc.strerror or exc}") from exc
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._stdin = self._process.stdin
        self._stdout = self._process.stdout.fileno()
        self._stderr = self._process.stderr.fileno()
        for descriptor in (self._stdin.fileno(), self._stdout, self._stderr):
            os.set_blocking(descriptor, False)
        self._said = b""

    def exchange(self, data: bytes) -> bytes:
        """Write a frame while reading one: a program may begin to answer before it has read all."""
        unsent = memoryview(len(data).to_bytes(4, "big") + data)
        incoming = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdin, selectors.EVENT_WRITE)
            selector.register(self._stdout, selectors.EVENT_READ)
            selector.register(self._stderr, selectors.EVENT_READ)
            while not self._is_whole(incoming):
                for key, _ in selector.select():
                    if key.fileobj is self._stdin:
                        unsent = self._write(unsent)
                        if not unsent:
                            selector.unregister(self._stdin)
                    elif key.fd == self._stdout:
                        incoming += self._read() or self._fail_at_end(incoming)
                    elif not self._listen():
                        selector.unregister(self._stderr)
        if unsent:
            raise self._error("answered before it had read all it was sent")
        return bytes(memoryview(incoming)[4:])

    def _write(self, unsent: memoryview) -> memoryview:
        try:
            return unsent[os.write(self._stdin.fileno(), unsent[:CHUNK]) :]
        except BlockingIOError:
            return unsent
        except BrokenPipeError:
            return unsent[:0]  # as reading will tell

    def _read(self) -> bytes:
        return os.read(self._stdout, CHUNK)

    def _is_whole(self, incoming: bytearray) -> bool:
        if len(incoming) < 4:
            return False
        size = int.from_bytes(incoming[:4], "big")
        if size > LARGEST:
            raise self._error(f"wrote what is no frame: it begins with {bytes(incoming[:40])!r}")
        if len(incoming) > 4 + size:
            raise self._error("wrote more than one frame for one")
        return len(incoming) == 4 + size

    def _listen(self) -> bytes:
        """To stderr."""
        try:
            said = os.read(self._stderr, CHUNK)
        except BlockingIOError:
            return b"."
        self._said = (self._said + said)[-KEPT:]
        return said

    def _fail_at_end(self, incoming: bytearray) -> bytes:
        where = "in the middle of" if incoming else "without writing"
        try:
            returncode = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise self._error(f"closed its stdout {where} a frame") from None
        raise self._error(f"{describe_exit(returncode)} {where} a frame", returncode)

    def _error(self, reason: str, returncode: int | None = None) -> CommandFailed:
        for _ in range(1 + (1 << 20) // CHUNK):  # what a pipe holds at most, so not for ever
            if self._listen() in (b"", b"."):
                break
        said = self._said.decode(errors="replace").strip()
        return CommandFailed(self._argv, reason, returncode, said)

    def close(self) -> None:
        """End its stdin, and if that does not end it, it."""
        self._stdin.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
        finally:
            self._process.__exit__(None, None, None)
