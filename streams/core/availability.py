"""What a unit's row means on a day: occupied or vacant, spoken for or not, from when and for how much.

Three axes (occupancy, pre-leased, ready) make the finer status; a table folds it into what a receiver is told. All
dates are calendar dates at the property, so the day is passed in.
"""

import calendar
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from enum import StrEnum

from schemas.delivery import UnitState
from schemas.rent_roll import (
    LeaseSnapshot,
    LeaseStatus,
    ListingSnapshot,
    PropertySnapshot,
    TenantStatus,
    UnitSnapshot,
)


class Status(StrEnum):
    """Where a unit stands, in the words of the trade."""

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
    REMOVED = "removed"


TOLD: dict[Status, UnitState] = {
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
    Status.REMOVED: UnitState.REMOVED,
}
"""What a receiver is told of each status."""


class Doubt(StrEnum):
    """A disagreement within the PMS's own data, worth a warning, never a guess."""

    OCCUPIED_FLAG = "the PMS's occupancy flag disagrees with its leases"
    OVERDUE_MOVE_OUT = "a tenant is still current after the day of moving out"


@dataclass(frozen=True, slots=True)
class Standing:
    """What a unit's row means on a day."""

    status: Status
    available_on: date | None
    """Null unless the unit is available."""
    when_available: str | None
    rent: Decimal | None
    doubts: tuple[Doubt, ...] = ()

    @property
    def state(self) -> UnitState:
        return TOLD[self.status]

    @property
    def is_available(self) -> bool:
        return self.state is UnitState.AVAILABLE


def standing(
    unit: UnitSnapshot,
    leases: Sequence[LeaseSnapshot],
    listing: ListingSnapshot | None,
    building: PropertySnapshot,
    day: date,
    *,
    gone: bool = False,
    turn_days: int = 0,
) -> Standing:
    """Derive a unit's standing on ``day``, a calendar date at the property.

    ``turn_days`` are the days between moving out and being ready. The rent is that of the listing, else the market
    rent; never that of the sitting tenant.
    """
    rent = listing.rent if listing and listing.rent is not None else unit.market_rent
    if gone or not building.is_active:
        return Standing(Status.REMOVED if gone else Status.EXCLUDED, None, None, rent)
    current = [lease for lease in leases if _is_current(lease, day)]
    sitting = {tenant.id for lease in current for tenant in lease.tenants if _sits(tenant.status, lease, day)}
    vacate, doubts = _vacates(current, sitting, day)
    rented = any(
        _is_coming(lease, day) and not sitting & {tenant.id for tenant in lease.tenants}
        for lease in leases
        if lease not in current
    )
    if unit.is_occupied is not None and unit.is_occupied != bool(current):
        doubts = (*doubts, Doubt.OCCUPIED_FLAG)
    status = _status(bool(current), vacate, rented, ready=True)
    if TOLD[status] is not UnitState.AVAILABLE:
        return Standing(status, None, None, rent, doubts)
    if listing and listing.available_on:
        on = listing.available_on
    elif vacate is None:
        on = day
    else:
        on = vacate + timedelta(days=1 + turn_days)
    return Standing(status, on, when(on, day), rent, doubts)


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
    """Tell whether the PMS will have moved everybody out by then. An end alone ends nothing: leases roll over."""
    return lease.ends_by_itself and lease.ends_on is not None and lease.ends_on < day


def _sits(tenant: TenantStatus, lease: LeaseSnapshot, day: date) -> bool:
    """Tell whether a tenant lives there on ``day``; the PMS moves a future lease on by date and tells nobody."""
    if tenant is TenantStatus.CURRENT:
        return True
    return tenant is TenantStatus.FUTURE and lease.status is LeaseStatus.FUTURE and _begun(lease, day)


def _is_current(lease: LeaseSnapshot, day: date) -> bool:
    if lease.status not in (LeaseStatus.ACTIVE, LeaseStatus.FUTURE) or not _begun(lease, day) or _ended(lease, day):
        return False
    return any(_sits(tenant.status, lease, day) for tenant in lease.tenants)


def _is_coming(lease: LeaseSnapshot, day: date) -> bool:
    if lease.status is LeaseStatus.FUTURE:
        return True
    if lease.status is not LeaseStatus.ACTIVE or _ended(lease, day):
        return False
    return not _begun(lease, day) or all(tenant.status is TenantStatus.FUTURE for tenant in lease.tenants)


def _vacates(current: Sequence[LeaseSnapshot], sitting: set[int], day: date) -> tuple[date | None, tuple[Doubt, ...]]:
    """Work out when everybody will have left: only when all who live there gave notice is the unit on notice."""
    leaves: dict[int, date] = {}
    for lease in current:
        for move in lease.move_outs:
            leaves[move.tenant_id] = max(move.on, leaves.get(move.tenant_id, move.on))
        if lease.ends_by_itself and lease.ends_on is not None:
            for tenant in lease.tenants:
                leaves.setdefault(tenant.id, lease.ends_on)
    if not sitting or not sitting <= leaves.keys():
        return None, ()
    last = max(leaves[tenant] for tenant in sitting)
    return (last, ()) if last >= day else (day, (Doubt.OVERDUE_MOVE_OUT,))


def when(on: date, day: date) -> str:
    """Say a date as people do: ``Immediate``, the month within a year, else the ISO date."""
    if on <= day:
        return "Immediate"
    try:
        in_a_year = day.replace(year=day.year + 1)
    except ValueError:  # 29 February
        in_a_year = day.replace(year=day.year + 1, month=3, day=1)
    return calendar.month_name[on.month] if on < in_a_year else on.isoformat()


def turning_days(leases: Sequence[LeaseSnapshot], listing: ListingSnapshot | None) -> Iterator[date]:
    """Give every day on whose morning the standing of a unit may change without anything being said."""
    for lease in leases:
        if lease.starts_on:
            yield lease.starts_on
        if lease.ends_on and lease.ends_by_itself:
            yield lease.ends_on
            yield lease.ends_on + timedelta(days=1)
        for move in lease.move_outs:
            yield move.on
            yield move.on + timedelta(days=1)
    if listing and listing.available_on:
        yield listing.available_on
