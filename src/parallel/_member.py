"""This process as a member of a tree: who it is, and its connection to its host's fork server.

There is one in the root while it is inside `init`, and one in every worker. It attaches itself to
the trio run that uses it first, as a system task that reads the fork server's reports.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Awaitable, Callable, Sequence

import trio

from ._connection import Connection
from ._endpoint import Endpoint
from ._settings import HostSettings
from ._wire.frames import Kind
from ._wire.greetings import Peer, encode_peer
from ._wire.requests import (
    MAX_NAME,
    Cancel,
    Cut,
    Exited,
    Gone,
    Refused,
    Request,
    RequestReader,
    Start,
    Started,
    Watch,
    encode,
)
from .errors import HostDied, ParallelError, ProtocolError, WorkerCancelled, WorkerDied


class Child:
    """A process that this one asked for, as its fork server reports of it."""

    def __init__(self, member: Member, request: int, host: str, name: str) -> None:
        self.host = host
        self.name = name
        self.pid: int | None = None
        self.process: int | None = None
        self.returncode: int | None = None
        self.cancelled = False
        self.maybe_oom = False
        self.cancelling = False
        self.error: BaseException | None = None
        """Why there is no process, or no report of it."""
        self.started = trio.Event()
        self.exited = trio.Event()
        self.connections: list[Connection] = []
        """To end when the process is gone."""
        self._member = member
        self._request = request

    def cancel(self, grace: float | None = None) -> None:
        """Ask for its end; it is killed in `grace` seconds (None: what `init` said)."""
        if not self.exited.is_set() and (not self.cancelling or grace is not None):
            self.cancelling = True
            self._member.ask(Cancel(self._request, grace))

    def fate(self) -> WorkerDied | WorkerCancelled:
        """Its end, as an exception."""
        if self.cancelled:
            return WorkerCancelled(self.host, self.pid or 0, self.name)
        return WorkerDied(self.host, self.pid or 0, self.name, self.returncode, self.maybe_oom)

    def handle(self, report: Started | Refused | Exited) -> None:
        """Take note of what the fork server says."""
        match report:
            case Started(_, process, pid):
                self.process, self.pid = process, pid
                self.started.set()
            case Refused(_, reason):
                self.lose(ParallelError(f"host {self.host!r} started no process: {reason}"))
            case Exited(_, returncode, cancelled, maybe_oom):
                self.returncode, self.cancelled = returncode, cancelled
                self.maybe_oom = maybe_oom
                self._end(self.fate())

    def lose(self, error: BaseException) -> None:
        """There will be no report."""
        self.error = error
        self._end(error)

    def _end(self, cause: BaseException) -> None:
        self.started.set()
        self.exited.set()
        for connection in self.connections:
            connection.peer_gone(cause)


class Member:
    """The connection to the fork server, and what is known through it."""

    def __init__(
        self, endpoint: Endpoint, settings: HostSettings, peer: Peer, owner: int | None, table: int
    ) -> None:
        self.endpoint = endpoint
        self.settings = settings
        self.peer = peer
        self.owner = owner
        self.table = table
        self.reader = RequestReader()
        self.children: dict[int, Child] = {}
        self.closed = False
        self.lost: BaseException | None = None
        self.why_lost: Callable[[], Awaitable[BaseException]] | None = None
        """Finds out why the fork server is gone; in the root."""
        self._watched: dict[int, weakref.WeakSet[Connection]] = {}
        self._token: trio.lowlevel.TrioToken | None = None
        self._flushing = False
        self._requests = 0

    def start(self, host: str, name: str, descriptors: Sequence[int]) -> Child:
        """Ask for a process; its `started` or `exited` follows."""
        self.attach()
        self._requests += 1
        child = Child(self, self._requests, host, name)
        self.children[self._requests] = child
        self.ask(Start(self._requests, host, name[:MAX_NAME]), descriptors)
        return child

    def greet(self, connection: Connection) -> None:
        """Say on a new connection who is at this end."""
        try:
            connection.push(Kind.HELLO, encode_peer(self.peer))
        except trio.BrokenResourceError:
            pass  # it is gone already, as its end of file will tell

    def watch(self, connection: Connection) -> None:
        """End the connection when the process at its other end is gone, whatever holds it open."""
        peer = connection.peer
        if peer is None or peer.process in (self.peer.process, self.owner):
            return  # we end with our owner, and with ourselves
        watched = self._watched.get(peer.process)
        if watched is None:
            watched = self._watched[peer.process] = weakref.WeakSet()
            self.attach()
            self.ask(Watch(peer.process))
        watched.add(connection)

    def attach(self) -> None:
        """Belong to the running trio; one at a time."""
        token = running_trio()
        if self.lost is not None:
            raise self.lost
        if self._token is None:
            self._token = token
            trio.lowlevel.spawn_system_task(self._listen, name="parallel: fork server's reports")
        elif self._token is not token:
            raise ParallelError(
                "another event loop of this process uses parallel; only one can at a time"
            )

    def ask(self, request: Request, descriptors: Sequence[int] = ()) -> None:
        """Send a request, now or soon."""
        try:
            self.endpoint.push([encode(request, len(descriptors))], descriptors)
        except OSError:
            return  # it is gone, and `_listen` will say so
        if self.endpoint.unwritten and not self._flushing:
            self._flushing = True
            trio.lowlevel.spawn_system_task(self._flush, name="parallel: requests")

    async def _flush(self) -> None:
        try:
            while self.endpoint.unwritten:
                await trio.lowlevel.wait_writable(self.endpoint.sock)
                self.endpoint.write()
        except OSError:
            self.endpoint.drop()
        finally:
            self._flushing = False

    async def _listen(self) -> None:
        try:
            while (data := await self._read()) is not None:
                self.reader.feed(data)
                while (report := self.reader.next()) is not None:
                    self._handle(report[0])
            if not self.closed and self.lost is None:
                await self._lose()
        finally:
            self._token = None

    async def _read(self) -> bytes | None:
        """What the fork server says next; None when it is gone, or `close` was called."""
        while True:
            try:
                await trio.lowlevel.wait_readable(self.endpoint.sock)
            except trio.ClosedResourceError:
                return None
            if self.closed:
                return None
            data = self.endpoint.read(self.reader.descriptors)
            if data is not None:
                assert isinstance(data, bytes)
                return data or None

    def _handle(self, report: Request) -> None:
        match report:
            case Started(request) | Refused(request) | Exited(request):
                child = self.children.get(request)
                if child is not None:
                    child.handle(report)
                    if child.exited.is_set():
                        del self.children[request]
            case Gone():
                for connection in self._watched.pop(report.process, ()):
                    connection.peer_gone(self._as_error(report))
            case Cut(reason):
                self._give_up(ProtocolError(reason))
            case _:
                pass  # nothing that concerns a client

    def _as_error(self, gone: Gone) -> BaseException:
        host = self.settings.host
        if gone.cancelled:
            return WorkerCancelled(host, gone.pid, gone.name)
        return WorkerDied(host, gone.pid, gone.name, gone.returncode, gone.maybe_oom)

    async def _lose(self) -> None:
        """The fork server is gone, and with it every process of this host but the root."""
        if self.why_lost is not None:
            error = await self.why_lost()
        else:
            error = HostDied(self.settings.host, "its fork server is gone")
        self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        self.lost = error
        for child in self.children.values():
            child.lose(error)
        self.children.clear()
        for watched in self._watched.values():
            for connection in watched:
                connection.peer_gone(error)
        self._watched.clear()

    def close(self) -> None:
        """Leave the tree."""
        self.closed = True
        if self._token is not None:
            trio.lowlevel.notify_closing(self.endpoint.sock)
        self.endpoint.close()


def running_trio() -> trio.lowlevel.TrioToken:
    """The trio run that this is called in; raises `ParallelError` outside of any."""
    try:
        return trio.lowlevel.current_trio_token()
    except RuntimeError:
        raise ParallelError("this needs a running trio: call it inside trio.run(...)") from None


_current: Member | None = None


def current_member() -> Member:
    """The member that this process is; raises `ParallelError` outside of a tree."""
    if _current is None:
        raise ParallelError(
            "this needs `async with parallel.init():` around it (in the program's first process)"
        )
    return _current


def set_current_member(member: Member | None) -> None:
    """Become a member, or none."""
    global _current
    _current = member


def is_member() -> bool:
    """Whether this process is one."""
    return _current is not None


def _leave_in_fork() -> None:
    """A process that a user forks is no member, and holds nothing of ours."""
    if _current is not None:
        os.close(_current.table)
        set_current_member(None)


os.register_at_fork(after_in_child=_leave_in_fork)
