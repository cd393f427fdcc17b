"""Tests of ``rentstream status``: what it counts, what it prints, and one story on a real Kafka."""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import aiokafka
import pytest

from schemas import topics
from schemas.codec import encode
from schemas.commands import SyncEntity, SyncState, SyncStatus
from schemas.partitions import partition_for
from streams.observability.lag import PartitionLag
from streams.roles import manage, status
from streams.roles.status import Status, Waiting, waiting_of
from tests.streams.roles.terminal import Terminal
from tests.streams.roles.test_manage import state as integration

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
WELL = Status("default", (), (), (), {})


def failed(number: int = 1, **more: Any) -> SyncState:
    given: dict[str, Any] = {
        "org": "default",
        "connection": "buildium",
        "entity": SyncEntity.PROPERTY,
        "id": f"p{number}",
        "name": "Annex",
        "status": SyncStatus.FAILED,
        "detail": "no name",
        "updated_at": AT,
    }
    return SyncState(**given | more)


def test_what_waits_is_summed_by_topic_without_the_rungs() -> None:
    lags = [
        PartitionLag("pms.webhooks", 0, 2, 5.0, 0.0),
        PartitionLag("pms.webhooks", 1, 3, 70.0, 0.0),
        PartitionLag("pms.sweeps", 0, 0, 0.0, 0.0),
        PartitionLag("deliveries.due", 0, 1, None, 0.0),
        PartitionLag("retry.1m", 0, 9, 30.0, 0.0),
    ]
    assert waiting_of(lags) == [Waiting("deliveries.due", 1, None), Waiting("pms.webhooks", 5, 70.0)]


@pytest.mark.parametrize(
    ("change", "is_well"),
    [
        ({}, True),
        ({"failed": (failed(),)}, False),
        ({"integrations": (integration(),)}, True),
        ({"integrations": (integration(hold="the key is refused"),)}, False),
        ({"integrations": (integration(hold="the key is refused", enabled=False),)}, True),
        ({"waiting": (Waiting("pms.webhooks", 1, 5.0),)}, True),
        ({"waiting": (Waiting("pms.webhooks", 1, 61.0),)}, False),
        ({"waiting": (Waiting("pms.webhooks", 1, None),)}, False),
        ({"parked": {"1m": (5, 0.0)}}, True),
        ({"parked": {"1m": (5, 61.0)}}, False),
    ],
)
def test_whether_a_person_is_needed(change: dict[str, Any], is_well: bool) -> None:
    assert replace(WELL, **change).is_well is is_well


def test_the_lines_for_people() -> None:
    text = "\n".join(
        status.lines(
            replace(
                WELL,
                integrations=(integration(hold="the key is refused", sync_detail="part 2 of 4"),),
                failed=tuple(failed(number) for number in range(12)),
                waiting=(Waiting("pms.webhooks", 1, 5.4), Waiting("deliveries.due", 2, None)),
                parked={"1m": (5, 0.0), "5m": (1, 90.0)},
            )
        )
    )
    for part in (
        "on hold: main: the key is refused",
        "main: part 2 of 4",
        "waiting: 1 record on pms.webhooks, the oldest for 5 s",
        "waiting: 2 records on deliveries.due, of unknown age",
        "parked: 5 records for 1m",
        "parked: 1 record for 5m, overdue for 90 s",
        "failed: property p0 (Annex): no name",
        "and 2 more; GET /api/buildium/sync lists all of them",
    ):
        assert part in text


def test_the_lines_where_all_is_well() -> None:
    assert status.lines(WELL) == [
        status.NO_INTEGRATIONS.format(org="default"),
        "",
        "nothing waits: every record is processed",
        "no sync failed",
    ]


def test_without_a_broker_the_reason_is_named(terminal: Terminal) -> None:
    printed = terminal.run("status")
    assert terminal.exit_code == 1
    assert "cannot be read" in printed
    assert "Traceback" not in printed


@pytest.mark.broker
def test_the_status_of_a_cluster(kafka: str, topic_prefix: str, terminal: Terminal) -> None:
    terminal.env = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "RENTSTREAM_TOPIC_PREFIX": topic_prefix,
        "RENTSTREAM_PARTITIONS": "2",
    }
    terminal.run("topics", "--apply")
    assert terminal.run("status").splitlines()[-1] == "no sync failed"
    assert terminal.exit_code == 0, terminal.outputs

    async def write() -> None:
        producer = aiokafka.AIOKafkaProducer(bootstrap_servers=kafka)
        await producer.start()
        try:
            for topic, value in ((topics.SYNC_STATES, encode(failed())), (topics.WEBHOOKS, b"waits")):
                key = topic.key_of(failed())
                partition = partition_for("default", 2)
                await producer.send_and_wait(topic_prefix + topic.name, value, key=key, partition=partition)
        finally:
            await producer.stop()

    asyncio.run(write())
    found = json.loads(terminal.run("status", "--json"))
    assert (terminal.exit_code, found["ok"], found["org"]) == (1, False, "default")
    assert [one["entityId"] for one in found["failedSyncs"]] == ["p1"]
    assert [(one["topic"], one["records"]) for one in found["waiting"]] == [("pms.webhooks", 1)]


@pytest.mark.broker
def test_settings_that_are_not_those_of_the_workers_are_named(
    kafka: str, topic_prefix: str, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the address of the cluster, which answers."""
    monkeypatch.setattr(manage, "READ_WITHIN", 3.0)
    terminal.env = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "RENTSTREAM_TOPIC_PREFIX": topic_prefix,
        "RENTSTREAM_PARTITIONS": "2",
    }
    terminal.run("topics", "--apply")
    terminal.env["RENTSTREAM_RETRY_LADDER"] = "1m,3m"

    printed = terminal.run("status")

    assert terminal.exit_code == 1
    assert f"missing: {topic_prefix}retry.3m" in printed
    assert "RENTSTREAM_RETRY_LADDER" in printed
    assert "KAFKA_BOOTSTRAP_SERVERS" not in printed
