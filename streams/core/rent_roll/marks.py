"""Marks: that a property is due travels as a record, and its row remembers it in case that the record is lost."""

from datetime import datetime

from schemas.rent_roll import MarkRow
from streams.core.rent_roll.keys import mark_key
from streams.core.rows import Rows


def note_mark(rows: Rows, prefix: bytes, property_id: int, seq: int, at: datetime) -> tuple[int, int]:
    """Remember that a property is marked as due, in case that the mark is lost on its way.

    Return the sequences of the mark and of the one before it; 0 if there is none.
    """
    key = mark_key(prefix, property_id)
    last = rows.find(MarkRow, key)
    before = last.seq if last else 0
    mark = max(seq, before + 1)
    rows.put(key, MarkRow(seq=mark, at=at))
    return mark, before
