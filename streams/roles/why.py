"""``rentstream why``: what happened to a unit, a property or an operation, read from the topics."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from connectors.clock import SystemClock
from connectors.ports import Clock
from schemas import topics
from schemas.codec import DecodeError, UnknownWriter, decode
from schemas.partitions import partition_for
from streams.backends.ports import Backend, BackendError, Partition
from streams.core.flows import Record
from streams.core.retry import history_of
from streams.core.timeline import Subject, Timeline
from streams.roles import manage
from streams.roles.integrations import kafka_backend
from streams.runners.global_ import within
from streams.runners.reading import ends_of, fetched
from streams.settings import KafkaSettings, RentStreamSettings

READ_WITHIN: Final = 120.0
"""Seconds that reading the topics may take."""


def names(delays: Sequence[str]) -> tuple[str, ...]:
    """Return the topics of a timeline, the changes first (`Timeline`)."""
    deliveries = (topics.CHANGES, topics.WEBHOOKS, topics.LINGERING, topics.DUE, topics.BATCHES, topics.OUTCOMES)
    operations = (topics.COMMANDS, topics.PUSHES, topics.SYNC_EVENTS)
    rungs = tuple(topics.rung(delay) for delay in delays)
    return tuple(topic.name for topic in (*deliveries, *operations, *rungs, topics.DEAD_LETTERS))


async def read(
    backend: Backend, clock: Clock, org: str, partitions: int, subject: Subject, found: Sequence[str]
) -> Timeline:
    """Return the timeline of a subject of an org. Raise `BackendError`."""
    timeline = Timeline(subject)
    records = await _records(backend, clock, found, partition_for(org, partitions))
    for topic in found:
        for record in records[topic]:
            _add(timeline, org, topic, record)
    return timeline


async def _records(backend: Backend, clock: Clock, names: Sequence[str], partition: int) -> Mapping[str, list[Record]]:
    """Return the records of a partition of these topics that are there by now."""
    ends = await ends_of(backend, clock, names)
    wanted = {Partition(topic, partition): ends.get(Partition(topic, partition), 0) for topic in names}
    # The other partitions, which are of other orgs, are not read.
    reader = backend.reader(names, {one: end for one, end in ends.items() if one not in wanted})
    found: dict[str, list[Record]] = {topic: [] for topic in names}
    await reader.start()
    try:
        done = False
        while not done:
            records = await fetched(reader, clock)
            for topic in names:
                found[topic] += records.get(Partition(topic, partition), ())
            done = all(reader.positions.get(one, 0) >= end for one, end in wanted.items())
    finally:
        await reader.stop()
    return found


def _add(timeline: Timeline, org: str, topic: str, record: Record) -> None:
    try:
        value = decode(record.value)
    except (DecodeError, UnknownWriter):
        return
    if getattr(value, "org", None) != org:
        return
    history, context = history_of(record), ""
    if topic.startswith(topics.rung("").name):
        context = f"parked for {topic.removeprefix(topics.rung('').name)}, {history.detail or 'no reason'}"
    elif topic == topics.DEAD_LETTERS.name:
        context = f"dead letter of {history.origin or '?'}, {history.reason or '?'}: {history.detail or ''}"
    timeline.add(topic, datetime.fromtimestamp(record.timestamp / 1000, UTC), value, context)


def run(settings: RentStreamSettings, kafka: KafkaSettings, org: str, subject: Subject) -> Timeline:
    """Return the timeline of a subject. Raise `streams.roles.manage.ManageFailed`."""
    clock = SystemClock()

    async def found() -> Timeline:
        backend = kafka_backend(settings, kafka, "why")
        work = read(backend, clock, org, settings.partitions, subject, names(settings.delays))
        return await within(clock, work, READ_WITHIN)

    try:
        return asyncio.run(found())
    except (TimeoutError, BackendError) as error:
        reason = str(error) or f"not read within {READ_WITHIN:g} s"
        raise manage.ManageFailed(f"the topics cannot be read ({reason}): check KAFKA_BOOTSTRAP_SERVERS") from None


def as_json(timeline: Timeline) -> Mapping[str, Any]:
    """Return a timeline for programs."""
    return {
        "kind": timeline.subject.kind,
        "id": timeline.subject.id,
        "events": [{"at": one.at.isoformat(), "topic": one.topic, "text": one.text} for one in timeline.ordered()],
        "now": timeline.current(),
    }


def lines(timeline: Timeline) -> list[str]:
    """Return a timeline for people: each line with its time, and the seconds since the line before."""
    found, before = [], None
    for one in timeline.ordered():
        since = "" if before is None else f"+{(one.at - before).total_seconds():.3f} s"
        found.append(f"{one.at:%Y-%m-%d %H:%M:%S}Z {since:>12}  {one.topic:22}  {one.text}")
        before = one.at
    return found + [f"now: {text}" for text in timeline.current()]
