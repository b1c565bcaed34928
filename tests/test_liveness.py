"""`liveness`: when the silence of a link means that it is dead, without a clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel._wire.liveness import LATE, MOMENT, Silence

from .support import examples


def live(silence: Silence, now: float) -> float:
    """Look whenever it was agreed; when it is dead."""
    while (pause := silence.look(now)) is not None:
        assert pause > 0
        now += pause
    return now


def test_silence_for_a_heartbeat_is_death() -> None:
    dead = live(Silence(10.0, 100.0), 100.0)
    assert 110.0 <= dead <= 110.0 + 2 * MOMENT


def test_whatever_is_heard_begins_a_new_heartbeat() -> None:
    silence = Silence(10.0, 0.0)
    for second in range(0, 100, 9):
        assert silence.look(float(second)) is not None
        silence.heard(float(second))
    assert 109.0 <= live(silence, 99.0) <= 109.0 + 2 * MOMENT


def test_before_the_verdict_there_is_a_moment_to_read_what_has_come() -> None:
    silence = Silence(10.0, 0.0)
    assert silence.look(10.0) == pytest.approx(MOMENT)
    silence.heard(10.05)
    assert silence.look(10.0 + MOMENT) is not None
    assert live(silence, 10.1) > 20.0


def test_a_judge_that_was_stopped_judges_nothing() -> None:
    silence = Silence(10.0, 0.0)
    pause = silence.look(500.0)
    assert pause == 5.0
    silence.heard(501.0)
    assert silence.look(505.0) == 6.0


def test_a_judge_that_was_stopped_right_before_its_verdict_judges_nothing() -> None:
    silence = Silence(10.0, 0.0)
    silence.look(10.0)
    assert silence.look(10.0 + MOMENT + LATE + 1) == pytest.approx(5.0)


def test_a_judge_that_has_been_stopped_still_finds_the_dead() -> None:
    assert live(Silence(10.0, 0.0), 500.0) <= 505.0 + 2 * MOMENT


@examples(200)
@given(
    st.floats(0.1, 100),
    st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.floats(0, LATE / 2)), max_size=30),
)
def test_nobody_dies_that_was_heard_within_a_heartbeat(
    heartbeat: float, times: list[tuple[float, bool, float]]
) -> None:
    """Looks may be a little late; there is something to hear at least once in a heartbeat."""
    silence = Silence(heartbeat, 0.0)
    now = last = 0.0
    for share, hears, late in times:
        pause = silence.look(now)
        assert pause is not None
        due = now + pause
        when = last + heartbeat * share
        if hears and now <= when <= due:
            silence.heard(when)
            last = when
        now = due + late
        if now >= last + heartbeat:
            silence.heard(now)
            last = now
