"""The staff: a worker in every place, and another where one was lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from parallel import ParallelError
from parallel.farm import NoWorkers, open_farm
from parallel.farm.deployment import WorkerLost
from parallel.farm.farm import Farm
from parallel.farm.messages import Report, Run
from parallel.farm.staff import TRIES
from parallel.farm.tasks import Result

from .pretend import Pretend


async def fail() -> Any:
    raise WorkerLost("as told")


@pytest.fixture
def patient(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    """Time goes by at once. (The test itself has to have the clock, or it is not used.)"""
    return autojump_clock


@asynccontextmanager
async def farm_on(*places: str) -> AsyncIterator[tuple[Farm, Pretend]]:
    deployment = Pretend(*places)
    async with open_farm(deployment) as farm:
        await trio.sleep(0.1)
        yield farm, deployment


async def test_every_place_has_a_worker(patient: object) -> None:
    async with farm_on("a", "a", "b") as (farm, deployment):
        assert sorted(farm.workers.values()) == ["a", "a", "b"]
        deployment.where.append("c")
        await trio.sleep(1)
        assert sorted(farm.workers.values()) == ["a", "a", "b", "c"]


async def test_a_lost_worker_is_followed_by_one_with_another_name(patient: object) -> None:
    async with farm_on("a") as (farm, deployment):
        (first,) = farm.workers
        deployment.seats[0].die()
        await trio.sleep(0.1)
        (second,) = farm.workers
        assert first != second


async def test_a_place_that_comes_again_before_anybody_looks_gets_its_worker(
    patient: object,
) -> None:
    async with farm_on("a", "b") as (farm, deployment):
        del deployment.where[1]
        next(seat for seat in deployment.seats if seat.name.startswith("b")).die()
        await trio.sleep(0.01)
        assert list(farm.workers.values()) == ["a"]
        deployment.where.append("b")
        await trio.sleep(1)
        assert sorted(farm.workers.values()) == ["a", "b"]


async def test_places_that_move_to_other_hosts_and_back_have_no_worker_too_many(
    patient: object,
) -> None:
    """As those of a number of workers do, when a host is lost and comes again."""
    async with farm_on("a", "b", "b") as (farm, deployment):
        for _ in range(3):
            deployment.where[:] = ["a", "a", "a"]
            for seat in deployment.seats:
                if seat.name.startswith("b"):
                    seat.die()
            await trio.sleep(1)
            assert list(farm.workers.values()) == ["a"] * 3
            deployment.where[:] = ["a", "b", "b"]
            await trio.sleep(1)
            assert sorted(farm.workers.values()) == ["a", "b", "b"]


async def test_who_is_there_too_often_ends_what_it_is_at(patient: object) -> None:
    async with farm_on("a", "a") as (farm, deployment):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(farm.map, abs, [1, 2])
            await trio.sleep(0.1)
            del deployment.where[0]
            await trio.sleep(1)
            assert len(farm.workers) == 2, "both are at something"
            for seat in deployment.seats:
                (run,) = (order for order in seat.sent if isinstance(order, Run))
                seat.say(Report([Result(number, 7, 0.1) for number in run.tasks]))
        await trio.sleep(1)
        assert list(farm.workers.values()) == ["a"]


async def test_who_was_removed_stays_away_when_a_host_comes_again(patient: object) -> None:
    async with farm_on("a", "a", "b") as (farm, deployment):
        await farm.remove_worker(min(farm.workers))
        deployment.where.remove("b")
        await trio.sleep(1)
        deployment.where.append("b")
        await trio.sleep(1)
        assert sorted(farm.workers.values()) == ["a", "b"]


async def test_the_last_place_that_goes_takes_the_tasks_along(patient: object) -> None:
    async with farm_on("a") as (farm, deployment):
        deployment.where.clear()
        await trio.sleep(1)
        with pytest.raises(NoWorkers) as caught:
            await farm.map(abs, [1])
        assert "no place on a" in str(caught.value.__cause__)
        deployment.where.append("b")
        await trio.sleep(1)
        assert list(farm.workers.values()) == ["b"]


async def test_a_worker_that_starts_is_let_go_where_it_is_one_too_many(patient: object) -> None:
    deployment = Pretend("a", "a")
    deployment.start_with = trio.sleep_forever
    async with open_farm(deployment) as farm:
        await trio.sleep(0.1)
        del deployment.where[0]
        await trio.sleep(1)
        deployment.start_with = trio.lowlevel.checkpoint
        assert len(farm._staff._posts) == 1


async def test_where_no_worker_can_be_started_it_is_given_up(patient: object) -> None:
    deployment = Pretend("a")
    deployment.start_with = fail
    with pytest.raises(NoWorkers):
        async with open_farm(deployment) as farm:
            await farm.map(abs, [1])
    assert deployment.starts == TRIES


async def test_a_farm_can_be_left_while_a_worker_starts(patient: object) -> None:
    deployment = Pretend("a")
    deployment.start_with = trio.sleep_forever
    with trio.fail_after(60):
        async with open_farm(deployment):
            await trio.sleep(1)
    assert deployment.starts == 1


async def test_a_removed_worker_stays_away(patient: object) -> None:
    async with farm_on("a", "a") as (farm, _):
        first, second = farm.workers
        await farm.remove_worker(first)
        await trio.sleep(2)
        assert list(farm.workers) == [second]
        with pytest.raises(ParallelError, match="there is no worker"):
            await farm.remove_worker(first)


async def test_what_the_deployment_raises_is_raised_bare(patient: object) -> None:
    class Broken(Pretend):
        def places(self) -> Any:
            raise LookupError("as told")

    with pytest.raises(LookupError, match="as told"):
        async with open_farm(Broken()):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                nursery.start_soon(trio.sleep_forever)
