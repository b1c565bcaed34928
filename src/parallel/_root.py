"""`init`: the root starts its host and the others, and is there until the last process has gone."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib import import_module
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

import trio
from trio.lowlevel import enable_ki_protection

from ._directory import usable_cpus
from ._member import Member, is_member, running_trio, set_current_member
from ._own_host import Keeper, end_children, end_host, start_host
from ._settings import HostSettings
from ._wire.frames import UNLIMITED
from ._wire.news import ROOT_HOST
from .errors import ParallelError

if TYPE_CHECKING:
    from ._cluster import Cluster
    from ._hosts import Hosts


@asynccontextmanager
@enable_ki_protection
async def init(
    *,
    cluster: Cluster | None = None,
    preload: Sequence[str] = (),
    spares: int = 2,
    grace: float = 5.0,
    heartbeat: float = 30.0,
    max_message_size: int | None = None,
    buffer_size: int = 1 << 16,
    missing_hosts: Literal["raise", "skip"] = "raise",
    label_output: bool = False,
    ship: bool | Sequence[str] = True,
) -> AsyncGenerator[None, None]:
    """Start what `run` and `spawn` need; on leaving end every process that was started.

    One at a time in a program, and only in its first process: workers inherit it.

    Args:
        cluster: The hosts; default: this one alone.
        preload: Names of modules that every worker shall find imported already.
        spares: How many processes are kept ready, at least; 0 makes each wait for its own fork.
        grace: Seconds from a cancellation (or an owner's death) until SIGKILL.
        heartbeat: Seconds of silence after which the link to another host counts as cut.
        max_message_size: Bytes of the largest message, argument list or result; None: no limit.
        buffer_size: Bytes that each connection may hold back for a peer that does not read, beyond
            what the kernel holds.
        missing_hosts: What to do about hosts that cannot be started: "raise" for all of them, or
            "skip" them; `hosts()` says then why they are not there.
        label_output: Put host and pid before each line that a process of another host prints.
        ship: What other hosts get of the program's own modules: True for those that have been
            imported by the time of a call and are not installed, False for none, or a list of
            names of modules and packages, and of paths to them.

    Raises:
        ParallelError: `init` within `init`, or in a worker; or `ship` names what is not there.
        HostUnreachable: This host could not be started; a module to preload raised, for example.
        ExceptionGroup: Other hosts could not be started: for each the `HostUnreachable` or
            `HostMismatch` that says why.
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
    if missing_hosts not in ("raise", "skip"):
        raise ValueError('missing_hosts must be "raise" or "skip"')
    settings = HostSettings(
        host=ROOT_HOST,
        root_pid=os.getpid(),
        grace=grace,
        spares=spares,
        preload=tuple(preload),
        max_message_size=UNLIMITED if max_message_size is None else max_message_size,
        buffer_size=buffer_size,
        slots=usable_cpus() if cluster is None else cluster.root_slots,
        ship=ship if isinstance(ship, bool) else _shipping().check_ship(ship),
    )
    with _alone():
        member, keeper = await start_host(settings)
        set_current_member(member)
    hosts: Hosts | None = None
    with _second_interrupt_kills(member):
        try:
            member.attach()
            if cluster is not None:
                hosts = cluster.begin(member, settings, heartbeat, label_output)
                await hosts.start(cluster.sources, skip_missing=missing_hosts == "skip")
            yield
        finally:
            if cluster is not None:
                cluster.ended()
            with trio.CancelScope(shield=True):
                await _leave(member, hosts, keeper)


def _shipping() -> Any:
    """Only a program with other hosts needs what this brings along."""
    return import_module("._shipping", __package__)


async def _leave(member: Member, hosts: Hosts | None, keeper: Keeper) -> None:
    """First what runs, then the other hosts, then this one; a Ctrl-C skips `grace`."""
    left = trio.Event()
    interruption: KeyboardInterrupt | None = None

    @enable_ki_protection
    async def leave() -> None:
        await end_children(member)
        if hosts is not None:
            await hosts.end()
        await end_host(member, keeper)
        left.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave)
        while not left.is_set():
            try:
                await left.wait()
            except KeyboardInterrupt as exc:
                interruption = exc
                for child in list(member.children.values()):
                    child.cancel(0.0)
    if interruption is not None:
        raise interruption


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
