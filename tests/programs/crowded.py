"""So many descriptors are on their way that the fork server can pass none on.

The fork server loads this too, which lowers its limit, and with it how many may be on their way.
"""

from __future__ import annotations

import array
import ctypes
import os
import resource
import socket
import sys

import trio

import parallel

PR_CAPBSET_DROP, CAP_SYS_ADMIN, CAP_SYS_RESOURCE = 24, 21, 24
FEW = 100


def crowd() -> tuple[socket.socket, socket.socket]:
    """More than the fork server may have; this process may."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * FEW))
    for _ in range(2):
        pair[0].sendmsg([b"!"], [rights])
    return pair


async def try_three_times() -> None:
    for _ in range(3):
        try:
            await parallel.run(os.getpid)
        except parallel.ParallelError as exc:
            print(exc)


async def crowd_the_caller() -> None:
    """The same in the caller, which cannot even ask."""
    async with parallel.init(grace=1.0):
        near, far = crowd()
        resource.setrlimit(resource.RLIMIT_NOFILE, (FEW, FEW))
        if os.geteuid() == 0:
            os.seteuid(65534)  # root is not limited
        with near, far:
            await try_three_times()
        assert await parallel.run(os.getpid)


async def main() -> None:
    for capability in (CAP_SYS_ADMIN, CAP_SYS_RESOURCE):  # who has those is not limited
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    if sys.argv[1:] == ["caller"]:
        await crowd_the_caller()
        return
    async with parallel.init(grace=1.0, preload=["crowded"]):
        near, far = crowd()
        with near, far:
            await try_three_times()
        assert await parallel.run(os.getpid)


if __name__ == "__main__":
    trio.run(main)
else:
    resource.setrlimit(resource.RLIMIT_NOFILE, (FEW, FEW))
