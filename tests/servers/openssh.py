"""OpenSSH's server as a host: its own address, keys, home directory and login shell."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import program, require
from .guarded import Guarded, open_guarded
from .openssh_files import write_client, write_keys, write_script, write_server, write_user

LEAVING = 3.0
"""Seconds that what was started over ssh has to end by itself once the test is over."""


@dataclass(frozen=True)
class Sshd:
    """A host with a running sshd."""

    name: str
    address: str
    port: int
    user: str
    directory: Path
    """Holds `key` and `key.pub` of the user, `host_key` and `host_key.pub`, and what is below."""
    server: Guarded
    pid: int
    """The daemon's. Its sessions survive it."""
    own: frozenset[int]
    """The pids of what keeps the host up, the daemon among them."""

    @property
    def home(self) -> Path:
        """The user's home directory. Programs of the host see it at the same place."""
        return self.directory / "home"

    @property
    def key(self) -> Path:
        """The user's private key."""
        return self.directory / "key"

    @property
    def known_hosts(self) -> Path:
        """For the client: this host's key alone."""
        return self.directory / "known_hosts"

    @property
    def config(self) -> Path:
        """For the client: all of the above under the alias `name`, as for `ssh -F`."""
        return self.directory / "ssh_config"

    def ssh(self, line: str, *options: str) -> list[str]:
        """The command that has the login shell there run a line, with OpenSSH's own client."""
        return [program("ssh"), "-F", str(self.config), *options, self.name, line]

    def trust(self, address: str, port: int) -> None:
        """Expect this host's key at another address too, such as a relay's."""
        public = (self.directory / "host_key.pub").read_text()
        with self.known_hosts.open("a") as file:
            # Port 22 is never written out there, any other always.
            file.write(f"{address if port == 22 else f'[{address}]:{port}'} {public}")

    def sessions(self) -> set[int]:
        """The pids of the server's side of all connections: two for a user that is not root."""
        pids = self.server.pids().items()
        return {pid for pid, name in pids if name.startswith("sshd")} - self.own

    def pids(self) -> dict[int, str]:
        """All that was started over ssh and lives: pid and command."""
        left_out = self.own | self.sessions()
        return {pid: name for pid, name in self.server.pids().items() if pid not in left_out}

    def outside(self, pid: int) -> int:
        """The pid here of the process that has `pid` on an isolated host."""
        for found in self.server.pids():
            try:
                status = Path(f"/proc/{found}/status").read_text()
            except OSError:
                continue  # gone in the meantime
            numbers = status.partition("\nNSpid:")[2].partition("\n")[0].split()
            if len(numbers) > 1 and int(numbers[-1]) == pid:
                return found
        raise ProcessLookupError(pid)


@contextmanager
def open_sshd(
    name: str = "host0",
    *,
    address: str = "127.0.0.1",
    port: int = 0,
    shell: str = "sh",
    user: str = "root",
    uid: int = 0,
    setup: str = "",
    isolated: bool = False,
    options: Sequence[str] = (),
) -> Iterator[Sshd]:
    """Start a host. It ends with the block, and so does all that was started over ssh.

    That nothing was left there is checked first.

    Args:
        name: its name, and its alias in the client's configuration
        address: where it is reached
        port: a free one if 0
        shell: the user's login shell, a program's name
        user: who logs in there, with the number `uid`; there need not be such a user here
        setup: a shell line to run there first, as root, with $HOME; what it mounts is only there
        isolated: it has pids, a network and a host name of its own (see `network`)
        options: more lines for sshd_config; of two settings the first counts, and these are first
    """
    require("sshd", "ssh", "ssh-keygen", "unshare", root=True)
    namespaces = ["--pid", "--fork", "--kill-child", "--mount-proc", "--net", "--uts"]
    with open_guarded() as server:
        directory = server.directory
        port = port or _free_port(address)
        write_user(directory, user, uid, program(shell))
        write_keys(directory)
        write_server(directory, "0.0.0.0" if isolated else address, port, uid, options)
        write_client(directory, name, address, port, user)
        write_script(directory, setup, isolated)
        server.start(
            *["unshare", "--mount", *(namespaces if isolated else []), "--"],
            *["sh", "-e", str(directory / "script"), program("sshd"), name],
        )
        pid_file = directory / "sshd.pid"  # written when it listens
        server.wait_for(lambda: pid_file.exists() and pid_file.read_text().endswith("\n"))
        own = server.pids()
        (pid,) = [pid for pid, command in own.items() if command == "sshd"]
        host = Sshd(name, address, port, user, directory, server, pid, frozenset(own))
        host.trust(address, port)
        yield host
        deadline = time.monotonic() + LEAVING
        while (left := host.pids()) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not left, f"processes left behind on {name}: {left}"


def _free_port(address: str) -> int:
    """A port that is free now. Nobody here takes it before sshd does."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port
