"""`Farm`: many tasks on persistent workers. `open_farm` makes one."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from typing import Any, TypeVar

import trio
from trio.lowlevel import enable_ki_protection

from .algorithm import Algorithm, Mailbox
from .audit import Audit
from .commands import command
from .computation import Computation, Master
from .deployment import Deployment, Setup
from .engine import Engine
from .events import Event, WorkerJoined, WorkerLeft
from .feed import Feed, Source
from .journal import Journal, open_journal
from .maps import Maps
from .monitors import Path, opened_monitors
from .plan import Plan
from .processes import Processes
from .results import Done
from .staff import Staff
from .statistics import Statistics
from .tasks import DEFAULT_POLICY, Kind, Policy

A = TypeVar("A")
C = TypeVar("C")


class Farm(Maps):
    """Persistent workers, and what they can be given to do.

    Every call that takes a `policy` says with it what becomes of a task whose worker is lost, and
    how long one may take; by default it is tried three times. Every function may be sync or async;
    a sync one runs in the main thread of its worker. An item of `xs` is read when there is room for
    its task, so `xs` may be endless, and async.
    """

    def __init__(self, engine: Engine, staff: Staff, nursery: trio.Nursery) -> None:
        super().__init__(engine, nursery)
        self._staff = staff
        self._mailbox = Mailbox()

    # -- generated tasks -------------------------------------------------------------------------

    async def compute(
        self,
        worker: Callable[[A], Any],
        master: Master[A, C, Any],
        tasks: Source[tuple[A, C]],
        *,
        policy: Policy = DEFAULT_POLICY,
    ) -> None:
        """Run `worker(a)` for each task `(a, c)`; let `master((a, c), result)` make new tasks.

        `c` stays here. `master` runs here, one result at a time, may be async, and returns an
        iterable of tasks, or None. It ends when there is no task left; raises what `worker` or
        `master` raises, and ends the other tasks then.
        """
        computation = self.computation(worker, master, policy=policy)
        stream = computation.stream
        feed = Feed(stream, tasks, lambda task: ((task[0],), task[1]), self._nursery)
        try:
            while True:
                feed.pull()
                if stream.pending:
                    await computation.step()
                elif feed.is_over:
                    return
                else:
                    await stream.wait()
        finally:
            feed.stop()
            computation.kill()

    def computation(
        self,
        worker: Callable[[A], Any],
        master: Master[A, C, Any],
        *,
        policy: Policy = DEFAULT_POLICY,
    ) -> Computation[A, Any, C]:
        """The same step by step; several can be under way at once, and take turns."""
        return Computation(lambda: self._engine.open_stream(worker, policy), master)

    # -- algorithms ------------------------------------------------------------------------------

    def algorithm(
        self, f: Callable[..., Any], *, target: int = 1000, policy: Policy = DEFAULT_POLICY
    ) -> Algorithm[Any]:
        """For tasks that are submitted one by one; `target` of them may be pending at once."""
        stream = self._engine.open_stream(f, policy)
        algorithm = Algorithm[Any](self._mailbox, stream, target, policy)
        stream.on_end = algorithm.end
        stream.on_fail = algorithm.fail
        return algorithm

    async def results(self) -> AsyncGenerator[Done[Any], None]:
        """What came of the tasks of all algorithms, as it comes.

        Ends when none is pending and no algorithm's `async with` block is open. A failure is a
        result like others: `done.error`, or `done.unwrap()`, which raises it.
        """
        mailbox = self._mailbox
        while True:
            await trio.lowlevel.checkpoint()
            while mailbox.done:
                done = mailbox.done.popleft()
                done.algorithm.taken()
                yield done
            for algorithm in mailbox.algorithms:
                algorithm.check()
            if mailbox.is_over:
                return
            if not mailbox.done:
                await mailbox.parked.park()

    def unrunnable(self) -> list[Done[Any]]:
        """The tasks of algorithms that were for workers that are gone, or never were; each once."""
        unrunnable, self._mailbox.unrunnable = self._mailbox.unrunnable, []
        return unrunnable

    @property
    def pending(self) -> int:
        """Tasks of all algorithms that were submitted, and whose results nobody has taken."""
        return sum(each.pending for each in self._mailbox.algorithms)

    @property
    def target(self) -> int:
        """How many tasks of all algorithms shall be pending."""
        return sum(each.target for each in self._mailbox.algorithms)

    @property
    def wanted(self) -> int:
        """How many more tasks all algorithms want."""
        return sum(each.wanted for each in self._mailbox.algorithms)

    command = staticmethod(command)

    # -- workers ---------------------------------------------------------------------------------

    @property
    def workers(self) -> dict[str, str]:
        """The names of the workers that there are, and the place of each: its host."""
        return {desk.name: desk.place for desk in self._engine.desks.values()}

    async def add_worker(self, where: str, *, kind: Kind | str = Kind.INTERMINGLED) -> str:
        """Add a worker on this host and return its name when it is ready.

        `kind`: "ordered" takes only tasks for it alone (`Algorithm.submit(worker=...)`),
        "intermingled" those first, "unordered" none of those. Its place is filled again where it is
        lost, by one with another name.
        """
        return await self._staff.hire(where, Kind(kind))

    async def remove_worker(self, name: str) -> None:
        """Let a worker go: it ends the task it is at, and hands the others back.

        Returns when its process is gone. Raises `ParallelError` where there is none of that name.
        """
        await self._staff.remove(name)

    async def worker_events(self) -> AsyncGenerator[WorkerJoined | WorkerLeft, None]:
        """Those that are there now, then each that comes or goes. Ends with the farm."""
        send, receive = trio.open_memory_channel[WorkerJoined | WorkerLeft](math.inf)

        def observe(event: Event) -> None:
            if isinstance(event, WorkerJoined | WorkerLeft):
                send.send_nowait(event)

        for name, place in self.workers.items():
            send.send_nowait(WorkerJoined(name, place))
        self._engine.observers.append(observe)
        self._engine.at_end.append(send.close)
        try:
            async for event in receive:
                yield event
        finally:
            self._engine.observers.remove(observe)
            self._engine.at_end.remove(send.close)

    # -- what there is to see --------------------------------------------------------------------

    def statistics(self) -> Statistics:
        """What has been done so far: tasks, seconds, and how they are spread."""
        return self._engine.statistics()


@asynccontextmanager
@enable_ki_protection
async def open_farm(
    deployment: Deployment | None = None,
    *,
    workers: int | Mapping[str, int] | None = None,
    setup: Setup | None = None,
    backups: bool = True,
    journal: Journal | Path | None = None,
    progress: bool = False,
    audit: Audit | Path | None = None,
    trace: Path | None = None,
) -> AsyncGenerator[Farm, None]:
    """A farm of persistent workers.

        async with parallel.open_farm() as farm:
            squares = await farm.map(square, range(1000))

    Args:
        deployment: Where the workers run; default: processes, of this program's hosts.
        workers: For processes: None for one on each slot of each host, also of those that join
            later; a number for as many, spread over the hosts; a mapping for so many on each host.
        setup: Called in each worker: an (async) context manager that surrounds its work. Its value
            is what `worker_state()` returns to the tasks there.
        backups: Near the end, run a copy of a task that takes much longer than the others on a
            worker that is idle. The first result counts; the other worker is killed.
        journal: A file that keeps results as they come: of a program that was killed and is started
            again, only what is missing is done. See `Journal`, and `JournalError` for what then may
            be raised here, and by every call.
        progress: Show a bar on stderr, where that is a terminal. Needs tqdm.
        audit: A file for a line of JSON about each change of state of a worker or task.
        trace: A file for a timeline in Chrome's trace format, which Perfetto opens.

    Leaving the block ends the tasks whose results nobody has waited for, and the workers; leaving
    it by an exception or by cancellation does so at once. What `setup` raises is raised here.
    """
    deployment = deployment or Processes(workers)
    deployment.places()  # raises where there is no place for a farm
    with ExitStack() as stack:
        ledger = open_journal(journal) if journal is not None else None
        if ledger is not None:
            stack.callback(ledger.close)
        engine = Engine(Plan(backups=backups), ledger)
        monitors = stack.enter_context(
            opened_monitors(engine, progress=progress, audit=audit, trace=trace)
        )
        error: BaseException | None = None
        body = trio.CancelScope()
        engine.on_broken = body.cancel
        async with trio.open_nursery() as nursery:
            staff = Staff(engine, deployment, setup, nursery)
            nursery.start_soon(engine.keep_time)
            nursery.start_soon(monitors.run)
            staff.fill()
            nursery.start_soon(staff.run)
            try:
                with body:
                    yield Farm(engine, staff, nursery)
                    engine.close()
                    await staff.close()
            except BaseException as exc:  # noqa: ASYNC103  # raised below, and in no group
                error = exc
            nursery.cancel_scope.cancel()
        engine.end()
        if engine.broken is not None and (error is None or isinstance(error, trio.Cancelled)):
            raise engine.broken
        if error is not None:
            raise error
