"""What is doubtful about the data of a unit: kept in a row of it, so that people see it, and reported when it changes.

A doubt never changes what a receiver is sent: that follows from `streams.core.availability` alone.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from schemas.delivery import Doubt, DoubtfulUnit, DoubtsRow
from streams.core.due import Units
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
    """Return the key of the row of a property in former releases, and the beginning of those of its units."""
    return doubts_of(org, connection) + b"%012d" % property_id


def doubtful_key(org: str, connection: str, property_id: int, unit: int) -> bytes:
    """Return the key of the row of a unit, in the table of the deliveries."""
    return doubts_key(org, connection, property_id) + b"/%012d" % unit


def note_doubts(
    rows: Rows, org: str, connection: str, property_id: int, offer: Offer, units: Units, now: datetime
) -> tuple[DoubtChange, ...]:
    """Write what is doubtful about these units of a property, as they are offered; return what changed."""
    prefix = doubts_key(org, connection, property_id) + b"/"
    _convert(rows, org, connection, property_id)
    if units is None:
        before = {int(key[len(prefix) :]): read() for key, read in rows.scan(DoubtfulUnit, prefix)}
    else:
        found = ((unit, rows.find(DoubtfulUnit, prefix + b"%012d" % unit)) for unit in units)
        before = {unit: row for unit, row in found if row is not None}
    after = dict(offer.doubts)
    for unit in before.keys() - after.keys():
        rows.remove(prefix + b"%012d" % unit)
    for unit, doubts in after.items():
        if unit not in before or before[unit].doubts != doubts:
            rows.put(prefix + b"%012d" % unit, DoubtfulUnit(unit_id=unit, doubts=doubts, since=now))
    was, is_ = _by_doubt({unit: row.doubts for unit, row in before.items()}), _by_doubt(after)
    return tuple(
        DoubtChange(org, connection, doubt, appeared, property_id, tuple(sorted(changed)))
        for doubt in Doubt
        for appeared, changed in (
            (True, is_.get(doubt, set()) - was.get(doubt, set())),
            (False, was.get(doubt, set()) - is_.get(doubt, set())),
        )
        if changed
    )


def _convert(rows: Rows, org: str, connection: str, property_id: int) -> None:
    """Turn the row of a former release into one for each unit."""
    key = doubts_key(org, connection, property_id)
    former = rows.find(DoubtsRow, key)
    if former is not None:
        for one in former.units:
            rows.put(doubtful_key(org, connection, property_id, one.unit_id), one)
        rows.remove(key)


def _by_doubt(units: Mapping[int, tuple[Doubt, ...]]) -> dict[Doubt, set[int]]:
    found: dict[Doubt, set[int]] = {}
    for unit, doubts in units.items():
        for doubt in doubts:
            found.setdefault(doubt, set()).add(unit)
    return found
