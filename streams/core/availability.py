"""The availability of a unit on a day: occupied or vacant, pre-leased or not, available from when and for how much.

Three axes (occupancy, pre-leased, ready) make the finer status; a table maps it to the state that receivers get. All
dates are calendar dates at the property, so the day is passed in.
"""

import calendar
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from enum import StrEnum

from connectors.ports import DEFAULT_RULES, LeasingRules
from schemas.delivery import Doubt, UnitState
from schemas.rent_roll import (
    LeaseSnapshot,
    LeaseStatus,
    ListingSnapshot,
    PropertySnapshot,
    PropertyType,
    TenantStatus,
    UnitSnapshot,
)


class Status(StrEnum):
    """The finer status of a unit, in the terms of property management."""

    OCCUPIED = "occupied"
    NOTICE_UNRENTED = "notice_unrented"
    NOTICE_RENTED = "notice_rented"
    VACANT_UNRENTED_READY = "vacant_unrented_ready"
    VACANT_UNRENTED_NOT_READY = "vacant_unrented_not_ready"
    VACANT_RENTED_READY = "vacant_rented_ready"
    VACANT_RENTED_NOT_READY = "vacant_rented_not_ready"
    MODEL = "model"
    DOWN = "down"
    ADMIN = "admin"
    EXCLUDED = "excluded"
    UNLISTED = "unlisted"
    """Vacant or on notice, of a connection that offers only what is listed."""
    REMOVED = "removed"


UNIT_STATES: dict[Status, UnitState] = {
    Status.OCCUPIED: UnitState.RENTED,
    Status.NOTICE_UNRENTED: UnitState.AVAILABLE,
    Status.NOTICE_RENTED: UnitState.RENTED,
    Status.VACANT_UNRENTED_READY: UnitState.AVAILABLE,
    Status.VACANT_UNRENTED_NOT_READY: UnitState.AVAILABLE,
    Status.VACANT_RENTED_READY: UnitState.RENTED,
    Status.VACANT_RENTED_NOT_READY: UnitState.RENTED,
    Status.MODEL: UnitState.UNAVAILABLE,
    Status.DOWN: UnitState.UNAVAILABLE,
    Status.ADMIN: UnitState.UNAVAILABLE,
    Status.EXCLUDED: UnitState.UNAVAILABLE,
    Status.UNLISTED: UnitState.UNAVAILABLE,
    Status.REMOVED: UnitState.REMOVED,
}
"""The state that receivers get for each status."""


RENEWED = frozenset({"Renewed", "Accepted", "Activated"})
"""``RenewalOfferStatus`` of a lease whose tenants stay (Buildium, Leases)."""


MONTHS_NAMED = 11
"""A date is given as the name of its month within so many months."""


@dataclass(frozen=True, slots=True)
class Availability:
    """The status of a unit on a day, and what follows from it."""

    status: Status
    available_on: date | None
    """Null unless the unit is available."""
    when_available: str | None
    rent: Decimal | None
    doubts: tuple[Doubt, ...] = ()

    @property
    def state(self) -> UnitState:
        return UNIT_STATES[self.status]

    @property
    def is_available(self) -> bool:
        return self.state is UnitState.AVAILABLE


def derive_availability(
    unit: UnitSnapshot,
    leases: Sequence[LeaseSnapshot],
    listing: ListingSnapshot | None,
    building: PropertySnapshot,
    day: date,
    *,
    gone: bool = False,
    rules: LeasingRules = DEFAULT_RULES,
) -> Availability:
    """Return the availability of a unit on ``day``, a calendar date at the property.

    The rent is that of the listing, else the market rent, an amount of 0 or less counting as none; never that of the
    present tenant.
    """
    rent = _rent(listing.rent if listing else None, unit.market_rent)
    if gone or not building.is_active:
        return Availability(Status.REMOVED if gone else Status.EXCLUDED, None, None, rent)
    doubts = _doubts_of_fields(unit, listing, building)
    current = [lease for lease in leases if _is_current(lease, day)]
    residents = {tenant.id for lease in current for tenant in lease.tenants if _stays_or_leaves(tenant.status)}
    vacate, overdue = _vacates(current, day, rules)
    coming = [lease for lease in leases if lease not in current and _is_coming(lease, day)]
    others = [lease for lease in coming if not residents & {tenant.id for tenant in lease.tenants}]
    rented = bool(others)
    if len(others) < len(coming):  # a renewal: the tenant stays, so the unit does not become available
        vacate, overdue = None, False
    if overdue:
        doubts.append(Doubt.OVERDUE_MOVE_OUT)
    if unit.is_occupied is not None and unit.is_occupied != bool(current):
        doubts.append(Doubt.OCCUPANCY_FLAG)
    left = vacate if current else _left(leases)
    ready_on = None if left is None else _later(left, 1 + rules.make_ready_days)
    status = _status(bool(current), vacate, rented, ready=ready_on is None or ready_on <= day)
    if UNIT_STATES[status] is UnitState.AVAILABLE and rules.listed_only and listing is None:
        status = Status.UNLISTED
    if status is Status.OCCUPIED and listing is not None:
        doubts.append(Doubt.LISTED_WHILE_OCCUPIED)
    if UNIT_STATES[status] is not UnitState.AVAILABLE:
        return Availability(status, None, None, rent, tuple(doubts))
    on = listing.available_on if listing and listing.available_on else day
    if ready_on is not None:
        on = max(on, ready_on)  # whatever an older listing shows: until then the tenants are there, or it is not ready
    return Availability(status, on, when(on, day), rent, tuple(doubts))


def _doubts_of_fields(unit: UnitSnapshot, listing: ListingSnapshot | None, building: PropertySnapshot) -> list[Doubt]:
    """Return what is doubtful about a unit whatever the day is."""
    found = {
        Doubt.IMPLAUSIBLE_RENT: unit.implausible_rent or (listing is not None and listing.implausible_rent),
        Doubt.AMBIGUOUS_DWELLING: building.type is PropertyType.CONDO_OR_TOWNHOME,
        Doubt.BEDROOMS_OR_MORE: unit.bedrooms_or_more,
        Doubt.BATHROOMS_OR_MORE: unit.bathrooms_or_more,
    }
    return [doubt for doubt, holds in found.items() if holds]


def _rent(*amounts: Decimal | None) -> Decimal | None:
    """Return the first amount that is a rent."""
    return next((amount for amount in amounts if amount is not None and amount > 0), None)


def _left(leases: Sequence[LeaseSnapshot]) -> date | None:
    """Return the last day on which a tenant who has moved out was there, as far as the leases still say so."""
    days: list[date] = []
    for lease in leases:
        gone = {tenant.id for tenant in lease.tenants if tenant.status is TenantStatus.MOVED_OUT}
        days += [move.on for move in lease.move_outs if move.tenant_id in gone]
    return max(days, default=None)


def _status(occupied: bool, vacate: date | None, rented: bool, *, ready: bool) -> Status:
    if occupied:
        if vacate is None:
            return Status.OCCUPIED
        return Status.NOTICE_RENTED if rented else Status.NOTICE_UNRENTED
    if rented:
        return Status.VACANT_RENTED_READY if ready else Status.VACANT_RENTED_NOT_READY
    return Status.VACANT_UNRENTED_READY if ready else Status.VACANT_UNRENTED_NOT_READY


def _begun(lease: LeaseSnapshot, day: date) -> bool:
    return lease.starts_on is None or lease.starts_on <= day


def _ended(lease: LeaseSnapshot, day: date) -> bool:
    """Return whether the PMS was to move all tenants out before ``day``; without that a lease rolls over at its end."""
    ends_on = lease.ends_on if lease.ends_by_itself and lease.renewal not in RENEWED else None
    return ends_on is not None and ends_on < day


def _resides(tenant: TenantStatus, lease: LeaseSnapshot, day: date) -> bool:
    """Return whether a tenant lives there on ``day``; a future lease becomes active by date, without a webhook.

    A status that this version does not know counts as staying.
    """
    if tenant in (TenantStatus.CURRENT, TenantStatus.UNKNOWN):
        return True
    return tenant is TenantStatus.FUTURE and lease.status is LeaseStatus.FUTURE and _begun(lease, day)


def _stays_or_leaves(tenant: TenantStatus) -> bool:
    """Return whether a tenant of a current lease has not left yet; a roommate may still be to move in."""
    return tenant is not TenantStatus.MOVED_OUT


def _is_current(lease: LeaseSnapshot, day: date) -> bool:
    """Return whether a tenant lives in the unit by this lease.

    An active one is not over before the PMS ends it, even if it was to end by itself. A future one is judged by date.
    """
    if lease.status not in (LeaseStatus.ACTIVE, LeaseStatus.FUTURE) or not _begun(lease, day):
        return False
    if lease.status is LeaseStatus.FUTURE and _ended(lease, day):
        return False
    return any(_resides(tenant.status, lease, day) for tenant in lease.tenants)


def _is_coming(lease: LeaseSnapshot, day: date) -> bool:
    """Return whether tenants are still to move in; an active lease that all have left is over, whatever its dates."""
    if _ended(lease, day):
        return False
    left = bool(lease.tenants) and all(tenant.status is TenantStatus.MOVED_OUT for tenant in lease.tenants)
    if lease.status is LeaseStatus.ACTIVE:
        return not left
    # A status that this version does not know: rather not offered than wrongly offered.
    return lease.status in (LeaseStatus.FUTURE, LeaseStatus.UNKNOWN)


def _vacates(current: Sequence[LeaseSnapshot], day: date, rules: LeasingRules) -> tuple[date | None, bool]:
    """Return the day on which the last tenant moves out, and whether it has passed; null unless all of them leave."""
    leaves: list[date | None] = []
    for lease in current:
        given: dict[int, date] = {}
        for move in lease.move_outs:
            given[move.tenant_id] = max(move.on, given.get(move.tenant_id, move.on))
        notice_on = _automatic_notice_on(lease, rules)
        ends_on = lease.ends_on if notice_on is not None and notice_on <= day else None
        leaves += [given.get(one.id, ends_on) for one in lease.tenants if _stays_or_leaves(one.status)]
    known = [on for on in leaves if on is not None]
    if not known or len(known) < len(leaves):
        return None, False
    last = max(known)
    return (last, False) if last >= day else (day, True)


def _automatic_notice_on(lease: LeaseSnapshot, rules: LeasingRules) -> date | None:
    """Return from when on a lease that the PMS will end counts as on notice; null if it goes on.

    Without automatic moving out a lease rolls over at its end, and an accepted renewal extends it.
    """
    if not lease.ends_by_itself or lease.ends_on is None or lease.renewal in RENEWED:
        return None
    return lease.ends_on - timedelta(days=min(rules.auto_move_out_days, (lease.ends_on - date.min).days))


def _later(day: date, days: int) -> date:
    """Return a later day, at most the last of the calendar: some enter ``9999-12-31`` for never."""
    return day + timedelta(days=min(days, (date.max - day).days))


def when(on: date, day: date) -> str:
    """Return a date as text: ``Immediate``, the month's name within the next eleven months, else the ISO date."""
    if on <= day:
        return "Immediate"
    return calendar.month_name[on.month] if on <= _months_later(day, MONTHS_NAMED) else on.isoformat()


def dates_of_change(
    leases: Sequence[LeaseSnapshot], listing: ListingSnapshot | None, *, rules: LeasingRules = DEFAULT_RULES
) -> Iterator[date]:
    """Return every day on which the availability of a unit may change without an event.

    Not among them are the days of a tenant who is overdue: the unit is then available tomorrow, on each of them.
    """
    for lease in leases:
        if lease.starts_on:
            yield lease.starts_on
        leaves = [move.on for move in lease.move_outs]
        if lease.ends_on and lease.ends_by_itself:
            leaves.append(lease.ends_on)
        if notice_on := _automatic_notice_on(lease, rules):
            yield notice_on
        for on in leaves:
            ready_on = _later(on, 1 + rules.make_ready_days)
            yield _later(on, 1)
            yield ready_on
            yield _becomes_a_month(ready_on)
    if listing and listing.available_on:
        yield listing.available_on
        yield _becomes_a_month(listing.available_on)


def _becomes_a_month(on: date) -> date:
    """Return the first day on which `when` names the month of ``on`` instead of its date."""
    first = _months_later(on, -MONTHS_NAMED)
    while _months_later(first, MONTHS_NAMED) < on:  # at most three days: the month before may be shorter
        first = _later(first, 1)
    return first


def _months_later(day: date, months: int) -> date:
    """Return the same day of a later or earlier month, or the last one of a shorter month, within the calendar."""
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    if not date.min.year <= year <= date.max.year:
        return date.max if months > 0 else date.min
    return date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))
