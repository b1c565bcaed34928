"""Pure: what the root's agent does with each message of a host.

The root's agent sits between all hosts, the root's own included, and passes on what one says to
another. Each request gets a number of its own on the way to its host; what that host says of it
goes back to who asked, by the number that it was asked with.
"""

from __future__ import annotations

from typing import NamedTuple

from .news import ROOT_HOST, HostState, encode_news
from .requests import (
    Cancel,
    Exited,
    Gone,
    HostDown,
    HostUp,
    Lost,
    Refused,
    Request,
    Running,
    Start,
    Started,
    Watch,
)


class Tell(NamedTuple):
    """Send this to that host, with the streams that came with the message it comes from."""

    host: str
    request: Request
    with_streams: bool = False


class _Call(NamedTuple):
    """A process that one host asked another for."""

    asker: str
    request: int
    host: str


class Router:
    """Which hosts there are, and who asked which for what."""

    def __init__(self) -> None:
        self._hosts: dict[str, HostState] = {}
        self._changed: set[str] = set()
        self._new: set[str] = set()
        self._calls: dict[int, _Call] = {}
        self._numbers: dict[tuple[str, int], int] = {}
        self._watched: dict[tuple[str, int], set[str]] = {}
        self._last = 0

    def is_up(self, host: str) -> bool:
        """Whether that host is there."""
        state = self._hosts.get(host)
        return state is not None and not state.down

    def state(self, host: str) -> HostState:
        """Of a host that has been heard of."""
        return self._hosts[host]

    # Hosts come and go

    def host_up(self, up: HostUp, order: int = 0) -> None:
        """A host has joined."""
        self._hosts[up.host] = HostState(up.host, up.slots, up.python, up.pid, order=order)
        self._changed.add(up.host)
        self._new.add(up.host)

    def host_down(self, host: str, reason: str, order: int = 0) -> list[Tell]:
        """A host is gone, or could not be had: what it asked for ends, and who waits is told.

        To all others it is news: when all hosts end, not each has to hear of each.
        """
        before = self._hosts.get(host, HostState(host, 0, "", 0, order=order))
        self._hosts[host] = before._replace(running=0, down=reason or "it is gone")
        self._changed.add(host)
        self._new.discard(host)
        steps = []
        waiting: set[str] = set()
        for number, call in list(self._calls.items()):
            if call.host == host:
                waiting.add(call.asker)
                self._forget(number, call)
            elif call.asker == host:  # a host of that name that comes later has not asked for it
                del self._numbers[call.asker, call.request]
                self._calls[number] = call._replace(asker="")
                steps.append(Tell(call.host, Cancel(number)))
        for key, watchers in list(self._watched.items()):
            watchers.discard(host)  # as above
            if key[0] == host:
                waiting |= watchers
            if key[0] == host or not watchers:
                del self._watched[key]
        down = HostDown(host, reason)
        return steps + [Tell(name, down) for name in sorted(waiting) if self.is_up(name)]

    @property
    def has_news(self) -> bool:
        """Whether the hosts should hear of each other."""
        return bool(self._changed)

    def news(self) -> tuple[list[HostState], list[Tell]]:
        """What has changed since the last time, for the root's host, and as told to the others."""
        changed = [self._hosts[name] for name in sorted(self._changed)]
        if not changed:
            return [], []
        for_old = list(encode_news(changed))
        for_new = list(encode_news(self._hosts.values())) if self._new else []
        steps = [
            Tell(name, news)
            for name in self._hosts
            if name != ROOT_HOST and self.is_up(name)
            for news in (for_new if name in self._new else for_old)
        ]
        self._changed.clear()
        self._new.clear()
        return changed, steps

    # Messages

    def said(self, host: str, request: Request) -> list[Tell]:
        """A host has said something; what makes no sense here is passed over."""
        match request:
            case Start():
                return self._start(host, request)
            case Cancel(number, grace):
                ours = self._numbers.get((host, number))
                if ours is None:
                    return []
                return [Tell(self._calls[ours].host, Cancel(ours, grace))]
            case Started(number) | Refused(number) | Exited(number) | Lost(number):
                return self._report(host, number, request)
            case Watch(watched, process):
                return self._watch(host, watched, process)
            case Gone(watched, process):
                watchers = self._watched.pop((watched, process), set())
                return [Tell(watcher, request) for watcher in sorted(watchers)]
            case Running(running) if self.is_up(host):
                self._hosts[host] = self._hosts[host]._replace(running=running)
                self._changed.add(host)
        return []

    def _start(self, asker: str, start: Start) -> list[Tell]:
        if not self.is_up(start.host):
            return [Tell(asker, self._no_host(start))]
        self._last += 1
        self._calls[self._last] = _Call(asker, start.request, start.host)
        self._numbers[asker, start.request] = self._last
        return [Tell(start.host, start._replace(request=self._last), with_streams=True)]

    def _no_host(self, start: Start) -> Request:
        state = self._hosts.get(start.host)
        if state is not None:
            return Lost(start.request, start.host, state.down)
        return Refused(start.request, f"there is no host {start.host!r}")

    def _report(self, host: str, number: int, report: Request) -> list[Tell]:
        assert isinstance(report, Started | Refused | Exited | Lost)
        call = self._calls.get(number)
        if call is None or call.host != host:
            return []
        if not isinstance(report, Started):
            self._forget(number, call)
        if not self.is_up(call.asker):
            return []
        return [Tell(call.asker, report._replace(request=call.request))]

    def _forget(self, number: int, call: _Call) -> None:
        del self._calls[number]
        self._numbers.pop((call.asker, call.request), None)

    def _watch(self, watcher: str, host: str, process: int) -> list[Tell]:
        if not self.is_up(host):
            state = self._hosts.get(host)
            reason = f"there is no host {host!r}" if state is None else state.down
            return [Tell(watcher, HostDown(host, reason))]
        self._watched.setdefault((host, process), set()).add(watcher)
        return [Tell(host, Watch(host, process))]
