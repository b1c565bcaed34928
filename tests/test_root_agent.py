"""`_root_agent`: a cluster of simulated hosts, which speak an agent's protocol over memory."""

from __future__ import annotations

import json
import os
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any

import pytest
import trio
import trio.testing

from parallel import HostUnreachable
from parallel._bootstrap import Arrival
from parallel._endpoint import Endpoint, close_all, socket_pair
from parallel._ends import Basin, End, Spout, discard, join
from parallel._link import Link
from parallel._member import Member, set_current_member
from parallel._orders import Add, Added, Ended, Failed, Miss, Remove, Reply
from parallel._root_agent import RootAgent
from parallel._settings import HostSettings
from parallel._table import create_table, read_hosts
from parallel._wire.greetings import Peer
from parallel._wire.link_frames import Kind, encode
from parallel._wire.multiplexer import Multiplexer
from parallel._wire.news import REMOVED, ROOT_HOST, HostState, decode_news
from parallel._wire.requests import (
    Cancel,
    Exited,
    HostDown,
    HostUp,
    News,
    Output,
    Request,
    RequestReader,
    Running,
    Start,
    Started,
    Stop,
    Survey,
    Watch,
)
from parallel.abc import Launcher, Shell

from .support import eventually
from .test_ends import Far
from .test_link import Stream

HEARTBEAT = 30.0


class Simulated(Launcher):
    """A launcher that is never opened."""

    def open(self) -> AbstractAsyncContextManager[Shell]:
        raise NotImplementedError


class FarSide:
    """An agent without a host."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.link: Link | None = None
        self.stream: Stream | None = None
        self.heard: Counter[type[Request]] = Counter()
        self.requests: list[Request] = []
        self.known: dict[str, HostState] = {}
        self.ends: list[End] = []
        self.reason = ""

    async def live(self, stream: Stream) -> None:
        self.stream = stream
        self.link = Link(stream, stream, 1, HEARTBEAT, self.hear)
        self.say(HostUp(self.name, 4, "3.11.2", 4711))
        self.reason = await self.link.run()
        await stream.aclose()

    def say(self, request: Request, *ends: End) -> None:
        assert self.link is not None
        self.link.send_message(request, ends)

    def hear(self, request: Request, ends: list[End]) -> None:
        self.heard[type(request)] += 1
        self.requests.append(request)
        self.ends.extend(ends)
        match request:
            case News():
                self.known.update({state.name: state for state in decode_news(request)})
            case Start(number):
                self.say(Started(number, 1, 99))
            case Cancel(number):
                self.say(Exited(number, -15, True, False))
            case Survey():
                join(ends[0], Spout(json.dumps([self.name, [1, 0, None, None], []]).encode()))
            case Stop():
                assert self.stream is not None
                self.link_closer.start_soon(self.stream.aclose)

    link_closer: trio.Nursery


class Silent(FarSide):
    """One that never says that its host is up."""

    async def live(self, stream: Stream) -> None:
        self.stream = stream
        await trio.sleep_forever()


class FakeHub:
    """The channel to the root."""

    clients = (0,)

    def __init__(self) -> None:
        self.replies: list[Reply] = []

    def send_nowait(self, client: object, reply: Reply) -> None:
        self.replies.append(reply)

    def of(self, kind: type[Reply]) -> list[Reply]:
        return [reply for reply in self.replies if isinstance(reply, kind)]


@contextmanager
def a_member() -> Iterator[tuple[Member, Endpoint]]:
    """A root's agent, as a process, and its fork server's end of the connection."""
    ours, theirs = socket_pair()
    settings = HostSettings(ROOT_HOST, os.getpid(), 2.0, 0, (), 1 << 40, 1 << 16, 4)
    peer = Peer(ROOT_HOST, 1, os.getpid(), "agent")
    member = Member(Endpoint(ours), settings, peer, None, create_table(os.getpid()))
    set_current_member(member)
    fork_server = Endpoint(theirs)
    try:
        yield member, fork_server
    finally:
        set_current_member(None)
        member.close()
        fork_server.close()
        os.close(member.table)


class Simulation:
    """A root's agent and what it has to do with."""

    def __init__(self, nursery: trio.Nursery, member: Member, fork_server: Endpoint) -> None:
        self.nursery = nursery
        self.member = member
        self.fork_server = fork_server
        self.reader = RequestReader()
        self.hub = FakeHub()
        self.sides: dict[str, FarSide] = {}
        self.failures: dict[str, Exception] = {}
        self.last = 0
        hub: Any = self.hub
        self.agent = RootAgent(nursery, hub, False, self.arrive)
        self.agent.router.host_up(HostUp(ROOT_HOST, 4, "3.11.2", os.getpid()))
        nursery.start_soon(self.agent.spread_news)

    @asynccontextmanager
    async def arrive(
        self, launcher: Launcher, config: dict[str, Any], on_stderr: Callable[[bytes], object]
    ) -> AsyncGenerator[Arrival, None]:
        await trio.lowlevel.checkpoint()
        if launcher.name in self.failures:
            raise self.failures[launcher.name]
        mine, theirs = trio.testing.memory_stream_pair()
        side = self.sides[launcher.name]
        side.link_closer = self.nursery
        self.nursery.start_soon(side.live, theirs)
        try:
            yield Arrival(mine, mine, b"", "3.11.2", 4, 0, lambda: "")
        finally:
            mine.send_stream.close()
            mine.receive_stream.close()

    def add(self, name: str, kind: type[FarSide] = FarSide, timeout: float = 30.0) -> FarSide:
        self.last += 1
        side = self.sides[name] = kind(name)
        launcher = Simulated(name=name, slots=7, connect_timeout=timeout)
        self.agent.obey(Add(self.last, launcher, {"heartbeat": HEARTBEAT}))
        return side

    async def start(self, count: int) -> list[FarSide]:
        sides = [self.add(f"host{number}") for number in range(count)]
        await eventually(lambda: len(self.hub.of(Added)) == count, 60)
        # The root is told when the agent has told the others; they may not have read it yet.
        await eventually(lambda: all(len(side.known) >= count for side in sides), 60)
        return sides

    def asked(self) -> list[Request]:
        """What the fork server has been asked for since the last time."""
        descriptors: deque[int] = deque()
        found = []
        while (data := self.fork_server.read(descriptors)) is not None:
            assert isinstance(data, bytes)
            self.reader.feed(data)
        while (item := self.reader.next()) is not None:
            found.append(item[0])
        close_all(descriptors)
        return found

    def hosts(self) -> dict[str, HostState]:
        return {state.name: state for state in read_hosts(self.member.table)}


@pytest.fixture
async def simulation() -> AsyncIterator[Simulation]:
    async with simulated() as simulation:
        yield simulation


@asynccontextmanager
async def simulated() -> AsyncIterator[Simulation]:
    with a_member() as (member, fork_server):
        async with trio.open_nursery() as nursery:
            yield Simulation(nursery, member, fork_server)
            nursery.cancel_scope.cancel()


# Many hosts


async def life_of(count: int) -> dict[str, float]:
    """Start so many hosts, spread a piece of news, end; what each host has heard at most."""
    figures: dict[str, float] = {}

    def note(stage: str) -> None:
        most = max(sum(side.heard.values()) for side in sides)
        figures[stage] = most
        for side in sides:
            side.heard.clear()

    async with simulated() as simulation:
        sides = await simulation.start(count)
        await trio.sleep(1)
        names = {ROOT_HOST, *simulation.sides}
        for side in sides:
            assert set(side.known) == names
            assert not any(state.down for state in side.known.values())
        assert set(simulation.hosts()) == names
        note("start")

        for number, side in enumerate(sides):
            side.say(Running(number + 1))
        await trio.sleep(1)
        for side in sides:
            assert [side.known[f"host{i}"].running for i in range(count)] == [*range(1, count + 1)]
        note("news")

        before = len(simulation.agent.router._calls)
        sides[0].say(Start(-1, "host1", "f"), Far())
        await trio.sleep(1)
        assert len(simulation.agent.router._calls) == before + 1
        assert sides[0].requests[-1] == Started(-1, 1, 99)
        for end in sides[1].ends:
            discard(end)
        await trio.sleep(1)
        note("a process")

        await simulation.agent.end()
        assert all(side.heard[Stop] == 1 for side in sides)
        assert len(simulation.hub.of(Ended)) == count
        assert not simulation.agent.links
        assert not simulation.agent.hosts
        note("end")
        figures["asked of the root's host"] = len(simulation.asked())
    return figures


async def test_what_each_host_hears_does_not_grow_with_the_number_of_hosts(
    autojump_clock: trio.testing.MockClock,
) -> None:
    few, many = await life_of(10), await life_of(200)
    for stage, most in many.items():
        assert most <= few[stage] + 1, (stage, few, many)
    assert many["start"] <= 3
    assert many["news"] <= 2
    assert many["end"] <= 3


async def test_hosts_that_join_one_by_one_are_told_to_each_other_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with simulated() as simulation:
        for number in range(50):
            simulation.add(f"host{number}")
            await eventually(lambda number=number: len(simulation.hub.of(Added)) == number + 1)
        await trio.sleep(1)
        for number in range(50):
            side = simulation.sides[f"host{number}"]
            assert len(side.known) == 51
            assert side.heard[News] == 50 - number


# The life of a host


async def test_a_host_is_added_when_all_know_of_it(simulation: Simulation) -> None:
    (first,) = await simulation.start(1)
    simulation.add("late")
    await eventually(lambda: len(simulation.hub.of(Added)) == 2)
    assert simulation.hosts()["late"] == HostState("late", 7, "3.11.2", 4711, order=2)
    await eventually(lambda: "late" in first.known)


async def test_a_host_that_could_not_be_had_is_a_failure_with_its_reason(
    simulation: Simulation,
) -> None:
    simulation.failures["host0"] = HostUnreachable("host0", "no route")
    simulation.failures["host1"] = LookupError("a launcher's own")
    simulation.add("host0")
    simulation.add("host1")
    await eventually(lambda: len(simulation.hub.of(Failed)) == 2)
    errors = {str(reply.error) for reply in simulation.hub.replies if isinstance(reply, Failed)}
    assert errors == {"a launcher's own", str(simulation.failures["host0"])}
    assert set(simulation.hosts()) <= {ROOT_HOST}
    assert not simulation.agent.hosts


async def test_a_host_that_is_not_ready_in_time_is_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with simulated() as simulation:
        simulation.add("host0", Silent, timeout=5.0)
        began = trio.current_time()
        await eventually(lambda: simulation.hub.replies, 60)
        assert 5.0 <= trio.current_time() - began < 6.0
        (reply,) = simulation.hub.replies
        assert isinstance(reply, Failed)
        assert "not ready after 5 s (connect_timeout)" in str(reply.error)


async def test_a_host_that_says_why_it_cannot_be_had_is_quoted(simulation: Simulation) -> None:
    class Unwilling(FarSide):
        async def live(self, stream: Stream) -> None:
            link = Link(stream, stream, 1, HEARTBEAT, self.hear)
            link.send_message(HostDown(self.name, "its fork server could not start"))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(link.run)
                await link.flushed()
                nursery.cancel_scope.cancel()
            await stream.aclose()

    simulation.add("host0", Unwilling)
    await eventually(lambda: simulation.hub.replies)
    (reply,) = simulation.hub.replies
    assert isinstance(reply, Failed)
    assert "its fork server could not start" in str(reply.error)


async def test_a_removed_host_is_stopped_and_forgotten_by_all(simulation: Simulation) -> None:
    first, _ = await simulation.start(2)
    simulation.agent.obey(Remove(2))
    await eventually(lambda: simulation.hub.of(Ended))
    assert simulation.hub.of(Ended) == [Ended(2, REMOVED)]
    await eventually(lambda: first.known["host1"].down == REMOVED)
    assert simulation.hosts()["host1"].down == REMOVED
    simulation.agent.obey(Remove(2))
    simulation.agent.obey(Remove(99))
    assert list(simulation.agent.links) == ["host0"]


async def test_a_host_that_was_missed_is_down_for_all(simulation: Simulation) -> None:
    (side,) = await simulation.start(1)
    simulation.agent.obey(Miss(9, "host9", "no route"))
    await eventually(lambda: "host9" in side.known)
    assert side.known["host9"].down == simulation.hosts()["host9"].down == "no route"


async def test_a_cut_link_ends_the_host_for_who_waits_for_it(simulation: Simulation) -> None:
    first, second = await simulation.start(2)
    first.say(Watch("host1", 5))
    await eventually(lambda: second.heard[Watch])
    assert second.stream is not None
    await second.stream.aclose()
    await eventually(lambda: first.heard[HostDown])
    await eventually(lambda: first.known["host1"].down)
    assert simulation.hub.of(Ended) == [Ended(2, "its link was closed")]


@pytest.mark.parametrize(
    "request_",
    [
        Running(-1),
        Running(1 << 70),
        HostUp("host0", -1, "\ud800", 1 << 70),
        News("nonsense"),
        Start(1, "root", "f" * 60_000, "x" * 300, -1),
        Start(1 << 70, "host1", "f"),
        Output(1, 1, "f"),
        Survey(),
        Exited(1 << 70, 0, False, False),
        Watch("nowhere", -(1 << 70)),
    ],
    ids=lambda request: type(request).__name__,
)
async def test_whatever_a_host_says_the_others_live_on(
    simulation: Simulation, request_: Request
) -> None:
    first, second = await simulation.start(2)
    first.say(request_)
    first.say(Running(5))
    await eventually(lambda: second.known["host0"].running == 5)
    assert not second.known["host0"].down


@pytest.mark.parametrize(
    "garbage", [b"\xff" * 17, encode(Kind.MESSAGE, 0, 7) + b'["Odd"]', encode(Kind.END, 9, 0)]
)
async def test_garbage_ends_its_own_host_with_a_reason_and_no_other(
    simulation: Simulation, garbage: bytes
) -> None:
    first, second = await simulation.start(2)
    assert first.link is not None
    await eventually(lambda: "host0" in second.known)
    first.link._send([garbage])
    await eventually(lambda: second.known["host0"].down)
    (ended,) = simulation.hub.of(Ended)
    assert isinstance(ended, Ended)
    assert "something that makes no sense" in ended.reason
    second.say(Running(5))
    await eventually(lambda: simulation.hosts()["host1"].running == 5)


# Between hosts


async def test_a_start_goes_from_host_to_host_with_its_streams(simulation: Simulation) -> None:
    first, second = await simulation.start(2)
    basin = Basin()
    first.say(Start(-3, "host1", "f", "host0", 12), basin)
    await eventually(lambda: Started(-3, 1, 99) in first.requests)
    (start,) = [request for request in second.requests if isinstance(request, Start)]
    assert (start.host, start.name, start.owner_host, start.owner) == ("host1", "f", "host0", 12)
    text = os.urandom(3 << 20)
    join(second.ends[0], Spout(text))
    await basin.full.wait()
    assert basin.data == text
    first.say(Cancel(-3, 1.0))
    await eventually(lambda: Exited(-3, -15, True, False) in first.requests)
    for side in (first, second):
        assert side.link is not None
        multiplexer: Multiplexer = side.link._multiplexer
        await eventually(lambda multiplexer=multiplexer: multiplexer.count == 0)


async def test_a_start_on_the_root_s_host_goes_to_its_fork_server(simulation: Simulation) -> None:
    (side,) = await simulation.start(1)
    side.say(Start(-1, ROOT_HOST, "f", "host0", 12), Far())
    asked: list[Request] = []

    def has_asked() -> bool:
        asked.extend(simulation.asked())
        return bool(asked)

    await eventually(has_asked)
    (start,) = asked
    assert isinstance(start, Start)
    assert (start.host, start.owner_host, start.owner) == (ROOT_HOST, "host0", 12)
    simulation.agent.on_forwarded(Exited(start.request, 0, False, False), [])
    await eventually(lambda: Exited(-1, 0, False, False) in side.requests)


async def test_a_survey_asks_all_and_does_without_who_goes_or_says_nonsense(
    simulation: Simulation,
) -> None:
    class Odd(FarSide):
        def hear(self, request: Request, ends: list[End]) -> None:
            if isinstance(request, Survey):
                join(ends[0], Spout(b'["odd", [1, 0'))
            else:
                super().hear(request, ends)

    class Going(FarSide):
        def hear(self, request: Request, ends: list[End]) -> None:
            if isinstance(request, Survey):
                super().hear(Stop(), [])
            else:
                super().hear(request, ends)

    simulation.add("odd", Odd)
    simulation.add("going", Going)
    simulation.add("well")
    await eventually(lambda: len(simulation.hub.of(Added)) == 3)
    reports: Any = await simulation.agent.survey(5.0)
    assert [report[0] for report in reports] == [ROOT_HOST, "well"]
