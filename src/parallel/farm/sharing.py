"""Sharing: what an idle worker may take off a busy one, and whether it pays. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from .roster import Worker
from .tasks import Task

WORTH_TAKING = 0.005
"""Seconds of work behind a task, or of lateness, from which on it pays to take it elsewhere."""

SLOW = 3.0
"""So many times as long as the others took makes a straggler of a task."""

SLOW_FROM = 0.2
"""Seconds before which none is one."""


def best_to_take(
    workers: Sequence[Worker], now: float, *, backups: bool
) -> tuple[Worker | None, list[Task]]:
    """Of which of these to take what: half of what waits there, or a copy of what runs.

    None where nothing pays.
    """
    best = max(workers, key=lambda worker: gain(worker, now, backups=backups))
    if gain(best, now, backups=backups) <= 0:
        return None, []
    if waiting := movable(best):
        return best, waiting[len(waiting) // 2 :]
    assert best.running is not None
    return best, [best.running]


def movable(worker: Worker) -> list[Task]:
    """What waits there and may as well run elsewhere."""
    return [task for task in worker.waiting if task.worker is None]


def gain(worker: Worker, now: float, *, backups: bool) -> float:
    """Seconds that it helps to take something off this one."""
    running = worker.running
    if running is None or worker.alone:
        return 0.0
    estimate = worker.held[running.id].estimate
    late = max(0.0, now - worker.since - estimate)
    if movable(worker):
        seconds = worker.load - estimate + late
        return seconds if seconds > WORTH_TAKING else 0.0
    mean = running.job.mean
    is_copied = len(running.holders) > 1 or not running.alive
    if not backups or is_copied or running.worker is not None or mean is None:
        return 0.0
    return late if now - worker.since > max(SLOW * mean, SLOW_FROM) else 0.0
