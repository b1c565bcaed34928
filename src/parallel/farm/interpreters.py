"""Workers under other Pythons, of another version than this one, behind any command."""

from __future__ import annotations

import io
import pickle
import shlex
import subprocess
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import FunctionType
from typing import Any

import trio

from ..errors import NotSendable, ParallelError, RemoteError, UnknownHost, describe_exit
from ..failure import Failure
from .deployment import Deployment, Seat, Setup, WorkerLost
from .derived import map_or_fold
from .far_side import PROTOCOL, read_message, write_message
from .messages import Answer, Ask, Define, Drop, Forget, Order, Report, Run, Unreadable
from .tasks import Result

READ_ONE_LINE = 'f"or x in {exec(input())}:0"'
"""A program for `python -c` that runs the first line of its stdin.

It means that as it stands, as an f-string, and as well without the quotation marks, as a loop: ssh
has the words of its command parsed once more by a shell at the other end.
"""

FAR_SIDE = Path(__file__).with_name("far_side.py").read_text()

PATIENCE = 2.0
"""Seconds that one has to end by itself once its stdin has."""

NOISE = 1 << 20
"""Bytes that a command may print before its Python starts."""


class Interpreters(Deployment):
    """A worker under each of these Pythons, which need not be of this one's version.

        Interpreters([["python3.12"], ["ssh", "host0", "python3.13"], ["env", "A=b", "python3.11"]])

    Nothing has to be installed there; Python 3.8 will do. `parallel.init` is not needed. Only what
    has a name can go there: a function of a module that can be imported on both sides (or a
    `functools.partial` of one), with arguments and results that plain pickle can carry. A closure,
    a lambda or what belongs to `__main__` would have to travel as bytecode, which no other version
    of Python can run: it is refused with `NotSendable`. An async function needs trio there.

    There is no `setup`: `worker_state` is a part of this package. Keep state in your module.

    Args:
        commands: For each worker the words of a command that runs a Python with the arguments
            appended to it, and passes on stdin and stdout. Name one twice for two workers. What
            the workers print goes to this program's stderr.
    """

    def __init__(self, commands: Sequence[Sequence[str]]) -> None:
        if not commands or any(isinstance(argv, str) or not argv for argv in commands):
            raise TypeError(f"{commands!r}: a list of commands is needed, each a list of words")
        self._commands = {shlex.join(argv): tuple(argv) for argv in commands}
        self._places = [shlex.join(argv) for argv in commands]

    def places(self) -> Sequence[str]:
        """The commands."""
        return self._places

    @asynccontextmanager
    async def start(self, place: str, name: str, setup: Setup | None) -> AsyncGenerator[Seat, None]:
        """Run the command."""
        if setup is not None:
            raise ParallelError(
                "under another Python there is no setup=, for worker_state() is a part of this "
                "package; keep state in the module of your function"
            )
        if place not in self._commands:
            raise UnknownHost(place, tuple(self._commands))
        argv = [*self._commands[place], "-u", "-c", READ_ONE_LINE]
        try:
            process = await trio.lowlevel.open_process(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        except OSError as exc:
            reason = exc.strerror or exc
            raise ParallelError(f"{argv[0]!r} could not be executed: {reason}") from exc
        patience = 0.0
        try:
            seat = _Interpreter(place, process)
            await seat.prepare()
            yield seat
            patience = PATIENCE
        finally:
            with trio.CancelScope(shield=True):
                await _end(process, patience)


async def _end(process: trio.Process, patience: float) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    await process.stdin.aclose()
    await process.stdout.aclose()
    with trio.move_on_after(patience):
        await process.wait()
    if process.poll() is None:
        process.kill()
    await process.wait()


class _Interpreter(Seat):
    def __init__(self, place: str, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._place = place
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._incoming = bytearray()
        self._messages = 0
        self._defined: dict[int, int] = {}
        """Of each job the number of the message with its function."""
        self._version = ""

    # -- starting --------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Send the program of the far side, and see it start."""
        marker = uuid.uuid4().hex
        program = (
            "far={'__name__':'parallel_far_side'};"
            f"exec(compile({FAR_SIDE!r},'<the far side of a farm>','exec'),far);"
            f"far['main']({marker!r})"
        )
        await self._write(f"exec({program!r})\n".encode("ascii", "backslashreplace"))
        end = f"{marker}\n".encode()
        while end not in self._incoming:
            await self._read_some()
            if len(self._incoming) > NOISE:
                raise WorkerLost(f"{self._place}: it prints, but no Python starts")
        del self._incoming[: self._incoming.index(end) + len(end)]
        self._version = (await self._read_message()).split()[0]

    # -- sending ---------------------------------------------------------------------------------

    async def send(self, order: Order) -> None:
        """Pass it on."""
        match order:
            case Define(job, fn):
                self._defined[job] = self._messages
                message: tuple[Any, ...] = "define", job, self._dumps(fn, "the function")
            case Run(job, tasks, arguments, timed):
                pickled = [self._dumps(args, "the arguments") for args in arguments]
                message = "run", job, tasks, pickled, timed
            case Forget(job):
                self._defined.pop(job, None)
                message = "forget", job
            case Drop(tasks):
                message = "drop", tasks
            case Ask():
                message = ("ask",)
        with io.BytesIO() as file:
            write_message(file, message)
            await self._write(file.getvalue())
        self._messages += 1

    def _dumps(self, value: object, what: str) -> bytes:
        with io.BytesIO() as file:
            try:
                _Dumper(file, what, self._version).dump(value)
            except NotSendable:
                raise
            except Exception as exc:
                why = f"{exc}; to a Python {self._version} goes only what plain pickle can carry"
                raise NotSendable(what, type(value).__qualname__, why) from exc
            return file.getvalue()

    async def _write(self, data: bytes) -> None:
        try:
            await self._stdin.send_all(data)
        except trio.BrokenResourceError:
            raise await self._lost() from None

    # -- receiving -------------------------------------------------------------------------------

    async def receive(self) -> Answer:
        """What it says next."""
        while True:
            kind, *what = await self._read_message()
            if kind == "report":
                results, begun = what
                # Of the messages only those with functions can be unreadable, and are kept in mind.
                results = [self._result(*each) for each in results]
                return Report(results, begun, begun is not None, self._messages)
            job, description = what
            number = self._defined.get(job)
            if number is not None:  # else nobody wants it any more
                return Unreadable(number, Failure(RemoteError(*description[1:])))

    def _result(self, task: int, value: Any, seconds: float, wrong: str) -> Result:
        if not wrong:
            try:
                return Result(task, pickle.loads(value), seconds)
            except Exception as exc:
                text = f"{exc}, while unpickling the result"
                error: BaseException = RemoteError(type(exc).__qualname__, text)
        elif wrong == "raised":
            error = self._exception(*value)
        elif wrong == "unreadable":
            error = RemoteError(*value[1:])
        else:
            error = NotSendable("the result", wrong.partition(" ")[2], value[2])
        return Result(task, Failure(error), seconds, failed=True)

    def _exception(
        self, pickled: bytes | None, type_name: str, text: str, trace: str
    ) -> BaseException:
        try:
            if pickled is not None:
                exc = pickle.loads(pickled)
                if isinstance(exc, BaseException):
                    exc.add_note(f"Under Python {self._version} ({self._place}):\n{trace}")
                    return exc
        except Exception:  # as text then
            pass
        return RemoteError(type_name, text, trace)

    async def _read_message(self) -> Any:
        while len(self._incoming) < 8:
            await self._read_some()
        end = 8 + int.from_bytes(self._incoming[:8], "big")
        while len(self._incoming) < end:
            await self._read_some()
        message = read_message(io.BytesIO(self._incoming[:end]))
        del self._incoming[:end]
        return message

    async def _read_some(self) -> None:
        try:
            data = await self._stdout.receive_some()
        except trio.BrokenResourceError:
            data = b""
        if not data:
            raise await self._lost()
        self._incoming += data

    async def _lost(self) -> WorkerLost:
        with trio.move_on_after(PATIENCE):
            await self._process.wait()
        how = describe_exit(self._process.poll())
        return WorkerLost(f"{self._place} {how}; what it had to say is on stderr")


class _Dumper(pickle.Pickler):
    """Plain pickle, which refuses what the other side would look for in vain."""

    def __init__(self, file: io.BytesIO, what: str, version: str) -> None:
        super().__init__(file, PROTOCOL)
        self._what = what
        self._version = version

    def persistent_id(self, obj: Any) -> str | None:
        """What the far side has of its own."""
        return "map_or_fold" if obj is map_or_fold else None

    def reducer_override(self, obj: Any) -> Any:
        """Pickle calls this for every object that is not of a basic type."""
        if isinstance(obj, FunctionType | type):
            name = obj.__qualname__
            if obj.__module__ == "__main__" or "<" in name:
                raise NotSendable(
                    self._what,
                    name,
                    f"it would travel as bytecode, which Python {self._version} may not be able to "
                    "run: make it a function of a module that both sides can import",
                )
        return NotImplemented
