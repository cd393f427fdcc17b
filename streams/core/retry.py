"""What follows from a failure: the ladder, the verdicts, and the headers that keep a parked record's history.

The law: a record ends as done, parked or dead, and nothing else. A parked or dead record keeps the bytes and the key
that it had; its history travels in headers (`schemas.retry`). Parking waits exactly as long as the rung says, so that
the head of a rung's partition is always due first. A record that could not be tried at all is held: it is parked, too,
but keeps its attempts, for a day at the most.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from connectors.ports import Failure, Missing, Rejected, Throttled, Unauthorized, Unavailable
from schemas import retry as header
from schemas import topics
from streams.core.flows import Disposition, Emit, Headers, ProducerRecord, Record, encoded

# ------------------------------------------------------------------------------------------------------ the ladder

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Rung:
    """One delay of the ladder and the topic where records wait for it."""

    delay: str
    """As the setting writes it; it names the topic."""
    seconds: float
    topic: str


Ladder = tuple[Rung, ...]
"""Rungs in growing order; a record is attempted once more than there are rungs."""


def ladder(text: str) -> Ladder:
    """Read delays such as ``1m,2m,5m,10m``: at least one, each longer than the one before, from 1ms to 24h."""
    rungs: list[Rung] = []
    for part in (piece.strip() for piece in text.split(",")):
        found = re.fullmatch(r"(\d+)(ms|s|m|h)", part)
        if not found:
            raise ValueError(f"{part!r} is not a delay: a whole number with a unit, ms, s, m or h, such as 5m")
        seconds = int(found[1]) * _UNITS[found[2]]
        if not 0 < seconds <= _LONGEST:
            raise ValueError(f"{part} is out of range: a delay is longer than nothing and at most 24h")
        if rungs and seconds <= rungs[-1].seconds:
            raise ValueError(f"{part} is not longer than {rungs[-1].delay}: each delay is longer than the one before")
        rungs.append(Rung(part, seconds, topics.rung(part).name))
    return tuple(rungs)


# ---------------------------------------------------------------------------------------------------- the verdicts


class Reason(StrEnum):
    """Why a record was parked or given up; a closed set, fit for a metric's label."""

    UNAVAILABLE = "unavailable"
    THROTTLED = "throttled"
    UNAUTHORIZED = "unauthorized"
    MISSING = "missing"
    REJECTED = "rejected"
    MALFORMED = "malformed"
    """Its bytes are not a record of ours."""
    BUG = "bug"
    """Our own code raised."""
    EXHAUSTED = "exhausted"
    """The last attempt failed as well; the detail says how."""
    TOO_LARGE = "too_large"
    """What followed from it does not fit into a record."""
    NO_ORIGIN = "homeless"
    """It waited on a rung and does not say where it belongs."""
    UNKNOWN_INTEGRATION = "unknown_integration"
    """It was held, since no integration has its name."""
    INTEGRATION_PROBLEM = "integration_problem"
    """It was held, since its integration cannot be used (its encryption key is lost, …)."""
    CIRCUIT_OPEN = "circuit_open"
    """It was held, since its integration does not answer (`streams.core.breaker`)."""


@dataclass(frozen=True, slots=True)
class Done:
    """It is dealt with; ``effects`` are what follows."""

    effects: tuple[Emit, ...] = ()
    ending: Disposition = Disposition.APPLIED


@dataclass(frozen=True, slots=True)
class Parked:
    """It waits on a rung and then comes back to the topic that it came from.

    ``instead`` comes back in its place, to the topic that it names, where another topic decides again.
    """

    rung: Rung
    due_at: int
    """Milliseconds since the epoch."""
    attempt: int
    """How many attempts were made: the number of the one that failed, one less if it was held."""
    reason: Reason
    detail: str
    effects: tuple[Emit, ...] = ()
    instead: Emit | None = None


@dataclass(frozen=True, slots=True)
class Dead:
    """It is given up, with its bytes and the reason, until a person replays it."""

    reason: Reason
    detail: str
    attempt: int | None = None
    """The number of the attempt that failed; what the record's headers say, if not given."""
    effects: tuple[Emit, ...] = ()


Outcome = Done | Parked | Dead

HELD_AT_MOST = 24 * 3600.0
"""Seconds from a record's first failure (or hold) after which it is not held once more: it has to have a way out."""


@dataclass(frozen=True, slots=True)
class Held:
    """It cannot be tried now, whatever it is; it waits without using up an attempt (`outcome_of_hold`)."""

    reason: Reason
    detail: str
    until: datetime | None = None
    """When it may be tried; null: unknown."""


def outcome_of_hold(
    held: Held, attempt: int, first_failed_at: int | None, now: datetime, rungs: Ladder
) -> Parked | Dead:
    """Decide what follows when the ``attempt``-th attempt (from 1) could not be made.

    The first rung that is long enough, or the last. If the time is unknown: as long as it has waited before.
    """
    at = milliseconds(now)
    waited = 0.0 if first_failed_at is None else (at - first_failed_at) / 1000
    if waited >= HELD_AT_MOST:
        return Dead(held.reason, f"{held.detail}; given up after {waited / 3600:.0f} hours", attempt - 1)
    wait = waited if held.until is None else (held.until - now).total_seconds()
    rung = next((one for one in rungs if one.seconds >= wait), rungs[-1])
    return Parked(rung, at + round(rung.seconds * 1000), attempt - 1, held.reason, held.detail)


def outcome_of(failure: Failure, attempt: int, now: datetime, rungs: Ladder) -> Parked | Dead:
    """Decide what follows when the ``attempt``-th attempt (from 1) met this failure.

    The outside is unavailable: the rung of the attempt. It is throttling and said for how long: the first rung that is
    long enough, or the last. A later attempt does not help the others. Nor does one more after the last rung.
    """
    match failure:
        case Unavailable(detail=detail, retry_after=wait):
            reason = Reason.UNAVAILABLE
        case Throttled(detail=detail, retry_after=wait):
            reason = Reason.THROTTLED
        case Unauthorized(detail=detail):
            return Dead(Reason.UNAUTHORIZED, detail, attempt)
        case Missing(detail=detail):
            return Dead(Reason.MISSING, detail, attempt)
        case Rejected(detail=detail):
            return Dead(Reason.REJECTED, detail, attempt)
    if attempt > len(rungs):
        return Dead(Reason.EXHAUSTED, f"given up after {attempt} attempts; the last: {reason}: {detail}", attempt)
    lowest = 0 if reason is Reason.THROTTLED and wait is not None else max(attempt, 1) - 1
    rung = next((one for one in rungs[lowest:] if one.seconds >= (wait or 0)), rungs[-1])
    return Parked(rung, milliseconds(now) + round(rung.seconds * 1000), attempt, reason, detail)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def milliseconds(moment: datetime) -> int:
    """Whole milliseconds since the epoch, as headers and topics keep time."""
    return (moment - _EPOCH) // _MILLISECOND


# ------------------------------------------------------------------------------------------------- the two outcomes

_OURS = frozenset(
    {
        header.ATTEMPT,
        header.ORIGIN,
        header.DUE_AT,
        header.REASON,
        header.DETAIL,
        header.FLOW,
        header.FIRST_FAILED_AT,
    }
)
_LONGEST_DETAIL = 2000


def park(record: Record, parked: Parked, flow: str, now: datetime) -> ProducerRecord:
    """Return the record that waits on the rung."""
    if parked.instead is None:
        back = ProducerRecord(record.topic, record.key or b"", record.value, _others(record))
    else:
        back = encoded(parked.instead)
    headers = back.headers + _history(
        record,
        now,
        {
            header.ATTEMPT: parked.attempt,
            header.ORIGIN: back.topic,
            header.DUE_AT: parked.due_at,
            header.REASON: parked.reason,
            header.DETAIL: parked.detail,
            header.FLOW: flow,
        },
    )
    return ProducerRecord(parked.rung.topic, back.key, back.value, headers)


def to_dead_letter(record: Record, dead: Dead, flow: str, now: datetime) -> ProducerRecord:
    """Return the dead letter, which holds what a person needs to judge it and a replay needs to bring it back."""
    attempt = attempt_of(record) if dead.attempt is None else dead.attempt
    headers = _others(record) + _history(
        record,
        now,
        {
            header.ATTEMPT: attempt,
            header.ORIGIN: record.topic,
            header.REASON: dead.reason,
            header.DETAIL: dead.detail,
            header.FLOW: flow,
        },
    )
    return ProducerRecord(topics.DEAD_LETTERS.name, record.key or b"", record.value, headers)


def attempt_of(record: Record) -> int:
    """The number of the attempt that is being made now: 1 for a record that never failed."""
    return (_number(record, header.ATTEMPT) or 0) + 1


def origin_of(record: Record) -> str | None:
    """The topic, without prefix, where a parked or dead record came from and goes back to."""
    found = _find(record, header.ORIGIN)
    try:
        return found.decode() if found else None
    except UnicodeDecodeError:
        return None


def first_failed_at(record: Record) -> int | None:
    """Return when a record first failed or was held, in milliseconds since the epoch."""
    return _number(record, header.FIRST_FAILED_AT)


def first_failure(record: Record) -> Headers:
    """Return the headers that a record which replaces a parked one has to keep."""
    found = _find(record, header.FIRST_FAILED_AT)
    return () if found is None else ((header.FIRST_FAILED_AT, found),)


def due_at(record: Record) -> int | None:
    """When a parked record may come back, in milliseconds since the epoch."""
    return _number(record, header.DUE_AT)


def _find(record: Record, name: str) -> bytes | None:
    return next((value for key, value in record.headers if key == name), None)


def _number(record: Record, name: str) -> int | None:
    found = _find(record, name)
    return int(found) if found and len(found) < 16 and found.isdigit() else None


def _others(record: Record) -> Headers:
    return tuple((name, value) for name, value in record.headers if name not in _OURS)


def _history(record: Record, now: datetime, says: dict[str, object]) -> Headers:
    first = first_failed_at(record)
    says[header.FIRST_FAILED_AT] = milliseconds(now) if first is None else first
    return tuple((name, str(value)[:_LONGEST_DETAIL].encode(errors="replace")) for name, value in says.items())


# ----------------------------------------------------------------------------------------------- when to stop at all


class TooManyDead(Exception):  # noqa: N818 -- its name is what happened
    """Records die one after the other: rather a broken deploy than broken records. Nothing more is given up."""


@dataclass(slots=True)
class DeadLetterLimit:
    """Counts records that died in a row for a reason that speaks against us; at ``limit`` the flow has to stop.

    Any other ending begins the count anew. The record that reaches the limit is not buried any more: it stays where it
    is, unacknowledged. A limit of 0 never stops.
    """

    limit: int = 20
    reasons: frozenset[Reason] = frozenset({Reason.BUG, Reason.MALFORMED})
    run: int = field(default=0, init=False)

    def ended(self, verdicts: Iterable[Outcome]) -> None:
        """Count what is about to be written; raise `TooManyDead` if it must not be."""
        for one in verdicts:
            counts = isinstance(one, Dead) and one.reason in self.reasons
            self.run = self.run + 1 if counts else 0
            if self.limit and self.run >= self.limit:
                assert isinstance(one, Dead)
                raise TooManyDead(f"{self.run} records in a row were given up, the last: {one.reason}: {one.detail}")
