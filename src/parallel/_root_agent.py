"""The root's agent: a worker of the root's host that holds the links to all other hosts.

It is a process of its own, so that a root that computes, stops in a debugger or is suspended loses
no host. Who is told what is decided in `router`; the rest is joining sockets and streams.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, TypeAlias

import trio

from ._bootstrap import FAREWELL, Arrival, open_host
from ._console import Console, Lines
from ._ends import Basin, End, Local, Spout, discard, join, to_descriptors
from ._hub import Hub
from ._link import CLOSED, Flow, Link
from ._member import current_member
from ._orders import Add, Added, Ended, Failed, Miss, Order, Remove, Reply
from ._processes import survey
from ._showcase import Showcase
from ._sources import needed_archive
from ._table import HostWriter, is_watched
from ._wire.news import REMOVED, ROOT_HOST
from ._wire.requests import HostDown, HostUp, Output, Request, Serve, Stop, Survey
from ._wire.router import Router, Tell
from .abc import Launcher
from .errors import HostUnreachable, ParallelError

NEWS_PAUSE = 0.005
"""Seconds in which news are collected: each goes to every host."""

SURVEY_PATIENCE = 5.0
"""Seconds that a host has to say who runs there."""

SHOW_PATIENCE = 1.0
"""The same while somebody watches, who sees the others every second or so."""

SHOW_PAUSE = 1.0
"""Seconds from one such survey to the next."""

WATCH_PAUSE = 0.25
"""Seconds between two looks at whether somebody watches."""


async def serve(hub: Hub[Order, Reply], root_pid: int, slots: int, label_output: bool) -> None:
    """Be the root's agent until the root closes its channel."""
    member = current_member()
    async with trio.open_nursery() as nursery:
        agent = RootAgent(nursery, hub, label_output)
        member.on_forwarded = agent.on_forwarded
        member.attach()
        member.ask(Serve())
        agent.router.host_up(HostUp(ROOT_HOST, slots, platform.python_version(), root_pid))
        nursery.start_soon(agent.spread_news)
        nursery.start_soon(agent.show)
        nursery.start_soon(_pack)
        async for _, order in hub:
            agent.obey(order)
        await agent.end()
        nursery.cancel_scope.cancel()


async def _pack() -> None:
    """Make what hosts may be sent while the first is connected to."""
    with suppress(ParallelError):  # the host that needs it tells
        await trio.to_thread.run_sync(needed_archive)


Arrive: TypeAlias = Callable[
    [Launcher, dict[str, Any], Callable[[bytes], object]], AbstractAsyncContextManager[Arrival]
]
"""What starts a host: `open_host`."""


class RemoteHost:
    """A host, from the order to start it until it is gone."""

    def __init__(self, order: Add) -> None:
        self.number = order.number
        self.name = order.launcher.name
        self.launcher = order.launcher
        self.config = order.config
        self.link: Link | None = None
        self.sent = 0
        self.up: HostUp | None = None
        self.is_up = trio.Event()
        self.scope = trio.CancelScope()
        self.gone = trio.Event()
        self.told = trio.Event()
        """The others know that it is gone."""
        self.why_gone = ""
        """In its own words."""


class RootAgent:
    """The hosts, and what joins them."""

    def __init__(
        self,
        nursery: trio.Nursery,
        hub: Hub[Order, Reply],
        label_output: bool,
        arrive: Arrive = open_host,
    ) -> None:
        self.nursery = nursery
        self.arrive = arrive
        self.hub = hub
        self.router = Router()
        self.hosts: dict[int, RemoteHost] = {}
        self.links: dict[str, Link] = {}
        self.member = current_member()
        self.table = HostWriter(self.member.table)
        self.consoles = Console(1), Console(2)
        self.label_output = label_output
        self.news = trio.Event()
        self.told = trio.Event()

    # Orders

    def obey(self, order: Order) -> None:
        """The root wants something."""
        match order:
            case Add():
                host = self.hosts[order.number] = RemoteHost(order)
                self.nursery.start_soon(self._keep, host)
            case Remove(number):
                if number in self.hosts:
                    self._stop(self.hosts[number])
            case Miss(number, name, reason):
                self._carry(self.router.host_down(name, reason, number))
                self.news.set()
                self.nursery.start_soon(self._announce, Added(number), self.told)

    def _reply(self, reply: Reply) -> None:
        for client in self.hub.clients:
            try:
                self.hub.send_nowait(client, reply)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # the root is gone, and we go too

    def _stop(self, host: RemoteHost) -> None:
        if host.link is not None and host.up is not None:
            host.why_gone = REMOVED
            host.link.send_message(Stop())
        else:
            host.scope.cancel()

    async def end(self) -> None:
        """End every host, and show what they printed."""
        hosts = list(self.hosts.values())
        for host in hosts:
            self._stop(host)
        grace = self.member.settings.grace
        with trio.move_on_after(grace + SURVEY_PATIENCE):
            for host in hosts:
                await host.gone.wait()
        with trio.move_on_after(grace):
            for console in self.consoles:
                await console.flushed()

    # The life of a host

    async def _keep(self, host: RemoteHost) -> None:
        error: Exception | None = None
        reason = ""
        try:
            with host.scope:
                reason = await self._live(host)
        except Exception as exc:  # a launcher is anybody's code; the root raises it
            error = exc
        self._lose(host, host.why_gone or reason or "it was given up")
        if host.up is None:
            self._reply(Failed(host.number, error or self._not_up(host, reason)))
        else:
            await host.told.wait()
            self._reply(Ended(host.number, str(error) if error else host.why_gone or reason))
        del self.hosts[host.number]
        host.gone.set()

    def _not_up(self, host: RemoteHost, reason: str) -> HostUnreachable:
        seconds = host.launcher.connect_timeout
        late = f"it was not ready after {seconds:g} s (connect_timeout)"
        return HostUnreachable(host.name, host.why_gone or reason or late)

    async def _live(self, host: RemoteHost) -> str:
        """Until its link is over; says why."""
        say = Lines(self.consoles[1], f"{host.name}: ")
        deadline = trio.current_time() + host.launcher.connect_timeout
        async with self.arrive(host.launcher, host.config, say.deliver) as arrival:
            host.sent = arrival.sent
            host.scope.deadline = deadline  # until now it was the bootstrap's
            heartbeat = host.config["heartbeat"]

            def handle(request: Request, ends: list[End]) -> None:
                self._on_message(host, request, ends)

            host.link = Link(arrival.send, arrival.receive, 0, heartbeat, handle)
            reason = await host.link.run(arrival.early)
            if reason == CLOSED and not host.why_gone:
                reason = await _why_closed(arrival)
            self._lose(host, host.why_gone or reason)  # to close what led there may take a while
            return reason

    def _come_up(self, host: RemoteHost, up: HostUp) -> None:
        assert host.link is not None
        host.scope.deadline = float("inf")
        host.up = up
        self.links[host.name] = host.link
        up = up._replace(host=host.name, slots=host.launcher.slots or up.slots)
        self.router.host_up(up, host.number)
        self.news.set()
        self.nursery.start_soon(self._announce, Added(host.number, host.sent), self.told)

    async def _announce(self, reply: Added, told: trio.Event) -> None:
        """When the others know of it, so that whoever the root tells can use it at once."""
        await told.wait()
        self._reply(reply)

    def _lose(self, host: RemoteHost, reason: str) -> None:
        if self.links.get(host.name) is host.link and host.link is not None:
            del self.links[host.name]
            host.told = self.told
            steps = self.router.host_down(host.name, reason)
            self.table.write([self.router.state(host.name)])  # so that who is told can have it anew
            self._carry(steps)
            self.news.set()

    async def spread_news(self) -> None:
        """Let the hosts know of each other, now and then."""
        while True:
            await self.news.wait()
            self.news = trio.Event()
            told, self.told = self.told, trio.Event()
            changed, steps = self.router.news()
            self.table.write(changed)
            self._carry(steps)
            told.set()
            await trio.sleep(NEWS_PAUSE)

    # Messages

    def on_forwarded(self, request: Request, descriptors: list[int]) -> None:
        """The root's host's fork server passes something on."""
        ends: list[End] = [Local.of(descriptor, self.nursery) for descriptor in descriptors]
        self._take(ROOT_HOST, request, ends)

    def _on_message(self, host: RemoteHost, request: Request, ends: list[End]) -> None:
        match request:
            case HostUp() if host.up is None:
                self._come_up(host, request)
            case HostDown(_, reason):
                host.why_gone = host.why_gone or reason
            case Output() if len(ends) == 2:
                self._show(host, request, ends)
                return
            case _ if host.up is not None:
                self._take(host.name, request, ends)
                return
        for end in ends:
            discard(end)

    def _take(self, host: str, request: Request, ends: list[End]) -> None:
        if isinstance(request, Survey) and ends:
            self.nursery.start_soon(self._survey, ends.pop())
        self._carry(self.router.said(host, request), ends)
        if self.router.has_news:
            self.news.set()

    def _carry(self, steps: Sequence[Tell], ends: Sequence[End] = ()) -> None:
        """Do what the router decided; the ends go to one at most."""
        for step in steps:
            going = ends if step.with_streams else ()
            link = self.links.get(step.host)
            if step.host == ROOT_HOST:
                # A start without any is refused.
                self.member.ask(step.request, to_descriptors(going, self.nursery))
            elif link is not None:
                link.send_message(step.request, going)
            else:
                continue
            if step.with_streams:
                ends = ()
        for end in ends:
            discard(end)

    def _show(self, host: RemoteHost, output: Output, ends: Sequence[End]) -> None:
        label = f"{host.name} {output.pid}: " if self.label_output else ""
        for end, console in zip(ends, self.consoles, strict=True):
            if isinstance(end, Flow):
                end.eager = True
            join(Lines(console, label), end)

    # Who runs

    async def _survey(self, asker: End) -> None:
        reports = await self.survey(SURVEY_PATIENCE)
        join(asker, Spout(json.dumps(reports).encode()))

    async def show(self) -> None:
        """Show who runs on all hosts, while somebody watches."""
        showcase = Showcase()
        try:
            while True:
                await trio.sleep(WATCH_PAUSE)
                if is_watched(self.member.table):
                    reports = await self.survey(SHOW_PATIENCE)
                    showcase.show(json.dumps(reports).encode())
                    await trio.sleep(SHOW_PAUSE)
        finally:
            showcase.close()

    async def survey(self, patience: float) -> list[object]:
        """Who runs on each host; without those that do not answer in so many seconds."""
        basins = []
        for link in list(self.links.values()):
            basin = Basin()
            link.send_message(Survey(), [basin])
            basins.append(basin)
        here = await trio.to_thread.run_sync(survey, self.member.table, ROOT_HOST)
        reports: list[object] = [json.loads(here)]
        with trio.move_on_after(patience):
            for basin in basins:
                await basin.full.wait()
        for basin in basins:
            if basin.full.is_set():
                try:
                    reports.append(json.loads(basin.data))
                except (ValueError, RecursionError):
                    pass  # the host went before it had said all
        return reports


async def _why_closed(arrival: Arrival) -> str:
    """How the agent there ended, which is known a moment after the end of what it said."""
    with trio.move_on_after(FAREWELL):
        while not arrival.why_ended():  # noqa: ASYNC110  # nobody tells
            await trio.sleep(FAREWELL / 20)
    how = arrival.why_ended()
    return f"{CLOSED}: {how}" if how else CLOSED
