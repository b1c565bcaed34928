"""This process as a member of a tree: who it is, and its connection to its host's fork server.

There is one in the root while it is inside `init`, and one in every worker. It attaches itself to
the trio run that uses it first, as a system task that reads the fork server's reports.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Awaitable, Callable, Sequence

import trio
from trio.lowlevel import enable_ki_protection

from ._connection import Connection
from ._endpoint import Endpoint, close_all
from ._settings import HostSettings
from ._wire.frames import Kind
from ._wire.greetings import Peer, encode_peer
from ._wire.requests import (
    MAX_NAME,
    Cancel,
    Cut,
    Exited,
    Gone,
    HostDown,
    Lost,
    Refused,
    Request,
    RequestReader,
    Start,
    Started,
    Watch,
    encode,
)
from .errors import HostDied, ParallelError, ProtocolError, WorkerCancelled, WorkerDied

TRY_AGAIN = 0.01
"""Seconds until descriptors are sent again that the kernel did not take."""


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
        self.stderr = ""
        self.cancelling = False
        self.is_service = False
        """It belongs to this package, and ends when nothing else is left."""
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
        pid = self.pid or 0
        return WorkerDied(self.host, pid, self.name, self.returncode, self.maybe_oom, self.stderr)

    def handle(self, report: Started | Refused | Exited | Lost) -> None:
        """Take note of what the fork server says."""
        match report:
            case Started(_, process, pid):
                self.process, self.pid = process, pid
                self.started.set()
            case Refused(_, reason):
                self.lose(ParallelError(f"host {self.host!r} started no process: {reason}"))
            case Lost(_, host, reason):
                self.lose(HostDied(host, reason))
            case Exited(_, returncode, cancelled, maybe_oom, stderr):
                self.returncode, self.cancelled = returncode, cancelled
                self.maybe_oom, self.stderr = maybe_oom, stderr
                self._end(self.fate())

    def lose(self, error: BaseException) -> None:
        """There will be no report, and nobody to end what an agent relays."""
        self.error = error
        self._end(error)
        for connection in self.connections:
            connection.endpoint.shut()

    def _end(self, cause: BaseException) -> None:
        self.started.set()
        self.exited.set()
        for connection in self.connections:
            connection.peer_gone(cause)


class Member:
    """The connection to the fork server, and what is known through it."""

    def __init__(
        self,
        endpoint: Endpoint,
        settings: HostSettings,
        peer: Peer,
        owner: tuple[str, int] | None,
        table: int,
    ) -> None:
        self.endpoint = endpoint
        self.settings = settings
        self.peer = peer
        self.owner = owner
        """The host and number of the process that asked for this one."""
        self.table = table
        self.reader = RequestReader()
        self.children: dict[int, Child] = {}
        self.closed = False
        self.lost: BaseException | None = None
        self.why_lost: Callable[[], Awaitable[BaseException]] | None = None
        """Finds out why the fork server is gone; in the root."""
        self.on_forwarded: Callable[[Request, list[int]], None] = _drop
        """In an agent: takes what concerns other hosts, with its descriptors."""
        self._watched: dict[tuple[str, int], weakref.WeakSet[Connection]] = {}
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

    def greet(self, connection: Connection, via: tuple[str, ...] = ()) -> None:
        """Say on a new connection who is at this end, and by way of which hosts it got here."""
        peer = self.peer._replace(via=via) if via else self.peer
        try:
            connection.push(Kind.HELLO, encode_peer(peer))
        except trio.BrokenResourceError:
            pass  # it is gone already, as its end of file will tell

    def watch(self, connection: Connection) -> None:
        """End the connection when the process at its other end is gone, whatever holds it open."""
        peer = connection.peer
        if peer is None:
            return
        who = peer.host, peer.process
        if who in ((self.peer.host, self.peer.process), self.owner):
            return  # we end with our owner, and with ourselves
        if self.lost is not None:
            connection.peer_gone(self.lost)  # as all were that were watched
            return
        watched = self._watched.get(who)
        if watched is None:
            watched = self._watched[who] = weakref.WeakSet()
            self.attach()
            self.ask(Watch(*who))
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

    @enable_ki_protection
    def ask(self, request: Request, descriptors: Sequence[int] = ()) -> None:
        """Send a request, now or soon."""
        try:
            self.endpoint.push([encode(request, len(descriptors))], descriptors)
        except (BrokenPipeError, ConnectionResetError):
            return  # it is gone, and `_listen` will say so
        except OSError as exc:
            self.endpoint.drop()
            if self.closed:
                return  # an agent that ends: all that was asked of its host ends with the link
            # Too many descriptors are on their way between processes.
            self._handle(
                Refused(
                    getattr(request, "request", 0), f"{exc.strerror}; is there a limit (ulimit -n)?"
                ),
                [],
            )
        if self.endpoint.unwritten and not self._flushing:
            self._flushing = True
            trio.lowlevel.spawn_system_task(self._flush, name="parallel: requests")

    async def _flush(self) -> None:
        try:
            while self.endpoint.unwritten:
                await trio.lowlevel.wait_writable(self.endpoint.sock)
                try:
                    self.endpoint.write()
                except (BrokenPipeError, ConnectionResetError):
                    self.endpoint.drop()
                except OSError:
                    await trio.sleep(TRY_AGAIN)
        finally:
            self._flushing = False

    async def _listen(self) -> None:
        try:
            while (data := await self._read()) is not None:
                self.reader.feed(data)
                while (report := self.reader.next()) is not None:
                    self._handle(*report)
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

    def _handle(self, report: Request, descriptors: list[int]) -> None:
        match report:
            case Started(request) | Refused(request) | Exited(request) | Lost(request) if (
                request in self.children
            ):
                child = self.children[request]
                child.handle(report)
                if child.exited.is_set():
                    del self.children[request]
            case Gone(host, process) if (host, process) in self._watched:
                self._lose_watched((host, process), _as_error(report))
            case HostDown(host, reason):
                for who in [who for who in self._watched if who[0] == host]:
                    self._lose_watched(who, HostDied(host, reason))
            case Cut(reason):
                self._give_up(ProtocolError(reason))
            case _:
                self.on_forwarded(report, descriptors)

    def _lose_watched(self, who: tuple[str, int], error: BaseException) -> None:
        for connection in self._watched.pop(who):
            connection.peer_gone(error)

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
        for who in list(self._watched):
            self._lose_watched(who, error)

    def close(self) -> None:
        """Leave the tree."""
        self.closed = True
        if self._token is not None:
            trio.lowlevel.notify_closing(self.endpoint.sock)
        self.endpoint.close()


def _drop(_: Request, descriptors: list[int]) -> None:
    """It is nothing that concerns a client."""
    close_all(descriptors)


def _as_error(gone: Gone) -> BaseException:
    if gone.cancelled:
        return WorkerCancelled(gone.host, gone.pid, gone.name)
    return WorkerDied(gone.host, gone.pid, gone.name, gone.returncode, gone.maybe_oom)


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
