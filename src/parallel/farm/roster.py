"""A worker as the plan sees it: which tasks it has, and whether it can take more."""

from __future__ import annotations

import itertools
from collections import deque
from typing import NamedTuple

from .tasks import Job, Kind, Task

BATCH = 0.02
"""Seconds of work that a worker is given at once, and below which it is given more."""

AHEAD = 3
"""A task that takes less than so many batches has another one behind it, even if it is longer than
one: else the worker would wait for the next, 1 to 4 ms where all processors are busy."""

MOST = 512
"""Tasks that it is given at once."""

MOST_BYTES = 1 << 20
"""What it is given at once takes so much memory, if it is more than one task."""

_CHEAPEST = 5e-6
"""Seconds that the shortest task costs, with what is around it."""


class Held(NamedTuple):
    """A task that is with a worker, and the seconds that it was thought to take."""

    task: Task
    estimate: float
    place: int
    """Among all that the worker was ever sent; it reports in that order."""


class Worker:
    """One worker. The plan alone changes it."""

    __slots__ = (
        "alone", "busy", "done", "held", "kind", "lag", "load", "name", "own", "passed", "places",
        "retiring", "sent", "since", "sole", "taken", "worked",
    )  # fmt: skip

    def __init__(self, name: str, kind: Kind, now: float) -> None:
        self.name = name
        self.sole = (name,)
        """The holders of a task that it alone has."""
        self.kind = kind
        self.own: deque[Task] = deque()
        """Tasks for it alone that it has not been sent."""
        self.held: dict[int, Held] = {}
        """What it has been sent and not reported, in that order: the first is what it runs."""
        self.taken: dict[int, Held] = {}
        """What was taken back from it, but may have begun there."""
        self.places = itertools.count()
        self.passed = -1
        """The place of the last that it has run: what was taken back before will not begin."""
        self.busy = False
        """It has said that it is at the first that it has, and has begun no other."""
        self.load = 0.0
        """Seconds that all it holds will take."""
        self.since = now
        """When it was last heard of, or began to have something to do."""
        self.sent: float | None = None
        """When it was sent the tasks of which it has reported none."""
        self.lag = 0.0
        """Seconds that a message there and back takes: the least seen."""
        self.alone = False
        """It has a task that nothing may stand behind."""
        self.retiring = False
        self.done = 0
        """Tasks that it has run."""
        self.worked = 0.0
        """Seconds that they took."""

    def hold(self, tasks: list[Task], now: float) -> None:
        """It is sent these."""
        if not self.held:
            self.since = self.sent = now
        job = tasks[0].job
        estimate = estimated(job)
        for task in tasks:
            if task.job is not job:
                job = task.job
                estimate = estimated(job)
            self.held[task.id] = Held(task, estimate, next(self.places))
            self.load += estimate
            task.holders = (*task.holders, self.name) if task.holders else self.sole
            job.outstanding.add(task)
        self.alone = tasks[0].is_alone

    def let_go(self, number: int) -> Held | None:
        """It has this task no more: it has run it, or has been told not to."""
        held = self.held.pop(number, None)
        if held is None:
            taken = self.taken.pop(number, None)
            return taken if taken is not None and taken.place > self.passed else None
        self.load -= held.estimate
        task = held.task
        holders = task.holders
        rest = () if holders == self.sole else tuple(each for each in holders if each != self.name)
        task.holders = rest
        if not self.held:
            self.load = 0.0
            self.alone = False
        return held

    def take_back(self, task: Task) -> None:
        """It has been told not to run this one."""
        if held := self.let_go(task.id):
            self.taken[task.id] = held

    def has_run(self, number: int) -> Task | None:
        """It says so; the task, if it was to run it."""
        held = self.let_go(number)
        if held is None:
            return None
        if held.place > self.passed:
            self.passed = held.place
        return held.task

    def has_begun(self, number: int) -> Task | None:
        """It says so; the task, if it was to run it. It may have been taken back too late."""
        held = self.taken.pop(number, None)
        if held is not None and number not in self.held:
            self.held = {number: held, **self.held}
            self.load += held.estimate
            held.task.holders += (self.name,)
        found = self.held.get(number)
        return found.task if found is not None else None

    def heard(self, now: float, tasks: int, seconds: float) -> None:
        """It reports so many tasks, which took so long together."""
        self.done += tasks
        self.worked += seconds
        self._forget_passed()
        if tasks and self.sent is not None:  # that one is begun is said late, if it is a long one
            lag = max(0.0, now - self.sent - seconds)
            self.lag = min(self.lag, lag) if self.lag else lag
            self.sent = None
        self.since = now
        self.busy = False

    def _forget_passed(self) -> None:
        """Not with each result: that would take as long again for each task that was taken back."""
        if self.taken:
            self.taken = {key: each for key, each in self.taken.items() if each.place > self.passed}

    @property
    def running(self) -> Task | None:
        """The task that it runs, or is the last known to have run."""
        for held in self.held.values():
            return held.task
        return None

    @property
    def suspects(self) -> list[Task]:
        """Which tasks it may be running, as far as can be known from what it has said."""
        if self.busy:
            return [each.task for each in itertools.islice(self.held.values(), 1)]
        self._forget_passed()
        # One that was taken back and sent again is in both, and is suspected once.
        return [each.task for each in {**self.held, **self.taken}.values()]

    @property
    def waiting(self) -> list[Task]:
        """What stands behind that."""
        return [held.task for held in itertools.islice(self.held.values(), 1, None)]

    @property
    def batch(self) -> float:
        """Seconds of work in a batch: enough that the next one is there before it is done."""
        return max(BATCH, 2 * self.lag)

    @property
    def is_hungry(self) -> bool:
        """Whether it should get more, though it has something."""
        limit = AHEAD * self.batch if len(self.held) == 1 else self.batch
        return not self.alone and self.load <= limit

    def batch_of(self, job: Job) -> int:
        """How many of a job's tasks make a batch."""
        if job.mean is None:
            return 1
        most = min(MOST, MOST_BYTES / (job.size + 1))
        return max(1, int(min(self.batch / estimated(job), most)))


def estimated(job: Job) -> float:
    """Seconds that a task of this job will take; of the first, enough for a batch."""
    return BATCH if job.mean is None else max(job.mean, _CHEAPEST)
