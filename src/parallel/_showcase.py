"""The showcase: what the root's agent shows to `python -m parallel top`, in shared memory.

`top` finds it among the agent's open files, so nobody is asked and nothing listens. A checksum
tells a reader that it has read parts of two writes.

    offset   what
    0        magic, version, when it was shown (epoch), its length, its CRC-32
    36       what is shown
"""

from __future__ import annotations

import os
import random
import struct
import sys
import time
from typing import NamedTuple
from zlib import crc32

NAME = "parallel-showcase"
AGENT = "agent"
"""The name of the process that has one."""

_MAGIC = b"showcase"
_HEADER = struct.Struct("<8sQdQI")
_ATTEMPTS = 20
_PAUSE = 0.001
"""Seconds between two attempts at most; chance keeps reader and writer out of step.

A write takes microseconds; who is still at it after so many has died of it."""


class Shown(NamedTuple):
    """What was shown, and when, in seconds since the epoch."""

    data: bytes
    time: float


class Showcase:
    """The agent's side."""

    def __init__(self) -> None:
        # Elsewhere nobody could find it.
        self.descriptor = os.memfd_create(NAME) if sys.platform == "linux" else -1
        self._version = 0

    def show(self, data: bytes) -> None:
        """Show this in place of what was shown before."""
        if self.descriptor < 0:
            return
        self._version += 1
        header = _HEADER.pack(_MAGIC, self._version, time.time(), len(data), crc32(data))
        os.pwrite(self.descriptor, header + data, 0)

    def close(self) -> None:
        """Who has it open still sees the last that was shown."""
        if self.descriptor >= 0:
            os.close(self.descriptor)


def read_showcase(descriptor: int) -> Shown | None:
    """What is shown now; None for nothing, or for something that is no showcase."""
    for _ in range(_ATTEMPTS):
        # Whole, in one call: between two the agent may write again.
        whole = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        if len(whole) < _HEADER.size:
            return None
        magic, _, shown, length, checksum = _HEADER.unpack_from(whole)
        if magic != _MAGIC:
            return None
        data = whole[_HEADER.size :][:length]
        if crc32(data) == checksum:
            return Shown(data, shown)
        time.sleep(random.random() * _PAUSE)
    return None
