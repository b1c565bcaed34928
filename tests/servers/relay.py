"""A relay: connections through it are far, slow or lossy, for not every kernel can make them so."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .guarded import open_guarded

PROGRAM = Path(__file__).parents[1] / "programs" / "relay.py"


@dataclass(frozen=True)
class Relay:
    """A relay that runs."""

    address: str
    port: int
    pid: int
    """Killed, it cuts all connections; stopped with SIGSTOP, it holds them up."""


@contextmanager
def open_relay(
    address: str, port: int, *, delay: float = 0.0, rate: float = math.inf, loss: float = 0.0
) -> Iterator[Relay]:
    """Start a relay to `address` and `port`.

    Args:
        delay: seconds for each way
        rate: bytes a second for each way
        loss: the part of the segments that get lost on their way
    """
    with open_guarded() as server:
        parameters = [address, str(port), str(delay), str(rate), str(loss)]
        server.start(sys.executable, "-IS", str(PROGRAM), *parameters)
        server.wait_for(lambda: server.log.endswith("\n"))
        (pid,) = server.pids()
        yield Relay("127.0.0.1", int(server.log), pid)
