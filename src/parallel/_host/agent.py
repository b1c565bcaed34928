"""The agent of a host that is not the root's: joins what is here to the link to the root's agent.

It owns the host as the root owns its own: a keeper and a fork server that end everything when it is
gone. What the other hosts want of this one it asks its fork server for; what processes of this host
want of others the fork server passes on to it.

1. It starts keeper and fork server, and says `HostUp` (or `HostDown`, and why).
2. It passes on requests and reports in both directions; a socket that comes with one becomes a
   stream of the link, and a stream a socket.
3. The root's agent says `Stop`, or the link is at its end: it ends what is left, and itself.
"""

from __future__ import annotations

import os
import platform
import signal
from typing import Any, NoReturn

import trio

from .._directory import usable_cpus
from .._endpoint import Endpoint
from .._ends import End, Local, Spout, discard, join, to_descriptors
from .._link import CLOSED, Link
from .._member import Member, set_current_member
from .._output import Outputs
from .._own_host import PATIENCE, end_host, set_up_host
from .._pipes import PipeReceiveStream, PipeSendStream
from .._processes import survey
from .._settings import HostSettings
from .._table import HostWriter
from .._wire.news import decode_news
from .._wire.requests import (
    Cancel,
    Exited,
    Failed,
    HostDown,
    HostUp,
    News,
    Output,
    Refused,
    Request,
    Start,
    Started,
    Stop,
    Survey,
    Words,
)
from ..errors import HostDied, HostUnreachable, ParallelError
from . import kernel
from .forked_keeper import ForkedKeeper, fork_keeper

FAREWELL = 1.0
"""Seconds in which the last message is sent."""


def main(read_descriptor: int, write_descriptor: int, config: dict[str, Any]) -> NoReturn:
    """Be the agent; the descriptors are the link. `config` is as `parallel._hosts` makes it."""
    kernel.set_process_name("parallel-agent")
    kernel.raise_open_files()  # it has several for each process
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the root's alone
    endpoint, keeper = fork_keeper([read_descriptor, write_descriptor])
    trio.run(_serve, read_descriptor, write_descriptor, config, endpoint, keeper)
    os._exit(0)


async def _serve(
    read_descriptor: int,
    write_descriptor: int,
    config: dict[str, Any],
    endpoint: Endpoint,
    keeper: ForkedKeeper,
) -> None:
    """Be the agent until the link is at its end."""
    settings = HostSettings(**config["settings"])
    settings = settings._replace(root_pid=os.getpid(), slots=settings.slots or usable_cpus())
    agent = HostAgent(settings, endpoint, keeper)
    async with PipeSendStream(write_descriptor) as send:
        async with PipeReceiveStream(read_descriptor) as receive:
            agent.link = Link(send, receive, 1, config["heartbeat"], agent.on_message)
            await _live(agent)


async def _live(agent: HostAgent) -> None:
    async with trio.open_nursery() as nursery:
        agent.nursery = nursery
        nursery.start_soon(agent.live)
        reason = await agent.link.run()
        was_stopped = agent.stopped.is_set()
        agent.idle.set()
        agent.stopped.set()
        if reason != CLOSED and not was_stopped:
            with trio.move_on_after(FAREWELL):
                await agent.link.say_last(HostDown(agent.settings.host, reason))


class HostAgent:
    """What joins this host and the link."""

    link: Link
    member: Member
    nursery: trio.Nursery

    def __init__(self, settings: HostSettings, endpoint: Endpoint, keeper: ForkedKeeper) -> None:
        self.settings = settings
        self.endpoint = endpoint
        """To the fork server."""
        self.keeper = keeper
        self.outputs = Outputs()
        self.stopped = trio.Event()
        self.processes: dict[int, int | None] = {}
        """Of each request of another host, the process, once there is one."""
        self.idle = trio.Event()
        """No other host waits for a process here. Without the link none can be heard of, and those
        here that wait for others elsewhere would do so for ever."""

    # The life of a host

    async def live(self) -> None:
        """From the start of the host to its end, which is that of the link too."""
        try:
            self.member = await set_up_host(self.settings, self.endpoint, self.keeper)
        except HostUnreachable as exc:
            await self._leave(exc)
            return
        set_current_member(self.member)
        self.member.on_forwarded = self.on_forwarded
        why_lost = self.member.why_lost
        assert why_lost is not None

        async def lose() -> ParallelError:
            error = await why_lost()
            assert isinstance(error, HostDied)
            if not self.stopped.is_set():  # then it was to end
                await self._leave(error)
            return error

        self.member.why_lost = lose
        self.hosts = HostWriter(self.member.table)
        self.member.attach()
        self.nursery.start_soon(self.outputs.run)
        self.link.send_message(_up(self.settings))
        await self.stopped.wait()
        with trio.CancelScope(shield=True):
            await self._end_processes()
            await end_host(self.member, self.keeper)
            await self._leave(None)

    async def _end_processes(self) -> None:
        """What other hosts have here; they hear of each end while the link holds."""
        for number in self.processes:
            self.member.ask(Cancel(number))
        if self.processes:
            with trio.move_on_after(self.settings.grace + PATIENCE):
                await self.idle.wait()

    async def _leave(self, error: HostDied | HostUnreachable | None) -> None:
        if error is not None:
            self.link.send_message(HostDown(error.host, error.reason))
        with trio.move_on_after(FAREWELL):
            await self.link.flushed()
        self.nursery.cancel_scope.cancel()

    # What the root's agent says

    def on_message(self, request: Request, ends: list[End]) -> None:
        """A message has come by the link."""
        match request:
            case Start():
                self._start(request, ends)
                return
            case Survey() if ends:
                self.nursery.start_soon(self._survey, ends.pop())
            case News():
                here = self.settings.host
                news = [state for state in decode_news(request) if state.name != here]
                self.hosts.write(news)
            case Stop():
                self.stopped.set()
            case _:
                self.member.ask(request)
        for end in ends:
            discard(end)

    def _start(self, start: Start, ends: list[End]) -> None:
        number = start.request
        if number in self.processes:  # a refusal would be taken for that of the first
            for end in ends:
                discard(end)
            return
        self.processes[number] = None
        gate = self.outputs.gate(lambda: self.processes.get(number))
        # The first is control: what it says to its caller. Without any the start is refused.
        self.member.ask(start, to_descriptors(ends, self.nursery, gate))

    async def _survey(self, end: End) -> None:
        text = await trio.to_thread.run_sync(survey, self.member.table, self.settings.host)
        join(end, Spout(text))

    # What the fork server says

    def on_forwarded(self, request: Request, descriptors: list[int]) -> None:
        """Something that concerns other hosts, or the output of this one's processes."""
        match request:
            case Started(number, process):
                self.processes[number] = process
            case Exited(number) | Refused(number):
                self.processes.pop(number, None)
                if not self.processes and self.stopped.is_set():
                    self.idle.set()
            case Output(process) if len(descriptors) == 2:
                self.link.send_message(request, self.outputs.add(process, descriptors))
                return
            case Failed(process):
                self.member.ask(Words(process, self.outputs.last_words(process)))
                return
        ends = [Local.of(descriptor, self.nursery) for descriptor in descriptors]
        self.link.send_message(request, ends)


def _up(settings: HostSettings) -> HostUp:
    return HostUp(settings.host, settings.slots, platform.python_version(), os.getpid())
