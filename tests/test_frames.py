"""`frames`: however a stream is cut, the same frames; whatever comes, frames or one error."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel import MessageTooLarge, ProtocolError
from parallel._wire.frames import (
    HEADER,
    HEADER_SIZE,
    LARGE,
    MAGIC,
    MAX_BUFFERS,
    READ_SIZE,
    UNLIMITED,
    Frame,
    FrameReader,
    Kind,
    allocate,
    encode,
)

from .support import examples, resident_memory

MIB = 1 << 20


@dataclass(frozen=True)
class Plain:
    """A frame as somebody wants to send it."""

    kind: Kind
    body: bytes
    buffers: tuple[bytes, ...] = ()
    descriptors: int = 0

    @property
    def encoded(self) -> bytes:
        head = encode(self.kind, self.body, [len(part) for part in self.buffers], self.descriptors)
        return head + b"".join(self.buffers)


def plain(frame: Frame) -> Plain:
    buffers = tuple(bytes(part) for part in frame.buffers)
    return Plain(frame.kind, bytes(frame.body), buffers, len(frame.descriptors))


def deliver(
    reader: FrameReader, stream: bytes, cuts: Iterator[int], small_first: bool = True
) -> Iterator[Frame]:
    """What a driver does: read so many bytes at a time, into `target` where there is one."""
    position = 0
    while position < len(stream):
        size = min(max(next(cuts), 1), READ_SIZE)
        if reader.target is not None:
            size = min(size, len(reader.target), len(stream) - position)
            reader.target[:size] = stream[position : position + size]
            reader.filled(size)
        else:
            reader.feed(stream[position : position + size])
        position += size
        while (frame := take(reader, small_first)) is not None:
            yield frame


def take(reader: FrameReader, small_first: bool) -> Frame | None:
    """The next frame, with or without trying the short way for small messages first."""
    body = reader.next_small() if small_first else None
    return reader.next() if body is None else Frame(Kind.MESSAGE, body, (), [])


def for_ever(cuts: Sequence[int]) -> Iterator[int]:
    while True:
        yield from cuts


def data_of(size: int) -> bytes:
    return bytes(number % 251 for number in range(size))


sizes = st.one_of(
    st.integers(0, 40),
    st.sampled_from([READ_SIZE - 1, READ_SIZE, READ_SIZE + 1, 3 * READ_SIZE]),
)
contents = st.one_of(st.binary(max_size=60), sizes.map(data_of))
frames = st.builds(
    Plain,
    st.sampled_from(Kind),
    contents,
    st.lists(contents, max_size=4).map(tuple),
    st.integers(0, 3),
)
cuttings = st.lists(
    st.one_of(st.integers(1, 40), st.integers(1, READ_SIZE)), min_size=1, max_size=20
)


def reader_with_descriptors(count: int = 1000, max_size: int = UNLIMITED) -> FrameReader:
    reader = FrameReader(max_size)
    reader.descriptors.extend(range(count))
    return reader


@examples(100)
@given(st.lists(frames, max_size=6), cuttings, st.booleans())
def test_frames_cut_anywhere_arrive_as_they_were_sent(
    sent: list[Plain], cuts: list[int], small_first: bool
) -> None:
    reader = reader_with_descriptors()
    stream = b"".join(frame.encoded for frame in sent)
    # One byte at a time through a large stream proves no more than through its first part.
    steps = for_ever(cuts if len(stream) < 2000 else [*cuts, READ_SIZE])
    assert [plain(frame) for frame in deliver(reader, stream, steps, small_first)] == sent
    assert reader.buffered == 0
    assert reader.target is None


@examples(100)
@given(st.lists(st.builds(Plain, st.sampled_from(Kind), st.binary(max_size=30)), max_size=5))
def test_a_stream_that_comes_byte_by_byte_is_no_different(sent: list[Plain]) -> None:
    reader = FrameReader()
    stream = b"".join(frame.encoded for frame in sent)
    assert [plain(frame) for frame in deliver(reader, stream, for_ever([1]))] == sent


@examples(50)
@given(st.lists(frames, min_size=1, max_size=4), cuttings, st.data())
def test_a_stream_that_stops_gives_the_frames_that_are_complete(
    sent: list[Plain], cuts: list[int], data: st.DataObject
) -> None:
    stream = b"".join(frame.encoded for frame in sent)
    end = data.draw(st.integers(0, len(stream) - 1))
    reader = reader_with_descriptors()
    got = [plain(frame) for frame in deliver(reader, stream[:end], for_ever([*cuts, READ_SIZE]))]
    assert got == sent[: len(got)]
    assert len(b"".join(frame.encoded for frame in sent[: len(got) + 1])) > end
    reader.finish()
    assert reader.next() is None


@examples(100)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), cuttings)
def test_each_frame_takes_its_own_descriptors_in_order(counts: list[int], cuts: list[int]) -> None:
    reader = reader_with_descriptors(sum(counts))
    stream = b"".join(Plain(Kind.MESSAGE, b"x", (), count).encoded for count in counts)
    taken = [frame.descriptors for frame in deliver(reader, stream, for_ever(cuts))]
    assert [len(numbers) for numbers in taken] == counts
    assert [number for numbers in taken for number in numbers] == list(range(sum(counts)))


def frames_or_error(stream: bytes, cuts: list[int], max_size: int) -> list[Plain]:
    """Deliver what may be garbage; nothing but our two errors may come of it."""
    got, error = outcome(stream, cuts, max_size, small_first=False)
    assert outcome(stream, cuts, max_size, small_first=True) == (got, error)
    # A frame cannot have more in it than came; only what is under way may be larger.
    assert sum(len(frame.encoded) for frame in got) <= len(stream)
    return got


def outcome(
    stream: bytes, cuts: list[int], max_size: int, *, small_first: bool
) -> tuple[list[Plain], str]:
    reader = reader_with_descriptors(10, max_size)
    got: list[Plain] = []
    try:
        for frame in deliver(reader, stream, for_ever([*cuts, READ_SIZE]), small_first):
            got.append(plain(frame))
    except (ProtocolError, MessageTooLarge) as exc:
        return got, repr(exc)
    return got, ""


@examples(200)
@given(st.binary(max_size=400), cuttings)
def test_any_garbage_gives_frames_or_one_error(stream: bytes, cuts: list[int]) -> None:
    frames_or_error(stream, cuts, UNLIMITED)


headers = st.builds(
    HEADER.pack,
    st.just(MAGIC),
    st.integers(0, 15),
    st.integers(0, 5),
    st.one_of(st.integers(0, 5), st.integers(0, MAX_BUFFERS)),
    st.one_of(st.integers(0, 100), st.integers(0, (1 << 64) - 1)),
)


@examples(200)
@given(headers, st.binary(max_size=200), cuttings, st.sampled_from([1000, UNLIMITED]))
def test_any_header_gives_frames_or_one_error(
    header: bytes, rest: bytes, cuts: list[int], max_size: int
) -> None:
    frames_or_error(header + rest, cuts, max_size)


@examples(100)
@given(st.lists(frames, min_size=1, max_size=4), cuttings, st.data())
def test_a_flipped_byte_leaves_the_frames_before_it_alone(
    sent: list[Plain], cuts: list[int], data: st.DataObject
) -> None:
    stream = bytearray(b"".join(frame.encoded for frame in sent))
    place = data.draw(st.integers(0, len(stream) - 1))
    stream[place] ^= data.draw(st.integers(1, 255))
    got = frames_or_error(bytes(stream), cuts, UNLIMITED)
    position = 0
    for index, frame in enumerate(sent):
        position += len(frame.encoded)
        if position > place:
            break
        assert got[index] == frame


def test_bytes_that_are_no_frame_are_named() -> None:
    reader = FrameReader()
    reader.feed(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    with pytest.raises(ProtocolError, match=b"GET ".hex()):
        reader.next()


def test_an_unknown_kind_is_an_error() -> None:
    reader = FrameReader()
    reader.feed(HEADER.pack(MAGIC, 200, 0, 0, 0))
    with pytest.raises(ProtocolError):
        reader.next()


def test_descriptors_that_did_not_come_are_an_error() -> None:
    reader = reader_with_descriptors(1)
    reader.feed(Plain(Kind.CLONE, b"", (), 2).encoded)
    with pytest.raises(ProtocolError, match="2 descriptors announced, 1 came"):
        reader.next()


@pytest.mark.parametrize("size", [1 << 30, 1 << 40, 1 << 46])
def test_a_header_that_announces_much_takes_no_memory_for_it(size: int) -> None:
    reader = FrameReader()
    before = resident_memory()
    reader.feed(HEADER.pack(MAGIC, Kind.MESSAGE, 0, 0, size) + bytes(1000))
    with contextlib.suppress(ProtocolError):  # where the kernel promises no more than it has
        assert reader.next() is None
    assert resident_memory() - before < 32 * MIB


def test_buffers_that_are_announced_take_no_memory_before_they_come() -> None:
    reader = FrameReader()
    before = resident_memory()
    reader.feed(encode(Kind.MESSAGE, b"body", [1 << 30] * 1000))
    assert reader.next() is None
    assert resident_memory() - before < 32 * MIB


def test_more_than_any_message_can_have_is_an_error() -> None:
    reader = FrameReader()
    reader.feed(HEADER.pack(MAGIC, Kind.MESSAGE, 0, 0, (1 << 64) - 1))
    with pytest.raises(ProtocolError, match="18446744073709551615 bytes"):
        reader.next()


@pytest.mark.parametrize(("body", "buffers"), [(101, ()), (0, (101,)), (50, (25, 26))])
def test_a_message_over_the_limit_is_refused_before_it_comes(
    body: int, buffers: tuple[int, ...]
) -> None:
    reader = FrameReader(max_size=100)
    reader.feed(encode(Kind.MESSAGE, bytes(body), buffers)[: HEADER_SIZE + 8 * len(buffers)])
    with pytest.raises(MessageTooLarge) as caught:
        reader.next()
    assert (caught.value.size, caught.value.limit) == (101, 100)


@pytest.mark.parametrize("kind", [Kind.SETTINGS, Kind.RAISED, Kind.HELLO])
def test_only_messages_and_results_are_limited(kind: Kind) -> None:
    sent = Plain(kind, bytes(1000))
    reader = FrameReader(max_size=100)
    assert [plain(frame) for frame in deliver(reader, sent.encoded, for_ever([7]))] == [sent]


@pytest.mark.parametrize(("body", "buffers"), [(100, ()), (0, (100,)), (50, (25, 25))])
def test_a_message_of_just_the_limit_passes(body: int, buffers: tuple[int, ...]) -> None:
    sent = Plain(Kind.MESSAGE, bytes(body), tuple(map(bytes, buffers)))
    reader = FrameReader(max_size=100)
    assert [plain(frame) for frame in deliver(reader, sent.encoded, for_ever([7]))] == [sent]


def test_a_large_buffer_is_read_straight_into_the_place_where_it_stays() -> None:
    reader = FrameReader()
    content = data_of(READ_SIZE) * 40
    reader.feed(encode(Kind.MESSAGE, b"body", [len(content)]) + content[:100])
    assert reader.next() is None
    target = reader.target
    assert target is not None
    assert len(target) == len(content) - 100
    target[:] = content[100:]
    reader.filled(len(target))
    frame = reader.next()
    assert frame is not None
    (buffer,) = frame.buffers
    view = memoryview(buffer)
    assert view[100:] == content[100:]
    target[0] ^= 0xFF
    assert view[100] == content[100] ^ 0xFF


def test_buffered_counts_what_belongs_to_no_finished_frame() -> None:
    reader = FrameReader()
    reader.feed(encode(Kind.MESSAGE, b"abc") + b"\x71")
    assert reader.next() is not None
    assert reader.buffered == 1


@pytest.mark.parametrize("size", [0, 1, LARGE - 1, LARGE, LARGE + 1])
def test_memory_for_a_part_is_writable_and_zero(size: int) -> None:
    part = allocate(size)
    assert len(part) == size
    assert isinstance(part, mmap.mmap if size >= LARGE else bytearray)
    view = memoryview(part)
    assert not view.readonly
    assert bytes(view[:100]) == bytes(min(size, 100))


def test_memory_that_is_not_to_be_had_is_an_error() -> None:
    with pytest.raises(ProtocolError, match="no memory"):
        allocate(1 << 62)
