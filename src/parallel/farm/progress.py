"""Progress: a bar on the terminal, by tqdm.

It looks at the farm a few times a second, so a task costs nothing. Where stderr is no terminal
there is no bar.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

from ..errors import ParallelError
from .engine import Engine


class Progress:
    """The bar of one farm."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        try:
            # An extra, and nothing that a worker needs.
            tqdm = import_module("tqdm").tqdm
        except ModuleNotFoundError as exc:
            raise ParallelError(
                "progress=True needs tqdm: install it, or this package with its extra: "
                "async-parallel[progress]"
            ) from exc
        self._bar: Any = None
        if sys.stderr is not None and sys.stderr.isatty():
            # No thread of its own, and no lock that is shared with other processes.
            kind = type("Bar", (tqdm,), {"monitor_interval": 0, "_lock": threading.RLock()})
            self._bar = kind(
                file=sys.stderr, unit=" tasks", mininterval=0, miniters=0, dynamic_ncols=True
            )

    def refresh(self) -> None:
        """Show how far it is."""
        bar = self._bar
        if bar is not None:
            engine = self._engine
            bar.total = engine.expected
            parts = [f"{engine.plan.busy}/{len(engine.desks)} workers busy"]
            if failures := engine.tally.failed + engine.tally.lost:
                parts.insert(0, f"{failures} failed")
            bar.set_postfix_str(", ".join(parts), refresh=False)
            self._show(lambda: bar.update(engine.ended - bar.n))

    def close(self) -> None:
        """Show it for the last time; it stays on the screen."""
        self.refresh()
        if self._bar is not None:
            self._show(self._bar.close)

    def _show(self, how: Callable[[], object]) -> None:
        try:
            how()
        except (OSError, ValueError):
            self._bar = None  # the terminal is gone, or stderr was closed
