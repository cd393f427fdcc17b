"""Tests of the timelines."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from schemas.base import EntityKind, Model
from schemas.commands import Command, CommandAction, Push, PushOutcome, PushResult, SyncEntity
from schemas.delivery import (
    Batch,
    BatchMode,
    DeliveryDue,
    DeliveryOutcome,
    DeliveryResult,
    DueReason,
    OfferedProperty,
    OfferedUnit,
    UnitState,
)
from schemas.pms import FetchOrigin, FetchRequest
from schemas.rent_roll import (
    LeaseSnapshot,
    LeaseStatus,
    ListingSnapshot,
    Page,
    PageItem,
    PropertySnapshot,
    SweepEnd,
    UnitSnapshot,
)
from streams.core.rent_roll import item_of
from streams.core.timeline import Subject, SubjectKind, Timeline, subject_of

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
OF: dict[str, Any] = {"org": "o", "connection": "c"}


class Recorded:
    """A timeline whose records are one second apart."""

    def __init__(self, subject: str) -> None:
        self.timeline = Timeline(subject_of(subject))
        self.count = 0

    def add(self, *values: Model, context: str = "") -> "Recorded":
        for value in values:
            self.count += 1
            self.timeline.add("t", NOW + timedelta(seconds=self.count), value, context)
        return self

    @property
    def texts(self) -> list[str]:
        return [one.text for one in self.timeline.ordered()]


def page(kind: EntityKind, *snapshots: Any) -> Page:
    return Page(**OF, kind=kind, seq=1, fetched_at=NOW, items=tuple(item_of(one) for one in snapshots))


def unit(number: int = 7, rent: int = 1500, home: int = 10) -> UnitSnapshot:
    return UnitSnapshot(id=number, property_id=home, code="101", market_rent=Decimal(rent))


def batch(*units: int, rent: int = 1500, version: int = 1, home: int = 10) -> Batch:
    offered = tuple(
        OfferedUnit(
            id=one,
            code="101",
            state=UnitState.AVAILABLE,
            status="vacant_unrented_ready",
            is_available=True,
            when_available="Immediate",
            base_rent=Decimal(rent),
        )
        for one in units
    )
    return Batch(
        **OF,
        sink="rentsync",
        batch_id="b",
        sync_id=f"sync-{version}",
        cut_at=NOW,
        seen_at=NOW,
        version=version,
        mode=BatchMode.DELTA,
        property=OfferedProperty(id=home, name="House", address="", is_active=True),
        units=offered,
    )


def outcome(result: DeliveryResult = DeliveryResult.ACKNOWLEDGED, version: int = 1, **more: Any) -> DeliveryOutcome:
    given: dict[str, Any] = {
        "sink": "rentsync",
        "property_id": 10,
        "version": version,
        "result": result,
        "attempt": 1,
        "at": NOW,
    }
    return DeliveryOutcome(**OF, **given | {"status": 200} | more)


def due(*units: int, home: int = 10, **more: Any) -> DeliveryDue:
    named = units or None
    return DeliveryDue(**OF, property_id=home, reason=DueReason.CHANGED, seen_at=NOW, units=named, **more)


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("unit:100104", Subject(SubjectKind.UNIT, "100104")),
        ("property/1001", Subject(SubjectKind.PROPERTY, "1001")),
        ("0f4e9f5a-6c0f-4a4e-8f2f-0d7f2a1c9b57", Subject(SubjectKind.OURS, "0f4e9f5a-6c0f-4a4e-8f2f-0d7f2a1c9b57")),
    ],
)
def test_a_subject_is_named(text: str, subject: Subject) -> None:
    assert subject_of(text) == subject


@pytest.mark.parametrize("text", ["100104", "unit:", "unit:x", "lease:5", "a b", ""])
def test_anything_else_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="unit:ID, property:ID"):
        subject_of(text)


def test_the_timeline_of_a_unit_from_the_webhook_to_the_acknowledgement() -> None:
    webhook = FetchRequest(
        **OF,
        origin=FetchOrigin.WEBHOOK,
        event="RentalUnit.Updated",
        kind=EntityKind.UNIT,
        entity=7,
        occurred_at=NOW - timedelta(seconds=2),
        received_at=NOW,
    )
    recorded = Recorded("unit:7").add(
        page(EntityKind.UNIT, unit(), unit(8)),
        webhook,
        page(EntityKind.UNIT, unit(rent=1600)),
        due(7),
        batch(7, 8),
        outcome(),
        batch(7, rent=1600, version=2),
        outcome(version=2),
    )
    first = "state available, status vacant_unrented_ready, available True, from Immediate, rent 1500"
    assert recorded.texts == [
        "unit read for the first time in this period: code 101, market_rent 1500.00",
        "webhook RentalUnit.Updated arrived, 2.0 s after the change",
        "unit changed: market_rent 1500.00 → 1600.00",
        "due: changed",
        f"delta sync-1 cut for rentsync, attempt 1: {first}",
        "acknowledged by rentsync (200)",
        "delta sync-2 cut for rentsync, attempt 1: rent 1500 → 1600",
        "acknowledged by rentsync (200)",
    ]


def test_what_is_about_other_units_is_left_out() -> None:
    recorded = Recorded("unit:7").add(
        page(EntityKind.UNIT, unit(8)),
        page(EntityKind.UNIT, unit()),
        page(EntityKind.UNIT, unit()),
        due(8),
        due(7, home=11),
        batch(8),
        outcome(),
        batch(7, home=11),
        page(EntityKind.LEASE, LeaseSnapshot(id=1, property_id=10, unit_id=8, status=LeaseStatus.ACTIVE)),
        SweepEnd(**OF, sweep="s", seq=1, started_at=NOW, ended_at=NOW, pages=(), entities=1),
    )
    assert len(recorded.texts) == 1


def test_leases_and_the_listing_of_a_unit_belong_to_it() -> None:
    lease = LeaseSnapshot(id=5, property_id=10, unit_id=7, status=LeaseStatus.ACTIVE)
    moved = LeaseSnapshot(id=5, property_id=10, unit_id=8, status=LeaseStatus.ACTIVE)
    gone = Page(**OF, kind=EntityKind.LISTING, seq=1, fetched_at=NOW, items=(PageItem(id=7),))
    recorded = Recorded("unit:7").add(
        page(EntityKind.LEASE, lease),
        page(EntityKind.LEASE, moved),
        page(EntityKind.LISTING, ListingSnapshot(unit_id=7, rent=Decimal(1500))),
        gone,
        gone,
    )
    assert [text.split(":")[0] for text in recorded.texts] == [
        "lease 5 read for the first time in this period",
        "lease 5 changed",
        "listing read for the first time in this period",
        "listing does not exist in the PMS",
    ]


def test_a_delivery_that_waits_says_why_and_until_when() -> None:
    waits = outcome(DeliveryResult.WAITING, detail="503", due_at=NOW + timedelta(minutes=1))
    recorded = Recorded("unit:7").add(
        page(EntityKind.UNIT, unit()),
        batch(7),
        waits,
        due(sink="rentsync", attempt=1),
        due(sink="rentsync", attempt=1, held=True),
    )
    assert recorded.texts[2:] == [
        "rentsync: waiting, attempt 1: 503; the next attempt is due at 12:01:00",
        "due for rentsync: changed, attempt 1 failed",
        "due for rentsync: changed, attempt 1 was held",
    ]


def test_the_timeline_of_a_property() -> None:
    recorded = Recorded("property:10").add(
        page(EntityKind.PROPERTY, PropertySnapshot(id=10, name="House"), PropertySnapshot(id=11, name="Other")),
        page(EntityKind.PROPERTY, PropertySnapshot(id=10, name="Home")),
        page(EntityKind.UNIT, unit(10)),
        due(8),
        batch(7, 8),
        outcome(),
    )
    assert recorded.texts[1:] == [
        "property changed: name House → Home",
        "due: changed",
        "delta sync-1 cut for rentsync, attempt 1: 2 units",
        "acknowledged by rentsync (200)",
    ]


def operation(own_id: str = "p1", operation: str = "op1") -> list[Model]:
    given: dict[str, Any] = {**OF, "operation": operation, "entity": SyncEntity.PROPERTY, "id": own_id}
    result: dict[str, Any] = {**given, "version": 1, "attempt": 1, "at": NOW}
    return [
        Command(**given, action=CommandAction.CREATE, at=NOW),
        Push(**given, version=1, attempt=1, since=NOW),
        PushOutcome(
            **result, result=PushResult.WAITING, code="unavailable", detail="503", due_at=NOW + timedelta(minutes=1)
        ),
        Command(**given, action=CommandAction.RETRY, at=NOW, version=1, attempt=1),
        Push(**given, version=2, attempt=2, since=NOW, pms_id=9),
        PushOutcome(**result, result=PushResult.DONE, pms_id=9),
    ]


@pytest.mark.parametrize("subject", ["p1", "op1"])
def test_the_timeline_of_an_operation(subject: str) -> None:
    recorded = Recorded(subject).add(
        *operation(), *operation("p2", "op2"), page(EntityKind.UNIT, unit()), due(7), batch(7)
    )
    assert recorded.texts == [
        "property p1: create accepted as operation op1",
        "property p1: to be created in the PMS, attempt 1",
        "property p1: waiting, attempt 1: unavailable: 503; the next attempt is due at 12:01:00",
        "property p1: to be tried again, attempt 1",
        "property p1: to be changed as 9 in the PMS, attempt 2",
        "property p1: the PMS has it as 9",
    ]


def test_a_timeline_has_the_current_state() -> None:
    recorded = Recorded("unit:7").add(page(EntityKind.UNIT, unit()), batch(7), batch(7, version=2), outcome())
    assert recorded.timeline.current() == ["rentsync, property 10: sync-2 has no answer yet"]
    recorded.add(outcome(DeliveryResult.DEAD, version=2, detail="422"))
    assert recorded.timeline.current() == ["rentsync, property 10: dead, attempt 1: 422"]
    recorded.add(batch(7, version=3), outcome(version=3))
    (current,) = recorded.timeline.current()
    assert current == "rentsync, property 10: knows what was sent last, since 2026-03-01 12:00:00Z"
    assert Recorded("p1").add(*operation()).timeline.current() == ["property p1: no answer of the PMS yet"]


def test_the_context_of_a_record_comes_first_and_time_orders_all() -> None:
    recorded = Recorded("p1").add(*operation()[1:2], context="dead letter of pms.pushes, exhausted: 503")
    recorded.timeline.add("t", NOW, operation()[0])
    assert recorded.texts == [
        "property p1: create accepted as operation op1",
        "dead letter of pms.pushes, exhausted: 503: property p1: to be created in the PMS, attempt 1",
    ]
