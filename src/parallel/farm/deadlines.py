"""Deadlines: when workers are killed that are still at the task that they are at now. Pure."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from .roster import Worker
from .tasks import Task

_SPARE = 64
"""Those that may have become void, beside one for each worker."""


class Deadline(NamedTuple):
    """When a worker is killed that is still at this task then."""

    when: float
    number: int
    worker: str
    task: Task


class Deadlines:
    """Those of all workers. Most become void, for their tasks end in time."""

    def __init__(self, workers: Mapping[str, Worker]) -> None:
        self._workers = workers
        self._heap: list[Deadline] = []
        self._numbers = itertools.count()

    @property
    def first(self) -> float:
        """When the first one comes."""
        return self._heap[0].when if self._heap else math.inf

    def add(self, worker: Worker, task: Task, when: float) -> None:
        """One more. Those that are void go now and then, and with them what they refer to."""
        heapq.heappush(self._heap, Deadline(when, next(self._numbers), worker.name, task))
        if len(self._heap) > 2 * len(self._workers) + _SPARE:
            heap = sorted(self._heap, reverse=True)
            earliest = {(each.worker, each.task.id): each for each in heap}
            self._heap = sorted(each for each in earliest.values() if self._is_due(each))

    def over(self, now: float) -> Iterator[tuple[Worker, Task]]:
        """Who is to be killed now, and for which task."""
        while self._heap and self._heap[0].when <= now:
            deadline = heapq.heappop(self._heap)
            if self._is_due(deadline):
                yield self._workers[deadline.worker], deadline.task

    def _is_due(self, deadline: Deadline) -> bool:
        worker = self._workers.get(deadline.worker)
        return worker is not None and worker.running is deadline.task
