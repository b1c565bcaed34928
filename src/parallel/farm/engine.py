"""The engine: carries out what a farm's plan decides, and tells it what happens."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import trio

from ..failure import Failure
from .desk import Desk
from .events import (
    Event,
    TaskEnded,
    TaskRecalled,
    TaskRetried,
    TasksSent,
    WorkerJoined,
    WorkerLeft,
)
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
from .journal import JournalError, OpenJournal
from .messages import Drop, Forget, Report
from .plan import Plan
from .results import Done, TaskLost, TaskTimeout, TaskUnrunnable
from .statistics import Statistics, Tally, WorkerStatistics
from .stream import Stream, label
from .tasks import Job, Kind, Policy, Result, Task

Observer = Callable[[Event], None]

PULSE = 0.1
"""Seconds after which the engine looks whether it was stopped, while there is a deadline."""

STOPPED = 0.1
"""Seconds that it is late for that, from which on it was."""

MERCY = 1.0
"""Seconds that it takes at most to read what has arrived in the meantime."""


class Engine:
    """A plan, its workers' desks and its streams."""

    def __init__(self, plan: Plan, journal: OpenJournal | None = None) -> None:
        self.plan = plan
        self.journal = journal
        self.tally = Tally(trio.current_time())
        self.desks: dict[str, Desk] = {}
        self.streams: dict[int, Stream] = {}
        self.observers: list[Observer] = []
        self.at_end: list[Callable[[], None]] = []
        """What those want to do who wait for events that will not come any more."""
        self.deaths: dict[str, BaseException] = {}
        self.failed: BaseException | None = None
        """Why no stream will get anything any more."""
        self.broken: BaseException | None = None
        """Why there is no farm any more."""
        self.on_broken: Callable[[], None] = lambda: None
        self._jobs = itertools.count()
        self._tasks = itertools.count()
        self._alarm = trio.Event()
        self._asleep_until = math.inf
        self._token = trio.lowlevel.current_trio_token()

    # -- streams ---------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    def open_stream(self, fn: Callable[..., Any], policy: Policy) -> Stream:
        """For tasks that call `fn`."""
        if not callable(fn):
            raise TypeError(f"a farm's tasks call a function, and {fn!r} is none")
        stream = Stream(self, Job(next(self._jobs), label(fn)), fn, policy)
        if self.journal is not None:
            stream.job.key = self.journal.call(fn)
        if self.failed is not None:
            stream.error = self.failed
        self.streams[stream.job.id] = stream
        return stream

    @trio.lowlevel.enable_ki_protection
    def close_stream(self, stream: Stream) -> None:
        """Its tasks are of no use any more."""
        if self.streams.pop(stream.job.id, None) is None:
            return
        self.tally.close(stream)
        self._carry_out(self.plan.cancel(stream.job, trio.current_time()))
        for desk in self.desks.values():
            if stream.job.id in desk.defined:
                desk.defined.discard(stream.job.id)
                desk.post(Forget(stream.job.id))

    def discard(self, close: Callable[[], None]) -> None:
        """Close something soon; may be called from anywhere, while garbage is collected too."""
        self._token.run_sync_soon(close)

    def wanted(self, job: Job) -> int:
        """How many tasks of this job at once keep every worker busy."""
        return self.plan.wanted(job)

    def next_number(self) -> int:
        """The number of a new task."""
        return next(self._tasks)

    @trio.lowlevel.enable_ki_protection
    def submit(self, stream: Stream, tasks: Sequence[Task]) -> None:
        """The stream has these tasks."""
        if self.journal is not None:
            tasks = self._recall(self.journal, stream, tasks)
        self._carry_out(self.plan.submit(tasks, trio.current_time()))

    # -- what workers do -------------------------------------------------------------------------

    def join(self, desk: Desk, kind: Kind) -> None:
        """A worker is ready."""
        self.desks[desk.name] = desk
        self.failed = self.broken
        self.tell(WorkerJoined(desk.name, desk.place))
        self._carry_out(self.plan.join(desk.name, kind, trio.current_time()))

    def leave(self, desk: Desk, reason: BaseException | None) -> None:
        """A worker is gone."""
        if self.desks.pop(desk.name, None) is not None:
            if reason is not None:
                self.deaths[desk.name] = reason
            # Also when all is being cancelled: a stream may yet be closed, and the plan asked.
            self._carry_out(self.plan.lose(desk.name, trio.current_time()))
            self.deaths.pop(desk.name, None)
        self.tell(WorkerLeft(desk.name, desk.place, reason))

    @trio.lowlevel.enable_ki_protection
    def retire(self, name: str) -> None:
        """The worker shall go when it has done what it is at."""
        self._carry_out(self.plan.retire(name, trio.current_time()))

    def report(self, desk: Desk, report: Report) -> None:
        """A worker has said this."""
        if desk.name in self.desks:
            results, begun, busy, _ = report
            now = trio.current_time()
            self._carry_out(self.plan.report(desk.name, results, begun, now, busy=busy))
            self.tally.sample(self.streams.values(), now)

    def unsent(self, desk: Desk, tasks: list[int]) -> None:
        """A worker has not been sent these, for nobody wants them any more."""
        self._carry_out(self.plan.unsent(desk.name, tasks, trio.current_time()))

    def miss(self, desk: Desk, tasks: list[int], error: BaseException) -> None:
        """These, or what a worker said of them, cannot be sent or read; one alone has failed."""
        if len(tasks) == 1:
            self.report(desk, Report([Result(tasks[0], Failure(error), 0.0, failed=True)]))
        else:
            self._carry_out(self.plan.miss(desk.name, tasks, trio.current_time()))

    def function(self, job: int) -> Callable[..., Any] | None:
        """What the tasks of this job call; None when nobody wants them any more."""
        stream = self.streams.get(job)
        return stream.fn if stream is not None else None

    def spoil(self, job: int, error: BaseException) -> None:
        """What the tasks of this job call cannot be had in a worker."""
        stream = self.streams.get(job)
        if stream is not None:
            stream.fail(error)

    def holds(self, name: str) -> list[int]:
        """The tasks that the worker has, in the order in which it will report them."""
        return self.plan.holds(name)

    @trio.lowlevel.enable_ki_protection
    async def keep_time(self) -> None:
        """Tell the plan how late it is, whenever it wants to know.

        After this program was busy with something else, or stopped, what has arrived in the
        meantime is read first: nobody is judged by time that was lost here.
        """
        judging_from = -math.inf
        while True:
            self._alarm = trio.Event()
            if (until := self.plan.deadline) < math.inf:
                until = min(max(until, judging_from), trio.current_time() + PULSE)
            self._asleep_until = until
            with trio.move_on_at(until):
                await self._alarm.wait()
            now = trio.current_time()
            stopped = now - self._asleep_until
            if stopped > STOPPED and now - judging_from > MERCY:
                judging_from = now + min(stopped, MERCY)
            if now >= max(self.plan.deadline, judging_from):
                await trio.sleep(0.002)  # so that what has arrived is read
                self._carry_out(self.plan.tick(trio.current_time()))

    def tell(self, event: Event) -> None:
        """Something has happened that others may want to know."""
        for observer in self.observers:
            observer(event)

    def fail(self, error: BaseException) -> None:
        """No stream will get anything any more."""
        self.failed = error
        for stream in list(self.streams.values()):
            stream.fail(error)

    def break_down(self, error: BaseException) -> None:
        """There is no going on."""
        if self.broken is None:
            self.broken = error
            self.fail(error)
            self.on_broken()

    def end(self) -> None:
        """Nothing will happen any more."""
        for call in self.at_end:
            call()

    def close(self) -> None:
        """Nobody wants anything any more."""
        for stream in list(self.streams.values()):
            stream.close()

    # -- what there is to see --------------------------------------------------------------------

    @property
    def ended(self) -> int:
        """Tasks that have ended, one way or the other."""
        return self.tally.ended(self.streams.values())

    @property
    def expected(self) -> int | None:
        """How many there will be; None where that is not known."""
        return self.tally.expected(self.streams.values())

    def statistics(self) -> Statistics:
        """What has been done so far."""
        workers = tuple(
            WorkerStatistics(desk.name, desk.place, *self.plan.work_of(desk.name))
            for desk in self.desks.values()
        )
        return self.tally.summary(self.streams.values(), workers, trio.current_time())

    # -- the journal -----------------------------------------------------------------------------

    def _recall(self, journal: OpenJournal, stream: Stream, tasks: Sequence[Task]) -> list[Task]:
        """Deliver what the journal has; the rest."""
        try:
            found = journal.recall(tasks)
        except JournalError as exc:
            self.fail(exc)
            raise
        for place, done in found.items():
            stream.end(done)
            if self.observers:
                self.tell(TaskRecalled(tasks[place], done))
        self.tally.recalled += len(found)
        return [task for place, task in enumerate(tasks) if place not in found]

    def _keep_and_do(self, journal: OpenJournal, instructions: list[Instruction]) -> None:
        """Write what has ended before anybody sees it; where that fails nobody does."""
        finished = [each for each in instructions if isinstance(each, Finished)]
        try:
            journal.keep(finished)
        except JournalError as exc:
            self._do([each for each in instructions if not isinstance(each, Finished)])
            self.fail(exc)
        else:
            self._do(instructions)

    # -- instructions ----------------------------------------------------------------------------

    def _carry_out(self, instructions: list[Instruction]) -> None:
        if self.journal is None:
            self._do(instructions)
        else:
            self._keep_and_do(self.journal, instructions)
        if self.plan.deadline < self._asleep_until:
            self._alarm.set()

    def _do(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Finished(task, result, worker):
                    self._end(task, result, worker)
                case Send(worker, tasks):
                    self.desks[worker].post_tasks(tasks)
                    if self.observers:
                        self.tell(TasksSent(worker, tasks))
                case Skip(worker, numbers):
                    self.desks[worker].post(Drop(numbers))
                case Kill(worker):
                    self.desks.pop(worker).kill()
                case Release(worker):
                    self.desks[worker].release()
                case Retried(task, worker):
                    self.tally.retried += 1
                    self.tell(TaskRetried(worker, task))
                case TimedOut() | GivenUp() | Unrunnable():
                    self._end_unfinished(instruction)

    def _end(self, task: Task, result: Result, worker: str) -> None:
        stream = self.streams.get(task.job.id)
        if stream is None:
            return
        _, value, seconds, failed = result
        if failed:
            self.tally.failed += 1
            done = Done(task.args, None, value.exception, task.tag, worker, seconds, task.attempts)
        else:
            done = Done(task.args, value, None, task.tag, worker, seconds, task.attempts)
        stream.end(done)
        if self.observers:
            self.tell(TaskEnded(worker, task, done))

    def _end_unfinished(self, verdict: TimedOut | GivenUp | Unrunnable) -> None:
        """A task of which no worker said what came of it."""
        task = verdict.task
        stream = self.streams.get(task.job.id)
        if stream is None:
            return
        name = stream.name(task.args)
        error: Exception
        match verdict:
            case TimedOut(_, worker):
                timeout = task.policy.timeout or 0.0
                error, seconds = TaskTimeout(name, worker, timeout), timeout
                self.tally.failed += 1
            case GivenUp(_, worker):
                error, seconds = TaskLost(name, worker, task.attempts), 0.0
                error.__cause__ = self.deaths.get(worker)
                self.tally.lost += 1
            case Unrunnable(_):
                worker, seconds = task.worker or "", 0.0
                error = TaskUnrunnable(name, worker)
                self.tally.lost += 1
                error.__cause__ = self.deaths.get(worker)
        done = Done(task.args, None, error, task.tag, worker, seconds, task.attempts)
        stream.end(done)
        self.tell(TaskEnded(worker, task, done))
