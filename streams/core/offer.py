"""What receivers are offered of a property: its rows of the rent roll, read on a day."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date

import msgspec
from msgspec.structs import asdict

from connectors.ports import DEFAULT_RULES, LeasingRules
from schemas.codec import decode_as
from schemas.delivery import Doubt, OfferedProperty, OfferedUnit
from schemas.rent_roll import (
    AccountRow,
    LeaseSnapshot,
    ListingSnapshot,
    MarkRow,
    PropertyRow,
    PropertySnapshot,
    PropertyType,
    UnitRow,
    UnitSnapshot,
)
from streams.core.availability import Status, dates_of_change, derive_availability
from streams.core.flows import View
from streams.core.rent_roll import account_key, mark_key, property_key, scope, unit_key
from streams.core.rent_roll.firsts import is_read
from streams.core.rent_roll.keys import members_of
from streams.core.rent_roll.members import units_in
from streams.core.rows import R, read_row

DWELLING: dict[PropertyType, str] = {PropertyType.APARTMENT: "Apartment", PropertyType.HOUSE: "House"}
"""Null for a condominium or town house: the PMS does not distinguish the two."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A property with its units, removed ones included, as of a day: all of them, or those that were asked for."""

    property: OfferedProperty
    units: tuple[OfferedUnit, ...]
    doubts: tuple[tuple[int, tuple[Doubt, ...]], ...] = ()
    """What is doubtful, by unit; units without doubts are left out."""
    changes: tuple[tuple[int, date], ...] = ()
    """The next day on which the availability may change without an event, by unit; units without one are left out."""
    mark: int = 0
    """Sequence of the last mark of the property that is in the rent roll; 0 if there is none."""


def offer(
    view: View,
    org: str,
    connection: str,
    property_id: int,
    day: date,
    *,
    rules: LeasingRules = DEFAULT_RULES,
    excluded: bool = False,
    units: Collection[int] | None = None,
) -> Offer | None:
    """Return what is offered of a property on ``day``, read from the rent roll; only these ``units`` if given.

    Null where there is nothing to offer: before the first complete sweep, and for a property that was never fetched. A
    commercial property, and one that is ``excluded`` from the integration, is offered like an inactive one: what was
    sent of it before becomes unavailable. A unit is left out before its leases and its listing were read. Raise
    `streams.core.rows.UnreadableRow`.
    """
    prefix = scope(org, connection)
    account = _found(view, AccountRow, account_key(prefix))
    if account is None:
        return None
    row = _found(view, PropertyRow, property_key(prefix, property_id))
    if row is None or row.body is None:
        return None
    building = decode_as(PropertySnapshot, row.body)
    if excluded or building.type is PropertyType.COMMERCIAL:
        building = building.model_copy(update={"is_active": False})
    offers: list[OfferedUnit] = []
    doubts: list[tuple[int, tuple[Doubt, ...]]] = []
    changes: list[tuple[int, date]] = []
    if units is None:
        units = units_in(row, (key for key, _ in view.scan(members_of(prefix, property_id))))
    for unit_id in sorted(units):
        unit = _found(view, UnitRow, unit_key(prefix, unit_id))
        if unit is None or unit.body is None or unit.property_id != property_id or not is_read(unit, account):
            continue
        gone = unit.gone or row.gone
        offered, found, changes_on = offered_unit(unit, building, day, gone=gone, rules=rules)
        offers.append(offered)
        if changes_on is not None:
            changes.append((unit_id, changes_on))
        if found:
            doubts.append((unit_id, found))
    parts = (building.address_line1, building.city, building.state)
    head = OfferedProperty(
        id=building.id,
        name=building.name,
        address=", ".join(part for part in parts if part),
        is_active=building.is_active and not row.gone,
    )
    mark = _found(view, MarkRow, mark_key(prefix, property_id))
    return Offer(head, tuple(offers), tuple(doubts), tuple(changes), mark.seq if mark else 0)


def _found(view: View, record: type[R], key: bytes) -> R | None:
    raw = view.get(key)
    return None if raw is None else read_row(record, key, raw)


def offered_unit(
    row: UnitRow, building: PropertySnapshot, day: date, *, gone: bool, rules: LeasingRules = DEFAULT_RULES
) -> tuple[OfferedUnit, tuple[Doubt, ...], date | None]:
    """Return a unit as it is offered on ``day``, what is doubtful about it, and when it may change without an event."""
    unit = decode_as(UnitSnapshot, row.body)
    listing = None if row.listing is None else decode_as(ListingSnapshot, row.listing)
    leases = [decode_as(LeaseSnapshot, entry.body) for entry in row.leases]
    found = derive_availability(unit, leases, listing, building, day, gone=gone, rules=rules)
    features = set(listing.features) if listing else set()
    passing = () if gone or not building.is_active else dates_of_change(leases, listing, rules=rules)
    return (
        OfferedUnit(
            id=unit.id,
            code=unit.code,
            building=unit.building,
            state=found.state,
            status=found.status.value,
            is_available=found.is_available,
            available_on=found.available_on,
            when_available=found.when_available,
            base_rent=found.rent,
            size=unit.size,
            bedrooms=unit.bedrooms,
            bathrooms=unit.bathrooms,
            dwelling_type=DWELLING.get(building.type),
            has_garage=True if "GarageParking" in features else None,
            pets_allowed=1 if features & {"PetsAllowed", "DogFriendly", "CatFriendly"} else None,
        ),
        found.doubts,
        min((on for on in passing if on > day), default=None),
    )


def digest(building: OfferedProperty, unit: OfferedUnit) -> bytes:
    """Return eight bytes of a digest of what a receiver gets of a unit: equal digests need no batch.

    Left out are the finer status, which receivers do not get, and the date of a unit that is available at once: it is
    so on every further day. Of a unit that has left the scope only that counts: it is sent once.
    """
    if unit.status == Status.EXCLUDED:
        return hashlib.blake2b(f"{unit.id} {unit.state}".encode(), digest_size=8).digest()
    quiet = {"status"} | ({"available_on"} if unit.when_available == "Immediate" else set())
    known = {name: value for name, value in asdict(unit).items() if value is not None and name not in quiet}
    text = msgspec.json.encode(building) + msgspec.json.encode(known)
    return hashlib.blake2b(text, digest_size=8).digest()
