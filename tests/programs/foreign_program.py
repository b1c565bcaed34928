"""A worker starts a program as another user, whom nobody in the tree may kill."""

from __future__ import annotations

import ctypes
import os
import subprocess

import trio

import parallel

PR_CAPBSET_DROP, CAP_KILL = 24, 5
NOBODY = 65534


def start_program() -> int:
    null = subprocess.DEVNULL
    return subprocess.Popen(["sleep", "1000"], user=NOBODY, stdout=null, stderr=null).pid


async def main() -> None:
    # The superuser of this program's processes is one who cannot kill others' processes.
    assert ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_KILL, 0, 0, 0) == 0
    async with parallel.init(grace=1.0):
        print(await parallel.run(start_program))
        assert await parallel.run(os.getpid)


if __name__ == "__main__":
    trio.run(main)
