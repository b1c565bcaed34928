"""The farm that most of its tests use."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

import parallel


@pytest.fixture
async def farm(tree: None) -> AsyncIterator[parallel.Farm]:
    """One with two workers."""
    async with parallel.open_farm(workers=2) as farm:
        yield farm
