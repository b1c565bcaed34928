"""What the user's ssh configuration says about a destination. Only `_ssh_connection` uses it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import asyncssh  # noqa: TID253  # loaded with the first host that is reached by ssh

from ..errors import HostUnreachable
from .ssh import Destination, Ssh

KNOWN_HOSTS = ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")
CIPHERS = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"
"""First, unless configured: for a small packet asyncssh's chacha20 takes 14 us, these take 3."""

KEYS = ("id_ed25519_sk", "id_ecdsa_sk", "id_ed448", "id_ed25519", "id_ecdsa", "id_rsa")


class Route(NamedTuple):
    """How to get to one host."""

    host: str
    port: int
    username: str
    family: int
    """`socket.AF_UNSPEC`, or the only one that is to be used."""
    local_address: str | None
    """Where connections are to come from."""
    jump: Sequence[str]
    proxy_command: Sequence[str]
    known_hosts: Sequence[str]
    """Every file that is looked at, whether it is there or not."""
    keys: Sequence[str]
    encrypted_keys: Sequence[str]
    agent: str
    options: dict[str, Any]
    """For `asyncssh.connect`."""


def find_route(ssh: Ssh, destination: Destination) -> Route:
    """Read the configuration and look for keys; takes as long as the disk does."""
    basic: dict[str, Any] = {"config": () if ssh.config is None else [_expand(ssh.config)]}
    if destination.user is not None:
        basic["username"] = destination.user
    if destination.port is not None:
        basic["port"] = destination.port
    try:
        found = asyncssh.SSHClientConnectionOptions(
            host=destination.host, client_keys=None, known_hosts=None, **basic
        )
    except (OSError, ValueError, asyncssh.Error) as exc:
        raise HostUnreachable(ssh.name, f"its ssh configuration is unusable: {exc}") from exc
    get: Callable[..., Any] = found.config.get
    known_hosts = _known_hosts(ssh, get)
    keys = _keys(ssh, get)
    encrypted = [key for key in keys if _is_encrypted(ssh.name, key)]
    readable = [path for path in known_hosts if os.access(path, os.R_OK)]
    options = {
        **basic,
        "known_hosts": readable or b"",  # b"": none is known, so none is trusted
        "client_keys": keys,
        "ignore_encrypted": True,
    }
    if get("Ciphers", None) is None:
        options["encryption_algs"] = CIPHERS
    if ssh.keepalive is not None:
        options["keepalive_interval"] = ssh.keepalive
    return Route(
        host=found.host,
        port=found.port,
        username=found.username,
        family=get("AddressFamily", socket.AF_UNSPEC),
        local_address=get("BindAddress", None),
        jump=found.tunnel.split(",") if isinstance(found.tunnel, str) else (),
        proxy_command=() if ssh.jump else found.proxy_command or (),
        known_hosts=known_hosts,
        keys=[key for key in keys if key not in encrypted],
        encrypted_keys=encrypted,
        agent=str(get("IdentityAgent", None) or os.environ.get("SSH_AUTH_SOCK", "")),
        options=options,
    )


def _known_hosts(ssh: Ssh, get: Callable[..., Any]) -> list[str]:
    if ssh.known_hosts is not None:
        files = [ssh.known_hosts] if isinstance(ssh.known_hosts, str) else ssh.known_hosts
    else:
        user, everybody = KNOWN_HOSTS
        files = [
            *(get("UserKnownHostsFile", None) or [user]),
            *(get("GlobalKnownHostsFile", None) or [everybody]),
        ]
    return [_expand(path) for path in files]


def _keys(ssh: Ssh, get: Callable[..., Any]) -> list[str]:
    if ssh.client_keys:
        return [_expand(path) for path in ssh.client_keys]
    configured = get("IdentityFile", None) or [os.path.join("~/.ssh", name) for name in KEYS]
    return [path for path in map(_expand, configured) if os.access(path, os.R_OK)]


def _is_encrypted(host: str, path: str) -> bool:
    try:
        asyncssh.read_private_key(path)
    except OSError as exc:
        raise HostUnreachable(host, f"its key {path}: {exc.strerror}") from exc
    except asyncssh.KeyImportError as exc:
        if "assphrase" not in str(exc) and not path.endswith(".pub"):  # one of an agent's keys
            raise HostUnreachable(host, f"its key {path}: {exc}") from exc
        return not path.endswith(".pub")
    except asyncssh.KeyEncryptionError:
        return True
    return False


def _expand(path: str) -> str:
    return os.path.abspath(os.path.expanduser(os.fspath(path)))
