"""The ssh server behind `open_hosts`: a program of its own, which ends with its stdin."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import signal as signals
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncssh  # noqa: TID253  # this is a program, which nothing imports
from asyncssh.constants import EXTENDED_DATA_STDERR  # noqa: TID253

PATIENCE = 2.0
"""Seconds that a host's processes have to end after the end of their connection."""


class Host:
    """One host: its home directory, its login shell, and what runs there."""

    def __init__(self, home: Path, shell: str, env: dict[str, str]) -> None:
        self.shell = shlex.split(shell)
        self.running: set[Session] = set()
        self.env = {
            "HOME": str(home),
            "PATH": os.environ.get("PATH", os.defpath),
            "SHELL": self.shell[0],
            "USER": "user",
            "LOGNAME": "user",
            "LANG": "C.UTF-8",
            **env,
        }


class Server(asyncssh.SSHServer):
    """A connection: lets in whoever has the key, and carries on to further hosts."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def session_requested(self) -> Session:
        """Somebody wants to run something."""
        return Session(self.host)

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> bool:
        """For jump hosts."""
        return True


class Session(asyncssh.SSHServerSession[bytes]):
    """A program of a host with its channel; both hold the other up when they do not read."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.words = host.shell
        self.channel: asyncssh.SSHServerChannel[bytes]
        self.program: asyncio.SubprocessTransport | None = None
        self.early: list[bytes | None] = []

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        """There is a channel."""
        self.channel = chan

    def shell_requested(self) -> bool:
        """Run the login shell."""
        return True

    def exec_requested(self, command: str) -> bool:
        """Let the login shell run a command, as sshd does."""
        self.words = [*self.host.shell, "-c", command]
        return True

    def session_started(self) -> None:
        """Start."""
        self.host.running.add(self)
        self.starting = asyncio.create_task(self.run())

    async def run(self) -> None:
        """Start the program, and see that it does not outlive its connection for long."""
        ended = asyncio.Event()
        self.program, _ = await asyncio.get_running_loop().subprocess_exec(
            lambda: Program(self.channel, ended),
            *self.words,
            env=self.host.env,
            cwd=self.host.env["HOME"],
            start_new_session=True,
        )
        for data in self.early:
            self.pass_on(data)
        closed = asyncio.create_task(self.channel.wait_closed())
        await asyncio.wait(
            [closed, asyncio.create_task(ended.wait())], return_when=asyncio.FIRST_COMPLETED
        )
        self.pass_on(None)
        try:
            await asyncio.wait_for(ended.wait(), PATIENCE)
        except TimeoutError:
            os.killpg(self.program.get_pid(), signals.SIGKILL)
            await ended.wait()
        self.program.close()
        self.host.running.discard(self)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """The client says something."""
        self.pass_on(data)

    def eof_received(self) -> bool:
        """The client says nothing more."""
        self.pass_on(None)
        return True

    def signal_received(self, signal: str) -> None:
        """The client wants the program to end."""
        if self.program is not None and self.program.get_returncode() is None:
            os.killpg(self.program.get_pid(), getattr(signals, f"SIG{signal}"))

    def pass_on(self, data: bytes | None) -> None:
        """To the program; None is the end."""
        if self.program is None:
            self.early.append(data)
            return
        stdin: Any = self.program.get_pipe_transport(0)
        if data is None:
            if not stdin.is_closing():
                stdin.close()
        elif not stdin.is_closing():
            stdin.write(data)

    def pause_writing(self) -> None:
        """The client does not read."""
        for stream in (1, 2):
            self.pipe(stream).pause_reading()

    def resume_writing(self) -> None:
        """The client reads again."""
        for stream in (1, 2):
            self.pipe(stream).resume_reading()

    def pipe(self, number: int) -> Any:
        """One of the program's streams."""
        assert self.program is not None
        return self.program.get_pipe_transport(number)


class Program(asyncio.SubprocessProtocol):
    """A program as asyncio reports of it."""

    def __init__(self, channel: asyncssh.SSHServerChannel[bytes], ended: asyncio.Event) -> None:
        self.channel = channel
        self.ended = ended
        self.open = {1, 2}
        self.program: asyncio.SubprocessTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It has started."""
        assert isinstance(transport, asyncio.SubprocessTransport)
        self.program = transport

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """It has written something."""
        with suppress(OSError):  # the client has gone
            self.channel.write(data, None if fd == 1 else EXTENDED_DATA_STDERR)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """One of its streams has ended."""
        self.open.discard(fd)
        if not self.open:
            with suppress(OSError):
                self.channel.write_eof()
        self.tell()

    def process_exited(self) -> None:
        """It has ended."""
        self.ended.set()
        self.tell()

    def tell(self) -> None:
        """Say how it ended once it has said all that it had to say."""
        code = self.program.get_returncode()
        if code is None or self.open:
            return
        with suppress(OSError):
            if code < 0:
                self.channel.exit_with_signal(signals.Signals(-code).name.removeprefix("SIG"))
            else:
                self.channel.exit(code)

    def pause_writing(self) -> None:
        """It does not read."""
        self.channel.pause_reading()

    def resume_writing(self) -> None:
        """It reads again."""
        # Not at once: asyncio would drop what is written before an end that comes in this call.
        asyncio.get_running_loop().call_soon(self.channel.resume_reading)


async def listen(where: Path, number: int, host: Host, key: asyncssh.SSHKey) -> Any:
    """Listen on a loopback address of its own, or on another port where there is only one."""
    options: dict[str, Any] = {
        "server_factory": lambda: Server(host),
        "server_host_keys": [key],
        "authorized_client_keys": str(where / "key.pub"),
        "encoding": None,
        "window": 1 << 22,
    }
    try:
        return await asyncssh.listen(f"127.0.0.{2 + number}", 0, **options)
    except OSError:
        return await asyncssh.listen("127.0.0.1", 0, **options)


async def main(count: int, shell: str, env: dict[str, str], where: str) -> None:
    """Serve until stdin ends, then remove what there was."""
    directory = Path(where)
    try:
        await serve(count, shell, env, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def serve(count: int, shell: str, env: dict[str, str], directory: Path) -> None:
    """Serve until stdin ends."""
    client_key = asyncssh.generate_private_key("ssh-ed25519")
    client_key.write_private_key(directory / "key")
    client_key.write_public_key(directory / "key.pub")
    os.chmod(directory / "key", 0o600)
    hosts, listeners, known, addresses = [], [], b"", []
    for number in range(count):
        home = directory / f"host{number}"
        home.mkdir()
        key = asyncssh.generate_private_key("ssh-ed25519")
        hosts.append(Host(home, shell, env))
        listeners.append(await listen(directory, number, hosts[-1], key))
        address, port = listeners[-1].sockets[0].getsockname()[:2]
        addresses.append([address, port])
        known += f"[{address}]:{port} ".encode() + key.export_public_key()
    (directory / "known_hosts").write_bytes(known)
    with suppress(BrokenPipeError):  # whoever started this has been cancelled
        os.write(1, json.dumps(addresses).encode() + b"\n")
    await end_of_stdin()
    for listener in listeners:
        listener.close()
    ends = [session.starting for host in hosts for session in host.running]
    for host in hosts:
        for session in host.running:
            session.channel.abort()  # as when a network is cut
    await asyncio.gather(*ends)


async def end_of_stdin() -> None:
    """Wait until whoever started this is gone, or has had enough."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


if __name__ == "__main__":
    asyncio.run(main(**json.loads(sys.argv[1])))
