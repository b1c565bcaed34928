"""What the root and its agent say to each other about the hosts."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from .abc import Launcher


class Add(NamedTuple):
    """Root: start a host; `config` is for its agent."""

    number: int
    launcher: Launcher
    config: dict[str, Any]


class Miss(NamedTuple):
    """Root: a host could not be had, and the others shall know."""

    number: int
    host: str
    reason: str


class Remove(NamedTuple):
    """Root: end that host."""

    number: int


class Added(NamedTuple):
    """Agent: the host is there; or it is missed, and all know that.

    `sent` is how many bytes were not in its cache.
    """

    number: int
    sent: int = 0


class Failed(NamedTuple):
    """Agent: the host could not be started."""

    number: int
    error: Exception


class Ended(NamedTuple):
    """Agent: the host is gone, and why."""

    number: int
    reason: str


Order: TypeAlias = Add | Miss | Remove
Reply: TypeAlias = Added | Failed | Ended
