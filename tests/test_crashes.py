"""Workers that come to a bad end, and what everybody else sees of it.

`programs/deeds.py` has what they do. Where `init` has a long grace and a test a short limit, the
point is that nobody waits for the grace to run out.
"""

from __future__ import annotations

import functools
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

import parallel

from . import support
from .elsewhere import host
from .programs import deeds, growth

LONG = 60.0
AT_ONCE = 10.0
"""Seconds: far below a long grace, far above what anything here takes."""

GRACE = 0.5

PRELOAD = [deeds.__name__]
"""It imports what takes a while."""

HOST_PROGRAMS = {
    "parallel-keeper",
    "parallel-forkse",
    "parallel: spare",
    # and of a cluster
    "parallel: agent",
    "parallel-agent",
    "sh",
}

pytestmark = pytest.mark.usefixtures("no_coredump")


@pytest.fixture
async def patient_tree() -> AsyncIterator[None]:
    """Nothing ends here because a grace has run out."""
    with trio.fail_after(LONG / 2):
        async with parallel.init(grace=LONG, preload=PRELOAD):
            yield


@pytest.fixture
async def hasty_tree() -> AsyncIterator[None]:
    """Here it is the grace that ends something."""
    async with parallel.init(grace=GRACE, preload=PRELOAD):
        yield


def nothing_left(mark: str) -> bool:
    """Right now; the host's own programs aside."""
    left = support.marked_processes(mark)
    return set(left.values()) <= HOST_PROGRAMS


Maker = Callable[..., Callable[[], Any]]


def in_sync(function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    return lambda: function(*args)


both = support.in_turn("made", [in_sync, deeds.in_async], ids=["sync", "async"])


async def died(function: Callable[..., Any], *args: Any) -> parallel.WorkerDied:
    """Run it: it must not come back."""
    with pytest.raises(parallel.WorkerDied) as caught:
        await parallel.run(function, *args, name="victim")
    assert caught.value.name == "victim"
    assert caught.value.host == host()
    assert caught.value.pid > 0
    return caught.value


# Ends without a result


@both
async def test_os_exit_is_a_death_with_an_exit_code(patient_tree: None, made: Maker) -> None:
    error = await died(made(deeds.exit_at_once, 3))
    assert (error.returncode, error.signal) == (3, None)
    assert "exited with code 3 without a result" in str(error)


@both
async def test_sys_exit_ends_the_worker_with_its_code_and_not_the_caller(
    patient_tree: None, made: Maker
) -> None:
    codes = {None: 0, 0: 0, 5: 5, True: 1, 300: 44, -1: 255}
    for code, returncode in codes.items():
        error = await died(made(deeds.exit_properly, code))
        assert error.returncode == returncode
        assert isinstance(error.__cause__, parallel.RemoteError)
        assert error.__cause__.type_name == "SystemExit"


@both
async def test_sys_exit_with_a_text_prints_it_and_exits_with_1(
    patient_tree: None, made: Maker, capfd: pytest.CaptureFixture[str]
) -> None:
    error = await died(made(deeds.exit_properly, "that was it"))
    assert error.returncode == 1
    assert capfd.readouterr().err == "that was it\n"


async def test_sys_exit_in_a_task_is_as_in_a_program_a_group_and_exit_code_1(
    patient_tree: None,
) -> None:
    error = await died(deeds.exit_from_a_task, 5)
    assert error.returncode == 1
    assert isinstance(error.__cause__, parallel.RemoteError)
    assert "SystemExit" in error.__cause__.traceback


@both
async def test_what_is_no_exception_ends_the_worker_and_is_told_as_the_cause(
    patient_tree: None, made: Maker
) -> None:
    type_names: dict[Callable[[], None], str] = {
        deeds.interrupt: "KeyboardInterrupt",
        deeds.raise_base_exception: "OwnBaseError",
        deeds.raise_base_group: "BaseExceptionGroup",
    }
    for deed, type_name in type_names.items():
        error = await died(made(deed))
        assert error.returncode == 1
        assert isinstance(error.__cause__, parallel.RemoteError)
        assert error.__cause__.type_name == type_name
        assert deed.__name__ in error.__cause__.traceback


@both
async def test_a_crash_is_told_by_its_signal(patient_tree: None, made: Maker) -> None:
    crashes: dict[str, Callable[[], Any]] = {
        "SIGSEGV": made(deeds.segfault),
        "SIGABRT": made(deeds.abort),
        "SIGKILL": made(deeds.kill_oneself, signal.SIGKILL),
        "SIGHUP": made(deeds.kill_oneself, signal.SIGHUP),
    }
    for name, deed in crashes.items():
        error = await died(deed)
        assert error.signal == name
        assert not error.maybe_oom
        assert f"was killed by {name}" in str(error)


@both
async def test_memory_refused_is_an_error_like_any_other(patient_tree: None, made: Maker) -> None:
    with pytest.raises(MemoryError):
        await parallel.run(made(deeds.use_too_much_memory))


@contextmanager
def memory_limit() -> Iterator[Path]:
    """A control group that holds 64 MB; the test is skipped where there can be none."""
    first = Path("/sys/fs/cgroup/memory")
    group = (first if first.is_dir() else first.parent) / f"parallel-{uuid.uuid4().hex}"
    limit = "memory.limit_in_bytes" if first.is_dir() else "memory.max"
    try:
        group.mkdir()
    except OSError:
        pytest.skip("no control group can be made here")
    try:
        if not (group / limit).exists():
            pytest.skip("no control group limits memory here")
        (group / limit).write_text(str(1 << 26))
        yield group
    finally:
        group.rmdir()


@pytest.mark.parametrize("made", [in_sync, deeds.in_async], ids=["sync", "async"])
async def test_the_kernel_killing_for_memory_is_suspected(patient_tree: None, made: Maker) -> None:
    with memory_limit() as group:
        error = await died(made(deeds.be_killed_for_memory, str(group)))
        assert error.signal == "SIGKILL"
        assert error.maybe_oom
        assert "memory" in str(error)
    error = await died(made(deeds.kill_oneself, signal.SIGKILL))
    assert not error.maybe_oom


@both
async def test_a_worker_that_closes_all_its_descriptors_is_a_dead_worker(
    patient_tree: None, made: Maker
) -> None:
    await died(made(deeds.close_all_descriptors))
    assert await parallel.run(os.getpid)


async def test_a_process_that_the_caller_does_not_wait_for_at_once_is_told_the_same(
    patient_tree: None,
) -> None:
    async with trio.open_nursery() as nursery:
        channel, process = await parallel.spawn(deeds.echo, nursery=nursery)
        with channel:
            await channel.send(1)
            assert await channel.receive() == 1
    assert (await process.wait()).status == "returned"

    async def crash(hub: parallel.Hub[int, int]) -> None:
        os._exit(7)

    with pytest.raises(parallel.WorkerDied) as caught:
        async with parallel.spawn(crash) as (channel, process):
            await channel.receive()
    assert caught.value.pid == process.pid
    assert process.returncode == 7
    assert (await process.wait()).status == "died"


# Standard streams, threads, exit functions


@both
async def test_writing_to_descriptors_1_and_2_disturbs_nothing(
    patient_tree: None, made: Maker, capfd: pytest.CaptureFixture[str]
) -> None:
    assert await parallel.run(made(deeds.write_to_descriptors)) == "done"
    out, err = capfd.readouterr()  # a result follows the output before it
    assert out == "to descriptor 1\nprinted\n"
    assert err == "to descriptor 2\n"


@both
async def test_standard_input_is_at_its_end(patient_tree: None, made: Maker) -> None:
    assert await parallel.run(made(deeds.read_standard_input)) == (b"", "", "end of file")


@both
@support.in_turn("raises", [False, True], ids=["returns", "raises"])
@pytest.mark.slow
async def test_threads_are_waited_for_exit_functions_run_and_output_is_flushed(
    made: Maker, raises: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "notes"
    async with parallel.init(grace=LONG, preload=PRELOAD):
        with trio.fail_after(AT_ONCE):
            if raises:
                with pytest.raises(ValueError, match="on purpose"):
                    error = ValueError("on purpose")
                    await parallel.run(made(deeds.leave_things_for_the_exit, str(path), error))
            else:
                value = await parallel.run(made(deeds.leave_things_for_the_exit, str(path), 42))
                assert value == 42
    assert path.read_text() == "thread\natexit\n"
    assert capfd.readouterr().out.rstrip() == "unflushed"  # of another host come whole lines


@support.in_turn("deed", [deeds.hang_at_exit, deeds.leave_a_thread])
@support.in_turn("moment", ["at once", "later"])
@pytest.mark.slow
async def test_a_worker_that_hangs_at_its_exit_ends_when_cancelled_and_its_result_stands(
    hasty_tree: None, deed: Callable[[object], object], moment: str, mark: str
) -> None:
    async def fn(hub: parallel.Hub[None, str]) -> object:
        async for client, _ in hub:
            hub.send_nowait(client, "returning")
            break
        return deed("kept")

    with trio.fail_after(AT_ONCE):
        async with parallel.spawn(fn) as (channel, process):
            await channel.send(None)
            assert await channel.receive() == "returning"
            if moment == "later":
                await support.eventually(lambda: not catches_sigterm(process.pid))
            start = time.monotonic()
            process.cancel()
    assert time.monotonic() - start < GRACE + 1
    assert await process.result() == "kept"
    assert nothing_left(mark)


def catches_sigterm(pid: int) -> bool:
    """Until an async function and all that it sent are through."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


# Forks


@both
async def test_a_forked_copy_of_a_worker_ends_with_it(
    patient_tree: None, made: Maker, mark: str
) -> None:
    assert await parallel.run(made(deeds.fork_and_return, 42)) == 42
    assert nothing_left(mark)


@both
async def test_a_forked_copy_that_returns_too_says_nothing(
    patient_tree: None, made: Maker, tmp_path: Path, mark: str
) -> None:
    path = tmp_path / "copy"
    assert await parallel.run(made(deeds.return_twice, str(path))) == "from the original"
    assert path.read_text() == "was here"
    assert nothing_left(mark)


@both
@support.in_turn("method", ["fork", "spawn", "forkserver"])
async def test_multiprocessing_works_in_a_worker(
    patient_tree: None, made: Maker, method: str, mark: str
) -> None:
    assert await parallel.run(made(deeds.use_multiprocessing, method)) == [1, 2, 3]
    assert nothing_left(mark)


@both
async def test_concurrent_futures_work_in_a_worker(
    patient_tree: None, made: Maker, mark: str
) -> None:
    assert await parallel.run(made(deeds.use_executor)) == [1, 2, 3]
    assert nothing_left(mark)


# Programs that a worker started


@both
async def test_programs_of_a_worker_that_returns_are_gone(
    patient_tree: None, made: Maker, mark: str
) -> None:
    assert await parallel.run(made(deeds.start_and_return)) == "returned"
    assert nothing_left(mark)


@both
async def test_programs_of_a_worker_that_raises_are_gone(
    patient_tree: None, made: Maker, mark: str
) -> None:
    with pytest.raises(ValueError, match="on purpose"):
        await parallel.run(made(deeds.start_and_raise))
    assert nothing_left(mark)


sleepers = support.in_turn(
    "function",
    [deeds.start_and_sleep, deeds.start_and_sleep_async, deeds.start_a_stubborn_program],
)


@sleepers
async def test_programs_of_a_worker_that_is_cancelled_are_gone(
    patient_tree: None, function: Callable[[str], Any], tmp_path: Path, mark: str
) -> None:
    path = tmp_path / "begun"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parallel.run, function, str(path))
        await support.eventually(path.exists)
        nursery.cancel_scope.cancel()
    assert nothing_left(mark)


@sleepers
async def test_programs_of_a_worker_that_is_killed_are_gone(
    patient_tree: None, function: Callable[[str], Any], tmp_path: Path, mark: str
) -> None:
    path = tmp_path / "begun"

    async def kill() -> None:
        await support.eventually(path.exists)
        (child,) = [info for info in (await parallel.processes()).children if info.name != "agent"]
        os.kill(child.pid, signal.SIGKILL)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(kill)
        error = await died(function, str(path))
    assert error.signal == "SIGKILL"
    assert nothing_left(mark)


@pytest.mark.skipif(os.getuid() != 0, reason="only the superuser can start programs as others")
def test_a_program_that_runs_as_somebody_else_holds_up_nobody(mark: str) -> None:
    """It may be left behind: it is not ours to kill."""
    program = Path(__file__).with_name("programs") / "foreign_program.py"
    done = support.run_program(program)
    assert (done.returncode, done.stderr) == (0, "")
    pid = int(done.stdout)
    assert support.marked_processes(mark) == {pid: "sleep"}
    os.kill(pid, signal.SIGKILL)


# Cancellation, heard and ignored


@pytest.mark.parametrize("depth", [0, 2])
@support.in_turn(
    "function",
    [
        deeds.shield_itself,
        deeds.swallow_cancellation,
        deeds.hang_in_finally,
        deeds.never_await,
        deeds.stop_itself,
        deeds.ignore_sigterm,
        deeds.swallow_everything,
        deeds.hold_the_interpreter_lock,
        deeds.hold_the_interpreter_lock_in_sync,
    ],
)
@pytest.mark.slow
async def test_who_ignores_cancellation_is_killed_within_grace(
    hasty_tree: None, function: Callable[[str], Any], depth: int, tmp_path: Path, mark: str
) -> None:
    path = str(tmp_path / "begun")
    args: tuple[Any, ...] = (function, path)
    for _ in range(depth):
        args = (functools.partial(deeds.sleep_above, args[0]), path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parallel.run, *args)
        await support.eventually((tmp_path / "begun").exists)
        start = time.monotonic()
        nursery.cancel_scope.cancel()
    taken = time.monotonic() - start
    assert nothing_left(mark)
    assert GRACE - 0.1 < taken < GRACE + 1


@support.in_turn("function", [deeds.sleep_in_sync, deeds.compute_for_ever])
async def test_a_sync_function_is_ended_at_once(
    patient_tree: None, function: Callable[[str], Any], tmp_path: Path, mark: str
) -> None:
    path = tmp_path / "begun"
    with trio.fail_after(AT_ONCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(parallel.run, function, str(path))
            await support.eventually(path.exists)
            nursery.cancel_scope.cancel()
    assert nothing_left(mark)


async def test_an_async_function_cleans_up_when_it_is_cancelled(
    patient_tree: None, tmp_path: Path
) -> None:
    path = tmp_path / "begun"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parallel.run, deeds.clean_up, str(path))
        await support.eventually(path.exists)
        nursery.cancel_scope.cancel()
    assert path.read_text() == "cleaned up"


async def test_a_value_that_comes_despite_cancellation_is_not_lost(
    patient_tree: None, tmp_path: Path
) -> None:
    path = tmp_path / "begun"
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                await support.eventually(path.exists)
                scope.cancel()

            value = await parallel.run(deeds.answer_despite_cancellation, str(path))
            assert value == "a value"


async def test_an_error_that_comes_despite_cancellation_is_not_lost(
    patient_tree: None, tmp_path: Path
) -> None:
    path = tmp_path / "begun"
    with pytest.raises(ValueError, match="on the way out"):
        with trio.CancelScope() as scope:
            process = parallel.run(deeds.raise_despite_cancellation, str(path))
            await cancel_when(path, scope, process)


async def cancel_when(path: Path, scope: trio.CancelScope, call: Awaitable[Any]) -> Any:
    """Await the call; cancel the scope when the path exists."""
    failure: BaseException | None = None

    async def watch() -> None:
        with trio.CancelScope(shield=True):
            await support.eventually(path.exists)
        scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            try:
                return await call
            except ValueError as exc:
                failure = exc
    finally:  # an old trio's nursery notices the cancellation as it is left
        if failure is not None:
            raise failure


# The awkward moments


@asynccontextmanager
async def company(count: int) -> AsyncIterator[None]:
    """So many other calls are under way meanwhile, and notice nothing."""
    async with AsyncExitStack() as stack:
        others = [await stack.enter_async_context(parallel.spawn(deeds.echo)) for _ in range(count)]
        yield
        for number, (channel, _) in enumerate(others):
            await channel.send(number)
            assert await channel.receive() == number
    for _, process in others:
        assert await process.result() == "served"


Call = Callable[[], Awaitable[Any]]


async def alone_and_in_company(mark: str, calls: Mapping[str, Call]) -> None:
    """Each call raises or asserts what it must, and leaves nothing."""
    for moment, call in calls.items():
        with support.case(moment), trio.fail_after(AT_ONCE):
            await call()
            assert nothing_left(mark)
    async with company(10):
        for moment, call in calls.items():
            with support.case(f"{moment}, in company"), trio.fail_after(AT_ONCE):
                await call()


async def call_raises(error: type[BaseException], match: str | None, *task: Any) -> None:
    with pytest.raises(error, match=match) as caught:
        await parallel.run(*task)
    assert type(caught.value) is error


async def call_hangs_until_cancelled(*task: Any) -> None:
    """Its process exists for a while; cancelled, it ends at once."""
    pids: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_named, *task)
        while not pids:
            tree = await parallel.processes()
            pids = [info.pid for info in tree if info.name == "hangs"]
        await support.eventually(lambda: is_asleep(pids[0]))
        nursery.cancel_scope.cancel()
    assert not Path(f"/proc/{pids[0]}").exists()


async def run_named(*task: Any) -> None:
    await parallel.run(*task, name="hangs")


def is_asleep(pid: int) -> bool:
    """In `time.sleep`, and in no system call of an event loop."""
    return Path(f"/proc/{pid}/wchan").read_text() in ("hrtimer_nanosleep", "common_nsleep")


crash = "was killed by SIGSEGV"
two_arguments = (deeds.fail, deeds.TwoArgumentsError, 7, "two arguments")

worker_moments: dict[str, tuple[type[BaseException], str | None, tuple[Any, ...]]] = {
    "unpickling the task: error": (
        parallel.RemoteError,
        "the task 'take' could not be unpickled here: ValueError: on purpose",
        (deeds.take, deeds.UnpicklesBadly("error")),
    ),
    "unpickling the task: exit": (
        parallel.RemoteError,
        "the task 'take' could not be unpickled here: SystemExit: 3",
        (deeds.take, deeds.UnpicklesBadly("exit")),
    ),
    "unpickling the task: crash": (
        parallel.WorkerDied,
        crash,
        (deeds.take, deeds.UnpicklesBadly("crash")),
    ),
    "running: error": (ValueError, "on purpose", (deeds.misbehave, "error")),
    "running: exit": (parallel.WorkerDied, "exited with code 3", (deeds.misbehave, "exit")),
    "running: crash": (parallel.WorkerDied, crash, (deeds.misbehave, "crash")),
    "pickling the result: error": (
        parallel.NotSendable,
        "cannot send the result of 'give': .*PicklesBadly .*ValueError: on purpose",
        (deeds.give, deeds.PicklesBadly, "error"),
    ),
    "pickling the result: exit": (
        parallel.NotSendable,
        "cannot send the result of 'give': .*PicklesBadly .*SystemExit: 3",
        (deeds.give, deeds.PicklesBadly, "exit"),
    ),
    "pickling the result: crash": (
        parallel.WorkerDied,
        crash,
        (deeds.give, deeds.PicklesBadly, "crash"),
    ),
    "pickling the exception: error": (
        parallel.RemoteError,
        "PicklesBadlyError: pickling it does error",
        (deeds.fail, deeds.PicklesBadlyError, "error"),
    ),
    "pickling the exception: exit": (
        parallel.RemoteError,
        "PicklesBadlyError: pickling it does exit",
        (deeds.fail, deeds.PicklesBadlyError, "exit"),
    ),
    "pickling the exception: crash": (
        parallel.WorkerDied,
        crash,
        (deeds.fail, deeds.PicklesBadlyError, "crash"),
    ),
    "two arguments": (deeds.TwoArgumentsError, r"two arguments \(7\)", two_arguments),
    "text of the exception: error": (
        deeds.BadTextError,
        None,
        (deeds.fail, deeds.BadTextError, "error"),
    ),
}


caller_moments: dict[str, tuple[type[BaseException], str | None, tuple[Any, ...]]] = {
    "pickling the task: error": (
        parallel.NotSendable,
        "argument 0 of 'take': .*PicklesBadly .*ValueError: on purpose",
        (deeds.take, deeds.PicklesBadly("error")),
    ),
    "pickling the task: exit": (
        parallel.NotSendable,
        "argument 0 of 'take': .*PicklesBadly .*SystemExit: 3",
        (deeds.take, deeds.PicklesBadly("exit")),
    ),
    "unpickling the result: error": (
        parallel.RemoteError,
        "the result of 'give' could not be unpickled here: ValueError: on purpose",
        (deeds.give, deeds.UnpicklesBadly, "error"),
    ),
    "unpickling the result: exit": (
        parallel.RemoteError,
        "the result of 'give' could not be unpickled here: SystemExit: 3",
        (deeds.give, deeds.UnpicklesBadly, "exit"),
    ),
    "unpickling the exception: error": (
        parallel.RemoteError,
        "UnpicklesBadlyError: unpickling it does error",
        (deeds.fail, deeds.UnpicklesBadlyError, "error"),
    ),
    "unpickling the exception: exit": (
        parallel.RemoteError,
        "UnpicklesBadlyError: unpickling it does exit",
        (deeds.fail, deeds.UnpicklesBadlyError, "exit"),
    ),
}

moments = {**worker_moments, **caller_moments}


def as_async(task: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same from an async function."""
    other = {deeds.give: deeds.give_async, deeds.fail: deeds.fail_async}
    return (other.get(task[0], task[0]), *task[1:])


async def test_what_goes_wrong_at_an_awkward_moment_is_told_at_once(
    patient_tree: None, mark: str
) -> None:
    calls: dict[str, Call] = {}
    for moment, (error, match, task) in moments.items():
        async_match = match and match.replace("'give'", "'give_async'")
        calls[moment] = functools.partial(call_raises, error, match, *task)
        calls[f"{moment}, async"] = functools.partial(
            call_raises, error, async_match, *as_async(task)
        )
    await alone_and_in_company(mark, calls)


hanging_moments: dict[str, tuple[Any, ...]] = {
    "unpickling the task": (deeds.take, deeds.UnpicklesBadly("hang")),
    "running": (deeds.misbehave, "hang"),
    "pickling the result": (deeds.give, deeds.PicklesBadly, "hang"),
    "pickling the exception": (deeds.fail, deeds.PicklesBadlyError, "hang"),
    "text of the exception": (deeds.fail, deeds.BadTextError, "hang"),
}


async def test_a_hang_at_an_awkward_moment_ends_when_it_is_cancelled(
    patient_tree: None, mark: str
) -> None:
    await alone_and_in_company(
        mark,
        {
            moment: functools.partial(call_hangs_until_cancelled, *task)
            for moment, task in hanging_moments.items()
        },
    )


@pytest.mark.slow
async def test_a_hang_where_an_async_function_cannot_hear_ends_within_grace(
    hasty_tree: None, mark: str
) -> None:
    deaf = ("pickling the result", "pickling the exception")
    tasks = {moment: as_async(hanging_moments[moment]) for moment in deaf}
    await alone_and_in_company(
        mark,
        {
            moment: functools.partial(call_hangs_until_cancelled, *task)
            for moment, task in tasks.items()
        },
    )


async def test_two_arguments_arrive_as_they_were(patient_tree: None) -> None:
    with pytest.raises(deeds.TwoArgumentsError) as caught:
        await parallel.run(*two_arguments)
    assert caught.value.code == 7


async def test_what_cannot_be_sent_starts_no_process(patient_tree: None) -> None:
    before = [host.running for host in parallel.hosts()]
    with pytest.raises(parallel.NotSendable):
        await parallel.run(deeds.take, growth.MARK, deeds.PicklesBadly("error"))
    assert [host.running for host in parallel.hosts()] == before
