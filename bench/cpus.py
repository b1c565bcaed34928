"""CPUs: where the two ends of a conversation run.

Two processes that talk in turn cost two to three times as much on two CPUs as on one, for each
message wakes up a CPU that sleeps. The kernel puts them now so, now so, depending on what they did
before; and it puts the threads of one that has several on as many CPUs. So round trips are measured
three times: as the kernel would have it, with both ends on one CPU, and on two.
"""

import os
from pathlib import Path
from typing import Literal

Layout = Literal["free", "shared", "apart"]
Cpu = int | None
"""None is any."""


def ends(layout: Layout) -> tuple[Cpu, Cpu]:
    """Return the CPUs of the caller and of its peer.

    "free" leaves them to the kernel, "shared" is one for both, "apart" is two, where there are two.
    Where processes cannot be pinned all are free.
    """
    if layout == "free" or not hasattr(os, "sched_getaffinity"):
        return None, None
    available = sorted(os.sched_getaffinity(0))
    return available[0], available[0 if layout == "shared" else -1]


def pin(cpu: Cpu) -> None:
    """Keep every thread of this process on a CPU; call it when all that it needs is started."""
    if cpu is not None:
        for thread in Path("/proc/self/task").iterdir():
            os.sched_setaffinity(int(thread.name), {cpu})
