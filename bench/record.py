"""The record: results as JSON, with what a reader needs to compare them with another run's."""

import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench.bars import Outcome, Verdict
from bench.result import Result

LIBRARIES = (
    "async-parallel",
    "trio",
    "cloudpickle",
    "numpy",
    "asyncssh",
    "execnet",
    "trio-parallel",
    "loky",
    "mpire",
    "tractor",
    "ray",
)


def write(results: Sequence[Result], path: Path, *, quick: bool) -> None:
    """Write a run's results; costs are in seconds or bytes, whatever unit the table shows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "machine": machine(),
        "libraries": libraries(),
        "rows": [describe(result) for result in results],
    }
    path.write_text(json.dumps(document, indent=1) + "\n")


def machine() -> dict[str, object]:
    """Describe the machine and the interpreter, without naming either's owner or place.

    The load tells a reader whether anything else was running: with a second busy process a machine
    of two CPUs has one left for a worker and its fork server, and the bare fork needs no more.
    """
    return {
        "system": platform.system(),
        "release": platform.release(),
        "architecture": platform.machine(),
        "cpus": os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
    }


def libraries() -> dict[str, str | None]:
    """Return the version of every library that takes part, None where it is not installed."""
    versions: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def describe(result: Result) -> dict[str, object]:
    """Return a row's results as plain data."""
    return {
        "name": result.row.name,
        "title": result.row.title,
        "contenders": [describe_outcome(outcome) for outcome in result.outcomes.values()],
        "bars": [describe_verdict(verdict) for verdict in result.verdicts],
    }


def describe_outcome(outcome: Outcome) -> dict[str, object]:
    """Return a contender's samples, by round, with their median and quartiles."""
    if outcome.samples is None:
        state = "not installed" if outcome.missing else "failed"
        return {"name": outcome.contender, "state": state, "detail": outcome.detail}
    return {
        "name": outcome.contender,
        "state": "measured",
        **asdict(outcome.samples.spread),
        "rounds": outcome.samples.rounds,
    }


def describe_verdict(verdict: Verdict) -> dict[str, object]:
    """Return a bar with its verdict."""
    score = None if verdict.score is None else asdict(verdict.score)
    return {"bar": str(verdict.bar), "state": verdict.state, "score": score}
