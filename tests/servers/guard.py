"""A guard: runs a server, and ends all that came from it when its own standard input ends.

    python guard.py DIRECTORY COMMAND...

The input is a pipe whose other end only the tests hold, so it ends with them however they end. What
a server's children leave behind becomes a child of the guard, so that nothing escapes. Last it
removes the server's directory.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time

PR_SET_CHILD_SUBREAPER = 36


def descendants(pid: int) -> dict[int, str]:
    """Every living process below `pid`: pid and command."""
    children: dict[int, list[int]] = {}
    names = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", errors="replace") as file:
                    head, _, tail = file.read().rpartition(") ")
            except OSError:
                continue  # gone in the meantime
            state, parent = tail.split()[:2]
            children.setdefault(int(parent), []).append(int(entry))
            if state not in "ZX":
                names[int(entry)] = head.partition("(")[2]
    found, below = {}, children.get(pid, [])
    while below:
        child = below.pop()
        below += children.get(child, [])
        if child in names:
            found[child] = names[child]
    return found


def main(directory: str, *command: str) -> None:
    """Run the command, and outlive it: what it started may live longer."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a Ctrl-C that is meant for the tests
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=default_signals)
    while 0 not in select.select([0, wake], [], [])[0]:
        os.read(wake, 4096)
        reap()
    while left := descendants(os.getpid()):  # again: they may have forked while we looked
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.001)
        reap()
    subprocess.run(["rm", "-rf", "--", directory], check=True)


def default_signals() -> None:
    """A server must not inherit what the guard ignores."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def reap() -> None:
    """Collect who has ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


if __name__ == "__main__":
    main(*sys.argv[1:])
