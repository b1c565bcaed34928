"""What the plan tells the fork server to do."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from .._wire.requests import Request


@dataclass(frozen=True, slots=True)
class Send:
    """Send this to that process."""

    process: int
    request: Request
    descriptors: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Kill:
    """Send this signal to that process."""

    pid: int
    signal: signal.Signals


@dataclass(frozen=True, slots=True)
class Enter:
    """Write this process down as running; its owner may be on another host."""

    process: int
    owner_host: str
    owner: int
    pid: int
    name: str


@dataclass(frozen=True, slots=True)
class Discount:
    """This process is one of ours: placements shall not count it."""

    process: int


@dataclass(frozen=True, slots=True)
class Forget:
    """Nothing of this process is left."""

    process: int


@dataclass(frozen=True, slots=True)
class Close:
    """Close these descriptors: nobody wants them."""

    descriptors: Sequence[int]


Instruction: TypeAlias = Send | Kill | Enter | Discount | Forget | Close
