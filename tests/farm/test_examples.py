"""The farm's examples: each comes to the same by one switch, wherever its tasks run."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio

import parallel
from parallel.testing import open_hosts
from tests import support

FOLDER = support.ROOT / "examples" / "farm"
EXAMPLES = sorted(FOLDER.glob("[!_]*.py"))
WHERE = [(example, where) for example in EXAMPLES for where in ("sequential", "cores")]


@pytest.fixture(autouse=True)
def unclosed_things_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """On stderr, by the examples and their workers."""
    monkeypatch.setenv("PYTHONWARNINGS", "always::ResourceWarning")


def check_output(stdout: str, stderr: str) -> None:
    assert stderr == ""
    assert 1 <= len(stdout.splitlines()) <= 10


@pytest.mark.parametrize(
    ("example", "where"),
    [*WHERE, pytest.param(FOLDER / "hello.py", "ssh", marks=pytest.mark.slow)],
    ids=lambda value: value.stem if isinstance(value, Path) else value,
)
def test_an_example_checks_its_results_wherever_it_runs(
    example: Path, where: str, tmp_path: Path
) -> None:
    result = support.run_program(example, "--on", where, cwd=tmp_path)
    check_output(result.stdout, result.stderr)
    assert result.returncode == 0


@pytest.mark.slow
async def test_all_examples_check_their_results_on_the_same_two_ssh_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """That one can open hosts of its own is seen above: it takes longer than what runs on them."""
    monkeypatch.chdir(tmp_path)
    where = SimpleNamespace(**runpy.run_path(str(FOLDER / "_where.py")))
    where.open_farm = lambda on: parallel.open_farm(workers={"host0": 1, "host1": 1})
    monkeypatch.setitem(sys.modules, "_where", where)  # type: ignore[arg-type]
    async with open_hosts(2) as hosts, parallel.init(cluster=parallel.Cluster(hosts)):
        for example in EXAMPLES:
            with support.case(example.stem):
                await main_of(example)()
                check_output(*capfd.readouterr())


def main_of(example: Path) -> Callable[[], Awaitable[None]]:
    """What a program runs, with its arguments."""
    mains: list[Callable[[], Awaitable[None]]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trio, "run", lambda main, *args: mains.append(partial(main, *args)))
        patch.setattr(sys, "argv", [str(example)])
        runpy.run_path(str(example), run_name="__main__")
    (main,) = mains
    return main
