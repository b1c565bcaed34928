"""Pure: what a fork server does about each thing that happens.

Who asked for whom, who is to be gone by when, who is told of it. Each method takes an event and
returns instructions; nothing here forks, sends, kills or reads a clock.

The rules:

* A process has an owner: the one that asked for it. Cancelling sends it SIGTERM, and SIGKILL at its
  deadline, to it and to everything below it, innermost first. A deadline is inherited: nobody
  below gets a later one.
* When an owner is gone, what it owned is cancelled.
* A process is reported as gone when nothing below it is left, programs that it started included.
"""

from __future__ import annotations

import heapq
import signal
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from .._wire.requests import (
    Begin,
    Cancel,
    Exited,
    Gone,
    Refused,
    Request,
    Start,
    Started,
    Stop,
    Watch,
)

ROOT = 0
_REMEMBERED = 1000
"""So many of the dead are remembered, for who asks late."""


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
    """Write this process down as running."""

    process: int
    owner: int
    pid: int
    name: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Nothing of this process is left."""

    process: int


@dataclass(frozen=True, slots=True)
class Close:
    """Close these descriptors: nobody wants them."""

    descriptors: Sequence[int]


Instruction: TypeAlias = Send | Kill | Enter | Forget | Close


@dataclass(slots=True)
class Process:
    """What is known of a process."""

    number: int
    pid: int
    name: str = ""
    owner: Process | None = None
    request: int = 0
    alive: bool = True
    returncode: int | None = None
    maybe_oom: bool = False
    cancelled: bool = False
    killed: bool = False
    deadline: float | None = None
    children: dict[int, Process] = field(default_factory=dict)
    watchers: set[int] = field(default_factory=set)

    def below(self) -> Iterator[Process]:
        """Everything below, innermost first, then itself."""
        outside_in: list[Process] = [self]
        for process in outside_in:  # it grows while we walk: cascades may be deep
            outside_in.extend(process.children.values())
        return reversed(outside_in)

    def fate(self) -> Gone:
        return Gone(
            self.number, self.pid, self.name, self.returncode, self.cancelled, self.maybe_oom
        )


class Plan:
    """The state of a host's processes."""

    def __init__(self, host: str, root_pid: int, grace: float) -> None:
        self.host = host
        self.grace = grace
        self.root = Process(ROOT, root_pid, "root")
        self.processes = {ROOT: self.root}
        self.spares: OrderedDict[int, Process] = OrderedDict()
        self._by_pid: dict[int, Process] = {}
        self._deadlines: list[tuple[float, int]] = []
        self._unreported: dict[int, Process] = {}
        self._fates: OrderedDict[int, Gone] = OrderedDict()

    @property
    def finished(self) -> bool:
        """The root is gone and so is all that it owned."""
        return not self.root.alive and not self.root.children

    @property
    def next_deadline(self) -> float | None:
        """When `due` wants to be called next."""
        return self._deadlines[0][0] if self._deadlines else None

    def knows(self, pid: int) -> bool:
        """Whether that child of the fork server is one of its own making."""
        return pid in self._by_pid

    def add_spare(self, number: int, pid: int) -> None:
        """A process waits for work."""
        self.spares[number] = self._by_pid[pid] = Process(number, pid)

    def asked(
        self, asker: int, request: Request, descriptors: Sequence[int], now: float
    ) -> list[Instruction]:
        """A client asked for something. A `Start` needs a spare."""
        client = self.processes.get(asker)
        if client is None or not client.alive:
            return [Close(descriptors)]
        match request:
            case Start():
                return self._start(client, request, descriptors)
            case Cancel(number, grace):
                child = client.children.get(number)
                wanted = now + (self.grace if grace is None else grace)
                return self._cancel(child, wanted) if child is not None else []
            case Watch(number):
                return self._watch(client, number)
            case Stop() if client is self.root:
                return self.root_gone(now)
            case _:
                return [Close(descriptors)]

    def refused(
        self, asker: int, request: Start, descriptors: Sequence[int], why: str
    ) -> list[Instruction]:
        """There can be no process."""
        return [Close(descriptors), Send(asker, Refused(request.request, why))]

    def undelivered(self, number: int, why: str) -> list[Instruction]:
        """What was sent to a process was lost on the way: it may wait for that for ever."""
        process = self.processes.get(number)
        if process is None or process.owner is None or not process.alive:
            return []
        refused = Refused(process.request, why)
        return [Send(process.owner.number, refused), Kill(process.pid, signal.SIGKILL)]

    def _start(
        self, owner: Process, request: Start, descriptors: Sequence[int]
    ) -> list[Instruction]:
        if request.host != self.host:
            return self.refused(owner.number, request, descriptors, f"no host {request.host!r}")
        if not descriptors:
            why = "its connection did not arrive: too many open files"
            return self.refused(owner.number, request, descriptors, why)
        if request.request in owner.children:
            why = f"request {request.request} is under way already"
            return self.refused(owner.number, request, descriptors, why)
        number, process = self.spares.popitem(last=False)
        process.name, process.owner, process.request = request.name, owner, request.request
        self.processes[number] = owner.children[request.request] = process
        begin = Begin(number, owner.number, request.name)
        return [
            Enter(number, owner.number, process.pid, request.name),
            Send(number, begin, descriptors),
            Send(owner.number, Started(request.request, number, process.pid)),
        ]

    def _watch(self, client: Process, number: int) -> list[Instruction]:
        process = self.processes.get(number)
        if process is not None and process.alive:
            process.watchers.add(client.number)
            return []
        fate = self._fates.get(number, Gone(number, 0, "", None, False, False))
        return [Send(client.number, fate)]

    def _cancel(self, process: Process, deadline: float) -> list[Instruction]:
        owner = process.owner
        if owner is not None and owner.deadline is not None:
            deadline = min(deadline, owner.deadline)
        first = process.alive and not process.cancelled
        process.cancelled |= first  # who has crashed already was not cancelled
        if process.deadline is None or deadline < process.deadline:
            process.deadline = deadline
            heapq.heappush(self._deadlines, (deadline, process.number))
        return [Kill(process.pid, signal.SIGTERM)] if first else []

    def due(self, now: float) -> list[Instruction]:
        """Time has passed: kill what should be gone by now."""
        instructions: list[Instruction] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, number = heapq.heappop(self._deadlines)
            process = self.processes.get(number)
            if process is not None:
                instructions += self._kill(process)
        return instructions

    def _kill(self, process: Process) -> list[Instruction]:
        if process.killed:
            return []  # with its owner, and all below it: they often have the same deadline
        living = [below for below in process.below() if below.alive and not below.killed]
        for below in living:
            below.killed = below.cancelled = True
        return [Kill(below.pid, signal.SIGKILL) for below in living]

    def root_gone(self, now: float) -> list[Instruction]:
        """The root is dead, or wants no more."""
        self.root.alive = False
        return self._end_children(self.root, now)

    def connection_lost(self, number: int, now: float) -> list[Instruction]:
        """A client closed its connection: nobody is there who could own a process."""
        process = self.processes.get(number)
        return [] if process is None else self._end_children(process, now)

    def died(self, pid: int, returncode: int, maybe_oom: bool, now: float) -> list[Instruction]:
        """A child of the fork server is dead; orphans, which are not of its making, count not."""
        process = self._by_pid.pop(pid, None)
        if process is None:
            return []
        if self.spares.pop(process.number, None) is not None:
            return [Forget(process.number)]
        process.alive = False
        process.returncode = returncode
        process.maybe_oom = maybe_oom and not process.killed
        # Cancelled is who ended because of it, not who crashed or was killed at the same moment.
        process.cancelled &= returncode in (0, -signal.SIGTERM) or process.killed
        self._unreported[process.number] = process
        self._remember(process)
        told: list[Instruction] = [Send(watcher, process.fate()) for watcher in process.watchers]
        return told + self._end_children(process, now)

    def _end_children(self, owner: Process, now: float) -> list[Instruction]:
        instructions: list[Instruction] = []
        for child in owner.children.values():
            instructions += self._cancel(child, now + self.grace)
        return instructions

    def _remember(self, process: Process) -> None:
        self._fates[process.number] = process.fate()
        if len(self._fates) > _REMEMBERED:
            self._fates.popitem(last=False)

    def settled(self) -> list[Instruction]:
        """No orphan is left: report the dead below whom nothing is left."""
        instructions: list[Instruction] = []
        for process in list(self._unreported.values()):
            candidate: Process | None = process
            while candidate is not None and self._is_over(candidate):
                instructions += self._report(candidate)
                candidate = candidate.owner
        return instructions

    def _is_over(self, process: Process) -> bool:
        return process.number in self._unreported and not process.children

    def _report(self, process: Process) -> list[Instruction]:
        del self._unreported[process.number], self.processes[process.number]
        owner = process.owner
        assert owner is not None
        del owner.children[process.request]
        instructions: list[Instruction] = [Forget(process.number)]
        if owner.alive:
            assert process.returncode is not None
            report = Exited(
                process.request, process.returncode, process.cancelled, process.maybe_oom
            )
            instructions.append(Send(owner.number, report))
        return instructions
