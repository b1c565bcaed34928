"""The running processes of a host, in shared memory.

Only the fork server writes; whoever has the descriptor reads, without asking anybody: `hosts()`,
placements, `processes()`, and `python -m parallel top`, which finds it among the fork server's open
files.
"""

from __future__ import annotations

import os
import struct
import tempfile
import time
from collections.abc import Iterator
from typing import NamedTuple

NAME = "parallel-processes"
_HEADER = struct.Struct("<8sII")
_MAGIC = b"parallel"
_RECORD = struct.Struct("<QQdIH")
_RECORD_SIZE = 256
_FIRST = 64
_MAX_NAME = _RECORD_SIZE - _RECORD.size


class Entry(NamedTuple):
    """A running process: its number, its owner's (0: the root), and when it started (epoch)."""

    process: int
    owner: int
    started: float
    pid: int
    name: str


def create_table(root_pid: int) -> int:
    """The descriptor of a new, empty table."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create(NAME)
    else:
        with tempfile.TemporaryFile(prefix=NAME) as file:
            descriptor = os.dup(file.fileno())
    os.pwrite(descriptor, _HEADER.pack(_MAGIC, root_pid, 0), 0)
    return descriptor


class TableWriter:
    """The fork server's side."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._slots: dict[int, int] = {}
        self._free: list[int] = []

    def add(self, process: int, owner: int, pid: int, name: str) -> None:
        """A process runs from now on."""
        slot = self._free.pop() if self._free else len(self._slots)
        self._slots[process] = slot
        text = name.encode(errors="replace")[:_MAX_NAME]
        record = _RECORD.pack(process, owner, time.time(), pid, len(text)) + text
        self._write(slot, record)

    def remove(self, process: int) -> None:
        """A process is gone."""
        slot = self._slots.pop(process, None)
        if slot is not None:
            self._free.append(slot)
            self._write(slot, bytes(_RECORD.size))

    def _write(self, slot: int, record: bytes) -> None:
        os.pwrite(self._descriptor, record, _FIRST + slot * _RECORD_SIZE)
        count = struct.pack("<I", len(self._slots))
        os.pwrite(self._descriptor, count, _HEADER.size - len(count))


def running(descriptor: int) -> int:
    """How many processes run."""
    return int(_HEADER.unpack(os.pread(descriptor, _HEADER.size, 0))[2])


def read_table(descriptor: int) -> tuple[int, list[Entry]]:
    """The root's pid and the running processes; raises ValueError for what is no table."""
    data = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    if len(data) < _HEADER.size or not data.startswith(_MAGIC):
        raise ValueError("this is no table of processes")
    return _HEADER.unpack_from(data)[1], list(_entries(data))


def _entries(data: bytes) -> Iterator[Entry]:
    for start in range(_FIRST, len(data) - _RECORD.size + 1, _RECORD_SIZE):
        process, owner, started, pid, length = _RECORD.unpack_from(data, start)
        if process:
            name = data[start + _RECORD.size :][:length].decode(errors="replace")
            yield Entry(process, owner, started, pid, name)
