"""`Command`: hosts that a program on this machine reaches, such as `docker exec -i`."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import trio

from ..abc import Launcher, Shell
from ..errors import HostUnreachable, describe_exit

SHELL = "/bin/sh"

PATIENCE = 1.0
"""Seconds that a program has to end by itself once its stdin has, and again after SIGTERM."""


_NONE = 0


@dataclass(frozen=True, slots=True, eq=False)
class Command(Launcher):
    """A host behind a program whose stdin and stdout reach a shell there.

        Command(["docker", "exec", "-i", "worker", "/bin/sh"], name="worker")
        Command(["kubectl", "exec", "-i", "pod/worker", "--", "/bin/sh"], name="pod")
        Command(["srun", "--unbuffered", "--nodelist=node7", "/bin/sh"], name="node7")
        Command(["sudo", "-n", "-u", "nobody", "/bin/sh"], name="nobody")

    Args:
        argv: The program and its arguments. `/bin/sh` is appended unless it is the last already.

    Settings of all hosts: see `parallel.abc.Launcher`.
    """

    argv: Sequence[str]

    def __post_init__(self) -> None:
        if isinstance(self.argv, str):
            raise TypeError(f"argv is a list of words: {shlex.split(self.argv)}")
        Launcher.__post_init__(self)

    def open(self) -> AbstractAsyncContextManager[Shell]:
        """Run the program."""
        argv = list(self.argv)
        return run_shell(self.name, argv if argv[-1:] == [SHELL] else [*argv, SHELL])


@asynccontextmanager
async def run_shell(host: str, argv: Sequence[str]) -> AsyncGenerator[Shell, None]:
    """A program of this machine as a `Shell`; leaving the block ends and reaps it."""
    try:
        # A session of its own: Ctrl-C in a terminal is not for it, and it can ask nobody there.
        process = await trio.lowlevel.open_process(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as exc:
        reason = f"{argv[0]!r} could not be executed: {exc.strerror or exc}"
        raise HostUnreachable(host, reason, "connection") from exc

    def why_ended() -> str:
        code = process.poll()
        return "" if code is None else f"{shlex.join(argv)} {describe_exit(code)}"

    signals: list[int] = [signal.SIGTERM]
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        yield Shell(process.stdin, process.stdout, process.stderr, why_ended)
        signals = [_NONE, signal.SIGTERM]
    finally:
        with trio.CancelScope(shield=True):
            await _end(process, signals)


async def _end(process: trio.Process, signals: Sequence[int]) -> None:
    """Close its streams and see that it ends: of that, else of one signal after the other."""
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            await stream.aclose()
    for number in signals:
        _signal_group(process, number)
        with trio.move_on_after(PATIENCE):
            await process.wait()
            return
    _signal_group(process, signal.SIGKILL)
    await process.wait()


def _signal_group(process: trio.Process, number: int) -> None:
    """Reach what it has started as well; its number is taken as long as it has not been reaped."""
    if process.returncode is None:
        try:
            os.killpg(process.pid, number)
        except PermissionError:
            process.send_signal(number)  # `sudo` and its like run as somebody else
        except ProcessLookupError:
            pass
