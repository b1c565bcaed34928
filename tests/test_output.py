"""`_output`: what the processes of a host print, from their pipes to the other end of the link."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from parallel._ends import join
from parallel._output import LAST_WORDS, WINDOW, Outputs

from .support import eventually
from .test_ends import Far


class Printer:
    """A process, as far as it prints; and who gets it."""

    def __init__(self, outputs: Outputs, number: int = 7) -> None:
        self.number = number
        reading, self.out = os.pipe()
        reading_errors, self.errors = os.pipe()
        self.pipes = outputs.add(number, [reading, reading_errors])
        self.shown, self.shown_errors = Far(), Far()
        join(self.shown, self.pipes[0])
        join(self.shown_errors, self.pipes[1])

    def end(self) -> None:
        for descriptor in (self.out, self.errors):
            os.close(descriptor)


@pytest.fixture
def outputs() -> Iterator[Outputs]:
    outputs = Outputs()
    yield outputs
    outputs.close()


@pytest.fixture
def printer(outputs: Outputs) -> Iterator[Printer]:
    printer = Printer(outputs)
    yield printer
    for descriptor in (printer.out, printer.errors):
        try:
            os.close(descriptor)
        except OSError:
            pass  # the test has ended it


async def test_what_is_printed_is_sent_on_and_its_end_too(
    outputs: Outputs, printer: Printer
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outputs.run)
        os.write(printer.out, b"out\n")
        os.write(printer.errors, b"err\n")
        await eventually(lambda: printer.shown.heard and printer.shown_errors.heard)
        assert (printer.shown.heard, printer.shown_errors.heard) == (b"out\n", b"err\n")
        printer.end()
        await eventually(lambda: printer.shown.finished and printer.shown_errors.finished)
        nursery.cancel_scope.cancel()


async def test_what_a_process_says_waits_until_what_it_printed_is_shown(
    outputs: Outputs, printer: Printer
) -> None:
    gate = outputs.gate(lambda: printer.number)
    os.write(printer.out, b"before\n")
    passed = trio.Event()

    async def say() -> None:
        await gate()
        passed.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(say)
        await trio.testing.wait_all_tasks_blocked()
        assert printer.shown.heard == b"before\n"
        assert not passed.is_set()
        printer.pipes[0].grant(3)
        await trio.testing.wait_all_tasks_blocked()
        assert not passed.is_set()
        printer.pipes[0].grant(4)
        await passed.wait()


async def test_nothing_waits_where_nothing_was_printed(outputs: Outputs, printer: Printer) -> None:
    await outputs.gate(lambda: printer.number)()
    await outputs.gate(lambda: None)()
    await outputs.gate(lambda: 99)()


async def test_a_last_partial_line_is_completed_before_the_process_is_heard(
    outputs: Outputs, printer: Printer
) -> None:
    os.write(printer.out, b"no end")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outputs.gate(lambda: printer.number))
        await trio.testing.wait_all_tasks_blocked()
        assert printer.shown.heard == b"no end\n"
        printer.pipes[0].grant(7)


async def test_a_process_that_prints_more_than_is_shown_has_to_wait(
    outputs: Outputs, printer: Printer
) -> None:
    os.set_blocking(printer.out, False)
    written = 0
    while True:
        try:
            written += os.write(printer.out, b"x" * 4096)
        except BlockingIOError:
            before = len(printer.shown.heard)
            outputs.drain()
            if len(printer.shown.heard) == before:
                break
    held = len(printer.shown.heard)
    assert WINDOW <= held <= WINDOW + (1 << 16)
    with trio.move_on_after(0.05):
        await outputs.run()  # which waits for other pipes, not for this one
    assert len(printer.shown.heard) == held
    printer.pipes[0].grant(held)
    outputs.drain()
    assert len(printer.shown.heard) > held
    os.write(printer.errors, b"others are heard\n")
    outputs.drain()
    assert printer.shown_errors.heard == b"others are heard\n"


async def test_where_nobody_sees_it_a_process_prints_on_and_nobody_waits(
    outputs: Outputs, printer: Printer
) -> None:
    os.write(printer.out, b"seen\n")
    outputs.drain()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outputs.gate(lambda: printer.number))
        await trio.testing.wait_all_tasks_blocked()
        printer.pipes[0].refuse()
    for _ in range(10):
        os.write(printer.out, b"x" * 60_000)
        outputs.drain()
    assert printer.shown.heard == b"seen\n"
    await outputs.gate(lambda: printer.number)()


async def test_the_last_words_are_the_end_of_its_errors(outputs: Outputs, printer: Printer) -> None:
    os.write(printer.out, b"this is no error\n")
    os.write(printer.errors, b"x" * LAST_WORDS + b"\xffValueError: no\n")
    printer.end()
    words = outputs.last_words(printer.number)
    assert words.endswith("x\N{REPLACEMENT CHARACTER}ValueError: no\n")
    assert len(words) == LAST_WORDS
    assert printer.shown_errors.finished == 1
    assert outputs.last_words(printer.number) == ""
    assert outputs.last_words(99) == ""


async def test_of_those_that_print_no_more_so_many_are_remembered(outputs: Outputs) -> None:
    for number in range(1, 3001):
        printer = Printer(outputs, number)
        os.write(printer.errors, b"%d" % number)
        printer.end()
        outputs.drain()
    assert not outputs._pipes
    assert len(outputs._of) <= 1000
    assert outputs.last_words(3000) == "3000"
    assert outputs.last_words(2500) == "2500"
    assert outputs.last_words(1) == ""


async def test_who_prints_when_all_is_over_finds_nobody_there() -> None:
    outputs = Outputs()
    printer = Printer(outputs)
    outputs.close()
    with pytest.raises(BrokenPipeError):
        os.write(printer.out, b"x")
    printer.end()
