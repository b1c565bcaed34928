"""Statistics: what a farm has done so far, counted where it costs nothing for each task."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from .stream import Stream

WINDOW = 10
"""Seconds of which the rate is the mean."""

MOST_FUNCTIONS = 1000
"""Functions that are told apart; what has run of others is counted as theirs together."""

OTHERS = "(others)"


class WorkerStatistics(NamedTuple):
    """A worker that is there."""

    name: str
    place: str
    done: int
    """Tasks that it has run, those included of which another one's copy was faster."""
    busy: float
    """Seconds that they took."""


class FunctionStatistics(NamedTuple):
    """A function that tasks call."""

    name: str
    done: int
    """Tasks that have run, those included that have raised something."""
    seconds: float
    """How long one took, the mean of all; 0.0 where none has run."""


class Statistics(NamedTuple):
    """What `Farm.statistics` returns."""

    done: int
    """Tasks that have a result, those included that came out of the journal."""
    failed: int
    """Tasks that have raised something, or ran for too long."""
    lost: int
    """Tasks that were given up when their worker was lost, or could run nowhere."""
    retried: int
    """How often a task was queued again that was lost with its worker."""
    recalled: int
    """Results that came out of the journal."""
    running: int
    """Tasks that are with workers."""
    waiting: int
    """Tasks that are with none."""
    seconds: float
    """Seconds that workers have computed for what has ended."""
    rate: float
    """Tasks that ended per second, of the last ten."""
    workers: tuple[WorkerStatistics, ...]
    """Those that are there."""
    functions: tuple[FunctionStatistics, ...]
    """In the order in which they were first used."""

    @property
    def ended(self) -> int:
        """Tasks of which nothing more will come."""
        return self.done + self.failed + self.lost


class Tally:
    """What a farm counts: the rare things, and calls when they end."""

    def __init__(self, now: float) -> None:
        self.failed = 0
        self.lost = 0
        self.retried = 0
        self.recalled = 0
        self._ended = 0
        """Tasks of calls that are over."""
        self._functions: dict[str, tuple[int, float]] = {}
        """Their tasks that have run, and how long all these took together."""
        self._samples = deque([(now, 0)], maxlen=WINDOW + 1)

    def ended(self, streams: Iterable[Stream]) -> int:
        """Tasks of which nothing more will come."""
        return self._ended + sum(stream.ended for stream in streams)

    def expected(self, streams: Iterable[Stream]) -> int | None:
        """How many there will be of them; None where that is not known."""
        total = self._ended
        for stream in streams:
            if stream.total is not None:
                total += stream.total
            elif stream.job.tasks:
                return None
            else:
                total += stream.ended
        return total

    def close(self, stream: Stream) -> None:
        """This call is over; what has not ended will not be counted."""
        self._ended += stream.ended
        self._add(self._functions, stream)

    def sample(self, streams: Iterable[Stream], now: float) -> None:
        """Called often; notes once a second how much has been done."""
        if now >= self._samples[-1][0] + 1.0:
            self._samples.append((now, self.ended(streams)))

    def summary(
        self,
        streams: Iterable[Stream],
        workers: tuple[WorkerStatistics, ...],
        now: float,
    ) -> Statistics:
        """All of it."""
        streams = list(streams)
        ended = self.ended(streams)
        functions = dict(self._functions)
        for stream in streams:
            self._add(functions, stream)
        begun, before = next(
            (each for each in self._samples if each[0] >= now - WINDOW - 1), self._samples[-1]
        )
        running = sum(len(stream.job.outstanding) for stream in streams)
        return Statistics(
            done=ended - self.failed - self.lost,
            failed=self.failed,
            lost=self.lost,
            retried=self.retried,
            recalled=self.recalled,
            running=running,
            waiting=sum(stream.job.tasks for stream in streams) - running,
            seconds=sum(seconds for _, seconds in functions.values()),
            rate=(ended - before) / (now - begun) if now > begun else 0.0,
            workers=workers,
            functions=tuple(
                FunctionStatistics(name, done, seconds / done if done else 0.0)
                for name, (done, seconds) in functions.items()
            ),
        )

    def _add(self, functions: dict[str, tuple[int, float]], stream: Stream) -> None:
        job = stream.job
        name = job.name if job.name in functions or len(functions) < MOST_FUNCTIONS else OTHERS
        done, seconds = functions.get(name, (0, 0.0))
        functions[name] = done + job.done, seconds + job.seconds
