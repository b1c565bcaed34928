"""Everything of the core between hosts: the root's own and two others on this machine.

What holds of one host holds of another too: `pytest --elsewhere` shows that. Here is what takes
more than one.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

import parallel
from parallel.launch.command import Command
from parallel.launch.local import Local

from .hosts import named
from .support import eventually, marked_processes


def locals_(*names: str) -> parallel.Cluster:
    """Hosts on this machine."""
    return parallel.Cluster([Local(name=name, python=sys.executable) for name in names])


two = pytest.mark.hosts("a", "b")


def whereabouts() -> tuple[str, int]:
    return parallel.current_host(), os.getpid()


async def relay_run(route: list[str]) -> list[str]:
    """Run on each host of the route in turn, each below the one before."""
    if not route:
        return [parallel.current_host()]
    return [parallel.current_host(), *await parallel.run(relay_run, route[1:], where=route[0])]


async def echo(hub: parallel.Hub[Any, Any]) -> int:
    served = 0
    async for client, message in hub:
        await hub.send(client, (client.host, message))
        served += 1
    return served


@two
async def test_a_cascade_goes_to_and_fro_between_hosts(tree: None) -> None:
    route = ["a", "b", "a", "root", "b", "root"]
    assert await parallel.run(relay_run, route) == ["root", *route]


async def lend(
    channel: parallel.Channel[Any, Any], fn: Callable[..., Any], *args: Any, where: str
) -> Any:
    """Run a function elsewhere with a channel like this one; it has closed it on return."""
    with channel.clone() as clone:
        return await parallel.run(fn, clone, *args, where=where)


async def say(channel: parallel.Channel[Any, Any], word: str) -> Any:
    async with channel:
        await channel.send(word)
        return await channel.receive()


@two
async def test_a_hub_has_clients_on_every_host(tree: None) -> None:
    async with parallel.spawn(echo, where="a") as (channel, process):
        answers = {}
        async with trio.open_nursery() as nursery:

            async def ask(where: str) -> None:
                answers[where] = await lend(channel, say, where, where=where)

            for where in ("root", "a", "b"):
                nursery.start_soon(ask, where)
    assert answers == {name: (name, name) for name in ("root", "a", "b")}
    assert await process.result() == 3


async def open_for_others(hub: parallel.Hub[Any, Any]) -> str:
    """Send the client a channel to a hub of our own, and answer what comes there."""
    async with parallel.open_hub() as own:
        client, _ = await anext(aiter(hub))
        with own.open_channel() as channel:
            await hub.send(client, channel)
        async for guest, message in own:
            await own.send(guest, f"{message} from {guest.host}")
    return "done"


async def pass_on(channel: parallel.Channel[Any, Any]) -> Any:
    """On the host of the hub, with a channel that came by way of another one."""
    async with channel:
        return await lend(channel, say, "hello", where="a")


@two
async def test_a_channel_that_was_handed_over_hosts_leads_home(tree: None) -> None:
    async with parallel.spawn(open_for_others, where="a") as (channel, process):
        await channel.send("give me one")
        given = await channel.receive()
        async with given:
            assert await lend(given, say, "hi", where="b") == "hi from b"
            # To b, and from there back to a: both ends on one host, all of the way between them.
            assert await lend(given, pass_on, where="b") == "hello from a"
    assert await process.result() == "done"


async def sleep_until_cancelled(path: Path) -> None:
    try:
        await trio.sleep_forever()
    finally:
        with path.open("a") as file:
            file.write(f"{parallel.current_host()}\n")


async def cascade_to_sleep(route: list[str], path: Path) -> None:
    if route:
        await parallel.run(cascade_to_sleep, route[1:], path, where=route[0])
    else:
        path.with_suffix(".there").touch()
        await sleep_until_cancelled(path)


@two
async def test_a_cascade_over_hosts_is_cancelled_as_a_whole(tree: None, tmp_path: Path) -> None:
    path = tmp_path / "log"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cascade_to_sleep, ["a", "b", "root", "a"], path)
        await eventually(path.with_suffix(".there").exists)
        nursery.cancel_scope.cancel()
    assert path.read_text() == "a\n"
    assert len([*await parallel.processes()]) == 2  # the root and its agent


async def run_beside(path: Path) -> None:
    """Have a child on the other host; write down which process we are."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cascade_to_sleep, ["b"], path)
        await eventually(path.with_suffix(".there").exists)
        path.with_suffix(".pid").write_text(str(os.getpid()))


async def kill_when_known(path: Path) -> None:
    await eventually(lambda: path.exists() and path.read_text())
    os.kill(int(path.read_text()), signal.SIGKILL)


@two
async def test_what_a_killed_worker_had_on_another_host_ends(tree: None, tmp_path: Path) -> None:
    path = tmp_path / "log"
    pid = path.with_suffix(".pid")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kill_when_known, pid)
        with pytest.raises(parallel.WorkerDied) as died:
            await parallel.run(run_beside, path, where="a")
    assert (died.value.host, died.value.signal) == ("a", "SIGKILL")
    assert path.read_text() == "b\n"


async def hold(channel: parallel.Channel[Any, Any]) -> None:
    async with channel:
        await channel.send(os.getpid())
        await trio.sleep_forever()


@two
async def test_a_hub_is_told_what_became_of_a_client_on_another_host(tree: None) -> None:
    async with parallel.open_hub() as hub, trio.open_nursery() as nursery:
        with hub.open_channel() as channel:
            nursery.start_soon(lend_until_dead, channel.clone())  # its own
        reasons = []
        async for event in hub.listen():
            match event:
                case parallel.Message(_, pid):
                    os.kill(pid, signal.SIGKILL)
                case parallel.Disconnected(_, reason) if reason is not None:
                    reasons.append(reason)
    assert len(reasons) == 1
    assert isinstance(reasons[0], parallel.WorkerDied)
    assert (reasons[0].host, reasons[0].signal) == ("b", "SIGKILL")


async def lend_until_dead(channel: parallel.Channel[Any, Any]) -> None:
    with channel, pytest.raises(parallel.WorkerDied):
        await parallel.run(hold, channel, where="b")


def print_and_return(text: str) -> int:
    print(text, end="")
    sys.stderr.write("a complaint\n")
    os.write(1, b"raw\n")
    return 7


async def test_output_appears_before_the_result_by_whole_lines(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async with parallel.init(cluster=locals_("a"), label_output=True):
        for text in ("first\n", "second"):
            assert await parallel.run(print_and_return, text, where="a") == 7
            out, err = capfd.readouterr()
            lines = sorted(line.partition(": ")[2] for line in out.splitlines())
            assert "".join(lines) in ("firstraw", "secondraw", "rawsecond")
            assert err.startswith("a ")
            assert err.endswith(": a complaint\n")
        nested = await parallel.run(run_and_print, where="a")
        out, _ = capfd.readouterr()
        assert nested == 7
        assert out.index("inner") < out.index("outer")


async def run_and_print() -> int:
    value = await parallel.run(print_and_return, "inner\n")
    print("outer")
    return value


def die_with_words() -> None:
    sys.stderr.write("these are my last words\n")
    os.abort()


async def run_what_dies() -> None:
    await parallel.run(die_with_words)


@two
@pytest.mark.usefixtures("no_coredump")
async def test_the_last_words_of_a_dead_worker_are_quoted(tree: None) -> None:
    for job in (die_with_words, run_what_dies):
        with pytest.raises(parallel.WorkerDied) as died:
            await parallel.run(job, where="b")
        assert "these are my last words" in died.value.stderr
        assert died.value.signal == "SIGABRT"
        assert died.value.host == "b"


@two
async def test_placements_and_hosts_know_every_host(tree: None) -> None:
    assert parallel.hosts()[0].name == "root"
    assert {host.name for host in parallel.hosts()} == {"root", "a", "b"}
    assert all(host.python and host.slots for host in parallel.hosts())
    seen = {(await parallel.run(whereabouts, where=parallel.round_robin))[0] for _ in range(3)}
    assert seen == {"root", "a", "b"}
    async with parallel.spawn(echo, where="a"), parallel.spawn(echo, where="root"):
        await eventually(lambda: {host.name: host.running for host in parallel.hosts()}["a"] == 1)
        assert await parallel.run(least, where="a") == "b"
    with pytest.raises(parallel.UnknownHost, match=r"root, [ab], [ab]"):
        await parallel.run(whereabouts, where="nowhere")


def least() -> str:
    """As a worker of another host sees it; it runs itself."""
    deadline = time.monotonic() + 10
    while (name := parallel.least_loaded(parallel.hosts())) != "b" and time.monotonic() < deadline:
        time.sleep(0.005)
    return name


@two
async def test_the_tree_of_processes_is_that_of_all_hosts(tree: None, tmp_path: Path) -> None:
    path = tmp_path / "log"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cascade_to_sleep, ["a", "b"], path)
        await eventually(path.with_suffix(".there").exists)
        for tree in (await parallel.processes(), await parallel.run(parallel.processes, where="b")):
            (first,) = [info for info in tree.children if info.host == "a"]
            (second,) = first.children
            assert (second.host, second.name) == ("b", "cascade_to_sleep")
            assert second.memory
        nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_hosts_come_and_go() -> None:
    cluster = locals_("a")
    async with parallel.init(cluster=cluster, grace=2.0):
        await cluster.add(Local(name="late", python=sys.executable))
        assert (await parallel.run(whereabouts, where="late"))[0] == "late"
        assert await parallel.run(relay_run, ["late"], where="a") == ["a", "late"]
        with pytest.raises(parallel.ParallelError, match="two hosts named 'late'"):
            await cluster.add(Local(name="late"))
        async with parallel.spawn(echo, where="late") as (_, process):
            await cluster.remove("late")
            assert (await process.wait()).status == "cancelled"
        assert {host.name for host in parallel.hosts()} == {"root", "a"}
        with pytest.raises(parallel.UnknownHost):
            await parallel.run(whereabouts, where="late")
        with pytest.raises(parallel.UnknownHost):
            await cluster.remove("late")
        await cluster.add(Local(name="late", python=sys.executable))
        assert (await parallel.run(whereabouts, where="late"))[0] == "late"


@pytest.mark.slow
async def test_who_hears_of_a_lost_host_finds_it_gone_and_can_add_it_again_at_once(
    mark: str,
) -> None:
    cluster = locals_("a")
    async with parallel.init(cluster=cluster, grace=2.0):
        for _ in range(3):
            with pytest.raises(parallel.HostDied):
                async with parallel.spawn(echo, where="a") as (channel, _):
                    os.kill(named(marked_processes(mark), "parallel-agent"), signal.SIGKILL)
                    await channel.receive()
            assert [host.name for host in parallel.hosts() if host.down] == ["a"]
            await cluster.add(Local(name="a", python=sys.executable))
            assert (await parallel.run(whereabouts, where="a"))[0] == "a"


def broken(name: str) -> Command:
    """A host that cannot be started."""
    return Command(["sh", "-c", f"echo no way to {name} >&2; exit 3"], name=name)


async def test_every_host_that_fails_is_named() -> None:
    hosts = [Local(name="a", python=sys.executable), broken("x"), broken("y")]
    with pytest.raises(ExceptionGroup) as failed:
        async with parallel.init(cluster=parallel.Cluster(hosts)):
            raise AssertionError
    errors = sorted(failed.value.exceptions, key=str)
    assert [type(error) for error in errors] == [parallel.HostUnreachable] * 2
    for error, name in zip(errors, "xy", strict=True):
        assert isinstance(error, parallel.HostUnreachable)
        assert error.host == name
        assert f"no way to {name}" in error.reason


async def test_missing_hosts_can_be_skipped_and_hosts_says_so() -> None:
    hosts = [Local(name="a", python=sys.executable), broken("x")]
    async with parallel.init(cluster=parallel.Cluster(hosts), missing_hosts="skip"):
        down = {host.name: host.down for host in parallel.hosts()}
        assert down["a"] == down["root"] == ""
        assert "no way to x" in down["x"] or "could not be started" in down["x"]
        assert {parallel.round_robin(up_hosts()) for _ in range(4)} == {"root", "a"}
        with pytest.raises(parallel.HostDied, match="'x'"):
            await parallel.run(whereabouts, where="x")


async def test_hosts_are_in_the_order_of_the_cluster_whichever_comes_first() -> None:
    hosts = [Local(name="slow", setup="sleep 0.3"), broken("x"), Local(name="fast")]
    cluster = parallel.Cluster(hosts)

    def names() -> list[str]:
        return [host.name for host in parallel.hosts()]

    async with parallel.init(cluster=cluster, missing_hosts="skip"):
        assert names() == ["root", "slow", "x", "fast"]
        await cluster.add(Local(name="x"))
        assert names() == ["root", "slow", "fast", "x"]


def up_hosts() -> tuple[parallel.Host, ...]:
    return tuple(host for host in parallel.hosts() if not host.down)


def test_names_are_used_once() -> None:
    for names in (("a", "a"), ("root",), ("local",)):
        with pytest.raises(parallel.ParallelError, match="named"):
            locals_(*names)


async def test_an_unstarted_cluster_takes_no_hosts() -> None:
    with pytest.raises(parallel.ParallelError, match="init"):
        await locals_("a").add("b")
    with pytest.raises(parallel.ParallelError, match="init"):
        await locals_("a").remove("a")
