"""The no-ops: in a module of their own, for what a worker imports counts among its costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from parallel import Hub


async def nothing() -> None:
    """Do nothing."""


async def idle(hub: Hub[object, object]) -> None:
    """Wait until nobody can speak any more."""
    async for _ in hub:
        pass
