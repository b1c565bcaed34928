"""The plan's instructions: what the farm is to do next."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from .tasks import Result, Task


class Send(NamedTuple):
    """Give the worker these tasks, to be run in this order."""

    worker: str
    tasks: list[Task]


class Skip(NamedTuple):
    """Tell the worker not to run those of these tasks that it has not begun."""

    worker: str
    tasks: list[int]


class Kill(NamedTuple):
    """End the worker at once: what it runs is of no use any more. Another takes its place."""

    worker: str


class Release(NamedTuple):
    """Let the worker go: it has nothing left to do and will get nothing more."""

    worker: str


class Finished(NamedTuple):
    """The task has run; here is what came of it, once."""

    task: Task
    result: Result
    worker: str


class TimedOut(NamedTuple):
    """The task ran for longer than it may; its worker is killed."""

    task: Task
    worker: str


class GivenUp(NamedTuple):
    """The task was lost with its worker and is not tried again."""

    task: Task
    worker: str


class Unrunnable(NamedTuple):
    """The worker that the task was for is lost, or never was."""

    task: Task


class Retried(NamedTuple):
    """The task was lost with its worker and will be run again. Nothing is to be done."""

    task: Task
    worker: str


Instruction: TypeAlias = (
    Send | Skip | Kill | Release | Finished | TimedOut | GivenUp | Unrunnable | Retried
)
