"""`news`: what hosts are told of each other, in messages of a bounded size."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel import ProtocolError
from parallel._wire.link_frames import MAX_MESSAGE
from parallel._wire.news import HostState, decode_news, encode_news
from parallel._wire.requests import News, encode_body

from .support import examples, json_values

numbers = st.integers(0, 1 << 32)
states = st.builds(
    HostState, st.text(max_size=20), numbers, st.text(max_size=9), numbers, numbers, st.text()
)


@examples(100)
@given(st.lists(states, max_size=20))
def test_what_is_told_is_what_is_heard(hosts: list[HostState]) -> None:
    heard = [state for news in encode_news(hosts) for state in decode_news(news)]
    assert heard == [state._replace(down=state.down[:200]) for state in hosts]


def test_of_nothing_there_are_no_news() -> None:
    assert list(encode_news([])) == []


def test_any_number_of_hosts_with_any_story_fits_into_the_messages_of_a_link() -> None:
    story = HostState("\N{SNOWMAN}" * 21, 1 << 32, "3" * 30, 1 << 32, 1 << 32, "\0" * 100_000)
    hosts = [story._replace(pid=number) for number in range(4096)]
    messages = list(encode_news(hosts))
    assert max(len(encode_body(news)) for news in messages) < MAX_MESSAGE
    assert len(messages) < 20
    assert [state.pid for news in messages for state in decode_news(news)] == list(range(4096))


@examples(200)
@given(json_values | st.lists(st.lists(json_values, max_size=7)))
@pytest.mark.slow
def test_any_json_is_news_or_an_error(value: object) -> None:
    try:
        hosts = decode_news(News(json.dumps(value)))
    except ProtocolError:
        return
    assert list(encode_news(hosts))[:1] or not hosts


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[" * 100_000,
        "null",
        "[1]",
        '[["host0"]]',
        '[["host0", "4", "3.11", 1, 0, ""]]',
        '[["host0", 4.0, "3.11", 1, 0, ""]]',
        '[["host0", true, "3.11", 1, 0, ""]]',
        '[[["host0"], 4, "3.11", 1, 0, ""]]',
        '[["host0", 4, "3.11", 1, 0, "", 7, 8]]',
    ],
)
def test_news_that_make_no_sense_are_one_error(text: str) -> None:
    with pytest.raises(ProtocolError, match="news that make no sense"):
        decode_news(News(text))
