"""Launchers: what it takes to reach a host, and what every host can be told.

A launcher gives a byte stream to a `/bin/sh` on a host; the rest is the same for all of them. To
reach hosts in a way of your own, derive from `Launcher` and write `open`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import trio

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _unknown() -> str:
    return ""


@dataclass(frozen=True, slots=True, eq=False)
class Shell:
    """A `/bin/sh` that reads its commands from a stream.

    Closing `stdin` is its end of file. `stderr` is None where it cannot be told from `stdout` or
    goes elsewhere. `why_ended` says in words what is known of the end once there is one
    ("exited with code 1", "the connection was lost"), else "".
    """

    stdin: trio.abc.SendStream
    stdout: trio.abc.ReceiveStream
    stderr: trio.abc.ReceiveStream | None = None
    why_ended: Callable[[], str] = _unknown


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Launcher(ABC):
    """A way to a host. It has to be picklable: `open` runs in another process than the program's.

    Args:
        name: The host's name in `where=`.
        slots: How many processes the host is meant for at once; None: as many as the processors
            that it may use, as found there.
        python: The interpreter there, of this program's minor version: a path, or a name that is
            looked up there. None: looked for.
        env: Environment variables to set there for every process.
        cwd: The directory there for every process; `~/` begins one in the home directory. None:
            where the shell starts.
        setup: A line for the shell to run first, such as `. /etc/profile.d/modules.sh && module
            load mpi`. When it fails, so does the start of the host.
        connect_timeout: Seconds for all of it: to connect, to send what is missing there, to start.
    """

    name: str
    slots: int | None = None
    python: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    setup: str | None = None
    connect_timeout: float = 30.0

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a host needs a name")
        if self.slots is not None and self.slots < 0:
            raise ValueError("slots must be >= 0, or None")
        if not self.connect_timeout > 0:
            raise ValueError("connect_timeout must be > 0")
        for variable, value in self.env.items():
            if not _VARIABLE.fullmatch(variable) or "\0" in value:
                raise ValueError(f"{variable!r} is no name or value of an environment variable")
        texts = {"python": self.python, "cwd": self.cwd, "setup": self.setup}
        for setting, text in texts.items():
            if text is not None and (not text or "\0" in text):
                raise ValueError(f"{setting} must not be empty or hold a NUL; None is the default")

    @abstractmethod
    def open(self) -> AbstractAsyncContextManager[Shell]:
        """Start a `/bin/sh` on the host; leaving the block ends it and what it needed here.

        It is started without a terminal, by whatever login shell the user has there. Raises
        `HostUnreachable` where that fails. Cancelled, it cleans up as it does on leaving.
        """

    def prepare(self) -> AbstractAsyncContextManager[Launcher]:
        """In the program's first process, from before `open` until the host has ended.

        Yields the launcher to use in place of this one, which is pickled and sent to the process
        where `open` runs. For what has to stay with the program; this one yields itself.
        """
        return self._as_it_is()

    @asynccontextmanager
    async def _as_it_is(self) -> AsyncGenerator[Launcher, None]:
        yield self


class Allocation(ABC):
    """Several hosts that come from one place, such as a batch system."""

    @abstractmethod
    def allocate(self) -> AbstractAsyncContextManager[Sequence[Launcher]]:
        """Get them; leaving the block gives them back. In the program's first process."""
