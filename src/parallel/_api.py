"""`run` and `spawn`: functions in fresh processes.

The life of a call, with who does it:

1.  The caller pickles function and arguments; what cannot be sent is named before anything starts.
2.  It makes a socket pair for control (and one for the channel), and passes one end of each to the
    fork server with a `Start`.
3.  The fork server passes them on to a spare, writes it down, says `Started`, and forks another
    spare when it has nothing else to do.
4.  The worker reads settings and task from control, settles in, unpickles, says READY.
5.  It runs the function, sends RESULT or RAISED, waits until what else it sent is taken, exits.
6.  The fork server reaps it, kills what it left behind, and says `Exited`.
7.  The caller returns the value or raises the exception.

`run` is `spawn` without a hub.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import import_module
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, TypeVar, TypeVarTuple, overload

import trio
from trio.lowlevel import disable_ki_protection, enable_ki_protection

from ._channel import Channel, Wire
from ._connection import Connection
from ._directory import choose_host
from ._endpoint import socket_pair
from ._hub import Hub
from ._member import Child, Member, current_member
from ._process import Process, reraise
from ._surroundings import Abroad, encode_abroad, encode_surroundings, look_around
from ._wire.codec import Packed, pack
from ._wire.record import Record
from .placement import Placement

if TYPE_CHECKING:
    from ._shipping import Parcel

T = TypeVar("T")
SendT = TypeVar("SendT")
ReceiveT = TypeVar("ReceiveT")
Ts = TypeVarTuple("Ts")

Where = str | Placement | None
"""A host's name; None or "local" for the caller's own; or a placement."""


class Call(Record, Generic[T]):
    """A call under way: its process, and what that is sent first."""

    process: Process[T]
    child: Child
    settings: bytes
    task: Packed

    async def live(self) -> BaseException | None:
        """See it through; what interrupted it."""
        return await self.process.live(self.settings, self.task)


class Options(Record):
    """What `run` and `spawn` have in common."""

    where: Where
    name: str | None
    env: Mapping[str, str] | None
    cwd: str | None


@overload
async def run(
    fn: Callable[[*Ts], Awaitable[T]],
    *args: *Ts,
    where: Where = None,
    name: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
) -> T: ...


@overload
async def run(
    fn: Callable[[*Ts], T],
    *args: *Ts,
    where: Where = None,
    name: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
) -> T: ...


async def run(
    fn: Callable[..., Any],
    *args: object,
    where: Where = None,
    name: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
) -> Any:
    """Run `fn(*args)`, sync or async, in a fresh process; return its value or raise its exception.

    Args:
        fn: Any function: a lambda, a closure, a bound method, a partial, one of `__main__`.
        where: The host: a name, None or "local" for the caller's own, or a placement.
        name: What `ps`, `processes()` and errors call it; default: the function's name.
        env: Environment variables to set over the caller's.
        cwd: The directory to start in, relative to the caller's; default: the caller's.

    Raises:
        NotSendable: `fn` or an argument cannot be pickled; before any process starts.
        UnknownHost: `where` names a host that there is not.
        WorkerDied: The process ended without a result: it crashed, exited or was killed.
        HostDied: What runs the host's processes was killed.
        RemoteError: In place of an exception or a result that cannot travel.

    Cancelled, it cancels the function (`trio.Cancelled` in there; a sync one is sent SIGTERM),
    kills the process after `grace`, and is done when the process and everything below it is gone.
    A value or an exception that comes despite that is not lost.

        total = await parallel.run(sum, [1, 2, 3])
    """
    call, _ = launch(fn, args, Options(where, name, env, cwd), with_hub=False)
    interruption = await call.live()
    return _result(call.process, interruption)


def _result(process: Process[T], interruption: BaseException | None) -> T:
    """The value of a process that has ended, or what is to be raised."""
    ending = process.ending
    if interruption is not None and (
        isinstance(interruption, KeyboardInterrupt) or ending.status in ("cancelled", "died")
    ):
        raise interruption
    return process.outcome()


@overload
def spawn(
    fn: Callable[[Hub[SendT, ReceiveT], *Ts], Awaitable[T]],
    *args: *Ts,
    nursery: None = None,
    where: Where = None,
    name: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
) -> AbstractAsyncContextManager[tuple[Channel[SendT, ReceiveT], Process[T]]]: ...


@overload
def spawn(
    fn: Callable[[Hub[SendT, ReceiveT], *Ts], Awaitable[T]],
    *args: *Ts,
    nursery: trio.Nursery,
    where: Where = None,
    name: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
) -> Awaitable[tuple[Channel[SendT, ReceiveT], Process[T]]]: ...


def spawn(
    fn: Callable[..., Awaitable[Any]],
    *args: object,
    nursery: trio.Nursery | None = None,
    where: Where = None,
    name: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
) -> Any:
    """Run `await fn(hub, *args)` in a fresh process, with a channel to its hub.

        async with parallel.spawn(fn, *args) as (channel, process): ...
        channel, process = await parallel.spawn(fn, *args, nursery=nursery)

    Either way you get them when function and arguments have arrived in the process.

    The block is a nursery with one child. When the child fails, the body is cancelled and the
    child's exception raised, bare: a `trio.BrokenResourceError` of the block's own channel gives
    way to it, any other error of the body is raised together with it in an exception group, the
    body's first. Leaving the body closes the channel and waits for the child; leaving it by an
    exception or by cancellation cancels the child.

    With `nursery=` the process lives in that nursery as a task would, by the rules of
    `nursery.start`: what fails before you get the channel is raised here and leaves the nursery
    alone, what fails later is raised in the nursery. Closing the channel is up to you.

    Arguments and errors otherwise are those of `run`.
    """
    options = Options(where, name, env, cwd)
    if nursery is not None:
        return _start(nursery, fn, args, options)
    return _block(fn, args, options)


@enable_ki_protection
async def _start(
    nursery: trio.Nursery, fn: Callable[..., Awaitable[Any]], args: tuple[Any, ...], opts: Options
) -> tuple[Channel[Any, Any], Process[Any]]:
    opened: list[Channel[Any, Any]] = []
    try:
        started: tuple[Channel[Any, Any], Process[Any]] = await nursery.start(
            functools.partial(_live_in_nursery, fn, args, opts, opened)
        )
    except BaseException:
        for channel in opened:
            channel.close()  # nobody else has it
        raise
    return started


async def _live_in_nursery(
    fn: Callable[..., Awaitable[Any]],
    args: tuple[Any, ...],
    options: Options,
    opened: list[Channel[Any, Any]],
    *,
    task_status: trio.TaskStatus[tuple[Channel[Any, Any], Process[Any]]],
) -> None:
    call, channel = launch(fn, args, options, with_hub=True)
    assert channel is not None
    opened.append(channel)
    process = call.process
    process.on_ready = functools.partial(task_status.started, (channel, process))
    interruption = await call.live()
    if interruption is not None or process.ending.error is not None or not process.is_ready:
        _result(process, interruption)


@asynccontextmanager
@enable_ki_protection
async def _block(
    fn: Callable[..., Awaitable[Any]], args: tuple[Any, ...], options: Options
) -> AsyncGenerator[tuple[Channel[Any, Any], Process[Any]], None]:
    call, channel = launch(fn, args, options, with_hub=True)
    assert channel is not None
    process = call.process
    body_error: BaseException | None = None
    interruption: BaseException | None = None

    @enable_ki_protection
    async def live() -> None:
        nonlocal interruption
        interruption = await call.live()

    # Nothing is raised inside of the nursery, so that nothing comes out of it in a group.
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live)
            try:
                with trio.CancelScope() as body:
                    process.on_failure = body.cancel
                    await process.ready()
                    if process.is_ready:
                        yield channel, process
            except BaseException as exc:  # noqa: ASYNC103  # raised below, when all is known
                # The channel stays open meanwhile: its end would come before the cancellation, and
                # the process would fail for want of a peer, or return as if nothing had happened.
                body_error = exc
                process.cancel()
            else:
                channel.close()
    except BaseException as exc:  # noqa: ASYNC103  # Ctrl-C, or an older trio's Cancelled, in there
        alone = exc.exceptions[0] if isinstance(exc, BaseExceptionGroup) else exc
        if body_error is None or isinstance(alone, KeyboardInterrupt):
            body_error = alone
    channel.close()
    _raise_both(body_error, interruption, process, channel)
    if not process.is_ready:
        process.outcome()  # which raises: it was cancelled by somebody else


def _raise_both(
    body_error: BaseException | None,
    interruption: BaseException | None,
    process: Process[Any],
    channel: Channel[Any, Any],
) -> None:
    """After a block: raise what its body, its child or both had."""
    child_error = process.ending.error
    own = body_error if body_error is not None else interruption
    if child_error is None:
        if own is not None:
            raise own
    elif own is None or isinstance(own, trio.Cancelled) or _gives_way(own, channel, child_error):
        reraise(child_error)
    elif isinstance(own, KeyboardInterrupt):
        raise own
    else:
        raise BaseExceptionGroup("the block and its process both failed", [own, child_error])


def _gives_way(
    error: BaseException, channel: Channel[Any, Any], child_error: BaseException
) -> bool:
    """Whether it says nothing of its own: a broken channel, or what `process.result` raised."""
    if isinstance(error, BaseExceptionGroup):
        return all(_gives_way(member, channel, child_error) for member in error.exceptions)
    return error is child_error or channel.raised(error) or isinstance(error, trio.Cancelled)


@enable_ki_protection
def launch(
    fn: Callable[..., Any], args: tuple[Any, ...], options: Options, *, with_hub: bool
) -> tuple[Call[Any], Channel[Any, Any] | None]:
    """Steps 1 and 2."""
    member = current_member()
    member.attach()  # raises where nothing can be started, before anything is opened
    host = choose_host(member, options.where)
    name = options.name or function_name(fn)
    parts = {repr(name): fn, **{f"argument {i} of {name!r}": arg for i, arg in enumerate(args)}}
    task = _pack_interruptibly((fn, args), repr(name), member.settings.max_message_size, parts)
    settings, read_project = _settings(member, host, options)
    (control, far_control), *rest = _pairs(2 if with_hub else 1)
    descriptors = [far_control.detach()]
    channel = None
    for near, far in rest:
        descriptors.append(far.detach())
        channel = Channel[Any, Any](Wire(near, member))
    child = member.start(host, name, descriptors)
    process = _process(member, child, control, channel)
    process.read_project = read_project
    return Call(process, child, settings, task), channel


@disable_ki_protection
def _pack_interruptibly(
    value: object, what: str, max_size: int, parts: Mapping[str, object]
) -> Packed:
    """It may be large, and run code of the caller's."""
    return pack(value, what, max_size, parts)


def _settings(
    member: Member, host: str, options: Options
) -> tuple[bytes, Callable[[], bytes] | None]:
    """What the process is to find; on another host also the project that is named in there."""
    if host == member.settings.host:
        return encode_surroundings(look_around(options.env, options.cwd)), None
    # Only a program with other hosts needs what this brings along.
    shipping = import_module("._shipping", __package__)
    parcel: Parcel | None = shipping.pack_project(member.settings.ship)
    project, read = parcel or (None, None)
    return encode_abroad(Abroad(dict(options.env or {}), options.cwd, project)), read


def _pairs(count: int) -> list[tuple[socket.socket, socket.socket]]:
    """All of them or, with too many open files, none."""
    pairs: list[tuple[socket.socket, socket.socket]] = []
    try:
        for _ in range(count):
            pairs.append(socket_pair())
    except OSError:
        for sock in chain.from_iterable(pairs):
            sock.close()
        raise
    return pairs


def _process(
    member: Member, child: Child, control: socket.socket, channel: Channel[Any, Any] | None
) -> Process[Any]:
    settings = member.settings
    connection = Connection(control, settings.max_message_size, settings.buffer_size)
    child.connections.append(connection)
    connection.is_relayed = child.host != settings.host
    if channel is not None:
        child.connections.append(channel.wire)
        channel.wire.report_expected = True
        channel.wire.is_relayed = connection.is_relayed
        channel.wire.child = child
    return Process(child, connection)


def function_name(fn: Callable[..., Any]) -> str:
    """What a function is called in `ps` and in errors."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    if not callable(fn):
        raise TypeError(f"{fn!r} is not a function; pass it and its arguments: run(fn, *args)")
    name = getattr(fn, "__qualname__", type(fn).__qualname__)
    return str(name).replace("<locals>.", "")
