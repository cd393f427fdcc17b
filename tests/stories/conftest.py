"""The world that a story is told in."""

from collections.abc import AsyncIterator

import pytest

from tests.world.memory import MemoryWorld


@pytest.fixture
async def world() -> AsyncIterator[MemoryWorld]:
    """A small portfolio, all of it delivered once, nothing under way."""
    world = MemoryWorld()
    await world.start()
    await world.until(lambda: len(world.rentsync.accepted) >= 4)
    await world.pass_time(5)
    yield world
    await world.stop()
