"""The exceptions: what went wrong, where, and what would mend it, as text and as fields.

Every exception of this package derives from `ParallelError`, keeps its facts as attributes and
arrives in another process with them. Where trio has an exception for the case already
(`trio.BrokenResourceError`, `trio.EndOfChannel`, ...) that one is raised instead.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Any, Literal


class ParallelError(Exception):
    """The root of every exception of this package; raised itself for a plain misuse."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as fields: an exception's default form forgets what came by keyword."""
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(
    cls: type[ParallelError], args: tuple[object, ...], state: dict[str, object]
) -> ParallelError:
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


def describe_exit(returncode: int | None) -> str:
    """How a process ended, in words: `exited with code 3`, `was killed by SIGKILL`.

    `returncode` is as in `subprocess.Popen`: negative for a signal.
    """
    if returncode is None:
        return "ended"
    if returncode >= 0:
        return f"exited with code {returncode}"
    return f"was killed by {signal_name(-returncode)}"


def signal_name(number: int) -> str:
    """`SIGKILL` for 9; `signal 77` for what has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@dataclass(eq=False)
class UnknownHost(ParallelError):
    """`where=` names a host that the cluster does not have."""

    host: str
    known: tuple[str, ...]

    def __str__(self) -> str:
        return f"there is no host {self.host!r}; the known ones are {', '.join(self.known)}"


@dataclass(eq=False)
class HostUnreachable(ParallelError):
    """A host could not be started.

    `step` is how far it came: "connection" (there was none, or it took too long), "key" (the host's
    or the user's was refused), "start" (it was reached, but no program of ours started there).
    """

    host: str
    reason: str
    step: Literal["connection", "key", "start"] = "start"

    def __str__(self) -> str:
        return f"host {self.host!r} could not be started: {self.reason}"


@dataclass(eq=False)
class HostMismatch(ParallelError):
    """A host's Python does not fit the caller's; both are named."""

    host: str
    ours: str
    theirs: str

    def __str__(self) -> str:
        return (
            f"host {self.host!r} has {self.theirs}, but this program needs {self.ours}; "
            "the host's setting python= says where there is one"
        )


@dataclass(eq=False)
class HostDied(ParallelError):
    """What runs a host's processes is gone, and with it all of them."""

    host: str
    reason: str

    def __str__(self) -> str:
        return f"host {self.host!r} died: {self.reason}"


@dataclass(eq=False)
class WorkerDied(ParallelError):
    """A process ended without a result.

    `returncode` is as in `subprocess.Popen` (negative for a signal; None while it is not known),
    `maybe_oom` says that the kernel ended processes for want of memory at about that time,
    `stderr` holds the last lines that the process wrote there, where its output is forwarded.
    """

    host: str
    pid: int
    name: str
    returncode: int | None = None
    maybe_oom: bool = False
    stderr: str = ""
    reason: str = ""

    @property
    def signal(self) -> str | None:
        """The signal that ended the process, by name."""
        if self.returncode is None or self.returncode >= 0:
            return None
        return signal_name(-self.returncode)

    def __str__(self) -> str:
        text = f"worker {self.name!r} (pid {self.pid} on host {self.host!r}) "
        text += self.reason or describe_exit(self.returncode) + " without a result"
        if self.maybe_oom:
            text += "; the kernel ran out of memory then: give it less to hold, or more memory"
        if self.stderr:
            text += f"; its last words were:\n{self.stderr}"
        return text


@dataclass(eq=False)
class WorkerCancelled(ParallelError):
    """The result of a process was asked for, but it has been cancelled."""

    host: str
    pid: int
    name: str

    def __str__(self) -> str:
        return f"worker {self.name!r} (pid {self.pid} on host {self.host!r}) was cancelled"


@dataclass(eq=False)
class RemoteError(ParallelError):
    """Stands for an exception that could not travel: its type's name, text and traceback."""

    type_name: str
    text: str
    traceback: str = ""

    def __str__(self) -> str:
        text = f"{self.type_name}: {self.text}" if self.text else self.type_name
        return f"{text}\n\n{self.traceback}" if self.traceback else text


@dataclass(eq=False)
class NotSendable(ParallelError):
    """Something cannot be pickled: `path` leads to it, `culprit` is its type, `why` the reason."""

    path: str
    culprit: str
    why: str = ""

    def __str__(self) -> str:
        text = f"cannot send {self.path}: {self.culprit}"
        return f"{text} ({self.why})" if self.why else text


@dataclass(eq=False)
class ProtocolError(ParallelError):
    """A connection carried something that makes no sense."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(eq=False)
class MessageTooLarge(ParallelError):
    """A message is over `init(max_message_size=...)`; both in bytes."""

    size: int
    limit: int

    def __str__(self) -> str:
        return (
            f"a message of {self.size} bytes is over the limit of {self.limit}; "
            "send less at once or raise init(max_message_size=...)"
        )
