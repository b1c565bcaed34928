"""`Ssh`: hosts that are reached by ssh."""

from __future__ import annotations

import dataclasses
import gc
import inspect
import os
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple, TypeAlias, cast

import trio

from .._channel import Channel
from .._hub import Hub, open_hub
from ..abc import Launcher, Shell

Ask: TypeAlias = Callable[[str], "str | Awaitable[str | None] | None"]
"""Given a key file, its passphrase; None: do without that key."""

_DESTINATION = re.compile(
    r"(?:(?P<user>.+)@)?(?P<host>\[[^]]+\]|[^:@]+|[^@]*:[^@]*:[^@]*)(?::(?P<port>\d+))?"
)


class Destination(NamedTuple):
    """`user@host:port`, taken apart; `host` may be an alias."""

    host: str
    user: str | None
    port: int | None


def parse_destination(text: str) -> Destination:
    """Take `user@host:port` apart; an IPv6 address with a port stands in brackets."""
    match = _DESTINATION.fullmatch(text)
    if match is None or text.startswith("-"):
        raise ValueError(f"{text!r} is no destination: write user@host:port, host, or an alias")
    port = match["port"]
    return Destination(match["host"].strip("[]"), match["user"], int(port) if port else None)


@dataclass(frozen=True, slots=True, eq=False)
class Ssh(Launcher):
    """A host that is reached by ssh.

        Ssh("user@host:port")
        Ssh("gpu", name="gpu0", client_keys=["~/.ssh/id_cluster"], setup="module load cuda")

    Users, ports, keys, jump hosts and proxy commands are taken from `~/.ssh/config` where nothing
    is said here; keys also from an ssh agent. A host's key must be in a `known_hosts` file,
    whatever the configuration says. Nobody is asked for a password.

    Args:
        destination: `user@host:port`, `host`, or an alias of `~/.ssh/config`.
        name: The host's name in `where=`; default: the destination as it is written.
        known_hosts: Files with the keys of hosts; default: as configured, else
            `~/.ssh/known_hosts` and `/etc/ssh/ssh_known_hosts`.
        client_keys: Files with private keys; default: as configured, else those in `~/.ssh`.
        config: The configuration; default: `~/.ssh/config`.
        jump: Destinations to go through, one after the other; default: as configured.
        passphrase: Of key files that have one. Or what is called with a file's path, in the
            program's first process, when the key is needed: a function, sync or async, that
            returns the passphrase, or None to do without that key.
        keepalive: Seconds of silence until the server is asked for a sign of life; default: as
            configured. The link has signs of life of its own; see `parallel.init(heartbeat=...)`.

    Settings of all hosts: see `parallel.abc.Launcher`.
    """

    destination: str
    name: str = dataclasses.field(default="", kw_only=True)
    known_hosts: str | Sequence[str] | None = dataclasses.field(default=None, kw_only=True)
    client_keys: Sequence[str] = dataclasses.field(default=(), kw_only=True)
    config: str | None = dataclasses.field(default=None, kw_only=True)
    jump: Sequence[str] = dataclasses.field(default=(), kw_only=True)
    passphrase: str | Ask | Channel[str, Any] | None = dataclasses.field(
        default=None, kw_only=True, repr=False
    )
    keepalive: float | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for text in (self.destination, *self.jump):
            parse_destination(text)
        if isinstance(self.client_keys, str) or isinstance(self.jump, str):
            raise TypeError("client_keys and jump are lists, also of one")
        if not self.name:
            object.__setattr__(self, "name", self.destination)
        Launcher.__post_init__(self)

    def open(self) -> AbstractAsyncContextManager[Shell]:
        """Connect, and start a shell."""
        with _hurried_import():
            connection = import_module("._ssh_connection", __package__)
        return cast("AbstractAsyncContextManager[Shell]", connection.open_shell(self))

    def prepare(self) -> AbstractAsyncContextManager[Launcher]:
        """Be there to be asked for passphrases."""
        if self.passphrase is None or isinstance(self.passphrase, str | Channel):
            return Launcher.prepare(self)
        return self._answer(self.passphrase)

    @asynccontextmanager
    async def _answer(self, ask: Ask) -> AsyncGenerator[Launcher, None]:
        failure: BaseException | None = None
        # Nothing is raised inside of the nursery, so that nothing comes out of it in a group.
        async with open_hub() as hub, trio.open_nursery() as nursery:
            nursery.start_soon(_answer, hub, ask)
            try:
                with hub.open_channel() as channel:
                    yield dataclasses.replace(self, passphrase=channel)
            except BaseException as exc:  # noqa: ASYNC103  # raised below
                failure = exc
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure


@contextmanager
def _hurried_import() -> Generator[None, None, None]:
    """asyncssh takes 0.1 s to load; without this half as much more.

    For two libraries that it can do without it asks the linker's cache, and where they are not
    there also gcc and ld. And of what is imported nothing is garbage.
    """
    path, was_enabled = os.environ.get("PATH"), gc.isenabled()
    os.environ["PATH"] = os.devnull
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
        if path is None:
            del os.environ["PATH"]
        else:
            os.environ["PATH"] = path


class Answer(NamedTuple):
    """What a passphrase callback returned or raised."""

    passphrase: str | None
    error: str | None = None


async def _answer(hub: Hub[str, Answer], ask: Ask) -> None:
    async for client, path in hub:
        try:
            await hub.send(client, await call(ask, path))
        except trio.BrokenResourceError:
            pass  # whoever asked has gone


async def call(ask: Ask, path: str) -> Answer:
    """Ask for the passphrase of the key in `path`; what is raised there fails the host alone."""
    try:
        result = ask(path)
        if inspect.isawaitable(result):
            result = await result
        return Answer(result)
    except Exception as exc:
        return Answer(None, f"{type(exc).__name__}: {exc}")
