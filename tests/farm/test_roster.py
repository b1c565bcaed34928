"""A worker as the plan sees it."""

from __future__ import annotations

import numpy as np

from parallel.farm.roster import BATCH, MOST, MOST_BYTES, Worker
from parallel.farm.tasks import Job, Kind, Task, roughly_bytes


def worker_with(count: int, seconds: float = 0.001) -> tuple[Worker, list[Task]]:
    worker = Worker("a", Kind.INTERMINGLED, 0.0)
    job = Job(0)
    job.measured(seconds)
    tasks = [Task(number, job, ()) for number in range(count)]
    worker.hold(tasks, 0.0)
    return worker, tasks


def test_it_runs_the_first_of_what_it_holds() -> None:
    worker, tasks = worker_with(3)
    assert worker.running is tasks[0] and worker.waiting == tasks[1:]
    assert worker.has_run(0) is tasks[0]
    assert worker.running is tasks[1]
    assert tasks[0].holders == () and tasks[1].holders == ("a",)


def test_what_was_taken_back_may_have_run_until_something_later_has() -> None:
    worker, tasks = worker_with(5)
    worker.take_back(tasks[3])
    worker.take_back(tasks[1])
    assert worker.has_run(2) is tasks[2]
    assert tasks[3] in worker.suspects and tasks[1] not in worker.suspects
    assert worker.has_run(3) is tasks[3]
    assert worker.has_run(3) is None


def test_what_was_taken_back_is_not_looked_through_with_each_result() -> None:
    worker, tasks = worker_with(5)
    worker.take_back(tasks[4])
    taken = worker.taken
    for task in tasks[:4]:
        assert worker.has_run(task.id) is task
    assert worker.taken is taken


def test_what_was_taken_back_and_has_begun_is_its_own_again() -> None:
    worker, tasks = worker_with(3)
    worker.take_back(tasks[1])
    assert worker.has_begun(1) is tasks[1]
    assert worker.running is tasks[1] and tasks[1].holders == ("a",)
    assert worker.has_begun(17) is None


def test_a_batch_is_bounded_in_seconds_in_number_and_in_bytes() -> None:
    worker, _ = worker_with(1)
    for seconds, size, count in (
        (BATCH / 4, 0, 4),
        (BATCH * 4, 0, 1),
        (1e-9, 0, MOST),
        (1e-9, MOST_BYTES // 8 - 100, 8),
        (1e-9, MOST_BYTES * 8, 1),
    ):
        job = Job(0)
        job.measured(seconds, bytes(size))
        assert worker.batch_of(job) == count
    assert worker.batch_of(Job(1)) == 1, "of which nothing is known"


def test_a_far_worker_has_larger_batches() -> None:
    worker, _ = worker_with(1)
    worker.heard(1.5, 1, 0.5)
    assert worker.batch == 2.0


class Strange:
    @property
    def nbytes(self) -> int:
        raise LookupError

    def __sizeof__(self) -> int:
        raise LookupError


def test_values_are_weighed_roughly() -> None:
    itself: list[object] = []
    itself.append(itself)
    assert roughly_bytes(itself) > 0
    assert roughly_bytes(Strange()) == 0
    assert roughly_bytes({"a": [np.zeros(1000), np.zeros(1000)]}) == 16_000
    assert roughly_bytes([bytes(1000)] * 1000) > 1_000_000


def test_one_that_could_not_be_read_keeps_nothing_from_being_run_before_it() -> None:
    worker, tasks = worker_with(3)
    assert worker.has_run(1) is tasks[1]  # as the farm says of it, before the worker is so far
    assert worker.has_run(0) is tasks[0]
    assert worker.has_run(2) is tasks[2]
