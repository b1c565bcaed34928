"""`parallel.farm.backlog`: who is next."""

from __future__ import annotations

import itertools

from parallel.farm.backlog import Backlog
from parallel.farm.tasks import DEFAULT_POLICY, Job, Policy, Task

ALONE = Policy(retry=False)
NUMBERS = itertools.count()


def filled(*wanted: tuple[Job, Policy]) -> tuple[Backlog, list[Task]]:
    backlog = Backlog()
    tasks = [Task(next(NUMBERS), job, (), policy) for job, policy in wanted]
    for task in tasks:
        backlog.put(task)
    return backlog, tasks


def test_jobs_take_turns() -> None:
    one, other = Job(0), Job(1)
    backlog, tasks = filled(*[(one, DEFAULT_POLICY)] * 3, (other, DEFAULT_POLICY))
    assert backlog.next_job is one
    assert backlog.take(one, 2) == tasks[:2]
    assert backlog.next_job is other
    assert backlog.take(other, 1) == tasks[3:]
    assert backlog.next_job is one


def test_those_that_go_alone_and_batches_take_turns() -> None:
    job = Job(0)
    backlog, tasks = filled((job, DEFAULT_POLICY), (job, ALONE), (job, DEFAULT_POLICY))
    assert backlog.next_job is None and backlog.take_one_alone() is tasks[1]
    assert not backlog.has_one_alone
    assert backlog.take(job, 1) == tasks[:1]
    backlog.put(tasks[1])
    assert backlog.next_job is None


def test_what_is_put_in_front_is_next() -> None:
    job = Job(0)
    backlog, tasks = filled((job, DEFAULT_POLICY))
    first = Task(next(NUMBERS), job, ())
    backlog.put(first, in_front=True)
    assert backlog.take(job, 2) == [first, *tasks]
    assert not backlog


def test_of_a_dropped_job_nothing_is_left() -> None:
    one, other = Job(0), Job(1)
    backlog, tasks = filled((one, DEFAULT_POLICY), (one, ALONE), (other, ALONE))
    backlog.drop(one)
    assert backlog.next_job is None
    assert backlog.take_one_alone() is tasks[2]
    assert not backlog
