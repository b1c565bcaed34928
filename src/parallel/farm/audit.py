"""An audit log: a line of JSON for each change of state of a farm's workers and tasks.

    {"order": 7, "time": "2026-01-31T12:00:00.123456+00:00", "event": "ended", "task": 3,
     "function": "square", "worker": "root.0", "outcome": "ok", "seconds": 0.2, "attempts": 0}

Lines are collected and written together a few times a second: a system call for each would hold up
the farm. So a program that is killed has not written its last moments.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from typing import Any

from .events import (
    Event,
    TaskEnded,
    TaskRecalled,
    TaskRetried,
    TasksSent,
    WorkerJoined,
    WorkerLeft,
)
from .results import outcome
from .stream import brief
from .tasks import Task

LOGGER = logging.getLogger("parallel.farm")
"""Where it is said that an audit log or a trace can be written no more."""

CHUNK = 1 << 16
"""Characters that are written at once; no file gets larger by more than that."""


@dataclass(frozen=True)
class Audit:
    """Where the log goes.

    Args:
        path: A file; what is in it stays.
        max_bytes: When it would become larger it is renamed to `path.1`, that one to `path.2` and
            so on, and a new one is begun; 0: it may grow.
        backups: So many of those are kept.
    """

    path: str | os.PathLike[str]
    max_bytes: int = 100_000_000
    backups: int = 5


class _File(RotatingFileHandler):
    """Raises what goes wrong."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        raise  # noqa: PLE0704  # it is called where one is being handled


class AuditLog:
    """Writes it."""

    def __init__(self, audit: Audit) -> None:
        self._file: _File | None = _File(
            audit.path, maxBytes=audit.max_bytes, backupCount=audit.backups, encoding="utf-8"
        )
        self._chunk = min(CHUNK, audit.max_bytes) or CHUNK
        self._order = 0
        self._lines: list[str] = []
        self._size = 0

    def observe(self, event: Event) -> None:
        """Note what has happened."""
        if self._file is None:
            return
        time = datetime.now(UTC).isoformat(timespec="microseconds")
        match event:
            case WorkerJoined(worker, place):
                self._note(time, "joined", worker=worker, place=place)
            case WorkerLeft(worker, place, reason):
                said = brief(reason) if reason is not None else "it was let go"
                self._note(time, "left", worker=worker, place=place, reason=said)
            case TasksSent(worker, tasks):
                for task in tasks:
                    self._note(time, "sent", **_known(task), worker=worker)
            case TaskRetried(worker, task):
                facts = _known(task)
                self._note(time, "retried", **facts, lost_worker=worker, attempts=task.attempts)
            case TaskRecalled(task, _):
                self._note(time, "recalled", **_known(task))
            case TaskEnded(worker, task, done):
                facts = {**_known(task), "worker": worker, "outcome": outcome(done)}
                facts.update(seconds=round(done.seconds, 6), attempts=done.attempts)
                if done.error is not None:
                    facts["error"] = brief(done.error)
                self._note(time, "ended", **facts)

    def _note(self, time: str, event: str, **facts: Any) -> None:
        line = json.dumps({"order": self._order, "time": time, "event": event, **facts})
        self._order += 1
        if self._size + len(line) >= self._chunk:
            self.refresh()
        self._lines.append(line)
        self._size += len(line) + 1

    def refresh(self) -> None:
        """Write what was noted."""
        if self._file is not None and self._lines:
            try:
                self._file.emit(logging.makeLogRecord({"msg": "\n".join(self._lines)}))
            except OSError as exc:
                LOGGER.error("the audit log is written no more: %s", exc)
                self._abandon()
        self._lines.clear()
        self._size = 0

    def close(self) -> None:
        """There is nothing more to note."""
        self.refresh()
        self._abandon()

    def _abandon(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError:
                pass  # what it still had could not be written, as was said


def _known(task: Task) -> dict[str, Any]:
    return {"task": task.id, "function": task.job.name}
