"""What only the kernel can do: who dies with whom, who inherits orphans, who is whose child.

On Linux through `prctl` and `/proc`. Elsewhere the functions do nothing or know nothing, and say
so: there an own-session program of a killed worker outlives it, and a killed fork server's workers
end when they next look at their connection.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable

_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 1, 15, 36
MAX_OPEN_FILES = 65536

_prctl: Callable[..., int] | None = None
if sys.platform == "linux":
    _prctl = ctypes.CDLL(None, use_errno=True).prctl


def adopt_orphans() -> None:
    """Become the parent of every orphan below this process (a child subreaper)."""
    if _prctl is not None:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """Be killed when `parent`, this process's parent, dies; at once if it is dead already."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def set_process_name(name: str) -> None:
    """Be called so in `ps` and `top` (the kernel keeps 15 bytes; setproctitle, if there, all)."""
    name = name.encode(errors="replace").decode().replace("\0", "?")  # users call things anything
    if _setproctitle is not None:
        _setproctitle(name if name.startswith("parallel") else f"parallel: {name}")
    elif _prctl is not None:
        _prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


_setproctitle: Callable[[str], None] | None
try:
    from setproctitle import setproctitle as _setproctitle
except ImportError:
    _setproctitle = None


def children() -> list[int] | None:
    """The pids of this process's children, dead ones that nobody has waited for included.

    None where the kernel does not tell. Only the calling thread's, which must be the only one.
    """
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:
            return [int(pid) for pid in file.read().split()]
    except FileNotFoundError:
        return None


def kill(pid: int, number: signal.Signals) -> None:
    """Send a signal to what may be gone already."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def reap() -> tuple[int, int] | None:
    """Wait for a child that is dead already: its pid and returncode; None if there is none."""
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, os.waitstatus_to_exitcode(status)) if pid else None


def end_all_children() -> None:
    """Kill every child; those that they leave behind become ours, so again until none is left."""
    while True:
        for pid in children() or ():
            kill(pid, signal.SIGKILL)
        try:
            while reap() is not None:
                pass
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:
            return
        time.sleep(0.001)


def out_of_memory_kills() -> int:
    """How often the kernel has killed a process for want of memory since it started."""
    try:
        with open("/proc/vmstat", "rb") as file:
            for line in file:
                if line.startswith(b"oom_kill "):
                    return int(line.split()[1])
    except FileNotFoundError:
        pass
    return 0


def raise_open_files() -> None:
    """Raise the soft limit of open files towards the hard one, at most to 65,536."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Exit:
    """Becomes readable when a process ends: a pidfd on Linux, a kqueue elsewhere.

    An end of file would prove nothing: some fork of that process may hold a copy of its socket.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._queue: object = None
        if sys.platform == "linux":
            self._descriptor = os.pidfd_open(pid)
        else:
            queue = select.kqueue()
            event = select.kevent(
                pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, fflags=select.KQ_NOTE_EXIT
            )
            queue.control([event], 0)
            self._queue, self._descriptor = queue, queue.fileno()

    def fileno(self) -> int:
        """For a selector."""
        return self._descriptor
