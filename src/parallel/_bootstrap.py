"""The bootstrap: from a bare shell on a host to its agent.

1.  A launcher gives streams to a `/bin/sh`. Whatever a login shell prints is ignored: what counts
    comes after a random mark, which never stands in what is sent.
2.  The shell is sent a script. That sets the environment, runs the host's `setup`, goes to `cwd`,
    and executes a Python of this program's minor version with the loader, whose text it holds.
3.  The loader says what there is and which archives are missing (see `_host.loader`).
4.  It is sent those archives and the agent's configuration, says that it has them, and becomes
    the agent: from there on the streams are the link.

Nothing is sent before it was asked for, for a shell may read ahead of the command it runs.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from ._boot_script import IMPLEMENTATION, VERSION, candidates_of, make_script
from ._sources import needed_archive
from .abc import Launcher, Shell
from .errors import HostMismatch, HostUnreachable

AGENT = "parallel._host.agent:main"

PATIENCE = 2.0
"""Seconds that a host has to end by itself once its link has been closed."""

FAREWELL = 0.02
"""Seconds from the end of a program's output until its exit code can be known."""

LAST_WORDS = 1 << 13
"""Bytes of what a host printed on stderr that an error quotes."""

MAX_LINE = 1 << 20

_CONNECTION = "a connection"
_AGENT = "its agent"

_TEXTS = [
    Path(__file__).with_name("_host").joinpath(name).read_text("utf-8")
    for name in ("cache.py", "loader.py")
]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A host whose agent has started; `send` and `receive` are its link."""

    send: trio.abc.SendStream
    receive: trio.abc.ReceiveStream
    early: bytes
    """What has been received of the link already."""
    python: str
    """Its version."""
    cpus: int
    """The processors that it may use."""
    sent: int
    """Bytes of archives that were missing there."""
    why_ended: Callable[[], str]
    """See `Shell`."""


@asynccontextmanager
async def open_host(
    launcher: Launcher,
    config: dict[str, Any],
    on_stderr: Callable[[bytes], object],
    *,
    main: str = AGENT,
) -> AsyncGenerator[Arrival, None]:
    """Start a host's agent; leaving the block closes its link and waits, for a while, for its end.

    Args:
        launcher: How to get there.
        config: What the agent is told; anything that JSON can hold.
        on_stderr: Called with what the host prints on stderr once it has started.
        main: What is called there, with two descriptors and `config`: `module:function`.

    Raises:
        HostUnreachable: It could not be started, or not within `launcher.connect_timeout`.
        HostMismatch: It has no Python of this program's minor version, but others.
    """
    start = _Start(launcher, on_stderr)
    deadline = trio.current_time() + launcher.connect_timeout
    with trio.CancelScope(deadline=deadline) as scope:
        async with launcher.open() as shell:
            failure: BaseException | None = None
            # Nothing is raised inside of the nursery, so that nothing comes out of it in a group.
            async with trio.open_nursery() as nursery:
                nursery.start_soon(start.read_stderr, shell.stderr)
                try:
                    arrival = await start.run(shell, config, main)
                    await trio.lowlevel.checkpoint_if_cancelled()
                    scope.deadline = math.inf
                    try:
                        yield arrival
                    finally:
                        with trio.move_on_after(PATIENCE) as patience:
                            patience.shield = True
                            await _end(shell)
                except BaseException as exc:  # noqa: ASYNC103  # raised below
                    failure = exc
                nursery.cancel_scope.cancel()
            if failure is not None:
                raise failure
    if scope.cancelled_caught:
        raise start.timeout()


async def _end(shell: Shell) -> None:
    """The end of its link is the agent's, after it has ended everything there."""
    await shell.stdin.aclose()
    try:
        while await shell.stdout.receive_some():
            pass
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # it is gone


class _Start:
    """A host on its way."""

    def __init__(self, launcher: Launcher, on_stderr: Callable[[bytes], object]) -> None:
        self.launcher = launcher
        self.on_stderr = on_stderr
        self.waiting_for = _CONNECTION
        self.mark = secrets.token_hex(16)
        self.candidates = candidates_of(launcher)
        self.started = False
        self.stderr = b""
        self.early = b""
        """What the agent printed there before it was known to have started."""
        self.stderr_ended = trio.Event()
        self.shell: Shell
        self.received = b""

    async def run(self, shell: Shell, config: dict[str, Any], main: str) -> Arrival:
        """Steps 2 to 4."""
        self.shell = shell
        archives = [await trio.to_thread.run_sync(needed_archive)]
        boot = {
            "mark": self.mark,
            "archives": [archive.digest for archive in archives],
            "main": main,
            "texts": _TEXTS,
        }
        self.waiting_for = "an answer of its shell and Python"
        await self._send(make_script(self.launcher, self.candidates, boot))
        facts = await self._receive()
        if "python" not in facts:
            await self._wait_for_last_words()  # the shell has ended
        python, cpus, missing = self._check(facts)
        self.waiting_for = _AGENT
        sent = [archive for archive in archives if archive.digest in missing]
        size = 0
        for archive in sent:
            data = await trio.to_thread.run_sync(getattr, archive, "data")
            await self._send(_with_length(data))
            size += len(data)
        await self._send(_with_length(json.dumps(config).encode()))
        last = await self._receive()
        if "failed" in last:
            raise self._unreachable(f"its agent could not start: {last['failed']}")
        self.started = True
        if self.early:
            self.on_stderr(self.early)
        return Arrival(
            shell.stdin, shell.stdout, self.received, python, cpus, size, shell.why_ended
        )

    def _check(self, facts: dict[str, Any]) -> tuple[str, int, list[str]]:
        match facts:
            case {"python": str(python), "cpus": int(cpus), "missing": [*missing]}:
                return python, cpus, missing
            case {"setup": int(status)}:
                reason = f"its setup {self.launcher.setup!r} exited with code {status}"
            case {"cwd": _}:
                reason = f"its cwd {self.launcher.cwd!r} is not a directory it can go to"
            case {"versions": str(versions)} if versions:
                raise HostMismatch(self.launcher.name, self._ours(), self._theirs(versions))
            case {"versions": _}:
                reason = (
                    f"there is no {self._ours()}: looked for {', '.join(self.candidates)}; "
                    "the host's setting python= says where there is one"
                )
            case _:
                reason = f"its loader said {str(facts)[:200]}"
        raise self._unreachable(reason)

    def _ours(self) -> str:
        return f"{IMPLEMENTATION.replace('cpython', 'Python')} {VERSION}"

    def _theirs(self, versions: str) -> str:
        """From `0=cpython-3.12.1 2=cpython-2.7.18`; the numbers are those of `candidates`."""
        found = []
        for item in versions.split():
            number, _, version = item.partition("=")
            text = version.replace("cpython-", "Python ").replace("-", " ")
            found.append(f"{text} ({self.candidates[int(number)]})")
        return " and ".join(found)

    # The streams

    async def _send(self, data: bytes) -> None:
        try:
            await self.shell.stdin.send_all(data)
        except trio.BrokenResourceError:
            pass  # what it said before its end is more to the point

    async def _receive(self) -> dict[str, Any]:
        """The next line that has the mark in front."""
        mark = self.mark.encode()
        while True:
            before, found, after = self.received.partition(mark)
            line, end, rest = after.partition(b"\n")
            if end:
                self.received = rest
                said = json.loads(line)
                return said if isinstance(said, dict) else {}
            # Of noise only what may be the beginning of the mark has to be kept.
            self.received = found + line if found else before[1 - len(mark) :]
            if len(self.received) > MAX_LINE:
                raise self._unreachable("its loader says too much")
            self.received += await self._receive_some()

    async def _receive_some(self) -> bytes:
        error: Exception | None = None
        try:
            data = await self.shell.stdout.receive_some()
        except trio.BrokenResourceError as exc:
            data, error = b"", exc
        if data:
            return bytes(data)
        await self._wait_for_last_words()
        await trio.sleep(0 if self.shell.why_ended() else FAREWELL)
        why = self.shell.why_ended() or (str(error) if error else "its shell ended")
        raise self._unreachable(f"{why} before the host was started") from error

    async def _wait_for_last_words(self) -> None:
        """They come on a stream of their own."""
        with trio.move_on_after(1):
            await self.stderr_ended.wait()

    async def read_stderr(self, stderr: trio.abc.ReceiveStream | None) -> None:
        """Keep what may have to be quoted; later it is for somebody else."""
        try:
            while stderr is not None and (data := await stderr.receive_some()):
                if self.started:
                    self.on_stderr(bytes(data))
                else:
                    self.stderr = (self.stderr + data)[-LAST_WORDS:]
                    if self.waiting_for == _AGENT:  # the loader before it prints nothing
                        self.early += data
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the shell has ended
        finally:
            self.stderr_ended.set()

    # Failing

    def _unreachable(self, reason: str) -> HostUnreachable:
        words = self.stderr.decode(errors="replace").strip()
        quoted = f"; its stderr says:\n{words}" if words else ""
        return HostUnreachable(self.launcher.name, reason + quoted)

    def timeout(self) -> HostUnreachable:
        """It took too long."""
        error = self._unreachable(
            f"after {self.launcher.connect_timeout:g} s it was still waiting for "
            f"{self.waiting_for}; the host's setting connect_timeout= allows for more"
        )
        error.step = "connection" if self.waiting_for == _CONNECTION else "start"
        return error


def _with_length(data: bytes) -> bytes:
    return len(data).to_bytes(8, "big") + data
