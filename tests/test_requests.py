"""`requests`: what a client and its fork server say, cut anywhere, garbled in any way."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel import ProtocolError
from parallel._wire.requests import (
    HEADER,
    MAX_REQUEST,
    Cut,
    Exited,
    Failed,
    NotReady,
    Refused,
    Request,
    RequestReader,
    Words,
    decode,
    encode,
    encode_body,
)

from . import support

numbers = st.integers(0, 1 << 64)
texts = st.text(max_size=50)
floats = st.floats(0, 1e9)
OF_TYPE: dict[str, st.SearchStrategy[object]] = {
    "int": numbers | st.integers(-(1 << 40), -1),
    "str": texts,
    "bool": st.booleans(),
    "float | None": st.none() | floats,
    "int | None": st.none() | st.integers(-64, 255),
}


def requests_of(kind: type[Request]) -> st.SearchStrategy[Request]:
    return st.builds(kind, *(OF_TYPE[text_of(type_)] for type_ in kind.__annotations__.values()))


def text_of(annotation: object) -> str:
    return str(getattr(annotation, "__forward_arg__", annotation))


KINDS = get_args(Request)
requests = st.one_of([requests_of(kind) for kind in KINDS])
cuttings = st.lists(st.integers(1, 200), min_size=1, max_size=20)


def in_pieces(stream: bytes, cuts: list[int]) -> Iterator[bytes]:
    position = turn = 0
    while position < len(stream):
        size = cuts[turn % len(cuts)]
        yield stream[position : position + size]
        position += size
        turn += 1


def read(stream: bytes, cuts: list[int]) -> Iterator[Request]:
    reader = RequestReader()
    for piece in in_pieces(stream, cuts):
        reader.feed(piece)
        while (item := reader.next()) is not None:
            yield item[0]


def body(*values: object) -> bytes:
    return json.dumps(values).encode()


@support.examples(200)
@given(st.lists(requests, max_size=8), cuttings)
def test_requests_cut_anywhere_arrive_as_they_were_sent(
    sent: list[Request], cuts: list[int]
) -> None:
    stream = b"".join(encode(request) for request in sent)
    got = list(read(stream, cuts))
    assert got == sent
    assert [type(request) for request in got] == [type(request) for request in sent]


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_of_any_kind_is_read_as_it_was_said(kind: type[Request]) -> None:
    @support.examples(10)
    @given(requests_of(kind))
    def check(request: Request) -> None:
        assert decode(encode_body(request)) == request
        assert type(decode(encode_body(request))) is kind

    check()


@support.examples(300)
@given(st.binary(max_size=300), cuttings)
def test_any_garbage_gives_requests_or_one_error(stream: bytes, cuts: list[int]) -> None:
    try:
        for request in read(stream, cuts):
            assert isinstance(request, KINDS)
    except ProtocolError:
        pass


names = st.sampled_from([kind.__name__ for kind in KINDS])


named = st.builds(
    lambda name, rest: [name, *rest], names, st.lists(support.json_values, max_size=6)
)


@support.examples(100)
@given(support.json_values | named)
def test_any_json_is_a_request_or_an_error(value: object) -> None:
    text = json.dumps(value).encode()
    try:
        request = decode(text)
    except ProtocolError:
        return
    assert encode(request)  # whatever passes can be passed on


@support.examples(200)
@given(st.lists(requests, min_size=1, max_size=4), cuttings, st.data())
def test_a_flipped_byte_leaves_the_requests_before_it_alone(
    sent: list[Request], cuts: list[int], data: st.DataObject
) -> None:
    stream = bytearray(b"".join(encode(request) for request in sent))
    place = data.draw(st.integers(0, len(stream) - 1))
    stream[place] ^= data.draw(st.integers(1, 255))
    got: list[Request] = []
    try:
        got.extend(read(bytes(stream), cuts))
    except ProtocolError:
        pass
    position = 0
    for index, request in enumerate(sent):
        position += len(encode(request))
        if position <= place and index < len(got):
            assert got[index] == request


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"[" * 60_000,
        b'["Start"]',
        b'["Start", 1, "root", "f"]',
        b'["Start", 1, "root", "f", "", 0, 2]',
        b'["Start", "1", "root", "f", "", 0]',
        b'["Nothing", 1]',
        b'[["Start"], 1, "root", "f", "", 0]',
        b'["Watch", "root", 1.0]',
        b'["Watch", "root", null]',
        b'["Watch", 1, "root"]',
        b'["Cancel", 1, NaN]',
        b'["Watch", "root", ' + b"9" * 5000 + b"]",
        b"\xff\xfe",
    ],
)
def test_a_body_that_makes_no_sense_is_one_error(text: bytes) -> None:
    with pytest.raises(ProtocolError, match="a request that makes no sense"):
        decode(text)


def test_a_request_that_announces_too_much_is_refused_before_it_comes() -> None:
    reader = RequestReader()
    reader.feed(HEADER.pack(MAX_REQUEST + 1, 0))
    with pytest.raises(ProtocolError, match=str(MAX_REQUEST + 1)):
        reader.next()


def test_whatever_can_be_said_can_be_read() -> None:
    for request in (
        NotReady("\N{SNOWMAN}" * 30_000),
        Refused(1, "\N{SNOWMAN}" * 30_000),
        Cut("\N{SNOWMAN}" * 30_000),
        Words(1, "\N{SNOWMAN}" * 30_000),
        Exited(1, 2, False, False, "\N{SNOWMAN}" * 30_000),
    ):
        reader = RequestReader()
        reader.feed(encode(request))
        item = reader.next()
        assert item is not None
        assert type(item[0]) is type(request)


def test_each_request_takes_its_own_descriptors_in_order() -> None:
    reader = RequestReader()
    reader.descriptors.extend([10, 11, 12])
    reader.feed(encode(Failed(1), 1) + encode(Failed(2)) + encode(Failed(3), 2))
    assert reader.next() == (Failed(1), [10])
    assert reader.next() == (Failed(2), [])
    assert reader.next() == (Failed(3), [11, 12])
    assert reader.next() is None


def test_a_descriptor_that_did_not_come_leaves_the_list_short() -> None:
    reader = RequestReader()
    reader.descriptors.append(10)
    reader.feed(encode(Failed(1), 2))
    assert reader.next() == (Failed(1), [10])


def test_descriptors_of_nobody_are_closed() -> None:
    near, far = os.pipe()
    reader = RequestReader()
    reader.descriptors.extend([near, far])
    reader.lose_descriptors()
    for descriptor in (near, far):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
