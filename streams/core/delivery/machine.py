"""Applying transitions: one record, the rows of the receivers that it concerns, and the batches that follow."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from schemas import topics
from schemas.delivery import (
    Acknowledged,
    Batch,
    BatchMode,
    DeliveryDue,
    DeliveryOutcome,
    DeliveryPhase,
    DeliveryRow,
    KnownRow,
    OpenRow,
    ReceiverRow,
)
from streams.core.delivery.cut import Content, batch_id, count_cut, cut, owes_snapshot, sync_id
from streams.core.delivery.keys import delivery_key, known_key, known_of, open_key, receiver_key
from streams.core.delivery.recall import OF_CONTENT
from streams.core.delivery.states import TRANSITIONS, Action, Event, Transition, event_of
from streams.core.due import Units, named, united, units_of_due
from streams.core.flows import Disposition, Emit, FoldResult
from streams.core.offer import Offer
from streams.core.policy import SinkPolicy
from streams.core.rows import Rows


def is_open(row: DeliveryRow) -> bool:
    """Return whether a receiver may not know the state of a property, or a dead letter of it is not closed."""
    return row.phase is not DeliveryPhase.IDLE or row.dirty_since is not None or row.dead_letter is not None


@dataclass(frozen=True, slots=True)
class Cause:
    """The record that is folded, and the moment of the step."""

    id: str
    """``topic:offset``; with the partition, which all rows here share, it identifies the record permanently."""
    now: datetime


ReadOffer = Callable[[str, str, int, SinkPolicy, Units], Offer | None]
"""Returns what a receiver is offered of a property (org, connection, id) according to the rent roll of this moment: all
of its units, or those that are given."""


def apply(
    rows: Rows, record: DeliveryDue | DeliveryOutcome, cause: Cause, sinks: Sequence[SinkPolicy], read: ReadOffer
) -> FoldResult:
    """Fold one record: decide what follows for each receiver that it concerns.

    ``sinks`` are the enabled receivers of the record's org. Idempotent: a record that is consumed again emits the same
    batch again, or nothing once that batch has an outcome.
    """
    if isinstance(record, DeliveryOutcome) or record.sink is not None:
        policy = next((one for one in sinks if one.name == record.sink), None)
        return _Delivery(rows, record, record.sink or "", policy, cause, read).fold()
    result = FoldResult(Disposition.IGNORED)
    for policy in sinks:
        one = _Delivery(rows, record, policy.name, policy, cause, read).fold()
        result.emits += one.emits
        for fact, count in one.counts.items():
            result.counts[fact] = result.counts.get(fact, 0) + count
        if one.verdict is not Disposition.IGNORED:
            result.verdict = one.verdict
    return result


class _Delivery:
    """One record and the row of one property at one receiver."""

    def __init__(
        self,
        rows: Rows,
        record: DeliveryDue | DeliveryOutcome,
        sink: str,
        policy: SinkPolicy | None,
        cause: Cause,
        read: ReadOffer,
    ) -> None:
        self.rows = rows
        self.record = record
        self.sink = sink
        self.policy = policy
        """Null if the receiver is disabled or deleted."""
        self.cause = cause
        self.read = read
        self.key = delivery_key(record.org, sink, record.connection, record.property_id)
        self.known = known_of(record.org, sink, record.connection, record.property_id)
        self.row = rows.find(DeliveryRow, self.key) or DeliveryRow()
        self.was_open = is_open(self.row)
        self.changed: Units = frozenset()
        """What changed since the last cut, besides what the row has noted."""

    def fold(self) -> FoldResult:
        """Apply the transition of the event that the record means, and keep the index of open deliveries."""
        self._convert()
        result = self._apply()
        if is_open(self.row) != self.was_open:
            key = open_key(self.record.org, self.sink, self.record.connection, self.record.property_id)
            if self.was_open:
                self.rows.remove(key)
            else:
                self.rows.put(key, OpenRow(version=self.row.version))
        return result

    def _apply(self) -> FoldResult:
        event = event_of(self.row, self.record, self.cause.id, enabled=self.policy is not None)
        if event is None:
            return FoldResult(Disposition.IGNORED)
        if event is Event.DUE and isinstance(self.record, DeliveryDue) and self.record.snapshot_at is not None:
            self._put(snapshot_due=self.record.snapshot_at)
        if event in (Event.DUE, Event.REPEATED) and isinstance(self.record, DeliveryDue):
            self.changed = self._changed_units(self.record)
        return self._fire(event, self.record.seen_at if isinstance(self.record, DeliveryDue) else self.record.at)

    def _fire(self, event: Event, moment: datetime) -> FoldResult:
        """Apply the transition of an event; ``moment`` is that of the change or the outcome behind it."""
        transition = TRANSITIONS[self.row.phase][event]
        match transition.action:
            case Action.CUT:
                return self._cut(event, transition, moment)
            case Action.WITHDRAW:
                return self._withdraw(transition, moment)
            case Action.MARK:
                self._mark(transition, moment)
            case Action.WAIT:
                due_at = self.record.due_at if isinstance(self.record, DeliveryOutcome) else None
                self._put(phase=transition.phase, last_error=self._detail(), due_at=due_at)
            case Action.CONFIRM | Action.GIVE_UP | Action.CANCEL:
                return self._end(transition, moment)
            case Action.REST:
                if self.row.phase is not transition.phase:
                    closed = self._closed()
                    self._put(phase=transition.phase, dirty_since=None, dirty_units=None, **_ENDED, **_SETTLED)
                    return FoldResult(transition.disposition, counts=closed)
            case Action.VOID:
                return FoldResult(transition.disposition, counts={"superseded": 1})
        return FoldResult(transition.disposition)

    def _end(self, transition: Transition, moment: datetime) -> FoldResult:
        """End the delivery; what changed since it was cut, be it the property or the receiver, is cut at once."""
        due, closed = self.row.dirty_since, self._closed() if transition.action is Action.CONFIRM else {}
        self.changed = self._noted()
        if transition.action is Action.CONFIRM:
            self._note_acknowledgement(moment)
            self._remember_known()
            update = _confirmed(self.row, moment) | _SETTLED
        elif transition.action is Action.GIVE_UP:
            update = self._given_up(moment)
        else:
            update = {"last_error": self._detail(), **_SETTLED}
        self._put(phase=transition.phase, dirty_since=None, dirty_units=None, **{**_ENDED, **update})
        result = FoldResult(transition.disposition)
        if self.policy is not None:
            if due is None and (self.row.receiver, self.row.form) != (self.policy.identity, self.policy.form):
                due = moment
            if due is not None:
                result = self._fire(Event.DUE, due)
        result.counts |= closed
        return result

    def _closed(self) -> dict[str, int]:
        """Return the count of the row's dead letter, which becomes void."""
        return {"closed": 1} if self.row.dead_letter is not None else {}

    def _cut(self, event: Event, transition: Transition, moment: datetime) -> FoldResult:
        """Cut the property as it is now, and emit the batch unless the receiver knows everything."""
        assert self.policy is not None
        units = self._scope(self.policy)
        adopted = self._adopt(self.policy)
        offer = self.read(self.record.org, self.record.connection, self.record.property_id, self.policy, units)
        content = None
        if offer is not None:
            if units is None and offer.mark != self.row.mark:
                self._put(mark=offer.mark)
            content = cut(offer, self.row, self._read_known(offer, units))
        if content is None:
            return self._fire(Event.CUT_EMPTY, moment)
        return self._send(content, moment, 1 if adopted else self._attempt(event), transition)

    def _withdraw(self, transition: Transition, moment: datetime) -> FoldResult:
        """Cut what became unavailable, if the receiver has the property and is due nothing else."""
        assert self.policy is not None
        assert isinstance(self.record, DeliveryDue)
        units = units_of_due(self.record)
        if not self._is_current(self.policy) or self.row.sent:
            return FoldResult(Disposition.IGNORED)
        offer = self.read(self.record.org, self.record.connection, self.record.property_id, self.policy, units)
        if offer is None:
            return FoldResult(Disposition.IGNORED)
        only = replace(offer, units=tuple(unit for unit in offer.units if not unit.is_available))
        content = cut(only, self.row, self._read_known(offer, units))
        if content is None:
            return self._fire(Event.CUT_EMPTY, moment)
        return self._send(content, moment, 1, transition)

    def _send(self, content: Content, moment: datetime, attempt: int, transition: Transition) -> FoldResult:
        """Note what is sent, and emit the batch."""
        assert self.policy is not None
        follows = TRANSITIONS[self.row.phase][Event.CUT]
        seen_at = moment if self.row.phase is DeliveryPhase.IDLE else min(self.row.seen_at or moment, moment)
        if self.row.dirty_since is not None:
            seen_at = min(seen_at, self.row.dirty_since)
        closed: dict[str, int] = {}
        if self.row.dead_letter in OF_CONTENT and self.row.content != content.digest:
            closed = self._closed()
            self._put(dead_letter=None)
        self._name(content)
        if content.mode is BatchMode.SNAPSHOT:
            self._put(snapshot_cut_at=max(self.cause.now, self.row.snapshot_due or self.cause.now))
        self._put(
            phase=follows.phase,
            attempt=attempt,
            dirty_since=None,
            dirty_units=None,
            sent=content.sent,
            seen_at=seen_at,
            mode=content.mode,
            content=content.digest,
            cause=self.cause.id,
        )
        return FoldResult(transition.disposition, [self._batch(content)], closed)

    def _attempt(self, event: Event) -> int:
        """Return the number of the attempt that a cut is for."""
        if event is Event.RETRY:
            assert isinstance(self.record, DeliveryDue)
            return self.record.attempt if self.record.held else self.record.attempt + 1
        # What was given up has used its attempts up: a change is tried once more, and then at the times of `recall`.
        return self.row.attempt if event is Event.REPEATED or self.row.phase is DeliveryPhase.OWED else 1

    def _adopt(self, policy: SinkPolicy) -> bool:
        """Make the row that of the present receiver: forget what another one was sent and acknowledged.

        If only its configuration is another one, or the form of its batches, the first snapshot mentions all that it
        may have: a unit that was removed would stay there otherwise.
        """
        row = self.row
        if row.receiver == policy.identity and row.form == policy.form:
            if (row.revision, row.address) != (policy.revision, policy.address):
                self._put(revision=policy.revision, address=policy.address)
            return False
        may_have: set[int] = set()
        if row.receiver == policy.identity or (policy.address and row.address == policy.address):
            known = (int(key[len(self.known) :]) for key, _ in self.rows.scan(KnownRow, self.known))
            may_have = {*known, *(one.unit_id for one in row.sent)}
        self._put(
            receiver=policy.identity,
            address=policy.address,
            form=policy.form,
            revision=policy.revision,
            introduced=False,
            sent=tuple(Acknowledged(unit_id=unit, digest=b"") for unit in sorted(may_have)),
            content=b"",
            seen_at=None,
            acknowledged_at=None,
            last_error=None,
            snapshot_cut_at=None,
            snapshot_at=None,
            **_SETTLED,
        )
        return True

    # ---- the units of a property -----------------------------------------------------------------------------------

    def _changed_units(self, due: DeliveryDue) -> Units:
        """Return the units that a record is about, and take note of its mark."""
        is_gap = due.mark > self.row.mark and due.after > self.row.mark
        if due.mark > self.row.mark and due.units is not None:
            self._put(mark=due.mark)
        return None if is_gap else units_of_due(due)

    def _noted(self) -> Units:
        """Return the units that changed while a delivery was on its way."""
        if self.row.dirty_since is None:
            return frozenset()
        return None if self.row.dirty_units is None else frozenset(self.row.dirty_units)

    def _mark(self, transition: Transition, moment: datetime) -> None:
        units = named(united(self._noted(), self.changed))
        since = moment if self.row.dirty_since is None else min(moment, self.row.dirty_since)
        if (since, units) != (self.row.dirty_since, self.row.dirty_units):
            self._put(phase=transition.phase, dirty_since=since, dirty_units=units)

    def _is_current(self, policy: SinkPolicy) -> bool:
        """Return whether the receiver has the property, as its present configuration wants it."""
        row = self.row
        return (
            row.introduced
            and (row.receiver, row.revision) == (policy.identity, policy.revision)
            and not owes_snapshot(row)
        )

    def _scope(self, policy: SinkPolicy) -> Units:
        """Return the units that a cut has to look at; null: all of them."""
        row = self.row
        if not self._is_current(policy) or (row.sent and row.mode is BatchMode.SNAPSHOT):
            return None
        changed = united(self.changed, self._noted())
        return None if changed is None else changed | {one.unit_id for one in row.sent}

    def _read_known(self, offer: Offer, units: Units) -> Mapping[int, bytes] | None:
        """Return what the receiver acknowledged of these units; null before its first snapshot.

        Units that moved to another property are forgotten: if they come back, they have to be sent again.
        """
        if not self.row.introduced:
            return None
        here = {unit.id for unit in offer.units}
        known: dict[int, bytes] = {}
        if units is None:
            rows = {int(key[len(self.known) :]): read() for key, read in self.rows.scan(KnownRow, self.known)}
        else:
            found = ((unit, self.rows.find(KnownRow, known_key(self.known, unit))) for unit in units)
            rows = {unit: row for unit, row in found if row is not None}
        for unit, row in rows.items():
            if unit in here:
                known[unit] = row.digest
            else:
                self.rows.remove(known_key(self.known, unit))
        return known

    def _remember_known(self) -> None:
        """Write what the receiver acknowledges: after a snapshot it knows nothing else."""
        sent = {known_key(self.known, one.unit_id): one.digest for one in self.row.sent}
        if self.row.mode is BatchMode.SNAPSHOT:
            for key in [key for key, _ in self.rows.scan(KnownRow, self.known) if key not in sent]:
                self.rows.remove(key)
        for key, digest in sent.items():
            before = self.rows.find(KnownRow, key)
            if before is None or before.digest != digest:
                self.rows.put(key, KnownRow(digest=digest))

    def _convert(self) -> None:
        """Turn a row of a former release into the present form."""
        known: tuple[Acknowledged, ...] | None = self.row.known
        if known is not None:
            for one in known:
                self.rows.put(known_key(self.known, one.unit_id), KnownRow(digest=one.digest))
            self._put(known=None, introduced=True)

    def _name(self, content: Content) -> None:
        """Name the batch: content that is on its way already keeps its name, anything else gets a new one.

        What was given up gets a new one as well, because a receiver may repeat its first answer to an idempotency key.
        """
        row = self.row
        if row.phase not in (DeliveryPhase.IDLE, DeliveryPhase.OWED) and row.content == content.digest:
            return
        version, now = row.version + 1, self.cause.now
        self._put(
            version=version,
            cut_at=now,
            sync_id=self._sync_id(),
            batch_id=batch_id(self.key, version, now, content.digest),
        )

    def _sync_id(self) -> str:
        key = receiver_key(self.record.org, self.sink)
        counted = count_cut(self.rows.find(ReceiverRow, key) or ReceiverRow(), self.cause.now)
        self.rows.put(key, counted)
        return sync_id(counted)

    def _batch(self, content: Content) -> Emit:
        row, record = self.row, self.record
        assert row.cut_at is not None
        assert row.seen_at is not None
        batch = Batch(
            org=record.org,
            connection=record.connection,
            sink=self.sink,
            receiver=row.receiver,
            form=row.form,
            configured_at=self.policy.changed_at if self.policy else None,
            batch_id=row.batch_id,
            sync_id=row.sync_id,
            cut_at=row.cut_at,
            seen_at=row.seen_at,
            version=row.version,
            attempt=row.attempt,
            mode=content.mode,
            property=content.property,
            units=content.units,
            dead_letter=row.dead_letter,
        )
        return Emit(topics.BATCHES, record.org, batch)

    def _given_up(self, at: datetime) -> dict[str, object]:
        """Return what the end of the attempts changes: the delivery is owed, with its attempts and its content."""
        row = self.row
        reason = self.record.reason if isinstance(self.record, DeliveryOutcome) else None
        return {
            "attempt": row.attempt,
            "content": row.content,
            "last_error": self._detail(),
            "given_up_at": at,
            "given_up": row.given_up + 1,
            "dead_letter": reason or row.dead_letter,
            "due_at": None,
        }

    def _note_acknowledgement(self, at: datetime) -> None:
        """Remember that the receiver answers, for what else it is owed."""
        key = receiver_key(self.record.org, self.sink)
        receiver = self.rows.find(ReceiverRow, key) or ReceiverRow()
        second = at.replace(microsecond=0)
        if receiver.acknowledged_at is None or receiver.acknowledged_at < second:
            self.rows.put(key, receiver.model_copy(update={"acknowledged_at": second}))

    def _detail(self) -> str | None:
        """Return why the delivery did not succeed."""
        if self.policy is None:
            return "the receiver is disabled or deleted"
        return self.record.detail if isinstance(self.record, DeliveryOutcome) else None

    def _put(self, **update: object) -> None:
        self.row = self.row.model_copy(update=update)
        self.rows.put(self.key, self.row)


_ENDED: Mapping[str, object] = {"attempt": 0, "cause": "", "content": b""}
"""Fields of a row without a delivery on its way."""

_SETTLED: dict[str, object] = {"due_at": None, "given_up_at": None, "given_up": 0, "dead_letter": None}
"""Fields of a row whose receiver is owed nothing."""


def _confirmed(row: DeliveryRow, at: datetime) -> dict[str, object]:
    """Return what an acknowledgement changes."""
    return {
        "introduced": True,
        "sent": (),
        "acknowledged_at": at,
        "last_error": None,
        "snapshot_at": row.snapshot_cut_at if row.mode is BatchMode.SNAPSHOT else row.snapshot_at,
        "snapshot_cut_at": None,
    }
