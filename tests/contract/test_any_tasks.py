"""Any tasks, and any schedule of faults: each deployment gives what the specification gives.

`programs/contract.py` runs this on Dask and under mpiexec.
"""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import trio
from hypothesis import given

import parallel
from parallel.farm import Executor, specification

from ..programs import tasks
from ..support import FORMS, examples, formed
from .places import KILLS, Place

FAULTS = ["none", "none", "none", "none", "none", "raises", "takes long", "dies once"]
SCHEDULES = st.lists(st.tuples(st.integers(-99, 99), st.sampled_from(FAULTS)), max_size=40)
CALLS = st.sampled_from(["map", "imap", "imap_unordered", "algorithm", "compute"])


def what_came(y: object) -> tuple[str, object]:
    return ("error", y.args) if isinstance(y, ValueError) else ("value", y)


async def check_call(farm: parallel.Farm, call: str, xs: list[Any], form: str) -> None:
    """Each result once, and as the specification has it."""
    expected = await specification.map(tasks.faultless, xs)
    got: list[tuple[str, object]]
    match call:
        case "map":
            ys = await farm.map(tasks.faulty, formed(form, xs), on_error="return")
            got = [what_came(y) for y in ys]
        case "imap":
            results = farm.imap(tasks.faulty, formed(form, xs), on_error="return")
            got = [what_came(y) async for y in results]
        case "imap_unordered":
            results = farm.imap_unordered(tasks.faulty, formed(form, xs), on_error="return")
            got = [what_came(y) async for y in results]
            assert Counter(got) == Counter(expected)
            return
        case _:
            algorithm = farm.algorithm(tasks.faulty)
            for tag, x in enumerate(xs):
                await algorithm.submit(x, tag=tag)
            by_tag: dict[int, tuple[str, object]] = {}
            async for done in farm.results():
                assert done.tag not in by_tag
                by_tag[done.tag] = what_came(done.value if done.error is None else done.error)
            algorithm.close()
            got = [by_tag[tag] for tag in range(len(xs))]
    assert got == expected


async def check_generated(farm: parallel.Farm, xs: list[Any], form: str) -> None:
    """Each task that does not raise makes those two that follow it as in a heap."""
    xs = [x for x in xs if x[1] != "raises"]

    async def gather(compute: Any, worker: Any) -> Counter[object]:
        seen: Counter[object] = Counter()

        def master(task: tuple[Any, int], result: object) -> list[tuple[Any, int]]:
            seen[task[1], result if isinstance(result, tuple) else what_came(result)] += 1
            below = 2 * task[1] + 1
            return [(xs[place], place) for place in (below, below + 1) if place < len(xs)]

        await compute(worker, master, formed(form, [(x, 0) for x in xs[:1]]))
        return seen

    expected = await gather(specification.compute, tasks.faultless)
    assert await gather(farm.compute, tasks.faulty) == expected
    assert expected.total() == len(xs)


@pytest.mark.slow
async def test_any_tasks_with_any_faults_come_to_what_the_specification_says(
    place: Place, tmp_path: Path
) -> None:
    # Dask takes seconds to start a worker anew, and that is its own affair.
    deadly = KILLS in place.promises and not isinstance(place.deployment, Executor)
    numbers = itertools.count()
    token = trio.lowlevel.current_trio_token()

    async with place.open_farm() as farm:

        @examples(80)
        @given(SCHEDULES, FORMS, CALLS)
        def check(schedule: list[tuple[int, str]], form: str, call: str) -> None:
            xs = [
                (x, fault, str(tmp_path / str(next(numbers))))
                for x, fault in schedule
                if fault != "dies once" or deadly
            ]
            if call == "compute":
                trio.from_thread.run(check_generated, farm, xs, form, trio_token=token)
            else:
                trio.from_thread.run(check_call, farm, call, xs, form, trio_token=token)

        await trio.to_thread.run_sync(check)
