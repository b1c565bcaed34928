"""The root's stdout and stderr, where what is printed on other hosts appears, by whole lines."""

from __future__ import annotations

import os
import queue
import select
import threading
from collections.abc import Callable, Sequence

import trio

from ._ends import NOWHERE, Data, End

MAX_LINE = 1 << 16
"""Bytes of the longest line; one that is longer is split."""


class Console:
    """A descriptor that is written by a thread: one that is stuck holds up nobody else.

    It may be shared with others, so it must not be made non-blocking.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._queue: queue.SimpleQueue[tuple[bytes, Callable[[], object]]] = queue.SimpleQueue()
        self._token = trio.lowlevel.current_trio_token()
        self._thread: threading.Thread | None = None
        self._waiting = 0
        self._idle = trio.Event()
        self._idle.set()

    def write(self, data: bytes, on_shown: Callable[[], object]) -> None:
        """Show it; then call `on_shown`."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True, name="parallel: console")
            self._thread.start()
        if not self._waiting:
            self._idle = trio.Event()
        self._waiting += 1
        self._queue.put((data, on_shown))

    def _run(self) -> None:
        while True:
            data, on_shown = self._queue.get()
            try:
                self._show(memoryview(data))
            except OSError:
                pass  # the root's output has been closed; a process of its host would not mind
            try:
                self._token.run_sync_soon(self._shown, on_shown)
            except trio.RunFinishedError:
                return

    def _show(self, view: memoryview) -> None:
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except BlockingIOError:  # whoever shares it has made it so
                select.select([], [self._descriptor], [])

    def _shown(self, on_shown: Callable[[], object]) -> None:
        self._waiting -= 1
        if not self._waiting:
            self._idle.set()
        on_shown()

    async def flushed(self) -> None:
        """Wait until all has been shown."""
        await self._idle.wait()


class Lines:
    """An end that shows what it gets on a console, by whole lines with a label each."""

    room = None

    def __init__(self, console: Console, label: str) -> None:
        self._console = console
        self._label = label.encode(errors="replace")
        self._other: End = NOWHERE
        self._partial = b""
        self._unshown = 0
        self._finishing = False

    def join(self, other: End) -> None:
        """It is told when something is shown."""
        self._other = other

    def deliver(self, data: Data, passengers: Sequence[End] = ()) -> None:
        """Show the lines that are whole."""
        NOWHERE.deliver(b"", passengers)  # a pipe has none
        text = self._partial + data
        end = text.rfind(b"\n") + 1
        self._partial = text[end:]
        lines = [line + b"\n" for line in text[:end].split(b"\n")[:-1]]
        while len(self._partial) > MAX_LINE:
            lines.append(self._partial[:MAX_LINE])
            self._partial = self._partial[MAX_LINE:]
        if lines:
            self._show(lines, sum(map(len, lines)))

    def _show(self, lines: Sequence[bytes], size: int) -> None:
        pieces = []
        for line in lines:
            text = line.removesuffix(b"\n")
            for start in range(0, max(len(text), 1), MAX_LINE):
                pieces += [self._label, text[start : start + MAX_LINE], b"\n"]
        self._unshown += size
        self._console.write(b"".join(pieces), lambda: self._shown(size))

    def _shown(self, size: int) -> None:
        self._unshown -= size
        self._other.grant(size)
        self._finish_if_shown()

    def finish(self) -> None:
        """Complete the last line; when that is shown, the other end hears of it."""
        self._finishing = True
        if self._partial:
            line, self._partial = self._partial, b""
            self._show([line], len(line))
        self._finish_if_shown()

    def _finish_if_shown(self) -> None:
        if self._finishing and not self._unshown:
            self._other.finish()

    def refuse(self) -> None:
        """It has nothing to give."""

    def grant(self, count: int) -> None:
        """It has nothing to give."""
