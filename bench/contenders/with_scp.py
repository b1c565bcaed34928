"""scp: OpenSSH's way to copy a file."""

import subprocess
from pathlib import Path

from bench import hosts, payload
from bench.clock import timed
from bench.turns import Turns
from parallel.launch.ssh import Ssh


def array(turns: Turns) -> None:
    """Copy a file of an array's bytes to a host."""
    if hosts.has_program(turns, "scp"):
        hosts.reach(turns, copy)


def copy(launchers: list[Ssh], turns: Turns) -> None:
    """Time copies."""
    config = hosts.openssh_config(launchers)
    file = Path(config).with_name("array")
    file.write_bytes(payload.array().data)
    # -O: by its own protocol, for the hosts have no sftp.
    command = ["scp", "-q", "-O", "-F", config, str(file), f"{launchers[0].name}:array"]
    for operations in turns:
        turns.report(
            [timed(lambda: subprocess.run(command, check=True)) for _ in range(operations)]
        )
