"""`placement`: from the hosts' state to the name of one of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

import parallel
from parallel import Host, ParallelError, UnknownHost, placement

from .support import examples, in_turn


def host(name: str, slots: int = 1, running: int = 0) -> Host:
    return Host(name, slots, "3.11.0", running)


hosts_of_any_kind = st.lists(
    st.builds(host, st.text(max_size=5), st.integers(0, 100), st.integers(0, 1000)),
    min_size=1,
    max_size=6,
)


@examples(100)
@given(hosts_of_any_kind)
def test_every_placement_names_one_of_the_hosts(hosts: list[Host]) -> None:
    names = [host.name for host in hosts]
    placements = (parallel.random, parallel.round_robin, parallel.least_loaded)
    for choose in (*placements, parallel.random_in(names)):
        assert choose(hosts) in names


def test_random_goes_by_slots() -> None:
    hosts = [host("small", 1), host("large", 9), host("none", 0)]
    counts = Counter(parallel.random(hosts) for _ in range(3000))
    assert set(counts) == {"small", "large", "none"}
    assert counts["large"] > 3 * counts["small"]


def test_random_in_goes_nowhere_else() -> None:
    hosts = [host("a"), host("b"), host("c")]
    choose = parallel.random_in(["a", "c"])
    assert {choose(hosts) for _ in range(200)} == {"a", "c"}


def test_random_in_keeps_the_names_that_it_was_given() -> None:
    names = ["a"]
    choose = parallel.random_in(names)
    names.append("b")
    assert {choose([]) for _ in range(50)} == {"a"}


def test_random_in_without_names_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        parallel.random_in([])


def test_round_robin_takes_one_after_the_other() -> None:
    hosts = [host("a"), host("b"), host("c")]
    names = [parallel.round_robin(hosts) for _ in range(9)]
    assert names[:3] == names[3:6] == names[6:]
    assert sorted(names[:3]) == ["a", "b", "c"]


def test_round_robin_starts_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = [host("a"), host("b"), host("c")]
    firsts = set()
    for _ in range(100):
        monkeypatch.setattr(placement, "_turn", None)
        firsts.add(parallel.round_robin(hosts))
    assert firsts == {"a", "b", "c"}


def test_round_robin_goes_on_when_the_hosts_change() -> None:
    for count in (3, 1, 5, 2):
        hosts = [host(str(index)) for index in range(count)]
        assert parallel.round_robin(hosts) in {host.name for host in hosts}


@pytest.mark.parametrize(
    ("hosts", "name"),
    [
        ([host("a", 4, 2), host("b", 4, 1)], "b"),
        ([host("a", 1, 1), host("b", 10, 5)], "b"),
        ([host("a", 2, 0), host("b", 1, 0)], "a"),
        ([host("a", 0, 3), host("b", 1, 2)], "b"),
    ],
)
def test_least_loaded_has_the_fewest_processes_per_slot(hosts: list[Host], name: str) -> None:
    assert parallel.least_loaded(hosts) == name


# In a program


async def place() -> tuple[str, int]:
    hosts = parallel.hosts()
    return await parallel.run(parallel.current_host, where=parallel.random), hosts[0].slots


@in_turn(
    "where",
    [None, "local", "root", parallel.random, parallel.round_robin, parallel.least_loaded],
    ids=["none", "local", "root", "random", "round_robin", "least_loaded"],
)
async def test_wherever_there_is_only_one_host_it_is_the_root_s(
    tree: None, where: parallel.Placement | str | None
) -> None:
    assert await parallel.run(parallel.current_host, where=where) == "root"


async def test_placements_serve_workers_too(tree: None) -> None:
    assert await parallel.run(place) == ("root", parallel.hosts()[0].slots)


async def test_an_unknown_host_lists_the_known_ones(tree: None) -> None:
    for where in ("host7", parallel.random_in(["host7"]), lambda hosts: "host7"):
        with pytest.raises(UnknownHost, match="no host 'host7'; the known ones are root") as caught:
            await parallel.run(place, where=where)
        assert (caught.value.host, caught.value.known) == ("host7", ("root",))


async def test_an_unknown_host_is_named_in_a_worker_as_well(tree: None) -> None:
    with pytest.raises(UnknownHost, match="the known ones are root"):
        await parallel.run(go_to_host7)


async def go_to_host7() -> None:
    async with parallel.spawn(place, where="host7"):  # type: ignore[arg-type]
        raise AssertionError


async def test_a_placement_of_one_s_own_sees_the_hosts() -> None:
    seen: list[Sequence[Host]] = []

    def choose(hosts: Sequence[Host]) -> str:
        seen.append(hosts)
        return hosts[0].name

    async with parallel.init(cluster=parallel.Cluster(root_slots=7)):
        assert await parallel.run(parallel.current_host, where=choose) == "root"
    ((only,),) = seen
    assert (only.name, only.slots, only.running) == ("root", 7, 0)


async def test_what_a_placement_raises_is_raised(tree: None) -> None:
    def choose(hosts: Sequence[Host]) -> str:
        raise LookupError("no host will do")

    with pytest.raises(LookupError, match="no host will do"):
        await parallel.run(place, where=choose)


async def test_a_placement_that_names_no_host_at_all_is_an_error(tree: None) -> None:
    with pytest.raises(ParallelError, match="None"):
        await parallel.run(place, where=lambda hosts: None)  # type: ignore[call-overload]
