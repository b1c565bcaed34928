"""The fork server survives whatever its clients say or do; who does it is told, nobody else.

The clients are workers that use their connection bare: see `programs/abuse.py`.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

import parallel

from . import support
from .programs import abuse, deeds, growth

LIMIT = 30.0
OTHERS = 4


class Host:
    """A tree with a few echo servers in it, which notice nothing of what happens beside them."""

    def __init__(self, fork_server: int) -> None:
        self.fork_server = fork_server
        self.channels: list[parallel.Channel[int, int]] = []
        self.descriptors = 0
        self.memory = 0

    def open_descriptors(self) -> int:
        """But for the connection to each child: of spares there may be one more at one time."""
        children = growth.children(self.fork_server)
        return len(os.listdir(f"/proc/{self.fork_server}/fd")) - len(children)

    def resident_memory(self) -> int:
        fields = Path(f"/proc/{self.fork_server}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    def is_asleep(self) -> bool:
        return (
            Path(f"/proc/{self.fork_server}/stat").read_text().rpartition(")")[2].split()[0] == "S"
        )

    async def settle(self) -> None:
        """Wait until it has its spares and nothing to do."""
        with trio.fail_after(10):
            times_asleep = 0
            while times_asleep < 10:
                times_asleep = times_asleep + 1 if self.is_asleep() else 0
                await trio.sleep(0.002)

    async def check_others(self) -> None:
        """Old ones go on, new ones can be had."""
        number = random.randrange(1 << 30)
        for channel in self.channels:
            await channel.send(number)
            assert await channel.receive() == number
        assert await parallel.run(nested)


async def nested() -> int:
    return await parallel.run(os.getpid)


def find_fork_server() -> int:
    (keeper,) = (
        pid
        for pid in growth.children(os.getpid())
        if Path(f"/proc/{pid}/comm").read_text() == "parallel-keeper\n"
    )
    (fork_server,) = growth.children(keeper)
    return fork_server


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    with trio.fail_after(LIMIT):
        async with parallel.init(grace=1.0, preload=[abuse.__name__, deeds.__name__]):
            async with AsyncExitStack() as stack:
                host = Host(find_fork_server())
                for _ in range(OTHERS):
                    block = parallel.spawn(deeds.echo)
                    host.channels.append((await stack.enter_async_context(block))[0])
                await host.check_others()
                await host.settle()
                before = host.open_descriptors()
                yield host
                await host.check_others()
                await host.settle()
                assert host.open_descriptors() == before
                assert find_fork_server() == host.fork_server


# What makes no sense


async def test_garbage_cuts_off_who_says_it_and_nobody_else(host: Host) -> None:
    async def speak(what: str) -> None:
        assert await parallel.run(abuse.speak_garbage, what)

    async with trio.open_nursery() as nursery:
        for what in abuse.GARBAGE:
            nursery.start_soon(speak, what)
        while nursery.child_tasks:
            await host.check_others()


async def test_who_was_cut_off_is_told_so_by_its_next_call(host: Host) -> None:
    with pytest.raises(parallel.ProtocolError):
        await parallel.run(abuse.speak_garbage_and_run)


async def test_who_was_cut_off_is_told_so_by_its_call_under_way(host: Host, mark: str) -> None:
    with pytest.raises(parallel.ProtocolError):
        await parallel.run(abuse.run_among_garbage)


async def test_requests_out_of_place_are_passed_over(host: Host) -> None:
    assert await parallel.run(abuse.speak_out_of_place) == ["Gone", "Gone"]


async def test_a_process_can_be_called_anything(host: Host) -> None:
    assert await parallel.run(abuse.start_with_names) == len(abuse.NAMES)
    for name in abuse.NAMES:
        assert await parallel.run(os.getpid, name=name)


async def test_a_grace_that_makes_no_sense_ends_nothing_but_its_process(host: Host) -> None:
    count = await parallel.run(abuse.cancel_with_odd_graces)
    assert count == len(abuse.GRACES)


async def test_a_start_without_descriptors_is_refused(host: Host) -> None:
    reason = await parallel.run(abuse.start_without_descriptors)
    assert "too many open files" in reason


async def test_a_start_with_a_file_for_a_connection_ends_that_process(host: Host) -> None:
    assert await parallel.run(abuse.start_with_a_file) == 1


@pytest.mark.parametrize("who", ["fork server", "caller"])
def test_without_descriptors_to_be_passed_on_a_call_fails_and_later_ones_do_not(who: str) -> None:
    done = support.run_program(Path(__file__).with_name("programs") / "crowded.py", who)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("Too many references") == 3


async def test_a_request_number_used_twice_is_refused_and_the_first_goes_on(host: Host) -> None:
    heard = await parallel.run(abuse.start_twice_with_one_number)
    assert heard == ["Started", "Refused", "Exited"]


async def test_a_start_on_an_unknown_host_is_refused(host: Host) -> None:
    assert await parallel.run(abuse.start_on_an_unknown_host)


# Half of what makes sense


async def test_a_request_that_is_never_finished_holds_up_nobody(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "said"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parallel.run, abuse.speak_by_halves, str(path))
        await support.eventually(path.exists)
        await host.check_others()
        nursery.cancel_scope.cancel()


async def test_descriptors_cannot_be_heaped_up(host: Host) -> None:
    assert "descriptors" in await parallel.run(abuse.heap_up_descriptors)


@pytest.mark.slow
async def test_who_does_not_read_waits_alone_and_loses_no_answer(
    host: Host, tmp_path: Path
) -> None:
    path = tmp_path / "stuck"
    memory = host.resident_memory()
    answered = 0

    async def ask() -> None:
        nonlocal answered
        answered = await parallel.run(abuse.ask_without_reading, str(path))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await support.eventually(path.exists)
        await host.check_others()
        assert host.resident_memory() - memory < 8 << 20
        path.unlink()
    assert answered > 1000


async def test_who_is_killed_while_it_speaks_disturbs_nobody(host: Host, tmp_path: Path) -> None:
    for number in range(min(support.ROUNDS, 20)):
        path = tmp_path / f"speaking {number}"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill_when, path)
            with pytest.raises(parallel.WorkerDied) as caught:
                await parallel.run(abuse.ask_without_end, str(path), name="speaker")
        assert caught.value.signal == "SIGKILL"
    # What it had asked for has ended with it.
    assert len((await parallel.processes()).children) == OTHERS


async def kill_when(path: Path) -> None:
    await support.eventually(path.exists)
    await trio.sleep(random.random() * 0.02)
    (pid,) = [info.pid for info in await parallel.processes() if info.name == "speaker"]
    os.kill(pid, signal.SIGKILL)


# Nothing more to be had


@contextmanager
def no_more_descriptors(pid: int) -> Iterator[None]:
    """Not a single one: the three lowest are always taken."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@contextmanager
def no_more_processes(pid: int) -> Iterator[None]:
    """By a control group, which holds for the superuser too, else by the limit of the user."""
    if os.getuid() != 0:
        before = resource.prlimit(pid, resource.RLIMIT_NPROC)
        resource.prlimit(pid, resource.RLIMIT_NPROC, (0, before[1]))
        try:
            yield
        finally:
            resource.prlimit(pid, resource.RLIMIT_NPROC, before)
        return
    first = Path("/sys/fs/cgroup/pids")
    top = first if first.is_dir() else first.parent
    group = top / f"parallel-{uuid.uuid4().hex}"
    try:
        group.mkdir()
    except OSError:
        pytest.skip("no control group can be made here")
    try:
        if not (group / "pids.max").exists():
            pytest.skip("no control group limits processes here")
        (group / "pids.max").write_text("1")
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        (top / "cgroup.procs").write_text(str(pid))
        for left in (group / "cgroup.procs").read_text().split():
            (top / "cgroup.procs").write_text(left)
        group.rmdir()


async def use_up_spares(fails: type[Exception]) -> Exception:
    """Until a call fails; there are two spares, or three."""
    for _ in range(4):
        try:
            await parallel.run(os.getpid)
        except fails as exc:
            return exc
    raise AssertionError("there still are processes to be had")


@pytest.mark.parametrize("limited", [no_more_descriptors, no_more_processes])
async def test_who_asks_when_no_more_can_be_had_is_told_so_and_others_notice_nothing(
    host: Host, limited: Callable[[int], Any]
) -> None:
    limit = "ulimit -n|too many open files" if limited is no_more_descriptors else "ulimit -u"
    with limited(host.fork_server):
        error = await use_up_spares(parallel.ParallelError)
        with pytest.raises(parallel.ParallelError, match=limit):
            raise error
        with pytest.raises(parallel.ParallelError, match=limit):
            await parallel.run(os.getpid)
        for number, channel in enumerate(host.channels):
            await channel.send(number)
            assert await channel.receive() == number
    assert await parallel.run(os.getpid)


@pytest.mark.parametrize("limited", [no_more_descriptors, no_more_processes])
async def test_ends_are_told_when_no_more_can_be_had(
    host: Host, limited: Callable[[int], Any], tmp_path: Path, mark: str
) -> None:
    path = tmp_path / "begun"
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def kill() -> None:
            await support.eventually(path.exists)
            (pid,) = [info.pid for info in await parallel.processes() if info.name == "victim"]
            with limited(host.fork_server):
                os.kill(pid, signal.SIGKILL)
                await ended.wait()

        ended = trio.Event()
        with pytest.raises(parallel.WorkerDied) as caught:
            await parallel.run(deeds.start_and_sleep, str(path), name="victim")
        assert "sleep" not in support.marked_processes(mark).values()
        assert not caught.value.maybe_oom
        ended.set()
