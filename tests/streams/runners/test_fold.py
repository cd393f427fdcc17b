"""Tests of the runner of a fold: rows, effects and dead letters of a batch."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schemas import topics
from schemas.base import Model
from schemas.codec import MAGIC, DecodeError, decode_as, encode
from schemas.delivery import DeliveryDue, DueReason
from schemas.partitions import partition_for
from schemas.rent_roll import SweptRow
from streams.backends.memory import MovableClock
from streams.core.flows import (
    Disposition,
    Emit,
    FoldResult,
    Record,
    RecordBatch,
    RowsDamaged,
    Step,
    StopPartition,
    View,
)
from streams.core.observer import NullObserver
from streams.core.retry import DeadLetterGuard
from streams.core.rows import Rows
from streams.runners.fold import Fold, PlainRecord
from tests.streams.core.views import MemoryView

KEY = b"default"
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def keep_the_largest(rows: Rows, views: Mapping[str, View], value: Model, record: Record, now: datetime) -> FoldResult:
    """Keep the row with the largest number; raise for 13 after the write."""
    assert isinstance(value, SweptRow)
    del views, now
    last = rows.find(SweptRow, KEY) or SweptRow(seq=0)
    if value.seq > last.seq:
        rows.put(KEY, value)
    if value.seq == 13:
        raise RuntimeError("a secret of an org")
    due = due_of((record.key or b"").decode(), value.seq)
    emits = [Emit(topics.DUE, due.org, due, once="one"), Emit(topics.DUE, due.org, due)]
    return FoldResult(Disposition.APPLIED, emits, {"seen": 1})


def due_of(org: str, number: int) -> DeliveryDue:
    return DeliveryDue(org=org, connection="c", property_id=number, reason=DueReason.CHANGED, seen_at=NOW)


class RecordingObserver(NullObserver):
    """An observer that records the events of a fold."""

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
    records = [PlainRecord("p.rent-roll.changes", 3, at, 0, b"default", value, ()) for at, value in enumerate(values)]
    return RecordBatch("p.rent-roll.changes", 3, records)


def fold(observer: RecordingObserver, most: int = 20) -> Fold:
    return Fold(
        "f", "t", keep_the_largest, MovableClock(NOW), prefix="p.", observer=observer, guard=DeadLetterGuard(most)
    )


def seq(number: int) -> bytes:
    return encode(SweptRow(seq=number))


def test_a_batch_returns_its_rows_and_effects() -> None:
    """A row is written once, and a record with ``once`` is emitted once."""
    observer = RecordingObserver()

    step = fold(observer)(batch(seq(1), seq(2)), {"t": MemoryView()})

    assert step.rows == {KEY: seq(2)}
    assert [(out.topic, out.key, out.value) for out in step.effects] == [
        ("p.deliveries.due", b"default", encode(due_of("default", number))) for number in (1, 1, 2)
    ]
    assert observer.records == [("f", "applied")] * 2
    assert observer.facts == [("f", SweptRow(seq=number), {"seen": 1}) for number in (1, 2)]


def test_a_record_with_once_is_emitted_once_for_each_org() -> None:
    """Two orgs of one batch may have the same names and ids."""
    records = [
        PlainRecord("p.rent-roll.changes", 3, at, 0, org, seq(1), ()) for at, org in enumerate((b"a", b"b", b"a"))
    ]

    step = fold(RecordingObserver())(RecordBatch("p.rent-roll.changes", 3, records), {"t": MemoryView()})

    assert [out.key for out in step.effects] == [b"a", b"a", b"b", b"b", b"a"]


def test_a_part_that_failed_is_a_dead_letter_of_its_own() -> None:
    """With the key and the history of the record, and only the part as its value."""

    def step(_rows: Rows, _views: Mapping[str, View], value: Model, record: Record, _now: datetime) -> FoldResult:
        parts = (SweptRow(seq=7), SweptRow(seq=8))
        errors = (RuntimeError("a secret of an org"), DecodeError("damaged"))
        return FoldResult(Disposition.APPLIED, [], failed=tuple(zip(parts, errors, strict=True)))

    observer = RecordingObserver()
    found = Fold("f", "t", step, MovableClock(NOW), prefix="p.", observer=observer)(batch(seq(1)), {"t": MemoryView()})

    assert [(one.topic, one.key, one.value) for one in found.effects] == [
        ("p.dead-letters", b"default", seq(7)),
        ("p.dead-letters", b"default", seq(8)),
    ]
    assert [dict(one.headers)["rent-reason"] for one in found.effects] == [b"bug", b"malformed"]
    assert not any(b"secret" in value for one in found.effects for _, value in one.headers)
    assert observer.records == [("f", "dead"), ("f", "dead"), ("f", "applied")]
    assert found.waiting == 0


def longest(first: Any, second: Any) -> Any:
    """Merge two records: keep the later moment."""
    return first.model_copy(update={"seen_at": max(first.seen_at, second.seen_at)})


def test_records_with_once_are_merged_if_they_can_be() -> None:
    """Also those of different records of a batch; those of a record that failed are not."""

    def step(_rows: Rows, _views: Mapping[str, View], value: Model, record: Record, _now: datetime) -> FoldResult:
        assert isinstance(value, SweptRow)
        due = due_of("default", 0).model_copy(update={"seen_at": NOW + timedelta(seconds=value.seq)})
        emits = [Emit(topics.DUE, "default", due, once="one", merge=longest)]
        if value.seq == 13:
            emits.append(Emit(topics.DUE, "default", due_of("x" * 300, 0)))
        return FoldResult(Disposition.APPLIED, emits * 2 if value.seq == 1 else emits)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("streams.backends.ports.MAX_RECORD_BYTES", 250)
        one = Fold("f", "t", step, MovableClock(NOW), prefix="p.")
        found = one(batch(seq(1), seq(7), seq(3), seq(13)), {"t": MemoryView()})

    (due, letter) = found.effects
    assert decode_as(DeliveryDue, due.value).seen_at == NOW + timedelta(seconds=7)
    assert letter.topic == "p.dead-letters"


def test_a_failed_record_becomes_a_dead_letter_and_the_others_are_applied() -> None:
    """Neither a malformed record nor an exception of the step leaves a row, and no dead letter contains a secret."""
    observer = RecordingObserver()

    step = fold(observer)(batch(seq(1), b"\x00rubbish", seq(13), seq(2)), {"t": MemoryView()})

    assert step.rows == {KEY: seq(2)}
    letters = [out for out in step.effects if out.topic == "p.dead-letters"]
    assert [letter.value for letter in letters] == [b"\x00rubbish", seq(13)]
    assert [dict(letter.headers)["rent-reason"] for letter in letters] == [b"malformed", b"bug"]
    assert {dict(letter.headers)["rent-origin"] for letter in letters} == {b"rent-roll.changes"}
    assert not any(b"secret" in value for letter in letters for _, value in letter.headers)
    assert observer.letters == [("rent-roll.changes", "malformed"), ("rent-roll.changes", "bug")]


def test_a_record_of_a_newer_release_stops_the_partition() -> None:
    """It is no dead letter, and neither is one that needs a row of a newer release."""
    unknown = MAGIC + b"\x00" * 20
    for records, view in (((seq(1), unknown, seq(2)), MemoryView()), ((seq(1),), MemoryView({KEY: unknown}))):
        with pytest.raises(StopPartition, match=r"rent-roll.changes-3@.*a newer release wrote it"):
            fold(RecordingObserver())(batch(*records), {"t": view})


def test_a_record_whose_effect_does_not_fit_into_a_topic_is_a_dead_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would end every worker that gets it; its rows are not written, and the others are."""
    monkeypatch.setattr("streams.backends.ports.MAX_RECORD_BYTES", 200)
    observer = RecordingObserver()
    records = [
        PlainRecord("p.rent-roll.changes", 3, at, 0, key, seq(number), ())
        for at, (key, number) in enumerate([(b"default", 1), (b"x" * 200, 2)])
    ]
    found = fold(observer)(RecordBatch("p.rent-roll.changes", 3, records), {"t": MemoryView()})

    assert found.rows == {KEY: seq(1)}
    assert [out.topic for out in found.effects] == ["p.deliveries.due", "p.deliveries.due", "p.dead-letters"]
    assert observer.letters == [("rent-roll.changes", "too_large")]


def test_rows_that_cannot_be_read_are_no_fault_of_the_record() -> None:
    class Rotten(MemoryView):
        def get(self, key: bytes, default: object = None) -> Any:
            raise RowsDamaged("a block is damaged")

    with pytest.raises(RowsDamaged):
        fold(RecordingObserver())(batch(seq(1)), {"t": Rotten()})


def dead_letters(step: Step) -> int:
    return sum(out.topic == "p.dead-letters" for out in step.effects)


def test_a_failed_record_after_a_success_does_not_wait() -> None:
    step = fold(RecordingObserver(), most=2)(batch(b"x", b"x", b"x", seq(1), b"x", b"x"), {"t": MemoryView()})
    assert (dead_letters(step), step.waiting) == (5, 0)


def test_failed_records_wait_while_nothing_succeeds() -> None:
    """A broken deployment must not turn a whole topic into dead letters, nor may its restarts."""
    observer = RecordingObserver()
    for _ in range(12):
        step = fold(observer)(batch(*[b"rubbish"] * 200), {"t": MemoryView()})
        assert (dead_letters(step), step.waiting) == (0, 200)
    assert not observer.letters
    assert not observer.records


def test_more_failed_records_than_are_allowed_wait() -> None:
    """Only those after the last success: the others do not."""
    step = fold(RecordingObserver(), most=2)(batch(b"x", seq(1), b"x", b"x", b"x"), {"t": MemoryView()})
    assert (dead_letters(step), step.waiting) == (1, 3)


def test_a_success_elsewhere_ends_the_wait() -> None:
    one = fold(RecordingObserver(), most=2)
    tail = batch(*[b"x"] * 5)
    assert one(tail, {"t": MemoryView()}).waiting == 5
    assert one(tail, {"t": MemoryView()}).waiting == 5

    other = RecordBatch(tail.topic, 4, batch(seq(1)).records)
    one(other, {"t": MemoryView()})

    step = one(tail, {"t": MemoryView()})
    assert (dead_letters(step), step.waiting) == (5, 0)


def test_too_many_waiting_records_stop_the_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.runners.fold.MOST_WAITING", 10)
    with pytest.raises(StopPartition, match="11 records failed"):
        fold(RecordingObserver())(batch(*[b"x"] * 11), {"t": MemoryView()})


# --------------------------------------------------------------------------------------- the place, unreadable rows


def test_a_record_on_another_partition_than_its_orgs_is_a_dead_letter() -> None:
    """Also one that is of no org: a row, which is written to changelogs only."""
    home = partition_for("default", 4)
    due = encode(due_of("default", 1))
    seen: list[Model] = []

    def step(_rows: Rows, _views: Mapping[str, View], value: Model, _record: Record, _now: datetime) -> FoldResult:
        seen.append(value)
        return FoldResult(Disposition.APPLIED)

    found = []
    for partition in range(4):
        records = [PlainRecord("in", partition, at, 0, b"default", value, ()) for at, value in enumerate((due, seq(1)))]
        guard = DeadLetterGuard(20)
        guard.succeeded()
        one = Fold("f", "t", step, MovableClock(NOW), guard=guard, partitions=4)
        effects = one(RecordBatch("in", partition, records), {"t": MemoryView()}).effects
        found.append([dict(letter.headers)["rent-reason"] for letter in effects])

    wrong, right = [b"misplaced", b"malformed"], [b"malformed"]
    assert found == [right if partition == home else wrong for partition in range(4)]
    assert seen == [due_of("default", 1)]


@pytest.mark.parametrize("changelog", ["f-t-changelog", None])
def test_a_row_that_cannot_be_decoded_is_removed_where_it_can_be_made_again(changelog: str | None) -> None:
    """Its bytes become the dead letter, and the record is applied. Where it cannot, the record is the dead letter."""
    guard = DeadLetterGuard(20)
    guard.succeeded()
    one = Fold("f", "t", keep_the_largest, MovableClock(NOW), prefix="p.", guard=guard, changelog=changelog)
    view = MemoryView({KEY: b"\x00spoiled"})

    step = one(batch(seq(5)), {"t": view})

    letters = [out for out in step.effects if out.topic == "p.dead-letters"]
    assert [dict(out.headers)["rent-reason"] for out in letters] == [b"unreadable_row"]
    if changelog is None:
        assert [(out.key, out.value) for out in letters] == [(b"default", seq(5))]
        assert step.rows == {}
    else:
        assert [(out.key, out.value) for out in letters] == [(KEY, b"\x00spoiled")]
        assert dict(letters[0].headers)["rent-origin"] == changelog.encode()
        assert step.rows == {KEY: seq(5)}
