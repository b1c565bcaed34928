"""`init`: what it takes, what it refuses, what it starts and what it leaves."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import os
import resource
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

import parallel
from parallel import HostUnreachable, ParallelError

from .support import eventually, in_turn, marked_processes, open_descriptors, run_program

# Arguments


@pytest.mark.parametrize(
    "options",
    [
        {"grace": -1},
        {"grace": math.nan},
        {"heartbeat": 0},
        {"heartbeat": math.nan},
        {"spares": -1},
        {"buffer_size": 0},
        {"max_message_size": 0},
    ],
    ids=str,
)
async def test_an_argument_that_makes_no_sense_is_a_value_error(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        async with parallel.init(**options):
            raise AssertionError


async def test_preload_wants_names_not_a_name() -> None:
    with pytest.raises(TypeError, match="preload"):
        async with parallel.init(preload="numpy"):
            raise AssertionError


async def test_options_are_keywords() -> None:
    with pytest.raises(TypeError):
        parallel.init(parallel.Cluster())  # type: ignore[misc]


@pytest.mark.parametrize("options", [{"spares": 0}, {"spares": 5}, {"grace": 0.0}], ids=str)
async def test_the_bounds_themselves_are_fine(options: dict[str, Any]) -> None:
    async with parallel.init(**options):
        pids = [await parallel.run(os.getpid) for _ in range(4)]
    assert len({*pids, os.getpid()}) == 5


async def test_without_a_limit_of_time_a_cancelled_function_has_all_it_wants(
    tmp_path: Path,
) -> None:
    started, cleaned = tmp_path / "started", tmp_path / "cleaned"

    async def clean_up() -> None:
        started.touch()
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.2)
                cleaned.touch()

    async with parallel.init(grace=math.inf):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(parallel.run, clean_up)
            await eventually(started.exists)
            nursery.cancel_scope.cancel()
        assert cleaned.exists()
        assert await parallel.run(os.getpid)


async def test_max_message_size_holds_for_tasks_and_results() -> None:
    async with parallel.init(max_message_size=1000):
        with pytest.raises(parallel.MessageTooLarge) as caught:
            await parallel.run(len, b"x" * 2000)
        assert caught.value.limit == 1000
        with pytest.raises(parallel.MessageTooLarge) as caught:
            await parallel.run(bytes, 2000)
        assert caught.value.limit == 1000
        # It is about messages; what a worker is told of its surroundings may be larger.
        env = {"LARGE": "x" * 5000}
        assert await parallel.run(len, b"x" * 500, env=env) == 500


def fail_at_length() -> None:
    raise ValueError("x" * 5000)


async def test_max_message_size_does_not_hide_an_exception() -> None:
    async with parallel.init(max_message_size=1000):
        with pytest.raises(ValueError, match="xxx"):
            await parallel.run(fail_at_length)


# One at a time


async def test_init_within_init_is_refused_and_the_outer_one_goes_on() -> None:
    async with parallel.init():
        with pytest.raises(ParallelError, match="init within init"):
            async with parallel.init():
                raise AssertionError
        assert await parallel.run(os.getpid)


async def init_here() -> None:
    async with parallel.init():
        raise AssertionError


async def test_init_in_a_worker_is_refused(tree: None) -> None:
    with pytest.raises(ParallelError, match="in a worker"):
        await parallel.run(init_here)


async def test_of_two_at_the_same_time_one_is_refused() -> None:
    entered: list[bool] = []

    async def enter() -> None:
        try:
            async with parallel.init():
                entered.append(True)
                await eventually(lambda: len(entered) == 2)
                assert await parallel.run(os.getpid)
        except ParallelError:
            entered.append(False)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(enter)
        nursery.start_soon(enter)
    assert sorted(entered) == [False, True]


async def test_one_after_the_other_is_fine() -> None:
    for _ in range(3):
        async with parallel.init():
            assert await parallel.run(os.getpid)


def test_one_after_the_other_in_event_loops_of_their_own() -> None:
    async def main() -> None:
        async with parallel.init():
            assert await parallel.run(os.getpid)

    for _ in range(2):
        trio.run(main)


async def test_a_start_that_was_refused_or_cancelled_stands_in_nobody_s_way() -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        async with parallel.init():
            pass
    assert scope.cancelled_caught
    with pytest.raises(HostUnreachable):
        async with parallel.init(preload=["no_such_module"]):
            pass
    async with parallel.init():
        assert await parallel.run(os.getpid)


# Where it is missing


async def nothing(hub: parallel.Hub[Any, Any]) -> None: ...


async def test_outside_of_init_everything_says_what_is_missing() -> None:
    async with parallel.init():
        pass
    for attempt in (
        lambda: parallel.run(os.getpid),
        lambda: parallel.spawn(nothing).__aenter__(),
        lambda: parallel.open_hub().__aenter__(),
        parallel.processes,
    ):
        with pytest.raises(ParallelError, match=r"async with parallel\.init\(\)"):
            await attempt()  # type: ignore[operator]


async def test_in_a_process_that_the_user_forked_it_is_missing_too(tree: None) -> None:
    def fork_and_ask() -> int:
        pid = os.fork()
        if pid == 0:
            try:
                parallel.current_host()
            except ParallelError:
                os._exit(7)
            finally:
                os._exit(1)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert await parallel.run(fork_and_ask) == 7


# Event loops


async def test_a_second_event_loop_at_the_same_time_is_refused(tree: None) -> None:
    assert await parallel.run(os.getpid)
    with pytest.raises(ParallelError, match="another event loop"):
        await trio.to_thread.run_sync(trio.run, parallel.run, os.getpid)
    assert await parallel.run(os.getpid)


def two_loops() -> list[int]:
    return [trio.run(parallel.run, os.getpid) for _ in range(2)]


async def test_one_event_loop_after_the_other_is_fine_in_a_sync_function(tree: None) -> None:
    pids = await parallel.run(two_loops)
    assert len({*pids, os.getpid()}) == 3


def use_asyncio() -> int:
    async def work() -> int:
        await asyncio.sleep(0)
        return 5

    return asyncio.run(work())


async def test_a_sync_function_may_use_asyncio(tree: None) -> None:
    assert await parallel.run(use_asyncio) == 5


def outside_of_any_loop() -> list[str]:
    found = []
    for ask in (trio.lowlevel.current_task, asyncio.get_running_loop):
        try:
            ask()
        except RuntimeError:
            continue
        found.append(ask.__name__)
    return found


async def test_a_sync_function_runs_outside_of_any_event_loop(tree: None) -> None:
    assert await parallel.run(outside_of_any_loop) == []


async def test_the_root_may_live_in_another_thread_than_the_main_one() -> None:
    async def main() -> int:
        async with parallel.init():
            return await parallel.run(os.getpid)

    assert await trio.to_thread.run_sync(trio.run, main) != os.getpid()


def test_outside_of_trio_init_says_so() -> None:
    async def main() -> None:
        async with parallel.init():
            pass

    with pytest.raises((ParallelError, RuntimeError), match="trio"):
        asyncio.run(main())


# Too many open files


@pytest.fixture
def few_files() -> Iterator[Callable[[int], None]]:
    """Let this process open so many files more and no others."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []

    def leave(count: int) -> None:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (max(map(int, open_descriptors())) + 8, limits[1])
        )
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(count):
            os.close(held.pop())

    yield leave
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    for descriptor in held:
        os.close(descriptor)


@pytest.mark.parametrize("count", [1, 3, 4])
async def test_without_files_to_be_had_a_call_fails_and_leaves_none_open(
    tree: None, count: int, few_files: Callable[[int], None]
) -> None:
    assert await parallel.run(os.getpid)
    few_files(count)
    before = open_descriptors()
    for _ in range(3):
        try:
            async with parallel.spawn(nothing):
                pass
        except OSError as exc:
            outcome = exc.errno
        else:
            outcome = 0
        assert outcome == (errno.EMFILE if count < 4 else 0)
        assert len(open_descriptors()) == len(before)


# Preloading


PRELOADED = """
import os
with open(os.environ["LOADED"], "a") as file:
    file.write(f"{os.getpid()}\\n")
value = [1]
def look():
    return value, os.getpid()
"""


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for modules; `LOADED` names a file that they may write to."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("LOADED", str(tmp_path / "loaded"))
    yield tmp_path
    for name in ("heavy_module", "broken_module"):
        sys.modules.pop(name, None)


async def test_a_preloaded_module_is_imported_once_for_all_workers(loaded: Path) -> None:
    (loaded / "heavy_module.py").write_text(PRELOADED)

    def use() -> tuple[list[int], int]:
        import heavy_module  # type: ignore[import-not-found]

        heavy_module.value.append(2)
        value: tuple[list[int], int] = heavy_module.look()
        return value

    async with parallel.init(preload=["heavy_module", "json.tool"]):
        results = [await parallel.run(use) for _ in range(3)]
        assert await parallel.run(lambda: "json.tool" in sys.modules)
    (importer,) = (loaded / "loaded").read_text().split()
    assert all(value == [1, 2] for value, _ in results)
    assert int(importer) not in {os.getpid(), *(pid for _, pid in results)}


@pytest.mark.parametrize(
    ("source", "texts"),
    [
        ("1 / 0", ["ZeroDivisionError", "broken_module.py", "line 1"]),
        ("raise SystemExit(3)", ["SystemExit: 3"]),
        ("def f(:", ["SyntaxError"]),
        ("import not_there_either", ["ModuleNotFoundError", "not_there_either"]),
        ("raise ValueError('\N{SNOWMAN}' * 40_000)", ["\N{SNOWMAN}"]),
        ("raise ValueError('x' * 100_000)", ["xxx"]),
    ],
)
async def test_a_preload_that_fails_says_how(loaded: Path, source: str, texts: list[str]) -> None:
    (loaded / "broken_module.py").write_text(source)
    with pytest.raises(HostUnreachable) as caught:
        async with parallel.init(preload=["broken_module"]):
            raise AssertionError
    assert caught.value.host == "root"
    for text in texts:
        assert text in str(caught.value)


async def test_a_preload_that_is_not_there_says_so() -> None:
    with pytest.raises(HostUnreachable, match="No module named 'no_such_module'"):
        async with parallel.init(preload=["no_such_module"]):
            raise AssertionError


async def test_a_preload_that_ends_its_process_is_an_error_too(
    loaded: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (loaded / "broken_module.py").write_text("import os; os._exit(3)")
    with pytest.raises(HostUnreachable, match="ended at once"):
        async with parallel.init(preload=["broken_module"]):
            raise AssertionError


async def test_a_preload_that_hangs_can_be_cancelled(loaded: Path, mark: str) -> None:
    source = "import os, time\nopen(os.environ['LOADED'], 'w').close()\ntime.sleep(1000)"
    (loaded / "broken_module.py").write_text(source)
    async with trio.open_nursery() as nursery:

        async def start() -> None:
            async with parallel.init(preload=["broken_module"]):
                raise AssertionError

        nursery.start_soon(start)
        await eventually((loaded / "loaded").exists)
        nursery.cancel_scope.cancel()
    await eventually(lambda: not marked_processes(mark))


async def test_a_preload_may_print(loaded: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (loaded / "heavy_module.py").write_text("print('loading', flush=True)")
    async with parallel.init(preload=["heavy_module"]):
        assert await parallel.run(os.getpid)
    assert capfd.readouterr().out == "loading\n"


# The start


async def test_an_interpreter_that_is_not_there_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(HostUnreachable, match="/nowhere/python"):
        async with parallel.init():
            raise AssertionError


async def test_an_import_path_with_odd_entries_is_no_hindrance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = [tmp_path, "/with/\udcff", "", "\N{SNOWMAN}", None]
    monkeypatch.setattr(sys, "path", [*sys.path, *odd])
    async with parallel.init():
        assert await parallel.run(lambda: sys.path[-5:]) == odd


@pytest.mark.slow
async def test_an_import_path_longer_than_a_socket_holds_is_no_hindrance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    long = [f"/nowhere/{number:01000}" for number in range(1_000)]
    monkeypatch.setattr(sys, "path", [*sys.path, *long])
    with trio.fail_after(60):
        async with parallel.init():
            assert await parallel.run(lambda: sys.path[-1]) == long[-1]


def test_the_root_keeps_its_own_limits_and_signals(tmp_path: Path) -> None:
    program = """
        import gc, os, resource, signal, sys, trio, parallel

        def state():
            signals = [signal.getsignal(n) for n in signal.valid_signals() if n < 32]
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            fds = sorted(os.listdir("/proc/self/fd"))
            garbage = gc.isenabled(), gc.get_freeze_count()
            return signals, limits, fds, garbage, os.getpgid(0), sys.path[:]

        async def main():
            before = state()
            async with parallel.init():
                await parallel.run(os.getpid)
            assert state() == before

        trio.run(main)
        print("fine")
    """
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(program))
    done = run_program(path)
    assert (done.stdout, done.stderr) == ("fine\n", "")


# Names in ps


def comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def own_name() -> tuple[str, str]:
    return comm(os.getpid()), Path("/proc/self/cmdline").read_bytes().decode().strip("\0 ")


@pytest.fixture(params=["with setproctitle", "without"])
def setproctitle(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> bool:
    """With it, and with a module in its place that cannot be imported."""
    there = request.param == "with setproctitle"
    if not there:
        (tmp_path / "setproctitle.py").write_text("raise ImportError")
        monkeypatch.syspath_prepend(tmp_path)
    return there


async def test_ps_shows_what_each_process_does(setproctitle: bool) -> None:
    async with parallel.init():
        command, title = await parallel.run(own_name)
        assert command == ("parallel: own_name" if setproctitle else "own_name")[:15]
        assert title == "parallel: own_name" or not setproctitle
        command, title = await parallel.run(own_name, name="counting sheep")
        assert command == ("parallel: counting sheep" if setproctitle else "counting sheep")[:15]
        fork_server = await parallel.run(os.getppid)
        assert comm(fork_server) == "parallel-forkserver"[:15]
        assert comm(parent(fork_server)) == "parallel-keeper"
        assert parent(parent(fork_server)) == os.getpid()


@in_turn("name", ["x" * 1000, "\N{SNOWMAN}", "a\0b", "lone \ud800", "with\nnewline"])
async def test_a_process_may_be_called_anything(setproctitle: bool, tree: None, name: str) -> None:
    assert await parallel.run(os.getpid, name=name)


# The end


async def stay(hub: parallel.Hub[Any, Any]) -> None:
    await trio.sleep_forever()


async def test_what_outlives_init_in_a_nursery_is_ended_with_it(mark: str) -> None:
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        await stack.enter_async_context(parallel.init())
        channel, process = await parallel.spawn(stay, nursery=nursery)
        await stack.aclose()
        assert not marked_processes(mark)
        channel.close()
        nursery.cancel_scope.cancel()
    assert (await process.wait()).status == "cancelled"


async def test_what_the_block_raises_is_raised_bare() -> None:
    with pytest.raises(KeyError):
        async with parallel.init():
            raise KeyError("x")
