"""What is doubtful about the data of a property: kept in a row, so that people see it, and reported when it changes.

A doubt never changes what a receiver is sent: that follows from `streams.core.availability` alone.
"""

from datetime import datetime
from typing import Final

from schemas.delivery import Doubt, DoubtfulUnit, DoubtsRow
from streams.core.flows import DoubtChange
from streams.core.offer import Offer
from streams.core.rows import Rows

TEXTS: Final[dict[Doubt, str]] = {
    Doubt.LISTED_WHILE_OCCUPIED: "has a listing, but is occupied and no tenant has given notice",
    Doubt.OVERDUE_MOVE_OUT: "has a tenant who is still current after the day of moving out",
    Doubt.OCCUPANCY_FLAG: "is occupied according to its leases and vacant according to the PMS, or the reverse",
    Doubt.IMPLAUSIBLE_RENT: "has a rent that is not a plausible amount",
    Doubt.AMBIGUOUS_DWELLING: "is a condominium or a townhome: the PMS does not distinguish the two",
    Doubt.BEDROOMS_OR_MORE: "has the number of bedrooms given, or more",
    Doubt.BATHROOMS_OR_MORE: "has the number of bathrooms given, or more",
    Doubt.NO_TIME_ZONE: "has no time zone: its dates are read in UTC",
}
"""Each doubt as the end of a sentence that begins with the unit; the last one with the connection."""

CONTRADICTIONS: Final = frozenset({Doubt.LISTED_WHILE_OCCUPIED, Doubt.OVERDUE_MOVE_OUT, Doubt.IMPLAUSIBLE_RENT})
"""Doubts that a person should correct in the PMS; the others are limits of what it knows, or end by themselves."""


def doubts_of(org: str, connection: str) -> bytes:
    """Return the prefix of the rows of a connection; it names no receiver, since doubts are about the PMS's data."""
    return f"{org}//{connection}/d/".encode()


def doubts_key(org: str, connection: str, property_id: int) -> bytes:
    """Return the key of the row of a property, in the table of the deliveries."""
    return doubts_of(org, connection) + b"%012d" % property_id


def note_doubts(
    rows: Rows, org: str, connection: str, property_id: int, offer: Offer, now: datetime
) -> tuple[DoubtChange, ...]:
    """Write what is doubtful about a property as it is offered; return what changed."""
    key = doubts_key(org, connection, property_id)
    before = (rows.find(DoubtsRow, key) or DoubtsRow()).units
    known = {one.unit_id: one for one in before}
    found = tuple(_doubtful(known.get(unit), unit, doubts, now) for unit, doubts in offer.doubts)
    if found == before:
        return ()
    rows.put(key, DoubtsRow(units=found))
    was, is_ = _by_doubt(before), _by_doubt(found)
    return tuple(
        DoubtChange(org, connection, doubt, appeared, property_id, tuple(sorted(units)))
        for doubt in Doubt
        for appeared, units in (
            (True, is_.get(doubt, set()) - was.get(doubt, set())),
            (False, was.get(doubt, set()) - is_.get(doubt, set())),
        )
        if units
    )


def _doubtful(before: DoubtfulUnit | None, unit: int, doubts: tuple[Doubt, ...], now: datetime) -> DoubtfulUnit:
    if before is not None and before.doubts == doubts:
        return before
    return DoubtfulUnit(unit_id=unit, doubts=doubts, since=now)


def _by_doubt(units: tuple[DoubtfulUnit, ...]) -> dict[Doubt, set[int]]:
    found: dict[Doubt, set[int]] = {}
    for one in units:
        for doubt in one.doubts:
            found.setdefault(doubt, set()).add(one.unit_id)
    return found
