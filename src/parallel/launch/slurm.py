"""`Slurm`: the nodes of an allocation of Slurm's as hosts."""

from __future__ import annotations

import math
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import trio

from ..abc import Allocation, Launcher
from ..errors import HostUnreachable, describe_exit
from .command import Command

_GUARD = Path(__file__).with_name("_salloc.py")

_TELL = 'echo "$SLURM_JOB_ID $SLURM_JOB_NODELIST"; exec cat'
"""What the allocation is asked for: it says which it is, and lasts until its stdin ends."""

NAME = "slurm"
"""Stands for the host in errors about the allocation."""

PATIENCE = 10.0
"""Seconds that Slurm has to take an allocation back; `_salloc` is done after 7."""


@dataclass(frozen=True, slots=True, eq=False)
class Slurm(Allocation):
    """One host for each node of an allocation, with the node's name.

        Cluster([Slurm(nodes=4, options=["--partition=short", "--time=1:00:00"])])

    In a job of Slurm's (`sbatch`, `salloc`) its nodes are used. Elsewhere an allocation is asked
    for with `salloc`, and given back at the end, also when the program is killed. Each node is
    reached by a job step of its own; the environment there is, as usual with Slurm, the caller's.

    Args:
        nodes: How many; in a job the first of its nodes, by default all.
        options: For `salloc`: partition, time, ...
        step_options: For the `srun` of each node.
        queue_timeout: Seconds to wait for the allocation.
        slots, python, env, cwd, setup, connect_timeout: Of each host, see `parallel.abc.Launcher`.
    """

    nodes: int | None = None
    options: Sequence[str] = ()
    step_options: Sequence[str] = ()
    queue_timeout: float = field(default=math.inf, kw_only=True)
    slots: int | None = field(default=None, kw_only=True)
    python: str | None = field(default=None, kw_only=True)
    env: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    cwd: str | None = field(default=None, kw_only=True)
    setup: str | None = field(default=None, kw_only=True)
    connect_timeout: float = field(default=60.0, kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.options, str) or isinstance(self.step_options, str):
            raise TypeError("options and step_options are lists, also of one")
        if self.nodes is not None and self.nodes < 1:
            raise ValueError("nodes must be >= 1, or None for those of the job")

    def allocate(self) -> AbstractAsyncContextManager[Sequence[Launcher]]:
        """Use the job that this process runs in, or ask for an allocation."""
        return self._in_job() if "SLURM_JOB_ID" in os.environ else self._ask()

    @asynccontextmanager
    async def _in_job(self) -> AsyncGenerator[Sequence[Launcher], None]:
        job = _Job(os.environ["SLURM_JOB_ID"], os.environ.get("SLURM_JOB_NODELIST", ""))
        yield await self._launchers(job)

    @asynccontextmanager
    async def _ask(self) -> AsyncGenerator[Sequence[Launcher], None]:
        if self.nodes is None:
            reason = "this program is not in a job of Slurm's: say how many nodes=, or use sbatch"
            raise HostUnreachable(NAME, reason)
        options = [f"--nodes={self.nodes}", *self.options]
        async with _salloc(options, self.queue_timeout) as job:
            yield await self._launchers(job)

    async def _launchers(self, job: _Job) -> list[Launcher]:
        names = await _expand(job.nodes)
        if self.nodes is not None and self.nodes > len(names):
            reason = f"job {job.number} has {len(names)} nodes, and {self.nodes} are asked for"
            raise HostUnreachable(NAME, reason)
        return [self._launcher(job, name) for name in names[: self.nodes]]

    def _launcher(self, job: _Job, node: str) -> Launcher:
        step = [
            "srun",
            f"--jobid={job.number}",
            f"--nodelist={node}",
            "--nodes=1",
            "--ntasks=1",
            "--overlap",  # beside the job's other steps, and with all of its processors there
            "--cpu-bind=none",
            "--unbuffered",  # else srun keeps what follows the last newline
            "--quiet",
            *self.step_options,
        ]
        return Command(
            step,
            name=node,
            slots=self.slots,
            python=self.python,
            env=self.env,
            cwd=self.cwd,
            setup=self.setup,
            connect_timeout=self.connect_timeout,
        )


class _Job(NamedTuple):
    number: str
    nodes: str
    """In Slurm's own notation: `node[0-3,7]`."""


@asynccontextmanager
async def _salloc(options: Sequence[str], queue_timeout: float) -> AsyncGenerator[_Job, None]:
    """An allocation; leaving the block gives it back, or the place in the queue."""
    name = f"parallel-{secrets.token_hex(4)}"  # found by it when all else fails
    salloc = ["salloc", *options, f"--job-name={name}", "sh", "-c", _TELL]
    with tempfile.TemporaryFile() as messages:
        process = await trio.lowlevel.open_process(
            [sys.executable, str(_GUARD), name, *salloc],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=messages,
            start_new_session=True,
        )
        try:
            yield await _granted(process, queue_timeout)
        except _NotGranted as exc:
            messages.seek(0)
            words = messages.read().decode(errors="replace").strip()
            raise HostUnreachable(NAME, f"{exc}; it says:\n{words}") from None
        finally:
            with trio.CancelScope(shield=True):
                await _release(process)


class _NotGranted(Exception):
    """There is no allocation."""


async def _granted(process: trio.Process, queue_timeout: float) -> _Job:
    """Wait in the queue."""
    assert process.stdout is not None
    line = b""
    with trio.move_on_after(queue_timeout) as scope:
        while not line.endswith(b"\n"):
            data = await process.stdout.receive_some()
            if not data:
                code = await process.wait()
                raise _NotGranted(f"salloc {describe_exit(code)}")
            line += data
    if scope.cancelled_caught:
        raise _NotGranted(f"salloc got no allocation within {queue_timeout:g} s")
    number, nodes = line.decode().split()
    return _Job(number, nodes)


async def _release(process: trio.Process) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    await process.stdin.aclose()
    await process.stdout.aclose()
    with trio.move_on_after(PATIENCE):
        await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()


async def _expand(nodes: str) -> list[str]:
    """The names in a list of nodes in Slurm's notation."""
    command = ["scontrol", "show", "hostnames", nodes]
    try:
        done = await trio.run_process(
            command, capture_stdout=True, capture_stderr=True, check=False
        )
    except OSError as exc:
        raise HostUnreachable(NAME, f"scontrol could not be executed: {exc.strerror}") from exc
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip()
        raise HostUnreachable(NAME, f"scontrol does not know the nodes {nodes!r}:\n{words}")
    return done.stdout.decode().split()
