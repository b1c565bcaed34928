"""`_console`: what other hosts print, by whole lines, on a descriptor that may be stuck."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from parallel._console import MAX_LINE, Console, Lines

from .support import eventually, examples
from .test_ends import Far


class Terminal(NamedTuple):
    """A pipe, that is to say: what is read from it, and what is written to."""

    reading: int
    writing: int

    async def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += await trio.to_thread.run_sync(os.read, self.reading, size - len(data))
        return data


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    reading, writing = os.pipe()
    yield Terminal(reading, writing)
    os.close(reading)
    os.close(writing)


def fill(terminal: Terminal) -> int:
    """Nobody reads it, and it is full."""
    os.set_blocking(terminal.writing, False)
    filled = 0
    with pytest.raises(BlockingIOError):
        while True:
            filled += os.write(terminal.writing, b"x" * 4096)
    os.set_blocking(terminal.writing, True)
    return filled


async def test_what_is_written_is_shown_in_order_and_whoever_wants_is_told(
    terminal: Terminal,
) -> None:
    console = Console(terminal.writing)
    shown: list[int] = []
    for number in range(100):
        console.write(b"%3d\n" % number, partial(shown.append, number))
    await console.flushed()
    assert shown == list(range(100))
    assert (await terminal.read(400)).split() == [b"%d" % number for number in range(100)]


@pytest.mark.parametrize("blocking", [True, False])
async def test_a_stuck_descriptor_holds_up_nobody_but_itself(
    terminal: Terminal, blocking: bool
) -> None:
    filled = fill(terminal)
    os.set_blocking(terminal.writing, blocking)
    stuck, reading, writing = Console(terminal.writing), *os.pipe()
    try:
        other = Console(writing)
        shown: list[bool] = []
        stuck.write(b"at last\n", lambda: shown.append(True))
        other.write(b"at once\n", lambda: None)
        await other.flushed()
        assert os.read(reading, 100) == b"at once\n"
        with trio.move_on_after(0.05) as scope:
            await stuck.flushed()
        assert scope.cancelled_caught
        assert not shown
        assert (await terminal.read(filled + 8))[filled:] == b"at last\n"
        await stuck.flushed()
        assert shown
    finally:
        os.close(reading)
        os.close(writing)


async def test_what_nobody_can_see_any_more_counts_as_shown() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    console = Console(writing)
    shown: list[bool] = []
    console.write(b"x\n", lambda: shown.append(True))
    await console.flushed()
    assert shown
    os.close(writing)


async def test_a_console_without_anything_to_show_is_flushed_and_has_no_thread() -> None:
    console = Console(-1)
    await console.flushed()
    assert console._thread is None


# Lines


class Screen:
    """A console that says that it has shown something when it is told to."""

    def __init__(self) -> None:
        self.text = b""
        self.waiting: list[object] = []

    def write(self, data: bytes, on_shown: object) -> None:
        self.text += data
        self.waiting.append(on_shown)

    def show(self) -> None:
        waiting, self.waiting = self.waiting, []
        for on_shown in waiting:
            assert callable(on_shown)
            on_shown()


def lines_on(screen: Screen, label: str = "") -> tuple[Lines, Far]:
    far = Far()
    lines = Lines(screen, label)  # type: ignore[arg-type]
    lines.join(far)
    return lines, far


@examples(200)
@given(
    st.binary(max_size=200).map(lambda text: text.replace(b"x", b"\n")),
    st.lists(st.integers(1, 30), min_size=1, max_size=10),
)
def test_lines_cut_anywhere_are_shown_as_lines(text: bytes, cuts: list[int]) -> None:
    screen = Screen()
    lines, far = lines_on(screen, "> ")
    rest, turn = text, 0
    while rest:
        size = cuts[turn % len(cuts)]
        lines.deliver(memoryview(rest[:size]))
        rest, turn = rest[size:], turn + 1
        assert screen.text == b"" or screen.text.endswith(b"\n")
    lines.finish()
    screen.show()
    whole = text if text.endswith(b"\n") or not text else text + b"\n"
    assert screen.text == b"".join(b"> " + line + b"\n" for line in whole.split(b"\n")[:-1])
    assert far.granted == len(text)
    assert far.finished == 1


def test_lines_of_several_never_mix() -> None:
    screen = Screen()
    (one, _), (two, _) = lines_on(screen, "a: "), lines_on(screen, "b: ")
    one.deliver(b"first ")
    two.deliver(b"second\nthi")
    one.deliver(b"line\n")
    two.finish()
    assert screen.text == b"b: second\na: first line\nb: thi\n"


def test_a_last_partial_line_is_completed() -> None:
    screen = Screen()
    lines, far = lines_on(screen)
    lines.deliver(b"no end")
    assert (screen.text, far.granted) == (b"", 0)
    lines.finish()
    screen.show()
    assert (screen.text, far.granted, far.finished) == (b"no end\n", 6, 1)


@pytest.mark.parametrize("excess", [-1, 0, 1, MAX_LINE - 1, MAX_LINE, 3 * MAX_LINE])
@pytest.mark.parametrize("cut", [MAX_LINE, 1 << 15, 1 << 22])
def test_a_line_that_is_too_long_is_split(excess: int, cut: int) -> None:
    screen = Screen()
    lines, far = lines_on(screen, "h: ")
    text = b"x" * (MAX_LINE + excess)
    for start in range(0, len(text) + 1, cut):
        lines.deliver((text + b"\n")[start : start + cut])
    screen.show()
    shown = screen.text.split(b"\n")
    assert shown.pop() == b""
    assert all(line.startswith(b"h: ") for line in shown)
    pieces = [line.removeprefix(b"h: ") for line in shown]
    assert b"".join(pieces) == text
    assert max(map(len, pieces)) <= MAX_LINE
    assert len(pieces) == -(-len(text) // MAX_LINE)
    assert far.granted == len(text) + 1


def test_empty_lines_are_lines() -> None:
    screen = Screen()
    lines, _ = lines_on(screen, "> ")
    lines.deliver(b"\n\na\n\n")
    assert screen.text == b"> \n> \n> a\n> \n"


def test_a_sender_has_credit_and_its_end_when_all_is_shown() -> None:
    screen = Screen()
    lines, far = lines_on(screen)
    lines.deliver(b"a\nb\nc")
    lines.finish()
    assert (far.granted, far.finished) == (0, 0)
    screen.show()
    assert (far.granted, far.finished) == (5, 1)


async def test_lines_on_a_console_of_their_own(terminal: Terminal) -> None:
    console = Console(terminal.writing)
    far = Far()
    lines = Lines(console, "host0 17: ")
    lines.join(far)
    lines.deliver(b"one\ntwo\n")
    await console.flushed()
    assert await terminal.read(28) == b"host0 17: one\nhost0 17: two\n"
    await eventually(lambda: far.granted == 8)
