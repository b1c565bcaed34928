"""A journal: the results of a program that may be killed, for when it is started again.

`Journal` says which; `ledger` keeps it.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from ..errors import ParallelError
from .instructions import Finished
from .results import Done
from .tasks import Task

FORMAT = "1"
"""Of what is in the file; another one is refused."""


@dataclass(frozen=True)
class Journal:
    """Where results are kept, and what the program is known by.

    Args:
        path: A file (SQLite); made where there is none. Beside it lie `path-wal` and the like.
        version: By default a program is known by the content of its main file: any change there
            makes another program of it, whose journal is refused. With a version it is known by
            that alone: change it when a function would give other results than before.
    """

    path: str | os.PathLike[str]
    version: str | None = None


@dataclass(eq=False)
class JournalError(ParallelError):
    """A journal cannot be used, or not any more: what is in it stays.

    `__cause__` says what SQLite said.
    """

    path: str
    reason: str

    def __str__(self) -> str:
        return f"the journal {self.path}: {self.reason}"


@dataclass(eq=False)
class JournalMismatch(JournalError):
    """A journal was written by another program, or another version of it, of Python or of this."""

    what: str
    """Which of them: "program", "version", "python" or "format"."""
    written: str
    """What it was then."""
    here: str
    """What it is now."""


_REMEDIES = {
    "program": "it was written by another program, or before its main file was changed: delete it "
    "to begin anew; where changes are not to matter, say Journal(path, version=...) from the start",
    "version": "it was written by another version of the program: delete it to begin anew, or use "
    "another file for each version",
    "python": "it was written by another Python: use that one, or delete the journal to begin anew",
    "format": "it was written by another version of this package: use that one, or delete the "
    "journal to begin anew",
}


class OpenJournal(Protocol):
    """A journal in use; each method raises `JournalError` where that cannot go on."""

    def call(self, fn: Callable[..., Any]) -> bytes:
        """A key for the tasks of a call that run this function."""
        ...

    def recall(self, tasks: Sequence[Task]) -> dict[int, Done[Any]]:
        """What came of those of these tasks that are known, by their place; give all a key."""
        ...

    def keep(self, finished: Sequence[Finished]) -> None:
        """Write what came of these; what has failed, or cannot be pickled, is left out."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


def open_journal(journal: Journal | str | os.PathLike[str]) -> OpenJournal:
    """Open it, for this program alone."""
    settings = journal if isinstance(journal, Journal) else Journal(journal)
    # A worker imports this package too, and may run on a Python without SQLite.
    ledger: OpenJournal = import_module(".ledger", __package__).Ledger(
        os.fspath(settings.path), identity(settings)
    )
    return ledger


def identity(journal: Journal) -> dict[str, str]:
    """What a journal is refused for when it is not the same."""
    python = "{}.{}".format(*sys.version_info)
    if journal.version is not None:
        return {"format": FORMAT, "python": python, "version": str(journal.version)}
    path = getattr(sys.modules["__main__"], "__file__", None)
    try:
        content = Path(path or "").read_bytes()
    except OSError as exc:
        raise JournalError(
            os.fspath(journal.path),
            "this program has no main file to be known by (it is interactive, or python -c): say "
            "Journal(path, version=...)",
        ) from exc
    program = hashlib.sha256(content).hexdigest()
    return {"format": FORMAT, "python": python, "program": program}


def compare(path: str, written: dict[str, str], here: dict[str, str]) -> None:
    """Raise `JournalMismatch` where they differ."""
    for what in ("format", "python", "version", "program"):
        if written.get(what) != here.get(what):
            before, now = written.get(what, "not given"), here.get(what, "not given")
            reason = f"{_REMEDIES[what]} ({what} then: {before:.12}, now: {now:.12})"
            raise JournalMismatch(path, reason, what, before, now)
