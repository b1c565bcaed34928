"""The directory: the hosts as every process knows them, and which one a process goes to."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ._member import Member, current_member
from ._table import MAX_HOST_NAME, read_hosts, running
from ._wire.news import REMOVED, ROOT_HOST, HostState
from .errors import HostDied, ParallelError, UnknownHost
from .placement import Host, Placement


def usable_cpus() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def known_hosts() -> list[HostState]:
    """The hosts of the cluster as this one knows them; raises `ParallelError` outside `init`."""
    table = current_member().table
    states = read_hosts(table)
    states[0] = states[0]._replace(running=running(table))
    return [state for state in states if state.down != REMOVED]


def hosts() -> tuple[Host, ...]:
    """The hosts of the cluster, the root's own first, then in the order in which they were named.

    Of each `name`, `slots`, `python`, `running` processes, and, where it is not there (it died, or
    was missing from the start), `down`: why. From shared memory, without asking anybody. Raises
    `ParallelError` outside `init`.
    """
    states = sorted(known_hosts(), key=lambda state: (state.name != ROOT_HOST, state.order))
    return tuple(
        Host(state.name, state.slots, state.python, state.running, state.down) for state in states
    )


def current_host() -> str:
    """The name of the host that this process runs on; "root" on the root's own."""
    return current_member().settings.host


def choose_host(member: Member, where: str | Placement | None) -> str:
    """The name that `where` stands for; raises `UnknownHost`, or `HostDied`."""
    here = member.settings.host
    if where is None or where in ("local", here):
        return here
    known = hosts()
    if isinstance(where, str):
        name = where
    else:
        name = where(tuple(host for host in known if not host.down))
    for host in known:
        if host.name == name:
            if host.down:
                raise HostDied(name, host.down)
            return name
    raise UnknownHost(str(name), tuple(host.name for host in known))


def check_name(name: str, taken: Sequence[str]) -> None:
    """Raise `ParallelError` for a name that a host cannot have."""
    if name in (ROOT_HOST, "local", ""):
        raise ParallelError(f"a host cannot be named {name!r}: that means the root's, or one's own")
    if name in taken:
        raise ParallelError(f"there are two hosts named {name!r}; give one another name (name=...)")
    if len(name.encode()) > MAX_HOST_NAME:
        raise ParallelError(f"a host's name has at most {MAX_HOST_NAME} bytes: {name!r}")
