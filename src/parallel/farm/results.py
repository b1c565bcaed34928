"""What users get of a task that has ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, NoReturn, TypeVar, cast

from ..errors import ParallelError

T = TypeVar("T")


class Done(NamedTuple, Generic[T]):
    """A task that has ended, one way or the other."""

    args: tuple[Any, ...]
    """What the function was called with."""
    value: T | None
    """What it returned."""
    error: BaseException | None
    """What it raised; or `TaskTimeout`, `TaskLost`, `NotSendable` and the like."""
    tag: Any
    """What the program gave along with it."""
    worker: str
    """The name of the worker that ran it."""
    seconds: float
    """How long it ran."""
    attempts: int
    """Workers that were lost with it before."""

    algorithm: Any = None
    """The `Algorithm` that it was submitted to."""

    def unwrap(self) -> T:
        """The value; raises the error in place of it."""
        if self.error is not None:
            raise self.error
        value: T = cast(T, self.value)  # there is one where there is no error
        return value

    def raise_error(self, name: str) -> NoReturn:
        """Raise the error, with a note that says which task had it."""
        assert self.error is not None
        if not isinstance(self.error, ParallelError):
            self.error.add_note(f"It was raised by {name} on the worker {self.worker!r}.")
        raise self.error


@dataclass(eq=False)
class TaskLost(ParallelError):
    """A task was lost with its worker and is not tried again.

    With `retry=True` it has taken `attempts` workers along: it is poison, or the machine is ill.
    `__cause__` says how the last of them ended.
    """

    task: str
    worker: str
    attempts: int

    def __str__(self) -> str:
        times = "once" if self.attempts == 1 else f"{self.attempts} times"
        return (
            f"{self.task} lost its worker {times}, the last one was {self.worker}; it is given up "
            "(attempts= says after how many, retry=False after the first)"
        )


@dataclass(eq=False)
class TaskTimeout(ParallelError):
    """A task ran for longer than its `timeout`, and its worker was killed."""

    task: str
    worker: str
    timeout: float

    def __str__(self) -> str:
        return f"{self.task} ran for longer than its timeout of {self.timeout:g} s on {self.worker}"


@dataclass(eq=False)
class TaskUnrunnable(ParallelError):
    """The worker that a task was for is gone, or never was."""

    task: str
    worker: str

    def __str__(self) -> str:
        return f"{self.task} was for the worker {self.worker!r}, which is not there"


def outcome(done: Done[Any]) -> str:
    """What became of a task: "ok", "failed", "timeout", "lost" or "unrunnable"."""
    match done.error:
        case None:
            return "ok"
        case TaskTimeout():
            return "timeout"
        case TaskLost():
            return "lost"
        case TaskUnrunnable():
            return "unrunnable"
        case _:
            return "failed"


@dataclass(eq=False)
class NoWorkers(ParallelError):
    """A farm has lost its last worker, and there is no place for another.

    `__cause__` says how it ended.
    """

    place: str

    def __str__(self) -> str:
        return f"the farm has no worker left: the last one was on {self.place!r}"
