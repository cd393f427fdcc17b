"""Tests of how commands are accepted and answered, over the log in memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from schemas import topics
from schemas.codec import decode_as, encode
from schemas.commands import (
    Command,
    CommandAction,
    OwnerBody,
    PostalAddress,
    PropertyBody,
    SyncEntity,
    SyncOperation,
    SyncState,
    SyncStatus,
)
from schemas.partitions import partition_for
from streams.backends.memory import MemoryBackend, MemoryBroker, MovableClock
from streams.backends.ports import NotDurable
from streams.core.flows import ProducerRecord
from streams.directory.model import Conflict, Invalid, NotFound, Unavailable
from streams.directory.writer import LogWriter
from streams.runners.global_ import Follow
from streams.syncs.book import SyncBook
from streams.syncs.service import KeyReused, Syncs
from tests.streams.flows.parts import NOW, ORG, Site, account

HOME = PostalAddress(line1="1 Main St", postal_code="T2P", country="CA")
PROPERTY, OWNER = SyncEntity.PROPERTY, SyncEntity.OWNER


def a_property(name: str = "Annex", *owners: str) -> PropertyBody:
    return PropertyBody(name=name, address=HOME, sub_type="Office", owners=owners)


def an_owner(*properties: str) -> OwnerBody:
    return OwnerBody(first_name="Ada", last_name="Lee", address=HOME, properties=properties)


class Web:
    """One web process."""

    def __init__(self, broker: MemoryBroker, site: Site) -> None:
        backend = MemoryBackend(broker)
        self.book = SyncBook()
        names = (topics.COMMANDS.name, topics.SYNC_STATES.name)
        self.follower = Follow(backend, names, self.book, broker.clock)
        self.writer = LogWriter(backend.producer(), broker.partitions)
        self.syncs = Syncs(self.book, self.follower, self.writer, site.directory, broker.clock)
        self.task = asyncio.create_task(self.follower.run())

    async def stop(self) -> None:
        await self.follower.stop()
        await self.task


class World:
    """A log, connections, and web processes."""

    def __init__(self, *integrations: Any) -> None:
        self.clock = MovableClock(NOW)
        self.broker = MemoryBroker(self.clock, partitions=4)
        self.site = Site(*(integrations or (account(),)), clock=self.clock)
        self.webs: list[Web] = []

    async def web(self) -> Web:
        self.webs.append(Web(self.broker, self.site))
        await self.passing(self.webs[-1].follower.caught_up())
        return self.webs[-1]

    async def passing(self, work: Any) -> Any:
        """Return the result of some work; time passes until it is there."""
        task = asyncio.ensure_future(work)
        while not task.done():
            await self.clock.advance(0.05)
        return task.result()

    def commands(self) -> list[Command]:
        return [decode_as(Command, one.value) for one in self.broker.read(topics.COMMANDS.name)]

    async def put_state(self, own_id: str, status: SyncStatus, *operations: str, entity: SyncEntity = PROPERTY) -> None:
        shown = tuple(SyncOperation(id=one, action=CommandAction.CREATE, status=status, at=NOW) for one in operations)
        state = SyncState(
            org=ORG,
            connection="buildium",
            entity=entity,
            id=own_id,
            status=status,
            operations=shown,
            updated_at=self.clock.now(),
        )
        record = ProducerRecord(topics.SYNC_STATES.name, topics.SYNC_STATES.key_of(state), encode(state))
        producer = MemoryBackend(self.broker).producer()
        await producer.send([record], partition_for(ORG, self.broker.partitions))


@asynccontextmanager
async def running(*integrations: Any) -> AsyncIterator[World]:
    world = World(*integrations)
    yield world
    for web in world.webs:
        await world.passing(web.stop())


async def test_a_command_is_durable_before_it_is_answered() -> None:
    async with running() as world:
        web = await world.web()
        receipt = await world.passing(web.syncs.submit(ORG, "ann", a_property()))
        (command,) = world.commands()
        assert (command.id, command.operation, command.by) == (receipt.id, receipt.operation, "ann")
        assert (command.action, command.connection, command.property) == (
            CommandAction.CREATE, "buildium", a_property(),
        )  # fmt: skip


async def test_right_afterwards_it_is_pending_for_every_process() -> None:
    async with running() as world:
        web, other = await world.web(), await world.web()
        receipt = await world.passing(web.syncs.submit(ORG, "ann", a_property()))
        for one in (web, other):
            state = await world.passing(one.syncs.state(ORG, PROPERTY, receipt.id))
            assert state.status is SyncStatus.PENDING


async def test_the_same_key_with_the_same_content_is_one_operation() -> None:
    async with running() as world:
        web, other = await world.web(), await world.web()
        first = await world.passing(web.syncs.submit(ORG, "ann", a_property(), key="k"))
        assert await world.passing(web.syncs.submit(ORG, "ann", a_property(), key="k")) == first
        assert await world.passing(other.syncs.submit(ORG, "bob", a_property(), key="k")) == first
        restarted = await world.web()
        assert await world.passing(restarted.syncs.submit(ORG, "ann", a_property(), key="k")) == first
        assert {one.operation for one in world.commands()} == {first.operation}


async def test_the_same_key_with_another_content_is_refused() -> None:
    async with running() as world:
        web, other = await world.web(), await world.web()
        first = await world.passing(web.syncs.submit(ORG, "ann", a_property(), key="k"))
        others: tuple[tuple[Web, PropertyBody | OwnerBody, str | None], ...] = (
            (web, a_property("B"), None),
            (other, an_owner("1"), None),
            (web, a_property(), first.id),
        )
        for one, body, own_id in others:
            with pytest.raises(KeyReused):
                await world.passing(one.syncs.submit(ORG, "ann", body, own_id=own_id, key="k"))


async def test_of_two_processes_at_the_same_moment_one_wins() -> None:
    async with running() as world:
        web, other = await world.web(), await world.web()
        results = await world.passing(
            asyncio.gather(
                web.syncs.submit(ORG, "ann", a_property("A"), key="k"),
                other.syncs.submit(ORG, "ann", a_property("B"), key="k"),
                return_exceptions=True,
            )
        )
        assert sorted(type(one).__name__ for one in results) == ["KeyReused", "Receipt"]


async def test_without_a_key_every_request_is_an_operation() -> None:
    async with running() as world:
        web = await world.web()
        receipts = [await world.passing(web.syncs.submit(ORG, "ann", a_property())) for _ in range(2)]
        assert len({one.id for one in receipts}) == 2


async def test_a_change_names_an_entity_that_exists() -> None:
    async with running() as world:
        web = await world.web()
        created = await world.passing(web.syncs.submit(ORG, "ann", a_property()))
        changed = await world.passing(web.syncs.submit(ORG, "ann", a_property("B"), own_id=created.id))
        assert (changed.id, world.commands()[-1].action) == (created.id, CommandAction.UPDATE)
        with pytest.raises(NotFound):
            await world.passing(web.syncs.submit(ORG, "ann", a_property(), own_id="unknown"))
        with pytest.raises(NotFound):  # of another org
            await world.passing(web.syncs.submit("maple", "ann", a_property(), own_id=created.id))


async def test_references_have_to_exist() -> None:
    async with running() as world:
        web = await world.web()
        created = await world.passing(web.syncs.submit(ORG, "ann", a_property()))
        await world.passing(web.syncs.submit(ORG, "ann", an_owner(created.id, "4711")))
        with pytest.raises(Invalid) as wrong:
            await world.passing(web.syncs.submit(ORG, "ann", an_owner(created.id, "nowhere")))
        assert [one.pointer for one in wrong.value.errors] == ["/propertyIds/1"]
        with pytest.raises(Invalid) as wrong:
            await world.passing(web.syncs.submit(ORG, "ann", a_property("A", "nobody")))
        assert [one.pointer for one in wrong.value.errors] == ["/ownerIds/0"]


async def test_the_connection_is_the_only_one_or_has_to_be_named() -> None:
    async with running(account(), account(name="second")) as world:
        web = await world.web()
        with pytest.raises(Conflict, match=r"\?connection=buildium\|second"):
            await world.passing(web.syncs.submit(ORG, "ann", a_property()))
        await world.passing(web.syncs.submit(ORG, "ann", a_property(), connection="second"))
        assert world.commands()[-1].connection == "second"
        with pytest.raises(NotFound, match="'third'"):
            await world.passing(web.syncs.submit(ORG, "ann", a_property(), connection="third"))
        with pytest.raises(Conflict, match="connect one"):
            await world.passing(web.syncs.submit("empty", "ann", a_property()))


async def test_what_failed_is_tried_again() -> None:
    async with running() as world:
        web = await world.web()
        await world.put_state("p1", SyncStatus.FAILED, "op1")
        await world.put_state("p2", SyncStatus.CONFLICT, "op2")
        await world.put_state("p3", SyncStatus.SYNCED, "op3")
        await world.put_state("w", SyncStatus.FAILED, "op4", entity=OWNER)
        await world.passing(web.follower.read_to_end())
        retried = await world.passing(web.syncs.retry(ORG, "ann", PROPERTY))
        assert {one.id for one in retried} == {"op1", "op2"}
        assert {(one.action, one.id, one.version) for one in world.commands()} == {
            (CommandAction.RETRY, "p1", 0), (CommandAction.RETRY, "p2", 0),
        }  # fmt: skip
        assert [one.id for one in await world.passing(web.syncs.retry(ORG, "ann", OWNER, "w"))] == ["op4"]
        assert await world.passing(web.syncs.retry(ORG, "ann", PROPERTY, "p3")) == []
        with pytest.raises(NotFound):
            await world.passing(web.syncs.retry(ORG, "ann", PROPERTY, "unknown"))
        assert {one.id for one in web.syncs.failed(ORG)} == {"p1", "p2", "w"}


async def test_before_everything_is_read_nothing_is_answered() -> None:
    world = World()
    web = Web(world.broker, world.site)
    with pytest.raises(Unavailable):
        await web.syncs.submit(ORG, "ann", a_property())
    with pytest.raises(Unavailable):
        web.syncs.failed(ORG)
    await world.passing(web.stop())


async def test_without_kafka_nothing_is_accepted() -> None:
    class Down:
        async def write(self, *_: object) -> None:
            raise NotDurable("no broker")

    async with running() as world:
        web = await world.web()
        syncs = Syncs(web.book, web.follower, Down(), world.site.directory, world.clock)
        with pytest.raises(Unavailable, match="send it again"):
            await world.passing(syncs.submit(ORG, "ann", a_property()))


async def test_an_unknown_entity_is_not_denied_without_the_log() -> None:
    """Another process may have accepted it a moment ago."""

    class Deaf(Follow):
        async def read_to_end(self) -> bool:
            return False

    async with running() as world:
        web = await world.web()
        deaf = Deaf(MemoryBackend(world.broker), (), web.book, world.clock)
        syncs = Syncs(web.book, deaf, web.writer, world.site.directory, world.clock)
        with pytest.raises(Unavailable):
            await syncs.state(ORG, PROPERTY, "p")
