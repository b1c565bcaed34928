"""`link_frames`: how streams share one stream of bytes, cut anywhere, garbled in any way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel import ProtocolError
from parallel._wire.link_frames import (
    HEADER,
    MAX_DATA,
    MAX_MESSAGE,
    Kind,
    LinkFrame,
    LinkReader,
    encode,
)

from .support import examples

numbers = st.integers(0, (1 << 64) - 1)
without_bytes = st.builds(
    lambda kind, stream, number: LinkFrame(kind, stream, number, b""),
    st.sampled_from([kind for kind in Kind if kind not in (Kind.MESSAGE, Kind.DATA)]),
    numbers,
    numbers,
)
with_bytes = st.builds(
    lambda kind, stream, body: LinkFrame(kind, stream, len(body), body),
    st.sampled_from([Kind.MESSAGE, Kind.DATA]),
    numbers,
    st.binary(min_size=1, max_size=100),
)
frames = st.lists(without_bytes | with_bytes, max_size=10)
cuttings = st.lists(st.integers(1, 60), min_size=1, max_size=20)


def as_bytes(frames: list[LinkFrame]) -> bytes:
    return b"".join(
        encode(frame.kind, frame.stream, frame.number) + bytes(frame.body) for frame in frames
    )


def in_pieces(stream: bytes, cuts: list[int]) -> Iterator[bytes]:
    position = turn = 0
    while position < len(stream):
        size = cuts[turn % len(cuts)]
        yield stream[position : position + size]
        position += size
        turn += 1


def read(stream: bytes, cuts: list[int]) -> Iterator[LinkFrame]:
    reader = LinkReader()
    for piece in in_pieces(stream, cuts):
        yield from reader.feed(piece)


def joined(frames: Iterator[LinkFrame]) -> list[LinkFrame]:
    """Neighbouring pieces of one stream's data as one."""
    found: list[LinkFrame] = []
    for kind, stream, number, body in frames:
        if found and kind is found[-1].kind is Kind.DATA and stream == found[-1].stream:
            _, _, before, text = found.pop()
            found.append(LinkFrame(kind, stream, before + number, bytes(text) + bytes(body)))
        else:
            found.append(LinkFrame(kind, stream, number, bytes(body)))
    return found


@examples(200)
@given(frames, cuttings)
def test_frames_cut_anywhere_arrive_as_they_were_sent(
    sent: list[LinkFrame], cuts: list[int]
) -> None:
    assert joined(read(as_bytes(sent), cuts)) == joined(iter(sent))


@examples(300)
@given(st.binary(max_size=300), cuttings)
def test_any_garbage_gives_frames_or_one_error(stream: bytes, cuts: list[int]) -> None:
    try:
        for frame in read(stream, cuts):
            assert frame.kind in Kind
            assert len(frame.body) <= len(stream)
    except ProtocolError:
        pass


def test_the_bytes_of_a_stream_are_passed_on_as_they_come() -> None:
    reader = LinkReader()
    assert list(reader.feed(encode(Kind.DATA, 2, MAX_DATA))) == []
    for _ in range(MAX_DATA // 1024):
        (frame,) = reader.feed(b"x" * 1024)
        assert frame == LinkFrame(Kind.DATA, 2, 1024, b"x" * 1024)
        assert not reader._held
    assert list(reader.feed(encode(Kind.PING, 0, 7))) == [LinkFrame(Kind.PING, 0, 7, b"")]


def test_a_message_comes_as_a_whole() -> None:
    reader = LinkReader()
    body = b"x" * MAX_MESSAGE
    stream = encode(Kind.MESSAGE, 0, len(body)) + body
    for start in range(0, len(stream) - 1, 1 << 16):
        assert list(reader.feed(stream[start : min(start + (1 << 16), len(stream) - 1)])) == []
    assert list(reader.feed(stream[-1:])) == [LinkFrame(Kind.MESSAGE, 0, len(body), body)]


@pytest.mark.parametrize(
    "header",
    [
        HEADER.pack(0, 2, 0),
        HEADER.pack(99, 2, 0),
        encode(Kind.MESSAGE, 0, MAX_MESSAGE + 1),
        encode(Kind.DATA, 2, MAX_DATA + 1),
        encode(Kind.DATA, 2, (1 << 64) - 1),
        encode(Kind.DATA, 2, 0),
    ],
)
def test_what_begins_no_frame_is_refused_before_more_comes(header: bytes) -> None:
    with pytest.raises(ProtocolError, match=header.hex()):
        list(LinkReader().feed(header))
