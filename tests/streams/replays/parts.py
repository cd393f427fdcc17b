"""A service of replays whose records are applied at once, over an empty broker in memory."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from connectors.ports import Clock
from schemas import topics
from streams.backends.memory import MemoryBackend, MemoryBroker, MovableClock
from streams.replays.book import ReplayBook
from streams.replays.planner import Planner
from streams.replays.service import Replays
from streams.view.queries import Queries

PARTITIONS = 4


class AtOnce:
    """A follower and a writer in one."""

    def __init__(self, book: ReplayBook) -> None:
        self.book = book
        self.reads = True
        """Whether the topic can be read."""
        self.written: list[bytes] = []

    @contextmanager
    def expecting(self, topic: str, key: bytes, value: bytes | None) -> "Iterator[asyncio.Future[None]]":
        del topic, key, value
        self.applied: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        yield self.applied

    async def read_to_end(self) -> bool:
        return self.reads

    async def write(self, topic: str, key: bytes, org: str, value: bytes | None) -> None:
        assert topic == topics.REPLAY_STATES.name
        assert key.startswith(f"{org}/".encode())
        self.written.append(key)
        self.book.apply(topic, key, value)
        self.applied.set_result(None)


def memory_replays(view: Queries, clock: Clock, broker: MemoryBroker | None = None) -> Replays:
    """Return a service that has read everything."""
    book = ReplayBook()
    book.caught_up = True
    at_once = AtOnce(book)
    backend = MemoryBackend(broker or MemoryBroker(MovableClock(), partitions=PARTITIONS))
    return Replays(book, at_once, at_once, Planner(view, backend, PARTITIONS, clock), clock)
