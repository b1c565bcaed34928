"""Hosts over real ssh whose users have another login shell, which prints something first."""

from __future__ import annotations

import pytest

import parallel

from .hosts import ssh
from .servers.openssh import open_sshd

READ_FIRST = {
    "bash": ".bashrc",
    "dash": "",  # it reads nothing where it is not interactive
    "zsh": ".zshenv",
    "fish": ".config/fish/config.fish",
    "csh": ".cshrc",
    "tcsh": ".tcshrc",
}
"""What a shell reads when sshd gives it a command."""


@pytest.mark.needs("sshd", "ssh", "ssh-keygen", "unshare", *READ_FIRST)
@pytest.mark.parametrize("shell", READ_FIRST)
@pytest.mark.slow
async def test_a_host_starts_whatever_its_login_shell_is_and_prints(shell: str) -> None:
    with open_sshd(shell=shell) as sshd:
        if READ_FIRST[shell]:
            file = sshd.home / READ_FIRST[shell]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("echo noise; echo '{\"python\": 1}'; touch ~/noisy\n")
        async with parallel.init(cluster=parallel.Cluster([ssh(sshd)]), grace=1.0):
            assert await parallel.run(parallel.current_host, where="host0") == "host0"
        assert (sshd.home / "noisy").exists() == bool(READ_FIRST[shell])
