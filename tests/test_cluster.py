"""`Cluster`, `hosts`, `current_host`: what a program knows of where it runs."""

from __future__ import annotations

import os
import platform
from contextlib import AbstractAsyncContextManager

import pytest
import trio

import parallel
from parallel import Host, ParallelError, UnknownHost
from parallel._member import current_member
from parallel.abc import Launcher, Shell

from .support import eventually


def test_a_cluster_has_the_root_s_host_with_its_processors() -> None:
    assert parallel.Cluster().root_slots == len(os.sched_getaffinity(0))
    assert parallel.Cluster().sources == ()


def test_slots_can_be_given_and_never_limit() -> None:
    assert parallel.Cluster(root_slots=0).root_slots == 0
    assert parallel.Cluster(root_slots=1000).root_slots == 1000
    with pytest.raises(ValueError, match="root_slots"):
        parallel.Cluster(root_slots=-1)


class Elsewhere(Launcher):
    """A launcher that never gets to launch."""

    def open(self) -> AbstractAsyncContextManager[Shell]:
        raise NotImplementedError


@pytest.mark.parametrize("name", ["root", "local", "x" * 65, "\N{SNOWMAN}" * 22])
def test_a_name_that_no_host_can_have_is_refused(name: str) -> None:
    with pytest.raises(ParallelError, match="a host"):
        parallel.Cluster([Elsewhere(name=name)])


def test_two_hosts_of_one_name_are_refused() -> None:
    with pytest.raises(ParallelError, match="two hosts named 'host0'"):
        parallel.Cluster(
            [Elsewhere(name="host0"), Elsewhere(name="host1"), Elsewhere(name="host0")]
        )


def test_one_string_is_not_a_list_of_hosts() -> None:
    with pytest.raises(TypeError, match=r"Cluster\(\['host0'\]\)"):
        parallel.Cluster("host0")


async def test_hosts_come_and_go_only_while_the_cluster_runs() -> None:
    cluster = parallel.Cluster()
    with pytest.raises(ParallelError, match="init"):
        await cluster.add(Elsewhere(name="host0"))
    with pytest.raises(ParallelError, match="init"):
        await cluster.remove("host0")


async def test_who_is_not_there_cannot_be_removed_nor_can_the_root_s_host() -> None:
    cluster = parallel.Cluster()
    async with parallel.init(cluster=cluster):
        for name in ("host0", "root"):
            with pytest.raises(UnknownHost, match=name):
                await cluster.remove(name)
        with pytest.raises(ParallelError, match="running already"):
            cluster.begin(current_member(), current_member().settings, 1.0, label_output=False)


async def test_hosts_tells_name_slots_python_and_running_processes() -> None:
    async with parallel.init(cluster=parallel.Cluster(root_slots=3)):
        assert parallel.hosts() == (Host("root", 3, platform.python_version(), 0),)


async def stay(hub: parallel.Hub[str, int]) -> None:
    async for client, _ in hub:
        await hub.send(client, parallel.hosts()[0].running)


def what_a_worker_sees() -> tuple[tuple[Host, ...], str]:
    return parallel.hosts(), parallel.current_host()


async def test_hosts_and_current_host_serve_workers_as_they_serve_the_root(tree: None) -> None:
    hosts, name = await parallel.run(what_a_worker_sees)
    (root,) = parallel.hosts()
    assert hosts == (Host(root.name, root.slots, root.python, 1),)
    assert name == parallel.current_host() == "root"


async def test_running_counts_the_processes_that_run_now(tree: None) -> None:
    async with trio.open_nursery() as nursery:
        channels = [(await parallel.spawn(stay, nursery=nursery))[0] for _ in range(3)]
        assert parallel.hosts()[0].running == 3
        await channels[0].send("how many?")
        assert await channels[0].receive() == 3
        for channel in channels:
            channel.close()
    await eventually(lambda: parallel.hosts()[0].running == 0)


def test_outside_init_there_are_none() -> None:
    for ask in (parallel.hosts, parallel.current_host):
        with pytest.raises(ParallelError, match="init"):
            ask()


async def test_what_one_gets_does_not_change_later(tree: None) -> None:
    before = parallel.hosts()
    async with parallel.spawn(stay):
        assert before[0].running == 0
        assert parallel.hosts()[0].running == 1
        assert hash(before[0]) != hash(parallel.hosts()[0])
