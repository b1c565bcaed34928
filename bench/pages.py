"""Pages: where the private memory of an idle worker lies. `python -m bench.pages`.

By mapping, in KiB, for a bare forked trio process, a spare, a worker whose function's module was
preloaded, and a worker that has imported it. docs/profiles.md reads the figures.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import trio
from rich.console import Console
from rich.table import Table

import parallel
from bench import noop
from bench.memory import SETTLING

WORKERS = 5
BARE = """
import gc, signal
from bench.contenders.bare_fork import fork_idle
gc.collect()
gc.freeze()
print(fork_idle(), flush=True)
signal.pause()
"""
MALLOC = {"": "objects (pymalloc)", "[heap]": "larger pieces (malloc)"}
MAPPING = re.compile(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+ *(.*)")


def private_by_mapping(pid: int) -> Counter[str]:
    """Return the KiB of private pages by the file name of their mapping."""
    found: Counter[str] = Counter()
    name = ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if (mapping := MAPPING.fullmatch(line)) is not None:
            name = os.path.basename(mapping[1])
            name = MALLOC.get(name, name)
        elif line.startswith("Private_"):
            found[name] += int(line.split()[1])
    return found


def bare() -> Counter[str]:
    """Weigh a bare fork, whose parent writes to nothing meanwhile."""
    command = [sys.executable, "-c", BARE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        time.sleep(SETTLING)
        found = private_by_mapping(pid)
        os.kill(pid, signal.SIGKILL)
        parent.kill()
    return found


async def workers(preload: tuple[str, ...]) -> tuple[Counter[str], Counter[str]]:
    """Weigh the last of some spares, and the last of some workers."""
    async with parallel.init(preload=preload), trio.open_nursery() as nursery:
        spawned = []
        for _ in range(WORKERS):
            spawned.append(await parallel.spawn(noop.idle, nursery=nursery))
            await trio.sleep(SETTLING / WORKERS)
        await trio.sleep(SETTLING)
        pids = [process.pid for _, process in spawned]
        parent = re.search(r"PPid:\t(\d+)", Path(f"/proc/{pids[0]}/status").read_text())
        assert parent is not None
        siblings = Path(f"/proc/{parent[1]}/task/{parent[1]}/children").read_text().split()
        spare = max({*map(int, siblings)} - {*pids})
        found = private_by_mapping(spare), private_by_mapping(pids[-1])
        for channel, _ in spawned:
            channel.close()
    return found


def main() -> None:
    """Weigh and print."""
    columns = {"bare fork": bare()}
    columns["spare"], columns["preloaded"] = trio.run(workers, (noop.__name__,))
    _, columns["worker"] = trio.run(workers, ())
    table = Table("KiB", *columns)
    names = [name for name, size in columns["worker"].most_common() if size >= 20]
    for name in names:
        table.add_row(name, *(str(column[name]) for column in columns.values()))
    table.add_row("all", *(str(column.total()) for column in columns.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
