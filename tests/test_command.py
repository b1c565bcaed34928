"""`launch.command`: programs as a way to a host; the rest is in contract/test_launchers."""

from __future__ import annotations

import os

import pytest
import trio

from parallel.errors import HostUnreachable
from parallel.launch.command import Command

from .support import eventually


async def test_the_shell_is_appended_to_the_words() -> None:
    async with Command(["echo", "a b"], name="x").open() as shell:
        assert await shell.stdout.receive_some() == b"a b /bin/sh\n"


async def test_a_shell_that_is_there_already_is_not() -> None:
    async with Command(["echo", "/bin/sh"], name="x").open() as shell:
        assert await shell.stdout.receive_some() == b"/bin/sh\n"


async def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(HostUnreachable, match=r"no-such-program.*No such file"):
        async with Command(["no-such-program"], name="x").open():
            pass


def test_one_string_is_no_list_of_words() -> None:
    with pytest.raises(TypeError, match=r"\['docker', 'exec'\]"):
        Command("docker exec", name="x")


async def test_it_is_in_a_session_of_its_own_so_that_an_interrupt_does_not_reach_it() -> None:
    async with Command(["sh", "-c", "ps -o sid= -p $$"], name="x").open() as shell:
        assert int(await shell.stdout.receive_some()) != os.getsid(0)


async def test_what_the_program_has_started_ends_with_it() -> None:
    async with Command(["sh", "-c", "sleep 1000 & echo $!; wait"], name="x").open() as shell:
        pid = int(await shell.stdout.receive_some())
    await eventually(lambda: not is_alive(pid))


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_failure_inside_the_block_does_not_wait_for_a_program_that_goes_on() -> None:
    with trio.fail_after(0.9), pytest.raises(ZeroDivisionError):
        async with Command(["sh", "-c", "exec sleep 1000"], name="x").open():
            raise ZeroDivisionError
