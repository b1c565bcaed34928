"""Tractor's actors, where tractor is installed: in an environment of its own.

    make .venv-tractor/.tractor VENV=.venv-tractor CONSTRAINTS=constraints-tractor.txt \\
        PYTHON=python3.11
    .venv-tractor/bin/python -m pytest -k "tractor or test_actor"
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def open_actors(*names: str, modules: Sequence[str]) -> AsyncIterator[list[Any]]:
    """Start an actor for each name, under a root actor in this process; they end with the block.

    Yields their portals. `modules` are the names of those whose functions they may run.
    """
    import tractor  # type: ignore[import-not-found, unused-ignore]  # it may be missing

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        registrar = probe.getsockname()  # of these actors alone; the default is a fixed port
    async with tractor.open_nursery(arbiter_addr=registrar) as nursery:
        yield [await nursery.start_actor(name, enable_modules=[*modules]) for name in names]
        await nursery.cancel()
