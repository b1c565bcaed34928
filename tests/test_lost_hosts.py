"""What those are told whose channels lead to a host that dies, or through one."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
import trio

import parallel
from parallel import HostDied
from parallel._member import current_member
from parallel._table import read_hosts
from parallel.launch.local import Local

Channel = parallel.Channel[Any, Any]


@pytest.fixture
async def hosts() -> AsyncIterator[None]:
    """Inside `init` with three other hosts."""
    cluster = parallel.Cluster([Local(name=name) for name in ("a", "b", "c")])
    async with parallel.init(cluster=cluster, grace=1.0):
        yield


def kill_host(name: str) -> None:
    (agent,) = [host.pid for host in read_hosts(current_member().table) if host.name == name]
    os.kill(agent, signal.SIGKILL)


def cause(error: trio.BrokenResourceError) -> tuple[str, str]:
    """Its type, and the host that it is about."""
    return type(error.__cause__).__name__, getattr(error.__cause__, "host", "")


async def talk_to_the_end(channel: Channel) -> tuple[str, str]:
    """Ask and be answered until that fails; why it did."""
    async with channel:
        with pytest.raises(trio.BrokenResourceError) as broken:
            while True:
                await channel.send("ping")
                assert await channel.receive() == "ping"
        return cause(broken.value)


async def wait_for_the_end(channel: Channel) -> tuple[str, str]:
    """Say that we are there, and nothing more."""
    async with channel:
        with pytest.raises(trio.BrokenResourceError) as broken:
            await channel.send("ping")
            assert await channel.receive() == "ping"
            await channel.receive()
        return cause(broken.value)


@pytest.mark.parametrize("use", [talk_to_the_end, wait_for_the_end])
@pytest.mark.slow
async def test_who_holds_a_channel_to_a_lost_host_is_told_which(hosts: None, use: Any) -> None:
    told = {}

    async def hold(channel: Channel, where: str) -> None:
        async with channel:
            told[where] = await parallel.run(use, channel, where=where)

    async with parallel.open_hub() as hub, trio.open_nursery() as nursery:
        with pytest.raises(HostDied, match="'a' died"):
            async with parallel.spawn(serve_and_tell, hub.open_channel(), where="a") as (first, _):
                for where in ("root", "b"):
                    nursery.start_soon(hold, first.clone(), where)  # its own
                served = aiter(hub)
                await anext(served)
                await anext(served)
                kill_host("a")
                await trio.sleep_forever()
    assert told == {"root": ("HostDied", "a"), "b": ("HostDied", "a")}


async def serve_and_tell(hub: parallel.Hub[Any, Any], report: Channel) -> None:
    """Answer everybody, and report each client's first message."""
    known = set()
    async with report:
        async for client, message in hub:
            await hub.send(client, message)
            if client not in known:
                known.add(client)
                await report.send(client.host)


async def pass_back(hub: parallel.Hub[Any, Any]) -> None:
    """Whatever comes: a channel that stands in it is handed over here."""
    async for client, message in hub:
        await hub.send(client, message)


async def use_the_first(hub: parallel.Hub[Any, Any], use: Any) -> Any:
    """What comes of using the channel that we are sent; says so when it has worked once."""
    client, channel = await anext(aiter(hub))
    await channel.send("begin")
    assert await channel.receive() == "begin"
    await hub.send(client, "begun")
    return await use(channel)


async def listen(hub: parallel.Hub[Any, Any]) -> dict[str, tuple[str, str]]:
    """Answer everybody; why each client was lost, by its host."""
    lost = {}
    async for event in hub.listen():
        match event:
            case parallel.Message(client, message):
                with suppress(trio.BrokenResourceError):  # lost meanwhile, as the next event says
                    await hub.send(client, message)
            case parallel.Disconnected(client, reason) if reason is not None:
                lost[client.host] = type(reason).__name__, getattr(reason, "host", "")
    return lost


@pytest.mark.parametrize("use", [talk_to_the_end, wait_for_the_end])
@pytest.mark.slow
async def test_a_channel_that_was_handed_over_on_a_lost_host_says_so_at_both_ends(
    hosts: None, use: Any
) -> None:
    async with trio.open_nursery() as nursery:
        home, server = await parallel.spawn(listen, where="a", nursery=nursery)
        to_c, user = await parallel.spawn(use_the_first, use, where="c", nursery=nursery)
        with pytest.raises(HostDied, match="'b' died"):
            async with parallel.spawn(pass_back, where="b") as (channel, _):
                await channel.send(home)
                async with await channel.receive() as handed_over:
                    await to_c.send(handed_over)
                home.close()
                assert await to_c.receive() == "begun"
                kill_host("b")
                await trio.sleep_forever()
        assert await user.result() == ("HostDied", "b")
        to_c.close()
        assert await server.result() == {"b": ("HostDied", "b"), "c": ("HostDied", "b")}


async def test_without_its_agent_the_root_s_own_host_goes_on(hosts: None) -> None:
    async with parallel.spawn(pass_back) as (channel, process):
        with pytest.raises(HostDied, match="'a' died"):
            async with parallel.spawn(pass_back, where="a"):
                (agent,) = [info.pid for info in await parallel.processes() if info.name == "agent"]
                os.kill(agent, signal.SIGKILL)
                await trio.sleep_forever()
        assert await parallel.run(parallel.current_host) == "root"
        await channel.send("still there?")
        assert await channel.receive() == "still there?"
    assert (await process.wait()).status == "returned"
    assert {host.name for host in parallel.hosts() if host.down} == {"a", "b", "c"}
