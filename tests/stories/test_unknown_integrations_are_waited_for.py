"""What concerns an integration that a worker does not know (yet) is held with a reason until the worker knows it."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import pytest

from schemas import topics
from schemas.base import EntityKind
from schemas.codec import encode
from schemas.pms import FetchOrigin, FetchRequest
from streams.backends.memory import MemoryBackend, MemoryBroker, MemoryReader
from streams.backends.ports import NOWHERE, Partition
from streams.runners.global_ import ANSWER_WITHIN
from tests.world import Since, asking_rent, listed_rent, receiver_matches
from tests.world.memory import MemoryWorld, seed

UNIT = 100104
UNKNOWN = b"unknown_integration"


@pytest.fixture
async def world() -> AsyncIterator[MemoryWorld]:
    """One org, delivered; idle."""
    async with MemoryWorld(environment=False) as world:
        await world.add_delivered_orgs("acme")
        async with world.beside("late"):
            yield world


def reasons(world: MemoryWorld, delay: str = "1m") -> set[bytes]:
    """Return why records were parked on a rung."""
    return {dict(record.headers)["rent-reason"] for record in world.read(topics.rung(delay).name)}


async def test_a_request_for_an_integration_that_comes_later_is_held_until_then(world: MemoryWorld) -> None:
    request = FetchRequest(
        org="late",
        connection="buildium",
        origin=FetchOrigin.WEBHOOK,
        event="RentalUnit.Updated",
        kind=EntityKind.UNIT,
        entity=UNIT,
        received_at=world.clock.now(),
    )
    await world.put(topics.WEBHOOKS.name, encode(request), key=b"late")
    await world.pass_time(300)
    assert reasons(world) == {UNKNOWN}
    assert reasons(world, "2m") == {UNKNOWN}

    site = world.site("late", seed(world.clock), "the-secret-of-late")
    await world.add_org("late")

    def fetched() -> list[int]:
        return [one.status for one in site.buildium.calls if one.path.endswith(f"/units/{UNIT}")]

    await world.until(lambda: fetched() == [200], within=600)
    await world.rest()
    assert world.read(topics.DEAD_LETTERS.name) == []


async def test_a_worker_that_follows_no_more_holds_what_it_does_not_know(world: MemoryWorld) -> None:
    """The web role knows the new org and takes its webhooks; another worker goes on with them."""
    (worker,) = world.workers
    await world.managed(worker.known.follower.stop())
    site = await world.add_org("late")
    await world.send_webhooks(site.portfolio.set_rent(UNIT, 2801), org="late")
    await world.send_webhooks(world.sites["acme"].portfolio.set_rent(UNIT, 2802), org="acme")
    await world.until(lambda: listed_rent(world.sites["acme"], UNIT) == 2802.0, within=5)
    await world.pass_time(30)
    assert reasons(world) == {UNKNOWN}
    assert list(site.buildium.calls) == []

    await world.kill_worker()
    await world.start(1)
    await world.until(lambda: receiver_matches(site))
    assert listed_rent(site, UNIT) == asking_rent(site, UNIT) == 2801.0
    await world.rest()
    assert world.read(topics.DEAD_LETTERS.name) == []


async def test_a_batch_for_a_receiver_that_is_gone_is_no_dead_letter(world: MemoryWorld) -> None:
    """Its row keeps what is owed, in case that the receiver comes back."""
    site = world.sites["acme"]
    site.to_rentsync.latency = 3.0
    site.rentsync.answer_next(503)
    await world.send_webhooks(site.portfolio.set_rent(UNIT, 2803), org="acme")
    await world.pass_time(2)
    await world.delete("acme", "rentsync")
    await world.rest()
    assert world.read(topics.DEAD_LETTERS.name) == []
    assert listed_rent(site, UNIT) != 2803.0


# ------------------------------------------------------------------------------------------ a worker that starts blind


class LateReader(MemoryReader):
    """Gets no connection until something happens."""

    def __init__(
        self, log: MemoryBackend, names: Sequence[str], positions: Mapping[Partition, int], awaited: asyncio.Event
    ) -> None:
        super().__init__(log, names, positions)
        self._awaited = awaited

    async def start(self) -> None:
        await self._awaited.wait()
        await super().start()


class LateBackend(MemoryBackend):
    """Consumes and produces, but cannot read the integrations until something happens."""

    def __init__(self, broker: MemoryBroker, awaited: asyncio.Event) -> None:
        super().__init__(broker)
        self._awaited = awaited

    def reader(self, topics: Sequence[str], positions: Mapping[Partition, int] = NOWHERE) -> MemoryReader:
        return LateReader(self, topics, positions, self._awaited)


async def test_a_worker_consumes_nothing_before_it_knows_all_integrations() -> None:
    """It would read the account of the environment, although a stored one counts."""
    async with MemoryWorld() as world:
        await world.until(lambda: receiver_matches(world))
        stored = world.site("stored", seed(world.clock), "the-secret-of-stored")
        await world.store("default", "buildium", world.buildium_of(stored))
        await world.enable("default", "buildium")
        await world.rest()
        await world.kill_worker()
        readable, calls = asyncio.Event(), len(world.buildium.calls)
        world.open_backend = lambda broker: LateBackend(broker, readable)
        world.start_workers()
        for event in stored.portfolio.set_rent(UNIT, 2804):
            world.receive_webhook(event.body(stored.portfolio.account), stored.webhook_secret)
        stored_calls = len(stored.buildium.calls)
        await world.pass_time(10 * ANSWER_WITHIN)
        assert not world.workers[0].known.directory.caught_up
        assert world.workers[0].known.follower.problem is not None
        assert (len(world.buildium.calls), len(stored.buildium.calls)) == (calls, stored_calls)

        readable.set()
        await world.until(lambda: listed_rent(world, UNIT) == 2804.0, within=2 * ANSWER_WITHIN)
        assert len(world.buildium.calls) == calls
        assert world.read(topics.DEAD_LETTERS.name) == []


async def test_a_worker_that_starts_while_the_broker_is_away_works_when_it_is_back(world: MemoryWorld) -> None:
    site, since = world.sites["acme"], Since(world)
    await world.kill_worker()
    await world.send_webhooks(site.portfolio.set_rent(UNIT, 2805), org="acme")
    world.broker.go_away()
    world.start_workers()
    await world.pass_time(120)
    assert not world.workers[0].known.directory.caught_up

    world.broker.come_back()
    await world.until(lambda: listed_rent(site, UNIT) == 2805.0, within=2 * ANSWER_WITHIN)
    assert since.dead() == []
