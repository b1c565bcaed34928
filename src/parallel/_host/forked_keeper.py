"""A keeper that is forked, where the root executes one: the agent has loaded all that it needs.

That saves a host a third of its start. It happens before the agent runs trio, which no fork
survives.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterable
from typing import NoReturn

import trio

from .._endpoint import Endpoint, close_all, socket_pair
from . import forkserver, kernel, worker
from .__main__ import main

LOADED = forkserver, worker
"""What the keeper's children run, to be shared by all of them."""


class ForkedKeeper:
    """The process, as `trio.Process` would show it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._exit = kernel.Exit(pid)
        self._waiting = trio.Lock()

    async def wait(self) -> int:
        """Its returncode, when it has ended."""
        async with self._waiting:
            if self.returncode is None:
                await trio.lowlevel.wait_readable(self._exit.fileno())
                _, status = os.waitpid(self.pid, 0)  # noqa: ASYNC222  # it has ended
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def kill(self) -> None:
        """End it, and with it all that it has."""
        if self.returncode is None:
            kernel.kill(self.pid, signal.SIGKILL)


def fork_keeper(not_its_own: Iterable[int]) -> tuple[Endpoint, ForkedKeeper]:
    """Fork one that leaves these descriptors alone; the connection to its fork server, and it."""
    ours, theirs = socket_pair()
    endpoint = Endpoint(ours)  # as such it is closed in every fork
    pid = os.fork()
    if pid == 0:
        close_all(not_its_own)
        _be_keeper(theirs.detach())
    theirs.close()
    return endpoint, ForkedKeeper(pid)


def _be_keeper(descriptor: int) -> NoReturn:
    try:
        os.setsid()
        main(descriptor)
    except Exception:  # nobody is above us
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(1)
