"""Marks: that a property is due travels as a record, and its row remembers it in case that the record is lost."""

from datetime import datetime

from schemas.rent_roll import MarkRow
from streams.core.rent_roll.keys import mark_key
from streams.core.rows import Rows


def note_mark(rows: Rows, prefix: bytes, property_id: int, seq: int, at: datetime) -> None:
    """Remember that a property is marked as due, in case that the mark is lost on its way."""
    key = mark_key(prefix, property_id)
    last = rows.find(MarkRow, key)
    rows.put(key, MarkRow(seq=max(seq, last.seq + 1) if last else seq, at=at))
