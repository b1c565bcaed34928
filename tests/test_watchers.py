"""`watchers`: who hears of whose end, at once or when it asks too late."""

from __future__ import annotations

import pytest

from parallel._host.instruction import Send
from parallel._host.watchers import Watchers
from parallel._wire.requests import Gone, HostDown


def gone(host: str, number: int) -> Gone:
    return Gone(host, number, 1000 + number, f"f{number}", -11, False, False)


@pytest.fixture
def watchers() -> Watchers:
    return Watchers("root")


def test_each_watcher_is_told_once(watchers: Watchers) -> None:
    for watcher in (1, 2, 1):
        watchers.watch(watcher, 7)
    watchers.watch(3, 8)
    assert watchers.died(gone("root", 7)) == [Send(1, gone("root", 7)), Send(2, gone("root", 7))]
    assert watchers.died(gone("root", 7)) == []
    assert watchers.died(gone("root", 8)) == [Send(3, gone("root", 8))]


def test_what_became_of_the_dead_is_known_whether_or_not_somebody_watched(
    watchers: Watchers,
) -> None:
    watchers.watch(1, 7)
    for number in (7, 8):
        watchers.died(gone("root", number))
        assert watchers.fate(number) == gone("root", number)


def test_what_never_was_is_gone(watchers: Watchers) -> None:
    assert watchers.fate(99) == Gone("root", 99, 0, "", None, False, False)


def test_of_the_dead_the_last_are_remembered(watchers: Watchers) -> None:
    for number in range(5000):
        watchers.watch(1, number)
        watchers.died(gone("root", number))
    assert watchers.fate(4999 - 500) == gone("root", 4999 - 500)
    assert watchers.fate(4999 - 1000).returncode is None
    assert len(watchers._fates) <= 1000
    assert not watchers._here


def test_who_watches_elsewhere_is_told_once(watchers: Watchers) -> None:
    for watcher in (1, 2):
        watchers.watch_elsewhere(watcher, "host0", 7)
    assert watchers.gone(gone("host0", 8)) == []
    assert watchers.gone(gone("host1", 7)) == []
    assert watchers.gone(gone("host0", 7)) == [
        Send(1, gone("host0", 7)),
        Send(2, gone("host0", 7)),
    ]
    assert watchers.gone(gone("host0", 7)) == []


def test_with_a_host_goes_what_was_watched_there_and_nothing_else(watchers: Watchers) -> None:
    watchers.watch_elsewhere(1, "host0", 7)
    watchers.watch_elsewhere(1, "host0", 8)
    watchers.watch_elsewhere(2, "host1", 7)
    assert watchers.hosts() == {"host0", "host1"}
    down = HostDown("host0", "cut")
    assert watchers.host_down(down) == [Send(1, down), Send(1, down)]
    assert watchers.host_down(down) == []
    assert watchers.hosts() == {"host1"}


def test_nothing_that_is_heard_from_elsewhere_concerns_this_host(watchers: Watchers) -> None:
    watchers.watch(1, 7)
    assert watchers.hosts() == set()
    assert watchers.gone(gone("root", 7)) == []
    assert watchers.host_down(HostDown("root", "cut")) == []
    assert watchers.died(gone("root", 7)) == [Send(1, gone("root", 7))]
