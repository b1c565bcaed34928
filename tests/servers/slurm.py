"""A Slurm cluster of two nodes on this machine, without systemd and without cgroups."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import program, require
from .guarded import Guarded, open_guarded

NODES = ("node0", "node1")

LEAVING = 10.0
"""Seconds that jobs and their processes have to end by themselves once a test is over.

A step's daemon takes 2.5 of them when srun was killed.
"""


@dataclass(frozen=True)
class Slurm:
    """A cluster that runs, with all nodes idle when it starts."""

    config: Path
    """For srun and the others as SLURM_CONF in their environment."""
    server: Guarded
    own: frozenset[int]
    """The pids of the daemons."""

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment with what Slurm's commands need."""
        return {**os.environ, "SLURM_CONF": str(self.config)}

    def ask(self, command: str, *options: str) -> list[str]:
        """The lines that `sinfo`, `squeue` and the like print."""
        answer = subprocess.run(
            [program(command), *options],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=False,
        )
        return answer.stdout.splitlines()

    def jobs(self) -> list[str]:
        """The numbers of all jobs and allocations; one that has ended stays for an instant."""
        return self.ask("squeue", "--noheader", "--format=%A")

    def pids(self) -> dict[int, str]:
        """All that runs on the nodes, Slurm's step daemons included: pid and command."""
        pids = self.server.pids().items()
        return {pid: command for pid, command in pids if pid not in self.own}

    def idle(self) -> bool:
        """Whether all nodes are up and have nothing to do."""
        states = self.ask("sinfo", "--noheader", "--Node", "--format=%T")
        return states == ["idle"] * len(NODES)

    def clear(self) -> None:
        """Wait until nothing runs; what does after `LEAVING` seconds is ended, and an error."""
        deadline = time.monotonic() + LEAVING
        while (left := [*self.jobs(), *self.pids().items()]) and time.monotonic() < deadline:
            time.sleep(0.01)
        if left:
            self.ask("scancel", "--user=root", "--signal=KILL")
            self.ask("scancel", "--user=root")
        assert not left, f"left behind in Slurm: {left}"


@contextmanager
def open_slurm() -> Iterator[Slurm]:
    """Start the cluster: one controller, and a daemon for each node. It ends with the block."""
    require("munged", "slurmctld", "slurmd", "srun", "salloc", root=True)
    with open_guarded() as server:
        directory = server.directory
        key = directory / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        for name in ("state", *NODES):
            (directory / name).mkdir()
        config = directory / "slurm.conf"
        config.write_text(_config(directory))
        script = directory / "script"
        script.write_text(_SCRIPT)
        server.start("sh", "-e", str(script), *NODES, SLURM_CONF=str(config))
        slurm = Slurm(config, server, frozenset())
        server.wait_for(slurm.idle)
        yield Slurm(config, server, frozenset(server.pids()))


# The daemons as root, who alone starts processes as others; munged has to be forced to.
_SCRIPT = """\
cd "${SLURM_CONF%/*}"
munged --foreground --force --num-threads=2 --socket=munge.socket --key-file=munge.key \\
    --pid-file=munge.pid --seed-file=munge.seed --log-file=/dev/stderr &
until [ -S munge.socket ]; do sleep 0.01; done
slurmctld -D &
for node; do
    slurmd -D -N "$node" &
done
wait
"""


def _config(directory: Path) -> str:
    host = socket.gethostname().split(".")[0]
    control, *ports = _free_ports(1 + len(NODES))
    nodes = [
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2"
        for node, port in zip(NODES, ports, strict=True)
    ]
    return "\n".join([_CONFIG.format(directory, host, control), *nodes, _PARTITION])


_CONFIG = """\
ClusterName=test
SlurmctldHost={1}(127.0.0.1)
SlurmctldPort={2}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={0}/munge.socket
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={0}/state
SlurmdSpoolDir={0}/%n
SlurmctldPidFile={0}/slurmctld.pid
SlurmdPidFile={0}/%n.pid
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=2
SlurmdParameters=config_overrides"""

_PARTITION = "PartitionName=all Nodes=ALL Default=YES State=UP OverSubscribe=YES\n"


def _free_ports(count: int) -> list[int]:
    """So many ports that are free now."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
