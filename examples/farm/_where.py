"""Where the farm of an example runs: the one switch that all of them share.

* `--on sequential`: in this process, one task after the other; no process is started.
* `--on cores`: on the cores of this machine. The default.
* `--on ssh`: on two ssh hosts that are there for the time of the example, on this machine.
* `--on host0,alice@host1`: on hosts of yours.
"""

from argparse import ArgumentParser
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import parallel
from parallel.farm import Sequential
from parallel.testing import open_hosts


def parser(description: str | None) -> ArgumentParser:
    """A command line that has the switch."""
    line = ArgumentParser(description=(description or "").partition("\n")[0])
    line.add_argument("--on", default="cores", help="sequential, cores, ssh, or hosts: a,b,c")
    return line


@asynccontextmanager
async def open_farm(on: str) -> AsyncGenerator[parallel.Farm, None]:
    """A farm there."""
    if on == "sequential":
        async with parallel.open_farm(Sequential()) as farm:
            yield farm
    elif on == "cores":
        async with parallel.init(), parallel.open_farm() as farm:
            yield farm
    elif on == "ssh":
        async with open_hosts(2) as hosts:
            async with parallel.init(cluster=parallel.Cluster(hosts)):
                async with parallel.open_farm(workers={"host0": 1, "host1": 1}) as farm:
                    yield farm
    else:
        cluster = parallel.Cluster(on.split(","), root_slots=0)
        async with parallel.init(cluster=cluster), parallel.open_farm() as farm:
            yield farm
