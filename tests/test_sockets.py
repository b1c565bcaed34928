"""Whoever listens is found, and nobody else."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .sockets import Listener, listening, listening_with_mark

UNIX_KINDS = [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET]


def new_listeners(before: list[Listener]) -> set[tuple[str, str]]:
    """Kind and address of what this process listens on more than before."""
    new = set(listening([os.getpid()])) - set(before)
    return {(listener.kind, listener.address) for listener in new}


@pytest.fixture
def before() -> list[Listener]:
    return listening([os.getpid()])


@pytest.mark.parametrize(("kind", "address"), [("tcp", "127.0.0.1"), ("tcp6", "::1")])
def test_a_tcp_socket_that_listens_is_found_and_its_connections_are_not(
    before: list[Listener], kind: str, address: str
) -> None:
    family = socket.AF_INET6 if kind == "tcp6" else socket.AF_INET
    with socket.create_server((address, 0), family=family) as server:
        port = server.getsockname()[1]
        with socket.create_connection((address, port)), server.accept()[0]:
            written = f"[{address}]:{port}" if kind == "tcp6" else f"{address}:{port}"
            assert new_listeners(before) == {(kind, written)}
    assert not new_listeners(before)


def test_a_udp_socket_is_found_unless_it_hears_only_one_peer(before: list[Listener]) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        port = udp.getsockname()[1]
        assert new_listeners(before) == {("udp", f"127.0.0.1:{port}")}
        udp.connect(("127.0.0.1", port))
        assert not new_listeners(before)


@pytest.mark.parametrize("kind", UNIX_KINDS)
@pytest.mark.parametrize("name", [lambda path: str(path / "a b"), lambda path: f"\0{path}"])
def test_unix_sockets_with_a_name_are_found_and_pairs_are_not(
    before: list[Listener], kind: int, name: Callable[[Path], str], tmp_path: Path
) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with ours, theirs, socket.socket(socket.AF_UNIX, kind) as server:
        server.bind(name(tmp_path))
        if kind != socket.SOCK_DGRAM:
            server.listen()
        assert new_listeners(before) == {("unix", name(tmp_path).replace("\0", "@"))}


PROGRAM = """
import socket
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
input()
"""


def test_all_processes_of_a_test_are_found_by_its_mark(mark: str) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        found = listening_with_mark(mark)
        assert Listener(process.pid, "tcp", f"127.0.0.1:{port}") in found
        process.communicate(b"\n")
    assert listening([process.pid]) == []
