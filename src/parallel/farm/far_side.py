"""What runs the tasks of a farm under another Python: sent there as text, with nothing installed.

It runs on Pythons that this package does not, so it keeps to the standard library of 3.8.

A message is a length, eight bytes with the most significant one first, and a pickle of that many
bytes which holds built-in types alone. What users send is pickled by itself within, so that what
cannot be read is one task's matter.
"""

from __future__ import annotations

import inspect
import io
import os
import pickle
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any, BinaryIO

PROTOCOL = 4
"""Of pickle: every Python that may be at the other end knows it."""

LATE = 0.005
"""Seconds for which results are kept back, so that those of short tasks travel together."""


def write_message(file: BinaryIO, message: Any) -> None:
    """Send it."""
    data = pickle.dumps(message, PROTOCOL)
    file.write(len(data).to_bytes(8, "big") + data)
    file.flush()


def read_message(file: BinaryIO) -> Any:
    """The next message; None at the end."""
    size = file.read(8)
    data = file.read(int.from_bytes(size, "big"))
    return pickle.loads(data) if data else None


def map_or_fold(f: Any, fold: Any, item: Any) -> Any:
    """That of `derived`, which is not there."""
    return f(*item[1:]) if item[0] == "map" else fold(*item[1:])


class Loader(pickle.Unpickler):
    """Finds here what stands for something of the farm."""

    def persistent_load(self, pid: Any) -> Any:
        """The one thing that there is."""
        return {"map_or_fold": map_or_fold}[pid]


def load(data: bytes) -> Any:
    """What a user has sent."""
    return Loader(io.BytesIO(data)).load()


def describe(exc: BaseException) -> tuple[bytes | None, str, str, str]:
    """An exception: pickled, if that can be undone, and as text."""
    try:
        pickled: bytes | None = pickle.dumps(exc, PROTOCOL)
        pickle.loads(pickled or b"")
    except Exception:  # as text then
        pickled = None
    kind = type(exc)
    module = "" if kind.__module__ == "builtins" else kind.__module__ + "."
    text = "".join(traceback.format_exception(kind, exc, exc.__traceback__))
    return pickled, module + kind.__qualname__, str(exc), text


def wait_for(awaitable: Any) -> Any:
    """What an async function comes to: with trio, if it is there."""
    import trio  # noqa: PLC0415  # an async task alone needs it

    async def wait() -> Any:
        return await awaitable

    return trio.run(wait)


class Server:
    """Runs tasks in the main thread, reads in another, and sends what is late in a third."""

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        self.source = source
        self.sink = sink
        self.functions: dict[int, Callable[..., Any]] = {}
        self.queue: deque[tuple[int, int, bytes, bool]] = deque()
        self.dropped: set[int] = set()
        self.results: list[tuple[int, Any, float, str]] = []
        self.reported = time.perf_counter()
        self.current: int | None = None
        self.over = False
        self.lock = threading.RLock()
        self.news = threading.Condition(self.lock)
        self.pending = threading.Event()

    # -- reading ---------------------------------------------------------------------------------

    def read(self) -> None:
        """Take messages until there are no more; then nobody wants what may be running."""
        while True:
            message = read_message(self.source)
            if message is None:
                break
            with self.lock:
                self.take(*message)
        with self.lock:
            if self.current is not None or self.queue:
                os._exit(1)
            self.over = True
            self.news.notify()

    def take(self, kind: str, *what: Any) -> None:
        """One message."""
        if kind == "run":
            job, tasks, arguments, timed = what
            for task, args in zip(tasks, arguments):  # noqa: B905  # 3.10's
                self.queue.append((task, job, args, timed))
            self.news.notify()
        elif kind == "define":
            self.define(*what)
        elif kind == "forget":
            self.functions.pop(what[0], None)
        elif kind == "drop":
            self.dropped.update({each[0] for each in self.queue}.intersection(what[0]))
        else:
            self.report(self.current)

    def define(self, job: int, data: bytes) -> None:
        """The function of a job."""
        try:
            self.functions[job] = load(data)
        except Exception as exc:
            write_message(self.sink, ("unreadable", job, describe(exc)))

    # -- working ---------------------------------------------------------------------------------

    def work(self) -> None:
        """Run tasks."""
        while True:
            with self.lock:
                while not self.queue and not self.over:
                    self.report(None)
                    self.news.wait()
                if self.over:
                    return
                task, job, data, timed = self.queue.popleft()
                if task in self.dropped or job not in self.functions:
                    self.dropped.discard(task)
                    continue
                self.current = task
                fn = self.functions[job]
                if timed:
                    self.report(task)
            start = time.perf_counter()
            value, wrong = self.call(fn, data)
            end = time.perf_counter()
            with self.lock:
                self.current = None
                self.results.append((task, value, end - start, wrong))
                if end - self.reported > LATE:
                    self.report(None)
                else:
                    self.pending.set()

    def call(self, fn: Callable[..., Any], data: bytes) -> tuple[Any, str]:
        """What came of it, and what is wrong with it: "", or one of the words below."""
        wrong = "unreadable"
        try:
            args = load(data)
            wrong = "raised"
            value = fn(*args)
            if inspect.isawaitable(value):
                value = wait_for(value)
            wrong = "unsendable " + type(value).__qualname__
            return pickle.dumps(value, PROTOCOL), ""
        except Exception as exc:
            return describe(exc), wrong

    # -- reporting -------------------------------------------------------------------------------

    def report(self, begun: int | None) -> None:
        """Send what there is; with the lock held."""
        self.pending.clear()
        results, self.results = self.results, []
        self.reported = time.perf_counter()
        write_message(self.sink, ("report", results, begun))

    def report_late(self) -> None:
        """In the midst of a task that takes longer than those before it."""
        while True:
            self.pending.wait()
            time.sleep(LATE)
            with self.lock:
                if self.results:
                    self.report(self.current)


def main(marker: str) -> None:
    """Serve on what stdin and stdout were; tasks find the one empty, and stderr as the other."""
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sink.write(marker.encode() + b"\n")
    write_message(sink, sys.version)
    server = Server(source, sink)
    for run in (server.read, server.report_late):
        threading.Thread(target=run, daemon=True).start()
    try:
        server.work()
    except BrokenPipeError:
        pass  # nobody wants anything any more
