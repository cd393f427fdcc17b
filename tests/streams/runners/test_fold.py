"""The shell of a fold: neighbours of a poison record go on, and a run of them stops the flow."""

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from schemas import retry as header
from schemas import topics
from schemas.base import Model
from schemas.codec import encode
from schemas.delivery import DeliveryDue, DueReason
from schemas.rent_roll import SweptRow
from streams.backends.memory import MovableClock
from streams.core.flows import Disposition, Emit, FoldResult, Record, RecordBatch, View
from streams.core.observer import NullObserver
from streams.core.retry import DeadLetterLimit, TooManyDead
from streams.core.rows import Rows
from streams.runners.fold import Fold, Named
from tests.streams.core.views import MemoryView

KEY = b"default"


def keep_the_largest(rows: Rows, views: Mapping[str, View], said: Model, record: Record, now: datetime) -> FoldResult:
    """Raises at 13, after it wrote."""
    assert isinstance(said, SweptRow)
    del views, now
    last = rows.find(SweptRow, KEY) or SweptRow(seq=0)
    if said.seq > last.seq:
        rows.put(KEY, said)
    if said.seq == 13:
        raise RuntimeError("a secret of somebody")
    due = due_of((record.key or b"").decode(), said.seq)
    emits = [Emit(topics.DUE, due.org, due, once="one"), Emit(topics.DUE, due.org, due)]
    return FoldResult(Disposition.APPLIED, emits, {"seen": 1})


def due_of(org: str, number: int) -> DeliveryDue:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    return DeliveryDue(org=org, connection="c", property_id=number, reason=DueReason.CHANGED, seen_at=at)


class Heard(NullObserver):
    """An observer that remembers."""

    def __init__(self) -> None:
        self.records: list[tuple[str, str]] = []
        self.letters: list[tuple[str, str]] = []
        self.facts: list[tuple[str, Model, Mapping[str, int]]] = []

    def record_ended(self, flow: str, verdict: str, seconds: float) -> None:
        del seconds
        self.records.append((flow, str(verdict)))

    def dead_letter(self, origin: str, reason: str) -> None:
        self.letters.append((origin, str(reason)))

    def fold_counted(self, flow: str, record: Model, counts: Mapping[str, int]) -> None:
        self.facts.append((flow, record, counts))


def batch(*values: bytes) -> RecordBatch:
    records = [Named("p.rent-roll.changes", 3, at, 0, b"default", value, ()) for at, value in enumerate(values)]
    return RecordBatch("p.rent-roll.changes", 3, records)


def fold(heard: Heard, limit: int = 20) -> Fold:
    clock = MovableClock(datetime(2026, 3, 1, tzinfo=UTC))
    return Fold("f", "t", keep_the_largest, clock, prefix="p.", observer=heard, limit=DeadLetterLimit(limit))


def seq(number: int) -> bytes:
    return encode(SweptRow(seq=number))


def test_rows_and_effects_of_a_batch_come_together() -> None:
    """One row however often it was written; what is said once is said by the first."""
    heard = Heard()

    step = fold(heard)(batch(seq(1), seq(2)), {"t": MemoryView()})

    assert step.rows == {KEY: seq(2)}
    assert [(out.topic, out.key, out.value) for out in step.effects] == [
        ("p.deliveries.due", b"default", encode(due_of("default", number))) for number in (1, 1, 2)
    ]
    assert heard.records == [("f", "applied")] * 2
    assert heard.facts == [("f", SweptRow(seq=number), {"seen": 1}) for number in (1, 2)]


def test_what_is_emitted_once_is_emitted_once_for_each_org() -> None:
    """Two orgs of one batch may have equal names and ids."""
    records = [Named("p.rent-roll.changes", 3, at, 0, org, seq(1), ()) for at, org in enumerate((b"a", b"b", b"a"))]

    step = fold(Heard())(RecordBatch("p.rent-roll.changes", 3, records), {"t": MemoryView()})

    assert [out.key for out in step.effects] == [b"a", b"a", b"b", b"b", b"a"]


def test_a_poison_record_is_buried_with_its_bytes_and_its_neighbours_go_on() -> None:
    """Neither what cannot be decoded nor what the step stumbles over leaves a row behind, or a secret."""
    heard = Heard()

    step = fold(heard)(batch(seq(1), b"\x00rubbish", seq(13), seq(2)), {"t": MemoryView()})

    assert step.rows == {KEY: seq(2)}
    letters = [out for out in step.effects if out.topic == "p.dead-letters"]
    assert [letter.value for letter in letters] == [b"\x00rubbish", seq(13)]
    assert [dict(letter.headers)[header.REASON] for letter in letters] == [b"malformed", b"bug"]
    assert {dict(letter.headers)[header.ORIGIN] for letter in letters} == {b"rent-roll.changes"}
    assert not any(b"secret" in value for letter in letters for _, value in letter.headers)
    assert heard.letters == [("rent-roll.changes", "malformed"), ("rent-roll.changes", "bug")]


def test_a_run_of_dead_records_stops_the_flow() -> None:
    """A broken deploy must not drain a topic into the dead letters."""
    with pytest.raises(TooManyDead):
        fold(Heard(), limit=3)(batch(*[b"rubbish"] * 3), {"t": MemoryView()})


def test_a_good_record_between_them_begins_the_count_anew() -> None:
    step = fold(Heard(), limit=3)(batch(b"x", b"x", seq(1), b"x", b"x"), {"t": MemoryView()})
    assert sum(out.topic == "p.dead-letters" for out in step.effects) == 4
