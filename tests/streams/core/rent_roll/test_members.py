"""Which units a property has: a row for each unit, and the rows of former releases."""

from schemas.base import EntityKind
from schemas.codec import decode_as, encode
from schemas.rent_roll import PropertyRow
from streams.core.rent_roll.keys import member_key, property_key
from streams.core.rent_roll.members import units_of_property
from streams.core.rows import Rows
from tests.streams.core.rent_roll.rolls import NOW, PREFIX, building, fold, page, swept, unit
from tests.streams.core.views import MemoryView


def members(view: MemoryView, property_id: int = 10) -> tuple[int, ...]:
    return units_of_property(Rows(view), PREFIX, property_id)


def test_units_come_and_go_and_the_row_of_the_property_stays_as_it_is() -> None:
    view = swept()
    before = view[property_key(PREFIX, 10)]
    fold(view, page(EntityKind.UNIT, 20, unit(2), unit(3)))
    assert members(view) == (1, 2, 3)

    fold(view, page(EntityKind.UNIT, 21, unit(2, property_id=11)))
    assert (members(view), members(view, 11)) == ((1, 3), (2,))
    assert view[property_key(PREFIX, 10)] == before


def test_units_of_the_same_batch_are_found() -> None:
    view = swept()
    rows = Rows(view)
    rows.put(member_key(PREFIX, 10, 7), rows.find(PropertyRow, property_key(PREFIX, 10)) or PropertyRow(fetched_at=NOW))

    assert units_of_property(rows, PREFIX, 10) == (1, 7)


def test_a_property_without_a_row_has_no_units() -> None:
    assert members(swept(), 99) == ()


def test_the_units_in_a_row_of_a_former_release_are_kept() -> None:
    """Until one comes or goes they are read from it, and then each has a row."""
    view = swept()
    key = property_key(PREFIX, 10)
    view[key] = encode(decode_as(PropertyRow, view[key]).model_copy(update={"units": (1, 5)}))
    del view[member_key(PREFIX, 10, 1)]
    assert members(view) == (1, 5)

    fold(view, page(EntityKind.UNIT, 20, unit(2)))
    assert members(view) == (1, 2, 5)
    assert decode_as(PropertyRow, view[key]).units == ()
    fold(view, page(EntityKind.UNIT, 21, unit(2, property_id=11)), page(EntityKind.PROPERTY, 22, building(name="n")))
    assert members(view) == (1, 5)
