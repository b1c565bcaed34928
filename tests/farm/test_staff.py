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
from parallel.farm.staff import TRIES

from .pretend import Pretend


async def fail() -> Any:
    raise WorkerLost("as told")


@pytest.fixture
async def patient(autojump_clock: trio.testing.MockClock) -> None:
    """Time goes by at once."""


@asynccontextmanager
async def farm_on(*places: str) -> AsyncIterator[tuple[Farm, Pretend]]:
    deployment = Pretend(*places)
    async with open_farm(deployment) as farm:
        await trio.sleep(0.1)
        yield farm, deployment


async def test_every_place_has_a_worker(patient: None) -> None:
    async with farm_on("a", "a", "b") as (farm, deployment):
        assert sorted(farm.workers.values()) == ["a", "a", "b"]
        deployment.where.append("c")
        await trio.sleep(1)
        assert sorted(farm.workers.values()) == ["a", "a", "b", "c"]


async def test_a_lost_worker_is_followed_by_one_with_another_name(patient: None) -> None:
    async with farm_on("a") as (farm, deployment):
        (first,) = farm.workers
        deployment.seats[0].die()
        await trio.sleep(0.1)
        (second,) = farm.workers
        assert first != second


async def test_a_place_that_comes_again_before_anybody_looks_gets_its_worker(patient: None) -> None:
    async with farm_on("a", "b") as (farm, deployment):
        del deployment.where[1]
        next(seat for seat in deployment.seats if seat.name.startswith("b")).die()
        await trio.sleep(0.01)
        assert list(farm.workers.values()) == ["a"]
        deployment.where.append("b")
        await trio.sleep(1)
        assert sorted(farm.workers.values()) == ["a", "b"]


async def test_where_no_worker_can_be_started_it_is_given_up(patient: None) -> None:
    deployment = Pretend("a")
    deployment.start_with = fail
    with pytest.raises(NoWorkers):
        async with open_farm(deployment) as farm:
            await farm.map(abs, [1])
    assert deployment.starts == TRIES


async def test_a_farm_can_be_left_while_a_worker_starts(patient: None) -> None:
    deployment = Pretend("a")
    deployment.start_with = trio.sleep_forever
    with trio.fail_after(60):
        async with open_farm(deployment):
            await trio.sleep(1)
    assert deployment.starts == 1


async def test_a_removed_worker_stays_away(patient: None) -> None:
    async with farm_on("a", "a") as (farm, _):
        first, second = farm.workers
        await farm.remove_worker(first)
        await trio.sleep(2)
        assert list(farm.workers) == [second]
        with pytest.raises(ParallelError, match="there is no worker"):
            await farm.remove_worker(first)


async def test_what_the_deployment_raises_is_raised_bare(patient: None) -> None:
    class Broken(Pretend):
        def places(self) -> Any:
            raise LookupError("as told")

    with pytest.raises(LookupError, match="as told"):
        async with open_farm(Broken()):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                nursery.start_soon(trio.sleep_forever)
