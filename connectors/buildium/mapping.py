"""Mapping of Buildium's JSON to snapshots; the only module that knows its field names and its enums.

No personal data is read: the fast path does not even create Python objects of names, emails and phone numbers. An
unknown enum value becomes unknown and is not an error. A row without its ids is left out. An amount becomes a Decimal
of cents by its shortest text, so that 1850.1 becomes 1850.10.

A sweep of a large account reads a hundred pages of a thousand rows, so lists have a fast path, in which pydantic
extracts the needed fields, and a slow path for a list that contains a row that is not an object.
"""

import json
from collections.abc import Callable, Mapping
from datetime import date
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, Final, TypeAlias

from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from connectors.ports import Snapshot
from schemas.base import EntityKind
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

# --------------------------------------------------------------------------------------------------------------- enums

BEDROOMS: Final[Mapping[str, Decimal]] = {
    "Studio": Decimal(0),
    "OneBed": Decimal(1),
    "TwoBed": Decimal(2),
    "ThreeBed": Decimal(3),
    "FourBed": Decimal(4),
    "FiveBed": Decimal(5),
    "SixBed": Decimal(6),
    "SevenBed": Decimal(7),
    "EightBed": Decimal(8),
    "NineBedPlus": Decimal(9),
}

BATHROOMS: Final[Mapping[str, Decimal]] = {
    "OneBath": Decimal(1),
    "OnePointFiveBath": Decimal("1.5"),
    "TwoBath": Decimal(2),
    "TwoPointFiveBath": Decimal("2.5"),
    "ThreeBath": Decimal(3),
    "ThreePointFiveBath": Decimal("3.5"),
    "FourBath": Decimal(4),
    "FourPointFiveBath": Decimal("4.5"),
    "FiveBath": Decimal(5),
    "FivePlusBath": Decimal(5),
}

OR_MORE: Final = ("NineBedPlus", "FivePlusBath")
"""Values of the two enums that name the least number only."""

PROPERTY_TYPES: Final[Mapping[str, PropertyType]] = {
    "MultiFamily": PropertyType.APARTMENT,
    "CondoTownhome": PropertyType.CONDO_OR_TOWNHOME,
    "SingleFamily": PropertyType.HOUSE,
    "Industrial": PropertyType.COMMERCIAL,
    "Office": PropertyType.COMMERCIAL,
    "Retail": PropertyType.COMMERCIAL,
    "ShoppingCenter": PropertyType.COMMERCIAL,
    "Storage": PropertyType.COMMERCIAL,
    "ParkingSpace": PropertyType.COMMERCIAL,
}

LEASE_STATUSES: Final[Mapping[str, LeaseStatus]] = {
    "Future": LeaseStatus.FUTURE,
    "Active": LeaseStatus.ACTIVE,
    "Past": LeaseStatus.PAST,
}

TENANT_STATUSES: Final[Mapping[str, TenantStatus]] = {
    "Future": TenantStatus.FUTURE,
    "Current": TenantStatus.CURRENT,
    "MovedOut": TenantStatus.MOVED_OUT,
}

# ------------------------------------------------------------------------------------------------ fields that are read

_PICK = ConfigDict(extra="ignore")


class _Address(TypedDict, total=False):
    """``AddressMessage``."""

    __pydantic_config__ = _PICK  # type: ignore[misc]
    AddressLine1: Any
    City: Any
    State: Any
    PostalCode: Any
    Country: Any


class _Property(TypedDict, total=False):
    """``RentalMessage``."""

    __pydantic_config__ = _PICK  # type: ignore[misc]
    Id: Any
    Name: Any
    Address: _Address | None
    IsActive: Any
    RentalType: Any
    RentalSubType: Any


class _Unit(TypedDict, total=False):
    """``RentalUnitMessage``."""

    __pydantic_config__ = _PICK  # type: ignore[misc]
    Id: Any
    PropertyId: Any
    UnitNumber: Any
    BuildingName: Any
    MarketRent: Any
    UnitBedrooms: Any
    UnitBathrooms: Any
    UnitSize: Any
    IsUnitListed: Any
    IsUnitOccupied: Any


class _Lease(TypedDict, total=False):
    """``LeaseMessage``, without ``CurrentTenants`` and ``AccountDetails``."""

    __pydantic_config__ = _PICK  # type: ignore[misc]
    Id: Any
    PropertyId: Any
    UnitId: Any
    LeaseFromDate: Any
    LeaseToDate: Any
    LeaseStatus: Any
    AutomaticallyMoveOutTenants: Any
    IsEvictionPending: Any
    RenewalOfferStatus: Any
    Tenants: Any
    MoveOutData: Any


class _Tenant(TypedDict, total=False):
    """``TenantMessage``, only its leases."""

    __pydantic_config__ = _PICK  # type: ignore[misc]
    Id: Any
    Leases: list[_Lease] | None


class _ListingPart(TypedDict, total=False):
    """``ListingPropertyMessage`` and ``ListingUnitMessage``."""

    __pydantic_config__ = _PICK  # type: ignore[misc]
    Id: Any
    Features: Any


class _Listing(TypedDict, total=False):
    """``ListingMessage``."""

    __pydantic_config__ = _PICK  # type: ignore[misc]
    Rent: Any
    AvailableDate: Any
    Property: _ListingPart | None
    Unit: _ListingPart | None


_ROW: Final[Mapping[EntityKind, TypeAdapter[Any]]] = {
    EntityKind.PROPERTY: TypeAdapter(_Property),
    EntityKind.UNIT: TypeAdapter(_Unit),
    EntityKind.LEASE: TypeAdapter(_Lease),
    EntityKind.TENANT: TypeAdapter(_Tenant),
    EntityKind.LISTING: TypeAdapter(_Listing),
}
_ROWS: Final[Mapping[EntityKind, TypeAdapter[Any]]] = {
    EntityKind.PROPERTY: TypeAdapter(list[_Property]),
    EntityKind.UNIT: TypeAdapter(list[_Unit]),
    EntityKind.LEASE: TypeAdapter(list[_Lease]),
    EntityKind.LISTING: TypeAdapter(list[_Listing]),
}

Row: TypeAlias = Mapping[str, Any]

# ------------------------------------------------------------------------------------------------------- bytes to rows


def read_one(kind: EntityKind, body: bytes) -> Row | None:
    """Parse one entity; return null if the body is not a JSON object."""
    found = _read(_ROW[kind], body)
    return found if isinstance(found, dict) else None


def read_list(kind: EntityKind, body: bytes) -> list[Any] | None:
    """Parse a page of a list; return null if the body is not a JSON array. Rows are validated by `snapshot`."""
    found = _read(_ROWS[kind], body)
    return found if isinstance(found, list) else None


def _read(adapter: TypeAdapter[Any], body: bytes) -> Any:
    try:
        return adapter.validate_json(body)
    except ValidationError:
        pass
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


# --------------------------------------------------------------------------------------------------- rows to snapshots


def snapshot(kind: EntityKind, row: object) -> Snapshot | None:
    """Return the snapshot of a row; null if the row is not an object or lacks an id."""
    return _SNAPSHOTS[kind](row) if isinstance(row, dict) else None


def entity_id(found: Snapshot) -> int:
    """Return the id of an entity; that of a listing is the id of its unit."""
    return found.unit_id if isinstance(found, ListingSnapshot) else found.id


def tenant_leases(row: Row) -> tuple[list[LeaseSnapshot], list[int]]:
    """Return the complete leases of a tenant, and the ids of the incomplete ones, which have to be fetched.

    ``Leases`` holds leases of every status, in the same message as the lease itself, but with lists that may be null.
    A lease that is not past needs its tenants and move-outs.
    """
    complete: list[LeaseSnapshot] = []
    incomplete: list[int] = []
    leases = row.get("Leases")
    for lease in leases if isinstance(leases, list) else ():
        found = snapshot(EntityKind.LEASE, lease)
        if not isinstance(found, LeaseSnapshot):
            continue
        is_complete = isinstance(lease.get("Tenants"), list) and isinstance(lease.get("MoveOutData"), list)
        if is_complete or found.status is LeaseStatus.PAST:
            complete.append(found)
        else:
            incomplete.append(found.id)
    return complete, incomplete


def _property(row: Row) -> PropertySnapshot | None:
    number = _id(row.get("Id"))
    if number is None:
        return None
    address = row.get("Address")
    at: Row = address if isinstance(address, dict) else {}
    return PropertySnapshot(
        id=number,
        name=text(row.get("Name")) or "",
        address_line1=text(at.get("AddressLine1")),
        city=text(at.get("City")),
        state=text(at.get("State")),
        postal_code=text(at.get("PostalCode")),
        country=text(at.get("Country")),
        is_active=row.get("IsActive") is not False,
        type=_property_type(row.get("RentalType"), row.get("RentalSubType")),
    )


def _property_type(kind: object, sub: object) -> PropertyType:
    found = PROPERTY_TYPES.get(sub) if isinstance(sub, str) else None
    return found or (PropertyType.COMMERCIAL if kind == "Commercial" else PropertyType.UNKNOWN)


def _unit(row: Row) -> UnitSnapshot | None:
    number, owner = _id(row.get("Id")), _id(row.get("PropertyId"))
    if number is None or owner is None:
        return None
    bedrooms, bathrooms = row.get("UnitBedrooms"), row.get("UnitBathrooms")
    return UnitSnapshot(
        id=number,
        property_id=owner,
        code=text(row.get("UnitNumber")) or "",
        building=text(row.get("BuildingName")),
        market_rent=money(row.get("MarketRent")),
        implausible_rent=_is_implausible(row.get("MarketRent")),
        bedrooms=BEDROOMS.get(bedrooms) if isinstance(bedrooms, str) else None,
        bathrooms=BATHROOMS.get(bathrooms) if isinstance(bathrooms, str) else None,
        bedrooms_or_more=bedrooms in OR_MORE,
        bathrooms_or_more=bathrooms in OR_MORE,
        size=_size(row.get("UnitSize")),
        is_listed=_flag(row.get("IsUnitListed")),
        is_occupied=_flag(row.get("IsUnitOccupied")),
    )


def _lease(row: Row) -> LeaseSnapshot | None:
    number, owner, unit = _id(row.get("Id")), _id(row.get("PropertyId")), _id(row.get("UnitId"))
    if number is None or owner is None or unit is None:
        return None
    status, renewal = row.get("LeaseStatus"), text(row.get("RenewalOfferStatus"))
    return LeaseSnapshot(
        id=number,
        property_id=owner,
        unit_id=unit,
        starts_on=day(row.get("LeaseFromDate")),
        ends_on=day(row.get("LeaseToDate")),
        status=LEASE_STATUSES.get(status, LeaseStatus.UNKNOWN) if isinstance(status, str) else LeaseStatus.UNKNOWN,
        ends_by_itself=row.get("AutomaticallyMoveOutTenants") is True,
        eviction_pending=row.get("IsEvictionPending") is True,
        renewal=None if renewal == "NotSet" else renewal,
        tenants=_tenants(row.get("Tenants")),
        move_outs=_move_outs(row.get("MoveOutData")),
    )


def _tenants(rows: object) -> tuple[LeaseTenant, ...]:
    found = []
    for row in rows if isinstance(rows, list) else ():
        if not isinstance(row, dict) or (number := _id(row.get("Id"))) is None:
            continue
        status = row.get("Status")
        known = TENANT_STATUSES.get(status, TenantStatus.UNKNOWN) if isinstance(status, str) else TenantStatus.UNKNOWN
        found.append(LeaseTenant(id=number, status=known, move_in=day(row.get("MoveInDate"))))
    return tuple(found) if len(found) < 2 else tuple(sorted(found, key=lambda tenant: tenant.id))


def _move_outs(rows: object) -> tuple[MoveOut, ...]:
    found = []
    for row in rows if isinstance(rows, list) else ():
        if not isinstance(row, dict):
            continue
        number, on = _id(row.get("TenantId")), day(row.get("MoveOutDate"))
        if number is not None and on is not None:
            found.append(MoveOut(tenant_id=number, on=on, notice_given=day(row.get("NoticeGivenDate"))))
    return tuple(found) if len(found) < 2 else tuple(sorted(found, key=lambda move_out: move_out.tenant_id))


def _listing(row: Row) -> ListingSnapshot | None:
    unit, of = row.get("Unit"), row.get("Property")
    if not isinstance(unit, dict) or (number := _id(unit.get("Id"))) is None:
        return None
    of = of if isinstance(of, dict) else {}
    return ListingSnapshot(
        unit_id=number,
        property_id=_id(of.get("Id")),
        rent=money(row.get("Rent")),
        implausible_rent=_is_implausible(row.get("Rent")),
        available_on=day(row.get("AvailableDate")),
        features=tuple(sorted({*_names(unit.get("Features")), *_names(of.get("Features"))})),
    )


_SNAPSHOTS: Final[Mapping[EntityKind, Callable[[Row], Snapshot | None]]] = {
    EntityKind.PROPERTY: _property,
    EntityKind.UNIT: _unit,
    EntityKind.LEASE: _lease,
    EntityKind.LISTING: _listing,
}

# --------------------------------------------------------------------------------------------------------------- values

_LARGEST: Final = 2**63 - 1
_CENT: Final = Decimal("0.01")
_TOO_MUCH: Final = Decimal(10**12)
_NEVER: Final = date(1, 1, 1)
"""The value of a .NET date that was never set."""


def text(value: object) -> str | None:
    """Return a string without surrounding white space and NUL, which SQL does not accept; null if it is empty."""
    if not isinstance(value, str):
        return None
    bare = value.replace("\x00", "").strip()
    if not bare.isascii():
        bare = bare.encode("utf-8", "replace").decode()
    return bare or None


def money(value: object) -> Decimal | None:
    """Return an amount with two digits after the point; null if it is not a number or out of range."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return _cents(value)


def _is_implausible(value: object) -> bool:
    """Return whether there is an amount that is none: not a number, not finite, or out of range."""
    return value is not None and money(value) is None


@lru_cache(maxsize=8192)
def _cents(value: float) -> Decimal | None:
    try:
        amount = Decimal(str(value))
        if not amount.is_finite() or abs(amount) >= _TOO_MUCH:
            return None
        cents = amount.quantize(_CENT, ROUND_HALF_UP)
        return cents if abs(cents) < _TOO_MUCH else None
    except (InvalidOperation, ValueError):
        return None


def day(value: object) -> date | None:
    """Return a calendar date, from text with or without a time; null if it is not valid or was never set."""
    if not isinstance(value, str) or not (len(value) == 10 or value[10:11] == "T"):
        return None
    return _calendar_day(value[:10])


@lru_cache(maxsize=8192)
def _calendar_day(value: str) -> date | None:
    try:
        found = date.fromisoformat(value)
    except ValueError:
        return None
    return None if found == _NEVER else found


def _id(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LARGEST else None


def _size(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if 0 < value <= 10**9 else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _names(value: object) -> list[str]:
    return [name for one in value if (name := text(one))] if isinstance(value, list) else []
