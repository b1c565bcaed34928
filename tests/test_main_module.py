"""The user's `__main__` is never run or imported again; what it defines travels by value.

The same program is started in every way that there is: as a script in an empty folder, from the
command line, from stdin, as a module, as a folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAM = """
import abc, dataclasses, enum, functools, os, sys, typing
import trio, parallel

with open(os.environ["COUNTER"], "a") as file:  # every run of these lines leaves a mark
    file.write(f"{os.getpid()}\\n")

FACTOR = 10
CONFIG = {"unit": "m", "lock": None}

class Colour(enum.Enum):
    RED = 1
    BLUE = 2

@dataclasses.dataclass
class Point:
    x: int
    y: int = 0
    def moved(self, by):
        return Point(self.x + by, self.y)
    @classmethod
    def origin(cls):
        return cls(0)

class Pair(typing.NamedTuple):
    a: int
    b: "Point"

class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self): ...

class Square(Shape):
    __slots__ = ("side",)
    def __init__(self, side):
        super().__init__()
        self.side = side
    def area(self):
        return self.side ** 2

class OwnError(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first}:{second}")
        self.point = Point(second)

def scaled(n):
    return n * FACTOR

def factorial(n):
    return n * factorial(n - 1) if n else 1

async def later(n):
    await trio.sleep(0)
    return scaled(n), CONFIG["unit"]

def make_point(x):
    return Point(x)

def is_point(value):
    return isinstance(value, Point), type(value) is Point

def fail():
    raise OwnError("a", 3)

async def nested(depth):
    if depth:
        return await parallel.run(nested, depth - 1)
    return Point(depth), Colour.BLUE

async def same_class(hub):
    seen = []
    async for client, value in hub:
        seen.append(type(value))
        await hub.send(client, value)
    return len(set(seen)), all(kind is seen[0] for kind in seen)

async def main():
    async with parallel.init():
        run = parallel.run
        assert await run(scaled, 3) == 30
        assert await run(factorial, 10) == 3628800
        assert await run(later, 4) == (40, "m")
        assert await run(lambda a, b=FACTOR: a + b, 1) == 11
        assert await run(functools.partial(scaled, 5)) == 50
        assert await run(functools.partial(Point, y=5), 4) == Point(4, 5)
        assert await run(Point(1).moved, 2) == Point(3)
        assert await run(Point.origin) == Point(0)
        assert await run(Square(3).area) == 9

        point = await run(make_point, 7)
        assert type(point) is Point and isinstance(point, Point) and point == Point(7)
        assert await run(is_point, Point(1)) == (True, True)
        assert await run(lambda: Colour.RED) is Colour.RED
        assert await run(lambda c: c is Colour.RED, Colour.RED)
        pair = await run(Pair, 1, Point(2))
        assert type(pair) is Pair and type(pair.b) is Point
        square = await run(Square, 4)
        assert type(square) is Square and isinstance(square, Shape) and square.area() == 16
        assert await run(nested, 3) == (Point(0), Colour.BLUE)

        try:
            await run(fail)
        except OwnError as exc:
            assert type(exc) is OwnError and exc.point == Point(3) and str(exc) == "a:3"
        else:
            raise AssertionError

        async with parallel.spawn(same_class) as (channel, process):
            for value in (Point(1), Point(2), Point(3)):
                await channel.send(value)
                echo = await channel.receive()
                assert type(echo) is Point and echo == value
        assert await process.result() == (1, True)

        # The worker has a __main__ of its own with nothing of this one in it.
        names = await run(lambda: vars(sys.modules["__main__"]).keys() & {"FACTOR", "main"})
        assert not names, names
        CONFIG["unit"] = "km"
        assert (await run(later, 1))[1] == "km"  # as of the call

        CONFIG["lock"] = trio.lowlevel.current_task()
        try:
            await run(later, 1)
        except parallel.NotSendable as exc:
            assert "item 'lock' of global variable 'CONFIG' of 'later'" in str(exc), exc
        else:
            raise AssertionError
    print("fine")

trio.run(main)
"""

Arguments = tuple[list[str], str | None]


def as_script(folder: Path, program: str) -> Arguments:
    (folder / "program.py").write_text(program)
    return ["program.py"], None


def as_script_from_elsewhere(folder: Path, program: str) -> Arguments:
    (folder / "else where").mkdir()
    (folder / "else where" / "my program-2.x").write_text(program)
    return ["else where/my program-2.x"], None


def from_the_command_line(folder: Path, program: str) -> Arguments:
    return ["-c", program], None


def from_stdin(folder: Path, program: str) -> Arguments:
    return ["-"], program


def as_module(folder: Path, program: str) -> Arguments:
    (folder / "pack").mkdir()
    (folder / "pack" / "__init__.py").write_text("")
    (folder / "pack" / "program.py").write_text(program)
    return ["-m", "pack.program"], None


def as_folder(folder: Path, program: str) -> Arguments:
    (folder / "app").mkdir()
    (folder / "app" / "__main__.py").write_text(program)
    return ["app"], None


def isolated(folder: Path, program: str) -> Arguments:
    (folder / "program.py").write_text(program)
    return ["-I", "program.py"], None


@pytest.mark.parametrize(
    "start",
    [
        as_script,
        as_script_from_elsewhere,
        from_the_command_line,
        from_stdin,
        as_module,
        as_folder,
        isolated,
    ],
)
def test_main_travels_by_value_however_the_program_was_started(
    start: Callable[[Path, str], Arguments], tmp_path: Path
) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    counter = tmp_path / "counter"
    arguments, stdin = start(folder, textwrap.dedent(PROGRAM))
    done = subprocess.run(
        [sys.executable, *arguments],
        input=stdin,
        stdin=None if stdin is not None else subprocess.DEVNULL,
        cwd=folder,
        env={**os.environ, "COUNTER": str(counter)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr
    assert done.stderr == ""
    assert len(counter.read_text().splitlines()) == 1


SHADOWS = """
import trio, parallel
async def main():
    async with parallel.init():
        print(await parallel.run(lambda: 6 * 7))
trio.run(main)
"""


@pytest.mark.parametrize("name", ["trio.py", "json.py"])
def test_a_file_beside_the_script_that_shadows_a_module_is_not_run_at_a_host_s_start(
    name: str, tmp_path: Path
) -> None:
    """A script in another folder: what lies where the user stands is not imported."""
    folder, scripts = tmp_path / "here", tmp_path / "scripts"
    folder.mkdir()
    scripts.mkdir()
    (folder / name).write_text("raise SystemExit('the wrong module')")
    (scripts / "program.py").write_text(SHADOWS)
    done = subprocess.run(
        [sys.executable, str(scripts / "program.py")],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("42\n", 0), done.stderr


FLAGS = """
import sys, trio, parallel
async def main():
    async with parallel.init():
        flags, warnings, dev = await parallel.run(
            lambda: (tuple(sys.flags), sys.warnoptions, sys._xoptions)
        )
    same = flags == tuple(sys.flags), warnings == sys.warnoptions, dev == sys._xoptions
    print("fine" if all(same) else same)  # no assertion: -O leaves those out
trio.run(main)
"""


@pytest.mark.parametrize(
    "flags", [["-OO", "-B"], ["-W", "error::UserWarning"], ["-X", "utf8", "-s", "-b"]]
)
def test_workers_run_with_the_interpreter_s_options(flags: list[str], tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(FLAGS)
    done = subprocess.run(
        [sys.executable, "-P", *flags, str(tmp_path / "program.py")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr
