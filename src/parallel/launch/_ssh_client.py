"""What happens while an ssh connection is made, and in words why it failed.

Only `_ssh_connection` uses it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import asyncssh  # noqa: TID253  # loaded with the first host that is reached by ssh
import trio
import trio_asyncio  # noqa: TID253

from .._channel import Channel
from ..errors import HostUnreachable
from ._ssh_route import Route
from .ssh import Answer, Ask, call

Asking: TypeAlias = Callable[[str], Awaitable[Answer]]


def ask_with(passphrase: str | Ask | Channel[str, Any] | None) -> Asking:
    """How passphrases are come by: one is known, or somebody else is asked, or there is none."""

    async def ask(path: str) -> Answer:
        if passphrase is None or isinstance(passphrase, str):
            return Answer(passphrase)
        if not isinstance(passphrase, Channel):
            return await call(passphrase, path)
        await passphrase.send(path)
        answer: Answer = await passphrase.receive()
        return answer

    return ask


class Client(asyncssh.SSHClient):
    """Answers what asyncssh asks on the way to a host, and remembers it for the error."""

    def __init__(self, host: str, route: Route, ask: Asking) -> None:
        self.host = host
        self.route = route
        self.ask = ask
        self.encrypted_keys = list(route.encrypted_keys)
        self.tried = list(route.keys)
        self.remarks: list[str] = []
        self.offered = ""
        self.banner = ""

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        """A host's key that no file holds: it is refused, and named."""
        self.offered = f"{key.get_algorithm()} {key.get_fingerprint()}"
        return False

    def auth_banner_received(self, msg: str, lang: str) -> None:
        """What the server says before it lets anybody in."""
        self.banner += msg

    def public_key_auth_requested(self) -> Any:
        """The server wants another key: those with a passphrase come last."""
        return trio_asyncio.trio_as_aio(self._next_key)()

    async def _next_key(self) -> Any:
        while self.encrypted_keys:
            path = self.encrypted_keys.pop(0)
            answer = await self.ask(path)
            if answer.error is not None:
                self.remarks.append(f"the passphrase callback raised {answer.error} for {path}")
            elif answer.passphrase is None:
                mend = "name it with Ssh(..., passphrase=...) or add the key to an ssh agent"
                self.remarks.append(f"{path} has a passphrase: {mend}")
            else:
                try:
                    keys = await trio.to_thread.run_sync(
                        asyncssh.load_keypairs, path, answer.passphrase
                    )
                except (OSError, asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as exc:
                    self.remarks.append(f"{path} could not be decrypted: {exc}")
                else:
                    self.tried.append(path)
                    return keys
        return None

    @contextmanager
    def explained(self) -> Generator[None, None, None]:
        """What goes wrong inside is raised as `HostUnreachable`."""
        try:
            yield
        except (OSError, ValueError, asyncssh.Error, asyncssh.KeyImportError) as exc:
            raise HostUnreachable(self.host, self.explain(exc), _step(exc)) from exc

    def explain(self, exc: Exception) -> str:
        """What went wrong, and what would mend it."""
        route = self.route
        where = f"{route.host} port {route.port}"
        match exc:
            case socket.gaierror():
                mend = "write it out, or give its HostName in the ssh configuration"
                return f"the name {route.host!r} is not known: {exc.strerror}; {mend}"
            case asyncssh.HostKeyNotVerifiable():
                return f"{where} cannot be trusted: {self._explain_key(str(exc))}"
            case asyncssh.KeyExchangeFailed() if _concerns_key(exc):
                return f"{where} cannot be trusted: {self._explain_key(str(exc))}"
            case asyncssh.PermissionDenied():
                return f"{where} refused user {route.username!r}: {self._explain_refusal()}"
            case asyncssh.ChannelOpenError():
                return f"{where} opened no session: {exc.reason}"
            case asyncssh.Error():
                return f"no ssh connection to {where}: {exc}{self._quote_banner()}"
            case OSError():
                mend = "is that where its sshd listens, and does every firewall let one through?"
                return f"no connection to {where}: {_innermost(exc)}; {mend}"
            case _:
                return f"no ssh connection to {where}: {exc}"

    def _explain_key(self, text: str) -> str:
        route = self.route
        files = " or ".join(route.known_hosts)
        port = "" if route.port == 22 else f"-p {route.port} "
        name = route.host if route.port == 22 else f"'[{route.host}]:{route.port}'"
        offered = f" (it presents {self.offered})" if self.offered else ""
        scan = f"`ssh-keyscan {port}{route.host}`"
        if self._is_known():
            return (
                f"its host key is not the one in {files}{offered}. Either somebody is in between, "
                f"or the key has changed: then take the old one out with "
                f"`ssh-keygen -R {name} -f FILE` and add the new one, which {scan} shows"
            )
        if "not trusted" not in text:
            return f"{text}{offered}; see {files}"
        return (
            f"its host key is not in {files}{offered}. If that is the right key, "
            f"add it: {scan} shows the line"
        )

    def _is_known(self) -> bool:
        """Whether the files hold any key for the host."""
        route = self.route
        port = route.port if route.port != 22 else None
        known = asyncssh.match_known_hosts(route.options["known_hosts"], route.host, "", port)
        return any(known[:2])

    def _explain_refusal(self) -> str:
        tried = [
            *self.tried,
            *([f"those of the agent {self.route.agent}"] * bool(self.route.agent)),
        ]
        remarks = "".join(f"; {remark}" for remark in self.remarks)
        mend = "; its ~/.ssh/authorized_keys has to hold one of them" if tried else ""
        keys = ", ".join(tried) or "none, for there is none"
        return f"keys tried: {keys}{mend}{remarks}{self._quote_banner()}"

    def _quote_banner(self) -> str:
        return f"; it says: {self.banner.strip()}" if self.banner.strip() else ""


def _step(exc: Exception) -> Literal["connection", "key", "start"]:
    """How far it came; see `HostUnreachable`."""
    match exc:
        case asyncssh.ChannelOpenError():
            return "start"
        case asyncssh.HostKeyNotVerifiable() | asyncssh.PermissionDenied():
            return "key"
        case _:
            return "key" if _concerns_key(exc) else "connection"


def _concerns_key(exc: Exception) -> bool:
    """Whether the host has no key of a kind that is known of it."""
    return isinstance(exc, asyncssh.KeyExchangeFailed) and "host key" in str(exc)


def _innermost(exc: OSError) -> str:
    """The system's own words: trio groups the attempts for all addresses of a name."""
    inner = exc.__cause__ if exc.errno is None else exc
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    if isinstance(inner, OSError):
        return str(inner) if inner.errno is None else os.strerror(inner.errno)
    return str(exc)
