"""`python -m parallel top`: the processes of a program, seen from outside."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable

import pytest
import trio

import parallel
from parallel.__main__ import Usage, main
from parallel._member import current_member
from parallel._processes import ProcessInfo
from parallel._table import read_hosts
from parallel.launch.local import Local

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


@pytest.fixture
async def hosts() -> AsyncIterator[None]:
    """Inside `parallel.init`, with two other hosts."""
    cluster = parallel.Cluster([Local(name="left"), Local(name="right-hand")])
    async with parallel.init(cluster=cluster, grace=2.0):
        yield


async def down_elsewhere(hub: parallel.Hub[None, str]) -> None:
    """From its host to another one and on."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(right_down)
        async for client, _ in hub:
            await hub.send(client, str(await parallel.processes()))
        nursery.cancel_scope.cancel()


async def right_down() -> None:
    await parallel.run(down, 1, where="right-hand")


async def top_with(function: str, *arguments: str) -> str:
    """What it prints once it shows that function: on a busy machine it may come too early."""
    with trio.fail_after(60):
        while True:
            text = (await top("--once", *arguments)).stdout.decode()
            if function in text:
                return text


def rows(text: str) -> list[tuple[str, str]]:
    """Host and function of each process."""
    return [(line.split()[1], line.split()[-1]) for line in text.splitlines()[1:]]


EVERYBODY = [
    ("root", "root"),
    ("root", "agent"),
    ("left", "down_elsewhere"),
    ("right-hand", "down"),
    ("right-hand", "down"),
]


@pytest.mark.slow
async def test_top_shows_the_processes_of_all_hosts_in_one_tree(hosts: None) -> None:
    async with parallel.spawn(down_elsewhere, where="left") as (channel, process):
        for seconds in range(10):  # until the cascade has got to its end
            await trio.sleep(0.05 * seconds)
            await channel.send(None)
            if rows(await channel.receive()) == EVERYBODY:
                break
        whole = await top_with("down_elsewhere", str(os.getpid()))
        anything = await top_with("down_elsewhere")
        part = await top_with("down_elsewhere", str(process.pid))
    assert rows(whole) == EVERYBODY
    lines = whole.splitlines()
    assert len({line.index(line.split()[-1]) for line in lines[3:]}) == 3  # each below the other
    assert rows(part) == [("left", "agent"), ("left", "down_elsewhere")]
    assert f"{os.getpid()} root" in anything
    assert anything.count("down_elsewhere") == 1


async def test_a_host_that_does_not_answer_is_left_out(hosts: None) -> None:
    (agent,) = [host.pid for host in read_hosts(current_member().table) if host.name == "left"]
    async with parallel.spawn(down_in_hub, where="right-hand") as (_, process):
        os.kill(agent, signal.SIGSTOP)
        try:
            text = await top_with("down_in_hub", str(os.getpid()))
        finally:
            os.kill(agent, signal.SIGCONT)
        process.cancel()
    assert rows(text)[-1] == ("right-hand", "down_in_hub")


def test_percents_are_between_what_was_seen_of_a_process_last_and_now() -> None:
    def tree(cpu: float) -> ProcessInfo:
        child = ProcessInfo("work", "left", 1, 0.0, cpu, None, ())
        return ProcessInfo("root", "root", 1, 0.0, None, None, (child,))

    usage = Usage()
    assert usage.update(tree(1.0), 100.0) == {}
    assert usage.update(tree(1.0), 100.0) == {}
    assert usage.update(tree(2.0), 104.0) == {("root", 1): 0, ("left", 1): 25}
    assert usage.update(tree(2.0), 104.0) == {("root", 1): 0, ("left", 1): 25}
