"""Roots that are interrupted at some line that the package executes in them.

    python interrupted_at_a_line.py SCENE LINES ROUNDS

Each is a fork of this process, which runs no trio itself: old ones do not survive a fork. Says for
each where it was and what became of it, if that was anything but a KeyboardInterrupt and no child
left. With 0 rounds it counts the lines.
"""

from __future__ import annotations

import faulthandler
import os
import random
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import Any

import trio

import parallel
from parallel.launch.local import Local

PACKAGE = str(Path(parallel.__file__).parent)
AT_ONCE = 10.0


class Tracer:
    """Counts the lines that are executed in the package, and raises SIGINT at one of them."""

    def __init__(self, line: int) -> None:
        self.root = os.getpid()
        self.line = line
        self.count = 0
        self.where: str | None = None

    def trace_calls(self, frame: FrameType, _event: str, _argument: Any) -> Any:
        ours = frame.f_code.co_filename.startswith(PACKAGE)
        return self.trace_lines if ours and os.getpid() == self.root else None

    def trace_lines(self, frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "line":
            self.count += 1
            if self.count == self.line:
                code = frame.f_code
                self.where = f"{code.co_filename}:{frame.f_lineno} ({code.co_qualname})"
                signal.raise_signal(signal.SIGINT)
        return self.trace_lines


async def serve(hub: parallel.Hub[int, int]) -> None:
    async for client, message in hub:
        await hub.send(client, message)


async def speak(channel: parallel.Channel[int, int]) -> None:
    with channel:
        await channel.send(1)


async def speak_elsewhere(channel: parallel.Channel[int, int]) -> None:
    with channel:
        await parallel.run(speak, channel)


async def in_run() -> None:
    assert await parallel.run(os.getpid)


async def in_block() -> None:
    async with parallel.spawn(serve) as (channel, _):
        await channel.send(1)
        assert await channel.receive() == 1


async def in_nursery() -> None:
    async with trio.open_nursery() as nursery:
        channel, _ = await parallel.spawn(serve, nursery=nursery)
        with channel:
            await channel.send(1)
            assert await channel.receive() == 1


async def in_hub() -> None:
    async with parallel.open_hub() as hub, trio.open_nursery() as nursery:
        nursery.start_soon(speak_elsewhere, hub.open_channel())
        assert [message async for _, message in hub] == [1]


async def in_cluster() -> None:
    assert await parallel.run(parallel.current_host, where="other") == "other"


SCENES: dict[str, Callable[[], Awaitable[None]]] = {
    "run": in_run,
    "block": in_block,
    "nursery": in_nursery,
    "hub": in_hub,
    "cluster": in_cluster,
}


async def main(scene: str) -> None:
    launchers = [Local(name="other")] if scene == "cluster" else []
    async with parallel.init(cluster=parallel.Cluster(launchers), grace=1):
        await SCENES[scene]()


async def main_in_time(scene: str, tracer: Tracer) -> None:
    sys.settrace(tracer.trace_calls)
    try:
        with trio.fail_after(AT_ONCE):
            await main(scene)
    finally:
        sys.settrace(None)


def is_interrupt(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_interrupt, error.exceptions))
    return isinstance(error, KeyboardInterrupt)


def count_lines(scene: str) -> int:
    tracer = Tracer(0)
    trio.run(main_in_time, scene, tracer)
    return tracer.count


def be_interrupted(scene: str, line: int) -> None:
    """Says nothing where all is well."""
    faulthandler.dump_traceback_later(3 * AT_ONCE, exit=True)
    tracer = Tracer(line)
    outcome = ""
    try:
        trio.run(main_in_time, scene, tracer)
        if tracer.where is not None:  # else this round was over before
            outcome = "it returned"
    except BaseException as exc:  # that is what this is about
        outcome = "" if is_interrupt(exc) else "".join(traceback.format_exception(exc))
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    if outcome or children:
        print(f"line {line}, {tracer.where}: {outcome}, children: {children}", flush=True)


def interrupt_at_random(scene: str, lines: int, rounds: int) -> None:
    for line in random.sample(range(1, lines), rounds):
        pid = os.fork()
        if pid == 0:
            try:
                be_interrupted(scene, line)
                os._exit(0)
            finally:
                os._exit(1)
        if os.waitpid(pid, 0)[1] != 0:
            print(f"line {line}: it hung", flush=True)


if __name__ == "__main__":
    name, last, times = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    for public in dir(parallel):
        getattr(parallel, public)  # loaded now: an interrupted import would have more to say
    if times == 0:
        print(count_lines(name))
    else:
        interrupt_at_random(name, last, times)
