"""The running processes of a host, and the hosts that it knows, in shared memory.

The fork server writes the processes, the agent the hosts, each in places of its own; whoever has
the descriptor reads, without asking anybody: `hosts()`, placements, `processes()`, and `python -m
parallel top`, which finds it among the fork server's open files.

    offset   what
    0        header: magic, the root's pid, how many processes run, how many records are in use
    4096     MAX_HOSTS records of hosts
    1052672  records of processes
"""

from __future__ import annotations

import os
import struct
import tempfile
import time
from collections.abc import Iterable, Iterator

from ._wire.news import HostState
from ._wire.record import Record

NAME = "parallel-processes"
_MAGIC = b"parallel"
_HEADER = struct.Struct("<8sI")
_RUNNING = 12
_PROCESSES = 16
_HOSTS = 20
_WATCHED = 24
_COUNT = struct.Struct("<I")
_TIME = struct.Struct("<d")
_RECORD_SIZE = 256
_PROCESS = struct.Struct("<QQdIHH")
_HOST = struct.Struct("<IIIIHHH")
MAX_HOSTS = 4096
_FIRST_HOST = 4096
_FIRST_PROCESS = _FIRST_HOST + MAX_HOSTS * _RECORD_SIZE
_MAX_NAME = 160
_MAX_OWNER_HOST = _RECORD_SIZE - _PROCESS.size - _MAX_NAME
MAX_HOST_NAME = 64
_MAX_PYTHON = 16
_MAX_DOWN = _RECORD_SIZE - _HOST.size - MAX_HOST_NAME - _MAX_PYTHON


class Entry(Record):
    """A running process: its number, its owner's (0: the root), and when it started (epoch).

    `owner_host` is "" for an owner on the same host.
    """

    process: int
    owner: int
    started: float
    pid: int
    name: str
    owner_host: str = ""


def create_table(root_pid: int) -> int:
    """The descriptor of a new, empty table."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create(NAME)
    else:
        with tempfile.TemporaryFile(prefix=NAME) as file:
            descriptor = os.dup(file.fileno())
    os.pwrite(descriptor, _HEADER.pack(_MAGIC, root_pid), 0)
    os.ftruncate(descriptor, _FIRST_PROCESS)
    return descriptor


class ProcessWriter:
    """The fork server's side."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._slots: dict[int, int] = {}
        self._free: list[int] = []
        self._discounted: set[int] = set()

    def add(self, entry: Entry) -> None:
        """A process runs from now on."""
        slot = self._free.pop() if self._free else len(self._slots)
        self._slots[entry.process] = slot
        name = _fit(entry.name, _MAX_NAME)
        owner_host = _fit(entry.owner_host, _MAX_OWNER_HOST)
        owner = _bounded(entry.owner, 64)  # of another host: that one may say anything
        numbers = (entry.process, owner, entry.started, entry.pid)
        record = _PROCESS.pack(*numbers, len(name), len(owner_host)) + name + owner_host
        self._write(slot, record)

    def remove(self, process: int) -> None:
        """A process is gone."""
        self._discounted.discard(process)
        slot = self._slots.pop(process, None)
        if slot is not None:
            self._free.append(slot)
            self._write(slot, bytes(_PROCESS.size))

    @property
    def running(self) -> int:
        """How many there are that count."""
        return len(self._slots) - len(self._discounted)

    def discount(self, process: int) -> None:
        """A process is not to be counted."""
        if process in self._slots:
            self._discounted.add(process)
            self._write_counts()

    def _write(self, slot: int, record: bytes) -> None:
        os.pwrite(self._descriptor, record, _FIRST_PROCESS + slot * _RECORD_SIZE)
        self._write_counts()

    def _write_counts(self) -> None:
        counts = struct.pack("<II", self.running, len(self._slots) + len(self._free))
        os.pwrite(self._descriptor, counts, _RUNNING)


class HostWriter:
    """The agent's side, and before there is one the fork server's."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._slots = {host.name: i for i, host in enumerate(read_hosts(descriptor))}

    def write(self, hosts: Iterable[HostState]) -> None:
        """These have changed."""
        for host in hosts:
            slot = self._slots.setdefault(host.name, len(self._slots))
            if slot < MAX_HOSTS:
                place = _FIRST_HOST + slot * _RECORD_SIZE
                os.pwrite(self._descriptor, _pack_host(host), place)
        count = min(len(self._slots), MAX_HOSTS)
        os.pwrite(self._descriptor, _COUNT.pack(count), _HOSTS)


def _pack_host(host: HostState) -> bytes:
    name = _fit(host.name, MAX_HOST_NAME)
    python = _fit(host.python, _MAX_PYTHON)
    down = _fit(host.down, _MAX_DOWN)
    numbers = [_bounded(number, 32) for number in (host.slots, host.running, host.pid, host.order)]
    return _HOST.pack(*numbers, len(name), len(python), len(down)) + name + python + down


def _fit(text: str, size: int) -> bytes:
    """At most so many bytes of it; a text that is cut ends with an ellipsis."""
    data = text.encode(errors="replace")
    if len(data) <= size:
        return data
    mark = "\N{HORIZONTAL ELLIPSIS}".encode()
    return data[: size - len(mark)].decode(errors="ignore").encode() + mark


def _bounded(number: int, bits: int) -> int:
    return min(max(number, 0), (1 << bits) - 1)


def running(descriptor: int) -> int:
    """How many processes run."""
    return int(_COUNT.unpack(os.pread(descriptor, 4, _RUNNING))[0])


def read_hosts(descriptor: int) -> list[HostState]:
    """The hosts that are known, this one first."""
    count = _COUNT.unpack(os.pread(descriptor, 4, _HOSTS))[0]
    data = os.pread(descriptor, count * _RECORD_SIZE, _FIRST_HOST)
    return [_unpack_host(data, start) for start in range(0, len(data), _RECORD_SIZE)]


def _unpack_host(data: bytes, start: int) -> HostState:
    slots, count, pid, order, *lengths = _HOST.unpack_from(data, start)
    texts = list(_cut(data, start + _HOST.size, lengths))
    return HostState(texts[0], slots, texts[1], pid, count, texts[2], order)


def read_table(descriptor: int) -> tuple[int, list[Entry]]:
    """The root's pid and the running processes; raises ValueError for what is no table."""
    header = os.pread(descriptor, _WATCHED, 0)
    if len(header) < _WATCHED or not header.startswith(_MAGIC):
        raise ValueError("this is no table of processes")
    count = _COUNT.unpack_from(header, _PROCESSES)[0]
    data = os.pread(descriptor, count * _RECORD_SIZE, _FIRST_PROCESS)
    return _HEADER.unpack_from(header)[1], list(_entries(data))


def _entries(data: bytes) -> Iterator[Entry]:
    for start in range(0, len(data) - _PROCESS.size + 1, _RECORD_SIZE):
        process, owner, started, pid, *lengths = _PROCESS.unpack_from(data, start)
        if process:
            name, owner_host = _cut(data, start + _PROCESS.size, lengths)
            yield Entry(process, owner, started, pid, name, owner_host)


def _cut(data: bytes, start: int, lengths: Iterable[int]) -> Iterator[str]:
    for length in lengths:
        yield data[start : start + length].decode(errors="replace")
        start += length


def watch(descriptor: int, seconds: float) -> None:
    """Tell the program that somebody looks at it, for that long."""
    os.pwrite(descriptor, _TIME.pack(time.time() + seconds), _WATCHED)


def is_watched(descriptor: int) -> bool:
    """Whether somebody does."""
    until = os.pread(descriptor, _TIME.size, _WATCHED)
    return len(until) == _TIME.size and bool(_TIME.unpack(until)[0] > time.time())
