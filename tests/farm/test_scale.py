"""The plan with many workers and many tasks: what an event costs, and what a task does."""

from __future__ import annotations

import itertools
import statistics
import sys
import time
import tracemalloc
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from parallel.farm.instructions import Finished, Instruction, Send
from parallel.farm.plan import PATROL, Plan
from parallel.farm.tasks import DEFAULT_POLICY, Job, Kind, Policy, Result, Task

NUMBERS = itertools.count()


def plan_of(workers: int) -> Plan:
    plan = Plan()
    for number in range(workers):
        plan.join(f"w{number}", Kind.INTERMINGLED, 0.0)
    return plan


def known(seconds: float) -> Job:
    """A job whose tasks are known to take so long."""
    job = Job(0)
    job.measured(seconds)
    return job


def tasks_of(job: Job, count: int, policy: Policy = DEFAULT_POLICY) -> list[Task]:
    return [Task(next(NUMBERS), job, (), policy) for _ in range(count)]


def steps(event: Callable[[], object]) -> int:
    """Lines that run until this has been seen to: the same each time, whoever has the processor."""
    count = 0

    def trace(*_: object) -> Any:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        event()
    finally:
        sys.settrace(before)
    return count


def steps_of_each_event(workers: int) -> dict[str, int]:
    """Of all the kinds that there are, while all workers are busy and towards the end."""
    plan = plan_of(workers)
    job, long = known(0.005), known(1.0)
    first = plan.submit(tasks_of(job, 20 * workers), 0.0)
    held = {each.worker: each.tasks for each in first if isinstance(each, Send)}
    found: dict[str, int] = {}

    def report(name: str, count: int, now: float) -> list[Instruction]:
        results = [Result(number, None, 0.005) for number in plan.holds(name)[:count]]
        return plan.report(name, results, None, now)

    def note(name: str, event: Callable[[], object]) -> None:
        found[name] = steps(event)

    note("report", lambda: report("w5", 1, 0.01))
    note("lose", lambda: plan.lose("w6", 0.01))
    note("join", lambda: plan.join("new", Kind.INTERMINGLED, 0.02))
    note("retire", lambda: plan.retire("w7", 0.02))
    note("submit", lambda: plan.submit(tasks_of(job, 1), 0.02))
    own = Task(next(NUMBERS), job, (), DEFAULT_POLICY, "w9")
    note("submit for one", lambda: plan.submit([own], 0.02))
    note("submit alone", lambda: plan.submit(tasks_of(job, 1, Policy(retry=False)), 0.02))
    note("miss", lambda: plan.miss("w10", [held["w10"][0].id], 0.02))
    note("unsent", lambda: plan.unsent("w11", [held["w11"][0].id], 0.02))
    note("tick", lambda: plan.tick(0.02))
    note("wanted", lambda: plan.wanted(job))

    plan = plan_of(workers)
    plan.submit(tasks_of(job, 4 * (workers - 1)), 0.0)  # some wait, and somebody will be idle
    note("report of all", lambda: report("w3", 100, 0.01))
    plan = plan_of(workers)
    plan.submit(tasks_of(long, workers - 1), 0.0)
    note("look for stragglers", lambda: plan.tick(1.0 + PATROL))
    note("copy one", lambda: plan.tick(10.0))
    return found


@pytest.mark.slow
def test_no_kind_of_event_takes_more_steps_with_10000_workers_than_with_100() -> None:
    assert steps_of_each_event(10_000) == steps_of_each_event(100)


def drive(workers: int, tasks: int) -> float:
    """Median seconds of an event while so many workers run so many tasks."""
    plan = plan_of(workers)
    job = known(0.005)
    waiting: deque[Send] = deque()

    def note(out: list[Instruction]) -> int:
        waiting.extend(each for each in out if isinstance(each, Send))
        return sum(isinstance(each, Finished) for each in out)

    note(plan.submit(tasks_of(job, tasks), 0.0))
    now, done, times = 0.0, 0, []
    clock = time.perf_counter
    while waiting:
        name, batch = waiting.popleft()
        now += 0.005 * len(batch) / workers
        results = [Result(task.id, None, 0.005) for task in batch]
        start = clock()
        out = plan.report(name, results, None, now)
        times.append(clock() - start)
        done += note(out)
        del out
    assert done == tasks
    return statistics.median(times)


@pytest.mark.slow
def test_an_event_costs_no_more_with_10000_workers_and_a_million_tasks_than_with_100() -> None:
    few, many = drive(100, 20_000), drive(10_000, 1_000_000)
    assert many < 2 * few  # more memory is further away, and that is all


BYTES_PER_TASK = 200
"""That a task takes which waits, a little more than `plan` says; its arguments are not counted."""


def test_a_task_that_waits_takes_little_memory() -> None:
    job = Job(0)
    plan = plan_of(1)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        plan.submit((Task(number, job, ()) for number in range(100_000)), 0.0)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    per_task = (after - before) / 100_000
    assert per_task < BYTES_PER_TASK, per_task
