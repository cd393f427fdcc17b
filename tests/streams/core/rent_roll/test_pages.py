"""Pages of snapshots: the rows end in the latest state, in whatever order replies come and however often."""

import random
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas import topics
from schemas.base import EntityKind
from schemas.codec import DecodeError, decode, decode_as, encode
from schemas.delivery import DeliveryDue, DueReason
from schemas.rent_roll import (
    LeaseSnapshot,
    LeaseStatus,
    ListingSnapshot,
    Page,
    PageItem,
    PropertyRow,
    PropertySnapshot,
    PropertyType,
    SeenRow,
    UnitRow,
    UnitSnapshot,
)
from streams.core.due import merge
from streams.core.flows import Disposition, FoldResult, RowsDamaged
from streams.core.rent_roll import STAGES, apply, item_of
from streams.core.rows import Rows
from tests.streams.core.rent_roll.rolls import (
    PREFIX,
    building,
    dues,
    fold,
    lease,
    page,
    refetches,
    swept,
    unit,
    unit_row,
)
from tests.streams.core.views import MemoryView


def test_a_change_marks_its_property_as_due() -> None:
    view = swept()

    (result,) = fold(view, page(EntityKind.UNIT, 10, unit(rent=1600)))

    assert result.verdict is Disposition.APPLIED
    assert dues(result) == {10}
    assert unit_row(view).body == encode(unit(rent=1600))


def changes(result: FoldResult) -> list[tuple[tuple[int, ...] | None, int, int]]:
    """Return units, mark and mark before of each record that waits for the linger."""
    found = [one.record for one in result.emits if one.topic is topics.LINGERING]
    return [(one.units, one.mark, one.after) for one in found if isinstance(one, DeliveryDue)]


def withdrawals(result: FoldResult) -> list[tuple[int, ...] | None]:
    """Return the units of each record of what may have become unavailable."""
    found = [one.record for one in result.emits if one.topic is topics.DUE]
    return [one.units for one in found if isinstance(one, DeliveryDue) and one.reason is DueReason.WITHDRAWN]


def test_a_mark_names_the_units_that_changed_and_the_mark_before() -> None:
    """One for each property of a page; those of one batch become one record."""
    view = swept()
    fold(view, page(EntityKind.UNIT, 9, unit(2), unit(3, property_id=11)))
    first, second, whole = fold(
        view,
        page(EntityKind.UNIT, 20, unit(1, rent=1600), unit(2, rent=1600), unit(3, property_id=11, rent=1600)),
        page(EntityKind.LEASE, 21, lease(unit_id=2)),
        page(EntityKind.PROPERTY, 22, building(name="Sunrise Apartments")),
    )

    assert changes(first) == [((1, 2), 20, 9), ((3,), 20, 9)]
    assert changes(second) == [((2,), 21, 20)]
    assert changes(whole) == [(None, 22, 21)]
    (one, other) = [next(emit for emit in found.emits if emit.topic is topics.LINGERING) for found in (first, second)]
    assert (one.once, one.merge) == (other.once, other.merge) == (("due", "buildium", 10), merge)


def test_a_unit_that_moves_to_another_property_is_due_at_both() -> None:
    view = swept()
    (moved,) = fold(view, page(EntityKind.UNIT, 20, unit(1, property_id=11)))

    assert sorted(changes(moved)) == [((1,), 20, 0), ((1,), 20, 0)]


@pytest.mark.parametrize(
    ("changed", "units"),
    [
        (page(EntityKind.UNIT, 20, gone=(1,)), [(1,)]),
        (page(EntityKind.UNIT, 20, unit(rent=1600)), []),
        (page(EntityKind.LEASE, 20, lease()), [(1,)]),
        (page(EntityKind.LEASE, 20, lease(status=LeaseStatus.PAST)), []),
        (page(EntityKind.LISTING, 20, ListingSnapshot(unit_id=1, property_id=10, rent=Decimal(1700))), []),
        (page(EntityKind.PROPERTY, 20, building(name="Sunrise Apartments")), []),
        (page(EntityKind.PROPERTY, 20, building().model_copy(update={"is_active": False})), [None]),
        (page(EntityKind.PROPERTY, 20, building().model_copy(update={"type": PropertyType.COMMERCIAL})), [None]),
        (page(EntityKind.PROPERTY, 20, gone=(10,)), [None]),
    ],
)
def test_what_may_have_become_unavailable_is_due_at_once(changed: Page, units: list[tuple[int, ...] | None]) -> None:
    (result,) = fold(swept(), changed)

    assert withdrawals(result) == units
    assert len(changes(result)) == (changed.kind is not EntityKind.LEASE or bool(units))


def test_a_listing_that_ends_may_make_a_unit_unavailable() -> None:
    """Where only listed units are offered."""
    view = swept()
    _, ended = fold(
        view,
        page(EntityKind.LISTING, 20, ListingSnapshot(unit_id=1, property_id=10)),
        page(EntityKind.LISTING, 21, gone=(1,)),
    )

    assert withdrawals(ended) == [(1,)]


def test_an_older_reply_is_refused() -> None:
    """The fetch sequence decides, not the order of arrival."""
    view = swept()
    fold(view, page(EntityKind.UNIT, 20, unit(rent=1700)))

    (result,) = fold(view, page(EntityKind.UNIT, 19, unit(rent=1600)))

    assert result.verdict is Disposition.IGNORED
    assert unit_row(view).body == encode(unit(rent=1700))


def test_the_same_reply_again_repeats_what_it_emitted() -> None:
    """A crash may have come between the write of the rows and that of the emitted records."""
    view = swept()
    change = page(EntityKind.UNIT, 20, unit(rent=1700))
    (first,) = fold(view, change)

    (again,) = fold(view, change)

    assert again.verdict is Disposition.DUPLICATE
    assert dues(again) == dues(first) == {10}


def test_the_same_page_of_a_sweep_again_repeats_what_it_emitted() -> None:
    """Also when a later page of the sweep was folded since."""
    view = swept()
    changed = page(EntityKind.UNIT, 30, unit(rent=1700), sweep="s2")
    later = page(EntityKind.UNIT, 31, unit(2), sweep="s2").model_copy(update={"number": 1})
    fold(view, changed, later)

    first, second = fold(view, changed, later)

    assert dues(first) == dues(second) == {10}


def test_an_unchanged_row_of_a_sweep_is_not_written() -> None:
    """A sweep that finds nothing new writes its own marks only."""
    view = swept()
    before = dict(view)

    (result,) = fold(view, page(EntityKind.UNIT, 30, unit(), sweep="s2"))

    assert not result.emits
    assert {key for key in view if view[key] != before.get(key)} == {PREFIX + b"s/unit/000000", PREFIX + b"w/unit"}


def test_a_lease_that_moves_is_removed_from_its_former_unit() -> None:
    """Both units are fetched again for their occupancy."""
    view = swept()
    fold(view, page(EntityKind.UNIT, 10, unit(2)), page(EntityKind.LEASE, 11, lease(unit_id=1)))
    assert [entry.id for entry in unit_row(view, 1).leases] == [100]

    moved = page(EntityKind.LEASE, 12, lease(unit_id=2))
    result, again = fold(view, moved, moved)

    assert unit_row(view, 1).leases == ()
    assert [entry.id for entry in unit_row(view, 2).leases] == [100]
    assert refetches(result) == {(EntityKind.UNIT, 1), (EntityKind.UNIT, 2)}
    assert dues(result) == dues(again) == {10}


def test_a_past_lease_is_removed_from_its_unit() -> None:
    view = swept()
    fold(view, page(EntityKind.LEASE, 11, lease()))
    fold(view, page(EntityKind.LEASE, 12, lease(status=LeaseStatus.PAST)))
    assert unit_row(view).leases == ()


def test_a_dropped_record_writes_nothing() -> None:
    """What a poison record wrote before it failed does not count."""
    rows = Rows(MemoryView())
    apply(rows, page(EntityKind.UNIT, 10, unit()))
    rows.drop()
    assert rows.encoded() == {}


def test_a_page_of_another_kind_or_with_a_damaged_body_is_refused() -> None:
    with pytest.raises(ValueError, match="a page of tenant is not part of a rent roll"):
        fold(swept(), page(EntityKind.TENANT, 10))
    damaged = page(EntityKind.PROPERTY, 10).model_copy(update={"items": (PageItem(id=10, body=b"no record"),)})
    with pytest.raises(DecodeError):
        fold(swept(), damaged)


def damaged(number: int) -> PageItem:
    return PageItem(id=number, body=b"damaged")


@pytest.mark.parametrize("sweep", [None, "s2"])
def test_an_entity_that_cannot_be_folded_is_left_out_and_the_others_are_folded(sweep: str | None) -> None:
    """It is reported as a page of its own; nothing of it is written, and the sweep has seen it."""
    whole = page(EntityKind.UNIT, 30, unit(1, rent=1700), unit(3), sweep=sweep)
    broken = whole.model_copy(update={"items": (whole.items[0], damaged(2), whole.items[1])})
    left_out = whole.model_copy(update={"items": (damaged(2),), "sweep": None})
    view, expected = swept(), swept()
    (result,) = fold(view, broken)
    (without,) = fold(expected, whole)

    assert [part for part, _ in result.failed] == [left_out]
    assert isinstance(result.failed[0][1], DecodeError)
    assert replace(result, failed=()) == without
    seen = PREFIX + b"s/unit/000000"
    assert {key: row for key, row in view.items() if key != seen} == {
        key: row for key, row in expected.items() if key != seen
    }
    if sweep:
        assert decode_as(SeenRow, view[seen]).ids == (1, 2, 3)


def test_a_page_of_which_nothing_can_be_folded_is_refused() -> None:
    broken = page(EntityKind.UNIT, 30).model_copy(update={"items": (damaged(1), damaged(2))})
    view = swept()
    before = dict(view)
    with pytest.raises(DecodeError):
        fold(view, broken)

    assert view == before


def test_rows_that_cannot_be_read_are_no_fault_of_an_entity() -> None:
    class Rotten(MemoryView):
        def get(self, key: bytes, default: object = None) -> Any:
            if key.endswith(b"000000000002"):
                raise RowsDamaged("a block is damaged")
            return super().get(key, default)

    with pytest.raises(RowsDamaged):
        fold(Rotten(swept()), page(EntityKind.UNIT, 30, unit(1, rent=1700), unit(2)))


def test_the_item_of_a_listing_has_the_id_of_its_unit() -> None:
    listing = ListingSnapshot(unit_id=3, property_id=10)
    assert item_of(listing) == PageItem(id=3, body=encode(listing), parent=10)
    assert item_of(unit(3)) == PageItem(id=3, body=encode(unit(3)), parent=10)
    assert item_of(building()) == PageItem(id=10, body=encode(building()))
    assert item_of(lease()) == PageItem(id=100, body=encode(lease()))


# ---------------------------------------------------------------------------------------------------------- the laws


@dataclass
class Pms:
    """A small account that changes, and the replies of fetches at random moments."""

    rng: random.Random
    seq: int = 10
    units: dict[int, UnitSnapshot | None] = field(default_factory=dict)
    leases: dict[int, LeaseSnapshot | None] = field(default_factory=dict)
    listings: dict[int, ListingSnapshot | None] = field(default_factory=dict)
    properties: dict[int, PropertySnapshot | None] = field(default_factory=dict)

    def entities(self, kind: EntityKind) -> dict[int, Any]:
        kinds: dict[EntityKind, dict[int, Any]] = {
            EntityKind.UNIT: self.units,
            EntityKind.LEASE: self.leases,
            EntityKind.LISTING: self.listings,
            EntityKind.PROPERTY: self.properties,
        }
        return kinds[kind]

    def change(self) -> tuple[EntityKind, int]:
        """Change something, to one of few values, so that states come back (A, B, A)."""
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
        found = [self.entities(kind).get(number) for number in numbers]
        gone = tuple(number for number, one in zip(numbers, found, strict=True) if one is None and sweep is None)
        return page(kind, self.seq, *(one for one in found if one is not None), gone=gone, sweep=sweep)


def normal(view: MemoryView) -> dict[bytes, Any]:
    """Return what the rows hold, without sequences, versions and times."""
    held: dict[bytes, Any] = {}
    for key, raw in view.items():
        row = decode(raw)
        if isinstance(row, UnitRow):
            leases = tuple((entry.id, entry.body) for entry in row.leases)
            alive = not row.gone and row.body is not None
            if alive or leases or row.listing:
                held[key] = (alive, row.body if alive else None, row.listing, leases)
        elif isinstance(row, PropertyRow) and row.body is not None:
            held[key] = (row.gone, row.body)
    return held


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), st.integers(1, 14), st.booleans())
def test_any_order_and_repetition_of_replies_ends_in_the_latest_state(seed: int, changes: int, sweeping: bool) -> None:
    """Stale, repeated and shuffled replies, single ones and pages of sweeps: the roll equals the PMS."""
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
            some = [number for number in sorted(pms.entities(kind)) if rng.random() < 0.7]
            replies.append(pms.reply(kind, *some, sweep="s9"))
        if not (sweeping and pms.entities(changed[0])[changed[1]] is not None and rng.random() < 0.5):
            replies.append(pms.reply(*changed))  # the fetch after the webhook of the change, unless that was lost
    if sweeping:
        replies += [pms.reply(kind, *sorted(pms.entities(kind)), sweep="s10") for kind in STAGES]
    replies += [rng.choice(replies) for _ in range(rng.randrange(4))]
    rng.shuffle(replies)

    view = MemoryView()
    waiting = list(replies)
    for _ in range(200):
        if not waiting:
            break
        for wanted in refetches(fold(view, waiting.pop(0))[0]):
            assert wanted[1] is not None
            waiting.append(pms.reply(wanted[0], wanted[1]))
    assert not waiting

    truth = MemoryView()
    queue = [pms.reply(kind, number) for kind in STAGES for number in pms.entities(kind)]
    while queue:
        for wanted in refetches(fold(truth, queue.pop(0))[0]):
            assert wanted[1] is not None
            if pms.entities(wanted[0]).get(wanted[1]) is not None:
                queue.append(pms.reply(wanted[0], wanted[1]))
    assert normal(view) == normal(truth)


@pytest.mark.parametrize("kind", [EntityKind.UNIT, EntityKind.LEASE, EntityKind.LISTING])
def test_what_is_not_among_all_of_its_property_is_fetched_by_its_id(kind: EntityKind) -> None:
    """Only a 404 removes it. What is on the page, gone or of another property is not fetched."""
    view = swept()
    fold(
        view,
        page(EntityKind.UNIT, 6, unit(2), unit(3), unit(9, property_id=77)),
        page(EntityKind.UNIT, 7, gone=(3,)),
        page(EntityKind.LEASE, 8, lease(100), lease(101, unit_id=2)),
        page(EntityKind.LISTING, 9, *(ListingSnapshot(unit_id=one, property_id=10) for one in (1, 2))),
    )
    on_page = {EntityKind.UNIT: unit(1), EntityKind.LEASE: lease(100), EntityKind.LISTING: ListingSnapshot(unit_id=1)}
    (result,) = fold(view, page(kind, 20, on_page[kind]).model_copy(update={"whole_of": 10}))

    assert {entity for found, entity in refetches(result) if found is kind} == {101 if kind is EntityKind.LEASE else 2}
