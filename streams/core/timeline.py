"""What happened to a unit, a property, or an entity of an upstream app, from the records of its org.

Nothing is kept for it: the records are still on their topics, for as long as those are kept.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from msgspec.structs import asdict

from schemas.base import EntityKind, Model
from schemas.codec import decode
from schemas.commands import Command, CommandAction, Push, PushOutcome, PushResult
from schemas.delivery import Batch, DeliveryDue, DeliveryOutcome, DeliveryResult, OfferedUnit
from schemas.pms import FetchOrigin, FetchRequest
from schemas.rent_roll import LeaseSnapshot, ListingSnapshot, Page, UnitSnapshot


class SubjectKind(StrEnum):
    """What a timeline may be about."""

    UNIT = "unit"
    PROPERTY = "property"
    OURS = "ours"
    """A property or an owner of an upstream app, by our id, or one of its operations."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a timeline is about."""

    kind: SubjectKind
    id: str

    @property
    def number(self) -> int:
        """Return the PMS's id of a unit or a property."""
        return int(self.id)


def subject_of(text: str) -> Subject:
    """Parse ``unit:100104``, ``property:1001``, or an id of ours. Raise `ValueError` with what is allowed."""
    found = re.fullmatch(r"(unit|property)[:/](\d{1,12})", text)
    if found:
        return Subject(SubjectKind(found[1]), found[2])
    if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", text) and not text.isdigit():
        return Subject(SubjectKind.OURS, text)
    raise ValueError(f"{text!r} is neither unit:ID, property:ID nor the id of a property, an owner or an operation")


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One thing that happened."""

    at: datetime
    topic: str
    text: str


@dataclass(slots=True)
class Timeline:
    """Collects what happened; changes have to be added first, since they show which property a unit has."""

    subject: Subject
    occurrences: list[Occurrence] = field(default_factory=list)
    _homes: set[int] = field(default_factory=set)
    """The properties that the unit has had."""
    _ours: set[str] = field(default_factory=set)
    """Our ids of the entity, where an operation was asked for."""
    _last: dict[tuple[EntityKind, int], Mapping[str, Any]] = field(default_factory=dict)
    """What was read last of each entity."""
    _sent: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """What each receiver was sent last of the unit."""
    _versions: set[tuple[str, int, int]] = field(default_factory=set)
    """Receiver, property and version of the batches that had the subject."""
    _current: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Version and state of what was sent last, by who it was sent to."""

    def add(self, topic: str, at: datetime, value: Model, context: str = "") -> None:
        """Take a record into account; ``context`` is what is known of it besides, such as why it is parked."""
        for text in self._texts(value):
            self.occurrences.append(Occurrence(at, topic, f"{context}: {text}" if context else text))

    def current(self) -> list[str]:
        """Return the current state, a sentence for each receiver, or for the PMS."""
        return [f"{whom}: {text}" for whom, (_, text) in sorted(self._current.items())]

    def _note(self, whom: str, version: int, text: str) -> None:
        """Note the state of something that was sent; what was sent later counts."""
        if version >= self._current.get(whom, (0, ""))[0]:
            self._current[whom] = version, text

    def ordered(self) -> list[Occurrence]:
        """Return what happened, in the order of time."""
        return sorted(self.occurrences, key=lambda one: one.at)

    def _texts(self, value: Model) -> list[str]:
        handlers: Mapping[type[Model], Callable[[Any], list[str]]] = {
            FetchRequest: self._request,
            Page: self._page,
            DeliveryDue: self._due,
            Batch: self._batch,
            DeliveryOutcome: self._outcome,
            Command: self._operation,
            Push: self._operation,
            PushOutcome: self._operation,
        }
        handle = handlers.get(type(value))
        return handle(value) if handle else []

    # --------------------------------------------------------------------------------------------------------- reading

    def _request(self, request: FetchRequest) -> list[str]:
        kinds = (EntityKind.UNIT, EntityKind.LISTING) if self._is(SubjectKind.UNIT) else (EntityKind.PROPERTY,)
        if self._is(SubjectKind.OURS) or request.kind not in kinds or request.entity != self.subject.number:
            return []
        if request.origin is FetchOrigin.WEBHOOK:
            late = _between(request.occurred_at, request.received_at)
            ignored = f", ignored: {request.ignored}" if request.ignored else ""
            return [f"webhook {request.event} arrived{late}{ignored}"]
        return [f"asked for the {request.kind}: {request.event}"]

    def _page(self, page: Page) -> list[str]:
        if self._is(SubjectKind.OURS):
            return []
        texts = []
        for item in page.items:
            if page.kind is not EntityKind.LEASE and item.id != self.subject.number:
                continue
            snapshot = None if item.body is None else decode(item.body)
            if not self._concerns(page.kind, item.id, snapshot):
                continue
            before = self._last.get((page.kind, item.id))
            now: Mapping[str, Any] = {} if snapshot is None else asdict(snapshot)
            self._last[page.kind, item.id] = now
            if isinstance(snapshot, UnitSnapshot):
                self._homes.add(snapshot.property_id)
            what = str(page.kind) if item.id == self.subject.number else f"{page.kind} {item.id}"
            if snapshot is None:
                if before != now:
                    texts.append(f"{what} does not exist in the PMS")
            elif not before:
                texts.append(f"{what} read for the first time in this period: {_shown(now)}")
            elif before != now:
                texts.append(f"{what} changed: {_difference(before, now)}")
        return texts

    def _concerns(self, kind: EntityKind, number: int, snapshot: Model | None) -> bool:
        if self._is(SubjectKind.PROPERTY):
            return kind is EntityKind.PROPERTY and number == self.subject.number
        if kind is EntityKind.LEASE:
            known = (kind, number) in self._last
            return known or (isinstance(snapshot, LeaseSnapshot) and snapshot.unit_id == self.subject.number)
        if kind is EntityKind.LISTING and isinstance(snapshot, ListingSnapshot):
            return snapshot.unit_id == self.subject.number
        return kind in (EntityKind.UNIT, EntityKind.LISTING) and number == self.subject.number

    # ------------------------------------------------------------------------------------------------------- delivering

    def _due(self, due: DeliveryDue) -> list[str]:
        if not self._has(due.property_id):
            return []
        if self._is(SubjectKind.UNIT) and due.units is not None and self.subject.number not in due.units:
            return []
        whom = f" for {due.sink}" if due.sink else ""
        attempt = f", attempt {due.attempt}{' was held' if due.held else ' failed'}" if due.attempt else ""
        return [f"due{whom}: {due.reason}{attempt}"]

    def _batch(self, batch: Batch) -> list[str]:
        if not self._has(batch.property.id):
            return []
        unit = next((one for one in batch.units if self._is(SubjectKind.UNIT) and one.id == self.subject.number), None)
        if self._is(SubjectKind.UNIT) and unit is None:
            return []
        self._versions.add((batch.sink, batch.property.id, batch.version))
        self._note(f"{batch.sink}, property {batch.property.id}", batch.version, f"{batch.sync_id} has no answer yet")
        head = f"{batch.mode} {batch.sync_id} cut for {batch.sink}, attempt {batch.attempt}"
        if unit is None:
            return [f"{head}: {'1 unit' if len(batch.units) == 1 else f'{len(batch.units)} units'}"]
        before, now = self._sent.get(batch.sink), _offered(unit)
        self._sent[batch.sink] = now
        return [f"{head}: {_shown(now) if before is None else _difference(before, now) or 'the same as before'}"]

    def _outcome(self, outcome: DeliveryOutcome) -> list[str]:
        if (outcome.sink, outcome.property_id, outcome.version) not in self._versions:
            return []
        whom = f"{outcome.sink}, property {outcome.property_id}"
        if outcome.result is DeliveryResult.ACKNOWLEDGED:
            self._note(whom, outcome.version, f"knows what was sent last, since {outcome.at:%Y-%m-%d %H:%M:%S}Z")
            return [f"acknowledged by {outcome.sink} ({outcome.status})"]
        due = f"; the next attempt is due at {outcome.due_at:%H:%M:%S}" if outcome.due_at else ""
        text = f"{outcome.result}, attempt {outcome.attempt}: {outcome.detail}{due}"
        self._note(whom, outcome.version, text)
        return [f"{outcome.sink}: {text}"]

    # ------------------------------------------------------------------------------------------------------- operations

    def _operation(self, value: Command | Push | PushOutcome) -> list[str]:
        if not self._is(SubjectKind.OURS):
            return []
        if value.operation == self.subject.id:
            self._ours.add(value.id)
        elif value.id != self.subject.id and value.id not in self._ours:
            return []
        what = f"{value.entity} {value.id}"
        match value:
            case Command(action=CommandAction.RETRY):
                return [f"{what}: to be tried again{f', attempt {value.attempt}' if value.attempt else ''}"]
            case Command():
                return [f"{what}: {value.action} accepted as operation {value.operation}"]
            case Push():
                self._note(what, value.version, "no answer of the PMS yet")
                how = "to be created" if value.pms_id is None else f"to be changed as {value.pms_id}"
                return [f"{what}: {how} in the PMS, attempt {value.attempt}"]
            case _:
                text = _ended(value)
                self._note(what, value.version, text)
                return [f"{what}: {text}"]

    # ------------------------------------------------------------------------------------------------------------ parts

    def _is(self, kind: SubjectKind) -> bool:
        return self.subject.kind is kind

    def _has(self, property_id: int) -> bool:
        if self._is(SubjectKind.OURS):
            return False
        return property_id in self._homes if self._is(SubjectKind.UNIT) else property_id == self.subject.number


def _ended(outcome: PushOutcome) -> str:
    if outcome.result is PushResult.DONE:
        return f"the PMS has it as {outcome.pms_id}"
    due = f"; the next attempt is due at {outcome.due_at:%H:%M:%S}" if outcome.due_at else ""
    return f"{outcome.result}, attempt {outcome.attempt}: {outcome.code}: {outcome.detail}{due}"


_LEFT_OUT: Final = frozenset({"id", "property_id", "unit_id"})


def _shown(values: Mapping[str, Any]) -> str:
    """Return what is known of an entity: nulls, empty values, false flags and ids left out."""
    known = {
        name: value
        for name, value in values.items()
        if name not in _LEFT_OUT and value is not False and value not in (None, (), "")
    }
    return ", ".join(f"{name} {_text(value)}" for name, value in known.items())


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    names = [
        name for name in (*before, *(one for one in now if one not in before)) if before.get(name) != now.get(name)
    ]
    return ", ".join(f"{name} {_text(before.get(name))} → {_text(now.get(name))}" for name in names)


def _text(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return "[" + ", ".join(_text(one) for one in value) + "]"
    if isinstance(value, Model):
        return "(" + _shown(asdict(value)) + ")"
    return str(value)


def _offered(unit: OfferedUnit) -> Mapping[str, Any]:
    return {
        "state": unit.state,
        "status": unit.status,
        "available": unit.is_available,
        "from": unit.when_available,
        "rent": unit.base_rent,
    }


def _between(first: datetime | None, second: datetime) -> str:
    if first is None or second < first:
        return ""
    return f", {(second - first) / timedelta(seconds=1):.1f} s after the change"
