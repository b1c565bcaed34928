"""The showcase: who reads it sees something whole, or nothing."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest

from parallel._showcase import Showcase, read_showcase


@pytest.fixture
def showcase() -> Iterator[Showcase]:
    showcase = Showcase()
    yield showcase
    showcase.close()


def test_what_is_shown_is_read_with_its_time_until_something_else_is_shown(
    showcase: Showcase,
) -> None:
    for text in (b"first and long", b"second", b""):
        before = time.time()
        showcase.show(text)
        shown = read_showcase(showcase.descriptor)
        assert shown is not None
        assert shown.data == text
        assert before <= shown.time <= time.time()


def test_before_anything_is_shown_there_is_nothing(showcase: Showcase) -> None:
    assert read_showcase(showcase.descriptor) is None


def test_what_is_no_showcase_shows_nothing() -> None:
    descriptor = os.memfd_create("something else")
    try:
        os.pwrite(descriptor, bytes(1000), 0)
        assert read_showcase(descriptor) is None
    finally:
        os.close(descriptor)


def test_a_writer_that_died_halfway_leaves_nothing_to_see(showcase: Showcase) -> None:
    showcase.show(b"whole")
    os.pwrite(showcase.descriptor, b"wh", os.fstat(showcase.descriptor).st_size - len("whole"))
    os.pwrite(showcase.descriptor, b"at", os.fstat(showcase.descriptor).st_size - len("at"))
    assert read_showcase(showcase.descriptor) is None


def test_a_reader_never_sees_parts_of_two_writes(showcase: Showcase) -> None:
    """Each write is of one letter, and as long as the letter is high."""

    def write() -> None:
        for _ in range(20):
            for letter in range(60, 120):
                showcase.show(bytes([letter]) * letter * 500)
                time.sleep(0.0001)  # an agent that did nothing but write would let nobody read

    writer = threading.Thread(target=write)
    writer.start()
    seen = [read_showcase(showcase.descriptor)]
    while writer.is_alive():
        seen.append(read_showcase(showcase.descriptor))
    writer.join()
    assert read_showcase(showcase.descriptor) is not None
    for shown in filter(None, seen):
        assert shown.data == shown.data[:1] * shown.data[0] * 500
