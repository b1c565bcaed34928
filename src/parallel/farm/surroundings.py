"""What surrounds the tasks of a worker: the state that `setup` made, and what tasks leave there."""

from __future__ import annotations

import atexit
from collections.abc import AsyncGenerator, Callable, Generator, Hashable
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

from .deployment import Setup


class Closable(Protocol):
    """What is to be released when its worker ends."""

    def close(self) -> None:
        """Release it."""
        ...


ClosableT = TypeVar("ClosableT", bound=Closable)


class Surroundings:
    """Those of one worker."""

    def __init__(self) -> None:
        self.state: Any = None
        """What `setup` gave."""
        self._kept: dict[Hashable, Any] = {}

    def keep(self, key: Hashable, make: Callable[[], ClosableT]) -> ClosableT:
        """What is kept here by that key; made if there is none."""
        kept: ClosableT | None = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = make()
        return kept

    def discard(self, key: Hashable) -> None:
        """Close what is kept by that key."""
        kept = self._kept.pop(key, None)
        if kept is not None:
            kept.close()

    def close(self) -> None:
        """Close all that is kept."""
        for key in list(self._kept):
            self.discard(key)


_outside = Surroundings()
"""For what is called in no worker at all."""
atexit.register(_outside.close)

# Not a global: several workers of one process each have their own.
_current: ContextVar[Surroundings] = ContextVar("surroundings", default=_outside)


def surroundings() -> Surroundings:
    """Those of the worker that runs this."""
    return _current.get()


def worker_state() -> Any:
    """For tasks: what the `setup` of their farm gave to the worker that runs them; else None."""
    return _current.get().state


@contextmanager
def within(surroundings: Surroundings) -> Generator[None, None, None]:
    """These are what surrounds the block, and nobody closes them."""
    before = _current.get()
    _current.set(surroundings)
    try:
        yield
    finally:
        _current.set(before)


@asynccontextmanager
async def surrounded(setup: Setup | None) -> AsyncGenerator[None, None]:
    """The work of a worker, in what surrounds it."""
    here = Surroundings()
    with within(here):
        try:
            if setup is None:
                yield
                return
            manager: Any = setup()
            if isinstance(manager, AbstractAsyncContextManager):
                async with manager as here.state:
                    yield
            elif isinstance(manager, AbstractContextManager):
                with manager as here.state:
                    yield
            else:
                raise no_manager(manager)
        finally:
            here.close()


def no_manager(value: object) -> TypeError:
    """What `setup()` returned is nothing to be entered."""
    return TypeError(f"setup() returned {value!r}, which is no context manager")
