"""Many hosts: fifty of them on this machine, all at once."""

from __future__ import annotations

import pytest
import trio

import parallel
from parallel.launch.local import Local

from .programs.distant import subscribe

HOSTS = 50


@pytest.mark.slow
async def test_fifty_hosts_start_at_once_are_all_reached_by_a_broadcast_and_end() -> None:
    names = [f"host{number}" for number in range(HOSTS)]
    # On two processors it takes longer than a host may take by default.
    cluster = parallel.Cluster([Local(name=name, connect_timeout=200.0) for name in names])
    heard: list[str] = []

    async def listen(name: str, channel: parallel.Channel[str, str]) -> None:
        heard.append(await parallel.run(subscribe, channel, where=name))

    async with parallel.init(cluster=cluster, spares=0, heartbeat=60.0, grace=2.0):
        assert {host.name for host in parallel.hosts() if not host.down} == {"root", *names}
        async with parallel.open_hub() as hub, trio.open_nursery() as nursery:
            with hub.open_channel() as channel:
                for name in names:
                    nursery.start_soon(listen, name, channel)  # all have it
                hosts = {(await anext(aiter(hub)))[0].host for _ in names}
            assert hosts == set(names)
            assert await hub.broadcast("news") >= HOSTS
    assert sorted(heard) == sorted(f"{name} heard news" for name in names)
