"""What the tests share: finding what was left behind, running programs, counting rounds."""

from __future__ import annotations

import functools
import inspect
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import trio

from parallel._endpoint import Endpoint, socket_pair
from parallel._member import Member, set_current_member
from parallel._settings import HostSettings
from parallel._wire.frames import UNLIMITED
from parallel._wire.greetings import Peer

MARK = "PARALLEL_TEST"
"""An environment variable that every process of a tree inherits, whatever becomes of it."""

# setproctitle would write titles over the environment that /proc shows, and with it the mark.
os.environ["SPT_NOENV"] = "1"

ROOT = Path(__file__).parents[1]
IMPORT_PATH = os.pathsep.join(map(str, (ROOT, ROOT / "src")))
"""For programs of the tests: they test what lies here, whatever is installed."""

ROUNDS = int(os.environ.get("PARALLEL_ROUNDS", "50"))
"""How often the tests at random moments are repeated."""


def marked_processes(mark: str) -> dict[int, str]:
    """Every living process on this machine that has the mark, but this one: pid and command."""
    wanted = f"{MARK}={mark}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                state = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
                if state != "Z":
                    found[int(entry.name)] = (entry / "comm").read_text(errors="replace").strip()
        except OSError:
            continue  # gone in the meantime
    return found


def wait_until_gone(mark: str, seconds: float) -> dict[int, str]:
    """Wait for the end of every process with the mark; what is left after `seconds`."""
    deadline = time.monotonic() + seconds
    while (left := marked_processes(mark)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def kill_all(pids: dict[int, str]) -> None:
    """Do not let one failing test spoil the next."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def open_descriptors() -> dict[str, str]:
    """This process's descriptors and what they are."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
    return found


def run_program(
    path: Path, *args: str, cwd: Path | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run a script as a user would, and return what it printed."""
    return subprocess.run(
        [sys.executable, str(path), *args],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@contextmanager
def killed_in_the_end(argv: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A program that runs until it is killed, in any case: `Popen` alone would wait for it."""
    with subprocess.Popen(argv, text=True, **options) as program:
        try:
            yield program
        finally:
            program.kill()


async def eventually(condition: object, seconds: float = 10) -> None:
    """Wait for a condition that another process brings about."""
    assert callable(condition)
    with trio.fail_after(seconds):
        while not condition():
            await trio.sleep(0.005)


@contextmanager
def case(name: object) -> Iterator[None]:
    """One of several within a test: what fails in it says which it was."""
    try:
        yield
    except BaseException as exc:
        exc.add_note(f"in the case: {name}")
        raise


Test = Callable[..., Awaitable[None]]


def in_turn(
    names: str, cases: Iterable[Any], ids: Iterable[str] | None = None
) -> Callable[[Test], Test]:
    """`pytest.mark.parametrize`, but for one test that runs all cases one after the other.

    So they have one tree in common, which each of them has to leave as it was; to start one costs
    more than most of them. What a fixture gives is the same for all, but a `tmp_path` is their own.
    """
    parameters = [name.strip() for name in names.split(",")]
    rows = [row if len(parameters) > 1 else (row,) for row in cases]
    titles = [*ids] if ids else [", ".join(map(_title, row)) for row in rows]

    def decorate(test: Test) -> Test:
        @functools.wraps(test)
        async def run_all(**given: Any) -> None:
            for number, (title, row) in enumerate(zip(titles, rows, strict=True)):
                arguments = {**given, **dict(zip(parameters, row, strict=True))}
                if "tmp_path" in given:
                    arguments["tmp_path"] = given["tmp_path"] / str(number)
                    arguments["tmp_path"].mkdir()
                with case(title):
                    await test(**arguments)

        signature = inspect.signature(test)
        left = [each for name, each in signature.parameters.items() if name not in parameters]
        run_all.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
        return run_all

    return decorate


def _title(value: object) -> str:
    return value if isinstance(value, str) else getattr(value, "__name__", repr(value))


def examples(count: int) -> hypothesis.settings:
    """Settings of a property test: so many examples, and no limit of time on a busy machine."""
    few = max(10, count // 4)  # where not all rounds are run
    return hypothesis.settings(max_examples=count if ROUNDS >= 50 else few, deadline=None)


def resident_memory() -> int:
    """Bytes of this process that lie in memory now."""
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
)
"""Anything that JSON can hold."""


@contextmanager
def alone(*, max_message_size: int = UNLIMITED, buffer_size: int = 1 << 16) -> Iterator[Member]:
    """Inside of a tree that has no other process: channels and hubs without a fork server."""
    ours, theirs = socket_pair()
    settings = HostSettings("root", os.getpid(), 2.0, 0, (), max_message_size, buffer_size, 2)
    member = Member(Endpoint(ours), settings, Peer("root", 0, os.getpid(), "root"), None, -1)
    set_current_member(member)
    try:
        yield member
    finally:
        set_current_member(None)
        member.close()
        theirs.close()


FORMS = st.sampled_from(["list", "iterator", "async"])
"""What a farm may get its tasks from."""


def formed(form: str, items: list[Any]) -> Any:
    """These, in one of `FORMS`."""

    async def generate() -> AsyncIterator[Any]:
        for item in items:
            yield item

    return {"list": items, "iterator": iter(items), "async": generate()}[form]
