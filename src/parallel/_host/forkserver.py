"""The fork server: parent of all workers of its host.

It starts fresh, imports once what every worker needs, then only forks, passes descriptors, reaps
and kills. One thread and a selector: it never waits for a client, and what it does about an event
is decided in `plan`.
"""

from __future__ import annotations

import os
import platform
import selectors
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, NoReturn

from .._endpoint import Endpoint, close_all, socket_pair
from .._settings import HostSettings
from .._table import Entry, HostWriter, ProcessWriter, create_table
from .._wire.news import HostState
from .._wire.requests import Begin, NotReady, Output, Ready, Request, Running, Start, encode
from . import kernel, worker
from .clients import Clients
from .instruction import Close, Discount, Enter, Forget, Instruction, Kill, Send
from .lineage import ROOT
from .outlets import Outlets
from .plan import Plan
from .preparation import prepare, warm_up

SWEEP_AGAIN = 0.005
"""Seconds until a killed orphan is looked for again."""

LONGEST_WAIT = 3600.0
"""Seconds: the kernel takes no infinite ones, and `grace` may be."""

TRY_FORK_AGAIN = 0.1
"""Seconds until another spare is tried after a fork that failed."""


def serve(descriptor: int, settings: dict[str, Any], keeper: int) -> NoReturn:
    """Be the fork server; `descriptor` is its connection to the root."""
    root = Endpoint(socket.socket(fileno=descriptor))
    root.sock.set_inheritable(False)
    try:
        options = HostSettings(**settings)
        kernel.die_with_parent(keeper)  # a module that hangs here must not outlive it
        prepare(options)
        kernel.outlive_parent()
    except BaseException:  # noqa: ASYNC103  # a module of the user's is imported there; the root says what it was
        _say_and_leave(root, traceback.format_exc())
    ForkServer(root, options, keeper).run()


def _say_and_leave(root: Endpoint, reason: str) -> NoReturn:
    root.sock.setblocking(True)
    root.sock.sendall(encode(NotReady(reason[-30_000:])))
    os._exit(0)


class ForkServer:
    """The loop, and the tables of what it owns."""

    def __init__(self, root: Endpoint, settings: HostSettings, keeper: int) -> None:
        self.settings = settings
        forwards = settings.forward_output
        self.plan = Plan(settings.host, settings.root_pid, settings.grace, forwards)
        self.selector = selectors.DefaultSelector()
        self.clients = Clients(self.selector, self._answer, self._lost, self._undelivered)
        self.table_descriptor = create_table(settings.root_pid)
        self.table = ProcessWriter(self.table_descriptor)
        here = HostState(
            settings.host, settings.slots, platform.python_version(), settings.root_pid
        )
        HostWriter(self.table_descriptor).write([here])
        self.told_running = 0
        self.pipes: dict[int, list[int]] = {}
        """What a spare will print into, and its errors: the ends to read from."""
        self.children = kernel.Children()
        self.memory_kills = kernel.MemoryKills()
        self.oom_kills = self.memory_kills.count()
        self.next_number = ROOT + 1
        self.killed_orphans: set[int] = set()
        self.unsettled = False
        """Something died since the last look for orphans."""
        self.no_fork_before = 0.0
        self.is_refilling = False
        self.preloaded = frozenset(self.children.pids())
        """What a preloaded module has started: not an orphan."""
        self.clients.add(ROOT, root)
        self.private_descriptors: list[int] = []
        """What is not for its children."""
        self._watch_exit(settings.root_pid, self._root_gone)
        self._watch_exit(keeper, self._keeper_gone)

    def run(self) -> NoReturn:
        """Serve until the root has gone and everything below it."""
        self._do(Send(ROOT, Ready(os.getpid()), [os.dup(self.table_descriptor)]))
        warm_up(self.settings)
        self._watch_signals()  # trio would have taken them
        while not self.plan.finished:
            ready = self.selector.select(self._timeout())
            for key, events in ready:
                handle: Callable[[int], None] = key.data
                handle(events)
            self._carry_out(self.plan.due(time.monotonic()))
            self._settle()
            self._tell_running()
            if not ready and self._wants_spare():
                self._add_spare()
        os._exit(0)  # the spares end with us, and the keeper sees to it

    def _timeout(self) -> float | None:
        """How long to wait for events: None is for ever."""
        if self._wants_spare():
            return 0.0  # only when nothing else is to be done
        now = time.monotonic()
        limits = [
            max(0.0, self.plan.next_deadline - now) if self.plan.next_deadline else None,
            SWEEP_AGAIN if self.killed_orphans else None,
            max(0.0, self.no_fork_before - now) if self.no_fork_before else None,
        ]
        limit = min((limit for limit in limits if limit is not None), default=None)
        return None if limit is None else min(limit, LONGEST_WAIT)

    def _carry_out(self, instructions: Iterable[Instruction]) -> None:
        for instruction in instructions:
            self._do(instruction)

    def _do(self, instruction: Instruction) -> None:
        match instruction:
            case Send(number, Begin() as begin, descriptors):
                self._forward_output(number, begin.name)
                self.clients.send(number, begin, descriptors)
            case Send(number, request, descriptors):
                self.clients.send(number, request, descriptors)
            case Kill(pid, number):
                kernel.kill(pid, number)
            case Enter(number, owner_host, owner, pid, name):
                elsewhere = "" if owner_host == self.settings.host else owner_host
                self.table.add(Entry(number, owner, time.time(), pid, name, elsewhere))
            case Discount(number):
                self.table.discount(number)
            case Forget(number):
                self.table.remove(number)
                self.clients.remove(number)
                close_all(self.pipes.pop(number, ()))
            case Close(descriptors):
                close_all(descriptors)

    def _tell_running(self) -> None:
        """The agent passes on how many processes run here."""
        count = self.table.running
        if count != self.told_running and self.plan.agent is not None:
            self.told_running = count
            self.clients.send(self.plan.agent.number, Running(count))

    def _forward_output(self, number: int, name: str) -> None:
        """A spare begins: the agent gets what it prints into."""
        pipes = self.pipes.pop(number, None)
        if pipes is not None:
            pid = self.plan.processes[number].pid
            self.clients.send(ROOT, Output(number, pid, name), pipes)

    # Clients

    def _answer(self, asker: int, request: Request, descriptors: list[int]) -> None:
        if self.plan.is_for_here(request) and not self.plan.spares:
            assert isinstance(request, Start)
            try:
                self._fork()
            except OSError as exc:
                why = _shortage(exc)
                self._carry_out(self.plan.refused(asker, request, descriptors, why))
                return
        self._carry_out(self.plan.asked(asker, request, descriptors, time.monotonic()))

    def _lost(self, number: int) -> None:
        self._carry_out(self.plan.connection_lost(number, time.monotonic()))

    def _undelivered(self, number: int, request: Request, exc: OSError) -> None:
        self._carry_out(self.plan.undelivered(number, request, _shortage(exc)))

    # Processes

    def _wants_spare(self) -> bool:
        """Whether there are too few; then one more is forked than has to be.

        Two that are forked in a row share the pages that the fork server writes to afterwards, and
        those become its own only once: 0.2 MiB less for each worker, and a twentieth of its time.
        """
        wanted = self.settings.spares + (1 if self.is_refilling else 0)
        self.is_refilling = self.settings.spares > 0 and len(self.plan.spares) < wanted
        return (
            self.is_refilling and self.plan.root.alive and time.monotonic() >= self.no_fork_before
        )

    def _add_spare(self) -> None:
        try:
            self._fork()
            self.no_fork_before = 0.0
        except OSError:  # no more processes or descriptors to be had now
            self.no_fork_before = time.monotonic() + TRY_FORK_AGAIN

    def _fork(self) -> None:
        ours, theirs = socket_pair()
        number, parent = self.next_number, os.getpid()
        outlets: Outlets | None = None
        try:
            outlets = Outlets() if self.settings.forward_output else None
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            if outlets is not None:
                outlets.close()
            raise
        if pid == 0:
            try:
                ours.close()
                self._leave_to_parent()
                if outlets is not None:
                    outlets.print_into()
                worker.work(theirs, self.settings, self.table_descriptor, parent)
            finally:
                os._exit(1)
        theirs.close()
        if outlets is not None:
            self.pipes[number] = outlets.keep()
        self.next_number += 1
        self.clients.add(number, Endpoint(ours))
        self.plan.add_spare(number, pid)

    def _leave_to_parent(self) -> None:
        """In a new child: let go of what is the fork server's (endpoints close by themselves).

        The selector is not touched: what it watches is shared with the parent.
        """
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in chain(self.private_descriptors, *self.pipes.values()):
            os.close(descriptor)

    # Ends

    def _watch_signals(self) -> None:
        """SIGCHLD wakes the selector up; the one raised here is for what has died before."""
        self.signal_receiver, self.signal_sender = socket_pair()
        for sock in (self.signal_receiver, self.signal_sender):
            sock.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.signal_sender.fileno(), warn_on_full_buffer=False)
        signal.raise_signal(signal.SIGCHLD)
        self.selector.register(self.signal_receiver, selectors.EVENT_READ, self._reap)
        self.private_descriptors += [
            self.selector.fileno(),  # epoll and kqueue have one
            self.signal_receiver.fileno(),
            self.signal_sender.fileno(),
        ]
        for file in (self.children, self.memory_kills):
            if file.descriptor is not None:
                self.private_descriptors.append(file.descriptor)

    def _watch_exit(self, pid: int, handle: Callable[[], None]) -> None:
        try:
            watched = kernel.Exit(pid)
        except OSError:
            handle()  # it is gone already
            return

        def once(_events: int) -> None:
            self.selector.unregister(watched)
            handle()

        self.private_descriptors.append(watched.fileno())
        self.selector.register(watched, selectors.EVENT_READ, once)

    def _root_gone(self) -> None:
        self.clients.remove(ROOT)
        self._carry_out(self.plan.root_gone(time.monotonic()))

    def _keeper_gone(self) -> NoReturn:
        """Nobody is behind us any more: end everything now, as long as we are here."""
        kernel.end_all_children(self.children)
        os._exit(1)

    def _reap(self, _events: int) -> None:
        try:
            self.signal_receiver.recv(4096)
        except BlockingIOError:
            pass
        while (dead := kernel.reap()) is not None:
            pid, returncode = dead
            self.unsettled = True
            self.killed_orphans.discard(pid)
            died = self.plan.died(pid, returncode, self._maybe_oom(returncode), time.monotonic())
            self._carry_out(died)

    def _maybe_oom(self, returncode: int) -> bool:
        if returncode != -signal.SIGKILL:
            return False
        before, self.oom_kills = self.oom_kills, self.memory_kills.count()
        return self.oom_kills > before

    def _settle(self) -> None:
        """Kill the orphans of the dead; when there are none left, the dead can be reported.

        A process below the fork server that it did not fork itself was started by a worker, and
        came here because that worker is dead.
        """
        if not self.unsettled and not self.killed_orphans:
            return
        self.unsettled = False
        strangers = (pid for pid in self.children.pids() if not self.plan.knows(pid))
        orphans = [
            pid
            for pid in strangers
            if pid not in self.preloaded and kernel.kill(pid, signal.SIGKILL)
        ]
        self.killed_orphans.update(orphans)
        if not orphans:
            self.killed_orphans.clear()
            self._carry_out(self.plan.settled())


def _shortage(exc: OSError) -> str:
    return f"{exc.strerror}; is there a limit (ulimit -u, ulimit -n)?"
