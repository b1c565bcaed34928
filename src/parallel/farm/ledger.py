"""A ledger: a farm's journal in SQLite.

A task is known by its key: the fingerprints of its function and of its arguments, and which call of
that function it is in. (That calls of different functions are counted apart makes it of no
consequence in which order they begin, when they run at the same time.) A result is a row with that
key. The rows with one key are equal tasks: each is delivered once in a run, in the order in which
they were written.

All results of a report are one transaction, which ends before the program sees any of them. It is
in the hands of the kernel then, and survives the end of the program (of the machine: up to the last
checkpoint, `synchronous=NORMAL`). Which rows were delivered in this run is in a table that goes
with it: reading from a journal writes nothing to it.
"""

from __future__ import annotations

import pickle
import sqlite3
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import cloudpickle

from .fingerprint import fingerprint, fingerprint_of_call
from .instructions import Finished
from .journal import JournalError, OpenJournal, compare
from .results import Done
from .tasks import Task

_APPLICATION = 0x70617266
"""SQLite's `application_id`, by which a file is known to be a journal: "parf"."""

_OPEN = """
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
"""

_TABLES = (
    "CREATE TABLE about (what TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """CREATE TABLE results (
        id INTEGER PRIMARY KEY,
        key BLOB NOT NULL,
        function TEXT NOT NULL,
        worker TEXT NOT NULL,
        seconds REAL NOT NULL,
        value BLOB NOT NULL
    )""",
    "CREATE INDEX results_by_key ON results (key)",
    f"PRAGMA application_id = {_APPLICATION}",
)

_SAID = {
    sqlite3.SQLITE_FULL: "there is no room left on its disk",
    sqlite3.SQLITE_BUSY: "another program is using it, or another farm of this one",
    sqlite3.SQLITE_READONLY: "it cannot be written to",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened, or its directory cannot be written to",
    sqlite3.SQLITE_IOERR: "it cannot be read or written",
    sqlite3.SQLITE_CORRUPT: "it is damaged: delete it to begin anew",
    sqlite3.SQLITE_NOTADB: "this is another kind of file",
}


class Ledger(OpenJournal):
    """An open journal; nobody else can open it meanwhile."""

    def __init__(self, path: str, identity: dict[str, str]) -> None:
        self._path = path
        self._calls: Counter[bytes] = Counter()
        with self._errors():
            self._file = sqlite3.connect(path, timeout=0, isolation_level=None)
        try:
            self._largest = self._file.getlimit(sqlite3.SQLITE_LIMIT_LENGTH) - 1000
            self._begin(identity)
        except BaseException:
            self._file.close()
            raise

    def _begin(self, identity: dict[str, str]) -> None:
        with self._errors():
            self._file.executescript(_OPEN)
        with self._transaction():
            if self._ask("SELECT count(*) FROM sqlite_master") == 0:
                for statement in _TABLES:
                    self._file.execute(statement)
                self._file.executemany("INSERT INTO about VALUES (?, ?)", identity.items())
            elif self._ask("PRAGMA application_id") != _APPLICATION:
                raise JournalError(self._path, "this is another kind of file")
            written = dict(self._file.execute("SELECT what, value FROM about"))
            compare(self._path, written, identity)
            self._last = self._ask("SELECT coalesce(max(id), 0) FROM results")
            """The rows up to this one are of runs before."""
            self._file.execute(
                "CREATE TEMP TABLE delivered (key BLOB PRIMARY KEY, id INTEGER) WITHOUT ROWID"
            )

    def close(self) -> None:
        """Let go of it."""
        self._file.close()

    def call(self, fn: Any) -> bytes:
        """A key for the tasks of a call that run this function."""
        function = fingerprint_of_call(fn)
        number = self._calls[function]
        self._calls[function] += 1
        return fingerprint(function, number)

    def recall(self, tasks: Sequence[Task]) -> dict[int, Done[Any]]:
        """What came of those of these tasks that are known, by their place; give all a key."""
        found: dict[int, Done[Any]] = {}
        for task in tasks:
            try:
                task.key = fingerprint(task.job.key, task.args)
            except Exception:
                task.key = b""  # nor can it be sent, as will be seen
        if self._last:
            with self._transaction():
                for place, task in enumerate(tasks):
                    if task.key and (done := self._deliver(task)) is not None:
                        found[place] = done
        return found

    def _deliver(self, task: Task) -> Done[Any] | None:
        row = self._file.execute(
            """SELECT id, worker, seconds, value FROM results
            WHERE key = :key AND id <= :last
            AND id > coalesce((SELECT id FROM delivered WHERE key = :key), 0)
            ORDER BY id LIMIT 1""",
            {"key": task.key, "last": self._last},
        ).fetchone()
        if row is None:
            return None
        number, worker, seconds, data = row
        self._file.execute("INSERT OR REPLACE INTO delivered VALUES (?, ?)", (task.key, number))
        try:
            value = pickle.loads(data)
        except Exception:
            return None  # its class is not what it was: have it done again
        return Done(task.args, value, None, task.tag, worker, seconds, 0)

    def keep(self, finished: Sequence[Finished]) -> None:
        """Write what came of these; what has failed, or cannot be pickled, is left out."""
        rows = []
        for task, (_, value, seconds, failed), worker in finished:
            if task.key and not failed:
                data = _dumps(value)
                if data is not None and len(data) < self._largest:
                    rows.append((task.key, task.job.name, worker, seconds, data))
        if rows:
            with self._transaction():
                self._file.executemany(
                    "INSERT INTO results (key, function, worker, seconds, value) "
                    "VALUES (?, ?, ?, ?, ?)",
                    rows,
                )

    def _ask(self, question: str) -> Any:
        (answer,) = self._file.execute(question).fetchone()
        return answer

    @contextmanager
    def _transaction(self) -> Generator[None]:
        with self._errors():
            self._file.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._file.execute("COMMIT")
            except BaseException:
                if self._file.in_transaction:  # SQLite ends some by itself
                    self._file.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            code = getattr(exc, "sqlite_errorcode", 0) & 0xFF  # the rest are details
            reason = _SAID.get(code, "SQLite cannot go on with it")
            raise JournalError(self._path, f"{reason} ({exc})") from exc


def _dumps(value: Any) -> bytes | None:
    """What the main module defines is there by name: the same program will read it."""
    try:
        return pickle.dumps(value, 5)
    except Exception:  # plain pickle cannot
        pass
    try:
        data: bytes = cloudpickle.dumps(value, protocol=5)
    except Exception:  # nothing can: it is delivered, and not kept
        return None
    return data
