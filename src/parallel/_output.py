"""What the processes of a host print: from their pipes to the root, in order with their results.

Each process of a host that is not the root's writes into two pipes. Its agent sends on what comes
out of them. What such a process says to its caller waits until what it printed before is shown.
"""

from __future__ import annotations

import os
import select
from collections import OrderedDict
from collections.abc import Callable, Sequence

import trio

from ._ends import NOWHERE, Data, End, Gate

WINDOW = 1 << 17
"""Bytes of a pipe that may be under way: more than the longest line, which is shown as a whole."""

READ_SIZE = 1 << 16
LAST_WORDS = 2000
"""Bytes of a process's errors that are kept for `WorkerDied`."""

_REMEMBERED = 1000
"""So many processes that print no more are remembered: nobody says which of them has ended well."""


class Pipe:
    """An end that is the pipe into which a process prints."""

    room = None

    def __init__(self, descriptor: int, poller: select.epoll, keep: int = 0) -> None:
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        self.is_open = True
        self.tail = b""
        """The last `keep` bytes."""
        self._poller = poller
        self._keep = keep
        self._other: End = NOWHERE
        self._delivered = 0
        self._granted = 0
        self._in_line = False
        self._waiting: list[tuple[int, trio.Event]] = []
        self._watched = False
        self._watch()

    def _watch(self) -> None:
        """A pipe whose writer is gone would wake the poller up even if nothing is asked of it."""
        wanted = self.is_open and self._delivered - self._granted < WINDOW
        if wanted and not self._watched:
            self._poller.register(self.descriptor, select.EPOLLIN)
        elif self._watched and not wanted:
            self._poller.unregister(self.descriptor)
        self._watched = wanted

    def join(self, other: End) -> None:
        """Send it there."""
        self._other = other

    def read(self) -> None:
        """Send on what is there, as far as may be."""
        while self.is_open and self._delivered - self._granted < WINDOW:
            data = self._read_some()
            if data is None:
                return
            if data:
                self._deliver(data)
            else:
                self._end()
        self._watch()

    def _read_some(self) -> bytes | None:
        try:
            return os.read(self.descriptor, READ_SIZE)
        except BlockingIOError:
            return None

    def _deliver(self, data: bytes) -> None:
        if self._keep:
            self.tail = (self.tail + data)[-self._keep :]
        self._in_line = not data.endswith(b"\n")
        self._delivered += len(data)
        self._other.deliver(data, ())

    def _end(self) -> None:
        self.close()
        self._other.finish()

    def close(self) -> None:
        """Let whoever still prints find nobody there."""
        if self.is_open:
            self.is_open = False
            self._watch()
            os.close(self.descriptor)

    async def shown(self) -> None:
        """Wait until what has been sent by now is shown; a last partial line is completed."""
        if self._in_line and self.is_open:
            self._deliver(b"\n")
        if self._granted < self._delivered:
            event = trio.Event()
            self._waiting.append((self._delivered, event))
            await event.wait()

    # What the other end calls

    def grant(self, count: int) -> None:
        """So much has been shown."""
        self._granted += count
        for mark, event in self._waiting:
            if mark <= self._granted:
                event.set()
        self._waiting = [entry for entry in self._waiting if entry[0] > self._granted]
        self._watch()

    def refuse(self) -> None:
        """Nobody is there to see it: drop it, but let the process go on."""
        self._other = _Dropped(self)
        self.grant(self._delivered - self._granted)

    def finish(self) -> None:
        """All has been shown, the end too."""
        self.grant(self._delivered - self._granted)

    def deliver(self, data: Data, passengers: Sequence[End]) -> None:
        """Nothing comes from there."""


class _Dropped:
    """Where output goes that nobody can see."""

    room = None

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    def deliver(self, data: Data, passengers: Sequence[End]) -> None:
        self._pipe.grant(len(data))

    def finish(self) -> None:
        pass

    def refuse(self) -> None:
        pass

    def grant(self, count: int) -> None:
        pass

    def join(self, other: End) -> None:
        pass


class Outputs:
    """The pipes of all processes of a host."""

    def __init__(self) -> None:
        self._poller = select.epoll()
        self._pipes: dict[int, tuple[Pipe, int]] = {}
        self._of: dict[int, tuple[Pipe, Pipe]] = {}
        self._silent: OrderedDict[int, None] = OrderedDict()
        """The processes whose pipes are both at their end."""

    def add(self, process: int, descriptors: Sequence[int]) -> tuple[Pipe, Pipe]:
        """A process begins; `descriptors` are what it prints, and its errors."""
        out = Pipe(descriptors[0], self._poller)
        errors = Pipe(descriptors[1], self._poller, LAST_WORDS)
        self._pipes[out.descriptor] = out, process
        self._pipes[errors.descriptor] = errors, process
        self._of[process] = out, errors
        return out, errors

    async def run(self) -> None:
        """Send on what is printed."""
        while True:
            await trio.lowlevel.wait_readable(self._poller.fileno())
            self.drain()

    def drain(self) -> None:
        """Send on what has been printed by now."""
        for descriptor, _ in self._poller.poll(0):
            pipe, process = self._pipes[descriptor]
            pipe.read()
            if not pipe.is_open:
                del self._pipes[descriptor]
                self._note_silence(process)

    def _note_silence(self, process: int) -> None:
        if not any(pipe.is_open for pipe in self._of.get(process, ())):
            self._silent[process] = None
            if len(self._silent) > _REMEMBERED:
                self._of.pop(self._silent.popitem(last=False)[0], None)

    def gate(self, process: Callable[[], int | None]) -> Gate:
        """What the process says has to wait for: see the top."""

        async def wait() -> None:
            self.drain()
            for pipe in self._of.get(process() or -1, ()):
                await pipe.shown()

        return wait

    def last_words(self, process: int) -> str:
        """The last lines of a dead process's errors; its pipes are at their end."""
        self.drain()
        pipes = self._of.pop(process, None)
        return pipes[1].tail.decode(errors="replace") if pipes is not None else ""

    def close(self) -> None:
        """Show nothing any more."""
        for pipe, _ in self._pipes.values():
            pipe.close()
        self._poller.close()
