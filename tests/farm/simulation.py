"""A plan with simulated workers, which report and fail as `parallel.farm.serving` does.

Nothing here knows a real clock: events have times, and are taken in that order.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from parallel.farm.instructions import (
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
from parallel.farm.plan import Plan
from parallel.farm.tasks import DEFAULT_POLICY, Job, Kind, Policy, Result, Task

SLICE = 0.002
LATE = 0.01
FOREVER = 1e9


@dataclass
class Deed:
    """What a task does."""

    seconds: float = 0.001
    policy: Policy = DEFAULT_POLICY
    worker: str | None = None
    kills: bool = False
    """It ends its worker when half of its time is over."""
    holds_lock: bool = False
    """Its worker cannot say anything meanwhile."""
    job: int = 0


@dataclass
class Outcome:
    """What became of a task."""

    verdicts: list[Instruction] = field(default_factory=list)
    begun: int = 0
    finished: int = 0
    suspected: int = 0
    """Workers that were lost while they had it, and had not said that they had run it."""


class Worker:
    """One that runs what it is sent."""

    def __init__(self, world: World, name: str, kind: Kind, speed: float, delay: float) -> None:
        self.world = world
        self.name = name
        self.kind = kind
        self.speed = speed
        self.delay = delay
        self.is_alive = True
        self.is_running = False
        self.inbox: deque[Send | Skip] = deque()
        self.queue: deque[Task] = deque()
        self.dropped: set[int] = set()
        self.announced = -1
        self.results: list[Result] = []
        self.unreported: Counter[int] = Counter()
        """What it was sent, as the farm knows."""

    def at(self, when: float, what: Callable[[], None]) -> None:
        self.world.at(when, lambda: self.is_alive and what())

    def arrives(self, order: Send | Skip) -> None:
        self.inbox.append(order)
        if not self.is_running:
            self.go_on()

    def say(self, results: list[Result], begun: int | None, busy: bool = False) -> None:
        world, name = self.world, self.name

        def hear() -> None:
            for result in results:
                self.unreported.pop(result.task, None)
            world.do(world.plan.report(name, results, begun, world.now, busy=busy))

        world.at(world.now + self.delay, hear)

    def read(self) -> None:
        while self.inbox:
            match self.inbox.popleft():
                case Send(_, tasks):
                    self.queue.extend(tasks)
                case Skip(_, numbers):
                    waiting = {task.id for task in self.queue} - {self.announced}
                    self.dropped |= waiting.intersection(numbers)

    def go_on(self) -> None:
        """Between two slices."""
        self.is_running = False
        self.read()
        while self.queue and self.queue[0].id in self.dropped:
            self.dropped.discard(self.queue.popleft().id)
        results, self.results = self.results, []
        if not self.queue:
            if results:
                self.say(results, None)
            return
        first = self.queue[0]
        timed = first.policy.timeout is not None
        if timed or results:
            self.announced = first.id
            if timed and results:
                self.say(results, None)
                results = []
            self.say(results, first.id, busy=timed)
        self.run_slice()

    def run_slice(self) -> None:
        self.is_running = True
        start = now = self.world.now
        while self.queue:
            task = self.queue[0]
            timed = task.policy.timeout is not None
            if timed and task.id != self.announced:
                break
            self.queue.popleft()
            if task.id in self.dropped:
                self.dropped.discard(task.id)
                continue
            deed = self.world.deeds[task.id]
            end = now + deed.seconds * self.speed
            self.at(now, lambda task=task: self.world.begin(self, task))
            if deed.kills:
                self.at((now + end) / 2, self.die)
            if now <= start + LATE < end and not deed.holds_lock:
                results = list(self.results)
                self.results = []
                self.at(start + LATE, lambda r=results, n=task.id: self.say(r, n, busy=True))
            self.results.append(Result(task.id, ("value", task.id), end - now))
            now = end
            if timed or now > start + SLICE:
                break
        self.at(now, self.go_on)

    def die(self) -> None:
        self.is_alive = False
        self.world.at(self.world.now + self.delay, lambda: self.world.lose(self))


class World:
    """All workers, and the plan."""

    def __init__(self, deeds: list[Deed], *, backups: bool = True, seed: int = 0) -> None:
        self.plan = Plan(backups=backups)
        self.deeds = deeds
        self.random = random.Random(seed)
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[], object]]] = []
        self.numbers = itertools.count()
        self.names = itertools.count()
        self.at_work: dict[str, Worker] = {}
        self.refusing = {"nobody"}
        """Those that take no tasks of their own, or never were."""
        self.outcomes = [Outcome() for _ in deeds]
        jobs = {deed.job: Job(deed.job) for deed in deeds}
        self.tasks = [
            Task(number, jobs[deed.job], (number,), deed.policy, deed.worker)
            for number, deed in enumerate(deeds)
        ]
        self.jobs = jobs
        self.due = float("inf")

    def at(self, when: float, what: Callable[[], object]) -> None:
        heapq.heappush(self.events, (when, next(self.numbers), what))

    def run(self, seconds: float = 1e6) -> None:
        while self.events and self.now < seconds:
            self.now, _, what = heapq.heappop(self.events)
            what()

    def join(self, kind: Kind = Kind.INTERMINGLED, speed: float = 1.0, delay: float = 1e-4) -> str:
        name = f"w{next(self.names)}"
        self.at_work[name] = Worker(self, name, kind, speed, delay)
        if kind is Kind.UNORDERED:
            self.refusing.add(name)
        self.do(self.plan.join(name, kind, self.now))
        return name

    def submit(self, tasks: list[Task] | None = None) -> None:
        self.do(self.plan.submit(self.tasks if tasks is None else tasks, self.now))

    def begin(self, worker: Worker, task: Task) -> None:
        self.outcomes[task.id].begun += 1

    def lose(self, worker: Worker) -> None:
        """The farm hears that it is gone; another comes in its place."""
        if self.at_work.pop(worker.name, None) is not None:
            for number in worker.unreported:
                self.outcomes[number].suspected += 1
            self.do(self.plan.lose(worker.name, self.now))
            self.join(worker.kind, worker.speed, worker.delay)

    def kill_one(self) -> None:
        """A fault."""
        if self.at_work:
            worker = self.random.choice(list(self.at_work.values()))
            if worker.is_alive:
                worker.die()

    def retire_one(self) -> None:
        if len(self.at_work) > 1:
            name = self.random.choice(list(self.at_work))
            self.do(self.plan.retire(name, self.now))

    def do(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Send(name, tasks):
                    worker = self.at_work[name]
                    worker.unreported.update(task.id for task in tasks)
                    self._order(worker, instruction)
                case Skip(name, _):
                    self._order(self.at_work[name], instruction)
                case Kill(name):
                    worker = self.at_work.pop(name)
                    worker.is_alive = False
                    for number in worker.unreported:  # nobody knows, and it must not run twice
                        self.outcomes[number].suspected += not self.deeds[number].policy.retry
                    self.at(self.now + 0.01, lambda worker=worker: self.join(worker.kind))
                case Release(name):
                    del self.at_work[name]
                case Finished(task, _, _):
                    self.outcomes[task.id].verdicts.append(instruction)
                case TimedOut(task, _) | GivenUp(task, _) | Unrunnable(task):
                    self.outcomes[task.id].verdicts.append(instruction)
                case Retried():
                    pass
        self.check()
        if self.plan.deadline < self.due:
            self.due = self.plan.deadline
            self.at(max(self.due, self.now), self._tick)

    def _order(self, worker: Worker, order: Send | Skip) -> None:
        worker.at(self.now + worker.delay, lambda: worker.arrives(order))

    def _tick(self) -> None:
        self.due = float("inf")
        if self.plan.deadline <= self.now:
            self.do(self.plan.tick(self.now))
        elif self.plan.deadline < self.due:
            self.due = self.plan.deadline
            self.at(self.due, self._tick)

    def check(self) -> None:
        """Nobody idles while there is something to take."""
        plan = self.plan
        assert not (plan._idle and plan._backlog)
