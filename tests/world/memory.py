"""The whole system in memory: the real stand-ins behind ASGI, the real shells over a log in memory, a movable clock."""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import httpx
from pydantic import SecretStr

from connectors.budget import Budget
from connectors.buildium.auth import BuildiumAuth
from connectors.buildium.signature import sign
from connectors.buildium.source import BUDGET, BuildiumSource
from connectors.buildium.standin import BuildiumStandIn, Events, Portfolio, seed_portfolio
from connectors.buildium.webhook import BuildiumWebhooks
from connectors.http import Patience, open_client
from connectors.ports import Connection, Refused
from connectors.rentsync.settings import RentSyncSettings
from connectors.rentsync.sink import RentSyncSink
from connectors.rentsync.standin import RentSyncStandIn
from schemas import topics
from schemas.codec import encode
from streams import topology
from streams.backends.memory import MemoryBackend, MemoryBroker, MovableClock
from streams.core.flows import ProducerRecord, Record
from streams.core.observer import NullObserver
from streams.core.retry import ladder
from streams.runners.service import Runnable
from streams.wiring import Dependencies, calls, redeliveries
from tests.world.folds import MemoryFolds, Tables

DELAYS = ("1m", "2m", "5m", "10m")
KEY, SECRET, ZONE = "a-key-of-rentsync", "a-webhook-secret", "America/Edmonton"


class Near(httpx.ASGITransport):
    """An app next door; an answer that breaks off is what a network makes of it."""

    def __init__(self, app: Any, clock: MovableClock) -> None:
        super().__init__(app)
        self._clock = clock
        self.latency = 0.0
        """Seconds that every answer takes."""
        self.spans: list[tuple[float, float]] = []
        """When each call began and when it was answered."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        began = self._clock.monotonic()
        if self.latency:
            await self._clock.sleep(self.latency)
        try:
            return await super().handle_async_request(request)
        except AssertionError:
            raise httpx.RemoteProtocolError("the answer broke off") from None
        finally:
            self.spans.append((began, self._clock.monotonic()))


class Recorder(NullObserver):
    """An observer that remembers."""

    def __init__(self) -> None:
        self.verdicts: dict[tuple[str, str], int] = {}
        self.letters: list[tuple[str, str]] = []
        self.facts: dict[str, int] = {}
        self.undelivered: dict[str, float] = {}

    def record_ended(self, flow: str, verdict: str, seconds: float) -> None:
        del seconds
        self.verdicts[flow, verdict] = self.verdicts.get((flow, verdict), 0) + 1

    def dead_letter(self, origin: str, reason: str) -> None:
        self.letters.append((origin, reason))

    def fold_counted(self, flow: str, counts: Mapping[str, int]) -> None:
        del flow
        for name, number in counts.items():
            self.facts[name] = self.facts.get(name, 0) + number

    def oldest_undelivered(self, sink: str, partition: int, seconds: float) -> None:
        del partition
        self.undelivered[sink] = max(seconds, 0.0)


class Worker:
    """One worker: its connection to the log and everything that runs on it."""

    def __init__(self, world: "MemoryWorld") -> None:
        self.log = MemoryBackend(world.broker)
        client = open_client(allow_private=True, transport=world.to_buildium)
        source = BuildiumSource(
            client,
            "https://buildium.test/v1",
            world.clock,
            budget=Budget(world.clock, BUDGET),
            patience=Patience(3, 1.0, 30.0),
            auth=BuildiumAuth(SecretStr(world.buildium.client_id), SecretStr(world.buildium.client_secret)),
            random=random.Random(1),
        )
        settings = RentSyncSettings.read(
            {"RENTSYNC_URL": "https://rentsync.test/v1/rent-roll/sync", "RENTSYNC_API_KEY": KEY}
        )
        sink = RentSyncSink(
            settings, world.clock, open_client(allow_private=True, transport=Near(world.rentsync.app, world.clock))
        )
        parts = Dependencies(
            connections=(Connection("default", "buildium", "buildium", enabled=True, timezone=ZONE),),
            sources={("default", "buildium"): source},
            sinks=(sink,),
            clock=world.clock,
            observer=world.observed,
            rungs=ladder(",".join(DELAYS)),
            partitions=world.broker.partitions,
            sweep_every=900.0,
            linger=0.5,
        )
        shells: tuple[Runnable, ...] = (
            MemoryFolds(parts, self.log, world.tables),
            *calls(parts, self.log),
            *redeliveries(parts, self.log),
        )
        self.tasks = [asyncio.create_task(shell.run()) for shell in shells]

    def check(self) -> None:
        """Fail with what any part of it failed with."""
        for task in self.tasks:
            if task.done() and not task.cancelled():
                task.result()

    async def kill(self) -> None:
        """End it as ``kill -9`` does."""
        await self.log.kill()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


class MemoryWorld:
    """Buildium, RentSync, a broker and some workers; time passes only when a story says so."""

    def __init__(
        self, portfolio: Callable[[MovableClock], Portfolio] | None = None, *, at: datetime | None = None
    ) -> None:
        self.clock = MovableClock(at) if at else MovableClock()
        self.portfolio = (portfolio or seed)(self.clock)
        self.buildium = BuildiumStandIn(self.portfolio, monotonic=self.clock.monotonic)
        self.rentsync = RentSyncStandIn(KEY, self.clock)
        self.to_buildium = Near(self.buildium.app, self.clock)
        self.broker = MemoryBroker(self.clock, partitions=4)
        self.tables: Tables = {}
        self.observed = Recorder()
        self.workers: list[Worker] = []
        self._reader = BuildiumWebhooks("default", "buildium", (SecretStr(SECRET),))
        self.picked: set[int] = set()
        self._random = random.Random(7)

    async def start(self, workers: int = 1) -> None:
        self.workers += [Worker(self) for _ in range(workers)]
        await self.pass_time(0.0)

    async def stop(self) -> None:
        for worker in self.workers:
            await worker.kill()

    async def kill_worker(self) -> None:
        """The oldest worker dies; nobody cleans up after it."""
        await self.workers.pop(0).kill()

    async def tell(self, events: Events, copies: int = 1, *, shuffled: bool = False) -> None:
        """Buildium sends its webhooks, perhaps more than once and in any order."""
        bodies = [event.body(self.portfolio.account) for event in events for _ in range(copies)]
        if shuffled:
            self._random.shuffle(bodies)
        for body in bodies:
            stamp = str(int(self.clock.now().timestamp()))
            headers = [
                (b"buildium-webhook-timestamp", stamp.encode()),
                (b"buildium-webhook-signature", sign(body, stamp, SecretStr(SECRET)).encode()),
            ]
            notice = self._reader.read(headers, body, self.clock.now())
            assert not isinstance(notice, Refused), notice
            self.broker.append(ProducerRecord(topics.WEBHOOKS.name, notice.org.encode(), encode(notice)))

    async def put(self, topic: str, value: bytes) -> None:
        self.broker.append(ProducerRecord(topic, b"default", value))

    def read(self, topic: str) -> Sequence[Record]:
        return self.broker.read(topic)

    async def rest(self) -> None:
        """Until nothing is under way and nothing waits, here for at most the whole ladder."""
        await self.until(lambda: not any(self.broker.lag(group) for group in topology.groups(DELAYS)), within=3600)

    async def pass_time(self, seconds: float) -> None:
        await self.clock.advance(seconds)
        for worker in self.workers:
            worker.check()

    async def until(self, holds: Callable[[], bool], within: float = 60.0) -> float:
        """Let time pass until something holds; returns the seconds that it took. Raises `TimeoutError`."""
        began = self.clock.monotonic()
        while not holds():
            if self.clock.monotonic() - began > within:
                raise TimeoutError(f"it did not come true within {within} s")
            await self.pass_time(0.1)
        return self.clock.monotonic() - began


def seed(clock: MovableClock) -> Portfolio:
    return seed_portfolio(clock, timezone=ZONE)
