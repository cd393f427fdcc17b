"""Tests of the scan that finds operations which no record would end."""

from datetime import timedelta
from typing import Any

from schemas import topics
from schemas.codec import encode
from schemas.commands import Command, CommandAction, SyncEntity, SyncPhase, SyncRow, UnsyncedRow
from schemas.partitions import partition_for
from streams.core.delivery.recall import LOST_AFTER
from streams.core.sync.keys import entity_key, open_key
from streams.flows.watch_syncs import WatchSyncs
from streams.topology import SYNC_STATES
from tests.streams.core.views import MemoryView
from tests.streams.flows.parts import NOW, ORG, Site, account, emits_of

PROPERTY = SyncEntity.PROPERTY


def row(**more: Any) -> SyncRow:
    command = Command(
        org=ORG, connection="buildium", action=CommandAction.CREATE, operation="op", entity=PROPERTY, id="p", at=NOW
    )
    given: dict[str, Any] = {
        "connection": "buildium",
        "phase": SyncPhase.IN_FLIGHT,
        "version": 4,
        "attempt": 2,
        "changed_at": NOW,
    }
    return SyncRow(**{**given, "current": encode(command)} | more)


class Setup:
    """A partition with one open operation."""

    def __init__(self, found: SyncRow | None) -> None:
        self.site = Site(account())
        self.view = MemoryView({open_key(ORG, PROPERTY, "p"): encode(UnsyncedRow())})
        if found is not None:
            self.view[entity_key(ORG, PROPERTY, "p")] = encode(found)
        self.scan = WatchSyncs(self.site.directory, 1, self.site.clock)

    async def look(self, after: timedelta, partition: int = 0) -> list[Command]:
        await self.site.clock.advance(after.total_seconds())
        found = emits_of(self.scan.step({SYNC_STATES: self.view}, partition))
        assert all(one.topic is topics.COMMANDS for one in found)
        return [one.record for one in found if isinstance(one.record, Command)]


async def test_an_operation_that_is_under_way_for_too_long_is_tried_again() -> None:
    setup = Setup(row())
    assert await setup.look(LOST_AFTER - timedelta(seconds=1)) == []
    (retry,) = await setup.look(timedelta(seconds=2))
    assert (retry.action, retry.version, retry.attempt, retry.held) == (CommandAction.RETRY, 4, 2, True)
    assert (retry.id, retry.operation, retry.connection) == ("p", "op", "buildium")


async def test_what_waits_on_the_ladder_is_given_its_time() -> None:
    setup = Setup(row(phase=SyncPhase.WAITING, next_attempt_at=NOW + timedelta(hours=1)))
    assert await setup.look(timedelta(hours=1)) == []
    assert len(await setup.look(LOST_AFTER)) == 1


async def test_an_index_without_its_row_is_passed_over() -> None:
    assert await Setup(None).look(timedelta(days=1)) == []


async def test_each_partition_looks_at_its_own_orgs() -> None:
    setup = Setup(row())
    setup.scan = WatchSyncs(setup.site.directory, 12, setup.site.clock)
    own = partition_for(ORG, 12)
    assert [len(await setup.look(LOST_AFTER * 2, partition)) for partition in range(12)] == [
        int(partition == own) for partition in range(12)
    ]
