"""This process's own host: its keeper and fork server, from the start to the end.

The root has one, and so has the agent of every other host.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import trio

from ._connection import close_connections
from ._endpoint import Endpoint, socket_pair
from ._member import Member, set_current_member
from ._settings import HostSettings
from ._wire.greetings import Peer
from ._wire.requests import NotReady, Ready, RequestReader, Stop
from .errors import HostDied, HostUnreachable, describe_exit, signal_name

_PROGRAM = Path(__file__).with_name("_host") / "__main__.py"
_ROOT = 0
PATIENCE = 2.0
"""Seconds beyond `grace` until a host that does not end is given up."""


async def _start_keeper(settings: HostSettings, theirs: socket.socket) -> trio.Process:
    with theirs:
        descriptor = theirs.fileno()
        try:
            # Its own session: Ctrl-C in the terminal reaches the root alone.
            return await trio.lowlevel.open_process(
                [sys.executable, "-P", *_interpreter_flags(), str(_PROGRAM), str(descriptor)],
                stdin=subprocess.DEVNULL,
                pass_fds=[descriptor],
                start_new_session=True,
            )
        except OSError as exc:
            reason = f"{sys.executable} could not be executed: {exc}"
            raise HostUnreachable(settings.host, reason) from exc


class Keeper(Protocol):
    """A `trio.Process`, or one that was forked."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    async def wait(self) -> int: ...
    def kill(self) -> None: ...


async def start_host(settings: HostSettings) -> tuple[Member, Keeper]:
    """Start keeper and fork server; raises `HostUnreachable`."""
    ours, theirs = socket_pair()
    endpoint = Endpoint(ours)
    try:
        keeper = await _start_keeper(settings, theirs)
    except BaseException:
        endpoint.close()
        raise
    return await set_up_host(settings, endpoint, keeper), keeper


async def set_up_host(settings: HostSettings, endpoint: Endpoint, keeper: Keeper) -> Member:
    """Tell a keeper what to do; raises `HostUnreachable`."""
    try:
        entries: list[object] = [*sys.path]
        path = [entry for entry in entries if isinstance(entry, str)]  # as the importer has it
        line = json.dumps({"path": path, **settings._asdict()}) + "\n"
        await _say(endpoint, line.encode())
        table = await _wait_until_ready(endpoint, settings.host)
    except BaseException:
        endpoint.close()
        with trio.CancelScope(shield=True):
            keeper.kill()
            await keeper.wait()
        raise
    peer = Peer(settings.host, _ROOT, os.getpid(), "root")
    member = Member(endpoint, settings, peer, None, table)

    async def why_lost() -> BaseException:
        return await _why_lost(keeper, settings)

    member.why_lost = why_lost
    return member


def _interpreter_flags() -> list[str]:
    """As this interpreter was started: -X, -W, -O, ..."""
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return flags


async def _say(endpoint: Endpoint, line: bytes) -> None:
    with suppress(OSError):  # it is gone already (of the same Ctrl-C?); its silence will tell
        endpoint.push([line])
        while endpoint.unwritten:  # an import path may be longer than what a socket holds
            await trio.lowlevel.wait_writable(endpoint.sock)
            endpoint.write()


async def _wait_until_ready(endpoint: Endpoint, host: str) -> int:
    reader = RequestReader()
    while True:
        await trio.lowlevel.wait_readable(endpoint.sock)
        data = endpoint.read(reader.descriptors)
        if data == b"":
            raise HostUnreachable(host, "its fork server ended at once; see what it printed above")
        if isinstance(data, bytes):
            reader.feed(data)
        match reader.next():
            case (Ready(), [table]):
                return table
            case (NotReady(reason), _):
                raise HostUnreachable(host, f"its fork server could not start:\n{reason}")


async def _why_lost(keeper: Keeper, settings: HostSettings) -> BaseException:
    """The fork server is gone: wait until the keeper has cleaned up, and say what happened."""
    with trio.move_on_after(settings.grace + PATIENCE):
        await keeper.wait()
    code = keeper.returncode
    if code is None:
        reason = f"its fork server is gone, but its keeper (pid {keeper.pid}) does not end"
    elif code < 0:
        reason = f"its keeper (pid {keeper.pid}) {describe_exit(code)}"
    elif code > 64:
        reason = f"its fork server was killed by {signal_name(code - 64)}"
    else:
        reason = "its fork server failed; see what it printed"
    return HostDied(settings.host, reason)


async def end_host(member: Member, keeper: Keeper) -> None:
    """End the fork server and all that it has, and wait for the keeper."""
    close_connections(None)
    member.ask(Stop())
    await _wait_for_keeper(member, keeper)
    set_current_member(None)
    member.close()
    os.close(member.table)


async def end_children(member: Member) -> None:
    """Those that a nursery outside of `init` still had."""
    children = [child for child in member.children.values() if not child.is_service]
    for child in children:
        child.cancel()
    for child in children:
        await child.exited.wait()


async def _wait_for_keeper(member: Member, keeper: Keeper) -> None:
    with trio.move_on_after(member.settings.grace + PATIENCE):
        await keeper.wait()
    if keeper.returncode is None:
        keeper.kill()
        await keeper.wait()
