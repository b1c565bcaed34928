"""A root that grows a cascade over hosts and waits for its end, which is to come by a kill.

    python spread_root.py SEED PLACES NAME=CONFIG...

Prints a line when it begins to start the hosts, and one for each process of the cascade.
`PLACES` are the hosts of its levels, with commas.
"""

from __future__ import annotations

import sys

import trio

import parallel
from parallel.launch.ssh import Ssh
from tests.programs.spread import Level, spread

GRACE = 0.25


async def print_levels(hub: parallel.Hub[object, Level]) -> None:
    async for _ in hub:
        print("level", flush=True)


async def main(seed: str, places: str, *hosts: str) -> None:
    print("init", flush=True)
    configs = [host.partition("=") for host in hosts]
    launchers = [Ssh(name, config=config, python=sys.executable) for name, _, config in configs]
    async with parallel.init(cluster=parallel.Cluster(launchers), grace=GRACE):
        top, *below = places.split(",")
        async with parallel.open_hub() as hub, trio.open_nursery() as nursery:
            nursery.start_soon(print_levels, hub)
            with hub.open_channel() as report:
                async with parallel.spawn(spread, below, seed, report, where=top):
                    await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
