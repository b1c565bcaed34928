"""`router`: what the root's agent does with each message, without a link or a process."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel._wire.news import REMOVED, ROOT_HOST, HostState, decode_news
from parallel._wire.requests import (
    Cancel,
    Exited,
    Gone,
    HostDown,
    HostUp,
    Lost,
    News,
    Output,
    Refused,
    Request,
    Running,
    Start,
    Started,
    Stop,
    Watch,
)
from parallel._wire.router import Router, Tell

from .support import examples


def up(name: str) -> HostUp:
    return HostUp(name, 4, "3.11.2", 1000)


@pytest.fixture
def router() -> Router:
    """Three hosts that know of each other."""
    router = Router()
    for name in (ROOT_HOST, "a", "b"):
        router.host_up(up(name))
    router.news()
    return router


def start(router: Router, asker: str, request: int, host: str) -> int:
    """The number that the request has at its host."""
    wanted = Start(request, host, "f", asker, 3)
    (tell,) = router.said(asker, wanted)
    assert isinstance(tell.request, Start)
    assert tell == Tell(host, wanted._replace(request=tell.request.request), with_streams=True)
    return tell.request.request


def told(steps: list[Tell], host: str) -> list[Request]:
    return [step.request for step in steps if step.host == host]


# Requests


def test_a_request_gets_a_number_of_its_own_and_what_is_said_of_it_the_first(
    router: Router,
) -> None:
    first, second = start(router, "a", -1, "b"), start(router, ROOT_HOST, -1, "b")
    assert first != second
    for asker, number in (("a", first), (ROOT_HOST, second)):
        assert router.said("b", Started(number, 7, 77)) == [Tell(asker, Started(-1, 7, 77))]
    for asker, number in (("a", first), (ROOT_HOST, second)):
        gone = Exited(number, 3, False, True, "why")
        assert router.said("b", gone) == [Tell(asker, gone._replace(request=-1))]
        assert router.said("b", gone) == []


@pytest.mark.parametrize(
    "final", [Refused(0, "no"), Exited(0, 0, False, False), Lost(0, "c", "cut")]
)
def test_after_its_last_report_a_request_is_forgotten(
    router: Router, final: Refused | Exited | Lost
) -> None:
    number = start(router, "a", -1, "b")
    assert router.said("b", final._replace(request=number)) == [
        Tell("a", final._replace(request=-1))
    ]
    assert router.said("a", Cancel(-1, 0.0)) == []
    assert start(router, "a", -1, "b") != number


def test_a_cancellation_goes_where_the_request_went(router: Router) -> None:
    number = start(router, "a", -1, "b")
    assert router.said("a", Cancel(-1, 2.5)) == [Tell("b", Cancel(number, 2.5))]
    assert router.said("a", Cancel(-1, 0.0)) == [Tell("b", Cancel(number, 0.0))]
    assert router.said("b", Cancel(-1, 0.0)) == []


def test_only_its_host_can_say_what_became_of_a_request(router: Router) -> None:
    number = start(router, "a", -1, "b")
    for host in ("a", ROOT_HOST, "nobody"):
        assert router.said(host, Exited(number, 0, False, False)) == []
    assert router.said("b", Exited(number, 0, False, False)) != []


def test_a_start_on_an_unknown_host_is_refused(router: Router) -> None:
    (tell,) = router.said("a", Start(-1, "c", "f"))
    assert tell == Tell("a", Refused(-1, "there is no host 'c'"))


def test_a_start_on_a_host_that_is_gone_is_lost_with_the_reason(router: Router) -> None:
    router.host_down("b", "it was switched off")
    lost = Lost(-1, "b", "it was switched off")
    assert router.said("a", Start(-1, "b", "f")) == [Tell("a", lost)]


def test_what_makes_no_sense_is_passed_over(router: Router) -> None:
    odd = (Stop(), up("a"), HostDown("b", ""), News("[]"), Started(5, 1, 1), Output(1, 1, ""))
    for request in odd:
        assert router.said("a", request) == []
    assert router.is_up("a")
    assert router.is_up("b")


# Watches


def test_who_watches_is_told_by_way_of_the_host_and_only_once(router: Router) -> None:
    for watcher in (ROOT_HOST, "a", "a"):
        assert router.said(watcher, Watch("b", 5)) == [Tell("b", Watch("b", 5))]
    gone = Gone("b", 5, 99, "f", 0, False, False)
    assert router.said("b", gone._replace(process=6)) == []
    assert router.said("b", gone) == [Tell("a", gone), Tell(ROOT_HOST, gone)]
    assert router.said("b", gone) == []


@pytest.mark.parametrize(("host", "why"), [("c", "there is no host 'c'"), ("b", "cut")])
def test_who_watches_a_process_of_a_host_that_is_not_there_is_told_so(
    router: Router, host: str, why: str
) -> None:
    router.host_down("b", "cut")
    assert router.said("a", Watch(host, 5)) == [Tell("a", HostDown(host, why))]


# Hosts come and go


def test_who_waits_for_something_there_hears_that_a_host_is_gone(router: Router) -> None:
    for name in ("c", "d"):
        router.host_up(up(name))
    start(router, "a", -1, "b")
    start(router, "a", -2, "b")
    start(router, "d", -1, "a")
    router.said("c", Watch("b", 5))
    router.said("b", Watch("b", 5))
    down = HostDown("b", "cut")
    assert router.host_down("b", "cut") == [Tell("a", down), Tell("c", down)]
    assert not router.is_up("b")
    assert router.host_down("a", "cut") == [Tell("d", HostDown("a", "cut"))]


def test_what_a_host_had_asked_for_ends_with_it(router: Router) -> None:
    on_a, on_root = start(router, "b", -1, "a"), start(router, "b", -2, ROOT_HOST)
    others = start(router, ROOT_HOST, -1, "a")
    steps = router.host_down("b", "cut")
    assert Cancel(on_a) in told(steps, "a")
    assert Cancel(on_root) in told(steps, ROOT_HOST)
    assert Cancel(others) not in told(steps, "a")
    assert router.said("a", Exited(on_a, 0, True, False)) == []  # nobody asks for it


def test_a_host_of_the_same_name_hears_nothing_of_its_predecessor_s(router: Router) -> None:
    before = [start(router, "b", request, "a") for request in (-1, -2)]
    of_others = start(router, "a", -1, "b")
    router.said("b", Watch("a", 5))
    router.said("a", Watch("b", 6))
    router.host_down("b", "cut")
    router.host_up(up("b"))
    for number in before:
        for report in (Started(number, 1, 1), Exited(number, 0, True, False)):
            assert router.said("a", report) == []
    assert router.said("b", Cancel(-1)) == []
    assert router.said("b", Exited(of_others, 0, False, False)) == []
    assert router.said("a", Gone("a", 5, 0, "", 0, False, False)) == []
    assert router.said("b", Gone("b", 6, 0, "", 0, False, False)) == []
    after = start(router, "b", -1, "a")
    assert after not in before
    assert router.said("a", Started(after, 2, 2)) == [Tell("b", Started(-1, 2, 2))]


def test_a_host_that_was_never_there_can_be_missed(router: Router) -> None:
    assert router.host_down("c", "no route") == []
    assert router.news()[0] == [HostState("c", 0, "", 0, 0, "no route")]


def test_a_host_that_is_gone_for_no_reason_is_gone_all_the_same(router: Router) -> None:
    router.host_down("b", "")
    assert not router.is_up("b")


def test_nothing_is_kept_of_who_came_and_went(router: Router) -> None:
    for round_ in range(100):
        number = start(router, "a", -round_, "b")
        start(router, "b", -round_, "a")
        router.said("a", Watch("b", number))
        router.said("b", Watch("a", number))
        router.host_down("b", REMOVED)
        for call in list(router._calls):
            router.said("a", Exited(call, 0, True, False))
        router.host_up(up("b"))
        router.news()
    assert not router._calls
    assert not router._numbers
    assert not router._watched


# News


def heard(steps: list[Tell]) -> dict[str, list[HostState]]:
    found: dict[str, list[HostState]] = {}
    for step in steps:
        assert isinstance(step.request, News)
        found.setdefault(step.host, []).extend(decode_news(step.request))
    return found


def test_news_go_once_to_all_and_whole_to_who_is_new() -> None:
    router = Router()
    for name in (ROOT_HOST, "a"):
        router.host_up(up(name))
    router.news()
    for name in ("b", "c"):
        router.host_up(up(name))
    router.host_down("d", "no route")
    assert router.has_news
    changed, steps = router.news()
    assert [state.name for state in changed] == ["b", "c", "d"]
    names = {host: [state.name for state in states] for host, states in heard(steps).items()}
    every = [ROOT_HOST, "a", "b", "c", "d"]
    assert names == {"a": ["b", "c", "d"], "b": every, "c": every}
    assert not router.has_news
    assert router.news() == ([], [])


def test_how_many_run_where_is_news(router: Router) -> None:
    for count in (1, 2, 3):
        router.said("b", Running(count))
    changed, steps = router.news()
    assert [(state.name, state.running) for state in changed] == [("b", 3)]
    assert set(heard(steps)) == {"a", "b"}
    router.host_down("b", "cut")
    assert router.said("b", Running(4)) == []
    ((state,), _) = router.news()
    assert (state.running, state.down) == (0, "cut")


def test_the_root_s_host_is_not_told_but_writes_it_down(router: Router) -> None:
    router.said(ROOT_HOST, Running(1))
    changed, steps = router.news()
    assert [state.name for state in changed] == [ROOT_HOST]
    assert {step.host for step in steps} == {"a", "b"}


@examples(100)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["up", "down", "run", "news"]))))
def test_whoever_hears_all_news_knows_all_hosts(events: list[tuple[str, str]]) -> None:
    """Whatever comes and goes, and whenever it is told."""
    router = Router()
    router.host_up(up(ROOT_HOST))
    known: dict[str, dict[str, HostState]] = {ROOT_HOST: {}}
    counts: Counter[str] = Counter()

    def spread() -> None:
        changed, steps = router.news()
        known[ROOT_HOST].update({state.name: state for state in changed})
        for host, states in heard(steps).items():
            known[host].update({state.name: state for state in states})

    for name, event in events:
        if event == "up" and not router.is_up(name):
            router.host_up(up(name))
            known[name] = {}
        elif event == "down" and router.is_up(name):
            router.host_down(name, "cut")
            del known[name]
        elif event == "run":
            counts[name] += 1
            router.said(name, Running(counts[name]))
        elif event == "news":
            spread()
    spread()
    for host, states in known.items():
        assert states == known[ROOT_HOST], host
