"""Which units of a property are due, and how two records of the same property become one."""

from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from schemas.delivery import DeliveryDue, DueReason
from streams.core.due import MOST_UNITS, merge, named, united, units_of_due
from tests.streams.core.delivery.offers import NOW


def due(*units: int, mark: int = 0, after: int = 0, **more: Any) -> DeliveryDue:
    given = {"org": "o", "connection": "c", "property_id": 10, "reason": DueReason.CHANGED, "seen_at": NOW}
    return DeliveryDue.model_validate(given | {"units": units, "mark": mark, "after": after} | more)


def test_merged_records_name_the_units_and_marks_of_both() -> None:
    found = merge(due(1, 2, mark=5, after=3), due(2, 9, mark=8, after=5))

    assert (found.units, found.mark, found.after) == ((1, 2, 9), 8, 3)


def test_merged_records_keep_the_older_moment() -> None:
    later = NOW + timedelta(seconds=1)

    assert merge(due(seen_at=later), due()).seen_at == merge(due(), due(seen_at=later)).seen_at == NOW


def test_a_mark_that_neither_stands_for_makes_the_whole_property_due() -> None:
    assert merge(due(1, mark=5, after=3), due(2, mark=8, after=6)).units is None


def test_the_whole_property_and_some_units_are_the_whole_property() -> None:
    assert merge(due(1, mark=5), due(mark=6, after=5, units=None)).units is None
    assert merge(due(mark=5, units=None), due(1, mark=6, after=5)).units is None


@given(st.frozensets(st.integers(1, 400)), st.frozensets(st.integers(1, 400)))
def test_many_units_become_all_of_them(first: frozenset[int], second: frozenset[int]) -> None:
    both = first | second

    assert united(first, second) == (both if len(both) <= MOST_UNITS else None)


def test_units_have_the_same_form_in_records_and_rows() -> None:
    assert (named(frozenset({3, 1})), named(None)) == ((1, 3), None)
    assert (units_of_due(due(3, 1)), units_of_due(due(units=None))) == (frozenset({1, 3}), None)
