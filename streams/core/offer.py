"""What a property is offered as: its rows of the rent roll, read on a day, in the receivers' common words."""

import hashlib
from dataclasses import dataclass
from datetime import date

from schemas.codec import decode_as
from schemas.delivery import OfferedProperty, OfferedUnit
from schemas.rent_roll import (
    AccountRow,
    LeaseSnapshot,
    ListingSnapshot,
    PropertyRow,
    PropertySnapshot,
    PropertyType,
    UnitRow,
    UnitSnapshot,
)
from streams.core.availability import Doubt, availability
from streams.core.flows import View
from streams.core.rent_roll import account_key, property_key, scope, unit_key

DWELLING: dict[PropertyType, str] = {PropertyType.APARTMENT: "Apartment", PropertyType.HOUSE: "House"}
"""A condominium or town house is one of two things that the PMS does not tell apart: nobody knows, so null."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A property with all its units, those that are gone included, as of a day."""

    property: OfferedProperty
    units: tuple[OfferedUnit, ...]
    doubts: tuple[tuple[int, Doubt], ...] = ()


def offer(view: View, org: str, connection: str, property_id: int, day: date) -> Offer | None:
    """Read a property from the rent roll.

    Null where there is nothing to offer: before the first complete sweep, for a property that was never seen, and for
    a commercial one.
    """
    at = scope(org, connection)
    if view.get(account_key(at)) is None:
        return None
    raw = view.get(property_key(at, property_id))
    row = None if raw is None else decode_as(PropertyRow, raw)
    if row is None or row.body is None:
        return None
    building = decode_as(PropertySnapshot, row.body)
    if building.type is PropertyType.COMMERCIAL:
        return None
    units: list[OfferedUnit] = []
    doubts: list[tuple[int, Doubt]] = []
    for unit_id in row.units:
        held = view.get(unit_key(at, unit_id))
        unit = None if held is None else decode_as(UnitRow, held)
        if unit is None or unit.body is None or unit.property_id != property_id:
            continue
        told, unsure = offered_unit(unit, building, day, gone=unit.gone or row.gone)
        units.append(told)
        doubts += [(unit_id, doubt) for doubt in unsure]
    parts = (building.address_line1, building.city, building.state)
    head = OfferedProperty(
        id=building.id,
        name=building.name,
        address=", ".join(part for part in parts if part),
        is_active=building.is_active and not row.gone,
    )
    return Offer(head, tuple(units), tuple(doubts))


def is_swept(view: View, org: str, connection: str) -> AccountRow | None:
    """Give what is known of a connection once its first sweep is complete."""
    raw = view.get(account_key(scope(org, connection)))
    return None if raw is None else decode_as(AccountRow, raw)


def offered_unit(
    row: UnitRow, building: PropertySnapshot, day: date, *, gone: bool
) -> tuple[OfferedUnit, tuple[Doubt, ...]]:
    """Say what a unit is offered as on ``day``."""
    unit = decode_as(UnitSnapshot, row.body)
    listing = None if row.listing is None else decode_as(ListingSnapshot, row.listing)
    leases = [decode_as(LeaseSnapshot, entry.body) for entry in row.leases]
    stands = availability(unit, leases, listing, building, day, gone=gone)
    features = set(listing.features) if listing else set()
    return OfferedUnit(
        id=unit.id,
        code=unit.code,
        building=unit.building,
        state=stands.state,
        status=stands.status.value,
        is_available=stands.is_available,
        available_on=stands.available_on,
        when_available=stands.when_available,
        base_rent=stands.rent,
        size=unit.size,
        bedrooms=unit.bedrooms,
        bathrooms=unit.bathrooms,
        dwelling_type=DWELLING.get(building.type),
        has_garage=True if "GarageParking" in features else None,
        pets_allowed=1 if features & {"PetsAllowed", "DogFriendly", "CatFriendly"} else None,
    ), stands.doubts


def digest(building: OfferedProperty, unit: OfferedUnit) -> bytes:
    """Take eight bytes of what a receiver is told of a unit: equal digests need no batch.

    The finer status is not told, and a unit that is free at once is so on every further day.
    """
    quiet = {"status"} | ({"available_on"} if unit.when_available == "Immediate" else set())
    said = building.model_dump_json() + unit.model_dump_json(exclude=quiet, exclude_none=True)
    return hashlib.blake2b(said.encode(), digest_size=8).digest()
