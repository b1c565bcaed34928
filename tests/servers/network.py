"""A host at the other end of a link that can fail: a network namespace with an sshd.

Neither the namespace nor the link has a name in the file system: the kernel removes both when the
last process of the host ends, however the tests end.
"""

from __future__ import annotations

import ipaddress
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from . import program, require
from .openssh import Sshd, open_sshd

NETWORKS = ipaddress.ip_network("198.18.0.0/15")
"""Reserved for tests of networks. Each link has four addresses of it."""

NOBODY = "02:00:00:00:00:01"
"""A hardware address that no end of a link has: what is sent there is lost without a word."""


@dataclass(frozen=True)
class Link:
    """The link between this machine and a host, as a cable with two ends."""

    device: str
    """This end; the host's is called eth0."""
    address: str
    """Of this end."""
    far_address: str
    host_pid: int
    """A process in the host's network namespace."""

    def near(self, *arguments: str) -> None:
        """Run `ip` at this end."""
        subprocess.run([program("ip"), *arguments], check=True)

    def far(self, *arguments: str) -> None:
        """Run `ip` at the host's end."""
        enter = [program("nsenter"), "--target", str(self.host_pid), "--net"]
        subprocess.run([*enter, program("ip"), *arguments], check=True)

    def plug(self) -> None:
        """Lay the cable."""
        far_end = ["peer", "name", "eth0", "netns", str(self.host_pid)]
        self.near("link", "add", self.device, "type", "veth", *far_end)
        self.near("address", "add", f"{self.address}/30", "dev", self.device)
        self.near("link", "set", self.device, "up")
        self.far("address", "add", f"{self.far_address}/30", "dev", "eth0")
        self.far("link", "set", "eth0", "up")

    def unplug(self) -> None:
        """Remove the cable for good."""
        self.near("link", "delete", self.device)

    def drop(self) -> None:
        """From now on everything in both directions is lost, and nobody is told."""
        forged = ["lladdr", NOBODY, "nud", "permanent"]
        self.near("neighbour", "replace", self.far_address, *forged, "dev", self.device)
        self.far("neighbour", "replace", self.address, *forged, "dev", "eth0")

    def heal(self) -> None:
        """Nothing is lost any more. TCP repeats what was, after pauses that grew meanwhile."""
        self.near("neighbour", "delete", self.far_address, "dev", self.device)
        self.far("neighbour", "delete", self.address, "dev", "eth0")

    # At the far end, for without a route at this one the packets would go to the default route.

    def down(self) -> None:
        """As if the cable was pulled: both kernels know."""
        self.far("link", "set", "eth0", "down")

    def up(self) -> None:
        """Mend what `down` did."""
        self.far("link", "set", "eth0", "up")


@contextmanager
def open_network_host(
    name: str = "host0", *, shell: str = "sh", setup: str = "", options: Sequence[str] = ()
) -> Iterator[tuple[Sshd, Link]]:
    """Start a host of its own network, pids, mounts and name; `setup` and others as in `open_sshd`.

    It is reached at its own address, port 22, from this machine alone. Pids that it tells are its
    own ones; `Sshd.outside` translates.
    """
    require("ip", "nsenter", root=True)
    number = secrets.randbelow(NETWORKS.num_addresses // 4)
    near, far = (str(NETWORKS[4 * number + end]) for end in (1, 2))
    with open_sshd(
        name, address=far, port=22, shell=shell, setup=setup, options=options, isolated=True
    ) as sshd:
        link = Link(f"test{number}", near, far, sshd.pid)
        link.plug()
        try:
            yield sshd, link
        finally:
            link.unplug()
