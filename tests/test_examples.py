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
OVER_HOSTS = [path for path in EXAMPLES if path.stem != "demo"]
"""The demo has other hosts of its own."""

SMALLER = {
    "broadcast": {"SUBSCRIBERS = 20": "SUBSCRIBERS = 6"},
    "cascade": {"(1, 2, 10, 100)": "(1, 2, 10)"},
    "demo": {"1_000": "100", "= 300": "= 100", "= 30\n": "= 6\n"},
    "echo_server": {"CLIENTS = 100": "CLIENTS = 10"},
    "fib": {"N = 33": "N = 25", "CUT_OFF = 28": "CUT_OFF = 20", "3_524_578": "75_025"},
    "nqueens": {", 12: 14_200": ""},
    "wide": {"CHILDREN = 100": "CHILDREN = 20"},
}
"""What to put for what in an example that has run at its full size."""


@pytest.fixture(autouse=True)
def unclosed_things_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """On stderr, by the examples and their workers."""
    monkeypatch.setenv("PYTHONWARNINGS", "always::ResourceWarning")


@pytest.mark.parametrize("example", PARAMETERS)
@pytest.mark.slow
def test_an_example_runs_and_says_what_it_did(example: Path, tmp_path: Path) -> None:
    result = support.run_program(example, cwd=tmp_path)
    assert result.stderr == ""
    assert result.returncode == 0
    assert 1 <= len(result.stdout.splitlines()) <= 10


def smaller(example: Path, directory: Path) -> Path:
    """The same program with less to do."""
    text = example.read_text()
    for size, less in SMALLER.get(example.stem, {}).items():
        assert size in text
        text = text.replace(size, less)
    copy = directory / example.name
    copy.write_text(text)
    return copy


@pytest.mark.slow
async def test_the_examples_run_over_several_hosts(
    tmp_path: Path, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    async with open_hosts(2, env={support.MARK: mark}) as hosts:
        configure(tmp_path / ".ssh", hosts)
        for example in OVER_HOSTS:
            with support.case(example.stem):
                program = smaller(example, tmp_path)
                result = await trio.to_thread.run_sync(
                    support.run_program, program, "host0", "host1"
                )
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
def test_the_demo_draws_on_a_terminal(tmp_path: Path) -> None:
    demo = smaller(next(path for path in EXAMPLES if path.stem == "demo"), tmp_path)
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
