"""Which units a passing date will change: an index by day, so that nothing else is looked at after midnight.

A unit has one entry, for the next day on which its availability may change without an event. It is written when the
unit is cut, so it holds for the rules and the time zone of that moment; another configuration makes everything due.
"""

from collections.abc import Iterator
from datetime import date

from schemas.delivery import NextDateRow
from streams.core.due import Units
from streams.core.flows import View
from streams.core.offer import Offer
from streams.core.rows import Rows


def dates_of(org: str, connection: str) -> bytes:
    """Return the prefix of the index of a connection; it names no receiver, since it is the same for all."""
    return f"{org}//{connection}/t/".encode()


def date_key(org: str, connection: str, on: date, property_id: int, unit: int) -> bytes:
    """Return the key of a unit in the index."""
    return dates_of(org, connection) + f"{on.isoformat()}/{property_id:012d}/{unit:012d}".encode()


def next_of(org: str, connection: str, property_id: int) -> bytes:
    """Return the prefix of the rows of a property's units."""
    return f"{org}//{connection}/n/{property_id:012d}/".encode()


def note_dates(rows: Rows, org: str, connection: str, property_id: int, offer: Offer, units: Units) -> None:
    """Write the next dates of these units of a property, as they are offered."""
    prefix = next_of(org, connection, property_id)
    if units is None:
        before = {int(key[len(prefix) :]): read().on for key, read in rows.scan(NextDateRow, prefix)}
    else:
        found = ((unit, rows.find(NextDateRow, prefix + b"%012d" % unit)) for unit in units)
        before = {unit: row.on for unit, row in found if row is not None}
    after = dict(offer.changes)
    for unit in before.keys() | after.keys():
        was, is_ = before.get(unit), after.get(unit)
        if was == is_:
            continue
        if was is not None:
            rows.remove(date_key(org, connection, was, property_id, unit))
        if is_ is None:
            rows.remove(prefix + b"%012d" % unit)
        else:
            rows.put(prefix + b"%012d" % unit, NextDateRow(on=is_))
            rows.put(date_key(org, connection, is_, property_id, unit), NextDateRow(on=is_))


def passed(view: View, org: str, connection: str, today: date) -> Iterator[tuple[int, int]]:
    """Yield property and unit of every entry up to ``today``, in the order of the dates."""
    prefix = dates_of(org, connection)
    for key, _ in view.scan(prefix):
        on, property_id, unit = key[len(prefix) :].decode().split("/")
        if date.fromisoformat(on) > today:
            return
        yield int(property_id), int(unit)
