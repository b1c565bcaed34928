"""`testing`: hosts that are reached by ssh, for tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import trio

from parallel.launch.ssh import Ssh
from parallel.testing import open_hosts

from .support import MARK, eventually, marked_processes

PROGRAM = """
import sys, trio
from parallel.testing import open_hosts

async def main():
    async with open_hosts(1) as [host], host.open() as shell:
        await shell.stdin.send_all(b"echo $$; exec sleep 1000\\n")
        print(host.known_hosts, int(await shell.stdout.receive_some()), flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


async def say(host: Ssh, command: str) -> str:
    async with host.open() as shell:
        await shell.stdin.send_all(command.encode() + b"\nexit\n")
        return b"".join([data async for data in shell.stdout]).decode().strip()


async def test_every_host_has_an_address_and_a_home_of_its_own(mark: str) -> None:
    async with open_hosts(2, env={MARK: mark, "MORE": "yes"}, slots=7) as hosts:
        assert [host.name for host in hosts] == ["host0", "host1"]
        assert [host.slots for host in hosts] == [7, 7]
        homes = [await say(host, "echo $HOME $PWD $MORE") for host in hosts]
        places = [home.split() for home in homes]
        assert all(home == cwd and more == "yes" for home, cwd, more in places)
        assert places[0] != places[1]
        assert len({host.destination for host in hosts}) == 2
        assert all(Path(home).is_dir() for home, _, _ in places)
    assert not any(Path(home).exists() for home, _, _ in places)


async def test_the_caller_s_environment_is_not_theirs(
    mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_CALLER", "yes")
    async with open_hosts(1, env={MARK: mark}) as [host]:
        assert await say(host, "echo $OF_THE_CALLER.") == "."


async def test_the_login_shell_can_be_chosen(mark: str) -> None:
    async with open_hosts(1, env={MARK: mark}, shell="/bin/bash -p") as [host]:
        assert await say(host, "echo $SHELL") == "/bin/bash"


async def test_what_runs_there_ends_with_the_block(mark: str) -> None:
    async with open_hosts(1, env={MARK: mark}) as [host]:
        async with host.open() as shell:
            await shell.stdin.send_all(b"echo $$; exec cat\n")
            pid = int(await shell.stdout.receive_some())
            # While it executes `cat` it has no environment, and so no mark.
            await eventually(lambda: pid in marked_processes(mark))
        await eventually(lambda: pid not in marked_processes(mark))


async def test_cancelled_while_it_starts_it_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with trio.move_on_after(0.1) as scope:
        async with open_hosts(1):
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="says what ends with the parent by /proc")
@pytest.mark.slow
async def test_a_killed_program_leaves_no_process_and_no_file(mark: str, tmp_path: Path) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert program.stdout is not None
    with program.stdout:
        known_hosts, pid = program.stdout.readline().split()
    assert Path(known_hosts).is_relative_to(tmp_path)
    program.send_signal(signal.SIGKILL)
    program.wait()
    await eventually(lambda: not marked_processes(mark))
    await eventually(lambda: not Path("/proc", pid).exists())  # what ran on the host as well
    await eventually(lambda: not list(tmp_path.iterdir()))


async def test_hosts_last_as_long_as_the_block_whichever_thread_has_started_them(
    mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio._core._thread_cache.IDLE_TIMEOUT", 1.0)
    before = threading.active_count()
    async with open_hosts(1, env={MARK: mark}) as [host]:
        await eventually(lambda: threading.active_count() <= before)
        assert await say(host, "echo still there") == "still there"
