"""Turns under trio: waiting for the next one leaves the event loop running."""

from collections.abc import AsyncIterator

import trio

from bench.turns import Turns


async def arriving(turns: Turns) -> AsyncIterator[int]:
    """Announce that the contender is ready, then yield each turn's number of operations."""
    turns.ready()
    while True:
        await trio.lowlevel.wait_readable(turns.requests)
        operations = turns.take()
        if operations is None:
            return
        yield operations
