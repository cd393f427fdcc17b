"""The observer of a stream worker, and the ports that report to it."""

import asyncio
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from connectors.ports import (
    Accepted,
    Failure,
    Fetched,
    Found,
    Gone,
    Missing,
    PageOf,
    Priority,
    Rejected,
    Throttled,
    Unauthorized,
    Unavailable,
)
from schemas.base import EntityKind
from schemas.delivery import Batch, BatchMode, DeliveryDue, Doubt, DueReason, OfferedProperty
from schemas.rent_roll import Page, PropertySnapshot, SweepEnd
from streams.backends.memory import MovableClock
from streams.core.doubts import TEXTS
from streams.core.flows import DoubtChange
from streams.core.observer import Observer
from streams.observability.instruments import MeasuredSink, MeasuredSource, PrometheusObserver, outcome, show_holds
from streams.observability.metrics import DELIVERY_OUTCOMES, OUTCOMES, Metrics

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
GONE = Gone(EntityKind.UNIT, 1)
HOME = Found(EntityKind.PROPERTY, 1, PropertySnapshot(id=1, name="Sunset Apartments"))


SYSTEMS = {("default", "north"): "buildium", ("default", "portal-a"): "rentsync"}


def system_of(org: str, name: str) -> str:
    return SYSTEMS.get((org, name), "other")


def observing() -> tuple[PrometheusObserver, Metrics]:
    metrics = Metrics()
    return PrometheusObserver(metrics, MovableClock(NOW), system_of), metrics


def batch(seen_at: datetime = NOW, sink: str = "portal-a") -> Batch:
    home = OfferedProperty(id=10, name="Sunset Apartments", address="1 Main St", is_active=True)
    return Batch(
        org="default",
        connection="north",
        sink=sink,
        batch_id="b",
        sync_id="sync-1",
        cut_at=seen_at,
        seen_at=seen_at,
        version=1,
        mode=BatchMode.SNAPSHOT,
        property=home,
        units=(),
    )


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        (Fetched((GONE,)), "gone"),
        (Fetched((GONE, HOME)), "ok"),
        (Fetched(()), "ok"),
        (PageOf((), 0, 0), "ok"),
        (Accepted(200), "ok"),
        (Throttled("slow"), "throttled"),
        (Unauthorized("key"), "unauthorized"),
        (Missing("address"), "missing"),
        (Rejected("no"), "rejected"),
        (Unavailable("down"), "unavailable"),
    ],
)
def test_an_answer_has_a_label_of_the_closed_set(answer: object, label: str) -> None:
    assert outcome(answer) == label
    assert label in OUTCOMES


def test_records_and_dead_letters_are_counted() -> None:
    observer, metrics = observing()
    observer.record_ended("fetch_changes", "applied", 0.5)
    observer.dead_letter("pms.webhooks", "bug")

    assert metrics.value("rentstream_records_total", flow="fetch_changes", verdict="applied") == 1
    assert metrics.value("rentstream_record_seconds_sum", flow="fetch_changes") == 0.5
    assert metrics.value("rentstream_dead_letters_total", origin="pms.webhooks", reason="bug") == 1


@pytest.mark.parametrize(
    ("answer", "label"), [(Accepted(200), "acknowledged"), (Unavailable("down", 503), "unavailable")]
)
def test_a_delivery_is_counted_and_only_an_acknowledged_one_is_fresh(answer: Accepted | Failure, label: str) -> None:
    observer, metrics = observing()
    observer.delivery_answered(batch(NOW - timedelta(seconds=3)), answer)
    observer.delivery_answered(batch(sink="deleted"), Rejected("no"))

    assert label in DELIVERY_OUTCOMES
    assert metrics.value("rentstream_batches_total", sink="rentsync", mode="snapshot", outcome=label) == 1
    assert metrics.value("rentstream_batches_total", sink="other", mode="snapshot", outcome="rejected") == 1
    fresh = metrics.value("rentstream_freshness_seconds_sum", stage="acknowledged")
    assert fresh == (3 if label == "acknowledged" else None)


def test_the_oldest_undelivered_change_is_that_of_all_owned_partitions() -> None:
    observer, metrics = observing()
    observer.oldest_undelivered("rentsync", 0, 90)
    observer.oldest_undelivered("rentsync", 1, 7)
    both = metrics.value("rentstream_oldest_undelivered_seconds", sink="rentsync")
    observer.partitions_assigned(frozenset({1}), 0.5)
    one = metrics.value("rentstream_oldest_undelivered_seconds", sink="rentsync")
    observer.partitions_assigned(frozenset(), 0.5)

    assert (both, one) == (90, 7)
    assert metrics.value("rentstream_oldest_undelivered_seconds", sink="rentsync") == 0


def test_doubts_are_summed_over_the_owned_partitions() -> None:
    observer, metrics = observing()
    observer.doubts_counted(0, {Doubt.OVERDUE_MOVE_OUT: 2})
    observer.doubts_counted(1, {Doubt.OVERDUE_MOVE_OUT: 3, Doubt.NO_TIME_ZONE: 1})
    both = metrics.value("rentstream_doubts", kind="overdue_move_out")
    observer.partitions_assigned(frozenset({0}), 0.5)

    assert both == 5
    assert metrics.value("rentstream_doubts", kind="overdue_move_out") == 2
    assert metrics.value("rentstream_doubts", kind="no_time_zone") == 0


def test_a_doubt_is_logged_when_it_appears_and_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    """As a warning if a person should correct something."""
    observer, _ = observing()
    caplog.set_level(logging.INFO)
    overdue = DoubtChange("default", "north", Doubt.OVERDUE_MOVE_OUT, True, 10, (1, 2))
    for change in (
        overdue,
        replace(overdue, appeared=False),
        replace(overdue, doubt=Doubt.AMBIGUOUS_DWELLING),
        DoubtChange("default", "north", Doubt.NO_TIME_ZONE, True),
    ):
        observer.doubt_changed(change)

    overdue_text, units = TEXTS[Doubt.OVERDUE_MOVE_OUT], "default/north property 10 (units 1, 2)"
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", f"{units}: {overdue_text}"),
        ("INFO", f"{units}: no longer: {overdue_text}"),
        ("INFO", f"{units}: {TEXTS[Doubt.AMBIGUOUS_DWELLING]}"),
        ("INFO", "default/north: has no time zone: its dates are read in UTC"),
    ]


def test_what_webhooks_missed_is_counted_and_what_was_held_back_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """By the system of the record's connection: a label is never the name of an integration."""
    observer, metrics = observing()
    page = Page(org="default", connection="north", kind=EntityKind.UNIT, seq=1, fetched_at=NOW)
    end = SweepEnd(
        org="default",
        connection="north",
        sweep="s",
        seq=1,
        started_at=NOW,
        ended_at=NOW,
        pages=(),
        entities=0,
    )
    with caplog.at_level(logging.INFO):
        observer.fold_counted("maintain_rent_roll", page, {"missed": 2})
        observer.fold_counted("maintain_rent_roll", end, {"held_back": 30})
        observer.fold_counted("maintain_rent_roll", end, {"held_back": 0})
        observer.fold_counted("emit_batches", PropertySnapshot(id=1, name="no page"), {"missed": 2, "held_back": 7})

    assert metrics.value("rentstream_webhook_misses_total", system="buildium") == 2
    held, ended = caplog.records
    assert (held.levelname, ended.levelname) == ("WARNING", "INFO")
    assert "30 entities of default/north no longer exist" in held.getMessage()
    assert "rentstream sync --confirm-removals" in held.getMessage()
    assert ended.getMessage() == "maintain_rent_roll: no removal of default/north waits any longer"


def test_a_dead_letter_that_became_void_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    observer, metrics = observing()
    due = DeliveryDue(org="default", connection="north", property_id=10, reason=DueReason.CHANGED, seen_at=NOW)
    with caplog.at_level(logging.INFO):
        observer.fold_counted("emit_batches", due, {"closed": 1})
        observer.fold_counted("emit_batches", due, {"superseded": 1})
    observer.dead_letters_open(0, {"rentsync": 2})
    observer.dead_letters_open(1, {"rentsync": 1})

    (message,) = caplog.messages
    assert message.startswith("emit_batches: a dead letter of property 10 of default/north is void: ")
    assert metrics.value("rentstream_open_dead_letters", sink="rentsync") == 3


def test_removals_that_wait_are_summed_over_the_owned_partitions() -> None:
    """By system; what another worker reports from now on is forgotten."""
    observer, metrics = observing()
    observer.removals_counted(0, {"buildium": 12})
    observer.removals_counted(1, {"buildium": 30})
    both = metrics.value("rentstream_held_removals", system="buildium")
    observer.partitions_assigned(frozenset({3}), 0.5)

    assert both == 42
    assert metrics.value("rentstream_held_removals", system="buildium") == 0


def test_holds_are_read_when_the_metrics_are() -> None:
    metrics, held = Metrics(), set[str]()
    show_holds(metrics, ("rentsync", "other"), lambda: held)
    before = metrics.value("rentstream_receiver_hold", sink="rentsync")
    held.add("rentsync")

    assert (before, metrics.value("rentstream_receiver_hold", sink="rentsync")) == (0, 1)
    assert metrics.value("rentstream_receiver_hold", sink="other") == 0


def test_the_time_of_scans_is_shown() -> None:
    observer, metrics = observing()
    observer.partition_scanned("watch_deliveries", 3, 1, 0.5)
    observer.partition_scanned("watch_deliveries", 4, 0, 0.25)
    assert metrics.value("rentstream_scan_seconds_sum", flow="watch_deliveries") == 0.75


def test_the_lag_of_standby_rows_is_shown() -> None:
    observer, metrics = observing()
    observer.standbys_measured(700)
    assert metrics.value("rentstream_standby_lag") == 700


def test_a_breaker_that_opens_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    observer, _ = observing()
    with caplog.at_level(logging.INFO):
        for state in ("open", "half_open", "closed"):
            observer.breaker_moved("org", "buildium", state)

    assert [(one.levelname, one.getMessage()) for one in caplog.records] == [
        ("WARNING", "buildium of org cannot be used: its records are held until a trial succeeds"),
        ("INFO", "buildium of org can be used again"),
    ]


class Outside:
    """A source and a receiver that take two seconds."""

    name = "rentsync"
    page_size = 100

    def __init__(self, clock: MovableClock) -> None:
        self.clock = clock
        self.closed = 0

    async def fetch(self, kind: EntityKind, entity: int, priority: Priority = Priority.WEBHOOK) -> Fetched | Failure:
        await self.clock.sleep(2)
        return Fetched((Gone(kind, entity),))

    async def page(self, kind: EntityKind, offset: int, priority: Priority = Priority.SWEEP) -> PageOf | Failure:
        await self.clock.sleep(2)
        return Throttled("slow")

    async def changed(
        self, kind: EntityKind, since: datetime, offset: int, priority: Priority = Priority.WEBHOOK
    ) -> PageOf | Failure:
        await self.clock.sleep(2)
        return PageOf((), 0, 0)

    async def all_of(
        self, kind: EntityKind, property_id: int, priority: Priority = Priority.WEBHOOK
    ) -> Fetched | Failure:
        await self.clock.sleep(2)
        return Fetched(())

    async def deliver(self, batch: Batch) -> Accepted | Failure:
        await self.clock.sleep(2)
        return Accepted(200)

    async def aclose(self) -> None:
        self.closed += 1


async def test_measured_ports_report_each_call_and_are_otherwise_the_port() -> None:
    clock, metrics = MovableClock(NOW), Metrics()
    observer: Observer = PrometheusObserver(metrics, clock, system_of)
    outside = Outside(clock)
    source, sink = MeasuredSource(outside, observer, clock), MeasuredSink(outside, observer, clock)

    calls = [
        asyncio.create_task(source.fetch(EntityKind.UNIT, 1)),
        asyncio.create_task(source.page(EntityKind.UNIT, 0)),
        asyncio.create_task(source.changed(EntityKind.UNIT, NOW, 0)),
        asyncio.create_task(source.all_of(EntityKind.LEASE, 1)),
        asyncio.create_task(sink.deliver(batch())),
    ]
    await clock.advance(2)
    answers = [call.result() for call in calls]
    await source.aclose()
    await sink.aclose()

    assert answers == [Fetched((GONE,)), Throttled("slow"), PageOf((), 0, 0), Fetched(()), Accepted(200)]
    assert (source.page_size, sink.name, outside.closed) == (100, "rentsync", 2)
    for port, label in (("PropertySource", "gone"), ("PropertySource", "throttled"), ("ListingSink", "ok")):
        assert metrics.value("rentstream_calls_total", port=port, outcome=label) == 1
    assert metrics.value("rentstream_call_seconds_sum", port="PropertySource") == 8
