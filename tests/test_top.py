"""`python -m parallel top`: the processes of a program, seen from outside."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from collections.abc import Callable

import pytest
import trio

import parallel
from parallel.__main__ import main

from . import support
from .test_processes import down


async def top(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "parallel", "top", *arguments]
    return await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)


def read_until(descriptor: int, done: Callable[[bytes], bool], seconds: float = 20) -> bytes:
    """What comes from a terminal until there is enough of it."""
    seen = b""
    while not done(seen):
        assert select.select([descriptor], [], [], seconds)[0], seen
        seen += os.read(descriptor, 65536)
    return seen


async def test_top_shows_the_tree_of_a_running_program_once(tree: None) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parallel.run, down, 2)
        await support.eventually(lambda: parallel.hosts()[0].running == 3)
        result = await top(str(os.getpid()))
        nursery.cancel_scope.cancel()
    assert result.returncode == 0
    lines = result.stdout.decode().splitlines()
    assert [line.split()[-1] for line in lines] == ["FUNCTION", "root", "down", "down", "down"]
    assert lines[1].split()[0] == str(os.getpid())


async def test_top_finds_a_program_by_any_of_its_processes(tree: None) -> None:
    async with parallel.spawn(down_in_hub) as (_, process):
        result = await top("--once", str(process.pid))
        process.cancel()
    assert str(os.getpid()) in result.stdout.decode()


async def down_in_hub(hub: parallel.Hub[None, None]) -> None:
    await trio.sleep_forever()


async def test_top_without_a_pid_shows_every_program_of_this_user(tree: None) -> None:
    result = await top("--once")
    assert result.returncode == 0
    assert str(os.getpid()) in result.stdout.decode()


async def test_top_says_so_when_there_is_nothing_to_show(tree: None) -> None:
    result = await top(str(os.getppid()))
    assert result.returncode == 1
    assert b"does not use parallel" in result.stderr


def test_a_pid_that_is_no_number_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["top", "everything"])
    assert exit_info.value.code == 2
    assert "invalid int value" in capsys.readouterr().err


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "soon"])
def test_an_interval_that_makes_no_sense_is_refused(interval: str) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["top", "--interval", interval])
    assert exit_info.value.code == 2


async def test_on_a_terminal_top_refreshes_until_ctrl_c(tree: None) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "parallel", "top", "--interval", "0.05", str(os.getpid())]
    process = await trio.lowlevel.open_process(
        command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    try:
        seen = await trio.to_thread.run_sync(
            read_until, ours, lambda text: text.count(b"FUNCTION") >= 3
        )
        assert seen.count(b"\x1b[H\x1b[2J") >= 3
        process.send_signal(2)
        assert await process.wait() == 0
    finally:
        os.close(ours)
