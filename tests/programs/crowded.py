"""So many descriptors are on their way that the fork server can pass none on.

The fork server loads this too, which lowers its limit, and with it how many may be on their way.
"""

from __future__ import annotations

import array
import ctypes
import os
import resource
import socket

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


async def main() -> None:
    for capability in (CAP_SYS_ADMIN, CAP_SYS_RESOURCE):  # who has those is not limited
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    async with parallel.init(grace=1.0, preload=["crowded"]):
        near, far = crowd()
        with near, far:
            for _ in range(3):
                try:
                    await parallel.run(os.getpid)
                except parallel.ParallelError as exc:
                    print(exc)
        assert await parallel.run(os.getpid)


if __name__ == "__main__":
    trio.run(main)
else:
    resource.setrlimit(resource.RLIMIT_NOFILE, (FEW, FEW))
