"""The root: starts its host's keeper, and is there until the last process has gone."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import FrameType

import trio

from ._cluster import ROOT_HOST, Cluster
from ._connection import close_connections
from ._endpoint import Endpoint, socket_pair
from ._member import Member, is_member, running_trio, set_current_member
from ._settings import HostSettings
from ._wire.frames import UNLIMITED
from ._wire.greetings import Peer
from ._wire.requests import NotReady, Ready, RequestReader, Stop
from .errors import HostDied, HostUnreachable, ParallelError, describe_exit, signal_name

_PROGRAM = Path(__file__).with_name("_host") / "__main__.py"
_ROOT = 0
PATIENCE = 2.0
"""Seconds beyond `grace` until a host that does not end is given up."""


@asynccontextmanager
async def init(
    *,
    cluster: Cluster | None = None,
    preload: Sequence[str] = (),
    spares: int = 2,
    grace: float = 5.0,
    heartbeat: float = 30.0,
    max_message_size: int | None = None,
    buffer_size: int = 1 << 16,
) -> AsyncGenerator[None, None]:
    """Start what `run` and `spawn` need; on leaving end every process that was started.

    One at a time in a program, and only in its first process: workers inherit it.

    Args:
        cluster: The hosts; default: this one alone.
        preload: Names of modules that every worker shall find imported already.
        spares: How many processes are kept ready; 0 makes each wait for its own fork.
        grace: Seconds from a cancellation (or an owner's death) until SIGKILL.
        heartbeat: Seconds of silence after which the link to another host counts as cut.
        max_message_size: Bytes of the largest message, argument list or result; None: no limit.
        buffer_size: Bytes that each connection may hold back for a peer that does not read, beyond
            what the kernel holds.

    Raises:
        ParallelError: `init` within `init`, or in a worker.
        HostUnreachable: The host could not be started; a module to preload raised, for example.
        HostDied: (to whoever waits for a process) Something has killed the host's processes.

    Leaving it, also by cancellation, takes up to `grace` seconds for processes that do not end.
    """
    running_trio()
    if is_member() or _starting:
        raise ParallelError("init within init (or in a worker): there can be only one, the root's")
    if not (grace >= 0 and heartbeat > 0 and spares >= 0 and buffer_size >= 1):
        raise ValueError("grace and spares must be >= 0, heartbeat and buffer_size > 0")
    if max_message_size is not None and max_message_size < 1:
        raise ValueError("max_message_size must be > 0, or None for no limit")
    if isinstance(preload, str):
        raise TypeError(f"preload takes a list of names: preload=[{preload!r}]")
    settings = HostSettings(
        host=ROOT_HOST,
        root_pid=os.getpid(),
        grace=grace,
        spares=spares,
        preload=tuple(preload),
        max_message_size=UNLIMITED if max_message_size is None else max_message_size,
        buffer_size=buffer_size,
        hosts=(cluster or Cluster()).slots,
    )
    with _alone():
        member, keeper = await _start_host(settings)
        set_current_member(member)
    with _second_interrupt_kills(member):
        try:
            member.attach()
            yield
        finally:
            with trio.CancelScope(shield=True):
                await _end_host(member, keeper)


_starting = False


@contextmanager
def _alone() -> Generator[None, None, None]:
    """While a host starts, which takes its time, nobody else may start one."""
    global _starting
    _starting = True
    try:
        yield
    finally:
        _starting = False


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


async def _start_host(settings: HostSettings) -> tuple[Member, trio.Process]:
    ours, theirs = socket_pair()
    endpoint = Endpoint(ours)
    try:
        keeper = await _start_keeper(settings, theirs)
    except BaseException:
        endpoint.close()
        raise
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
    return member, keeper


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


async def _why_lost(keeper: trio.Process, settings: HostSettings) -> BaseException:
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


async def _end_host(member: Member, keeper: trio.Process) -> None:
    """End what is left, then the fork server, then wait for the keeper."""
    try:
        await _end_children(member)
    finally:
        close_connections(None)
        member.ask(Stop())
        try:
            await _wait_for_keeper(member, keeper)  # noqa: ASYNC102  # shielded, and bounded
        finally:  # a Ctrl-C
            set_current_member(None)
            member.close()
            os.close(member.table)


async def _end_children(member: Member) -> None:
    """Those that a nursery outside of `init` still had. Ctrl-C skips `grace`."""
    interruption: BaseException | None = None
    children = list(member.children.values())
    for child in children:
        child.cancel()
    for child in children:
        while not child.exited.is_set():
            try:
                await child.exited.wait()
            except KeyboardInterrupt as exc:
                interruption = exc
                for other in member.children.values():
                    other.cancel(0.0)
    if interruption is not None:
        raise interruption


async def _wait_for_keeper(member: Member, keeper: trio.Process) -> None:
    with trio.move_on_after(member.settings.grace + PATIENCE):
        await keeper.wait()
    if keeper.returncode is None:
        keeper.kill()
        await keeper.wait()


@contextmanager
def _second_interrupt_kills(member: Member) -> Generator[None, None, None]:
    """The first Ctrl-C goes its usual way; one while things end because of it skips `grace`."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    if not callable(before):
        yield
        return
    usual = before
    token = trio.lowlevel.current_trio_token()
    interrupted = False

    def kill_the_dying() -> None:
        for child in member.children.values():
            if child.cancelling:
                child.cancel(0.0)

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        if interrupted and any(child.cancelling for child in list(member.children.values())):
            token.run_sync_soon(kill_the_dying)
        else:
            interrupted = True
            usual(number, frame)

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is handle:
            signal.signal(signal.SIGINT, before)
