"""Programs that run on this machine, as `python -m parallel top` sees them: from outside.

A program is found by the table of its processes, which is among the open files of each of them.
One with other hosts has an agent, which looks after them while the table says that it is watched,
and puts what it sees into a showcase. So nobody is asked, and nothing listens.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from . import _showcase as showcase
from ._processes import ProcessInfo, assemble, survey
from ._table import NAME, read_hosts, read_table, watch
from ._wire.news import ROOT_HOST

MAX_AGE = 10.0
"""Seconds from which on what is shown says nothing of now."""

PAUSE = 0.02
_PROC = Path("/proc")


class Look(NamedTuple):
    """The processes of a program, and when that was, in seconds since the epoch."""

    tree: ProcessInfo
    time: float


def look(pid: int | None, since: float, patience: float, watching: float) -> list[Look]:
    """At the programs that run here; `pid`: at that process's alone.

    Args:
        pid: Of any process of the program.
        since: When watching began: what was seen of other hosts before is not shown.
        patience: Seconds to wait for what an agent sees, where there is none yet.
        watching: Seconds for which the agents shall go on.
    """
    with ExitStack() as stack:
        tables = []
        for table in find_tables(pid):
            stack.callback(os.close, table)
            tables.append(table)
        tables = _without_parts(tables)
        elsewhere = {}
        for table in tables:
            descriptor = _find_showcase(table)
            if descriptor is not None:
                stack.callback(os.close, descriptor)
                watch(table, watching)
                elsewhere[table] = descriptor
        end = time.monotonic() + patience
        while time.monotonic() < end and not all(
            _is_recent(showcase.read_showcase(each), since) for each in elsewhere.values()
        ):
            time.sleep(PAUSE)
        return [_read(table, elsewhere.get(table), since) for table in tables]


def _read(table: int, descriptor: int | None, since: float) -> Look:
    shown = showcase.read_showcase(descriptor) if descriptor is not None else None
    if shown is not None and _is_recent(shown, since):
        return Look(assemble(json.loads(shown.data)), shown.time)
    host = read_hosts(table)[0].name
    return Look(assemble([json.loads(survey(table, host))], host), time.time())


def _is_recent(shown: showcase.Shown | None, since: float) -> bool:
    return shown is not None and shown.time >= max(since, time.time() - MAX_AGE)


# What is open where


def find_tables(pid: int | None = None) -> Iterator[int]:
    """Descriptors of the tables of the programs that run here; `pid`: of that process's alone.

    Only those whose processes this user may look into. The caller closes each.
    """
    seen: set[int] = set()
    for process in _PROC.glob("[0-9]*" if pid is None else str(pid)):
        descriptor = _open_file(process, NAME)
        if descriptor is None:
            continue
        number = os.fstat(descriptor).st_ino
        if number in seen or not _is_table(descriptor):
            os.close(descriptor)
        else:
            seen.add(number)
            yield descriptor


def _is_table(descriptor: int) -> bool:
    try:
        read_table(descriptor)
        return bool(read_hosts(descriptor))
    except ValueError:
        return False  # it only bears the name


def _without_parts(tables: Sequence[int]) -> list[int]:
    """Not those of other hosts of a program whose root runs here too: it shows them."""
    hosts = {table: read_hosts(table) for table in tables}
    roots = [known for known in hosts.values() if known[0].name == ROOT_HOST]
    parts = {(host.name, host.pid) for known in roots for host in known[1:]}
    return [table for table in tables if (hosts[table][0].name, read_table(table)[0]) not in parts]


def _find_showcase(table: int) -> int | None:
    """The descriptor of the showcase of that program's agent, where it has one."""
    agents = [entry.pid for entry in read_table(table)[1] if entry.name == showcase.AGENT]
    found = (_open_file(_PROC / str(pid), showcase.NAME) for pid in agents)
    return next((descriptor for descriptor in found if descriptor is not None), None)


def _open_file(process: Path, name: str) -> int | None:
    """A piece of shared memory that a process has open."""
    try:
        for link in (process / "fd").iterdir():
            if os.readlink(link).removesuffix(" (deleted)") == f"/memfd:{name}":
                return os.open(link, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        pass  # gone, or not ours to look into
    return None
