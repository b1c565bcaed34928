"""The backlog: tasks for any worker that are with none. Pure."""

from __future__ import annotations

from collections import OrderedDict, deque

from .tasks import Job, Task


class Backlog:
    """Jobs take turns, and so do those tasks that go alone and those that go in batches."""

    def __init__(self) -> None:
        # An ordered set; the first of a plain dict is not found at once.
        self._jobs: OrderedDict[Job, None] = OrderedDict()
        self._alone: deque[Task] = deque()
        self._alone_first = True

    def __bool__(self) -> bool:
        return bool(self._alone or self._jobs)

    @property
    def has_one_alone(self) -> bool:
        """Whether a task waits to go alone."""
        return bool(self._alone)

    @property
    def next_job(self) -> Job | None:
        """Of which job a batch is next; None where it is the turn of one that goes alone."""
        if self._alone and self._alone_first:
            return None
        return next(iter(self._jobs), None)

    def put(self, task: Task, *, in_front: bool = False) -> None:
        """It is ready for any worker."""
        queue = self._alone if task.is_alone else task.job.ready
        if in_front:
            queue.appendleft(task)
        else:
            queue.append(task)
        if not task.is_alone:
            self._jobs[task.job] = None

    def take_one_alone(self) -> Task:
        """The next task that goes alone."""
        self._alone_first = False
        return self._alone.popleft()

    def take(self, job: Job, count: int) -> list[Task]:
        """So many tasks of `next_job`, which goes to the end then."""
        self._alone_first = True
        tasks = [job.ready.popleft() for _ in range(count)]
        del self._jobs[job]
        if job.ready:
            self._jobs[job] = None
        return tasks

    def drop(self, job: Job) -> None:
        """Nobody wants the tasks of this job."""
        job.ready.clear()
        self._jobs.pop(job, None)
        self._alone = deque(task for task in self._alone if task.job is not job)
