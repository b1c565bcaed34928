"""What a host is told at its start."""

from __future__ import annotations

from typing import NamedTuple


class HostSettings(NamedTuple):
    """From `init`, for keeper, fork server and workers; times in seconds, sizes in bytes."""

    host: str
    root_pid: int
    grace: float
    spares: int
    preload: tuple[str, ...]
    max_message_size: int
    buffer_size: int
    hosts: tuple[tuple[str, int], ...]
    """Name and slots of each host of the cluster."""
