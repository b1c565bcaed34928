"""Maps and folds: what `Farm` does with a function and many items."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sized
from typing import Any, Literal, TypeVar, overload

import trio

from .computation import Master
from .derived import Compute, fold_ac, fold_adjacent, fold_here, fold_remotely
from .engine import Engine
from .feed import Feed, Source
from .mapping import OnError, Results
from .tasks import DEFAULT_POLICY, Policy

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
T = TypeVar("T")


class Maps:
    """The part of `Farm` that maps and folds."""

    def __init__(self, engine: Engine, nursery: trio.Nursery) -> None:
        self._engine = engine
        self._nursery = nursery

    @abstractmethod
    async def compute(
        self,
        worker: Callable[[A], Any],
        master: Master[A, C, Any],
        tasks: Source[tuple[A, C]],
        *,
        policy: Policy = DEFAULT_POLICY,
    ) -> None:
        """As `Farm.compute`, of which all folds are made."""

    # -- maps ------------------------------------------------------------------------------------

    @overload
    async def map(
        self,
        f: Callable[[A], Awaitable[T]],
        xs: Source[A],
        *,
        policy: Policy = ...,
        on_error: Literal["raise"] = ...,
    ) -> list[T]: ...

    @overload
    async def map(
        self,
        f: Callable[[A], Awaitable[T]],
        xs: Source[A],
        *,
        policy: Policy = ...,
        on_error: Literal["return"],
    ) -> list[T | Exception]: ...

    @overload
    async def map(
        self,
        f: Callable[[A], T],
        xs: Source[A],
        *,
        policy: Policy = ...,
        on_error: Literal["raise"] = ...,
    ) -> list[T]: ...

    @overload
    async def map(
        self,
        f: Callable[[A], T],
        xs: Source[A],
        *,
        policy: Policy = ...,
        on_error: Literal["return"],
    ) -> list[T | Exception]: ...

    async def map(
        self,
        f: Callable[[A], Any],
        xs: Source[A],
        *,
        policy: Policy = DEFAULT_POLICY,
        on_error: OnError = "raise",
    ) -> list[Any]:
        """`[f(x) for x in xs]`, in that order.

        An exception of `f` is raised here at once, and the other tasks are ended; with
        `on_error="return"` it stands in the list. So does `TaskLost`, of a task that has taken too
        many workers along, `TaskTimeout`, and `NotSendable` of what cannot be sent or come back.
        Cancelled, it ends the tasks.
        """
        async with self._results(f, xs, policy, on_error, ordered=False) as results:
            return await results.in_order()

    @overload
    def imap(
        self,
        f: Callable[[A], Awaitable[T]],
        xs: Source[A],
        *,
        policy: Policy = ...,
        on_error: Literal["raise"] = ...,
    ) -> Results[T]: ...

    @overload
    def imap(
        self,
        f: Callable[[A], Awaitable[T]],
        xs: Source[A],
        *,
        policy: Policy = ...,
        on_error: Literal["return"],
    ) -> Results[T | Exception]: ...

    @overload
    def imap(
        self,
        f: Callable[[A], T],
        xs: Source[A],
        *,
        policy: Policy = ...,
        on_error: Literal["raise"] = ...,
    ) -> Results[T]: ...

    @overload
    def imap(
        self,
        f: Callable[[A], T],
        xs: Source[A],
        *,
        policy: Policy = ...,
        on_error: Literal["return"],
    ) -> Results[T | Exception]: ...

    def imap(
        self,
        f: Callable[[A], Any],
        xs: Source[A],
        *,
        policy: Policy = DEFAULT_POLICY,
        on_error: OnError = "raise",
    ) -> Results[Any]:
        """As `map`, but each result as soon as those before it were read.

        No more tasks are under way than keep the workers busy, however slowly it is read.
        """
        return self._results(f, xs, policy, on_error, ordered=True)

    @overload
    def imap_unordered(
        self,
        f: Callable[[A], Awaitable[T]],
        xs: Source[A],
        *,
        policy: Policy = ...,
        on_error: Literal["raise"] = ...,
    ) -> Results[T]: ...

    @overload
    def imap_unordered(
        self,
        f: Callable[[A], Awaitable[T]],
        xs: Source[A],
        *,
        policy: Policy = ...,
        on_error: Literal["return"],
    ) -> Results[T | Exception]: ...

    @overload
    def imap_unordered(
        self,
        f: Callable[[A], T],
        xs: Source[A],
        *,
        policy: Policy = ...,
        on_error: Literal["raise"] = ...,
    ) -> Results[T]: ...

    @overload
    def imap_unordered(
        self,
        f: Callable[[A], T],
        xs: Source[A],
        *,
        policy: Policy = ...,
        on_error: Literal["return"],
    ) -> Results[T | Exception]: ...

    def imap_unordered(
        self,
        f: Callable[[A], Any],
        xs: Source[A],
        *,
        policy: Policy = DEFAULT_POLICY,
        on_error: OnError = "raise",
    ) -> Results[Any]:
        """As `imap`, but each result as soon as there is one."""
        return self._results(f, xs, policy, on_error, ordered=False)

    @overload
    async def find_map(
        self,
        f: Callable[[A], Awaitable[T | None]],
        xs: Source[A],
        *,
        policy: Policy = ...,
    ) -> T | None: ...

    @overload
    async def find_map(
        self,
        f: Callable[[A], T | None],
        xs: Source[A],
        *,
        policy: Policy = ...,
    ) -> T | None: ...

    async def find_map(
        self,
        f: Callable[[A], Any],
        xs: Source[A],
        *,
        policy: Policy = DEFAULT_POLICY,
    ) -> Any:
        """The first result that is not None: first in time. The other tasks are ended then."""
        async with self._results(f, xs, policy, "raise", ordered=False) as results:
            async for y in results:
                if y is not None:
                    return y
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
        if on_error not in ("raise", "return"):
            raise ValueError(f'on_error={on_error!r}: it is "raise" or "return"')
        stream = self._engine.open_stream(f, policy)
        stream.total = _length(xs)
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


def _length(xs: object) -> int | None:
    """How many items there are, where that can be asked."""
    try:
        return len(xs) if isinstance(xs, Sized) else None
    except Exception:  # a range may be too long, an array may have no dimension
        return None
