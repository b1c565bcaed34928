"""Links that carry what nobody sent, and links that carry a lot: what both sides make of it."""

from __future__ import annotations

import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, get_args

import pytest
import trio

import parallel
from parallel import HostDied
from parallel._wire.link_frames import MAX_DATA, MAX_MESSAGE, Kind, encode
from parallel._wire.multiplexer import WINDOW
from parallel._wire.requests import HostDown, News, Request, Start, Stop, encode_body
from parallel.launch.local import Local

from . import support
from .hosts import named, ssh
from .programs.distant import echo
from .programs.tapping import Forgery, Tapped
from .puppets import send_one_in_bounds, take_one_in_bounds
from .servers.openssh import Sshd, open_sshd
from .sockets import listening_with_mark
from .support import eventually, marked_processes

GRACE = 0.5
PATIENCE = 10.0


class Tap:
    """A host at a tapped link, which can be had again, and another beside it."""

    def __init__(self, cluster: parallel.Cluster, sshd: Sshd) -> None:
        self.cluster = cluster
        self.sshd = sshd

    @asynccontextmanager
    async def host(self) -> AsyncIterator[Forge]:
        """While it is there; at the end nothing of it is."""
        async with parallel.open_hub() as hub:
            with hub.open_channel() as channel:
                launcher = Tapped(
                    name="tapped", python=sys.executable, inner=ssh(self.sshd), forgeries=channel
                )
                await self.cluster.add(launcher)
            client, _ = await anext(aiter(hub))
            yield Forge(hub, client)
        await eventually(lambda: not self.sshd.pids(), GRACE + 2)


class Forge:
    """Puts something into the live link."""

    def __init__(self, hub: parallel.Hub[str, Forgery | None], client: parallel.Client) -> None:
        self.hub = hub
        self.client = client

    async def __call__(self, for_the_host: bool, data: bytes) -> None:
        await self.hub.send(self.client, Forgery(for_the_host, data))

    async def wait(self) -> None:
        """Until all of it is there. For what does not end the link."""
        await self.hub.send(self.client, None)
        await anext(aiter(self.hub))


@asynccontextmanager
async def tapped_host() -> AsyncIterator[Tap]:
    with open_sshd() as sshd:
        cluster = parallel.Cluster([Local(name="beside")])
        async with parallel.init(cluster=cluster, grace=GRACE):
            yield Tap(cluster, sshd)


# -- forged links -------------------------------------------------------------------------------


def new_stream(for_the_host: bool) -> int:
    """The number of a stream that is the other end's to open, and that it will not open."""
    return 100_000 if for_the_host else 100_001


def forgeries(for_the_host: bool) -> dict[str, bytes]:
    """What makes no sense, by what is said of it."""
    theirs, ours = new_stream(for_the_host), new_stream(not for_the_host)
    opened = encode(Kind.OPEN, theirs, 0)
    piece = encode(Kind.DATA, theirs, MAX_DATA) + bytes(MAX_DATA)
    junk = random.randbytes(50)
    news = encode_body(News("[[1]]"))
    return {
        "begins with ff": b"\xff" + junk,
        "begins with 00": bytes(1000),
        "begins with 01": encode(Kind.MESSAGE, 0, MAX_MESSAGE + 1),
        "begins with 03": encode(Kind.DATA, theirs, MAX_DATA + 1),
        f"there is no stream {theirs}": encode(Kind.DATA, theirs, 5) + b"hello",
        f"there is no stream {ours}": encode(Kind.END, ours, 0),
        f"there was no stream {ours}": encode(Kind.CREDIT, ours, 5),
        "there was no stream 0": encode(Kind.RESET, 0, 0),
        f"stream {ours} cannot be opened": encode(Kind.OPEN, ours, 0),
        "stream 0 cannot be opened": encode(Kind.OPEN, 0, 0),
        f"there is no stream {theirs + 2}": encode(Kind.OPEN, theirs, theirs + 2),
        "ended twice": opened + 2 * encode(Kind.END, theirs, 0),
        "after its end": opened + encode(Kind.END, theirs, 0) + piece,
        "was reset twice": opened + 2 * encode(Kind.RESET, theirs, 0),
        "sent more than it may": opened + (WINDOW // MAX_DATA + 1) * piece,
        "a request that makes no sense": encode(Kind.MESSAGE, 0, 9) + b'["Nobody"',
        "news that make no sense": encode(Kind.MESSAGE, 0, len(news)) + news,
    }


@pytest.mark.slow
@pytest.mark.needs("sshd", "ssh", "ssh-keygen", "unshare")
@pytest.mark.parametrize("for_the_host", [False, True], ids=["to the root", "to the host"])
async def test_what_makes_no_sense_ends_a_link_with_its_reason_both_sides_and_no_other_host(
    for_the_host: bool,
) -> None:
    async with tapped_host() as tap, parallel.spawn(echo, where="beside") as (other, _):
        for text, data in forgeries(for_the_host).items():
            if "news" in text and not for_the_host:
                continue  # nobody tells the root's agent any
            async with tap.host() as forge:
                with pytest.raises(HostDied, match="makes no sense") as caught:
                    async with parallel.spawn(echo, where="tapped") as (channel, _):
                        await channel.send("ping")
                        assert await channel.receive() == "ping"
                        await forge(for_the_host, data)
                        with trio.fail_after(PATIENCE):
                            await channel.receive()
                assert caught.value.host == "tapped"
                assert text in caught.value.reason
            await other.send("still there?")
            assert await other.receive() == "still there?"


@pytest.mark.needs("sshd", "ssh", "ssh-keygen", "unshare")
@pytest.mark.parametrize("for_the_host", [False, True], ids=["to the root", "to the host"])
async def test_a_link_that_is_cut_within_a_frame_ends_both_sides(for_the_host: bool) -> None:
    async with tapped_host() as tap, tap.host() as forge:
        with pytest.raises(HostDied, match="its link was closed"):
            async with parallel.spawn(echo, where="tapped") as (channel, _):
                await forge(for_the_host, encode(Kind.MESSAGE, 0, 50) + b'["Exi')
                await forge(for_the_host, b"")
                await channel.receive()


def requests_out_of_place() -> list[Request]:
    """One of each kind, of things that nobody has."""
    values: dict[str, Any] = {"int": 999, "str": "nowhere", "bool": False}
    values |= {"float | None": 0.5, "int | None": 1}
    made = []
    for kind in get_args(Request):
        if kind in (HostDown, Stop, News):
            continue  # these would be obeyed, or not understood
        annotations = kind.__annotations__.values()
        names = [str(getattr(each, "__forward_arg__", each)) for each in annotations]
        made.append(kind(*[values[name] for name in names]))
    return [*made, Start(-1, "tapped", "f"), Start(1, "tapped", "f")]


@pytest.mark.needs("sshd", "ssh", "ssh-keygen", "unshare")
@pytest.mark.slow
async def test_messages_that_nobody_waits_for_are_passed_over_by_both_sides() -> None:
    async with tapped_host() as tap, tap.host() as forge:
        async with parallel.spawn(echo, where="tapped") as (channel, process):
            for request in requests_out_of_place():
                body = encode_body(request)
                for for_the_host in (False, True):
                    await forge(for_the_host, encode(Kind.MESSAGE, 0, len(body)) + body)
            await forge.wait()
            await channel.send("ping")
            assert await channel.receive() == "ping"
        assert await process.result() == 1
        assert await parallel.run(parallel.current_host, where="beside") == "beside"
        await tap.cluster.remove("tapped")


# -- what a link carries ------------------------------------------------------------------------

MIB = 1 << 20
HUGE = 1 << 30 if support.ROUNDS >= 50 else 64 * MIB
TWO = [Local(name="left"), Local(name="right")]


@pytest.mark.needs("sshd", "ssh", "ssh-keygen", "unshare")
@pytest.mark.slow
async def test_nothing_listens_on_any_host(mark: str) -> None:
    with open_sshd() as sshd:
        before = listening_with_mark(mark)
        cluster = parallel.Cluster([*TWO, ssh(sshd)])
        async with parallel.init(cluster=cluster, grace=GRACE):
            async with parallel.spawn(echo, where="left") as (channel, _):
                for where in ("right", "host0"):
                    await channel.send(await parallel.run(parallel.current_host, where=where))
                    assert await channel.receive() == where
                assert named(sshd.pids(), "parallel-agent") in marked_processes(mark)
                assert listening_with_mark(mark) == before


class Memory:
    """Of the agents: how much more of it they have had than when this was made."""

    def __init__(self, mark: str) -> None:
        processes = marked_processes(mark).items()
        self.agents = [pid for pid, name in processes if name.endswith("agent")]
        for pid in self.agents:
            with open(f"/proc/{pid}/clear_refs", "w") as file:
                file.write("5")  # forget the highest so far
        self.before = [self._read(pid, "VmRSS") for pid in self.agents]

    def grown(self) -> list[int]:
        now = [self._read(pid, "VmHWM") for pid in self.agents]
        return [after - before for before, after in zip(self.before, now, strict=True)]

    @staticmethod
    def _read(pid: int, which: str) -> int:
        with open(f"/proc/{pid}/status") as file:
            (line,) = [line for line in file if line.startswith(which + ":")]
        return int(line.split()[1]) * 1024


@pytest.mark.slow
async def test_a_huge_message_between_two_hosts_needs_no_memory_on_its_way(mark: str) -> None:
    async with parallel.init(cluster=parallel.Cluster(TWO), grace=GRACE):
        memory = Memory(mark)
        assert len(memory.agents) == 3
        async with parallel.spawn(take_one_in_bounds, where="right") as (channel, process):
            await parallel.run(send_one_in_bounds, channel, "array", HUGE, where="left")
        size, _ = await process.result()
        assert size == HUGE
        assert max(memory.grown()) < 16 * MIB, memory.grown()


async def pour(hub: parallel.Hub[Any, bytes]) -> None:
    """All that a client wants."""
    client, count = await anext(aiter(hub))
    for _ in range(count):
        await hub.send(client, bytes(MIB // 4))


@pytest.mark.slow
async def test_who_does_not_read_holds_up_nobody_else_and_fills_no_agent(mark: str) -> None:
    async with parallel.init(cluster=parallel.Cluster(TWO), grace=GRACE):
        memory = Memory(mark)
        async with trio.open_nursery() as nursery:
            for where in ("left", "left", "right"):
                channel, _ = await parallel.spawn(pour, where=where, nursery=nursery)
                await channel.send(1000)  # and never read any
            for where in ("left", "right"):
                async with parallel.spawn(echo, where=where) as (channel, _):
                    for number in range(200):
                        await channel.send(number)
                        assert await channel.receive() == number
            assert max(memory.grown()) < 16 * MIB, memory.grown()
            nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_a_flood_on_one_channel_delays_another_by_no_more_than_what_is_under_way() -> None:
    """While so many MiB pass by, so many questions are answered."""
    mibs = 128
    turns = 0

    async def ask(channel: parallel.Channel[Any, Any]) -> None:
        nonlocal turns
        while True:
            await channel.send(turns)
            assert await channel.receive() == turns
            turns += 1

    async with parallel.init(cluster=parallel.Cluster(TWO), grace=GRACE):
        async with (
            parallel.spawn(echo, where="left") as (asking, _),
            parallel.spawn(pour, where="left") as (pouring, _),
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(ask, asking)
            await eventually(lambda: turns)  # it has loaded what it runs
            before = turns
            await pouring.send(4 * mibs)
            for _ in range(4 * mibs):
                await pouring.receive()
            nursery.cancel_scope.cancel()
    assert turns - before > mibs / 4
