"""`python -m parallel check`: what it finds out about hosts, and what it says of failures."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from parallel import Cluster, ParallelError
from parallel._check import Report, check, render
from parallel._probe import Facts, Measures
from parallel.abc import Allocation, Launcher
from parallel.launch.local import Local
from parallel.launch.ssh import Ssh
from parallel.testing import open_hosts

from .test_bootstrap import another_python


class Nodes(Allocation):
    """Launchers from one place, or an error."""

    def __init__(self, *launchers: Launcher, error: Exception | None = None) -> None:
        self.launchers = launchers
        self.error = error

    @asynccontextmanager
    async def allocate(self) -> AsyncIterator[Sequence[Launcher]]:
        if self.error is not None:
            raise self.error
        yield self.launchers


async def command(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run it in a process of its own."""
    words = [sys.executable, "-m", "parallel", "check", *arguments]
    return await trio.run_process(words, capture_stdout=True, capture_stderr=True, check=False)


def in_toml(host: Ssh) -> str:
    """A table of the cluster file."""
    settings = {"ssh": host.destination, "name": host.name, "known_hosts": host.known_hosts}
    settings |= {"client_keys": list(host.client_keys), "config": host.config}
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    return "\n".join(["[[hosts]]", *lines, f"python = {json.dumps(host.python)}", ""])


MAKE_KEY = """
import asyncssh, sys
asyncssh.generate_private_key("ssh-ed25519").write_private_key(sys.argv[1])
"""


def make_key(path: Path) -> str:
    """A key that no host knows."""
    subprocess.run([sys.executable, "-c", MAKE_KEY, str(path)], check=True)
    path.chmod(0o600)
    return str(path)


@pytest.mark.slow
async def test_each_host_of_a_file_gets_a_row_and_each_failure_says_what_would_mend_it(
    tmp_path: Path,
) -> None:
    file = tmp_path / "cluster.toml"
    async with open_hosts(2) as (host0, host1):
        nowhere = dataclasses.replace(host0, name="nowhere", destination="user@127.0.0.2:1")
        stranger = make_key(tmp_path / "key")
        locked = dataclasses.replace(host0, name="locked", client_keys=[stranger])
        unknown = dataclasses.replace(host0, name="unknown", known_hosts=os.devnull)
        file.write_text("".join(map(in_toml, [host0, nowhere, locked, unknown, host1])))
        result = await command("--cluster", str(file))
        assert result.returncode == 1, result
        table, *errors = result.stdout.decode().rstrip().split("\n\n")
        title, *rows = table.splitlines()
        assert title.split()[:5] == ["HOST", "STATUS", "PYTHON", "CORES", "MEMORY"]
        assert [row.split()[0] for row in rows] == [
            "host0",
            "nowhere",
            "locked",
            "unknown",
            "host1",
        ]
        assert rows[0].split()[1:3] == ["ok", platform.python_version()]
        states = [row[title.index("STATUS") : title.index("PYTHON")].strip() for row in rows]
        assert states == ["ok", "unreachable", "key refused", "key refused", "ok"]
        refused, wrong_key, wrong_host = errors
        assert "127.0.0.2 port 1: " in refused
        assert "firewall" in refused
        assert f"keys tried: {stranger}; its ~/.ssh/authorized_keys has to hold one" in wrong_key
        assert "ssh-keyscan" in wrong_host

        file.write_text("".join(map(in_toml, [host0, host1])))
        result = await command("--cluster", str(file), "--json")
    assert result.returncode == 0, result
    for host in json.loads(result.stdout):
        assert host["status"] == "ok"
        assert host["error"] is None
        assert host["python"] == platform.python_version()
        assert host["cores"] == len(os.sched_getaffinity(0))
        assert host["memory"] > 2**26
        assert host["round_trip"] > 0
        assert abs(host["clock_offset"]) < 1  # it is the same clock
        assert min(host["upload"], host["download"]) > 0
        assert host["sent"] in (0, host["sent_at_most"])  # each has a home directory of its own
        assert host["sent_at_most"] > 100_000


async def test_the_hosts_of_an_allocation_have_a_row_each_and_one_that_fails_has_one() -> None:
    nodes = Nodes(Local(name="node0"), Local(name="node1", setup="exit 3"))
    none = Nodes(error=ParallelError("no nodes are free"))
    reports = await check(Cluster([none, nodes, Local(name="none", python="no-such-python")]))
    assert [(report.host, report.status) for report in reports] == [
        ("nodes", "failed"),
        ("node0", "ok"),
        ("node1", "not started"),
        ("none", "not started"),
    ]
    assert reports[0].error == "no nodes are free"
    assert reports[1].error is None
    assert "exited with code 3" in str(reports[2].error)


async def test_a_host_with_another_python_is_told_how_it_would_do() -> None:
    (report,) = await check(Cluster([Local(name="old", python=another_python())]))
    assert (report.host, report.status) == ("old", "wrong Python")
    assert report.error is not None
    assert "python=" in report.error


async def test_ctrl_c_ends_it_and_leaves_nothing(tmp_path: Path) -> None:
    fifo, file = tmp_path / "fifo", tmp_path / "cluster.toml"
    os.mkfifo(fifo)
    file.write_text(f'[[hosts]]\nlocal = true\nsetup = "cat {fifo}; sleep 60"\n')
    words = [sys.executable, "-m", "parallel", "check", "--cluster", str(file)]
    process = await trio.lowlevel.open_process(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    async with process.stdout, process.stderr:
        (await trio.open_file(fifo, "w")).wrapped.close()  # its shell has come that far
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130
        assert await process.stdout.receive_some() == b""
        assert await process.stderr.receive_some() == b""


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "name a host, or a file with --cluster"),
        (["a:b"], "'a:b' is no destination"),
        (["host0", "host0"], "two hosts named 'host0'"),
        (["--cluster", "no-such-file"], "no-such-file"),
    ],
    ids=["nothing", "destination", "twice", "file"],
)
async def test_what_makes_no_sense_is_refused(arguments: list[str], error: str) -> None:
    result = await command(*arguments)
    assert result.returncode == 2
    assert error in result.stderr.decode()


def test_the_table_is_aligned_and_without_what_is_not_known() -> None:
    facts = Facts("3.11.7", "/usr/bin/python3", "Linux x86_64", 64, 256 * 2**30)
    measures = Measures(0.00123, -1.5, 1e9, 2.5e6)
    reports = [
        Report("host0", "ok", None, facts, measures, 0, 543_365),
        Report("a", "wrong Python", "host 'a' has another"),
    ]
    title, first, second, blank, error = render(reports).splitlines()
    assert " ".join(first.split()) == (
        "host0 ok 3.11.7 64 256.0 GiB 1.23 ms 1000.0 MB/s 2.5 MB/s -1.5 s 0 of 543 kB"
    )
    assert second.split() == ["a", "wrong", "Python", *"--------"]
    assert title.index("CORES") == first.index("64")
    assert title.index("PYTHON") == second.index("-")
    assert (blank, error) == ("", "host 'a' has another")
    assert reports[1].as_json()["memory"] is None
