"""The cluster file: what it says becomes launchers, and what makes no sense is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

import parallel
from parallel import Cluster, ParallelError
from parallel._cluster_file import read_cluster
from parallel.launch.command import Command
from parallel.launch.local import Local
from parallel.launch.slurm import Slurm
from parallel.launch.ssh import Ssh


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cluster.toml"


ALL_KINDS = """
root_slots = 3

[[hosts]]
ssh = "alice@host0:2222"

[[hosts]]
ssh = "gpu"
name = "gpu0"
slots = 8
python = "~/bin/python3"
env = { OMP_NUM_THREADS = "1" }
cwd = "~/work"
setup = "module load cuda"
connect_timeout = 5
client_keys = ["~/.ssh/id_cluster"]
known_hosts = "keys"
jump = ["gate"]
keepalive = 2.5

[[hosts]]
command = ["docker", "exec", "-i", "box"]
name = "box"

[[hosts]]
local = true
name = "left"
"""


def test_each_kind_of_host_becomes_its_launcher_with_its_settings(file: Path) -> None:
    file.write_text(ALL_KINDS)
    cluster = Cluster.from_toml(file)
    assert cluster.root_slots == 3
    plain, gpu, box, left = cluster.sources
    assert isinstance(plain, Ssh)
    assert (plain.destination, plain.name) == ("alice@host0:2222", "alice@host0:2222")
    assert isinstance(gpu, Ssh)
    assert (gpu.destination, gpu.name, gpu.slots, gpu.python) == ("gpu", "gpu0", 8, "~/bin/python3")
    assert (gpu.env, gpu.cwd, gpu.setup) == ({"OMP_NUM_THREADS": "1"}, "~/work", "module load cuda")
    assert (gpu.connect_timeout, gpu.keepalive) == (5, 2.5)
    assert (gpu.client_keys, gpu.known_hosts, gpu.jump) == (["~/.ssh/id_cluster"], "keys", ["gate"])
    assert isinstance(box, Command)
    assert (box.argv, box.name) == (["docker", "exec", "-i", "box"], "box")
    assert isinstance(left, Local)
    assert left.name == "left"


def test_an_allocation_takes_its_settings_inside_and_outside_of_its_table(file: Path) -> None:
    file.write_text('[[hosts]]\nslurm = { nodes = 2 }\npython = "python3"\n')
    (source,) = Cluster.from_toml(str(file)).sources
    assert isinstance(source, Slurm)
    file.write_text("[[hosts]]\nslurm = { nodes = 2 }\nnodes = 3\n")
    with pytest.raises(ParallelError, match=r"number 1: nodes is there twice"):
        read_cluster(file)


def test_an_empty_file_is_a_cluster_of_the_root_s_host_alone(file: Path) -> None:
    file.write_text("")
    cluster = read_cluster(file)
    assert cluster.sources == ()
    assert cluster.root_slots == Cluster().root_slots


async def test_a_program_runs_on_the_hosts_of_a_file(file: Path) -> None:
    file.write_text('[[hosts]]\nlocal = true\nname = "left"\nenv = { SIDE = "l" }\n')
    async with parallel.init(cluster=Cluster.from_toml(file)):
        with trio.fail_after(30):
            assert await parallel.run(parallel.current_host, where="left") == "left"


WRONG = {
    "hosts = [": "cluster.toml is no TOML: ",
    "root_slot = 2": "cluster.toml: there is no key 'root_slot'; do you mean root_slots? "
    "known are hosts, root_slots",
    'root_slots = "2"': 'cluster.toml: root_slots has to be a whole number, not "2"',
    "root_slots = true": "root_slots has to be a whole number, not true",
    "root_slots = -1": "cluster.toml: root_slots must not be negative",
    'hosts = "host0"': "hosts has to be a list of tables, each begun by a line [[hosts]]",
    'hosts = ["host0"]': '[[hosts]] number 1: "host0" is no table; write [[hosts]] and below it',
    '[hosts]\nssh = "a"': "hosts has to be a list of tables, each begun by a line [[hosts]]",
    '[[hosts]]\nname = "x"': "number 1 (x): it needs one of these keys, and has none: ssh = ",
    '[[hosts]]\nssh = "a"\nlocal = true': "it needs one of these keys, and has ssh and local",
    '[[hosts]]\nssh = "a"\n[[hosts]]\nssh = "b"\nslot = 2': "[[hosts]] number 2: there is no key "
    "'slot'; do you mean slots? known are client_keys, config, connect_timeout, cwd, env, jump",
    '[[hosts]]\nssh = "a"\ndestination = "b"': "number 1: there is no key 'destination'",
    '[[hosts]]\nssh = "a"\nslots = "2"': 'number 1: slots has to be a whole number, not "2"',
    '[[hosts]]\nssh = "a"\nslots = true': "slots has to be a whole number, not true",
    '[[hosts]]\nssh = "a"\nenv = { A = 1 }': 'env has to be a table of strings, not {"A": 1}',
    '[[hosts]]\nssh = "a"\njump = "b"': 'jump has to be a list of strings, not "b"',
    '[[hosts]]\nssh = "a"\nknown_hosts = 1': "has to be a string or a list of strings, not 1",
    '[[hosts]]\nssh = "a"\nconnect_timeout = 0': "number 1: connect_timeout must be > 0",
    '[[hosts]]\nssh = "a:b"': "number 1: 'a:b' is no destination: write user@host:port",
    "[[hosts]]\nssh = 1": "number 1: ssh has to be a string, not 1",
    '[[hosts]]\ncommand = "docker"\nname = "x"': "command has to be a list of strings",
    '[[hosts]]\ncommand = ["docker"]': "number 1: with command it needs a name",
    "[[hosts]]\nlocal = false": "number 1: local cannot be false; write local = true",
    '[[hosts]]\nlocal = true\nname = "root"': "cluster.toml: a host cannot be named 'root'",
    "[[hosts]]\nlocal = true\n[[hosts]]\nlocal = true": "there are two hosts named 'localhost'",
}


@pytest.mark.parametrize(("text", "error"), WRONG.items(), ids=WRONG)
def test_what_makes_no_sense_is_named_with_what_would_mend_it(
    file: Path, text: str, error: str
) -> None:
    file.write_text(text)
    with pytest.raises(ParallelError) as info:
        read_cluster(file)
    assert type(info.value) is ParallelError
    assert str(info.value).startswith(str(file))
    assert error in str(info.value)


def test_bytes_that_are_no_text_are_no_toml(file: Path) -> None:
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ParallelError, match=r"cluster\.toml is no TOML"):
        read_cluster(file)


def test_a_file_that_is_not_there_is_the_system_s_error(file: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Cluster.from_toml(file)
