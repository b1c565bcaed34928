"""The exceptions: what went wrong, where, and what would mend it, as text and as fields.

Every exception of this package derives from `ParallelError`, keeps its facts as attributes and
arrives in another process with them. Where trio has an exception for the case already
(`trio.BrokenResourceError`, `trio.EndOfChannel`, ...) that one is raised instead.

They are no dataclasses: to make those would take 2 ms of every program's start.
"""

from __future__ import annotations

import signal
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


class _WithFacts(ParallelError):
    """One that has arguments of its own, and keeps them as attributes."""

    def __repr__(self) -> str:
        facts = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({facts})"


class UnknownHost(_WithFacts):
    """`where=` names a host that the cluster does not have."""

    def __init__(self, host: str, known: tuple[str, ...]) -> None:
        self.host = host
        self.known = known

    def __str__(self) -> str:
        return f"there is no host {self.host!r}; the known ones are {', '.join(self.known)}"


class HostUnreachable(_WithFacts):
    """A host could not be started.

    `step` is how far it came: "connection" (there was none, or it took too long), "key" (the host's
    or the user's was refused), "start" (it was reached, but no program of ours started there).
    """

    def __init__(
        self, host: str, reason: str, step: Literal["connection", "key", "start"] = "start"
    ) -> None:
        self.host = host
        self.reason = reason
        self.step = step

    def __str__(self) -> str:
        return f"host {self.host!r} could not be started: {self.reason}"


class HostMismatch(_WithFacts):
    """A host's Python does not fit the caller's; both are named."""

    def __init__(self, host: str, ours: str, theirs: str) -> None:
        self.host = host
        self.ours = ours
        self.theirs = theirs

    def __str__(self) -> str:
        return (
            f"host {self.host!r} has {self.theirs}, but this program needs {self.ours}; "
            "the host's setting python= says where there is one"
        )


class HostDied(_WithFacts):
    """What runs a host's processes is gone, and with it all of them."""

    def __init__(self, host: str, reason: str) -> None:
        self.host = host
        self.reason = reason

    def __str__(self) -> str:
        return f"host {self.host!r} died: {self.reason}"


class WorkerDied(_WithFacts):
    """A process ended without a result.

    `returncode` is as in `subprocess.Popen` (negative for a signal; None while it is not known),
    `maybe_oom` says that the kernel ended processes for want of memory at about that time,
    `stderr` holds the last lines that the process wrote there, where its output is forwarded.
    """

    def __init__(
        self,
        host: str,
        pid: int,
        name: str,
        returncode: int | None = None,
        maybe_oom: bool = False,
        stderr: str = "",
        reason: str = "",
    ) -> None:
        self.host = host
        self.pid = pid
        self.name = name
        self.returncode = returncode
        self.maybe_oom = maybe_oom
        self.stderr = stderr
        self.reason = reason

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


class WorkerCancelled(_WithFacts):
    """The result of a process was asked for, but it has been cancelled."""

    def __init__(self, host: str, pid: int, name: str) -> None:
        self.host = host
        self.pid = pid
        self.name = name

    def __str__(self) -> str:
        return f"worker {self.name!r} (pid {self.pid} on host {self.host!r}) was cancelled"


class RemoteError(_WithFacts):
    """Stands for an exception that could not travel: its type's name, text and traceback."""

    def __init__(self, type_name: str, text: str, traceback: str = "") -> None:
        self.type_name = type_name
        self.text = text
        self.traceback = traceback

    def __str__(self) -> str:
        text = f"{self.type_name}: {self.text}" if self.text else self.type_name
        return f"{text}\n\n{self.traceback}" if self.traceback else text


class NotSendable(_WithFacts):
    """Something cannot be pickled: `path` leads to it, `culprit` is its type, `why` the reason."""

    def __init__(self, path: str, culprit: str, why: str = "") -> None:
        self.path = path
        self.culprit = culprit
        self.why = why

    def __str__(self) -> str:
        text = f"cannot send {self.path}: {self.culprit}"
        return f"{text} ({self.why})" if self.why else text


class ProtocolError(_WithFacts):
    """A connection carried something that makes no sense."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class MessageTooLarge(_WithFacts):
    """A message is over `init(max_message_size=...)`; both in bytes."""

    def __init__(self, size: int, limit: int) -> None:
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"a message of {self.size} bytes is over the limit of {self.limit}; "
            "send less at once or raise init(max_message_size=...)"
        )
