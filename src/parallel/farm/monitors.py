"""Monitors: what watches a farm for its users. They read what it tells, and never steer it."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Protocol

import trio

from .audit import Audit, AuditLog
from .engine import Engine
from .progress import Progress
from .trace import Trace

ROUND = 0.2
"""Seconds after which what they have seen is written or shown."""

Path = str | os.PathLike[str]


class Monitor(Protocol):
    """Something that watches."""

    def refresh(self) -> None:
        """Write or show what has been seen since the last time."""
        ...

    def close(self) -> None:
        """The same for the last time."""
        ...


class Monitors:
    """Those of one farm."""

    def __init__(self, monitors: Sequence[Monitor]) -> None:
        self._monitors = monitors

    async def run(self) -> None:
        """Refresh them every now and then."""
        while self._monitors:
            await trio.sleep(ROUND)
            for monitor in self._monitors:
                monitor.refresh()


@contextmanager
def opened_monitors(
    engine: Engine,
    *,
    progress: bool = False,
    audit: Audit | Path | None = None,
    trace: Path | None = None,
) -> Generator[Monitors]:
    """Those that are wanted, from before the first worker comes until after the last has gone."""
    monitors: list[Monitor] = []
    with ExitStack() as stack:
        if audit is not None:
            log = AuditLog(audit if isinstance(audit, Audit) else Audit(audit))
            stack.callback(log.close)
            engine.observers.append(log.observe)
            monitors.append(log)
        if trace is not None:
            timeline = Trace(trace, trio.current_time)
            stack.callback(timeline.close)
            engine.observers.append(timeline.observe)
            monitors.append(timeline)
        if progress:
            bar = Progress(engine)
            stack.callback(bar.close)
            monitors.append(bar)
        yield Monitors(monitors)
