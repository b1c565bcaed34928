"""What every launcher does, whatever it launches."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import cloudpickle
import pytest
import trio

import parallel
from parallel._bootstrap import open_host
from parallel.abc import Launcher
from parallel.errors import HostUnreachable
from parallel.launch.actor import Actor
from parallel.launch.command import Command
from parallel.launch.local import Local
from parallel.launch.slurm import Slurm
from parallel.launch.ssh import Ssh
from parallel.testing import open_hosts

from ..programs.distant import use_all_of_it
from ..servers.openssh import open_sshd
from ..servers.slurm import Slurm as SlurmServer
from ..servers.slurm import open_slurm
from ..servers.tractor import open_actors
from ..support import MARK, alone

Open = Callable[..., Launcher]
"""Makes a launcher with the settings it is given."""


needs_tractor = pytest.mark.skipif(
    find_spec("tractor") is None, reason="missing: tractor (see servers/tractor.py)"
)
KINDS = [
    "local",
    "command",
    "ssh",
    pytest.param("openssh", marks=pytest.mark.needs("sshd")),
    pytest.param("command ssh", marks=pytest.mark.needs("sshd")),
    pytest.param("slurm", marks=pytest.mark.needs("slurmctld")),
    pytest.param("actor of tractor", marks=needs_tractor),
]


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Iterator[tuple[str, SlurmServer | None]]:
    """What launches, and the server that takes longest to start."""
    with open_slurm() if request.param == "slurm" else nullcontext() as server:
        yield request.param, server


@pytest.fixture
def user() -> dict[str, Any]:
    """Who logs in over ssh: not who runs the tests."""
    return {"user": "alice", "uid": 4321}


@pytest.fixture
async def make(
    kind: tuple[str, SlurmServer | None],
    user: dict[str, Any],
    mark: str,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Open]:
    name, server = kind
    match name:
        case "local":
            yield Local
        case "command":
            yield partial(Command, ["env", "SEEN=yes"], name="command")
        case "ssh":
            async with open_hosts(1, env={MARK: mark}) as [host]:
                yield partial(replace, host)
        case "openssh":
            with open_sshd(**user) as sshd:
                yield partial(Ssh, sshd.name, config=str(sshd.config), python=sys.executable)
        case "command ssh":
            with open_sshd(**user) as sshd:
                words = ["ssh", "-F", str(sshd.config), sshd.name]
                yield partial(Command, words, name="command", python=sys.executable)
        case "slurm":
            assert server is not None
            monkeypatch.setenv("SLURM_CONF", str(server.config))
            async with Slurm(1, python=sys.executable).allocate() as [host]:
                yield partial(replace, host)
            server.clear()
        case "actor of tractor":
            with alone():
                async with open_actors("actor", modules=["parallel.launch.actor"]) as [portal]:
                    async with Actor(portal, python=sys.executable).prepare() as host:
                        yield partial(replace, host)


async def receive(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    data = b""
    while len(data) < size and (some := await stream.receive_some()):
        data += some
    return data


async def rest(stream: trio.abc.ReceiveStream | None) -> bytes:
    assert stream is not None
    return b"".join([data async for data in stream])


async def test_a_shell_reads_commands_and_its_stderr_is_apart(make: Open) -> None:
    async with make().open() as shell:
        await shell.stdin.send_all(b"echo out; echo err >&2; exit\n")
        assert await rest(shell.stdout) == b"out\n"
        # srun may have remarks of its own.
        assert (await rest(shell.stderr)).splitlines()[-1:] == [b"err"]


async def test_it_reads_what_comes_after_the_end_of_a_command(make: Open) -> None:
    async with make().open() as shell:
        for word in (b"one", b"two"):
            await shell.stdin.send_all(b"echo " + word + b"\n")
            assert await receive(shell.stdout, 4) == word + b"\n"


async def test_every_byte_comes_through_both_ways(make: Open) -> None:
    data = bytes(range(256)) * 4096
    async with make().open() as shell, trio.open_nursery() as nursery:
        await shell.stdin.send_all(b"echo begin; exec cat\n")
        assert await receive(shell.stdout, 6) == b"begin\n"
        nursery.start_soon(shell.stdin.send_all, data)
        assert await receive(shell.stdout, len(data)) == data


async def test_closing_its_stdin_is_the_end_of_file_and_then_of_the_shell(make: Open) -> None:
    async with make().open() as shell:
        await shell.stdin.send_all(b"echo begin; cat; echo end; exit 3\n")
        assert await receive(shell.stdout, 6) == b"begin\n"
        await shell.stdin.aclose()
        assert await rest(shell.stdout) in (b"end\n", b"echo end; exit 3\n")


async def test_the_shell_s_end_is_seen_and_told(make: Open) -> None:
    async with make().open() as shell:
        assert shell.why_ended() == ""
        await shell.stdin.send_all(b"exit 3\n")
        assert await shell.stdout.receive_some() == b""
        with trio.fail_after(5):
            while not shell.why_ended():
                await trio.sleep(0.01)
        assert shell.why_ended().endswith("exited with code 3")


async def test_a_killed_shell_is_told_apart(make: Open) -> None:
    async with make().open() as shell:
        await shell.stdin.send_all(b"kill -9 $$\n")
        assert await shell.stdout.receive_some() == b""
        with trio.fail_after(5):
            while not shell.why_ended():
                await trio.sleep(0.01)
        assert shell.why_ended().endswith(("was killed by SIGKILL", "exited with code 137"))


@pytest.mark.slow
async def test_what_is_not_read_holds_the_writer_up(make: Open) -> None:
    async with make().open() as shell:
        await shell.stdin.send_all(b"exec cat /dev/zero\n")
        assert await shell.stdout.receive_some(1) == b"\0"
        await trio.testing.wait_all_tasks_blocked(0.2)
        assert len(await shell.stdout.receive_some()) > 1


@pytest.mark.slow
async def test_a_shell_that_does_not_read_holds_the_sender_up(make: Open) -> None:
    async with make().open() as shell:
        await shell.stdin.send_all(b"echo begin; exec sleep 2\n")
        assert await receive(shell.stdout, 6) == b"begin\n"
        with trio.move_on_after(0.5) as scope:
            for _ in range(100):
                await shell.stdin.send_all(bytes(1 << 20))
        assert scope.cancelled_caught


async def test_what_the_body_raises_is_raised_as_it_is(make: Open) -> None:
    with pytest.raises(ZeroDivisionError):
        async with make().open():
            raise ZeroDivisionError


@pytest.mark.slow
async def test_the_end_of_the_block_ends_a_shell_that_goes_on(make: Open) -> None:
    if "ssh" in repr(make()) and isinstance(make(), Command):
        pytest.skip("OpenSSH's client cannot end what does not heed the end of its stdin")
    async with make().open() as shell:
        await shell.stdin.send_all(b"trap '' TERM; echo begin; while :; do sleep 1; done\n")
        assert await receive(shell.stdout, 6) == b"begin\n"


async def test_it_can_be_pickled(make: Open) -> None:
    launcher = make(env={"A": "b"}, slots=3)
    if isinstance(launcher, Actor):
        pytest.skip("it holds a channel, which only our codec pickles: see test_actor")
    for copy in (
        pickle.loads(pickle.dumps(launcher)),
        cloudpickle.loads(cloudpickle.dumps(launcher)),
    ):
        assert repr(copy) == repr(launcher)
        async with copy.open() as shell:
            await shell.stdin.send_all(b"exit\n")
            assert await rest(shell.stdout) == b""


async def test_by_itself_it_prepares_nothing(make: Open) -> None:
    launcher = make()
    if isinstance(launcher, Actor):
        pytest.skip("this one does: see test_actor")
    async with launcher.prepare() as prepared:
        assert prepared is launcher


async def use(launcher: Launcher) -> None:
    async with launcher.open() as shell:
        await shell.stdin.send_all(b"echo begin; exec cat\n")
        await receive(shell.stdout, 6)
        await shell.stdin.aclose()
        await rest(shell.stdout)


@pytest.mark.slow
async def test_cancelled_at_any_moment_it_leaves_nothing(make: Open) -> None:
    launcher = make()
    await use(launcher)
    before = len(os.listdir("/proc/self/fd"))
    steps = await count_steps(lambda: use(launcher))
    for step in sorted({*range(1, steps, max(1, steps // 20)), 2, 3}):
        assert await cancelled_at(step, lambda: use(launcher)) or step >= steps // 2
        assert len(os.listdir("/proc/self/fd")) <= before


class Steps(trio.abc.Instrument):
    """Counts the steps that tasks take, and calls something at one of them."""

    def __init__(self, step: int, at_step: Callable[[], object]) -> None:
        self.count = 0
        self.step = step
        self.at_step = at_step

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1
        if self.count == self.step:
            self.at_step()


async def count_steps(function: Callable[[], Awaitable[None]]) -> int:
    steps = Steps(-1, lambda: None)
    trio.lowlevel.add_instrument(steps)
    try:
        await function()
    finally:
        trio.lowlevel.remove_instrument(steps)
    return steps.count


async def cancelled_at(step: int, function: Callable[[], Awaitable[None]]) -> bool:
    with trio.CancelScope() as scope:
        steps = Steps(step, scope.cancel)
        trio.lowlevel.add_instrument(steps)
        try:
            await function()
        finally:
            trio.lowlevel.remove_instrument(steps)
    return scope.cancelled_caught


# With the bootstrap


async def test_a_failing_start_quotes_what_was_printed(make: Open) -> None:
    launcher = make(setup="echo no such module >&2; exit 7")
    with pytest.raises(HostUnreachable, match="no such module") as caught:
        async with open_host(launcher, {}, print):
            pass
    assert caught.value.host == launcher.name
    assert "exited with code 7" in str(caught.value)


@pytest.mark.slow
async def test_a_start_that_hangs_ends_at_the_timeout(make: Open) -> None:
    # Not for ever: OpenSSH's client cannot end what does not heed the end of its stdin.
    launcher = make(setup="echo wait a moment >&2; exec sleep 3", connect_timeout=0.5)
    with pytest.raises(HostUnreachable, match="wait a moment") as caught:
        async with open_host(launcher, {}, print):
            pass
    assert "0.5 s" in str(caught.value)
    assert "connect_timeout=" in str(caught.value)


# With all the rest


@pytest.mark.parametrize("user", [{}], ids=[""])  # who may execute this Python
@pytest.mark.slow
async def test_a_program_uses_the_host_like_any_other(make: Open) -> None:
    launcher = make()
    if isinstance(launcher, Actor):
        pytest.skip("it is prepared by the program that uses it: see test_actor")
    async with parallel.init(cluster=parallel.Cluster([launcher]), grace=2.0):
        await use_all_of_it(launcher.name)
