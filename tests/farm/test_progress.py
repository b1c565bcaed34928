"""The bar: on a terminal, and nowhere else."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

import parallel

from .. import support

PROGRAM = """
import time, trio, parallel

def f(x):
    time.sleep(0.02)
    if x == 5:
        raise ValueError(x)

async def main():
    async with parallel.init():
        async with parallel.open_farm(workers=2, progress=True) as farm:
            await farm.map(f, XS, on_error="return")

trio.run(main)
print("done")
"""


def open_terminal() -> tuple[int, int]:
    """Both ends of one with 120 columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
    return ours, theirs


def run(folder: Path, program: str) -> str:
    """What appears on the terminal that is its stderr, while stdout is a pipe."""
    path = folder / "program.py"
    path.write_text(program)
    ours, theirs = open_terminal()
    with subprocess.Popen(
        [sys.executable, path],
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 1 << 16)
            except OSError:  # nobody has the terminal any more
                break
            if not part:
                break
            shown += part
        os.close(ours)
        assert process.stdout is not None
        assert process.stdout.read() == "done\n"
    assert process.returncode == 0, shown
    return shown.decode()


@pytest.mark.slow
def test_a_bar_shows_rate_failures_remaining_time_and_workers(tmp_path: Path) -> None:
    shown = run(tmp_path, PROGRAM.replace("XS", "range(100)"))
    assert "100%" in shown
    assert "100/100 [" in shown
    assert re.search(r"\d+/100 \[\d\d:\d\d<\d\d:\d\d, +[\d.]+ tasks/s", shown)
    assert "1 failed, 2/2 workers busy" in shown
    # One bar, shown a few times a second: far less than once for each task.
    assert 2 <= shown.count("\r") <= 60
    assert shown.count("\n") == 1


def test_without_a_length_it_counts(tmp_path: Path) -> None:
    shown = run(tmp_path, PROGRAM.replace("XS", "(x for x in range(60))"))
    assert re.search(r"\d+ tasks \[\d\d:\d\d, +[\d.]+ tasks/s", shown)
    assert "60/60" in shown or "60 tasks" in shown


def test_where_there_is_no_terminal_nothing_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM.replace("XS", "range(10)"))
    result = support.run_program(path)
    assert (result.stdout, result.stderr) == ("done\n", "")


@pytest.mark.slow
def test_a_terminal_that_goes_away_is_no_hindrance(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM.replace("XS", "range(100)"))
    ours, theirs = open_terminal()
    with subprocess.Popen(
        [sys.executable, path], stdout=subprocess.PIPE, stderr=theirs, text=True
    ) as process:
        os.close(theirs)
        assert os.read(ours, 1)
        os.close(ours)
        assert process.stdout is not None
        assert process.stdout.read() == "done\n"
    assert process.returncode == 0


async def test_without_tqdm_the_error_says_what_to_install(
    tree: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(parallel.ParallelError, match=r"async-parallel\[progress\]"):
        async with parallel.open_farm(workers=1, progress=True):
            raise AssertionError
