"""`Cluster`, `hosts`, `current_host`: what a program knows of where it runs."""

from __future__ import annotations

import os
import platform

import pytest
import trio

import parallel
from parallel import Host, ParallelError

from .support import eventually


def test_a_cluster_has_the_root_s_host_with_its_processors() -> None:
    assert parallel.Cluster().slots == (("root", len(os.sched_getaffinity(0))),)


def test_slots_can_be_given_and_never_limit() -> None:
    assert parallel.Cluster(root_slots=0).slots == (("root", 0),)
    assert parallel.Cluster(root_slots=1000).slots == (("root", 1000),)
    with pytest.raises(ValueError, match="root_slots"):
        parallel.Cluster(root_slots=-1)


def test_other_hosts_are_refused_by_name() -> None:
    with pytest.raises(ParallelError, match="host0"):
        parallel.Cluster(["host0"])


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
