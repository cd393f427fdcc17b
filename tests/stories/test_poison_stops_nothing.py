"""Whatever is on a topic or in a row: it ends as a dead letter or is passed over, and what comes after it goes on."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import pytest

from schemas import topics
from schemas.base import EntityKind
from schemas.codec import encode
from schemas.delivery import DeliveryDue, DueReason, KnownRow
from schemas.partitions import partition_of
from schemas.pms import FetchOrigin, FetchRequest, SweepStep
from schemas.topics import TopicSpec
from streams import topology
from streams.core.delivery import delivery_key
from streams.core.flows import Record
from streams.core.rent_roll import account_key, scope, unit_key
from streams.topology import DELIVERIES, RENT_ROLL, Kind
from tests.stories.test_failures_are_retried import header_of
from tests.world import Since, World, listed_rent, pick, receiver_matches, start_sweep
from tests.world.cluster import PARTITIONS
from tests.world.commands import accepted, office, until_it_is
from tests.world.memory import MemoryWorld

FOLDED: Final = [topic for flow in topology.of_kind(Kind.FOLD) for topic in flow.reads]
CALLED: Final = [topic for flow in topology.of_kind(Kind.CALL) if flow.retries for topic in flow.reads]
ASKED: Final = [topic for flow in topology.of_kind(Kind.CALL) if not flow.retries for topic in flow.reads]
"""What is on these is asked for again if it is lost; of many bad records in a row the last ones are left out."""
COMPACTED: Final = [topic for topic in topics.TOPICS if topic.cleanup == "compact"]
NOW: Final = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)

DUE: Final = encode(
    DeliveryDue(org="default", connection="buildium", property_id=1, reason=DueReason.ASKED, seen_at=NOW)
)
POISON: Final = {
    "nothing": None,
    "empty": b"",
    "noise": b"\x00poison",
    "a head alone": DUE[:10],
    "an early end": DUE[:14],
    "a row": encode(KnownRow(digest=b"12345678")),
}


def of(letters: Sequence[Record], topic: TopicSpec) -> list[Record]:
    return [letter for letter in letters if header_of(letter, "rent-origin") == topic.name]


@pytest.mark.parametrize("kind", POISON)
async def test_a_bad_value_is_a_dead_letter_with_its_bytes(memory_world: MemoryWorld, kind: str) -> None:
    """On every topic that is processed; nothing else is affected by it."""
    await bad_value(memory_world, kind)


async def test_no_value_is_a_dead_letter_on_kafka(cluster_world: World) -> None:
    await bad_value(cluster_world, "nothing")


async def bad_value(world: World, kind: str) -> None:
    """Records that are good follow, also of commands: while nothing succeeds, what is bad waits."""
    since, unit = Since(world), pick(world, "Available")
    for topic in (*FOLDED, *CALLED, *ASKED):
        await world.put(topic.name, POISON[kind])
    for topic in COMPACTED:
        await world.put(topic.name, POISON[kind], key=b"default/\xff/poison")
    _, href = await accepted(world, "/api/properties", office(f"Poisoned by {kind}"))
    await until_it_is(world, href, "synced")
    for rent in range(1810, 1840):
        await world.send_webhooks(world.portfolio.set_rent(unit, rent))
        await world.until(lambda rent=rent: listed_rent(world, unit) == rent)  # type: ignore[misc]
        if all(of(since.dead(), topic) for topic in (*FOLDED, *CALLED)):
            break
    await world.rest()

    letters = since.dead()

    for topic in (*FOLDED, *CALLED):
        found = of(letters, topic)
        assert [header_of(letter, "rent-reason") for letter in found] == ["malformed"], topic.name
        assert [letter.value for letter in found] == [POISON[kind]], topic.name
    origins = {header_of(letter, "rent-origin") for letter in letters}
    assert origins <= {topic.name for topic in (*FOLDED, *CALLED, *ASKED)}
    if not isinstance(world, MemoryWorld):
        shown = await world.ask("GET", "/api/dead-letters?limit=200")
        assert {one["reason"] for one in shown.json()} >= {"malformed"}


async def test_a_record_without_a_key_or_with_a_bad_one_is_processed(world: World) -> None:
    """Its org is in its value."""
    since, unit = Since(world), pick(world, "Available")
    partition = partition_of(b"default", PARTITIONS)
    for rent, key in ((1811, None), (1812, b"\xff\x00")):
        world.portfolio.set_rent(unit, rent)
        for kind in (EntityKind.UNIT, EntityKind.LISTING):
            request = FetchRequest(
                org="default",
                connection="buildium",
                origin=FetchOrigin.WEBHOOK,
                event="RentalUnit.Updated",
                kind=kind,
                entity=unit,
                received_at=world.clock.now(),
            )
            await world.put(topics.WEBHOOKS.name, encode(request), key=key, partition=partition)
        await world.until(lambda rent=rent: listed_rent(world, unit) == rent)  # type: ignore[misc]
    await world.rest()
    assert since.dead() == []


async def test_a_record_on_another_partition_is_a_dead_letter(memory_world: MemoryWorld) -> None:
    """The rows of its org are elsewhere: here it would make others, which nothing would correct."""
    world = memory_world
    since, unit = Since(world), pick(world, "Available")
    elsewhere = (partition_of(b"default", PARTITIONS) + 1) % PARTITIONS
    due = DeliveryDue(
        org="default", connection="buildium", property_id=1, reason=DueReason.ASKED, seen_at=world.clock.now()
    )
    step = SweepStep(
        org="default",
        connection="buildium",
        sweep="20300101000000",
        started_at=world.clock.now(),
        stage=EntityKind.PROPERTY,
    )
    await world.put(topics.DUE.name, encode(due), partition=elsewhere)
    await world.put(topics.SWEEPS.name, encode(step), partition=elsewhere)
    await world.rest()
    letters = since.dead()
    assert [header_of(letter, "rent-reason") for letter in letters] == ["misplaced", "misplaced"]
    assert {letter.value for letter in letters} == {encode(due), encode(step)}
    assert since.batches() == []
    assert since.asked("/v1/rentals") == 0
    await world.send_webhooks(world.portfolio.set_rent(unit, 1813))
    await world.until(lambda: listed_rent(world, unit) == 1813.0)


# ------------------------------------------------------------------------------------------------------------- rows


def spoil(world: MemoryWorld, table: str, key: bytes) -> None:
    """Replace a row by bytes that are none."""
    view = world.tables[table, partition_of(b"default", world.broker.partitions)]
    assert view.get(key) is not None, key
    view.write({key: b"\x00spoiled"})


@pytest.mark.parametrize("which", ["unit", "account", "delivery"])
async def test_a_row_that_cannot_be_decoded_is_made_again(memory_world: MemoryWorld, which: str) -> None:
    """It becomes a dead letter with its bytes; what needs it goes on without it, at the latest with the next sweep."""
    world = memory_world
    since, unit = Since(world), pick(world, "Available")
    building = next(one for one, units in world.portfolio.units_of.items() if unit in units)
    at = scope("default", "buildium")
    table, key = {
        "unit": (RENT_ROLL, unit_key(at, unit)),
        "account": (RENT_ROLL, account_key(at)),
        "delivery": (DELIVERIES, delivery_key("default", "rentsync", "buildium", building)),
    }[which]
    spoil(world, table, key)
    await world.pass_time(60)  # every scan meets it
    await world.send_webhooks(world.portfolio.set_rent(unit, 1814))
    await world.pass_time(5)
    await start_sweep(world)
    await world.until(lambda: listed_rent(world, unit) == 1814.0)
    await world.until(lambda: receiver_matches(world))
    await world.rest()

    rows = [one for one in since.dead() if one.value == b"\x00spoiled"]

    assert [(one.key, header_of(one, "rent-reason")) for one in rows] == [(key, "unreadable_row")]
    assert header_of(rows[0], "rent-origin") == topics.changelog(topology.APP, table).name
    assert {header_of(one, "rent-reason") for one in since.dead()} == {"unreadable_row"}
