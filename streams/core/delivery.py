"""Deliveries: what each receiver is owed of a property, as a state machine over one row.

``idle`` → a property is due → cut from the rent roll as it is now; nothing that the receiver does not know: stay idle →
``in flight`` → acknowledged: idle (and if something changed meanwhile, cut once more), parked: ``waiting`` → due again:
cut again, where the same content repeats the same bytes → … → dead: idle, the next change tries anew.

While a delivery is in flight or waits, further changes only leave a mark: there is one batch of a property on its way
to a receiver at a time, and it never carries an old payload.
"""

import hashlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from schemas import topics
from schemas.delivery import (
    Acknowledged,
    Batch,
    BatchMode,
    DeliveryDue,
    DeliveryOutcome,
    DeliveryPhase,
    DeliveryResult,
    DeliveryRow,
    DueReason,
    OfferedUnit,
    ReceiverRow,
    UnitState,
)
from streams.core.flows import Disposition, Emit, FoldResult
from streams.core.offer import Offer, digest
from streams.core.rows import Rows

_BATCH_IDS = uuid.UUID("5f0e2f53-6d3e-4a86-9a43-0e2f5a3f9b1c")


def delivery_key(org: str, sink: str, connection: str, property_id: int) -> bytes:
    return f"{org}/{sink}/{connection}/p/{property_id:012d}".encode()


def receiver_key(org: str, sink: str) -> bytes:
    return f"{org}/{sink}/r".encode()


@dataclass(frozen=True, slots=True)
class Cause:
    """The record that a step is about: where it stands on its topic, and the moment of the step."""

    id: str
    """``topic:offset``; with the partition that all rows here share it names the record for ever."""
    now: datetime


Cut = Callable[[str, str, int], Offer | None]
"""Reads a property (org, connection, id) from the rent roll as it is at this moment."""


def apply(
    rows: Rows, said: DeliveryDue | DeliveryOutcome, cause: Cause, sinks: tuple[str, ...], cut: Cut
) -> FoldResult:
    """Decide what follows for each receiver of a property that is due, or from what one of them answered."""
    if isinstance(said, DeliveryOutcome):
        return _Delivery(rows, said, said.sink, cause, cut).outcome(said)
    applied = FoldResult(Disposition.IGNORED)
    for sink in sinks if said.sink is None else (said.sink,):
        one = _Delivery(rows, said, sink, cause, cut).due(said)
        applied.emits += one.emits
        for fact, count in one.counts.items():
            applied.counts[fact] = applied.counts.get(fact, 0) + count
        if one.verdict is not Disposition.IGNORED:
            applied.verdict = one.verdict
    return applied


class _Delivery:
    """One property at one receiver."""

    def __init__(self, rows: Rows, said: DeliveryDue | DeliveryOutcome, sink: str, cause: Cause, cut: Cut) -> None:
        self.rows = rows
        self.org, self.connection, self.property_id, self.sink = said.org, said.connection, said.property_id, sink
        self.cause = cause
        self.cut = cut
        self.key = delivery_key(said.org, sink, said.connection, said.property_id)
        self.row = rows.find(DeliveryRow, self.key) or DeliveryRow()

    def due(self, due: DeliveryDue) -> FoldResult:
        row = self.row
        if row.phase is not DeliveryPhase.IDLE and row.cause == self.cause.id:
            return self._again(due.seen_at)
        if due.reason is DueReason.RETRY:
            # A retry may overtake the outcome that announces it: the two travel on different topics.
            if row.phase is DeliveryPhase.IDLE or row.version != due.version or due.attempt < row.attempt:
                return FoldResult(Disposition.IGNORED, counts={"superseded": 1})
            return self._send(row.seen_at or due.seen_at, due.attempt if due.held else due.attempt + 1)
        if row.phase is not DeliveryPhase.IDLE:
            if row.dirty_since is None or due.seen_at < row.dirty_since:
                self._put(dirty_since=due.seen_at)
            return FoldResult(Disposition.APPLIED)
        return self._send(due.seen_at, 1)

    def outcome(self, said: DeliveryOutcome) -> FoldResult:
        row = self.row
        if row.phase is not DeliveryPhase.IDLE and row.cause == self.cause.id:
            return self._again(said.at)
        if said.version != row.version or row.phase is DeliveryPhase.IDLE:
            return FoldResult(Disposition.IGNORED, counts={"superseded": 1})
        if said.result is DeliveryResult.WAITING:
            if said.attempt < row.attempt:
                return FoldResult(Disposition.IGNORED, counts={"superseded": 1})
            self._put(phase=DeliveryPhase.WAITING, last_error=said.detail)
            return FoldResult(Disposition.APPLIED)
        news: dict[str, object] = {"phase": DeliveryPhase.IDLE, "attempt": 0, "cause": "", "content": b""}
        if said.result is DeliveryResult.ACKNOWLEDGED:
            known = {} if row.mode is BatchMode.SNAPSHOT else {one.unit_id: one for one in row.known or ()}
            known |= {one.unit_id: one for one in row.sent}
            news |= {
                "known": tuple(known[unit] for unit in sorted(known)),
                "sent": (),
                "acknowledged_at": said.at,
                "last_error": None,
            }
        else:
            news["last_error"] = said.detail
        dirty = row.dirty_since
        self._put(**news, dirty_since=None)
        return self._send(dirty, 1) if dirty is not None else FoldResult(Disposition.APPLIED)

    def _again(self, seen_at: datetime) -> FoldResult:
        """Say again what this very record said, in case nobody heard it; an outcome since then shows that it was."""
        if self.row.phase is DeliveryPhase.WAITING:
            return FoldResult(Disposition.DUPLICATE)
        return self._send(self.row.seen_at or seen_at, self.row.attempt, Disposition.DUPLICATE)

    def _send(self, seen_at: datetime, attempt: int, verdict: Disposition = Disposition.APPLIED) -> FoldResult:
        """Cut the property as it is now and put it on its way, unless the receiver knows it all."""
        offer = self.cut(self.org, self.connection, self.property_id)
        if offer is None:
            return self._rest()
        self._forget_moved(offer)
        row = self.row
        known = None if row.known is None else {one.unit_id: one.digest for one in row.known}
        if known is None and not row.sent and not offer.property.is_active:
            return self._rest()
        units, mode = _what_to_say(offer, known, {one.unit_id for one in row.sent})
        if known is not None and not units:
            return self._rest()
        sent = tuple(Acknowledged(unit_id=unit.id, digest=digest(offer.property, unit)) for unit in units)
        content = _content(mode, offer, units)
        again = row.phase is not DeliveryPhase.IDLE and row.content == content and row.cut_at is not None
        if again:
            assert row.cut_at is not None
            version, cut_at, sync_id, batch_id = row.version, row.cut_at, row.sync_id, row.batch_id
        else:
            version, cut_at, sync_id = row.version + 1, self.cause.now, self._sync_id()
            named = f"{self.key.decode()} {version} {cut_at.isoformat()} {content.hex()}"
            batch_id = str(uuid.uuid5(_BATCH_IDS, named))
        if row.dirty_since is not None:
            seen_at = min(seen_at, row.dirty_since)
        self._put(
            phase=DeliveryPhase.IN_FLIGHT,
            version=version,
            attempt=attempt,
            dirty_since=None,
            sent=sent,
            batch_id=batch_id,
            sync_id=sync_id,
            cut_at=cut_at,
            seen_at=seen_at,
            mode=mode,
            content=content,
            cause=self.cause.id,
        )
        batch = Batch(
            org=self.org,
            connection=self.connection,
            sink=self.sink,
            batch_id=batch_id,
            sync_id=sync_id,
            cut_at=cut_at,
            seen_at=seen_at,
            version=version,
            attempt=attempt,
            mode=mode,
            property=offer.property,
            units=units,
        )
        return FoldResult(verdict, [Emit(topics.BATCHES, self.org, batch)])

    def _rest(self) -> FoldResult:
        """Nothing is owed (any more): a retry whose reason is gone ends here too."""
        if self.row.phase is not DeliveryPhase.IDLE or self.row.dirty_since is not None:
            self._put(phase=DeliveryPhase.IDLE, attempt=0, cause="", content=b"", dirty_since=None)
        return FoldResult(Disposition.IGNORED)

    def _forget_moved(self, offer: Offer) -> None:
        """Forget units that moved to another property: should they come back, the receiver has to be told."""
        here = {unit.id for unit in offer.units}
        known = self.row.known or ()
        if any(one.unit_id not in here for one in known):
            self._put(known=tuple(one for one in known if one.unit_id in here))

    def _sync_id(self) -> str:
        """Name the cut by its second; the further cuts of a second are numbered."""
        key = receiver_key(self.org, self.sink)
        second = self.cause.now.astimezone(UTC).strftime("%Y-%m-%d-%H-%M-%S")
        last = self.rows.find(ReceiverRow, key) or ReceiverRow()
        # A clock that steps back must not name two cuts alike: the later second goes on counting.
        count = last.count + 1 if second <= last.second else 1
        second = max(second, last.second)
        self.rows.put(key, ReceiverRow(second=second, count=count))
        return f"sync-{second}" if count == 1 else f"sync-{second}-{count}"

    def _put(self, **news: object) -> None:
        self.row = self.row.model_copy(update=news)
        self.rows.put(self.key, self.row)


def _what_to_say(
    offer: Offer, known: dict[int, bytes] | None, doubtful: set[int]
) -> tuple[tuple[OfferedUnit, ...], BatchMode]:
    """Choose the units of a batch: all of them at first, afterwards those that the receiver does not know as they are.

    Of a ``doubtful`` unit something was sent and never answered for: whatever it is now is told. A unit that was gone
    before the receiver ever heard of it is never mentioned.
    """
    heard_of = doubtful | (known or {}).keys()
    told = tuple(unit for unit in offer.units if unit.state is not UnitState.REMOVED or unit.id in heard_of)
    if known is None:
        return told, BatchMode.SNAPSHOT
    changed = (unit for unit in told if unit.id in doubtful or known.get(unit.id) != digest(offer.property, unit))
    return tuple(changed), BatchMode.DELTA


def _content(mode: BatchMode, offer: Offer, units: tuple[OfferedUnit, ...]) -> bytes:
    """Digest all that a batch carries, also what is too quiet to cause one: one batch id never goes with two bodies."""
    said = "\n".join([mode.value, offer.property.model_dump_json(), *(unit.model_dump_json() for unit in units)])
    return hashlib.blake2b(said.encode(), digest_size=16).digest()
