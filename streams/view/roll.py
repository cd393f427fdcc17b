"""What the view shows of a unit: its row of the rent roll with those of its property and its account, on a day.

Receivers are offered the same (`streams.core.offer`); the view shows a unit also before everything was read that
decides it, as not ``offered``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from connectors.ports import DEFAULT_RULES, LeasingRules
from schemas.codec import decode_as
from schemas.delivery import OfferedProperty
from schemas.rent_roll import AccountRow, PropertyRow, PropertySnapshot, PropertyType, UnitRow, UnitSnapshot
from streams.core.offer import digest, offered_unit
from streams.core.rent_roll.firsts import is_read

UNREAD: Final = {"state": "unavailable", "status": "unknown", "is_available": False}
"""What is shown of a unit whose property was not read yet."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What decides, besides the rows, what a unit is."""

    day: date
    rules: LeasingRules = DEFAULT_RULES
    excluded: bool = False
    """Whether the property does not take part."""


def unit_values(
    org: str, connection: str, raw: bytes, row: UnitRow, building: bytes | None, account: bytes | None, terms: Terms
) -> Mapping[str, Any]:
    """Return the row of a unit in the view.

    ``row`` is the decoded ``raw``, whose body and property are known; ``building`` and ``account`` are the encoded rows
    of its property and its account, null if there is none.
    """
    unit = decode_as(UnitSnapshot, row.body)
    values: dict[str, Any] = {
        "org_id": org,
        "connection": connection,
        "unit_id": unit.id,
        "property_id": row.property_id,
        "code": unit.code,
        "building": unit.building,
        "available_on": None,
        "when_available": None,
        "rent": None,
        "size": unit.size,
        "bedrooms": unit.bedrooms,
        "bathrooms": unit.bathrooms,
        "doubts": [],
        "version": row.version,
        "fetched_at": row.fetched_at,
        "offered": False,
        "digest": None,
        "changes_on": None,
        "search": f"{unit.code} {unit.building or ''}".strip().casefold(),
        "raw": raw,
        **UNREAD,
    }
    owner = None if building is None else decode_as(PropertyRow, building)
    if owner is None or owner.body is None:
        return values
    snapshot = decode_as(PropertySnapshot, owner.body)
    if terms.excluded or snapshot.type is PropertyType.COMMERCIAL:
        snapshot = snapshot.model_copy(update={"is_active": False})
    gone = row.gone or owner.gone
    found, doubts, changes_on = offered_unit(row, snapshot, terms.day, gone=gone, rules=terms.rules)
    parts = (snapshot.address_line1, snapshot.city, snapshot.state)
    address = ", ".join(part for part in parts if part)
    head = OfferedProperty(
        id=snapshot.id, name=snapshot.name, address=address, is_active=snapshot.is_active and not owner.gone
    )
    values |= {
        "state": found.state.value,
        "status": found.status,
        "is_available": found.is_available,
        "available_on": found.available_on,
        "when_available": found.when_available,
        "rent": found.base_rent,
        "doubts": [doubt.value for doubt in doubts],
        "offered": account is not None and is_read(row, decode_as(AccountRow, account)),
        "digest": digest(head, found),
        "changes_on": changes_on,
        "search": f"{unit.code} {unit.building or ''} {snapshot.name} {address}".casefold(),
    }
    return values
