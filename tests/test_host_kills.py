"""`kill -9` at random moments, of everything that holds a tree over several hosts together.

The tree is a cascade over the root's host and two ssh hosts, whose processes talk with each other,
print, and most of which have started a program (see `programs/spread.py`). A host that has died is
added again while the next round runs with the others.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

import parallel
from parallel import HostDied, WorkerDied
from parallel._member import current_member
from parallel._showcase import AGENT
from parallel._table import read_table

from .hosts import HOST_PROGRAMS, ROOT_PROGRAMS, is_up, kill, leaves, named, ssh
from .programs.spread import Level, chat, spread
from .servers.openssh import Sshd, open_sshd
from .support import IMPORT_PATH, MARK, ROUNDS, marked_processes

pytestmark = [pytest.mark.slow, pytest.mark.needs("sshd", "ssh", "ssh-keygen", "unshare")]

ROOT_PROGRAM = Path(__file__).with_name("programs") / "spread_root.py"
DEPTH = 6
GRACE = 0.25
HEARTBEAT = 4.0
"""Seconds; long, for what is killed here is missed at once."""

PATIENCE = 20.0
"""Seconds for a round on a busy machine."""

LIMIT = GRACE + 1.0
"""Seconds until everything is gone."""


class Host:
    """An ssh host, and its server as it is now."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.servers = ExitStack()
        self.start()

    def start(self) -> None:
        self.sshd: Sshd = self.servers.enter_context(open_sshd(self.name))

    def stop(self) -> None:
        """Checks that nothing is left there."""
        self.servers.close()

    def pids(self) -> dict[int, str]:
        return self.sshd.pids()

    def pid(self, program: str) -> int:
        return named(self.pids(), program)

    def workers(self) -> dict[int, str]:
        """And what they have started."""
        return {pid: name for pid, name in self.pids().items() if name not in HOST_PROGRAMS}


@contextmanager
def open_ssh_hosts(count: int) -> Iterator[list[Host]]:
    with ExitStack() as stack:
        hosts = [Host(f"host{number}") for number in range(count)]
        for host in hosts:
            stack.callback(host.stop)
        yield hosts


class Tree:
    """The hosts of a program, and its root's own."""

    def __init__(self, cluster: parallel.Cluster, hosts: Sequence[Host], mark: str) -> None:
        self.cluster = cluster
        self.hosts = hosts
        self.mark = mark
        self.rng = random.Random()

    def root_agent(self) -> int:
        (entry,) = [each for each in read_table(current_member().table)[1] if each.name == AGENT]
        return entry.pid

    def here(self) -> dict[int, str]:
        """What runs on the root's own host."""
        elsewhere = {pid for host in self.hosts for pid in host.sshd.server.pids()}
        found = marked_processes(self.mark).items()
        return {pid: name for pid, name in found if pid not in elsewhere}

    def workers_here(self) -> dict[int, str]:
        return {pid: name for pid, name in self.here().items() if name not in ROOT_PROGRAMS}

    async def pick(self) -> tuple[Host, Host]:
        """Two hosts that are there, when there are two."""
        while True:
            up = [host for host in self.hosts if is_up(host.name)]
            if len(up) > 1:
                first, second = self.rng.sample(up, 2)
                return first, second
            await trio.sleep(0.005)

    def plan(self, first: Host, second: Host) -> list[str]:
        """Where the levels of a cascade run; the root's own host and one below it come early."""
        names = ["root", first.name, second.name]
        return names + self.rng.choices(names, k=DEPTH - len(names))

    def check_clean(self) -> None:
        """No worker is left anywhere, nor what it has started."""
        left = {"root": self.workers_here(), **{host.name: host.workers() for host in self.hosts}}
        assert not any(left.values()), left

    async def restart(self, host: Host, with_server: bool = False) -> None:
        """Have a host again that has died."""
        if with_server:
            host.stop()
            host.start()
        while is_up(host.name):
            await trio.sleep(0.005)
        await self.cluster.add(ssh(host.sshd))


@asynccontextmanager
async def open_tree(count: int, mark: str) -> AsyncIterator[Tree]:
    with open_ssh_hosts(count) as hosts:
        cluster = parallel.Cluster([ssh(host.sshd) for host in hosts])
        async with parallel.init(cluster=cluster, grace=GRACE, heartbeat=HEARTBEAT):
            yield Tree(cluster, hosts, mark)


@dataclass
class Outcome:
    """What was killed, and what the root got to know of it."""

    at: float = 0.0
    pid: int = 0
    """Of a worker."""
    errors: list[BaseException] = field(default_factory=list)


Strike = Callable[[Tree, Host, Sequence[Level]], int]
"""Kills something of the tree or of a host; returns the pid if it is a worker, else 0."""


async def strike_once(tree: Tree, first: Host, second: Host, strike: Strike) -> Outcome:
    """Grow a cascade, kill, and wait for what the root is told."""
    outcome = Outcome()
    depth = tree.rng.randint(2, DEPTH)  # the second level is on `first`

    async def kill_in_time(hub: parallel.Hub[object, Level]) -> None:
        levels: list[Level] = []
        async for _, level in hub:
            levels.append(level)
            if len(levels) == depth:
                await trio.sleep(tree.rng.random() * 0.02)
                outcome.at = time.monotonic()
                outcome.pid = strike(tree, first, levels)

    top, *plan = tree.plan(first, second)
    async with parallel.open_hub() as hub, trio.open_nursery() as nursery:
        nursery.start_soon(kill_in_time, hub)
        with hub.open_channel() as report, trio.fail_after(PATIENCE):
            try:
                async with parallel.spawn(
                    spread, plan, str(tree.rng.random()), report, where=top
                ) as (channel, _):
                    await chat(channel)
            except Exception as error:
                outcome.errors = list(leaves(error))
        nursery.cancel_scope.cancel()
    return outcome


async def until_gone(pids: Callable[[], dict[int, str]], outcome: Outcome, seconds: float) -> None:
    while left := pids():
        taken = time.monotonic() - outcome.at
        assert taken < seconds, f"left behind after {taken:.2f} s: {left}"
        await trio.sleep(0.005)


def strike_agent(tree: Tree, host: Host, levels: Sequence[Level]) -> int:
    kill(host.pid("parallel-agent"))
    return 0


def strike_keeper(tree: Tree, host: Host, levels: Sequence[Level]) -> int:
    kill(host.pid("parallel-keeper"))
    return 0


def strike_fork_server(tree: Tree, host: Host, levels: Sequence[Level]) -> int:
    kill(host.pid("parallel-forkse"))
    return 0


def strike_connection(tree: Tree, host: Host, levels: Sequence[Level]) -> int:
    kill(*host.sshd.sessions())
    return 0


def strike_sshd(tree: Tree, host: Host, levels: Sequence[Level]) -> int:
    kill(host.sshd.pid, *host.sshd.sessions())
    return 0


def strike_root_agent(tree: Tree, host: Host, levels: Sequence[Level]) -> int:
    kill(tree.root_agent())
    return 0


def strike_worker_there(tree: Tree, host: Host, levels: Sequence[Level]) -> int:
    pid = tree.rng.choice([level.pid for level in levels if level.host != "root"])
    kill(pid)
    return pid


def strike_worker_here(tree: Tree, host: Host, levels: Sequence[Level]) -> int:
    here = [level.pid for level in levels[:-1] if level.host == "root" != level.below]
    pid = tree.rng.choice(here)
    kill(pid)
    return pid


@pytest.mark.parametrize("strike", [strike_worker_there, strike_worker_here])
async def test_a_killed_worker_takes_along_what_is_below_it_on_all_hosts_and_is_named(
    strike: Strike, mark: str
) -> None:
    """When its caller knows, all of it is gone."""
    async with open_tree(2, mark) as tree:
        for _ in range(ROUNDS):
            outcome = await strike_once(tree, *await tree.pick(), strike)
            assert time.monotonic() - outcome.at < LIMIT
            tree.check_clean()
            check_worker(outcome)


def check_worker(outcome: Outcome) -> None:
    named = [
        error
        for error in outcome.errors
        if isinstance(error, WorkerDied)
        and (error.pid, error.returncode) == (outcome.pid, -signal.SIGKILL)
    ]
    assert named, outcome


CAUSES = {
    strike_agent: "its shell was killed by SIGKILL",
    strike_keeper: "its keeper .* was killed by SIGKILL",
    strike_fork_server: "its fork server was killed by SIGKILL",
    strike_connection: "its link broke",
    strike_sshd: "its link broke",
}


@pytest.mark.parametrize("strike", CAUSES)
async def test_a_host_that_lost_a_part_of_itself_ends_is_named_and_can_be_added_again(
    strike: Strike, mark: str
) -> None:
    async with open_tree(3, mark) as tree, trio.open_nursery() as adding:
        for _ in range(ROUNDS):
            first, second = await tree.pick()
            outcome = await strike_once(tree, first, second, strike)
            await until_gone(tree.workers_here, outcome, LIMIT)
            await until_gone(second.workers, outcome, LIMIT)
            await until_gone(first.pids, outcome, LIMIT)
            check_host(outcome, first.name, CAUSES[strike])
            adding.start_soon(tree.restart, first, strike is strike_sshd)


def check_host(outcome: Outcome, name: str, cause: str) -> None:
    named = [
        error
        for error in outcome.errors
        if isinstance(error, HostDied) and error.host == name and re.search(cause, error.reason)
    ]
    assert named, outcome


async def test_when_the_root_s_agent_is_killed_all_other_hosts_end_and_can_be_added_again(
    mark: str,
) -> None:
    async with open_tree(2, mark) as tree:
        for _ in range(ROUNDS):
            first, second = await tree.pick()
            outcome = await strike_once(tree, first, second, strike_root_agent)
            await until_gone(tree.workers_here, outcome, LIMIT)
            await until_gone(first.pids, outcome, LIMIT)
            await until_gone(second.pids, outcome, LIMIT)
            check_host(outcome, first.name, "the agent .* was killed by SIGKILL")
            async with trio.open_nursery() as adding:
                adding.start_soon(tree.restart, first)
                adding.start_soon(tree.restart, second)


def strike_own_fork_server(tree: Tree, host: Host, levels: Sequence[Level]) -> int:
    kill(named(tree.here(), "parallel-forkse"))
    return 0


def strike_own_keeper(tree: Tree, host: Host, levels: Sequence[Level]) -> int:
    kill(named(tree.here(), "parallel-keeper"))
    return 0


@pytest.mark.parametrize("strike", [strike_own_fork_server, strike_own_keeper])
async def test_when_the_root_s_own_host_dies_so_does_everything_on_all_hosts(
    strike: Strike, mark: str
) -> None:
    """Its calls know at once, those elsewhere too; then it can begin anew with the same hosts."""
    with open_ssh_hosts(2) as hosts:
        for _ in range(max(2, ROUNDS // 10)):
            cluster = parallel.Cluster([ssh(host.sshd) for host in hosts])
            async with parallel.init(cluster=cluster, grace=GRACE, heartbeat=HEARTBEAT):
                tree = Tree(cluster, hosts, mark)
                outcome = await strike_once(tree, hosts[0], hosts[1], strike)
                await until_gone(lambda: marked_processes(mark), outcome, LIMIT)
                for host in hosts:
                    await until_gone(host.pids, outcome, LIMIT)
                check_host(outcome, "root", "its (fork server|keeper) .*was killed by SIGKILL")


LANES = 2
"""Roots at once; a round of theirs mostly starts hosts."""


async def test_when_the_root_is_killed_everything_ends_on_all_hosts(mark: str) -> None:
    with ExitStack() as stack:
        lanes = [stack.enter_context(open_ssh_hosts(2)) for _ in range(LANES)]
        async with trio.open_nursery() as nursery:
            for number, hosts in enumerate(lanes):
                rounds = range(number, ROUNDS, LANES)
                nursery.start_soon(kill_roots, hosts, f"{mark}-{number}", len(rounds))


async def kill_roots(hosts: Sequence[Host], mark: str, rounds: int) -> None:
    for number in range(rounds):
        await kill_a_root(hosts, f"{mark}.{number}")


async def kill_a_root(hosts: Sequence[Host], mark: str) -> None:
    """At a random depth plus a random moment, or while it starts the hosts."""
    depth = random.randint(0, DEPTH)
    names = ["root", *(host.name for host in hosts)]
    places = random.sample(names, 3) + random.choices(names, k=DEPTH - 3)
    configs = [f"{host.name}={host.sshd.config}" for host in hosts]
    root = await trio.lowlevel.open_process(
        [sys.executable, str(ROOT_PROGRAM), str(random.random()), ",".join(places), *configs],
        env={**os.environ, MARK: mark, "PYTHONPATH": IMPORT_PATH},
        stdout=subprocess.PIPE,
    )
    assert root.stdout is not None
    said = b""
    async with root.stdout:
        while said.count(b"init" if depth == 0 else b"level") < max(depth, 1):
            data = await root.stdout.receive_some()
            assert data, said
            said += data
        await trio.sleep(random.random() * (0.02 if depth else 1.0))
        outcome = Outcome(time.monotonic())
        root.kill()
        await root.wait()
    await until_gone(lambda: marked_processes(mark), outcome, LIMIT)
    for host in hosts:
        await until_gone(host.pids, outcome, LIMIT)
