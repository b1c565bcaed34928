"""One end of a socket pair: partial writes, descriptors, borrowed memory, forks."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from collections import deque
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel._endpoint import MAX_DESCRIPTORS, Endpoint, socket_pair

from .support import examples

SMALL = 4608
"""Bytes: about the smallest send buffer that Linux gives."""


@pytest.fixture
def pair() -> Iterator[tuple[Endpoint, Endpoint]]:
    with connected() as both:
        yield both


@contextlib.contextmanager
def connected() -> Iterator[tuple[Endpoint, Endpoint]]:
    """Two endpoints with as little room between them as there can be."""
    left, right = socket_pair()
    for sock in (left, right):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
    near, far = Endpoint(left), Endpoint(right)
    try:
        yield near, far
    finally:
        near.close()
        far.close()


def read_all(endpoint: Endpoint, descriptors: deque[int]) -> bytes:
    """What is there now."""
    found = b""
    while data := endpoint.read(descriptors):
        assert isinstance(data, bytes)
        found += data
    return found


def transfer(source: Endpoint, target: Endpoint, descriptors: deque[int]) -> bytes:
    """Everything that `source` still has to write, as `target` reads it."""
    found = read_all(target, descriptors)
    while not source.write():
        found += read_all(target, descriptors)
    return found + read_all(target, descriptors)


def pipe_ends(count: int) -> tuple[list[int], list[int]]:
    """Pipes that can be told apart: their reading ends, and their writing ends."""
    pipes = [os.pipe() for _ in range(count)]
    return [read for read, _ in pipes], [write for _, write in pipes]


def check_pipes(readers: list[int], writers: list[int]) -> None:
    """Whether those are the two ends of the same pipes; closes them."""
    for number, (reader, writer) in enumerate(zip(readers, writers, strict=True)):
        os.write(writer, b"%d" % number)
        assert os.read(reader, 10) == b"%d" % number
        os.close(reader)
        os.close(writer)


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_what_the_socket_takes_is_written_at_once(pair: tuple[Endpoint, Endpoint]) -> None:
    near, far = pair
    near.push_one(b"one")
    near.push([b"two", b"", b"three"])
    assert near.unwritten == 0
    assert read_all(far, deque()) == b"onetwothree"


def test_what_the_socket_does_not_take_waits_and_is_counted(
    pair: tuple[Endpoint, Endpoint],
) -> None:
    near, far = pair
    big = os.urandom(100_000)
    near.push_one(big)
    assert 0 < near.unwritten < len(big)
    near.push_one(b"behind it")
    near.push([b"and", b"more"])
    assert transfer(near, far, deque()) == big + b"behind it" + b"and" + b"more"
    assert near.unwritten == 0


def test_many_waiting_chunks_are_all_written(pair: tuple[Endpoint, Endpoint]) -> None:
    near, far = pair
    near.push_one(bytes(100_000))
    chunks = [b"%d," % number for number in range(1000)]
    for chunk in chunks:
        near.push_one(chunk)
    assert transfer(near, far, deque())[100_000:] == b"".join(chunks)


@examples(50)
@given(
    st.lists(
        st.tuples(
            st.lists(st.binary(min_size=0, max_size=9000), min_size=1, max_size=4).filter(any),
            st.integers(0, 3),
            st.booleans(),
        ),
        max_size=8,
    )
)
def test_whatever_is_pushed_arrives_in_order_and_descriptors_not_after_their_bytes(
    pushes: list[tuple[list[bytes], int, bool]],
) -> None:
    with connected() as (near, far):
        arrived: deque[int] = deque()
        wanted, found = b"", b""
        readers: list[int] = []
        due: list[tuple[int, int]] = []
        for chunks, count, read_now in pushes:
            mine, theirs = pipe_ends(count)
            readers += mine
            wanted += b"".join(chunks)
            due.append((len(wanted), len(readers)))
            near.push(chunks, theirs)
            if read_now:
                found += read_all(far, arrived)
                assert len(arrived) >= max(n for size, n in [*due, (0, 0)] if size <= len(found))
        found += transfer(near, far, arrived)
        assert found == wanted
        check_pipes(readers, list(arrived))


def test_descriptors_come_with_the_first_byte_of_their_push_and_not_before(
    pair: tuple[Endpoint, Endpoint],
) -> None:
    near, far = pair
    readers, writers = pipe_ends(1)
    near.push_one(bytes(50_000))
    near.push([b"x" * 50_000], writers)
    arrived: deque[int] = deque()
    found = b""
    while not (near.write() and b"x" in found):
        data = far.read(arrived)
        assert isinstance(data, bytes)
        found += data
        assert bool(arrived) == (b"x" in found)
    check_pipes(readers, list(arrived))


def test_as_many_descriptors_travel_at_once_as_are_allowed(pair: tuple[Endpoint, Endpoint]) -> None:
    near, far = pair
    readers, writers = pipe_ends(MAX_DESCRIPTORS)
    near.push([b"x"], writers)
    arrived: deque[int] = deque()
    assert read_all(far, arrived) == b"x"
    check_pipes(readers, list(arrived))


def test_descriptors_are_closed_when_they_have_been_sent(pair: tuple[Endpoint, Endpoint]) -> None:
    near, _ = pair
    readers, writers = pipe_ends(1)
    near.push([b"x"], writers)
    assert not is_open(writers[0])
    os.close(readers[0])


@pytest.mark.parametrize("end", ["drop", "close"])
def test_descriptors_that_were_never_sent_are_closed(
    pair: tuple[Endpoint, Endpoint], end: str
) -> None:
    near, _ = pair
    readers, writers = pipe_ends(2)
    near.push_one(bytes(100_000))
    near.push([b"x"], writers)
    getattr(near, end)()
    assert near.unwritten == 0
    assert [is_open(writer) for writer in writers] == [False, False]
    for reader in readers:
        os.close(reader)


def test_received_descriptors_do_not_survive_an_exec(pair: tuple[Endpoint, Endpoint]) -> None:
    near, far = pair
    readers, writers = pipe_ends(1)
    near.push([b"x"], writers)
    arrived: deque[int] = deque()
    read_all(far, arrived)
    assert not os.get_inheritable(arrived[0])
    check_pipes(readers, list(arrived))


def test_descriptors_for_which_there_is_no_room_are_missed(pair: tuple[Endpoint, Endpoint]) -> None:
    near, far = pair
    readers, writers = pipe_ends(3)
    near.push([b"x"], writers)
    arrived: deque[int] = deque()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + 1, limits[1]))
    try:
        assert far.read(arrived) == b"x"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert far.descriptors_lost
    for descriptor in (*arrived, *readers):
        os.close(descriptor)


def test_memory_is_borrowed_until_it_is_written(pair: tuple[Endpoint, Endpoint]) -> None:
    near, far = pair
    memory = bytearray(100_000)
    near.push([b"head", memory])
    memory[-1] = 1
    assert transfer(near, far, deque())[-1] == 1


def test_borrowed_memory_can_be_given_back_early(pair: tuple[Endpoint, Endpoint]) -> None:
    near, far = pair
    memory = bytearray(100_000)
    near.push([b"head", memory])
    near.own_unwritten()
    memory[:] = b"x" * len(memory)
    memory.extend(b"which would fail while somebody looks at it")
    found = transfer(near, far, deque())
    assert found == b"head" + bytes(100_000)


def test_giving_memory_back_keeps_descriptors_with_their_bytes(
    pair: tuple[Endpoint, Endpoint],
) -> None:
    near, far = pair
    readers, writers = pipe_ends(2)
    near.push_one(bytes(100_000))
    near.push([bytearray(10)], writers)
    near.own_unwritten()
    arrived: deque[int] = deque()
    assert transfer(near, far, arrived) == bytes(100_010)
    check_pipes(readers, list(arrived))


def test_reading_says_whether_nothing_is_there_or_nothing_will_come(
    pair: tuple[Endpoint, Endpoint],
) -> None:
    near, far = pair
    target = memoryview(bytearray(10))
    assert far.read(deque()) is None
    assert far.read(deque(), target) is None
    near.push_one(b"last")
    near.close()
    assert far.read(deque(), target) == 4
    assert bytes(target[:4]) == b"last"
    assert far.read(deque()) == b""
    assert far.read(deque(), target) == 0


def test_a_peer_that_closed_with_unread_bytes_is_at_its_end(
    pair: tuple[Endpoint, Endpoint],
) -> None:
    near, far = pair
    far.push_one(b"never read")
    near.push_one(b"last")
    near.close()
    assert far.read(deque()) == b"last"
    assert far.read(deque()) == b""


def test_who_stops_reading_breaks_the_peers_writes_and_can_still_write(
    pair: tuple[Endpoint, Endpoint],
) -> None:
    near, far = pair
    big = os.urandom(50_000)
    near.push_one(big)
    near.stop_reading()
    with pytest.raises(BrokenPipeError):
        far.push_one(b"x")
    assert transfer(near, far, deque()) == big


def test_shutting_ends_both_sides_after_what_has_been_sent(
    pair: tuple[Endpoint, Endpoint],
) -> None:
    near, far = pair
    near.push_one(b"one way")
    far.push_one(b"the other")
    near.shut()
    near.shut()
    assert far.read(deque()) == b"one way"
    assert far.read(deque()) == b""
    assert near.read(deque()) == b"the other"
    assert near.read(deque()) == b""


def test_a_fork_closes_its_copies_with_what_is_unwritten(pair: tuple[Endpoint, Endpoint]) -> None:
    near, far = pair
    readers, writers = pipe_ends(1)
    near.push_one(bytes(100_000))
    near.push([b"x"], writers)
    wait, go = os.pipe()
    started, start = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go)
        os.write(start, b"x")
        closed = near.sock.fileno() == far.sock.fileno() == -1 and not is_open(writers[0])
        os.read(wait, 1)
        os._exit(0 if closed else 1)
    os.close(wait)
    os.read(started, 1)
    near.close()
    # The child lives and holds nothing open: this is the end.
    while data := far.read(deque()):
        assert isinstance(data, bytes)
    assert data == b""
    assert os.read(readers[0], 1) == b""
    os.close(go)
    assert os.waitpid(pid, 0)[1] == 0
    for descriptor in (readers[0], started, start):
        os.close(descriptor)
