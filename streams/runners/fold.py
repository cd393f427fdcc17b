"""The runner of a fold: applies a pure step to each record of a batch, and collects rows and effects.

It does not raise for a single record: one that cannot be decoded, or for which the step raises, becomes a dead letter
with its bytes and the reason, and its writes are dropped; the other records of the batch are not affected. While
nothing succeeds, failed records wait (`streams.core.retry.DeadLetterGuard`). A record that a newer release wrote, or
that needs a row of one, is not bad: it stops its partition. Rows that cannot be read from the disk stop the worker.

A row that can be read, but not decoded, is a dead letter itself if its table can be made again from outside: it is
removed, and the record that needs it is applied as if there were none.
"""

import logging
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from connectors.ports import Clock
from schemas.base import Model
from schemas.codec import DecodeError, UnknownWriter, decode, encode
from streams.backends.ports import TooLarge, checked_size
from streams.core.flows import (
    Emit,
    FoldResult,
    Headers,
    Misplaced,
    ProducerRecord,
    Record,
    RecordBatch,
    RowsDamaged,
    Step,
    StopPartition,
    View,
    check_place,
    encoded,
)
from streams.core.observer import NullObserver, Observer
from streams.core.retry import Dead, DeadLetterGuard, Reason, to_dead_letter
from streams.core.rows import Rows, UnreadableRow

log = logging.getLogger("streams.runners")

MOST_REMOVED = 100
"""The most rows that are removed for one record because they cannot be decoded."""

MOST_WAITING = 2000
"""The most failed records of a partition that wait; one more stops it."""

FoldStep = Callable[[Rows, Mapping[str, View], Model, Record, datetime], FoldResult]
"""Arguments: the rows of the fold's table, all views, the decoded record, the consumed record, the current time."""


@dataclass(frozen=True, slots=True)
class PlainRecord:
    """A consumed record whose topic has no prefix."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Fold:
    """One fold, called by the engine for each batch with the views of all tables; it returns a `Step`."""

    def __init__(
        self,
        name: str,
        table: str,
        step: FoldStep,
        clock: Clock,
        *,
        prefix: str = "",
        observer: Observer | None = None,
        guard: DeadLetterGuard | None = None,
        partitions: int | None = None,
        changelog: str | None = None,
    ) -> None:
        """``partitions``: how many the topics have; null: records are taken on any of them.

        ``changelog``: the name of the table's, if rows that cannot be decoded are removed; null: they are kept.
        """
        self.name = name
        self._partitions = partitions
        self._changelog = changelog
        self._table = table
        self._step = step
        self._clock = clock
        self._prefix = prefix
        self._observer: Observer = observer or NullObserver()
        self._guard = guard or DeadLetterGuard()
        self._waits: dict[str, tuple[int, int]] = {}
        """The last record that waits, by partition, and the count of successes when it began to."""

    def __call__(self, batch: RecordBatch, views: Mapping[str, View]) -> Step:
        """Fold a batch. Raise `StopPartition`."""
        rows = Rows(views[self._table])
        effects: dict[Hashable, ProducerRecord] = {}
        merging: dict[Hashable, Emit] = {}
        failed: list[tuple[Record, Dead]] = []
        ended = self._observer.record_ended
        for record in batch.records:
            started = time.perf_counter()
            try:
                value = decode(record.value)
                self._check(value, record)
                applied = self._apply(rows, views, value, record, effects)
                added, merged = self._effects(applied.emits, record.offset, effects, merging)
            except UnknownWriter as unknown:
                raise StopPartition(f"{record.topic}-{record.partition}@{record.offset}: {unknown}") from unknown
            except RowsDamaged:
                raise
            except Exception as error:
                rows.drop()
                failed.append((record, self._dead(record, error)))
                continue
            rows.keep()
            effects |= added
            merging |= merged
            self._guard.succeeded()
            failed += [(self._part(record, part), self._dead(record, error)) for part, error in applied.failed]
            if failed:
                self._write_dead_letters(failed, effects)
            if applied.counts:
                self._observer.fold_counted(self.name, value, applied.counts)
            for change in applied.doubts:
                self._observer.doubt_changed(change)
            ended(self.name, applied.verdict, time.perf_counter() - started)
        waiting = self._waiting(batch, failed)
        if not waiting:
            self._write_dead_letters(failed, effects)
        return Step(rows.encoded(), tuple(effects.values()), waiting)

    def _check(self, value: Model, record: Record) -> None:
        """Raise `DecodeError` if a value is not a record of an org, and `Misplaced` if it is on another partition."""
        if self._partitions is None:
            return
        org = getattr(value, "org", None)
        if org is None:
            raise DecodeError(f"a {type(value).__name__} where a record of an org belongs")
        check_place(org, record, self._partitions)

    def _apply(
        self,
        rows: Rows,
        views: Mapping[str, View],
        value: Model,
        record: Record,
        effects: dict[Hashable, ProducerRecord],
    ) -> FoldResult:
        """Apply a record, if need be without the rows that cannot be decoded; these become dead letters."""
        for _ in range(MOST_REMOVED):
            try:
                return self._step(rows, views, value, record, self._clock.now())
            except UnreadableRow as row:
                if self._changelog is None or not rows.discard(row):
                    raise
                log.warning("%s: a row is removed: %s", self.name, row)
                found = PlainRecord(
                    self._changelog, record.partition, record.offset, record.timestamp, row.key, row.raw, ()
                )
                self._write_dead_letter(found, Dead(Reason.UNREADABLE_ROW, str(row)), ("row", row.key), effects)
        return self._step(rows, views, value, record, self._clock.now())

    def _waiting(self, batch: RecordBatch, failed: Sequence[tuple[Record, Dead]]) -> int:
        """Return how many of the records after the last success of a batch have to wait. Raise `StopPartition`."""
        place = f"{batch.topic}-{batch.partition}"
        _, since = self._waits.pop(place, (0, self._guard.successes))
        if not failed:
            return 0
        allowed = [self._guard.allows(dead) for _, dead in failed]
        if all(allowed) or self._guard.successes > since:
            return 0
        first, last = failed[0][0].offset, failed[-1][0].offset
        what = f"{place}@{first} to {last}: {len(failed)} records failed, the last: {failed[-1][1].detail}"
        if len(failed) > MOST_WAITING:
            raise StopPartition(what)
        self._waits[place] = last, since
        log.warning("%s: %s; they become dead letters once another record succeeds", self.name, what)
        return len(failed)

    def _effects(
        self,
        emits: Sequence[Emit],
        offset: int,
        before: Mapping[Hashable, ProducerRecord],
        merging: Mapping[Hashable, Emit],
    ) -> tuple[dict[Hashable, ProducerRecord], dict[Hashable, Emit]]:
        """Return what a record adds to the effects of its batch, by a unique key for each one. Raise `TooLarge`.

        The second dictionary holds the effects that further records may be merged into.
        """
        added: dict[Hashable, ProducerRecord] = {}
        merged: dict[Hashable, Emit] = {}
        for at, one in enumerate(emits):
            key = (offset, at) if one.once is None else (one.org, one.once)
            first = merged.get(key) or merging.get(key)
            if first is not None and one.merge is not None:
                one = replace(first, record=one.merge(first.record, one.record))  # noqa: PLW2901
            elif key in before or key in added:
                continue
            if one.merge is not None:
                merged[key] = one
            found = encoded(one, self._prefix)
            checked_size(found.topic, found.key, found.value)
            added[key] = found
        return added, merged

    @staticmethod
    def _part(record: Record, part: Model) -> Record:
        """Return a record with a part of another one, of which nothing else failed."""
        headers = tuple(record.headers)
        return PlainRecord(
            record.topic, record.partition, record.offset, record.timestamp, record.key, encode(part), headers
        )

    def _dead(self, record: Record, error: Exception) -> Dead:
        for kind, reason in _REASONS.items():
            if isinstance(error, kind):
                return Dead(reason, str(error))
        last, _ = self._waits.get(f"{record.topic}-{record.partition}", (-1, 0))
        if record.offset > last:
            # The dead letter has the type of the exception only: its message may contain secrets.
            log.error(
                "%s: unexpected exception for %s-%d@%d",
                self.name,
                record.topic,
                record.partition,
                record.offset,
                exc_info=error,
            )
        return Dead(Reason.BUG, f"{self.name} raised {type(error).__name__}")

    def _write_dead_letters(self, failed: list[tuple[Record, Dead]], effects: dict[Hashable, ProducerRecord]) -> None:
        """Add dead letters to the effects of a batch, and clear the list."""
        for at, (record, dead) in enumerate(failed):
            plain = PlainRecord(
                record.topic.removeprefix(self._prefix),
                record.partition,
                record.offset,
                record.timestamp,
                record.key,
                record.value,
                tuple(record.headers),
            )
            self._write_dead_letter(plain, dead, (record.offset, -1 - at), effects)
            self._observer.record_ended(self.name, "dead", 0.0)
        failed.clear()

    def _write_dead_letter(
        self, record: Record, dead: Dead, key: Hashable, effects: dict[Hashable, ProducerRecord]
    ) -> None:
        letter = to_dead_letter(record, dead, self.name, self._clock.now())
        effects[key] = ProducerRecord(self._prefix + letter.topic, letter.key, letter.value, letter.headers)
        self._observer.dead_letter(record.topic, dead.reason)


_REASONS: Mapping[type[Exception], Reason] = {
    UnreadableRow: Reason.UNREADABLE_ROW,
    Misplaced: Reason.MISPLACED,
    DecodeError: Reason.MALFORMED,
    TooLarge: Reason.TOO_LARGE,
}
"""What an exception is a dead letter for; the first one that fits. Any other indicates a bug."""
