"""A unit that is seen for the first time is not offered before its leases and its listing were read."""

from datetime import date, timedelta
from itertools import permutations
from typing import Any

import pytest

from schemas.base import EntityKind
from schemas.codec import decode_as
from schemas.delivery import UnitState
from schemas.pms import FetchRequest
from schemas.rent_roll import AccountRow, ListingSnapshot, Page, SweepEnd
from streams.core.flows import FoldResult
from streams.core.offer import offer
from streams.core.rent_roll import account_key
from streams.core.rent_roll.keys import stamp
from tests.streams.core.rent_roll.rolls import (
    NOW,
    PREFIX,
    building,
    dues,
    end,
    fold,
    lease,
    page,
    refetches,
    swept,
    unit,
)
from tests.streams.core.views import MemoryView

DAY = date(2026, 3, 1)
NEW = 5
"""A unit of the property that the first sweep brought."""
BEFORE = stamp(NOW - timedelta(minutes=15))
LATER = stamp(NOW + timedelta(minutes=15))
"""A sweep that begins after everything here."""


def new_unit(seq: int = 10, **more: Any) -> Page:
    return page(EntityKind.UNIT, seq, unit(NEW), **more)


def leases(seq: int, *snapshots: Any) -> Page:
    """Return the page with all leases of the property."""
    return page(EntityKind.LEASE, seq, *snapshots).model_copy(update={"whole_of": 10})


def unlisted(seq: int) -> Page:
    return page(EntityKind.LISTING, seq, gone=(NEW,))


def offered(view: MemoryView, number: int = NEW) -> UnitState | None:
    """Return the state in which a unit is offered; null if it is left out."""
    found = offer(view, "default", "buildium", 10, DAY)
    assert found is not None
    return next((one.state for one in found.units if one.id == number), None)


def later_sweep(*, torn: bool = False) -> SweepEnd:
    started = NOW + timedelta(minutes=15)
    found = end(0, 0, 0, 0, sweep=LATER, seq=90, torn=torn)
    return found.model_copy(update={"started_at": started, "ended_at": started})


def requests(result: FoldResult) -> list[FetchRequest]:
    return [emit.record for emit in result.emits if isinstance(emit.record, FetchRequest)]


def test_its_listing_and_the_leases_of_its_property_are_asked_for() -> None:
    """One call more for each property, whatever the number of its units; not again when the unit changes."""
    view = swept(sweep=BEFORE)
    first, second = fold(view, new_unit(), page(EntityKind.UNIT, 11, unit(NEW, rent=1600)))
    asked = {(one.kind, one.entity, one.also) for one in requests(first)}

    assert asked == {(EntityKind.LISTING, NEW, ()), (EntityKind.PROPERTY, 10, (EntityKind.LEASE,))}
    assert refetches(second) == set()
    assert offered(view) is None
    assert offered(view, 1) is UnitState.AVAILABLE


@pytest.mark.parametrize("order", list(permutations([leases(12, lease(unit_id=NEW)), unlisted(13)])))
def test_it_is_offered_once_both_were_read(order: tuple[Page, ...]) -> None:
    """In any order, and then as what they say."""
    view = swept(sweep=BEFORE)
    fold(view, new_unit())
    (first,) = fold(view, order[0])
    early = offered(view)
    (second,) = fold(view, order[1])

    assert early is None
    assert offered(view) is UnitState.RENTED
    assert dues(second) == {10}
    assert first is not second


def test_answers_that_are_older_than_the_unit_prove_nothing() -> None:
    view = swept(sweep=BEFORE)
    fold(view, new_unit(20), leases(12), unlisted(21))

    assert offered(view) is None


def test_a_listing_that_came_before_is_asked_for_again() -> None:
    """The leases as well: nobody knows what changed meanwhile."""
    view = swept(sweep=BEFORE)
    fold(view, page(EntityKind.LISTING, 9, ListingSnapshot(unit_id=NEW, property_id=10)), new_unit())
    assert offered(view) is None
    fold(view, leases(12), page(EntityKind.LISTING, 13, ListingSnapshot(unit_id=NEW, property_id=10)))

    assert offered(view) is UnitState.AVAILABLE


def test_a_sweep_that_began_later_makes_it_known_in_any_case() -> None:
    """No answer ever came: the property is marked as due at the end of the sweep, and once only."""
    view = swept(sweep=BEFORE)
    fold(view, new_unit())
    (whole,) = fold(view, later_sweep())
    account = decode_as(AccountRow, view[account_key(PREFIX)])

    assert dues(whole) == {10}
    assert offered(view) is UnitState.AVAILABLE
    assert (account.whole_sweep, account.awaiting) == (LATER, ())


def test_a_torn_sweep_does_not() -> None:
    view = swept(sweep=BEFORE)
    fold(view, new_unit())
    (torn,) = fold(view, later_sweep(torn=True))
    account = decode_as(AccountRow, view[account_key(PREFIX)])

    assert dues(torn) == set()
    assert offered(view) is None
    assert account.awaiting == (10,)


def test_a_unit_that_a_sweep_brings_is_offered_at_its_end() -> None:
    """Its leases and its listing come later in the same sweep, so nothing is asked for."""
    view = swept(sweep=BEFORE)
    (brought,) = fold(view, page(EntityKind.UNIT, 80, unit(1), unit(NEW), sweep=LATER))
    assert refetches(brought) == set()
    assert offered(view) is None
    (ended,) = fold(view, later_sweep())

    assert dues(ended) == {10}
    assert offered(view) is UnitState.AVAILABLE


def test_a_unit_that_is_first_seen_after_a_sweep_began_waits_for_the_next_one() -> None:
    view = swept(sweep=BEFORE)
    began_before = later_sweep().model_copy(update={"sweep": stamp(NOW - timedelta(seconds=1))})
    fold(view, new_unit())
    fold(view, began_before)
    account = decode_as(AccountRow, view[account_key(PREFIX)])

    assert offered(view) is None
    assert account.awaiting == (10,)


def test_what_was_asked_is_asked_again_if_the_record_is_folded_again() -> None:
    """A crash may have come before it was durable."""
    view = swept(sweep=BEFORE)
    first, again = fold(view, new_unit(), new_unit())

    assert refetches(again) == refetches(first)


def test_the_units_of_a_new_property_wait_as_well() -> None:
    view = swept(sweep=BEFORE)
    fold(view, page(EntityKind.PROPERTY, 10, building(20)), page(EntityKind.UNIT, 11, unit(6, property_id=20)))
    found = offer(view, "default", "buildium", 20, DAY)

    assert found is not None
    assert found.units == ()
