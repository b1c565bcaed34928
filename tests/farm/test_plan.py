"""The plan alone: each rule, then all of them with simulated workers and faults."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from parallel.farm.instructions import (
    Finished,
    GivenUp,
    Instruction,
    Kill,
    Release,
    Retried,
    Send,
    Skip,
    TimedOut,
    Unrunnable,
)
from parallel.farm.plan import PATIENCE, SILENCE, Plan
from parallel.farm.tasks import DEFAULT_POLICY, Job, Kind, Policy, Result, Task

from ..support import examples
from .simulation import FOREVER, Deed, World

ALONE = Policy(retry=False)
NUMBERS = iter(range(1 << 40))


def tasks_of(job: Job, count: int, policy: Policy = DEFAULT_POLICY) -> list[Task]:
    return [Task(next(NUMBERS), job, (), policy) for _ in range(count)]


def known(seconds: float) -> Job:
    """A job whose tasks are known to take so long."""
    job = Job(0)
    job.measured(seconds)
    return job


def sent(instructions: list[Instruction]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for each in instructions:
        if isinstance(each, Send):
            found.setdefault(each.worker, []).extend(task.id for task in each.tasks)
    return found


def plan_with(*names: str, kind: Kind = Kind.INTERMINGLED, backups: bool = True) -> Plan:
    plan = Plan(backups=backups)
    for name in names:
        assert plan.join(name, kind, 0.0) == []
    return plan


def ran(plan: Plan, name: str, tasks: list[Task], now: float, **more: object) -> list[Instruction]:
    begun = more.get("begun")
    assert begun is None or isinstance(begun, Task)
    results = [Result(task.id, None, 0.001) for task in tasks]
    number = begun.id if begun is not None else None
    return plan.report(name, results, number, now, busy=bool(more.get("busy")))


def test_the_first_tasks_of_a_job_go_one_by_one() -> None:
    plan = plan_with("a", "b")
    out = sent(plan.submit(tasks_of(Job(0), 10), 0.0))
    assert {name: len(numbers) for name, numbers in out.items()} == {"a": 2, "b": 2}


def test_short_tasks_travel_in_batches_and_long_ones_alone() -> None:
    plan = plan_with("a")
    batches = plan.submit(tasks_of(known(1 / 1024), 1000), 0.0)
    assert [len(each.tasks) for each in batches if isinstance(each, Send)] == [20, 20]
    plan = plan_with("a")
    batches = plan.submit(tasks_of(known(10.0), 1000), 0.0)
    assert [len(each.tasks) for each in batches if isinstance(each, Send)] == [1]


def test_a_batch_is_no_larger_than_memory_allows() -> None:
    job = Job(0)
    job.measured(0.001, bytes(1 << 19))
    assert job.size > 1 << 19
    plan = plan_with("a")
    batches = plan.submit(tasks_of(job, 1000), 0.0)
    assert all(len(each.tasks) == 1 for each in batches if isinstance(each, Send))
    assert plan.wanted(job) == 4


def test_a_task_without_retry_goes_alone_and_is_lost_with_its_worker() -> None:
    plan = plan_with("a")
    first, second = tasks_of(known(0.001), 2, ALONE)
    assert sent(plan.submit([first, second], 0.0)) == {"a": [first.id]}
    out = plan.lose("a", 1.0)
    assert out == [GivenUp(first, "a")]
    assert sent(plan.join("b", Kind.INTERMINGLED, 2.0)) == {"b": [second.id]}


def test_whoever_may_have_run_when_its_worker_was_lost_goes_alone_then() -> None:
    plan = plan_with("a")
    tasks = tasks_of(known(0.001), 3)
    plan.submit(tasks, 0.0)
    out = plan.lose("a", 1.0)
    assert [each.task for each in out if isinstance(each, Retried)] == tasks
    for task in tasks:
        out = plan.join(f"b{task.id}", Kind.INTERMINGLED, 2.0)
        assert sent(out) == {f"b{task.id}": [task.id]}


def test_only_the_one_that_the_worker_was_busy_with_is_blamed() -> None:
    plan = plan_with("a")
    first, second, third = tasks = tasks_of(known(0.001), 3)
    plan.submit(tasks, 0.0)
    ran(plan, "a", [first], 0.01, begun=second, busy=True)
    assert plan.lose("a", 1.0) == [Retried(second, "a")]
    assert (first.attempts, second.attempts, third.attempts) == (0, 1, 0)


def test_who_was_with_two_lost_workers_and_may_have_run_on_neither_is_suspected_once() -> None:
    plan = plan_with("a")
    tasks = tasks_of(known(0.005), 5, Policy(attempts=2))
    plan.submit(tasks, 0.0)
    moved = sent(plan.join("b", Kind.INTERMINGLED, 0.0))["b"]
    assert len(moved) > 1
    for name in ("a", "b"):
        assert not any(isinstance(each, GivenUp) for each in plan.lose(name, 1.0))
    assert {task.attempts for task in tasks} == {1}
    for number in range(len(tasks)):
        name = f"c{number}"
        (alone,) = sent(plan.join(name, Kind.INTERMINGLED, 2.0))[name]
        (verdict,) = plan.lose(name, 3.0)
        assert isinstance(verdict, GivenUp) and verdict.task.id == alone


def test_a_task_is_given_up_after_its_attempts() -> None:
    plan = Plan()
    (task,) = tasks_of(Job(0), 1)
    plan.submit([task], 0.0)
    for name, expected in (("a", Retried), ("b", Retried), ("c", GivenUp)):
        assert sent(plan.join(name, Kind.INTERMINGLED, 0.0)) == {name: [task.id]}
        (verdict,) = plan.lose(name, 1.0)
        assert isinstance(verdict, expected)
    assert plan.join("d", Kind.INTERMINGLED, 0.0) == []


def test_the_loss_table() -> None:
    job = Job(0)
    anyway = Policy(do_it_anyway=True)
    for policy, after in ((DEFAULT_POLICY, Unrunnable), (anyway, Retried)):
        plan = plan_with("a", kind=Kind.ORDERED)
        task = Task(next(NUMBERS), job, (), policy, "a")
        assert sent(plan.submit([task], 0.0)) == {"a": [task.id]}
        (verdict,) = plan.lose("a", 1.0)
        assert isinstance(verdict, after)
        late = Task(next(NUMBERS), job, (), policy, "a")
        assert plan.submit([late], 1.0) == ([] if policy is anyway else [Unrunnable(late)])
        never = Task(next(NUMBERS), job, (), policy, "nobody")
        assert plan.submit([never], 1.0) == [Unrunnable(never)]


def test_a_task_that_is_for_one_worker_and_goes_alone_gets_its_turn_there() -> None:
    plan = plan_with("a")
    job = known(0.02)
    public = tasks_of(job, 50)
    plan.submit(public, 0.0)
    own = Task(next(NUMBERS), job, (), ALONE, "a")
    assert plan.submit([own], 0.0) == []
    assert sent(ran(plan, "a", public[:1], 0.02)) == {}
    assert sent(ran(plan, "a", public[1:2], 0.04)) == {"a": [own.id]}


def test_an_idle_worker_takes_half_of_what_waits_elsewhere() -> None:
    plan = plan_with("a")
    tasks = tasks_of(known(0.005), 5)
    plan.submit(tasks, 0.0)
    out = plan.join("b", Kind.INTERMINGLED, 0.0)
    (skip,) = (each for each in out if isinstance(each, Skip))
    assert {"b": skip.tasks} == sent(out)
    assert skip.tasks == [task.id for task in tasks[-len(skip.tasks) :]]


def test_what_was_taken_back_too_late_counts_when_it_is_first() -> None:
    plan = plan_with("a")
    tasks = tasks_of(known(0.005), 4)
    plan.submit(tasks, 0.0)
    out = plan.join("b", Kind.INTERMINGLED, 0.0)
    (skip,) = (each for each in out if isinstance(each, Skip))
    taken = next(task for task in tasks if task.id in skip.tasks)
    before = tasks[: tasks.index(taken)]
    out = ran(plan, "a", [*before, taken], 0.02)
    assert [each.task for each in out if isinstance(each, Finished)] == [*before, taken]


def test_what_was_taken_back_too_late_and_is_wanted_no_more_is_ended() -> None:
    plan = plan_with("a")
    first, second = tasks = tasks_of(known(0.005), 2)
    plan.submit(tasks, 0.0)
    plan.cancel(first.job, 0.001)
    assert ran(plan, "a", [first], 0.002, begun=second, busy=True) == []
    assert plan.tick(0.002 + SILENCE) == [Kill("a")]


def test_what_was_taken_back_and_sent_again_is_blamed_once_for_one_loss() -> None:
    plan = plan_with("a")
    tasks = tasks_of(known(0.005), 5)
    plan.submit(tasks, 0.0)
    plan.join("b", Kind.INTERMINGLED, 0.0)
    assert tasks[-1].holders == ("b",)
    plan.retire("b", 0.001)
    assert tasks[-1].holders == ("a",)
    plan.lose("a", 1.0)
    assert tasks[-1].attempts == 1


def test_what_was_taken_back_too_late_and_was_cancelled_while_it_waited_has_no_outcome() -> None:
    plan = plan_with("a")
    tasks = tasks_of(known(0.005), 5)
    plan.submit(tasks, 0.0)
    plan.join("b", Kind.INTERMINGLED, 0.0)
    job = tasks[0].job
    taken = next(task for task in tasks if task.holders == ("b",))
    plan.join("c", Kind.ORDERED, 0.0)
    plan.lose("b", 0.001)  # it waits to go alone
    assert not taken.holders
    plan.cancel(job, 0.002)
    assert not [each for each in ran(plan, "a", [taken], 0.003) if isinstance(each, Finished)]
    assert job.tasks == 0


def test_who_may_only_be_slow_to_answer_has_more_time_to_end_what_nobody_wants() -> None:
    plan = plan_with("a")
    (task,) = tasks_of(known(0.005), 1)
    plan.submit([task], 0.0)
    plan.cancel(task.job, 0.0)
    assert plan.tick(2 * SILENCE) == []
    assert plan.tick(PATIENCE) == [Kill("a")]


def test_a_straggler_is_copied_and_the_first_result_counts() -> None:
    plan = plan_with("a", "b")
    slow, quick = tasks_of(known(0.3), 2)
    plan.submit([slow, quick], 0.0)
    ran(plan, "b", [quick], 0.3)
    assert sent(plan.tick(2.0)) == {"b": [slow.id]}
    out = ran(plan, "b", [slow], 2.3)
    assert [each.task for each in out if isinstance(each, Finished)] == [slow]
    assert plan.tick(2.3 + SILENCE) == [Kill("a")]


def test_without_backups_no_task_is_copied() -> None:
    plan = plan_with("a", "b", backups=False)
    slow, quick = tasks_of(known(0.3), 2)
    plan.submit([slow, quick], 0.0)
    ran(plan, "b", [quick], 0.3)
    assert plan.tick(100.0) == []


def test_a_task_over_its_timeout_is_ended_and_what_stood_behind_it_goes_on() -> None:
    plan = plan_with("a")
    tasks = tasks_of(known(0.001), 3, Policy(timeout=1.0))
    plan.submit(tasks, 0.0)
    ran(plan, "a", [], 0.0, begun=tasks[0], busy=True)
    assert plan.deadline == 1.0
    assert plan.tick(1.0) == [TimedOut(tasks[0], "a"), Kill("a")]
    assert [task.attempts for task in tasks] == [0, 0, 0]
    assert sent(plan.join("b", Kind.INTERMINGLED, 2.0)) == {"b": [task.id for task in tasks[1:]]}


def test_deadlines_that_have_become_void_are_forgotten() -> None:
    plan = plan_with("a")
    tasks = tasks_of(known(0.02), 1000, Policy(timeout=3600.0))
    plan.submit(tasks, 0.0)
    for number, task in enumerate(tasks[:-1]):
        ran(plan, "a", [task], number * 0.02, begun=tasks[number + 1], busy=True)
    assert len(plan._deadlines._heap) < 100


def test_tasks_of_a_cancelled_job_go_nowhere() -> None:
    plan = Plan()
    job = Job(0)
    plan.join("a", Kind.ORDERED, 0.0)
    anyway = [
        Task(next(NUMBERS), job, (), Policy(do_it_anyway=True, retry=False), "a") for _ in range(3)
    ]
    plan.submit(anyway, 0.0)
    plan.cancel(job, 0.0)
    plan.lose("a", 1.0)
    assert plan.submit(tasks_of(job, 3), 1.0) == []
    assert sent(plan.join("b", Kind.INTERMINGLED, 2.0)) == {}
    assert job.tasks == 0


def test_a_worker_that_was_not_sent_what_nobody_wants_is_free_again() -> None:
    plan = plan_with("a")
    (task,) = tasks_of(known(0.001), 1)
    plan.submit([task], 0.0)
    plan.cancel(task.job, 0.0)
    plan.unsent("a", [task.id], 0.0)
    assert plan.tick(10.0) == []
    (other,) = tasks_of(Job(1), 1)
    assert sent(plan.submit([other], 10.0)) == {"a": [other.id]}


def test_who_retires_hands_back_what_waits_and_goes_when_it_is_done() -> None:
    plan = plan_with("a")
    tasks = tasks_of(known(0.005), 4)
    plan.submit(tasks, 0.0)
    plan.retire("a", 0.0)
    assert ran(plan, "a", tasks[:1], 0.01)[-1] == Release("a")
    assert sent(plan.join("b", Kind.INTERMINGLED, 1.0))["b"][0] == tasks[1].id


SECONDS = st.sampled_from([1e-5, 1e-4, 1e-3, 5e-3, 0.03, 0.5])
POLICIES = st.builds(
    Policy,
    retry=st.booleans(),
    attempts=st.integers(1, 3),
    do_it_anyway=st.booleans(),
    timeout=st.sampled_from([None, None, 2.0]),
)
DEEDS = st.builds(
    Deed,
    seconds=SECONDS,
    policy=st.just(DEFAULT_POLICY) | POLICIES,
    worker=st.sampled_from([None, None, None, None, "w0", "w1", "nobody"]),
    kills=st.sampled_from([False] * 15 + [True]),
    holds_lock=st.sampled_from([False] * 5 + [True]),
    job=st.integers(0, 1),
)


@st.composite
def worlds(draw: st.DrawFn, kills: bool = True) -> World:
    """Tasks, workers and what goes wrong; `kills`: workers die by chance, too."""
    repeat = draw(st.sampled_from([1, 1, 5, 40]))
    deeds = draw(st.lists(DEEDS, min_size=1, max_size=20)) * repeat
    for deed in deeds:
        if deed.kills and repeat > 1:
            deed.kills = False
    if draw(st.booleans()):
        deeds.append(Deed(FOREVER, Policy(timeout=1.0)))
    world = World(deeds, backups=draw(st.booleans()), seed=draw(st.integers(0, 1 << 16)))
    moments = st.floats(0, 1)
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from([Kind.INTERMINGLED, Kind.INTERMINGLED, *Kind]))
        speed = draw(st.sampled_from([1.0, 1.0, 1.0, 10.0]))
        delay = draw(st.sampled_from([1e-5, 1e-4, 1e-3, 0.02]))
        world.join(kind, speed, delay)
    world.at(0.0, lambda: world.join())
    half = len(deeds) // 2
    world.at(0.0, lambda: world.submit(world.tasks[:half]))
    world.at(draw(moments), lambda: world.submit(world.tasks[half:]))
    for moment in draw(st.lists(moments, max_size=5)) if kills else ():
        world.at(moment, world.kill_one)
    for moment in draw(st.lists(moments, max_size=2)):
        world.at(moment, world.retire_one)
        world.at(moment, world.join)
    return world


@examples(400)
@given(worlds())
def test_every_task_ends_exactly_once_and_as_its_policy_says(world: World) -> None:
    world.run()
    for task, deed, outcome in zip(world.tasks, world.deeds, world.outcomes, strict=True):
        (verdict,) = outcome.verdicts
        policy = deed.policy
        match verdict:
            case Finished(_, result, _):
                assert result.value == ("value", task.id)
                assert not deed.kills and deed.seconds != FOREVER
            case TimedOut():
                assert policy.timeout is not None
                assert deed.seconds * 10 > policy.timeout
            case GivenUp():
                assert outcome.suspected >= (policy.attempts if policy.retry else 1)
            case Unrunnable():
                assert deed.worker is not None
                assert not policy.do_it_anyway or deed.worker in world.refusing
        if not policy.retry:
            assert outcome.begun <= 1
    assert all(job.tasks == 0 and not job.outstanding for job in world.jobs.values())


@examples(400)
@given(worlds(kills=False))
def test_no_innocent_task_is_given_up(world: World) -> None:
    """Where no worker is lost but by its task, however many others it had then."""
    world.run()
    for deed, outcome in zip(world.deeds, world.outcomes, strict=True):
        (verdict,) = outcome.verdicts
        if isinstance(verdict, GivenUp) and deed.policy.retry and deed.policy.attempts > 1:
            assert deed.kills


@examples(200)
@given(worlds(), st.floats(0, 1))
def test_of_a_cancelled_job_nothing_is_left_with_anybody(world: World, moment: float) -> None:
    world.at(moment, lambda: world.do(world.plan.cancel(world.jobs[world.deeds[0].job], world.now)))
    world.run()
    for outcome in world.outcomes:
        assert len(outcome.verdicts) <= 1
    for job in world.jobs.values():
        assert job.tasks == 0 and not job.outstanding
    for name in world.at_work:
        assert world.plan.holds(name) == []


@pytest.mark.parametrize("position", [0, 7, 39])
@pytest.mark.parametrize("holds_lock", [False, True])
def test_poison_in_company_takes_along_one_worker_more_than_alone_at_most(
    position: int, holds_lock: bool
) -> None:
    deeds = [Deed(0.0005) for _ in range(200)]
    deeds[position] = Deed(0.3, kills=True, holds_lock=holds_lock)
    world = World(deeds)
    world.join()
    world.join()
    world.submit()
    world.run()
    for number, outcome in enumerate(world.outcomes):
        (verdict,) = outcome.verdicts
        assert isinstance(verdict, GivenUp if number == position else Finished)
    # Where another worker had just taken it over, it cannot be told from those around it.
    assert world.outcomes[position].begun in ((3, 4) if holds_lock else (3,))
