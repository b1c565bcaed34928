"""Algorithms: tasks one by one, bounded by a target."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from parallel.farm.algorithm import Algorithm, Mailbox
from parallel.farm.results import TaskUnrunnable
from parallel.farm.tasks import Policy

from .pretend import Owner


def algorithm(owner: Owner, target: int, policy: Policy | None = None) -> Algorithm[int]:
    stream = owner.open_stream()
    made = Algorithm[int](Mailbox(), stream, target, policy or Policy())
    stream.on_end = made.end
    stream.on_fail = made.fail
    return made


async def test_submit_waits_until_a_result_is_taken() -> None:
    owner = Owner()
    made = algorithm(owner, target=1)
    await made.submit(1)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.submit, 2)
            await trio.testing.wait_all_tasks_blocked()
            owner.end()
            await trio.testing.wait_all_tasks_blocked()
            assert not owner.tasks and made.pending == 1
            made.taken()
    assert len(owner.tasks) == 1 and made.wanted == 0


async def test_cancelled_while_it_waits_submit_has_submitted_nothing() -> None:
    owner = Owner()
    made = algorithm(owner, target=1)
    await made.submit(1)
    with trio.move_on_after(0.01):
        await made.submit(2)
    assert len(owner.tasks) == 1


async def test_each_task_has_the_policy_that_is_given_with_it() -> None:
    owner = Owner()
    made = algorithm(owner, 10, Policy(attempts=2, timeout=9.0))
    await made.submit(1, retry=False)
    await made.submit(1, worker="a", do_it_anyway=True, timeout=1.0, tag="tag")
    first, second = (task for _, task in owner.tasks)
    assert first.policy == Policy(retry=False, attempts=2, timeout=9.0)
    assert second.policy == Policy(attempts=2, timeout=1.0, do_it_anyway=True)
    assert (second.worker, second.tag) == ("a", "tag")


async def test_an_unrunnable_task_makes_room_and_is_no_result() -> None:
    owner = Owner()
    made = algorithm(owner, 1)
    await made.submit(1)
    owner.end(0, TaskUnrunnable("abs(1)", "nobody"))
    assert made.pending == 0
    assert not made._mailbox.done and len(made._mailbox.unrunnable) == 1


async def test_who_waits_to_submit_is_told_what_has_gone_wrong() -> None:
    made = algorithm(Owner(), 1)
    await made.submit(1)

    async def wait() -> None:
        with pytest.raises(LookupError):
            await made.submit(2)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        made._stream.fail(LookupError())


def test_a_target_is_at_least_one() -> None:
    with pytest.raises(ValueError, match="target=0"):
        algorithm(Owner(), 0)
