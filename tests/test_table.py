"""`_table`: who runs, and which hosts there are, in shared memory: one writes, anybody reads."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from parallel._table import (
    MAX_HOST_NAME,
    Entry,
    HostWriter,
    ProcessWriter,
    create_table,
    read_hosts,
    read_table,
    running,
)
from parallel._wire.news import HostState

from .support import examples


@pytest.fixture
def table() -> Iterator[int]:
    descriptor = create_table(4321)
    yield descriptor
    os.close(descriptor)


def entry(process: int, owner: int = 0, pid: int = 1234, name: str = "job") -> Entry:
    return Entry(process, owner, time.time(), pid, name)


# Processes


def test_a_new_table_knows_its_root_and_nobody_else(table: int) -> None:
    assert read_table(table) == (4321, [])
    assert running(table) == 0
    assert read_hosts(table) == []


def test_a_process_is_there_from_its_start_to_its_end(table: int) -> None:
    writer = ProcessWriter(table)
    added = Entry(7, 3, 1234.5, 1234, "job", "host0")
    writer.add(added)
    assert read_table(table) == (4321, [added])
    assert running(table) == writer.running == 1
    writer.remove(7)
    assert read_table(table) == (4321, [])
    assert running(table) == 0


def test_removing_what_is_not_there_changes_nothing(table: int) -> None:
    writer = ProcessWriter(table)
    writer.add(entry(7))
    writer.remove(8)
    assert running(table) == 1


def test_places_are_used_again(table: int) -> None:
    writer = ProcessWriter(table)
    for number in range(1, 1000):
        if number == 2:
            before = os.fstat(table).st_size
        writer.add(entry(number))
        writer.remove(number)
    assert os.fstat(table).st_size == before


@pytest.mark.parametrize(
    "name", ["", "x" * 1000, "\N{SNOWMAN}" * 300, "with\nnewline", "lone \ud800", "\0"]
)
def test_a_process_may_be_called_anything(table: int, name: str) -> None:
    writer = ProcessWriter(table)
    writer.add(entry(1, name=name)._replace(owner_host=name))
    writer.add(entry(2, name="other")._replace(owner_host="host0"))
    first, second = read_table(table)[1]
    assert len(first.name) <= 256
    assert first.owner_host[:10] == name[:10] or "\ud800" in name
    assert second.owner_host == "host0"
    assert first.name[:50] == name[:50] or "\ud800" in name
    assert second.name == "other"


def test_a_reader_needs_only_the_descriptor(table: int) -> None:
    ProcessWriter(table).add(entry(1))
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


# Hosts

HERE = HostState("root", 4, "3.11.2", 4321)


def test_a_host_is_there_as_it_was_written_last(table: int) -> None:
    writer = HostWriter(table)
    other = HostState("host0", 64, "3.13.0", 99, 7)
    writer.write([HERE, other])
    assert read_hosts(table) == [HERE, other]
    writer.write([other._replace(running=8)])
    assert read_hosts(table) == [HERE, other._replace(running=8)]
    writer.write([other._replace(running=0, down="its link broke")])
    assert read_hosts(table)[1].down == "its link broke"
    writer.write([other])
    assert read_hosts(table) == [HERE, other]


def test_a_second_writer_knows_what_the_first_has_written(table: int) -> None:
    HostWriter(table).write([HERE])  # the fork server, before there is an agent
    HostWriter(table).write([HERE._replace(running=2), HostState("host0", 1, "3.12.1", 5)])
    assert [(state.name, state.running) for state in read_hosts(table)] == [
        ("root", 2),
        ("host0", 0),
    ]


def test_hosts_and_processes_do_not_get_in_each_other_s_way(table: int) -> None:
    hosts, processes = HostWriter(table), ProcessWriter(table)
    states = [HostState(f"host{number}", 1, "3.11.0", number + 1) for number in range(300)]
    entries = [entry(number, name=f"job {number}") for number in range(1, 301)]
    for state, added in zip(states, entries, strict=True):
        hosts.write([state])
        processes.add(added)
    assert read_hosts(table) == states
    assert read_table(table) == (4321, entries)
    assert running(table) == 300


def test_more_hosts_than_there_is_room_for_leave_the_rest_as_it_was(table: int) -> None:
    ProcessWriter(table).add(entry(1))
    HostWriter(table).write(HostState(f"host{i}", 1, "3.11.0", 1) for i in range(4200))
    assert len(read_hosts(table)) == 4096
    assert read_table(table)[1][0].process == 1


@pytest.mark.parametrize("why", ["", "x" * 5000, "\N{SNOWMAN}" * 300, "lone \ud800", "a\nb"])
def test_a_host_may_be_gone_for_any_reason(table: int, why: str) -> None:
    longest = HostState("\N{SNOWMAN}" * (MAX_HOST_NAME // 3), 1, "3.11.0", 1, 0, why)
    other = HostState("other", 2, "3.12.0", 2)
    HostWriter(table).write([longest, other])
    first, second = read_hosts(table)
    assert first.name == longest.name
    assert first.down[:30] == why[:30] or "\ud800" in why
    assert second == other


@pytest.mark.parametrize("letter", ["x", "\N{SNOWMAN}", "\N{GRINNING FACE}", "\u00e9"])
@pytest.mark.parametrize("shift", range(4))
def test_a_reason_that_is_cut_is_seen_to_be(table: int, letter: str, shift: int) -> None:
    """Wherever the cut falls within a character."""
    for length in range(30, 170):
        down = "-" * shift + letter * length
        HostWriter(table).write([HERE, HostState("host0", 1, "3.12.1", 5, 0, down)])
        read = read_hosts(table)[1].down
        assert read == down or (read[-1] == "\u2026" and down.startswith(read[:-1]))
        assert len(read.encode()) >= min(len(down.encode()), 150)


@pytest.mark.parametrize("number", [-1, 1 << 32, 1 << 64, 1 << 700])
def test_what_another_host_says_is_written_whatever_it_is(table: int, number: int) -> None:
    HostWriter(table).write([HostState("lone \ud800", number, "\ud800", number, number)])
    (state,) = read_hosts(table)
    assert state.name == "lone ?"
    assert state.slots in (0, (1 << 32) - 1)
    ProcessWriter(table).add(entry(1, owner=number))
    assert read_table(table)[1][0].owner in (0, number, (1 << 64) - 1)


# Whatever comes and goes


class Comings(RuleBasedStateMachine):
    """Whatever comes and goes, the table says who is there."""

    @initialize()
    def start(self) -> None:
        self.descriptor = create_table(1)
        self.writer = ProcessWriter(self.descriptor)
        self.there: dict[int, tuple[int, int, str]] = {}
        self.last = 0

    @rule(owner=st.integers(0, 5), pid=st.integers(1, 1 << 22), name=st.text("abc", max_size=10))
    def come(self, owner: int, pid: int, name: str) -> None:
        self.last += 1
        self.there[self.last] = (owner, pid, name)
        self.writer.add(Entry(self.last, owner, 0.0, pid, name))

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
