"""`Cluster`: the hosts of a program, and which one a process goes to."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from trio.lowlevel import enable_ki_protection

from ._member import Member, current_member
from ._table import MAX_HOST_NAME, read_hosts, running
from ._wire.news import REMOVED, ROOT_HOST, HostState
from .abc import Allocation, Launcher
from .errors import HostDied, ParallelError, UnknownHost
from .placement import Host, Placement

if TYPE_CHECKING:
    from pathlib import Path


class RunningHosts(Protocol):
    """The hosts of a running cluster, as `init` has them."""

    @abstractmethod
    async def add(self, launcher: Launcher) -> int:
        """Start one more; how many bytes it was sent for that."""

    async def remove(self, name: str) -> None:
        """End that one."""


def usable_cpus() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Cluster:
    """The hosts that a program runs on: its own (named "root"), and `hosts`.

        parallel.Cluster(["host0", "alice@host1:2222", Command(["docker", "exec", "-i", "box"])])

    A string is an ssh host: `user@host:port`, or an alias in `~/.ssh/config`. Anything else is a
    launcher from `parallel.launch`, or of your own. `root_slots` is how many processes the root's
    own host is meant for at once (default: the processors that this process may use); placements
    look at it, it limits nothing.

    Raises `ParallelError` for a name that is used twice; "root" and "local" are taken.
    """

    def __init__(
        self,
        hosts: Sequence[str | Launcher | Allocation] = (),
        *,
        root_slots: int | None = None,
    ) -> None:
        if isinstance(hosts, str):
            raise TypeError(f"Cluster takes a list of hosts: Cluster([{hosts!r}])")
        if root_slots is not None and root_slots < 0:
            raise ValueError("root_slots must not be negative")
        self.root_slots = usable_cpus() if root_slots is None else root_slots
        self._sources = [as_launcher(host) for host in hosts]
        names = [name for source in self._sources if (name := getattr(source, "name", None))]
        for name in names:
            check_name(name, () if names.count(name) == 1 else (name,))
        self._running: RunningHosts | None = None

    @property
    def sources(self) -> Sequence[Launcher | Allocation]:
        """What gives the hosts beside the root's own."""
        return tuple(self._sources)

    @classmethod
    def from_toml(cls, path: str | Path) -> Cluster:
        """The cluster that a file describes: see "From one machine to many" in the docs.

        Raises `ParallelError` for what makes no sense there, OSError for a file that is not there.
        """
        cluster: Cluster = import_module("._cluster_file", __package__).read_cluster(path)
        return cluster

    @classmethod
    def from_slurm(cls, *, root_slots: int | None = None) -> Cluster:
        """One host for each node of the Slurm allocation that this program runs in.

        Raises `HostUnreachable` from `init` where it runs in none.
        """
        slurm = import_module(".launch.slurm", __package__)
        return cls([slurm.Slurm()], root_slots=root_slots)

    def started(self, hosts: RunningHosts | None) -> None:
        """`init` has begun with this cluster, or (None) ended."""
        if hosts is not None and self._running is not None:
            raise ParallelError("this cluster is running already")
        self._running = hosts

    @enable_ki_protection
    async def add(self, host: str | Launcher) -> None:
        """Start another host; returns when every process can use it.

        Raises why it could not be started, as `init` does, but bare. Cancelled, there is none.
        """
        await self._add(host)

    async def _add(self, host: str | Launcher) -> int:
        """`add`, for those who want to know how many bytes it took."""
        launcher = as_launcher(host)
        if not isinstance(launcher, Launcher):
            raise TypeError(f"add takes one host, which {launcher!r} is not")
        hosts = self._check_running()
        check_name(launcher.name, tuple(each.name for each in known_hosts() if not each.down))
        return await hosts.add(launcher)

    @enable_ki_protection
    async def remove(self, name: str) -> None:
        """End a host; what runs there is cancelled, as by its callers, and gone on return."""
        hosts = self._check_running()
        if name not in {host.name for host in known_hosts()} or name == ROOT_HOST:
            others = tuple(host.name for host in known_hosts() if host.name != ROOT_HOST)
            raise UnknownHost(name, others)
        await hosts.remove(name)

    def _check_running(self) -> RunningHosts:
        if self._running is None:
            raise ParallelError("hosts come and go within `async with parallel.init(cluster=...)`")
        return self._running


def as_launcher(host: str | Launcher | Allocation) -> Launcher | Allocation:
    """A string is an ssh host."""
    if isinstance(host, str):
        launcher: Launcher = import_module(".launch.ssh", __package__).Ssh(host)
        return launcher
    return host


def check_name(name: str, taken: Sequence[str]) -> None:
    """Raise `ParallelError` for a name that a host cannot have."""
    if name in (ROOT_HOST, "local", ""):
        raise ParallelError(f"a host cannot be named {name!r}: that means the root's, or one's own")
    if name in taken:
        raise ParallelError(f"there are two hosts named {name!r}; give one another name (name=...)")
    if len(name.encode()) > MAX_HOST_NAME:
        raise ParallelError(f"a host's name has at most {MAX_HOST_NAME} bytes: {name!r}")


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
