"""A root on a terminal, to be interrupted there.

    python interrupted.py SCENE GRACE

Says `ready` when there is something to interrupt.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Awaitable, Callable

import trio

import parallel
from tests.programs import growth


def say_ready() -> None:
    os.write(1, b"ready\n")


async def nest(levels: int) -> None:
    if levels == 1:
        say_ready()
        await trio.sleep_forever()
    await parallel.run(nest, levels - 1)


def compute() -> None:
    say_ready()
    growth.compute_for_ever()


def compute_and_clean_up() -> None:
    """A sync function that thinks that it will hear of an interrupt."""
    say_ready()
    try:
        time.sleep(1000)
    except KeyboardInterrupt:
        os.write(1, b"noise\n")


async def serve(hub: parallel.Hub[None, None]) -> None:
    say_ready()
    await serve_quietly(hub)


async def serve_quietly(hub: parallel.Hub[None, None]) -> None:
    async for _ in hub:
        pass


async def clean_up_at_length() -> None:
    """Tells when it has been cancelled."""
    try:
        say_ready()
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            os.write(1, b"cleaning up\n")
            await trio.sleep_forever()


async def clean_up_at_length_with_hub(hub: parallel.Hub[None, None]) -> None:
    await clean_up_at_length()


async def answer_and_clean_up(hub: parallel.Hub[None, None]) -> None:
    async for client, _ in hub:
        hub.send_nowait(client, None)
        await clean_up_at_length()


async def nest_above_cleaning(levels: int) -> None:
    if levels == 1:
        await clean_up_at_length()
    await parallel.run(nest_above_cleaning, levels - 1)


async def in_cascade() -> None:
    await parallel.run(nest, 10)


async def in_sync_function() -> None:
    await parallel.run(compute)


async def in_sleeping_sync_function() -> None:
    await parallel.run(compute_and_clean_up)


async def in_block() -> None:
    async with parallel.spawn(serve):
        await trio.sleep_forever()


async def in_receive() -> None:
    async with parallel.spawn(serve) as (channel, _):
        await channel.receive()


async def in_own_code() -> None:
    """The root computes."""
    async with parallel.spawn(serve_quietly):
        say_ready()
        while True:
            pass


async def in_idle() -> None:
    say_ready()
    await trio.sleep_forever()


async def in_stubborn() -> None:
    await parallel.run(clean_up_at_length)


async def in_stubborn_cascade() -> None:
    await parallel.run(nest_above_cleaning, 5)


async def in_stubborn_block() -> None:
    async with parallel.spawn(clean_up_at_length_with_hub):
        await trio.sleep_forever()


async def in_crowd() -> None:
    async with trio.open_nursery(strict_exception_groups=True) as nursery:
        for _ in range(10):
            nursery.start_soon(parallel.run, compute)


SCENES: dict[str, Callable[[], Awaitable[None]]] = {
    "cascade": in_cascade,
    "sync function": in_sync_function,
    "sleeping sync function": in_sleeping_sync_function,
    "block": in_block,
    "receive": in_receive,
    "own code": in_own_code,
    "idle": in_idle,
    "stubborn": in_stubborn,
    "stubborn cascade": in_stubborn_cascade,
    "stubborn block": in_stubborn_block,
    "crowd": in_crowd,
}


async def leave_init(grace: float) -> None:
    """Interrupted while `init` ends what an outer nursery still has."""
    async with trio.open_nursery(strict_exception_groups=True) as nursery:
        async with parallel.init(grace=grace):
            channel, _ = await parallel.spawn(answer_and_clean_up, nursery=nursery)
            await channel.send(None)
            await channel.receive()


async def start_and_leave(grace: float) -> None:
    """For random moments: the first line comes before `init`."""
    os.write(1, b"ready\n")
    for _ in range(1000):
        async with parallel.init(grace=grace):
            assert await parallel.run(os.getpid)


for _name in dir(parallel):
    getattr(parallel, _name)  # loaded now: an interrupted import would have more to say


async def main(scene: str, grace: float) -> None:
    if scene == "leaving":
        await leave_init(grace)
    elif scene == "any moment":
        await start_and_leave(grace)
    else:
        async with parallel.init(grace=grace):
            await SCENES[scene]()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], float(sys.argv[2]))
