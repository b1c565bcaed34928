"""`_surroundings`: what a fresh process sees of its caller, and what it does not."""

from __future__ import annotations

import contextvars
import errno
import logging
import os
import random
import resource
import signal
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

import parallel
from parallel._surroundings import encode_surroundings, look_around, settle_in

from .support import in_turn, open_descriptors, run_program

# Functions by value, so that no worker needs to import this module.


async def in_worker(function: Any, *args: Any, **options: Any) -> Any:
    return await parallel.run(lambda: function(*args), **options)


async def test_the_environment_is_the_caller_s_as_of_the_call(
    tree: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SET_AFTER_INIT", "now")
    monkeypatch.delenv("HOME", raising=False)
    assert await parallel.run(lambda: dict(os.environ)) == dict(os.environ)
    monkeypatch.setenv("SET_AFTER_INIT", "later")
    assert await parallel.run(lambda: os.environ["SET_AFTER_INIT"]) == "later"


async def test_programs_that_a_worker_starts_get_that_environment_too(
    tree: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SET_AFTER_INIT", "now")
    assert await parallel.run(lambda: os.popen("echo $SET_AFTER_INIT").read()) == "now\n"


async def test_the_time_zone_follows_the_environment(
    tree: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "XYZ-5")
    assert await parallel.run(lambda: (time.tzname[0], time.timezone)) == ("XYZ", -5 * 3600)
    monkeypatch.delenv("TZ")
    assert (await parallel.run(lambda: time.tzname[0])) != "XYZ"


async def test_the_directory_is_the_caller_s_as_of_the_call(
    tree: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert await parallel.run(os.getcwd) == str(tmp_path)


async def test_a_directory_that_has_been_deleted_is_no_hindrance(
    tree: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.getcwd()
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert await parallel.run(os.getcwd) == before
    assert await parallel.run(os.getcwd, cwd=str(tmp_path)) == str(tmp_path)


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


async def test_the_umask_is_the_caller_s(umask: None, tree: None) -> None:
    assert await parallel.run(os.umask, 0) == 0o027
    os.umask(0o077)
    assert await parallel.run(os.umask, 0) == 0o077
    assert os.umask(0o077) == 0o077


async def test_modules_are_found_where_the_caller_finds_them_now(
    tree: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "written_after_init.py").write_text("def answer(): return 42\n")
    monkeypatch.syspath_prepend(tmp_path)
    import written_after_init  # type: ignore[import-not-found]

    assert await parallel.run(written_after_init.answer) == 42
    assert await parallel.run(lambda: sys.path) == sys.path


async def test_a_worker_s_own_surroundings_are_its_children_s(tree: None, tmp_path: Path) -> None:
    async def change() -> tuple[str, str, int]:
        os.environ["SET_IN_WORKER"] = "yes"
        os.chdir(tmp_path)
        os.umask(0o011)
        return await parallel.run(lambda: (os.environ["SET_IN_WORKER"], os.getcwd(), os.umask(0)))

    assert await parallel.run(change) == ("yes", str(tmp_path), 0o011)
    assert "SET_IN_WORKER" not in os.environ


# Options


async def test_env_is_put_over_the_caller_s_environment(
    tree: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEPT", "kept")
    monkeypatch.setenv("CHANGED", "before")
    seen = await parallel.run(lambda: dict(os.environ), env={"CHANGED": "after", "NEW": "new"})
    assert (seen["KEPT"], seen["CHANGED"], seen["NEW"]) == ("kept", "after", "new")
    assert os.environ["CHANGED"] == "before"
    assert "NEW" not in os.environ


async def test_cwd_is_relative_to_the_caller_s(
    tree: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path)
    assert await parallel.run(os.getcwd, cwd="below") == str(tmp_path / "below")
    assert await parallel.run(os.getcwd, cwd=str(tmp_path)) == str(tmp_path)


async def serve(hub: parallel.Hub[Any, Any]) -> tuple[str, str]:
    return os.getcwd(), os.environ["NEW"]


async def test_the_options_serve_spawn_as_well(tree: None, tmp_path: Path) -> None:
    async with parallel.spawn(serve, cwd=str(tmp_path), env={"NEW": "new"}) as (_, process):
        pass
    assert await process.result() == (str(tmp_path), "new")


async def test_a_directory_that_is_not_there_is_the_call_s_error(tree: None) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        await parallel.run(os.getcwd, cwd="/nowhere/at/all")
    assert caught.value.filename == "/nowhere/at/all"


@in_turn("env", [{"A": 1}, {"A=B": "x"}, {"A": "x\0y"}, {1: "x"}])
async def test_an_environment_that_cannot_be_is_the_call_s_error(tree: None, env: Any) -> None:
    with pytest.raises((TypeError, ValueError, OSError)):
        await parallel.run(os.getpid, env=env)


# What a worker does not see


async def test_random_numbers_differ_from_worker_to_worker(tree: None) -> None:
    random.seed(1)
    drawn = [await parallel.run(lambda: random.random()) for _ in range(4)]
    assert len({*drawn, random.random()}) == 5


@pytest.mark.slow
async def test_numpy_s_random_numbers_differ_too_preloaded_or_not() -> None:
    def draw() -> float:
        import numpy as np

        return float(np.random.random())

    for preload in ([], ["numpy"], ["numpy.random"]):
        async with parallel.init(preload=preload):
            drawn = [await parallel.run(draw) for _ in range(3)]
        assert len(set(drawn)) == 3, preload


def terminal() -> tuple[str, str, int | None, int]:
    number = None
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
    except OSError as exc:
        number = exc.errno
    return sys.stdin.read(), os.readlink("/proc/self/fd/0"), number, os.getsid(0)


async def test_stdin_is_empty_and_there_is_no_terminal(tree: None) -> None:
    text, target, number, session = await in_worker(terminal)
    assert (text, target, number) == ("", "/dev/null", errno.ENXIO)
    assert session != os.getsid(0)


def stop_here() -> None:
    breakpoint()


async def test_breakpoint_says_why_it_cannot_be(tree: None) -> None:
    with pytest.raises(RuntimeError, match="no terminal"):
        await parallel.run(stop_here)


async def test_context_variables_and_logging_do_not_travel(
    tree: None, caplog: pytest.LogCaptureFixture
) -> None:
    variable = contextvars.ContextVar("variable", default="default")
    name = variable.name
    variable.set("set in the root")
    logging.getLogger("some").setLevel(logging.DEBUG)

    def look() -> tuple[list[str], int, int]:
        names = [each.name for each in contextvars.copy_context()]
        root = logging.getLogger()
        return names, len(root.handlers), logging.getLogger("some").level

    names, handlers, level = await parallel.run(look)
    assert name not in names
    assert (handlers, level) == (0, logging.NOTSET)
    logging.getLogger("some").setLevel(logging.NOTSET)


async def test_a_worker_holds_no_descriptor_of_the_root_s() -> None:
    near, far = os.pipe()
    os.set_inheritable(near, True)
    os.set_inheritable(far, True)
    name = os.readlink(f"/proc/self/fd/{near}")
    try:
        async with parallel.init():
            held = await in_worker(open_descriptors)
        assert name not in held.values()
        assert not any(what.startswith("pipe:") for number, what in held.items() if int(number) > 2)
    finally:
        os.close(near)
        os.close(far)


async def test_signals_have_their_default_effect_while_a_sync_function_runs(tree: None) -> None:
    def look() -> dict[str, Any]:
        names = ["SIGTERM", "SIGCHLD", "SIGHUP", "SIGUSR1"]
        return {name: signal.getsignal(getattr(signal, name)) for name in names}

    assert set((await in_worker(look)).values()) == {signal.SIG_DFL}


def page_faults(depth: int) -> int:
    """Of a hundred calls at this depth."""
    if depth:
        return page_faults(depth - 1)
    call_deeper(5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        call_deeper(5)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def call_deeper(times: int) -> None:
    if times:
        call_deeper(times - 1)


def most_page_faults() -> int:
    return max(page_faults(depth) for depth in range(500))


async def call_most_page_faults() -> int:
    return most_page_faults()


@in_turn("function", [most_page_faults, call_most_page_faults])
async def test_there_is_no_depth_at_which_each_call_maps_memory(tree: None, function: Any) -> None:
    """The interpreter does that at the end of each piece of its stack."""
    assert most_page_faults() >= 100, "here it does"
    assert await parallel.run(function) < 50


async def test_a_worker_starts_with_its_main_thread_alone_and_no_arguments(tree: None) -> None:
    def look() -> tuple[int, list[str], bool]:
        import gc
        import threading

        return threading.active_count(), sys.argv, gc.isenabled()

    assert await parallel.run(look) == (1, [""], True)


# The limit of open files


LIMIT_PROGRAM = """
    import resource, trio, parallel

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))

    async def main():
        async with parallel.init():
            print(*await parallel.run(resource.getrlimit, resource.RLIMIT_NOFILE))
        print(*resource.getrlimit(resource.RLIMIT_NOFILE))

    trio.run(main)
"""


def test_the_soft_limit_of_open_files_is_raised_in_workers_alone(tmp_path: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(LIMIT_PROGRAM))
    done = run_program(path)
    assert done.returncode == 0, done.stderr
    wanted = min(hard, 65536) if hard != resource.RLIM_INFINITY else 65536
    assert done.stdout.split() == [str(wanted), str(hard), "256", str(hard)]


# The functions themselves


def test_look_around_copies_what_it_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEN", "before")
    around = look_around({"MORE": "x"})
    monkeypatch.setenv("SEEN", "after")
    assert (around.environ["SEEN"], around.environ["MORE"]) == ("before", "x")
    assert around.cwd == os.getcwd()


def test_looking_around_changes_no_umask(umask: None) -> None:
    assert look_around().umask == 0o027
    assert os.umask(0o027) == 0o027


def test_settling_in_where_one_is_changes_nothing() -> None:
    before = look_around()
    path, cache = [*sys.path], dict(sys.path_importer_cache)
    state = random.getstate()
    settle_in(encode_surroundings(before))
    assert look_around() == before
    assert sys.path == path
    assert dict(sys.path_importer_cache) == cache
    assert random.getstate() != state


async def test_many_at_once_see_each_their_own(tree: None, tmp_path: Path) -> None:
    async def see(number: int) -> None:
        folder = tmp_path / str(number)
        folder.mkdir()
        env = {"NUMBER": str(number)}
        seen = await parallel.run(
            lambda: (os.environ["NUMBER"], os.getcwd()), env=env, cwd=str(folder)
        )
        assert seen == (str(number), str(folder))

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(see, number)
