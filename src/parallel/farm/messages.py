"""What a farm and its workers say to each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from ..failure import Failure
from .tasks import Result


class Define(NamedTuple):
    """The tasks of this job run this function."""

    job: int
    fn: Callable[..., Any]


class Forget(NamedTuple):
    """No task of this job will come any more."""

    job: int


class Run(NamedTuple):
    """Run these tasks of one job, in this order, after those sent before."""

    job: int
    tasks: list[int]
    arguments: list[tuple[Any, ...]]
    timed: bool
    """Report when each one is begun, before it is."""


class Drop(NamedTuple):
    """Do not run those of these tasks that you have not begun, nor said to have begun."""

    tasks: list[int]


class Ask(NamedTuple):
    """Report, even if there is nothing to report."""


Order: TypeAlias = Define | Forget | Run | Drop | Ask


class Report(NamedTuple):
    """What came of tasks, in the order in which they were sent; and what is begun after them."""

    results: list[Result]
    begun: int | None = None
    """It will be run, whatever the farm says from now on."""
    busy: bool = False
    """No other is begun before the next report."""
    read: int = 0
    """So many of the farm's messages have been read."""

    def __reduce__(self) -> tuple[Any, ...]:
        """By columns: one named tuple after the other takes ten times as long to pickle."""
        return _report, (list(zip(*self.results, strict=True)), self.begun, self.busy, self.read)


def _report(columns: list[tuple[Any, ...]], begun: int | None, busy: bool, read: int) -> Report:
    return Report(list(map(Result._make, zip(*columns, strict=True))), begun, busy, read)


class Unreadable(NamedTuple):
    """The message with this number (from 0) could not be unpickled."""

    number: int
    error: Failure


Answer: TypeAlias = Report | Unreadable
