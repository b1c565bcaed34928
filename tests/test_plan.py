"""`plan`: what a fork server does about each thing that happens, without a process or a clock."""

from __future__ import annotations

import itertools
import math
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from parallel._host.instruction import Close, Discount, Enter, Forget, Instruction, Kill, Send
from parallel._host.lineage import ROOT
from parallel._host.plan import Plan
from parallel._wire.requests import (
    Begin,
    Cancel,
    Exited,
    Failed,
    Gone,
    HostDown,
    Lost,
    Output,
    Refused,
    Request,
    Serve,
    Start,
    Started,
    Stop,
    Survey,
    Watch,
    Words,
)

from .support import examples

GRACE = 5.0
TERM, KILL = signal.SIGTERM, signal.SIGKILL


class Host:
    """A plan with as many spares as it needs; process n has the pid 1000 + n."""

    def __init__(self) -> None:
        self.plan = Plan("root", 1000, GRACE)
        self.numbers = itertools.count(1)
        self.requests = itertools.count(1)
        self.asked: dict[int, int] = {}
        """Number of each process: the request that it was asked for with."""

    def start(self, owner: int = ROOT, now: float = 0.0) -> int:
        """Start a process; its number."""
        number, request = next(self.numbers), next(self.requests)
        self.plan.add_spare(number, 1000 + number)
        start = Start(request, "root", f"f{number}")
        assert started(self.plan.asked(owner, start, [request], now)) == [number]
        self.asked[number] = request
        return number

    def cascade(self, depth: int) -> list[int]:
        """Each the owner of the next."""
        numbers = [self.start()]
        while len(numbers) < depth:
            numbers.append(self.start(numbers[-1]))
        return numbers

    def cancel(self, owner: int, number: int, now: float, grace: float | None = None) -> list[Kill]:
        return kills(self.plan.asked(owner, Cancel(self.asked[number], grace), [], now))

    def die(self, number: int, returncode: int = 0, now: float = 0.0) -> list[Instruction]:
        return self.plan.died(1000 + number, returncode, False, now)


def started(instructions: Sequence[Instruction]) -> list[int]:
    return [i.request.process for i in sends(instructions) if isinstance(i.request, Started)]


def sends(instructions: Sequence[Instruction]) -> list[Send]:
    return [instruction for instruction in instructions if isinstance(instruction, Send)]


def kills(instructions: Sequence[Instruction]) -> list[Kill]:
    return [instruction for instruction in instructions if isinstance(instruction, Kill)]


def reports(instructions: Sequence[Instruction]) -> dict[int, Exited]:
    """By who gets it."""
    return {
        send.process: send.request for send in sends(instructions) if type(send.request) is Exited
    }


@pytest.fixture
def host() -> Host:
    return Host()


# Starting


def test_a_start_goes_to_a_spare_with_its_descriptors(host: Host) -> None:
    host.plan.add_spare(1, 1001)
    assert host.plan.asked(ROOT, Start(5, "root", "job"), [10, 11], 0.0) == [
        Enter(1, "root", ROOT, 1001, "job"),
        Send(1, Begin(1, "root", ROOT, "job"), [10, 11]),
        Send(ROOT, Started(5, 1, 1001)),
    ]
    assert not host.plan.spares
    assert host.plan.knows(1001)


def test_the_oldest_spare_comes_first(host: Host) -> None:
    for number in (3, 1, 2):
        host.plan.add_spare(number, 1000 + number)
    for expected in (3, 1, 2):
        start = Start(expected, "root", "f")
        assert started(host.plan.asked(ROOT, start, [1], 0.0)) == [expected]


@pytest.mark.parametrize(
    ("start", "descriptors", "why"),
    [
        (Start(9, "host0", "f"), [7], "no host 'host0'"),
        (Start(9, "root", "f"), [], "its connection did not arrive"),
        (Start(1, "root", "f"), [7], "request 1 is under way already"),
    ],
)
def test_a_start_that_makes_no_sense_is_refused(
    host: Host, start: Start, descriptors: list[int], why: str
) -> None:
    host.start()
    host.plan.add_spare(8, 1008)
    instructions = host.plan.asked(ROOT, start, descriptors, 0.0)
    assert instructions[0] == Close(descriptors)
    (send,) = sends(instructions)
    assert isinstance(send.request, Refused)
    assert send.request.request == start.request
    assert why in send.request.reason
    assert list(host.plan.spares) == [8]


def test_a_start_for_which_there_is_no_process_is_refused(host: Host) -> None:
    start = Start(1, "root", "f")
    assert host.plan.refused(ROOT, start, [7], "no more") == [
        Close([7]),
        Send(ROOT, Refused(1, "no more")),
    ]


def test_who_is_dead_or_unknown_or_still_a_spare_gets_nothing(host: Host) -> None:
    owner, child = host.cascade(2)
    host.plan.add_spare(90, 1090)
    host.die(owner)
    for asker in (owner, 77, 90):
        for request in (Start(1, "root", "f"), Cancel(2), Watch("root", child), Stop()):
            assert host.plan.asked(asker, request, [7], 0.0) == [Close([7])]


def test_what_no_client_says_is_ignored(host: Host) -> None:
    worker = host.start()
    for request in (
        Begin(1, "root", 2, "f"),
        Exited(1, 0, False, False),
        Lost(-1, "host0", ""),
        Stop(),
    ):
        assert host.plan.asked(worker, request, [7], 0.0) == [Close([7])]
    assert host.plan.root.alive


def test_a_worker_that_cannot_be_told_its_work_is_killed_and_its_start_refused(host: Host) -> None:
    owner, child = host.cascade(2)
    begin = Begin(child, "root", owner, "f")
    assert host.plan.undelivered(child, begin, "too many") == [
        Send(owner, Refused(host.asked[child], "too many")),
        Kill(1000 + child, KILL),
    ]
    host.die(child, -9)
    assert host.plan.undelivered(child, begin, "too many") == []
    assert host.plan.undelivered(ROOT, begin, "too many") == []


def test_a_spare_that_dies_is_forgotten_and_reported_to_nobody(host: Host) -> None:
    host.plan.add_spare(1, 1001)
    assert host.die(1, -9) == [Forget(1)]
    assert not host.plan.spares
    assert not host.plan.knows(1001)
    assert host.plan.settled() == []


def test_the_death_of_an_orphan_is_nobody_s_affair(host: Host) -> None:
    assert host.plan.died(4242, 0, False, 0.0) == []


# Cancelling


def test_cancelling_sends_sigterm_once_and_sigkill_at_the_deadline(host: Host) -> None:
    worker = host.start()
    assert host.cancel(ROOT, worker, now=10.0) == [Kill(1000 + worker, TERM)]
    assert host.plan.next_deadline == 10.0 + GRACE
    assert host.cancel(ROOT, worker, now=11.0) == []
    assert host.plan.due(14.9) == []
    assert host.plan.due(15.0) == [Kill(1000 + worker, KILL)]


def test_only_what_was_asked_for_is_cancelled(host: Host) -> None:
    first, second = host.start(), host.start()
    assert host.cancel(ROOT, first, 0.0) == [Kill(1000 + first, TERM)]
    assert host.plan.asked(ROOT, Cancel(999), [], 0.0) == []
    assert host.plan.asked(second, Cancel(host.asked[first]), [], 0.0) == []
    assert [kill.pid for kill in kills(host.plan.due(math.inf))] == [1000 + first]


@pytest.mark.parametrize(("grace", "deadline"), [(0.0, 10.0), (1.0, 11.0), (100.0, 110.0)])
def test_a_cancellation_may_bring_its_own_grace(host: Host, grace: float, deadline: float) -> None:
    worker = host.start()
    host.cancel(ROOT, worker, 10.0, grace)
    assert host.plan.next_deadline == deadline


def test_a_later_cancellation_can_only_bring_the_deadline_forward(host: Host) -> None:
    worker = host.start()
    host.cancel(ROOT, worker, 10.0)
    host.cancel(ROOT, worker, 11.0)
    assert host.plan.next_deadline == 15.0
    host.cancel(ROOT, worker, 12.0, 0.0)
    assert host.plan.due(12.0) == [Kill(1000 + worker, KILL)]


def test_the_deadline_is_inherited_downwards(host: Host) -> None:
    top, middle, leaf = host.cascade(3)
    host.cancel(ROOT, top, 10.0)
    host.cancel(top, middle, 12.0)
    host.cancel(middle, leaf, 14.0, 60.0)
    assert host.plan.due(14.9) == []
    assert {kill.pid - 1000 for kill in kills(host.plan.due(15.0))} == {top, middle, leaf}


def test_the_innermost_is_killed_first(host: Host) -> None:
    numbers = host.cascade(100)
    sibling = host.start(numbers[50])
    host.cancel(ROOT, numbers[0], 0.0, 0.0)
    order = [kill.pid - 1000 for kill in kills(host.plan.due(0.0))]
    assert [number for number in order if number != sibling] == numbers[::-1]
    assert order.index(sibling) < order.index(numbers[50])


def test_a_cascade_of_ten_thousand_is_no_deeper_for_the_plan(host: Host) -> None:
    numbers = host.cascade(10_000)
    for owner, number in itertools.pairwise([ROOT, *numbers]):
        host.cancel(owner, number, 0.0)
    order = [kill.pid - 1000 for kill in kills(host.plan.due(GRACE))]
    assert order == numbers[::-1]


def test_who_is_killed_with_its_owner_counts_as_cancelled(host: Host) -> None:
    owner, child = host.cascade(2)
    host.plan.asked(ROOT, Watch("root", child), [], 0.0)
    host.cancel(ROOT, owner, 0.0, 0.0)
    host.plan.due(0.0)
    (told,) = sends(host.die(child, -9))
    assert told.request == Gone("root", child, 1000 + child, f"f{child}", -9, True, False)


@pytest.mark.parametrize(
    ("returncode", "cancelled"), [(0, True), (-TERM, True), (1, False), (-signal.SIGSEGV, False)]
)
def test_cancelled_is_who_ended_because_of_it(host: Host, returncode: int, cancelled: bool) -> None:
    worker = host.start()
    host.cancel(ROOT, worker, 0.0)
    host.die(worker, returncode)
    assert reports(host.plan.settled())[ROOT].cancelled == cancelled


def test_who_has_crashed_before_was_not_cancelled(host: Host) -> None:
    worker = host.start()
    child = host.start(worker)
    host.die(worker, -signal.SIGSEGV)
    assert host.cancel(ROOT, worker, 0.0, 0.0) == []
    assert kills(host.plan.due(0.0)) == [Kill(1000 + child, KILL)]
    host.die(child, -9)
    assert not reports(host.plan.settled())[ROOT].cancelled


# Ends


def test_a_process_is_reported_when_nothing_is_left_below_it(host: Host) -> None:
    top, middle, leaf = host.cascade(3)
    host.die(middle, 3)
    assert host.plan.settled() == []
    host.die(leaf)
    instructions = host.plan.settled()
    assert instructions[:2] == [Forget(leaf), Forget(middle)]
    assert reports(instructions) == {top: Exited(host.asked[middle], 3, False, False)}
    host.die(top)
    assert reports(host.plan.settled()) == {ROOT: Exited(host.asked[top], 0, False, False)}
    assert list(host.plan.processes) == [ROOT]


def test_a_process_is_reported_when_no_orphan_is_left(host: Host) -> None:
    worker = host.start()
    assert sends(host.die(worker)) == []
    assert reports(host.plan.settled()) == {ROOT: Exited(host.asked[worker], 0, False, False)}
    assert host.plan.settled() == []


def test_the_death_of_an_owner_cancels_what_it_owned(host: Host) -> None:
    top, middle, leaf = host.cascade(3)
    assert host.die(top, -9, now=20.0) == [Kill(1000 + middle, TERM)]
    assert host.plan.next_deadline == 20.0 + GRACE
    assert kills(host.plan.due(25.0)) == [Kill(1000 + leaf, KILL), Kill(1000 + middle, KILL)]


def test_a_dead_owner_s_deadline_binds_those_it_left(host: Host) -> None:
    top, middle, leaf = host.cascade(3)
    host.cancel(ROOT, top, 10.0)
    host.die(top, 0, now=14.0)
    host.die(middle, -9, now=14.5)
    assert {kill.pid - 1000 for kill in kills(host.plan.due(15.0))} == {leaf}


def test_who_closes_its_connection_loses_what_it_owned_but_lives(host: Host) -> None:
    owner, child = host.cascade(2)
    assert host.plan.connection_lost(owner, 0.0) == [Kill(1000 + child, TERM)]
    host.die(child, -TERM)
    host.plan.settled()
    host.die(owner, 0)
    assert reports(host.plan.settled()) == {ROOT: Exited(host.asked[owner], 0, False, False)}


def test_when_the_root_is_gone_everything_goes_and_the_plan_is_finished(host: Host) -> None:
    first, second = host.start(), host.start()
    assert {kill.pid - 1000 for kill in kills(host.plan.root_gone(0.0))} == {first, second}
    assert not host.plan.finished
    host.die(first, -TERM)
    host.die(second, -9)
    assert sends(host.plan.settled()) == []
    assert host.plan.finished


def test_stop_of_the_root_is_its_end(host: Host) -> None:
    assert host.plan.asked(ROOT, Stop(), [], 0.0) == []
    assert host.plan.finished
    assert host.plan.root_gone(1.0) == []


def test_out_of_memory_is_only_suspected_where_we_did_not_kill(host: Host) -> None:
    killed, other = host.start(), host.start()
    host.cancel(ROOT, killed, 0.0, 0.0)
    host.plan.due(0.0)
    host.plan.died(1000 + killed, -9, True, 0.0)
    host.plan.died(1000 + other, -9, True, 0.0)
    found = {
        send.request.request: send.request.maybe_oom
        for send in sends(host.plan.settled())
        if isinstance(send.request, Exited)
    }
    assert found == {host.asked[killed]: False, host.asked[other]: True}


# Watching


def test_who_watches_is_told_at_once_when_it_dies(host: Host) -> None:
    watched, watcher = host.start(), host.start()
    host.start(watched)  # what lives below it holds up its report, not the watchers
    assert host.plan.asked(watcher, Watch("root", watched), [], 0.0) == []
    assert sends(host.die(watched, 3)) == [
        Send(watcher, Gone("root", watched, 1000 + watched, f"f{watched}", 3, False, False))
    ]


def test_who_watches_too_late_is_told_as_well(host: Host) -> None:
    watched, watcher = host.start(), host.start()
    host.die(watched, -11)
    fate = Gone("root", watched, 1000 + watched, f"f{watched}", -11, False, False)
    assert host.plan.asked(watcher, Watch("root", watched), [], 0.0) == [Send(watcher, fate)]
    host.plan.settled()
    assert host.plan.asked(watcher, Watch("root", watched), [], 0.0) == [Send(watcher, fate)]


def test_who_watches_what_never_was_is_told_that_it_is_gone(host: Host) -> None:
    watcher = host.start()
    for number in (99, -1, 1 << 70):
        (send,) = sends(host.plan.asked(watcher, Watch("root", number), [], 0.0))
        assert send == Send(watcher, Gone("root", number, 0, "", None, False, False))


# Other hosts


class Many(Host):
    """A host with an agent."""

    def __init__(self, *, forwards: bool = False) -> None:
        super().__init__()
        if forwards:  # a host that is not the root's: its root is its agent
            self.plan = Plan("root", 1000, GRACE, forwards=True)
            self.agent = ROOT
        else:
            self.agent = self.start()
            assert self.plan.asked(self.agent, Serve(), [], 0.0) == [Discount(self.agent)]

    def start_elsewhere(self, owner: int = ROOT, host: str = "host0", now: float = 0.0) -> int:
        """Ask for a process there; its number, which is below 0."""
        request = next(self.requests)
        start = Start(request, host, "f")
        (send,) = self.plan.asked(owner, start, [request], now)
        assert isinstance(send, Send)
        assert isinstance(send.request, Start)
        number = send.request.request
        assert send == Send(
            self.agent,
            start._replace(request=number, owner_host="root", owner=owner),
            [request],
        )
        assert number < 0
        self.asked[number] = request
        return number

    def says(self, report: Request, now: float = 0.0) -> list[Send]:
        """The agent has heard something."""
        instructions = self.plan.asked(self.agent, report, [], now)
        assert instructions[0] == Close([])
        return sends(instructions)

    def told_agent(self, instructions: Sequence[Instruction]) -> list[Request]:
        return [send.request for send in sends(instructions) if send.process == self.agent]


@pytest.fixture
def many() -> Many:
    return Many()


@pytest.fixture
def far() -> Many:
    return Many(forwards=True)


def test_a_start_elsewhere_goes_to_the_agent_with_its_descriptors(many: Many) -> None:
    owner = many.start()
    assert many.start_elsewhere(owner) != many.start_elsewhere(owner)
    assert not many.plan.spares


def test_what_is_heard_from_there_goes_to_who_asked_by_its_own_number(many: Many) -> None:
    owner = many.start()
    for final in (Refused(0, "no"), Exited(0, 3, False, True, "why"), Lost(0, "host0", "cut")):
        number = many.start_elsewhere(owner)
        request = many.asked[number]
        assert many.says(Started(number, 17, 4711)) == [Send(owner, Started(request, 17, 4711))]
        report = final._replace(request=number)
        assert many.says(report) == [Send(owner, final._replace(request=request))]
        assert many.says(report) == []  # there is no such process any more
    assert set(many.plan.processes) == {ROOT, many.agent, owner}


def test_only_the_agent_is_believed(many: Many) -> None:
    owner, other = many.start(), many.start()
    number = many.start_elsewhere(owner)
    for report in (Started(number, 1, 1), Exited(number, 0, False, False), HostDown("host0", "")):
        assert many.plan.asked(other, report, [], 0.0) == [Close([])]
    assert number in many.plan.processes


def test_there_is_one_agent_and_it_is_the_root_s_own_child(many: Many) -> None:
    child, grandchild = many.cascade(2)
    assert many.plan.asked(child, Serve(), [], 0.0) == [Close([])]
    assert many.plan.agent is many.plan.processes[many.agent]
    many.die(many.agent, -9)
    assert many.plan.asked(grandchild, Serve(), [], 0.0) == [Close([])]
    assert many.plan.asked(child, Serve(), [], 0.0) == [Discount(child)]
    assert many.plan.agent is many.plan.processes[child]


def test_who_asks_on_behalf_of_another_host_says_for_whom(far: Many) -> None:
    far.plan.add_spare(7, 1007)
    start = Start(5, "root", "job", "host0", 12)
    assert far.plan.asked(ROOT, start, [10], 0.0)[:2] == [
        Enter(7, "host0", 12, 1007, "job"),
        Send(7, Begin(7, "host0", 12, "job"), [10]),
    ]


def test_who_is_no_agent_asks_for_itself(many: Many) -> None:
    worker = many.start()
    many.plan.add_spare(70, 1070)
    start = Start(500, "root", "job", "host0", -1)
    assert many.plan.asked(worker, start, [10], 0.0)[0] == Enter(70, "root", worker, 1070, "job")


# Cancelling there


def test_a_cancellation_is_passed_on_with_the_time_that_is_left(many: Many) -> None:
    owner = many.start()
    number = many.start_elsewhere(owner)
    asked = Cancel(many.asked[number], 3.0)
    assert many.plan.asked(owner, asked, [], 10.0) == [Send(many.agent, Cancel(number, 3.0))]
    assert many.plan.asked(owner, asked, [], 11.0) == []  # that would be later
    assert many.plan.asked(owner, asked._replace(grace=0.5), [], 12.0) == [
        Send(many.agent, Cancel(number, 0.5))
    ]


def test_a_deadline_is_inherited_across_hosts(many: Many) -> None:
    top, middle = many.cascade(2)
    number = many.start_elsewhere(middle)
    many.cancel(ROOT, top, 10.0)
    many.cancel(top, middle, 12.0)
    asked = Cancel(many.asked[number], 60.0)
    assert many.plan.asked(middle, asked, [], 14.0) == [Send(many.agent, Cancel(number, 1.0))]


def test_who_should_be_gone_by_now_is_killed_there_before_its_owner_here(many: Many) -> None:
    owner = many.start()
    number = many.start_elsewhere(owner)
    many.cancel(ROOT, owner, 10.0)
    assert many.plan.due(15.0) == [
        Send(many.agent, Cancel(number, 0.0)),
        Kill(1000 + owner, KILL),
    ]
    assert many.plan.due(16.0) == []


def test_the_death_of_an_owner_cancels_what_it_had_there(many: Many) -> None:
    owner = many.start()
    number = many.start_elsewhere(owner)
    many.cancel(ROOT, owner, 10.0)
    told = many.told_agent(many.die(owner, -TERM, now=12.0))
    assert told == [Cancel(number, 3.0)]


def test_a_process_is_reported_when_nothing_is_left_of_it_anywhere(many: Many) -> None:
    owner = many.start()
    number = many.start_elsewhere(owner)
    many.die(owner, 3)
    assert many.plan.settled() == []
    assert many.says(Exited(number, -15, True, False)) == [
        Send(ROOT, Exited(many.asked[owner], 3, False, False))
    ]


# Watching there


def test_a_watch_of_a_process_there_is_passed_on_and_so_is_its_end(many: Many) -> None:
    first, second = many.start(), many.start()
    for watcher in (first, second):
        watch = Watch("host0", 5)
        assert many.plan.asked(watcher, watch, [], 0.0) == [Send(many.agent, watch)]
    gone = Gone("host0", 5, 99, "f", 0, False, False)
    assert many.says(gone._replace(process=6)) == []
    assert many.says(gone) == [Send(first, gone), Send(second, gone)]
    assert many.says(gone) == []


def test_the_agent_s_own_watch_is_answered_like_any_other(many: Many) -> None:
    worker = many.start()
    assert many.plan.asked(many.agent, Watch("root", worker), [], 0.0) == []
    (told,) = many.told_agent(many.die(worker, 3))
    assert isinstance(told, Gone)
    assert (told.host, told.process, told.returncode) == ("root", worker, 3)


def test_a_start_elsewhere_that_does_not_reach_the_agent_is_refused(many: Many, far: Many) -> None:
    for host in (many, far):
        owner = host.start()
        number = host.start_elsewhere(owner)
        start = Start(number, "host0", "f", "root", owner)
        refused = Send(owner, Refused(host.asked[number], "too many"))
        assert host.plan.undelivered(host.agent, start, "too many") == [refused]
        assert number not in host.plan.processes
        assert host.plan.undelivered(host.agent, start, "too many") == []
        assert host.plan.undelivered(host.agent, Survey(), "too many") == []
        assert owner in host.plan.processes


def test_a_process_whose_output_does_not_reach_the_agent_is_refused(far: Many) -> None:
    number = far.start()
    output = Output(number, 1000 + number, "f")
    assert far.plan.undelivered(ROOT, output, "too many") == [
        Send(ROOT, Refused(far.asked[number], "too many")),
        Kill(1000 + number, KILL),
    ]
    far.die(number, -9)
    assert far.plan.undelivered(ROOT, output, "too many") == []


def test_without_an_agent_there_is_no_other_host(host: Host) -> None:
    worker = host.start()
    (send,) = sends(host.plan.asked(worker, Watch("host0", 5), [], 0.0))
    assert isinstance(send.request, HostDown)
    assert host.plan.asked(worker, Survey(), [7], 0.0) == [Close([7])]


def test_a_survey_goes_to_the_agent_with_its_descriptor(many: Many) -> None:
    worker = many.start()
    assert many.plan.asked(worker, Survey(), [7], 0.0) == [Send(many.agent, Survey(), [7])]
    assert many.plan.asked(many.agent, Survey(), [7], 0.0)[0] == Close([7])


# When a host is gone, or an agent


def test_with_a_host_goes_what_was_there_and_nothing_else(many: Many) -> None:
    owner, watcher = many.start(), many.start()
    there, elsewhere = many.start_elsewhere(owner), many.start_elsewhere(owner, "host1")
    many.plan.asked(watcher, Watch("host0", 5), [], 0.0)
    many.plan.asked(watcher, Watch("host1", 5), [], 0.0)
    down = HostDown("host0", "it was switched off")
    told = many.says(down)
    assert Send(owner, Lost(many.asked[there], "host0", "it was switched off")) in told
    assert Send(watcher, down) in told
    assert {send.process for send in told} <= {owner, watcher, many.agent}
    assert elsewhere in many.plan.processes
    assert there not in many.plan.processes
    assert many.says(Gone("host0", 5, 0, "", None, False, False)) == []


def test_what_was_on_its_way_to_a_host_that_is_gone_shall_not_run_on_its_successor(
    many: Many,
) -> None:
    number = many.start_elsewhere(many.start())
    assert Send(many.agent, Cancel(number, 0.0)) in many.says(HostDown("host0", "cut"))


def test_with_a_host_goes_what_kept_a_dead_owner_from_being_reported(many: Many) -> None:
    owner = many.start()
    many.start_elsewhere(owner)
    many.die(owner, 3)
    assert many.plan.settled() == []
    assert reports(many.says(HostDown("host0", "cut"))) == {
        ROOT: Exited(many.asked[owner], 3, False, False)
    }


def test_with_the_agent_go_all_hosts_and_then_there_are_none(many: Many) -> None:
    owner = many.start()
    numbers = [many.start_elsewhere(owner, f"host{i}") for i in range(3)]
    many.plan.asked(owner, Watch("host7", 1), [], 0.0)
    told = sends(many.die(many.agent, -9))
    lost = {send.request.host for send in told if isinstance(send.request, Lost)}
    assert lost == {"host0", "host1", "host2"}
    down = [send.request for send in told if isinstance(send.request, HostDown)]
    assert [each.host for each in down] == ["host7"]
    assert f"(pid {1000 + many.agent}) was killed by SIGKILL" in down[0].reason
    assert not set(numbers) & set(many.plan.processes)
    request = Start(999, "host0", "f")
    (close, refused) = many.plan.asked(owner, request, [7], 0.0)
    assert close == Close([7])
    assert isinstance(refused, Send)
    assert isinstance(refused.request, Refused)


def test_an_agent_that_speaks_no_more_is_killed(many: Many) -> None:
    assert many.plan.connection_lost(many.agent, 0.0) == [Kill(1000 + many.agent, KILL)]
    many.die(many.agent, -9)
    assert many.plan.connection_lost(many.agent, 0.0) == []


def test_when_the_root_is_gone_its_agent_is_the_last_to_go(many: Many) -> None:
    worker = many.start()
    there, below = many.start_elsewhere(), many.start_elsewhere(worker)
    gone = many.plan.root_gone(0.0)
    assert kills(gone) == [Kill(1000 + worker, TERM)]
    assert many.told_agent(gone) == [Cancel(there, GRACE)]
    assert many.told_agent(many.die(worker, -TERM, 1.0)) == [Cancel(below, GRACE - 1.0)]
    assert many.plan.settled() == []
    assert many.says(Exited(below, 0, True, False)) == []
    last = many.plan.asked(many.agent, Exited(there, 0, True, False), [], 2.0)
    assert kills(last) == [Kill(1000 + many.agent, TERM)]
    assert not many.plan.finished
    many.die(many.agent, -TERM)
    many.plan.settled()
    assert many.plan.finished


def test_an_agent_that_waits_too_long_for_the_others_is_killed(many: Many) -> None:
    many.start_elsewhere()
    many.plan.root_gone(10.0)
    assert Kill(1000 + many.agent, KILL) in many.plan.due(10.0 + GRACE)
    many.die(many.agent, -9)
    many.plan.settled()
    assert many.plan.finished


def test_an_agent_without_a_root_that_has_nothing_goes_at_once(many: Many) -> None:
    assert kills(many.plan.root_gone(0.0)) == [Kill(1000 + many.agent, TERM)]


# Last words


def test_who_has_failed_is_reported_with_its_last_words(far: Many) -> None:
    owner, child = far.cascade(2)
    far.die(child, 3)
    assert far.plan.settled() == [Send(ROOT, Failed(child))]
    assert far.plan.settled() == []  # that was asked already
    report = Exited(far.asked[child], 3, False, False, "ValueError: no")
    assert far.says(Words(child, "ValueError: no")) == [Send(owner, report)]
    assert far.says(Words(child, "and more")) == []


def test_who_has_not_failed_or_was_cancelled_has_none(far: Many) -> None:
    well, cancelled = far.start(), far.start()
    far.cancel(ROOT, cancelled, 0.0)
    far.die(well, 0)
    far.die(cancelled, -TERM)
    assert set(reports(far.plan.settled())) == {ROOT}
    assert list(far.plan.processes) == [ROOT]


def test_on_the_root_s_host_they_are_on_its_own_stderr(many: Many) -> None:
    worker = many.start()
    many.die(worker, 3)
    assert many.told_agent(many.plan.settled()) == []


def test_an_owner_waits_for_the_words_of_who_is_below_it(far: Many) -> None:
    owner, child = far.cascade(2)
    far.die(child, 3)
    far.plan.settled()
    far.die(owner, 0)
    assert far.plan.settled() == []
    told = far.says(Words(child, "x"))
    assert reports(told) == {ROOT: Exited(far.asked[owner], 0, False, False)}


# The end of a host that is not the root's


def test_a_host_ends_whatever_its_processes_still_have_elsewhere(far: Many) -> None:
    worker = far.start()
    far.start_elsewhere(worker)
    far.plan.root_gone(0.0)
    far.die(worker, -TERM)
    far.plan.settled()
    assert far.plan.finished


def test_a_host_ends_though_nobody_is_left_to_say_the_last_words(far: Many) -> None:
    owner, failed = far.cascade(2)
    far.die(failed, 3)
    assert far.plan.settled() == [Send(ROOT, Failed(failed))]
    far.plan.root_gone(0.0)
    later = far.start(owner)
    far.die(later, 3)
    assert sends(far.plan.settled()) == [
        Send(owner, Exited(far.asked[later], 3, False, False)),
    ]
    far.die(owner, -TERM)
    far.plan.settled()
    assert far.plan.finished


# Bounds


def test_the_memory_of_the_dead_is_bounded(host: Host) -> None:
    for number in range(5000):
        worker = host.start(now=float(number))
        host.cancel(ROOT, worker, float(number))
        host.die(worker, 0, float(number))
        host.plan.settled()
        host.plan.due(float(number))
    plan = host.plan
    assert len(plan.processes) == 1
    assert len(plan._watchers._fates) <= 1000
    assert len(plan._deadlines._heap) <= GRACE + 1
    assert not plan.root.children
    assert not plan._by_pid
    assert not plan._unreported


# Any order of events


@dataclass
class Known:
    """A process as the machine below knows it."""

    number: int
    owner: int
    request: int
    alive: bool = True
    terminated: bool = False
    killed: bool = False
    reported: bool = False
    told_to_end: float = math.inf
    """By when somebody wanted it gone."""
    watchers: Counter[int] = field(default_factory=Counter)


class AnyOrder(RuleBasedStateMachine):
    """A fork server's driver with random clients, and what must hold whatever they do."""

    def __init__(self) -> None:
        super().__init__()
        self.plan = Plan("root", 1000, GRACE)
        self.now = 0.0
        self.known: dict[int, Known] = {}
        self.last_number = self.last_request = self.last_descriptor = 0
        self.descriptors: set[int] = set()
        """Given to the plan, and neither passed on nor closed."""
        self.root_alive = True
        self.speechless: set[int] = set()
        self.orphans = 0
        self.expected_gone: Counter[tuple[int, int]] = Counter()
        self.inbox: dict[int, list[object]] = {}

    # What the driver does

    def carry_out(self, instructions: Sequence[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Send(process, request, descriptors):
                    self.descriptors -= set(descriptors)
                    self.inbox.setdefault(process, []).append(request)
                    if isinstance(request, Gone):
                        self.expected_gone[process, request.process] -= 1
                case Kill(pid, number):
                    victim = self.known[pid - 1000]
                    assert victim.alive
                    if number == KILL:
                        victim.killed = True
                    else:
                        assert not victim.terminated
                        victim.terminated = True
                case Enter():
                    pass
                case Forget(number):
                    if number in self.known:
                        assert not self.known[number].alive
                        self.known[number].reported = True
                case Close(descriptors):
                    self.descriptors -= set(descriptors)
        self.check_kill_order(instructions)

    def check_kill_order(self, instructions: Sequence[Instruction]) -> None:
        order = [kill.pid - 1000 for kill in kills(instructions) if kill.signal == KILL]
        for position, number in enumerate(order):
            assert not any(self.is_below(later, number) for later in order[position:])

    def is_below(self, number: int, other: int) -> bool:
        while number in self.known and (number := self.known[number].owner) != other:
            pass
        return number == other

    def new_descriptors(self, count: int) -> list[int]:
        numbers = list(range(self.last_descriptor + 1, self.last_descriptor + 1 + count))
        self.last_descriptor += count
        self.descriptors.update(numbers)
        return numbers

    def living(self) -> list[int]:
        return [number for number, process in self.known.items() if process.alive]

    def clients(self) -> list[int]:
        root = [ROOT] if self.root_alive else []
        return [number for number in root + self.living() if number not in self.speechless]

    def pick(self, among: list[int], which: int) -> int | None:
        return among[which % len(among)] if among else None

    # What happens

    @rule(
        which=st.integers(0, 50),
        host=st.sampled_from(["root"] * 5 + ["host0"]),
        count=st.integers(0, 2),
    )
    def start(self, which: int, host: str, count: int) -> None:
        client = self.pick(self.clients(), which)
        if client is None:
            return
        self.last_number += 1
        self.last_request += 1
        self.plan.add_spare(self.last_number, 1000 + self.last_number)
        start = Start(self.last_request, host, "f")
        instructions = self.plan.asked(client, start, self.new_descriptors(count), self.now)
        # Some older spare may have been taken.
        for number in started(instructions):
            self.known[number] = Known(number, client, self.last_request)
        answers = [send.request for send in sends(instructions) if send.process == client]
        assert len(answers) == 1
        assert isinstance(answers[0], Started if host == "root" and count else Refused)
        self.carry_out(instructions)

    @rule(which=st.integers(0, 50), grace=st.one_of(st.none(), st.floats(0, 10)))
    def cancel(self, which: int, grace: float | None) -> None:
        candidates = [
            number
            for number, process in self.known.items()
            if process.owner in self.clients() and not process.reported
        ]
        number = self.pick(candidates, which)
        if number is None:
            return
        process = self.known[number]
        limit = self.now + (GRACE if grace is None else grace)
        process.told_to_end = min(process.told_to_end, limit)
        self.carry_out(self.plan.asked(process.owner, Cancel(process.request, grace), [], self.now))
        assert process.terminated or not process.alive or process.killed

    @rule(which=st.integers(0, 50), number=st.integers(-1, 60))
    def watch(self, which: int, number: int) -> None:
        client = self.pick(self.clients(), which)
        if client is None or number == ROOT:
            return
        process = self.known.get(number)
        if process is None or not process.alive:
            self.expected_gone[client, number] += 1
        elif not process.watchers[client]:
            process.watchers[client] = 1
        self.carry_out(self.plan.asked(client, Watch("root", number), [], self.now))

    @rule(which=st.integers(0, 50), returncode=st.sampled_from([0, 1, -9, -15, -11]))
    def die(self, which: int, returncode: int) -> None:
        number = self.pick(self.living(), which)
        if number is not None:
            self.bury(number, returncode)

    @rule()
    def the_killed_die(self) -> None:
        for number in [number for number in self.living() if self.known[number].killed]:
            self.bury(number, -9)

    def bury(self, number: int, returncode: int) -> None:
        process = self.known[number]
        process.alive = False
        for watcher in process.watchers:
            self.expected_gone[watcher, number] += 1
        for child in self.known.values():
            if child.owner == number and child.alive:
                child.told_to_end = min(child.told_to_end, self.now + GRACE)
        self.carry_out(self.plan.died(1000 + number, returncode, False, self.now))

    @rule(number=st.integers(0, 60))
    def a_spare_dies(self, number: int) -> None:
        if number in self.plan.spares:
            assert self.plan.died(1000 + number, -9, False, self.now) == [Forget(number)]

    @rule(which=st.integers(0, 50))
    def stop_speaking(self, which: int) -> None:
        client = self.pick(self.clients(), which)
        if client is None or client == ROOT:
            return
        self.speechless.add(client)
        self.end_children(client)
        self.carry_out(self.plan.connection_lost(client, self.now))

    def end_children(self, owner: int) -> None:
        for child in self.known.values():
            if child.owner == owner and child.alive:
                child.told_to_end = min(child.told_to_end, self.now + GRACE)

    @precondition(lambda self: self.last_number > 10)
    @rule(stop=st.booleans())
    def root_goes(self, stop: bool) -> None:
        if not self.root_alive:
            return
        self.root_alive = False
        self.end_children(ROOT)
        if stop:
            self.carry_out(self.plan.asked(ROOT, Stop(), [], self.now))
        self.carry_out(self.plan.root_gone(self.now))

    @rule(seconds=st.floats(0, 4))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.carry_out(self.plan.due(self.now))

    @rule(orphans=st.booleans())
    def settle(self, orphans: bool) -> None:
        if not orphans:
            self.carry_out(self.plan.settled())
            self.check_settled()

    def check_settled(self) -> None:
        """With no orphan left, who is dead with nothing alive below is reported."""
        for number, process in self.known.items():
            alive_below = any(
                other.alive and self.is_below(other.number, number) for other in self.known.values()
            )
            assert process.reported == (not process.alive and not alive_below)

    # What always holds

    @invariant()
    def every_descriptor_is_passed_on_or_closed(self) -> None:
        assert not self.descriptors

    @invariant()
    def everybody_is_killed_in_time(self) -> None:
        if self.plan.next_deadline is not None and self.plan.next_deadline <= self.now:
            return  # the driver's next turn
        for process in self.known.values():
            if process.alive and not process.killed and self.deadline(process) < self.now:
                # Only what a killed owner had asked for before it died, and that is not buried yet.
                assert self.has_killed_owner(process)

    def deadline(self, process: Known) -> float:
        """Nobody has a later one than its owner."""
        limit = process.told_to_end
        while (owner := self.known.get(process.owner)) is not None:
            limit = min(limit, owner.told_to_end)
            process = owner
        return limit

    def has_killed_owner(self, process: Known) -> bool:
        while (owner := self.known.get(process.owner)) is not None:
            if owner.killed:
                return True
            process = owner
        return False

    @invariant()
    def each_start_has_at_most_one_final_report(self) -> None:
        for messages in self.inbox.values():
            finals = Counter(
                message.request for message in messages if isinstance(message, Exited | Refused)
            )
            assert not finals or max(finals.values()) == 1

    @invariant()
    def each_watcher_is_told_exactly_once(self) -> None:
        for (watcher, number), missing in self.expected_gone.items():
            assert missing == 0, (watcher, number)

    def teardown(self) -> None:
        """At last all goes, in time, and everyone who still lives has heard of it."""
        self.carry_out(self.plan.settled())
        owners_alive = {number for number in self.living() if number not in self.speechless}
        for number in sorted(self.living(), reverse=True):  # children first, so all are reported
            self.bury(number, 0)
            self.carry_out(self.plan.settled())
        self.carry_out(self.plan.settled())
        for process in self.known.values():
            assert process.reported
            if process.owner in owners_alive or (process.owner == ROOT and self.root_alive):
                finals = [
                    message
                    for message in self.inbox[process.owner]
                    if isinstance(message, Exited) and message.request == process.request
                ]
                assert len(finals) == 1
        self.carry_out(self.plan.root_gone(self.now))
        assert self.plan.finished
        assert list(self.plan.processes) == [ROOT]


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = hypothesis.settings(examples(100), stateful_step_count=80)
