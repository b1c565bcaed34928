"""Which programs may use a journal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from parallel.farm import Journal, JournalError, JournalMismatch
from parallel.farm.journal import compare, identity

from .. import support

PROGRAM = """
import trio, parallel
from parallel.farm import Journal

def f(x):
    return x + 1

async def main():
    async with parallel.init():
        async with parallel.open_farm(workers=1, journal=JOURNAL) as farm:
            print(await farm.map(f, [1]), farm.statistics().recalled)

trio.run(main)
"""


def run(folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    path = folder / "program.py"
    path.write_text(program)
    return support.run_program(path, cwd=folder)


@pytest.mark.slow
def test_a_changed_program_is_refused_and_the_error_says_what_would_mend_it(
    tmp_path: Path,
) -> None:
    program = PROGRAM.replace("JOURNAL", "'journal'")
    assert run(tmp_path, program).stdout == "[2] 0\n"
    assert run(tmp_path, program).stdout == "[2] 1\n"
    changed = run(tmp_path, program + "# changed\n")
    assert changed.returncode == 1
    last = changed.stderr.splitlines()[-1]
    for part in ("JournalMismatch: the journal journal", "before its main file was changed"):
        assert part in last
    assert "delete it to begin anew" in last and "Journal(path, version=...)" in last


@pytest.mark.slow
def test_with_a_version_only_that_counts(tmp_path: Path) -> None:
    program = PROGRAM.replace("JOURNAL", "Journal('journal', version='1')")
    assert run(tmp_path, program).stdout == "[2] 0\n"
    assert run(tmp_path, program + "# changed\n").stdout == "[2] 1\n"
    changed = run(tmp_path, program.replace("'1'", "'2'"))
    assert "another version of the program" in changed.stderr
    assert "(version then: 1, now: 2)" in changed.stderr


def test_a_program_without_a_file_needs_a_version(tmp_path: Path) -> None:
    def run_text(journal: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", PROGRAM.replace("JOURNAL", journal)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert "say Journal(path, version=...)" in run_text("'journal'").stderr
    assert run_text("Journal('journal', version='1')").stdout == "[2] 0\n"


def test_what_differs_is_named() -> None:
    here = identity(Journal("j", version="1"))
    for what in ("format", "python", "version"):
        with pytest.raises(JournalMismatch) as caught:
            compare("some/journal", {**here, what: "0.0"}, here)
        assert (caught.value.what, caught.value.written) == (what, "0.0")
        assert caught.value.here == here[what]
        assert "some/journal" in str(caught.value)
    compare("some/journal", here, here)


def test_a_version_given_later_is_a_mismatch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)
    by_file, by_version = identity(Journal("j")), identity(Journal("j", version="1"))
    with pytest.raises(JournalMismatch, match="not given"):
        compare("j", by_file, by_version)
    with pytest.raises(JournalMismatch):
        compare("j", by_version, by_file)


def test_a_mismatch_is_a_journal_error() -> None:
    assert issubclass(JournalMismatch, JournalError)
