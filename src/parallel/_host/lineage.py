"""Pure: lineage: who owns whom, and what that means for whoever is to end.

* Who is killed is killed with everything below it, innermost first.
* A deadline is inherited: nobody below gets a later one.
* Cancelled is who ended because of it, not who crashed before or at the same moment.
"""

from __future__ import annotations

import heapq
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field

from .._wire.requests import Exited, Gone

ROOT = 0


@dataclass(slots=True)
class Process:
    """What is known of a process; one on another host has a number below 0 and no pid."""

    number: int
    pid: int
    host: str
    name: str = ""
    owner: Process | None = None
    request: int = 0
    alive: bool = True
    returncode: int | None = None
    maybe_oom: bool = False
    asked: bool = False
    """The agent was asked for its last words."""
    stderr: str | None = None
    """They."""
    settled: bool = False
    """None of the programs that it had started is left."""
    cancelled: bool = False
    killed: bool = False
    deadline: float | None = None
    children: dict[int, Process] = field(default_factory=dict)
    """By the request that each was asked for with."""

    def adopt(self, child: Process, request: int, name: str) -> None:
        """Own it: it was asked for, under that name."""
        child.owner, child.request, child.name = self, request, name
        self.children[request] = child

    def below(self) -> Iterator[Process]:
        """Everything below, innermost first, then itself."""
        outside_in: list[Process] = [self]
        for process in outside_in:  # it grows while we walk: cascades may be deep
            outside_in.extend(process.children.values())
        return reversed(outside_in)

    @property
    def is_elsewhere(self) -> bool:
        return self.number < 0

    @property
    def failed(self) -> bool:
        return self.returncode != 0 and not self.cancelled

    def time_left(self, now: float) -> float:
        """Seconds until its deadline."""
        assert self.deadline is not None
        return max(self.deadline - now, 0.0)

    def cancel(self) -> bool:
        """It shall end; whether that is new to it. Who has crashed already was not cancelled."""
        first = self.alive and not self.cancelled
        self.cancelled |= first
        return first

    def kill(self) -> list[Process]:
        """It and all below are killed; for whom that is still to be done, innermost first."""
        if self.killed:
            return []  # with its owner, and all below it: they often have the same deadline
        living = [process for process in self.below() if process.alive and not process.killed]
        for process in living:
            process.killed = process.cancelled = True
        return living

    def end(self, returncode: int, maybe_oom: bool) -> None:
        """It is dead; nobody need have run out of memory if it was us who killed it."""
        self.alive = False
        self.returncode = returncode
        self.maybe_oom = maybe_oom and not self.killed
        self.cancelled &= returncode in (0, -signal.SIGTERM) or self.killed

    def fate(self) -> Gone:
        """What those hear who watch it."""
        return Gone(
            self.host,
            self.number,
            self.pid,
            self.name,
            self.returncode,
            self.cancelled,
            self.maybe_oom,
        )

    def report(self) -> Exited:
        """What its owner hears."""
        assert self.returncode is not None
        return Exited(
            self.request, self.returncode, self.cancelled, self.maybe_oom, self.stderr or ""
        )


class Deadlines:
    """By when processes have to be gone."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []

    @property
    def earliest(self) -> float | None:
        """When the next of them is."""
        return self._heap[0][0] if self._heap else None

    def bring_forward(self, process: Process, deadline: float) -> bool:
        """To this one, or its owner's if that is earlier; whether it is sooner than it was."""
        owner = process.owner
        if owner is not None and owner.deadline is not None:
            deadline = min(deadline, owner.deadline)
        if process.deadline is not None and deadline >= process.deadline:
            return False
        process.deadline = deadline
        heapq.heappush(self._heap, (deadline, process.number))
        return True

    def take_due(self, now: float) -> Iterator[int]:
        """The numbers of those whose time has come; some may be gone, or come twice."""
        while self._heap and self._heap[0][0] <= now:
            yield heapq.heappop(self._heap)[1]
