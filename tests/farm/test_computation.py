"""Computations, step by step."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from parallel.farm.computation import Computation, Status

from .pretend import Owner


def nothing(_: tuple[int, None], y: int) -> None:
    pass


async def test_it_is_running_while_it_has_tasks() -> None:
    owner = Owner()
    computation = Computation(owner.open_stream, nothing)
    computation.add_task((1, None))
    assert computation.status is Status.RUNNING
    assert await computation.step(timeout=0) is Status.RUNNING
    owner.end()
    assert await computation.step() is Status.DONE


@pytest.mark.parametrize("how", ["kill", "clear"])
async def test_who_steps_notices_that_there_is_nothing_left(how: str) -> None:
    computation = Computation(Owner().open_stream, nothing)
    computation.add_task((1, None))
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(computation.step)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await computation.step()
            getattr(computation, how)()
    assert computation.status is (Status.DEAD if how == "kill" else Status.DONE)


@pytest.mark.parametrize("how", ["kill", "clear"])
async def test_what_a_master_adds_after_that_is_forgotten(how: str) -> None:
    async def master(_: tuple[int, None], y: int) -> list[tuple[int, None]]:
        getattr(computation, how)()
        return [(1, None)] * 3

    owner = Owner()
    computation = Computation(owner.open_stream, master)
    computation.add_task((1, None))
    owner.end()
    await computation.step()
    assert not owner.tasks and computation.pending == 0


async def test_it_is_dead_after_a_failure() -> None:
    def master(_: tuple[int, None], y: int) -> None:
        raise LookupError("as told")

    owner = Owner()
    computation = Computation(owner.open_stream, master)
    computation.add_task((1, None))
    owner.end()
    with pytest.raises(LookupError, match="as told"):
        await computation.step()
    assert computation.status is Status.DEAD
    with pytest.raises(trio.ClosedResourceError):
        computation.add_task((1, None))
