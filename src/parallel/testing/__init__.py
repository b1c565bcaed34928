"""For tests of programs that use this library: hosts that are always there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from ..errors import HostUnreachable
from ..launch.ssh import Ssh

_PROGRAM = Path(__file__).with_name("_ssh_server.py")


@asynccontextmanager
async def open_hosts(
    count: int,
    *,
    shell: str = "/bin/sh",
    env: Mapping[str, str] | None = None,
    **settings: Any,
) -> AsyncGenerator[list[Ssh], None]:
    """Hosts on this machine that are reached by ssh: "host0", "host1", ...

        async with open_hosts(2) as hosts, parallel.init(cluster=Cluster(hosts)):
            assert await parallel.run(parallel.current_host, where="host0") == "host0"

    They are served by a process of its own on loopback addresses, with keys that are made on the
    spot, and a home directory for each. Nothing of `~/.ssh` is looked at. Leaving the block ends
    them and removes what they left; so does the end of this process.

    Args:
        count: How many.
        shell: The login shell there, with its arguments.
        env: Environment variables there, beyond PATH, HOME and the like.
        settings: Of `parallel.launch.ssh.Ssh`, for each of them.
    """
    directory = Path(tempfile.mkdtemp(prefix="parallel-hosts-"))
    try:
        options = {"count": count, "shell": shell, "env": dict(env or {}), "where": str(directory)}
        server = await trio.lowlevel.open_process(
            [sys.executable, str(_PROGRAM), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            yield [
                _launcher(number, address, directory, settings)
                for number, address in enumerate(await _read_addresses(server))
            ]
        finally:
            with trio.CancelScope(shield=True):
                await _end(server)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _launcher(number: int, address: list[Any], directory: Path, settings: Mapping[str, Any]) -> Ssh:
    host, port = address
    ours: dict[str, Any] = {
        "name": f"host{number}",
        "known_hosts": str(directory / "known_hosts"),
        "client_keys": [str(directory / "key")],
        "config": os.devnull,
        "python": sys.executable,
    }
    return Ssh(f"user@{host}:{port}", **{**ours, **settings})


async def _read_addresses(server: trio.Process) -> list[list[Any]]:
    assert server.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        data = await server.stdout.receive_some()
        if not data:
            raise HostUnreachable("host0", "the ssh server ended; see what it printed above")
        line += data
    addresses: list[list[Any]] = json.loads(line)
    return addresses


async def _end(server: trio.Process) -> None:
    """Its stdin's end is the server's; it ends what it started first."""
    assert server.stdin is not None
    assert server.stdout is not None
    await server.stdin.aclose()
    await server.stdout.aclose()
    with trio.move_on_after(5):
        await server.wait()
    if server.returncode is None:
        server.kill()
        await server.wait()
