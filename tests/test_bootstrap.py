"""`_bootstrap` and `_host.loader`: from a bare shell to an agent, and what can be in the way."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from parallel._bootstrap import Arrival, open_host
from parallel.abc import Launcher
from parallel.errors import HostMismatch, HostUnreachable
from parallel.launch.command import Command
from parallel.launch.local import Local

from .support import eventually

PROGRAMS = Path(__file__).with_name("programs")
STAND_IN = "stand_in_agent:main"
OURS = "{}.{}".format(*sys.version_info)
is_root = os.geteuid() == 0


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    return home


@pytest.fixture
def env(home: Path) -> dict[str, str]:
    """Of a host that has a home directory of its own."""
    return {"HOME": str(home), "XDG_CACHE_HOME": "", "PYTHONPATH": str(PROGRAMS)}


@pytest.fixture
def host(env: dict[str, str]) -> Local:
    return Local(env=env)


Said = dict[str, Any]


async def read_line(arrival: Arrival) -> Said:
    line = arrival.early
    while b"\n" not in line:
        data = await arrival.receive.receive_some()
        assert data
        line += data
    said: Said = json.loads(line)
    return said


async def start(launcher: Launcher, main: str = STAND_IN) -> Said:
    """Start a host, exchange some words with its agent, end it; what that found."""
    errors = bytearray()
    async with open_host(launcher, {"some": ["config"]}, errors.extend, main=main) as arrival:
        said = await read_line(arrival)
        await arrival.send.send_all(b"some words")
        assert await arrival.receive.receive_some() == b"some words"
        await eventually(lambda: b"nor is this" in errors)
        assert errors == b"this is no part of the link\nnor is this\n"
    return {**said, "python": arrival.python, "cpus": arrival.cpus, "sent": arrival.sent}


async def failing(launcher: Launcher, main: str = STAND_IN) -> str:
    """Why a host could not be started."""
    with trio.fail_after(10), pytest.raises(HostUnreachable) as caught:
        await start(launcher, main)
    assert caught.value.host == launcher.name
    return caught.value.reason


# What an agent finds


async def test_the_agent_is_told_its_configuration_and_the_root_what_there_is(host: Local) -> None:
    said = await start(host)
    assert said["config"] == {"some": ["config"]}
    assert said["python"].startswith(OURS)
    assert said["cpus"] == len(os.sched_getaffinity(0))


async def test_what_was_sent_is_found_first_and_sent_once(host: Local, home: Path) -> None:
    first, second = await start(host), await start(host)
    assert (first["sent"] > 100_000, second["sent"]) == (True, 0)
    for said in (first, second):
        assert Path(said["trio"]).is_relative_to(home / ".cache/parallel")
        assert Path(said["parallel"]).is_relative_to(home / ".cache/parallel")
        assert said["environ"]["PARALLEL_CACHE"] == str(home / ".cache/parallel")
        assert "" not in said["path"]


async def test_nothing_else_can_write_to_the_link(host: Local) -> None:
    said = await start(host)
    assert said["inheritable"] == [False, False]
    assert said["stdin"]
    assert said["stdout is stderr"]


async def test_it_sees_the_host_s_settings(env: dict[str, str], tmp_path: Path) -> None:
    odd = tmp_path / "an odd 'name'"
    odd.mkdir()
    env["ODD"] = "a 'b' \"c\" $HOME `ls` \\ \n é"
    setup = 'export FROM_SETUP="${ODD%% *}"; cd /'
    said = await start(Local(env=env, cwd=str(odd), setup=setup))
    assert said["cwd"] == str(odd)
    assert said["environ"]["ODD"] == env["ODD"]
    assert said["environ"]["FROM_SETUP"] == "a"
    assert "PARALLEL_BOOT" not in said["environ"]


async def test_a_tilde_is_the_home_directory_there(env: dict[str, str], home: Path) -> None:
    (home / "a b").mkdir()
    (home / "py thon").symlink_to(sys.executable)
    said = await start(Local(env=env, cwd="~/a b", python="~/py thon"))
    assert said["cwd"] == str(home / "a b")
    assert (await start(Local(env=env, cwd="~")))["cwd"] == str(home)


# Finding Python


async def test_python_is_looked_for_by_its_version_first(env: dict[str, str], home: Path) -> None:
    (home / "bin").mkdir()
    for name, target in {f"python{OURS}": sys.executable, "python3": "/bin/false"}.items():
        (home / "bin" / name).symlink_to(target)
    said = await start(Local(env={**env, "PATH": f"{home}/bin:/bin"}, python=None))
    assert said["python"].startswith(OURS)


async def test_then_by_its_other_names_and_in_usual_places(env: dict[str, str], home: Path) -> None:
    (home / ".local/bin").mkdir(parents=True)
    (home / ".local/bin" / f"python{OURS}").symlink_to(sys.executable)
    said = await start(Local(env={**env, "PATH": str(home)}, python=None))
    assert said["python"].startswith(OURS)


def another_python() -> str:
    """An interpreter of another minor version, if this machine has one."""
    places = [*Path("/root/.pyenv/versions").glob("*/bin/python3"), Path("/usr/bin/python3")]
    for python in map(str, [*places, *filter(None, [shutil.which("python3")])]):
        try:
            code = "import sys; print('%d.%d' % sys.version_info[:2])"
            said = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        if said.stdout.strip() != OURS:
            return python
    pytest.skip("there is no Python of another minor version on this machine")


async def test_a_python_of_another_version_is_a_mismatch_that_names_both(
    env: dict[str, str],
) -> None:
    python = another_python()
    with pytest.raises(HostMismatch, match=r"python=") as caught:
        await start(Local(env=env, python=python))
    assert caught.value.ours == f"Python {OURS}"
    assert caught.value.theirs.startswith("Python ")
    assert python in caught.value.theirs


async def test_no_python_at_all_tells_what_was_looked_for(env: dict[str, str]) -> None:
    reason = await failing(Local(env={**env, "PATH": "/nowhere"}, python="python-none"))
    assert f"no Python {OURS}: looked for python-none" in reason
    assert "python=" in reason


# Shells


SHELLS = ["bash", "dash", "zsh", "fish", "csh", "tcsh", "ksh"]


@pytest.mark.parametrize("shell", SHELLS)
async def test_it_works_with_any_login_shell(env: dict[str, str], shell: str, home: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} on this machine")
    noise = "echo noise; echo '{\"python\": 1}'; echo moan >&2\n"
    for name in (".zshenv", ".cshrc", ".tcshrc", ".bashrc", ".config/fish/config.fish"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(noise if "csh" not in name else noise.replace(" >&2", ""))
    argv = ["env", f"HOME={home}", f"BASH_ENV={home}/.bashrc", shell, "-c", "exec /bin/sh"]
    # What `Command` appends is then an argument of that line, which it does not look at.
    await start(Command(argv, name=shell, env=env, python=sys.executable))


async def test_a_shell_that_echoes_what_it_reads_does_not_confuse_it(env: dict[str, str]) -> None:
    # What it echoes comes where its answers do, and so would what is printed later.
    argv = ["sh", "-c", "exec sh -xv 2>&1"]
    launcher = Command(argv, name="x", env=env, python=sys.executable)
    async with open_host(launcher, {}, print, main=STAND_IN) as arrival:
        assert "trio" in await read_line(arrival)
        await arrival.send.send_all(b"some words")
        assert await arrival.receive.receive_some() == b"some words"


async def test_noise_of_any_size_is_ignored(env: dict[str, str]) -> None:
    argv = ["sh", "-c", "head -c 5000000 /dev/urandom; exec sh"]
    await start(Command(argv, name="x", env=env, python=sys.executable))


# What goes wrong


async def test_a_setup_that_fails_is_named_with_its_words(env: dict[str, str]) -> None:
    reason = await failing(Local(env=env, setup="echo out; echo no module >&2; false"))
    assert "its setup 'echo out; echo no module >&2; false' exited with code 1" in reason
    assert "no module" in reason


@pytest.mark.parametrize("setup", ["exit 3", "(", "exec false", "kill -9 $$"])
async def test_a_setup_that_ends_the_shell_is_told(env: dict[str, str], setup: str) -> None:
    assert "before the host was started" in await failing(Local(env=env, setup=setup))


async def test_a_directory_that_is_not_there_is_told(env: dict[str, str]) -> None:
    assert "its cwd '/no/where' is not a directory" in await failing(
        Local(env=env, cwd="/no/where")
    )


async def test_a_command_that_fails_is_quoted(env: dict[str, str]) -> None:
    argv = ["sh", "-c", "echo Permission denied, you there >&2; exit 255"]
    reason = await failing(Command(argv, name="x", env=env))
    assert "exited with code 255" in reason
    assert "Permission denied, you there" in reason


async def test_an_agent_that_cannot_start_is_told_with_its_traceback(host: Local) -> None:
    assert "No module named 'nowhere'" in await failing(host, "nowhere:main")
    assert "no attribute 'nothing'" in await failing(host, "stand_in_agent:nothing")


async def test_an_agent_that_fails_later_closes_the_link(host: Local) -> None:
    errors = bytearray()
    async with open_host(host, {}, errors.extend, main="stand_in_agent:fail") as arrival:
        assert await arrival.receive.receive_some() == b""
        await eventually(lambda: b"ZeroDivisionError" in errors)


async def test_what_the_body_raises_is_raised_as_it_is(host: Local) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_host(host, {}, print, main=STAND_IN):
            raise ZeroDivisionError


@pytest.mark.slow
async def test_the_timeout_ends_with_the_start(env: dict[str, str]) -> None:
    async with open_host(Local(env=env, connect_timeout=4.0), {}, print, main=STAND_IN):
        await trio.sleep(4.2)


async def test_a_shell_that_says_nothing_is_given_up_in_time(env: dict[str, str]) -> None:
    launcher = Command(["sh", "-c", "exec sleep 1000"], name="x", env=env, connect_timeout=0.3)
    reason = await failing(launcher)
    assert "after 0.3 s it was still waiting for an answer of its shell and Python" in reason


# The cache


@pytest.mark.slow
async def test_two_at_once_start_both(host: Local, home: Path) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(start, host)
    assert len(list((home / ".cache/parallel").iterdir())) == 1


async def test_a_damaged_cache_is_mended(host: Local) -> None:
    said = await start(host)
    os.unlink(Path(said["trio"]).with_name("_channel.py"))
    assert (await start(host))["sent"] > 0
    assert (await start(host))["sent"] == 0


async def check_temporary(said: Said, home: Path) -> None:
    """It ran from a directory of its own, which is gone."""
    place = Path(said["environ"]["PARALLEL_CACHE"])
    assert Path(said["trio"]).is_relative_to(place)
    assert not place.is_relative_to(home)
    await eventually(lambda: not place.exists())


@pytest.mark.skipif(not is_root, reason="only root can give a directory away")
@pytest.mark.slow
async def test_a_cache_that_somebody_else_has_planted_is_not_used(host: Local, home: Path) -> None:
    said = await start(host)
    os.chown(home / ".cache/parallel", 65534, 65534)
    again = await start(host)
    assert again["sent"] == said["sent"]
    await check_temporary(again, home)


async def test_without_a_writable_home_a_temporary_directory_serves(
    env: dict[str, str], home: Path
) -> None:
    (home / "file").write_text("")
    env["XDG_CACHE_HOME"] = str(home / "file")
    await check_temporary(await start(Local(env=env)), home)


async def test_a_full_disk_is_no_hindrance_where_there_is_another(
    env: dict[str, str], mount: Callable[..., Path]
) -> None:
    full = mount("size=64k")
    env["XDG_CACHE_HOME"] = str(full)
    await check_temporary(await start(Local(env=env)), full)
    assert list((full / "parallel").iterdir()) == []


async def test_a_cache_that_has_become_read_only_still_serves(
    env: dict[str, str], mount: Callable[..., Path]
) -> None:
    place = mount("size=64m")
    env["XDG_CACHE_HOME"] = str(place)
    await start(Local(env=env))
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    said = await start(Local(env=env))
    assert said["sent"] == 0
    assert Path(said["trio"]).is_relative_to(place)


async def test_without_any_room_the_error_says_so(
    env: dict[str, str], mount: Callable[..., Path]
) -> None:
    full = str(mount("size=64k"))
    env.update(XDG_CACHE_HOME=full, TMPDIR=full)
    # In a namespace of its own, where nothing else can be written to either.
    script = f"mount -t tmpfs -o size=64k tmpfs /dev/shm && exec {shlex.quote('/bin/sh')}"
    argv = ["unshare", "--mount", "sh", "-c", script]
    reason = await failing(Command(argv, name="x", env=env, python=sys.executable))
    assert "there is no room for" in reason
    assert "No space left" in reason


async def test_the_agent_killed_leaves_no_temporary_directory(
    env: dict[str, str], home: Path
) -> None:
    (home / "file").write_text("")
    env["XDG_CACHE_HOME"] = str(home / "file")
    async with open_host(Local(env=env), {}, print, main=STAND_IN) as arrival:
        said = await read_line(arrival)
        os.kill(said["pid"], 9)
        assert await arrival.receive.receive_some() == b""
    await check_temporary(said, home)
