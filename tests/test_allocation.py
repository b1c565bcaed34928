"""Allocations: several hosts from one place, held while the program runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

import parallel
from parallel.abc import Allocation, Launcher
from parallel.launch.local import Local


class Nodes(Allocation):
    """Hosts of this machine; or none, but an error."""

    def __init__(self, *launchers: Launcher, error: Exception | None = None) -> None:
        self.launchers = launchers
        self.error = error
        self.is_held = False

    @asynccontextmanager
    async def allocate(self) -> AsyncIterator[Sequence[Launcher]]:
        if self.error is not None:
            raise self.error
        self.is_held = True
        yield self.launchers
        self.is_held = False


def down() -> dict[str, str]:
    """The hosts but the root's, and why they are not there."""
    return {host.name: host.down for host in parallel.hosts() if host.name != "root"}


async def test_its_hosts_are_hosts_like_others_and_it_is_held_until_they_have_gone() -> None:
    nodes = Nodes(Local(name="node0"))
    async with parallel.init(cluster=parallel.Cluster([nodes])):
        assert nodes.is_held
        assert await parallel.run(parallel.current_host, where="node0") == "node0"
    assert not nodes.is_held


async def test_one_that_fails_is_an_error_of_init_by_its_own_words() -> None:
    nodes = Nodes(error=parallel.ParallelError("no nodes are free"))
    with pytest.raises(ExceptionGroup) as info:
        async with parallel.init(cluster=parallel.Cluster([nodes])):
            raise AssertionError("it has begun")
    (error,) = info.value.exceptions
    assert str(error) == "no nodes are free"


async def test_without_what_is_missing_the_program_goes_on_and_knows_why_at_once() -> None:
    """Each kind of failure: of an allocation, of a host in one, of a launcher, of a Python."""
    nowhere = Nodes(error=parallel.ParallelError("no nodes are free"))
    nodes = Nodes(Local(name="node0"), Local(name="node1", setup="exit 3"))
    old = Local(name="old", python="no-such-python")
    cluster = parallel.Cluster([nowhere, nodes, old])
    async with parallel.init(cluster=cluster, missing_hosts="skip"):
        reasons = down()
        assert reasons.keys() == {"node0", "node1", "old"}
        assert reasons["node0"] == ""
        assert "exited with code 3" in reasons["node1"]
        assert "no-such-python" in reasons["old"]


async def test_a_name_that_another_host_has_is_refused_and_the_other_stays() -> None:
    nodes = Nodes(Local(name="node0", connect_timeout=20), Local(name="node0"))
    async with parallel.init(cluster=parallel.Cluster([nodes]), missing_hosts="skip"):
        assert down() == {"node0": ""}
    with pytest.raises(ExceptionGroup) as info:
        async with parallel.init(cluster=parallel.Cluster([nodes])):
            raise AssertionError("it has begun")
    assert "two hosts named 'node0'" in str(info.value.exceptions[0])
