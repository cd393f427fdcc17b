"""Which units of a property are due, and how records of the same property become one."""

from typing import Final

from schemas.delivery import DeliveryDue

MOST_UNITS: Final = 200
"""The most units that are named one by one; with more of them the whole property is due."""

Units = frozenset[int] | None
"""Units of a property; null: all of them."""


def united(first: Units, second: Units) -> Units:
    """Return the units of both."""
    if first is None or second is None:
        return None
    both = first | second
    return both if len(both) <= MOST_UNITS else None


def units_of_due(due: DeliveryDue) -> Units:
    """Return the units that a record names."""
    return None if due.units is None else frozenset(due.units)


def named(units: Units) -> tuple[int, ...] | None:
    """Return units in the form of a record or a row."""
    return None if units is None else tuple(sorted(units))


def merge(first: DeliveryDue, second: DeliveryDue) -> DeliveryDue:
    """Return one record for two of the same property, the second of which follows the first."""
    units = united(units_of_due(first), units_of_due(second))
    if second.after != first.mark:
        units = None  # the mark in between has units that neither names
    return first.model_copy(
        update={
            "seen_at": min(first.seen_at, second.seen_at),
            "units": named(units),
            "mark": max(first.mark, second.mark),
            "after": min(first.after, second.after),
        }
    )
