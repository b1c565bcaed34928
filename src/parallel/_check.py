"""`check`: whether each host of a cluster can be used, what it has, and how far away it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import trio

from ._api import spawn
from ._cluster import Cluster
from ._probe import Facts, Measures, answer, ask_facts, measure
from ._root import init
from ._sources import needed_archive
from .abc import Allocation, Launcher
from .errors import HostMismatch, HostUnreachable, ParallelError

Status: TypeAlias = Literal[
    "ok", "unreachable", "key refused", "wrong Python", "not started", "failed"
]

_STEPS: dict[str, Status] = {
    "connection": "unreachable",
    "key": "key refused",
    "start": "not started",
}


@dataclass(frozen=True, slots=True)
class Report:
    """What was found out about a host, or why it is not there."""

    host: str
    status: Status
    error: str | None = None
    facts: Facts | None = None
    measures: Measures | None = None
    sent: int | None = None
    """Bytes that it had to be sent to start."""
    sent_at_most: int | None = None
    """Bytes that it has to be sent when it has nothing yet."""

    def as_json(self) -> dict[str, Any]:
        """The same, without levels; seconds, bytes, bytes per second."""
        fields = asdict(self)
        facts, measures = fields.pop("facts"), fields.pop("measures")
        nothing = dict.fromkeys((*Facts._fields, *Measures._fields))
        known = (facts._asdict() if facts else {}) | (measures._asdict() if measures else {})
        return {**fields, **nothing, **known}


_Place: TypeAlias = list[Report]
"""For the reports of what comes from one source."""


async def check(cluster: Cluster) -> list[Report]:
    """Start each host, all at once, and measure one after the other; reports in their order.

    What keeps a host or an allocation from being used is a report too.
    """
    checker = _Checker()
    places = [_Place() for _ in cluster.sources]
    async with init(cluster=checker.cluster, spares=1, grace=1.0):
        async with trio.open_nursery() as nursery:
            for source, place in zip(cluster.sources, places, strict=True):
                nursery.start_soon(checker.look_at, source, place)
    return [report for place in places for report in place]


class _Checker:
    def __init__(self) -> None:
        self.cluster = Cluster()
        self.alone = trio.Lock()
        """To measure: two at once would share what they measure."""

    async def look_at(self, source: Launcher | Allocation, place: _Place) -> None:
        """Check what comes from one source."""
        if isinstance(source, Launcher):
            place.append(await self.look_at_host(source))
            return
        try:
            async with source.allocate() as launchers, trio.open_nursery() as nursery:
                inner = [_Place() for _ in launchers]
                for launcher, inner_place in zip(launchers, inner, strict=True):
                    nursery.start_soon(self.look_at, launcher, inner_place)
        except Exception as exc:  # of an allocation, which is anybody's code
            name = type(source).__name__.lower()
            place.append(Report(name, _status(exc), _explain(exc)))
        else:
            place += [report for inner_place in inner for report in inner_place]

    async def look_at_host(self, launcher: Launcher) -> Report:
        """Start it, measure, end it."""
        try:
            sent = await self.cluster._add(launcher)
            facts, measures = await self._probe(launcher.name)
            await self.cluster.remove(launcher.name)  # or else it ends with `init`
        except Exception as exc:  # of a launcher, which is anybody's code
            return Report(launcher.name, _status(exc), _explain(exc))
        size = len(needed_archive().data)
        return Report(launcher.name, "ok", None, facts, measures, sent, size)

    async def _probe(self, host: str) -> tuple[Facts, Measures]:
        async with spawn(answer, where=host, name="check") as (channel, _):
            facts = await ask_facts(channel)
            async with self.alone:
                return facts, await measure(channel)


def _status(error: Exception) -> Status:
    match error:
        case HostUnreachable():
            return _STEPS[error.step]
        case HostMismatch():
            return "wrong Python"
        case _:
            return "failed"


def _explain(error: Exception) -> str:
    """In its words, or those of the first of several."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return str(error) if isinstance(error, ParallelError) else f"{type(error).__name__}: {error}"


# For people

_TITLES = (
    "HOST",
    "STATUS",
    "PYTHON",
    "CORES",
    "MEMORY",
    "ROUND TRIP",
    "UP",
    "DOWN",
    "CLOCK",
    "SENT",
)


def render(reports: Sequence[Report]) -> str:
    """A table with a line for each host; below it what went wrong, and what would mend it."""
    rows = [_TITLES, *map(_cells, reports)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    errors = [each.error for each in reports if each.error is not None]
    return "\n\n".join(["\n".join(lines), *errors])


def _cells(report: Report) -> tuple[str, ...]:
    facts, measures = report.facts, report.measures
    if facts is None or measures is None:
        return (report.host, report.status, *"-" * (len(_TITLES) - 2))
    return (
        report.host,
        report.status,
        facts.python,
        str(facts.cores),
        "-" if facts.memory is None else f"{facts.memory / 2**30:.1f} GiB",
        _time_text(measures.round_trip),
        f"{measures.upload / 1e6:.1f} MB/s",
        f"{measures.download / 1e6:.1f} MB/s",
        ("+" if measures.clock_offset >= 0 else "-") + _time_text(abs(measures.clock_offset)),
        f"{(report.sent or 0) / 1e3:.0f} of {(report.sent_at_most or 0) / 1e3:.0f} kB",
    )


def _time_text(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1e3:.2f} ms"
