"""`greetings`: who speaks, and why somebody stopped; or one error."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel import ProtocolError
from parallel._wire.greetings import (
    Peer,
    Reset,
    decode_peer,
    decode_reset,
    encode_peer,
    encode_reset,
)

from . import support

texts = st.text(max_size=100)
vias = st.lists(texts, max_size=3).map(tuple)
reasons = st.sampled_from(["failed", "cancelled", "slow", "abandoned"])
NONSENSE = [
    b"",
    b"{}",
    b"[]",
    b"null",
    b"[" * 60_000,
    b"\xff\xfe",
    b'{"host": "h", "process": "x", "pid": 1, "name": "n", "via": []}',
    b'{"host": "h", "process": 1, "pid": 1, "name": "n", "via": 1}',
    b'{"host": "h", "process": 1, "pid": 1, "name": "n"}',
    b'{"host": "h", "process": Infinity, "pid": 1, "name": "n"}',
    b'{"host": "h", "process": NaN, "pid": 1, "name": "n"}',
    b'["tired", "of it"]',
    b'["failed"]',
    b'["failed", "a", "b"]',
    b'[["failed"], ""]',
]


@support.examples(100)
@given(st.builds(Peer, texts, st.integers(0, 1 << 64), st.integers(0, 1 << 31), texts, vias))
def test_a_greeting_arrives_as_it_was_sent(peer: Peer) -> None:
    assert decode_peer(encode_peer(peer)) == peer


@support.examples(100)
@given(st.builds(Reset, reasons, texts))
def test_a_reset_arrives_as_it_was_sent(reset: Reset) -> None:
    assert decode_reset(encode_reset(reset)) == reset


def test_a_text_without_end_is_cut() -> None:
    reset = decode_reset(encode_reset(Reset("failed", "x" * 1_000_000)))
    assert reset == Reset("failed", "x" * 10_000)


def test_a_body_in_memory_of_its_own_is_read_too() -> None:
    peer = Peer("root", 3, 4, "f")
    assert decode_peer(bytearray(encode_peer(peer))) == peer
    assert decode_reset(memoryview(encode_reset(Reset("slow")))) == Reset("slow")


@pytest.mark.parametrize("body", NONSENSE)
def test_what_is_no_greeting_is_one_error(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="a greeting that makes no sense"):
        decode_peer(body)


@pytest.mark.parametrize("body", NONSENSE)
def test_what_is_no_reset_is_one_error(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="a reset that makes no sense"):
        decode_reset(body)


peers = st.fixed_dictionaries(
    dict.fromkeys(("host", "process", "pid", "name", "via"), support.json_values)
)


bodies = (support.json_values | peers).map(lambda value: json.dumps(value).encode())


@support.examples(100)
@given(st.binary(max_size=100) | bodies)
def test_any_garbage_is_understood_or_one_error(body: bytes) -> None:
    for decode, kind in ((decode_peer, Peer), (decode_reset, Reset)):
        try:
            assert isinstance(decode(body), kind)
        except ProtocolError:
            pass
