"""Bare asyncssh: the least that an ssh connection can cost in Python."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import asyncssh  # noqa: TID253  # only this contender's seat imports it

from bench import hosts, payload
from bench.turns import Turns
from parallel.launch.ssh import Ssh, parse_destination

MESSAGE = b"ping"

Action = Callable[[asyncssh.SSHClientConnection, int], Awaitable[list[float]]]


def process(turns: Turns) -> None:
    """Execute `true`."""
    connected(turns, execute)


def roundtrip(turns: Turns) -> None:
    """Send a few bytes to `cat` and read them back."""
    connected(turns, ping)


def oneway(turns: Turns) -> None:
    """Send a few bytes to `wc`, over and over; until it has counted them."""
    connected(turns, pour)


def array(turns: Turns) -> None:
    """Send an array's bytes to `wc`; until it has counted them."""
    connected(turns, send_arrays)


def connected(turns: Turns, action: Action) -> None:
    """Take turns on one connection."""
    hosts.reach(turns, lambda launchers, turns: asyncio.run(take(launchers[0], turns, action)))


async def take(host: Ssh, turns: Turns, action: Action) -> None:
    """Connect, and report what the action returns in each turn."""
    name, user, port = parse_destination(host.destination)
    async with asyncssh.connect(
        name,
        port or 22,
        username=user,
        known_hosts=host.known_hosts,
        client_keys=host.client_keys,
        config=None,
    ) as connection:
        for operations in turns:
            turns.report(await action(connection, operations))


async def execute(connection: asyncssh.SSHClientConnection, count: int) -> list[float]:
    """Time commands."""
    costs = []
    for _ in range(count):
        start = time.perf_counter()
        await connection.run("true", check=True)
        costs.append(time.perf_counter() - start)
    return costs


async def ping(connection: asyncssh.SSHClientConnection, count: int) -> list[float]:
    """Time round trips."""
    async with connection.create_process("exec cat", encoding=None) as cat:
        cat.stdin.write(MESSAGE)
        await cat.stdout.readexactly(len(MESSAGE))  # it runs
        start = time.perf_counter()
        for _ in range(count):
            cat.stdin.write(MESSAGE)
            await cat.stdout.readexactly(len(MESSAGE))
        cost = time.perf_counter() - start
        cat.stdin.write_eof()
    return [cost / count]


async def pour(connection: asyncssh.SSHClientConnection, count: int) -> list[float]:
    """Time messages, each a write."""
    return [await send(connection, [MESSAGE] * count) / count]


async def send_arrays(connection: asyncssh.SSHClientConnection, count: int) -> list[float]:
    """Time arrays."""
    sent = payload.array().tobytes()
    return [await send(connection, [sent]) for _ in range(count)]


async def send(connection: asyncssh.SSHClientConnection, pieces: list[bytes]) -> float:
    """Return the seconds until `wc` has counted all that is sent."""
    async with connection.create_process("echo; exec wc -c", encoding=None) as wc:
        await wc.stdout.readline()  # it runs
        start = time.perf_counter()
        for piece in pieces:
            wc.stdin.write(piece)
            await wc.stdin.drain()
        wc.stdin.write_eof()
        assert int(await wc.stdout.read()) == sum(map(len, pieces))
        return time.perf_counter() - start
