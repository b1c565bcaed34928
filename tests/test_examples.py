"""The examples: each runs by itself, from anywhere, and leaves nothing behind."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from . import support

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
SLOW = ("broadcast", "demo", "echo_server")
PARAMETERS = [
    pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem in SLOW else [])
    for path in EXAMPLES
]


@pytest.fixture(autouse=True)
def unclosed_things_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """On stderr, by the examples and their workers."""
    monkeypatch.setenv("PYTHONWARNINGS", "always::ResourceWarning")


@pytest.mark.parametrize("example", PARAMETERS)
def test_an_example_runs_and_says_what_it_did(example: Path, tmp_path: Path) -> None:
    result = support.run_program(example, cwd=tmp_path)
    assert result.stderr == ""
    assert result.returncode == 0
    assert 1 <= len(result.stdout.splitlines()) <= 10


@pytest.mark.slow
def test_the_demo_draws_on_a_terminal() -> None:
    demo = next(path for path in EXAMPLES if path.stem == "demo")
    output = b""
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, demo], stdout=theirs, stderr=theirs) as program:
        os.close(theirs)
        try:
            while data := os.read(ours, 1 << 16):
                output += data
        except OSError:
            pass  # how a terminal says that the other side is gone
        os.close(ours)
    assert program.returncode == 0
    for picture in (b"\r\x1b[Kping-pong  [", b"\r\x1b[Kbroadcast  [", b"\r\x1b[Kcascade    ["):
        assert picture in output
