"""A program that holds an allocation of Slurm's while its stdin is open; `slurm` starts it.

`salloc` alone would stay in the queue when the program that waits for it is killed.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

PATIENCE = ((1.0, signal.SIGTERM), (5.0, signal.SIGKILL))
"""Seconds until a signal.

What salloc runs ends with our stdin, and salloc with it. A SIGTERM at the same time may make it
spin for ever, so that is for one that still waits in the queue.
"""


def main(name: str, *salloc: str) -> int:
    """Run `salloc`, which gives its job that name; its exit code."""
    try:
        process = subprocess.Popen(salloc)
    except OSError as exc:
        print(f"{salloc[0]} could not be executed: {exc.strerror}", file=sys.stderr)  # noqa: T201
        return 127
    select.select([0, os.pidfd_open(process.pid)], [], [])
    if process.poll() is not None:
        return process.returncode
    for seconds, number in PATIENCE:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
    subprocess.run(["scancel", "--quiet", f"--name={name}"], check=False)
    return process.wait()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
