"""A deployment: where the workers of a farm run. Every one passes the same tests."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

from .messages import Answer, Order

Setup: TypeAlias = Callable[[], AbstractAsyncContextManager[Any]]
"""What surrounds the work of each worker; a plain context manager will do as well."""


class WorkerLost(Exception):
    """A worker has ended without having been told to; its cause says why."""


class Seat(ABC):
    """A running worker, as the farm holds it."""

    @abstractmethod
    async def send(self, order: Order) -> None:
        """Pass on an order. Raises `NotSendable` for what cannot be pickled, and sends nothing."""

    @abstractmethod
    async def receive(self) -> Answer:
        """The next answer; raises `WorkerLost` when there is none to come.

        One that cannot be unpickled raises `RemoteError`, and receiving goes on.
        """


class Deployment(ABC):
    """Where workers run.

    A worker is started by entering what `start` returns. It is ended by leaving that, at once when
    that is by cancellation, else when it has done what it was sent. Nothing is left of it then.
    """

    @abstractmethod
    def places(self) -> Sequence[str]:
        """A place for each worker that the farm shall have; asked again every now and then."""

    @abstractmethod
    def start(
        self, place: str, name: str, setup: Setup | None
    ) -> AbstractAsyncContextManager[Seat]:
        """A worker there, ready to work. Raises `WorkerLost` when it ends while it starts."""
