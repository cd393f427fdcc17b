"""The marks that a change leaves: each is newer than the one before it, whatever the order of the pages."""

from datetime import timedelta

from schemas.base import EntityKind
from schemas.codec import decode_as
from schemas.rent_roll import MarkRow
from streams.core.rent_roll import mark_key
from streams.core.rent_roll.marks import note_mark
from streams.core.rows import Rows
from tests.streams.core.delivery.offers import NOW
from tests.streams.core.rent_roll.rolls import PREFIX, fold, page, swept, unit
from tests.streams.core.views import MemoryView


def test_a_mark_is_newer_than_the_one_before_also_if_its_change_was_read_earlier() -> None:
    view = MemoryView()
    found = []
    for seq in (50, 70, 60, 90):
        rows = Rows(view)
        note_mark(rows, PREFIX, 10, seq, NOW + timedelta(seconds=seq))
        view.take(rows)
        found.append(decode_as(MarkRow, view[mark_key(PREFIX, 10)]).seq)

    assert found == [50, 70, 71, 90]


def test_a_change_of_a_unit_marks_its_property_and_a_repetition_does_not() -> None:
    roll = swept()
    fold(roll, page(EntityKind.UNIT, 500, unit(1, rent=1777)))
    first = decode_as(MarkRow, roll[mark_key(PREFIX, 10)])
    fold(roll, page(EntityKind.UNIT, 600, unit(1, rent=1777)))

    assert first.seq == 500
    assert decode_as(MarkRow, roll[mark_key(PREFIX, 10)]) == first
