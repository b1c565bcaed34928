"""The servers that other tests start work by themselves, fail as told, and leave nothing."""

from __future__ import annotations

import itertools
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import pytest

from . import servers, support
from .programs.relay import RETRANSMISSION, SEGMENT, Line
from .servers import openssh
from .servers import slurm as slurm_module
from .servers.network import open_network_host
from .servers.openssh import open_sshd
from .servers.relay import open_relay
from .servers.slurm import Slurm
from .servers.tractor import open_actors
from .sockets import listening

EVERY_BYTE = bytes(range(256))


class Echo:
    """A `cat` on another host."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self.input: IO[bytes] = process.stdin
        self.output: IO[bytes] = process.stdout

    def __call__(self, data: bytes) -> bytes:
        self.input.write(data)
        answer = b""
        while len(answer) < len(data) and (more := self.output.read(len(data) - len(answer))):
            answer += more
        return answer


@contextmanager
def echo(command: list[str], env: dict[str, str] | None = None) -> Iterator[Echo]:
    """A connection to a `cat`, which has answered once."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, bufsize=0, stdin=pipe, stdout=pipe, env=env) as process:
        try:
            answer = Echo(process)
            assert answer(b"up") == b"up"
            yield answer
            answer.input.close()
            process.wait()
        except BaseException:
            process.kill()
            raise


def gone(*pids: int) -> bool:
    return not any(Path(f"/proc/{pid}/exe").exists() for pid in pids)


async def test_without_a_server_a_test_skips_and_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(servers, "REQUIRED", False)
    with pytest.raises(pytest.skip.Exception, match="missing: the program no-such-thing"):
        servers.require("no-such-thing", "sh")
    monkeypatch.setattr(servers, "REQUIRED", True)
    with pytest.raises(pytest.fail.Exception, match="missing: the program no-such-thing"):
        servers.program("no-such-thing")


# -- sshd ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["sh", "bash", "zsh", "fish", "tcsh"])
def test_each_ssh_host_has_its_own_login_shell(shell: str, mark: str) -> None:
    with open_sshd(shell=shell) as sshd, echo(sshd.ssh("cat; true")) as answer:
        assert sorted(sshd.pids().values()) == sorted([shell, "cat"])
        client = {answer.process.pid: "ssh"}
        assert support.marked_processes(mark) == sshd.pids() | client


def test_an_ssh_host_has_its_own_home_user_and_mounts_and_carries_the_mark(mark: str) -> None:
    setup = "mount -t tmpfs -o size=64k tmpfs $HOME; chown alice $HOME"
    with open_sshd(user="alice", uid=4321, setup=setup) as sshd:
        line = f"id -un; pwd; echo ${support.MARK}; echo here >file; df --output=size . | tail -1"
        answer = subprocess.run(sshd.ssh(line), capture_output=True, text=True, check=True)
        assert answer.stdout.split() == ["alice", str(sshd.home), mark, "64"]
        assert not (sshd.home / "file").exists()


def test_the_ssh_daemon_its_sessions_and_their_programs_can_be_killed_apart() -> None:
    with open_sshd() as sshd, echo(sshd.ssh("cat; true")) as answer:
        os.kill(sshd.pid, signal.SIGKILL)
        while not gone(sshd.pid):
            time.sleep(0.001)
        refused = subprocess.run(sshd.ssh("true"), capture_output=True, check=False)
        assert b"Connection refused" in refused.stderr
        assert answer(b"still") == b"still"
        (session,) = sshd.sessions()
        os.kill(session, signal.SIGKILL)
        assert answer.process.wait() == 255


def test_what_is_left_on_an_ssh_host_fails_the_test_and_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(openssh, "LEAVING", 0.05)
    left: list[int] = []
    with pytest.raises(AssertionError, match=r"left behind on host0: .*sleep"):
        with open_sshd() as sshd:
            subprocess.run(sshd.ssh("setsid sleep 1000 </dev/null >/dev/null 2>&1 &"), check=True)
            left += sshd.pids()
    assert gone(*left)
    assert not sshd.directory.exists()


KILLED = """
import subprocess, time
from tests.servers.network import open_network_host

with open_network_host() as (sshd, link):
    subprocess.run(sshd.ssh("setsid sleep 1000 </dev/null >/dev/null 2>&1 &"), check=True)
    print(sshd.directory, link.device, *sshd.server.pids(), flush=True)
    time.sleep(1000)
"""


@pytest.mark.needs("sshd", "ip")
async def test_servers_end_when_their_tests_are_killed() -> None:
    command = [sys.executable, "-c", KILLED]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as tests:
        assert tests.stdout is not None
        directory, device, *pids = tests.stdout.readline().split()
        assert len(pids) > 4
        tests.kill()
    await support.eventually(lambda: gone(*map(int, pids)) and not Path(directory).exists())
    await support.eventually(lambda: not Path("/sys/class/net", device).exists())


# -- Slurm --------------------------------------------------------------------------------------


def test_srun_is_transparent_to_bytes(slurm: Slurm) -> None:
    data = EVERY_BYTE * 4 + random.Random(0).randbytes(1_000_000)
    for node in ("node0", "node1"):
        command = ["srun", "--nodes=1", f"--nodelist={node}", "cat"]
        answer = subprocess.run(
            command, env=slurm.environment, input=data, capture_output=True, check=True
        )
        assert answer.stdout == data


def test_srun_hands_on_bytes_as_they_come_if_unbuffered_else_up_to_the_last_newline(
    slurm: Slurm,
) -> None:
    with echo(["srun", "--unbuffered", "--nodes=1", "cat"], env=slurm.environment) as answer:
        for byte in EVERY_BYTE:
            assert answer(bytes([byte])) == bytes([byte])
        assert answer(EVERY_BYTE) == EVERY_BYTE
    pipe = subprocess.PIPE
    with subprocess.Popen(
        ["srun", "--nodes=1", "cat"], bufsize=0, env=slurm.environment, stdin=pipe, stdout=pipe
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"line\nrest")
        assert process.stdout.read(100) == b"line\n"
        assert not select.select([process.stdout], [], [], 0.3)[0]
        process.stdin.close()
        assert process.stdout.read() == b"rest"


def test_salloc_gives_both_nodes_and_takes_them_back(slurm: Slurm) -> None:
    line = "echo $SLURM_JOB_NODELIST; srun sh -c 'echo $SLURMD_NODENAME'"
    command = ["salloc", "--nodes=2", "sh", "-c", line]
    answer = subprocess.run(
        command, env=slurm.environment, capture_output=True, text=True, check=True
    )
    assert sorted(answer.stdout.split()) == ["node0", "node1", "node[0-1]"]
    slurm.clear()


def test_what_is_left_in_slurm_fails_the_test_and_ends(
    slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        monkeypatch.context() as patch,
        echo(["srun", "--unbuffered", "--nodes=1", "cat"], env=slurm.environment),
    ):
        patch.setattr(slurm_module, "LEAVING", 0.05)
        with pytest.raises(AssertionError, match=r"left behind in Slurm: .*'cat'"):
            slurm.clear()
    slurm.clear()


# -- links --------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [("drop", "heal"), ("down", "up")])
def test_a_partition_stalls_an_open_connection_until_it_heals(failure: tuple[str, str]) -> None:
    fail, mend = failure
    with open_network_host() as (sshd, link), echo(sshd.ssh("cat; true")) as answer:
        getattr(link, fail)()
        answer.input.write(b"late")
        assert not select.select([answer.output], [], [], 0.5)[0]
        getattr(link, mend)()
        assert answer.output.read(4) == b"late"
    assert not Path("/sys/class/net", link.device).exists()


def test_a_network_host_has_pids_a_name_and_sockets_of_its_own() -> None:
    with open_network_host("far-away") as (sshd, _):
        command = sshd.ssh("hostname; echo $$; cat; true")
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"far-away\n"
            pid = sshd.outside(int(process.stdout.readline()))
            assert sshd.pids()[pid] == "sh"
            found = {(socket.kind, socket.address) for socket in listening(sshd.server.pids())}
            assert found == {("tcp", "0.0.0.0:22")}
            process.kill()


# -- relays -------------------------------------------------------------------------------------


@contextmanager
def relayed(**options: float) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection through a relay."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with open_relay(*listener.getsockname(), **options) as relay:
            with socket.create_connection((relay.address, relay.port)) as near:
                far, _ = listener.accept()
                with far:
                    yield near, far


def receive(end: socket.socket, size: int) -> bytes:
    """So many bytes, or what there is until the other end closes."""
    data = bytearray()
    while len(data) < size and (more := end.recv(size - len(data))):
        data += more
    return bytes(data)


def seconds_for(size: int, **options: float) -> float:
    """What a relay takes for a message and an answer of one byte."""
    with relayed(**options) as (near, far):
        start = time.monotonic()
        near.sendall(bytes(size))
        receive(far, size)
        far.sendall(b"1")
        receive(near, 1)
        return time.monotonic() - start


def test_a_relay_delays_each_way() -> None:
    assert seconds_for(1, delay=0.2) >= 0.4


def test_a_relay_throttles() -> None:
    size = 1 << 18
    assert seconds_for(size, rate=size / 0.5) >= 0.5


def test_a_lossy_relay_loses_nothing_and_keeps_the_order_and_the_end() -> None:
    data = random.Random(0).randbytes(50 * SEGMENT)
    with relayed(loss=0.05) as (near, far):
        near.sendall(data)
        near.shutdown(socket.SHUT_WR)
        assert receive(far, len(data) + 1) == data
        far.sendall(b"heard")
        far.close()
        assert receive(near, 6) == b"heard"


def test_segments_that_a_relay_loses_hold_up_those_behind() -> None:
    line = Line(delay=0.1, rate=SEGMENT / 0.001, loss=0.05, dice=random.Random(0))
    arrivals = [line.arrival(10.0, SEGMENT) for _ in range(10_000)]
    pauses = [b - a for a, b in itertools.pairwise(arrivals)]
    lost = [pause for pause in pauses if pause > 0.01]
    assert arrivals[0] == pytest.approx(10.101)
    assert 0.04 < len(lost) / len(pauses) < 0.06
    assert min(pauses) == pytest.approx(0.001)
    assert max(pauses) == pytest.approx(0.001 + 0.2 + RETRANSMISSION)


def test_an_ssh_host_is_trusted_behind_a_relay_once_told_so() -> None:
    with open_sshd() as sshd, open_relay(sshd.address, sshd.port) as relay:
        options = [f"-oPort={relay.port}", f"-oHostName={relay.address}"]
        command = sshd.ssh("true", *options)
        refused = subprocess.run(command, capture_output=True, check=False)
        assert b"Host key verification failed" in refused.stderr
        sshd.trust(relay.address, relay.port)
        subprocess.run(command, check=True)


# -- tractor ------------------------------------------------------------------------------------


async def own_pid() -> int:
    return os.getpid()


@pytest.mark.skipif(
    find_spec("tractor") is None, reason="missing: tractor (see servers/tractor.py)"
)
async def test_a_tractor_actor_runs_in_a_process_of_its_own() -> None:
    async with open_actors("first", "second", modules=[__name__]) as portals:
        pids = {await portal.run(own_pid) for portal in portals}
        assert len(pids - {os.getpid()}) == 2
