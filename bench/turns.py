"""Turns: a contender's side of the conversation with the runner."""

import json
import os
from collections.abc import Iterator, Sequence


class Turns:
    """The turns of one contender: wait for one, take it, report what it cost.

    The runner asks by writing a number of operations as one line, and waits for the report before
    it asks again; so what one `read` returns is one request, or nothing: the end.
    """

    def __init__(self, requests: int, reports: int) -> None:
        """Read requests from one descriptor and write reports to another."""
        self.requests = requests
        self._reports = reports

    def take(self) -> int | None:
        """Block for the next turn; return its number of operations, or None at the end."""
        return int(os.read(self.requests, 64) or b"0") or None

    def report(self, costs: Sequence[float]) -> None:
        """Report what the turn cost: one or more costs, in seconds or bytes."""
        self._write({"costs": list(costs)})

    def __iter__(self) -> Iterator[int]:
        """Announce that the contender is ready, then yield each turn's number of operations."""
        self.ready()
        while (operations := self.take()) is not None:
            yield operations

    def ready(self) -> None:
        """Announce that turns may begin."""
        self._write({"ready": True})

    def missing(self, what: str) -> None:
        """Announce that there will be no turns: a module or a program is not installed."""
        self._write({"missing": what})

    def _write(self, report: dict[str, object]) -> None:
        line = json.dumps(report).encode() + b"\n"
        while line:
            line = line[os.write(self._reports, line) :]
