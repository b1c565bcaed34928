"""The runner: lets the contenders of a row take turns."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from bench.bars import Outcome
from bench.rows import Contender, Plan, Row
from bench.samples import Samples

PATIENCE = 60.0  # seconds for one turn; a contender that needs more hangs
PAUSE = 0.02  # seconds between turns, for what the last one left behind (exits, fresh spares)
NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"


class SeatFailedError(Exception):
    """A contender raised, exited or hung; the text tells which."""


class Seat:
    """A contender's process as the runner sees it, and what it has reported so far."""

    def __init__(self, contender: Contender) -> None:
        """Start the process; `wait_ready` waits for it."""
        self.contender = contender
        self.missing: str | None = None
        self.failure: str | None = None
        self.rounds: list[tuple[float, ...]] = []
        self._stderr = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.seat", contender.target],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,
            env=surroundings(),
        )

    @property
    def playing(self) -> bool:
        """Whether the contender can take turns."""
        return self.missing is None and self.failure is None

    def wait_ready(self) -> None:
        """Wait until the contender can take turns, or has said why it cannot."""
        with self._failing():
            self.missing = self._answer().get("missing")

    def turn(self, operations: int, *, keep: bool) -> None:
        """Let the contender do a number of operations; keep what they cost, or (warm-up) do not."""
        with self._failing():
            self._ask(operations)
            costs = tuple(self._answer()["costs"])
            if keep:
                self.rounds.append(costs)

    def close(self) -> None:
        """End the contender and whatever it left in its process group."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10 if self.failure is None else 0.5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._stderr.close()

    def outcome(self) -> Outcome:
        """Return what became of the contender."""
        name = self.contender.name
        if self.missing is not None:
            return Outcome(name, missing=True, detail=f"no {self.missing}")
        if self.failure is not None:
            return Outcome(name, detail=self.failure)
        return Outcome(name, Samples(tuple(self.rounds)))

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """Note a failure; a contender that failed is ended at once, so that it disturbs nobody."""
        try:
            yield
        except (SeatFailedError, BrokenPipeError) as failure:
            self.failure = str(failure) if isinstance(failure, SeatFailedError) else self._words()
            self.close()

    def _ask(self, operations: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"%d\n" % operations)
        self._process.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], PATIENCE)[0]:
            raise SeatFailedError(f"no answer within {PATIENCE:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise SeatFailedError(self._words())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _words(self) -> str:
        """Return the last line on the contender's stderr: its exception, if it raised one."""
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").split("\n")
        spoken = [line.strip() for line in lines if line.strip()]
        return spoken[-1] if spoken else "it exited without a word"


def surroundings() -> dict[str, str]:
    """Return the environment of every contender.

    Modules come from cached bytecode, as installed ones do; else each import is a compilation. A
    numerical library starts no threads of its own, which make every fork of its process dearer.
    """
    inherited = {name: os.environ[name] for name in os.environ if name != NO_BYTECODE}
    return {**inherited, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@contextlib.contextmanager
def seated(row: Row) -> Iterator[list[Seat]]:
    """Start every contender of a row; end them all on leaving."""
    seats: list[Seat] = []
    try:
        for contender in row.contenders:
            seats.append(Seat(contender))  # one by one: those before a failure are closed
        yield seats
    finally:
        for seat in seats:
            seat.close()


def measure(row: Row, plan: Plan) -> dict[str, Outcome]:
    """Measure a row: a turn each to warm up, then the plan's rounds, forth and back in turn."""
    with seated(row) as seats:
        for seat in seats:
            seat.wait_ready()
        for number in range(-1, plan.rounds):
            for seat in seats[:: -1 if number % 2 else 1]:
                if seat.playing:
                    time.sleep(PAUSE)
                    seat.turn(plan.operations, keep=number >= 0)
        return less_baseline(row, {seat.contender.name: seat.outcome() for seat in seats})


def less_baseline(row: Row, outcomes: dict[str, Outcome]) -> dict[str, Outcome]:
    """Subtract the row's baseline, if it has one, from everybody else's costs."""
    if row.baseline is None:
        return outcomes
    baseline = outcomes[row.baseline].samples
    if baseline is None:
        return {name: replace(outcome, samples=None) for name, outcome in outcomes.items()}
    return {
        name: replace(outcome, samples=outcome.samples.less(baseline.spread.median))
        if outcome.samples is not None and name != row.baseline
        else outcome
        for name, outcome in outcomes.items()
    }
