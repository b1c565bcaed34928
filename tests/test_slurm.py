"""`launch.slurm`: allocations and their nodes, with a real Slurm."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

import parallel
from parallel._bootstrap import open_host
from parallel.abc import Launcher
from parallel.errors import HostUnreachable
from parallel.launch.slurm import Slurm

from .programs.distant import use_all_of_it, where_am_i
from .servers.slurm import Slurm as Server
from .servers.slurm import open_slurm
from .support import IMPORT_PATH, eventually

needs_slurm = pytest.mark.needs("munged", "slurmctld", "slurmd", "srun", "salloc")
PROGRAMS = Path(__file__).with_name("programs")
SETTINGS = {"python": sys.executable, "env": {"PYTHONPATH": str(PROGRAMS)}}


@pytest.fixture(scope="module")
def servers() -> Iterator[Server]:
    with open_slurm() as server:
        yield server


@pytest.fixture
def server(servers: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("SLURM_CONF", str(servers.config))
    yield servers
    servers.clear()


async def name_of(launcher: Launcher) -> str:
    """What a host's own environment calls it."""
    async with launcher.open() as shell:
        await shell.stdin.send_all(b"printf %s $SLURMD_NODENAME; exit\n")
        return b"".join([data async for data in shell.stdout]).decode()


def test_settings_that_cannot_be_right_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="nodes"):
        Slurm(0)
    with pytest.raises(TypeError, match="lists"):
        Slurm(1, "--partition=all")


async def test_outside_of_a_job_the_number_of_nodes_has_to_be_said() -> None:
    with pytest.raises(HostUnreachable, match="nodes="):
        async with Slurm().allocate():
            pass


async def test_without_slurm_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(HostUnreachable, match="salloc could not be executed: No such file"):
        async with Slurm(1).allocate():
            pass


@needs_slurm
async def test_there_is_a_host_for_each_node_and_the_allocation_ends_with_the_block(
    server: Server,
) -> None:
    async with Slurm(2, slots=3).allocate() as hosts:
        assert [(host.name, host.slots) for host in hosts] == [("node0", 3), ("node1", 3)]
        assert len(server.jobs()) == 1
        for host in hosts:
            assert await name_of(host) == host.name
    assert server.jobs() == []


@needs_slurm
async def test_a_host_starts_on_each_node_and_may_use_all_of_its_processors(
    server: Server,
) -> None:
    async def start(launcher: Launcher) -> None:
        async with open_host(launcher, {}, print, main="stand_in_agent:main") as arrival:
            assert arrival.cpus == len(os.sched_getaffinity(0))
            await arrival.send.send_all(b"no newline")
            data = arrival.early
            while not data.endswith(b"no newline"):
                data += await arrival.receive.receive_some()

    async with Slurm(2, **SETTINGS).allocate() as hosts:  # type: ignore[arg-type]
        async with trio.open_nursery() as nursery:
            for host in hosts:
                nursery.start_soon(start, host)


@needs_slurm
async def test_the_options_are_those_of_salloc_and_its_words_are_quoted(server: Server) -> None:
    with pytest.raises(HostUnreachable, match=r"(?s)salloc exited with code.*partition"):
        async with Slurm(1, ["--partition=none-such"]).allocate():
            pass


@needs_slurm
@pytest.mark.slow
async def test_one_that_waits_in_the_queue_can_be_given_up(server: Server) -> None:
    async with Slurm(2, ["--exclusive"]).allocate():
        with pytest.raises(HostUnreachable, match=r"no allocation within 0.5 s"):
            async with Slurm(1, ["--exclusive"], queue_timeout=0.5).allocate():
                pass
        with trio.move_on_after(0.5) as scope:
            async with Slurm(1, ["--exclusive"]).allocate():
                pass
        assert scope.cancelled_caught
        assert len(server.jobs()) == 1


PROGRAM = """
import sys, trio
from parallel.launch.slurm import Slurm

async def main():
    async with Slurm(int(sys.argv[1]), ["--exclusive"]).allocate():
        print("granted", flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


def start_program(nodes: int) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", PROGRAM, str(nodes)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


@needs_slurm
async def test_a_killed_program_gives_its_nodes_back(server: Server) -> None:
    with start_program(2) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "granted\n"
        program.send_signal(signal.SIGKILL)
    await eventually(lambda: not server.jobs())


@needs_slurm
async def test_a_killed_program_leaves_the_queue(server: Server) -> None:
    async with Slurm(2, ["--exclusive"]).allocate():
        with start_program(1) as program:
            await eventually(lambda: len(server.jobs()) == 2)
            program.send_signal(signal.SIGKILL)
        await eventually(lambda: len(server.jobs()) == 1)


@needs_slurm
async def test_in_a_job_its_nodes_are_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Slurm(2).allocate():
        (job,) = server.jobs()
        monkeypatch.setenv("SLURM_JOB_ID", job)
        monkeypatch.setenv("SLURM_JOB_NODELIST", "node[0-1]")
        async with Slurm().allocate() as hosts:
            assert [await name_of(host) for host in hosts] == ["node0", "node1"]
        async with Slurm(1).allocate() as hosts:
            assert [host.name for host in hosts] == ["node0"]
        with pytest.raises(HostUnreachable, match="has 2 nodes, and 3 are asked for"):
            async with Slurm(3).allocate():
                pass
        assert server.jobs() == [job]


# A whole program


@needs_slurm
@pytest.mark.slow
async def test_a_program_uses_the_nodes_that_it_asks_for(server: Server) -> None:
    cluster = parallel.Cluster([Slurm(2, **SETTINGS)])  # type: ignore[arg-type]
    async with parallel.init(cluster=cluster, grace=2.0):
        assert [host.name for host in parallel.hosts()] == ["root", "node0", "node1"]
        assert await parallel.run(where_am_i, "node1", where="node0") == ["node0", "node1"]
        await use_all_of_it("node1")
    assert server.jobs() == []


IN_A_JOB = """
import sys, trio, parallel
from tests.programs.distant import where_am_i

async def main():
    async with parallel.init(cluster=parallel.Cluster.from_slurm(root_slots=1)):
        print(*[host.name for host in parallel.hosts()])
        print(*await parallel.run(where_am_i, "node1", where="node0"))

trio.run(main)
"""


@needs_slurm
@pytest.mark.parametrize("how", ["salloc", "sbatch"])
@pytest.mark.slow
async def test_a_program_in_a_job_has_its_nodes_by_from_slurm(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str
) -> None:
    """Run by `salloc` here, and by Slurm on the first node, as a batch script."""
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPATH", IMPORT_PATH)
    program, output = tmp_path / "program.py", tmp_path / "output"
    program.write_text(IN_A_JOB)
    if how == "salloc":
        lines = server.ask("salloc", "--nodes=2", sys.executable, str(program))
    else:
        server.ask(
            "sbatch", "--nodes=2", f"--output={output}", f"--wrap={sys.executable} {program}"
        )
        await eventually(lambda: not server.jobs(), 60)
        lines = output.read_text().splitlines()
    assert lines == ["root node0 node1", "node0 node1"]


@needs_slurm
@pytest.mark.slow
async def test_check_has_a_row_for_each_node_of_an_allocation_in_a_file(
    server: Server, tmp_path: Path
) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text(f"[[hosts]]\nslurm = {{ nodes = 2 }}\npython = {json.dumps(sys.executable)}\n")
    words = [sys.executable, "-m", "parallel", "check", "--json", "--cluster", str(file)]
    found = await trio.run_process(words, capture_stdout=True, check=False)
    rows = json.loads(found.stdout)
    assert [(row["host"], row["status"], row["error"]) for row in rows] == [
        ("node0", "ok", None),
        ("node1", "ok", None),
    ]
    assert found.returncode == 0
    assert all(row["round_trip"] > 0 and row["cores"] for row in rows)
    assert server.jobs() == []


@needs_slurm
async def test_check_says_why_there_is_no_allocation(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text('[[hosts]]\nslurm = { nodes = 2, options = ["--partition=none-such"] }\n')
    words = [sys.executable, "-m", "parallel", "check", "--cluster", str(file)]
    found = await trio.run_process(words, capture_stdout=True, check=False)
    assert found.returncode == 1
    table, error, *_ = found.stdout.decode().split("\n\n")
    assert table.splitlines()[1].split()[:3] == ["slurm", "not", "started"]
    assert "partition" in error


@needs_slurm
async def test_a_revoked_allocation_ends_its_hosts(server: Server) -> None:
    async with Slurm(1).allocate() as [host], host.open() as shell:
        await shell.stdin.send_all(b"echo begin; exec sleep 1000\n")
        assert await shell.stdout.receive_some() == b"begin\n"
        server.ask("scancel", *server.jobs())
        with trio.fail_after(10):
            assert await shell.stdout.receive_some() == b""
