"""What every deployment of a farm does, wherever its workers run.

`programs/contract.py` runs these very tests on Dask and under mpiexec.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context, resource_tracker
from pathlib import Path
from typing import Any

import pytest
import trio

import parallel
from parallel.errors import NotSendable, ParallelError, RemoteError, UnknownHost
from parallel.farm import (
    CommandFailed,
    Deployment,
    Done,
    Executor,
    Interpreters,
    NoWorkers,
    Policy,
    Processes,
    Sequential,
    TaskLost,
    TaskTimeout,
    WorkerLost,
    specification,
)
from parallel.launch.local import Local

from ..programs import tasks
from ..servers import program
from ..support import IMPORT_PATH, ROOT, case, eventually
from . import test_any_tasks as any_tasks
from .places import ALL, ASYNC, ASYNC_SETUP, CLOSURES, KILLS, SETUP, TIMEOUTS, Place, others

# -- what is computed --------------------------------------------------------------------------


async def test_maps_come_to_what_the_specification_does(place: Place) -> None:
    async with place.open_farm() as farm:
        for size in (0, 1, 2, 300):
            expected = await specification.map(tasks.square, range(size))
            assert await farm.map(tasks.square, range(size)) == expected
            assert [y async for y in farm.imap(tasks.square, range(size))] == expected
            unordered = [y async for y in farm.imap_unordered(tasks.square, range(size))]
            assert sorted(unordered) == expected


async def test_find_map_finds_one_if_there_is_one(place: Place) -> None:
    async with place.open_farm() as farm:
        assert await farm.find_map(tasks.over_20, range(20)) is None
        found = await farm.find_map(tasks.over_20, range(1000))
        assert found is not None and found > 20


async def test_folds_come_to_what_the_specification_does(place: Place) -> None:
    async with place.open_farm() as farm:
        for name in ("map_local_fold", "map_remote_fold", "map_fold_ac", "map_fold_a"):
            expected = await getattr(specification, name)(tasks.square, tasks.plus, 5, range(50))
            assert await getattr(farm, name)(tasks.square, tasks.plus, 5, range(50)) == expected
        digits = await farm.map_fold_a(tasks.text, tasks.joined, "", range(50))
        assert digits == "".join(map(str, range(50)))


async def test_results_make_new_tasks_as_the_specification_says(place: Place) -> None:
    def recorder(seen: list[tuple[int, str, int]]) -> Callable[..., list[tuple[int, str]]]:
        def master(task: tuple[int, str], result: int) -> list[tuple[int, str]]:
            seen.append((*task, result))
            return [(task[0] - 1, task[1] + c) for c in "ab"] if task[0] else []

        return master

    expected: list[tuple[int, str, int]] = []
    seen: list[tuple[int, str, int]] = []
    await specification.compute(tasks.square, recorder(expected), [(4, "")])
    async with place.open_farm() as farm:
        await farm.compute(tasks.square, recorder(seen), [(4, "")])
    assert sorted(seen) == sorted(expected)


async def test_an_algorithm_gives_each_result_once_with_its_tag(place: Place) -> None:
    async with place.open_farm() as farm:
        algorithm = farm.algorithm(tasks.square, target=1000)
        for x in range(50):
            await algorithm.submit(x, tag=f"#{x}")
        results: list[Done[int]] = [done async for done in farm.results()]
        assert len(results) == 50
        assert {done.tag: done.unwrap() for done in results} == {f"#{x}": x * x for x in range(50)}
        assert all(done.worker for done in results)  # by name; it may have gone since


async def test_a_task_for_one_worker_runs_on_that_one(place: Place) -> None:
    async with place.open_farm() as farm:
        await farm.map(tasks.square, range(10))
        worker = min(farm.workers)
        algorithm = farm.algorithm(tasks.square)
        for x in range(10):
            await algorithm.submit(x, worker=worker)
        assert [done.worker async for done in farm.results()] == [worker] * 10


async def test_closures_travel_or_the_error_says_why_they_cannot(place: Place) -> None:
    async with place.open_farm() as farm:
        three = 3
        if CLOSURES in place.promises:
            assert await farm.map(lambda x: x * three, range(5)) == [0, 3, 6, 9, 12]
        else:
            with pytest.raises(NotSendable, match="make it a function of a module"):
                await farm.map(lambda x: x * three, range(5))
        assert await farm.map(partial(tasks.plus, 3), [1, 2]) == [4, 5]


async def test_functions_may_be_async_where_trio_is(place: Place) -> None:
    async with place.open_farm() as farm:
        if ASYNC in place.promises:
            assert await farm.map(tasks.pause, [0.01, 0.0]) == [0.01, 0.0]
        else:
            (error,) = await farm.map(tasks.pause, [0.01], on_error="return")
            assert isinstance(error, ModuleNotFoundError) and "trio" in str(error)


# -- what goes wrong -----------------------------------------------------------------------------


async def test_an_exception_ends_the_call_and_the_farm_goes_on(place: Place) -> None:
    async with place.open_farm() as farm:
        with pytest.raises(ValueError, match="seven") as caught:
            await farm.map(tasks.fails_at_7, range(100))
        assert caught.value.args == ("seven", 7)
        assert "fails_at_7(7)" in caught.value.__notes__[-1]
        assert await farm.map(tasks.square, [3]) == [9]


async def all_but_7(place: Place, f: Callable[[int], object]) -> object:
    """What came of 7; the rest is as it was."""
    async with place.open_farm() as farm:
        results = list(await farm.map(f, range(20), on_error="return"))
    wrong = results.pop(7)
    assert results == [x for x in range(20) if x != 7]
    return wrong


async def test_an_exception_can_stand_for_its_result(place: Place) -> None:
    assert isinstance(await all_but_7(place, tasks.fails_at_7), ValueError)


async def test_a_result_that_cannot_be_pickled_is_that_task_s_failure(place: Place) -> None:
    error = await all_but_7(place, tasks.lock_at_7)
    assert isinstance(error, NotSendable) and "lock" in error.culprit


async def test_a_result_that_cannot_be_unpickled_is_that_task_s_failure(place: Place) -> None:
    error = await all_but_7(place, tasks.unloadable_at_7)
    assert isinstance(error, RemoteError) and "unloadable" in str(error)


async def test_an_argument_that_cannot_be_pickled_is_that_task_s_failure(place: Place) -> None:
    async with place.open_farm() as farm:
        results = await farm.map(tasks.same, [1, threading.Lock(), 3], on_error="return")
    assert results[::2] == [1, 3]
    assert isinstance(results[1], NotSendable)


async def test_an_argument_that_cannot_be_unpickled_is_that_task_s_failure(place: Place) -> None:
    async with place.open_farm() as farm:
        results = await farm.map(tasks.same, [1, tasks.Unloadable(), 3], on_error="return")
    assert results[::2] == [1, 3]
    assert isinstance(results[1], RemoteError) and "unloadable" in str(results[1])


async def test_a_function_that_cannot_be_unpickled_fails_its_call_alone(place: Place) -> None:
    async with place.open_farm() as farm:
        with pytest.raises(RemoteError, match="unloadable"):
            await farm.map(partial(tasks.same, tasks.Unloadable()), [1, 2])
        assert await farm.map(tasks.square, [3]) == [9]


async def test_a_timeout_ends_the_task_or_is_refused(place: Place) -> None:
    policy = Policy(timeout=0.2)
    async with place.open_farm() as farm:
        if TIMEOUTS in place.promises:
            results = await farm.map(
                tasks.short_of_breath, [0, 1000], policy=policy, on_error="return"
            )
            assert results[0] == 0 and isinstance(results[1], TaskTimeout)
        elif isinstance(place.deployment, Sequential):
            results = await farm.map(tasks.pause, [0, 1000], policy=policy, on_error="return")
            assert results[0] == 0 and isinstance(results[1], TaskTimeout)
        else:
            with pytest.raises(NotSendable, match="no executor can end a task"):
                await farm.map(tasks.square, [1], policy=policy)
        assert await farm.map(tasks.square, [3]) == [9]


async def test_a_lost_worker_s_tasks_are_run_by_another(place: Place, tmp_path: Path) -> None:
    if KILLS not in place.promises:
        return  # its end would be that of this program, or of the engine: see below
    items = [(x, str(tmp_path / "died")) for x in range(20)]
    async with place.open_farm() as farm:
        assert await farm.map(tasks.dies_once_at_7, items) == list(range(20))


async def test_a_place_that_there_is_not_is_named(place: Place) -> None:
    with pytest.raises(UnknownHost, match="nowhere"):
        async with place.open_farm() as farm:
            await farm.add_worker("nowhere")


# -- workers -------------------------------------------------------------------------------------


async def test_setup_surrounds_the_tasks_of_a_worker_or_is_refused(place: Place) -> None:
    if SETUP not in place.promises:
        with pytest.raises(ParallelError, match="keep state in the module"):
            async with place.open_farm(setup=tasks.counter):
                await trio.sleep_forever()
        return
    async with place.open_farm(setup=tasks.counter) as farm:
        counts = await farm.map(tasks.count, range(100))
    # Each worker has counted its own from one on.
    assert counts.count(1) <= 2
    assert max(counts) >= 50


async def test_setup_may_be_async_or_the_error_says_why_not(place: Place) -> None:
    if ASYNC_SETUP in place.promises:
        async with place.open_farm(setup=tasks.async_counter) as farm:
            assert 1 in await farm.map(tasks.count, range(10))
    else:
        with pytest.raises(ParallelError, match="setup"):
            async with place.open_farm(setup=tasks.async_counter):
                await trio.sleep_forever()


async def test_what_setup_raises_is_raised_where_the_farm_is_opened(place: Place) -> None:
    if SETUP in place.promises:
        with pytest.raises(LookupError, match="no such database"):
            async with place.open_farm(setup=tasks.bad_setup):
                await trio.sleep_forever()


async def test_workers_can_be_added_and_removed(place: Place) -> None:
    async with place.open_farm() as farm:
        await farm.map(tasks.square, range(10))
        name = await farm.add_worker(next(iter(farm.workers.values())))
        assert name in farm.workers
        await farm.remove_worker(name)
        assert name not in farm.workers
        assert await farm.map(tasks.square, [3]) == [9]


async def test_left_by_cancellation_it_leaves_nothing_and_can_be_used_again(place: Place) -> None:
    for _ in range(2):
        with trio.CancelScope() as scope:
            async with place.open_farm() as farm:
                async for _ in farm.imap(tasks.short_of_breath, [0.1] * 100):
                    scope.cancel()
        assert scope.cancelled_caught
    async with place.open_farm() as farm:
        assert await farm.map(tasks.square, range(5)) == [0, 1, 4, 9, 16]


ECHO = """
import sys
source, sink = sys.stdin.buffer, sys.stdout.buffer
while head := source.read(4):
    data = source.read(int.from_bytes(head, "big"))
    if data == b"die":
        print("I cannot go on", file=sys.stderr)
        sys.exit(3)
    sink.write(head + data[::-1])
    sink.flush()
"""


async def test_a_task_can_be_a_command(place: Place) -> None:
    if CLOSURES not in place.promises:
        return  # another Python does not know this package
    async with place.open_farm() as farm:
        reverse = farm.command([sys.executable, "-S", "-c", ECHO])
        results: list[Any] = await farm.map(
            reverse, [b"abc", b"x" * 300_000, b"die", b"def"], on_error="return"
        )
    error = results.pop(2)
    assert results == [b"cba", b"x" * 300_000, b"fed"]
    assert isinstance(error, CommandFailed)
    assert (error.returncode, error.stderr) == (3, "I cannot go on")


# -- all of it in one tree -----------------------------------------------------------------------


def contract() -> dict[str, Callable[..., Awaitable[None]]]:
    """The tests above, and that of any tasks: those that take a place."""
    return {
        name: test
        for name, test in [*globals().items(), *vars(any_tasks).items()]
        if name.startswith("test_") and list(inspect.signature(test).parameters)[:1] == ["place"]
    }


@pytest.mark.parametrize(
    ("hosts", "workers"), [([], 2), (["far"], {"far": 2})], ids=["here", "on another host"]
)
@pytest.mark.slow
async def test_all_of_it_holds_on_processes(
    hosts: list[str], workers: int | dict[str, int], tmp_path: Path
) -> None:
    cluster = parallel.Cluster([Local(name=name, python=sys.executable) for name in hosts])
    async with parallel.init(grace=2.0, cluster=cluster):
        before = [child.name for child in (await parallel.processes()).children]
        for name, test in contract().items():
            with case(name):
                arguments: list[object] = [Place(Processes(workers), ALL)]
                if "tmp_path" in inspect.signature(test).parameters:
                    arguments.append(tmp_path)
                await test(*arguments)
                assert [child.name for child in (await parallel.processes()).children] == before


# -- engines with a program of their own ---------------------------------------------------------


def run_contract(*argv: str) -> None:
    """Run `programs/contract.py`; it has to pass every test that takes a place."""
    env = {**os.environ, "PYTHONPATH": IMPORT_PATH}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" passed") == len(contract())


PROGRAM = str(ROOT / "tests/programs/contract.py")


@pytest.mark.slow
@pytest.mark.packages("distributed")
def test_all_of_it_holds_on_dask() -> None:
    run_contract(sys.executable, PROGRAM, "dask")


@pytest.mark.slow
@pytest.mark.packages("mpi4py")
@pytest.mark.needs("mpiexec")
def test_all_of_it_holds_under_mpi() -> None:
    options = ["--allow-run-as-root", "--oversubscribe", "-n", "3"]
    python = [sys.executable, "-m", "mpi4py.futures"]
    run_contract(program("mpiexec"), *options, *python, PROGRAM, "mpi")


# -- workers that are lost -----------------------------------------------------------------------


async def test_a_broken_executor_ends_the_farm_and_is_its_cause() -> None:
    resource_tracker.ensure_running()
    with futures.ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        with pytest.raises(NoWorkers) as caught:
            async with parallel.open_farm(Executor(executor, workers=1)) as farm:
                await farm.map(tasks.dies, [1])
    assert isinstance(caught.value.__cause__, BrokenProcessPool)


@pytest.mark.parametrize("python", others())
async def test_a_task_runs_under_the_python_that_was_named(python: str) -> None:
    say = [python, "-c", "import sys; print(sys.version_info.minor)"]
    version = int(subprocess.run(say, capture_output=True, text=True, check=True).stdout)
    assert version != sys.version_info.minor or python == sys.executable, "there is no other here"
    async with parallel.open_farm(Interpreters([["env", f"PYTHONPATH={ROOT}", python]])) as farm:
        assert await farm.map(tasks.minor, range(3)) == [version] * 3


async def test_a_task_that_kills_other_pythons_is_given_up() -> None:
    python = Interpreters([["env", f"PYTHONPATH={ROOT}", others()[0]]])
    async with parallel.open_farm(python) as farm:
        (lost,) = await farm.map(tasks.dies, [1], on_error="return")
        assert isinstance(lost, TaskLost) and lost.attempts == 3
        assert isinstance(lost.__cause__, WorkerLost)
        assert "SIGKILL" in str(lost.__cause__)
        assert await farm.map(tasks.square, [3]) == [9]


_go_on = threading.Event()
_begun: list[int] = []


def wait_to_go_on(x: int) -> None:
    _begun.append(x)
    _go_on.wait()


async def cancel_in_the_middle(deployment: Deployment) -> None:
    _begun.clear()
    with trio.CancelScope() as scope:
        async with parallel.open_farm(deployment) as farm, trio.open_nursery() as nursery:
            nursery.start_soon(farm.map, wait_to_go_on, [1])
            await eventually(lambda: len(_begun) > 0)
            scope.cancel()


async def test_what_no_executor_can_end_is_waited_for_and_then_left_behind() -> None:
    _go_on.clear()
    with futures.ThreadPoolExecutor(1) as executor:
        try:
            with pytest.warns(RuntimeWarning, match="ThreadPoolExecutor, which cannot end them"):
                await cancel_in_the_middle(Executor(executor, workers=1, grace=0.1))
        finally:
            _go_on.set()


async def test_other_pythons_that_cannot_be_run_are_named() -> None:
    with pytest.raises(ParallelError, match="'/no/such/python' could not be executed"):
        async with parallel.open_farm(Interpreters([["/no/such/python"]])):
            await trio.sleep_forever()
    with pytest.raises(NoWorkers) as caught:
        async with parallel.open_farm(Interpreters([["sh", "-c", "exit 5"]])) as farm:
            await farm.map(tasks.square, [1])
    assert "exited with code 5" in str(caught.value.__cause__)


async def test_a_python_behind_a_shell_that_parses_its_words_again_can_be_used() -> None:
    """As ssh does, which joins them with spaces."""
    through_a_shell = ["sh", "-c", 'exec sh -c "$*"', "sh", f"PYTHONPATH={ROOT}", others()[0]]
    async with parallel.open_farm(Interpreters([through_a_shell])) as farm:
        assert await farm.map(tasks.square, [3]) == [9]


async def test_sequential_runs_tasks_in_the_order_in_which_they_were_given() -> None:
    seen: list[int] = _begun
    seen.clear()
    async with parallel.open_farm(Sequential()) as farm:
        assert await farm.map(_see, range(50)) == list(range(50))
        assert seen == list(range(50))
        assert [y async for y in farm.imap_unordered(_see, range(50))] == list(range(50))


def _see(x: int) -> int:
    _begun.append(x)
    return x
