"""`launch.ssh`: how a host is found, trusted, logged in to, and lost."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

import parallel
from parallel.abc import Launcher
from parallel.errors import HostUnreachable
from parallel.launch._ssh_connection import IGNORE, _say_nothing_for_nothing
from parallel.launch.ssh import Destination, Ssh, parse_destination
from parallel.testing import open_hosts

from .support import MARK, eventually, marked_processes

# Destinations


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("host", ("host", None, None)),
        ("user@host", ("host", "user", None)),
        ("user@host:22", ("host", "user", 22)),
        ("host:2222", ("host", None, 2222)),
        ("a@b@host", ("host", "a@b", None)),
        ("::1", ("::1", None, None)),
        ("user@fe80::1", ("fe80::1", "user", None)),
        ("[::1]", ("::1", None, None)),
        ("user@[::1]:22", ("::1", "user", 22)),
        ("an_alias.of-mine", ("an_alias.of-mine", None, None)),
    ],
)
def test_a_destination_is_taken_apart(text: str, expected: Destination) -> None:
    assert parse_destination(text) == expected


@pytest.mark.parametrize("text", ["", "user@", "host:", "host:port", ":22", "-oProxyCommand=x"])
def test_what_is_no_destination_is_refused_at_once(text: str) -> None:
    with pytest.raises(ValueError, match="no destination"):
        Ssh(text)
    with pytest.raises(ValueError, match="no destination"):
        Ssh("host", jump=[text])


def test_a_host_is_called_what_its_destination_is_unless_it_has_a_name() -> None:
    assert Ssh("user@host:22").name == "user@host:22"
    assert Ssh("user@host:22", name="gpu").name == "gpu"


def test_a_list_of_one_is_still_a_list() -> None:
    with pytest.raises(TypeError):
        Ssh("host", client_keys="~/.ssh/id")
    with pytest.raises(TypeError):
        Ssh("host", jump="other")


@pytest.mark.parametrize("path", [None, "/bin:/usr/bin"])
def test_the_search_path_is_left_as_it_was(
    monkeypatch: pytest.MonkeyPatch, path: str | None
) -> None:
    if path is None:
        monkeypatch.delenv("PATH")
    else:
        monkeypatch.setenv("PATH", path)
    Ssh("host").open()
    assert os.environ.get("PATH") == path


def test_a_passphrase_is_not_shown() -> None:
    assert "secret" not in repr(Ssh("host", passphrase="secret"))


# Servers


@pytest.fixture
async def hosts(mark: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Ssh]]:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    async with open_hosts(2, env={MARK: mark}) as hosts:
        yield hosts


@pytest.fixture
def host(hosts: list[Ssh]) -> Ssh:
    return hosts[0]


async def say(launcher: Launcher, command: str = "echo hello") -> str:
    async with launcher.open() as shell:
        await shell.stdin.send_all(command.encode() + b"\nexit\n")
        return b"".join([data async for data in shell.stdout]).decode().strip()


async def refused(launcher: Launcher) -> str:
    with trio.fail_after(10), pytest.raises(HostUnreachable) as caught:
        await say(launcher)
    assert caught.value.host == launcher.name
    return caught.value.reason


def key_of(host: Ssh) -> Path:
    return Path(host.client_keys[0])


def keygen(path: Path, *args: str, passphrase: str = "") -> Path:
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(path), *args]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    return path


def encrypted(host: Ssh, tmp_path: Path, passphrase: str = "open sesame") -> Path:
    path = tmp_path / "encrypted"
    shutil.copy(key_of(host), path)
    argv = ["ssh-keygen", "-q", "-p", "-P", "", "-N", passphrase, "-f", str(path)]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return path


# The configuration


def configure(tmp_path: Path, text: str) -> str:
    path = tmp_path / "config"
    path.write_text(text)
    return str(path)


def entry(alias: str, host: Ssh, *more: str) -> str:
    where = parse_destination(host.destination)
    lines = [
        f"Host {alias}",
        f"HostName {where.host}",
        f"Port {where.port}",
        f"User {where.user}",
        f"IdentityFile {key_of(host)}",
        f"UserKnownHostsFile {host.known_hosts}",
        *more,
    ]
    return "\n  ".join(lines) + "\n"


async def test_an_alias_is_looked_up_in_the_configuration(host: Ssh, tmp_path: Path) -> None:
    config = configure(tmp_path, entry("alias", host))
    assert await say(Ssh("alias", config=config)) == "hello"


async def test_the_configuration_in_the_home_directory_is_the_default(
    host: Ssh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".ssh").mkdir()
    Path(configure(tmp_path, entry("alias", host))).rename(tmp_path / ".ssh/config")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert await say(Ssh("alias")) == "hello"


async def test_what_is_said_here_goes_before_it(hosts: list[Ssh], tmp_path: Path) -> None:
    where = parse_destination(hosts[1].destination)
    config = configure(tmp_path, entry("alias", hosts[0]))
    launcher = Ssh(f"alias:{where.port}", config=config)
    assert "port " + str(where.port) in await refused(launcher)


async def test_a_key_file_that_the_configuration_names_need_not_exist(
    host: Ssh, tmp_path: Path
) -> None:
    config = configure(tmp_path, entry("alias", host, "IdentityFile /no/such/key"))
    assert await say(Ssh("alias", config=config)) == "hello"


@pytest.mark.parametrize("more", ["", "AddressFamily inet\n", "AddressFamily any\n"])
async def test_it_says_where_connections_come_from(tmp_path: Path, more: str) -> None:
    with trio.socket.socket() as server:
        await server.bind(("127.0.0.1", 0))
        server.listen()
        text = f"{more}BindAddress 127.0.0.7\nPort {server.getsockname()[1]}\n"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(refused, Ssh("127.0.0.1", config=configure(tmp_path, text)))
            connection, (address, _) = await server.accept()
            assert address == "127.0.0.7"
            connection.close()


async def test_it_says_which_kind_of_address_is_used(host: Ssh, tmp_path: Path) -> None:
    wrong = Ssh("alias", config=configure(tmp_path, entry("alias", host, "AddressFamily inet6")))
    address = parse_destination(host.destination).host
    assert f"the name {address!r} is not known: Address family" in await refused(wrong)
    right = Ssh("alias", config=configure(tmp_path, entry("alias", host, "AddressFamily inet")))
    assert await say(right) == "hello"


async def test_an_address_that_no_connection_can_come_from_is_told(
    host: Ssh, tmp_path: Path
) -> None:
    config = configure(tmp_path, entry("alias", host, "BindAddress 192.0.2.1"))
    assert "192.0.2.1" in await refused(Ssh("alias", config=config))


async def test_its_jump_hosts_are_gone_through(hosts: list[Ssh], tmp_path: Path) -> None:
    text = entry("inner", hosts[0], "ProxyJump outer") + entry("outer", hosts[1])
    assert await say(Ssh("inner", config=configure(tmp_path, text))) == "hello"


async def test_a_proxy_command_is_run_and_ended(host: Ssh, tmp_path: Path) -> None:
    program = tmp_path / "relay.py"
    program.write_text(RELAY)
    command = f"ProxyCommand {sys.executable} {program} %h %p"
    config = configure(tmp_path, entry("alias", host, command))
    assert await say(Ssh("alias", config=config)) == "hello"


RELAY = """
import socket, sys, threading
near, far = socket.socket(fileno=0), socket.create_connection((sys.argv[1], int(sys.argv[2])))
def carry(source, sink):
    while data := source.recv(65536):
        sink.sendall(data)
    sink.shutdown(socket.SHUT_WR)
threading.Thread(target=carry, args=(near, far), daemon=True).start()
carry(far, near)
"""


async def test_jump_hosts_can_be_said_here(hosts: list[Ssh]) -> None:
    launcher = dataclasses.replace(hosts[0], jump=[hosts[1].destination])
    assert await say(launcher, "echo $SSH_CONNECTION hello") == "hello"


async def test_a_jump_host_that_cannot_be_reached_is_named(hosts: list[Ssh]) -> None:
    reason = await refused(dataclasses.replace(hosts[0], jump=["127.0.0.1:1"]))
    assert "127.0.0.1 port 1: Connection refused" in reason


async def test_what_is_behind_a_jump_host_is_named_when_it_refuses(hosts: list[Ssh]) -> None:
    launcher = Ssh("127.0.0.1:1", **settings(hosts[0]), jump=[hosts[1].destination])
    assert "127.0.0.1 port 1" in await refused(launcher)


def settings(host: Ssh) -> dict[str, Any]:
    return {name: getattr(host, name) for name in ("known_hosts", "client_keys", "config")}


async def test_a_configuration_that_makes_no_sense_is_told(tmp_path: Path) -> None:
    config = configure(tmp_path, "Host *\n  Port many\n")
    assert "configuration" in await refused(Ssh("alias", config=config))


# Trust


async def test_a_host_whose_key_nobody_knows_is_refused(host: Ssh, tmp_path: Path) -> None:
    nowhere = str(tmp_path / "known_hosts")
    reason = await refused(dataclasses.replace(host, known_hosts=nowhere))
    where = parse_destination(host.destination)
    assert f"its host key is not in {nowhere}" in reason
    assert f"`ssh-keyscan -p {where.port} {where.host}`" in reason
    assert re.search(r"it presents ssh-ed25519 SHA256:\S{43}\)", reason)


async def test_a_host_whose_key_has_changed_is_refused(hosts: list[Ssh], tmp_path: Path) -> None:
    lines = Path(str(hosts[0].known_hosts)).read_text().splitlines()
    names, keys = zip(*(line.split(" ", 1) for line in lines), strict=True)
    swapped = tmp_path / "known_hosts"
    swapped.write_text(f"{names[0]} {keys[1]}\n")
    reason = await refused(dataclasses.replace(hosts[0], known_hosts=str(swapped)))
    assert f"its host key is not the one in {swapped}" in reason
    assert "ssh-keygen -R" in reason


async def test_the_configuration_cannot_turn_that_off(host: Ssh, tmp_path: Path) -> None:
    text = entry("alias", host).replace(str(host.known_hosts), "none")
    text += "Host *\n  StrictHostKeyChecking no\n"
    assert "host key" in await refused(Ssh("alias", config=configure(tmp_path, text)))


# Logging in


async def test_a_key_that_the_server_does_not_know_is_named(host: Ssh, tmp_path: Path) -> None:
    key = str(keygen(tmp_path / "stranger"))
    reason = await refused(dataclasses.replace(host, client_keys=[key]))
    assert "refused user 'user'" in reason
    assert f"keys tried: {key}" in reason


async def test_the_next_key_is_tried_when_one_is_refused(host: Ssh, tmp_path: Path) -> None:
    keys = [str(keygen(tmp_path / "stranger")), str(key_of(host))]
    assert await say(dataclasses.replace(host, client_keys=keys)) == "hello"


async def test_without_any_key_the_error_says_so(
    host: Ssh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    reason = await refused(dataclasses.replace(host, client_keys=()))
    assert "keys tried: none" in reason


@pytest.mark.parametrize("content", [None, "this is no key\n"])
async def test_a_key_file_that_is_none_is_named(
    host: Ssh, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_text(content)
    assert str(path) in await refused(dataclasses.replace(host, client_keys=[str(path)]))


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    path = str(tmp_path / "agent")
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    while not os.path.exists(path):
        pass
    monkeypatch.setenv("SSH_AUTH_SOCK", path)
    yield
    process.terminate()
    process.wait()


async def test_a_key_of_an_agent_serves(
    hosts: list[Ssh], agent: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    monkeypatch.setenv("HOME", str(tmp_path))
    launcher = dataclasses.replace(hosts[0], client_keys=())
    assert str(tmp_path / "agent") in await refused(launcher)
    subprocess.run(["ssh-add", "-q", str(key_of(hosts[0]))], check=True)
    assert await say(launcher) == "hello"


# Passphrases


async def test_a_key_with_a_passphrase_and_none_given_is_named(host: Ssh, tmp_path: Path) -> None:
    key = encrypted(host, tmp_path)
    reason = await refused(dataclasses.replace(host, client_keys=[str(key)]))
    assert f"{key} has a passphrase" in reason
    assert "passphrase=" in reason


async def test_a_passphrase_opens_it(host: Ssh, tmp_path: Path) -> None:
    keys = [str(encrypted(host, tmp_path))]
    assert (
        await say(dataclasses.replace(host, client_keys=keys, passphrase="open sesame")) == "hello"
    )
    reason = await refused(dataclasses.replace(host, client_keys=keys, passphrase="wrong"))
    assert f"{keys[0]} could not be decrypted" in reason


async def test_nobody_is_asked_while_there_is_another_key(host: Ssh, tmp_path: Path) -> None:
    keys = [str(encrypted(host, tmp_path)), str(key_of(host))]
    asked: list[str] = []
    launcher = dataclasses.replace(host, client_keys=keys, passphrase=asked.append)
    assert await say(launcher) == "hello"
    assert asked == []


async def run_prepared(launcher: Launcher) -> str:
    """As a cluster does: prepared here, opened in another process."""
    async with launcher.prepare() as prepared:
        return await parallel.run(say, prepared)


@pytest.mark.slow
async def test_a_callback_is_asked_in_the_first_process(
    tree: None, host: Ssh, tmp_path: Path
) -> None:
    key = str(encrypted(host, tmp_path))
    asked = []

    def ask(path: str) -> str:
        asked.append((path, os.getpid()))
        return "open sesame"

    async def ask_later(path: str) -> str:
        await trio.lowlevel.checkpoint()
        return ask(path)

    for passphrase in (ask, ask_later):
        launcher = dataclasses.replace(host, client_keys=[key], passphrase=passphrase)
        assert await run_prepared(launcher) == "hello"
    assert asked == [(key, os.getpid())] * 2


@pytest.mark.slow
async def test_a_callback_may_have_no_answer_or_fail(tree: None, host: Ssh, tmp_path: Path) -> None:
    key = str(encrypted(host, tmp_path))
    launcher = dataclasses.replace(host, client_keys=[key], passphrase=lambda path: None)
    with pytest.raises(HostUnreachable, match="has a passphrase"):
        await run_prepared(launcher)
    launcher = dataclasses.replace(host, client_keys=[key], passphrase=lambda path: 1 / 0)  # type: ignore[arg-type,return-value]
    with pytest.raises(HostUnreachable, match="raised ZeroDivisionError: division by zero"):
        await run_prepared(launcher)


async def test_cancelled_while_somebody_is_asked_it_ends(
    tree: None, host: Ssh, tmp_path: Path
) -> None:
    asked = trio.Event()

    async def ask(path: str) -> str:
        asked.set()
        await trio.sleep_forever()
        raise AssertionError

    keys = [str(encrypted(host, tmp_path))]
    launcher = dataclasses.replace(host, client_keys=keys, passphrase=ask)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_prepared, launcher)
            await asked.wait()
            nursery.cancel_scope.cancel()


# Reaching it


async def test_a_name_that_is_not_known_is_told() -> None:
    assert "the name 'host.invalid' is not known" in await refused(
        Ssh("host.invalid", config=os.devnull)
    )


async def test_a_port_where_nobody_listens_is_told() -> None:
    reason = await refused(Ssh("127.0.0.1:1", config=os.devnull))
    assert reason.startswith("no connection to 127.0.0.1 port 1: Connection refused; is that where")


@pytest.mark.parametrize("words", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n" * 2000])
async def test_something_that_is_no_ssh_server_is_told(words: bytes) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)
        try:
            await stream.send_all(words)
        except trio.BrokenResourceError:
            pass
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        launcher = Ssh(f"127.0.0.1:{port}", config=os.devnull)
        assert f"connection to 127.0.0.1 port {port}: " in await refused(launcher)
        nursery.cancel_scope.cancel()


async def test_a_server_that_says_nothing_can_be_cancelled() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, trio.move_on_after(0.3) as scope:
        await say(Ssh(f"127.0.0.1:{server.getsockname()[1]}", config=os.devnull))
    assert scope.cancelled_caught


# Losing it


def server_pid(mark: str) -> int:
    for pid in marked_processes(mark):
        with open(f"/proc/{pid}/cmdline") as file:
            if "_ssh_server" in file.read():
                return pid
    raise AssertionError


async def test_a_connection_that_is_cut_breaks_the_streams(host: Ssh, mark: str) -> None:
    async with host.open() as shell:
        os.kill(server_pid(mark), signal.SIGKILL)
        with pytest.raises(trio.BrokenResourceError):
            await shell.stdout.receive_some()
        assert "the ssh connection was lost" in shell.why_ended()
        with pytest.raises(trio.BrokenResourceError):
            await shell.stdin.send_all(b"x")
        await shell.stdin.aclose()


async def test_a_silent_server_is_noticed_with_keepalive(host: Ssh, mark: str) -> None:
    pid = server_pid(mark)
    async with dataclasses.replace(host, keepalive=0.1).open() as shell:
        os.kill(pid, signal.SIGSTOP)
        with trio.fail_after(10), pytest.raises(trio.BrokenResourceError):
            await shell.stdout.receive_some()
        assert "not responding to keepalive" in shell.why_ended()
    os.kill(pid, signal.SIGCONT)


@pytest.mark.slow
async def test_a_silent_server_does_not_hold_up_the_end(host: Ssh, mark: str) -> None:
    pid = server_pid(mark)
    with trio.fail_after(5):
        async with host.open():
            os.kill(pid, signal.SIGSTOP)
    os.kill(pid, signal.SIGCONT)


# The streams


async def test_closed_streams_say_so(host: Ssh) -> None:
    async with host.open() as shell:
        await shell.stdin.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await shell.stdin.send_all(b"x")
        await shell.stdout.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await shell.stdout.receive_some()


@pytest.mark.slow
async def test_two_receivers_or_senders_at_once_are_refused(host: Ssh) -> None:
    async with host.open() as shell, trio.open_nursery() as nursery:
        nursery.start_soon(shell.stdout.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await shell.stdout.receive_some()
        await shell.stdin.send_all(b"echo x; exec sleep 1000\n")
        with trio.move_on_after(0.2):
            while True:
                await shell.stdin.send_all(bytes(1 << 20))
        nursery.start_soon(shell.stdin.send_all, b"x")
        await trio.testing.wait_all_tasks_blocked(0.01)
        with pytest.raises(trio.BusyResourceError):
            await shell.stdin.send_all(b"x")
        nursery.cancel_scope.cancel()


async def test_a_cancelled_send_has_sent_nothing(host: Ssh) -> None:
    async with host.open() as shell:
        await shell.stdin.send_all(b"exec sh -c 'echo begin; sleep 0.5; exec wc -c'\n")
        assert await shell.stdout.receive_some() == b"begin\n"
        sent = 0
        with trio.move_on_after(0.3):
            while True:
                await shell.stdin.send_all(bytes(1 << 16))
                sent += 1 << 16
        await shell.stdin.aclose()
        assert int(await shell.stdout.receive_some()) == sent > 0


async def test_receive_gives_no_more_than_asked_for(host: Ssh) -> None:
    async with host.open() as shell:
        await shell.stdin.send_all(b"echo 0123456789\n")
        assert await shell.stdout.receive_some(4) == b"0123"
        assert await shell.stdout.receive_some(3) == b"456"
        assert await shell.stdout.receive_some(100) == b"789\n"
        with pytest.raises(ValueError, match="max_bytes"):
            await shell.stdout.receive_some(0)


class Connection:
    """What an ssh connection is asked for, with the packets that it has sent."""

    def __init__(self, cipher: str) -> None:
        self.cipher = cipher
        self.sent: list[int] = []

    def get_extra_info(self, name: str, default: str) -> str:
        assert name == "send_cipher"
        return self.cipher

    def send_packet(self, kind: int, *args: bytes) -> None:
        if kind != IGNORE:
            self.send_packet(IGNORE)
        self.sent.append(kind)


@pytest.mark.parametrize(
    ("cipher", "sent"),
    [
        ("aes128-gcm@openssh.com", [94]),
        ("aes256-ctr", [94]),
        ("aes128-cbc", [IGNORE, 94]),
        ("rijndael-cbc@lysator.liu.se", [IGNORE, 94]),
    ],
)
def test_packets_to_be_ignored_are_sent_only_where_they_protect(
    cipher: str, sent: list[int]
) -> None:
    connection: Any = Connection(cipher)
    _say_nothing_for_nothing(connection)
    connection.send_packet(94)
    assert connection.sent == sent


async def test_many_small_pieces_are_received_together(host: Ssh) -> None:
    async with host.open() as shell:
        await shell.stdin.send_all(
            b"i=0; while [ $i -lt 500 ]; do echo $i; i=$((i+1)); done; echo >&2\n"
        )
        assert shell.stderr is not None
        assert await shell.stderr.receive_some() == b"\n"
        data = b""
        receives = 0
        while not data.endswith(b"\n499\n"):
            data += await shell.stdout.receive_some()
            receives += 1
        assert receives < 50
        assert data.split() == [str(number).encode() for number in range(500)]


async def test_a_server_is_not_left_with_sessions(host: Ssh, mark: str) -> None:
    async with host.open() as shell:
        await shell.stdin.send_all(b"echo $$\n")
        pid = int(await shell.stdout.receive_some())
    await eventually(lambda: pid not in marked_processes(mark))
