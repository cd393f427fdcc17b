"""Tests of ``rentstream why``: which records are read, and what is printed."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schemas import topics
from schemas.base import Model
from schemas.codec import encode
from schemas.commands import Command, CommandAction, Push, SyncEntity
from schemas.partitions import partition_for
from schemas.topics import TopicSpec
from streams.backends.memory import MemoryBackend, MemoryBroker, MovableClock
from streams.core.flows import Headers, ProducerRecord
from streams.core.timeline import Occurrence, Timeline, subject_of
from streams.roles import why
from tests.streams.roles.terminal import Terminal

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ORG, PARTITIONS = "default", 4
GIVEN: dict[str, Any] = {"connection": "c", "operation": "op", "entity": SyncEntity.PROPERTY, "id": "p1"}
NAMES = why.names(("1m", "2m"))


def command(org: str = ORG) -> Command:
    return Command(org=org, **GIVEN, action=CommandAction.CREATE, at=NOW)


def push() -> Push:
    return Push(org=ORG, **GIVEN, version=1, attempt=1, since=NOW)


class Log:
    """A broker in memory with some records."""

    def __init__(self) -> None:
        self.clock = MovableClock(NOW)
        self.broker = MemoryBroker(self.clock, PARTITIONS)

    async def put(self, topic: TopicSpec, value: Model | bytes, headers: Headers = (), org: str = ORG) -> None:
        raw = value if isinstance(value, bytes) else encode(value)
        record = ProducerRecord(topic.name, org.encode(), raw, headers)
        await MemoryBackend(self.broker).producer().send([record], partition_for(org, PARTITIONS))
        await self.clock.advance(1.0)

    async def occurrences(self, subject: str = "p1") -> list[Occurrence]:
        read = why.read(MemoryBackend(self.broker), self.clock, ORG, PARTITIONS, subject_of(subject), NAMES)
        reading = asyncio.ensure_future(read)
        while not reading.done():
            await self.clock.advance(1.0)
        return reading.result().ordered()


async def test_the_records_of_the_org_are_in_the_order_of_time() -> None:
    log = Log()
    await log.put(topics.COMMANDS, command())
    await log.put(topics.PUSHES, push())
    await log.put(topics.COMMANDS, command("maple"), org="maple")
    neighbor = next(f"n{n}" for n in range(99) if partition_for(f"n{n}", PARTITIONS) == partition_for(ORG, PARTITIONS))
    await log.put(topics.COMMANDS, command(neighbor), org=neighbor)
    assert [(one.topic, one.at) for one in await log.occurrences()] == [
        (topics.COMMANDS.name, NOW),
        (topics.PUSHES.name, NOW + timedelta(seconds=1)),
    ]


async def test_what_is_parked_or_dead_has_its_reason() -> None:
    log = Log()
    await log.put(topics.rung("1m"), push(), (("rent-detail", b"503"),))
    dead = (("rent-origin", b"pms.pushes"), ("rent-reason", b"exhausted"), ("rent-detail", b"503 again"))
    await log.put(topics.DEAD_LETTERS, push(), dead)
    text = "property p1: to be created in the PMS, attempt 1"
    assert [one.text for one in await log.occurrences()] == [
        f"parked for 1m, 503: {text}",
        f"dead letter of pms.pushes, exhausted: 503 again: {text}",
    ]


async def test_what_cannot_be_read_is_passed_over() -> None:
    log = Log()
    await log.put(topics.COMMANDS, b"nonsense")
    await log.put(topics.COMMANDS, command())
    assert len(await log.occurrences()) == 1


async def test_an_empty_log_has_no_timeline() -> None:
    assert await Log().occurrences() == []


def test_the_changes_are_read_first() -> None:
    """They show which property a unit has."""
    assert NAMES[0] == topics.CHANGES.name
    assert {"retry.1m", "retry.2m", topics.DEAD_LETTERS.name} <= set(NAMES)


async def test_each_line_has_its_time_and_the_seconds_since_the_one_before() -> None:
    timeline = Timeline(subject_of("p1"))
    timeline.add("pms.commands", NOW, command())
    timeline.add("pms.pushes", NOW + timedelta(seconds=1.5), push())
    assert why.lines(timeline) == [
        "2026-03-01 12:00:00Z               pms.commands            property p1: create accepted as operation op",
        "2026-03-01 12:00:01Z     +1.500 s  pms.pushes              property p1: to be created in the PMS, attempt 1",
        "now: property p1: no answer of the PMS yet",
    ]
    found = why.as_json(timeline)
    assert (found["kind"], found["id"], found["now"]) == ("ours", "p1", ["property p1: no answer of the PMS yet"])
    assert [one["topic"] for one in found["events"]] == ["pms.commands", "pms.pushes"]


def test_a_wrong_entity_is_wrong_use(terminal: Terminal) -> None:
    printed = terminal.run("why", "100104")
    assert terminal.exit_code == 2
    assert "unit:ID" in printed


def test_without_a_broker_the_reason_is_named(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(why, "READ_WITHIN", 3.0)
    printed = terminal.run("why", "unit:7")
    assert terminal.exit_code == 1
    assert "cannot be read" in printed
    assert "Traceback" not in printed


@pytest.mark.broker
def test_the_story_of_a_cluster(kafka: str, topic_prefix: str, terminal: Terminal) -> None:
    terminal.env = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "RENTSTREAM_TOPIC_PREFIX": topic_prefix,
        "RENTSTREAM_PARTITIONS": "2",
    }
    terminal.run("topics", "--apply")
    printed = terminal.run("why", "p1")
    assert (terminal.exit_code, "older ones may have left their topics" in printed) == (1, True)
