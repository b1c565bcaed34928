"""Processes of this machine or cluster as a farm's workers: what `open_farm` uses by default."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager

from .._api import spawn
from .._channel import Channel
from .._directory import hosts
from ..errors import HostDied, WorkerCancelled, WorkerDied
from .deployment import Deployment, Seat, Setup, WorkerLost
from .messages import Answer, Order
from .serving import serve


class Processes(Deployment):
    """A process for each worker.

    Args:
        workers: None for one on each slot of each host, also of those that join later; a number for
            as many, spread over the hosts by their slots, and spread anew when one comes or goes; a
            mapping for so many on each host (an empty one: those alone that are added).
    """

    def __init__(self, workers: int | Mapping[str, int] | None = None) -> None:
        if isinstance(workers, Mapping):
            if any(count < 0 for count in workers.values()):
                raise ValueError(f"workers={workers}: none on a host at least")
        elif workers is not None and workers < 1:
            raise ValueError(f"workers={workers}: at least one")
        self._workers = workers
        self._seen: set[str] = set()

    def places(self) -> Sequence[str]:
        """The host of each worker."""
        slots = {host.name: host.slots for host in hosts() if not host.down}
        self._seen.update(slots)
        if self._workers is None:
            return spread(slots, sum(slots.values()))
        if isinstance(self._workers, int):
            return spread(slots, self._workers)
        return [
            host
            for host, count in self._workers.items()
            if host in slots or host not in self._seen  # to start one there says what is wrong
            for _ in range(count)
        ]

    @asynccontextmanager
    async def start(self, place: str, name: str, setup: Setup | None) -> AsyncGenerator[Seat, None]:
        """A process on that host."""
        try:
            async with spawn(serve, setup, where=place, name=name) as (channel, _):
                await channel.receive()  # it has set itself up
                yield _Process(channel)
        except (WorkerDied, HostDied, WorkerCancelled) as exc:
            raise WorkerLost(str(exc)) from exc


class _Process(Seat):
    def __init__(self, channel: Channel[Order, Answer]) -> None:
        self._channel = channel

    async def send(self, order: Order) -> None:
        await self._channel.send(order)

    async def receive(self) -> Answer:
        return await self._channel.receive()


def spread(slots: Mapping[str, int], count: int) -> list[str]:
    """A host for each of so many workers: as many on each, in proportion, as it has slots."""
    turns = [
        ((turn + 0.5) / number, order, host)
        for order, (host, number) in enumerate(slots.items())
        for turn in range(number)
    ]
    one_round = [host for _, _, host in sorted(turns)]
    return list(itertools.islice(itertools.cycle(one_round), count))
