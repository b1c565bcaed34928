"""The plan: which task goes to which worker, and what to do after each event. Pure.

Events go in (a task was submitted; a worker came, reported, was lost; time has passed),
instructions come out. The rules:

* A worker has at most about two batches: one that it works on, and one so that it need not wait.
  Batches are sized by how long the job's tasks took so far; a task that takes longer than a batch
  travels alone.
* Where a worker is idle and nothing is left to send, it takes half of what waits behind another
  one's task, and when there is nothing of that either, a copy of a task that has been running for
  much longer than others did. Whoever is first has the result; a second one is dropped.
* What is lost with a worker is queued again, in front. A task that was running then, or may have
  been, has used up one of its attempts, and goes alone from then on, so that the next loss convicts
  the right one.

No event costs more for there being more workers.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .instructions import (
    Finished,
    GivenUp,
    Instruction,
    Kill,
    Release,
    Retried,
    Send,
    Skip,
    TimedOut,
    Unrunnable,
)
from .roster import Worker
from .tasks import Job, Kind, Result, Task

SILENCE = 0.05
"""Seconds after its last report from which on a worker is sure to be at the first task it has.

Before, it may have begun another: it reports every few milliseconds, not after each task."""

WORTH_TAKING = 0.005
"""Seconds of work behind a task, or of lateness, from which on it pays to take it elsewhere."""

SLOW = 3.0
"""So many times as long as the others took makes a straggler of a task."""

SLOW_FROM = 0.2
"""Seconds before which none is one."""

PATROL = 0.05
"""Seconds after which idle workers look again for what they could take."""

LOOKS = 8
"""Workers that an idle one looks at."""


class _Deadline(NamedTuple):
    """When a worker is killed that is still at this task then."""

    when: float
    number: int
    worker: str
    task: Task


class Plan:
    """Decides; `Engine` carries out. `now` is any clock of seconds, the same each time."""

    def __init__(self, *, backups: bool = True) -> None:
        self._backups = backups
        self._workers: dict[str, Worker] = {}
        # All of these are used as ordered sets.
        self._idle: dict[Worker, None] = {}
        self._hungry: dict[Worker, None] = {}
        self._busy: dict[Worker, None] = {}
        self._ready: dict[Job, None] = {}
        self._alone: deque[Task] = deque()
        """Tasks for any worker that go alone."""
        self._alone_first = True
        self._deadlines: list[_Deadline] = []
        self._numbers = itertools.count()
        self._patrol = math.inf
        self._public = 0
        """Workers that take tasks for anybody."""
        self._out: list[Instruction] = []

    # -- what can be asked -----------------------------------------------------------------------

    @property
    def workers(self) -> int:
        """Those that take tasks for anybody."""
        return self._public

    @property
    def deadline(self) -> float:
        """When to call `tick`."""
        first = self._deadlines[0].when if self._deadlines else math.inf
        return min(first, self._patrol)

    def wanted(self, job: Job) -> int:
        """How many tasks of this job at once keep every worker busy."""
        size = 1
        for worker in itertools.islice(self._workers.values(), LOOKS):
            size = max(size, worker.batch_of(job))
        return 4 * max(1, self._public) * size

    def holds(self, name: str) -> list[int]:
        """The tasks that a worker has, in the order in which it will report them."""
        worker = self._workers.get(name)
        return list(worker.held) if worker is not None else []

    # -- events ----------------------------------------------------------------------------------

    def submit(self, tasks: Iterable[Task], now: float) -> list[Instruction]:
        """These are to be run."""
        for task in tasks:
            task.job.tasks += 1
            if task.worker is None:
                self._queue(task)
            else:
                self._queue_for(task.worker, task, now)
        return self._decide(now)

    def cancel(self, job: Job, now: float) -> list[Instruction]:
        """No task of this job is of any use any more; who runs one is killed if it goes on."""
        job.cancelled = True
        job.ready.clear()
        self._ready.pop(job, None)
        job.tasks = 0
        withdrawn: dict[str, list[Task]] = {}
        for task in job.outstanding:
            task.alive = False
            for name in task.holders:
                withdrawn.setdefault(name, []).append(task)
        job.outstanding.clear()
        for name, tasks in withdrawn.items():
            self._withdraw(self._workers[name], tasks, now)
        self._alone = deque(task for task in self._alone if task.job is not job)
        return self._decide(now)

    def join(self, name: str, kind: Kind, now: float) -> list[Instruction]:
        """A worker has come."""
        assert name not in self._workers
        worker = self._workers[name] = Worker(name, kind, now)
        self._public += kind is not Kind.ORDERED
        self._place(worker, now)
        return self._decide(now)

    def retire(self, name: str, now: float) -> list[Instruction]:
        """A worker shall go when it has done what it is at; its other tasks are handed back."""
        worker = self._workers.get(name)
        if worker is not None and not worker.retiring:
            worker.retiring = True
            self._public -= worker.kind is not Kind.ORDERED
            waiting = worker.waiting
            self._take_back(worker, waiting)
            self._put_back(worker, [*waiting, *worker.own])
            worker.own.clear()
            self._place(worker, now)
        return self._decide(now)

    def lose(self, name: str, now: float) -> list[Instruction]:
        """A worker is gone, and what it had with it."""
        worker = self._workers.get(name)
        if worker is not None:
            held = [task for task, _ in worker.held.values()]
            # Where it fell silent long ago it was at the first; else it may have been at any.
            suspects = held[:1] if now - worker.since > SILENCE else held
            for task in suspects:
                if task.alive:
                    task.attempts += 1
            self._dismiss(worker)
        return self._decide(now)

    def report(
        self, name: str, results: Sequence[Result], begun: int | None, now: float
    ) -> list[Instruction]:
        """A worker has run these tasks, and begins that one."""
        worker = self._workers.get(name)
        if worker is None:
            return []
        worker.heard(now, sum(result.seconds for result in results))
        for result in results:
            task = worker.let_go(result.task)
            if task is not None and task.alive:
                task.job.measured(result.seconds)
                self._end(task, now)
                self._out.append(Finished(task, result, name))
        if begun is not None and begun in worker.held:
            task = worker.held[begun].task
            if task.policy.timeout is not None:
                self._expect(worker, task, now + task.policy.timeout)
        self._place(worker, now)
        return self._decide(now)

    def miss(self, name: str, numbers: Sequence[int], now: float) -> list[Instruction]:
        """A worker has run these, but what it said of them could not be read: again, each alone."""
        worker = self._workers.get(name)
        if worker is not None:
            tasks = [task for number in numbers if (task := worker.let_go(number)) is not None]
            for task in tasks:
                task.attempts += 1
            self._put_back(worker, tasks)
            self._place(worker, now)
        return self._decide(now)

    def tick(self, now: float) -> list[Instruction]:
        """So late is it. To be called at `deadline`, after all that has arrived was reported."""
        self._patrol = math.inf
        while self._deadlines and self._deadlines[0].when <= now:
            _, _, name, task = heapq.heappop(self._deadlines)
            worker = self._workers.get(name)
            if worker is None or worker.running is not task:
                continue
            if task.alive:
                self._end(task, now)
                self._out.append(TimedOut(task, name))
            self._kill(worker)
        return self._decide(now)

    # -- tasks -----------------------------------------------------------------------------------

    def _queue(self, task: Task, *, in_front: bool = False) -> None:
        """It is ready for any worker."""
        if task.is_alone:
            self._alone.append(task)
        else:
            if in_front:
                task.job.ready.appendleft(task)
            else:
                task.job.ready.append(task)
            self._ready[task.job] = None

    def _queue_for(self, name: str, task: Task, now: float) -> None:
        """It is ready for that worker alone."""
        worker = self._workers.get(name)
        if worker is None or worker.retiring or worker.kind is Kind.UNORDERED:
            self._fail(Unrunnable(task))
        else:
            worker.own.append(task)
            self._place(worker, now)

    def _put_back(self, worker: Worker, tasks: Iterable[Task]) -> None:
        """What a worker had that goes or has gone: to others, in front, if that may be."""
        again: list[Task] = []
        for task in tasks:
            if not task.alive or task.holders:
                continue  # nobody wants it, or somebody else has it too
            task.job.outstanding.discard(task)
            policy = task.policy
            if task.worker is not None and not policy.do_it_anyway:
                self._fail(Unrunnable(task))
            elif task.attempts >= policy.attempts or (task.attempts and not policy.retry):
                self._fail(GivenUp(task, worker.name))
            else:
                task.worker = None
                again.append(task)
                if task.attempts:
                    self._out.append(Retried(task, worker.name))
        for task in reversed(again):
            self._queue(task, in_front=True)

    def _fail(self, verdict: GivenUp | Unrunnable) -> None:
        verdict.task.alive = False
        verdict.task.job.tasks -= 1
        self._out.append(verdict)

    def _end(self, task: Task, now: float) -> None:
        """It has an outcome; who else has it need not go on."""
        task.alive = False
        task.job.tasks -= 1
        task.job.outstanding.discard(task)
        for name in task.holders:
            self._withdraw(self._workers[name], [task], now)

    def _withdraw(self, worker: Worker, tasks: list[Task], now: float) -> None:
        """Nobody wants these any more; what may be running has a moment to end by itself."""
        running = worker.running
        self._take_back(worker, [task for task in tasks if task is not running])
        if running is not None and running in tasks:
            self._expect(worker, running, max(now, worker.since + SILENCE))
        self._place(worker, now)

    def _expect(self, worker: Worker, task: Task, when: float) -> None:
        """Who is at this task then is killed."""
        heapq.heappush(self._deadlines, _Deadline(when, next(self._numbers), worker.name, task))

    # -- workers ---------------------------------------------------------------------------------

    def _place(self, worker: Worker, now: float) -> None:
        """Give it what is for it alone, and put it where its state belongs."""
        self._idle.pop(worker, None)
        self._hungry.pop(worker, None)
        while worker.own and not worker.alone and (not worker.held or worker.is_hungry):
            task = worker.own[0]
            if task.job.cancelled:
                worker.own.popleft()
            elif task.is_alone and worker.held:
                break
            else:
                self._send(worker, [worker.own.popleft()], now)
        if worker.held:
            self._busy[worker] = None
        else:
            self._busy.pop(worker, None)
            if worker.retiring:
                del self._workers[worker.name]
                self._out.append(Release(worker.name))
                return
        if worker.kind is Kind.ORDERED or worker.retiring:
            return
        if not worker.held:
            self._idle[worker] = None
        elif worker.is_hungry:
            self._hungry[worker] = None

    def _dismiss(self, worker: Worker) -> None:
        """It is no worker any more; what it has goes to others."""
        del self._workers[worker.name]
        self._public -= worker.kind is not Kind.ORDERED and not worker.retiring
        for places in (self._idle, self._hungry, self._busy):
            places.pop(worker, None)
        tasks = [task for task, _ in worker.held.values()]
        for task in tasks:
            worker.let_go(task.id)
        self._put_back(worker, [*tasks, *worker.own])

    def _kill(self, worker: Worker) -> None:
        self._out.append(Kill(worker.name))
        self._dismiss(worker)

    def _send(self, worker: Worker, tasks: list[Task], now: float) -> None:
        worker.hold(tasks, now)
        self._out.append(Send(worker.name, tasks))

    def _take_back(self, worker: Worker, tasks: list[Task]) -> None:
        """It shall not run these, unless it has begun one just now."""
        if tasks:
            for task in tasks:
                worker.let_go(task.id)
                worker.taken[task.id] = task
            self._out.append(Skip(worker.name, [task.id for task in tasks]))

    # -- decisions -------------------------------------------------------------------------------

    def _decide(self, now: float) -> list[Instruction]:
        """Who gets what; all that is to be done since the last decision."""
        while self._idle and (self._alone or self._ready):
            if self._alone and (self._alone_first or not self._ready):
                self._give(self._idle, [self._alone.popleft()], now)
                self._alone_first = False
            else:
                self._give_batch(self._idle, now)
                self._alone_first = True
        # While a task waits to go alone, nobody who could become idle gets more.
        while self._hungry and self._ready and not self._alone:
            self._give_batch(self._hungry, now)
        self._patrol = math.inf
        if self._idle and self._busy and not self._alone:
            self._share(now)
        out, self._out = self._out, []
        return out

    def _give_batch(self, workers: dict[Worker, None], now: float) -> None:
        worker, job = next(iter(workers)), next(iter(self._ready))
        # Towards the end less, so that all end together.
        fair = -(-len(job.ready) // (2 * self._public))
        count = min(worker.batch_of(job), max(1, fair))
        tasks = [job.ready.popleft() for _ in range(count)]
        del self._ready[job]
        if job.ready:
            self._ready[job] = None  # at the end: the jobs take turns
        self._give(workers, tasks, now)

    def _give(self, workers: dict[Worker, None], tasks: list[Task], now: float) -> None:
        worker = next(iter(workers))
        self._send(worker, tasks, now)
        self._place(worker, now)

    def _share(self, now: float) -> None:
        """Idle workers take something off busy ones."""
        for thief in list(itertools.islice(self._idle, LOOKS)):
            best = max(self._next_busy(), key=lambda worker: self._gain(worker, now))
            if self._gain(best, now) <= 0:
                break
            running = best.running
            if waiting := self._movable(best):
                tasks = waiting[len(waiting) // 2 :]
                self._take_back(best, tasks)
                self._place(best, now)
            else:
                assert running is not None
                tasks = [running]
            self._send(thief, tasks, now)
            self._place(thief, now)
        if self._idle:
            self._patrol = now + PATROL

    def _movable(self, worker: Worker) -> list[Task]:
        """What waits there and may as well run elsewhere."""
        return [task for task in worker.waiting if task.worker is None]

    def _next_busy(self) -> list[Worker]:
        """A few, others each time."""
        looked_at = list(itertools.islice(self._busy, LOOKS))
        for worker in looked_at:
            del self._busy[worker]
            self._busy[worker] = None
        return looked_at

    def _gain(self, worker: Worker, now: float) -> float:
        """Seconds that it helps to take something off this one."""
        running = worker.running
        if running is None or worker.alone:
            return 0.0
        estimate = worker.held[running.id].estimate
        late = max(0.0, now - worker.since - estimate)
        if self._movable(worker):
            gain = worker.load - estimate + late
            return gain if gain > WORTH_TAKING else 0.0
        mean = running.job.mean
        is_copied = len(running.holders) > 1 or not running.alive
        if not self._backups or is_copied or running.worker is not None or mean is None:
            return 0.0
        return late if now - worker.since > max(SLOW * mean, SLOW_FROM) else 0.0
