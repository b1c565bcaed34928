"""Random trees of processes that hand a channel down, and what must come of them.

Each worker imports this: it is small.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import trio

import parallel

from .puppets import Channel, Hub, hand_back

Ending = Literal["return", "drop", "raise", "be killed", "be cancelled"]
ENDINGS: list[Ending] = ["return", "return", "return", "drop", "raise", "be killed", "be cancelled"]
Way = Literal["argument", "closure", "spawn", "message", "result"]


@dataclass
class Node:
    """What one process does."""

    number: int
    says: list[int]
    """How many messages before each process below is started, and how many behind that."""
    below: list[Node] = field(default_factory=list)
    way: Way = "argument"
    """How it comes by its channel."""
    ending: Ending = "return"
    leaves_early: bool = False
    """Whether it closes its channel before those below have ended."""
    patience: float = 0.0
    """Seconds until it is cancelled, if it is to be."""
    is_sure: bool = False
    """Whether everything that it says must arrive: neither it nor one above comes to a bad end."""

    @property
    def will_say(self) -> int:
        return sum(self.says)

    def walk(self) -> Iterator[Node]:
        yield self
        for node in self.below:
            yield from node.walk()

    def settle(self, sure: bool) -> None:
        """Work out who can be relied on, from here down."""
        self.is_sure = sure and self.ending in ("return", "drop")
        for node in self.below:
            node.settle(self.is_sure)


def random_tree(chance: random.Random) -> Node:
    """A tree of at most eight processes; the root of it does nothing bad."""
    nodes = [Node(number, []) for number in range(chance.randint(2, 8))]
    for node in nodes[1:]:
        chance.choice(nodes[: node.number]).below.append(node)
        node.way = chance.choice(["argument", "closure", "spawn", "message", "result"])
        # What comes as a result is used in the process that asked for it.
        node.ending = "return" if node.way == "result" else chance.choice(ENDINGS)
        node.patience = chance.random() * 0.02
    for node in nodes:
        node.leaves_early = chance.random() < 0.5
        node.says = [chance.choice([0, 1, 2, 100]) for _ in range(len(node.below) + 1)]
    nodes[0].settle(sure=True)
    return nodes[0]


async def act(node: Node, channel: Channel) -> None:
    """Do what the node says."""
    count = 0
    async with trio.open_nursery() as nursery:
        for times, below in zip(node.says, [*node.below, None], strict=True):
            for _ in range(times):
                await channel.send((node.number, count))
                count += 1
            if below is not None:
                nursery.start_soon(start, below, channel.clone())
        match node.ending:
            case "raise":
                raise ArithmeticError("as the schedule says")
            case "be killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "be cancelled":
                await trio.sleep_forever()
        if node.leaves_early:
            channel.close()
    if node.ending == "return":
        channel.close()


async def start(node: Node, channel: Channel) -> None:
    """Let a process below do what its node says, whatever becomes of it."""
    with trio.CancelScope() as scope, channel:
        if node.ending == "be cancelled":
            scope.deadline = trio.current_time() + node.patience
        try:
            await WAYS[node.way](node, channel)
        except (ArithmeticError, ExceptionGroup, parallel.WorkerDied):
            if node.ending not in ("raise", "be killed"):
                raise


async def by_argument(node: Node, channel: Channel) -> None:
    await parallel.run(act, node, channel)


async def by_closure(node: Node, channel: Channel) -> None:
    async def job() -> None:
        await act(node, channel)

    await parallel.run(job)


async def by_spawn(node: Node, channel: Channel) -> None:
    async with parallel.spawn(act_with_hub, node, channel):
        channel.close()


async def act_with_hub(hub: Hub, node: Node, channel: Channel) -> None:
    await act(node, channel)


async def by_message(node: Node, channel: Channel) -> None:
    async with parallel.spawn(act_on_message, node) as (line, _):
        await line.send(channel)
        channel.close()


async def act_on_message(hub: Hub, node: Node) -> None:
    async for _, channel in hub:
        await act(node, channel)


async def by_result(node: Node, channel: Channel) -> None:
    returned = await parallel.run(hand_back, channel)
    channel.close()
    with returned:
        await act(node, returned)


WAYS: dict[Way, Any] = {
    "argument": by_argument,
    "closure": by_closure,
    "spawn": by_spawn,
    "message": by_message,
    "result": by_result,
}
