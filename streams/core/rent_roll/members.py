"""Which units a property has: an index with a row for each unit, so that a change costs the same in every property."""

from collections.abc import Iterable

from schemas.rent_roll import MemberRow, PropertyRow
from streams.core.rent_roll.keys import id_of, member_key, members_of, property_key
from streams.core.rows import Rows


def units_in(row: PropertyRow, keys: Iterable[bytes]) -> tuple[int, ...]:
    """Return the units of a property, by id: those in the keys of its index, or in its row of a former release."""
    return tuple(sorted({id_of(key) for key in keys} | {*row.units}))


def units_of_property(rows: Rows, prefix: bytes, property_id: int) -> tuple[int, ...]:
    """Return the units of a property, by id; none if it has no row."""
    row = rows.find(PropertyRow, property_key(prefix, property_id))
    if row is None:
        return ()
    return units_in(row, (key for key, _ in rows.scan(MemberRow, members_of(prefix, property_id))))


def note_member(rows: Rows, prefix: bytes, property_id: int, row: PropertyRow, unit: int, *, belongs: bool) -> None:
    """Add a unit to the index of a property, or remove it; ``row`` is the property's."""
    if row.units:  # of a former release
        for one in row.units:
            rows.put(member_key(prefix, property_id, one), MemberRow(unit_id=one))
        rows.put(property_key(prefix, property_id), row.model_copy(update={"units": ()}))
    key = member_key(prefix, property_id, unit)
    if not belongs:
        rows.remove(key)
    elif rows.find(MemberRow, key) is None:
        rows.put(key, MemberRow(unit_id=unit))
