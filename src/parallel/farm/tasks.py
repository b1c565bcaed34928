"""A task: one call of a function on one of the farm's workers, and what is done when it fails."""

from __future__ import annotations

import enum
import itertools
import sys
from collections import deque
from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class Policy:
    """What becomes of a task whose worker is lost, and how long it may take.

    Args:
        retry: Queue it again when its worker is lost (if not, it is lost with it). Only False keeps
            a task from running twice, for whatever reason.
        attempts: So many workers it may take along before it is given up as poison, at least 1.
        timeout: Seconds that it may run, its result's way back included; then its worker is killed
            and it has failed.
        do_it_anyway: A task for one worker becomes one for any when that worker is lost.
    """

    retry: bool = True
    attempts: int = 3
    timeout: float | None = None
    do_it_anyway: bool = False

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts={self.attempts}: a task needs at least one")
        if self.timeout is not None and not self.timeout > 0:
            raise ValueError(f"timeout={self.timeout}: seconds, more than 0")


DEFAULT_POLICY = Policy()


class Kind(enum.Enum):
    """Which tasks a worker takes."""

    ORDERED = "ordered"
    """Those for it alone."""
    INTERMINGLED = "intermingled"
    """Those for it, before those for anybody."""
    UNORDERED = "unordered"
    """Those for anybody; one for it is unrunnable."""


class Job:
    """Tasks that run one function, and what is known of how long that takes."""

    __slots__ = (
        "cancelled", "done", "id", "key", "mean", "name", "outstanding", "ready", "seconds", "size",
        "tasks",
    )  # fmt: skip

    def __init__(self, number: int, name: str = "") -> None:
        self.id = number
        self.name = name
        """That of the function, for people to read."""
        self.key = b""
        """What a journal knows the function and the call by."""
        self.tasks = 0
        """Those that have not ended."""
        self.ready: deque[Task] = deque()
        """Those for any worker that are with none."""
        self.outstanding: set[Task] = set()
        """Those that are with workers."""
        self.done = 0
        """Tasks that have run."""
        self.seconds = 0.0
        """How long they took together."""
        self.mean: float | None = None
        """Seconds that a task takes: a moving mean; None before the first was done."""
        self.size = 0.0
        """Bytes of a task's arguments and result, roughly: a moving mean of some."""
        self.cancelled = False

    def measured(self, seconds: float, *objects: Any) -> None:
        """One more task took so long; these went there and back."""
        self.done += 1
        self.seconds += seconds
        if self.done < _MEMORY or self.done % _SAMPLE == 0:
            size = sum(map(roughly_bytes, objects))
            self.size += (size - self.size) / min(self.done, _MEMORY)
        mean = self.mean
        if mean is None:
            self.mean = seconds
        else:
            self.mean = mean + (seconds - mean) / min(self.done, _MEMORY)


_MEMORY = 50
"""Tasks that the mean remembers."""

_SAMPLE = 16
"""One of so many is weighed, after the first ones."""


def roughly_bytes(value: Any, levels: int = 3) -> int:
    """How much memory a value takes: of bytes, text and arrays, also some levels down."""
    if isinstance(value, dict | list | tuple) and value and levels:
        items = value.values() if isinstance(value, dict) else value
        few = list(itertools.islice(items, _FEW))
        return sum(roughly_bytes(each, levels - 1) for each in few) * len(value) // len(few)
    try:
        size: Any = getattr(value, "nbytes", None)
        return size if isinstance(size, int) else sys.getsizeof(value)
    except Exception:  # of somebody's own class
        return 0


_FEW = 4
"""Elements of a container that are looked at."""


class Task:
    """One call. The plan alone changes it."""

    __slots__ = (
        "alive", "args", "attempts", "holders", "id", "job", "key", "policy", "singly", "tag",
        "worker",
    )  # fmt: skip

    def __init__(
        self,
        number: int,
        job: Job,
        args: tuple[Any, ...],
        policy: Policy = DEFAULT_POLICY,
        worker: str | None = None,
        tag: Any = None,
    ) -> None:
        self.id = number
        self.job = job
        self.args = args
        self.policy = policy
        self.worker = worker
        """The name of the worker that it is for; None for any."""
        self.tag = tag
        """What the program knows it by."""
        self.key = b""
        """What a journal knows it by."""
        self.attempts = 0
        """Workers that were lost while it ran, or may have run."""
        self.holders: tuple[str, ...] = ()
        """The workers that have it: none, one, or one that is slow and one that may be faster."""
        self.singly = False
        """Something went wrong with it and others, and it is to be seen with which."""
        self.alive = True
        """Not ended yet."""

    @property
    def is_wanted(self) -> bool:
        """Whether it has not ended, and somebody waits for what comes of it."""
        return self.alive and not self.job.cancelled

    @property
    def is_alone(self) -> bool:
        """Whether it goes to an idle worker, with nothing behind it.

        So it is known for certain whether it was running when its worker is lost: of one that must
        not run twice, and of one that may have taken a worker along.
        """
        policy = self.policy
        return self.singly or self.attempts > 0 or not policy.retry or policy.attempts == 1


class Result(NamedTuple):
    """What a worker says of a task that it ran."""

    task: int
    """Its id."""
    value: Any
    """What it returned; of one that failed the exception."""
    seconds: float
    failed: bool = False
