"""How an ssh host is connected to: configuration, jump hosts, keys. Only `ssh` loads it.

asyncio is nowhere but inside of `trio_asyncio.open_loop`, which ends with the connection.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import asyncssh  # noqa: TID253  # loaded with the first host that is reached by ssh
import trio
import trio_asyncio  # noqa: TID253

from ..abc import Shell
from ..errors import HostUnreachable
from ._ssh_client import Client, ask_with
from ._ssh_route import Route, find_route
from ._ssh_session import PACKET, WINDOW, ShellSession
from ._ssh_transport import SocketTransport
from .ssh import Destination, Ssh, parse_destination

IGNORE = 2
"""The number of ssh's packets that say nothing: SSH_MSG_IGNORE."""

PATIENCE = 1.0
"""Seconds that a server has to take note of the end of a connection."""


@asynccontextmanager
async def open_shell(ssh: Ssh) -> AsyncGenerator[Shell, None]:
    """Connect to a host; leaving the block ends the connection."""
    failure: BaseException | None = None
    # Nothing is raised inside of the nurseries, so that nothing comes out of them in a group.
    async with trio_asyncio.open_loop(), trio.open_nursery() as nursery:
        link = _Link(ssh, nursery)
        try:
            shell = await link.open()
            yield shell
        except BaseException as exc:  # noqa: ASYNC103  # raised below
            failure = exc
        with trio.CancelScope(shield=True):
            await link.close(hurry=failure is not None)
        nursery.cancel_scope.cancel()
    if isinstance(failure, HostUnreachable):
        # A connection that was given up because of a cancellation failed, for asyncssh.
        await trio.lowlevel.checkpoint_if_cancelled()
    if failure is not None:
        raise failure


class _Link:
    """The connections on the way to a host, and the shell at its end."""

    def __init__(self, ssh: Ssh, nursery: trio.Nursery) -> None:
        self.ssh = ssh
        self.nursery = nursery
        self.ask = ask_with(ssh.passphrase)
        self.connections: list[asyncssh.SSHClientConnection] = []
        self.proxies: list[trio.Process] = []
        self.transport: SocketTransport | None = None
        self.session: ShellSession | None = None

    async def open(self) -> Shell:
        client = await self._connect(parse_destination(self.ssh.destination), self.ssh.jump)
        connection = self.connections[-1]
        with client.explained():
            _, session = await trio_asyncio.aio_as_trio(connection.create_session)(
                ShellSession,
                "exec /bin/sh",  # whatever the login shell is, it understands this
                request_pty=False,
                encoding=None,
                window=WINDOW,
                max_pktsize=PACKET,
            )
        assert self.transport is not None
        self.session = cast(ShellSession, session)
        return self.session.shell(self.transport)

    async def _connect(self, destination: Destination, jump: Sequence[str]) -> Client:
        """Connect by way of `jump` (else as configured), and of the last connection there is."""
        ssh = self.ssh
        route = await trio.to_thread.run_sync(find_route, ssh, destination)
        for stop in jump or (() if self.connections else route.jump):
            await self._connect(parse_destination(stop), ())
        client = Client(ssh.name, route, self.ask)
        tunnel: Any = self.connections[-1] if self.connections else _Connector(self, route)
        with client.explained():
            connection: asyncssh.SSHClientConnection = await trio_asyncio.aio_as_trio(
                partial(
                    asyncssh.connect,
                    destination.host,
                    tunnel=tunnel,
                    client_factory=lambda: client,
                    connect_timeout=None,  # ours is around all of it
                    **route.options,
                )
            )()
        _say_nothing_for_nothing(connection)
        self.connections.append(connection)
        return client

    async def close(self, *, hurry: bool) -> None:
        """End the shell, then the connections, the last one first."""
        if self.session is not None:
            await self.session.close(hurry=hurry)
        with trio.move_on_after(PATIENCE):
            for connection in reversed(self.connections):
                connection.close()
                await trio_asyncio.aio_as_trio(connection.wait_closed)()
        for connection in self.connections:
            connection.abort()
        for proxy in self.proxies:
            proxy.kill()
            await proxy.wait()


class _Connector:
    """What asyncssh asks for a connection: gives it one that trio drives."""

    def __init__(self, link: _Link, route: Route) -> None:
        self.link = link
        self.route = route

    async def create_connection(
        self, factory: Callable[[], Any], host: str, port: int
    ) -> tuple[SocketTransport, Any]:
        """For `asyncssh.connect`, as a coroutine of asyncio."""
        connect = trio_asyncio.trio_as_aio(self._connect)
        return cast("tuple[SocketTransport, Any]", await connect(factory, host, port))

    async def _connect(
        self, factory: Callable[[], Any], host: str, port: int
    ) -> tuple[SocketTransport, Any]:
        if self.route.proxy_command:
            sock = await self._start_proxy(self.route.proxy_command)
        else:
            sock = await _connect_to(host, port, self.route)
        try:
            protocol = factory()
            transport = SocketTransport(sock, protocol)
        except BaseException:
            sock.close()
            raise
        self.link.transport = transport
        await self.link.nursery.start(transport.run)
        return transport, protocol

    async def _start_proxy(self, command: Sequence[str]) -> socket.socket:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                proxy = await trio.lowlevel.open_process(
                    command,
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
        except BaseException:
            ours.close()
            raise
        self.link.proxies.append(proxy)
        return ours


def _say_nothing_for_nothing(connection: asyncssh.SSHClientConnection) -> None:
    """Leave out the packet that asyncssh sends before each other one, to be ignored.

    It protects ciphers that chain their blocks (CBC: RFC 4251, 9.3.1). With any other it protects
    nothing, and both sides have twice the work.
    """
    send_packet = connection.send_packet

    def send_some(kind: int, *args: bytes, **options: Any) -> None:
        if kind != IGNORE:
            send_packet(kind, *args, **options)

    if "cbc" not in connection.get_extra_info("send_cipher", "cbc"):
        connection.send_packet = send_some  # type: ignore[assignment,method-assign]


async def _connect_to(host: str, port: int, route: Route) -> socket.socket:
    """A socket of the family, and from the address, that the configuration asks for."""
    hosts = [host]
    if route.family != socket.AF_UNSPEC:
        numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
        found: list[Any] = await trio.socket.getaddrinfo(
            host, port, route.family, socket.SOCK_STREAM
        )
        hosts = [(await trio.socket.getnameinfo(each[4], numeric))[0] for each in found]
    errors = []
    for each in hosts:
        try:
            stream = await trio.open_tcp_stream(each, port, local_address=route.local_address)
        except OSError as exc:
            errors.append(exc)
        else:
            return socket.socket(fileno=stream.socket.detach())
    raise errors[0]
