"""`lineage`: who owns whom, who is killed with whom, and by when."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel._host.lineage import ROOT, Deadlines, Process
from parallel._wire.requests import Exited, Gone

from .support import examples


def process(number: int, owner: Process | None = None) -> Process:
    """A process n has the pid 1000 + n, and was asked for with a request of that number."""
    made = Process(number, 1000 + number, "root")
    if owner is not None:
        owner.adopt(made, number, f"f{number}")
    return made


def cascade(depth: int) -> list[Process]:
    """The root, and each the owner of the next."""
    made = [process(ROOT)]
    while len(made) <= depth:
        made.append(process(len(made), made[-1]))
    return made


def numbers(processes: list[Process]) -> list[int]:
    return [each.number for each in processes]


# Who owns whom


def test_an_owner_has_its_children_by_their_requests() -> None:
    root = process(ROOT)
    child = Process(7, 1007, "root")
    root.adopt(child, 3, "job")
    assert root.children == {3: child}
    assert (child.owner, child.request, child.name) == (root, 3, "job")


def test_below_a_process_is_everything_innermost_first_and_it_itself() -> None:
    root, top, middle, leaf = cascade(3)
    other = process(9, top)
    order = list(root.below())
    assert order[-2:] == [top, root]
    assert sorted(numbers(order[:-2])) == sorted(numbers([middle, leaf, other]))
    assert order.index(leaf) < order.index(middle)
    assert list(leaf.below()) == [leaf]


@examples(100)
@given(st.lists(st.integers(0, 1000), max_size=50))
def test_nobody_comes_after_its_owner(owners: list[int]) -> None:
    made = [process(ROOT)]
    for owner in owners:
        made.append(process(len(made), made[owner % len(made)]))
    order = numbers(list(made[0].below()))
    assert sorted(order) == numbers(made)
    for each in made[1:]:
        assert each.owner is not None
        assert order.index(each.number) < order.index(each.owner.number)


def test_a_process_of_another_host_has_a_number_below_0() -> None:
    assert process(-1).is_elsewhere
    assert not process(1).is_elsewhere


# Cancelling and killing


def test_only_the_first_cancellation_is_news() -> None:
    worker = process(1)
    assert worker.cancel()
    assert not worker.cancel()


def test_who_is_dead_cannot_be_cancelled() -> None:
    worker = process(1)
    worker.end(-signal.SIGSEGV, False)
    assert not worker.cancel()
    assert not worker.cancelled


def test_who_is_killed_is_killed_with_all_below_and_all_count_as_cancelled() -> None:
    _, top, middle, leaf = cascade(3)
    assert top.kill() == [leaf, middle, top]
    assert all(each.killed and each.cancelled for each in (top, middle, leaf))


def test_nobody_is_killed_twice() -> None:
    _, top, middle, leaf = cascade(3)
    assert middle.kill() == [leaf, middle]
    assert middle.kill() == []
    assert top.kill() == [top]


def test_of_a_dead_process_those_are_killed_that_it_left() -> None:
    _, top, middle, leaf = cascade(3)
    top.end(1, False)
    assert top.kill() == [leaf, middle]
    assert not top.cancelled


@pytest.mark.parametrize(
    ("returncode", "cancelled"),
    [(0, True), (-signal.SIGTERM, True), (1, False), (-signal.SIGKILL, False)],
)
def test_cancelled_is_who_ended_because_of_it(returncode: int, cancelled: bool) -> None:
    worker = process(1)
    worker.cancel()
    worker.end(returncode, False)
    assert worker.cancelled == cancelled
    assert worker.failed == (not cancelled)


def test_whoever_was_killed_is_cancelled_and_did_not_run_out_of_memory() -> None:
    worker = process(1)
    worker.kill()
    worker.end(-signal.SIGKILL, True)
    assert worker.cancelled
    assert not worker.maybe_oom
    assert not worker.failed


# Ends


def test_its_owner_and_its_watchers_hear_how_it_ended() -> None:
    worker = process(5, process(ROOT))
    worker.end(-signal.SIGKILL, True)
    assert worker.fate() == Gone("root", 5, 1005, "f5", -9, False, True)
    assert worker.report() == Exited(5, -9, False, True, "")
    worker.stderr = "its last words"
    assert worker.report() == Exited(5, -9, False, True, "its last words")


# Deadlines


def test_the_earliest_deadline_comes_first() -> None:
    assert Deadlines().earliest is None
    deadlines = Deadlines()
    for number, deadline in ((1, 7.0), (2, 5.0), (3, 6.0)):
        assert deadlines.bring_forward(process(number), deadline)
    assert deadlines.earliest == 5.0
    assert list(deadlines.take_due(4.9)) == []
    assert list(deadlines.take_due(6.0)) == [2, 3]
    assert deadlines.earliest == 7.0


def test_a_deadline_can_only_be_brought_forward() -> None:
    deadlines, worker = Deadlines(), process(1)
    assert deadlines.bring_forward(worker, 5.0)
    assert not deadlines.bring_forward(worker, 5.0)
    assert not deadlines.bring_forward(worker, 6.0)
    assert deadlines.bring_forward(worker, 4.0)
    assert worker.deadline == deadlines.earliest == 4.0
    assert worker.time_left(1.0) == 3.0
    assert worker.time_left(9.0) == 0.0


def test_nobody_has_a_later_deadline_than_its_owner() -> None:
    deadlines = Deadlines()
    _, top, middle, _ = cascade(3)
    deadlines.bring_forward(top, 5.0)
    assert deadlines.bring_forward(middle, 60.0)
    assert middle.deadline == 5.0
    assert sorted(deadlines.take_due(5.0)) == numbers([top, middle])
