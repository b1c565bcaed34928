"""`Cluster`: the hosts of a program, and which one a process goes to."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence

from ._member import Member, current_member
from ._table import running
from .errors import ParallelError, UnknownHost
from .placement import Host, Placement

ROOT_HOST = "root"


def usable_cpus() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Cluster:
    """The hosts that a program runs on: its own (named "root"), and `hosts`.

    `root_slots` is how many processes the root's own host is meant for at once (default: the
    processors that this process may use); placements look at it, it limits nothing.

    This version knows the root's own host only; `hosts` must be empty.
    """

    def __init__(self, hosts: Sequence[str] = (), *, root_slots: int | None = None) -> None:
        if hosts:
            raise ParallelError(
                f"this version runs on the root's own host only; it cannot reach {list(hosts)}"
            )
        if root_slots is not None and root_slots < 0:
            raise ValueError("root_slots must not be negative")
        self.root_slots = usable_cpus() if root_slots is None else root_slots

    @property
    def slots(self) -> tuple[tuple[str, int], ...]:
        """Name and slots of each host, the root's own first."""
        return ((ROOT_HOST, self.root_slots),)


def hosts() -> tuple[Host, ...]:
    """The hosts of the cluster: `name`, `slots`, `python` and `running` processes of each.

    From shared memory, without asking anybody. Raises `ParallelError` outside `init`.
    """
    member = current_member()
    count = running(member.table)
    version = platform.python_version()
    return tuple(Host(name, slots, version, count) for name, slots in member.settings.hosts)


def current_host() -> str:
    """The name of the host that this process runs on; "root" on the root's own."""
    return current_member().settings.host


def choose_host(member: Member, where: str | Placement | None) -> str:
    """The name that `where` stands for; raises `UnknownHost`."""
    if where is None or where == "local":
        return member.settings.host
    name = where if isinstance(where, str) else where(hosts())
    known = tuple(host for host, _ in member.settings.hosts)
    if name not in known:
        raise UnknownHost(str(name), known)
    return name
