"""Pure: what a fork server does about each thing that happens.

Who asked for whom, who is to be gone by when, who is told of it. Each method takes an event and
returns instructions; nothing here forks, sends, kills or reads a clock.

The rules:

* A process has an owner: the one that asked for it. Cancelling sends it SIGTERM, and SIGKILL at its
  deadline, to it and to everything below it, innermost first. A deadline is inherited: nobody
  below gets a later one.
* When an owner is gone, what it owned is cancelled.
* A process is reported as gone when nothing below it is left, programs that it started included.
* A process on another host is a process like any other, but what is done to it is said to the
  agent, and what becomes of it is heard from there. When its host is gone, so is it.
* A host that is not the root's belongs to its agent, which asks for what other hosts want. The
  root's agent is a worker; when the root is gone it goes last, for the others may need it.
"""

from __future__ import annotations

import signal
from collections import OrderedDict
from collections.abc import Sequence

from .._wire.requests import (
    Begin,
    Cancel,
    Exited,
    Failed,
    Gone,
    HostDown,
    Lost,
    Output,
    Refused,
    Request,
    Serve,
    Start,
    Started,
    Stop,
    Survey,
    Watch,
    Words,
)
from ..errors import describe_exit
from .instruction import Close, Discount, Enter, Forget, Instruction, Kill, Send
from .lineage import ROOT, Deadlines, Process
from .watchers import Watchers


class Plan:
    """The state of a host's processes; `forwards`: what they print goes through its agent."""

    def __init__(self, host: str, root_pid: int, grace: float, forwards: bool = False) -> None:
        self.host = host
        self.grace = grace
        self.root = Process(ROOT, root_pid, host, "root")
        self.processes = {ROOT: self.root}
        self.spares: OrderedDict[int, Process] = OrderedDict()
        self.agent: Process | None = self.root if forwards else None
        self._forwards = forwards
        self._by_pid: dict[int, Process] = {}
        self._deadlines = Deadlines()
        self._unreported: dict[int, Process] = {}
        self._watchers = Watchers(host)
        self._last_elsewhere = 0

    @property
    def finished(self) -> bool:
        """The root is gone and so is all that it owned."""
        return not self.root.alive and not self.root.children

    @property
    def next_deadline(self) -> float | None:
        """When `due` wants to be called next."""
        return self._deadlines.earliest

    def knows(self, pid: int) -> bool:
        """Whether that child of the fork server is one of its own making."""
        return pid in self._by_pid

    def add_spare(self, number: int, pid: int) -> None:
        """A process waits for work."""
        self.spares[number] = self._by_pid[pid] = Process(number, pid, self.host)

    # What is asked

    def asked(
        self, asker: int, request: Request, descriptors: Sequence[int], now: float
    ) -> list[Instruction]:
        """A client asked for something. A `Start` for this host needs a spare."""
        client = self.processes.get(asker)
        if client is None or not client.alive:
            return [Close(descriptors)]
        match request:
            case Start():
                return self._start(client, request, descriptors)
            case Cancel(number, grace):
                child = client.children.get(number)
                wanted = now + (self.grace if grace is None else grace)
                return self._cancel(child, wanted, now) if child is not None else []
            case Watch(host, number):
                return self._watch(client, host, number)
            case Survey() if self._agent_lives and client is not self.agent:
                return self._to_agent(request, descriptors)
            case Serve() if client.owner is self.root and self.agent is None:
                self.agent = client
                return [Discount(client.number)]
            case Stop() if client is self.root:
                return self.root_gone(now)
            case _ if client is self.agent:
                return [Close(descriptors), *self._heard(request)]
            case _:
                return [Close(descriptors)]

    def refused(
        self, asker: int, request: Start, descriptors: Sequence[int], why: str
    ) -> list[Instruction]:
        """There can be no process."""
        return [Close(descriptors), Send(asker, Refused(request.request, why))]

    def is_for_here(self, request: Request) -> bool:
        """Whether it needs a spare."""
        return isinstance(request, Start) and request.host == self.host

    def undelivered(self, number: int, request: Request, why: str) -> list[Instruction]:
        """What was sent to a process was lost on the way: somebody may wait for that for ever.

        Only what has descriptors can be. Of the agent's it fails what it was about, and not the
        agent: who asked for a survey sees the end of the answer.
        """
        process = self.processes.get(number)
        if process is not None and process is self.agent:
            match request:
                case Start(elsewhere) if elsewhere in self.processes:
                    process = self.processes[elsewhere]
                    return self._end_elsewhere(process, Refused(process.request, why))
                case Output(begun):
                    process = self.processes.get(begun)  # nobody would read what it prints
                case _:
                    return []
        if process is None or process.owner is None or not process.alive:
            return []
        refused = Refused(process.request, why)
        return [Send(process.owner.number, refused), Kill(process.pid, signal.SIGKILL)]

    def _start(
        self, owner: Process, request: Start, descriptors: Sequence[int]
    ) -> list[Instruction]:
        if not self.is_for_here(request) and not self._agent_lives:
            return self.refused(owner.number, request, descriptors, f"no host {request.host!r}")
        if not descriptors:
            why = "its connection did not arrive: too many open files"
            return self.refused(owner.number, request, descriptors, why)
        if request.request in owner.children:
            why = f"request {request.request} is under way already"
            return self.refused(owner.number, request, descriptors, why)
        if not self.is_for_here(request):
            return self._start_elsewhere(owner, request, descriptors)
        number, process = self.spares.popitem(last=False)
        self._adopt(process, owner, request)
        owner_host, owner_number = self.host, owner.number
        if owner is self.agent and request.owner_host:  # of nobody else would it be true
            owner_host, owner_number = request.owner_host, request.owner
        begin = Begin(number, owner_host, owner_number, request.name)
        return [
            Enter(number, owner_host, owner_number, process.pid, request.name),
            Send(number, begin, descriptors),
            Send(owner.number, Started(request.request, number, process.pid)),
        ]

    def _adopt(self, process: Process, owner: Process, request: Start) -> None:
        owner.adopt(process, request.request, request.name)
        self.processes[process.number] = process

    def _start_elsewhere(
        self, owner: Process, request: Start, descriptors: Sequence[int]
    ) -> list[Instruction]:
        self._last_elsewhere -= 1
        process = Process(self._last_elsewhere, 0, request.host)
        self._adopt(process, owner, request)
        forwarded = request._replace(
            request=process.number, owner_host=self.host, owner=owner.number
        )
        return self._to_agent(forwarded, descriptors)

    def _watch(self, client: Process, host: str, number: int) -> list[Instruction]:
        if host != self.host:
            if not self._agent_lives:
                return [Send(client.number, HostDown(host, "there is no agent any more"))]
            self._watchers.watch_elsewhere(client.number, host, number)
            return self._to_agent(Watch(host, number))
        process = self.processes.get(number)
        if process is not None and process.alive:
            self._watchers.watch(client.number, number)
            return []
        return [Send(client.number, self._watchers.fate(number))]

    # Other hosts

    @property
    def _agent_lives(self) -> bool:
        return self.agent is not None and self.agent.alive

    def _to_agent(self, request: Request, descriptors: Sequence[int] = ()) -> list[Instruction]:
        if self.agent is None or not self.agent.alive:
            return [Close(descriptors)]
        return [Send(self.agent.number, request, descriptors)]

    def _heard(self, request: Request) -> list[Instruction]:
        """The agent says something of other hosts, or of a dead process here."""
        match request:
            case Started(number) | Refused(number) | Exited(number) | Lost(number) if number < 0:
                process = self.processes.get(number)
                return [] if process is None else self._heard_of(process, request)
            case Gone():
                return self._watchers.gone(request)
            case HostDown():
                return self._host_down(request)
            case Words(number, text) if number in self._unreported:
                process = self._unreported[number]
                process.stderr = text
                return self._report_upwards(process)
        return []

    def _heard_of(self, process: Process, report: Request) -> list[Instruction]:
        assert isinstance(report, Started | Refused | Exited | Lost)
        owner = process.owner
        assert owner is not None
        if isinstance(report, Started):
            return [Send(owner.number, report._replace(request=process.request))]
        if isinstance(report, Exited):
            process.returncode = report.returncode
            process.cancelled = report.cancelled
        return self._end_elsewhere(process, report._replace(request=process.request))

    def _end_elsewhere(self, process: Process, report: Request) -> list[Instruction]:
        """It is gone, and so was all below it before."""
        owner = process.owner
        assert owner is not None
        del self.processes[process.number], owner.children[process.request]
        told: list[Instruction] = [Send(owner.number, report)] if owner.alive else []
        return told + self._report_upwards(owner)

    def _host_down(self, down: HostDown) -> list[Instruction]:
        instructions: list[Instruction] = []
        for process in [each for each in self.processes.values() if each.host == down.host]:
            if process.is_elsewhere:
                lost = Lost(process.request, down.host, down.reason)
                instructions += self._end_elsewhere(process, lost)
                if self._agent_lives:
                    # If its Start is still on the way it may reach a new host of the same name.
                    instructions += self._to_agent(Cancel(process.number, 0.0))
        return instructions + self._watchers.host_down(down)

    def _agent_gone(self, how: str) -> list[Instruction]:
        """With it go all other hosts, and what it was still to say of this one."""
        assert self.agent is not None
        reason = f"the agent that held the link to it (pid {self.agent.pid}) {how}"
        self.agent = None
        hosts = {each.host for each in self.processes.values() if each.is_elsewhere}
        instructions: list[Instruction] = []
        for host in hosts | self._watchers.hosts():
            instructions += self._host_down(HostDown(host, reason))
        for process in list(self._unreported.values()):
            instructions += self._report_upwards(process)
        return instructions

    # What shall end

    def _cancel(self, process: Process, deadline: float, now: float) -> list[Instruction]:
        first = process.cancel()
        sooner = self._deadlines.bring_forward(process, deadline)
        if process.is_elsewhere:
            return self._to_agent(Cancel(process.number, process.time_left(now))) if sooner else []
        return [Kill(process.pid, signal.SIGTERM)] if first else []

    def due(self, now: float) -> list[Instruction]:
        """Time has passed: kill what should be gone by now."""
        instructions: list[Instruction] = []
        for number in self._deadlines.take_due(now):
            process = self.processes.get(number)
            if process is not None:
                instructions += self._kill(process)
        return instructions

    def _kill(self, process: Process) -> list[Instruction]:
        instructions: list[Instruction] = []
        for below in process.kill():
            if below.is_elsewhere:
                instructions += self._to_agent(Cancel(below.number, 0.0))
            else:
                instructions.append(Kill(below.pid, signal.SIGKILL))
        return instructions

    def root_gone(self, now: float) -> list[Instruction]:
        """The root is dead, or wants no more."""
        self.root.alive = False
        return self._end_children(self.root, now) + self._root_is_no_agent()

    def _root_is_no_agent(self) -> list[Instruction]:
        return self._agent_gone("is gone") if self.agent is self.root else []

    def connection_lost(self, number: int, now: float) -> list[Instruction]:
        """A client closed its connection: nobody is there who could own a process."""
        process = self.processes.get(number)
        if process is None:
            return []
        instructions = self._end_children(process, now)
        if process is self.root:
            return instructions + self._root_is_no_agent()
        if process is self.agent and process.alive:  # without us it has its links for nothing
            instructions.append(Kill(process.pid, signal.SIGKILL))
        return instructions

    def _end_children(self, owner: Process, now: float) -> list[Instruction]:
        instructions: list[Instruction] = []
        for child in owner.children.values():
            if child is self.agent and len(owner.children) > 1:
                self._deadlines.bring_forward(child, now + self.grace)  # it is the last to be asked
            else:
                instructions += self._cancel(child, now + self.grace, now)
        return instructions

    # What has ended

    def died(self, pid: int, returncode: int, maybe_oom: bool, now: float) -> list[Instruction]:
        """A child of the fork server is dead; orphans, which are not of its making, count not."""
        process = self._by_pid.pop(pid, None)
        if process is None:
            return []
        if self.spares.pop(process.number, None) is not None:
            return [Forget(process.number)]
        process.end(returncode, maybe_oom)
        self._unreported[process.number] = process
        told = self._watchers.died(process.fate())
        if process is self.agent:
            told += self._agent_gone(describe_exit(returncode))
        return told + self._end_children(process, now)

    def settled(self) -> list[Instruction]:
        """No orphan is left: report the dead below whom nothing is left."""
        instructions: list[Instruction] = []
        for process in list(self._unreported.values()):
            process.settled = True
            instructions += self._report_upwards(process)
        return instructions

    def _report_upwards(self, process: Process) -> list[Instruction]:
        """Report a dead process if nothing below it is left, and so on to its owner."""
        instructions: list[Instruction] = []
        candidate: Process | None = process
        while candidate is not None and self._is_over(candidate):
            if self._wants_words(candidate):
                candidate.asked = True
                return instructions + self._to_agent(Failed(candidate.number))
            instructions += self._report(candidate)
            candidate = candidate.owner
        if candidate is self.root and not self.root.alive:
            instructions += self._end_agent()
        return instructions

    def _is_over(self, process: Process) -> bool:
        if process.number not in self._unreported or not process.settled or process.children:
            return False
        return process.stderr is not None or not process.asked or not self._agent_lives

    def _wants_words(self, process: Process) -> bool:
        owner_lives = process.owner is not None and process.owner.alive
        somebody_knows = self._forwards and self._agent_lives
        return somebody_knows and owner_lives and process.failed and not process.asked

    def _report(self, process: Process) -> list[Instruction]:
        del self._unreported[process.number], self.processes[process.number]
        owner = process.owner
        assert owner is not None
        del owner.children[process.request]
        told: list[Instruction] = [Send(owner.number, process.report())] if owner.alive else []
        return [Forget(process.number), *told]

    def _end_agent(self) -> list[Instruction]:
        """The root is gone; if its agent is all that is left, it goes too."""
        if self.agent is None or len(self.root.children) != 1 or self.agent.cancelled:
            return []
        self.agent.cancelled = True
        return [Kill(self.agent.pid, signal.SIGTERM)]
