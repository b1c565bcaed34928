"""The files of a host with an sshd: its users, keys, configurations and how it starts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .. import support
from . import program

# A mount namespace gives the host users of its own without a change to this machine's.
_HOST = """\
mount -n -t tmpfs -o mode=755 tmpfs /run
mkdir /run/sshd
mount --bind {0}/passwd /etc/passwd
mount --bind {0}/shadow /etc/shadow
export HOME={0}/home
cd {0}"""

_SHARED = 'exec "$1" -D -e -f "$PWD/sshd_config"'

# The shell is the first process there: it keeps the host up without the daemon, and reaps.
_ISOLATED = """\
hostname "$2"
ip link set lo up
sleep infinity &
"$1" -D -e -f "$PWD/sshd_config" &
wait"""

_SSHD_CONFIG = """\
ListenAddress {1}:{2}
HostKey {0}/host_key
AuthorizedKeysFile {0}/key.pub
PidFile {0}/sshd.pid
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
UseDNS no
PrintMotd no
PrintLastLog no
MaxStartups 100
MaxSessions 100
LogLevel VERBOSE
Subsystem sftp internal-sftp
{3}
"""

_SSH_CONFIG = """\
Host {1}
    HostName {2}
    Port {3}
    User {4}
    IdentityFile {0}/key
    IdentitiesOnly yes
    UserKnownHostsFile {0}/known_hosts
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    BatchMode yes
"""


def write_user(directory: Path, user: str, uid: int, shell: str) -> None:
    """The users of the host, of which sshd has to be one, and the home directory."""
    home = directory / "home"
    home.mkdir(mode=0o700)
    os.chown(home, uid, uid)
    (directory / "passwd").write_text(
        f"{user}:x:{uid}:{uid}::{home}:{shell}\nsshd:x:65533:65534::/run/sshd:/bin/false\n"
    )
    (directory / "shadow").write_text(f"{user}:*:1::::::\n")


def write_keys(directory: Path) -> None:
    """The user's key and the host's."""
    keygen = [program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]
    for name in ("key", "host_key"):
        subprocess.run([*keygen, str(directory / name)], check=True)


def write_server(
    directory: Path, address: str, port: int, uid: int, options: Sequence[str]
) -> None:
    """For sshd. It gives every session the mark of this test.

    And our cache, where the user is ours: what is sent to a host is unpacked and compiled once.
    """
    names = [name for name in (support.MARK, "SPT_NOENV") if name in os.environ]
    settings = [f"{name}={os.environ[name]}" for name in names]
    if uid == os.geteuid():
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        settings.append(f"XDG_CACHE_HOME={cache}")
    line = f"SetEnv {' '.join(settings)}" if settings else ""
    config = _SSHD_CONFIG.format(directory, address, port, line)
    (directory / "sshd_config").write_text("\n".join([*options, config]))


def write_client(directory: Path, name: str, address: str, port: int, user: str) -> None:
    """For OpenSSH's client."""
    config = _SSH_CONFIG.format(directory, name, address, port, user)
    (directory / "ssh_config").write_text(config)


def write_script(directory: Path, setup: str, isolated: bool) -> None:
    """The host's start, for `sh -e SCRIPT SSHD NAME` in a mount namespace."""
    lines = [_HOST.format(directory), setup, _ISOLATED if isolated else _SHARED]
    (directory / "script").write_text("\n".join(lines))
