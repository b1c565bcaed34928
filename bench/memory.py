"""Memory: what a process has for itself alone."""

from pathlib import Path

SETTLING = 0.3  # seconds until a process that has nothing to do is surely idle


def private(pid: int) -> int:
    """Return the bytes of a process's private pages: those it shares with no other process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))
