"""Workers behind a `concurrent.futures.Executor`: Dask, MPI, loky, or one of Python's own."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent import futures
from contextlib import asynccontextmanager
from typing import Any, ParamSpec, TypeVar

import trio

from .._pickled import dumps, loads
from ..errors import NotSendable, RemoteError, UnknownHost
from ..failure import Failure
from .batches import Batch, BatchSeat
from .deployment import Deployment, Seat, Setup, WorkerLost
from .engine_side import Outcome, enter_farm, leave_farm, run_batch
from .messages import Order, Report, Run, Unreadable
from .tasks import Result

P = ParamSpec("P")
T = TypeVar("T")


class Executor(Deployment):
    """The workers are those of an executor, which goes on being the caller's.

        with ProcessPoolExecutor(4) as pool:
            async with parallel.open_farm(parallel.farm.Executor(pool, workers=4)) as farm: ...

    A batch of tasks is one `submit`. What it carries is pickled here, so closures, lambdas and what
    belongs to `__main__` travel whatever the executor itself would do; this package has to be
    importable there. `parallel.init` is not needed.

    An executor cannot do all that processes can:

    * Nobody can end a task that runs, so a task with a `timeout` is refused with `NotSendable`.
      A batch that nobody wants any more and that has begun is waited for, `grace` seconds at most;
      then it is left behind, with a `RuntimeWarning`.
    * `setup` is called once in each of its processes, or rather threads, that gets a task. It has
      to return a plain context manager. In this process that is left with the farm; elsewhere with
      the process, if that ends in an orderly way, for an executor tells nobody when.
    * Dask repeats what a lost worker did, tasks with `retry=False` too.
    * One that is broken stays broken: the farm ends with `NoWorkers`, which has the reason as its
      cause.

    Args:
        executor: Any `concurrent.futures.Executor`, such as a `ProcessPoolExecutor`, Dask's
            `client.get_executor()` or an `mpi4py.futures.MPIPoolExecutor`.
        workers: So many batches at once; as many as the executor has workers keep it busy.
        grace: Seconds that a batch has to end by itself.
    """

    def __init__(self, executor: futures.Executor, *, workers: int, grace: float = 10.0) -> None:
        if workers < 1:
            raise ValueError(f"workers={workers}: at least one")
        self._executor = executor
        self._workers = workers
        self._grace = grace
        self._place = type(executor).__name__
        self._farm = ""
        self._seats = 0

    def places(self) -> Sequence[str]:
        """All of them are called by the executor's type."""
        return [self._place] * self._workers

    @asynccontextmanager
    async def start(self, place: str, name: str, setup: Setup | None) -> AsyncGenerator[Seat, None]:
        """Another batch at a time."""
        if place != self._place:
            raise UnknownHost(place, (self._place,))
        if not self._seats:
            self._farm = uuid.uuid4().hex
        self._seats += 1
        try:
            seat = _ExecutorSeat(self._submit, self._farm, dumps(setup, "setup"))
            await seat.prepare()
            yield seat
        finally:
            self._seats -= 1
            if not self._seats:
                leave_farm(self._farm)

    async def _submit(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            future = self._executor.submit(fn, *args, **kwargs)
        except Exception as exc:
            raise self._lost(exc) from exc
        try:
            await self._end_of(future)
        except trio.Cancelled:
            if not future.cancel():
                with trio.move_on_after(self._grace) as scope:
                    scope.shield = True
                    await self._end_of(future)
                if not future.done():
                    self._warn()
            raise
        if future.cancelled():
            raise WorkerLost(f"somebody else has cancelled what the {self._place} was to run")
        error = future.exception()  # of the executor, or a SystemExit: others are results
        if error is not None:
            raise self._lost(error) from error
        return future.result()

    async def _end_of(self, future: futures.Future[Any]) -> None:
        done = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def tell(_: object) -> None:
            try:
                token.run_sync_soon(done.set)
            except trio.RunFinishedError:
                pass  # it was left behind

        future.add_done_callback(tell)
        await done.wait()

    def _lost(self, error: BaseException) -> WorkerLost:
        return WorkerLost(f"the {self._place} has failed: {type(error).__name__}: {error}")

    def _warn(self) -> None:
        warnings.warn(
            f"tasks that nobody wants any more run on in a {self._place}, which cannot end them; "
            f"they were waited for for {self._grace:g} s",
            RuntimeWarning,
            stacklevel=2,
        )


class _ExecutorSeat(BatchSeat):
    def __init__(self, submit: Callable[..., Any], farm: str, setup: bytes) -> None:
        super().__init__()
        self._submit = submit
        self._farm = farm
        self._setup = setup

    async def prepare(self) -> None:
        """See that something runs there at all. Raises what `setup` raises."""
        error = await self._submit(enter_farm, self._farm, self._setup)
        if error is not None:
            loads(error).reraise()

    async def send(self, order: Order) -> None:
        """Refuses tasks that would have to be ended."""
        if isinstance(order, Run) and order.timed:
            raise NotSendable("a task", "its timeout", "no executor can end a task that runs")
        await super().send(order)

    async def work_on(self, batch: Batch) -> None:
        """All at once."""
        dropped = frozenset(batch.dropped)
        batch.is_done = True
        if dropped.issuperset(batch.tasks):
            return
        function = batch.function
        outcome: Outcome = await self._submit(
            run_batch,
            self._farm,
            self._setup,
            (function.job, function.data),
            batch.arguments,
            batch.tasks,
            dropped,
        )
        match outcome.unreadable:
            case None:
                self.answer(Report([_result(*each) for each in outcome.results]))
            case "setup":
                error = loads(outcome.error).exception
                raise WorkerLost(f"setup() has failed: {error}") from error
            case what:
                message = function.message if what == "function" else batch.message
                self.answer(Unreadable(message, loads(outcome.error)))


def _result(task: int, data: bytes, seconds: float, failed: bool) -> Result:
    try:
        return Result(task, loads(data, "the result"), seconds, failed)
    except RemoteError as exc:
        return Result(task, Failure(exc), seconds, failed=True)
