"""`multiplexer`: the streams of a link: what is legal when, windows, limits, any bytes at all."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from parallel import ProtocolError
from parallel._wire.link_frames import HEADER, MAX_DATA, Kind, encode
from parallel._wire.multiplexer import (
    MAX_STREAMS,
    WINDOW,
    Chunk,
    Credit,
    Data,
    Ended,
    Event,
    Message,
    Multiplexer,
    Pong,
    Stopped,
)

from .support import examples
from .test_link_frames import in_pieces

OURS = 2
"""The first stream that side 0 opens."""

THEIRS = 3


def feed(side: Multiplexer, *chunks: Chunk) -> list[Event]:
    return [
        event._replace(data=memoryview(bytes(event.data))) if isinstance(event, Data) else event
        for event in side.feed(b"".join(chunks))
    ]


def data(stream: int, body: bytes) -> bytes:
    return encode(Kind.DATA, stream, len(body)) + body


def with_stream() -> Multiplexer:
    """Side 0, to which the other has just opened a stream."""
    side = Multiplexer(0)
    body = b"[]"
    events = feed(side, encode(Kind.OPEN, THEIRS, 0), encode(Kind.MESSAGE, 0, len(body)), body)
    assert events == [Message(body, [THEIRS])]
    return side


# The table of states, move by move

MOVES = {
    "DATA": data(THEIRS, b"x"),
    "END": encode(Kind.END, THEIRS, 0),
    "CREDIT": encode(Kind.CREDIT, THEIRS, 5),
    "RESET": encode(Kind.RESET, THEIRS, 0),
}


@pytest.mark.parametrize(
    ("state", "move", "expected"),
    [
        ("open", "DATA", Data(THEIRS, memoryview(b"x"), [])),
        ("open", "END", Ended(THEIRS)),
        ("stopped", "DATA", Data(THEIRS, memoryview(b"x"), [])),
        ("stopped", "END", Ended(THEIRS)),
        ("ended", "DATA", ProtocolError),
        ("ended", "END", ProtocolError),
        ("gone", "DATA", ProtocolError),
        ("gone", "END", ProtocolError),
    ],
)
def test_what_the_sender_of_a_direction_may_do(state: str, move: str, expected: object) -> None:
    side = with_stream()
    if state == "stopped":
        assert side.stop(THEIRS)
    if state in ("ended", "gone"):
        feed(side, MOVES["END"])
    if state == "gone":
        assert side.end(THEIRS)
        assert not side.is_open(THEIRS)
    check(side, move, expected)


@pytest.mark.parametrize(
    ("state", "move", "expected"),
    [
        ("open", "CREDIT", Credit(THEIRS, 5)),
        ("open", "RESET", Stopped(THEIRS)),
        ("stopped", "CREDIT", None),
        ("stopped", "RESET", ProtocolError),
        ("ended", "CREDIT", None),
        ("ended", "RESET", None),
        ("gone", "CREDIT", None),
        ("gone", "RESET", None),
    ],
)
def test_what_the_receiver_of_a_direction_may_do(state: str, move: str, expected: object) -> None:
    side = with_stream()
    if state == "stopped":
        feed(side, MOVES["RESET"])
    if state in ("ended", "gone"):
        assert side.end(THEIRS)
    if state == "gone":
        feed(side, MOVES["END"])
        assert not side.is_open(THEIRS)
    check(side, move, expected)


def check(side: Multiplexer, move: str, expected: object) -> None:
    if expected is ProtocolError:
        with pytest.raises(ProtocolError, match=str(THEIRS)):
            feed(side, MOVES[move])
    else:
        assert feed(side, MOVES[move]) == ([] if expected is None else [expected])


def test_what_is_said_of_our_own_direction_and_when_nothing_is() -> None:
    side = with_stream()
    assert side.data(THEIRS, b"xyz") == [encode(Kind.DATA, THEIRS, 3), b"xyz"]
    assert side.data(THEIRS, b"") == []
    assert side.credit(THEIRS, 7) == encode(Kind.CREDIT, THEIRS, 7)
    assert side.stop(THEIRS) == encode(Kind.RESET, THEIRS, 0)
    assert side.stop(THEIRS) == b""
    assert side.may_send(THEIRS)
    feed(side, MOVES["RESET"])
    assert not side.may_send(THEIRS)
    assert side.data(THEIRS, b"xyz") == []
    assert side.end(THEIRS) == encode(Kind.END, THEIRS, 0)
    assert side.end(THEIRS) == b""
    feed(side, MOVES["END"])
    assert not side.is_open(THEIRS)
    for nothing in (side.credit(THEIRS, 1), side.stop(THEIRS), side.end(THEIRS)):
        assert nothing == b""


def test_who_has_heard_the_end_has_nothing_to_grant_or_to_stop() -> None:
    side = with_stream()
    feed(side, MOVES["END"])
    assert side.credit(THEIRS, 7) == side.stop(THEIRS) == b""
    assert side.may_send(THEIRS)


def test_large_data_is_cut_so_that_others_get_their_turn() -> None:
    side = with_stream()
    body = bytes(range(256)) * (MAX_DATA // 100)
    chunks = side.data(THEIRS, body)
    sizes = [HEADER.unpack(bytes(chunk))[2] for chunk in chunks[::2]]
    assert max(sizes) <= MAX_DATA
    assert b"".join(bytes(chunk) for chunk in chunks[1::2]) == body


# Opening


@pytest.mark.parametrize("stream", [0, 1, OURS, 4, THEIRS])
def test_a_stream_that_is_there_or_is_ours_to_open_is_refused(stream: int) -> None:
    with pytest.raises(ProtocolError, match=f"stream {stream} cannot be opened"):
        feed(with_stream(), encode(Kind.OPEN, stream, 0))


def test_a_number_is_never_used_again() -> None:
    side = with_stream()
    feed(side, MOVES["END"])
    side.end(THEIRS)
    with pytest.raises(ProtocolError, match="cannot be opened"):
        feed(side, encode(Kind.OPEN, THEIRS, 0))


@pytest.mark.parametrize("kind", [Kind.CREDIT, Kind.RESET, Kind.END, Kind.DATA])
@pytest.mark.parametrize("stream", [0, 1, OURS, 5, 1 << 40])
def test_of_a_stream_that_never_was_nothing_can_be_said(kind: Kind, stream: int) -> None:
    with pytest.raises(ProtocolError, match=f"there (is|was) no stream {stream}"):
        feed(with_stream(), encode(kind, stream, 1), b"x")


def test_streams_arrive_with_the_message_or_the_bytes_that_they_travel_beside() -> None:
    near, far = Multiplexer(0), Multiplexer(1)
    first, opened = near.open()
    assert feed(far, opened, *near.message(b"{}")) == [Message(b"{}", [first])]
    (second, open_second), (third, open_third) = near.open(first), near.open(first)
    (fourth, open_fourth) = near.open()
    assert feed(far, open_second, open_third, open_fourth) == []
    assert feed(far, *near.message(b"1")) == [Message(b"1", [fourth])]
    assert feed(far, *near.data(first, b"x"), *near.data(first, b"y")) == [
        Data(first, memoryview(b"x"), [second, third]),
        Data(first, memoryview(b"y"), []),
    ]
    assert far.count == near.count == 4


@pytest.mark.parametrize(
    "frames",
    [
        [encode(Kind.OPEN, 5, 7)],
        [encode(Kind.OPEN, 5, OURS)],
        [encode(Kind.END, THEIRS, 0), encode(Kind.OPEN, 5, THEIRS)],
        [encode(Kind.OPEN, 5, THEIRS), encode(Kind.END, THEIRS, 0)],
    ],
)
def test_what_travels_beside_nothing_is_refused(frames: list[bytes]) -> None:
    with pytest.raises(ProtocolError, match="stream"):
        feed(with_stream(), *frames)


def test_there_is_a_limit_of_streams() -> None:
    side = Multiplexer(0)
    numbers = range(3, 3 + 2 * MAX_STREAMS, 2)
    feed(side, *(encode(Kind.OPEN, number, 0) for number in numbers))
    assert side.count == MAX_STREAMS
    with pytest.raises(ProtocolError, match=str(MAX_STREAMS)):
        feed(side, encode(Kind.OPEN, numbers[-1] + 2, 0))


# Windows


def fill(side: Multiplexer, size: int) -> None:
    while size:
        piece = min(size, MAX_DATA)
        feed(side, data(THEIRS, b"x" * piece))
        size -= piece


def test_a_stream_may_send_a_window_and_not_a_byte_more() -> None:
    side = with_stream()
    fill(side, WINDOW)
    with pytest.raises(ProtocolError, match="more than it may"):
        fill(side, 1)


def test_credit_opens_the_window_again_by_just_as_much() -> None:
    side = with_stream()
    fill(side, WINDOW)
    side.credit(THEIRS, 1000)
    fill(side, 1000)
    with pytest.raises(ProtocolError, match="more than it may"):
        fill(side, 1)


def test_who_was_told_to_stop_has_no_more_room_than_before() -> None:
    side = with_stream()
    side.stop(THEIRS)
    fill(side, WINDOW)
    with pytest.raises(ProtocolError, match="more than it may"):
        fill(side, 1)


def test_the_bytes_of_a_frame_count_as_they_come() -> None:
    side = with_stream()
    fill(side, WINDOW - 10)
    header = encode(Kind.DATA, THEIRS, 20)
    assert feed(side, header, b"x" * 10) == [Data(THEIRS, memoryview(b"x" * 10), [])]
    with pytest.raises(ProtocolError, match="more than it may"):
        feed(side, b"x")


# Is anybody there?


def test_a_ping_is_answered_and_the_answer_heard() -> None:
    near, far = Multiplexer(0), Multiplexer(1)
    assert feed(far, near.ping(7)) == []
    assert feed(near, *far.answers) == [Pong(7)]


def test_a_flood_of_pings_has_one_answer() -> None:
    side = Multiplexer(0)
    for token in range(1000):
        feed(side, encode(Kind.PING, 0, token))
    assert side.answers == [encode(Kind.PONG, 0, 999)]


# Any bytes

kinds = st.sampled_from(list(Kind))
likely_streams = st.sampled_from([0, 1, 2, 3, 4, 5, 7, 9, 1 << 63])
likely_numbers = st.sampled_from([0, 1, 2, 3, 5, 20, MAX_DATA, WINDOW, 1 << 63])
likely = st.builds(encode, kinds, likely_streams, likely_numbers)
opens = st.builds(
    encode, st.just(Kind.OPEN), st.sampled_from([3, 5, 7, 9]), st.sampled_from([0, 3])
)
likely_data = st.builds(data, likely_streams, st.binary(min_size=1, max_size=50))
messages = st.binary(max_size=20).map(lambda b: encode(Kind.MESSAGE, 0, len(b)) + b)
garbage = st.lists(likely | likely_data | opens | messages | st.binary(max_size=40)).map(b"".join)


@examples(500)
@given(garbage, st.lists(st.integers(1, 60), min_size=1, max_size=20))
def test_any_bytes_give_events_or_one_error_and_are_not_kept(
    stream: bytes, cuts: list[int]
) -> None:
    side = Multiplexer(0)
    try:
        for piece in in_pieces(stream, cuts):
            for event in side.feed(piece):
                assert isinstance(event, Event)
            assert len(side._reader._held) <= len(stream)
            assert len(side.answers) <= 1
            assert sum(map(len, side._arrived.values())) <= side.count <= len(stream)
    except ProtocolError:
        pass


class Both(RuleBasedStateMachine):
    """Two sides that do whatever they may: both always agree, nothing is lost or out of order."""

    def __init__(self) -> None:
        super().__init__()
        self.sides = Multiplexer(0), Multiplexer(1)
        self.wires: tuple[list[Chunk], list[Chunk]] = ([], [])
        """What each side has sent and the other has not read."""
        self.sent: dict[tuple[int, int], list[bytes]] = {}
        self.got: dict[tuple[int, int], list[bytes]] = {}
        self.budget: dict[tuple[int, int], int] = {}
        self.announced: tuple[set[int], set[int]] = (set(), set())
        """Streams that each side knows of."""
        self.ended: set[tuple[int, int]] = set()
        self.counter = itertools.count()

    def pick(self, which: int, side: int) -> int | None:
        streams = sorted(self.announced[side])
        return streams[which % len(streams)] if streams else None

    def push(self, side: int, chunks: Iterable[Chunk]) -> None:
        self.wires[side].extend(chunk for chunk in chunks if chunk)

    def open(self, side: int, beside: int) -> None:
        stream, frame = self.sides[side].open(beside)
        self.push(side, [frame])
        self.announced[side].add(stream)

    @rule(side=st.integers(0, 1), streams=st.integers(0, 2))
    def message(self, side: int, streams: int) -> None:
        for _ in range(streams):
            self.open(side, 0)
        self.push(side, self.sides[side].message(b"{}"))

    @rule(side=st.integers(0, 1), which=st.integers(0, 9), size=st.integers(1, WINDOW // 2))
    def data(self, side: int, which: int, size: int) -> None:
        stream = self.pick(which, side)
        if stream is None or not self.sides[side].may_send(stream):
            return
        allowed = self.budget.setdefault((side, stream), WINDOW)
        size = min(size, allowed)
        if not size:
            return
        self.budget[side, stream] -= size
        if size % 5 == 0:
            self.open(side, stream)
        body = bytes([next(self.counter) % 256]) * size
        self.sent.setdefault((side, stream), []).append(body)
        self.push(side, self.sides[side].data(stream, body))

    @rule(side=st.integers(0, 1), which=st.integers(0, 9))
    def end(self, side: int, which: int) -> None:
        if (stream := self.pick(which, side)) is not None:
            self.ended.add((side, stream))
            self.push(side, [self.sides[side].end(stream)])

    @rule(side=st.integers(0, 1), which=st.integers(0, 9))
    def stop(self, side: int, which: int) -> None:
        if (stream := self.pick(which, side)) is not None:
            self.push(side, [self.sides[side].stop(stream)])

    @rule(side=st.integers(0, 1), size=st.integers(1, 1 << 20))
    def read(self, side: int, size: int) -> None:
        """A side reads some of what the other has sent, credits it and answers."""
        wire = self.wires[1 - side]
        stream = b"".join(wire)
        wire.clear()
        if len(stream) > size:
            wire.append(stream[size:])
        for event in self.sides[side].feed(stream[:size]):
            self.happened(side, event)
        self.push(side, self.sides[side].answers)
        self.sides[side].answers = []

    def happened(self, side: int, event: Event) -> None:
        match event:
            case Message(_, streams):
                self.announced[side].update(streams)
            case Data(stream, body, streams):
                self.announced[side].update(streams)
                self.got.setdefault((1 - side, stream), []).append(bytes(body))
                self.push(side, [self.sides[side].credit(stream, len(body))])
            case Credit(stream, size):
                self.budget[side, stream] += size
            case Ended(stream):
                assert (1 - side, stream) in self.ended
                key = 1 - side, stream
                assert b"".join(self.got.get(key, [])) == b"".join(self.sent.get(key, []))
            case Stopped(stream):
                self.ended.add((side, stream))
                self.push(side, [self.sides[side].end(stream)])

    @invariant()
    def what_came_is_what_was_sent(self) -> None:
        for key, pieces in self.got.items():
            assert b"".join(self.sent[key]).startswith(b"".join(pieces))

    def teardown(self) -> None:
        for side in (0, 1):
            for stream in self.announced[side]:
                self.ended.add((side, stream))
                self.push(side, [self.sides[side].end(stream)])
        for _ in range(3):
            for side in (0, 1):
                self.read(side, 1 << 40)
                for stream in self.announced[side]:
                    self.ended.add((side, stream))
                    self.push(side, [self.sides[side].end(stream)])
        assert self.sides[0].count == self.sides[1].count == 0


TestBoth = Both.TestCase
TestBoth.settings = hypothesis.settings(examples(40), stateful_step_count=40)
