"""A worker: one process, one function.

1. It is a spare: forked ahead of need, already inside trio, waiting for `Begin`.
2. It reads settings and task from its control connection, and unpickles the task.
3. An async function runs in the trio that is there; a sync one in the main thread without any.
4. It sends the result or the exception, then waits until what it has sent elsewhere is taken.
5. It runs what a normal exit runs, and exits.

Until an async function runs SIGTERM has its default effect, so whatever hangs ends with it; from
then on it cancels the function. While a sync function runs it ends the process at once.
"""

from __future__ import annotations

import atexit
import functools
import gc
import inspect
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

import trio

from .._connection import Connection, close_connections
from .._endpoint import Endpoint
from .._hub import Hub
from .._member import Member, set_current_member
from .._sending import flush_all, has_unwritten
from .._settings import HostSettings
from .._surroundings import settle_in
from .._wire.codec import Packed, pack, unpack
from .._wire.failure import as_remote_error, encode_failure, text_of
from .._wire.frames import Frame, Kind
from .._wire.greetings import Peer, Reset
from .._wire.requests import Begin, RequestReader
from . import kernel, projects


@dataclass(slots=True)
class Verdict:
    """How the function ended: what to tell the caller, and how to exit."""

    kind: Kind | None
    packed: Packed
    returncode: int
    reset: Reset | None
    """For those who are connected to this process; None after a proper end."""


def work(sock: socket.socket, settings: HostSettings, table: int, fork_server: int) -> NoReturn:
    """Be a worker; called right after the fork."""
    kernel.die_with_parent(fork_server)
    kernel.adopt_orphans()
    os.setpgid(0, 0)
    kernel.set_process_name("parallel: spare")
    sys.breakpointhook = _no_breakpoint
    gc.enable()
    worker = Worker(Endpoint(sock), settings, table)
    os.register_at_fork(
        before=_hold_sigterm,
        after_in_parent=_release_sigterm,
        after_in_child=worker.begin_as_helper,
    )
    try:
        sync_function = trio.run(worker.begin)
        if sync_function is not None:
            worker.run_sync(sync_function)
    except BaseException:  # noqa: ASYNC103  # nobody is above us
        traceback.print_exc()
        worker.returncode = 1
    _exit(worker.returncode)


# The interpreter puts frames into pieces of 16 KiB. Calls to and fro over the end of one map and
# unmap the next each time, which makes a recursion up to four times slower, at depths that nobody
# can foresee. With a frame that may grow so large below it all, the piece is one of 512 KiB.
work.__code__ = work.__code__.replace(co_stacksize=1 << 15)


async def _end_with_fork_server() -> NoReturn:
    """The root finds out by itself what has happened; a guess from here must not come first."""
    os._exit(1)


def _no_breakpoint(*args: object, **kwargs: object) -> NoReturn:
    raise RuntimeError(
        "breakpoint() in a worker: it has no terminal. Call the function in the program's first "
        "process to debug it, or attach to the worker with `python -m pdb -p` or py-spy"
    )


class _NoWayBack(trio.abc.Instrument):
    """Ends a helper that returns to the event loop it was forked in.

    The worker is in there too, and both would take each other's events.
    """

    def before_io_wait(self, timeout: float) -> None:
        os._exit(1)


class _SignalMask(threading.local):
    before_fork: Iterable[int] = ()


_signal_mask = _SignalMask()


def _hold_sigterm() -> None:
    """Until a new helper is ready to die of it: the interpreter drops what comes in its fork."""
    _signal_mask.before_fork = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])


def _release_sigterm() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _signal_mask.before_fork)


class Worker:
    """The steps, and what they share."""

    def __init__(self, endpoint: Endpoint, settings: HostSettings, table: int) -> None:
        self.endpoint = endpoint
        self.settings = settings
        self.table = table
        self.returncode = 0
        self.name = ""
        self.control: Connection
        self.member: Member
        self.hub: Hub[Any, Any] | None = None
        self.scope: trio.CancelScope | None = None
        self.cancelled = False
        self.is_abroad = False
        self.on_sigterm: Callable[..., object] | None = None

    async def begin(self) -> Callable[[], object] | None:
        """Steps 1 to 5 for an async function; for a sync one up to 2, and what to call."""
        begin, descriptors = await self._wait_for_work()
        if begin is None:
            return None
        self._become(begin, descriptors)
        try:
            function, args = await self._receive_task()
        except Exception as exc:  # whatever is wrong with the task is the caller's to know
            verdict = self._failed(exc, skip=0)
            self._conclude(verdict)
            await self._linger(verdict)
            return None
        try:
            self.control.push(Kind.READY)
        except trio.BrokenResourceError:
            return None  # the caller is gone
        call = functools.partial(function, *args)
        if self.hub is None and not _is_async(function):
            return call
        await self._run_async(call)
        return None

    # 1. Wait

    async def _wait_for_work(self) -> tuple[Begin | None, list[int]]:
        reader = RequestReader()
        while True:
            await trio.lowlevel.wait_readable(self.endpoint.sock)
            data = self.endpoint.read(reader.descriptors)
            if data == b"":
                return None, []
            if isinstance(data, bytes):
                reader.feed(data)
                item = reader.next()
                if item is not None:
                    assert isinstance(item[0], Begin)
                    return item[0], item[1]

    def _become(self, begin: Begin, descriptors: list[int]) -> None:
        """Be the process that `begin` says."""
        settings = self.settings
        self.name = begin.name
        kernel.set_process_name(begin.name)
        peer = Peer(settings.host, begin.process, os.getpid(), begin.name)
        owner = (begin.owner_host, begin.owner)
        self.is_abroad = begin.owner_host != settings.host
        self.member = Member(self.endpoint, settings, peer, owner, self.table)
        self.member.why_lost = _end_with_fork_server
        set_current_member(self.member)
        control, *channel = descriptors
        self.control = Connection(
            socket.socket(fileno=control), settings.max_message_size, settings.buffer_size
        )
        if channel:
            self.hub = Hub()
            self.hub.join(socket.socket(fileno=channel[0]))

    # 2. Receive

    async def _receive_task(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        settings = await self._receive(Kind.SETTINGS)
        project = settle_in(bytes(settings.body))
        if project is not None and not projects.use(project, self.settings.host):
            self.control.push(Kind.WANTED)
            task = await self._receive(Kind.MESSAGE)
            archive = await self._receive(Kind.ARCHIVE)
            projects.store(project, bytes(archive.body))
        else:
            task = await self._receive(Kind.MESSAGE)
        what = f"the task {self.name!r}"
        function, args = unpack(task.body, task.buffers, task.descriptors, what)
        return function, args if self.hub is None else (self.hub, *args)

    async def _receive(self, kind: Kind) -> Frame:
        frame = await self.control.receive()
        if frame is None or frame.kind is not kind:
            os._exit(1)  # the caller has changed its mind, or is gone
        return frame

    # 3. Run

    async def _run_async(self, call: Callable[[], Any]) -> None:
        token = trio.lowlevel.current_trio_token()
        self.on_sigterm = lambda *_: token.run_sync_soon(self._cancel)
        signal.signal(signal.SIGTERM, self.on_sigterm)
        verdict = self._was_cancelled()
        try:
            with trio.CancelScope() as self.scope:
                value = call()
                if not inspect.isawaitable(value):
                    raise TypeError(f"spawn takes an async function, which {self.name!r} is not")
                verdict = self._returned(await value)
        except BaseException as exc:  # noqa: ASYNC103  # all of them are the caller's
            verdict = self._failed(exc, skip=1)
        with trio.CancelScope() as self.scope:
            if self.cancelled:
                self.scope.cancel()
            self._conclude(verdict)
            await self._linger(verdict)
        with trio.CancelScope(shield=True):
            await self.control.flushed()
        self.forget_sigterm()

    def begin_as_helper(self) -> None:
        """Be a process that the worker has forked."""
        self.forget_sigterm()
        _release_sigterm()
        try:
            trio.lowlevel.add_instrument(_NoWayBack())
        except RuntimeError:
            pass  # it was not forked in an event loop

    def forget_sigterm(self) -> None:
        """Die of it again; so must helpers that this process forks."""
        if self.on_sigterm is not None and signal.getsignal(signal.SIGTERM) is self.on_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _cancel(self) -> None:
        self.cancelled = True
        if self.scope is not None:
            self.scope.cancel()

    def run_sync(self, call: Callable[[], Any]) -> None:
        """Steps 3 and 4 for a sync function."""
        try:
            value = call()
        except BaseException as exc:  # noqa: ASYNC103  # all of them are the caller's
            verdict = self._failed(exc, skip=1)
        else:
            if inspect.iscoroutine(value):  # a lambda or the like that calls an async function
                trio.run(self._run_async, lambda: value)
                return
            verdict = self._returned(value)
        self._conclude(verdict)
        if has_unwritten():
            trio.run(self._linger, verdict)

    # 4. Tell

    def _returned(self, value: object) -> Verdict:
        try:
            what = f"the result of {self.name!r}"
            packed = pack(value, what, self.settings.max_message_size)
        except Exception as exc:
            return self._failed(exc, skip=0)
        return Verdict(Kind.RESULT, packed, 0, None)

    def _failed(self, exc: BaseException, skip: int) -> Verdict:
        if self.is_abroad:
            projects.explain_missing(exc, self.settings.host)
        text = f"raised {type(exc).__name__}: {text_of(exc)}"
        reset = Reset("failed", text)
        if isinstance(exc, Exception):
            return Verdict(Kind.RAISED, Packed(encode_failure(exc, skip)), 1, reset)
        packed = Packed(encode_failure(as_remote_error(exc)))
        returncode = _exit_code(exc) if isinstance(exc, SystemExit) else 1
        return Verdict(Kind.EXIT, packed, returncode, reset)

    def _was_cancelled(self) -> Verdict:
        return Verdict(None, Packed(b""), -signal.SIGTERM, Reset("cancelled"))

    def _conclude(self, verdict: Verdict) -> None:
        """Output first, then the result, then the ends of all connections."""
        _flush_output()
        self.returncode = verdict.returncode
        try:
            if verdict.kind is not None:
                self.control.accept(verdict.packed, verdict.kind)
        except trio.BrokenResourceError:
            pass  # the caller is gone
        except Exception as exc:  # a channel in the result that cannot be sent any more
            self._conclude(self._failed(exc, skip=0))
            return
        if self.hub is not None:
            self.hub.close(verdict.reset)
        close_connections(verdict.reset)

    async def _linger(self, verdict: Verdict) -> None:
        """Nothing that was sent before a proper end is dropped: wait until others have taken it."""
        if verdict.reset is None:
            await flush_all()
        else:
            await self.control.flushed()


def _is_async(function: Any) -> bool:
    """Whether calling it makes a coroutine, through partials and `__call__`."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  # it is not whether, but what it calls
    )


# 5. Exit


def _exit_code(exc: SystemExit) -> int:
    """As the interpreter does it."""
    if exc.code is None or isinstance(exc.code, int):
        return (exc.code or 0) & 0xFF
    sys.stderr.write(f"{exc.code}\n")
    return 1


def _flush_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass  # there is none, it is closed, or nobody reads it


def _exit(returncode: int) -> NoReturn:
    """Run what a normal exit runs; `sys.exit` would take 35 ms to take the interpreter down."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # waits for non-daemon threads
        atexit._run_exitfuncs()
    except BaseException:  # noqa: ASYNC103  # the process ends anyway
        traceback.print_exc()
    _flush_output()
    if returncode < 0:
        signal.signal(-returncode, signal.SIG_DFL)
        os.kill(os.getpid(), -returncode)
    os._exit(returncode)
