"""What a host is told at its start."""

from __future__ import annotations

from ._wire.record import Record


class HostSettings(Record):
    """From `init`, for keeper, fork server and workers; times in seconds, sizes in bytes."""

    host: str
    root_pid: int
    grace: float
    spares: int
    preload: tuple[str, ...]
    max_message_size: int
    buffer_size: int
    slots: int
    """How many processes this host is meant for at once."""
    forward_output: bool = False
    """What the processes print goes by way of the host's agent."""
    ship: bool | tuple[str, ...] = True
    """What other hosts get of a caller's modules: see `_shipping`."""
