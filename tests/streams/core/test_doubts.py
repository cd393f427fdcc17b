"""What is doubtful about the data of a property: kept in its row, and reported when it changes."""

from datetime import UTC, datetime, timedelta

import pytest

from schemas.codec import decode_as, encode
from schemas.delivery import Doubt, DoubtfulUnit, DoubtsRow, OfferedProperty
from streams.core.doubts import CONTRADICTIONS, TEXTS, doubtful_key, doubts_key, doubts_of, note_doubts
from streams.core.flows import DoubtChange
from streams.core.offer import Offer
from streams.core.rows import Rows
from tests.streams.core.views import MemoryView

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
OVERDUE, FLAG, RENT = Doubt.OVERDUE_MOVE_OUT, Doubt.OCCUPANCY_FLAG, Doubt.IMPLAUSIBLE_RENT
KEY = doubts_key("acme", "north", 10)


def note(
    view: MemoryView, *doubts: tuple[int, tuple[Doubt, ...]], units: set[int] | None = None, now: datetime = NOW
) -> list[DoubtChange]:
    """Note the doubts of property 10, or of some of its units, as it is offered."""
    rows = Rows(view)
    home = OfferedProperty(id=10, name="Sunset Apartments", address="1 Main St", is_active=True)
    changes = note_doubts(
        rows, "acme", "north", 10, Offer(home, (), doubts), None if units is None else frozenset(units), now
    )
    view.take(rows)
    return list(changes)


def change(doubt: Doubt, *units: int, appeared: bool = True) -> DoubtChange:
    return DoubtChange("acme", "north", doubt, appeared, 10, units)


def test_changes_are_reported_once_and_grouped_by_doubt() -> None:
    view = MemoryView()
    first = note(view, (1, (OVERDUE,)), (2, (OVERDUE, FLAG)))
    again = note(view, (1, (OVERDUE,)), (2, (OVERDUE, FLAG)))
    other = note(view, (2, (FLAG,)), (3, (RENT,)))
    end = note(view)

    assert first == [change(OVERDUE, 1, 2), change(FLAG, 2)]
    assert again == []
    assert other == [change(OVERDUE, 1, 2, appeared=False), change(RENT, 3)]
    assert end == [change(FLAG, 2, appeared=False), change(RENT, 3, appeared=False)]


def test_a_row_keeps_since_when_a_unit_has_its_doubts() -> None:
    view = MemoryView()
    note(view, (1, (OVERDUE,)), (2, (FLAG,)))
    later = NOW + timedelta(hours=1)
    note(view, (1, (OVERDUE,)), (2, (FLAG, RENT)), now=later)

    assert [decode_as(DoubtfulUnit, view[doubtful_key("acme", "north", 10, unit)]) for unit in (1, 2)] == [
        DoubtfulUnit(unit_id=1, doubts=(OVERDUE,), since=NOW),
        DoubtfulUnit(unit_id=2, doubts=(FLAG, RENT), since=later),
    ]


def test_the_doubts_of_other_units_stay_as_they_are() -> None:
    view = MemoryView()
    note(view, (1, (OVERDUE,)), (2, (FLAG,)))

    assert note(view, (2, (RENT,)), units={2, 3}) == [change(FLAG, 2, appeared=False), change(RENT, 2)]
    assert note(view, units={2}) == [change(RENT, 2, appeared=False)]
    assert note(view, units={1}) == [change(OVERDUE, 1, appeared=False)]


@pytest.mark.parametrize("units", [None, {1}])
def test_the_row_of_a_former_release_becomes_one_for_each_unit(units: set[int] | None) -> None:
    former = tuple(DoubtfulUnit(unit_id=unit, doubts=(OVERDUE,), since=NOW) for unit in (1, 2))
    view = MemoryView({KEY: encode(DoubtsRow(units=former))})
    later = NOW + timedelta(hours=1)

    assert note(view, (1, (OVERDUE,)), *([(2, (OVERDUE,))] if units is None else []), units=units, now=later) == []
    assert {key: decode_as(DoubtfulUnit, row) for key, row in view.items()} == {
        doubtful_key("acme", "north", 10, one.unit_id): one for one in former
    }


def test_a_property_without_doubts_gets_no_row() -> None:
    view = MemoryView()
    assert note(view) == []
    assert view == {}


def test_keys_carry_org_and_connection() -> None:
    assert KEY.startswith(doubts_of("acme", "north"))
    assert not KEY.startswith(doubts_of("acme", "nort"))
    assert doubts_key("acme", "north", 1) != doubts_key("other", "north", 1)


def test_every_doubt_has_a_text() -> None:
    assert set(TEXTS) == set(Doubt) - {Doubt.UNKNOWN}
    assert set(TEXTS) > CONTRADICTIONS
