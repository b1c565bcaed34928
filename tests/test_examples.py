"""The examples: each runs by itself, from anywhere, over any hosts, and leaves nothing behind."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from parallel.launch.ssh import Ssh, parse_destination
from parallel.testing import open_hosts

from . import support

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
SLOW = ("broadcast", "demo", "echo_server")
PARAMETERS = [
    pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem in SLOW else [])
    for path in EXAMPLES
]
OVER_HOSTS = [parameter for parameter in PARAMETERS if parameter.id != "demo"]
"""The demo has other hosts of its own."""


@pytest.fixture(autouse=True)
def unclosed_things_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """On stderr, by the examples and their workers."""
    monkeypatch.setenv("PYTHONWARNINGS", "always::ResourceWarning")


@pytest.mark.parametrize("example", PARAMETERS)
def test_an_example_runs_and_says_what_it_did(example: Path, tmp_path: Path) -> None:
    result = support.run_program(example, cwd=tmp_path)
    assert result.stderr == ""
    assert result.returncode == 0
    assert 1 <= len(result.stdout.splitlines()) <= 10


@pytest.mark.slow
@pytest.mark.parametrize("example", OVER_HOSTS)
async def test_an_example_runs_over_several_hosts(
    example: Path, tmp_path: Path, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    async with open_hosts(2, env={support.MARK: mark}) as hosts:
        configure(tmp_path / ".ssh", hosts)
        result = await trio.to_thread.run_sync(support.run_program, example, "host0", "host1")
    assert result.stderr == ""
    assert result.returncode == 0
    assert 1 <= len(result.stdout.splitlines()) <= 10


def configure(directory: Path, hosts: list[Ssh]) -> None:
    """Make aliases of these hosts, as users have them."""
    directory.mkdir()
    with (directory / "config").open("w") as config:
        for host in hosts:
            address, user, port = parse_destination(host.destination)
            config.write(
                f"Host {host.name}\n HostName {address}\n Port {port}\n User {user}\n"
                f" IdentityFile {host.client_keys[0]}\n UserKnownHostsFile {host.known_hosts}\n"
            )


@pytest.mark.slow
def test_the_demo_draws_on_a_terminal() -> None:
    demo = next(path for path in EXAMPLES if path.stem == "demo")
    output = b""
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, demo], stdout=theirs, stderr=theirs) as program:
        os.close(theirs)
        try:
            while data := os.read(ours, 1 << 16):
                output += data
        except OSError:
            pass  # how a terminal says that the other side is gone
        os.close(ours)
    assert program.returncode == 0
    for picture in (b"\r\x1b[Kping-pong  [", b"\r\x1b[Kbroadcast  root [", b"\r\x1b[Kcascade    ["):
        assert picture in output
