"""A trace: a farm's timeline, as https://ui.perfetto.dev and chrome://tracing show it.

The format is Chrome's "trace event format" as a JSON array, an event a line. One that was cut off,
by a program that was killed, is read as well: the closing bracket may be missing.

Every place is a process there and every worker a thread of it: one row each. A task is a complete
event ("X") with its arguments in brief and what became of it; the loss of a worker, and a task that
was lost with one, are instants ("i").
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from .audit import LOGGER
from .events import Event, TaskEnded, TaskRetried, WorkerJoined, WorkerLeft
from .results import Done, outcome
from .stream import brief, brief_call
from .tasks import Task


class _Row(NamedTuple):
    process: int
    thread: int


class _Ended(NamedTuple):
    at: float
    task: Task
    done: Done[Any]


class Trace:
    """Writes it."""

    def __init__(self, path: str | os.PathLike[str], clock: Callable[[], float]) -> None:
        self._clock = clock
        self._begin = clock()
        self._file = open(path, "w", encoding="utf-8")
        self._is_good = True
        self._separator = "[\n"
        self._events: list[dict[str, Any]] = []
        self._processes: dict[str, int] = {}
        self._rows: dict[str, _Row] = {}
        self._threads = 0
        self._ended: dict[str, list[_Ended]] = {}
        """By worker, not placed in time yet."""
        self._free: dict[str, float] = {}
        """Until when a worker's row is full."""

    def observe(self, event: Event) -> None:
        """Note what has happened."""
        if not self._is_good:
            return
        now = self._clock()
        match event:
            case WorkerJoined(worker, place):
                self._add_row(worker, place)
                self._free[worker] = now
            case WorkerLeft(worker, _, reason):
                self._place(worker)
                if reason is not None:
                    self._instant(now, worker, "worker lost", reason=brief(reason))
                self._rows.pop(worker, None)
                self._free.pop(worker, None)
            case TaskRetried(worker, task):
                call = brief_call(task.job.name, task.args)
                self._instant(now, worker, "task lost", task=call, attempts=task.attempts)
            case TaskEnded(worker, task, done):
                if outcome(done) == "lost":
                    call = brief_call(task.job.name, task.args)
                    self._instant(now, worker, "task given up", task=call, attempts=task.attempts)
                elif worker in self._rows:
                    self._ended.setdefault(worker, []).append(_Ended(now, task, done))

    def _add_row(self, worker: str, place: str) -> None:
        process = self._processes.get(place)
        if process is None:
            process = self._processes[place] = len(self._processes) + 1
            self._metadata(_Row(process, 0), "process_name", place)
        self._threads += 1
        row = self._rows[worker] = _Row(process, self._threads)
        self._metadata(row, "thread_name", worker)

    def _metadata(self, row: _Row, name: str, value: str) -> None:
        self._add("M", name, row, args={"name": value})

    def _instant(self, now: float, worker: str, name: str, **args: Any) -> None:
        if (row := self._rows.get(worker)) is not None:
            self._add("i", name, row, ts=self._microseconds(now), s="t", args=args)

    def _place(self, worker: str) -> None:
        """Where in time its tasks were: one after the other, each before it was heard of."""
        ended = self._ended.pop(worker, [])
        row, free = self._rows[worker], self._free[worker]
        end = self._free[worker] = ended[-1].at if ended else free
        for at, task, done in reversed(ended):
            end = max(min(end, at), free)
            begin = max(end - done.seconds, free)
            args = {"call": brief_call(task.job.name, task.args), "outcome": outcome(done)}
            if done.error is not None:
                args["error"] = brief(done.error)
            start = self._microseconds(begin)
            duration = round(self._microseconds(end) - start, 3)
            self._add("X", task.job.name, row, ts=start, dur=duration, cat="task", args=args)
            end = begin

    def _add(self, phase: str, name: str, row: _Row, **rest: Any) -> None:
        self._events.append(
            {"ph": phase, "name": name, "pid": row.process, "tid": row.thread, **rest}
        )

    def _microseconds(self, now: float) -> float:
        return round((now - self._begin) * 1e6, 3)

    def refresh(self) -> None:
        """Write what was noted."""
        for worker in list(self._ended):
            self._place(worker)
        if self._events:
            self._write(",\n".join(map(json.dumps, self._events)))
        self._events.clear()

    def _write(self, events: str) -> None:
        if self._is_good:
            try:
                self._file.write(self._separator + events)
                self._file.flush()
            except OSError as exc:
                LOGGER.error("the trace is written no more: %s", exc)
                self._is_good = False
        self._separator = ",\n"

    def close(self) -> None:
        """There is nothing more to note."""
        self.refresh()
        if self._is_good:
            self._separator = "[\n" if self._separator == "[\n" else "\n"
            self._write("]\n")
            self._is_good = False
        try:
            self._file.close()
        except OSError:
            pass  # it was said above
