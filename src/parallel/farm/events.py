"""Events: what a farm tells those who watch it, as it happens."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from .results import Done
from .tasks import Task


class WorkerJoined(NamedTuple):
    """A worker is ready."""

    worker: str
    place: str
    """Where it runs: its host."""


class WorkerLeft(NamedTuple):
    """A worker is gone: by itself where there is a reason, else because it was no longer wanted."""

    worker: str
    place: str
    reason: BaseException | None


class TasksSent(NamedTuple):
    """A worker got these tasks."""

    worker: str
    tasks: list[Task]


class TaskRetried(NamedTuple):
    """A task was lost with this worker, and is queued again."""

    worker: str
    task: Task


class TaskEnded(NamedTuple):
    """A task has ended, one way or the other."""

    worker: str
    task: Task
    done: Done[Any]


class TaskRecalled(NamedTuple):
    """What came of a task was in the journal; no worker has run it."""

    task: Task
    done: Done[Any]


Event: TypeAlias = WorkerJoined | WorkerLeft | TasksSent | TaskRetried | TaskEnded | TaskRecalled
