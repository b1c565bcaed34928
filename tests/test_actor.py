"""`launch.actor`: actors of tractor's as hosts; the rest is in contract/test_launchers.

It needs tractor: see servers/tractor.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from importlib.util import find_spec
from typing import Any

import pytest
import trio

import parallel
from parallel.abc import Launcher, Shell
from parallel.errors import HostUnreachable
from parallel.launch.actor import Actor

from .programs.distant import echo, use_all_of_it
from .servers.tractor import open_actors
from .support import alone, eventually, kill_all, marked_processes

pytestmark = pytest.mark.skipif(
    find_spec("tractor") is None, reason="missing: tractor (see servers/tractor.py)"
)
MODULES = ["parallel.launch.actor", __name__]


async def own_pid() -> int:
    return os.getpid()


@pytest.fixture
async def portal() -> AsyncIterator[Any]:
    with alone():
        async with open_actors("gpu", modules=MODULES) as [portal]:
            yield portal


async def read_pid(shell: Shell) -> int:
    await shell.stdin.send_all(b"echo $$\n")
    return int(await shell.stdout.receive_some())


async def test_its_name_is_the_actor_s_unless_it_is_given_another(portal: Any) -> None:
    assert Actor(portal).name == "gpu"
    assert Actor(portal, name="other").name == "other"


async def test_it_cannot_be_opened_where_nobody_has_prepared_it(portal: Any) -> None:
    with pytest.raises(TypeError, match="prepare"):
        Actor(portal).open()


async def test_the_shell_runs_below_the_actor(portal: Any) -> None:
    async with Actor(portal).prepare() as launcher, launcher.open() as shell:
        await shell.stdin.send_all(b"echo $PPID\n")
        assert int(await shell.stdout.receive_some()) == await portal.run(own_pid)


async def test_another_process_opens_it_as_a_cluster_s_does() -> None:
    async def use(launcher: Launcher) -> bytes:
        data = bytes(range(256)) * 1000
        async with launcher.open() as shell, trio.open_nursery() as nursery:
            await shell.stdin.send_all(b"echo; exec cat\n")
            assert await shell.stdout.receive_some() == b"\n"
            nursery.start_soon(shell.stdin.send_all, data)
            received = b""
            while len(received) < len(data):
                received += await shell.stdout.receive_some()
        return received

    async with open_actors("gpu", modules=MODULES) as [portal]:
        async with parallel.init(grace=2.0), Actor(portal).prepare() as launcher:
            for _ in range(2):
                assert await parallel.run(use, launcher) == bytes(range(256)) * 1000


async def test_a_program_uses_it_as_any_host_and_the_actor_goes_on() -> None:
    async with open_actors("gpu", modules=MODULES) as [portal]:
        cluster = parallel.Cluster([Actor(portal, python=sys.executable)])
        async with parallel.init(cluster=cluster, grace=2.0):
            await use_all_of_it("gpu")
        assert is_alive(await portal.run(own_pid))


async def test_a_cancelled_actor_s_host_has_died_and_nothing_is_left_there(mark: str) -> None:
    """What is cancelled here ends there as it does on any host; this is the other direction."""
    async with open_actors("gpu", modules=MODULES) as [portal]:
        cluster = parallel.Cluster([Actor(portal, python=sys.executable)])
        async with parallel.init(cluster=cluster, grace=1.0):
            with pytest.raises(parallel.HostDied) as died, trio.fail_after(30):
                async with parallel.spawn(echo, where="gpu") as (channel, process):
                    await channel.send("ping")
                    assert await channel.receive() == "ping"
                    await portal.cancel_actor()
                    await channel.receive()
            assert died.value.host == "gpu"
            await eventually(lambda: not is_alive(process.pid))
            await eventually(lambda: "parallel-agent" not in marked_processes(mark).values())


async def test_an_actor_that_may_not_is_told_how_it_would() -> None:
    with alone():
        async with open_actors("gpu", modules=[__name__]) as [portal]:
            async with Actor(portal).prepare() as launcher:
                with pytest.raises(HostUnreachable, match="enable_modules="):
                    async with launcher.open():
                        pass


async def test_the_actor_goes_on_when_the_host_is_left(portal: Any) -> None:
    async with Actor(portal).prepare() as launcher:
        async with launcher.open() as shell:
            pid = await read_pid(shell)
        await eventually(lambda: not is_alive(pid))
    assert is_alive(await portal.run(own_pid))


async def hold(launcher: Launcher, *, task_status: trio.TaskStatus[int]) -> None:
    """Open a shell and wait for its end."""
    async with launcher.open() as shell:
        task_status.started(await read_pid(shell))
        assert await shell.stdout.receive_some() == b""
        assert shell.why_ended() == "the program's first process has ended it"


async def test_the_shell_ends_when_its_preparation_does(portal: Any) -> None:
    async with trio.open_nursery() as nursery:
        prepared = Actor(portal).prepare()
        pid = await nursery.start(hold, await prepared.__aenter__())
        await prepared.__aexit__(None, None, None)
        await eventually(lambda: not is_alive(pid))


async def test_a_killed_actor_ends_the_shell_and_says_so(mark: str) -> None:
    with alone():
        async with open_actors("gpu", modules=MODULES) as [portal]:
            actor = await portal.run(own_pid)
            async with Actor(portal).prepare() as launcher, launcher.open() as shell:
                pid = await read_pid(shell)
                os.kill(actor, signal.SIGKILL)
                with trio.fail_after(10):
                    assert await shell.stdout.receive_some() == b""
                assert shell.why_ended() == "the tractor actor has gone"
                await eventually(lambda: not is_alive(pid))


async def test_a_cancelled_actor_ends_the_shell_and_says_so(portal: Any) -> None:
    async with Actor(portal).prepare() as launcher, launcher.open() as shell:
        pid = await read_pid(shell)
        await portal.cancel_actor()
        with trio.fail_after(10):
            assert await shell.stdout.receive_some() == b""
        assert "actor" in shell.why_ended()
        await eventually(lambda: not is_alive(pid))


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


PROGRAM = """
import trio
from parallel.launch.actor import Actor
from tests.servers.tractor import open_actors
from tests.support import alone

async def main():
    with alone():
        async with open_actors("gpu", modules=["parallel.launch.actor"]) as [portal]:
            async with Actor(portal).prepare() as launcher, launcher.open() as shell:
                await shell.stdin.send_all(b"echo $$; exec cat\\n")
                print(int(await shell.stdout.receive_some()), flush=True)
                await trio.sleep_forever()

if __name__ == "__main__":
    trio.run(main)
"""


async def test_a_killed_program_leaves_no_shell(mark: str) -> None:
    argv = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        pid = int(program.stdout.readline())
        program.send_signal(signal.SIGKILL)
    await eventually(lambda: not is_alive(pid))
    kill_all(marked_processes(mark))  # tractor's actors outlive their program
