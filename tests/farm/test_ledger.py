"""A journal in use: what is in it is not done again, whoever is killed."""

from __future__ import annotations

import operator
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import trio

import parallel
from parallel.farm import Journal, JournalError, Policy

from .. import support

PROGRAM = Path(support.ROOT / "tests/programs/journalled.py")
TASKS = 60
GROWN = 2**5 - 1
ONCE = Policy(retry=False)
"""Else a task may be begun twice, where an idle worker takes it from behind another one's."""

ALL = TASKS + 10 + GROWN + 2 * TASKS
"""Tasks of the program: squares, equal ones, generated ones, and those of a fold."""


def note(path: str, what: object) -> None:
    with open(path, "a") as file:
        file.write(f"{what}\n")


def notes(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def square_noted(path: str, x: int) -> int:
    note(path, x)
    return x * x


async def squares(folder: Path, xs: list[int]) -> list[int]:
    """By a farm of its own."""
    journal = Journal(folder / "journal", version="1")
    async with parallel.open_farm(workers=2, journal=journal) as farm:
        log = str(folder / "log")
        return [y async for y in farm.imap(Square(log), xs, policy=ONCE)]


class Square:
    """A function that can be sent, and is known by what it holds."""

    def __init__(self, log: str) -> None:
        self.log = log

    def __call__(self, x: int) -> int:
        return square_noted(self.log, x)


async def test_what_is_in_the_journal_is_not_done_again(tree: None, tmp_path: Path) -> None:
    assert await squares(tmp_path, [1, 2, 3]) == [1, 4, 9]
    assert await squares(tmp_path, [3, 4, 2, 1]) == [9, 16, 4, 1]
    assert sorted(notes(tmp_path / "log")) == ["1", "2", "3", "4"]


async def test_equal_tasks_are_each_done(tree: None, tmp_path: Path) -> None:
    await squares(tmp_path, [7] * 3)
    assert notes(tmp_path / "log") == ["7"] * 3
    await squares(tmp_path, [7] * 5)
    assert notes(tmp_path / "log") == ["7"] * 5


async def test_equal_calls_are_told_apart(tree: None, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", version="1")
    log = str(tmp_path / "log")
    for _ in range(2):
        async with parallel.open_farm(workers=1, journal=journal) as farm:
            for _ in range(2):
                assert await farm.map(Square(log), [5]) == [25]
    assert notes(tmp_path / "log") == ["5", "5"]


async def test_calls_at_the_same_time_find_their_results_in_whatever_order_they_begin(
    tree: None, tmp_path: Path
) -> None:
    async def run(functions: list[Callable[[int], int]]) -> None:
        journal = Journal(tmp_path / "journal", version="1")
        async with parallel.open_farm(workers=2, journal=journal) as farm:
            for f in functions:
                results = farm.imap(f, range(3))
                async with results:
                    assert [y async for y in results] == [f(x) for x in range(3)]
            recalled.append(farm.statistics().recalled)

    recalled: list[int] = []
    functions: list[Callable[[int], int]] = [lambda x: x + 1, lambda x: x * 2]
    await run(functions)
    await run(functions[::-1])
    assert recalled == [0, 6]


async def test_algorithms_computations_and_folds_are_journalled_too(
    tree: None, tmp_path: Path
) -> None:
    async def run() -> int:
        journal = Journal(tmp_path / "journal", version="1")
        async with parallel.open_farm(workers=2, journal=journal) as farm:
            algorithm = farm.algorithm(operator.neg)
            for x in range(5):
                await algorithm.submit(x, tag=x)
            got = {done.tag: done.value async for done in farm.results()}
            assert got == {x: -x for x in range(5)}
            computation = farm.computation(operator.neg, lambda _task, _result: None)
            computation.add_task((3, None))
            await computation.run()
            for fold in (farm.map_remote_fold, farm.map_fold_ac, farm.map_fold_a):
                assert await fold(abs, operator.add, "", "") == ""
                assert await fold(abs, operator.add, 0, range(5)) == 10
            assert await farm.find_map(operator.neg, [8]) == -8
            return farm.statistics().recalled

    assert await run() == 0
    # Folds in order of completion may fold others together than before.
    assert await run() >= 5 + 1 + 3 * 5 + 1


def fails_once(path: str, x: int) -> int:
    if not Path(path).exists():
        note(path, x)
        raise ValueError(x)
    return x


async def test_failures_are_tried_again(tree: None, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", version="1")
    flag = str(tmp_path / "flag")

    def f(x: int) -> int:
        return fails_once(flag, x)

    for _ in range(2):
        async with parallel.open_farm(workers=1, journal=journal) as farm:
            (result,) = await farm.map(f, [1], on_error="return")
    assert result == 1


def lock_of(x: int) -> object:
    return Unpicklable() if x == 1 else x


class Unpicklable:
    """It travels, by a way of its own, but once."""

    def __reduce__(self) -> tuple[object, ...]:
        return make, ()


def make() -> object:
    return threading.Lock()


async def test_a_result_that_cannot_be_pickled_is_delivered_and_not_kept(
    tree: None, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "journal", version="1")
    for recalled in (0, 2):
        async with parallel.open_farm(workers=1, journal=journal) as farm:
            zero, lock, two = await farm.map(lock_of, range(3))
            assert (zero, two) == (0, 2) and type(lock) is type(threading.Lock())
            assert farm.statistics().recalled == recalled


async def test_arguments_that_cannot_be_sent_fail_as_without_a_journal(
    tree: None, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "journal", version="1")
    async with parallel.open_farm(workers=1, journal=journal) as farm:
        with pytest.raises(parallel.NotSendable):
            await farm.map(str, [threading.Lock()])
        assert await farm.map(str, [1]) == ["1"]


# -- being killed


def argv(folder: Path) -> list[str]:
    return [sys.executable, str(PROGRAM), str(folder)]


def environment(run: int) -> dict[str, str]:
    return {**os.environ, "RUN": str(run), "PYTHONPATH": support.IMPORT_PATH}


async def kill_at_a_random_moment(folder: Path, run: int) -> bool:
    """Whether the program was still running."""
    before = len(notes(folder / "log"))
    with support.killed_in_the_end(argv(folder), env=environment(run)) as program:
        await support.eventually(lambda: len(notes(folder / "log")) > before + 1, 60)
        await trio.sleep(random.random() * 0.3)
    return program.returncode < 0


def kept_results(folder: Path) -> Counter[str]:
    """How many results of each function are in the journal of a program that is not running."""
    with closing(sqlite3.connect(folder / "journal")) as file:
        return Counter(name for (name,) in file.execute("SELECT function FROM results"))


@pytest.mark.parametrize("round_", range(max(2, support.ROUNDS // 16)))
@pytest.mark.slow
async def test_a_killed_program_does_only_what_is_missing(
    tmp_path: Path, mark: str, round_: int
) -> None:
    for run in range(4):
        if not await kill_at_a_random_moment(tmp_path, run):
            break
    assert support.wait_until_gone(mark, 5) == {}
    kept = kept_results(tmp_path)
    program = await trio.run_process(argv(tmp_path), env=environment(9), check=False)
    assert program.returncode == 0
    log = notes(tmp_path / "log")
    check_result(log[-1])
    ran = {line.removeprefix("ran 9 ") for line in log if line.startswith("ran 9 ")}
    assert sum(name.startswith("square") for name in ran) == TASKS - kept["square"]
    assert sum(name.startswith("grow") for name in ran) == GROWN - kept["grow"]
    assert kept_results(tmp_path).total() == ALL
    check_not_again(log)


def check_result(line: str) -> None:
    _, total, number, names = line.split()
    assert int(total) == TASKS
    assert int(number) == len(set(names.split(","))) == GROWN


def check_not_again(log: list[str]) -> None:
    """What the program has seen in one run it does in no later one."""
    seen: dict[str, int] = {}
    for line in log:
        match line.split():
            case ["saw", run, task]:
                seen.setdefault(task, int(run))
    for line in log:
        match line.split():
            case ["ran", run, task] if task in seen:
                assert int(run) <= seen[task], line
    assert len(seen) == TASKS + GROWN


# -- what cannot be written


def block(_: int) -> bytes:
    time.sleep(0.003)  # so that not all are reported together
    return os.urandom(20_000)


async def test_a_full_disk_is_one_clear_error_and_the_journal_goes_on_later(
    tree: None, mount: Callable[..., Path]
) -> None:
    disk = mount("size=2m")
    journal = Journal(disk / "journal", version="1")
    async with parallel.open_farm(workers=2, journal=journal) as farm:
        got = []
        with pytest.raises(JournalError, match="no room left on its disk") as caught:
            async for y in farm.imap(block, range(1000)):
                got.append(y)
        assert 0 < len(got) < 100
        assert caught.value.path == str(disk / "journal")
        assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
        with pytest.raises(JournalError):
            await farm.map(block, range(3))
        with pytest.raises(JournalError):
            await farm.algorithm(block).submit(1)
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    async with parallel.open_farm(workers=2, journal=journal) as farm:
        again = await farm.map(block, range(len(got) + 5))
        assert again[: len(got)] == got
        assert farm.statistics().recalled >= len(got)


async def test_who_waits_for_results_hears_of_a_full_disk(
    tree: None, mount: Callable[..., Path]
) -> None:
    journal = Journal(mount("size=1m") / "journal", version="1")
    async with parallel.open_farm(workers=2, journal=journal) as farm:
        algorithm = farm.algorithm(block, target=100)
        for number in range(100):
            await algorithm.submit(number)
        with pytest.raises(JournalError):
            async for _ in farm.results():
                pass
        computation = farm.computation(block, lambda _task, _result: None)
        with pytest.raises(JournalError):
            computation.add_task((1, None))


async def test_two_calls_under_way_both_hear_of_a_full_disk(
    tree: None, mount: Callable[..., Path]
) -> None:
    journal = Journal(mount("size=1m") / "journal", version="1")
    errors = []
    async with parallel.open_farm(workers=2, journal=journal) as farm:

        async def call() -> None:
            with pytest.raises(JournalError) as caught:
                await farm.map(block, range(1000))
            errors.append(caught.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            nursery.start_soon(call)
    assert len(errors) == 2


async def test_a_journal_that_cannot_be_written_to_is_refused(
    tree: None, mount: Callable[..., Path]
) -> None:
    disk = mount("size=8m")
    assert await squares(disk, [1]) == [1]
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(JournalError, match="it cannot be"):
        await squares(disk, [1])


async def test_a_damaged_journal_is_refused(tree: None, tmp_path: Path) -> None:
    await squares(tmp_path, list(range(300)))
    path = tmp_path / "journal"
    data = bytearray(path.read_bytes())
    data[1024:] = os.urandom(len(data) - 1024)
    path.write_bytes(data)
    with pytest.raises(JournalError, match=r"damaged|SQLite"):
        await squares(tmp_path, [1])


async def test_another_kind_of_file_is_refused(tree: None, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_text("Dear diary, " * 1000)
    with pytest.raises(JournalError, match="another kind of file"):
        await squares(tmp_path, [1])
    assert path.read_text().startswith("Dear diary")
    path.unlink()
    with closing(sqlite3.connect(path)) as file:
        file.execute("CREATE TABLE things (thing)")
    with pytest.raises(JournalError, match="another kind of file"):
        await squares(tmp_path, [1])


async def test_a_journal_in_a_folder_that_is_not_there_is_refused(
    tree: None, tmp_path: Path
) -> None:
    with pytest.raises(JournalError, match="cannot be opened"):
        await squares(tmp_path / "nowhere", [1])


async def test_a_journal_in_use_is_refused(tree: None, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", version="1")
    async with parallel.open_farm(workers=1, journal=journal) as farm:
        with pytest.raises(JournalError, match="another program is using it"):
            await squares(tmp_path, [1])
        assert await farm.map(abs, [-1]) == [1]
    program = f"""
import trio, parallel
from parallel.farm import Journal
async def main():
    async with parallel.open_farm(workers=1, journal=Journal({str(journal.path)!r}, version="1")):
        print("open", flush=True)
        await trio.sleep_forever()
async def whole():
    async with parallel.init():
        await main()
trio.run(whole)
"""
    path = tmp_path / "program.py"
    path.write_text(program)
    with support.killed_in_the_end([sys.executable, str(path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(JournalError, match="another program is using it"):
            await squares(tmp_path, [1])
    assert await squares(tmp_path, [1]) == [1]
