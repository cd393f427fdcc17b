"""The decision after a failure: the retry ladder, outcomes, and the headers with the history of a parked record.

A record ends as done, parked or dead. A parked or dead record keeps its bytes and its key; its history is in headers
(`schemas.retry`). A parked record waits exactly for the delay of its rung, so that the first record of a rung's
partition is always due first. A record that could not be tried is held: it is parked without using up an attempt, for
at most a day.
"""

import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from connectors.ports import Failure, Missing, Rejected, Throttled, Unauthorized, Unavailable
from schemas import topics
from schemas.retry import History, is_history
from streams.core.flows import Disposition, Emit, Headers, ProducerRecord, Record, encoded

# ---------------------------------------------------------------------------------------------------- retry ladder

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Rung:
    """One delay of the retry ladder and the topic on which records wait for it."""

    delay: str
    """The delay as in the setting, such as ``5m``; part of the topic's name."""
    seconds: float
    topic: str


Ladder = tuple[Rung, ...]
"""Rungs with increasing delays; a record has one attempt more than there are rungs."""


def ladder(text: str) -> Ladder:
    """Parse delays such as ``1m,2m,5m,10m``: at least one, increasing, from 1ms to 24h. Raise `ValueError`."""
    rungs: list[Rung] = []
    for part in (piece.strip() for piece in text.split(",")):
        found = re.fullmatch(r"(\d+)(ms|s|m|h)", part)
        if not found:
            raise ValueError(f"{part!r} is not a delay: a whole number with a unit, ms, s, m or h, such as 5m")
        seconds = int(found[1]) * _UNITS[found[2]]
        if not 0 < seconds <= _LONGEST:
            raise ValueError(f"{part} is out of range: a delay must be greater than 0 and at most 24h")
        if rungs and seconds <= rungs[-1].seconds:
            raise ValueError(f"{part} is not longer than {rungs[-1].delay}: the delays must increase")
        rungs.append(Rung(part, seconds, topics.rung(part).name))
    return tuple(rungs)


# -------------------------------------------------------------------------------------------------------- outcomes


class Reason(StrEnum):
    """The reason why a record was parked or became a dead letter; a closed set, used as a metric label."""

    UNAVAILABLE = "unavailable"
    THROTTLED = "throttled"
    UNAUTHORIZED = "unauthorized"
    MISSING = "missing"
    REJECTED = "rejected"
    MALFORMED = "malformed"
    """The value cannot be decoded."""
    BUG = "bug"
    """The flow raised an unexpected exception."""
    EXHAUSTED = "exhausted"
    """The last attempt failed; the detail has its failure."""
    TOO_LARGE = "too_large"
    """A record that had to be produced exceeds the size limit."""
    NO_ORIGIN = "no_origin"
    """A parked record has no valid header with its origin topic."""
    UNKNOWN_INTEGRATION = "unknown_integration"
    """The record was held because no integration has its name."""
    INTEGRATION_PROBLEM = "integration_problem"
    """The record was held because its integration cannot be used, for example without its encryption key."""
    BUSY = "busy"
    """The record was held because another one of its kind is being processed."""
    MISPLACED = "misplaced"
    """The record is on another partition than its org's."""
    UNREADABLE_ROW = "unreadable_row"
    """A row that the record needs cannot be decoded; or it is that row, which was removed."""
    UNKNOWN_WRITER = "unknown_writer"
    """The record was held because a newer release wrote it."""
    CIRCUIT_OPEN = "circuit_open"
    """The record was held because its integration is unavailable (`streams.core.breaker`)."""


@dataclass(frozen=True, slots=True)
class Done:
    """The record is processed; ``effects`` are produced before its offset is committed."""

    effects: tuple[Emit, ...] = ()
    ending: Disposition = Disposition.APPLIED


@dataclass(frozen=True, slots=True)
class Parked:
    """The record waits on a rung and then returns to its origin topic.

    If ``instead`` is set, that record returns in its place, to its own topic.
    """

    rung: Rung
    due_at: int
    """Milliseconds since the epoch."""
    attempt: int
    """The number of attempts so far: that of the failed attempt, or one less if the record was held."""
    reason: Reason
    detail: str
    effects: tuple[Emit, ...] = ()
    instead: Emit | None = None


@dataclass(frozen=True, slots=True)
class Dead:
    """The record becomes a dead letter, with its bytes and the reason, for an operator to inspect and replay."""

    reason: Reason
    detail: str
    attempt: int | None = None
    """The number of the failed attempt; null: the number in the record's headers."""
    effects: tuple[Emit, ...] = ()


Outcome = Done | Parked | Dead

NEVER_DEAD = frozenset({Reason.UNKNOWN_WRITER})
"""Reasons of a hold that an upgrade of this process ends, and nothing else should."""

HELD_AT_MOST = 24 * 3600.0
"""Seconds after a record's first failure or hold; from then on it becomes a dead letter instead of being held."""


@dataclass(frozen=True, slots=True)
class Held:
    """The record cannot be tried now and waits without using up an attempt (`outcome_of_hold`)."""

    reason: Reason
    detail: str
    until: datetime | None = None
    """The earliest time of the next attempt; null if it is not known."""


def outcome_of_hold(
    held: Held, attempt: int, first_failed_at: int | None, now: datetime, rungs: Ladder
) -> Parked | Dead:
    """Return the outcome of a record whose attempt number ``attempt`` (from 1) could not be made.

    It waits on the first rung that is long enough, or on the last. If the time of the next attempt is not known, it
    waits as long as it has waited before.
    """
    at = milliseconds(now)
    waited = 0.0 if first_failed_at is None else (at - first_failed_at) / 1000
    if waited >= HELD_AT_MOST and held.reason not in NEVER_DEAD:
        return Dead(held.reason, f"{held.detail}; held for {waited / 3600:.0f} hours", attempt - 1)
    wait = waited if held.until is None else (held.until - now).total_seconds()
    rung = next((one for one in rungs if one.seconds >= wait), rungs[-1])
    return Parked(rung, at + round(rung.seconds * 1000), attempt - 1, held.reason, held.detail)


def outcome_of(failure: Failure, attempt: int, now: datetime, rungs: Ladder) -> Parked | Dead:
    """Return the outcome of a record whose attempt number ``attempt`` (from 1) failed.

    After `Unavailable` and `Throttled` it waits on the rung of the attempt; a pause that the system asked for is a hold
    of all its records (`streams.core.breaker`). Other failures, and one after the last rung, make it a dead letter.
    """
    match failure:
        case Unavailable(detail=detail):
            reason = Reason.UNAVAILABLE
        case Throttled(detail=detail):
            reason = Reason.THROTTLED
        case Unauthorized(detail=detail):
            return Dead(Reason.UNAUTHORIZED, detail, attempt)
        case Missing(detail=detail):
            return Dead(Reason.MISSING, detail, attempt)
        case Rejected(detail=detail):
            return Dead(Reason.REJECTED, detail, attempt)
    if attempt > len(rungs):
        return Dead(Reason.EXHAUSTED, f"no attempt left after {attempt}; the last: {reason}: {detail}", attempt)
    rung = rungs[max(attempt, 1) - 1]
    return Parked(rung, milliseconds(now) + round(rung.seconds * 1000), attempt, reason, detail)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def milliseconds(moment: datetime) -> int:
    """Return a time as whole milliseconds since the epoch, the form of headers and record timestamps."""
    return (moment - _EPOCH) // _MILLISECOND


# ------------------------------------------------------------------------------------- parked records, dead letters


def park(record: Record, parked: Parked, flow: str, now: datetime) -> ProducerRecord:
    """Return the record to produce to the topic of the rung."""
    if parked.instead is None:
        returning = ProducerRecord(record.topic, record.key or b"", record.value, other_headers(record))
    else:
        returning = encoded(parked.instead)
    history = History(
        attempt=parked.attempt,
        origin=returning.topic,
        due_at=parked.due_at,
        reason=parked.reason,
        detail=parked.detail,
        flow=flow,
    )
    headers = returning.headers + _continued(record, history, now)
    return ProducerRecord(parked.rung.topic, returning.key, returning.value, headers)


def to_dead_letter(record: Record, dead: Dead, flow: str, now: datetime) -> ProducerRecord:
    """Return the dead letter of a record, with the headers that its inspection and its replay need."""
    history = History(
        attempt=attempt_of(record) if dead.attempt is None else dead.attempt,
        origin=record.topic,
        reason=dead.reason,
        detail=dead.detail,
        flow=flow,
    )
    headers = other_headers(record) + _continued(record, history, now)
    return ProducerRecord(topics.DEAD_LETTERS.name, record.key or b"", record.value, headers)


def history_of(record: Record) -> History:
    """Return what happened to a record so far."""
    return History.read(record.headers)


def attempt_of(record: Record) -> int:
    """Return the number of the current attempt: 1 for a record that never failed."""
    return history_of(record).attempt + 1


def first_failed_at(record: Record) -> int | None:
    """Return the time when a record first failed or was held, in milliseconds since the epoch; null if never."""
    return history_of(record).first_failed_at


def first_failure(record: Record) -> Headers:
    """Return the headers of a parked record that its replacement has to keep."""
    history = history_of(record)
    return History(first_failed_at=history.first_failed_at, replays=history.replays, replay=history.replay).headers()


def other_headers(record: Record) -> Headers:
    """Return the headers of a record that are not its history."""
    return tuple((name, value) for name, value in record.headers if not is_history(name))


def _continued(record: Record, history: History, now: datetime) -> Headers:
    """Return the headers of a history that goes on from that of a record."""
    before = history_of(record)
    first = milliseconds(now) if before.first_failed_at is None else before.first_failed_at
    return history.changed(first_failed_at=first, replays=before.replays, replay=before.replay).headers()


# -------------------------------------------------------------------------------- dead letters that indicate a bug


@dataclass(slots=True)
class DeadLetterGuard:
    """Decides whether records that failed with one of ``reasons``, which indicate a bug, become dead letters now.

    A broken deployment fails for every record, and must not turn a topic into dead letters, nor may its restarts. So a
    dead letter needs evidence that records like it succeed: one of the same group did in this process, and at most
    ``most`` of that group, and of all groups together, have failed since. Without it the record has to wait.

    A group is the integration or the org of a record; null for one that cannot be read, which any success is evidence
    for.
    """

    most: int = 3
    reasons: frozenset[Reason] = frozenset({Reason.BUG, Reason.MALFORMED, Reason.MISPLACED, Reason.UNREADABLE_ROW})
    successes: int = field(default=0, init=False)
    """Successes that ended a run of failures, and the first one."""
    _succeeded: set[Hashable] = field(default_factory=set, init=False)
    _runs: dict[Hashable, int] = field(default_factory=dict, init=False)
    """Failures by group since the last success of that group; those of all groups under null."""

    def succeeded(self, group: Hashable = None) -> None:
        """Take note of a record that ended in another way than with one of the reasons."""
        if self._runs or group not in self._succeeded:
            self.successes += 1
            self._succeeded |= {None, group}
            self._runs.pop(None, None)
            self._runs.pop(group, None)

    def allows(self, dead: Dead, group: Hashable = None, count: int = 1) -> bool:
        """Return whether so many failed records of a group may become dead letters; count them."""
        if dead.reason not in self.reasons:
            self.succeeded(group)
            return True
        for one in {None, group}:
            self._runs[one] = self._runs.get(one, 0) + count
        return {None, group} <= self._succeeded and max(self._runs[None], self._runs[group]) <= self.most
