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
  the right one. Where it is one of several suspects, that is so once.
* What a worker was told not to run, but says that it has begun, is its own again.

No event costs more for there being more workers. A task that waits takes 160 bytes of memory, and
what its arguments take.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from .backlog import Backlog
from .deadlines import Deadlines
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
from .sharing import best_to_take
from .tasks import Job, Kind, Result, Task

SILENCE = 0.05
"""Seconds that a worker has to end a task that nobody wants any more, and that is a long one."""

PATIENCE = 1.0
"""Seconds that it has where it has not said that it is a long one: it may be slow to answer."""

PATROL = 0.05
"""Seconds after which idle workers look again for what they could take."""

LOOKS = 8
"""Workers that an idle one looks at."""


class Plan:
    """Decides; `Engine` carries out. `now` is any clock of seconds, the same each time."""

    def __init__(self, *, backups: bool = True) -> None:
        self._backups = backups
        self._workers: OrderedDict[str, Worker] = OrderedDict()
        self._former: set[str] = set()
        """Names of those that were lost or have gone."""
        # All of these are used as ordered sets; the first of a plain dict is not found at once.
        self._idle: OrderedDict[Worker, None] = OrderedDict()
        self._hungry: OrderedDict[Worker, None] = OrderedDict()
        self._busy: OrderedDict[Worker, None] = OrderedDict()
        self._backlog = Backlog()
        self._deadlines = Deadlines(self._workers)
        self._patrol = math.inf
        self._public = 0
        """Workers that take tasks for anybody."""
        self._out: list[Instruction] = []

    # -- what can be asked -----------------------------------------------------------------------

    @property
    def busy(self) -> int:
        """Those that have something to do."""
        return len(self._busy)

    def work_of(self, name: str) -> tuple[int, float]:
        """Tasks that a worker has run, and the seconds that they took."""
        worker = self._workers.get(name)
        return (worker.done, worker.worked) if worker is not None else (0, 0.0)

    @property
    def deadline(self) -> float:
        """When to call `tick`."""
        return min(self._deadlines.first, self._patrol)

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
            if task.job.cancelled:
                continue
            task.job.tasks += 1
            if task.worker is None:
                self._backlog.put(task)
            else:
                self._queue_for(task.worker, task, now)
        return self._decide(now)

    def cancel(self, job: Job, now: float) -> list[Instruction]:
        """No task of this job is of any use any more; who runs one is killed if it goes on."""
        job.cancelled = True
        self._backlog.drop(job)
        job.tasks = 0
        withdrawn: dict[str, list[Task]] = {}
        for task in job.outstanding:
            task.alive = False
            for name in task.holders:
                withdrawn.setdefault(name, []).append(task)
        job.outstanding.clear()
        for name, tasks in withdrawn.items():
            self._withdraw(self._workers[name], tasks, now)
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
            suspects = worker.suspects
            for task in suspects:
                # Without proof once at most: it may have been with two workers, and run on none.
                if task.alive and (len(suspects) == 1 or not task.attempts):
                    task.attempts += 1
            self._dismiss(worker)
        return self._decide(now)

    def report(
        self,
        name: str,
        results: Sequence[Result],
        begun: int | None,
        now: float,
        *,
        busy: bool = False,
    ) -> list[Instruction]:
        """A worker has run these tasks, and begins that one; `busy`: and no other after it yet."""
        worker = self._workers.get(name)
        if worker is None:
            return []
        worker.heard(now, len(results), sum(result.seconds for result in results))
        for result in results:
            task = worker.has_run(result.task)
            if task is not None and task.is_wanted:
                task.job.measured(result.seconds, task.args, result.value)
                self._end(task, now)
                self._out.append(Finished(task, result, name))
        if begun is not None and (task := worker.has_begun(begun)) is not None:
            worker.busy = busy
            if not task.is_wanted:
                self._end_soon(worker, task, now)
            elif task.policy.timeout is not None:
                self._deadlines.add(worker, task, now + task.policy.timeout)
        self._place(worker, now)
        return self._decide(now)

    def unsent(self, name: str, numbers: Sequence[int], now: float) -> list[Instruction]:
        """A worker has not been sent these, for nobody wants them any more."""
        worker = self._workers.get(name)
        if worker is not None:
            for number in numbers:
                worker.let_go(number)
            self._place(worker, now)
        return self._decide(now)

    def miss(self, name: str, numbers: Sequence[int], now: float) -> list[Instruction]:
        """A worker could not read these, or not be understood about them: again, each alone."""
        worker = self._workers.get(name)
        if worker is not None:
            found = [held for number in numbers if (held := worker.let_go(number)) is not None]
            tasks = [held.task for held in found]
            for task in tasks:
                task.singly = True
            self._put_back(worker, tasks)
            self._place(worker, now)
        return self._decide(now)

    def tick(self, now: float) -> list[Instruction]:
        """So late is it. To be called at `deadline`, after all that has arrived was reported."""
        self._patrol = math.inf
        for worker, task in self._deadlines.over(now):
            if task.alive:
                self._end(task, now)
                self._out.append(TimedOut(task, worker.name))
            self._kill(worker)
        return self._decide(now)

    # -- tasks -----------------------------------------------------------------------------------

    def _queue_for(self, name: str, task: Task, now: float) -> None:
        """It is ready for that worker alone."""
        worker = self._workers.get(name)
        is_gone = worker.retiring if worker is not None else name in self._former
        if is_gone and task.policy.do_it_anyway:
            task.worker = None
            self._backlog.put(task)
        elif worker is None or is_gone or worker.kind is Kind.UNORDERED:
            self._fail(Unrunnable(task))
        else:
            worker.own.append(task)
            self._place(worker, now)

    def _put_back(self, worker: Worker, tasks: Iterable[Task]) -> None:
        """What a worker had that goes or has gone: to others, in front, if that may be."""
        again: list[Task] = []
        for task in tasks:
            if not task.is_wanted or task.holders:
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
            self._backlog.put(task, in_front=True)

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
            self._end_soon(worker, running, now)
        self._place(worker, now)

    def _end_soon(self, worker: Worker, task: Task, now: float) -> None:
        """Kill it if it goes on with this."""
        patience = SILENCE if worker.busy else PATIENCE
        self._deadlines.add(worker, task, max(now, worker.since + patience))

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
                self._former.add(worker.name)
                self._out.append(Release(worker.name))
                return
        if worker.kind is Kind.ORDERED or worker.retiring:
            return
        if not worker.held:
            self._idle[worker] = None
        elif worker.is_hungry and not worker.own:  # what waits there waits for it to be idle
            self._hungry[worker] = None

    def _dismiss(self, worker: Worker) -> None:
        """It is no worker any more; what it has goes to others."""
        del self._workers[worker.name]
        self._former.add(worker.name)
        self._public -= worker.kind is not Kind.ORDERED and not worker.retiring
        for places in (self._idle, self._hungry, self._busy):
            places.pop(worker, None)
        tasks = [held.task for held in worker.held.values()]
        for task in tasks:
            worker.let_go(task.id)
        self._put_back(worker, [*tasks, *worker.own])

    def _kill(self, worker: Worker) -> None:
        self._out.append(Kill(worker.name))
        for task in worker.suspects:
            if task.alive and not task.policy.retry:
                task.attempts += 1
        self._dismiss(worker)

    def _send(self, worker: Worker, tasks: list[Task], now: float) -> None:
        worker.hold(tasks, now)
        self._out.append(Send(worker.name, tasks))

    def _take_back(self, worker: Worker, tasks: list[Task]) -> None:
        """It shall not run these, unless it has begun one just now."""
        if tasks:
            for task in tasks:
                worker.take_back(task)
            self._out.append(Skip(worker.name, [task.id for task in tasks]))

    # -- decisions -------------------------------------------------------------------------------

    def _decide(self, now: float) -> list[Instruction]:
        """Who gets what; all that is to be done since the last decision."""
        backlog = self._backlog
        while self._idle and backlog:
            if backlog.next_job is None:
                self._give(self._idle, [backlog.take_one_alone()], now)
            else:
                self._give_batch(self._idle, backlog.next_job, now)
        # While a task waits to go alone, nobody who could become idle gets more.
        while self._hungry and not backlog.has_one_alone and (job := backlog.next_job) is not None:
            self._give_batch(self._hungry, job, now)
        self._patrol = math.inf
        if self._idle and self._busy and not backlog:
            self._share(now)
        out, self._out = self._out, []
        return out

    def _give_batch(self, workers: OrderedDict[Worker, None], job: Job, now: float) -> None:
        worker = next(iter(workers))
        # Towards the end less, so that all end together.
        fair = -(-len(job.ready) // (2 * self._public))
        count = min(worker.batch_of(job), max(1, fair))
        self._give(workers, self._backlog.take(job, count), now)

    def _give(self, workers: OrderedDict[Worker, None], tasks: list[Task], now: float) -> None:
        # One that had been taken back too late may have ended since, or be with its worker again.
        if tasks := [task for task in tasks if task.alive and not task.holders]:
            worker = next(iter(workers))
            self._send(worker, tasks, now)
            self._place(worker, now)

    def _share(self, now: float) -> None:
        """Idle workers take something off busy ones."""
        for thief in list(itertools.islice(self._idle, LOOKS)):
            looked_at = list(itertools.islice(self._busy, LOOKS))
            for worker in looked_at:
                self._busy.move_to_end(worker)  # others the next time
            victim, tasks = best_to_take(looked_at, now, backups=self._backups)
            if victim is None:
                break
            if tasks[0] is not victim.running:
                self._take_back(victim, tasks)
                self._place(victim, now)
            self._send(thief, tasks, now)
            self._place(thief, now)
        if self._idle:
            self._patrol = now + PATROL
