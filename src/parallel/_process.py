"""`Process`: a worker as its caller sees it, from the request to its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Literal, NoReturn, TypeAlias, TypeVar, cast

import trio
from trio.lowlevel import disable_ki_protection, enable_ki_protection

from ._connection import Connection
from ._member import Child
from ._wire.codec import Packed, unpack
from ._wire.failure import decode_failure
from ._wire.frames import Frame, Kind
from ._wire.record import Record
from .errors import ParallelError, ProtocolError, RemoteError, WorkerCancelled

T_co = TypeVar("T_co", covariant=True)

Status: TypeAlias = Literal["returned", "raised", "cancelled", "died"]


class Ending(Record, Generic[T_co]):
    """How a process ended.

    `status` is "returned" (then `value` is what), "raised" (then `error` is the function's
    exception), "cancelled", or "died" (then `error` says of what). `returncode` is as in
    `subprocess.Popen`; None where nobody could tell.
    """

    status: Status
    value: T_co | None
    error: BaseException | None
    returncode: int | None


class Process(Generic[T_co]):
    """A worker: what `parallel.spawn` gives you beside the channel."""

    def __init__(self, child: Child, control: Connection) -> None:
        self._child = child
        self._control = control
        control.leave_to_owner()
        self._verdict: Ending[T_co] | None = None
        """What the worker has said; it stands, however the process ends."""
        self._last_words: BaseException | None = None
        self._ending: Ending[T_co] | None = None
        self._ended = trio.Event()
        self._decided = trio.Event()
        """The worker has said it, or never will."""
        self._sent_task = False
        self.read_project: Callable[[], bytes] | None = None
        """The archive of the project that the settings name."""
        self.is_ready = False
        self._ready = trio.Event()
        self.on_ready: Callable[[], object] = _nothing
        """Called when function and arguments have arrived in the worker."""
        self.on_failure: Callable[[], object] = _nothing
        """Called as soon as it is known that the worker has failed."""

    @property
    def host(self) -> str:
        """The name of its host."""
        return self._child.host

    @property
    def pid(self) -> int:
        """Its process id on that host."""
        return self._child.pid or 0

    @property
    def name(self) -> str:
        """What it runs, or the name that it was given."""
        return self._child.name

    @property
    def returncode(self) -> int | None:
        """None while it runs; then its exit code, or minus the signal that ended it."""
        return self._child.returncode

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._ending is None

    async def wait(self) -> Ending[T_co]:
        """Wait until the process is gone; tells how it ended, and raises nothing of it."""
        await self._ended.wait()
        return self.ending

    async def result(self) -> T_co:
        """Its function's value, as soon as it is here; the process itself may take longer to end.

        It does so while it has threads or exit functions to wait for, or messages that nobody has
        taken yet; `wait` waits for that too.

        Raises its function's exception, `WorkerDied` where it ended without either, and
        `WorkerCancelled` after it has been cancelled, unless a value came despite that.
        """
        await self._decided.wait()
        return self.outcome()

    def cancel(self) -> None:
        """Cancel the function: it sees `trio.Cancelled`; after `grace` the process is killed."""
        self._child.cancel()

    def __repr__(self) -> str:
        state = self._ending.status if self._ending else "running"
        return f"<parallel.Process {self.name!r} pid {self.pid} on {self.host!r}, {state}>"

    # The life of a call

    @property
    def ending(self) -> Ending[T_co]:
        """How it ended, once it has."""
        assert self._ending is not None
        return self._ending

    def outcome(self) -> T_co:
        """`result` of a process that has said it, or ended."""
        ending = self._verdict or self.ending
        if ending.status == "returned":
            return cast(T_co, ending.value)
        if ending.error is not None:
            reraise(ending.error)
        raise WorkerCancelled(self.host, self.pid, self.name)

    async def ready(self) -> None:
        """Wait until function and arguments have arrived there, or never will."""
        await self._ready.wait()

    @enable_ki_protection  # an interrupt comes while it waits, not in the middle of what it does
    async def live(self, settings: bytes, task: Packed) -> BaseException | None:
        """See the process through to its end, whatever happens to this task.

        Returns what interrupted it (`trio.Cancelled`, KeyboardInterrupt): then the process has
        been cancelled, and this is for the caller to raise where it has nothing better.
        """
        interruption: BaseException | None = None
        while self._ending is None:
            try:
                with trio.CancelScope(shield=interruption is not None):
                    await self._converse(settings, task)
            except (trio.Cancelled, KeyboardInterrupt) as exc:  # noqa: ASYNC103  # returned
                # At the second one there is no more grace.
                self._child.cancel(None if interruption is None else 0.0)
                self.on_failure()
                interruption = interruption or exc
        return interruption  # noqa: ASYNC104  # the callers raise it

    async def _converse(self, settings: bytes, task: Packed) -> None:
        """Send the task, take what the worker says, wait for its exit; can be taken up again."""
        try:
            await self._send_task(settings, task)
            while self._verdict is None and (frame := await self._control.receive()) is not None:
                if frame.kind is Kind.READY:
                    await self._child.started.wait()  # it may come later, and tells the pid
                elif frame.kind is Kind.WANTED and self.read_project is not None:
                    await self._send_project(self.read_project())
                    continue
                self._handle(frame)
        except ParallelError as exc:  # what came makes no sense, and says why
            self._conclude(Ending("died", None, exc, None))
            self._child.cancel(0.0)
        await self._child.exited.wait()
        self._end()

    async def _send_task(self, settings: bytes, task: Packed) -> None:
        if self._sent_task or self._child.cancelling:
            return
        try:
            self._control.push(Kind.SETTINGS, settings)
            await self._control.send(task)
        except trio.BrokenResourceError:
            pass  # the worker ends early; it may have said why
        self._sent_task = True

    async def _send_project(self, archive: bytes) -> None:
        try:
            await self._control.send(Packed(archive), Kind.ARCHIVE)
        except trio.BrokenResourceError:
            pass  # the worker ends early; it may have said why

    def _handle(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.READY:
                self.is_ready = True
                self._ready.set()
                self.on_ready()
            case Kind.RESULT:
                self._conclude(self._unpack_result(frame))
            case Kind.RAISED:
                self._conclude(Ending("raised", None, decode_failure(frame.body), None))
            case Kind.EXIT:
                self._last_words = decode_failure(frame.body)
            case Kind.END | Kind.CLOSE:
                pass
            case _:
                raise ProtocolError(f"{self!r} sent a {frame.kind.name}")

    def _unpack_result(self, frame: Frame) -> Ending[T_co]:
        what = f"the result of {self.name!r}"
        try:
            # A service is seen through by a system task, which nothing may interrupt.
            read = _unpack if self._child.is_service else _unpack_interruptibly
            value = read(frame, what)
        except RemoteError as exc:
            return Ending("raised", None, exc, None)
        return Ending("returned", value, None, None)

    def _conclude(self, verdict: Ending[T_co]) -> None:
        self._verdict = verdict
        if verdict.error is not None:
            self.on_failure()  # first: the body of a block is cancelled rather than told
        self._decided.set()

    def _end(self) -> None:
        """The process is gone, and so is all below it."""
        ending = self._verdict or self._died()
        self._ending = ending._replace(returncode=self._child.returncode)
        self._control.discard()
        if self._ending.error is not None:
            self.on_failure()
        for event in (self._ready, self._decided, self._ended):
            event.set()

    def _died(self) -> Ending[T_co]:
        """It has said nothing."""
        if self._child.error is not None:
            return Ending("died", None, self._child.error, None)
        error = self._child.fate()
        if isinstance(error, WorkerCancelled):
            return Ending("cancelled", None, None, None)
        error.__cause__ = self._last_words
        return Ending("died", None, error, None)


def _unpack(frame: Frame, what: str) -> Any:
    return unpack(frame.body, frame.buffers, frame.descriptors, what)


@disable_ki_protection
def _unpack_interruptibly(frame: Frame, what: str) -> Any:
    """It may be large, and run code of the caller's."""
    return _unpack(frame, what)


def _nothing() -> None:
    pass


def reraise(error: BaseException) -> NoReturn:
    """Raise it with the context that it came with, not with what is being handled here."""
    context, suppressed = error.__context__, error.__suppress_context__
    try:
        raise error
    finally:
        # Also where the class forbids it: a frozen dataclass, for example.
        object.__setattr__(error, "__context__", context)
        object.__setattr__(error, "__suppress_context__", suppressed)
        del error
