"""The index of the days on which units change without an event."""

from datetime import date

from schemas.delivery import OfferedProperty
from streams.core.dates import dates_of, note_dates, passed
from streams.core.offer import Offer
from streams.core.rows import Rows
from tests.streams.core.views import MemoryView

HOME = OfferedProperty(id=10, name="Sunset Apartments", address="1 Main St", is_active=True)
MAY, JUNE, JULY = date(2026, 5, 1), date(2026, 6, 1), date(2026, 7, 1)


def note(view: MemoryView, *changes: tuple[int, date], units: set[int] | None = None, org: str = "acme") -> None:
    """Note the next dates of property 10, or of some of its units."""
    rows = Rows(view)
    note_dates(rows, org, "north", 10, Offer(HOME, (), (), changes), None if units is None else frozenset(units))
    view.take(rows)


def found(view: MemoryView, today: date) -> list[int]:
    return [unit for _, unit in passed(view, "acme", "north", today)]


def test_units_are_found_from_their_day_on_in_the_order_of_the_days() -> None:
    view = MemoryView()
    note(view, (1, JULY), (2, MAY), (3, JUNE))

    assert [found(view, day) for day in (date(2026, 4, 30), MAY, JUNE, date(2027, 1, 1))] == [
        [],
        [2],
        [2, 3],
        [2, 3, 1],
    ]


def test_a_unit_has_one_entry() -> None:
    view = MemoryView()
    note(view, (1, MAY), (2, MAY))
    note(view, (1, JULY), units={1, 3})
    assert (found(view, JUNE), found(view, JULY)) == ([2], [2, 1])

    note(view, units={2})
    assert found(view, JULY) == [1]
    note(view)
    assert not view


def test_what_stays_as_it_is_is_not_written() -> None:
    view = MemoryView()
    note(view, (1, MAY))
    rows = Rows(view)
    note_dates(rows, "acme", "north", 10, Offer(HOME, (), (), ((1, MAY),)), None)
    rows.keep()

    assert rows.encoded() == {}


def test_accounts_have_an_index_of_their_own() -> None:
    view = MemoryView()
    note(view, (1, MAY), org="other")

    assert found(view, JULY) == []
    assert not dates_of("acme", "nort").startswith(dates_of("acme", "north"))
    assert not dates_of("acme", "north").startswith(dates_of("acme", "nort"))
