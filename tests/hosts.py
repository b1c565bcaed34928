"""Real hosts in tests: launchers for their servers, and what may be left on a living one."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import parallel
from parallel.launch.ssh import Ssh

from .servers.openssh import Sshd

HOST_PROGRAMS = ("parallel-agent", "parallel-keeper", "parallel-forkse", "parallel: spare")
"""What the kernel calls a host's own processes."""

ROOT_PROGRAMS = (*HOST_PROGRAMS[1:], "parallel: agent")
"""Those of the root's host while there are others."""


def ssh(sshd: Sshd, **settings: Any) -> Ssh:
    """The way to a host that `open_sshd` has started."""
    chosen = {"destination": sshd.name, "config": str(sshd.config), "python": sys.executable}
    return Ssh(**{**chosen, **settings})


def named(pids: dict[int, str], name: str) -> int:
    """The pid of the only process of that name."""
    # A new spare is called as its fork server until it has taken a name of its own.
    return min(pid for pid, command in pids.items() if command == name)


def kill(*pids: int, number: int = signal.SIGKILL) -> None:
    """Whoever is still there."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions of a group, or the only one."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from leaves(each)
    else:
        yield error


def is_up(name: str) -> bool:
    """Whether this process knows that host as one that is there."""
    return any(host.name == name and not host.down for host in parallel.hosts())
