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


def outlive_parent() -> None:
    """Take `die_with_parent` back."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0)


def set_process_name(name: str) -> None:
    """Be called so in `ps` and `top` (the kernel keeps 15 bytes; setproctitle, if there, all)."""
    name = name.encode(errors="replace").decode().replace("\0", "?")  # users call things anything
    if _setproctitle is not None:
        name = name if name.startswith("parallel") else f"parallel: {name}"
        _setproctitle(name)
    if _prctl is not None:
        cut = name.encode()[:15].decode(errors="ignore")  # between two characters
        _prctl(_PR_SET_NAME, cut.encode(), 0, 0, 0)


_setproctitle: Callable[[str], None] | None
try:
    from setproctitle import setproctitle as _setproctitle
except ImportError:
    _setproctitle = None


class ProcFile:
    """A file of /proc that is held open, to be read when no descriptor is to be had any more."""

    def __init__(self, path: str) -> None:
        try:
            self.descriptor: int | None = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            self.descriptor = None  # this kernel has no such file

    def read(self) -> bytes | None:
        """What it says now; None where there is none."""
        if self.descriptor is None:
            return None
        data = b""
        while part := os.pread(self.descriptor, 1 << 16, len(data)):
            data += part
        return data


class Children(ProcFile):
    """The pids of this process's children, dead ones that nobody has waited for included.

    Only the calling thread's, which must be the only one.
    """

    def __init__(self) -> None:
        super().__init__(f"/proc/self/task/{os.getpid()}/children")

    def pids(self) -> list[int]:
        """None at all where the kernel does not tell."""
        return [int(pid) for pid in (self.read() or b"").split()]


def kill(pid: int, number: signal.Signals) -> bool:
    """Send a signal to what may be gone already; False: it is another user's, and not ours to end.

    What a worker started with `sudo` may be.
    """
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
    except PermissionError:
        return False
    return True


def reap() -> tuple[int, int] | None:
    """Wait for a child that is dead already: its pid and returncode; None if there is none."""
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, os.waitstatus_to_exitcode(status)) if pid else None


def end_all_children(children: Children) -> None:
    """Kill every child; those that they leave behind become ours, so again until none is left."""
    while True:
        pids = children.pids()
        if pids and not sum(kill(pid, signal.SIGKILL) for pid in pids):
            return  # nobody can
        try:
            while reap() is not None:
                pass
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:
            return
        time.sleep(0.001)


class MemoryKills(ProcFile):
    """How often the kernel has killed a process for want of memory since it started."""

    def __init__(self) -> None:
        super().__init__("/proc/vmstat")

    def count(self) -> int:
        """So far; 0 where the kernel does not tell."""
        for line in (self.read() or b"").splitlines():
            if line.startswith(b"oom_kill "):
                return int(line.split()[1])
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
