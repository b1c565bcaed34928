"""Links that fail without a word, and programs that stand still: who is judged dead, and who not.

The hosts have a network of their own (see `servers/network.py`). A heartbeat is a second or two.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import pytest
import trio

import parallel
from parallel import HostDied

from .hosts import named, ssh
from .programs.distant import echo, stay_and_have, use_all_of_it
from .servers.network import Link, open_network_host
from .servers.openssh import Sshd, open_sshd
from .servers.relay import Relay, open_relay
from .support import IMPORT_PATH, eventually, marked_processes

pytestmark = [pytest.mark.slow, pytest.mark.needs("sshd", "ssh", "ssh-keygen", "ip", "nsenter")]

HEARTBEAT = 1.5
GRACE = 0.5
LATER = 2.0 * HEARTBEAT
"""Seconds of standing still after which a judge that did not know would see a dead link."""


@asynccontextmanager
async def far_host(
    heartbeat: float = HEARTBEAT,
) -> AsyncIterator[tuple[parallel.Cluster, Sshd, Link]]:
    """A program with a host beyond a link that can fail."""
    with open_network_host() as (sshd, link):
        cluster = parallel.Cluster([ssh(sshd)])
        async with parallel.init(cluster=cluster, heartbeat=heartbeat, grace=GRACE):
            yield cluster, sshd, link


def programs(pids: dict[int, str]) -> list[int]:
    """What the workers have started."""
    return [pid for pid, name in pids.items() if name == "sleep"]


# -- partitions ---------------------------------------------------------------------------------


async def test_a_partition_ends_both_sides_and_the_host_can_be_added_when_it_has_healed(
    mark: str,
) -> None:
    async with far_host() as (cluster, sshd, link):

        async def cut() -> None:
            # Two here, started by a process there, which has two too.
            await eventually(lambda: len(programs(marked_processes(mark))) == 4)
            link.drop()
            limit.deadline = trio.current_time() + HEARTBEAT + 1

        limit = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cut)
            with limit, pytest.raises(HostDied, match=r"silent for 1\.5 s") as caught:
                await parallel.run(stay_and_have, "root", where="host0")
        assert not limit.cancelled_caught, "it was not told in time"
        assert caught.value.host == "host0"
        with pytest.raises(HostDied):
            await parallel.run(os.getpid, where="host0")
        await eventually(lambda: not sshd.pids(), HEARTBEAT + GRACE + 1)
        await eventually(lambda: not programs(marked_processes(mark)), GRACE + 1)
        link.heal()
        await cluster.add(ssh(sshd))
        assert await parallel.run(parallel.current_host, where="host0") == "host0"


# -- standing still -----------------------------------------------------------------------------


async def test_a_root_that_blocks_its_event_loop_for_longer_than_the_heartbeat_loses_nothing() -> (
    None
):
    async with far_host() as (_, sshd, _):
        agent = named(sshd.pids(), "parallel-agent")
        async with parallel.spawn(echo, where="host0") as (channel, process):
            for number in range(3):
                await channel.send(number)
            time.sleep(LATER)
            assert [await channel.receive() for _ in range(3)] == [0, 1, 2]
        assert await process.result() == 3
        assert agent in sshd.pids()


ROOT = """
import sys, trio, parallel
from parallel.launch.ssh import Ssh
from tests.programs.distant import echo

async def main(name, config, heartbeat):
    host = Ssh(name, config=config, python=sys.executable)
    async with parallel.init(cluster=parallel.Cluster([host]), heartbeat=float(heartbeat)):
        async with parallel.spawn(echo, where=name) as (channel, process):
            for _ in range(2):
                await channel.send("ping")
                assert await channel.receive() == "ping"
                print("ping", flush=True)
                await trio.to_thread.run_sync(sys.stdin.readline)
        print(await process.result(), flush=True)

trio.run(main, *sys.argv[1:])
"""


async def test_a_root_that_is_stopped_for_longer_than_the_heartbeat_loses_nothing() -> None:
    pipe = subprocess.PIPE
    with open_network_host() as (sshd, _):
        command = [sys.executable, "-c", ROOT, sshd.name, str(sshd.config), str(HEARTBEAT)]
        environment = {**os.environ, "PYTHONPATH": IMPORT_PATH}
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as root:
            assert root.stdin is not None
            assert root.stdout is not None
            assert root.stdout.readline() == "ping\n"
            os.kill(root.pid, signal.SIGSTOP)
            await trio.sleep(LATER)
            os.kill(root.pid, signal.SIGCONT)
            root.stdin.write("\n\n")
            root.stdin.flush()
            assert root.stdout.read() == "ping\n2\n"
        assert root.returncode == 0


async def test_an_agent_of_the_root_that_is_stopped_is_dead_for_the_other_side_after_a_heartbeat(
    mark: str,
) -> None:
    """Of whom nothing is heard nobody can tell more. It finds its hosts gone, and has them anew."""
    async with far_host() as (cluster, sshd, _):
        agent = named(marked_processes(mark), "parallel: agent")
        async with parallel.spawn(echo, where="host0") as (channel, process):
            os.kill(agent, signal.SIGSTOP)
            await trio.sleep(HEARTBEAT / 3)
            os.kill(agent, signal.SIGCONT)
            await channel.send("after a moment")
            assert await channel.receive() == "after a moment"
        assert await process.result() == 1
        with pytest.raises(HostDied, match=r"silent for 1\.5 s") as caught:
            async with parallel.spawn(echo, where="host0") as (channel, _):
                os.kill(agent, signal.SIGSTOP)
                await eventually(lambda: not sshd.pids(), HEARTBEAT + GRACE + 2)
                os.kill(agent, signal.SIGCONT)
                await channel.receive()
        assert caught.value.host == "host0"
        await cluster.add(ssh(sshd))
        assert await parallel.run(parallel.current_host, where="host0") == "host0"


async def test_an_agent_of_a_host_that_is_stopped_is_dead_for_the_root_and_ends_when_it_goes_on(
    mark: str,
) -> None:
    async with far_host() as (cluster, sshd, _):
        agent = named(sshd.pids(), "parallel-agent")
        with pytest.raises(HostDied, match=r"silent for 1\.5 s"):
            async with parallel.spawn(echo, where="host0") as (channel, _):
                os.kill(agent, signal.SIGSTOP)
                await channel.receive()
        os.kill(agent, signal.SIGCONT)
        await eventually(lambda: not sshd.pids(), HEARTBEAT + GRACE + 1)
        await cluster.add(ssh(sshd))
        assert await parallel.run(parallel.current_host, where="host0") == "host0"


# -- bad links ----------------------------------------------------------------------------------


LINES = {
    "200 ms": {"delay": 0.2},
    "5 % loss": {"delay": 0.005, "loss": 0.05},
    "10 Mbit/s": {"rate": 10e6 / 8},
}


async def test_over_bad_links_everything_works_and_nobody_is_judged_dead() -> None:
    with ExitStack() as stack:
        sshd = stack.enter_context(open_sshd())
        cluster = parallel.Cluster([ssh(sshd)])
        async with parallel.init(cluster=cluster, heartbeat=2.0, grace=GRACE):
            await use_all_of_it("host0")  # over a good link; what is sent but once is there then
            async with trio.open_nursery() as nursery:
                for name, line in LINES.items():
                    relay = stack.enter_context(open_relay(sshd.address, sshd.port, **line))
                    nursery.start_soon(use_over, cluster, name, sshd, relay)
            assert not any(host.down for host in parallel.hosts())


async def use_over(cluster: parallel.Cluster, name: str, sshd: Sshd, relay: Relay) -> None:
    sshd.trust(relay.address, relay.port)
    launcher = ssh(
        sshd,
        name=name,
        destination=f"{sshd.user}@{relay.address}:{relay.port}",
        known_hosts=str(sshd.known_hosts),
        client_keys=[str(sshd.key)],
    )
    await cluster.add(launcher)
    await use_all_of_it(name)
