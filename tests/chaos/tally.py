"""The folds of the chaos test application: they count every event of a key exactly once."""

import struct
from collections.abc import Mapping

from streams.core.flows import ProducerRecord, RecordBatch, Step, View

EVENT = struct.Struct("<QQ")
ROW = struct.Struct("<QQQ")

Tally = tuple[int, int, int]
"""The last event number of a key, the number of counted events, and the sum of their amounts."""


def topics(name: str) -> tuple[str, str]:
    """Return the topics of the events and of the echoes."""
    return f"{name}-events", f"{name}-echoes"


def count(row: bytes | None, event: bytes) -> tuple[bytes, bool]:
    """Return the row after an event, and whether the event was new (a duplicate changes nothing)."""
    last, events, total = ROW.unpack(row) if row else (0, 0, 0)
    number, amount = EVENT.unpack_from(event)
    if number <= last:
        assert row is not None
        return row, False
    return ROW.pack(number, events + 1, total + amount), True


def tally(echoes: str, batch: RecordBatch, views: Mapping[str, View]) -> Step:
    """Count every event, and emit an echo of it (again if it was counted before a crash)."""
    get = views["tally"].get
    rows: dict[bytes, bytes | None] = {}
    effects = []
    for record in batch.records:
        assert record.key is not None
        assert record.value is not None
        row, new = count(rows.get(record.key) or get(record.key), record.value)
        if new:
            rows[record.key] = row
        effects.append(ProducerRecord(echoes, record.key, record.value[: EVENT.size], (("of", b"tally"),)))
    return Step(rows, effects)


def echo(batch: RecordBatch, views: Mapping[str, View]) -> Step:
    """Keep the highest consecutive number that was echoed.

    Raise `AssertionError` if the row of the echoed event is not visible yet: effects must follow the store.
    """
    rows: dict[bytes, bytes | None] = {}
    for record in batch.records:
        assert record.key is not None
        assert record.value is not None
        number, _ = EVENT.unpack_from(record.value)
        seen = views["tally"].get(record.key)
        if seen is None or ROW.unpack(seen)[0] < number:
            raise AssertionError(f"{record.key!r}: echo {number}, but its row is {seen and ROW.unpack(seen)}")
        before = rows.get(record.key) or views["echo"].get(record.key)
        last, echoes, _ = ROW.unpack(before) if before else (0, 0, 0)
        if number == last + 1:  # echoes may repeat, but after a lost one the count stops here
            rows[record.key] = ROW.pack(number, echoes + 1, 0)
    return Step(rows)
