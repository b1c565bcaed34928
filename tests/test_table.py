"""`_table`: who runs, in shared memory: one writes, anybody reads."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from parallel._table import TableWriter, create_table, read_table, running

from .support import examples


@pytest.fixture
def table() -> Iterator[int]:
    descriptor = create_table(4321)
    yield descriptor
    os.close(descriptor)


def test_a_new_table_knows_its_root_and_nobody_else(table: int) -> None:
    assert read_table(table) == (4321, [])
    assert running(table) == 0


def test_a_process_is_there_from_its_start_to_its_end(table: int) -> None:
    writer = TableWriter(table)
    before = time.time()
    writer.add(7, 0, 1234, "job")
    (entry,) = read_table(table)[1]
    assert (entry.process, entry.owner, entry.pid, entry.name) == (7, 0, 1234, "job")
    assert before - 1 <= entry.started <= time.time() + 1
    assert running(table) == 1
    writer.remove(7)
    assert read_table(table) == (4321, [])
    assert running(table) == 0


def test_removing_what_is_not_there_changes_nothing(table: int) -> None:
    writer = TableWriter(table)
    writer.add(7, 0, 1234, "job")
    writer.remove(8)
    assert running(table) == 1


def test_places_are_used_again(table: int) -> None:
    writer = TableWriter(table)
    for number in range(1, 1000):
        writer.add(number, 0, number, "job")
        writer.remove(number)
    assert os.fstat(table).st_size < 4096


@pytest.mark.parametrize(
    "name", ["", "x" * 1000, "\N{SNOWMAN}" * 300, "with\nnewline", "lone \ud800", "\0"]
)
def test_a_process_may_be_called_anything(table: int, name: str) -> None:
    writer = TableWriter(table)
    writer.add(1, 0, 11, name)
    writer.add(2, 1, 12, "other")
    first, second = read_table(table)[1]
    assert len(first.name) <= 256
    assert first.name[:50] == name[:50] or "\ud800" in name
    assert second.name == "other"


def test_a_reader_needs_only_the_descriptor(table: int) -> None:
    TableWriter(table).add(1, 0, 11, "job")
    copy = os.open(f"/proc/self/fd/{table}", os.O_RDONLY)
    try:
        assert read_table(copy) == read_table(table)
    finally:
        os.close(copy)


@pytest.mark.parametrize("content", [b"", b"par", b"parallel", b"parallel1234", b"x" * 1000])
def test_what_is_no_table_is_a_value_error(content: bytes) -> None:
    descriptor = os.memfd_create("other")
    try:
        os.write(descriptor, content)
        with pytest.raises(ValueError, match="no table"):
            read_table(descriptor)
    finally:
        os.close(descriptor)


class Comings(RuleBasedStateMachine):
    """Whatever comes and goes, the table says who is there."""

    @initialize()
    def start(self) -> None:
        self.descriptor = create_table(1)
        self.writer = TableWriter(self.descriptor)
        self.there: dict[int, tuple[int, int, str]] = {}
        self.last = 0

    @rule(owner=st.integers(0, 5), pid=st.integers(1, 1 << 22), name=st.text("abc", max_size=10))
    def come(self, owner: int, pid: int, name: str) -> None:
        self.last += 1
        self.there[self.last] = (owner, pid, name)
        self.writer.add(self.last, owner, pid, name)

    @rule(which=st.integers(0, 10))
    def go(self, which: int) -> None:
        if self.there:
            number = list(self.there)[which % len(self.there)]
            del self.there[number]
            self.writer.remove(number)

    @invariant()
    def says_who_is_there(self) -> None:
        root, entries = read_table(self.descriptor)
        assert root == 1
        assert running(self.descriptor) == len(self.there)
        assert {entry.process: (entry.owner, entry.pid, entry.name) for entry in entries} == (
            self.there
        )

    def teardown(self) -> None:
        os.close(self.descriptor)


TestComings = Comings.TestCase
TestComings.settings = examples(30)
