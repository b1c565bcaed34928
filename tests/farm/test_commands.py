"""`farm.commands`: programs as functions."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from parallel.farm import CommandFailed, command
from parallel.farm.surroundings import Surroundings, within

PROGRAM = """
import sys, time
source, sink = sys.stdin.buffer, sys.stdout.buffer
count = 0
while head := source.read(4):
    data = source.read(int.from_bytes(head, "big"))
    count += 1
    match data:
        case b"text":
            print("hello", flush=True)
        case b"two":
            sink.write((b"\\0\\0\\0\\1x") * 2)
        case b"half":
            sink.write(b"\\0\\0\\0\\5x")
            sys.exit(7)
        case b"noise":
            sys.stderr.write("z" * 300_000 + "end")
            sink.write(b"\\0\\0\\0\\0")
        case b"die":
            sys.exit("no more")
        case b"count":
            sink.write(b"\\0\\0\\0\\1" + b"%d" % count)
        case _:
            sink.write(head + data)
    sink.flush()
"""

run = command([sys.executable, "-S", "-c", PROGRAM])


@pytest.fixture(autouse=True)
def _worker() -> Iterator[None]:
    here = Surroundings()
    with within(here):
        yield
    here.close()


def test_one_program_answers_all() -> None:
    assert [run(b"count"), run(b"count"), run(b"")] == [b"1", b"2", b""]


def test_large_frames_pass_while_the_program_is_still_reading() -> None:
    echo = command([sys.executable, "-S", "-c", ECHO_AS_IT_COMES])
    data = bytes(range(256)) * 20_000
    assert echo(data) == data


ECHO_AS_IT_COMES = """
import os
while some := os.read(0, 1 << 16):
    while some:
        some = some[os.write(1, some):]
"""


@pytest.mark.parametrize(
    ("said", "reason", "returncode"),
    [
        (b"text", "wrote what is no frame: it begins with b'hello", None),
        (b"two", "wrote more than one frame", None),
        (b"half", "exited with code 7 in the middle of a frame", 7),
        (b"die", "exited with code 1 without writing a frame", 1),
    ],
)
def test_what_is_no_frame_fails_and_the_program_is_started_anew(
    said: bytes, reason: str, returncode: int | None
) -> None:
    assert run(b"count") == b"1"
    with pytest.raises(CommandFailed) as caught:
        run(said)
    assert reason in str(caught.value)
    assert caught.value.returncode == returncode
    assert caught.value.argv[0] == sys.executable
    assert run(b"count") == b"1"


def test_the_end_of_stderr_is_quoted_however_much_there_is() -> None:
    assert run(b"noise") == b""
    with pytest.raises(CommandFailed, match="zzzendno more") as caught:
        run(b"die")
    assert len(caught.value.stderr) <= 4000


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(CommandFailed, match=r"no-such-program could not be executed: No such file"):
        command(["no-such-program"])(b"")


def test_a_string_is_no_list_of_words() -> None:
    with pytest.raises(TypeError, match="a list of words"):
        command("tr a b")
