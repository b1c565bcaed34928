"""`processes`: the tree of running processes of a program.

Who runs on a host comes from the table that its fork server keeps in shared memory, what each uses
from the system. Other hosts are asked by way of the agents.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from ._endpoint import Endpoint, socket_pair
from ._member import Member, current_member
from ._table import read_hosts, read_table
from ._wire.frames import RELAYED
from ._wire.news import ROOT_HOST
from ._wire.requests import Survey
from .errors import HostDied

_TICK = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """A running process and those that it asked for.

    `started` is in seconds since the epoch, `cpu` the seconds of processor time used so far,
    `memory` the bytes that it shares with no other process; None where the system does not tell.
    """

    name: str
    host: str
    pid: int
    started: float
    cpu: float | None
    memory: int | None
    children: tuple[ProcessInfo, ...]

    def __iter__(self) -> Iterator[ProcessInfo]:
        """It and everything below it, each before what it asked for."""
        return (info for info, _ in self.walk())

    def walk(self, depth: int = 0) -> Iterator[tuple[ProcessInfo, int]]:
        """The same, each with its depth in the tree."""
        todo = [(self, depth)]
        while todo:
            info, depth = todo.pop()
            yield info, depth
            todo += [(child, depth + 1) for child in reversed(info.children)]

    def __str__(self) -> str:
        return render(self)


async def processes() -> ProcessInfo:
    """The tree of running processes of this program, its root on top; `str` of it is a table.

        print(await parallel.processes())

    The same from the root and from any worker. A host that does not answer within 5 seconds is
    left out. Raises `ParallelError` outside `init`. Cancelled, it has changed nothing.
    """
    member = current_member()
    if len(read_hosts(member.table)) > 1:
        return assemble(await _ask_all(member))
    text = await trio.to_thread.run_sync(survey, member.table, member.settings.host)
    return assemble([json.loads(text)])


async def _ask_all(member: Member) -> list[Any]:
    """The reports of all hosts, collected by the root's agent."""
    ours, theirs = socket_pair()
    endpoint = Endpoint(ours)
    try:
        member.attach()
        member.ask(Survey(), [theirs.detach()])
        text = bytearray()
        descriptors: deque[int] = deque()
        while True:
            await trio.lowlevel.wait_readable(ours)
            data = endpoint.read(descriptors)
            if data == b"":
                break
            if isinstance(data, bytes):
                text += data
    finally:
        endpoint.close()
    reports: list[Any] = json.loads(text.removeprefix(RELAYED)) if text else []
    if not reports:
        raise HostDied(ROOT_HOST, "its agent does not answer")
    return reports


def survey(table: int, host: str) -> bytes:
    """A host's own report, in JSON: its name, its root's pid, when that started, its processes."""
    root_pid, entries = read_table(table)
    rows = [(*entry, _cpu(entry.pid), _memory(entry.pid)) for entry in entries]
    first = min((entry.started for entry in entries), default=time.time())
    root = (root_pid, _started(root_pid) or first, _cpu(root_pid), _memory(root_pid))
    return json.dumps([host, root, rows]).encode()


def assemble(reports: Sequence[Any], top: str = ROOT_HOST) -> ProcessInfo:
    """The tree of the reports of hosts; on top the first process of that host, which is there.

    Those whose owners are on a host that has not reported are right below.
    """
    reported = {host for host, _, _ in reports}
    children: dict[tuple[str, int], list[tuple[str, Any]]] = {}
    root = (0, time.time(), None, None)
    for host, owner_of_host, rows in reports:
        if host == top:
            root = owner_of_host
        for row in rows:
            _, number, _, _, _, owner_host, _, _ = row
            owner = (owner_host or host, number)
            if owner[0] not in reported:
                owner = (top, 0)
            children.setdefault(owner, []).append((host, row))
    made: dict[tuple[str, int], tuple[ProcessInfo, ...]] = {}
    for owner in _innermost_first(children, top):
        below = sorted(children[owner], key=lambda place: place[1][2])
        made[owner] = tuple(_info(host, row, made) for host, row in below)
    pid, started, cpu, memory = root
    name = "root" if top == ROOT_HOST else "agent"
    return ProcessInfo(name, top, pid, started, cpu, memory, made.get((top, 0), ()))


def _innermost_first(
    children: Mapping[tuple[str, int], Any], top: str
) -> Iterator[tuple[str, int]]:
    """The owners, each after everything that it owns; without recursion: cascades may be deep."""
    order = [(top, 0)]
    for owner in order:
        order += [(host, row[0]) for host, row in children.get(owner, ())]
    return (owner for owner in reversed(order) if owner in children)


def _info(
    host: str, row: Any, made: Mapping[tuple[str, int], tuple[ProcessInfo, ...]]
) -> ProcessInfo:
    process, _, started, pid, name, _, cpu, memory = row
    return ProcessInfo(name, host, pid, started, cpu, memory, made.get((host, process), ()))


def _stat(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat from the third on; none for a process that is gone.

    The second is a name, in which there may be anything.
    """
    try:
        return (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return []


def _cpu(pid: int) -> float | None:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICK if fields else None


def _started(pid: int) -> float | None:
    fields = _stat(pid)
    if not fields:
        return None
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.time() - since_boot + int(fields[19]) / _TICK


def _memory(pid: int) -> int | None:
    """In bytes: what is private, or where the kernel does not tell that, what is resident."""
    try:
        with (_PROC / str(pid) / "smaps_rollup").open("rb") as file:
            private = [line.split()[1] for line in file if line.startswith(b"Private_")]
        return sum(map(int, private)) * 1024
    except OSError:
        return None


def render(root: ProcessInfo, percent: Mapping[tuple[str, int], float] | None = None) -> str:
    """A table with a line for each process, indented by its place in the tree.

    With `percent`, the share of a processor that each host's pid uses, that is shown in place of
    seconds.
    """
    now = time.time()
    title = "CPU s" if percent is None else "CPU %"
    width = max(8, *(len(info.host) for info in root))
    lines = [f"{'PID':>8} {'HOST':<{width}} {'AGE':>8} {title:>8} {'MEMORY':>8}  FUNCTION"]
    for info, depth in root.walk():
        used = info.cpu if percent is None else percent.get((info.host, info.pid))
        cpu = "-" if used is None else f"{used:.2f}" if percent is None else f"{used:.0f}"
        age, memory = _age_text(now - info.started), _memory_text(info.memory)
        where = f"{info.pid:>8} {info.host:<{width}} {age:>8} {cpu:>8} {memory:>8}"
        lines.append(f"{where}  {'  ' * depth}{info.name}")
    return "\n".join(lines)


def _age_text(seconds: float) -> str:
    if seconds < 100:
        return f"{max(seconds, 0):.1f} s"
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def _memory_text(memory: int | None) -> str:
    return "-" if memory is None else f"{memory / 2**20:.1f} M"
