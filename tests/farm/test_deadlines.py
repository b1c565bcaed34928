"""Deadlines of workers."""

from __future__ import annotations

import math

from parallel.farm.deadlines import Deadlines
from parallel.farm.roster import Worker
from parallel.farm.tasks import Job, Kind, Task


def test_only_who_is_still_at_its_task_is_over_it() -> None:
    worker = Worker("a", Kind.INTERMINGLED, 0.0)
    first, second = (Task(number, Job(0), ()) for number in range(2))
    worker.hold([first, second], 0.0)
    deadlines = Deadlines({"a": worker})
    assert deadlines.first == math.inf
    deadlines.add(worker, first, 1.0)
    deadlines.add(worker, second, 2.0)
    assert deadlines.first == 1.0
    worker.has_run(0)
    assert list(deadlines.over(1.5)) == []
    assert list(deadlines.over(2.0)) == [(worker, second)]


def test_of_two_for_one_task_the_earlier_one_stays() -> None:
    worker = Worker("a", Kind.INTERMINGLED, 0.0)
    task = Task(0, Job(0), ())
    worker.hold([task], 0.0)
    deadlines = Deadlines({"a": worker})
    for number in range(1000):
        deadlines.add(worker, task, 1.0 + number % 10)
    assert deadlines.first == 1.0 and len(deadlines._heap) < 100
