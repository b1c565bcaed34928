"""The probe: what `check` runs on a host, and how both ends measure what lies between them.

The caller sends one question at a time. The answers to `Query.TIME` give the round trip and the
clock; for the throughput one side pours chunks out and the other counts them, in each direction.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from ._channel import Channel
from ._directory import usable_cpus
from ._hub import Hub

ROUNDS = 20
CHUNK = 1 << 18
CHUNKS = 64
SECONDS = 1.0
"""Those who pour stop then: 10 Mbit/s would take a quarter of a minute for all the chunks."""


class Query(Enum):
    """What the caller wants."""

    FACTS = "facts"
    TIME = "time"
    POUR = "pour"
    """Send chunks, then an empty one."""


Question: TypeAlias = Query | bytes
"""Chunks come without being asked for; the empty one asks whether all have come."""


class Facts(NamedTuple):
    """What a host is. `memory` is in bytes, None where the system does not tell."""

    python: str
    executable: str
    system: str
    cores: int
    memory: int | None


Answer: TypeAlias = Facts | float | bytes


# On the host


async def answer(hub: Hub[Question, Answer]) -> None:
    """Answer one caller until it has closed its channel."""
    async for client, question in hub:
        match question:
            case Query.FACTS:
                await hub.send(client, look())
            case Query.TIME:
                await hub.send(client, time.time())
            case Query.POUR:
                await pour(partial(hub.send, client))
            case b"":
                await hub.send(client, b"")


def look() -> Facts:
    """The facts of this host."""
    system = f"{platform.system()} {platform.machine()}"
    return Facts(platform.python_version(), sys.executable, system, usable_cpus(), _memory())


def _memory() -> int | None:
    """What this process may use: what there is, or a limit of a group that it is in."""
    try:
        limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (OSError, ValueError):
        return None
    root = Path("/sys/fs/cgroup")
    try:
        group = Path("/proc/self/cgroup").read_text().strip().rpartition("::/")[2]
        for path in (root / group, *(root / group).parents):
            if path.is_relative_to(root) and (path / "memory.max").exists():
                limit = (path / "memory.max").read_text().strip()
                limits += [int(limit)] if limit != "max" else []
    except (OSError, ValueError):
        pass  # another system, or an older one
    return min(limits)


# On both


async def pour(send: Callable[[bytes], Awaitable[object]]) -> None:
    """Send what there is to send, for a while."""
    chunk = os.urandom(CHUNK)  # so that no compression on the way makes it look fast
    end = time.monotonic() + SECONDS
    for _ in range(CHUNKS):
        await send(chunk)
        if time.monotonic() > end:
            break
    await send(b"")


# Of the caller


class Measures(NamedTuple):
    """What lies between two hosts: seconds, and bytes in a second."""

    round_trip: float
    """The median."""
    clock_offset: float
    """The other's clock minus ours, give or take half of the shortest round trip."""
    upload: float
    download: float


async def ask_facts(channel: Channel[Question, Any]) -> Facts:
    """What the probe's host is."""
    await channel.send(Query.FACTS)
    facts: Facts = await channel.receive()
    return facts


async def measure(channel: Channel[Question, Any]) -> Measures:
    """Ask a probe."""
    rounds = [await _ask_time(channel) for _ in range(ROUNDS)]
    shortest = min(rounds)
    return Measures(
        round_trip=statistics.median(seconds for seconds, _ in rounds),
        clock_offset=shortest[1],
        upload=await _upload(channel),
        download=await _download(channel),
    )


async def _ask_time(channel: Channel[Question, Any]) -> tuple[float, float]:
    """How long it took, and how far the clock there was ahead of ours in the middle of it."""
    before, started = time.time(), time.perf_counter()
    await channel.send(Query.TIME)
    theirs = await channel.receive()
    seconds = time.perf_counter() - started
    return seconds, theirs - (before + seconds / 2)


async def _upload(channel: Channel[Question, Any]) -> float:
    size = 0

    async def send(chunk: bytes) -> None:
        nonlocal size
        size += len(chunk)
        await channel.send(chunk)

    started = time.perf_counter()
    await pour(send)
    assert await channel.receive() == b""
    return size / (time.perf_counter() - started)


async def _download(channel: Channel[Question, Any]) -> float:
    started = time.perf_counter()
    await channel.send(Query.POUR)
    size = 0
    while chunk := await channel.receive():
        size += len(chunk)
    return size / (time.perf_counter() - started)
