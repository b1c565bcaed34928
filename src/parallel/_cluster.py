"""`Cluster`: the hosts of a program.

A program of one host needs none, and what this brings along is a fifth of what the other names do:
so `init` is given a cluster, and imports nothing of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from trio.lowlevel import enable_ki_protection

from ._directory import check_name, known_hosts, usable_cpus
from ._hosts import Hosts
from ._member import Member
from ._settings import HostSettings
from ._wire.news import ROOT_HOST
from .abc import Allocation, Launcher
from .errors import ParallelError, UnknownHost

if TYPE_CHECKING:
    from pathlib import Path


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
        self._running: Hosts | None = None

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

    def begin(
        self, member: Member, settings: HostSettings, heartbeat: float, label_output: bool
    ) -> Hosts:
        """`init` has begun with this cluster: what starts its hosts, and ends them."""
        if self._running is not None:
            raise ParallelError("this cluster is running already")
        self._running = Hosts(member, settings, heartbeat, label_output)
        return self._running

    def ended(self) -> None:
        """Its `init` is over."""
        self._running = None

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

    def _check_running(self) -> Hosts:
        if self._running is None:
            raise ParallelError("hosts come and go within `async with parallel.init(cluster=...)`")
        return self._running


def as_launcher(host: str | Launcher | Allocation) -> Launcher | Allocation:
    """A string is an ssh host."""
    if isinstance(host, str):
        launcher: Launcher = import_module(".launch.ssh", __package__).Ssh(host)
        return launcher
    return host
