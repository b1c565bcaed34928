"""`processes`: the tree of running processes of a program.

Who runs comes from the table that the fork server keeps in shared memory, what each uses from the
system. A program other than this one is found through its open files: nothing listens.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import trio

from ._cluster import ROOT_HOST
from ._member import current_member
from ._table import NAME, Entry, read_table

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

    The same from the root and from any worker. Raises `ParallelError` outside `init`. Cancelled,
    it has changed nothing.
    """
    table = current_member().table
    return await trio.to_thread.run_sync(read_tree, table)


def read_tree(table: int) -> ProcessInfo:
    """The tree in the table with that descriptor."""
    root_pid, entries = read_table(table)
    children: dict[int, list[Entry]] = {}
    for entry in entries:
        children.setdefault(entry.owner, []).append(entry)
    made: dict[int, tuple[ProcessInfo, ...]] = {}
    for owner in _innermost_first(children):
        below = sorted(children[owner], key=lambda entry: entry.started)
        made[owner] = tuple(
            _info(entry.name, entry.pid, entry.started, made.get(entry.process, ()))
            for entry in below
        )
    started = min((entry.started for entry in entries), default=time.time())
    return _info("root", root_pid, _started(root_pid) or started, made.get(0, ()))


def _innermost_first(children: Mapping[int, list[Entry]]) -> Iterator[int]:
    """The owners, each after everything that it owns; without recursion: cascades may be deep."""
    order = [0]
    for owner in order:
        order += [entry.process for entry in children.get(owner, ())]
    return (owner for owner in reversed(order) if owner in children)


def _info(name: str, pid: int, started: float, children: tuple[ProcessInfo, ...]) -> ProcessInfo:
    return ProcessInfo(name, ROOT_HOST, pid, started, _cpu(pid), _memory(pid), children)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on; none for a process that is gone."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
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


def find_programs(pid: int | None = None) -> Iterator[int]:
    """Descriptors of the tables of the programs that run here; `pid`: of that process's alone.

    Only those whose processes this user may look into. The caller closes each.
    """
    seen: set[int] = set()
    for process in _PROC.glob("[0-9]*" if pid is None else str(pid)):
        descriptor = _open_table(process)
        if descriptor is None:
            continue
        table = os.fstat(descriptor).st_ino
        if table in seen:
            os.close(descriptor)
        else:
            seen.add(table)
            yield descriptor


def _open_table(process: Path) -> int | None:
    try:
        for link in (process / "fd").iterdir():
            if os.readlink(link).startswith(f"/memfd:{NAME}"):
                return os.open(link, os.O_RDONLY)
    except OSError:
        pass  # gone, or not ours to look into
    return None


def render(root: ProcessInfo, percent: Mapping[int, float] | None = None) -> str:
    """A table with a line for each process, indented by its place in the tree.

    With `percent`, the share of a processor that each pid uses, that is shown in place of seconds.
    """
    now = time.time()
    title = "CPU s" if percent is None else "CPU %"
    lines = [f"{'PID':>8} {'HOST':<8} {'AGE':>8} {title:>8} {'MEMORY':>8}  FUNCTION"]
    for info, depth in root.walk():
        used = info.cpu if percent is None else percent.get(info.pid)
        cpu = "-" if used is None else f"{used:.2f}" if percent is None else f"{used:.0f}"
        age, memory = _age_text(now - info.started), _memory_text(info.memory)
        where = f"{info.pid:>8} {info.host:<8} {age:>8} {cpu:>8} {memory:>8}"
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
