"""The test application's arithmetic: what an event says, and what a row must be when all of them were counted once."""

import struct
from collections.abc import Mapping

from streams.core.flows import ProducerRecord, RecordBatch, Step, View

EVENT = struct.Struct("<QQ")
ROW = struct.Struct("<QQQ")

Tally = tuple[int, int, int]
"""The last number of a key, how many events were counted, and the sum of their amounts."""


def topics(name: str) -> tuple[str, str]:
    return f"{name}-events", f"{name}-echoes"


def count(row: bytes | None, event: bytes) -> tuple[bytes, bool]:
    """Count the event if it is new; the second half says whether it was."""
    last, events, total = ROW.unpack(row) if row else (0, 0, 0)
    number, amount = EVENT.unpack_from(event)
    if number <= last:
        assert row is not None
        return row, False
    return ROW.pack(number, events + 1, total + amount), True


def tally(echoes: str, batch: RecordBatch, views: Mapping[str, View]) -> Step:
    """Count every event, and say so once more to whoever listens (again, where it was counted before a crash)."""
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
    """Keep the highest number that was echoed; the row that it speaks of must be visible, or somebody was too early."""
    rows: dict[bytes, bytes | None] = {}
    for record in batch.records:
        assert record.key is not None
        assert record.value is not None
        number, _ = EVENT.unpack_from(record.value)
        seen = views["tally"].get(record.key)
        if seen is None or ROW.unpack(seen)[0] < number:
            raise AssertionError(f"{record.key!r} echoes {number}, its row says {seen and ROW.unpack(seen)}")
        before = rows.get(record.key) or views["echo"].get(record.key)
        last, kinds, _ = ROW.unpack(before) if before else (0, 0, 0)
        if number == last + 1:  # echoes may repeat, but a number that was skipped would stop the count here
            rows[record.key] = ROW.pack(number, kinds + 1, 0)
    return Step(rows)
