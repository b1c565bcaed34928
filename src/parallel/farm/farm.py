"""`Farm`: many tasks on persistent workers. `open_farm` makes one."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio

from .algorithm import Algorithm, Mailbox
from .computation import Computation, Master
from .deployment import Deployment, Setup
from .derived import Compute, fold_ac, fold_adjacent, fold_here, fold_remotely
from .engine import Engine
from .events import Event, WorkerJoined, WorkerLeft
from .feed import Feed, Source
from .mapping import OnError, Results
from .plan import Plan
from .processes import Processes
from .results import Done
from .staff import Staff
from .tasks import DEFAULT_POLICY, Kind, Policy

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
T = TypeVar("T")


class Farm:
    """Persistent workers, and what they can be given to do.

    Every call that takes a `policy` says with it what becomes of a task whose worker is lost, and
    how long one may take; by default it is tried three times. Every function may be sync or async;
    a sync one runs in the main thread of its worker. An item of `xs` is read when there is room for
    its task, so `xs` may be endless, and async.
    """

    def __init__(self, engine: Engine, staff: Staff, nursery: trio.Nursery) -> None:
        self._engine = engine
        self._staff = staff
        self._nursery = nursery
        self._mailbox = Mailbox()

    # -- maps ------------------------------------------------------------------------------------

    async def map(
        self,
        f: Callable[[A], Awaitable[T]] | Callable[[A], T],
        xs: Source[A],
        *,
        policy: Policy = DEFAULT_POLICY,
        on_error: OnError = "raise",
    ) -> list[T]:
        """`[f(x) for x in xs]`, in that order.

        An exception of `f` is raised here at once, and the other tasks are ended; with
        `on_error="return"` it stands in the list. So does `TaskLost`, of a task that has taken too
        many workers along, `TaskTimeout`, and `NotSendable` of what cannot be sent or come back.
        Cancelled, it ends the tasks.
        """
        results = self._results(f, xs, policy, on_error, ordered=True)
        async with results:
            return [y async for y in results]

    def imap(
        self,
        f: Callable[[A], Awaitable[T]] | Callable[[A], T],
        xs: Source[A],
        *,
        policy: Policy = DEFAULT_POLICY,
        on_error: OnError = "raise",
    ) -> Results[T]:
        """As `map`, but each result as soon as those before it were read.

        No more tasks are under way than keep the workers busy, however slowly it is read.
        """
        return self._results(f, xs, policy, on_error, ordered=True)

    def imap_unordered(
        self,
        f: Callable[[A], Awaitable[T]] | Callable[[A], T],
        xs: Source[A],
        *,
        policy: Policy = DEFAULT_POLICY,
        on_error: OnError = "raise",
    ) -> Results[T]:
        """As `imap`, but each result as soon as there is one."""
        return self._results(f, xs, policy, on_error, ordered=False)

    async def find_map(
        self,
        f: Callable[[A], Awaitable[T | None]] | Callable[[A], T | None],
        xs: Source[A],
        *,
        policy: Policy = DEFAULT_POLICY,
    ) -> T | None:
        """The first result that is not None: first in time. The other tasks are ended then."""
        async with self._results(f, xs, policy, "raise", ordered=False) as results:
            async for y in results:
                if y is not None:
                    found: T = y
                    return found
        return None

    def _results(
        self,
        f: Callable[..., Any],
        xs: Source[Any],
        policy: Policy,
        on_error: OnError,
        *,
        ordered: bool,
    ) -> Results[Any]:
        stream = self._engine.open_stream(f, policy)
        numbers = iter(range(1 << 62))
        feed = Feed(stream, xs, lambda x: ((x,), next(numbers)), self._nursery)
        return Results(stream, feed, on_error, ordered=ordered)

    # -- folds -----------------------------------------------------------------------------------

    async def map_local_fold(
        self,
        f: Callable[[A], Any],
        fold: Callable[[C, B], Any],
        init: C,
        xs: Source[A],
        *,
        policy: Policy = DEFAULT_POLICY,
    ) -> C:
        """`fold(fold(init, f(x0)), f(x1)) ...`, folded here, in the order of completion."""
        total: C = await fold_here(self._computing(policy), f, fold, init, xs)
        return total

    async def map_remote_fold(
        self,
        f: Callable[[A], Any],
        fold: Callable[[C, B], Any],
        init: C,
        xs: Source[A],
        *,
        policy: Policy = DEFAULT_POLICY,
    ) -> C:
        """The same, folded on workers, one at a time: for a `fold` that takes long."""
        total: C = await fold_remotely(self._computing(policy), f, fold, init, xs)
        return total

    async def map_fold_ac(
        self,
        f: Callable[[A], Any],
        fold: Callable[[T, T], Any],
        init: T,
        xs: Source[A],
        *,
        policy: Policy = DEFAULT_POLICY,
    ) -> T:
        """The same for an associative and commutative `fold`: on many workers, in any order."""
        total: T = await fold_ac(self._computing(policy), f, fold, init, xs)
        return total

    async def map_fold_a(
        self,
        f: Callable[[A], Any],
        fold: Callable[[T, T], Any],
        init: T,
        xs: Source[A],
        *,
        policy: Policy = DEFAULT_POLICY,
    ) -> T:
        """The same for an associative `fold`: on many workers, neighbours with each other."""
        total: T = await fold_adjacent(self._computing(policy), f, fold, init, xs)
        return total

    def _computing(self, policy: Policy) -> Compute:
        async def compute(worker: Any, master: Any, tasks: Any) -> None:
            await self.compute(worker, master, tasks, policy=policy)

        return compute

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

    async def results(self) -> AsyncIterator[Done[Any]]:
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

    async def worker_events(self) -> AsyncIterator[WorkerJoined | WorkerLeft]:
        """Those that are there now, then each that comes or goes."""
        send, receive = trio.open_memory_channel[WorkerJoined | WorkerLeft](math.inf)

        def observe(event: Event) -> None:
            if isinstance(event, WorkerJoined | WorkerLeft):
                send.send_nowait(event)

        for name, place in self.workers.items():
            send.send_nowait(WorkerJoined(name, place))
        self._engine.observers.append(observe)
        try:
            async for event in receive:
                yield event
        finally:
            self._engine.observers.remove(observe)


@asynccontextmanager
async def open_farm(
    deployment: Deployment | None = None,
    *,
    workers: int | Mapping[str, int] | None = None,
    setup: Setup | None = None,
    backups: bool = True,
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

    Leaving the block ends the tasks whose results nobody has waited for, and the workers; leaving
    it by an exception or by cancellation does so at once. What `setup` raises is raised here.
    """
    engine = Engine(Plan(backups=backups))
    error: BaseException | None = None
    body = trio.CancelScope()
    engine.on_broken = body.cancel
    async with trio.open_nursery() as nursery:
        staff = Staff(engine, deployment or Processes(workers), setup, nursery)
        nursery.start_soon(engine.keep_time)
        nursery.start_soon(staff.run)
        with body:
            try:
                yield Farm(engine, staff, nursery)
                engine.close()
                await staff.close()
            except BaseException as exc:  # noqa: ASYNC103  # raised below, and in no group
                error = exc
        nursery.cancel_scope.cancel()
    if engine.broken is not None and (error is None or isinstance(error, trio.Cancelled)):
        raise engine.broken
    if error is not None:
        raise error
