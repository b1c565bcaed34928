"""Hosts: ssh hosts on this machine, the same for whoever reaches them, by whatever means."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import trio

from bench.turns import Turns
from parallel.launch.ssh import Ssh, parse_destination
from parallel.testing import open_hosts

OPENSSH = """
Host {launcher.name}
    HostName {destination.host}
    Port {destination.port}
    User {destination.user}
    IdentityFile {launcher.client_keys[0]}
    UserKnownHostsFile {launcher.known_hosts}
    IdentitiesOnly yes
    LogLevel ERROR
"""


def reach(turns: Turns, work: Callable[[list[Ssh], Turns], None], count: int = 1) -> None:
    """Do a contender's work, which is not trio's, in a thread while there are hosts."""

    async def main() -> None:
        # What is imported here by path, a host that nothing is sent to imports by path too.
        async with open_hosts(count, env={"PYTHONPATH": os.getcwd()}) as hosts:
            await trio.to_thread.run_sync(work, hosts, turns)

    trio.run(main)


def has_program(turns: Turns, name: str) -> bool:
    """Tell whether there is a program; announce it if there is not."""
    if shutil.which(name) is None:
        turns.missing(f"program {name}")
        return False
    return True


def openssh_config(hosts: list[Ssh]) -> str:
    """Write what OpenSSH's client has to know of the hosts; return the file's path."""
    path = Path(hosts[0].client_keys[0]).with_name("config")
    path.write_text(
        "".join(
            OPENSSH.format(launcher=host, destination=parse_destination(host.destination))
            for host in hosts
        )
    )
    return str(path)
