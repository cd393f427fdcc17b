"""The availability of a unit on a day, case by case, and what holds for every row and every day."""

import calendar
from collections.abc import Iterable
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.ports import LeasingRules
from schemas.delivery import Doubt, UnitState
from schemas.rent_roll import (
    LeaseSnapshot,
    LeaseStatus,
    LeaseTenant,
    ListingSnapshot,
    MoveOut,
    PropertySnapshot,
    PropertyType,
    TenantStatus,
    UnitSnapshot,
)
from streams.core.availability import (
    UNIT_STATES,
    Availability,
    Status,
    dates_of_change,
    derive_availability,
    when,
)

DAY = date(2026, 3, 10)
LONG_AGO, YESTERDAY, TOMORROW = date(2025, 1, 1), DAY - timedelta(1), DAY + timedelta(1)
IN_MAY, IN_JUNE = date(2026, 5, 31), date(2026, 6, 1)
SOON, IN_SIXTY_DAYS = date(2026, 4, 1), DAY + timedelta(60)

UNIT = UnitSnapshot(id=1, property_id=10, code="101", market_rent=Decimal(1500))
BUILDING = PropertySnapshot(id=10, name="Sunset Apartments")

CURRENT, FUTURE, MOVED_OUT = TenantStatus.CURRENT, TenantStatus.FUTURE, TenantStatus.MOVED_OUT

VACANT = Status.VACANT_UNRENTED_READY
TAKEN = Status.VACANT_RENTED_READY
ADVERTISED = {Status.VACANT_UNRENTED_READY, Status.VACANT_UNRENTED_NOT_READY, Status.NOTICE_UNRENTED}


def lease(
    number: int = 100,
    *,
    status: LeaseStatus = LeaseStatus.ACTIVE,
    starts: date | None = LONG_AGO,
    ends: date | None = None,
    by_itself: bool = False,
    tenants: Iterable[tuple[int, TenantStatus]] = ((7, CURRENT),),
    leaving: Iterable[tuple[int, date]] = (),
    **more: Any,
) -> LeaseSnapshot:
    return LeaseSnapshot(
        id=number,
        property_id=10,
        unit_id=1,
        starts_on=starts,
        ends_on=ends,
        status=status,
        ends_by_itself=by_itself,
        tenants=tuple(LeaseTenant(id=tenant, status=found) for tenant, found in tenants),
        move_outs=tuple(MoveOut(tenant_id=tenant, on=on) for tenant, on in leaving),
        **more,
    )


def coming(number: int = 200, *tenants: int, starts: date = IN_JUNE, **more: Any) -> LeaseSnapshot:
    """A lease that is signed and has not begun."""
    return lease(
        number,
        status=LeaseStatus.FUTURE,
        starts=starts,
        tenants=[(tenant, FUTURE) for tenant in tenants or (9,)],
        **more,
    )


def of(*leases: LeaseSnapshot, day: date = DAY, listing: ListingSnapshot | None = None, **more: Any) -> Availability:
    return derive_availability(UNIT, leases, listing, BUILDING, day, **more)


TWO = ((7, CURRENT), (8, CURRENT))
ON_NOTICE = lease(leaving=[(7, IN_MAY)])

CASES: list[tuple[str, list[LeaseSnapshot], Status, date | None]] = [
    ("no lease: vacant", [], VACANT, DAY),
    ("a tenant lives there", [lease()], Status.OCCUPIED, None),
    ("a lease without a start counts as begun", [lease(starts=None)], Status.OCCUPIED, None),
    ("a lease that began today counts", [lease(starts=DAY)], Status.OCCUPIED, None),
    ("a past lease counts for nothing", [lease(status=LeaseStatus.PAST)], VACANT, DAY),
    ("all tenants of an active lease moved out", [lease(tenants=[(7, MOVED_OUT)])], VACANT, DAY),
    ("one of two moved out", [lease(tenants=[(7, MOVED_OUT), (8, CURRENT)])], Status.OCCUPIED, None),
    # -- notice
    ("its only tenant gave notice", [ON_NOTICE], Status.NOTICE_UNRENTED, IN_JUNE),
    ("leaving today is notice", [lease(leaving=[(7, DAY)])], Status.NOTICE_UNRENTED, TOMORROW),
    ("one of two gave notice", [lease(tenants=TWO, leaving=[(7, IN_MAY)])], Status.OCCUPIED, None),
    (
        "all residents gave notice: the last to leave counts",
        [lease(tenants=TWO, leaving=[(7, DAY), (8, IN_MAY)])],
        Status.NOTICE_UNRENTED,
        IN_JUNE,
    ),
    (
        "the notice of one who has left already is not waited for",
        [lease(tenants=[(7, MOVED_OUT), (8, CURRENT)], leaving=[(7, YESTERDAY), (8, IN_MAY)])],
        Status.NOTICE_UNRENTED,
        IN_JUNE,
    ),
    (
        "a notice changed: the later day counts",
        [lease(leaving=[(7, IN_MAY), (7, DAY)])],
        Status.NOTICE_UNRENTED,
        IN_JUNE,
    ),
    ("a notice of a person who is no tenant is none", [lease(leaving=[(99, IN_MAY)])], Status.OCCUPIED, None),
    (
        "tenants of two leases: one of them stays",
        [lease(leaving=[(7, IN_MAY)]), lease(101, tenants=[(8, CURRENT)])],
        Status.OCCUPIED,
        None,
    ),
    ("an end of the term alone is no notice: it may roll over", [lease(ends=IN_MAY)], Status.OCCUPIED, None),
    ("nor is one that has passed: the tenant stays", [lease(ends=YESTERDAY)], Status.OCCUPIED, None),
    ("the PMS moves the tenants out in twelve weeks", [lease(ends=IN_MAY, by_itself=True)], Status.OCCUPIED, None),
    (
        "the PMS moves the tenants out in sixty days",
        [lease(ends=IN_SIXTY_DAYS, by_itself=True)],
        Status.NOTICE_UNRENTED,
        IN_SIXTY_DAYS + timedelta(1),
    ),
    (
        "the PMS moves the tenants out in sixty-one days",
        [lease(ends=IN_SIXTY_DAYS + timedelta(1), by_itself=True)],
        Status.OCCUPIED,
        None,
    ),
    *(
        (f"a renewal that is {renewal}", [lease(ends=SOON, by_itself=True, renewal=renewal)], Status.OCCUPIED, None)
        for renewal in ("Renewed", "Accepted", "Activated")
    ),
    *(
        (
            f"a renewal that is {renewal} is none",
            [lease(ends=SOON, by_itself=True, renewal=renewal)],
            Status.NOTICE_UNRENTED,
            SOON + timedelta(1),
        )
        for renewal in ("Declined", "Sent", None)
    ),
    # -- roommates
    (
        "one leaves and a roommate moves in by the same lease",
        [lease(tenants=[(7, CURRENT), (8, FUTURE)], leaving=[(7, IN_MAY)])],
        Status.OCCUPIED,
        None,
    ),
    (
        "one has left and the roommate is still to move in",
        [lease(tenants=[(7, MOVED_OUT), (8, FUTURE)], leaving=[(7, YESTERDAY)])],
        TAKEN,
        None,
    ),
    (
        "one leaves and another has a status of a newer version",
        [lease(tenants=[(7, CURRENT), (8, TenantStatus.UNKNOWN)], leaving=[(7, IN_MAY)])],
        Status.OCCUPIED,
        None,
    ),
    ("only a tenant of unknown status", [lease(tenants=[(8, TenantStatus.UNKNOWN)])], Status.OCCUPIED, None),
    ("by itself, but without an end", [lease(by_itself=True)], Status.OCCUPIED, None),
    (
        "a day of moving out goes before the end of the term",
        [lease(ends=date(2026, 12, 31), by_itself=True, leaving=[(7, IN_MAY)])],
        Status.NOTICE_UNRENTED,
        IN_JUNE,
    ),
    ("moved out by itself today: still there", [lease(ends=DAY, by_itself=True)], Status.NOTICE_UNRENTED, TOMORROW),
    (
        "moved out by itself yesterday, but the PMS says that they live there",
        [lease(ends=YESTERDAY, by_itself=True)],
        Status.NOTICE_UNRENTED,
        TOMORROW,
    ),
    (
        "overdue: still there after the day of moving out",
        [lease(leaving=[(7, YESTERDAY)])],
        Status.NOTICE_UNRENTED,
        TOMORROW,
    ),
    ("an eviction is a flag, never a notice", [lease(eviction_pending=True)], Status.OCCUPIED, None),
    ("a declined renewal is a flag too", [lease(renewal="Declined")], Status.OCCUPIED, None),
    # -- rented
    ("on notice and let again", [ON_NOTICE, coming()], Status.NOTICE_RENTED, None),
    ("occupied, and another tenant is to move in", [lease(), coming()], Status.OCCUPIED, None),
    ("vacant and let", [coming()], TAKEN, None),
    ("vacant and let, without a start", [lease(status=LeaseStatus.FUTURE, starts=None, tenants=[])], TAKEN, None),
    ("an active lease that has not begun is a coming one", [lease(starts=IN_JUNE, tenants=[(9, FUTURE)])], TAKEN, None),
    ("an active lease whose tenants are all to come", [lease(tenants=[(8, FUTURE), (9, FUTURE)])], TAKEN, None),
    ("one tenant is to come after another left", [lease(tenants=[(8, MOVED_OUT), (9, FUTURE)])], TAKEN, None),
    ("an active lease without tenants is believed", [lease(tenants=[])], TAKEN, None),
    (
        "on notice, and the next tenants' lease is active already",
        [ON_NOTICE, lease(200, tenants=[(9, FUTURE)])],
        Status.NOTICE_RENTED,
        None,
    ),
    (
        "a lease that was moved out by itself does not come again",
        [coming(starts=LONG_AGO, ends=YESTERDAY, by_itself=True)],
        VACANT,
        DAY,
    ),
    # -- renewal
    ("the same tenant signs again: no re-letting", [lease(), coming(200, 7)], Status.OCCUPIED, None),
    (
        "the term ends by itself, and the tenant signed again",
        [lease(ends=IN_MAY, by_itself=True), coming(200, 7)],
        Status.OCCUPIED,
        None,
    ),
    (
        "both gave notice, and one signs again with a third",
        [lease(tenants=TWO, leaving=[(7, IN_MAY), (8, IN_MAY)]), coming(200, 8, 9)],
        Status.OCCUPIED,
        None,
    ),
    (
        "the renewed lease runs beside the old one that ends",
        [lease(ends=IN_MAY, by_itself=True), lease(200, starts=DAY)],
        Status.OCCUPIED,
        None,
    ),
    # -- by date, with no event
    ("a future lease whose day came: its tenants moved in", [coming(starts=DAY)], Status.OCCUPIED, None),
    ("one whose day came long ago", [coming(starts=LONG_AGO)], Status.OCCUPIED, None),
    ("it comes tomorrow", [coming(starts=TOMORROW)], TAKEN, None),
    (
        "moved in by date, and leaves by itself",
        [coming(starts=LONG_AGO, ends=SOON, by_itself=True)],
        Status.NOTICE_UNRENTED,
        SOON + timedelta(1),
    ),
    (
        "the old tenant leaves by itself, the new one has moved in",
        [lease(ends=YESTERDAY, by_itself=True), coming(starts=DAY)],
        Status.OCCUPIED,
        None,
    ),
    ("the last day of time", [lease(leaving=[(7, date.max)])], Status.NOTICE_UNRENTED, date.max),
    ("by itself on the last day of time", [lease(ends=date.max, by_itself=True)], Status.OCCUPIED, None),
]


@pytest.mark.parametrize(("leases", "status", "on"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_leases_make_the_status(leases: list[LeaseSnapshot], status: Status, on: date | None) -> None:
    """The order of the leases does not matter."""
    for order in (leases, leases[::-1]):
        found = of(*order)
        assert (found.status, found.available_on) == (status, on)


@pytest.mark.parametrize("leases", [case[1] for case in CASES], ids=[case[0] for case in CASES])
def test_a_unit_that_is_removed_or_of_an_inactive_property_is_not_available(leases: list[LeaseSnapshot]) -> None:
    """Whatever its leases; removed goes before inactive."""
    asleep = BUILDING.model_copy(update={"is_active": False})
    listing = ListingSnapshot(unit_id=1, available_on=IN_JUNE)
    assert derive_availability(UNIT, leases, listing, asleep, DAY).status is Status.EXCLUDED
    for building in (BUILDING, asleep):
        found = derive_availability(UNIT, leases, listing, building, DAY, gone=True)
        assert (found.status, found.available_on, found.when_available) == (Status.REMOVED, None, None)


def test_a_receiver_gets_four_states() -> None:
    """Available are exactly the three that are advertised; each status has its state."""
    assert set(UNIT_STATES) == set(Status)
    assert {status for status, state in UNIT_STATES.items() if state is UnitState.AVAILABLE} == ADVERTISED
    assert {status for status, state in UNIT_STATES.items() if state is UnitState.RENTED} == {
        Status.OCCUPIED,
        Status.NOTICE_RENTED,
        Status.VACANT_RENTED_READY,
        Status.VACANT_RENTED_NOT_READY,
    }
    assert {status for status, state in UNIT_STATES.items() if state is UnitState.UNAVAILABLE} == {
        Status.MODEL,
        Status.DOWN,
        Status.ADMIN,
        Status.EXCLUDED,
        Status.UNLISTED,
    }
    assert [status for status, state in UNIT_STATES.items() if state is UnitState.REMOVED] == [Status.REMOVED]


# ------------------------------------------------------------------------------------------------- from when, how much


@pytest.mark.parametrize(
    ("leases", "listed", "on", "text"),
    [
        ([], None, DAY, "Immediate"),
        ([], YESTERDAY, YESTERDAY, "Immediate"),
        ([], DAY, DAY, "Immediate"),
        ([], IN_JUNE, IN_JUNE, "June"),
        ([], date(2027, 6, 1), date(2027, 6, 1), "2027-06-01"),
        ([ON_NOTICE], None, IN_JUNE, "June"),
        ([ON_NOTICE], date(2026, 7, 15), date(2026, 7, 15), "July"),
        ([lease()], IN_JUNE, None, None),
        ([coming()], IN_JUNE, None, None),
        ([ON_NOTICE, coming()], IN_JUNE, None, None),
    ],
)
def test_the_date_is_that_of_the_listing_else_that_of_the_leases(
    leases: list[LeaseSnapshot], listed: date | None, on: date | None, text: str | None
) -> None:
    """Null where the unit is not available, whatever its listing."""
    found = of(*leases, listing=ListingSnapshot(unit_id=1, available_on=listed))
    assert (found.available_on, found.when_available) == (on, text)


def test_the_days_to_make_ready_come_after_the_move_out() -> None:
    """Vacant on the day after, and so many days later available."""
    assert of(ON_NOTICE, rules=LeasingRules(make_ready_days=3)).available_on == date(2026, 6, 4)
    assert of(ON_NOTICE, rules=LeasingRules(make_ready_days=0)).available_on == IN_JUNE
    assert of(lease(leaving=[(7, date.max)]), rules=LeasingRules(make_ready_days=3)).available_on == date.max


@pytest.mark.parametrize(
    ("advertised", "expected"), [(DAY, IN_JUNE + timedelta(3)), (date(2026, 7, 1), date(2026, 7, 1))]
)
def test_a_unit_is_never_available_before_its_tenants_have_left(advertised: date, expected: date) -> None:
    """Whatever an older listing says; the make-ready days are counted as well."""
    found = of(
        ON_NOTICE,
        listing=ListingSnapshot(unit_id=1, available_on=advertised),
        rules=LeasingRules(make_ready_days=3),
    )
    assert found.available_on == expected


def test_a_unit_whose_tenants_have_left_is_made_ready_first() -> None:
    """As long as the account still says when they left."""
    left = lease(tenants=[(7, MOVED_OUT)], leaving=[(7, YESTERDAY)])
    found = of(left, rules=LeasingRules(make_ready_days=3))
    assert (found.status, found.available_on) == (Status.VACANT_UNRENTED_NOT_READY, YESTERDAY + timedelta(4))
    ready = of(left, day=YESTERDAY + timedelta(4), rules=LeasingRules(make_ready_days=3))
    assert (ready.status, ready.when_available) == (Status.VACANT_UNRENTED_READY, "Immediate")


@pytest.mark.parametrize("leases", [[], [ON_NOTICE]])
def test_a_connection_may_offer_only_what_is_listed(leases: list[LeaseSnapshot]) -> None:
    """What is vacant or on notice without a listing is unavailable then; what is rented stays rented."""
    rules, listing = LeasingRules(listed_only=True), ListingSnapshot(unit_id=1)
    assert of(*leases, rules=rules).status is Status.UNLISTED
    assert of(*leases, rules=rules, listing=listing).is_available
    assert of(lease(), rules=rules).status is Status.OCCUPIED


def test_the_days_before_an_automatic_move_out_can_be_set() -> None:
    ending = lease(ends=IN_MAY, by_itself=True)
    statuses = [of(ending, rules=LeasingRules(auto_move_out_days=days)).status for days in (81, 82, 3650)]
    assert statuses == [Status.OCCUPIED, Status.NOTICE_UNRENTED, Status.NOTICE_UNRENTED]


def test_a_rent_that_is_no_amount_is_a_doubt() -> None:
    unit = UNIT.model_copy(update={"market_rent": None, "implausible_rent": True})
    found = derive_availability(unit, [], None, BUILDING, DAY)
    assert (found.rent, found.doubts) == (None, (Doubt.IMPLAUSIBLE_RENT,))
    listing = ListingSnapshot(unit_id=1, implausible_rent=True)
    assert of(listing=listing).doubts == (Doubt.IMPLAUSIBLE_RENT,)


@pytest.mark.parametrize(
    ("listed", "market", "rent"),
    [
        (Decimal(1650), Decimal(1500), Decimal(1650)),
        (None, Decimal(1500), Decimal(1500)),
        (Decimal(0), Decimal(1500), Decimal(1500)),
        (None, Decimal(-1), None),
        (Decimal(-1), Decimal(0), None),
        (None, None, None),
    ],
)
def test_the_rent_is_the_listings_else_the_markets(
    listed: Decimal | None, market: Decimal | None, rent: Decimal | None
) -> None:
    """Null where unknown, never zero or less."""
    unit = UNIT.model_copy(update={"market_rent": market})
    listing = ListingSnapshot(unit_id=1, rent=listed)
    for leases in ([], [lease()], [ON_NOTICE]):
        assert derive_availability(unit, leases, listing, BUILDING, DAY).rent == rent
        alone = derive_availability(unit, leases, None, BUILDING, DAY).rent
        assert alone == (market if market and market > 0 else None)


@pytest.mark.parametrize(
    ("on", "day", "text"),
    [
        (DAY, DAY, "Immediate"),
        (YESTERDAY, DAY, "Immediate"),
        (date(1999, 1, 1), DAY, "Immediate"),
        (TOMORROW, DAY, "March"),
        (date(2026, 12, 24), DAY, "December"),
        (date(2027, 2, 10), DAY, "February"),
        (date(2027, 2, 11), DAY, "2027-02-11"),
        (date(2027, 3, 9), DAY, "2027-03-09"),
        (date(2030, 1, 1), DAY, "2030-01-01"),
        (date(2029, 1, 29), date(2028, 2, 29), "January"),
        (date(2029, 1, 30), date(2028, 2, 29), "2029-01-30"),
        (date(2028, 2, 29), date(2027, 2, 28), "2028-02-29"),
        (date(2028, 2, 29), date(2027, 3, 28), "2028-02-29"),
        (date(2028, 2, 29), date(2027, 3, 29), "February"),
        (date(2028, 2, 29), date(2028, 2, 29), "Immediate"),
        (date.max, date(9999, 1, 31), "December"),
        (date.max, date(9998, 12, 31), "9999-12-31"),
        (date.max, date.max, "Immediate"),
    ],
)
def test_a_date_is_immediate_or_a_month_or_a_date(on: date, day: date, text: str) -> None:
    """A month names a day within the next eleven months, never one of next year's."""
    assert when(on, day) == text


# --------------------------------------------------------------------------------------------------------- the doubts


@pytest.mark.parametrize(
    ("leases", "flag", "doubts"),
    [
        ([], None, ()),
        ([], False, ()),
        ([], True, (Doubt.OCCUPANCY_FLAG,)),
        ([lease()], True, ()),
        ([lease()], False, (Doubt.OCCUPANCY_FLAG,)),
        ([lease()], None, ()),
        ([coming()], True, (Doubt.OCCUPANCY_FLAG,)),
        ([coming()], False, ()),
        ([lease(leaving=[(7, YESTERDAY)])], True, (Doubt.OVERDUE_MOVE_OUT,)),
        ([lease(leaving=[(7, YESTERDAY)])], False, (Doubt.OVERDUE_MOVE_OUT, Doubt.OCCUPANCY_FLAG)),
        ([lease(leaving=[(7, DAY)])], True, ()),
        ([lease(tenants=TWO, leaving=[(7, YESTERDAY)])], True, ()),
    ],
)
def test_a_disagreement_is_a_doubt_and_changes_nothing(
    leases: list[LeaseSnapshot], flag: bool | None, doubts: tuple[Doubt, ...]
) -> None:
    """The PMS's flag is a cross-check: the status is the same without it."""
    flagged = derive_availability(UNIT.model_copy(update={"is_occupied": flag}), leases, None, BUILDING, DAY)
    assert flagged.doubts == doubts
    assert flagged.status is of(*leases).status


@pytest.mark.parametrize(
    ("unit", "building", "doubt"),
    [
        ({"bathrooms_or_more": True}, {}, Doubt.BATHROOMS_OR_MORE),
        ({"bedrooms_or_more": True}, {}, Doubt.BEDROOMS_OR_MORE),
        ({}, {"type": PropertyType.CONDO_OR_TOWNHOME}, Doubt.AMBIGUOUS_DWELLING),
    ],
)
def test_what_the_pms_does_not_know_exactly_is_a_doubt(
    unit: dict[str, object], building: dict[str, object], doubt: Doubt
) -> None:
    """Unless the unit is not offered at all."""
    found, home = UNIT.model_copy(update=unit), BUILDING.model_copy(update=building)
    inactive = home.model_copy(update={"is_active": False})
    assert derive_availability(found, [], None, home, DAY).doubts == (doubt,)
    assert derive_availability(found, [], None, home, DAY, gone=True).doubts == ()
    assert derive_availability(found, [], None, inactive, DAY).doubts == ()


def test_a_listing_of_an_occupied_unit_is_a_doubt_until_a_tenant_gives_notice() -> None:
    listing = ListingSnapshot(unit_id=1)
    assert of(lease(), listing=listing).doubts == (Doubt.LISTED_WHILE_OCCUPIED,)
    assert of(lease(leaving=[(7, IN_MAY)]), listing=listing).doubts == ()
    assert of(listing=listing).doubts == ()


# ----------------------------------------------------------------------------------------------------------- the laws

NEAR = st.dates(date(2025, 11, 1), date(2027, 6, 30))
ANY = NEAR | st.dates() | st.sampled_from([date.min, date.max, date(2028, 2, 29)])


def leases_of(days: st.SearchStrategy[date]) -> st.SearchStrategy[list[LeaseSnapshot]]:
    """Some leases of a unit; few tenants, so that they meet."""
    tenant = st.integers(1, 3)
    one = st.builds(
        lease,
        st.integers(100, 999),
        status=st.sampled_from(LeaseStatus),
        starts=st.none() | days,
        ends=st.none() | days,
        by_itself=st.booleans(),
        tenants=st.lists(st.tuples(tenant, st.sampled_from(TenantStatus)), max_size=3),
        leaving=st.lists(st.tuples(tenant, days), max_size=3),
    )
    return st.lists(one, max_size=3, unique_by=lambda found: found.id)


def listings_of(days: st.SearchStrategy[date]) -> st.SearchStrategy[ListingSnapshot | None]:
    return st.none() | st.builds(ListingSnapshot, unit_id=st.just(1), available_on=st.none() | days)


MANY = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@MANY
@given(leases_of(ANY), listings_of(ANY), ANY, st.booleans(), st.booleans(), st.integers(0, 400))
def test_every_row_has_an_availability_on_every_day(
    leases: list[LeaseSnapshot], listing: ListingSnapshot | None, day: date, active: bool, gone: bool, turn: int
) -> None:
    """Total, and consistent with itself: available, from when, and in which words go together."""
    building = BUILDING.model_copy(update={"is_active": active})
    found = derive_availability(
        UNIT, leases, listing, building, day, gone=gone, rules=LeasingRules(make_ready_days=turn)
    )
    assert found.state is UNIT_STATES[found.status]
    assert found.is_available is (found.status in ADVERTISED)
    assert (found.available_on is None) is (not found.is_available)
    assert (found.when_available is None) is (not found.is_available)
    if found.available_on is not None:
        assert found.when_available == when(found.available_on, day)
        assert (found.when_available == "Immediate") is (found.available_on <= day)
    assert not (found.is_available and (gone or not active))
    list(dates_of_change(leases, listing, rules=LeasingRules(make_ready_days=turn)))


@MANY
@given(leases_of(NEAR), NEAR)
def test_a_unit_with_a_resident_or_a_signed_lease_is_not_available(leases: list[LeaseSnapshot], day: date) -> None:
    """All residents of an available unit gave notice, and no tenant is to move in."""
    if not of(*leases, day=day).is_available:
        return
    for one in leases:
        over = one.ends_by_itself and one.ends_on is not None and one.ends_on < day
        if one.status is LeaseStatus.FUTURE and not over:
            assert one.starts_on is None or one.starts_on <= day
        if one.status is LeaseStatus.ACTIVE and not over and not one.ends_by_itself:
            leaving = {move.tenant_id for move in one.move_outs}
            assert {tenant.id for tenant in one.tenants if tenant.status is CURRENT} <= leaving


def content(found: Availability) -> object:
    """Return what a receiver gets; a unit that is available at once is so on every further day."""
    on = None if found.when_available == "Immediate" else found.available_on
    return found.status, found.rent, on, found.when_available


@settings(MANY, max_examples=150)
@given(leases_of(NEAR), listings_of(NEAR))
def test_availability_changes_on_a_date_of_change_only(
    leases: list[LeaseSnapshot], listing: ListingSnapshot | None
) -> None:
    """In status, in date or in text.

    The exception is a tenant who is overdue: the unit is available tomorrow, on each of those days.
    """
    turns = {*dates_of_change(leases, listing)}
    named = {DAY} | ({listing.available_on} if listing and listing.available_on else set())
    for one in leases:
        named |= {day for day in (one.starts_on, one.ends_on) if day} | {move.on for move in one.move_outs}
    for day in {near + timedelta(days) for near in named for days in (*range(-4, 5), *range(-368, -361))}:
        before, after = (of(*leases, day=at, listing=listing) for at in (day - timedelta(1), day))
        if day in turns:
            continue
        assert before.status is after.status
        assert (before.when_available == "Immediate") is (after.when_available == "Immediate")
        if Doubt.OVERDUE_MOVE_OUT not in after.doubts:
            assert content(before) == content(after)


@pytest.mark.parametrize(
    ("leases", "listing", "turns"),
    [
        ([], None, set()),
        ([lease(starts=None)], ListingSnapshot(unit_id=1), set()),
        ([coming()], None, {IN_JUNE}),
        ([lease(ends=IN_MAY)], None, {LONG_AGO}),
        ([lease(ends=IN_MAY, by_itself=True)], None, {LONG_AGO, IN_JUNE, date(2026, 4, 1), date(2025, 7, 1)}),
        ([lease(ends=IN_MAY, by_itself=True, renewal="Renewed")], None, {LONG_AGO, IN_JUNE, date(2025, 7, 1)}),
        ([lease(leaving=[(7, IN_MAY)])], None, {LONG_AGO, IN_JUNE, date(2025, 7, 1)}),
        ([], ListingSnapshot(unit_id=1, available_on=IN_JUNE), {IN_JUNE, date(2025, 7, 1)}),
        ([], ListingSnapshot(unit_id=1, available_on=date(2028, 2, 29)), {date(2028, 2, 29), date(2027, 3, 29)}),
        ([], ListingSnapshot(unit_id=1, available_on=date.min), {date.min}),
    ],
)
def test_a_row_has_few_dates_of_change(
    leases: list[LeaseSnapshot], listing: ListingSnapshot | None, turns: set[date]
) -> None:
    """Beginnings, ends, and the day on which a date is near enough to be a month."""
    assert {*dates_of_change(leases, listing)} == turns


def test_the_month_of_a_day_is_english() -> None:
    """Receivers read it; the machine's language does not matter."""
    months = [when(date(2026, month, 28), date(2025, 12, 31)) for month in range(1, 12)]
    assert months == list(calendar.month_name)[1:12] == [
        "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November"
    ]  # fmt: skip
