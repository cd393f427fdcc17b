"""The description of a dead letter: which record was given up, of which entity and why, and which other ones are alike.

Letters are alike if the same flow gave them up for the same reason with the same words, whatever ids, times and numbers
these contain: that is their fingerprint. A person corrects one cause, and replays what it has led to.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from schemas.base import EntityKind
from schemas.codec import DecodeError, UnknownWriter, decode
from schemas.commands import Command, Push
from schemas.delivery import Batch, DeliveryDue, DeliveryOutcome
from schemas.pms import FetchRequest, RecheckStep
from schemas.rent_roll import Page
from streams.core.flows import Record
from streams.core.retry import history_of


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One record that was given up; its bytes are in its topic."""

    org: str
    """Empty if the record has no readable key."""
    partition: int
    offset: int
    at: datetime
    """When it was given up."""
    origin: str
    """The topic that it was on, without the prefix; empty if its header is missing."""
    flow: str | None
    reason: str | None
    attempts: int
    message: str | None
    fingerprint: str
    first_failed_at: datetime | None
    replays: int
    replay: str | None = None
    """The replay that it was given up after."""
    connection: str | None = None
    receiver: str | None = None
    entity: str | None = None
    """``property:ID``, ``unit:ID``, ``lease:ID``… with the PMS's id, or our id of a property or an owner; null if it is
    about none, or about many."""
    kind: str | None = None
    """Of an entity of the PMS that is to be read: what it is."""
    pms_id: int | None = None
    """And its id there."""
    property_id: int | None = None
    """Of a delivery: the property."""
    operation: str | None = None
    """Of a command: its id."""

    @property
    def id(self) -> str:
        """Return the id by which people name it, such as ``3-1042``."""
        return f"{self.partition}-{self.offset}"


def place_of(text: str) -> tuple[int, int]:
    """Parse the id of a dead letter into partition and offset. Raise `ValueError` with what is allowed."""
    found = re.fullmatch(r"(\d{1,5})-(\d{1,18})", text)
    if not found:
        raise ValueError(f"{text!r} is not the id of a dead letter, which is PARTITION-OFFSET, such as 3-1042")
    return int(found[1]), int(found[2])


def letter_of(record: Record) -> DeadLetter:
    """Read a dead letter; nothing in it can make this fail."""
    history = history_of(record)
    return DeadLetter(
        org=(record.key or b"").decode("utf-8", "replace").split("/")[0],
        partition=record.partition,
        offset=record.offset,
        at=_moment(record.timestamp),
        origin=history.origin or "",
        flow=history.flow,
        reason=history.reason,
        attempts=history.attempt,
        message=history.detail,
        fingerprint=fingerprint(history.flow, history.reason, history.detail),
        first_failed_at=None if history.first_failed_at is None else _moment(history.first_failed_at),
        replays=history.replays,
        replay=history.replay,
        **subject_of(record.value),
    )


FINGERPRINT: Final = 12
"""Hexadecimal digits of a fingerprint."""

_WORDS: Final = (
    (re.compile(r"https?://\S+"), "<url>"),
    (re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?"), "<time>"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`|“[^”]*”"), "<text>"),
    (re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{12,}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"\d+([.,]\d+)*"), "<number>"),
    (re.compile(r"\s+"), " "),
)
"""What differs between failures of the same kind, in the order in which it is replaced."""


def normalized(words: str) -> str:
    """Return the words of a failure without what is particular to one record."""
    for pattern, placeholder in _WORDS:
        words = pattern.sub(placeholder, words)
    return words.strip().casefold()


def fingerprint(flow: str | None, reason: str | None, message: str | None) -> str:
    """Return the fingerprint of a failure: equal for failures of the same kind."""
    text = "\0".join((flow or "", reason or "", normalized(message or "")))
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=FINGERPRINT // 2).hexdigest()


def _moment(milliseconds: int) -> datetime:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return datetime(1970, 1, 1, tzinfo=UTC)


def subject_of(value: bytes | None) -> dict[str, Any]:
    """Return what a record is about, as far as it can be read, as fields of a `DeadLetter`."""
    try:
        record = decode(value)
    except (DecodeError, UnknownWriter):
        return {}
    match record:
        case Batch():
            found: dict[str, Any] = {"receiver": record.sink, **_property(record.property.id)}
        case DeliveryDue() | DeliveryOutcome():
            found = {"receiver": record.sink, **_property(record.property_id)}
        case Command() | Push():
            found = {"entity": record.id, "operation": record.operation}
        case FetchRequest() if record.entity is not None and record.kind is not EntityKind.UNKNOWN:
            found = _entity(record.kind, record.entity)
        case Page() if len(record.items) == 1:
            found = _entity(record.kind, record.items[0].id)
        case RecheckStep() if len(record.ids) == 1:
            found = _entity(record.kind, record.ids[0])
        case _:
            found = {}
    return {"connection": getattr(record, "connection", None), **found}


def _entity(kind: EntityKind, number: int) -> dict[str, Any]:
    return {"entity": f"{kind}:{number}", "kind": kind.value, "pms_id": number}


def _property(number: int) -> dict[str, Any]:
    return {"entity": f"property:{number}", "property_id": number}
