"""The keeper: parent of the fork server, and the last to go.

No event loop, no threads, next to no imports: it waits for the end of the fork server or of the
root. Being the outermost subreaper it inherits every process that loses its parent below it, and
when the fork server is gone it kills what is left.

1. It forks the fork server, which does the work.
2. The fork server ends: when the root has left `init` or died, it has ended every worker before.
   When it was killed, its workers die with it, their programs come here, and are killed.
3. The root ends: the fork server sees that too. If it is stuck, it is killed, and then 2.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from typing import Any, NoReturn

from . import kernel

PATIENCE = 0.5
"""Seconds beyond `grace` that a fork server has after the root's end."""

LONGEST_POLL = (1 << 31) - 1
"""Milliseconds: the kernel takes no more, and `grace` may be infinite."""


def keep(descriptor: int, settings: dict[str, Any]) -> NoReturn:
    """Be the keeper; `descriptor` is the fork server's connection to the root."""
    kernel.adopt_orphans()
    keeper = os.getpid()
    root_exit = _watch(settings["root_pid"])
    fork_server = os.fork()
    if fork_server == 0:
        from .forkserver import serve  # noqa: PLC0415  # only here: the keeper stays small

        serve(descriptor, settings, keeper)
    os.close(descriptor)
    _redirect_standard_streams()
    kernel.set_process_name("parallel-keeper")
    returncode = _wait(fork_server, root_exit, settings["grace"])
    kernel.end_all_children(kernel.Children())
    # For the root: how the fork server ended. (128 + n would say that we were killed ourselves.)
    os._exit(64 - returncode if returncode < 0 else min(returncode, 1))


def _watch(root_pid: int) -> kernel.Exit:
    try:
        return kernel.Exit(root_pid)
    except OSError:
        sys.exit(0)  # the root is gone already


def _redirect_standard_streams() -> None:
    """Hold nothing of the user's open: whoever reads the root's output waits for its end."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.close(null)


def _wait(fork_server: int, root_exit: kernel.Exit, grace: float) -> int:
    """Wait until the fork server is gone, one way or the other; its returncode."""
    poll = select.poll()
    fork_server_exit = kernel.Exit(fork_server)
    poll.register(fork_server_exit, select.POLLIN)
    poll.register(root_exit, select.POLLIN)
    ready = {descriptor for descriptor, _ in poll.poll()}
    if fork_server_exit.fileno() not in ready:
        poll.unregister(root_exit)
        if not poll.poll(min((grace + PATIENCE) * 1000, LONGEST_POLL)):
            kernel.kill(fork_server, signal.SIGKILL)
    _, status = os.waitpid(fork_server, 0)
    return os.waitstatus_to_exitcode(status)
