"""The rent roll ends in the last truth, whatever order the replies come in and however often."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.base import EntityKind
from schemas.codec import decode, encode
from schemas.delivery import DeliveryDue, DueReason
from schemas.pms import FetchOrigin, FetchRequest
from schemas.rent_roll import (
    LeaseSnapshot,
    LeaseStatus,
    LeaseTenant,
    ListingSnapshot,
    Page,
    PageItem,
    PropertyRow,
    PropertySnapshot,
    SweepEnd,
    TenantStatus,
    UnitRow,
    UnitSnapshot,
)
from streams.core.flows import Disposition, FoldResult
from streams.core.rent_roll import STAGES, apply, item_of, scope, unit_key
from streams.core.rows import Rows
from tests.streams.core.views import MemoryView

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
AT = scope("default", "buildium")


def unit(number: int = 1, property_id: int = 10, rent: int = 1500, **more: Any) -> UnitSnapshot:
    return UnitSnapshot(id=number, property_id=property_id, code=f"{number}", market_rent=Decimal(rent), **more)


def building(number: int = 10, name: str = "Sunset Apartments") -> PropertySnapshot:
    return PropertySnapshot(id=number, name=name)


def lease(number: int = 100, unit_id: int = 1, status: LeaseStatus = LeaseStatus.ACTIVE, **more: Any) -> LeaseSnapshot:
    return LeaseSnapshot(
        id=number,
        property_id=10,
        unit_id=unit_id,
        starts_on=date(2026, 1, 1),
        status=status,
        tenants=(LeaseTenant(id=7, status=TenantStatus.CURRENT),),
        **more,
    )


def page(kind: EntityKind, seq: int, *snapshots: Any, gone: tuple[int, ...] = (), sweep: str | None = None) -> Page:
    items = [item_of(one) for one in snapshots]
    return Page(
        org="default",
        connection="buildium",
        kind=kind,
        seq=seq,
        fetched_at=NOW + timedelta(microseconds=seq),
        sweep=sweep,
        items=(*items, *(PageItem(id=number) for number in gone)),
    )


def fold(view: MemoryView, *said: Page | SweepEnd) -> list[FoldResult]:
    applied = []
    for one in said:
        rows = Rows(view)
        applied.append(apply(rows, one, NOW))
        view.take(rows)
    return applied


def end(*pages: int, sweep: str = "s1", seq: int = 1, torn: bool = False) -> SweepEnd:
    return SweepEnd(
        org="default",
        connection="buildium",
        sweep=sweep,
        seq=seq,
        started_at=NOW + timedelta(microseconds=seq),
        ended_at=NOW + timedelta(microseconds=seq),
        pages=pages,
        entities=0,
        torn=torn,
    )


def swept(view: MemoryView | None = None) -> MemoryView:
    """A roll whose first sweep is over, with a building and a unit."""
    view = MemoryView() if view is None else view
    fold(
        view,
        page(EntityKind.PROPERTY, 2, building(), sweep="s1"),
        page(EntityKind.UNIT, 3, unit(), sweep="s1"),
        page(EntityKind.LEASE, 4, sweep="s1"),
        page(EntityKind.LISTING, 5, sweep="s1"),
        end(1, 1, 1, 1),
    )
    return view


def unit_row(view: MemoryView, number: int = 1) -> UnitRow:
    row = decode(view[unit_key(AT, number)])
    assert isinstance(row, UnitRow)
    return row


def dues(applied: FoldResult) -> set[int]:
    return {emit.record.property_id for emit in applied.emits if isinstance(emit.record, DeliveryDue)}


def asks(applied: FoldResult) -> set[tuple[EntityKind, int | None]]:
    return {(emit.record.kind, emit.record.entity) for emit in applied.emits if isinstance(emit.record, FetchRequest)}


def test_a_change_marks_its_property() -> None:
    """What changed is due, with the moment at which it was first heard of."""
    view = swept()

    (applied,) = fold(view, page(EntityKind.UNIT, 10, unit(rent=1600)))

    assert applied.verdict is Disposition.APPLIED
    assert dues(applied) == {10}
    assert unit_row(view).body == encode(unit(rent=1600))


def test_nothing_is_offered_before_the_first_sweep_is_complete() -> None:
    """Half an account would tell receivers that let units are free."""
    view = MemoryView()
    applied = fold(
        view, page(EntityKind.PROPERTY, 2, building(), sweep="s1"), page(EntityKind.UNIT, 3, unit(), sweep="s1")
    )
    assert not any(dues(one) for one in applied)

    *_, last = fold(
        view, page(EntityKind.LEASE, 4, sweep="s1"), page(EntityKind.LISTING, 5, sweep="s1"), end(1, 1, 1, 1)
    )

    assert dues(last) == {10}
    assert {emit.record.reason for emit in last.emits if isinstance(emit.record, DeliveryDue)} == {DueReason.SWEPT}


def test_an_older_reply_is_refused() -> None:
    """The sequence of our own fetch decides, not the order of arrival."""
    view = swept()
    fold(view, page(EntityKind.UNIT, 20, unit(rent=1700)))

    (applied,) = fold(view, page(EntityKind.UNIT, 19, unit(rent=1600)))

    assert applied.verdict is Disposition.IGNORED
    assert unit_row(view).body == encode(unit(rent=1700))


def test_the_same_reply_again_says_again_what_it_said() -> None:
    """The first time may have died between the table and the topic."""
    view = swept()
    change = page(EntityKind.UNIT, 20, unit(rent=1700))
    (first,) = fold(view, change)

    (again,) = fold(view, change)

    assert again.verdict is Disposition.DUPLICATE
    assert dues(again) == dues(first) == {10}


def test_a_page_of_a_sweep_that_died_before_it_was_heard_says_it_again() -> None:
    """Also when a later page of the sweep was folded in the same breath."""
    view = swept()
    changed = page(EntityKind.UNIT, 30, unit(rent=1700), sweep="s2")
    later = page(EntityKind.UNIT, 31, unit(2), sweep="s2").model_copy(update={"number": 1})
    fold(view, changed, later)

    first, second = fold(view, changed, later)

    assert dues(first) == dues(second) == {10}


def test_an_unchanged_row_of_a_sweep_is_not_written() -> None:
    """A sweep that finds nothing new costs its marks only."""
    view = swept()
    before = dict(view)

    (applied,) = fold(view, page(EntityKind.UNIT, 30, unit(), sweep="s2"))

    assert not applied.emits
    assert {key for key in view if view[key] != before.get(key)} == {AT + b"s/unit/000000", AT + b"w/unit"}


def test_a_lease_that_moves_leaves_the_unit_that_it_stood_at() -> None:
    """Both properties are due, and the PMS is asked for the occupancy of both units."""
    view = swept()
    fold(view, page(EntityKind.UNIT, 10, unit(2)), page(EntityKind.LEASE, 11, lease(unit_id=1)))
    assert [entry.id for entry in unit_row(view, 1).leases] == [100]

    moved = page(EntityKind.LEASE, 12, lease(unit_id=2))
    applied, again = fold(view, moved, moved)

    assert unit_row(view, 1).leases == ()
    assert [entry.id for entry in unit_row(view, 2).leases] == [100]
    assert asks(applied) == {(EntityKind.UNIT, 1), (EntityKind.UNIT, 2)}
    assert dues(applied) == dues(again) == {10}


def test_a_lease_that_is_over_leaves_its_unit() -> None:
    view = swept()
    fold(view, page(EntityKind.LEASE, 11, lease()))
    fold(view, page(EntityKind.LEASE, 12, lease(status=LeaseStatus.PAST)))
    assert unit_row(view).leases == ()


def test_what_a_complete_sweep_missed_is_asked_for_and_not_removed() -> None:
    """Only a 404 removes."""
    view = swept()
    fold(view, page(EntityKind.LEASE, 6, lease()), page(EntityKind.LISTING, 6, ListingSnapshot(unit_id=1)))

    *_, last = fold(
        view,
        *(page(stage, 10 + at, sweep="s2") for at, stage in enumerate(STAGES)),
        end(1, 1, 1, 1, sweep="s2", seq=9),
    )

    assert asks(last) == {
        (EntityKind.PROPERTY, 10),
        (EntityKind.UNIT, 1),
        (EntityKind.LEASE, 100),
        (EntityKind.LISTING, 1),
    }
    assert {emit.record.origin for emit in last.emits if isinstance(emit.record, FetchRequest)} == {FetchOrigin.SWEEP}
    assert not unit_row(view).gone

    (gone,) = fold(view, page(EntityKind.UNIT, 20, gone=(1,)))
    assert unit_row(view).gone
    assert dues(gone) == {10}


def test_a_sweep_with_a_page_missing_or_over_a_moving_account_removes_nothing() -> None:
    view = swept()
    first_three = [page(stage, 10 + at, sweep="s2") for at, stage in enumerate(STAGES[:3])]
    *_, incomplete = fold(view, *first_three, end(1, 1, 1, 1, sweep="s2", seq=9))
    assert incomplete.verdict is Disposition.IGNORED
    *_, torn = fold(view, page(EntityKind.LISTING, 15, sweep="s2"), end(1, 1, 1, 1, sweep="s2", seq=9, torn=True))
    assert torn.verdict is Disposition.APPLIED
    assert not asks(torn)


def test_a_mass_removal_is_held_back() -> None:
    """A PMS that answers an empty list must not empty the market."""
    view = swept()
    fold(view, page(EntityKind.UNIT, 6, *(unit(number) for number in range(1, 41))))

    *_, last = fold(
        view,
        page(EntityKind.PROPERTY, 10, building(), sweep="s2"),
        *(page(stage, 11 + at, sweep="s2") for at, stage in enumerate(STAGES[1:])),
        end(1, 1, 1, 1, sweep="s2", seq=9),
    )

    assert last.counts == {"held_back": 40}
    assert not asks(last)


def test_a_unit_of_a_property_that_was_never_seen_asks_for_it() -> None:
    (applied,) = fold(swept(), page(EntityKind.UNIT, 10, unit(5, property_id=77)))
    assert (EntityKind.PROPERTY, 77) in asks(applied)


def test_a_record_dropped_leaves_no_trace() -> None:
    """What a poison record wrote before it failed does not count."""
    rows = Rows(MemoryView())
    apply(rows, page(EntityKind.UNIT, 10, unit()), NOW)
    rows.drop()
    assert rows.encoded() == {}


# ---------------------------------------------------------------------------------------------------------- the laws


@dataclass
class Pms:
    """A small account with a history, and the replies that fetches at random moments brought of it."""

    rng: random.Random
    seq: int = 10
    units: dict[int, UnitSnapshot | None] = field(default_factory=dict)
    leases: dict[int, LeaseSnapshot | None] = field(default_factory=dict)
    listings: dict[int, ListingSnapshot | None] = field(default_factory=dict)
    properties: dict[int, PropertySnapshot | None] = field(default_factory=dict)

    def shelf(self, kind: EntityKind) -> dict[int, Any]:
        shelves: dict[EntityKind, dict[int, Any]] = {
            EntityKind.UNIT: self.units,
            EntityKind.LEASE: self.leases,
            EntityKind.LISTING: self.listings,
            EntityKind.PROPERTY: self.properties,
        }
        return shelves[kind]

    def change(self) -> tuple[EntityKind, int]:
        """Something happens: few values, so that states come back (A, B, A)."""
        pick = self.rng.randrange
        kind = self.rng.choice(STAGES)
        number, value = pick(1, 4), pick(3)
        match kind:
            case EntityKind.UNIT:
                self.units[number] = (
                    None if value == 2 else unit(number, property_id=10 + number % 2, rent=1000 + value)
                )
            case EntityKind.LEASE:
                status = self.rng.choice([LeaseStatus.ACTIVE, LeaseStatus.PAST])
                self.leases[number] = None if value == 2 else lease(number, unit_id=1 + value, status=status)
            case EntityKind.LISTING:
                self.listings[number] = (
                    None if value == 2 else ListingSnapshot(unit_id=number, rent=Decimal(900 + value))
                )
            case _:
                number = 10 + number % 2
                self.properties[number] = building(number, name=f"name {value}")
        return kind, number

    def reply(self, kind: EntityKind, *numbers: int, sweep: str | None = None) -> Page:
        self.seq += 1
        found = [self.shelf(kind).get(number) for number in numbers]
        gone = tuple(number for number, one in zip(numbers, found, strict=True) if one is None and sweep is None)
        return page(kind, self.seq, *(one for one in found if one is not None), gone=gone, sweep=sweep)


def normal(view: MemoryView) -> dict[bytes, Any]:
    """What the rows say, without when and how they came to say it."""
    said: dict[bytes, Any] = {}
    for key, raw in view.items():
        row = decode(raw)
        if isinstance(row, UnitRow):
            leases = tuple((entry.id, entry.body) for entry in row.leases)
            alive = not row.gone and row.body is not None
            if alive or leases or row.listing:
                said[key] = (alive, row.body if alive else None, row.listing, leases)
        elif isinstance(row, PropertyRow) and row.body is not None:
            said[key] = (row.gone, row.body)
    return said


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), st.integers(1, 14), st.booleans())
def test_any_order_and_any_number_of_replies_end_in_the_last_truth(seed: int, changes: int, sweeping: bool) -> None:
    """Stale, doubled and shuffled replies, single ones and pages of sweeps: the roll is what the PMS is."""
    rng = random.Random(seed)
    pms = Pms(rng)
    replies: list[Page] = []
    for _ in range(changes):
        changed = pms.change()
        if rng.random() < 0.5:
            kind = rng.choice(STAGES)
            number = rng.randrange(1, 4) if kind is not EntityKind.PROPERTY else 10 + rng.randrange(2)
            replies.append(pms.reply(kind, number))
        if sweeping and rng.random() < 0.6:
            kind = rng.choice(STAGES)
            some = [number for number in sorted(pms.shelf(kind)) if rng.random() < 0.7]
            replies.append(pms.reply(kind, *some, sweep="s9"))
        if not (sweeping and pms.shelf(changed[0])[changed[1]] is not None and rng.random() < 0.5):
            replies.append(pms.reply(*changed))  # what the webhook of the change brings, unless it was lost
    if sweeping:
        replies += [pms.reply(kind, *sorted(pms.shelf(kind)), sweep="s10") for kind in STAGES]
    replies += [rng.choice(replies) for _ in range(rng.randrange(4))]
    rng.shuffle(replies)

    view = MemoryView()
    waiting = list(replies)
    for _ in range(200):
        if not waiting:
            break
        for ask in asks(fold(view, waiting.pop(0))[0]):
            assert ask[1] is not None
            waiting.append(pms.reply(ask[0], ask[1]))
    assert not waiting

    truth = MemoryView()
    queue = [pms.reply(kind, number) for kind in STAGES for number in pms.shelf(kind)]
    while queue:
        for ask in asks(fold(truth, queue.pop(0))[0]):
            assert ask[1] is not None
            if pms.shelf(ask[0]).get(ask[1]) is not None:
                queue.append(pms.reply(ask[0], ask[1]))
    assert normal(view) == normal(truth)
